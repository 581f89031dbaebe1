// SPDX-License-Identifier: BSD-3-Clause
//
// Compiled security groups against the naive evaluator, on random rule sets and on packets chosen where mistakes
// live: at the first and last port and address of a rule and right beside them.
//
// Each packet is asked one by one and in a batch, with every instruction set that this processor has; batches hold the
// packets of both directions, in no order, and are of all sizes.
//
// TRUNKLINE_SEED repeats a run; TRUNKLINE_PAIRS changes the number of (rule set, packet) pairs.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <iostream>
#include <map>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "control/compile.h"
#include "dataplane/state/members.h"
#include "dataplane/state/policy.h"
#include "tests/oracle/security_group_oracle.h"

namespace trunkline {
namespace {

using config::SecurityGroup;
using config::SecurityGroupRule;

constexpr std::uint64_t kDefaultPairs = 6'000'000;

std::uint64_t environment(const char* name, std::uint64_t otherwise) {
  const char* const text = std::getenv(name);
  return text != nullptr ? std::strtoull(text, nullptr, 10) : otherwise;
}

// One up or down, in the address's own family and without wrapping out of it.
IpAddress neighbour(IpAddress address, bool up) {
  const std::size_t first = address.is_v4() ? 12 : 0;
  for (std::size_t i = 16; i-- > first;) {
    address.bytes[i] = static_cast<std::uint8_t>(address.bytes[i] + (up ? 1 : 0xff));
    if (address.bytes[i] != (up ? 0 : 0xff)) break;
  }
  return address;
}

class Generator {
 public:
  explicit Generator(std::uint64_t seed) : random_(seed) {}

  std::uint64_t below(std::uint64_t limit) { return random_() % limit; }
  bool one_in(std::uint64_t n) { return below(n) == 0; }
  int between(int low, int high) { return low + static_cast<int>(below(static_cast<std::uint64_t>(high - low + 1))); }
  template <typename Container>
  void shuffle(Container& container) {
    std::ranges::shuffle(container, random_);
  }
  template <typename Container>
  const auto& any_of(const Container& container) {
    return *std::next(container.begin(), static_cast<std::ptrdiff_t>(below(container.size())));
  }

  // Addresses come from few places, so that prefixes overlap, nest and adjoin.
  IpAddress address() {
    IpAddress result;
    if (one_in(2)) {
      static constexpr std::uint32_t bases[] = {0x0a000000, 0x0a010000, 0xc0000200, 0, 0xffffff00, 0x7fffff80};
      const std::uint32_t base = bases[below(std::size(bases))];
      const std::uint32_t spread = one_in(4) ? static_cast<std::uint32_t>(random_()) : 0x3ff;
      return IpAddress::from_v4(base ^ (static_cast<std::uint32_t>(random_()) & spread));
    }
    do {
      result = {};
      switch (below(4)) {
        case 0:
          break;  // ::, among it the block next to the mapped one
        case 1:
          std::ranges::fill(result.bytes, std::uint8_t{0xff});
          break;
        case 2:
          result.bytes = {0x20, 0x01, 0x0d, 0xb8};
          break;
        default:
          result.bytes = {0xfd, 0, 0, 0, 0, 0, 0, static_cast<std::uint8_t>(below(3))};
          break;
      }
      if (one_in(4)) result.bytes[10] = result.bytes[11] = 0xff;
      const std::size_t from = one_in(4) ? 0 : one_in(2) ? 6 : 14;
      for (std::size_t i = from; i < 16; ++i) {
        if (one_in(2)) result.bytes[i] = static_cast<std::uint8_t>(random_());
      }
    } while (result.is_v4());
    return result;
  }

  IpPrefix prefix() {
    const IpAddress base = !addresses_.empty() && one_in(2) ? any_of(addresses_) : address();
    const unsigned width = base.is_v4() ? 32 : 128;
    unsigned length = 0;
    switch (below(8)) {
      case 0:
        length = 0;
        break;
      case 1:
        length = width;
        break;
      case 2:
        length = width - 1;
        break;
      case 3:
        length = 1;
        break;
      case 4:
        length = width / 2;
        break;
      default:
        length = static_cast<unsigned>(below(width + 1));
        break;
    }
    const IpPrefix result = IpPrefix{base, static_cast<std::uint8_t>(length)}.network();
    remember(result);
    return result;
  }

  int protocol() {
    static constexpr int common[] = {-1, 1, 6, 6, 6, 17, 17, 58, 50, 47, 132, 0, 255};
    return one_in(16) ? between(0, 255) : common[below(std::size(common))];
  }

