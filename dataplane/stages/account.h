// SPDX-License-Identifier: BSD-3-Clause
//
// Stage 6: what the connection is told of the packets that passed: packets, octets of the IP packet and TCP flags, a
// direction each, for flow logs. (Ports count in their meters: demux counts what came, forward what went or was refused.)
#pragma once

#include "dataplane/packet.h"
#include "dataplane/state/connection_table.h"

namespace trunkline {

inline void account(Burst& burst, Tick now, Direction direction) {
  for_each_bit(burst.filtered, [&](std::uint32_t i) {
    if (burst.connection[i] == nullptr) return;
    const Headers& headers = burst.headers[i];
    Connection::Totals& totals = burst.connection[i]->totals[index(direction)];
    totals.bytes_and_flags = (totals.bytes_and_flags + headers.packet_bytes) |
                             std::uint64_t{headers.tcp_flags} << Connection::Totals::kFlagsShift;
    if (totals.packets++ == 0) totals.first_seen = now;
  });
}

}  // namespace trunkline
