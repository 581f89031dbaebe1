// SPDX-License-Identifier: BSD-3-Clause
//
// A thread's own clock: ticks and microseconds since the engine started, out of the processor's time-stamp counter
// (TSC). Each worker has one, and the control thread has one, all of the same origin. So expiry, allowances and limits
// go on whatever the control thread does.
//
// Rules:
//  * Time never goes back. A counter that has begun anew (the machine was suspended, or moved to another host) goes on
//    from the last time that was told.
//  * Two threads may differ by less than a tick after that. What compares a time with one of another thread has to bear
//    it (ConnectionTable::adopt).
//
// Owned by one thread. No system call, no division but once a tick.
#pragma once

#include <cstdint>

#include "dataplane/state/clock.h"

namespace trunkline {

// The origin of all clocks of the engine.
struct ClockOrigin {
  std::uint64_t cycles = 0;          // TSC
  std::uint64_t hz = 1'000'000'000;  // TSC cycles a second

  // The same for all of this process: the TSC when it was first asked for. The rate is the one that was told before; if
  // none was, it is measured for ten milliseconds.
  static const ClockOrigin& of_process();
  // DPDK knows the rate well. Once, before the first clock is made (io/eal.cpp).
  static void tell_rate(std::uint64_t hz);
};

class WorkerClock {
 public:
  struct Time {
    Tick tick = 0;
    std::uint64_t micros = 0;
  };

  explicit WorkerClock(const ClockOrigin& origin = ClockOrigin::of_process())
      : began_(origin.cycles),
        last_(origin.cycles),
        micros_a_cycle_((std::uint64_t{1'000'000} << kFraction) / (origin.hz != 0 ? origin.hz : 1)) {}

  // `cycles`: the TSC now.
  Time at(std::uint64_t cycles) {
    if (cycles < last_) [[unlikely]]
      began_ += cycles - last_;  // modulo 2^64: what had passed stays passed
    last_ = cycles;
    const auto micros =
        static_cast<std::uint64_t>(static_cast<unsigned __int128>(cycles - began_) * micros_a_cycle_ >> kFraction);
    if (micros - tick_began_ >= kMicrosATick) {
      time_.tick = static_cast<Tick>(micros / kMicrosATick);
      tick_began_ = std::uint64_t{time_.tick} * kMicrosATick;
    }
    time_.micros = micros;
    return time_;
  }

 private:
  static constexpr unsigned kFraction = 40;
  static constexpr std::uint64_t kMicrosATick = 1'000'000 / kTicksPerSecond;

  std::uint64_t began_, last_;    // TSC
  std::uint64_t micros_a_cycle_;  // fixed point
  std::uint64_t tick_began_ = 0;  // microseconds
  Time time_;
};

}  // namespace trunkline
