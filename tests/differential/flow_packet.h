// SPDX-License-Identifier: BSD-3-Clause
//
// A packet of the differential test: fields for the generator, the reasons and the reader, bytes for the two firewalls.
// Both get the same IP packet; each puts its own Ethernet header in front.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "config/net.h"
#include "tests/support/packets.h"

namespace trunkline::differential {

namespace flag {
inline constexpr std::uint8_t fin = 1, syn = 2, rst = 4, psh = 8, ack = 16, urg = 32, ece = 64, cwr = 128;
}
namespace proto {
inline constexpr std::uint8_t icmp = 1, tcp = 6, udp = 17, esp = 50, icmpv6 = 58;
}

struct FlowPacket {
  std::uint32_t number = 0;  // in the sequence; also the last four bytes of the packet; below 2^24
  std::string task;          // whose traffic it is
  Direction direction = Direction::ingress;
  IpAddress source, destination;
  std::uint8_t protocol = 0;
  std::uint16_t source_port = 0, destination_port = 0;
  std::uint8_t tcp_flags = 0;
  std::uint32_t sequence = 0, acknowledgement = 0;
  bool has_payload = false;  // TCP: four bytes
  std::uint8_t icmp_type = 0, icmp_code = 0;
  std::uint16_t icmp_id = 0;
  // The beginning of the packet that an ICMP error is about.
  struct Quoted {
    IpAddress source, destination;
    std::uint8_t protocol = 0;
    std::uint16_t source_port = 0, destination_port = 0;
    friend bool operator==(const Quoted&, const Quoted&) = default;
  };
  std::optional<Quoted> quoted;

  const IpAddress& remote() const { return direction == Direction::ingress ? source : destination; }
  const IpAddress& local() const { return direction == Direction::ingress ? destination : source; }
  bool is_icmp() const { return protocol == (source.is_v4() ? proto::icmp : proto::icmpv6); }
  // SYN alone of SYN, ACK, RST and FIN.
  bool is_bare_syn() const {
    return protocol == proto::tcp && (tcp_flags & (flag::syn | flag::ack | flag::rst | flag::fin)) == flag::syn;
  }
};

// The flow that a packet is about, told as a packet of it: of an ICMP error the one that it quotes, else the packet
// itself.
FlowPacket subject_of(const FlowPacket& packet);

// The IP packet; its IPv4 header checksum is right, transport checksums are zero (the kernel's tracking is told not to
// look).
test::Frame ip_bytes(const FlowPacket& packet);
std::string text_of(const FlowPacket& packet);

}  // namespace trunkline::differential
