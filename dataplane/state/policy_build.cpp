// SPDX-License-Identifier: BSD-3-Clause
//
// Sweeps over each dimension: every source (or port range) of a rule switches the rule's bit on at its first key and
// off behind its last one; between two such keys the set of rules is constant, and that is one elementary interval. A
// rule that covers a whole dimension is in the set from the start and is no event.
//
// While the ports are swept, each set that comes up gets its list of IPv4 sources. Only if these become too long the
// IPv4 addresses are swept as well.
#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <memory>
#include <new>
#include <type_traits>
#include <utility>
#include <vector>

#include "dataplane/state/policy.h"
#include "dataplane/state/rule_bits.h"
#include "dataplane/state/rule_events.h"
#include "dataplane/state/rule_sets.h"
#include "dataplane/state/source_lists_builder.h"

namespace trunkline {
namespace {

using detail::Key128;
using detail::SourceAnswer;
using detail::SourceList;

// What all source lists together may have: so many intervals, and so many more for each range of a rule, which makes
// two or three of one list.
constexpr std::size_t kFewIntervals = 1024, kIntervalsPerRange = 8;
// Up to so many ranges, times intervals of ports, the sources of rules for all ports are repeated in the list of each.
constexpr std::size_t kRepeatedRanges = 512;

}  // namespace

class RuleBitsBuilder {
 public:
  explicit RuleBitsBuilder(std::span<const RuleSpec> rules)
      : rules_(rules.first(std::min(rules.size(), RuleBits::kMaxRules))),
        sets_(rules_.size()),
        everyone_(rules_.size(), 0),
        is_apart_(rules_.size(), false) {}

  RuleBits build() {
    for (std::size_t rule = 0; rule < rules_.size(); ++rule) read(rule);

    source_lists_.set_most(kFewIntervals + kIntervalsPerRange * sources_.size());
    sweep_ports(detail::kTcpPorts, tcp_, covers_all_tcp_);
    sweep_ports(detail::kUdpPorts, udp_, covers_all_udp_);
    sweep_ports(detail::kIcmp4Types, icmp4_, covers_all_icmp4_);
    sweep_ports(detail::kIcmp6Types, icmp6_, covers_all_icmp6_);
    sweep_ports(detail::kProtocols, other_, {});
    const bool by_sets = source_lists_.is_too_long();
    if (by_sets) {
      source_lists_ = SourceListsBuilder();
      for (std::uint32_t& list : port_lists_) list = (list & SourceList::kGrouped) | SourceList::kBySets;
      for (auto& kind : tables_.kinds) kind.all_ports = SourceList::kNobody;
      tables_.has_apart = false;
      for (const SourceRange& source : sources_) add(ipv4_, source.rule(), source.first(), source.last());
    }
    const Map<std::uint32_t> ipv4 = by_sets ? sweep(ipv4_, everyone4_, {}) : Map<std::uint32_t>{{~0U}, {0}, {}};
    const Map<Key128> ipv6 = sweep(ipv6_, everyone6_, {});
    const std::vector<RuleBits::GroupSlot> groups = group_slots();

    tables_.rules = static_cast<std::uint32_t>(rules_.size());
    tables_.block_shift = sets_.block_shift();
    tables_.decisive = sets_.decisive_bits();
    tables_.everyone[0] = sets_.set_of(everyone4_);
    tables_.everyone[1] = sets_.set_of(everyone6_);
    tables_.group_mask = static_cast<std::uint32_t>(groups.size() - 1);
    tables_.ipv4_shape = shape_for<std::uint32_t>(ipv4.last.size());
    tables_.ipv6_shape = shape_for<Key128>(ipv6.last.size());

    std::vector<std::uint64_t> words = sets_.take_words();
    const bool needs_sets = by_sets || !references_.empty() || ipv6.last.size() > 1 || ipv6.sets.front() != 0;
    if (needs_sets) {
      tables_.port_set_mask = ~std::uint32_t{0};
    } else {
      port_sets_.assign(1, 0);
      words.clear();
    }
    port_last_.resize(port_last_.size() + detail::kLine<std::uint16_t>, 0);
    const std::vector<std::uint32_t> source_last = source_lists_.take_last(),
                                     source_values = source_lists_.take_values();
    const auto lay_out = [&] {
      used_ = 0;
      tables_.ipv4.nodes = place_nodes(ipv4.last, tables_.ipv4_shape);
      tables_.ipv6.nodes = place_nodes(ipv6.last, tables_.ipv6_shape);
      tables_.port_table = place(port_table_);
      tables_.port_last = place(port_last_);
      tables_.port_lists = place(port_lists_);
      tables_.sources = {place(source_last), place(source_values)};
      tables_.groups = place(groups);
      tables_.port_sets = place(port_sets_);
      tables_.ipv4.values = place(ipv4.sets);
      tables_.ipv6.values = place(ipv6.sets);
      tables_.words = place(words);
    };
    lay_out();  // without an arena yet: only counts
    tables_.arena_bytes = used_;
    RuleBits result;
    arena_ = static_cast<std::byte*>(::operator new[](used_, std::align_val_t{kArenaAlignment}));
    result.arena_.reset(arena_);
    lay_out();
    result.tables_ = tables_;
    return result;
  }

