// SPDX-License-Identifier: BSD-3-Clause
//
// The idle ladder with a card whose interrupts have to be armed (support/mock_nic.h): when they are, when not, and what becomes of a card that
// does not keep its word. The test plays the worker's turns; the ladder's clock is virtual, only a wait that nobody ends takes its 100 ms.
//
// Needs the EAL (no huge pages, no root).
#include "dataplane/idle_ladder.h"

#include <gtest/gtest.h>
#include <rte_cycles.h>
#include <rte_eal.h>
#include <rte_ethdev.h>
#include <rte_mbuf.h>

#include <array>
#include <chrono>

#include "dataplane/io/port.h"
#include "tests/support/mock_nic.h"
#include "tests/support/packets.h"

namespace trunkline::test {
namespace {

rte_mempool* pool = nullptr;

class Ladder : public ::testing::Test {
 protected:
  Ladder() : ladder_({.spin_us = 50, .sleep_us = 50, .block_after_ms = 10, .long_sleep_us = 100}) {
    auto opened = Port::open({.devargs = "net_mocknic0", .mtu = 1500, .queues = 2}, *pool);
    if (!opened) throw std::runtime_error(opened.error());
    port_ = std::move(*opened);
    for (std::uint16_t queue = 0; queue < 2; ++queue) descriptors_[queue] = nic().interrupt(queue);
    publish();
  }

  MockNic& nic() { return MockNic::of(port_->ethdev()); }
  void publish() {
    auto next = std::make_shared<View>();
    next->generation = ++generation_;
    next->trunk_queues = 2;
    next->ports.push_back({.slot = PortSlot{0}, .ethdev = port_->ethdev(), .is_trunk = true, .endpoint = {}, .wake = {descriptors_, true}});
    view_ = next;
  }

  // One turn of worker 1, which polls queue 1, and its wait. How many frames it took.
  std::uint16_t turn() {
    rte_mbuf* packets[32];
    const std::uint16_t count = rte_eth_rx_burst(port_->ethdev(), 1, packets, 32);
    rte_pktmbuf_free_bulk(packets, count);
    if (count != 0) {
      ladder_.busy(*view_);
    } else {
      now_ += rte_get_tsc_hz() / 50;
      ladder_.next(now_, *view_, 1);
      const auto began = std::chrono::steady_clock::now();
      ladder_.wait([] { return false; });
      waited_ = std::chrono::steady_clock::now() - began;
    }
    return count;
  }
  // A quiet worker: from its last frame to the turn before it blocks.
  void become_quiet() {
    EXPECT_EQ(turn(), 0U);  // the first after a frame spins, whatever the clock says
    EXPECT_EQ(ladder_.rung(), IdleRung::spinning);
    EXPECT_EQ(turn(), 0U);
  }
  // To the wire's queue 1: a rule says so.
  void come() {
    Frame frame(60, 0);
    frame[5] = 1;
    ASSERT_TRUE(nic().receive(frame));
  }
  void SetUp() override {
    rte_flow_attr attributes{};
    attributes.ingress = 1;
    rte_flow_item_eth mac{}, mask{};
    mac.dst.addr_bytes[5] = 1;
    std::fill(std::begin(mask.dst.addr_bytes), std::end(mask.dst.addr_bytes), 0xff);
    rte_flow_item items[] = {{RTE_FLOW_ITEM_TYPE_ETH, &mac, nullptr, &mask}, {RTE_FLOW_ITEM_TYPE_END, nullptr, nullptr, nullptr}};
    rte_flow_action_queue queue{1};
    rte_flow_action actions[] = {{RTE_FLOW_ACTION_TYPE_QUEUE, &queue}, {RTE_FLOW_ACTION_TYPE_END, nullptr}};
    rte_flow_error error;
    ASSERT_NE(rte_flow_create(port_->ethdev(), &attributes, items, actions, &error), nullptr) << (error.message != nullptr ? error.message : "");
  }

