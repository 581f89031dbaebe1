// SPDX-License-Identifier: BSD-3-Clause
//
// Stage 7: may it pass? A packet of a live connection may, whatever the rules say now; that is what stateful means.
// Any other packet is put to the security groups of its direction, and if a rule lets it in it opens a connection.
//
// Steady packets have passed already (stages/steady.h); what is here takes the long way, in order.
//
// Network ACLs have no state: each packet that crosses the edge of the ENI's subnet is asked about, replies and packets of
// tracked connections too; inbound before the security groups, outbound after them. But to an ACL all packets of a connection
// in one direction look the same, so its answers are kept with the connection (`allowed`), together with what the groups say of
// untracked flows, and asked for anew when the endpoint's rules are others (`policy_generation`).
//
// The semantics are AWS's (EC2 user guide, "Security group connection tracking"):
//  * An edit of the groups does not touch a tracked connection, unless its endpoint says `revalidate`. A TCP or UDP flow that AWS
//    would not track (let in by a rule from anywhere, with everything from anywhere allowed the other way) is remembered here
//    too, but judged anew by each new policy, direction by direction.
//  * Each SYN that begins a connection is put to the rules as they are, also on an entry that is alive, and from either end of it.
//  * A SYN-ACK begins nothing: without a connection it is refused, unless the flow would be untracked.
//  * A reply is never matched against the rules of its own direction.
//  * When the table is full, or the ENI has all the connections that it may have, a flow that needs an entry is refused;
//    one that AWS would not track passes without.
//  * ICMP errors open nothing and belong to nothing: the rules decide each one (or, with `icmp_related`, the live connection
//    that they quote).
//
// In audit mode an endpoint refuses nothing here: what would be refused is counted by its reason and passes.
//
// A packet without a connection, whose endpoint moved here a moment ago, first goes to ask the worker that had it before
// (state/handoff.h).
//
// Refuses: security_group_ingress, security_group_egress, network_acl_ingress, network_acl_egress, rule_revoked,
// connection_closed, conntrack_full, conntrack_quota, conntrack_share, handoff_full.
#pragma once

#include <array>
#include <new>

#include "dataplane/packet.h"
#include "dataplane/stages/advance.h"
#include "dataplane/stages/related.h"
#include "dataplane/stages/track.h"
#include "dataplane/state/worker_state.h"

