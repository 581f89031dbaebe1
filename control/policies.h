// SPDX-License-Identifier: BSD-3-Clause
//
// The compiled policies in use: one per distinct set of security groups, shared by the ENIs that carry the same set. A
// policy is compiled anew only when what its groups or their prefix lists say has changed, so putting the same groups
// again changes nothing, and no connection notices. A set that no ENI carries any more is forgotten.
//
// Control thread only.
#pragma once

#include <map>
#include <memory>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

#include "config/desired_state.h"
#include "control/compile.h"
#include "dataplane/state/policy.h"

namespace trunkline::control {

class Policies {
 public:
  struct Entry {
    std::shared_ptr<const Policy> policy;
    std::set<std::string> parts;     // ids of its groups and their prefix lists
    std::set<std::string> carriers;  // ENIs
  };

  // From the state that was followed last (an empty one at first) to this one: compiles what it changes, and answers with
  // the sets that have another policy now, good until the next carry() or drop().
  std::vector<const Entry*> follow(const config::DesiredState& state);

  // The ENI carries these groups from now on, and no others. Every one of them must be in the state followed last.
  std::shared_ptr<const Policy> carry(const std::string& eni_id, const std::vector<std::string>& group_ids);
  void drop(const std::string& eni_id);

  GroupNumbers& numbers() { return numbers_; }

 private:
  using Entries = std::map<std::set<std::string>, Entry>;

  void compile(Entries::value_type& entry);
  void forget_parts(Entries::value_type& entry);

  config::DesiredState known_;
  Entries entries_;
  std::unordered_map<std::string, Entries::value_type*> carried_;               // by ENI
  std::unordered_map<std::string, std::set<Entries::value_type*>> parts_used_;  // by id of a group or prefix list
  GroupNumbers numbers_;
  std::uint32_t next_generation_ = 1;
};

}  // namespace trunkline::control
