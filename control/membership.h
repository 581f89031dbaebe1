// SPDX-License-Identifier: BSD-3-Clause
//
// Keeps the workers' table of members (dataplane/state/members.h) as the desired state says: an address is in a group
// because an ENI here that carries the group has it, because the group's remote members list it, or both.
//
// A change costs one line written for each address whose groups change, whatever the size of the groups. What does not fit
// (more than Members::kMaxGroups groups of one address, or a full table) is no member of anything, and is tried again.
//
// Control thread only.
#pragma once

#include <cstdint>
#include <memory>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

#include "config/desired_state.h"
#include "control/compile.h"
#include "dataplane/state/members.h"

namespace trunkline::control {

class Membership {
 public:
  Membership(std::shared_ptr<Members> members, GroupNumbers& numbers)
      : members_(std::move(members)), numbers_(numbers) {}

  // From the state that was followed last (an empty one at first) to this one.
  void follow(const config::DesiredState& state);
  const std::shared_ptr<Members>& members() const { return members_; }

 private:
  struct Group {
    GroupId id;
    std::uint32_t reasons;  // why the address is in it
  };
  void add(const IpAddress& address, const std::string& group);
  void remove(const IpAddress& address, const std::string& group);
  void write(const IpAddress& address);

  std::shared_ptr<Members> members_;
  GroupNumbers& numbers_;
  config::DesiredState known_;
  std::unordered_map<IpAddress, std::vector<Group>> groups_;
  std::set<IpAddress> changed_;    // and not written yet
  std::set<IpAddress> unwritten_;  // did not fit
};

}  // namespace trunkline::control
