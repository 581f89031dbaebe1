// SPDX-License-Identifier: BSD-3-Clause
//
// The poll loop of one lcore: receive from each port, process, flush, and between turns the housekeeping (quiescent
// state, expiry sweep, idle sleep). It never locks, allocates, logs or waits for the control thread.
//
// Ownership: a Worker owns its WorkerState; the control thread reads the counters in it and nothing else. The fields that
// two threads touch say so.
#pragma once

#include <atomic>
#include <cstdint>

#include "dataplane/state/published.h"
#include "dataplane/state/worker_state.h"

namespace trunkline {

struct IdleSettings {
  std::uint32_t spin_turns = 20000;  // turns without a packet before the worker sleeps
  std::uint32_t sleep_us = 50;       // 0: never
};

class Worker {
 public:
  Worker(std::uint32_t number, Published<View>& published, IdleSettings idle, std::size_t max_endpoints,
         std::uint32_t max_connections, std::uint64_t seed)
      : state(max_endpoints, max_connections, seed), number_(number), published_(published), idle_(idle) {}

  // The loop; returns after stop(). On the worker's lcore.
  void run();
  // One turn, for tests that drive the loop themselves. True: there was something to do.
  bool turn();

  // --- control thread ---
  void stop() { stop_.store(true, std::memory_order_relaxed); }
  // The time of all workers: written by the control thread's timer, read once per turn.
  void set_time(Tick now) { time_.store(now, std::memory_order_relaxed); }
  std::uint64_t turns() const { return turns_.read(); }
  std::uint64_t busy_turns() const { return busy_turns_.read(); }
  std::uint64_t busy_cycles() const { return busy_cycles_.read(); }
  std::uint64_t start_cycles() const { return start_cycles_.load(std::memory_order_relaxed); }
  std::uint32_t number() const { return number_; }

  WorkerState state;

 private:
  std::uint32_t receive(const PortView& port);
  void flush_port(PortSlot slot);
  void flush();
  Meter& outgoing_meter(const PortView& port);
  void idle_turn();

  std::uint32_t number_;
  Published<View>& published_;
  IdleSettings idle_;
  std::uint32_t quiet_turns_ = 0;
  std::atomic<bool> stop_{false};              // written by control, read here
  std::atomic<Tick> time_{0};                  // written by control, read here
  Counter turns_, busy_turns_, busy_cycles_;   // written here, read by control
  std::atomic<std::uint64_t> start_cycles_{0};
};

}  // namespace trunkline
