// SPDX-License-Identifier: BSD-3-Clause
#include "control/compile.h"

namespace trunkline::control {
namespace {

const std::vector<config::SecurityGroupRule>& rules_of(const config::SecurityGroup& group, Direction direction) {
  return direction == Direction::ingress ? group.ingress : group.egress;
}

std::vector<IpPrefix> all_ranges(const config::SecurityGroupRule& rule,
                                 const std::map<std::string, config::PrefixList>& prefix_lists) {
  std::vector<IpPrefix> ranges = rule.ranges;
  for (const std::string& id : rule.prefix_list_ids) {
    if (const auto list = prefix_lists.find(id); list != prefix_lists.end()) {
      ranges.insert(ranges.end(), list->second.entries.begin(), list->second.entries.end());
    }
  }
  return ranges;
}

RuleBits compile_direction(std::span<const config::SecurityGroup* const> groups,
                           const std::map<std::string, config::PrefixList>& prefix_lists, GroupNumbers& numbers,
                           Direction direction) {
  static_assert(config::SecurityGroupRule::kAnyProtocol == RuleSpec::kAnyProtocol);
  std::vector<RuleSpec> specs;
  // What the specs show: a rule's ranges where they are, unless prefix lists join them. A deque's elements stay in place.
  std::deque<std::vector<IpPrefix>> joined;
  std::deque<std::vector<GroupId>> references;
  for (const config::SecurityGroup* group : groups) {
    if (group == nullptr) continue;
    for (const config::SecurityGroupRule& rule : rules_of(*group, direction)) {
      RuleSpec& spec = specs.emplace_back();
      spec.protocol = rule.protocol;
      spec.from_port = rule.from_port;
      spec.to_port = rule.to_port;
      spec.ranges = rule.ranges;
      if (!rule.prefix_list_ids.empty()) spec.ranges = joined.emplace_back(all_ranges(rule, prefix_lists));
      if (rule.group_ids.empty()) continue;
      std::vector<GroupId>& numbered = references.emplace_back();
      for (const std::string& id : rule.group_ids) numbered.push_back(numbers.number(id));
      spec.groups = numbered;
    }
  }
  return RuleBits::compile(specs);
}

}  // namespace

GroupId GroupNumbers::number(const std::string& id) {
  const auto [entry, is_new] = numbers_.try_emplace(id, GroupId{static_cast<std::uint32_t>(names_.size())});
  if (is_new) names_.push_back(id);
  return entry->second;
}

std::optional<GroupId> GroupNumbers::find(const std::string& id) const {
  const auto entry = numbers_.find(id);
  if (entry == numbers_.end()) return std::nullopt;
  return entry->second;
}

const std::string& GroupNumbers::name(GroupId group) const { return names_.at(group.value); }

std::shared_ptr<const Policy> compile_policy(std::span<const config::SecurityGroup* const> groups,
                                             const std::map<std::string, config::PrefixList>& prefix_lists,
                                             GroupNumbers& numbers, std::uint32_t generation) {
  auto policy = std::make_shared<Policy>();
  policy->generation = generation;
  policy->ingress = compile_direction(groups, prefix_lists, numbers, Direction::ingress);
  policy->egress = compile_direction(groups, prefix_lists, numbers, Direction::egress);
  return policy;
}

std::vector<RuleOrigin> rule_origins(std::span<const config::SecurityGroup* const> groups, Direction direction) {
  std::vector<RuleOrigin> origins;
  for (const config::SecurityGroup* group : groups) {
    if (group == nullptr) continue;
    for (std::size_t i = 0; i < rules_of(*group, direction).size(); ++i) origins.push_back({group->id, i});
  }
  return origins;
}

}  // namespace trunkline::control
