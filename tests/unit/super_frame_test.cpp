// SPDX-License-Identifier: BSD-3-Clause
// Super-frames and checksums left to the last port, through the pipeline: what is sound goes on with the right request, what a task
// made up is refused, and everything is counted as the frames that it stands for.
#include "dataplane/state/super_frame.h"

#include <gtest/gtest.h>

#include "tests/support/world.h"

namespace trunkline::test {
namespace {

constexpr char kWebMac[] = "0a:47:e4:7a:2b:02", kAppMac[] = "0a:47:e4:7a:2b:03", kRouterMac[] = "0a:00:00:00:00:01";
constexpr std::size_t kPayload = 10 * 1448 - 48;  // ten segments, the last a little shorter
constexpr std::uint16_t kSegment = 1448;
constexpr std::uint64_t kLeftUndone = RTE_MBUF_F_RX_LRO | RTE_MBUF_F_RX_L4_CKSUM_NONE;
constexpr std::uint64_t kToBeCut = RTE_MBUF_F_TX_TCP_SEG | RTE_MBUF_F_TX_TCP_CKSUM;
constexpr std::uint8_t kAck = 0x10, kSyn = 0x02, kPush = 0x08;

World::Task task(std::string name, std::uint16_t vlan, std::string task_mac, std::vector<std::string> addresses) {
  World::Task result;
  result.name = std::move(name);
  result.vlan = vlan;
  result.mac = std::move(task_mac);
  result.addresses = std::move(addresses);
  result.subnet6 = "2001:db8::/64";
  config::SecurityGroup group;
  group.id = "sg-" + result.name;
  group.ingress = {rule(6, 80, 80, {"10.0.0.0/8", "2001:db8::/32"})};
  group.egress = {everything()};
  result.groups = {group};
  return result;
}

class SuperFrameTest : public ::testing::Test {
 protected:
  void SetUp() override {
    world.flow_logs = true;
    world.add(task("web", 101, kWebMac, {"10.0.0.35", "2001:db8::35"}));
    world.add(task("app", 102, kAppMac, {"10.0.0.36"}));
    world.driver = [this](rte_mbuf& packet) {
      packet.ol_flags = flags;
      packet.tso_segsz = segment;
    };
  }
  // From web to somebody outside.
  static Frame out(const Frame& transport, std::uint8_t protocol = 6, const char* destination = "10.9.9.9", const char* source = "10.0.0.35") {
    return ip_packet({mac(kRouterMac), mac(kWebMac)}, ip(source), ip(destination), protocol, transport);
  }
  static Frame tcp(std::size_t payload = kPayload, std::uint8_t tcp_flags = kAck | kPush) { return tcp_segment(40000, 80, tcp_flags, payload); }

  World::Output send(const Frame& frame, std::size_t first_segment = SIZE_MAX) { return world.from_task(0, {frame}, first_segment); }
  void expect_refused(const Frame& frame, const std::string& what, std::size_t first_segment = SIZE_MAX) {
    const World::Output output = send(frame, first_segment);
    EXPECT_TRUE(output.trunk.empty()) << what;
    EXPECT_EQ(output.discarded, 1U) << what;
    EXPECT_EQ(world.movements(), (Movements{{"web.egress.rx", 1}, {"web.egress.bad_offload", 1}})) << what;
  }

