// SPDX-License-Identifier: BSD-3-Clause
// What the controller makes of network ACLs and of an ENI's settings: which endpoints get which, and which are left alone.
#include "tests/support/controller_fixture.h"

namespace trunkline::control {
namespace {

using config::NetworkAclEntry;

class ControllerAclTest : public ControllerTest {
 protected:
  // eni-1 and eni-2 are in the one subnet, eni-3 in the other.
  ControllerAclTest() {
    put_group();
    change([](config::DesiredState& next) {
      config::Subnet other;
      other.id = "subnet-2";
      other.cidr = *IpPrefix::parse("10.0.1.0/24");
      other.vpc_cidr = IpPrefix::parse("10.0.0.0/16");
      next.subnets["subnet-2"] = other;
      for (const int number : {1, 2, 3}) {
        config::Attachment each = attachment(number);
        if (number == 3) each.subnet_id = "subnet-2";
        if (number == 3) each.addresses = {*IpAddress::parse("10.0.1.16")};
        next.attachments[each.eni_id] = each;
      }
    });
  }
  ChangeResult change(const std::function<void(config::DesiredState&)>& edit, ChangeOptions options = {}) {
    const auto result = controller_->change([&](config::DesiredState& next, std::vector<std::string>&) {
      edit(next);
      return config::Problems{};
    }, options);
    EXPECT_TRUE(result) << result.error().front().message;
    return result.value_or(ChangeResult{});
  }
  static std::function<void(config::DesiredState&)> put(const std::string& id, int port, std::vector<std::string> subnets) {
    return [=](config::DesiredState& next) {
      config::NetworkAcl& acl = next.network_acls[id];
      acl.id = id;
      acl.ingress = {NetworkAclEntry{100, true, 6, port, port, *IpPrefix::parse("0.0.0.0/0")}};
      acl.subnet_ids = subnets;
    };
  }
  bool lets_in(int number, std::uint16_t port) const {
    const auto& acl = endpoint(number)->network_acl;
    return acl == nullptr || acl->ask({*IpAddress::parse("198.51.100.9"), 6, port}, Direction::ingress).allowed;
  }
  static constexpr const char* kFirst = "subnet-c070009b";
};

TEST_F(ControllerAclTest, WithoutAnAclEverythingPasses) {
  for (const int number : {1, 2, 3}) EXPECT_EQ(endpoint(number)->network_acl, nullptr);
}

TEST_F(ControllerAclTest, AnAclIsForTheEndpointsOfItsSubnetsAndShared) {
  const Endpoint* third = endpoint(3);
  const auto result = change(put("acl-1", 80, {kFirst}));
  EXPECT_EQ(result.steps, (std::vector<std::string>{"update eni-1: network ACL acl-1", "update eni-2: network ACL acl-1"}));
  ASSERT_NE(endpoint(1)->network_acl, nullptr);
  EXPECT_EQ(endpoint(1)->network_acl, endpoint(2)->network_acl);
  EXPECT_EQ(endpoint(3), third) << "whom it does not concern keeps its object";
  EXPECT_TRUE(lets_in(1, 80));
  EXPECT_FALSE(lets_in(1, 443));
  EXPECT_TRUE(lets_in(3, 443));
  EXPECT_TRUE(ports_.contains("eni-1"));
  EXPECT_EQ(ports_.size(), 3U) << "no port was opened anew";
}

TEST_F(ControllerAclTest, AnEditReachesExactlyItsSubnetsWithANewGeneration) {
  change(put("acl-1", 80, {kFirst}));
  change(put("acl-2", 80, {"subnet-2"}));
  const Endpoint* third = endpoint(3);
  const auto first_acl = endpoint(1)->network_acl;
  const std::uint32_t judged = endpoint(1)->policy_generation;
  EXPECT_NE(first_acl->generation, third->network_acl->generation);
  const auto policy = endpoint(1)->policy;
  change(put("acl-1", 443, {kFirst}));
  EXPECT_TRUE(lets_in(1, 443) && lets_in(2, 443));
  EXPECT_FALSE(lets_in(1, 80) || lets_in(2, 80));
  EXPECT_EQ(endpoint(3), third);
  EXPECT_EQ(endpoint(1)->policy, policy) << "the groups were not compiled again";
  EXPECT_GT(endpoint(1)->network_acl->generation, third->network_acl->generation) << "a number is never given again";
  EXPECT_NE(endpoint(1)->policy_generation, judged) << "connections are judged anew";
  // Back to what it was: still another one.
  change(put("acl-1", 80, {kFirst}));
  EXPECT_NE(endpoint(1)->network_acl->generation, first_acl->generation);
}

TEST_F(ControllerAclTest, WhatSaysNothingNewIsNotCompiledAgain) {
  change(put("acl-1", 80, {kFirst}));
  const Endpoint* first = endpoint(1);
  const auto view = published_.latest();
  EXPECT_FALSE(change(put("acl-1", 80, {kFirst})).changed);
  EXPECT_EQ(published_.latest(), view);
  // Neither an association elsewhere nor a name changes what it says.
  const auto acl = first->network_acl;
  const auto result = change([](config::DesiredState& next) {
    next.network_acls["acl-1"].vpc_id = "vpc-1";
    next.network_acls["acl-1"].subnet_ids.push_back("subnet-2");
  });
  EXPECT_EQ(result.steps, (std::vector<std::string>{"update eni-3: network ACL acl-1"}));
  EXPECT_EQ(endpoint(1), first);
  EXPECT_EQ(endpoint(3)->network_acl, acl);
  put_group(81);
  EXPECT_EQ(endpoint(1)->network_acl, acl);
  EXPECT_NE(endpoint(1), first);
}

TEST_F(ControllerAclTest, ASubnetGoesFromOneAclToAnotherInOneStep) {
  change(put("acl-1", 80, {kFirst}));
  change(put("acl-2", 443, {"subnet-2"}));
  const auto second_acl = endpoint(3)->network_acl;
  change([](config::DesiredState& next) {
    next.network_acls["acl-1"].subnet_ids = {};
    next.network_acls["acl-2"].subnet_ids = {"subnet-2", kFirst};
  });
  EXPECT_EQ(endpoint(1)->network_acl, second_acl);
  EXPECT_FALSE(lets_in(2, 80));
  // And back the other way round, where the ACL that loses it comes later by id.
  change([](config::DesiredState& next) {
    next.network_acls["acl-1"].subnet_ids = {kFirst};
    next.network_acls["acl-2"].subnet_ids = {"subnet-2"};
  });
  EXPECT_TRUE(lets_in(1, 80));
  EXPECT_FALSE(lets_in(1, 443));
  const auto result = change([](config::DesiredState& next) { next.network_acls.erase("acl-1"); });
  EXPECT_EQ(result.steps.front(), "update eni-1: no network ACL any more");
  EXPECT_EQ(endpoint(1)->network_acl, nullptr);
  EXPECT_EQ(endpoint(3)->network_acl, second_acl);
}

TEST_F(ControllerAclTest, ADryRunSaysWhatWouldChangeAndChangesNothing) {
  const auto view = published_.latest();
  ChangeOptions dry_run;
  dry_run.dry_run = true;
  const auto result = change(put("acl-1", 80, {"subnet-2"}), dry_run);
  EXPECT_EQ(result.steps, (std::vector<std::string>{"update eni-3: network ACL acl-1"}));
  EXPECT_EQ(published_.latest(), view);
  EXPECT_TRUE(controller_->desired().network_acls.empty());
  change(put("acl-1", 80, {"subnet-2"}));
  EXPECT_FALSE(lets_in(3, 443));
}

TEST_F(ControllerAclTest, WhoComesLaterAndWhoComesBackHasTheAcl) {
  change(put("acl-1", 80, {kFirst}));
  ASSERT_TRUE(detach(1));
  ASSERT_TRUE(attach(4));
  EXPECT_FALSE(lets_in(4, 443));
  EXPECT_EQ(endpoint(4)->network_acl, endpoint(2)->network_acl);
  journal_ = nullptr;
  controller_.reset();
  journal_ = std::make_unique<Journal>(directory_);
  make_controller();
  controller_->restore();
  ASSERT_NE(endpoint(2), nullptr);
  EXPECT_TRUE(lets_in(2, 80));
  EXPECT_FALSE(lets_in(2, 443));
}

TEST_F(ControllerAclTest, SettingsOfAnEniReachItsEndpoint) {
  EXPECT_FALSE(endpoint(1)->limited || endpoint(1)->audit || endpoint(1)->always_track || endpoint(1)->revalidate || endpoint(1)->block_imds);
  const auto port_count = ports_.size();
  const auto result = change([](config::DesiredState& next) {
    config::Attachment& first = next.attachments["eni-1"];
    first.limits = {.ingress_bits = 8000, .egress_bits = 1, .ingress_packets = 5, .egress_packets = 0};
    first.on_change = config::OnChange::revalidate;
    first.always_track = first.audit = first.block_imds = true;
  });
  EXPECT_EQ(result.steps, std::vector<std::string>{"update eni-1"});
  const Endpoint& first = *endpoint(1);
  EXPECT_TRUE(first.limited && first.audit && first.always_track && first.revalidate && first.block_imds);
  EXPECT_EQ(first.limits.bytes[index(Direction::ingress)], 1000U);
  EXPECT_EQ(first.limits.bytes[index(Direction::egress)], 1U) << "a limit of a few bits is not none";
  EXPECT_EQ(first.limits.packets[index(Direction::ingress)], 5U);
  EXPECT_EQ(first.limits.packets[index(Direction::egress)], 0U);
  EXPECT_EQ(ports_.size(), port_count);
  EXPECT_FALSE(endpoint(2)->audit || endpoint(2)->limited);
  change([](config::DesiredState& next) { next.attachments["eni-1"] = attachment(1); });
  EXPECT_FALSE(endpoint(1)->limited || endpoint(1)->audit || endpoint(1)->always_track || endpoint(1)->revalidate || endpoint(1)->block_imds);
}

TEST_F(ControllerAclTest, TheResolverIsTheVpcs) {
  EXPECT_EQ(endpoint(1)->resolver.to_string(), "10.0.0.2");
  EXPECT_EQ(endpoint(3)->resolver.to_string(), "10.0.0.2");
  change([](config::DesiredState& next) { next.subnets["subnet-2"].vpc_cidr = std::nullopt; });
  EXPECT_EQ(endpoint(3)->resolver.to_string(), "10.0.1.2");
}

TEST_F(ControllerAclTest, TheConfigsSettingsAreForEveryEni) {
  EXPECT_FALSE(endpoint(2)->strict_syn || endpoint(2)->icmp_related);
  config_.conntrack.strict_syn = config_.conntrack.icmp_related = config_.edge.block_imds = true;
  ASSERT_TRUE(attach(4));
  EXPECT_TRUE(endpoint(4)->strict_syn && endpoint(4)->icmp_related && endpoint(4)->block_imds);
}

}  // namespace
}  // namespace trunkline::control
