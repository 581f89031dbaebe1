// SPDX-License-Identifier: BSD-3-Clause
#include "control/network_acls.h"

#include <algorithm>

#include "control/compile.h"

namespace trunkline::control {
namespace {

bool same_entries(const config::NetworkAcl* a, const config::NetworkAcl* b) {
  return a != nullptr && b != nullptr && a->ingress == b->ingress && a->egress == b->egress;
}

}  // namespace

void NetworkAcls::follow(const config::DesiredState& state) {
  // All that goes before all that comes: a subnet may have gone from one ACL to another.
  for_each_unshared(known_.network_acls, state.network_acls,
                    [&](const std::string& id, const config::NetworkAcl* before, const config::NetworkAcl* after) {
                      if (!same_entries(before, after)) compiled_.erase(id);
                      if (before == nullptr) return;
                      for (const std::string& subnet : before->subnet_ids) acl_of_.erase(subnet);
                    });
  for_each_unshared(known_.network_acls, state.network_acls,
                    [&](const std::string& id, const config::NetworkAcl*, const config::NetworkAcl* after) {
                      if (after == nullptr) return;
                      for (const std::string& subnet : after->subnet_ids) acl_of_[subnet] = id;
                    });
  known_ = state;
}

std::shared_ptr<const NetworkAcl> NetworkAcls::of(const std::string& subnet_id) {
  const auto id = acl_of_.find(subnet_id);
  if (id == acl_of_.end()) return nullptr;
  std::shared_ptr<const NetworkAcl>& compiled = compiled_[id->second];
  if (!compiled) compiled = compile_network_acl(known_.network_acls.at(id->second), next_generation_++);
  return compiled;
}

std::set<std::string> subnets_with_other_acl(const config::DesiredState& before, const config::DesiredState& after) {
  std::set<std::string> subnets;
  for_each_unshared(before.network_acls, after.network_acls,
                    [&](const std::string&, const config::NetworkAcl* old_acl, const config::NetworkAcl* new_acl) {
                      const bool same = same_entries(old_acl, new_acl);
                      const auto add = [&](const config::NetworkAcl* acl, const config::NetworkAcl* other) {
                        if (acl == nullptr) return;
                        for (const std::string& subnet : acl->subnet_ids) {
                          if (!same || std::ranges::find(other->subnet_ids, subnet) == other->subnet_ids.end()) subnets.insert(subnet);
                        }
                      };
                      add(old_acl, new_acl);
                      add(new_acl, old_acl);
                    });
  return subnets;
}

std::vector<std::string> subnets_left_open(const config::DesiredState& before, const config::DesiredState& after) {
  std::vector<std::string> left_open;
  const std::set<std::string> candidates = subnets_with_other_acl(before, after);
  if (candidates.empty()) return left_open;
  std::set<std::string> used;
  for (const auto& [eni, attachment] : after.attachments) used.insert(attachment.subnet_id);
  for (const std::string& subnet : candidates) {
    if (used.contains(subnet) && find_network_acl(after, subnet) == nullptr) left_open.push_back(subnet);
  }
  return left_open;
}

const config::NetworkAcl* find_network_acl(const config::DesiredState& state, const std::string& subnet_id) {
  for (const auto& [id, acl] : state.network_acls) {
    if (std::ranges::find(acl.subnet_ids, subnet_id) != acl.subnet_ids.end()) return &acl;
  }
  return nullptr;
}

}  // namespace trunkline::control
