// SPDX-License-Identifier: BSD-3-Clause
//
// Stage 4: fragments, without putting them together. The first fragment of a datagram has the ports and is asked about
// like any other packet; the later ones are given its ports here and so meet the same connection and the same rules. A
// later one that comes before the first is held for a fifth of a second, a few a datagram. No byte of a later fragment
// is ever taken for a port, and none may overwrite what another brought: overlapping pieces cost the whole datagram, an
// exact copy of a piece passes.
//
// Senders use an identification again. A first fragment that is not a copy of the one before begins a datagram of its
// own: what comes behind it gets its ports and is held against its pieces. So a later fragment passes only where the
// newest first fragment of its identification does, and never covers the transport header of any. After a copy of the
// first fragment both are possible (the same datagram once more, or another of the same flow): the pieces from before
// stay for copies, and go where one that comes contradicts.
//
// settle_fragments() stands behind admit and tells the table which first fragments passed: only their datagrams have a
// place in the share of those that did (state/fragment_table.h).
//
// What an ENI left behind that has gone is freed, and counted nowhere: its meters went with it. What one left behind
// that has moved to another worker goes there.
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
  if ((burst.fragments & burst.filtered) != 0) [[unlikely]]
    take_fragments(burst, worker, direction);
}

void settle_first_fragments(Burst& burst, WorkerState& worker, Direction direction);

inline void settle_fragments(Burst& burst, WorkerState& worker, Direction direction) {
  if (burst.first_fragments != 0) [[unlikely]]
    settle_first_fragments(burst, worker, direction);
}

// For explain: which datagram a fragment is of that parse and demux let pass.
DatagramKey datagram_of(const Burst& burst, std::uint32_t i, const WorkerState& worker, Direction direction);

// Between turns: gives up what has waited too long. Held packets are counted and left in the outbox to be freed.
// Answers whether any were handed to another worker.
bool sweep_fragments(WorkerState& worker, std::uint32_t count);

}  // namespace trunkline
