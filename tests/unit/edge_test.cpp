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
