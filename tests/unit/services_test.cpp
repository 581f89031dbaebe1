// SPDX-License-Identifier: BSD-3-Clause
// The services that need no rule (the VPC's router, DNS, time and metadata): what a task may ask, what is an answer, and how near to it the
// rules begin; and the ICMP errors that pass without a rule.
#include <gtest/gtest.h>

#include "dataplane/stages/related.h"
#include "tests/support/edge_packets.h"
#include "tests/support/world.h"

namespace trunkline::test {
namespace {

const MacAddress kRouter = mac("0a:00:00:00:00:01");
const MacAddress kOwn = mac("0a:47:e4:7a:2b:02");
const std::string kOwn4 = "10.0.1.35", kOwn6 = "2001:db8::35";
constexpr std::uint8_t kSyn = 0x02, kSynAck = 0x12, kAck = 0x10;

class ServicesTest : public ::testing::Test {
 protected:
  // A subnet that is not its VPC's first: the resolver is in another. No rule allows anything, and the network ACL denies all.
  void SetUp() override {
    World::Task task;
    task.name = "web";
    task.vlan = 101;
    task.mac = kOwn.to_string();
    task.addresses = {kOwn4, kOwn6};
    task.subnet = "10.0.1.0/24";
    task.subnet6 = "2001:db8::/64";
    config::SecurityGroup nothing;
    nothing.id = "sg-9effe8e4";
    task.groups = {nothing};
    world.adjust = [this](const World::Task&, Endpoint& endpoint) {
      endpoint.resolver = ip("10.0.0.2");
      endpoint.block_imds = block_imds;
      endpoint.icmp_related = icmp_related;
      endpoint.network_acl = acl;
    };
    world.add(task);
    world.worker.flows.on = true;
    world.movements();
  }
  void publish() {
    world.publish();
    world.worker.flows.on = true;
  }
  Frame out(const std::string& to, std::uint8_t protocol, const Frame& payload) const {
    return ip_packet({kRouter, kOwn, -1}, ip(ip(to).is_v4() ? kOwn4 : kOwn6), ip(to), protocol, payload);
  }
  Frame in(const std::string& from, std::uint8_t protocol, const Frame& payload) const {
    return ip_packet({kOwn, kRouter, 101}, ip(from), ip(ip(from).is_v4() ? kOwn4 : kOwn6), protocol, payload);
  }
  void passes_out(const Frame& frame) {
    EXPECT_EQ(world.from_task(0, {frame}).trunk.size(), 1U);
    EXPECT_EQ(world.movements(), (Movements{{"web.egress.rx", 1}, {"web.egress.tx", 1}, {"trunk.out.rx", 1}, {"trunk.out.tx", 1}}));
  }
  void passes_in(const Frame& frame) {
    EXPECT_EQ(world.from_trunk({frame}).task["web"].size(), 1U);
    EXPECT_EQ(world.movements(), (Movements{{"trunk.in.rx", 1}, {"trunk.in.tx", 1}, {"web.ingress.rx", 1}, {"web.ingress.tx", 1}}));
  }
  void refused_out(const Frame& frame, const char* reason) {
    const auto sent = world.from_task(0, {frame});
    EXPECT_TRUE(sent.trunk.empty() && sent.task.empty()) << reason;
    EXPECT_EQ(world.movements(), (Movements{{"web.egress.rx", 1}, {std::string("web.egress.") + reason, 1}}));
  }
  void refused_in(const Frame& frame, const char* reason) {
    EXPECT_TRUE(world.from_trunk({frame}).task.empty()) << reason;
    EXPECT_EQ(world.movements(), (Movements{{"trunk.in.rx", 1}, {"trunk.in.tx", 1}, {"web.ingress.rx", 1}, {std::string("web.ingress.") + reason, 1}}));
  }
  // Records that flow logs would be told of by now, with the end of the interval.
  std::size_t logged() {
    FlowRecorder& flows = world.worker.flows;
    std::uint32_t at = 0;
    world.worker.connections.end_interval(at, world.worker.connections.high_water() + 1, flows);
    flows.begin_loose();
    while (!flows.take_loose(256)) {
    }
    flows.flush();
    const std::uint32_t ready = flows.ring().ready();
    flows.ring().drop(ready);
    return ready;
  }

