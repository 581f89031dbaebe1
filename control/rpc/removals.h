// SPDX-License-Identifier: BSD-3-Clause
//
// What a request that replaces everything of a kind takes away. An empty file, a pipe whose first program failed or a backup of
// another host is a valid document, and means that every task goes. So such a request is refused until the caller says that the
// removal is meant:
//
//  * "allow_empty": the document has nothing in it (`trunkctl --allow-empty`).
//  * "allow_removal": it takes more than limits.state_replace_removal_percent of the ENIs out of service, or of another kind away
//    (groups, their members, the sources of their rules, entries of prefix lists, network ACLs, subnets), or leaves a subnet that
//    has ENIs without a network ACL, which lets everything pass (`--allow-removal`).
//
// A dry run is refused alike; with the permission, it and the change itself tell in warnings what is removed.
//
// Pure functions of two states.
#pragma once

#include <string>
#include <vector>

#include "config/desired_state.h"
#include "config/engine_config.h"
#include "config/problem.h"

namespace trunkline::control {

struct RemovalConsent {
  bool empty = false;
  bool removal = false;
};

// Of a request whose document is a whole state.
config::Problems check_removals(const config::DesiredState& before, const config::DesiredState& after, const config::EngineConfig& config,
                                RemovalConsent consent, const std::string& pointer, std::vector<std::string>& warnings);

// Of one that replaces all `what` ("security groups"): of `before` so many are lost, and `after` are there then.
config::Problems check_replaced(std::size_t before, std::size_t lost, std::size_t after, const std::string& what, const config::EngineConfig& config,
                               RemovalConsent consent, const std::string& pointer);

}  // namespace trunkline::control
