// SPDX-License-Identifier: BSD-3-Clause
#include "dataplane/state/policy.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <new>
#include <type_traits>
#include <unordered_map>

namespace trunkline {
namespace {

constexpr std::uint8_t kIcmp = 1;
constexpr std::uint8_t kTcp = 6;
constexpr std::uint8_t kUdp = 17;
constexpr std::uint8_t kIcmp6 = 58;

constexpr std::size_t kWordBits = 64;
constexpr std::size_t kArenaAlignment = 64;
constexpr GroupId kNoGroup{};

std::uint64_t word_at(const IpAddress& address, std::size_t offset) {
  std::uint64_t word;
  std::memcpy(&word, &address.bytes[offset], sizeof word);
  if constexpr (std::endian::native == std::endian::little) word = std::byteswap(word);
  return word;
}

std::uint32_t group_hash(GroupId group) { return (group.value * 0x9e3779b1U) >> 15; }

}  // namespace

// ---- Looking up --------------------------------------------------------------------------------------------------

template <typename Key>
std::uint32_t RuleBits::IntervalMap<Key>::find(const Key& key) const {
  // starts[0] is the lowest key there is, so *base <= key holds throughout. Written so that the compiler can use
  // conditional moves: whether a half holds the key is a coin toss, which no branch predictor wins.
  const Key* base = starts;
  for (std::uint32_t left = count; left > 1;) {
    const std::uint32_t half = left / 2;
    base += base[half] <= key ? half : 0;
    left -= half;
  }
  return vectors[base - starts];
}

std::uint32_t RuleBits::port_vector(const FlowQuery& query, bool ipv4) const {
  switch (query.protocol) {
    case kTcp:
      return tables_.tcp.find(query.port);
    case kUdp:
      return tables_.udp.find(query.port);
    case kIcmp:
      if (ipv4) return tables_.icmp4.find(query.port);
      break;
    case kIcmp6:
      if (!ipv4) return tables_.icmp6.find(query.port);
      break;
    default:
      break;
  }
  return tables_.other.find(query.protocol);
}

std::uint32_t RuleBits::address_vector(const IpAddress& remote, bool ipv4) const {
  return ipv4 ? tables_.ipv4.find(remote.v4()) : tables_.ipv6.find({word_at(remote, 0), word_at(remote, 8)});
}

std::uint32_t RuleBits::group_vector(GroupId group) const {
  for (std::uint32_t slot = group_hash(group);; ++slot) {
    const GroupSlot& candidate = tables_.groups[slot & tables_.group_mask];
    if (candidate.group == group || candidate.group == kNoGroup) return candidate.vector;
  }
}

RuleMatch RuleBits::match(const FlowQuery& query, std::span<const GroupId> remote_groups) const {
  RuleMatch result;
  if (tables_.rules == 0) return result;
  const bool ipv4 = query.remote.is_v4();
  const std::uint32_t port_id = port_vector(query, ipv4);
  if (port_id == 0) return result;  // most of a port scan ends here

  // The vectors whose union says which rules the remote address satisfies. Membership in more groups than fit here is
  // answered in several turns: the union decomposes.
  std::array<const std::uint64_t*, 32> sources;
  std::size_t source_count = 0;
  if (const std::uint32_t id = address_vector(query.remote, ipv4); id != 0) sources[source_count++] = vector(id);

  const std::uint64_t* const ports = vector(port_id);
  const std::uint64_t* const everyone = vector(ipv4 ? tables_.everyone4 : tables_.everyone6);
  std::size_t next_group = 0;
  do {
    while (next_group < remote_groups.size() && source_count < sources.size()) {
      if (const std::uint32_t id = group_vector(remote_groups[next_group++]); id != 0) {
        sources[source_count++] = vector(id);
      }
    }
    if (source_count == 0) break;
    for (std::size_t word = 0; word < tables_.words; ++word) {
      if (ports[word] == 0) continue;
      std::uint64_t hit = 0;
      for (std::size_t i = 0; i < source_count; ++i) hit |= sources[i][word];
      hit &= ports[word];
      if (hit == 0) continue;
      // What comes from anywhere also lies in the address vector, so it cannot be missed by looking only at hits.
      if ((hit & everyone[word]) != 0) result.from_anywhere = true;
      const auto rule = static_cast<RuleId>(word * kWordBits + static_cast<std::size_t>(std::countr_zero(hit)));
      result.rule = std::min(result.rule, rule);
      result.allowed = true;
    }
    source_count = 0;
  } while (next_group < remote_groups.size());
  return result;
}

bool RuleBits::open_to_everyone(std::uint8_t protocol, bool ipv4) const {
  if (protocol != kTcp && protocol != kUdp) return false;
  return tables_.open[protocol == kUdp ? 1 : 0][ipv4 ? 0 : 1];
}

void RuleBits::ArenaDelete::operator()(std::byte* memory) const {
  ::operator delete[](memory, std::align_val_t{kArenaAlignment});
}

// ---- Building ----------------------------------------------------------------------------------------------------

// Sweeps over each dimension: every source (or port range) of a rule switches the rule's bit on at its first key and
// off behind its last one; between two such keys the set of rules is constant, and that is one elementary interval.
class RuleBitsBuilder {
 public:
  explicit RuleBitsBuilder(std::span<const RuleSpec> rules)
      : rules_(rules.first(std::min(rules.size(), RuleBits::kMaxRules))),
        words_((rules_.size() + kWordBits - 1) / kWordBits),
        current_(words_, 0),
        covers_(rules_.size(), 0) {
    intern();  // the empty set is vector 0
  }

