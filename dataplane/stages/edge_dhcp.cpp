// SPDX-License-Identifier: BSD-3-Clause
#include "dataplane/stages/edge_dhcp.h"

#include <algorithm>
#include <cstring>
#include <optional>

#include "dataplane/stages/checksum.h"
#include "dataplane/stages/demux.h"
#include "dataplane/stages/dhcp.h"
#include "dataplane/stages/parse.h"

namespace trunkline {
namespace {

constexpr std::uint32_t kUdpBytes = 8;

// What the UDP datagram carries; nothing when it is not there in one piece.
std::optional<std::span<const std::uint8_t>> message_of(const Burst& burst, std::uint32_t i) {
  const Headers& headers = burst.headers[i];
  const std::uint8_t* udp = burst.bytes(i) + headers.layer4_offset;
  const std::uint32_t length = load16(udp + 4);  // parse has held it against the packet's
  if (headers.fragment != Fragment::none || headers.layer4_offset + length > burst.mbuf[i]->data_len) return std::nullopt;
  return std::span(udp + kUdpBytes, length - kUdpBytes);
}

// The request becomes the answer: Ethernet, IPv4 and UDP around what dhcp.h writes.
DropReason answer(Burst& burst, std::uint32_t i, const dhcp::Message& request, const dhcp::Lease& lease, const MacAddress& router_mac) {
  const dhcp::MessageType type = dhcp::answer_to(request, lease);
  if (type == dhcp::MessageType::none) return DropReason::dhcp_refused;
  rte_mbuf* packet = burst.mbuf[i];
  if (packet->nb_segs != 1) return DropReason::malformed;
  const std::uint32_t message_at = burst.headers[i].layer4_offset + kUdpBytes;
  const std::uint32_t before = packet->data_len;
  const std::uint32_t room = std::min<std::uint32_t>(before + rte_pktmbuf_tailroom(packet) - message_at, dhcp::kMaxMessageBytes);
  const std::uint32_t written = dhcp::write_answer({burst.bytes(i) + message_at, room}, request, type, lease);
  if (written == 0) return DropReason::no_headroom;
  // Headers without options: what they took is left in front of the packet.
  const std::uint32_t surplus = message_at - (ether::header_bytes + 20 + kUdpBytes);
  packet->data_off = static_cast<std::uint16_t>(packet->data_off + surplus);
  packet->data_len = static_cast<std::uint16_t>(message_at - surplus + written);
  packet->pkt_len = packet->data_len;

  const Endpoint& asker = *burst.endpoint[i];
  // To the address that it uses already; to all when it asked for that or is to have none; else to what it is given.
  const bool in_use = type == dhcp::MessageType::ack && !request.client_address.is_zero();
  const bool to_all = !in_use && (request.wants_broadcast || type == dhcp::MessageType::nak);
  std::uint8_t* frame = burst.bytes(i);
  std::uint8_t* ip = frame + ether::header_bytes;
  std::uint8_t* udp = ip + 20;
  const auto udp_bytes = static_cast<std::uint16_t>(kUdpBytes + written);
  std::memcpy(frame, to_all ? detail::kBroadcast.bytes.data() : asker.mac.bytes.data(), 6);
  std::memcpy(frame + 6, router_mac.bytes.data(), 6);
  store16(frame + 12, ether::ipv4);
  std::memset(ip, 0, 20 + kUdpBytes);
  ip[0] = 0x45;
  store16(ip + 2, static_cast<std::uint16_t>(20 + udp_bytes));
  ip[8] = 64;
  ip[9] = protocol::udp;
  std::memcpy(ip + 12, &lease.router.bytes[12], 4);
  if (to_all) {
    std::memset(ip + 16, 0xff, 4);
  } else {
    std::memcpy(ip + 16, &lease.address.bytes[12], 4);
  }
  store16(ip + 10, fold(sum16(ip, 20)));
  store16(udp, dhcp::kServerPort);
  store16(udp + 2, dhcp::kClientPort);
  store16(udp + 4, udp_bytes);
  const std::uint16_t sum = fold(sum16(udp, udp_bytes, sum16(ip + 12, 8, std::uint32_t{udp_bytes} + protocol::udp)));
  store16(udp + 6, sum == 0 ? 0xffff : sum);
  burst.route[i] = Route::answer;
  return DropReason::none;
}

std::optional<IpAddress> first_ipv4(const Endpoint& endpoint) {
  for (const IpAddress& address : endpoint.addresses()) {
    if (address.is_v4()) return address;
  }
  return std::nullopt;
}

DropReason relay6(Burst& burst, std::uint32_t i, std::span<const std::uint8_t> message, Direction direction) {
  if (message.size() < 4) return DropReason::malformed;
  const bool from_task = direction == Direction::egress;
  if (!(from_task ? dhcp::is_client_type6(message[0]) : dhcp::is_server_type6(message[0]))) return DropReason::dhcp_refused;
  burst.route[i] = from_task ? Route::trunk : Route::task;
  return DropReason::none;
}

}  // namespace

DropReason dhcp_from_task(Burst& burst, std::uint32_t i, const View& view) {
  const auto bytes = message_of(burst, i);
  if (!bytes) return DropReason::malformed;
  if (view.edge.dhcp == DhcpMode::off) return DropReason::dhcp_refused;
  if (burst.headers[i].layer3 == Layer3::ipv6) return relay6(burst, i, *bytes, Direction::egress);
  const Endpoint& endpoint = *burst.endpoint[i];
  dhcp::Message request;
  if (const DropReason refused = dhcp::read(*bytes, request); refused != DropReason::none) return refused;
  if (const DropReason refused = dhcp::check_request(request, endpoint.mac); refused != DropReason::none) return refused;
  if (view.edge.dhcp == DhcpMode::answer) {
    const auto address = first_ipv4(endpoint);
    if (!address) return DropReason::dhcp_refused;
    const dhcp::Lease lease{*address, endpoint.subnet4, endpoint.router4, endpoint.resolver, endpoint.mtu, view.edge.dhcp_domain};
    return answer(burst, i, request, lease, view.edge.router_mac);
  }
  if (!request.client_address.is_zero() && !endpoint.owns(request.client_address)) return DropReason::dhcp_refused;
  burst.route[i] = Route::trunk;
  return DropReason::none;
}

DropReason dhcp_from_trunk(Burst& burst, std::uint32_t i, const View& view) {
  const auto bytes = message_of(burst, i);
  if (!bytes) return DropReason::malformed;
  if (view.edge.dhcp == DhcpMode::off) return DropReason::dhcp_refused;
  if (burst.headers[i].layer3 == Layer3::ipv6) return relay6(burst, i, *bytes, Direction::ingress);
  if (view.edge.dhcp == DhcpMode::answer) return DropReason::dhcp_refused;  // one server is enough
  const Endpoint& endpoint = *burst.endpoint[i];
  dhcp::Message message;
  if (const DropReason refused = dhcp::read(*bytes, message); refused != DropReason::none) return refused;
  const bool is_answer = message.type == dhcp::MessageType::offer || message.type == dhcp::MessageType::ack || message.type == dhcp::MessageType::nak;
  if (!message.is_reply || !is_answer || message.client != endpoint.mac) return DropReason::dhcp_refused;
  if (!message.your_address.is_zero() && !endpoint.owns(message.your_address)) return DropReason::dhcp_refused;
  burst.route[i] = Route::task;
  return DropReason::none;
}

}  // namespace trunkline
