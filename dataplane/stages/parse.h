// SPDX-License-Identifier: BSD-3-Clause
//
// Stage 1: from bytes to offsets, and to the key's ports and IPv4 addresses. The only place that reads a header's lengths;
// each is checked against the bytes that are there before anything behind it is looked at.
//
// Two ways: parse_plain() takes what nearly every packet is (IPv4 without options or fragments, TCP or UDP) without a
// branch that depends on which of them it is, and takes only what is sound in every respect; parse_any() (parse_any.h) takes the rest
// and finds the reason where there is something to refuse. What the first accepts, the second accepts with the
// same result; a test compares them.
#pragma once

#include <immintrin.h>
#include <rte_mbuf.h>

#include <algorithm>
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

template <std::uint32_t offset>
inline constexpr bool kTagged = offset != ether::header_bytes;

// Whether the sixteen bytes that end with the protocol of an IPv4 packet `offset` bytes into the frame (the tag before it, EtherType, length, fragment)
// are those of a packet without options, whole, and tagged if `offset` leaves room for it.
template <std::uint32_t offset>
[[gnu::always_inline]] inline bool is_common_ipv4(__m128i bytes) {
  static constexpr char kTag = kTagged<offset> ? -1 : 0;
  const __m128i difference = _mm_xor_si128(bytes, _mm_setr_epi8(char(0x81), 0, 0, 0, 0x08, 0, 0x45, 0, 0, 0, 0, 0, 0, 0, 0, 0));
  return _mm_testz_si128(difference, _mm_setr_epi8(kTag, kTag, 0, 0, -1, -1, -1, 0, 0, 0, 0, 0, 0x3f, -1, 0, 0)) != 0;
}

// The headers out of the same bytes.
template <std::uint32_t offset>
[[gnu::always_inline]] inline __m128i headers_of_ipv4(__m128i bytes, int tcp_flags) {
  static constexpr bool tagged = kTagged<offset>;
  static constexpr std::uint64_t kLow = (std::uint64_t{offset} - ether::header_bytes) << 16 | std::uint64_t{static_cast<std::uint8_t>(Layer3::ipv4)} << 24 |
                                        std::uint64_t{offset} << 32 | std::uint64_t{offset + kIpv4Bytes} << 48;
  static constexpr std::uint64_t kHigh = std::uint64_t{1} << 48;  // whole_key
  const __m128i read = _mm_shuffle_epi8(bytes, _mm_setr_epi8(tagged ? 3 : -1, tagged ? 2 : -1, -1, -1, -1, -1, -1, -1, 9, 8, 15, -1, -1, -1, -1, -1));
  const __m128i without_priority = _mm_and_si128(read, _mm_set_epi64x(-1, 0xfff));
  return _mm_insert_epi8(_mm_or_si128(without_priority, _mm_set_epi64x(kHigh, kLow)), tcp_flags, offsetof(Headers, tcp_flags));
}

// What goes into Burst::flags_of_all and longest_plain.
struct Together {
  std::uint64_t flags = 0;
  __m128i longest = _mm_setzero_si128();  // where packet_bytes lies in Headers
};

// A packet of the kind that nearly all are, `offset` bytes into the frame. What is rare leaves by a branch that is never taken, which costs less than
// to gather several answers for one branch; which of TCP and UDP it is must not be a branch, because in mixed traffic the processor could not guess it.
template <std::uint32_t offset, Direction direction>
[[gnu::always_inline]] inline bool parse_plain(Burst& burst, std::uint32_t i, Together& together) {
  const rte_mbuf* packet = burst.mbuf[i];
  const std::uint64_t packet_flags = packet->ol_flags;
  together.flags |= packet_flags;
  // Room for every load below, be it TCP or UDP. Shorter datagrams go the other way.
  if (packet->data_len < offset + kIpv4Bytes + kTcpBytes || (packet_flags & (RTE_MBUF_F_RX_VLAN_STRIPPED | RTE_MBUF_F_RX_LRO)) != 0) return false;
  const std::uint8_t* ip = burst.bytes(i) + offset;
  const std::uint8_t* header = ip + kIpv4Bytes;
  const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(ip - 6));
  if (!is_common_ipv4<offset>(bytes) || ip[8] == 0) return false;  // time to live
  const std::int32_t ported = kPorted[ip[9]];
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
  if ((kBadTcpFlags >> (flags & 63) & 1 & tcp) != 0) return false;
  const __m128i headers = headers_of_ipv4<offset>(bytes, static_cast<int>(flags & tcp));
  together.longest = _mm_max_epu16(together.longest, headers);
  _mm_store_si128(reinterpret_cast<__m128i*>(&burst.key[i]), key_of_ipv4<direction>(ip + 9));
  _mm_store_si128(reinterpret_cast<__m128i*>(&burst.headers[i]), headers);
  return true;
}
static_assert(offsetof(Headers, tag_bytes) == 2 && offsetof(Headers, layer3) == 3 && offsetof(Headers, layer3_offset) == 4 &&
              offsetof(Headers, packet_bytes) == 8 && offsetof(Headers, protocol) == 10 && offsetof(Headers, tcp_flags) == 11 &&
              offsetof(Headers, whole_key) == 14);

// What is not like nearly all: in full, but for untagged plain packets on the trunk. Answers which of them are not plain.
template <Direction direction>
[[gnu::noinline]] std::uint64_t parse_rest(Burst& burst, std::uint64_t rest, Together& together) {
  std::uint64_t others = 0;
  for_each_bit(rest, [&](std::uint32_t i) {
    if (direction == Direction::ingress && parse_plain<ether::header_bytes, direction>(burst, i, together)) return;
    burst.verdict[i] = parse_any(burst, i, direction);
    others |= std::uint64_t{1} << i;
  });
  return others;
}

template <Direction direction>
[[gnu::always_inline]] inline void parse_all(Burst& burst) {
  static constexpr std::uint32_t kOffset = ether::header_bytes + (direction == Direction::ingress ? ether::tag_bytes : 0);
  const std::uint32_t size = burst.size;
  if (size == 0) return;
  // Asking for the last one again and again costs less than asking each time whether there is one more.
  for (std::uint32_t i = 0; i < kPrefetchAhead; ++i) burst.mbuf[size + i] = burst.mbuf[size - 1];
  std::uint64_t others = 0;
  Together together;
  for (std::uint32_t i = 0; i < size; ++i) {
    rte_prefetch0(burst.bytes(i + kPrefetchAhead));
    if (!parse_plain<kOffset, direction>(burst, i, together)) [[unlikely]] others |= std::uint64_t{1} << i;
  }
  if (others != 0) [[unlikely]] {
    Together with_rest = together;  // a copy, or the loop above would keep it in memory
    others = parse_rest<direction>(burst, others, with_rest);
    together = with_rest;
  }
  burst.plain = burst.all() & ~others;
  burst.flags_of_all = together.flags;
  burst.longest_plain = static_cast<std::uint32_t>(_mm_extract_epi16(together.longest, offsetof(Headers, packet_bytes) / 2));
}

}  // namespace detail

inline void parse(Burst& burst, Direction direction) {
  direction == Direction::ingress ? detail::parse_all<Direction::ingress>(burst) : detail::parse_all<Direction::egress>(burst);
}

}  // namespace trunkline
