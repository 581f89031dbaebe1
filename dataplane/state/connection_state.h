// SPDX-License-Identifier: BSD-3-Clause
//
// The states of a connection, and how long an idle connection is kept in each. docs/connections.md has the automaton on one page;
// stages/advance.h is its code.
//
// A connection has one standing, which its state tells:
//  * unconfirmed: nobody has answered yet, or the initiator has not spoken again after the answer. One forged packet can make an
//    unconfirmed connection, so it is recycled when room is needed.
//  * confirmed: both ends take part. It ends by its time-out, by TCP's own end, or with its ENI; never to make room.
//  * over: TCP has ended it. Late segments still pass; it does not count for its ENI's quota and is recycled first.
//
// Values only; any thread.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <initializer_list>

#include "dataplane/state/clock.h"

namespace trunkline {

enum class ConnectionState : std::uint8_t {
  free,       // the entry is not in use
  addresses,  // the entry holds the addresses of an IPv6 connection that is elsewhere
  // TCP
  syn_sent,      // the initiator's SYN has passed
  syn_received,  // the SYN-ACK has passed; the initiator has not confirmed it
  picked_up,     // begun in the middle: one end has been heard
  established,
  reopening,     // established, or half closed, and a new SYN has passed that the other end has not answered
  closing,       // one end has sent FIN
  closed,        // both ends have sent FIN
  refused,       // RST before it was established
  reset,         // RST after it was established
  // UDP: request and answer, twice, make a stream.
  udp_asked,
  udp_answered,
  udp_again,
  udp_stream,
  // ICMP queries
  icmp_asked,
  icmp_answered,
  icmp_again,
  // All other protocols
  other_asked,
  other_answered,
  other_again,
};
inline constexpr std::size_t kConnectionStates = 21;

// As operators write them (trunkctl flow list --state).
inline constexpr std::array<const char*, kConnectionStates> kConnectionStateNames{
    "free",          "addresses", "syn_sent",   "syn_received", "picked_up", "established", "reopening",
    "closing",       "closed",    "refused",    "reset",        "udp_asked", "udp_answered", "udp_again",
    "udp_stream",    "icmp_asked", "icmp_answered", "icmp_again", "other_asked", "other_answered", "other_again"};

// One bit test, whichever it is.
[[gnu::always_inline]] constexpr bool is_one_of(ConnectionState state, std::initializer_list<ConnectionState> states) {
  std::uint32_t set = 0;
  for (const ConnectionState each : states) set |= 1U << static_cast<unsigned>(each);
  return (set >> static_cast<unsigned>(state) & 1) != 0;
}

enum class Standing : std::uint8_t { confirmed, unconfirmed, over };

[[gnu::always_inline]] constexpr bool is_unconfirmed(ConnectionState state) {
  using enum ConnectionState;
  return is_one_of(state, {syn_sent, syn_received, picked_up, udp_asked, udp_answered, icmp_asked, icmp_answered, other_asked,
                           other_answered});
}
[[gnu::always_inline]] constexpr bool is_over(ConnectionState state) {
  using enum ConnectionState;
  return is_one_of(state, {closed, refused, reset});
}
[[gnu::always_inline]] constexpr Standing standing_of(ConnectionState state) {
  if (is_unconfirmed(state)) return Standing::unconfirmed;
  return is_over(state) ? Standing::over : Standing::confirmed;
}

// How long an idle connection is kept, in ticks, by its state. The ENI's time-outs and the config's.
class Timeouts {
 public:
  Timeouts() {
    set_tcp(seconds(30), seconds(432000), seconds(120), seconds(10));
    set_udp(seconds(30), seconds(180));
    set_icmp(seconds(30));
    set_other(seconds(600));
  }
  // A RST or a single FIN that nobody believed must not end a connection that is silent for a while: those states last as
  // long as an established connection does.
  void set_tcp(Tick handshake, Tick open, Tick after_fins, Tick after_refusal) {
    using enum ConnectionState;
    at(syn_sent) = at(syn_received) = at(picked_up) = handshake;
    at(established) = at(reopening) = at(closing) = at(reset) = open;
    at(closed) = after_fins;
    at(refused) = after_refusal;
  }
  void set_udp(Tick single, Tick stream) {
    using enum ConnectionState;
    at(udp_asked) = at(udp_answered) = at(udp_again) = single;
    at(udp_stream) = stream;
  }
  void set_icmp(Tick idle) {
    using enum ConnectionState;
    at(icmp_asked) = at(icmp_answered) = at(icmp_again) = idle;
  }
  void set_other(Tick idle) {
    using enum ConnectionState;
    at(other_asked) = at(other_answered) = at(other_again) = idle;
  }
  Tick shortest() const;  // of all states of a connection
  Tick operator[](ConnectionState state) const { return ticks_[static_cast<std::size_t>(state)]; }

 private:
  Tick& at(ConnectionState state) { return ticks_[static_cast<std::size_t>(state)]; }
  std::array<Tick, kConnectionStates> ticks_{};
};

}  // namespace trunkline