 private:
  using RuleSet = RuleBits::RuleSet;
  using Rules = RuleSets::Rules;
  template <typename Key>
  using Events = std::vector<Event<Key>>;
  template <typename Key>
  struct Map {
    std::vector<Key> last;  // of each interval
    std::vector<RuleSet> sets;
    std::vector<std::uint32_t> lists;  // of ports alone

    void add(Key to, RuleSet set, std::uint32_t list) {
      last.push_back(to);
      sets.push_back(set);
      if constexpr (std::is_same_v<Key, std::uint16_t>) lists.push_back(list);
    }
  };
  struct KnownList {
    RuleSet set = 0;
    std::uint32_t kind = 0;
    std::uint32_t list = 0;
  };
  struct GroupReference {
    std::uint32_t key;
    std::uint16_t rule;
    static constexpr std::size_t kDigits = 4;
    std::size_t digit(std::size_t i) const { return key >> 8 * i & 0xff; }
  };

  // -- Reading the rules.

  template <typename Key>
  static void add(Events<Key>& events, std::size_t rule, Key first, Key last) {
    events.push_back({first, static_cast<std::uint16_t>(rule), false});
    if (last != detail::kHighestKey<Key>) events.push_back({after(last), static_cast<std::uint16_t>(rule), true});
  }

  void read(std::size_t rule) {
    read_ports(rule);
    for (const IpPrefix& range : rules_[rule].ranges) read_range(rule, range);
    sources_begin_.push_back(static_cast<std::uint32_t>(sources_.size()));
    for (const GroupId group : rules_[rule].groups) {
      if (group != kNoGroup) references_.push_back({group.value, static_cast<std::uint16_t>(rule)});
    }
    names_group_.push_back(!rules_[rule].groups.empty());
    if (everyone_[rule] & kFromEveryone4) everyone4_.push_back(static_cast<std::uint16_t>(rule));
    if (everyone_[rule] & kFromEveryone6) everyone6_.push_back(static_cast<std::uint16_t>(rule));
    read_openness(rule);
  }

  void read_ports(std::size_t rule) {
    const RuleSpec& spec = rules_[rule];
    const auto id = static_cast<std::uint16_t>(rule);
    switch (spec.protocol) {
      case RuleSpec::kAnyProtocol:
        any_protocol_.push_back(id);
        break;
      case kTcp:
      case kUdp: {
        const int from = std::max(spec.from_port, 0), to = std::min(spec.to_port, 0xffff);
        if (from > to) break;
        if (from == 0 && to == 0xffff) {
          (spec.protocol == kTcp ? covers_all_tcp_ : covers_all_udp_).push_back(id);
        } else {
          add(spec.protocol == kTcp ? tcp_ : udp_, rule, static_cast<std::uint16_t>(from),
              static_cast<std::uint16_t>(to));
        }
        break;
      }
      case kIcmp:
        read_icmp(rule, icmp4_, covers_all_icmp4_);
        break;
      case kIcmp6:
        read_icmp(rule, icmp6_, covers_all_icmp6_);
        break;
      default:
        if (spec.protocol < 0 || spec.protocol > 255) break;
        add(other_, rule, static_cast<std::uint16_t>(spec.protocol), static_cast<std::uint16_t>(spec.protocol));
    }
  }

  // The key is type << 8 | code.
  void read_icmp(std::size_t rule, Events<std::uint16_t>& events, Rules& covers_all) {
    const int type = rules_[rule].from_port, code = rules_[rule].to_port;
    if (type < -1 || type > 255 || code < -1 || code > 255) return;
    if (type == -1 && code == -1) return covers_all.push_back(static_cast<std::uint16_t>(rule));
    for (int each = type == -1 ? 0 : type; each <= (type == -1 ? 255 : type); ++each) {
      add(events, rule, static_cast<std::uint16_t>(each << 8 | (code == -1 ? 0 : code)),
          static_cast<std::uint16_t>(each << 8 | (code == -1 ? 255 : code)));
    }
  }