  int port() {
    if (!ports_.empty() && one_in(3)) return any_of(ports_);
    return one_in(4) ? (one_in(2) ? 0 : 65535) : one_in(2) ? between(0, 65535) : between(70, 90);
  }

  SecurityGroupRule rule(std::size_t source_limit) {
    SecurityGroupRule rule;
    rule.protocol = protocol();
    if (rule.protocol == 6 || rule.protocol == 17) {
      rule.from_port = one_in(6) ? 0 : port();
      rule.to_port = one_in(6) ? 65535 : one_in(3) ? rule.from_port : port();
      if (rule.from_port > rule.to_port) std::swap(rule.from_port, rule.to_port);
      ports_.push_back(rule.from_port);
      ports_.push_back(rule.to_port);
    } else if (rule.protocol == 1 || rule.protocol == 58) {
      rule.from_port = one_in(4) ? -1 : one_in(4) ? between(0, 255) : between(0, 8);
      rule.to_port = one_in(2) ? -1 : one_in(4) ? between(0, 255) : between(0, 4);
      if (one_in(8)) rule.from_port = 255;
      if (one_in(8)) rule.to_port = 255;
    } else if (one_in(4)) {
      rule.from_port = port();  // to be ignored
      rule.to_port = port();
    }
    const std::size_t sources = below(source_limit + 1);  // none at all is a case, too
    for (std::size_t i = 0; i < sources; ++i) {
      switch (below(5)) {
        case 0:
          rule.group_ids.push_back(group_name(below(kGroups)));
          break;
        case 1:
          rule.prefix_list_ids.push_back(list_name(below(kLists)));
          break;
        default:
          rule.ranges.push_back(prefix());
          break;
      }
    }
    if (one_in(12)) rule.ranges.push_back(IpPrefix{IpAddress::from_v4(0), 0});
    if (one_in(12)) rule.ranges.push_back(IpPrefix{IpAddress{}, 0});
    return rule;
  }

  // Few flows match it, so that in a large set the rule that decides is anywhere and not among the first.
  SecurityGroupRule narrow_rule() {
    SecurityGroupRule rule;
    rule.protocol = one_in(2) ? 6 : 17;
    rule.from_port = between(1000, 1200);
    rule.to_port = rule.from_port + (one_in(4) ? between(0, 3) : 0);
    if (one_in(5)) {
      rule.group_ids.push_back(group_name(below(kGroups)));
    } else {
      const IpAddress base = address();
      const unsigned width = base.is_v4() ? 32 : 128;
      rule.ranges.push_back(IpPrefix{base, static_cast<std::uint8_t>(width - below(8))}.network());
    }
    return rule;
  }

  // Sources times ports that overlap in more ways than lists of sources are made for.
  SecurityGroupRule wide_rule() {
    SecurityGroupRule rule;
    rule.protocol = one_in(2) ? 6 : 17;
    rule.from_port = between(0, 20000);
    rule.to_port = between(20000, 65535);
    ports_.push_back(one_in(2) ? rule.from_port : rule.to_port);
    for (int i = 0; i < 2; ++i) rule.ranges.push_back(prefix());
    if (one_in(5)) rule.group_ids.push_back(group_name(below(kGroups)));
    return rule;
  }

  oracle::World world() {
    oracle::World world;
    ports_.clear();
    addresses_.clear();
    for (std::size_t i = 0; i + 1 < kLists; ++i) {  // the last list is referenced but unknown
      config::PrefixList list{list_name(i), {}};
      for (std::size_t entries = below(5); entries > 0; --entries) list.entries.push_back(prefix());
      world.prefix_lists[list.id] = list;
    }
    for (std::size_t i = 0; i < kGroups; ++i) {
      for (std::size_t members = below(4); members > 0; --members) {
        // Some are in most of the groups.
        const IpAddress member = !addresses_.empty() && !one_in(3)  ? addresses_.back()
                                 : !addresses_.empty() && one_in(2) ? any_of(addresses_)
                                                                    : address();
        world.members[group_name(i)].insert(member);
        addresses_.push_back(member);
      }
    }
    return world;
  }

