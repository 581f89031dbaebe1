// SPDX-License-Identifier: BSD-3-Clause
// What somebody who looks at a worker's packets sees of each: the frame as it came and as it left, what the stages found, and where
// it was refused; what a filter leaves out, what a full ring loses; and that looking changes nothing.
#include "dataplane/state/observer.h"

#include <gtest/gtest.h>

#include "control/packet_filter.h"
#include "tests/support/world.h"

namespace trunkline::test {
namespace {

constexpr std::uint8_t kSyn = 0x02, kSynAck = 0x12, kAck = 0x10;
const MacAddress kRouter = mac("0a:00:00:00:00:01");
const MacAddress kA = mac("0a:00:00:00:00:0a"), kB = mac("0a:00:00:00:00:0b");

struct Seen {
  Observation what;
  Frame bytes;
};

class ObserveTest : public ::testing::Test {
 protected:
  ObserveTest() {
    config::SecurityGroup group;
    group.id = "sg-0000000a";
    group.ingress = {rule(6, 443, 443, {"198.51.100.0/24"}), rule(6, 80, 80, {"198.51.100.0/24", "10.0.0.0/24", "2001:db8::/32"})};
    group.egress = {everything()};
    World::Task task;
    task.name = "a", task.vlan = 101, task.mac = "0a:00:00:00:00:0a", task.addresses = {"10.0.0.10", "2001:db8:1::a"}, task.subnet6 = "2001:db8:1::/64";
    task.groups = {group};
    world.add(task);
    task.name = "b", task.vlan = 102, task.mac = "0a:00:00:00:00:0b", task.addresses = {"10.0.0.11"}, task.subnet6 = "";
    world.add(task);
  }
  ~ObserveTest() override { world.worker.observers = nullptr; }

  Observer& look(ObserverSettings settings) {
    observers.push_back(std::make_unique<Observer>(std::move(settings)));
    set.observers.push_back(observers.back().get());
    world.worker.observers = &set;
    return *observers.back();
  }
  static ObserverSettings at(std::initializer_list<Point> points) {
    ObserverSettings settings;
    settings.points = 0;
    for (const Point point : points) settings.points |= point_bit(point);
    return settings;
  }
  static std::vector<Seen> read(Observer& observer, std::size_t most = 1000) {
    std::vector<Seen> seen;
    observer.read(most, [&](const Observation& what, std::span<const std::uint8_t> bytes) { seen.push_back({what, {bytes.begin(), bytes.end()}}); });
    return seen;
  }

  Frame in(std::uint16_t port, std::uint8_t flags = kSyn, const char* source = "198.51.100.9", std::size_t data = 0) const {
    return ip_packet({kA, kRouter, 101}, ip(source), ip("10.0.0.10"), 6, tcp_segment(4000, port, flags, data));
  }
  Frame out_of_a(const char* destination, std::uint16_t port, std::uint8_t flags = kSyn, std::uint16_t from = 5000, std::size_t data = 0) const {
    return ip_packet({kRouter, kA, -1}, ip("10.0.0.10"), ip(destination), 6, tcp_segment(from, port, flags, data));
  }