  // The last address is computed from the length, not by IpPrefix::last(): the last address of ::/80 reads as an IPv4
  // one.
  void read_range(std::size_t rule, const IpPrefix& range) {
    if (range.is_v4()) {
      if (range.is_everything()) {
        everyone_[rule] |= kFromEveryone4;
        return;
      }
      const unsigned length = std::min<unsigned>(range.length, 32);
      const std::uint32_t hosts = ~std::uint32_t{0} >> (length - 1) >> 1;
      sources_.emplace_back(range.address.v4() & ~hosts, length, static_cast<std::uint16_t>(rule));
    } else {
      if (range.is_everything()) {
        everyone_[rule] |= kFromEveryone6;
        return;
      }
      const unsigned length = std::min<unsigned>(range.length, 128);
      constexpr std::uint64_t kAll = ~std::uint64_t{0};
      const Key128 hosts{length >= 64 ? 0 : kAll >> length, length >= 128  ? 0
                                                            : length <= 64 ? kAll
                                                                           : kAll >> (length - 64)};
      const Key128 address = key128(range.address);
      const Key128 first{address.high & ~hosts.high, address.low & ~hosts.low};
      add(ipv6_, rule, first, Key128{first.high | hosts.high, first.low | hosts.low});
    }
  }

  void read_openness(std::size_t rule) {
    const RuleSpec& spec = rules_[rule];
    const bool any = spec.protocol == RuleSpec::kAnyProtocol, all_ports = spec.from_port <= 0 && spec.to_port >= 0xffff;
    for (const std::uint8_t protocol : {kTcp, kUdp}) {
      if (!any && !(spec.protocol == protocol && all_ports)) continue;
      bool(&open)[2] = tables_.open[protocol == kUdp ? 1 : 0];
      if (everyone_[rule] & kFromEveryone4) open[0] = true;
      if (everyone_[rule] & kFromEveryone6) open[1] = true;
    }
  }

  // -- Sweeping one dimension.

  template <typename Key>
  Map<Key> sweep(Events<Key>& events, const Rules& always, const Rules& also_always) {
    sort_by_key(events);
    sets_.clear();
    for (const std::uint16_t rule : always) sets_.switch_on(rule);
    for (const std::uint16_t rule : also_always) sets_.switch_on(rule);
    Map<Key> map;
    map.last.reserve(events.size() + 1);
    map.sets.reserve(events.size() + 1);
    RuleSet set = sets_.intern();
    std::uint32_t list = list_of_current<Key>(set);
    for (auto event = events.begin(); event != events.end();) {
      const Key at = event->key;  // all events at one key are one step
      for (; event != events.end() && event->key == at; ++event) {
        if (event->off) {
          sets_.switch_off(event->rule);
        } else {
          sets_.switch_on(event->rule);
        }
      }
      const RuleSet next = sets_.intern();
      if (next == set) continue;
      if (at != Key{}) map.add(before(at), set, list);
      set = next;
      list = list_of_current<Key>(set);
    }
    map.add(detail::kHighestKey<Key>, set, list);
    return map;
  }

  // -- Lists of IPv4 sources, of the sets of rules that a sweep over ports comes to.

  void sweep_ports(detail::PortKind kind, Events<std::uint16_t>& events, const Rules& covers_all) {
    RuleBits::Tables::Kind& target = tables_.kinds[kind];
    kind_ = kind;
    for_all_ports_.assign(any_protocol_.begin(), any_protocol_.end());
    for_all_ports_.insert(for_all_ports_.end(), covers_all.begin(), covers_all.end());
    std::size_t ranges = 0;
    for (const std::uint16_t rule : for_all_ports_) ranges += sources_of(rule).size();
    const bool are_apart = ranges * (events.size() + 1) > kRepeatedRanges;
    if (are_apart) {
      target.all_ports = make_list(for_all_ports_);
      tables_.has_apart = true;
      for (const std::uint16_t rule : for_all_ports_) is_apart_[rule] = true;
    }
    place_ports(target.ports, sweep(events, any_protocol_, covers_all));
    for (const std::uint16_t rule : for_all_ports_) is_apart_[rule] = false;
  }

