// SPDX-License-Identifier: BSD-3-Clause
//
// IP protocols as rules name them, and how our own JSON spells them: "tcp", "udp", "icmp", "icmpv6", any other as its number,
// and "-1" for all. Any thread.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <utility>

namespace trunkline::config {

inline constexpr int kAnyProtocol = -1, kIcmp = 1, kTcp = 6, kUdp = 17, kIcmp6 = 58;

inline constexpr std::pair<std::string_view, int> kProtocolNames[] = {
    {"tcp", kTcp}, {"udp", kUdp}, {"icmp", kIcmp}, {"icmpv6", kIcmp6}, {"-1", kAnyProtocol}};
inline constexpr std::string_view kProtocolWanted =
    R"("tcp", "udp", "icmp", "icmpv6", a number from "0" to "255", or "-1" for any)";

constexpr bool has_ports(int protocol) { return protocol == kTcp || protocol == kUdp; }

inline std::string protocol_text(int protocol) {
  for (const auto& [name, number] : kProtocolNames) {
    if (number == protocol) return std::string(name);
  }
  return std::to_string(protocol);
}

inline std::optional<int> protocol_number(std::string_view text) {
  for (const auto& [name, number] : kProtocolNames) {
    if (name == text) return number;
  }
  if (text.empty() || text.size() > 3 || (text.size() > 1 && text[0] == '0')) return std::nullopt;
  int number = 0;
  for (const char c : text) {
    if (c < '0' || c > '9') return std::nullopt;
    number = 10 * number + (c - '0');
  }
  return number <= 255 ? std::optional(number) : std::nullopt;
}

}  // namespace trunkline::config
