// SPDX-License-Identifier: BSD-3-Clause
//
// Compiled security groups: what a worker asks about the first packet of a flow.
//
// Security groups only allow; an ENI's groups are a union without order. So "is this flow allowed" asks whether some
// rule matches, and a rule is (protocol and ports) x (sources). RuleBits answers with bit vectors, one bit per rule:
// one vector says which rules the ports satisfy, one says which rules the remote address satisfies, and the rules that
// match are their intersection. Ports, addresses and groups are looked up in sorted elementary intervals; the vectors
// are deduplicated, and everything one lookup touches lies in one allocation.
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
#include <vector>

#include "config/net.h"

namespace trunkline {

// What the rules look at of the first packet of a flow.
struct FlowQuery {
  IpAddress remote;  // ingress: source address; egress: destination address
  std::uint8_t protocol = 0;
  std::uint16_t port = 0;  // TCP, UDP: destination port of the first packet; ICMP: type << 8 | code; otherwise 0
};

using RuleId = std::uint16_t;
inline constexpr RuleId kNoRule = 0xffff;

struct RuleMatch {
  bool allowed = false;
  bool from_anywhere = false;  // some matching rule has source 0.0.0.0/0 or ::/0 of the packet's family
  RuleId rule = kNoRule;       // lowest numbered matching rule, for explanations

  friend bool operator==(const RuleMatch&, const RuleMatch&) = default;
};

// One rule as RuleBits::compile() takes it: prefix lists already expanded, names of groups already numbers.
struct RuleSpec {
  static constexpr int kAnyProtocol = -1;

  int protocol = kAnyProtocol;
  int from_port = -1;
  int to_port = -1;
  std::vector<IpPrefix> ranges;
  std::vector<GroupId> groups;
};

// One direction of the union of an ENI's groups.
class RuleBits {
 public:
  // Rules that a RuleId can number; compile() leaves out what comes after, which can only deny more.
  static constexpr std::size_t kMaxRules = 65535;

  RuleBits() = default;
  RuleBits(RuleBits&& other) noexcept
      : arena_(std::move(other.arena_)), tables_(std::exchange(other.tables_, Tables{})) {}
  RuleBits& operator=(RuleBits&& other) noexcept {
    arena_ = std::move(other.arena_);
    tables_ = std::exchange(other.tables_, Tables{});
    return *this;
  }

  static RuleBits compile(std::span<const RuleSpec> rules);

  // `remote_groups`: the groups that the remote address is a member of (Members::find), in any order.
  RuleMatch match(const FlowQuery& query, std::span<const GroupId> remote_groups) const;

  // Whether a single rule from 0.0.0.0/0 (or ::/0) covers all ports of the protocol: with such a rule, flows that the
  // other direction allows from anywhere are untracked. Only TCP (6) and UDP (17) can be; false for all others.
  bool open_to_everyone(std::uint8_t protocol, bool ipv4) const;

  std::size_t rule_count() const { return tables_.rules; }
  std::size_t memory_bytes() const { return sizeof *this + tables_.arena_bytes; }

 private:
  friend class RuleBitsBuilder;

  // An IPv6 address as two host order words, so that it compares as a number.
  struct Key128 {
    std::uint64_t high = 0;
    std::uint64_t low = 0;
    friend auto operator<=>(const Key128&, const Key128&) = default;
  };
  // Elementary intervals: interval i is [starts[i], starts[i + 1]), starts[0] is the lowest key, the last one is open.
  template <typename Key>
  struct IntervalMap {
    const Key* starts = nullptr;
    const std::uint32_t* vectors = nullptr;
    std::uint32_t count = 0;
    std::uint32_t find(const Key& key) const;
  };
  struct GroupSlot {
    GroupId group;
    std::uint32_t vector = 0;  // an unused slot names the empty vector, so reading one is harmless
  };
  // Views into the arena. Vector 0 is the empty one.
  struct Tables {
    std::size_t rules = 0;
    std::size_t words = 0;  // per vector
    std::size_t arena_bytes = 0;
    const std::uint64_t* vectors = nullptr;
    IntervalMap<std::uint16_t> tcp, udp, icmp4, icmp6;
    IntervalMap<std::uint16_t> other;  // by protocol number; for those above it has only the rules for any protocol
    IntervalMap<std::uint32_t> ipv4;
    IntervalMap<Key128> ipv6;
    const GroupSlot* groups = nullptr;
    std::uint32_t group_mask = 0;
    std::uint32_t everyone4 = 0;  // vectors of the rules with source 0.0.0.0/0, ::/0
    std::uint32_t everyone6 = 0;
    bool open[2][2] = {};  // [UDP][IPv6]
  };
  struct ArenaDelete {
    void operator()(std::byte* memory) const;
  };

  std::uint32_t port_vector(const FlowQuery& query, bool ipv4) const;
  std::uint32_t address_vector(const IpAddress& remote, bool ipv4) const;
  std::uint32_t group_vector(GroupId group) const;
  const std::uint64_t* vector(std::uint32_t id) const { return tables_.vectors + id * tables_.words; }

  std::unique_ptr<std::byte[], ArenaDelete> arena_;
  Tables tables_;
};

// What one ENI's groups say. Immutable once made; the controller makes a new one, with another generation, per change.
struct Policy {
  std::uint32_t generation = 0;
  RuleBits ingress;
  RuleBits egress;

  const RuleBits& rules(Direction direction) const { return direction == Direction::ingress ? ingress : egress; }
};

}  // namespace trunkline
