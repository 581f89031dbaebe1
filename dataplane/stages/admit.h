// SPDX-License-Identifier: BSD-3-Clause
//
// Stage 5: may it pass? A packet of a live connection may, whatever the rules say now; that is what stateful means.
// Any other packet is put to the security groups of its direction, and if a rule lets it in it opens a connection.
//
// The semantics are AWS's (EC2 user guide, "Security group connection tracking"):
//  * An edit of the rules does not touch a tracked connection. A TCP or UDP flow that AWS would not track (let in by a
//    rule from anywhere, with everything from anywhere allowed the other way) is remembered here too, but judged anew by
//    each new policy, direction by direction.
//  * A reply is never matched against the rules of its own direction.
//  * When the table is full a flow that needs an entry is refused; one that AWS would not track passes without.
//  * ICMP errors open nothing and belong to nothing: the rules decide each one.
//
// Refuses: security_group_ingress, security_group_egress, rule_revoked, conntrack_full.
#pragma once

#include "dataplane/packet.h"
#include "dataplane/stages/track.h"
#include "dataplane/state/worker_state.h"

namespace trunkline {

namespace detail {

inline DropReason refused_by_groups(Direction direction) {
  return direction == Direction::ingress ? DropReason::security_group_ingress : DropReason::security_group_egress;
}

inline RuleMatch match_rules(const WorkerState& worker, const Endpoint& endpoint, Direction direction,
                             const FlowQuery& query) {
  const Members::Groups groups = worker.view->members->find(query.remote);
  return endpoint.policy->rules(direction).match(query, groups.view());
}

// A flow that AWS would not track: let in by a rule from anywhere, with everything open the other way.
inline bool is_untracked(const Endpoint& endpoint, Direction direction, const FlowQuery& query, const RuleMatch& match) {
  return match.from_anywhere && (query.protocol == protocol::tcp || query.protocol == protocol::udp) &&
         endpoint.policy->rules(opposite(direction)).open_to_everyone(query.protocol, query.remote.is_v4());
}

inline FlowQuery query_of(const Burst& burst, std::uint32_t i, Direction direction) {
  FlowQuery query;
  query.remote = direction == Direction::ingress ? burst.source[i] : burst.destination[i];
  query.protocol = burst.protocol[i];
  query.port = is_icmp(burst, i) ? static_cast<std::uint16_t>(burst.icmp_type[i] << 8 | burst.icmp_code[i])
                                 : burst.destination_port[i];
  return query;
}

// Whether the packet may be the answer within a flow that has no entry because the table was full: the other way
// round, its first packet would have been untracked.
inline bool answers_untracked(const WorkerState& worker, const Endpoint& endpoint, Direction direction,
                              const Burst& burst, std::uint32_t i) {
  FlowQuery first = query_of(burst, i, direction);
  first.port = burst.source_port[i];
  const Direction asked = opposite(direction);
  const RuleMatch match = match_rules(worker, endpoint, asked, first);
  return match.allowed && is_untracked(endpoint, asked, first, match);
}

// The policy changed since this untracked flow was last judged.
inline void judge_again(const WorkerState& worker, const Endpoint& endpoint, Connection& connection) {
  const bool inbound = connection.initiator == Direction::ingress;
  FlowQuery first{connection.key.remote, connection.key.protocol,
                  inbound ? connection.key.local_port : connection.key.remote_port};
  FlowQuery reply{connection.key.remote, connection.key.protocol,
                  inbound ? connection.key.remote_port : connection.key.local_port};
  connection.initiator_allowed = match_rules(worker, endpoint, connection.initiator, first).allowed;
  connection.reply_allowed = match_rules(worker, endpoint, opposite(connection.initiator), reply).allowed;
  connection.policy_generation = endpoint.policy->generation;
}

inline void advance_tcp(Connection& connection, std::uint8_t flags, Direction direction) {
  if (flags & tcp_flag::rst) {
    connection.state = ConnectionState::reset;
  } else if (flags & tcp_flag::fin) {
    connection.fin_seen |= static_cast<std::uint8_t>(1U << index(direction));
    connection.state = connection.fin_seen == 3 ? ConnectionState::closed : ConnectionState::closing;
  } else if (connection.state == ConnectionState::opening && direction != connection.initiator) {
    connection.state = ConnectionState::established;
  }
}

// UDP becomes a stream with its second request and response: `exchanges` counts the changes of speaker.
inline void advance_udp(Connection& connection, Direction direction) {
  const bool waits_for_reply = (connection.exchanges & 1) == 0;
  if (connection.exchanges < 3 && waits_for_reply == (direction != connection.initiator)) ++connection.exchanges;
  if (connection.exchanges >= 1) connection.state = ConnectionState::established;
  if (connection.exchanges >= 3) connection.state = ConnectionState::stream;
}

inline void advance(Connection& connection, const Burst& burst, std::uint32_t i, Direction direction, Tick now) {
  connection.last_seen = now;
  switch (burst.protocol[i]) {
    case protocol::tcp: return advance_tcp(connection, burst.tcp_flags[i], direction);
    case protocol::udp: return advance_udp(connection, direction);
    default:
      if (direction != connection.initiator) connection.state = ConnectionState::established;
  }
}

// A SYN on a connection that is over starts a new one under the same name.
inline bool reopens(const Connection& connection, const Burst& burst, std::uint32_t i) {
  if (burst.protocol[i] != protocol::tcp) return false;
  const bool over = connection.state == ConnectionState::closing || connection.state == ConnectionState::closed ||
                    connection.state == ConnectionState::reset ||
                    (connection.untracked && !(connection.initiator_allowed && connection.reply_allowed));
  return over && (burst.tcp_flags[i] & (tcp_flag::syn | tcp_flag::ack)) == tcp_flag::syn;
}

// Whether a packet that the rules let pass may open a connection. Answers without a question may not.
inline bool opens_connection(const Burst& burst, std::uint32_t i) {
  if (burst.protocol[i] == protocol::tcp && is_icmp(burst, i) == false) return !(burst.tcp_flags[i] & tcp_flag::rst);
  if (!is_icmp(burst, i)) return true;
  bool is_query;
  return icmp_query_type(burst.protocol[i], burst.icmp_type[i], is_query) != 0 && is_query;
}

// The first packet of a flow, or the first after its entry died. `stale`: that dead entry, to be used again.
inline DropReason admit_first(Burst& burst, std::uint32_t i, WorkerState& worker, Direction direction,
                              Connection* stale) {
  const Endpoint& endpoint = *burst.endpoint[i];
  const FlowQuery query = query_of(burst, i, direction);
  const RuleMatch match = match_rules(worker, endpoint, direction, query);
  if (!match.allowed) return refused_by_groups(direction);
  const auto without_entry = [&](bool untracked) {
    return untracked || answers_untracked(worker, endpoint, direction, burst, i) ? DropReason::none : DropReason::conntrack_full;
  };
  if (!opens_connection(burst, i)) return DropReason::none;
  const bool untracked = is_untracked(endpoint, direction, query, match);
  Connection* connection = stale;
  if (connection != nullptr) {
    const FlowKey key = connection->key;
    *connection = Connection{};
    connection->key = key;
    connection->state = ConnectionState::opening;
  } else {
    const FlowKey key = flow_key(burst, i, direction);
    connection = worker.connections.insert(key, burst.hash[i], worker.now);
    if (connection == nullptr) return without_entry(untracked);
  }
  connection->initiator = direction;
  connection->untracked = untracked;
  connection->rule = match.rule;
  connection->policy_generation = endpoint.policy->generation;
  // Picked up in the middle (an engine restart, a moved task): it has been established elsewhere.
  if (burst.protocol[i] == protocol::tcp && !(burst.tcp_flags[i] & tcp_flag::syn)) {
    connection->state = ConnectionState::established;
  }
  burst.connection[i] = connection;
  advance(*connection, burst, i, direction, worker.now);
  return DropReason::none;
}

inline DropReason admit_one(Burst& burst, std::uint32_t i, WorkerState& worker, Direction direction) {
  const Endpoint& endpoint = *burst.endpoint[i];
  if (!has_connection(burst, i)) return admit_first(burst, i, worker, direction, nullptr);
  Connection* connection = burst.connection[i];
  // An earlier packet of this burst may have opened it meanwhile.
  if (connection == nullptr) connection = worker.connections.find(flow_key(burst, i, direction), burst.hash[i]);
  burst.connection[i] = nullptr;
  if (connection == nullptr) return admit_first(burst, i, worker, direction, nullptr);
  if (connection->untracked && connection->policy_generation != endpoint.policy->generation) {
    judge_again(worker, endpoint, *connection);
  }
  if (ConnectionTable::expired(*connection, endpoint.timeouts, worker.now) || reopens(*connection, burst, i)) {
    return admit_first(burst, i, worker, direction, connection);
  }
  if (connection->untracked &&
      !(direction == connection->initiator ? connection->initiator_allowed : connection->reply_allowed)) {
    return DropReason::rule_revoked;
  }
  burst.connection[i] = connection;
  advance(*connection, burst, i, direction, worker.now);
  return DropReason::none;
}

}  // namespace detail

inline void admit(Burst& burst, WorkerState& worker, Direction direction) {
  for (std::uint32_t i = 0; i < burst.size; ++i) {
    if (detail::is_filtered(burst, i)) burst.drop(i, detail::admit_one(burst, i, worker, direction));
  }
}

}  // namespace trunkline
