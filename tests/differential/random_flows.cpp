// SPDX-License-Identifier: BSD-3-Clause
#include "tests/differential/random_flows.h"

#include <algorithm>
#include <tuple>

namespace trunkline::differential {
namespace {

using test::ip;

constexpr std::size_t kFlows = 160;
constexpr int kTasks = 3, kGroups = 4;

std::string group_name(std::uint32_t number) { return "sg-" + std::to_string(number); }

}  // namespace

std::size_t RandomFlows::choose(std::initializer_list<std::uint32_t> weights) {
  std::uint32_t sum = 0;
  for (const std::uint32_t weight : weights) sum += weight;
  std::uint32_t at = below(sum);
  std::size_t place = 0;
  for (const std::uint32_t weight : weights) {
    if (at < weight) return place;
    at -= weight;
    ++place;
  }
  return 0;
}

RandomFlows::RandomFlows(std::uint64_t seed) : random_(seed) {
  options_.strict_syn = one_in(4);
  options_.icmp_related = one_in(2);
  config::Subnet subnet;
  subnet.id = "subnet-a";
  subnet.cidr = *IpPrefix::parse("10.0.0.0/24");
  subnet.ipv6_cidr = IpPrefix::parse("2001:db8:0:a::/64");
  subnet.vpc_cidr = IpPrefix::parse("10.0.0.0/16");
  state_.subnets[subnet.id] = subnet;
  for (std::uint32_t i = 0; i < kGroups; ++i) {
    config::SecurityGroup group;
    group.id = group_name(i);
    for (std::uint32_t n = 1 + below(4); n > 0; --n) group.ingress.push_back(rule());
    for (std::uint32_t n = 1 + below(3); n > 0; --n) group.egress.push_back(rule());
    state_.security_groups[group.id] = group;
  }
  for (int i = 0; i < kTasks; ++i) {
    config::Attachment task;
    task.eni_id = std::string(1, static_cast<char>('a' + i));
    task.mac = MacAddress{{0x0a, 0x47, 0, 0, 0, static_cast<std::uint8_t>(i + 2)}};
    task.vlan = VlanId{static_cast<std::uint16_t>(101 + i)};
    task.subnet_id = subnet.id;
    const std::string last = std::to_string(35 + i);
    task.addresses = {ip("10.0.0." + last), ip("2001:db8:0:a::" + last)};
    task.group_ids = {group_name(below(kGroups))};
    if (one_in(2)) task.group_ids.push_back(group_name(below(kGroups)));
    // The first ENI tracks as AWS does by default, the others always; one asks the rules again.
    task.always_track = i != 0;
    if (i == 2) task.on_change = config::OnChange::revalidate;
    task.conntrack = {.tcp_established_timeout = 345, .udp_timeout = 30, .udp_stream_timeout = 180};
    state_.attachments.insert_or_assign(task.eni_id, task);
  }
  while (flows_.size() < kFlows) flows_.push_back(flow());
}

config::SecurityGroupRule RandomFlows::rule() {
  config::SecurityGroupRule result;
  static constexpr int kProtocols[] = {-1, 6, 6, 6, 6, 17, 17, 1, 58, 50};
  result.protocol = kProtocols[below(10)];
  if (result.protocol == 6 || result.protocol == 17) {
    static constexpr std::pair<int, int> kPorts[] = {{0, 65535}, {0, 65535}, {80, 80}, {22, 443}, {20000, 65535}};
    std::tie(result.from_port, result.to_port) = kPorts[below(5)];
  } else if (result.protocol == 1 || result.protocol == 58) {
    static constexpr int kTypes4[] = {8, 8, 0, 3, 11}, kTypes6[] = {128, 128, 129, 1, 3};
    if (!one_in(3)) result.from_port = (result.protocol == 1 ? kTypes4 : kTypes6)[below(5)];
    if (result.from_port != -1 && one_in(2)) result.to_port = static_cast<int>(below(2));
  }
  static const char* const kRanges[] = {"0.0.0.0/0",      "0.0.0.0/0",         "::/0",           "198.51.100.0/24",
                                        "203.0.113.5/32", "198.51.100.128/25", "2001:db8:f::/48"};
  for (std::uint32_t n = 1 + below(2); n > 0; --n)
    result.ranges.push_back(*IpPrefix::parse(kRanges[below(std::size(kRanges))]));
  if (one_in(5)) result.group_ids = {group_name(below(kGroups))}, result.ranges.resize(below(2));
  return result;
}

RandomFlows::Step RandomFlows::next_step() { return static_cast<Step>(choose({1000, 4, 2})); }

std::string RandomFlows::edit() {
  switch (choose({6, 2, 2})) {
    case 0: {
      const std::string name = group_name(below(kGroups));
      config::SecurityGroup group = state_.security_groups.at(name);
      auto& rules = one_in(2) ? group.ingress : group.egress;
      const bool remove = rules.size() >= 5 || (rules.size() > 1 && one_in(2));
      if (remove) {
        rules.erase(rules.begin() + below(static_cast<std::uint32_t>(rules.size())));
      } else {
        rules.push_back(rule());
      }
      state_.security_groups.insert_or_assign(name, group);
      return std::string(remove ? "a rule leaves " : "a rule comes to ") + name;
    }
    case 1: {
      config::AddressSet& members = state_.remote_members[group_name(below(kGroups))];
      const IpAddress address = ip(one_in(2) ? "198.51.100.9" : "2001:db8:f::9");
      const bool is_there = members.contains(address);
      is_there ? static_cast<void>(members.erase(address)) : static_cast<void>(members.insert(address));
      return address.to_string() + (is_there ? " leaves a group" : " joins a group");
    }
    default: {
      auto some = state_.attachments.begin();
      for (std::uint32_t n = below(kTasks); n > 0; --n) ++some;
      config::Attachment task = some->second;
      task.group_ids = {group_name(below(kGroups))};
      if (one_in(2)) task.group_ids.push_back(group_name(below(kGroups)));
      state_.attachments.insert_or_assign(task.eni_id, task);
      return "other groups of " + task.eni_id;
    }
  }
}

std::uint32_t RandomFlows::duration() {
  static constexpr std::uint32_t kSteps[] = {1, 1, 1, 2, 3, 4, 5, 8, 17, 18, 26, 50};
  return kSteps[below(std::size(kSteps))] * kTimeStep;
}

RandomFlows::Flow RandomFlows::flow() {
  Flow flow;
  flow.task = std::string(1, static_cast<char>('a' + below(kTasks)));
  const config::Attachment& task = state_.attachments.at(flow.task);
  const bool ipv4 = !one_in(4);
  static const char* const kRemotes4[] = {"198.51.100.9", "198.51.100.9", "198.51.100.200", "203.0.113.5"};
  static const char* const kRemotes6[] = {"2001:db8:f::9", "2001:db8:cafe::1"};
  flow.local = task.addresses[ipv4 ? 0 : 1];
  flow.remote = ip(ipv4 ? kRemotes4[below(4)] : kRemotes6[below(2)]);
  flow.remote_begins = one_in(2);
  switch (choose({70, 15, 12, 3})) {
    case 0:
      flow.protocol = proto::tcp;
      break;
    case 1:
      flow.protocol = proto::udp;
      break;
    case 2:
      flow.protocol = ipv4 ? proto::icmp : proto::icmpv6;
      break;
    default:
      flow.protocol = proto::esp;
      break;
  }
  static constexpr std::uint16_t kServices[] = {22, 80, 443, 8080};
  const std::uint16_t service = kServices[below(4)];
  next_port_ = next_port_ == 65535 ? 20000 : static_cast<std::uint16_t>(next_port_ + 1);
  const std::uint16_t client = next_port_;
  flow.remote_port = flow.remote_begins ? client : service;
  flow.local_port = flow.remote_begins ? service : client;
  // The identifier of ICMP is the client's port.
  for (End& end : flow.ends) end.next = static_cast<std::uint32_t>(random_());
  // As after a restart: the ends are in the middle of a conversation.
  if (one_in(10)) flow.stage = Stage::established;
  return flow;
}

FlowPacket RandomFlows::from(const Flow& flow, std::size_t end) {
  FlowPacket packet;
  packet.task = flow.task;
  packet.direction = (end == 0) == flow.remote_begins ? Direction::ingress : Direction::egress;
  const bool in = packet.direction == Direction::ingress;
  packet.source = in ? flow.remote : flow.local;
  packet.destination = in ? flow.local : flow.remote;
  packet.protocol = flow.protocol;
  if (flow.protocol == proto::tcp || flow.protocol == proto::udp) {
    packet.source_port = in ? flow.remote_port : flow.local_port;
    packet.destination_port = in ? flow.local_port : flow.remote_port;
  }
  current_end_ = end;
  return packet;
}

// What the end sends when all that was sent has arrived.
FlowPacket RandomFlows::tcp_from(Flow& flow, std::size_t end, std::uint8_t flags) {
  FlowPacket packet = from(flow, end);
  packet.tcp_flags = flags;
  packet.sequence = flow.ends[end].next;
  packet.acknowledgement = (flags & flag::ack) != 0 ? flow.ends[1 - end].next : 0;
  packet.has_payload = (flags & flag::psh) != 0;
  return packet;
}

void RandomFlows::tcp_next(Flow& flow, FlowPacket& packet) {
  const std::size_t some = below(2);
  switch (flow.stage) {
    case Stage::idle:
      packet = tcp_from(flow, one_in(12) ? 1 : 0, flag::syn);
      break;
    case Stage::syn_sent:
      switch (choose({70, 12, 6, 4})) {
        case 0:
          packet = tcp_from(flow, 1, flag::syn | flag::ack);
          break;
        case 1:
          packet = tcp_from(flow, 0, flag::syn);
          break;
        case 2:
          packet = tcp_from(flow, 1, flag::rst | flag::ack);
          break;
        default:
          packet = tcp_from(flow, 1, flag::syn);
          break;  // both begin at once
      }
      break;
    case Stage::syn_received:
      switch (choose({75, 10, 5, 5})) {
        case 0:
          packet = tcp_from(flow, 0, flag::ack);
          break;
        case 1:
          packet = tcp_from(flow, 1, flag::syn | flag::ack);
          break;
        case 2:
          packet = tcp_from(flow, 0, flag::rst);
          break;
        default:
          packet = tcp_from(flow, 1, flag::rst | flag::ack);
          break;
      }
      break;
    case Stage::established:
      switch (choose({60, 20, 9, 4, 2, 2})) {
        case 0:
          packet = tcp_from(flow, some, flag::ack | flag::psh);
          break;
        case 1:
          packet = tcp_from(flow, some, flag::ack);
          break;
        case 2:
          packet = tcp_from(flow, some, flag::fin | flag::ack);
          break;
        case 3:
          packet = tcp_from(flow, some, one_in(2) ? flag::rst : flag::rst | flag::ack);
          break;
        case 4:
          packet = tcp_from(flow, 0, flag::syn);
          break;  // its host forgot the connection
        default:
          packet = tcp_from(flow, some, flag::ack | flag::urg);
          break;
      }
      break;
    case Stage::closing:
      switch (choose({40, 30, 20, 6, 4})) {
        case 0:
          packet = tcp_from(flow, some, flag::ack);
          break;
        case 1:
          packet = tcp_from(flow, flow.ends[0].fin_sent ? 1 : 0, flag::fin | flag::ack);
          break;
        case 2:
          packet = tcp_from(flow, flow.ends[0].fin_sent ? 1 : 0, flag::ack | flag::psh);
          break;
        case 3:
          packet = tcp_from(flow, some, flag::rst);
          break;
        default:
          packet = tcp_from(flow, 0, flag::syn);
          break;
      }
      break;
    case Stage::closed:
      switch (choose({45, 10, 30, 5})) {
        case 0:
          packet = tcp_from(flow, some, flag::ack);
          break;
        case 1:
          packet = tcp_from(flow, some, flag::fin | flag::ack);
          break;
        case 2:
          packet = tcp_from(flow, 0, flag::syn);
          break;  // the same ports again
        default:
          packet = tcp_from(flow, some, flag::rst);
          break;
      }
      break;
  }
}

// Any flags from either end, by a stranger who may or may not know the sequence numbers.
void RandomFlows::tcp_any(Flow& flow, FlowPacket& packet) {
  static constexpr std::uint8_t kFlags[] = {flag::syn,
                                            flag::syn,
                                            flag::syn,
                                            flag::syn | flag::ack,
                                            flag::syn | flag::ack,
                                            flag::ack,
                                            flag::ack | flag::psh,
                                            flag::fin | flag::ack,
                                            flag::fin,
                                            flag::rst,
                                            flag::rst | flag::ack,
                                            0,
                                            flag::fin | flag::psh | flag::urg,
                                            flag::syn | flag::fin,
                                            flag::syn | flag::rst,
                                            flag::rst | flag::fin,
                                            flag::syn | flag::ece | flag::cwr,
                                            flag::syn | flag::ack | flag::ece,
                                            flag::rst | flag::psh,
                                            flag::rst | flag::urg,
                                            flag::syn | flag::psh,
                                            flag::syn | flag::urg,
                                            flag::syn | flag::ack | flag::urg};
  packet =
      tcp_from(flow, below(2), one_in(6) ? static_cast<std::uint8_t>(below(256)) : kFlags[below(std::size(kFlags))]);
  if (one_in(4)) packet.has_payload = !packet.has_payload;
  switch (choose({4, 3, 3})) {
    case 0:
      break;
    case 1:
      packet.sequence += below(2) == 0 ? below(2000) : 0 - below(2000);
      break;
    default:
      packet.sequence = static_cast<std::uint32_t>(random_());
      break;
  }
  if ((packet.tcp_flags & flag::ack) != 0 && one_in(3)) packet.acknowledgement = static_cast<std::uint32_t>(random_());
}

void RandomFlows::tcp_packet(Flow& flow, FlowPacket& packet) {
  switch (choose({75, 8, 17})) {
    case 0:
      tcp_next(flow, packet);
      return;
    case 1: {  // once more
      const std::size_t end = below(2);
      if (flow.ends[end].last.protocol != proto::tcp) return tcp_next(flow, packet);
      packet = flow.ends[end].last;
      current_end_ = end;
      return;
    }
    default:
      tcp_any(flow, packet);
      return;
  }
}

void RandomFlows::icmp_packet(Flow& flow, FlowPacket& packet) {
  // The one that begins asks; sometimes the other one, with the same identifier.
  const bool asks = one_in(2);
  const std::size_t asker = one_in(12) ? 1 : 0;
  packet = from(flow, asks ? asker : 1 - asker);
  packet.icmp_id = std::max(flow.remote_port, flow.local_port);
  const bool ipv4 = packet.source.is_v4();
  const std::uint8_t query = !ipv4 ? 128 : packet.icmp_id % 8 == 0 ? 13 : 8;
  packet.icmp_type = asks ? query : query == 8 ? 0 : static_cast<std::uint8_t>(query + 1);
}

// From the other end, or a router, about a packet that went the other way; or nearly.
FlowPacket RandomFlows::icmp_error(const Flow& about) {
  const std::size_t sender = below(2);
  const FlowPacket subject = from(about, 1 - sender);
  FlowPacket packet = from(about, sender);
  const bool ipv4 = packet.source.is_v4();
  packet.protocol = ipv4 ? proto::icmp : proto::icmpv6;
  packet.source_port = packet.destination_port = 0;
  static constexpr std::pair<std::uint8_t, std::uint8_t> kErrors4[] = {{3, 1}, {11, 0}, {3, 3}, {3, 4}},
                                                         kErrors6[] = {{1, 0}, {3, 0}, {2, 0}, {1, 4}};
  std::tie(packet.icmp_type, packet.icmp_code) = (ipv4 ? kErrors4 : kErrors6)[below(4)];
  packet.quoted = FlowPacket::Quoted{subject.source, subject.destination, about.protocol, subject.source_port,
                                     subject.destination_port};
  if (packet.direction == Direction::ingress && one_in(2))
    packet.source = ip(ipv4 ? "203.0.113.77" : "2001:db8:cafe::77");
  switch (choose({12, 1, 1})) {
    case 1:
      ++packet.quoted->source_port;
      break;
    case 2:
      std::swap(packet.quoted->source, packet.quoted->destination),
          std::swap(packet.quoted->source_port, packet.quoted->destination_port);
      break;
    default:
      break;
  }
  return packet;
}

FlowPacket RandomFlows::packet() {
  FlowPacket packet;
  Flow& flow = flows_[below(kFlows)];
  current_ = &flow;
  if (one_in(250)) {
    flow = this->flow();
  } else if (one_in(400)) {
    flow.stage = Stage::idle;  // the one that began has started anew, with the same port
    flow.ends = {};
  }
  if (flow.protocol == proto::tcp) {
    if (one_in(30)) {
      packet = icmp_error(flow);
    } else {
      tcp_packet(flow, packet);
    }
  } else if (flow.protocol == proto::udp && one_in(10)) {
    packet = icmp_error(flow);
  } else if (flow.protocol == proto::icmp || flow.protocol == proto::icmpv6) {
    icmp_packet(flow, packet);
  } else {
    packet = from(flow, one_in(3) ? 1 : 0);
  }
  packet.number = ++packets_;
  current_packet_ = packet;
  return packet;
}

void RandomFlows::told(bool passed) {
  Flow& flow = *current_;
  const FlowPacket& packet = current_packet_;
  if (packet.protocol != proto::tcp || !passed) return;
  End& end = flow.ends[current_end_];
  // A forged packet moves no end; what is neither at its place nor a beginning is one.
  if (packet.sequence != end.next) return;
  end.last = packet;
  end.next += (packet.has_payload ? 4 : 0) + ((packet.tcp_flags & (flag::syn | flag::fin)) != 0 ? 1 : 0);
  const std::uint8_t kind = packet.tcp_flags & (flag::syn | flag::ack | flag::rst | flag::fin);
  if (kind == flag::syn) {
    for (End& each : flow.ends) each.fin_sent = false;
    flow.stage = Stage::syn_sent;
  } else if (kind == (flag::syn | flag::ack) && flow.stage == Stage::syn_sent) {
    flow.stage = Stage::syn_received;
  } else if (kind == flag::ack && flow.stage == Stage::syn_received && current_end_ == 0) {
    flow.stage = Stage::established;
  } else if ((kind & flag::rst) != 0 && flow.stage != Stage::idle) {
    // The other end believes it, or goes on.
    if (!one_in(3)) flow.stage = Stage::closed;
  } else if (kind == (flag::fin | flag::ack) && flow.stage != Stage::idle) {
    end.fin_sent = true;
    flow.stage = flow.ends[0].fin_sent && flow.ends[1].fin_sent ? Stage::closed : Stage::closing;
    if (one_in(6)) flow.stage = Stage::established;  // not of this connection: it goes on
  }
}

void RandomFlows::forgotten() {
  current_->ends[0].fin_sent = current_->ends[1].fin_sent = false;
  current_->stage = one_in(2) ? Stage::idle : Stage::established;
}

}  // namespace trunkline::differential
