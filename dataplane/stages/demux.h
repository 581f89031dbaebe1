// SPDX-License-Identifier: BSD-3-Clause
//
// Stage 2: whose packet is it? On the trunk the VLAN names the endpoint (or, untagged, the MAC address), and the frame
// must be for that endpoint's MAC and address. On a task's port the endpoint is known, and the frame must come from
// its MAC and address. No ENI can reach another's VLAN, and no task can speak for another.
//
// What nearly every packet is, an IPv4 packet of the ENI's first address, is settled with two comparisons against one line
// of the endpoint; the rest is looked at in full. Passing packets are sorted into the burst's `filtered` and `edge`.
//
// Also where meters begin: every packet is counted as received here, once. And where a packet leaves for the worker that owns
// its endpoint (state/handoff.h), if that is another: then its place in the burst stays empty.
//
// Refuses: handoff_full, unknown_eni, no_policy, wrong_mac, dest_check, unexpected_vlan, spoof_mac, spoof_ip, martian, multicast.
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
inline bool is_martian_byte(std::uint8_t first) { return first == 0 || first == 127 || first >= 224; }

// Sources that no host has. 0.0.0.0 and :: are for the edge to judge, where DHCP, ARP and ND use them.
inline bool is_martian_source(const IpAddress& address) {
  if (address.is_v4()) return is_martian_byte(address.bytes[12]);
  if (address.bytes[0] == 0xff) return true;
  for (std::size_t i = 0; i < 15; ++i) {
    if (address.bytes[i] != 0) return false;
  }
  return address.bytes[15] <= 1;  // :: and ::1
}

// Neighbour discovery, which the edge stage polices: the only packets with a multicast destination that pass demux.
inline bool is_neighbour_discovery(const Headers& headers) {
  return headers.layer3 == Layer3::ipv6 && headers.protocol == protocol::icmpv6 && headers.icmp_type >= 133 &&
         headers.icmp_type <= 137;
}
inline bool is_for_edge(const Headers& headers) { return headers.layer3 == Layer3::arp || is_neighbour_discovery(headers); }

[[gnu::always_inline]] inline const Endpoint* find_endpoint(const Burst& burst, std::uint32_t i, const View& view) {
  if (burst.headers[i].vlan != 0) return view.at_vlan(burst.headers[i].vlan);
  const MacAddress destination = mac_at(burst.bytes(i));
  if (!destination.is_multicast()) return view.with_mac(destination);
  // Untagged broadcast: only its target's address tells whom it is for.
  const Endpoint* endpoint = burst.headers[i].layer3 == Layer3::arp ? view.with_address(burst.destination(i)) : nullptr;
  return endpoint != nullptr && endpoint->vlan.is_untagged() ? endpoint : nullptr;
}

// An IPv4 packet for the ENI's MAC and first address, from a possible source.
[[gnu::always_inline]] inline bool is_plain_from_trunk(const Burst& burst, std::uint32_t i, const Endpoint& endpoint) {
  return (mac_bits_at(burst.bytes(i)) == endpoint.mac_bits) & (burst.headers[i].layer3 == Layer3::ipv4) &
         (burst.key[i].local == endpoint.first_ipv4) & !is_martian_byte(static_cast<std::uint8_t>(burst.key[i].remote));
}

inline DropReason check_from_trunk(const Burst& burst, std::uint32_t i, const Endpoint& endpoint) {
  const MacAddress destination = mac_at(burst.bytes(i));
  const Headers& headers = burst.headers[i];
  const bool discovery = is_neighbour_discovery(headers);
  if (destination != endpoint.mac && !(headers.layer3 == Layer3::arp && destination == kBroadcast) &&
      !(discovery && destination.bytes[0] == 0x33 && destination.bytes[1] == 0x33)) {
    return destination.is_multicast() ? DropReason::multicast : DropReason::wrong_mac;
  }
  const IpAddress target = burst.destination(i);
  if (headers.layer3 == Layer3::arp) return endpoint.owns(target) ? DropReason::none : DropReason::dest_check;
  if (discovery) return DropReason::none;
  if (is_martian_source(burst.source(i))) return DropReason::martian;
  if (is_multicast(target)) return DropReason::multicast;
  if (endpoint.source_dest_check && !endpoint.owns(target)) return DropReason::dest_check;
  return DropReason::none;
}

// An untagged IPv4 packet from the ENI's MAC and first address to a unicast destination.
[[gnu::always_inline]] inline bool is_plain_from_task(const Burst& burst, std::uint32_t i, const Endpoint& endpoint) {
  const Headers& headers = burst.headers[i];
  const std::uint8_t* frame = burst.bytes(i);
  return ((headers.tag_bytes | headers.vlan) == 0) & (mac_bits_at(frame + 6) == endpoint.mac_bits) & ((frame[0] & 1) == 0) &
         (headers.layer3 == Layer3::ipv4) & (burst.key[i].local == endpoint.first_ipv4) &
         (static_cast<std::uint8_t>(burst.key[i].remote) < 224);
}

