// SPDX-License-Identifier: BSD-3-Clause
//
// Stage 8: what an ENI may use. A packet that the rules let pass and that its endpoint has no allowance for is dropped here, before
// flow logs count it. So is what needs no rule: a service's packets, ARP, neighbour discovery and DHCP. Endpoints without limits, which are nearly all, cost a look at their first line.
//
// Refuses: bw_in_allowance_exceeded, bw_out_allowance_exceeded, pps_allowance_exceeded.
#pragma once

#include "dataplane/packet.h"
#include "dataplane/state/super_frame.h"
#include "dataplane/state/worker_state.h"

namespace trunkline {

namespace detail {

inline DropReason take_allowance(const Endpoint& endpoint, Allowances& left, const Frames& amount, Direction direction, std::uint64_t micros) {
  static constexpr std::uint64_t kLeastBytes = 2 * 9001, kLeastPackets = 2;
  const std::size_t way = index(direction);
  const RateLimits& limits = endpoint.limits;
  left.of(endpoint.generation);
  if (limits.packets[way] != 0 && !left.packets[way].take(amount.packets, limits.packets[way], kLeastPackets, micros)) {
    return DropReason::pps_allowance_exceeded;
  }
  if (limits.bytes[way] == 0 || left.bytes[way].take(amount.bytes, limits.bytes[way], kLeastBytes, micros)) return DropReason::none;
  if (limits.packets[way] != 0) left.packets[way].give_back(amount.packets);
  return direction == Direction::ingress ? DropReason::bw_in_allowance_exceeded : DropReason::bw_out_allowance_exceeded;
}

}  // namespace detail

inline void limit(Burst& burst, WorkerState& worker, Direction direction) {
  if (!worker.view->limits) [[likely]] return;
  static constexpr std::uint32_t kArpBytes = 28;
  for_each_bit(burst.filtered | burst.exempt | burst.edge, [&](std::uint32_t i) {
    if (!burst.alive(i)) return;
    const Endpoint& endpoint = *burst.endpoint[i];
    if (!endpoint.limited) return;
    const std::uint32_t bytes = burst.headers[i].layer3 == Layer3::arp ? kArpBytes : burst.headers[i].packet_bytes;
    const Frames amount = burst.is_super_frame(i) ? ip_packets_of(*burst.mbuf[i], bytes) : Frames{1, bytes};
    burst.drop(i, detail::take_allowance(endpoint, worker.allowances[endpoint.id.value], amount, direction, worker.micros));
  });
}

}  // namespace trunkline
