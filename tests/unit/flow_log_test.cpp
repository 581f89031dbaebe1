// SPDX-License-Identifier: BSD-3-Clause
// Flow logs from records to lines: the lines byte for byte, what is one line and what are two, intervals by the wall clock,
// NODATA and SKIPDATA, and that nothing is counted twice or forgotten whatever goes wrong.
#include <random>

#include "tests/support/flow_world.h"

namespace trunkline::control {
namespace {

using test::RecordOf;
using test::way;

constexpr const char* kAccount = "123456789010";

class FlowLogTest : public ::testing::Test, public FlowSource {
 protected:
  FlowLogTest() {
    config_.identity = {.account_id = kAccount, .region = "us-west-2", .az_id = "usw2-az1", .instance_id = "i-1", .vpc_id = ""};
    config::Subnet subnet;
    subnet.id = "subnet-1";
    subnet.cidr = *IpPrefix::parse("10.0.0.0/24");
    subnet.vpc_id = "vpc-1";
    state_.subnets[subnet.id] = subnet;
    subnet.id = "subnet-2";
    subnet.cidr = *IpPrefix::parse("10.0.1.0/24");
    state_.subnets[subnet.id] = subnet;
    subnet.id = "subnet-3";
    subnet.cidr = *IpPrefix::parse("10.9.0.0/24");
    subnet.vpc_id = "vpc-2";
    state_.subnets[subnet.id] = subnet;
  }

  config::FlowLog& log(const std::string& format = std::string(config::kDefaultFlowLogFormat), std::uint32_t interval_s = 60) {
    config::FlowLog log;
    log.id = "fl-" + std::to_string(config_.flow_logs.size() + 1);
    log.max_aggregation_interval_s = interval_s;
    log.format = config::parse_flow_log_format(format).value();
    return config_.flow_logs.emplace_back(log);
  }
  void start(std::int64_t unix_s) {
    unix_ms_ = unix_s * 1000;
    FlowLogsOptions options;
    options.unix_ms = [this] { return unix_ms_; };
    options.note = [this](const std::string& note) { notes_.push_back(note); };
    options.make_sink = [this](const config::FlowLog&) {
      auto sink = std::make_unique<test::KeptLines>();
      sinks_.push_back(sink.get());
      return sink;
    };
    logs_ = std::make_unique<FlowLogs>(config_, this, now_, options);
  }
  static config::Attachment eni(const std::string& id, const std::string& address, const std::string& subnet = "subnet-1") {
    config::Attachment attachment;
    attachment.eni_id = id;
    attachment.addresses = {IpAddress::parse(address).value()};
    attachment.subnet_id = subnet;
    return attachment;
  }
  void came(const config::Attachment& attachment, std::uint16_t id = 0, std::uint16_t generation = 1) {
    logs_->endpoint_came(attachment, {id}, generation, state_);
  }
  void add(const RecordOf& record) { logs_->add(record.make()); }

  // A worker that answers at once, unless a test holds it back.
  void end_interval(std::uint32_t number) override { asked_ = number; }
  bool has_ended(std::uint32_t number) override { return answers_ && number == asked_; }
  bool drain(FlowLogs& logs) override {
    for (const FlowRecord& record : ring_) logs.add(record);
    ring_.clear();
    return true;
  }

  void pass(Tick ticks) {
    for (Tick i = 0; i < ticks; ++i) {
      ++now_;
      unix_ms_ += 100;
      logs_->tick(now_);
    }
  }
  // The interval ends, and what it left is written.
  std::string lines(std::size_t of_log = 0) {
    logs_->flush();
    pass(2);
    return sinks_[of_log]->take();
  }
  Tick at(std::int64_t unix_s) const { return now_ + static_cast<Tick>((unix_s * 1000 - unix_ms_) / 100); }