namespace trunkline {

namespace detail {

inline DropReason refused_by_groups(Direction direction) {
  return direction == Direction::ingress ? DropReason::security_group_ingress : DropReason::security_group_egress;
}

// One question by itself; first packets are asked about together (admit).
inline RuleMatch ask_rules(const WorkerState& worker, const Endpoint& endpoint, Direction direction, const FlowQuery& query) {
  const Members::Groups groups = worker.view->members->find(query.remote);
  return endpoint.policy->rules(direction).match(query, groups.view());
}

// A flow that AWS would not track: let in by a rule from anywhere, with everything open the other way.
inline bool is_untracked(const Endpoint& endpoint, Direction direction, const FlowQuery& query, const RuleMatch& match) {
  return !endpoint.always_track && match.from_anywhere && (query.protocol == protocol::tcp || query.protocol == protocol::udp) &&
         endpoint.policy->rules(opposite(direction)).open_to_everyone(query.protocol, query.remote.is_v4());
}

inline FlowQuery query_of(const Burst& burst, std::uint32_t i, Direction direction) {
  const Headers& headers = burst.headers[i];
  FlowQuery query;
  if (headers.layer3 == Layer3::ipv4) [[likely]] {
    query.remote = IpAddress::from_v4_bytes(&burst.key[i].remote);
  } else {
    query.remote = direction == Direction::ingress ? burst.source(i) : burst.destination(i);
  }
  query.protocol = headers.protocol;
  query.port = is_icmp(headers) ? static_cast<std::uint16_t>(headers.icmp_type << 8 | headers.icmp_code)
                                : burst.destination_port(i, direction);
  return query;
}

// Whether the packet may be the answer within a flow that has no entry because the table was full: the other way
// round, its first packet would have been untracked.
inline bool answers_untracked(const WorkerState& worker, const Endpoint& endpoint, Direction direction,
                              const Burst& burst, std::uint32_t i) {
  FlowQuery first = query_of(burst, i, direction);
  first.port = burst.source_port(i, direction);
  const Direction asked = opposite(direction);
  const RuleMatch match = ask_rules(worker, endpoint, asked, first);
  return match.allowed && is_untracked(endpoint, asked, first, match);
}

// The first of the ENI's network ACL to refuse it, or none. Within a subnet nobody asks.
inline bool acl_allows(const Endpoint& endpoint, Direction direction, const FlowQuery& query) {
  if (endpoint.network_acl == nullptr || endpoint.in_subnet(query.remote)) return true;
  return endpoint.network_acl->ask(query, direction).allowed;
}
inline DropReason refused_by_acl(Direction direction) {
  return direction == Direction::ingress ? DropReason::network_acl_ingress : DropReason::network_acl_egress;
}

// What a packet of the connection that goes this way looks like to rules that know no connections.
inline FlowQuery query_of(const WorkerState& worker, const Connection& connection, Direction direction) {
  const FlowKey& key = connection.key;
  FlowQuery query;
  query.remote = key.is_ipv6() ? worker.connections.addresses_of(connection).remote : IpAddress::from_v4_bytes(&key.remote);
  query.protocol = key.protocol();
  if (is_one_of(connection.state, {ConnectionState::icmp_asked, ConnectionState::icmp_answered, ConnectionState::icmp_again})) {
    const IcmpFlow flow = IcmpFlow::of_port(key.remote_port);
    const bool asks = direction == connection.initiator_direction();
    query.port = static_cast<std::uint16_t>((asks ? flow.query_type : icmp_answer_type(flow.query_type)) << 8 | flow.code);
  } else if (connection.state < ConnectionState::other_asked) {
    query.port = direction == Direction::ingress ? key.local_port_number() : key.remote_port_number();
  }
  return query;
}

// A connection under rules that it has not met: what do they say of each direction?
inline void judge_again(const WorkerState& worker, const Endpoint& endpoint, Connection& connection) {
  const Direction initiator = connection.initiator_direction();
  const Direction answer = opposite(initiator);
  const FlowQuery first = query_of(worker, connection, initiator);
  const FlowQuery reply = query_of(worker, connection, answer);
  const RuleMatch match = ask_rules(worker, endpoint, initiator, first);
  unsigned allowed = 3;
  if (connection.untracked) {
    allowed = (match.allowed ? bit(initiator) : 0U) | (ask_rules(worker, endpoint, answer, reply).allowed ? bit(answer) : 0U);
  } else if ((endpoint.revalidate || connection.rule == kAuditedRule) && !endpoint.audit && !match.allowed) {
    allowed = 0;  // for the other way too: the connection is over
  }
  // Rules are numbered anew with each policy.
  if (connection.rule != kAuditedRule) connection.rule = match.rule;
  if (!acl_allows(endpoint, initiator, first)) allowed &= ~bit(initiator) & 3U;
  if (!acl_allows(endpoint, answer, reply)) allowed &= ~bit(answer) & 3U;
  connection.allowed = allowed & 3;
  connection.policy_generation = endpoint.policy_generation;
}

// Why the rules do not let a packet of a connection pass this way.
inline DropReason refusal_of(const WorkerState& worker, const Endpoint& endpoint, const Connection& connection, Direction direction) {
  return acl_allows(endpoint, direction, query_of(worker, connection, direction)) ? DropReason::rule_revoked : refused_by_acl(direction);
}

// Audit: what the rules refuse is counted, and passes.
inline DropReason refuse_or_audit(WorkerState& worker, const Endpoint& endpoint, DropReason reason) {
  if (!endpoint.audit) return reason;
  worker.meters[endpoint.id.value].audited[static_cast<std::size_t>(reason)].add(1);
  return DropReason::none;
}

// Parse has checked that a TCP header, where there is one, lies in the first buffer.
inline Segment segment_of(const Burst& burst, std::uint32_t i) {
  const Headers& headers = burst.headers[i];
  Segment segment{headers.tcp_flags};
  const std::uint32_t header_bytes = (burst.bytes(i)[headers.layer4_offset + 12] >> 4) * 4U;
  segment.has_payload = headers.layer3_offset + std::uint32_t{headers.packet_bytes} > headers.layer4_offset + header_bytes;
  return segment;
}

inline bool is_bare_syn(const Headers& headers) {
  return headers.protocol == protocol::tcp && (headers.tcp_flags & (tcp_flag::syn | tcp_flag::ack)) == tcp_flag::syn;
}
inline bool is_syn_ack(const Headers& headers) {
  return headers.protocol == protocol::tcp && (headers.tcp_flags & (tcp_flag::syn | tcp_flag::ack)) == (tcp_flag::syn | tcp_flag::ack);
}

// A connection that this packet opens.
inline Connection begin(const FlowKey& key, const Headers& headers, Direction direction, Tick now) {
  Connection connection = Connection::of(key, now, kFirstStates[headers.protocol]);
  connection.initiator = index(direction) & 1;
  connection.awaits = bit(opposite(direction)) & kBothDirections;
  if (is_icmp(headers)) [[unlikely]] connection.state = ConnectionState::icmp_asked;
  // Picked up in the middle (an engine restart, a moved task): it may have been established elsewhere.
  if ((connection.state == ConnectionState::syn_sent) & ((headers.tcp_flags & tcp_flag::syn) == 0)) [[unlikely]] {
    connection.state = ConnectionState::picked_up;
    if (headers.tcp_flags & tcp_flag::fin) connection.fin_seen = bit(direction) & kBothDirections;
  }
  return connection;
}

// Whether a packet that the rules let pass may open a connection. What answers, or ends, something that is not here may not.
inline bool opens_connection(const Headers& headers) {
  if (is_icmp(headers)) {
    bool is_query;
    return icmp_query_type(headers.protocol, headers.icmp_type, is_query) != 0 && is_query;
  }
  return (headers.tcp_flags & tcp_flag::rst) == 0 && !is_syn_ack(headers);
}

inline ConnectionTable::Inserted insert_connection(const Connection& fresh, const Burst& burst, std::uint32_t i, WorkerState& worker, Direction direction) {
  const std::uint32_t quota = burst.endpoint[i]->max_connections;
  if (!fresh.key.is_ipv6()) return worker.connections.insert(fresh, burst.hash[i], quota);
  return worker.connections.insert(fresh, burst.hash[i], addresses6(burst, i, direction), quota);
}

// What the rules say of a packet that belongs to no connection, in the order of its way.
inline DropReason judge_first(const Endpoint& endpoint, Direction direction, const RuleLookup& lookup) {
  const bool in_acl = acl_allows(endpoint, direction, lookup.query);
  if (direction == Direction::ingress && !in_acl) return refused_by_acl(direction);
  if (!lookup.match.allowed) return refused_by_groups(direction);
  return in_acl ? DropReason::none : refused_by_acl(direction);
}

// The first packet of a flow, or the first after its entry died. `match` is what the rules say of it; `stale` is that dead
// entry, to be used again.
inline DropReason admit_first(Burst& burst, std::uint32_t i, WorkerState& worker, Direction direction, const RuleLookup& lookup,
                              Connection* stale) {
  const Endpoint& endpoint = *burst.endpoint[i];
  const Headers& headers = burst.headers[i];
  const FlowQuery& query = lookup.query;
  const RuleMatch& match = lookup.match;
  const DropReason judgement = judge_first(endpoint, direction, lookup);
  if (judgement != DropReason::none) {
    if (is_related(burst, i, worker, direction) && acl_allows(endpoint, direction, query)) return DropReason::none;
    if (const DropReason refused = refuse_or_audit(worker, endpoint, judgement); refused != DropReason::none) return refused;
  }
  const bool untracked = is_untracked(endpoint, direction, query, match);
  if (is_syn_ack(headers) && !untracked && !answers_untracked(worker, endpoint, direction, burst, i)) {
    return refuse_or_audit(worker, endpoint, DropReason::connection_closed);
  }
  if (!opens_connection(headers)) return DropReason::none;
  if (endpoint.strict_syn && !untracked && headers.protocol == protocol::tcp && !is_bare_syn(headers)) {
    if (const DropReason refused = refuse_or_audit(worker, endpoint, DropReason::connection_closed); refused != DropReason::none) return refused;
  }
  Connection fresh = begin(burst.key[i], headers, direction, worker.now);
  fresh.untracked = untracked;
  fresh.policy_generation = endpoint.policy_generation;
  fresh.rule = judgement == DropReason::none ? match.rule : kAuditedRule;
  Connection* connection = stale;
  if (connection != nullptr) {
    worker.connections.restart(*connection, fresh);
  } else {
    const ConnectionTable::Inserted inserted = insert_connection(fresh, burst, i, worker, direction);
    connection = inserted.connection;
    if (connection == nullptr) {
      if (untracked || answers_untracked(worker, endpoint, direction, burst, i)) return DropReason::none;
      switch (inserted.refusal) {
        case ConnectionTable::Refusal::quota:
          return DropReason::conntrack_quota;
        case ConnectionTable::Refusal::share:
          return DropReason::conntrack_share;
        default:
          return DropReason::conntrack_full;
      }
    }
  }
  if (endpoint.network_acl != nullptr) judge_again(worker, endpoint, *connection);
  burst.connection[i] = connection;
  return DropReason::none;
}

// What the rules, as they are now, say of a SYN on a live connection. What it began in its time gives it no right to begin again.
[[gnu::noinline]] inline DropReason refuse_syn(const Burst& burst, std::uint32_t i, WorkerState& worker, Direction direction) {
  const Endpoint& endpoint = *burst.endpoint[i];
  RuleLookup lookup{&endpoint.policy->rules(direction), query_of(burst, i, direction), {}};
  lookup.match = ask_rules(worker, endpoint, direction, lookup.query);
  const DropReason judgement = judge_first(endpoint, direction, lookup);
  return judgement == DropReason::none ? judgement : refuse_or_audit(worker, endpoint, judgement);
}

// Both ends have begun anew on an entry that was established: what is known of it from now on is what the SYN made of it.
[[gnu::noinline]] inline void begin_again(const Burst& burst, std::uint32_t i, Connection& connection, WorkerState& worker, Direction answer) {
  const Endpoint& endpoint = *burst.endpoint[i];
  Connection fresh = begin(connection.key, burst.headers[i], opposite(answer), worker.now);
  await(fresh, ConnectionState::syn_received, kBothDirections);
  const FlowQuery query = query_of(worker, connection, opposite(answer));
  const RuleMatch match = ask_rules(worker, endpoint, opposite(answer), query);
  fresh.untracked = is_untracked(endpoint, opposite(answer), query, match);
  // Not allowed: audit let the SYN pass, or its rule has gone since.
  fresh.rule = match.allowed ? match.rule : endpoint.audit ? kAuditedRule : connection.rule;
  worker.connections.restart(connection, fresh);
  judge_again(worker, endpoint, connection);
}

// A packet of a live connection passes.
inline void advance(const Burst& burst, std::uint32_t i, Connection& connection, WorkerState& worker, Direction direction) {
  const Headers& headers = burst.headers[i];
  connection.last_seen = worker.now;
  const Standing before = standing_of(connection.state);
  if (headers.protocol != protocol::tcp) {
    advance_exchange(connection, direction);
  } else if (headers.fragment == Fragment::later) {
    return;  // its first one, whose flags it has, did
  } else {
    const Segment segment = segment_of(burst, i);
    if (answers_new_syn(connection, segment, direction)) return begin_again(burst, i, connection, worker, direction);
    advance_tcp(connection, segment, direction);
  }
  worker.connections.changed_standing(connection, before);
}

// For which keys packets of this burst have opened connections: a bit of the hash each, so that most need not be looked for again.
class OpenedInBurst {
 public:
  void add(std::uint64_t hash) { bits_ |= bit_of(hash); }
  bool may_have(std::uint64_t hash) const { return (bits_ & bit_of(hash)) != 0; }

