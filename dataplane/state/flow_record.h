// SPDX-License-Identifier: BSD-3-Clause
//
// What flow logs are made of: a worker tells what passed, and what the rules refused, in one record a conversation and
// aggregation interval; the control thread turns it into lines. One record has both directions, each of which becomes a line.
//
// Where records come from (worker thread):
//   * a connection's own totals, taken off it when the interval ends and when the connection does (accepted);
//   * LooseFlows, for packets that belong to no connection: refused ones, and accepted ones that open none (ICMP errors).
// They reach control by a ring a worker (FlowRecorder::ring). A ring that is full at the end of an interval only makes the worker
// wait with the rest; a record that cannot wait (its connection goes) is counted as lost for its endpoint, and the log says
// SKIPDATA. The packet path never waits.
//
// Units: octets of IP packets, Ticks. `way[index(direction)]`: from the task's point of view. A record may come after its
// endpoint has gone: whoever reads it knows ENIs by number and generation for a while longer.
#pragma once

#include <cstdint>

#include "config/net.h"
#include "dataplane/state/clock.h"
#include "dataplane/state/flow_key.h"

namespace trunkline {

enum class FlowAction : std::uint8_t { accept, reject };

struct alignas(64) FlowRecord {
  struct Way {
    std::uint64_t bytes = 0;
    std::uint32_t packets = 0;  // 0: nothing went this way
    Tick first = 0, last = 0;   // of the packets counted here
    std::uint8_t tcp_flags = 0;  // as flow logs have them: FIN 1, SYN 2, RST 4, SYN-ACK 18, or-ed
  };

  FlowKey key;
  AddressPair ipv6;  // only of an IPv6 flow; of an IPv4 one the key has them
  Way way[2];        // by Direction
  FlowAction action = FlowAction::accept;
  bool audited = false;  // accepted because the endpoint is in audit mode; the rules would have refused it

  IpAddress remote() const { return key.is_ipv6() ? ipv6.remote : IpAddress::from_v4_bytes(&key.remote); }
  IpAddress local() const { return key.is_ipv6() ? ipv6.local : IpAddress::from_v4_bytes(&key.local); }
  // Flow logs have no ports for ICMP and the like.
  bool has_ports() const { return key.protocol() == 6 || key.protocol() == 17; }
  std::uint16_t remote_port() const { return has_ports() ? key.remote_port_number() : 0; }
  std::uint16_t local_port() const { return has_ports() ? key.local_port_number() : 0; }
};

// The flags of one segment as flow logs count them: an ACK only together with a SYN.
constexpr std::uint8_t logged_tcp_flags(std::uint8_t flags) {
  return static_cast<std::uint8_t>(flags & (7 | (flags & 2) << 3));
}
static_assert(logged_tcp_flags(0x12) == 18 && logged_tcp_flags(0x10) == 0 && logged_tcp_flags(0x11) == 1 && logged_tcp_flags(0xc2) == 2);

}  // namespace trunkline
