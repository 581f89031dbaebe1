// SPDX-License-Identifier: BSD-3-Clause
//
// Between fragments and track: which packets are larger than the port takes that they leave by. Known here, so that
// nothing behind counts as accepted what forward may have to refuse; forward decides what becomes of each (cut,
// reported to its sender, dropped).
//
// A packet to a task of this host is held against that task's MTU, in the ingress half. One comparison a burst of plain
// packets.
#pragma once

#include "dataplane/packet.h"
#include "dataplane/stages/offload.h"
#include "dataplane/state/worker_state.h"

namespace trunkline {

namespace detail {

// The endpoint of this host that a packet from a task is for, if there is one. A service's address is never a task's.
[[gnu::always_inline]] inline const Endpoint* local_peer(const Burst& burst, std::uint32_t i, const View& view) {
  if (burst.has_service_address(i)) [[unlikely]]
    return nullptr;
  if (burst.headers[i].layer3 == Layer3::ipv4) [[likely]]
    return view.by_ipv4.find(burst.key[i].remote);
  return view.with_address(burst.destination(i));
}

[[gnu::noinline]] inline void mark_oversized(Burst& burst, const View& view, Direction direction) {
  for_each_bit(burst.filtered, [&](std::uint32_t i) {
    if (burst.headers[i].packet_bytes <= view.least_mtu) return;
    const bool ingress = direction == Direction::ingress;
    if (!is_too_large(burst, i, ingress ? burst.endpoint[i]->mtu : view.trunk_mtu)) return;
    if (!ingress && local_peer(burst, i, view) != nullptr) return;
    burst.oversized |= std::uint64_t{1} << i;
  });
}

}  // namespace detail

inline void mark_oversized(Burst& burst, const WorkerState& worker, Direction direction) {
  const View& view = *worker.view;
  if (burst.longest_plain <= view.least_mtu && (burst.filtered & ~burst.plain) == 0) [[likely]]
    return;
  detail::mark_oversized(burst, view, direction);
}

}  // namespace trunkline
