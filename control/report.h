// SPDX-License-Identifier: BSD-3-Clause
//
// What the engine says about itself, as the JSON of docs/control-protocol.md: status, tasks, counters, drops. Reads the
// controller and the workers' counters, changes nothing. Control thread only.
#pragma once

#include <optional>
#include <string>

#include "config/json_reader.h"
#include "control/controller.h"
#include "control/rpc/call_times.h"
#include "dataplane/io/steering.h"

namespace trunkline::control {

struct EngineFacts {
  std::string version;
  std::string boot_id;
  std::string journal_path;
  const Port* trunk = nullptr;
  rte_mempool* pool = nullptr;
  FlowLogs* flow_logs = nullptr;
  Steering* steering = nullptr;
  const CallTimes* call_times = nullptr;
  std::chrono::steady_clock::time_point started = std::chrono::steady_clock::now();
};

// All workers, as status and worker.list have them.
config::Json workers_report(Controller& controller);
config::Json status_report(Controller& controller, const EngineFacts& facts);
// What each ENI has of what ENIs share, and what it was refused (docs/isolation.md).
config::Json shares_report(Controller& controller);
config::Json stats_report(Controller& controller);
config::Json drops_report(Controller& controller, const std::optional<std::string>& eni_id);
config::Json flow_logs_report(const FlowLogs& logs);
config::Json task_report(Controller& controller, const config::Attachment& attachment, bool full);

}  // namespace trunkline::control
