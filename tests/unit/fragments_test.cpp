// SPDX-License-Identifier: BSD-3-Clause
// Fragments: the first decides for the rest, whatever order they come in; nothing overlaps; a flood costs its owner alone.
#include "dataplane/stages/fragments.h"

#include <gtest/gtest.h>

#include <numeric>

#include "tests/support/world.h"

namespace trunkline::test {
namespace {

constexpr char kWebMac[] = "0a:47:e4:7a:2b:02", kAppMac[] = "0a:47:e4:7a:2b:03", kRouterMac[] = "0a:00:00:00:00:01";

World::Task task(std::string name, std::uint16_t vlan, std::string task_mac, std::vector<std::string> addresses) {
  World::Task result;
  result.name = std::move(name);
  result.vlan = vlan;
  result.mac = std::move(task_mac);
  result.addresses = std::move(addresses);
  result.subnet6 = "2001:db8::/64";
  config::SecurityGroup group;
  group.id = "sg-" + result.name;
  group.ingress = {rule(17, 5000, 5000, {"0.0.0.0/0", "::/0"}), rule(6, 80, 80, {"0.0.0.0/0"}), rule(1, 8, -1, {"0.0.0.0/0"})};
  result.groups = {group};
  return result;
}

// A piece of a datagram: `payload` is the whole IP payload, of which bytes [begin, end) go.
Frame piece4(std::uint16_t vlan, const char* to_mac, const char* source, const char* destination, std::uint8_t protocol,
             const Frame& payload, std::size_t begin, std::size_t end, std::uint16_t id, bool more) {
  const Frame part(payload.begin() + static_cast<std::ptrdiff_t>(begin), payload.begin() + static_cast<std::ptrdiff_t>(end));
  Frame frame = ip_packet({mac(to_mac), mac(kRouterMac), vlan}, ip(source), ip(destination), protocol, part, false);
  frame[18 + 4] = static_cast<std::uint8_t>(id >> 8);
  frame[18 + 5] = static_cast<std::uint8_t>(id);
  const std::size_t word = begin / 8 | (more ? 0x2000U : 0U);
  frame[18 + 6] = static_cast<std::uint8_t>(word >> 8);
  frame[18 + 7] = static_cast<std::uint8_t>(word);
  return frame;
}

class FragmentsTest : public ::testing::Test {
 protected:
  void SetUp() override {
    world.add(task("web", 101, kWebMac, {"10.0.0.35", "2001:db8::35"}));
    world.add(task("app", 102, kAppMac, {"10.0.0.36"}));
    whole.resize(8 + 4000);
    const Frame head = udp_datagram(7000, 5000, 4000);
    std::copy(head.begin(), head.begin() + 8, whole.begin());
    std::iota(whole.begin() + 8, whole.end(), std::uint8_t{0});
    refused = whole;
    refused[3] = 0x89;  // port 5001
  }
  Frame piece(std::size_t begin, std::size_t end, std::uint16_t id = 1) const {
    return piece4(101, kWebMac, "198.51.100.9", "10.0.0.35", 17, whole, begin, std::min(end, whole.size()), id, end < whole.size());
  }
  std::size_t delivered(const std::vector<Frame>& frames) { return world.from_trunk(frames).task["web"].size(); }
  std::uint64_t moved(const std::string& name) {
    const Movements all = world.movements();
    const auto found = all.find(name);
    return found == all.end() ? 0 : found->second;
  }
  // Held packets are out of both sides of the meter until they go on.
  std::int64_t waiting() { return MeterReading::of(world.worker.meters[0].ingress).unaccounted(); }
  void sweep() { sweep_fragments(world.worker, FragmentTable::kCapacity); }

