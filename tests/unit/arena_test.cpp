// SPDX-License-Identifier: BSD-3-Clause
#include "dataplane/state/arena.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "dataplane/state/connection_table.h"

namespace trunkline::test {
namespace {

FlowKey key(std::uint32_t number) {
  FlowKey result;
  result.remote = number;
  result.local = 0x2300000a;
  result.local_port = 0x5000;
  result.owner = FlowKey::owner_of(EndpointId{3}, 1) | FlowKey::protocol_bits(6);
  return result;
}

class ArenaTest : public ::testing::Test {
 protected:
  ArenaTest() : path(std::filesystem::temp_directory_path() / ("trunkline-arena-" + std::to_string(getpid()))) {}
  ~ArenaTest() override { std::filesystem::remove(path); }
  std::filesystem::path path;
};

TEST_F(ArenaTest, IsZeroAndSaysWhatItIs) {
  auto arena = Arena::create(10'000, 42);
  ASSERT_TRUE(arena) << arena.error();
  EXPECT_GE(arena->memory_bytes(), 10'000 + sizeof(Arena::Header));
  for (std::size_t i = 0; i < 10'000; ++i) ASSERT_EQ(arena->contents()[i], std::byte{0});
}

TEST_F(ArenaTest, IsTakenOverByPathAndByDescriptor) {
  auto arena = Arena::create(10'000, 42, path);
  ASSERT_TRUE(arena) << arena.error();
  arena->contents()[9'999] = std::byte{7};
  const auto by_path = Arena::adopt(path, 10'000, 42);
  ASSERT_TRUE(by_path) << by_path.error();
  EXPECT_EQ(by_path->contents()[9'999], std::byte{7});
  const auto by_descriptor = Arena::adopt(arena->descriptor(), 10'000, 42);
  ASSERT_TRUE(by_descriptor) << by_descriptor.error();
  EXPECT_EQ(by_descriptor->contents()[9'999], std::byte{7});
}

TEST_F(ArenaTest, RefusesWhatIsNotTheSame) {
  ASSERT_TRUE(Arena::create(10'000, 42, path));
  const auto layout = Arena::adopt(path, 10'000, 43);
  ASSERT_FALSE(layout);
  EXPECT_NE(layout.error().find("laid out differently"), std::string::npos) << layout.error();
  const auto size = Arena::adopt(path, 1'000'000, 42);
  ASSERT_FALSE(size);
  EXPECT_NE(size.error().find("bytes"), std::string::npos) << size.error();
  // The file is as it was: it can still be taken over as what it is.
  EXPECT_TRUE(Arena::adopt(path, 10'000, 42));
  EXPECT_FALSE(Arena::adopt(path.string() + "-not-there", 10'000, 42));
  std::fstream(path, std::ios::in | std::ios::out | std::ios::binary).write("SOMETHING", 9);
  const auto magic = Arena::adopt(path, 10'000, 42);
  ASSERT_FALSE(magic);
  EXPECT_NE(magic.error().find("not Trunkline's"), std::string::npos) << magic.error();
}

TEST_F(ArenaTest, ATableGoesOnWhereAnotherStopped) {
  constexpr std::uint32_t kCapacity = 5000;
  {
    ConnectionTable table(kCapacity, 99, path);
    for (std::uint32_t i = 0; i < 4000; ++i) {
      Connection* made = table.insert(Connection::of(key(i), i), table.hash(key(i))).connection;
      ASSERT_NE(made, nullptr);
      made->state = ConnectionState::established;
      made->totals[0].packets = i;
    }
    for (std::uint32_t i = 0; i < 4000; i += 4) table.erase(table.find(key(i), table.hash(key(i))));
    FlowKey six = key(7);
    six.owner |= FlowKey::kIpv6;
    AddressPair addresses{IpAddress::parse("2001:db8::1").value(), IpAddress::parse("2001:db8::2").value()};
    table.set_digest(six, addresses);
    table.insert(Connection::of(six, 5), table.hash(six), addresses).connection->state = ConnectionState::established;
  }
  auto arena = Arena::adopt(path, ConnectionTable::arena_bytes(kCapacity), ConnectionTable::layout());
  ASSERT_TRUE(arena) << arena.error();
  ConnectionTable table(kCapacity, std::move(*arena), ConnectionTable::TakenOver{});
  EXPECT_EQ(table.size(), 3001U);
  for (std::uint32_t i = 0; i < 4000; ++i) {
    const Connection* found = table.find(key(i), table.hash(key(i)));
    if (i % 4 == 0) {
      ASSERT_EQ(found, nullptr) << i;
    } else {
      ASSERT_NE(found, nullptr) << i;
      EXPECT_EQ(found->totals[0].packets, i);
    }
  }
  FlowKey six = key(7);
  six.owner |= FlowKey::kIpv6;
  AddressPair addresses{IpAddress::parse("2001:db8::1").value(), IpAddress::parse("2001:db8::2").value()};
  table.set_digest(six, addresses);
  EXPECT_NE(table.find(six, table.hash(six), addresses), nullptr);
  Endpoint endpoint;
  endpoint.id = EndpointId{3};
  endpoint.generation = 1;
  EXPECT_EQ(table.size_of(endpoint), 3001U);
  // It fills to its capacity: 5000 entries, of which the IPv6 connection has two.
  std::uint32_t more = 0;
  while (table.insert(Connection::of(key(10'000 + more)), table.hash(key(10'000 + more))).connection != nullptr) ++more;
  EXPECT_EQ(more, 5000U - 3002U);
}

// What makes room has its addresses in an entry far behind its own.
TEST_F(ArenaTest, WhatIsTakenOverMayHaveToMakeRoom) {
  constexpr std::uint32_t kCapacity = 800, kUnanswered = 120, kOthers = 700 - 2 * kUnanswered;
  const auto ipv6 = [](const ConnectionTable& table, std::uint32_t number, AddressPair& addresses) {
    FlowKey six = key(number);
    six.owner |= FlowKey::kIpv6;
    addresses = {IpAddress::parse("2001:db8::1").value(), IpAddress::parse("2001:db8::2").value()};
    addresses.remote.bytes[15] = static_cast<std::uint8_t>(number);
    table.set_digest(six, addresses);
    return six;
  };
  {
    ConnectionTable table(kCapacity, 99, path);
    for (std::uint32_t i = 0; i < 700; ++i) table.insert(Connection::of(key(i)), table.hash(key(i)));
    // What was freed last is used first: a near entry, and then a far one.
    for (std::uint32_t i = 0; i < kUnanswered; ++i) {
      for (const std::uint32_t freed : {500 + i, i}) table.erase(table.find(key(freed), table.hash(key(freed))));
    }
    for (std::uint32_t i = 0; i < kUnanswered; ++i) {
      AddressPair addresses;
      const FlowKey six = ipv6(table, i, addresses);
      Connection* made = table.insert(Connection::of(six, 0, ConnectionState::syn_sent), table.hash(six), addresses).connection;
      ASSERT_GT(made->link, kUnanswered);
    }
  }
  auto arena = Arena::adopt(path, ConnectionTable::arena_bytes(kCapacity), ConnectionTable::layout());
  ASSERT_TRUE(arena) << arena.error();
  ConnectionTable table(kCapacity, std::move(*arena), ConnectionTable::TakenOver{});
  EXPECT_EQ(table.recycled(), 0U);
  EXPECT_EQ(table.size(), kOthers + kUnanswered);
  // Each entry that is free is used once, and then those of the unanswered.
  std::uint32_t more = 0;
  while (table.insert(Connection::of(key(10'000 + more)), table.hash(key(10'000 + more))).connection != nullptr) ++more;
  EXPECT_EQ(more, kCapacity - kOthers);
  EXPECT_EQ(table.recycled(), kUnanswered);
  for (std::uint32_t i = 0; i < more; ++i) EXPECT_NE(table.find(key(10'000 + i), table.hash(key(10'000 + i))), nullptr) << i;
  for (std::uint32_t i = 0; i < kUnanswered; ++i) {
    AddressPair addresses;
    const FlowKey six = ipv6(table, i, addresses);
    EXPECT_EQ(table.find(six, table.hash(six), addresses), nullptr);
  }
}

TEST_F(ArenaTest, WhatIsLeftOfATaskThatHasGoneDoesNotCount) {
  ConnectionTable table(1000, 99);
  const auto of_generation = [](std::uint32_t number, std::uint16_t generation) {
    FlowKey flow = key(number);
    flow.owner = FlowKey::owner_of(EndpointId{3}, generation) | FlowKey::protocol_bits(6);
    return Connection::of(flow);
  };
  Endpoint endpoint;
  endpoint.id = EndpointId{3};
  endpoint.generation = 7;
  EXPECT_TRUE(table.adopt(of_generation(1, 6), {}, 0));
  EXPECT_TRUE(table.adopt(of_generation(2, 7), {}, 0));
  EXPECT_EQ(table.size_of(endpoint), 1U);
  EXPECT_FALSE(table.adopt(of_generation(3, 6), {}, 0)) << "nobody will ask for it";
  EXPECT_EQ(table.size_of(endpoint), 1U);
  table.erase(table.find(of_generation(1, 6).key, table.hash(of_generation(1, 6).key)));
  EXPECT_EQ(table.size_of(endpoint), 1U);
}

}  // namespace
}  // namespace trunkline::test
