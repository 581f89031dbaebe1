// SPDX-License-Identifier: BSD-3-Clause
//
// Steering without a device: which rules an endpoint wants, the steps from what is installed to what is wanted, and what is done
// when the device has no room, is slow, refuses, or forgets. Time is the test's.
#include <gtest/gtest.h>

#include <deque>

#include "dataplane/io/steering.h"

namespace trunkline {
namespace {

using Kind = SteeringStepKind;

IpAddress ip(std::string_view text) { return IpAddress::parse(text).value(); }

FlowAbilities all_abilities() {
  FlowAbilities abilities;
  for (FlowAbility& ability : abilities) ability = {.available = true, .ipv6 = true, .mark = true, .count = true, .why = {}};
  return abilities;
}

// Number N: VLAN 100 + N, 10.0.0.N.
Endpoint endpoint(std::uint16_t number, WorkerNumber worker, std::vector<std::string> more = {}) {
  Endpoint made;
  made.id = EndpointId{number};
  made.generation = 1;
  made.vlan = VlanId{static_cast<std::uint16_t>(100 + number)};
  made.mac = MacAddress{{0x0a, 0, 0, 0, 0, static_cast<std::uint8_t>(number)}};
  made.worker = made.served_by = worker;
  made.address_list[made.address_count++] = IpAddress::from_v4(0x0a000000U + number);
  for (const std::string& address : more) made.address_list[made.address_count++] = ip(address);
  return made;
}

FlowRule rule(std::uint16_t vlan, std::uint16_t queue) { return {.match = {.vlan = vlan, .mac = {}, .address = {}}, .queue = queue, .mark = {}, .count = false}; }
FlowRules rules(std::initializer_list<FlowRule> list) {
  FlowRules result;
  for (const FlowRule& each : list) result[each.match] = each;
  return result;
}
std::string text(const std::vector<SteeringStep>& steps) {
  std::string all;
  for (const SteeringStep& step : steps) {
    all += (all.empty() ? "" : ", ") + std::string(step.kind == Kind::remove ? "remove " : step.kind == Kind::add ? "add " : "replace ") +
           std::to_string(step.rule.match.vlan) + " " + std::to_string(step.rule.queue);
  }
  return all;
}

// --- what an endpoint wants --------------------------------------------------------------------------------------------

TEST(SteeringPlan, ARuleForEachAddressToTheOwnersQueue) {
  const SteeringWish wish = rules_for(endpoint(7, 1, {"10.0.0.70", "2001:db8::7"}), all_abilities(), 2);
  EXPECT_EQ(wish.pattern, SteeringPattern::vlan_mac_address);
  EXPECT_EQ(wish.why, "");
  ASSERT_EQ(wish.rules.size(), 3U);
  const char* addresses[] = {"10.0.0.7", "10.0.0.70", "2001:db8::7"};
  for (std::size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(wish.rules[i].match, (FlowMatch{107, MacAddress{{0x0a, 0, 0, 0, 0, 7}}, ip(addresses[i])}));
    EXPECT_EQ(wish.rules[i].queue, 1);
    EXPECT_EQ(wish.rules[i].mark, 0x1007U) << "generation 1, number 7";
    EXPECT_TRUE(wish.rules[i].count);
  }
}

TEST(SteeringPlan, TheFinestPatternThatTheDeviceTakesAndThatSaysAllOfTheEndpoint) {
  FlowAbilities abilities = all_abilities();
  const Endpoint both = endpoint(7, 0, {"2001:db8::7"}), only4 = endpoint(8, 0);
  abilities[0].ipv6 = false;
  EXPECT_EQ(rules_for(both, abilities, 2).pattern, SteeringPattern::vlan_mac);
  ASSERT_EQ(rules_for(both, abilities, 2).rules.size(), 1U);
  EXPECT_EQ(rules_for(both, abilities, 2).rules[0].match.address, std::nullopt);
  EXPECT_EQ(rules_for(only4, abilities, 2).pattern, SteeringPattern::vlan_mac_address);
  abilities[1] = {.available = false, .ipv6 = false, .mark = false, .count = false, .why = "no MAC"};
  EXPECT_EQ(rules_for(both, abilities, 2).pattern, SteeringPattern::vlan);
  EXPECT_EQ(rules_for(both, abilities, 2).rules[0].match, (FlowMatch{107, std::nullopt, std::nullopt}));
  abilities[2] = {.available = false, .ipv6 = false, .mark = false, .count = false, .why = "no VLAN"};
  EXPECT_EQ(rules_for(both, abilities, 2).pattern, std::nullopt);
  EXPECT_EQ(rules_for(both, abilities, 2).why, "the device takes no IPv6 address; no MAC; no VLAN");
  EXPECT_TRUE(rules_for(both, abilities, 2).rules.empty());
}

TEST(SteeringPlan, AnEniThatForwardsGetsPacketsToAnyAddress) {
  Endpoint nat = endpoint(7, 0);
  nat.source_dest_check = false;
  EXPECT_EQ(rules_for(nat, all_abilities(), 2).pattern, SteeringPattern::vlan_mac);
  FlowAbilities abilities = all_abilities();
  abilities[1] = abilities[2] = {.available = false, .ipv6 = false, .mark = false, .count = false, .why = "no"};
  EXPECT_EQ(rules_for(nat, abilities, 2).why, "an ENI without source/destination check gets packets to any address; no");
}

TEST(SteeringPlan, WithoutAVlanByMac) {
  Endpoint untagged = endpoint(7, 1);
  untagged.vlan = {};
  FlowAbilities abilities = all_abilities();
  EXPECT_EQ(rules_for(untagged, abilities, 2).rules[0].match, (FlowMatch{0, untagged.mac, ip("10.0.0.7")}));
  EXPECT_EQ(rules_for(untagged, abilities, 2).pattern, SteeringPattern::mac_address);
  abilities[3].available = false;
  EXPECT_EQ(rules_for(untagged, abilities, 2).rules[0].match, (FlowMatch{0, untagged.mac, std::nullopt}));
  abilities[4].available = false;
  EXPECT_EQ(rules_for(untagged, abilities, 2).pattern, std::nullopt) << "a VLAN pattern would be another's";
}

TEST(SteeringPlan, NoMarkAndNoCountWhereTheDeviceHasNone) {
  FlowAbilities abilities = all_abilities();
  abilities[0].mark = abilities[0].count = false;
  EXPECT_EQ(rules_for(endpoint(7, 0), abilities, 2).rules[0].mark, std::nullopt);
  EXPECT_FALSE(rules_for(endpoint(7, 0), abilities, 2).rules[0].count);
}

TEST(SteeringPlan, AWorkerWithoutAQueueCannotBeSteeredTo) {
  EXPECT_EQ(rules_for(endpoint(7, 2), all_abilities(), 2).why, "worker 2 has no queue of the trunk, which has 2");
  EXPECT_EQ(rules_for(endpoint(7, 2), all_abilities(), 3).why, "");
}

TEST(SteeringPlan, WhileItMovesItsPacketsTakeTheWayThatTheyTook) {
  Endpoint moving = endpoint(7, 1);
  moving.previous_worker = 0;
  EXPECT_EQ(rules_for(moving, all_abilities(), 2).rules[0].queue, 0);
  moving.previous_worker = kNoWorker;
  EXPECT_EQ(rules_for(moving, all_abilities(), 2).rules[0].queue, 1);
}

TEST(SteeringPlan, TheMarkTellsUsesOfANumberApart) {
  EXPECT_NE(mark_of(EndpointId{7}, 1), mark_of(EndpointId{7}, 2));
  EXPECT_EQ(mark_of(EndpointId{7}, 0x0101), mark_of(EndpointId{7}, 0x0201)) << "some bits of it";
  EXPECT_LT(mark_of(EndpointId{0xfff}, 0xffff), 1U << 20);
}

TEST(SteeringPlan, WhatGoesMakesRoomForWhatComes) {
  EXPECT_EQ(text(plan_steering(rules({rule(1, 0), rule(2, 0), rule(3, 0)}), rules({rule(0, 1), rule(2, 1), rule(3, 0), rule(9, 0)}))),
            "remove 1 0, replace 2 1, add 0 1, add 9 0");
}

TEST(SteeringPlan, NothingToDo) {
  EXPECT_EQ(text(plan_steering(rules({rule(1, 0)}), rules({rule(1, 0)}))), "");
  EXPECT_EQ(text(plan_steering({}, {})), "");
}

TEST(SteeringPlan, AnotherMarkIsAnotherRule) {
  FlowRule marked = rule(1, 0);
  marked.mark = 5;
  EXPECT_EQ(text(plan_steering(rules({rule(1, 0)}), rules({marked}))), "replace 1 0");
}

// --- a device that the test plays --------------------------------------------------------------------------------------

struct FakeDevice final : FlowDevice {
  FlowAbilities abilities = all_abilities();
  std::size_t room = 1000;
  std::uint64_t insert_micros = 0;
  std::optional<FlowError> refuses_insert, refuses_remove, refuses_hits;
  bool takes_duplicates = true;
  bool reset = false;
  std::uint64_t micros = 0;
  std::map<FlowHandle, FlowRule> rules;
  std::vector<std::string> calls;
  std::uintptr_t next = 0;
  int flushes = 0, probes = 0;

