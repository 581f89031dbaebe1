// SPDX-License-Identifier: BSD-3-Clause
#include "dataplane/state/policy.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <new>

#include "dataplane/state/rule_bits.h"

namespace trunkline {

// Everything is inlined into a function for each instruction set.
struct RuleMatcher {
  using RuleSet = RuleBits::RuleSet;
  using Tables = RuleBits::Tables;

  static std::uint64_t word_of(const IpAddress& address, std::size_t offset) {
    std::uint64_t word;
    std::memcpy(&word, &address.bytes[offset], sizeof word);
    return std::endian::native == std::endian::little ? std::byteswap(word) : word;
  }

  template <class Search>
  [[gnu::always_inline]] static RuleSet port_rules(const Tables& tables, const FlowQuery& query, bool ipv4) {
    switch (query.protocol) {
      case kTcp:
        return tables.tcp.find<Search>(query.port);
      case kUdp:
        return tables.udp.find<Search>(query.port);
      case kIcmp:
        if (ipv4) return tables.icmp4.find<Search>(query.port);
        break;
      case kIcmp6:
        if (!ipv4) return tables.icmp6.find<Search>(query.port);
        break;
      default:
        break;
    }
    return tables.other.find<Search>(query.protocol);
  }

  template <class Search>
  [[gnu::always_inline]] static RuleSet address_rules(const Tables& tables, const IpAddress& remote, bool ipv4) {
    if (ipv4) return tables.ipv4.find<Search>(remote.v4());
    return tables.ipv6.find<Search>({word_of(remote, 0), word_of(remote, 8)});
  }

  static RuleSet group_rules(const Tables& tables, GroupId group) {
    for (std::uint32_t slot = group_hash(group);; ++slot) {
      const RuleBits::GroupSlot& candidate = tables.groups[slot & tables.group_mask];
      if (candidate.group == group || candidate.group == kNoGroup) return candidate.rules;
    }
  }

  static bool is_small(const Tables& tables) { return tables.rules <= kSmallSet; }
  // The rules of two sets, as far as this can be said without reading words; 0 is certain.
  static RuleSet may_intersect(const Tables& tables, RuleSet a, RuleSet b) {
    return is_small(tables) ? a & b : static_cast<std::uint32_t>(a & b);
  }

  // Which rules the remote address satisfies: the union of these sets.
  struct Sources {
    static constexpr std::size_t kMost = Members::kMaxGroups + 1;
    std::array<RuleSet, kMost> sets;
    std::size_t count = 0;
    bool is_full() const { return count == kMost; }
    void add(RuleSet set) {
      if (set != 0) sets[count++] = set;
    }
  };

  [[gnu::always_inline]] static const std::uint64_t* block(const Tables& tables, RuleSet set, std::uint32_t bit) {
    const std::uint32_t before = static_cast<std::uint32_t>(set) & (bit - 1);
    return tables.words + (set >> 32) + (static_cast<std::size_t>(std::popcount(before)) << tables.block_shift);
  }

  [[gnu::always_inline]] static void intersect_small(RuleSet hit, RuleSet everyone, RuleMatch& match) {
    if (hit == 0) return;
    match.allowed = true;
    match.rule = std::min(match.rule, static_cast<RuleId>(std::countr_zero(hit)));
    if ((hit & everyone) != 0) match.from_anywhere = true;
  }

