// SPDX-License-Identifier: BSD-3-Clause
// describe-network-acls, and the ranges of VPCs.
#include <gtest/gtest.h>

#include "control/ec2_shapes.h"
#include "tests/unit/aws_data.h"

namespace trunkline::control {
namespace {

using config::NetworkAcl;
using config::NetworkAclEntry;

IpPrefix range(const char* text) { return *IpPrefix::parse(text); }

Json entry(int number, const char* protocol, Json more = Json::object()) {
  Json json{{"RuleNumber", number}, {"Protocol", protocol}, {"RuleAction", "deny"}, {"Egress", false}};
  json.update(more);
  if (!json.contains("CidrBlock") && !json.contains("Ipv6CidrBlock")) json["CidrBlock"] = "10.0.0.0/8";
  return json;
}

Json document(const Json& entries) { return Json::array({{{"NetworkAclId", "acl-1"}, {"Entries", entries}, {"Associations", Json::array()}}}); }

// The one ingress entry that is read from this one.
NetworkAclEntry read_one(const Json& json) {
  Problems problems;
  const auto acls = read_network_acls(document(Json::array({json})), "", problems);
  EXPECT_TRUE(problems.empty()) << all_of(problems);
  if (acls.size() != 1 || acls[0].ingress.size() != 1) {
    ADD_FAILURE() << json;
    return {};
  }
  return acls[0].ingress[0];
}

void expect_refused(const Json& entries, const std::string& pointer, const std::string& word) {
  Problems problems;
  EXPECT_TRUE(read_network_acls(document(entries), "", problems).empty()) << entries;
  EXPECT_EQ(problems.size(), 1U) << all_of(problems);
  EXPECT_TRUE(has_problem(problems, "/0/Entries" + pointer, word)) << all_of(problems);
}

TEST(NetworkAcls, InAndOut) {
  Problems problems;
  const auto acls = read_network_acls(test_data("describe-network-acls")["NetworkAcls"], "", problems);
  ASSERT_TRUE(problems.empty()) << all_of(problems);
  ASSERT_EQ(acls.size(), 2U);
  EXPECT_EQ(acls[0].id, "acl-9aeb5ef7");
  EXPECT_EQ(acls[0].vpc_id, "vpc-0a1b2c3d4e5f60718");
  EXPECT_FALSE(acls[0].is_default);
  EXPECT_EQ(acls[0].subnet_ids, std::vector<std::string>{"subnet-c070009b"});
  EXPECT_EQ(acls[0].egress, (std::vector<NetworkAclEntry>{{100, true, 6, 1024, 65535, range("0.0.0.0/0")}}));
  EXPECT_EQ(acls[0].ingress, (std::vector<NetworkAclEntry>{{90, false, 6, 80, 80, range("203.0.113.0/24")},
                                                           {100, true, 6, 80, 80, range("0.0.0.0/0")},
                                                           {110, true, 1, 3, 4, range("0.0.0.0/0")},
                                                           {120, true, 1, 8, -1, range("0.0.0.0/0")},
                                                           {130, true, 58, -1, -1, range("2001:db8:1234:1a00::/56")}}))
      << "sorted, and without the fixed ones";
  EXPECT_TRUE(acls[1].is_default);
  EXPECT_EQ(acls[1].ingress, (std::vector<NetworkAclEntry>{{100, true, -1, -1, -1, range("0.0.0.0/0")}, {101, true, -1, -1, -1, range("::/0")}}));
  Json again = Json::array();
  for (const auto& acl : acls) again.push_back(network_acl_json(acl));
  EXPECT_EQ(read_network_acls(again, "", problems), acls);
  EXPECT_TRUE(problems.empty()) << all_of(problems);
  // What is said out has the fixed entries again.
  EXPECT_EQ(std::ranges::count_if(again[1]["Entries"], [](const Json& each) { return each["RuleNumber"] >= 32767; }), 4);
}

TEST(NetworkAcls, EachProtocolHasItsFields) {
  EXPECT_EQ(read_one(entry(1, "6", {{"PortRange", {{"From", 0}, {"To", 0}}}})), (NetworkAclEntry{1, false, 6, 0, 0, range("10.0.0.0/8")}));
  EXPECT_EQ(read_one(entry(1, "17")), (NetworkAclEntry{1, false, 17, 0, 65535, range("10.0.0.0/8")})) << "without a range every port";
  EXPECT_EQ(read_one(entry(1, "1", {{"IcmpTypeCode", {{"Type", 0}, {"Code", 0}}}})), (NetworkAclEntry{1, false, 1, 0, 0, range("10.0.0.0/8")}))
      << "0 is a type";
  EXPECT_EQ(read_one(entry(1, "1", {{"IcmpTypeCode", {{"Type", 3}, {"Code", -1}}}})), (NetworkAclEntry{1, false, 1, 3, -1, range("10.0.0.0/8")}));
  EXPECT_EQ(read_one(entry(1, "58", {{"Ipv6CidrBlock", "::/0"}, {"IcmpTypeCode", {{"Type", 128}, {"Code", 0}}}})),
            (NetworkAclEntry{1, false, 58, 128, 0, range("::/0")}));
  // What is ignored makes no difference.
  const Json both{{"PortRange", {{"From", 5}, {"To", 4}}}, {"IcmpTypeCode", {{"Type", 300}, {"Code", 1}}}};
  for (const char* protocol : {"-1", "50", "0", "255"}) {
    EXPECT_EQ(read_one(entry(1, protocol, both)), (NetworkAclEntry{1, false, std::stoi(protocol), -1, -1, range("10.0.0.0/8")}));
  }
  EXPECT_EQ(read_one(entry(1, "58", both)), (NetworkAclEntry{1, false, 58, -1, -1, range("10.0.0.0/8")})) << "58 in IPv4 is a number";
  EXPECT_EQ(read_one(entry(1, "58")), (NetworkAclEntry{1, false, 58, -1, -1, range("10.0.0.0/8")}));
  EXPECT_EQ(read_one(entry(1, "6", {{"IcmpTypeCode", {{"Type", 300}, {"Code", 1}}}})).to_port, 65535);
  EXPECT_EQ(read_one(entry(32766, "-1", {{"CidrBlock", "100.68.0.18/18"}})), (NetworkAclEntry{32766, false, -1, -1, -1, range("100.68.0.0/18")}));
}

TEST(NetworkAcls, RefusalsNameThePlaceAndTheCure) {
  const auto one = [](int number, const char* protocol, Json more = Json::object()) {
    return Json::array({entry(number, protocol, std::move(more))});
  };
  expect_refused(one(0, "-1"), "/0/RuleNumber", "1 to 32768");
  expect_refused(one(32769, "-1"), "/0/RuleNumber", "1 to 32768");
  expect_refused(one(1, "tcp"), "/0/Protocol", "number as a string");
  expect_refused(one(1, "256"), "/0/Protocol", "number as a string");
  expect_refused(one(1, "-2"), "/0/Protocol", "number as a string");
  expect_refused(one(1, "-1", {{"RuleAction", "Allow"}}), "/0/RuleAction", "\"allow\" or \"deny\"");
  expect_refused(one(1, "-1", {{"Egress", "false"}}), "/0/Egress", "true or false");
  expect_refused(one(1, "-1", {{"Egress", nullptr}}), "/0/Egress", "leaves the subnet");
  expect_refused(one(1, "-1", {{"CidrBlock", "::/0"}}), "/0/CidrBlock", "IPv4");
  expect_refused(one(1, "-1", {{"CidrBlock", "10.0.0.0/8"}, {"Ipv6CidrBlock", "::/0"}}), "/0", "both");
  expect_refused(one(1, "-1", {{"CidrBlock", nullptr}}), "/0", "no CidrBlock");
  expect_refused(one(1, "6", {{"PortRange", {{"From", 81}, {"To", 80}}}}), "/0/PortRange", "swap");
  expect_refused(one(1, "6", {{"PortRange", {{"From", 80}, {"To", 65536}}}}), "/0/PortRange/To", "0 to 65535");
  expect_refused(one(1, "6", {{"PortRange", {{"From", 80}}}}), "/0/PortRange/To", "missing");
  expect_refused(one(1, "1"), "/0/IcmpTypeCode", "missing");
  expect_refused(one(1, "58", {{"Ipv6CidrBlock", "::/0"}}), "/0/IcmpTypeCode", "missing");
  expect_refused(one(1, "1", {{"IcmpTypeCode", {{"Type", 256}, {"Code", 0}}}}), "/0/IcmpTypeCode/Type", "-1 to 255");
  expect_refused(one(1, "1", {{"IcmpTypeCode", {{"Type", -1}, {"Code", 0}}}}), "/0/IcmpTypeCode", "must be -1 too");
  expect_refused(one(32767, "-1", {{"RuleAction", "allow"}, {"CidrBlock", "0.0.0.0/0"}}), "/0/RuleNumber", "fixed entry");
  expect_refused(one(32767, "-1", {{"CidrBlock", "10.0.0.0/8"}}), "/0/RuleNumber", "fixed entry");
  expect_refused(one(32768, "-1", {{"CidrBlock", "0.0.0.0/0"}}), "/0/RuleNumber", "IPv6");
}

TEST(NetworkAcls, ANumberIsOneEntrysInADirection) {
  const Json ipv6 = entry(7, "-1", {{"Ipv6CidrBlock", "::/0"}}), out = entry(7, "-1", {{"Egress", true}});
  expect_refused(Json::array({entry(7, "-1"), out, ipv6}), "/2/RuleNumber", "twice among the ingress");
  Problems problems;
  EXPECT_EQ(read_network_acls(document(Json::array({entry(7, "-1"), out})), "", problems).size(), 1U);
  EXPECT_TRUE(problems.empty()) << all_of(problems);
}

TEST(NetworkAcls, TheQuotaIsOfADirectionAndFamily) {
  Json entries = Json::array();
  for (int i = 1; i < 40; ++i) {
    entries.push_back(entry(2 * i, "-1"));
    entries.push_back(entry(2 * i + 1, "-1", {{"Ipv6CidrBlock", "::/0"}}));
  }
  Problems problems;
  EXPECT_EQ(read_network_acls(document(entries), "", problems).size(), 1U);
  EXPECT_TRUE(problems.empty()) << all_of(problems);
  entries.push_back(entry(1000, "-1"));
  expect_refused(entries, "", "41 IPv4 ingress entries");
}

TEST(NetworkAcls, ASubnetHasOne) {
  const auto acl = [](const char* id, const char* subnet) {
    return Json{{"NetworkAclId", id}, {"Entries", Json::array()}, {"Associations", {{{"SubnetId", subnet}}}}};
  };
  Problems problems;
  EXPECT_EQ(read_network_acls(Json::array({acl("acl-1", "subnet-1"), acl("acl-2", "subnet-2")}), "", problems).size(), 2U);
  EXPECT_TRUE(problems.empty()) << all_of(problems);
  read_network_acls(Json::array({acl("acl-1", "subnet-1"), acl("acl-2", "subnet-1")}), "", problems);
  EXPECT_TRUE(has_problem(problems, "/1/Associations/0/SubnetId", "acl-1")) << all_of(problems);
  EXPECT_EQ(problems.front().name, "duplicate_subnet");
  problems.clear();
  read_network_acls(Json::array({acl("acl-1", "subnet-1"), acl("acl-1", "subnet-2"), Json{{"NetworkAclId", "acl-3"}}}), "", problems);
  EXPECT_TRUE(has_problem(problems, "/1/NetworkAclId", "twice")) << all_of(problems);
  EXPECT_TRUE(has_problem(problems, "/2/Entries", "missing")) << all_of(problems);
  EXPECT_TRUE(has_problem(problems, "/2/Associations", "missing")) << all_of(problems);
  EXPECT_EQ(problems.size(), 3U);
}

TEST(Vpcs, TheirFirstRange) {
  Problems problems;
  const auto ranges = read_vpcs(Json::array({{{"VpcId", "vpc-1"}, {"CidrBlock", "10.0.0.9/16"}, {"IsDefault", false}}}), "", problems);
  ASSERT_TRUE(problems.empty()) << all_of(problems);
  EXPECT_EQ(ranges, (std::map<std::string, IpPrefix>{{"vpc-1", range("10.0.0.0/16")}}));
  const Json twice = {{"VpcId", "vpc-1"}, {"CidrBlock", "10.0.0.0/16"}};
  read_vpcs(Json::array({twice, twice, {{"VpcId", "vpc-2"}}, {{"VpcId", "x"}, {"CidrBlock", "10.0.0.0/16"}}}), "", problems);
  EXPECT_TRUE(has_problem(problems, "/1/VpcId", "twice"));
  EXPECT_TRUE(has_problem(problems, "/2/CidrBlock", "missing"));
  EXPECT_TRUE(has_problem(problems, "/3/VpcId", "vpc-"));
  EXPECT_EQ(problems.size(), 3U) << all_of(problems);
}

TEST(Vpcs, ASubnetMaySayTheRange) {
  Problems problems;
  const Json document = Json::array({{{"SubnetId", "subnet-1"}, {"CidrBlock", "10.0.1.0/24"}, {"VpcCidrBlock", "10.0.0.0/16"}}});
  const auto subnets = read_subnets(document, "", problems);
  ASSERT_EQ(subnets.size(), 1U) << all_of(problems);
  EXPECT_EQ(subnets[0].resolver()->to_string(), "10.0.0.2");
  EXPECT_EQ(read_subnets(Json::array({subnet_json(subnets[0])}), "", problems), subnets);
  read_subnets(Json::array({{{"SubnetId", "subnet-1"}, {"CidrBlock", "10.0.1.0/24"}, {"VpcCidrBlock", "::/0"}}}), "", problems);
  EXPECT_TRUE(has_problem(problems, "/0/VpcCidrBlock", "IPv4")) << all_of(problems);
}

}  // namespace
}  // namespace trunkline::control
