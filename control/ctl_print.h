// SPDX-License-Identifier: BSD-3-Clause
//
// What trunkctl shows to people: results of the control protocol as tables and short pages. Each function takes the
// `result` of the method of its name and gives the whole text, so that nothing is half printed when an answer turns out
// not to be as the protocol has it (AnswerError). Members that are missing, null or empty are shown as "-"; members
// that this trunkctl does not know are left out of tables and listed on pages. Rules and subnets are in ctl_print_rules.cpp.
//
// Columns, their order and their headers are stable: scripts that use --no-headers may count on them, and new columns
// are added before the last one, which alone may have spaces in it.
#pragma once

#include <string>

#include "control/ctl_page.h"

namespace trunkline::control {

std::string print_status(const Json& result, const Style& style);
std::string print_stats(const Json& result, const Style& style);
std::string print_drops(const Json& result, const Style& style);
std::string print_task_list(const Json& result, const Style& style);
std::string print_task_show(const Json& result, const Style& style);
std::string print_sg_list(const Json& result, const Style& style);
std::string print_sg_show(const Json& result, const Style& style);
std::string print_sg_members(const Json& result, const Style& style);
std::string print_acl_list(const Json& result, const Style& style);
std::string print_acl_show(const Json& result, const Style& style);
std::string print_subnet_list(const Json& result, const Style& style);
std::string print_share_list(const Json& result, const Style& style);
std::string print_worker_list(const Json& result, const Style& style);
// For each endpoint whether the trunk's device steers it, and why not.
std::string print_steering_list(const Json& result, const Style& style);
std::string print_flow_list(const Json& result, const Style& style);
// One half of a packet's way: what it was, what each stage said, the rule that decided, the verdict.
std::string print_packet(const Json& packet, const Style& style);
std::string print_explanation(const Json& result, const Style& style);
// Drops with what came to each in the last second.
std::string print_drops_top(const Json& result, const Style& style);
std::string print_flow_log_list(const Json& result, const Style& style);
// What every changing method answers: a line a step, and the revision.
std::string print_change(const Json& result, const Style& style);
// The shapes that are AWS's own (describe-tasks) or ours to give back (the state): JSON, for people too.
std::string print_json(const Json& result, const Style& style);

}  // namespace trunkline::control
