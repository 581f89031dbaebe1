// SPDX-License-Identifier: BSD-3-Clause
//
// Stage 1: from bytes to offsets, and to the key's ports and IPv4 addresses. The only place that reads a header's lengths;
// each is checked against the bytes that are there before anything behind it is looked at.
//
// Two ways: parse_common() takes what nearly every packet is (IPv4 without options or fragments, TCP or UDP) without a
// branch that depends on which of them it is, and takes only what is sound in every respect; parse_any() (parse_any.h) takes the rest
// and finds the reason where there is something to refuse. What the first accepts, the second accepts with the
// same result; a test compares them.
#pragma once

#include <immintrin.h>
#include <rte_mbuf.h>

#include <array>
#include <cstddef>
#include <cstdint>

#include "dataplane/packet.h"
#include "dataplane/stages/parse_any.h"

namespace trunkline {

namespace detail {

// By protocol, of those that have ports: in the low byte what is there at least of their header, and all ones above it for TCP. 0 for all others.
inline constexpr std::array<std::int32_t, 256> kPorted = [] {
  std::array<std::int32_t, 256> ported{};
  ported[protocol::tcp] = -256 + std::int32_t{kTcpBytes}, ported[protocol::udp] = kUdpBytes;
  return ported;
}();

// The key of an IPv4 packet from its protocol on: there are the checksum, the addresses and the ports. For the ENI as receiver, and as sender.
template <Direction direction>
[[gnu::always_inline]] inline __m128i key_of_ipv4(const std::uint8_t* protocol) {
  const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(protocol));
  if constexpr (direction == Direction::ingress) {
    return _mm_shuffle_epi8(bytes, _mm_setr_epi8(3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, -1, -1, -1, 0));
  } else {
    return _mm_shuffle_epi8(bytes, _mm_setr_epi8(7, 8, 9, 10, 3, 4, 5, 6, 13, 14, 11, 12, -1, -1, -1, 0));
  }
}

// The headers of an IPv4 packet `offset` bytes into the frame, out of the 16 bytes that begin four before it: the tag is there, and length and protocol.
template <std::uint32_t offset>
[[gnu::always_inline]] inline __m128i headers_of_ipv4(const std::uint8_t* ip, int tcp_flags) {
  static constexpr bool tagged = offset != ether::header_bytes;
  static constexpr std::uint64_t kLow = (std::uint64_t{offset} - ether::header_bytes) << 16 | std::uint64_t{static_cast<std::uint8_t>(Layer3::ipv4)} << 24 |
                                        std::uint64_t{offset} << 32 | std::uint64_t{offset + kIpv4Bytes} << 48;
  static constexpr std::uint64_t kHigh = std::uint64_t{1} << 48;  // whole_key
  const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(ip - 4));
  const __m128i read = _mm_shuffle_epi8(bytes, _mm_setr_epi8(tagged ? 1 : -1, tagged ? 0 : -1, -1, -1, -1, -1, -1, -1, 7, 6, 13, -1, -1, -1, -1, -1));
  const __m128i without_priority = _mm_and_si128(read, _mm_set_epi64x(-1, 0xfff));
  return _mm_insert_epi8(_mm_or_si128(without_priority, _mm_set_epi64x(kHigh, kLow)), tcp_flags, offsetof(Headers, tcp_flags));
}

