// SPDX-License-Identifier: BSD-3-Clause
#include "dataplane/state/published.h"

#include <gtest/gtest.h>

#include <thread>

namespace trunkline {
namespace {

struct Thing {
  explicit Thing(int n) : number(n), check(~n) {}
  ~Thing() { number = check = 0; }
  int number, check;
};

TEST(Published, OldObjectLivesUntilTheReaderIsQuiescent) {
  Published<Thing> published(1);
  published.join(0);
  published.publish(std::make_shared<Thing>(1));
  const Thing* held = published.read();
  bool cleaned = false;
  published.publish(std::make_shared<Thing>(2), [&] { cleaned = true; });
  EXPECT_NE(published.reclaim(), 0U);
  EXPECT_FALSE(cleaned);
  EXPECT_EQ(held->number, 1);
  EXPECT_EQ(published.read()->number, 2);
  published.quiescent(0);
  EXPECT_EQ(published.reclaim(), 0U);
  EXPECT_TRUE(cleaned);
  published.leave(0);
}

TEST(Published, ASleepingReaderIsNotWaitedFor) {
  Published<Thing> published(1);
  published.join(0);
  published.publish(std::make_shared<Thing>(1));
  published.offline(0);
  published.publish(std::make_shared<Thing>(2));
  EXPECT_EQ(published.reclaim(), 0U);
  published.online(0);
  EXPECT_EQ(published.read()->number, 2);
  published.leave(0);
}

TEST(Published, ReadersNeverSeeAFreedObject) {
  Published<Thing> published(2);
  published.publish(std::make_shared<Thing>(1));
  std::atomic<bool> stop{false};
  std::atomic<std::uint64_t> reads{0};
  auto reader = [&](std::uint32_t number) {
    published.join(number);
    while (!stop.load(std::memory_order_relaxed)) {
      const Thing* thing = published.read();
      ASSERT_EQ(thing->number, ~thing->check);
      reads.fetch_add(1, std::memory_order_relaxed);
      published.quiescent(number);
    }
    published.leave(number);
  };
  std::thread one(reader, 0), two(reader, 1);
  // The writer must have somebody to race with.
  while (reads.load(std::memory_order_relaxed) < 1000) std::this_thread::yield();
  for (int i = 2; i < 20000; ++i) {
    published.publish(std::make_shared<Thing>(i));
    published.reclaim();
  }
  stop = true;
  one.join();
  two.join();
  EXPECT_EQ(published.reclaim(), 0U);
  EXPECT_GT(reads.load(), 0U);
}

}  // namespace
}  // namespace trunkline
