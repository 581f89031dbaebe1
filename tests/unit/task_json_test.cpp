// SPDX-License-Identifier: BSD-3-Clause
#include "control/task_json.h"

#include <gtest/gtest.h>

#include "control/events.h"
#include "tests/unit/aws_data.h"

namespace trunkline::control {
namespace {

using config::DesiredState;
using config::Json;

constexpr const char* kTaskArn =
    "arn:aws:ecs:us-west-2:123456789012:task/awsvpc-ecs-demo/f5aa0000000000000000000000000001";

DesiredState state_of(const Json& event, DesiredState state = {}) {
  auto effect = read_event(event, "/event", state);
  EXPECT_TRUE(effect.has_value()) << (effect ? "" : all_of(effect.error()));
  if (effect) apply(std::move(*effect), {}, state);
  return state;
}

TEST(DescribeTasks, TheWalkThroughComesBackAsItWasGiven) {
  const Json given = test_data("describe-tasks");
  const Json answer = describe_tasks(state_of(given), {});
  EXPECT_EQ(answer["tasks"], given["tasks"]) << answer.dump(2);
  EXPECT_EQ(answer["failures"], Json::array());
}

TEST(DescribeTasks, TheNewerFormComesBackWhereItIsKept) {
  const Json given = test_data("describe-tasks-newer")["tasks"][0];
  const Json task = describe_tasks(state_of(test_data("describe-tasks-newer")), {})["tasks"][0];
  for (const char* key :
       {"attachments", "containers", "group", "launchType", "containerInstanceArn", "version", "lastStatus"}) {
    EXPECT_EQ(task[key], given[key]) << key;
  }
}

TEST(DescribeTasks, AnAnswerCanBeGivenInAgain) {
  const DesiredState state = state_of(test_data("ecs-task-state-change"));
  EXPECT_EQ(state_of(describe_tasks(state, {})), state);
}

TEST(DescribeTasks, FindsByEveryRefAndOnlyOnce) {
  const DesiredState state = state_of(test_data("describe-tasks"));
  for (const std::string& ref : {std::string(kTaskArn), std::string("f5aa0000000000000000000000000001"),
                                 std::string("eni-b0aaa4b2"), std::string("1789bcae-ddfb-4d10-8ebe-8ac87ddba5b8")}) {
    const std::vector<std::string> refs{ref, kTaskArn};
    EXPECT_EQ(describe_tasks(state, refs)["tasks"].size(), 1U) << ref;
    ASSERT_NE(find_attachment(state, ref), nullptr) << ref;
    EXPECT_EQ(find_attachment(state, ref)->eni_id, "eni-b0aaa4b2");
  }
  const std::vector<std::string> unknown{"f5aa", ""};
  const Json answer = describe_tasks(state, unknown);
  EXPECT_TRUE(answer["tasks"].empty());
  ASSERT_EQ(answer["failures"].size(), 2U);
  EXPECT_EQ(answer["failures"][0], (Json{{"arn", "f5aa"}, {"reason", "MISSING"}}));
  EXPECT_EQ(find_attachment(state, "f5aa"), nullptr);
  EXPECT_EQ(find_attachment(state, ""), nullptr);
}

TEST(DescribeTasks, AnAmbiguousIdFindsNothing) {
  DesiredState state;
  for (const char* eni : {"eni-1", "eni-2"}) {
    state.attachments[eni].eni_id = eni;
    state.attachments[eni].task.task_arn = std::string("arn:aws:ecs:r:1:task/cluster-of-") + eni + "/same";
  }
  const std::vector<std::string> refs{"same"};
  EXPECT_EQ(describe_tasks(state, refs)["failures"].size(), 1U);
  EXPECT_EQ(find_attachment(state, "same"), nullptr);
  EXPECT_EQ(find_attachment(state, "eni-2"), &state.attachments["eni-2"]);
  EXPECT_EQ(describe_tasks(state, {})["tasks"].size(), 2U);
}

TEST(DescribeTasks, AnInterfaceWithoutATaskIsShownAndNothingIsMadeUp) {
  DesiredState state;
  state.attachments["eni-1"].eni_id = "eni-1";
  state.attachments["eni-1"].subnet_id = gateway_subnet_id(*IpPrefix::parse("10.0.0.0/24"));
  const Json task = describe_tasks(state, {})["tasks"][0];
  EXPECT_FALSE(task.contains("taskArn"));
  EXPECT_EQ(task["attachments"][0]["details"], Json::array({{{"name", "networkInterfaceId"}, {"value", "eni-1"}}}));
}

}  // namespace
}  // namespace trunkline::control
