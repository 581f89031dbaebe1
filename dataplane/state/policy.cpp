// SPDX-License-Identifier: BSD-3-Clause
#include "dataplane/state/policy.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <new>

#include "dataplane/state/rule_bits.h"

namespace trunkline {

namespace {

using namespace detail;

// [IPv4][protocol].
constexpr auto kPortKindOf = [] {
  std::array<std::array<std::uint8_t, 256>, 2> kinds{};
  for (auto& family : kinds) {
    family.fill(kProtocols);
    family[kTcp] = kTcpPorts;
    family[kUdp] = kUdpPorts;
  }
  kinds[1][kIcmp] = kIcmp4Types;
  kinds[0][kIcmp6] = kIcmp6Types;
  return kinds;
}();

}  // namespace

// A first packet is like no other, so branches that depend on it are predicted as well as a coin, and a wrong one costs
// more than everything else here. Therefore both ways are computed and one is chosen, packets that go different ways
// are put on different lists, and only what is rare is a branch.
//
// Everything is inlined into a function for each instruction set.
struct RuleMatcher {
  using RuleSet = RuleBits::RuleSet;
  using Tables = RuleBits::Tables;

  // As IpAddress::is_v4(), without a branch.
  static bool is_ipv4(const IpAddress& address) {
    static_assert(std::endian::native == std::endian::little);
    std::array<std::uint64_t, 2> words;
    std::memcpy(words.data(), address.bytes.data(), sizeof words);
    return (words[0] | (static_cast<std::uint32_t>(words[1]) ^ 0xffff0000U)) == 0;
  }

  template <class Search>
  [[gnu::always_inline]] static RuleSet port_rules(const Tables& tables, const FlowQuery& query, bool ipv4) {
    const std::uint8_t kind = kPortKindOf[ipv4][query.protocol];
    const std::uint16_t key = kind == kProtocols ? query.protocol : query.port;
    return tables.ports[kind].find<Search>(key, tables.port_shape);
  }
  template <class Search>
  [[gnu::always_inline]] static RuleSet address_rules4(const Tables& tables, const IpAddress& remote) {
    return tables.ipv4.find<Search>(remote.v4(), tables.ipv4_shape);
  }
  template <class Search>
  [[gnu::always_inline]] static RuleSet address_rules6(const Tables& tables, const IpAddress& remote) {
    return tables.ipv6.find<Search>(key128(remote), tables.ipv6_shape);
  }

