// SPDX-License-Identifier: BSD-3-Clause
//
// What a port's driver cannot do is done for it: super-frames cut, checksums completed. Against a naive receiver that puts the
// segments together again, on random super-frames in random chains; the ports are rings, which can do nothing.
//
// Needs the EAL (no huge pages, no root). TRUNKLINE_SEED repeats a run.
#include "dataplane/transmit.h"

#include <gtest/gtest.h>
#include <rte_eal.h>
#include <rte_eth_ring.h>
#include <rte_ethdev.h>
#include <rte_mbuf.h>
#include <rte_ring.h>

#include <cstdlib>
#include <random>

#include "dataplane/stages/segment.h"
#include "dataplane/state/observer.h"
#include "dataplane/state/super_frame.h"
#include "tests/support/edge_packets.h"
#include "tests/support/packets.h"

namespace trunkline::test {
namespace {

constexpr std::uint32_t kBuffers = 4096;
constexpr std::uint8_t kFin = 0x01, kPush = 0x08, kAck = 0x10, kCwr = 0x80;

struct Eal {
  Eal() {
    char name[] = "transmit_test", no_huge[] = "--no-huge", memory[] = "-m", megabytes[] = "128", shared[] = "--no-shconf", no_pci[] = "--no-pci",
         telemetry[] = "--no-telemetry", level[] = "--log-level=4";
    char* arguments[] = {name, no_huge, memory, megabytes, shared, no_pci, telemetry, level};
    if (rte_eal_init(static_cast<int>(std::size(arguments)), arguments) < 0) std::abort();
    pool = rte_pktmbuf_pool_create("transmit", kBuffers, 0, 0, RTE_MBUF_DEFAULT_BUF_SIZE, 0);
    ring = rte_ring_create("transmit", 1024, 0, RING_F_SP_ENQ | RING_F_SC_DEQ);
    const int port = rte_eth_from_ring(ring);
    if (pool == nullptr || ring == nullptr || port < 0) std::abort();
    ethdev = static_cast<std::uint16_t>(port);
    rte_eth_conf conf{};
    if (rte_eth_dev_configure(ethdev, 1, 1, &conf) != 0 || rte_eth_rx_queue_setup(ethdev, 0, 64, 0, nullptr, pool) != 0 ||
        rte_eth_tx_queue_setup(ethdev, 0, 64, 0, nullptr) != 0 || rte_eth_dev_start(ethdev) != 0) {
      std::abort();
    }
  }
  rte_mempool* pool;
  rte_ring* ring;
  std::uint16_t ethdev;
};
Eal& eal() {
  static Eal one;
  return one;
}

struct Shape {
  bool ipv4 = true;
  bool tagged = false;
  std::uint32_t options = 0;       // TCP's, in bytes
  std::uint32_t extension = 0;     // IPv6's, or IPv4's options, in bytes
  std::uint32_t payload = 5000;
  std::uint16_t segment = 1448;
  std::uint32_t chunk = 1500;      // of each buffer but the first
  std::uint8_t flags = kAck | kPush;
  std::uint32_t sequence = 0xfffffff0;  // about to wrap
  std::uint32_t layer2() const { return tagged ? 18 : 14; }
  std::uint32_t layer3() const { return (ipv4 ? 20 : 40) + extension; }
  std::uint32_t layer4() const { return 20 + options; }
  std::uint32_t headers() const { return layer2() + layer3() + layer4(); }
};

std::uint8_t payload_byte(std::uint32_t at) { return static_cast<std::uint8_t>(at * 31 + at / 251); }

Frame frame_of(const Shape& shape) {
  Frame tcp = tcp_segment(40000, 80, shape.flags);
  tcp[12] = static_cast<std::uint8_t>((5 + shape.options / 4) << 4);
  for (int i = 0; i < 4; ++i) tcp[4 + static_cast<std::size_t>(i)] = static_cast<std::uint8_t>(shape.sequence >> (24 - 8 * i));
  tcp.resize(20 + shape.options, 1);
  for (std::uint32_t i = 0; i < shape.payload; ++i) tcp.push_back(payload_byte(i));
  const L2 l2{mac("0a:00:00:00:00:01"), mac("0a:00:00:00:00:02"), shape.tagged ? 101 : -1};
  if (shape.ipv4) {
    Frame frame = ip_packet(l2, ip("10.0.0.1"), ip("10.0.0.2"), 6, tcp);
    const std::size_t at = shape.layer2();
    frame.insert(frame.begin() + static_cast<long>(at) + 20, shape.extension, 1);  // no-operation options
    frame[at] = static_cast<std::uint8_t>(0x45 + shape.extension / 4);
    frame[at + 4] = 0xff, frame[at + 5] = 0xfe;  // the identification wraps as well
    const std::size_t total = frame.size() - at;
    frame[at + 2] = static_cast<std::uint8_t>(total >> 8), frame[at + 3] = static_cast<std::uint8_t>(total);
    return frame;
  }
  Frame body;
  if (shape.extension != 0) {
    body = {6, static_cast<std::uint8_t>(shape.extension / 8 - 1)};
    body.resize(shape.extension, 0);
  }
  body.insert(body.end(), tcp.begin(), tcp.end());
  return ip_packet(l2, ip("2001:db8::1"), ip("2001:db8::2"), shape.extension != 0 ? 60 : 6, body);
}

// In buffers of the pool; the first one holds the headers and up to `chunk` more.
rte_mbuf* chain_of(const Frame& frame, std::uint32_t first, std::uint32_t chunk) {
  rte_mbuf* head = nullptr;
  rte_mbuf* last = nullptr;
  for (std::size_t at = 0; at < frame.size();) {
    rte_mbuf* next = rte_pktmbuf_alloc(eal().pool);
    if (next == nullptr) std::abort();
    const std::size_t room = rte_pktmbuf_tailroom(next);
    const std::size_t count = std::min({frame.size() - at, room, static_cast<std::size_t>(at == 0 ? first : chunk)});
    std::memcpy(rte_pktmbuf_append(next, static_cast<std::uint16_t>(count)), frame.data() + at, count);
    at += count;
    if (head == nullptr) {
      head = last = next;
    } else {
      last->next = next, last = next;
      ++head->nb_segs;
      head->pkt_len += static_cast<std::uint32_t>(count);
    }
  }
  return head;
}

rte_mbuf* super_frame(const Shape& shape) {
  rte_mbuf* packet = chain_of(frame_of(shape), shape.headers() + shape.chunk / 2, shape.chunk);
  packet->ol_flags = RTE_MBUF_F_TX_TCP_SEG | RTE_MBUF_F_TX_TCP_CKSUM | (shape.ipv4 ? RTE_MBUF_F_TX_IPV4 : RTE_MBUF_F_TX_IPV6);
  packet->l2_len = shape.layer2();
  packet->l3_len = shape.layer3();
  packet->l4_len = shape.layer4();
  packet->tso_segsz = shape.segment;
  return packet;
}

std::uint32_t big16(const Frame& frame, std::size_t at) { return static_cast<std::uint32_t>(frame[at] << 8 | frame[at + 1]); }
std::uint32_t big32(const Frame& frame, std::size_t at) { return big16(frame, at) << 16 | big16(frame, at + 2); }

// Whether a receiver finds the TCP checksum right; the pseudo header's protocol is TCP whatever extension stands before it.
bool has_right_checksum(const Frame& frame, const Shape& shape) {
  const std::size_t ip_at = shape.layer2(), tcp_at = ip_at + shape.layer3();
  const std::uint32_t addresses = shape.ipv4 ? folded_sum(frame, ip_at + 12, ip_at + 20) : folded_sum(frame, ip_at + 8, ip_at + 40);
  return folded_sum(frame, tcp_at, frame.size(), addresses + 6 + static_cast<std::uint32_t>(frame.size() - tcp_at)) == 0xffff;
}

std::vector<Frame> received() {
  std::vector<Frame> frames;
  rte_mbuf* packet = nullptr;
  while (rte_ring_dequeue(eal().ring, reinterpret_cast<void**>(&packet)) == 0) {
    Frame frame = Mbufs::bytes_of(packet);
    EXPECT_EQ(frame.size(), packet->pkt_len);
    EXPECT_EQ(packet->ol_flags, 0U);
    frames.push_back(std::move(frame));
    rte_pktmbuf_free(packet);
  }
  return frames;
}

class TransmitTest : public ::testing::Test {
 protected:
  void SetUp() override {
    port.ethdev = eal().ethdev;
    port.is_trunk = true;
    view.build_indexes();
    worker.view = &view;
    ObserverSettings settings;
    settings.points = 0xff;
    settings.capacity = 1 << 15;
    observer = std::make_unique<Observer>(settings);
    set.observers.push_back(observer.get());
    worker.observers = &set;
  }
  void TearDown() override {
    EXPECT_EQ(rte_mempool_avail_count(eal().pool), kBuffers) << "buffers are lost";
    // Whoever looks has seen each drop, in frames.
    std::uint64_t seen[kDropReasonCount] = {};
    observer->read(1 << 15, [&](const Observation& each, std::span<const std::uint8_t>) {
      EXPECT_EQ(each.point, Point::drop);
      EXPECT_EQ(each.stage, Stage::transmit);
      seen[static_cast<std::size_t>(each.verdict)] += each.frames;
    });
    EXPECT_EQ(observer->lost(), 0U);
    for (std::size_t i = 0; i < kDropReasonCount; ++i) EXPECT_EQ(seen[i], meter.drops[i].read()) << kDropReasonTexts[i].name;
  }

