// SPDX-License-Identifier: BSD-3-Clause
//
// What waits to be cut: in order by ENI, bounded by ENI, and fair between them.
#include "dataplane/state/backlog.h"

#include <gtest/gtest.h>

#include <deque>
#include <iostream>
#include <map>
#include <random>
#include <vector>

namespace trunkline {
namespace {

constexpr EndpointId eni(std::uint16_t number) { return {number}; }

class BacklogTest : public testing::Test {
 protected:
  rte_mbuf* packet(std::uint16_t buffers = 1) {
    mbufs.emplace_back();
    mbufs.back().nb_segs = buffers;
    return &mbufs.back();
  }
  bool push(EndpointId id, rte_mbuf* mbuf) { return backlog.push(id, mbuf, 0, PortSlot{0}, 0); }

  std::deque<rte_mbuf> mbufs;
  Backlog backlog;
};

TEST_F(BacklogTest, KeepsTheOrderOfAnEni) {
  rte_mbuf *first = packet(), *second = packet(), *other = packet();
  ASSERT_TRUE(push(eni(1), first));
  ASSERT_TRUE(push(eni(2), other));
  ASSERT_TRUE(push(eni(1), second));
  EXPECT_EQ(backlog.owners(), 2U);
  EXPECT_EQ(backlog.pop(eni(1)), first);
  EXPECT_EQ(backlog.pop(eni(1)), second);
  EXPECT_FALSE(backlog.holds(eni(1)));
  EXPECT_TRUE(backlog.holds(eni(2)));
  EXPECT_EQ(backlog.pop(eni(2)), other);
  EXPECT_TRUE(backlog.is_empty());
  EXPECT_FALSE(push(EndpointId{}, first)) << "nobody's packets do not wait";
  EXPECT_FALSE(backlog.holds(EndpointId{}));
}

TEST_F(BacklogTest, ANeighbourFindsPlaceBesideMany) {
  for (std::uint16_t greedy = 1; greedy <= 40; ++greedy) {
    while (push(eni(greedy), packet(31))) {
    }
  }
  for (std::uint16_t modest = 41; modest < FlowKey::kMaxEndpoints; ++modest)
    ASSERT_TRUE(push(eni(modest), packet(31))) << modest;
  EXPECT_FALSE(push(eni(100), packet())) << "its second one would be borrowed";
}

TEST_F(BacklogTest, OneHasSoManyPackets) {
  for (std::uint32_t i = 0; i < Backlog::kMostOfOne; ++i) ASSERT_TRUE(push(eni(1), packet()));
  EXPECT_FALSE(push(eni(1), packet()));
  EXPECT_TRUE(push(eni(2), packet()));
}

TEST_F(BacklogTest, AgainstPlainQueues) {
  const std::uint64_t seed = std::random_device{}();
  std::cout << "seed " << seed << '\n';
  std::mt19937_64 random(seed);
  std::map<std::uint16_t, std::deque<rte_mbuf*>> model;
  std::uint32_t all_buffers = 0, all_packets = 0;
  std::vector<rte_mbuf*> free;
  for (int i = 0; i < 4000; ++i) free.push_back(packet());
  for (int step = 0; step < 200'000; ++step) {
    const auto id = static_cast<std::uint16_t>(random() % 60);
    if (random() % 5 < 3 && !free.empty()) {
      rte_mbuf* const mbuf = free.back();
      mbuf->nb_segs = static_cast<std::uint16_t>(1 + random() % 40);
      const bool fits =
          model[id].empty() || (model[id].size() < Backlog::kMostOfOne && all_packets < Backlog::kPlaces / 2 &&
                                all_buffers + mbuf->nb_segs <= Backlog::kBuffers);
      ASSERT_EQ(push(eni(id), mbuf), fits) << step;
      if (!fits) continue;
      free.pop_back();
      model[id].push_back(mbuf);
      all_buffers += mbuf->nb_segs, ++all_packets;
    } else if (!backlog.is_empty()) {
      const EndpointId owner = backlog.next_owner();
      auto& queue = model[owner.value];
      ASSERT_FALSE(queue.empty()) << step;
      ASSERT_EQ(backlog.front(owner).packet, queue.front()) << step;
      rte_mbuf* const mbuf = backlog.pop(owner);
      ASSERT_EQ(mbuf, queue.front());
      queue.pop_front();
      all_buffers -= mbuf->nb_segs, --all_packets;
      free.push_back(mbuf);
    }
    ASSERT_EQ(backlog.is_empty(), all_packets == 0);
  }
}

}  // namespace
}  // namespace trunkline
