// SPDX-License-Identifier: BSD-3-Clause
//
// Connections, rules and protocols in words: what people read of them, and how they say them. A rule that a worker names by its
// number is found again in the desired state, as compile.h numbers it.
//
// Pure functions; control thread and tests only.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "config/desired_state.h"
#include "dataplane/state/connection_table.h"

namespace trunkline::control {

std::string_view state_name(ConnectionState state);
std::optional<ConnectionState> parse_state(std::string_view name);
// All that parse_state() knows, quoted, for an error's sentence.
std::string state_names();

// "tcp", "udp", "icmp", "icmpv6", or the number.
std::string protocol_name(int protocol);
// These, "icmp6", or a number up to 255.
std::optional<int> parse_protocol(std::string_view text);

// "10.0.0.35:80", "[2001:db8::1]:80"; without a port where the protocol has none.
std::string end_text(const IpAddress& address, std::uint8_t protocol, std::uint16_t port);

// "tcp 80 from 0.0.0.0/0, sg-9effe8e4".
std::string rule_text(const config::SecurityGroupRule& rule, Direction direction);

struct NamedRule {
  std::string group_id;
  std::size_t index = 0;  // in the group's list of that direction
  std::string text;
};
// The rule that an ENI with these groups knows by this number; nullopt: kNoRule, or there is none of this number now.
std::optional<NamedRule> name_rule(const config::DesiredState& state, const std::vector<std::string>& group_ids, Direction direction, RuleId rule);

// What the rules look at of the connection's first packet.
FlowQuery first_query(const Connection& connection, const IpAddress& remote);

}  // namespace trunkline::control