// An IPv4 packet without options, `offset` bytes into the frame. What is rare leaves by a branch that is never taken, which costs less than
// to gather several answers for one branch; which of TCP and UDP it is must not be a branch, because in mixed traffic the processor could not guess it.
template <std::uint32_t offset, Direction direction>
[[gnu::always_inline]] inline bool parse_plain_ipv4(Burst& burst, std::uint32_t i, const rte_mbuf* packet, const std::uint8_t* frame) {
  const std::uint8_t* ip = frame + offset;
  const std::uint8_t* header = ip + kIpv4Bytes;
  // Room for every load below, be it TCP or UDP. Shorter datagrams go the other way.
  if (packet->data_len < offset + kIpv4Bytes + kTcpBytes) return false;
  const auto middle = load_raw<std::uint32_t>(ip + 6);  // fragment, time to live, protocol
  if ((middle & 0xff3f) != 0 || (middle & 0xff0000) == 0) return false;
  const std::int32_t ported = kPorted[middle >> 24];
  if (ported == 0) return false;
  const auto least = static_cast<std::uint8_t>(ported);
  const auto tcp = static_cast<std::uint32_t>(ported >> 8);
  // Numbers of two bytes, read as four: GCC swaps four in one step.
  const std::uint32_t total = load32(ip + 2) >> 16;
  const std::uint32_t tcp_word = load_raw<std::uint16_t>(header + 12);
  const std::uint32_t udp_bytes = load32(header + 4) >> 16;
  const std::uint32_t said = (tcp_word >> 2 & 0x3c & tcp) | (udp_bytes & ~tcp);
  const std::uint32_t flags = tcp_word >> 8;
  if (total + offset > packet->pkt_len || said + kIpv4Bytes > total || said < least) return false;
  if ((kBadTcpFlags >> (flags & 31) & 1 & tcp) != 0) return false;
  _mm_store_si128(reinterpret_cast<__m128i*>(&burst.key[i]), key_of_ipv4<direction>(ip + 9));
  _mm_store_si128(reinterpret_cast<__m128i*>(&burst.headers[i]), headers_of_ipv4<offset>(ip, static_cast<int>(flags & tcp)));
  return true;
}
static_assert(offsetof(Headers, tag_bytes) == 2 && offsetof(Headers, layer3) == 3 && offsetof(Headers, layer3_offset) == 4 &&
              offsetof(Headers, packet_bytes) == 8 && offsetof(Headers, protocol) == 10 && offsetof(Headers, tcp_flags) == 11 &&
              offsetof(Headers, whole_key) == 14);

// EtherType, version and header length of an IPv4 packet without options, with and without a tag before them.
template <Direction direction>
[[gnu::always_inline]] inline bool parse_common(Burst& burst, std::uint32_t i) {
  const rte_mbuf* packet = burst.mbuf[i];
  if (packet->data_len < ether::header_bytes + kIpv4Bytes || (packet->ol_flags & (RTE_MBUF_F_RX_VLAN_STRIPPED | RTE_MBUF_F_RX_LRO)) != 0) return false;
  const std::uint8_t* frame = burst.bytes(i);
  const auto after_macs = load_raw<std::uint64_t>(frame + 12);
  if (direction == Direction::ingress && (after_macs & 0x00ffffff0000ffff) == 0x0045000800000081) {
    return parse_plain_ipv4<ether::header_bytes + ether::tag_bytes, direction>(burst, i, packet, frame);
  }
  if ((after_macs & 0xffffff) != 0x450008) return false;
  return parse_plain_ipv4<ether::header_bytes, direction>(burst, i, packet, frame);
}

template <Direction direction>
[[gnu::always_inline]] inline void parse_all(Burst& burst) {
  const std::uint32_t size = burst.size;
  if (size == 0) return;
  // Asking for the last one again and again costs less than asking each time whether there is one more.
  for (std::uint32_t i = 0; i < kPrefetchAhead; ++i) burst.mbuf[size + i] = burst.mbuf[size - 1];
  std::uint64_t others = 0;
  for (std::uint32_t i = 0; i < size; ++i) {
    rte_prefetch0(burst.bytes(i + kPrefetchAhead));
    if (!parse_common<direction>(burst, i)) [[unlikely]] {
      burst.verdict[i] = parse_any(burst, i, direction);
      others |= std::uint64_t{1} << i;
    }
  }
  burst.plain = burst.all() & ~others;
}

}  // namespace detail

inline void parse(Burst& burst, Direction direction) {
  direction == Direction::ingress ? detail::parse_all<Direction::ingress>(burst) : detail::parse_all<Direction::egress>(burst);
}

}  // namespace trunkline