  FlowAbility probe(SteeringPattern pattern) override {
    ++probes;
    return abilities[static_cast<std::size_t>(pattern)];
  }
  std::expected<FlowHandle, FlowError> insert(const FlowRule& rule) override {
    micros += insert_micros;
    calls.push_back("insert " + std::to_string(rule.match.vlan) + ">" + std::to_string(rule.queue));
    if (refuses_insert) return std::unexpected(*refuses_insert);
    if (rules.size() >= room) return std::unexpected(FlowError{ENOSPC, "table full"});
    for (const auto& [handle, each] : rules) {
      if (!takes_duplicates && each.match == rule.match) return std::unexpected(FlowError{EEXIST, "there is one"});
    }
    const auto handle = reinterpret_cast<FlowHandle>(++next);
    rules[handle] = rule;
    return handle;
  }
  std::expected<void, FlowError> remove(FlowHandle handle) override {
    if (!rules.contains(handle)) return std::unexpected(FlowError{ENOENT, "no such rule"});
    calls.push_back("remove " + std::to_string(rules.at(handle).match.vlan) + ">" + std::to_string(rules.at(handle).queue));
    if (refuses_remove) return std::unexpected(*refuses_remove);
    rules.erase(handle);
    return {};
  }
  std::expected<std::uint64_t, FlowError> hits(FlowHandle handle) override {
    if (refuses_hits) return std::unexpected(*refuses_hits);
    if (!rules.contains(handle)) return std::unexpected(FlowError{ENOENT, "no such rule"});
    return 5;
  }
  void flush() override { rules.clear(), ++flushes; }
  bool take_reset() override { return std::exchange(reset, false); }
};

class SteeringTest : public ::testing::Test {
 protected:
  void start(std::uint16_t queues = 2, std::size_t workers = 2, bool wanted = true) {
    steering = std::make_unique<Steering>(device, queues, SteeringSettings{.wanted = wanted, .workers = workers, .micros = [this] { return device.micros; },
                                                                           .note = [this](const std::string& text) { notes.push_back(text); }});
  }
  void put(const Endpoint& endpoint) {
    endpoints[endpoint.id.value] = std::make_shared<Endpoint>(endpoint);
    ++view.generation;
  }
  void take(std::uint16_t number) {
    endpoints.erase(number);
    ++view.generation;
  }
  void tick(Tick later = 1) {
    now += later;
    view.endpoints.assign(64, nullptr);
    for (const auto& [number, each] : endpoints) view.endpoints[number] = each;
    steering->tick(view, now);
  }
  SteeredEndpoint report(std::uint16_t number) const {
    for (const SteeredEndpoint& each : steering->endpoints()) {
      if (each.id.value == number) return each;
    }
    return {};
  }
  // "101>0 102>1": what the device has.
  std::string there() const {
    std::multiset<std::string> all;
    for (const auto& [handle, rule] : device.rules) all.insert(std::to_string(rule.match.vlan) + ">" + std::to_string(rule.queue));
    std::string line;
    for (const std::string& each : all) line += (line.empty() ? "" : " ") + each;
    return line;
  }
  std::vector<std::string> calls() { return std::exchange(device.calls, {}); }

