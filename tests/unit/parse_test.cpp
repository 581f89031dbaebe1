// SPDX-License-Identifier: BSD-3-Clause
//
// The short way of parse against the long one: what parse_plain() takes (Burst::plain), parse_any() takes with the same result, whatever was
// done to the packet; and it does take what it is for.
#include "dataplane/stages/parse.h"

#include <gtest/gtest.h>

#include <random>

#include "tests/support/packets.h"

namespace trunkline::test {
namespace {

const MacAddress kOwn = mac("0a:00:00:00:00:0a"), kRouter = mac("0a:00:00:00:00:01");

Frame packet(std::mt19937& random, bool tagged) {
  const L2 l2{kOwn, kRouter, tagged ? static_cast<int>(random() % 4096) : -1};
  const auto port = static_cast<std::uint16_t>(random());
  const Frame payload = random() % 2 == 0 ? tcp_segment(port, 80, static_cast<std::uint8_t>(random()), random() % 40)
                                          : udp_datagram(port, 53, 12 + random() % 40);
  const std::uint8_t protocol = payload[12] == 0x50 && payload.size() >= 20 && payload[13] != 'u' ? 6 : 17;
  return ip_packet(l2, IpAddress::from_v4(static_cast<std::uint32_t>(random())), ip("10.0.0.10"), protocol, payload, random() % 2 == 0);
}

bool same(const Headers& a, const Headers& b) { return std::memcmp(&a, &b, sizeof a) == 0; }

TEST(Parse, ShortWayTakesWhatItIsFor) {
  for (const Direction direction : {Direction::ingress, Direction::egress}) {
    for (const bool tagged : {true, false}) {
      if (tagged && direction == Direction::egress) continue;  // a task sends no tags
      for (const bool tcp : {true, false}) {
        Mbufs mbufs;
        Burst burst;
        burst.add(mbufs.make(ip_packet({kOwn, kRouter, tagged ? 77 : -1}, ip("198.51.100.9"), ip("10.0.0.10"), tcp ? 6 : 17,
                                       tcp ? tcp_segment(1000, 80, 0x18) : udp_datagram(1000, 80, 12))));
        parse(burst, direction);
        ASSERT_EQ(burst.plain, 1U) << tagged << tcp;
        EXPECT_EQ(burst.headers[0].vlan, tagged ? 77 : 0);
        EXPECT_EQ(burst.headers[0].packet_bytes, 40U);
        EXPECT_EQ(burst.headers[0].tcp_flags, tcp ? 0x18 : 0);
        EXPECT_EQ(burst.source_port(0, direction), 1000U);
        EXPECT_EQ(burst.destination_port(0, direction), 80U);
        EXPECT_EQ(burst.source(0), ip("198.51.100.9"));
        EXPECT_EQ(burst.destination(0), ip("10.0.0.10"));
      }
    }
  }
}

TEST(Parse, BothWaysAgree) {
  const unsigned seed = std::random_device{}();
  std::printf("seed %u\n", seed);
  std::mt19937 random(seed);
  unsigned taken = 0;
  for (int round = 0; round < 200'000; ++round) {
    Frame frame = packet(random, random() % 2 == 0);
    // Sound, or with bytes changed near the headers, or cut, or in two segments.
    for (unsigned changes = random() % 3; changes != 0; --changes) frame[random() % std::min<std::size_t>(frame.size(), 60)] = static_cast<std::uint8_t>(random());
    if (random() % 8 == 0) frame.resize(random() % frame.size() + 1);
    Mbufs mbufs;
    Burst one, other;
    rte_mbuf* mbuf = mbufs.make(frame, random() % 8 == 0 ? 1 + random() % frame.size() : SIZE_MAX);
    if (random() % 16 == 0) mbuf->ol_flags |= RTE_MBUF_F_RX_VLAN_STRIPPED;
    one.add(mbuf), other.add(mbuf);
    const Direction direction = random() % 2 == 0 ? Direction::ingress : Direction::egress;
    const DropReason reason = detail::parse_any(other, 0, direction);
    parse(one, direction);
    if (one.plain == 0) continue;
    ++taken;
    ASSERT_EQ(reason, DropReason::none);
    ASSERT_TRUE(same(one.headers[0], other.headers[0]));
    ASSERT_EQ(one.key[0], other.key[0]);
  }
  EXPECT_GT(taken, 20'000U);
}

}  // namespace
}  // namespace trunkline::test
