// SPDX-License-Identifier: BSD-3-Clause
//
// Several workers without threads: each has its state, the test plays their turns. Endpoint "a" is worker 0's, "b" worker 1's.
#include "dataplane/state/handoff.h"

#include <gtest/gtest.h>

#include <array>
#include <random>
#include <thread>

#include "dataplane/pipeline.h"
#include "tests/support/edge_packets.h"
#include "tests/support/world.h"

namespace trunkline::test {
namespace {

constexpr std::uint8_t kSyn = 0x02, kAck = 0x10, kSynAck = 0x12;

TEST(SpscRing, HoldsItsCapacityAndKeepsOrder) {
  SpscRing<int> ring(4);
  for (int i = 0; i < 4; ++i) EXPECT_TRUE(ring.push(i));
  EXPECT_FALSE(ring.push(4));
  EXPECT_EQ(ring.ready(), 0U) << "nothing is there before flush()";
  EXPECT_TRUE(ring.flush());
  EXPECT_FALSE(ring.flush());
  ASSERT_EQ(ring.ready(), 4U);
  EXPECT_EQ(ring.front(2), 2);
  ring.drop(3);
  EXPECT_EQ(ring.front(), 3);
  EXPECT_EQ(ring.room(), 3U);
  EXPECT_TRUE(ring.push(5));
}

TEST(SpscRing, TwoThreads) {
  SpscRing<std::uint64_t> ring(64);
  constexpr std::uint64_t kCount = 300'000;
  std::thread writer([&] {
    for (std::uint64_t i = 0; i < kCount;) {
      if (ring.push(i)) ++i;
      ring.flush();
    }
  });
  std::uint64_t next = 0;
  while (next < kCount) {
    const std::uint32_t ready = ring.ready();
    for (std::uint32_t i = 0; i < ready; ++i) ASSERT_EQ(ring.front(i), next++);
    ring.drop(ready);
  }
  writer.join();
}

class HandoffTest : public ::testing::Test {
 protected:
  HandoffTest() {
    workers.push_back(std::make_unique<WorkerState>(8, 4096, 1, 0, &mesh));
    workers.push_back(std::make_unique<WorkerState>(8, 4096, 2, 1, &mesh));
    config::SecurityGroup group;
    group.id = "sg-0000000a";
    group.ingress = {rule(6, 80, 80, {"198.51.100.0/24", "10.0.0.0/24", "2001:db8::/32"})};
    group.egress = {everything()};
    for (const char* name : {"a", "b"}) {
      World::Task task;
      const bool first = std::string(name) == "a";
      task.name = name;
      task.vlan = first ? 101 : 102;
      task.mac = first ? "0a:00:00:00:00:0a" : "0a:00:00:00:00:0b";
      task.addresses = {first ? "10.0.0.10" : "10.0.0.11", first ? "2001:db8::a" : "2001:db8::b"};
      task.subnet6 = "2001:db8::/64";
      task.groups = {group};
      world.add(task);
    }
    place(0, 0, kNoWorker, true);
    place(1, 1, kNoWorker, true);
  }

  // A View in which endpoint `id` belongs to `owner`.
  void place(std::uint16_t id, WorkerNumber owner, WorkerNumber previous, bool served) {
    auto next = std::make_shared<View>(view ? *view : *world.view);
    auto endpoint = std::make_shared<Endpoint>(*next->endpoints[id]);
    endpoint->worker = owner;
    endpoint->served_by = served ? owner : kNoWorker;
    endpoint->previous_worker = previous;
    next->replace(endpoint);
    next->moving = previous != kNoWorker;
    ++next->generation;
    for (auto& worker : workers) worker->view = next.get();
    views.push_back(next);
    view = next;
  }

