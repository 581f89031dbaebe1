// SPDX-License-Identifier: BSD-3-Clause
//
// Security groups as a ruleset of nftables: what the groups of an ENI let in and out is what a new packet has to meet;
// packets of a connection that conntrack knows pass before. Written from the desired state alone, one rule for each
// source of each rule.
#pragma once

#include <string>

#include "config/desired_state.h"

namespace trunkline::differential {

// The interfaces of the namespace: packets towards tasks come in by the one, packets from tasks by the other.
inline constexpr const char* kWorldInterface = "world";
inline constexpr const char* kTasksInterface = "tasks";

// A script for `nft -f`, which replaces the whole ruleset. `related`: ICMP errors about a known connection pass without
// a rule.
std::string nft_script(const config::DesiredState& state, bool related);

}  // namespace trunkline::differential
