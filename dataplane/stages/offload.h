// SPDX-License-Identifier: BSD-3-Clause
//
// Part of forward: what the port that a packet came from left undone, asked of the port that it leaves through. That port's
// driver does it, or segment.h does. Nothing else of how a packet arrived may be taken for a request.
#pragma once

#include "dataplane/packet.h"
#include "dataplane/stages/parse.h"

namespace trunkline {

namespace detail {

inline constexpr std::uint64_t kUndone = RTE_MBUF_F_RX_LRO | RTE_MBUF_F_RX_L4_CKSUM_MASK;

// What we made ourselves is complete.
[[gnu::always_inline]] inline void clear_offloads(rte_mbuf* packet) {
  packet->ol_flags = 0;
  packet->vlan_tci = 0;
}

// False: the frame is longer than its IP packet by more than can be cut off, and a checksum over it would be wrong.
[[gnu::noinline]] inline bool request_offloads(const Burst& burst, std::uint32_t i, std::uint32_t ether_bytes) {
  rte_mbuf* packet = burst.mbuf[i];
  const Headers& headers = burst.headers[i];
  const bool super_frame = burst.is_super_frame(i);
  if (!super_frame && !has_partial_checksum(*packet)) return clear_offloads(packet), true;
  const std::uint32_t behind = packet->pkt_len - ether_bytes - headers.packet_bytes;
  if (behind != 0 && rte_pktmbuf_trim(packet, static_cast<std::uint16_t>(behind)) != 0) return false;
  clear_offloads(packet);
  packet->l2_len = ether_bytes;
  packet->l3_len = static_cast<std::uint16_t>(headers.layer4_offset - headers.layer3_offset);
  packet->ol_flags = (headers.layer3 == Layer3::ipv4 ? RTE_MBUF_F_TX_IPV4 : RTE_MBUF_F_TX_IPV6) |
                     (headers.protocol == protocol::tcp ? RTE_MBUF_F_TX_TCP_CKSUM : RTE_MBUF_F_TX_UDP_CKSUM) |
                     (super_frame ? RTE_MBUF_F_TX_TCP_SEG : 0);
  return true;
}

// Of a packet that is ready to leave: `ether_bytes` is its Ethernet header, tag included.
[[gnu::always_inline]] inline bool is_left_undone(const rte_mbuf& packet) { return (packet.ol_flags & kUndone) != 0; }

[[gnu::always_inline]] inline bool carry_offloads(const Burst& burst, std::uint32_t i, std::uint32_t ether_bytes) {
  if (!is_left_undone(*burst.mbuf[i])) [[likely]] return clear_offloads(burst.mbuf[i]), true;
  return request_offloads(burst, i, ether_bytes);
}

// Whether some frame of it is larger than a port takes.
[[gnu::always_inline]] inline bool is_too_large(const Burst& burst, std::uint32_t i, std::uint32_t mtu) {
  if (burst.headers[i].packet_bytes <= mtu) [[likely]] return false;
  const rte_mbuf& packet = *burst.mbuf[i];
  const std::uint64_t largest = packet.l3_len + std::uint64_t{packet.l4_len} + packet.tso_segsz;
  return !burst.is_super_frame(i) || largest > mtu;
}

}  // namespace detail

}  // namespace trunkline
