// SPDX-License-Identifier: BSD-3-Clause
//
// What one worker knows: the View of this turn, the time of this turn, its connections, its counters, its outbox and its ends
// of the handoff lanes. The stages work on this and on a Burst, on nothing else; a unit test makes one without any DPDK
// set-up.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>

#include "dataplane/state/allowances.h"
#include "dataplane/state/asked_services.h"
#include "dataplane/state/backlog.h"
#include "dataplane/state/buffer_source.h"
#include "dataplane/state/clock.h"
#include "dataplane/state/connection_table.h"
#include "dataplane/state/counters.h"
#include "dataplane/state/fragment_table.h"
#include "dataplane/state/handoff.h"
#include "dataplane/state/outbox.h"
#include "dataplane/state/view.h"
#include "dataplane/state/worker_time.h"

namespace trunkline {

struct ObserverSet;

// Both sides of an endpoint's port. An endpoint that moved has been counted by several workers: its readings are sums.
struct EndpointMeters {
  Meter ingress, egress;  // written by the worker whose they are, read by control
  std::array<Counter, kDropReasonCount> audited;  // what audit mode let pass, by what it would have been refused for
  Meter& side(Direction direction) { return direction == Direction::ingress ? ingress : egress; }
  const Meter& side(Direction direction) const { return direction == Direction::ingress ? ingress : egress; }
};

struct WorkerState {
  WorkerState(std::size_t endpoints, std::uint32_t max_connections, std::uint64_t seed, WorkerNumber self = 0,
              HandoffMesh* mesh = nullptr, const std::string& connection_file = {})
      : number(self),
        max_endpoints(endpoints),
        connections(max_connections, seed, connection_file),
        flows(max_endpoints, max_connections),
        fragments(max_endpoints),
        asked(max_endpoints),
        meters(new EndpointMeters[max_endpoints]),
        allowances(new Allowances[max_endpoints]),
        handoff(mesh, self),
        time(max_endpoints) {
    connections.tell(&flows);
  }

  const WorkerNumber number;
  const std::size_t max_endpoints;
  // Set by the worker at the start of a turn.
  const View* view = nullptr;
  Tick now = 0;
  std::uint64_t micros = 0;  // the time again, as fine as rate limits need it; it may begin anywhere
  const ObserverSet* observers = nullptr;  // who looks at packets; nearly always nobody

  ConnectionTable connections;
  FlowRecorder flows;
  FragmentTable fragments;
  AskedServices asked;
  std::unique_ptr<EndpointMeters[]> meters;  // by EndpointId
  std::unique_ptr<Allowances[]> allowances;  // by EndpointId
  Meter trunk_in, trunk_out;
  Outbox outbox;
  Handoff handoff;
  Backlog backlog;
  WorkerTime time;

  BufferSource* buffers = nullptr;  // of packets that are made here; nullptr: none can be
  // Written by the worker, read by control.
  Counter fragmented_packets;  // that were larger than the MTU of their way
  Counter fragments_made;      // of them

  // Neighbour discovery for all untagged ENIs at once that may still be copied to them this tick.
  static constexpr std::uint32_t kCopiedPerTick = 10;
  Tick copied_tick = 0;
  std::uint32_t copied_left = kCopiedPerTick;

  // At the start of a turn, or of a test's step.
  void begin_turn(const View& current, Tick tick, std::uint64_t microseconds) {
    view = &current;
    now = flows.now = tick;
    micros = microseconds;
    flows.on = current.flow_logs;
    time.begin_turn(tick, microseconds);
    connections.share_among(current.endpoint_count);
    flows.share_among(current.endpoint_count);
    handoff.share_among(current.endpoint_count);
    fragments.share_among(current.endpoint_count);
  }
  Meter& meter(const Endpoint& endpoint, Direction direction) { return meters[endpoint.id.value].side(direction); }
};

// The trunk is always the first port.
inline constexpr PortSlot kTrunkSlot{0};

}  // namespace trunkline
