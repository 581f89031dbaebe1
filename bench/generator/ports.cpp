// SPDX-License-Identifier: BSD-3-Clause
#include "bench/generator/ports.h"

#include <rte_cycles.h>
#include <rte_dev.h>
#include <rte_errno.h>
#include <rte_ethdev.h>
#include <rte_mbuf.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

namespace trunkline::generator {
namespace {

std::unexpected<std::string> failed(const std::string& device, const char* step, int result) {
  return std::unexpected(device + ": " + step + ": " + rte_strerror(result < 0 ? -result : result));
}

}  // namespace

std::expected<Port, std::string> Port::open(const std::string& devargs, std::uint16_t rx_queues, std::uint16_t descriptors,
                                            rte_mempool& receive_pool) {
  Port port;
  port.rx_queues_ = rx_queues;
  const std::size_t comma = devargs.find(',');
  const std::string name = devargs.substr(0, comma);
  const std::string arguments = comma == std::string::npos ? "" : devargs.substr(comma + 1);
  if (const int result = rte_eal_hotplug_add("vdev", name.c_str(), arguments.c_str()); result < 0) {
    return failed(name, "no such device, or its driver refused it", result);
  }
  if (const int result = rte_eth_dev_get_port_by_name(name.c_str(), &port.ethdev_); result < 0) {
    return failed(name, "the driver made no port", result);
  }
  rte_eth_conf conf{};
  if (const int result = rte_eth_dev_configure(port.ethdev_, rx_queues, 1, &conf); result < 0) {
    return failed(name, "cannot be configured", result);
  }
  std::uint16_t rx = descriptors, tx = descriptors;
  if (const int result = rte_eth_dev_adjust_nb_rx_tx_desc(port.ethdev_, &rx, &tx); result < 0) {
    return failed(name, "descriptor counts refused", result);
  }
  for (std::uint16_t queue = 0; queue < rx_queues; ++queue) {
    if (const int result = rte_eth_rx_queue_setup(port.ethdev_, queue, rx, 0, nullptr, &receive_pool); result < 0) {
      return failed(name, "receive queue refused", result);
    }
  }
  if (const int result = rte_eth_tx_queue_setup(port.ethdev_, 0, tx, 0, nullptr); result < 0) {
    return failed(name, "transmit queue refused", result);
  }
  // A memif client cannot be started before its server is there.
  for (int attempt = 0;; ++attempt) {
    const int result = rte_eth_dev_start(port.ethdev_);
    if (result == 0) return port;
    if (attempt == 600) return failed(name, "cannot be started", result);
    usleep(100000);
  }
}

bool Port::link_up() const {
  rte_eth_link link{};
  return rte_eth_link_get_nowait(ethdev_, &link) == 0 && link.link_status == RTE_ETH_LINK_UP;
}

std::uint16_t Port::receive(std::span<rte_mbuf*> packets) {
  std::uint16_t count = rte_eth_rx_burst(ethdev_, next_queue_, packets.data(), static_cast<std::uint16_t>(packets.size()));
  for (std::uint16_t other = 1; count == 0 && other < rx_queues_; ++other) {
    next_queue_ = static_cast<std::uint16_t>((next_queue_ + 1) % rx_queues_);
    count = rte_eth_rx_burst(ethdev_, next_queue_, packets.data(), static_cast<std::uint16_t>(packets.size()));
  }
  return count;
}

std::uint16_t Port::send(std::span<rte_mbuf*> packets) const {
  return rte_eth_tx_burst(ethdev_, 0, packets.data(), static_cast<std::uint16_t>(packets.size()));
}

void Port::drain() {
  rte_mbuf* packets[2 * kBurst];
  const std::uint64_t patience = rte_get_tsc_hz() / 200, limit = rte_get_tsc_hz() / 10;
  const std::uint64_t began = rte_rdtsc();
  for (std::uint64_t now = began, quiet_since = began; now - quiet_since < patience && now - began < limit; now = rte_rdtsc()) {
    const std::uint16_t count = receive(packets);
    rte_pktmbuf_free_bulk(packets, count);
    if (count != 0) quiet_since = now;
  }
}

void Port::close() const {
  rte_eth_dev_stop(ethdev_);
  rte_eth_dev_close(ethdev_);
}

std::expected<Pools, std::string> make_pools(std::uint32_t buffers) {
  Pools pools;
  pools.send = rte_pktmbuf_pool_create("send", buffers, 512, 0, RTE_MBUF_DEFAULT_BUF_SIZE, 0);
  pools.receive = rte_pktmbuf_pool_create("receive", buffers, 512, 0, RTE_MBUF_DEFAULT_BUF_SIZE, 0);
  if (pools.send == nullptr || pools.receive == nullptr) {
    return std::unexpected("no memory for " + std::to_string(2 * buffers) + " buffers; raise --memory");
  }
  rte_mempool_obj_iter(
      pools.send,
      [](rte_mempool*, void*, void* object, unsigned) {
        auto* packet = static_cast<rte_mbuf*>(object);
        std::memset(packet->buf_addr, 0, packet->buf_len);
      },
      nullptr);
  return pools;
}

}  // namespace trunkline::generator
