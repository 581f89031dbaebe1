// SPDX-License-Identifier: BSD-3-Clause
// What is larger than a port takes: cut as RFC 791 says, counted, limited, or reported with as much of the packet as
// fits.
#include "dataplane/stages/fragment_ipv4.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <iostream>
#include <random>

#include "dataplane/stages/checksum.h"
#include "tests/support/world.h"

namespace trunkline::test {
namespace {

constexpr char kWebMac[] = "0a:47:e4:7a:2b:02", kAppMac[] = "0a:47:e4:7a:2b:03", kRouterMac[] = "0a:00:00:00:00:01";
constexpr std::size_t kIp = 14;  // where it begins in a frame for a task

World::Task task(std::string name, std::uint16_t vlan, std::string task_mac, std::vector<std::string> addresses,
                 std::uint16_t mtu) {
  World::Task result;
  result.name = std::move(name);
  result.vlan = vlan;
  result.mac = std::move(task_mac);
  result.addresses = std::move(addresses);
  result.subnet6 = "2001:db8::/64";
  result.mtu = mtu;
  config::SecurityGroup group;
  group.id = "sg-" + result.name;
  group.ingress = {everything()};
  group.egress = {everything()};
  result.groups = {group};
  return result;
}

std::uint16_t word(const Frame& frame, std::size_t at) {
  return static_cast<std::uint16_t>(frame[at] << 8 | frame[at + 1]);
}
void set_word(Frame& frame, std::size_t at, std::size_t value) {
  frame[at] = static_cast<std::uint8_t>(value >> 8), frame[at + 1] = static_cast<std::uint8_t>(value);
}
bool has_sound_checksum(const Frame& frame, std::size_t ip) {
  std::uint32_t sum = 0;
  for (std::size_t at = 0; at < (frame[ip] & 15U) * 4; at += 2) sum += word(frame, ip + at);
  while (sum >> 16 != 0) sum = (sum & 0xffff) + (sum >> 16);
  return sum == 0xffff;
}

class FragmentIpv4Test : public ::testing::Test {
 protected:
  void SetUp() override {
    world.flow_logs = true;
    world.add(task("web", 101, kWebMac, {"10.0.0.35", "2001:db8::35"}, 1500));
    world.add(task("app", 102, kAppMac, {"10.0.0.36"}, 9001));
  }
  // To web, with a good header checksum. `options` are a multiple of four bytes.
  static Frame packet(const Frame& payload, const Frame& options = {}, std::uint16_t place = 0,
                      std::uint8_t protocol = 17) {
    Frame frame =
        ip_packet({mac(kWebMac), mac(kRouterMac), 101}, ip("198.51.100.9"), ip("10.0.0.35"), protocol, payload, false);
    const std::size_t at = 18;
    frame.insert(frame.begin() + at + 20, options.begin(), options.end());
    frame[at] = static_cast<std::uint8_t>(0x45 + options.size() / 4);
    set_word(frame, at + 2, 20 + options.size() + payload.size());
    set_word(frame, at + 4, 4711);
    set_word(frame, at + 6, place);
    finish(frame, at);
    return frame;
  }
  static void finish(Frame& frame, std::size_t at) {
    set_word(frame, at + 10, 0);
    set_word(frame, at + 10, fold(sum16(&frame[at], (frame[at] & 15U) * 4)));
  }
  static Frame datagram(std::size_t bytes, std::mt19937_64* random = nullptr) {
    Frame result = udp_datagram(4000, 53, bytes - 8);
    for (std::size_t i = 8; i < result.size(); ++i)
      result[i] = static_cast<std::uint8_t>(random != nullptr ? (*random)() : i * 7 + i / 256);
    return result;
  }
  std::vector<Frame> to_web(const Frame& frame, std::size_t first_segment = SIZE_MAX) {
    return world.from_trunk({frame}, first_segment).task["web"];
  }
  void set_mtu(std::uint16_t mtu) {
    world.tasks[0].mtu = mtu;
    world.publish();
  }

