// SPDX-License-Identifier: BSD-3-Clause
//
// A packet's way in the model: whose it is, what of it is fragments, what its ENI may use, where it goes. What the rules and
// connections say is in pipeline_model_admit.cpp.
#include "tests/oracle/pipeline_model.h"

#include <algorithm>

namespace trunkline::oracle {
namespace {

std::string reason(DropReason why) { return std::string(text(why).name); }

bool is_multicast(const IpAddress& address) {
  if (address.is_v4()) return (address.v4() >> 28) == 14 || address.v4() == 0xffffffff;
  return address.bytes[0] == 0xff;
}

// A source that no host has.
bool is_martian(const IpAddress& address) {
  if (address.is_v4()) {
    const std::uint32_t first = address.v4() >> 24;
    return first == 0 || first == 127 || first >= 224;
  }
  IpAddress loopback;
  loopback.bytes[15] = 1;
  return address.bytes[0] == 0xff || address == IpAddress{} || address == loopback;
}

bool is_bad_tcp(const ModelPacket& packet) {
  if (packet.protocol != 6 || (packet.fragment && packet.fragment->offset != 0)) return false;
  // What there is without PSH, ECE and CWR, as Linux lists it.
  enum : unsigned { fin = 1, syn = 2, rst = 4, ack = 16, urg = 32 };
  static const std::set<unsigned> kGood{syn, syn | urg, syn | ack, rst, rst | ack, fin | ack, fin | ack | urg, ack, ack | urg};
  return !kGood.contains(packet.tcp_flags & (fin | syn | rst | ack | urg));
}

IpAddress address(const char* written) { return IpAddress::parse(written).value(); }
IpPrefix prefix(const char* written) { return IpPrefix::parse(written).value(); }

}  // namespace

bool PipelineModel::Task::owns(const IpAddress& wanted) const { return std::ranges::find(attachment.addresses, wanted) != attachment.addresses.end(); }

bool PipelineModel::Task::in_subnet(const IpAddress& wanted) const {
  if (wanted.is_v4()) return subnet.cidr && subnet.cidr->contains(wanted);
  return subnet.ipv6_cidr && subnet.ipv6_cidr->contains(wanted);
}

void PipelineModel::count(const std::string& name, std::int64_t by) {
  counters_[name] += by;
  if (counters_[name] == 0) counters_.erase(name);
}

// --- the world -------------------------------------------------------------------------------------------------------

void PipelineModel::apply(const config::DesiredState& state, const std::map<std::string, std::uint32_t>& versions) {
  state_ = state;
  rules_ = {};
  for (const auto& [id, list] : state_.prefix_lists) rules_.prefix_lists[id] = list;
  for (const auto& [id, members] : state_.remote_members) {
    for (const IpAddress& member : members) rules_.members[id].insert(member);
  }
  std::map<std::string, Task> next;
  for (const auto& [eni, attachment] : state_.attachments) {
    const auto known = tasks_.find(eni);
    const bool same = known != tasks_.end() && known->second.attachment.mac == attachment.mac && known->second.attachment.addresses == attachment.addresses &&
                      known->second.attachment.subnet_id == attachment.subnet_id;
    Task task = same ? std::move(known->second) : Task{};
    task.attachment = attachment;
    task.subnet = state_.subnets.at(attachment.subnet_id);
    task.version = versions.at(eni);
    task.groups.clear();
    for (const std::string& id : attachment.group_ids) {
      task.groups.push_back(state_.security_groups.get(id));
      for (const IpAddress& own : attachment.addresses) rules_.members[id].insert(own);
    }
    task.acl = nullptr;
    for (const auto& [id, acl] : state_.network_acls) {
      if (std::ranges::find(acl.subnet_ids, attachment.subnet_id) != acl.subnet_ids.end()) task.acl = &acl;
    }
    next[eni] = std::move(task);
  }
  tasks_ = std::move(next);
}

PipelineModel::Task* PipelineModel::owner_of(const IpAddress& wanted) {
  for (auto& [eni, task] : tasks_) {
    if (task.owns(wanted)) return &task;
  }
  return nullptr;
}

PipelineModel::Task* PipelineModel::receiver_of(const ModelPacket& packet) {
  for (auto& [eni, task] : tasks_) {
    if (packet.vlan >= 1 && task.attachment.vlan->value == packet.vlan) return &task;
  }
  return nullptr;
}

// --- the ways --------------------------------------------------------------------------------------------------------

std::vector<ModelOutput> PipelineModel::packet(const ModelPacket& packet) {
  std::vector<ModelOutput> out;
  packet.task.empty() ? from_trunk(packet, out) : from_task(packet, out);
  return out;
}

void PipelineModel::from_trunk(const ModelPacket& packet, std::vector<ModelOutput>& out) {
  count("trunk.in.rx");
  Task* task = receiver_of(packet);
  if (task == nullptr) return count("trunk.in." + reason(is_bad_tcp(packet) && !packet.is_arp ? DropReason::tcp_flags : DropReason::unknown_eni));
  count("trunk.in.tx");
  const std::string name = task->attachment.eni_id + ".ingress.";
  count(name + "rx");
  const auto drop = [&](DropReason why) { count(name + reason(why)); };
  const bool for_its_mac = packet.to == *task->attachment.mac;
  if (packet.is_arp) {
    const bool to_all = packet.to.bytes == std::array<std::uint8_t, 6>{0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
    if (!for_its_mac && !to_all) return drop(packet.to.is_multicast() ? DropReason::multicast : DropReason::wrong_mac);
    if (!task->owns(packet.destination)) return drop(DropReason::dest_check);
    if (const DropReason why = take_allowance(*task, Direction::ingress, packet); why != DropReason::none) return drop(why);
    count(name + "tx");
    return out.push_back({task->attachment.eni_id, packet.number});
  }
  if (is_bad_tcp(packet)) return drop(DropReason::tcp_flags);
  if (!for_its_mac) return drop(packet.to.is_multicast() ? DropReason::multicast : DropReason::wrong_mac);
  if (is_martian(packet.source)) return drop(DropReason::martian);
  if (is_multicast(packet.destination)) return drop(DropReason::multicast);
  if (task->attachment.source_dest_check && !task->owns(packet.destination)) return drop(DropReason::dest_check);
  if (const DropReason why = check_service(*task, service_at(*task, packet.source)); why != DropReason::none) return drop(why);
  ingress(*task, packet, out, false);
}

DropReason PipelineModel::check_from_task(const Task& task, const ModelPacket& packet) const {
  if (is_bad_tcp(packet) && !packet.is_arp) return DropReason::tcp_flags;
  if (packet.vlan >= 0) return DropReason::unexpected_vlan;
  if (packet.from != *task.attachment.mac) return DropReason::spoof_mac;
  if (packet.is_arp) return DropReason::none;
  if (is_multicast(packet.destination) || packet.to.is_multicast()) return DropReason::multicast;
  if (task.attachment.source_dest_check && !task.owns(packet.source)) return DropReason::spoof_ip;
  if (is_martian(packet.source)) return DropReason::martian;
  return may_be_source(task, packet.source) ? DropReason::none : DropReason::spoof_ip;
}

// The VPC believes no claim of a task about addresses; it answers for whoever is here, and asks the fabric about the others.
DropReason PipelineModel::arp_from_task(Task& task, const ModelPacket& packet, std::vector<ModelOutput>& out) {
  const std::string& name = task.attachment.eni_id;
  if (!take(task.edge)) return DropReason::linklocal_allowance_exceeded;
  if (packet.arp_mac != *task.attachment.mac) return DropReason::arp_spoof;
  if (!packet.source.is_zero() && !task.owns(packet.source)) return DropReason::arp_spoof;
  if (packet.source == packet.destination) return DropReason::arp_gratuitous;
  if (task.owns(packet.destination)) return DropReason::arp_own_address;
  if (const DropReason why = take_allowance(task, Direction::egress, packet); why != DropReason::none) return why;
  count(name + ".egress.tx");
  if (owner_of(packet.destination) != nullptr && task.in_subnet(packet.destination)) {
    count(name + ".ingress.rx"), count(name + ".ingress.tx");
    out.push_back({name, packet.number});
  } else {
    count("trunk.out.rx"), count("trunk.out.tx");
    out.push_back({"trunk", packet.number});
  }
  return DropReason::none;
}

void PipelineModel::from_task(const ModelPacket& packet, std::vector<ModelOutput>& out) {
  Task& task = tasks_.at(packet.task);
  const std::string name = packet.task + ".egress.";
  count(name + "rx");
  DropReason why = check_from_task(task, packet);
  if (why == DropReason::none && packet.is_arp) {
    why = arp_from_task(task, packet, out);
    if (why == DropReason::none) return;
  }
  if (why == DropReason::none) why = check_service(task, service_at(task, packet.destination));
  if (why != DropReason::none) return count(name + reason(why));
  egress(task, packet, out);
}

// From here on the packet is known to be the task's, and has been counted as received.
void PipelineModel::ingress(Task& task, const ModelPacket& packet, std::vector<ModelOutput>& out, bool from_neighbour) {
  const std::string name = task.attachment.eni_id + ".ingress.";
  DropReason why = DropReason::none;
  const std::vector<ModelPacket> pieces = fragments(task, Direction::ingress, packet, why);
  if (why != DropReason::none) return count(name + reason(why));
  for (const ModelPacket& piece : pieces) {
    const bool exempt = !from_neighbour && is_exempt_answer(task, piece);
    why = exempt ? DropReason::none : admit(task, Direction::ingress, piece);
    settle(task, Direction::ingress, piece, why == DropReason::none);
    if (why == DropReason::none) why = take_allowance(task, Direction::ingress, piece);
    if (why != DropReason::none) {
      count(name + reason(why));
    } else if (const ModelPacket sent = deliver(task, piece, out); sent.pieces != 0 && !exempt) {
      log(task, Direction::ingress, sent, true);
    }
  }
}

void PipelineModel::egress(Task& task, const ModelPacket& packet, std::vector<ModelOutput>& out) {
  const std::string name = task.attachment.eni_id + ".egress.";
  DropReason why = DropReason::none;
  const std::vector<ModelPacket> pieces = fragments(task, Direction::egress, packet, why);
  if (why != DropReason::none) return count(name + reason(why));
  for (const ModelPacket& piece : pieces) {
    why = DropReason::none;
    const bool exempt = is_exempt_request(task, piece, why);
    if (why == DropReason::none && !exempt) why = admit(task, Direction::egress, piece);
    settle(task, Direction::egress, piece, why == DropReason::none);
    if (why == DropReason::none) why = take_allowance(task, Direction::egress, piece);
    if (why != DropReason::none) {
      count(name + reason(why));
    } else if (const ModelPacket sent = send(task, piece, out); sent.pieces != 0 && !exempt) {
      log(task, Direction::egress, sent, true);
    }
  }
}

// What the packet becomes on a way of this MTU: itself, or that many fragments, of which the last may have a few octets more than a
// multiple of eight. No pieces: it does not fit and may not be cut.
ModelPacket PipelineModel::cut_to(const ModelPacket& packet, std::uint32_t mtu) {
  ModelPacket result = packet;
  result.pieces = 1;
  if (packet.bytes <= mtu) return result;
  if (!packet.source.is_v4() || packet.dont_fragment) return result.pieces = 0, result;
  std::uint32_t left = packet.bytes - 20;
  for (result.pieces = 1; left + 20 > mtu; ++result.pieces) left -= (mtu - 20) / 8 * 8;
  result.bytes += 20 * (result.pieces - 1);
  return result;
}

// The router tells the sender, if the sender asked to be told, but says nothing about errors; and not more than 100 times a tick for
// an ENI.
bool PipelineModel::may_report_too_big(Task& task, const ModelPacket& packet) {
  const bool ipv4 = packet.source.is_v4();
  if (ipv4 && (!packet.dont_fragment || packet.fragment)) return false;
  const bool question_or_answer = packet.icmp_type == 0 || packet.icmp_type == 8 || (packet.icmp_type >= 13 && packet.icmp_type <= 18);
  if (ipv4 && packet.protocol == 1 && !question_or_answer) return false;
  if (!ipv4 && packet.protocol == 58 && packet.icmp_type < 128) return false;
  if (std::exchange(task.errors_tick, tick()) != tick()) task.errors = 0;
  return ++task.errors <= 100;
}

ModelPacket PipelineModel::deliver(Task& task, const ModelPacket& packet, std::vector<ModelOutput>& out) {
  const std::string& name = task.attachment.eni_id;
  const ModelPacket sent = cut_to(packet, task.attachment.port ? task.attachment.port->mtu : 9001U);
  if (sent.pieces != 0) {
    count(name + ".ingress.tx", sent.pieces);
    out.push_back({name, packet.number, false, sent.pieces});
    return sent;
  }
  count(name + ".ingress.mtu_exceeded");
  if (!may_report_too_big(task, packet)) return sent;
  if (const Task* sender = owner_of(packet.source); sender != nullptr) {
    count(sender->attachment.eni_id + ".ingress.rx"), count(sender->attachment.eni_id + ".ingress.tx");
    out.push_back({sender->attachment.eni_id, packet.number, true});
  } else {
    count("trunk.out.rx"), count("trunk.out.tx");
    out.push_back({"trunk", packet.number, true});
  }
  return sent;
}

ModelPacket PipelineModel::send(Task& task, const ModelPacket& packet, std::vector<ModelOutput>& out) {
  const std::string& name = task.attachment.eni_id;
  // A service's address is no task's.
  Task* peer = service_at(task, packet.destination) == Service::none ? owner_of(packet.destination) : nullptr;
  if (peer != nullptr) {
    count(name + ".egress.tx"), count(peer->attachment.eni_id + ".ingress.rx");
    ingress(*peer, packet, out, true);
    ModelPacket sent = packet;
    sent.pieces = 1;
    return sent;
  }
  const ModelPacket sent = cut_to(packet, engine_.trunk_mtu);
  if (sent.pieces == 0) {
    count(name + ".egress.mtu_exceeded");
    if (!may_report_too_big(task, packet)) return sent;
    count(name + ".ingress.rx"), count(name + ".ingress.tx");
    out.push_back({name, packet.number, true});
    return sent;
  }
  count(name + ".egress.tx", sent.pieces), count("trunk.out.rx", sent.pieces), count("trunk.out.tx", sent.pieces);
  out.push_back({"trunk", packet.number, false, sent.pieces});
  return sent;
}

// --- services that need no rule (contract 3.5) -----------------------------------------------------------------------

PipelineModel::Service PipelineModel::service_at(const Task& task, const IpAddress& remote) const {
  const IpAddress by_mac = address("fe80::800:ff:fe00:1");  // the router's MAC is 0a:00:00:00:00:01
  if (remote == task.subnet.router() || remote == address("fe80:ec2::1") || remote == by_mac || (task.subnet.ipv6_cidr && remote == *task.subnet.router6())) return Service::router;
  if (remote == task.subnet.resolver() || remote == address("169.254.169.253") || remote == address("fd00:ec2::253")) return Service::resolver;
  if (remote == address("169.254.169.123") || remote == address("fd00:ec2::123")) return Service::time;
  if (remote == address("169.254.169.254") || remote == address("fd00:ec2::254")) return Service::metadata;
  if (remote == address("169.254.169.250") || remote == address("169.254.169.251")) return Service::licence;
  if (remote == address("169.254.170.2")) return Service::task_metadata;
  if (prefix("169.254.0.0/16").contains(remote) || prefix("fd00:ec2::/32").contains(remote)) return Service::nobody;
  return Service::none;
}

// No task speaks as a service, its own or that of another subnet here; an address of its own is its own all the same, if it is not its own services'.
bool PipelineModel::may_be_source(const Task& task, const IpAddress& source) const {
  if (service_at(task, source) != Service::none) return false;
  if (task.owns(source)) return true;
  for (const auto& [eni, other] : tasks_) {
    if (source == other.subnet.router() || source == other.subnet.resolver() || (other.subnet.ipv6_cidr && source == *other.subnet.router6())) return false;
  }
  return true;
}

DropReason PipelineModel::check_service(const Task& task, Service service) {
  if (service == Service::nobody) return DropReason::link_local;
  return service == Service::metadata && task.attachment.block_imds ? DropReason::imds_blocked : DropReason::none;
}

// What a service is asked without a rule.
bool PipelineModel::is_of_service(Service service, const ModelPacket& packet) {
  const bool tcp = packet.protocol == 6, udp = packet.protocol == 17;
  const int port = packet.destination_port;
  if (service == Service::router) return true;
  if (service == Service::resolver) return (tcp || udp) && port == 53;
  if (service == Service::time) return udp && port == 123;
  if (service == Service::metadata || service == Service::task_metadata) return tcp && port == 80;
  return service == Service::licence && tcp && port == 1688;
}

bool PipelineModel::take(PerSecond& allowance) const {
  if (std::exchange(allowance.second, micros_ / 1000000) != micros_ / 1000000) allowance.taken = 0;
  return ++allowance.taken <= 1024;
}

bool PipelineModel::was_asked(const Task& task, const std::optional<ConnectionName>& name) const {
  const auto found = name ? task.asked.find(*name) : task.asked.end();
  if (found == task.asked.end()) return false;
  const bool long_lived = found->second.answered && !found->second.finished && std::get<2>(*name) == 6;
  return tick() - found->second.at < (long_lived ? 3500U : 300U);
}

// --- fragments -------------------------------------------------------------------------------------------------------

std::vector<ModelPacket> PipelineModel::fragments(Task& task, Direction direction, const ModelPacket& packet, DropReason& refused) {
  if (!packet.fragment) return {packet};
  const std::string held = task.attachment.eni_id + '.' + std::string(to_string(direction)) + ".held";
  const std::string side = task.attachment.eni_id + '.' + std::string(to_string(direction)) + '.';
  const auto refuse = [&](DropReason why) {
    refused = why;
    return std::vector<ModelPacket>{};
  };
  const auto give_up = [&](Datagram& datagram, DropReason why) {
    const auto waiting = static_cast<std::int64_t>(datagram.held.size());
    if (waiting != 0) count(held, -waiting), count(side + reason(why), waiting);
    datagram.held.clear();
  };
  const std::uint32_t begin = packet.fragment->offset, end = begin + packet.fragment->length;
  const bool last = !packet.fragment->more;
  if (end > 65535 || (!last && packet.fragment->length % 8 != 0) || packet.fragment->length == 0) return refuse(DropReason::malformed);
  if (packet.protocol == 6 && begin == 8 && !packet.options_behind) return refuse(DropReason::fragment_tiny);
  // IPv6 tells datagrams apart without the protocol, which the first fragment alone knows.
  const int protocol = packet.source.is_v4() ? packet.protocol : 0;
  const DatagramName name{direction, packet.source, packet.destination, protocol, packet.fragment->identification};
  const bool is_first = begin == 0;
  if (!task.datagrams.contains(name)) {
    push_out(task, false);
    Datagram fresh;
    fresh.began = tick();
    fresh.order = ++datagrams_;
    task.datagrams[name] = fresh;
  }
  Datagram& datagram = task.datagrams[name];
  const auto overlaps = [&] {
    datagram.overlapped = true;
    datagram.began = tick();
    give_up(datagram, DropReason::fragment_overlap);
    return refuse(DropReason::fragment_overlap);
  };
  const auto with_ports = [&](ModelPacket piece) {
    piece.protocol = datagram.protocol;
    piece.source_port = datagram.source_port, piece.destination_port = datagram.destination_port;
    piece.icmp_type = datagram.icmp_type, piece.icmp_code = datagram.icmp_code, piece.icmp_id = datagram.icmp_id;
    piece.tcp_flags = datagram.tcp_flags;
    return piece;
  };
  const auto forget_if_whole = [&] {
    std::uint32_t octets = 0, total = 0;
    for (const Piece& piece : datagram.pieces) {
      if (piece.old) continue;
      octets += piece.end - piece.begin;
      if (piece.last) total = piece.end;
    }
    if (datagram.first_came && total != 0 && octets == total) task.datagrams.erase(name);
  };
  const auto contradicts = [&](const Piece& piece) {
    return (begin < piece.end && piece.begin < end) || (piece.last && (last || end > piece.end)) || (last && piece.end > end);
  };
  if (is_first) {
    const bool same = datagram.source_port == packet.source_port &&
                      datagram.destination_port == packet.destination_port && datagram.icmp_type == packet.icmp_type &&
                      datagram.icmp_code == packet.icmp_code && datagram.icmp_id == packet.icmp_id &&
                      datagram.protocol == packet.protocol && datagram.tcp_flags == packet.tcp_flags &&
                      datagram.first_end == end;
    if (datagram.overlapped && tick() - datagram.began < 10) return refuse(DropReason::fragment_overlap);
    if (datagram.first_came && !datagram.overlapped && same) {
      for (Piece& piece : datagram.pieces) piece.old = piece.begin != 0;
      datagram.began = tick(), datagram.order = ++datagrams_;
      return {packet};
    }
    if (datagram.first_came || datagram.overlapped) {
      datagram.pieces.clear();
      datagram.began = tick(), datagram.order = ++datagrams_;
    } else if (std::ranges::any_of(datagram.pieces, contradicts)) {
      return overlaps();
    }
    datagram.overlapped = false;
    datagram.first_came = true;
    datagram.protocol = packet.protocol;
    datagram.first_end = end;
    datagram.source_port = packet.source_port, datagram.destination_port = packet.destination_port;
    datagram.icmp_type = packet.icmp_type, datagram.icmp_code = packet.icmp_code, datagram.icmp_id = packet.icmp_id;
    datagram.tcp_flags = packet.tcp_flags;
    datagram.pieces.push_back({begin, end, last, false});
    std::vector<ModelPacket> result{packet};
    for (const ModelPacket& each : datagram.held) result.push_back(with_ports(each));
    if (!datagram.held.empty()) count(held, -static_cast<std::int64_t>(datagram.held.size()));
    datagram.held.clear();
    forget_if_whole();
    return result;
  }
  if (datagram.overlapped) return refuse(DropReason::fragment_overlap);
  const auto copy = std::ranges::find_if(datagram.pieces, [&](const Piece& piece) { return piece.begin == begin && piece.end == end && piece.last == last; });
  if (copy != datagram.pieces.end()) {
    if (!datagram.first_came) return refuse(DropReason::fragment_orphan);
    copy->old = false;
  } else {
    if (std::ranges::any_of(datagram.pieces, [&](const Piece& piece) { return !piece.old && contradicts(piece); })) return overlaps();
    if (std::ranges::any_of(datagram.pieces, contradicts)) std::erase_if(datagram.pieces, [](const Piece& piece) { return piece.old; });
    if (!datagram.first_came && datagram.held.size() == 4) return refuse(DropReason::fragment_orphan);
    datagram.pieces.push_back({begin, end, last, false});
  }
  if (!datagram.first_came) {
    datagram.held.push_back(packet);
    count(held);
    return {};
  }
  const ModelPacket result = with_ports(packet);
  forget_if_whole();
  return {result};
}

// Of 64 in the share the oldest goes.
void PipelineModel::push_out(Task& task, bool passed) {
  const auto in_share = [passed](const auto& each) { return each.second.passed == passed; };
  if (std::ranges::count_if(task.datagrams, in_share) < 64) return;
  auto oldest = std::ranges::find_if(task.datagrams, in_share);
  for (auto each = oldest; each != task.datagrams.end(); ++each) {
    if (in_share(*each) && each->second.order < oldest->second.order) oldest = each;
  }
  const std::string side = task.attachment.eni_id + '.' + std::string(to_string(std::get<Direction>(oldest->first))) + '.';
  const auto waiting = static_cast<std::int64_t>(oldest->second.held.size());
  if (waiting != 0) count(side + "held", -waiting), count(side + "fragment_quota", waiting);
  task.datagrams.erase(oldest);
}

// What the rules said of a first fragment.
void PipelineModel::settle(Task& task, Direction direction, const ModelPacket& packet, bool passed) {
  if (!packet.fragment || packet.fragment->offset != 0) return;
  const int protocol = packet.source.is_v4() ? packet.protocol : 0;
  const DatagramName name{direction, packet.source, packet.destination, protocol, packet.fragment->identification};
  const auto found = task.datagrams.find(name);
  if (found == task.datagrams.end() || found->second.passed == passed || found->second.overlapped) return;
  Datagram moved = found->second;
  task.datagrams.erase(found);
  push_out(task, passed);
  moved.passed = passed;
  moved.order = ++datagrams_;
  task.datagrams[name] = moved;
}

void PipelineModel::sweep_fragments() {
  for (auto& [eni, task] : tasks_) {
    std::erase_if(task.datagrams, [&](const auto& each) {
      const Datagram& datagram = each.second;
      const std::uint64_t age = tick() - datagram.began;
      const bool waits = !datagram.first_came && !datagram.overlapped;
      const bool refused = datagram.first_came && !datagram.overlapped && !datagram.passed;
      const bool ipv4 = std::get<1>(each.first).is_v4();
      const std::string side = eni + '.' + std::string(to_string(std::get<Direction>(each.first))) + '.';
      const auto waiting = static_cast<std::int64_t>(datagram.held.size());
      if (waits && age >= 2 && waiting != 0) count(side + "held", -waiting), count(side + "fragment_orphan", waiting);
      return age >= (waits ? 2U : refused ? 20U : ipv4 ? 300U : 600U);
    });
  }
}

// --- what an ENI may use ---------------------------------------------------------------------------------------------

// A bucket holds a twentieth of a second's worth, and at least two of the largest packets; it fills with time.
DropReason PipelineModel::take_allowance(Task& task, Direction direction, const ModelPacket& packet) {
  const auto take = [&](Bucket& bucket, std::uint64_t cost, std::uint64_t rate, std::uint64_t least) {
    const auto depth = static_cast<unsigned __int128>(std::max(rate / 20, least)) * 1000000;
    bucket.tokens = bucket.started ? std::min(depth, bucket.tokens + static_cast<unsigned __int128>(micros_ - bucket.at) * rate) : depth;
    bucket.started = true;
    bucket.at = micros_;
    if (bucket.tokens < static_cast<unsigned __int128>(cost) * 1000000) return false;
    bucket.tokens -= static_cast<unsigned __int128>(cost) * 1000000;
    return true;
  };
  const std::size_t way = index(direction);
  const config::RateLimits& limits = task.attachment.limits;
  const std::uint64_t packets = way == 0 ? limits.ingress_packets : limits.egress_packets;
  const std::uint64_t octets = ((way == 0 ? limits.ingress_bits : limits.egress_bits) + 7) / 8;
  if (packets != 0 && !take(task.packets[way], 1, packets, 2)) return DropReason::pps_allowance_exceeded;
  if (octets == 0 || take(task.octets[way], packet.is_arp ? 28 : packet.bytes, octets, 18002)) return DropReason::none;
  if (packets != 0) task.packets[way].tokens += 1000000;
  return way == 0 ? DropReason::bw_in_allowance_exceeded : DropReason::bw_out_allowance_exceeded;
}

// --- the flow log ----------------------------------------------------------------------------------------------------

void PipelineModel::log(const Task& task, Direction direction, const ModelPacket& packet, bool accepted) {
  const bool in = direction == Direction::ingress, ports = packet.protocol == 6 || packet.protocol == 17;
  const IpAddress& remote = in ? packet.source : packet.destination;
  const IpAddress& local = in ? packet.destination : packet.source;
  const std::uint16_t remote_port = ports ? (in ? packet.source_port : packet.destination_port) : std::uint16_t{0};
  const std::uint16_t local_port = ports ? (in ? packet.destination_port : packet.source_port) : std::uint16_t{0};
  FlowSum& sum = flows_[{task.attachment.eni_id, remote, local, remote_port, local_port, packet.protocol, direction, accepted}];
  sum.packets += std::max<std::uint32_t>(1, packet.pieces);
  sum.bytes += packet.bytes;
  if (packet.protocol != 6) return;
  sum.tcp_flags |= packet.tcp_flags & 7U;
  if ((packet.tcp_flags & 2) && (packet.tcp_flags & 16)) sum.tcp_flags |= 18;
}

}  // namespace trunkline::oracle
