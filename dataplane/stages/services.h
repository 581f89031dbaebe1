// SPDX-License-Identifier: BSD-3-Clause
//
// Stage 5: the services of the VPC that need no rule. demux has marked what goes to or comes from a service's address
// (Burst::services); here it is settled which of that is exempt from security groups, network ACLs, connections and
// flow logs (Burst::exempt). The rest goes on as any packet does, and the rules judge it.
//
//  * From the task: what the service is asked by its protocol and port. It is remembered (state/asked_services.h), and
//    has an allowance of 1024 packets a second and ENI; the router has one of its own.
//  * Towards the task: an answer to what was asked, and the ICMP error of the router (or of the service itself) that
//    quotes a packet which the task sent. A TCP segment with SYN and no ACK answers nothing.
//  * A connection that the router opened, because a rule let it in, stays a connection for the task's answers. A SYN of
//    the task to the router is a new question.
//
// It stands behind the fragments stage, which tells a later fragment its ports, and before track, so that nothing
// exempt meets a connection. What is exempt has no connection; limit, forward and the meters see it.
//
// Refuses: linklocal_allowance_exceeded.
#pragma once

#include "dataplane/packet.h"
#include "dataplane/state/worker_state.h"

namespace trunkline {

void settle_services(Burst& burst, WorkerState& worker, Direction direction);

inline void services(Burst& burst, WorkerState& worker, Direction direction) {
  if ((burst.services & burst.filtered) != 0) [[unlikely]]
    settle_services(burst, worker, direction);
}

}  // namespace trunkline
