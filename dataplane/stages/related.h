// SPDX-License-Identifier: BSD-3-Clause
//
// An ICMP error quotes the packet that it is about. Where an endpoint says so (`icmp_related`), an error about a packet of a live
// connection passes without a rule; AWS lets none pass (its guide: without a rule for it, path-MTU discovery does not work).
//
// The quotation was written by a stranger: it is looked at within the bytes of the packet that are there, only as far as addresses,
// protocol and ports. It must be of the other direction (an error towards the task quotes what the task sent), and the error must
// go to the address that the quoted packet came from. It opens nothing and refreshes nothing.
#pragma once

#include <algorithm>

#include "dataplane/packet.h"
#include "dataplane/stages/track.h"
#include "dataplane/state/worker_state.h"

namespace trunkline {

namespace detail {

inline bool is_icmp_error(const Headers& headers) {
  if (headers.layer3 == Layer3::ipv6) return headers.protocol == protocol::icmpv6 && headers.icmp_type >= 1 && headers.icmp_type <= 4;
  return headers.protocol == protocol::icmp && (headers.icmp_type == 3 || headers.icmp_type == 11 || headers.icmp_type == 12);
}

// The connection, as the ENI sees it, that the quoted packet was of. False: it cannot be told.
inline bool key_of_quoted(const Burst& burst, std::uint32_t i, Direction direction, const ConnectionTable& table, FlowKey& key,
                          AddressPair& addresses) {
  const Headers& headers = burst.headers[i];
  const bool ipv4 = headers.layer3 == Layer3::ipv4;
  const std::uint32_t end = std::min<std::uint32_t>(burst.mbuf[i]->data_len, headers.layer3_offset + std::uint32_t{headers.packet_bytes});
  const std::uint32_t at = headers.layer4_offset + 8U;
  const std::uint32_t ip_bytes = ipv4 ? 20 : 40;
  if (headers.layer4_offset == 0 || at + ip_bytes > end) return false;
  const std::uint8_t* ip = burst.bytes(i) + at;
  if (ip[0] >> 4 != (ipv4 ? 4 : 6)) return false;
  const std::uint32_t header_bytes = ipv4 ? (ip[0] & 15) * 4U : 40U;
  if (header_bytes < ip_bytes || at + header_bytes + 8 > end) return false;
  if (ipv4 && (load16(ip + 6) & 0x1fff) != 0) return false;  // a later fragment has no ports
  if ((ipv4 ? IpAddress::from_v4_bytes(ip + 12) : IpAddress::from_v6_bytes(ip + 8)) != burst.destination(i)) return false;
  const std::uint8_t protocol = ipv4 ? ip[9] : ip[6];
  const std::uint8_t* ports = ip + header_bytes;
  // Towards the task: the task was the quoted packet's sender.
  const bool task_sent = direction == Direction::ingress;
  if (ipv4) {
    key.local = load_raw<std::uint32_t>(ip + (task_sent ? 12 : 16));
    key.remote = load_raw<std::uint32_t>(ip + (task_sent ? 16 : 12));
  } else {
    addresses.local = IpAddress::from_v6_bytes(ip + (task_sent ? 8 : 24));
    addresses.remote = IpAddress::from_v6_bytes(ip + (task_sent ? 24 : 8));
    table.set_digest(key, addresses);
  }
  const auto source = load_raw<std::uint16_t>(ports);
  const auto destination = load_raw<std::uint16_t>(ports + 2);
  key.local_port = task_sent ? source : destination;
  key.remote_port = task_sent ? destination : source;
  key.owner = burst.endpoint[i]->flow_owner | FlowKey::protocol_bits(protocol) | (ipv4 ? 0 : FlowKey::kIpv6);
  if (protocol == protocol::tcp || protocol == protocol::udp) return true;
  if (protocol != (ipv4 ? protocol::icmp : protocol::icmpv6)) {
    key.local_port = key.remote_port = 0;
    return true;
  }
  bool is_query;
  const std::uint8_t type = icmp_query_type(protocol, ports[0], is_query);
  if (type == 0) return false;
  key.local_port = load_raw<std::uint16_t>(ports + 4);
  key.remote_port = static_cast<std::uint16_t>(type | (is_query != task_sent ? 0x100 : 0));
  return true;
}

}  // namespace detail

inline bool is_related(const Burst& burst, std::uint32_t i, WorkerState& worker, Direction direction) {
  const Endpoint& endpoint = *burst.endpoint[i];
  if (!endpoint.icmp_related || !detail::is_icmp_error(burst.headers[i]) || burst.headers[i].fragment == Fragment::later) return false;
  FlowKey key;
  AddressPair addresses;
  if (!detail::key_of_quoted(burst, i, direction, worker.connections, key, addresses)) return false;
  const std::uint64_t hash = worker.connections.hash(key);
  const Connection* connection = key.is_ipv6() ? worker.connections.find(key, hash, addresses) : worker.connections.find(key, hash);
  return connection != nullptr && !ConnectionTable::expired(*connection, endpoint.timeouts, worker.now);
}

}  // namespace trunkline
