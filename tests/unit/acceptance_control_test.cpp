// SPDX-License-Identifier: BSD-3-Clause
// The acceptance tests that are about control: A18 and A19. Events go through their reader into the controller, whose ports
// are none; what counts is what is in the View afterwards.
#include <gtest/gtest.h>
#include <rte_log.h>

#include "control/controller.h"
#include "control/events.h"
#include "tests/unit/aws_data.h"

namespace trunkline::control {
namespace {

using config::Json;

struct NoPort final : TaskPort {
  std::uint16_t ethdev() const override { return 7; }
  bool link_up() const override { return true; }
  void remove_with_interface() override {}
};

class AcceptanceTest : public ::testing::Test {
 protected:
  AcceptanceTest() : published_(1), worker_(0, published_, IdleSettings{}, 8, 1024, 1) {
    rte_log_set_global_level(0);  // that there is no such port is no news
    config_.trunk.device = "net_null0";
    config_.limits.endpoints = 8;
    controller_ = std::make_unique<Controller>(
        config_, published_, std::vector<Worker*>{&worker_},
        [this](const config::Attachment&, const config::Subnet&) -> std::expected<std::unique_ptr<TaskPort>, config::Problem> {
          ++opened_;
          return std::make_unique<NoPort>();
        },
        TrunkPort{.ethdev = 7, .queues = 1}, nullptr);
    config::SecurityGroup group;
    group.id = "sg-9effe8e4";
    EXPECT_TRUE(controller_->change([&](config::DesiredState& next, std::vector<std::string>&) {
      next.security_groups[group.id] = group;
      return config::Problems{};
    }));
  }

  // As event.submit does it. What the event does not say of a task is its port and its groups.
  std::expected<ChangeResult, config::Problems> submit(const Json& event, std::optional<std::int64_t> now_ms = {}) {
    config::AttachmentFacts defaults;
    defaults.group_ids = {"sg-9effe8e4"};
    defaults.port = config::PortSpec{};
    defaults.port->netns = "{eni}";
    return controller_->change([&](config::DesiredState& next, std::vector<std::string>& warnings) {
      auto effect = read_event(event, "/event", next, {}, now_ms);
      if (!effect) return effect.error();
      warnings = effect->warnings;
      apply(std::move(*effect), defaults, next);
      return config::Problems{};
    });
  }
  const Endpoint* at_vlan(std::uint16_t vlan) const { return published_.read()->at_vlan(vlan); }
  bool has(const config::Problems& problems, const std::string& name, const std::string& pointer) const {
    return std::ranges::any_of(problems, [&](const auto& problem) { return problem.name == name && problem.pointer == pointer; });
  }

  config::EngineConfig config_;
  Published<View> published_;
  Worker worker_;
  std::unique_ptr<Controller> controller_;
  int opened_ = 0;
};

constexpr std::int64_t kReceived = 1510700000000, kWait = 300000;

Json attach_message() {
  Json message = test_data("acs-attach-task");
  message["receivedAt"] = kReceived;
  return message;
}

TEST_F(AcceptanceTest, A18AnAttachmentThatEcsNoLongerWaitsForIsRefused) {
  const auto late = submit(attach_message(), kReceived + kWait);
  ASSERT_FALSE(late.has_value());
  EXPECT_TRUE(has(late.error(), "stale_event", "/event/message/waitTimeoutMs")) << all_of(late.error());
  EXPECT_EQ(at_vlan(102), nullptr);
  EXPECT_EQ(opened_, 0);
  EXPECT_TRUE(controller_->desired().attachments.begin() == controller_->desired().attachments.end());
  // A millisecond earlier it is attached, and so is one of which nobody says when it came.
  ASSERT_TRUE(submit(attach_message(), kReceived + kWait - 1).has_value());
  ASSERT_NE(at_vlan(102), nullptr);
  EXPECT_EQ(opened_, 1);
}

TEST_F(AcceptanceTest, A18TheSameAttachAgainChangesNothingAndExtendsNothing) {
  ASSERT_TRUE(submit(attach_message(), kReceived + 1).has_value());
  const Endpoint* before = at_vlan(102);
  const auto again = submit(attach_message(), kReceived + 2);
  ASSERT_TRUE(again.has_value()) << all_of(again.error());
  EXPECT_FALSE(again->changed);
  EXPECT_EQ(at_vlan(102), before);
  EXPECT_EQ(opened_, 1);
  // The duplicate has the deadline of the first one; what is attached stays.
  EXPECT_FALSE(submit(attach_message(), kReceived + kWait).has_value());
  EXPECT_EQ(at_vlan(102), before);
}

TEST_F(AcceptanceTest, A18AVlanThatIsInUseIsAnError) {
  ASSERT_TRUE(submit(attach_message(), kReceived).has_value());
  const Endpoint* before = at_vlan(102);
  Json other = attach_message();
  Json& eni = other["message"]["elasticNetworkInterfaces"][0];
  eni["ec2Id"] = "eni-0000000000000002";
  eni["attachmentArn"] = "arn:aws:ecs:us-west-2:123456789012:attachment/2";
  eni["macAddress"] = "0a:47:e4:7a:2b:03";
  eni["ipv4Addresses"][0]["privateAddress"] = "10.0.0.36";
  eni["ipv6Addresses"] = Json::array();
  other["message"]["taskArn"] = "arn:aws:ecs:us-west-2:123456789012:task/awsvpc-ecs-demo/f5aa0000000000000000000000000002";
  const auto refused = submit(other, kReceived);
  ASSERT_FALSE(refused.has_value());
  EXPECT_TRUE(std::ranges::any_of(refused.error(), [](const auto& problem) { return problem.name == "duplicate_vlan"; })) << all_of(refused.error());
  EXPECT_EQ(at_vlan(102), before);
  EXPECT_EQ(opened_, 1);
  eni["interfaceVlanProperties"]["vlanId"] = "103";
  ASSERT_TRUE(submit(other, kReceived).has_value());
  EXPECT_NE(at_vlan(103), nullptr);
}

TEST_F(AcceptanceTest, A19AnOlderVersionIsIgnored) {
  ASSERT_TRUE(submit(attach_message(), kReceived).has_value());
  Json event = test_data("ecs-task-state-change");
  event["detail"]["version"] = 5;
  event["detail"]["lastStatus"] = "RUNNING";
  ASSERT_TRUE(submit(event).has_value());
  const auto status = [&] { return controller_->desired().attachments.at("eni-b0aaa4b2").task; };
  EXPECT_EQ(status().version, 5);
  EXPECT_EQ(status().last_status, "RUNNING");
  const auto revision = controller_->desired().revision;
  // Version 4 even says that the ENI is gone.
  event["detail"]["version"] = 4;
  event["detail"]["lastStatus"] = "STOPPED";
  event["detail"]["attachments"][0]["status"] = "DELETED";
  const auto stale = submit(event);
  ASSERT_TRUE(stale.has_value()) << all_of(stale.error());
  EXPECT_FALSE(stale->changed);
  ASSERT_EQ(stale->warnings.size(), 1U);
  EXPECT_NE(stale->warnings[0].find("stale"), std::string::npos) << stale->warnings[0];
  EXPECT_EQ(status().version, 5);
  EXPECT_EQ(controller_->desired().revision, revision);
  EXPECT_NE(at_vlan(102), nullptr);
  // The same with a newer version detaches.
  event["detail"]["version"] = 6;
  ASSERT_TRUE(submit(event).has_value());
  EXPECT_EQ(at_vlan(102), nullptr);
}

}  // namespace
}  // namespace trunkline::control
