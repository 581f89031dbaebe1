// SPDX-License-Identifier: BSD-3-Clause
//
// Loads and stores of numbers in a packet, at any alignment. load16(), load32() and store16() turn network order into the machine's
// and back; load_raw() takes the bytes as they lie.
//
// The caller has checked that the bytes are there. Any thread.
#pragma once

#include <cstdint>
#include <cstring>

namespace trunkline {

inline std::uint16_t load16(const std::uint8_t* at) {
  std::uint16_t value;
  std::memcpy(&value, at, sizeof value);
  return __builtin_bswap16(value);
}
inline void store16(std::uint8_t* at, std::uint16_t value) {
  value = __builtin_bswap16(value);
  std::memcpy(at, &value, sizeof value);
}

namespace detail {

template <class Word>
Word load_raw(const std::uint8_t* at) {
  Word word;
  std::memcpy(&word, at, sizeof word);
  return word;
}

inline std::uint32_t load32(const std::uint8_t* at) { return __builtin_bswap32(load_raw<std::uint32_t>(at)); }

}  // namespace detail

}  // namespace trunkline
