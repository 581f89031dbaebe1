// SPDX-License-Identifier: BSD-3-Clause
//
// The poll loop of one lcore: receive from each port that it owns, take what other workers hand over, process, flush;
// between turns the housekeeping (quiescent state, expiry sweep, what control asks about connections, idle ladder). It
// never locks, allocates, logs or waits for the control thread; its time comes from its own clock
// (state/worker_clock.h).
//
// Ownership: a Worker owns its WorkerState; the control thread reads the counters in it and nothing else. The fields that
// two threads touch say so.
#pragma once

#include <atomic>
#include <cstdint>
#include <string>
#include <vector>

#include "dataplane/idle_ladder.h"
#include "dataplane/state/inspection.h"
#include "dataplane/state/observer.h"
#include "dataplane/state/published.h"
#include "dataplane/state/worker_clock.h"
#include "dataplane/state/worker_state.h"
#include "dataplane/transmit.h"

namespace trunkline {

// What is made here beside what came lies in buffers of the pool that the packet is of which it is made.
BufferSource& buffers_of_pools();

class Worker {
 public:
  Worker(WorkerNumber number, Published<View>& published, IdleSettings idle, std::size_t max_endpoints, std::uint32_t max_connections,
         std::uint64_t seed, HandoffMesh* mesh = nullptr, const std::string& connection_file = {})
      : state(max_endpoints, max_connections, seed, number, mesh, connection_file), published_(published), idle_(idle) {
    unparked_.reserve(Handoff::kMaxParked);
    state.buffers = &buffers_of_pools();
  }

  // Before run(): who else there is, by number, so that they can be woken when something is handed to them.
  void meet(std::vector<Worker*> workers) { workers_ = std::move(workers); }
  // The loop; returns after stop(). On the worker's lcore.
  void run();
  // One turn. True: there was something to do.
  bool turn();
  // The same at a time of the caller's, for tests that drive the loop themselves.
  bool turn(const WorkerClock::Time& time);

  // --- control thread ---
  void stop() {
    stop_.store(true, std::memory_order_relaxed);
    wake();
  }
  // After a new View was published. Any thread.
  void wake() { idle_.wake(); }
  WorkerNumber number() const { return state.number; }
  std::uint64_t turns() const { return turns_.read(); }
  std::uint64_t busy_turns() const { return busy_turns_.read(); }
  std::uint64_t busy_cycles() const { return busy_cycles_.read(); }  // TSC, of turns that had packets
  std::uint64_t packets() const { return packets_.read(); }          // received from ports
  std::uint64_t handed_in() const { return handed_in_.read(); }      // received from other workers
  std::uint64_t start_cycles() const { return start_cycles_.load(std::memory_order_relaxed); }
  // The flow log's interval has ended: what it counted is wanted (state.flows). Numbers grow; done() is the last that is complete.
  void end_flow_interval(std::uint32_t number) {
    interval_asked_.store(number, std::memory_order_relaxed);
    wake();
  }
  std::uint32_t flow_interval_done() const { return interval_done_.load(std::memory_order_acquire); }
  // Rounds of the sweep that left nothing behind which belongs to another worker.
  std::uint64_t clean_rounds() const { return clean_rounds_.read(); }
  IdleRung idle_rung() const { return idle_.rung(); }

  // By which the control thread looks into the connection table; after post(), wake().
  InspectionBox inspections;
  // Who looks at its packets; after post(), wake().
  ObserverSlot observers;

  WorkerState state;
  OffloadCounters offloads;  // state has those of fragments

 private:
  std::uint32_t receive(const PortView& port, std::uint16_t queue);
  std::uint32_t receive_handed();
  std::uint32_t take_lane(WorkerNumber from);
  void process_handed(std::span<const HandedPacket> handed);
  void after_burst();
  bool is_given(const View* seen);
  void send(PortSlot slot, const Outbox::Batch& batch);
  void send_all();
  void send_backlog();
  void drop_rest(const HandedPacket& handed, std::uint32_t made);
  void hand_to_trunk_sender(const Outbox::Batch& batch, WorkerNumber sender);
  void flush();
  void sweep();
  bool is_interval_open() const { return interval_asked_.load(std::memory_order_relaxed) != interval_; }
  void end_interval();
  Meter& outgoing_meter(const PortView& port);

  Published<View>& published_;
  IdleLadder idle_;
  WorkerClock clock_;
  std::vector<Worker*> workers_;
  std::vector<HandedPacket> unparked_;
  Tick swept_at_ = 0;           // the tick whose share of the sweep is under way
  std::uint32_t sweep_left_ = 0;  // entries that this tick is still to look at
  bool announced_ = true;       // some port with a descriptor may have something; false for the turn after a long sleep in which none had
  bool left_behind_ = false;
  std::uint32_t interval_ = 0;      // the last one that is complete
  std::uint32_t interval_at_ = 0;   // the next connection to take the totals off
  std::atomic<bool> stop_{false};   // written by control, read here
  std::atomic<std::uint32_t> interval_asked_{0};  // written by control, read here
  // Written here, read by control; on lines of their own.
  alignas(64) Counter turns_;
  Counter busy_turns_, busy_cycles_, packets_, handed_in_, clean_rounds_;
  std::atomic<std::uint64_t> start_cycles_{0};
  std::atomic<std::uint32_t> interval_done_{0};
};

}  // namespace trunkline
