// SPDX-License-Identifier: BSD-3-Clause
// The controller with ports that are only counted: what is opened, what is closed, in which order, and that a change
// that fails has changed nothing. Two workers, whose turns the tests play.
#include <random>

#include "tests/support/controller_fixture.h"
#include "tests/support/flow_world.h"
#include "tests/support/random_state.h"

namespace trunkline::control {
namespace {

TEST_F(ControllerTest, AttachAndGroupsInEitherOrder) {
  ASSERT_TRUE(attach(1));
  EXPECT_EQ(endpoint(1), nullptr) << "no policy, no packets";
  EXPECT_TRUE(published_.read()->is_waiting(101, {}));
  EXPECT_TRUE(ports_.empty());
  EXPECT_NE(controller_->trouble("eni-1").find("sg-1"), std::string::npos);
  const auto result = put_group();
  ASSERT_TRUE(result);
  EXPECT_EQ(result->steps, (std::vector<std::string>{"open tap:ns1/eth0", "admit eni-1"}));
  ASSERT_NE(endpoint(1), nullptr);
  EXPECT_NE(endpoint(1)->policy, nullptr);
  EXPECT_EQ(ports_, (std::multiset<std::string>{"eni-1"}));
  EXPECT_EQ(controller_->trouble("eni-1"), "");
  ASSERT_TRUE(attach(2));
  EXPECT_NE(endpoint(2), nullptr);
}

TEST_F(ControllerTest, FlowLogsHearOfEniThatComeChangeAndGo) {
  config::FlowLog log;
  log.id = "fl-1";
  log.format = config::parse_flow_log_format("${interface-id} ${ecs-task-id} ${log-status}").value();
  config_.flow_logs = {log};
  test::KeptLines* sink = nullptr;
  FlowLogsOptions options;
  options.unix_ms = [] { return std::int64_t{1700000000000}; };
  options.make_sink = [&](const config::FlowLog&) {
    auto made = std::make_unique<test::KeptLines>();
    sink = made.get();
    return made;
  };
  FlowLogs logs(config_, nullptr, 0, options);
  Tick now = 0;
  const auto lines = [&] {
    logs.tick(++now);
    logs.flush();
    logs.tick(++now);
    return sink->take();
  };
  controller_->tell(&logs);
  put_group();
  attach(1);
  EXPECT_EQ(lines(), "eni-1 - NODATA\n");
  controller_->change([&](config::DesiredState& next, std::vector<std::string>&) {
    next.attachments["eni-1"].task.task_arn = "arn:aws:ecs:r:1:task/c/f5aa";
    return config::Problems{};
  });
  EXPECT_EQ(lines(), "eni-1 f5aa NODATA\n");
  // Its port is made anew: another generation, so the ENI is there once in each of its two lives.
  controller_->change([&](config::DesiredState& next, std::vector<std::string>&) {
    next.attachments["eni-1"].port->netns = "other";
    return config::Problems{};
  });
  now += 5;
  EXPECT_EQ(lines(), "eni-1 f5aa NODATA\neni-1 f5aa NODATA\n");
  turn();
  detach(1);
  lines();
  EXPECT_EQ(lines(), "");
}

TEST_F(ControllerTest, ASubnetOfTheConfigFileStaysAndThatIsSaid) {
  const auto put = [&](const char* ipv6) {
    return controller_->change([&](config::DesiredState& next, std::vector<std::string>&) {
      config::Subnet subnet = config_.subnets.front();
      subnet.availability_zone = "eu-west-1a";
      if (ipv6 != nullptr) subnet.ipv6_cidr = *IpPrefix::parse(ipv6);
      next.subnets[subnet.id] = subnet;
      return config::Problems{};
    });
  };
  const auto with_ranges = put("2001:db8::/64");
  ASSERT_TRUE(with_ranges);
  ASSERT_EQ(with_ranges->warnings.size(), 1U);
  EXPECT_NE(with_ranges->warnings[0].find("subnet-c070009b stays as the config file has it"), std::string::npos);
  EXPECT_FALSE(controller_->desired().subnets.at("subnet-c070009b").ipv6_cidr);
  EXPECT_TRUE(put(nullptr)->warnings.empty());
}

TEST_F(ControllerTest, TheSameAgainChangesNothing) {
  put_group();
  attach(1);
  const std::uint64_t revision = controller_->desired().revision;
  const auto view = published_.latest();
  for (const auto& result : {attach(1), put_group()}) {
    ASSERT_TRUE(result);
    EXPECT_FALSE(result->changed);
    EXPECT_EQ(result->revision, revision);
  }
  EXPECT_EQ(published_.latest(), view);
}

TEST_F(ControllerTest, AnUnrelatedChangeKeepsThePolicyAndItsGeneration) {
  put_group();
  attach(1);
  const auto policy = endpoint(1)->policy;
  attach(2);
  EXPECT_EQ(endpoint(1)->policy, policy);
  EXPECT_EQ(endpoint(2)->policy, policy) << "the same groups share one";
  put_group(443);
  EXPECT_NE(endpoint(1)->policy->generation, policy->generation);
}

TEST_F(ControllerTest, APortThatCannotBeOpenedChangesNothing) {
  put_group();
  refused_ = {"eni-2"};
  const auto before = controller_->desired();
  const auto result = controller_->change([&](config::DesiredState& next, std::vector<std::string>&) {
    next.attachments["eni-1"] = attachment(1);
    next.attachments["eni-2"] = attachment(2);
    return config::Problems{};
  });
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error()[0].name, "netns_missing");
  EXPECT_EQ(controller_->desired(), before);
  EXPECT_TRUE(ports_.empty()) << "what was opened is closed again";
  EXPECT_EQ(endpoint(1), nullptr);
}

TEST_F(ControllerTest, AnEniThatWaitedAndCannotBeOpenedDoesNotRefuseTheGroup) {
  refused_ = {"eni-2"};
  attach(1);
  attach(2);
  const auto result = put_group();
  ASSERT_TRUE(result);
  EXPECT_NE(endpoint(1), nullptr);
  EXPECT_EQ(endpoint(2), nullptr);
  EXPECT_TRUE(controller_->is_failed("eni-2"));
  ASSERT_EQ(result->warnings.size(), 1U);
}

TEST_F(ControllerTest, DryRunAndStaleRevisionDoNothing) {
  put_group();
  ChangeOptions dry;
  dry.dry_run = true;
  const auto result = attach(1, dry);
  ASSERT_TRUE(result);
  EXPECT_TRUE(result->changed);
  EXPECT_FALSE(result->steps.empty());
  EXPECT_TRUE(ports_.empty());
  EXPECT_TRUE(controller_->desired().attachments.empty());
  ChangeOptions stale;
  stale.expect_revision = 0;
  ASSERT_FALSE(attach(1, stale));
  EXPECT_EQ(attach(1, stale).error()[0].name, "conflict");
  stale.expect_revision = controller_->desired().revision;
  EXPECT_TRUE(attach(1, stale));
}

TEST_F(ControllerTest, ThePortIsClosedWhenTheWorkerHasLetGo) {
  put_group();
  attach(1);
  published_.join(0);
  const Endpoint* before = endpoint(1);
  ASSERT_NE(before, nullptr);
  // The worker says nothing for longer than the bounded wait: the port stays, the View is already without it.
  ASSERT_TRUE(detach(1));
  EXPECT_EQ(endpoint(1), nullptr);
  EXPECT_EQ(ports_, (std::multiset<std::string>{"eni-1"}));
  published_.quiescent(0);
  controller_->tick();
  EXPECT_TRUE(ports_.empty());
  published_.leave(0);
}

TEST_F(ControllerTest, ADetachThatLeavesTheInterfaceSaysSo) {
  put_group();
  leaves_ = "eth0 stays";
  attach(1);
  const auto detached = detach(1);
  ASSERT_TRUE(detached);
  EXPECT_EQ(detached->warnings, std::vector<std::string>{"eni-1 is detached, but not all of its interface is: eth0 stays"});
  EXPECT_EQ(controller_->interfaces_left(), 1U);
  EXPECT_EQ(controller_->last_interface_left(), detached->warnings[0]);
  leaves_.clear();
  attach(1);
  EXPECT_EQ(detach(1)->warnings, std::vector<std::string>{});
  EXPECT_EQ(controller_->interfaces_left(), 1U);
}

TEST_F(ControllerTest, ADetachOfWhatIsNotInServiceLooksForAnOlderInterface) {
  put_group();
  attach(1);
  attach(2);
  controller_.reset();
  refused_ = {"eni-2"};
  make_controller();
  std::vector<std::string> asked;
  controller_->remove_leftovers_with([&](const config::Attachment& attachment) {
    asked.push_back(attachment.eni_id);
    return attachment.eni_id == "eni-2" ? std::string("eth0 stays") : std::string();
  });
  controller_->restore();
  EXPECT_TRUE(detach(1));
  EXPECT_EQ(asked, std::vector<std::string>{}) << "its port does that";
  const auto detached = detach(2);
  EXPECT_EQ(asked, std::vector<std::string>{"eni-2"});
  EXPECT_EQ(detached->warnings.size(), 1U);
}

TEST_F(ControllerTest, AnAttachmentOfTheJournalThatDoesNotFitIsLeftOutAndTold) {
  put_group();
  attach(1);
  attach(2);
  controller_.reset();
  // As an engine wrote it that did not look at names so closely.
  {
    Journal journal(directory_);
    auto state = journal.load().state;
    ASSERT_TRUE(state);
    state->attachments["eni-2"].port->ifname = "eth0,remote=x";
    ASSERT_TRUE(journal.record(*state));
  }
  journal_ = std::make_unique<Journal>(directory_);
  make_controller();
  controller_->restore();
  EXPECT_NE(endpoint(1), nullptr) << "the others serve";
  EXPECT_EQ(endpoint(2), nullptr);
  ASSERT_TRUE(controller_->left_out().contains("eni-2"));
  EXPECT_NE(controller_->left_out().at("eni-2").find("ifname"), std::string::npos);
  EXPECT_TRUE(std::filesystem::exists(directory_ / "state.json.unfit"));
  attach(2);
  EXPECT_TRUE(controller_->left_out().empty());
}

TEST_F(ControllerTest, WhatTheJournalLostIsToldUntilSomebodyGivesTheStateAnew) {
  put_group();
  attach(1);
  controller_.reset();
  std::filesystem::remove(directory_ / "state.log");
  journal_ = std::make_unique<Journal>(directory_);
  make_controller();
  const auto notes = controller_->restore();
  ASSERT_FALSE(notes.empty());
  EXPECT_NE(controller_->journal_damage().find("state.log is missing"), std::string::npos) << controller_->journal_damage();
  EXPECT_NE(notes[0].find(controller_->journal_damage()), std::string::npos);
  controller_->forget_journal_damage();
  EXPECT_EQ(controller_->journal_damage(), "");
}

TEST_F(ControllerTest, AReusedNumberHasAnotherGenerationAndCountsFromZero) {
  put_group();
  attach(1);
  const std::uint16_t id = endpoint(1)->id.value;
  const std::uint16_t generation = endpoint(1)->generation;
  for (Worker* worker : workers_) worker->state.meters[id].ingress.received({1, 100});
  EXPECT_EQ(controller_->workers().of(EndpointId{id}, Direction::ingress).rx_packets, 2U);
  detach(1);
  attach(2);
  ASSERT_EQ(endpoint(2)->id.value, id);
  EXPECT_NE(endpoint(2)->generation, generation);
  const MeterReading& start = controller_->active().at("eni-2").ingress_start;
  EXPECT_EQ(controller_->workers().of(EndpointId{id}, Direction::ingress).since(start).rx_packets, 0U);
  workers_[1]->state.meters[id].ingress.received({1, 60});
  const MeterReading reading = controller_->workers().of(EndpointId{id}, Direction::ingress).since(start);
  EXPECT_EQ(reading.rx_packets, 1U);
  EXPECT_EQ(reading.rx_bytes, 60U);
  EXPECT_EQ(reading.unaccounted(), 1);
}

TEST_F(ControllerTest, AnotherInterfaceReplacesThePort) {
  put_group();
  attach(1);
  const auto result = controller_->change([&](config::DesiredState& next, std::vector<std::string>&) {
    next.attachments["eni-1"].port->netns = "elsewhere";
    return config::Problems{};
  });
  ASSERT_TRUE(result);
  EXPECT_EQ(result->steps, (std::vector<std::string>{"withdraw eni-1", "close tap:ns1/eth0", "open tap:elsewhere/eth0", "admit eni-1"}));
  EXPECT_EQ(ports_, (std::multiset<std::string>{"eni-1"}));
  EXPECT_NE(endpoint(1), nullptr);
}

TEST_F(ControllerTest, MembersFollowAttachments) {
  put_group();
  attach(1);
  const auto& view = *published_.read();
  EXPECT_EQ(view.members->find(IpAddress::from_v4(0x0a000011)).count, 1);
  EXPECT_EQ(controller_->local_members("sg-1").size(), 1U);
  detach(1);
  EXPECT_EQ(published_.read()->members->find(IpAddress::from_v4(0x0a000011)).count, 0);
}

TEST_F(ControllerTest, RestartBringsBackWhatItCanAndTriesTheRestAgain) {
  put_group();
  attach(1);
  attach(2);
  const auto desired = controller_->desired();
  controller_.reset();
  refused_ = {"eni-2"};
  make_controller();
  const auto notes = controller_->restore();
  ASSERT_EQ(notes.size(), 1U);
  EXPECT_NE(notes[0].find("eni-2"), std::string::npos);
  EXPECT_EQ(controller_->desired(), desired);
  EXPECT_NE(endpoint(1), nullptr);
  EXPECT_EQ(endpoint(2), nullptr);
  EXPECT_TRUE(controller_->is_failed("eni-2"));
  // It stands in nobody's way.
  EXPECT_TRUE(attach(3));
  EXPECT_NE(endpoint(3), nullptr);
  refused_.clear();
  for (Tick i = 0; i < 25; ++i) controller_->tick();
  EXPECT_NE(endpoint(2), nullptr);
  EXPECT_FALSE(controller_->is_failed("eni-2"));
}

TEST_F(ControllerTest, AChangeOfMembersAloneIsEnforcedWithoutAnotherView) {
  put_group();
  attach(1);
  const auto view = published_.latest();
  const auto address = *IpAddress::parse("172.16.0.1");
  const auto members = [&](auto edit) {
    return controller_->change([&](config::DesiredState& next, std::vector<std::string>&) {
      edit(next.remote_members["sg-2"]);
      return config::Problems{};
    });
  };
  ASSERT_TRUE(members([&](auto& set) { set.insert(address); }));
  EXPECT_EQ(published_.latest(), view);
  EXPECT_EQ(view->members->find(address).count, 1);
  // A member for two reasons stays one when one of them goes.
  config::Attachment other = attachment(2);
  other.group_ids = {"sg-2"};
  other.addresses = {address};
  other.subnet_id = "";
  ASSERT_TRUE(controller_->change([&](config::DesiredState& next, std::vector<std::string>&) {
    next.attachments["eni-2"] = other;
    return config::Problems{};
  }));
  ASSERT_TRUE(members([&](auto& set) { set.erase(address); }));
  EXPECT_EQ(view->members->find(address).count, 1);
  detach(2);
  EXPECT_EQ(view->members->find(address).count, 0);
}

TEST_F(ControllerTest, AnAddressInTooManyGroupsIsInNoneUntilItFits) {
  const auto address = *IpAddress::parse("172.16.0.1");
  const auto groups = [&](unsigned count) {
    ASSERT_TRUE(controller_->change([&](config::DesiredState& next, std::vector<std::string>&) {
      next.remote_members.clear();
      for (unsigned i = 0; i < count; ++i) next.remote_members["sg-" + std::to_string(i)] = {address};
      return config::Problems{};
    }));
  };
  groups(26);
  EXPECT_EQ(published_.read()->members->find(address).count, 26);
  groups(27);
  EXPECT_EQ(published_.read()->members->find(address).count, 0);
  groups(3);
  EXPECT_EQ(published_.read()->members->find(address).count, 3);
}

TEST_F(ControllerTest, ARuleChangeRemakesOnlyTheEndpointsThatCarryIt) {
  put_group();
  attach(1);
  ASSERT_TRUE(controller_->change([&](config::DesiredState& next, std::vector<std::string>&) {
    next.security_groups["sg-2"].id = "sg-2";
    next.security_groups["sg-2"].ingress.emplace_back().prefix_list_ids = {"pl-1"};
    next.attachments["eni-2"] = attachment(2);
    next.attachments["eni-2"].group_ids = {"sg-2"};
    next.attachments["eni-3"] = attachment(3);
    next.attachments["eni-3"].group_ids = {"sg-2", "sg-1"};
    return config::Problems{};
  }));
  const auto before = published_.latest();
  const auto object = [&](const View& view, int number) { return view.at_vlan(static_cast<std::uint16_t>(100 + number)); };
  put_group(443);
  auto after = published_.latest();
  EXPECT_NE(object(*after, 1), object(*before, 1));
  EXPECT_EQ(object(*after, 2), object(*before, 2));
  EXPECT_NE(object(*after, 3)->policy, object(*before, 3)->policy);
  EXPECT_EQ(object(*after, 1)->generation, object(*before, 1)->generation);
  // A prefix list that its group named before it was there.
  ASSERT_TRUE(controller_->change([&](config::DesiredState& next, std::vector<std::string>&) {
    next.prefix_lists["pl-1"] = {"pl-1", {*IpPrefix::parse("192.0.2.0/24")}};
    return config::Problems{};
  }));
  const auto with_list = published_.latest();
  EXPECT_EQ(object(*with_list, 1), object(*after, 1));
  EXPECT_NE(object(*with_list, 2)->policy, object(*after, 2)->policy);
  // A group that nobody carries is nobody's business.
  ASSERT_TRUE(controller_->change([&](config::DesiredState& next, std::vector<std::string>&) {
    next.security_groups["sg-9"].id = "sg-9";
    return config::Problems{};
  }));
  EXPECT_EQ(published_.latest(), with_list);
}

TEST_F(ControllerTest, WhoDoesNotWaitForTheDiskIsToldSoAndTheTimerWrites) {
  put_group();
  const auto on_disk = [&] { return Journal(directory_).load().state->revision; };
  const std::uint64_t written = on_disk();
  ChangeOptions hurry;
  hurry.wait_for_disk = false;
  for (int i = 1; i <= 3; ++i) {
    const auto result = attach(i, hurry);
    ASSERT_TRUE(result);
    EXPECT_FALSE(result->durable);
    EXPECT_TRUE(result->warnings.empty());
    EXPECT_NE(endpoint(i), nullptr) << "in force";
  }
  EXPECT_TRUE(controller_->durable()) << "not a failure";
  EXPECT_EQ(on_disk(), written);
  // The same again, by someone who waits: nothing changes, and then it is on disk.
  const auto again = attach(3);
  ASSERT_TRUE(again);
  EXPECT_FALSE(again->changed);
  EXPECT_TRUE(again->durable);
  EXPECT_EQ(on_disk(), written + 3);
  attach(4, hurry);
  controller_->tick();
  EXPECT_EQ(on_disk(), written + 4);
  attach(5, hurry);
  controller_.reset();
  EXPECT_EQ(on_disk(), written + 5) << "stopped in an orderly way";
}

// After any sequence of changes the engine is as one that was given the last state at once.
TEST_F(ControllerTest, ManyChangesLeadWhereOneLeads) {
  const std::uint64_t seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  test::RandomEdits random(seed);
  const auto describe = [&](const View& view, Controller& controller) {
    std::map<std::string, std::string> said;
    for (const auto& [eni, active] : controller.active()) {
      const Endpoint* endpoint = view.endpoint(active.endpoint->id);
      if (endpoint == nullptr || endpoint != active.endpoint.get()) {
        said[eni] = "not in the View";
        continue;
      }
      said[eni] = std::to_string(endpoint->vlan.value) + ' ' + endpoint->mac.to_string() + ' ' + endpoint->subnet4.to_string() +
                  (view.at_vlan(endpoint->vlan.value) == endpoint ? " by vlan" : " lost") + " groups " +
                  std::to_string(endpoint->policy->ingress.rule_count()) + '/' + std::to_string(endpoint->policy->egress.rule_count());
      for (const IpAddress& address : endpoint->addresses()) {
        said[eni] += ' ' + address.to_string() + (view.with_address(address) == endpoint ? "" : " lost");
      }
    }
    for (unsigned vlan = 1; vlan < 40; ++vlan) {
      if (view.is_waiting(static_cast<std::uint16_t>(vlan), {})) said["waiting " + std::to_string(vlan)] = "yes";
    }
    for (unsigned i = 0; i < 512; ++i) {
      const IpAddress address = IpAddress::from_v4(0x0a000000U + i);
      if (const auto groups = view.members->find(address); groups.count != 0) said[address.to_string()] = std::to_string(groups.count);
    }
    return said;
  };
  for (int i = 0; i < 1000; ++i) {
    config::DesiredState wanted;
    ChangeOptions options;
    options.wait_for_disk = i % 50 == 0;
    const auto result = controller_->change([&](config::DesiredState& next, std::vector<std::string>&) {
      random.edit(next);
      wanted = next;
      return config::Problems{};
    }, options);
    if (!result || i % 25 != 0) continue;
    Published<View> published(1);
    Controller at_once(config_, published, workers_, [this](const config::Attachment& each, const config::Subnet&) {
      return std::make_unique<FakePort>(ports_, each.eni_id);
    }, TrunkPort{}, nullptr);
    ASSERT_TRUE(at_once.change([&](config::DesiredState& next, std::vector<std::string>&) {
      next = wanted;
      return config::Problems{};
    }));
    ASSERT_EQ(describe(*published_.latest(), *controller_), describe(*published.latest(), at_once)) << "change " << i;
    ASSERT_EQ(controller_->active().size(), published_.latest()->ports.size() - 1);
  }
  EXPECT_FALSE(controller_->active().empty() && controller_->desired().revision < 50);
  const auto desired = controller_->desired();
  controller_.reset();
  make_controller();
  controller_->restore();
  EXPECT_EQ(controller_->desired(), desired);
}

// What one worker received another may have sent on: only the sums close.
TEST_F(ControllerTest, TrunkReadingsAreSums) {
  workers_[0]->state.trunk_in.received({1, 100});
  workers_[1]->state.trunk_in.sent({1, 100});
  workers_[1]->state.trunk_out.received({1, 60});
  workers_[0]->state.trunk_out.dropped(DropReason::tx_full);
  for (const MeterReading& reading : {controller_->workers().trunk_in(), controller_->workers().trunk_out()}) {
    EXPECT_EQ(reading.rx_packets, 1U);
    EXPECT_EQ(reading.unaccounted(), 0);
  }
}

TEST_F(ControllerTest, EndpointsGoToTheWorkerThatHasTheFewest) {
  put_group();
  for (int i = 1; i <= 5; ++i) attach(i);
  for (int i = 1; i <= 5; ++i) EXPECT_EQ(endpoint(i)->worker, (i - 1) % 2) << i;
  EXPECT_EQ(controller_->endpoints_of(0), 3U);
  detach(2);
  detach(4);
  for (int i = 6; i <= 8; ++i) {
    attach(i);
    EXPECT_EQ(endpoint(i)->worker, 1) << i;
  }
  EXPECT_EQ(polled_by(0), 3U);
  EXPECT_EQ(polled_by(1), 3U);
  EXPECT_EQ(published_.read()->trunk_queues, 2) << "the trunk's four, but no more than there are workers";
  EXPECT_FALSE(published_.read()->moving);
}

TEST_F(ControllerTest, AQuotaOfConnectionsIsTheEndpoints) {
  put_group();
  attach(1);
  EXPECT_EQ(endpoint(1)->max_connections, 0xffffffffU);
  config_.limits.connections_per_endpoint = 7;
  attach(2);
  EXPECT_EQ(endpoint(2)->max_connections, 7U);
}

TEST_F(ControllerTest, AMoveTakesThreeViews) {
  put_group();
  attach(1);
  workers_[0]->turn();
  published_.join(0);
  const std::uint64_t revision = controller_->desired().revision;
  // Worker 0 says nothing for longer than the bounded wait: it may still serve the endpoint, so nobody else does yet.
  const auto result = controller_->move("eni-1", 1);
  ASSERT_TRUE(result) << result.error()[0].message;
  EXPECT_TRUE(result->changed);
  EXPECT_EQ(result->revision, revision);
  EXPECT_EQ(result->steps, std::vector<std::string>{"move eni-1 from worker 0 to worker 1"});
  EXPECT_EQ(place(1), "1 - 0");
  EXPECT_EQ(polled_by(0) + polled_by(1), 0U);
  EXPECT_TRUE(published_.read()->moving);
  controller_->tick();
  EXPECT_EQ(place(1), "1 - 0");
  published_.quiescent(0);
  controller_->tick();
  EXPECT_EQ(place(1), "1 1 0");
  EXPECT_EQ(polled_by(1), 1U);
  // The old owner's rounds count from when it has seen that View.
  for (int i = 0; i < 5; ++i) workers_[1]->turn(), controller_->tick();
  EXPECT_EQ(place(1), "1 1 0");
  published_.leave(0);
  controller_->tick();
  turn();
  controller_->tick();
  EXPECT_EQ(place(1), "1 1 0") << "a round that may have begun before";
  turn();
  controller_->tick();
  EXPECT_EQ(place(1), "1 1 0") << "the new owner may have records in its lane";
  turn(2);
  controller_->tick();
  EXPECT_EQ(place(1), "1 1 -");
  EXPECT_FALSE(published_.read()->moving);
  EXPECT_FALSE(controller_->is_moving("eni-1"));
}

TEST_F(ControllerTest, MovesThatAreRefusedOrNone) {
  put_group();
  attach(1);
  const auto view = published_.latest();
  const auto refused = [&](const std::string& eni, WorkerNumber to, const ChangeOptions& options = {}) {
    const auto result = controller_->move(eni, to, options);
    return result ? config::Problem{} : result.error()[0];
  };
  EXPECT_EQ(refused("eni-1", 2).pointer, "/worker");
  EXPECT_EQ(refused("eni-2", 1).pointer, "/task");
  ChangeOptions stale;
  stale.expect_revision = 0;
  EXPECT_EQ(refused("eni-1", 1, stale).name, "conflict");
  ChangeOptions dry;
  dry.dry_run = true;
  EXPECT_EQ(controller_->move("eni-1", 1, dry)->steps.size(), 1U);
  EXPECT_FALSE(controller_->move("eni-1", 0)->changed);
  EXPECT_EQ(published_.latest(), view);

  ASSERT_TRUE(controller_->move("eni-1", 1));
  const auto moving = published_.latest();
  EXPECT_EQ(refused("eni-1", 0).name, "conflict");
  EXPECT_EQ(refused("eni-1", 0).message, "eni-1 is still moving to worker 1, try again in a second");
  EXPECT_FALSE(controller_->move("eni-1", 1)->changed) << "it is on its way there";
  EXPECT_EQ(published_.latest(), moving);
  EXPECT_GT(settle(), 0);
  EXPECT_TRUE(controller_->move("eni-1", 0)->changed);
}

// One move waits for nobody else's, and `moving` is true until the last is over.
TEST_F(ControllerTest, TwoMovesAtATime) {
  put_group();
  attach(1), attach(2);
  controller_->move("eni-1", 1);
  turn(2), controller_->tick();
  controller_->move("eni-2", 0);
  EXPECT_EQ(place(2), "0 0 1");
  turn(2), controller_->tick();
  EXPECT_TRUE(published_.read()->moving);
  settle();
  EXPECT_EQ(place(1), "1 1 -");
  EXPECT_EQ(place(2), "0 0 -");
}

TEST_F(ControllerTest, OtherChangesKeepThePlace) {
  put_group();
  attach(1), attach(2);
  controller_->move("eni-1", 1);
  put_group(443);  // another policy: a copy
  EXPECT_EQ(place(1), "1 1 0");
  controller_->change([&](config::DesiredState& next, std::vector<std::string>&) {
    next.attachments["eni-1"].source_dest_check = false;  // made anew
    return config::Problems{};
  });
  EXPECT_EQ(place(1), "1 1 0");
  EXPECT_EQ(polled_by(1), 2U);
  EXPECT_TRUE(published_.read()->moving);
  settle();
  EXPECT_EQ(place(1), "1 1 -");
  put_group(80);
  EXPECT_EQ(place(1), "1 1 -");
}

TEST_F(ControllerTest, ADetachEndsTheMove) {
  put_group();
  attach(1), attach(2);
  published_.join(0);
  controller_->move("eni-1", 1);
  EXPECT_EQ(place(1), "1 - 0");
  ASSERT_TRUE(detach(1));
  EXPECT_FALSE(published_.read()->moving);
  EXPECT_EQ(endpoint(1), nullptr);
  published_.leave(0);
  controller_->tick();
  EXPECT_EQ(ports_, std::multiset<std::string>{"eni-2"});
  // Under the same number, and not moving.
  attach(1);
  EXPECT_EQ(place(1), "0 0 -");
  turn(4), controller_->tick();
  EXPECT_EQ(place(1), "0 0 -");
}

TEST_F(ControllerTest, AReplacedPortStaysWithItsWorkerAndDoesNotMove) {
  put_group();
  attach(1), attach(2);
  controller_->move("eni-1", 1);
  const std::uint16_t generation = endpoint(1)->generation;
  ASSERT_TRUE(controller_->change([&](config::DesiredState& next, std::vector<std::string>&) {
    next.attachments["eni-1"].port->netns = "elsewhere";
    return config::Problems{};
  }));
  EXPECT_EQ(place(1), "1 1 -") << "its connections are forgotten, so nobody has to be asked";
  EXPECT_NE(endpoint(1)->generation, generation);
  EXPECT_FALSE(published_.read()->moving);
  EXPECT_EQ(ports_.count("eni-1"), 1U);
}

TEST_F(ControllerTest, RefusesMoreThanTheLimit) {
  put_group();
  for (int i = 1; i <= 8; ++i) ASSERT_TRUE(attach(i)) << i;
  const auto ninth = attach(9);
  ASSERT_FALSE(ninth);
  EXPECT_EQ(ninth.error()[0].name, "port_limit");
  EXPECT_EQ(ports_.size(), 8U);
  detach(3);
  EXPECT_TRUE(attach(9));
}

}  // namespace
}  // namespace trunkline::control
