// SPDX-License-Identifier: BSD-3-Clause
//
// From an IP header to the transport header: past IPv4 options and IPv6 extension headers. This is the only code that walks them: parse
// does so for every packet that is not plain, related for what an ICMP error quotes, fragments to find the fragment header again; explain
// and the captures show what parse found.
//
// IPv6, by the number of the next header:
//
//   0 hop-by-hop options         stepped over; must come first (RFC 8200, 4.1), else not allowed
//   60 destination options       stepped over, before and behind the fragment header
//   44 fragment                  stepped over; a second one is not allowed. Behind one with an offset there is data, no header
//   43 routing                   not allowed: it changes where the packet goes after the rules were asked
//   50 ESP, 51 AH                the transport protocol, as in IPv4, and as AWS's rules name them: the rules are asked about 50 or 51,
//                                never about what is inside
//   59 no next header            the transport protocol 59, of which nothing follows
//   135 mobility, 139 HIP, 140 shim6, 253, 254 and all others    the transport protocol: no VPC carries them unless a rule says so
//
// What is inside of options is for the receiver; their lengths are not looked at, since the header's own length says where it ends.
// "Not allowed" is reported and walked past, so that the caller decides: a packet is refused, a quotation of one is still read.
//
// Bounded: 8 extension headers (RFC 8200 knows 7 places), 40 bytes of IPv4 options. Reads nothing outside of `room`. Any thread.
#pragma once

#include <cstdint>

#include "dataplane/wire/bytes.h"

namespace trunkline {

namespace protocol {
inline constexpr std::uint8_t icmp = 1;
inline constexpr std::uint8_t tcp = 6;
inline constexpr std::uint8_t udp = 17;
inline constexpr std::uint8_t icmpv6 = 58;
}  // namespace protocol

namespace extension {
inline constexpr std::uint8_t hop_by_hop = 0;
inline constexpr std::uint8_t routing = 43;
inline constexpr std::uint8_t fragment = 44;
inline constexpr std::uint8_t destination_options = 60;
}  // namespace extension

// A later fragment has no transport header: the fragments stage gives it the ports of its first one.
enum class Fragment : std::uint8_t { none, first, later };

struct IpHeaders {
  enum class Options : std::uint8_t {
    allowed,
    not_allowed,  // IPv4 source routing; an IPv6 routing header, or a header out of its place
    malformed,    // an IPv4 option's length is impossible; more than 8 IPv6 extension headers
  };

  bool reached = false;  // the walk got as far as the transport header; else only `options` and `fragment` mean something
  Options options = Options::allowed;
  Fragment fragment = Fragment::none;
  std::uint8_t protocol = 0;  // of the transport header. Of a later IPv6 fragment what its fragment header says, which nobody has to believe:
                              // the first fragment's counts (RFC 8200, 4.5)
  // Bytes from the IP header on.
  std::uint32_t transport = 0;        // the transport header; in a later fragment its data
  std::uint32_t fragment_header = 0;  // IPv6; 0: there is none
};

inline constexpr std::uint32_t kIpv4Bytes = 20, kIpv6Bytes = 40;

namespace detail {

inline IpHeaders::Options check_ipv4_options(const std::uint8_t* header, std::uint32_t header_bytes) {
  static constexpr std::uint8_t kEnd = 0, kNoOperation = 1, kLooseSourceRoute = 131, kStrictSourceRoute = 137;
  for (std::uint32_t at = kIpv4Bytes; at < header_bytes;) {
    const std::uint8_t option = header[at];
    if (option == kEnd) break;
    if (option == kNoOperation) {
      ++at;
      continue;
    }
    if (at + 1 >= header_bytes || header[at + 1] < 2 || at + header[at + 1] > header_bytes) return IpHeaders::Options::malformed;
    if (option == kLooseSourceRoute || option == kStrictSourceRoute) return IpHeaders::Options::not_allowed;
    at += header[at + 1];
  }
  return IpHeaders::Options::allowed;
}

}  // namespace detail

// `room`: bytes from the IP header on that may be read and belong to the packet. Lengths in the IP header are the caller's business, but for
// the header's own.
inline IpHeaders walk_ipv4(const std::uint8_t* header, std::uint32_t room) {
  IpHeaders found;
  if (room < kIpv4Bytes || header[0] >> 4 != 4) return found;
  const std::uint32_t header_bytes = (header[0] & 15) * 4U;
  if (header_bytes < kIpv4Bytes || header_bytes > room) return found;
  const std::uint32_t place = load16(header + 6) & 0x3fff;  // more-fragments, and an offset
  if (place != 0) found.fragment = (place & 0x1fff) == 0 ? Fragment::first : Fragment::later;
  found.options = detail::check_ipv4_options(header, header_bytes);
  found.protocol = header[9];
  found.transport = header_bytes;
  found.reached = true;
  return found;
}

inline IpHeaders walk_ipv6(const std::uint8_t* header, std::uint32_t room) {
  static constexpr unsigned kMaxExtensions = 8;
  IpHeaders found;
  if (room < kIpv6Bytes || header[0] >> 4 != 6) return found;
  std::uint8_t next = header[6];
  std::uint32_t at = kIpv6Bytes;
  for (unsigned passed = 0; found.fragment != Fragment::later; ++passed) {
    const bool is_fragment = next == extension::fragment;
    if (!is_fragment && next != extension::hop_by_hop && next != extension::routing && next != extension::destination_options) break;
    if (passed == kMaxExtensions) {
      if (found.options == IpHeaders::Options::allowed) found.options = IpHeaders::Options::malformed;
      return found;
    }
    if (next == extension::routing || (next == extension::hop_by_hop && passed != 0) || (is_fragment && found.fragment_header != 0)) {
      found.options = IpHeaders::Options::not_allowed;
    }
    if (at + 8 > room) return found;
    const std::uint32_t bytes = is_fragment ? 8 : (header[at + 1] + 1U) * 8U;
    if (at + bytes > room) return found;
    if (is_fragment) {
      found.fragment_header = at;
      const std::uint32_t place = load16(header + at + 2);  // an offset, two reserved bits, more-fragments
      if ((place & 0xfff9) != 0) found.fragment = (place & 0xfff8) == 0 ? Fragment::first : Fragment::later;
    }
    next = header[at];
    at += bytes;
  }
  found.protocol = next;
  found.transport = at;
  found.reached = true;
  return found;
}

}  // namespace trunkline
