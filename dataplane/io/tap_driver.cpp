// SPDX-License-Identifier: BSD-3-Clause
#include "dataplane/io/tap_driver.h"

#if __has_include(<ethdev_driver.h>)
// Drivers may use what DPDK promises to nobody else.
#define ALLOW_INTERNAL_API
#define ALLOW_EXPERIMENTAL_API
#include <bus_vdev_driver.h>
#include <ethdev_driver.h>
#include <ethdev_vdev.h>
#include <fcntl.h>
#include <net/if.h>
#include <rte_interrupts.h>
#include <rte_kvargs.h>

#include <cerrno>
#include <cstdio>
#include <cstring>

#include "dataplane/io/tap_queue.h"
#include "dataplane/io/vnet_header.h"

namespace trunkline {
namespace {

constexpr std::uint16_t kMaxQueues = 16;
constexpr std::uint32_t kOverhead = RTE_ETHER_HDR_LEN + RTE_ETHER_CRC_LEN;  // a tap has no checksum, but a frame may have a tag
constexpr std::uint16_t kMaxMtu = 65535 - RTE_ETHER_HDR_LEN;                // the kernel's for taps
// An IPv6 packet has its header beside the 64 KB.
constexpr std::uint32_t kLargestSuperFrame = 65535 + 40 + kOverhead;
constexpr std::uint64_t kReceiveOffloads = RTE_ETH_RX_OFFLOAD_TCP_LRO | RTE_ETH_RX_OFFLOAD_TCP_CKSUM | RTE_ETH_RX_OFFLOAD_UDP_CKSUM;
constexpr std::uint64_t kSendOffloads = RTE_ETH_TX_OFFLOAD_TCP_TSO | RTE_ETH_TX_OFFLOAD_TCP_CKSUM | RTE_ETH_TX_OFFLOAD_UDP_CKSUM;

// dev_private: zeroed memory, freed with the port.
struct TapPort {
  char interface[IFNAMSIZ];
  rte_ether_addr mac;
  TapQueue* queues[kMaxQueues];
  rte_mempool* pools[kMaxQueues];
  rte_eth_stats before;  // the last reset
};

TapPort& of(rte_eth_dev* dev) { return *static_cast<TapPort*>(dev->data->dev_private); }

// The kernel has one switch for both ways.
bool has_offloads(const rte_eth_dev* dev) {
  return (dev->data->dev_conf.rxmode.offloads & kReceiveOffloads) == kReceiveOffloads &&
         (dev->data->dev_conf.txmode.offloads & kSendOffloads) == kSendOffloads;
}

int open_queue(TapPort& tap, std::uint16_t index, std::uint16_t port) {
  if (tap.queues[index] != nullptr) return 0;
  TapQueue* queue = TapQueue::take();
  if (const int result = queue->open(tap.interface, port); result < 0) {
    TapQueue::give_back(queue);
    return result;
  }
  tap.queues[index] = queue;
  return 0;
}

void close_queue(TapPort& tap, std::uint16_t index) {
  if (tap.queues[index] != nullptr) TapQueue::give_back(tap.queues[index]);
  tap.queues[index] = nullptr;
}

void forget_interrupts(rte_eth_dev* dev) {
  if (dev->intr_handle == nullptr) return;
  rte_intr_vec_list_free(dev->intr_handle);
  rte_intr_instance_free(dev->intr_handle);
  dev->intr_handle = nullptr;
}

// The descriptors are those that the queues read from: there is nothing to arm and nothing to acknowledge.
int offer_interrupts(rte_eth_dev* dev) {
  const std::uint16_t count = dev->data->nb_rx_queues;
  rte_intr_handle* handle = rte_intr_instance_alloc(RTE_INTR_INSTANCE_F_PRIVATE);
  if (handle == nullptr) return -ENOMEM;
  dev->intr_handle = handle;
  bool done = rte_intr_type_set(handle, RTE_INTR_HANDLE_EXT) == 0 && rte_intr_vec_list_alloc(handle, nullptr, count) == 0 &&
              rte_intr_nb_efd_set(handle, count) == 0;
  for (std::uint16_t i = 0; done && i < count; ++i) {
    done = rte_intr_vec_list_index_set(handle, i, RTE_INTR_VEC_RXTX_OFFSET + i) == 0 &&
           rte_intr_efds_index_set(handle, i, of(dev).queues[i]->descriptor()) == 0;
  }
  if (!done) forget_interrupts(dev);
  return done ? 0 : -ENOMEM;
}

// --- the port's life ---------------------------------------------------------------------------------------------------

int configure(rte_eth_dev* dev) {
  TapPort& tap = of(dev);
  if (dev->data->nb_rx_queues != dev->data->nb_tx_queues) return -EINVAL;
  for (std::uint16_t i = 0; i < kMaxQueues; ++i) {
    if (i >= dev->data->nb_rx_queues) close_queue(tap, i);
    else if (const int result = open_queue(tap, i, dev->data->port_id); result < 0) return result;
  }
  // Now, not at start: what comes in between is to be as it was asked for.
  return tap.queues[0] == nullptr ? -EINVAL : tap.queues[0]->set_offloads(has_offloads(dev));
}

int receive_queue(rte_eth_dev* dev, std::uint16_t index, std::uint16_t, unsigned, const rte_eth_rxconf*, rte_mempool* pool) {
  of(dev).pools[index] = pool;
  dev->data->rx_queues[index] = of(dev).queues[index];
  return 0;
}

int send_queue(rte_eth_dev* dev, std::uint16_t index, std::uint16_t, unsigned, const rte_eth_txconf*) {
  dev->data->tx_queues[index] = of(dev).queues[index];
  return 0;
}

int stop(rte_eth_dev* dev) {
  for (TapQueue* queue : of(dev).queues) {
    if (queue != nullptr) queue->stop();
  }
  forget_interrupts(dev);
  dev->data->dev_link.link_status = RTE_ETH_LINK_DOWN;
  return 0;
}

int start(rte_eth_dev* dev) {
  const bool chained = (dev->data->dev_conf.rxmode.offloads & RTE_ETH_RX_OFFLOAD_SCATTER) != 0;
  const bool offloads = has_offloads(dev);
  const std::uint32_t largest = offloads ? kLargestSuperFrame : dev->data->mtu + kOverhead;
  for (std::uint16_t i = 0; i < dev->data->nb_rx_queues; ++i) {
    const int result = of(dev).queues[i]->start(*of(dev).pools[i], largest, chained, offloads);
    if (result == 0) continue;
    stop(dev);
    return result;
  }
  if (dev->data->dev_conf.intr_conf.rxq == 0) return 0;
  const int result = offer_interrupts(dev);
  if (result < 0) stop(dev);
  return result;
}

int close(rte_eth_dev* dev) {
  for (std::uint16_t i = 0; i < kMaxQueues; ++i) close_queue(of(dev), i);
  forget_interrupts(dev);
  dev->data->mac_addrs = nullptr;  // part of dev_private, which is freed
  return 0;
}

// --- what is asked of it -------------------------------------------------------------------------------------------------

int information(rte_eth_dev*, rte_eth_dev_info* info) {
  info->if_index = 0;
  info->max_mac_addrs = 1;
  info->max_rx_pktlen = kMaxMtu + kOverhead;
  info->min_mtu = RTE_ETHER_MIN_MTU;
  info->max_mtu = kMaxMtu;
  info->max_lro_pkt_size = kLargestSuperFrame;
  info->max_rx_queues = info->max_tx_queues = kMaxQueues;
  info->rx_offload_capa = kReceiveOffloads | RTE_ETH_RX_OFFLOAD_SCATTER;
  info->tx_offload_capa = kSendOffloads | RTE_ETH_TX_OFFLOAD_MULTI_SEGS;
  return 0;
}

int update_link(rte_eth_dev* dev, int) {
  rte_eth_link link{};
  link.link_speed = RTE_ETH_SPEED_NUM_10G;  // what the kernel says of taps too is a number out of the air
  link.link_duplex = RTE_ETH_LINK_FULL_DUPLEX;
  link.link_autoneg = RTE_ETH_LINK_FIXED;
  link.link_status = of(dev).queues[0] != nullptr && of(dev).queues[0]->is_up() ? RTE_ETH_LINK_UP : RTE_ETH_LINK_DOWN;
  return rte_eth_linkstatus_set(dev, &link);
}

// The buffers for a frame are laid out at start.
int set_mtu(rte_eth_dev* dev, std::uint16_t) { return dev->data->dev_started ? -EBUSY : 0; }

// A tap receives everything anyhow.
int nothing_to_do(rte_eth_dev*) { return 0; }

rte_eth_stats counted(TapPort& tap) {
  rte_eth_stats stats{};
  for (std::uint16_t i = 0; i < kMaxQueues; ++i) {
    const TapQueue* queue = tap.queues[i];
    if (queue == nullptr) continue;
    stats.ipackets += queue->rx_packets.read();
    stats.ibytes += queue->rx_bytes.read();
    stats.ierrors += queue->rx_refused.read();
    stats.rx_nombuf += queue->rx_no_buffer.read();
    stats.opackets += queue->tx_packets.read();
    stats.obytes += queue->tx_bytes.read();
    stats.oerrors += queue->tx_refused.read();
  }
  return stats;
}

int read_statistics(rte_eth_dev* dev, rte_eth_stats* stats) {
  const rte_eth_stats now = counted(of(dev));
  const rte_eth_stats& before = of(dev).before;
  stats->ipackets = now.ipackets - before.ipackets;
  stats->ibytes = now.ibytes - before.ibytes;
  stats->ierrors = now.ierrors - before.ierrors;
  stats->rx_nombuf = now.rx_nombuf - before.rx_nombuf;
  stats->opackets = now.opackets - before.opackets;
  stats->obytes = now.obytes - before.obytes;
  stats->oerrors = now.oerrors - before.oerrors;
  return 0;
}

// Counters have one writer, the worker: what they say now is remembered.
int reset_statistics(rte_eth_dev* dev) {
  of(dev).before = counted(of(dev));
  return 0;
}

std::uint16_t prepare(void*, rte_mbuf** packets, std::uint16_t count) {
  for (std::uint16_t i = 0; i < count; ++i) {
    if (const int result = prepare_vnet_packet(*packets[i]); result < 0) {
      rte_errno = -result;
      return i;
    }
  }
  return count;
}

const eth_dev_ops operations = [] {
  eth_dev_ops ops{};
  ops.dev_configure = configure;
  ops.dev_start = start;
  ops.dev_stop = stop;
  ops.dev_close = close;
  ops.link_update = update_link;
  ops.promiscuous_enable = ops.promiscuous_disable = nothing_to_do;
  ops.allmulticast_enable = ops.allmulticast_disable = nothing_to_do;
  ops.mtu_set = set_mtu;
  ops.stats_get = read_statistics;
  ops.stats_reset = reset_statistics;
  ops.dev_infos_get = information;
  ops.rx_queue_setup = receive_queue;
  ops.tx_queue_setup = send_queue;
  return ops;
}();

// --- the bus -------------------------------------------------------------------------------------------------------------

int read_interface(const char*, const char* value, void* name) {
  if (value == nullptr || value[0] == '\0' || std::strlen(value) >= IFNAMSIZ) return -EINVAL;
  std::snprintf(static_cast<char*>(name), IFNAMSIZ, "%s", value);
  return 0;
}

int probe(rte_vdev_device* device) {
  static const char* const keys[] = {"iface", nullptr};
  char interface[IFNAMSIZ] = {};
  rte_kvargs* arguments = rte_kvargs_parse(rte_vdev_device_args(device), keys);
  if (arguments == nullptr) return -EINVAL;
  const int read = rte_kvargs_process(arguments, "iface", read_interface, interface);
  rte_kvargs_free(arguments);
  if (read < 0 || interface[0] == '\0') return -EINVAL;

  rte_eth_dev* dev = rte_eth_vdev_allocate(device, sizeof(TapPort));
  if (dev == nullptr) return -ENOMEM;
  TapPort& tap = of(dev);
  std::memcpy(tap.interface, interface, sizeof interface);
  dev->data->mac_addrs = &tap.mac;
  dev->dev_ops = &operations;
  dev->rx_pkt_burst = TapQueue::receive;
  dev->tx_pkt_burst = TapQueue::send;
  dev->tx_pkt_prepare = prepare;
  // Opened here, so that a port without a tap fails at once.
  int result = open_queue(tap, 0, dev->data->port_id);
  if (result == 0) result = tap.queues[0]->read_mac(tap.mac.addr_bytes);
  if (result < 0) {
    close(dev);
    rte_eth_dev_release_port(dev);
    return result;
  }
  rte_eth_dev_probing_finish(dev);
  return 0;
}

int remove(rte_vdev_device* device) {
  rte_eth_dev* dev = rte_eth_dev_allocated(rte_vdev_device_name(device));
  return dev == nullptr ? 0 : rte_eth_dev_close(dev->data->port_id);
}

rte_vdev_driver driver = [] {
  rte_vdev_driver made{};
  made.driver.name = kTapDriver;
  made.probe = probe;
  made.remove = remove;
  return made;
}();

}  // namespace

bool has_tap_driver() {
  [[maybe_unused]] static const bool registered = (rte_vdev_register(&driver), true);
  return true;
}

int duplicate_tap_descriptor(std::uint16_t ethdev) {
  if (!rte_eth_dev_is_valid_port(ethdev) || rte_eth_devices[ethdev].dev_ops != &operations) return -1;
  const TapQueue* queue = of(&rte_eth_devices[ethdev]).queues[0];
  return queue == nullptr ? -1 : fcntl(queue->descriptor(), F_DUPFD_CLOEXEC, 0);
}

}  // namespace trunkline

#else

namespace trunkline {
bool has_tap_driver() { return false; }
int duplicate_tap_descriptor(std::uint16_t) { return -1; }
}  // namespace trunkline

#endif
