// SPDX-License-Identifier: BSD-3-Clause
#include "tests/oracle/security_group_oracle.h"

#include <cstddef>
#include <vector>

namespace trunkline::oracle {
namespace {

bool bit(const IpAddress& address, unsigned position) {
  return (address.bytes[position / 8] >> (7 - position % 8) & 1) != 0;
}

bool covers(const IpPrefix& prefix, const IpAddress& address) {
  if (prefix.address.is_v4() != address.is_v4()) return false;
  const unsigned first_bit = address.is_v4() ? 96 : 0;
  for (unsigned i = 0; i < prefix.length; ++i) {
    if (bit(prefix.address, first_bit + i) != bit(address, first_bit + i)) return false;
  }
  return true;
}

bool protocol_and_ports_match(const config::SecurityGroupRule& rule, const FlowQuery& query) {
  if (rule.protocol == -1) return true;
  if (rule.protocol != query.protocol) return false;
  if (rule.protocol == 6 || rule.protocol == 17) return rule.from_port <= query.port && query.port <= rule.to_port;
  if (rule.protocol == 1 || rule.protocol == 58) {
    if (query.remote.is_v4() != (rule.protocol == 1)) return false;
    const int type = query.port / 256;
    const int code = query.port % 256;
    return (rule.from_port == -1 || rule.from_port == type) && (rule.to_port == -1 || rule.to_port == code);
  }
  return true;
}

// All prefixes a rule names, its own and those of its prefix lists.
std::vector<IpPrefix> prefixes_of(const config::SecurityGroupRule& rule, const World& world) {
  std::vector<IpPrefix> prefixes = rule.ranges;
  for (const std::string& id : rule.prefix_list_ids) {
    const auto list = world.prefix_lists.find(id);
    if (list == world.prefix_lists.end()) continue;
    for (const IpPrefix& entry : list->second.entries) prefixes.push_back(entry);
  }
  return prefixes;
}

bool source_is_everyone(const config::SecurityGroupRule& rule, const World& world, bool ipv4) {
  for (const IpPrefix& prefix : prefixes_of(rule, world)) {
    if (prefix.length == 0 && prefix.address.is_v4() == ipv4) return true;
  }
  return false;
}

bool source_matches(const config::SecurityGroupRule& rule, const World& world, const IpAddress& remote) {
  for (const IpPrefix& prefix : prefixes_of(rule, world)) {
    if (covers(prefix, remote)) return true;
  }
  for (const std::string& id : rule.group_ids) {
    const auto group = world.members.find(id);
    if (group != world.members.end() && group->second.contains(remote)) return true;
  }
  return false;
}

template <typename Function>
void for_each_rule(std::span<const config::SecurityGroup* const> groups, Direction direction, Function function) {
  std::size_t number = 0;
  for (const config::SecurityGroup* group : groups) {
    if (group == nullptr) continue;
    for (const auto& rule : direction == Direction::ingress ? group->ingress : group->egress) function(number++, rule);
  }
}

}  // namespace

RuleMatch match(std::span<const config::SecurityGroup* const> groups, const World& world, Direction direction,
                const FlowQuery& query) {
  RuleMatch result;
  for_each_rule(groups, direction, [&](std::size_t number, const config::SecurityGroupRule& rule) {
    if (!protocol_and_ports_match(rule, query) || !source_matches(rule, world, query.remote)) return;
    if (!result.allowed) result.rule = static_cast<RuleId>(number);
    result.allowed = true;
    if (source_is_everyone(rule, world, query.remote.is_v4())) result.from_anywhere = true;
  });
  return result;
}

bool open_to_everyone(std::span<const config::SecurityGroup* const> groups, const World& world, Direction direction,
                      std::uint8_t protocol, bool ipv4) {
  if (protocol != 6 && protocol != 17) return false;
  bool open = false;
  for_each_rule(groups, direction, [&](std::size_t, const config::SecurityGroupRule& rule) {
    const bool all_ports = rule.protocol == -1 ||
                           (rule.protocol == protocol && rule.from_port == 0 && rule.to_port == 65535);
    if (all_ports && source_is_everyone(rule, world, ipv4)) open = true;
  });
  return open;
}

}  // namespace trunkline::oracle
