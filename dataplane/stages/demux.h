// SPDX-License-Identifier: BSD-3-Clause
//
// Stage 2: whose packet is it? On the trunk the VLAN names the endpoint (or, untagged, the MAC address), and the frame
// must be for that endpoint's MAC and address. On a task's port the endpoint is known, and the frame must come from
// its MAC and address. No ENI can reach another's VLAN, and no task can speak for another.
//
// Also where meters begin: every packet is counted as received here, once.
//
// Refuses: unknown_eni, no_policy, wrong_mac, dest_check, unexpected_vlan, spoof_mac, spoof_ip, martian, multicast.
#pragma once

#include <cstring>

#include "dataplane/packet.h"
#include "dataplane/stages/parse.h"
#include "dataplane/state/worker_state.h"

namespace trunkline {

namespace detail {

inline constexpr MacAddress kBroadcast{{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}};

inline MacAddress mac_at(const std::uint8_t* bytes) {
  MacAddress mac;
  std::memcpy(mac.bytes.data(), bytes, mac.bytes.size());
  return mac;
}

inline bool is_multicast(const IpAddress& address) {
  return address.is_v4() ? (address.bytes[12] & 0xf0) == 0xe0 || address.v4() == 0xffffffff : address.bytes[0] == 0xff;
}

inline bool is_link_local6(const IpAddress& address) {
  return address.bytes[0] == 0xfe && (address.bytes[1] & 0xc0) == 0x80;
}

// Sources that no host has. 0.0.0.0 and :: are for the edge to judge, where DHCP, ARP and ND use them.
inline bool is_martian_source(const IpAddress& address) {
  if (address.is_v4()) {
    const std::uint8_t first = address.bytes[12];
    return first == 0 || first == 127 || first >= 224;
  }
  if (address.bytes[0] == 0xff) return true;
  for (std::size_t i = 0; i < 15; ++i) {
    if (address.bytes[i] != 0) return false;
  }
  return address.bytes[15] <= 1;  // :: and ::1
}

// Neighbour discovery, which the edge stage polices: the only packets with a multicast destination that pass demux.
inline bool is_neighbour_discovery(const Burst& burst, std::uint32_t i) {
  return burst.layer3[i] == Layer3::ipv6 && burst.protocol[i] == protocol::icmpv6 && burst.icmp_type[i] >= 133 &&
         burst.icmp_type[i] <= 137;
}

inline const Endpoint* find_endpoint(const Burst& burst, std::uint32_t i, const View& view) {
  if (burst.vlan[i] != 0) return view.at_vlan(burst.vlan[i]);
  const MacAddress destination = mac_at(burst.bytes(i));
  if (!destination.is_multicast()) return view.with_mac(destination);
  // Untagged broadcast: only its target's address tells whom it is for.
  const Endpoint* endpoint = burst.layer3[i] == Layer3::arp ? view.with_address(burst.destination[i]) : nullptr;
  return endpoint != nullptr && endpoint->vlan.is_untagged() ? endpoint : nullptr;
}

inline DropReason check_from_trunk(const Burst& burst, std::uint32_t i, const Endpoint& endpoint) {
  const MacAddress destination = mac_at(burst.bytes(i));
  const bool discovery = is_neighbour_discovery(burst, i);
  if (destination != endpoint.mac && !(burst.layer3[i] == Layer3::arp && destination == kBroadcast) &&
      !(discovery && destination.bytes[0] == 0x33 && destination.bytes[1] == 0x33)) {
    return destination.is_multicast() ? DropReason::multicast : DropReason::wrong_mac;
  }
  if (burst.layer3[i] == Layer3::arp) {
    return endpoint.owns(burst.destination[i]) ? DropReason::none : DropReason::dest_check;
  }
  if (is_martian_source(burst.source[i]) && !discovery) return DropReason::martian;
  if (discovery) return DropReason::none;
  if (is_multicast(burst.destination[i])) return DropReason::multicast;
  if (endpoint.source_dest_check && !endpoint.owns(burst.destination[i])) return DropReason::dest_check;
  return DropReason::none;
}

inline DropReason check_from_task(const Burst& burst, std::uint32_t i, const Endpoint& endpoint) {
  if (burst.tag_bytes[i] != 0 || burst.vlan[i] != 0) return DropReason::unexpected_vlan;
  if (mac_at(burst.bytes(i) + 6) != endpoint.mac) return DropReason::spoof_mac;
  if (burst.layer3[i] == Layer3::arp) return DropReason::none;  // the edge looks at what it claims
  if (is_neighbour_discovery(burst, i)) {
    const bool ours = endpoint.owns(burst.source[i]) || is_link_local6(burst.source[i]) || burst.source[i].is_zero();
    return ours ? DropReason::none : DropReason::spoof_ip;
  }
  if (is_multicast(burst.destination[i]) || mac_at(burst.bytes(i)).is_multicast()) return DropReason::multicast;
  if (endpoint.source_dest_check && !endpoint.owns(burst.source[i])) return DropReason::spoof_ip;
  if (is_martian_source(burst.source[i])) return DropReason::martian;
  return DropReason::none;
}

}  // namespace detail

inline void demux_from_trunk(Burst& burst, WorkerState& worker) {
  for (std::uint32_t i = 0; i < burst.size; ++i) {
    const std::uint32_t bytes = burst.mbuf[i]->pkt_len;
    worker.trunk_in.received(bytes);
    // A frame that could not be parsed past its tag is still its endpoint's to account for, if it has one.
    const Endpoint* endpoint = nullptr;
    if (burst.alive(i) || burst.vlan[i] != 0) endpoint = detail::find_endpoint(burst, i, *worker.view);
    if (endpoint == nullptr) {
      if (burst.alive(i)) {
        const bool waiting = worker.view->is_waiting(burst.vlan[i], detail::mac_at(burst.bytes(i)));
        burst.drop(i, waiting ? DropReason::no_policy : DropReason::unknown_eni);
      }
      worker.trunk_in.dropped(burst.verdict[i]);
      continue;
    }
    burst.endpoint[i] = endpoint;
    worker.trunk_in.sent(bytes);
    worker.meter(*endpoint, Direction::ingress).received(bytes);
    if (burst.alive(i)) burst.drop(i, detail::check_from_trunk(burst, i, *endpoint));
  }
}

inline void demux_from_task(Burst& burst, WorkerState& worker, const Endpoint& endpoint) {
  Meter& meter = worker.meter(endpoint, Direction::egress);
  for (std::uint32_t i = 0; i < burst.size; ++i) {
    burst.endpoint[i] = &endpoint;
    meter.received(burst.mbuf[i]->pkt_len);
    if (burst.alive(i)) burst.drop(i, detail::check_from_task(burst, i, endpoint));
  }
}

}  // namespace trunkline
