// SPDX-License-Identifier: BSD-3-Clause
#include "control/events.h"

#include <gtest/gtest.h>

#include <random>

#include "tests/unit/aws_data.h"

namespace trunkline::control {
namespace {

using config::AttachmentFacts;
using config::DesiredState;
using config::Json;
using config::Problems;

constexpr const char* kTaskArn =
    "arn:aws:ecs:us-west-2:123456789012:task/awsvpc-ecs-demo/f5aa0000000000000000000000000001";
constexpr const char* kEni = "eni-b0aaa4b2";

std::vector<std::string> submit(const Json& event, DesiredState& state, const AttachmentFacts& defaults = {}) {
  auto effect = read_event(event, "/event", state);
  EXPECT_TRUE(effect.has_value()) << (effect ? "" : all_of(effect.error())) << event.dump();
  if (!effect) return {};
  auto warnings = effect->warnings;
  apply(std::move(*effect), defaults, state);
  return warnings;
}

Problems refused(const Json& event, const DesiredState& state = {}) {
  auto effect = read_event(event, "/event", state);
  EXPECT_FALSE(effect.has_value()) << event.dump();
  return effect ? Problems{} : effect.error();
}

bool warns(const std::vector<std::string>& warnings, std::string_view word) {
  return std::ranges::any_of(warnings, [&](const std::string& w) { return w.find(word) != std::string::npos; });
}

Json with(Json document, const char* pointer, const Json& value) {
  document[Json::json_pointer(pointer)] = value;
  return document;
}

Json without(Json document, const char* parent, const char* key) {
  document[Json::json_pointer(parent)].erase(key);
  return document;
}

Json task_event(std::int64_t version) { return with(test_data("ecs-task-state-change"), "/detail/version", version); }

TEST(Shapes, NoneOrTwoOrNoObjectIsRefused) {
  EXPECT_TRUE(has_problem(refused(Json::object()), "/event", "none of the keys"));
  EXPECT_TRUE(has_problem(refused({{"tasks", Json::array()}, {"Subnets", Json::array()}}), "/event", "more than one"));
  EXPECT_TRUE(has_problem(refused(7), "/event", "object"));
  EXPECT_TRUE(has_problem(refused({{"tasks", 7}}), "/event/tasks", "list"));
  EXPECT_TRUE(has_problem(refused({{"detail-type", "ECS Service Action"}, {"detail", Json::object()}}),
                          "/event/detail-type", "State"));
  EXPECT_TRUE(has_problem(refused({{"type", "HeartbeatMessage"}, {"message", Json::object()}}), "/event/type",
                          "PayloadMessage"));
}

TEST(Shapes, Ec2DocumentsAreEventsToo) {
  DesiredState state;
  submit(test_data("describe-subnets"), state);
  EXPECT_EQ(state.subnets.size(), 2U);
  submit(test_data("describe-security-groups"), state);
  EXPECT_TRUE(state.security_groups.contains("sg-9effe8e4"));
  submit(test_data("describe-network-interfaces"), state);
  submit(test_data("describe-trunk-interface-associations"), state);
  ASSERT_TRUE(state.attachments.contains(kEni));
  EXPECT_EQ(state.attachments[kEni].vlan, VlanId{102});
  EXPECT_EQ(state.attachments[kEni].group_ids, std::vector<std::string>{"sg-9effe8e4"});
  Json page = test_data("describe-subnets");
  page["NextToken"] = "x";
  EXPECT_TRUE(warns(submit(page, state), "NextToken"));
  EXPECT_TRUE(has_problem(refused({{"Subnets", {{{"SubnetId", "x"}}}}}), "/event/Subnets/0/SubnetId", "subnet-"));
  submit(test_data("describe-network-acls"), state);
  ASSERT_TRUE(state.network_acls.contains("acl-9aeb5ef7"));
  EXPECT_EQ(state.network_acls.at("acl-9aeb5ef7").subnet_ids, std::vector<std::string>{"subnet-c070009b"});
  EXPECT_TRUE(has_problem(refused({{"NetworkAcls", {{{"NetworkAclId", "x"}}}}}), "/event/NetworkAcls/0/NetworkAclId", "acl-"));
}

// describe-subnets does not say the range of the VPC.
TEST(Shapes, ASubnetThatIsPutAgainKeepsTheRangeOfItsVpc) {
  DesiredState state;
  Json document = test_data("describe-subnets");
  submit(document, state);
  EXPECT_FALSE(state.subnets.at("subnet-c070009b").vpc_cidr);
  const IpPrefix range = *IpPrefix::parse("10.0.0.0/16"), narrower = *IpPrefix::parse("10.0.0.0/20");
  document["Subnets"][0]["VpcCidrBlock"] = range.to_string();
  submit(document, state);
  EXPECT_EQ(state.subnets.at("subnet-c070009b").vpc_cidr, range);
  EXPECT_EQ(state.subnets.at("subnet-0a1b2c3d4e5f60719").vpc_cidr, range) << "the other is in the same VPC";
  submit(test_data("describe-subnets"), state);
  EXPECT_EQ(state.subnets.at("subnet-c070009b").vpc_cidr, range);
  document["Subnets"][0]["VpcCidrBlock"] = narrower.to_string();
  submit(document, state);
  EXPECT_EQ(state.subnets.at("subnet-c070009b").vpc_cidr, narrower) << "what is said counts";
  document["Subnets"] = Json::array({{{"SubnetId", "subnet-9"}, {"CidrBlock", "10.9.0.0/24"}, {"VpcId", "vpc-9"}}});
  submit(document, state);
  EXPECT_FALSE(state.subnets.at("subnet-9").vpc_cidr);
}

TEST(Shapes, ASubnetOverTheRangeOfAnotherOfItsVpcTakesItsPlace) {
  const auto document = [](const char* id, const char* range, const char* vpc) {
    return Json{{"Subnets", {{{"SubnetId", id}, {"CidrBlock", range}, {"VpcId", vpc}}}}};
  };
  DesiredState state;
  submit(document("subnet-1", "10.0.0.0/24", "vpc-1"), state);
  submit(document("subnet-2", "10.0.1.0/24", "vpc-1"), state);
  submit(document("subnet-3", "10.0.0.0/24", "vpc-2"), state);
  submit(document("subnet-4", "10.0.0.128/25", "vpc-1"), state);
  EXPECT_FALSE(state.subnets.contains("subnet-1")) << "deleted, and its range used again";
  EXPECT_EQ(state.subnets.size(), 3U) << "another range, and another VPC";
  // One that has an ENI stays, so that the change is refused (validate.h).
  state.attachments["eni-1"].subnet_id = "subnet-4";
  submit(document("subnet-5", "10.0.0.0/23", "vpc-1"), state);
  EXPECT_TRUE(state.subnets.contains("subnet-4"));
  EXPECT_FALSE(state.subnets.contains("subnet-2"));
}

TEST(Shapes, DefaultsOfAnEventGiveANewEniItsSettings) {
  DesiredState state;
  AttachmentFacts defaults;
  defaults.audit = true;
  defaults.limits.egress_bits = 8000;
  submit(task_event(4), state, defaults);
  EXPECT_TRUE(state.attachments[kEni].audit);
  EXPECT_EQ(state.attachments[kEni].limits.egress_bits, 8000U);
  state.attachments[kEni].audit = false;
  submit(task_event(5), state, defaults);
  EXPECT_FALSE(state.attachments[kEni].audit) << "a default undoes nothing";
}

TEST(DescribeTasksEvent, TheWalkThrough) {
  DesiredState state;
  EXPECT_TRUE(submit(test_data("describe-tasks"), state).empty());
  ASSERT_TRUE(state.attachments.contains(kEni));
  const auto& attachment = state.attachments[kEni];
  EXPECT_EQ(attachment.eni_id, kEni);
  EXPECT_EQ(attachment.attachment_id, "1789bcae-ddfb-4d10-8ebe-8ac87ddba5b8");
  EXPECT_EQ(attachment.mac->to_string(), "0a:47:e4:7a:2b:02");
  ASSERT_EQ(attachment.addresses.size(), 1U) << "the container repeats the address";
  EXPECT_EQ(attachment.subnet_id, "subnet-c070009b");
  EXPECT_EQ(attachment.task.version, 4);
  EXPECT_EQ(attachment.task.containers.at(0).name, "nginx");
  EXPECT_FALSE(attachment.vlan) << "this form does not know it";
  const DesiredState before = state;
  EXPECT_TRUE(submit(test_data("describe-tasks"), state).empty()) << "polling again is no news";
  EXPECT_EQ(state, before);
  EXPECT_TRUE(warns(submit(with(test_data("describe-tasks"), "/tasks/0/version", 3), state), "stale_event"));
  EXPECT_EQ(state, before);
}

TEST(DescribeTasksEvent, OtherAttachmentsAreSkippedAndIpv6IsFound) {
  Json document = test_data("describe-tasks");
  Json& task = document["tasks"][0];
  task["attachments"].insert(task["attachments"].begin(), Json{{"type", "Service Connect"}, {"status", "?"}});
  task["containers"][0]["networkInterfaces"][0]["ipv6Address"] = "2001:db8::35";
  task["containers"][0]["networkInterfaces"].push_back({{"attachmentId", "other"}, {"privateIpv4Address", "10.9.9.9"}});
  DesiredState state;
  submit(document, state);
  ASSERT_EQ(state.attachments[kEni].addresses.size(), 2U);
  EXPECT_EQ(state.attachments[kEni].addresses[1].to_string(), "2001:db8::35");
  for (const char* name : {"ipv6Address", "privateIPv6Address"}) {
    Json other = test_data("describe-tasks");
    other["tasks"][0]["attachments"][0]["details"].insert(other["tasks"][0]["attachments"][0]["details"].begin(),
                                                          Json{{"name", name}, {"value", "2001:db8::36"}});
    DesiredState fresh;
    submit(other, fresh);
    ASSERT_EQ(fresh.attachments[kEni].addresses.size(), 2U);
    EXPECT_EQ(fresh.attachments[kEni].addresses[0].to_string(), "10.0.0.35") << "the order of details means nothing";
  }
}

TEST(DescribeTasksEvent, EveryMistakeIsToldWithItsPlace) {
  const Json good = test_data("describe-tasks");
  const auto place = [](const char* rest) { return "/event/tasks/0/" + std::string(rest); };
  EXPECT_TRUE(has_problem(refused(without(good, "/tasks/0", "taskArn")), place("taskArn"), "wanted"));
  EXPECT_TRUE(
      has_problem(refused(with(good, "/tasks/0/taskArn", "arn:aws:ecs:r:1:task/c/..")), place("taskArn"), "letters"));
  EXPECT_TRUE(has_problem(refused(with(good, "/tasks/0/version", "4")), place("version"), "whole number"));
  EXPECT_TRUE(has_problem(refused(with(good, "/tasks/0/attachments/0/status", "BUSY")), place("attachments/0/status"),
                          "ATTACHED"));
  EXPECT_TRUE(
      has_problem(refused(with(good, "/tasks/0/attachments/0/id", "a b")), place("attachments/0/id"), "dashes"));
  EXPECT_TRUE(has_problem(refused(with(good, "/tasks/0/attachments/0/details", Json::array())),
                          place("attachments/0/details"), "networkInterfaceId"));
  EXPECT_TRUE(has_problem(refused(with(good, "/tasks/0/attachments/0/details/2/value", "0a")),
                          place("attachments/0/details/2/value"), "MAC"));
  EXPECT_TRUE(has_problem(refused(with(good, "/tasks/0/attachments/0/details/3/value", "::1")),
                          place("attachments/0/details/3/value"), "IPv4"));
  EXPECT_TRUE(has_problem(refused(with(good, "/tasks/1", good["tasks"][0])), "/event/tasks/1/taskArn", "twice"));
  Json same_eni = with(good, "/tasks/1", good["tasks"][0]);
  same_eni["tasks"][1]["taskArn"] = "arn:aws:ecs:r:1:task/c/2";
  EXPECT_TRUE(has_problem(refused(same_eni), "/event/tasks/1/attachments/0", "twice"));
  const Problems both = refused(with(with(good, "/tasks/0/version", "4"), "/tasks/0/attachments/0/status", "BUSY"));
  EXPECT_EQ(both.size(), 2U) << all_of(both);
}

TEST(TaskStateChange, AttachesAndIsStaleTheSecondTime) {
  DesiredState state;
  EXPECT_TRUE(submit(task_event(5), state).empty());
  EXPECT_EQ(state.attachments[kEni].task.version, 5);
  const DesiredState before = state;
  EXPECT_TRUE(warns(submit(task_event(4), state), "stale_event"));
  EXPECT_TRUE(warns(submit(task_event(5), state), "stale_event"));
  EXPECT_EQ(state, before);
  EXPECT_TRUE(has_problem(refused(without(test_data("ecs-task-state-change"), "/detail", "version")),
                          "/event/detail/version", "late"));
}

TEST(TaskStateChange, ServesUntilTheEniGoes) {
  for (const char* serving : {"DEACTIVATING", "STOPPING"}) {
    DesiredState state;
    submit(task_event(4), state);
    submit(with(with(task_event(5), "/detail/lastStatus", serving), "/detail/desiredStatus", "STOPPED"), state);
    EXPECT_TRUE(state.attachments.contains(kEni)) << serving;
  }
  for (const char* ended : {"DEPROVISIONING", "STOPPED"}) {
    DesiredState state;
    submit(task_event(4), state);
    submit(with(with(task_event(5), "/detail/lastStatus", ended), "/detail/attachments", Json::array()), state);
    EXPECT_TRUE(state.attachments.empty()) << ended;
    EXPECT_EQ(state.finished_tasks.at(kTaskArn), 5);
  }
  for (const char* gone : {"DETACHING", "DETACHED", "DELETED", "FAILED"}) {
    DesiredState state;
    submit(task_event(4), state);
    Json event = with(task_event(5), "/detail/attachments/0/status", gone);
    event["detail"]["attachments"][0]["details"] = Json::array();
    submit(event, state);
    EXPECT_TRUE(state.attachments.empty()) << gone << ": found by its attachment id";
    EXPECT_TRUE(warns(submit(task_event(5), state), "stale_event"));
    EXPECT_TRUE(warns(submit(test_data("describe-tasks"), state), "stale_event")) << "version 4 of a finished task";
    EXPECT_TRUE(warns(submit(test_data("acs-payload"), state), "stale_event"));
    EXPECT_TRUE(state.attachments.empty());
    EXPECT_TRUE(state.subnets.empty());
  }
}

TEST(TaskStateChange, AnEarlyAttachmentCountsOnceItHasAnEni) {
  for (const char* early : {"PRECREATED", "CREATED", "ATTACHING"}) {
    Json event = with(task_event(1), "/detail/attachments/0/status", early);
    event["detail"]["attachments"][0]["details"] = Json::array({{{"name", "subnetId"}, {"value", "subnet-c070009b"}}});
    DesiredState state;
    EXPECT_TRUE(warns(submit(event, state), "no ENI yet"));
    EXPECT_EQ(state, DesiredState{});
    event["detail"]["attachments"][0]["details"].push_back({{"name", "networkInterfaceId"}, {"value", kEni}});
    EXPECT_TRUE(submit(event, state).empty());
    EXPECT_EQ(state.attachments.at(kEni).attachment_status, early);
    EXPECT_FALSE(state.attachments.at(kEni).mac);
  }
}

// A life of one task as ECS tells it: details accumulate, each event is the whole task.
std::vector<Json> life_of_a_task(std::mt19937_64& random) {
  const auto upto = [&](int most) { return std::uniform_int_distribution<int>(0, most)(random); };
  static const std::vector<std::string> stages{"PROVISIONING", "PENDING",  "ACTIVATING",     "RUNNING",
                                               "DEACTIVATING", "STOPPING", "DEPROVISIONING", "STOPPED"};
  std::vector<Json> events;
  std::size_t stage = 0;
  std::size_t known = 0;  // of the details
  const Json all = test_data("ecs-task-state-change")["detail"]["attachments"][0]["details"];
  const auto last = static_cast<std::size_t>(upto(7));
  for (std::int64_t version = 1; events.size() < 12; ++version) {
    Json event = task_event(version);
    Json& detail = event["detail"];
    known = stage > 0 ? all.size() : std::min(all.size(), known + static_cast<std::size_t>(upto(2)));
    Json details(all.begin(), all.begin() + static_cast<std::ptrdiff_t>(known));
    std::shuffle(details.begin(), details.end(), random);
    detail["attachments"][0]["details"] = details;
    detail["attachments"][0]["status"] = stage == 0   ? "ATTACHING"
                                         : stage < 6  ? "ATTACHED"
                                         : stage == 6 ? "DETACHING"
                                                      : "DELETED";
    detail["lastStatus"] = stages[stage];
    detail["desiredStatus"] = stage > 3 ? "STOPPED" : "RUNNING";
    detail["containers"][0]["lastStatus"] = stages[stage];
    if (stage == 0) detail["containers"][0]["networkInterfaces"] = Json::array();
    if (stage == 7 && upto(1) == 0) detail["attachments"] = Json::array();
    events.push_back(std::move(event));
    if (stage == last && upto(1) == 0) break;
    stage = std::min(last, stage + static_cast<std::size_t>(upto(2)));
  }
  return events;
}

TEST(TaskStateChange, AnyOrderWithDuplicatesEndsAsInOrder) {
  const auto seed = std::random_device{}();
  std::cout << "seed " << seed << "\n";
  std::mt19937_64 random(seed);
  for (int round = 0; round < 400; ++round) {
    const std::vector<Json> events = life_of_a_task(random);
    DesiredState in_order;
    for (const Json& event : events) submit(event, in_order);
    std::vector<Json> delivered = events;
    for (std::size_t i = 0; i < events.size(); ++i) {
      delivered.push_back(events[std::uniform_int_distribution<std::size_t>(0, events.size() - 1)(random)]);
    }
    std::shuffle(delivered.begin(), delivered.end(), random);
    DesiredState shuffled;
    for (const Json& event : delivered) submit(event, shuffled);
    ASSERT_EQ(shuffled, in_order) << "seed " << seed << " round " << round << ", " << events.size() << " versions";
  }
}

TEST(AgentMessage, PayloadAndAttachSayTheSame) {
  DesiredState by_payload;
  EXPECT_TRUE(submit(test_data("acs-payload"), by_payload).empty());
  const auto& attachment = by_payload.attachments[kEni];
  EXPECT_EQ(attachment.vlan, VlanId{102});
  EXPECT_EQ(attachment.trunk_mac->to_string(), "0a:11:22:33:44:55");
  ASSERT_EQ(attachment.addresses.size(), 2U);
  EXPECT_EQ(attachment.task.task_arn, kTaskArn);
  EXPECT_EQ(attachment.task.version, 0) << "the payload's version is the task definition's revision";
  EXPECT_EQ(attachment.subnet_id, "subnet-0a00000018");
  EXPECT_EQ(by_payload.subnets.at("subnet-0a00000018").cidr->to_string(), "10.0.0.0/24");
  EXPECT_EQ(by_payload.subnets.at("subnet-0a00000018").ipv6_cidr->to_string(), "2001:db8:1234:1a00::/64");
  DesiredState by_attach;
  submit(test_data("acs-attach-task"), by_attach);
  by_attach.attachments[kEni].task.launch_type = "EC2";  // only the payload says it
  EXPECT_EQ(by_attach, by_payload);
  const DesiredState before = by_payload;
  submit(test_data("acs-payload"), by_payload);
  EXPECT_EQ(by_payload, before) << "a repeated message changes nothing";
}

TEST(AgentMessage, TheTrunkItselfGivesNothing) {
  DesiredState state;
  EXPECT_TRUE(warns(submit(test_data("acs-attach-instance"), state), "nothing to attach"));
  EXPECT_EQ(state, DesiredState{});
}

TEST(AgentMessage, VlanAsNumberAndAbsentProtocol) {
  const char* eni = "/message/elasticNetworkInterfaces/0";
  DesiredState state;
  submit(with(test_data("acs-attach-task"), "/message/elasticNetworkInterfaces/0/interfaceVlanProperties/vlanId", 103),
         state);
  EXPECT_EQ(state.attachments[kEni].vlan, VlanId{103});
  DesiredState plain;
  submit(without(test_data("acs-attach-task"), eni, "interfaceAssociationProtocol"), plain);
  EXPECT_FALSE(plain.attachments[kEni].vlan) << "absent is \"default\"";
}

TEST(AgentMessage, RefusesWhatTheAgentRefuses) {
  const Json good = test_data("acs-attach-task");
  const auto at = [](const char* rest) { return "/event/message/" + std::string(rest); };
  const auto eni = [](const char* rest) { return "/message/elasticNetworkInterfaces/0/" + std::string(rest); };
  for (const char* key :
       {"messageId", "clusterArn", "containerInstanceArn", "taskArn", "waitTimeoutMs", "elasticNetworkInterfaces"}) {
    EXPECT_TRUE(has_problem(refused(without(good, "/message", key)), at(key), "wanted")) << key;
  }
  for (const char* key : {"messageId", "clusterArn", "containerInstanceArn"}) {
    EXPECT_FALSE(refused(with(test_data("acs-attach-instance"), ("/message/" + std::string(key)).c_str(), "")).empty())
        << key;
  }
  EXPECT_TRUE(has_problem(refused(with(good, "/message/waitTimeoutMs", 0)), at("waitTimeoutMs"), "0"));
  EXPECT_TRUE(has_problem(refused(with(good, "/message/elasticNetworkInterfaces", Json::array())),
                          at("elasticNetworkInterfaces"), "at least one"));
  const auto wrong = [&](const char* rest, const Json& value, const char* word) {
    return has_problem(refused(with(good, eni(rest).c_str(), value)), "/event" + eni(rest), word);
  };
  EXPECT_TRUE(wrong("ec2Id", "b0aaa4b2", "eni-"));
  EXPECT_TRUE(wrong("macAddress", nullptr, "MAC"));
  EXPECT_TRUE(wrong("attachmentArn", "arn:aws:ecs:r:1:attachment/a b", "dashes"));
  EXPECT_TRUE(wrong("subnetGatewayIpv4Address", "10.0.0.1", "one '/'"));
  EXPECT_TRUE(wrong("subnetGatewayIpv4Address", "10.0.0.1/24/24", "one '/'"));
  EXPECT_TRUE(wrong("subnetGatewayIpv4Address", nullptr, "missing"));
  EXPECT_TRUE(wrong("interfaceAssociationProtocol", "veth", "vlan"));
  EXPECT_TRUE(wrong("interfaceAssociationProtocol", "tunnel", "vlan"));
  EXPECT_TRUE(wrong("interfaceVlanProperties", nullptr, "vlanId"));
  EXPECT_TRUE(wrong("interfaceVlanProperties/trunkInterfaceMacAddress", nullptr, "trunk"));
  for (const Json& vlan : {Json(""), Json("0"), Json("4095"), Json("12x"), Json(-3), Json(4095), Json(1.5),
                           Json(nullptr), Json(18446744073709551615ULL)}) {
    EXPECT_TRUE(wrong("interfaceVlanProperties/vlanId", vlan, "4094")) << vlan;
  }
  EXPECT_TRUE(wrong("ipv4Addresses/0/privateAddress", "2001:db8::1", "IPv4"));
  EXPECT_TRUE(wrong("ipv6Addresses/0/address", "10.0.0.1", "IPv6"));
  EXPECT_TRUE(has_problem(
      refused(with(good, "/message/elasticNetworkInterfaces/1", good["message"]["elasticNetworkInterfaces"][0])),
      "/event/message/elasticNetworkInterfaces/1", "twice"));
  EXPECT_TRUE(has_problem(refused(with(test_data("acs-payload"), "/message/tasks", Json::array())), at("tasks"),
                          "at least one"));
}

TEST(AgentMessage, Ipv6OnlyNeedsItsGateway) {
  Json message = with(test_data("acs-attach-task"), "/message/elasticNetworkInterfaces/0/ipv4Addresses", Json::array());
  Json& eni = message["message"]["elasticNetworkInterfaces"][0];
  EXPECT_TRUE(
      has_problem(refused(message), "/event/message/elasticNetworkInterfaces/0/subnetGatewayIpv6Address", "only IPv6"));
  eni["subnetGatewayIpv6Address"] = "fe80::1/64";
  DesiredState state;
  EXPECT_TRUE(warns(submit(message, state), "describe-subnets"));
  submit(test_data("describe-subnets"), state);
  EXPECT_TRUE(submit(message, state).empty());
  EXPECT_EQ(state.attachments[kEni].subnet_id, "subnet-c070009b");
}

TEST(AgentMessage, ATaskThatIsToStopServesUntilItHasStopped) {
  DesiredState state;
  submit(test_data("acs-payload"), state);
  submit(task_event(4), state);
  EXPECT_TRUE(warns(submit(with(test_data("acs-payload"), "/message/tasks/0/desiredStatus", "STOPPED"), state), "is to stop"));
  EXPECT_TRUE(state.attachments.contains(kEni));
  submit(with(with(task_event(5), "/detail/desiredStatus", "STOPPED"), "/detail/lastStatus", "STOPPED"), state);
  EXPECT_TRUE(state.attachments.empty());
  EXPECT_EQ(state.finished_tasks.at(kTaskArn), 5);
}

TEST(GatewaySubnet, TakesTheNameOnceItIsKnown) {
  DesiredState agent_first;
  submit(test_data("acs-payload"), agent_first);
  submit(task_event(4), agent_first);
  EXPECT_EQ(agent_first.attachments[kEni].subnet_id, "subnet-c070009b");
  ASSERT_EQ(agent_first.subnets.size(), 1U) << "two subnets of one range would overlap";
  EXPECT_EQ(agent_first.subnets.at("subnet-c070009b").cidr->to_string(), "10.0.0.0/24");

  DesiredState ecs_first;
  submit(task_event(4), ecs_first);
  submit(test_data("acs-payload"), ecs_first);
  EXPECT_EQ(ecs_first.subnets, agent_first.subnets);
  EXPECT_EQ(ecs_first.attachments[kEni].subnet_id, "subnet-c070009b");

  DesiredState ec2_later;
  submit(test_data("acs-payload"), ec2_later);
  submit(test_data("describe-subnets"), ec2_later);
  EXPECT_EQ(ec2_later.attachments[kEni].subnet_id, "subnet-c070009b");
  EXPECT_EQ(ec2_later.subnets.size(), 2U);

  DesiredState ec2_first;
  submit(test_data("describe-subnets"), ec2_first);
  submit(test_data("acs-payload"), ec2_first);
  EXPECT_EQ(ec2_first, ec2_later);
}

TEST(GatewaySubnet, AConfiguredSubnetIsFoundAsWell) {
  Problems problems;
  const config::Subnet subnet{.id = "subnet-1",
                              .cidr = *IpPrefix::parse("10.0.0.0/24"),
                              .ipv6_cidr = {},
                              .availability_zone = {},
                              .vpc_id = {}};
  const DesiredState state;
  const auto effect = read_event(test_data("acs-payload"), "", state, {&subnet, 1});
  ASSERT_TRUE(effect.has_value());
  EXPECT_TRUE(effect->subnets.empty());
  EXPECT_EQ(effect->attach.at(0).subnet_id, "subnet-1");
}

TEST(Defaults, FillOnlyWhatNobodySaid) {
  AttachmentFacts defaults;
  defaults.vlan = VlanId{7};
  defaults.mac = MacAddress{{2, 2, 2, 2, 2, 2}};
  defaults.group_ids = {"sg-1"};
  defaults.source_dest_check = false;
  defaults.port.emplace();
  defaults.port->netns = "{task_id}";
  defaults.port->socket = "/run/{eni}/{attachment_id}/{eni}";
  defaults.task.emplace().group = "family:default";
  DesiredState state;
  submit(task_event(4), state, defaults);
  const auto first = state.attachments[kEni];
  EXPECT_EQ(first.vlan, VlanId{7});
  EXPECT_EQ(first.mac->to_string(), "0a:47:e4:7a:2b:02");
  EXPECT_EQ(first.group_ids, std::vector<std::string>{"sg-1"});
  EXPECT_FALSE(first.source_dest_check);
  EXPECT_EQ(first.port->netns, "f5aa0000000000000000000000000001");
  EXPECT_EQ(first.port->socket, "/run/eni-b0aaa4b2/1789bcae-ddfb-4d10-8ebe-8ac87ddba5b8/eni-b0aaa4b2");
  EXPECT_EQ(first.task.group, "family:nginx-awsvpc");
  defaults.port->netns = "other";
  defaults.vlan = VlanId{8};
  submit(task_event(5), state, defaults);
  EXPECT_EQ(state.attachments[kEni].port, first.port) << "the state has spoken";
  EXPECT_EQ(state.attachments[kEni].vlan, VlanId{7});

  DesiredState told;
  submit(test_data("describe-network-interfaces"), told);
  submit(task_event(4), told, defaults);
  EXPECT_TRUE(told.attachments[kEni].source_dest_check) << "EC2 said true";
}

TEST(Defaults, APortWhoseNameIsNotKnownIsNotMade) {
  AttachmentFacts defaults;
  defaults.port.emplace().netns = "{task_id}";
  DesiredState state;
  submit(test_data("describe-network-interfaces"), state, defaults);
  EXPECT_FALSE(state.attachments[kEni].port);
  state.attachments[kEni].task.task_arn = "arn:aws:ecs:r:1:task/c/..";
  submit(test_data("describe-network-interfaces"), state, defaults);
  EXPECT_FALSE(state.attachments[kEni].port) << "\"..\" is no name for a namespace";
  submit(task_event(4), state, defaults);
  EXPECT_EQ(state.attachments[kEni].port->netns, "f5aa0000000000000000000000000001");
}

TEST(FinishedTasks, StayBoundedAndKeepTheLatest) {
  DesiredState state;
  for (int i = 0; i < 3000; ++i) {
    const std::string arn = "arn:aws:ecs:r:1:task/c/" + std::to_string(i);
    Json event = with(with(task_event(9), "/detail/taskArn", arn), "/detail/lastStatus", "STOPPED");
    submit(event, state);
    ++state.revision;
    ASSERT_LE(state.finished_tasks.size(), kMaxFinishedTasks);
    ASSERT_TRUE(state.finished_tasks.contains(arn));
  }
  EXPECT_EQ(state.finished_tasks.size(), kMaxFinishedTasks);
  EventEffect many;
  for (int i = 0; i < 2000; ++i) many.finished["x" + std::to_string(i)] = 1;
  apply(std::move(many), {}, state);
  EXPECT_EQ(state.finished_tasks.size(), kMaxFinishedTasks);
}

TEST(DescribeTasksEvent, FailuresAreToldAndAPolledEndDetaches) {
  DesiredState state;
  submit(test_data("describe-tasks"), state);
  EXPECT_TRUE(
      warns(submit({{"tasks", Json::array()}, {"failures", {{{"arn", kTaskArn}, {"reason", "MISSING"}}}}}, state),
            "MISSING"));
  EXPECT_TRUE(state.attachments.contains(kEni));
  const Json ended = with(test_data("describe-tasks"), "/tasks/0/lastStatus", "STOPPED");
  EXPECT_TRUE(submit(ended, state).empty());
  EXPECT_TRUE(state.attachments.empty());
  const DesiredState before = state;
  EXPECT_TRUE(submit(ended, state).empty()) << "the same end polled again is no news";
  EXPECT_EQ(state, before);
}

}  // namespace
}  // namespace trunkline::control
