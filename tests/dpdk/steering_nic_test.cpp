// SPDX-License-Identifier: BSD-3-Clause
//
// Steering end to end: the real controller, two real workers and real ports of a NIC that is made of software (support/mock_nic.h).
// Frames come from its wire; which worker took them is told by what was handed over. Where no thread runs, the test plays the
// workers' turns, and every count is exact.
//
// Needs the EAL (no huge pages, no root).
#include <gtest/gtest.h>
#include <rte_eal.h>
#include <rte_ethdev.h>
#include <rte_mbuf.h>
#include <unistd.h>

#include <thread>

#include "control/controller.h"
#include "control/steering_methods.h"
#include "dataplane/io/ethdev_flows.h"
#include "dataplane/io/port.h"
#include "dataplane/io/steering.h"
#include "tests/support/mock_nic.h"
#include "tests/support/packets.h"

namespace trunkline::test {
namespace {

rte_mempool* pool = nullptr;

struct MockTaskPort final : control::TaskPort {
  explicit MockTaskPort(std::unique_ptr<Port> opened) : port(std::move(opened)) {}
  std::uint16_t ethdev() const override { return port->ethdev(); }
  bool link_up() const override { return true; }
  void remove_with_interface() override { port.reset(); }
  std::unique_ptr<Port> port;
};

std::unique_ptr<Port> open_nic(const std::string& name, std::uint16_t queues) {
  PortSettings settings{.devargs = name, .mtu = 1500, .queues = queues};
  auto port = Port::open(settings, *pool);
  EXPECT_TRUE(port) << port.error();
  return port ? std::move(*port) : nullptr;
}

class SteeredEngine : public ::testing::Test {
 protected:
  SteeredEngine() : published_(2) {
    for (WorkerNumber number = 0; number < 2; ++number) {
      owned_.push_back(std::make_unique<Worker>(number, published_, IdleSettings{.spin_us = 50, .sleep_us = 50, .block_after_ms = 0, .long_sleep_us = 100}, 16, 4096, number + 1U, &mesh_));
      workers_.push_back(owned_.back().get());
    }
    for (Worker* worker : workers_) worker->meet(workers_);
    trunk_ = open_nic("net_mocknic0", 2);
    config_.trunk.device = "net_mocknic0";
    config_.limits.endpoints = 16;
    config::Subnet subnet;
    subnet.id = "subnet-c070009b";
    subnet.cidr = *IpPrefix::parse("10.0.0.0/24");
    subnet.ipv6_cidr = *IpPrefix::parse("2001:db8:1::/64");
    config_.subnets = {subnet};
  }
  ~SteeredEngine() override {
    stop_workers();
    steering_.reset();
    flows_.reset();
    controller_.reset();
    published_.reclaim();
    trunk_.reset();
  }

