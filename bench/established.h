// SPDX-License-Identifier: BSD-3-Clause
//
// Packets of connections that exist, through the pipeline or its first stages: what most of the pipeline's benchmarks sample.
#pragma once

#include <benchmark/benchmark.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <vector>

#include "bench/bench_world.h"
#include "bench/sampling.h"

namespace trunkline::bench {

inline constexpr unsigned kEndpoints = 120;
inline constexpr std::uint8_t kAck = 0x10, kSyn = 0x02, kFinAck = 0x11, kSynAck = 0x12;

// How far down the pipeline a sample goes.
enum class Upto { parse, demux, track, admit, account, all };

// Track counts steady packets as it passes them (stages/steady.h), unless an endpoint has limits; what comes before account is measured as if one had.
inline void run_ingress(Burst& burst, BenchWorld& world, Upto upto) {
  WorkerState& worker = world.worker;
  world.set_limits(upto < Upto::account);
  if (upto == Upto::all) return process_from_trunk(burst, worker);
  parse(burst, Direction::ingress);
  if (upto == Upto::parse) return;
  demux_from_trunk(burst, worker);
  if (upto == Upto::demux) return;
  edge_from_trunk(burst, worker);
  track(burst, worker, Direction::ingress);
  if (upto == Upto::track) return;
  admit(burst, worker, Direction::ingress);
  if (upto == Upto::admit) return;
  account(burst, worker, Direction::ingress);
}

using EndpointOfBurst = std::array<std::uint16_t, Ring::kPackets / kBurst>;

// All of the ring, each burst from one task. A function of its own, so that what it executes can be counted (instructions.cpp).
[[gnu::noinline]] inline std::size_t process_egress(BenchWorld& world, const EndpointOfBurst& endpoint_of) {
  for (std::uint32_t first = 0; first < Ring::kPackets; first += kBurst) {
    Burst burst;
    world.burst_at(burst, first);
    process_from_task(burst, world.worker, *world.view->endpoints[endpoint_of[first / kBurst]]);
    world.flush();
    benchmark::DoNotOptimize(burst);
  }
  return Ring::kPackets;
}

// Samples over established connections: the ring is filled with the next flows in a shuffled order, then processed.
class Established {
 public:
  // `others`: endpoints beside those that the flows are for.
  Established(std::uint32_t flows, unsigned endpoints, unsigned others = 0)
      : endpoints_(endpoints), world_(endpoints + others, open_rules(), flows + flows / 8 + 1024), order_(shuffled(flows, 11)) {
    // Opened by a SYN and its answer, so that they are what they are said to be.
    for (std::uint32_t k = 0; k < flows; k += kBurst) {
      const std::uint32_t count = std::min(kBurst, flows - k);
      for (const bool answer : {false, true}) {
        for (std::uint32_t i = 0; i < count; ++i) {
          const Flow flow = open_flow(k + i, endpoints_);
          world_.write(i, flow, answer ? Direction::egress : Direction::ingress, answer ? kSynAck : kSyn);
          if (!answer) continue;
          Burst burst;
          world_.burst_at(burst, i, 1);
          process_from_task(burst, world_.worker, *world_.view->endpoints[flow.endpoint]);
          world_.flush();
        }
        if (answer) continue;
        Burst burst;
        world_.burst_at(burst, 0, count);
        process_from_trunk(burst, world_.worker);
        world_.flush();
      }
    }
    world_.forwarded = 0;
  }

  double ingress(Upto upto, int mix = 0) {
    fill(Direction::ingress, mix);
    return cycles_a_packet([&] { return process_ingress(upto); });
  }

  // A burst from a task's port is of one endpoint.
  double egress() {
    fill(Direction::egress, 0);
    return cycles_a_packet([&] { return process_egress(world_, endpoint_of_); });
  }

  BenchWorld& world() { return world_; }

 private:
  // The same as process_egress().
  [[gnu::noinline]] std::size_t process_ingress(Upto upto) {
    for (std::uint32_t first = 0; first < Ring::kPackets; first += kBurst) {
      Burst burst;
      world_.burst_at(burst, first);
      run_ingress(burst, world_, upto);
      if (upto == Upto::all) world_.flush();
      benchmark::DoNotOptimize(burst);
    }
    return Ring::kPackets;
  }

  Flow next_flow() {
    const Flow flow = open_flow(order_[next_], endpoints_);
    next_ = next_ + 1 == order_.size() ? 0 : next_ + 1;
    return flow;
  }
  void fill(Direction direction, int mix) {
    static constexpr std::uint32_t imix[12] = {46, 46, 46, 46, 46, 46, 46, 576, 576, 576, 576, 1500};
    for (std::uint32_t i = 0; i < Ring::kPackets; ++i) {
      if (direction == Direction::egress) {
        // Flow k is of endpoint k modulo endpoints: a random one of this burst's endpoint.
        if (i % kBurst == 0) endpoint_of_[i / kBurst] = static_cast<std::uint16_t>(next_endpoint_++ % endpoints_);
        const std::uint32_t each = static_cast<std::uint32_t>(order_.size()) / endpoints_;
        const std::uint32_t k = (next_flow_number() % each) * endpoints_ + endpoint_of_[i / kBurst];
        world_.write(i, open_flow(k, endpoints_), direction, kAck);
      } else {
        world_.write(i, next_flow(), direction, kAck, mix != 0 ? imix[(i * 7919U) % 12] : 46);
      }
    }
  }
  std::uint32_t next_flow_number() {
    const std::uint32_t number = order_[next_];
    next_ = next_ + 1 == order_.size() ? 0 : next_ + 1;
    return number;
  }

  unsigned endpoints_;
  BenchWorld world_;
  std::vector<std::uint32_t> order_;
  std::size_t next_ = 0;
  unsigned next_endpoint_ = 0;
  EndpointOfBurst endpoint_of_{};
};

}  // namespace trunkline::bench
