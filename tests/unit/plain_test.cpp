// SPDX-License-Identifier: BSD-3-Clause
//
// The stages' short way for plain packets (Burst::plain) against their long way: two equal worlds get the same random packets, one of them with
// no packet plain. Frames, what ports are asked to do, every counter and every connection must be the same.
#include <gtest/gtest.h>

#include <cstring>
#include <random>

#include "tests/support/world.h"

namespace trunkline::test {
namespace {

constexpr const char* kMacs[] = {"0a:00:00:00:00:0a", "0a:00:00:00:00:0b", "0a:00:00:00:00:0c"};
constexpr std::uint16_t kVlans[] = {101, 102, 0};
constexpr const char* kOwn[] = {"10.0.0.10", "10.0.0.11", "10.0.0.12"};

struct Twin {
  // `limited`: the first endpoint has rate limits, and nothing is counted before they were asked.
  explicit Twin(bool limited) : world(512) {
    world.driver = [](rte_mbuf& packet) {
      packet.hash.rss = 0x12345678, packet.packet_type = 0x111, packet.port = 7, packet.vlan_tci = 99;
      packet.ol_flags |= RTE_MBUF_F_RX_RSS_HASH;
    };
    for (std::size_t i = 0; i < 3; ++i) {
      config::SecurityGroup group;
      group.id = "sg-" + std::to_string(i);
      group.ingress = {rule(6, 80, 80, {"0.0.0.0/0"}), rule(17, 53, 2000, {"198.51.100.0/24"})};
      group.egress = {everything()};
      world.add({std::string(1, static_cast<char>('a' + i)), kVlans[i], kMacs[i], {kOwn[i], "10.0.0.2" + std::to_string(i)}, "10.0.0.0/24", "", {group}, static_cast<std::uint16_t>(i == 1 ? 200 : 9001), true, 0xffffffff,
                 limited && i == 0 ? RateLimits{{40'000, 40'000}, {300, 300}} : RateLimits{}});
    }
  }

  // The pipeline's stages in their order (pipeline.h).
  World::Output send(std::size_t task, bool from_task, const Frame& frame, std::size_t segment, bool may_be_plain) {
    Burst burst, local;
    burst.add(arrived(frame, segment));
    const Direction direction = from_task ? Direction::egress : Direction::ingress;
    parse(burst, direction);
    was_plain = burst.plain != 0;
    if (!may_be_plain) burst.plain = 0;
    from_task ? demux_from_task(burst, world.worker, *world.view->endpoints[task]) : demux_from_trunk(burst, world.worker);
    from_task ? edge_from_task(burst, world.worker) : edge_from_trunk(burst, world.worker);
    rest(burst, local, direction);
    if (local.size != 0) {
      Burst none;
      rest(local, none, Direction::ingress);
    }
    return world.collect();
  }

  void rest(Burst& burst, Burst& local, Direction direction) {
    fragments(burst, world.worker, direction);
    services(burst, world.worker, direction);
    track(burst, world.worker, direction);
    admit(burst, world.worker, direction);
    limit(burst, world.worker, direction);
    account(burst, world.worker, direction);
    direction == Direction::ingress ? forward_to_task(burst, world.worker) : forward_from_task(burst, world.worker, local);
  }

  rte_mbuf* arrived(const Frame& frame, std::size_t segment) {
    rte_mbuf* packet = world.mbufs.make(frame, segment);
    world.driver(*packet);
    return packet;
  }

  std::vector<std::string> connections() {
    std::vector<std::string> all;
    world.worker.connections.for_each([&](const Connection& connection) { all.emplace_back(reinterpret_cast<const char*>(&connection), sizeof connection); });
    return all;
  }

