// SPDX-License-Identifier: BSD-3-Clause
// How fast a change is enforced: the controller as the engine has it (journal included), ports that are only counted, and a
// thread that plays the worker. The time runs from the call until that thread's turn is the first to see the new rules,
// members or endpoint. `us_call_*` is until the call returns, which includes the disk where there is a journal; `us_cpu_*` is
// the calling thread's processor time in it, which a machine with other work to do does not lengthen.
//
// Not in it: reading the request (a group of 1000 rules is 150 kB of JSON) and, for attach, making the port.
#include <benchmark/benchmark.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <filesystem>
#include <stdexcept>
#include <string>
#include <thread>

#include "control/controller.h"

namespace trunkline::control {
namespace {

constexpr unsigned kEnis = 120;
constexpr unsigned kRules = 1000;
constexpr unsigned kMembers = 10000;
constexpr int kChanges = 600;

std::int64_t now_ns() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

std::int64_t cpu_ns() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return now.tv_sec * 1'000'000'000 + now.tv_nsec;
}

struct CountedPort final : TaskPort {
  std::uint16_t ethdev() const override { return 7; }
  bool link_up() const override { return true; }
  void remove_with_interface() override {}
};

// Looks once per turn, as a worker does, for what it was told to look for: another View, or an address in a group or out.
class Watcher {
 public:
  explicit Watcher(Published<View>& published) : published_(published), thread_([this] { run(); }) {
    while (!started_.load()) std::this_thread::yield();
  }
  ~Watcher() {
    stop_.store(true);
    thread_.join();
  }

  void expect_view() { expect(false, {}, false); }
  void expect_member(const IpAddress& address, bool present) { expect(true, address, present); }
  // When it was seen.
  std::int64_t seen() const {
    std::int64_t at = 0;
    while ((at = seen_.load(std::memory_order_acquire)) == 0) std::this_thread::yield();  // it may need this core
    return at;
  }

 private:
  void expect(bool member, const IpAddress& address, bool present) {
    is_member_ = member;
    address_ = address;
    present_ = present;
    before_ = published_.read();
    seen_.store(0, std::memory_order_relaxed);
    armed_.store(true, std::memory_order_release);
  }
  bool met(const View* view) const {
    return is_member_ ? (view->members->find(address_).count != 0) == present_ : view != before_;
  }
  void run() {
    published_.join(0);
    started_.store(true);
    while (!stop_.load(std::memory_order_relaxed)) {
      const View* view = published_.read();
      if (armed_.load(std::memory_order_acquire) && met(view)) {
        armed_.store(false, std::memory_order_relaxed);
        seen_.store(now_ns(), std::memory_order_release);
      }
      published_.quiescent(0);
    }
    published_.leave(0);
  }

