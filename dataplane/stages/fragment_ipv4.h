// SPDX-License-Identifier: BSD-3-Clause
//
// Part of forward: an IPv4 packet that is larger than the MTU it leaves by, and may be fragmented, is cut as AWS's
// router cuts it (RFC 791, 3.2; RFC 1812, 4.2.2.7): every fragment but the last has as many octets as fit and are a
// multiple of eight; identification, type of service, time to live and the reserved bit stay; options whose copy bit is
// not set are in the first one only; a fragment is cut like any packet, from its own offset on, and its last piece has
// its own "more fragments". The frame's Ethernet header, tag included, is repeated. A header checksum that was wrong is
// wrong in each fragment.
//
// DF, IPv6 and super-frames never come here. An ENI may have kFragmentsPerTick fragments made a tick and worker, at
// whose port they are made; what is over is dropped (fragmenting_limit). All fragments of a packet are sent, or none
// (no_buffer).
//
// Called by the worker, on a packet that is ready to leave but for its size. Trusts no length but those that parse has
// checked.
#pragma once

#include <cstdint>

#include "dataplane/packet.h"
#include "dataplane/state/worker_state.h"

namespace trunkline {

// Whether packet i, which is larger than the MTU of its way, may be cut.
bool may_be_fragmented(const Burst& burst, std::uint32_t i);

// What was sent instead of a packet: frames as its port counts them, and IP packets as flow logs do. Or why nothing
// was.
struct Fragmented {
  DropReason refused = DropReason::none;
  Frames frames, ip;
};

// Sends packet i, whose frame begins with `ether_bytes` of Ethernet header as it leaves, in fragments to `port`, on the
// account of its endpoint. The packet itself is the caller's still where it was refused, and left to be freed where it
// was not.
Fragmented send_in_fragments(Burst& burst, std::uint32_t i, WorkerState& worker, std::uint32_t ether_bytes,
                             std::uint16_t mtu, PortSlot port);

}  // namespace trunkline
