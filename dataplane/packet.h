// SPDX-License-Identifier: BSD-3-Clause
//
// The burst: at most 64 packets on their way through the stages, with what was parsed of them in parallel arrays. A
// header is read once, by the parse stage; every later stage works on these arrays.
//
// Rules:
//  * A stage looks only at packets whose verdict is still DropReason::none, and may set it. It never removes a packet
//    from the burst: forward hands all of them on, the refused ones to be freed.
//  * A packet's bytes were written by a stranger. Everything in these arrays was checked against the packet's length
//    when it was parsed; nobody derives another offset without checking it.
//  * The first segment of the mbuf holds all parsed headers. The rest of a chain is payload.
//
// A burst belongs to one worker and lives on its stack or in its context; nothing here is shared.
#pragma once

#include <rte_mbuf.h>

#include <cstdint>

#include "config/net.h"
#include "dataplane/verdict.h"

namespace trunkline {

struct Connection;
struct Endpoint;

inline constexpr std::uint32_t kMaxBurst = 64;

enum class Layer3 : std::uint8_t { other, ipv4, ipv6, arp };

// Where a packet goes when no stage refused it.
enum class Route : std::uint8_t {
  undecided,
  task,    // to the endpoint's port
  trunk,   // out on the trunk
  local,   // to another endpoint of this host: its ingress half comes next
  answer,  // the edge turned it into an answer: back to where it came from
};

namespace protocol {
inline constexpr std::uint8_t icmp = 1;
inline constexpr std::uint8_t tcp = 6;
inline constexpr std::uint8_t udp = 17;
inline constexpr std::uint8_t icmpv6 = 58;
}  // namespace protocol

namespace tcp_flag {
inline constexpr std::uint8_t fin = 0x01;
inline constexpr std::uint8_t syn = 0x02;
inline constexpr std::uint8_t rst = 0x04;
inline constexpr std::uint8_t ack = 0x10;
}  // namespace tcp_flag

struct Burst {
  std::uint32_t size = 0;

  rte_mbuf* mbuf[kMaxBurst];
  DropReason verdict[kMaxBurst];
  Route route[kMaxBurst];
  const Endpoint* endpoint[kMaxBurst];
  Connection* connection[kMaxBurst];
  std::uint64_t hash[kMaxBurst];

  // The frame. vlan 0 is untagged; tag_bytes is what the tag takes in the frame (0 when the port stripped it).
  std::uint16_t vlan[kMaxBurst];
  std::uint8_t tag_bytes[kMaxBurst];
  Layer3 layer3[kMaxBurst];

  // The packet. For ARP, source and destination are the sender's and the target's protocol address.
  IpAddress source[kMaxBurst];
  IpAddress destination[kMaxBurst];
  std::uint16_t layer3_offset[kMaxBurst];
  std::uint16_t layer4_offset[kMaxBurst];  // 0: there is none to look at
  std::uint16_t packet_bytes[kMaxBurst];   // of the IP packet, by its own header; what flow logs count
  std::uint8_t protocol[kMaxBurst];
  std::uint8_t tcp_flags[kMaxBurst];
  // TCP and UDP ports. ICMP echo and its kin: both hold the identifier. Otherwise 0.
  std::uint16_t source_port[kMaxBurst];
  std::uint16_t destination_port[kMaxBurst];
  std::uint8_t icmp_type[kMaxBurst];
  std::uint8_t icmp_code[kMaxBurst];

  bool alive(std::uint32_t i) const { return verdict[i] == DropReason::none; }
  void drop(std::uint32_t i, DropReason reason) { verdict[i] = reason; }
  std::uint8_t* bytes(std::uint32_t i) const { return rte_pktmbuf_mtod(mbuf[i], std::uint8_t*); }

  // A packet enters with nothing known of it.
  void add(rte_mbuf* packet) {
    mbuf[size] = packet;
    verdict[size] = DropReason::none;
    route[size] = Route::undecided;
    endpoint[size] = nullptr;
    connection[size] = nullptr;
    ++size;
  }

  // A packet that was parsed in another burst goes on in this one: what was read of it comes along.
  void adopt(const Burst& other, std::uint32_t i) {
    const std::uint32_t at = size;
    add(other.mbuf[i]);
    vlan[at] = 0;
    tag_bytes[at] = other.tag_bytes[i];
    layer3[at] = other.layer3[i];
    source[at] = other.source[i];
    destination[at] = other.destination[i];
    layer3_offset[at] = other.layer3_offset[i];
    layer4_offset[at] = other.layer4_offset[i];
    packet_bytes[at] = other.packet_bytes[i];
    protocol[at] = other.protocol[i];
    tcp_flags[at] = other.tcp_flags[i];
    source_port[at] = other.source_port[i];
    destination_port[at] = other.destination_port[i];
    icmp_type[at] = other.icmp_type[i];
    icmp_code[at] = other.icmp_code[i];
  }
};

}  // namespace trunkline
