// SPDX-License-Identifier: BSD-3-Clause
//
// Part of admit: how a packet that passes moves the state of its connection. docs/connections.md has the same automaton as a table, and a
// test plays every row of that table against this code.
//
// Sequence numbers are not followed. So one segment is never believed alone where a connection would begin or end by it: a connection
// is established when both ends have been heard, and RST or FIN are taken back when the traffic that follows shows that the ends did not
// believe them (RFC 5961 lets a host ignore them, and so a forged one must be ignorable here).
//
// `awaits` has a bit for each direction in which a packet without SYN, FIN and RST may move the state; such packets leave the steady way
// (stages/steady.h).
#pragma once

#include <array>
#include <cstdint>

#include "dataplane/packet.h"
#include "dataplane/state/connection.h"

namespace trunkline::detail {

constexpr std::uint8_t bit(Direction direction) { return static_cast<std::uint8_t>(1U << index(direction)); }
inline constexpr std::uint8_t kBothDirections = 3;

// What the automaton sees of a TCP segment. Combinations that no connection has (parse's kBadTcpFlags) never get here.
struct Segment {
  std::uint8_t flags = 0;
  bool has_payload = false;

  bool has(std::uint8_t flag) const { return (flags & flag) != 0; }
  bool is_syn() const { return (flags & (tcp_flag::syn | tcp_flag::ack)) == tcp_flag::syn; }
  bool is_syn_ack() const { return (flags & (tcp_flag::syn | tcp_flag::ack)) == (tcp_flag::syn | tcp_flag::ack); }
};

// Both ends take part: established, unless FINs have been seen. A side that has sent FIN takes it back with its next payload.
inline void be_open(Connection& connection, unsigned fin_seen) {
  using enum ConnectionState;
  static constexpr std::array<ConnectionState, 4> kOpen{established, closing, closing, closed};
  connection.fin_seen = fin_seen & kBothDirections;
  connection.awaits = fin_seen & kBothDirections;
  connection.state = kOpen[fin_seen & kBothDirections];
}

inline void await(Connection& connection, ConnectionState state, unsigned directions) {
  connection.state = state;
  connection.awaits = directions & kBothDirections;
}

// Both ends must be heard before it is believed. Answers whether they have been now.
inline bool heard_both(Connection& connection, Direction direction) {
  connection.awaits = connection.awaits & ~unsigned{bit(direction)} & kBothDirections;
  return connection.awaits == 0;
}

// A segment of a connection in one of TCP's states, in `direction`. Two moves are not made here, because the rules have a say in them:
// a SYN that begins a connection anew on the entry (begins_anew), and the SYN-ACK that does so (answers_new_syn).
inline void advance_tcp(Connection& connection, const Segment& segment, Direction direction) {
  using enum ConnectionState;
  const bool by_initiator = direction == connection.initiator_direction();
  const unsigned self = bit(direction), other = bit(opposite(direction));
  const bool plain = !segment.has(tcp_flag::syn | tcp_flag::rst);  // FIN or not
  const unsigned fin_seen = (connection.fin_seen | (segment.has(tcp_flag::fin) ? self : 0U)) & kBothDirections;

  if (segment.has(tcp_flag::rst)) {
    if (is_one_of(connection.state, {established, reopening, closing, reset})) return await(connection, reset, kBothDirections);
    if (connection.state != closed) await(connection, refused, kBothDirections);
    return;
  }
  switch (connection.state) {
    case syn_sent:
      if (segment.is_syn_ack() && !by_initiator) return await(connection, syn_received, kBothDirections);
      if (!plain) return;
      connection.fin_seen = fin_seen & kBothDirections;
      // Without a handshake seen: in the middle. The initiator has to be heard anew.
      if (!by_initiator) await(connection, picked_up, other);
      return;
    case syn_received:
      // The initiator confirms; or the other end sends payload, which it does not before it was confirmed.
      if (by_initiator ? plain || segment.is_syn_ack() : plain && segment.has_payload) return be_open(connection, fin_seen);
      connection.fin_seen = fin_seen & kBothDirections;
      return;
    case picked_up:
      if (!plain) return;
      if (heard_both(connection, direction)) return be_open(connection, fin_seen);
      connection.fin_seen = fin_seen & kBothDirections;
      return;
    case established:
    case closing:
      if (segment.is_syn()) return await(connection, reopening, other);
      [[fallthrough]];
    case closed:
      if (!plain) return;
      if (segment.has(tcp_flag::fin)) return be_open(connection, fin_seen);
      if (segment.has_payload) be_open(connection, connection.fin_seen & ~self);
      return;
    case reopening:
      if (segment.is_syn()) return await(connection, reopening, connection.awaits | other);
      // The end that was to answer the SYN goes on with the connection as it was.
      if (plain && ((connection.awaits & self) != 0 || segment.has(tcp_flag::fin))) be_open(connection, fin_seen);
      return;
    case refused:
      if (segment.is_syn_ack() && !by_initiator) return await(connection, syn_received, kBothDirections);
      [[fallthrough]];
    case reset:
      if (plain && !segment.has(tcp_flag::fin) && heard_both(connection, direction)) be_open(connection, 0);
      return;
    default: return;
  }
}

// A bare SYN that the rules allow begins the connection anew at once: what it finds is over or was never established.
inline bool begins_anew(const Connection& connection) {
  return is_over(connection.state) || connection.state == ConnectionState::picked_up || (connection.untracked && connection.allowed != 3);
}

// The answer to a SYN on a connection that was established: both ends have begun anew.
inline bool answers_new_syn(const Connection& connection, const Segment& segment, Direction direction) {
  return connection.state == ConnectionState::reopening && segment.is_syn_ack() && (connection.awaits & bit(direction)) != 0;
}

// What has no TCP header moves one step with each change of the speaker, until the last state of its protocol.
inline void advance_exchange(Connection& connection, Direction direction) {
  using enum ConnectionState;
  if ((connection.awaits & bit(direction)) == 0) return;
  const auto next = static_cast<ConnectionState>(static_cast<std::uint8_t>(connection.state) + 1);
  await(connection, next, is_one_of(next, {udp_stream, icmp_again, other_again}) ? 0U : bit(opposite(direction)));
}
static_assert(static_cast<int>(ConnectionState::udp_asked) + 3 == static_cast<int>(ConnectionState::udp_stream) &&
              static_cast<int>(ConnectionState::icmp_asked) + 2 == static_cast<int>(ConnectionState::icmp_again) &&
              static_cast<int>(ConnectionState::other_asked) + 2 == static_cast<int>(ConnectionState::other_again));

// The first packet of a connection makes its first state, by its protocol (ICMP of the other family is a protocol like any other, so
// admit looks at it): not by branches, since in mixed traffic the processor could
// not guess them.
inline constexpr std::array<ConnectionState, 256> kFirstStates = [] {
  std::array<ConnectionState, 256> states;
  states.fill(ConnectionState::other_asked);
  states[protocol::tcp] = ConnectionState::syn_sent;
  states[protocol::udp] = ConnectionState::udp_asked;
  return states;
}();

}  // namespace trunkline::detail
