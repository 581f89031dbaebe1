// SPDX-License-Identifier: BSD-3-Clause
#include "dataplane/state/members.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <iostream>
#include <map>
#include <random>
#include <string>
#include <thread>
#include <vector>

namespace trunkline {
namespace {

std::uint64_t seed() {
  const char* const text = std::getenv("TRUNKLINE_SEED");
  const std::uint64_t value = text != nullptr ? std::strtoull(text, nullptr, 10) : std::random_device{}();
  testing::Test::RecordProperty("seed", std::to_string(value));
  return value;
}

IpAddress address(std::uint32_t number, bool ipv4 = true) {
  if (ipv4) return IpAddress::from_v4(0x0a000000U + number);
  IpAddress result;
  result.bytes[0] = 0xfd;
  for (unsigned i = 0; i < 4; ++i) result.bytes[12 + i] = static_cast<std::uint8_t>(number >> (24 - 8 * i));
  return result;
}

std::vector<GroupId> groups(std::initializer_list<std::uint32_t> values) {
  std::vector<GroupId> result;
  for (const std::uint32_t value : values) result.push_back(GroupId{value});
  return result;
}

std::vector<GroupId> found(const Members& members, const IpAddress& address) {
  const Members::Groups groups = members.find(address);
  return {groups.view().begin(), groups.view().end()};
}

TEST(MembersTest, SetFindReplaceRemove) {
  Members members(10);
  EXPECT_TRUE(found(members, address(1)).empty());
  EXPECT_TRUE(members.set(address(1), groups({7, 9, 8})));
  EXPECT_EQ(found(members, address(1)), groups({7, 9, 8}));
  EXPECT_TRUE(found(members, address(2)).empty());
  EXPECT_TRUE(found(members, address(1, false)).empty());
  EXPECT_TRUE(members.set(address(1), groups({5})));
  EXPECT_EQ(found(members, address(1)), groups({5}));
  EXPECT_EQ(members.size(), 1U);
  EXPECT_TRUE(members.set(address(1), {}));
  EXPECT_TRUE(members.set(address(1), {}));
  EXPECT_TRUE(found(members, address(1)).empty());
  EXPECT_EQ(members.size(), 0U);
}

TEST(MembersTest, EveryCountOfGroupsUpToTheLimit) {
  Members members(2);
  for (std::uint32_t count = 1; count <= Members::kMaxGroups; ++count) {
    std::vector<GroupId> list;
    for (std::uint32_t i = 0; i < count; ++i) list.push_back(GroupId{1000 * count + i});
    ASSERT_TRUE(members.set(address(1), list));
    ASSERT_EQ(found(members, address(1)), list);
  }
  const auto before = found(members, address(1));
  EXPECT_FALSE(members.set(address(1), std::vector<GroupId>(Members::kMaxGroups + 1, GroupId{1})));
  EXPECT_EQ(found(members, address(1)), before);
}

TEST(MembersTest, FullTableRefusesOnlyNewAddresses) {
  for (const std::uint32_t capacity : {0U, 1U, 2U, 3U, 10U, 1000U}) {
    Members members(capacity);
    for (std::uint32_t i = 0; i < capacity; ++i) ASSERT_TRUE(members.set(address(i), groups({i})));
    EXPECT_FALSE(members.set(address(capacity), groups({1})));
    EXPECT_TRUE(members.set(address(capacity), {}));
    EXPECT_EQ(members.size(), capacity);
    for (std::uint32_t i = 0; i < capacity; ++i) {
      ASSERT_EQ(found(members, address(i)), groups({i}));
      ASSERT_TRUE(members.set(address(i), groups({i, i + 1})));
      ASSERT_EQ(found(members, address(i)), groups({i, i + 1}));
    }
    if (capacity == 0) continue;
    ASSERT_TRUE(members.set(address(0), {}));
    ASSERT_TRUE(members.set(address(capacity), groups({1})));
    EXPECT_EQ(found(members, address(capacity)), groups({1}));
  }
}

TEST(MembersTest, AgreesWithMapUnderRandomOperations) {
  std::mt19937_64 random(seed());
  for (const std::uint32_t capacity : {1U, 4U, 13U, 100U}) {
    Members members(capacity);
    std::map<IpAddress, std::vector<GroupId>> model;
    for (int step = 0; step < 100'000; ++step) {
      // Twice as many addresses as lines: the table is often full and every search is often in vain.
      const auto pick = [&] {
        return address(static_cast<std::uint32_t>(random() % (2 * capacity)), random() % 2 == 0);
      };
      const IpAddress target = pick();
      std::vector<GroupId> list(random() % 3 == 0 ? 0 : random() % (Members::kMaxGroups + 2));
      for (GroupId& group : list) group.value = static_cast<std::uint32_t>(random());
      bool expected = true;
      if (list.empty()) {
        model.erase(target);
      } else if (list.size() > Members::kMaxGroups || (model.size() == capacity && !model.contains(target))) {
        expected = false;
      } else {
        model[target] = list;
      }
      ASSERT_EQ(members.set(target, list), expected);
      ASSERT_EQ(members.size(), model.size());
      for (const IpAddress& check : {target, pick(), pick()}) {
        const auto entry = model.find(check);
        ASSERT_EQ(found(members, check), entry == model.end() ? std::vector<GroupId>{} : entry->second);
      }
    }
    for (const auto& [key, list] : model) ASSERT_EQ(found(members, key), list);
  }
}

// Tasks come and go for months, addresses are used again: searches must not become longer and longer.
TEST(MembersTest, SearchesStayShortUnderLastingChurn) {
  std::mt19937_64 random(seed());
  constexpr std::uint32_t kCapacity = 3000;
  Members members(kCapacity);
  std::vector<std::uint32_t> present;
  std::uint32_t next = 0;
  for (; next < kCapacity; ++next) {
    present.push_back(next);
    ASSERT_TRUE(members.set(address(next), groups({1})));
  }
  const auto mean_miss = [&] {
    std::size_t total = 0;
    for (std::uint32_t i = 0; i < 10'000; ++i) total += members.probe_length(address(0x800000U + i));
    return static_cast<double>(total) / 10'000;
  };
  const double fresh = mean_miss();
  double worst = 0;
  for (int round = 0; round < 20; ++round) {
    for (int i = 0; i < 20'000; ++i) {
      std::uint32_t& victim = present[random() % present.size()];
      ASSERT_TRUE(members.set(address(victim), {}));
      victim = next++ & 0x7fffff;
      ASSERT_TRUE(members.set(address(victim), groups({2})));
    }
    worst = std::max(worst, mean_miss());
  }
  RecordProperty("fresh", std::to_string(fresh));
  RecordProperty("worst", std::to_string(worst));
  std::cout << "lines per miss in a full table: fresh " << fresh << ", after churn at worst " << worst << '\n';
  EXPECT_LT(worst, 5 * fresh);
}

// One writer, one reader. A group number carries its address, its version and its place, so that parts of two writes
// in one answer would show, and so would an answer older than the one before it.
TEST(MembersTest, ReaderNeverSeesPartsOfTwoWrites) {
  constexpr std::uint32_t kAddresses = 47, kAlwaysPresent = 12;
  const auto group = [](std::uint32_t version, std::uint32_t number, std::uint32_t place) {
    return GroupId{version << 12 | number << 5 | place};
  };
  // Every other one is IPv6, whose groups are written over in place.
  const auto place_of = [](std::uint32_t number) { return address(number, number % 2 == 0); };
  const auto size_of_version = [](std::uint32_t version) { return 1 + version * 7 % Members::kMaxGroups; };
  Members members(kAddresses);  // small and full, so that slots are often moved and records used again
  std::vector<std::uint32_t> version(kAddresses, 0);
  const auto write = [&](std::uint32_t number) {
    std::array<GroupId, Members::kMaxGroups> list;
    const std::size_t size = size_of_version(++version[number]);
    for (std::uint32_t place = 0; place < size; ++place) list[place] = group(version[number], number, place);
    return members.set(place_of(number), {list.data(), size});
  };
  for (std::uint32_t i = 0; i < kAlwaysPresent; ++i) ASSERT_TRUE(write(i));

  std::atomic<bool> done{false};
  std::atomic<std::uint64_t> hits{0}, misses{0};
  std::atomic<std::uint64_t> torn{0}, lost{0}, old{0};
  std::thread reader([&] {
    std::vector<std::uint32_t> seen(kAddresses, 0);
    std::uint32_t number = 0;
    while (!done.load(std::memory_order_relaxed)) {
      number = (number + 1) % kAddresses;
      const Members::Groups groups = members.find(place_of(number));
      if (groups.count == 0) {
        misses.fetch_add(1, std::memory_order_relaxed);
        if (number < kAlwaysPresent) lost.fetch_add(1, std::memory_order_relaxed);
        continue;
      }
      hits.fetch_add(1, std::memory_order_relaxed);
      const std::uint32_t now = groups.ids[0].value >> 12;
      bool whole = groups.count == size_of_version(now);
      for (std::uint32_t place = 0; place < groups.count; ++place) {
        whole = whole && groups.ids[place] == group(now, number, place);
      }
      if (!whole) torn.fetch_add(1, std::memory_order_relaxed);
      if (now < seen[number]) old.fetch_add(1, std::memory_order_relaxed);
      seen[number] = now;
    }
  });
  std::mt19937_64 random(seed());
  bool accepted = true;
  for (int step = 0; step < 4'000'000; ++step) {
    const auto number = static_cast<std::uint32_t>(random() % kAddresses);
    if (number >= kAlwaysPresent && random() % 3 == 0) {
      accepted = members.set(place_of(number), {}) && accepted;
    } else {
      accepted = write(number) && accepted;
    }
  }
  while (hits.load() < 1000) std::this_thread::yield();
  done.store(true);
  reader.join();
  std::cout << hits << " hits, " << misses << " misses beside 4000000 writes\n";
  EXPECT_TRUE(accepted);
  EXPECT_EQ(torn, 0U);
  EXPECT_EQ(lost, 0U);
  EXPECT_EQ(old, 0U);
}

// Two addresses whose searches begin at the same line, with twenty full lines of others between the places they can
// have: removing the first one moves the second one from the end of the run to its beginning, past a reader on its way.
TEST(MembersTest, ReaderDoesNotMissAnAddressThatIsMovedPastIt) {
  constexpr std::size_t kSlots = 8;  // a line
  const std::array<GroupId, 1> one{GroupId{1}};
  std::uint32_t next = 0;
  const auto with_probe_length = [&](const Members& members, std::size_t length, std::size_t count) {
    std::vector<IpAddress> result;
    for (; result.size() < count; ++next) {
      if (members.probe_length(address(next)) == length) result.push_back(address(next));
    }
    return result;
  };
  Members members(300);
  const auto set_all = [&](const std::vector<IpAddress>& addresses, std::span<const GroupId> groups) {
    for (const IpAddress& each : addresses) ASSERT_TRUE(members.set(each, groups));
  };

  // As soon as one line is full, whoever needs two begins at that one.
  std::vector<IpAddress> first_line;
  {
    Members other(300);
    std::uint32_t added = 0;
    const auto some_line_is_full = [&] {
      for (std::uint32_t i = 0; i < 2000; ++i) {
        if (other.probe_length(address(0x100000U + i)) == 2) return true;
      }
      return false;
    };
    while (!some_line_is_full()) ASSERT_TRUE(other.set(address(0x200000U + added++), one));
    first_line = with_probe_length(other, 2, 2 * kSlots + 1);
  }
  const std::array<IpAddress, 2> pair{first_line[0], first_line[1]};
  first_line.erase(first_line.begin() + 1);
  std::vector<IpAddress> in_the_way(first_line.begin() + kSlots, first_line.end());
  first_line.resize(kSlots);
  set_all(first_line, one);
  ASSERT_EQ(members.probe_length(pair[0]), 1U);
  // The second line is filled with what begins there and so will not be moved to the first; to find out who does, it
  // has to be full of something. The lines after it are filled with what begins one line before.
  set_all(in_the_way, one);
  const std::vector<IpAddress> second_line = with_probe_length(members, 2, kSlots);
  set_all(in_the_way, {});
  set_all(second_line, one);
  for (std::size_t line = 3; line <= 21; ++line) set_all(with_probe_length(members, 2, kSlots), one);
  ASSERT_TRUE(members.set(pair[1], one));
  ASSERT_EQ(members.probe_length(pair[1]), 22U);
  ASSERT_TRUE(members.set(pair[0], {}));
  ASSERT_EQ(members.probe_length(pair[1]), 1U);
  ASSERT_TRUE(members.set(pair[0], one));
  ASSERT_EQ(members.probe_length(pair[0]), 22U);

  std::array<std::atomic<std::uint32_t>, 2> absences{};  // odd while an address may be absent
  std::atomic<bool> done{false};
  std::atomic<std::uint64_t> checked{0}, lost{0};
  std::thread reader([&] {
    for (std::size_t which = 0; !done.load(std::memory_order_relaxed); which ^= 1) {
      const std::uint32_t before = absences[which].load(std::memory_order_acquire);
      const bool is_there = members.find(pair[which]).count != 0;
      if (absences[which].load(std::memory_order_acquire) != before || before % 2 != 0) continue;
      checked.fetch_add(1, std::memory_order_relaxed);
      if (!is_there) lost.fetch_add(1, std::memory_order_relaxed);
    }
  });
  for (std::size_t step = 0; step < 300'000 || checked.load() < 1000; ++step) {
    const std::size_t first = (step + 1) % 2;  // the one at the beginning of the run
    absences[first].fetch_add(1, std::memory_order_acq_rel);
    members.set(pair[first], {});
    members.set(pair[first], one);
    absences[first].fetch_add(1, std::memory_order_acq_rel);
  }
  done.store(true);
  reader.join();
  EXPECT_EQ(members.size(), 21 * kSlots + 1);
  EXPECT_EQ(lost, 0U) << "of " << checked;
}

// Addresses in the same groups share a record; it must not be taken for another one when the last of them goes.
TEST(MembersTest, RecordsAreSharedAndUsedAgain) {
  Members members(20'000);
  const std::size_t empty = members.memory_bytes();
  for (std::uint32_t i = 0; i < 10'000; ++i) ASSERT_TRUE(members.set(address(i), groups({1, 2})));
  EXPECT_EQ(members.memory_bytes(), empty);
  for (std::uint32_t round = 0; round < 5000; ++round) {
    ASSERT_TRUE(members.set(address(10'000), groups({round, round + 1, round + 2})));
    ASSERT_EQ(found(members, address(10'000)), groups({round, round + 1, round + 2}));
    ASSERT_TRUE(members.set(address(10'001, false), groups({round})));
    ASSERT_EQ(found(members, address(10'001, false)), groups({round}));
    if (round % 3 == 0) {
      ASSERT_TRUE(members.set(address(10'001, false), {}));
    }
  }
  EXPECT_EQ(members.memory_bytes(), empty);
  for (std::uint32_t i = 0; i < 10'000; ++i) {
    ASSERT_EQ(found(members, address(i)), groups({1, 2}));
    if (i != 5000) {
      ASSERT_TRUE(members.set(address(i), {}));
    }
  }
  EXPECT_EQ(found(members, address(5000)), groups({1, 2}));
}

// IPv6 addresses that the table's hash (repeated here to make them) cannot tell apart: their slots are equal but for the
// record, and only the address in the record says whose it is.
TEST(MembersTest, AddressesWithEqualHashes) {
  const auto mix = [](std::uint64_t value) {
    value *= 0x9e3779b97f4a7c15ULL;
    value = (value ^ value >> 32) * 0xff51afd7ed558ccdULL;
    return value ^ value >> 32;
  };
  std::vector<IpAddress> alike;
  for (std::uint64_t high = 1; high <= 20; ++high) {
    const std::array<std::uint64_t, 2> words{high, mix(high) ^ 0x123456789abcdefULL};
    alike.push_back(IpAddress::from_v6_bytes(words.data()));
  }
  Members members(100);
  for (std::uint32_t i = 0; i < 19; ++i) ASSERT_TRUE(members.set(alike[i], groups({i, i + 1})));
  ASSERT_EQ(members.probe_length(alike[18]), 3U) << "they are not in one row: the hash is another one";
  EXPECT_TRUE(found(members, alike[19]).empty());
  for (std::uint32_t i = 0; i < 19; ++i) ASSERT_EQ(found(members, alike[i]), groups({i, i + 1}));
  for (std::uint32_t i = 0; i < 19; i += 2) ASSERT_TRUE(members.set(alike[i], {}));
  for (std::uint32_t i = 0; i < 19; ++i) {
    ASSERT_EQ(found(members, alike[i]), i % 2 == 0 ? std::vector<GroupId>{} : groups({i, i + 1}));
  }
}

// 0.0.0.0 looks like an unused slot.
TEST(MembersTest, TheLowestAddress) {
  Members members(4);
  const IpAddress zero = IpAddress::from_v4(0);
  EXPECT_TRUE(found(members, zero).empty());
  ASSERT_TRUE(members.set(zero, groups({5})));
  EXPECT_EQ(found(members, zero), groups({5}));
  ASSERT_TRUE(members.set(zero, {}));
  EXPECT_TRUE(found(members, zero).empty());
}

}  // namespace
}  // namespace trunkline