  FlowQuery packet(const std::vector<const SecurityGroupRule*>& rules) {
    FlowQuery query;
    const SecurityGroupRule* const aim = rules.empty() ? nullptr : any_of(rules);
    query.protocol = static_cast<std::uint8_t>(aim != nullptr && aim->protocol >= 0 && !one_in(5) ? aim->protocol
                                                                                                  : protocol() & 0xff);
    query.remote = !addresses_.empty() && !one_in(8) ? any_of(addresses_) : address();
    if (aim != nullptr && !aim->ranges.empty() && one_in(2)) query.remote = edge(any_of(aim->ranges));
    if (query.protocol == 1 || query.protocol == 58) {
      int type = one_in(4) ? between(0, 255) : between(0, 9), code = one_in(4) ? between(0, 255) : between(0, 5);
      if (aim != nullptr && aim->from_port >= 0 && aim->from_port < 256 && !one_in(3)) type = aim->from_port;
      if (aim != nullptr && aim->to_port >= 0 && aim->to_port < 256 && !one_in(3)) code = aim->to_port;
      if (one_in(6)) type += between(-1, 1);
      if (one_in(6)) code += between(-1, 1);
      query.port = static_cast<std::uint16_t>((type & 0xff) << 8 | (code & 0xff));
    } else if (query.protocol == 6 || query.protocol == 17) {
      int chosen = port();
      if (aim != nullptr && !one_in(4)) chosen = one_in(2) ? aim->from_port : aim->to_port;
      if (one_in(2)) chosen += between(-1, 1);
      query.port = static_cast<std::uint16_t>(chosen);  // one beyond 65535 is 0, and one below 0 is 65535: both edges
    }
    return query;
  }

  static constexpr std::size_t kGroups = 8, kLists = 4;
  static std::string group_name(std::size_t i) { return "sg-0000000" + std::to_string(i); }

 private:
  static std::string list_name(std::size_t i) { return "pl-0000000" + std::to_string(i); }

  IpAddress edge(const IpPrefix& prefix) {
    const IpAddress last = prefix.last();
    // The last address of ::/80 is in the mapped block and so no IPv6 address; neither it nor its neighbours will do.
    if (last.is_v4() != prefix.is_v4()) return prefix.address;
    const IpAddress base = one_in(2) ? prefix.address : last;
    const IpAddress result = one_in(2) ? base : neighbour(base, one_in(2));
    return result.is_v4() == prefix.is_v4() ? result : base;
  }
  void remember(const IpPrefix& prefix) {
    if (addresses_.size() > 4000) return;
    for (int i = 0; i < 2; ++i) addresses_.push_back(edge(prefix));
  }

