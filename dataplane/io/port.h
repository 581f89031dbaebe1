// SPDX-License-Identifier: BSD-3-Clause
//
// A port: one ethdev, opened, configured and started, closed when the object goes. The trunk and all task ports are the
// same thing; what each can do is probed and kept, and a refusal (no promiscuous mode, no MTU setting) is normal and
// never fatal.
//
// Life: open() (control thread; for a tap on a thread that has entered the task's namespace, see below) -> the
// controller publishes a View that names it, workers receive and send -> it is left out of the next View -> when no
// worker can know of it any more, close.
//
// Namespaces: the tap drivers and virtio-user open /dev/net/tun while they are probed and while their queues are set up, and a
// tap belongs to the namespace of the thread that opens it. So all of open() must run on one thread that is where the
// tap is.
//
// Errors are sentences that name the device.
#pragma once

#include <atomic>
#include <cstdint>
#include <expected>
#include <memory>
#include <string>
#include <vector>

#include "config/net.h"
#include "dataplane/state/wake_source.h"

struct rte_mempool;

namespace trunkline {

struct PortSettings {
  std::string devargs;  // "0000:00:06.0", or "net_tap7,iface=eth0,mac=..."
  std::uint16_t mtu = 9001;
  std::uint16_t rx_descriptors = 512;
  std::uint16_t tx_descriptors = 512;
  bool promiscuous = false;
  std::uint16_t queues = 1;  // each way, at most; a port with fewer says so in queues()
  // What its driver can of checksums and super-frames (state/super_frame.h) is used, both ways.
  bool offloads = false;
};

// One thing a port was asked for at start, whether it can, and if not, why.
struct Capability {
  std::string what;
  bool available = false;
  std::string why;
};

// What its driver does to what it sends, when asked: RTE_ETH_TX_OFFLOAD_*, and the most buffers that a packet may be in which it cuts.
struct SendOffloads {
  std::uint64_t tx = 0;
  std::uint16_t max_segments = 0xffff;
  // Of these, what the program behind the port takes now; nothing while nobody is there. nullptr: all, always. Written by
  // a thread of DPDK's vhost library as programs come and go; read by workers. It lives as long as the port.
  const std::atomic<std::uint64_t>* agreed = nullptr;
  // Each frame is a system call of the worker's, in which the kernel on the other side may do work of its own (a tap).
  bool writes_take_time = false;
};

class Port {
 public:
  static std::expected<std::unique_ptr<Port>, std::string> open(const PortSettings& settings, rte_mempool& pool);
  ~Port();
  Port(const Port&) = delete;
  Port& operator=(const Port&) = delete;

  std::uint16_t ethdev() const { return ethdev_; }
  MacAddress mac() const;
  bool link_up() const;
  std::uint16_t queues() const { return queues_; }
  const SendOffloads& send_offloads() const { return send_offloads_; }
  // For a worker that waits; the descriptors are the port's.
  WakeSource wake() const { return {wake_descriptors_, wake_must_be_armed_}; }
  const std::string& devargs() const { return settings_.devargs; }
  // As they are now: what is sent to a vhost-user program is up to the program.
  std::vector<Capability> capabilities() const;

 private:
  explicit Port(PortSettings settings) : settings_(std::move(settings)) {}
  std::expected<void, std::string> configure(rte_mempool& pool);
  void find_wake_descriptors();
  void note(std::string what, int result);

  PortSettings settings_;
  std::uint16_t ethdev_ = 0xffff;
  std::uint16_t queues_ = 1;
  SendOffloads send_offloads_;
  std::atomic<std::uint64_t> agreed_{0};
  std::vector<int> wake_descriptors_;  // by queue; none: nobody can wait for it
  bool wake_must_be_armed_ = false;
  bool probed_ = false;
  bool started_ = false;
  std::vector<Capability> capabilities_;
};

// How many ports this build of DPDK can have (RTE_MAX_ETHPORTS), and how many are in use.
std::uint16_t max_ports();
std::uint16_t ports_in_use();
// Whether a device of this name ("net_tap7", "0000:00:06.0") is some port's; open() refuses it then, and touches nothing.
bool is_open(const std::string& device);

}  // namespace trunkline
