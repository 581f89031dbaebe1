// SPDX-License-Identifier: BSD-3-Clause
//
// A packet that is no port's: bytes with an mbuf in front of them, in the control thread's own memory, for the stages to work on as
// they work on a port's. Room before for a tag, and behind for what the edge may write.
//
// It must never be given to a driver or freed to a pool. Control thread and tests only.
#pragma once

#include <rte_mbuf.h>

#include <cstdint>
#include <cstring>
#include <memory>
#include <span>
#include <vector>

#include "dataplane/state/buffer_source.h"

namespace trunkline::control {

class ScratchPacket {
 public:
  // `frame_bytes`: of the whole frame, where `bytes` are only its beginning.
  explicit ScratchPacket(std::span<const std::uint8_t> bytes, std::size_t frame_bytes = 0) : buffer_(kRoom + bytes.size() + kRoom) {
    std::memset(static_cast<void*>(&mbuf_), 0, sizeof mbuf_);
    if (!bytes.empty()) std::memcpy(buffer_.data() + kRoom, bytes.data(), bytes.size());
    mbuf_.buf_addr = buffer_.data();
    mbuf_.buf_len = static_cast<std::uint16_t>(buffer_.size());
    mbuf_.data_off = kRoom;
    mbuf_.data_len = static_cast<std::uint16_t>(bytes.size());
    mbuf_.pkt_len = static_cast<std::uint32_t>(std::max(frame_bytes, bytes.size()));
    mbuf_.nb_segs = 1;
    mbuf_.refcnt = 1;
  }
  ScratchPacket(const ScratchPacket&) = delete;
  ScratchPacket& operator=(const ScratchPacket&) = delete;

  rte_mbuf* mbuf() { return &mbuf_; }

  static constexpr std::size_t kMostBytes = 60000;
  // An empty one, of so many bytes at most.
  static constexpr std::uint16_t kEmptyBytes = 2048;

 private:
  static constexpr std::uint16_t kRoom = 256;
  std::vector<std::uint8_t> buffer_;
  rte_mbuf mbuf_;
};

// Buffers that stages take for a scratch packet's fragments; they live as long as this.
class ScratchBuffers : public BufferSource {
 public:
  rte_mbuf* take(const rte_mbuf&) override {
    const std::vector<std::uint8_t> room(ScratchPacket::kEmptyBytes);
    rte_mbuf* packet = packets_.emplace_back(std::make_unique<ScratchPacket>(room)).get()->mbuf();
    packet->data_len = 0;
    packet->pkt_len = 0;
    return packet;
  }
  void give_back(rte_mbuf*) override {}

 private:
  std::vector<std::unique_ptr<ScratchPacket>> packets_;
};

}  // namespace trunkline::control
