// SPDX-License-Identifier: BSD-3-Clause
//
// What differs between two states, as JSON: for each of the state's maps the ids that differ, each with its new value as
// state_json.h writes it, or null where it is gone. Members of a group elsewhere in the VPC are told one by one, since such
// a group can be large and changes a little at a time; and of the rules of a group or the entries of a prefix list that
// was there before, how many at the beginning and at the end stay, and only those between:
//
//     {"security_groups":{"sg-1":{"ingress":[{...}],"egress":[],"kept":{"ingress":[500,499],"egress":[1,0]}},"sg-2":null},
//      "prefix_lists":{"pl-1":{"entries":["10.9.0.0/16"],"kept":{"entries":[0,17]}}},
//      "remote_members":{"sg-1":{"add":["10.0.9.9"],"remove":[]}}}
//
// The revision is not part of it. apply_difference(a, difference_json(a, b)) makes a equal to b but for the revision.
#pragma once

#include <expected>
#include <string>

#include "config/desired_state.h"
#include "config/json_reader.h"

namespace trunkline::config {

Json difference_json(const DesiredState& before, const DesiredState& after);

// An error is a sentence, and leaves the state half-way: give it a copy.
std::expected<void, std::string> apply_difference(DesiredState& state, const Json& difference);

}  // namespace trunkline::config
