// SPDX-License-Identifier: BSD-3-Clause
//
// The kernel's connection table of the namespace that this process is in, by ctnetlink
// (linux/netfilter/nfnetlink_conntrack.h): what it knows of a packet's flow, forgetting a flow, and making time pass
// for all of them.
//
// Throws std::runtime_error when the kernel answers anything but "here it is" or "there is none".
#pragma once

#include <libmnl/libmnl.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "tests/differential/flow_packet.h"

namespace trunkline::differential {

// Of nf_conntrack's TCP, as CTA_PROTOINFO_TCP_STATE numbers them.
enum class KernelTcp : std::uint8_t {
  none,
  syn_sent,
  syn_recv,
  established,
  fin_wait,
  close_wait,
  last_ack,
  time_wait,
  close,
  syn_sent2
};

struct KernelEntry {
  bool exists = false;
  bool by_originator = false;  // the packet that was asked about goes the way of the flow's first one
  bool seen_reply = false, assured = false;
  KernelTcp tcp = KernelTcp::none;
  std::uint32_t timeout_s = 0;  // from now on
};
std::string text_of(const KernelEntry& entry);

class ConntrackNetlink {
 public:
  ConntrackNetlink();

  // The entry of the flow that the packet would belong to.
  KernelEntry find(const FlowPacket& packet);
  void erase(const FlowPacket& packet);
  // Takes so many seconds off the time that every entry has left; what has none left is erased.
  void pass(std::uint32_t kernel_seconds);

 private:
  struct Close {
    void operator()(mnl_socket* socket) const { mnl_socket_close(socket); }
  };
  nlmsghdr* begin(std::uint8_t type, std::uint16_t flags, std::uint8_t family);
  // Sends what begin() began. The errno that the kernel answered with, 0 for none; `found`: called with each entry of
  // the answer.
  template <class Found>
  int ask(nlmsghdr* message, Found&& found);

  std::unique_ptr<mnl_socket, Close> socket_;
  std::vector<char> request_, answer_;
  std::uint32_t sequence_ = 0;
};

}  // namespace trunkline::differential