 private:
  static std::uint64_t bit_of(std::uint64_t hash) { return std::uint64_t{1} << (hash >> 16 & 63); }
  std::uint64_t bits_ = 0;
};

// A packet whose connection has to be looked at more closely, or that has none. `lookup` is the rules' answer, if it was
// asked for when the burst came.
inline DropReason admit_one(Burst& burst, std::uint32_t i, WorkerState& worker, Direction direction, RuleLookup* lookup, OpenedInBurst& opened) {
  const Endpoint& endpoint = *burst.endpoint[i];
  const Headers& headers = burst.headers[i];
  Connection* connection = burst.connection[i];
  // An earlier packet of this burst may have opened it, or have needed its room.
  if (connection == nullptr ? opened.may_have(burst.hash[i]) : burst.key[i].is_ipv6() || !ConnectionTable::is_of(*connection, burst.key[i])) {
    connection = has_connection(headers) ? find_connection(burst, i, worker.connections, direction) : nullptr;
  }
  burst.connection[i] = nullptr;
  if (connection != nullptr) {
    if (connection->policy_generation != endpoint.policy_generation) judge_again(worker, endpoint, *connection);
    if (!ConnectionTable::expired(*connection, endpoint.timeouts, worker.now)) {
      const bool syn = is_bare_syn(headers);
      if (!syn) {
        if (!(connection->allowed & bit(direction))) {
          const DropReason refused = refuse_or_audit(worker, endpoint, refusal_of(worker, endpoint, *connection, direction));
          if (refused != DropReason::none) return refused;
        }
        burst.connection[i] = connection;
        advance(burst, i, *connection, worker, direction);
        return DropReason::none;
      }
      if (!begins_anew(*connection)) {
        const DropReason refused = refuse_syn(burst, i, worker, direction);
        if (refused != DropReason::none) return refused;
        burst.connection[i] = connection;
        advance(burst, i, *connection, worker, direction);
        return DropReason::none;
      }
    }
  }
  opened.add(burst.hash[i]);
  if (lookup != nullptr) return admit_first(burst, i, worker, direction, *lookup, connection);
  RuleLookup alone{&endpoint.policy->rules(direction), query_of(burst, i, direction), {}};
  alone.match = ask_rules(worker, endpoint, direction, alone.query);
  return admit_first(burst, i, worker, direction, alone, connection);
}

// Whether the packet left to ask the previous owner for its connection.
inline bool asks_previous_owner(Burst& burst, std::uint32_t i, WorkerState& worker, Direction direction) {
  const Endpoint& endpoint = *burst.endpoint[i];
  if (endpoint.previous_worker == kNoWorker || endpoint.previous_worker == worker.number || !has_connection(burst.headers[i])) return false;
  if (find_connection(burst, i, worker.connections, direction) != nullptr) return false;
  if (worker.handoff.send(endpoint.previous_worker, {burst.mbuf[i], endpoint.id, endpoint.generation, HandoffKind::ask, direction})) {
    burst.filtered &= ~(std::uint64_t{1} << i);
    burst.mbuf[i] = nullptr;
  } else {
    burst.drop(i, DropReason::handoff_full);
  }
  return true;
}

// Packets without a connection are put to the rules together, so that the rules' cache misses overlap; then each is dealt with
// in the order in which they came.
[[gnu::noinline]] inline void admit_rest(Burst& burst, std::uint64_t rest, WorkerState& worker, Direction direction, bool asked_before) {
  if (worker.view->moving && !asked_before) {
    for_each_bit(rest, [&](std::uint32_t i) {
      if (burst.connection[i] == nullptr && asks_previous_owner(burst, i, worker, direction)) rest &= ~(std::uint64_t{1} << i);
    });
  }
  // A union, so that nobody clears two kilobytes for one first packet.
  union Lookups {
    Lookups() {}
    RuleLookup each[kMaxBurst];
  } lookups;
  std::uint32_t count = 0;
  RuleLookup* answer[kMaxBurst];
  for_each_bit(rest, [&](std::uint32_t i) {
    answer[i] = nullptr;
    if (burst.connection[i] != nullptr) return;
    // Made in its place: a copy's wide loads would wait for the narrow stores before.
    answer[i] = new (&lookups.each[count++]) RuleLookup{&burst.endpoint[i]->policy->rules(direction), query_of(burst, i, direction), {}};
    answer[i]->rules->prefetch();
  });
  match_rules({lookups.each, count}, *worker.view->members);
  const std::uint64_t recycled = worker.connections.recycled();
  OpenedInBurst opened;
  for_each_bit(rest, [&](std::uint32_t i) {
    const DropReason reason = admit_one(burst, i, worker, direction, answer[i], opened);
    burst.drop(i, reason);
    burst.refused |= std::uint64_t{is_rejection(reason)} << i;
  });
  if (worker.connections.recycled() == recycled) return;
  // An entry that a packet of this burst has found may have made room for another one since.
  for_each_bit(burst.filtered, [&](std::uint32_t i) {
    if (burst.connection[i] != nullptr && !ConnectionTable::is_of(*burst.connection[i], burst.key[i])) burst.connection[i] = nullptr;
  });
}

}  // namespace detail

// `asked`: the endpoints' previous owners have been asked about these packets.
inline void admit(Burst& burst, WorkerState& worker, Direction direction, bool asked = false) {
  const std::uint64_t rest = burst.filtered & ~burst.steady;
  if (rest != 0) detail::admit_rest(burst, rest, worker, direction, asked);
}

}  // namespace trunkline