  World world;
  bool was_plain = false;
};

// What a port sees of a packet beside its bytes.
std::string asked(const World::Output& output) {
  std::string all;
  for (const rte_mbuf* packet : output.packets) {
    all += std::to_string(packet->ol_flags) + "," + std::to_string(packet->pkt_len) + "," + std::to_string(packet->data_len) + "," + std::to_string(packet->vlan_tci) + "," +
           std::to_string(packet->nb_segs) + "," + std::to_string(packet->refcnt) + "," + std::to_string(packet->port) + "," + std::to_string(packet->packet_type) + "," +
           std::to_string(packet->hash.rss) + ";";
  }
  return all;
}

class Plain : public ::testing::TestWithParam<bool> {};

TEST_P(Plain, TheShortWayDoesWhatTheLongOneDoes) {
  const unsigned seed = std::random_device{}();
  std::printf("seed %u\n", seed);
  std::mt19937 random(seed);
  Twin plain(GetParam()), full(GetParam());
  const auto one_of = [&](std::initializer_list<const char*> words) { return *(words.begin() + random() % words.size()); };
  unsigned taken = 0, forwarded = 0;
  for (int round = 0; round < 60'000; ++round) {
    const std::size_t task = random() % 3;
    const bool from_task = random() % 2 == 0;
    const bool usual = random() % 2 == 0;
    const char* own = usual ? kOwn[task] : one_of({"10.0.0.10", "10.0.0.11", "10.0.0.12", "10.0.0.21", "10.0.0.77", "0.0.0.0"});
    const char* remote = usual ? "198.51.100.9" : one_of({"198.51.100.9", "10.0.0.10", "10.0.0.11", "10.0.0.1", "10.0.0.2", "169.254.169.253", "169.254.169.254", "169.1.2.3", "127.0.0.1", "224.0.0.5", "255.255.255.255", "0.0.0.0", "8.8.8.8"});
    const char* mac_text = usual ? kMacs[task] : one_of({kMacs[0], kMacs[1], kMacs[2], "ff:ff:ff:ff:ff:ff", "01:00:5e:00:00:05", "0a:00:00:00:00:0d"});
    const MacAddress own_mac = mac(mac_text), router = mac(usual ? "0a:00:00:00:00:01" : one_of({"0a:00:00:00:00:01", "ff:ff:ff:ff:ff:ff"}));
    const int vlan = from_task ? (random() % 32 == 0 ? 101 : -1) : (usual ? (kVlans[task] == 0 ? -1 : kVlans[task]) : static_cast<int>(random() % 4 == 0 ? 500 : 101 + random() % 2));
    const bool tcp = random() % 2 == 0;
    const auto local_port = static_cast<std::uint16_t>(random() % 4 == 0 ? 67 + random() % 2 : 80), remote_port = static_cast<std::uint16_t>(random() % 4 == 0 ? 67 + random() % 2 : 1000 + random() % 20);
    const std::uint16_t source_port = from_task ? local_port : remote_port, destination_port = from_task ? remote_port : local_port;
    static constexpr std::uint8_t flags[] = {0x02, 0x10, 0x12, 0x18, 0x11, 0x04, 0x03};
    const std::size_t data = random() % 8 == 0 ? random() % 300 : random() % 30;
    const Frame payload = tcp ? tcp_segment(source_port, destination_port, flags[random() % std::size(flags)], data) : udp_datagram(source_port, destination_port, data + 12);
    const Frame frame = ip_packet({from_task ? router : own_mac, from_task ? own_mac : router, vlan}, ip(from_task ? own : remote), ip(from_task ? remote : own), tcp ? 6 : 17, payload, random() % 16 == 0);
    const std::size_t segment = random() % 16 == 0 ? 60 + random() % 40 : SIZE_MAX;

    const World::Output short_way = plain.send(task, from_task, frame, segment, true);
    const World::Output long_way = full.send(task, from_task, frame, segment, false);
    taken += plain.was_plain, forwarded += plain.was_plain && !short_way.packets.empty();
    ASSERT_EQ(short_way.trunk, long_way.trunk);
    ASSERT_EQ(short_way.task, long_way.task);
    ASSERT_EQ(short_way.discarded, long_way.discarded);
    ASSERT_EQ(asked(short_way), asked(long_way));
    ASSERT_EQ(plain.world.movements(), full.world.movements());
    if (round % 64 == 0) {
      ASSERT_EQ(plain.connections(), full.connections());
      const auto ticks = static_cast<std::uint32_t>(random() % seconds(40));
      plain.world.pass(ticks), full.world.pass(ticks);
      while (!plain.world.worker.connections.sweep(64, plain.world.worker.now, *plain.world.view)) {
      }
      while (!full.world.worker.connections.sweep(64, full.world.worker.now, *full.world.view)) {
      }
    }
    if (round % 1000 == 0) plain.world.mbufs = {}, full.world.mbufs = {};
  }
  EXPECT_GT(taken, 30'000U);
  EXPECT_GT(forwarded, 10'000U);
}

INSTANTIATE_TEST_SUITE_P(WithoutAndWithLimits, Plain, ::testing::Bool());

// Short datagrams are not plain, and of the same flow as long ones.
TEST(PlainOrder, NothingOvertakes) {
  Twin twin(false);
  World& world = twin.world;
  const auto frames = [&](bool from_task, int vlan, const char* remote) {
    std::vector<Frame> result;
    const MacAddress own = mac(kMacs[0]), router = mac("0a:00:00:00:00:01");
    for (const std::size_t bytes : {40, 40, 2, 41, 3, 42, 43, 4}) {
      result.push_back(from_task ? ip_packet({router, own, -1}, ip(kOwn[0]), ip(remote), 17, udp_datagram(53, 1000, bytes))
                                 : ip_packet({own, router, vlan}, ip(remote), ip(kOwn[0]), 17, udp_datagram(1000, 53, bytes)));
    }
    return result;
  };
  const std::vector<Frame> in = frames(false, -1, "198.51.100.9");
  EXPECT_EQ(world.from_trunk(frames(false, 101, "198.51.100.9")).task.at("a"), in);
  const std::vector<Frame> out = frames(true, -1, "198.51.100.9");
  const std::vector<Frame> sent = world.from_task(0, out).trunk;
  ASSERT_EQ(sent.size(), out.size());
  for (std::size_t i = 0; i < out.size(); ++i) EXPECT_EQ(sent[i].size(), out[i].size() + 4) << i;

  // Some for a task of this host among them.
  world.movements();
  const MacAddress own = mac(kMacs[0]), router = mac("0a:00:00:00:00:01");
  std::vector<Frame> mixed;
  for (std::size_t i = 0; i < 12; ++i) {
    mixed.push_back(ip_packet({router, own, -1}, ip(kOwn[0]), ip(i % 4 == 2 ? kOwn[2] : "198.51.100.9"), 6, tcp_segment(5000, 80, 0x02, i)));
  }
  const World::Output both = world.from_task(0, mixed);
  ASSERT_EQ(both.trunk.size(), 9U);
  ASSERT_EQ(both.task.at("c").size(), 3U);
  for (std::size_t i = 0, trunk = 0, task = 0; i < 12; ++i) {
    if (i % 4 == 2) EXPECT_EQ(both.task.at("c")[task++].size(), mixed[i].size());
    else EXPECT_EQ(both.trunk[trunk++].size(), mixed[i].size() + 4);
  }
  EXPECT_EQ(world.movements(), (Movements{{"a.egress.rx", 12}, {"a.egress.tx", 12}, {"c.ingress.rx", 3}, {"c.ingress.tx", 3}, {"trunk.out.rx", 9}, {"trunk.out.tx", 9}}));
}

}  // namespace
}  // namespace trunkline::test
