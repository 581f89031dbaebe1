// SPDX-License-Identifier: BSD-3-Clause
//
// The packet path in process, no I/O: TSC cycles and nanoseconds a packet at burst 32. One sample is the 1024 packets of the
// ring; the figures are medians over samples (sampling.h). `./dev bench quick`.
#include <benchmark/benchmark.h>

#include <atomic>
#include <thread>

#include "bench/bench_world.h"
#include "bench/established.h"
#include "bench/sampling.h"
#include "dataplane/state/published.h"

namespace trunkline::bench {
namespace {

// One pass of Google Benchmark is all our samples.
void demux(benchmark::State& state) {
  Established run(4096, static_cast<unsigned>(state.range(0)));
  Samples<2> samples;
  for (auto _ : state) {
    samples.take(400, [&]() -> Row<2> {
      const double parsed = run.ingress(Upto::parse);
      return {parsed, run.ingress(Upto::demux)};
    });
  }
  report(state.counters, samples, [](const Row<2>& row) { return row[1] - row[0]; });
  state.counters["with_parse_cycles"] = median(samples.column(1));
}
BENCHMARK(demux)->Arg(120)->Arg(4096)->Iterations(1)->Unit(benchmark::kMillisecond);

void parse_alone(benchmark::State& state) {
  Established run(4096, kEndpoints);
  for (auto _ : state) report(state.counters, samples_of(400, [&] { return run.ingress(Upto::parse); }));
}
BENCHMARK(parse_alone)->Name("parse")->Iterations(1)->Unit(benchmark::kMillisecond);

void established(benchmark::State& state) {
  Established run(static_cast<std::uint32_t>(state.range(0)), kEndpoints);
  Samples<2> samples;
  for (auto _ : state) {
    samples.take(400, [&]() -> Row<2> {
      const double in = run.ingress(Upto::all);
      return {in, run.egress()};
    });
  }
  if (run.world().forwarded % Ring::kPackets != 0 || run.world().forwarded < 800 * Ring::kPackets) state.SkipWithError("not every packet was forwarded");
  report(state.counters, samples, [](const Row<2>& row) { return (row[0] + row[1]) / 2; });
  state.counters["ingress_cycles"] = median(samples.column(0));
  state.counters["egress_cycles"] = median(samples.column(1));
  state.counters["connections"] = static_cast<double>(run.world().worker.connections.size());
  state.counters["page_kb"] = static_cast<double>(run.world().worker.connections.page_bytes()) / 1024;
}
BENCHMARK(established)->Arg(10'000)->Arg(100'000)->Arg(1'000'000)->Iterations(1)->Unit(benchmark::kMillisecond);

void imix(benchmark::State& state) {
  Established run(100'000, kEndpoints);
  for (auto _ : state) report(state.counters, samples_of(300, [&] { return run.ingress(Upto::all, 1); }));
}
BENCHMARK(imix)->Iterations(1)->Unit(benchmark::kMillisecond);

// What each stage adds, in the order of the pipeline: medians of one run, the stages in turn.
void adders(benchmark::State& state) {
  Established run(static_cast<std::uint32_t>(state.range(0)), kEndpoints);
  Samples<6> samples;
  for (auto _ : state) {
    samples.take(300, [&] {
      Row<6> row;
      for (const Upto stage : {Upto::parse, Upto::demux, Upto::track, Upto::admit, Upto::account, Upto::all}) {
        row[static_cast<std::size_t>(stage)] = run.ingress(stage);
      }
      return row;
    });
  }
  const auto of = [&](Upto stage) { return median(samples.column(static_cast<std::size_t>(stage))); };
  state.counters["parse_cycles"] = of(Upto::parse);
  state.counters["demux_cycles"] = of(Upto::demux) - of(Upto::parse);
  state.counters["track_cycles"] = of(Upto::track) - of(Upto::demux);
  state.counters["admit_cycles"] = of(Upto::admit) - of(Upto::track);
  state.counters["account_cycles"] = of(Upto::account) - of(Upto::admit);
  state.counters["forward_cycles"] = of(Upto::all) - of(Upto::account);
  // cycles: the flow-log accounting's
  report(state.counters, samples, [](const Row<6>& row) { return row[static_cast<std::size_t>(Upto::account)] - row[static_cast<std::size_t>(Upto::admit)]; });
}
BENCHMARK(adders)->Arg(10'000)->Arg(1'000'000)->Iterations(1)->Unit(benchmark::kMillisecond);

// First packets: every packet opens a connection that one of the rules lets in, with entries from the free list as in service.
struct FirstPackets {
  FirstPackets(unsigned rules, std::uint32_t capacity) : rules_(many_rules(rules, 5)), world(kEndpoints, rules_, capacity), random(3) {
    const GroupId group = world.numbers.number("sg-0000000c");
    for (std::uint32_t i = 0; i < 10000; ++i) world.members->set(IpAddress::from_v4(0x65000000U + i * 7), {&group, 1});
    world.worker.now = 1;
  }

  // A flow that one of the rules lets in.
  Flow flow() {
    const auto& rules = rules_.groups[0].ingress;
    const config::SecurityGroupRule& rule = rules[random() % rules.size()];
    std::uint32_t remote;
    if (!rule.group_ids.empty()) {
      remote = 0x65000000U + static_cast<std::uint32_t>(random() % 10000) * 7;
    } else if (!rule.prefix_list_ids.empty()) {
      remote = 0x64000000U + (static_cast<std::uint32_t>(random() % 1000) << 12) + static_cast<std::uint32_t>(random() & 255);
    } else {
      remote = rule.ranges[0].address.v4() + static_cast<std::uint32_t>(random() & 255);
    }
    return {remote, static_cast<std::uint16_t>(random()), static_cast<std::uint16_t>(rule.from_port + static_cast<int>(random() % static_cast<unsigned>(rule.to_port - rule.from_port + 1))),
            static_cast<std::uint16_t>(random() % kEndpoints), static_cast<std::uint8_t>(rule.protocol)};
  }

  Rules rules_;
  BenchWorld world;
  std::mt19937_64 random;
};

void first_packet(benchmark::State& state) {
  const bool flood = state.range(1) != 0;
  const std::uint32_t capacity = 2'000'000;
  FirstPackets run(static_cast<unsigned>(state.range(0)), capacity);
  BenchWorld& world = run.world;
  std::uint64_t opened = 0, sent = 0;
  const auto one = [&] {
    for (std::uint32_t i = 0; i < Ring::kPackets; ++i) world.write(i, run.flow(), Direction::ingress, kSyn);
    sent += Ring::kPackets;
    // As long as nobody floods, unanswered connections do not have to make room for new ones. The sweep is not what is
    // measured here (see connections_per_second).
    while (!flood && world.worker.connections.size() + Ring::kPackets > capacity / 8) {
      world.worker.now += seconds(40);
      while (!world.worker.connections.sweep(4096, world.worker.now, *world.view)) {
      }
    }
    const std::uint64_t before = world.worker.connections.size();
    const double cycles = cycles_a_packet([&] {
      for (std::uint32_t first = 0; first < Ring::kPackets; first += kBurst) {
        Burst burst;
        world.burst_at(burst, first);
        process_from_trunk(burst, world.worker);
        world.flush();
        benchmark::DoNotOptimize(burst);
      }
      return std::size_t{Ring::kPackets};
    });
    opened += world.worker.connections.size() - before;
    return cycles;
  };
  for (auto _ : state) report(state.counters, samples_of(1000, one));
  state.counters["opened"] = static_cast<double>(opened) / static_cast<double>(sent);
  state.counters["recycled"] = static_cast<double>(world.worker.connections.recycled());
}
BENCHMARK(first_packet)->ArgNames({"rules", "flood"})->Args({1, 0})->Args({60, 0})->Args({1000, 0})->Args({1000, 1})->Iterations(1)->Unit(benchmark::kMillisecond);

// TCP connections from the SYN to the last ACK, six packets, whose entries then make room for later ones; 1000 rules, accounting on, and a record
// of each for the flow logs.
void connections_per_second(benchmark::State& state) {
  const std::uint32_t capacity = 1'000'000;
  FirstPackets run(1000, capacity);
  BenchWorld& world = run.world;
  world.worker.flows.on = true;
  struct Step {
    const char* name;
    Direction direction;
    std::uint8_t flags;
  };
  static constexpr Step steps[6] = {{"syn", Direction::ingress, kSyn},    {"syn_ack", Direction::egress, kSynAck},    {"ack", Direction::ingress, kAck},
                                    {"fin", Direction::egress, kFinAck}, {"other_fin", Direction::ingress, kFinAck}, {"last_ack", Direction::egress, kAck}};
  constexpr std::uint32_t kConnections = Ring::kPackets;  // at a time; each burst has those of one endpoint
  constexpr std::uint32_t kPart = 8 * kBurst;             // a sample, short enough to meet one pace of the core
  Samples<1> samples[std::size(steps)];
  std::vector<Flow> flows(kConnections);
  std::uint64_t done = 0, records = 0;
  SharedRing<FlowRecord>& ring = world.worker.flows.ring();
  const auto one = [&] {
    for (std::uint32_t i = 0; i < kConnections; ++i) {
      do flows[i] = run.flow();
      while (flows[i].protocol != 6);
      flows[i].endpoint = static_cast<std::uint16_t>((i / kBurst + done / kConnections) % kEndpoints);
    }
    for (std::size_t number = 0; number < std::size(steps); ++number) {
      const Step& step = steps[number];
      // Without payload: what carries some behind its own FIN was not closed (docs/connections.md), and would fill the table.
      for (std::uint32_t i = 0; i < kConnections; ++i) world.write(i, flows[i], step.direction, step.flags, 40);
      for (std::uint32_t part = 0; part < kConnections; part += kPart) {
        samples[number].add([&] {
          return Row<1>{cycles_a_packet([&] {
            for (std::uint32_t first = part; first < part + kPart; first += kBurst) {
              Burst burst;
              world.burst_at(burst, first);
              if (step.direction == Direction::ingress) {
                process_from_trunk(burst, world.worker);
              } else {
                process_from_task(burst, world.worker, *world.view->endpoints[flows[first].endpoint]);
              }
              world.flush();
              world.worker.connections.sweep(kBurst / 4, world.worker.now, *world.view);
              world.worker.flows.flush();
            }
            return std::size_t{kPart};
          })};
        });
        records += ring.ready();  // control's part
        ring.drop(ring.ready());
      }
    }
    done += kConnections;
    // Time passes so that a third of the table would be what has closed within its timeout (120 s); an eighth is what may stay.
    world.worker.now = world.worker.flows.now = static_cast<Tick>(done * seconds(120) / (capacity / 3));
  };
  for (auto _ : state) {
    for (int i = 0; i < 1500; ++i) one();
  }
  // Of one connection: six packets and its share of the sweep.
  const auto sum = [&](auto&& of) {
    double total = 0;
    for (const Samples<1>& step : samples) total += of(step);
    return total;
  };
  const double cycles = sum([](const auto& step) { return median(step.column(0)); });
  state.counters["cycles"] = cycles;
  state.counters["p10"] = sum([](const auto& step) { return percentile(step.column(0), 0.1); });
  state.counters["p90"] = sum([](const auto& step) { return percentile(step.column(0), 0.9); });
  state.counters["ns"] = cycles / tsc_ghz();
  state.counters["pace"] = sum([](const auto& step) { return step.pace(); }) / std::size(steps);
  state.counters["full_pace"] = sum([](const auto& step) { return step.share_at_full_pace(); }) / std::size(steps);
  state.counters["per_second"] = tsc_ghz() * 1e9 / cycles;
  for (std::size_t i = 0; i < std::size(steps); ++i) state.counters[std::string(steps[i].name) + "_cycles"] = median(samples[i].column(0));
  state.counters["forwarded"] = static_cast<double>(world.forwarded) / static_cast<double>(done * 6);
  if (world.forwarded != done * 6) state.SkipWithError("packets were refused, so these are not connections from SYN to last ACK");
  state.counters["recorded"] = static_cast<double>(records) / static_cast<double>(done - world.worker.connections.size());
  state.counters["in_table"] = static_cast<double>(world.worker.connections.size());
}
BENCHMARK(connections_per_second)->Iterations(1)->Unit(benchmark::kMillisecond);

// From one task to another of the same host: both halves of the pipeline, two connections.
void hairpin(benchmark::State& state) {
  BenchWorld world(kEndpoints, open_rules(), 200'000);
  std::mt19937_64 random(3);
  std::vector<Flow> flows;
  for (unsigned i = 0; i < 10'000; ++i) {
    const auto from = static_cast<std::uint16_t>(random() % kEndpoints);
    flows.push_back({BenchWorld::address_of((from + 1 + static_cast<unsigned>(random() % (kEndpoints - 1))) % kEndpoints), 80,
                     static_cast<std::uint16_t>(random()), from, 6});
  }
  std::ranges::sort(flows, {}, &Flow::endpoint);
  const auto one = [&] {
    EndpointOfBurst endpoints;
    for (std::uint32_t i = 0; i < Ring::kPackets; ++i) {
      static std::size_t start = 0;
      if (i % kBurst == 0) {
        do start = random() % (flows.size() - kBurst);
        while (flows[start].endpoint != flows[start + kBurst - 1].endpoint);
        endpoints[i / kBurst] = flows[start].endpoint;
      }
      world.write(i, flows[start + i % kBurst], Direction::egress, kAck);
    }
    return cycles_a_packet([&] { return process_egress(world, endpoints); });
  };
  for (auto _ : state) report(state.counters, samples_of(400, one));
}
BENCHMARK(hairpin)->Iterations(1)->Unit(benchmark::kMillisecond);

// Other ENIs' packets while one ENI gets a new policy of 1000 rules a thousand times a second: compiled, put into a copy of the
// View and published by another thread, with the old ones reclaimed, and a member of a group written in place each time.
// Samples with and without, in turns; the ratio is the throughput with updates over that without.
void during_updates(benchmark::State& state) {
  Established run(10'000, kEndpoints, 1);
  WorkerState& worker = run.world().worker;
  Published<View> published(1);
  published.publish(run.world().view);
  published.join(0);
  std::atomic<bool> updating{false}, stop{false};
  std::atomic<std::uint64_t> updates{0};
  std::thread control([&] {
    const Rules rules = many_rules(1000, 5);
    control::GroupNumbers numbers;
    const config::SecurityGroup* groups[] = {&rules.groups[0]};
    auto next_time = std::chrono::steady_clock::now();
    for (std::uint32_t number = 0; !stop.load(std::memory_order_relaxed);) {
      next_time += std::chrono::milliseconds(1);
      std::this_thread::sleep_until(next_time);
      if (!updating.load(std::memory_order_relaxed)) continue;
      auto view = std::make_shared<View>(*published.latest());
      auto endpoint = std::make_shared<Endpoint>(*view->endpoints[kEndpoints]);
      endpoint->policy = control::compile_policy(groups, rules.prefix_lists, numbers, ++number + 1);
      endpoint->derive();
      view->replace(endpoint);
      ++view->generation;
      const GroupId group{number & 1};
      run.world().members->set(IpAddress::from_v4(0xc6330001U), {&group, 1});
      published.publish(std::move(view));
      published.reclaim();
      updates.fetch_add(1, std::memory_order_relaxed);
    }
  });
  std::uint32_t spans = 0;
  const auto sample = [&](bool with) {
    updating.store(with);
    spans += with;
    // 50 ms each, so that many updates fall into it.
    Samples<1> within;
    const std::uint64_t end = rte_rdtsc() + static_cast<std::uint64_t>(tsc_ghz() * 50e6);
    do {
      worker.view = published.read();
      within.add([&] { return Row<1>{run.ingress(Upto::all)}; });
      published.quiescent(0);
    } while (rte_rdtsc() < end);
    slowest_pace = within.pace();
    return median(within.column(0));
  };
  bool quiet_first = false;
  Samples<2> samples;  // with, without
  for (auto _ : state) {
    samples.take(16, [&]() -> Row<2> {
      quiet_first = !quiet_first;
      const double first = sample(!quiet_first), first_pace = slowest_pace, second = sample(quiet_first);
      slowest_pace = std::max(slowest_pace, first_pace);
      return quiet_first ? Row<2>{second, first} : Row<2>{first, second};
    });
  }
  stop = true;
  control.join();
  published.leave(0);
  report(state.counters, samples);
  state.counters["updates_a_second"] = static_cast<double>(updates.load()) / (0.05 * spans);
}
BENCHMARK(during_updates)->Iterations(1)->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace trunkline::bench

BENCHMARK_MAIN();
