// SPDX-License-Identifier: BSD-3-Clause
#include "control/inspect_methods.h"

#include "control/explain.h"
#include "control/flows.h"

namespace trunkline::control {

void add_inspect_methods(Server& server, Controller& controller, Inspector& inspector) {
  server.add("explain", Access::look, [&](const config::Json& params, const Caller&) { return explain(controller, inspector, params); });
  server.add("flow.list", Access::look, [&](const config::Json& params, const Caller&) { return flow_list(controller, inspector, params); });
  server.add("flow.flush", Access::change, [&](const config::Json& params, const Caller&) { return flow_flush(controller, inspector, params); });
}

}  // namespace trunkline::control
