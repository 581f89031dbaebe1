// SPDX-License-Identifier: BSD-3-Clause
//
// Start here. A packet's way through the engine: each function lists the stages in order, and nothing else. A stage is
// a loop over the burst; it may refuse a packet with a named reason (verdict.h) and it never calls another stage.
//
//     trunk --> parse --> demux --> edge --> fragments --> services --> track --> admit --> limit --> account --> forward --> task port
//     task  --> parse --> demux --> edge --> fragments --> services --> track --> admit --> limit --> account --> forward --> trunk
//                                                                                                                    \--> local task: the ingress half
//
// A packet between two tasks of this host passes both in full: the sender's egress, then the receiver's ingress. Where an
// endpoint belongs to another worker the packet goes on there: from demux or forward, by a handoff lane, into
// process_handed_from_trunk() or process_known().
//
// After each stage `watch` is told; it is nothing unless somebody looks at this worker's packets (stages/observe.h).
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
#include "dataplane/stages/observe.h"
#include "dataplane/stages/oversized.h"
#include "dataplane/stages/parse.h"
#include "dataplane/stages/services.h"
#include "dataplane/stages/track.h"
#include "dataplane/state/worker_state.h"

namespace trunkline {

namespace pipeline {

template <class Watcher>
inline void ingress(Burst& burst, WorkerState& worker, bool asked, Watcher& watch) {
  fragments(burst, worker, Direction::ingress), watch(Stage::fragments, burst);
  services(burst, worker, Direction::ingress), watch(Stage::services, burst);
  mark_oversized(burst, worker, Direction::ingress);
  track(burst, worker, Direction::ingress), watch(Stage::track, burst);
  admit(burst, worker, Direction::ingress, asked), watch(Stage::admit, burst);
  settle_fragments(burst, worker, Direction::ingress);
  limit(burst, worker, Direction::ingress), watch(Stage::limit, burst);
  account(burst, worker, Direction::ingress), watch(Stage::account, burst);
  forward_to_task(burst, worker), watch(Stage::forward, burst);
}

template <class Watcher>
inline void egress(Burst& burst, WorkerState& worker, bool asked, Watcher& watch) {
  Burst local;
  fragments(burst, worker, Direction::egress), watch(Stage::fragments, burst);
  services(burst, worker, Direction::egress), watch(Stage::services, burst);
  mark_oversized(burst, worker, Direction::egress);
  track(burst, worker, Direction::egress), watch(Stage::track, burst);
  admit(burst, worker, Direction::egress, asked), watch(Stage::admit, burst);
  settle_fragments(burst, worker, Direction::egress);
  limit(burst, worker, Direction::egress), watch(Stage::limit, burst);
  account(burst, worker, Direction::egress), watch(Stage::account, burst);
  forward_from_task(burst, worker, local), watch(Stage::forward, burst);
  if (local.size == 0) return;
  watch.arrived(local, Direction::ingress);
  ingress(local, worker, false, watch);
}

// The same with copies for the other untagged ENIs of this worker.
template <class Watcher>
[[gnu::noinline]] void ingress_of_all(Burst& burst, WorkerState& worker, Watcher& watch) {
  Burst copies;
  copy_to_all(burst, worker, copies);
  ingress(burst, worker, false, watch);
  watch.arrived(copies, Direction::ingress), watch(Stage::parse, copies);
  ingress(copies, worker, false, watch);
}

// `handed`: another worker took them from the trunk.
template <class Watcher>
inline void from_trunk(Burst& burst, WorkerState& worker, bool handed, Watcher& watch) {
  watch.arrived(burst, Direction::ingress);
  parse(burst, Direction::ingress), watch(Stage::parse, burst);
  demux_from_trunk(burst, worker, handed), watch(Stage::demux, burst);
  edge_from_trunk(burst, worker), watch(Stage::edge, burst);
  if (burst.to_all != 0) [[unlikely]] return ingress_of_all(burst, worker, watch);
  ingress(burst, worker, false, watch);
}

template <class Watcher>
inline void from_task(Burst& burst, WorkerState& worker, const Endpoint& endpoint, Watcher& watch) {
  watch.arrived(burst, Direction::egress, &endpoint);
  parse(burst, Direction::egress), watch(Stage::parse, burst);
  demux_from_task(burst, worker, endpoint), watch(Stage::demux, burst);
  edge_from_task(burst, worker), watch(Stage::edge, burst);
  egress(burst, worker, false, watch);
}

// Packets of one direction that passed demux at another worker, or at this one before they went to ask.
template <class Watcher>
inline void known(Burst& burst, std::span<const HandedPacket> handed, WorkerState& worker, Watcher& watch) {
  const HandedPacket& first = handed.front();
  const bool asked = first.kind != HandoffKind::known;
  watch.arrived(burst, handed);
  parse(burst, first.direction), watch(Stage::parse, burst);
  find_known(burst, handed, worker), watch(Stage::demux, burst);
  first.direction == Direction::ingress ? ingress(burst, worker, asked, watch) : egress(burst, worker, asked, watch);
}

}  // namespace pipeline

// The same with somebody who looks; compiled apart.
namespace observed {
void process_from_trunk(Burst& burst, WorkerState& worker);
void process_from_task(Burst& burst, WorkerState& worker, const Endpoint& endpoint);
void process_handed_from_trunk(Burst& burst, WorkerState& worker);
void process_known(Burst& burst, std::span<const HandedPacket> handed, WorkerState& worker);
void process_delivered(std::span<const HandedPacket> handed, WorkerState& worker);
}  // namespace observed

inline void process_from_trunk(Burst& burst, WorkerState& worker) {
  if (worker.observers != nullptr) [[unlikely]] return observed::process_from_trunk(burst, worker);
  Unwatched nobody;
  pipeline::from_trunk(burst, worker, false, nobody);
}

inline void process_from_task(Burst& burst, WorkerState& worker, const Endpoint& endpoint) {
  if (worker.observers != nullptr) [[unlikely]] return observed::process_from_task(burst, worker, endpoint);
  Unwatched nobody;
  pipeline::from_task(burst, worker, endpoint, nobody);
}

// Packets that another worker took from the trunk.
inline void process_handed_from_trunk(Burst& burst, WorkerState& worker) {
  if (worker.observers != nullptr) [[unlikely]] return observed::process_handed_from_trunk(burst, worker);
  Unwatched nobody;
  pipeline::from_trunk(burst, worker, true, nobody);
}

inline void process_known(Burst& burst, std::span<const HandedPacket> handed, WorkerState& worker) {
  if (worker.observers != nullptr) [[unlikely]] return observed::process_known(burst, handed, worker);
  Unwatched nobody;
  pipeline::known(burst, handed, worker, nobody);
}

// Errors of the router's that another worker made for endpoints of this one.
inline void process_delivered(std::span<const HandedPacket> handed, WorkerState& worker) {
  if (worker.observers != nullptr) [[unlikely]] return observed::process_delivered(handed, worker);
  for (const HandedPacket& each : handed) deliver(each, worker);
}

}  // namespace trunkline
