// SPDX-License-Identifier: BSD-3-Clause
//
// What security groups mean, case by case, through the compiler and the compiled form. The property test covers the
// combinations; these name the sentences of the specification.
#include "dataplane/state/policy.h"

#include <gtest/gtest.h>

#include <array>
#include <map>
#include <string>
#include <vector>

#include "control/compile.h"

namespace trunkline {
namespace {

using config::SecurityGroup;
using config::SecurityGroupRule;

IpAddress ip(const char* text) { return IpAddress::parse(text).value(); }
IpPrefix net(const char* text) { return IpPrefix::parse(text).value(); }

SecurityGroupRule rule(int protocol, int from, int to, std::vector<IpPrefix> ranges,
                       std::vector<std::string> groups = {}, std::vector<std::string> lists = {}) {
  return {protocol, from, to, std::move(ranges), std::move(lists), std::move(groups)};
}

constexpr std::uint8_t kIcmp = 1, kTcp = 6, kUdp = 17, kEsp = 50, kIcmp6 = 58;

class PolicyTest : public testing::Test {
 protected:
  const RuleBits& ingress(std::vector<SecurityGroupRule> rules) {
    SecurityGroup group;
    group.id = "sg-00000001";
    group.ingress = std::move(rules);
    const SecurityGroup* groups[] = {&group};
    policy_ = control::compile_policy(groups, lists_, numbers_, 7);
    return policy_->ingress;
  }
  static bool allows(const RuleBits& rules, const char* remote, std::uint8_t protocol, unsigned port,
                     std::vector<GroupId> groups = {}) {
    return rules.match({ip(remote), protocol, static_cast<std::uint16_t>(port)}, groups).allowed;
  }

