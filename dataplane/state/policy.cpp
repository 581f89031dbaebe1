// SPDX-License-Identifier: BSD-3-Clause
#include "dataplane/state/policy.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <new>

#include "dataplane/state/rule_bits.h"
#include "dataplane/state/rule_intersection.h"

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
struct RuleMatcher : RuleIntersection {
  // As IpAddress::is_v4(), without a branch.
  static bool is_ipv4(const IpAddress& address) {
    static_assert(std::endian::native == std::endian::little);
    std::array<std::uint64_t, 2> words;
    std::memcpy(words.data(), address.bytes.data(), sizeof words);
    return (words[0] | (static_cast<std::uint32_t>(words[1]) ^ 0xffff0000U)) == 0;
  }

  static std::uint16_t port_key(std::uint8_t kind, const FlowQuery& query) {
    return kind == kProtocols ? query.protocol : query.port;
  }
  static RuleSet port_rules(const Tables& tables, std::uint32_t interval) {
    return tables.port_sets[interval & tables.port_set_mask];
  }
  template <class Search>
  [[gnu::always_inline]] static RuleSet address_rules(const Tables& tables, const IpAddress& remote, bool ipv4) {
    return ipv4 ? tables.ipv4.find<Search>(remote.v4(), tables.ipv4_shape)
                : tables.ipv6.find<Search>(key128(remote), tables.ipv6_shape);
  }

  static RuleSet group_rules(const Tables& tables, GroupId group) {
    for (std::uint32_t slot = group_hash(group);; ++slot) {
      const RuleBits::GroupSlot& candidate = tables.groups[slot & tables.group_mask];
      if (candidate.group == group || candidate.group == kNoGroup) return candidate.rules;
    }
  }

  // In as many groups as may be: two at a time, the union decomposes.
  template <class Search>
  static RuleMatch match_groups(const Tables& tables, RuleSet ports, std::span<const GroupId> groups) {
    RuleMatch result;
    while (!groups.empty()) {
      const std::span<const GroupId> two = groups.first(std::min<std::size_t>(groups.size(), 2));
      groups = groups.subspan(two.size());
      const std::array sources{group_rules(tables, two.front()), group_rules(tables, two.back())};
      result = join(result, intersect<Search>(tables, ports, sources, 0));
    }
    return result;
  }

  static RuleMatch join(RuleMatch a, RuleMatch b) {
    return answer(SourceAnswer::join(std::bit_cast<std::uint32_t>(a), std::bit_cast<std::uint32_t>(b)));
  }
  static RuleMatch answer(std::uint32_t value) { return std::bit_cast<RuleMatch>(value); }

