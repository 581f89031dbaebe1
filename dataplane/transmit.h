// SPDX-License-Identifier: BSD-3-Clause
//
// The last step of a turn: packets into a port's driver. What forward asked of the port (offload.h) and its driver cannot do is
// done here: checksums completed, super-frames cut (stages/segment.h).
//
// Called by the worker that sends on the queue. What the driver does not take is counted and freed: tx_full; no_buffer
// where a super-frame could not be cut; bad_offload where the driver, or what cuts, finds a request that does not fit
// its packet; cpu_allowance_exceeded where the ENI has had its part of the worker's time (state/worker_time.h).
//
// A super-frame that takes longer to cut than its ENI's turn waits in the backlog (state/backlog.h), and so does what
// came from the same ENI behind it.
#pragma once

#include <rte_mbuf.h>

#include <cstdint>
#include <span>

#include "dataplane/state/counters.h"
#include "dataplane/state/view.h"
#include "dataplane/state/worker_state.h"

namespace trunkline {

// What ports without offloads made the processor do. Written by the worker, read by control.
struct OffloadCounters {
  Counter super_frames;  // cut
  Counter segments;      // made of them
  Counter checksums;     // completed, those of segments left out
};

// `bytes`: of all packets; none of them has requests. `worker`: whose observers are told of the drops (stages/observe_drop.h).
void transmit(const PortView& port, std::uint16_t queue, std::span<rte_mbuf*> packets, std::uint64_t bytes, Meter& meter, WorkerState& worker);

// Some have, or the backlog is not empty.
void transmit_with_offloads(const PortView& port, std::uint16_t queue, std::span<rte_mbuf*> packets, Meter& meter, OffloadCounters& done, WorkerState& worker);

// Goes on with the oldest that waits for this port and is charged to the ENI, for a slice of time at most. Something
// waits for it.
void transmit_backlog(const PortView& port, std::uint16_t queue, EndpointId owner, Meter& meter, OffloadCounters& done,
                      WorkerState& worker);

}  // namespace trunkline
