// SPDX-License-Identifier: BSD-3-Clause
#include "control/rpc/removals.h"

#include <gtest/gtest.h>

namespace trunkline::control {
namespace {

using config::DesiredState;
using config::Problems;

// So many complete ENIs of one subnet and group, and as many members of it elsewhere.
DesiredState state_of(int enis, int members = 0) {
  DesiredState state;
  config::Subnet subnet;
  subnet.id = "subnet-1";
  subnet.cidr = *IpPrefix::parse("10.0.0.0/24");
  state.subnets[subnet.id] = subnet;
  config::SecurityGroup group;
  group.id = "sg-1";
  state.security_groups[group.id] = group;
  for (int i = 0; i < enis; ++i) {
    config::Attachment attachment;
    attachment.eni_id = "eni-" + std::to_string(i);
    attachment.mac = MacAddress{{0x0a, 0, 0, 0, 0, static_cast<std::uint8_t>(i + 1)}};
    attachment.vlan = VlanId{static_cast<std::uint16_t>(i + 1)};
    attachment.subnet_id = subnet.id;
    attachment.group_ids = {group.id};
    attachment.addresses = {IpAddress::from_v4(static_cast<std::uint32_t>(0x0a000010 + i))};
    attachment.port.emplace();
    state.attachments[attachment.eni_id] = attachment;
  }
  for (int i = 0; i < members; ++i) state.remote_members["sg-1"].insert(IpAddress::from_v4(static_cast<std::uint32_t>(0x0a010000 + i)));
  return state;
}

class RemovalsTest : public testing::Test {
 protected:
  Problems check(const DesiredState& before, const DesiredState& after, RemovalConsent consent = {}) {
    warnings_.clear();
    return check_removals(before, after, config_, consent, "/document", warnings_);
  }
  static std::string first(const Problems& problems) {
    return problems.empty() ? "" : problems.front().name + " " + problems.front().pointer + " " + problems.front().message;
  }
  void expect(const Problems& problems, const std::string& words) { EXPECT_NE(first(problems).find(words), std::string::npos) << first(problems); }