  World world;
  std::vector<std::unique_ptr<Observer>> observers;
  ObserverSet set;
};

TEST_F(ObserveTest, APacketThatPassesAsItCameAndAsItLeft) {
  Observer& observer = look(at({Point::in, Point::out, Point::drop}));
  ASSERT_EQ(world.from_trunk({in(80)}).task.at("a").size(), 1U);
  const auto seen = read(observer);
  ASSERT_EQ(seen.size(), 2U);
  EXPECT_EQ(seen[0].what.point, Point::in);
  EXPECT_EQ(seen[0].bytes, in(80)) << "with its tag";
  EXPECT_EQ(seen[1].what.point, Point::out);
  EXPECT_EQ(seen[1].bytes, ip_packet({kA, kRouter, -1}, ip("198.51.100.9"), ip("10.0.0.10"), 6, tcp_segment(4000, 80, kSyn)));
  for (const Seen& each : seen) {
    EXPECT_EQ(each.what.frame_bytes, each.bytes.size());
    EXPECT_EQ(each.what.direction, Direction::ingress);
    EXPECT_EQ(each.what.endpoint, EndpointId{0});
    EXPECT_EQ(each.what.generation, 1U);
    EXPECT_EQ(each.what.verdict, DropReason::none);
    EXPECT_EQ(each.what.route, Route::task);
    EXPECT_EQ(each.what.stage, Stage::forward);
    EXPECT_TRUE(each.what.filtered && each.what.has_connection);
    EXPECT_FALSE(each.what.known);
    EXPECT_EQ(each.what.connection.rule, 1U);
    EXPECT_EQ(each.what.connection.state, ConnectionState::syn_sent);
    EXPECT_EQ(each.what.headers.vlan, 101U);
    EXPECT_EQ(each.what.key.local_port_number(), 80U);
  }
  // Its answer belongs to the connection, and goes out with a tag.
  ASSERT_EQ(world.from_task(0, {out_of_a("198.51.100.9", 4000, kSynAck, 80)}).trunk.size(), 1U);
  const auto answer = read(observer);
  ASSERT_EQ(answer.size(), 2U);
  EXPECT_TRUE(answer[0].what.known);
  EXPECT_EQ(answer[0].what.connection.state, ConnectionState::syn_received);
  EXPECT_EQ(answer[1].what.route, Route::trunk);
  EXPECT_EQ(answer[1].bytes, ip_packet({kRouter, kA, 101}, ip("10.0.0.10"), ip("198.51.100.9"), 6, tcp_segment(80, 4000, kSynAck)));
}

TEST_F(ObserveTest, EachStageIsNamedWhenItRefuses) {
  Observer& observer = look(at({Point::drop}));
  world.from_trunk({ethernet({kA, kRouter, 101}, 0x88cc), in(22), in(80),
                    ip_packet({kA, kRouter, 101}, ip("1.2.3.4"), ip("10.0.0.99"), 6, tcp_segment(1, 80, kSyn)),
                    ip_packet({kA, kRouter, 103}, ip("1.2.3.4"), ip("10.0.0.10"), 6, tcp_segment(1, 80, kSyn))});
  world.from_task(0, {arp_packet({mac("ff:ff:ff:ff:ff:ff"), kA, -1}, 1, kA, ip("10.0.0.77"), ip("10.0.0.1")),
                      out_of_a("198.51.100.9", 443, kAck, 5000, 9100)});
  const auto seen = read(observer);
  ASSERT_EQ(seen.size(), 6U);
  const auto expect = [&](std::size_t i, Stage stage, DropReason reason) {
    EXPECT_EQ(seen[i].what.point, Point::drop) << i;
    EXPECT_EQ(to_string(seen[i].what.stage), to_string(stage)) << i;
    EXPECT_EQ(text(seen[i].what.verdict).name, text(reason).name) << i;
  };
  expect(0, Stage::parse, DropReason::ethertype);
  expect(1, Stage::admit, DropReason::security_group_ingress);
  EXPECT_EQ(seen[1].bytes, in(22));
  EXPECT_FALSE(seen[1].what.has_connection);
  EXPECT_TRUE(seen[1].what.filtered);
  expect(2, Stage::demux, DropReason::dest_check);
  EXPECT_FALSE(seen[2].what.filtered);
  expect(3, Stage::demux, DropReason::unknown_eni);
  EXPECT_FALSE(seen[3].what.endpoint.is_valid());
  expect(4, Stage::edge, DropReason::arp_spoof);
  expect(5, Stage::forward, DropReason::mtu_exceeded);
  EXPECT_EQ(seen[5].what.frame_bytes, 9154U);
  EXPECT_EQ(seen[5].bytes.size(), 256U) << "no more than was asked for";
}

TEST_F(ObserveTest, BetweenTwoTasksItIsSeenInBothHalves) {
  Observer& observer = look(at({Point::in, Point::out, Point::drop}));
  world.from_task(0, {out_of_a("10.0.0.11", 80), out_of_a("10.0.0.11", 22)});
  const auto seen = read(observer);
  ASSERT_EQ(seen.size(), 8U);
  EXPECT_EQ(seen[0].what.route, Route::local);
  EXPECT_EQ(seen[0].what.peer, EndpointId{1});
  EXPECT_EQ(seen[0].what.direction, Direction::egress);
  EXPECT_EQ(seen[4].what.direction, Direction::ingress);
  EXPECT_EQ(seen[4].what.endpoint, EndpointId{1});
  EXPECT_EQ(seen[4].bytes, seen[1].bytes) << "what left the one half came to the other";
  EXPECT_EQ(seen[5].what.point, Point::out);
  EXPECT_EQ(seen[7].what.point, Point::drop);
  EXPECT_EQ(seen[7].what.verdict, DropReason::security_group_ingress);
  EXPECT_FALSE(seen[7].what.peer.is_valid());
}

TEST_F(ObserveTest, OneEndpointOneDirectionOneFilter) {
  ObserverSettings settings = at({Point::in});
  settings.endpoint = EndpointId{1}, settings.generation = 1;
  Observer& of_b = look(settings);
  settings.generation = 2;
  Observer& of_another = look(settings);
  settings = at({Point::in});
  settings.directions = 1U << index(Direction::egress);
  Observer& egress = look(settings);
  settings = at({Point::in});
  settings.filter = control::compile_filter("tcp dst port 80 and src net 198.51.100.0/24").value();
  Observer& filtered = look(settings);
  const Frame kept = in(80);
  world.from_trunk({kept, in(443), in(80, kSyn, "203.0.113.9"), ip_packet({kA, kRouter, 101}, ip("198.51.100.9"), ip("10.0.0.10"), 17, udp_datagram(1, 80))});
  world.from_task(0, {out_of_a("10.0.0.11", 80), out_of_a("192.0.2.1", 80)});
  EXPECT_EQ(read(of_b).size(), 1U);
  EXPECT_EQ(read(of_another).size(), 0U) << "an ENI that had the number before";
  EXPECT_EQ(read(egress).size(), 2U);
  const auto seen = read(filtered);
  ASSERT_EQ(seen.size(), 1U) << "the filter sees through the tag";
  EXPECT_EQ(seen[0].bytes, kept) << "and leaves it where it was";
}

TEST_F(ObserveTest, AFilterThatCannotBeIsRefused) {
  EXPECT_TRUE(control::compile_filter("").value().empty());
  EXPECT_TRUE(control::compile_filter("  ").value().empty());
  EXPECT_NE(control::compile_filter("tcp prot 80").error().find("is not one"), std::string::npos);
  EXPECT_NE(control::compile_filter("vlan 101").error().find("--task"), std::string::npos);
}

TEST_F(ObserveTest, AFullRingLosesCountsAndHoldsUpNobody) {
  ObserverSettings settings = at({Point::in});
  settings.capacity = 4;
  Observer& observer = look(settings);
  std::vector<Frame> frames(10, in(22));
  world.from_trunk(frames);
  EXPECT_EQ(observer.lost(), 6U);
  EXPECT_EQ(read(observer, 3).size(), 3U);
  world.from_trunk(frames);
  EXPECT_EQ(observer.lost(), 13U);
  EXPECT_EQ(read(observer).size(), 4U);
  EXPECT_EQ(world.movements().at("a.ingress.security_group_ingress"), 20U);
}

TEST_F(ObserveTest, AfterItsLimitItLooksNoMore) {
  ObserverSettings settings = at({Point::in});
  settings.limit = 3;
  Observer& observer = look(settings);
  world.from_trunk({in(22), in(22)});
  EXPECT_FALSE(observer.is_finished());
  world.from_trunk({in(22), in(22)});
  EXPECT_TRUE(observer.is_finished());
  EXPECT_EQ(read(observer).size(), 3U);
  EXPECT_EQ(observer.lost(), 0U);
}

TEST_F(ObserveTest, WhatAnEarlierPacketOfTheBurstOpenedIsKnown) {
  Observer& observer = look(at({Point::in}));
  world.from_trunk({in(80), in(80, kAck)});
  const auto seen = read(observer);
  ASSERT_EQ(seen.size(), 2U);
  EXPECT_FALSE(seen[0].what.known);
  EXPECT_TRUE(seen[1].what.known);
  world.pass(seconds(31));  // nobody answered: dead, though still in the table
  world.from_trunk({in(80)});
  EXPECT_FALSE(read(observer).at(0).what.known);
}

TEST_F(ObserveTest, LookingChangesNothing) {
  World other;
  for (const World::Task& task : world.tasks) other.add(task);
  look(at({Point::in, Point::out, Point::drop}));
  const std::vector<Frame> from_trunk{in(80), in(22), in(80, kAck), ethernet({kA, kRouter, 101}, 0x88cc), in(443, kSyn, "198.51.100.9", 8000)};
  const std::vector<Frame> from_a{out_of_a("10.0.0.11", 80), out_of_a("192.0.2.1", 80), out_of_a("192.0.2.1", 80, kAck, 5000, 9100),
                                  arp_packet({mac("ff:ff:ff:ff:ff:ff"), kA, -1}, 1, kA, ip("10.0.0.10"), ip("10.0.0.11"))};
  const auto in_watched = world.from_trunk(from_trunk), in_unwatched = other.from_trunk(from_trunk);
  const auto out_watched = world.from_task(0, from_a), out_unwatched = other.from_task(0, from_a);
  EXPECT_EQ(in_watched.task, in_unwatched.task);
  EXPECT_EQ(out_watched.trunk, out_unwatched.trunk);
  EXPECT_EQ(out_watched.task, out_unwatched.task);
  EXPECT_EQ(world.movements(), other.movements());
}

TEST(ObserverSlot, ASetIsFreeWhenTheWorkerGoesByAnother) {
  ObserverSlot slot;
  const ObserverSet first, second;
  slot.post(&first);
  EXPECT_TRUE(slot.is_used(&first));
  EXPECT_TRUE(slot.has_news());
  EXPECT_EQ(slot.take(), &first);
  EXPECT_FALSE(slot.has_news());
  slot.post(&second);
  EXPECT_TRUE(slot.is_used(&first)) << "until the worker has seen it";
  slot.take();
  EXPECT_FALSE(slot.is_used(&first));
  slot.post(nullptr);
  slot.take();
  EXPECT_FALSE(slot.is_used(&second));
}

}  // namespace
}  // namespace trunkline::test
