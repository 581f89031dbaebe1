// SPDX-License-Identifier: BSD-3-Clause
//
// Stage 9: what flow logs are told: packets, octets of the IP packet and TCP flags, a direction each. What passed is told to its
// connection, whose entry is at hand (steady packets when they pass: stages/steady.h); what belongs to none, and what the rules refused, to
// the table of loose flows.
//
// Only what is sent on is accepted. What may not be, because it is larger than the port takes (Burst::oversized), forward tells when
// it has been sent: account_sent().
// (Ports count in their meters: demux counts what came, forward what went or was refused.)
#pragma once

#include "dataplane/packet.h"
#include "dataplane/stages/track.h"
#include "dataplane/state/super_frame.h"
#include "dataplane/state/worker_state.h"

namespace trunkline {

namespace detail {

[[gnu::noinline]] inline void account_loose(const Burst& burst, std::uint64_t packets, WorkerState& worker, Direction direction,
                                            FlowAction action) {
  if (!worker.flows.on) return;
  for_each_bit(packets, [&](std::uint32_t i) {
    const Headers& headers = burst.headers[i];
    AddressPair addresses;
    if (headers.layer3 == Layer3::ipv6) addresses = addresses6(burst, i, direction);
    const Frames amount = burst.is_super_frame(i) ? ip_packets_of(*burst.mbuf[i], headers.packet_bytes) : Frames{1, headers.packet_bytes};
    worker.flows.add_loose(burst.key[i], burst.hash[i], addresses, direction, amount, logged_tcp_flags(headers.tcp_flags), action);
  });
}

// What the segments of super-frames add to what was counted of them as one packet each.
[[gnu::noinline]] inline void account_segments(const Burst& burst, std::uint64_t packets, Direction direction) {
  for_each_bit(packets, [&](std::uint32_t i) {
    if (burst.connection[i] == nullptr) return;
    const Frames all = ip_packets_of(*burst.mbuf[i], burst.headers[i].packet_bytes);
    Connection::Totals& totals = burst.connection[i]->totals[index(direction)];
    totals.packets += static_cast<std::uint32_t>(all.packets - 1);
    totals.bytes_and_flags += all.bytes - burst.headers[i].packet_bytes;
  });
}

// Of packets with a connection; answers which have none.
[[gnu::noinline]] inline std::uint64_t account_connections(Burst& burst, std::uint64_t packets, Direction direction, std::uint16_t now) {
  std::uint64_t loose = 0;
  for_each_bit(packets, [&](std::uint32_t i) {
    if (burst.connection[i] == nullptr) {
      loose |= std::uint64_t{1} << i;
      return;
    }
    const Headers& headers = burst.headers[i];
    Connection::Totals& totals = burst.connection[i]->totals[index(direction)];
    totals.bytes_and_flags = (totals.bytes_and_flags + headers.packet_bytes) |
                             std::uint64_t{logged_tcp_flags(headers.tcp_flags)} << Connection::Totals::kFlagsShift;
    totals.saw_packet(now);
  });
  return loose;
}

}  // namespace detail

// An oversized packet of a connection or of none has been sent, as so many IP packets. Of IPv4.
[[gnu::noinline]] inline void account_sent(Burst& burst, std::uint32_t i, const Frames& amount, WorkerState& worker, Direction direction) {
  const std::uint8_t flags = logged_tcp_flags(burst.headers[i].tcp_flags);
  if (burst.connection[i] == nullptr) {
    worker.flows.add_loose(burst.key[i], burst.hash[i], {}, direction, amount, flags, FlowAction::accept);
    return;
  }
  Connection::Totals& totals = burst.connection[i]->totals[index(direction)];
  totals.bytes_and_flags = (totals.bytes_and_flags + amount.bytes) | std::uint64_t{flags} << Connection::Totals::kFlagsShift;
  totals.saw_packet(static_cast<std::uint16_t>(worker.now));
  totals.packets += static_cast<std::uint32_t>(amount.packets - 1);
}

// A packet that account() has counted is not sent after all; it is as it was then.
[[gnu::noinline]] inline void account_not_sent(Burst& burst, std::uint32_t i, WorkerState& worker, Direction direction) {
  const Headers& headers = burst.headers[i];
  const Frames amount = burst.is_super_frame(i) ? ip_packets_of(*burst.mbuf[i], headers.packet_bytes) : Frames{1, headers.packet_bytes};
  if (burst.connection[i] != nullptr) return burst.connection[i]->totals[index(direction)].take_back(amount);
  AddressPair addresses;
  if (headers.layer3 == Layer3::ipv6) addresses = detail::addresses6(burst, i, direction);
  worker.flows.take_back_loose(burst.key[i], burst.hash[i], addresses, direction, amount);
}

inline void account(Burst& burst, WorkerState& worker, Direction direction) {
  // What limits may refuse is not counted before.
  const std::uint64_t known = worker.view->limits ? burst.filtered : burst.filtered & ~burst.steady;
  const std::uint64_t packets = known & ~burst.oversized;
  std::uint64_t loose = 0;
  if (packets != 0) loose = detail::account_connections(burst, packets, direction, static_cast<std::uint16_t>(worker.now));
  if (burst.super_frames != 0) [[unlikely]] detail::account_segments(burst, burst.super_frames & burst.filtered & ~burst.oversized, direction);
  if (loose != 0) [[unlikely]] detail::account_loose(burst, loose, worker, direction, FlowAction::accept);
  if (burst.refused != 0) [[unlikely]] detail::account_loose(burst, burst.refused, worker, direction, FlowAction::reject);
}

}  // namespace trunkline
