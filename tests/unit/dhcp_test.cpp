// SPDX-License-Identifier: BSD-3-Clause
// DHCP at the edge: what a task may ask, what the engine tells it, what the fabric may, and that neither rules nor flow logs hear of it.
#include "dataplane/stages/dhcp.h"

#include <gtest/gtest.h>

#include "config/engine_config.h"
#include "tests/support/edge_packets.h"
#include "tests/support/world.h"

namespace trunkline::test {
namespace {

const MacAddress kRouter = mac("0a:00:00:00:00:01");
const MacAddress kOwn = mac("0a:47:e4:7a:2b:02");
const MacAddress kOther = mac("0a:47:e4:7a:2b:03");
const MacAddress kAll = mac("ff:ff:ff:ff:ff:ff");
constexpr std::uint8_t kDiscover = 1, kOffer = 2, kRequest = 3, kDecline = 4, kAck = 5, kNak = 6, kRelease = 7, kInform = 8;

static_assert(dhcp::kMaxDomain == config::kMaxDhcpDomain);

class DhcpTest : public ::testing::Test {
 protected:
  // No rules at all: whatever passes here passes without them.
  void SetUp() override {
    World::Task task;
    task.name = "web";
    task.vlan = 101;
    task.mac = kOwn.to_string();
    task.addresses = {"10.0.0.35", "10.0.0.40", "2001:db8::35"};
    task.subnet6 = "2001:db8::/64";
    task.mtu = 1500;
    config::SecurityGroup nothing;
    nothing.id = "sg-9effe8e4";
    task.groups = {nothing};
    world.adjust = [](const World::Task&, Endpoint& endpoint) { endpoint.resolver = ip("10.0.0.2"); };
    world.add(task);
  }
  void answer() {
    world.edge.dhcp = DhcpMode::answer;
    world.publish();
  }
  DhcpMessage message(std::uint8_t type) const {
    DhcpMessage result;
    result.client = kOwn;
    result.options = DhcpOptions{}.add(53, {type}).bytes;
    return result;
  }
  DhcpMessage request_of(const char* address) const {
    DhcpMessage result = message(kRequest);
    const Frame wanted = DhcpOptions{}.address(50, address).bytes;
    put(result.options, wanted.data(), wanted.size());
    return result;
  }
  Frame from_task(const DhcpMessage& sent, const char* source = "0.0.0.0", const char* destination = "255.255.255.255") const {
    const bool to_all = std::string(destination) == "255.255.255.255";
    return ip_packet({to_all ? kAll : kRouter, kOwn, -1}, ip(source), ip(destination), 17, sent.udp(68, 67));
  }
  Frame from_server(const DhcpMessage& sent, const char* source = "10.0.0.1", const char* destination = "255.255.255.255") const {
    const bool to_all = std::string(destination) == "255.255.255.255";
    return ip_packet({to_all ? kAll : kOwn, kRouter, 101}, ip(source), ip(destination), 17, sent.udp(67, 68));
  }
  DhcpMessage reply(std::uint8_t type, const char* yours = "10.0.0.35") const {
    DhcpMessage result = message(type);
    result.reply = true;
    result.your_address = yours;
    return result;
  }
  void refused_from_task(const Frame& frame, const char* reason) {
    const auto out = world.from_task(0, {frame});
    EXPECT_TRUE(out.trunk.empty() && out.task.empty()) << reason;
    EXPECT_EQ(world.movements(), (Movements{{"web.egress.rx", 1}, {std::string("web.egress.") + reason, 1}}));
  }
  void refused_from_trunk(const Frame& frame, const char* reason) {
    EXPECT_TRUE(world.from_trunk({frame}).task.empty()) << reason;
    EXPECT_EQ(world.movements(), (Movements{{"trunk.in.rx", 1}, {"trunk.in.tx", 1}, {"web.ingress.rx", 1}, {std::string("web.ingress.") + reason, 1}}));
  }
  // The one frame that the task is answered with.
  Frame answered(const Frame& frame) {
    world.movements();
    auto out = world.from_task(0, {frame});
    EXPECT_TRUE(out.trunk.empty());
    EXPECT_EQ(world.movements(), (Movements{{"web.egress.rx", 1}, {"web.egress.tx", 1}, {"web.ingress.rx", 1}, {"web.ingress.tx", 1}}));
    EXPECT_EQ(out.task["web"].size(), 1U);
    return out.task["web"].empty() ? Frame(400) : out.task["web"][0];
  }