  [[gnu::always_inline]] static void intersect(const Tables& tables, RuleSet ports, const Sources& sources,
                                               RuleSet everyone, RuleMatch& match) {
    if (is_small(tables)) {
      RuleSet remote = 0;
      for (std::size_t i = 0; i < sources.count; ++i) remote |= sources.sets[i];
      return intersect_small(ports & remote, everyone, match);
    }
    std::uint32_t blocks = 0;
    for (std::size_t i = 0; i < sources.count; ++i) blocks |= static_cast<std::uint32_t>(sources.sets[i]);
    blocks &= static_cast<std::uint32_t>(ports);
    const std::size_t block_words = std::size_t{1} << tables.block_shift;
    bool found = false;
    while (blocks != 0) {
      const std::uint32_t bit = blocks & -blocks;
      blocks ^= bit;
      const std::uint64_t* const port_words = block(tables, ports, bit);
      for (std::size_t word = 0; word < block_words; ++word) {
        std::uint64_t remote = 0;
        for (std::size_t i = 0; i < sources.count; ++i) {
          if ((sources.sets[i] & bit) != 0) remote |= block(tables, sources.sets[i], bit)[word];
        }
        const std::uint64_t hit = remote & port_words[word];
        if (hit == 0) continue;
        if (!found) {
          found = true;
          const std::size_t at = (static_cast<std::size_t>(std::countr_zero(bit)) << tables.block_shift) + word;
          match.rule = std::min(match.rule, static_cast<RuleId>(at * kWordBits + static_cast<std::size_t>(std::countr_zero(hit))));
          match.allowed = true;
        }
        // What comes from anywhere is also among the address's rules, so it cannot be missed by looking only at hits.
        if ((everyone & bit) != 0 && (hit & block(tables, everyone, bit)[word]) != 0) match.from_anywhere = true;
      }
      // The lowest is found; what is left to learn is whether some rule is from anywhere.
      if (found) blocks &= match.from_anywhere ? 0 : static_cast<std::uint32_t>(everyone);
    }
  }

  template <class Search>
  [[gnu::always_inline]] static RuleMatch match(const RuleBits& rules, const FlowQuery& query,
                                                std::span<const GroupId> remote_groups) {
    const Tables& tables = rules.tables_;
    RuleMatch result;
    if (tables.rules == 0) return result;
    const bool ipv4 = query.remote.is_v4();
    const RuleSet ports = port_rules<Search>(tables, query, ipv4);
    if (ports == 0) return result;
    // Membership in more groups than fit is answered in several turns: the union decomposes.
    Sources sources;
    sources.add(address_rules<Search>(tables, query.remote, ipv4));
    std::size_t next_group = 0;
    do {
      while (next_group < remote_groups.size() && !sources.is_full()) {
        sources.add(group_rules(tables, remote_groups[next_group++]));
      }
      intersect(tables, ports, sources, tables.everyone[ipv4 ? 0 : 1], result);
      sources.count = 0;
    } while (next_group < remote_groups.size());
    return result;
  }

  // In passes over a batch, so that the memory that one pass reads was asked for in the pass before.
  static constexpr std::size_t kBatch = 64;
  struct Open {
    RuleLookup* lookup;
    RuleSet ports;
    RuleSet address;
    bool ipv4;
    bool membership_matters;
  };

  template <class Search>
  [[gnu::always_inline]] static void match_batch(std::span<RuleLookup> lookups, const Members& members) {
    for (const RuleLookup& lookup : lookups) {
      __builtin_prefetch(&lookup.rules->tables_);
      __builtin_prefetch(reinterpret_cast<const std::byte*>(&lookup.rules->tables_) + 64);
    }

    // Ports first: most of a port scan ends here.
    std::array<Open, kBatch> open;
    std::size_t count = 0;
    for (RuleLookup& lookup : lookups) {
      const Tables& tables = lookup.rules->tables_;
      lookup.match = {};
      if (tables.rules == 0) continue;
      const bool ipv4 = lookup.query.remote.is_v4();
      const RuleSet ports = port_rules<Search>(tables, lookup.query, ipv4);
      const bool membership_matters = may_intersect(tables, ports, tables.grouped) != 0;
      open[count] = {&lookup, ports, 0, ipv4, membership_matters};
      count += ports != 0;
      if (membership_matters) members.prefetch(lookup.query.remote);
    }

    for (Open& each : std::span(open).first(count)) {
      const Tables& tables = each.lookup->rules->tables_;
      each.address = address_rules<Search>(tables, each.lookup->query.remote, each.ipv4);
      if (is_small(tables)) continue;
      __builtin_prefetch(tables.words + (each.ports >> 32));
      __builtin_prefetch(tables.words + (each.address >> 32));
    }

    for (const Open& each : std::span(open).first(count)) {
      const Tables& tables = each.lookup->rules->tables_;
      const RuleSet everyone = tables.everyone[each.ipv4 ? 0 : 1];
      Sources sources;
      sources.add(each.address);
      if (each.membership_matters) {
        for (const GroupId group : members.find(each.lookup->query.remote).view()) sources.add(group_rules(tables, group));
      }
      intersect(tables, each.ports, sources, everyone, each.lookup->match);
    }
  }

