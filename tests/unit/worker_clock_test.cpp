// SPDX-License-Identifier: BSD-3-Clause
//
// A thread's clock against the definition: micros = cycles / rate, a tick is a hundred thousand of them, and time never
// goes back.
#include "dataplane/state/worker_clock.h"

#include <gtest/gtest.h>

#include <random>

namespace trunkline {
namespace {

TEST(WorkerClock, TellsWhatTheRateSays) {
  for (const std::uint64_t hz :
       {1'000'000ULL, 1'000'000'000ULL, 2'095'074'000ULL, 2'600'000'000ULL, 5'000'000'000ULL}) {
    WorkerClock clock({.cycles = 12345, .hz = hz});
    EXPECT_EQ(clock.at(12345).micros, 0U);
    // To ten years.
    for (const std::uint64_t second : {1ULL, 2ULL, 59ULL, 3600ULL, 86400ULL, 315'360'000ULL}) {
      const WorkerClock::Time time = clock.at(12345 + second * hz);
      EXPECT_NEAR(static_cast<double>(time.micros), static_cast<double>(second) * 1e6,
                  static_cast<double>(second) * 5 + 1)
          << hz << ' ' << second;
      EXPECT_EQ(time.tick, time.micros / 100'000) << hz << ' ' << second;
    }
  }
}

TEST(WorkerClock, GoesOnWhereTheCounterBeginsAnew) {
  constexpr std::uint64_t kHz = 2'000'000'000;
  WorkerClock clock({.cycles = 50 * kHz, .hz = kHz});
  const WorkerClock::Time before = clock.at(80 * kHz);
  EXPECT_EQ(before.tick, 299U + (before.micros == 30'000'000));
  const WorkerClock::Time resumed = clock.at(1000);
  EXPECT_EQ(resumed.micros, before.micros);
  EXPECT_EQ(resumed.tick, before.tick);
  EXPECT_NEAR(static_cast<double>(clock.at(1000 + 10 * kHz).micros), 40e6, 300);
}

TEST(WorkerClock, NeverGoesBackWhateverTheCounterSays) {
  const auto seed = std::random_device()();
  SCOPED_TRACE(seed);
  std::mt19937_64 random(seed);
  WorkerClock clock({.cycles = random(), .hz = 2'600'000'000});
  WorkerClock::Time last = clock.at(0);
  std::uint64_t cycles = 0;
  for (int i = 0; i < 100'000; ++i) {
    cycles = random() % 1000 == 0 ? random() >> 20 : cycles + random() % 3'000'000'000;
    const WorkerClock::Time time = clock.at(cycles);
    ASSERT_GE(time.micros, last.micros) << i;
    ASSERT_EQ(time.tick, time.micros / 100'000) << i;
    last = time;
  }
}

TEST(WorkerClock, TheOriginIsOne) {
  WorkerClock one, other;
  const std::uint64_t cycles = ClockOrigin::of_process().cycles + ClockOrigin::of_process().hz;
  EXPECT_EQ(one.at(cycles).micros, other.at(cycles).micros);
  EXPECT_EQ(one.at(cycles).tick, 9U + (one.at(cycles).micros >= 1'000'000));
}

}  // namespace
}  // namespace trunkline
