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
  EXPECT_NE(control::compile_filter("tcp prot 80").error().find("the word \"prot\""), std::string::npos);
  EXPECT_NE(control::compile_filter("tcp port").error().find("is not one"), std::string::npos);
  // What would be looked up in the DNS, or would hold the control thread for long.
  EXPECT_NE(control::compile_filter("host example.com").error().find("write the address"), std::string::npos);
  EXPECT_NE(control::compile_filter("gateway example.com").error().find("write the address"), std::string::npos);
  EXPECT_NE(control::compile_filter("net example").error().find("write the address"), std::string::npos);
  std::string many = "tcp port 1";
  for (int port = 2; port <= 100; ++port) many += " or tcp port " + std::to_string(port);
  EXPECT_NE(control::compile_filter(many).error().find("at most 1024"), std::string::npos);
  many = "port 1";
  for (int port = 2; port <= 70; ++port) many += " or port " + std::to_string(port);
  EXPECT_NE(control::compile_filter(many).error().find("at most 768 are run"), std::string::npos);
  for (const char* const good :
       {"host 10.0.0.35", "net 10.0.0.0/8 and tcp[tcpflags] & (tcp-syn|tcp-fin) != 0", "ip6 host fe80::1",
        "port domain", "ether host 0a:00:00:00:00:0a", "icmp[icmptype] == icmp-echo", "ip proto \\tcp",
        "len > 100 && !arp", "ip[8] < 5", "udp portrange 1000-2000", "src net 198.51.100.0 mask 255.255.255.0"}) {
    EXPECT_TRUE(control::compile_filter(good)) << good << ": " << control::compile_filter(good).error();
  }
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

// One of 16 octets, of a datagram to port 80 from a port of its own.
class HeldFragments : public ObserveTest {
 protected:
  Frame piece(std::size_t offset, bool last, std::uint16_t identification = 7) const {
    Frame datagram = udp_datagram(4000, 443, 24);
    Frame frame = ip_packet({kA, kRouter, 101}, ip("198.51.100.9"), ip("10.0.0.10"), 17, Frame(datagram.begin() + static_cast<long>(offset), datagram.begin() + static_cast<long>(offset + 16)), false);
    frame[18 + 5] = static_cast<std::uint8_t>(identification);
    frame[18 + 6] = last ? 0 : 0x20, frame[18 + 7] = static_cast<std::uint8_t>(offset / 8);
    return frame;
  }
  static std::string story(const std::vector<Seen>& seen) {
    std::string text;
    for (const Seen& each : seen) {
      const Observation& what = each.what;
      text += std::string(to_string(what.point)) + (what.fate == Fate::held ? " held" : what.fate == Fate::dropped ? " " + std::string(trunkline::text(what.verdict).name) : "") + "; ";
    }
    return text;
  }
};

TEST_F(HeldFragments, IsSeenWhenItIsHeldWhenItGoesOnAndAsItLeaves) {
  config::SecurityGroup group;
  group.id = "sg-0000000b";
  group.ingress = {rule(17, 443, 443, {"198.51.100.0/24"})};
  world.tasks[0].groups = {group};
  world.publish();
  Observer& all = look(at({Point::in, Point::again, Point::out, Point::drop}));
  Observer& out = look(at({Point::out}));
  world.from_trunk({piece(16, true)});
  auto seen = read(all);
  ASSERT_EQ(story(seen), "in held; ");
  EXPECT_EQ(seen[0].bytes, piece(16, true));
  EXPECT_EQ(seen[0].what.stage, Stage::fragments);
  EXPECT_EQ(seen[0].what.endpoint, EndpointId{0});
  EXPECT_TRUE(read(out).empty());
  world.from_trunk({piece(0, false)});
  seen = read(all);
  ASSERT_EQ(story(seen), "in; out; again; out; ");
  EXPECT_EQ(seen[2].bytes, piece(16, true));
  EXPECT_EQ(seen[3].what.key.local_port_number(), 443U) << "with the ports of its first one";
  EXPECT_EQ(read(out).size(), 2U);
}

