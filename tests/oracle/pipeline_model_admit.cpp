// SPDX-License-Identifier: BSD-3-Clause
//
// What the model says of rules and connections (contract 1 to 3): the security groups' state, untracked flows, network ACLs without any.
#include <algorithm>

#include "tests/oracle/pipeline_model.h"

namespace trunkline::oracle {
namespace {

bool is_icmp(const ModelPacket& packet) { return packet.protocol == (packet.source.is_v4() ? 1 : 58); }

// Queries and their answers belong together. -1: neither.
int query_type(const ModelPacket& packet) {
  if (!packet.source.is_v4()) return packet.icmp_type == 128 || packet.icmp_type == 129 ? 128 : -1;
  switch (packet.icmp_type) {
    case 0: case 8: return 8;
    case 13: case 14: return 13;
    case 15: case 16: return 15;
    case 17: case 18: return 17;
    default: return -1;
  }
}
bool is_query(const ModelPacket& packet) { return query_type(packet) == packet.icmp_type; }
int answer_of(int query) { return query == 8 ? 0 : query + 1; }

bool is_error(const ModelPacket& packet) {
  if (!is_icmp(packet)) return false;
  return packet.source.is_v4() ? packet.icmp_type == 3 || packet.icmp_type == 11 || packet.icmp_type == 12 : packet.icmp_type >= 1 && packet.icmp_type <= 4;
}

bool has(const ModelPacket& packet, unsigned flag) { return packet.protocol == 6 && (packet.tcp_flags & flag) != 0; }
constexpr unsigned kFin = 1, kSyn = 2, kRst = 4, kAck = 16;
bool is_bare_syn(const ModelPacket& packet) { return has(packet, kSyn) && !has(packet, kAck); }
bool is_syn_ack(const ModelPacket& packet) { return has(packet, kSyn) && has(packet, kAck); }
bool has_payload(const ModelPacket& packet) {
  if (packet.protocol != 6 || (packet.fragment && packet.fragment->offset != 0)) return false;
  if (packet.source.is_v4()) return packet.bytes > 20 + packet.tcp_header_bytes;
  const std::uint32_t extensions = (packet.hop_by_hop ? 8 : 0) + (packet.options ? 8 : 0) + (packet.fragment ? packet.options_behind ? 16 : 8 : 0);
  return packet.bytes > 40 + extensions + packet.tcp_header_bytes;
}

DropReason refused_by_groups(Direction direction) { return direction == Direction::ingress ? DropReason::security_group_ingress : DropReason::security_group_egress; }
DropReason refused_by_acl(Direction direction) { return direction == Direction::ingress ? DropReason::network_acl_ingress : DropReason::network_acl_egress; }

}  // namespace

// --- rules -----------------------------------------------------------------------------------------------------------

FlowQuery PipelineModel::query_of(Direction direction, const ModelPacket& packet) const {
  FlowQuery query;
  query.remote = direction == Direction::ingress ? packet.source : packet.destination;
  query.protocol = packet.protocol;
  if (is_icmp(packet)) query.port = static_cast<std::uint16_t>(packet.icmp_type * 256 + packet.icmp_code);
  if (packet.protocol == 6 || packet.protocol == 17) query.port = packet.destination_port;
  return query;
}

RuleMatch PipelineModel::ask_groups(const Task& task, Direction direction, const FlowQuery& query) const { return match(task.groups, rules_, direction, query); }

bool PipelineModel::is_open(const Task& task, Direction direction, int protocol, bool ipv4) const {
  return open_to_everyone(task.groups, rules_, direction, static_cast<std::uint8_t>(protocol), ipv4);
}

// The entry with the lowest number that matches decides; none: denied. Not asked within the subnet.
bool PipelineModel::acl_allows(const Task& task, Direction direction, const FlowQuery& query) const {
  if (task.acl == nullptr || task.in_subnet(query.remote)) return true;
  std::vector<config::NetworkAclEntry> entries = direction == Direction::ingress ? task.acl->ingress : task.acl->egress;
  std::ranges::stable_sort(entries, {}, &config::NetworkAclEntry::number);
  for (const config::NetworkAclEntry& entry : entries) {
    if (entry.protocol != -1 && entry.protocol != query.protocol) continue;
    if (!entry.range.contains(query.remote)) continue;
    if ((entry.protocol == 6 || entry.protocol == 17) && (query.port < entry.from_port || query.port > entry.to_port)) continue;
    if (entry.protocol == (query.remote.is_v4() ? 1 : 58)) {
      if (entry.from_port != -1 && entry.from_port != query.port / 256) continue;
      if (entry.to_port != -1 && entry.to_port != query.port % 256) continue;
    }
    return entry.allow;
  }
  return false;
}

// --- connections -----------------------------------------------------------------------------------------------------

std::optional<PipelineModel::ConnectionName> PipelineModel::name_of(Direction direction, const ModelPacket& packet) {
  const bool in = direction == Direction::ingress;
  const IpAddress remote = in ? packet.source : packet.destination, local = in ? packet.destination : packet.source;
  if (is_icmp(packet)) {
    const int query = query_type(packet);
    if (query < 0) return std::nullopt;
    // Who asked is part of the name: a question from the other side is another conversation.
    return ConnectionName{remote, local, packet.protocol, packet.icmp_id, query * 256 + packet.icmp_code, is_query(packet) == in};
  }
  if (packet.protocol != 6 && packet.protocol != 17) return ConnectionName{remote, local, packet.protocol, 0, 0, 0};
  return ConnectionName{remote, local, packet.protocol, in ? packet.source_port : packet.destination_port, in ? packet.destination_port : packet.source_port, 0};
}

bool PipelineModel::is_alive(const Task& task, const Connection& connection) const {
  const auto& timeouts = task.attachment.conntrack;
  std::uint64_t idle = 0;
  switch (connection.state) {
    case State::syn_sent: case State::syn_received: case State::picked_up: idle = 30; break;
    case State::open: idle = connection.fin[0] && connection.fin[1] ? 120 : timeouts.tcp_established_timeout; break;
    case State::refused: idle = 10; break;
    case State::reset: idle = timeouts.tcp_established_timeout; break;
    case State::exchange:
      idle = connection.icmp ? 30 : connection.protocol != 17 ? 600 : connection.turns >= 3 ? timeouts.udp_stream_timeout : timeouts.udp_timeout;
      break;
  }
  return tick() - connection.last_seen < idle * 10;
}

// Nobody has answered, or the initiator has not spoken since: such a connection is recycled for another one of its ENI.
bool PipelineModel::is_unconfirmed(const Connection& connection) {
  switch (connection.state) {
    case State::syn_sent: case State::syn_received: case State::picked_up: return true;
    case State::exchange: return connection.turns < 2;
    default: return false;
  }
}
bool PipelineModel::is_over(const Connection& connection) {
  return connection.state == State::refused || connection.state == State::reset ||
         (connection.state == State::open && connection.fin[0] && connection.fin[1]);
}

void PipelineModel::advance(Connection& connection, const ModelPacket& packet, Direction direction) {
  const bool was_unconfirmed = is_unconfirmed(connection);
  connection.last_seen = tick();
  if (connection.state != State::exchange) {
    // A later fragment has its first one's flags, which decide what it may open; that one has moved the connection.
    if (!packet.fragment || packet.fragment->offset == 0) advance_tcp(connection, packet, direction);
  } else if (std::exchange(connection.last_speaker, direction) != direction) {
    ++connection.turns;  // UDP: request, reply, request, reply. The third change of the speaker makes it a stream.
  }
  if (!was_unconfirmed && is_unconfirmed(connection)) connection.order = ++unconfirmed_;
}

void PipelineModel::advance_tcp(Connection& connection, const ModelPacket& packet, Direction direction) {
  const std::size_t self = index(direction), other = 1 - self;
  const bool by_initiator = direction == connection.initiator;
  const bool syn_ack = is_syn_ack(packet), syn = is_bare_syn(packet), rst = has(packet, kRst), fin = has(packet, kFin);
  const auto no_one_heard = [&] { connection.heard[0] = connection.heard[1] = false; };
  if (rst) {
    if (is_over(connection) && connection.state == State::open) return;  // closed: it was over before
    connection.state = connection.state == State::open || connection.state == State::reset ? State::reset : State::refused;
    return no_one_heard();
  }
  const auto open = [&] {
    connection.state = State::open;
    connection.syn[0] = connection.syn[1] = false;
  };
  switch (connection.state) {
    case State::syn_sent:
      if (syn_ack && !by_initiator) connection.state = State::syn_received;
      if (syn || syn_ack) return;
      if (fin) connection.fin[self] = true;
      if (!by_initiator) {
        connection.state = State::picked_up;
        connection.heard[self] = true, connection.heard[other] = false;
      }
      return;
    case State::syn_received:
      if (!syn && fin) connection.fin[self] = true;
      if (by_initiator ? !syn : !syn && !syn_ack && has_payload(packet)) open();
      return;
    case State::picked_up:
      if (syn || syn_ack) return;
      if (fin) connection.fin[self] = true;
      connection.heard[self] = true;
      if (connection.heard[other]) open();
      return;
    case State::open: {
      const bool closed = connection.fin[0] && connection.fin[1];
      if (syn && !closed) connection.syn[self] = true;
      if (syn || syn_ack) return;
      if (connection.syn[0] || connection.syn[1]) {
        // Who should have answered a SYN goes on instead; so does who says FIN.
        if (connection.syn[other] || fin) connection.syn[0] = connection.syn[1] = false;
        if (fin) connection.fin[self] = true;
        return;
      }
      // Payload behind a FIN takes it back.
      if (fin) connection.fin[self] = true;
      else if (has_payload(packet)) connection.fin[self] = false;
      return;
    }
    case State::refused: case State::reset:
      if (syn_ack && !by_initiator && connection.state == State::refused) connection.state = State::syn_received;
      if (syn || syn_ack || fin) return;
      connection.heard[self] = true;
      if (connection.heard[other]) open(), connection.fin[0] = connection.fin[1] = false;
      return;
    case State::exchange: return;
  }
}

// What the rules, as they are now, say of a connection: of a tracked one nothing, unless its ENI wants to know.
void PipelineModel::judge(const Task& task, Connection& connection, const ConnectionName& name) const {
  const auto& [remote, local, protocol, first, second, asked_by_remote] = name;
  const auto query = [&](Direction direction) {
    FlowQuery result;
    result.remote = remote;
    result.protocol = static_cast<std::uint8_t>(protocol);
    if (connection.icmp) {
      const int query = second / 256, code = second % 256;
      result.port = static_cast<std::uint16_t>((direction == connection.initiator ? query : answer_of(query)) * 256 + code);
    } else if (protocol == 6 || protocol == 17) {
      result.port = static_cast<std::uint16_t>(direction == Direction::ingress ? second : first);
    }
    return result;
  };
  for (const Direction direction : {Direction::ingress, Direction::egress}) {
    connection.allowed[index(direction)] = !connection.untracked || ask_groups(task, direction, query(direction)).allowed;
  }
  const bool revalidates = task.attachment.on_change == config::OnChange::revalidate || connection.audited;
  if (!connection.untracked && revalidates && !task.attachment.audit && !ask_groups(task, connection.initiator, query(connection.initiator)).allowed) {
    connection.allowed[0] = connection.allowed[1] = false;
  }
  for (const Direction direction : {Direction::ingress, Direction::egress}) {
    if (!acl_allows(task, direction, query(direction))) connection.allowed[index(direction)] = false;
  }
  connection.version = task.version;
}

DropReason PipelineModel::refuse(Task& task, DropReason reason) {
  if (!task.attachment.audit) return reason;
  count(task.attachment.eni_id + ".audited." + std::string(text(reason).name));
  return DropReason::none;
}

// An ICMP error about a live connection's packet of the other direction.
bool PipelineModel::is_related(const Task& task, Direction direction, const ModelPacket& packet) const {
  if (!engine_.icmp_related) return false;
  const auto name = name_of_quoted(direction, packet);
  const auto found = name ? task.connections.find(*name) : task.connections.end();
  return found != task.connections.end() && is_alive(task, found->second);
}

std::optional<PipelineModel::ConnectionName> PipelineModel::name_of_quoted(Direction direction, const ModelPacket& packet) {
  if (!is_error(packet) || !packet.quoted || (packet.fragment && packet.fragment->offset != 0)) return std::nullopt;
  if (packet.quoted->fragment == false) return std::nullopt;  // a later one has no ports
  ModelPacket about;
  about.source = packet.quoted->source, about.destination = packet.quoted->destination;
  about.protocol = packet.quoted->protocol;
  about.source_port = packet.quoted->source_port, about.destination_port = packet.quoted->destination_port;
  about.icmp_type = packet.quoted->icmp_type, about.icmp_code = packet.quoted->icmp_code, about.icmp_id = packet.quoted->icmp_id;
  const std::uint32_t wanted = is_icmp(about) ? 8 : about.protocol == 6 || about.protocol == 17 ? 4 : 0;
  return packet.quoted->transport_bytes < wanted ? std::nullopt : name_of(opposite(direction), about);
}

// --- services that need no rule --------------------------------------------------------------------------------------

// What the task asks of a service passes and is remembered; not what belongs to a connection that the router opened.
bool PipelineModel::is_exempt_request(Task& task, const ModelPacket& packet, DropReason& refused) {
  const Service service = service_at(task, packet.destination);
  if (!is_of_service(service, packet)) return false;
  const std::optional<ConnectionName> name = name_of(Direction::egress, packet);
  const auto found = name ? task.connections.find(*name) : task.connections.end();
  const bool begins = has(packet, kSyn) && !has(packet, kAck);
  if (service == Service::router && !begins && found != task.connections.end() && is_alive(task, found->second)) return false;
  if (!take(service == Service::router ? task.router : task.services)) {
    refused = DropReason::linklocal_allowance_exceeded;
    return false;
  }
  if (!name || (is_icmp(packet) && !is_query(packet))) return true;
  if (has(packet, kRst)) {
    task.asked.erase(*name);
    return true;
  }
  Asked asked = was_asked(task, name) ? task.asked.at(*name) : Asked{};
  asked.at = tick();
  if (packet.protocol != 6 || has(packet, kSyn)) asked.answered = asked.finished = false;
  if (has(packet, kFin)) asked.finished = true;
  task.asked[*name] = asked;
  return true;
}

// What comes from a service and answers the task, or is the error about what the task sent.
bool PipelineModel::is_exempt_answer(Task& task, const ModelPacket& packet) {
  const Service service = service_at(task, packet.source);
  if (service == Service::none) return false;
  const std::optional<ConnectionName> name = name_of(Direction::ingress, packet);
  if (was_asked(task, name) && !(has(packet, kSyn) && !has(packet, kAck))) {
    task.asked.at(*name).answered = true;
    return true;
  }
  const auto about = name_of_quoted(Direction::ingress, packet);
  if (!about || packet.quoted->source != packet.destination) return false;
  if (was_asked(task, about)) return service == Service::router || packet.quoted->destination == packet.source;
  if (service != Service::router) return false;
  const auto found = task.connections.find(*about);
  if (found == task.connections.end() || !is_alive(task, found->second)) return false;
  const Connection& connection = found->second;
  const bool unanswered = connection.state == State::syn_sent || (connection.state == State::exchange && connection.turns == 0) ||
                          (connection.state == State::picked_up && !connection.heard[index(Direction::egress)]);
  return connection.initiator == Direction::egress || !unanswered;
}

// --- what passes -----------------------------------------------------------------------------------------------------

DropReason PipelineModel::admit(Task& task, Direction direction, const ModelPacket& packet) {
  const auto reject = [&](DropReason reason) {
    if (is_rejection(reason)) log(task, direction, packet, false);
    return reason;
  };
  const std::optional<ConnectionName> name = name_of(direction, packet);
  if (name) {
    if (const auto found = task.connections.find(*name); found != task.connections.end()) {
      Connection& connection = found->second;
      if (connection.version != task.version) judge(task, connection, *name);
      // Each SYN is judged by the rules as they are, and begins anew what was over, or never quite there.
      const bool syn = is_bare_syn(packet) && packet.protocol == 6;
      const bool anew = syn && (is_over(connection) || connection.state == State::picked_up ||
                                (connection.untracked && !(connection.allowed[0] && connection.allowed[1])));
      if (is_alive(task, connection) && syn && !anew) {
        const DropReason judgement = judge_first(task, direction, packet);
        const DropReason reason = judgement == DropReason::none ? judgement : refuse(task, judgement);
        if (reason != DropReason::none) return reject(reason);
        advance(connection, packet, direction);
        return DropReason::none;
      }
      if (is_alive(task, connection) && !syn) {
        if (!connection.allowed[index(direction)]) {
          const bool by_acl = !acl_allows(task, direction, query_of(direction, packet));
          const DropReason reason = refuse(task, by_acl ? refused_by_acl(direction) : DropReason::rule_revoked);
          if (reason != DropReason::none) return reject(reason);
        }
        if (is_syn_ack(packet) && connection.state == State::open && connection.syn[1 - index(direction)] && !is_over(connection)) {
          // Both ends have begun anew.
          ModelPacket first = packet;
          std::swap(first.source, first.destination);
          std::swap(first.source_port, first.destination_port);
          first.tcp_flags = kSyn;
          Connection fresh = begin(task, opposite(direction), first, *name);
          fresh.state = State::syn_received;
          const bool allowed = ask_groups(task, opposite(direction), query_of(opposite(direction), first)).allowed;
          fresh.audited = !allowed && (task.attachment.audit || connection.audited);
          judge(task, fresh, *name);
          connection = fresh;
          return DropReason::none;
        }
        advance(connection, packet, direction);
        return DropReason::none;
      }
    }
  }
  const DropReason reason = admit_first(task, direction, packet, name.value_or(ConnectionName{}));
  return reason == DropReason::none ? reason : reject(reason);
}

std::size_t PipelineModel::live(const Task& task) {
  return static_cast<std::size_t>(std::ranges::count_if(task.connections, [](const auto& each) { return !is_over(each.second); }));
}

// The oldest one that is unconfirmed.
bool PipelineModel::recycle(Task& task) {
  auto oldest = task.connections.end();
  for (auto each = task.connections.begin(); each != task.connections.end(); ++each) {
    if (!is_unconfirmed(each->second)) continue;
    if (oldest == task.connections.end() || each->second.order < oldest->second.order) oldest = each;
  }
  if (oldest == task.connections.end()) return false;
  task.connections.erase(oldest);
  return true;
}

// In the order of its way: the ACL stands at the subnet's edge, the groups at the interface.
DropReason PipelineModel::judge_first(const Task& task, Direction direction, const ModelPacket& packet) const {
  const FlowQuery query = query_of(direction, packet);
  const bool groups = ask_groups(task, direction, query).allowed, acl = acl_allows(task, direction, query);
  if (direction == Direction::ingress) return !acl ? refused_by_acl(direction) : !groups ? refused_by_groups(direction) : DropReason::none;
  return !groups ? refused_by_groups(direction) : !acl ? refused_by_acl(direction) : DropReason::none;
}

PipelineModel::Connection PipelineModel::begin(const Task& task, Direction direction, const ModelPacket& packet, const ConnectionName& name) {
  const FlowQuery query = query_of(direction, packet);
  const bool ported = packet.protocol == 6 || packet.protocol == 17;
  Connection connection;
  connection.protocol = packet.protocol;
  connection.initiator = connection.last_speaker = direction;
  const RuleMatch match = ask_groups(task, direction, query);
  connection.untracked = ported && !task.attachment.always_track && match.from_anywhere && is_open(task, opposite(direction), packet.protocol, query.remote.is_v4());
  connection.icmp = is_icmp(packet);
  if (packet.protocol == 6) {
    connection.state = has(packet, kSyn) ? State::syn_sent : State::picked_up;
    connection.heard[index(direction)] = true;
    connection.fin[index(direction)] = has(packet, kFin);
  }
  connection.last_seen = tick();
  connection.order = ++unconfirmed_;
  judge(task, connection, name);
  return connection;
}

// The first packet of a flow, or one that has none, or one whose connection is dead.
DropReason PipelineModel::admit_first(Task& task, Direction direction, const ModelPacket& packet, const ConnectionName& name) {
  const FlowQuery query = query_of(direction, packet);
  const RuleMatch match = ask_groups(task, direction, query);
  const DropReason judgement = judge_first(task, direction, packet);
  if (judgement != DropReason::none) {
    if (acl_allows(task, direction, query) && is_related(task, direction, packet)) return DropReason::none;
    if (const DropReason reason = refuse(task, judgement); reason != DropReason::none) return reason;
  }
  if (is_icmp(packet) && (query_type(packet) < 0 || !is_query(packet))) return DropReason::none;
  if (has(packet, kRst)) return DropReason::none;
  const bool ported = packet.protocol == 6 || packet.protocol == 17;
  const auto untracked_if = [&](Direction asked, const RuleMatch& by) {
    return ported && !task.attachment.always_track && by.from_anywhere && is_open(task, opposite(asked), packet.protocol, query.remote.is_v4());
  };
  const bool untracked = untracked_if(direction, match);
  // Perhaps the answer within an untracked flow, whose first packet had no entry either.
  const auto answers_untracked = [&] {
    FlowQuery first = query;
    first.port = ported ? packet.source_port : query.port;
    const RuleMatch other = ask_groups(task, opposite(direction), first);
    return other.allowed && untracked_if(opposite(direction), other);
  };
  if (is_syn_ack(packet)) return untracked || answers_untracked() ? DropReason::none : refuse(task, DropReason::connection_closed);
  if (engine_.strict_syn && !untracked && packet.protocol == 6 && !is_bare_syn(packet)) {
    if (const DropReason reason = refuse(task, DropReason::connection_closed); reason != DropReason::none) return reason;
  }
  if (!task.connections.contains(name) && live(task) >= engine_.connections_per_endpoint && !recycle(task)) {
    return untracked || answers_untracked() ? DropReason::none : DropReason::conntrack_quota;
  }
  Connection connection = begin(task, direction, packet, name);
  connection.audited = judgement != DropReason::none;
  judge(task, connection, name);
  task.connections[name] = connection;
  return DropReason::none;
}

void PipelineModel::sweep() {
  for (auto& [eni, task] : tasks_) {
    std::erase_if(task.connections, [&](const auto& each) { return !is_alive(task, each.second); });
  }
}

}  // namespace trunkline::oracle
