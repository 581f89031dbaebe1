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

bool has(const ModelPacket& packet, unsigned flag) {
  const bool header = packet.protocol == 6 && (!packet.fragment || packet.fragment->offset == 0);
  return header && (packet.tcp_flags & flag) != 0;
}
constexpr unsigned kFin = 1, kSyn = 2, kRst = 4, kAck = 16;

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
    case State::opening: idle = 30; break;
    case State::established: idle = timeouts.tcp_established_timeout; break;
    case State::closing: case State::closed: idle = 120; break;
    case State::reset: idle = 10; break;
    case State::udp: idle = connection.turns >= 3 ? timeouts.udp_stream_timeout : timeouts.udp_timeout; break;
    case State::icmp: idle = 30; break;
    case State::other: idle = 600; break;
  }
  return tick() - connection.last_seen < idle * 10;
}

void PipelineModel::advance(Connection& connection, const ModelPacket& packet, Direction direction) const {
  connection.last_seen = tick();
  if (connection.state == State::udp) {
    // Request, reply, request, reply: the third change of the speaker makes it a stream.
    if (std::exchange(connection.last_speaker, direction) != direction) ++connection.turns;
    return;
  }
  if (packet.protocol != 6) return;
  if (connection.state == State::reset) return;
  if (has(packet, kRst)) {
    connection.state = State::reset;
  } else if (has(packet, kFin)) {
    connection.fin[index(direction)] = true;
    connection.state = connection.fin[0] && connection.fin[1] ? State::closed : State::closing;
  } else if (connection.state == State::opening && direction != connection.initiator) {
    connection.state = State::established;
  }
}

// What the rules, as they are now, say of a connection: of a tracked one nothing, unless its ENI wants to know.
void PipelineModel::judge(const Task& task, Connection& connection, const ConnectionName& name) const {
  const auto& [remote, local, protocol, first, second, asked_by_remote] = name;
  const auto query = [&](Direction direction) {
    FlowQuery result;
    result.remote = remote;
    result.protocol = static_cast<std::uint8_t>(protocol);
    if (connection.state == State::icmp) {
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
  if (!engine_.icmp_related || !is_error(packet) || !packet.quoted || (packet.fragment && packet.fragment->offset != 0)) return false;
  if (packet.quoted->fragment == false) return false;  // a later one has no ports
  ModelPacket about;
  about.source = packet.quoted->source, about.destination = packet.quoted->destination;
  about.protocol = packet.quoted->protocol;
  about.source_port = packet.quoted->source_port, about.destination_port = packet.quoted->destination_port;
  about.icmp_type = packet.quoted->icmp_type, about.icmp_code = packet.quoted->icmp_code, about.icmp_id = packet.quoted->icmp_id;
  const std::uint32_t wanted = is_icmp(about) ? 8 : about.protocol == 6 || about.protocol == 17 ? 4 : 0;
  if (packet.quoted->transport_bytes < wanted) return false;
  const auto name = name_of(opposite(direction), about);
  const auto found = name ? task.connections.find(*name) : task.connections.end();
  return found != task.connections.end() && is_alive(task, found->second);
}

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
      const bool over = connection.state == State::closing || connection.state == State::closed || connection.state == State::reset ||
                        (connection.untracked && !(connection.allowed[0] && connection.allowed[1]));
      const bool reopens = packet.protocol == 6 && has(packet, kSyn) && !has(packet, kAck) && over;
      if (is_alive(task, connection) && !reopens) {
        if (!connection.allowed[index(direction)]) {
          const bool by_acl = !acl_allows(task, direction, query_of(direction, packet));
          const DropReason reason = refuse(task, by_acl ? refused_by_acl(direction) : DropReason::rule_revoked);
          if (reason != DropReason::none) return reject(reason);
        }
        advance(connection, packet, direction);
        return DropReason::none;
      }
    }
  }
  const DropReason reason = admit_first(task, direction, packet, name.value_or(ConnectionName{}));
  return reason == DropReason::none ? reason : reject(reason);
}

// The first packet of a flow, or one that has none, or one whose connection is dead.
std::size_t PipelineModel::live(const Task& task) {
  return static_cast<std::size_t>(std::ranges::count_if(
      task.connections, [](const auto& each) { return each.second.state != State::closed && each.second.state != State::reset; }));
}

DropReason PipelineModel::admit_first(Task& task, Direction direction, const ModelPacket& packet, const ConnectionName& name) {
  const FlowQuery query = query_of(direction, packet);
  const RuleMatch match = ask_groups(task, direction, query);
  const bool acl = acl_allows(task, direction, query);
  // In the order of its way: the ACL stands at the subnet's edge, the groups at the interface.
  DropReason judgement = DropReason::none;
  if (direction == Direction::ingress) judgement = !acl ? refused_by_acl(direction) : !match.allowed ? refused_by_groups(direction) : judgement;
  if (direction == Direction::egress) judgement = !match.allowed ? refused_by_groups(direction) : !acl ? refused_by_acl(direction) : judgement;
  if (judgement != DropReason::none) {
    if (acl && is_related(task, direction, packet)) return DropReason::none;
    if (const DropReason reason = refuse(task, judgement); reason != DropReason::none) return reason;
  }
  if (is_icmp(packet) && (query_type(packet) < 0 || !is_query(packet))) return DropReason::none;
  if (has(packet, kRst)) return DropReason::none;
  const bool ported = packet.protocol == 6 || packet.protocol == 17;
  const auto untracked_if = [&](Direction asked, const RuleMatch& by) {
    return ported && !task.attachment.always_track && by.from_anywhere && is_open(task, opposite(asked), packet.protocol, query.remote.is_v4());
  };
  const bool untracked = untracked_if(direction, match);
  if (engine_.strict_syn && !untracked && packet.protocol == 6 && !has(packet, kSyn)) {
    if (const DropReason reason = refuse(task, DropReason::connection_closed); reason != DropReason::none) return reason;
  }
  if (!task.connections.contains(name) && live(task) >= engine_.connections_per_endpoint) {
    // Perhaps the answer within an untracked flow, whose first packet had no entry either.
    FlowQuery first = query;
    first.port = ported ? packet.source_port : query.port;
    const RuleMatch other = ask_groups(task, opposite(direction), first);
    return untracked || (other.allowed && untracked_if(opposite(direction), other)) ? DropReason::none : DropReason::conntrack_quota;
  }
  Connection connection;
  connection.initiator = direction;
  connection.last_speaker = direction;
  connection.untracked = untracked;
  connection.audited = judgement != DropReason::none;
  if (packet.protocol == 6) connection.state = has(packet, kSyn) ? State::opening : State::established;
  if (packet.protocol == 17) connection.state = State::udp;
  if (is_icmp(packet)) connection.state = State::icmp;
  judge(task, connection, name);
  advance(connection, packet, direction);
  task.connections[name] = connection;
  return DropReason::none;
}

void PipelineModel::sweep() {
  for (auto& [eni, task] : tasks_) {
    std::erase_if(task.connections, [&](const auto& each) { return !is_alive(task, each.second); });
  }
}

}  // namespace trunkline::oracle
