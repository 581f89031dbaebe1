// SPDX-License-Identifier: BSD-3-Clause
//
// Super-frames: up to 64 KB of one TCP stream under one header, as a task's kernel hands them to a port that carries them (virtio's
// segmentation offload), to be cut into segments by the last port that can, or by us (stages/segment.h). One passes the pipeline
// as one packet; everything that is counted is counted as the frames that it stands for on a wire.
//
// What an mbuf says of it, in DPDK's terms:
//   received: RTE_MBUF_F_RX_LRO and tso_segsz; RX_L4_CKSUM_NONE on it or on any packet whose checksum its sender left to
//     the last port. Written by a driver out of what a task wrote. parse holds it against the packet, fills in l2_len, l3_len and l4_len
//     of a super-frame, and takes the flag from what it refuses.
//   to be sent: RTE_MBUF_F_TX_TCP_SEG, TX_TCP_CKSUM, TX_UDP_CKSUM and the lengths, set by forward (stages/offload.h).
// So from parse on the flags and lengths of a super-frame are sound, in every worker that it is handed to.
#pragma once

#include <rte_mbuf.h>

#include <cstdint>

#include "dataplane/state/counters.h"

namespace trunkline {

// Linux sends no smaller ones (TCP_MIN_SND_MSS); without a bound 64 KB could be 64 thousand frames.
inline constexpr std::uint32_t kLeastSegmentBytes = 48;

inline bool is_super_frame(const rte_mbuf& packet) { return (packet.ol_flags & (RTE_MBUF_F_RX_LRO | RTE_MBUF_F_TX_TCP_SEG)) != 0; }

// All headers, which each segment repeats.
inline std::uint32_t repeated_bytes(const rte_mbuf& super_frame) { return super_frame.l2_len + super_frame.l3_len + super_frame.l4_len; }

inline std::uint32_t segments_of(const rte_mbuf& super_frame) {
  const std::uint32_t payload = super_frame.pkt_len - repeated_bytes(super_frame);
  return (payload + super_frame.tso_segsz - 1) / super_frame.tso_segsz;
}

// What a packet is on a wire.
[[gnu::always_inline]] inline Frames frames_of(const rte_mbuf& packet) {
  if (!is_super_frame(packet)) [[likely]] return {1, packet.pkt_len};
  const std::uint32_t count = segments_of(packet);
  return {count, packet.pkt_len + std::uint64_t{count - 1} * repeated_bytes(packet)};
}

// IP packets and their octets, as flow logs and rate limits count them; `packet_bytes` is what its IP header says.
inline Frames ip_packets_of(const rte_mbuf& super_frame, std::uint32_t packet_bytes) {
  const std::uint32_t count = segments_of(super_frame);
  return {count, packet_bytes + std::uint64_t{count - 1} * (super_frame.l3_len + super_frame.l4_len)};
}

}  // namespace trunkline
