// SPDX-License-Identifier: BSD-3-Clause
// What the worker tells flow logs: every packet that the rules passed or refused is in one record, once, or counted as lost.
#include "dataplane/state/flow_recorder.h"

#include <gtest/gtest.h>

#include <random>

#include "tests/support/world.h"

namespace trunkline::test {
namespace {

constexpr char kWebMac[] = "0a:47:e4:7a:2b:02", kRouterMac[] = "0a:00:00:00:00:01";
constexpr std::uint8_t kSyn = 0x02, kAck = 0x10, kSynAck = 0x12, kFinAck = 0x11, kRst = 0x04;

class FlowRecorderTest : public ::testing::Test {
 protected:
  void SetUp() override {
    World::Task web;
    web.name = "web";
    web.vlan = 101;
    web.mac = kWebMac;
    web.addresses = {"10.0.0.35"};
    config::SecurityGroup group;
    group.id = "sg-1";
    group.ingress = {rule(6, 80, 80, {"198.51.100.0/24"}), rule(1, 3, 4, {"0.0.0.0/0"})};
    web.groups = {group};
    world.flow_logs = true;
    world.add(web);
  }
  Frame in(std::uint16_t from, std::uint16_t to, std::uint8_t flags, std::size_t data = 0) const {
    return ip_packet({mac(kWebMac), mac(kRouterMac), 101}, ip("198.51.100.9"), ip("10.0.0.35"), 6, tcp_segment(from, to, flags, data));
  }
  Frame out(std::uint16_t from, std::uint16_t to, std::uint8_t flags, std::size_t data = 0) const {
    return ip_packet({mac(kRouterMac), mac(kWebMac), -1}, ip("10.0.0.35"), ip("198.51.100.9"), 6, tcp_segment(from, to, flags, data));
  }

