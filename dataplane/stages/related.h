// SPDX-License-Identifier: BSD-3-Clause
//
// An ICMP error quotes the packet that it is about. Where an endpoint says so (`icmp_related`), an error about a packet of a live
// connection passes without a rule; AWS lets none pass (its guide: without a rule for it, path-MTU discovery does not work).
//
// The quotation was written by a stranger: it is looked at within the bytes of the packet that are there, only as far as addresses,
// protocol and ports, past options and extension headers. It must be of the other direction (an error towards the task quotes what the
// task sent), and the error must go to the address that the quoted packet came from. It opens nothing and refreshes nothing.
//
// As in nf_conntrack: four bytes of a TCP or UDP header are enough, of an ICMP message eight, of every other protocol none (it has no
// ports here); a first fragment will do, a later one has no ports and is related to nothing; lengths and checksums in the quotation are
// not looked at, since routers may cut it anywhere and have changed it on its way. Unlike there, a redirect is no error (wire/icmp.h).
#pragma once

#include <algorithm>

#include "dataplane/packet.h"
#include "dataplane/stages/track.h"
#include "dataplane/state/worker_state.h"
#include "dataplane/wire/icmp.h"
#include "dataplane/wire/ip_headers.h"

namespace trunkline {

namespace detail {

inline bool is_icmp_error(const Headers& headers) { return is_icmp(headers) && trunkline::is_icmp_error(headers.protocol, headers.icmp_type); }

// What a quotation must have of the transport header for its connection to be told: the ports, or an ICMP message's identifier.
inline std::uint32_t quoted_transport_bytes(std::uint8_t protocol, bool ipv4) {
  if (protocol == protocol::tcp || protocol == protocol::udp) return 4;
  return protocol == (ipv4 ? protocol::icmp : protocol::icmpv6) ? 8 : 0;
}

// The connection, as the ENI sees it, that the quoted packet was of. False: it cannot be told.
inline bool key_of_quoted(const Burst& burst, std::uint32_t i, Direction direction, const ConnectionTable& table, FlowKey& key,
                          AddressPair& addresses) {
  const Headers& headers = burst.headers[i];
  const bool ipv4 = headers.layer3 == Layer3::ipv4;
  const std::uint32_t end = std::min<std::uint32_t>(burst.mbuf[i]->data_len, headers.layer3_offset + std::uint32_t{headers.packet_bytes});
  const std::uint32_t at = headers.layer4_offset + 8U;
  if (headers.layer4_offset == 0 || at > end) return false;
  const std::uint8_t* ip = burst.bytes(i) + at;
  const IpHeaders quoted = ipv4 ? walk_ipv4(ip, end - at) : walk_ipv6(ip, end - at);
  if (!quoted.reached || quoted.fragment == Fragment::later) return false;  // a later fragment has no ports
  if (at + quoted.transport + quoted_transport_bytes(quoted.protocol, ipv4) > end) return false;
  if ((ipv4 ? IpAddress::from_v4_bytes(ip + 12) : IpAddress::from_v6_bytes(ip + 8)) != burst.destination(i)) return false;
  const std::uint8_t protocol = quoted.protocol;
  const std::uint8_t* ports = ip + quoted.transport;
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
  key.owner = burst.endpoint[i]->flow_owner | FlowKey::protocol_bits(protocol) | (ipv4 ? 0 : FlowKey::kIpv6);
  if (protocol == protocol::tcp || protocol == protocol::udp) {
    const auto source = load_raw<std::uint16_t>(ports);
    const auto destination = load_raw<std::uint16_t>(ports + 2);
    key.local_port = task_sent ? source : destination;
    key.remote_port = task_sent ? destination : source;
    return true;
  }
  if (protocol != (ipv4 ? protocol::icmp : protocol::icmpv6)) {
    key.local_port = key.remote_port = 0;
    return true;
  }
  // A query's, or an answer's: the code is part of it (IcmpFlow).
  bool is_query;
  const std::uint8_t type = icmp_query_type(protocol, ports[0], is_query);
  if (type == 0) return false;
  key.local_port = load_raw<std::uint16_t>(ports + 4);
  key.remote_port = IcmpFlow{type, ports[1], is_query != task_sent}.port();
  return true;
}

}  // namespace detail

inline bool is_related(const Burst& burst, std::uint32_t i, WorkerState& worker, Direction direction) {
  const Endpoint& endpoint = *burst.endpoint[i];
  const Headers& headers = burst.headers[i];
  // A later fragment of an error holds no quotation.
  if (!endpoint.icmp_related || !detail::is_icmp_error(headers) || headers.fragment == Fragment::later) return false;
  FlowKey key;
  AddressPair addresses;
  if (!detail::key_of_quoted(burst, i, direction, worker.connections, key, addresses)) return false;
  const std::uint64_t hash = worker.connections.hash(key);
  const Connection* connection = key.is_ipv6() ? worker.connections.find(key, hash, addresses) : worker.connections.find(key, hash);
  return connection != nullptr && !ConnectionTable::expired(*connection, endpoint.timeouts, worker.now);
}

}  // namespace trunkline
