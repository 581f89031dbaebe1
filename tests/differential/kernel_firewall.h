// SPDX-License-Identifier: BSD-3-Clause
//
// The kernel as the other firewall: nftables and conntrack, forwarding between two taps in a network namespace of this
// process.
//
//     world (packets towards tasks) --> conntrack, nft rules --> tasks        and back
//
// A write to a tap carries the packet through the kernel to the other tap before it returns, so a packet that has not
// come out then has been refused; the constructor tries that it is so.
//
// Virtual time: conntrack's timeouts are set to kScale times what the engine's are, so that the seconds that a run
// takes are next to nothing, and pass() takes time off every entry.
//
// Needs root, /dev/net/tun, and the programs ip and nft. Throws std::runtime_error, with what failed, when the kernel
// does not do as told.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "config/desired_state.h"
#include "tests/differential/conntrack_netlink.h"
#include "tests/differential/flow_packet.h"

namespace trunkline::differential {

// Puts this process, which has to have one thread, into a new network namespace; the one before goes with what is in
// it.
void enter_new_namespace();

class KernelFirewall {
 public:
  struct Timeouts {  // seconds
    std::uint32_t syn_sent, syn_recv, established, closing, closed, udp, udp_stream, icmp, other;
  };
  struct Options {
    bool related = false;  // ICMP errors about a known connection pass
    bool pick_up = true;   // a TCP connection may begin in the middle
    Timeouts timeouts{};
  };
  static constexpr std::uint32_t kScale = 100;

  // In the namespace that this process is in. The tasks of `state` are those that packets are for.
  KernelFirewall(const config::DesiredState& state, const Options& options);
  ~KernelFirewall();
  KernelFirewall(const KernelFirewall&) = delete;
  KernelFirewall& operator=(const KernelFirewall&) = delete;

  void apply(const config::DesiredState& state);
  // Whether it came out at the other side.
  bool pass_packet(const FlowPacket& packet);
  KernelEntry entry_of(const FlowPacket& packet) { return conntrack_->find(packet); }
  void forget(const FlowPacket& packet) { conntrack_->erase(packet); }
  void pass_seconds(std::uint32_t seconds) { conntrack_->pass(seconds * kScale); }

 private:
  void set_up_interfaces(const config::DesiredState& state);
  void set_conntrack();
  void check_that_it_is_synchronous(const config::DesiredState& state);

  Options options_;
  int world_ = -1, tasks_ = -1;  // descriptors of the taps
  std::unique_ptr<ConntrackNetlink> conntrack_;
};

}  // namespace trunkline::differential
