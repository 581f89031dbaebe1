// SPDX-License-Identifier: BSD-3-Clause
#include "control/compile.h"

namespace trunkline::control {
namespace {

const std::vector<config::SecurityGroupRule>& rules_of(const config::SecurityGroup& group, Direction direction) {
  return direction == Direction::ingress ? group.ingress : group.egress;
}

RuleBits compile_direction(std::span<const config::SecurityGroup* const> groups,
                           const std::map<std::string, config::PrefixList>& prefix_lists, GroupNumbers& numbers,
                           Direction direction) {
  static_assert(config::SecurityGroupRule::kAnyProtocol == RuleSpec::kAnyProtocol);
  std::vector<RuleSpec> specs;
  for (const config::SecurityGroup* group : groups) {
    if (group == nullptr) continue;
    for (const config::SecurityGroupRule& rule : rules_of(*group, direction)) {
      RuleSpec& spec = specs.emplace_back();
      spec.protocol = rule.protocol;
      spec.from_port = rule.from_port;
      spec.to_port = rule.to_port;
      spec.ranges = rule.ranges;
      for (const std::string& id : rule.prefix_list_ids) {
        if (const auto list = prefix_lists.find(id); list != prefix_lists.end()) {
          spec.ranges.insert(spec.ranges.end(), list->second.entries.begin(), list->second.entries.end());
        }
      }
      for (const std::string& id : rule.group_ids) spec.groups.push_back(numbers.number(id));
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
