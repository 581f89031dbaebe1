// SPDX-License-Identifier: BSD-3-Clause
//
// The compiled policies in use: one per distinct set of security groups, shared by the ENIs that carry the same set. A
// policy is compiled anew only when what its groups say has changed, so putting the same groups again changes nothing,
// and no connection notices.
//
// Control thread only.
#pragma once

#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "config/desired_state.h"
#include "control/compile.h"
#include "dataplane/state/policy.h"

namespace trunkline::control {

class Policies {
 public:
  // The policy of a set of groups as `state` defines them; every group must be there.
  std::shared_ptr<const Policy> get(const std::vector<std::string>& group_ids, const config::DesiredState& state);
  // Forgets the sets that nobody asked for since the last call.
  void forget_unused();
  GroupNumbers& numbers() { return numbers_; }

 private:
  struct Entry {
    // What it was compiled from, to tell whether it still holds.
    std::vector<config::SecurityGroup> groups;
    std::map<std::string, config::PrefixList> prefix_lists;
    std::shared_ptr<const Policy> policy;
    bool used = false;
  };
  std::map<std::set<std::string>, Entry> entries_;
  GroupNumbers numbers_;
  std::uint32_t next_generation_ = 1;
};

}  // namespace trunkline::control
