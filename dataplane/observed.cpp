// SPDX-License-Identifier: BSD-3-Clause
//
// The pipeline with somebody who looks: the same stages in the same order, compiled apart so that the worker's own copy of them
// stays as it is.
#include "dataplane/pipeline.h"

namespace trunkline::observed {

void process_from_trunk(Burst& burst, WorkerState& worker) {
  Watch watch(worker);
  pipeline::from_trunk(burst, worker, false, watch);
}

void process_from_task(Burst& burst, WorkerState& worker, const Endpoint& endpoint) {
  Watch watch(worker);
  pipeline::from_task(burst, worker, endpoint, watch);
}

void process_handed_from_trunk(Burst& burst, WorkerState& worker) {
  Watch watch(worker);
  pipeline::from_trunk(burst, worker, true, watch);
}

void process_known(Burst& burst, std::span<const HandedPacket> handed, WorkerState& worker) {
  Watch watch(worker);
  pipeline::known(burst, handed, worker, watch);
}

}  // namespace trunkline::observed
