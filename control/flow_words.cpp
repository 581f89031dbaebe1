// SPDX-License-Identifier: BSD-3-Clause
#include "control/flow_words.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <set>

#include "control/compile.h"

namespace trunkline::control {
namespace {

struct Protocol {
  std::string_view name;
  int number;
};
constexpr std::array kProtocols{Protocol{"tcp", 6}, Protocol{"udp", 17}, Protocol{"icmp", 1}, Protocol{"icmpv6", 58}, Protocol{"icmp6", 58}};

bool has_ports(int protocol) { return protocol == 6 || protocol == 17; }

}  // namespace

std::string_view state_name(ConnectionState state) { return kConnectionStateNames[static_cast<std::size_t>(state)]; }

std::optional<ConnectionState> parse_state(std::string_view name) {
  for (std::size_t i = static_cast<std::size_t>(ConnectionState::syn_sent); i < kConnectionStates; ++i) {
    if (kConnectionStateNames[i] == name) return static_cast<ConnectionState>(i);
  }
  return std::nullopt;
}

std::string state_names() {
  std::string names;
  for (auto i = static_cast<std::size_t>(ConnectionState::syn_sent); i < kConnectionStates; ++i) {
    names += (names.empty() ? "\"" : ", \"") + std::string(kConnectionStateNames[i]) + "\"";
  }
  return names;
}

std::string protocol_name(int protocol) {
  for (const Protocol& known : kProtocols) {
    if (known.number == protocol) return std::string(known.name);
  }
  return std::to_string(protocol);
}

std::optional<int> parse_protocol(std::string_view text) {
  for (const Protocol& known : kProtocols) {
    if (known.name == text) return known.number;
  }
  int number = -1;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || end != text.data() + text.size() || number < 0 || number > 255) return std::nullopt;
  return number;
}

std::string end_text(const IpAddress& address, std::uint8_t protocol, std::uint16_t port) {
  if (!has_ports(protocol)) return address.to_string();
  return (address.is_v4() ? address.to_string() : "[" + address.to_string() + "]") + ":" + std::to_string(port);
}

std::string rule_text(const config::SecurityGroupRule& rule, Direction direction) {
  std::string text = rule.protocol == config::SecurityGroupRule::kAnyProtocol ? "all" : protocol_name(rule.protocol);
  if (has_ports(rule.protocol)) {
    text += " " + std::to_string(rule.from_port) + (rule.to_port != rule.from_port ? "-" + std::to_string(rule.to_port) : "");
  } else if ((rule.protocol == 1 || rule.protocol == 58) && rule.from_port >= 0) {
    text += " type " + std::to_string(rule.from_port) + (rule.to_port >= 0 ? " code " + std::to_string(rule.to_port) : "");
  }
  std::string peers;
  // A rule may have hundreds of sources: the first few say which rule it is.
  std::size_t listed = 0, left_out = 0;
  const auto add = [&](const std::string& peer) {
    if (listed == 4) {
      ++left_out;
      return;
    }
    ++listed;
    peers += (peers.empty() ? "" : ", ") + peer;
  };
  for (const IpPrefix& range : rule.ranges) add(range.to_string());
  for (const std::string& id : rule.prefix_list_ids) add(id);
  for (const std::string& id : rule.group_ids) add(id);
  if (left_out != 0) peers += " and " + std::to_string(left_out) + " more";
  return text + (direction == Direction::ingress ? " from " : " to ") + (peers.empty() ? "nobody" : peers);
}

std::optional<NamedRule> name_rule(const config::DesiredState& state, const std::vector<std::string>& group_ids, Direction direction, RuleId rule) {
  if (rule == kNoRule) return std::nullopt;
  std::vector<const config::SecurityGroup*> groups;
  // In the order in which policies.cpp compiles a set of groups.
  for (const std::string& id : std::set<std::string>(group_ids.begin(), group_ids.end())) groups.push_back(state.security_groups.get(id));
  const std::vector<RuleOrigin> origins = rule_origins(groups, direction);
  if (rule >= origins.size()) return std::nullopt;
  const RuleOrigin& origin = origins[rule];
  const config::SecurityGroup& group = state.security_groups.at(origin.group_id);
  const auto& rules = direction == Direction::ingress ? group.ingress : group.egress;
  return NamedRule{origin.group_id, origin.index, rule_text(rules.at(origin.index), direction)};
}

FlowQuery first_query(const Connection& connection, const IpAddress& remote) {
  const FlowKey& key = connection.key;
  FlowQuery query{remote, key.protocol(), 0};
  if (has_ports(query.protocol)) {
    query.port = connection.initiator_direction() == Direction::ingress ? key.local_port_number() : key.remote_port_number();
  } else if (query.protocol == (remote.is_v4() ? 1 : 58)) {
    const IcmpFlow flow = IcmpFlow::of_port(key.remote_port);
    query.port = static_cast<std::uint16_t>(flow.query_type << 8 | flow.code);
  }
  return query;
}

}  // namespace trunkline::control
