// SPDX-License-Identifier: BSD-3-Clause
//
// Stage 1: from bytes to offsets, addresses and ports. The only place that reads a header's lengths; each is checked
// against the bytes that are there before anything behind it is looked at. Everything is bounded: at most one VLAN
// tag, one IP header, eight IPv6 extension headers.
//
// Refuses: malformed, unexpected_vlan (a second tag), ethertype, fragment, ip_options, tcp_flags,
// martian (an IPv6 address that spells an IPv4 one).
#pragma once

#include <rte_byteorder.h>
#include <rte_mbuf.h>

#include <cstdint>
#include <cstring>

#include "dataplane/packet.h"

namespace trunkline {

namespace ether {
inline constexpr std::uint32_t header_bytes = 14;
inline constexpr std::uint32_t tag_bytes = 4;
inline constexpr std::uint16_t ipv4 = 0x0800;
inline constexpr std::uint16_t arp = 0x0806;
inline constexpr std::uint16_t vlan = 0x8100;
inline constexpr std::uint16_t ipv6 = 0x86dd;
inline constexpr std::uint16_t qinq = 0x88a8;
}  // namespace ether

inline std::uint16_t load16(const std::uint8_t* at) {
  std::uint16_t value;
  std::memcpy(&value, at, sizeof value);
  return rte_be_to_cpu_16(value);
}
inline void store16(std::uint8_t* at, std::uint16_t value) {
  value = rte_cpu_to_be_16(value);
  std::memcpy(at, &value, sizeof value);
}

namespace detail {

// ICMP types that ask and are answered; the identifier ties the two together.
inline bool icmp_has_identifier(std::uint8_t protocol, std::uint8_t type) {
  if (protocol == protocol::icmpv6) return type == 128 || type == 129;
  return type == 8 || type == 0 || (type >= 13 && type <= 18);
}

// The transport header at `offset`; `room` is what the IP header says is there, `data` what the first segment has.
inline void parse_layer4(Burst& burst, std::uint32_t i, const std::uint8_t* frame, std::uint32_t offset,
                         std::uint32_t room, std::uint32_t data) {
  const std::uint8_t* header = frame + offset;
  const std::uint32_t seen = offset + room <= data ? room : data - offset;
  switch (burst.protocol[i]) {
    case protocol::tcp: {
      if (seen < 20) return burst.drop(i, DropReason::malformed);
      const std::uint32_t header_bytes = (header[12] >> 4) * 4U;
      if (header_bytes < 20 || header_bytes > room) return burst.drop(i, DropReason::malformed);
      const std::uint8_t flags = header[13];
      burst.tcp_flags[i] = flags;
      const bool syn = flags & tcp_flag::syn;
      if ((syn && (flags & (tcp_flag::fin | tcp_flag::rst))) ||
          !(flags & (tcp_flag::syn | tcp_flag::rst | tcp_flag::ack))) {
        return burst.drop(i, DropReason::tcp_flags);
      }
      break;
    }
    case protocol::udp: {
      if (seen < 8) return burst.drop(i, DropReason::malformed);
      const std::uint32_t length = load16(header + 4);
      if (length < 8 || length > room) return burst.drop(i, DropReason::malformed);
      break;
    }
    case protocol::icmp:
    case protocol::icmpv6:
      if (seen < 8) return burst.drop(i, DropReason::malformed);
      burst.icmp_type[i] = header[0];
      burst.icmp_code[i] = header[1];
      if (icmp_has_identifier(burst.protocol[i], header[0])) {
        burst.source_port[i] = burst.destination_port[i] = load16(header + 4);
      }
      burst.layer4_offset[i] = static_cast<std::uint16_t>(offset);
      return;
    default:
      burst.layer4_offset[i] = static_cast<std::uint16_t>(offset);
      return;
  }
  burst.layer4_offset[i] = static_cast<std::uint16_t>(offset);
  burst.source_port[i] = load16(header);
  burst.destination_port[i] = load16(header + 2);
}

inline void parse_ipv4(Burst& burst, std::uint32_t i, const std::uint8_t* frame, std::uint32_t offset,
                       std::uint32_t data, std::uint32_t frame_bytes) {
  if (offset + 20 > data) return burst.drop(i, DropReason::malformed);
  const std::uint8_t* header = frame + offset;
  const std::uint32_t header_bytes = (header[0] & 15) * 4U;
  const std::uint32_t total_bytes = load16(header + 2);
  if (header[0] >> 4 != 4 || header_bytes < 20 || offset + header_bytes > data || total_bytes < header_bytes ||
      offset + total_bytes > frame_bytes) {
    return burst.drop(i, DropReason::malformed);
  }
  burst.layer3[i] = Layer3::ipv4;
  burst.source[i] = IpAddress::from_v4_bytes(header + 12);
  burst.destination[i] = IpAddress::from_v4_bytes(header + 16);
  burst.packet_bytes[i] = static_cast<std::uint16_t>(total_bytes);
  burst.protocol[i] = header[9];
  for (std::uint32_t at = 20; at < header_bytes;) {
    const std::uint8_t option = header[at];
    if (option == 0) break;
    if (option == 1) {
      ++at;
      continue;
    }
    if (at + 1 >= header_bytes || header[at + 1] < 2 || at + header[at + 1] > header_bytes) {
      return burst.drop(i, DropReason::malformed);
    }
    if (option == 131 || option == 137) return burst.drop(i, DropReason::ip_options);  // loose, strict source route
    at += header[at + 1];
  }
  if ((load16(header + 6) & 0x3fff) != 0) return burst.drop(i, DropReason::fragment);  // more-fragments or an offset
  if (burst.protocol[i] == protocol::icmpv6) return;  // not ICMP here: just a number
  parse_layer4(burst, i, frame, offset + header_bytes, total_bytes - header_bytes, data);
}

inline void parse_ipv6(Burst& burst, std::uint32_t i, const std::uint8_t* frame, std::uint32_t offset,
                       std::uint32_t data, std::uint32_t frame_bytes) {
  static constexpr unsigned kMaxExtensions = 8;
  if (offset + 40 > data) return burst.drop(i, DropReason::malformed);
  const std::uint8_t* header = frame + offset;
  const std::uint32_t total_bytes = 40U + load16(header + 4);
  if (header[0] >> 4 != 6 || total_bytes > 65535 || offset + total_bytes > frame_bytes) {
    return burst.drop(i, DropReason::malformed);
  }
  burst.layer3[i] = Layer3::ipv6;
  burst.source[i] = IpAddress::from_v6_bytes(header + 8);
  burst.destination[i] = IpAddress::from_v6_bytes(header + 24);
  // ::ffff:a.b.c.d on the wire would be taken for the IPv4 address that the tables store in this form.
  if (burst.source[i].is_v4() || burst.destination[i].is_v4()) return burst.drop(i, DropReason::martian);
  burst.packet_bytes[i] = static_cast<std::uint16_t>(total_bytes);
  std::uint8_t next = header[6];
  std::uint32_t at = offset + 40;
  const std::uint32_t end = offset + total_bytes;
  for (unsigned extensions = 0;; ++extensions) {
    if (next == 44) return burst.drop(i, DropReason::fragment);
    if (next == 43) return burst.drop(i, DropReason::ip_options);  // routing header
    if (next != 0 && next != 60) break;                            // hop-by-hop and destination options are stepped over
    if (extensions == kMaxExtensions || at + 8 > end || at + 8 > data) return burst.drop(i, DropReason::malformed);
    const std::uint32_t length = (frame[at + 1] + 1U) * 8U;
    if (at + length > end || at + length > data) return burst.drop(i, DropReason::malformed);
    next = frame[at];
    at += length;
  }
  burst.protocol[i] = next;
  if (next == 59 || next == protocol::icmp) return;  // no next header; ICMP for IPv4 is just a number here
  parse_layer4(burst, i, frame, at, end - at, data);
}

inline void parse_arp(Burst& burst, std::uint32_t i, const std::uint8_t* frame, std::uint32_t offset,
                      std::uint32_t data) {
  static constexpr std::uint8_t ethernet_ipv4[] = {0, 1, 8, 0, 6, 4};
  if (offset + 28 > data || std::memcmp(frame + offset, ethernet_ipv4, sizeof ethernet_ipv4) != 0) {
    return burst.drop(i, DropReason::malformed);
  }
  burst.layer3[i] = Layer3::arp;
  burst.source[i] = IpAddress::from_v4_bytes(frame + offset + 14);
  burst.destination[i] = IpAddress::from_v4_bytes(frame + offset + 24);
}

inline void parse_one(Burst& burst, std::uint32_t i) {
  const rte_mbuf* packet = burst.mbuf[i];
  const std::uint8_t* frame = burst.bytes(i);
  const std::uint32_t data = packet->data_len;
  burst.vlan[i] = 0;
  burst.tag_bytes[i] = 0;
  burst.layer3[i] = Layer3::other;
  burst.layer4_offset[i] = 0;
  burst.packet_bytes[i] = 0;
  burst.protocol[i] = 0;
  burst.tcp_flags[i] = 0;
  burst.source_port[i] = burst.destination_port[i] = 0;
  burst.icmp_type[i] = burst.icmp_code[i] = 0;

  if (data < ether::header_bytes) return burst.drop(i, DropReason::malformed);
  std::uint32_t offset = ether::header_bytes;
  std::uint16_t ethertype = load16(frame + 12);
  const bool stripped = (packet->ol_flags & RTE_MBUF_F_RX_VLAN_STRIPPED) != 0;
  if (stripped) burst.vlan[i] = packet->vlan_tci & 0xfff;
  if (ethertype == ether::vlan) {
    if (data < ether::header_bytes + ether::tag_bytes) return burst.drop(i, DropReason::malformed);
    if (stripped) return burst.drop(i, DropReason::unexpected_vlan);
    burst.vlan[i] = load16(frame + 14) & 0xfff;
    burst.tag_bytes[i] = ether::tag_bytes;
    offset += ether::tag_bytes;
    ethertype = load16(frame + 16);
  }
  burst.layer3_offset[i] = static_cast<std::uint16_t>(offset);
  switch (ethertype) {
    case ether::ipv4: return parse_ipv4(burst, i, frame, offset, data, packet->pkt_len);
    case ether::ipv6: return parse_ipv6(burst, i, frame, offset, data, packet->pkt_len);
    case ether::arp: return parse_arp(burst, i, frame, offset, data);
    case ether::vlan:
    case ether::qinq: return burst.drop(i, DropReason::unexpected_vlan);
    default: return burst.drop(i, DropReason::ethertype);
  }
}

}  // namespace detail

inline void parse(Burst& burst) {
  static constexpr std::uint32_t kAhead = 4;
  for (std::uint32_t i = 0; i < burst.size; ++i) {
    if (i + kAhead < burst.size) rte_prefetch0(rte_pktmbuf_mtod(burst.mbuf[i + kAhead], void*));
    detail::parse_one(burst, i);
  }
}

}  // namespace trunkline
