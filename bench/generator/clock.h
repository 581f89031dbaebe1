// SPDX-License-Identifier: BSD-3-Clause
//
// Time as the loops see it: the TSC once a turn, the turns that took too long (somebody else had the processor), and the
// moment to say how far it is.
#pragma once

#include <rte_cycles.h>

#include <cstdint>

namespace trunkline::generator {

inline double tsc_hz() { return static_cast<double>(rte_get_tsc_hz()); }
inline std::uint64_t to_cycles(double seconds) { return static_cast<std::uint64_t>(seconds * tsc_hz()); }
inline double to_seconds(std::uint64_t cycles) { return static_cast<double>(cycles) / tsc_hz(); }
inline double to_ns(std::uint64_t cycles) { return to_seconds(cycles) * 1e9; }

class LoopClock {
 public:
  LoopClock() : start_(rte_rdtsc()), now_(start_), next_second_(start_ + rte_get_tsc_hz()), gap_(to_cycles(50e-6)) {}

  std::uint64_t turn() {
    const std::uint64_t now = rte_rdtsc();
    const std::uint64_t took = now - now_;
    if (took > gap_) ++gaps_;
    if (took > longest_) longest_ = took;
    now_ = now;
    return now;
  }
  std::uint64_t start() const { return start_; }
  std::uint64_t elapsed() const { return now_ - start_; }
  bool second_passed() {
    if (now_ < next_second_) return false;
    next_second_ += rte_get_tsc_hz();
    return true;
  }
  std::uint64_t gaps() const { return gaps_; }        // turns of more than 50 us
  std::uint64_t longest() const { return longest_; }

 private:
  std::uint64_t start_, now_, next_second_, gap_;
  std::uint64_t gaps_ = 0, longest_ = 0;
};

}  // namespace trunkline::generator