TEST_F(HeldFragments, EndsInTheSweepBeforeTheEyesOfWhoLooks) {
  Observer& all = look(at({Point::in, Point::again, Point::out, Point::drop}));
  ObserverSettings settings = at({Point::drop});
  settings.endpoint = EndpointId{0}, settings.generation = 1;
  Observer& of_a = look(settings);
  settings.endpoint = EndpointId{1};
  Observer& of_b = look(settings);
  world.from_trunk({piece(16, true)});
  world.pass(FragmentTable::kHold);
  sweep_fragments(world.worker, FragmentTable::kCapacity);
  ASSERT_EQ(story(read(all)), "in held; drop fragment_orphan; ");
  const auto seen = read(of_a);
  ASSERT_EQ(seen.size(), 1U);
  EXPECT_EQ(seen[0].bytes, piece(16, true));
  EXPECT_EQ(seen[0].what.stage, Stage::fragments);
  EXPECT_TRUE(read(of_b).empty());
  // Also by another piece that overlaps it, and by its ENI's quota.
  world.from_trunk({piece(16, true)});
  Frame overlapping = piece(16, true);
  overlapping[18 + 7] = 3;
  world.from_trunk({overlapping});
  EXPECT_EQ(story(read(all)), "in held; drop fragment_overlap; in fragment_overlap; drop fragment_overlap; ");
  for (std::uint16_t i = 0; i <= FragmentTable::kQuota; ++i) world.from_trunk({piece(16, true, 100 + i)});
  EXPECT_EQ(read(of_a).size(), 3U) << "the two of the overlap, and one that makes room: before it goes the datagram that overlapped";
}

TEST_F(ObserveTest, WhatTheEdgeAnswersIsSeenAndItsAnswerToo) {
  Observer& observer = look(at({Point::in, Point::out}));
  const auto out = world.from_task(0, {arp_packet({mac("ff:ff:ff:ff:ff:ff"), kA, -1}, 1, kA, ip("10.0.0.10"), ip("10.0.0.11"))});
  const auto seen = read(observer);
  ASSERT_EQ(seen.size(), 3U);
  EXPECT_EQ(seen[0].what.route, Route::answer);
  EXPECT_EQ(seen[0].what.point, Point::in);
  EXPECT_EQ(seen[0].what.direction, Direction::egress);
  EXPECT_FALSE(seen[0].what.made_here);
  for (const std::size_t i : {1, 2}) {
    EXPECT_EQ(seen[i].what.point, i == 1 ? Point::in : Point::out);
    EXPECT_EQ(seen[i].what.direction, Direction::ingress);
    EXPECT_EQ(seen[i].what.endpoint, EndpointId{0});
    EXPECT_TRUE(seen[i].what.made_here);
    EXPECT_EQ(seen[i].bytes, out.task.at("a")[0]);
  }
}

TEST_F(ObserveTest, TheRoutersErrorIsSeenAsWhatItIs) {
  ObserverSettings settings = at({Point::in, Point::drop, Point::out});
  settings.snaplen = 16000;
  Observer& observer = look(settings);
  settings.filter = control::compile_filter("icmp").value();
  Observer& errors = look(settings);
  const Frame large = out_of_a("198.51.100.9", 443, kAck, 5000, 9100);
  const auto out = world.from_task(0, {large});
  const auto seen = read(observer);
  ASSERT_EQ(seen.size(), 4U);
  EXPECT_EQ(seen[0].bytes, large);
  EXPECT_EQ(seen[1].what.point, Point::drop);
  EXPECT_EQ(seen[1].bytes, large) << "as it came, not what was made of it";
  EXPECT_EQ(seen[2].what.point, Point::in);
  EXPECT_EQ(seen[3].what.point, Point::out);
  EXPECT_EQ(seen[3].bytes, out.task.at("a")[0]);
  EXPECT_TRUE(seen[3].what.made_here);
  EXPECT_EQ(read(errors).size(), 2U) << "a filter looks at the error";
  // Towards the fabric: with the tag of the ENI that it is from.
  world.tasks[0].mtu = 1500;
  world.publish();
  world.from_trunk({in(80, kAck, "198.51.100.9", 2000)});
  const auto back = read(errors);
  ASSERT_EQ(back.size(), 2U);
  EXPECT_EQ(back[1].what.route, Route::trunk);
  EXPECT_EQ(back[1].what.direction, Direction::egress);
  EXPECT_EQ(back[1].what.endpoint, EndpointId{0});
}

TEST_F(ObserveTest, ASuperFrameSaysHowManyFramesItStandsFor) {
  Observer& observer = look(at({Point::in, Point::out}));
  world.driver = [](rte_mbuf& packet) { packet.ol_flags = RTE_MBUF_F_RX_LRO | RTE_MBUF_F_RX_L4_CKSUM_NONE, packet.tso_segsz = 1000; };
  world.from_task(0, {out_of_a("198.51.100.9", 443, kAck, 5000, 4500)});
  const auto seen = read(observer);
  ASSERT_EQ(seen.size(), 2U);
  EXPECT_EQ(seen[0].what.frames, 5U);
  EXPECT_EQ(seen[1].what.frames, 5U);
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
