// SPDX-License-Identifier: BSD-3-Clause
#include "tests/property/random_vpc.h"

#include <algorithm>

namespace trunkline::test {
namespace {

using oracle::ModelPacket;

constexpr MacAddress kRouter{{0x0a, 0, 0, 0, 0, 1}};
constexpr int kTasks = 5, kGroups = 4;

std::string id(const char* kind, int number) { return kind + std::to_string(number); }

// Of what stands before the fragment header, or in a whole packet.
std::uint32_t extension_bytes(const ModelPacket& packet) { return (packet.hop_by_hop ? 8 : 0) + (packet.options ? 8 : 0); }

// Puts options for `next` before what `bytes` begins with.
std::uint8_t put_options_before(Frame& bytes, std::uint8_t number, std::uint8_t next) {
  const Frame options{next, 0, 1, 4, 0, 0, 0, 0};
  bytes.insert(bytes.begin(), options.begin(), options.end());
  return number;
}
std::uint8_t put_fragment_header_before(Frame& bytes, std::uint8_t next, std::uint32_t offset, bool more, std::uint32_t identification) {
  Frame header{next, 0};
  put16(header, static_cast<std::uint16_t>(offset | (more ? 1 : 0)));
  put16(header, 0);
  put16(header, static_cast<std::uint16_t>(identification));
  bytes.insert(bytes.begin(), header.begin(), header.end());
  return 44;
}

// An IP packet as a router on the way quotes it.
Frame quotation(const ModelPacket::Quoted& quoted) {
  const bool ipv4 = quoted.source.is_v4();
  Frame transport = udp_datagram(quoted.source_port, quoted.destination_port, 0);
  if (quoted.protocol == 1 || quoted.protocol == 58) transport = icmp_message(quoted.icmp_type, quoted.icmp_code, quoted.icmp_id, 0);
  if (quoted.protocol == 50) transport = Frame(8, 'e');
  transport.resize(quoted.transport_bytes);
  std::uint8_t next = quoted.protocol;
  if (!ipv4 && quoted.options) next = put_options_before(transport, 60, next);
  if (!ipv4 && quoted.fragment) next = put_fragment_header_before(transport, next, *quoted.fragment ? 0 : 1240, true, 9);
  if (ipv4 && quoted.options) {
    const Frame record_route{7, 7, 4, 0, 0, 0, 0, 0};
    transport.insert(transport.begin(), record_route.begin(), record_route.end());
  }
  Frame packet = ip_packet({}, quoted.source, quoted.destination, next, transport);
  packet.erase(packet.begin(), packet.begin() + 14);
  if (ipv4 && quoted.options) packet[0] = 0x47;
  if (ipv4 && quoted.fragment) packet[6] = 0x20, packet[7] = *quoted.fragment ? 0 : 155;
  return packet;
}

}  // namespace

std::size_t RandomVpc::choose(std::initializer_list<std::uint32_t> weights) {
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

std::uint64_t RandomVpc::duration() {
  static constexpr std::uint64_t kTenths[] = {1,   2,   10,   50,   99,   100,  101,  299,  300,  301,  599, 600,
                                              601, 1199, 1200, 1201, 1799, 1800, 1801, 3499, 3500, 3501, 5999, 6000};
  return kTenths[below(std::size(kTenths))] * 100000;
}

RandomVpc::RandomVpc(std::uint64_t seed) : random_(seed) {
  engine.strict_syn = one_in(4);
  engine.icmp_related = one_in(2);
  if (one_in(3)) engine.connections_per_endpoint = one_in(2) ? 1 + below(2) : 4 + below(12);
  for (const auto& [name, cidr, cidr6] : {std::tuple{"subnet-a", "10.0.0.0/24", "2001:db8:0:a::/64"}, std::tuple{"subnet-b", "10.0.9.0/24", "2001:db8:0:b::/64"}}) {
    config::Subnet subnet;
    subnet.id = name;
    subnet.cidr = *IpPrefix::parse(cidr);
    subnet.ipv6_cidr = IpPrefix::parse(cidr6);
    subnet.vpc_cidr = IpPrefix::parse("10.0.0.0/16");
    state.subnets[subnet.id] = subnet;
  }
  for (int i = 0; i < kGroups; ++i) {
    config::SecurityGroup group;
    group.id = id("sg-", i);
    for (std::uint32_t n = below(4); n > 0; --n) group.ingress.push_back(rule());
    for (std::uint32_t n = below(3); n > 0; --n) group.egress.push_back(rule());
    state.security_groups[group.id] = group;
  }
  config::PrefixList list;
  list.id = "pl-0";
  list.entries = {*IpPrefix::parse("198.51.100.0/24")};
  state.prefix_lists[list.id] = list;
  for (int i = 0; i < 2; ++i) {
    if (one_in(2)) state.network_acls[id("acl-", i)] = acl(i);
  }
  for (int i = 0; i < 3; ++i) attach();
}

// --- the rules -------------------------------------------------------------------------------------------------------

config::SecurityGroupRule RandomVpc::rule() {
  config::SecurityGroupRule result;
  static constexpr int kProtocols[] = {-1, -1, 6, 6, 6, 17, 17, 1, 58, 50};
  result.protocol = kProtocols[below(10)];
  if (result.protocol == 6 || result.protocol == 17) {
    static constexpr std::pair<int, int> kPorts[] = {{0, 65535}, {0, 65535}, {80, 80}, {22, 443}, {5000, 5001}, {1024, 65535}};
    std::tie(result.from_port, result.to_port) = kPorts[below(6)];
  } else if (result.protocol == 1 || result.protocol == 58) {
    if (!one_in(3)) result.from_port = result.protocol == 1 ? (one_in(2) ? 8 : 3) : (one_in(2) ? 128 : 1);
    if (result.from_port != -1 && one_in(2)) result.to_port = static_cast<int>(below(2));
  }
  static const char* const kRanges[] = {"0.0.0.0/0", "0.0.0.0/0", "::/0", "::/0", "198.51.100.0/24", "203.0.113.5/32", "10.0.0.0/24", "2001:db8::/64"};
  for (std::uint32_t n = 1 + below(2); n > 0; --n) result.ranges.push_back(*IpPrefix::parse(kRanges[below(std::size(kRanges))]));
  if (one_in(4)) result.group_ids = {id("sg-", static_cast<int>(below(kGroups)))}, result.ranges.resize(below(2));
  if (one_in(8)) result.prefix_list_ids = {"pl-0"};
  return result;
}

config::NetworkAclEntry RandomVpc::entry() {
  config::NetworkAclEntry result;
  result.number = static_cast<std::uint16_t>(1 + below(200));
  result.allow = !one_in(3);
  static const char* const kRanges[] = {"0.0.0.0/0", "0.0.0.0/0", "::/0", "198.51.100.0/25", "203.0.113.0/24", "10.0.0.0/16"};
  result.range = *IpPrefix::parse(kRanges[below(std::size(kRanges))]);
  static constexpr int kProtocols[] = {-1, -1, -1, 6, 6, 17, 1, 50};
  result.protocol = kProtocols[below(8)];
  if (result.protocol == 1 && !result.range.is_v4()) result.protocol = 58;
  if (result.protocol == 6 || result.protocol == 17) {
    static constexpr std::pair<int, int> kPorts[] = {{0, 65535}, {80, 80}, {22, 443}, {5000, 5000}, {1024, 65535}};
    std::tie(result.from_port, result.to_port) = kPorts[below(5)];
  } else if (result.protocol == 1 || result.protocol == 58) {
    if (one_in(2)) result.from_port = result.protocol == 1 ? 8 : 129;
  }
  return result;
}

config::NetworkAcl RandomVpc::acl(int number) {
  config::NetworkAcl result;
  result.id = id("acl-", number);
  result.subnet_ids = {number == 0 ? "subnet-a" : "subnet-b"};
  for (auto* entries : {&result.ingress, &result.egress}) {
    config::NetworkAclEntry all;
    all.allow = true;
    for (const char* range : {"0.0.0.0/0", "::/0"}) {
      all.range = *IpPrefix::parse(range);
      all.number = static_cast<std::uint16_t>(1000 + entries->size());
      if (!one_in(6)) entries->push_back(all);
    }
    for (std::uint32_t n = below(4); n > 0; --n) {
      const config::NetworkAclEntry each = entry();
      if (std::ranges::find(*entries, each.number, &config::NetworkAclEntry::number) == entries->end()) entries->push_back(each);
    }
    std::ranges::sort(*entries, {}, &config::NetworkAclEntry::number);
  }
  return result;
}

// --- the tasks -------------------------------------------------------------------------------------------------------

// Of five, the last has the addresses of the first: an address that is used again.
config::Attachment RandomVpc::attachment(int number) {
  config::Attachment result;
  result.eni_id = std::string(1, static_cast<char>('a' + number));
  result.mac = MacAddress{{0x0a, 0x47, 0, 0, 0, static_cast<std::uint8_t>(number + 2)}};
  result.vlan = VlanId{static_cast<std::uint16_t>(101 + number)};
  const int owner = number == 4 ? 0 : number;
  const bool in_b = owner == 2;
  result.subnet_id = in_b ? "subnet-b" : "subnet-a";
  const std::string last = std::to_string(35 + owner);
  result.addresses = {ip((in_b ? "10.0.9." : "10.0.0.") + last), ip((in_b ? "2001:db8:0:b::" : "2001:db8:0:a::") + last)};
  if (one_in(4)) result.addresses.push_back(ip((in_b ? "10.0.9.1" : "10.0.0.1") + last));
  for (int i = 0; i < kGroups; ++i) {
    if (one_in(2) || (i == kGroups - 1 && result.group_ids.empty())) result.group_ids.push_back(id("sg-", i));
  }
  if (one_in(3)) result.port = config::PortSpec{}, result.port->mtu = 1500;
  result.source_dest_check = !one_in(5);
  result.audit = one_in(8);
  result.always_track = one_in(6);
  result.block_imds = one_in(3);
  if (one_in(4)) result.on_change = config::OnChange::revalidate;
  if (one_in(3)) result.conntrack = {.tcp_established_timeout = 350, .udp_timeout = 60, .udp_stream_timeout = 120};
  if (one_in(5)) result.limits.ingress_packets = one_in(2) ? 3 : 40;
  if (one_in(5)) result.limits.egress_packets = one_in(2) ? 3 : 40;
  if (one_in(5)) result.limits.ingress_bits = one_in(2) ? 8001 : 400000;
  if (one_in(5)) result.limits.egress_bits = one_in(2) ? 8001 : 400000;
  return result;
}

std::string RandomVpc::attach() {
  const config::Attachment next = attachment(static_cast<int>(below(kTasks)));
  for (const auto& [eni, there] : state.attachments) {
    if (eni == next.eni_id || there.addresses[0] == next.addresses[0]) return "";
  }
  state.attachments.insert_or_assign(next.eni_id, next);
  return "attach " + next.eni_id;
}

const config::Attachment& RandomVpc::some_task() {
  auto some = state.attachments.begin();
  for (std::uint32_t n = below(static_cast<std::uint32_t>(state.attachments.size())); n > 0; --n) ++some;
  return some->second;
}

std::string RandomVpc::edit() {
  switch (choose({5, 3, 3, 2, 2, 2, 2, 1, 1})) {
    case 0: {  // a rule comes or goes
      const std::string name = id("sg-", static_cast<int>(below(kGroups)));
      config::SecurityGroup group = state.security_groups.at(name);
      auto& rules = one_in(2) ? group.ingress : group.egress;
      if (!rules.empty() && one_in(2)) {
        rules.erase(rules.begin() + below(static_cast<std::uint32_t>(rules.size())));
      } else if (rules.size() < 6) {
        rules.push_back(rule());
      }
      state.security_groups.insert_or_assign(name, group);
      return "edit " + name;
    }
    case 1: {
      config::Attachment task = some_task();
      task.group_ids = {id("sg-", static_cast<int>(below(kGroups)))};
      if (one_in(2)) task.group_ids = attachment(0).group_ids;
      state.attachments.insert_or_assign(task.eni_id, task);
      return "other groups of " + task.eni_id;
    }
    case 2: {
      config::Attachment task = some_task();
      const config::Attachment other = attachment(0);
      task.audit = other.audit, task.always_track = other.always_track, task.on_change = other.on_change;
      task.limits = other.limits, task.conntrack = other.conntrack, task.source_dest_check = other.source_dest_check;
      state.attachments.insert_or_assign(task.eni_id, task);
      return "other options of " + task.eni_id;
    }
    case 3: {
      const int number = static_cast<int>(below(2));
      if (one_in(4)) {
        state.network_acls.erase(id("acl-", number));
        return "delete " + id("acl-", number);
      }
      state.network_acls.insert_or_assign(id("acl-", number), acl(number));
      return "put " + id("acl-", number);
    }
    case 4: {
      if (state.attachments.size() < 3) return attach();
      const std::string eni = some_task().eni_id;
      state.attachments.erase(eni);
      return "detach " + eni;
    }
    case 5: return attach();
    case 6: {
      config::AddressSet& members = state.remote_members[id("sg-", static_cast<int>(below(kGroups)))];
      const IpAddress address = ip(one_in(2) ? "198.51.100.9" : "2001:db8::9");
      one_in(2) ? static_cast<void>(members.insert(address)) : static_cast<void>(members.erase(address));
      return "a member comes or goes";
    }
    case 7: {
      config::PrefixList list = state.prefix_lists.at("pl-0");
      list.entries = {*IpPrefix::parse(one_in(2) ? "198.51.100.0/24" : one_in(2) ? "0.0.0.0/0" : "203.0.113.0/24")};
      state.prefix_lists.insert_or_assign("pl-0", list);
      return "edit pl-0";
    }
    default: {  // detached and attached in one change: another interface of the same name
      config::Attachment task = some_task();
      task.mac = MacAddress{{0x0a, 0x47, 0, 0, 1, static_cast<std::uint8_t>(below(250))}};
      state.attachments.insert_or_assign(task.eni_id, task);
      return "another MAC of " + task.eni_id;
    }
  }
}

// --- packets ---------------------------------------------------------------------------------------------------------

std::string RandomVpc::sender() { return one_in(2) ? "" : some_task().eni_id; }

std::uint8_t RandomVpc::next_flags(const ModelPacket& last, bool same_end) {
  constexpr std::uint8_t kFin = 1, kSyn = 2, kRst = 4, kPush = 8, kAck = 16, kUrgent = 32;
  // Flags that no connection has, or that not every automaton takes for the same.
  static constexpr std::uint8_t kOdd[] = {
      0,                    kFin,         kFin | kPush | kUrgent, kSyn | kFin,  kSyn | kRst,    kRst | kFin,
      kRst | kFin | kAck,   kSyn | kPush, kSyn | kFin | kAck,     kRst | kPush, kSyn | kUrgent, kRst | kUrgent,
      kSyn | kAck | kUrgent, kPush,       kAck | kUrgent,         0xff};
  switch (choose({60, 12, 10, 10, 8})) {
    case 0: break;
    case 1: return last.tcp_flags;                     // once more, or the same from the other end
    case 2: return kSyn;                               // on whatever state there is
    case 3: return kAck | (one_in(2) ? kPush : 0);     // goes on as if nothing had been
    default: return kOdd[below(std::size(kOdd))];
  }
  const bool syn = last.tcp_flags & kSyn, ack = last.tcp_flags & kAck;
  if (syn && !ack) return same_end ? kSyn : one_in(5) ? kRst | kAck : kSyn | kAck;
  if (syn) return same_end ? kSyn | kAck : kAck;
  static constexpr std::uint8_t kOn[] = {kAck, kAck | kPush, kAck | kPush, kFin | kAck, kFin | kAck, kRst, kRst | kAck};
  return kOn[below(std::size(kOn))];
}

std::optional<ModelPacket> RandomVpc::next_of_conversation(const std::string& sender) {
  if (heard_.empty()) return std::nullopt;
  const ModelPacket& last = heard_[below(static_cast<std::uint32_t>(heard_.size()))];
  const auto owner_of = [&](const IpAddress& address) -> const config::Attachment* {
    for (const auto& [eni, task] : state.attachments) {
      if (std::ranges::find(task.addresses, address) != task.addresses.end()) return &task;
    }
    return nullptr;
  };
  // Which ENI it is about, and whether the sender is the end that spoke or the other one. An ENI may have gone since,
  // or be another.
  const config::Attachment* source = owner_of(last.source);
  const config::Attachment* destination = owner_of(last.destination);
  const bool same_end = last.task == sender &&
                        (sender.empty() ? destination != nullptr : source != nullptr && source->eni_id == sender);
  const bool other_end = sender.empty() ? source != nullptr && destination == nullptr
                                        : destination != nullptr && destination->eni_id == sender;
  if (!same_end && !other_end) return std::nullopt;
  ModelPacket packet = last;
  packet.tcp_flags = next_flags(last, same_end);
  packet.tcp_header_bytes = (packet.tcp_flags & 8) == 0 && one_in(2) ? 24 : 20;
  choose_size(packet);
  packet.number = ++packets_;
  packet.task = sender;
  if (!same_end) {
    std::swap(packet.source, packet.destination);
    std::swap(packet.source_port, packet.destination_port);
  }
  const config::Attachment& task = sender.empty() ? *owner_of(packet.destination) : state.attachments.at(sender);
  packet.vlan = sender.empty() ? task.vlan->value : -1;
  packet.to = sender.empty() ? *task.mac : kRouter;
  packet.from = sender.empty() ? kRouter : *task.mac;
  return packet;
}

void RandomVpc::choose_flow(ModelPacket& packet, const config::Attachment& task) {
  const bool ipv4 = !one_in(4);
  std::vector<IpAddress> own, others;
  for (const IpAddress& address : task.addresses) {
    if (address.is_v4() == ipv4) own.push_back(address);
  }
  static const char* const kRemotes4[] = {"198.51.100.9", "198.51.100.200", "203.0.113.5", "10.0.0.77", "10.0.9.77"};
  static const char* const kRemotes6[] = {"2001:db8::9", "2001:db8:0:a::77", "2001:db8:cafe::1"};
  static const char* const kServices4[] = {"10.0.0.1", "10.0.9.1", "10.0.0.2", "169.254.169.254", "169.254.169.253", "169.254.169.123", "169.254.169.250", "169.254.170.2", "169.254.1.1"};
  static const char* const kServices6[] = {"2001:db8:0:a::1", "2001:db8:0:b::1", "fe80:ec2::1", "fd00:ec2::253", "fd00:ec2::123", "fd00:ec2::254", "fd00:ec2::1"};
  for (const auto& [eni, there] : state.attachments) {
    for (const IpAddress& address : there.addresses) {
      if (eni != task.eni_id && address.is_v4() == ipv4) others.push_back(address);
    }
  }
  IpAddress remote = ip(ipv4 ? kRemotes4[below(5)] : kRemotes6[below(3)]);
  if (!others.empty() && one_in(3)) remote = others[below(static_cast<std::uint32_t>(others.size()))];
  const auto service = [&] { return ip(ipv4 ? kServices4[below(std::size(kServices4))] : kServices6[below(std::size(kServices6))]); };
  if (one_in(8)) remote = service();
  IpAddress local = own[below(static_cast<std::uint32_t>(own.size()))];
  if (one_in(40)) local = one_in(2) ? ip(ipv4 ? "10.0.0.99" : "2001:db8:0:a::99") : service();
  packet.source = packet.task.empty() ? remote : local;
  packet.destination = packet.task.empty() ? local : remote;
}

void RandomVpc::choose_headers(ModelPacket& packet) {
  const bool ipv4 = packet.source.is_v4();
  static constexpr std::uint16_t kServices[] = {22, 80, 443}, kClients[] = {5000, 5001, 40000};
  // One end is a client, the other a service.
  static constexpr std::uint16_t kVpcServices[] = {53, 123, 80, 1688};
  const std::uint16_t client = kClients[below(3)], service = one_in(8) ? kVpcServices[below(4)] : kServices[below(3)];
  const bool asks = one_in(2);
  switch (choose({45, 22, 18, 9, 4, 2})) {
    case 0: {
      packet.protocol = 6;
      static constexpr std::uint8_t kFlags[] = {2, 2, 2, 18, 18, 16, 16, 16, 16, 24, 17, 17, 20, 4, 194};
      // NULL, SYN+FIN, FIN alone, XMAS, RST+FIN, SYN+RST, and URG where nothing is urgent.
      static constexpr std::uint8_t kNobodys[] = {0, 3, 1, 41, 5, 21, 6, 36, 50};
      packet.tcp_flags = one_in(40) ? kNobodys[below(std::size(kNobodys))] : kFlags[below(std::size(kFlags))];
      packet.tcp_header_bytes = one_in(2) ? 24 : 20;
      break;
    }
    case 1: packet.protocol = 17; break;
    case 2:
      packet.protocol = ipv4 ? 1 : 58;
      packet.icmp_type = ipv4 ? (one_in(12) ? 13 : one_in(2) ? 8 : 0) : (one_in(2) ? 128 : 129);
      packet.icmp_id = static_cast<std::uint16_t>(1 + below(2));
      if (one_in(3)) packet.icmp_code = static_cast<std::uint8_t>(below(3));
      return;
    case 3: {
      packet.protocol = ipv4 ? 1 : 58;
      static constexpr std::pair<std::uint8_t, std::uint8_t> kErrors4[] = {{3, 1}, {11, 0}, {3, 0}}, kErrors6[] = {{1, 0}, {3, 0}, {1, 1}};
      std::tie(packet.icmp_type, packet.icmp_code) = (ipv4 ? kErrors4 : kErrors6)[below(3)];
      // About a packet that went the other way, or not.
      ModelPacket::Quoted quoted{.source = packet.destination, .destination = packet.source};
      static constexpr std::uint8_t kProtocols[] = {6, 6, 6, 17, 17, 1, 1, 50};
      quoted.protocol = kProtocols[below(8)];
      if (quoted.protocol == 1) {
        quoted.protocol = ipv4 ? 1 : 58;
        quoted.icmp_type = ipv4 ? (asks ? 8 : 0) : (asks ? 128 : 129);
        quoted.icmp_id = static_cast<std::uint16_t>(1 + below(2));
        if (one_in(4)) quoted.icmp_code = static_cast<std::uint8_t>(below(3));
        if (one_in(6)) quoted.transport_bytes = 2;
      } else if (quoted.protocol != 50) {
        quoted.source_port = asks ? client : service, quoted.destination_port = asks ? service : client;
        if (one_in(3)) quoted.transport_bytes = one_in(3) ? 2 : 4 + below(4);
      } else {
        quoted.transport_bytes = below(9);
      }
      quoted.options = one_in(4);
      if (one_in(4)) quoted.fragment = !one_in(3);
      if (one_in(4)) std::swap(quoted.source, quoted.destination);
      packet.quoted = quoted;
      return;
    }
    case 4: packet.protocol = 50; return;
    default: packet.protocol = 132; return;
  }
  packet.source_port = asks ? client : service;
  packet.destination_port = asks ? service : client;
}

void RandomVpc::choose_size(ModelPacket& packet) {
  const std::uint32_t header = packet.source.is_v4() ? 20 : 40;
  std::uint32_t rest = 24;
  if (packet.protocol == 6) rest = packet.tcp_header_bytes == 24 ? 24 : 32;  // without payload, and with
  if (packet.quoted) {
    const ModelPacket::Quoted& quoted = *packet.quoted;
    rest = 8 + header + (quoted.options ? 8 : 0) + (header == 40 && quoted.fragment ? 8 : 0) + quoted.transport_bytes + 4;
  }
  const std::uint32_t padding = one_in(12) && !packet.quoted ? (one_in(2) ? 1500U : one_in(2) ? 2000U : 6000U) : 0U;
  if (header == 40) packet.hop_by_hop = one_in(8), packet.options = one_in(8), packet.options_behind = one_in(3);
  packet.bytes = header + extension_bytes(packet) + rest + padding;
  packet.dont_fragment = !one_in(4);
}

void RandomVpc::choose_fragment(ModelPacket& packet) {
  if (packet.quoted) return;
  whole_ = packet;
  ModelPacket::Fragment piece;
  piece.identification = 1 + below(2);
  const std::uint32_t first = (packet.protocol == 6 ? 32 : 24) + (packet.options_behind ? 8 : 0);
  switch (below(6)) {
    case 0: case 1: case 2: piece.offset = 0, piece.length = first, piece.more = true; break;
    case 3: piece.offset = first, piece.length = 16, piece.more = true; break;
    case 4: piece.offset = first + 16, piece.length = 16, piece.more = false; break;
    default:
      piece.offset = 8 * (1 + below(8)), piece.length = 8 * (1 + below(2)), piece.more = one_in(2);
      if (one_in(10)) piece.length += 5;
      break;
  }
  packet.fragment = piece;
  packet.tcp_header_bytes = 20;
  packet.dont_fragment = false;
  packet.bytes = (packet.source.is_v4() ? 20 : 48 + extension_bytes(packet)) + piece.length;
  if (piece.offset == 0) return;
  packet.source_port = packet.destination_port = packet.icmp_id = 0;
  packet.icmp_type = packet.icmp_code = packet.tcp_flags = 0;
}

void RandomVpc::spoil(ModelPacket& packet) {
  const bool ipv4 = packet.source.is_v4();
  switch (below(6)) {
    case 0: packet.to = MacAddress{{0x0a, 0x47, 0, 0, 0, 0x77}}; break;
    case 1: packet.from = MacAddress{{0x0a, 0x47, 0, 0, 0, 0x77}}; break;
    case 2: packet.vlan = packet.task.empty() ? 999 : 102; break;
    case 3: packet.destination = ip(ipv4 ? "224.0.0.251" : "ff02::fb"); break;
    case 4: packet.source = ip(ipv4 ? (one_in(2) ? "127.0.0.1" : "240.0.0.9") : "::1"); break;
    default: packet.to = MacAddress{{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}}; break;
  }
}

ModelPacket RandomVpc::packet(const std::string& sender) {
  const config::Attachment& task = sender.empty() ? some_task() : state.attachments.at(sender);
  ModelPacket packet;
  packet.number = ++packets_;
  packet.task = sender;
  packet.vlan = sender.empty() ? task.vlan->value : -1;
  packet.to = sender.empty() ? *task.mac : kRouter;
  packet.from = sender.empty() ? kRouter : *task.mac;
  if (one_in(40)) {
    packet.is_arp = true;
    packet.arp_mac = one_in(6) ? kRouter : packet.from;
    static const char* const kAsked[] = {"10.0.0.1", "10.0.0.35", "10.0.0.36", "10.0.9.37", "10.0.0.77"};
    packet.source = one_in(6) ? ip("10.0.0.36") : sender.empty() ? ip("10.0.0.1") : task.addresses[0];
    packet.destination = one_in(2) ? ip(kAsked[below(5)]) : task.addresses[0];
    if (one_in(3)) packet.to = MacAddress{{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}};
    return packet;
  }
  const auto hear = [&](const ModelPacket& heard) {
    heard_.push_front(heard);
    if (heard_.size() > 12) heard_.pop_back();
  };
  if (one_in(3)) {
    if (const std::optional<ModelPacket> next = next_of_conversation(sender)) {
      hear(*next);
      return *next;
    }
  }
  choose_flow(packet, task);
  choose_headers(packet);
  choose_size(packet);
  const bool fragment = one_in(8), spoilt = one_in(40);
  if (fragment) choose_fragment(packet);
  if (spoilt) spoil(packet);
  if (packet.protocol == 6 && !packet.fragment && !spoilt) hear(packet);
  return packet;
}

ModelPacket RandomVpc::again(const ModelPacket& packet) {
  ModelPacket copy = packet;
  copy.number = ++packets_;
  return copy;
}

std::optional<ModelPacket> RandomVpc::answer(const ModelPacket& packet) {
  if (packet.is_arp || packet.fragment || packet.quoted) return std::nullopt;
  ModelPacket back = again(packet);
  std::swap(back.source, back.destination);
  std::swap(back.source_port, back.destination_port);
  if (packet.protocol == 6) back.tcp_flags = packet.tcp_flags == 2 ? 18 : 16;
  if (packet.icmp_type == 8 || packet.icmp_type == 0) back.icmp_type = 8 - packet.icmp_type;
  if (packet.icmp_type >= 128) back.icmp_type = static_cast<std::uint8_t>(257 - packet.icmp_type);
  const auto owner = std::ranges::find_if(state.attachments, [&](const auto& each) {
    return packet.task.empty() ? std::ranges::find(each.second.addresses, back.source) != each.second.addresses.end() : each.first == packet.task;
  });
  if (owner == state.attachments.end()) return std::nullopt;
  const config::Attachment& task = owner->second;
  back.task = packet.task.empty() ? task.eni_id : "";
  back.vlan = packet.task.empty() ? -1 : task.vlan->value;
  back.to = packet.task.empty() ? kRouter : *task.mac;
  back.from = packet.task.empty() ? *task.mac : kRouter;
  return back;
}

ModelPacket RandomVpc::another_piece() {
  ModelPacket packet = again(whole_);
  const std::uint32_t identification = whole_.fragment ? whole_.fragment->identification : 1;
  packet.fragment.reset();
  choose_fragment(packet);
  packet.fragment->identification = identification;
  return packet;
}

// --- bytes -----------------------------------------------------------------------------------------------------------

Frame frame_of(const ModelPacket& packet) {
  const L2 l2{packet.to, packet.from, packet.vlan};
  Frame frame;
  const auto finish = [&] {
    for (int shift = 24; shift >= 0; shift -= 8) frame.push_back(static_cast<std::uint8_t>(packet.number >> shift));
    return frame;
  };
  if (packet.is_arp) {
    frame = arp_packet(l2, 1, packet.arp_mac, packet.source, packet.destination);
    return finish();
  }
  const bool ipv4 = packet.source.is_v4();
  Frame payload;
  const bool later = packet.fragment && packet.fragment->offset != 0;
  if (later) {
  } else if (packet.protocol == 6) {
    payload = tcp_segment(packet.source_port, packet.destination_port, packet.tcp_flags);
    payload[12] = static_cast<std::uint8_t>(packet.tcp_header_bytes / 4 << 4);  // of 24 bytes: the packet's number lies in the options
  } else if (packet.protocol == 17) {
    // What the whole datagram has; of a fragment only the beginning is here.
    payload = udp_datagram(packet.source_port, packet.destination_port, packet.fragment ? 48 : packet.bytes - (ipv4 ? 20 : 40 + extension_bytes(packet)) - 8);
    payload.resize(8);
  } else if (packet.quoted) {
    payload = icmp_message(packet.icmp_type, packet.icmp_code, 0, 0);
    const Frame quoted = quotation(*packet.quoted);
    put(payload, quoted.data(), quoted.size());
  } else if (packet.protocol == (ipv4 ? 1 : 58)) {
    payload = icmp_message(packet.icmp_type, packet.icmp_code, packet.icmp_id, 0);
  }
  std::uint8_t next = packet.protocol;
  if (packet.fragment && packet.options_behind) {
    if (!later) put_options_before(payload, 60, next);
    next = 60;
  }
  const std::size_t header = ipv4 ? 20 : (packet.fragment ? 48 : 40) + extension_bytes(packet);
  payload.resize(packet.bytes - header - 4, 'x');
  for (int shift = 24; shift >= 0; shift -= 8) payload.push_back(static_cast<std::uint8_t>(packet.number >> shift));
  const std::size_t at = packet.vlan >= 0 ? 18 : 14;
  if (!ipv4 && packet.fragment) {
    next = put_fragment_header_before(payload, next, packet.fragment->offset, packet.fragment->more, packet.fragment->identification);
  }
  if (packet.options) next = put_options_before(payload, 60, next);
  if (packet.hop_by_hop) next = put_options_before(payload, 0, next);
  frame = ip_packet(l2, packet.source, packet.destination, next, payload, packet.dont_fragment);
  if (!ipv4 && packet.protocol == 58) frame[at + 7] = 64;
  if (ipv4 && packet.fragment) {
    frame[at + 4] = 0, frame[at + 5] = static_cast<std::uint8_t>(packet.fragment->identification);
    frame[at + 6] = static_cast<std::uint8_t>((packet.fragment->more ? 0x20 : 0) | packet.fragment->offset >> 11);
    frame[at + 7] = static_cast<std::uint8_t>(packet.fragment->offset >> 3);
  }
  return frame;
}

std::string text_of_packet(const ModelPacket& packet) {
  std::string text = '#' + std::to_string(packet.number) + ' ' + (packet.task.empty() ? "trunk vlan " + std::to_string(packet.vlan) : "task " + packet.task) + ": ";
  const std::string ends = packet.source.to_string() + " > " + packet.destination.to_string();
  if (packet.is_arp) return text + "arp who-has " + packet.destination.to_string() + " tell " + packet.source.to_string() + " mac " + packet.arp_mac.to_string();
  text += "proto " + std::to_string(packet.protocol) + ' ' + ends + " ports " + std::to_string(packet.source_port) + ' ' + std::to_string(packet.destination_port) + " flags " +
          std::to_string(packet.tcp_flags) + " icmp " + std::to_string(packet.icmp_type) + '/' + std::to_string(packet.icmp_code) + " id " + std::to_string(packet.icmp_id) +
          " bytes " + std::to_string(packet.bytes) + (packet.dont_fragment ? " df" : "");
  if (packet.fragment) {
    text += " frag " + std::to_string(packet.fragment->identification) + ':' + std::to_string(packet.fragment->offset) + '-' +
            std::to_string(packet.fragment->offset + packet.fragment->length) + (packet.fragment->more ? "+" : "");
  }
  if (packet.quoted) {
    text += " about proto " + std::to_string(packet.quoted->protocol) + ' ' + packet.quoted->source.to_string() + ':' + std::to_string(packet.quoted->source_port) + " > " +
            packet.quoted->destination.to_string() + ':' + std::to_string(packet.quoted->destination_port) + " icmp " + std::to_string(packet.quoted->icmp_type) + '/' +
            std::to_string(packet.quoted->icmp_code) + " id " + std::to_string(packet.quoted->icmp_id) + (packet.quoted->options ? " options" : "") +
            (packet.quoted->fragment ? *packet.quoted->fragment ? " first" : " later" : "") + " of it " + std::to_string(packet.quoted->transport_bytes);
  }
  text += std::string(packet.hop_by_hop ? " hop-by-hop" : "") + (packet.options ? " options" : "") + (packet.options_behind && packet.fragment ? " options-behind" : "");
  return text + " to " + packet.to.to_string() + " from " + packet.from.to_string();
}

}  // namespace trunkline::test
