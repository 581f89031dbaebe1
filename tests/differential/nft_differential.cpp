// SPDX-License-Identifier: BSD-3-Clause
//
// Random sequences of packets through the engine's pipeline and through the kernel's nftables and conntrack, which are
// told the same rules: every packet has the same fate and leaves the same flow remembered, or the difference is one
// that reasons.cpp names.
#include <chrono>
#include <cstdlib>
#include <deque>
#include <exception>
#include <iostream>
#include <map>
#include <optional>
#include <random>
#include <tuple>

#include "tests/differential/engine_firewall.h"
#include "tests/differential/kernel_firewall.h"
#include "tests/differential/nft_rules.h"
#include "tests/differential/random_flows.h"
#include "tests/differential/reasons.h"
#include "tests/oracle/security_group_oracle.h"

namespace trunkline::differential {
namespace {

constexpr std::uint32_t kPacketsOfAWorld = 20000;
constexpr std::uint64_t kAny = ~std::uint64_t{0};
constexpr std::size_t kRemembered = 12;  // packets of a flow that are told when one of them differs

struct Tally {
  std::map<std::string_view, std::uint64_t> by_reason;
  std::uint64_t packets = 0, passed = 0, unexplained = 0;
};

// Both directions of a flow; an ICMP query and its answers, by who asked.
using FlowName = std::tuple<std::string, int, IpAddress, IpAddress, int, int>;
FlowName name_of(const FlowPacket& packet) {
  const bool in = packet.direction == Direction::ingress;
  if (packet.is_icmp()) {
    const bool answers = packet.icmp_type == 0 || packet.icmp_type == 14 || packet.icmp_type == 129;
    return {packet.task, packet.protocol, packet.remote(), packet.local(), packet.icmp_id, answers != in};
  }
  return {packet.task,
          packet.protocol,
          packet.remote(),
          packet.local(),
          in ? packet.source_port : packet.destination_port,
          in ? packet.destination_port : packet.source_port};
}

class World {
 public:
  World(std::uint64_t seed, Tally& tally, std::uint64_t unexplained_allowed)
      : seed_(seed),
        tally_(tally),
        unexplained_allowed_(unexplained_allowed),
        flows_(seed),
        engine_(flows_.state(), engine_options()),
        kernel_(flows_.state(), kernel_options()) {
    follow_rules();
  }

  // The world up to `packets`. `shown`: the flow of this packet is told packet by packet. False: a difference that
  // nothing explains.
  bool go(std::uint32_t packets, std::optional<FlowName> shown) {
    shown_ = std::move(shown);
    for (std::uint32_t sent = 0; sent < packets;) {
      switch (flows_.next_step()) {
        case RandomFlows::Step::packet:
          ++sent;
          if (!packet()) return false;
          break;
        case RandomFlows::Step::edit: {
          const std::string what = flows_.edit();
          if (shown_) std::cout << "(" << what << ")\n";
          engine_.apply(flows_.state());
          kernel_.apply(flows_.state());
          follow_rules();
          break;
        }
        case RandomFlows::Step::pass: {
          const std::uint32_t seconds = flows_.duration();
          if (shown_) std::cout << "(" << seconds << " s pass)\n";
          engine_.pass_seconds(seconds);
          kernel_.pass_seconds(seconds);
          now_s_ += seconds;
          break;
        }
      }
    }
    return true;
  }
  FlowName last() const { return last_; }

 private:
  struct History {
    std::deque<Comparison> packets;
    std::uint64_t at_s = 0;
  };

  test::Vpc::Engine engine_options() const {
    test::Vpc::Engine engine;
    engine.strict_syn = flows_.options().strict_syn;
    engine.icmp_related = flows_.options().icmp_related;
    engine.connections = 1 << 16;  // none has to make room
    return engine;
  }
  KernelFirewall::Options kernel_options() const {
    return {.related = flows_.options().icmp_related,
            .pick_up = !flows_.options().strict_syn,
            .timeouts = {.syn_sent = 30,
                         .syn_recv = 30,
                         .established = 345,
                         .closing = 120,
                         .closed = 10,
                         .udp = 30,
                         .udp_stream = 180,
                         .icmp = 30,
                         .other = 600}};
  }

