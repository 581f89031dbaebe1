// SPDX-License-Identifier: BSD-3-Clause
//
// The budget of what DPDK says, in virtual time.
#include "dataplane/io/dpdk_log.h"

#include <gtest/gtest.h>

namespace trunkline {
namespace {

using Time = LogBudget::Time;

std::uint32_t admitted(LogBudget& budget, std::string_view subject, std::uint32_t lines, Time now) {
  std::uint32_t count = 0;
  for (std::uint32_t i = 0; i < lines; ++i) count += budget.admit(subject, now) ? 1 : 0;
  return count;
}

TEST(LogBudget, ASubjectHasABurstAndThenItsRate) {
  LogBudget budget;
  EXPECT_EQ(admitted(budget, "/run/a.sock", 10'000, Time(5000)), LogBudget::kBurst);
  EXPECT_EQ(admitted(budget, "/run/a.sock", 10'000, Time(5499)), 0U);
  EXPECT_EQ(admitted(budget, "/run/a.sock", 10'000, Time(5500)), 1U);
  EXPECT_EQ(admitted(budget, "/run/a.sock", 10'000, Time(15'500)), 10U * LogBudget::kPerSecond);
  // However long it is quiet, it saves no more than a burst.
  EXPECT_EQ(admitted(budget, "/run/a.sock", 10'000, Time(1'000'000'000'000)), LogBudget::kBurst);
}

TEST(LogBudget, OneSubjectDoesNotSilenceAnother) {
  LogBudget budget;
  admitted(budget, "/run/a.sock", 100'000, Time(1));
  EXPECT_EQ(admitted(budget, "/run/b.sock", 40, Time(1)), 40U);
}

TEST(LogBudget, AllTogetherHaveOne) {
  LogBudget budget;
  std::uint32_t count = 0;
  for (int subject = 0; subject < 1000; ++subject)
    count += admitted(budget, "/run/task" + std::to_string(subject) + ".sock", 1000, Time(1));
  EXPECT_EQ(count, LogBudget::kBurstOfAll);
  count = 0;
  for (int subject = 0; subject < 1000; ++subject)
    count += admitted(budget, "/run/task" + std::to_string(subject) + ".sock", 1000, Time(1001));
  EXPECT_EQ(count, LogBudget::kPerSecondOfAll);
}

TEST(LogBudget, WhatIsWithheldIsCounted) {
  LogBudget budget;
  admitted(budget, "/run/a.sock", LogBudget::kBurst, Time(1));
  EXPECT_EQ(budget.take_withheld().lines, 0U);
  admitted(budget, "/run/a.sock", 7, Time(1));
  const LogBudget::Withheld withheld = budget.take_withheld();
  EXPECT_EQ(withheld.lines, 7U);
  EXPECT_EQ(withheld.subject, "/run/a.sock");
  EXPECT_EQ(budget.take_withheld().lines, 0U);
}

TEST(LogBudget, AClockThatGoesBackGivesNothing) {
  LogBudget budget;
  admitted(budget, "x", 1000, Time(10'000));
  EXPECT_EQ(admitted(budget, "x", 1000, Time(1)), 0U);
  EXPECT_EQ(admitted(budget, "x", 1000, Time(10'500)), 1U);
}

TEST(LogSubject, IsTheSocketOrThePart) {
  EXPECT_EQ(log_subject("VHOST_CONFIG: (/run/task1.sock) new device, handle is 0\n"), "/run/task1.sock");
  EXPECT_EQ(log_subject("VHOST_CONFIG: (/run/unfinished"), "VHOST_CONFIG");
  EXPECT_EQ(log_subject("EAL: Probe PCI driver: net_virtio\n"), "EAL");
  EXPECT_EQ(log_subject("VHOST_CONFIG: ("), "VHOST_CONFIG");
  EXPECT_EQ(log_subject("no colon\n"), "DPDK");
  EXPECT_EQ(log_subject(""), "DPDK");
}

}  // namespace
}  // namespace trunkline