  FakeDevice device;
  std::unique_ptr<Steering> steering;
  View view;
  std::map<std::uint16_t, std::shared_ptr<const Endpoint>> endpoints;
  std::vector<std::string> notes;
  Tick now = 0;
};

using Calls = std::vector<std::string>;

TEST_F(SteeringTest, RulesComeAndGoWithTheirEndpoints) {
  start();
  put(endpoint(1, 0));
  put(endpoint(2, 1, {"10.0.0.20"}));
  tick();
  EXPECT_EQ(there(), "101>0 102>1 102>1");
  EXPECT_EQ(report(2).installed, 2U);
  EXPECT_EQ(report(2).hits, 10U);
  EXPECT_EQ(report(2).why, "");
  calls();
  tick();
  EXPECT_EQ(calls(), Calls{}) << "nothing changed";
  take(2);
  tick();
  EXPECT_EQ(there(), "101>0");
  steering.reset();
  EXPECT_EQ(there(), "") << "nothing is left behind";
}

TEST_F(SteeringTest, WhereThereIsNothingToSteerItSaysSo) {
  start(2, 1);
  EXPECT_EQ(steering->inactive_because(), "nothing to steer: there is one worker");
  start(1, 2);
  EXPECT_EQ(steering->inactive_because(), "nothing to steer: the trunk has one queue");
  start(2, 2, false);
  EXPECT_EQ(steering->inactive_because(), "switched off (trunk.steering)");
  EXPECT_EQ(device.probes, 0);
  put(endpoint(1, 0));
  device.reset = true;
  tick();
  steering->resync();
  tick();
  EXPECT_EQ(calls(), Calls{});
  EXPECT_EQ(device.flushes, 0) << "rules of others are none of its business";
  for (FlowAbility& ability : device.abilities) ability = {.available = false, .ipv6 = false, .mark = false, .count = false, .why = "the driver x has no rte_flow"};
  start();
  EXPECT_EQ(steering->inactive_because(), "the driver x has no rte_flow") << "once";
  tick();
  EXPECT_EQ(calls(), Calls{});
}

TEST_F(SteeringTest, AMoveIsTheNewRuleAndThenTheOldOne) {
  start();
  put(endpoint(1, 0));
  tick();
  calls();
  put(endpoint(1, 1));
  tick();
  EXPECT_EQ(calls(), (Calls{"insert 101>1", "remove 101>0"}));
  EXPECT_EQ(there(), "101>1");
}

TEST_F(SteeringTest, WhereTwoOfOneMatchAreRefusedTheOldRuleGoesFirst) {
  device.takes_duplicates = false;
  start();
  put(endpoint(1, 0));
  tick();
  calls();
  put(endpoint(1, 1));
  tick();
  EXPECT_EQ(calls(), (Calls{"insert 101>1", "remove 101>0", "insert 101>1"}));
  EXPECT_EQ(there(), "101>1");
  put(endpoint(1, 0));
  tick();
  EXPECT_EQ(calls(), (Calls{"remove 101>1", "insert 101>0"})) << "what it learned it remembers";
}

TEST_F(SteeringTest, AMoveInAFullTable) {
  device.room = 1;
  start();
  put(endpoint(1, 0));
  tick();
  calls();
  put(endpoint(1, 1));
  tick();
  EXPECT_EQ(calls(), (Calls{"insert 101>1", "remove 101>0", "insert 101>1"}));
  EXPECT_EQ(there(), "101>1");
  EXPECT_EQ(steering->full_after(), std::nullopt);
}

TEST_F(SteeringTest, AFullTableLeavesTheRestInSoftwareAndSaysSo) {
  device.room = 2;
  start();
  for (std::uint16_t number = 1; number <= 4; ++number) put(endpoint(number, 0));
  tick();
  EXPECT_EQ(there(), "101>0 102>0");
  EXPECT_EQ(calls().size(), 3U) << "one refusal is enough";
  EXPECT_EQ(report(2).why, "");
  EXPECT_EQ(report(3).why, "flow table full after 2 rules");
  EXPECT_EQ(report(4).installed, 0U);
  EXPECT_EQ(notes, Calls{"steering: flow table full after 2 rules; the rest is steered in software"});
  // Ever later, and not for ever.
  std::vector<Tick> tried;
  for (int i = 0; i < 3000; ++i) {
    tick();
    if (!calls().empty()) tried.push_back(now);
  }
  EXPECT_EQ(tried, (std::vector<Tick>{11, 31, 71, 151, 311, 631}));
  EXPECT_EQ(notes.size(), 1U);
  // A rule that goes makes room for one.
  take(1);
  tick();
  EXPECT_EQ(there(), "102>0 103>0");
  EXPECT_EQ(report(4).why, "flow table full after 2 rules");
  device.room = 3;
  tick(10);
  EXPECT_EQ(there(), "102>0 103>0 104>0");
  EXPECT_EQ(report(4).why, "");
  EXPECT_EQ(steering->full_after(), std::nullopt);
}

TEST_F(SteeringTest, SomeOfTheAddressesOnly) {
  device.room = 1;
  start();
  put(endpoint(1, 0, {"10.0.0.20"}));
  tick();
  EXPECT_EQ(report(1).installed, 1U);
  EXPECT_EQ(report(1).wanted, 2U);
  EXPECT_EQ(report(1).why, "flow table full after 1 rules");
}

TEST_F(SteeringTest, WhatIsRefusedIsTriedAFewTimesMore) {
  device.refuses_insert = FlowError{EINVAL, "overlapping rules"};
  start();
  put(endpoint(1, 0));
  std::vector<Tick> tried;
  for (int i = 0; i < 1000; ++i) {
    tick();
    if (!calls().empty()) tried.push_back(now);
    if (i == 0) {
      EXPECT_EQ(report(1).why, "overlapping rules; tried again");
    }
  }
  EXPECT_EQ(tried, (std::vector<Tick>{1, 11, 31, 71, 151, 311}));
  EXPECT_EQ(report(1).why, "overlapping rules; given up until it changes");
  // Another endpoint is another matter; and an operator may ask for all of it anew.
  device.refuses_insert.reset();
  put(endpoint(2, 0));
  tick();
  EXPECT_EQ(there(), "102>0");
  steering->resync();
  tick();
  EXPECT_EQ(there(), "101>0 102>0");
}

TEST_F(SteeringTest, OneThatIsRefusedDoesNotStandInTheWayOfOthers) {
  start();
  put(endpoint(1, 0));
  put(endpoint(2, 0));
  device.refuses_insert = FlowError{EINVAL, "no"};
  tick();
  EXPECT_EQ(calls(), (Calls{"insert 101>0", "insert 102>0"}));
}

TEST_F(SteeringTest, ARuleThatCannotBeRemoved) {
  start();
  put(endpoint(1, 0));
  tick();
  device.refuses_remove = FlowError{EBUSY, "busy"};
  take(1);
  tick();
  EXPECT_EQ(steering->installed_rules(), 1U) << "still there, and still known";
  device.refuses_remove.reset();
  tick();
  EXPECT_EQ(there(), "101>0") << "not at once";
  tick(10);
  EXPECT_EQ(there(), "");
  put(endpoint(1, 0));
  tick();
  device.refuses_remove = FlowError{EBUSY, "busy"};
  take(1);
  for (int i = 0; i < 1000; ++i) tick();
  EXPECT_EQ(steering->installed_rules(), 0U);
  EXPECT_EQ(notes, Calls{"steering: a rule that nobody wants any more cannot be removed: busy"});
}

TEST_F(SteeringTest, ASlowDeviceIsGivenAShareOfEachTick) {
  device.insert_micros = 4000;
  start();
  for (std::uint16_t number = 1; number <= 7; ++number) put(endpoint(number, 0));
  tick();
  EXPECT_EQ(device.rules.size(), 3U) << "ten milliseconds, and the call that was under way";
  EXPECT_EQ(report(7).why, "not yet installed");
  tick();
  EXPECT_EQ(device.rules.size(), 6U);
  tick();
  EXPECT_EQ(device.rules.size(), 7U);
  // One call may take longer than all of it; it goes on all the same.
  device.insert_micros = 500'000;
  put(endpoint(8, 0));
  put(endpoint(9, 0));
  tick();
  EXPECT_EQ(device.rules.size(), 8U);
  tick();
  EXPECT_EQ(device.rules.size(), 9U);
}

TEST_F(SteeringTest, AResetBringsAllOfThemBack) {
  start();
  put(endpoint(1, 0));
  put(endpoint(2, 1));
  tick();
  device.rules.clear();
  device.reset = true;
  tick();
  EXPECT_EQ(there(), "101>0 102>1");
  EXPECT_EQ(steering->times_lost(), 1U);
  EXPECT_EQ(notes, Calls{"steering: the device was reset; all rules are installed again"});
}

TEST_F(SteeringTest, ARuleThatTheDeviceForgotIsMissed) {
  start();
  for (std::uint16_t number = 1; number <= 20; ++number) put(endpoint(number, 0));
  tick();
  ASSERT_EQ(device.rules.size(), 20U);
  device.rules.erase(std::prev(device.rules.end()));
  // Eight are asked about every five seconds, in turn.
  int ticks = 0;
  for (; device.rules.size() != 20 && ticks < 1000; ++ticks) tick();
  EXPECT_GT(ticks, 50);
  EXPECT_LE(ticks, 150);
  EXPECT_EQ(steering->times_lost(), 1U);
  EXPECT_EQ(notes, Calls{"steering: the device does not know a rule any more (no such rule); all are installed again"});
}

TEST_F(SteeringTest, ADeviceThatAlwaysSaysSoIsNotAskedForEver) {
  start();
  put(endpoint(1, 0));
  device.refuses_hits = FlowError{EIO, "no answer"};
  for (int i = 0; i < 1000; ++i) tick();
  EXPECT_EQ(steering->times_lost(), 3U);
  EXPECT_EQ(there(), "101>0");
  EXPECT_EQ(report(1).hits, std::nullopt);
}

TEST_F(SteeringTest, ADeviceThatCannotBeAskedHasLostNothing) {
  start();
  put(endpoint(1, 0));
  device.refuses_hits = FlowError{ENOSYS, "no query"};
  for (int i = 0; i < 1000; ++i) tick();
  EXPECT_EQ(steering->times_lost(), 0U);
  EXPECT_EQ(notes, Calls{});
}

TEST_F(SteeringTest, WhatTheDeviceTakesIsAskedAgain) {
  start();
  put(endpoint(1, 0));
  tick();
  device.abilities[0].available = false;
  steering->resync();
  EXPECT_EQ(there(), "");
  tick();
  EXPECT_EQ(report(1).pattern, SteeringPattern::vlan_mac);
  for (FlowAbility& ability : device.abilities) ability.available = false, ability.why = "gone";
  steering->resync();
  tick();
  EXPECT_FALSE(steering->active());
  EXPECT_EQ(steering->inactive_because(), "gone");
  EXPECT_TRUE(steering->endpoints().empty());
}

TEST_F(SteeringTest, ANumberThatIsUsedAgainHasAnotherMark) {
  start();
  put(endpoint(1, 0));
  tick();
  Endpoint again = endpoint(1, 0);
  again.generation = 2;
  put(again);
  tick();
  ASSERT_EQ(device.rules.size(), 1U);
  EXPECT_EQ(device.rules.begin()->second.mark, 0x2001U);
}

}  // namespace
}  // namespace trunkline