  template <class Search>
  [[gnu::always_inline]] static void match_all(std::span<RuleLookup> lookups, const Members& members) {
    while (lookups.size() > kBatch) {
      match_batch<Search>(lookups.first(kBatch), members);
      lookups = lookups.subspan(kBatch);
    }
    match_batch<Search>(lookups, members);
  }

  static void all_scalar(std::span<RuleLookup> lookups, const Members& members) {
    match_all<detail::ScalarSearch>(lookups, members);
  }
  static RuleMatch one_scalar(const RuleBits& rules, const FlowQuery& query, std::span<const GroupId> groups) {
    return match<detail::ScalarSearch>(rules, query, groups);
  }
#if defined(__x86_64__)
  [[gnu::target("avx2,popcnt")]] static void all_avx2(std::span<RuleLookup> lookups, const Members& members) {
    match_all<detail::Avx2Search>(lookups, members);
  }
  [[gnu::target("avx2,popcnt")]] static RuleMatch one_avx2(const RuleBits& rules, const FlowQuery& query,
                                                           std::span<const GroupId> groups) {
    return match<detail::Avx2Search>(rules, query, groups);
  }
  [[gnu::target(TRUNKLINE_AVX512)]] static void all_avx512(std::span<RuleLookup> lookups, const Members& members) {
    match_all<detail::Avx512Search>(lookups, members);
  }
  [[gnu::target(TRUNKLINE_AVX512)]] static RuleMatch one_avx512(const RuleBits& rules, const FlowQuery& query,
                                                                std::span<const GroupId> groups) {
    return match<detail::Avx512Search>(rules, query, groups);
  }
#endif
};

bool is_available(SearchIsa isa) {
#if defined(__x86_64__)
  __builtin_cpu_init();
  switch (isa) {
    case SearchIsa::scalar: return true;
    case SearchIsa::avx2: return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("popcnt");
    case SearchIsa::avx512: return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw");
  }
#endif
  return isa == SearchIsa::scalar;
}

SearchIsa fastest_search() {
  static const SearchIsa fastest = is_available(SearchIsa::avx512) ? SearchIsa::avx512
                                   : is_available(SearchIsa::avx2) ? SearchIsa::avx2
                                                                   : SearchIsa::scalar;
  return fastest;
}

void match_rules(std::span<RuleLookup> lookups, const Members& members, SearchIsa isa) {
#if defined(__x86_64__)
  if (isa == SearchIsa::avx512) return RuleMatcher::all_avx512(lookups, members);
  if (isa == SearchIsa::avx2) return RuleMatcher::all_avx2(lookups, members);
#endif
  RuleMatcher::all_scalar(lookups, members);
}

RuleMatch RuleBits::match(const FlowQuery& query, std::span<const GroupId> remote_groups, SearchIsa isa) const {
#if defined(__x86_64__)
  if (isa == SearchIsa::avx512) return RuleMatcher::one_avx512(*this, query, remote_groups);
  if (isa == SearchIsa::avx2) return RuleMatcher::one_avx2(*this, query, remote_groups);
#endif
  return RuleMatcher::one_scalar(*this, query, remote_groups);
}

bool RuleBits::open_to_everyone(std::uint8_t protocol, bool ipv4) const {
  if (protocol != kTcp && protocol != kUdp) return false;
  return tables_.open[protocol == kUdp ? 1 : 0][ipv4 ? 0 : 1];
}

void RuleBits::ArenaDelete::operator()(std::byte* memory) const {
  ::operator delete[](memory, std::align_val_t{kArenaAlignment});
}

}  // namespace trunkline