  std::unique_ptr<Port> port_;
  std::array<int, 2> descriptors_{};
  std::shared_ptr<const View> view_;
  std::uint64_t generation_ = 0, now_ = rte_get_tsc_hz();
  IdleLadder ladder_;
  std::chrono::steady_clock::duration waited_{};
};

TEST_F(Ladder, ArmsThenLooksAgainThenBlocks) {
  become_quiet();
  EXPECT_EQ(ladder_.rung(), IdleRung::sleeping);
  EXPECT_TRUE(nic().is_armed(1));
  EXPECT_FALSE(nic().is_armed(0)) << "the other worker's";
  // What came in between is found by the turn before it blocks.
  come();
  EXPECT_EQ(turn(), 1U);
  EXPECT_FALSE(nic().is_armed(1));
  EXPECT_EQ(ladder_.rung(), IdleRung::busy);

  become_quiet();
  EXPECT_EQ(turn(), 0U);
  EXPECT_EQ(ladder_.rung(), IdleRung::blocked);
  EXPECT_GE(waited_, std::chrono::milliseconds(90)) << "nobody has anything";
}

TEST_F(Ladder, WhatIsAnnouncedEndsTheWait) {
  for (int round = 0; round < 5; ++round) {
    become_quiet();
    // A frame that comes after the last look: it is announced, and there for the next turn.
    const std::uint64_t one = 1;
    ASSERT_EQ(write(nic().interrupt(1), &one, sizeof one), 8);
    EXPECT_EQ(turn(), 0U);
    EXPECT_EQ(ladder_.rung(), IdleRung::blocked);
    EXPECT_LT(waited_, std::chrono::milliseconds(90));
    come();
    EXPECT_EQ(turn(), 1U);
    EXPECT_FALSE(nic().is_armed(1));
  }
}

TEST_F(Ladder, WhoCannotBeArmedIsLookedAt) {
  nic().faults.refuses_interrupts = true;
  become_quiet();
  EXPECT_EQ(turn(), 0U);
  EXPECT_EQ(ladder_.rung(), IdleRung::sleeping_long);
}

TEST_F(Ladder, ThreeFramesThatNobodyAnnounced) {
  nic().faults.announces_nothing = true;
  const auto lose_one = [&] {
    become_quiet();
    EXPECT_EQ(turn(), 0U);
    EXPECT_EQ(ladder_.rung(), IdleRung::blocked);
    come();
    EXPECT_EQ(turn(), 1U);
  };
  lose_one(), lose_one();
  // One that is announced in between makes it good.
  become_quiet();
  const std::uint64_t one = 1;
  ASSERT_EQ(write(nic().interrupt(1), &one, sizeof one), 8);
  EXPECT_EQ(turn(), 0U);
  come();
  EXPECT_EQ(turn(), 1U);
  lose_one(), lose_one(), lose_one();
  become_quiet();
  EXPECT_EQ(turn(), 0U);
  EXPECT_EQ(ladder_.rung(), IdleRung::sleeping_long);
  EXPECT_FALSE(nic().is_armed(1));
}

TEST_F(Ladder, PortsOfAnOlderViewAreLeftAlone) {
  become_quiet();
  EXPECT_TRUE(nic().is_armed(1));
  publish();
  ladder_.busy(*view_);
  EXPECT_TRUE(nic().is_armed(1)) << "the port might be gone";
  become_quiet();
  EXPECT_EQ(turn(), 0U);
  EXPECT_EQ(ladder_.rung(), IdleRung::blocked);
}

}  // namespace
}  // namespace trunkline::test

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  char name[] = "idle_ladder_test", no_huge[] = "--no-huge", memory[] = "-m", megabytes[] = "64", no_pci[] = "--no-pci", in_memory[] = "--no-shconf",
       telemetry[] = "--no-telemetry", level[] = "--log-level=4";
  char* eal[] = {name, no_huge, memory, megabytes, no_pci, in_memory, telemetry, level};
  if (rte_eal_init(std::size(eal), eal) < 0) return 1;
  trunkline::test::pool = rte_pktmbuf_pool_create("packets", 8191, 0, 0, 2176, 0);
  if (trunkline::test::pool == nullptr) return 1;
  const int result = RUN_ALL_TESTS();
  rte_eal_cleanup();
  return result;
}
