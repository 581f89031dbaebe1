// SPDX-License-Identifier: BSD-3-Clause
// The packet path in process, no I/O: nanoseconds and TSC cycles a packet at burst 32. `./dev bench`.
#include <benchmark/benchmark.h>
#include <rte_cycles.h>

#include "tests/support/world.h"

namespace trunkline::test {
namespace {

constexpr std::uint32_t kBurst = 32;

config::SecurityGroup open_group() {
  config::SecurityGroup group;
  group.id = "sg-0000000a";
  group.ingress = {rule(6, 80, 80, {"198.51.0.0/16"})};
  group.egress = {everything({"0.0.0.0/0"})};
  return group;
}

World::Task task(unsigned number) {
  World::Task result;
  result.name = "t" + std::to_string(number);
  result.vlan = static_cast<std::uint16_t>(100 + number);
  result.mac = MacAddress{{0x0a, 0, 0, 0, 1, static_cast<std::uint8_t>(number)}}.to_string();
  result.addresses = {"10.0.0." + std::to_string(10 + number)};
  result.groups = {open_group()};
  return result;
}

// Established connections towards `tasks` endpoints, `flows` in all, met in a scattered order.
void established_ingress(benchmark::State& bench) {
  const auto flows = static_cast<std::uint32_t>(bench.range(0));
  const unsigned tasks = 32;
  World world;
  WorkerState worker(64, flows + flows / 4 + 1024, 7);
  for (unsigned i = 0; i < tasks; ++i) world.add(task(i));
  worker.view = world.view.get();
  struct Flow {
    Frame frame;
  };
  std::vector<rte_mbuf*> packets;
  std::vector<std::uint16_t> offsets;
  for (std::uint32_t flow = 0; flow < flows; ++flow) {
    const unsigned at = flow % tasks;
    const IpAddress remote = IpAddress::from_v4(0xc6330000U | (flow >> 4 & 0xffff));
    const auto port = static_cast<std::uint16_t>(1024 + (flow & 15) + (flow >> 20 << 4));
    packets.push_back(world.mbufs.make(ip_packet({mac(task(at).mac), mac("0a:00:00:00:00:01"), 100 + static_cast<int>(at)}, remote,
                                                 ip(task(at).addresses[0]), 6, tcp_segment(port, 80, 0x10))));
  }
  std::vector<std::uint32_t> order(flows);
  for (std::uint32_t i = 0; i < flows; ++i) order[i] = static_cast<std::uint32_t>((std::uint64_t{i} * 2654435761U) % flows);
  std::uint64_t cycles = 0, packets_done = 0;
  std::size_t next = 0;
  auto pass = [&] {
    Burst burst;
    for (std::uint32_t i = 0; i < kBurst; ++i) {
      rte_mbuf* packet = packets[order[next]];
      next = next + 1 == order.size() ? 0 : next + 1;
      burst.add(packet);
    }
    process_from_trunk(burst, worker);
    // Put the tags back for the next round; not part of what is measured by cycles below.
    return burst;
  };
  auto restore = [&](const Burst& burst) {
    for (std::uint32_t i = 0; i < burst.size; ++i) {
      const VlanId vlan = burst.endpoint[i]->vlan;
      detail::push_tag(burst.mbuf[i], vlan);
    }
    for (const PortSlot slot : worker.outbox.dirty()) worker.outbox.queue(slot).count = 0;
    worker.outbox.clear_dirty();
    worker.outbox.clear_discarded();
  };
  for (std::uint32_t i = 0; i < flows; i += kBurst) restore(pass());
  for (auto _ : bench) {
    const std::uint64_t before = rte_rdtsc();
    const Burst burst = pass();
    const std::uint64_t spent = rte_rdtsc() - before;
    cycles += spent;
    packets_done += kBurst;
    restore(burst);
  }
  bench.counters["cycles/packet"] = static_cast<double>(cycles) / static_cast<double>(packets_done);
  bench.counters["connections"] = static_cast<double>(worker.connections.size());
}
BENCHMARK(established_ingress)->Arg(1000)->Arg(10000)->Arg(100000);

}  // namespace
}  // namespace trunkline::test

BENCHMARK_MAIN();
