// SPDX-License-Identifier: BSD-3-Clause
#include "control/ec2_shapes.h"

#include <gtest/gtest.h>

#include "tests/unit/aws_data.h"

namespace trunkline::control {
namespace {

using config::SecurityGroup;
using config::SecurityGroupRule;

std::vector<SecurityGroup> groups_of(const Json& document) {
  Problems problems;
  auto groups = read_security_groups(document.at("SecurityGroups"), "/SecurityGroups", problems);
  EXPECT_TRUE(problems.empty()) << all_of(problems);
  return groups;
}

// A group with this one permission in, and what is wrong with it.
Problems problems_of_permission(const Json& permission) {
  Problems problems;
  const Json list{{{"GroupId", "sg-9effe8e4"}, {"IpPermissions", Json::array({permission})}, {"IpPermissionsEgress", Json::array()}}};
  EXPECT_TRUE(read_security_groups(list, "", problems).empty() || problems.empty());
  return problems;
}

TEST(SecurityGroups, ReadsEveryFieldOfTheExample) {
  const auto groups = groups_of(test_data("describe-security-groups"));
  ASSERT_EQ(groups.size(), 1U);
  const SecurityGroup& group = groups[0];
  EXPECT_EQ(group.id, "sg-9effe8e4");
  EXPECT_EQ(group.name, "nginx-awsvpc");
  EXPECT_EQ(group.vpc_id, "vpc-0a1b2c3d4e5f60718");
  ASSERT_EQ(group.ingress.size(), 7U);
  EXPECT_EQ(group.ingress[0].protocol, 6);
  EXPECT_EQ(group.ingress[0].from_port, 80);
  ASSERT_EQ(group.ingress[0].ranges.size(), 2U);
  EXPECT_TRUE(group.ingress[0].ranges[0].is_v4());
  EXPECT_FALSE(group.ingress[0].ranges[1].is_v4());
  EXPECT_EQ(group.ingress[1].prefix_list_ids, std::vector<std::string>{"pl-0123456789abcdef0"});
  EXPECT_EQ(group.ingress[1].group_ids, std::vector<std::string>{"sg-0aad1c26bb6000001"});
  EXPECT_EQ(group.ingress[2].from_port, 3);
  EXPECT_EQ(group.ingress[2].to_port, 4);
  EXPECT_EQ(group.ingress[3].to_port, -1);
  EXPECT_EQ(group.ingress[4].protocol, 58);
  EXPECT_EQ(group.ingress[5].protocol, 50);
  EXPECT_EQ(group.ingress[6].protocol, SecurityGroupRule::kAnyProtocol);
  ASSERT_EQ(group.egress.size(), 1U);
}

TEST(SecurityGroups, WrittenAndReadAgainAreTheSame) {
  const auto groups = groups_of(test_data("describe-security-groups"));
  Json document{{"SecurityGroups", Json::array()}};
  for (const auto& group : groups) document["SecurityGroups"].push_back(security_group_json(group));
  EXPECT_EQ(groups_of(document), groups);
  const Json& rules = document["SecurityGroups"][0]["IpPermissions"];
  EXPECT_EQ(rules[0]["IpProtocol"], "tcp");
  EXPECT_EQ(rules[5]["IpProtocol"], "50");
  EXPECT_FALSE(rules[5].contains("FromPort"));
  EXPECT_EQ(rules[6]["IpProtocol"], "-1");
  EXPECT_FALSE(rules[6].contains("ToPort"));
}

TEST(SecurityGroups, BothSpellingsOfAProtocolAreOne) {
  for (const auto& [name, number] : {std::pair{"tcp", "6"}, {"udp", "17"}, {"icmp", "1"}, {"icmpv6", "58"}}) {
    const auto one = [](const char* protocol) {
      const Json rule{{"IpProtocol", protocol}, {"FromPort", 8}, {"ToPort", 9}};
      return groups_of({{"SecurityGroups", {{{"GroupId", "sg-1"}, {"IpPermissions", Json::array({rule})}, {"IpPermissionsEgress", Json::array()}}}}});
    };
    EXPECT_EQ(one(name), one(number));
  }
}

TEST(SecurityGroups, AbsentListsAreRefusedAndHostBitsAreCleared) {
  Problems problems;
  EXPECT_TRUE(read_security_groups({{{"GroupId", "sg-1"}, {"NewKeyOfAws", 1}, {"IpPermissionsEgress", nullptr}}}, "", problems).empty());
  EXPECT_EQ(problems.size(), 2U) << all_of(problems);
  EXPECT_TRUE(has_problem(problems, "/0/IpPermissions", "missing"));
  EXPECT_TRUE(has_problem(problems, "/0/IpPermissionsEgress", "missing"));
  const Json rule{{"IpProtocol", "47"},
                  {"FromPort", 1},
                  {"ToPort", 2},
                  {"IpRanges", {{{"CidrIp", "10.0.7.9/16"}}, {{"CidrIp", "10.0.0.0/16"}}}}};
  const auto group =
      groups_of({{"SecurityGroups", {{{"GroupId", "sg-1"}, {"IpPermissions", Json::array({rule})}, {"IpPermissionsEgress", Json::array()}}}}});
  const SecurityGroupRule& read = group[0].ingress[0];
  EXPECT_EQ(read.from_port, -1) << "the ports of a protocol without ports are not looked at";
  ASSERT_EQ(read.ranges.size(), 1U) << "the same range twice is one";
  EXPECT_EQ(read.ranges[0].to_string(), "10.0.0.0/16");
}

TEST(SecurityGroups, IcmpTypesAndCodes) {
  EXPECT_TRUE(problems_of_permission({{"IpProtocol", "icmp"}, {"FromPort", 0}, {"ToPort", 0}}).empty());
  EXPECT_TRUE(problems_of_permission({{"IpProtocol", "icmp"}, {"FromPort", -1}, {"ToPort", -1}}).empty());
  EXPECT_TRUE(problems_of_permission({{"IpProtocol", "icmpv6"}}).empty());
  const std::string place = "/0/IpPermissions/0/";
  EXPECT_TRUE(has_problem(problems_of_permission({{"IpProtocol", "icmp"}}), place + "FromPort", "wanted"));
  EXPECT_TRUE(has_problem(problems_of_permission({{"IpProtocol", "icmp"}, {"FromPort", -1}, {"ToPort", 4}}),
                          place + "ToPort", "must be -1 too"));
  EXPECT_TRUE(has_problem(problems_of_permission({{"IpProtocol", "icmp"}, {"FromPort", 256}, {"ToPort", 4}}),
                          place + "FromPort", "255"));
  EXPECT_TRUE(has_problem(problems_of_permission({{"IpProtocol", "58"}, {"FromPort", 128}}), place + "ToPort", "code"));
}

TEST(SecurityGroups, RefusesWhatIsNoRule) {
  const std::string place = "/0/IpPermissions/0/";
  const auto tcp = [](Json more) {
    Json rule{{"IpProtocol", "tcp"}, {"FromPort", 80}, {"ToPort", 80}};
    rule.update(more);
    return problems_of_permission(rule);
  };
  EXPECT_TRUE(tcp(Json::object()).empty());
  EXPECT_TRUE(has_problem(tcp({{"IpProtocol", "sctp"}}), place + "IpProtocol", "number from 0 to 255"));
  EXPECT_TRUE(has_problem(tcp({{"IpProtocol", "256"}}), place + "IpProtocol", "256"));
  EXPECT_TRUE(has_problem(tcp({{"IpProtocol", 6}}), place + "IpProtocol", "string"));
  EXPECT_TRUE(has_problem(tcp({{"ToPort", nullptr}}), place + "ToPort", "last port"));
  EXPECT_TRUE(has_problem(tcp({{"FromPort", -1}}), place + "FromPort", "65535"));
  EXPECT_TRUE(has_problem(tcp({{"FromPort", 81}}), place + "ToPort", "swap"));
  EXPECT_TRUE(has_problem(tcp({{"IpRanges", {{{"CidrIp", "::/0"}}}}}), place + "IpRanges/0/CidrIp", "IPv4"));
  EXPECT_TRUE(has_problem(tcp({{"IpRanges", {{{"CidrIp", "10.0.0.0"}}}}}), place + "IpRanges/0/CidrIp", "10.0.0.0"));
  EXPECT_TRUE(has_problem(tcp({{"Ipv6Ranges", {Json::object()}}}), place + "Ipv6Ranges/0/CidrIpv6", "wanted"));
  EXPECT_TRUE(has_problem(tcp({{"PrefixListIds", {{{"PrefixListId", "sg-1"}}}}}),
                          place + "PrefixListIds/0/PrefixListId", "pl-"));
  EXPECT_TRUE(has_problem(tcp({{"UserIdGroupPairs", {{{"GroupName", "web"}}}}}), place + "UserIdGroupPairs/0/GroupName",
                          "give GroupId"));
  EXPECT_TRUE(has_problem(tcp({{"IpRanges", "10.0.0.0/8"}}), place + "IpRanges", "list"));
  Problems problems;
  read_security_groups({{{"GroupId", "sg-1"}}, {{"GroupId", "sg-1"}}, {{"GroupId", "../1"}}, 7}, "/g", problems);
  EXPECT_TRUE(has_problem(problems, "/g/1/GroupId", "twice"));
  EXPECT_TRUE(has_problem(problems, "/g/2/GroupId", "sg-"));
  EXPECT_TRUE(has_problem(problems, "/g/3", "object"));
}

TEST(SecurityGroupRules, FlatRowsBecomeRules) {
  Json rows = test_data("describe-security-group-rules")["SecurityGroupRules"];
  rows.push_back({{"GroupId", "sg-9effe8e4"},
                  {"IsEgress", false},
                  {"IpProtocol", "6"},
                  {"FromPort", 80},
                  {"ToPort", 80},
                  {"CidrIpv6", "::/0"}});
  rows.push_back({{"GroupId", "sg-9effe8e4"},
                  {"IsEgress", true},
                  {"IpProtocol", "-1"},
                  {"FromPort", -1},
                  {"ToPort", -1},
                  {"PrefixListId", "pl-1"}});
  Problems problems;
  const auto groups = read_security_group_rules(rows, "", problems);
  ASSERT_TRUE(problems.empty()) << all_of(problems);
  ASSERT_EQ(groups.size(), 1U);
  ASSERT_EQ(groups[0].ingress.size(), 2U);
  EXPECT_EQ(groups[0].ingress[0].ranges.size(), 2U) << "rows of equal ports are one rule";
  EXPECT_EQ(groups[0].ingress[1].group_ids, std::vector<std::string>{"sg-9effe8e4"});
  ASSERT_EQ(groups[0].egress.size(), 1U);
  EXPECT_EQ(groups[0].egress[0].prefix_list_ids, std::vector<std::string>{"pl-1"});
}

TEST(SecurityGroupRules, RefusesRowsWithoutExactlyOneSource) {
  const Json row{{"GroupId", "sg-1"}, {"IsEgress", false}, {"IpProtocol", "-1"}};
  Json two = row;
  two.update({{"CidrIpv4", "0.0.0.0/0"}, {"CidrIpv6", "::/0"}});
  Json undirected = row;
  undirected.erase("IsEgress");
  Problems problems;
  EXPECT_TRUE(read_security_group_rules(Json::array({row, two, undirected}), "", problems).empty());
  EXPECT_TRUE(has_problem(problems, "/0", "0 sources"));
  EXPECT_TRUE(has_problem(problems, "/1", "2 sources"));
  EXPECT_TRUE(has_problem(problems, "/2/IsEgress", "direction"));
}

TEST(PrefixLists, InAndOut) {
  Problems problems;
  const Json document = test_data("managed-prefix-list-entries");
  config::ObjectReader reader(document, "", problems);
  const auto list = read_prefix_list(reader);
  reader.finish();
  ASSERT_TRUE(problems.empty()) << all_of(problems);
  ASSERT_EQ(list.entries.size(), 2U);
  EXPECT_EQ(list.entries[1].to_string(), "192.0.2.0/24");
  EXPECT_EQ(prefix_list_json(list), (Json{{"PrefixListId", "pl-0123456789abcdef0"},
                                          {"Entries", {{{"Cidr", "10.2.0.0/16"}}, {{"Cidr", "192.0.2.0/24"}}}}}));
}

TEST(PrefixLists, RefusesBothFamiliesAndNoId) {
  Problems problems;
  const Json document{{"Entries", {{{"Cidr", "10.2.0.0/16"}}, {{"Cidr", "2001:db8::/32"}}, Json::object()}}};
  config::ObjectReader reader(document, "", problems);
  read_prefix_list(reader);
  EXPECT_TRUE(has_problem(problems, "/PrefixListId", "pl-"));
  EXPECT_TRUE(has_problem(problems, "/Entries/1/Cidr", "one family"));
  EXPECT_TRUE(has_problem(problems, "/Entries/2/Cidr", "wanted"));
}

TEST(Subnets, InAndOut) {
  Problems problems;
  const auto subnets = read_subnets(test_data("describe-subnets")["Subnets"], "", problems);
  ASSERT_TRUE(problems.empty()) << all_of(problems);
  ASSERT_EQ(subnets.size(), 2U);
  EXPECT_EQ(subnets[0].id, "subnet-c070009b");
  EXPECT_EQ(subnets[0].cidr->to_string(), "10.0.0.0/24");
  ASSERT_TRUE(subnets[0].ipv6_cidr);
  EXPECT_EQ(subnets[0].ipv6_cidr->to_string(), "2001:db8:1234:1a00::/64") << "the disassociated block does not count";
  EXPECT_EQ(subnets[0].availability_zone, "us-west-2a");
  EXPECT_FALSE(subnets[1].ipv6_cidr);
  Json again = Json::array();
  for (const auto& subnet : subnets) again.push_back(subnet_json(subnet));
  EXPECT_EQ(read_subnets(again, "", problems), subnets);
}

TEST(Subnets, RefusesTheWrongFamilyAndDuplicates) {
  Problems problems;
  const Json list{{{"SubnetId", "subnet-1"}, {"CidrBlock", "2001:db8::/64"}},
                  {{"SubnetId", "subnet-2"}},
                  {{"SubnetId", "subnet-2"},
                   {"CidrBlock", "10.0.0.0/24"},
                   {"Ipv6CidrBlockAssociationSet",
                    {{{"Ipv6CidrBlock", "2001:db8::/64"}}, {{"Ipv6CidrBlock", "2001:db8:0:1::/64"}}}}}};
  EXPECT_TRUE(read_subnets(list, "", problems).empty());
  EXPECT_TRUE(has_problem(problems, "/0/CidrBlock", "IPv4"));
  EXPECT_TRUE(has_problem(problems, "/1/CidrBlock", "missing"));
  EXPECT_TRUE(has_problem(problems, "/2/SubnetId", "twice"));
  EXPECT_TRUE(has_problem(problems, "/2/Ipv6CidrBlockAssociationSet/1/Ipv6CidrBlock", "one IPv6 block"));
}

TEST(NetworkInterfaces, ReadsTheExample) {
  Problems problems;
  Warnings warnings;
  const auto facts =
      read_network_interfaces(test_data("describe-network-interfaces")["NetworkInterfaces"], "", problems, warnings);
  ASSERT_TRUE(problems.empty()) << all_of(problems);
  ASSERT_EQ(facts.size(), 1U) << "the trunk itself is no task's";
  ASSERT_EQ(warnings.size(), 1U);
  EXPECT_NE(warnings[0].find("trunk"), std::string::npos);
  EXPECT_EQ(facts[0].eni_id, "eni-b0aaa4b2");
  EXPECT_EQ(facts[0].mac->to_string(), "0a:47:e4:7a:2b:02");
  ASSERT_EQ(facts[0].addresses->size(), 3U);
  EXPECT_EQ(facts[0].addresses->at(0).to_string(), "10.0.0.35") << "the primary one first";
  EXPECT_EQ(facts[0].addresses->at(1).to_string(), "10.0.0.36");
  EXPECT_EQ(facts[0].subnet_id, "subnet-c070009b");
  EXPECT_EQ(facts[0].group_ids, std::vector<std::string>{"sg-9effe8e4"});
  EXPECT_EQ(facts[0].source_dest_check, true);
  EXPECT_EQ(facts[0].conntrack->tcp_established_timeout, 350U);
  EXPECT_EQ(facts[0].conntrack->udp_timeout, 40U);
  EXPECT_EQ(facts[0].conntrack->udp_stream_timeout, 180U);
  EXPECT_FALSE(facts[0].vlan);
}

TEST(NetworkInterfaces, SaysOnlyWhatIsThereAndRefusesWhatIsWrong) {
  Problems problems;
  Warnings warnings;
  const auto bare = read_network_interfaces({{{"NetworkInterfaceId", "eni-1"}}}, "", problems, warnings);
  ASSERT_EQ(bare.size(), 1U);
  EXPECT_FALSE(bare[0].mac || bare[0].addresses || bare[0].group_ids || bare[0].source_dest_check || bare[0].conntrack);
  const Json wrong{{{"NetworkInterfaceId", "eni-1"},
                    {"MacAddress", "0a:47"},
                    {"PrivateIpAddress", "10.0.0.300"},
                    {"Groups", {{{"GroupName", "web"}}}},
                    {"SourceDestCheck", "no"},
                    {"ConnectionTrackingConfiguration",
                     {{"UdpTimeout", 29}, {"UdpStreamTimeout", 181}, {"TcpEstablishedTimeout", 59}}}}};
  EXPECT_TRUE(read_network_interfaces(wrong, "", problems, warnings).empty());
  EXPECT_TRUE(has_problem(problems, "/0/MacAddress", "MAC"));
  EXPECT_TRUE(has_problem(problems, "/0/PrivateIpAddress", "10.0.0.300"));
  EXPECT_TRUE(has_problem(problems, "/0/Groups/0/GroupId", "sg-"));
  EXPECT_TRUE(has_problem(problems, "/0/SourceDestCheck", "true or false"));
  EXPECT_TRUE(has_problem(problems, "/0/ConnectionTrackingConfiguration/UdpTimeout", "30"));
  EXPECT_TRUE(has_problem(problems, "/0/ConnectionTrackingConfiguration/UdpStreamTimeout", "180"));
  EXPECT_TRUE(has_problem(problems, "/0/ConnectionTrackingConfiguration/TcpEstablishedTimeout", "60"));
}

TEST(TrunkAssociations, InAndRefused) {
  Problems problems;
  Warnings warnings;
  const auto facts = read_trunk_associations(
      test_data("describe-trunk-interface-associations")["InterfaceAssociations"], "", problems, warnings);
  ASSERT_TRUE(problems.empty()) << all_of(problems);
  ASSERT_EQ(facts.size(), 1U);
  EXPECT_EQ(facts[0].vlan, VlanId{102});
  EXPECT_TRUE(warnings.empty());
  const Json others{{{"BranchInterfaceId", "eni-1"}, {"InterfaceProtocol", "GRE"}, {"GreKey", 7}},
                    {{"BranchInterfaceId", "eni-2"}, {"VlanId", 4095}},
                    {{"BranchInterfaceId", "eni-3"}},
                    {{"VlanId", 5}},
                    {{"BranchInterfaceId", "eni-4"}, {"InterfaceProtocol", "QINQ"}, {"VlanId", 5}}};
  EXPECT_TRUE(read_trunk_associations(others, "", problems, warnings).empty());
  ASSERT_EQ(warnings.size(), 1U);
  EXPECT_TRUE(has_problem(problems, "/1/VlanId", "4094"));
  EXPECT_TRUE(has_problem(problems, "/2/VlanId", "wanted"));
  EXPECT_TRUE(has_problem(problems, "/3/BranchInterfaceId", "eni-"));
  EXPECT_TRUE(has_problem(problems, "/4/InterfaceProtocol", "GRE"));
}

}  // namespace
}  // namespace trunkline::control