  World world;
  std::uint64_t flags = kLeftUndone;
  std::uint16_t segment = kSegment;
};

TEST_F(SuperFrameTest, GoesOutAsOnePacketAndCountsAsItsSegments) {
  const Frame frame = out(tcp());
  const World::Output output = send(frame);
  ASSERT_EQ(output.trunk.size(), 1U);
  EXPECT_EQ(output.trunk[0].size(), frame.size() + 4);
  const rte_mbuf& packet = *output.packets[0];
  EXPECT_EQ(packet.ol_flags, kToBeCut | RTE_MBUF_F_TX_IPV4);
  EXPECT_EQ(packet.tso_segsz, kSegment);
  EXPECT_EQ(packet.l2_len, 18);
  EXPECT_EQ(packet.l3_len, 20);
  EXPECT_EQ(packet.l4_len, 20);
  EXPECT_EQ(world.movements(), (Movements{{"web.egress.rx", 10}, {"web.egress.tx", 10}, {"trunk.out.rx", 10}, {"trunk.out.tx", 10}}));
  const Meter& meter = world.worker.meters[0].egress;
  EXPECT_EQ(meter.rx_bytes.read(), kPayload + 10 * (14 + 20 + 20));
  EXPECT_EQ(meter.tx_bytes.read(), meter.rx_bytes.read());
  EXPECT_EQ(world.worker.trunk_out.tx_bytes.read(), kPayload + 10 * (18 + 20 + 20));
  const auto records = world.end_interval();
  ASSERT_EQ(records.size(), 1U);
  EXPECT_EQ(records[0].way[1].packets, 10U);
  EXPECT_EQ(records[0].way[1].bytes, kPayload + 10 * 40);
}

TEST_F(SuperFrameTest, InIpv6WithExtensionHeader) {
  Frame options{6, 0, 1, 4, 0, 0, 0, 0};  // destination options of eight bytes, then TCP
  const Frame segment_bytes = tcp();
  options.insert(options.end(), segment_bytes.begin(), segment_bytes.end());
  const World::Output output = send(out(options, 60, "2001:db8:1::9", "2001:db8::35"));
  ASSERT_EQ(output.packets.size(), 1U);
  EXPECT_EQ(output.packets[0]->ol_flags, kToBeCut | RTE_MBUF_F_TX_IPV6);
  EXPECT_EQ(output.packets[0]->l3_len, 48);
  EXPECT_EQ(world.movements()["web.egress.tx"], 10U);
}

TEST_F(SuperFrameTest, FromTaskToTaskStaysWhole) {
  const Frame frame = ip_packet({mac(kAppMac), mac(kWebMac)}, ip("10.0.0.35"), ip("10.0.0.36"), 6, tcp());
  const World::Output output = send(frame);
  ASSERT_EQ(output.task.at("app").size(), 1U);
  EXPECT_EQ(output.task.at("app")[0].size(), frame.size());
  EXPECT_EQ(output.packets[0]->ol_flags, kToBeCut | RTE_MBUF_F_TX_IPV4);
  EXPECT_EQ(output.packets[0]->l2_len, 14);
  EXPECT_EQ(world.movements(), (Movements{{"web.egress.rx", 10}, {"web.egress.tx", 10}, {"app.ingress.rx", 10}, {"app.ingress.tx", 10}}));
}

TEST_F(SuperFrameTest, FromTaggedTrunkToTask) {
  const Frame frame = ip_packet({mac(kWebMac), mac(kRouterMac), 101}, ip("10.9.9.9"), ip("10.0.0.35"), 6, tcp());
  const World::Output output = world.from_trunk({frame});
  ASSERT_EQ(output.task.at("web").size(), 1U);
  EXPECT_EQ(output.task.at("web")[0].size(), frame.size() - 4);
  EXPECT_EQ(output.packets[0]->l2_len, 14);
  EXPECT_EQ(world.movements(), (Movements{{"trunk.in.rx", 10}, {"trunk.in.tx", 10}, {"web.ingress.rx", 10}, {"web.ingress.tx", 10}}));
  EXPECT_EQ(world.worker.trunk_in.rx_bytes.read(), kPayload + 10 * (18 + 40));
  EXPECT_EQ(world.worker.meters[0].ingress.tx_bytes.read(), kPayload + 10 * (14 + 40));
}

TEST_F(SuperFrameTest, RefusedByTheRulesAllItsSegmentsCount) {
  const Frame frame = ip_packet({mac(kWebMac), mac(kRouterMac), 101}, ip("192.0.2.9"), ip("10.0.0.35"), 6, tcp());
  EXPECT_EQ(world.from_trunk({frame}).discarded, 1U);
  EXPECT_EQ(world.movements(), (Movements{{"trunk.in.rx", 10}, {"trunk.in.tx", 10}, {"web.ingress.rx", 10}, {"web.ingress.security_group_ingress", 10}}));
  const auto records = world.end_interval();
  ASSERT_EQ(records.size(), 1U);
  EXPECT_EQ(records[0].way[0].packets, 10U);
  EXPECT_EQ(records[0].way[0].bytes, kPayload + 10 * 40);
}

TEST_F(SuperFrameTest, SegmentsThatFitTheMtuPassAndOthersAreReported) {
  world.tasks[0].mtu = kSegment + 40;
  world.publish();
  const Frame frame = ip_packet({mac(kWebMac), mac(kRouterMac), 101}, ip("10.9.9.9"), ip("10.0.0.35"), 6, tcp());
  EXPECT_EQ(world.from_trunk({frame}).task["web"].size(), 1U);
  world.movements();
  world.tasks[0].mtu = kSegment + 39;
  world.publish();
  const World::Output output = world.from_trunk({frame});
  ASSERT_EQ(output.trunk.size(), 1U);  // fragmentation needed
  EXPECT_EQ(output.trunk[0][18 + 20], 3);
  EXPECT_EQ(output.packets[0]->ol_flags, 0U);
  EXPECT_EQ(world.movements(), (Movements{{"trunk.in.rx", 10}, {"trunk.in.tx", 10}, {"web.ingress.rx", 10}, {"web.ingress.mtu_exceeded", 10},
                                          {"trunk.out.rx", 1}, {"trunk.out.tx", 1}}));
}

TEST_F(SuperFrameTest, LimitsCountSegments) {
  world.tasks[0].limits.packets[1] = 200;  // a bucket of ten
  world.adjust = [](const World::Task&, Endpoint& endpoint) { endpoint.limited = true; };
  world.publish();
  auto next = std::make_shared<View>(*world.view);
  next->limits = true;
  world.view = next;
  world.worker.begin_turn(*world.view, world.worker.now, world.worker.micros);
  EXPECT_EQ(send(out(tcp())).trunk.size(), 1U);
  world.movements();
  EXPECT_TRUE(send(out(tcp())).trunk.empty());
  EXPECT_EQ(world.movements(), (Movements{{"web.egress.rx", 10}, {"web.egress.pps_allowance_exceeded", 10}}));
}

// --- what a task may make up ------------------------------------------------------------------------------------------

TEST_F(SuperFrameTest, LiesAreRefused) {
  segment = 0;
  expect_refused(out(tcp()), "no segment size");
  segment = kLeastSegmentBytes - 1;
  expect_refused(out(tcp()), "more segments than anybody needs");
  segment = kPayload;
  expect_refused(out(tcp()), "one segment");
  segment = 0xffff;
  expect_refused(out(tcp()), "segments larger than the packet");
  segment = kSegment;
  expect_refused(out(tcp(kPayload, kSyn)), "SYN");
  expect_refused(out(tcp(kPayload, 0x04)), "RST");
  expect_refused(out(udp_datagram(1, 2, 6000), 17), "UDP");
  expect_refused(out(icmp_message(8, 0, 1, 6000), 1), "ICMP");
  expect_refused(out(Frame(6000, 7), 47), "GRE");
  expect_refused(arp_packet({detail::kBroadcast, mac(kWebMac)}, 1, mac(kWebMac), ip("10.0.0.35"), ip("10.0.0.1")), "ARP");
  Frame fragment = out(tcp());
  fragment[14 + 6] = 0x20;
  expect_refused(fragment, "a first fragment");
  Frame longer = out(tcp());
  longer.resize(longer.size() + 100);
  expect_refused(longer, "bytes behind the packet");
  Frame offset = out(tcp());
  offset[14 + 20 + 12] = 0xf0;
  expect_refused(offset, "a TCP header that ends in another buffer", 14 + 20 + 40);
}

TEST_F(SuperFrameTest, ALiarThatIsMalformedIsMalformed) {
  Frame frame = out(tcp());
  frame[14] = 0x41;
  EXPECT_EQ(send(frame).discarded, 1U);
  EXPECT_EQ(world.movements(), (Movements{{"web.egress.rx", 1}, {"web.egress.malformed", 1}}));
}

// --- checksums left to the last port ----------------------------------------------------------------------------------

TEST_F(SuperFrameTest, ChecksumIsAskedOfThePort) {
  flags = RTE_MBUF_F_RX_L4_CKSUM_NONE;
  segment = 0;
  for (const bool ipv4 : {true, false}) {
    const char* to = ipv4 ? "10.9.9.9" : "2001:db8:1::9";
    const char* from = ipv4 ? "10.0.0.35" : "2001:db8::35";
    const std::uint64_t family = ipv4 ? RTE_MBUF_F_TX_IPV4 : RTE_MBUF_F_TX_IPV6;
    World::Output output = send(out(tcp(100), 6, to, from));
    ASSERT_EQ(output.packets.size(), 1U);
    EXPECT_EQ(output.packets[0]->ol_flags, RTE_MBUF_F_TX_TCP_CKSUM | family);
    EXPECT_EQ(output.packets[0]->l2_len, 18);
    EXPECT_EQ(output.packets[0]->l3_len, ipv4 ? 20 : 40);
    output = send(out(udp_datagram(1, 2, 100), 17, to, from));
    ASSERT_EQ(output.packets.size(), 1U);
    EXPECT_EQ(output.packets[0]->ol_flags, RTE_MBUF_F_TX_UDP_CKSUM | family);
  }
  EXPECT_EQ(world.movements()["web.egress.tx"], 4U);
}

TEST_F(SuperFrameTest, PaddingGoesBeforeAChecksumCoversIt) {
  flags = RTE_MBUF_F_RX_L4_CKSUM_NONE;
  Frame frame = out(tcp(0));
  const std::size_t size = frame.size();
  frame.resize(size + 6, 0xee);
  const World::Output output = send(frame);
  ASSERT_EQ(output.trunk.size(), 1U);
  EXPECT_EQ(output.trunk[0].size(), size + 4);
  world.movements();
  // More of it than the last buffer has cannot be cut off.
  frame.resize(size + 600, 0xee);
  expect_refused(frame, "padding over two buffers", size + 300);
}

TEST_F(SuperFrameTest, ChecksumsThatNobodyCanFillInAreRefused) {
  flags = RTE_MBUF_F_RX_L4_CKSUM_NONE;
  expect_refused(out(icmp_message(8, 0, 1), 1), "ICMP");
  expect_refused(out(Frame(60, 7), 132), "SCTP");
  Frame fragment = out(udp_datagram(1, 2, 64), 17);
  fragment[14 + 6] = 0x20;
  expect_refused(fragment, "a first fragment");
}

TEST_F(SuperFrameTest, WhatArrivedCompleteLeavesWithoutRequests) {
  for (const std::uint64_t said : {RTE_MBUF_F_RX_L4_CKSUM_GOOD, RTE_MBUF_F_RX_L4_CKSUM_BAD, RTE_MBUF_F_RX_IP_CKSUM_GOOD, RTE_MBUF_F_RX_RSS_HASH}) {
    flags = said;
    const World::Output output = send(out(tcp(100)));
    ASSERT_EQ(output.packets.size(), 1U);
    EXPECT_EQ(output.packets[0]->ol_flags, 0U);
  }
}

}  // namespace
}  // namespace trunkline::test
