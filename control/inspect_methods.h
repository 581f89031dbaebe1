// SPDX-License-Identifier: BSD-3-Clause
//
// The methods of docs/control-protocol.md that look into the running packet path: flows, explain, captures. They change no
// desired state; what may show packets or ends connections is for admins.
#pragma once

#include "control/captures.h"
#include "control/controller.h"
#include "control/inspector.h"
#include "control/server.h"

namespace trunkline::control {

void add_inspect_methods(Server& server, Controller& controller, Inspector& inspector, Captures& captures);

}  // namespace trunkline::control
