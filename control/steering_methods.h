// SPDX-License-Identifier: BSD-3-Clause
//
// steering.list and steering.resync of docs/control-protocol.md, and the line that `status` has of it: for each endpoint whether
// the trunk's device knows which queue its packets are for, and where it does not, why. Control thread only.
#pragma once

#include "config/json_reader.h"
#include "control/controller.h"
#include "control/server.h"
#include "dataplane/io/steering.h"

namespace trunkline::control {

// `steering` may be null: an engine without a trunk's device.
config::Json steering_summary(const Controller& controller, Steering* steering);
config::Json steering_report(const Controller& controller, Steering* steering);
void add_steering_methods(Server& server, Controller& controller, Steering* steering);

}  // namespace trunkline::control