  World world;
};

TEST_F(FlowRecorderTest, AConnectionIsOneRecordAnInterval) {
  world.pass(100);
  world.from_trunk({in(40000, 80, kSyn)});
  world.pass(2);
  world.from_task(0, {out(80, 40000, kSynAck)});
  world.pass(3);
  world.from_trunk({in(40000, 80, kAck, 100)});
  auto records = world.end_interval();
  ASSERT_EQ(records.size(), 1U);
  const FlowRecord& record = records[0];
  EXPECT_EQ(record.action, FlowAction::accept);
  EXPECT_EQ(record.remote(), ip("198.51.100.9"));
  EXPECT_EQ(record.local(), ip("10.0.0.35"));
  EXPECT_EQ(record.remote_port(), 40000);
  EXPECT_EQ(record.local_port(), 80);
  EXPECT_EQ(record.way[0].packets, 2U);
  EXPECT_EQ(record.way[0].bytes, 40U + 140);
  EXPECT_EQ(record.way[0].first, 100U);
  EXPECT_EQ(record.way[0].last, 105U);
  EXPECT_EQ(record.way[0].tcp_flags, 2) << "an ACK alone is not recorded";
  EXPECT_EQ(record.way[1].packets, 1U);
  EXPECT_EQ(record.way[1].first, 102U);
  EXPECT_EQ(record.way[1].tcp_flags, 18);
  EXPECT_TRUE(world.end_interval().empty()) << "no traffic, no record";
  world.from_trunk({in(40000, 80, kFinAck)});
  records = world.end_interval();
  ASSERT_EQ(records.size(), 1U);
  EXPECT_EQ(records[0].way[0].packets, 1U);
  EXPECT_EQ(records[0].way[0].tcp_flags, 1);
  EXPECT_EQ(records[0].way[1].packets, 0U);
}

TEST_F(FlowRecorderTest, RefusedPacketsAreRecordsOfTheirOwn) {
  world.from_trunk({in(40000, 22, kSyn), in(40000, 22, kSyn), in(40001, 22, kSyn)});
  world.from_task(0, {out(50000, 443, kSyn)});
  const auto records = world.end_interval();
  ASSERT_EQ(records.size(), 3U);
  std::uint64_t packets[2] = {};
  for (const FlowRecord& record : records) {
    EXPECT_EQ(record.action, FlowAction::reject);
    for (const int way : {0, 1}) packets[way] += record.way[way].packets;
  }
  EXPECT_EQ(packets[0], 3U);
  EXPECT_EQ(packets[1], 1U);
}

TEST_F(FlowRecorderTest, WhatOpensNoConnectionIsAcceptedAllTheSame) {
  Frame error = icmp_message(3, 4, 0, 28);
  world.from_trunk({ip_packet({mac(kWebMac), mac(kRouterMac), 101}, ip("192.0.2.1"), ip("10.0.0.35"), 1, error)});
  world.from_trunk({in(41000, 80, kRst)});
  EXPECT_EQ(world.worker.connections.size(), 0U);
  const auto records = world.end_interval();
  ASSERT_EQ(records.size(), 2U);
  for (const FlowRecord& record : records) EXPECT_EQ(record.action, FlowAction::accept);
}

TEST_F(FlowRecorderTest, WhatEndsIsToldAtOnce) {
  world.from_trunk({in(40000, 80, kSyn)});
  world.pass(seconds(31));
  world.worker.connections.sweep(100, world.worker.now, *world.view);
  auto records = world.records();
  ASSERT_EQ(records.size(), 1U) << "without an end of the interval";
  EXPECT_EQ(records[0].way[0].packets, 1U);
  // Used again by a flow of the same name.
  for (const std::uint8_t flags : {kSyn, kRst, kSyn}) world.from_trunk({in(40000, 80, flags)});
  records = world.records();
  ASSERT_EQ(records.size(), 1U);
  EXPECT_EQ(records[0].way[0].packets, 2U);
  EXPECT_EQ(records[0].way[0].tcp_flags, 6);
  // Detached: by the old generation.
  ++world.generations[0];
  world.publish();
  world.worker.connections.sweep(100, world.worker.now, *world.view);
  records = world.records();
  ASSERT_EQ(records.size(), 1U);
  EXPECT_EQ(records[0].key.generation(), 1);
}

TEST_F(FlowRecorderTest, AFullRingWaitsOrCounts) {
  World big(30000);
  big.flow_logs = true;
  big.add(world.tasks[0]);
  for (std::uint32_t n = 0; n < 10000; ++n) big.from_trunk({in(static_cast<std::uint16_t>(n + 1024), 80, kSyn)}), big.mbufs = {};
  EXPECT_EQ(big.worker.connections.size(), 7500U) << "unanswered ones make room for each other";
  EXPECT_EQ(big.worker.flows.lost(EndpointId{0}), 0U);
  std::uint64_t told = 0;
  for (const FlowRecord& record : big.records()) told += record.way[0].packets;
  for (const FlowRecord& record : big.end_interval()) told += record.way[0].packets;
  EXPECT_EQ(told, 10000U);
  // With nobody reading, what cannot wait is lost and counted; the rest stays with its connection.
  for (std::uint32_t n = 0; n < 20000; ++n) big.from_trunk({in(static_cast<std::uint16_t>(n + 1024), 80, kSyn)}), big.mbufs = {};
  const std::uint64_t lost = big.worker.flows.lost(EndpointId{0});
  EXPECT_GT(lost, 1000U);
  told = 0;
  for (const FlowRecord& record : big.records()) told += record.way[0].packets;
  for (const FlowRecord& record : big.end_interval()) told += record.way[0].packets;
  EXPECT_EQ(told + lost, 20000U);
}

// Of as many as may wait for an answer the oldest make room in the very burst in which they ask again.
TEST_F(FlowRecorderTest, APacketWhoseConnectionMakesRoomIsToldOnce) {
  constexpr std::uint16_t kMayWait = 64;
  World small(256);
  small.flow_logs = true;
  small.add(world.tasks[0]);
  // Two entries that will be free: what is freed after them is in their list.
  for (const std::uint16_t port : {3000, 3001}) {
    small.from_trunk({in(port, 80, kSyn)});
    small.from_task(0, {out(80, port, kSynAck)});
  }
  for (std::uint16_t n = 0; n < kMayWait - 2; ++n) small.from_trunk({in(1024 + n, 80, kSyn)});
  small.worker.connections.sweep(512, small.worker.now, *small.view, [&](Connection& connection, const Endpoint&) {
    if (connection.state == ConnectionState::syn_received) small.worker.connections.erase(&connection);
  });
  for (std::uint16_t n = kMayWait - 2; n < kMayWait; ++n) small.from_trunk({in(1024 + n, 80, kSyn)});
  EXPECT_EQ(small.worker.connections.size(), kMayWait);
  EXPECT_EQ(small.worker.connections.recycled(), 0U);
  EXPECT_EQ(small.records().size() + small.end_interval().size(), kMayWait + 2U);
  const auto told = [&] {
    std::map<std::uint16_t, std::uint64_t> packets;
    for (const auto& records : {small.records(), small.end_interval()}) {
      for (const FlowRecord& record : records) packets[record.remote_port()] += record.way[0].packets;
    }
    return packets;
  };
  using Told = std::map<std::uint16_t, std::uint64_t>;
  EXPECT_EQ(small.from_trunk({in(1024, 80, kSyn), in(1025, 80, kSyn), in(2000, 80, kSyn), in(2001, 80, kSyn)}).task["web"].size(), 4U);
  EXPECT_EQ(small.worker.connections.recycled(), 2U);
  EXPECT_EQ(told(), (Told{{1024, 1}, {1025, 1}, {2000, 1}, {2001, 1}}));
  // The other way round they open anew, and others make room.
  EXPECT_EQ(small.from_trunk({in(2002, 80, kSyn), in(2003, 80, kSyn), in(1026, 80, kSyn), in(1027, 80, kSyn)}).task["web"].size(), 4U);
  EXPECT_EQ(small.worker.connections.recycled(), 6U);
  EXPECT_EQ(told(), (Told{{2002, 1}, {2003, 1}, {1026, 1}, {1027, 1}}));
  EXPECT_EQ(small.worker.connections.size(), kMayWait);
}

// A record is made where an older one was.
TEST(FlowRecorder, NothingOfAnOlderRecordIsLeft) {
  FlowRecorder recorder(16, 1024);
  recorder.on = true;
  recorder.now = 50;
  Connection six = Connection::of({});
  six.key.owner = FlowKey::owner_of(EndpointId{3}, 1) | FlowKey::kIpv6 | FlowKey::protocol_bits(17);
  six.rule = kAuditedRule;
  const AddressPair addresses{ip("2001:db8::1"), ip("2001:db8::2")};
  for (std::uint32_t n = 0; n < FlowRecorder::kLeastRing; ++n) {
    for (auto& totals : six.totals) totals = {1000, 10, 1, 2};
    ASSERT_TRUE(recorder.interval_ended(six, &addresses));
    recorder.flush();
    const FlowRecord& record = recorder.ring().front();
    EXPECT_TRUE(record.audited);
    EXPECT_EQ(record.remote(), addresses.remote);
    recorder.ring().drop(1);
  }
  Connection four = Connection::of({});
  four.key.owner = FlowKey::owner_of(EndpointId{3}, 1) | FlowKey::protocol_bits(6);
  four.key.remote = __builtin_bswap32(0xc6336409);
  four.totals[1] = {40 | std::uint64_t{2} << Connection::Totals::kFlagsShift, 1, 49, 49};
  ASSERT_TRUE(recorder.interval_ended(four, nullptr));
  recorder.flush();
  ASSERT_EQ(recorder.ring().ready(), 1U);
  const FlowRecord& record = recorder.ring().front();
  EXPECT_FALSE(record.audited);
  EXPECT_EQ(record.action, FlowAction::accept);
  EXPECT_EQ(record.remote(), ip("198.51.100.9"));
  EXPECT_EQ(record.way[0].packets + record.way[0].bytes + record.way[0].tcp_flags, 0U);
  EXPECT_EQ(record.way[1].packets, 1U);
  EXPECT_EQ(record.way[1].bytes, 40U);
  EXPECT_EQ(record.way[1].tcp_flags, 2);
  EXPECT_EQ(record.way[1].last, 49U);
}

TEST_F(FlowRecorderTest, LooseFlowsAreBounded) {
  constexpr std::uint32_t kPlaces = LooseFlows::kLeastPlaces;  // this world is small
  for (std::uint32_t n = 0; n < 3 * kPlaces; ++n) {
    world.from_trunk({in(static_cast<std::uint16_t>(n), 22, kSyn)}), world.mbufs = {};
  }
  std::uint64_t told = 0;
  for (const FlowRecord& record : world.end_interval()) told += record.way[0].packets;
  EXPECT_EQ(told, kPlaces / 4 * 3 / 8 * 7) << "all but the share of a newcomer";
  EXPECT_EQ(told + world.worker.flows.lost(EndpointId{0}), 3 * kPlaces);
  world.from_trunk({in(1, 22, kSyn)});
  EXPECT_EQ(world.end_interval().size(), 1U);
}

// A scan of one task hides its own lines only.
TEST_F(FlowRecorderTest, ANeighboursRefusalsAreAllTold) {
  LooseFlows flows(LooseFlows::kLeastPlaces);
  flows.share_among(8);  // 24 lines each
  const std::uint64_t seed = std::random_device{}();
  SCOPED_TRACE(seed);
  std::mt19937_64 random(seed);
  const auto add = [&](std::uint16_t endpoint) {
    FlowKey key;
    key.remote = static_cast<std::uint32_t>(random());
    key.owner = FlowKey::owner_of(EndpointId{endpoint}, 1) | FlowKey::protocol_bits(6);
    FlowRecord* const record = flows.find_or_add(key, random(), {}, FlowAction::reject);
    if (record != nullptr) record->way[0].packets = 1;
    return record != nullptr;
  };
  std::uint32_t scanned = 0;
  for (int i = 0; i < 7 * 8000; ++i) scanned += add(static_cast<std::uint16_t>(i % 7));
  EXPECT_GT(scanned, LooseFlows::kLeastPlaces / 2);
  for (int i = 0; i < 24; ++i) EXPECT_TRUE(add(7)) << i;
}

TEST_F(FlowRecorderTest, NobodyAsksNothingIsKept) {
  world.flow_logs = false;
  world.publish();
  world.from_trunk({in(40000, 80, kSyn), in(40000, 22, kSyn)});
  EXPECT_TRUE(world.end_interval().empty());
}

TEST(TokenBucket, FollowsItsRate) {
  TokenBucket bucket;
  std::uint64_t now = 123456789, passed = 0;
  for (int step = 0; step < 10000; ++step, now += 100) passed += bucket.take(1000, 1000000, 18002, now) ? 1000 : 0;
  // One second at a million a second, and a bucket that was full.
  EXPECT_NEAR(static_cast<double>(passed), 1e6 + 50000, 2000);
  EXPECT_FALSE(bucket.take(18003, 1, 18002, now + 100000000)) << "never more than it holds";
  EXPECT_TRUE(bucket.take(10, 1000000, 18002, now + 200000000));
}

TEST_F(FlowRecorderTest, LimitsDropBeforeTheLogCounts) {
  world.tasks[0].limits.packets[0] = 10;
  world.publish();
  world.from_trunk({in(40000, 80, kSyn)});
  for (int n = 0; n < 9; ++n) world.from_trunk({in(40000, 80, kAck, 10)});
  auto moved = world.movements();
  EXPECT_EQ(moved.at("web.ingress.tx"), 2U);
  EXPECT_EQ(moved.at("web.ingress.pps_allowance_exceeded"), 8U);
  world.pass(1);
  world.from_trunk({in(40000, 80, kAck, 10), in(40000, 80, kAck, 10)});
  moved = world.movements();
  EXPECT_EQ(moved.at("web.ingress.tx"), 1U);
  const auto records = world.end_interval();
  ASSERT_EQ(records.size(), 1U);
  EXPECT_EQ(records[0].way[0].packets, 3U);
  // Octets, the other way.
  world.tasks[0].limits = {};
  world.tasks[0].limits.bytes[1] = 1000;
  world.publish();
  std::size_t sent = 0;
  for (int n = 0; n < 30; ++n) sent += world.from_task(0, {out(80, 40000, kAck, 960)}).trunk.size();
  EXPECT_EQ(sent, 18U) << "two of the largest packets' worth";
  EXPECT_EQ(world.movements().at("web.egress.bw_out_allowance_exceeded"), 12U);
  world.pass(10);
  EXPECT_EQ(world.from_task(0, {out(80, 40000, kAck, 960), out(80, 40000, kAck, 960)}).trunk.size(), 1U);
}

}  // namespace
}  // namespace trunkline::test