  static RuleSet group_rules(const Tables& tables, GroupId group) {
    for (std::uint32_t slot = group_hash(group);; ++slot) {
      const RuleBits::GroupSlot& candidate = tables.groups[slot & tables.group_mask];
      if (candidate.group == group || candidate.group == kNoGroup) return candidate.rules;
    }
  }

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
        const CommonRules common = Search::common(tables.words, ports, sources, everyone);
        return {common.exist, common.with_marked, common.exist ? common.lowest : kNoRule};
      }
    }
    return intersect_large(tables, ports, sources, everyone);
  }

  // In as many groups as may be.
  template <class Search>
  [[gnu::always_inline]] static RuleMatch match(const RuleBits& rules, const FlowQuery& query,
                                                std::span<const GroupId> remote_groups) {
    const Tables& tables = rules.tables_;
    RuleMatch result;
    if (tables.rules == 0) return result;
    const bool ipv4 = query.remote.is_v4();
    const RuleSet ports = port_rules<Search>(tables, query, ipv4);
    if (ports == 0) return result;  // most of a port scan ends here
    std::array<RuleSet, 32> sources{ipv4 ? address_rules4<Search>(tables, query.remote)
                                         : address_rules6<Search>(tables, query.remote)};
    std::size_t count = 1;
    const RuleSet everyone = tables.everyone[ipv4 ? 0 : 1];
    // More groups than fit are answered in several turns: the union decomposes.
    do {
      for (; count < sources.size() && !remote_groups.empty(); remote_groups = remote_groups.subspan(1)) {
        sources[count++] = group_rules(tables, remote_groups.front());
      }
      const RuleMatch some = intersect<Search>(tables, ports, std::span(sources).first(count), everyone);
      result.allowed |= some.allowed;
      result.from_anywhere |= some.from_anywhere;
      result.rule = std::min(result.rule, some.rule);
      count = 0;
    } while (!remote_groups.empty());
    return result;
  }

  // In passes over a batch, so that the memory that one pass reads was asked for in the pass before; and each with
  // little to do, or its values do not fit the registers. Which lookups a pass is about says a mask, one bit each.
  static constexpr std::size_t kBatch = 64;
  using Mask = std::uint64_t;
  static Mask bit(bool is_set, std::size_t i) { return Mask{is_set} << i; }
  template <typename Visit>
  [[gnu::always_inline]] static void for_each(Mask mask, Visit&& visit) {
    for (; mask != 0; mask &= mask - 1) visit(static_cast<std::size_t>(std::countr_zero(mask)));
  }

  template <class Search>
  [[gnu::always_inline]] static void match_batch(std::span<RuleLookup> lookups, const Members& members) {
    std::array<RuleSet, kBatch> ports, address;
    std::array<std::array<RuleSet, 2>, kBatch> group;
    std::array<std::size_t, kBatch> scratch;
    const auto tables_of = [&](std::size_t i) -> const Tables& { return lookups[i].rules->tables_; };

    // Most of a port scan ends here. Only a rule that names a group makes membership matter.
    std::array<OneSearch<std::uint16_t, RuleSet>, kBatch> port_searches;
    DepthRange port_depth;
    Mask ipv4 = 0;
    for (std::size_t i = 0; i < lookups.size(); ++i) {
      RuleLookup& lookup = lookups[i];
      const Tables& tables = lookup.rules->tables_;
      const bool is_v4 = is_ipv4(lookup.query.remote);
      const std::uint8_t kind = kPortKindOf[is_v4][lookup.query.protocol];
      const std::uint16_t key = kind == kProtocols ? lookup.query.protocol : lookup.query.port;
      port_searches[i].set(tables.ports[kind], tables.port_shape, key);
      port_depth.add(tables.port_shape);
      static constexpr RuleMatch kNone;
      std::memcpy(&lookup.match, &kNone, sizeof kNone);  // in one store
      ipv4 |= bit(is_v4, i);
    }
    find_all<Search>(port_searches.data(), lookups.size(), port_depth, scratch.data(), ports.data());
    Mask open = 0, grouped = 0;
    for (std::size_t i = 0; i < lookups.size(); ++i) {
      open |= bit(ports[i] != 0, i);
      grouped |= bit((ports[i] & tables_of(i).grouped) != 0, i);
    }
    for_each(grouped, [&](std::size_t i) { members.prefetch(lookups[i].query.remote); });

    Mask candidates = 0;
    const auto find_addresses = [&](Mask wanted, auto& searches, auto intervals, auto shape, auto key)
        __attribute__((always_inline)) {
      DepthRange depth;
      std::size_t count = 0;
      for_each(wanted, [&](std::size_t i) {
        searches[count++].set(tables_of(i).*intervals, tables_of(i).*shape, key(lookups[i].query.remote));
        depth.add(tables_of(i).*shape);
      });
      std::array<RuleSet, kBatch> found;
      find_all<Search>(searches.data(), count, depth, scratch.data(), found.data());
      const RuleSet* next = found.data();
      for_each(wanted, [&](std::size_t i) {
        address[i] = *next++;
        candidates |= bit((ports[i] & address[i] & tables_of(i).decisive) != 0, i);
      });
    };
    std::array<OneSearch<std::uint32_t, RuleSet>, kBatch> ipv4_searches;
    find_addresses(open & ipv4, ipv4_searches, &Tables::ipv4, &Tables::ipv4_shape,
                   [](const IpAddress& remote) { return remote.v4(); });
    if ((open & ~ipv4) != 0) {
      std::array<OneSearch<Key128, RuleSet>, kBatch> ipv6_searches;
      find_addresses(open & ~ipv4, ipv6_searches, &Tables::ipv6, &Tables::ipv6_shape, key128);
    }

    Mask in_many_groups = 0;
    for_each(grouped, [&](std::size_t i) {
      const Members::Groups groups = members.find(lookups[i].query.remote);
      group[i] = {group_rules(tables_of(i), groups.ids[0]), group_rules(tables_of(i), groups.ids[1])};
      candidates |= bit((ports[i] & (group[i][0] | group[i][1]) & tables_of(i).decisive) != 0, i);
      in_many_groups |= bit(groups.count > 2, i);
    });

    const auto everyone = [&](std::size_t i) { return tables_of(i).everyone[~ipv4 >> i & 1]; };
    for_each(candidates & ~grouped, [&](std::size_t i) {
      lookups[i].match = intersect<Search>(tables_of(i), ports[i], std::array{address[i]}, everyone(i));
    });
    for_each(candidates & grouped, [&](std::size_t i) {
      lookups[i].match =
          intersect<Search>(tables_of(i), ports[i], std::array{address[i], group[i][0], group[i][1]}, everyone(i));
    });
    for_each(in_many_groups, [&](std::size_t i) {
      lookups[i].match =
          match<Search>(*lookups[i].rules, lookups[i].query, members.find(lookups[i].query.remote).view());
    });
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
    match_all<ScalarSearch>(lookups, members);
  }
  static RuleMatch one_scalar(const RuleBits& rules, const FlowQuery& query, std::span<const GroupId> groups) {
    return match<ScalarSearch>(rules, query, groups);
  }
#if defined(__x86_64__)
  [[gnu::target("avx2,popcnt")]] static void all_avx2(std::span<RuleLookup> lookups, const Members& members) {
    match_all<Avx2Search>(lookups, members);
  }
  [[gnu::target("avx2,popcnt")]] static RuleMatch one_avx2(const RuleBits& rules, const FlowQuery& query,
                                                           std::span<const GroupId> groups) {
    return match<Avx2Search>(rules, query, groups);
  }
  [[gnu::target(TRUNKLINE_AVX512)]] static void all_avx512(std::span<RuleLookup> lookups, const Members& members) {
    match_all<Avx512Search>(lookups, members);
  }
  [[gnu::target(TRUNKLINE_AVX512)]] static RuleMatch one_avx512(const RuleBits& rules, const FlowQuery& query,
                                                                std::span<const GroupId> groups) {
    return match<Avx512Search>(rules, query, groups);
  }
#endif
};

bool is_available(SearchIsa isa) {
#if defined(__x86_64__)
  __builtin_cpu_init();
  switch (isa) {
    case SearchIsa::scalar:
      return true;
    case SearchIsa::avx2:
      return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("popcnt");
    case SearchIsa::avx512:
      return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw");
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
