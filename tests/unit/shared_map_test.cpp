// SPDX-License-Identifier: BSD-3-Clause
// SharedMap and SharedSet against std::map and std::set: many copies alive at once, each of which must stay what it was.
#include "config/shared_map.h"

#include <gtest/gtest.h>

#include <map>
#include <random>
#include <set>
#include <string>

namespace trunkline::config {
namespace {

using Map = SharedMap<int, std::string>;
using Naive = std::map<int, std::string>;

void expect_same(const Map& map, const Naive& naive) {
  ASSERT_EQ(map.size(), naive.size());
  ASSERT_EQ(map.empty(), naive.empty());
  auto expected = naive.begin();
  for (const auto& [key, value] : map) {
    ASSERT_EQ(key, expected->first);
    ASSERT_EQ(value, expected->second);
    ++expected;
  }
}

TEST(SharedMap, RandomEditsOfManyCopiesAgainstStdMap) {
  const std::uint64_t seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937_64 random(seed);
  std::vector<std::pair<Map, Naive>> copies(1);
  for (int i = 0; i < 20000; ++i) {
    const std::size_t at = random() % copies.size();
    if (copies.size() < 6) copies.push_back(copies[at]);
    auto& [map, naive] = copies[at];
    const int key = static_cast<int>(random() % 400);
    switch (random() % 8) {
      case 0:
      case 1: ASSERT_EQ(map.erase(key), naive.erase(key)); break;
      case 2: {
        map[key] += "x";
        naive[key] += "x";
        break;
      }
      case 3:
      case 4: {
        map.insert_or_assign(key, std::to_string(i));
        naive.insert_or_assign(key, std::to_string(i));
        break;
      }
      case 5: {
        const auto [value, is_new] = map.try_emplace(key, "new");
        ASSERT_EQ(is_new, naive.try_emplace(key, "new").second);
        ASSERT_EQ(value, naive[key]);
        break;
      }
      case 6: {
        if (random() % 200 != 0) break;
        const int rest = static_cast<int>(random() % 7);
        map.erase_if([&](const auto& each) { return each.first % 7 == rest; });
        std::erase_if(naive, [&](const auto& each) { return each.first % 7 == rest; });
        break;
      }
      default: {
        const std::size_t other = random() % copies.size();
        if (other != at && random() % 20 == 0) copies[other] = copies[at];
        const auto& [others, other_naive] = copies[other];
        ASSERT_EQ(others == map, other_naive == naive);
        Naive merged = naive;
        for_each_difference(map, others, [&](int differing, const std::string* before, const std::string* after) {
          ASSERT_TRUE(before == nullptr || naive.at(differing) == *before);
          ASSERT_TRUE(before != nullptr || !naive.contains(differing));
          ASSERT_TRUE(before == nullptr || after == nullptr || *before != *after);
          after != nullptr ? static_cast<void>(merged.insert_or_assign(differing, *after)) : static_cast<void>(merged.erase(differing));
        });
        ASSERT_EQ(merged, other_naive);
      }
    }
    ASSERT_EQ(map.contains(key), naive.contains(key));
    ASSERT_EQ(map.get(key) == nullptr, !naive.contains(key));
    if (i % 50 == 0) {
      for (const auto& [each, expected] : copies) expect_same(each, expected);
    }
  }
}

TEST(SharedMap, WhatIsNotChangedStaysShared) {
  Map before;
  for (int i = 0; i < 1000; ++i) before[i] = std::to_string(i);
  Map after = before;
  after[500] = "other";
  after.insert_or_assign(2000, "more");
  int unshared = 0;
  for_each_unshared(before, after, [&](int, const std::string*, const std::string*) { ++unshared; });
  EXPECT_EQ(unshared, 2);
  EXPECT_EQ(before.get(499), after.get(499));
  EXPECT_EQ(before.at(500), "500");
  // Equal again, and still not the same value.
  after[500] = "500";
  int differing = 0;
  unshared = 0;
  for_each_unshared(before, after, [&](int, const std::string*, const std::string*) { ++unshared; });
  for_each_difference(before, after, [&](int, const std::string*, const std::string*) { ++differing; });
  EXPECT_EQ(unshared, 2);
  EXPECT_EQ(differing, 1);
}

TEST(SharedSet, RandomEditsAgainstStdSet) {
  const std::uint64_t seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937_64 random(seed);
  SharedSet<int> set, before;
  std::set<int> naive, naive_before;
  for (int i = 0; i < 30000; ++i) {
    const int key = static_cast<int>(random() % 3000);
    // Grows to a few chunks, shrinks again, and so on.
    if (random() % 100 < (i / 5000 % 2 == 0 ? 70U : 30U)) {
      ASSERT_EQ(set.insert(key), naive.insert(key).second);
    } else {
      ASSERT_EQ(set.erase(key), naive.erase(key));
    }
    if (i % 100 != 0) continue;
    ASSERT_TRUE(std::equal(set.begin(), set.end(), naive.begin(), naive.end()));
    ASSERT_EQ(set == before, naive == naive_before);
    for_each_difference(before, set, [&](int differing, bool is_in) {
      ASSERT_EQ(naive.contains(differing), is_in);
      is_in ? static_cast<void>(naive_before.insert(differing)) : static_cast<void>(naive_before.erase(differing));
    });
    ASSERT_EQ(naive_before, naive);
    before = set;
  }
  EXPECT_EQ(SharedSet<int>(naive.begin(), naive.end()), set);
}

}  // namespace
}  // namespace trunkline::config
