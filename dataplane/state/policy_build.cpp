// SPDX-License-Identifier: BSD-3-Clause
//
// Sweeps over each dimension: every source (or port range) of a rule switches the rule's bit on at its first key and
// off behind its last one; between two such keys the set of rules is constant, and that is one elementary interval. A
// rule that covers a whole dimension is in the set from the start and is no event.
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
#include "dataplane/state/rule_sets.h"

namespace trunkline {
namespace {

using detail::Key128;

// At `key` the rule's bit goes on or, if `off`, out.
template <typename Key>
struct Event {
  Key key;
  std::uint16_t rule;
  bool off;

  static constexpr std::size_t kDigits = sizeof(Key);
  std::size_t digit(std::size_t i) const {
    if constexpr (std::is_same_v<Key, Key128>) {
      return (i < 8 ? key.low >> 8 * i : key.high >> 8 * (i - 8)) & 0xff;
    } else {
      return key >> 8 * i & 0xff;
    }
  }
};

// By key, byte by byte from the lowest, over those bytes that differ at all. The order within a key does not matter.
template <typename Element>
void sort_by_key(std::vector<Element>& elements) {
  if (elements.size() < 64) {
    std::ranges::sort(elements, {}, &Element::key);
    return;
  }
  std::array<std::array<std::uint32_t, 256>, Element::kDigits> counts{};
  for (const Element& element : elements) {
    for (std::size_t i = 0; i < Element::kDigits; ++i) ++counts[i][element.digit(i)];
  }
  std::vector<Element> other(elements.size());
  for (std::size_t i = 0; i < Element::kDigits; ++i) {
    if (counts[i][elements.front().digit(i)] == elements.size()) continue;
    std::uint32_t before = 0;
    for (std::uint32_t& count : counts[i]) before += std::exchange(count, before);
    for (const Element& element : elements) other[counts[i][element.digit(i)]++] = element;
    elements.swap(other);
  }
}

template <typename Key>
Key before(Key key) {
  return static_cast<Key>(key - 1);
}
template <>
Key128 before(Key128 key) {
  return {key.high - (key.low == 0 ? 1 : 0), key.low - 1};
}
template <typename Key>
Key after(Key key) {
  return static_cast<Key>(key + 1);
}
template <>
Key128 after(Key128 key) {
  return {key.high + (key.low == ~std::uint64_t{0} ? 1 : 0), key.low + 1};
}

}  // namespace

class RuleBitsBuilder {
 public:
  explicit RuleBitsBuilder(std::span<const RuleSpec> rules)
      : rules_(rules.first(std::min(rules.size(), RuleBits::kMaxRules))),
        sets_(rules_.size()),
        everyone_(rules_.size(), 0) {}

  RuleBits build() {
    for (std::size_t rule = 0; rule < rules_.size(); ++rule) read(rule);

    std::array<Map<std::uint16_t>, detail::kPortKinds> ports;
    ports[detail::kTcpPorts] = sweep(tcp_, any_protocol_, covers_all_tcp_);
    ports[detail::kUdpPorts] = sweep(udp_, any_protocol_, covers_all_udp_);
    ports[detail::kIcmp4Types] = sweep(icmp4_, any_protocol_, covers_all_icmp4_);
    ports[detail::kIcmp6Types] = sweep(icmp6_, any_protocol_, covers_all_icmp6_);
    ports[detail::kProtocols] = sweep(other_, any_protocol_, {});
    const Map<std::uint32_t> ipv4 = sweep(ipv4_, everyone4_, {});
    const Map<Key128> ipv6 = sweep(ipv6_, everyone6_, {});
    const std::vector<RuleBits::GroupSlot> groups = group_slots();

    tables_.rules = static_cast<std::uint32_t>(rules_.size());
    tables_.block_shift = sets_.block_shift();
    tables_.everyone[0] = sets_.set_of(everyone4_);
    tables_.everyone[1] = sets_.set_of(everyone6_);
    tables_.group_mask = static_cast<std::uint32_t>(groups.size() - 1);

    std::size_t most_ports = 0;
    for (const auto& map : ports) most_ports = std::max(most_ports, map.last.size());
    tables_.port_shape = shape_for<std::uint16_t>(most_ports);
    tables_.ipv4_shape = shape_for<std::uint32_t>(ipv4.last.size());
    tables_.ipv6_shape = shape_for<Key128>(ipv6.last.size());

    const std::vector<std::uint64_t> words = sets_.take_words();
    const auto lay_out = [&] {
      used_ = 0;
      // Those with one interval, usually three of the five, have the same nodes.
      const RuleBits::Intervals<std::uint16_t>* single = nullptr;
      for (std::size_t kind = 0; kind < ports.size(); ++kind) {
        auto& target = tables_.ports[kind];
        const bool is_single = ports[kind].last.size() == 1;
        target.nodes =
            is_single && single != nullptr ? single->nodes : place_nodes(ports[kind].last, tables_.port_shape);
        if (is_single) single = &target;
      }
      tables_.ipv4.nodes = place_nodes(ipv4.last, tables_.ipv4_shape);
      tables_.ipv6.nodes = place_nodes(ipv6.last, tables_.ipv6_shape);
      tables_.groups = place(groups);
      for (std::size_t kind = 0; kind < ports.size(); ++kind) tables_.ports[kind].values = place(ports[kind].sets);
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
    for (const GroupId group : rules_[rule].groups) {
      if (group != kNoGroup) references_.push_back({group.value, static_cast<std::uint16_t>(rule)});
    }
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
      const std::uint32_t hosts = ~std::uint32_t{0} >> (std::min<unsigned>(range.length, 32) - 1) >> 1;
      const std::uint32_t first = range.address.v4() & ~hosts;
      add(ipv4_, rule, first, first | hosts);
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
      if (at != Key{}) {
        map.last.push_back(before(at));
        map.sets.push_back(set);
      }
      set = next;
    }
    map.last.push_back(detail::kHighestKey<Key>);
    map.sets.push_back(set);
    return map;
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
    for (const GroupReference& reference : references_) sets_.switch_on(reference.rule);
    tables_.decisive = sets_.decisive_bits();
    tables_.grouped = sets_.intern() & tables_.decisive;
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

  std::vector<std::uint8_t> everyone_;  // per rule

  RuleBits::Tables tables_;
  std::byte* arena_ = nullptr;
  std::size_t used_ = 0;
};

RuleBits RuleBits::compile(std::span<const RuleSpec> rules) {
  if (rules.empty()) return {};
  return RuleBitsBuilder(rules).build();
}

}  // namespace trunkline
