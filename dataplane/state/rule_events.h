// SPDX-License-Identifier: BSD-3-Clause
//
// Where a sweep over the keys of a dimension has something to do, while rules are compiled (policy_build.cpp); and
// sorting by key, which is half of the work.
//
// Control thread; allocates.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <utility>
#include <vector>

#include "dataplane/state/rule_search.h"

namespace trunkline {

using detail::Key128;

// At `key` the rule's bit goes on or, if `off`, out.
template <typename Key>
struct Event {
  Key key;
  std::uint16_t rule;
  bool off;

  static constexpr std::size_t kDigits = sizeof(Key);
  std::size_t digit(std::size_t i) const {
    if constexpr (std::is_same_v<Key, Key128>) {
      return (i < 8 ? key.low >> 8 * i : key.high >> 8 * (i - 8)) & 0xff;
    } else {
      return key >> 8 * i & 0xff;
    }
  }
};

// By key, byte by byte from the lowest, over those bytes that differ at all. The order within a key does not matter.
template <typename Element>
void sort_by_key(std::vector<Element>& elements) {
  if (elements.size() < 64) {
    std::ranges::sort(elements, {}, &Element::key);
    return;
  }
  std::array<std::array<std::uint32_t, 256>, Element::kDigits> counts{};
  for (const Element& element : elements) {
    for (std::size_t i = 0; i < Element::kDigits; ++i) ++counts[i][element.digit(i)];
  }
  std::vector<Element> other(elements.size());
  for (std::size_t i = 0; i < Element::kDigits; ++i) {
    if (counts[i][elements.front().digit(i)] == elements.size()) continue;
    std::uint32_t before = 0;
    for (std::uint32_t& count : counts[i]) before += std::exchange(count, before);
    for (const Element& element : elements) other[counts[i][element.digit(i)]++] = element;
    elements.swap(other);
  }
}

template <typename Key>
Key before(Key key) {
  return static_cast<Key>(key - 1);
}
template <>
inline Key128 before(Key128 key) {
  return {key.high - (key.low == 0 ? 1 : 0), key.low - 1};
}
template <typename Key>
Key after(Key key) {
  return static_cast<Key>(key + 1);
}
template <>
inline Key128 after(Key128 key) {
  return {key.high + (key.low == ~std::uint64_t{0} ? 1 : 0), key.low + 1};
}

}  // namespace trunkline