  template <class Search>
  [[gnu::always_inline]] static RuleMatch match(const RuleBits& rules, const FlowQuery& query,
                                                std::span<const GroupId> remote_groups) {
    const Tables& tables = rules.tables_;
    const bool ipv4 = query.remote.is_v4();
    const std::uint8_t kind = kPortKindOf[ipv4][query.protocol];
    const std::uint32_t interval =
        tables.kinds[kind].ports.find<Search>(tables.port_table, tables.port_last, port_key(kind, query));
    const std::uint32_t list = tables.port_lists[interval];
    RuleMatch result;
    if (ipv4 && (list & SourceList::kBySets) == 0) {
      const std::uint32_t remote = query.remote.v4();
      result = answer(SourceAnswer::join(tables.sources.find<Search>(list, remote),
                                         tables.sources.find<Search>(tables.kinds[kind].all_ports, remote)));
    } else {
      const std::array sources{address_rules<Search>(tables, query.remote, ipv4)};
      result = intersect<Search>(tables, port_rules(tables, interval), sources, tables.everyone[ipv4 ? 0 : 1]);
    }
    if ((list & SourceList::kGrouped) == 0 || remote_groups.empty()) return result;
    return join(result, match_groups<Search>(tables, port_rules(tables, interval), remote_groups));
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

  // What the passes know of a batch.
  struct Batch {
    std::span<RuleLookup> lookups;
    std::array<std::uint32_t, kBatch> intervals;  // of ports
    std::array<std::uint32_t, kBatch> lists;
    Mask ipv4 = 0;
    std::uint32_t marks = 0;  // of all lists together
    bool has_apart = false;

    const Tables& tables(std::size_t i) const { return lookups[i].rules->tables_; }
    std::uint8_t kind(std::size_t i) const { return kPortKindOf[ipv4 >> i & 1][lookups[i].query.protocol]; }
    RuleSet ports(std::size_t i) const { return port_rules(tables(i), intervals[i]); }
    std::uint32_t address(std::size_t i) const { return lookups[i].query.remote.v4(); }
    Mask all() const { return ~Mask{0} >> (kBatch - lookups.size()); }
    template <class Search>
    [[gnu::always_inline]] Mask with(std::uint32_t bits) const {
      return (marks & bits) != 0 ? Search::any_of(lists.data(), bits) & all() : 0;
    }
  };

  // One policy is in the cache after a question or two, and its places are read once. In passes all the same: what
  // waits for a load fills the processor's queues, and then the next packets' loads do not start. False if it was not
  // one policy after all. To look first would cost more: the questions have just been written, field by field, and wide
  // loads of them would have to wait for that.
  template <class Search>
  [[gnu::always_inline]] static bool ask_one_policy(Batch& batch) {
    const RuleBits* const rules = batch.lookups.front().rules;
    if (batch.lookups.back().rules != rules) return false;
    const Tables& tables = rules->tables_;
    const std::uint16_t* const port_table = tables.port_table;
    const std::uint16_t* const port_last = tables.port_last;
    const std::uint32_t* const port_lists = tables.port_lists;
    const SourceLists sources = tables.sources;
    Mask ipv4 = 0;
    std::uint32_t marks = 0;
    std::uintptr_t differing = 0;
    std::array<std::uint16_t, kBatch> keys;
    for (std::size_t i = 0; i < batch.lookups.size(); ++i) {
      const FlowQuery& query = batch.lookups[i].query;
      const bool is_v4 = is_ipv4(query.remote);
      const std::uint8_t kind = kPortKindOf[is_v4][query.protocol];
      const std::uint16_t key = port_key(kind, query);
      keys[i] = key;
      batch.intervals[i] = tables.kinds[kind].ports.intervals + port_table[tables.kinds[kind].ports.place(key)];
      ipv4 |= bit(is_v4, i);
      differing |= reinterpret_cast<std::uintptr_t>(batch.lookups[i].rules) ^ reinterpret_cast<std::uintptr_t>(rules);
    }
    for (std::size_t i = 0; i < batch.lookups.size(); ++i) {
      const std::uint32_t from = batch.intervals[i];
      const std::uint32_t interval = from + Search::first_not_less(port_last + from, keys[i]);
      const std::uint32_t list = port_lists[interval];
      batch.intervals[i] = interval;
      batch.lists[i] = list;
      marks |= list;
    }
    for (std::size_t i = 0; i < batch.lookups.size(); ++i) {
      batch.lookups[i].match = answer(sources.step<Search>(batch.lists[i], batch.address(i)));
    }
    batch.ipv4 = ipv4;
    batch.marks = marks;
    batch.has_apart = tables.has_apart;
    return differing == 0;
  }

  // Those of many policies are not, so each pass asks memory for what the next one reads.
  template <class Search>
  [[gnu::always_inline]] static void ask_many_policies(Batch& batch) {
    const std::span<RuleLookup> lookups = batch.lookups;
    std::array<std::uint32_t, kBatch>& places = batch.intervals;
    std::array<std::uint32_t, kBatch> first;
    std::array<std::uint16_t, kBatch> keys;
    Mask ipv4 = 0;
    std::uint32_t marks = 0;
    bool has_apart = false;
    for (std::size_t i = 0; i < lookups.size(); ++i) {
      const FlowQuery& query = lookups[i].query;
      const Tables& tables = batch.tables(i);
      const bool is_v4 = is_ipv4(query.remote);
      const std::uint8_t kind = kPortKindOf[is_v4][query.protocol];
      const std::uint16_t key = port_key(kind, query);
      keys[i] = key;
      first[i] = tables.kinds[kind].ports.intervals;
      places[i] = tables.kinds[kind].ports.place(key);
      __builtin_prefetch(tables.port_table + places[i]);
      ipv4 |= bit(is_v4, i);
      has_apart |= tables.has_apart;
    }
    batch.ipv4 = ipv4;
    for (std::size_t i = 0; i < lookups.size(); ++i) {
      const Tables& tables = batch.tables(i);
      places[i] = first[i] + tables.port_table[places[i]];
      __builtin_prefetch(tables.port_last + places[i]);
      __builtin_prefetch(tables.port_last + places[i] + kLine<std::uint16_t> - 1);
    }
    for (std::size_t i = 0; i < lookups.size(); ++i) {
      const Tables& tables = batch.tables(i);
      places[i] += Search::first_not_less(tables.port_last + places[i], keys[i]);
      __builtin_prefetch(tables.port_lists + places[i]);
    }
    for (std::size_t i = 0; i < lookups.size(); ++i) {
      const Tables& tables = batch.tables(i);
      const std::uint32_t list = tables.port_lists[places[i]];
      batch.lists[i] = list;
      marks |= list;
      __builtin_prefetch(tables.sources.last + (list & SourceList::kStart));
      __builtin_prefetch(tables.sources.values + (list & SourceList::kStart));
    }
    for (std::size_t i = 0; i < lookups.size(); ++i) {
      lookups[i].match = answer(batch.tables(i).sources.template step<Search>(batch.lists[i], batch.address(i)));
    }
    batch.marks = marks;
    batch.has_apart = has_apart;
  }

  // Where a list has more than one level, the "answer" is the reference of the next. Most have one.
  template <class Search>
  [[gnu::always_inline]] static void descend(const Batch& batch, Mask wanted) {
    while (wanted != 0) {
      Mask rest = 0;
      for_each(
          wanted, [&](std::size_t i) __attribute__((always_inline)) {
            RuleMatch& match = batch.lookups[i].match;
            const auto list = std::bit_cast<std::uint32_t>(match);
            match = answer(batch.tables(i).sources.template step<Search>(list, batch.address(i)));
            rest |= bit((list & SourceList::kLevels) != 0, i);
          });
      wanted = rest;
    }
  }

  template <class Search>
  [[gnu::always_inline]] static void match_batch(std::span<RuleLookup> lookups, const Members& members) {
    if (lookups.empty()) return;
    Batch batch;
    batch.lookups = lookups;
    if (!ask_one_policy<Search>(batch)) ask_many_policies<Search>(batch);
    const Mask grouped = batch.with<Search>(SourceList::kGrouped);
    const Mask by_sets = batch.with<Search>(SourceList::kBySets) | (batch.all() & ~batch.ipv4);
    for_each(grouped, [&](std::size_t i) { members.prefetch(lookups[i].query.remote); });

    // What has no list or is not IPv4 has an answer that means nothing, and is asked again.
    descend<Search>(batch, batch.with<Search>(SourceList::kLevels) & batch.ipv4);
    if (batch.has_apart) match_apart<Search>(batch);
    if (by_sets != 0) match_by_sets<Search>(batch, by_sets);
    if (grouped != 0) match_members<Search>(batch, grouped, members);
  }

  // The rules for all ports.
  template <class Search>
  [[gnu::always_inline]] static void match_apart(const Batch& batch) {
    std::array<std::uint32_t, kBatch> values;
    Mask deeper = 0;
    for (std::size_t i = 0; i < batch.lookups.size(); ++i) {
      const Tables& tables = batch.tables(i);
      const std::uint32_t list = tables.kinds[batch.kind(i)].all_ports;
      values[i] = tables.sources.template step<Search>(list, batch.address(i));
      deeper |= bit((list & SourceList::kLevels) != 0, i);
    }
    while (deeper != 0) {
      Mask rest = 0;
      for_each(
          deeper, [&](std::size_t i) __attribute__((always_inline)) {
            const std::uint32_t list = values[i];
            values[i] = batch.tables(i).sources.template step<Search>(list, batch.address(i));
            rest |= bit((list & SourceList::kLevels) != 0, i);
          });
      deeper = rest;
    }
    for (std::size_t i = 0; i < batch.lookups.size(); ++i) {
      RuleMatch& match = batch.lookups[i].match;
      match = join(match, answer(values[i]));
    }
  }

  template <class Search>
  [[gnu::always_inline]] static void match_by_sets(const Batch& batch, Mask wanted) {
    std::array<RuleSet, kBatch> ports, address;
    std::array<std::size_t, kBatch> scratch;
    Mask open = 0, candidates = 0;
    for_each(wanted, [&](std::size_t i) {
      static constexpr RuleMatch kNone;
      std::memcpy(&batch.lookups[i].match, &kNone, sizeof kNone);  // in one store
      ports[i] = batch.ports(i);
      open |= bit(ports[i] != 0, i);
    });
    const auto find_addresses = [&](Mask these, auto& searches, auto intervals, auto shape, auto key)
        __attribute__((always_inline)) {
      DepthRange depth;
      std::size_t count = 0;
      for_each(these, [&](std::size_t i) {
        const Tables& tables = batch.tables(i);
        searches[count++].set(tables.*intervals, tables.*shape, key(batch.lookups[i].query.remote));
        depth.add(tables.*shape);
      });
      std::array<RuleSet, kBatch> found;
      find_all<Search>(searches.data(), count, depth, scratch.data(), found.data());
      const RuleSet* next = found.data();
      for_each(these, [&](std::size_t i) {
        address[i] = *next++;
        candidates |= bit((ports[i] & address[i] & batch.tables(i).decisive) != 0, i);
      });
    };
    if (const Mask these = open & batch.ipv4; these != 0) {
      std::array<OneSearch<std::uint32_t, RuleSet>, kBatch> searches;
      find_addresses(these, searches, &Tables::ipv4, &Tables::ipv4_shape,
                     [](const IpAddress& remote) { return remote.v4(); });
    }
    if (const Mask these = open & ~batch.ipv4; these != 0) {
      std::array<OneSearch<Key128, RuleSet>, kBatch> searches;
      find_addresses(these, searches, &Tables::ipv6, &Tables::ipv6_shape, key128);
    }
    for_each(candidates, [&](std::size_t i) {
      const Tables& tables = batch.tables(i);
      batch.lookups[i].match =
          intersect<Search>(tables, ports[i], std::array{address[i]}, tables.everyone[~batch.ipv4 >> i & 1]);
    });
  }

  // What comes from anywhere the address has said.
  template <class Search>
  [[gnu::always_inline]] static void match_members(const Batch& batch, Mask grouped, const Members& members) {
    std::array<std::array<RuleSet, 2>, kBatch> group;
    Mask candidates = 0, in_many = 0;
    for_each(grouped, [&](std::size_t i) {
      const Tables& tables = batch.tables(i);
      const Members::Groups groups = members.find(batch.lookups[i].query.remote);
      group[i] = {group_rules(tables, groups.ids[0]), group_rules(tables, groups.ids[1])};
      candidates |= bit((batch.ports(i) & (group[i][0] | group[i][1]) & tables.decisive) != 0, i);
      in_many |= bit(groups.count > 2, i);
    });
    for_each(candidates, [&](std::size_t i) {
      RuleMatch& match = batch.lookups[i].match;
      match = join(match, intersect<Search>(batch.tables(i), batch.ports(i), group[i], 0));
    });
    for_each(in_many, [&](std::size_t i) {
      RuleLookup& lookup = batch.lookups[i];
      lookup.match = match<Search>(*lookup.rules, lookup.query, members.find(lookup.query.remote).view());
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
  [[gnu::target(TRUNKLINE_AVX2)]] static void all_avx2(std::span<RuleLookup> lookups, const Members& members) {
    match_all<Avx2Search>(lookups, members);
  }
  [[gnu::target(TRUNKLINE_AVX2)]] static RuleMatch one_avx2(const RuleBits& rules, const FlowQuery& query,
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
      return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("popcnt") && __builtin_cpu_supports("bmi") &&
             __builtin_cpu_supports("bmi2");
    case SearchIsa::avx512:
      return is_available(SearchIsa::avx2) && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw");
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
