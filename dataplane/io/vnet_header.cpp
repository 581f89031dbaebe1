// SPDX-License-Identifier: BSD-3-Clause
#include "dataplane/io/vnet_header.h"

#include <netinet/in.h>
#include <rte_ether.h>
#include <rte_ip.h>
#include <rte_net.h>
#include <rte_tcp.h>
#include <rte_udp.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstring>

namespace trunkline {
namespace {

constexpr std::uint16_t kTcpChecksum = offsetof(rte_tcp_hdr, cksum);
constexpr std::uint16_t kUdpChecksum = offsetof(rte_udp_hdr, dgram_cksum);
// Linux cuts no stream finer: TCP_MIN_GSO_SIZE, what the least MSS leaves beside all options.
constexpr std::uint16_t kMinSegment = 8;

// Two bytes anywhere in a chain, also across two buffers.
void write_at(rte_mbuf& packet, std::uint32_t offset, std::uint16_t value) {
  std::uint8_t bytes[2];
  std::memcpy(bytes, &value, 2);
  rte_mbuf* segment = &packet;
  for (const std::uint8_t byte : bytes) {
    while (offset >= segment->data_len) {
      offset -= segment->data_len;
      segment = segment->next;
    }
    *rte_pktmbuf_mtod_offset(segment, std::uint8_t*, offset) = byte;
    ++offset;
  }
}

// The sum from an offset to the end. Not rte_raw_cksum_mbuf(), which loses the carries of a buffer that begins at an odd place.
std::uint16_t sum_from(const rte_mbuf& packet, std::uint32_t offset) {
  std::uint32_t sum = 0, done = 0;
  for (const rte_mbuf* segment = &packet; segment != nullptr; segment = segment->next) {
    if (offset >= segment->data_len) {
      offset -= segment->data_len;
      continue;
    }
    const std::uint32_t length = segment->data_len - offset;
    const std::uint16_t part = __rte_raw_cksum_reduce(__rte_raw_cksum(rte_pktmbuf_mtod_offset(segment, const void*, offset), length, 0));
    sum += done % 2 == 0 ? part : rte_bswap16(part);
    done += length;
    offset = 0;
  }
  return __rte_raw_cksum_reduce(sum);
}

// The field already holds the pseudo-header's sum; the rest is the sum over all that follows `csum_start`.
bool complete_checksum(const VnetHeader& header, rte_mbuf& packet) {
  const std::uint32_t field = std::uint32_t{header.csum_start} + header.csum_offset;
  if (header.csum_start < RTE_ETHER_HDR_LEN || field + 2 > packet.pkt_len) return false;
  const std::uint16_t sum = sum_from(packet, header.csum_start);
  // UDP says "no checksum" with a zero, which here means the same as all ones.
  write_at(packet, field, sum == 0xffff ? sum : static_cast<std::uint16_t>(~sum));
  return true;
}

std::uint32_t layer4(std::uint32_t packet_type) { return packet_type & RTE_PTYPE_L4_MASK; }
bool is_ipv6(std::uint32_t packet_type) { return RTE_ETH_IS_IPV6_HDR(packet_type); }

}  // namespace

bool read_vnet_header(const VnetHeader& header, bool offloads, rte_mbuf& packet) {
  if (header.flags == 0 && header.gso_type == VnetHeader::kWhole) return true;
  const bool partial = (header.flags & VnetHeader::kNeedsChecksum) != 0;
  if ((header.flags & ~(VnetHeader::kNeedsChecksum | VnetHeader::kChecksumValid)) != 0) return false;
  if (!offloads) {
    if (header.gso_type != VnetHeader::kWhole) return false;
    return !partial || complete_checksum(header, packet);
  }
  rte_net_hdr_lens lengths{};
  packet.packet_type = rte_net_get_ptype(&packet, &lengths, RTE_PTYPE_ALL_MASK);
  // A tunnel's lengths are those of what is inside; the kernel never leaves its segments to us, and its checksum is completed here.
  const bool plain = (packet.packet_type & RTE_PTYPE_TUNNEL_MASK) == 0;
  const bool is_tcp = plain && layer4(packet.packet_type) == RTE_PTYPE_L4_TCP;
  const bool is_udp = plain && layer4(packet.packet_type) == RTE_PTYPE_L4_UDP;
  const std::uint32_t start = std::uint32_t{lengths.l2_len} + lengths.l3_len;
  const bool at_its_place = partial && header.csum_start == start &&
                            ((is_tcp && header.csum_offset == kTcpChecksum) || (is_udp && header.csum_offset == kUdpChecksum));
  if (header.gso_type != VnetHeader::kWhole) {
    const std::uint8_t type = is_ipv6(packet.packet_type) ? VnetHeader::kTcp6 : VnetHeader::kTcp4;
    if (!is_tcp || !at_its_place || header.gso_type != type || lengths.l4_len < sizeof(rte_tcp_hdr)) return false;
    // What fits into one segment is none of several.
    if (header.gso_size < kMinSegment || packet.pkt_len <= start + lengths.l4_len + header.gso_size) return false;
    packet.tso_segsz = header.gso_size;
    packet.ol_flags |= RTE_MBUF_F_RX_LRO | RTE_MBUF_F_RX_L4_CKSUM_NONE;
    return true;
  }
  if (partial) {
    // Of another protocol, or inside a tunnel: nobody behind this would know it.
    if (!at_its_place) return complete_checksum(header, packet);
    packet.ol_flags |= RTE_MBUF_F_RX_L4_CKSUM_NONE;
  } else if (is_tcp || is_udp) {
    packet.ol_flags |= RTE_MBUF_F_RX_L4_CKSUM_GOOD;
  }
  return true;
}

VnetHeader vnet_header_of(const rte_mbuf& packet) {
  VnetHeader header{};
  const bool segments = (packet.ol_flags & RTE_MBUF_F_TX_TCP_SEG) != 0;
  const std::uint64_t checksum = segments ? RTE_MBUF_F_TX_TCP_CKSUM : packet.ol_flags & RTE_MBUF_F_TX_L4_MASK;
  if (checksum != RTE_MBUF_F_TX_TCP_CKSUM && checksum != RTE_MBUF_F_TX_UDP_CKSUM) return header;
  header.flags = VnetHeader::kNeedsChecksum;
  header.csum_start = static_cast<std::uint16_t>(packet.l2_len + packet.l3_len);
  header.csum_offset = checksum == RTE_MBUF_F_TX_TCP_CKSUM ? kTcpChecksum : kUdpChecksum;
  if (!segments) return header;
  header.gso_type = (packet.ol_flags & RTE_MBUF_F_TX_IPV6) != 0 ? VnetHeader::kTcp6 : VnetHeader::kTcp4;
  header.gso_size = packet.tso_segsz;
  header.hdr_len = static_cast<std::uint16_t>(packet.l2_len + packet.l3_len + packet.l4_len);
  return header;
}

int prepare_vnet_packet(rte_mbuf& packet) {
  const VnetHeader header = vnet_header_of(packet);
  if (header.flags == 0) return 0;
  const std::uint32_t least = header.csum_offset == kTcpChecksum ? sizeof(rte_tcp_hdr) : sizeof(rte_udp_hdr);
  const std::uint32_t headers = header.csum_start + std::max<std::uint32_t>(least, header.hdr_len == 0 ? 0 : packet.l4_len);
  if (packet.data_len < headers) return -ENOTSUP;
  const bool ipv6 = (packet.ol_flags & RTE_MBUF_F_TX_IPV6) != 0;
  if (packet.l3_len < (ipv6 ? sizeof(rte_ipv6_hdr) : sizeof(rte_ipv4_hdr))) return -EINVAL;
  const auto* ip = rte_pktmbuf_mtod_offset(&packet, const std::uint8_t*, packet.l2_len);
  // Not DPDK's functions for it: with TX_TCP_SEG they leave the length out, and they know no IPv6 extension headers.
  std::uint32_t sum = 0;
  std::uint32_t length = 0;
  if (ipv6) {
    const auto* fixed = reinterpret_cast<const rte_ipv6_hdr*>(ip);
    length = rte_be_to_cpu_16(fixed->payload_len) + static_cast<std::uint32_t>(sizeof *fixed) - packet.l3_len;
    sum = __rte_raw_cksum(fixed->src_addr, 2 * sizeof fixed->src_addr, 0);
  } else {
    const auto* fixed = reinterpret_cast<const rte_ipv4_hdr*>(ip);
    length = static_cast<std::uint32_t>(rte_be_to_cpu_16(fixed->total_length)) - packet.l3_len;
    sum = __rte_raw_cksum(&fixed->src_addr, 2 * sizeof fixed->src_addr, 0);
  }
  if (length > 0xffff || length < least) return -EINVAL;
  sum += rte_cpu_to_be_16(static_cast<std::uint16_t>(length));
  sum += rte_cpu_to_be_16(header.csum_offset == kTcpChecksum ? IPPROTO_TCP : IPPROTO_UDP);
  const std::uint16_t folded = __rte_raw_cksum_reduce(sum);
  std::memcpy(rte_pktmbuf_mtod_offset(&packet, std::uint8_t*, header.csum_start + header.csum_offset), &folded, 2);
  return 0;
}

}  // namespace trunkline
