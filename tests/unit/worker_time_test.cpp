// SPDX-License-Identifier: BSD-3-Clause
//
// A worker's time in virtual time: whose writes take long, who pays, and who is left alone.
#include "dataplane/state/worker_time.h"

#include <gtest/gtest.h>

namespace trunkline {
namespace {

std::uint64_t cycles = 0;
std::uint64_t read_cycles() { return cycles; }
std::uint64_t preemptions = 0;
std::uint64_t read_preemptions() { return preemptions; }
constexpr std::uint64_t kMicro = 2000;  // cycles: 2 GHz

class WorkerTimeTest : public testing::Test {
 protected:
  WorkerTimeTest() { cycles = 1'000'000'000; }
  void turn(std::uint64_t micros_later = 0) {
    cycles += micros_later * kMicro;
    micros += micros_later;
    time.begin_turn(static_cast<Tick>(micros / 100'000), micros);
  }
  // Frames of 1500 bytes, one after another, for so long; each takes so many microseconds. Answers how many were
  // written.
  std::uint32_t write_for(EndpointId id, std::uint64_t duration_us, std::uint64_t frame_us, bool neighbour = false) {
    std::uint32_t written = 0;
    for (const std::uint64_t end = micros + duration_us; micros < end;) {
      turn(1);
      time.mark(id);
      if (neighbour) time.mark(kNeighbour);
      if (!time.may_write(id, 1)) {
        refused = true;
        continue;
      }
      const std::uint32_t frames = time.frames_at_once(id);
      cycles += frames * frame_us * kMicro, micros += frames * frame_us;
      time.wrote(id, frames, std::uint64_t{frames} * 1500, frames * frame_us * kMicro);
      written += frames;
    }
    return written;
  }

  static constexpr EndpointId kTask{3}, kNeighbour{4};
  WorkerTime time{16, {.hz = 2'000'000'000, .cycles = read_cycles, .preemptions = read_preemptions}};
  std::uint64_t micros = 1'000'000;
  bool refused = false;
};

TEST_F(WorkerTimeTest, APortThatIsNotSlowOwesNothing) {
  EXPECT_GT(write_for(kTask, 1'000'000, 6, true), 150'000U);
  EXPECT_FALSE(refused);
  EXPECT_EQ(time.had[kTask.value].frame_cost.read() / kMicro, 5U) << "smoothed, rounded down";
}

TEST_F(WorkerTimeTest, SuperFramesMayTakeAsLongAsTheirBytes) {
  for (int i = 0; i < 1000; ++i) {
    turn(1);
    time.mark(kTask), time.mark(kNeighbour);
    ASSERT_TRUE(time.may_write(kTask, 1));
    cycles += 30 * kMicro, micros += 30;
    time.wrote(kTask, 1, 65'000, 30 * kMicro);
  }
}

TEST_F(WorkerTimeTest, ASlowPortHasAHundredthBesideOthers) {
  write_for(kTask, 200'000, 300, true);
  const std::uint32_t written = write_for(kTask, 10'000'000, 300, true);
  EXPECT_TRUE(refused);
  // 294 us of each frame are excess.
  EXPECT_NEAR(written, 10'000'000 / 100 / 294, 8);
}

TEST_F(WorkerTimeTest, ASlowPortHasAllWhileNobodyElseIsActive) {
  write_for(kTask, 200'000, 300);
  const std::uint32_t written = write_for(kTask, 1'000'000, 300);
  EXPECT_GT(written, 3200U);
}

TEST_F(WorkerTimeTest, TheNeighbourIsNeverRefused) {
  write_for(kTask, 500'000, 1000, true);
  EXPECT_TRUE(refused);
  EXPECT_FALSE(time.may_write(kTask, 1));
  EXPECT_TRUE(time.may_write(kNeighbour, 1));
}

TEST_F(WorkerTimeTest, ANewEniOfTheNumberOwesNothing) {
  write_for(kTask, 500'000, 1000, true);
  EXPECT_FALSE(time.may_write(kTask, 1));
  EXPECT_TRUE(time.may_write(kTask, 2));
}

// The scheduler took the processor away in the middle of a write, for four milliseconds: once is nothing.
TEST_F(WorkerTimeTest, AnInterruptedWriteIsForgiven) {
  write_for(kTask, 100'000, 2, true);
  cycles += 4000 * kMicro, micros += 4000;
  time.wrote(kTask, 1, 1500, 4000 * kMicro);
  EXPECT_TRUE(time.may_write(kTask, 1));
  write_for(kTask, 100'000, 2, true);
  EXPECT_FALSE(refused);
}

// A processor that two threads share: each write wakes the other one, which takes the processor.
TEST_F(WorkerTimeTest, WhatTheSchedulerTookIsNobodysExcess) {
  for (int i = 0; i < 1000; ++i) {
    turn(100);
    time.mark(kTask), time.mark(kNeighbour);
    ASSERT_TRUE(time.may_write(kTask, 1)) << i;
    cycles += 4000 * kMicro, micros += 4000, ++preemptions;
    time.wrote(kTask, 1, 100, 4000 * kMicro);
  }
  EXPECT_GT(time.had[kTask.value].cycles.read(), 0U);
}

TEST_F(WorkerTimeTest, WhileTheTrunkBringsTooMuchNobodyHasMoreThanItsPart) {
  turn(1000);
  for (std::uint16_t id = 0; id < 10; ++id) time.mark(EndpointId{id});
  for (int i = 0; i < 16; ++i) time.trunk_gave(true);
  // 150 us of a millisecond.
  std::uint32_t written = 0;
  while (time.may_write(kTask, 1)) cycles += 5 * kMicro, time.wrote(kTask, 1, 100, 5 * kMicro), ++written;
  EXPECT_EQ(written, 30U);
  EXPECT_TRUE(time.may_write(kNeighbour, 1));
  // Until the millisecond is over, or the trunk is not full any more.
  turn(1000);
  EXPECT_TRUE(time.may_write(kTask, 1));
  while (time.may_write(kTask, 1)) cycles += 5 * kMicro, time.wrote(kTask, 1, 100, 5 * kMicro);
  time.trunk_gave(false);
  EXPECT_TRUE(time.may_write(kTask, 1));
}

TEST_F(WorkerTimeTest, SlicesForCuttingAreATurns) {
  turn(1);
  EXPECT_EQ(time.left_to_cut(kTask, 1), 100 * kMicro);
  EXPECT_EQ(time.left_to_cut(kTask, 4), 25 * kMicro);
  EXPECT_EQ(time.left_to_cut(kTask, 1000), 20 * kMicro) << "a little for each, however many";
  time.cut(kTask, 70 * kMicro);
  EXPECT_EQ(time.left_to_cut(kTask, 1), 30 * kMicro);
  EXPECT_EQ(time.left_to_cut(kNeighbour, 1), 100 * kMicro);
  time.cut(kTask, 70 * kMicro);
  EXPECT_EQ(time.left_to_cut(kTask, 1), 0U);
  turn(1);
  EXPECT_EQ(time.left_to_cut(kTask, 1), 100 * kMicro);
}

TEST_F(WorkerTimeTest, ABurstOfSuperFramesIsShort) {
  EXPECT_EQ(time.burst_of(kTask, 32), 32);
  time.received(kTask, 32, 32 * 1500);
  EXPECT_EQ(time.burst_of(kTask, 32), 32);
  time.received(kTask, 32, 32 * 65'000);
  EXPECT_EQ(time.burst_of(kTask, 32), 8);
  time.received(kTask, 1, 1'000'000'000);
  EXPECT_EQ(time.burst_of(kTask, 32), 4);
  time.received(kTask, 32, 0);
  EXPECT_GE(time.burst_of(kTask, 32), 4);
  EXPECT_EQ(time.burst_of(kNeighbour, 32), 32);
}

}  // namespace
}  // namespace trunkline
