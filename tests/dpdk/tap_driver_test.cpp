// SPDX-License-Identifier: BSD-3-Clause
//
// The tap driver on taps of the kernel, in a network namespace of this program. The other side is a packet socket, which
// sees and writes virtio-net headers as a task could.
//
// Needs root (a namespace, /dev/net/tun) and the EAL (no huge pages).
#include <arpa/inet.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/filter.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/if_tun.h>
#include <linux/seccomp.h>
#include <net/if.h>
#include <poll.h>
#include <rte_eal.h>
#include <rte_ethdev.h>
#include <rte_ip.h>
#include <rte_mbuf.h>
#include <sched.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <fstream>
#include <thread>

#include "dataplane/io/port.h"
#include "dataplane/io/tap_driver.h"
#include "dataplane/io/vnet_header.h"
#include "tests/support/packets.h"

namespace trunkline::test {
namespace {

const MacAddress kTaskMac = mac("0a:00:00:00:00:02");
const L2 kFromTask{mac("0a:00:00:00:00:01"), kTaskMac}, kToTask{kTaskMac, mac("0a:00:00:00:00:01")};
const IpAddress kTask = ip("10.0.0.2"), kPeer = ip("10.0.0.1"), kTask6 = ip("2001:db8::2"), kPeer6 = ip("2001:db8::1");

// Wall time, for what another thread or the kernel is to do; nothing is measured with it.
template <class Condition>
bool comes_true(Condition&& condition) {
  const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(5);
  while (!condition()) {
    if (std::chrono::steady_clock::now() > until) return false;
  }
  return true;
}

class Tap {
 public:
  explicit Tap(std::string name, int mtu = 9001) : name_(std::move(name)) {
    const int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC);
    ifreq request = called();
    request.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | IFF_MULTI_QUEUE;
    EXPECT_EQ(ioctl(fd, TUNSETIFF, &request), 0) << strerror(errno);
    EXPECT_EQ(ioctl(fd, TUNSETPERSIST, 1), 0);
    socket_ = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, htons(ETH_P_ALL));
    request = called();
    request.ifr_hwaddr.sa_family = 1;
    std::memcpy(request.ifr_hwaddr.sa_data, kTaskMac.bytes.data(), 6);
    EXPECT_EQ(ioctl(socket_, SIOCSIFHWADDR, &request), 0);
    set_mtu(mtu);
    set_up(true);
    close(fd);
    const int headers = 1;
    EXPECT_EQ(setsockopt(socket_, SOL_PACKET, PACKET_VNET_HDR, &headers, sizeof headers), 0);
    sockaddr_ll address{};
    address.sll_family = AF_PACKET;
    address.sll_protocol = htons(ETH_P_ALL);
    address.sll_ifindex = static_cast<int>(if_nametoindex(name_.c_str()));
    EXPECT_EQ(bind(socket_, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
  }
  ~Tap() {
    close(socket_);
    remove();
  }

  const std::string& name() const { return name_; }
  bool exists() const { return if_nametoindex(name_.c_str()) != 0; }
  void remove() const {
    const std::string command = "ip link del " + name_ + " 2>/dev/null";
    [[maybe_unused]] const int status = std::system(command.c_str());
  }
  void set_up(bool up) const {
    ifreq request = called();
    request.ifr_flags = static_cast<short>(up ? IFF_UP : 0);
    EXPECT_EQ(ioctl(socket_, SIOCSIFFLAGS, &request), 0);
  }
  void set_mtu(int mtu) const {
    ifreq request = called();
    request.ifr_mtu = mtu;
    EXPECT_EQ(ioctl(socket_, SIOCSIFMTU, &request), 0);
  }

  // As the task would.
  bool send(const Frame& frame, const VnetHeader& header = {}) const {
    Frame bytes(sizeof header);
    std::memcpy(bytes.data(), &header, sizeof header);
    bytes.insert(bytes.end(), frame.begin(), frame.end());
    return write(socket_, bytes.data(), bytes.size()) == static_cast<ssize_t>(bytes.size());
  }
  // What came to the task; not its own frames, which the socket sees too.
  bool receive(Frame& frame, VnetHeader& header) const {
    Frame bytes(70'000);
    for (;;) {
      sockaddr_ll from{};
      socklen_t length = sizeof from;
      const ssize_t size = recvfrom(socket_, bytes.data(), bytes.size(), MSG_DONTWAIT, reinterpret_cast<sockaddr*>(&from), &length);
      if (size < static_cast<ssize_t>(sizeof header)) return false;
      if (from.sll_pkttype == PACKET_OUTGOING) continue;
      std::memcpy(&header, bytes.data(), sizeof header);
      frame.assign(bytes.begin() + sizeof header, bytes.begin() + size);
      return true;
    }
  }

 private:
  ifreq called() const {
    ifreq request{};
    std::strncpy(request.ifr_name, name_.c_str(), IFNAMSIZ - 1);
    return request;
  }
  std::string name_;
  int socket_ = -1;
};

class TapDriver : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    pool_ = rte_pktmbuf_pool_create("packets", 1023, 0, 0, 2176, 0);
    ASSERT_NE(pool_, nullptr);
  }
  void TearDown() override { EXPECT_EQ(rte_mempool_in_use_count(pool_), 0U) << "buffers are lost"; }

