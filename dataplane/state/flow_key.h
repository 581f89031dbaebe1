// SPDX-License-Identifier: BSD-3-Clause
//
// The key of a connection, as its ENI sees it: both directions of a flow make the same key, because after demux it is known
// which end is the task's. 16 bytes, so that it is compared with one instruction and an entry with both directions'
// totals fits into one cache line.
//
// Addresses and ports are in network order, and lie as they lie in an IPv4 packet towards the task: a key of the ingress
// direction is 12 bytes of the packet as they are, one of the egress direction is the same with its halves swapped.
// IPv6 addresses do not fit: the key holds a keyed digest of the two, and the entry has the addresses beside it
// (connection_table.h), which are compared as well.
//
// `owner` says whose flow it is: the endpoint's number and generation, the family, the protocol. The generation is what makes a
// detach forget all connections at once: what is left of them can match nothing.
//
// ICMP: the local port is the identifier, the remote port what a query and its answer have in common (IcmpFlow), so that an answer
// belongs to a question but a question from the other side does not, nor does a message of another code.
#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstring>
#include <iterator>

#include "config/net.h"

namespace trunkline {

struct alignas(16) FlowKey {
  std::uint32_t remote = 0;
  std::uint32_t local = 0;
  std::uint16_t remote_port = 0;
  std::uint16_t local_port = 0;
  std::uint32_t owner = 0;

  static constexpr unsigned kEndpointBits = 12, kGenerationBits = 11;
  static constexpr std::uint32_t kMaxEndpoints = 1U << kEndpointBits;
  static constexpr std::uint16_t kGenerationMask = (1U << kGenerationBits) - 1;
  static constexpr std::uint32_t kIpv6 = 1U << (kEndpointBits + kGenerationBits);
  static constexpr std::uint32_t owner_of(EndpointId id, std::uint16_t generation) {
    return id.value | static_cast<std::uint32_t>(generation & kGenerationMask) << kEndpointBits;
  }
  static constexpr std::uint32_t protocol_bits(std::uint8_t protocol) { return std::uint32_t{protocol} << 24; }

  EndpointId endpoint() const { return {static_cast<std::uint16_t>(owner & (kMaxEndpoints - 1))}; }
  std::uint16_t generation() const { return static_cast<std::uint16_t>(owner >> kEndpointBits & kGenerationMask); }
  bool is_ipv6() const { return (owner & kIpv6) != 0; }
  std::uint8_t protocol() const { return static_cast<std::uint8_t>(owner >> 24); }
  std::uint16_t remote_port_number() const { return __builtin_bswap16(remote_port); }
  std::uint16_t local_port_number() const { return __builtin_bswap16(local_port); }

  __m128i bits() const { return _mm_load_si128(reinterpret_cast<const __m128i*>(this)); }
  // Stored whole: a narrow store into a key that is then loaded whole would stall the load.
  void set_bits(__m128i bits) { _mm_store_si128(reinterpret_cast<__m128i*>(this), bits); }
  // An owner where a key has it (Endpoint::owner_bits); the protocol stays.
  void belong_to(__m128i whose) { set_bits(_mm_or_si128(bits(), whose)); }
  FlowKey from_the_other_end() const {
    // Both pairs change places; of the owner family and protocol stay. Whole, as set_bits() says.
    static_assert(kEndpointBits + kGenerationBits == 23);
    const __m128i swapped = _mm_shuffle_epi8(bits(), _mm_setr_epi8(4, 5, 6, 7, 0, 1, 2, 3, 10, 11, 8, 9, -1, -1, 14, 15));
    FlowKey key;
    key.set_bits(_mm_and_si128(swapped, _mm_setr_epi32(-1, -1, -1, ~0x7fffff)));
    return key;
  }
  friend bool operator==(const FlowKey& a, const FlowKey& b) {
    const __m128i difference = _mm_xor_si128(a.bits(), b.bits());
    return _mm_testz_si128(difference, difference) != 0;
  }
};
static_assert(sizeof(FlowKey) == 16);

// What an ICMP query and its answer have in common beside the identifier: FlowKey::remote_port of an ICMP flow. The code belongs to
// it, since the rules were asked about type and code: what a rule for 8/8 opened lets no 8/0 pass, nor 0/0 as its answer. nf_conntrack
// has it so as well.
struct IcmpFlow {
  std::uint8_t query_type = 0;  // 0: neither a query nor an answer
  std::uint8_t code = 0;
  bool asked_by_remote = false;

  constexpr std::uint16_t port() const {
    std::uint16_t place = 0;
    while (place + 1U < std::size(kQueryTypes) && kQueryTypes[place] != query_type) ++place;
    return static_cast<std::uint16_t>(code | place << 8 | (asked_by_remote ? kAskedByRemote : 0));
  }
  static constexpr IcmpFlow of_port(std::uint16_t port) {
    return {kQueryTypes[(port >> 8) % std::size(kQueryTypes)], static_cast<std::uint8_t>(port), (port & kAskedByRemote) != 0};
  }
  friend bool operator==(const IcmpFlow&, const IcmpFlow&) = default;

 private:
  static constexpr std::uint8_t kQueryTypes[8] = {0, 8, 13, 15, 17, 128};
  static constexpr std::uint16_t kAskedByRemote = 0x800;
};

// Both ends of an IPv6 flow.
struct alignas(32) AddressPair {
  IpAddress remote, local;
  friend bool operator==(const AddressPair&, const AddressPair&) = default;
};

}  // namespace trunkline
