// SPDX-License-Identifier: BSD-3-Clause
// Random edits of a state, one after the other: what the validator that looks at differences answers is what a validation
// from scratch answers, and a difference written as JSON leads from the one state to the other.
#include <gtest/gtest.h>

#include <cstdlib>

#include "config/state_difference.h"
#include "config/state_json.h"
#include "config/validate.h"
#include "tests/support/random_state.h"

namespace trunkline::config {
namespace {

int edits() {
  const char* wanted = std::getenv("TRUNKLINE_EDITS");
  return wanted != nullptr ? std::atoi(wanted) : 20000;
}

TEST(StateProperty, TheValidatorOfDifferencesAnswersAsValidationFromScratch) {
  const std::uint64_t seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  test::RandomEdits random(seed);
  const EngineConfig config = test::RandomEdits::config();
  StateValidator validator(config);
  DesiredState state;
  int valid = 0, refused = 0;
  for (int i = 0; i < edits(); ++i) {
    DesiredState next = state;
    random.edit(next);
    const std::string subject = "eni-" + std::to_string(random.below(12));
    const Problems problems = validate(next, config, subject);
    ASSERT_EQ(validator.validate(next, subject), problems) << "edit " << i;
    problems.empty() ? ++valid : ++refused;
    // A valid state that is not taken (a dry run) must not confuse it, and now and then everything goes at once.
    if (problems.empty() && random.below(8) != 0) state = next;
    if (random.below(500) == 0) state = DesiredState{};
  }
  EXPECT_GT(valid, edits() / 10);
  EXPECT_GT(refused, edits() / 10);
}

TEST(StateProperty, ADifferenceLeadsFromTheOneStateToTheOther) {
  const std::uint64_t seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  test::RandomEdits random(seed);
  const EngineConfig config = test::RandomEdits::config();
  DesiredState before;
  for (int i = 0; i < edits() / 5; ++i) {
    DesiredState after = before;
    random.edit(after);
    if (!validate(after, config).empty()) continue;
    const Json difference = difference_json(before, after);
    const auto parsed = parse_json(difference.dump());
    ASSERT_TRUE(parsed);
    DesiredState reached = before;
    const auto applied = apply_difference(reached, *parsed);
    ASSERT_TRUE(applied) << applied.error() << ' ' << difference.dump().substr(0, 300);
    ASSERT_EQ(reached, after) << "edit " << i << ' ' << difference.dump().substr(0, 300);
    ASSERT_EQ(difference.empty(), before == after);
    before = after;
  }
}

TEST(StateDifference, SaysTheRulesThatDifferAndNoOthers) {
  DesiredState before;
  SecurityGroup& group = before.security_groups["sg-1"];
  group.id = "sg-1";
  for (int i = 0; i < 100; ++i) group.ingress.push_back({6, i, i, {}, {}, {}});
  DesiredState after = before;
  after.security_groups["sg-1"].ingress[40].to_port = 50;
  const Json difference = difference_json(before, after);
  EXPECT_EQ(difference["security_groups"]["sg-1"]["ingress"].size(), 1U);
  EXPECT_EQ(difference["security_groups"]["sg-1"]["kept"]["ingress"], (Json{40, 59}));
}

TEST(StateDifference, WhatDoesNotFitIsRefused) {
  for (const char* text : {R"([])", R"({"security_groups":3})", R"({"security_groups":{"sg-1":{"ingress":[],"kept":{"ingress":[0,0],"egress":[0,0]}}}})",
                           R"({"prefix_lists":{"pl-1":{"entries":[],"kept":{"entries":[1,0]}}}})", R"({"remote_members":{"sg-1":["10.0.0.1"]}})",
                           R"({"remote_members":{"sg-1":{"add":["x"],"remove":[]}}})", R"({"nonsense":{"a":{}}})"}) {
    DesiredState state;
    EXPECT_FALSE(apply_difference(state, *parse_json(text))) << text;
  }
}

}  // namespace
}  // namespace trunkline::config
