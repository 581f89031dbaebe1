// SPDX-License-Identifier: BSD-3-Clause
//
// Durations in TSC cycles, kept as counts in buckets that are 1/32 of their value wide: recording costs a count of leading
// zeros and an addition, and any percentile is right to 3 %. One thread.
#pragma once

#include <array>
#include <bit>
#include <cstdint>

namespace trunkline::generator {

class Histogram {
 public:
  void record(std::uint64_t cycles) {
    ++counts_[bucket(cycles)];
    ++total_;
    if (cycles > max_) max_ = cycles;
  }
  void clear() { *this = {}; }
  std::uint64_t total() const { return total_; }
  std::uint64_t max() const { return max_; }
  // The upper edge of the bucket in which `fraction` (0..1) of all durations is reached; 0 when there are none.
  std::uint64_t percentile(double fraction) const {
    const auto wanted = static_cast<std::uint64_t>(fraction * static_cast<double>(total_));
    std::uint64_t seen = 0;
    for (std::size_t i = 0; i < counts_.size(); ++i) {
      seen += counts_[i];
      if (seen > wanted || (seen == total_ && seen != 0)) return upper_edge(i);
    }
    return 0;
  }

 private:
  static constexpr unsigned kFineBits = 5;

  static std::size_t bucket(std::uint64_t value) {
    if (value < (1U << kFineBits)) return value;
    const auto shift = static_cast<unsigned>(std::bit_width(value)) - kFineBits - 1;
    return ((shift + 1) << kFineBits) + ((value >> shift) & ((1U << kFineBits) - 1));
  }
  static std::uint64_t upper_edge(std::size_t index) {
    if (index < (1U << kFineBits)) return index;
    const std::size_t shift = (index >> kFineBits) - 1;
    return (((index & ((1U << kFineBits) - 1)) + (1U << kFineBits) + 1) << shift) - 1;
  }

  std::array<std::uint64_t, 60 << kFineBits> counts_{};
  std::uint64_t total_ = 0;
  std::uint64_t max_ = 0;
};

}  // namespace trunkline::generator
