// SPDX-License-Identifier: BSD-3-Clause
//
// Stage 3: what a VPC does at the edge of an interface, outside the security groups: ARP, neighbour discovery, DHCP
// (edge_dhcp.h).
// In a VPC nobody's ARP is believed: the fabric answers from its own mapping. So a task's claims about itself are
// checked and its announcements swallowed; its questions are answered here when the peer is on this host, and
// otherwise relayed to the fabric (or answered with the router's MAC, if the config says that the engine answers: then the
// engine is the router too, and says so to who solicits one).
// Silence, on a probe for the asker's own address, is an answer too: anything else fails its duplicate detection. So it is on a probe (ARP from
// 0.0.0.0, ND from ::) for an address that nobody is known to have.
//
// What a task sends here has an allowance of 1024 packets a second and ENI (Allowances::edge). An advertisement to all nodes that comes without a
// tag is copied to every untagged ENI, at most ten such a tick and worker.
//
// Packets that are none of this pass untouched. Also the maker of the router's ICMP errors (path MTU), which the forward
// stage asks for. Refuses: malformed, arp_spoof, arp_gratuitous, arp_own_address, arp_no_answer, nd_refused, dhcp_refused,
// linklocal_allowance_exceeded, no_headroom; of a copy no_buffer, handoff_full.
#pragma once

#include "dataplane/packet.h"
#include "dataplane/state/worker_state.h"

namespace trunkline {

void edge_from_trunk(Burst& burst, WorkerState& worker);
void edge_from_task(Burst& burst, WorkerState& worker);
// Gives what edge_from_trunk() has put into `burst.to_all` to the other untagged ENIs as well: into `copies`, which share their buffers with the
// burst, where they are this worker's, as far as there is room; by handoff otherwise.
void copy_to_all(Burst& burst, WorkerState& worker, Burst& copies);

// Turns packet i into the router's "packet too big" for its sender, in place: ICMP 3/4 or ICMPv6 type 2 with the MTU
// of the way it could not go. False: nothing may be said (not DF, itself an error, a later fragment of IPv4, or the
// endpoint's share of errors of this tick is used up).
bool make_packet_too_big(Burst& burst, std::uint32_t i, WorkerState& worker, std::uint16_t mtu, Direction direction);

}  // namespace trunkline
