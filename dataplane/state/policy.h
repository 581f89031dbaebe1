// SPDX-License-Identifier: BSD-3-Clause
//
// Compiled security groups: what a worker asks about the first packet of a flow.
//
// Security groups only allow; an ENI's groups are a union without order. So "is this flow allowed" asks whether some
// rule matches, and a rule is (protocol and ports) x (sources). The port comes first: it lies in one of the intervals
// that the rules' ports make (rule_search.h), and that is a set of rules.
//
// IPv4: for each such set there is a list of its sources with the answers in it (source_lists.h), and that is all.
//
// What else there is, IPv6, members of groups, and policies whose lists would be too long, is answered by sets of
// rules, one bit a rule: one set says which rules the ports satisfy, one says which rules the remote address satisfies,
// and the rules that match are their intersection. Up to 64 rules a set is one word. Beyond, it is a summary of which
// words are not empty, and those words alone, so that most of an intersection is decided by two summaries and what is
// left reads a word or two of each set. The union over a flow's sources decomposes: what the list says and what the
// groups say are joined.
//
// Rules of matching:
//  * Protocol -1 is any protocol, ports ignored. ICMP (1) rules match IPv4 only, ICMPv6 (58) rules IPv6 only; their
//    from_port is the type, their to_port the code, -1 is any. TCP and UDP ports are inclusive and are destination
//    ports. Every other protocol ignores the ports.
//  * 0.0.0.0/0 never matches an IPv6 address, ::/0 never an IPv4 one.
//  * A rule number (RuleId) is the rule's place in the list given to compile(), from 0.
//  * What is not valid (a protocol above 255, a range that ends before it starts) matches nothing: a mistake upstream
//    must never open anything.
//
// Threads: compile() belongs to the control thread and allocates. A finished object never changes; any number of
// workers may read it at once, without locks, allocation or failure. A default or moved-from RuleBits allows nothing.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <utility>

#include "config/net.h"
#include "dataplane/state/members.h"
#include "dataplane/state/rule_search.h"
#include "dataplane/state/source_lists.h"

namespace trunkline {

// What the rules look at of the first packet of a flow.
struct FlowQuery {
  IpAddress remote;  // ingress: source address; egress: destination address
  std::uint8_t protocol = 0;
  std::uint16_t port = 0;  // TCP, UDP: destination port of the first packet; ICMP: type << 8 | code; otherwise 0
};

using RuleId = std::uint16_t;
inline constexpr RuleId kNoRule = 0xffff;
inline constexpr RuleId kAuditedRule = 0xfffe;  // no rule: the endpoint is in audit mode

struct RuleMatch {
  bool allowed = false;
  bool from_anywhere = false;  // some matching rule has source 0.0.0.0/0 or ::/0 of the packet's family
  RuleId rule = kNoRule;       // lowest numbered matching rule, for explanations

  friend bool operator==(const RuleMatch&, const RuleMatch&) = default;
};

// One rule as RuleBits::compile() takes it: prefix lists already expanded, names of groups already numbers. What the
// spans show need only live until compile() returns.
struct RuleSpec {
  static constexpr int kAnyProtocol = -1;

  int protocol = kAnyProtocol;
  int from_port = -1;
  int to_port = -1;
  std::span<const IpPrefix> ranges;
  std::span<const GroupId> groups;
};

// Which instructions a search uses; all give the same answers.
enum class SearchIsa : std::uint8_t { scalar, avx2, avx512 };
bool is_available(SearchIsa isa);
// The best that this processor has; chosen once, at the start of the program.
SearchIsa fastest_search();

class RuleBits;

// A question to one ENI's rules, and its answer.
struct RuleLookup {
  const RuleBits* rules = nullptr;
  FlowQuery query;
  RuleMatch match;
};

// Answers any number of questions to any number of ENIs, as RuleBits::match() would each with the groups that `members`
// has for its remote address; the more at a time (64 are a good number), the better memory's latency is hidden. Whoever
// gathers the questions of many ENIs calls RuleBits::prefetch() as it goes. `rules` is never null.
void match_rules(std::span<RuleLookup> lookups, const Members& members, SearchIsa isa = fastest_search());

// One direction of the union of an ENI's groups.
class RuleBits {
 public:
  // Rules that a RuleId can number; compile() leaves out what comes after, which can only deny more.
  static constexpr std::size_t kMaxRules = kAuditedRule;

