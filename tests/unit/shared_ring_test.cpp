// SPDX-License-Identifier: BSD-3-Clause
//
// The places of a ring that endpoints share: one alone has half, many have equal parts, and whoever wants little always
// finds room.
#include "dataplane/state/shared_ring.h"

#include <gtest/gtest.h>

#include <deque>
#include <iostream>
#include <map>
#include <random>

namespace trunkline {
namespace {

constexpr EndpointId eni(std::uint16_t number) { return {number}; }

TEST(SharedRing, OneAloneHasAllButTheShareOfANewcomer) {
  SharedRing<int> ring(64);
  ring.share_among(1);
  int pushed = 0;
  while (ring.push(pushed, eni(1))) ++pushed;
  EXPECT_EQ(pushed, 48 + 8);
  int others = 0;
  while (ring.push(others, eni(2))) ++others;
  EXPECT_EQ(others, 8);
}

TEST(SharedRing, ANeighbourHasItsShareBesideManyThatWantAll) {
  SharedRing<int> ring(1024);
  ring.share_among(8);  // 32 each
  for (int round = 0; round < 2000; ++round) {
    for (std::uint16_t greedy = 1; greedy <= 7; ++greedy) ring.push(greedy, eni(greedy));
  }
  int neighbour = 0;
  while (ring.push(0, eni(100))) ++neighbour;
  EXPECT_EQ(neighbour, 32);
}

TEST(SharedRing, WhatIsReadIsFreeAgain) {
  SharedRing<int> ring(16);
  ring.share_among(2);
  for (int round = 0; round < 100; ++round) {
    int pushed = 0;
    while (ring.push(pushed, eni(3))) ++pushed;
    ASSERT_EQ(pushed, 14) << round;
    EXPECT_EQ(ring.ready(), 0U) << "not before flush()";
    EXPECT_TRUE(ring.flush());
    ASSERT_EQ(ring.ready(), 14U);
    for (std::uint32_t i = 0; i < 14; ++i) EXPECT_EQ(ring.front(i), static_cast<int>(i));
    ring.drop(14);
  }
}

TEST(SharedRing, NobodyIsAnOwnerToo) {
  SharedRing<int> ring(16);
  ring.share_among(2);
  int pushed = 0;
  while (ring.push(pushed, EndpointId{})) ++pushed;
  EXPECT_EQ(pushed, 14);
  EXPECT_TRUE(ring.push(1, eni(0)));
}

TEST(SharedRing, WithoutSharesWhoeverComesTakesAll) {
  SharedRing<int> ring(16);
  int pushed = 0;
  while (ring.push(pushed, eni(1))) ++pushed;
  EXPECT_EQ(pushed, 16);
}

// Against a plain queue that counts, while endpoints come and go: an endpoint below its share is never refused.
TEST(SharedRing, AgainstAPlainQueue) {
  const std::uint64_t seed = std::random_device{}();
  std::cout << "seed " << seed << '\n';
  std::mt19937_64 random(seed);
  SharedRing<std::uint32_t> ring(128);
  std::deque<std::pair<std::uint32_t, std::uint16_t>> model;
  std::map<std::uint16_t, std::uint32_t> held;
  std::uint32_t endpoints = 4;
  ring.share_among(endpoints);
  const auto borrowed = [&] {
    std::uint32_t sum = 0;
    for (const auto& [owner, count] : held) sum += count > 32 / endpoints ? count - 32 / endpoints : 0;
    return sum;
  };
  for (std::uint32_t step = 0; step < 200'000; ++step) {
    if (random() % 1000 == 0) endpoints = 2 + static_cast<std::uint32_t>(random() % 12), ring.share_among(endpoints);
    if (random() % 3 != 0) {
      const auto owner = static_cast<std::uint16_t>(random() % 8 < 6 ? 1 : random() % 4);
      const bool fits = model.size() < 128 && (borrowed() + 1 <= 96 || held[owner] + 1 <= 32 / endpoints);
      ASSERT_EQ(ring.push(step, eni(owner)), fits) << step;
      if (fits) model.emplace_back(step, owner), ++held[owner];
    } else {
      ring.flush();
      ASSERT_EQ(ring.ready(), model.size()) << step;
      const auto count = static_cast<std::uint32_t>(random() % 20);
      std::uint32_t taken = 0;
      for (; taken < count && !model.empty(); ++taken) {
        ASSERT_EQ(ring.front(taken), model.front().first);
        --held[model.front().second];
        model.pop_front();
      }
      ring.drop(taken);
    }
  }
}

}  // namespace
}  // namespace trunkline
