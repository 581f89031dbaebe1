// SPDX-License-Identifier: BSD-3-Clause
#include "control/membership.h"

#include <algorithm>

namespace trunkline::control {
namespace {

template <class Act>
void for_each_membership(const config::Attachment& attachment, Act act) {
  for (const IpAddress& address : attachment.addresses) {
    for (const std::string& group : attachment.group_ids) act(address, group);
  }
}

}  // namespace

void Membership::follow(const config::DesiredState& state) {
  const auto come = [this](const IpAddress& address, const std::string& group) { add(address, group); };
  const auto gone = [this](const IpAddress& address, const std::string& group) { remove(address, group); };
  // What comes is counted before what goes: what only moved from one reason to another has not changed.
  for_each_difference(known_.attachments, state.attachments,
                      [&](const std::string&, const config::Attachment*, const config::Attachment* after) {
                        if (after != nullptr) for_each_membership(*after, come);
                      });
  const config::AddressSet none;
  for_each_difference(known_.remote_members, state.remote_members,
                      [&](const std::string& group, const config::AddressSet* before, const config::AddressSet* after) {
                        for_each_difference(before != nullptr ? *before : none, after != nullptr ? *after : none,
                                            [&](const IpAddress& address, bool is_in) {
                                              is_in ? add(address, group) : remove(address, group);
                                            });
                      });
  for_each_difference(known_.attachments, state.attachments,
                      [&](const std::string&, const config::Attachment* before, const config::Attachment*) {
                        if (before != nullptr) for_each_membership(*before, gone);
                      });
  known_ = state;

  // What leaves the table makes room for what enters it.
  for (const bool leaving : {true, false}) {
    for (const IpAddress& address : changed_) {
      if (groups_.contains(address) != leaving) write(address);
    }
  }
  if (!unwritten_.empty()) {
    for (const IpAddress& address : std::set<IpAddress>(unwritten_)) write(address);
  }
  changed_.clear();
}

void Membership::add(const IpAddress& address, const std::string& name) {
  std::vector<Group>& groups = groups_[address];
  const GroupId id = numbers_.number(name);
  const auto known = std::ranges::find(groups, id, &Group::id);
  if (known != groups.end()) {
    ++known->reasons;
    return;
  }
  groups.insert(std::ranges::upper_bound(groups, id, {}, &Group::id), {id, 1});
  changed_.insert(address);
}

void Membership::remove(const IpAddress& address, const std::string& name) {
  const auto entry = groups_.find(address);
  std::vector<Group>& groups = entry->second;
  const auto known = std::ranges::find(groups, numbers_.number(name), &Group::id);
  if (--known->reasons != 0) return;
  groups.erase(known);
  if (groups.empty()) groups_.erase(entry);
  changed_.insert(address);
}

void Membership::write(const IpAddress& address) {
  std::vector<GroupId> ids;
  if (const auto entry = groups_.find(address); entry != groups_.end()) {
    for (const Group& group : entry->second) ids.push_back(group.id);
  }
  if (members_->set(address, ids)) {
    unwritten_.erase(address);
  } else {
    members_->set(address, {});
    unwritten_.insert(address);
  }
}

}  // namespace trunkline::control