  void send(std::vector<rte_mbuf*> packets) { transmit_with_offloads(port, 0, packets, meter, done, worker); }
  std::uint64_t dropped(DropReason reason) const { return meter.drops[static_cast<std::size_t>(reason)].read(); }

  // The segments say all that the super-frame said, in order, each a frame that a receiver accepts.
  void expect_segments(const std::vector<Frame>& segments, const Shape& shape) {
    const Frame whole = frame_of(shape);
    const std::size_t ip_at = shape.layer2(), tcp_at = ip_at + shape.layer3();
    std::uint32_t at = 0;
    for (std::size_t i = 0; i < segments.size(); ++i) {
      const Frame& frame = segments[i];
      const bool first = i == 0, last = i + 1 == segments.size();
      const std::uint32_t bytes = last ? shape.payload - at : shape.segment;
      ASSERT_EQ(frame.size(), shape.headers() + bytes);
      EXPECT_TRUE(std::equal(frame.begin(), frame.begin() + static_cast<long>(ip_at), whole.begin())) << "Ethernet header";
      if (shape.ipv4) {
        EXPECT_EQ(big16(frame, ip_at + 2), frame.size() - ip_at);
        EXPECT_EQ(big16(frame, ip_at + 4), (0xfffe + i) & 0xffff);
        EXPECT_EQ(folded_sum(frame, ip_at, ip_at + shape.layer3()), 0xffffU) << "IPv4 checksum";
      } else {
        EXPECT_EQ(big16(frame, ip_at + 4), frame.size() - ip_at - 40);
      }
      EXPECT_EQ(big32(frame, tcp_at + 4), shape.sequence + at);
      const auto wanted = static_cast<std::uint8_t>(shape.flags & ~(first ? 0 : kCwr) & ~(last ? 0 : kFin | kPush));
      EXPECT_EQ(frame[tcp_at + 13], wanted) << "flags of " << i;
      EXPECT_TRUE(has_right_checksum(frame, shape)) << i;
      for (std::uint32_t k = 0; k < bytes; ++k, ++at) ASSERT_EQ(frame[shape.headers() + k], payload_byte(at)) << "payload at " << at;
    }
    EXPECT_EQ(at, shape.payload);
  }

