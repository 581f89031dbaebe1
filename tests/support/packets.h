// SPDX-License-Identifier: BSD-3-Clause
//
// Packets for tests, without DPDK's environment: an mbuf on the heap over a buffer of exactly the frame's size plus
// headroom and a little tailroom, so that a sanitizer sees every byte that is read outside. Builders give sound
// packets; tests break them where they want them broken.
#pragma once

#include <rte_mbuf.h>

#include <cstdint>
#include <cstring>
#include <memory>
#include <vector>

#include "config/net.h"
#include "dataplane/state/buffer_source.h"

namespace trunkline::test {

using Frame = std::vector<std::uint8_t>;

// Owns mbufs until the test ends; stages only pass pointers on. Also what stages take buffers from, as many as `left` says.
class Mbufs : public BufferSource {
 public:
  static constexpr std::uint16_t kHeadroom = 128;
  static constexpr std::uint16_t kTailroom = 64;

  rte_mbuf* make(const Frame& frame, std::size_t first_segment = SIZE_MAX) {
    const std::size_t head = std::min(frame.size(), first_segment);
    rte_mbuf* packet = segment(frame.data(), head, kHeadroom);
    packet->pkt_len = static_cast<std::uint32_t>(frame.size());
    if (head < frame.size()) {
      packet->next = segment(frame.data() + head, frame.size() - head, 0);
      packet->nb_segs = 2;
    }
    return packet;
  }

  rte_mbuf* take(const rte_mbuf&) override {
    if (left == 0) return nullptr;
    --left;
    rte_mbuf* packet = segment(nullptr, 0, kHeadroom, take_bytes);
    packet->data_off = kHeadroom;
    return packet;
  }
  void give_back(rte_mbuf* packet) override {
    for (; packet != nullptr; packet = packet->next) ++left;
  }
  std::size_t left = SIZE_MAX / 2;
  std::uint16_t take_bytes = 2048;  // room of a buffer that is taken

  static Frame bytes_of(const rte_mbuf* packet) {
    Frame frame;
    for (; packet != nullptr; packet = packet->next) {
      const auto* data = rte_pktmbuf_mtod(packet, const std::uint8_t*);
      frame.insert(frame.end(), data, data + packet->data_len);
    }
    return frame;
  }

 private:
  rte_mbuf* segment(const std::uint8_t* data, std::size_t size, std::uint16_t headroom, std::uint16_t tailroom = kTailroom) {
    auto buffer = std::make_unique<std::uint8_t[]>(headroom + size + tailroom);
    auto packet = std::make_unique<rte_mbuf>();
    std::memset(static_cast<void*>(packet.get()), 0, sizeof(rte_mbuf));
    if (size != 0) std::memcpy(buffer.get() + headroom, data, size);
    packet->buf_addr = buffer.get();
    packet->buf_len = static_cast<std::uint16_t>(headroom + size + tailroom);
    packet->data_off = headroom;
    packet->data_len = static_cast<std::uint16_t>(size);
    packet->pkt_len = static_cast<std::uint32_t>(size);
    packet->nb_segs = 1;
    packet->refcnt = 1;
    buffers_.push_back(std::move(buffer));
    packets_.push_back(std::move(packet));
    return packets_.back().get();
  }

  std::vector<std::unique_ptr<std::uint8_t[]>> buffers_;
  std::vector<std::unique_ptr<rte_mbuf>> packets_;
};

inline void put16(Frame& frame, std::uint16_t value) {
  frame.push_back(static_cast<std::uint8_t>(value >> 8));
  frame.push_back(static_cast<std::uint8_t>(value));
}
inline void put(Frame& frame, const void* bytes, std::size_t count) {
  const auto* from = static_cast<const std::uint8_t*>(bytes);
  frame.insert(frame.end(), from, from + count);
}

struct L2 {
  MacAddress destination, source;
  int vlan = -1;  // -1: no tag
};

inline Frame ethernet(const L2& l2, std::uint16_t ethertype) {
  Frame frame;
  put(frame, l2.destination.bytes.data(), 6);
  put(frame, l2.source.bytes.data(), 6);
  if (l2.vlan >= 0) {
    put16(frame, 0x8100);
    put16(frame, static_cast<std::uint16_t>(l2.vlan));
  }
  put16(frame, ethertype);
  return frame;
}

inline IpAddress ip(std::string_view text) { return IpAddress::parse(text).value(); }
inline MacAddress mac(std::string_view text) { return MacAddress::parse(text).value(); }

// An IP packet of either family, told by the addresses; `payload` starts with the transport header.
inline Frame ip_packet(const L2& l2, const IpAddress& source, const IpAddress& destination, std::uint8_t protocol,
                       const Frame& payload, bool dont_fragment = true) {
  const bool v4 = source.is_v4();
  Frame frame = ethernet(l2, v4 ? 0x0800 : 0x86dd);
  if (v4) {
    put(frame, "\x45\x00", 2);
    put16(frame, static_cast<std::uint16_t>(20 + payload.size()));
    put16(frame, 1);
    put16(frame, dont_fragment ? 0x4000 : 0);
    frame.push_back(64);
    frame.push_back(protocol);
    put16(frame, 0);
    put(frame, &source.bytes[12], 4);
    put(frame, &destination.bytes[12], 4);
  } else {
    put(frame, "\x60\x00\x00\x00", 4);
    put16(frame, static_cast<std::uint16_t>(payload.size()));
    frame.push_back(protocol);
    frame.push_back(protocol == 58 ? 255 : 64);
    put(frame, source.bytes.data(), 16);
    put(frame, destination.bytes.data(), 16);
  }
  put(frame, payload.data(), payload.size());
  return frame;
}

inline Frame tcp_segment(std::uint16_t source, std::uint16_t destination, std::uint8_t flags, std::size_t data = 0) {
  Frame segment;
  put16(segment, source);
  put16(segment, destination);
  put(segment, "\0\0\0\1\0\0\0\0", 8);
  segment.push_back(0x50);
  segment.push_back(flags);
  put(segment, "\xff\xff\0\0\0\0", 6);
  segment.resize(segment.size() + data, 'x');
  return segment;
}

inline Frame udp_datagram(std::uint16_t source, std::uint16_t destination, std::size_t data = 4) {
  Frame datagram;
  put16(datagram, source);
  put16(datagram, destination);
  put16(datagram, static_cast<std::uint16_t>(8 + data));
  put16(datagram, 0);
  datagram.resize(datagram.size() + data, 'u');
  return datagram;
}

inline Frame icmp_message(std::uint8_t type, std::uint8_t code, std::uint16_t id, std::size_t data = 8) {
  Frame message{type, code, 0, 0};
  put16(message, id);
  put16(message, 1);
  message.resize(message.size() + data, 'i');
  return message;
}

inline Frame arp_packet(const L2& l2, std::uint16_t operation, const MacAddress& sender_mac, const IpAddress& sender,
                        const IpAddress& target) {
  Frame frame = ethernet(l2, 0x0806);
  put(frame, "\0\1\x08\0\6\4", 6);
  put16(frame, operation);
  put(frame, sender_mac.bytes.data(), 6);
  put(frame, &sender.bytes[12], 4);
  put(frame, "\0\0\0\0\0\0", 6);
  put(frame, &target.bytes[12], 4);
  return frame;
}

}  // namespace trunkline::test
