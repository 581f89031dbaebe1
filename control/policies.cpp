// SPDX-License-Identifier: BSD-3-Clause
#include "control/policies.h"

namespace trunkline::control {
namespace {

void collect_prefix_lists(const std::vector<config::SecurityGroupRule>& rules, const config::DesiredState& state,
                          std::map<std::string, config::PrefixList>& found) {
  for (const auto& rule : rules) {
    for (const std::string& id : rule.prefix_list_ids) {
      if (const auto list = state.prefix_lists.find(id); list != state.prefix_lists.end()) found.insert(*list);
    }
  }
}

}  // namespace

std::shared_ptr<const Policy> Policies::get(const std::vector<std::string>& group_ids,
                                            const config::DesiredState& state) {
  const std::set<std::string> ids(group_ids.begin(), group_ids.end());
  std::vector<config::SecurityGroup> groups;
  std::map<std::string, config::PrefixList> prefix_lists;
  for (const std::string& id : ids) {
    const config::SecurityGroup& group = state.security_groups.at(id);
    groups.push_back(group);
    collect_prefix_lists(group.ingress, state, prefix_lists);
    collect_prefix_lists(group.egress, state, prefix_lists);
  }
  Entry& entry = entries_[ids];
  entry.used = true;
  if (entry.policy && entry.groups == groups && entry.prefix_lists == prefix_lists) return entry.policy;
  std::vector<const config::SecurityGroup*> pointers;
  for (const auto& group : groups) pointers.push_back(&group);
  entry.policy = compile_policy(pointers, prefix_lists, numbers_, next_generation_++);
  entry.groups = std::move(groups);
  entry.prefix_lists = std::move(prefix_lists);
  return entry.policy;
}

void Policies::forget_unused() {
  std::erase_if(entries_, [](const auto& item) { return !item.second.used; });
  for (auto& [ids, entry] : entries_) entry.used = false;
}

}  // namespace trunkline::control