  static std::expected<std::unique_ptr<Port>, std::string> open(const std::string& interface, bool super_frames = false, std::uint16_t queues = 1) {
    static int number = 0;
    auto port = Port::open({.devargs = kTapDriver + std::to_string(number++) + ",iface=" + interface, .queues = queues, .offloads = super_frames}, *pool_);
    // The kernel takes notice of the carrier a little later, and until then drops what the task sends.
    const std::string settled = "ip link show " + interface + " | grep -q '<BROADCAST,.*UP,LOWER_UP>'";
    if (port) {
      EXPECT_TRUE(comes_true([&] { return std::system(settled.c_str()) == 0; }));
    }
    return port;
  }
  static std::vector<rte_mbuf*> receive(const Port& port, std::size_t count = 1, std::uint16_t queue = 0) {
    std::vector<rte_mbuf*> packets;
    comes_true([&] {
      rte_mbuf* burst[32];
      const std::uint16_t got = rte_eth_rx_burst(port.ethdev(), queue, burst, 32);
      packets.insert(packets.end(), burst, burst + got);
      return packets.size() >= count;
    });
    return packets;
  }
  static rte_mbuf* chain(const Frame& frame) {
    rte_mbuf* head = nullptr;
    for (std::size_t at = 0; at < frame.size(); at += 2000) {
      rte_mbuf* segment = rte_pktmbuf_alloc(pool_);
      const std::size_t size = std::min<std::size_t>(2000, frame.size() - at);
      std::memcpy(rte_pktmbuf_append(segment, static_cast<std::uint16_t>(size)), &frame[at], size);
      if (head == nullptr) head = segment;
      else EXPECT_EQ(rte_pktmbuf_chain(head, segment), 0);
    }
    return head;
  }
  static rte_eth_stats statistics(const Port& port) {
    rte_eth_stats stats{};
    rte_eth_stats_get(port.ethdev(), &stats);
    return stats;
  }
  // Nothing more comes.
  static bool is_quiet(const Port& port) {
    rte_mbuf* packet;
    for (int i = 0; i < 1000; ++i) {
      if (rte_eth_rx_burst(port.ethdev(), 0, &packet, 1) != 0) return false;
    }
    return true;
  }

