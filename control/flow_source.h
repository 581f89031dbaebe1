// SPDX-License-Identifier: BSD-3-Clause
//
// The workers as flow logs know them: asks all of them for the end of an interval, empties their rings, and tells how many
// records of an endpoint found no room since the last look.
//
// Control thread only. The workers outlive it.
#pragma once

#include <cstdint>
#include <vector>

#include "control/flow_logs.h"
#include "control/workers.h"

namespace trunkline::control {

class WorkerFlows : public FlowSource {
 public:
  WorkerFlows(std::vector<Worker*> workers, std::size_t max_endpoints);

  void end_interval(std::uint32_t number) override;
  bool has_ended(std::uint32_t number) override;
  bool drain(FlowLogs& logs) override;

 private:
  std::vector<Worker*> workers_;
  std::size_t max_endpoints_;
  std::vector<std::uint64_t> lost_;  // by worker and endpoint, as they were
};

}  // namespace trunkline::control