  RuleBits build() {
    tables_.rules = rules_.size();
    tables_.words = words_;
    const Map tcp = ports(kTcp), udp = ports(kUdp), icmp4 = ports(kIcmp), icmp6 = ports(kIcmp6);
    const Map other = protocols(), ipv4 = addresses(true), ipv6 = addresses(false);
    const std::vector<RuleBits::GroupSlot> groups = group_slots();
    tables_.group_mask = static_cast<std::uint32_t>(groups.size() - 1);
    tables_.everyone4 = everyone(true);
    tables_.everyone6 = everyone(false);
    for (const bool ipv6_family : {false, true}) {
      tables_.open[0][ipv6_family] = is_open(kTcp, !ipv6_family);
      tables_.open[1][ipv6_family] = is_open(kUdp, !ipv6_family);
    }

    // Once to count, once to copy.
    place_all(tcp, udp, icmp4, icmp6, other, ipv4, ipv6, groups);
    tables_.arena_bytes = used_;
    arena_ = static_cast<std::byte*>(::operator new[](used_, std::align_val_t{kArenaAlignment}));
    RuleBits result;
    result.arena_.reset(arena_);
    used_ = 0;
    place_all(tcp, udp, icmp4, icmp6, other, ipv4, ipv6, groups);
    result.tables_ = tables_;
    return result;
  }

 private:
  __extension__ typedef unsigned __int128 Position;
  struct Event {
    Position at;
    std::uint32_t rule;
    bool on;
  };
  struct Map {
    std::vector<Position> starts;
    std::vector<std::uint32_t> vectors;
  };

  static Position position(const IpAddress& address) {
    if (address.is_v4()) return address.v4();
    return static_cast<Position>(word_at(address, 0)) << 64 | word_at(address, 8);
  }

  // -- The current set of rules, and its number among all sets seen.

  // A rule may be covered twice at one key, by overlapping sources; its bit goes out with the last one.
  void switch_on(std::uint32_t rule) {
    if (covers_[rule]++ == 0) flip(rule);
  }
  void switch_off(std::uint32_t rule) {
    if (--covers_[rule] == 0) flip(rule);
  }
  void flip(std::uint32_t rule) {
    current_[rule / kWordBits] ^= std::uint64_t{1} << rule % kWordBits;
    // The hash of a set is the xor of one well mixed number per rule, so that it follows a flip without a walk over
    // all words (splitmix64).
    std::uint64_t mixed = (rule + std::uint64_t{1}) * 0x9e3779b97f4a7c15ULL;
    mixed = (mixed ^ mixed >> 30) * 0xbf58476d1ce4e5b9ULL;
    mixed = (mixed ^ mixed >> 27) * 0x94d049bb133111ebULL;
    current_hash_ ^= mixed ^ mixed >> 31;
  }
  void clear() {
    std::ranges::fill(current_, 0);
    std::ranges::fill(covers_, 0);
    current_hash_ = 0;
  }
  std::uint32_t intern() {
    const auto [first, last] = known_.equal_range(current_hash_);
    for (auto known = first; known != last; ++known) {
      if (std::equal(current_.begin(), current_.end(), &vectors_[known->second * words_])) return known->second;
    }
    const auto id = vector_count_++;
    vectors_.insert(vectors_.end(), current_.begin(), current_.end());
    known_.emplace(current_hash_, id);
    return id;
  }

