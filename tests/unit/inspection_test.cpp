// SPDX-License-Identifier: BSD-3-Clause
// What control asks a worker about connections: each filter beside what it must leave out, lists that are cut, flushes to the
// connection, and a worker that turns (a thread), or does not.
#include "dataplane/state/inspection.h"

#include <gtest/gtest.h>

#include <atomic>
#include <set>
#include <thread>

#include "control/inspector.h"
#include "tests/support/world.h"

namespace trunkline::test {
namespace {

constexpr std::uint8_t kSyn = 0x02, kSynAck = 0x12, kAck = 0x10;

class InspectionTest : public ::testing::Test {
 protected:
  InspectionTest() {
    config::SecurityGroup group;
    group.id = "sg-0000000a";
    group.ingress = {everything({"198.51.100.0/24", "203.0.113.0/24", "2001:db8::/32"})};
    group.egress = {everything({"198.51.100.0/24"})};
    World::Task task;
    task.name = "a", task.vlan = 101, task.mac = "0a:00:00:00:00:0a", task.addresses = {"10.0.0.10", "2001:db8:1::a"}, task.subnet6 = "2001:db8:1::/64";
    task.groups = {group};
    world.add(task);
    task.name = "b", task.vlan = 102, task.mac = "0a:00:00:00:00:0b", task.addresses = {"10.0.0.11"}, task.subnet6 = "";
    world.add(task);
  }

  Frame in(int vlan, const char* source, std::uint8_t protocol, const Frame& payload) {
    const bool a = vlan == 101, v4 = ip(source).is_v4();
    const IpAddress destination = ip(!a ? "10.0.0.11" : v4 ? "10.0.0.10" : "2001:db8:1::a");
    return ip_packet({mac(a ? "0a:00:00:00:00:0a" : "0a:00:00:00:00:0b"), mac("0a:00:00:00:00:01"), vlan}, ip(source), destination, protocol, payload);
  }
  void open_some() {
    world.from_trunk({in(101, "198.51.100.1", 6, tcp_segment(4000, 80, kSyn)), in(101, "198.51.100.2", 6, tcp_segment(4001, 443, kAck)),
                      in(101, "203.0.113.3", 17, udp_datagram(5000, 80)), in(101, "2001:db8::4", 6, tcp_segment(4002, 80, kSyn)),
                      in(101, "198.51.100.5", 1, icmp_message(8, 0, 80)), in(102, "198.51.100.1", 6, tcp_segment(4000, 80, kSyn))});
    ASSERT_EQ(world.worker.connections.size(), 6U);
  }

  // The worker's part, in pieces of `budget`.
  void serve(Inspection& request, std::uint32_t budget = 1000) {
    while (!request.step({world.worker.connections, world.worker.fragments, world.worker.asked, *world.view},
                         world.worker.now, budget)) {
    }
  }
  std::set<std::string> remotes(const FlowFilter& filter, std::uint32_t budget = 1000) {
    Inspection request(Inspection::Kind::list, filter, 64);
    serve(request, budget);
    EXPECT_EQ(request.matched(), request.found().size());
    EXPECT_FALSE(request.is_cut());
    std::set<std::string> result;
    for (const ConnectionRecord& record : request.found()) {
      const FlowKey& key = record.connection.key;
      const IpAddress remote = key.is_ipv6() ? record.addresses.remote : IpAddress::from_v4_bytes(&key.remote);
      EXPECT_TRUE(result.insert(std::to_string(key.endpoint().value) + "/" + remote.to_string()).second) << "seen twice";
    }
    return result;
  }

