// SPDX-License-Identifier: BSD-3-Clause
//
// The conversations of one interval: FlowRecords of the same ENI, addresses, ports, protocol and action added up. The worker
// that an ENI belongs to may change and a connection may end and begin again, so one conversation comes in several records.
//
// Rules:
//  * Bounded: a conversation that finds no room is refused, and the caller says so in the log. What is there goes on counting.
//  * ICMP and other protocols without ports have none: all their records of two addresses are one conversation.
//  * The order is that of arrival.
//  * It grows without moving what is there, so no single record costs much more than another.
//
// The hash is seeded, since strangers choose what comes in. Control thread only.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>
#include <cstring>
#include <deque>
#include <utility>
#include <vector>

#include "dataplane/state/flow_record.h"

namespace trunkline::control {

// What went one way.
struct FlowTotals {
  std::uint64_t packets = 0, bytes = 0;
  Tick first = 0, last = 0;
  std::uint8_t tcp_flags = 0;

  void add(const FlowRecord::Way& way) {
    if (way.packets == 0) return;
    // A record whose own times are the wrong way round must not make a line of that kind.
    const Tick earliest = std::min(way.first, way.last);
    first = packets == 0 ? earliest : std::min(first, earliest);
    last = packets == 0 ? std::max(way.first, way.last) : std::max({last, way.first, way.last});
    packets += way.packets;
    bytes += way.bytes;
    tcp_flags |= way.tcp_flags;
  }
};

struct Flow {
  FlowKey key;        // without ports where there are none; of IPv6 without the digest, which differs between workers
  AddressPair ipv6;   // only of an IPv6 flow
  FlowTotals way[2];  // by Direction
  FlowAction action = FlowAction::accept;

  explicit Flow(const FlowRecord& record) : key(record.key), action(record.action) {
    if (!record.has_ports()) key.remote_port = key.local_port = 0;
    if (!record.key.is_ipv6()) return;
    ipv6 = record.ipv6;
    key.remote = key.local = 0;
  }
  bool is_same(const Flow& other) const { return key == other.key && action == other.action && ipv6 == other.ipv6; }
  IpAddress remote() const { return key.is_ipv6() ? ipv6.remote : IpAddress::from_v4_bytes(&key.remote); }
  IpAddress local() const { return key.is_ipv6() ? ipv6.local : IpAddress::from_v4_bytes(&key.local); }
};

class FlowTable {
 public:
  explicit FlowTable(std::uint32_t capacity, std::uint64_t seed = 0) : capacity_(capacity), seed_(seed) {}

  // False: no room.
  bool add(const FlowRecord& record) {
    if ((flows_.size() + 1) * 2 > slots_.size()) grow();
    const Flow flow(record);
    const std::uint32_t hash = hash_of(flow);
    Slot& slot = *find(hash, [&](const Flow& known) { return known.is_same(flow); });
    if (slot.number == 0) {
      if (flows_.size() >= capacity_) return false;
      flows_.push_back(flow);
      slot = {static_cast<std::uint32_t>(flows_.size()), hash};
    }
    Flow& known = flows_[slot.number - 1];
    for (const Direction direction : {Direction::ingress, Direction::egress}) {
      known.way[index(direction)].add(record.way[index(direction)]);
    }
    return true;
  }

  // All of them; the table is empty afterwards.
  std::deque<Flow> take() {
    slots_.clear();
    return std::exchange(flows_, {});
  }
  std::size_t size() const { return flows_.size(); }

 private:
  struct Slot {
    std::uint32_t number = 0;  // of the flow + 1; 0: free
    std::uint32_t hash = 0;
  };

  std::uint32_t hash_of(const Flow& flow) const {
    std::uint64_t words[6];
    std::memcpy(words, &flow.key, sizeof flow.key);
    std::memcpy(words + 2, &flow.ipv6, 32);
    std::uint64_t hash = seed_ ^ static_cast<std::uint64_t>(flow.action);
    const int count = flow.key.is_ipv6() ? 6 : 2;
    for (int i = 0; i < count; ++i) {
      hash = (std::rotl(hash, 23) ^ words[i]) * 0x9e3779b97f4a7c15ULL;
      hash ^= hash >> 29;
    }
    return static_cast<std::uint32_t>(hash ^ hash >> 32);
  }
  // Where the one that `is_it` stands, or would.
  template <class IsIt>
  Slot* find(std::uint32_t hash, IsIt&& is_it) {
    std::size_t at = hash & (slots_.size() - 1);
    while (slots_[at].number != 0 && (slots_[at].hash != hash || !is_it(flows_[slots_[at].number - 1]))) at = (at + 1) & (slots_.size() - 1);
    return &slots_[at];
  }
  void grow() {
    const std::vector<Slot> before = std::exchange(slots_, std::vector<Slot>(std::max<std::size_t>(64, slots_.size() * 2)));
    for (const Slot& slot : before) {
      if (slot.number != 0) *find(slot.hash, [](const Flow&) { return false; }) = slot;
    }
  }

  std::uint32_t capacity_;
  std::uint64_t seed_;
  std::deque<Flow> flows_;
  std::vector<Slot> slots_;
};

}  // namespace trunkline::control