  void flush(WorkerState& worker) {
    worker.outbox.empty([&](PortSlot slot, const Outbox::Batch& batch) {
      Meter& meter = slot == kTrunkSlot ? worker.trunk_out : worker.meters[slot.value - 1U].ingress;
      meter.sent({batch.packets.size(), batch.bytes});
      sent[worker.number][slot.value] += static_cast<std::uint32_t>(batch.packets.size());
      for (rte_mbuf* packet : batch.packets) order.push_back(packet);
    });
    discarded += worker.outbox.discarded().size();
    worker.outbox.clear_discarded();
    for (WorkerNumber to = 0; to < 2; ++to) {
      if (to != worker.number) worker.handoff.to(to).records.flush(), worker.handoff.to(to).packets.flush();
    }
  }

  // What Worker::receive_handed does, packet by packet.
  void take(WorkerNumber number) {
    WorkerState& worker = *workers[number];
    std::vector<HandedPacket> handed;
    handed.reserve(Handoff::kMaxParked);
    worker.handoff.take_parked(handed);
    const WorkerNumber from = 1 - number;
    SharedRing<HandedPacket>& lane = worker.handoff.from(from).packets;
    const std::uint32_t ready = lane.ready();
    take_records(worker, from);
    for (std::uint32_t i = 0; i < ready; ++i) {
      const HandedPacket packet = lane.front(i);
      if (packet.kind == HandoffKind::ask) {
        EXPECT_TRUE(answer_question(packet, worker, from));
      } else {
        handed.push_back(packet);
      }
    }
    lane.drop(ready);
    for (const HandedPacket& packet : handed) {
      if (packet.kind == HandoffKind::deliver) {
        deliver(packet, worker);
        continue;
      }
      Burst burst;
      burst.add(packet.packet);
      if (packet.kind == HandoffKind::trunk) {
        process_handed_from_trunk(burst, worker);
      } else {
        process_known(burst, {&packet, 1}, worker);
      }
    }
    flush(worker);
  }

  void settle() {
    for (int i = 0; i < 6; ++i) take(static_cast<WorkerNumber>(i % 2));
  }

  void from_trunk(WorkerNumber at, const Frame& frame) {
    Burst burst;
    burst.add(world.mbufs.make(frame));
    process_from_trunk(burst, *workers[at]);
    flush(*workers[at]);
  }
  void from_task(WorkerNumber at, std::uint16_t id, const Frame& frame) {
    Burst burst;
    burst.add(world.mbufs.make(frame));
    process_from_task(burst, *workers[at], *view->endpoints[id]);
    flush(*workers[at]);
  }

  Frame towards(std::uint16_t id, std::uint16_t port, std::uint8_t flags, bool v6 = false) {
    const World::Task& task = world.tasks[id];
    return ip_packet({mac(task.mac), mac("0a:00:00:00:00:01"), task.vlan}, v6 ? ip("2001:db8:1::5") : ip("198.51.100.5"), ip(task.addresses[v6 ? 1 : 0]), 6,
                     tcp_segment(port, 80, flags));
  }
  Frame answer(std::uint16_t id, std::uint16_t port, std::uint8_t flags, bool v6 = false) {
    const World::Task& task = world.tasks[id];
    return ip_packet({mac("0a:00:00:00:00:01"), mac(task.mac)}, ip(task.addresses[v6 ? 1 : 0]), v6 ? ip("2001:db8:1::5") : ip("198.51.100.5"), 6,
                     tcp_segment(80, port, flags));
  }

  // Sums over the workers, of what closes only together.
  void expect_closed() {
    std::int64_t in = 0, out = 0;
    for (const auto& worker : workers) {
      in += MeterReading::of(worker->trunk_in).unaccounted();
      out += MeterReading::of(worker->trunk_out).unaccounted();
    }
    EXPECT_EQ(in, 0);
    EXPECT_EQ(out, 0);
    for (std::uint16_t id = 0; id < 2; ++id) {
      std::int64_t sum = 0;
      for (const auto& worker : workers) {
        sum += MeterReading::of(worker->meters[id].ingress).unaccounted() + MeterReading::of(worker->meters[id].egress).unaccounted();
      }
      EXPECT_EQ(sum, 0) << id;
    }
  }

