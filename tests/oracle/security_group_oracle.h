// SPDX-License-Identifier: BSD-3-Clause
//
// The security group semantics of AWS once more, written as plainly as they read: every rule of every group in turn,
// every source of every rule in turn, every bit of an address in turn. It exists to disagree with the compiled form
// when that one is wrong, so it shares no code with it and is never made faster.
//
// For tests only; any thread.
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <span>
#include <string>

#include "config/desired_state.h"
#include "config/net.h"
#include "dataplane/state/policy.h"

namespace trunkline::oracle {

struct World {
  std::map<std::string, config::PrefixList> prefix_lists;
  std::map<std::string, std::set<IpAddress>> members;  // of groups, by "sg-..."
};

RuleMatch match(std::span<const config::SecurityGroup* const> groups, const World& world, Direction direction,
                const FlowQuery& query);

bool open_to_everyone(std::span<const config::SecurityGroup* const> groups, const World& world, Direction direction,
                      std::uint8_t protocol, bool ipv4);

}  // namespace trunkline::oracle
