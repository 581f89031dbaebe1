// SPDX-License-Identifier: BSD-3-Clause
//
// The tasks of the state in the words of `aws ecs describe-tasks`, so that what a person or a script asks of AWS can be
// asked of the engine: `--query 'tasks[0].attachments[0].details'` finds the same things in the same places.
//
// Pure functions; control thread and tests only.
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "config/desired_state.h"
#include "config/json_reader.h"

namespace trunkline::control {

// {"tasks":[...],"failures":[...]}; no refs: all tasks. A ref that names no task, or more than one, is a failure.
config::Json describe_tasks(const config::DesiredState& state, std::span<const std::string> task_refs);

// By task id, task ARN, ENI id or attachment id; nullptr if there is none, or if the ref fits more than one.
const config::Attachment* find_attachment(const config::DesiredState& state, std::string_view ref);

}  // namespace trunkline::control