  std::uint64_t drops(DropReason reason) {
    std::uint64_t sum = 0;
    for (const auto& worker : workers) {
      sum += worker->trunk_in.drops[static_cast<std::size_t>(reason)].read() + worker->trunk_out.drops[static_cast<std::size_t>(reason)].read();
      for (std::uint16_t id = 0; id < 2; ++id) {
        sum += worker->meters[id].ingress.drops[static_cast<std::size_t>(reason)].read() +
               worker->meters[id].egress.drops[static_cast<std::size_t>(reason)].read();
      }
    }
    return sum;
  }

  World world;
  HandoffMesh mesh{2};
  std::vector<std::unique_ptr<WorkerState>> workers;
  std::shared_ptr<const View> view;
  std::vector<std::shared_ptr<const View>> views;
  std::map<int, std::map<int, std::uint64_t>> sent;  // [worker][port slot]
  std::vector<rte_mbuf*> order;
  std::size_t discarded = 0;
};

TEST_F(HandoffTest, TrunkPacketsReachTheOwner) {
  from_trunk(0, towards(1, 1000, kSyn));
  EXPECT_TRUE(sent.empty()) << "worker 0 must not touch b's port";
  EXPECT_EQ(workers[0]->connections.size(), 0U);
  settle();
  EXPECT_EQ(sent[1][2], 1U);
  EXPECT_EQ(workers[1]->connections.size(), 1U);
  expect_closed();
}

TEST_F(HandoffTest, RefusedAtTheOwnerUnderItsName) {
  from_trunk(0, ip_packet({mac("0a:00:00:00:00:0b"), mac("0a:00:00:00:00:01"), 102}, ip("203.0.113.9"), ip("10.0.0.11"), 6, tcp_segment(9, 80, kSyn)));
  settle();
  EXPECT_EQ(drops(DropReason::security_group_ingress), 1U);
  EXPECT_EQ(discarded, 1U);
  expect_closed();
}

TEST_F(HandoffTest, BetweenTasksOfTwoWorkers) {
  from_task(0, 0, ip_packet({mac("0a:00:00:00:00:0b"), mac("0a:00:00:00:00:0a")}, ip("10.0.0.10"), ip("10.0.0.11"), 6, tcp_segment(5555, 80, kSyn)));
  EXPECT_EQ(workers[0]->connections.size(), 1U);
  settle();
  EXPECT_EQ(sent[1][2], 1U);
  EXPECT_EQ(workers[1]->connections.size(), 1U);
  from_task(1, 1, ip_packet({mac("0a:00:00:00:00:0a"), mac("0a:00:00:00:00:0b")}, ip("10.0.0.11"), ip("10.0.0.10"), 6, tcp_segment(80, 5555, kSynAck)));
  settle();
  EXPECT_EQ(sent[0][1], 1U);
  expect_closed();
}

// A full lane costs packets, by name, and none twice.
TEST_F(HandoffTest, AFullLaneDropsByName) {
  // Two ENIs: an eighth of the lane is each one's share, and six eighths may be borrowed.
  for (auto& worker : workers) worker->handoff.share_among(2);
  const int count = 896 + 10;
  for (int i = 0; i < count; ++i) from_trunk(0, towards(1, static_cast<std::uint16_t>(1000 + i), kSyn));
  EXPECT_EQ(drops(DropReason::handoff_full), 10U);
  EXPECT_EQ(discarded, 10U);
  settle();
  EXPECT_EQ(sent[1][2], 896U);
  expect_closed();
}

TEST_F(HandoffTest, EndpointGoneWhileItsPacketWasOnTheWay) {
  from_task(0, 0, ip_packet({mac("0a:00:00:00:00:0b"), mac("0a:00:00:00:00:0a")}, ip("10.0.0.10"), ip("10.0.0.11"), 6, tcp_segment(5555, 80, kSyn)));
  auto next = std::make_shared<View>(*view);
  next->endpoints[1] = nullptr;
  for (auto& worker : workers) worker->view = next.get();
  settle();
  EXPECT_EQ(drops(DropReason::no_policy), 1U);
  expect_closed();
}

// The number was given to another ENI meanwhile: what it never received it does not count as dropped.
TEST_F(HandoffTest, EndpointReplacedWhileItsPacketWasOnTheWay) {
  from_task(0, 0, ip_packet({mac("0a:00:00:00:00:0b"), mac("0a:00:00:00:00:0a")}, ip("10.0.0.10"), ip("10.0.0.11"), 6, tcp_segment(5555, 80, kSyn)));
  auto next = std::make_shared<View>(*view);
  auto another = std::make_shared<Endpoint>(*next->endpoints[1]);
  ++another->generation;
  another->derive();
  next->replace(another);
  const MeterReading start = MeterReading::sum_of(std::array{&workers[0]->meters[1].ingress, &workers[1]->meters[1].ingress});
  for (auto& worker : workers) worker->view = next.get();
  settle();
  const MeterReading now = MeterReading::sum_of(std::array{&workers[0]->meters[1].ingress, &workers[1]->meters[1].ingress});
  EXPECT_EQ(now.since(start).unaccounted(), 0);
  EXPECT_EQ(drops(DropReason::no_policy), 0U);
  EXPECT_EQ(discarded, 1U);
}

// A later fragment that waits goes along with its ENI, and its first one finds it there.
TEST_F(HandoffTest, HeldFragmentsMoveToo) {
  const Frame whole = tcp_segment(1000, 80, kSyn, 60);
  const auto piece = [&](std::size_t begin, std::size_t end, bool more) {
    Frame frame = ip_packet({mac("0a:00:00:00:00:0a"), mac("0a:00:00:00:00:01"), 101}, ip("198.51.100.9"), ip("10.0.0.10"), 6,
                            Frame(whole.begin() + static_cast<std::ptrdiff_t>(begin), whole.begin() + static_cast<std::ptrdiff_t>(end)), false);
    frame[18 + 6] = static_cast<std::uint8_t>(more ? 0x20 : 0);
    frame[18 + 7] = static_cast<std::uint8_t>(begin / 8);
    return frame;
  };
  from_trunk(0, piece(40, 80, false));
  EXPECT_EQ(workers[0]->fragments.size(), 1U);
  place(0, 1, 0, false);
  EXPECT_TRUE(sweep_fragments(*workers[0], FragmentTable::kCapacity));
  EXPECT_TRUE(workers[0]->fragments.empty());
  flush(*workers[0]);
  settle();
  EXPECT_EQ(workers[1]->handoff.parked().size(), 1U) << "nobody serves it yet";
  place(0, 1, 0, true);
  settle();
  EXPECT_EQ(workers[1]->fragments.size(), 1U);
  from_trunk(1, piece(0, 40, true));
  settle();
  EXPECT_EQ(sent[1][1], 2U);
  EXPECT_TRUE(workers[1]->fragments.empty());
  EXPECT_EQ(drops(DropReason::fragment_orphan) + drops(DropReason::handoff_full), 0U);
  expect_closed();
}

// A connection that worker 0 had goes on at worker 1: it is found by asking, in either direction and family, and nothing else is.
TEST_F(HandoffTest, MovedEndpointsConnectionsAreAskedFor) {
  for (const bool v6 : {false, true}) {
    from_trunk(0, towards(0, 1000, kSyn, v6));
    from_task(0, 0, answer(0, 1000, kSynAck, v6));
  }
  EXPECT_EQ(workers[0]->connections.size(), 2U);
  const auto before = sent;
  place(0, 1, 0, false);  // held
  from_trunk(0, towards(0, 1000, kAck));
  settle();
  EXPECT_EQ(sent, before) << "it waits";
  EXPECT_EQ(workers[1]->handoff.parked().size(), 1U);
  place(0, 1, 0, true);
  settle();
  EXPECT_EQ(sent[1][1], 1U);
  EXPECT_EQ(workers[1]->connections.size(), 1U);
  EXPECT_EQ(workers[0]->connections.size(), 1U) << "the IPv6 one is still there";
  // The answer of the IPv6 connection: egress asks as well.
  from_task(1, 0, answer(0, 1000, kAck, true));
  settle();
  EXPECT_EQ(sent[1][0] + sent[0][0], 3U);
  EXPECT_EQ(workers[0]->connections.size(), 0U);
  EXPECT_EQ(workers[1]->connections.size(), 2U);
  workers[1]->connections.for_each([](const Connection& connection) {
    // The initiator's ACK of the IPv4 one has passed at the new owner.
    EXPECT_EQ(connection.state, connection.key.is_ipv6() ? ConnectionState::syn_received : ConnectionState::established);
    // Each packet once: who is asked for a connection counts nothing.
    const bool v6 = connection.key.is_ipv6();
    EXPECT_EQ(connection.totals[0].packets, v6 ? 1U : 2U);
    EXPECT_EQ(connection.totals[1].packets, v6 ? 2U : 1U);
  });
  // A flow that nobody knows is judged by the rules, once: a stray ACK is picked up, a stranger's is refused.
  from_trunk(1, ip_packet({mac("0a:00:00:00:00:0a"), mac("0a:00:00:00:00:01"), 101}, ip("203.0.113.9"), ip("10.0.0.10"), 6, tcp_segment(9, 80, kAck)));
  settle();
  EXPECT_EQ(drops(DropReason::security_group_ingress), 1U);
  expect_closed();
}

// What the task asked of a service at its old worker is answered at the new one; and nobody else is let in.
TEST_F(HandoffTest, MovedEndpointsQuestionsAreAskedFor) {
  const auto query = [&](bool v6) {
    return ip_packet({mac("0a:00:00:00:00:01"), mac("0a:00:00:00:00:0a")}, ip(v6 ? "2001:db8::a" : "10.0.0.10"), ip(v6 ? "fd00:ec2::253" : "169.254.169.253"), 17, udp_datagram(4000, 53));
  };
  const auto told = [&](bool v6, std::uint16_t port) {
    return ip_packet({mac("0a:00:00:00:00:0a"), mac("0a:00:00:00:00:01"), 101}, ip(v6 ? "fd00:ec2::253" : "169.254.169.253"), ip(v6 ? "2001:db8::a" : "10.0.0.10"), 17, udp_datagram(53, port));
  };
  for (const bool v6 : {false, true}) from_task(0, 0, query(v6));
  place(0, 1, 0, false);  // held
  from_trunk(0, told(false, 4000));
  place(0, 1, 0, true);
  settle();
  EXPECT_EQ(sent[1][1], 1U);
  from_trunk(1, told(true, 4000));
  settle();
  EXPECT_EQ(sent[1][1], 2U);
  for (const bool v6 : {false, true}) from_trunk(1, told(v6, 4001));
  settle();
  EXPECT_EQ(drops(DropReason::security_group_ingress), 2U);
  // From now on the new worker knows.
  place(0, 1, kNoWorker, true);
  for (const bool v6 : {false, true}) from_trunk(1, told(v6, 4000));
  settle();
  EXPECT_EQ(sent[1][1], 4U);
  EXPECT_EQ(workers[0]->connections.size() + workers[1]->connections.size(), 0U);
  expect_closed();
}

// An advertisement to all untagged ENIs, of which each worker has one.
TEST_F(HandoffTest, WhatIsForAllReachesEveryWorkersEnis) {
  for (World::Task& task : world.tasks) task.vlan = 0;
  world.publish();
  view = nullptr;
  place(0, 0, kNoWorker, true);
  place(1, 1, kNoWorker, true);
  const Frame advertisement = icmp6_frame({mac("33:33:00:00:00:01"), mac("0a:00:00:00:00:01"), -1}, "fe80:ec2::1", "ff02::1", 134, Frame(12));
  for (const WorkerNumber at : {0, 1}) {
    from_trunk(at, advertisement);
    settle();
  }
  // There are no buffers for copies.
  EXPECT_EQ(sent[0][1], 1U);
  EXPECT_EQ(sent[1][2], 1U);
  EXPECT_EQ(drops(DropReason::no_buffer), 2U);
  for (auto& worker : workers) worker->buffers = &world.mbufs;
  for (const WorkerNumber at : {0, 1}) {
    from_trunk(at, advertisement);
    settle();
  }
  EXPECT_EQ(sent[0][1], 3U);
  EXPECT_EQ(sent[1][2], 3U);
  EXPECT_EQ(Mbufs::bytes_of(order.back()), advertisement);
  EXPECT_EQ(drops(DropReason::no_buffer), 2U);
  expect_closed();
}

TEST_F(HandoffTest, TheSweepSendsTheRest) {
  for (std::uint16_t port = 0; port < 200; ++port) from_trunk(0, towards(0, static_cast<std::uint16_t>(1000 + port), kSyn, port % 2 == 0));
  ASSERT_EQ(workers[0]->connections.size(), 200U);
  place(0, 1, 0, true);
  bool left_behind = false;
  int rounds = 0;
  while (workers[0]->connections.size() != 0 && rounds < 50) {
    rounds += sweep_moving(*workers[0], 64, left_behind);
    flush(*workers[0]);
    take_records(*workers[1], 0);
  }
  EXPECT_EQ(workers[0]->connections.size(), 0U);
  EXPECT_EQ(workers[1]->connections.size(), 200U);
  EXPECT_FALSE(left_behind);
}

// What does not fit stays and is said to have stayed.
TEST_F(HandoffTest, TheSweepLeavesWhatTheLaneDoesNotHold) {
  for (std::uint16_t port = 0; port < 300; ++port) from_trunk(0, towards(0, static_cast<std::uint16_t>(1000 + port), kSyn));
  place(0, 1, 0, true);
  bool left_behind = false;
  while (!sweep_moving(*workers[0], 64, left_behind)) {
  }
  EXPECT_TRUE(left_behind);
  EXPECT_EQ(workers[0]->connections.size(), 300U - 256U);
}

// Two workers with full rings and a question first in both: neither may wait for the other.
TEST_F(HandoffTest, AQuestionThatCannotBeAnsweredIsDroppedByName) {
  from_trunk(0, towards(0, 1000, kSyn));
  settle();
  place(0, 1, 0, true);
  from_trunk(1, towards(0, 1000, kAck));  // asks
  SharedRing<HandedPacket>& back = workers[0]->handoff.to(1).packets;
  std::uint32_t before = 0;
  // As many ENIs as there are places: one alone may have half of them.
  for (HandedPacket filler{nullptr, EndpointId{10}, 0, HandoffKind::deliver, Direction::ingress};
       back.push(filler, filler.endpoint); ++before)
    ++filler.endpoint.value;
  SharedRing<HandedPacket>& asked = workers[0]->handoff.from(1).packets;
  ASSERT_EQ(asked.ready(), 1U);
  ASSERT_EQ(asked.front().kind, HandoffKind::ask);
  EXPECT_TRUE(answer_question(asked.front(), *workers[0], 1));
  asked.drop(1);
  EXPECT_EQ(before, 1024U);
  EXPECT_EQ(workers[0]->outbox.discarded().size(), 1U);
  EXPECT_EQ(drops(DropReason::handoff_full), 1U);
  EXPECT_EQ(workers[0]->connections.size(), 1U) << "the connection stays for the next one that asks";
  expect_closed();
}

// Packets of one connection keep their order over a move, whoever receives them.
TEST_F(HandoffTest, OrderIsKept) {
  from_trunk(0, towards(0, 1000, kSyn));
  settle();
  order.clear();
  std::vector<rte_mbuf*> expected;
  const auto feed = [&](WorkerNumber at) {
    Burst burst;
    burst.add(world.mbufs.make(towards(0, 1000, kAck)));
    expected.push_back(burst.mbuf[0]);
    process_from_trunk(burst, *workers[at]);
    flush(*workers[at]);
  };
  feed(0);
  place(0, 1, 0, false);
  feed(0), feed(0);
  settle();
  feed(0);
  place(0, 1, 0, true);
  settle();
  feed(0), feed(0);
  settle();
  EXPECT_EQ(order, expected);
  expect_closed();
}

}  // namespace
}  // namespace trunkline::test
