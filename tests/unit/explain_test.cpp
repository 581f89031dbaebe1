// SPDX-License-Identifier: BSD-3-Clause
// What the engine says would become of a packet is what becomes of it: each stage that refuses is named in its words, a live connection
// counts, on whichever worker it is, and nothing live has moved afterwards.
#include "control/explain.h"

#include <gtest/gtest.h>
#include <sys/resource.h>

#include "control/base64.h"
#include "control/flows.h"
#include "tests/support/edge_packets.h"
#include "tests/support/engine.h"

namespace trunkline::test {
namespace {

using config::Json;

config::SecurityGroup web_group() {
  config::SecurityGroup group;
  group.id = "sg-0000000a";
  group.ingress = {rule(17, 53, 53, {"0.0.0.0/0"}), rule(6, 80, 80, {"198.51.100.0/24", "10.0.0.0/24", "2001:db8::/32"}), rule(1, 8, -1, {"0.0.0.0/0"})};
  group.egress = {rule(6, 443, 443, {"0.0.0.0/0"}), rule(6, 80, 80, {"10.0.0.0/24"})};
  return group;
}

class ExplainTest : public ::testing::Test {
 protected:
  ExplainTest() {
    engine.put_group(web_group());
    engine.attach(1, "sg-0000000a");
    engine.attach(2, "sg-0000000a");
    EXPECT_EQ(engine.endpoint(1).worker, 0);
    EXPECT_EQ(engine.endpoint(2).worker, 1);
  }

  Json ask(const Json& params) {
    const std::string before = numbers();
    const auto answer = control::explain(*engine.controller, *engine.inspector, params);
    EXPECT_EQ(numbers(), before) << "something live moved";
    if (!answer) {
      ADD_FAILURE() << answer.error().pointer << ": " << answer.error().message;
      return {};
    }
    return *answer;
  }
  // What one stage of one half said.
  static std::string said(const Json& answer, std::size_t half, const std::string& stage) {
    for (const Json& each : answer.at("halves").at(half).at("stages")) {
      if (each.at("stage") == stage) return each.at("said").get<std::string>();
    }
    return "(nothing)";
  }
  // The stage that refused, and everything that the workers count.
  static std::string refused_by(const Json& answer) {
    const Json by = answer.at("halves").back().at("refused_by");
    return by.is_null() ? "" : by.get<std::string>();
  }
  std::string numbers() {
    std::string all;
    for (const Worker* worker : engine.workers) {
      all += std::to_string(worker->state.connections.size()) + "/";
      worker->state.connections.for_each([&](const Connection& connection) {
        all += std::to_string(connection.last_seen) + ":" + std::to_string(static_cast<int>(connection.state)) + ":" + std::to_string(connection.totals[0].packets) + "/";
      });
      const auto add = [&](const Meter& meter) {
        const MeterReading reading = MeterReading::of(meter);
        all += std::to_string(reading.rx_packets) + "," + std::to_string(reading.tx_packets) + "," + std::to_string(reading.dropped()) + ";";
      };
      add(worker->state.trunk_in), add(worker->state.trunk_out);
      for (int i = 0; i < 8; ++i) add(worker->state.meters[i].ingress), add(worker->state.meters[i].egress);
      all += std::to_string(worker->state.outbox.is_empty());
    }
    return all;
  }

