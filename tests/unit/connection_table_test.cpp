// SPDX-License-Identifier: BSD-3-Clause
#include "dataplane/state/connection_table.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <iostream>
#include <map>
#include <random>
#include <vector>

#include "tests/support/world.h"

namespace trunkline::test {
namespace {

FlowKey key(std::uint32_t number, std::uint16_t endpoint = 0) {
  FlowKey result;
  result.remote = 0x0a000000U + number / 60000;
  result.local = 0x2300000a;
  result.remote_port = static_cast<std::uint16_t>(number % 60000);
  result.local_port = 0x5000;
  result.owner = FlowKey::owner_of(EndpointId{endpoint}, 1) | FlowKey::protocol_bits(6);
  return result;
}

TEST(Connection, PassesAtOnceIsAllowedAndNotAwaited) {
  for (unsigned bits = 0; bits < 256; ++bits) {
    Connection connection;
    connection.initiator = bits & 1, connection.untracked = bits >> 1 & 1;
    connection.allowed = bits >> 2 & 3, connection.awaits = bits >> 4 & 3, connection.fin_seen = bits >> 6 & 3;
    EXPECT_EQ(connection.passes_at_once<Direction::ingress>(), (connection.allowed & 1) != 0 && (connection.awaits & 1) == 0) << bits;
    EXPECT_EQ(connection.passes_at_once<Direction::egress>(), (connection.allowed & 2) != 0 && (connection.awaits & 2) == 0) << bits;
  }
}

TEST(ConnectionTable, FillsToItsCapacityAndNotBeyond) {
  ConnectionTable table(5000, 1);
  std::uint32_t inserted = 0;
  for (std::uint32_t i = 0; i < 6000; ++i) inserted += table.insert(Connection::of(key(i)), table.hash(key(i))).connection != nullptr;
  EXPECT_EQ(inserted, 5000U);
  EXPECT_EQ(table.size(), 5000U);
  for (std::uint32_t i = 0; i < 5000; ++i) EXPECT_NE(table.find(key(i), table.hash(key(i))), nullptr) << i;
  EXPECT_EQ(table.find(key(5500), table.hash(key(5500))), nullptr);
}

// The most that a table's buckets are ever filled: three quarters of the places.
TEST(ConnectionTable, ReachesItsCapacityAtTheHighestLoad) {
  const std::uint32_t capacity = 1024 * 10 * 3 / 4 - 20;
  ConnectionTable table(capacity, 3);
  for (std::uint32_t i = 0; i < capacity; ++i) ASSERT_NE(table.insert(Connection::of(key(i)), table.hash(key(i))).connection, nullptr) << i;
  for (std::uint32_t i = 0; i < capacity; ++i) ASSERT_NE(table.find(key(i), table.hash(key(i))), nullptr) << i;
  for (std::uint32_t i = 0; i < capacity; ++i) table.erase(table.find(key(i), table.hash(key(i))));
  EXPECT_EQ(table.size(), 0U);
  for (std::uint32_t i = 0; i < capacity; ++i) ASSERT_NE(table.insert(Connection::of(key(i + 100000)), table.hash(key(i + 100000))).connection, nullptr) << i;
}

// A load balancer's many ports, a network's many hosts, and what lies between: one server's flows fill the table as well as strangers' do.
TEST(ConnectionTable, TheFlowsOfNeighboursFit) {
  constexpr std::uint32_t kCapacity = 60000;
  for (const std::uint32_t clients : {1U, 16U, 250U, 60000U}) {
    ConnectionTable table(kCapacity, 42);
    std::uint32_t inserted = 0;
    for (std::uint32_t i = 0; i < kCapacity; ++i) {
      FlowKey flow = key(1);
      flow.remote = __builtin_bswap32(0x0a000000U + i % clients);
      flow.remote_port = __builtin_bswap16(static_cast<std::uint16_t>(1024 + i / clients));
      inserted += table.insert(Connection::of(flow), table.hash(flow)).connection != nullptr;
    }
    EXPECT_EQ(inserted, kCapacity) << clients << " clients";
  }
}

// By tags alone, in either bucket: nearly all of what find() finds, and never another's.
TEST(ConnectionTable, CandidatesAreWhatFindFinds) {
  constexpr std::uint32_t kCapacity = 20000;
  ConnectionTable table(kCapacity, 42);
  std::uint32_t inserted = 0;
  for (std::uint32_t i = 0; i < kCapacity; ++i) inserted += table.insert(Connection::of(key(i)), table.hash(key(i))).connection != nullptr;
  ASSERT_EQ(inserted, kCapacity);
  std::uint32_t first = 0, elsewhere = 0;
  for (std::uint32_t i = 0; i < 2 * kCapacity; ++i) {
    const std::uint64_t hash = table.hash(key(i));
    Connection* candidate = table.candidate(hash);
    const bool in_first = candidate != nullptr;
    if (!in_first) candidate = table.candidate_elsewhere(hash);
    if (candidate == nullptr || !(candidate->key == key(i))) continue;
    EXPECT_EQ(candidate, table.find(key(i), hash)) << i;
    EXPECT_LT(i, kCapacity);
    ++(in_first ? first : elsewhere);
  }
  EXPECT_GT(elsewhere, kCapacity / 50);
  EXPECT_GT(first + elsewhere, kCapacity - kCapacity / 100);
}

TEST(ConnectionTable, EntriesNeverMove) {
  ConnectionTable table(1000, 1);
  Connection* first = table.insert(Connection::of(key(1)), table.hash(key(1))).connection;
  for (std::uint32_t i = 2; i < 900; ++i) table.insert(Connection::of(key(i)), table.hash(key(i)));
  EXPECT_EQ(table.find(key(1), table.hash(key(1))), first);
}

// Against a map: any order of inserts, finds and erases, with keys that come back.
TEST(ConnectionTable, AgreesWithAMap) {
  const auto seed = std::random_device{}();
  std::printf("seed %u\n", seed);
  std::mt19937 random(seed);
  ConnectionTable table(2048, seed);
  std::map<std::uint32_t, Connection*> model;
  for (int step = 0; step < 400000; ++step) {
    const std::uint32_t number = random() % 3000;
    const FlowKey flow = key(number);
    const std::uint64_t hash = table.hash(flow);
    Connection* found = table.find(flow, hash);
    const auto known = model.find(number);
    ASSERT_EQ(found, known == model.end() ? nullptr : known->second);
    if (found != nullptr && random() % 2 == 0) {
      table.erase(found);
      model.erase(known);
    } else if (found == nullptr) {
      if (Connection* made = table.insert(Connection::of(flow), hash).connection) {
        model[number] = made;
      } else {
        ASSERT_EQ(model.size(), 2048U);
      }
    }
    ASSERT_EQ(table.size(), model.size());
  }
}

TEST(ConnectionTable, SweepFreesTheDeadAndOnlyThem) {
  World world;
  World::Task task;
  task.name = "web";
  task.vlan = 101;
  task.mac = "0a:47:e4:7a:2b:02";
  task.addresses = {"10.0.0.35"};
  world.add(task);
  ConnectionTable table(1000, 1);
  for (std::uint32_t i = 0; i < 300; ++i) {
    const Connection fresh = Connection::of(key(i), 0, i % 3 == 0 ? ConnectionState::established : ConnectionState::syn_sent);
    table.insert(fresh, table.hash(fresh.key));
  }
  for (std::uint32_t i = 300; i < 400; ++i) table.insert(Connection::of(key(i, 7)), table.hash(key(i, 7)));  // of nobody
  for (int round = 0; round < 4; ++round) table.sweep(500, seconds(29), *world.view);
  EXPECT_EQ(table.size(), 300U);
  for (int round = 0; round < 4; ++round) table.sweep(500, seconds(30), *world.view);
  EXPECT_EQ(table.size(), 100U) << "the established stay";
  std::uint32_t visited = 0;
  table.sweep(500, seconds(30), *world.view, [&](Connection& connection, const Endpoint&) {
    if (++visited % 2 == 0) table.erase(&connection);
  });
  EXPECT_EQ(visited, 100U);
  EXPECT_EQ(table.size(), 50U) << "who is visited may go";
  // Freed places are used again.
  for (std::uint32_t i = 1000; i < 1900; ++i) EXPECT_NE(table.insert(Connection::of(key(i)), table.hash(key(i))).connection, nullptr);
}

class Small {
 public:
  explicit Small(std::uint32_t capacity) : table(capacity, 1) {}
  ConnectionTable::Inserted insert(std::uint32_t number, ConnectionState state, std::uint16_t endpoint = 0, std::uint32_t quota = ConnectionTable::kNoQuota) {
    const Connection fresh = Connection::of(key(number, endpoint), 0, state);
    return table.insert(fresh, table.hash(fresh.key), quota);
  }
  Connection* find(std::uint32_t number, std::uint16_t endpoint = 0) { return table.find(key(number, endpoint), table.hash(key(number, endpoint))); }
  bool has(std::uint32_t number, std::uint16_t endpoint = 0) { return find(number, endpoint) != nullptr; }
  void move(std::uint32_t number, ConnectionState state, std::uint16_t endpoint = 0) {
    Connection& connection = *find(number, endpoint);
    const Standing before = standing_of(connection.state);
    connection.state = state;
    table.changed_standing(connection, before);
  }

