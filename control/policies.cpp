// SPDX-License-Identifier: BSD-3-Clause
#include "control/policies.h"

#include <algorithm>

namespace trunkline::control {

std::vector<const Policies::Entry*> Policies::follow(const config::DesiredState& state) {
  std::set<Entries::value_type*> affected;
  const auto note = [&](const std::string& id, const auto*, const auto*) {
    if (const auto users = parts_used_.find(id); users != parts_used_.end()) {
      affected.insert(users->second.begin(), users->second.end());
    }
  };
  for_each_difference(known_.security_groups, state.security_groups, note);
  for_each_difference(known_.prefix_lists, state.prefix_lists, note);
  known_ = state;
  std::vector<const Entry*> compiled;
  for (Entries::value_type* entry : affected) {
    // Without one of its groups nobody can go on carrying the set: its ENIs get others, or leave.
    const bool whole = std::ranges::all_of(entry->first, [&](const auto& id) { return state.security_groups.contains(id); });
    if (!whole) continue;
    compile(*entry);
    compiled.push_back(&entry->second);
  }
  return compiled;
}

std::shared_ptr<const Policy> Policies::carry(const std::string& eni_id, const std::vector<std::string>& group_ids) {
  const std::set<std::string> ids(group_ids.begin(), group_ids.end());
  const auto carried = carried_.find(eni_id);
  if (carried != carried_.end() && carried->second->first == ids) return carried->second->second.policy;
  Entries::value_type& entry = *entries_.try_emplace(ids).first;
  if (!entry.second.policy) compile(entry);
  entry.second.carriers.insert(eni_id);
  drop(eni_id);
  carried_[eni_id] = &entry;
  return entry.second.policy;
}

void Policies::drop(const std::string& eni_id) {
  const auto carried = carried_.find(eni_id);
  if (carried == carried_.end()) return;
  Entries::value_type& entry = *carried->second;
  carried_.erase(carried);
  entry.second.carriers.erase(eni_id);
  if (!entry.second.carriers.empty()) return;
  forget_parts(entry);
  entries_.erase(entries_.find(entry.first));
}

void Policies::compile(Entries::value_type& entry) {
  forget_parts(entry);
  auto& [ids, what] = entry;
  std::vector<const config::SecurityGroup*> groups;
  std::map<std::string, config::PrefixList> prefix_lists;
  for (const std::string& id : ids) {
    const config::SecurityGroup& group = known_.security_groups.at(id);
    groups.push_back(&group);
    what.parts.insert(id);
    for (const auto* rules : {&group.ingress, &group.egress}) {
      for (const config::SecurityGroupRule& rule : *rules) {
        for (const std::string& list_id : rule.prefix_list_ids) {
          // One that is not there yet is a part all the same: it may come.
          if (!what.parts.insert(list_id).second) continue;
          if (const config::PrefixList* list = known_.prefix_lists.get(list_id)) prefix_lists.emplace(list_id, *list);
        }
      }
    }
  }
  what.policy = compile_policy(groups, prefix_lists, numbers_, next_generation_++);
  for (const std::string& id : what.parts) parts_used_[id].insert(&entry);
}

void Policies::forget_parts(Entries::value_type& entry) {
  for (const std::string& id : entry.second.parts) {
    const auto used = parts_used_.find(id);
    if (used == parts_used_.end()) continue;
    used->second.erase(&entry);
    if (used->second.empty()) parts_used_.erase(used);
  }
  entry.second.parts.clear();
}

}  // namespace trunkline::control
