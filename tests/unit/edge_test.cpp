// SPDX-License-Identifier: BSD-3-Clause
// What a VPC's router says and does at the edge: advertisements, its own MAC, errors in its name, and what of it a task may not imitate.
#include "dataplane/stages/edge.h"

#include <gtest/gtest.h>

#include "tests/support/edge_packets.h"
#include "tests/support/world.h"

namespace trunkline::test {
namespace {

const MacAddress kRouter = mac("0a:00:00:00:00:01");
const MacAddress kOwn = mac("0a:47:e4:7a:2b:02");
const MacAddress kOther = mac("0a:47:e4:7a:2b:03");
const MacAddress kAllRouters = mac("33:33:00:00:00:02");
const std::string kOwnLinkLocal = "fe80::847:e4ff:fe7a:2b02";
constexpr std::uint8_t kSyn = 0x02;

class EdgeTest : public ::testing::Test {
 protected:
  void SetUp() override {
    World::Task task;
    task.name = "web";
    task.vlan = 101;
    task.mac = kOwn.to_string();
    task.addresses = {"10.0.0.35", "2001:db8::35"};
    task.subnet6 = "2001:db8::/64";
    task.mtu = 1500;
    config::SecurityGroup nothing;
    nothing.id = "sg-9effe8e4";
    task.groups = {nothing};
    world.add(task);
  }
  void answer() {
    world.edge.answer = true;
    world.publish();
  }
  void allow_all() {
    world.tasks[0].groups[0].ingress = {everything()};
    world.tasks[0].groups[0].egress = {everything()};
    world.publish();
  }
  Frame solicit_router(const std::string& source = kOwnLinkLocal, const Frame& options = {}, std::uint8_t hops = 255) const {
    Frame body(4);
    put(body, options.data(), options.size());
    return icmp6_frame({kAllRouters, kOwn, -1}, source, "ff02::2", 133, body, hops);
  }
  Frame solicit(const std::string& target, const std::string& source = kOwnLinkLocal) const {
    Frame body(4);
    put(body, ip(target).bytes.data(), 16);
    const Frame option = link_layer_option(1, kOwn);
    put(body, option.data(), option.size());
    return icmp6_frame({mac("33:33:ff:00:00:01"), kOwn, -1}, source, "ff02::1:ff00:1", 135, body);
  }
  Frame advertise_router(const std::string& source = "fe80:ec2::1", std::uint8_t hops = 255) const {
    return icmp6_frame({mac("33:33:00:00:00:01"), kRouter, 101}, source, "ff02::1", 134, Frame(12), hops);
  }
  Frame answered(const Frame& frame) {
    world.movements();
    auto out = world.from_task(0, {frame});
    EXPECT_TRUE(out.trunk.empty());
    EXPECT_EQ(world.movements(), (Movements{{"web.egress.rx", 1}, {"web.egress.tx", 1}, {"web.ingress.rx", 1}, {"web.ingress.tx", 1}}));
    EXPECT_EQ(out.task["web"].size(), 1U);
    return out.task["web"].empty() ? Frame(100) : out.task["web"][0];
  }
  void refused_from_task(const Frame& frame, const char* reason) {
    world.movements();
    const auto out = world.from_task(0, {frame});
    EXPECT_TRUE(out.trunk.empty() && out.task.empty()) << reason;
    EXPECT_EQ(world.movements(), (Movements{{"web.egress.rx", 1}, {std::string("web.egress.") + reason, 1}}));
  }
  void refused_from_trunk(const Frame& frame, const char* reason) {
    world.movements();
    EXPECT_TRUE(world.from_trunk({frame}).task.empty()) << reason;
    EXPECT_EQ(world.movements(), (Movements{{"trunk.in.rx", 1}, {"trunk.in.tx", 1}, {"web.ingress.rx", 1}, {std::string("web.ingress.") + reason, 1}}));
  }