  // -- Sweeping one dimension.

  static void add(std::vector<Event>& events, std::size_t rule, Position first, Position last, Position highest) {
    events.push_back({first, static_cast<std::uint32_t>(rule), true});
    if (last != highest) events.push_back({last + 1, static_cast<std::uint32_t>(rule), false});
  }

  Map sweep(std::vector<Event>& events) {
    std::ranges::sort(events, {}, &Event::at);
    clear();
    Map map{{0}, {0}};
    // Events at one key are one step. Within it, all "on" go first, or a rule whose sources adjoin would go out and in.
    for (auto event = events.begin(); event != events.end();) {
      const Position at = event->at;
      const auto step_end = std::find_if(event, events.end(), [at](const Event& other) { return other.at != at; });
      for (auto each = event; each != step_end; ++each) {
        if (each->on) switch_on(each->rule);
      }
      for (auto each = event; each != step_end; ++each) {
        if (!each->on) switch_off(each->rule);
      }
      event = step_end;
      const std::uint32_t id = intern();
      if (map.starts.back() == at) {
        map.vectors.back() = id;
      } else if (map.vectors.back() != id) {
        map.starts.push_back(at);
        map.vectors.push_back(id);
      }
    }
    clear();
    return map;
  }

  Map ports(std::uint8_t protocol) {
    constexpr int kHighest = 0xffff;
    std::vector<Event> events;
    for (std::size_t rule = 0; rule < rules_.size(); ++rule) {
      const RuleSpec& spec = rules_[rule];
      const auto add_range = [&](int from, int to) {
        from = std::max(from, 0);
        to = std::min(to, kHighest);
        if (from > to) return;
        add(events, rule, static_cast<Position>(from), static_cast<Position>(to), kHighest);
      };
      if (spec.protocol == RuleSpec::kAnyProtocol) {
        add_range(0, kHighest);
      } else if (spec.protocol != protocol) {
        continue;
      } else if (protocol == kTcp || protocol == kUdp) {
        add_range(spec.from_port, spec.to_port);
      } else {
        // ICMP: the key is type << 8 | code.
        const int type = spec.from_port, code = spec.to_port;
        if (type < -1 || type > 255 || code < -1 || code > 255) continue;
        for (int each = type == -1 ? 0 : type; each <= (type == -1 ? 255 : type); ++each) {
          add_range(each << 8 | (code == -1 ? 0 : code), each << 8 | (code == -1 ? 255 : code));
        }
      }
    }
    return sweep(events);
  }

  Map protocols() {
    std::vector<Event> events;
    for (std::size_t rule = 0; rule < rules_.size(); ++rule) {
      const int protocol = rules_[rule].protocol;
      if (protocol == RuleSpec::kAnyProtocol) {
        add(events, rule, 0, 255, 255);
      } else if (protocol >= 0 && protocol <= 255 && protocol != kTcp && protocol != kUdp && protocol != kIcmp &&
                 protocol != kIcmp6) {
        add(events, rule, static_cast<Position>(protocol), static_cast<Position>(protocol), 255);
      }
    }
    return sweep(events);
  }

  Map addresses(bool ipv4) {
    const Position highest = ipv4 ? Position{0xffffffff} : ~Position{0};
    std::vector<Event> events;
    for (std::size_t rule = 0; rule < rules_.size(); ++rule) {
      for (const IpPrefix& range : rules_[rule].ranges) {
        if (range.is_v4() != ipv4) continue;
        // The last address is computed from the length, not by IpPrefix::last(): the last address of ::/80 reads as
        // an IPv4 one.
        const unsigned width = ipv4 ? 32 : 128;
        const unsigned host_bits = width - std::min<unsigned>(range.length, width);
        const Position mask = host_bits == 128 ? ~Position{0} : (Position{1} << host_bits) - 1;
        const Position first = position(range.address) & ~mask;
        add(events, rule, first, first | mask, highest);
      }
    }
    return sweep(events);
  }

