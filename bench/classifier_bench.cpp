// SPDX-License-Identifier: BSD-3-Clause
//
// The classifier alone: what one first packet costs, what a change of a member costs, what building the rules costs;
// and beside it, in the same run on the same packets, DPDK's rte_acl. Counters as sampling.h has them: TSC cycles a
// packet (or a change, or a build), and a ratio above 1 where ours is faster.
#include <benchmark/benchmark.h>
#include <rte_eal.h>
#include <rte_vect.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <fstream>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "bench/acl_peer.h"
#include "bench/first_packets.h"
#include "bench/sampling.h"

namespace trunkline::bench {
namespace {

constexpr std::size_t kBurst = 32;
constexpr std::size_t kSample = 1 << 12;  // packets
constexpr std::size_t kSamples = 201, kPairs = 201;
constexpr RuleSetShape kOne{1}, kSixty{60}, kThousand{1000}, kMixed{1000, true}, kFull{1000, false, 10'000, 1000};

// Walks the packets, a burst at a time, sample after sample.
class Walk {
 public:
  explicit Walk(const std::vector<FlowQuery>& packets) : packets_(packets) {}
  template <typename Work>
  std::size_t operator()(Work&& work) {
    for (std::size_t done = 0; done < kSample; done += kBurst) {
      work(std::span(packets_).subspan(next_, kBurst));
      next_ = (next_ + kBurst) % packets_.size();
    }
    return kSample;
  }

 private:
  const std::vector<FlowQuery>& packets_;
  std::size_t next_ = 0;
};

// As the admit stage does it: questions for the burst, then all answers.
class Ours {
 public:
  Ours(const RuleBits& rules, const Members& members, SearchIsa isa = fastest_search()) : members_(members), isa_(isa) {
    for (RuleLookup& lookup : lookups_) lookup.rules = &rules;
  }
  void operator()(std::span<const FlowQuery> burst) {
    for (std::size_t i = 0; i < burst.size(); ++i) lookups_[i].query = burst[i];
    match_rules(std::span(lookups_).first(burst.size()), members_, isa_);
    benchmark::DoNotOptimize(lookups_);
    benchmark::ClobberMemory();
  }
  const RuleMatch& match(std::size_t i) const { return lookups_[i].match; }

 private:
  std::array<RuleLookup, kBurst> lookups_;
  const Members& members_;
  SearchIsa isa_;
};

void classify(benchmark::State& bench, RuleSetShape shape, SearchIsa isa) {
  const FirstPackets world(shape);
  Ours ours(world.policy->ingress, world.members, isa);
  Walk walk(world.packets);
  for (auto _ : bench) report(bench.counters, sample(kSamples, [&] { return walk(ours); }));
  std::size_t allowed = 0, asked = 0;
  for (std::size_t i = 0; i < FirstPackets::kPackets; i += kBurst) {
    ours(std::span(world.packets).subspan(i, kBurst));
    for (std::size_t each = 0; each < kBurst; ++each, ++asked) allowed += ours.match(each).allowed;
  }
  bench.counters["allowed%"] = 100.0 * static_cast<double>(allowed) / static_cast<double>(asked);
  bench.counters["KiB"] = static_cast<double>(world.policy->ingress.memory_bytes()) / 1024;
}

// One packet after the other, each asking for itself: what the batch saves.
void classify_singly(benchmark::State& bench, RuleSetShape shape) {
  const FirstPackets world(shape);
  Walk walk(world.packets);
  const auto work = [&](std::span<const FlowQuery> burst) {
    for (const FlowQuery& query : burst) {
      benchmark::DoNotOptimize(world.policy->ingress.match(query, world.members.find(query.remote).view()));
    }
  };
  for (auto _ : bench) report(bench.counters, sample(kSamples, [&] { return walk(work); }));
}

// A burst whose packets belong to many ENIs, each with rules of its own.
void classify_endpoints(benchmark::State& bench, RuleSetShape shape, std::size_t endpoints) {
  std::vector<std::unique_ptr<FirstPackets>> worlds;
  for (std::size_t i = 0; i < endpoints; ++i) worlds.push_back(std::make_unique<FirstPackets>(shape, i + 1));
  std::array<RuleLookup, kBurst> lookups;
  std::size_t next = 0;
  const auto work = [&] {
    for (std::size_t done = 0; done < kSample; done += kBurst) {
      for (RuleLookup& lookup : lookups) {
        const FirstPackets& world = *worlds[next * 7919 % endpoints];
        lookup.rules = &world.policy->ingress;
        lookup.rules->prefetch();
        lookup.query = world.packets[next % FirstPackets::kPackets];
        ++next;
      }
      match_rules(lookups, worlds[0]->members);
      benchmark::ClobberMemory();
    }
    return kSample;
  };
  for (auto _ : bench) report(bench.counters, sample(kSamples, work));
}

void classify_beside_acl(benchmark::State& bench, RuleSetShape shape, AclAlgorithm algorithm, bool scanned) {
  const FirstPackets world(shape);
  AclPeer acl(world.group.ingress);
  if (!acl.use(algorithm)) return bench.SkipWithError("rte_acl cannot use it here");
  const std::vector<FlowQuery>& packets = scanned ? world.scan : world.packets;
  std::vector<AclPeer::Key> keys;
  for (const FlowQuery& query : packets) keys.push_back(AclPeer::key(query));
  std::array<std::uint32_t, kBurst> results;
  const auto peer = [&](std::span<const FlowQuery> burst) {
    std::array<const std::uint8_t*, kBurst> pointers;
    const AclPeer::Key* const first = &keys[static_cast<std::size_t>(burst.data() - packets.data())];
    for (std::size_t i = 0; i < kBurst; ++i) pointers[i] = reinterpret_cast<const std::uint8_t*>(first + i);
    acl.classify(pointers.data(), results.data(), kBurst);
    benchmark::DoNotOptimize(results);
    benchmark::ClobberMemory();
  };
  Ours ours(world.policy->ingress, world.members);

  for (std::size_t i = 0; i < packets.size(); i += kBurst) {
    const auto burst = std::span(packets).subspan(i, kBurst);
    ours(burst);
    peer(burst);
    for (std::size_t each = 0; each < kBurst; ++each) {
      const RuleMatch& match = ours.match(each);
      if (results[each] != (match.allowed ? match.rule + 1U : 0U)) return bench.SkipWithError("the two do not agree");
    }
  }
  Walk our_walk(packets), peer_walk(packets);
  for (auto _ : bench) {
    report(bench.counters, compare(
                               kPairs, [&] { return our_walk(ours); }, [&] { return peer_walk(peer); }));
  }
}

// A task starts or stops: an address leaves its group, or comes back. Per change.
void change_member(benchmark::State& bench) {
  FirstPackets world(kFull);
  Members& members = world.members;
  const GroupId named[]{world.numbers.number("sg-0000000a")};
  std::vector<std::uint32_t> order(10'000);
  for (std::uint32_t i = 0; i < order.size(); ++i) order[i] = i;
  std::ranges::shuffle(order, std::mt19937_64(1));
  const auto work = [&] {
    for (const std::uint32_t i : order) members.set(IpAddress::from_v4(0x0a400000U + i * 3), {});
    for (const std::uint32_t i : order) members.set(IpAddress::from_v4(0x0a400000U + i * 3), named);
    return 2 * order.size();
  };
  for (auto _ : bench) report(bench.counters, sample(41, work));
  bench.counters["KiB"] = static_cast<double>(members.memory_bytes()) / 1024;
}

// From the desired state's groups to what a worker reads. Per build.
void build(benchmark::State& bench, RuleSetShape shape) {
  FirstPackets world(shape);
  const auto work = [&] {
    benchmark::DoNotOptimize(world.compile());
    return std::size_t{1};
  };
  for (auto _ : bench) report(bench.counters, sample(201, work));
}

void build_beside_acl(benchmark::State& bench, RuleSetShape shape) {
  FirstPackets world(shape);
  AclPeer acl(world.group.ingress);
  const auto ours = [&] {
    benchmark::DoNotOptimize(world.compile());
    return std::size_t{1};
  };
  const auto peer = [&] {
    acl.build();
    return std::size_t{1};
  };
  for (auto _ : bench) report(bench.counters, compare(13, ours, peer));
}

// The EAL only as far as rte_acl needs it: no devices, nothing that another process could see. Its memory is hugepages
// where 128 MB of them are free, which is to rte_acl's advantage; ours is the ordinary heap.
bool start_eal(const char* program) {
  std::size_t free_pages = 0;
  std::ifstream("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages") >> free_pages;
  std::vector<std::string> arguments{program, "--no-pci", "--no-telemetry", "--log-level=error",
                                     "--force-max-simd-bitwidth=512"};
  if (free_pages >= 64) {
    arguments.insert(arguments.end(), {"--in-memory", "-m", "128"});
  } else {
    arguments.insert(arguments.end(), {"--no-huge", "--no-shconf", "-m", "512"});
  }
  std::printf("rte_acl's memory: %s\n", free_pages >= 64 ? "hugepages" : "no hugepages free, ordinary pages");
  std::vector<char*> pointers;
  for (std::string& argument : arguments) pointers.push_back(argument.data());
  return rte_eal_init(static_cast<int>(pointers.size()), pointers.data()) >= 0;
}

template <typename... Arguments>
void add(const std::string& name, Arguments... arguments) {
  benchmark::RegisterBenchmark(name.c_str(), arguments...)->Iterations(1)->Unit(benchmark::kMillisecond);
}

void add_all() {
  const bool avx512 = is_available(SearchIsa::avx512);
  if (!avx512) std::puts("note: no AVX-512 here: neither ours nor rte_acl's is measured");
  const auto is_here = [&](std::string_view name) { return avx512 || !name.starts_with("avx512"); };
  const std::pair<const char*, SearchIsa> isas[] = {
      {"scalar", SearchIsa::scalar}, {"avx2", SearchIsa::avx2}, {"avx512", SearchIsa::avx512}};
  const std::pair<const char*, RuleSetShape> shapes[] = {{"1_rule", kOne},
                                                         {"60_rules", kSixty},
                                                         {"1000_rules", kThousand},
                                                         {"1000_rules_mixed", kMixed},
                                                         {"1000_rules_group_list", kFull}};
  const std::pair<const char*, AclAlgorithm> algorithms[] = {{"scalar", RTE_ACL_CLASSIFY_SCALAR},
                                                             {"avx2", RTE_ACL_CLASSIFY_AVX2},
                                                             {"avx512x16", RTE_ACL_CLASSIFY_AVX512X16},
                                                             {"avx512x32", RTE_ACL_CLASSIFY_AVX512X32}};
  for (const auto& [shape_name, shape] : shapes) {
    for (const auto& [isa_name, isa] : isas) {
      if (is_here(isa_name)) add(std::string("classify/") + shape_name + "/" + isa_name, classify, shape, isa);
    }
    add(std::string("classify_singly/") + shape_name, classify_singly, shape);
  }
  add("classify/60_rules/120_endpoints", classify_endpoints, kSixty, std::size_t{120});
  add("classify/1000_rules/120_endpoints", classify_endpoints, kThousand, std::size_t{120});
  for (const auto& [shape_name, shape] : std::span(shapes).first(4)) {
    for (const auto& [name, algorithm] : algorithms) {
      if (is_here(name)) add(std::string("beside_acl/") + shape_name + "/" + name, classify_beside_acl, shape, algorithm, false);
    }
  }
  for (const auto& [name, algorithm] : algorithms) {
    if (is_here(name)) add(std::string("beside_acl/1000_rules_port_scan/") + name, classify_beside_acl, kThousand, algorithm, true);
  }
  add("change_member", change_member);
  for (const auto& [name, shape] : shapes) add(std::string("build/") + name, build, shape);
  add("build_beside_acl/60_rules", build_beside_acl, kSixty);
  add("build_beside_acl/1000_rules", build_beside_acl, kThousand);
  add("build_beside_acl/1000_rules_mixed", build_beside_acl, kMixed);
}

}  // namespace
}  // namespace trunkline::bench

int main(int argc, char** argv) {
  if (!trunkline::bench::start_eal(argv[0])) {
    std::fputs("the EAL does not start; rte_acl needs it\n", stderr);
    return 1;
  }
  trunkline::bench::add_all();
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
