// SPDX-License-Identifier: BSD-3-Clause
// A packet's way through all stages: for each thing that passes, the thing beside it that must not, and after every
// step exactly the counters that may have moved.
#include "dataplane/pipeline.h"

#include <gtest/gtest.h>

#include "tests/support/world.h"

namespace trunkline::test {
namespace {

const MacAddress kRouter = mac("0a:00:00:00:00:01");
const std::string kWebMac = "0a:47:e4:7a:2b:02";

config::SecurityGroup web_group() {
  config::SecurityGroup group;
  group.id = "sg-9effe8e4";
  group.ingress = {rule(6, 80, 80, {"0.0.0.0/0"})};
  group.egress = {everything({"0.0.0.0/0"})};
  return group;
}

World::Task web_task() {
  World::Task task;
  task.name = "web";
  task.vlan = 101;
  task.mac = kWebMac;
  task.addresses = {"10.0.0.35", "10.0.0.40"};
  task.groups = {web_group()};
  return task;
}

class PipelineTest : public ::testing::Test {
 protected:
  void SetUp() override { world.add(web_task()); }

  L2 to_web(int vlan = 101) const { return {mac(kWebMac), kRouter, vlan}; }
  L2 from_web() const { return {kRouter, mac(kWebMac), -1}; }
  Frame tcp_in(std::uint16_t from, std::uint16_t to, std::uint8_t flags, const char* source = "198.51.100.9") const {
    return ip_packet(to_web(), ip(source), ip("10.0.0.35"), 6, tcp_segment(from, to, flags));
  }
  Frame tcp_out(std::uint16_t from, std::uint16_t to, std::uint8_t flags, const char* destination = "198.51.100.9") const {
    return ip_packet(from_web(), ip("10.0.0.35"), ip(destination), 6, tcp_segment(from, to, flags));
  }