  RuleBits() = default;
  RuleBits(RuleBits&& other) noexcept
      : tables_(std::exchange(other.tables_, Tables{})), arena_(std::move(other.arena_)) {}
  RuleBits& operator=(RuleBits&& other) noexcept {
    tables_ = std::exchange(other.tables_, Tables{});
    arena_ = std::move(other.arena_);
    return *this;
  }

  static RuleBits compile(std::span<const RuleSpec> rules);

  // Asks for what a lookup reads first. (Inlined always: members.h.)
  [[gnu::always_inline]] void prefetch() const {
    for (std::size_t line = 0; line < 3; ++line)
      __builtin_prefetch(reinterpret_cast<const std::byte*>(this) + 64 * line);
  }

  // `remote_groups`: the groups that the remote address is a member of (Members::find), in any order.
  RuleMatch match(const FlowQuery& query, std::span<const GroupId> remote_groups,
                  SearchIsa isa = fastest_search()) const;

  // Whether a single rule from 0.0.0.0/0 (or ::/0) covers all ports of the protocol: with such a rule, flows that the
  // other direction allows from anywhere are untracked. Only TCP (6) and UDP (17) can be; false for all others.
  bool open_to_everyone(std::uint8_t protocol, bool ipv4) const;

  std::size_t rule_count() const { return tables_.rules; }
  std::size_t memory_bytes() const { return sizeof *this + tables_.arena_bytes; }

 private:
  friend class RuleBitsBuilder;
  friend struct RuleIntersection;
  friend struct RuleMatcher;

  // A set of rules in eight bytes. Up to 64 rules: the bits themselves. More: in the low half the summary, one bit for
  // each block of words that has a rule in it; in the high half where those blocks begin in the arena's words. The
  // empty set is 0 in both, and equal sets are equal numbers.
  using RuleSet = std::uint64_t;
  template <typename Key>
  using Intervals = detail::IntervalMap<Key, RuleSet>;
  struct GroupSlot {
    GroupId group;
    RuleSet rules = 0;  // of an unused slot too: the empty set
  };
  // Views into the arena. What a packet over IPv4 needs is in the first two lines.
  struct alignas(64) Tables {
    static constexpr std::uint16_t kNoTable[1] = {};
    static constexpr std::uint16_t kNoPort[detail::kLine<std::uint16_t>] = {0xffff};
    static constexpr std::uint32_t kNoList[1] = {detail::SourceList::kNobody};
    static constexpr RuleSet kNoSet[1] = {};

    // By protocol number the last one: for those above it has only the rules for any protocol.
    struct Kind {
      detail::PortIndex ports;
      // The list of those rules for all its ports that are not in the lists of its intervals.
      std::uint32_t all_ports = detail::SourceList::kNobody;
    };
    Kind kinds[detail::kPortKinds];
    const std::uint16_t* port_table = kNoTable;
    const std::uint16_t* port_last = kNoPort;
    // By interval of ports: a SourceList.
    const std::uint32_t* port_lists = kNoList;
    detail::SourceLists sources;
    std::uint32_t rules = 0;
    bool has_apart = false;  // some kind has such a list
    bool open[2][2] = {};    // [UDP][IPv6]
    // The third line and on. By interval of ports, unless no question can need them; then there is one, empty.
    const RuleSet* port_sets = kNoSet;
    std::uint32_t port_set_mask = 0;
    std::uint32_t group_mask = 0;
    const std::uint64_t* words = nullptr;
    std::uint32_t block_shift = 0;  // a block is 1 << block_shift words, so that 32 blocks are enough
    Intervals<std::uint32_t> ipv4;
    RuleSet decisive = 0;      // the bits of sets that tell without words whether they can have a rule in common
    RuleSet everyone[2] = {};  // the rules with source 0.0.0.0/0, ::/0
    const GroupSlot* groups = nullptr;
    Intervals<detail::Key128> ipv6;
    detail::SearchShape ipv4_shape{};
    detail::SearchShape ipv6_shape{};
    std::size_t arena_bytes = 0;
  };
  struct ArenaDelete {
    void operator()(std::byte* memory) const;
  };

  Tables tables_;
  std::unique_ptr<std::byte[], ArenaDelete> arena_;
};

// What one ENI's groups say. Immutable once made; the controller makes a new one, with another generation, per change.
struct Policy {
  std::uint32_t generation = 0;
  RuleBits ingress;
  RuleBits egress;

  const RuleBits& rules(Direction direction) const { return direction == Direction::ingress ? ingress : egress; }
};

}  // namespace trunkline