  std::vector<RuleBits::GroupSlot> group_slots() {
    std::unordered_map<std::uint32_t, std::vector<std::uint32_t>> referrers;
    for (std::size_t rule = 0; rule < rules_.size(); ++rule) {
      for (const GroupId group : rules_[rule].groups) {
        if (group != kNoGroup) referrers[group.value].push_back(static_cast<std::uint32_t>(rule));
      }
    }
    // At most half full, and always with an unused slot where a search ends.
    std::vector<RuleBits::GroupSlot> slots(std::bit_ceil(2 * referrers.size() + 1));
    for (const auto& [group, rules] : referrers) {
      for (const std::uint32_t rule : rules) switch_on(rule);
      std::size_t slot = group_hash(GroupId{group});
      while (slots[slot & (slots.size() - 1)].group != kNoGroup) ++slot;
      slots[slot & (slots.size() - 1)] = {GroupId{group}, intern()};
      for (const std::uint32_t rule : rules) switch_off(rule);
    }
    return slots;
  }

  bool is_from_everyone(const RuleSpec& rule, bool ipv4) const {
    return std::ranges::any_of(
        rule.ranges, [ipv4](const IpPrefix& range) { return range.is_everything() && range.is_v4() == ipv4; });
  }

  std::uint32_t everyone(bool ipv4) {
    clear();
    for (std::size_t rule = 0; rule < rules_.size(); ++rule) {
      if (is_from_everyone(rules_[rule], ipv4)) switch_on(static_cast<std::uint32_t>(rule));
    }
    const std::uint32_t id = intern();
    clear();
    return id;
  }

  bool is_open(std::uint8_t protocol, bool ipv4) const {
    return std::ranges::any_of(rules_, [&](const RuleSpec& rule) {
      const bool all_ports = rule.protocol == RuleSpec::kAnyProtocol ||
                             (rule.protocol == protocol && rule.from_port <= 0 && rule.to_port >= 0xffff);
      return all_ports && is_from_everyone(rule, ipv4);
    });
  }

  // -- Laying everything out in one allocation. Without an arena yet, only the space is counted.

  template <typename Value, typename Source>
  const Value* place(const Source& source, std::size_t alignment = alignof(Value)) {
    used_ = (used_ + alignment - 1) / alignment * alignment;
    std::byte* const place = arena_ == nullptr ? nullptr : arena_ + used_;
    used_ += source.size() * sizeof(Value);
    if (place == nullptr) return nullptr;
    const Value* first = nullptr;
    for (std::size_t i = 0; i < source.size(); ++i) {
      Value* const value = ::new (place + i * sizeof(Value)) Value(narrow<Value>(source[i]));
      if (i == 0) first = value;
    }
    return first;
  }
  template <typename Value, typename From>
  static Value narrow(const From& value) {
    if constexpr (std::is_same_v<Value, RuleBits::Key128>) {
      return {static_cast<std::uint64_t>(value >> 64), static_cast<std::uint64_t>(value)};
    } else {
      return static_cast<Value>(value);
    }
  }
  template <typename Key>
  void place_map(RuleBits::IntervalMap<Key>& target, const Map& map) {
    target.starts = place<Key>(map.starts);
    target.vectors = place<std::uint32_t>(map.vectors);
    target.count = static_cast<std::uint32_t>(map.starts.size());
  }
  void place_all(const Map& tcp, const Map& udp, const Map& icmp4, const Map& icmp6, const Map& other,
                 const Map& ipv4, const Map& ipv6, const std::vector<RuleBits::GroupSlot>& groups) {
    tables_.vectors = place<std::uint64_t>(vectors_, kArenaAlignment);
    place_map(tables_.tcp, tcp);
    place_map(tables_.udp, udp);
    place_map(tables_.icmp4, icmp4);
    place_map(tables_.icmp6, icmp6);
    place_map(tables_.other, other);
    place_map(tables_.ipv4, ipv4);
    place_map(tables_.ipv6, ipv6);
    tables_.groups = place<RuleBits::GroupSlot>(groups);
  }

  std::span<const RuleSpec> rules_;
  std::size_t words_;
  std::vector<std::uint64_t> current_;  // the set of rules being swept
  std::vector<std::uint32_t> covers_;   // per rule, how many of its sources cover the current key
  std::uint64_t current_hash_ = 0;
  std::vector<std::uint64_t> vectors_;  // all sets seen, words_ each
  std::uint32_t vector_count_ = 0;
  std::unordered_multimap<std::uint64_t, std::uint32_t> known_;  // hash -> number of the set

  RuleBits::Tables tables_;
  std::byte* arena_ = nullptr;
  std::size_t used_ = 0;
};

RuleBits RuleBits::compile(std::span<const RuleSpec> rules) {
  if (rules.empty()) return {};
  return RuleBitsBuilder(rules).build();
}

}  // namespace trunkline
