// SPDX-License-Identifier: BSD-3-Clause
#include "control/flows.h"

#include <algorithm>

#include "config/words.h"
#include "control/flow_words.h"
#include "control/task_json.h"

namespace trunkline::control {
namespace {

using config::Json;
using config::ObjectReader;

// Looked at in all, however few are shown: a list has to be sorted before it is cut.
constexpr std::size_t kMostFlows = 65536;

double in_seconds(Tick ticks) { return static_cast<double>(ticks) / kTicksPerSecond; }

IpAddress remote_of(const ConnectionRecord& record) {
  return record.connection.key.is_ipv6() ? record.addresses.remote : IpAddress::from_v4_bytes(&record.connection.key.remote);
}
IpAddress local_of(const ConnectionRecord& record) {
  return record.connection.key.is_ipv6() ? record.addresses.local : IpAddress::from_v4_bytes(&record.connection.key.local);
}

// Takes the members that say which flows are meant. `said`: whether any of them was there.
FlowFilter read_filter(ObjectReader& reader, const Controller& controller, bool& said, std::optional<RpcError>& unknown) {
  FlowFilter filter;
  if (const auto task = reader.text("task")) {
    said = true;
    const config::Attachment* attachment = find_attachment(controller.desired(), *task);
    const auto active = attachment != nullptr ? controller.active().find(attachment->eni_id) : controller.active().end();
    if (active != controller.active().end()) {
      filter.endpoint = active->second.endpoint->id;
    } else {
      unknown = RpcError{"not_found", "there is no task, ENI or attachment " + config::words::in_quotes(*task) + " in service; see trunkctl task list", "/task", {}};
    }
  }
  if (const auto remote = reader.text("remote")) {
    said = true;
    auto prefix = IpPrefix::parse(*remote);
    if (const auto address = IpAddress::parse(*remote)) prefix = IpPrefix{*address, static_cast<std::uint8_t>(address->is_v4() ? 32 : 128)};
    if (!prefix) reader.complain("remote", "invalid_params", "\"remote\" is " + config::words::in_quotes(*remote) + "; wanted an address or a CIDR like \"198.51.100.0/24\"");
    filter.by_remote = true;
    filter.remote = prefix.value_or(IpPrefix{}).network();
  }
  if (const auto protocol = reader.text("protocol")) {
    said = true;
    const auto number = parse_protocol(*protocol);
    if (!number) reader.complain("protocol", "invalid_params", "\"protocol\" is " + config::words::in_quotes(*protocol) + "; wanted \"tcp\", \"udp\", \"icmp\", \"icmpv6\", or a number up to 255");
    filter.protocol = number.value_or(-1);
  }
  if (const auto port = reader.integer("port", 0, 65535)) said = true, filter.port = static_cast<int>(*port);
  if (const auto name = reader.text("state")) {
    said = true;
    const auto state = parse_state(*name);
    if (!state) {
      reader.complain("state", "invalid_params", "\"state\" is " + config::words::in_quotes(*name) +
                      "; wanted one of " + state_names());
    }
    filter.states = state ? FlowFilter::bit(*state) : FlowFilter::kAnyState;
  }
  if (const auto idle = reader.number("min_idle_s", 0, 864000)) said = true, filter.min_idle = static_cast<Tick>(*idle * kTicksPerSecond);
  return filter;
}

RpcError silent(const std::string& sentence) { return {"worker_silent", sentence, {}, {}}; }

}  // namespace

Json named_rule_json(const Controller& controller, const std::string& eni_id, Direction direction, RuleId number) {
  const auto rule = name_rule(controller.desired(), controller.desired().attachments.at(eni_id).group_ids, direction, number);
  if (!rule) return nullptr;
  return {{"group", rule->group_id}, {"direction", to_string(direction)}, {"index", rule->index}, {"rule", rule->text}};
}

Json rule_json(const Controller& controller, const std::string& eni_id, const Endpoint& endpoint, const Connection& connection, const IpAddress& remote) {
  const Direction direction = connection.initiator_direction();
  if (connection.rule == kAuditedRule) return nullptr;  // audit mode lets it pass
  const bool same_rules = !connection.untracked && connection.policy_generation == endpoint.policy_generation;
  if (same_rules) return named_rule_json(controller, eni_id, direction, connection.rule);
  const Members::Groups groups = controller.view().members->find(remote);
  return named_rule_json(controller, eni_id, direction, endpoint.policy->rules(direction).match(first_query(connection, remote), groups.view()).rule);
}

Json flow_json(const Controller& controller, const std::string& eni_id, const Endpoint& endpoint, const ConnectionRecord& record, WorkerNumber worker, Tick now) {
  const Connection& connection = record.connection;
  const FlowKey& key = connection.key;
  const bool has_ports = key.protocol() == 6 || key.protocol() == 17;
  const auto totals = [&](Direction direction) {
    const Connection::Totals& way = connection.totals[index(direction)];
    return Json{{"packets", way.packets}, {"bytes", way.bytes()}};
  };
  Json age = nullptr;
  for (const Connection::Totals& way : connection.totals) {
    if (way.packets != 0 && (age.is_null() || in_seconds(now - way.first_seen(now)) > age.get<double>())) age = in_seconds(now - way.first_seen(now));
  }
  Json allowed = Json::array();
  for (const Direction direction : {Direction::ingress, Direction::egress}) {
    if ((connection.allowed >> index(direction) & 1) != 0) allowed.push_back(to_string(direction));
  }
  const Tick idle = now - connection.last_seen, timeout = endpoint.timeouts[connection.state];
  return {{"eni", eni_id},
          {"direction", to_string(connection.initiator_direction())},
          {"protocol", protocol_name(key.protocol())},
          {"local", local_of(record).to_string()},
          {"local_port", has_ports ? Json(key.local_port_number()) : Json(nullptr)},
          {"remote", remote_of(record).to_string()},
          {"remote_port", has_ports ? Json(key.remote_port_number()) : Json(nullptr)},
          {"state", state_name(connection.state)},
          {"tracked", !connection.untracked},
          {"allowed", std::move(allowed)},
          {"rule", rule_json(controller, eni_id, endpoint, connection, remote_of(record))},
          {"age_s", std::move(age)},
          {"idle_s", in_seconds(idle)},
          {"expires_s", in_seconds(timeout > idle ? timeout - idle : 0)},
          {"ingress", totals(Direction::ingress)},
          {"egress", totals(Direction::egress)},
          {"worker", worker}};
}

std::expected<Json, RpcError> flow_list(const Controller& controller, Inspector& inspector, const Json& params) {
  config::Problems problems;
  ObjectReader reader(params, "", problems);
  bool said = false;
  std::optional<RpcError> unknown;
  const FlowFilter filter = read_filter(reader, controller, said, unknown);
  const std::string sort = reader.text("sort").value_or("bytes");
  if (sort != "bytes" && sort != "packets" && sort != "idle") {
    reader.complain("sort", "invalid_params", "\"sort\" is " + config::words::in_quotes(sort) + "; wanted \"bytes\", \"packets\" or \"idle\" (largest first)");
  }
  const auto limit = static_cast<std::size_t>(reader.integer("limit", 1, 10000).value_or(100));
  reader.finish();
  if (!problems.empty()) return std::unexpected(refuse(std::move(problems)));
  if (unknown) return std::unexpected(std::move(*unknown));

  auto flows = inspector.list(filter, kMostFlows);
  if (!flows) return std::unexpected(silent(flows.error()));
  std::map<std::uint16_t, std::pair<const std::string*, const Endpoint*>> endpoints;
  for (const auto& [eni, active] : controller.active()) endpoints[active.endpoint->id.value] = {&eni, active.endpoint.get()};
  const auto weight = [&](const Inspector::Found& flow) -> std::uint64_t {
    const Connection& connection = flow.record.connection;
    if (sort == "idle") return flows->now - connection.last_seen;
    if (sort == "packets") return std::uint64_t{connection.totals[0].packets} + connection.totals[1].packets;
    return connection.totals[0].bytes() + connection.totals[1].bytes();
  };
  const std::size_t shown = std::min(limit, flows->found.size());
  std::partial_sort(flows->found.begin(), flows->found.begin() + static_cast<std::ptrdiff_t>(shown), flows->found.end(),
                    [&](const auto& a, const auto& b) { return weight(a) > weight(b); });
  Json list = Json::array();
  for (const Inspector::Found& flow : std::span(flows->found).first(shown)) {
    const FlowKey& key = flow.record.connection.key;
    const auto endpoint = endpoints.find(key.endpoint().value);
    // It may have gone while we waited.
    if (endpoint == endpoints.end() || (endpoint->second.second->generation & FlowKey::kGenerationMask) != key.generation()) continue;
    list.push_back(flow_json(controller, *endpoint->second.first, *endpoint->second.second, flow.record, flow.worker, flows->now));
  }
  return Json{{"flows", std::move(list)}, {"matched", flows->matched}, {"sorted_of", flows->found.size()}};
}

std::expected<Json, RpcError> flow_flush(const Controller& controller, Inspector& inspector, const Json& params) {
  config::Problems problems;
  ObjectReader reader(params, "", problems);
  bool said = false;
  std::optional<RpcError> unknown;
  const FlowFilter filter = read_filter(reader, controller, said, unknown);
  const bool all = reader.boolean("all").value_or(false);
  reader.finish();
  if (problems.empty() && said == all) {
    problems.push_back({"invalid_params", "/all", all ? "\"all\" and a filter are given; leave one of them out"
                                                      : "no filter is given; say which flows are meant (task, remote, protocol, port, state, min_idle_s), or \"all\":true"});
  }
  if (!problems.empty()) return std::unexpected(refuse(std::move(problems)));
  if (unknown) return std::unexpected(std::move(*unknown));
  const auto count = inspector.flush(filter);
  if (!count) return std::unexpected(silent(count.error()));
  return Json{{"flushed", *count}};
}

}  // namespace trunkline::control
