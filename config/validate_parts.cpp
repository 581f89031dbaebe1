// SPDX-License-Identifier: BSD-3-Clause
//
// The checks of validate.h that look at one thing alone.
#include <algorithm>
#include <map>
#include <utility>

#include "config/json_reader.h"
#include "config/protocol.h"
#include "config/validate.h"
#include "config/words.h"

namespace trunkline::config {
namespace {

bool is_path_text(std::string_view text) {
  return std::none_of(text.begin(), text.end(), [](char c) { return static_cast<unsigned char>(c) < 0x20; });
}

using PlacedRange = std::pair<IpPrefix, const PlacedSubnet*>;

void complain_of_overlap(const PlacedRange& earlier, const PlacedRange& later, const char* member, Problems& problems) {
  const bool mine = !later.second->pointer.empty();
  const auto& [complained, other] = mine ? std::pair(later, earlier) : std::pair(earlier, later);
  if (complained.second->pointer.empty()) return;  // both are from elsewhere, and were complained about there
  add_problem(problems, {"invalid_params", pointer_to(complained.second->pointer, member),
                         complained.first.to_string() + " of " + complained.second->subnet->id + " overlaps " + other.first.to_string() +
                             " of " + other.second->subnet->id +
                             "; an address can be in one subnet of a VPC only (vpc_id tells VPCs apart)"});
}

// Ranges are unique within a VPC; a subnet whose VPC nobody named counts as one of `own_vpc`. Two prefixes overlap only if one
// holds the other; in order of address, the holder comes first. So the widest so far of each VPC is all that has to be remembered.
void check_overlap(std::vector<PlacedRange> ranges, const char* member, std::string_view own_vpc, Problems& problems) {
  std::sort(ranges.begin(), ranges.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
  std::map<std::string_view, const PlacedRange*> widest;
  for (const PlacedRange& range : ranges) {
    const std::string& named = range.second->subnet->vpc_id;
    const PlacedRange*& holder = widest[named.empty() ? own_vpc : std::string_view(named)];
    if (holder != nullptr && holder->first.contains(range.first.address)) {
      complain_of_overlap(*holder, range, member, problems);
    } else {
      holder = &range;
    }
  }
}

bool is_ipv4_range(const IpPrefix& range) { return range.is_v4() && range.length >= 16 && range.length <= 28; }
// What CreateSubnet allows: /44 to /64 in steps of 4.
bool is_ipv6_range(const IpPrefix& range) { return !range.is_v4() && range.length >= 44 && range.length <= 64 && range.length % 4 == 0; }

}  // namespace

std::string vdev_name(const std::string& devargs) { return devargs.substr(0, devargs.find(',')); }

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

void check_network_acl_entry(const NetworkAclEntry& entry, const std::string& pointer, Problems& problems) {
  if (entry.number < 1 || entry.number > kMaxNetworkAclEntryNumber) {
    add_problem(problems, {"invalid_params", pointer_to(pointer, "number"),
                           "the entry's number is " + std::to_string(entry.number) + "; wanted 1 to " +
                               std::to_string(kMaxNetworkAclEntryNumber) + ", those above are AWS's own"});
  }
  SecurityGroupRule rule;
  rule.protocol = entry.protocol;
  rule.from_port = entry.from_port;
  rule.to_port = entry.to_port;
  check_rule(rule, pointer, problems);
}

void check_network_acl(const NetworkAcl& acl, const std::string& pointer, Problems& problems) {
  for (const bool egress : {false, true}) {
    const auto& entries = egress ? acl.egress : acl.ingress;
    const std::string list = pointer_to(pointer, egress ? "egress" : "ingress");
    std::size_t of_family[2] = {1, 1};  // the fixed last one
    for (std::size_t i = 0; i < entries.size(); ++i) {
      check_network_acl_entry(entries[i], pointer_to(list, i), problems);
      ++of_family[entries[i].range.is_v4() ? 0 : 1];
      if (i != 0 && entries[i].number <= entries[i - 1].number) {
        add_problem(problems, {"invalid_params", pointer_to(pointer_to(list, i), "number"),
                               "entry " + std::to_string(entries[i].number) + " is there twice, or behind a higher one; a number is one entry's in "
                               "each direction, whatever its family"});
      }
    }
    for (const std::size_t family : {0U, 1U}) {
      if (of_family[family] <= kMaxNetworkAclEntries) continue;
      add_problem(problems, {"quota", list,
                             acl.id + " has " + std::to_string(of_family[family]) + (family == 0 ? " IPv4" : " IPv6") +
                                 " entries here with the fixed one; AWS allows " + std::to_string(kMaxNetworkAclEntries) + " at most, so merge some"});
    }
  }
}

void check_limits(const RateLimits& limits, const std::string& pointer, Problems& problems) {
  const auto check = [&](const char* name, std::uint64_t value, std::int64_t most) {
    if (value <= static_cast<std::uint64_t>(most)) return;
    add_problem(problems, {"invalid_params", pointer_to(pointer, name),
                           "\"" + std::string(name) + "\" is " + std::to_string(value) + " a second; wanted " + std::to_string(most) +
                               " at most, or 0 for no limit"});
  };
  check("ingress_bits", limits.ingress_bits, kMaxLimitBits);
  check("egress_bits", limits.egress_bits, kMaxLimitBits);
  check("ingress_packets", limits.ingress_packets, kMaxLimitPackets);
  check("egress_packets", limits.egress_packets, kMaxLimitPackets);
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
    if (const std::string why = why_not_interface_name(port.ifname); !why.empty()) {
      complain("ifname", "\"ifname\" is " + words::in_quotes(port.ifname) + ", which " + why);
    }
    if (!is_path_text(port.netns)) complain("netns", "\"netns\" has control characters; wanted a name or a path");
  } else if (port.kind == PortKind::vhost_user) {
    if (const std::string why = why_not_socket_path(port.socket); !why.empty()) {
      complain("socket", "\"socket\" is " + words::in_quotes(port.socket) + ", which " + why);
    }
  } else if (const std::string why = why_not_device(port.devargs, DeviceUse::task); !why.empty()) {
    complain("devargs", "\"devargs\" is " + words::in_quotes(port.devargs) + ", which " + why);
  }
}

void check_subnets(std::vector<PlacedSubnet> subnets, Problems& problems, std::string_view own_vpc) {
  std::vector<std::pair<IpPrefix, const PlacedSubnet*>> v4, v6;
  for (const PlacedSubnet& placed : subnets) {
    const Subnet& subnet = *placed.subnet;
    if (subnet.cidr && is_ipv4_range(*subnet.cidr)) {
      v4.emplace_back(subnet.cidr->network(), &placed);
    } else if (subnet.cidr && !placed.pointer.empty()) {
      add_problem(problems, {"invalid_params", pointer_to(placed.pointer, "cidr"),
                             "the range of " + subnet.id + " is " + subnet.cidr->to_string() +
                                 "; wanted an IPv4 range from /16 to /28"});
    } else if (!subnet.cidr && !subnet.ipv6_cidr && !placed.pointer.empty()) {
      add_problem(problems, {"invalid_params", pointer_to(placed.pointer, "cidr"),
                             subnet.id + " has neither an IPv4 nor an IPv6 range; wanted \"cidr\" or \"ipv6_cidr\""});
    }
    const bool vpc_fits = !subnet.vpc_cidr || is_ipv4_range(*subnet.vpc_cidr);
    if (!vpc_fits && !placed.pointer.empty()) {
      add_problem(problems, {"invalid_params", pointer_to(placed.pointer, "vpc_cidr"),
                             "the first range of the VPC of " + subnet.id + " is " + subnet.vpc_cidr->to_string() +
                                 "; wanted an IPv4 range from /16 to /28"});
    }
    if (!subnet.ipv6_cidr) continue;
    if (is_ipv6_range(*subnet.ipv6_cidr)) {
      v6.emplace_back(subnet.ipv6_cidr->network(), &placed);
    } else if (!placed.pointer.empty()) {
      add_problem(problems,
                  {"invalid_params", pointer_to(placed.pointer, "ipv6_cidr"),
                   "the IPv6 range of " + subnet.id + " is " + subnet.ipv6_cidr->to_string() +
                       "; wanted an IPv6 range of /44, /48, /52, /56, /60 or /64"});
    }
  }
  check_overlap(std::move(v4), "cidr", own_vpc, problems);
  check_overlap(std::move(v6), "ipv6_cidr", own_vpc, problems);
}

}  // namespace trunkline::config