  void follow_rules() {
    rules_ = {};
    for (const auto& [id, members] : flows_.state().remote_members) {
      for (const IpAddress& member : members) rules_.members[id].insert(member);
    }
    for (const auto& [eni, task] : flows_.state().attachments) {
      for (const std::string& id : task.group_ids)
        rules_.members[id].insert(task.addresses.begin(), task.addresses.end());
    }
  }
  std::vector<const config::SecurityGroup*> groups_of(const config::Attachment& task) const {
    std::vector<const config::SecurityGroup*> groups;
    for (const std::string& id : task.group_ids) groups.push_back(flows_.state().security_groups.get(id));
    return groups;
  }
  bool rules_allow(const FlowPacket& packet) const {
    FlowQuery query;
    query.remote = packet.remote();
    query.protocol = packet.protocol;
    if (packet.is_icmp()) query.port = static_cast<std::uint16_t>(packet.icmp_type << 8 | packet.icmp_code);
    if (packet.protocol == proto::tcp || packet.protocol == proto::udp) query.port = packet.destination_port;
    return oracle::match(groups_of(flows_.state().attachments.at(packet.task)), rules_, packet.direction, query)
        .allowed;
  }

  // A rule from anywhere lets the first packet pass, and everything is open the other way.
  bool is_untracked(const config::Attachment& task, Direction direction, const FlowQuery& query) const {
    const std::vector<const config::SecurityGroup*> groups = groups_of(task);
    return !task.always_track && oracle::match(groups, rules_, direction, query).from_anywhere &&
           oracle::open_to_everyone(groups, rules_, opposite(direction), query.protocol, query.remote.is_v4());
  }
  bool may_be_untracked(const FlowPacket& packet) const {
    if (packet.protocol != proto::tcp && packet.protocol != proto::udp) return false;
    const config::Attachment& task = flows_.state().attachments.at(packet.task);
    FlowQuery first{packet.remote(), packet.protocol, packet.destination_port},
        answered{packet.remote(), packet.protocol, packet.source_port};
    return is_untracked(task, packet.direction, first) || is_untracked(task, opposite(packet.direction), answered);
  }

  void forget(const FlowPacket& packet) {
    engine_.forget(packet);
    kernel_.forget(packet);
  }

  // False: give up.
  bool explain(const Comparison& difference, const History& history) {
    if (const Reason* reason = reason_of(difference); reason != nullptr) {
      ++tally_.by_reason[reason->name];
      if (shown_ && last_ == *shown_) std::cout << "    explained: " << reason->name << '\n';
      return true;
    }
    ++tally_.unexplained;
    if (unexplained_allowed_ == kAny) return true;
    std::cout << "\nNot explained, seed " << seed_ << ", packet " << difference.packet.number
              << (flows_.options().strict_syn ? ", strict SYN" : "")
              << (flows_.options().icmp_related ? ", related ICMP errors pass" : "") << ":\n"
              << text_of(difference) << "\n  before it, of the same flow:\n";
    for (const Comparison& each : history.packets) std::cout << "  " << text_of(each) << '\n';
    std::cout << "again: nft_differential --seed " << seed_ << " --packet " << difference.packet.number << std::endl;
    return tally_.unexplained < unexplained_allowed_;
  }

  bool packet() {
    Comparison now;
    now.packet = flows_.packet();
    const FlowPacket subject = subject_of(now.packet);
    last_ = name_of(subject);
    History& history = history_[last_];
    now.rules_allow = rules_allow(now.packet);
    now.revalidates = flows_.state().attachments.at(now.packet.task).on_change == config::OnChange::revalidate;
    now.may_be_untracked = may_be_untracked(now.packet);
    now.strict_syn = flows_.options().strict_syn;
    now.engine_before = engine_.entry_of(subject);
    now.kernel_before = kernel_.entry_of(subject);
    const bool show = shown_ && last_ == *shown_;
    if (now.engine_before.exists != now.kernel_before.exists) {
      Comparison idle = now;
      idle.packet = subject;
      for (const Comparison& each : history.packets) {
        if (each.engine.passed && !each.packet.quoted) idle.packet = each.packet;
      }
      idle.idle = true;
      idle.idle_s = static_cast<std::uint32_t>(now_s_ - history.at_s);
      if (!history.packets.empty()) {
        idle.engine_before = history.packets.back().engine_after;
        idle.kernel_before = history.packets.back().kernel_after;
      }
      idle.engine_after = now.engine_before;
      idle.kernel_after = now.kernel_before;
      if (show) std::cout << text_of(idle) << '\n';
      if (!explain(idle, history)) return false;
      forget(subject);
      now.engine_before = {};
      now.kernel_before = {};
    }
    now.engine = engine_.pass_packet(now.packet);
    now.kernel_passed = kernel_.pass_packet(now.packet);
    now.engine_after = engine_.entry_of(subject);
    now.kernel_after = kernel_.entry_of(subject);
    ++tally_.packets;
    tally_.passed += now.engine.passed;
    if (show) std::cout << text_of(now) << '\n';
    flows_.told(now.engine.passed);
    history.at_s = now_s_;
    // Conntrack lets a SYN of a known connection pass, whatever the rules say by then, so it cannot tell this one.
    const bool begins_against_the_rules = now.packet.is_bare_syn() && !now.rules_allow && now.engine.passed;
    if (begins_against_the_rules) std::cout << "a bare SYN passed that the rules refuse:" << std::endl;
    if (!now.same_verdict() || !now.same_memory() || !now.same_belief() || begins_against_the_rules) {
      if (!explain(now, history)) return false;
      forget(subject);
      flows_.forgotten();
      now.engine_after = {};
      now.kernel_after = {};
    }
    history.packets.push_back(now);
    if (history.packets.size() > kRemembered) history.packets.pop_front();
    return true;
  }