  World world;
};

using Remotes = std::set<std::string>;
const Remotes kAll{"0/198.51.100.1", "0/198.51.100.2", "0/203.0.113.3", "0/2001:db8::4", "0/198.51.100.5", "1/198.51.100.1"};

TEST_F(InspectionTest, EachFilterAndAllOfThemTogether) {
  open_some();
  FlowFilter filter;
  EXPECT_EQ(remotes(filter), kAll);
  EXPECT_EQ(remotes(filter, 1), kAll) << "an entry a turn";
  filter.endpoint = EndpointId{1};
  EXPECT_EQ(remotes(filter), (Remotes{"1/198.51.100.1"}));
  filter = {};
  filter.by_remote = true, filter.remote = *IpPrefix::parse("198.51.100.0/30");
  EXPECT_EQ(remotes(filter), (Remotes{"0/198.51.100.1", "0/198.51.100.2", "1/198.51.100.1"}));
  filter.remote = *IpPrefix::parse("2001:db8::/64");
  EXPECT_EQ(remotes(filter), (Remotes{"0/2001:db8::4"}));
  filter.remote = *IpPrefix::parse("0.0.0.0/0");
  EXPECT_EQ(remotes(filter).size(), 5U) << "no IPv6 address is in it";
  filter = {};
  filter.protocol = 17;
  EXPECT_EQ(remotes(filter), (Remotes{"0/203.0.113.3"}));
  filter = {};
  filter.port = 80;
  EXPECT_EQ(remotes(filter), (Remotes{"0/198.51.100.1", "0/203.0.113.3", "0/2001:db8::4", "1/198.51.100.1"})) << "an ICMP identifier is no port";
  filter.port = 4001;
  EXPECT_EQ(remotes(filter), (Remotes{"0/198.51.100.2"})) << "the other end's";
  filter = {};
  filter.states = FlowFilter::bit(ConnectionState::picked_up);
  EXPECT_EQ(remotes(filter), (Remotes{"0/198.51.100.2"}));
  filter.states = FlowFilter::bit(ConnectionState::closing);
  EXPECT_EQ(remotes(filter), Remotes{});
  filter = {};
  filter.endpoint = EndpointId{0}, filter.protocol = 6, filter.port = 80, filter.by_remote = true, filter.remote = *IpPrefix::parse("198.51.100.0/24");
  filter.states = FlowFilter::bit(ConnectionState::syn_sent);
  EXPECT_EQ(remotes(filter), (Remotes{"0/198.51.100.1"}));
}

TEST_F(InspectionTest, IdleAndDead) {
  open_some();
  world.pass(seconds(20));
  world.from_trunk({in(101, "198.51.100.2", 6, tcp_segment(4001, 443, kAck))});
  FlowFilter filter;
  filter.min_idle = seconds(20);
  EXPECT_EQ(remotes(filter).size(), 5U);
  filter.min_idle = seconds(20) + 1;
  EXPECT_EQ(remotes(filter).size(), 0U);
  world.pass(seconds(10));  // what was opening or asked is dead, though nobody has swept it
  EXPECT_EQ(remotes({}), (Remotes{"0/198.51.100.2"}));
  EXPECT_EQ(world.worker.connections.size(), 6U);
  world.generations[0] = 2;  // the ENI went, another has its number
  world.publish();
  EXPECT_EQ(remotes({}), Remotes{});
}

TEST_F(InspectionTest, AListThatIsCutSaysHowManyThereAre) {
  open_some();
  Inspection request(Inspection::Kind::list, {}, 4);
  serve(request, 2);
  EXPECT_EQ(request.found().size(), 4U);
  EXPECT_EQ(request.matched(), 6U);
  EXPECT_TRUE(request.is_cut());
}

TEST_F(InspectionTest, FlushTakesWhatMatchesAndNothingElse) {
  open_some();
  FlowFilter filter;
  filter.port = 80, filter.endpoint = EndpointId{0};
  Inspection request(Inspection::Kind::flush, filter, 0);
  serve(request, 1);
  EXPECT_EQ(request.matched(), 3U);
  EXPECT_FALSE(request.is_cut());
  EXPECT_EQ(remotes({}), (Remotes{"0/198.51.100.2", "0/198.51.100.5", "1/198.51.100.1"}));
  EXPECT_EQ(world.worker.connections.size(), 3U);
  EXPECT_EQ(world.worker.connections.size_of(*world.view->endpoints[0]), 2U);
  // The table is sound: what was flushed comes back as new.
  open_some();
}

TEST_F(InspectionTest, FindKnowsOneFlowOfEachFamily) {
  open_some();
  world.from_trunk({in(101, "198.51.100.1", 6, tcp_segment(4000, 80, kAck))});
  std::vector<Inspection::Flow> flows;
  world.worker.connections.for_each([&](const Connection& connection) {
    Inspection::Flow flow{connection.key, {}};
    if (connection.key.is_ipv6()) flow.addresses = world.worker.connections.addresses_of(connection), flow.key.remote = flow.key.local = 0;
    flows.push_back(flow);
  });
  Inspection::Flow other = flows[0];
  other.key.remote_port ^= 1;
  flows.push_back(other);
  Inspection request(flows);
  serve(request);
  EXPECT_EQ(request.found().size(), 6U);
  EXPECT_FALSE(request.is_cut());
  EXPECT_EQ(request.found()[0].connection.totals[0].packets, 2U);
  EXPECT_EQ(request.found()[3].addresses.remote, ip("2001:db8::4"));
}

// --- control's side --------------------------------------------------------------------------------------------------

// Workers whose tables are filled; a thread turns their boxes as their loops would.
class InspectorTest : public ::testing::Test {
 protected:
  InspectorTest() : published(2) {
    auto view = std::make_shared<View>();
    view->endpoints.resize(8);
    auto endpoint = std::make_shared<Endpoint>();
    endpoint->id = EndpointId{3}, endpoint->generation = 1;
    endpoint->derive();
    owner = endpoint->flow_owner;
    view->endpoints[3] = endpoint;
    current = view;
    for (WorkerNumber number = 0; number < 2; ++number) {
      owned.push_back(std::make_unique<Worker>(number, published, IdleSettings{}, 8, 4096, number + 1U));
      pointers.push_back(owned.back().get());
    }
    workers = std::make_unique<control::Workers>(pointers);
    inspector = std::make_unique<control::Inspector>(*workers, std::chrono::milliseconds(200));
  }
  ~InspectorTest() override { stop(); }

