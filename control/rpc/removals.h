// SPDX-License-Identifier: BSD-3-Clause
//
// What a request that replaces everything of a kind takes away. An empty file, a pipe whose first program failed or a
// backup of another host is a valid document, and means that every task goes. So such a request is refused until the
// caller says that the removal is meant:
//
//  * "allow_empty": the document has nothing in it (`trunkctl --allow-empty`).
//  * "allow_removal": it takes more than limits.state_replace_removal_percent of the ENIs out of service, or so much of
//    another kind away (groups, their members, the sources of their rules, entries of prefix lists, network ACLs,
//    subnets), or leaves a subnet that has ENIs without a network ACL, which lets everything pass (`--allow-removal`).
//
// A dry run is refused alike; with the permission, it and the change itself tell in warnings what is removed.
//
// Pure functions of two states.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "config/desired_state.h"
#include "config/engine_config.h"
#include "config/problem.h"

namespace trunkline::control {

// How many of a kind there were, and how many of them are not there any more.
struct Loss {
  std::size_t lost = 0, whole = 0;
};

struct RemovalConsent {
  bool empty = false;
  bool removal = false;
};

// Of a request whose document is a whole state.
config::Problems check_removals(const config::DesiredState& before, const config::DesiredState& after, const config::EngineConfig& config,
                                RemovalConsent consent, const std::string& pointer, std::vector<std::string>& warnings);

// Of one whose list of `what` ("security groups") replaces all of them; `given`: how many it has.
config::Problems check_replaced(const std::string& what, Loss loss, std::size_t given,
                                const config::EngineConfig& config, RemovalConsent consent, const std::string& pointer);

}  // namespace trunkline::control