  ConnectionTable table;
};
constexpr auto kConfirmed = ConnectionState::established;
constexpr auto kUnconfirmed = ConnectionState::syn_sent;

TEST(ConnectionTable, AnEndpointsQuotaIsItsOwn) {
  Small small(1000);
  const auto refusal_of = [&](std::uint32_t number, std::uint32_t quota, std::uint16_t endpoint = 0) {
    return small.insert(number, kConfirmed, endpoint, quota).refusal;
  };
  for (std::uint32_t i = 0; i < 10; ++i) EXPECT_EQ(refusal_of(i, 10), ConnectionTable::Refusal::none);
  EXPECT_EQ(refusal_of(10, 10), ConnectionTable::Refusal::quota);
  EXPECT_EQ(refusal_of(10, 10, 1), ConnectionTable::Refusal::none) << "another's";
  small.table.erase(small.find(3));
  EXPECT_EQ(refusal_of(11, 10), ConnectionTable::Refusal::none);
  // What is over does not count, and counts again when it is used anew.
  small.move(5, ConnectionState::closed);
  EXPECT_EQ(refusal_of(20, 10), ConnectionTable::Refusal::none);
  small.table.restart(*small.find(5), Connection::of(key(5), 0, kConfirmed));
  EXPECT_EQ(refusal_of(21, 11), ConnectionTable::Refusal::quota);
  small.move(5, ConnectionState::reset);
  small.table.erase(small.find(5));
  EXPECT_EQ(refusal_of(21, 11), ConnectionTable::Refusal::none);
  EXPECT_EQ(refusal_of(22, 11), ConnectionTable::Refusal::quota);
  // One that nobody has confirmed makes room for another of its endpoint, the oldest first, and for nobody else's.
  small.move(7, kUnconfirmed), small.move(6, kUnconfirmed);
  EXPECT_EQ(refusal_of(22, 11), ConnectionTable::Refusal::none);
  EXPECT_FALSE(small.has(7));
  EXPECT_TRUE(small.has(6));
  EXPECT_EQ(small.table.recycled(), 1U);
  // The id's next generation begins with none.
  FlowKey next = key(12);
  next.owner = FlowKey::owner_of(EndpointId{0}, 2) | FlowKey::protocol_bits(6);
  EXPECT_NE(small.table.insert(Connection::of(next, 0, kUnconfirmed), small.table.hash(next), 1).connection, nullptr);
  // What the generation before has left is in nobody's way, and may go.
  small.table.erase(small.find(6));
  next.local_port = 7;
  EXPECT_EQ(small.table.insert(Connection::of(next), small.table.hash(next), 1).refusal, ConnectionTable::Refusal::none) << "its own made room";
}

TEST(ConnectionTable, AnEndpointsUnconfirmedMakeRoomForItsOwn) {
  Small small(4000);  // so that an endpoint may have 1000
  small.insert(1, kUnconfirmed, 1);  // the neighbour's, older than all
  for (std::uint32_t i = 0; i < 1000; ++i) small.insert(i, kUnconfirmed);
  small.move(0, kConfirmed);
  EXPECT_EQ(small.table.recycled(), 0U);
  small.insert(1000, kUnconfirmed);
  EXPECT_EQ(small.table.recycled(), 0U);
  small.insert(1001, kUnconfirmed);
  EXPECT_EQ(small.table.recycled(), 1U);
  EXPECT_TRUE(small.has(0));
  EXPECT_FALSE(small.has(1)) << "its oldest that is unconfirmed";
  EXPECT_TRUE(small.has(2));
  EXPECT_TRUE(small.has(1, 1));
  small.insert(5000, kConfirmed);  // displaces nothing
  EXPECT_TRUE(small.has(2));
  // An entry that was freed and is another's now is in the other's list.
  small.table.erase(small.find(2));
  small.insert(6000, kUnconfirmed);
  EXPECT_TRUE(small.has(3));
  EXPECT_EQ(small.table.recycled(), 1U);
  // A flood never has more than its quarter, and never a confirmed connection or a neighbour's.
  for (std::uint32_t i = 10'000; i < 60'000; ++i) small.insert(i, kUnconfirmed);
  EXPECT_EQ(small.table.size(), 1U + 1002);
  EXPECT_TRUE(small.has(0) && small.has(5000) && small.has(1, 1));
}

TEST(ConnectionTable, AFullTableMakesRoomOutOfTheManyUnconfirmed) {
  Small small(256);
  // Endpoint 1 has more than a few, endpoint 2 a few; the rest of the table is endpoint 3's and confirmed.
  for (std::uint32_t i = 0; i < 60; ++i) small.insert(i, kUnconfirmed, 1);
  for (std::uint32_t i = 0; i < 10; ++i) small.insert(i, kUnconfirmed, 2);
  std::uint32_t others = 0;
  while (small.table.recycled() == 0 && others < 1000) small.insert(others++, kConfirmed, 3);
  EXPECT_EQ(others, 256U - 70 + 1);
  EXPECT_FALSE(small.has(0, 1));
  EXPECT_TRUE(small.has(1, 1) && small.has(0, 2));
  // What is over goes before.
  small.move(100, ConnectionState::reset, 3);
  small.insert(1000, kConfirmed, 4);
  EXPECT_FALSE(small.has(100, 3));
  EXPECT_TRUE(small.has(1, 1));
  // In the end only what is confirmed is there, and stays.
  for (std::uint32_t i = 0; i < 69; ++i) EXPECT_NE(small.insert(2000 + i, kConfirmed, 4).connection, nullptr) << i;
  EXPECT_EQ(small.insert(3000, kConfirmed, 4).refusal, ConnectionTable::Refusal::full);
  EXPECT_EQ(small.insert(3000, kUnconfirmed, 1).refusal, ConnectionTable::Refusal::full);
  EXPECT_EQ(small.table.recycled(), 71U);
  EXPECT_EQ(small.table.size(), 256U);
}

TEST(ConnectionTable, WhatIsOverHasAnEighth) {
  Small small(1600);  // so that 200 may be over
  for (std::uint32_t i = 0; i < 300; ++i) {
    small.insert(i, kConfirmed, i % 2);
    small.move(i, ConnectionState::closed, i % 2);
  }
  EXPECT_EQ(small.table.size(), 200U);
  EXPECT_EQ(small.table.recycled(), 100U);
  EXPECT_FALSE(small.has(0));
  EXPECT_TRUE(small.has(299, 1));
  // One that goes on after all is not over.
  small.move(299, kConfirmed, 1);
  for (std::uint32_t i = 300; i < 900; ++i) {
    small.insert(i, kConfirmed, 1);
    small.move(i, ConnectionState::refused, 1);
  }
  EXPECT_TRUE(small.has(299, 1));
}

TEST(ConnectionTable, AnEndpointBelowItsShareFindsRoomBesideAConfirmedHoarder) {
  Small small(400);  // 100 are divided
  small.table.share_among(4);
  EXPECT_EQ(small.table.share(), 25U);
  std::uint32_t had = 0;
  while (small.insert(had, kConfirmed, 0).refusal == ConnectionTable::Refusal::none) ++had;
  EXPECT_EQ(had, 325U);  // its share, and all that nobody is promised
  EXPECT_EQ(small.insert(had, kConfirmed, 0).refusal, ConnectionTable::Refusal::share);
  EXPECT_EQ(small.insert(had, kUnconfirmed, 0).refusal, ConnectionTable::Refusal::share);
  for (std::uint16_t neighbour = 1; neighbour < 4; ++neighbour) {
    for (std::uint32_t i = 0; i < 25; ++i) {
      ASSERT_EQ(small.insert(i, i % 2 == 0 || neighbour == 1 ? kConfirmed : kUnconfirmed, neighbour).refusal,
                ConnectionTable::Refusal::none)
          << neighbour << ' ' << i;
    }
  }
  EXPECT_EQ(small.table.size(), 400U);
  EXPECT_EQ(small.table.recycled(), 0U);
  for (std::uint32_t i = 0; i < had; ++i) ASSERT_TRUE(small.has(i, 0)) << i;
  // Theirs that are unconfirmed are within their shares, so they make no room.
  EXPECT_EQ(small.insert(500, kConfirmed, 1).refusal, ConnectionTable::Refusal::share);
  // What the hoarder gives up may be borrowed.
  small.table.erase(small.find(0, 0));
  EXPECT_EQ(small.insert(500, kConfirmed, 1).refusal, ConnectionTable::Refusal::none);
  EXPECT_EQ(small.insert(501, kConfirmed, 1).refusal, ConnectionTable::Refusal::share);
}

TEST(ConnectionTable, WhatIsBorrowedAndUnconfirmedMakesRoomForABorrower) {
  Small small(400);
  small.table.share_among(2);  // 50 each
  for (std::uint32_t i = 0; i < 100; ++i) small.insert(i, kUnconfirmed, 0);
  for (std::uint32_t i = 0; i < 300; ++i)
    ASSERT_EQ(small.insert(i, kConfirmed, 1).refusal, ConnectionTable::Refusal::none) << i;
  EXPECT_EQ(small.table.recycled(), 0U);
  for (std::uint32_t i = 300; i < 350; ++i)
    ASSERT_EQ(small.insert(i, kConfirmed, 1).refusal, ConnectionTable::Refusal::none) << i;
  EXPECT_EQ(small.table.recycled(), 50U);
  EXPECT_FALSE(small.has(49, 0));
  EXPECT_TRUE(small.has(50, 0));  // what is left is its share
  EXPECT_EQ(small.insert(350, kConfirmed, 1).refusal, ConnectionTable::Refusal::share);
}

// Endpoints come, go, begin anew and share among more or fewer; IPv6 takes two entries. Whoever is below its share
// finds room.
TEST(ConnectionTable, SharesHoldInARandomLife) {
  const std::uint64_t seed = std::random_device{}();
  std::cout << "seed " << seed << '\n';
  std::mt19937_64 random(seed);
  constexpr std::uint32_t kEndpoints = 6;
  Small small(600);
  small.table.share_among(kEndpoints);
  static constexpr ConnectionState kStates[] = {ConnectionState::syn_sent, ConnectionState::established,
                                                ConnectionState::closed, ConnectionState::udp_again};
  std::uint64_t refused = 0, promised = 0;
  for (int step = 0; step < 300'000; ++step) {
    // Some want all, others little.
    const auto endpoint = static_cast<std::uint16_t>(random() % kEndpoints);
    const auto number = static_cast<std::uint32_t>(random() % (endpoint < 3 ? 1000 : 20));
    const ConnectionState state = kStates[random() % std::size(kStates)];
    if (Connection* const found = small.find(number, endpoint); found == nullptr) {
      Endpoint who;
      who.id = EndpointId{endpoint};
      who.generation = 1;
      const bool is_promised = small.table.size_of(who) < small.table.share();
      const auto refusal = small.insert(number, state, endpoint).refusal;
      ASSERT_TRUE(!is_promised || refusal == ConnectionTable::Refusal::none) << "step " << step;
      promised += is_promised, refused += refusal == ConnectionTable::Refusal::share;
    } else if (random() % 8 == 0) {
      small.table.erase(found);
    } else {
      small.move(number, state, endpoint);
    }
  }
  EXPECT_GT(refused, 1000U);
  EXPECT_GT(promised, 1000U);
}

// Random life of three endpoints against plain lists: who is there, who counts, and who made room.
TEST(ConnectionTable, WhoMakesRoomAgainstPlainLists) {
  const std::uint64_t seed = std::random_device{}();
  std::cout << "seed " << seed << '\n';
  std::mt19937_64 random(seed);
  Small small(512);
  struct Entry {
    ConnectionState state;
    std::uint64_t since;
  };
  std::map<std::uint32_t, Entry> model[3];
  std::uint64_t order = 0;
  const auto count = [&](std::uint16_t endpoint, Standing standing) {
    return std::ranges::count_if(model[endpoint], [&](const auto& each) { return standing_of(each.second.state) == standing; });
  };
  const auto drop_oldest = [&](std::uint16_t endpoint, Standing standing) {
    auto oldest = model[endpoint].end();
    for (auto each = model[endpoint].begin(); each != model[endpoint].end(); ++each) {
      if (standing_of(each->second.state) == standing && (oldest == model[endpoint].end() || each->second.since < oldest->second.since)) oldest = each;
    }
    if (oldest != model[endpoint].end()) model[endpoint].erase(oldest);
  };
  const auto limit_over = [&](std::uint16_t endpoint, std::uint32_t newest, Standing standing) {
    if (standing != Standing::over || count(0, Standing::over) + count(1, Standing::over) + count(2, Standing::over) <= 64) return;
    if (count(endpoint, Standing::over) > 1) drop_oldest(endpoint, Standing::over);
    ASSERT_TRUE(model[endpoint].contains(newest));
  };
  static constexpr ConnectionState kStates[] = {ConnectionState::syn_sent, ConnectionState::syn_received, ConnectionState::established,
                                                ConnectionState::closing, ConnectionState::closed, ConnectionState::reset, ConnectionState::udp_asked,
                                                ConnectionState::udp_again, ConnectionState::other_answered};
  for (int step = 0; step < 200'000; ++step) {
    const auto endpoint = static_cast<std::uint16_t>(random() % 3);
    const auto number = static_cast<std::uint32_t>(random() % 120);
    const ConnectionState state = kStates[random() % std::size(kStates)];
    const auto found = model[endpoint].find(number);
    ASSERT_EQ(small.has(number, endpoint), found != model[endpoint].end()) << "step " << step;
    if (found == model[endpoint].end()) {
      const std::uint32_t quota = 60;
      const bool at_quota = count(endpoint, Standing::confirmed) + count(endpoint, Standing::unconfirmed) >= quota;
      const bool fits = !at_quota || count(endpoint, Standing::unconfirmed) != 0;
      if (at_quota) drop_oldest(endpoint, Standing::unconfirmed);
      ASSERT_EQ(small.insert(number, state, endpoint, quota).refusal == ConnectionTable::Refusal::none, fits) << "step " << step;
      if (fits) model[endpoint][number] = {state, ++order}, limit_over(endpoint, number, standing_of(state));
    } else if (random() % 3 == 0) {
      small.table.erase(small.find(number, endpoint));
      model[endpoint].erase(found);
    } else {
      const Standing before = standing_of(found->second.state);
      small.move(number, state, endpoint);
      const std::uint64_t since = standing_of(state) == before ? found->second.since : ++order;
      found->second = {state, since};
      if (standing_of(state) != before) limit_over(endpoint, number, standing_of(state));
    }
    Endpoint holder;
    holder.id = EndpointId{endpoint};
    holder.generation = 1;
    ASSERT_EQ(small.table.size_of(holder), count(endpoint, Standing::confirmed) + count(endpoint, Standing::unconfirmed)) << "step " << step;
    ASSERT_EQ(small.table.size(), model[0].size() + model[1].size() + model[2].size()) << "step " << step;
  }
}

TEST(ConnectionTable, WhatIsAdoptedMakesRoomLikeAnyOther) {
  ConnectionTable table(800, 1);  // so that 200 may be unconfirmed
  for (const ConnectionState state : {ConnectionState::syn_sent, ConnectionState::established}) {
    for (std::uint32_t i = 0; i < 250; ++i) {
      const Connection connection = Connection::of(key(1000 * static_cast<std::uint32_t>(state) + i), 0, state);
      EXPECT_TRUE(table.adopt(connection, {}, 0));
      EXPECT_FALSE(table.adopt(connection, {}, 0)) << "it is here";
    }
  }
  EXPECT_EQ(table.recycled(), 50U);
  EXPECT_EQ(table.size(), 200U + 250);
}

TEST(ConnectionTable, WhatAClockAheadHasSeenIsAdoptedAsSeenNow) {
  ConnectionTable table(100, 1);
  for (const Tick now : {Tick{0}, Tick{5000}, Tick{0x1fffe}, Tick{0xfffffffe}}) {
    for (const std::int32_t ahead : {-3000, -1, 0, 1, 7}) {
      const Tick seen = now + static_cast<Tick>(ahead);
      Connection connection = Connection::of(key(1), seen, ConnectionState::established);
      connection.totals[0] = {.bytes_and_flags = 60,
                              .packets = 1,
                              .first = static_cast<std::uint16_t>(seen),
                              .last = static_cast<std::uint16_t>(seen)};
      ASSERT_TRUE(table.adopt(connection, {}, now));
      Connection* const adopted = table.find(connection.key, table.hash(connection.key));
      ASSERT_NE(adopted, nullptr);
      const Tick expected = ahead > 0 ? now : seen;
      EXPECT_EQ(adopted->last_seen, expected) << now << ' ' << ahead;
      EXPECT_EQ(adopted->totals[0].first_seen(now), expected) << now << ' ' << ahead;
      EXPECT_EQ(adopted->totals[0].last_seen(now), expected) << now << ' ' << ahead;
      table.erase(adopted);
    }
  }
}

TEST(ConnectionTable, Ipv6TakesTwoEntriesAndComparesAddresses) {
  ConnectionTable table(10, 1);
  AddressPair addresses{ip("2001:db8::1"), ip("2001:db8::2")}, others{ip("2001:db8::3"), ip("2001:db8::2")};
  FlowKey six = key(1);
  six.owner |= FlowKey::kIpv6;
  table.set_digest(six, addresses);
  ASSERT_NE(table.insert(Connection::of(six), table.hash(six), addresses).connection, nullptr);
  EXPECT_NE(table.find(six, table.hash(six), addresses), nullptr);
  EXPECT_EQ(table.find(six, table.hash(six), others), nullptr) << "the same digest would not be enough";
  for (std::uint32_t i = 0; i < 4; ++i) {
    FlowKey more = key(100 + i);
    more.owner |= FlowKey::kIpv6;
    table.set_digest(more, others);
    ASSERT_NE(table.insert(Connection::of(more), table.hash(more), others).connection, nullptr);
  }
  FlowKey last = key(200);
  EXPECT_EQ(table.insert(Connection::of(last), table.hash(last)).refusal, ConnectionTable::Refusal::full);
  table.erase(table.find(six, table.hash(six), addresses));
  EXPECT_NE(table.insert(Connection::of(last), table.hash(last)).connection, nullptr);
  FlowKey one_more = key(201);
  EXPECT_NE(table.insert(Connection::of(one_more), table.hash(one_more)).connection, nullptr) << "both entries came back";
}

// The promise of 64 bytes, 8.5 for the buckets, 8 for the lists, and a little for the endpoints.
TEST(ConnectionTable, MemoryAConnection) {
  ConnectionTable table(1'000'000, 1);
  EXPECT_LE(static_cast<double>(table.memory_bytes()) / 1e6, 82.0);
}

TEST(ConnectionTable, SeedChangesTheHash) {
  const ConnectionTable one(100, 1), other(100, 2);
  EXPECT_NE(one.hash(key(1)), other.hash(key(1)));
}

}  // namespace
}  // namespace trunkline::test
