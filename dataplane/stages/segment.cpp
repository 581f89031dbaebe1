// SPDX-License-Identifier: BSD-3-Clause
#include "dataplane/stages/segment.h"

#include <rte_ip.h>

#include <algorithm>
#include <cstring>

#include "dataplane/stages/parse.h"
#include "dataplane/state/super_frame.h"

namespace trunkline {
namespace {

constexpr std::uint8_t kTcpLastOnly = tcp_flag::fin | 0x08;  // FIN, PSH
constexpr std::uint8_t kTcpFirstOnly = 0x80;                 // CWR

}  // namespace

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
  from_ = ChainReader(super_frame, header_bytes);
}

void Segmenter::resume_after(std::uint32_t made) {
  made_ = made;
  from_ = ChainReader(frame_, header_bytes_ + made * frame_.tso_segsz);
}

std::uint32_t Segmenter::next(std::span<rte_mbuf*> out, bool checksums) {
  std::uint32_t count = 0;
  for (; count < out.size() && left() != 0; ++count) {
    out[count] = make(checksums);
    if (out[count] == nullptr) break;
  }
  return count;
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
    whole = from_.append_to(*segment, bytes, [this] { return rte_pktmbuf_alloc(frame_.pool); });
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