  Engine engine;
};

TEST_F(ExplainTest, AnAllowedPacketWithEveryStageAndItsRule) {
  const Json answer = ask({{"source", "198.51.100.9"}, {"source_port", 4000}, {"destination", "10.0.0.17"}, {"destination_port", 80}});
  EXPECT_EQ(answer["delivered"], true);
  EXPECT_EQ(answer["verdict"], "none");
  ASSERT_EQ(answer["halves"].size(), 1U);
  const Json& half = answer["halves"][0];
  EXPECT_EQ(half["packet"], "tcp 198.51.100.9:4000 to 10.0.0.17:80, SYN, 40 octets, VLAN 101");
  EXPECT_EQ(half["eni"], "eni-1");
  EXPECT_EQ(half["rule"], (Json{{"group", "sg-0000000a"}, {"direction", "ingress"}, {"index", 1}, {"rule", "tcp 80 from 198.51.100.0/24, 10.0.0.0/24, 2001:db8::/32"}}));
  std::vector<std::string> stages;
  for (const Json& stage : half["stages"]) stages.push_back(stage["stage"]);
  EXPECT_EQ(stages, (std::vector<std::string>{"parse", "demux", "edge", "track", "admit", "account", "forward"}));
  EXPECT_EQ(said(answer, 0, "demux"), "for eni-1: VLAN 101, its MAC and its address, at worker 0");
  EXPECT_EQ(said(answer, 0, "track"), "no connection");
  EXPECT_EQ(said(answer, 0, "admit"),
            "rule 1 of sg-0000000a (ingress): tcp 80 from 198.51.100.0/24, 10.0.0.0/24, 2001:db8::/32; it opens a connection: syn_sent, began ingress, tracked");
  EXPECT_EQ(said(answer, 0, "forward"), "to tap:ns1/eth0");
}

TEST_F(ExplainTest, EachStagesRefusalHasItsWords) {
  const auto refusal = [&](const Json& params) {
    const Json answer = ask(params);
    EXPECT_EQ(answer["delivered"], false);
    return refused_by(answer) + ": " + answer["verdict"].get<std::string>();
  };
  EXPECT_EQ(refusal({{"source", "198.51.100.9"}, {"destination", "10.0.0.17"}, {"tcp_flags", "SF"}}), "parse: tcp_flags");
  EXPECT_EQ(refusal({{"source", "127.0.0.1"}, {"destination", "10.0.0.17"}, {"from", "trunk"}}), "demux: martian");
  EXPECT_EQ(refusal({{"source", "198.51.100.9"}, {"destination", "10.0.0.99"}, {"to", "eni-1"}}), "demux: dest_check");
  EXPECT_EQ(refusal({{"from", "eni-1"}, {"source", "10.0.0.99"}, {"destination", "198.51.100.9"}}), "demux: spoof_ip");
  EXPECT_EQ(refusal({{"from", "eni-1"}, {"destination", "224.0.0.1"}}), "demux: multicast");
  EXPECT_EQ(refusal({{"from", "eni-1"}, {"destination", "198.51.100.9"}, {"destination_port", 22}}), "admit: security_group_egress");
  EXPECT_EQ(refusal({{"from", "eni-1"}, {"destination", "198.51.100.9"}, {"destination_port", 443}, {"octets", 9002}}), "forward: mtu_exceeded");
  EXPECT_EQ(refusal({{"from", "trunk"}, {"frame", control::to_base64(arp_packet({mac("0a:00:00:00:00:11"), mac("0a:00:00:00:00:01"), 101}, 1,
                                                                                 mac("0a:00:00:00:00:01"), ip("10.0.0.1"), ip("10.0.0.99")))}}), "demux: dest_check");
  EXPECT_EQ(refusal({{"from", "eni-1"}, {"frame", control::to_base64(arp_packet({mac("ff:ff:ff:ff:ff:ff"), mac("0a:00:00:00:00:11"), -1}, 1,
                                                                                 mac("0a:00:00:00:00:11"), ip("10.0.0.77"), ip("10.0.0.1")))}}), "edge: arp_spoof");
  const Json answer = ask({{"source", "198.51.100.9"}, {"destination", "10.0.0.17"}, {"destination_port", 22}});
  EXPECT_EQ(said(answer, 0, "admit"),
            "security_group_ingress: no inbound rule of the ENI's security groups allows it. Asked: tcp 22 from 198.51.100.9, 3 rule(s) of sg-0000000a");
  EXPECT_EQ(said(answer, 0, "forward"), "(nothing)") << "what comes after the refusal is not reached";
}

TEST_F(ExplainTest, ALiveConnectionCounts) {
  const Frame syn = ip_packet({mac("0a:00:00:00:00:12"), mac("0a:00:00:00:00:01"), 102}, ip("198.51.100.9"), ip("10.0.0.18"), 6, tcp_segment(4000, 80, 0x02));
  // The answer's port is in no rule of the egress.
  const Json reply = {{"from", "eni-2"}, {"destination", "198.51.100.9"}, {"source_port", 80}, {"destination_port", 4000}, {"tcp_flags", "SA"}};
  EXPECT_EQ(ask(reply)["verdict"], "security_group_egress");
  ASSERT_EQ(engine.from_trunk(syn), DropReason::none);
  const Json answer = ask(reply);
  EXPECT_EQ(answer["delivered"], true);
  EXPECT_EQ(answer["connections"], 1);
  EXPECT_EQ(said(answer, 0, "track"), "belongs to a connection: syn_received, began ingress, tracked") << "as it is when this packet has passed";
  EXPECT_EQ(said(answer, 0, "admit"), "the connection lets it pass; the rules are not asked");
  EXPECT_EQ(said(answer, 0, "forward"), "out on the trunk, with VLAN 102");
  EXPECT_EQ(answer["halves"][0]["rule"]["index"], 1) << "the rule that let the first packet in";
  // The same ports the other way round are another flow.
  EXPECT_EQ(ask({{"from", "eni-2"}, {"destination", "198.51.100.9"}, {"source_port", 4000}, {"destination_port", 80}})["verdict"], "security_group_egress");
  // The rule goes, the connection stays, and no rule is named any more.
  config::SecurityGroup group = web_group();
  group.ingress.clear();
  engine.put_group(group);
  const Json later = ask(reply);
  EXPECT_EQ(later["delivered"], true);
  EXPECT_TRUE(later["halves"][0]["rule"].is_null());
}

TEST_F(ExplainTest, BetweenTwoTasksOfTwoWorkersBothHalvesAreWalked) {
  const Json answer = ask({{"from", "eni-1"}, {"to", "eni-2"}, {"destination_port", 80}, {"source_port", 5000}});
  ASSERT_EQ(answer["halves"].size(), 2U);
  EXPECT_EQ(answer["delivered"], true);
  EXPECT_EQ(said(answer, 0, "forward"), "to eni-2 on this host, whose ingress half comes next");
  EXPECT_EQ(said(answer, 1, "demux"), "(nothing)");
  EXPECT_EQ(answer["halves"][1]["eni"], "eni-2");
  EXPECT_EQ(answer["halves"][0]["rule"]["index"], 1);
  EXPECT_EQ(answer["halves"][1]["rule"]["direction"], "ingress");
  const Json refused = ask({{"from", "eni-1"}, {"to", "eni-2"}, {"destination_port", 443}});
  ASSERT_EQ(refused["halves"].size(), 2U);
  EXPECT_EQ(refused["verdict"], "security_group_ingress");
  EXPECT_EQ(refused["halves"][0]["verdict"], "none");
  // The answer to a live flow needs both connections, one of each worker.
  const L2 l2{mac("0a:00:00:00:00:12"), mac("0a:00:00:00:00:11"), -1};
  ASSERT_EQ(engine.from_task(1, ip_packet(l2, ip("10.0.0.17"), ip("10.0.0.18"), 6, tcp_segment(5000, 80, 0x02))), DropReason::none);
  HandoffLane& lane = engine.mesh.lane(0, 1);
  lane.packets.flush();
  ASSERT_EQ(lane.packets.ready(), 1U);
  Burst burst;
  burst.add(lane.packets.front().packet);
  const HandedPacket handed = lane.packets.front();
  process_known(burst, {&handed, 1}, engine.workers[1]->state);
  const Json reply = ask({{"from", "eni-2"}, {"to", "eni-1"}, {"source_port", 80}, {"destination_port", 5000}, {"tcp_flags", "SA"}});
  EXPECT_EQ(reply["connections"], 2);
  EXPECT_EQ(reply["delivered"], true);
}

TEST_F(ExplainTest, OtherProtocolsAndFamilies) {
  EXPECT_EQ(ask({{"source", "198.51.100.9"}, {"destination", "10.0.0.17"}, {"protocol", "udp"}, {"destination_port", 53}})["halves"][0]["rule"]["index"], 0);
  EXPECT_EQ(ask({{"source", "198.51.100.9"}, {"destination", "10.0.0.17"}, {"protocol", "icmp"}})["halves"][0]["rule"]["rule"], "icmp type 8 from 0.0.0.0/0");
  const Json error = ask({{"source", "198.51.100.9"}, {"destination", "10.0.0.17"}, {"protocol", "icmp"}, {"icmp_type", 3}, {"icmp_code", 4}});
  EXPECT_NE(said(error, 0, "admit").find("Asked: icmp type 3 code 4"), std::string::npos);
  const Json v6 = ask({{"source", "2001:db8::9"}, {"to", "eni-1"}, {"destination_port", 80}});
  EXPECT_EQ(v6["delivered"], true);
  EXPECT_EQ(v6["halves"][0]["packet"], "tcp [2001:db8::9]:49152 to [2001:db8:1::11]:80, SYN, 60 octets, VLAN 101");
  // A live IPv6 connection is found by its addresses.
  ASSERT_EQ(engine.from_trunk(ip_packet({mac("0a:00:00:00:00:11"), mac("0a:00:00:00:00:01"), 101}, ip("2001:db8::9"), ip("2001:db8:1::11"), 6, tcp_segment(4000, 80, 0x02))), DropReason::none);
  const Json reply = ask({{"from", "eni-1"}, {"destination", "2001:db8::9"}, {"source_port", 80}, {"destination_port", 4000}, {"tcp_flags", "SA"}});
  EXPECT_EQ(reply["delivered"], true);
  EXPECT_EQ(reply["connections"], 1);
}

TEST_F(ExplainTest, WhatCannotBeAskedIsRefusedWithItsPlace) {
  const auto refused = [&](const Json& params) {
    const auto answer = control::explain(*engine.controller, *engine.inspector, params);
    return answer ? "answered" : answer.error().name + " " + answer.error().pointer;
  };
  EXPECT_EQ(refused({{"from", "eni-9"}, {"destination", "10.0.0.17"}}), "not_found /from");
  EXPECT_EQ(refused({{"source", "198.51.100.9"}, {"destination", "10.0.0.99"}}), "not_found /destination");
  EXPECT_EQ(refused({{"destination", "10.0.0.17"}}), "invalid_params /source");
  EXPECT_EQ(refused({{"from", "eni-1"}}), "invalid_params /destination");
  EXPECT_EQ(refused({{"source", "2001:db8::9"}, {"destination", "10.0.0.17"}}), "invalid_params /source");
  EXPECT_EQ(refused({{"from", "eni-1"}, {"frame", "!!!!"}}), "invalid_params /frame");
  EXPECT_EQ(refused({{"from", "eni-1"}, {"frame", ""}}), "invalid_params /frame");
  EXPECT_EQ(refused({{"from", "eni-1"}, {"destination", "10.0.0.18"}, {"protocol", "tpc"}}), "invalid_params /protocol");
  EXPECT_EQ(refused({{"from", "eni-1"}, {"destination", "10.0.0.18"}, {"tcp_flags", "X"}}), "invalid_params /tcp_flags");
}

// A piece of a datagram to eni-1: 16 octets at `offset`.
Frame piece(std::size_t offset, bool last, std::uint16_t port = 53) {
  const Frame datagram = udp_datagram(4000, port, 40);
  Frame frame = ip_packet({mac("0a:00:00:00:00:11"), mac("0a:00:00:00:00:01"), 101}, ip("198.51.100.9"), ip("10.0.0.17"), 17,
                          Frame(datagram.begin() + static_cast<long>(offset), datagram.begin() + static_cast<long>(offset + 16)), false);
  frame[18 + 6] = last ? 0 : 0x20, frame[18 + 7] = static_cast<std::uint8_t>(offset / 8);
  return frame;
}

TEST_F(ExplainTest, ALaterFragmentIsHeldOrBelongsToWhatItsWorkerKnows) {
  const auto asked = [&](const Frame& frame) { return ask({{"from", "trunk"}, {"frame", control::to_base64(frame)}}); };
  const Json held = asked(piece(16, true));
  EXPECT_EQ(held["delivered"], false);
  EXPECT_EQ(held["verdict"], "held");
  EXPECT_EQ(held["sentence"], "held: waits for its first fragment, at most 0.2 s");
  EXPECT_EQ(refused_by(held), "");
  EXPECT_EQ(said(held, 0, "fragments"), "held: waits for its first fragment, at most 0.2 s; if that one passes, this one has its ports and goes on behind it, else it is dropped: fragment_orphan");
  EXPECT_EQ(said(held, 0, "track"), "(nothing)");
  // Its first one has come, at the worker of its ENI: it goes on with these ports, and meets that connection.
  ASSERT_EQ(engine.from_trunk(piece(0, false)), DropReason::none);
  const Json known = asked(piece(16, false));
  EXPECT_EQ(known["delivered"], true);
  EXPECT_EQ(known["connections"], 1);
  EXPECT_EQ(said(known, 0, "fragments"), "a later fragment: has the ports of its first one");
  EXPECT_EQ(known["halves"][0]["rule"]["index"], 0);
  Frame overlapping = piece(16, false);
  overlapping[18 + 7] = 1;
  EXPECT_EQ(asked(overlapping)["verdict"], "fragment_overlap");
}

TEST_F(ExplainTest, AnAnswerOfAServiceIsOneToWhatItsTaskHasAsked) {
  const MacAddress router = mac("0a:00:00:00:00:01"), task = mac("0a:00:00:00:00:12");
  const IpAddress resolver = ip("169.254.169.253"), own = ip("10.0.0.18");
  const auto answer_to = [&](std::uint16_t port) {
    const Frame frame = ip_packet({task, router, 102}, resolver, own, 17, udp_datagram(53, port));
    return ask({{"from", "trunk"}, {"frame", control::to_base64(frame)}});
  };
  EXPECT_EQ(answer_to(5353)["verdict"], "security_group_ingress");
  ASSERT_EQ(engine.from_task(2, ip_packet({router, task, -1}, own, resolver, 17, udp_datagram(5353, 53))),
            DropReason::none);
  const Json answer = answer_to(5353);
  EXPECT_EQ(answer["delivered"], true);
  EXPECT_EQ(said(answer, 0, "services"), "from a service of the VPC, about what the task asked or sent, which needs no rule");
  EXPECT_EQ(answer_to(5354)["verdict"], "security_group_ingress") << "another question";
}

TEST_F(ExplainTest, AnErrorAboutALiveConnectionIsRelatedToIt) {
  Engine related([](config::EngineConfig& config) { config.conntrack.icmp_related = true; });
  related.put_group(web_group());
  related.attach(1, "sg-0000000a");
  const L2 l2{mac("0a:00:00:00:00:11"), mac("0a:00:00:00:00:01"), 101};
  ASSERT_EQ(related.from_trunk(ip_packet(l2, ip("198.51.100.9"), ip("10.0.0.17"), 6, tcp_segment(4000, 80, 0x02))), DropReason::none);
  const Frame answer = ip_packet({}, ip("10.0.0.17"), ip("198.51.100.9"), 6, tcp_segment(80, 4000, 0x12));
  const Frame error = ip_packet(l2, ip("203.0.113.1"), ip("10.0.0.17"), 1, icmp_error(3, 4, 1400, Frame(answer.begin() + 14, answer.end())));
  const auto explained = control::explain(*related.controller, *related.inspector, {{"from", "trunk"}, {"frame", control::to_base64(error)}});
  ASSERT_TRUE(explained);
  EXPECT_EQ(explained->at("delivered"), true);
  EXPECT_EQ(related.from_trunk(error), DropReason::none);
}

TEST_F(ExplainTest, WithoutDescriptorsItSaysSo) {
  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &before), 0);
  const rlimit none{0, before.rlim_max};
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &none), 0);
  const auto answer = control::explain(*engine.controller, *engine.inspector, {{"source", "198.51.100.9"}, {"destination", "10.0.0.17"}, {"destination_port", 80}});
  ::setrlimit(RLIMIT_NOFILE, &before);
  ASSERT_FALSE(answer);
  EXPECT_NE(answer.error().message.find("Too many open files"), std::string::npos) << answer.error().message;
  EXPECT_EQ(answer.error().message.find("defect"), std::string::npos);
  EXPECT_EQ(ask({{"source", "198.51.100.9"}, {"destination", "10.0.0.17"}, {"destination_port", 80}})["delivered"], true);
}