  std::mt19937_64 random_;
  std::vector<int> ports_;            // ends of the rules so far
  std::vector<IpAddress> addresses_;  // ends of the prefixes so far, and beside them, and members
};

std::string describe(const FlowQuery& query) {
  return query.remote.to_string() + " protocol " + std::to_string(query.protocol) + " port " +
         std::to_string(query.port);
}

std::vector<SearchIsa> available_isas() {
  std::vector<SearchIsa> isas;
  for (const SearchIsa isa : {SearchIsa::scalar, SearchIsa::avx2, SearchIsa::avx512}) {
    if (is_available(isa)) isas.push_back(isa);
  }
  return isas;
}

const char* name(SearchIsa isa) {
  return isa == SearchIsa::scalar ? "scalar" : isa == SearchIsa::avx2 ? "avx2" : "avx512";
}

TEST(PolicyProperty, CompiledRulesAgreeWithRuleByRuleEvaluation) {
  const std::uint64_t seed = environment("TRUNKLINE_SEED", std::random_device{}());
  const std::uint64_t wanted = environment("TRUNKLINE_PAIRS", kDefaultPairs);
  std::cout << "TRUNKLINE_SEED=" << seed << " TRUNKLINE_PAIRS=" << wanted << std::endl;
  Generator generator(seed);
  const std::vector<SearchIsa> isas = available_isas();
  std::cout << "instruction sets:";
  for (const SearchIsa isa : isas) std::cout << ' ' << name(isa);
  std::cout << std::endl;

  std::uint64_t pairs = 0, allowed = 0, anywhere = 0, open = 0, sets = 0, large_sets = 0, in_many_groups = 0,
                far_rules = 0;
  while (pairs < wanted) {
    const oracle::World world = generator.world();
    // Mostly few rules, where each one decides; now and then the default quota, the largest set that AWS allows, and
    // more.
    const std::size_t kind = generator.below(400);
    const std::size_t few = generator.one_in(3) ? 1 : generator.below(12);
    // 1100 and more are beyond what AVX-512 intersects at once, 2100 have blocks of more than a word.
    const std::size_t rule_count = kind == 0 ? 1000 : kind == 1 ? 1100 + generator.below(1500) : kind < 20 ? 60 : few;
    const std::size_t packets = rule_count >= 1000 ? 1000 : 100;
    const std::size_t source_limit = rule_count >= 60 ? 2 : 4;
    const bool is_narrow = rule_count >= 60 && !generator.one_in(3);
    const bool is_wide = rule_count >= 60 && !is_narrow && generator.one_in(2);
    std::vector<SecurityGroup> groups(1 + generator.below(3));
    for (std::size_t i = 0; i < groups.size(); ++i) groups[i].id = Generator::group_name(i);
    for (std::size_t i = 0; i < rule_count; ++i) {
      SecurityGroup& group = groups[generator.below(groups.size())];
      const auto any_rule = [&] {
        if (is_wide) return generator.wide_rule();
        return is_narrow && !generator.one_in(300) ? generator.narrow_rule() : generator.rule(source_limit);
      };
      group.ingress.push_back(any_rule());
      if (generator.one_in(2) || rule_count == 1) group.egress.push_back(any_rule());
    }
    std::vector<const SecurityGroup*> attached;
    for (const SecurityGroup& group : groups) attached.push_back(&group);

    control::GroupNumbers numbers;
    const auto policy = control::compile_policy(attached, world.prefix_lists, numbers, 1);
    std::map<IpAddress, std::vector<GroupId>> groups_of;
    for (const auto& [name, addresses] : world.members) {
      for (const IpAddress& address : addresses) groups_of[address].push_back(numbers.number(name));
    }
    Members members(groups_of.size());
    for (const auto& [address, ids] : groups_of) ASSERT_TRUE(members.set(address, ids));

    ++sets;
    if (rule_count >= 1000) ++large_sets;
    struct Answer {
      RuleLookup lookup;
      RuleMatch expected;
    };
    std::vector<Answer> answers;
    for (const Direction direction : {Direction::ingress, Direction::egress}) {
      const RuleBits& rules = policy->rules(direction);
      std::vector<const SecurityGroupRule*> all;
      for (const SecurityGroup& group : groups) {
        for (const auto& rule : direction == Direction::ingress ? group.ingress : group.egress) all.push_back(&rule);
      }
      ASSERT_EQ(rules.rule_count(), all.size());
      for (const std::uint8_t protocol : std::initializer_list<std::uint8_t>{6, 17, 1, 58, 50}) {
        for (const bool ipv4 : {true, false}) {
          const bool expected = oracle::open_to_everyone(attached, world, direction, protocol, ipv4);
          ASSERT_EQ(rules.open_to_everyone(protocol, ipv4), expected) << "set " << sets << " protocol " << +protocol;
          open += expected;
        }
      }
      for (std::size_t i = 0; i < packets / 2; ++i, ++pairs) {
        const FlowQuery query = generator.packet(all);
        const RuleMatch expected = oracle::match(attached, world, direction, query);
        for (const SearchIsa isa : isas) {
          ASSERT_EQ(rules.match(query, members.find(query.remote).view(), isa), expected)
              << "set " << sets << ", " << describe(query) << ", " << name(isa);
        }
        answers.push_back({{&rules, query, {}}, expected});
        in_many_groups += members.find(query.remote).count > 2;
        allowed += expected.allowed;
        far_rules += expected.allowed && expected.rule >= 512;
        anywhere += expected.from_anywhere;
      }
    }
    generator.shuffle(answers);
    for (const SearchIsa isa : isas) {
      for (auto first = answers.begin(); first != answers.end();) {
        const std::size_t size =
            std::min<std::size_t>(generator.below(150), static_cast<std::size_t>(answers.end() - first));
        std::vector<RuleLookup> batch;
        for (std::size_t i = 0; i < size; ++i) batch.push_back(first[static_cast<std::ptrdiff_t>(i)].lookup);
        match_rules(batch, members, isa);
        for (const RuleLookup& lookup : batch) {
          ASSERT_EQ(lookup.match, first->expected)
              << "set " << sets << ", " << describe(lookup.query) << ", batch of " << size << ", " << name(isa);
          ++first;
        }
      }
    }
  }
  std::cout << pairs << " pairs, " << sets << " rule sets (" << large_sets << " of 1000 rules and more), " << allowed
            << " allowed, " << anywhere << " of them from anywhere, " << in_many_groups
            << " asked for members of more than two groups, " << far_rules << " allowed by a rule from 512 on, " << open
            << " directions open to everyone\n";
  // A generator that only ever makes one answer tests nothing.
  if (wanted >= 10'000) {
    EXPECT_GT(allowed, pairs / 10);
    EXPECT_GT(pairs - allowed, pairs / 10);
    EXPECT_GT(anywhere, pairs / 100);
    EXPECT_GT(allowed - anywhere, pairs / 100);
    EXPECT_GT(open, 0U);
    EXPECT_GT(in_many_groups, pairs / 1000);
    // Large sets are rare; a short run may have none.
    if (wanted >= 500'000) {
      EXPECT_GT(far_rules, pairs / 10'000);
    }
  }
}

}  // namespace
}  // namespace trunkline
