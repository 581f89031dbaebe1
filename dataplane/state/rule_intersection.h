// SPDX-License-Identifier: BSD-3-Clause
//
// What the set of rules that a flow's ports satisfy has in common with those that its remote address satisfies
// (policy.h says what a set is). For what source lists do not answer: IPv6, members of groups, lists that would be too
// long.
//
// Pure, any thread; inlined into a function for each instruction set.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>

#include "dataplane/state/policy.h"
#include "dataplane/state/rule_bits.h"

namespace trunkline {

struct RuleIntersection {
  using RuleSet = RuleBits::RuleSet;
  using Tables = RuleBits::Tables;

  static bool is_small(const Tables& tables) { return tables.rules <= kSmallSet; }

  // The block of a set that has the bit in its summary; if it has not, something that may be read and means nothing.
  [[gnu::always_inline]] static const std::uint64_t* block(const Tables& tables, RuleSet set, std::uint32_t bit) {
    const std::uint32_t before = static_cast<std::uint32_t>(set) & (bit - 1);
    return tables.words + (set >> 32) + (static_cast<std::size_t>(std::popcount(before)) << tables.block_shift);
  }

  // `sources`: the sets whose union is what the remote address satisfies.
  [[gnu::always_inline]] static RuleMatch intersect_small(RuleSet ports, std::span<const RuleSet> sources,
                                                          RuleSet everyone) {
    RuleSet remote = 0;
    for (const RuleSet source : sources) remote |= source;
    const RuleSet hit = ports & remote;
    return {hit != 0, (hit & everyone) != 0, hit != 0 ? static_cast<RuleId>(std::countr_zero(hit)) : kNoRule};
  }

  [[gnu::always_inline]] static std::uint64_t hit_in(const Tables& tables, const std::uint64_t* port_words,
                                                     std::size_t word, std::span<const RuleSet> sources,
                                                     std::uint32_t bit) {
    std::uint64_t remote = 0;
    for (const RuleSet source : sources) remote |= (source & bit) != 0 ? block(tables, source, bit)[word] : 0;
    return remote & port_words[word];
  }

  // The blocks given, lowest first.
  static RuleMatch intersect_blocks(const Tables& tables, RuleSet ports, std::span<const RuleSet> sources,
                                    RuleSet everyone, std::uint32_t blocks) {
    RuleMatch match;
    while (blocks != 0) {
      const std::uint32_t bit = blocks & -blocks;
      blocks ^= bit;
      const std::uint64_t* const port_words = block(tables, ports, bit);
      for (std::size_t word = 0; word >> tables.block_shift == 0; ++word) {
        const std::uint64_t hit = hit_in(tables, port_words, word, sources, bit);
        if (hit == 0) continue;
        if (!match.allowed) {
          const std::size_t at = (static_cast<std::size_t>(std::countr_zero(bit)) << tables.block_shift) + word;
          match.rule = static_cast<RuleId>(at * kWordBits + static_cast<std::size_t>(std::countr_zero(hit)));
          match.allowed = true;
        }
        // What comes from anywhere is also among the address's rules, so it cannot be missed by looking only at hits.
        if ((everyone & bit) != 0 && (hit & block(tables, everyone, bit)[word]) != 0) match.from_anywhere = true;
      }
      // The lowest is found; what is left to learn is whether some rule is from anywhere.
      if (match.allowed) blocks &= match.from_anywhere ? 0 : static_cast<std::uint32_t>(everyone);
    }
    return match;
  }

  // Of sets that have so few rules in common that the first block in question mostly is the only one.
  [[gnu::always_inline]] static RuleMatch intersect_large(const Tables& tables, RuleSet ports,
                                                          std::span<const RuleSet> sources, RuleSet everyone) {
    std::uint32_t blocks = 0;
    for (const RuleSet source : sources) blocks |= static_cast<std::uint32_t>(source);
    blocks &= static_cast<std::uint32_t>(ports);
    const std::uint32_t first = blocks & -blocks;
    if (blocks != first || tables.block_shift != 0) [[unlikely]] {
      return intersect_blocks(tables, ports, sources, everyone, blocks);
    }
    // All of this may be without a block, and then is without a hit.
    const std::uint64_t hit = hit_in(tables, block(tables, ports, first), 0, sources, first);
    const std::uint64_t anywhere = (everyone & first) != 0 ? *block(tables, everyone, first) : 0;
    const auto rule =
        static_cast<RuleId>(std::countr_zero(first) * static_cast<int>(kWordBits) + std::countr_zero(hit));
    return {hit != 0, (hit & anywhere) != 0, hit != 0 ? rule : kNoRule};
  }

  template <class Search>
  [[gnu::always_inline]] static RuleMatch intersect(const Tables& tables, RuleSet ports,
                                                    std::span<const RuleSet> sources, RuleSet everyone) {
    if (is_small(tables)) return intersect_small(ports, sources, everyone);
    if constexpr (Search::kWidestSet != 0) {
      if (tables.rules <= Search::kWidestSet) [[likely]] {
        const detail::CommonRules common = Search::common(tables.words, ports, sources, everyone);
        return {common.exist, common.with_marked, common.exist ? common.lowest : kNoRule};
      }
    }
    return intersect_large(tables, ports, sources, everyone);
  }
};

}  // namespace trunkline
