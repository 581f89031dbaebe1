// SPDX-License-Identifier: BSD-3-Clause
//
// Stage 4: find each packet's connection. Two passes, so that the loads of all packets are under way together: the
// first makes keys and prefetches buckets, the second looks. It decides nothing; admit does.
//
// The key is seen from the ENI. ICMP: a query and its answer share a key, and who asked is part of it, so that an
// answer is let in by state but a query of the same identifier from the other side is not.
#pragma once

#include "dataplane/packet.h"
#include "dataplane/state/worker_state.h"

namespace trunkline {

namespace detail {

// For ICMP queries and answers: the query's type; 0 for all other types.
inline std::uint8_t icmp_query_type(std::uint8_t protocol, std::uint8_t type, bool& is_query) {
  if (protocol == protocol::icmpv6) {
    is_query = type == 128;
    return type == 128 || type == 129 ? 128 : 0;
  }
  switch (type) {
    case 8: is_query = true; return 8;
    case 0: is_query = false; return 8;
    case 13: case 15: case 17: is_query = true; return type;
    case 14: case 16: case 18: is_query = false; return static_cast<std::uint8_t>(type - 1);
    default: is_query = false; return 0;
  }
}

inline bool is_icmp(const Burst& burst, std::uint32_t i) {
  return burst.layer3[i] == Layer3::ipv4 ? burst.protocol[i] == protocol::icmp : burst.protocol[i] == protocol::icmpv6;
}

// Whether the packet can belong to a connection at all: ICMP errors and the like do not.
inline bool has_connection(const Burst& burst, std::uint32_t i) {
  bool is_query;
  return !is_icmp(burst, i) || icmp_query_type(burst.protocol[i], burst.icmp_type[i], is_query) != 0;
}

inline FlowKey flow_key(const Burst& burst, std::uint32_t i, Direction direction) {
  const bool ingress = direction == Direction::ingress;
  FlowKey key;
  key.remote = ingress ? burst.source[i] : burst.destination[i];
  key.local = ingress ? burst.destination[i] : burst.source[i];
  key.endpoint = burst.endpoint[i]->id.value;
  key.generation = burst.endpoint[i]->generation;
  key.protocol = burst.protocol[i];
  if (is_icmp(burst, i)) {
    bool is_query;
    const std::uint8_t type = icmp_query_type(burst.protocol[i], burst.icmp_type[i], is_query);
    const bool asked_by_remote = is_query == ingress;
    key.local_port = burst.source_port[i];
    key.remote_port = static_cast<std::uint16_t>(type | (asked_by_remote ? 0x100 : 0));
  } else {
    key.local_port = ingress ? burst.destination_port[i] : burst.source_port[i];
    key.remote_port = ingress ? burst.source_port[i] : burst.destination_port[i];
  }
  return key;
}

// Security groups apply to what the edge has not already answered or relayed.
inline bool is_filtered(const Burst& burst, std::uint32_t i) {
  return burst.alive(i) && burst.route[i] == Route::undecided;
}

}  // namespace detail

inline void track(Burst& burst, WorkerState& worker, Direction direction) {
  FlowKey keys[kMaxBurst];
  for (std::uint32_t i = 0; i < burst.size; ++i) {
    if (!detail::is_filtered(burst, i) || !detail::has_connection(burst, i)) continue;
    keys[i] = detail::flow_key(burst, i, direction);
    burst.hash[i] = worker.connections.hash(keys[i]);
    worker.connections.prefetch(burst.hash[i]);
  }
  for (std::uint32_t i = 0; i < burst.size; ++i) {
    if (!detail::is_filtered(burst, i) || !detail::has_connection(burst, i)) continue;
    burst.connection[i] = worker.connections.find(keys[i], burst.hash[i]);
  }
}

}  // namespace trunkline