  World world;
  Frame whole, refused;
};

TEST_F(FragmentsTest, TheFirstDecidesForTheRest) {
  EXPECT_EQ(delivered({piece(0, 1480), piece(1480, 2960), piece(2960, 9999)}), 3U);
  EXPECT_EQ(world.movements(), (Movements{{"trunk.in.rx", 3}, {"trunk.in.tx", 3}, {"web.ingress.rx", 3}, {"web.ingress.tx", 3}}));
  EXPECT_EQ(world.worker.connections.size(), 1U);
  EXPECT_TRUE(world.worker.fragments.empty()) << "all of it has passed";
  world.worker.connections.for_each([](const Connection& connection) {
    EXPECT_EQ(connection.totals[0].packets, 3U);
    EXPECT_EQ(connection.key.local_port_number(), 5000);
  });
  // The same in three bursts.
  for (const auto& each : {piece(0, 1480, 2), piece(1480, 2960, 2), piece(2960, 9999, 2)}) EXPECT_EQ(delivered({each}), 1U);
  EXPECT_TRUE(world.worker.fragments.empty());
}

TEST_F(FragmentsTest, WhatTheFirstIsRefusedForTheRestAreRefusedFor) {
  const auto part = [&](std::size_t begin, std::size_t end) {
    return piece4(101, kWebMac, "198.51.100.9", "10.0.0.35", 17, refused, begin, end, 1, end < refused.size());
  };
  EXPECT_EQ(delivered({part(0, 1480), part(1480, 2960), part(2960, refused.size())}), 0U);
  EXPECT_EQ(world.movements(), (Movements{{"trunk.in.rx", 3}, {"trunk.in.tx", 3}, {"web.ingress.rx", 3},
                                          {"web.ingress.security_group_ingress", 3}}));
  EXPECT_EQ(world.worker.connections.size(), 0U);
}

TEST_F(FragmentsTest, ALaterOneOpensNoConnectionThatItsFirstMayNot) {
  // Of a SYN-ACK, which begins nothing; and of a RST, which passes and leaves nothing behind.
  const auto part = [&](std::uint8_t flags, std::size_t begin, std::size_t end, std::uint16_t id) {
    const Frame segment = tcp_segment(7000, 80, flags, 600);
    return piece4(101, kWebMac, "198.51.100.9", "10.0.0.35", 6, segment, begin, std::min(end, segment.size()), id,
                  end < segment.size());
  };
  EXPECT_EQ(delivered({part(0x12, 304, 9999, 1), part(0x12, 0, 304, 1)}), 0U);
  EXPECT_EQ(
      world.movements(),
      (Movements{{"trunk.in.rx", 2}, {"trunk.in.tx", 2}, {"web.ingress.rx", 2}, {"web.ingress.connection_closed", 2}}));
  EXPECT_EQ(delivered({part(0x12, 0, 304, 2)}), 0U);
  EXPECT_EQ(delivered({part(0x12, 304, 9999, 2)}), 0U);
  EXPECT_EQ(
      world.movements(),
      (Movements{{"trunk.in.rx", 2}, {"trunk.in.tx", 2}, {"web.ingress.rx", 2}, {"web.ingress.connection_closed", 2}}));
  EXPECT_EQ(delivered({part(0x04, 304, 9999, 3), part(0x04, 0, 304, 3)}), 2U);
  EXPECT_EQ(world.worker.connections.size(), 0U);
  EXPECT_EQ(delivered({part(0x02, 304, 9999, 4), part(0x02, 0, 304, 4)}), 2U);
  EXPECT_EQ(world.worker.connections.size(), 1U);
}

TEST_F(FragmentsTest, ALaterOneConfirmsNoHandshake) {
  const auto state = [&] {
    ConnectionState found = ConnectionState::free;
    world.worker.connections.for_each([&](const Connection& connection) { found = connection.state; });
    return found;
  };
  const Frame syn = tcp_segment(7000, 80, 0x02, 600);
  const auto part = [&](std::size_t begin, std::size_t end, bool more) {
    return piece4(101, kWebMac, "198.51.100.9", "10.0.0.35", 6, syn, begin, end, 1, more);
  };
  EXPECT_EQ(delivered({part(0, 304, true)}), 1U);
  EXPECT_EQ(state(), ConnectionState::syn_sent);
  world.from_task(0, {ip_packet({mac(kRouterMac), mac(kWebMac), -1}, ip("10.0.0.35"), ip("198.51.100.9"), 6,
                                tcp_segment(80, 7000, 0x12))});
  EXPECT_EQ(state(), ConnectionState::syn_received);
  EXPECT_EQ(delivered({part(304, 600, true)}), 1U);
  EXPECT_EQ(state(), ConnectionState::syn_received) << "it carries no ACK";
}

TEST_F(FragmentsTest, ALaterOneIsNeverTakenForATransportHeader) {
  // Its first bytes spell an allowed port.
  Frame lie = whole;
  std::copy(whole.begin(), whole.begin() + 8, lie.begin() + 1480);
  EXPECT_EQ(delivered({piece4(101, kWebMac, "198.51.100.9", "10.0.0.35", 17, lie, 1480, 2960, 9, true)}), 0U);
  EXPECT_EQ(world.worker.connections.size(), 0U);
  EXPECT_EQ(waiting(), 1);
  world.pass(FragmentTable::kHold);
  sweep();
  EXPECT_EQ(moved("web.ingress.fragment_orphan"), 1U);
  EXPECT_TRUE(world.worker.fragments.empty());
}

TEST_F(FragmentsTest, OutOfOrderIsHeldBrieflyAndBounded) {
  EXPECT_EQ(delivered({piece(2960, 9999), piece(1480, 2960)}), 0U);
  EXPECT_EQ(waiting(), 2);
  const auto out = world.from_trunk({piece(0, 1480)});
  ASSERT_EQ(out.task.at("web").size(), 3U);
  EXPECT_EQ(out.task.at("web")[0].size(), 14U + 20 + 1480) << "the first goes first";
  EXPECT_EQ(world.movements(), (Movements{{"trunk.in.rx", 3}, {"trunk.in.tx", 3}, {"web.ingress.rx", 3}, {"web.ingress.tx", 3}}));
  EXPECT_TRUE(world.worker.fragments.empty());
  // One more than may wait.
  for (std::size_t n = 1; n <= FragmentedDatagram::kMaxHeld + 1; ++n) delivered({piece(n * 160, n * 160 + 160, 3)});
  EXPECT_EQ(waiting(), FragmentedDatagram::kMaxHeld);
  world.pass(FragmentTable::kHold);
  sweep();
  EXPECT_EQ(moved("web.ingress.fragment_orphan"), FragmentedDatagram::kMaxHeld + 1);
  EXPECT_EQ(delivered({piece(0, 160, 3)}), 1U) << "a first fragment by itself is no secret";
}

TEST_F(FragmentsTest, OverlapCostsTheDatagramAndACopyDoesNot) {
  EXPECT_EQ(delivered({piece(0, 1480), piece(1480, 2960)}), 2U);
  EXPECT_EQ(delivered({piece(1480, 2960)}), 1U) << "an exact copy";
  EXPECT_EQ(delivered({piece(0, 1480)}), 1U);
  world.movements();
  EXPECT_EQ(delivered({piece(1472, 2952)}), 0U);
  EXPECT_EQ(moved("web.ingress.fragment_overlap"), 1U);
  EXPECT_EQ(delivered({piece(2960, 9999)}), 0U) << "and what comes after";
  EXPECT_EQ(moved("web.ingress.fragment_overlap"), 1U);
  // With a piece held: it goes too.
  delivered({piece(1480, 2960, 4)});
  delivered({piece(2952, 9999, 4)});
  EXPECT_EQ(moved("web.ingress.fragment_overlap"), 2U);
  // A piece behind the end, and a second end.
  EXPECT_EQ(delivered({piece(0, 1480, 5)}), 1U);
  EXPECT_EQ(delivered({piece4(101, kWebMac, "198.51.100.9", "10.0.0.35", 17, whole, 1480, 2000, 5, false)}), 1U);
  EXPECT_EQ(delivered({piece(2960, 9999, 6), piece4(101, kWebMac, "198.51.100.9", "10.0.0.35", 17, whole, 1480, 2000, 6, false)}), 0U);
}

// Its number goes to another ENI at once, whose meters begin then.
TEST_F(FragmentsTest, AnEniThatGoesTakesWhatItHeldAlong) {
  delivered({piece(1480, 2960), piece(1480, 2960, 2)});
  EXPECT_EQ(waiting(), 2);
  ++world.generations[0];
  world.publish();
  const MeterReading start = MeterReading::of(world.worker.meters[0].ingress);
  delivered({piece(1480, 2960)});  // one of its own, of the same name
  EXPECT_EQ(MeterReading::of(world.worker.meters[0].ingress).since(start).unaccounted(), 1);
  EXPECT_EQ(delivered({piece(0, 1480)}), 2U) << "and not those of the one before";
  sweep();
  world.pass(FragmentTable::kHold);
  sweep();
  const MeterReading since = MeterReading::of(world.worker.meters[0].ingress).since(start);
  EXPECT_EQ(since.unaccounted(), 0);
  EXPECT_EQ(since.dropped(), 0U);
  EXPECT_EQ(world.worker.fragments.size(), 1U) << "its own, which is not whole";
}

// What is refused has its own share, and is soon forgotten.
TEST_F(FragmentsTest, RefusedFirstFragmentsTakeNoPlaceOfOthers) {
  EXPECT_EQ(delivered({piece(0, 1480)}), 1U);
  const auto no_port = [&](std::uint16_t id) { return piece4(101, kWebMac, "198.51.100.9", "10.0.0.35", 17, refused, 0, 1480, id, true); };
  for (std::uint16_t id = 100; id < 100 + 4 * FragmentTable::kQuota; ++id) delivered({no_port(id)});
  EXPECT_EQ(world.worker.fragments.size(), FragmentTable::kQuota + 1);
  EXPECT_EQ(delivered({piece(1480, 2960)}), 1U);
  world.pass(FragmentTable::kRefused);
  sweep();
  EXPECT_EQ(world.worker.fragments.size(), 1U);
  EXPECT_EQ(delivered({piece(2960, 9999)}), 1U);
  EXPECT_TRUE(world.worker.fragments.empty());
}

TEST_F(FragmentsTest, TinyAndImpossiblePieces) {
  const Frame segment = tcp_segment(40000, 80, 2, 100);
  const auto tcp_piece = [&](std::size_t begin, std::size_t end) {
    return piece4(101, kWebMac, "198.51.100.9", "10.0.0.35", 6, segment, begin, end, 1, true);
  };
  EXPECT_EQ(delivered({tcp_piece(0, 16)}), 0U);
  EXPECT_EQ(moved("web.ingress.fragment_tiny"), 1U) << "the flags would come in the second";
  EXPECT_EQ(delivered({tcp_piece(8, 32)}), 0U);
  EXPECT_EQ(moved("web.ingress.fragment_tiny"), 1U) << "would bring the flags anew";
  EXPECT_EQ(delivered({piece4(101, kWebMac, "198.51.100.9", "10.0.0.35", 17, whole, 0, 1477, 1, true)}), 0U);
  EXPECT_EQ(moved("web.ingress.malformed"), 1U) << "no multiple of eight";
  Frame beyond = piece4(101, kWebMac, "198.51.100.9", "10.0.0.35", 17, whole, 0, 1480, 1, false);
  beyond[18 + 6] = 0x1f, beyond[18 + 7] = 0xff;
  EXPECT_EQ(delivered({beyond}), 0U);
  EXPECT_EQ(moved("web.ingress.malformed"), 1U) << "ends beyond 65535";
  EXPECT_TRUE(world.worker.fragments.empty());
}

TEST_F(FragmentsTest, AFloodCostsItsOwnerAlone) {
  EXPECT_EQ(world.from_trunk({piece4(102, kAppMac, "198.51.100.9", "10.0.0.36", 17, whole, 0, 1480, 1, true)}).task["app"].size(), 1U);
  for (std::uint16_t id = 1; id <= 3 * FragmentTable::kQuota; ++id) delivered({piece(1480, 2960, id)});
  EXPECT_EQ(world.worker.fragments.size(), FragmentTable::kQuota + 1);
  EXPECT_EQ(waiting(), FragmentTable::kQuota);
  EXPECT_EQ(world.from_trunk({piece4(102, kAppMac, "198.51.100.9", "10.0.0.36", 17, whole, 1480, 2960, 1, true)}).task["app"].size(), 1U);
  world.pass(FragmentTable::kHold);
  sweep();
  const Movements moved = world.movements();
  EXPECT_EQ(moved.at("web.ingress.fragment_quota"), 2 * FragmentTable::kQuota);
  EXPECT_EQ(moved.at("web.ingress.fragment_orphan"), FragmentTable::kQuota);
  EXPECT_EQ(world.worker.fragments.size(), 1U);
  world.pass(FragmentTable::kLife4);
  sweep();
  EXPECT_TRUE(world.worker.fragments.empty());
}

TEST_F(FragmentsTest, PingInPiecesBelongsToItsQuery) {
  const Frame echo = icmp_message(8, 0, 77, 3000);
  const auto part = [&](std::size_t begin, std::size_t end) {
    return piece4(101, kWebMac, "198.51.100.9", "10.0.0.35", 1, echo, begin, std::min(end, echo.size()), 1, end < echo.size());
  };
  EXPECT_EQ(delivered({part(0, 1480), part(1480, 2960), part(2960, 9999)}), 3U);
  EXPECT_EQ(world.worker.connections.size(), 1U);
}

TEST_F(FragmentsTest, Ipv6) {
  const auto part = [&](std::size_t begin, std::size_t end, std::uint32_t id) {
    Frame payload{17, 0};
    put16(payload, static_cast<std::uint16_t>(begin | (end < whole.size() ? 1 : 0)));
    put16(payload, static_cast<std::uint16_t>(id >> 16));
    put16(payload, static_cast<std::uint16_t>(id));
    payload.insert(payload.end(), whole.begin() + static_cast<std::ptrdiff_t>(begin),
                   whole.begin() + static_cast<std::ptrdiff_t>(std::min(end, whole.size())));
    return ip_packet({mac(kWebMac), mac(kRouterMac), 101}, ip("2001:db8:1::9"), ip("2001:db8::35"), 44, payload);
  };
  EXPECT_EQ(delivered({part(1480, 2960, 0x10002)}), 0U);
  EXPECT_EQ(delivered({part(1480, 2960, 0x20002)}), 0U) << "another datagram";
  EXPECT_EQ(delivered({part(0, 1480, 0x10002), part(2960, 9999, 0x10002)}), 3U);
  EXPECT_EQ(world.worker.connections.size(), 1U);
  EXPECT_EQ(world.worker.fragments.size(), 1U);
  // All of a datagram in one "fragment" is no fragment (RFC 6946).
  EXPECT_EQ(delivered({part(0, 9999, 7)}), 1U);
  EXPECT_EQ(world.worker.fragments.size(), 1U);
  world.pass(FragmentTable::kHold);
  sweep();
  EXPECT_EQ(moved("web.ingress.fragment_orphan"), 1U);
}

TEST_F(FragmentsTest, BetweenTwoTasksOfThisHost) {
  world.tasks[1].groups[0].egress = {everything()};
  world.publish();
  const auto part = [&](std::size_t begin, std::size_t end) {
    Frame frame = piece4(0, kWebMac, "10.0.0.36", "10.0.0.35", 17, whole, begin, std::min(end, whole.size()), 1, end < whole.size());
    frame.erase(frame.begin() + 12, frame.begin() + 16);
    std::memcpy(&frame[6], mac(kAppMac).bytes.data(), 6);
    return frame;
  };
  EXPECT_EQ(world.from_task(1, {part(1480, 9999)}).task["web"].size(), 0U);
  EXPECT_EQ(world.from_task(1, {part(0, 1480)}).task["web"].size(), 2U);
  EXPECT_EQ(world.worker.connections.size(), 2U);
  EXPECT_TRUE(world.worker.fragments.empty());
}

}  // namespace
}  // namespace trunkline::test
