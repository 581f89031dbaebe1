// SPDX-License-Identifier: BSD-3-Clause
//
// Is this state one that the engine can be in? Pure: looks at nothing but its arguments, reports every problem, changes
// nothing. Pointers are into the document that state.replace takes (/attachments/<eni>/vlan, /security_groups/<id>/...).
//
// An attachment that still misses facts is valid (it waits); one whose facts contradict the others' is not.
#pragma once

#include <optional>
#include <string>

#include "config/desired_state.h"
#include "config/engine_config.h"
#include "config/problem.h"

namespace trunkline::config {

// AWS's quotas at their maximum (sizes of tables depend on them).
inline constexpr std::size_t kMaxGroupsPerInterface = 16;
inline constexpr std::size_t kMaxRulesPerInterface = 1000;  // per direction and family
inline constexpr std::size_t kMaxPrefixListEntries = 1000;
inline constexpr std::size_t kMaxAddressesPerInterface = 16;

Problems validate(const DesiredState& state, const EngineConfig& config);

// What an attachment still waits for, as a sentence ("waits for its VLAN (agent message or --vlan) and group sg-1 (sg put)");
// nullopt: complete. Every group it names must be known: no policy, no packets.
std::optional<std::string> missing_facts(const Attachment& attachment, const DesiredState& state, const EngineConfig& config);

}  // namespace trunkline::config
