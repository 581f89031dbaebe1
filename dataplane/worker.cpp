// SPDX-License-Identifier: BSD-3-Clause
#include "dataplane/worker.h"

#include <rte_cycles.h>
#include <rte_ethdev.h>
#include <signal.h>

#include <algorithm>

#include "dataplane/pipeline.h"
#include "dataplane/transmit.h"

namespace trunkline {
namespace {

constexpr std::uint16_t kReceiveBurst = 32;
constexpr std::uint32_t kTasksATrunkBurst = 8;  // tasks that had something, to one burst more of the trunk
// The sweep comes round in five seconds when there is time for nothing else, a chunk a turn until the tick's share is done.
constexpr std::uint32_t kSweepSeconds = 5;
constexpr std::uint32_t kSweepPerTurn = 64;
constexpr std::uint32_t kFragmentsPerTurn = 16;

// Of the pool of the packet that they are to be like.
class PoolBuffers final : public BufferSource {
 public:
  rte_mbuf* take(const rte_mbuf& like) override { return rte_pktmbuf_alloc(like.pool); }
  void give_back(rte_mbuf* packet) override { rte_pktmbuf_free(packet); }
};
// Of what control asks about connections; more when there is nothing else to do.
constexpr std::uint32_t kInspectPerTurn = 512, kInspectPerIdleTurn = 4096;

}  // namespace

BufferSource& buffers_of_pools() {
  static PoolBuffers buffers;  // has no state
  return buffers;
}

// --- receiving -------------------------------------------------------------------------------------------------------

namespace {

std::uint64_t bytes_of(const Burst& burst) {
  std::uint64_t bytes = 0;
  for (std::uint32_t i = 0; i < burst.size; ++i) bytes += burst.mbuf[i]->pkt_len;
  return bytes;
}

}  // namespace

void Worker::after_burst() {
  if (auto discarded = state.outbox.discarded(); !discarded.empty()) {
    rte_pktmbuf_free_bulk(discarded.data(), static_cast<unsigned>(discarded.size()));
    state.outbox.clear_discarded();
  }
  if (state.outbox.is_full()) [[unlikely]] send_all();
}

std::uint32_t Worker::receive(const PortView& port, std::uint16_t queue) {
  Burst burst;
  const std::uint16_t most = port.is_trunk ? kReceiveBurst : state.time.burst_of(port.endpoint, kReceiveBurst);
  const std::uint16_t count = rte_eth_rx_burst(port.ethdev, queue, burst.mbuf, most);
  if (port.is_trunk) state.time.trunk_gave(count == kReceiveBurst);
  if (count == 0) return 0;
  burst.received(count);
  if (port.is_trunk) {
    process_from_trunk(burst, state);
  } else {
    state.time.mark(port.endpoint);
    if ((port.tx_offloads & RTE_ETH_TX_OFFLOAD_TCP_TSO) != 0)
      state.time.received(port.endpoint, count, bytes_of(burst));
    process_from_task(burst, state, *state.view->endpoint(port.endpoint));
  }
  after_burst();
  return count;
}

// All of one kind and, where it matters, of one direction.
void Worker::process_handed(std::span<const HandedPacket> handed) {
  switch (handed.front().kind) {
    case HandoffKind::deliver: process_delivered(handed, state); break;
    case HandoffKind::transmit:
      for (const HandedPacket& each : handed) state.outbox.send(kTrunkSlot, each.packet);
      break;
    case HandoffKind::ask: break;  // answered one by one in take_lane()
    default: {
      Burst burst;
      for (const HandedPacket& each : handed) burst.add(each.packet);
      handed.front().kind == HandoffKind::trunk ? process_handed_from_trunk(burst, state) : process_known(burst, handed, state);
    }
  }
  after_burst();
}

namespace {

// Calls process(run) for runs of neighbours that can be processed together.
template <class Process>
void in_runs(std::span<const HandedPacket> packets, Process&& process) {
  while (!packets.empty()) {
    const HandedPacket& first = packets.front();
    const auto differs = [&](const HandedPacket& each) { return each.kind != first.kind || each.direction != first.direction; };
    const auto end = std::find_if(packets.begin(), packets.begin() + std::min<std::ptrdiff_t>(std::ssize(packets), kReceiveBurst), differs);
    const auto count = static_cast<std::size_t>(end - packets.begin());
    process(packets.first(count));
    packets = packets.subspan(count);
  }
}

}  // namespace

// What one other worker has handed over, in its order. Connections first: they were sent before the packets that are theirs.
std::uint32_t Worker::take_lane(WorkerNumber from) {
  SharedRing<HandedPacket>& lane = state.handoff.from(from).packets;
  const std::uint32_t ready = std::min<std::uint32_t>(lane.ready(), 2 * kReceiveBurst);
  take_records(state, from);
  HandedPacket packets[2 * kReceiveBurst];
  std::uint32_t count = 0, taken = 0;
  for (; taken < ready; ++taken) {
    const HandedPacket& next = lane.front(taken);
    if (next.kind != HandoffKind::ask) {
      packets[count++] = next;
    } else if (!answer_question(next, state, from)) {
      break;
    }
  }
  lane.drop(taken);
  if (taken != count) after_burst();  // a question may have been dropped
  in_runs({packets, count}, [&](std::span<const HandedPacket> run) { process_handed(run); });
  return taken;
}

std::uint32_t Worker::receive_handed() {
  std::uint32_t count = 0;
  if (!state.handoff.parked().empty()) {
    // Older than anything that comes now. What still has to wait is parked again.
    state.handoff.take_parked(unparked_);
    in_runs(unparked_, [&](std::span<const HandedPacket> run) { process_handed(run); });
    unparked_.clear();
  }
  for (std::uint32_t from = 0; from < state.handoff.workers(); ++from) {
    if (from != state.number) count += take_lane(static_cast<WorkerNumber>(from));
  }
  handed_in_.add(count);
  return count;
}

// Whether there is something to do that no port announces. Asked while offline: the View itself must not be touched.
bool Worker::is_given(const View* seen) {
  Handoff& handoff = state.handoff;
  for (std::uint32_t from = 0; from < handoff.workers(); ++from) {
    if (from == state.number) continue;
    HandoffLane& lane = handoff.from(static_cast<WorkerNumber>(from));
    if (lane.packets.ready() != 0 || lane.records.ready() != 0) return true;
  }
  return stop_.load(std::memory_order_relaxed) || inspections.has_request() || observers.has_news() || published_.read() != seen;
}

// --- sending ---------------------------------------------------------------------------------------------------------

Meter& Worker::outgoing_meter(const PortView& port) {
  return port.is_trunk ? state.trunk_out : state.meters[port.endpoint.value].ingress;
}

void Worker::hand_to_trunk_sender(const Outbox::Batch& batch, WorkerNumber sender) {
  for (rte_mbuf* packet : batch.packets) {
    if (state.handoff.send(sender, {packet, {}, 0, HandoffKind::transmit, Direction::egress})) continue;
    state.trunk_out.dropped(DropReason::handoff_full, frames_of(*packet).packets);
    observe_drop(state, *packet, {.direction = Direction::egress, .stage = Stage::transmit, .reason = DropReason::handoff_full});
    rte_pktmbuf_free(packet);
  }
}

void Worker::send(PortSlot slot, const Outbox::Batch& batch) {
  const PortView& port = *state.view->port(slot);
  const std::uint16_t queues = port.is_trunk ? state.view->trunk_queues : std::uint16_t{1};
  const std::uint16_t ours = port.queue_of(state.number);
  if (!port.is_trunk) state.time.mark(port.endpoint);
  if (port.is_trunk && state.number >= queues) {
    hand_to_trunk_sender(batch, static_cast<WorkerNumber>(state.number % queues));
  } else if (!batch.asks && state.backlog.is_empty()) [[likely]] {
    transmit(port, ours, batch.packets, batch.bytes, outgoing_meter(port), state);
  } else {
    transmit_with_offloads(port, ours, batch.packets, outgoing_meter(port), offloads, state);
  }
}

void Worker::send_all() {
  state.outbox.empty([this](PortSlot slot, const Outbox::Batch& batch) { send(slot, batch); });
}

void Worker::drop_rest(const HandedPacket& handed, std::uint32_t made) {
  state.meters[handed.endpoint.value].ingress.dropped(DropReason::cpu_allowance_exceeded,
                                                      frames_of(*handed.packet).packets - made);
  rte_pktmbuf_free(handed.packet);
}

// What was left of earlier turns: each ENI that has something a slice of time.
void Worker::send_backlog() {
  for (std::uint32_t left = state.backlog.owners(); left != 0 && !state.backlog.is_empty(); --left) {
    const EndpointId owner = state.backlog.next_owner();
    const Backlog::Waiting waiting = state.backlog.front(owner);
    const PortView* const port = state.view->port(waiting.port);
    const Endpoint* const endpoint = port == nullptr || port->is_trunk ? nullptr : state.view->endpoint(port->endpoint);
    if (port == nullptr || (!port->is_trunk && (endpoint == nullptr || endpoint->generation != waiting.generation))) {
      // It was received by an ENI that has gone, and whoever has the port now did not receive it.
      observe_drop(state, *waiting.packet,
                   {.direction = Direction::ingress, .stage = Stage::transmit, .reason = DropReason::no_policy});
      rte_pktmbuf_free(state.backlog.pop(owner));
      continue;
    }
    // Of a port of another worker: its ENI has moved meanwhile. A driver's queue is one worker's.
    if (!port->is_trunk && port->polled_by != state.number) {
      const HandedPacket handed{waiting.packet, port->endpoint, waiting.generation, HandoffKind::deliver,
                                Direction::ingress};
      state.backlog.pop(owner);
      // What of it is sent already would be sent again.
      if (waiting.made != 0) {
        drop_rest(handed, waiting.made);
      } else if (!state.handoff.send(endpoint->worker, handed)) {
        detail::drop_handed(handed, DropReason::handoff_full, state);
      }
      continue;
    }
    transmit_backlog(*port, port->queue_of(state.number), owner, outgoing_meter(*port), offloads, state);
  }
}

void Worker::flush() {
  send_all();
  if (!state.backlog.is_empty()) [[unlikely]]
    send_backlog();
  for (std::uint32_t to = 0; to < state.handoff.workers(); ++to) {
    if (to == state.number) continue;
    HandoffLane& lane = state.handoff.to(static_cast<WorkerNumber>(to));
    const bool records = lane.records.flush();  // before the packets that they belong to
    if ((lane.packets.flush() || records) && to < workers_.size()) workers_[to]->wake();
  }
}

// --- the turn --------------------------------------------------------------------------------------------------------

void Worker::sweep() {
  if (state.view->moving) {
    if (sweep_moving(state, kSweepPerTurn, left_behind_)) {
      if (!left_behind_) clean_rounds_.add(1);
      left_behind_ = false;
    }
    return;
  }
  if (state.now != swept_at_) {
    swept_at_ = state.now;
    sweep_left_ = state.connections.high_water() / (kSweepSeconds * kTicksPerSecond) + kSweepPerTurn;
  }
  if (sweep_left_ == 0) return;
  const std::uint32_t count = std::min(sweep_left_, kSweepPerTurn);
  sweep_left_ -= count;
  state.connections.sweep(count, state.now, *state.view);
}

// A piece a turn; when the ring is full the rest waits for control to empty it.
void Worker::end_interval() {
  static constexpr std::uint32_t kPerTurn = 256;
  ConnectionTable& connections = state.connections;
  if (!connections.end_interval(interval_at_, kPerTurn, state.flows) || interval_at_ < connections.high_water()) return;
  if (!state.flows.take_loose(kPerTurn)) return;
  state.flows.flush();
  interval_at_ = 0;
  state.flows.begin_loose();
  interval_ = interval_asked_.load(std::memory_order_relaxed);
  interval_done_.store(interval_, std::memory_order_release);
}

bool Worker::turn() { return turn(clock_.at(rte_rdtsc())); }

bool Worker::turn(const WorkerClock::Time& time) {
  // The View of the turn before was needed until now: what comes between two turns looks at it too.
  published_.quiescent(state.number);
  state.begin_turn(*published_.read(), time.tick, time.micros);
  if (observers.has_news()) [[unlikely]] state.observers = observers.take();
  std::uint32_t packets = 0;
  const bool only_silent_ports = !announced_;
  announced_ = true;
  const bool has_trunk_queue = state.number < state.view->trunk_queues;
  std::uint32_t busy_tasks = 0;
  for (const PortView& port : state.view->ports) {
    if (only_silent_ports && port.announces(state.number)) continue;
    if (port.is_trunk) {
      if (has_trunk_queue) packets += receive(port, state.number);
    } else if (port.polled_by == state.number && !state.backlog.holds(port.endpoint)) {
      const std::uint32_t received = receive(port, 0);
      packets += received;
      // All tasks' packets come by the trunk's queue, so it is not one port among many.
      if (received != 0 && ++busy_tasks % kTasksATrunkBurst == 0 && has_trunk_queue)
        packets += receive(state.view->ports.front(), state.number);
    }
  }
  packets_.add(packets);
  if (state.handoff.workers() > 1 || !state.handoff.parked().empty()) packets += receive_handed();
  if (packets != 0 || !state.outbox.is_empty() || !state.backlog.is_empty()) flush();
  sweep();
  if (is_interval_open()) end_interval();
  state.flows.flush();
  bool handed_fragments = false;
  if (!state.fragments.empty()) {
    handed_fragments = sweep_fragments(state, kFragmentsPerTurn);
    after_burst();
  }
  if (state.view->moving || handed_fragments) flush();
  if (inspections.has_request()) [[unlikely]] {
    inspections.step({state.connections, state.fragments, state.asked, *state.view}, state.now,
                     packets != 0 ? kInspectPerTurn : kInspectPerIdleTurn);
  }
  turns_.add(1);
  return packets != 0 || !state.backlog.is_empty();
}

void Worker::run() {
  // net_tap announces packets with a signal to the process: the control thread takes it, never a worker. But a fault in a peer's memory is
  // the worker's own (io/peer_memory.h).
  sigset_t all;
  sigfillset(&all);
  sigdelset(&all, SIGBUS);
  pthread_sigmask(SIG_BLOCK, &all, nullptr);

  published_.join(state.number);
  start_cycles_.store(rte_get_tsc_cycles(), std::memory_order_relaxed);
  while (!stop_.load(std::memory_order_relaxed)) {
    const std::uint64_t before = rte_rdtsc();
    if (turn()) {
      busy_cycles_.add(rte_rdtsc() - before);
      busy_turns_.add(1);
      idle_.busy(*state.view);
      continue;
    }
    // While connections are on their way, or somebody asks about them, there is work without packets.
    if (state.view->moving || is_interval_open() || inspections.has_request()) continue;
    const IdleRung rung = idle_.next(rte_rdtsc(), *state.view, state.number);
    if (rung <= IdleRung::spinning) {
      idle_.wait([] { return false; });
      continue;
    }
    // Asleep it holds nothing, so nobody needs to wait for it.
    const View* seen = state.view;
    published_.offline(state.number);
    announced_ = idle_.wait([&] { return is_given(seen); });
    published_.online(state.number);
    if (published_.read() != seen) announced_ = true;  // it slept without hearing the ports of the new one
  }
  published_.leave(state.number);
}

}  // namespace trunkline