  World world;
};

Frame bytes_of(const IpAddress& address) { return Frame(address.bytes.begin(), address.bytes.end()); }
Frame bytes_of(const MacAddress& address) { return Frame(address.bytes.begin(), address.bytes.end()); }

Frame macs(const MacAddress& destination, const MacAddress& source) {
  Frame both = bytes_of(destination);
  put(both, source.bytes.data(), 6);
  return both;
}

// --- the router, IPv6 ------------------------------------------------------------------------------------------------

TEST_F(EdgeTest, RouterSolicitationsAreAnsweredWhereTheEngineIsTheRouter) {
  answer();
  Frame out = answered(solicit_router(kOwnLinkLocal, link_layer_option(1, kOwn)));
  ASSERT_EQ(out.size(), 14U + 40 + 32);
  EXPECT_EQ(part(out, 0, 12), macs(kOwn, kRouter));
  EXPECT_EQ(out[21], 255) << "hop limit";
  EXPECT_EQ(part(out, 22, 16), bytes_of(ip("fe80:ec2::1")));
  EXPECT_EQ(part(out, 38, 16), bytes_of(ip(kOwnLinkLocal)));
  EXPECT_EQ(transport_sum(out), 0xffffU);
  // Advertisement: hop limit 64, managed, 1800 seconds; the router's MAC; the port's MTU; no prefix.
  EXPECT_EQ(part(out, 54, 2), (Frame{134, 0}));
  EXPECT_EQ(part(out, 58, 12), (Frame{64, 0x80, 0x07, 0x08, 0, 0, 0, 0, 0, 0, 0, 0}));
  EXPECT_EQ(part(out, 70, 8), link_layer_option(1, kRouter));
  EXPECT_EQ(part(out, 78, 8), (Frame{5, 1, 0, 0, 0, 0, 0x05, 0xdc}));
  // Managed is what DHCPv6 manages: where the engine answers DHCP itself, or nobody does, there is none.
  for (const DhcpMode mode : {DhcpMode::answer, DhcpMode::off}) {
    world.edge.dhcp = mode;
    world.publish();
    EXPECT_EQ(answered(solicit_router())[59], 0);
  }
  world.edge.dhcp = DhcpMode::relay;
  world.publish();
  // From nowhere: to all.
  out = answered(solicit_router("::"));
  EXPECT_EQ(part(out, 0, 6), bytes_of(mac("33:33:00:00:00:01")));
  EXPECT_EQ(part(out, 38, 16), bytes_of(ip("ff02::1")));
  EXPECT_EQ(transport_sum(out), 0xffffU);
}

TEST_F(EdgeTest, RouterSolicitationsThatAreWrongHaveNoAnswer) {
  answer();
  refused_from_task(solicit_router(kOwnLinkLocal, {}, 64), "malformed");
  refused_from_task(solicit_router("fe80::1"), "spoof_ip");
  refused_from_task(solicit_router("2001:db8::36"), "spoof_ip");
  refused_from_task(solicit_router(kOwnLinkLocal, link_layer_option(1, kOther)), "arp_spoof");
  refused_from_task(solicit_router(kOwnLinkLocal, {1, 0, 0, 0, 0, 0, 0, 0}), "arp_spoof");
  world.tasks[0].addresses = {"10.0.0.35"};
  world.tasks[0].subnet6.clear();
  world.publish();
  refused_from_task(solicit_router(), "arp_no_answer");  // there is no IPv6 in its subnet
}

TEST_F(EdgeTest, RouterSolicitationsAreRelayedOtherwiseAndTheAnswerPasses) {
  EXPECT_EQ(world.from_task(0, {solicit_router()}).trunk.size(), 1U);
  EXPECT_EQ(world.from_trunk({advertise_router()}).task["web"].size(), 1U);
  EXPECT_EQ(world.from_trunk({icmp6_frame({kOwn, kRouter, 101}, "fe80:ec2::1", kOwnLinkLocal, 134, Frame(12))}).task["web"].size(), 1U);
  refused_from_trunk(advertise_router("fe80:ec2::1", 254), "malformed");
  refused_from_trunk(advertise_router("2001:db8::1"), "malformed");
  refused_from_trunk(icmp6_frame({kOwn, kRouter, 101}, "fe80:ec2::1", kOwnLinkLocal, 134, Frame(8)), "malformed");  // cut short
  refused_from_trunk(icmp6_frame({kOwn, kRouter, 101}, "fe80:ec2::1", kOwnLinkLocal, 137, Frame(36)), "nd_refused");
  refused_from_trunk(icmp6_frame({mac("33:33:00:00:00:02"), kRouter, 101}, "fe80:ec2::1", "ff02::2", 133, Frame(4)), "nd_refused");
  // With another router in the engine's place the task would have two.
  answer();
  refused_from_trunk(advertise_router(), "nd_refused");
}

TEST_F(EdgeTest, TheRouterIsANeighbourAndSaysThatItIsARouter) {
  answer();
  // By its three addresses: the one of every VPC, the subnet's, and the one made of its MAC.
  for (const char* address : {"fe80:ec2::1", "2001:db8::1", "fe80::800:ff:fe00:1"}) {
    const Frame out = answered(solicit(address));
    EXPECT_EQ(part(out, 6, 6), bytes_of(kRouter)) << address;
    EXPECT_EQ(part(out, 22, 16), bytes_of(ip(address)));
    EXPECT_EQ(part(out, 38, 16), bytes_of(ip(kOwnLinkLocal)));
    EXPECT_EQ(part(out, 54, 5), (Frame{136, 0, out[56], out[57], 0xe0})) << "router, solicited, override: " << address;
    EXPECT_EQ(part(out, 62, 16), bytes_of(ip(address)));
    EXPECT_EQ(part(out, 78, 8), link_layer_option(2, kRouter));
    EXPECT_EQ(transport_sum(out), 0xffffU);
  }
  // Neighbours that are not here are reached by its MAC, and are no routers.
  const Frame out = answered(solicit("2001:db8::77"));
  EXPECT_EQ(part(out, 6, 6), bytes_of(kRouter));
  EXPECT_EQ(out[58], 0x60);
  refused_from_task(solicit("2001:db8:1::77"), "arp_no_answer");  // not of the subnet
  // What nobody has: addresses that AWS keeps, link-local ones but the router's.
  for (const char* address : {"2001:db8::", "2001:db8::2", "2001:db8::3", "2001:db8::ffff:ffff:ffff:ffff", "fe80::1", "fe80:ec2::2", "fe80::847:e4ff:fe7a:2b03"}) {
    refused_from_task(solicit(address), "arp_no_answer");
  }
  refused_from_task(solicit(kOwnLinkLocal, "2001:db8::35"), "arp_own_address");
  refused_from_task(solicit(kOwnLinkLocal, "::"), "arp_own_address");
  refused_from_task(solicit("2001:db8::35"), "arp_own_address");
  refused_from_task(solicit("fe80:ec2::1", "fe80::1"), "spoof_ip");
}

TEST_F(EdgeTest, ATaskCannotBeTheRouterOrItsNeighbour) {
  const L2 to_fabric{kRouter, kOwn, -1};
  const auto advertise = [&](const std::string& target, std::uint8_t flags = 0x40, const MacAddress& claimed = kOwn) {
    Frame body{flags, 0, 0, 0};
    put(body, ip(target).bytes.data(), 16);
    const Frame option = link_layer_option(2, claimed);
    put(body, option.data(), option.size());
    return icmp6_frame(to_fabric, kOwnLinkLocal, "fe80:ec2::1", 136, body);
  };
  for (const bool answers : {false, true}) {
    world.edge.answer = answers;
    world.publish();
    EXPECT_EQ(world.from_task(0, {advertise("2001:db8::35")}).trunk.size(), 1U);
    EXPECT_EQ(world.from_task(0, {advertise(kOwnLinkLocal)}).trunk.size(), 1U);
    refused_from_task(advertise("2001:db8::36"), "arp_spoof");
    refused_from_task(advertise("fe80:ec2::1"), "arp_spoof");
    refused_from_task(advertise("2001:db8::35", 0x40, kOther), "arp_spoof");
    refused_from_task(advertise("2001:db8::35", 0x20), "arp_gratuitous");
    refused_from_task(icmp6_frame(to_fabric, kOwnLinkLocal, "fe80:ec2::1", 134, Frame(12)), "nd_refused");
    refused_from_task(icmp6_frame(to_fabric, kOwnLinkLocal, "fe80:ec2::1", 137, Frame(36)), "nd_refused");
  }
}

// --- ARP that lies ---------------------------------------------------------------------------------------------------

TEST_F(EdgeTest, ArpWithOtherLengthsOrOperationsIsMalformed) {
  const L2 to_all{mac("ff:ff:ff:ff:ff:ff"), kOwn, -1};
  const Frame sound = arp_packet(to_all, 1, kOwn, ip("10.0.0.35"), ip("10.0.0.1"));
  ASSERT_EQ(world.from_task(0, {sound}).trunk.size(), 1U);
  for (const std::size_t at : {15U, 16U, 18U, 19U}) {  // hardware, protocol, their lengths
    for (const int by : {-1, 1}) {
      Frame changed = sound;
      changed[at] = static_cast<std::uint8_t>(changed[at] + by);
      refused_from_task(changed, "malformed");
      Frame tagged = changed;
      tagged.insert(tagged.begin() + 12, {0x81, 0, 0, 101});
      refused_from_trunk(tagged, "malformed");
    }
  }
  for (const std::uint16_t operation : {0, 3, 8, 256}) refused_from_task(arp_packet(to_all, operation, kOwn, ip("10.0.0.35"), ip("10.0.0.1")), "malformed");
}

TEST_F(EdgeTest, AProbeForAnUnusedAddressHasNoAnswer) {
  answer();
  World::Task peer = world.tasks[0];
  peer.name = "peer", peer.vlan = 102, peer.mac = kOther.to_string(), peer.addresses = {"10.0.0.36"};
  world.add(peer);
  const L2 to_all{mac("ff:ff:ff:ff:ff:ff"), kOwn, -1};
  const auto ask = [&](const char* target, const char* sender) { return arp_packet(to_all, 1, kOwn, ip(sender), ip(target)); };
  // By who wants to reach it, the router's MAC; by who wants to have it, silence: the engine does not know who is on other hosts.
  EXPECT_EQ(part(answered(ask("10.0.0.77", "10.0.0.35")), 22, 6), bytes_of(kRouter));
  refused_from_task(ask("10.0.0.77", "0.0.0.0"), "arp_no_answer");
  // Who is known to be there has its address.
  EXPECT_EQ(part(answered(ask("10.0.0.1", "0.0.0.0")), 22, 6), bytes_of(kRouter));
  EXPECT_EQ(part(answered(ask("10.0.0.36", "0.0.0.0")), 22, 6), bytes_of(kOther));
  // What nobody ever has: the first four addresses, without the router and a resolver, and the last.
  for (const char* nobodys : {"10.0.0.0", "10.0.0.2", "10.0.0.3", "10.0.0.255"}) refused_from_task(ask(nobodys, "10.0.0.35"), "arp_no_answer");
  world.adjust = [](const World::Task&, Endpoint& endpoint) { endpoint.resolver = ip("10.0.0.2"); };
  world.publish();
  EXPECT_EQ(part(answered(ask("10.0.0.2", "10.0.0.35")), 22, 6), bytes_of(kRouter));
}

// --- options that lie, wherever they are -----------------------------------------------------------------------------------

TEST_F(EdgeTest, AForeignMacInAnyOptionIsFound) {
  const auto advertise = [&](const std::vector<Frame>& options) {
    Frame body{0x40, 0, 0, 0};
    put(body, ip("2001:db8::35").bytes.data(), 16);
    for (const Frame& option : options) put(body, option.data(), option.size());
    return icmp6_frame({kRouter, kOwn, -1}, kOwnLinkLocal, "fe80:ec2::1", 136, body);
  };
  const Frame own = link_layer_option(2, kOwn), foreign = link_layer_option(2, kOther), other{14, 1, 1, 2, 3, 4, 5, 6};
  Frame longer{200, 250};
  longer.resize(250 * 8);
  const auto sent = [&](const Frame& frame, std::size_t first_segment) {
    world.movements();
    world.from_task(0, {frame}, first_segment);
    return world.movements();
  };
  const Movements passed{{"web.egress.rx", 1}, {"web.egress.tx", 1}, {"trunk.out.rx", 1}, {"trunk.out.tx", 1}};
  const auto refused = [](const char* reason) { return Movements{{"web.egress.rx", 1}, {std::string("web.egress.") + reason, 1}}; };
  constexpr std::size_t kHeaders = 14 + 40 + 24;
  for (std::size_t at = 0; at < 32; ++at) {
    std::vector<Frame> sound(at, other), lie(at, other);
    sound.push_back(own), lie.push_back(foreign);
    // In one buffer, and with the options in the next one, or across both.
    for (const std::size_t segment : {SIZE_MAX, kHeaders, kHeaders + 3, kHeaders + 8 * at + 1}) {
      ASSERT_EQ(sent(advertise(sound), segment), passed) << at;
      ASSERT_EQ(sent(advertise(lie), segment), refused("arp_spoof")) << at;
    }
  }
  // Behind a long one; and so many that nobody reads them.
  for (const std::size_t segment : {SIZE_MAX, std::size_t{2048}}) {
    EXPECT_EQ(sent(advertise({longer, foreign}), segment), refused("arp_spoof"));
    EXPECT_EQ(sent(advertise({longer, own}), segment), passed);
    std::vector<Frame> many(245, other);
    many.push_back(foreign);
    EXPECT_EQ(sent(advertise(many), segment), refused("malformed"));
  }
  // One that says that it is longer than the packet.
  EXPECT_EQ(sent(advertise({{2, 2, 0, 0, 0, 0, 0, 0}}), SIZE_MAX), refused("arp_spoof"));
}

// --- an ENI without a VLAN -------------------------------------------------------------------------------------------------

class UntaggedTest : public EdgeTest {
 protected:
  void SetUp() override {
    EdgeTest::SetUp();
    world.tasks[0].vlan = 0;
    World::Task second = world.tasks[0];
    second.name = "second", second.mac = kOther.to_string(), second.addresses = {"10.0.0.36", "2001:db8::36"};
    world.add(second);
    World::Task tagged = second;
    tagged.name = "tagged", tagged.vlan = 101, tagged.mac = "0a:47:e4:7a:2b:04", tagged.addresses = {"10.0.0.37", "2001:db8::37"};
    world.add(tagged);
    world.movements();
  }
  static Frame solicitation(const char* target, const MacAddress& to) {
    Frame body(4);
    put(body, ip(target).bytes.data(), 16);
    const Frame option = link_layer_option(1, kRouter);
    put(body, option.data(), option.size());
    return icmp6_frame({to, kRouter, -1}, "2001:db8::1", "ff02::1:ff00:35", 135, body);
  }
  Frame advertisement(const char* to = "ff02::1", const char* to_mac = "33:33:00:00:00:01", std::uint8_t type = 134) const {
    return icmp6_frame({mac(to_mac), kRouter, -1}, "fe80:ec2::1", to, type, Frame(type == 134 ? 12 : 20));
  }
};

TEST_F(UntaggedTest, SolicitationsAreForWhomTheyAskFor) {
  const MacAddress many = mac("33:33:ff:00:00:35");
  for (const auto& [target, name] : {std::pair{"2001:db8::35", "web"}, {"2001:db8::36", "second"}, {"fe80::847:e4ff:fe7a:2b02", "web"}, {"fe80::847:e4ff:fe7a:2b03", "second"}}) {
    const Frame frame = solicitation(target, many);
    EXPECT_EQ(world.from_trunk({frame}).task[name], std::vector<Frame>{frame}) << target;
    EXPECT_EQ(world.movements(), (Movements{{"trunk.in.rx", 1}, {"trunk.in.tx", 1}, {std::string(name) + ".ingress.rx", 1}, {std::string(name) + ".ingress.tx", 1}}));
  }
  EXPECT_EQ(world.from_trunk({solicitation("2001:db8::35", kOwn)}).task["web"].size(), 1U);
  world.movements();
  // Whose nobody has, whose has a VLAN, and one that is cut short.
  for (const char* target : {"2001:db8::99", "2001:db8::37", "fe80::847:e4ff:fe7a:2b04", "fe80::1", "::"}) {
    EXPECT_TRUE(world.from_trunk({solicitation(target, many)}).task.empty()) << target;
    EXPECT_EQ(world.movements(), (Movements{{"trunk.in.rx", 1}, {"trunk.in.unknown_eni", 1}}));
  }
  world.from_trunk({icmp6_frame({many, kRouter, -1}, "2001:db8::1", "ff02::1:ff00:35", 135, Frame(12))});
  EXPECT_EQ(world.movements(), (Movements{{"trunk.in.rx", 1}, {"trunk.in.unknown_eni", 1}}));
}

TEST_F(UntaggedTest, AdvertisementsToAllReachEveryUntaggedEni) {
  const Movements both{{"trunk.in.rx", 1}, {"trunk.in.tx", 1}, {"web.ingress.rx", 1}, {"web.ingress.tx", 1}, {"second.ingress.rx", 1}, {"second.ingress.tx", 1}};
  for (const std::uint8_t type : {134, 136}) {
    const Frame frame = advertisement("ff02::1", "33:33:00:00:00:01", type);
    // In one buffer, in two, and with a tag that has no VLAN in it.
    Frame priority = frame;
    priority.insert(priority.begin() + 12, {0x81, 0, 0xe0, 0});
    for (const auto& [sent, segment] : {std::pair{frame, SIZE_MAX}, {frame, std::size_t{14 + 40 + 24}}, {priority, SIZE_MAX}}) {
      auto out = world.from_trunk({sent}, segment);
      EXPECT_EQ(out.task["web"], std::vector<Frame>{frame});
      EXPECT_EQ(out.task["second"], std::vector<Frame>{frame});
      EXPECT_EQ(world.movements(), both);
      for (const rte_mbuf* packet : out.packets) EXPECT_EQ(packet->refcnt, 2);
      world.pass(1);
    }
  }
  // To one by its MAC; what is wrong reaches nobody.
  EXPECT_EQ(world.from_trunk({advertisement("ff02::1", "0a:47:e4:7a:2b:03")}).task["second"].size(), 1U);
  EXPECT_EQ(world.movements().count("web.ingress.rx"), 0U);
  Frame spent = advertisement();
  spent[14 + 7] = 64;
  world.from_trunk({spent});
  EXPECT_EQ(world.movements(), (Movements{{"trunk.in.rx", 1}, {"trunk.in.tx", 1}, {"web.ingress.rx", 1}, {"web.ingress.malformed", 1}}));
  // Solicitations of routers and advertisements to other groups are for nobody here.
  for (const Frame& frame : {advertisement("ff02::2", "33:33:00:00:00:02", 133), advertisement("ff02::2", "33:33:00:00:00:02"), advertisement("ff02::1", "33:33:00:00:00:01", 137)}) {
    world.from_trunk({frame});
    EXPECT_EQ(world.movements(), (Movements{{"trunk.in.rx", 1}, {"trunk.in.unknown_eni", 1}}));
  }
  // With another router in the engine's place.
  answer();
  world.movements();
  world.from_trunk({advertisement()});
  EXPECT_EQ(world.movements(), (Movements{{"trunk.in.rx", 1}, {"trunk.in.tx", 1}, {"web.ingress.rx", 1}, {"web.ingress.nd_refused", 1}}));
}

TEST_F(UntaggedTest, CopiesAreBoundedAndHaveTheirLimits) {
  world.tasks[1].limits.packets[0] = 40;  // a bucket of two
  world.publish();
  world.pass(seconds(1));
  world.movements();
  std::vector<Frame> flood(32, advertisement());
  auto out = world.from_trunk(flood);
  EXPECT_EQ(out.task["web"].size(), 10U);
  EXPECT_EQ(out.task["second"].size(), 2U);
  EXPECT_EQ(world.movements(), (Movements{{"trunk.in.rx", 32}, {"trunk.in.tx", 32}, {"web.ingress.rx", 32}, {"web.ingress.tx", 10}, {"web.ingress.linklocal_allowance_exceeded", 22},
                                          {"second.ingress.rx", 10}, {"second.ingress.tx", 2}, {"second.ingress.pps_allowance_exceeded", 8}}));
  world.pass(1);
  EXPECT_EQ(world.from_trunk({advertisement()}).task["web"].size(), 1U);
}

TEST_F(UntaggedTest, MoreEnisThanABurstHolds) {
  for (unsigned i = 3; i < 63; ++i) {
    World::Task more = world.tasks[0];
    more.name = "more" + std::to_string(i), more.mac = MacAddress{{0x0a, 0x47, 0, 0, 1, static_cast<std::uint8_t>(i)}}.to_string();
    more.addresses = {"10.0.0." + std::to_string(100 + i)};
    world.tasks.push_back(more), world.generations.push_back(1);
  }
  world.publish();
  world.movements();
  // 62 of them; of the second advertisement's copies only three have room in the burst. The rest would wait for the next turn, and has no buffers here.
  world.mbufs.left = 0;
  const auto out = world.from_trunk({advertisement(), advertisement()});
  std::size_t came = 0;
  for (const auto& [name, frames] : out.task) came += frames.size();
  EXPECT_EQ(came, 2U + 64);
  const Movements moved = world.movements();  // closes
  std::uint64_t no_buffer = 0;
  for (const auto& [name, count] : moved) no_buffer += name.ends_with(".no_buffer") ? count : 0;
  EXPECT_EQ(no_buffer, 2 * 61U - 64);
}

// --- between subnets ---------------------------------------------------------------------------------------------------

TEST_F(EdgeTest, BetweenSubnetsAPacketComesFromTheRouter) {
  World::Task far = world.tasks[0];
  far.name = "far", far.vlan = 102, far.mac = kOther.to_string(), far.addresses = {"10.0.9.36", "2001:db8:9::36"}, far.subnet = "10.0.9.0/24", far.subnet6 = "2001:db8:9::/64";
  world.add(far);
  for (World::Task& task : world.tasks) task.groups[0].ingress = task.groups[0].egress = {everything()};
  for (const char* router : {"0a:00:00:00:00:01", "0a:99:00:00:00:01"}) {
    world.edge.router_mac = mac(router);
    world.publish();
    // Whatever MAC the sender wrote.
    for (const MacAddress& written : {kRouter, kOther, kOwn, mac("02:de:ad:be:ef:00")}) {
      for (const auto& frame : {ip_packet({written, kOwn, -1}, ip("10.0.0.35"), ip("10.0.9.36"), 6, tcp_segment(5000, 80, kSyn, 20)),
                                ip_packet({written, kOwn, -1}, ip("2001:db8::35"), ip("2001:db8:9::36"), 17, udp_datagram(5000, 80))}) {
        const auto out = world.from_task(0, {frame});
        ASSERT_EQ(out.task.count("far"), 1U);
        EXPECT_EQ(part(out.task.at("far")[0], 0, 12), macs(kOther, mac(router)));
      }
    }
  }
}

// --- time to live, martians, source routes ---------------------------------------------------------------------------

TEST_F(EdgeTest, TheVpcIsNotAHopThatCounts) {
  allow_all();
  const auto of = [&](bool v4, const L2& l2, bool out, std::uint8_t ttl, const Frame& payload, std::uint8_t protocol) {
    const IpAddress own = ip(v4 ? "10.0.0.35" : "2001:db8::35"), peer = ip(v4 ? "198.51.100.9" : "2001:db8:9::1");
    Frame frame = ip_packet(l2, out ? own : peer, out ? peer : own, protocol, payload);
    frame[(out ? 14U : 18U) + (v4 ? 8U : 7U)] = ttl;
    return frame;
  };
  const L2 out{kRouter, kOwn, -1}, in{kOwn, kRouter, 101};
  for (const bool v4 : {true, false}) {
    // By the short way through parse, and by the long one.
    for (const auto& [protocol, payload] : {std::pair<std::uint8_t, Frame>{6, tcp_segment(5000, 443, kSyn)}, {17, udp_datagram(5000, 443, 40)}, {17, udp_datagram(5000, 443, 0)}, {47, Frame(30)}}) {
      for (const std::uint8_t ttl : {1, 2, 255}) {
        const auto sent = world.from_task(0, {of(v4, out, true, ttl, payload, protocol)});
        ASSERT_EQ(sent.trunk.size(), 1U);
        EXPECT_EQ(sent.trunk[0][18U + (v4 ? 8U : 7U)], ttl) << "unchanged";
        const auto got = world.from_trunk({of(v4, in, false, ttl, payload, protocol)});
        ASSERT_EQ(got.task.count("web"), 1U);
        EXPECT_EQ(got.task.at("web")[0][14U + (v4 ? 8U : 7U)], ttl);
      }
      refused_from_task(of(v4, out, true, 0, payload, protocol), "malformed");
      refused_from_trunk(of(v4, in, false, 0, payload, protocol), "malformed");
    }
  }
}

TEST_F(EdgeTest, MartiansAreRefusedWhereSourcesAreNotChecked) {
  world.tasks[0].source_dest_check = false;
  allow_all();
  const auto from = [&](const char* source, bool out) {
    const bool v4 = ip(source).is_v4() || std::string(source).starts_with("::ffff");
    const IpAddress to = ip(out ? (v4 ? "198.51.100.9" : "2001:db8:9::1") : (v4 ? "10.0.0.35" : "2001:db8::35"));
    return ip_packet(out ? L2{kRouter, kOwn, -1} : L2{kOwn, kRouter, 101}, ip(source), to, 17, udp_datagram(1, 2));
  };
  for (const char* source : {"0.0.0.1", "0.255.0.1", "127.0.0.1", "127.255.255.254", "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255", "::", "::1", "ff02::1"}) {
    refused_from_task(from(source, true), "martian");
    refused_from_trunk(from(source, false), "martian");
  }
  for (const char* source : {"1.0.0.1", "126.255.255.255", "128.0.0.1", "223.255.255.255", "::2", "2001:db8:7::1"}) {
    EXPECT_EQ(world.from_task(0, {from(source, true)}).trunk.size(), 1U) << source;
    EXPECT_EQ(world.from_trunk({from(source, false)}).task["web"].size(), 1U) << source;
  }
  // ::ffff:10.0.0.35 on the wire is not 10.0.0.35.
  for (const bool out : {true, false}) {
    Frame mapped = from("2001:db8:7::1", out);
    const std::size_t at = (out ? 14U : 18U) + 8;
    std::memcpy(&mapped[at], ip("10.0.0.35").bytes.data(), 16);
    out ? refused_from_task(mapped, "martian") : refused_from_trunk(mapped, "martian");
  }
}

TEST_F(EdgeTest, SourceRoutesAreRefusedAndOtherOptionsPass) {
  allow_all();
  const auto with = [&](std::initializer_list<std::uint8_t> option, bool out) {
    Frame frame = ip_packet(out ? L2{kRouter, kOwn, -1} : L2{kOwn, kRouter, 101}, ip(out ? "10.0.0.35" : "198.51.100.9"), ip(out ? "198.51.100.9" : "10.0.0.35"), 6,
                            tcp_segment(5000, 443, kSyn));
    const std::size_t at = out ? 14 : 18;
    frame[at] = static_cast<std::uint8_t>(0x45 + option.size() / 4);
    frame[at + 3] = static_cast<std::uint8_t>(frame[at + 3] + option.size());
    frame.insert(frame.begin() + static_cast<long>(at) + 20, option);
    return frame;
  };
  for (const std::uint8_t route : {131, 137}) {
    refused_from_task(with({route, 7, 4, 10, 0, 0, 1, 0}, true), "ip_options");
    refused_from_trunk(with({1, route, 7, 4, 10, 0, 0, 1}, false), "ip_options");
  }
  EXPECT_EQ(world.from_task(0, {with({7, 7, 4, 0, 0, 0, 0, 0}, true)}).trunk.size(), 1U);  // record route
  EXPECT_EQ(world.from_trunk({with({148, 4, 0, 0}, false)}).task["web"].size(), 1U);       // router alert
  refused_from_task(with({7, 9, 4, 0, 0, 0, 0, 0}, true), "malformed");
}

// --- errors in the router's name -------------------------------------------------------------------------------------

TEST_F(EdgeTest, TooBigIsSaidByTheSubnetsRouter) {
  allow_all();
  const L2 in{kOwn, kRouter, 101};
  auto out = world.from_trunk({ip_packet(in, ip("198.51.100.9"), ip("10.0.0.35"), 6, tcp_segment(40000, 80, kSyn, 9001 - 40))});
  ASSERT_EQ(out.trunk.size(), 1U);
  Frame error = out.trunk[0];
  EXPECT_EQ(part(error, 0, 12), macs(kRouter, kOwn));
  EXPECT_EQ(part(error, 18 + 12, 8), (Frame{10, 0, 0, 1, 198, 51, 100, 9}));
  EXPECT_EQ(part(error, 38, 2), (Frame{3, 4}));
  EXPECT_EQ(error[44] << 8 | error[45], 1500);
  EXPECT_EQ(folded_sum(error, 18, 38), 0xffffU);
  EXPECT_EQ(folded_sum(error, 38, error.size()), 0xffffU);
  EXPECT_EQ(part(error, 46 + 12, 8), (Frame{198, 51, 100, 9, 10, 0, 0, 35})) << "what it is about";

  out = world.from_trunk({ip_packet(in, ip("2001:db8:9::1"), ip("2001:db8::35"), 6, tcp_segment(40000, 80, kSyn, 9001 - 60))});
  ASSERT_EQ(out.trunk.size(), 1U);
  error = out.trunk[0];
  EXPECT_EQ(part(error, 18 + 8, 16), bytes_of(ip("2001:db8::1")));
  EXPECT_EQ(part(error, 18 + 24, 16), bytes_of(ip("2001:db8:9::1")));
  EXPECT_EQ(part(error, 58, 2), (Frame{2, 0}));
  EXPECT_EQ(part(error, 62, 4), (Frame{0, 0, 0x05, 0xdc}));
  EXPECT_EQ(transport_sum(error, 18), 0xffffU);
  EXPECT_EQ(error.size(), 18U + 1280) << "as much as fits the least MTU";
  EXPECT_TRUE(out.task.empty());
  // At the limit they fit; errors and fragments of a sender that lets itself be cut are not reported.
  EXPECT_EQ(world.from_trunk({ip_packet(in, ip("2001:db8:9::1"), ip("2001:db8::35"), 6, tcp_segment(40000, 80, kSyn, 1440))}).task["web"].size(), 1U);
  for (const auto& frame : {ip_packet(in, ip("198.51.100.9"), ip("10.0.0.35"), 1, icmp_message(3, 4, 0, 2000)), ip_packet(in, ip("198.51.100.9"), ip("10.0.0.35"), 17, udp_datagram(1, 2, 2000), false),
                            ip_packet(in, ip("2001:db8:9::1"), ip("2001:db8::35"), 58, icmp_message(2, 0, 0, 2000))}) {
    EXPECT_TRUE(world.from_trunk({frame}).trunk.empty());
  }
}

TEST_F(EdgeTest, TooBigForTheTrunkIsToldToTheTask) {
  allow_all();
  const Frame big = ip_packet({kRouter, kOwn, -1}, ip("10.0.0.35"), ip("198.51.100.9"), 6, tcp_segment(5000, 443, kSyn, 9001 - 39));
  const Frame error = [&] {
    world.movements();
    auto out = world.from_task(0, {big});
    EXPECT_TRUE(out.trunk.empty());
    EXPECT_EQ(world.movements(), (Movements{{"web.egress.rx", 1}, {"web.egress.mtu_exceeded", 1}, {"web.ingress.rx", 1}, {"web.ingress.tx", 1}}));
    return out.task["web"].at(0);
  }();
  EXPECT_EQ(part(error, 0, 12), macs(kOwn, kRouter));
  EXPECT_EQ(part(error, 26, 8), (Frame{10, 0, 0, 1, 10, 0, 0, 35}));
  EXPECT_EQ(part(error, 34, 2), (Frame{3, 4}));
  EXPECT_EQ(error[40] << 8 | error[41], 9001);
}

}  // namespace
}  // namespace trunkline::test