  Published<View>& published_;
  std::atomic<bool> started_{false}, stop_{false}, armed_{false};
  std::atomic<std::int64_t> seen_{0};
  bool is_member_ = false, present_ = false;  // behind armed_
  IpAddress address_;
  const View* before_ = nullptr;
  std::thread thread_;
};

std::string group_id(unsigned number) {
  char text[32];
  std::snprintf(text, sizeof text, "sg-%017x", number);
  return text;
}
std::string eni_id(unsigned number) {
  char text[32];
  std::snprintf(text, sizeof text, "eni-%017x", number);
  return text;
}
const std::string kPrefixList = "pl-0123456789abcdef0";

// 1000 ingress rules: most name a range and a port, some a group.
config::SecurityGroup group(unsigned number, unsigned rules) {
  config::SecurityGroup result;
  result.id = group_id(number);
  for (unsigned i = 0; i < rules; ++i) {
    config::SecurityGroupRule rule;
    rule.protocol = i % 3 == 0 ? 17 : 6;
    rule.from_port = rule.to_port = static_cast<int>(1024 + i);
    if (i % 10 == 9) {
      rule.group_ids = {group_id(1000 + i % 50)};
    } else {
      rule.ranges = {IpPrefix{IpAddress::from_v4(0x0a000000U + (number << 16) + (i << 4)), 28}};
    }
    result.ingress.push_back(std::move(rule));
  }
  config::SecurityGroupRule everything;
  everything.ranges = {*IpPrefix::parse("0.0.0.0/0")};
  result.egress = {everything};
  return result;
}

config::Attachment attachment(unsigned number, unsigned group) {
  config::Attachment result;
  result.eni_id = eni_id(number);
  result.mac = MacAddress{{0x0a, 0, 0, 0, static_cast<std::uint8_t>(number >> 8), static_cast<std::uint8_t>(number)}};
  result.addresses = {IpAddress::from_v4(0x0a000010U + number)};
  result.subnet_id = "subnet-c070009b";
  result.vlan = VlanId{static_cast<std::uint16_t>(100 + number)};
  result.group_ids = {group_id(group)};
  result.port = config::PortSpec{};
  result.port->netns = "ns" + std::to_string(number);
  result.task.task_arn = "arn:aws:ecs:eu-central-1:123456789012:task/cluster/" + std::to_string(number);
  return result;
}

class Engine {
 public:
  Engine(bool with_journal, bool group_each) : published(1), worker(0, published, {}, 512, 1024, 1) {
    config.trunk.device = "net_null0";
    config.limits.endpoints = 512;
    config::Subnet subnet;
    subnet.id = "subnet-c070009b";
    subnet.cidr = *IpPrefix::parse("10.0.0.0/22");
    config.subnets = {subnet};
    directory = std::filesystem::temp_directory_path() / ("trunkline-control-bench-" + std::to_string(getpid()));
    std::filesystem::remove_all(directory);
    std::filesystem::create_directories(directory);
    journal = std::make_unique<Journal>(directory);
    controller = std::make_unique<Controller>(
        config, published, worker,
        [](const config::Attachment&, const config::Subnet&) { return std::make_unique<CountedPort>(); },
        std::uint16_t{0}, with_journal ? journal.get() : nullptr);
    change([&](config::DesiredState& next) {
      for (unsigned i = 0; i < (group_each ? kEnis : 1); ++i) next.security_groups[group_id(i)] = group(i, kRules);
      config::PrefixList list;
      list.id = kPrefixList;
      for (unsigned i = 0; i < 900; ++i) list.entries.push_back(IpPrefix{IpAddress::from_v4(0xc6000000U + (i << 8)), 24});
      next.prefix_lists[kPrefixList] = list;
      config::SecurityGroup with_list = group(500, 10);
      with_list.ingress[0].prefix_list_ids = {kPrefixList};
      next.security_groups[with_list.id] = with_list;
      auto& members = next.remote_members[group_id(1009)];
      for (unsigned i = 0; i < kMembers; ++i) members.insert(IpAddress::from_v4(0xac100000U + i * 3));
      for (unsigned i = 0; i < kEnis; ++i) next.attachments[eni_id(i)] = attachment(i, group_each ? i : 0);
    });
    watcher = std::make_unique<Watcher>(published);
  }
  ~Engine() {
    watcher.reset();
    controller.reset();
    std::filesystem::remove_all(directory);
  }

  template <class EditState>
  void change(EditState edit) {
    const auto result = controller->change([&](config::DesiredState& next, std::vector<std::string>&) {
      edit(next);
      return config::Problems{};
    });
    if (!result) throw std::runtime_error(result.error()[0].message);
    if (!result->changed || !result->durable) throw std::runtime_error("the change did not happen, or not on disk");
  }

