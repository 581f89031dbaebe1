// SPDX-License-Identifier: BSD-3-Clause
//
// What observers may have of the control thread, in virtual time.
#include "control/rpc/observer_budget.h"

#include <gtest/gtest.h>

#include <map>
#include <vector>

namespace trunkline::control {
namespace {

using namespace std::chrono_literals;
using Duration = ObserverBudget::Duration;

class ObserverBudgetTest : public testing::Test {
 protected:
  // Calls of these uids as fast as they may, each so long, for ten seconds. Answers how much of them each had.
  std::map<uid_t, Duration> run(const std::vector<uid_t>& uids, Duration call) {
    std::map<uid_t, Duration> had;
    for (const auto end = now + 10s; now < end;) {
      bool any = false;
      for (const uid_t uid : uids) {
        if (budget.wait(uid, now) > Duration(0)) continue;
        now += call;
        budget.had(uid, call, now);
        had[uid] += call;
        any = true;
      }
      if (!any) now += 1ms;
    }
    return had;
  }

  ObserverBudget budget;
  ObserverBudget::Time now{1h};
};

TEST_F(ObserverBudgetTest, AUidHasATenth) {
  const auto had = run({1000}, 3ms);
  EXPECT_NEAR(static_cast<double>(had.at(1000).count()), 1e6, 1e5);
}

TEST_F(ObserverBudgetTest, AllTogetherHaveAQuarter) {
  Duration all{0};
  for (const auto& [uid, had] : run({1, 2, 3, 4, 5, 6, 7, 8}, 2ms)) all += had;
  EXPECT_NEAR(static_cast<double>(all.count()), 2.5e6, 2.5e5);
}

TEST_F(ObserverBudgetTest, WhoAsksLittleDoesNotWaitForWhoAsksMuch) {
  run({1000}, 5ms);
  EXPECT_GT(budget.wait(1000, now) + 5ms, Duration(0));
  EXPECT_EQ(budget.wait(1001, now), Duration(0));
}

TEST_F(ObserverBudgetTest, AUidMayHaveAsManyConnectionsAsAreFree) {
  std::size_t free = 56, connected = 0;
  while (budget.may_connect(1000, free)) budget.connected(1000), --free, ++connected;
  EXPECT_EQ(connected, 28U);
  EXPECT_TRUE(budget.may_connect(1001, free));
  budget.disconnected(1000, now);
  EXPECT_TRUE(budget.may_connect(1000, free + 1));
  EXPECT_FALSE(budget.may_connect(1002, 0));
}

TEST_F(ObserverBudgetTest, UnreadAnswersAreCountedByUid) {
  budget.unread_changed(1000, 500);
  budget.unread_changed(1000, -200);
  EXPECT_EQ(budget.unread(1000), 300U);
  EXPECT_EQ(budget.unread(1001), 0U);
}

TEST_F(ObserverBudgetTest, LinesHaveABudgetByUid) {
  std::size_t lines = 0;
  for (int i = 0; i < 10'000; ++i) lines += budget.may_log(1000, now);
  EXPECT_EQ(lines, LogBudget::kBurst);
  EXPECT_TRUE(budget.may_log(1001, now));
  EXPECT_EQ(budget.take_withheld().lines, 10'000 - LogBudget::kBurst);
}

}  // namespace
}  // namespace trunkline::control
