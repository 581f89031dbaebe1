// SPDX-License-Identifier: BSD-3-Clause
//
// What the two halves of RuleBits, looking up (policy.cpp) and building (policy_build.cpp), have to agree on.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "config/net.h"
#include "dataplane/state/rule_search.h"

namespace trunkline {

inline constexpr std::uint8_t kIcmp = 1;
inline constexpr std::uint8_t kTcp = 6;
inline constexpr std::uint8_t kUdp = 17;
inline constexpr std::uint8_t kIcmp6 = 58;

inline constexpr std::size_t kWordBits = 64;
inline constexpr std::size_t kSmallSet = 64;  // rules that a set holds without words elsewhere
inline constexpr std::size_t kMaxBlocks = 32;
inline constexpr std::size_t kReadBehind = 16;  // words
inline constexpr std::size_t kArenaAlignment = 64;
inline constexpr GroupId kNoGroup{};

inline detail::Key128 key128(const IpAddress& address) {
  detail::Key128 key;
  std::memcpy(&key.high, &address.bytes[0], 8);
  std::memcpy(&key.low, &address.bytes[8], 8);
  if constexpr (std::endian::native == std::endian::little) key = {std::byteswap(key.high), std::byteswap(key.low)};
  return key;
}

inline std::uint32_t group_hash(GroupId group) { return (group.value * 0x9e3779b1U) >> 15; }

}  // namespace trunkline