  // The NIC's faults are set before.
  void start(bool steered = true, config::TrunkMode mode = config::TrunkMode::tagged) {
    config_.trunk.mode = mode;
    controller_ = std::make_unique<control::Controller>(
        config_, published_, workers_,
        [this](const config::Attachment& attachment, const config::Subnet&) -> std::expected<std::unique_ptr<control::TaskPort>, config::Problem> {
          auto port = open_nic("net_mocknic" + std::to_string(++ports_), 1);
          task_nics_[attachment.eni_id] = port->ethdev();
          return std::make_unique<MockTaskPort>(std::move(port));
        },
        control::TrunkPort{.ethdev = trunk_->ethdev(), .queues = trunk_->queues()}, nullptr);
    flows_ = std::make_unique<EthdevFlows>(trunk_->ethdev());
    steering_ = std::make_unique<Steering>(*flows_, trunk_->queues(),
                                           SteeringSettings{.wanted = steered, .workers = 2, .micros = {}, .note = [this](const std::string& text) { notes_.push_back(text); }});
    change([](config::DesiredState& next) {
      config::SecurityGroup group;
      group.id = "sg-1";
      config::SecurityGroupRule all;
      all.protocol = -1;
      all.ranges = {*IpPrefix::parse("0.0.0.0/0"), *IpPrefix::parse("::/0")};
      group.ingress = group.egress = {all};
      next.security_groups["sg-1"] = group;
    });
  }
  void change(const std::function<void(config::DesiredState&)>& edit) {
    const auto result = controller_->change([&](config::DesiredState& next, std::vector<std::string>&) {
      edit(next);
      return config::Problems{};
    });
    ASSERT_TRUE(result) << result.error().front().message;
  }
  static MacAddress mac_of(int number) { return {{0x0a, 0, 0, 0, 0, static_cast<std::uint8_t>(number + 16)}}; }
  // eni-N: VLAN 100 + N, 10.0.0.(16 + N) and more. The first is worker 0's, the next worker 1's, and so on.
  void attach(int number, const std::vector<std::string>& more = {}) {
    change([&](config::DesiredState& next) {
      config::Attachment attachment;
      attachment.eni_id = "eni-" + std::to_string(number);
      attachment.mac = mac_of(number);
      attachment.addresses = {IpAddress::from_v4(0x0a000010U + static_cast<std::uint32_t>(number))};
      for (const std::string& address : more) attachment.addresses.push_back(ip(address));
      attachment.subnet_id = "subnet-c070009b";
      attachment.vlan = config_.trunk.mode == config::TrunkMode::tagged ? VlanId{static_cast<std::uint16_t>(100 + number)} : VlanId{};
      attachment.group_ids = {"sg-1"};
      attachment.port = config::PortSpec{};
      attachment.port->mtu = 1500;
      attachment.port->netns = "ns" + std::to_string(number);
      next.attachments.insert_or_assign(attachment.eni_id, attachment);
    });
  }
  void detach(int number) {
    change([&](config::DesiredState& next) { next.attachments.erase("eni-" + std::to_string(number)); });
  }

  // --- time and turns ---
  void tick() {
    controller_->tick();
    now_ += 1;
    steering_->tick(controller_->view(), now_);
  }
  void later(Tick ticks) {
    now_ += ticks;
    steering_->tick(controller_->view(), now_);
  }
  void turn(int times = 3) {
    for (int i = 0; i < times; ++i) {
      for (Worker* worker : workers_) worker->turn();
    }
  }
  void run_workers() {
    for (Worker* worker : workers_) threads_.emplace_back([worker] { worker->run(); });
    for (Worker* worker : workers_) {
      while (worker->turns() == 0) std::this_thread::yield();
    }
  }
  void stop_workers() {
    for (Worker* worker : workers_) worker->stop();
    for (std::thread& thread : threads_) thread.join();
    threads_.clear();
  }

  // --- packets ---
  MockNic& nic() { return MockNic::of(trunk_->ethdev()); }
  MockNic& task_nic(int number) { return MockNic::of(task_nics_.at("eni-" + std::to_string(number))); }
  Frame frame_for(int number, std::string_view address = {}, std::uint32_t serial = 0) const {
    const IpAddress to = address.empty() ? IpAddress::from_v4(0x0a000010U + static_cast<std::uint32_t>(number)) : ip(address);
    const int vlan = config_.trunk.mode == config::TrunkMode::tagged ? 100 + number : -1;
    Frame datagram = udp_datagram(4000, 53);
    std::memcpy(&datagram[8], &serial, 4);
    return ip_packet({mac_of(number), mac("0a:00:00:00:00:01"), vlan}, to.is_v4() ? ip("198.51.100.9") : ip("2001:db8:9::9"), to, 17, datagram);
  }
  void receive(int number, int count = 10, std::string_view address = {}) {
    for (int i = 0; i < count; ++i) ASSERT_TRUE(nic().receive(frame_for(number, address)));
  }
  // What the ENI's task got.
  std::size_t delivered(int number) { return task_nic(number).sent().size(); }
  std::uint64_t handed() const { return workers_[0]->handed_in() + workers_[1]->handed_in(); }

