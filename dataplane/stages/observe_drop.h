// SPDX-License-Identifier: BSD-3-Clause
//
// For the watchers (observe.h): drops of packets that are in no burst, which Watch therefore cannot see. These are fragments that were
// held, packets on their way between workers, and packets that a port's driver refused. Who counts such a drop calls
// observe_drop() beside it, while the mbuf is still its own.
//
// Costs one test of a pointer a drop while nobody looks.
#pragma once

#include <rte_mbuf.h>

#include "dataplane/stage.h"
#include "dataplane/state/worker_state.h"
#include "dataplane/verdict.h"

namespace trunkline {

struct DropOutsideBurst {
  EndpointId endpoint{};         // not valid on the trunk: the ENI of the frame's VLAN
  std::uint16_t generation = 0;  // of the endpoint, as far as FlowKey keeps it
  Direction direction = Direction::ingress;
  Stage stage = Stage::forward;
  DropReason reason = DropReason::none;
  bool is_first_sight = false;  // no half has reported the packet: it is to be seen at Point::in too
  std::uint32_t frames = 0;     // that were lost of a super-frame; 0: all that the packet stands for
};

namespace observed {
void dropped(WorkerState& worker, rte_mbuf& packet, const DropOutsideBurst& drop);
}

inline void observe_drop(WorkerState& worker, rte_mbuf& packet, const DropOutsideBurst& drop) {
  if (worker.observers != nullptr) [[unlikely]] observed::dropped(worker, packet, drop);
}

}  // namespace trunkline
