// SPDX-License-Identifier: BSD-3-Clause
//
// What ECS, its agent and EC2 say about tasks, turned into changes of the desired state. The shapes that are understood
// are those of the table "Events" in docs/control-protocol.md.
//
// Two pure steps: read_event() says what an event would change, looking at the state only to tell a stale event and to
// resolve names; apply() makes the next state. The controller validates that one whole before anything happens.
//
// ECS delivers at least once and in no order, so a task carries a version:
//  * an event whose version is not above the last one seen of its task is stale: it changes nothing, and a warning says
//    so. A poll (describe-tasks) of the same version is no news but no harm either; a lower one is stale.
//  * a task whose ENI is gone is remembered with its last version, so that nothing late brings it back.
//  * an ENI is served until ECS detaches it: DEACTIVATING and STOPPING tasks still drain and flush.
//
// Control thread and tests only.
#pragma once

#include <cstdint>
#include <expected>
#include <map>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "config/desired_state.h"
#include "config/json_reader.h"
#include "config/state_json.h"

namespace trunkline::control {

// How many finished tasks are remembered.
inline constexpr std::size_t kMaxFinishedTasks = 1024;

// What is known of the host, for documents that are about more than it.
struct HostIdentity {
  std::string instance_id{}, vpc_id{};  // identity of the config file; empty: not known
  bool take_all = false;                // every interface of a document is this host's
};

struct EventEffect {
  std::vector<config::AttachmentFacts> attach;  // each has an eni_id, and no eni_id is there twice
  std::vector<std::string> detach;              // ENI ids that the state knows
  std::vector<config::Subnet> subnets;
  std::set<std::string> silent_on_ipv6;  // ids of subnets whose document says nothing about an IPv6 block
  std::vector<config::SecurityGroup> groups;
  bool rules_only = false;  // the groups are of describe-security-group-rules
  std::vector<config::NetworkAcl> acls;
  std::vector<std::string> warnings;
  std::map<std::string, std::int64_t> finished;  // task ARN -> last version
};

// `pointer` is where the event stands in the request ("/event"); the problems' pointers begin with it. `configured` are
// the subnets that the config file knows, beside those of the state. `now_ms`: milliseconds since 1970, so that an agent's message
// which says when it was received (`receivedAt` beside `type`) is refused once ECS has stopped waiting for it. `host` tells
// which of a document's interfaces are this host's.
std::expected<EventEffect, config::Problems> read_event(const config::Json& event, std::string_view pointer,
                                                        const config::DesiredState& state,
                                                        std::span<const config::Subnet> configured = {},
                                                        std::optional<std::int64_t> now_ms = {}, const HostIdentity& host = {});

// `defaults` say of every attached ENI what neither the event nor the state says. In the names of its port, {task_id},
// {eni} and {attachment_id} stand for the task's own; a port whose name needs what is not known yet is not set.
void apply(EventEffect&& effect, const config::AttachmentFacts& defaults, config::DesiredState& next);

// Puts a subnet whole, but for the range of its VPC: where the document does not say it, what was known of the subnet or is known
// of another one of that VPC stays. `says_ipv6`: the document speaks of an IPv6 block; otherwise the known one stays.
void put_subnet(config::Subnet subnet, config::DesiredState& next, bool says_ipv6 = true);

// The agent tells a subnet only by its gateway ("10.0.0.1/24"). Until something names it, it goes by an id made from
// its network; ten hex digits, which AWS's own ids (8 or 17) never have.
std::string gateway_subnet_id(const IpPrefix& network);
bool is_gateway_subnet_id(std::string_view id);

}  // namespace trunkline::control
