// SPDX-License-Identifier: BSD-3-Clause
// The scenarios' runner: that it sees what is wrong. A scenario that passes means nothing unless this one fails.
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "tests/scenarios/steps.h"

namespace trunkline::test {
namespace {

class ScenarioRunnerTest : public ::testing::Test {
 protected:
  ScenarioRunnerTest() : root_(std::filesystem::temp_directory_path() / ("trunkline-scenario-" + std::to_string(getpid()))) {
    std::filesystem::create_directories(root_ / "one");
    std::filesystem::copy_file("tests/scenarios/default.json", root_ / "default.json", std::filesystem::copy_options::overwrite_existing);
    write("scenario.json", R"({"about": "HTTP in, all out", "SecurityGroups": [{"GroupId": "sg-web",
      "IpPermissions": [{"IpProtocol": "tcp", "FromPort": 80, "ToPort": 80, "IpRanges": [{"CidrIp": "198.51.100.0/24"}]}],
      "IpPermissionsEgress": [{"IpProtocol": "-1", "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}]}]})");
  }
  ~ScenarioRunnerTest() override { std::filesystem::remove_all(root_); }

  void write(const char* name, const std::string& text) { std::ofstream(root_ / "one" / name) << text; }
  // What the runner says; empty: all is well.
  std::string play(const std::string& steps) {
    write("steps.txt", steps);
    try {
      return Steps(load_scenario(root_ / "one"), false).run().value_or("");
    } catch (const ScenarioError& error) {
      return error.what();
    }
  }
  std::filesystem::path root_;
};

const std::string kSyn = "trunk > web: tcp 198.51.100.9:40000 > 10.0.0.35:80 S\n";

TEST_F(ScenarioRunnerTest, WhatIsRightPasses) {
  EXPECT_EQ(play(kSyn + "expect web: the same\n"), "");
  EXPECT_EQ(play(kSyn + "expect web: tcp 198.51.100.9:40000 > 10.0.0.35:80 S\n"), "");
  EXPECT_EQ(play(kSyn + "expect web: the same\nflow-log:\n  web 198.51.100.9 10.0.0.35 40000 80 6 1 40 ACCEPT 2 ingress\n"), "");
}

TEST_F(ScenarioRunnerTest, WhatIsWrongIsToldWithItsLine) {
  const std::string out = "task web: tcp 10.0.0.35:80 > 198.51.100.9:40000 SA\n";
  const struct {
    std::string steps;
    int line;
    const char* words;
  } cases[] = {
      {"", 0, "there are no steps"},
      {"# nothing\n", 1, "there are no steps"},
      {kSyn, 1, "write an expect line"},
      {kSyn + "expect nothing: security_group_ingress\n", 1, "web got what nobody expected"},
      {kSyn + "expect trunk: the same\n", 2, "trunk got nothing"},
      {kSyn + "expect web: the same\nexpect web: the same\n", 3, "web got nothing more"},
      {kSyn + "expect web: tcp 198.51.100.9:40001 > 10.0.0.35:80 S\n", 2, "expected tcp 198.51.100.9:40001"},
      {kSyn + "expect web: tcp 198.51.100.9:40000 > 10.0.0.35:80 SA\n", 2, "expected tcp 198.51.100.9:40000 > 10.0.0.35:80 SA"},
      {kSyn + "expect web: tcp 198.51.100.9:40000 > 10.0.0.35:80 S ttl 63\n", 2, "ttl 63"},
      {kSyn + "expect web: the same\ncounters trunk.in.rx 1\n", 1, "other counters moved"},
      {kSyn + "expect web: the same\naudited web security_group_ingress\n", 1, "other counters moved"},
      {"trunk > web: tcp 198.51.100.9:40000 > 10.0.0.35:81 S\nexpect nothing: wrong_mac\n", 1, "web.ingress.security_group_ingress 1"},
      {"trunk > web: tcp 198.51.100.9:40000 > 10.0.0.35:81 S\nexpect web: the same\n", 2, "what moved: trunk.in.rx 1"},
      {kSyn + "expect web: the same\n" + out + "expect web: the same\n", 4, "web got nothing"},
      {kSyn + "expect web: the same\nconnections web tracked 0 untracked 1\n", 3, "1 tracked and 0 untracked"},
      {kSyn + "expect web: the same\nflow-log: nothing\n", 3, "came     web 198.51.100.9"},
      {kSyn + "expect web: the same\nflow-log:\n  web 198.51.100.9 10.0.0.35 40000 80 6 1 41 ACCEPT 2 ingress\n", 3, "came     web 198.51.100.9 10.0.0.35 40000 80 6 1 40"},
      {"flow-log: nothing\n" + kSyn + "expect web: the same\n", 3, "the flow log is another one"},  // left over at the end
      {"trunk > web: udp 198.51.100.9 > 10.0.0.35 frag 7:24\nexpect nothing: held\nafter 1s\n", 3, "web.ingress.fragment_orphan 1"},
      {"trunk > nobody: esp 198.51.100.9 > 10.0.0.35\n", 1, "no task nobody"},
      {"trunk > web: tcp 198.51.100.9 > 10.0.0.35:80 S\n", 1, "both ports are wanted"},
      {"trunk > web: tcp 198.51.100.9:1 > 10.0.0.35:80 S ttl\n", 1, "a time to live"},
      {"trunk > web: tpc 198.51.100.9:1 > 10.0.0.35:80 S\n", 1, "no kind of packet"},
      {"trunk > web: icmp 198.51.100.9 > 10.0.0.35\n", 1, "type and code"},
      {"after 5m\n", 1, "a time is written like"},
      {"jump\n", 1, "no step"},
      {"delete rule sg-web ingress tcp 81 198.51.100.0/24\n", 1, "no such rule"},
      {"set web groups sg-none\n", 1, "no security group sg-none"},
      {"set web colour red\n", 1, "unknown key"},
  };
  for (const auto& each : cases) {
    const std::string said = play(each.steps);
    EXPECT_NE(said.find(each.words), std::string::npos) << each.steps << said;
    if (each.line != 0) {
      EXPECT_NE(said.find("steps.txt:" + std::to_string(each.line) + ":"), std::string::npos) << each.steps << said;
    }
  }
}

TEST_F(ScenarioRunnerTest, AWorldThatIsWrongIsToldWithItsPlace) {
  write("scenario.json", R"({"about": "x", "SecurityGroups": [{"GroupId": "sg-web", "IpPermissions": [{"IpProtocol": "tcp", "FromPort": 80}]}]})");
  EXPECT_NE(play(kSyn).find("scenario.json/SecurityGroups/0/IpPermissions/0"), std::string::npos) << play(kSyn);
  write("scenario.json", R"({"about": "x"})");
  EXPECT_NE(play(kSyn).find("/tasks/web/groups: sg-web is not among the SecurityGroups"), std::string::npos) << play(kSyn);
  write("scenario.json", R"({"abuot": "x"})");
  EXPECT_NE(play(kSyn).find("abuot"), std::string::npos) << play(kSyn);
}

}  // namespace
}  // namespace trunkline::test
