// SPDX-License-Identifier: BSD-3-Clause
//
// The outbox against a map of lists: every port gets its packets, in their order, with their bytes, and the next turn begins with nothing.
#include "dataplane/state/outbox.h"

#include <gtest/gtest.h>

#include <map>
#include <random>
#include <vector>

namespace trunkline::test {
namespace {

struct Sent {
  std::vector<rte_mbuf*> packets;
  std::uint64_t bytes = 0;
  bool asks = false;
  bool operator==(const Sent&) const = default;
};

std::map<std::uint16_t, Sent> emptied(Outbox& outbox) {
  std::map<std::uint16_t, Sent> result;
  outbox.empty([&](PortSlot port, const Outbox::Batch& batch) {
    EXPECT_FALSE(result.contains(port.value)) << "a port is kicked once";
    result[port.value] = {{batch.packets.begin(), batch.packets.end()}, batch.bytes, batch.asks};
  });
  return result;
}

TEST(Outbox, EachPortGetsItsPacketsInOrder) {
  const unsigned seed = std::random_device{}();
  std::printf("seed %u\n", seed);
  std::mt19937 random(seed);
  constexpr std::uint16_t kPorts = 121;
  std::vector<rte_mbuf> packets(Outbox::kCapacity);
  const auto outbox = std::make_unique<Outbox>();
  for (int round = 0; round < 300; ++round) {
    std::map<std::uint16_t, Sent> expected;
    const std::size_t count = round % 50 == 0 ? Outbox::kCapacity : random() % 200;
    const unsigned ports = 1 + random() % (round % 3 == 0 ? 1 : kPorts);
    const auto some_port = [&] { return static_cast<std::uint16_t>(kPorts - 1 - random() % ports); };
    const auto next_packet = [&](std::size_t i, std::uint16_t port, bool may_ask) {
      rte_mbuf& packet = packets[i];
      packet.pkt_len = random() % 16 == 0 ? 65553 : 60 + random() % 1454;
      packet.ol_flags = may_ask && random() % 64 == 0 ? RTE_MBUF_F_TX_TCP_SEG : 0;
      Sent& sent = expected[port];
      sent.packets.push_back(&packet), sent.bytes += packet.pkt_len, sent.asks |= packet.ol_flags != 0;
      return &packet;
    };
    // One by one, in rows, and many at once for one port, in any order.
    for (std::size_t i = 0; i < count;) {
      const std::size_t end = std::min(count, i + random() % kMaxBurst);
      switch (random() % 3) {
        case 0: {
          for (; i < end; ++i) {
            const std::uint16_t port = some_port();
            outbox->send(PortSlot{port}, next_packet(i, port, true));
          }
          break;
        }
        case 1: {
          Outbox::Row row(*outbox);
          for (; i < end; ++i) {
            const std::uint16_t port = some_port();
            rte_mbuf* packet = next_packet(i, port, false);
            row.send(PortSlot{port}, packet, packet->pkt_len);
          }
          break;
        }
        default: {
          const std::uint16_t port = some_port();
          std::uint64_t bytes = 0;
          const std::size_t begin = i;
          for (; i < end; ++i) bytes += (outbox->room()[i - begin] = next_packet(i, port, false))->pkt_len;
          outbox->send_from_room(PortSlot{port}, static_cast<std::uint32_t>(end - begin), bytes);
        }
      }
    }
    EXPECT_EQ(outbox->is_empty(), count == 0);
    ASSERT_EQ(emptied(*outbox), expected);
    EXPECT_TRUE(outbox->is_empty());
  }
}

TEST(Outbox, SaysWhenAnotherBurstMayNotFit) {
  std::vector<rte_mbuf> packets(1);
  packets[0].pkt_len = 60, packets[0].ol_flags = 0;
  const auto outbox = std::make_unique<Outbox>();
  for (std::size_t i = 0; i < Outbox::kCapacity - Outbox::kRoom; ++i) outbox->send(PortSlot{static_cast<std::uint16_t>(i % 3)}, packets.data());
  EXPECT_FALSE(outbox->is_full());
  outbox->send(PortSlot{3}, packets.data());
  EXPECT_TRUE(outbox->is_full());
  emptied(*outbox);
  EXPECT_FALSE(outbox->is_full());
}

}  // namespace
}  // namespace trunkline::test
