// SPDX-License-Identifier: BSD-3-Clause
//
// What a valid state is, in this order: subnets, groups and prefix lists, each attachment by itself, attachments among
// each other. The rules are AWS's where AWS has one.
#include "config/validate.h"

#include <algorithm>
#include <filesystem>
#include <map>
#include <utility>

#include "config/json_reader.h"
#include "config/words.h"

namespace trunkline::config {
namespace {

constexpr int kTcp = 6, kUdp = 17, kIcmp = 1, kIcmp6 = 58;

std::string place(std::string_view collection, const std::string& id) {
  return pointer_to(pointer_to("", collection), id);
}

// How many rules a group costs an interface, in AWS's count: one for each range, group and entry of a prefix list.
struct RuleCount {
  std::size_t of[2][2] = {};  // [direction][family]: ingress, egress; IPv4, IPv6
};

void count_rules(const std::vector<SecurityGroupRule>& rules, const DesiredState& state, std::size_t (&count)[2]) {
  for (const SecurityGroupRule& rule : rules) {
    for (const IpPrefix& range : rule.ranges) ++count[range.is_v4() ? 0 : 1];
    for (std::size_t& family : count) family += rule.group_ids.size();
    for (const std::string& id : rule.prefix_list_ids) {
      const auto list = state.prefix_lists.find(id);
      if (list == state.prefix_lists.end()) continue;
      for (const IpPrefix& entry : list->second.entries) ++count[entry.is_v4() ? 0 : 1];
    }
  }
}

// "nginx" and "/run/netns/nginx" are one namespace, "/run//a.sock" and "/run/a.sock" one socket.
std::string plain_path(const std::string& path) { return std::filesystem::path(path).lexically_normal().string(); }
std::string plain_netns(const std::string& netns) {
  std::string path = plain_path(netns);
  for (const std::string_view folder : {"/run/netns/", "/var/run/netns/"}) {
    if (path.starts_with(folder)) return path.substr(folder.size());
  }
  return path;
}
std::string device_name(const std::string& devargs) { return devargs.substr(0, devargs.find(',')); }

// What of this host a port takes for itself, as words for a complaint.
std::string interface_of(const PortSpec& port) {
  switch (port.kind) {
    case PortKind::tap:
    case PortKind::virtio_user:
      return "interface " + words::in_quotes(port.ifname) +
             (port.netns.empty() ? " in the engine's own network namespace"
                                 : " in network namespace " + words::in_quotes(plain_netns(port.netns)));
    case PortKind::vhost_user: return "socket " + words::dump(plain_path(port.socket));
    case PortKind::vdev: return "device " + words::in_quotes(device_name(port.devargs));
  }
  return {};
}

class Validator {
 public:
  Validator(const DesiredState& state, const EngineConfig& config) : state_(state), config_(config) {}

  Problems run(std::string_view subject) {
    check_all_subnets();
    for (const auto& [id, group] : state_.security_groups) check_group(id, group);
    for (const auto& [id, list] : state_.prefix_lists) {
      check_id("pl", "prefix_lists", id);
      if (list.entries.size() > kMaxPrefixListEntries) {
        complain("quota", pointer_to(place("prefix_lists", id), "entries"),
                 id + " has " + std::to_string(list.entries.size()) + " entries; AWS allows " +
                     std::to_string(kMaxPrefixListEntries) + " at most, so split it");
      }
    }
    for (const auto& [id, members] : state_.remote_members) check_id("sg", "remote_members", id);
    if (state_.attachments.size() > config_.limits.endpoints) {
      complain("port_limit", "/attachments",
               "there would be " + std::to_string(state_.attachments.size()) + " ENIs and limits.endpoints is " +
                   std::to_string(config_.limits.endpoints) + "; detach one, or raise the limit and restart");
    }
    // The subject goes last, so that in a quarrel the complaint is about it.
    const auto last = state_.attachments.find(std::string(subject));
    for (auto each = state_.attachments.begin(); each != state_.attachments.end(); ++each) {
      if (each != last) check_attachment(each->first, each->second);
    }
    if (last != state_.attachments.end()) check_attachment(last->first, last->second);
    return std::move(problems_);
  }

 private:
  void complain(std::string name, std::string pointer, std::string message) {
    add_problem(problems_, {std::move(name), std::move(pointer), std::move(message)});
  }

  void check_id(std::string_view kind, std::string_view collection, const std::string& id) {
    if (is_resource_id(kind, id)) return;
    complain("invalid_params", place(collection, id),
             words::in_quotes(id) + " is no id here; wanted " + std::string(kind) +
                 "- and letters and digits, as AWS has it");
  }

