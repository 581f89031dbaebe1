// SPDX-License-Identifier: BSD-3-Clause
//
// Copies a packet's bytes, in order, out of its chain of buffers and behind what other packets have: what cuts packets
// cuts with it (segment.cpp, fragment_ipv4.cpp). It believes the chain and no length that somebody wrote.
#pragma once

#include <rte_mbuf.h>

#include <algorithm>
#include <cstdint>
#include <cstring>

namespace trunkline {

class ChainReader {
 public:
  ChainReader() = default;
  // From byte `at` on, wherever in the chain that is.
  ChainReader(const rte_mbuf& packet, std::uint32_t at) : part_(&packet), at_(at) {
    while (part_ != nullptr && at_ > part_->data_len) at_ -= part_->data_len, part_ = part_->next;
  }

  // The next ones, up to `bytes`; answers how many there were.
  std::uint32_t read(std::uint8_t* to, std::uint32_t bytes) {
    std::uint32_t count = 0;
    while (count < bytes && part_ != nullptr) {
      const std::uint32_t some = std::min(bytes - count, std::uint32_t{part_->data_len} - at_);
      std::memcpy(to + count, rte_pktmbuf_mtod_offset(part_, const std::uint8_t*, at_), some);
      count += some;
      at_ += some;
      if (at_ == part_->data_len) part_ = part_->next, at_ = 0;
    }
    return count;
  }

  // Appends the next `bytes` to `packet`, in as many buffers as they need: take() gives one, or nullptr. False: there
  // were not so many bytes, or no buffer; what was appended stays.
  template <class Take>
  bool append_to(rte_mbuf& packet, std::uint32_t bytes, Take&& take) {
    rte_mbuf* to = rte_pktmbuf_lastseg(&packet);
    while (bytes != 0) {
      while (part_ != nullptr && at_ == part_->data_len) part_ = part_->next, at_ = 0;
      if (part_ == nullptr) return false;
      if (rte_pktmbuf_tailroom(to) == 0) {
        rte_mbuf* more = take();
        if (more == nullptr) return false;
        to->next = more;
        to = more;
        ++packet.nb_segs;
      }
      const std::uint32_t count =
          std::min({bytes, std::uint32_t{part_->data_len} - at_, std::uint32_t{rte_pktmbuf_tailroom(to)}});
      std::memcpy(rte_pktmbuf_mtod_offset(to, std::uint8_t*, to->data_len),
                  rte_pktmbuf_mtod_offset(part_, const std::uint8_t*, at_), count);
      to->data_len = static_cast<std::uint16_t>(to->data_len + count);
      packet.pkt_len += count;
      at_ += count;
      bytes -= count;
    }
    return true;
  }

 private:
  const rte_mbuf* part_ = nullptr;  // where it goes on, and from which byte of it
  std::uint32_t at_ = 0;
};

}  // namespace trunkline
