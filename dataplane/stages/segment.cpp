// SPDX-License-Identifier: BSD-3-Clause
#include "dataplane/stages/segment.h"

#include <rte_ip.h>

#include <algorithm>
#include <cstring>

#include "dataplane/stages/parse.h"
#include "dataplane/state/super_frame.h"

namespace trunkline {
namespace {

constexpr std::uint32_t kTcpChecksumAt = 16, kUdpChecksumAt = 6;
constexpr std::uint8_t kTcpLastOnly = tcp_flag::fin | 0x08;  // FIN, PSH
constexpr std::uint8_t kTcpFirstOnly = 0x80;                 // CWR

constexpr std::uint64_t kRequests = RTE_MBUF_F_TX_TCP_SEG | RTE_MBUF_F_TX_L4_MASK | RTE_MBUF_F_TX_IP_CKSUM | RTE_MBUF_F_TX_IPV4 | RTE_MBUF_F_TX_IPV6;

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

// Of a chain from `offset` on, which is in its first buffer. (rte_raw_cksum_mbuf() of 22.11 loses carries behind a buffer of odd length.)
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
  const std::uint32_t sum = add32(sum_of_chain(packet, layer4), pseudo_header_sum(frame + layer3, ipv4, protocol, layer4_bytes));
  auto checksum = static_cast<std::uint16_t>(~folded(sum));
  if (!tcp && checksum == 0) checksum = 0xffff;  // 0 would say that there is none
  std::memcpy(frame + at, &checksum, 2);
  packet.ol_flags &= ~kRequests;
  return true;
}

Segmenter::Segmenter(const rte_mbuf& super_frame) : frame_(super_frame), ipv4_((super_frame.ol_flags & RTE_MBUF_F_TX_IPV4) != 0) {
  static constexpr std::uint32_t kTcpBytes = 20;
  const std::uint32_t header_bytes = repeated_bytes(super_frame);
  if (super_frame.l2_len < ether::header_bytes || super_frame.l3_len < (ipv4_ ? 20 : 40) || super_frame.l4_len < kTcpBytes ||
      header_bytes > super_frame.data_len || super_frame.pkt_len <= header_bytes || super_frame.tso_segsz < kLeastSegmentBytes) {
    return;
  }
  header_bytes_ = header_bytes;
  payload_ = super_frame.pkt_len - header_bytes;
  count_ = segments_of(super_frame);
  from_ = &super_frame;
  from_byte_ = header_bytes;
}

std::uint32_t Segmenter::next(std::span<rte_mbuf*> out, bool checksums) {
  std::uint32_t count = 0;
  for (; count < out.size() && left() != 0; ++count) {
    out[count] = make(checksums);
    if (out[count] == nullptr) break;
  }
  return count;
}

// Appends the next octets of the payload, in as many buffers as they need.
bool Segmenter::copy_payload(rte_mbuf* segment, std::uint32_t bytes) {
  rte_mbuf* to = segment;
  while (bytes != 0) {
    while (from_ != nullptr && from_byte_ == from_->data_len) from_ = from_->next, from_byte_ = 0;
    if (from_ == nullptr) return false;  // pkt_len spoke of more than the chain has
    if (rte_pktmbuf_tailroom(to) == 0) {
      rte_mbuf* more = rte_pktmbuf_alloc(frame_.pool);
      if (more == nullptr) return false;
      to->next = more;
      to = more;
      ++segment->nb_segs;
    }
    const std::uint32_t count = std::min({bytes, std::uint32_t{from_->data_len} - from_byte_, std::uint32_t{rte_pktmbuf_tailroom(to)}});
    std::memcpy(rte_pktmbuf_mtod_offset(to, std::uint8_t*, to->data_len), rte_pktmbuf_mtod_offset(from_, const std::uint8_t*, from_byte_), count);
    to->data_len = static_cast<std::uint16_t>(to->data_len + count);
    segment->pkt_len += count;
    from_byte_ += count;
    bytes -= count;
  }
  return true;
}

void Segmenter::finish_headers(rte_mbuf& segment, std::uint32_t bytes) const {
  auto* ip = rte_pktmbuf_mtod_offset(&segment, std::uint8_t*, frame_.l2_len);
  std::uint8_t* tcp = ip + frame_.l3_len;
  if (ipv4_) {
    store16(ip + 2, static_cast<std::uint16_t>(frame_.l3_len + frame_.l4_len + bytes));
    store16(ip + 4, static_cast<std::uint16_t>(load16(ip + 4) + made_));
    store16(ip + 10, 0);
    const auto sum = static_cast<std::uint16_t>(~rte_raw_cksum(ip, frame_.l3_len));
    std::memcpy(ip + 10, &sum, 2);
  } else {
    store16(ip + 4, static_cast<std::uint16_t>(frame_.l3_len - 40U + frame_.l4_len + bytes));
  }
  std::uint32_t sequence;
  std::memcpy(&sequence, tcp + 4, 4);
  sequence = rte_cpu_to_be_32(rte_be_to_cpu_32(sequence) + made_ * static_cast<std::uint32_t>(frame_.tso_segsz));
  std::memcpy(tcp + 4, &sequence, 4);
  if (made_ != 0) tcp[13] &= static_cast<std::uint8_t>(~kTcpFirstOnly);
  if (left() != 1) tcp[13] &= static_cast<std::uint8_t>(~kTcpLastOnly);
}

// nullptr: no buffers. The payload's place has moved on then, and the rest of the super-frame is lost with it.
rte_mbuf* Segmenter::make(bool checksums) {
  rte_mbuf* segment = rte_pktmbuf_alloc(frame_.pool);
  if (segment == nullptr) return nullptr;
  const std::uint32_t bytes = std::min<std::uint32_t>(frame_.tso_segsz, payload_ - made_ * frame_.tso_segsz);
  bool whole = header_bytes_ <= rte_pktmbuf_tailroom(segment);
  if (whole) {
    std::memcpy(rte_pktmbuf_mtod(segment, std::uint8_t*), rte_pktmbuf_mtod(&frame_, const std::uint8_t*), header_bytes_);
    segment->data_len = static_cast<std::uint16_t>(header_bytes_);
    segment->pkt_len = header_bytes_;
    whole = copy_payload(segment, bytes);
  }
  if (whole) {
    segment->ol_flags = RTE_MBUF_F_TX_TCP_CKSUM | (ipv4_ ? RTE_MBUF_F_TX_IPV4 : RTE_MBUF_F_TX_IPV6);
    segment->l2_len = frame_.l2_len;
    segment->l3_len = frame_.l3_len;
    segment->l4_len = frame_.l4_len;
    finish_headers(*segment, bytes);
    if (!checksums || complete_checksum(*segment)) return ++made_, segment;
  }
  rte_pktmbuf_free(segment);
  return nullptr;
}

}  // namespace trunkline
