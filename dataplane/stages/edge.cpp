// SPDX-License-Identifier: BSD-3-Clause
#include "dataplane/stages/edge.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <optional>
#include <span>

#include "dataplane/stages/chain_reader.h"
#include "dataplane/stages/checksum.h"
#include "dataplane/stages/demux.h"
#include "dataplane/stages/edge_dhcp.h"
#include "dataplane/stages/observe_drop.h"
#include "dataplane/stages/parse.h"
#include "dataplane/stages/track.h"

namespace trunkline {
namespace {

constexpr std::uint8_t kRouterSolicitation = 133;
constexpr std::uint8_t kRouterAdvertisement = 134;
constexpr std::uint8_t kNeighbourSolicitation = 135;
constexpr std::uint8_t kNeighbourAdvertisement = 136;
constexpr std::uint8_t kRedirect = 137;
constexpr IpAddress kUnspecified6{};

void put_mac(std::uint8_t* at, const MacAddress& mac) { std::memcpy(at, mac.bytes.data(), mac.bytes.size()); }

// The ICMPv6 checksum covers addresses, length and protocol as well.
void finish_icmp6(std::uint8_t* ip, std::uint16_t icmp_bytes) {
  std::uint8_t* icmp = ip + 40;
  store16(icmp + 2, 0);
  store16(icmp + 2, fold(sum16(icmp, icmp_bytes, sum16(ip + 8, 32, icmp_bytes + 58U))));
}

// The addresses of a subnet that nobody ever has: AWS reserves the first four and the last. Of these the router is at the second, and the
// resolver may be at the third.
bool is_nobodys(const Endpoint& endpoint, const IpAddress& target) {
  if (target == endpoint.router(target.is_v4()) || target == endpoint.resolver) return false;
  if (target.is_v4()) {
    const unsigned host_bits = 32U - std::min<unsigned>(endpoint.subnet4.length, 32);
    const std::uint32_t last = host_bits >= 32 ? 0xffffffff : (1U << host_bits) - 1;
    const std::uint32_t host = target.v4() & last;
    return host_bits > 2 && (host < 4 || host == last);
  }
  static constexpr std::size_t kHost = 8;
  const auto& bytes = target.bytes;
  const auto all = [&](std::uint8_t value, std::size_t end) { return std::all_of(bytes.begin() + kHost, bytes.begin() + static_cast<std::ptrdiff_t>(end), [&](std::uint8_t byte) { return byte == value; }); };
  return endpoint.subnet6.length <= 64 && ((all(0, 15) && bytes[15] < 4) || all(0xff, 16));
}

// Who answers for `target` when `endpoint` asks, on this host; nullopt: nobody. `is_probe`: it asks whether anybody has the address, not how to reach
// who has it (RFC 5227); so only who is known to be there answers.
std::optional<MacAddress> answer_for(const Endpoint& endpoint, const IpAddress& target, bool is_probe, const View& view) {
  const Endpoint* peer = view.with_address(target);
  if (peer != nullptr && endpoint.in_subnet(target)) return peer->mac;
  if (!view.edge.answer) return std::nullopt;
  const bool is_router = target.is_v4() ? target == endpoint.router4 : detail::is_router6(endpoint, target, view);
  if (is_router) return view.edge.router_mac;
  // Everything else on the subnet is on other hosts and reached through the router, which then finds it by address. The engine is not told
  // what is there.
  if (!is_probe && endpoint.in_subnet(target) && !is_nobodys(endpoint, target)) return view.edge.router_mac;
  return std::nullopt;
}

// --- ARP -------------------------------------------------------------------------------------------------------------

constexpr std::uint32_t kArpBytes = 28;

void answer_arp(Burst& burst, std::uint32_t i, const MacAddress& owner) {
  std::uint8_t* frame = burst.bytes(i);
  std::uint8_t* arp = frame + burst.headers[i].layer3_offset;
  const Endpoint& asker = *burst.endpoint[i];
  put_mac(frame, asker.mac);
  put_mac(frame + 6, owner);
  store16(arp + 6, 2);
  std::uint8_t target[4];
  std::memcpy(target, arp + 24, 4);
  put_mac(arp + 18, asker.mac);
  std::memcpy(arp + 24, arp + 14, 4);
  put_mac(arp + 8, owner);
  std::memcpy(arp + 14, target, 4);
  burst.route[i] = Route::answer;
}

DropReason arp_from_task(Burst& burst, std::uint32_t i, const View& view) {
  const Endpoint& endpoint = *burst.endpoint[i];
  const std::uint8_t* arp = burst.bytes(i) + burst.headers[i].layer3_offset;
  const IpAddress sender = burst.source(i);
  const IpAddress target = burst.destination(i);
  if (detail::mac_at(arp + 8) != endpoint.mac) return DropReason::arp_spoof;
  if (!sender.is_zero() && !endpoint.owns(sender)) return DropReason::arp_spoof;
  if (sender == target) return DropReason::arp_gratuitous;
  if (endpoint.owns(target)) return DropReason::arp_own_address;
  switch (load16(arp + 6)) {
    case 1:
      if (const auto owner = answer_for(endpoint, target, sender.is_zero(), view)) {
        answer_arp(burst, i, *owner);
        return DropReason::none;
      }
      if (view.edge.answer) return DropReason::arp_no_answer;
      burst.route[i] = Route::trunk;
      return DropReason::none;
    case 2:
      // To somebody who asked (a fabric made of ordinary hosts does); an announcement to all is not an answer.
      if (detail::mac_at(burst.bytes(i)).is_multicast()) return DropReason::arp_gratuitous;
      burst.route[i] = Route::trunk;
      return DropReason::none;
    default: return DropReason::malformed;
  }
}

// --- neighbour discovery ---------------------------------------------------------------------------------------------

// Makes the packet an ICMPv6 message of `icmp_bytes` zeroes to the asker, in the request's place; where they are, or nullptr when
// there is no room.
std::uint8_t* begin_advertisement(Burst& burst, std::uint32_t i, const IpAddress& source, const MacAddress& from, std::uint32_t icmp_bytes) {
  rte_mbuf* packet = burst.mbuf[i];
  const std::uint32_t wanted = ether::header_bytes + 40 + icmp_bytes;
  if (packet->nb_segs != 1) return nullptr;
  if (packet->data_len < wanted && rte_pktmbuf_append(packet, static_cast<std::uint16_t>(wanted - packet->data_len)) == nullptr) return nullptr;
  if (packet->data_len > wanted) rte_pktmbuf_trim(packet, static_cast<std::uint16_t>(packet->data_len - wanted));
  const IpAddress asking = burst.source(i);
  std::uint8_t* frame = burst.bytes(i);
  std::uint8_t* ip = frame + ether::header_bytes;
  put_mac(frame, burst.endpoint[i]->mac);
  put_mac(frame + 6, from);
  store16(frame + 12, ether::ipv6);
  std::memset(ip, 0, 40 + icmp_bytes);
  ip[0] = 0x60;
  store16(ip + 4, static_cast<std::uint16_t>(icmp_bytes));
  ip[6] = protocol::icmpv6;
  ip[7] = 255;
  std::memcpy(ip + 8, source.bytes.data(), 16);
  std::memcpy(ip + 24, asking.bytes.data(), 16);
  burst.route[i] = Route::answer;
  return ip + 40;
}

void put_link_layer(std::uint8_t* option, std::uint8_t type, const MacAddress& mac) {
  option[0] = type;  // 1: the source's, 2: the target's
  option[1] = 1;     // times 8 bytes
  put_mac(option + 2, mac);
}

DropReason answer_solicitation(Burst& burst, std::uint32_t i, const IpAddress& target, const MacAddress& owner, bool is_router) {
  static constexpr std::uint32_t kBytes = 32;  // 24, and the target link-layer address
  std::uint8_t* icmp = begin_advertisement(burst, i, target, owner, kBytes);
  if (icmp == nullptr) return DropReason::malformed;
  icmp[0] = kNeighbourAdvertisement;
  // Solicited, override. And whether it is a router: who believes it no longer is one forgets its default route.
  icmp[4] = is_router ? 0xe0 : 0x60;
  std::memcpy(icmp + 8, target.bytes.data(), 16);
  put_link_layer(icmp + 24, 2, owner);
  finish_icmp6(icmp - 40, kBytes);
  return DropReason::none;
}

// The default route and nothing else: addresses come from the VPC (by DHCPv6, or set), so there is no prefix. They are said to be managed (by
// DHCPv6) where DHCP is relayed to who answers it: the engine itself answers version 4 only.
DropReason advertise_router(Burst& burst, std::uint32_t i, const View& view) {
  static constexpr std::uint32_t kBytes = 32;  // 16, source link-layer address, MTU
  const Endpoint& endpoint = *burst.endpoint[i];
  if (!endpoint.has_ipv6_subnet) return DropReason::arp_no_answer;
  std::uint8_t* icmp = begin_advertisement(burst, i, detail::kRouter6, view.edge.router_mac, kBytes);
  if (icmp == nullptr) return DropReason::malformed;
  std::uint8_t* asker = icmp - 16;
  if (std::memcmp(asker, kUnspecified6.bytes.data(), 16) == 0) {
    std::memcpy(asker, detail::kAllNodes6.bytes.data(), 16);
    put_mac(burst.bytes(i), MacAddress{{0x33, 0x33, 0, 0, 0, 1}});
  }
  icmp[0] = kRouterAdvertisement;
  icmp[4] = 64;              // hop limit to use
  icmp[5] = view.edge.dhcp == DhcpMode::relay ? 0x80 : 0;  // managed
  store16(icmp + 6, 1800);   // router lifetime, seconds
  put_link_layer(icmp + 16, 1, view.edge.router_mac);
  icmp[24] = 5;  // MTU
  icmp[25] = 1;
  store16(icmp + 30, endpoint.mtu);
  finish_icmp6(icmp - 40, kBytes);
  return DropReason::none;
}

// What every ND message must be (RFC 4861): hop limit 255, code 0, a target where the type has one.
bool is_sound_discovery(const Burst& burst, std::uint32_t i) {
  const std::uint8_t* frame = burst.bytes(i);
  if (frame[burst.headers[i].layer3_offset + 7] != 255 || burst.headers[i].icmp_code != 0) return false;
  const std::uint8_t type = burst.headers[i].icmp_type;
  const std::uint32_t wanted = type == kRouterSolicitation ? 8 : type == kRouterAdvertisement ? 16 : 24;
  // Both within the packet and within the first segment.
  return burst.headers[i].layer4_offset + wanted <= burst.mbuf[i]->data_len &&
         burst.headers[i].layer4_offset + wanted <= burst.headers[i].layer3_offset + std::uint32_t{burst.headers[i].packet_bytes};
}

// Every link-layer address option of a message from the task must be its own, wherever it lies. Nobody has use for more than a few options, so a
// message with many is refused instead of read.
DropReason check_options(const Burst& burst, std::uint32_t i, std::uint32_t options) {
  static constexpr unsigned kMostOptions = 32;
  const std::uint32_t end = burst.headers[i].layer3_offset + std::uint32_t{burst.headers[i].packet_bytes};
  std::uint32_t at = burst.headers[i].layer4_offset + options;
  for (unsigned count = 0; at + 8 <= end; ++count) {
    if (count == kMostOptions) return DropReason::malformed;
    std::uint8_t option[8];
    if (ChainReader(*burst.mbuf[i], at).read(option, sizeof option) != sizeof option) return DropReason::malformed;
    const std::uint32_t length = option[1] * 8U;
    if (length == 0 || at + length > end) return DropReason::arp_spoof;
    if ((option[0] == 1 || option[0] == 2) && detail::mac_at(option + 2) != burst.endpoint[i]->mac) return DropReason::arp_spoof;
    at += length;
  }
  return DropReason::none;
}

DropReason solicit_router(Burst& burst, std::uint32_t i, const View& view) {
  if (const DropReason refused = check_options(burst, i, 8); refused != DropReason::none) return refused;
  if (view.edge.answer) return advertise_router(burst, i, view);
  burst.route[i] = Route::trunk;
  return DropReason::none;
}

DropReason discovery_from_task(Burst& burst, std::uint32_t i, const View& view) {
  if (!is_sound_discovery(burst, i)) return DropReason::malformed;
  const Endpoint& endpoint = *burst.endpoint[i];
  const std::uint8_t type = burst.headers[i].icmp_type;
  if (type == kRouterSolicitation) return solicit_router(burst, i, view);
  if (type != kNeighbourSolicitation && type != kNeighbourAdvertisement) return DropReason::nd_refused;
  if (const DropReason refused = check_options(burst, i, 24); refused != DropReason::none) return refused;
  const IpAddress target = IpAddress::from_v6_bytes(burst.bytes(i) + burst.headers[i].layer4_offset + 8);
  const bool own_target = detail::is_own6(endpoint, target);
  if (type == kNeighbourAdvertisement) {
    if (!own_target) return DropReason::arp_spoof;
    const bool solicited = (burst.bytes(i)[burst.headers[i].layer4_offset + 4] & 0x40) != 0;
    if (!solicited || detail::mac_at(burst.bytes(i)).is_multicast()) return DropReason::arp_gratuitous;
    burst.route[i] = Route::trunk;
    return DropReason::none;
  }
  // Duplicate address detection, for its own or a link-local address.
  if (own_target || burst.source(i) == kUnspecified6) return DropReason::arp_own_address;
  if (const auto owner = answer_for(endpoint, target, false, view)) return answer_solicitation(burst, i, target, *owner, detail::is_router6(endpoint, target, view));
  if (view.edge.answer) return DropReason::arp_no_answer;
  burst.route[i] = Route::trunk;
  return DropReason::none;
}

DropReason discovery_from_trunk(Burst& burst, std::uint32_t i, const View& view) {
  if (!is_sound_discovery(burst, i)) return DropReason::malformed;
  switch (burst.headers[i].icmp_type) {
    case kRouterSolicitation:
    case kRedirect: return DropReason::nd_refused;  // nobody asks a task the way, and there is one router only
    case kRouterAdvertisement:
      if (view.edge.answer) return DropReason::nd_refused;  // the engine is the router
      if (!detail::is_link_local6(burst.source(i))) return DropReason::malformed;  // RFC 4861, 6.1.2
      break;
    case kNeighbourSolicitation: {
      const IpAddress target = IpAddress::from_v6_bytes(burst.bytes(i) + burst.headers[i].layer4_offset + 8);
      if (!burst.endpoint[i]->owns(target) && !detail::is_link_local6(target)) return DropReason::dest_check;
      break;
    }
    default: break;
  }
  burst.route[i] = Route::task;
  return DropReason::none;
}

}  // namespace

void edge_from_task(Burst& burst, WorkerState& worker) {
  const View& view = *worker.view;
  for_each_bit(burst.edge, [&](std::uint32_t i) {
    const Endpoint& endpoint = *burst.endpoint[i];
    Allowances& left = worker.allowances[endpoint.id.value];
    left.of(endpoint.generation);
    if (!left.edge.take(worker.now, 1)) return burst.drop(i, DropReason::linklocal_allowance_exceeded);
    if (burst.headers[i].layer3 == Layer3::arp) {
      burst.drop(i, arp_from_task(burst, i, view));
    } else {
      burst.drop(i, detail::is_neighbour_discovery(burst.headers[i]) ? discovery_from_task(burst, i, view) : dhcp_from_task(burst, i, view));
    }
  });
}

namespace {

// Whether the worker may copy another message for all untagged ENIs this tick.
bool take_copy_token(WorkerState& worker) {
  if (worker.copied_tick != worker.now) worker.copied_tick = worker.now, worker.copied_left = WorkerState::kCopiedPerTick;
  if (worker.copied_left == 0) return false;
  --worker.copied_left;
  return true;
}

// One that came untagged for all nodes of the link, and was given to one untagged ENI.
DropReason note_for_all(Burst& burst, std::uint32_t i, WorkerState& worker) {
  const bool for_all = burst.headers[i].vlan == 0 && detail::mac_at(burst.bytes(i)).is_multicast() && detail::is_discovery_for_all(burst, i);
  if (!for_all || worker.view->untagged.size() < 2) return DropReason::none;
  if (!take_copy_token(worker)) return DropReason::linklocal_allowance_exceeded;
  burst.to_all |= std::uint64_t{1} << i;
  return DropReason::none;
}

// Takes the tag of a frame without a VLAN (priority only) off, so that nothing of the bytes has to change any more.
void strip_priority_tag(Burst& burst, std::uint32_t i) {
  Headers& headers = burst.headers[i];
  if (headers.tag_bytes == 0) return;
  std::uint8_t* frame = burst.bytes(i);
  std::memmove(frame + headers.tag_bytes, frame, 12);
  rte_mbuf* packet = burst.mbuf[i];
  packet->data_off = static_cast<std::uint16_t>(packet->data_off + headers.tag_bytes);
  packet->data_len = static_cast<std::uint16_t>(packet->data_len - headers.tag_bytes);
  packet->pkt_len -= headers.tag_bytes;
  headers.layer3_offset = static_cast<std::uint16_t>(headers.layer3_offset - headers.tag_bytes);
  headers.layer4_offset = static_cast<std::uint16_t>(headers.layer4_offset - headers.tag_bytes);
  headers.tag_bytes = 0;
}

void share(rte_mbuf* packet) {
  for (; packet != nullptr; packet = packet->next) rte_mbuf_refcnt_update(packet, 1);
}

void hand_copy(rte_mbuf& packet, const Endpoint& endpoint, WorkerState& worker) {
  const auto drop = [&](DropReason reason) {
    worker.meter(endpoint, Direction::ingress).dropped(reason);
    observe_drop(worker, packet, {.endpoint = endpoint.id, .generation = endpoint.generation, .stage = Stage::edge, .reason = reason, .is_first_sight = true});
  };
  const auto take = [&] { return worker.buffers != nullptr ? worker.buffers->take(packet) : nullptr; };
  rte_mbuf* copy = take();
  if (copy == nullptr) return drop(DropReason::no_buffer);
  if (!ChainReader(packet, 0).append_to(*copy, packet.pkt_len, take)) {
    worker.buffers->give_back(copy);
    return drop(DropReason::no_buffer);
  }
  if (worker.handoff.send(endpoint.worker, {copy, endpoint.id, endpoint.generation, HandoffKind::known, Direction::ingress})) return;
  drop(DropReason::handoff_full);
  worker.outbox.discard(copy);
}

}  // namespace

void copy_to_all(Burst& burst, WorkerState& worker, Burst& copies) {
  const View& view = *worker.view;
  for_each_bit(burst.to_all, [&](std::uint32_t i) {
    strip_priority_tag(burst, i);
    for (const EndpointId id : view.untagged) {
      if (view.endpoint(id) == nullptr || view.endpoint(id) == burst.endpoint[i]) continue;
      const Endpoint& endpoint = *view.endpoint(id);
      worker.meter(endpoint, Direction::ingress).received({1, burst.mbuf[i]->pkt_len});
      if (endpoint.served_by == worker.number && copies.size < kMaxBurst) {
        share(burst.mbuf[i]);
        copies.adopt_for_edge(burst, i, endpoint);
      } else {
        hand_copy(*burst.mbuf[i], endpoint, worker);
      }
    }
  });
}

void edge_from_trunk(Burst& burst, WorkerState& worker) {
  const View& view = *worker.view;
  for_each_bit(burst.edge, [&](std::uint32_t i) {
    if (burst.headers[i].layer3 == Layer3::arp) {
      burst.route[i] = Route::task;
      return;
    }
    const bool discovery = detail::is_neighbour_discovery(burst.headers[i]);
    DropReason reason = discovery ? discovery_from_trunk(burst, i, view) : dhcp_from_trunk(burst, i, view);
    if (discovery && reason == DropReason::none) reason = note_for_all(burst, i, worker);
    burst.drop(i, reason);
  });
}

// --- the router's errors ---------------------------------------------------------------------------------------------

namespace {

// The longest error: as much of the packet is quoted as fits into it (RFC 1812, 4.3.2.3; RFC 4443, 2.4).
constexpr std::uint32_t kErrorBytes4 = 576, kErrorBytes6 = 1280;

// Nobody is told about an ICMP error, nor, of IPv4, about what may be cut or a fragment that is not the first (RFC 1812, 4.3.2.7).
bool may_report(const Burst& burst, std::uint32_t i) {
  if (burst.headers[i].layer3 == Layer3::ipv4) {
    const std::uint8_t* ip = burst.bytes(i) + burst.headers[i].layer3_offset;
    return (ip[6] & 0x40) != 0 && burst.headers[i].fragment != Fragment::later && !(detail::is_icmp(burst.headers[i]) && !detail::has_connection(burst.headers[i]));
  }
  return burst.headers[i].layer3 == Layer3::ipv6 && !(detail::is_icmp(burst.headers[i]) && burst.headers[i].icmp_type < 128);
}

bool take_error_token(WorkerState& worker, const Endpoint& endpoint) {
  Allowances& allowances = worker.allowances[endpoint.id.value];
  allowances.of(endpoint.generation);
  return allowances.errors.take(worker.now, 1);
}

}  // namespace

bool make_packet_too_big(Burst& burst, std::uint32_t i, WorkerState& worker, std::uint16_t mtu, Direction direction) {
  if (!may_report(burst, i)) return false;
  rte_mbuf* packet = burst.mbuf[i];
  const bool ipv4 = burst.headers[i].layer3 == Layer3::ipv4;
  const std::uint32_t ip_bytes = ipv4 ? 20 : 40, before_quote = ether::header_bytes + ip_bytes + 8;
  const std::uint32_t most = (ipv4 ? kErrorBytes4 : kErrorBytes6) - ip_bytes - 8;
  const std::uint32_t room = packet->data_len + std::uint32_t{rte_pktmbuf_tailroom(packet)};
  const Endpoint& endpoint = *burst.endpoint[i];
  if (room < before_quote + burst.headers[i].layer4_offset - burst.headers[i].layer3_offset + 8) return false;
  if (!take_error_token(worker, endpoint)) return false;
  std::array<std::uint8_t, kErrorBytes6> quote;
  const std::uint32_t quoted = ChainReader(*packet, burst.headers[i].layer3_offset)
                                   .read(quote.data(), std::min({most, std::uint32_t{burst.headers[i].packet_bytes}, room - before_quote}));
  const std::uint32_t frame_bytes = before_quote + quoted;
  const IpAddress& router = endpoint.router(ipv4);
  const IpAddress sender = burst.source(i);

  std::uint8_t* frame = burst.bytes(i);
  const MacAddress source = detail::mac_at(frame + 6);
  std::memcpy(frame + before_quote, quote.data(), quoted);
  put_mac(frame, source);
  // Towards a task the error comes from the router; towards the fabric it leaves with the ENI's own MAC.
  put_mac(frame + 6, direction == Direction::egress ? worker.view->edge.router_mac : endpoint.mac);
  store16(frame + 12, ipv4 ? ether::ipv4 : ether::ipv6);
  std::uint8_t* ip = frame + ether::header_bytes;
  std::uint8_t* icmp = ip + ip_bytes;
  std::memset(ip, 0, ip_bytes + 8);
  if (ipv4) {
    ip[0] = 0x45;
    store16(ip + 2, static_cast<std::uint16_t>(frame_bytes - ether::header_bytes));
    ip[8] = 64;
    ip[9] = protocol::icmp;
    std::memcpy(ip + 12, &router.bytes[12], 4);
    std::memcpy(ip + 16, &sender.bytes[12], 4);
    store16(ip + 10, fold(sum16(ip, 20)));
    icmp[0] = 3;
    icmp[1] = 4;
    store16(icmp + 6, mtu);
    store16(icmp + 2, fold(sum16(icmp, 8 + quoted)));
  } else {
    ip[0] = 0x60;
    store16(ip + 4, static_cast<std::uint16_t>(8 + quoted));
    ip[6] = protocol::icmpv6;
    ip[7] = 64;
    std::memcpy(ip + 8, router.bytes.data(), 16);
    std::memcpy(ip + 24, sender.bytes.data(), 16);
    icmp[0] = 2;
    store16(icmp + 6, mtu);
    finish_icmp6(ip, static_cast<std::uint16_t>(8 + quoted));
  }

  // What is left of the original, behind the quoted part, goes.
  if (rte_mbuf* tail = packet->next; tail != nullptr) {
    tail->nb_segs = static_cast<std::uint16_t>(packet->nb_segs - 1);
    tail->pkt_len = packet->pkt_len - packet->data_len;
    packet->next = nullptr;
    packet->nb_segs = 1;
    worker.outbox.discard(tail);
  }
  // Within the buffer, which may be longer than what lay in it.
  packet->data_len = static_cast<std::uint16_t>(frame_bytes);
  packet->pkt_len = frame_bytes;
  packet->ol_flags &= ~RTE_MBUF_F_RX_VLAN_STRIPPED;
  burst.headers[i].tag_bytes = 0;
  burst.headers[i].layer3_offset = ether::header_bytes;
  return true;
}

}  // namespace trunkline