  World world;
};

constexpr std::uint8_t kSyn = 0x02, kAck = 0x10, kSynAck = 0x12, kFinAck = 0x11, kRst = 0x04;

TEST_F(PipelineTest, AllowedPortIsDeliveredUntagged) {
  const auto out = world.from_trunk({tcp_in(40000, 80, kSyn)});
  ASSERT_EQ(out.task.at("web").size(), 1U);
  EXPECT_EQ(out.task.at("web")[0],
            ip_packet({mac(kWebMac), kRouter, -1}, ip("198.51.100.9"), ip("10.0.0.35"), 6, tcp_segment(40000, 80, kSyn)));
  EXPECT_EQ(world.movements(), (Movements{{"trunk.in.rx", 1}, {"trunk.in.tx", 1}, {"web.ingress.rx", 1}, {"web.ingress.tx", 1}}));
  EXPECT_EQ(world.worker.connections.size(), 1U);
}

TEST_F(PipelineTest, OtherPortsAreRefusedSilently) {
  for (const std::uint16_t port : {0, 22, 79, 81, 8080, 65535}) {
    const auto out = world.from_trunk({tcp_in(40000, port, kSyn)});
    EXPECT_TRUE(out.trunk.empty());
    EXPECT_TRUE(out.task.empty());
    EXPECT_EQ(out.discarded, 1U);
    EXPECT_EQ(world.movements(), (Movements{{"trunk.in.rx", 1}, {"trunk.in.tx", 1}, {"web.ingress.rx", 1},
                                            {"web.ingress.security_group_ingress", 1}}));
  }
  EXPECT_EQ(world.worker.connections.size(), 0U);
}

TEST_F(PipelineTest, ReplyIsTaggedAndAdmittedByStateAlone) {
  world.tasks[0].groups[0].egress.clear();  // nothing may leave but replies
  world.publish();
  world.from_trunk({tcp_in(40000, 80, kSyn)});
  world.movements();
  const auto out = world.from_task(0, {tcp_out(80, 40000, kSynAck)});
  ASSERT_EQ(out.trunk.size(), 1U);
  EXPECT_EQ(out.trunk[0], ip_packet({kRouter, mac(kWebMac), 101}, ip("10.0.0.35"), ip("198.51.100.9"), 6, tcp_segment(80, 40000, kSynAck)));
  EXPECT_EQ(world.movements(), (Movements{{"web.egress.rx", 1}, {"web.egress.tx", 1}, {"trunk.out.rx", 1}, {"trunk.out.tx", 1}}));
  // Another client's port is no reply.
  world.from_task(0, {tcp_out(80, 40001, kSynAck)});
  EXPECT_EQ(world.movements(), (Movements{{"web.egress.rx", 1}, {"web.egress.security_group_egress", 1}}));
}

TEST_F(PipelineTest, TrunkFramesMustBeForTheEndpoint) {
  const Frame good = tcp_segment(1, 80, kSyn);
  struct Case {
    Frame frame;
    Movements moved;
  };
  const Movements unknown{{"trunk.in.rx", 1}, {"trunk.in.unknown_eni", 1}};
  auto dropped = [](const char* reason) {
    return Movements{{"trunk.in.rx", 1}, {"trunk.in.tx", 1}, {"web.ingress.rx", 1}, {std::string("web.ingress.") + reason, 1}};
  };
  const std::vector<Case> cases{
      {ip_packet(to_web(102), ip("1.2.3.4"), ip("10.0.0.35"), 6, good), unknown},
      {ip_packet(to_web(-1), ip("1.2.3.4"), ip("10.0.0.35"), 6, good), unknown},
      {ip_packet(to_web(0), ip("1.2.3.4"), ip("10.0.0.35"), 6, good), unknown},
      {ip_packet({mac("0a:47:e4:7a:2b:03"), kRouter, 101}, ip("1.2.3.4"), ip("10.0.0.35"), 6, good), dropped("wrong_mac")},
      {ip_packet({mac("ff:ff:ff:ff:ff:ff"), kRouter, 101}, ip("1.2.3.4"), ip("10.0.0.35"), 6, good), dropped("multicast")},
      {ip_packet(to_web(), ip("1.2.3.4"), ip("10.0.0.36"), 6, good), dropped("dest_check")},
      {ip_packet(to_web(), ip("127.0.0.1"), ip("10.0.0.35"), 6, good), dropped("martian")},
      {ip_packet(to_web(), ip("224.0.0.1"), ip("10.0.0.35"), 6, good), dropped("martian")},
      {ip_packet(to_web(), ip("1.2.3.4"), ip("10.0.0.35"), 6, tcp_segment(1, 80, 0)), dropped("tcp_flags")},
      {ip_packet(to_web(), ip("1.2.3.4"), ip("10.0.0.35"), 6, tcp_segment(1, 80, 0x03)), dropped("tcp_flags")},
      {ip_packet(to_web(), ip("1.2.3.4"), ip("10.0.0.35"), 6, tcp_segment(1, 80, 0x06)), dropped("tcp_flags")},
  };
  for (std::size_t i = 0; i < cases.size(); ++i) {
    const auto out = world.from_trunk({cases[i].frame});
    EXPECT_TRUE(out.task.empty()) << i;
    EXPECT_EQ(world.movements(), cases[i].moved) << i;
  }
}

TEST_F(PipelineTest, SecondTagNeverReachesAnotherEndpoint) {
  Frame frame = ethernet(to_web(), 0x8100);
  put16(frame, 102);
  put16(frame, 0x0800);
  world.from_trunk({frame});
  EXPECT_EQ(world.movements(), (Movements{{"trunk.in.rx", 1}, {"trunk.in.tx", 1}, {"web.ingress.rx", 1}, {"web.ingress.unexpected_vlan", 1}}));
}

TEST_F(PipelineTest, TagStrippedByThePortCounts) {
  Burst burst;
  rte_mbuf* packet = world.mbufs.make(ip_packet(to_web(-1), ip("1.2.3.4"), ip("10.0.0.35"), 6, tcp_segment(1, 80, kSyn)));
  packet->ol_flags = RTE_MBUF_F_RX_VLAN | RTE_MBUF_F_RX_VLAN_STRIPPED;
  packet->vlan_tci = 101 | 5 << 13;  // priority is ignored
  burst.add(packet);
  process_from_trunk(burst, world.worker);
  EXPECT_EQ(burst.verdict[0], DropReason::none);
  EXPECT_EQ(packet->ol_flags, 0U);
}

TEST_F(PipelineTest, TaskCannotSpeakForAnother) {
  const Frame good = tcp_segment(1, 443, kSyn);
  auto dropped = [](const char* reason) { return Movements{{"web.egress.rx", 1}, {std::string("web.egress.") + reason, 1}}; };
  const std::vector<std::pair<Frame, Movements>> cases{
      {ip_packet({kRouter, mac("0a:47:e4:7a:2b:03"), -1}, ip("10.0.0.35"), ip("1.2.3.4"), 6, good), dropped("spoof_mac")},
      {ip_packet({kRouter, MacAddress{}, -1}, ip("10.0.0.35"), ip("1.2.3.4"), 6, good), dropped("spoof_mac")},
      {ip_packet(from_web(), ip("10.0.0.36"), ip("1.2.3.4"), 6, good), dropped("spoof_ip")},
      {ip_packet(from_web(), ip("2001:db8::1"), ip("2001:db8::2"), 6, good), dropped("spoof_ip")},
      {ip_packet({kRouter, mac(kWebMac), 101}, ip("10.0.0.35"), ip("1.2.3.4"), 6, good), dropped("unexpected_vlan")},
      {ip_packet({kRouter, mac(kWebMac), 0}, ip("10.0.0.35"), ip("1.2.3.4"), 6, good), dropped("unexpected_vlan")},
      {ip_packet({mac("ff:ff:ff:ff:ff:ff"), mac(kWebMac), -1}, ip("10.0.0.35"), ip("10.0.0.255"), 17, udp_datagram(1, 2)), dropped("multicast")},
      {ip_packet(from_web(), ip("10.0.0.35"), ip("224.0.0.251"), 17, udp_datagram(1, 2)), dropped("multicast")},
      {ethernet(from_web(), 0x88cc), dropped("ethertype")},
  };
  for (std::size_t i = 0; i < cases.size(); ++i) {
    const auto out = world.from_task(0, {cases[i].first});
    EXPECT_TRUE(out.trunk.empty()) << i;
    EXPECT_EQ(world.movements(), cases[i].second) << i;
  }
  EXPECT_EQ(world.from_task(0, {tcp_out(1, 443, kSyn)}).trunk.size(), 1U);
}

TEST_F(PipelineTest, SourceDestCheckOffLetsForeignAddressesPassButNotForeignMacs) {
  world.tasks[0].source_dest_check = false;
  world.publish();
  EXPECT_EQ(world.from_task(0, {ip_packet(from_web(), ip("192.0.2.7"), ip("1.2.3.4"), 6, tcp_segment(1, 443, kSyn))}).trunk.size(), 1U);
  EXPECT_EQ(world.from_trunk({ip_packet(to_web(), ip("1.2.3.4"), ip("192.0.2.7"), 6, tcp_segment(443, 80, kSyn))}).task["web"].size(), 1U);
  world.movements();
  world.from_task(0, {ip_packet({kRouter, mac("0a:47:e4:7a:2b:03"), -1}, ip("192.0.2.7"), ip("1.2.3.4"), 6, tcp_segment(1, 443, kSyn))});
  EXPECT_EQ(world.movements(), (Movements{{"web.egress.rx", 1}, {"web.egress.spoof_mac", 1}}));
}

TEST_F(PipelineTest, TwoTasksPassBothPipelines) {
  World::Task other = web_task();
  other.name = "other";
  other.vlan = 102;
  other.mac = "0a:47:e4:7a:2b:03";
  other.addresses = {"10.0.0.36"};
  world.add(other);
  world.movements();
  auto out = world.from_task(0, {ip_packet({mac("0a:47:e4:7a:2b:03"), mac(kWebMac), -1}, ip("10.0.0.35"), ip("10.0.0.36"), 6, tcp_segment(5000, 80, kSyn))});
  EXPECT_TRUE(out.trunk.empty());
  ASSERT_EQ(out.task.at("other").size(), 1U);
  EXPECT_EQ(out.task.at("other")[0], ip_packet({mac("0a:47:e4:7a:2b:03"), mac(kWebMac), -1}, ip("10.0.0.35"), ip("10.0.0.36"), 6, tcp_segment(5000, 80, kSyn)));
  EXPECT_EQ(world.movements(), (Movements{{"web.egress.rx", 1}, {"web.egress.tx", 1}, {"other.ingress.rx", 1}, {"other.ingress.tx", 1}}));
  EXPECT_EQ(world.worker.connections.size(), 2U);
  // The receiver's inbound rules count, although the sender may send anything.
  world.from_task(0, {ip_packet({mac("0a:47:e4:7a:2b:03"), mac(kWebMac), -1}, ip("10.0.0.35"), ip("10.0.0.36"), 6, tcp_segment(5000, 22, kSyn))});
  EXPECT_EQ(world.movements(), (Movements{{"web.egress.rx", 1}, {"web.egress.tx", 1}, {"other.ingress.rx", 1}, {"other.ingress.security_group_ingress", 1}}));
}

TEST_F(PipelineTest, AcrossSubnetsTheSenderIsTheRouter) {
  World::Task other = web_task();
  other.name = "other";
  other.vlan = 102;
  other.mac = "0a:47:e4:7a:2b:03";
  other.subnet = "10.0.9.0/24";
  other.addresses = {"10.0.9.36"};
  world.add(other);
  const auto out = world.from_task(0, {ip_packet(from_web(), ip("10.0.0.35"), ip("10.0.9.36"), 6, tcp_segment(5000, 80, kSyn))});
  ASSERT_EQ(out.task.at("other").size(), 1U);
  EXPECT_EQ(out.task.at("other")[0], ip_packet({mac("0a:47:e4:7a:2b:03"), kRouter, -1}, ip("10.0.0.35"), ip("10.0.9.36"), 6, tcp_segment(5000, 80, kSyn)));
}

TEST_F(PipelineTest, GroupReferenceFollowsItsMembers) {
  config::SecurityGroup group = web_group();
  group.ingress = {rule(6, 80, 80, {}, {"sg-alb"})};
  world.tasks[0].groups = {group};
  world.publish();
  world.from_trunk({tcp_in(40000, 80, kSyn)});
  EXPECT_EQ(world.movements().at("web.ingress.security_group_ingress"), 1U);
  const GroupId alb = world.numbers.number("sg-alb");
  world.members->set(ip("198.51.100.9"), std::span(&alb, 1));
  EXPECT_EQ(world.from_trunk({tcp_in(40000, 80, kSyn)}).task["web"].size(), 1U);
  world.members->set(ip("198.51.100.9"), {});
  EXPECT_EQ(world.from_trunk({tcp_in(40000, 80, kAck)}).task["web"].size(), 1U) << "a tracked flow stays";
  EXPECT_TRUE(world.from_trunk({tcp_in(40001, 80, kSyn)}).task.empty());
}

// --- ping ------------------------------------------------------------------------------------------------------------

TEST_F(PipelineTest, PingNeedsARuleAndItsAnswerDoesNot) {
  const Frame request = ip_packet(to_web(), ip("198.51.100.9"), ip("10.0.0.35"), 1, icmp_message(8, 0, 77));
  const Frame reply = ip_packet(from_web(), ip("10.0.0.35"), ip("198.51.100.9"), 1, icmp_message(0, 0, 77));
  EXPECT_TRUE(world.from_trunk({request}).task.empty());
  world.tasks[0].groups[0].ingress.push_back(rule(1, 8, -1, {"0.0.0.0/0"}));
  world.tasks[0].groups[0].egress.clear();
  world.publish();
  EXPECT_EQ(world.from_trunk({request}).task["web"].size(), 1U);
  EXPECT_EQ(world.from_task(0, {reply}).trunk.size(), 1U);
  // The task may not ask, under the identifier that it was asked with.
  EXPECT_TRUE(world.from_task(0, {ip_packet(from_web(), ip("10.0.0.35"), ip("198.51.100.9"), 1, icmp_message(8, 0, 77))}).trunk.empty());
  // An answer to nobody's question.
  EXPECT_TRUE(world.from_task(0, {ip_packet(from_web(), ip("10.0.0.35"), ip("198.51.100.9"), 1, icmp_message(0, 0, 78))}).trunk.empty());
  // Nor is another query type of that identifier covered by the echo's state.
  EXPECT_TRUE(world.from_trunk({ip_packet(to_web(), ip("198.51.100.9"), ip("10.0.0.35"), 1, icmp_message(13, 0, 77))}).task.empty());
}

TEST_F(PipelineTest, IcmpErrorsAreJudgedByRulesAndOpenNothing) {
  world.from_trunk({tcp_in(40000, 80, kSyn)});
  const std::uint64_t before = world.worker.connections.size();
  const Frame error = ip_packet(to_web(), ip("198.51.100.1"), ip("10.0.0.35"), 1, icmp_message(3, 4, 0));
  EXPECT_TRUE(world.from_trunk({error}).task.empty());
  world.tasks[0].groups[0].ingress.push_back(rule(1, 3, 4, {"0.0.0.0/0"}));
  world.publish();
  EXPECT_EQ(world.from_trunk({error}).task["web"].size(), 1U);
  EXPECT_EQ(world.worker.connections.size(), before);
}

// --- connections over time -------------------------------------------------------------------------------------------

TEST_F(PipelineTest, RemovedRuleCutsUntrackedFlowsAtOnceAndTrackedNever) {
  // Everything out and tcp/80 from anywhere: AWS does not track this flow.
  world.from_trunk({tcp_in(40000, 80, kSyn)});
  world.from_task(0, {tcp_out(80, 40000, kSynAck)});
  world.tasks[0].groups[0].ingress = {rule(6, 22, 22, {"203.0.113.1/32"})};
  world.publish();
  world.movements();
  EXPECT_TRUE(world.from_trunk({tcp_in(40000, 80, kAck)}).task.empty());
  EXPECT_EQ(world.movements(), (Movements{{"trunk.in.rx", 1}, {"trunk.in.tx", 1}, {"web.ingress.rx", 1}, {"web.ingress.rule_revoked", 1}}));

  world.from_trunk({tcp_in(50000, 22, kSyn, "203.0.113.1")});  // a narrow source: tracked
  world.tasks[0].groups[0].ingress.clear();
  world.publish();
  EXPECT_EQ(world.from_trunk({tcp_in(50000, 22, kAck, "203.0.113.1")}).task["web"].size(), 1U);
  EXPECT_TRUE(world.from_trunk({tcp_in(50001, 22, kSyn, "203.0.113.1")}).task.empty());
}

TEST_F(PipelineTest, SamePolicyAgainChangesNothingForUntrackedFlows) {
  world.from_trunk({tcp_in(40000, 80, kSyn)});
  world.publish();
  EXPECT_EQ(world.from_trunk({tcp_in(40000, 80, kAck)}).task["web"].size(), 1U);
}

TEST_F(PipelineTest, UdpTimeoutsFollowTheConversation) {
  world.tasks[0].groups[0].ingress = {rule(17, 53, 53, {"198.51.100.0/24"})};
  world.tasks[0].groups[0].egress.clear();
  world.publish();
  const Frame request = ip_packet(to_web(), ip("198.51.100.9"), ip("10.0.0.35"), 17, udp_datagram(4000, 53));
  const Frame reply = ip_packet(from_web(), ip("10.0.0.35"), ip("198.51.100.9"), 17, udp_datagram(53, 4000));
  world.from_trunk({request});
  EXPECT_EQ(world.from_task(0, {reply}).trunk.size(), 1U);
  world.pass(seconds(30) - 1);
  EXPECT_EQ(world.from_task(0, {reply}).trunk.size(), 1U);
  world.pass(seconds(30));
  EXPECT_TRUE(world.from_task(0, {reply}).trunk.empty()) << "one exchange is no stream";
  world.from_trunk({request});
  world.from_task(0, {reply});
  world.from_trunk({request});
  world.from_task(0, {reply});
  world.pass(seconds(179));
  EXPECT_EQ(world.from_task(0, {reply}).trunk.size(), 1U);
  world.pass(seconds(181));
  EXPECT_TRUE(world.from_task(0, {reply}).trunk.empty());
}

TEST_F(PipelineTest, OtherProtocolsAreTrackedByAddressesFor600Seconds) {
  world.tasks[0].groups[0].ingress.clear();
  world.publish();
  const Frame out = ip_packet(from_web(), ip("10.0.0.35"), ip("198.51.100.9"), 50, Frame(16, 'e'));
  const Frame in = ip_packet(to_web(), ip("198.51.100.9"), ip("10.0.0.35"), 50, Frame(16, 'e'));
  EXPECT_TRUE(world.from_trunk({in}).task.empty());
  EXPECT_EQ(world.from_task(0, {out}).trunk.size(), 1U);
  world.pass(seconds(599));
  EXPECT_EQ(world.from_trunk({in}).task["web"].size(), 1U);
  world.pass(seconds(601));
  EXPECT_TRUE(world.from_trunk({in}).task.empty());
}

TEST_F(PipelineTest, TcpEstablishedOutlivesTheHandshakeTimeout) {
  world.tasks[0].groups[0].ingress = {rule(6, 80, 80, {"198.51.100.0/24"})};
  world.tasks[0].groups[0].egress.clear();
  world.publish();
  world.from_trunk({tcp_in(40000, 80, kSyn)});
  world.from_task(0, {tcp_out(80, 40000, kSynAck)});
  world.from_trunk({tcp_in(40000, 80, kAck)});
  world.pass(seconds(400000));
  EXPECT_EQ(world.from_task(0, {tcp_out(80, 40000, kAck)}).trunk.size(), 1U);
  world.from_trunk({tcp_in(40001, 80, kSyn)});
  world.pass(seconds(30));
  EXPECT_TRUE(world.from_task(0, {tcp_out(80, 40001, kSynAck)}).trunk.empty()) << "half open for 30 s";
}

TEST_F(PipelineTest, ClosedConnectionIsReopenedBySynOnlyIfTheRulesAllow) {
  world.tasks[0].groups[0].ingress = {rule(6, 80, 80, {"198.51.100.0/24"})};
  world.publish();
  world.from_trunk({tcp_in(40000, 80, kSyn)});
  world.from_task(0, {tcp_out(80, 40000, kFinAck)});
  world.from_trunk({tcp_in(40000, 80, kFinAck)});
  EXPECT_EQ(world.from_trunk({tcp_in(40000, 80, kSyn)}).task["web"].size(), 1U);
  world.from_task(0, {tcp_out(80, 40000, kRst)});
  world.tasks[0].groups[0].ingress.clear();
  world.publish();
  EXPECT_TRUE(world.from_trunk({tcp_in(40000, 80, kSyn)}).task.empty());
}

TEST_F(PipelineTest, DetachForgetsConnections) {
  world.from_trunk({tcp_in(40000, 80, kSyn)});
  world.tasks[0].groups[0].egress.clear();
  ++world.generations[0];  // the id's next tenant, with the same addresses
  world.publish();
  EXPECT_TRUE(world.from_task(0, {tcp_out(80, 40000, kSynAck)}).trunk.empty());
  EXPECT_EQ(world.worker.connections.size(), 1U);
  world.worker.connections.sweep(10, world.worker.now, *world.view);
  EXPECT_EQ(world.worker.connections.size(), 0U);
}

TEST_F(PipelineTest, ManyFirstPacketsOfOneFlowInABurstOpenOneConnection) {
  world.from_trunk(std::vector<Frame>(32, tcp_in(40000, 80, kSyn)));
  EXPECT_EQ(world.worker.connections.size(), 1U);
}

TEST_F(PipelineTest, FullTableRefusesTrackedFlowsAndPassesUntracked) {
  World small;
  small.tasks.clear();
  auto table = std::make_unique<WorkerState>(64, 16, 1);
  small.add(web_task());
  table->view = small.view.get();
  world.tasks[0].groups[0].ingress = {rule(6, 80, 80, {"198.51.100.0/24"})};
  world.publish();
  table->view = world.view.get();
  std::size_t refused = 0;
  for (std::uint16_t port = 1; port <= 40; ++port) {
    Burst syn, answer, ack;
    syn.add(world.mbufs.make(tcp_in(port, 80, kSyn)));
    process_from_trunk(syn, *table);
    refused += syn.verdict[0] == DropReason::conntrack_full;
    answer.add(world.mbufs.make(tcp_out(80, port, kSynAck)));
    process_from_task(answer, *table, *world.view->endpoints[0]);
    ack.add(world.mbufs.make(tcp_in(port, 80, kAck)));
    process_from_trunk(ack, *table);
    table->outbox.empty([](PortSlot, const Outbox::Batch&) {});
    table->outbox.clear_discarded();
  }
  EXPECT_EQ(table->connections.size(), 16U);
  EXPECT_EQ(refused, 24U);
  // A flow that AWS would not track passes without an entry, and so do its answers.
  world.tasks[0].groups = {web_group()};
  world.publish();
  table->view = world.view.get();
  Burst in, out;
  in.add(world.mbufs.make(tcp_in(50000, 80, kSyn)));
  process_from_trunk(in, *table);
  EXPECT_EQ(in.verdict[0], DropReason::none);
  out.add(world.mbufs.make(tcp_out(80, 50000, kSynAck)));
  process_from_task(out, *table, *world.view->endpoints[0]);
  EXPECT_EQ(out.verdict[0], DropReason::none);
  Burst other;
  other.add(world.mbufs.make(tcp_out(81, 50000, kSyn)));
  process_from_task(other, *table, *world.view->endpoints[0]);
  EXPECT_EQ(other.verdict[0], DropReason::conntrack_full);
}

TEST_F(PipelineTest, AnEndpointHasNoMoreConnectionsThanItsQuota) {
  world.tasks[0].groups[0].ingress = {rule(6, 80, 80, {"198.51.100.0/24"})};
  world.tasks[0].max_connections = 3;
  world.publish();
  world.movements();
  for (std::uint16_t port = 1; port <= 3; ++port) {
    world.from_trunk({tcp_in(port, 80, kSyn)});
    world.from_task(0, {tcp_out(80, port, kSynAck)});
    world.from_trunk({tcp_in(port, 80, kAck)});
  }
  world.movements();
  for (std::uint16_t port = 4; port <= 5; ++port) world.from_trunk({tcp_in(port, 80, kSyn)});
  EXPECT_EQ(world.movements(), (Movements{{"trunk.in.rx", 2}, {"trunk.in.tx", 2}, {"web.ingress.rx", 2}, {"web.ingress.conntrack_quota", 2}}));
  // What it has goes on; when one has ended there is room for another.
  EXPECT_EQ(world.from_task(0, {tcp_out(80, 1, kAck)}).trunk.size(), 1U);
  world.from_trunk({tcp_in(2, 80, kRst)});
  world.pass(seconds(11));
  world.worker.connections.sweep(100, world.worker.now, *world.view);
  EXPECT_EQ(world.from_trunk({tcp_in(9, 80, kSyn)}).task["web"].size(), 1U);
}

TEST_F(PipelineTest, AFloodOfSynsEndsNoAnsweredConnection) {
  world.tasks[0].groups[0].ingress = {rule(6, 80, 80, {"198.51.100.0/24"})};
  world.publish();
  world.from_trunk({tcp_in(1, 80, kSyn)});
  world.from_task(0, {tcp_out(80, 1, kSynAck)});
  world.from_trunk({tcp_in(1, 80, kAck)});
  // The table of a World holds 4096, of which an endpoint may have 1024 unconfirmed.
  for (std::uint32_t port = 2; port < 6000; ++port) {
    ASSERT_EQ(world.from_trunk({tcp_in(static_cast<std::uint16_t>(port), 80, kSyn)}).task["web"].size(), 1U) << port;
  }
  EXPECT_EQ(world.worker.connections.size(), 1025U);
  EXPECT_EQ(world.from_task(0, {tcp_out(80, 1, kAck)}).trunk.size(), 1U) << "established";
  EXPECT_EQ(world.from_task(0, {tcp_out(80, 5999, kSynAck)}).trunk.size(), 1U) << "the newest can still be answered";
  world.tasks[0].groups[0].egress.clear();
  world.publish();
  EXPECT_EQ(world.from_task(0, {tcp_out(80, 2, kSynAck)}).trunk.size(), 0U) << "the oldest made room, so its answer is nobody's";
}

TEST_F(PipelineTest, WhatIsOverMakesRoomForWhatIsOverLater) {
  world.tasks[0].groups[0].ingress = {rule(6, 80, 80, {"198.51.100.0/24"})};
  world.tasks[0].groups[0].egress = {};
  world.publish();
  const auto live = [&](std::uint16_t port) {
    world.from_trunk({tcp_in(port, 80, kSyn)});
    world.from_task(0, {tcp_out(80, port, kSynAck)});
    world.from_trunk({tcp_in(port, 80, kAck)});
  };
  live(1);
  // The table of a World holds 4096, of which 512 may be over.
  for (std::uint16_t port = 2; port < 5000; ++port) {
    live(port);
    ASSERT_EQ(world.from_task(0, {tcp_out(80, port, kFinAck)}).trunk.size(), 1U) << port;
    ASSERT_EQ(world.from_trunk({tcp_in(port, 80, kFinAck)}).task["web"].size(), 1U) << port;
  }
  EXPECT_EQ(world.worker.connections.size(), 513U);
  EXPECT_EQ(world.from_task(0, {tcp_out(80, 1, kAck)}).trunk.size(), 1U) << "what lives stays";
  EXPECT_EQ(world.from_task(0, {tcp_out(80, 4999, kAck)}).trunk.size(), 1U) << "the last late segment of the newest";
  EXPECT_EQ(world.from_task(0, {tcp_out(80, 2, kAck)}).trunk.size(), 0U) << "the oldest made room";
}

// --- the edge --------------------------------------------------------------------------------------------------------

TEST_F(PipelineTest, ArpOfATask) {
  World::Task other = web_task();
  other.name = "other";
  other.vlan = 102;
  other.mac = "0a:47:e4:7a:2b:03";
  other.addresses = {"10.0.0.36"};
  world.add(other);
  const L2 broadcast{mac("ff:ff:ff:ff:ff:ff"), mac(kWebMac), -1};
  auto ask = [&](const char* sender, const char* target, const MacAddress& sender_mac = mac(kWebMac)) {
    return world.from_task(0, {arp_packet(broadcast, 1, sender_mac, ip(sender), ip(target))});
  };
  // The router and remote peers: the fabric is asked.
  auto out = ask("10.0.0.35", "10.0.0.1");
  ASSERT_EQ(out.trunk.size(), 1U);
  EXPECT_EQ(out.trunk[0], arp_packet({mac("ff:ff:ff:ff:ff:ff"), mac(kWebMac), 101}, 1, mac(kWebMac), ip("10.0.0.35"), ip("10.0.0.1")));
  // A peer on this host: answered here, with its MAC.
  out = ask("10.0.0.35", "10.0.0.36");
  EXPECT_TRUE(out.trunk.empty());
  ASSERT_EQ(out.task.at("web").size(), 1U);
  const Frame& answer = out.task.at("web")[0];
  EXPECT_EQ(Frame(answer.begin(), answer.begin() + 12), ([] { Frame f; put(f, mac("0a:47:e4:7a:2b:02").bytes.data(), 6); put(f, mac("0a:47:e4:7a:2b:03").bytes.data(), 6); return f; })());
  EXPECT_EQ(answer[21], 2);
  EXPECT_EQ(Frame(answer.begin() + 28, answer.begin() + 32), (Frame{10, 0, 0, 36}));
  world.movements();
  struct { const char* sender; const char* target; MacAddress sender_mac; const char* reason; } refused[] = {
      {"10.0.0.35", "10.0.0.35", mac(kWebMac), "arp_gratuitous"},
      {"0.0.0.0", "10.0.0.35", mac(kWebMac), "arp_own_address"},
      {"10.0.0.35", "10.0.0.40", mac(kWebMac), "arp_own_address"},
      {"10.0.0.36", "10.0.0.1", mac(kWebMac), "arp_spoof"},
      {"10.0.0.1", "10.0.0.35", mac(kWebMac), "arp_spoof"},
      {"10.0.0.35", "10.0.0.1", mac("0a:47:e4:7a:2b:03"), "arp_spoof"},
  };
  for (const auto& c : refused) {
    EXPECT_TRUE(ask(c.sender, c.target, c.sender_mac).trunk.empty());
    EXPECT_EQ(world.movements(), (Movements{{"web.egress.rx", 1}, {std::string("web.egress.") + c.reason, 1}}));
  }
}

TEST_F(PipelineTest, EngineAnswersForTheRouterWhereTheConfigSaysSo) {
  world.edge.answer = true;
  world.publish();
  const L2 broadcast{mac("ff:ff:ff:ff:ff:ff"), mac(kWebMac), -1};
  auto out = world.from_task(0, {arp_packet(broadcast, 1, mac(kWebMac), ip("10.0.0.35"), ip("10.0.0.1"))});
  EXPECT_TRUE(out.trunk.empty());
  ASSERT_EQ(out.task.at("web").size(), 1U);
  EXPECT_EQ(std::memcmp(&out.task.at("web")[0][6], kRouter.bytes.data(), 6), 0);
  world.movements();
  EXPECT_TRUE(world.from_task(0, {arp_packet(broadcast, 1, mac(kWebMac), ip("10.0.0.35"), ip("10.9.9.9"))}).task.empty());
  EXPECT_EQ(world.movements(), (Movements{{"web.egress.rx", 1}, {"web.egress.arp_no_answer", 1}}));
}

TEST_F(PipelineTest, ArpFromTheTrunkIsForItsTargetOnly) {
  const L2 broadcast{mac("ff:ff:ff:ff:ff:ff"), kRouter, 101};
  EXPECT_EQ(world.from_trunk({arp_packet(broadcast, 1, kRouter, ip("10.0.0.1"), ip("10.0.0.35"))}).task["web"].size(), 1U);
  world.movements();
  EXPECT_TRUE(world.from_trunk({arp_packet(broadcast, 1, kRouter, ip("10.0.0.1"), ip("10.0.0.99"))}).task.empty());
  EXPECT_EQ(world.movements().at("web.ingress.dest_check"), 1U);
}

Frame solicitation(const L2& l2, const char* source, const char* target, const MacAddress& option) {
  Frame message{135, 0, 0, 0, 0, 0, 0, 0};
  put(message, ip(target).bytes.data(), 16);
  put(message, "\1\1", 2);
  put(message, option.bytes.data(), 6);
  return ip_packet(l2, ip(source), ip("ff02::1:ff00:36"), 58, message);
}

TEST_F(PipelineTest, NeighbourDiscovery) {
  world.tasks[0].addresses.push_back("2001:db8::35");
  world.tasks[0].subnet6 = "2001:db8::/64";
  World::Task other = web_task();
  other.name = "other";
  other.vlan = 102;
  other.mac = "0a:47:e4:7a:2b:03";
  other.addresses = {"2001:db8::36"};
  other.subnet6 = "2001:db8::/64";
  world.add(other);
  const L2 multicast{mac("33:33:ff:00:00:36"), mac(kWebMac), -1};
  // The router: relayed.
  EXPECT_EQ(world.from_task(0, {solicitation(multicast, "2001:db8::35", "fe80:ec2::1", mac(kWebMac))}).trunk.size(), 1U);
  // A peer here: answered, with a checksum that adds up.
  auto out = world.from_task(0, {solicitation(multicast, "2001:db8::35", "2001:db8::36", mac(kWebMac))});
  EXPECT_TRUE(out.trunk.empty());
  ASSERT_EQ(out.task.at("web").size(), 1U);
  const Frame& answer = out.task.at("web")[0];
  ASSERT_EQ(answer.size(), 14U + 40 + 32);
  EXPECT_EQ(answer[54], 136);
  std::uint32_t sum = 32 + 58;
  for (std::size_t i = 22; i < answer.size(); i += 2) sum += static_cast<std::uint32_t>(answer[i] << 8 | answer[i + 1]);
  while (sum >> 16) sum = (sum & 0xffff) + (sum >> 16);
  EXPECT_EQ(sum, 0xffffU);
  world.movements();
  auto refused = [&](const Frame& frame, const char* reason) {
    EXPECT_TRUE(world.from_task(0, {frame}).trunk.empty());
    EXPECT_EQ(world.movements(), (Movements{{"web.egress.rx", 1}, {std::string("web.egress.") + reason, 1}}));
  };
  refused(solicitation(multicast, "::", "2001:db8::35", mac(kWebMac)), "arp_own_address");
  refused(solicitation(multicast, "2001:db8::35", "fe80:ec2::1", mac("0a:47:e4:7a:2b:03")), "arp_spoof");
  refused(solicitation(multicast, "2001:db8::36", "fe80:ec2::1", mac(kWebMac)), "spoof_ip");
  refused(ip_packet(multicast, ip("fe80::847:e4ff:fe7a:2b02"), ip("ff02::1"), 58, [] { Frame m{134, 0}; m.resize(16); return m; }()), "nd_refused");
  Frame wrong_hops = solicitation(multicast, "2001:db8::35", "fe80:ec2::1", mac(kWebMac));
  wrong_hops[14 + 7] = 64;
  refused(wrong_hops, "malformed");
}

// --- size ------------------------------------------------------------------------------------------------------------

TEST_F(PipelineTest, JumboFramePassesTagged) {
  const Frame big = ip_packet(from_web(), ip("10.0.0.35"), ip("1.2.3.4"), 6, tcp_segment(1, 443, kSyn, 9001 - 40));
  ASSERT_EQ(big.size(), 9001U + 14);
  const auto out = world.from_task(0, {big});
  ASSERT_EQ(out.trunk.size(), 1U);
  EXPECT_EQ(out.trunk[0].size(), 9019U);
}

TEST_F(PipelineTest, TooBigForTheTasksPortIsToldByTheRouter) {
  world.tasks[0].mtu = 1500;
  world.publish();
  const Frame big = ip_packet(to_web(), ip("198.51.100.9"), ip("10.0.0.35"), 6, tcp_segment(40000, 80, kSyn, 3000));
  auto out = world.from_trunk({big}, 1000);  // a chain: what is behind the quoted part is given back
  EXPECT_TRUE(out.task.empty());
  ASSERT_EQ(out.trunk.size(), 1U);
  const Frame& error = out.trunk[0];
  EXPECT_EQ(error.size(), 18U + 576) << "as much of the packet as fits";
  EXPECT_EQ(error[14] << 8 | error[15], 101);
  EXPECT_EQ(Frame(error.begin() + 30, error.begin() + 34), (Frame{10, 0, 0, 1}));
  EXPECT_EQ(error[38], 3);
  EXPECT_EQ(error[39], 4);
  EXPECT_EQ(error[44] << 8 | error[45], 1500);
  EXPECT_EQ(out.discarded, 1U);
  EXPECT_EQ(world.movements(), (Movements{{"trunk.in.rx", 1}, {"trunk.in.tx", 1}, {"web.ingress.rx", 1}, {"web.ingress.mtu_exceeded", 1}, {"trunk.out.rx", 1}, {"trunk.out.tx", 1}}));
  // Without DF nobody is told.
  out = world.from_trunk({ip_packet(to_web(), ip("198.51.100.9"), ip("10.0.0.35"), 6, tcp_segment(40000, 80, kSyn, 3000), false)});
  EXPECT_TRUE(out.trunk.empty());
  // At the limit it fits.
  EXPECT_EQ(world.from_trunk({ip_packet(to_web(), ip("198.51.100.9"), ip("10.0.0.35"), 6, tcp_segment(40000, 80, kSyn, 1460))}).task["web"].size(), 1U);
}

TEST_F(PipelineTest, TooBigForALocalPeerIsToldToTheSender) {
  World::Task other = web_task();
  other.name = "other";
  other.vlan = 102;
  other.mac = "0a:47:e4:7a:2b:03";
  other.addresses = {"10.0.0.36"};
  other.mtu = 1500;
  world.add(other);
  world.movements();
  const auto out = world.from_task(0, {ip_packet({mac("0a:47:e4:7a:2b:03"), mac(kWebMac), -1}, ip("10.0.0.35"), ip("10.0.0.36"), 6, tcp_segment(5000, 80, kSyn, 3000))});
  EXPECT_TRUE(out.trunk.empty());
  ASSERT_EQ(out.task.at("web").size(), 1U);
  EXPECT_EQ(std::memcmp(out.task.at("web")[0].data(), mac(kWebMac).bytes.data(), 6), 0);
  EXPECT_EQ(out.task.at("web")[0][34], 3);
  EXPECT_EQ(world.movements(), (Movements{{"web.egress.rx", 1}, {"web.egress.tx", 1}, {"other.ingress.rx", 1}, {"other.ingress.mtu_exceeded", 1}, {"web.ingress.rx", 1}, {"web.ingress.tx", 1}}));
}

TEST_F(PipelineTest, RouterErrorsAreLimited) {
  world.tasks[0].mtu = 1500;
  world.publish();
  std::size_t told = 0;
  for (int i = 0; i < 300; ++i) told += world.from_trunk({ip_packet(to_web(), ip("198.51.100.9"), ip("10.0.0.35"), 6, tcp_segment(40000, 80, kSyn, 3000))}).trunk.size();
  EXPECT_EQ(told, Allowances::kErrorsPerTick);
}

// --- what strangers write --------------------------------------------------------------------------------------------

TEST_F(PipelineTest, EveryTruncationAndEveryByteChangedIsSafeAndAccountedFor) {
  const std::vector<Frame> corpus{
      tcp_in(40000, 80, kSyn),
      ip_packet(to_web(), ip("1.2.3.4"), ip("10.0.0.35"), 17, udp_datagram(1, 2)),
      ip_packet(to_web(), ip("1.2.3.4"), ip("10.0.0.35"), 1, icmp_message(8, 0, 1)),
      arp_packet({mac("ff:ff:ff:ff:ff:ff"), kRouter, 101}, 1, kRouter, ip("10.0.0.1"), ip("10.0.0.35")),
      ip_packet(to_web(), ip("2001:db8::1"), ip("2001:db8::35"), 6, tcp_segment(1, 80, kSyn)),
      solicitation({mac("33:33:ff:00:00:36"), kRouter, 101}, "fe80::1", "2001:db8::35", kRouter),
  };
  world.tasks[0].addresses.push_back("2001:db8::35");
  world.tasks[0].subnet6 = "2001:db8::/64";
  world.publish();
  for (const Frame& frame : corpus) {
    for (std::size_t length = 0; length < frame.size(); ++length) {
      world.from_trunk({Frame(frame.begin(), frame.begin() + static_cast<long>(length))});
      world.mbufs = {};
    }
    for (std::size_t at = 0; at < frame.size(); ++at) {
      for (const int value : {0, 1, 0x7f, 0x80, 0xff}) {
        Frame changed = frame;
        changed[at] = static_cast<std::uint8_t>(value);
        world.from_trunk({changed});
        Frame untagged = changed;
        untagged.erase(untagged.begin() + 12, untagged.begin() + 16);
        if (at >= 16) std::memcpy(&untagged[6], mac(kWebMac).bytes.data(), 6);
        world.from_task(0, {untagged});
        world.mbufs = {};
      }
    }
  }
  world.movements();  // every meter closes
}

TEST_F(PipelineTest, LengthsThatLieAreMalformed) {
  auto refused = [&](Frame frame, const char* reason) {
    EXPECT_TRUE(world.from_trunk({frame}).task.empty());
    EXPECT_EQ(world.movements().count(std::string("web.ingress.") + reason), 1U) << reason;
  };
  const Frame good = tcp_in(40000, 80, kSyn);
  world.from_trunk({good});
  world.movements();
  Frame frame = good;
  frame[18] = 0x44;  // header of 16 bytes
  refused(frame, "malformed");
  frame = good;
  frame[18] = 0x4f;  // header longer than the packet
  refused(frame, "malformed");
  frame = good;
  frame[21] = static_cast<std::uint8_t>(frame[21] + 1);  // total length beyond the frame
  refused(frame, "malformed");
  frame = good;
  frame[21] = 39;  // the TCP header does not fit
  refused(frame, "malformed");
  frame = good;
  frame[18 + 20 + 12] = 0x40;  // TCP header of 16 bytes
  refused(frame, "malformed");
  frame = good;
  frame[24] = 0x20;  // more fragments, and no multiple of eight octets
  refused(frame, "malformed");
  frame = good;
  frame[25] = 1;  // would overwrite the TCP flags of its first fragment
  refused(frame, "fragment_tiny");
  Frame padded = good;
  padded.resize(padded.size() + 6);
  EXPECT_EQ(world.from_trunk({padded}).task["web"].size(), 1U) << "padding is nobody's business";
}

}  // namespace
}  // namespace trunkline::test