  World world;
  bool block_imds = false, icmp_related = false;
  std::shared_ptr<const NetworkAcl> acl = std::make_shared<NetworkAcl>();
};

// --- A12, A13 --------------------------------------------------------------------------------------------------------

struct Exempt {
  const char* address;
  std::uint8_t protocol;
  std::uint16_t port;
};

TEST_F(ServicesTest, WhatNeedsNoRulePassesBothWaysWithoutAConnectionOrARecord) {
  const Exempt services[] = {
      {"10.0.0.2", 17, 53},          {"10.0.0.2", 6, 53},           {"169.254.169.253", 17, 53}, {"169.254.169.253", 6, 53}, {"fd00:ec2::253", 17, 53},
      {"169.254.169.123", 17, 123},  {"fd00:ec2::123", 17, 123},    {"169.254.169.254", 6, 80},  {"fd00:ec2::254", 6, 80},   {"169.254.170.2", 6, 80},
      {"169.254.169.250", 6, 1688},  {"169.254.169.251", 6, 1688},  {"10.0.1.1", 6, 443},        {"2001:db8::1", 6, 443},    {"fe80:ec2::1", 17, 9},
      {"fe80::800:ff:fe00:1", 17, 9},  // made of the router's MAC
  };
  for (const Exempt& service : services) {
    SCOPED_TRACE(service.address);
    const bool tcp = service.protocol == 6;
    passes_out(out(service.address, service.protocol, tcp ? tcp_segment(40000, service.port, kSyn) : udp_datagram(40000, service.port)));
    passes_in(in(service.address, service.protocol, tcp ? tcp_segment(service.port, 40000, kSynAck) : udp_datagram(service.port, 40000)));
  }
  passes_out(out("10.0.1.1", 1, icmp_message(8, 0, 7)));
  passes_in(in("10.0.1.1", 1, icmp_message(0, 0, 7)));
  EXPECT_EQ(world.worker.connections.size(), 0U);
  EXPECT_EQ(logged(), 0U);
}

TEST_F(ServicesTest, FilteringBeginsBesideIt) {
  // DNS of anybody else (A13), and other ports of the resolver; the subnet's own .2 is not the resolver; the router of another subnet.
  const Exempt others[] = {{"8.8.8.8", 17, 53}, {"10.0.0.2", 17, 54}, {"10.0.0.2", 6, 80}, {"10.0.1.2", 17, 53}, {"10.0.0.1", 6, 443},
                           {"2001:db8::2", 17, 53}, {"2001:db8:0:1::1", 6, 443}, {"fe80:ec2::2", 6, 443}, {"169.253.169.254", 6, 80}};
  for (const Exempt& other : others) {
    SCOPED_TRACE(other.address);
    const bool tcp = other.protocol == 6;
    refused_out(out(other.address, other.protocol, tcp ? tcp_segment(40000, other.port, kSyn) : udp_datagram(40000, other.port)), "security_group_egress");
    // On the way in the subnet's edge comes first, where the other end is outside.
    const bool inside = world.view->endpoints[0]->in_subnet(ip(other.address));
    refused_in(in(other.address, other.protocol, tcp ? tcp_segment(other.port, 40000, kSynAck) : udp_datagram(other.port, 40000)),
               inside ? "security_group_ingress" : "network_acl_ingress");
  }
  EXPECT_EQ(logged(), std::size(others)) << "refused, and told so";
  EXPECT_EQ(world.worker.connections.size(), 0U);
}

TEST_F(ServicesTest, TheNetworkAclAloneWouldRefuseToo) {
  world.tasks[0].groups[0].ingress = {everything()};
  world.tasks[0].groups[0].egress = {everything()};
  publish();
  world.movements();
  refused_out(out("8.8.8.8", 17, udp_datagram(40000, 53)), "network_acl_egress");
  refused_in(in("8.8.8.8", 17, udp_datagram(53, 40000)), "network_acl_ingress");
  passes_out(out("10.0.0.2", 17, udp_datagram(40000, 53)));
}

TEST_F(ServicesTest, LinkLocalAddressesThatNobodyHasGoNowhere) {
  world.tasks[0].groups[0].ingress = {everything()};
  world.tasks[0].groups[0].egress = {everything()};
  acl = nullptr;
  publish();
  world.movements();
  for (const char* address : {"169.254.0.1", "169.254.169.252", "169.254.172.5", "169.254.255.255", "fd00:ec2::252", "fd00:ec2::1", "fd00:ec2:1::254", "fd00:ec2::1:253"}) {
    SCOPED_TRACE(address);
    refused_out(out(address, 6, tcp_segment(40000, 80, kSyn)), "link_local");
    refused_in(in(address, 6, tcp_segment(80, 40000, kSynAck)), "link_local");
  }
  passes_out(out("169.255.0.1", 6, tcp_segment(40000, 80, kSyn)));
}

TEST_F(ServicesTest, AServiceIsNeverATaskOfThisHost) {
  World::Task imposter = world.tasks[0];
  imposter.name = "imposter";
  imposter.vlan = 102;
  imposter.mac = "0a:47:e4:7a:2b:03";
  imposter.addresses = {"169.254.169.254", "10.0.0.2"};
  world.tasks.push_back(imposter);
  world.generations.push_back(1);
  publish();
  world.movements();
  passes_out(out("169.254.169.254", 6, tcp_segment(40000, 80, kSyn)));
  passes_out(out("10.0.0.2", 17, udp_datagram(40000, 53)));
}

TEST_F(ServicesTest, ServicesAreForTheEnisOwnAddresses) {
  refused_out(ip_packet({kRouter, kOwn, -1}, ip("10.0.1.36"), ip("169.254.169.254"), 6, tcp_segment(40000, 80, kSyn)), "spoof_ip");
  refused_in(ip_packet({kOwn, kRouter, 101}, ip("10.0.1.1"), ip("10.0.1.36"), 17, udp_datagram(9, 9)), "dest_check");
}

// --- what comes in without a rule -----------------------------------------------------------------------------------

TEST_F(ServicesTest, NobodyComesInByAServicesAddress) {
  acl = nullptr;
  publish();
  world.movements();
  for (const char* from : {"10.0.1.1", "10.0.0.2", "169.254.169.253", "169.254.169.123", "169.254.169.254", "169.254.169.250", "169.254.170.2", "2001:db8::1", "fe80:ec2::1",
                           "fe80::800:ff:fe00:1", "fd00:ec2::253", "fd00:ec2::123", "fd00:ec2::254"}) {
    SCOPED_TRACE(from);
    for (const std::uint16_t port : {53, 80, 123, 1688, 4000}) {
      for (const std::uint8_t flags : {kSyn, kSynAck, kAck}) refused_in(in(from, 6, tcp_segment(port, 22, flags)), "security_group_ingress");
      refused_in(in(from, 17, udp_datagram(port, 161)), "security_group_ingress");
    }
    const bool v4 = ip(from).is_v4();
    for (const std::uint8_t type : v4 ? std::vector<std::uint8_t>{0, 3, 5, 8, 11, 13} : std::vector<std::uint8_t>{1, 2, 3, 128, 129}) {
      refused_in(in(from, v4 ? 1 : 58, icmp_message(type, 0, 7, 40)), "security_group_ingress");
    }
    refused_in(in(from, 47, Frame(20)), "security_group_ingress");
  }
  EXPECT_EQ(world.worker.connections.size(), 0U);
}

TEST_F(ServicesTest, AnAnswerIsOfTheVeryFlowThatWasAsked) {
  acl = nullptr;
  publish();
  world.movements();
  passes_out(out("10.0.0.2", 17, udp_datagram(40000, 53)));
  passes_in(in("10.0.0.2", 17, udp_datagram(53, 40000)));
  passes_in(in("10.0.0.2", 17, udp_datagram(53, 40000)));  // a copy, or another of several
  refused_in(in("10.0.0.2", 17, udp_datagram(53, 40001)), "security_group_ingress");
  refused_in(in("10.0.0.2", 17, udp_datagram(54, 40000)), "security_group_ingress");
  refused_in(in("10.0.0.2", 6, tcp_segment(53, 40000, kSynAck)), "security_group_ingress");
  refused_in(in("169.254.169.253", 17, udp_datagram(53, 40000)), "security_group_ingress");
  refused_in(in("10.0.1.1", 17, udp_datagram(53, 40000)), "security_group_ingress");
  // A SYN answers nothing; what else is of the connection does.
  passes_out(out("169.254.169.254", 6, tcp_segment(40000, 80, kSyn)));
  refused_in(in("169.254.169.254", 6, tcp_segment(80, 40000, kSyn)), "security_group_ingress");
  passes_in(in("169.254.169.254", 6, tcp_segment(80, 40000, kSynAck)));
  passes_in(in("169.254.169.254", 6, tcp_segment(80, 40000, 0x11)));
  // A ping of the router lets no ping of the router in, and no other's answer.
  passes_out(out("10.0.1.1", 1, icmp_message(8, 0, 7)));
  passes_in(in("10.0.1.1", 1, icmp_message(0, 0, 7)));
  refused_in(in("10.0.1.1", 1, icmp_message(8, 0, 7)), "security_group_ingress");
  refused_in(in("10.0.1.1", 1, icmp_message(0, 0, 8)), "security_group_ingress");
  // An answer of the task's is no question.
  passes_out(out("10.0.1.1", 1, icmp_message(0, 0, 9)));
  refused_in(in("10.0.1.1", 1, icmp_message(8, 0, 9)), "security_group_ingress");
  // What another ENI asked is not this one's.
  World::Task other = world.tasks[0];
  other.name = "other", other.vlan = 102, other.mac = "0a:47:e4:7a:2b:03", other.addresses = {"10.0.1.36"};
  world.add(other);
  world.movements();
  EXPECT_TRUE(world.from_trunk({ip_packet({mac(other.mac), kRouter, 102}, ip("10.0.0.2"), ip("10.0.1.36"), 17, udp_datagram(53, 40000))}).task.empty());
  world.movements();
  passes_in(in("10.0.0.2", 17, udp_datagram(53, 40000)));
  EXPECT_EQ(world.worker.connections.size(), 0U);
}

TEST_F(ServicesTest, AQuestionWaitsForHalfAMinuteAndAnAnsweredConnectionLonger) {
  acl = nullptr;
  publish();
  const Frame told = in("10.0.0.2", 17, udp_datagram(53, 40000)), page = in("169.254.169.254", 6, tcp_segment(80, 40000, kAck));
  world.from_task(0, {out("10.0.0.2", 17, udp_datagram(40000, 53)), out("169.254.169.254", 6, tcp_segment(40000, 80, kSyn))});
  world.pass(seconds(29));
  world.movements();
  passes_in(told);
  passes_in(page);
  world.pass(seconds(1));
  refused_in(told, "security_group_ingress");  // answers prolong nothing
  passes_in(page);
  world.pass(seconds(319));
  passes_in(page);
  world.pass(seconds(1));
  refused_in(page, "security_group_ingress");
  // Any packet of the task's begins it anew, as after a restart of the engine; until its FIN or RST.
  passes_out(out("169.254.169.254", 6, tcp_segment(40000, 80, kAck)));
  passes_in(page);
  passes_out(out("169.254.169.254", 6, tcp_segment(40000, 80, 0x11)));
  passes_in(page);
  world.pass(seconds(30));
  refused_in(page, "security_group_ingress");
  passes_out(out("169.254.169.254", 6, tcp_segment(40000, 80, kAck)));
  passes_out(out("169.254.169.254", 6, tcp_segment(40000, 80, 0x04)));
  refused_in(page, "security_group_ingress");
}

TEST_F(ServicesTest, OtherPortsOfAServiceAreAMatterOfTheRules) {
  acl = nullptr;
  publish();
  world.movements();
  const Exempt others[] = {{"10.0.0.2", 6, 853},         {"169.254.169.253", 6, 80}, {"169.254.169.123", 17, 53}, {"169.254.169.123", 6, 123}, {"169.254.169.254", 6, 81},
                           {"169.254.169.254", 17, 80}, {"169.254.169.250", 6, 80}, {"169.254.170.2", 6, 443},   {"fd00:ec2::254", 6, 22},    {"fd00:ec2::253", 17, 123}};
  for (const bool allowed : {false, true}) {
    if (allowed) {
      world.tasks[0].groups[0].egress = {everything()};
      publish();
      world.movements();
    }
    for (const Exempt& other : others) {
      SCOPED_TRACE(other.address);
      const Frame frame = out(other.address, other.protocol, other.protocol == 6 ? tcp_segment(40000, other.port, kSyn) : udp_datagram(40000, other.port));
      allowed ? passes_out(frame) : refused_out(frame, "security_group_egress");
    }
  }
  EXPECT_EQ(world.worker.connections.size(), std::size(others)) << "as anybody's";
}

TEST_F(ServicesTest, WhatARuleLetsTheRouterOpenIsAConnection) {
  acl = nullptr;
  world.tasks[0].groups[0].ingress = {rule(6, 22, 22, {"10.0.1.1/32"})};
  publish();
  world.movements();
  passes_in(in("10.0.1.1", 6, tcp_segment(4000, 22, kSyn)));
  passes_out(out("10.0.1.1", 6, tcp_segment(22, 4000, kSynAck)));
  EXPECT_EQ(world.worker.connections.size(), 1U);
  world.worker.connections.for_each([](const Connection& connection) { EXPECT_NE(connection.state, ConnectionState::syn_sent); });
  EXPECT_GE(logged(), 1U);
}

TEST_F(ServicesTest, AnswersInFragmentsComeThrough) {
  acl = nullptr;
  publish();
  const auto piece = [&](std::uint16_t offset, bool more, const Frame& payload) {
    Frame frame = in("10.0.0.2", 17, payload);
    frame[18 + 6] = static_cast<std::uint8_t>((more ? 0x20 : 0) | offset >> 11);
    frame[18 + 7] = static_cast<std::uint8_t>(offset >> 3);
    return frame;
  };
  Frame head = udp_datagram(53, 40000, 1000);
  head.resize(512);
  const Frame tail(500, 'x');
  // Nobody asked: the first one is refused, and the later one with it.
  world.movements();
  world.from_trunk({piece(0, true, head), piece(512, false, tail)});
  EXPECT_EQ(world.movements(), (Movements{{"trunk.in.rx", 2}, {"trunk.in.tx", 2}, {"web.ingress.rx", 2}, {"web.ingress.security_group_ingress", 2}}));
  world.from_task(0, {out("10.0.0.2", 17, udp_datagram(40000, 53))});
  world.movements();
  EXPECT_EQ(world.from_trunk({piece(0, true, head), piece(512, false, tail)}).task["web"].size(), 2U);
  // The later one first: it waits.
  Frame late = piece(512, false, tail), early = piece(0, true, head);
  late[18 + 5] = early[18 + 5] = 9;
  EXPECT_TRUE(world.from_trunk({late}).task.empty());
  EXPECT_EQ(world.from_trunk({early}).task["web"].size(), 2U);
  EXPECT_EQ(world.worker.connections.size(), 0U);
}

TEST_F(ServicesTest, AnEnisQuestionsHaveRoomOfTheirOwn) {
  acl = nullptr;
  publish();
  // The connections' table is full of others' flows and more; the ENI has asked as much as it may, second after second.
  world.tasks[0].max_connections = 0;
  publish();
  std::size_t answered = 0;
  for (std::uint16_t port = 10000; port < 15000; ++port) {
    if (port % 1000 == 0) world.pass(seconds(1));
    world.from_task(0, {out("10.0.0.2", 17, udp_datagram(port, 53))});
    answered += world.from_trunk({in("10.0.0.2", 17, udp_datagram(53, port))}).task["web"].size();
    world.mbufs = {};
  }
  EXPECT_EQ(answered, 5000U);
  // What was asked last is what is remembered.
  std::size_t remembered = 0;
  for (std::uint16_t port = 14000; port < 15000; ++port) {
    remembered += world.from_trunk({in("10.0.0.2", 17, udp_datagram(53, port))}).task["web"].size();
    world.mbufs = {};
  }
  EXPECT_GT(remembered, 700U);
  EXPECT_EQ(world.worker.connections.size(), 0U);
}

// --- nobody is a service ---------------------------------------------------------------------------------------------

TEST_F(ServicesTest, NoTaskSpeaksAsAService) {
  World::Task peer = world.tasks[0];
  peer.name = "peer", peer.vlan = 102, peer.mac = "0a:47:e4:7a:2b:03", peer.addresses = {"10.0.2.36", "2001:db8:2::36"}, peer.subnet = "10.0.2.0/24", peer.subnet6 = "2001:db8:2::/64";
  peer.groups[0].ingress = {everything()};
  world.add(peer);
  world.tasks[0].groups[0].egress = {everything()};
  acl = nullptr;
  for (const bool checked : {true, false}) {
    world.tasks[0].source_dest_check = checked;
    publish();
    world.movements();
    // Also the router of the other's subnet.
    for (const char* source : {"10.0.1.1", "10.0.2.1", "10.0.0.2", "169.254.169.253", "169.254.169.123", "169.254.169.254", "169.254.169.250", "169.254.170.2", "169.254.7.7",
                               "2001:db8::1", "2001:db8:2::1", "fe80:ec2::1", "fe80::800:ff:fe00:1", "fd00:ec2::253", "fd00:ec2::123", "fd00:ec2::254", "fd00:ec2::9"}) {
      SCOPED_TRACE(source);
      const bool v4 = ip(source).is_v4();
      for (const char* to : {v4 ? "198.51.100.9" : "2001:db8:9::1", v4 ? "10.0.2.36" : "2001:db8:2::36", v4 ? "10.0.0.2" : "fd00:ec2::253"}) {
        refused_out(ip_packet({kRouter, kOwn, -1}, ip(source), ip(to), 17, udp_datagram(53, 40000)), "spoof_ip");
        refused_out(ip_packet({kRouter, kOwn, -1}, ip(source), ip(to), 6, tcp_segment(4000, 22, kSyn)), "spoof_ip");
        refused_out(ip_packet({kRouter, kOwn, -1}, ip(source), ip(to), v4 ? 1 : 58, icmp_message(8, 0, 7)), "spoof_ip");
      }
    }
  }
  // Others may be forwarded where sources are not checked.
  passes_out(ip_packet({kRouter, kOwn, -1}, ip("10.0.3.1"), ip("198.51.100.9"), 17, udp_datagram(53, 40000)));
}

TEST_F(ServicesTest, AnAddressOfItsOwnThatIsAServicesIsNotSentFrom) {
  world.tasks[0].groups[0].egress = {everything()};
  for (const char* own : {"10.0.1.1", "10.0.0.2", "169.254.169.254"}) {
    world.tasks[0].addresses = {own, kOwn6};
    acl = nullptr;
    publish();
    world.movements();
    refused_out(ip_packet({kRouter, kOwn, -1}, ip(own), ip("198.51.100.9"), 6, tcp_segment(5000, 443, kSyn, 20)), "spoof_ip");
  }
}

TEST_F(ServicesTest, TheRouterIsSpokenToFromLinkLocalAddresses) {
  acl = nullptr;
  publish();
  world.movements();
  const char* own = "fe80::847:e4ff:fe7a:2b02";
  for (const char* router : {"fe80:ec2::1", "fe80::800:ff:fe00:1"}) {
    passes_out(ip_packet({kRouter, kOwn, -1}, ip(own), ip(router), 58, icmp_message(128, 0, 7)));
    passes_in(ip_packet({kOwn, kRouter, 101}, ip(router), ip(own), 58, icmp_message(129, 0, 7)));
    refused_in(ip_packet({kOwn, kRouter, 101}, ip(router), ip(own), 58, icmp_message(128, 0, 7)), "security_group_ingress");
    refused_in(ip_packet({kOwn, kRouter, 101}, ip(router), ip("fe80::1"), 58, icmp_message(129, 0, 7)), "dest_check");
    refused_out(ip_packet({kRouter, kOwn, -1}, ip("fe80::1"), ip(router), 58, icmp_message(128, 0, 7)), "spoof_ip");
  }
  refused_out(ip_packet({kRouter, kOwn, -1}, ip(own), ip("fe80::2"), 58, icmp_message(128, 0, 7)), "spoof_ip");
  refused_in(ip_packet({kOwn, kRouter, 101}, ip("fe80::2"), ip(own), 58, icmp_message(128, 0, 7)), "dest_check");
}

// --- what needs no rule has its limits all the same ----------------------------------------------------------------------

TEST_F(ServicesTest, RateLimitsAreForAllThatAnEniSendsAndReceives) {
  acl = nullptr;
  world.tasks[0].limits.packets[0] = world.tasks[0].limits.packets[1] = 40;  // a bucket of two packets
  publish();
  const MacAddress all = mac("ff:ff:ff:ff:ff:ff");
  const std::vector<Frame> sent = {out("10.0.1.1", 1, icmp_message(8, 0, 7)), out("10.0.0.2", 17, udp_datagram(40000, 53)), arp_packet({all, kOwn, -1}, 1, kOwn, ip(kOwn4), ip("10.0.1.1"))};
  const std::vector<Frame> told = {in("10.0.1.1", 1, icmp_message(0, 0, 7)), in("10.0.0.2", 17, udp_datagram(53, 40000)), arp_packet({kOwn, kRouter, 101}, 2, kRouter, ip("10.0.1.1"), ip(kOwn4))};
  world.pass(seconds(1));
  world.from_task(0, sent);
  world.pass(seconds(1));
  world.movements();
  for (std::size_t i = 0; i < sent.size(); ++i) {
    for (int n = 0; n < 2; ++n) passes_out(sent[i]), passes_in(told[i]);
    refused_out(sent[(i + 1) % 3], "pps_allowance_exceeded");
    refused_in(told[(i + 1) % 3], "pps_allowance_exceeded");
    world.pass(seconds(1));
  }
  world.tasks[0].limits = {};
  world.tasks[0].limits.bytes[0] = world.tasks[0].limits.bytes[1] = 20;
  publish();
  world.pass(seconds(1000));
  world.movements();
  const auto big = [&](bool outwards) { return outwards ? out("10.0.1.1", 1, icmp_message(8, 0, 7, 8000)) : in("10.0.1.1", 1, icmp_message(0, 0, 7, 8000)); };
  passes_out(big(true)), passes_out(big(true));
  refused_out(big(true), "bw_out_allowance_exceeded");
  passes_in(big(false)), passes_in(big(false));
  refused_in(big(false), "bw_in_allowance_exceeded");
}

TEST_F(ServicesTest, TheRouterAndTheEdgeHaveAllowancesOfTheirOwn) {
  const MacAddress all = mac("ff:ff:ff:ff:ff:ff");
  const Frame ping = out("10.0.1.1", 1, icmp_message(8, 0, 7)), arp = arp_packet({all, kOwn, -1}, 1, kOwn, ip(kOwn4), ip("10.0.1.1")), dns = out("10.0.0.2", 17, udp_datagram(40000, 53));
  for (const Frame& frame : {ping, arp, dns}) {
    std::size_t passed = 0;
    for (int i = 0; i < 1100; ++i) {
      passed += world.from_task(0, {frame}).trunk.size();
      world.mbufs = {};
    }
    EXPECT_EQ(passed, 1024U);
    EXPECT_EQ(world.movements(), (Movements{{"web.egress.rx", 1100}, {"web.egress.tx", 1024}, {"web.egress.linklocal_allowance_exceeded", 76}, {"trunk.out.rx", 1024}, {"trunk.out.tx", 1024}}));
  }
  world.pass(seconds(1));
  for (const Frame& frame : {ping, arp, dns}) passes_out(frame);
}

// --- T-47 ------------------------------------------------------------------------------------------------------------

TEST_F(ServicesTest, MetadataCanBeBlockedAndCredentialsAreNot) {
  for (const bool blocked : {true, false, true}) {
    block_imds = blocked;
    publish();
    world.movements();
    for (const char* address : {"169.254.169.254", "fd00:ec2::254"}) {
      const Frame ask = out(address, 6, tcp_segment(40000, 80, kSyn)), told = in(address, 6, tcp_segment(80, 40000, kSynAck));
      if (blocked) {
        refused_out(ask, "imds_blocked");
        refused_in(told, "imds_blocked");
      } else {
        passes_out(ask);
        passes_in(told);
      }
    }
    passes_out(out("169.254.170.2", 6, tcp_segment(40000, 80, kSyn)));
    passes_in(in("169.254.170.2", 6, tcp_segment(80, 40000, kSynAck)));
    passes_out(out("169.254.169.253", 17, udp_datagram(40000, 53)));
    passes_in(in("169.254.169.253", 17, udp_datagram(53, 40000)));
  }
}

TEST_F(ServicesTest, WhatTheServicesAreAskedHasALimitASecond) {
  const Frame query = out("10.0.0.2", 17, udp_datagram(40000, 53));
  std::size_t passed = 0;
  for (int i = 0; i < 1100; ++i) {
    passed += world.from_task(0, {query}).trunk.size();
    world.mbufs = {};
  }
  EXPECT_EQ(passed, 1024U);
  EXPECT_EQ(world.movements(), (Movements{{"web.egress.rx", 1100}, {"web.egress.tx", 1024}, {"web.egress.linklocal_allowance_exceeded", 76}, {"trunk.out.rx", 1024}, {"trunk.out.tx", 1024}}));
  // DNS, time and metadata together; the router is not one of them, nor are answers.
  refused_out(out("169.254.169.123", 17, udp_datagram(40000, 123)), "linklocal_allowance_exceeded");
  passes_out(out("10.0.1.1", 1, icmp_message(8, 0, 7)));
  passes_in(in("10.0.0.2", 17, udp_datagram(53, 40000)));
  world.pass(seconds(1));
  passes_out(query);
}

// --- A17 -------------------------------------------------------------------------------------------------------------

class ErrorsTest : public ServicesTest {
 protected:
  // A live connection out to 198.51.100.9:443, tracked, and one in from 198.51.100.9 to 80; no rule for ICMP.
  void SetUp() override {
    acl = nullptr;
    ServicesTest::SetUp();
    world.tasks[0].groups[0].egress = {rule(6, 443, 443, {"198.51.100.9/32", "2001:db8:9::1/128"}), rule(17, 53, 53, {"198.51.100.9/32"}), rule(1, 8, -1, {"198.51.100.9/32"})};
    publish();
    world.from_task(0, {sent(40000, 443)});
    world.from_trunk({in("198.51.100.9", 6, tcp_segment(443, 40000, kSynAck))});
    world.from_task(0, {out("2001:db8:9::1", 6, tcp_segment(40000, 443, kSyn))});
    ASSERT_EQ(world.worker.connections.size(), 2U);
    world.movements();
  }
  void relate() {
    icmp_related = true;
    publish();
    world.movements();
  }
  Frame sent(std::uint16_t from, std::uint16_t to, const char* destination = "198.51.100.9") const { return out(destination, 6, tcp_segment(from, to, kSyn)); }
  // An IP packet as the router on the way saw it.
  static Frame quote(const Frame& frame, std::size_t bytes = 28) { return part(frame, 14, std::min(bytes, frame.size() - 14)); }
  Frame error(const Frame& quoted, const char* from = "203.0.113.7", std::uint8_t type = 3, std::uint8_t code = 4) const {
    return in(from, 1, icmp_error(type, code, 1400, quoted));
  }
  Frame error6(const Frame& quoted, const char* from = "2001:db8:7::1", std::uint8_t type = 2) const {
    Frame body{0, 0, 0x05, 0x78};
    put(body, quoted.data(), quoted.size());
    return icmp6_frame({kOwn, kRouter, 101}, from, kOwn6, type, body, 64);
  }
};

TEST_F(ErrorsTest, AnErrorFromTheWayIsRefusedAndOneFromTheSubnetsRouterPasses) {
  refused_in(error(quote(sent(40000, 443))), "security_group_ingress");
  passes_in(error(quote(sent(40000, 443)), "10.0.1.1"));
  refused_in(error(quote(sent(40000, 443)), "10.0.0.1"), "security_group_ingress");  // another subnet's router
  // Only about what the task sent, and errors only.
  refused_in(error(quote(sent(40001, 443)), "10.0.1.1"), "security_group_ingress");
  refused_in(error(quote(sent(40000, 443, "198.51.100.10")), "10.0.1.1"), "security_group_ingress");
  refused_in(error(quote(sent(40000, 443)), "10.0.1.1", 5, 1), "security_group_ingress");
  refused_in(error(quote(sent(40000, 443)), "10.0.0.2"), "security_group_ingress");  // the resolver is no router
  // About what it asked of services: from the router, or from the one that it asked.
  world.from_task(0, {out("10.0.0.2", 17, udp_datagram(40000, 53))});
  world.movements();
  const Frame asked = quote(out("10.0.0.2", 17, udp_datagram(40000, 53)));
  passes_in(error(asked, "10.0.1.1"));
  passes_in(error(asked, "10.0.0.2", 3, 3));
  refused_in(error(asked, "169.254.169.254", 3, 3), "security_group_ingress");
  refused_in(error(asked, "198.51.100.9", 3, 3), "security_group_ingress");
  const Frame quoted = quote(out("2001:db8:9::1", 6, tcp_segment(40000, 443, kSyn)), 60);
  refused_in(error6(quoted), "security_group_ingress");
  passes_in(error6(quoted, "2001:db8::1"));
  EXPECT_EQ(world.worker.connections.size(), 2U);
  // A rule lets it in, as AWS's guide says that one should have.
  world.tasks[0].groups[0].ingress = {rule(1, 3, 4, {"0.0.0.0/0"})};
  publish();
  world.movements();
  passes_in(error(quote(sent(40000, 443))));
  refused_in(error(quote(sent(40000, 443)), "203.0.113.7", 11, 0), "security_group_ingress");
}

// --- T-59 ------------------------------------------------------------------------------------------------------------

TEST_F(ErrorsTest, WithIcmpRelatedAnErrorAboutALiveConnectionPasses) {
  relate();
  for (const auto& [type, code] : {std::pair<std::uint8_t, std::uint8_t>{3, 4}, {3, 1}, {11, 0}, {12, 0}}) passes_in(error(quote(sent(40000, 443)), "203.0.113.7", type, code));
  const Frame quoted = quote(out("2001:db8:9::1", 6, tcp_segment(40000, 443, kSyn)), 60);
  for (const std::uint8_t type : {1, 2, 3, 4}) passes_in(error6(quoted, "2001:db8:7::1", type));
  EXPECT_EQ(world.worker.connections.size(), 2U) << "it opens nothing";
  // Not what only looks like one: a redirect, a source quench, a question, an IPv6 type of another meaning.
  for (const std::uint8_t type : {4, 5, 8, 0, 13}) refused_in(error(quote(sent(40000, 443)), "203.0.113.7", type, 0), "security_group_ingress");
  for (const std::uint8_t type : {0, 5, 127, 128, 139}) refused_in(error6(quoted, "2001:db8:7::1", type), "security_group_ingress");
}

TEST_F(ErrorsTest, ItRefreshesNothingAndEndsWithTheConnection) {
  world.from_task(0, {out("198.51.100.9", 17, udp_datagram(40000, 53))});
  relate();
  const Frame about = error(quote(out("198.51.100.9", 17, udp_datagram(40000, 53))));
  passes_in(about);
  world.pass(seconds(29));
  passes_in(about);
  world.pass(seconds(2));
  refused_in(about, "security_group_ingress");
}

TEST_F(ErrorsTest, ForgedQuotationsAreRefused) {
  relate();
  const Frame sound = quote(sent(40000, 443));
  passes_in(error(sound));
  refused_in(error(quote(sent(40001, 443))), "security_group_ingress");
  refused_in(error(quote(sent(40000, 80))), "security_group_ingress");
  refused_in(error(quote(sent(40000, 443, "198.51.100.10"))), "security_group_ingress");
  Frame forged = sound;
  forged[9] = 17;  // another protocol
  refused_in(error(forged), "security_group_ingress");
  forged = sound;
  forged[15] = 36;  // not from this ENI
  refused_in(error(forged), "security_group_ingress");
  forged = sound;
  forged[7] = 1;  // a later fragment: no ports
  refused_in(error(forged), "security_group_ingress");
  forged = sound;
  forged[0] = 0x65;
  refused_in(error(forged), "security_group_ingress");
  forged = sound;
  forged[0] = 0x44;
  refused_in(error(forged), "security_group_ingress");
  // The wrong way: it quotes what came to the task, not what the task sent.
  refused_in(error(quote(ip_packet({}, ip("198.51.100.9"), ip(kOwn4), 6, tcp_segment(443, 40000, kAck)))), "security_group_ingress");
  // To another address of the ENI than the quoted packet came from.
  world.tasks[0].addresses = {kOwn4, kOwn6, "10.0.1.40"};
  publish();
  world.movements();
  refused_in(ip_packet({kOwn, kRouter, 101}, ip("203.0.113.7"), ip("10.0.1.40"), 1, icmp_error(3, 4, 1400, sound)), "security_group_ingress");
  passes_in(error(sound));
}

TEST_F(ErrorsTest, NestedErrorsAreRefusedAndQuotedQuestionsAreNot) {
  relate();
  const Frame ping = out("198.51.100.9", 1, icmp_message(8, 0, 7));
  world.from_task(0, {ping});
  world.movements();
  passes_in(error(quote(ping)));
  refused_in(error(quote(out("198.51.100.9", 1, icmp_message(8, 0, 8)))), "security_group_ingress");
  refused_in(error(quote(out("198.51.100.9", 1, icmp_message(0, 0, 7)))), "security_group_ingress");  // it asked, it did not answer
  const Frame nested = out("198.51.100.9", 1, icmp_error(3, 4, 1400, quote(sent(40000, 443))));
  refused_in(error(quote(nested, 56)), "security_group_ingress");
}

TEST_F(ErrorsTest, QuotationsCutShortAreRefused) {
  relate();
  for (const bool v4 : {true, false}) {
    const std::size_t whole = v4 ? 24 : 44;  // to the end of the ports, as nf_conntrack has it
    const Frame quoted = quote(v4 ? sent(40000, 443) : out("2001:db8:9::1", 6, tcp_segment(40000, 443, kSyn)), whole);
    for (std::size_t bytes = 0; bytes < whole; ++bytes) {
      Frame frame = v4 ? error(part(quoted, 0, bytes)) : error6(part(quoted, 0, bytes));
      refused_in(frame, "security_group_ingress");
      // What follows as padding is not part of the packet.
      put(frame, quoted.data() + bytes, whole - bytes);
      refused_in(frame, "security_group_ingress");
      world.mbufs = {};
    }
    passes_in(v4 ? error(quoted) : error6(quoted));
  }
}

TEST_F(ErrorsTest, ErrorsThatTheTaskSendsAreAboutWhatCameToIt) {
  world.tasks[0].groups[0].ingress = {rule(17, 53, 53, {"198.51.100.9/32"})};
  world.tasks[0].groups[0].egress.clear();
  relate();
  const Frame query = in("198.51.100.9", 17, udp_datagram(40000, 53));
  passes_in(query);
  const Frame received = part(query, 18, 28);
  passes_out(out("198.51.100.9", 1, icmp_error(3, 3, 0, received)));
  refused_out(out("198.51.100.10", 1, icmp_error(3, 3, 0, received)), "security_group_egress");  // not to whom it is about
  refused_out(out("198.51.100.9", 1, icmp_error(3, 3, 0, quote(out("198.51.100.9", 17, udp_datagram(53, 40000))))), "security_group_egress");
}

TEST_F(ErrorsTest, EveryByteOfAQuotationChangedIsSafe) {
  relate();
  for (const Frame& sound : {error(quote(sent(40000, 443))), error6(quote(out("2001:db8:9::1", 6, tcp_segment(40000, 443, kSyn)), 60))}) {
    for (std::size_t at = 18; at < sound.size(); ++at) {
      for (const int value : {0, 1, 0x45, 0x4f, 0x60, 0x7f, 0x80, 0xff}) {
        Frame changed = sound;
        changed[at] = static_cast<std::uint8_t>(value);
        world.from_trunk({changed});
        world.from_trunk({changed}, 64);
      }
      world.mbufs = {};
    }
  }
  world.movements();
}

}  // namespace
}  // namespace trunkline::test
