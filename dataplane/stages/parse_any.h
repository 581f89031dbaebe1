// SPDX-License-Identifier: BSD-3-Clause
//
// The long way of parse (parse.h): any packet, header by header. Everything is bounded: at most one VLAN tag, one IP header with what stands
// between it and the transport header (wire/ip_headers.h, which says what each extension header comes to).
//
// Nobody may send a packet without time to live (RFC 1122), so it is malformed; what has some left keeps it, down to the last: the
// VPC is not a hop that counts.
//
// A later fragment has no transport header to look at: layer4_offset is where its bytes begin, and the ports stay 0.
//
// What a port says that it left undone (a checksum, segmentation) was written by a task as well, and is held against the packet;
// super_frame.h says what later stages may rely on.
//
// Refuses: malformed, unexpected_vlan (a second tag), ethertype, fragment_tiny (also a first fragment without all of its IPv6 extension
// headers), ip_options, tcp_flags, martian (an IPv6 address that spells an IPv4 one), bad_offload.
#pragma once

#include <rte_mbuf.h>

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "dataplane/packet.h"
#include "dataplane/state/super_frame.h"
#include "dataplane/wire/bytes.h"
#include "dataplane/wire/icmp.h"
#include "dataplane/wire/ip_headers.h"

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

namespace detail {

// TCP flags that no connection has, a bit for each combination of the low six flags. As nf_conntrack has them (its table of valid
// combinations): of SYN, RST and ACK there is one at least, FIN only beside ACK, none of FIN, SYN and RST beside another, and URG
// neither beside RST nor in a SYN-ACK. So a NULL, a FIN and an XMAS scan are refused.
inline constexpr std::uint64_t kBadTcpFlags = [] {
  std::uint64_t bad = 0;
  for (unsigned flags = 0; flags < 64; ++flags) {
    const bool fin = flags & tcp_flag::fin, syn = flags & tcp_flag::syn, rst = flags & tcp_flag::rst;
    const bool ack = flags & tcp_flag::ack, urg = flags & tcp_flag::urg;
    if (fin + syn + rst > 1 || (fin && !ack) || !(syn || rst || ack) || (urg && (rst || (syn && ack)))) bad |= std::uint64_t{1} << flags;
  }
  return bad;
}();
inline bool is_bad_tcp(std::uint8_t flags) { return (kBadTcpFlags >> (flags & 63) & 1) != 0; }

inline constexpr std::uint32_t kTcpBytes = 20;
inline constexpr std::uint32_t kUdpBytes = 8;

// What parse_any() works on: one packet's bytes and where its results go.
struct Parsing {
  const std::uint8_t* frame;
  std::uint32_t data;         // bytes in the first segment
  std::uint32_t frame_bytes;  // in the whole chain
  Direction direction;
  Headers& headers;
  FlowKey& key;