  config::EngineConfig config_;
  std::vector<std::string> warnings_;
};

TEST_F(RemovalsTest, NothingIsRefusedUntilItIsSaidTwice) {
  expect(check(state_of(3), {}), "would_empty /document the state that is given has nothing in it");
  expect(check(state_of(3), {}), "--allow-empty");
  expect(check(state_of(3), {}, {.removal = true}), "would_empty");
  EXPECT_TRUE(check(state_of(3), {}, {.empty = true}).empty());
  ASSERT_EQ(warnings_.size(), 3U) << "ENIs, groups, subnets";
  EXPECT_NE(warnings_[0].find("3 of 3 ENIs go out of service (eni-0, eni-1, eni-2)"), std::string::npos) << warnings_[0];
  // The config file's own subnets are in every state.
  DesiredState configured;
  configured.subnets["subnet-1"] = state_of(0).subnets.at("subnet-1");
  expect(check(state_of(3), configured), "--allow-removal");
  config_.subnets = {configured.subnets.at("subnet-1")};
  expect(check(state_of(3), configured, {.removal = true}), "would_empty");
}

TEST_F(RemovalsTest, MoreThanTheShareIsRefusedAndTheNumbersAreTold) {
  EXPECT_TRUE(check(state_of(4), state_of(4)).empty());
  EXPECT_TRUE(warnings_.empty());
  EXPECT_TRUE(check(state_of(4), state_of(2)).empty()) << "half is not more than half";
  EXPECT_EQ(warnings_, std::vector<std::string>{"2 of 4 ENIs go out of service (eni-2, eni-3)"});
  expect(check(state_of(4), state_of(1)), "would_remove /document 3 of 4 ENIs go out of service (eni-1, eni-2, eni-3), and limits.state_replace_removal_percent is 50; if that is meant");
  EXPECT_TRUE(check(state_of(4), state_of(1), {.removal = true}).empty());
  EXPECT_EQ(warnings_.size(), 1U);
  expect(check(state_of(4), state_of(1), {.empty = true}), "would_remove");
  expect(check(state_of(100), state_of(1)), "and 94 more");
  EXPECT_TRUE(check(state_of(4), state_of(200)).empty());
  EXPECT_TRUE(check(state_of(0), state_of(4)).empty());
  config_.limits.state_replace_removal_percent = 0;
  expect(check(state_of(100), state_of(99)), "1 of 100");
  config_.limits.state_replace_removal_percent = 100;
  EXPECT_TRUE(check(state_of(4), state_of(0)).empty());
}

TEST_F(RemovalsTest, AnEniWhoseGroupGoesIsOutOfServiceAsWell) {
  DesiredState after = state_of(4);
  after.security_groups.erase("sg-1");
  expect(check(state_of(4), after), "4 of 4 ENIs go out of service");
  // One that waited before loses nothing.
  DesiredState before = after;
  EXPECT_TRUE(check(before, after).empty());
}

TEST_F(RemovalsTest, MembersAndNetworkAclsCountToo) {
  expect(check(state_of(1, 10), state_of(1, 4)), "6 of 10 members of security groups are removed");
  EXPECT_TRUE(check(state_of(1, 10), state_of(1, 5)).empty());
  expect(check(state_of(1, 10), state_of(1, 0)), "10 of 10 members");
  EXPECT_TRUE(check(state_of(1, 10), state_of(1, 0), {.removal = true}).empty());
  DesiredState closed = state_of(1);
  config::NetworkAcl acl;
  acl.id = "acl-1";
  acl.subnet_ids = {"subnet-1"};
  closed.network_acls[acl.id] = acl;
  expect(check(closed, state_of(1)), "subnet-1 has ENIs here and no network ACL any more: everything passes");
  EXPECT_TRUE(check(closed, state_of(1), {.removal = true}).empty());
  EXPECT_EQ(warnings_.size(), 2U) << "and that an ACL is removed";
}

TEST_F(RemovalsTest, AListThatReplacesAKind) {
  const auto replaced = [&](std::size_t before, std::size_t lost, std::size_t given, RemovalConsent consent = {}) {
    return check_replaced("security groups", {lost, before}, given, config_, consent, "/x");
  };
  EXPECT_TRUE(replaced(0, 0, 0).empty());
  EXPECT_TRUE(replaced(4, 2, 2).empty()) << "half is not more than half";
  expect(replaced(5, 4, 1), "would_remove /x 4 of 5 security groups are removed");
  EXPECT_TRUE(replaced(5, 4, 1, {.removal = true}).empty());
  EXPECT_TRUE(replaced(5, 5, 0, {.empty = true}).empty());
  expect(replaced(5, 5, 0), "would_empty /x the list is empty, so all 5 security groups would go");
}

TEST_F(RemovalsTest, EveryKindCounts) {
  config::SecurityGroupRule rule;
  rule.ranges = {*IpPrefix::parse("10.0.0.0/8"), *IpPrefix::parse("10.1.0.0/16")};
  DesiredState full = state_of(1);
  full.security_groups["sg-1"].ingress = {rule, rule};
  for (int i = 2; i < 6; ++i) full.security_groups["sg-" + std::to_string(i)].id = "sg-" + std::to_string(i);
  config::PrefixList list{"pl-1", {}};
  for (std::uint32_t i = 0; i < 100; ++i) list.entries.push_back({IpAddress::from_v4(0x0a000000U + i), 32});
  full.prefix_lists["pl-1"] = list;
  EXPECT_TRUE(check(full, full).empty());
  DesiredState next = full;
  for (int i = 3; i < 6; ++i) next.security_groups.erase("sg-" + std::to_string(i));
  expect(check(full, next), "3 of 5 security groups are removed");
  EXPECT_TRUE(check(full, next, {.removal = true}).empty());
  EXPECT_EQ(warnings_.size(), 1U);
  next = full;
  next.security_groups["sg-1"].ingress.clear();
  expect(check(full, next), "4 of 4 sources of rules are removed");
  next.security_groups["sg-1"].egress = {rule};
  EXPECT_TRUE(check(full, next).empty()) << "half of them is there, though another rule";
  next = full;
  next.prefix_lists["pl-1"].entries.resize(49);
  expect(check(full, next), "51 of 100 entries of prefix lists are removed");
  next = full;
  next.prefix_lists.erase("pl-1");
  expect(check(full, next), "100 of 100 entries of prefix lists are removed");
  for (const char* id : {"acl-1", "acl-2"}) full.network_acls[id].id = id;
  next = full;
  next.network_acls.erase("acl-1"), next.network_acls.erase("acl-2");
  expect(check(full, next), "2 of 2 network ACLs are removed");
  // A subnet that has no ENI; one of the config file comes back by itself.
  DesiredState subnets = state_of(0), none = subnets;
  subnets.security_groups["sg-1"].id = none.security_groups["sg-1"].id = "sg-1";
  none.subnets.erase("subnet-1");
  expect(check(subnets, none), "1 of 1 subnets are removed");
  config_.subnets = {subnets.subnets.at("subnet-1")};
  EXPECT_TRUE(check(subnets, none).empty());
}

}  // namespace
}  // namespace trunkline::control
