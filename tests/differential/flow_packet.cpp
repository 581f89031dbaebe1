// SPDX-License-Identifier: BSD-3-Clause
#include "tests/differential/flow_packet.h"

namespace trunkline::differential {
namespace {

using test::Frame;

void put32(Frame& frame, std::uint32_t value) {
  test::put16(frame, static_cast<std::uint16_t>(value >> 16));
  test::put16(frame, static_cast<std::uint16_t>(value));
}

void set_header_checksum(std::uint8_t* header) {
  std::uint32_t sum = 0;
  for (int i = 0; i < 20; i += 2) sum += static_cast<std::uint32_t>(header[i] << 8 | header[i + 1]);
  sum = (sum & 0xffff) + (sum >> 16);
  sum = ~((sum & 0xffff) + (sum >> 16));
  header[10] = static_cast<std::uint8_t>(sum >> 8);
  header[11] = static_cast<std::uint8_t>(sum);
}

Frame transport_bytes(const FlowPacket& packet) {
  if (packet.protocol == proto::tcp) {
    Frame segment = test::tcp_segment(packet.source_port, packet.destination_port, packet.tcp_flags);
    for (int i = 0; i < 4; ++i) {
      segment[4 + i] = static_cast<std::uint8_t>(packet.sequence >> (24 - 8 * i));
      segment[8 + i] = static_cast<std::uint8_t>(packet.acknowledgement >> (24 - 8 * i));
    }
    // Without payload the packet's number lies in the options; its first byte is zero and ends them.
    if (!packet.has_payload) segment[12] = 0x60;
    return segment;
  }
  if (packet.protocol == proto::udp) return test::udp_datagram(packet.source_port, packet.destination_port, 4);
  if (packet.quoted) {
    Frame message = test::icmp_message(packet.icmp_type, packet.icmp_code, 0, 0);
    const FlowPacket::Quoted& quoted = *packet.quoted;
    const Frame transport = quoted.protocol == proto::tcp
                                ? test::tcp_segment(quoted.source_port, quoted.destination_port, flag::ack)
                                : test::udp_datagram(quoted.source_port, quoted.destination_port);
    Frame frame = test::ip_packet({}, quoted.source, quoted.destination, quoted.protocol, transport);
    if (quoted.source.is_v4()) set_header_checksum(frame.data() + 14);
    test::put(message, frame.data() + 14, frame.size() - 14);
    return message;
  }
  if (packet.is_icmp()) return test::icmp_message(packet.icmp_type, packet.icmp_code, packet.icmp_id);
  return Frame(16, 'x');
}

}  // namespace

FlowPacket subject_of(const FlowPacket& packet) {
  if (!packet.quoted) return packet;
  FlowPacket subject;
  subject.number = packet.number;
  subject.task = packet.task;
  subject.direction = packet.quoted->source == packet.local() ? Direction::egress : Direction::ingress;
  subject.source = packet.quoted->source;
  subject.destination = packet.quoted->destination;
  subject.protocol = packet.quoted->protocol;
  subject.source_port = packet.quoted->source_port;
  subject.destination_port = packet.quoted->destination_port;
  return subject;
}

Frame ip_bytes(const FlowPacket& packet) {
  Frame transport = transport_bytes(packet);
  const bool counted_by_length = packet.protocol == proto::udp;  // the datagram's own length covers its data
  if (counted_by_length) transport.resize(transport.size() - 4);
  put32(transport, packet.number);
  Frame frame = test::ip_packet({}, packet.source, packet.destination, packet.protocol, transport);
  frame.erase(frame.begin(), frame.begin() + 14);
  if (packet.source.is_v4()) set_header_checksum(frame.data());
  return frame;
}

std::string text_of(const FlowPacket& packet) {
  std::string text =
      '#' + std::to_string(packet.number) + ' ' + packet.task + ' ' + std::string(to_string(packet.direction)) + ": ";
  const auto end = [](const IpAddress& address, int port) {
    return address.to_string() + " port " + std::to_string(port);
  };
  if (packet.protocol == proto::tcp || packet.protocol == proto::udp) {
    text += (packet.protocol == proto::tcp ? "tcp " : "udp ") + end(packet.source, packet.source_port) + " > " +
            end(packet.destination, packet.destination_port);
    if (packet.protocol == proto::udp) return text;
    std::string flags;
    for (int i = 0; i < 8; ++i) {
      if (packet.tcp_flags >> i & 1) flags += "FSRPAUEC"[i];
    }
    return text + " flags " + (flags.empty() ? "none" : flags) + " seq " + std::to_string(packet.sequence) + " ack " +
           std::to_string(packet.acknowledgement) + (packet.has_payload ? " with payload" : "");
  }
  text += (packet.is_icmp() ? "icmp " : "proto " + std::to_string(packet.protocol) + ' ') + packet.source.to_string() +
          " > " + packet.destination.to_string();
  if (!packet.is_icmp()) return text;
  text += ' ' + std::to_string(packet.icmp_type) + '/' + std::to_string(packet.icmp_code);
  if (!packet.quoted) return text + " id " + std::to_string(packet.icmp_id);
  return text + " about proto " + std::to_string(packet.quoted->protocol) + ' ' +
         end(packet.quoted->source, packet.quoted->source_port) + " > " +
         end(packet.quoted->destination, packet.quoted->destination_port);
}

}  // namespace trunkline::differential
