// SPDX-License-Identifier: BSD-3-Clause
//
// How fast the core is while something is measured. A virtual processor may share its core with another machine's, and the
// clock moves; neither is seen from inside, and both change TSC cycles a packet by a factor of two. So a loop of known
// length is timed next to each sample: one addition and one taken branch a round, which is one cycle of a core that is
// alone, and two of one that is shared. A sample counts when the loop ran as fast beside it as it ever did.
//
// What it cannot see: a neighbour who takes cache or memory bandwidth, and a core that was never alone during the run.
//
// Any thread; no memory is touched. One probe takes about half a microsecond.
#pragma once

#include <rte_cycles.h>

#include <cstdint>

namespace trunkline::bench {

inline constexpr double kPaceTolerance = 1.1;  // slower than the fastest by more than this: not alone, or not at the full clock

// TSC cycles a round.
inline double probe_pace() {
  constexpr std::uint64_t kRounds = 500;
  const std::uint64_t before = rte_rdtsc();
  std::uint64_t left = kRounds, sum = 0;
  // In one line of code, or a round may take two cycles of a core that is alone.
  asm volatile(
      ".p2align 6\n"
      "1: add $1, %0\n"
      "   dec %1\n"
      "   jnz 1b"
      : "+r"(sum), "+r"(left)
      :
      : "cc");
  return static_cast<double>(rte_rdtsc() - before) / kRounds;
}

}  // namespace trunkline::bench
