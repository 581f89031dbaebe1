// SPDX-License-Identifier: BSD-3-Clause
//
// From security groups and network ACLs as the operator says them to the Policy and the NetworkAcl that workers read.
//
// Rules are numbered over all groups in the order given: the rules of the first group's list in that direction, then
// those of the second, and so on. rule_origins() numbers in the same way, so a RuleId found by a worker leads back to
// the group and the rule that allowed the flow.
//
// Input is the validated desired state. Still, what is unknown never opens anything: a prefix list that is not in the
// map has no entries, a group that nobody has defined gets a number and simply has no members (AWS calls such a
// reference stale), a null pointer among the groups is passed over. RuleBits::kMaxRules bounds a direction. What a network ACL
// denies stays denied: an entry of it that cannot be denies more than it says, or allows nothing.
//
// Only the control thread calls this. Nothing here fails except by running out of memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "config/desired_state.h"
#include "config/net.h"
#include "dataplane/state/network_acl.h"
#include "dataplane/state/policy.h"

namespace trunkline::control {

// Names of groups <-> the numbers that workers compare. Numbers are never reused, so a worker that still holds an old
// policy cannot take one group for another.
class GroupNumbers {
 public:
  // The number of a group, a new one if it was never heard of.
  GroupId number(const std::string& id);
  std::optional<GroupId> find(const std::string& id) const;
  // Throws std::out_of_range for a number that was not handed out. The reference stays valid.
  const std::string& name(GroupId group) const;

 private:
  std::unordered_map<std::string, GroupId> numbers_;
  std::deque<std::string> names_;
};

// Pure apart from handing out numbers.
std::shared_ptr<const Policy> compile_policy(std::span<const config::SecurityGroup* const> groups,
                                             const std::map<std::string, config::PrefixList>& prefix_lists,
                                             GroupNumbers& numbers, std::uint32_t generation);

// Where a rule of a direction came from, for explanations; indexed by RuleId, kept by the caller beside the policy.
struct RuleOrigin {
  std::string group_id;
  std::size_t index = 0;  // in the group's list of that direction

  friend bool operator==(const RuleOrigin&, const RuleOrigin&) = default;
};
std::vector<RuleOrigin> rule_origins(std::span<const config::SecurityGroup* const> groups, Direction direction);

// Pure. `generation` is not 0.
std::shared_ptr<const NetworkAcl> compile_network_acl(const config::NetworkAcl& acl, std::uint32_t generation);

// The place in the list of the entry that a NetworkAcl::Answer::entry of that direction means; nullopt: the fixed last one. Nearly
// always the number itself, but not in a list that has ICMP entries of the wrong family (compile_acl.cpp).
std::vector<std::optional<std::size_t>> entry_places(const config::NetworkAcl& acl, Direction direction);

}  // namespace trunkline::control