  void set_ports(std::uint16_t source, std::uint16_t destination) {  // as they are in the packet
    const bool ingress = direction == Direction::ingress;
    key.remote_port = ingress ? source : destination;
    key.local_port = ingress ? destination : source;
  }
};

// The transport header at `offset`; `room` is what the IP header says is there.
inline DropReason parse_layer4(Parsing& in, std::uint32_t offset, std::uint32_t room) {
  const std::uint8_t* header = in.frame + offset;
  const std::uint32_t seen = offset + room <= in.data ? room : in.data - offset;
  Headers& headers = in.headers;
  const bool whole = headers.fragment == Fragment::none;
  const DropReason too_short = whole ? DropReason::malformed : DropReason::fragment_tiny;
  headers.layer4_offset = static_cast<std::uint16_t>(offset);
  if (headers.fragment == Fragment::later) return DropReason::none;
  switch (headers.protocol) {
    case protocol::tcp: {
      if (seen < kTcpBytes) return too_short;
      const std::uint32_t header_bytes = (header[12] >> 4) * 4U;
      if (header_bytes < kTcpBytes) return DropReason::malformed;
      if (header_bytes > room) return too_short;
      headers.tcp_flags = header[13];
      if (is_bad_tcp(headers.tcp_flags)) return DropReason::tcp_flags;
      in.set_ports(load_raw<std::uint16_t>(header), load_raw<std::uint16_t>(header + 2));
      break;
    }
    case protocol::udp: {
      if (seen < kUdpBytes) return too_short;
      const std::uint32_t length = load16(header + 4);
      if (length < kUdpBytes || (whole && length > room)) return DropReason::malformed;
      in.set_ports(load_raw<std::uint16_t>(header), load_raw<std::uint16_t>(header + 2));
      break;
    }
    case protocol::icmp:
    case protocol::icmpv6:
      if (seen < 8) return too_short;
      headers.whole_key = false;
      headers.icmp_type = header[0];
      headers.icmp_code = header[1];
      if (bool is_query; icmp_query_type(headers.protocol, header[0], is_query) != 0) {
        const auto identifier = load_raw<std::uint16_t>(header + 4);
        in.set_ports(identifier, identifier);
      }
      break;
    default: break;
  }
  return DropReason::none;
}

inline DropReason parse_ipv4(Parsing& in, std::uint32_t offset) {
  if (offset + kIpv4Bytes > in.data) return DropReason::malformed;
  const std::uint8_t* header = in.frame + offset;
  const std::uint32_t total_bytes = load16(header + 2);
  const IpHeaders found = walk_ipv4(header, std::min(total_bytes, in.data - offset));
  if (!found.reached || offset + total_bytes > in.frame_bytes || header[8] == 0) return DropReason::malformed;
  Headers& headers = in.headers;
  headers.layer3 = Layer3::ipv4;
  headers.packet_bytes = static_cast<std::uint16_t>(total_bytes);
  headers.protocol = found.protocol;
  headers.fragment = found.fragment;
  headers.whole_key = found.protocol != protocol::icmp;
  const bool ingress = in.direction == Direction::ingress;
  in.key.remote = load_raw<std::uint32_t>(header + (ingress ? 12 : 16));
  in.key.local = load_raw<std::uint32_t>(header + (ingress ? 16 : 12));
  in.key.owner = FlowKey::protocol_bits(found.protocol);
  if (found.options != IpHeaders::Options::allowed) {
    return found.options == IpHeaders::Options::malformed ? DropReason::malformed : DropReason::ip_options;
  }
  if (found.protocol == protocol::icmpv6) {  // not ICMP here: just a number
    headers.layer4_offset = static_cast<std::uint16_t>(offset + found.transport);
    return DropReason::none;
  }
  return parse_layer4(in, offset + found.transport, total_bytes - found.transport);
}

inline DropReason parse_ipv6(Parsing& in, std::uint32_t offset) {
  if (offset + kIpv6Bytes > in.data) return DropReason::malformed;
  const std::uint8_t* header = in.frame + offset;
  const std::uint32_t total_bytes = kIpv6Bytes + load16(header + 4);
  if (header[0] >> 4 != 6 || total_bytes > 65535 || offset + total_bytes > in.frame_bytes || header[7] == 0) {
    return DropReason::malformed;
  }
  Headers& headers = in.headers;
  headers.layer3 = Layer3::ipv6;
  // ::ffff:a.b.c.d on the wire would be taken for the IPv4 address that the tables store in this form.
  if (IpAddress::from_v6_bytes(header + 8).is_v4() || IpAddress::from_v6_bytes(header + 24).is_v4()) return DropReason::martian;
  headers.packet_bytes = static_cast<std::uint16_t>(total_bytes);
  const IpHeaders found = walk_ipv6(header, std::min(total_bytes, in.data - offset));
  headers.fragment = found.fragment;
  if (found.options == IpHeaders::Options::not_allowed) return DropReason::ip_options;
  if (found.options == IpHeaders::Options::malformed) return DropReason::malformed;
  // The first fragment has all headers, or nobody could judge the datagram by it (RFC 7112).
  if (!found.reached) return found.fragment == Fragment::first ? DropReason::fragment_tiny : DropReason::malformed;
  headers.protocol = found.protocol;
  in.key.owner = FlowKey::protocol_bits(found.protocol) | FlowKey::kIpv6;
  headers.layer4_offset = static_cast<std::uint16_t>(offset + found.transport);
  headers.whole_key = false;  // the addresses come in track
  if (found.protocol == protocol::icmp) return DropReason::none;  // ICMP for IPv4 is just a number here
  if (const DropReason refused = parse_layer4(in, offset + found.transport, total_bytes - found.transport); refused != DropReason::none) {
    return refused;
  }
  // Neighbour discovery never has a fragment header (RFC 6980), not even one of a whole packet.
  const bool discovery = found.protocol == protocol::icmpv6 && headers.icmp_type >= 133 && headers.icmp_type <= 137;
  return discovery && found.fragment_header != 0 ? DropReason::malformed : DropReason::none;
}

inline DropReason parse_arp(Parsing& in, std::uint32_t offset) {
  static constexpr std::uint8_t ethernet_ipv4[] = {0, 1, 8, 0, 6, 4};
  if (offset + 28 > in.data || std::memcmp(in.frame + offset, ethernet_ipv4, sizeof ethernet_ipv4) != 0) {
    return DropReason::malformed;
  }
  in.headers.layer3 = Layer3::arp;
  return DropReason::none;
}

// The driver's word for "the checksum is left to the last port".
inline bool has_partial_checksum(const rte_mbuf& packet) {
  return (packet.ol_flags & RTE_MBUF_F_RX_L4_CKSUM_MASK) == RTE_MBUF_F_RX_L4_CKSUM_NONE;
}

inline bool is_sound_super_frame(const rte_mbuf& packet, const Headers& headers, const std::uint8_t* frame) {
  static constexpr std::uint32_t kMaxLayer3Bytes = 511;  // what an mbuf can say
  if (headers.protocol != protocol::tcp || packet.tso_segsz < kLeastSegmentBytes) return false;
  const std::uint32_t layer4 = headers.layer4_offset, layer3_bytes = layer4 - headers.layer3_offset;
  const std::uint32_t header_end = layer4 + (frame[layer4 + 12] >> 4) * 4U;
  // Exactly the IP packet: what lies behind it would be cut into segments as well.
  return layer3_bytes <= kMaxLayer3Bytes && header_end <= packet.data_len && packet.pkt_len == std::uint32_t{headers.layer3_offset} + headers.packet_bytes &&
         packet.pkt_len > header_end + packet.tso_segsz && (headers.tcp_flags & (tcp_flag::syn | tcp_flag::rst)) == 0;
}

[[gnu::noinline]] inline DropReason check_offloads(Burst& burst, std::uint32_t i, DropReason reason) {
  rte_mbuf& packet = *burst.mbuf[i];
  const Headers& headers = burst.headers[i];
  const bool transport = (headers.layer3 == Layer3::ipv4 || headers.layer3 == Layer3::ipv6) && headers.fragment == Fragment::none &&
                         (headers.protocol == protocol::tcp || headers.protocol == protocol::udp);
  const bool super_frame = (packet.ol_flags & RTE_MBUF_F_RX_LRO) != 0;
  if (reason == DropReason::none && (super_frame || has_partial_checksum(packet)) && !transport) reason = DropReason::bad_offload;
  // A checksum that is made later is made over the packet alone: what is behind it must be in the last buffer, to be cut off.
  if (reason == DropReason::none && has_partial_checksum(packet)) {
    const std::uint32_t behind = packet.pkt_len - headers.layer3_offset - headers.packet_bytes;
    if (behind > rte_pktmbuf_lastseg(&packet)->data_len) reason = DropReason::bad_offload;
  }
  if (!super_frame) return reason;
  if (reason == DropReason::none && !is_sound_super_frame(packet, headers, burst.bytes(i))) reason = DropReason::bad_offload;
  if (reason != DropReason::none) {
    packet.ol_flags &= ~RTE_MBUF_F_RX_LRO;  // one frame, as it came
    return reason;
  }
  packet.l2_len = headers.layer3_offset;
  packet.l3_len = static_cast<std::uint16_t>(headers.layer4_offset - headers.layer3_offset);
  packet.l4_len = static_cast<std::uint8_t>((burst.bytes(i)[headers.layer4_offset + 12] >> 4) * 4);
  burst.super_frames |= std::uint64_t{1} << i;
  return DropReason::none;
}

inline DropReason parse_frame(Burst& burst, std::uint32_t i, Direction direction) {
  const rte_mbuf* packet = burst.mbuf[i];
  Headers& headers = burst.headers[i] = {};
  Parsing in{burst.bytes(i), packet->data_len, packet->pkt_len, direction, headers, burst.key[i] = {}};
  if (in.data < ether::header_bytes) return DropReason::malformed;
  std::uint32_t offset = ether::header_bytes;
  std::uint16_t ethertype = load16(in.frame + 12);
  const bool stripped = (packet->ol_flags & RTE_MBUF_F_RX_VLAN_STRIPPED) != 0;
  if (stripped) headers.vlan = packet->vlan_tci & 0xfff;
  if (ethertype == ether::vlan) {
    if (in.data < ether::header_bytes + ether::tag_bytes) return DropReason::malformed;
    if (stripped) return DropReason::unexpected_vlan;
    headers.vlan = load16(in.frame + 14) & 0xfff;
    headers.tag_bytes = ether::tag_bytes;
    offset += ether::tag_bytes;
    ethertype = load16(in.frame + 16);
  }
  headers.layer3_offset = static_cast<std::uint16_t>(offset);
  const auto note_fragment = [&](DropReason reason) {
    burst.fragments |= std::uint64_t{headers.fragment != Fragment::none} << i;
    return reason;
  };
  switch (ethertype) {
    case ether::ipv4: return note_fragment(parse_ipv4(in, offset));
    case ether::ipv6: return note_fragment(parse_ipv6(in, offset));
    case ether::arp: return parse_arp(in, offset);
    case ether::vlan:
    case ether::qinq: return DropReason::unexpected_vlan;
    default: return DropReason::ethertype;
  }
}

[[gnu::noinline]] inline DropReason parse_any(Burst& burst, std::uint32_t i, Direction direction) {
  const DropReason reason = parse_frame(burst, i, direction);
  if ((burst.mbuf[i]->ol_flags & (RTE_MBUF_F_RX_LRO | RTE_MBUF_F_RX_L4_CKSUM_MASK)) == 0) return reason;
  return check_offloads(burst, i, reason);
}

}  // namespace detail

}  // namespace trunkline