  config::EngineConfig config;
  Published<View> published;
  Worker worker;
  std::filesystem::path directory;
  std::unique_ptr<Journal> journal;
  std::unique_ptr<Controller> controller;
  std::unique_ptr<Watcher> watcher;
};

void report(benchmark::State& bench, const char* name, std::vector<double> us) {
  if (us.empty()) return;
  std::sort(us.begin(), us.end());
  const auto at = [&](double share) { return us[static_cast<std::size_t>(share * static_cast<double>(us.size() - 1))]; };
  bench.counters[std::string(name) + "_p50"] = at(0.5);
  bench.counters[std::string(name) + "_p99"] = at(0.99);
  bench.counters[std::string(name) + "_max"] = us.back();
}

// Each change is prepared (what is to be seen, and what is put), then timed.
template <class Prepare, class EditState>
void measure(benchmark::State& bench, Engine& engine, Prepare prepare, EditState edit) {
  std::vector<double> enforced, called, computed;
  int number = 0;
  for (auto _ : bench) {
    prepare(number);
    const std::int64_t cpu = cpu_ns();
    const std::int64_t start = now_ns();
    engine.change([&](config::DesiredState& next) { edit(next, number); });
    const std::int64_t end = now_ns();
    computed.push_back(static_cast<double>(cpu_ns() - cpu) / 1e3);
    const std::int64_t seen = engine.watcher->seen();
    enforced.push_back(static_cast<double>(seen - start) / 1e3);
    called.push_back(static_cast<double>(end - start) / 1e3);
    bench.SetIterationTime(static_cast<double>(seen - start) / 1e9);
    if (++number % 100 == 0) engine.controller->tick();
  }
  report(bench, "us", std::move(enforced));
  report(bench, "us_call", std::move(called));
  report(bench, "us_cpu", std::move(computed));
}

// One rule of a group of 1000 gets another port. The group comes whole, as sg.put brings it.
void rule_change(benchmark::State& bench, bool group_each) {
  Engine engine(bench.range(0) != 0, group_each);
  const unsigned which = group_each ? 60 : 0;
  config::SecurityGroup next_group;
  measure(
      bench, engine,
      [&](int number) {
        next_group = group(which, kRules);
        next_group.ingress[500].to_port = 2000 + number;
        engine.watcher->expect_view();
      },
      [&](config::DesiredState& next, int) { next.security_groups.insert_or_assign(group_id(which), std::move(next_group)); });
}
void rule_of_one_group_on_120_enis(benchmark::State& bench) { rule_change(bench, false); }
void rule_of_one_of_120_groups(benchmark::State& bench) { rule_change(bench, true); }

void member_of_10k(benchmark::State& bench) {
  Engine engine(bench.range(0) != 0, false);
  const auto address = [](int number) { return IpAddress::from_v4(0xac100000U + static_cast<std::uint32_t>(number) / 2 * 51 + 1); };
  measure(
      bench, engine, [&](int number) { engine.watcher->expect_member(address(number), number % 2 == 0); },
      [&](config::DesiredState& next, int number) {
        auto& members = next.remote_members[group_id(1009)];
        number % 2 == 0 ? static_cast<void>(members.insert(address(number))) : static_cast<void>(members.erase(address(number)));
      });
}

void prefix_list_entry(benchmark::State& bench) {
  Engine engine(bench.range(0) != 0, false);
  engine.change([&](config::DesiredState& next) { next.attachments[eni_id(7)].group_ids = {group_id(500)}; });
  measure(
      bench, engine, [&](int) { engine.watcher->expect_view(); },
      [&](config::DesiredState& next, int number) {
        next.prefix_lists[kPrefixList].entries[450] = IpPrefix{IpAddress::from_v4(0xd0000000U + (static_cast<std::uint32_t>(number) << 8)), 24};
      });
}

void attach_and_detach(benchmark::State& bench) {
  Engine engine(bench.range(0) != 0, false);
  measure(
      bench, engine, [&](int) { engine.watcher->expect_view(); },
      [&](config::DesiredState& next, int number) {
        if (number % 2 == 0) {
          next.attachments[eni_id(kEnis)] = attachment(kEnis, 0);
        } else {
          next.attachments.erase(eni_id(kEnis));
        }
      });
}

#define ENFORCED(name) \
  BENCHMARK(name)->ArgName("journal")->Arg(0)->Arg(1)->Iterations(kChanges)->UseManualTime()->Unit(benchmark::kMicrosecond)
ENFORCED(rule_of_one_group_on_120_enis);
ENFORCED(rule_of_one_of_120_groups);
ENFORCED(member_of_10k);
ENFORCED(prefix_list_entry);
ENFORCED(attach_and_detach);

}  // namespace
}  // namespace trunkline::control

BENCHMARK_MAIN();