  void check_all_subnets() {
    std::vector<PlacedSubnet> all;
    for (const auto& [id, subnet] : state_.subnets) {
      check_id("subnet", "subnets", id);
      all.push_back({&subnet, place("subnets", id)});
    }
    for (const Subnet& subnet : config_.subnets) {
      if (!state_.subnets.contains(subnet.id)) all.push_back({&subnet, {}});
    }
    check_subnets(std::move(all), problems_);
  }

  void check_group(const std::string& id, const SecurityGroup& group) {
    check_id("sg", "security_groups", id);
    RuleCount& count = rule_counts_[id];
    for (const bool egress : {false, true}) {
      const auto& rules = egress ? group.egress : group.ingress;
      const std::string pointer = pointer_to(place("security_groups", id), egress ? "egress" : "ingress");
      for (std::size_t i = 0; i < rules.size(); ++i) check_rule(rules[i], pointer_to(pointer, i), problems_);
      count_rules(rules, state_, count.of[egress ? 1 : 0]);
    }
  }

  void check_attachment(const std::string& eni, const Attachment& attachment) {
    const std::string pointer = place("attachments", eni);
    check_id("eni", "attachments", eni);
    if (attachment.vlan && config_.trunk.mode == TrunkMode::tagged) {
      const unsigned vlan = attachment.vlan->value;
      if (attachment.vlan->is_untagged()) {
        // The trunk ENI's own traffic; several such ENIs are told apart by MAC.
      } else if (VlanId::is_valid(vlan)) {
        claim(vlans_, *attachment.vlan, eni, "duplicate_vlan", pointer_to(pointer, "vlan"),
              "VLAN " + std::to_string(vlan));
      } else {
        complain("invalid_params", pointer_to(pointer, "vlan"),
                 "VLAN " + std::to_string(vlan) + " cannot carry an ENI; wanted 1 to 4094");
      }
    }
    if (attachment.mac) {
      check_mac(*attachment.mac, pointer_to(pointer, "mac"), problems_);
      claim(macs_, *attachment.mac, eni, "duplicate_mac", pointer_to(pointer, "mac"),
            "MAC address " + attachment.mac->to_string());
    }
    if (attachment.trunk_mac && config_.trunk.mac && *attachment.trunk_mac != *config_.trunk.mac) {
      complain("wrong_trunk", pointer_to(pointer, "trunk_mac"),
               eni + " belongs to the trunk with MAC address " + attachment.trunk_mac->to_string() +
                   "; this engine's trunk has " + config_.trunk.mac->to_string() + " (trunk.mac in the config file)");
    }
    check_addresses(eni, attachment, pointer_to(pointer, "addresses"));
    check_groups(eni, attachment, pointer_to(pointer, "groups"));
    check_conntrack(attachment.conntrack, pointer_to(pointer, "conntrack"), problems_);
    if (attachment.port) check_port_of(eni, *attachment.port, pointer_to(pointer, "port"));
  }

  void check_addresses(const std::string& eni, const Attachment& attachment, const std::string& pointer) {
    if (attachment.addresses.size() > kMaxAddressesPerInterface) {
      complain("quota", pointer,
               eni + " has " + std::to_string(attachment.addresses.size()) + " addresses; wanted " +
                   std::to_string(kMaxAddressesPerInterface) + " at most");
    }
    const Subnet* subnet = find_subnet(attachment.subnet_id, state_, config_);
    for (std::size_t i = 0; i < attachment.addresses.size(); ++i) {
      const IpAddress& address = attachment.addresses[i];
      claim(addresses_, address, eni, "duplicate_ip", pointer_to(pointer, i), "address " + address.to_string());
      if (subnet != nullptr) check_address_in(*subnet, address, pointer_to(pointer, i));
    }
  }

  void check_address_in(const Subnet& subnet, const IpAddress& address, const std::string& pointer) {
    if (!address.is_v4() && !subnet.ipv6_cidr) {
      return complain("address_outside_subnet", pointer,
                      "address " + address.to_string() + " is IPv6 and " + subnet.id +
                          " has no IPv6 range; put the subnet with one");
    }
    const IpPrefix range = (address.is_v4() ? subnet.cidr : *subnet.ipv6_cidr).network();
    if (!range.contains(address)) {
      return complain(
          "address_outside_subnet", pointer,
          "address " + address.to_string() + " is not in " + range.to_string() + ", the range of " + subnet.id);
    }
    IpAddress fourth = range.address;
    fourth.bytes[15] = static_cast<std::uint8_t>(fourth.bytes[15] + 3);
    if (address <= fourth || address == range.last()) {
      complain("reserved_address", pointer,
               "address " + address.to_string() + " is reserved: AWS keeps the first four and the last of " +
                   range.to_string());
    }
  }

