// SPDX-License-Identifier: BSD-3-Clause
//
// The virtio-net header into an mbuf's fields and back: what a kernel writes is understood, every lie costs the packet.
#include "dataplane/io/vnet_header.h"

#include <gtest/gtest.h>
#include <rte_ip.h>
#include <rte_tcp.h>
#include <rte_udp.h>

#include <cerrno>

#include "tests/support/packets.h"

namespace trunkline::test {
namespace {

constexpr std::uint8_t kNeeds = VnetHeader::kNeedsChecksum;
const L2 kPlain{mac("0a:00:00:00:00:01"), mac("0a:00:00:00:00:02")};
const L2 kTagged{mac("0a:00:00:00:00:01"), mac("0a:00:00:00:00:02"), 100};
const IpAddress kA = ip("10.0.0.1"), kB = ip("10.0.0.2"), kA6 = ip("2001:db8::1"), kB6 = ip("2001:db8::2");

Frame tcp4(std::size_t data, const L2& l2 = kPlain) { return ip_packet(l2, kA, kB, 6, tcp_segment(1000, 80, 0x10, data)); }
Frame tcp6(std::size_t data) { return ip_packet(kPlain, kA6, kB6, 6, tcp_segment(1000, 80, 0x10, data)); }
Frame udp4(std::size_t data) { return ip_packet(kPlain, kA, kB, 17, udp_datagram(1000, 53, data)); }

struct Received {
  bool taken;
  std::uint64_t flags;
  std::uint16_t segment;
  Frame bytes;
};

Received receive(const Frame& frame, const VnetHeader& header, bool offloads = true, std::size_t first = SIZE_MAX) {
  Mbufs mbufs;
  rte_mbuf* packet = mbufs.make(frame, first);
  const bool taken = read_vnet_header(header, offloads, *packet);
  return {taken, packet->ol_flags, static_cast<std::uint16_t>(packet->tso_segsz), Mbufs::bytes_of(packet)};
}

// The checksum of a layer above IP is right when the sum over it and its pseudo-header is all ones.
std::uint16_t sum_of(const Frame& frame, std::size_t start, std::uint32_t pseudo = 0) {
  return __rte_raw_cksum_reduce(__rte_raw_cksum(frame.data() + start, frame.size() - start, pseudo));
}

std::uint16_t at(const Frame& frame, std::size_t offset) {
  std::uint16_t value;
  std::memcpy(&value, frame.data() + offset, 2);
  return value;
}

TEST(VnetHeader, AnEmptyHeaderSaysNothing) {
  const Received plain = receive(tcp4(100), {});
  EXPECT_TRUE(plain.taken);
  EXPECT_EQ(plain.flags, 0U);
  EXPECT_EQ(plain.bytes, tcp4(100));
}

TEST(VnetHeader, PartialChecksum) {
  for (const auto& [frame, start, offset] : {std::tuple{tcp4(10), 34, 16}, {tcp4(10, kTagged), 38, 16}, {tcp6(10), 54, 16}, {udp4(10), 34, 6}}) {
    const Received got = receive(frame, {kNeeds, 0, 0, 0, static_cast<std::uint16_t>(start), static_cast<std::uint16_t>(offset)});
    EXPECT_TRUE(got.taken);
    EXPECT_EQ(got.flags, RTE_MBUF_F_RX_L4_CKSUM_NONE);
    EXPECT_EQ(got.bytes, frame) << "left to whoever sends it on";
  }
}

TEST(VnetHeader, ChecksumSeenToBeRight) {
  EXPECT_EQ(receive(tcp4(10), {VnetHeader::kChecksumValid}).flags, RTE_MBUF_F_RX_L4_CKSUM_GOOD);
  const Received icmp = receive(ip_packet(kPlain, kA, kB, 1, icmp_message(8, 0, 1)), {VnetHeader::kChecksumValid});
  EXPECT_TRUE(icmp.taken);
  EXPECT_EQ(icmp.flags, 0U) << "says nothing about ICMP";
}

TEST(VnetHeader, SeveralSegments) {
  const Received v4 = receive(tcp4(30'000), {kNeeds, VnetHeader::kTcp4, 54, 1448, 34, 16}, true, 2000);
  EXPECT_TRUE(v4.taken);
  EXPECT_EQ(v4.flags, RTE_MBUF_F_RX_LRO | RTE_MBUF_F_RX_L4_CKSUM_NONE);
  EXPECT_EQ(v4.segment, 1448);
  const Received v6 = receive(tcp6(30'000), {kNeeds, VnetHeader::kTcp6, 0, 1428, 54, 16});
  EXPECT_TRUE(v6.taken) << "hdr_len is a hint, and not asked";
  EXPECT_EQ(v6.segment, 1428);
}

TEST(VnetHeader, LiesAreRefused) {
  Frame short_offset = tcp4(3000);
  short_offset[14 + 20 + 12] = 0x40;  // TCP of 16 bytes
  Frame fragment = tcp4(3000);
  fragment[14 + 6] = 0x20;  // more follow
  const VnetHeader segments{kNeeds, VnetHeader::kTcp4, 54, 1448, 34, 16};
  struct Lie {
    const char* what;
    Frame frame;
    VnetHeader header;
  };
  const Lie lies[] = {
      {"unknown flag", tcp4(10), {4}},
      {"unknown flag beside a known one", tcp4(10), {kNeeds | 0x80, 0, 0, 0, 34, 16}},
      {"unknown kind of segments", tcp4(3000), {kNeeds, 2, 54, 1448, 34, 16}},
      {"UDP fragmentation", udp4(3000), {kNeeds, 3, 42, 1448, 34, 6}},
      {"UDP segments", udp4(3000), {kNeeds, 5, 42, 1448, 34, 6}},
      {"ECN, which is not asked for", tcp4(3000), {kNeeds, VnetHeader::kTcp4 | 0x80, 54, 1448, 34, 16}},
      {"segments without a partial checksum", tcp4(3000), {0, VnetHeader::kTcp4, 54, 1448, 34, 16}},
      {"segments, checksum said to be right", tcp4(3000), {VnetHeader::kChecksumValid, VnetHeader::kTcp4, 54, 1448, 34, 16}},
      {"no segment size", tcp4(3000), {kNeeds, VnetHeader::kTcp4, 54, 0, 34, 16}},
      {"segments of seven bytes", tcp4(3000), {kNeeds, VnetHeader::kTcp4, 54, 7, 34, 16}},
      {"one segment", tcp4(1448), segments},
      {"IPv6 said, IPv4 sent", tcp4(3000), {kNeeds, VnetHeader::kTcp6, 54, 1448, 34, 16}},
      {"IPv4 said, IPv6 sent", tcp6(3000), {kNeeds, VnetHeader::kTcp4, 74, 1448, 54, 16}},
      {"UDP with segments of TCP", udp4(3000), segments},
      {"segments of a fragment", fragment, segments},
      {"TCP shorter than TCP", short_offset, segments},
      {"checksum of segments somewhere else", tcp4(3000), {kNeeds, VnetHeader::kTcp4, 54, 1448, 38, 16}},
      {"checksum field of segments somewhere else", tcp4(3000), {kNeeds, VnetHeader::kTcp4, 54, 1448, 34, 18}},
      {"checksum in the Ethernet header", tcp4(10), {kNeeds, 0, 0, 0, 0, 16}},
      {"checksum past the end", tcp4(10), {kNeeds, 0, 0, 0, 63, 0}},
      {"checksum far past the end", tcp4(10), {kNeeds, 0, 0, 0, 0xffff, 0xffff}},
      {"not even an IP header", Frame(14, 0xff), {kNeeds, VnetHeader::kTcp4, 54, 1448, 34, 16}},
  };
  for (const Lie& lie : lies) EXPECT_FALSE(receive(lie.frame, lie.header).taken) << lie.what;
  EXPECT_TRUE(receive(tcp4(1449), segments).taken) << "the least that is several";
  EXPECT_TRUE(receive(tcp4(3000), {kNeeds, VnetHeader::kTcp4, 54, 8, 34, 16}).taken);
  EXPECT_TRUE(receive(tcp4(10), {kNeeds, 0, 0, 0, 62, 0}).taken) << "the last two bytes";
}

TEST(VnetHeader, WhatNobodyBehindWouldKnowIsCompletedHere) {
  // As in a tunnel: the sum over the payload, with its place in the middle of it, over the border of two buffers as well.
  for (const std::size_t first : {SIZE_MAX, std::size_t{43}, std::size_t{44}, std::size_t{45}}) {
    const Received got = receive(udp4(40), {kNeeds, 0, 0, 0, 42, 2}, true, first);
    EXPECT_TRUE(got.taken);
    EXPECT_EQ(got.flags, 0U);
    Frame without = got.bytes;
    without[44] = without[45] = 'u';
    EXPECT_EQ(without, udp4(40));
    // The field's own two bytes were part of the sum, as a pseudo-header's sum is.
    EXPECT_EQ(sum_of(got.bytes, 42, at(udp4(40), 44)), 0xffff) << first;
  }
}

TEST(VnetHeader, WithoutOffloadsOnlyAChecksumIsForgiven) {
  const Received got = receive(tcp4(11), {kNeeds, 0, 0, 0, 34, 16}, false);
  EXPECT_TRUE(got.taken);
  EXPECT_EQ(got.flags, 0U);
  EXPECT_EQ(sum_of(got.bytes, 34), 0xffff) << "completed";
  EXPECT_FALSE(receive(tcp4(3000), {kNeeds, VnetHeader::kTcp4, 54, 1448, 34, 16}, false).taken);
}

TEST(VnetHeader, ASumOfZeroIsSentAsAllOnes) {
  // Over all values of a word the sum takes all of its own; a zero, "no checksum" in UDP, must not be among the answers.
  Frame frame = udp4(2);
  std::uint32_t all_ones = 0;
  for (std::uint32_t word = 0; word < 0x10000; ++word) {
    const auto value = static_cast<std::uint16_t>(word);
    std::memcpy(frame.data() + 42, &value, 2);
    const std::uint16_t sum = at(receive(frame, {kNeeds, 0, 0, 0, 34, 6}, false).bytes, 40);
    ASSERT_NE(sum, 0) << word;
    all_ones += sum == 0xffff;
  }
  EXPECT_GE(all_ones, 1U);
}

TEST(VnetHeader, SentAsTheFlagsSay) {
  Mbufs mbufs;
  rte_mbuf* packet = mbufs.make(tcp4(3000));
  packet->l2_len = 14, packet->l3_len = 20, packet->l4_len = 20, packet->tso_segsz = 1448;
  EXPECT_EQ(vnet_header_of(*packet).flags, 0);
  packet->ol_flags = RTE_MBUF_F_TX_IPV4 | RTE_MBUF_F_TX_UDP_CKSUM;
  VnetHeader header = vnet_header_of(*packet);
  EXPECT_EQ(header.flags, kNeeds);
  EXPECT_EQ(header.csum_start, 34);
  EXPECT_EQ(header.csum_offset, 6);
  EXPECT_EQ(header.gso_type, 0);
  packet->ol_flags = RTE_MBUF_F_TX_IPV4 | RTE_MBUF_F_TX_TCP_CKSUM;
  EXPECT_EQ(vnet_header_of(*packet).csum_offset, 16);
  EXPECT_EQ(vnet_header_of(*packet).gso_size, 0);
  packet->ol_flags = RTE_MBUF_F_TX_IPV4 | RTE_MBUF_F_TX_TCP_SEG;
  header = vnet_header_of(*packet);
  EXPECT_EQ(header.flags, kNeeds);
  EXPECT_EQ(header.gso_type, VnetHeader::kTcp4);
  EXPECT_EQ(header.gso_size, 1448);
  EXPECT_EQ(header.hdr_len, 54);
  packet->ol_flags = RTE_MBUF_F_TX_IPV6 | RTE_MBUF_F_TX_TCP_SEG;
  EXPECT_EQ(vnet_header_of(*packet).gso_type, VnetHeader::kTcp6);
  packet->ol_flags = RTE_MBUF_F_TX_SCTP_CKSUM;
  EXPECT_EQ(vnet_header_of(*packet).flags, 0) << "not ours";
}

TEST(VnetHeader, PreparedWithThePseudoHeader) {
  Mbufs mbufs;
  const auto prepared = [&](Frame frame, std::uint64_t flags, std::uint16_t l3) {
    rte_mbuf* packet = mbufs.make(frame);
    packet->l2_len = 14, packet->l3_len = l3, packet->l4_len = 20, packet->tso_segsz = 1448, packet->ol_flags = flags;
    EXPECT_EQ(prepare_vnet_packet(*packet), 0);
    return Mbufs::bytes_of(packet);
  };
  Frame frame = tcp4(3000);
  const auto* v4 = reinterpret_cast<const rte_ipv4_hdr*>(frame.data() + 14);
  EXPECT_EQ(at(prepared(frame, RTE_MBUF_F_TX_IPV4 | RTE_MBUF_F_TX_TCP_SEG, 20), 50), rte_ipv4_phdr_cksum(v4, 0)) << "with the length";
  frame = udp4(30);
  EXPECT_EQ(at(prepared(frame, RTE_MBUF_F_TX_IPV4 | RTE_MBUF_F_TX_UDP_CKSUM, 20), 40),
            rte_ipv4_phdr_cksum(reinterpret_cast<const rte_ipv4_hdr*>(frame.data() + 14), 0));
  frame = tcp6(3000);
  EXPECT_EQ(at(prepared(frame, RTE_MBUF_F_TX_IPV6 | RTE_MBUF_F_TX_TCP_SEG, 40), 70),
            rte_ipv6_phdr_cksum(reinterpret_cast<const rte_ipv6_hdr*>(frame.data() + 14), 0));
  // With eight bytes of hop-by-hop options the sum is that of the packet without them.
  const std::uint16_t without = at(prepared(tcp6(92), RTE_MBUF_F_TX_IPV6 | RTE_MBUF_F_TX_TCP_CKSUM, 40), 70);
  Frame options{6, 0, 1, 4, 0, 0, 0, 0};
  const Frame segment = tcp_segment(1000, 80, 0x10, 92);
  options.insert(options.end(), segment.begin(), segment.end());
  EXPECT_EQ(at(prepared(ip_packet(kPlain, kA6, kB6, 0, options), RTE_MBUF_F_TX_IPV6 | RTE_MBUF_F_TX_TCP_CKSUM, 48), 78), without);
}

TEST(VnetHeader, NotPreparedWhenTheLengthsAreWrong) {
  Mbufs mbufs;
  const auto result = [&](const Frame& frame, std::uint16_t l3, std::size_t first = SIZE_MAX) {
    rte_mbuf* packet = mbufs.make(frame, first);
    packet->l2_len = 14, packet->l3_len = l3, packet->l4_len = 20, packet->ol_flags = RTE_MBUF_F_TX_IPV4 | RTE_MBUF_F_TX_TCP_CKSUM;
    return prepare_vnet_packet(*packet);
  };
  EXPECT_EQ(result(tcp4(100), 20), 0);
  EXPECT_EQ(result(tcp4(100), 20, 53), -ENOTSUP) << "headers over two buffers";
  EXPECT_EQ(result(tcp4(100), 20, 54), 0);
  EXPECT_EQ(result(tcp4(100), 16), -EINVAL);
  EXPECT_EQ(result(tcp4(0), 24), -ENOTSUP);
  Frame lying = tcp4(100);
  lying[16] = 0, lying[17] = 30;  // total length
  EXPECT_EQ(result(lying, 20), -EINVAL);
}

}  // namespace
}  // namespace trunkline::test
