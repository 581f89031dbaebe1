// SPDX-License-Identifier: BSD-3-Clause
#include "control/inspect_methods.h"

#include "control/explain.h"
#include "control/flows.h"

namespace trunkline::control {

void add_inspect_methods(Server& server, Controller& controller, Inspector& inspector, Captures& captures) {
  server.add("explain", Access::look, [&](const config::Json& params, const Caller&) { return explain(controller, inspector, params); });
  server.add("flow.list", Access::look, [&](const config::Json& params, const Caller&) { return flow_list(controller, inspector, params); });
  // What packets carry is for admins. Reading on is part of what was started, and needs no line of its own in the audit.
  server.add("capture.start", Access::change, [&](const config::Json& params, const Caller& caller) { return captures.start(params, caller); });
  server.add("capture.read", Access::look, [&](const config::Json& params, const Caller& caller) { return captures.read(params, caller); });
  server.add("capture.stop", Access::look, [&](const config::Json& params, const Caller& caller) { return captures.stop(params, caller); });
  server.set_gone([&](std::uint64_t connection) { captures.gone(connection); });
  server.add("flow.flush", Access::change, [&](const config::Json& params, const Caller&) { return flow_flush(controller, inspector, params); });
}

}  // namespace trunkline::control
