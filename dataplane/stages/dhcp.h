// SPDX-License-Identifier: BSD-3-Clause
//
// DHCP as a VPC speaks it. Version 4: what a task may ask and how the engine answers where the config says so (`edge.dhcp`
// "answer"); version 6 is left to the fabric, so only what may pass is told here.
//
// The lease is a fact of the ENI, not of a pool: the one address, for 3600 seconds, from the subnet's router. Nothing is
// remembered between messages, so there is nothing that a task could use up.
//
// Rules:
//  * A message is looked at within the bytes given, each option's length before what is behind it.
//  * A client speaks for itself: its MAC address is the ENI's, it is no relay agent (giaddr), and what it calls its own
//    address (ciaddr) is.
//  * What is made stands in the request's place; options that the client did not ask for are sent all the same, as Amazon
//    does.
//
// Pure functions over bytes: no allocation, no state. The edge stage calls them; any thread may.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "config/net.h"
#include "dataplane/verdict.h"

namespace trunkline::dhcp {

inline constexpr std::uint16_t kServerPort = 67, kClientPort = 68;       // version 4
inline constexpr std::uint16_t kServerPort6 = 547, kClientPort6 = 546;

// Option 53.
enum class MessageType : std::uint8_t { none, discover, offer, request, decline, ack, nak, release, inform };

struct Message {
  bool is_reply = false;
  bool wants_broadcast = false;
  MessageType type = MessageType::none;
  MacAddress client;            // chaddr
  IpAddress client_address;     // ciaddr: what the client already uses
  IpAddress your_address;       // yiaddr: what it is given
  IpAddress relay_agent;        // giaddr
  IpAddress requested_address;  // option 50
  IpAddress server;             // option 54
};

// What an ENI is told. Addresses that are zero are left out.
struct Lease {
  static constexpr std::uint32_t kSeconds = 3600;

  IpAddress address;
  IpPrefix subnet;
  IpAddress router;  // also the server's identifier
  IpAddress resolver;
  std::uint16_t mtu = 0;
  std::string_view domain;
};

// The longest domain name that always fits what every client takes (576 bytes, RFC 2131) together with the rest.
inline constexpr std::size_t kMaxDomain = 128;
// A whole answer is never longer, and never shorter than BOOTP's 300 (RFC 1542).
inline constexpr std::uint32_t kMinMessageBytes = 300, kMaxMessageBytes = 548;

// Reads a message, the UDP datagram's payload. Refuses: malformed.
DropReason read(std::span<const std::uint8_t> bytes, Message& message);

// What a client may ask for: the five requests, with a MAC address of its own and no relay agent. Refuses: dhcp_refused.
DropReason check_request(const Message& message, const MacAddress& own);

// What the request is answered with; none: silence (it gives its address back, or speaks to another server).
MessageType answer_to(const Message& request, const Lease& lease);

// Turns the request into the answer, in place; `bytes` is what there is room for, of which kMaxMessageBytes always suffice.
// Returns the answer's length; 0: it does not fit.
std::uint32_t write_answer(std::span<std::uint8_t> bytes, const Message& request, MessageType type, const Lease& lease);

// DHCPv6's message types (RFC 8415) that a client sends and is sent.
constexpr bool is_client_type6(std::uint8_t type) { return type == 1 || (type >= 3 && type <= 6) || type == 8 || type == 9 || type == 11; }
constexpr bool is_server_type6(std::uint8_t type) { return type == 2 || type == 7 || type == 10; }

}  // namespace trunkline::dhcp
