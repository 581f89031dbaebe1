// SPDX-License-Identifier: BSD-3-Clause
//
// While rules are compiled: the set of rules that hold at the place where a sweep is, and the sets that were seen. A
// set is handed out in the eight bytes that RuleBits keeps of it (policy.h), equal sets as equal numbers.
//
// Control thread; allocates.
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "dataplane/state/rule_bits.h"

namespace trunkline {

class RuleSets {
 public:
  using RuleSet = std::uint64_t;
  using Rules = std::vector<std::uint16_t>;

  explicit RuleSets(std::size_t rules)
      : is_small_(rules <= kSmallSet), current_((rules + kWordBits - 1) / kWordBits), covers_(rules, 0) {
    while ((current_.size() - 1) >> block_shift_ >= kMaxBlocks) ++block_shift_;
    current_.resize((current_.size() + block_words() - 1) / block_words() * block_words(), 0);
    if (!is_small_) known_.resize(std::bit_ceil(4 * rules));
  }

  std::uint8_t block_shift() const { return block_shift_; }
  // The bits of sets that tell without words whether two can have a rule in common.
  RuleSet decisive_bits() const { return is_small_ ? ~RuleSet{0} : RuleSet{0xffffffff}; }

  // A rule may be covered twice at one key, by overlapping sources; its bit goes out with the last one.
  void switch_on(std::size_t rule) {
    if (covers_[rule]++ == 0) flip(rule);
  }
  void switch_off(std::size_t rule) {
    if (--covers_[rule] == 0) flip(rule);
  }
  void clear() {
    std::ranges::fill(current_, 0);
    std::ranges::fill(covers_, 0);
    current_hash_ = 0;
    summary_ = 0;
  }

  // The rules of the current set, in order.
  template <typename Visit>
  void for_each_rule(Visit&& visit) const {
    for (std::size_t word = 0; word < current_.size(); ++word) {
      for (std::uint64_t rest = current_[word]; rest != 0; rest &= rest - 1) {
        visit(static_cast<std::uint16_t>(word * kWordBits + static_cast<std::size_t>(std::countr_zero(rest))));
      }
    }
  }

  // The current set.
  RuleSet intern() {
    if (is_small_) return current_[0];
    if (summary_ == 0) return 0;
    if (2 * known_count_ >= known_.size()) grow();
    std::size_t slot = current_hash_;
    for (;; ++slot) {
      const Known& known = known_[slot & (known_.size() - 1)];
      if (known.set == 0) break;
      if (known.hash == current_hash_ && is_current(known.set)) return known.set;
    }
    const RuleSet set = static_cast<RuleSet>(words_.size()) << 32 | summary_;
    for_each_block([&](const std::uint64_t* block) { words_.insert(words_.end(), block, block + block_words()); });
    known_[slot & (known_.size() - 1)] = {current_hash_, set};
    ++known_count_;
    return set;
  }
  // A set by itself; afterwards it is the current one.
  RuleSet set_of(const Rules& rules) {
    clear();
    for (const std::uint16_t rule : rules) switch_on(rule);
    return intern();
  }

  // The words of all sets handed out. A lookup reads behind the last one rather than asking whether there is something
  // to read.
  std::vector<std::uint64_t> take_words() {
    words_.resize(words_.size() + std::max(block_words(), kReadBehind), 0);
    return std::move(words_);
  }

 private:
  struct Known {
    std::uint64_t hash = 0;
    RuleSet set = 0;  // 0 is unused: the empty set is not looked up
  };

  std::size_t block_words() const { return std::size_t{1} << block_shift_; }

  // One well mixed number a rule (splitmix64), so that the hash of a set is the xor of its rules' and follows a change
  // without a walk over the set.
  static std::uint64_t hash_of_rule(std::size_t rule) {
    std::uint64_t mixed = (rule + std::uint64_t{1}) * 0x9e3779b97f4a7c15ULL;
    mixed = (mixed ^ mixed >> 30) * 0xbf58476d1ce4e5b9ULL;
    mixed = (mixed ^ mixed >> 27) * 0x94d049bb133111ebULL;
    return mixed ^ mixed >> 31;
  }
  void flip(std::size_t rule) {
    current_[rule / kWordBits] ^= std::uint64_t{1} << rule % kWordBits;
    if (is_small_) return;
    current_hash_ ^= hash_of_rule(rule);
    const std::size_t block = rule / kWordBits >> block_shift_;
    const auto words = std::span(current_).subspan(block << block_shift_, block_words());
    const bool is_empty = std::ranges::all_of(words, [](std::uint64_t word) { return word == 0; });
    const std::uint32_t bit = std::uint32_t{1} << block;
    summary_ = is_empty ? summary_ & ~bit : summary_ | bit;
  }
  bool is_current(RuleSet set) const {
    if (static_cast<std::uint32_t>(set) != summary_) return false;
    const std::uint64_t* words = words_.data() + (set >> 32);
    bool equal = true;
    for_each_block([&](const std::uint64_t* block) {
      equal = equal && std::equal(block, block + block_words(), words);
      words += block_words();
    });
    return equal;
  }
  template <typename Visit>
  void for_each_block(Visit&& visit) const {
    for (std::uint32_t rest = summary_; rest != 0; rest &= rest - 1) {
      visit(current_.data() + (static_cast<std::size_t>(std::countr_zero(rest)) << block_shift_));
    }
  }
  void grow() {
    std::vector<Known> larger(2 * known_.size());
    for (const Known& known : known_) {
      if (known.set == 0) continue;
      std::size_t slot = known.hash;
      while (larger[slot & (larger.size() - 1)].set != 0) ++slot;
      larger[slot & (larger.size() - 1)] = known;
    }
    known_ = std::move(larger);
  }

  const bool is_small_;
  std::uint8_t block_shift_ = 0;
  std::vector<std::uint64_t> current_;
  std::vector<std::uint32_t> covers_;  // per rule, how many of its sources cover the current key
  std::uint64_t current_hash_ = 0;
  std::uint32_t summary_ = 0;         // blocks of `current_` that are not empty
  std::vector<std::uint64_t> words_;  // of all sets seen
  std::vector<Known> known_;
  std::size_t known_count_ = 0;
};

}  // namespace trunkline
