// SPDX-License-Identifier: BSD-3-Clause
//
// For IPv4: who may use a port, as a list with the answers in it.
//
// The rules that a port satisfies are mostly few, and their sources cut the addresses into a handful of intervals. Such
// a list is made for each set of rules that some port satisfies: of each interval the last address, and the answer to
// whoever has an address in it. A question is then two searches and no intersection. Sources of rules for all ports
// would be repeated in every list; when they are more than a few they make a list of their own, and the answer is what
// the two say together.
//
// A list is a tree whose nodes are up to 16 addresses, one cache line's worth, and as many values behind them in a
// second array: at the leaves answers, above them the references of the nodes below. The last address of a node is not
// less than what is searched in it, so a search never looks at what follows. Nodes lie without gaps.
//
// Pure, any thread. What is read are somebody's arrays, with kBehind addresses more than nodes have, of any value.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>

#include "dataplane/state/rule_search.h"

namespace trunkline::detail {

// What there is to know of an interval of ports in one number: where its list begins, how many levels of nodes lie
// above the leaves, and two marks.
struct SourceList {
  static constexpr unsigned kLevelShift = 24;
  static constexpr std::uint32_t kStart = (1U << kLevelShift) - 1;
  static constexpr std::uint32_t kLevels = 7U << kLevelShift;
  static constexpr std::uint32_t kBySets = 1U << 30;   // there is no list, the sets of rules have to be asked
  static constexpr std::uint32_t kGrouped = 1U << 31;  // a rule of these ports names a group: membership matters, too
  // Nobody: every policy's lists begin with this one.
  static constexpr std::uint32_t kNobody = 0;

  static constexpr std::size_t kFanout = 16;
  static constexpr std::size_t kBehind = kFanout;
};

// An answer is a RuleMatch in four bytes: allowed, from anywhere, and above them the rule's number, which is the
// highest if there is none. So the lower number is the answer with the lower rule.
struct SourceAnswer {
  static constexpr std::uint32_t kAllowed = 1, kFromAnywhere = 1U << 8;
  static constexpr unsigned kRuleShift = 16;
  static constexpr std::uint32_t kNone = 0xffffU << kRuleShift;

  static constexpr std::uint32_t of_rule(std::uint16_t rule, bool from_anywhere) {
    return std::uint32_t{rule} << kRuleShift | (from_anywhere ? kFromAnywhere : 0) | kAllowed;
  }
  // What two sets of rules say together.
  static constexpr std::uint32_t join(std::uint32_t a, std::uint32_t b) {
    return (a < b ? a : b) | ((a | b) & (kFromAnywhere | kAllowed));
  }
};

// Views into somebody's arena. As long as nobody says otherwise, every list is empty.
struct SourceLists {
  static constexpr std::uint32_t kNoAddress[SourceList::kBehind] = {~0U};
  static constexpr std::uint32_t kNoValue[1] = {SourceAnswer::kNone};
  const std::uint32_t* last = kNoAddress;
  const std::uint32_t* values = kNoValue;

  // One level down: another reference or, at a leaf, the answer.
  template <class Search>
  [[gnu::always_inline]] std::uint32_t step(std::uint32_t reference, std::uint32_t address) const {
    const std::size_t start = reference & SourceList::kStart;
    return values[start + Search::first_not_less(last + start, address)];
  }
  template <class Search>
  [[gnu::always_inline]] std::uint32_t find(std::uint32_t reference, std::uint32_t address) const {
    while ((reference & SourceList::kLevels) != 0) reference = step<Search>(reference, address);
    return step<Search>(reference, address);
  }
};

}  // namespace trunkline::detail
