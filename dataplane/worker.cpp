// SPDX-License-Identifier: BSD-3-Clause
#include "dataplane/worker.h"

#include <rte_cycles.h>
#include <rte_ethdev.h>
#include <signal.h>
#include <time.h>

#include "dataplane/pipeline.h"

namespace trunkline {
namespace {

constexpr std::uint16_t kReceiveBurst = 32;
// Entries looked at per turn: a table of a quarter million comes round in a second of an idle loop's turns.
constexpr std::uint32_t kSweepPerTurn = 16;

}  // namespace

std::uint32_t Worker::receive(const PortView& port) {
  Burst burst;
  const std::uint16_t count = rte_eth_rx_burst(port.ethdev, 0, burst.mbuf, kReceiveBurst);
  if (count == 0) return 0;
  burst.received(count);
  if (port.is_trunk) {
    process_from_trunk(burst, state);
  } else {
    process_from_task(burst, state, *state.view->endpoint(port.endpoint));
  }
  if (auto discarded = state.outbox.discarded(); !discarded.empty()) {
    rte_pktmbuf_free_bulk(discarded.data(), static_cast<unsigned>(discarded.size()));
    state.outbox.clear_discarded();
  }
  for (const PortSlot slot : state.outbox.dirty()) {
    if (state.outbox.queue(slot).count > Outbox::kHighWater) flush_port(slot);
  }
  return count;
}

Meter& Worker::outgoing_meter(const PortView& port) {
  return port.is_trunk ? state.trunk_out : state.meters[port.endpoint.value].ingress;
}

void Worker::flush_port(PortSlot slot) {
  Outbox::Queue& queue = state.outbox.queue(slot);
  if (queue.count == 0) return;
  const PortView& port = *state.view->port(slot);
  Meter& meter = outgoing_meter(port);
  std::uint32_t sent = 0;
  while (sent < queue.count) {
    const std::uint16_t accepted =
        rte_eth_tx_burst(port.ethdev, 0, queue.packets + sent, static_cast<std::uint16_t>(queue.count - sent));
    if (accepted == 0) break;
    sent += accepted;
  }
  // What the driver took is no longer ours to look at, what it did not take still is.
  std::uint64_t bytes = queue.bytes;
  for (std::uint32_t i = sent; i < queue.count; ++i) bytes -= queue.packets[i]->pkt_len;
  meter.tx_packets.add(sent);
  meter.tx_bytes.add(bytes);
  if (sent < queue.count) {
    meter.drops[static_cast<std::size_t>(DropReason::tx_full)].add(queue.count - sent);
    rte_pktmbuf_free_bulk(queue.packets + sent, queue.count - sent);
  }
  queue.count = 0;
  queue.bytes = 0;
}

void Worker::flush() {
  for (const PortSlot slot : state.outbox.dirty()) flush_port(slot);
  state.outbox.clear_dirty();
}

bool Worker::turn() {
  state.view = published_.read();
  state.now = time_.load(std::memory_order_relaxed);
  std::uint32_t packets = 0;
  for (const PortView& port : state.view->ports) packets += receive(port);
  if (packets != 0) flush();
  state.connections.sweep(kSweepPerTurn, state.now, *state.view);
  published_.quiescent(number_);
  turns_.add(1);
  return packets != 0;
}

void Worker::idle_turn() {
  if (idle_.sleep_us == 0 || ++quiet_turns_ < idle_.spin_turns) {
    rte_pause();
    return;
  }
  // Asleep it holds nothing, so nobody needs to wait for it.
  published_.offline(number_);
  const timespec duration{0, static_cast<long>(idle_.sleep_us) * 1000};
  nanosleep(&duration, nullptr);
  published_.online(number_);
}

void Worker::run() {
  // net_tap announces packets with a signal to the process: the control thread takes it, never a worker.
  sigset_t all;
  sigfillset(&all);
  pthread_sigmask(SIG_BLOCK, &all, nullptr);

  published_.join(number_);
  start_cycles_.store(rte_get_tsc_cycles(), std::memory_order_relaxed);
  while (!stop_.load(std::memory_order_relaxed)) {
    const std::uint64_t before = rte_rdtsc();
    if (turn()) {
      busy_cycles_.add(rte_rdtsc() - before);
      busy_turns_.add(1);
      quiet_turns_ = 0;
    } else {
      idle_turn();
    }
  }
  published_.leave(number_);
}

}  // namespace trunkline
