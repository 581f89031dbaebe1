// SPDX-License-Identifier: BSD-3-Clause
//
// Makes source lists (source_lists.h), while rules are compiled. Ranges are prefixes: two of them either nest or have
// nothing in common, so a list is made in one pass over its ranges in order, with a stack of those that hold the place
// where it is.
//
// The lists of all ports together may be longer than is worth having: 500 rules for half of all ports, cut by 500
// others within it. Beyond `most` intervals nothing more is made, and whoever asks has to do without any.
//
// Control thread; allocates.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "dataplane/state/source_lists.h"

namespace trunkline {

// An IPv4 source of a rule, in order of address, wider ones first, in one number.
class SourceRange {
 public:
  static constexpr std::size_t kDigits = 7;

  SourceRange() = default;
  // `length`: 1 to 32.
  SourceRange(std::uint32_t first, unsigned length, std::uint16_t rule)
      : key(std::uint64_t{first} << 22 | std::uint64_t{length} << 16 | rule) {}

  std::uint32_t first() const { return static_cast<std::uint32_t>(key >> 22); }
  std::uint32_t last() const { return first() | (~std::uint32_t{0} >> ((key >> 16 & 63) - 1) >> 1); }
  std::uint16_t rule() const { return static_cast<std::uint16_t>(key); }
  bool is_same_range(const SourceRange& other) const { return key >> 16 == other.key >> 16; }
  std::size_t digit(std::size_t i) const { return key >> 8 * i & 0xff; }

  std::uint64_t key = 0;
};

class SourceListsBuilder {
 public:
  SourceListsBuilder();

  // From here on at most so many intervals.
  void set_most(std::size_t intervals) { most_ = intervals; }
  bool is_too_long() const { return last_.size() > most_; }

  // The reference of a list: the ranges, sorted, and beside them everybody, if `otherwise` says so.
  std::uint32_t add(std::span<const SourceRange> ranges, std::uint32_t otherwise);

  // Both arrays, ready to be read.
  std::vector<std::uint32_t> take_last();
  std::vector<std::uint32_t> take_values() { return std::move(values_); }

 private:
  struct Interval {
    std::uint32_t last;
    std::uint32_t value;
  };

  void sweep(std::span<const SourceRange> ranges, std::uint32_t otherwise);
  // Up to and with `last`, from where the sweep is.
  void extend(std::uint32_t last, std::uint32_t value);
  // `level_` in nodes, and then those nodes, until there is one.
  std::uint32_t write_tree();

  std::size_t most_ = 0;
  std::vector<std::uint32_t> last_, values_;

  // Of the list that is being made.
  std::uint64_t next_ = 0;  // first address without an answer yet
  std::vector<Interval> open_;
  std::vector<Interval> level_, above_;
};

}  // namespace trunkline