  template <typename Key>
  std::uint32_t list_of_current(RuleSet set) {
    if (!std::is_same_v<Key, std::uint16_t> || set == 0) return SourceList::kNobody;
    if (2 * known_count_ >= known_lists_.size()) grow_known_lists();
    KnownList& known = known_list(set, kind_);
    if (known.set == 0) {
      known = {set, kind_, make_list_of_current()};
      ++known_count_;
    }
    return known.list;
  }
  std::uint32_t make_list_of_current() {
    bool is_grouped = false;
    current_rules_.clear();
    sets_.for_each_rule([&](std::uint16_t rule) {
      is_grouped = is_grouped || names_group_[rule];
      if (!is_apart_[rule]) current_rules_.push_back(rule);
    });
    // Nobody asks ICMPv6 over IPv4.
    const std::uint32_t list = kind_ == detail::kIcmp6Types ? SourceList::kNobody : make_list(current_rules_);
    return list | (is_grouped ? SourceList::kGrouped : 0);
  }
  std::uint32_t make_list(const Rules& rules) {
    if (source_lists_.is_too_long()) return SourceList::kNobody;
    std::uint32_t otherwise = SourceAnswer::kNone;
    list_sources_.clear();
    for (const std::uint16_t rule : rules) {
      if (everyone_[rule] & kFromEveryone4)
        otherwise = SourceAnswer::join(otherwise, SourceAnswer::of_rule(rule, true));
      const std::span<const SourceRange> sources = sources_of(rule);
      list_sources_.insert(list_sources_.end(), sources.begin(), sources.end());
    }
    sort_by_key(list_sources_);
    return source_lists_.add(list_sources_, otherwise);
  }
  std::span<const SourceRange> sources_of(std::uint16_t rule) const {
    return std::span(sources_).subspan(sources_begin_[rule], sources_begin_[rule + 1U] - sources_begin_[rule]);
  }

  // By set and kind, since what is apart differs; an unused place has no set.
  KnownList& known_list(RuleSet set, std::uint32_t kind) {
    std::size_t slot = (set + kind) * 0x9e3779b97f4a7c15ULL >> 32;
    for (;; ++slot) {
      KnownList& known = known_lists_[slot & (known_lists_.size() - 1)];
      if (known.set == 0 || (known.set == set && known.kind == kind)) return known;
    }
  }
  void grow_known_lists() {
    std::vector<KnownList> old(std::max<std::size_t>(64, 2 * known_lists_.size()));
    old.swap(known_lists_);
    for (const KnownList& known : old) {
      if (known.set == 0) continue;
      known_list(known.set, known.kind) = known;
    }
  }

  // Behind the intervals of the kinds before.
  void place_ports(detail::PortIndex& index, const Map<std::uint16_t>& map) {
    index.intervals = static_cast<std::uint32_t>(port_last_.size());
    index.begins = static_cast<std::uint32_t>(port_table_.size());
    for (std::size_t i = 0; i + detail::kLine<std::uint16_t> < map.last.size(); ++i) {
      // Between the two a line must end.
      const std::uint32_t differing = map.last[i] ^ map.last[i + detail::kLine<std::uint16_t>];
      index.shift = std::min(index.shift, static_cast<std::uint32_t>(std::bit_width(differing)) - 1);
    }
    std::size_t ended = 0;
    for (std::uint32_t first = 0; first <= 0xffff; first += std::uint32_t{1} << index.shift) {
      while (map.last[ended] < first) ++ended;
      port_table_.push_back(static_cast<std::uint16_t>(ended));
    }
    port_last_.insert(port_last_.end(), map.last.begin(), map.last.end());
    port_lists_.insert(port_lists_.end(), map.lists.begin(), map.lists.end());
    port_sets_.insert(port_sets_.end(), map.sets.begin(), map.sets.end());
  }

  std::vector<RuleBits::GroupSlot> group_slots() {
    sort_by_key(references_);
    std::size_t distinct = 0;
    for (std::size_t i = 0; i < references_.size(); ++i)
      distinct += i == 0 || references_[i].key != references_[i - 1].key;
    // At most half full, and always with an unused slot where a search ends.
    std::vector<RuleBits::GroupSlot> slots(std::bit_ceil(2 * distinct + 1));
    sets_.clear();
    for (auto first = references_.begin(); first != references_.end();) {
      const GroupId group{first->key};
      auto last = first;
      for (; last != references_.end() && last->key == group.value; ++last) sets_.switch_on(last->rule);
      std::size_t slot = group_hash(group);
      while (slots[slot & (slots.size() - 1)].group != kNoGroup) ++slot;
      slots[slot & (slots.size() - 1)] = {group, sets_.intern()};
      for (; first != last; ++first) sets_.switch_off(first->rule);
    }
    return slots;
  }

