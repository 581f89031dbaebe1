// SPDX-License-Identifier: BSD-3-Clause
//
// The entry of one connection in a worker's table (connection_table.h): a cache line with the key, the state, and both
// directions' totals for flow logs. An IPv6 connection has a second one with its addresses.
//
// Only the owning worker touches it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "config/net.h"
#include "dataplane/state/clock.h"
#include "dataplane/state/counters.h"
#include "dataplane/state/flow_key.h"
#include "dataplane/state/policy.h"
#include "dataplane/state/view.h"

namespace trunkline {

struct alignas(64) Connection {
  FlowKey key;
  Tick last_seen = 0;
  std::uint32_t policy_generation = 0;  // of the rules that `allowed` speaks of
  RuleId rule = kNoRule;                // the rule that let it in
  ConnectionState state = ConnectionState::free;
  // A bit per Direction in each of the pairs.
  std::uint8_t initiator : 1 = 0;   // who spoke first
  std::uint8_t untracked : 1 = 0;   // AWS would not track it: an edit of the rules bites at once
  std::uint8_t allowed : 2 = 3;     // what the rules of policy_generation say (admit.h)
  std::uint8_t awaits : 2 = 0;      // a packet this way may move the state (stages/advance.h)
  std::uint8_t fin_seen : 2 = 0;
  std::uint32_t link = 0;           // IPv6: the entry with its addresses

  // What passed, in the direction, since the flow log's interval began: octets of IP packets in the low 56 bits, in the high 8
  // the TCP flags that flow logs know (one add, one or). Of the times only the low bits, which are enough for an interval.
  struct Totals {
    static constexpr unsigned kFlagsShift = 56;
    std::uint64_t bytes_and_flags = 0;
    std::uint32_t packets = 0;
    std::uint16_t first = 0, last = 0;

    // Packets and times in one load and one store.
    [[gnu::always_inline]] void saw_packet(std::uint16_t now) {
      static_assert(offsetof(Totals, last) - offsetof(Totals, packets) == 6);
      std::uint64_t all;
      std::memcpy(&all, &packets, sizeof all);
      if (static_cast<std::uint32_t>(all) == 0) [[unlikely]] all = std::uint64_t{now} << 32;
      all = ((all << 16 >> 16) + 1) | std::uint64_t{now} << 48;
      std::memcpy(&packets, &all, sizeof all);
    }
    // Of what was counted. The flags of what passed besides are not told apart from its own.
    void take_back(const Frames& amount) {
      packets -= static_cast<std::uint32_t>(amount.packets);
      bytes_and_flags = packets == 0 ? 0 : bytes_and_flags - amount.bytes;
    }
    std::uint64_t bytes() const { return bytes_and_flags & ((std::uint64_t{1} << kFlagsShift) - 1); }
    std::uint8_t tcp_flags() const { return static_cast<std::uint8_t>(bytes_and_flags >> kFlagsShift); }
    Tick first_seen(Tick now) const { return now - static_cast<std::uint16_t>(now - first); }
    Tick last_seen(Tick now) const { return now - static_cast<std::uint16_t>(now - last); }
  } totals[2];  // by Direction

  static Connection of(const FlowKey& key, Tick now = 0, ConnectionState state = ConnectionState::other_again) {
    Connection connection;
    connection.key = key;
    connection.last_seen = now;
    connection.state = state;
    return connection;
  }
  // Allowed this way, and not awaited: both in one look at the byte in which they are.
  template <Direction direction>
  [[gnu::always_inline]] bool passes_at_once() const {
    constexpr unsigned kAllowed = 1U << (2 + index(direction)), kAwaited = 1U << (4 + index(direction));
    std::uint8_t bits;
    std::memcpy(&bits, reinterpret_cast<const std::uint8_t*>(&state) + 1, 1);
    return (bits & (kAllowed | kAwaited)) == kAllowed;
  }
  // Times of a thread whose clock is ahead become now.
  void set_no_later_than(Tick now) {
    static constexpr std::uint16_t kAhead = 2 * kTicksPerSecond;
    if (const Tick ahead = last_seen - now; ahead != 0 && ahead <= kAhead) last_seen = now;
    for (Totals& way : totals) {
      for (std::uint16_t* time : {&way.first, &way.last}) {
        if (const auto ahead = static_cast<std::uint16_t>(*time - now); ahead != 0 && ahead <= kAhead)
          *time = static_cast<std::uint16_t>(now);
      }
    }
  }
  Direction initiator_direction() const { return static_cast<Direction>(initiator); }
};
static_assert(sizeof(Connection) == 64);

// The second entry of an IPv6 connection. `state` lies where Connection has it.
struct alignas(64) ConnectionAddresses {
  std::uint8_t before[offsetof(Connection, state)]{};
  ConnectionState state = ConnectionState::addresses;
  AddressPair addresses;
};
static_assert(sizeof(ConnectionAddresses) == 64 && offsetof(ConnectionAddresses, state) == offsetof(Connection, state));

}  // namespace trunkline
