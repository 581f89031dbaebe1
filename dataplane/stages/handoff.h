// SPDX-License-Identifier: BSD-3-Clause
//
// What a worker does with what others hand to it (state/handoff.h): find the endpoints of packets that are already known,
// take over connections, answer a new owner's questions, and send it what nobody asked for.
//
// Refuses: no_policy (the endpoint went meanwhile), handoff_full.
#pragma once

#include "dataplane/packet.h"
#include "dataplane/stages/demux_any.h"
#include "dataplane/stages/observe_drop.h"
#include "dataplane/stages/parse.h"
#include "dataplane/stages/track.h"
#include "dataplane/state/super_frame.h"
#include "dataplane/state/worker_state.h"

namespace trunkline {

namespace detail {

inline const Endpoint* endpoint_of(const HandedPacket& handed, const View& view) {
  const Endpoint* endpoint = view.endpoint(handed.endpoint);
  return endpoint != nullptr && endpoint->generation == handed.generation ? endpoint : nullptr;
}

// The packet cannot go on: counted where its receipt was.
inline void drop_handed(const HandedPacket& handed, DropReason reason, WorkerState& worker) {
  const bool of_trunk = handed.kind == HandoffKind::trunk || handed.kind == HandoffKind::transmit;
  Meter& meter = handed.kind == HandoffKind::trunk      ? worker.trunk_in
                 : handed.kind == HandoffKind::transmit ? worker.trunk_out
                                                        : worker.meters[handed.endpoint.value].side(handed.direction);
  // Whoever has the number now has not received it.
  const Endpoint* owner = of_trunk ? nullptr : worker.view->endpoint(handed.endpoint);
  if (owner == nullptr || owner->generation == handed.generation) meter.dropped(reason, frames_of(*handed.packet).packets);
  observe_drop(worker, *handed.packet, {.endpoint = handed.endpoint, .generation = handed.generation, .direction = handed.direction,
                                        .stage = handed.kind == HandoffKind::transmit ? Stage::transmit : handed.was_seen() ? Stage::admit : Stage::demux,
                                        .reason = reason, .is_first_sight = !handed.was_seen()});
  worker.outbox.discard(handed.packet);
}

// A packet that went to ask, and is about a service perhaps: what it is to demux, and whether the previous owner's task asked for it.
inline void recall_service(Burst& burst, std::uint32_t i, const HandedPacket& handed, WorkerState& worker) {
  burst.services |= std::uint64_t{service_of(burst, i, handed.direction, *worker.view) != Service::none} << i;
  if (handed.kind != HandoffKind::asked_service) return;
  complete_key(burst, i, worker.connections, handed.direction);
  worker.asked.ask(burst.key[i], worker.connections.hash(burst.key[i]), AskedServices::Packet::goes_on, worker.now);
}

}  // namespace detail

// In place of demux, for packets that passed it at another worker, in the order of `handed`. Some may have to go on to yet
// another worker, or wait.
inline void find_known(Burst& burst, std::span<const HandedPacket> handed, WorkerState& worker) {
  for (std::uint32_t i = 0; i < burst.size; ++i) {
    const Endpoint* endpoint = detail::endpoint_of(handed[i], *worker.view);
    burst.endpoint[i] = endpoint;
    if (endpoint == nullptr || !burst.alive(i)) {
      burst.mbuf[i] = nullptr;
      detail::drop_handed(handed[i], DropReason::no_policy, worker);
    } else if (endpoint->served_by != worker.number) {
      burst.mbuf[i] = nullptr;
      if (!worker.handoff.send(endpoint->worker, handed[i])) detail::drop_handed(handed[i], DropReason::handoff_full, worker);
    } else if (detail::is_neighbour_discovery(burst.headers[i])) {
      // The edge let it pass at the other worker.
      burst.edge |= std::uint64_t{1} << i;
      burst.route[i] = Route::task;
    } else {
      burst.filter(i, *endpoint);
      if (handed[i].kind != HandoffKind::known) detail::recall_service(burst, i, handed[i], worker);
    }
  }
}

// To the endpoint's port as it is; or on to where the endpoint is now.
inline void deliver(const HandedPacket& handed, WorkerState& worker) {
  const Endpoint* endpoint = detail::endpoint_of(handed, *worker.view);
  if (endpoint != nullptr && endpoint->served_by == worker.number) {
    worker.outbox.send(endpoint->port, handed.packet);
  } else if (endpoint == nullptr || !worker.handoff.send(endpoint->worker, handed)) {
    detail::drop_handed(handed, endpoint == nullptr ? DropReason::no_policy : DropReason::handoff_full, worker);
  }
}

// Connections that another worker had of an endpoint that is here now.
inline void take_records(WorkerState& worker, WorkerNumber from) {
  SpscRing<ConnectionRecord>& records = worker.handoff.from(from).records;
  const std::uint32_t count = records.ready();
  for (std::uint32_t i = 0; i < count; ++i) {
    const ConnectionRecord& record = records.front(i);
    worker.connections.adopt(record.connection, record.addresses, worker.now);
  }
  records.drop(count);
}

// Sends a connection to the endpoint's owner and forgets it. False: no room now.
inline bool give_connection(WorkerState& worker, Connection& connection, WorkerNumber to) {
  ConnectionRecord record{connection, {}};
  if (connection.key.is_ipv6()) record.addresses = worker.connections.addresses_of(connection);
  if (!worker.handoff.to(to).records.push(record)) return false;
  connection.totals[0] = connection.totals[1] = {};  // they go along
  worker.connections.erase(&connection);
  return true;
}

// The new owner of an endpoint asks for a packet's connection. False: no room for a connection now, to be tried again.
inline bool answer_question(const HandedPacket& asked, WorkerState& worker, WorkerNumber from) {
  HandoffLane& back = worker.handoff.to(from);
  if (back.records.room() == 0) return false;  // the other takes them every turn
  if (!back.packets.may_push(asked.endpoint)) {
    // To wait for room could be to wait for each other: two workers with full rings, and a question first in both.
    detail::drop_handed(asked, DropReason::handoff_full, worker);
    return true;
  }
  HandedPacket answer = asked;
  answer.kind = HandoffKind::asked;
  Burst burst;
  burst.add(asked.packet);
  parse(burst, asked.direction);
  if (const Endpoint* endpoint = detail::endpoint_of(asked, *worker.view); endpoint != nullptr && burst.alive(0)) {
    burst.filter(0, *endpoint);
    if (Connection* connection = detail::look_up(burst, 0, worker.connections, asked.direction); connection != nullptr) {
      give_connection(worker, *connection, from);
    } else if (worker.asked.forget(burst.key[0], burst.hash[0], worker.now)) {
      answer.kind = HandoffKind::asked_service;
    }
  }
  back.packets.push(answer, answer.endpoint);
  return true;
}

// One step of the sweep while endpoints are moving: what has a new owner is sent there. Answers whether the hand came round.
inline bool sweep_moving(WorkerState& worker, std::uint32_t count, bool& left_behind) {
  return worker.connections.sweep(count, worker.now, *worker.view, [&](Connection& connection, const Endpoint& endpoint) {
    if (endpoint.worker == worker.number) return;
    if (endpoint.served_by == kNoWorker || !give_connection(worker, connection, endpoint.worker)) left_behind = true;
  });
}

}  // namespace trunkline