  // -- Laying everything out in one allocation. Without an arena yet, only the space is counted.

  std::byte* take(std::size_t bytes, std::size_t alignment) {
    used_ = (used_ + alignment - 1) / alignment * alignment;
    std::byte* const place = arena_ == nullptr ? nullptr : arena_ + used_;
    used_ += bytes;
    return place;
  }
  template <typename Value>
  const Value* place(const std::vector<Value>& values) {
    std::byte* const to = take(values.size() * sizeof(Value), alignof(Value));
    if (to == nullptr) return nullptr;
    return std::uninitialized_copy(values.begin(), values.end(), reinterpret_cast<Value*>(to)) - values.size();
  }
  template <typename Key>
  static detail::SearchShape shape_for(std::size_t intervals) {
    detail::SearchShape shape{};
    for (std::size_t width = 1; width < intervals; width *= detail::SearchNode<Key>::kFanout, ++shape.depth) {
      shape.nodes += static_cast<std::uint32_t>(width);
    }
    return shape;
  }
  // The levels above the last are as wide as they can be, which costs at most as much again as the last one.
  template <typename Key>
  const detail::SearchNode<Key>* place_nodes(const std::vector<Key>& last, detail::SearchShape shape) {
    using Node = detail::SearchNode<Key>;
    if (shape.depth == 0) return nullptr;
    std::size_t last_width = 1;  // of the last level at most, and how many of its nodes are used
    for (std::uint32_t level = 1; level < shape.depth; ++level) last_width *= Node::kFanout;
    const std::size_t last_used = (last.size() + Node::kFanout - 1) / Node::kFanout;
    std::byte* const to = take((shape.nodes - last_width + last_used) * sizeof(Node), alignof(Node));
    if (to == nullptr) return nullptr;
    Node* const all = reinterpret_cast<Node*>(to);
    Node* node = all;
    for (std::size_t width = 1, under_child = last_width; under_child != 0;
         width *= Node::kFanout, under_child /= Node::kFanout) {
      const std::size_t used = under_child == 1 ? last_used : width;
      for (std::size_t i = 0; i < used; ++i, ++node) {
        ::new (node) Node;
        for (std::size_t child = 0; child < Node::kFanout; ++child) {
          const std::size_t behind = (i * Node::kFanout + child + 1) * under_child;  // intervals up to the child's last
          node->set(child, behind <= last.size() ? last[behind - 1] : detail::kHighestKey<Key>);
        }
      }
    }
    return all;
  }

  static constexpr std::uint8_t kFromEveryone4 = 1, kFromEveryone6 = 2;

  std::span<const RuleSpec> rules_;
  RuleSets sets_;

  // What the rules say.
  Rules any_protocol_, covers_all_tcp_, covers_all_udp_, covers_all_icmp4_, covers_all_icmp6_;
  Rules everyone4_, everyone6_;
  Events<std::uint16_t> tcp_, udp_, icmp4_, icmp6_, other_;
  Events<std::uint32_t> ipv4_;
  Events<Key128> ipv6_;
  std::vector<GroupReference> references_;

  std::vector<SourceRange> sources_;  // IPv4, rule by rule
  // Per rule; the first has one more.
  std::vector<std::uint32_t> sources_begin_{0};
  std::vector<std::uint8_t> everyone_;
  std::vector<bool> names_group_;
  std::vector<bool> is_apart_;

  // The kind of ports that is swept, and the rules for all of them, which may have a list by themselves.
  std::uint32_t kind_ = 0;
  Rules for_all_ports_;
  SourceListsBuilder source_lists_;
  std::vector<KnownList> known_lists_;
  std::size_t known_count_ = 0;
  Rules current_rules_;
  std::vector<SourceRange> list_sources_;

  // Of all kinds, one after the other.
  std::vector<std::uint16_t> port_table_, port_last_;
  std::vector<std::uint32_t> port_lists_;
  std::vector<RuleSet> port_sets_;

  RuleBits::Tables tables_;
  std::byte* arena_ = nullptr;
  std::size_t used_ = 0;
};

RuleBits RuleBits::compile(std::span<const RuleSpec> rules) {
  if (rules.empty()) return {};
  return RuleBitsBuilder(rules).build();
}

}  // namespace trunkline
