// SPDX-License-Identifier: BSD-3-Clause
//
// Part of demux: a packet in full. Whose it is, whether it comes from where it says and is for whom it reaches, and which way it goes: to the edge, or
// to the security groups; and whether its other end is a service that needs no rule (stages/services.h). demux.h has the short way of plain packets,
// and the reasons.
#pragma once

#include <cstring>

#include "dataplane/packet.h"
#include "dataplane/stages/parse.h"
#include "dataplane/stages/service_address.h"
#include "dataplane/state/worker_state.h"

namespace trunkline {

namespace detail {

inline constexpr MacAddress kBroadcast{{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}};
inline constexpr IpAddress kAllNodes6{{0xff, 0x02, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1}};
inline constexpr std::uint64_t kMacMask = 0xffffffffffff;

inline MacAddress mac_at(const std::uint8_t* bytes) {
  MacAddress mac;
  std::memcpy(mac.bytes.data(), bytes, mac.bytes.size());
  return mac;
}
// The same as it lies, to be compared with Endpoint::mac_bits. Reads eight bytes.
inline std::uint64_t mac_bits_at(const std::uint8_t* bytes) { return load_raw<std::uint64_t>(bytes) & kMacMask; }

inline bool is_multicast(const IpAddress& address) {
  return address.is_v4() ? (address.bytes[12] & 0xf0) == 0xe0 || address.v4() == 0xffffffff : address.bytes[0] == 0xff;
}

// The first byte of an IPv4 source that no host has.
constexpr bool is_martian_byte(std::uint8_t first) { return first == 0 || first == 127 || first >= 224; }

// Sources that no host has. 0.0.0.0 and :: are for the edge to judge, where DHCP, ARP and ND use them.
inline bool is_martian_source(const IpAddress& address) {
  if (address.is_v4()) return is_martian_byte(address.bytes[12]);
  if (address.bytes[0] == 0xff) return true;
  for (std::size_t i = 0; i < 15; ++i) {
    if (address.bytes[i] != 0) return false;
  }
  return address.bytes[15] <= 1;  // :: and ::1
}

inline bool is_own6(const Endpoint& endpoint, const IpAddress& address) {
  return endpoint.owns(address) || address == link_local_of(endpoint.mac);
}

// Neighbour discovery, which the edge stage polices. Beside DHCP the only packets with a multicast destination that pass demux.
inline bool is_neighbour_discovery(const Headers& headers) {
  return headers.layer3 == Layer3::ipv6 && headers.protocol == protocol::icmpv6 && headers.icmp_type >= 133 &&
         headers.icmp_type <= 137;
}

// --- DHCP, which the edge stage polices as well --------------------------------------------------------------------

inline constexpr std::uint32_t kAnywhere4 = 0xffffffff;  // 255.255.255.255
inline constexpr IpAddress kDhcpServers6{{0xff, 0x02, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 2}};  // ff02::1:2

// Ports as FlowKey has them, the ENI's in the upper half; and as they are in such a key.
constexpr std::uint32_t ports_of(std::uint16_t local, std::uint16_t remote) {
  return std::uint32_t{__builtin_bswap16(local)} << 16 | __builtin_bswap16(remote);
}
[[gnu::always_inline]] inline std::uint32_t ports_of(const FlowKey& key) {
  return load_raw<std::uint32_t>(reinterpret_cast<const std::uint8_t*>(&key.remote_port));
}
inline constexpr std::uint32_t kDhcpClient = ports_of(68, 67), kDhcpServer = ports_of(67, 68);  // the ENI is this
inline constexpr std::uint32_t kDhcpClient6 = ports_of(546, 547), kDhcpServer6 = ports_of(547, 546);

inline bool has_udp_ports(const Burst& burst, std::uint32_t i, std::uint32_t in_ipv4, std::uint32_t in_ipv6) {
  const Headers& headers = burst.headers[i];
  if (headers.protocol != protocol::udp || headers.fragment == Fragment::later) return false;
  return ports_of(burst.key[i]) == (headers.layer3 == Layer3::ipv4 ? in_ipv4 : in_ipv6);
}

// A client's message to whoever serves, or to the router, which is the server.
inline bool is_dhcp_request(const Burst& burst, std::uint32_t i, const Endpoint& endpoint) {
  if (!has_udp_ports(burst, i, kDhcpClient, kDhcpClient6)) return false;
  if (burst.headers[i].layer3 == Layer3::ipv6) return burst.destination(i) == kDhcpServers6;
  return burst.key[i].remote == kAnywhere4 || burst.key[i].remote == endpoint.router_ipv4;
}
// What the VPC's server says to a client. What anybody else says on these ports is for the rules to judge.
inline bool is_dhcp_answer(const Burst& burst, std::uint32_t i, const Endpoint& endpoint) {
  if (!has_udp_ports(burst, i, kDhcpClient, kDhcpClient6)) return false;
  if (burst.headers[i].layer3 == Layer3::ipv6) return is_link_local6(burst.source(i));
  return burst.key[i].remote == endpoint.router_ipv4;
}

inline bool is_for_edge(const Burst& burst, std::uint32_t i, Direction direction) {
  const Headers& headers = burst.headers[i];
  if (headers.layer3 == Layer3::arp || is_neighbour_discovery(headers)) return true;
  const Endpoint& endpoint = *burst.endpoint[i];
  return direction == Direction::ingress ? is_dhcp_answer(burst, i, endpoint) : is_dhcp_request(burst, i, endpoint);
}

// From an address of its own, or from none yet.
inline DropReason check_dhcp_request(const Burst& burst, std::uint32_t i, const Endpoint& endpoint) {
  const MacAddress destination = mac_at(burst.bytes(i));
  const IpAddress source = burst.source(i);
  if (burst.headers[i].layer3 == Layer3::ipv6) {
    if (destination.bytes[0] != 0x33 || destination.bytes[1] != 0x33) return DropReason::multicast;
    return is_own6(endpoint, source) ? DropReason::none : DropReason::spoof_ip;
  }
  const bool to_all = burst.key[i].remote == kAnywhere4;
  if (to_all ? destination != kBroadcast : destination.is_multicast()) return DropReason::multicast;
  return source.is_zero() || endpoint.owns(source) ? DropReason::none : DropReason::spoof_ip;
}

inline DropReason check_dhcp_answer(const Burst& burst, std::uint32_t i, const Endpoint& endpoint) {
  const IpAddress target = burst.destination(i);
  if (burst.headers[i].layer3 == Layer3::ipv6) return is_own6(endpoint, target) ? DropReason::none : DropReason::dest_check;
  return burst.key[i].local == kAnywhere4 || endpoint.owns(target) ? DropReason::none : DropReason::dest_check;
}

// --- the services that need no rule ---------------------------------------------------------------------------------

inline Service service_of(const Burst& burst, std::uint32_t i, Direction direction, const View& view) {
  const Endpoint& endpoint = *burst.endpoint[i];
  if (burst.headers[i].layer3 == Layer3::ipv4) return service_at4(burst.key[i].remote, endpoint);
  return service_at6(direction == Direction::ingress ? burst.source(i) : burst.destination(i), endpoint, view);
}

// No ENI is a service, whether or not its sources are checked. An address of its own that another subnet has its router at is its own.
inline bool is_source_of_service(const IpAddress& source, bool own, const Endpoint& endpoint, const View& view) {
  return service_at(source, endpoint, view) != Service::none || (!own && view.is_router_or_resolver(source));
}

// The router is a neighbour, so its link-local addresses may be spoken to from the ENI's own.
inline bool is_between_link_locals(const Endpoint& endpoint, const IpAddress& own, const IpAddress& router, const View& view) {
  return !own.is_v4() && own == link_local_of(endpoint.mac) && is_router_link_local(router, view);
}

// --- whose it is -----------------------------------------------------------------------------------------------------

// The untagged endpoint that a neighbour solicitation asks for: by the target, as ARP does.
inline const Endpoint* solicited_endpoint(const IpAddress& target, const View& view) {
  if (!is_link_local6(target)) return view.with_address(target);
  const auto& t = target.bytes;
  const MacAddress mac{{static_cast<std::uint8_t>(t[8] ^ 2), t[9], t[10], t[13], t[14], t[15]}};
  return link_local_of(mac) == target ? view.with_mac(mac) : nullptr;
}

// One of the untagged endpoints, if there is any that is in service: of this worker, if it has one.
inline const Endpoint* any_untagged(const View& view, WorkerNumber self) {
  const Endpoint* any = nullptr;
  for (const EndpointId id : view.untagged) {
    const Endpoint* endpoint = view.endpoint(id);
    if (endpoint == nullptr) continue;
    if (endpoint->served_by == self) return endpoint;
    any = endpoint;
  }
  return any;
}

// Neighbour discovery that every host of a link hears: advertisements to ff02::1.
inline bool is_discovery_for_all(const Burst& burst, std::uint32_t i) {
  static constexpr std::uint8_t kRouterAdvertisement = 134, kNeighbourAdvertisement = 136;
  const std::uint8_t type = burst.headers[i].icmp_type;
  return is_neighbour_discovery(burst.headers[i]) && (type == kRouterAdvertisement || type == kNeighbourAdvertisement) && burst.destination(i) == kAllNodes6;
}

inline const Endpoint* find_endpoint(const Burst& burst, std::uint32_t i, const View& view, WorkerNumber self) {
  if (burst.headers[i].vlan != 0) return view.at_vlan(burst.headers[i].vlan);
  const MacAddress destination = mac_at(burst.bytes(i));
  if (!destination.is_multicast()) return view.with_mac(destination);
  // Untagged, to many: only its target's address tells whom it is for, or the client's MAC in DHCP. Or it is for all.
  if (is_discovery_for_all(burst, i)) return any_untagged(view, self);
  const Endpoint* endpoint = nullptr;
  if (burst.headers[i].layer3 == Layer3::arp) {
    endpoint = view.with_address(burst.destination(i));
  } else if (is_neighbour_discovery(burst.headers[i])) {
    static constexpr std::uint8_t kNeighbourSolicitation = 135;
    const std::uint32_t at = burst.headers[i].layer4_offset + 8U;  // the target
    const bool has_target = burst.headers[i].icmp_type == kNeighbourSolicitation && at + 16 <= burst.mbuf[i]->data_len;
    if (has_target) endpoint = solicited_endpoint(IpAddress::from_v6_bytes(burst.bytes(i) + at), view);
  } else if (burst.headers[i].layer3 == Layer3::ipv4 && has_udp_ports(burst, i, kDhcpClient, kDhcpClient)) {
    const std::uint32_t at = burst.headers[i].layer4_offset + 8U + 28U;  // chaddr
    if (at + 6 <= burst.mbuf[i]->data_len) endpoint = view.with_mac(mac_at(burst.bytes(i) + at));
  }
  return endpoint != nullptr && endpoint->vlan.is_untagged() ? endpoint : nullptr;
}

inline DropReason check_from_trunk(const Burst& burst, std::uint32_t i, const Endpoint& endpoint, const View& view) {
  const MacAddress destination = mac_at(burst.bytes(i));
  const Headers& headers = burst.headers[i];
  const bool discovery = is_neighbour_discovery(headers);
  const bool dhcp = is_dhcp_answer(burst, i, endpoint);
  const bool may_be_to_all = headers.layer3 == Layer3::arp || (dhcp && headers.layer3 == Layer3::ipv4);
  if (destination != endpoint.mac && !(may_be_to_all && destination == kBroadcast) &&
      !(discovery && destination.bytes[0] == 0x33 && destination.bytes[1] == 0x33)) {
    return destination.is_multicast() ? DropReason::multicast : DropReason::wrong_mac;
  }
  const IpAddress target = burst.destination(i);
  if (headers.layer3 == Layer3::arp) return endpoint.owns(target) ? DropReason::none : DropReason::dest_check;
  if (discovery) return DropReason::none;
  if (dhcp) return check_dhcp_answer(burst, i, endpoint);
  if (is_martian_source(burst.source(i))) return DropReason::martian;
  if (is_multicast(target)) return DropReason::multicast;
  const bool own = endpoint.owns(target) || is_between_link_locals(endpoint, target, burst.source(i), view);
  if (endpoint.source_dest_check && !own) return DropReason::dest_check;
  return DropReason::none;
}

inline DropReason check_from_task(const Burst& burst, std::uint32_t i, const Endpoint& endpoint, const View& view) {
  const Headers& headers = burst.headers[i];
  if (headers.tag_bytes != 0 || headers.vlan != 0) return DropReason::unexpected_vlan;
  if (mac_at(burst.bytes(i) + 6) != endpoint.mac) return DropReason::spoof_mac;
  if (headers.layer3 == Layer3::arp) return DropReason::none;  // the edge looks at what it claims
  const IpAddress source = burst.source(i);
  if (is_neighbour_discovery(headers)) {
    return is_own6(endpoint, source) || source.is_zero() ? DropReason::none : DropReason::spoof_ip;
  }
  if (is_dhcp_request(burst, i, endpoint)) return check_dhcp_request(burst, i, endpoint);
  if (has_udp_ports(burst, i, kDhcpServer, kDhcpServer6)) return DropReason::dhcp_refused;
  if (is_multicast(burst.destination(i)) || mac_at(burst.bytes(i)).is_multicast()) return DropReason::multicast;
  const bool own = endpoint.owns(source) || is_between_link_locals(endpoint, source, burst.destination(i), view);
  if (endpoint.source_dest_check && !own) return DropReason::spoof_ip;
  if (is_martian_source(source)) return DropReason::martian;
  if (is_source_of_service(source, own, endpoint, view)) return DropReason::spoof_ip;
  return DropReason::none;
}

inline void sort_or_drop(Burst& burst, std::uint32_t i, DropReason reason, Direction direction, const View& view) {
  if (reason != DropReason::none) return burst.drop(i, reason);
  if (is_for_edge(burst, i, direction)) {
    burst.edge |= std::uint64_t{1} << i;
    return;
  }
  const Service service = service_of(burst, i, direction, view);
  if (service == Service::nobody) return burst.drop(i, DropReason::link_local);
  if (service == Service::metadata && burst.endpoint[i]->block_imds) return burst.drop(i, DropReason::imds_blocked);
  burst.filter(i, *burst.endpoint[i]);
  burst.services |= std::uint64_t{service != Service::none} << i;
}

// For another worker, or for later: the packet is not ours to look at any further.
[[gnu::noinline]] inline void hand_to_owner(Burst& burst, std::uint32_t i, const Endpoint& endpoint, WorkerState& worker) {
  const HandedPacket handed{burst.mbuf[i], endpoint.id, endpoint.generation, HandoffKind::trunk, Direction::ingress};
  burst.endpoint[i] = nullptr;
  if (worker.handoff.send(endpoint.worker, handed)) {
    burst.mbuf[i] = nullptr;
  } else {
    burst.drop(i, DropReason::handoff_full);
    worker.trunk_in.dropped(DropReason::handoff_full, frames_of(*burst.mbuf[i]).packets);
  }
}

// What a burst counts for at the trunk, on its way in.
struct TrunkFrames {
  Frames received;
  Frames ours;  // of these for endpoints that are ours
};

// A packet from the trunk in full.
[[gnu::noinline]] inline void demux_one_from_trunk(Burst& burst, std::uint32_t i, WorkerState& worker, TrunkFrames& counted) {
  const View& view = *worker.view;
  const Frames frames = frames_of(*burst.mbuf[i]);
  counted.received += frames;
  // A frame that could not be parsed past its tag is still its endpoint's to account for, if it has one.
  const Endpoint* endpoint = nullptr;
  if (burst.alive(i) || burst.headers[i].vlan != 0) endpoint = find_endpoint(burst, i, view, worker.number);
  burst.endpoint[i] = endpoint;
  if (endpoint == nullptr) {
    if (burst.alive(i)) {
      const bool waiting = view.is_waiting(burst.headers[i].vlan, mac_at(burst.bytes(i)));
      burst.drop(i, waiting ? DropReason::no_policy : DropReason::unknown_eni);
    }
    worker.trunk_in.dropped(burst.verdict[i], frames.packets);
    return;
  }
  if (endpoint->served_by != worker.number) return hand_to_owner(burst, i, *endpoint, worker);
  counted.ours += frames;
  worker.meter(*endpoint, Direction::ingress).received(frames);
  if (burst.alive(i)) sort_or_drop(burst, i, check_from_trunk(burst, i, *endpoint, view), Direction::ingress, view);
}

}  // namespace detail

}  // namespace trunkline
