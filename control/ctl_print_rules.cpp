// SPDX-License-Identifier: BSD-3-Clause
//
// Security groups, network ACLs and subnets, as ctl_print.h has them.
#include <array>

#include "control/ctl_print.h"

namespace trunkline::control {
namespace {

// Protocol and ports of an EC2 permission as people say them: "tcp 80", "tcp 1000-2000", "icmp type 8", "all".
std::string permission(const Json& rule) {
  const std::string protocol = text(rule, "IpProtocol");
  if (protocol == "-1") return "all";
  const Json& from = member(rule, "FromPort");
  const Json& to = member(rule, "ToPort");
  if (from.is_null() || (from == -1 && to == -1)) return protocol;
  if (protocol.starts_with("icmp")) return protocol + " type " + text(from) + (to == -1 ? "" : " code " + text(to));
  return protocol + " " + text(from) + (from == to ? "" : "-" + text(to));
}

// The same of an entry of a network ACL.
std::string entry_traffic(const Json& entry) {
  std::string protocol = text(entry, "Protocol");
  static constexpr std::array<std::array<const char*, 2>, 5> kNames = {
      {{"-1", "all"}, {"1", "icmp"}, {"6", "tcp"}, {"17", "udp"}, {"58", "icmpv6"}}};
  for (const auto& [number, name] : kNames) {
    if (protocol == number) {
      protocol = name;
      break;
    }
  }
  if (const Json& ports = member(entry, "PortRange"); !ports.is_null()) {
    const Json &from = member(ports, "From"), &to = member(ports, "To");
    if (from == 0 && to == 65535) return protocol;
    return protocol + " " + text(from) + (from == to ? "" : "-" + text(to));
  }
  const Json& icmp = member(entry, "IcmpTypeCode");
  if (icmp.is_null() || member(icmp, "Type") == -1) return protocol;
  return protocol + " type " + text(icmp, "Type") + (member(icmp, "Code") == -1 ? "" : " code " + text(icmp, "Code"));
}

void permission_rows(Table& table, const Json& group, const char* rules, const char* direction) {
  static constexpr std::array<std::array<const char*, 2>, 4> kSources = {{{"IpRanges", "CidrIp"},
                                                                          {"Ipv6Ranges", "CidrIpv6"},
                                                                          {"PrefixListIds", "PrefixListId"},
                                                                          {"UserIdGroupPairs", "GroupId"}}};
  const Json& permissions = member(group, rules);
  if (!permissions.is_array()) return;
  for (const Json& rule : permissions) {
    for (const auto& [list, id] : kSources) {
      const Json& sources = member(rule, list);
      if (!sources.is_array()) continue;
      for (const Json& source : sources) {
        table.row({text(group, "GroupId"), text(group, "GroupName"), std::string(direction), permission(rule),
                   text(source, id), text(source, "Description")});
      }
    }
  }
}

}  // namespace

std::string print_sg_list(const Json& result, const Style& style) {
  Table table({"GROUP", ">INGRESS_RULES", ">EGRESS_RULES", ">MEMBERS", "USED_BY", "NAME"});
  for (const Json& group : list_of(result, "groups")) {
    table.row({text(group, "id"), text(group, "ingress_rules"), text(group, "egress_rules"), text(group, "members"),
               text(group, "used_by"), text(group, "name")});
  }
  return table.text(style);
}

std::string print_sg_show(const Json& result, const Style& style) {
  Table table({"GROUP", "NAME", "DIRECTION", "TRAFFIC", "PEER", "DESCRIPTION"});
  for (const Json& group : list_of(result, "SecurityGroups")) {
    permission_rows(table, group, "IpPermissions", "ingress");
    permission_rows(table, group, "IpPermissionsEgress", "egress");
  }
  return table.text(style);
}

std::string print_sg_members(const Json& result, const Style& style) {
  Table table({"GROUP", "WHERE", "ADDRESS"});
  for (const char* where : {"local", "remote"}) {
    const Json& addresses = member(result, where);
    if (!addresses.is_array()) throw AnswerError("\"" + std::string(where) + "\" is not a list");
    for (const Json& address : addresses) table.row({text(result, "group"), std::string(where), text(address)});
  }
  return table.text(style);
}

std::string print_acl_list(const Json& result, const Style& style) {
  Table table({"ACL", ">INGRESS_ENTRIES", ">EGRESS_ENTRIES", "DEFAULT", "SUBNETS", "USED_BY", "VPC"});
  for (const Json& acl : list_of(result, "acls")) {
    table.row({text(acl, "id"), text(acl, "ingress_entries"), text(acl, "egress_entries"), text(acl, "is_default"), text(acl, "subnets"),
               text(acl, "used_by"), text(acl, "vpc")});
  }
  return table.text(style);
}

std::string print_acl_show(const Json& result, const Style& style) {
  Table table({"ACL", "DIRECTION", ">NUMBER", "ACTION", "TRAFFIC", "PEER"});
  for (const Json& acl : list_of(result, "NetworkAcls")) {
    for (const bool egress : {false, true}) {
      for (const Json& entry : list_of(acl, "Entries")) {
        if (member(entry, "Egress") != egress) continue;
        const std::string number = text(entry, "RuleNumber"), action = text(entry, "RuleAction");
        table.row({text(acl, "NetworkAclId"), std::string(egress ? "egress" : "ingress"), number == "32767" || number == "32768" ? "*" : number,
                   Cell(action, action == "deny" ? Colour::red : Colour::green), entry_traffic(entry),
                   text(entry, member(entry, "CidrBlock").is_null() ? "Ipv6CidrBlock" : "CidrBlock")});
      }
    }
  }
  return table.text(style);
}

std::string print_subnet_list(const Json& result, const Style& style) {
  Table table({"SUBNET", "CIDR", "IPV6_CIDR", "VPC", "ZONE"});
  for (const Json& subnet : list_of(result, "Subnets")) {
    std::string v6;
    if (const Json& set = member(subnet, "Ipv6CidrBlockAssociationSet"); set.is_array()) {
      for (const Json& block : set) v6 += (v6.empty() ? "" : ",") + text(block, "Ipv6CidrBlock");
    }
    table.row({text(subnet, "SubnetId"), text(subnet, "CidrBlock"), v6.empty() ? std::string(kEmpty) : v6,
               text(subnet, "VpcId"), text(subnet, "AvailabilityZone")});
  }
  return table.text(style);
}

}  // namespace trunkline::control
