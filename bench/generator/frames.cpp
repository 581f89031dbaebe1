// SPDX-License-Identifier: BSD-3-Clause
#include "bench/generator/frames.h"

#include <rte_byteorder.h>
#include <rte_ip.h>
#include <rte_tcp.h>
#include <rte_udp.h>

#include <cstring>
#include <utility>

namespace trunkline::generator {
namespace {

constexpr std::uint32_t kFirstRemotePort = 1024;

std::uint16_t be16(std::uint16_t value) { return rte_cpu_to_be_16(value); }
std::uint32_t be32(std::uint32_t value) { return rte_cpu_to_be_32(value); }
std::uint32_t halves(std::uint32_t value) { return (value & 0xffff) + (value >> 16); }

// One's complement sum of words as they lie in memory.
std::uint32_t sum_of(const std::uint8_t* bytes, std::size_t count) {
  std::uint32_t sum = 0;
  for (std::size_t i = 0; i + 1 < count; i += 2) {
    std::uint16_t word;
    std::memcpy(&word, bytes + i, 2);
    sum += word;
  }
  return sum;
}

std::uint16_t fold(std::uint32_t sum) {
  sum = halves(sum);
  return static_cast<std::uint16_t>(halves(sum));
}

void put_mac(rte_ether_addr& to, std::uint64_t mac) {
  for (int i = 0; i < 6; ++i) to.addr_bytes[i] = static_cast<std::uint8_t>(mac >> (40 - 8 * i));
}

std::size_t l3_offset(Side side) { return side == Side::trunk ? 18 : 14; }

}  // namespace

Frames::Frames(const Addressing& addressing, Protocol protocol)
    : protocol_(protocol), l4_bytes_(protocol == Protocol::tcp ? 20 : 8), enis_(addressing.enis), remote_(addressing.remote) {
  for (std::uint32_t eni = 0; eni < enis_; ++eni) {
    templates_.push_back(build(addressing, Side::trunk, eni));
    templates_.push_back(build(addressing, Side::task, eni));
  }
}

Frames::Template Frames::build(const Addressing& addressing, Side side, std::uint32_t eni) const {
  Template result{};
  auto* ether = reinterpret_cast<rte_ether_hdr*>(result.bytes);
  const bool inward = side == Side::trunk;
  put_mac(inward ? ether->dst_addr : ether->src_addr, addressing.mac + eni);
  put_mac(inward ? ether->src_addr : ether->dst_addr, addressing.router_mac);
  ether->ether_type = be16(inward ? RTE_ETHER_TYPE_VLAN : RTE_ETHER_TYPE_IPV4);
  if (inward) {
    auto* tag = reinterpret_cast<rte_vlan_hdr*>(ether + 1);
    *tag = {be16(static_cast<std::uint16_t>(addressing.vlan + eni)), be16(RTE_ETHER_TYPE_IPV4)};
  }
  std::uint8_t* const l3 = result.bytes + l3_offset(side);
  std::uint8_t* const l4 = l3 + 20;
  auto* ip = reinterpret_cast<rte_ipv4_hdr*>(l3);
  ip->version_ihl = 0x45;
  ip->fragment_offset = be16(0x4000);
  ip->time_to_live = 64;
  ip->next_proto_id = static_cast<std::uint8_t>(protocol_);
  (inward ? ip->dst_addr : ip->src_addr) = be32(addressing.address + eni);
  const std::uint16_t port = be16(addressing.port);
  std::memcpy(l4 + (inward ? 2 : 0), &port, 2);
  if (protocol_ == Protocol::tcp) reinterpret_cast<rte_tcp_hdr*>(l4)->rx_win = 0xffff;
  result.ip_sum = sum_of(l3, 20);
  result.l4_sum = sum_of(l4, l4_bytes_) + sum_of(l3 + 12, 8) + be16(static_cast<std::uint8_t>(protocol_));
  return result;
}

std::uint16_t Frames::write(std::uint8_t* data, Side side, std::uint32_t flow, std::uint16_t payload, const Segment& segment,
                            Stamp stamp) const {
  const std::uint32_t eni = enis_ == 1 ? 0 : flow % enis_;
  const Template& from = templates_[eni * 2 + (side == Side::task)];
  std::memcpy(data, from.bytes, kHeaderRoom);
  std::uint8_t* const l3 = data + l3_offset(side);
  std::uint8_t* const l4 = l3 + 20;
  auto* ip = reinterpret_cast<rte_ipv4_hdr*>(l3);

  // An odd factor permutes the addresses; the next 2^17 flows have the next port.
  const std::uint32_t remote = be32(remote_ + (flow * 0x9e3779b1U & (kRemoteAddresses - 1)));
  const std::uint16_t port = be16(static_cast<std::uint16_t>(kFirstRemotePort + flow / kRemoteAddresses));
  const std::uint16_t l4_length = be16(static_cast<std::uint16_t>(l4_bytes_ + payload));
  ip->total_length = be16(static_cast<std::uint16_t>(20 + l4_bytes_ + payload));
  (side == Side::trunk ? ip->src_addr : ip->dst_addr) = remote;
  std::memcpy(l4 + (side == Side::trunk ? 0 : 2), &port, 2);
  ip->hdr_checksum = static_cast<std::uint16_t>(~fold(from.ip_sum + ip->total_length + halves(remote)));

  std::uint32_t sum = from.l4_sum + halves(remote) + port + l4_length;
  if (payload != kNoPayload) sum += stamp.sequence + halves(stamp.value);
  if (protocol_ == Protocol::tcp) {
    auto* tcp = reinterpret_cast<rte_tcp_hdr*>(l4);
    tcp->data_off = 0x50;
    tcp->tcp_flags = segment.flags;
    tcp->sent_seq = be32(segment.sequence);
    tcp->recv_ack = be32(segment.acknowledged);
    sum += be16(static_cast<std::uint16_t>(0x5000 | segment.flags)) + halves(tcp->sent_seq) + halves(tcp->recv_ack);
    tcp->cksum = static_cast<std::uint16_t>(~fold(sum));
  } else {
    auto* udp = reinterpret_cast<rte_udp_hdr*>(l4);
    udp->dgram_len = l4_length;
    const auto checksum = static_cast<std::uint16_t>(~fold(sum + l4_length));
    udp->dgram_cksum = checksum == 0 ? 0xffff : checksum;
  }
  std::memcpy(l4 + l4_bytes_, &stamp, sizeof(stamp));
  const std::size_t bytes = l3_offset(side) + 20U + l4_bytes_ + payload;
  const std::size_t least = l3_offset(side) + 46U;  // a frame without its CRC is never shorter than 60
  return static_cast<std::uint16_t>(bytes < least ? least : bytes);
}

std::optional<Received> read(std::uint8_t* data, std::uint32_t bytes) {
  std::uint16_t ethertype;
  std::memcpy(&ethertype, data + 12, 2);
  std::size_t l3 = 14;
  if (ethertype == be16(RTE_ETHER_TYPE_VLAN)) {
    std::memcpy(&ethertype, data + 16, 2);
    l3 = 18;
  }
  const std::uint8_t protocol = data[l3 + 9];
  const std::size_t l4 = l3 + 20;
  const std::size_t stamp = l4 + (protocol == IPPROTO_TCP ? 20 : 8);
  if (ethertype != be16(RTE_ETHER_TYPE_IPV4) || data[l3] != 0x45 || stamp + sizeof(Stamp) > bytes) return std::nullopt;
  if (protocol != IPPROTO_TCP && protocol != IPPROTO_UDP) return std::nullopt;
  Received received{data + l3, data + l4, protocol, {}};
  std::memcpy(&received.stamp, data + stamp, sizeof(Stamp));
  return received;
}

std::uint8_t tcp_flags(const Received& received) { return reinterpret_cast<rte_tcp_hdr*>(received.l4)->tcp_flags; }

void answer(std::uint8_t* data, const Received& received, std::uint8_t flags) {
  auto* ether = reinterpret_cast<rte_ether_hdr*>(data);
  std::swap(ether->dst_addr, ether->src_addr);
  auto* ip = reinterpret_cast<rte_ipv4_hdr*>(received.l3);
  const std::uint32_t source = ip->src_addr;
  ip->src_addr = ip->dst_addr;
  ip->dst_addr = source;
  std::uint16_t ports[2];
  std::memcpy(ports, received.l4, 4);
  std::swap(ports[0], ports[1]);
  std::memcpy(received.l4, ports, 4);
  if (received.protocol != IPPROTO_TCP) return;  // swapped words have the same sum
  auto* tcp = reinterpret_cast<rte_tcp_hdr*>(received.l4);
  const std::uint8_t before = tcp->tcp_flags;
  const std::uint32_t sequence = before == kSyn ? be32(kDataOutward.sequence - 1) : tcp->recv_ack;
  const std::uint32_t acknowledged = be32(rte_be_to_cpu_32(tcp->sent_seq) + ((before & 0x03) != 0 ? 1 : 0));
  // RFC 1624: take the old words away by adding their complements.
  std::uint32_t sum = static_cast<std::uint16_t>(~tcp->cksum);
  sum += halves(~tcp->sent_seq) + halves(~tcp->recv_ack) + be16(static_cast<std::uint16_t>(~(0x5000 | before)));
  sum += halves(sequence) + halves(acknowledged) + be16(static_cast<std::uint16_t>(0x5000 | flags));
  tcp->sent_seq = sequence;
  tcp->recv_ack = acknowledged;
  tcp->tcp_flags = flags;
  tcp->cksum = static_cast<std::uint16_t>(~fold(sum));
}

}  // namespace trunkline::generator