  SteeredEndpoint report(int number) {
    const EndpointId id = controller_->active().at("eni-" + std::to_string(number)).endpoint->id;
    for (const SteeredEndpoint& each : steering_->endpoints()) {
      if (each.id == id) return each;
    }
    return {};
  }
  // Two ENIs, one of each worker; ten packets for each. What the workers handed to each other.
  std::uint64_t traffic_of_two() {
    const std::uint64_t before = handed();
    receive(1);
    receive(2);
    turn();
    EXPECT_EQ(delivered(1), 10U);
    EXPECT_EQ(delivered(2), 10U);
    return handed() - before;
  }
  void start_with_two() {
    start();
    attach(1);
    attach(2);
    tick();
  }

  config::EngineConfig config_;
  Published<View> published_;
  HandoffMesh mesh_{2};
  std::vector<std::unique_ptr<Worker>> owned_;
  std::vector<Worker*> workers_;
  std::unique_ptr<Port> trunk_;
  std::unique_ptr<control::Controller> controller_;
  std::unique_ptr<EthdevFlows> flows_;
  std::unique_ptr<Steering> steering_;
  std::map<std::string, std::uint16_t> task_nics_;
  std::vector<std::string> notes_;
  std::vector<std::thread> threads_;
  int ports_ = 0;
  Tick now_ = 0;
};

// --- what it is for ----------------------------------------------------------------------------------------------------

TEST_F(SteeredEngine, PacketsArriveAtTheirOwner) {
  start_with_two();
  EXPECT_EQ(nic().rules(), 2U);
  EXPECT_EQ(traffic_of_two(), 0U);
  EXPECT_EQ(workers_[0]->packets(), 10U);
  EXPECT_EQ(workers_[1]->packets(), 10U);
  EXPECT_EQ(report(2).pattern, SteeringPattern::vlan_mac_address);
  EXPECT_EQ(report(2).queue, 1);
  EXPECT_EQ(report(2).hits, 10U);
  EXPECT_EQ(report(2).why, "");
  receive(2, 1);
  turn();
  EXPECT_EQ(nic().last_mark(), report(2).mark);
  EXPECT_NE(report(1).mark, report(2).mark);
}

TEST_F(SteeredEngine, WithoutItTheyAreHandedOver) {
  start(false);
  attach(1);
  attach(2);
  tick();
  EXPECT_EQ(nic().rules(), 0U);
  EXPECT_EQ(traffic_of_two(), 10U);
  EXPECT_EQ(workers_[1]->packets(), 0U);
}

TEST_F(SteeredEngine, EveryAddressHasARuleAndWhatIsNoAddressIsHandedOver) {
  start();
  attach(1);
  attach(2, {"10.0.0.200", "2001:db8:1::12"});
  tick();
  EXPECT_EQ(nic().rules(), 4U);
  receive(2, 4);
  receive(2, 3, "10.0.0.200");
  receive(2, 2, "2001:db8:1::12");
  turn();
  EXPECT_EQ(delivered(2), 9U);
  EXPECT_EQ(handed(), 0U);
  EXPECT_EQ(report(2).hits, 9U);
  // Another's address behind this VLAN and MAC: no rule, and the owner refuses it as ever.
  receive(2, 1, "10.0.0.17");
  turn();
  EXPECT_EQ(delivered(2), 0U);
  EXPECT_EQ(handed(), 1U);
  EXPECT_EQ(workers_[1]->state.meters[controller_->active().at("eni-2").endpoint->id.value].ingress.drops[static_cast<std::size_t>(DropReason::dest_check)].read(), 1U);
}

TEST_F(SteeredEngine, WithoutATagByMacAndAddress) {
  start(true, config::TrunkMode::untagged);
  attach(1);
  attach(2);
  tick();
  EXPECT_EQ(report(2).pattern, SteeringPattern::mac_address);
  EXPECT_EQ(traffic_of_two(), 0U);
}

// --- correctness does not depend on it ---------------------------------------------------------------------------------

TEST_F(SteeredEngine, AWrongRuleCostsAHandoverAndNothingElse) {
  start_with_two();
  // Somebody else's rules, the other way round, stand before ours.
  nic().forget_rules();
  const auto wrong = [&](int number, std::uint16_t queue) {
    ASSERT_TRUE(flows_->insert({.match = {.vlan = static_cast<std::uint16_t>(100 + number), .mac = mac_of(number), .address = {}}, .queue = queue, .mark = 77, .count = false}));
  };
  wrong(1, 1);
  wrong(2, 0);
  EXPECT_EQ(traffic_of_two(), 20U);
}

TEST_F(SteeredEngine, ADetachTakesTheRulesAway) {
  start_with_two();
  detach(2);
  tick();
  EXPECT_EQ(nic().rules(), 1U);
  // The number is used again at once, and its new ENI's packets are its own.
  attach(3);
  tick();
  EXPECT_EQ(nic().rules(), 2U);
  receive(3);
  receive(2);  // nobody's any more
  turn();
  EXPECT_EQ(delivered(3), 10U);
  EXPECT_EQ(handed(), 0U);
  std::uint64_t unknown = 0;
  for (const Worker* worker : workers_) unknown += worker->state.trunk_in.drops[static_cast<std::size_t>(DropReason::unknown_eni)].read();
  EXPECT_EQ(unknown, 10U);
}

TEST_F(SteeredEngine, AMoveUnderTrafficLosesNothing) {
  start_with_two();
  std::uint32_t sent = 0;
  std::size_t got = 0;
  const auto some = [&] {
    for (int i = 0; i < 5; ++i) ASSERT_TRUE(nic().receive(frame_for(1, {}, sent++)));
    turn(1);
    got += delivered(1);
  };
  for (int round = 0; round < 6; ++round) {
    const WorkerNumber to = round % 2 == 0 ? 1 : 0;
    some();
    ASSERT_TRUE(controller_->move("eni-1", to));
    for (int i = 0; i < 30; ++i) {
      some();
      tick();
      if (controller_->is_moving("eni-1")) {
        EXPECT_NE(report(1).queue, to) << "until it has settled";
      }
    }
    ASSERT_FALSE(controller_->is_moving("eni-1"));
    EXPECT_EQ(report(1).queue, to);
    EXPECT_EQ(report(1).installed, 1U);
    const std::uint64_t before = handed();
    some();
    turn();
    got += delivered(1);
    EXPECT_EQ(handed(), before) << "it arrives where it belongs now";
  }
  turn(5);
  got += delivered(1);
  EXPECT_EQ(got, sent);
  EXPECT_EQ(nic().rules(), 2U);
}

TEST_F(SteeredEngine, AMoveWhereTwoRulesOfAMatchAreRefused) {
  nic().faults.refuses_duplicates = true;
  start_with_two();
  ASSERT_TRUE(controller_->move("eni-1", 1));
  for (int i = 0; i < 10; ++i) turn(), tick();
  EXPECT_EQ(report(1).queue, 1);
  EXPECT_EQ(nic().rules(), 2U);
  EXPECT_EQ(traffic_of_two(), 0U);
}

// --- a device that is as devices are -----------------------------------------------------------------------------------

TEST_F(SteeredEngine, ADriverWithoutRules) {
  nic().faults.no_rte_flow = true;
  start_with_two();
  EXPECT_EQ(steering_->inactive_because(), "the driver net_mocknic has no rte_flow");
  EXPECT_EQ(traffic_of_two(), 10U);
}

TEST_F(SteeredEngine, TheFinestPatternThatItTakes) {
  struct {
    std::atomic<bool> MockNicFaults::* fault;
    SteeringPattern pattern;
  } const steps[] = {{&MockNicFaults::refuses_ipv6, SteeringPattern::vlan_mac_address},
                     {&MockNicFaults::refuses_address, SteeringPattern::vlan_mac},
                     {&MockNicFaults::refuses_mac, SteeringPattern::vlan}};
  start_with_two();
  for (const auto& step : steps) {
    nic().faults.*step.fault = true;
    steering_->resync();
    tick();
    EXPECT_EQ(report(2).pattern, step.pattern);
    EXPECT_EQ(traffic_of_two(), 0U);
  }
  nic().faults.refuses_vlan = true;
  steering_->resync();
  tick();
  EXPECT_EQ(steering_->inactive_because(), "net_mocknic: no destination MAC in a filter (Operation not supported); net_mocknic: no VLAN in a filter (Operation not supported)");
  EXPECT_EQ(nic().rules(), 0U);
  EXPECT_EQ(traffic_of_two(), 10U);
}

TEST_F(SteeredEngine, AnIpv6AddressWhereTheDeviceTakesNone) {
  nic().faults.refuses_ipv6 = true;
  start();
  attach(1);
  attach(2, {"2001:db8:1::12"});
  tick();
  EXPECT_EQ(report(1).pattern, SteeringPattern::vlan_mac_address);
  EXPECT_EQ(report(2).pattern, SteeringPattern::vlan_mac);
  receive(2, 3, "2001:db8:1::12");
  turn();
  EXPECT_EQ(delivered(2), 3U);
  EXPECT_EQ(handed(), 0U);
}

TEST_F(SteeredEngine, WithoutMarksAndCounters) {
  nic().faults.refuses_mark = true;
  start_with_two();
  EXPECT_EQ(report(2).mark, std::nullopt);
  EXPECT_EQ(traffic_of_two(), 0U);
  EXPECT_EQ(nic().last_mark(), 0U);
  EXPECT_EQ(report(2).hits, 10U);
  nic().faults.refuses_mark = false;
  nic().faults.refuses_count = true;
  steering_->resync();
  tick();
  EXPECT_NE(report(2).mark, std::nullopt);
  EXPECT_EQ(report(2).hits, std::nullopt);
  EXPECT_EQ(traffic_of_two(), 0U);
}

TEST_F(SteeredEngine, AFullTableLeavesTheRestToTheWorkers) {
  nic().faults.room = 1;
  start_with_two();
  EXPECT_EQ(report(1).installed, 1U);
  EXPECT_EQ(report(2).installed, 0U);
  EXPECT_EQ(report(2).why, "flow table full after 1 rules");
  EXPECT_EQ(traffic_of_two(), 10U);
  nic().faults.room = 2;
  later(20);
  EXPECT_EQ(report(2).installed, 1U);
  EXPECT_EQ(traffic_of_two(), 0U);
}

TEST_F(SteeredEngine, ARuleThatIsRefusedWhenItComes) {
  nic().faults.refuses_create = true;
  start_with_two();
  EXPECT_EQ(report(2).why, "net_mocknic: the firmware refused it (Invalid argument); tried again");
  EXPECT_EQ(traffic_of_two(), 10U);
  nic().faults.refuses_create = false;
  later(20);
  EXPECT_EQ(report(2).why, "");
  EXPECT_EQ(traffic_of_two(), 0U);
}

TEST_F(SteeredEngine, RulesThatWereLostWhenThePortStopped) {
  start_with_two();
  ASSERT_EQ(rte_eth_dev_stop(trunk_->ethdev()), 0);
  ASSERT_EQ(rte_eth_dev_start(trunk_->ethdev()), 0);
  EXPECT_EQ(nic().rules(), 0U);
  EXPECT_EQ(traffic_of_two(), 10U) << "nothing is lost, it takes the detour";
  later(60);
  EXPECT_EQ(nic().rules(), 2U) << "it was asked, and did not know";
  EXPECT_EQ(traffic_of_two(), 0U);
  ASSERT_EQ(notes_.size(), 1U);
  EXPECT_NE(notes_[0].find("no such filter"), std::string::npos) << notes_[0];
}

TEST_F(SteeredEngine, AResetThatIsAnnounced) {
  start_with_two();
  nic().forget_rules();
  nic().announce_reset();
  tick();
  EXPECT_EQ(nic().rules(), 2U);
  EXPECT_EQ(traffic_of_two(), 0U);
}

TEST_F(SteeredEngine, ADeviceThatKeepsItsRulesIsLeftAlone) {
  nic().faults.forgets_at_stop = false;
  start_with_two();
  ASSERT_EQ(rte_eth_dev_stop(trunk_->ethdev()), 0);
  ASSERT_EQ(rte_eth_dev_start(trunk_->ethdev()), 0);
  const std::uint64_t before = nic().rule_changes();
  later(60);
  later(60);
  EXPECT_EQ(nic().rule_changes(), before);
  EXPECT_EQ(traffic_of_two(), 0U);
}

TEST_F(SteeredEngine, TheRulesGoWithTheEngine) {
  start_with_two();
  EXPECT_EQ(nic().rules(), 2U);
  steering_.reset();
  EXPECT_EQ(nic().rules(), 0U);
}

// --- what an operator is told ------------------------------------------------------------------------------------------

TEST_F(SteeredEngine, TheReportSaysForEachEniWhatIsInHardwareAndWhyNot) {
  using config::Json;
  nic().faults.room = 3;
  start_with_two();
  attach(3, {"10.0.0.200"});
  attach(4);
  tick();
  receive(2);
  turn();
  const Json report = control::steering_report(*controller_, steering_.get());
  EXPECT_EQ(report["steering"], (Json{{"mode", "auto"}, {"active", true}, {"why", ""},
                                      {"patterns", {"vlan+mac+address", "vlan+mac", "vlan", "mac+address", "mac"}},
                                      {"endpoints", 4}, {"in_hardware", 2}, {"rules", 3}, {"full_after", 3}, {"times_lost", 0}}));
  ASSERT_EQ(report["endpoints"].size(), 4U);
  EXPECT_EQ(report["endpoints"][1], (Json{{"eni", "eni-2"}, {"task", ""}, {"worker", 1}, {"hardware", "yes"}, {"pattern", "vlan+mac+address"}, {"queue", 1},
                                          {"rules", 1}, {"wanted", 1}, {"mark", *this->report(2).mark}, {"hits", 10}, {"why", ""}}));
  std::vector<std::string> rows;
  for (const Json& each : report["endpoints"]) {
    rows.push_back(each["hardware"].get<std::string>() + " " + each["rules"].dump() + "/" + each["wanted"].dump() + " " + each["why"].get<std::string>());
  }
  EXPECT_EQ(rows, (std::vector<std::string>{"yes 1/1 ", "yes 1/1 ", "partly 1/2 flow table full after 3 rules", "no 0/1 flow table full after 3 rules"}));
  EXPECT_EQ(control::steering_summary(*controller_, steering_.get()), report["steering"]);
}

TEST_F(SteeredEngine, TheReportOfWhatCannotBeSteered) {
  using config::Json;
  nic().faults.no_rte_flow = true;
  start_with_two();
  const Json report = control::steering_report(*controller_, steering_.get());
  EXPECT_EQ(report["steering"], (Json{{"mode", "auto"}, {"active", false}, {"why", "the driver net_mocknic has no rte_flow"}, {"patterns", Json::array()},
                                      {"endpoints", 2}, {"in_hardware", 0}, {"rules", 0}, {"full_after", nullptr}, {"times_lost", 0}}));
  EXPECT_EQ(report["endpoints"][0], (Json{{"eni", "eni-1"}, {"task", ""}, {"worker", 0}, {"hardware", "no"}, {"pattern", nullptr}, {"queue", nullptr}, {"rules", 0},
                                          {"wanted", 0}, {"mark", nullptr}, {"hits", nullptr}, {"why", "the driver net_mocknic has no rte_flow"}}));
  attach(3);
  EXPECT_EQ(control::steering_report(*controller_, steering_.get())["endpoints"].size(), 3U);
  EXPECT_EQ(control::steering_summary(*controller_, nullptr)["why"], "the engine has no trunk to steer");
}

TEST_F(SteeredEngine, AnEniThatHasJustComeIsNotYetInstalled) {
  start();
  attach(1);
  EXPECT_EQ(control::steering_report(*controller_, steering_.get())["endpoints"][0]["why"], "not yet installed");
  tick();
  EXPECT_EQ(control::steering_report(*controller_, steering_.get())["endpoints"][0]["why"], "");
}

// --- with workers that run ---------------------------------------------------------------------------------------------

TEST_F(SteeredEngine, ASlowDeviceStopsNoWorker) {
  start();
  attach(1);
  run_workers();
  attach(2);
  nic().faults.holds_inserts = true;
  std::atomic<bool> returned{false};
  std::thread control([&] {
    steering_->tick(controller_->view(), 1);
    returned = true;
  });
  // While the device sits on the first rule, packets for both ENIs go their way.
  std::size_t got1 = 0, got2 = 0;
  receive(1);
  receive(2);
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  while ((got1 < 10 || got2 < 10) && std::chrono::steady_clock::now() < deadline) {
    got1 += delivered(1);
    got2 += delivered(2);
    std::this_thread::yield();
  }
  EXPECT_FALSE(returned);
  EXPECT_EQ(nic().rules(), 0U);
  nic().faults.holds_inserts = false;
  control.join();
  EXPECT_EQ(got1, 10U);
  EXPECT_EQ(got2, 10U);
  EXPECT_EQ(handed(), 10U);
  steering_->tick(controller_->view(), 2);
  EXPECT_EQ(nic().rules(), 2U);
}

TEST_F(SteeredEngine, MovesBackAndForthUnderTraffic) {
  start_with_two();
  run_workers();
  std::vector<Frame> got;
  const auto collect = [&] {
    for (Frame& frame : task_nic(1).sent()) got.push_back(std::move(frame));
  };
  std::uint32_t number = 0;
  int moves = 0;
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(60);
  while (moves < 10 && std::chrono::steady_clock::now() < deadline) {
    for (int i = 0; i < 20; ++i) {
      while (!nic().receive(frame_for(1, {}, number))) collect();
      ++number;
    }
    // No more under way than the rings of the mesh and the port hold.
    while (number - got.size() > 500 && std::chrono::steady_clock::now() < deadline) collect(), std::this_thread::yield();
    tick();
    if (!controller_->is_moving("eni-1") && report(1).queue == controller_->active().at("eni-1").endpoint->worker) {
      ASSERT_TRUE(controller_->move("eni-1", moves++ % 2 == 0 ? 1 : 0));
    }
  }
  while (got.size() < number && std::chrono::steady_clock::now() < deadline) collect(), std::this_thread::yield();
  EXPECT_EQ(moves, 10);
  EXPECT_EQ(got.size(), number);
  // Each of them, once.
  std::set<Frame> different(got.begin(), got.end());
  EXPECT_EQ(different.size(), got.size());
}

}  // namespace
}  // namespace trunkline::test

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  char name[] = "steering_nic_test", no_huge[] = "--no-huge", memory[] = "-m", megabytes[] = "128", no_pci[] = "--no-pci", in_memory[] = "--no-shconf",
       telemetry[] = "--no-telemetry", level[] = "--log-level=4";
  char* eal[] = {name, no_huge, memory, megabytes, no_pci, in_memory, telemetry, level};
  if (rte_eal_init(std::size(eal), eal) < 0) return 1;
  trunkline::test::pool = rte_pktmbuf_pool_create("packets", 16383, 0, 0, 2176, 0);
  if (trunkline::test::pool == nullptr) return 1;
  const int result = RUN_ALL_TESTS();
  rte_eal_cleanup();
  return result;
}
