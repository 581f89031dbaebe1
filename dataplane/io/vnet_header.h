// SPDX-License-Identifier: BSD-3-Clause
//
// The virtio-net header, which a tap with IFF_VNET_HDR puts before each frame, and the mbuf's offload fields: one into the
// other. The fields come out as those of DPDK's virtio driver, so that nobody behind it asks which driver it was.
//
//                                              received                        to be sent
//     checksum of TCP or UDP still to be made  RX_L4_CKSUM_NONE                TX_TCP_CKSUM or TX_UDP_CKSUM, l2_len, l3_len
//     checksum seen to be right                RX_L4_CKSUM_GOOD                -
//     several segments of TCP in one frame     RX_LRO (and NONE), tso_segsz    TX_TCP_SEG, l2_len, l3_len, l4_len, tso_segsz
//
// A header comes from the host's kernel, but a task may dictate it (AF_PACKET with PACKET_VNET_HDR). So none of it is
// believed: the frame itself says where its headers lie, and a header that says otherwise costs the packet.
//
// Packet path: nothing here allocates, locks or calls the kernel. Lengths are bytes, from the start of the frame.
#pragma once

#include <rte_mbuf.h>

#include <cstdint>

namespace trunkline {

// struct virtio_net_hdr, in this machine's byte order. The kernel's <linux/virtio_net.h> is no C++.
struct VnetHeader {
  static constexpr std::uint8_t kNeedsChecksum = 1, kChecksumValid = 2;  // flags
  static constexpr std::uint8_t kWhole = 0, kTcp4 = 1, kTcp6 = 4;        // gso_type

  std::uint8_t flags = 0;
  std::uint8_t gso_type = kWhole;
  std::uint16_t hdr_len = 0;   // of Ethernet, IP and TCP: a hint
  std::uint16_t gso_size = 0;  // bytes of each segment behind its headers
  std::uint16_t csum_start = 0, csum_offset = 0;  // what is summed up, and where behind its start the sum belongs
};
static_assert(sizeof(VnetHeader) == 10);

// Brings what the header of a received frame says into the mbuf. `offloads`: whether the port has them. If not, a partial checksum
// is completed here, which a frame may need that the kernel had on its way when the offloads ended; nothing else is accepted.
// False: no kernel writes such a header. The packet may have been written to.
bool read_vnet_header(const VnetHeader& header, bool offloads, rte_mbuf& packet);

// The header for a packet that is to be sent, from its flags and lengths. The kernel checks what it says.
VnetHeader vnet_header_of(const rte_mbuf& packet);

// What a packet with TX_TCP_SEG, TX_TCP_CKSUM or TX_UDP_CKSUM needs before it is sent: the pseudo-header's sum in the place of the
// checksum. 0, or a negative errno: its lengths are not those of its headers, or these do not all lie in the first buffer.
int prepare_vnet_packet(rte_mbuf& packet);

}  // namespace trunkline
