// SPDX-License-Identifier: BSD-3-Clause
//
// What a worker does when there is nothing to do, rung by rung: it spins for a moment, then sleeps for a little longer each
// time, then blocks until one of its ports or another thread has something for it. A packet puts it back to the first rung.
//
// To block, every port that the worker polls must have a descriptor that becomes readable (WakeSource); where one
// has none, the last rung is a longer sleep, which the ports that announce by themselves end early; after it only the others need to be asked
// (of 120 quiet ports, each asked is three lines that are in no cache any more). A View that the worker did not sleep upon has
// ports that were not heard.
//
// A card's interrupts are armed before the worker blocks, and it takes one more turn before it does, for what came before. What a card
// announces it announces once: after each wait they are disarmed. They are touched with the View at hand that has the ports, never after
// it. A packet that was not announced waits for kBlockMs; three in a row, and this worker takes armed ports for such as cannot tell.
//
// Whoever gives a worker something by other means than a port calls wake(): the control thread with a new View, another worker with a packet. It costs a system call only when the worker blocks.
//
// wait() belongs to the worker. wake() and the readers may be called by any thread.
#pragma once

#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <vector>

#include "dataplane/state/view.h"

namespace trunkline {

struct IdleSettings {
  std::uint32_t spin_us = 50;          // without a packet for so long: sleep
  std::uint32_t sleep_us = 50;         // the longest of the short sleeps; 0: spin for ever
  std::uint32_t block_after_ms = 10;   // without a packet for so long: block, or sleep long; 0: never
  std::uint32_t long_sleep_us = 1000;  // where a port cannot wake the worker
};

enum class IdleRung : std::uint8_t { busy, spinning, sleeping, sleeping_long, blocked };
constexpr const char* to_string(IdleRung rung) {
  constexpr const char* names[] = {"busy", "spinning", "sleeping", "sleeping_long", "blocked"};
  return names[static_cast<std::size_t>(rung)];
}

class IdleLadder {
 public:
  explicit IdleLadder(IdleSettings settings);
  ~IdleLadder();
  IdleLadder(const IdleLadder&) = delete;
  IdleLadder& operator=(const IdleLadder&) = delete;

  // After a turn with a packet.
  void busy(const View& view) {
    if (rung_.load(std::memory_order_relaxed) == IdleRung::busy) return;
    if (is_armed_) disarm(view, true);
    rung_.store(IdleRung::busy, std::memory_order_relaxed);
  }
  // After a turn without: which rung it is time for. `now` is the TSC.
  IdleRung next(std::uint64_t now, const View& view, WorkerNumber worker);
  // Spends the time of the rung. `work_came`: asked once more between "I will block" and blocking, for what was given
  // without a port; then nobody's wake() can be missed. False: no port that has a descriptor has anything.
  template <class WorkCame>
  bool wait(WorkCame&& work_came);
  void wake();

  IdleRung rung() const { return rung_.load(std::memory_order_relaxed); }

 private:
  struct ArmedQueue {
    std::uint16_t ethdev, queue;
    int descriptor;
  };

  void watch(const View& view, WorkerNumber worker);
  bool arm();
  void disarm(const View& view, bool packet_came);
  void sleep(std::uint32_t microseconds) const;
  bool sleep_long() const;
  void block();
  void take_wake() const;

  const IdleSettings settings_;
  const std::uint64_t cycles_a_us_;
  std::uint64_t quiet_since_ = 0;
  std::uint32_t nap_us_ = 1;
  std::uint64_t watched_view_ = 0;  // generation of the View whose ports are watched
  bool can_block_ = false;
  bool hears_all_ = false;  // that announce by themselves
  std::vector<ArmedQueue> to_arm_;  // of the watched View
  bool is_armed_ = false;  // they are; or there are none, and the extra turn is over
  bool has_waited_ = false;  // since they were armed
  bool heard_ = false;       // the wait ended because somebody had something
  unsigned unannounced_ = 0;  // packets in a row that came while armed and were not announced
  int epoll_ = -1;
  int event_ = -1;
  // Written by the worker, but for wake(), which takes `blocked` away.
  std::atomic<IdleRung> rung_{IdleRung::busy};
};

template <class WorkCame>
bool IdleLadder::wait(WorkCame&& work_came) {
  switch (rung()) {
    case IdleRung::busy:
    case IdleRung::spinning: __builtin_ia32_pause(); break;
    case IdleRung::sleeping: sleep(nap_us_); break;
    case IdleRung::sleeping_long: return sleep_long();
    case IdleRung::blocked:
      std::atomic_thread_fence(std::memory_order_seq_cst);  // `blocked` is seen before we look a last time
      if (!work_came()) block();
      break;
  }
  return true;
}

inline void IdleLadder::wake() {
  std::atomic_thread_fence(std::memory_order_seq_cst);  // what was given is seen before we look whether it blocks
  IdleRung blocked = rung_.load(std::memory_order_relaxed);
  if (blocked != IdleRung::blocked) return;  // without taking the line from a worker that runs
  if (!rung_.compare_exchange_strong(blocked, IdleRung::spinning)) return;
  const std::uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = write(event_, &one, sizeof one);
}

}  // namespace trunkline