  config::EngineConfig config_;
  config::DesiredState state_;
  std::vector<test::KeptLines*> sinks_;
  std::unique_ptr<FlowLogs> logs_;
  std::vector<std::string> notes_;
  std::int64_t unix_ms_ = 0;
  Tick now_ = 5;
  std::uint32_t asked_ = 0;
  bool answers_ = true;
  std::deque<FlowRecord> ring_;
};

// --- the lines of the contract ---------------------------------------------------------------------------------------

TEST_F(FlowLogTest, AcceptedAndRejectedInTheDefaultFormat) {
  log();
  start(1418530000);
  came(eni("eni-1235b8ca123456789", "172.31.16.21"));
  add({.remote = "172.31.16.139", .local = "172.31.16.21", .remote_port = 20641, .local_port = 22,
       .in = way(20, 4249, at(1418530010), at(1418530070), 2)});
  EXPECT_EQ(lines(), "2 123456789010 eni-1235b8ca123456789 172.31.16.139 172.31.16.21 20641 22 6 20 4249 1418530010 1418530070 ACCEPT OK\n");
  came(eni("eni-1235b8ca123456789", "172.31.9.12"));
  add({.remote = "172.31.9.69", .local = "172.31.9.12", .remote_port = 49761, .local_port = 3389,
       .in = way(20, 4249, at(1418530010), at(1418530070), 2), .action = FlowAction::reject});
  EXPECT_EQ(lines(), "2 123456789010 eni-1235b8ca123456789 172.31.9.69 172.31.9.12 49761 3389 6 20 4249 1418530010 1418530070 REJECT OK\n");
}

TEST_F(FlowLogTest, NoDataAndSkipData) {
  log(std::string(config::kDefaultFlowLogFormat), 600);
  start(1431280876);
  came(eni("eni-1235b8ca123456789", "10.0.0.1"), 0);
  came(eni("eni-11111111aaaaaaaaa", "10.0.0.2"), 1);
  pass(585);
  logs_->lost({1}, 3);
  EXPECT_EQ(lines(),
            "2 123456789010 eni-1235b8ca123456789 - - - - - - - 1431280876 1431280934 - NODATA\n"
            "2 123456789010 eni-11111111aaaaaaaaa - - - - - - - 1431280876 1431280934 - SKIPDATA\n");
  EXPECT_EQ(logs_->counters().records_lost, 3U);
  const std::string next = lines();
  EXPECT_EQ(next.find("SKIPDATA"), std::string::npos) << "the loss was told";
}

TEST_F(FlowLogTest, PingWhoseAnswersTheNetworkAclRefuses) {
  log();
  start(1432917020);
  came(eni("eni-1235b8ca123456789", "172.31.16.139"));
  // The identifier and the direction of the question are in the key's ports; the log shows none.
  const RecordOf echo{.remote = "203.0.113.12", .local = "172.31.16.139", .remote_port = 8, .local_port = 4711, .protocol = test::kIcmp};
  RecordOf asked = echo, answered = echo;
  asked.in = way(4, 336, at(1432917027), at(1432917142));
  answered.out = way(4, 336, at(1432917094), at(1432917142));
  answered.action = FlowAction::reject;
  add(asked);
  add(answered);
  EXPECT_EQ(lines(),
            "2 123456789010 eni-1235b8ca123456789 203.0.113.12 172.31.16.139 0 0 1 4 336 1432917027 1432917142 ACCEPT OK\n"
            "2 123456789010 eni-1235b8ca123456789 172.31.16.139 203.0.113.12 0 0 1 4 336 1432917094 1432917142 REJECT OK\n");
}

TEST_F(FlowLogTest, TheBlogsTaskInACustomFormat) {
  log("${version} ${interface-id} ${srcaddr} ${dstaddr} ${srcport} ${dstport} ${protocol} ${packets} ${bytes} ${start} ${end} ${action} ${tcp-flags} "
      "${flow-direction} ${traffic-path} ${ecs-task-id} ${log-status}");
  start(1700000000);
  config::Attachment attachment = eni("eni-b0aaa4b2", "10.0.0.35");
  attachment.task.task_arn = "arn:aws:ecs:us-west-2:123456789012:task/awsvpc-ecs-demo/f5aa0000000000000000000000000001";
  came(attachment);
  add({.in = way(6, 512, at(1700000000), at(1700000004), 3), .out = way(5, 1830, at(1700000000), at(1700000004), 19)});
  EXPECT_EQ(lines(),
            "7 eni-b0aaa4b2 10.0.1.20 10.0.0.35 40122 80 6 6 512 1700000000 1700000004 ACCEPT 3 ingress - f5aa0000000000000000000000000001 OK\n"
            "7 eni-b0aaa4b2 10.0.0.35 10.0.1.20 80 40122 6 5 1830 1700000000 1700000004 ACCEPT 19 egress 1 f5aa0000000000000000000000000001 OK\n");
}

TEST_F(FlowLogTest, Ipv6AddressesAreThePacketsOwn) {
  log("${srcaddr} ${dstaddr} ${type} ${version}");
  start(1700000000);
  config::Attachment attachment = eni("eni-1", "10.0.0.35");
  attachment.addresses.push_back(*IpAddress::parse("2001:db8:0:1::35"));
  came(attachment);
  add({.remote = "2001:db8:0:0:0:0:0:9", .local = "2001:db8:0:1::36", .in = way(1, 1, 5, 5)});
  EXPECT_EQ(lines(), "2001:db8::9 2001:db8:0:1::36 IPv6 3\n");
}

TEST_F(FlowLogTest, EveryField) {
  std::string format;
  for (const auto& field : config::kFlowLogFields) format += (format.empty() ? "${" : " ${") + std::string(field.name) + "}";
  log(format).outside_traffic_path = 8;
  start(1700000000);
  config::Attachment attachment = eni("eni-1", "10.0.0.35");
  attachment.addresses.push_back(*IpAddress::parse("10.0.0.36"));
  attachment.task.task_arn = "arn:aws:ecs:us-west-2:1:task/demo/f5aa";
  attachment.task.cluster_arn = "arn:aws:ecs:us-west-2:1:cluster/demo";
  attachment.task.container_instance_arn = "arn:aws:ecs:us-west-2:1:container-instance/demo/c0ff";
  attachment.task.task_definition_arn = "arn:aws:ecs:us-west-2:1:task-definition/web:3";
  attachment.task.group = "service:web";
  attachment.task.containers = {{.arn = "", .name = "", .runtime_id = "f5aa-1", .last_status = ""}, {.arn = "", .name = "", .runtime_id = "f5aa-2", .last_status = ""}};
  came(attachment);
  add({.remote = "198.51.100.7", .local = "10.0.0.36", .in = way(1, 60, at(1700000001), at(1700000001), 2), .out = way(1, 44, at(1700000001), at(1700000002), 18)});
  const std::string ecs =
      "arn:aws:ecs:us-west-2:1:cluster/demo demo arn:aws:ecs:us-west-2:1:container-instance/demo/c0ff c0ff f5aa-1 f5aa-2 web "
      "arn:aws:ecs:us-west-2:1:task-definition/web:3 arn:aws:ecs:us-west-2:1:task/demo/f5aa f5aa - - -\n";
  EXPECT_EQ(lines(),
            "10 123456789010 eni-1 198.51.100.7 10.0.0.35 40122 80 6 1 60 1700000001 1700000001 ACCEPT OK vpc-1 subnet-1 i-1 2 IPv4 198.51.100.7 10.0.0.36 "
            "us-west-2 usw2-az1 - - - - ingress - " + ecs +
            "10 123456789010 eni-1 10.0.0.35 198.51.100.7 80 40122 6 1 44 1700000001 1700000002 ACCEPT OK vpc-1 subnet-1 i-1 18 IPv4 10.0.0.36 198.51.100.7 "
            "us-west-2 usw2-az1 - - - - egress 8 " + ecs);
  pass(10);
  const std::string nothing = lines();
  EXPECT_EQ(nothing, "10 123456789010 eni-1 - - - - - - - 1700000000 1700000001 - NODATA vpc-1 subnet-1 i-1 - - - - us-west-2 usw2-az1 - - - - - - " + ecs);
}

TEST_F(FlowLogTest, WhatIsNotKnownIsADash) {
  config_.identity = {};
  log("${account-id} ${region} ${az-id} ${instance-id} ${vpc-id} ${ecs-cluster-name} ${ecs-service-name} ${ecs-second-container-id} ${traffic-path}");
  start(1700000000);
  config::Attachment attachment = eni("eni-1", "10.0.0.35", "subnet-unknown");
  attachment.task.cluster_arn = "arn:aws:ecs:r:1:cluster/demo";  // without a task it says nothing
  came(attachment);
  add({.out = way(1, 1, 5, 5)});
  EXPECT_EQ(lines(), "- - - - - - - - -\n");
  attachment.task.task_arn = "arn:aws:ecs:r:1:task/demo/1";
  attachment.task.group = "family:web";
  came(attachment);
  add({.out = way(1, 1, 5, 5)});
  EXPECT_EQ(lines(), "- - - - - demo - - -\n") << "facts that came later; a group that is no service";
}

TEST_F(FlowLogTest, TrafficPathKnowsTheVpcsRangesOnly) {
  log("${dstaddr} ${traffic-path}");
  config::Subnet subnet = state_.subnets.at("subnet-1");
  subnet.vpc_cidr = *IpPrefix::parse("10.0.0.0/20");
  state_.subnets.insert_or_assign("subnet-1", subnet);
  start(1700000000);
  came(eni("eni-1", "10.0.0.35"));
  for (const char* remote : {"10.0.0.9", "10.0.1.9", "10.0.15.9", "10.0.16.9", "10.9.0.9"}) add({.remote = remote, .out = way(1, 1, 5, 5)});
  EXPECT_EQ(lines(), "10.0.0.9 1\n10.0.1.9 1\n10.0.15.9 1\n10.0.16.9 -\n10.9.0.9 -\n");
}

TEST_F(FlowLogTest, TextFromOutsideCannotMakeALine) {
  log("${ecs-service-name} ${log-status}");
  start(1700000000);
  config::Attachment attachment = eni("eni-1", "10.0.0.35");
  attachment.task.task_arn = "t";
  attachment.task.group = "service:a b\n2 forged\x7f" + std::string(1000, 'x');
  came(attachment);
  add({.in = way(1, 1, 5, 5)});
  const std::string got = lines();
  EXPECT_TRUE(got.starts_with("a_b_2_forged_xxx")) << got;
  EXPECT_TRUE(got.ends_with("x OK\n"));
  EXPECT_EQ(std::count(got.begin(), got.end(), '\n'), 1);
  EXPECT_EQ(std::count(got.begin(), got.end(), ' '), 1);
  EXPECT_LT(got.size(), 600U);
}

// --- what is one line ------------------------------------------------------------------------------------------------

TEST_F(FlowLogTest, RecordsOfOneConversationAreAddedUp) {
  log("${srcaddr} ${packets} ${bytes} ${start} ${end} ${tcp-flags} ${action}");
  start(1700000000);
  came(eni("eni-1", "10.0.0.35"));
  add({.in = way(3, 300, at(1700000005), at(1700000009), 2), .out = way(1, 40, at(1700000005), at(1700000005), 18)});
  add({.in = way(2, 100, at(1700000002), at(1700000007), 1)});
  add({.in = way(1, 60, at(1700000003), at(1700000003), 2), .action = FlowAction::reject});
  EXPECT_EQ(lines(),
            "10.0.1.20 5 400 1700000002 1700000009 3 ACCEPT\n"
            "10.0.0.35 1 40 1700000005 1700000005 18 ACCEPT\n"
            "10.0.1.20 1 60 1700000003 1700000003 2 REJECT\n");
  add({.in = way(1, 1, at(1700000060), at(1700000060))});
  EXPECT_EQ(lines(), "10.0.1.20 1 1 1700000060 1700000060 0 ACCEPT\n") << "the interval before is over";
}

TEST_F(FlowLogTest, WhatDiffersIsALineOfItsOwn) {
  log("${interface-id} ${srcaddr} ${srcport} ${dstport} ${protocol}");
  start(1700000000);
  came(eni("eni-1", "10.0.0.35"), 0, 1);
  came(eni("eni-2", "10.0.0.36"), 1, 1);
  const RecordOf one{.in = way(1, 1, 5, 5)};
  RecordOf other = one;
  add(one);
  other = one, other.endpoint = 1, add(other);
  other = one, other.remote = "10.0.1.21", add(other);
  other = one, other.remote_port = 1, add(other);
  other = one, other.local_port = 81, add(other);
  other = one, other.protocol = test::kUdp, add(other);
  EXPECT_EQ(lines(),
            "eni-1 10.0.1.20 40122 80 6\neni-2 10.0.1.20 40122 80 6\neni-1 10.0.1.21 40122 80 6\neni-1 10.0.1.20 1 80 6\n"
            "eni-1 10.0.1.20 40122 81 6\neni-1 10.0.1.20 40122 80 17\n");
}

TEST_F(FlowLogTest, SecondaryAddressesAreToldApartOnlyWhereTheyAreShown) {
  log("${dstaddr} ${packets}");
  log("${dstaddr} ${pkt-dstaddr} ${packets}");
  start(1700000000);
  came(eni("eni-1", "10.0.0.35"));
  add({.local = "10.0.0.35", .in = way(1, 1, 5, 5)});
  add({.local = "10.0.0.36", .in = way(2, 1, 5, 5)});
  EXPECT_EQ(lines(0), "10.0.0.35 3\n");
  EXPECT_EQ(sinks_[1]->take(), "10.0.0.35 10.0.0.35 1\n10.0.0.35 10.0.0.36 2\n");
}

TEST_F(FlowLogTest, AcceptRejectAndAll) {
  log("${action}").traffic_type = config::FlowLogTraffic::accept;
  log("${action}").traffic_type = config::FlowLogTraffic::reject;
  log("${action}");
  log("${log-status}").traffic_type = config::FlowLogTraffic::reject;
  start(1700000000);
  came(eni("eni-1", "10.0.0.35"));
  add({.in = way(1, 1, 5, 5)});
  add({.in = way(1, 1, 5, 5), .action = FlowAction::reject});
  EXPECT_EQ(lines(0), "ACCEPT\n");
  EXPECT_EQ(sinks_[1]->take(), "REJECT\n");
  EXPECT_EQ(sinks_[2]->take(), "ACCEPT\nREJECT\n");
  sinks_[3]->take();
  add({.in = way(1, 1, 5, 5)});
  EXPECT_EQ(lines(3), "NODATA\n") << "nothing that this log captures";
}

TEST_F(FlowLogTest, OnlyTheResourcesThatAreNamed) {
  log("${interface-id}").eni_ids = {"eni-1"};
  log("${interface-id}").subnet_ids = {"subnet-2"};
  log("${interface-id}").vpc_ids = {"vpc-2"};
  config::FlowLog& two = log("${interface-id}");
  two.eni_ids = {"eni-1"}, two.vpc_ids = {"vpc-2"};
  start(1700000000);
  came(eni("eni-1", "10.0.0.35"), 0);
  came(eni("eni-2", "10.0.1.35", "subnet-2"), 1);
  came(eni("eni-3", "10.9.0.35", "subnet-3"), 2);
  for (std::uint16_t id = 0; id < 3; ++id) {
    RecordOf record{.in = way(1, 1, 5, 5)};
    record.endpoint = id;
    add(record);
  }
  logs_->lost({1}, 1);
  EXPECT_EQ(lines(0), "eni-1\n");
  EXPECT_EQ(sinks_[1]->take(), "eni-2\neni-2\n") << "its flow and its SKIPDATA";
  EXPECT_EQ(sinks_[2]->take(), "eni-3\n");
  EXPECT_EQ(sinks_[3]->take(), "eni-1\neni-3\n");
  EXPECT_EQ(logs_->logs()[0]->counters().records_lost, 0U);
}

// --- intervals -------------------------------------------------------------------------------------------------------

TEST_F(FlowLogTest, IntervalsEndAtWholeMinutesOfTheWallClock) {
  log("${start} ${end}");
  log("${start} ${end}", 600);
  start(1700000030);  // 30 s before a minute; 570 before ten: 1700000400 is the next
  came(eni("eni-1", "10.0.0.35"));
  pass(95);
  EXPECT_EQ(sinks_[0]->take(), "");
  pass(10);
  EXPECT_EQ(sinks_[0]->take(), "1700000030 1700000039\n") << "1700000040 is a whole minute";
  EXPECT_EQ(logs_->left_of(*logs_->logs()[1]) / kTicksPerSecond, 359U);
  pass(600);
  EXPECT_EQ(sinks_[0]->take(), "1700000040 1700000099\n");
  EXPECT_EQ(sinks_[1]->take(), "");
  pass(3000);
  EXPECT_EQ(sinks_[0]->kept.size(), 5U);
  EXPECT_EQ(sinks_[1]->take(), "1700000030 1700000399\n");
  EXPECT_EQ(sinks_[1]->finished_before, 1700000400 - 1700000400 % 300);
  pass(6000);
  EXPECT_EQ(sinks_[1]->take(), "1700000400 1700000999\n");
}

TEST_F(FlowLogTest, AnIntervalEndsWhenTheWorkersHaveToldAll) {
  log("${log-status}");
  start(1700000000);
  came(eni("eni-1", "10.0.0.35"));
  answers_ = false;
  logs_->flush();
  pass(10);
  EXPECT_EQ(sinks_[0]->take(), "");
  ring_.push_back(RecordOf{.in = way(1, 1, 5, 5)}.make());
  answers_ = true;
  pass(1);
  EXPECT_EQ(sinks_[0]->take(), "OK\n") << "what it told before it said that it has ended";
  EXPECT_TRUE(notes_.empty());
}

TEST_F(FlowLogTest, AWorkerThatIsStuckIsNotWaitedForForever) {
  log("${log-status}");
  start(1700000000);
  came(eni("eni-1", "10.0.0.35"));
  pass(1);
  answers_ = false;
  const std::uint32_t interval = logs_->flush();
  pass(FlowLogs::kPatience - 1);
  EXPECT_FALSE(logs_->is_written(interval));
  pass(1);
  EXPECT_TRUE(logs_->is_written(interval));
  EXPECT_EQ(sinks_[0]->take(), "NODATA\n");
  ASSERT_EQ(notes_.size(), 1U);
  EXPECT_NE(notes_[0].find("has not told its share"), std::string::npos);
}

TEST_F(FlowLogTest, WorkersThatGoOnTellingAreWaitedForLonger) {
  log("${log-status}", 600);
  start(1700000400);
  came(eni("eni-1", "10.0.0.35"));
  answers_ = false;
  const std::uint32_t interval = logs_->flush();
  for (Tick passed = 1; passed < FlowLogs::kLongest; ++passed) {
    ring_.push_back(RecordOf{.in = way(1, 1, 5, 5)}.make());
    pass(1);
    ASSERT_FALSE(logs_->is_written(interval)) << passed;
  }
  pass(1);
  EXPECT_TRUE(logs_->is_written(interval));
}

TEST_F(FlowLogTest, AFlushDuringAnotherIsOneOfItsOwn) {
  log("${packets}");
  start(1700000000);
  came(eni("eni-1", "10.0.0.35"));
  const std::uint32_t first = logs_->flush();
  add({.in = way(1, 1, 5, 5)});
  const std::uint32_t second = logs_->flush();
  EXPECT_EQ(second, first + 1);
  EXPECT_FALSE(logs_->is_written(first));
  pass(4);
  EXPECT_TRUE(logs_->is_written(second));
  EXPECT_FALSE(logs_->is_written(second + 1));
  EXPECT_EQ(sinks_[0]->take(), "1\n-\n");
  EXPECT_EQ(sinks_[0]->finished_before, INT64_MAX);
}

TEST_F(FlowLogTest, NoLineEndsBeforeItStartsWhateverTheClockDoes) {
  log("${start} ${end} ${log-status}");
  start(1700000000);
  came(eni("eni-1", "10.0.0.35"));
  std::mt19937 random(7);
  std::size_t count = 0;
  for (int round = 0; round < 60; ++round) {
    const Tick first = now_;
    pass(1 + random() % 700);
    if (round % 3 != 2) ring_.push_back(RecordOf{.in = way(1, 1, round % 4 == 0 ? now_ : first, round % 4 == 0 ? first : now_)}.make());
    unix_ms_ += static_cast<std::int64_t>(random() % 7200000) - 3600000;  // up to an hour either way
    pass(3);
    std::istringstream text(sinks_[0]->take());
    std::int64_t from = 0, to = 0;
    for (std::string status; text >> from >> to >> status; ++count) EXPECT_LE(from, to) << status;
  }
  EXPECT_GT(count, 30U);
}

TEST_F(FlowLogTest, AfterAClockStepTheNextIntervalIsRight) {
  log("${start} ${end}");
  start(1700000000);
  came(eni("eni-1", "10.0.0.35"));
  lines();
  unix_ms_ += 3600000;
  lines();  // the interval in which it was set
  add({.in = way(1, 1, now_, now_)});
  const std::string now = std::to_string(unix_ms_ / 1000);
  EXPECT_EQ(lines(), now + " " + now + "\n");
}

// --- ENIs that come and go -------------------------------------------------------------------------------------------

TEST_F(FlowLogTest, NoDataIsBoundedByTheEnisLife) {
  log("${interface-id} ${start} ${end}");
  start(1700000040);
  came(eni("eni-1", "10.0.0.35"));
  pass(100);
  came(eni("eni-2", "10.0.0.36"), 1);
  pass(100);
  logs_->endpoint_went({0}, 1);
  pass(405);
  EXPECT_EQ(sinks_[0]->take(), "eni-1 1700000040 1700000060\neni-2 1700000050 1700000099\n");
  pass(600);
  EXPECT_EQ(sinks_[0]->take(), "eni-2 1700000100 1700000159\n") << "one that went has no more intervals";
}

TEST_F(FlowLogTest, RecordsThatComeLateFindTheirEni) {
  log("${interface-id} ${log-status}");
  start(1700000040);
  came(eni("eni-old", "10.0.0.35"), 0, 1);
  logs_->endpoint_went({0}, 1);
  came(eni("eni-new", "10.0.0.35"), 0, 2);
  lines();
  RecordOf late{.in = way(1, 1, 5, 5)};
  add(late);  // of generation 1
  logs_->lost({0}, 1);
  EXPECT_EQ(lines(), "eni-old OK\neni-new SKIPDATA\n") << "what is lost is of the one that has the number now";
  pass(1900);
  sinks_[0]->take();
  add(late);
  EXPECT_EQ(lines(), "eni-new NODATA\n") << "forgotten by now";
}

// --- losses ----------------------------------------------------------------------------------------------------------

TEST_F(FlowLogTest, MoreConversationsThanThereIsRoomFor) {
  log("${srcport} ${packets} ${log-status}").max_flows = 2;
  start(1700000000);
  came(eni("eni-1", "10.0.0.35"));
  for (const std::uint16_t port : {1, 2, 3, 1}) add({.remote_port = port, .in = way(1, 10, 5, 5), .out = {}});
  EXPECT_EQ(lines(), "1 2 OK\n2 1 OK\n- - SKIPDATA\n") << "what is there goes on counting";
  EXPECT_EQ(logs_->counters().records_lost, 1U);
  EXPECT_EQ(logs_->counters().packets_lost, 1U);
  EXPECT_EQ(logs_->counters().bytes_lost, 10U);
  add({.remote_port = 3, .in = way(1, 10, 5, 5)});
  EXPECT_EQ(lines(), "3 1 OK\n");
}

TEST_F(FlowLogTest, WhatCannotBeWrittenIsTriedAgainAndThenGivenUp) {
  log("${packets} ${log-status}");
  start(1700000041);
  came(eni("eni-1", "10.0.0.35"), 0);
  came(eni("eni-2", "10.0.0.36"), 1);
  sinks_[0]->error = "cannot write /there: No space left on device";
  add({.in = way(4, 400, 5, 5), .out = way(3, 300, 5, 5)});
  pass(595);
  EXPECT_EQ(logs_->logs()[0]->trouble(), sinks_[0]->error);
  ASSERT_EQ(notes_.size(), 1U);
  EXPECT_EQ(notes_[0], "flow log fl-1: cannot write /there: No space left on device; tried again every second until the next interval ends");
  pass(400);
  EXPECT_EQ(logs_->counters().write_errors, 41U) << "once a second";
  EXPECT_EQ(notes_.size(), 1U) << "once a minute";
  EXPECT_EQ(logs_->counters().records_lost, 0U);
  pass(205);  // the next interval has ended
  EXPECT_EQ(logs_->counters().records_lost, 2U);
  EXPECT_EQ(logs_->counters().packets_lost, 7U);
  EXPECT_EQ(logs_->counters().bytes_lost, 700U);
  EXPECT_EQ(notes_.size(), 2U);
  EXPECT_NE(notes_[1].find("(60 errors since this was last said)"), std::string::npos) << notes_[1];
  pass(600);  // that SKIPDATA could not be written either
  sinks_[0]->error.clear();
  pass(15);
  EXPECT_EQ(sinks_[0]->take(), "- SKIPDATA\n- NODATA\n") << "one of them lost something";
  EXPECT_EQ(notes_.back(), "flow log fl-1 is written again");
  EXPECT_EQ(logs_->logs()[0]->trouble(), "");
  EXPECT_EQ(lines(), "- NODATA\n- NODATA\n");
}

TEST_F(FlowLogTest, AFlushThatCouldNotBeWrittenFinishesTheFilesLater) {
  log("${log-status}");
  start(1700000041);
  came(eni("eni-1", "10.0.0.35"));
  pass(1);
  sinks_[0]->error = "full";
  const std::uint32_t interval = logs_->flush();
  pass(2);
  EXPECT_FALSE(logs_->is_written(interval));
  EXPECT_EQ(sinks_[0]->finished_before, 0);
  pass(600);  // another interval has ended by itself
  sinks_[0]->error.clear();
  pass(15);
  EXPECT_TRUE(logs_->is_written(interval));
  EXPECT_EQ(sinks_[0]->finished_before, INT64_MAX);
}

TEST_F(FlowLogTest, ATickWritesAChunkAtMost) {
  log("${srcport}");
  start(1700000000);
  came(eni("eni-1", "10.0.0.35"));
  const std::size_t count = FlowLog::kLinesATick * 2 + 100;
  for (std::size_t i = 0; i < count; ++i) add({.remote_port = static_cast<std::uint16_t>(i + 1), .in = way(1, 1, 5, 5)});
  logs_->flush();
  pass(1);
  EXPECT_EQ(sinks_[0]->kept.size(), FlowLog::kLinesATick);
  pass(1);
  EXPECT_EQ(sinks_[0]->kept.size(), FlowLog::kLinesATick * 2);
  EXPECT_EQ(logs_->logs()[0]->lines_waiting(), 100U);
  pass(1);
  EXPECT_EQ(sinks_[0]->kept.size(), count);
}

// The packets and octets of the lines and those that are counted as lost are those of the records, whatever is full,
// whenever intervals end, and whoever comes and goes.
TEST_F(FlowLogTest, NothingIsCountedTwiceOrForgotten) {
  std::random_device entropy;
  const unsigned seed = entropy();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937 random(seed);
  const auto chance = [&](unsigned percent) { return random() % 100 < percent; };
  log("${interface-id} ${packets} ${bytes} ${start} ${end} ${action} ${log-status}").max_flows = 60;
  log("${interface-id} ${packets} ${bytes} ${start} ${end} ${action} ${log-status}", 600).max_flows = 400;
  start(1700000000);
  std::uint16_t generations[4] = {1, 1, 1, 1};
  for (std::uint16_t id = 0; id < 4; ++id) came(eni("eni-" + std::to_string(id), "10.0.0.3" + std::to_string(id)), id, 1);
  std::uint64_t packets = 0, octets = 0, records = 0;
  for (int step = 0; step < 3000; ++step) {
    for (unsigned n = random() % 30; n != 0; --n, ++records) {
      const auto id = static_cast<std::uint16_t>(random() % 4);
      RecordOf record{.endpoint = id, .generation = generations[id], .remote_port = static_cast<std::uint16_t>(random() % 90)};
      if (chance(10)) record.protocol = test::kIcmp;
      if (chance(20)) record.remote = "2001:db8::" + std::to_string(random() % 9), record.local = "2001:db8:1::1";
      if (chance(30)) record.action = FlowAction::reject;
      for (FlowRecord::Way* each : {&record.in, &record.out}) {
        if (chance(30)) continue;
        *each = way(1 + random() % 100, 1 + random() % 100000, now_ - random() % 3, now_);
        packets += each->packets;
        octets += each->bytes;
      }
      ring_.push_back(record.make());
    }
    for (test::KeptLines* sink : sinks_) {
      sink->error = chance(20) ? "full" : "";
      sink->room = chance(50) ? random() % 40 : SIZE_MAX;
    }
    if (chance(2)) {
      const auto id = static_cast<std::uint16_t>(random() % 4);
      pass(1);  // its records are here before it goes
      logs_->endpoint_went({id}, generations[id]);
      came(eni("eni-" + std::to_string(id), "10.0.0.35"), id, ++generations[id]);
    }
    if (chance(3)) logs_->flush();
    answers_ = !chance(10);
    pass(chance(50) ? 1 : random() % 200);
  }
  answers_ = true;
  for (int i = 0; i < 2; ++i) {
    for (test::KeptLines* sink : sinks_) sink->error.clear(), sink->room = SIZE_MAX;
    logs_->flush();
    pass(80);
  }
  for (std::size_t i = 0; i < sinks_.size(); ++i) {
    std::uint64_t written_packets = 0, written_octets = 0, lines_of_flows = 0, skipped = 0;
    for (const std::string& line : sinks_[i]->kept) {
      std::istringstream words(line);
      std::string interface, packets_text, octets_text, action, status;
      std::int64_t from = 0, to = 0;
      words >> interface >> packets_text >> octets_text >> from >> to >> action >> status;
      ASSERT_LE(from, to) << line;
      skipped += status == "SKIPDATA" ? 1 : 0;
      if (status != "OK") continue;
      ++lines_of_flows;
      written_packets += std::stoull(packets_text);
      written_octets += std::stoull(octets_text);
    }
    const FlowLogCounters counters = logs_->logs()[i]->counters();
    EXPECT_EQ(counters.records_written, lines_of_flows);
    EXPECT_EQ(counters.skipdata_written, skipped);
    EXPECT_EQ(written_packets + counters.packets_lost, packets) << records << " records";
    EXPECT_EQ(written_octets + counters.bytes_lost, octets);
    EXPECT_GT(counters.packets_lost, 0U) << "a test in which nothing is lost shows little";
    EXPECT_GT(written_packets, 0U);
    EXPECT_GT(skipped, 0U);
  }
}

}  // namespace
}  // namespace trunkline::control
