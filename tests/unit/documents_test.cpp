// SPDX-License-Identifier: BSD-3-Clause
//
// Whole documents: what is a page, what is left out, what was not read, whose interfaces are taken. The lists inside are
// ec2_shapes_test's and ec2_acls_test's.
#include "control/aws/documents.h"

#include <gtest/gtest.h>

#include "control/events.h"
#include "tests/unit/aws_data.h"

namespace trunkline::control {
namespace {

using config::DesiredState;

constexpr const char* kAt = "/document";

Json group(const char* id, Json more = Json::object()) {
  Json json{{"GroupId", id}, {"IpPermissions", Json::array()}, {"IpPermissionsEgress", Json::array()}};
  json.update(more);
  return json;
}

// A document with this list of elements.
Json document(const char* key, std::initializer_list<Json> elements) {
  Json json;
  json[key] = Json::array();
  for (const Json& element : elements) json[key].push_back(element);
  return json;
}

Json groups(std::initializer_list<Json> list, const Json& more = Json::object()) {
  Json json = document("SecurityGroups", list);
  json.update(more);
  return json;
}

Json subnet(const char* id, const char* cidr, const char* vpc, Json more = Json::object()) {
  Json json{{"SubnetId", id}, {"CidrBlock", cidr}, {"VpcId", vpc}};
  json.update(more);
  return json;
}

Json subnets(std::initializer_list<Json> list) { return document("Subnets", list); }

std::string all(const Warnings& warnings) {
  std::string text;
  for (const std::string& warning : warnings) text += warning + "\n";
  return text;
}

bool warns(const Warnings& warnings, std::string_view word) { return all(warnings).find(word) != std::string::npos; }

template <typename Read>
Problems problems_of(const Read& read) {
  EXPECT_FALSE(read.has_value());
  return read ? Problems{} : read.error();
}

TEST(GroupsDocument, ItsMembersAreNeverTheRequests) {
  const auto read = read_groups_document(groups({group("sg-1")}, {{"dry_run", true}, {"replace_all", true}, {"ResponseMetadata", {{"HTTPStatusCode", 200}}}}),
                                         kAt, false);
  ASSERT_TRUE(read.has_value()) << all_of(read.error());
  EXPECT_EQ(read->groups.size(), 1U);
  EXPECT_TRUE(warns(read->warnings, "\"document.dry_run\" was not read")) << all(read->warnings);
  EXPECT_TRUE(warns(read->warnings, "\"document.replace_all\" was not read"));
  EXPECT_FALSE(warns(read->warnings, "ResponseMetadata"));
}

TEST(GroupsDocument, APageIsReadUnlessTheRestWouldBeRemoved) {
  const Json page = groups({group("sg-1")}, {{"NextToken", "eyJ2"}});
  const auto read = read_groups_document(page, kAt, false);
  ASSERT_TRUE(read.has_value()) << all_of(read.error());
  EXPECT_TRUE(warns(read->warnings, "one page of several"));
  EXPECT_TRUE(has_problem(problems_of(read_groups_document(page, kAt, true)), "/document/NextToken", "all pages"));
  for (const Json& last : {Json(""), Json(nullptr)}) {
    EXPECT_TRUE(read_groups_document(groups({group("sg-1")}, {{"NextToken", last}}), kAt, true).has_value()) << "no further page";
  }
}

TEST(GroupsDocument, AbsentIsNotEmptyAndAMisspeltListIsAbsent) {
  for (const char* list : {"IpPermissions", "IpPermissionsEgress"}) {
    Json one = group("sg-1");
    one.erase(list);
    EXPECT_TRUE(has_problem(problems_of(read_groups_document(groups({one}), kAt, false)), std::string("/document/SecurityGroups/0/") + list, "missing"));
    one[list] = nullptr;
    EXPECT_TRUE(has_problem(problems_of(read_groups_document(groups({one}), kAt, false)), std::string("/document/SecurityGroups/0/") + list, "missing"));
  }
  Json misspelt = group("sg-1");
  misspelt.erase("IpPermissions");
  misspelt["IpPermission"] = Json::array({1});
  EXPECT_TRUE(has_problem(problems_of(read_groups_document(groups({misspelt}), kAt, false)), "/document/SecurityGroups/0/IpPermission", "IpPermissions"));
  // One list of the sources: the rule would allow less than was meant.
  const Json rule{{"IpProtocol", "-1"}, {"IpRange", {{{"CidrIp", "10.0.0.0/8"}}}}};
  EXPECT_TRUE(has_problem(problems_of(read_groups_document(groups({group("sg-1", {{"IpPermissions", Json::array({rule})}})}), kAt, false)),
                          "/document/SecurityGroups/0/IpPermissions/0/IpRange", "IpRanges"));
  // One bad group among good ones: half a policy is another policy.
  EXPECT_TRUE(has_problem(problems_of(read_groups_document(groups({group("sg-1"), misspelt}), kAt, false)), "/document/SecurityGroups/1/IpPermissions",
                          "missing"));
}

TEST(GroupsDocument, WhatWasNotReadIsToldOnceByName) {
  Json both = groups({group("sg-1", {{"NewMeaning", 1}, {"Tags", {{{"Key", "a"}, {"Value", "b"}}}}, {"SaysNothing", false}, {"Empty", Json::array()}}),
                      group("sg-2", {{"NewMeaning", 2}})});
  const auto read = read_groups_document(both, kAt, false);
  ASSERT_TRUE(read.has_value()) << all_of(read.error());
  ASSERT_EQ(read->warnings.size(), 1U) << all(read->warnings);
  EXPECT_TRUE(warns(read->warnings, "\"document.SecurityGroups[].NewMeaning\" was not read"));
  EXPECT_TRUE(warns(read->warnings, "2 times, first at \"/document/SecurityGroups/0/NewMeaning\""));
  for (int i = 0; i < 1000; ++i) both["SecurityGroups"][0]["x" + std::to_string(i)] = 1;
  const auto many = read_groups_document(both, kAt, false);
  ASSERT_TRUE(many.has_value());
  EXPECT_EQ(many->warnings.size(), 33U) << "32 names, and how many more";
}

TEST(GroupsDocument, AnotherDocumentIsNamed) {
  EXPECT_TRUE(has_problem(problems_of(read_groups_document(subnets({}), kAt, false)), "/document/SecurityGroups", "describe-subnets"));
  EXPECT_TRUE(has_problem(problems_of(read_groups_document(groups({}, {{"SecurityGroupRules", Json::array()}}), kAt, false)),
                          "/document/SecurityGroupRules", "one of them"));
  EXPECT_TRUE(has_problem(problems_of(read_groups_document(Json::array(), kAt, false)), kAt, "object"));
  EXPECT_TRUE(has_problem(problems_of(read_groups_document(groups({}, {{"SecurityGroups", 7}}), kAt, false)), "/document/SecurityGroups", "list"));
}

TEST(GroupsDocument, RowsOfRulesKeepWhatTheyDoNotSay) {
  const Json rows = test_data("describe-security-group-rules");
  const auto read = read_groups_document(rows, kAt, false);
  ASSERT_TRUE(read.has_value()) << all_of(read.error());
  ASSERT_TRUE(read->rules_only);
  EXPECT_TRUE(warns(read->warnings, "no egress rows")) << all(read->warnings);
  DesiredState state;
  state.security_groups["sg-9effe8e4"] = {.id = "sg-9effe8e4", .name = "web", .description = "d", .vpc_id = "vpc-1", .ingress = {}, .egress = {}};
  for (const auto& each : read->groups) put_group(each, true, state);
  EXPECT_EQ(state.security_groups.at("sg-9effe8e4").name, "web");
  EXPECT_EQ(state.security_groups.at("sg-9effe8e4").vpc_id, "vpc-1");
  EXPECT_FALSE(state.security_groups.at("sg-9effe8e4").ingress.empty());
  Json page = rows;
  page["NextToken"] = "x";
  EXPECT_TRUE(has_problem(problems_of(read_groups_document(page, kAt, false)), "/document/NextToken", "rules of a group"));
  EXPECT_TRUE(has_problem(problems_of(read_groups_document(rows, kAt, true)), "/document/SecurityGroupRules", "without rules"));
  Json misspelt = rows;
  misspelt["SecurityGroupRules"][0].erase("CidrIpv4");
  misspelt["SecurityGroupRules"][0]["CidrIpv"] = "0.0.0.0/0";
  EXPECT_FALSE(read_groups_document(misspelt, kAt, false).has_value());
}

TEST(AclsDocument, AbsentListsAndPagesAreRefused) {
  const Json whole = test_data("describe-network-acls");
  ASSERT_TRUE(read_acls_document(whole, kAt, true).has_value());
  for (const char* list : {"Entries", "Associations"}) {
    Json broken = whole;
    broken["NetworkAcls"][0].erase(list);
    EXPECT_TRUE(has_problem(problems_of(read_acls_document(broken, kAt, false)), std::string("/document/NetworkAcls/0/") + list, "missing"));
  }
  Json page = whole;
  page["NextToken"] = "x";
  EXPECT_TRUE(read_acls_document(page, kAt, false).has_value());
  EXPECT_TRUE(has_problem(problems_of(read_acls_document(page, kAt, true)), "/document/NextToken", "all pages"));
}

TEST(SubnetsDocument, OneThatCannotBeUsedIsLeftOut) {
  const Json good = subnet("subnet-1", "10.0.0.0/24", "vpc-1");
  const auto read = read_subnets_document(subnets({good, subnet("subnet-2", "10.0.0.0/33", "vpc-1"), 7, subnet("subnet-3", "10.9.0.0/8", "vpc-1")}), kAt);
  ASSERT_TRUE(read.has_value()) << all_of(read.error());
  ASSERT_EQ(read->subnets.size(), 1U);
  EXPECT_EQ(read->subnets[0].id, "subnet-1");
  EXPECT_TRUE(warns(read->warnings, "Subnets[1] (subnet-2) was left out: at /document/Subnets/1/CidrBlock")) << all(read->warnings);
  EXPECT_TRUE(warns(read->warnings, "Subnets[2] (without an id)"));
  EXPECT_TRUE(warns(read->warnings, "Subnets[3] (subnet-3)"));
  EXPECT_FALSE(read_subnets_document(subnets({subnet("subnet-2", "10.0.0.0/33", "vpc-1")}), kAt).has_value()) << "nothing is left to use";
  EXPECT_FALSE(read_subnets_document(subnets({good, subnet("subnet-4", "10.1.0.0/24", "vpc-1"), good}), kAt).has_value()) << "nobody knows which counts";
}

TEST(SubnetsDocument, Ipv6OnlyAndLargerBlocks) {
  const auto with_block = [](const char* block) {
    return Json{{"Ipv6CidrBlockAssociationSet", {{{"Ipv6CidrBlock", block}, {"Ipv6CidrBlockState", {{"State", "associated"}}}}}}};
  };
  Json ipv6_only{{"SubnetId", "subnet-6"}, {"Ipv6Native", true}, {"VpcId", "vpc-1"}};
  ipv6_only.update(with_block("2600:1f14:1895:4800::/64"));
  const auto read = read_subnets_document(subnets({ipv6_only}), kAt);
  ASSERT_TRUE(read.has_value()) << all_of(read.error());
  EXPECT_FALSE(read->subnets[0].cidr);
  EXPECT_FALSE(read->subnets[0].router());
  EXPECT_FALSE(read->subnets[0].resolver());
  EXPECT_EQ(read->subnets[0].router6()->to_string(), "2600:1f14:1895:4800::1");
  for (const char* block : {"2600:1f14::/44", "2600:1f14::/48", "2600:1f14::/52", "2600:1f14:0:100::/56", "2600:1f14:0:10::/60"}) {
    const auto one = read_subnets_document(subnets({subnet("subnet-1", "10.0.0.0/24", "vpc-1", with_block(block))}), kAt);
    ASSERT_TRUE(one.has_value()) << all_of(one.error());
    EXPECT_EQ(one->subnets[0].ipv6_cidr->to_string(), block);
  }
  for (const char* block : {"2600::/40", "2600:1f14::/50", "2600:1f14::/68"}) {
    EXPECT_FALSE(read_subnets_document(subnets({subnet("subnet-1", "10.0.0.0/24", "vpc-1", with_block(block))}), kAt).has_value()) << block;
  }
  Json misspelt = ipv6_only;  // dual stack, and "CidrBlock" is not there
  misspelt["Ipv6Native"] = false;
  EXPECT_FALSE(read_subnets_document(subnets({misspelt}), kAt).has_value());
  ipv6_only["Ipv6CidrBlockAssociationSet"][0]["Ipv6CidrBlockState"]["State"] = "disassociated";
  EXPECT_TRUE(has_problem(problems_of(read_subnets_document(subnets({ipv6_only}), kAt)), "/document/Subnets/0/Ipv6CidrBlockAssociationSet", "no IPv6 block"));
}

Warnings submit(const Json& event, DesiredState& state, const HostIdentity& host = {}) {
  auto effect = read_event(event, kAt, state, {}, {}, host);
  EXPECT_TRUE(effect.has_value()) << (effect ? "" : all_of(effect.error())) << event.dump();
  if (!effect) return {};
  Warnings warnings = effect->warnings;
  apply(std::move(*effect), {}, state);
  return warnings;
}

TEST(SubnetsDocument, AbsentIpv6BlocksAreNotGone) {
  DesiredState state;
  Json one = subnet("subnet-1", "10.0.0.0/24", "vpc-1", {{"Ipv6CidrBlockAssociationSet", {{{"Ipv6CidrBlock", "2001:db8::/64"}}}}});
  submit(subnets({one}), state);
  one.erase("Ipv6CidrBlockAssociationSet");
  submit(subnets({one}), state);
  EXPECT_TRUE(state.subnets.at("subnet-1").ipv6_cidr) << "the document says nothing about it";
  one["Ipv6CidrBlockAssociationSet"] = Json::array();
  submit(subnets({one}), state);
  EXPECT_FALSE(state.subnets.at("subnet-1").ipv6_cidr) << "it says that there is none";
}

// The agent's message names a subnet by its gateway only.
TEST(SubnetsDocument, TwoVpcsOfOneRange) {
  const Json both = subnets({subnet("subnet-a", "10.0.0.0/24", "vpc-a"), subnet("subnet-b", "10.0.0.0/24", "vpc-b")});
  const std::string eni = "eni-b0aaa4b2";
  DesiredState state;
  EXPECT_TRUE(submit(both, state).empty());
  EXPECT_EQ(state.subnets.size(), 2U);
  EXPECT_TRUE(warns(submit(test_data("acs-payload"), state), "identity.vpc_id"));
  EXPECT_TRUE(state.attachments.at(eni).subnet_id.empty()) << "nobody can tell";
  DesiredState known = state;
  known.attachments.clear();
  submit(test_data("acs-payload"), known, {.vpc_id = "vpc-b"});
  EXPECT_EQ(known.attachments.at(eni).subnet_id, "subnet-b");

  DesiredState agent_first;
  submit(test_data("acs-payload"), agent_first);
  DesiredState told = agent_first;
  EXPECT_TRUE(warns(submit(both, told), "several VPCs have one"));
  EXPECT_EQ(told.attachments.at(eni).subnet_id, agent_first.attachments.at(eni).subnet_id);
  told = agent_first;
  EXPECT_TRUE(warns(submit(both, told, {.vpc_id = "vpc-b"}), "vpc-a is not this host's VPC"));
  EXPECT_EQ(told.attachments.at(eni).subnet_id, "subnet-b");
}

Json interface(const char* id, const char* address, Json more = Json::object()) {
  Json json{{"NetworkInterfaceId", id}, {"PrivateIpAddress", address}, {"InterfaceType", "interface"}};
  json.update(more);
  return json;
}

Json attached_to(const char* instance) { return {{"Attachment", {{"InstanceId", instance}}}}; }

Json interfaces(std::initializer_list<Json> list) { return document("NetworkInterfaces", list); }

std::vector<std::string> known_enis(const DesiredState& state) {
  std::vector<std::string> enis;
  for (const auto& [eni, attachment] : state.attachments) enis.push_back(eni);
  return enis;
}

TEST(InterfacesDocument, OfAWholeAccountOnlyThisHosts) {
  using Enis = std::vector<std::string>;
  const Json account = interfaces({interface("eni-1", "10.0.0.11", attached_to("i-1")), interface("eni-2", "10.0.0.12", attached_to("i-2")),
                                   interface("eni-3", "10.0.0.13"), interface("eni-4", "10.0.0.14", {{"InterfaceType", "natGateway"}}),
                                   interface("eni-5", "10.0.0.15", {{"InterfaceType", "branch"}})});
  DesiredState state;
  Warnings warnings = submit(account, state, {.instance_id = "i-1"});
  EXPECT_EQ(known_enis(state), Enis{"eni-1"});
  EXPECT_TRUE(warns(warnings, "1 interface was left aside (eni-2): attached to another instance")) << all(warnings);
  EXPECT_TRUE(warns(warnings, "2 interfaces were left aside (eni-3, eni-5): nothing says"));
  EXPECT_TRUE(warns(warnings, "eni-4 is of type \"natGateway\""));

  state.attachments["eni-5"].eni_id = "eni-5";  // a task's event told of it
  submit(account, state, {.instance_id = "i-1"});
  EXPECT_EQ(known_enis(state), (Enis{"eni-1", "eni-5"}));

  DesiredState nobody;
  warnings = submit(account, nobody);
  EXPECT_EQ(known_enis(nobody), Enis{});
  EXPECT_TRUE(warns(warnings, "2 interfaces were left aside (eni-1, eni-2): attached to an instance, and nobody said which one this is")) << all(warnings);
  submit(account, nobody, {.take_all = true});
  EXPECT_EQ(known_enis(nobody), (Enis{"eni-1", "eni-2", "eni-3", "eni-5"}));

  DesiredState asked;  // --network-interface-ids eni-3
  EXPECT_TRUE(submit(interfaces({interface("eni-3", "10.0.0.13")}), asked).empty());
  EXPECT_EQ(known_enis(asked), Enis{"eni-3"});
  submit(interfaces({interface("eni-2", "10.0.0.12", attached_to("i-2"))}), asked, {.instance_id = "i-1"});
  EXPECT_EQ(known_enis(asked), Enis{"eni-3"}) << "it is another host's all the same";
}

TEST(InterfacesDocument, TwoVpcsOfOneRangeAndOneThatCannotBe) {
  Json many = Json::array();
  for (int i = 0; i < 17; ++i) many.push_back({{"PrivateIpAddress", "10.0.1." + std::to_string(i + 10)}});
  const Json account = interfaces({interface("eni-1", "10.0.0.11", {{"VpcId", "vpc-a"}}), interface("eni-2", "10.0.0.11", {{"VpcId", "vpc-b"}}),
                                   interface("eni-3", "10.0.0.13", {{"VpcId", "vpc-a"}}), interface("eni-4", "10.0.1.10", {{"PrivateIpAddresses", many}})});
  DesiredState state;
  Warnings warnings = submit(account, state, {.take_all = true});
  EXPECT_EQ(known_enis(state), std::vector<std::string>{"eni-3"});
  EXPECT_TRUE(warns(warnings, "(eni-1, eni-2): its MAC or an address is another ENI's")) << all(warnings);
  EXPECT_TRUE(warns(warnings, "(eni-4): it has more addresses"));
  state.attachments["eni-1"].eni_id = "eni-1";
  submit(account, state, {.take_all = true});
  EXPECT_EQ(known_enis(state), (std::vector<std::string>{"eni-1", "eni-3"})) << "the one that is here";
}

TEST(InterfacesDocument, DelegatedPrefixesAreRemembered) {
  DesiredState state;
  submit(interfaces({interface("eni-1", "10.0.0.11", {{"Ipv4Prefixes", {{{"Ipv4Prefix", "10.0.0.16/28"}}}}, {"Ipv6Prefixes", {{{"Ipv6Prefix", "2001:db8::/80"}}}}})}),
         state);
  ASSERT_EQ(state.attachments.at("eni-1").prefixes.size(), 2U);
  submit(interfaces({{{"NetworkInterfaceId", "eni-1"}, {"SourceDestCheck", false}}}), state);
  EXPECT_EQ(state.attachments.at("eni-1").prefixes.size(), 2U) << "a document without addresses says nothing about prefixes";
  submit(interfaces({interface("eni-1", "10.0.0.11")}), state);
  EXPECT_TRUE(state.attachments.at("eni-1").prefixes.empty()) << "EC2 prints the lists only where there are any";
  EXPECT_FALSE(read_event(interfaces({interface("eni-1", "10.0.0.11", {{"Ipv4Prefix", {{{"Ipv4Prefix", "10.0.0.16/28"}}}}})}), kAt, state).has_value());
}

TEST(InterfacesDocument, AFamilyThatIsNotSaidStays) {
  DesiredState state;
  submit(interfaces({interface("eni-1", "10.0.0.11", {{"Ipv6Addresses", {{{"Ipv6Address", "2001:db8::11"}}}}})}), state);
  submit(interfaces({interface("eni-1", "10.0.0.12")}), state);
  ASSERT_EQ(state.attachments.at("eni-1").addresses.size(), 2U);
  EXPECT_EQ(state.attachments.at("eni-1").addresses[0].to_string(), "10.0.0.12");
  submit(interfaces({interface("eni-1", "10.0.0.12", {{"Ipv6Addresses", Json::array()}})}), state);
  EXPECT_EQ(state.attachments.at("eni-1").addresses.size(), 1U);
}

TEST(BranchesDocument, OfSeveralTrunksThoseOfTheOneThatIsHere) {
  const auto branch = [](const char* eni, const char* trunk, int vlan) { return Json{{"BranchInterfaceId", eni}, {"TrunkInterfaceId", trunk}, {"VlanId", vlan}}; };
  const Json account = document("InterfaceAssociations", {branch("eni-1", "eni-a", 1), branch("eni-2", "eni-a", 2), branch("eni-3", "eni-b", 1)});
  DesiredState state;
  EXPECT_TRUE(warns(submit(account, state), "3 branches were left aside"));
  EXPECT_TRUE(state.attachments.empty());
  state.attachments["eni-1"].eni_id = "eni-1";
  EXPECT_TRUE(warns(submit(account, state), "1 branch was left aside (eni-3): of a trunk that has no known ENI here"));
  EXPECT_EQ(known_enis(state), (std::vector<std::string>{"eni-1", "eni-2"}));
  EXPECT_EQ(state.attachments.at("eni-2").vlan, VlanId{2});
}

TEST(TasksDocument, OneThatCannotBeUsedIsLeftOut) {
  Json two = test_data("describe-tasks");
  Json broken = two["tasks"][0];
  broken["taskArn"] = "arn:aws:ecs:us-west-2:123456789012:task/c/other";
  broken["attachments"][0]["status"] = "BUSY";
  two["tasks"].push_back(broken);
  DesiredState state;
  EXPECT_TRUE(warns(submit(two, state), "tasks[1] (arn:aws:ecs:us-west-2:123456789012:task/c/other) was left out"));
  EXPECT_EQ(state.attachments.size(), 1U);
}

TEST(PrefixListsDocument, TheIdComesWithTheRequestOrTheDocument) {
  const Json entries = document("Entries", {{{"Cidr", "10.0.0.0/16"}, {"Description", "vpc-a"}}});
  const auto read = read_prefix_lists_document(entries, kAt, "pl-1");
  ASSERT_TRUE(read.has_value()) << all_of(read.error());
  EXPECT_EQ(read->lists.at(0).id, "pl-1");
  EXPECT_TRUE(has_problem(problems_of(read_prefix_lists_document(entries, kAt, "")), "/document/PrefixListId", "missing"));
  Json named = entries;
  named["PrefixListId"] = "pl-2";
  EXPECT_EQ(read_prefix_lists_document(named, kAt, "")->lists.at(0).id, "pl-2");
  EXPECT_TRUE(has_problem(problems_of(read_prefix_lists_document(named, kAt, "pl-1")), "/document/PrefixListId", "names pl-1"));
  Json page = entries;
  page["NextToken"] = "x";
  EXPECT_TRUE(has_problem(problems_of(read_prefix_lists_document(page, kAt, "pl-1")), "/document/NextToken", "other entries"));
}

TEST(PrefixListsDocument, DescribedLists) {
  const Json described = document("PrefixLists", {{{"PrefixListId", "pl-1"}, {"PrefixListName", "s3"}, {"Cidrs", Json::array({"52.92.0.0/17"})}}});
  const auto read = read_prefix_lists_document(described, kAt, "");
  ASSERT_TRUE(read.has_value()) << all_of(read.error());
  EXPECT_EQ(read->lists.at(0).entries.at(0).to_string(), "52.92.0.0/17");
  const Json managed = document("PrefixLists", {{{"PrefixListId", "pl-1"}, {"AddressFamily", "IPv4"}, {"MaxEntries", 10}}});
  EXPECT_TRUE(has_problem(problems_of(read_prefix_lists_document(managed, kAt, "")), "/document/PrefixLists", "get-managed-prefix-list-entries"));
}

}  // namespace
}  // namespace trunkline::control