TEST(Base64, ThereAndBack) {
  for (const std::string text : {"", "f", "fo", "foo", "foob", "fooba", "foobar"}) {
    const std::vector<std::uint8_t> bytes(text.begin(), text.end());
    EXPECT_EQ(control::from_base64(control::to_base64(bytes)), bytes);
  }
  EXPECT_EQ(control::to_base64(std::vector<std::uint8_t>{'f', 'o', 'o', 'b'}), "Zm9vYg==");
  for (const char* bad : {"Zg", "Zg=", "Z===", "Zg==Zg==", "Z g=", "=Zg="}) EXPECT_FALSE(control::from_base64(bad)) << bad;
}

// --- flows, with the words of their rules ----------------------------------------------------------------------------

TEST_F(ExplainTest, FlowsAreListedWithTheirRulesAndSorted) {
  const auto list = [&](const Json& params) { return control::flow_list(*engine.controller, *engine.inspector, params).value(); };
  engine.from_trunk(ip_packet({mac("0a:00:00:00:00:11"), mac("0a:00:00:00:00:01"), 101}, ip("198.51.100.9"), ip("10.0.0.17"), 6, tcp_segment(4000, 80, 0x02)));
  engine.from_trunk(ip_packet({mac("0a:00:00:00:00:12"), mac("0a:00:00:00:00:01"), 102}, ip("198.51.100.9"), ip("10.0.0.18"), 17, udp_datagram(4000, 53, 500)));
  const Json all = list(Json::object());
  ASSERT_EQ(all["flows"].size(), 2U);
  EXPECT_EQ(all["matched"], 2);
  EXPECT_EQ(all["flows"][0]["protocol"], "udp") << "more bytes";
  EXPECT_EQ(all["flows"][0]["ingress"], (Json{{"packets", 1}, {"bytes", 528}}));
  EXPECT_EQ(all["flows"][0]["worker"], 1);
  EXPECT_EQ(all["flows"][1]["rule"]["index"], 1);
  EXPECT_EQ(all["flows"][1]["state"], "syn_sent");
  EXPECT_EQ(list({{"limit", 1}})["flows"].size(), 1U);
  EXPECT_EQ(list({{"limit", 1}})["matched"], 2);
  EXPECT_EQ(list({{"task", "eni-1"}})["flows"][0]["local"], "10.0.0.17");
  const auto refused = [&](const Json& params) { return control::flow_flush(*engine.controller, *engine.inspector, params).error().pointer; };
  EXPECT_EQ(refused(Json::object()), "/all");
  EXPECT_EQ(refused({{"all", true}, {"port", 80}}), "/all");
  EXPECT_EQ(refused({{"remote", "198.51.100"}}), "/remote");
  EXPECT_EQ(refused({{"state", "open"}}), "/state");
  EXPECT_EQ(control::flow_flush(*engine.controller, *engine.inspector, {{"protocol", "udp"}}).value()["flushed"], 1);
  EXPECT_EQ(list(Json::object())["flows"].size(), 1U);
}

}  // namespace
}  // namespace trunkline::test
