// SPDX-License-Identifier: BSD-3-Clause
//
// What DPDK and its drivers say, on its way to stderr. Some of it is said because somebody else wants it: the vhost
// library writes ten lines for each program that connects, and a program may connect ten thousand times a second.
//
// Rules:
//   * A subject has a budget of lines, and all subjects together have one. The subject is what stands in brackets at
//     the line's beginning, which is the socket for the vhost library; otherwise the part of DPDK that speaks.
//   * A line that is over the budget is not written, and counted. tell_of_withheld_lines() says how many and about
//     what.
//   * Lines go to stderr alone, with a level for the journal where stderr is one; DPDK's own stream would send them
//     to syslog as well.
//
// Threads: direct_dpdk_log() once, before the EAL starts. Whoever logs, does; the budget is behind a mutex. Workers
// do not log.
#pragma once

#include <string_view>

#include "config/log_budget.h"

namespace trunkline {

// "VHOST_CONFIG: (/run/task1.sock) new device" is about "/run/task1.sock"; "EAL: Probe" about "EAL".
std::string_view log_subject(std::string_view line);

// From here on DPDK's lines come this way.
void direct_dpdk_log();

LogBudget::Withheld take_withheld_dpdk_lines();

}  // namespace trunkline