  World world;
};

// --- relayed ---------------------------------------------------------------------------------------------------------

TEST_F(DhcpTest, RequestsGoToTheFabricAsTheyAre) {
  for (const std::uint8_t type : {kDiscover, kRequest, kDecline, kRelease, kInform}) {
    const Frame sent = from_task(message(type));
    const auto out = world.from_task(0, {sent});
    ASSERT_EQ(out.trunk.size(), 1U) << int{type};
    Frame tagged = sent;
    const std::uint8_t tag[] = {0x81, 0, 0, 101};
    tagged.insert(tagged.begin() + 12, tag, tag + 4);
    EXPECT_EQ(out.trunk[0], tagged);
    EXPECT_EQ(world.movements(), (Movements{{"web.egress.rx", 1}, {"web.egress.tx", 1}, {"trunk.out.rx", 1}, {"trunk.out.tx", 1}}));
  }
  DhcpMessage renewal = message(kRequest);
  renewal.client_address = "10.0.0.35";
  EXPECT_EQ(world.from_task(0, {from_task(renewal, "10.0.0.35", "10.0.0.1")}).trunk.size(), 1U);
  EXPECT_EQ(world.from_task(0, {from_task(renewal, "10.0.0.40")}).trunk.size(), 1U);
  EXPECT_EQ(world.worker.connections.size(), 0U) << "no connection, so nothing for flow logs";
}

TEST_F(DhcpTest, ATaskSpeaksForItselfOnly) {
  world.movements();
  refused_from_task(from_task(message(kDiscover), "10.0.0.36"), "spoof_ip");
  DhcpMessage sent = message(kDiscover);
  sent.client = kOther;  // what a starver of pools does
  refused_from_task(from_task(sent), "dhcp_refused");
  sent = message(kDiscover);
  sent.relay_agent = "10.0.0.35";
  refused_from_task(from_task(sent), "dhcp_refused");
  sent = message(kRelease);
  sent.client_address = "10.0.0.36";
  refused_from_task(from_task(sent), "dhcp_refused");
  Frame frame = from_task(message(kDiscover));
  std::memcpy(&frame[6], kOther.bytes.data(), 6);
  refused_from_task(frame, "spoof_mac");
  frame = from_task(message(kDiscover));
  std::memcpy(&frame[0], kRouter.bytes.data(), 6);
  refused_from_task(frame, "multicast");
  frame = from_task(message(kDiscover), "10.0.0.35", "10.0.0.1");
  std::memcpy(&frame[0], kAll.bytes.data(), 6);
  refused_from_task(frame, "multicast");
}

TEST_F(DhcpTest, WhatIsNoRequestIsRefused) {
  world.movements();
  for (const std::uint8_t type : {0, 2, 5, 6, 9, 10, 255}) refused_from_task(from_task(message(type)), "dhcp_refused");
  DhcpMessage sent = message(kDiscover);
  sent.options.clear();  // BOOTP
  refused_from_task(from_task(sent), "dhcp_refused");
  sent = message(kDiscover);
  sent.reply = true;
  refused_from_task(from_task(sent), "dhcp_refused");
  // Not to all and not to the router: a datagram like any other, for the rules to judge.
  refused_from_task(from_task(message(kDiscover), "10.0.0.35", "10.0.0.9"), "security_group_egress");
  refused_from_task(ip_packet({kAll, kOwn, -1}, ip("0.0.0.0"), ip("255.255.255.255"), 17, message(kDiscover).udp(68, 69)), "multicast");
  refused_from_task(ip_packet({kAll, kOwn, -1}, ip("0.0.0.0"), ip("255.255.255.255"), 6, tcp_segment(68, 67, 2)), "multicast");
}

TEST_F(DhcpTest, ATaskIsNoServer) {
  world.tasks[0].groups[0].egress = {everything()};  // the rules would let it
  world.publish();
  world.movements();
  for (const char* source : {"10.0.0.35", "10.0.0.40"}) {
    for (const char* destination : {"255.255.255.255", "10.0.0.36", "10.0.0.1"}) {
      const L2 l2{std::string(destination) == "255.255.255.255" ? kAll : kRouter, kOwn, -1};
      refused_from_task(ip_packet(l2, ip(source), ip(destination), 17, reply(kOffer).udp(67, 68)), "dhcp_refused");
    }
  }
  refused_from_task(ip_packet({kRouter, kOwn, -1}, ip("2001:db8::35"), ip("2001:db8::36"), 17, udp_datagram(547, 546)), "dhcp_refused");
  // The same ports of TCP are nothing special, nor are the next ones of UDP.
  EXPECT_EQ(world.from_task(0, {ip_packet({kRouter, kOwn, -1}, ip("10.0.0.35"), ip("10.0.0.36"), 6, tcp_segment(67, 68, 2))}).trunk.size(), 1U);
  EXPECT_EQ(world.from_task(0, {ip_packet({kRouter, kOwn, -1}, ip("10.0.0.35"), ip("10.0.0.36"), 17, udp_datagram(67, 69))}).trunk.size(), 1U);
  EXPECT_EQ(world.from_task(0, {ip_packet({kRouter, kOwn, -1}, ip("10.0.0.35"), ip("10.0.0.36"), 17, udp_datagram(66, 68))}).trunk.size(), 1U);
}

TEST_F(DhcpTest, AnswersOfTheVpcReachTheTask) {
  for (const std::uint8_t type : {kOffer, kAck, kNak}) {
    for (const char* destination : {"255.255.255.255", "10.0.0.35"}) {
      world.movements();
      const auto out = world.from_trunk({from_server(reply(type, type == kNak ? "0.0.0.0" : "10.0.0.35"), "10.0.0.1", destination)});
      ASSERT_EQ(out.task.count("web"), 1U) << int{type} << destination;
      EXPECT_EQ(world.movements(), (Movements{{"trunk.in.rx", 1}, {"trunk.in.tx", 1}, {"web.ingress.rx", 1}, {"web.ingress.tx", 1}}));
    }
  }
  EXPECT_EQ(world.worker.connections.size(), 0U);
}

TEST_F(DhcpTest, AnswersAboutAnotherOrFromAnotherAreRefused) {
  world.movements();
  refused_from_trunk(from_server(reply(kOffer, "10.0.0.36")), "dhcp_refused");
  DhcpMessage sent = reply(kOffer);
  sent.client = kOther;
  refused_from_trunk(from_server(sent), "dhcp_refused");
  for (const std::uint8_t type : {kDiscover, kRequest, kDecline, kRelease, kInform}) refused_from_trunk(from_server(reply(type)), "dhcp_refused");
  sent = reply(kOffer);
  sent.reply = false;
  refused_from_trunk(from_server(sent), "dhcp_refused");
  refused_from_trunk(from_server(reply(kOffer), "10.0.0.1", "10.0.0.36"), "dest_check");
  // Somebody in the VPC who would like to be the server.
  refused_from_trunk(from_server(reply(kOffer), "10.0.0.99"), "multicast");
  refused_from_trunk(from_server(reply(kOffer), "10.0.0.99", "10.0.0.35"), "security_group_ingress");
  // A client's question that strayed here.
  refused_from_trunk(ip_packet({kAll, kRouter, 101}, ip("10.0.0.1"), ip("255.255.255.255"), 17, message(kDiscover).udp(68, 67)), "multicast");
}

TEST_F(DhcpTest, AnUntaggedEniIsFoundByTheClientsMac) {
  world.tasks[0].vlan = 0;
  world.publish();
  world.movements();
  Frame sent = from_server(reply(kOffer));
  sent.erase(sent.begin() + 12, sent.begin() + 16);
  EXPECT_EQ(world.from_trunk({sent}).task["web"].size(), 1U);
  world.movements();
  DhcpMessage other = reply(kOffer);
  other.client = kOther;
  sent = from_server(other);
  sent.erase(sent.begin() + 12, sent.begin() + 16);
  EXPECT_TRUE(world.from_trunk({sent}).task.empty());
  EXPECT_EQ(world.movements(), (Movements{{"trunk.in.rx", 1}, {"trunk.in.unknown_eni", 1}}));
}

TEST_F(DhcpTest, OffMeansNobody) {
  world.edge.dhcp = DhcpMode::off;
  world.publish();
  world.movements();
  refused_from_task(from_task(message(kDiscover)), "dhcp_refused");
  refused_from_trunk(from_server(reply(kOffer)), "dhcp_refused");
  refused_from_task(ip_packet({mac("33:33:00:01:00:02"), kOwn, -1}, ip("2001:db8::35"), ip("ff02::1:2"), 17, udp_datagram(546, 547)), "dhcp_refused");
}

// --- answered --------------------------------------------------------------------------------------------------------

TEST_F(DhcpTest, TheLease) {
  answer();
  for (const std::uint8_t type : {kDiscover, kRequest}) {
    const Frame out = answered(from_task(type == kDiscover ? message(kDiscover) : request_of("10.0.0.35")));
    EXPECT_EQ(part(out, 0, 6), part(from_task(message(kDiscover)), 6, 6)) << "to the asker";
    EXPECT_EQ(part(out, 6, 6), Frame(kRouter.bytes.begin(), kRouter.bytes.end()));
    EXPECT_EQ(folded_sum(out, 14, 34), 0xffffU);
    EXPECT_EQ(transport_sum(out), 0xffffU);
    EXPECT_EQ(out[14 + 2] << 8 | out[14 + 3], static_cast<int>(out.size()) - 14);
    EXPECT_EQ(part(out, 26, 4), (Frame{10, 0, 0, 1}));
    EXPECT_EQ(part(out, 30, 4), (Frame{10, 0, 0, 35}));
    EXPECT_EQ(part(out, 34, 4), (Frame{0, 67, 0, 68}));
    EXPECT_EQ(out[42], 2);
    EXPECT_EQ(part(out, 46, 4), (Frame{0x12, 0x34, 0x56, 0x78})) << "the transaction";
    EXPECT_EQ(part(out, 42 + 12, 4), (Frame{0, 0, 0, 0}));
    EXPECT_EQ(part(out, 42 + 16, 4), (Frame{10, 0, 0, 35}));
    EXPECT_EQ(part(out, 42 + 28, 6), Frame(kOwn.bytes.begin(), kOwn.bytes.end()));
    EXPECT_EQ(dhcp_option(out, 53), Frame{type == kDiscover ? kOffer : kAck});
    EXPECT_EQ(dhcp_option(out, 54), (Frame{10, 0, 0, 1}));
    EXPECT_EQ(dhcp_option(out, 51), (Frame{0, 0, 0x0e, 0x10}));
    EXPECT_EQ(dhcp_option(out, 1), (Frame{255, 255, 255, 0}));
    EXPECT_EQ(dhcp_option(out, 3), (Frame{10, 0, 0, 1}));
    EXPECT_EQ(dhcp_option(out, 6), (Frame{10, 0, 0, 2}));
    EXPECT_EQ(dhcp_option(out, 28), (Frame{10, 0, 0, 255}));
    EXPECT_EQ(dhcp_option(out, 26), (Frame{0x05, 0xdc}));
    EXPECT_EQ(dhcp_option(out, 12), text_bytes("ip-10-0-0-35"));
    EXPECT_EQ(dhcp_option(out, 15), text_bytes("ec2.internal"));
  }
}

// The lease of the contract's example.
TEST_F(DhcpTest, TheResolverIsTheVpcsNotTheSubnets) {
  world.tasks[0].addresses = {"172.31.31.222"};
  world.tasks[0].subnet = "172.31.16.0/20";
  world.tasks[0].mtu = 9001;
  world.adjust = [](const World::Task&, Endpoint& endpoint) { endpoint.resolver = ip("172.31.0.2"); };
  world.edge.dhcp_domain = "eu-west-1.compute.internal";
  answer();
  const Frame out = answered(from_task(request_of("172.31.31.222")));
  EXPECT_EQ(dhcp_option(out, 53), Frame{kAck});
  EXPECT_EQ(dhcp_option(out, 54), (Frame{172, 31, 16, 1}));
  EXPECT_EQ(dhcp_option(out, 1), (Frame{255, 255, 240, 0}));
  EXPECT_EQ(dhcp_option(out, 28), (Frame{172, 31, 31, 255}));
  EXPECT_EQ(dhcp_option(out, 6), (Frame{172, 31, 0, 2}));
  EXPECT_EQ(dhcp_option(out, 26), (Frame{0x23, 0x29}));
  EXPECT_EQ(dhcp_option(out, 12), text_bytes("ip-172-31-31-222"));
  EXPECT_EQ(dhcp_option(out, 15), text_bytes("eu-west-1.compute.internal"));
}

TEST_F(DhcpTest, ARequestForAnotherAddressGetsANak) {
  answer();
  for (const char* wanted : {"10.0.0.36", "10.0.0.40", "10.0.0.1", "0.0.0.0", "255.255.255.255"}) {
    const Frame out = answered(from_task(request_of(wanted)));
    EXPECT_EQ(dhcp_option(out, 53), Frame{kNak}) << wanted;
    EXPECT_EQ(part(out, 0, 6), Frame(6, 0xff));
    EXPECT_EQ(part(out, 30, 4), Frame(4, 0xff));
    EXPECT_EQ(part(out, 42 + 16, 4), Frame(4, 0)) << "no address";
    EXPECT_EQ(dhcp_option(out, 54), (Frame{10, 0, 0, 1}));
    EXPECT_TRUE(dhcp_option(out, 51).empty() && dhcp_option(out, 1).empty() && dhcp_option(out, 3).empty());
    EXPECT_EQ(transport_sum(out), 0xffffU);
  }
  DhcpMessage renewal = message(kRequest);
  renewal.client_address = "10.0.0.36";
  EXPECT_EQ(dhcp_option(answered(from_task(renewal)), 53), Frame{kNak});
}

TEST_F(DhcpTest, WhereTheAnswerGoes) {
  answer();
  DhcpMessage sent = message(kDiscover);
  sent.broadcast = true;
  Frame out = answered(from_task(sent));
  EXPECT_EQ(part(out, 0, 6), Frame(6, 0xff));
  EXPECT_EQ(part(out, 30, 4), Frame(4, 0xff));
  EXPECT_EQ(out[42 + 10], 0x80) << "the flag stays";
  // Half way through the lease the client asks the router, from its address.
  DhcpMessage renewal = message(kRequest);
  renewal.client_address = "10.0.0.35";
  renewal.broadcast = true;
  out = answered(from_task(renewal, "10.0.0.35", "10.0.0.1"));
  EXPECT_EQ(dhcp_option(out, 53), Frame{kAck});
  EXPECT_EQ(part(out, 30, 4), (Frame{10, 0, 0, 35}));
  EXPECT_EQ(part(out, 42 + 12, 4), (Frame{10, 0, 0, 35}));
  EXPECT_EQ(part(out, 0, 6), Frame(kOwn.bytes.begin(), kOwn.bytes.end()));
  // Who has an address and wants the rest only.
  DhcpMessage inform = message(kInform);
  inform.client_address = "10.0.0.35";
  out = answered(from_task(inform, "10.0.0.35"));
  EXPECT_EQ(dhcp_option(out, 53), Frame{kAck});
  EXPECT_EQ(part(out, 42 + 16, 4), Frame(4, 0));
  EXPECT_TRUE(dhcp_option(out, 51).empty());
  EXPECT_EQ(dhcp_option(out, 3), (Frame{10, 0, 0, 1}));
}

TEST_F(DhcpTest, WhatIsToldAndNotAskedHasNoAnswer) {
  answer();
  world.movements();
  refused_from_task(from_task(message(kRelease)), "dhcp_refused");
  refused_from_task(from_task(message(kDecline)), "dhcp_refused");
  DhcpMessage other_server = request_of("10.0.0.35");
  const Frame server = DhcpOptions{}.address(54, "10.0.0.9").bytes;
  put(other_server.options, server.data(), server.size());
  refused_from_task(from_task(other_server), "dhcp_refused");
  DhcpMessage inform = message(kInform);
  inform.client_address = "10.0.0.36";
  refused_from_task(from_task(inform), "dhcp_refused");
  DhcpMessage sent = message(kDiscover);
  sent.client = kOther;
  refused_from_task(from_task(sent), "dhcp_refused");
  refused_from_trunk(from_server(reply(kOffer)), "dhcp_refused");  // one server is enough
}

// However often, and whoever it says it is: the lease is a fact of the ENI, there is no pool.
TEST_F(DhcpTest, NothingCanBeUsedUp) {
  answer();
  for (int i = 0; i < 2000; ++i) {
    DhcpMessage sent = message(kDiscover);
    sent.client = mac("0a:47:e4:7a:2b:02");
    sent.client.bytes[3] = static_cast<std::uint8_t>(i), sent.client.bytes[2] = static_cast<std::uint8_t>(i >> 8);
    if (sent.client == kOwn) continue;
    world.from_task(0, {from_task(sent)});
    world.mbufs = {};
    if (i % 1000 == 999) world.pass(seconds(1));  // 1024 a second may be sent
  }
  EXPECT_EQ(dhcp_option(answered(from_task(message(kDiscover))), 53), Frame{kOffer});
  EXPECT_EQ(world.worker.connections.size(), 0U);
}

TEST_F(DhcpTest, AnEniWithoutIpv4HasNoLease) {
  world.tasks[0].addresses = {"2001:db8::35"};
  answer();
  world.movements();
  refused_from_task(from_task(message(kDiscover)), "dhcp_refused");
}

TEST_F(DhcpTest, OptionsOfTheIpHeaderAreNotInTheAnswer) {
  answer();
  Frame sent = from_task(message(kDiscover));
  const Frame plain = answered(sent);
  sent.insert(sent.begin() + 34, {1, 1, 1, 0});
  sent[14] = 0x46;
  sent[17] = static_cast<std::uint8_t>(sent[17] + 4);
  EXPECT_EQ(answered(sent), plain);
  sent.resize(sent.size() + 6);  // padding
  EXPECT_EQ(answered(sent), plain);
}

// --- what strangers write --------------------------------------------------------------------------------------------

TEST_F(DhcpTest, OptionsThatLieAreMalformed) {
  const auto with = [&](const DhcpOptions& options) {
    DhcpMessage sent = message(kDiscover);
    put(sent.options, options.bytes.data(), options.bytes.size());
    return from_task(sent);
  };
  for (const DhcpMode mode : {DhcpMode::relay, DhcpMode::answer}) {
    world.edge.dhcp = mode;
    world.publish();
    world.movements();
    refused_from_task(with(DhcpOptions{}.add(53, {})), "malformed");
    refused_from_task(with(DhcpOptions{}.add(53, {1, 1})), "malformed");
    refused_from_task(with(DhcpOptions{}.add(50, {10, 0, 0})), "malformed");
    refused_from_task(with(DhcpOptions{}.add(54, {10, 0, 0, 1, 0})), "malformed");
    DhcpOptions beyond;
    beyond.bytes = {61, 255};
    refused_from_task(with(beyond), "malformed");
    Frame frame = from_task(message(kDiscover));
    frame[42 + 236] = 0;  // not DHCP's cookie
    refused_from_task(frame, "malformed");
    for (const auto& [at, value] : {std::pair{0, 0}, {0, 3}, {1, 6}, {2, 7}, {2, 16}}) {  // operation, hardware, its length
      frame = from_task(message(kDiscover));
      frame[static_cast<std::size_t>(42 + at)] = static_cast<std::uint8_t>(value);
      refused_from_task(frame, "malformed");
    }
    frame = from_task(message(kDiscover));
    frame[20] = 0x20;  // the first of several fragments
    refused_from_task(frame, "malformed");
  }
}

// Cut at every byte, as a frame and as a datagram that says so itself; and every byte changed. No byte outside is read, and every
// meter closes.
TEST_F(DhcpTest, EveryTruncationAndEveryByteChanged) {
  const std::vector<Frame> from_tasks{from_task(request_of("10.0.0.35")), from_task(message(kInform), "10.0.0.35", "10.0.0.1"),
                                      ip_packet({mac("33:33:00:01:00:02"), kOwn, -1}, ip("2001:db8::35"), ip("ff02::1:2"), 17, udp_datagram(546, 547, 20))};
  const std::vector<Frame> from_trunks{from_server(reply(kAck)), ip_packet({kOwn, kRouter, 101}, ip("fe80::1"), ip("2001:db8::35"), 17, udp_datagram(547, 546, 20))};
  const auto store = [](Frame& frame, std::size_t at, std::size_t value) { frame[at] = static_cast<std::uint8_t>(value >> 8), frame[at + 1] = static_cast<std::uint8_t>(value); };
  const auto each = [&](const Frame& sound, std::size_t ip_at, auto send) {
    const bool v4 = sound[ip_at] >> 4 == 4;
    const std::size_t udp_at = ip_at + (v4 ? 20 : 40);
    for (std::size_t length = 0; length < sound.size(); ++length) {
      Frame cut = part(sound, 0, length);
      send(cut);
      if (length < udp_at + 8) continue;
      store(cut, ip_at + (v4 ? 2U : 4U), length - (v4 ? ip_at : udp_at));
      send(cut);
      store(cut, udp_at + 4, length - udp_at);
      send(cut);
      world.mbufs = {};
    }
    for (std::size_t at = 0; at < sound.size(); ++at) {
      for (const int value : {0, 1, 0x7f, 0x80, 0xff}) {
        Frame changed = sound;
        changed[at] = static_cast<std::uint8_t>(value);
        send(changed);
      }
      world.mbufs = {};
    }
  };
  for (const DhcpMode mode : {DhcpMode::relay, DhcpMode::answer, DhcpMode::off}) {
    world.edge.dhcp = mode;
    world.publish();
    for (const Frame& frame : from_tasks) each(frame, 14, [&](const Frame& sent) { world.from_task(0, {sent}); });
    for (const Frame& frame : from_trunks) {
      each(frame, 18, [&](const Frame& sent) {
        world.from_trunk({sent});
        if (sent.size() > 60) world.from_trunk({sent}, 60);  // the message is not in the first segment
      });
    }
    world.movements();
  }
}

TEST_F(DhcpTest, AMessageThatIsNotInOnePieceIsMalformed) {
  world.movements();
  const Frame sent = from_server(reply(kAck));
  world.from_trunk({sent}, 100);
  EXPECT_EQ(world.movements().at("web.ingress.malformed"), 1U);
  EXPECT_EQ(world.from_trunk({sent}, sent.size() - 1).task.size(), 0U);
  EXPECT_EQ(world.movements().at("web.ingress.malformed"), 1U);
  EXPECT_EQ(world.from_trunk({sent}, sent.size()).task.size(), 1U);
}

// --- the messages alone ----------------------------------------------------------------------------------------------

TEST(Dhcp, TheLongestAnswerFitsAndLessRoomDoesNot) {
  dhcp::Message request;
  request.type = dhcp::MessageType::request;
  const std::string domain(dhcp::kMaxDomain, 'd');
  const dhcp::Lease lease{ip("255.255.255.254"), IpPrefix::parse("255.255.255.240/28").value(), ip("255.255.255.241"), ip("255.255.0.2"), 9001, domain};
  Frame room(dhcp::kMaxMessageBytes);
  const std::uint32_t written = dhcp::write_answer(room, request, dhcp::MessageType::ack, lease);
  ASSERT_GT(written, dhcp::kMinMessageBytes);
  EXPECT_EQ(room[written - 1], 255);
  for (std::size_t less = 240; less < written; ++less) {
    auto exact = std::make_unique<std::uint8_t[]>(less);
    EXPECT_EQ(dhcp::write_answer({exact.get(), less}, request, dhcp::MessageType::ack, lease), 0U) << less;
  }
  auto exact = std::make_unique<std::uint8_t[]>(written);
  EXPECT_EQ(dhcp::write_answer({exact.get(), written}, request, dhcp::MessageType::ack, lease), written);
  // The shortest is padded to what BOOTP's clients want.
  EXPECT_EQ(dhcp::write_answer(room, request, dhcp::MessageType::nak, lease), dhcp::kMinMessageBytes);
}

// --- DHCPv6 ----------------------------------------------------------------------------------------------------------

TEST_F(DhcpTest, Version6IsLeftToTheFabric) {
  const std::string own = "fe80::847:e4ff:fe7a:2b02";
  const auto ask = [&](const std::string& source, std::uint8_t type, std::size_t bytes = 20, const char* to = "ff02::1:2", const char* to_mac = "33:33:00:01:00:02") {
    Frame datagram = udp_datagram(546, 547, bytes);
    if (bytes > 0) datagram[8] = type;
    return ip_packet({mac(to_mac), kOwn, -1}, ip(source), ip(to), 17, datagram);
  };
  const auto tell = [&](const char* source, std::uint8_t type, const std::string& to) {
    Frame datagram = udp_datagram(547, 546, 20);
    datagram[8] = type;
    return ip_packet({kOwn, kRouter, 101}, ip(source), ip(to), 17, datagram);
  };
  for (const DhcpMode mode : {DhcpMode::relay, DhcpMode::answer}) {
    world.edge.dhcp = mode;
    world.publish();
    world.movements();
    for (const std::uint8_t type : {1, 3, 4, 5, 6, 8, 9, 11}) EXPECT_EQ(world.from_task(0, {ask(own, type)}).trunk.size(), 1U) << int{type};
    EXPECT_EQ(world.from_task(0, {ask("2001:db8::35", 1)}).trunk.size(), 1U);
    for (const std::uint8_t type : {2, 7, 10}) EXPECT_EQ(world.from_trunk({tell("fe80:ec2::1", type, own)}).task["web"].size(), 1U) << int{type};
    EXPECT_EQ(world.from_trunk({tell("fe80::2", 7, "2001:db8::35")}).task["web"].size(), 1U);
    world.movements();
    for (const std::uint8_t type : {0, 2, 7, 10, 12, 13, 14}) refused_from_task(ask(own, type), "dhcp_refused");
    refused_from_task(ask("fe80::1", 1), "spoof_ip");
    refused_from_task(ask("2001:db8::36", 1), "spoof_ip");
    refused_from_task(ask("::", 1), "spoof_ip");
    refused_from_task(ask(own, 1, 3), "malformed");
    refused_from_task(ask(own, 1, 20, "ff02::1:2", "0a:00:00:00:00:01"), "multicast");
    refused_from_task(ask(own, 1, 20, "ff05::1:3"), "multicast");
    refused_from_task(ask("2001:db8::35", 1, 20, "2001:db8:9::1", "0a:00:00:00:00:01"), "security_group_egress");
    for (const std::uint8_t type : {1, 3, 12}) refused_from_trunk(tell("fe80:ec2::1", type, own), "dhcp_refused");
    refused_from_trunk(tell("fe80:ec2::1", 7, "2001:db8::36"), "dest_check");
    refused_from_trunk(tell("fe80:ec2::1", 7, "fe80::1"), "dest_check");
    refused_from_trunk(tell("2001:db8::99", 7, "2001:db8::35"), "security_group_ingress");
  }
  EXPECT_EQ(world.worker.connections.size(), 0U);
}

}  // namespace
}  // namespace trunkline::test
