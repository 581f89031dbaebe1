// SPDX-License-Identifier: BSD-3-Clause
// Captures over the control protocol: whose they are, what ends them, and when what the workers looked at is freed. Virtual time; the
// test plays the workers' turns.
#include "control/captures.h"

#include <gtest/gtest.h>

#include "control/base64.h"
#include "tests/support/engine.h"

namespace trunkline::test {
namespace {

using config::Json;

class CapturesTest : public ::testing::Test {
 protected:
  CapturesTest() {
    config::SecurityGroup group;
    group.id = "sg-0000000a";
    group.ingress = {rule(6, 80, 80, {"0.0.0.0/0"})};
    engine.put_group(group);
    engine.attach(1, "sg-0000000a");
    engine.attach(2, "sg-0000000a");
  }
  ~CapturesTest() override {
    for (Worker* worker : engine.workers) worker->state.observers = nullptr;
  }

  static control::Caller caller(std::uint64_t connection) { return {.admin = true, .connection = connection}; }
  void turn() {
    for (Worker* worker : engine.workers) worker->state.observers = worker->observers.take();
  }
  void start(std::uint64_t connection, const Json& params) {
    const auto answer = captures.start(params, caller(connection));
    ASSERT_TRUE(answer) << answer.error().message;
    turn();
  }
  Json read(std::uint64_t connection) {
    const auto answer = captures.read(Json::object(), caller(connection));
    return answer ? *answer : Json(answer.error().name);
  }
  std::string refused(std::uint64_t connection, const Json& params) {
    const auto answer = captures.start(params, caller(connection));
    return answer ? "started" : answer.error().name + " " + answer.error().pointer;
  }
  // A SYN to the n-th task; both are another worker's.
  Frame syn(int number, std::uint16_t port) const {
    return ip_packet({mac(number == 1 ? "0a:00:00:00:00:11" : "0a:00:00:00:00:12"), mac("0a:00:00:00:00:01"), 100 + number}, ip("198.51.100.9"),
                     ip(number == 1 ? "10.0.0.17" : "10.0.0.18"), 6, tcp_segment(4000, port, 0x02));
  }