  void check_groups(const std::string& eni, const Attachment& attachment, const std::string& pointer) {
    if (attachment.group_ids.size() > kMaxGroupsPerInterface) {
      complain("quota", pointer,
               eni + " has " + std::to_string(attachment.group_ids.size()) + " security groups; AWS allows " +
                   std::to_string(kMaxGroupsPerInterface) + " at most");
    }
    RuleCount sum;
    for (const std::string& id : attachment.group_ids) {
      const auto count = rule_counts_.find(id);
      if (count == rule_counts_.end()) continue;
      for (const std::size_t direction : {0U, 1U}) {
        for (const std::size_t family : {0U, 1U}) sum.of[direction][family] += count->second.of[direction][family];
      }
    }
    for (const std::size_t direction : {0U, 1U}) {
      for (const std::size_t family : {0U, 1U}) {
        if (sum.of[direction][family] <= kMaxRulesPerInterface) continue;
        complain("quota", pointer,
                 "the groups of " + eni + " have " + std::to_string(sum.of[direction][family]) +
                     (family == 0 ? " IPv4 " : " IPv6 ") + (direction == 0 ? "ingress" : "egress") +
                     " rules together; AWS allows " + std::to_string(kMaxRulesPerInterface) +
                     " at most, so take a group off or merge ranges");
      }
    }
  }

  void check_port_of(const std::string& eni, const PortSpec& port, const std::string& pointer) {
    check_port(port, pointer, problems_);
    if (port.mtu > config_.trunk.mtu) {
      complain("invalid_params", pointer_to(pointer, "mtu"),
               "MTU " + std::to_string(port.mtu) + " is above the trunk's " + std::to_string(config_.trunk.mtu) +
                   "; give the port \"mtu\": " + std::to_string(config_.trunk.mtu) + " or less");
    }
    const std::string interface = interface_of(port);
    if (port.kind == PortKind::vdev && device_name(port.devargs) == device_name(config_.trunk.device)) {
      complain("duplicate_interface", pointer, interface + " is the trunk; give " + eni + " another one");
    }
    claim(interfaces_, interface, eni, "duplicate_interface", pointer, interface);
  }

  // Notes that `eni` has `thing` for itself, or says who has it already.
  template <typename Key>
  void claim(std::map<Key, const std::string*>& taken, const Key& key, const std::string& eni, const char* name,
             const std::string& pointer, const std::string& thing) {
    const auto [owner, is_new] = taken.emplace(key, &eni);
    if (is_new) return;
    if (*owner->second == eni) return complain(name, pointer, thing + " is listed twice for " + eni + "; name it once");
    complain(name, pointer,
             thing + " is taken by " + *owner->second + "; give " + eni + " another one, or detach that one first");
  }

