// SPDX-License-Identifier: BSD-3-Clause
//
// The compiled network ACLs in use: one per ACL, shared by the ENIs of its subnets. An ACL is compiled when an ENI of one of its
// subnets asks for it, and anew only when its entries have changed; each compiled one has a number of its own that is never given
// again, so that a worker knows a connection's judgement to be of another ACL.
//
// Control thread only.
#pragma once

#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "config/desired_state.h"
#include "dataplane/state/network_acl.h"

namespace trunkline::control {

class NetworkAcls {
 public:
  // To this state, from the one that was followed last (an empty one at first).
  void follow(const config::DesiredState& state);

  // The ACL of a subnet; nullptr: no ACL names the subnet.
  std::shared_ptr<const NetworkAcl> of(const std::string& subnet_id);

 private:
  config::DesiredState known_;
  std::map<std::string, std::string> acl_of_;  // by subnet
  std::map<std::string, std::shared_ptr<const NetworkAcl>> compiled_;
  std::uint32_t next_generation_ = 1;
};

// The subnets that have another ACL, or one with other entries, in the one state than in the other.
std::set<std::string> subnets_with_other_acl(const config::DesiredState& before, const config::DesiredState& after);

// The subnets with ENIs here that have an ACL before and none after: there everything passes.
std::vector<std::string> subnets_left_open(const config::DesiredState& before, const config::DesiredState& after);

// The ACL that names the subnet, or nullptr.
const config::NetworkAcl* find_network_acl(const config::DesiredState& state, const std::string& subnet_id);

}  // namespace trunkline::control
