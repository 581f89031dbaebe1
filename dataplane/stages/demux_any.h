// SPDX-License-Identifier: BSD-3-Clause
//
// Part of demux: a packet in full. Whose it is, whether it comes from where it says and is for whom it reaches, and which of the three ways it goes:
// to the edge, to the security groups, or past them to a service that nobody filters. demux.h has the short way of plain packets, and
// the reasons.
#pragma once

#include <cstring>

#include "dataplane/packet.h"
#include "dataplane/stages/parse.h"
#include "dataplane/state/worker_state.h"

namespace trunkline {

namespace detail {

inline constexpr MacAddress kBroadcast{{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}};
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

inline bool is_link_local6(const IpAddress& address) {
  return address.bytes[0] == 0xfe && (address.bytes[1] & 0xc0) == 0x80;
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

// The address that an interface gives itself out of its MAC (EUI-64, RFC 4291). A VPC lets an ENI use no other of fe80::/10.
inline IpAddress link_local_of(const MacAddress& mac) {
  const auto& m = mac.bytes;
  return IpAddress{{0xfe, 0x80, 0, 0, 0, 0, 0, 0, static_cast<std::uint8_t>(m[0] ^ 2), m[1], m[2], 0xff, 0xfe, m[3], m[4], m[5]}};
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

// --- the services that nobody filters -------------------------------------------------------------------------------

enum class Service : std::uint8_t { none, router, resolver, time, metadata, other };

inline constexpr std::uint16_t kLinkLocalIpv4 = 0xfea9;  // 169.254 as it lies in a packet
inline constexpr std::uint16_t kDnsPort = __builtin_bswap16(53);

inline bool is_dns(const Headers& headers, const FlowKey& key) {
  return (headers.protocol == protocol::udp || headers.protocol == protocol::tcp) &&
         (key.remote_port == kDnsPort || headers.fragment == Fragment::later);
}

inline Service service_at4(std::uint32_t remote, const Headers& headers, const FlowKey& key, const Endpoint& endpoint) {
  if (remote == endpoint.router_ipv4) return Service::router;
  if (remote == endpoint.resolver_ipv4) return is_dns(headers, key) ? Service::resolver : Service::none;
  if (static_cast<std::uint16_t>(remote) != kLinkLocalIpv4) return Service::none;
  switch (__builtin_bswap32(remote) & 0xffff) {
    case 0xa9fd: return Service::resolver;  // 169.254.169.253
    case 0xa97b: return Service::time;      // .123
    case 0xa9fe: return Service::metadata;  // .254
    case 0xa9fa: case 0xa9fb: return Service::router;  // .250, .251: licence activation
    case 0xaa02: return Service::router;    // 169.254.170.2: the task's own metadata and credentials
    default: return Service::other;
  }
}

inline Service service_at6(const IpAddress& remote, const Endpoint& endpoint) {
  static constexpr std::array<std::uint8_t, 14> kAmazon{0xfd, 0x00, 0x0e, 0xc2};  // fd00:ec2::/112
  static constexpr std::array<std::uint8_t, 16> kRouter{0xfe, 0x80, 0x0e, 0xc2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1};  // fe80:ec2::1
  if (remote.bytes == kRouter || (endpoint.has_ipv6_subnet && remote == endpoint.router6)) return Service::router;
  if (std::memcmp(remote.bytes.data(), kAmazon.data(), 4) != 0) return Service::none;
  if (std::memcmp(remote.bytes.data(), kAmazon.data(), kAmazon.size()) != 0 || remote.bytes[14] > 2) return Service::other;
  switch (remote.bytes[14] << 8 | remote.bytes[15]) {
    case 0x253: return Service::resolver;
    case 0x123: return Service::time;
    case 0x254: return Service::metadata;
    default: return Service::other;
  }
}

inline Service service_of(const Burst& burst, std::uint32_t i, Direction direction) {
  const Endpoint& endpoint = *burst.endpoint[i];
  if (burst.headers[i].layer3 == Layer3::ipv4) return service_at4(burst.key[i].remote, burst.headers[i], burst.key[i], endpoint);
  return service_at6(direction == Direction::ingress ? burst.source(i) : burst.destination(i), endpoint);
}

// What a task asks of them, each second, has a limit; what they answer has none.
inline DropReason check_service(Service service, const Endpoint& endpoint, Direction direction, WorkerState& worker) {
  if (service == Service::other) return DropReason::link_local;
  if (service == Service::metadata && endpoint.block_imds) return DropReason::imds_blocked;
  if (service == Service::router || direction == Direction::ingress) return DropReason::none;
  Allowances& left = worker.allowances[endpoint.id.value];
  left.of(endpoint.generation);
  return left.take_link_local(worker.now) ? DropReason::none : DropReason::linklocal_allowance_exceeded;
}

inline const Endpoint* find_endpoint(const Burst& burst, std::uint32_t i, const View& view) {
  if (burst.headers[i].vlan != 0) return view.at_vlan(burst.headers[i].vlan);
  const MacAddress destination = mac_at(burst.bytes(i));
  if (!destination.is_multicast()) return view.with_mac(destination);
  // Untagged broadcast: only its target's address tells whom it is for, or the client's MAC in DHCP.
  const Endpoint* endpoint = nullptr;
  if (burst.headers[i].layer3 == Layer3::arp) {
    endpoint = view.with_address(burst.destination(i));
  } else if (burst.headers[i].layer3 == Layer3::ipv4 && has_udp_ports(burst, i, kDhcpClient, kDhcpClient)) {
    const std::uint32_t at = burst.headers[i].layer4_offset + 8U + 28U;  // chaddr
    if (at + 6 <= burst.mbuf[i]->data_len) endpoint = view.with_mac(mac_at(burst.bytes(i) + at));
  }
  return endpoint != nullptr && endpoint->vlan.is_untagged() ? endpoint : nullptr;
}

inline DropReason check_from_trunk(const Burst& burst, std::uint32_t i, const Endpoint& endpoint) {
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
  if (endpoint.source_dest_check && !endpoint.owns(target)) return DropReason::dest_check;
  return DropReason::none;
}

inline DropReason check_from_task(const Burst& burst, std::uint32_t i, const Endpoint& endpoint) {
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
  if (endpoint.source_dest_check && !endpoint.owns(source)) return DropReason::spoof_ip;
  if (is_martian_source(source)) return DropReason::martian;
  return DropReason::none;
}

inline void sort_or_drop(Burst& burst, std::uint32_t i, DropReason reason, Direction direction, WorkerState& worker) {
  if (reason != DropReason::none) return burst.drop(i, reason);
  if (is_for_edge(burst, i, direction)) {
    burst.edge |= std::uint64_t{1} << i;
  } else if (const Service service = service_of(burst, i, direction); service == Service::none) {
    burst.filter(i, *burst.endpoint[i]);
  } else {
    burst.drop(i, check_service(service, *burst.endpoint[i], direction, worker));
  }
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
  if (burst.alive(i) || burst.headers[i].vlan != 0) endpoint = find_endpoint(burst, i, view);
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
  if (burst.alive(i)) sort_or_drop(burst, i, check_from_trunk(burst, i, *endpoint), Direction::ingress, worker);
}

}  // namespace detail

}  // namespace trunkline
