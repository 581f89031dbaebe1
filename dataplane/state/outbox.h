// SPDX-License-Identifier: BSD-3-Clause
//
// Where the stages leave what they have finished with: packets to send, gathered per port so that each port is kicked
// once per turn, and packets to free. The stages call no driver; the worker empties the outbox into the ports, a
// unit test looks at it.
//
// A port's queue holds kDepth packets. One call of a pipeline function adds at most 2 * kMaxBurst to one port, so the worker
// flushes a port that has more than kHighWater before it goes on.
#pragma once

#include <rte_mbuf.h>

#include <array>
#include <cstdint>
#include <memory>
#include <span>

#include "config/net.h"
#include "dataplane/packet.h"

namespace trunkline {

class Outbox {
 public:
  static constexpr std::uint32_t kDepth = 256;
  static constexpr std::uint32_t kHighWater = kDepth - 2 * kMaxBurst;

  struct Queue {
    std::uint32_t count = 0;
    bool listed = false;
    std::uint64_t bytes = 0;     // of the packets in it
    std::uint64_t requests = 0;  // all their ol_flags: what the port is asked to do (stages/offload.h)
    rte_mbuf* packets[kDepth];
  };

  explicit Outbox(std::size_t ports) : queues_(new Queue[ports]), dirty_(new PortSlot[ports + 1]) {}

  Queue& queue(PortSlot port) { return queues_[port.value]; }

  // Without a branch on whether the port is listed already: in a burst for many ports nobody could guess it.
  [[gnu::always_inline]] void send(PortSlot port, rte_mbuf* packet) {
    Queue& queue = queues_[port.value];
    dirty_[dirty_count_] = port;
    dirty_count_ += !queue.listed;
    queue.listed = true;
    queue.bytes += packet->pkt_len;
    queue.requests |= packet->ol_flags;
    queue.packets[queue.count++] = packet;
  }

  void discard(rte_mbuf* packet) {
    if (discarded_count_ < discarded_.size()) discarded_[discarded_count_++] = packet;
  }

  void clear(PortSlot port) {
    Queue& queue = queues_[port.value];
    queue.count = 0;
    queue.bytes = queue.requests = 0;
  }

  // Ports that were sent to since clear_dirty().
  std::span<const PortSlot> dirty() const { return {dirty_.get(), dirty_count_}; }
  void clear_dirty() {
    for (const PortSlot port : dirty()) queues_[port.value].listed = false;
    dirty_count_ = 0;
  }

  std::span<rte_mbuf*> discarded() { return {discarded_.data(), discarded_count_}; }
  void clear_discarded() { discarded_count_ = 0; }

 private:
  std::unique_ptr<Queue[]> queues_;
  std::unique_ptr<PortSlot[]> dirty_;  // one more than there are ports: send() writes before it knows
  std::size_t dirty_count_ = 0;
  // A burst's packets, the local packets made of it, the tails cut off their chains, and the fragments that were held for each
  // of both.
  std::array<rte_mbuf*, 12 * kMaxBurst> discarded_;
  std::size_t discarded_count_ = 0;
};

}  // namespace trunkline
