// SPDX-License-Identifier: BSD-3-Clause
//
// Stage 4: fragments, without putting them together. The first fragment of a datagram has the ports and is asked about like any
// other packet; the later ones are given its ports here and so meet the same connection and the same rules. A later one that
// comes before the first is held for a fifth of a second, a few a datagram. No byte of a later fragment is ever taken for a port,
// and none may overwrite what another brought: overlapping pieces cost the whole datagram, an exact copy of a piece passes.
//
// Bursts without fragments, which are nearly all, cost one comparison.
//
// Refuses: malformed (a piece of no bytes, one that is no multiple of eight, an end beyond 65535), fragment_tiny,
// fragment_overlap, fragment_orphan, fragment_quota.
#pragma once

#include "dataplane/packet.h"
#include "dataplane/state/worker_state.h"

namespace trunkline {

void take_fragments(Burst& burst, WorkerState& worker, Direction direction);

inline void fragments(Burst& burst, WorkerState& worker, Direction direction) {
  if ((burst.fragments & burst.filtered) != 0) [[unlikely]] take_fragments(burst, worker, direction);
}

// For explain: which datagram a fragment is of that parse and demux let pass.
DatagramKey datagram_of(const Burst& burst, std::uint32_t i, const WorkerState& worker, Direction direction);

// Between turns: gives up what has waited too long. Held packets are counted and left in the outbox to be freed.
void sweep_fragments(WorkerState& worker, std::uint32_t count);

}  // namespace trunkline
