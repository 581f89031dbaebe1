// SPDX-License-Identifier: BSD-3-Clause
//
// What a task says to the edge of its VPC, and what it is told: DHCP, neighbour discovery, ICMP errors. Sound ones; tests
// break them where they want them broken.
#pragma once

#include <initializer_list>

#include "tests/support/packets.h"

namespace trunkline::test {

// The ones' complement sum that a receiver makes of a UDP datagram or an ICMPv6 message with its pseudo header: 0xffff when it is sound.
inline std::uint32_t folded_sum(const Frame& bytes, std::size_t from, std::size_t to, std::uint32_t sum = 0) {
  for (std::size_t i = from; i < to; ++i) sum += static_cast<std::uint32_t>(bytes[i]) << ((i - from) % 2 == 0 ? 8 : 0);
  while (sum >> 16) sum = (sum & 0xffff) + (sum >> 16);
  return sum;
}
inline std::uint32_t transport_sum(const Frame& frame, std::size_t ip_at = 14) {
  const bool v4 = frame[ip_at] >> 4 == 4;
  const std::size_t transport = ip_at + (v4 ? 20 : 40);
  const auto start = static_cast<std::uint32_t>(frame.size() - transport + (v4 ? 17 : 58));
  return folded_sum(frame, ip_at + (v4 ? 12 : 8), frame.size(), start);
}

struct DhcpOptions {
  Frame bytes;
  DhcpOptions& add(std::uint8_t code, std::initializer_list<std::uint8_t> value) {
    bytes.push_back(code);
    bytes.push_back(static_cast<std::uint8_t>(value.size()));
    bytes.insert(bytes.end(), value.begin(), value.end());
    return *this;
  }
  DhcpOptions& address(std::uint8_t code, std::string_view text) {
    const IpAddress value = ip(text);
    return add(code, {value.bytes[12], value.bytes[13], value.bytes[14], value.bytes[15]});
  }
};

struct DhcpMessage {
  bool reply = false;
  bool broadcast = false;
  std::string client_address = "0.0.0.0", your_address = "0.0.0.0", relay_agent = "0.0.0.0";
  MacAddress client;
  Frame options;  // behind the cookie, without the end

  Frame udp(std::uint16_t from, std::uint16_t to) const {
    Frame bytes{static_cast<std::uint8_t>(reply ? 2 : 1), 1, 6, 0, 0x12, 0x34, 0x56, 0x78, 0, 7, static_cast<std::uint8_t>(broadcast ? 0x80 : 0), 0};
    put(bytes, &ip(client_address).bytes[12], 4);
    put(bytes, &ip(your_address).bytes[12], 4);
    put(bytes, "\0\0\0\0", 4);
    put(bytes, &ip(relay_agent).bytes[12], 4);
    put(bytes, client.bytes.data(), 6);
    bytes.resize(236);
    put(bytes, "\x63\x82\x53\x63", 4);
    put(bytes, options.data(), options.size());
    bytes.push_back(255);
    if (bytes.size() < 300) bytes.resize(300);
    Frame datagram = udp_datagram(from, to, bytes.size());
    std::memcpy(datagram.data() + 8, bytes.data(), bytes.size());
    return datagram;
  }
};

// The value of an option in the frame of an answer; empty: it is not there.
inline Frame dhcp_option(const Frame& frame, std::uint8_t code) {
  for (std::size_t at = 42 + 240; at + 1 < frame.size() && frame[at] != 255;) {
    if (frame[at] == 0) {
      ++at;
      continue;
    }
    if (frame[at] == code) return Frame(frame.begin() + static_cast<long>(at) + 2, frame.begin() + static_cast<long>(at) + 2 + frame[at + 1]);
    at += 2U + frame[at + 1];
  }
  return {};
}
inline Frame part(const Frame& frame, std::size_t at, std::size_t count) {
  return Frame(frame.begin() + static_cast<long>(at), frame.begin() + static_cast<long>(at + count));
}
inline Frame text_bytes(std::string_view text) { return Frame(text.begin(), text.end()); }

// ICMPv6 with its checksum.
inline Frame icmp6_frame(const L2& l2, std::string_view source, std::string_view destination, std::uint8_t type, const Frame& body, std::uint8_t hops = 255) {
  Frame message{type, 0, 0, 0};
  put(message, body.data(), body.size());
  Frame frame = ip_packet(l2, ip(source), ip(destination), 58, message);
  const std::size_t at = l2.vlan >= 0 ? 18 : 14;
  frame[at + 7] = hops;
  const std::uint32_t sum = ~transport_sum(frame, at) & 0xffff;
  frame[at + 42] = static_cast<std::uint8_t>(sum >> 8);
  frame[at + 43] = static_cast<std::uint8_t>(sum);
  return frame;
}

inline Frame link_layer_option(std::uint8_t type, const MacAddress& mac) {
  Frame option{type, 1};
  put(option, mac.bytes.data(), 6);
  return option;
}

// An ICMP error (IPv4) that quotes the beginning of an IP packet.
inline Frame icmp_error(std::uint8_t type, std::uint8_t code, std::uint16_t mtu, const Frame& quoted) {
  Frame message{type, code, 0, 0, 0, 0};
  put16(message, mtu);
  put(message, quoted.data(), quoted.size());
  return message;
}

}  // namespace trunkline::test
