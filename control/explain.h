// SPDX-License-Identifier: BSD-3-Clause
//
// What would become of a packet, and why: the worker's own stages walk it through, over the live View, members and policies, with the
// flow's live connections, and what is known of its datagram in fragments, copied from the workers that have them. Nothing live changes: the tables, meters and queues that the
// stages write to are made for the one packet and thrown away.
//
// What is not asked, because it is a matter of the moment: room in the connection tables, an ENI's quota and rate limits, queues
// that are full, and what the fabric does.
//
// Control thread only.
#pragma once

#include <expected>
#include <optional>
#include <span>
#include <vector>

#include "control/controller.h"
#include "control/inspector.h"
#include "control/protocol.h"
#include "dataplane/state/observer.h"

namespace trunkline::control {

// One half of the pipeline that the packet went through: as it came to it, and what was found.
struct WalkedHalf {
  Observation seen;
  std::vector<std::uint8_t> bytes;
  // What the workers may know that decides: the connections of the packet and of the one that it quotes (an ICMP error), and
  // the datagram that it is a fragment of.
  std::vector<Inspection::Flow> flows;
  std::optional<DatagramKey> datagram;
};

// What the workers know of these.
struct Known {
  std::vector<ConnectionRecord> connections;
  std::vector<FragmentedDatagram> datagrams;
  std::vector<Inspection::Flow> asked;  // of services that need no rule
  Tick now = 0;
};

// Walks a frame through: from the trunk, or from the task whose endpoint is given. Pure: works on copies. Throws std::runtime_error when the
// system has no room for its tables.
std::vector<WalkedHalf> walk_packet(const View& view, std::span<const std::uint8_t> frame, const Endpoint* from_task, const Known& known);

// A packet as it can be said. What is not said of it follows from the rest.
struct PacketWords {
  std::optional<IpAddress> source, destination;
  std::uint8_t protocol = 6;
  std::uint16_t source_port = 49152, destination_port = 0;
  std::uint8_t icmp_type = 8, icmp_code = 0;
  std::uint16_t icmp_identifier = 1;
  std::uint8_t tcp_flags = 0x02;
  std::uint16_t octets = 0;  // of the IP packet; 0: no payload
};
// Its frame. Both addresses are there and of one family. `vlan`: 0 is no tag.
std::vector<std::uint8_t> build_frame(const PacketWords& packet, const MacAddress& destination, const MacAddress& source, std::uint16_t vlan);

std::expected<config::Json, RpcError> explain(const Controller& controller, Inspector& inspector, const config::Json& params);

}  // namespace trunkline::control
