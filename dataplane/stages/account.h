// SPDX-License-Identifier: BSD-3-Clause
//
// Stage 6: what the connection is told of the packets that passed: packets and bytes of the IP packet, a direction
// each, for flow logs. (Ports count in their meters: demux counts what came, forward what went or was refused.)
#pragma once

#include "dataplane/packet.h"
#include "dataplane/state/connection_table.h"

namespace trunkline {

inline void account(Burst& burst, Direction direction) {
  for (std::uint32_t i = 0; i < burst.size; ++i) {
    if (!burst.alive(i) || burst.connection[i] == nullptr) continue;
    Connection::Totals& totals = burst.connection[i]->totals[index(direction)];
    ++totals.packets;
    totals.bytes += burst.packet_bytes[i];
  }
}

}  // namespace trunkline
