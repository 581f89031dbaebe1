// SPDX-License-Identifier: BSD-3-Clause
//
// The Internet checksum (RFC 1071), for the few packets that the edge makes itself. What passes keeps its own.
#pragma once

#include <cstdint>

#include "dataplane/stages/parse.h"

namespace trunkline {

// Adds `count` bytes as 16-bit words; an odd last byte is the high one.
inline std::uint32_t sum16(const std::uint8_t* bytes, std::uint32_t count, std::uint32_t sum = 0) {
  for (; count > 1; count -= 2, bytes += 2) sum += load16(bytes);
  if (count == 1) sum += static_cast<std::uint32_t>(*bytes) << 8;
  return sum;
}

inline std::uint16_t fold(std::uint32_t sum) {
  while (sum >> 16 != 0) sum = (sum & 0xffff) + (sum >> 16);
  return static_cast<std::uint16_t>(~sum & 0xffff);
}

}  // namespace trunkline