  inline static rte_mempool* pool_ = nullptr;
};

Frame tcp_to_peer(std::size_t data) { return ip_packet(kFromTask, kTask, kPeer, 6, tcp_segment(1000, 80, 0x10, data)); }

TEST_F(TapDriver, FramesBothWays) {
  Tap tap("tap0");
  const auto port = open(tap.name()).value();
  EXPECT_EQ(port->mac(), kTaskMac);
  EXPECT_TRUE(port->link_up());
  EXPECT_EQ(port->send_offloads().tx, 0U);
  const Frame there = tcp_to_peer(40);
  ASSERT_TRUE(tap.send(there));
  const auto packets = receive(*port);
  ASSERT_EQ(packets.size(), 1U);
  EXPECT_EQ(Mbufs::bytes_of(packets[0]), there);
  EXPECT_EQ(packets[0]->ol_flags, 0U);
  EXPECT_EQ(packets[0]->port, port->ethdev());
  EXPECT_EQ(packets[0]->nb_segs, 1);
  EXPECT_EQ(packets[0]->data_off, RTE_PKTMBUF_HEADROOM);
  rte_pktmbuf_free(packets[0]);
  const Frame back = ip_packet(kToTask, kPeer, kTask, 6, tcp_segment(80, 1000, 0x10, 50));
  rte_mbuf* packet = chain(back);
  ASSERT_EQ(rte_eth_tx_burst(port->ethdev(), 0, &packet, 1), 1);
  Frame seen;
  VnetHeader header;
  ASSERT_TRUE(comes_true([&] { return tap.receive(seen, header); }));
  EXPECT_EQ(seen, back);
  EXPECT_EQ(header.flags, 0);
  const rte_eth_stats stats = statistics(*port);
  EXPECT_EQ(stats.ipackets, 1U);
  EXPECT_EQ(stats.ibytes, there.size());
  EXPECT_EQ(stats.opackets, 1U);
  EXPECT_EQ(stats.obytes, back.size());
  EXPECT_EQ(stats.ierrors + stats.oerrors + stats.rx_nombuf, 0U);
  ASSERT_EQ(rte_eth_stats_reset(port->ethdev()), 0);
  EXPECT_EQ(statistics(*port).ipackets, 0U);
}

TEST_F(TapDriver, JumboFramesAreChained) {
  Tap tap("tap0");
  const auto port = open(tap.name()).value();
  Frame frame = tcp_to_peer(9001 - 40);
  for (std::size_t i = 54; i < frame.size(); ++i) frame[i] = static_cast<std::uint8_t>(i * 7);
  for (int i = 0; i < 40; ++i) ASSERT_TRUE(tap.send(frame));
  for (rte_mbuf* packet : receive(*port, 40)) {
    EXPECT_EQ(packet->nb_segs, 5);
    EXPECT_EQ(packet->pkt_len, frame.size());
    EXPECT_EQ(Mbufs::bytes_of(packet), frame);
    ASSERT_EQ(rte_eth_tx_burst(port->ethdev(), 0, &packet, 1), 1);
    Frame seen;
    VnetHeader header;
    ASSERT_TRUE(comes_true([&] { return tap.receive(seen, header); }));
    EXPECT_EQ(seen, frame);
  }
  EXPECT_EQ(statistics(*port).ipackets, 40U);
}

TEST_F(TapDriver, WhatDoesNotFitIsRefusedAndCounted) {
  Tap tap("tap0");
  const auto port = open(tap.name()).value();
  tap.set_mtu(20'000);  // the namespace is the task's
  ASSERT_TRUE(tap.send(tcp_to_peer(15'000)));
  ASSERT_TRUE(tap.send(tcp_to_peer(10)));
  const auto packets = receive(*port);
  ASSERT_EQ(packets.size(), 1U);
  EXPECT_EQ(Mbufs::bytes_of(packets[0]), tcp_to_peer(10));
  rte_pktmbuf_free(packets[0]);
  EXPECT_EQ(statistics(*port).ierrors, 1U);
  EXPECT_EQ(statistics(*port).ipackets, 1U);
}

TEST_F(TapDriver, SuperFramesBothWays) {
  Tap tap("tap0");
  const auto port = open(tap.name(), true).value();
  ASSERT_NE(port->send_offloads().tx & RTE_ETH_TX_OFFLOAD_TCP_TSO, 0U);
  struct Case {
    Frame frame;
    VnetHeader header;
    std::uint64_t flags;
    std::uint16_t l3;
  };
  const Case cases[] = {
      {tcp_to_peer(65'000), {1, VnetHeader::kTcp4, 54, 1448, 34, 16}, RTE_MBUF_F_TX_IPV4, 20},
      {ip_packet(kFromTask, kTask6, kPeer6, 6, tcp_segment(1000, 80, 0x10, 65'000)), {1, VnetHeader::kTcp6, 74, 1428, 54, 16}, RTE_MBUF_F_TX_IPV6, 40},
  };
  for (const Case& each : cases) {
    ASSERT_TRUE(tap.send(each.frame, each.header)) << strerror(errno);
    const auto packets = receive(*port);
    ASSERT_EQ(packets.size(), 1U);
    rte_mbuf* packet = packets[0];
    EXPECT_EQ(packet->pkt_len, each.frame.size());
    EXPECT_EQ(packet->ol_flags, RTE_MBUF_F_RX_LRO | RTE_MBUF_F_RX_L4_CKSUM_NONE);
    EXPECT_EQ(packet->tso_segsz, each.header.gso_size);
    EXPECT_GT(packet->nb_segs, 20);
    packet->ol_flags = each.flags | RTE_MBUF_F_TX_TCP_SEG | RTE_MBUF_F_TX_TCP_CKSUM;
    packet->l2_len = 14, packet->l3_len = each.l3, packet->l4_len = 20;
    ASSERT_EQ(rte_eth_tx_prepare(port->ethdev(), 0, &packet, 1), 1);
    ASSERT_EQ(rte_eth_tx_burst(port->ethdev(), 0, &packet, 1), 1);
    Frame seen;
    VnetHeader header;
    ASSERT_TRUE(comes_true([&] { return tap.receive(seen, header); }));
    EXPECT_EQ(seen.size(), each.frame.size());
    EXPECT_EQ(header.gso_type, each.header.gso_type);
    EXPECT_EQ(header.gso_size, each.header.gso_size);
    EXPECT_EQ(header.flags, VnetHeader::kNeedsChecksum);
    EXPECT_EQ(header.csum_start, each.header.csum_start);
    EXPECT_EQ(header.csum_offset, 16);
  }
  EXPECT_EQ(statistics(*port).ierrors + statistics(*port).oerrors, 0U);
}

TEST_F(TapDriver, PartialChecksums) {
  Tap tap("tap0");
  const auto port = open(tap.name(), true).value();
  const Frame frame = ip_packet(kFromTask, kTask, kPeer, 17, udp_datagram(1000, 53, 30));
  ASSERT_TRUE(tap.send(frame, {1, 0, 0, 0, 34, 6}));
  ASSERT_TRUE(tap.send(frame, {1, 0, 0, 0, 42, 2}));  // of nothing that we know
  const auto packets = receive(*port, 2);
  ASSERT_EQ(packets.size(), 2U);
  EXPECT_EQ(packets[0]->ol_flags, RTE_MBUF_F_RX_L4_CKSUM_NONE);
  EXPECT_EQ(Mbufs::bytes_of(packets[0]), frame);
  EXPECT_EQ(packets[1]->ol_flags, 0U);
  EXPECT_NE(Mbufs::bytes_of(packets[1]), frame) << "completed";
  rte_pktmbuf_free_bulk(const_cast<rte_mbuf**>(packets.data()), 2);
}

TEST_F(TapDriver, ForgedHeadersAreRefusedAndCounted) {
  Tap tap("tap0");
  const auto port = open(tap.name(), true).value();
  // The kernel lets these pass from a packet socket: segments of fewer bytes than any stream of its own has.
  ASSERT_TRUE(tap.send(tcp_to_peer(3000), {1, VnetHeader::kTcp4, 54, 4, 34, 16})) << strerror(errno);
  ASSERT_TRUE(tap.send(tcp_to_peer(3000), {1, VnetHeader::kTcp4, 54, 7, 34, 16})) << strerror(errno);
  ASSERT_TRUE(comes_true([&] { return is_quiet(*port) && statistics(*port).ierrors == 2; })) << statistics(*port).ierrors;
  EXPECT_EQ(statistics(*port).ipackets, 0U);
  ASSERT_TRUE(tap.send(tcp_to_peer(10)));
  const auto packets = receive(*port);
  ASSERT_EQ(packets.size(), 1U) << "those behind are not lost";
  rte_pktmbuf_free(packets[0]);
}

TEST_F(TapDriver, WithoutOffloadsTheKernelSegments) {
  Tap tap("tap0");
  const auto port = open(tap.name()).value();
  Frame frame = tcp_to_peer(30'000);
  const std::uint16_t pseudo = rte_ipv4_phdr_cksum(reinterpret_cast<const rte_ipv4_hdr*>(&frame[14]), 0);
  std::memcpy(&frame[50], &pseudo, 2);
  ASSERT_TRUE(tap.send(frame, {1, VnetHeader::kTcp4, 54, 1448, 34, 16}));
  const auto packets = receive(*port, 21);
  ASSERT_EQ(packets.size(), 21U);
  for (rte_mbuf* packet : packets) {
    EXPECT_LE(packet->pkt_len, 54U + 1448U);
    EXPECT_EQ(packet->ol_flags, 0U);
    Frame bytes = Mbufs::bytes_of(packet);
    std::uint16_t checksum;
    std::memcpy(&checksum, &bytes[50], 2);
    bytes[50] = bytes[51] = 0;
    EXPECT_EQ(checksum, rte_ipv4_udptcp_cksum(reinterpret_cast<const rte_ipv4_hdr*>(&bytes[14]), &bytes[34]));
    // Flags without an offload mean nothing.
    packet->ol_flags = RTE_MBUF_F_TX_IPV4 | RTE_MBUF_F_TX_TCP_SEG;
    packet->l2_len = 14, packet->l3_len = 20, packet->l4_len = 20, packet->tso_segsz = 100;
  }
  rte_mbuf* packet = packets[0];
  ASSERT_EQ(rte_eth_tx_burst(port->ethdev(), 0, &packet, 1), 1);
  Frame seen;
  VnetHeader header;
  ASSERT_TRUE(comes_true([&] { return tap.receive(seen, header); }));
  EXPECT_EQ(header.gso_type, 0);
  rte_pktmbuf_free_bulk(const_cast<rte_mbuf**>(packets.data()) + 1, 20);
}

TEST_F(TapDriver, AnEmptyPoolIsCountedAndPasses) {
  Tap tap("tap0");
  const auto port = open(tap.name()).value();
  std::vector<rte_mbuf*> taken;
  while (rte_mbuf* packet = rte_pktmbuf_alloc(pool_)) taken.push_back(packet);
  ASSERT_TRUE(tap.send(tcp_to_peer(10)));
  ASSERT_TRUE(comes_true([&] { return is_quiet(*port) && statistics(*port).rx_nombuf == 1; }));
  rte_pktmbuf_free_bulk(taken.data(), static_cast<unsigned>(taken.size()));
  ASSERT_TRUE(tap.send(tcp_to_peer(20)));
  const auto packets = receive(*port);
  ASSERT_EQ(packets.size(), 1U);
  EXPECT_EQ(Mbufs::bytes_of(packets[0]), tcp_to_peer(20));
  rte_pktmbuf_free(packets[0]);
}

TEST_F(TapDriver, TheInterfaceOutlivesThePort) {
  Tap tap("tap0");
  for (int i = 0; i < 3; ++i) {
    const auto port = open(tap.name(), i % 2 == 1).value();
    ASSERT_TRUE(tap.send(tcp_to_peer(10)));
    const auto packets = receive(*port);
    ASSERT_EQ(packets.size(), 1U);
    rte_pktmbuf_free(packets[0]);
  }
  EXPECT_TRUE(tap.exists());
}

TEST_F(TapDriver, NoTapNoPort) {
  EXPECT_FALSE(open("nobody").has_value());
  EXPECT_FALSE(open("").has_value());
  EXPECT_FALSE(open("lo").has_value());
  EXPECT_FALSE(Port::open({.devargs = std::string(kTapDriver) + "99,iface=tap0,color=blue"}, *pool_).has_value());
  EXPECT_EQ(if_nametoindex("nobody"), 0U) << "none is made in passing";
  EXPECT_EQ(ports_in_use(), 0U);
}

TEST_F(TapDriver, ANameThatIsInUseIsRefusedAndItsPortIsNotTouched) {
  Tap tap("tap0"), other("tap1");
  const auto port = open(tap.name()).value();
  const std::string device = port->devargs().substr(0, port->devargs().find(','));
  EXPECT_TRUE(is_open(device));
  EXPECT_FALSE(is_open(device + "0"));
  for (const Tap* each : {&tap, &other}) {
    const auto second = Port::open({.devargs = device + ",iface=" + each->name()}, *pool_);
    ASSERT_FALSE(second);
    EXPECT_EQ(second.error(), device + ": a port of this name is open already; give the device another name or number");
  }
  EXPECT_EQ(ports_in_use(), 1U);
  EXPECT_TRUE(port->link_up());
  ASSERT_TRUE(tap.send(tcp_to_peer(10)));
  const auto packets = receive(*port);
  ASSERT_EQ(packets.size(), 1U);
  rte_pktmbuf_free(packets[0]);
  EXPECT_TRUE(open(other.name())) << "by another name it is opened";
}

TEST_F(TapDriver, AnInterfaceThatIsDownTakesNothing) {
  Tap tap("tap0");
  const auto port = open(tap.name()).value();
  tap.set_up(false);
  EXPECT_FALSE(port->link_up());
  rte_mbuf* packet = chain(tcp_to_peer(10));
  EXPECT_EQ(rte_eth_tx_burst(port->ethdev(), 0, &packet, 1), 0);
  tap.set_up(true);
  EXPECT_TRUE(port->link_up());
  EXPECT_EQ(rte_eth_tx_burst(port->ethdev(), 0, &packet, 1), 1);
}

TEST_F(TapDriver, WakesWhoWaits) {
  Tap tap("tap0");
  const auto port = open(tap.name()).value();
  ASSERT_GE(port->wake().of_queue(0), 0);
  pollfd wait{port->wake().of_queue(0), POLLIN, 0};
  EXPECT_EQ(poll(&wait, 1, 0), 0);
  ASSERT_TRUE(tap.send(tcp_to_peer(10)));
  EXPECT_EQ(poll(&wait, 1, 5000), 1);
  const auto packets = receive(*port);
  ASSERT_EQ(packets.size(), 1U);
  rte_pktmbuf_free(packets[0]);
  EXPECT_EQ(poll(&wait, 1, 0), 0);
}

TEST_F(TapDriver, AnInterfaceThatIsGoneKeepsNobodyAwake) {
  Tap tap("tap0");
  const auto port = open(tap.name()).value();
  EXPECT_TRUE(is_quiet(*port));
  tap.remove();
  ASSERT_FALSE(tap.exists());
  EXPECT_FALSE(port->link_up());
  pollfd wait{port->wake().of_queue(0), POLLIN, 0};
  EXPECT_TRUE(comes_true([&] { return is_quiet(*port) && poll(&wait, 1, 0) == 0; }));
  rte_mbuf* packet = chain(tcp_to_peer(10));
  EXPECT_EQ(rte_eth_tx_burst(port->ethdev(), 0, &packet, 1), 0);
  rte_pktmbuf_free(packet);
  EXPECT_FALSE(port->link_up());
}

TEST_F(TapDriver, SeveralQueues) {
  Tap tap("tap0");
  const auto port = open(tap.name(), false, 4).value();
  ASSERT_EQ(port->queues(), 4);
  for (std::uint16_t flow = 0; flow < 64; ++flow) {
    ASSERT_TRUE(tap.send(ip_packet(kFromTask, kTask, kPeer, 17, udp_datagram(static_cast<std::uint16_t>(1000 + flow), 53))));
  }
  std::size_t of_queue[4] = {}, all = 0;
  EXPECT_TRUE(comes_true([&] {
    for (std::uint16_t queue = 0; queue < 4; ++queue) {
      rte_mbuf* burst[32];
      const std::uint16_t got = rte_eth_rx_burst(port->ethdev(), queue, burst, 32);
      rte_pktmbuf_free_bulk(burst, got);
      of_queue[queue] += got;
      all += got;
    }
    return all == 64;
  })) << all;
  EXPECT_GT(std::ranges::count_if(of_queue, [](std::size_t count) { return count != 0; }), 1);
  for (std::uint16_t queue = 0; queue < 4; ++queue) {
    rte_mbuf* packet = chain(ip_packet(kToTask, kPeer, kTask, 17, udp_datagram(53, 1000)));
    ASSERT_EQ(rte_eth_tx_burst(port->ethdev(), queue, &packet, 1), 1);
    Frame seen;
    VnetHeader header;
    EXPECT_TRUE(comes_true([&] { return tap.receive(seen, header); }));
  }
}

// One thread after another, as when an endpoint moves.
TEST_F(TapDriver, AnotherThreadMayPollIt) {
  Tap tap("tap0"), other("tap1");
  const auto port = open(tap.name()).value(), second = open(other.name()).value();
  for (int i = 0; i < 6; ++i) {
    ASSERT_TRUE(tap.send(tcp_to_peer(10)));
    std::thread([&] {
      ASSERT_TRUE(is_quiet(*second));
      const auto packets = receive(*port);
      ASSERT_EQ(packets.size(), 1U) << i;
      rte_pktmbuf_free(packets[0]);
    }).join();
    EXPECT_TRUE(is_quiet(*port));
  }
}

thread_local bool watched = false;
std::atomic<std::uint64_t> reads{0};

void on_read(int, siginfo_t*, void* context) {
  if (watched) ++reads;
  static_cast<ucontext_t*>(context)->uc_mcontext.gregs[REG_RAX] = -EAGAIN;
}

// Reads are counted, and refused as those of a tap that has nothing.
TEST_F(TapDriver, QuietPortsAreNotRead) {
  Tap tap("tap0"), other("tap1");
  const auto port = open(tap.name()).value(), second = open(other.name()).value();
  std::thread([&] {
    EXPECT_TRUE(is_quiet(*port) && is_quiet(*second));
    struct sigaction action {};
    action.sa_sigaction = on_read;
    action.sa_flags = SA_SIGINFO | SA_NODEFER;
    sigaction(SIGSYS, &action, nullptr);
    sock_filter code[] = {BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 0), BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_readv, 0, 1),
                          BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP), BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)};
    const sock_fprog program{std::size(code), code};
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    ASSERT_EQ(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program), 0);
    watched = true;
    rte_mbuf* packet;
    for (int i = 0; i < 20'000; ++i) {
      EXPECT_EQ(rte_eth_rx_burst(port->ethdev(), 0, &packet, 1), 0);
      EXPECT_EQ(rte_eth_rx_burst(second->ethdev(), 0, &packet, 1), 0);
    }
    EXPECT_EQ(reads.load(), 0U);
    ASSERT_TRUE(tap.send(tcp_to_peer(10)));
    EXPECT_TRUE(comes_true([&] {
      for (const Port* each : {port.get(), second.get()}) EXPECT_EQ(rte_eth_rx_burst(each->ethdev(), 0, &packet, 1), 0);
      return reads.load() != 0;
    })) << "one that has something is";
    watched = false;
  }).join();
}

}  // namespace
}  // namespace trunkline::test

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  if (!trunkline::has_tap_driver()) {
    std::puts("this DPDK came without its driver SDK");
    return 77;  // skipped
  }
  if (unshare(CLONE_NEWNET) != 0) {
    std::perror("a network namespace (is this root?)");
    return 1;
  }
  std::ofstream("/proc/sys/net/ipv6/conf/default/disable_ipv6") << 1;  // no router solicitations
  char name[] = "tap_driver_test", no_huge[] = "--no-huge", memory[] = "-m", megabytes[] = "64", no_pci[] = "--no-pci", in_memory[] = "--no-shconf",
       telemetry[] = "--no-telemetry", level[] = "--log-level=4";
  char* eal[] = {name, no_huge, memory, megabytes, no_pci, in_memory, telemetry, level};
  if (rte_eal_init(std::size(eal), eal) < 0) return 1;
  const int result = RUN_ALL_TESTS();
  rte_eal_cleanup();
  return result;
}
