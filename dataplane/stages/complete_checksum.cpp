// SPDX-License-Identifier: BSD-3-Clause
#include "dataplane/stages/complete_checksum.h"

#include <rte_ip.h>

#include <cstring>

#include "dataplane/stages/parse.h"

namespace trunkline {
namespace {

constexpr std::uint32_t kTcpChecksumAt = 16, kUdpChecksumAt = 6;
constexpr std::uint64_t kRequests =
    RTE_MBUF_F_TX_TCP_SEG | RTE_MBUF_F_TX_L4_MASK | RTE_MBUF_F_TX_IP_CKSUM | RTE_MBUF_F_TX_IPV4 | RTE_MBUF_F_TX_IPV6;

std::uint32_t add32(std::uint32_t sum, std::uint32_t more) {
  const std::uint64_t both = std::uint64_t{sum} + more;
  return static_cast<std::uint32_t>(both) + static_cast<std::uint32_t>(both >> 32);
}

// The pseudo header's sum, in the packet's byte order as rte_raw_cksum() counts.
std::uint32_t pseudo_header_sum(const std::uint8_t* ip, bool ipv4, std::uint8_t protocol, std::uint32_t layer4_bytes) {
  std::uint32_t sum = rte_raw_cksum(ip + (ipv4 ? 12 : 8), ipv4 ? 8 : 32);
  sum = add32(sum, rte_cpu_to_be_32(layer4_bytes));
  return add32(sum, rte_cpu_to_be_16(protocol));
}

std::uint16_t folded(std::uint32_t sum) {
  sum = (sum & 0xffff) + (sum >> 16);
  sum = (sum & 0xffff) + (sum >> 16);
  return static_cast<std::uint16_t>(sum);
}

// Of a chain from `offset` on, which is in its first buffer. (rte_raw_cksum_mbuf() of 22.11 loses carries behind a
// buffer of odd length.)
std::uint32_t sum_of_chain(const rte_mbuf& packet, std::uint32_t offset) {
  std::uint32_t sum = 0;
  bool odd = false;
  for (const rte_mbuf* part = &packet; part != nullptr; part = part->next, offset = 0) {
    const std::uint32_t bytes = part->data_len - offset;
    const std::uint16_t of_part = rte_raw_cksum(rte_pktmbuf_mtod_offset(part, const std::uint8_t*, offset), bytes);
    sum = add32(sum, odd ? rte_bswap16(of_part) : of_part);
    odd ^= (bytes & 1) != 0;
  }
  return sum;
}

}  // namespace

bool complete_checksum(rte_mbuf& packet) {
  const bool tcp = (packet.ol_flags & RTE_MBUF_F_TX_L4_MASK) == RTE_MBUF_F_TX_TCP_CKSUM;
  const bool ipv4 = (packet.ol_flags & RTE_MBUF_F_TX_IPV4) != 0;
  const std::uint32_t layer3 = packet.l2_len, layer4 = layer3 + packet.l3_len;
  const std::uint32_t at = layer4 + (tcp ? kTcpChecksumAt : kUdpChecksumAt);
  if (packet.l3_len < (ipv4 ? 20U : 40U) || at + 2 > packet.data_len) return false;
  auto* frame = rte_pktmbuf_mtod(&packet, std::uint8_t*);
  const std::uint32_t layer4_bytes = packet.pkt_len - layer4;
  std::memset(frame + at, 0, 2);
  const std::uint8_t protocol = tcp ? protocol::tcp : protocol::udp;
  const std::uint32_t sum =
      add32(sum_of_chain(packet, layer4), pseudo_header_sum(frame + layer3, ipv4, protocol, layer4_bytes));
  auto checksum = static_cast<std::uint16_t>(~folded(sum));
  if (!tcp && checksum == 0) checksum = 0xffff;  // 0 would say that there is none
  std::memcpy(frame + at, &checksum, 2);
  packet.ol_flags &= ~kRequests;
  return true;
}

}  // namespace trunkline