  void insert(WorkerNumber worker, std::uint16_t count) {
    ConnectionTable& table = owned[worker]->state.connections;
    for (std::uint16_t i = 0; i < count; ++i) {
      FlowKey key;
      key.remote_port = i, key.local_port = worker, key.owner = owner | FlowKey::protocol_bits(6);
      ASSERT_NE(table.insert(Connection::of(key), table.hash(key)).connection, nullptr);
    }
  }
  void turn(std::size_t number) {
    owned[number]->inspections.step(
        {owned[number]->state.connections, owned[number]->state.fragments, owned[number]->state.asked, *current}, 5,
        100);
  }
  void start(bool both = true) {
    thread = std::thread([this, both] {
      while (!stopping) {
        turn(0);
        if (both) turn(1);
        std::this_thread::yield();
      }
    });
  }
  void stop() {
    stopping = true;
    if (thread.joinable()) thread.join();
    stopping = false;
  }

  Published<View> published;
  std::shared_ptr<const View> current;
  std::uint32_t owner = 0;
  std::vector<std::unique_ptr<Worker>> owned;
  std::vector<Worker*> pointers;
  std::unique_ptr<control::Workers> workers;
  std::unique_ptr<control::Inspector> inspector;
  std::atomic<bool> stopping{false};
  std::thread thread;
};

TEST_F(InspectorTest, AsksAllWorkersAtOnce) {
  insert(0, 700), insert(1, 30);
  start();
  const auto all = inspector->list({}, 10000);
  ASSERT_TRUE(all) << all.error();
  EXPECT_EQ(all->matched, 730U);
  EXPECT_EQ(all->found.size(), 730U);
  EXPECT_EQ(std::ranges::count(all->found, 1, &control::Inspector::Found::worker), 30);
  EXPECT_EQ(all->now, 5U);
  EXPECT_FALSE(all->is_cut());
  const auto some = inspector->list({}, 100);
  ASSERT_TRUE(some);
  EXPECT_EQ(some->found.size(), 80U) << "fifty of one, all of the other";
  EXPECT_EQ(some->matched, 730U);
  EXPECT_TRUE(some->is_cut());
  FlowFilter filter;
  filter.protocol = 17;
  EXPECT_EQ(inspector->flush(filter), 0U);
  EXPECT_EQ(inspector->flush({}), 730U);
  EXPECT_EQ(inspector->list({}, 10)->matched, 0U);
  stop();
  EXPECT_EQ(workers->connections(), 0U);
}

TEST_F(InspectorTest, AWorkerThatDoesNotAnswerIsNamedAndItsRequestIsKept) {
  insert(0, 10), insert(1, 10);
  start(false);
  const auto answer = inspector->list({}, 100);
  ASSERT_FALSE(answer);
  EXPECT_NE(answer.error().find("worker 1 has not answered within 200 ms"), std::string::npos) << answer.error();
  // It still may read the request: nothing new is asked, of nobody.
  const auto again = inspector->flush({});
  ASSERT_FALSE(again);
  EXPECT_NE(again.error().find("worker 1 has not answered what was asked before"), std::string::npos) << again.error();
  stop();
  EXPECT_EQ(workers->connections(), 20U);
  // It wakes up, finds what nobody waits for any more, and all is as before.
  turn(1);
  EXPECT_TRUE(owned[1]->inspections.is_free());
  start();
  EXPECT_EQ(inspector->list({}, 100)->matched, 20U);
}

}  // namespace
}  // namespace trunkline::test
