// SPDX-License-Identifier: BSD-3-Clause
#include "dataplane/state/connection_table.h"

#include <gtest/gtest.h>

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
    Connection* connection = table.insert(Connection::of(key(i)), table.hash(key(i))).connection;
    connection->state = i % 3 == 0 ? ConnectionState::established : ConnectionState::opening;
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

TEST(ConnectionTable, AnEndpointsQuotaIsItsOwn) {
  ConnectionTable table(1000, 1);
  for (std::uint32_t i = 0; i < 10; ++i) EXPECT_NE(table.insert(Connection::of(key(i)), table.hash(key(i)), 10).connection, nullptr);
  EXPECT_EQ(table.insert(Connection::of(key(10)), table.hash(key(10)), 10).refusal, ConnectionTable::Refusal::quota);
  EXPECT_EQ(table.insert(Connection::of(key(10, 1)), table.hash(key(10, 1)), 10).refusal, ConnectionTable::Refusal::none) << "another's";
  table.erase(table.find(key(3), table.hash(key(3))));
  EXPECT_NE(table.insert(Connection::of(key(11)), table.hash(key(11)), 10).connection, nullptr);
  // What is over does not count, and counts again when it is used anew.
  Connection* over = table.find(key(5), table.hash(key(5)));
  over->state = ConnectionState::closed;
  table.remember_over(*over, table.hash(over->key));
  EXPECT_NE(table.insert(Connection::of(key(20)), table.hash(key(20)), 10).connection, nullptr);
  table.restart(*over, Connection::of(over->key));
  EXPECT_EQ(table.insert(Connection::of(key(21)), table.hash(key(21)), 11).refusal, ConnectionTable::Refusal::quota);
  over->state = ConnectionState::reset;
  table.remember_over(*over, table.hash(over->key));
  table.erase(over);
  EXPECT_NE(table.insert(Connection::of(key(21)), table.hash(key(21)), 11).connection, nullptr);
  EXPECT_EQ(table.insert(Connection::of(key(22)), table.hash(key(22)), 11).refusal, ConnectionTable::Refusal::quota);
  // The id's next generation begins with none.
  FlowKey next = key(12);
  next.owner = FlowKey::owner_of(EndpointId{0}, 2) | FlowKey::protocol_bits(6);
  EXPECT_NE(table.insert(Connection::of(next), table.hash(next), 10).connection, nullptr);
}

TEST(ConnectionTable, UnansweredMakeRoomAndAnsweredStay) {
  ConnectionTable table(8000, 1);  // so that 1000 may wait for an answer
  const auto open = [&](std::uint32_t number, ConnectionState state) {
    Connection* connection = table.insert(Connection::of(key(number)), table.hash(key(number))).connection;
    ASSERT_NE(connection, nullptr);
    connection->state = state;
    if (ConnectionTable::is_unanswered(*connection)) table.remember_unanswered(*connection, table.hash(connection->key));
  };
  const auto has = [&](std::uint32_t number) { return table.find(key(number), table.hash(key(number))) != nullptr; };
  for (std::uint32_t i = 0; i < 1000; ++i) open(i, ConnectionState::opening);
  table.find(key(0), table.hash(key(0)))->state = ConnectionState::established;  // the first was answered
  EXPECT_EQ(table.recycled(), 0U);
  open(1000, ConnectionState::opening);  // takes the answered one's place in the ring
  EXPECT_EQ(table.recycled(), 0U);
  open(1001, ConnectionState::opening);
  EXPECT_EQ(table.recycled(), 1U);
  EXPECT_TRUE(has(0));
  EXPECT_FALSE(has(1)) << "the oldest that nobody answered";
  EXPECT_TRUE(has(2));
  // An entry that was freed and is somebody else's now is not the one that the ring remembers.
  table.erase(table.find(key(2), table.hash(key(2))));
  open(5000, ConnectionState::opening);  // takes the freed entry; the ring's oldest place names key 2
  EXPECT_TRUE(has(5000));
  EXPECT_TRUE(has(3));
  EXPECT_EQ(table.recycled(), 1U);
  // A flood never has more than its eighth, and never an answered connection.
  for (std::uint32_t i = 10'000; i < 60'000; ++i) open(i, ConnectionState::opening);
  EXPECT_EQ(table.size(), 1001U);
  EXPECT_TRUE(has(0));
}

TEST(ConnectionTable, WhatIsAdoptedMakesRoomLikeAnyOther) {
  ConnectionTable table(800, 1);  // so that 100 may wait for an answer, and 100 that are over for late segments
  for (const ConnectionState state : {ConnectionState::opening, ConnectionState::closed, ConnectionState::established}) {
    for (std::uint32_t i = 0; i < 150; ++i) {
      Connection connection = Connection::of(key(1000 * static_cast<std::uint32_t>(state) + i));
      connection.state = state;
      EXPECT_TRUE(table.adopt(connection, {}));
      EXPECT_FALSE(table.adopt(connection, {})) << "it is here";
    }
  }
  EXPECT_EQ(table.recycled(), 100U);
  EXPECT_EQ(table.size(), 100U + 100 + 150);
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

// The promise of 64 bytes and 8.5, and a little for what waits.
TEST(ConnectionTable, MemoryAConnection) {
  ConnectionTable table(1'000'000, 1);
  EXPECT_LE(static_cast<double>(table.memory_bytes()) / 1e6, 76.0);
}

TEST(ConnectionTable, SeedChangesTheHash) {
  const ConnectionTable one(100, 1), other(100, 2);
  EXPECT_NE(one.hash(key(1)), other.hash(key(1)));
}

}  // namespace
}  // namespace trunkline::test
