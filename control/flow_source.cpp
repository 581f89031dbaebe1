// SPDX-License-Identifier: BSD-3-Clause
#include "control/flow_source.h"

#include <algorithm>

namespace trunkline::control {
namespace {

constexpr std::uint32_t kAtOnce = 4096;  // records of a worker; some milliseconds

}  // namespace

WorkerFlows::WorkerFlows(std::vector<Worker*> workers, std::size_t max_endpoints)
    : workers_(std::move(workers)), max_endpoints_(max_endpoints), lost_(workers_.size() * max_endpoints) {}

void WorkerFlows::end_interval(std::uint32_t number) {
  for (Worker* worker : workers_) worker->end_flow_interval(number);
}

bool WorkerFlows::has_ended(std::uint32_t number) {
  return std::ranges::all_of(workers_, [&](const Worker* worker) { return worker->flow_interval_done() >= number; });
}

bool WorkerFlows::drain(FlowLogs& logs) {
  bool empty = true;
  for (std::size_t number = 0; number < workers_.size(); ++number) {
    FlowRecorder& flows = workers_[number]->state.flows;
    SharedRing<FlowRecord>& ring = flows.ring();
    // No more than the control thread may be held for, and than was there when we came: a worker may fill it as fast as we
    // empty it.
    const std::uint32_t ready = std::min(ring.ready(), kAtOnce);
    for (std::uint32_t i = 0; i < ready; ++i) logs.add(ring.front(i));
    ring.drop(ready);
    empty = empty && ring.ready() == 0;
    for (std::size_t id = 0; id < max_endpoints_; ++id) {
      std::uint64_t& seen = lost_[number * max_endpoints_ + id];
      const EndpointId endpoint{static_cast<std::uint16_t>(id)};
      const std::uint64_t now = flows.lost(endpoint);
      if (now != seen) logs.lost(endpoint, now - seen);
      seen = now;
    }
  }
  return empty;
}

}  // namespace trunkline::control
