// SPDX-License-Identifier: BSD-3-Clause
//
// The value types that every room shares: addresses, prefixes, and the identifiers of the model. They are plain
// values without behaviour beyond reading and writing their text form, safe to copy into tables that workers read.
//
// Rules:
//  * An IpAddress is 16 bytes in network order; an IPv4 address is stored as ::ffff:a.b.c.d. The two families never
//    compare equal and no prefix of one contains an address of the other (0.0.0.0/0 is ::ffff:0:0/96).
//  * The text forms are strict: no leading zeros, no short forms ("10.1"), a MAC is six pairs of hex digits with
//    colons. A parser answers nullopt and leaves the words of the complaint to its caller, who knows the place.
//  * Identifiers are distinct types: an EndpointId cannot be passed where a PortSlot is meant.
//
// Any thread may use this header; it allocates only in to_string().
#pragma once

#include <algorithm>
#include <array>
#include <compare>
#include <cstdint>
#include <cstring>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

namespace trunkline {

struct MacAddress {
  std::array<std::uint8_t, 6> bytes{};

  static std::optional<MacAddress> parse(std::string_view text);
  std::string to_string() const;

  bool is_zero() const { return bytes == std::array<std::uint8_t, 6>{}; }
  bool is_multicast() const { return (bytes[0] & 1) != 0; }
  // The address in the low 48 bits, first byte highest: a key for tables.
  std::uint64_t as_integer() const {
    std::uint64_t value = 0;
    for (const std::uint8_t byte : bytes) value = value << 8 | byte;
    return value;
  }

  friend auto operator<=>(const MacAddress&, const MacAddress&) = default;
};

struct IpAddress {
  std::array<std::uint8_t, 16> bytes{};

  static std::optional<IpAddress> parse(std::string_view text);
  static constexpr IpAddress from_v4(std::uint32_t host_order) {
    IpAddress address;
    address.bytes[10] = address.bytes[11] = 0xff;
    for (unsigned i = 0; i < 4; ++i) address.bytes[12 + i] = static_cast<std::uint8_t>(host_order >> (24 - 8 * i));
    return address;
  }
  static IpAddress from_v4_bytes(const void* network_order) {
    IpAddress address;
    address.bytes[10] = address.bytes[11] = 0xff;
    std::memcpy(&address.bytes[12], network_order, 4);
    return address;
  }
  static IpAddress from_v6_bytes(const void* network_order) {
    IpAddress address;
    std::memcpy(address.bytes.data(), network_order, 16);
    return address;
  }
  std::string to_string() const;

  bool is_v4() const {
    static constexpr std::array<std::uint8_t, 12> mapped{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
    return std::memcmp(bytes.data(), mapped.data(), mapped.size()) == 0;
  }
  // Host order; only for an IPv4 address.
  std::uint32_t v4() const {
    return static_cast<std::uint32_t>(bytes[12]) << 24 | static_cast<std::uint32_t>(bytes[13]) << 16 |
           static_cast<std::uint32_t>(bytes[14]) << 8 | bytes[15];
  }
  // Eight of the bytes as a number, the first one highest.
  std::uint64_t half(std::size_t at) const {
    std::uint64_t raw;
    std::memcpy(&raw, &bytes[at], sizeof raw);
    return __builtin_bswap64(raw);
  }
  bool is_zero() const { return bytes == std::array<std::uint8_t, 16>{} || (is_v4() && v4() == 0); }

  friend auto operator<=>(const IpAddress&, const IpAddress&) = default;
};

// An address and how many of its leading bits count, in the family's own units: 0..32 or 0..128. Host bits may be
// set, as in an interface's "10.0.0.35/24"; network() clears them.
struct IpPrefix {
  IpAddress address;
  std::uint8_t length = 0;

  static std::optional<IpPrefix> parse(std::string_view text);
  std::string to_string() const;

  bool is_v4() const { return address.is_v4(); }
  // The length within the 128 bits of IpAddress.
  unsigned mapped_length() const { return is_v4() ? 96U + length : length; }
  IpPrefix network() const;
  // The last address of the prefix.
  IpAddress last() const;
  bool contains(const IpAddress& other) const {
    if (other.is_v4() != is_v4()) return false;
    const unsigned bits = mapped_length();
    // The bits of one half that count.
    const auto differs = [&](std::size_t at, unsigned counting) {
      return counting != 0 && (address.half(at) ^ other.half(at)) >> (64 - counting) != 0;
    };
    return !differs(0, std::min(bits, 64U)) && !differs(8, bits > 64 ? bits - 64 : 0);
  }
  bool is_everything() const { return length == 0; }

  friend auto operator<=>(const IpPrefix&, const IpPrefix&) = default;
};

// An 802.1Q VLAN that may carry a branch ENI: 1..4094. Zero stands for "untagged".
struct VlanId {
  std::uint16_t value = 0;
  static constexpr bool is_valid(std::int64_t number) { return number >= 1 && number <= 4094; }
  bool is_untagged() const { return value == 0; }
  friend auto operator<=>(const VlanId&, const VlanId&) = default;
};

// Dense index of an endpoint in every table that workers read; reused after detach, told apart by the Generation.
struct EndpointId {
  std::uint16_t value = 0xffff;
  bool is_valid() const { return value != 0xffff; }
  friend auto operator<=>(const EndpointId&, const EndpointId&) = default;
};

// Dense index of a port (the trunk or a task port) in the tables of the workers. Not DPDK's port number.
struct PortSlot {
  std::uint16_t value = 0xffff;
  bool is_valid() const { return value != 0xffff; }
  friend auto operator<=>(const PortSlot&, const PortSlot&) = default;
};

// A security group's number inside the engine; the controller hands them out, one per "sg-..." it has ever heard of.
struct GroupId {
  std::uint32_t value = 0xffffffff;
  friend auto operator<=>(const GroupId&, const GroupId&) = default;
};

// Which way a packet goes, as AWS means it: always from the task's point of view.
enum class Direction : std::uint8_t { ingress, egress };
constexpr Direction opposite(Direction direction) {
  return direction == Direction::ingress ? Direction::egress : Direction::ingress;
}
constexpr std::size_t index(Direction direction) { return static_cast<std::size_t>(direction); }
constexpr std::string_view to_string(Direction direction) {
  return direction == Direction::ingress ? "ingress" : "egress";
}

}  // namespace trunkline

template <>
struct std::hash<trunkline::IpAddress> {
  std::size_t operator()(const trunkline::IpAddress& address) const noexcept {
    std::uint64_t words[2];
    std::memcpy(words, address.bytes.data(), sizeof words);
    return static_cast<std::size_t>((words[0] * 0x9e3779b97f4a7c15ULL ^ words[1]) * 0xff51afd7ed558ccdULL >> 7);
  }
};