  Engine engine;
  control::Captures::Clock::time_point now{};
  control::Captures captures{*engine.controller, 1'000'000'000, [this] { return now; }};
};

TEST_F(CapturesTest, PacketsOfAllWorkersInTheOrderOfTime) {
  start(1, Json::object());
  engine.from_trunk(syn(2, 80)), engine.from_trunk(syn(1, 22)), engine.from_trunk(syn(2, 22));
  const Json answer = read(1);
  ASSERT_EQ(answer["packets"].size(), 3U);
  EXPECT_EQ(answer["packets"][0]["eni"], "eni-2");
  EXPECT_EQ(answer["packets"][0]["verdict"], "none");
  EXPECT_EQ(answer["packets"][0]["port"], "trunk");
  EXPECT_EQ(answer["packets"][1]["eni"], "eni-1");
  EXPECT_EQ(answer["packets"][1]["verdict"], "security_group_ingress");
  EXPECT_EQ(answer["packets"][1]["refused_by"], "admit");
  EXPECT_EQ(control::from_base64(answer["packets"][2]["data"].get<std::string>()), syn(2, 22));
  EXPECT_LE(answer["packets"][0]["time_ns"], answer["packets"][1]["time_ns"]);
  EXPECT_EQ(answer["done"], false);
  EXPECT_EQ(read(1)["packets"].size(), 0U);
  EXPECT_EQ(read(2), "not_found") << "another connection's";
}

TEST_F(CapturesTest, OneTaskOnePointAndThePortItIsSeenAt) {
  start(1, {{"task", "eni-2"}, {"point", "out"}});
  start(2, {{"task", "eni-2"}, {"point", "drop"}, {"report", true}});
  engine.from_trunk(syn(1, 80)), engine.from_trunk(syn(2, 80)), engine.from_trunk(syn(2, 22));
  const Json out = read(1)["packets"], drop = read(2)["packets"];
  ASSERT_EQ(out.size(), 1U);
  EXPECT_EQ(out[0]["port"], "tap:ns2/eth0");
  EXPECT_FALSE(out[0].contains("stages"));
  ASSERT_EQ(drop.size(), 1U);
  EXPECT_EQ(drop[0]["packet"], "tcp 198.51.100.9:4000 to 10.0.0.18:22, SYN, 40 octets, VLAN 102");
  EXPECT_EQ(drop[0]["stages"].back()["refused"], true);
}

TEST_F(CapturesTest, ItsCountEndsItToThePacket) {
  start(1, {{"limit", 3}});
  for (int i = 0; i < 2; ++i) engine.from_trunk(syn(1, 22)), engine.from_trunk(syn(2, 22));  // two of each worker: four in all
  const Json answer = read(1);
  EXPECT_EQ(answer["packets"].size(), 3U);
  EXPECT_EQ(answer["done"], true);
  EXPECT_EQ(read(1), "not_found");
  EXPECT_EQ(captures.sessions(), 0U);
}

TEST_F(CapturesTest, StopAndDurationEndItWhenAllIsRead) {
  start(1, Json::object());
  start(2, {{"duration_s", 5}});
  engine.from_trunk(syn(1, 22));
  ASSERT_TRUE(captures.stop(Json::object(), caller(1)));
  turn();
  engine.from_trunk(syn(1, 22));
  EXPECT_EQ(read(1)["packets"].size(), 1U) << "what came before";
  EXPECT_EQ(read(1)["done"], true);
  now += std::chrono::milliseconds(4999);
  captures.tick();
  turn();
  engine.from_trunk(syn(1, 22));
  EXPECT_EQ(read(2)["packets"].size(), 3U);
  now += std::chrono::milliseconds(1);
  captures.tick();
  turn();
  EXPECT_EQ(engine.workers[0]->state.observers, nullptr) << "nobody looks any more";
  engine.from_trunk(syn(1, 22));
  EXPECT_EQ(read(2), (Json{{"packets", Json::array()}, {"lost", 0}, {"done", true}}));
}

TEST_F(CapturesTest, WhoDoesNotReadLosesIt) {
  start(1, Json::object());
  now += control::Captures::kPatience;
  EXPECT_EQ(read(1)["done"], false);
  now += control::Captures::kPatience + std::chrono::milliseconds(1);
  captures.tick();
  EXPECT_EQ(captures.sessions(), 0U);
  EXPECT_EQ(read(1), "not_found");
}

TEST_F(CapturesTest, WhatAWorkerMayLookAtIsKeptUntilItHasLetGo) {
  start(1, Json::object());
  captures.gone(1);
  EXPECT_EQ(captures.leaving(), 2U) << "no worker has turned since";
  engine.from_trunk(syn(1, 22));  // looks still, at what is there
  engine.workers[0]->state.observers = engine.workers[0]->observers.take();
  captures.tick();
  EXPECT_EQ(captures.leaving(), 1U);
  turn();
  captures.tick();
  EXPECT_EQ(captures.leaving(), 0U);
  captures.gone(1);
  captures.gone(99);
}

TEST_F(CapturesTest, AHeldFragmentIsThereOnceAndATraceTellsItsEnd) {
  const auto piece = [](std::size_t offset, bool last) {
    const Frame datagram = tcp_segment(4000, 80, 0x02, 32);
    Frame frame = ip_packet({mac("0a:00:00:00:00:11"), mac("0a:00:00:00:00:01"), 101}, ip("198.51.100.9"), ip("10.0.0.17"), 6,
                            Frame(datagram.begin() + static_cast<long>(offset), datagram.begin() + static_cast<long>(std::min(datagram.size(), offset + 24))), false);
    frame[18 + 6] = last ? 0 : 0x20, frame[18 + 7] = static_cast<std::uint8_t>(offset / 8);
    return frame;
  };
  start(1, Json::object());
  start(2, {{"report", true}});
  start(3, {{"point", "out"}});
  engine.from_trunk(piece(24, false));
  const Json held = read(1)["packets"];
  ASSERT_EQ(held.size(), 1U);
  EXPECT_EQ(held[0]["verdict"], "held");
  EXPECT_EQ(held[0]["port"], "trunk");
  EXPECT_TRUE(held[0]["route"].is_null());
  EXPECT_TRUE(held[0]["refused_by"].is_null());
  EXPECT_EQ(read(3)["packets"].size(), 0U);
  engine.from_trunk(piece(0, false));
  EXPECT_EQ(read(1)["packets"].size(), 1U) << "the first one; the later one was told";
  EXPECT_EQ(read(3)["packets"].size(), 2U);
  const Json trace = read(2)["packets"];
  ASSERT_EQ(trace.size(), 3U);
  EXPECT_EQ(trace[0]["verdict"], "held");
  EXPECT_EQ(trace[2]["point"], "again");
  EXPECT_EQ(trace[2]["verdict"], "none");
  EXPECT_EQ(trace[2]["rule"]["index"], 0);
}

TEST_F(CapturesTest, WhatCannotBeStartedIsRefusedWithItsPlace) {
  EXPECT_EQ(refused(1, {{"filter", "tcp prot 80"}}), "invalid_params /filter");
  EXPECT_EQ(refused(1, {{"point", "nat"}}), "invalid_params /point");
  EXPECT_EQ(refused(1, {{"direction", "up"}}), "invalid_params /direction");
  EXPECT_EQ(refused(1, {{"snaplen", 5}}), "invalid_params /snaplen");
  EXPECT_EQ(refused(1, {{"task", "eni-9"}}), "not_found /task");
  EXPECT_EQ(captures.sessions(), 0U);
  for (std::uint64_t connection = 1; connection <= 4; ++connection) start(connection, Json::object());
  EXPECT_EQ(refused(1, Json::object()), "quota ") << "one a connection";
  EXPECT_EQ(refused(5, Json::object()), "quota ");
  captures.gone(2);
  EXPECT_EQ(refused(5, Json::object()), "started");
}

}  // namespace
}  // namespace trunkline::test
