// SPDX-License-Identifier: BSD-3-Clause
//
// A set of endpoints, a bit each, that can be walked in a ring. Owned by one worker.
#pragma once

#include <array>
#include <bit>
#include <cstdint>

#include "dataplane/state/flow_key.h"

namespace trunkline {

class EndpointSet {
 public:
  static constexpr std::uint32_t kNone = 0xffffffff;

  void set(std::uint32_t id, bool is_in) {
    std::uint64_t& word = words_[id / 64];
    word = (word & ~(std::uint64_t{1} << id % 64)) | std::uint64_t{is_in} << id % 64;
  }
  bool has(std::uint32_t id) const { return (words_[id / 64] >> id % 64 & 1) != 0; }
  // The first from `id` on, round the end; kNone: there is none.
  std::uint32_t next(std::uint32_t id) const {
    const std::uint32_t first = id / 64 % kWords;
    const std::uint64_t from_id = words_[first] & ~std::uint64_t{0} << id % 64;
    if (from_id != 0) return first * 64 + static_cast<std::uint32_t>(std::countr_zero(from_id));
    for (std::uint32_t i = 1; i <= kWords; ++i) {
      const std::uint32_t at = (first + i) % kWords;
      if (words_[at] != 0) return at * 64 + static_cast<std::uint32_t>(std::countr_zero(words_[at]));
    }
    return kNone;
  }

 private:
  static constexpr std::uint32_t kWords = FlowKey::kMaxEndpoints / 64;
  std::array<std::uint64_t, kWords> words_{};
};

}  // namespace trunkline
