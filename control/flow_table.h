// SPDX-License-Identifier: BSD-3-Clause
//
// The conversations of one interval: FlowRecords of the same ENI, addresses, ports, protocol and action added up. The worker
// that an ENI belongs to may change and a connection may end and begin again, so one conversation comes in several records.
//
// Rules:
//  * Bounded: a conversation that finds no room is refused, and the caller says so in the log. What is there goes on counting.
//  * ICMP and other protocols without ports have none: all their records of two addresses are one conversation.
//  * The order is that of arrival.
//
// The hash is seeded, since strangers choose what comes in. Control thread only.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>
#include <cstring>
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
    std::uint32_t& slot = slot_of(flow);
    if (slot == 0) {
      if (flows_.size() >= capacity_) return false;
      flows_.push_back(flow);
      slot = static_cast<std::uint32_t>(flows_.size());
    }
    Flow& known = flows_[slot - 1];
    for (const Direction direction : {Direction::ingress, Direction::egress}) {
      known.way[index(direction)].add(record.way[index(direction)]);
    }
    return true;
  }

  // All of them; the table is empty afterwards.
  std::vector<Flow> take() {
    slots_.clear();
    return std::exchange(flows_, {});
  }
  std::size_t size() const { return flows_.size(); }

 private:
  std::uint64_t hash_of(const Flow& flow) const {
    std::uint64_t words[6];
    std::memcpy(words, &flow.key, sizeof flow.key);
    std::memcpy(words + 2, &flow.ipv6, 32);
    std::uint64_t hash = seed_ ^ static_cast<std::uint64_t>(flow.action);
    const int count = flow.key.is_ipv6() ? 6 : 2;
    for (int i = 0; i < count; ++i) {
      hash = (std::rotl(hash, 23) ^ words[i]) * 0x9e3779b97f4a7c15ULL;
      hash ^= hash >> 29;
    }
    return hash ^ hash >> 32;
  }
  // Its number + 1, or 0 where it would stand.
  std::uint32_t& slot_of(const Flow& flow) {
    std::size_t at = hash_of(flow) & (slots_.size() - 1);
    while (slots_[at] != 0 && !flows_[slots_[at] - 1].is_same(flow)) at = (at + 1) & (slots_.size() - 1);
    return slots_[at];
  }
  void grow() {
    slots_.assign(std::max<std::size_t>(64, slots_.size() * 2), 0);
    for (std::uint32_t number = 1; number <= flows_.size(); ++number) slot_of(flows_[number - 1]) = number;
  }

  std::uint32_t capacity_;
  std::uint64_t seed_;
  std::vector<Flow> flows_;
  std::vector<std::uint32_t> slots_;
};

}  // namespace trunkline::control