  const DesiredState& state_;
  const EngineConfig& config_;
  Problems problems_;
  std::map<std::string, RuleCount> rule_counts_;
  std::map<VlanId, const std::string*> vlans_;
  std::map<MacAddress, const std::string*> macs_;
  std::map<IpAddress, const std::string*> addresses_;
  std::map<std::string, const std::string*> interfaces_;
};

bool is_path_text(std::string_view text) {
  return std::none_of(text.begin(), text.end(), [](char c) { return static_cast<unsigned char>(c) < 0x20; });
}

// Two prefixes overlap only if one holds the other; in order of address, the holder comes first.
void check_overlap(std::vector<std::pair<IpPrefix, const PlacedSubnet*>> ranges, const char* member,
                   Problems& problems) {
  std::sort(ranges.begin(), ranges.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
  const std::pair<IpPrefix, const PlacedSubnet*>* widest = nullptr;
  for (const auto& range : ranges) {
    if (widest == nullptr || !widest->first.contains(range.first.address)) {
      widest = &range;
      continue;
    }
    const bool mine = !range.second->pointer.empty();
    const auto& [complained, other] = mine ? std::pair(range, *widest) : std::pair(*widest, range);
    if (complained.second->pointer.empty()) continue;  // both are from elsewhere, and were complained about there
    add_problem(problems, {"invalid_params", pointer_to(complained.second->pointer, member),
                           complained.first.to_string() + " of " + complained.second->subnet->id + " overlaps " +
                               other.first.to_string() + " of " + other.second->subnet->id +
                               "; an address can be in one subnet only"});
  }
}

}  // namespace

Problems validate(const DesiredState& state, const EngineConfig& config, std::string_view subject) {
  return Validator(state, config).run(subject);
}

const Subnet* find_subnet(const std::string& id, const DesiredState& state, const EngineConfig& config) {
  if (const auto found = state.subnets.find(id); found != state.subnets.end()) return &found->second;
  const auto known =
      std::find_if(config.subnets.begin(), config.subnets.end(), [&](const Subnet& each) { return each.id == id; });
  return known == config.subnets.end() ? nullptr : &*known;
}

bool is_resource_id(std::string_view kind, std::string_view text) {
  if (!text.starts_with(kind)) return false;
  text.remove_prefix(kind.size());
  if (text.size() < 2 || text.size() > 33 || text[0] != '-') return false;
  return std::all_of(text.begin() + 1, text.end(),
                     [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); });
}

void check_mac(const MacAddress& mac, const std::string& pointer, Problems& problems) {
  if (!mac.is_zero() && !mac.is_multicast()) return;
  add_problem(problems, {"invalid_params", pointer,
                         "MAC address " + mac.to_string() + (mac.is_zero() ? " is all zeros" : " is a multicast one") +
                             "; wanted one that a single interface can have"});
}

void check_conntrack(const ConnectionTracking& conntrack, const std::string& pointer, Problems& problems) {
  const auto check = [&](const char* name, std::uint32_t value, std::uint32_t least, std::uint32_t most) {
    if (value >= least && value <= most) return;
    add_problem(problems, {"invalid_params", pointer_to(pointer, name),
                           "\"" + std::string(name) + "\" is " + std::to_string(value) + "; wanted " +
                               std::to_string(least) + " to " + std::to_string(most) + " seconds, as AWS has it"});
  };
  check("TcpEstablishedTimeout", conntrack.tcp_established_timeout, 60, 432000);
  check("UdpTimeout", conntrack.udp_timeout, 30, 60);
  check("UdpStreamTimeout", conntrack.udp_stream_timeout, 60, 180);
}

void check_rule(const SecurityGroupRule& rule, const std::string& pointer, Problems& problems) {
  const auto complain = [&](const char* member, std::string message) {
    add_problem(problems, {"invalid_params", pointer_to(pointer, member), std::move(message)});
  };
  const auto from = rule.from_port, to = rule.to_port;
  if (rule.protocol < SecurityGroupRule::kAnyProtocol || rule.protocol > 255) {
    complain("protocol", "protocol " + std::to_string(rule.protocol) + " does not exist; wanted -1 (any) or 0 to 255");
  } else if (rule.protocol == kTcp || rule.protocol == kUdp) {
    const std::string name = rule.protocol == kTcp ? "tcp" : "udp";
    if (from == -1 || to == -1) {
      complain(from == -1 ? "from_port" : "to_port",
               "a " + name + " rule needs both from_port and to_port; 0 and 65535 stand for every port");
    } else if (from < 0 || from > 65535 || to < 0 || to > 65535) {
      complain(
          from < 0 || from > 65535 ? "from_port" : "to_port",
          "the ports are " + std::to_string(from) + " to " + std::to_string(to) + "; wanted numbers from 0 to 65535");
    } else if (from > to) {
      complain("from_port",
               "from_port " + std::to_string(from) + " is above to_port " + std::to_string(to) + "; swap them");
    }
  } else if (rule.protocol == kIcmp || rule.protocol == kIcmp6) {
    if (from < -1 || from > 255) {
      complain("from_port",
               "from_port is the ICMP type here and is " + std::to_string(from) + "; wanted -1 (any) or 0 to 255");
    } else if (to < -1 || to > 255) {
      complain("to_port",
               "to_port is the ICMP code here and is " + std::to_string(to) + "; wanted -1 (any) or 0 to 255");
    } else if (from == -1 && to != -1) {
      complain("to_port", "the ICMP type is any (from_port -1), so the code must be any too (to_port -1); it is " +
                              std::to_string(to));
    }
  }
}

void check_port(const PortSpec& port, const std::string& pointer, Problems& problems) {
  const auto complain = [&](const char* member, std::string message) {
    add_problem(problems, {"invalid_params", pointer_to(pointer, member), std::move(message)});
  };
  if (port.mtu < kMinPortMtu || port.mtu > kMaxPortMtu) {
    complain("mtu", "\"mtu\" is " + std::to_string(port.mtu) + "; wanted a whole number from " +
                        std::to_string(kMinPortMtu) + " to " + std::to_string(kMaxPortMtu));
  }
  if (port.kind == PortKind::tap || port.kind == PortKind::virtio_user) {
    const bool legible = std::all_of(port.ifname.begin(), port.ifname.end(),
                                     [](char c) { return c > ' ' && c <= '~' && c != '/' && c != ':'; });
    if (port.ifname.empty() || port.ifname.size() > 15 || !legible || port.ifname == "." || port.ifname == "..") {
      complain("ifname", "\"ifname\" is " + words::in_quotes(port.ifname) +
                             "; wanted 1 to 15 characters without '/', ':' and blanks, as Linux has it");
    }
    if (!is_path_text(port.netns)) complain("netns", "\"netns\" has control characters; wanted a name or a path");
  } else if (port.kind == PortKind::vhost_user) {
    if (port.socket.empty() || port.socket.size() > kMaxSocketPath || !is_path_text(port.socket)) {
      complain("socket", "\"socket\" is " + words::in_quotes(port.socket) + " (" + std::to_string(port.socket.size()) +
                             " bytes); wanted the path of a unix socket, 1 to " + std::to_string(kMaxSocketPath) +
                             " bytes");
    }
  } else if (device_name(port.devargs).empty() || !is_path_text(port.devargs)) {
    complain("devargs", "\"devargs\" is " + words::in_quotes(port.devargs) +
                            "; wanted a DPDK device string such as \"net_ring0\"");
  }
}

void check_subnets(std::vector<PlacedSubnet> subnets, Problems& problems) {
  std::vector<std::pair<IpPrefix, const PlacedSubnet*>> v4, v6;
  for (const PlacedSubnet& placed : subnets) {
    const Subnet& subnet = *placed.subnet;
    if (subnet.cidr.is_v4() && subnet.cidr.length >= 16 && subnet.cidr.length <= 28) {
      v4.emplace_back(subnet.cidr.network(), &placed);
    } else if (!placed.pointer.empty()) {
      add_problem(problems, {"invalid_params", pointer_to(placed.pointer, "cidr"),
                             "the range of " + subnet.id + " is " + subnet.cidr.to_string() +
                                 "; wanted an IPv4 range from /16 to /28"});
    }
    if (!subnet.ipv6_cidr) continue;
    if (!subnet.ipv6_cidr->is_v4() && subnet.ipv6_cidr->length == 64) {
      v6.emplace_back(subnet.ipv6_cidr->network(), &placed);
    } else if (!placed.pointer.empty()) {
      add_problem(problems,
                  {"invalid_params", pointer_to(placed.pointer, "ipv6_cidr"),
                   "the IPv6 range of " + subnet.id + " is " + subnet.ipv6_cidr->to_string() + "; wanted an IPv6 /64"});
    }
  }
  check_overlap(std::move(v4), "cidr", problems);
  check_overlap(std::move(v6), "ipv6_cidr", problems);
}

std::optional<std::string> missing_facts(const Attachment& attachment, const DesiredState& state,
                                         const EngineConfig& config) {
  std::vector<std::string> missing;
  if (config.trunk.mode == TrunkMode::tagged && !attachment.vlan)
    missing.emplace_back("its VLAN (agent message or --vlan)");
  if (!attachment.mac) missing.emplace_back("its MAC address (task event or --mac)");
  if (attachment.addresses.empty()) missing.emplace_back("an address (task event or --address)");
  if (attachment.subnet_id.empty()) {
    missing.emplace_back("its subnet (task event or --subnet)");
  } else if (find_subnet(attachment.subnet_id, state, config) == nullptr) {
    missing.push_back("subnet " + attachment.subnet_id + " (subnet put)");
  }
  if (attachment.group_ids.empty())
    missing.emplace_back("its security groups (describe-network-interfaces or --group)");
  for (const std::string& id : attachment.group_ids) {
    if (!state.security_groups.contains(id)) missing.push_back("group " + id + " (sg put)");
  }
  if (!attachment.port) missing.emplace_back("its port (task_defaults.port in the config file, or --port)");
  if (missing.empty()) return std::nullopt;
  std::string sentence = "waits for ";
  for (std::size_t i = 0; i < missing.size(); ++i) {
    if (i != 0) sentence += i + 1 == missing.size() ? " and " : ", ";
    sentence += missing[i];
  }
  return sentence;
}

}  // namespace trunkline::config
