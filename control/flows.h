// SPDX-License-Identifier: BSD-3-Clause
//
// flow.list and flow.flush: which connections the workers have, whose they are, and the rule that let each of them in.
//
// The rule is named as long as the rules are those that the connection met. Where they have changed since, or where the connection is
// untracked (each change judges it anew), the present rules are asked: the answer is the one that allows it now, if one does.
//
// Control thread only.
#pragma once

#include <expected>
#include <string>

#include "control/controller.h"
#include "control/inspector.h"
#include "control/protocol.h"

namespace trunkline::control {

// The rule that a connection's first packet was let in by, or now would be: {"group","direction","index","rule"}, or null.
config::Json rule_json(const Controller& controller, const std::string& eni_id, const Endpoint& endpoint, const Connection& connection,
                       const IpAddress& remote);
config::Json named_rule_json(const Controller& controller, const std::string& eni_id, Direction direction, RuleId rule);

// One connection as flow.list shows it. `eni_id`: whose it is.
config::Json flow_json(const Controller& controller, const std::string& eni_id, const Endpoint& endpoint, const ConnectionRecord& record,
                       WorkerNumber worker, Tick now);

std::expected<config::Json, RpcError> flow_list(const Controller& controller, Inspector& inspector, const config::Json& params);
std::expected<config::Json, RpcError> flow_flush(const Controller& controller, Inspector& inspector, const config::Json& params);

}  // namespace trunkline::control
