// SPDX-License-Identifier: BSD-3-Clause
//
// Stage 6: find each packet's connection. Three passes, so that the loads of all packets are under way together: the first
// finishes the keys, hashes them and asks for the buckets, the second looks into the buckets and asks for the entries, the
// third compares. Of packets that change nothing of their connection the third also does what there is to do (stages/steady.h), because it has
// the entry at hand; about all others it decides nothing, admit does.
//
// The key is seen from the ENI. ICMP: a query and its answer share a key, and who asked is part of it, so that an
// answer is let in by state but a query of the same identifier from the other side is not, nor what has another code (IcmpFlow).
#pragma once

#include "dataplane/packet.h"
#include "dataplane/stages/parse.h"
#include "dataplane/stages/steady.h"
#include "dataplane/state/worker_state.h"
#include "dataplane/wire/icmp.h"

namespace trunkline {

namespace detail {

inline bool is_icmp(const Headers& headers) {
  return headers.layer3 == Layer3::ipv4 ? headers.protocol == protocol::icmp : headers.protocol == protocol::icmpv6;
}

// Whether the packet can belong to a connection at all: ICMP errors and the like do not.
inline bool has_connection(const Headers& headers) {
  bool is_query;
  return !is_icmp(headers) || icmp_query_type(headers.protocol, headers.icmp_type, is_query) != 0;
}

inline AddressPair addresses6(const Burst& burst, std::uint32_t i, Direction direction) {
  const bool ingress = direction == Direction::ingress;
  AddressPair pair;
  pair.remote = ingress ? burst.source(i) : burst.destination(i);
  pair.local = ingress ? burst.destination(i) : burst.source(i);
  return pair;
}

// What parse could not know of the key, because it depends on who asks or on the table's secret.
inline void complete_key(Burst& burst, std::uint32_t i, const ConnectionTable& table, Direction direction) {
  const Headers& headers = burst.headers[i];
  FlowKey& key = burst.key[i];
  if (headers.layer3 == Layer3::ipv6) table.set_digest(key, addresses6(burst, i, direction));
  if (is_icmp(headers)) {
    bool is_query;
    const std::uint8_t type = icmp_query_type(headers.protocol, headers.icmp_type, is_query);
    // A later fragment has its first one's identifier already.
    if (type != 0 && headers.fragment != Fragment::later) key.local_port = load_raw<std::uint16_t>(burst.bytes(i) + headers.layer4_offset + 4);  // the identifier
    const bool asked_by_remote = is_query == (direction == Direction::ingress);
    key.remote_port = type == 0 ? std::uint16_t{0} : IcmpFlow{type, headers.icmp_code, asked_by_remote}.port();
  }
}

// Compares addresses too where the key has only their digest.
inline Connection* find_connection(const Burst& burst, std::uint32_t i, ConnectionTable& table, Direction direction) {
  if (!burst.key[i].is_ipv6()) return table.find(burst.key[i], burst.hash[i]);
  return table.find(burst.key[i], burst.hash[i], addresses6(burst, i, direction));
}

// What is not plain, and whose tag is not enough: looked for in full. Answers which are steady.
template <Direction direction, bool counted>
[[gnu::noinline]] std::uint64_t track_rest(Burst& burst, std::uint64_t rest, ConnectionTable& table, Tick now) {
  std::uint64_t steady = 0;
  for_each_bit(rest, [&](std::uint32_t i) {
    Connection* connection = has_connection(burst.headers[i]) ? find_connection(burst, i, table, direction) : nullptr;
    burst.connection[i] = connection;
    if (connection == nullptr || burst.is_oversized(i)) return;
    if (!is_steady<direction>(*connection, *burst.endpoint[i], burst.headers[i], now)) return;
    pass_steady<direction, counted>(*connection, burst.headers[i], now);
    steady |= std::uint64_t{1} << i;
  });
  return steady;
}

[[gnu::noinline]] inline void complete_keys(Burst& burst, std::uint64_t packets, const ConnectionTable& table, Direction direction) {
  for_each_bit(packets, [&](std::uint32_t i) {
    if (!burst.headers[i].whole_key) complete_key(burst, i, table, direction);
  });
}

// A key of a full bucket is in its other one: two loads more, of which the others of the burst wait for none.
[[gnu::noinline]] inline void look_elsewhere(Burst& burst, std::uint64_t packets, const ConnectionTable& table) {
  for_each_bit(packets, [&](std::uint32_t i) __attribute__((always_inline)) { burst.connection[i] = table.candidate_elsewhere(burst.hash[i]); });
}

template <Direction direction, bool counted>
[[gnu::always_inline]] inline void track_all(Burst& burst, ConnectionTable& table, Tick now) {
  // What is oversized is never steady: whether it is sent, and as how many packets, is not known yet.
  const std::uint64_t plain = burst.filtered & burst.plain & ~burst.oversized;
  std::uint64_t rest = burst.filtered & ~plain;
  if (rest != 0) [[unlikely]] complete_keys(burst, rest, table, direction);
  for_each_bit(burst.filtered, [&](std::uint32_t i) __attribute__((always_inline)) {
    burst.hash[i] = table.hash(burst.key[i]);
    table.prefetch(burst.hash[i]);
  });
  std::uint64_t elsewhere = 0;
  for_each_bit(plain, [&](std::uint32_t i) __attribute__((always_inline)) {
    burst.connection[i] = table.candidate(burst.hash[i]);
    if (burst.connection[i] == nullptr) [[unlikely]] elsewhere |= std::uint64_t{1} << i;
  });
  if (elsewhere != 0) [[unlikely]] look_elsewhere(burst, elsewhere, table);
  std::uint64_t unsteady = 0;
  for_each_bit(plain, [&](std::uint32_t i) __attribute__((always_inline)) {
    Connection* candidate = burst.connection[i];
    if (candidate == nullptr) [[unlikely]] {  // no tag is the one: there is no such connection
      unsteady |= std::uint64_t{1} << i;
    } else if (!(candidate->key == burst.key[i])) [[unlikely]] {
      rest |= std::uint64_t{1} << i;
    } else if (is_steady<direction>(*candidate, *burst.endpoint[i], burst.headers[i], now)) [[likely]] {
      pass_steady<direction, counted>(*candidate, burst.headers[i], now);
    } else {
      unsteady |= std::uint64_t{1} << i;
    }
  });
  burst.steady = plain & ~(rest | unsteady);
  if (rest != 0) [[unlikely]] burst.steady |= track_rest<direction, counted>(burst, rest, table, now);
}

// One packet's connection, found and left alone.
inline Connection* look_up(Burst& burst, std::uint32_t i, ConnectionTable& table, Direction direction) {
  if (!burst.headers[i].whole_key) complete_key(burst, i, table, direction);
  burst.hash[i] = table.hash(burst.key[i]);
  return has_connection(burst.headers[i]) ? find_connection(burst, i, table, direction) : nullptr;
}

}  // namespace detail

inline void track(Burst& burst, WorkerState& worker, Direction direction) {
  ConnectionTable& table = worker.connections;
  // What limits may still refuse is counted behind them.
  if (worker.view->limits) [[unlikely]] {
    direction == Direction::ingress ? detail::track_all<Direction::ingress, false>(burst, table, worker.now)
                                    : detail::track_all<Direction::egress, false>(burst, table, worker.now);
  } else {
    direction == Direction::ingress ? detail::track_all<Direction::ingress, true>(burst, table, worker.now)
                                    : detail::track_all<Direction::egress, true>(burst, table, worker.now);
  }
}

}  // namespace trunkline
