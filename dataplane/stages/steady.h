// SPDX-License-Identifier: BSD-3-Clause
//
// Part of track: what nearly every packet is. A packet that changes nothing of its connection is steady: its connection is alive, the
// rules as they are now let it pass, no state has to move. One look at the entry, which track has at hand, settles all that
// admit and account would do with it, with branches that are never taken for any mix of traffic. What is not steady they look at in their turn.
#pragma once

#include "dataplane/packet.h"
#include "dataplane/state/connection.h"
#include "dataplane/state/view.h"

namespace trunkline::detail {

// The rules let it pass and nothing awaits it. One that was idle for as long as any state may be has to be looked at more
// closely, so that the timeouts' own line is left alone.
template <Direction direction>
[[gnu::always_inline]] inline bool is_steady(const Connection& connection, const Endpoint& endpoint, const Headers& headers, Tick now) {
  return connection.passes_at_once<direction>() && connection.policy_generation == endpoint.policy_generation &&
         now - connection.last_seen < endpoint.shortest_timeout && (headers.tcp_flags & (tcp_flag::syn | tcp_flag::fin | tcp_flag::rst)) == 0;
}

// Lets a steady packet pass, and counts it for flow logs, which are told no flags of it.
template <Direction direction, bool counted>
[[gnu::always_inline]] inline void pass_steady(Connection& connection, const Headers& headers, Tick now) {
  connection.last_seen = now;
  if constexpr (counted) {
    Connection::Totals& totals = connection.totals[index(direction)];
    totals.bytes_and_flags += headers.packet_bytes;
    totals.saw_packet(static_cast<std::uint16_t>(now));
  }
}

}  // namespace trunkline::detail
