// SPDX-License-Identifier: BSD-3-Clause
//
// What steering asks of the trunk's device: which rules it would take, to take one, to give it up, how often it matched.
// A rule says which frames (FlowMatch) go to which receive queue; beside that it may put a mark on them and count them.
//
// The trunk's ethdev is one (ethdev_flows.h); tests have others. Calls may block for as long as the device likes.
// Control thread only.
//
// Errors carry the device's own words, or what its error number means where it had none.
#pragma once

#include <array>
#include <cerrno>
#include <compare>
#include <cstdint>
#include <expected>
#include <optional>
#include <string>
#include <string_view>

#include "config/net.h"

namespace trunkline {

// What of a frame a rule looks at, the finest first of those with a VLAN and of those without.
enum class SteeringPattern : std::uint8_t { vlan_mac_address, vlan_mac, vlan, mac_address, mac };
inline constexpr std::size_t kSteeringPatterns = 5;
inline constexpr std::array<std::string_view, kSteeringPatterns> kSteeringPatternNames = {"vlan+mac+address", "vlan+mac", "vlan", "mac+address", "mac"};
constexpr std::string_view to_string(SteeringPattern pattern) { return kSteeringPatternNames[static_cast<std::size_t>(pattern)]; }
constexpr bool names_address(SteeringPattern pattern) { return pattern == SteeringPattern::vlan_mac_address || pattern == SteeringPattern::mac_address; }

// Frames of this VLAN (0: any), to this MAC, to this address. What is not said is not looked at.
struct FlowMatch {
  std::uint16_t vlan = 0;
  std::optional<MacAddress> mac;
  std::optional<IpAddress> address;
  friend auto operator<=>(const FlowMatch&, const FlowMatch&) = default;
};

struct FlowRule {
  FlowMatch match;
  std::uint16_t queue = 0;
  std::optional<std::uint32_t> mark;
  bool count = false;
  friend bool operator==(const FlowRule&, const FlowRule&) = default;
};

struct FlowError {
  int code = 0;  // an errno
  std::string message;
  // No room for one more; it may come when others go.
  bool is_full() const { return code == ENOSPC || code == ENOMEM; }
  bool is_unknown_rule() const { return code == ENOENT; }
  bool is_unsupported() const { return code == ENOSYS || code == ENOTSUP; }
};

// Whether rules of one pattern are taken, and what they may do beside choosing a queue.
struct FlowAbility {
  bool available = false;
  bool ipv6 = false;  // where the pattern names an address; IPv4 is `available`
  bool mark = false;
  bool count = false;
  std::string why;  // not available: what the device says
};

using FlowHandle = void*;

class FlowDevice {
 public:
  virtual ~FlowDevice() = default;

  virtual FlowAbility probe(SteeringPattern pattern) = 0;
  virtual std::expected<FlowHandle, FlowError> insert(const FlowRule& rule) = 0;
  // A handle is worth nothing after remove() succeeded, and after flush().
  virtual std::expected<void, FlowError> remove(FlowHandle handle) = 0;
  virtual std::expected<std::uint64_t, FlowError> hits(FlowHandle handle) = 0;
  virtual void flush() = 0;
  // Whether the device has announced, since this was last asked, that it may have lost what it was told.
  virtual bool take_reset() = 0;
};

}  // namespace trunkline