  World world;
};

TEST_F(FragmentIpv4Test, PiecesAsTheRfcHasThem) {
  const Frame payload = datagram(3000);
  const auto frames = to_web(packet(payload));
  ASSERT_EQ(frames.size(), 3U);
  Frame together;
  for (std::size_t i = 0; i < 3; ++i) {
    const Frame& frame = frames[i];
    EXPECT_EQ(frame.size(), kIp + word(frame, kIp + 2));
    EXPECT_LE(frame.size(), kIp + 1500);
    EXPECT_EQ(word(frame, kIp + 4), 4711);
    EXPECT_EQ(word(frame, kIp + 6), together.size() / 8 | (i < 2 ? 0x2000U : 0U));
    EXPECT_EQ(frame[kIp + 8], 64) << "the time to live stays";
    EXPECT_TRUE(has_sound_checksum(frame, kIp));
    EXPECT_EQ(std::memcmp(frame.data(), mac(kWebMac).bytes.data(), 6), 0);
    together.insert(together.end(), frame.begin() + kIp + 20, frame.end());
  }
  EXPECT_EQ(together, payload);
  EXPECT_EQ(world.worker.fragmented_packets.read(), 1U);
  EXPECT_EQ(world.worker.fragments_made.read(), 3U);
  const MeterReading meter = MeterReading::of(world.worker.meters[0].ingress);
  EXPECT_EQ(meter.rx_packets, 1U);
  EXPECT_EQ(meter.tx_packets, 3U);
  EXPECT_EQ(meter.made_packets, 2U);
  EXPECT_EQ(meter.made_bytes, 2 * 34U);
  EXPECT_EQ(meter.rx_bytes - 4 + meter.made_bytes, meter.tx_bytes) << "but for the tag";
  EXPECT_EQ(world.movements(),
            (Movements{{"trunk.in.rx", 1}, {"trunk.in.tx", 1}, {"web.ingress.rx", 1}, {"web.ingress.tx", 3}}));
}

TEST_F(FragmentIpv4Test, OptionsGoByTheirCopyBit) {
  // Record route (7) stays in the first one; router alert (148) and a security option (130) go into all.
  const Frame options{7, 7, 4, 0, 0, 0, 0, 1, 148, 4, 0, 0, 130, 5, 1, 2, 3, 0, 0, 0};
  const auto frames = to_web(packet(datagram(3200), options));
  ASSERT_EQ(frames.size(), 3U);
  EXPECT_EQ(frames[0][kIp], 0x4a);
  EXPECT_EQ(Frame(frames[0].begin() + kIp + 20, frames[0].begin() + kIp + 40), options);
  EXPECT_EQ((word(frames[0], kIp + 2) - 40) % 8, 0);
  for (const std::size_t later : {1U, 2U}) {
    EXPECT_EQ(frames[later][kIp], 0x48);
    EXPECT_EQ(Frame(frames[later].begin() + kIp + 20, frames[later].begin() + kIp + 32),
              (Frame{148, 4, 0, 0, 130, 5, 1, 2, 3, 0, 0, 0}));
    EXPECT_TRUE(has_sound_checksum(frames[later], kIp));
  }
}

TEST_F(FragmentIpv4Test, AWrongHeaderChecksumIsNotMendedOnTheWay) {
  Frame frame = packet(datagram(3000));
  frame[18 + 10] ^= 0x40;
  for (const Frame& each : to_web(frame)) EXPECT_FALSE(has_sound_checksum(each, kIp));
}

TEST_F(FragmentIpv4Test, AChecksumThatWasLeftToThePortIsMadeFirst) {
  world.driver = [](rte_mbuf& packet) { packet.ol_flags |= RTE_MBUF_F_RX_L4_CKSUM_NONE; };
  for (const bool odd : {false, true}) {
    const Frame payload = datagram(odd ? 3001 : 3000);
    Frame together;
    for (const Frame& each : to_web(packet(payload), 200))
      together.insert(together.end(), each.begin() + kIp + 20, each.end());
    ASSERT_EQ(together.size(), payload.size());
    Frame pseudo{198, 51, 100, 9, 10, 0, 0, 35, 0, 17, 0, 0};
    set_word(pseudo, 10, payload.size());
    const std::uint32_t sum =
        sum16(pseudo.data(), 12, sum16(together.data(), static_cast<std::uint32_t>(together.size())));
    EXPECT_NE(word(together, 6), 0);
    EXPECT_EQ(fold(sum), 0) << "over all of it";
  }
}

// Random packets, chains, options and MTUs; put together by a receiver of its own.
TEST_F(FragmentIpv4Test, WhatIsCutIsWholeAgain) {
  const char* given = std::getenv("TRUNKLINE_SEED");
  const std::uint64_t seed = given != nullptr ? std::strtoull(given, nullptr, 10) : std::random_device{}();
  std::cout << "seed " << seed << " (TRUNKLINE_SEED)\n";
  std::mt19937_64 random(seed);
  const auto below = [&](std::size_t limit) { return static_cast<std::size_t>(random() % limit); };
  world.mbufs.take_bytes = 700;  // fragments in chains
  for (int round = 0; round < 400; ++round) {
    const auto mtu = static_cast<std::uint16_t>(576 + below(2) * below(1500) + below(9));
    set_mtu(mtu);
    Frame options(below(3) == 0 ? 4 * below(11) : 0);
    for (std::uint8_t& each : options) each = static_cast<std::uint8_t>(random() & (below(2) == 0 ? 0x9f : 0x87));
    // Source routing is refused before.
    for (std::uint8_t& each : options) each = each == 131 || each == 137 ? 130 : each;
    const Frame payload = datagram(mtu + 8 + below(below(4) == 0 ? 50000 : 5000), &random);
    const std::size_t offset = below(4) == 0 ? 8 * below(1500) : 0;  // it may be a fragment itself
    const bool more = offset != 0 && below(2) == 0;
    const Frame whole =
        more ? Frame(payload.begin(), payload.end() - static_cast<std::ptrdiff_t>(payload.size() % 8)) : payload;
    if (offset + whole.size() > 65535 || whole.size() + 60 > 65535) continue;
    if (offset != 0) {  // let it through: its first one
      Frame first = packet(datagram(16), {}, 0x2000);
      to_web(first);
    }
    const Frame sent = packet(
        whole, options, static_cast<std::uint16_t>(offset / 8 | (more ? 0x2000 : 0) | (below(9) == 0 ? 0x8000 : 0)));
    const auto frames = offset == 0 ? to_web(sent, 60 + below(sent.size())) : to_web(sent, 100 + below(sent.size()));
    world.pass(1);
    if (world.worker.fragments.size() != 0) world.pass(700), sweep_fragments(world.worker, FragmentTable::kCapacity);
    const Movements moved = world.movements();
    if (frames.empty()) {  // overlaps its own first one, or malformed options: by name
      EXPECT_TRUE(moved.contains("web.ingress.fragment_overlap") || moved.contains("web.ingress.ip_options") ||
                  moved.contains("web.ingress.malformed"))
          << "round " << round << " was lost";
      continue;
    }
    Frame together(whole.size(), 0);
    std::size_t octets = 0;
    for (std::size_t i = 0; i < frames.size(); ++i) {
      const Frame& frame = frames[i];
      const std::size_t header = (frame[kIp] & 15U) * 4, total = word(frame, kIp + 2), place = word(frame, kIp + 6);
      ASSERT_LE(total, mtu);
      ASSERT_EQ(total + kIp, frame.size());
      ASSERT_TRUE(has_sound_checksum(frame, kIp));
      const bool last = i + 1 == frames.size();
      ASSERT_EQ((place & 0x2000) != 0, !last || more);
      ASSERT_EQ(place & 0x8000, word(sent, 18 + 6) & 0x8000);
      ASSERT_TRUE(last || (total - header) % 8 == 0);
      ASSERT_TRUE(last || total + 8U > mtu) << "as few as can be";
      const std::size_t at = (place & 0x1fff) * 8 - offset;
      ASSERT_EQ(at, octets) << "in order, without a hole";
      ASSERT_LE(at + total - header, together.size());
      std::copy(frame.begin() + static_cast<std::ptrdiff_t>(kIp + header), frame.end(),
                together.begin() + static_cast<std::ptrdiff_t>(at));
      octets += total - header;
      const Frame own(frame.begin() + kIp + 20, frame.begin() + static_cast<std::ptrdiff_t>(kIp + header));
      ASSERT_TRUE(i != 0 || own == options);
      ASSERT_LE(own.size(), options.size());
    }
    ASSERT_EQ(octets, whole.size());
    ASSERT_EQ(together, whole) << "round " << round;
  }
}

TEST_F(FragmentIpv4Test, AnEniHasAShareOfATickAndNoMore) {
  const Frame large = packet(datagram(60000));  // 41 fragments
  std::size_t sent = 0, refused = 0;
  for (int i = 0; i < 200; ++i) {
    const auto frames = to_web(large);
    EXPECT_TRUE(frames.empty() || frames.size() == 41);
    sent += frames.size();
    refused += frames.empty();
    world.mbufs = {};
  }
  EXPECT_EQ(sent, Allowances::kFragmentsPerTick / 41 * 41);
  Movements moved = world.movements();
  EXPECT_EQ(moved["web.ingress.fragmenting_limit"], refused);
  // Another's is untouched, and so is the next tick's.
  world.tasks[1].mtu = 1500;
  world.publish();
  Frame to_app =
      ip_packet({mac(kAppMac), mac(kRouterMac), 102}, ip("198.51.100.9"), ip("10.0.0.36"), 17, datagram(3000), false);
  EXPECT_EQ(world.from_trunk({to_app}).task["app"].size(), 3U);
  world.pass(1);
  EXPECT_EQ(to_web(large).size(), 41U);
}

TEST_F(FragmentIpv4Test, WithoutBuffersNothingIsSentAndNothingIsLost) {
  const Frame large = packet(datagram(3000));
  for (const std::size_t left : {0U, 1U, 2U}) {
    world.mbufs.left = left;
    EXPECT_TRUE(to_web(large).empty());
    EXPECT_EQ(world.mbufs.left, left) << "given back";
    EXPECT_EQ(world.movements(),
              (Movements{{"trunk.in.rx", 1}, {"trunk.in.tx", 1}, {"web.ingress.rx", 1}, {"web.ingress.no_buffer", 1}}));
  }
  EXPECT_TRUE(world.end_interval().empty()) << "nothing was sent on";
  world.mbufs.left = 3;
  EXPECT_EQ(to_web(large).size(), 3U);
}

TEST_F(FragmentIpv4Test, NeitherDfNorIpv6IsCut) {
  Frame with_df = packet(datagram(3000), {}, 0x4000);
  EXPECT_TRUE(to_web(with_df).empty());
  const Frame six =
      ip_packet({mac(kWebMac), mac(kRouterMac), 101}, ip("2001:db8:1::9"), ip("2001:db8::35"), 17, datagram(3000));
  EXPECT_TRUE(to_web(six).empty());
  EXPECT_EQ(world.movements(), (Movements{{"trunk.in.rx", 2},
                                          {"trunk.in.tx", 2},
                                          {"web.ingress.rx", 2},
                                          {"web.ingress.mtu_exceeded", 2},
                                          {"trunk.out.rx", 2},
                                          {"trunk.out.tx", 2}}));
  EXPECT_EQ(world.worker.fragments_made.read(), 0U);
  EXPECT_TRUE(world.end_interval().empty());
}

TEST_F(FragmentIpv4Test, ErrorsQuoteAsMuchAsFits) {
  for (const std::size_t first_segment : {SIZE_MAX, std::size_t{700}, std::size_t{64}}) {
    const Frame sent = packet(datagram(3000), {}, 0x4000);
    auto out = world.from_trunk({sent}, first_segment).trunk;
    ASSERT_EQ(out.size(), 1U);
    const std::size_t room = std::min<std::size_t>(first_segment, 4000) + Mbufs::kTailroom;
    const std::size_t quoted = std::min<std::size_t>(576 - 28, room - 42);
    EXPECT_EQ(out[0].size(), 18 + 28 + quoted);
    EXPECT_TRUE(has_sound_checksum(out[0], 18));
    EXPECT_TRUE(std::equal(out[0].begin() + 18 + 28, out[0].end(), sent.begin() + 18));
    std::uint32_t sum = sum16(&out[0][18 + 20], static_cast<std::uint32_t>(out[0].size() - 38));
    EXPECT_EQ(fold(sum), 0);
  }
  const Frame six =
      ip_packet({mac(kWebMac), mac(kRouterMac), 101}, ip("2001:db8:1::9"), ip("2001:db8::35"), 17, datagram(3000));
  const auto out = world.from_trunk({six}).trunk;
  ASSERT_EQ(out.size(), 1U);
  EXPECT_EQ(out[0].size(), 18U + 1280);
  EXPECT_TRUE(std::equal(out[0].begin() + 18 + 48, out[0].end(), six.begin() + 18));
}

TEST_F(FragmentIpv4Test, OneEnisErrorsAreNotAnothers) {
  const Frame loud = packet(datagram(3000), {}, 0x4000);
  for (std::uint32_t i = 0; i < 2 * Allowances::kErrorsPerTick; ++i) world.from_trunk({loud}), world.mbufs = {};
  EXPECT_TRUE(world.from_trunk({loud}).trunk.empty());
  world.tasks[1].mtu = 1500;
  world.publish();
  const Frame to_app =
      ip_packet({mac(kAppMac), mac(kRouterMac), 102}, ip("198.51.100.9"), ip("10.0.0.36"), 17, datagram(3000));
  EXPECT_EQ(world.from_trunk({to_app}).trunk.size(), 1U);
}

// A steady connection's packets are counted before forward decides; these are not.
TEST_F(FragmentIpv4Test, TheLogHasWhatWasSentOn) {
  const auto segment = [&](std::uint8_t flags, std::size_t bytes, bool df) {
    return ip_packet({mac(kWebMac), mac(kRouterMac), 101}, ip("198.51.100.9"), ip("10.0.0.35"), 6,
                     tcp_segment(40000, 80, flags, bytes), df);
  };
  to_web(segment(0x02, 0, true));
  Frame answer = ip_packet({mac(kRouterMac), mac(kWebMac)}, ip("10.0.0.35"), ip("198.51.100.9"), 6,
                           tcp_segment(80, 40000, 0x12, 0));
  world.from_task(0, {answer});
  to_web(segment(0x10, 0, true));
  world.end_interval();
  EXPECT_EQ(to_web(segment(0x10, 1000, true)).size(), 1U);  // steady
  EXPECT_TRUE(to_web(segment(0x10, 3000, true)).empty());   // too large, with DF
  EXPECT_EQ(to_web(segment(0x10, 3000, false)).size(), 3U);
  const auto records = world.end_interval();
  ASSERT_EQ(records.size(), 1U);
  EXPECT_EQ(records[0].way[0].packets, 4U);
  EXPECT_EQ(records[0].way[0].bytes, 1040U + 3040 + 2 * 20);
}

TEST_F(FragmentIpv4Test, NoHeadroomForATagIsNotInTheLogEither) {
  world.driver = [](rte_mbuf& packet) {
    std::memmove(packet.buf_addr, rte_pktmbuf_mtod(&packet, void*), packet.data_len);
    packet.data_off = 0;
  };
  const auto out = [&](std::uint8_t protocol, const Frame& payload) {
    return ip_packet({mac(kRouterMac), mac(kWebMac)}, ip("10.0.0.35"), ip("198.51.100.9"), protocol, payload);
  };
  world.from_task(0, {out(17, datagram(100)), out(1, icmp_message(3, 3, 0, 40))});
  EXPECT_EQ(world.movements(), (Movements{{"web.egress.rx", 2}, {"web.egress.no_headroom", 2}}));
  EXPECT_TRUE(world.end_interval().empty());
}

TEST_F(FragmentIpv4Test, ASuperFrameWithoutDfGetsSmallerSegments) {
  world.driver = [](rte_mbuf& packet) {
    packet.ol_flags = RTE_MBUF_F_RX_LRO | RTE_MBUF_F_RX_L4_CKSUM_NONE;
    packet.tso_segsz = 8000;
  };
  const auto super_frame = [&](bool df) {
    return ip_packet({mac(kWebMac), mac(kAppMac)}, ip("10.0.0.36"), ip("10.0.0.35"), 6,
                     tcp_segment(40000, 80, 0x10, 20000), df);
  };
  const World::Output out = world.from_task(1, {super_frame(false)});
  ASSERT_EQ(out.packets.size(), 1U);
  EXPECT_EQ(out.packets[0]->tso_segsz, 1460);
  EXPECT_EQ(world.movements(),
            (Movements{{"app.egress.rx", 3}, {"app.egress.tx", 3}, {"web.ingress.rx", 3}, {"web.ingress.tx", 14}}));
  const auto records = world.end_interval();
  std::uint64_t in = 0;
  for (const FlowRecord& each : records) in += each.way[0].packets;
  EXPECT_EQ(in, 14U);
  EXPECT_EQ(world.from_task(1, {super_frame(true)}).task["app"].size(), 1U) << "with DF its sender is told";
}

}  // namespace
}  // namespace trunkline::test