  const std::uint64_t seed_;
  Tally& tally_;
  const std::uint64_t unexplained_allowed_;
  RandomFlows flows_;
  EngineFirewall engine_;
  KernelFirewall kernel_;
  oracle::World rules_;
  std::map<FlowName, History> history_;
  std::uint64_t now_s_ = 0;
  FlowName last_;
  std::optional<FlowName> shown_;
};

struct Arguments {
  std::optional<std::uint64_t> seed;
  std::uint32_t packets = 100000, seconds = 3600;
  std::uint32_t packet = 0;
  std::uint64_t unexplained = 1;
};

constexpr const char* kUsage =
    "nft_differential [--packets N] [--seconds N] [--seed S] [--unexplained N]\n"
    "    N packets (100000) in worlds of 20000, or as many worlds as begin within so many seconds (3600); S: the first "
    "world's seed;\n"
    "    gives up after so many differences that nothing explains (1)\n"
    "nft_differential --seed S --packet N\n"
    "    world S again, up to packet N, with all that happens to its flow\n";

Arguments arguments_of(int count, char** words) {
  Arguments arguments;
  for (int i = 1; i + 1 < count; i += 2) {
    const std::string word = words[i];
    const std::uint64_t value = std::strtoull(words[i + 1], nullptr, 10);
    if (word == "--seed") {
      arguments.seed = value;
    } else if (word == "--packets") {
      arguments.packets = static_cast<std::uint32_t>(value);
    } else if (word == "--seconds") {
      arguments.seconds = static_cast<std::uint32_t>(value);
    } else if (word == "--packet") {
      arguments.packet = static_cast<std::uint32_t>(value);
    } else if (word == "--unexplained") {
      arguments.unexplained = value;
    } else {
      throw std::invalid_argument(word);
    }
  }
  if (count % 2 == 0 || (arguments.packet != 0 && !arguments.seed))
    throw std::invalid_argument("the words do not fit together");
  return arguments;
}

bool replay(std::uint64_t seed, std::uint32_t packet) {
  Tally ignored;
  FlowName name;
  {
    enter_new_namespace();
    World world(seed, ignored, kAny);
    world.go(packet, {});
    name = world.last();
  }
  std::cout << "\nThe flow of packet " << packet << ", from its beginning:\n";
  enter_new_namespace();
  Tally tally;
  World world(seed, tally, kAny);
  world.go(packet, name);
  return tally.unexplained == 0;
}

bool run(const Arguments& arguments) {
  const std::uint64_t first = arguments.seed.value_or(std::random_device{}());
  std::cout << "seeds from " << first << std::endl;
  Tally tally;
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(arguments.seconds);
  for (std::uint64_t seed = first; tally.packets < arguments.packets && std::chrono::steady_clock::now() < end;
       ++seed) {
    enter_new_namespace();
    World world(seed, tally, arguments.unexplained);
    if (!world.go(
            std::min<std::uint32_t>(kPacketsOfAWorld, arguments.packets - static_cast<std::uint32_t>(tally.packets)),
            {}))
      break;
  }
  std::cout << tally.packets << " packets, of which the engine passed " << tally.passed << "; differences:\n";
  for (const auto& [name, count] : tally.by_reason) std::cout << "  " << name << ' ' << count << '\n';
  std::cout << "  not explained " << tally.unexplained << '\n';
  // A world in which nearly everything or nearly nothing passes would compare nothing.
  const bool dull = tally.passed < tally.packets / 4 || tally.passed > tally.packets - tally.packets / 10;
  if (dull) std::cout << "the worlds are dull\n";
  return tally.unexplained == 0 && !dull;
}

}  // namespace
}  // namespace trunkline::differential

int main(int count, char** words) {
  using namespace trunkline::differential;
  try {
    const Arguments arguments = arguments_of(count, words);
    return (arguments.packet != 0 ? replay(*arguments.seed, arguments.packet) : run(arguments)) ? 0 : 1;
  } catch (const std::invalid_argument& error) {
    std::cerr << error.what() << '\n' << kUsage;
    return 2;
  } catch (const std::exception& error) {
    std::cerr << error.what() << '\n';
    return 1;
  }
}
