// SPDX-License-Identifier: BSD-3-Clause
//
// The methods of docs/control-protocol.md, bound to the controller: parameters in, an edit of the desired state or a
// report out. No other file knows both the protocol's parameters and the controller.
#pragma once

#include "control/controller.h"
#include "control/report.h"
#include "control/server.h"

namespace trunkline::control {

void add_methods(Server& server, Controller& controller, const EngineFacts& facts);

}  // namespace trunkline::control