  std::map<std::string, config::PrefixList> lists_;
  control::GroupNumbers numbers_;
  std::shared_ptr<const Policy> policy_;
};

TEST_F(PolicyTest, NothingIsAllowedWithoutRules) {
  EXPECT_FALSE(allows(RuleBits{}, "10.0.0.1", kTcp, 80));
  EXPECT_FALSE(RuleBits{}.open_to_everyone(kTcp, true));
  const RuleBits& none = ingress({});
  EXPECT_EQ(none.rule_count(), 0U);
  EXPECT_EQ(none.match({ip("10.0.0.1"), kTcp, 80}, {}), RuleMatch{});
}

TEST_F(PolicyTest, RuleWithoutSourcesMatchesNothing) {
  const RuleBits& rules = ingress({rule(-1, -1, -1, {})});
  EXPECT_EQ(rules.rule_count(), 1U);
  EXPECT_FALSE(allows(rules, "10.0.0.1", kTcp, 80));
  EXPECT_FALSE(allows(rules, "2001:db8::1", kEsp, 0));
}

TEST_F(PolicyTest, PortsAreInclusive) {
  const RuleBits& rules = ingress({rule(kTcp, 8000, 8999, {net("0.0.0.0/0")}), rule(kUdp, 0, 0, {net("::/0")}),
                                   rule(kUdp, 65535, 65535, {net("::/0")})});
  EXPECT_FALSE(allows(rules, "10.0.0.1", kTcp, 7999));
  EXPECT_TRUE(allows(rules, "10.0.0.1", kTcp, 8000));
  EXPECT_TRUE(allows(rules, "10.0.0.1", kTcp, 8999));
  EXPECT_FALSE(allows(rules, "10.0.0.1", kTcp, 9000));
  EXPECT_FALSE(allows(rules, "10.0.0.1", kUdp, 8000));
  EXPECT_TRUE(allows(rules, "fd00::1", kUdp, 0));
  EXPECT_FALSE(allows(rules, "fd00::1", kUdp, 1));
  EXPECT_FALSE(allows(rules, "fd00::1", kUdp, 65534));
  EXPECT_TRUE(allows(rules, "fd00::1", kUdp, 65535));
}

TEST_F(PolicyTest, AddressRangesEndWhereTheyEnd) {
  const RuleBits& rules = ingress({rule(kTcp, 22, 22, {net("203.0.113.4/30")}),
                                   rule(kTcp, 22, 22, {net("255.255.255.255/32"), net("0.0.0.0/32")}),
                                   rule(kTcp, 22, 22, {net("2001:db8::/32"), net("ffff:ffff:ffff:ffff::/64")})});
  EXPECT_FALSE(allows(rules, "203.0.113.3", kTcp, 22));
  EXPECT_TRUE(allows(rules, "203.0.113.4", kTcp, 22));
  EXPECT_TRUE(allows(rules, "203.0.113.7", kTcp, 22));
  EXPECT_FALSE(allows(rules, "203.0.113.8", kTcp, 22));
  EXPECT_TRUE(allows(rules, "255.255.255.255", kTcp, 22));
  EXPECT_FALSE(allows(rules, "255.255.255.254", kTcp, 22));
  EXPECT_TRUE(allows(rules, "0.0.0.0", kTcp, 22));
  EXPECT_FALSE(allows(rules, "0.0.0.1", kTcp, 22));
  EXPECT_TRUE(allows(rules, "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff", kTcp, 22));
  EXPECT_FALSE(allows(rules, "2001:db9::", kTcp, 22));
  EXPECT_FALSE(allows(rules, "2001:db7:ffff:ffff:ffff:ffff:ffff:ffff", kTcp, 22));
  EXPECT_TRUE(allows(rules, "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", kTcp, 22));
  EXPECT_FALSE(allows(rules, "ffff:ffff:ffff:fffe:ffff:ffff:ffff:ffff", kTcp, 22));
}

TEST_F(PolicyTest, FamiliesAreSeparateWorlds) {
  EXPECT_FALSE(allows(ingress({rule(-1, -1, -1, {net("0.0.0.0/0")})}), "2001:db8::1", kTcp, 80));
  EXPECT_FALSE(allows(ingress({rule(-1, -1, -1, {net("::/0")})}), "10.0.0.1", kTcp, 80));
  // The mapped block ::ffff:0:0/96 lies numerically inside ::/64; its last IPv6 address reads as an IPv4 one.
  const RuleBits& rules = ingress({rule(-1, -1, -1, {net("::/64"), net("::/80")})});
  EXPECT_FALSE(allows(rules, "10.0.0.1", kTcp, 80));
  EXPECT_TRUE(allows(rules, "::1", kTcp, 80));
  EXPECT_TRUE(allows(rules, "::1:0:0:1", kTcp, 80));
  EXPECT_FALSE(allows(rules, "0:0:0:1::", kTcp, 80));
}

TEST_F(PolicyTest, Icmp) {
  const RuleBits& rules = ingress({rule(kIcmp, 8, -1, {net("10.0.0.0/16")}), rule(kIcmp, 3, 4, {net("0.0.0.0/0")}),
                                   rule(kIcmp6, 128, 0, {net("::/0")}), rule(kIcmp, -1, -1, {net("::/0")}),
                                   rule(kIcmp6, -1, -1, {net("0.0.0.0/0")})});
  EXPECT_TRUE(allows(rules, "10.0.0.1", kIcmp, 8 << 8));
  EXPECT_TRUE(allows(rules, "10.0.0.1", kIcmp, 8 << 8 | 255));
  EXPECT_FALSE(allows(rules, "10.1.0.1", kIcmp, 8 << 8));
  EXPECT_FALSE(allows(rules, "10.0.0.1", kIcmp, 7 << 8 | 255));
  EXPECT_FALSE(allows(rules, "10.0.0.1", kIcmp, 9 << 8));
  EXPECT_TRUE(allows(rules, "10.1.0.1", kIcmp, 3 << 8 | 4));
  EXPECT_FALSE(allows(rules, "10.1.0.1", kIcmp, 3 << 8 | 3));
  EXPECT_TRUE(allows(rules, "fd00::1", kIcmp6, 128 << 8));
  EXPECT_FALSE(allows(rules, "fd00::1", kIcmp6, 128 << 8 | 1));
  // Neither protocol exists in the other family, whatever a packet claims.
  EXPECT_FALSE(allows(rules, "fd00::1", kIcmp, 8 << 8));
  EXPECT_FALSE(allows(rules, "10.0.0.1", kIcmp6, 128 << 8));
}

TEST_F(PolicyTest, AnyProtocolCoversEveryProtocolAndIgnoresPorts) {
  const RuleBits& rules = ingress({rule(-1, 80, 80, {net("10.0.0.0/8"), net("fd00::/8")})});
  for (unsigned protocol = 0; protocol < 256; ++protocol) {
    EXPECT_TRUE(allows(rules, "10.1.2.3", static_cast<std::uint8_t>(protocol), 12345)) << protocol;
    EXPECT_TRUE(allows(rules, "fd00::9", static_cast<std::uint8_t>(protocol), 0)) << protocol;
    EXPECT_FALSE(allows(rules, "11.0.0.0", static_cast<std::uint8_t>(protocol), 80)) << protocol;
  }
}

TEST_F(PolicyTest, OtherProtocolsIgnorePorts) {
  const RuleBits& rules = ingress({rule(kEsp, 5, 6, {net("198.51.100.7/32")}), rule(0, -1, -1, {net("fd00::/8")}),
                                   rule(255, -1, -1, {net("198.51.100.7/32")})});
  EXPECT_TRUE(allows(rules, "198.51.100.7", kEsp, 0));
  EXPECT_FALSE(allows(rules, "198.51.100.8", kEsp, 0));
  EXPECT_FALSE(allows(rules, "198.51.100.7", kEsp - 1, 0));
  EXPECT_FALSE(allows(rules, "198.51.100.7", kEsp + 1, 0));
  EXPECT_TRUE(allows(rules, "fd00::1", 0, 0));
  EXPECT_TRUE(allows(rules, "198.51.100.7", 255, 0));
}

TEST_F(PolicyTest, InvalidRulesMatchNothing) {
  const std::vector<IpPrefix> all{net("0.0.0.0/0"), net("::/0")};
  const RuleBits& rules =
      ingress({rule(256, -1, -1, all), rule(-2, -1, -1, all), rule(kTcp, 80, 79, all), rule(kTcp, -1, -1, all),
               rule(kUdp, 65536, 70000, all), rule(kIcmp, 256, -1, all), rule(kIcmp6, -1, 256, all)});
  for (unsigned protocol = 0; protocol < 256; ++protocol) {
    for (const unsigned port : {0U, 79U, 80U, 255U, 256U, 65535U}) {
      EXPECT_FALSE(allows(rules, "10.0.0.1", static_cast<std::uint8_t>(protocol), port));
      EXPECT_FALSE(allows(rules, "fd00::1", static_cast<std::uint8_t>(protocol), port));
    }
  }
  EXPECT_FALSE(rules.open_to_everyone(kTcp, true));
}

TEST_F(PolicyTest, GroupReferences) {
  const RuleBits& rules = ingress({rule(kTcp, 80, 80, {}, {"sg-000000aa"}), rule(kTcp, 81, 81, {}, {"sg-000000bb"})});
  const GroupId a = numbers_.find("sg-000000aa").value(), b = numbers_.find("sg-000000bb").value();
  const GroupId stranger = numbers_.number("sg-000000cc");
  EXPECT_FALSE(allows(rules, "10.0.0.1", kTcp, 80));
  EXPECT_FALSE(allows(rules, "10.0.0.1", kTcp, 80, {stranger, b, GroupId{}}));
  EXPECT_TRUE(allows(rules, "10.0.0.1", kTcp, 80, {a}));
  EXPECT_TRUE(allows(rules, "10.0.0.1", kTcp, 81, {a, b}));
  EXPECT_TRUE(allows(rules, "fd00::1", kTcp, 80, {stranger, a}));
  EXPECT_FALSE(rules.match({ip("10.0.0.1"), kTcp, 80}, std::array{a}).from_anywhere);
  // Membership in very many groups is one union, wherever the group that counts stands in it.
  std::vector<GroupId> many(100, b);
  many.push_back(a);
  EXPECT_EQ(rules.match({ip("10.0.0.1"), kTcp, 80}, many).rule, 0);
  EXPECT_EQ(rules.match({ip("10.0.0.1"), kTcp, 81}, many).rule, 1);
}

TEST_F(PolicyTest, LowestRuleOfManyGroups) {
  SecurityGroup first, second;
  first.id = "sg-00000001";
  second.id = "sg-00000002";
  first.ingress = {rule(kTcp, 22, 22, {net("10.0.0.0/8")}), rule(-1, -1, -1, {}, {"sg-00000001"})};
  second.ingress = {rule(kTcp, 0, 65535, {net("10.1.0.0/16")})};
  second.egress = {rule(-1, -1, -1, {net("0.0.0.0/0")})};
  const SecurityGroup* groups[] = {&first, nullptr, &second};
  policy_ = control::compile_policy(groups, lists_, numbers_, 9);
  EXPECT_EQ(policy_->generation, 9U);
  const RuleBits& rules = policy_->rules(Direction::ingress);
  EXPECT_EQ(rules.rule_count(), 3U);
  EXPECT_EQ(rules.match({ip("10.1.0.1"), kTcp, 22}, {}).rule, 0);
  EXPECT_EQ(rules.match({ip("10.1.0.1"), kTcp, 23}, {}).rule, 2);
  const GroupId self = numbers_.find("sg-00000001").value();
  EXPECT_EQ(rules.match({ip("10.1.0.1"), kTcp, 23}, std::array{self}).rule, 1);
  EXPECT_EQ(policy_->rules(Direction::egress).match({ip("8.8.8.8"), kUdp, 53}, {}).rule, 0);
  const auto origins = control::rule_origins(groups, Direction::ingress);
  EXPECT_EQ(origins, (std::vector<control::RuleOrigin>{{"sg-00000001", 0}, {"sg-00000001", 1}, {"sg-00000002", 0}}));
}

TEST_F(PolicyTest, PrefixListsAreTheirEntries) {
  lists_["pl-1"] = {"pl-1", {net("10.2.0.0/16"), net("10.3.0.0/16")}};
  const RuleBits& rules = ingress({rule(kTcp, 443, 443, {net("192.0.2.1/32")}, {}, {"pl-1", "pl-unknown"})});
  EXPECT_TRUE(allows(rules, "10.2.0.0", kTcp, 443));
  EXPECT_TRUE(allows(rules, "10.3.255.255", kTcp, 443));
  EXPECT_FALSE(allows(rules, "10.4.0.0", kTcp, 443));
  EXPECT_TRUE(allows(rules, "192.0.2.1", kTcp, 443));
  EXPECT_FALSE(allows(rules, "10.2.0.0", kTcp, 444));
}

TEST_F(PolicyTest, OverlappingSourcesOfOneRule) {
  // The inner range ends first; the rule must still hold behind it.
  const RuleBits& rules = ingress({rule(kTcp, 1, 1, {net("10.0.0.0/8"), net("10.1.0.0/16"), net("10.1.0.0/16"),
                                                     net("0.0.0.0/1"), net("128.0.0.0/1")})});
  for (const char* remote : {"0.0.0.0", "9.255.255.255", "10.0.0.0", "10.1.255.255", "10.2.0.0", "11.0.0.0",
                             "127.255.255.255", "128.0.0.0", "255.255.255.255"}) {
    EXPECT_TRUE(allows(rules, remote, kTcp, 1)) << remote;
  }
  // Everything in effect, but nobody wrote 0.0.0.0/0.
  EXPECT_FALSE(rules.match({ip("10.1.2.3"), kTcp, 1}, {}).from_anywhere);
}

TEST_F(PolicyTest, FromAnywhereIsAboutMatchingRules) {
  const RuleBits& rules = ingress({rule(kTcp, 22, 22, {net("203.0.113.1/32")}), rule(kTcp, 80, 80, {net("0.0.0.0/0")}),
                                   rule(kTcp, 22, 23, {net("203.0.113.0/24"), net("::/0")}),
                                   rule(kUdp, 0, 65535, {net("0.0.0.0/0")})});
  EXPECT_EQ(rules.match({ip("203.0.113.1"), kTcp, 22}, {}), (RuleMatch{true, false, 0}));
  EXPECT_EQ(rules.match({ip("203.0.113.1"), kTcp, 80}, {}), (RuleMatch{true, true, 1}));
  EXPECT_EQ(rules.match({ip("203.0.113.1"), kTcp, 23}, {}), (RuleMatch{true, false, 2}));
  EXPECT_EQ(rules.match({ip("fd00::1"), kTcp, 23}, {}), (RuleMatch{true, true, 2}));
}

TEST_F(PolicyTest, OpenToEveryone) {
  const auto open = [](const RuleBits& rules) {
    return std::array{rules.open_to_everyone(kTcp, true), rules.open_to_everyone(kTcp, false),
                      rules.open_to_everyone(kUdp, true), rules.open_to_everyone(kUdp, false)};
  };
  const std::vector<IpPrefix> v4{net("0.0.0.0/0")}, v6{net("::/0")};
  EXPECT_EQ(open(ingress({rule(-1, -1, -1, v4)})), (std::array{true, false, true, false}));
  EXPECT_EQ(open(ingress({rule(-1, -1, -1, v6)})), (std::array{false, true, false, true}));
  EXPECT_EQ(open(ingress({rule(kTcp, 0, 65535, v4)})), (std::array{true, false, false, false}));
  EXPECT_EQ(open(ingress({rule(kUdp, 0, 65535, v6)})), (std::array{false, false, false, true}));
  EXPECT_EQ(open(ingress({rule(kTcp, 1, 65535, v4), rule(kTcp, 0, 65534, v4), rule(kIcmp, -1, -1, v4),
                          rule(kEsp, -1, -1, v4), rule(-1, -1, -1, {net("0.0.0.0/1"), net("128.0.0.0/1")})})),
            (std::array{false, false, false, false}));
  const RuleBits& all = ingress({rule(-1, -1, -1, v4)});
  EXPECT_FALSE(all.open_to_everyone(kIcmp, true));
  EXPECT_FALSE(all.open_to_everyone(kEsp, true));
}

TEST_F(PolicyTest, RulesFillWordsToTheEdge) {
  for (const std::size_t count : {1U, 63U, 64U, 65U, 127U, 128U, 129U, 1000U}) {
    std::vector<SecurityGroupRule> list;
    for (std::size_t i = 0; i < count; ++i) {
      list.push_back(rule(kTcp, static_cast<int>(i), static_cast<int>(i), {net("0.0.0.0/0")}));
    }
    const RuleBits& rules = ingress(list);
    EXPECT_EQ(rules.rule_count(), count);
    for (std::size_t i = 0; i < count; ++i) {
      ASSERT_EQ(rules.match({ip("10.0.0.1"), kTcp, static_cast<std::uint16_t>(i)}, {}),
                (RuleMatch{true, true, static_cast<RuleId>(i)}));
    }
    EXPECT_FALSE(allows(rules, "10.0.0.1", kTcp, static_cast<unsigned>(count)));
  }
}

TEST_F(PolicyTest, MoreRulesThanNumbersAreLeftOut) {
  const IpPrefix one[]{net("10.0.0.1/32")}, two[]{net("10.0.0.2/32")}, three[]{net("10.0.0.3/32")};
  std::vector<RuleSpec> specs(RuleBits::kMaxRules + 1, RuleSpec{kTcp, 1, 1, one, {}});
  specs[RuleBits::kMaxRules - 1] = RuleSpec{kTcp, 2, 2, two, {}};
  specs[RuleBits::kMaxRules] = RuleSpec{kTcp, 3, 3, three, {}};
  const RuleBits rules = RuleBits::compile(specs);
  EXPECT_EQ(rules.rule_count(), RuleBits::kMaxRules);
  EXPECT_EQ(rules.match({ip("10.0.0.1"), kTcp, 1}, {}).rule, 0);
  EXPECT_EQ(rules.match({ip("10.0.0.2"), kTcp, 2}, {}).rule, RuleBits::kMaxRules - 1);
  EXPECT_FALSE(allows(rules, "10.0.0.3", kTcp, 3));
}

// What the property test cannot say by chance: several ENIs in one batch, one of them without rules, and members whose
// third group is the one that counts.
TEST_F(PolicyTest, BatchAsksManyEnis) {
  const IpPrefix subnet[]{net("10.0.0.0/8")}, everywhere[]{net("0.0.0.0/0")};
  const GroupId named[]{GroupId{3}};
  const RuleSpec first{kTcp, 80, 80, subnet, {}}, second{kUdp, 53, 53, everywhere, {}}, third{-1, -1, -1, {}, named};
  const RuleBits web = RuleBits::compile({&first, 1}), dns = RuleBits::compile({&second, 1}), peers = RuleBits::compile({&third, 1});
  const RuleBits none;
  Members members(4);
  ASSERT_TRUE(members.set(ip("192.0.2.1"), std::vector{GroupId{1}, GroupId{2}, GroupId{3}}));
  ASSERT_TRUE(members.set(ip("fd00::1"), named));
  for (const SearchIsa isa : {SearchIsa::scalar, SearchIsa::avx2, SearchIsa::avx512}) {
    if (!is_available(isa)) continue;
    std::vector<RuleLookup> lookups{
        {&web, {ip("10.0.0.1"), kTcp, 80}, {}},      {&none, {ip("10.0.0.1"), kTcp, 80}, {true, true, 7}},
        {&dns, {ip("10.0.0.1"), kTcp, 80}, {}},      {&dns, {ip("10.0.0.1"), kUdp, 53}, {}},
        {&peers, {ip("192.0.2.1"), kEsp, 0}, {}},    {&peers, {ip("192.0.2.2"), kEsp, 0}, {}},
        {&peers, {ip("fd00::1"), kIcmp6, 0}, {}},    {&web, {ip("11.0.0.1"), kTcp, 80}, {}}};
    match_rules(lookups, members, isa);
    const RuleMatch refused, allowed{true, false, 0};
    const RuleMatch expected[]{allowed, refused, refused, {true, true, 0}, allowed, refused, allowed, refused};
    for (std::size_t i = 0; i < lookups.size(); ++i) EXPECT_EQ(lookups[i].match, expected[i]) << i;
    match_rules({}, members, isa);
  }
}

// 600 sources that do not touch make a list of three levels, for one port and for all of a kind. Asked at both ends of each
// source, and one beside them, one by one and in batches of one ENI and of two.
TEST_F(PolicyTest, ManySourcesOfOnePort) {
  std::vector<IpPrefix> sources;
  for (std::uint32_t i = 0; i < 600; ++i) sources.push_back({IpAddress::from_v4(0x0a000000U + i * 512), 24});
  std::vector<RuleSpec> specs;
  for (int port = 1; port <= 20; ++port) specs.push_back({kUdp, port * 100, port * 100, {}, {}});
  specs.push_back({kTcp, 80, 80, sources, {}});
  specs.push_back({kUdp, 0, 65535, sources, {}});
  const RuleBits rules = RuleBits::compile(specs), same = RuleBits::compile(specs);
  const Members members(1);
  const RuleMatch refused;
  for (const SearchIsa isa : {SearchIsa::scalar, SearchIsa::avx2, SearchIsa::avx512}) {
    if (!is_available(isa)) continue;
    for (const bool of_two : {false, true}) {
      for (std::uint32_t i = 0; i < 600; ++i) {
        std::vector<RuleLookup> lookups;
        std::vector<RuleMatch> expected;
        for (const std::uint8_t protocol : {kTcp, kUdp}) {
          const RuleMatch allowed{true, false, static_cast<RuleId>(protocol == kTcp ? 20 : 21)};
          for (const std::uint32_t address : {0U, 255U, 256U, 511U}) {
            const FlowQuery query{IpAddress::from_v4(0x0a000000U + i * 512 + address), protocol, 80};
            expected.push_back(address < 256 ? allowed : refused);
            EXPECT_EQ(rules.match(query, {}, isa), expected.back()) << i << " " << address;
            lookups.push_back({of_two && address == 255 ? &same : &rules, query, {}});
          }
        }
        match_rules(lookups, members, isa);
        for (std::size_t each = 0; each < lookups.size(); ++each) EXPECT_EQ(lookups[each].match, expected[each]) << i << " " << each;
      }
    }
  }
}

TEST_F(PolicyTest, MovedFromAllowsNothing) {
  const IpPrefix everywhere[]{net("0.0.0.0/0")};
  const RuleSpec everything{-1, -1, -1, everywhere, {}};
  RuleBits from = RuleBits::compile({&everything, 1});
  EXPECT_GT(from.memory_bytes(), sizeof from);
  RuleBits to = std::move(from);
  EXPECT_TRUE(allows(to, "10.0.0.1", kTcp, 80));
  EXPECT_FALSE(allows(from, "10.0.0.1", kTcp, 80));  // NOLINT(bugprone-use-after-move)
  EXPECT_FALSE(from.open_to_everyone(kTcp, true));
}

// 60 rules, all ports and sources distinct: the size that the host's memory is planned with.
TEST_F(PolicyTest, OrdinaryGroupIsSmall) {
  std::vector<SecurityGroupRule> list;
  for (int i = 0; i < 60; ++i) {
    const IpPrefix range{IpAddress::from_v4(0x0a000000U + static_cast<unsigned>(i) * 512), 24};
    list.push_back(rule(kTcp, 1000 + 10 * i, 1004 + 10 * i, {range}));
  }
  EXPECT_LT(ingress(list).memory_bytes(), 4096U);
}

TEST(GroupNumbersTest, NumbersAreStable) {
  control::GroupNumbers numbers;
  EXPECT_FALSE(numbers.find("sg-00000001").has_value());
  const GroupId a = numbers.number("sg-00000001");
  const std::string& name = numbers.name(a);
  const GroupId b = numbers.number("sg-00000002");
  for (int i = 0; i < 1000; ++i) numbers.number("sg-more" + std::to_string(i));
  EXPECT_NE(a, b);
  EXPECT_EQ(numbers.number("sg-00000001"), a);
  EXPECT_EQ(numbers.find("sg-00000002"), b);
  EXPECT_EQ(&numbers.name(a), &name);
  EXPECT_EQ(name, "sg-00000001");
  EXPECT_THROW(numbers.name(GroupId{}), std::out_of_range);
}

}  // namespace
}  // namespace trunkline