  PortView port;
  Meter meter;
  OffloadCounters done;
  View view;
  WorkerState worker{8, 64, 1};
  std::unique_ptr<Observer> observer;
  ObserverSet set;
};

TEST_F(TransmitTest, CutsWhatThePortCannot) {
  const Shape shape{.flags = kAck | kPush | kFin | kCwr};
  send({super_frame(shape)});
  expect_segments(received(), shape);
  EXPECT_EQ(meter.tx_packets.read(), 4U);
  EXPECT_EQ(meter.tx_bytes.read(), 5000 + 4 * 54U);
  EXPECT_EQ(done.super_frames.read(), 1U);
  EXPECT_EQ(done.segments.read(), 4U);
  EXPECT_EQ(done.checksums.read(), 0U);
}

TEST_F(TransmitTest, RandomSuperFrames) {
  const char* given = std::getenv("TRUNKLINE_SEED");
  const std::uint64_t seed = given != nullptr ? std::strtoull(given, nullptr, 10) : std::random_device{}();
  SCOPED_TRACE("TRUNKLINE_SEED=" + std::to_string(seed));
  std::mt19937_64 random(seed);
  const auto up_to = [&](std::uint32_t most) { return static_cast<std::uint32_t>(random() % (most + 1)); };
  for (int round = 0; round < 400 && !HasFailure(); ++round) {
    Shape shape;
    shape.ipv4 = up_to(1) != 0;
    shape.tagged = up_to(1) != 0;
    shape.options = 4 * up_to(10);
    shape.extension = shape.ipv4 ? 4 * up_to(10) : 8 * up_to(6);
    shape.segment = static_cast<std::uint16_t>(kLeastSegmentBytes + up_to(up_to(3) == 0 ? 8900 : 1500));
    shape.payload = shape.segment + 1 + up_to(std::min(60000U - shape.segment, 60U * shape.segment));
    shape.chunk = 1 + up_to(1900);
    shape.chunk = std::max(shape.chunk, shape.payload / 500);
    shape.flags = static_cast<std::uint8_t>(kAck | (random() & (kFin | kPush | kCwr)));
    const auto before = meter.tx_packets.read();
    rte_mbuf* packet = super_frame(shape);
    const Frames stands_for = frames_of(*packet);
    const auto bytes = meter.tx_bytes.read();
    send({packet});
    expect_segments(received(), shape);
    EXPECT_EQ(meter.tx_packets.read() - before, stands_for.packets);
    EXPECT_EQ(meter.tx_bytes.read() - bytes, stands_for.bytes);
  }
  EXPECT_EQ(dropped(DropReason::bad_offload) + dropped(DropReason::no_buffer) + dropped(DropReason::tx_full), 0U);
}

TEST_F(TransmitTest, CompletesChecksums) {
  for (const bool ipv4 : {true, false}) {
    for (const bool tcp : {true, false}) {
      for (const std::uint32_t chunk : {7U, 1500U}) {
        const L2 l2{mac("0a:00:00:00:00:01"), mac("0a:00:00:00:00:02")};
        const Frame transport = tcp ? tcp_segment(1, 2, kAck, 333) : udp_datagram(1, 2, 333);
        const Frame frame = ip_packet(l2, ip(ipv4 ? "10.0.0.1" : "2001:db8::1"), ip(ipv4 ? "10.0.0.2" : "2001:db8::2"), tcp ? 6 : 17, transport);
        rte_mbuf* packet = chain_of(frame, 90, chunk);
        packet->ol_flags = (tcp ? RTE_MBUF_F_TX_TCP_CKSUM : RTE_MBUF_F_TX_UDP_CKSUM) | (ipv4 ? RTE_MBUF_F_TX_IPV4 : RTE_MBUF_F_TX_IPV6);
        packet->l2_len = 14, packet->l3_len = ipv4 ? 20 : 40;
        send({packet});
        const std::vector<Frame> frames = received();
        ASSERT_EQ(frames.size(), 1U);
        const std::size_t at = 14 + (ipv4 ? 20 : 40);
        const std::uint32_t start = static_cast<std::uint32_t>(frame.size() - at) + (tcp ? 6 : 17);
        EXPECT_EQ(folded_sum(frames[0], 14 + (ipv4 ? 12 : 8), frame.size(), start), 0xffffU);
        Frame rest = frames[0];
        const std::size_t field = at + (tcp ? 16 : 6);
        rest[field] = frame[field], rest[field + 1] = frame[field + 1];
        EXPECT_EQ(rest, frame) << "nothing else changed";
      }
    }
  }
  EXPECT_EQ(done.checksums.read(), 8U);
}

// A sum of all ones is written as such, since 0 says that there is none.
TEST_F(TransmitTest, NoUdpChecksumBecomesNone) {
  const L2 l2{mac("0a:00:00:00:00:01"), mac("0a:00:00:00:00:02")};
  Frame datagram = udp_datagram(1, 2, 2);
  datagram[8] = datagram[9] = 0;
  Frame frame = ip_packet(l2, ip("10.0.0.1"), ip("10.0.0.2"), 17, datagram);
  const std::uint32_t sum = folded_sum(frame, 14 + 12, frame.size(), 17 + 10);
  frame[42] = static_cast<std::uint8_t>(~sum >> 8), frame[43] = static_cast<std::uint8_t>(~sum);  // now the rest adds up to 0xffff
  rte_mbuf* packet = chain_of(frame, 1500, 1500);
  packet->ol_flags = RTE_MBUF_F_TX_UDP_CKSUM | RTE_MBUF_F_TX_IPV4;
  packet->l2_len = 14, packet->l3_len = 20;
  send({packet});
  const std::vector<Frame> frames = received();
  ASSERT_EQ(frames.size(), 1U);
  EXPECT_EQ(big16(frames[0], 14 + 20 + 6), 0xffffU);
}

TEST_F(TransmitTest, KeepsTheOrderOfWhatNeedsNothing) {
  const L2 l2{mac("0a:00:00:00:00:01"), mac("0a:00:00:00:00:02")};
  const auto plain = [&](std::uint16_t number) { return chain_of(ip_packet(l2, ip("10.0.0.1"), ip("10.0.0.2"), 17, udp_datagram(number, 1)), 1500, 1500); };
  const Shape shape{.payload = 300 * 100, .segment = 100};  // more segments than fit into one batch
  send({plain(1), super_frame(shape), plain(2)});
  std::vector<Frame> frames = received();
  ASSERT_EQ(frames.size(), 302U);
  EXPECT_EQ(big16(frames.front(), 34), 1U);
  EXPECT_EQ(big16(frames.back(), 34), 2U);
  expect_segments({frames.begin() + 1, frames.end() - 1}, shape);
}

TEST_F(TransmitTest, LiesCostTheirPacketOnly) {
  const auto lie = [&](auto&& change) {
    rte_mbuf* packet = super_frame({.payload = 2000, .segment = 1000});
    change(*packet);
    const auto before = dropped(DropReason::bad_offload) + dropped(DropReason::no_buffer);
    send({packet});
    EXPECT_EQ(received().size(), 0U);
    EXPECT_GT(dropped(DropReason::bad_offload) + dropped(DropReason::no_buffer), before);
  };
  lie([](rte_mbuf& packet) { packet.l4_len = 16; });
  lie([](rte_mbuf& packet) { packet.l3_len = 12; });
  lie([](rte_mbuf& packet) { packet.l2_len = 10; });
  lie([](rte_mbuf& packet) { packet.l3_len = 511, packet.l4_len = 255, packet.data_len = 60; });
  lie([](rte_mbuf& packet) { packet.tso_segsz = 1; });
  const auto bad = dropped(DropReason::bad_offload);
  rte_mbuf* packet = chain_of(Frame(40, 1), 1500, 1500);
  packet->ol_flags = RTE_MBUF_F_TX_TCP_CKSUM | RTE_MBUF_F_TX_IPV4;
  packet->l2_len = 14, packet->l3_len = 20;
  send({packet});
  EXPECT_EQ(dropped(DropReason::bad_offload), bad + 1);
  EXPECT_EQ(received().size(), 0U);
}

// A length that speaks of more than the chain has.
TEST_F(TransmitTest, ALengthBeyondTheChainIsNotFollowed) {
  rte_mbuf* packet = super_frame({.payload = 2000, .segment = 1000});
  packet->pkt_len += 5000;
  send({packet});
  EXPECT_EQ(received().size(), 2U);  // what is really there
  EXPECT_EQ(dropped(DropReason::no_buffer), 5U);
}

TEST_F(TransmitTest, WithoutBuffersTheRestIsCounted) {
  const Shape shape{.payload = 40 * 1000, .segment = 1000};
  rte_mbuf* packet = super_frame(shape);
  std::vector<rte_mbuf*> taken;
  while (rte_mempool_avail_count(eal().pool) > 10) taken.push_back(rte_pktmbuf_alloc(eal().pool));
  send({packet});
  EXPECT_EQ(received().size(), 10U);
  EXPECT_EQ(meter.tx_packets.read(), 10U);
  EXPECT_EQ(dropped(DropReason::no_buffer), 30U);
  rte_pktmbuf_free_bulk(taken.data(), static_cast<unsigned>(taken.size()));
}

TEST_F(TransmitTest, AFullPortCountsSegments) {
  std::vector<rte_mbuf*> filler;
  while (rte_ring_free_count(eal().ring) > 6) {
    rte_mbuf* packet = rte_pktmbuf_alloc(eal().pool);
    if (packet == nullptr) break;
    filler.push_back(packet);
    ASSERT_EQ(rte_ring_enqueue(eal().ring, packet), 0);
  }
  const std::uint32_t room = rte_ring_free_count(eal().ring);
  ASSERT_LT(room, 12U);
  send({super_frame({.payload = 12000, .segment = 1000})});
  EXPECT_EQ(meter.tx_packets.read(), room);
  EXPECT_EQ(dropped(DropReason::tx_full), 12U - room);
  received();
}

}  // namespace
}  // namespace trunkline::test