inline DropReason check_from_task(const Burst& burst, std::uint32_t i, const Endpoint& endpoint) {
  const Headers& headers = burst.headers[i];
  if (headers.tag_bytes != 0 || headers.vlan != 0) return DropReason::unexpected_vlan;
  if (mac_at(burst.bytes(i) + 6) != endpoint.mac) return DropReason::spoof_mac;
  if (headers.layer3 == Layer3::arp) return DropReason::none;  // the edge looks at what it claims
  const IpAddress source = burst.source(i);
  if (is_neighbour_discovery(headers)) {
    const bool ours = endpoint.owns(source) || is_link_local6(source) || source.is_zero();
    return ours ? DropReason::none : DropReason::spoof_ip;
  }
  if (is_multicast(burst.destination(i)) || mac_at(burst.bytes(i)).is_multicast()) return DropReason::multicast;
  if (endpoint.source_dest_check && !endpoint.owns(source)) return DropReason::spoof_ip;
  if (is_martian_source(source)) return DropReason::martian;
  return DropReason::none;
}

inline void sort_or_drop(Burst& burst, std::uint32_t i, DropReason reason) {
  if (reason != DropReason::none) return burst.drop(i, reason);
  (is_for_edge(burst.headers[i]) ? burst.edge : burst.filtered) |= std::uint64_t{1} << i;
}

// What a burst has of one endpoint is added to its meter at once: packets of one endpoint often come in a row.
struct ReceivedRun {
  Meter* meter = nullptr;
  std::uint64_t packets = 0, bytes = 0;

  void add(Meter& next, std::uint64_t more) {
    if (meter != &next) {
      finish();
      meter = &next, packets = bytes = 0;
    }
    ++packets, bytes += more;
  }
  void finish() {
    if (meter != nullptr) meter->rx_packets.add(packets), meter->rx_bytes.add(bytes);
  }
};

}  // namespace detail

namespace detail {

// For another worker, or for later: the packet is not ours to look at any further.
[[gnu::noinline]] inline void hand_to_owner(Burst& burst, std::uint32_t i, const Endpoint& endpoint, WorkerState& worker) {
  const HandedPacket handed{burst.mbuf[i], endpoint.id, endpoint.generation, HandoffKind::trunk, Direction::ingress};
  burst.endpoint[i] = nullptr;
  if (worker.handoff.send(endpoint.worker, handed)) {
    burst.mbuf[i] = nullptr;
  } else {
    burst.drop(i, DropReason::handoff_full);
    worker.trunk_in.dropped(DropReason::handoff_full);
  }
}

}  // namespace detail

// `received_by_another`: another worker took it from the trunk, and counted it there.
inline void demux_from_trunk(Burst& burst, WorkerState& worker, bool received_by_another = false) {
  const View& view = *worker.view;
  detail::ReceivedRun run;
  std::uint64_t received = 0, received_bytes = 0, ours = 0, our_bytes = 0;
  for (std::uint32_t i = 0; i < burst.size; ++i) {
    const std::uint32_t bytes = burst.mbuf[i]->pkt_len;
    ++received, received_bytes += bytes;
    // A frame that could not be parsed past its tag is still its endpoint's to account for, if it has one.
    const Endpoint* endpoint = nullptr;
    if (burst.alive(i) || burst.headers[i].vlan != 0) endpoint = detail::find_endpoint(burst, i, view);
    burst.endpoint[i] = endpoint;
    if (endpoint == nullptr) [[unlikely]] {
      if (burst.alive(i)) {
        const bool waiting = view.is_waiting(burst.headers[i].vlan, detail::mac_at(burst.bytes(i)));
        burst.drop(i, waiting ? DropReason::no_policy : DropReason::unknown_eni);
      }
      worker.trunk_in.dropped(burst.verdict[i]);
      continue;
    }
    if (endpoint->served_by != worker.number) [[unlikely]] {
      detail::hand_to_owner(burst, i, *endpoint, worker);
      continue;
    }
    ++ours, our_bytes += bytes;
    run.add(worker.meter(*endpoint, Direction::ingress), bytes);
    if (!burst.alive(i)) continue;
    if (detail::is_plain_from_trunk(burst, i, *endpoint)) {
      burst.filtered |= std::uint64_t{1} << i;
    } else {
      detail::sort_or_drop(burst, i, detail::check_from_trunk(burst, i, *endpoint));
    }
  }
  run.finish();
  if (!received_by_another) worker.trunk_in.rx_packets.add(received), worker.trunk_in.rx_bytes.add(received_bytes);
  worker.trunk_in.tx_packets.add(ours), worker.trunk_in.tx_bytes.add(our_bytes);
}

inline void demux_from_task(Burst& burst, WorkerState& worker, const Endpoint& endpoint) {
  std::uint64_t bytes = 0;
  for (std::uint32_t i = 0; i < burst.size; ++i) {
    burst.endpoint[i] = &endpoint;
    bytes += burst.mbuf[i]->pkt_len;
    if (!burst.alive(i)) continue;
    if (detail::is_plain_from_task(burst, i, endpoint)) {
      burst.filtered |= std::uint64_t{1} << i;
    } else {
      detail::sort_or_drop(burst, i, detail::check_from_task(burst, i, endpoint));
    }
  }
  Meter& meter = worker.meter(endpoint, Direction::egress);
  meter.rx_packets.add(burst.size), meter.rx_bytes.add(bytes);
}

}  // namespace trunkline
