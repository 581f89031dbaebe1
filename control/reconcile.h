// SPDX-License-Identifier: BSD-3-Clause
//
// From what is there and what is wanted to the ordered steps between them. Pure: looks at its arguments, touches
// nothing, so that a dry run is the same code as the real thing.
//
// Order: what leaves goes first (it may free a namespace, an interface name, a VLAN for what comes), then ports are
// opened, then endpoints enter the View, each together with its policy. An endpoint that still misses facts has no step: it
// waits.
#pragma once

#include <map>
#include <set>
#include <string>
#include <vector>

#include "config/desired_state.h"
#include "config/engine_config.h"

namespace trunkline::control {

enum class StepKind {
  withdraw,    // out of the View; its connections are forgotten
  close_port,  // and its interface removed, if it was ours
  open_port,
  admit,       // into the View
  update,      // the same port, something else about it (VLAN, groups, timeouts)
};

struct Step {
  StepKind kind;
  std::string eni_id;
  std::string text;  // for people: "open tap eth0 in netns web"
};

// Attachments whose endpoint is in the View, as they were when it entered.
using ActiveAttachments = std::map<std::string, config::Attachment>;

// `among`: the only ENIs to look at, for a caller who knows that nothing has changed for the others; null is all of them.
std::vector<Step> plan(const ActiveAttachments& active, const config::DesiredState& desired,
                       const config::EngineConfig& config, const std::set<std::string>* among = nullptr);

// "tap:web/eth0", "vhost-user:/run/x.sock", "vdev:net_null0": how a port is called in tables.
std::string port_name(const config::PortSpec& port);

}  // namespace trunkline::control
