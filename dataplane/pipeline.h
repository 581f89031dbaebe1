// SPDX-License-Identifier: BSD-3-Clause
//
// Start here. A packet's way through the engine: each function lists the stages in order, and nothing else. A stage is
// a loop over the burst; it may refuse a packet with a named reason (verdict.h) and it never calls another stage.
//
//     trunk --> parse --> demux --> edge --> fragments --> track --> admit --> limit --> account --> forward --> task port
//     task  --> parse --> demux --> edge --> fragments --> track --> admit --> limit --> account --> forward --> trunk
//                                                                                                       \--> local task: the ingress half
//
// A packet between two tasks of this host passes both in full: the sender's egress, then the receiver's ingress. Where an
// endpoint belongs to another worker the packet goes on there: from demux or forward, by a handoff lane, into the last
// two functions.
//
// Called by the owning worker (worker.cpp) with what it received, and by tests and `explain` with what they made up.
#pragma once

#include "dataplane/packet.h"
#include "dataplane/stages/account.h"
#include "dataplane/stages/admit.h"
#include "dataplane/stages/demux.h"
#include "dataplane/stages/edge.h"
#include "dataplane/stages/forward.h"
#include "dataplane/stages/fragments.h"
#include "dataplane/stages/handoff.h"
#include "dataplane/stages/limit.h"
#include "dataplane/stages/parse.h"
#include "dataplane/stages/track.h"
#include "dataplane/state/worker_state.h"

namespace trunkline {

inline void process_ingress(Burst& burst, WorkerState& worker, bool asked = false) {
  fragments(burst, worker, Direction::ingress);
  track(burst, worker, Direction::ingress);
  admit(burst, worker, Direction::ingress, asked);
  limit(burst, worker, Direction::ingress);
  account(burst, worker, Direction::ingress);
  forward_to_task(burst, worker);
}

inline void process_egress(Burst& burst, WorkerState& worker, bool asked = false) {
  Burst local;
  fragments(burst, worker, Direction::egress);
  track(burst, worker, Direction::egress);
  admit(burst, worker, Direction::egress, asked);
  limit(burst, worker, Direction::egress);
  account(burst, worker, Direction::egress);
  forward_from_task(burst, worker, local);
  if (local.size != 0) process_ingress(local, worker);
}

inline void process_from_trunk(Burst& burst, WorkerState& worker) {
  parse(burst, Direction::ingress);
  demux_from_trunk(burst, worker);
  edge_from_trunk(burst);
  process_ingress(burst, worker);
}

inline void process_from_task(Burst& burst, WorkerState& worker, const Endpoint& endpoint) {
  parse(burst, Direction::egress);
  demux_from_task(burst, worker, endpoint);
  edge_from_task(burst, worker);
  process_egress(burst, worker);
}

// Packets that another worker took from the trunk.
inline void process_handed_from_trunk(Burst& burst, WorkerState& worker) {
  parse(burst, Direction::ingress);
  demux_from_trunk(burst, worker, true);
  edge_from_trunk(burst);
  process_ingress(burst, worker);
}

// Packets of one direction that passed demux at another worker, or at this one before they went to ask.
inline void process_known(Burst& burst, std::span<const HandedPacket> handed, WorkerState& worker) {
  const HandedPacket& first = handed.front();
  parse(burst, first.direction);
  find_known(burst, handed, worker);
  const bool asked = first.kind == HandoffKind::asked;
  first.direction == Direction::ingress ? process_ingress(burst, worker, asked) : process_egress(burst, worker, asked);
}

}  // namespace trunkline
