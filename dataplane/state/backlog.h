// SPDX-License-Identifier: BSD-3-Clause
//
// Super-frames whose cutting goes on in a later turn, and what may not overtake them: a queue for each ENI that they
// are charged to. That is the ENI which sent them; of what came from the trunk, the ENI which it is for.
//
// Rules:
//  * The port of an ENI that has a queue is not polled (worker.cpp): its packets wait at the task, and those of one
//    burst are all that come here.
//  * What came from the trunk cannot be held back. A queue has kMostOfOne packets at most, all queues kBuffers; beyond
//    that an ENI has one packet here. What finds no place is dropped as cpu_allowance_exceeded.
//  * A packet here has been received and neither sent nor dropped; `generation` says whose it is when its ENI has gone
//    meanwhile.
//
// Owned by the worker, who does not free what is still here at its end: the pool goes, too. No allocation after
// construction.
#pragma once

#include <rte_mbuf.h>

#include <array>
#include <cstdint>
#include <memory>

#include "config/net.h"
#include "dataplane/state/endpoint_set.h"
#include "dataplane/state/flow_key.h"

namespace trunkline {

class Backlog {
 public:
  static constexpr std::uint32_t kPlaces = 2 * FlowKey::kMaxEndpoints, kBuffers = 8192, kMostOfOne = 128;

  struct Waiting {
    rte_mbuf* packet = nullptr;
    std::uint32_t made = 0;        // of its segments
    PortSlot port;                 // by which it is to leave
    std::uint16_t generation = 0;  // of the endpoint whose port that is
    std::uint16_t next = kNone;
  };

  Backlog() : places_(new Waiting[kPlaces]), queues_(new Queue[FlowKey::kMaxEndpoints]) {
    for (std::uint32_t i = 0; i + 1 < kPlaces; ++i) places_[i].next = static_cast<std::uint16_t>(i + 1);
  }
  Backlog(const Backlog&) = delete;

  bool is_empty() const { return packets_ == 0; }
  std::uint32_t owners() const { return owner_count_; }
  bool holds(EndpointId owner) const { return owner.is_valid() && owners_.has(owner.value % FlowKey::kMaxEndpoints); }

  // False: no place. `made`: of a packet that is cut already in part, the segments.
  bool push(EndpointId owner, rte_mbuf* packet, std::uint32_t made, PortSlot port, std::uint16_t generation) {
    if (!owner.is_valid()) return false;
    Queue& queue = queues_[owner.value];
    const bool borrows = queue.packets != 0;
    if (borrows && (queue.packets == kMostOfOne || packets_ >= kPlaces / 2 || buffers_ + packet->nb_segs > kBuffers))
      return false;
    const std::uint16_t at = free_;  // there is one: half of the places are for those that have none yet
    free_ = places_[at].next;
    places_[at] = {.packet = packet, .made = made, .port = port, .generation = generation, .next = kNone};
    (queue.packets != 0 ? places_[queue.last].next : queue.first) = at;
    queue.last = at;
    if (queue.packets++ == 0) owners_.set(owner.value, true), ++owner_count_;
    queue.buffers += packet->nb_segs, buffers_ += packet->nb_segs;
    ++packets_;
    return true;
  }
  // The oldest of a queue that is there.
  Waiting& front(EndpointId owner) { return places_[queues_[owner.value].first]; }
  rte_mbuf* pop(EndpointId owner) {
    rte_mbuf* const packet = front(owner).packet;
    forget_front(owner, packet->nb_segs);
    return packet;
  }
  // The same where the packet is somebody else's already, or freed. It lay in so many buffers.
  void forget_front(EndpointId owner, std::uint32_t buffers) {
    Queue& queue = queues_[owner.value];
    const std::uint16_t at = queue.first;
    queue.first = places_[at].next;
    if (--queue.packets == 0) owners_.set(owner.value, false), --owner_count_;
    queue.buffers -= buffers, buffers_ -= buffers;
    --packets_;
    places_[at].next = free_;
    free_ = at;
  }
  // The owner whose turn it is: round and round. Some queue is there.
  EndpointId next_owner() {
    const std::uint32_t id = owners_.next(next_);
    next_ = (id + 1) % FlowKey::kMaxEndpoints;
    return EndpointId{static_cast<std::uint16_t>(id)};
  }

 private:
  static constexpr std::uint16_t kNone = 0xffff;
  struct Queue {
    std::uint16_t first = kNone, last = kNone;
    std::uint32_t packets = 0, buffers = 0;
  };

  std::unique_ptr<Waiting[]> places_;
  std::unique_ptr<Queue[]> queues_;  // by EndpointId
  EndpointSet owners_;
  std::uint16_t free_ = 0;
  std::uint32_t packets_ = 0, buffers_ = 0, owner_count_ = 0;
  std::uint32_t next_ = 0;
};

}  // namespace trunkline
