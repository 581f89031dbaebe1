// SPDX-License-Identifier: BSD-3-Clause
#include "dataplane/state/worker_clock.h"

#include <x86intrin.h>

#include <chrono>
#include <thread>

namespace trunkline {
namespace {

std::uint64_t told_hz = 0;

std::uint64_t measured_hz() {
  using Clock = std::chrono::steady_clock;
  const auto began = Clock::now();
  const std::uint64_t cycles = __rdtsc();
  std::this_thread::sleep_for(std::chrono::milliseconds(10));
  const std::uint64_t passed = __rdtsc() - cycles;
  const auto nanoseconds = static_cast<std::uint64_t>(std::chrono::nanoseconds(Clock::now() - began).count());
  return static_cast<std::uint64_t>(static_cast<unsigned __int128>(passed) * 1'000'000'000 / nanoseconds);
}

}  // namespace

const ClockOrigin& ClockOrigin::of_process() {
  static const ClockOrigin origin = [] {
    const std::uint64_t hz = told_hz != 0 ? told_hz : measured_hz();
    return ClockOrigin{.cycles = __rdtsc(), .hz = hz};
  }();
  return origin;
}

void ClockOrigin::tell_rate(std::uint64_t hz) { told_hz = hz; }

}  // namespace trunkline
