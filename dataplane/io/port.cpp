// SPDX-License-Identifier: BSD-3-Clause
#include "dataplane/io/port.h"

#if __has_include(<ethdev_driver.h>)
#include <ethdev_driver.h>
#define TRUNKLINE_DRIVER_SDK
#endif
#include <rte_errno.h>
#include <rte_eth_vhost.h>
#include <rte_ethdev.h>
#include <rte_mempool.h>
#include <rte_vhost.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <string_view>

#include "dataplane/io/probed_device.h"
#include "dataplane/io/tap_driver.h"

namespace trunkline {
namespace {

// A super-frame is of use only with the size of its segments, which of DPDK's drivers these give.
constexpr std::string_view kTellSegmentSize[] = {"net_virtio", "net_virtio_user", "net_vhost", kTapDriver};
// Whose receive interrupts are an eventfd a queue, which nobody else reads. net_ena's were never seen at work; idle_ladder.h says what then.
constexpr std::string_view kArmed[] = {"net_virtio", "net_virtio_user", "net_ena"};
constexpr std::uint64_t kReceiveChecksums = RTE_ETH_RX_OFFLOAD_TCP_CKSUM | RTE_ETH_RX_OFFLOAD_UDP_CKSUM;
constexpr std::uint64_t kSendChecksums = RTE_ETH_TX_OFFLOAD_TCP_CKSUM | RTE_ETH_TX_OFFLOAD_UDP_CKSUM;
constexpr std::uint64_t kSend = kSendChecksums | RTE_ETH_TX_OFFLOAD_TCP_TSO | RTE_ETH_TX_OFFLOAD_IPV4_CKSUM;

// A driver that may be handed partial checksums may be handed super-frames; nobody needs the one without the other.
std::uint64_t receive_offloads(const rte_eth_dev_info& info) {
  if (std::ranges::find(kTellSegmentSize, std::string_view(info.driver_name)) == std::end(kTellSegmentSize)) return 0;
  if ((info.rx_offload_capa & kReceiveChecksums) != kReceiveChecksums) return 0;
  return info.rx_offload_capa & (kReceiveChecksums | RTE_ETH_RX_OFFLOAD_TCP_LRO);
}

// What a vhost-user program that negotiated these features takes of us. Segmentation is of both families or not asked for.
std::uint64_t agreed_by(std::uint64_t features) {
  // VIRTIO_NET_F_*, virtio 1.1, 5.1.3; <linux/virtio_net.h> is not for C++.
  constexpr unsigned kGuestCsum = 1, kGuestTso4 = 7, kGuestTso6 = 8;
  const auto has = [features](unsigned bit) { return (features >> bit & 1) != 0; };
  if (!has(kGuestCsum)) return 0;
  return kSendChecksums | (has(kGuestTso4) && has(kGuestTso6) ? RTE_ETH_TX_OFFLOAD_TCP_TSO : 0);
}

bool is_up(std::uint16_t ethdev) {
  rte_eth_link link{};
  return rte_eth_link_get_nowait(ethdev, &link) == 0 && link.link_status == RTE_ETH_LINK_UP;
}

// Called on a thread of the vhost library, soon after a program has come, or after the last packet was sent to one that went. Between
// the two nothing is agreed.
int note_agreement(std::uint16_t ethdev, rte_eth_event_type, void* agreed, void*) {
  std::uint64_t features = 0;
  const bool known = is_up(ethdev) && rte_vhost_get_negotiated_features(rte_eth_vhost_get_vid_from_port_id(ethdev), &features) == 0;
  static_cast<std::atomic<std::uint64_t>*>(agreed)->store(known ? agreed_by(features) : 0, std::memory_order_relaxed);
  return 0;
}

constexpr std::uint32_t kFrameOverhead = RTE_ETHER_HDR_LEN + RTE_ETHER_CRC_LEN;

// rte_eth_dev_set_mtu() holds a driver to the largest frame that it states. net_tap drops what is larger than the MTU
// that ethdev remembers, so where the driver's statement is not the truth the memory is corrected: with the driver SDK
// only, which our build of DPDK has.
int believe_interface_mtu([[maybe_unused]] std::uint16_t ethdev, [[maybe_unused]] std::uint16_t mtu) {
#ifdef TRUNKLINE_DRIVER_SDK
  rte_eth_devices[ethdev].data->mtu = mtu;
  return 0;
#else
  return -ENOTSUP;
#endif
}

// Until the first signal that one of its queues has something, net_tap asks the kernel at every poll of every queue; from
// then on only after another signal. A tap that nobody speaks to would never have that first one. The signal is a
// real-time one that the driver chose; its handler counts.
void start_tap_signals() {
  for (int number = SIGRTMIN + 1; number < SIGRTMAX; ++number) {
    struct sigaction action {};
    if (sigaction(number, nullptr, &action) != 0 || action.sa_handler == SIG_DFL || action.sa_handler == SIG_IGN) continue;
    kill(getpid(), number);
    return;
  }
}

}  // namespace

std::uint16_t max_ports() { return RTE_MAX_ETHPORTS; }
std::uint16_t ports_in_use() { return rte_eth_dev_count_total(); }
bool is_open(const std::string& device) { return device_exists(device); }

std::expected<std::unique_ptr<Port>, std::string> Port::open(const PortSettings& settings, rte_mempool& pool) {
  std::unique_ptr<Port> port(new Port(settings));
  (void)has_tap_driver();  // the bus must know it
  const auto ethdev = probe_device(settings.devargs);
  if (!ethdev) return std::unexpected(ethdev.error());
  port->ethdev_ = *ethdev;
  port->probed_ = true;
  if (auto configured = port->configure(pool); !configured) {
    return std::unexpected(DeviceName::parse(settings.devargs).name + ": " + configured.error());
  }
  return port;
}

void Port::note(std::string what, int result) {
  capabilities_.push_back({std::move(what), result == 0, result == 0 ? "" : rte_strerror(-result)});
}

std::expected<void, std::string> Port::configure(rte_mempool& pool) {
  rte_eth_dev_info info{};
  if (const int result = rte_eth_dev_info_get(ethdev_, &info); result < 0) {
    return std::unexpected(std::string("no device information: ") + rte_strerror(-result));
  }
  rte_eth_conf conf{};
  conf.rxmode.mtu = settings_.mtu;
  // Jumbo frames are chained over buffers of ordinary size where the driver can.
  conf.rxmode.offloads = info.rx_offload_capa & RTE_ETH_RX_OFFLOAD_SCATTER;
  conf.txmode.offloads = info.tx_offload_capa & RTE_ETH_TX_OFFLOAD_MULTI_SEGS;
  const bool has_program = std::string_view(info.driver_name) == "net_vhost";  // whose features decide
  if (settings_.offloads && has_program) {
    send_offloads_ = {.tx = kSendChecksums | RTE_ETH_TX_OFFLOAD_TCP_TSO, .agreed = &agreed_};
    // Nothing is asked of the driver, which would then make the checksums that a program does not take half done, and makes them
    // wrong (rte_raw_cksum_mbuf of 22.11, see segment.cpp). What it gets with a request it hands on.
    conf.rxmode.offloads |= receive_offloads(info);
    rte_eth_dev_callback_register(ethdev_, RTE_ETH_EVENT_INTR_LSC, note_agreement, &agreed_);
  } else if (settings_.offloads) {
    send_offloads_ = {.tx = info.tx_offload_capa & kSend, .max_segments = info.tx_desc_lim.nb_seg_max != 0 ? info.tx_desc_lim.nb_seg_max : std::uint16_t{0xffff}};
    conf.txmode.offloads |= send_offloads_.tx;
    if (conf.rxmode.offloads != 0) conf.rxmode.offloads |= receive_offloads(info);  // they come in chains
    if ((conf.rxmode.offloads & RTE_ETH_RX_OFFLOAD_TCP_LRO) != 0) conf.rxmode.max_lro_pkt_size = info.max_lro_pkt_size;
  }
  // net_tap and net_af_packet state a largest frame of 1522 or 1518 and carry whatever their interface carries.
  const bool interface_decides = info.max_rx_pktlen < settings_.mtu + kFrameOverhead;
  if (interface_decides) conf.rxmode.mtu = 0;
  if (!interface_decides && settings_.mtu > info.max_mtu) {
    return std::unexpected("its largest MTU is " + std::to_string(info.max_mtu) + ", and " + std::to_string(settings_.mtu) +
                           " is asked for; lower the mtu of the trunk, or of the port");
  }
  queues_ = std::max<std::uint16_t>(1, std::min({settings_.queues, info.max_rx_queues, info.max_tx_queues}));
  // A tap's descriptor can be waited for as it is. Cards announce by interrupts that have to be armed.
  const std::string_view driver = info.driver_name;
  const bool is_tap = driver == "net_tap" || driver == kTapDriver;
  send_offloads_.writes_take_time = is_tap;
  wake_must_be_armed_ = std::ranges::find(kArmed, driver) != std::end(kArmed);
  conf.intr_conf.rxq = is_tap || wake_must_be_armed_ ? 1 : 0;
  int configured = rte_eth_dev_configure(ethdev_, queues_, queues_, &conf);
  if (configured < 0 && wake_must_be_armed_) {  // its bus has no interrupt for each queue (uio_pci_generic, say)
    wake_must_be_armed_ = false;
    conf.intr_conf.rxq = 0;
    configured = rte_eth_dev_configure(ethdev_, queues_, queues_, &conf);
  }
  if (const int result = configured; result < 0) {
    return std::unexpected(std::string("cannot be configured: ") + rte_strerror(-result));
  }
  std::uint16_t rx = settings_.rx_descriptors;
  std::uint16_t tx = settings_.tx_descriptors;
  if (const int result = rte_eth_dev_adjust_nb_rx_tx_desc(ethdev_, &rx, &tx); result < 0) {
    return std::unexpected(std::string("descriptor counts refused: ") + rte_strerror(-result));
  }
  const unsigned socket = rte_eth_dev_socket_id(ethdev_) < 0 ? 0 : static_cast<unsigned>(rte_eth_dev_socket_id(ethdev_));
  rte_eth_rxconf rx_conf = info.default_rxconf;
  rx_conf.offloads = conf.rxmode.offloads;
  for (std::uint16_t queue = 0; queue < queues_; ++queue) {
    const int result = rte_eth_rx_queue_setup(ethdev_, queue, rx, socket, &rx_conf, &pool);
    if (result < 0) return std::unexpected(std::string("receive queue refused: ") + rte_strerror(-result) +
                           " (a port that cannot chain buffers needs buffers.data_room_bytes of the MTU and 146 more)");
  }
  rte_eth_txconf tx_conf = info.default_txconf;
  tx_conf.offloads = conf.txmode.offloads;
  for (std::uint16_t queue = 0; queue < queues_; ++queue) {
    const int result = rte_eth_tx_queue_setup(ethdev_, queue, tx, socket, &tx_conf);
    if (result < 0) return std::unexpected(std::string("transmit queue refused: ") + rte_strerror(-result));
  }
  note("mtu " + std::to_string(settings_.mtu),
       interface_decides ? believe_interface_mtu(ethdev_, settings_.mtu) : rte_eth_dev_set_mtu(ethdev_, settings_.mtu));
  if (const int result = rte_eth_dev_start(ethdev_); result < 0) {
    return std::unexpected(std::string("cannot be started: ") + rte_strerror(-result));
  }
  started_ = true;
  if (conf.intr_conf.rxq != 0) find_wake_descriptors();
  if (driver == "net_tap") start_tap_signals();
  if (settings_.promiscuous) note("promiscuous mode", rte_eth_promiscuous_enable(ethdev_));
  capabilities_.push_back({"wakes an idle worker", !wake_descriptors_.empty(), "the driver's interrupts are not used, or there is not one a queue; asked after each idle.long_sleep_us"});
  capabilities_.push_back({"chained buffers (jumbo frames)", (conf.rxmode.offloads & RTE_ETH_RX_OFFLOAD_SCATTER) != 0,
                           "the driver cannot; buffers.data_room_bytes must hold a whole frame"});
  if (settings_.offloads) {
    const bool super_frames = has_program || (conf.rxmode.offloads & RTE_ETH_RX_OFFLOAD_TCP_LRO) != 0;
    capabilities_.push_back({"receives super-frames", super_frames, super_frames ? "" : "the driver does not hand them over, or not with the size of their segments"});
  }
  return {};
}

void Port::find_wake_descriptors() {
  for (std::uint16_t queue = 0; queue < queues_; ++queue) {
    const int descriptor = rte_eth_dev_rx_intr_ctl_q_get_fd(ethdev_, queue);
    if (descriptor < 0) return wake_descriptors_.clear();
    wake_descriptors_.push_back(descriptor);
  }
}

Port::~Port() {
  if (!probed_) return;
  // -EAGAIN: it is being called.
  while (send_offloads_.agreed != nullptr && rte_eth_dev_callback_unregister(ethdev_, RTE_ETH_EVENT_INTR_LSC, note_agreement, &agreed_) == -EAGAIN) {
  }
  remove_device(settings_.devargs, ethdev_);
}

MacAddress Port::mac() const {
  rte_ether_addr address{};
  rte_eth_macaddr_get(ethdev_, &address);
  MacAddress mac;
  std::memcpy(mac.bytes.data(), address.addr_bytes, 6);
  return mac;
}

std::vector<Capability> Port::capabilities() const {
  std::vector<Capability> all = capabilities_;
  if (!settings_.offloads) return all;
  const bool program_decides = send_offloads_.agreed != nullptr;
  const std::uint64_t now = program_decides ? send_offloads_.tx & agreed_.load(std::memory_order_relaxed) : send_offloads_.tx;
  const std::string who = !program_decides ? "the driver cannot" : link_up() ? "the program behind the port did not agree to it" : "no program is there";
  const auto say = [&](const char* what, bool available) { all.push_back({what, available, available ? "" : who + "; the engine does"}); };
  say("sends super-frames", (now & RTE_ETH_TX_OFFLOAD_TCP_TSO) != 0);
  say("sends with checksums to make", (now & kSendChecksums) == kSendChecksums);
  return all;
}

bool Port::link_up() const { return is_up(ethdev_); }

}  // namespace trunkline
