// SPDX-License-Identifier: BSD-3-Clause
#include "tests/differential/nft_rules.h"

#include <vector>

namespace trunkline::differential {
namespace {

std::string transport_match(const config::SecurityGroupRule& rule) {
  if (rule.protocol == config::SecurityGroupRule::kAnyProtocol) return "";
  std::string text = "meta l4proto " + std::to_string(rule.protocol) + ' ';
  if (rule.protocol == 6 || rule.protocol == 17) {
    text += std::string(rule.protocol == 6 ? "tcp" : "udp") + " dport " + std::to_string(rule.from_port) + '-' +
            std::to_string(rule.to_port) + ' ';
  }
  if (rule.protocol == 1 || rule.protocol == 58) {
    const std::string name = rule.protocol == 1 ? "icmp " : "icmpv6 ";
    if (rule.from_port != -1) text += name + "type " + std::to_string(rule.from_port) + ' ';
    if (rule.to_port != -1) text += name + "code " + std::to_string(rule.to_port) + ' ';
  }
  return text;
}

std::vector<IpPrefix> sources_of(const config::DesiredState& state, const config::SecurityGroupRule& rule) {
  std::vector<IpPrefix> sources = rule.ranges;
  const auto add = [&](const IpAddress& address) {
    sources.push_back({address, static_cast<std::uint8_t>(address.is_v4() ? 32 : 128)});
  };
  for (const std::string& id : rule.prefix_list_ids) {
    const config::PrefixList* list = state.prefix_lists.get(id);
    if (list != nullptr) sources.insert(sources.end(), list->entries.begin(), list->entries.end());
  }
  for (const std::string& id : rule.group_ids) {
    if (const config::AddressSet* members = state.remote_members.get(id); members != nullptr) {
      for (const IpAddress& member : *members) add(member);
    }
    for (const auto& [eni, attachment] : state.attachments) {
      for (const std::string& carried : attachment.group_ids) {
        if (carried != id) continue;
        for (const IpAddress& address : attachment.addresses) add(address);
      }
    }
  }
  return sources;
}

std::string address_match(const char* end, const IpPrefix& prefix) {
  const std::string family = prefix.is_v4() ? "ip" : "ip6";
  std::string text = std::string("meta nfproto ") + (prefix.is_v4() ? "ipv4 " : "ipv6 ");
  // nft would leave out a match of no bits, and with it the family.
  if (prefix.length != 0) text += family + ' ' + end + ' ' + prefix.to_string() + ' ';
  return text;
}

}  // namespace

std::string nft_script(const config::DesiredState& state, bool related) {
  std::string chains, jumps;
  for (const auto& [eni, attachment] : state.attachments) {
    for (const Direction direction : {Direction::ingress, Direction::egress}) {
      const bool in = direction == Direction::ingress;
      const std::string chain = eni + (in ? "_in" : "_out");
      for (const IpAddress& address : attachment.addresses) {
        jumps += std::string("    iifname ") + (in ? kWorldInterface : kTasksInterface) +
                 (address.is_v4() ? " ip " : " ip6 ") + (in ? "daddr " : "saddr ") + address.to_string() + " jump " +
                 chain + '\n';
      }
      chains += "  chain " + chain + " {\n";
      for (const std::string& id : attachment.group_ids) {
        const config::SecurityGroup& group = state.security_groups.at(id);
        for (const config::SecurityGroupRule& rule : in ? group.ingress : group.egress) {
          for (const IpPrefix& source : sources_of(state, rule)) {
            chains += "    " + address_match(in ? "saddr" : "daddr", source) + transport_match(rule) + "accept\n";
          }
        }
      }
      chains += "  }\n";
    }
  }
  // An ICMP packet that belongs to no connection and opens none (an error, an answer that nobody asked for) is invalid
  // to conntrack; to a security group it is a packet like others.
  return "flush ruleset\ntable inet differential {\n" + chains + "  chain groups {\n" + jumps + "  }\n" +
         "  chain forward {\n    type filter hook forward priority 0; policy drop;\n"
         "    ct state established accept\n" +
         (related ? "    ct state related accept\n" : "") +
         "    ct state new jump groups\n"
         "    meta l4proto { 1, 58 } jump groups\n"
         "  }\n}\n";
}

}  // namespace trunkline::differential
