// SPDX-License-Identifier: BSD-3-Clause
#include "control/steering_methods.h"

#include "control/method_parts.h"

namespace trunkline::control {
namespace {

using config::Json;

constexpr const char* kNoDevice = "the engine has no trunk to steer";

template <class T>
Json or_null(const std::optional<T>& value) {
  return value ? Json(*value) : Json(nullptr);
}

const char* hardware(const SteeredEndpoint& endpoint) {
  if (endpoint.installed == 0) return "no";
  return endpoint.installed < endpoint.wanted ? "partly" : "yes";
}

std::map<EndpointId, SteeredEndpoint> by_id(Steering* steering, bool with_hits) {
  std::map<EndpointId, SteeredEndpoint> endpoints;
  if (steering == nullptr) return endpoints;
  for (SteeredEndpoint& each : steering->endpoints(with_hits)) endpoints[each.id] = std::move(each);
  return endpoints;
}

}  // namespace

Json steering_summary(const Controller& controller, Steering* steering) {
  std::size_t in_hardware = 0;
  for (const auto& [id, endpoint] : by_id(steering, false)) {
    if (endpoint.wanted != 0 && endpoint.installed == endpoint.wanted) ++in_hardware;
  }
  const bool active = steering != nullptr && steering->active();
  Json patterns = Json::array();
  for (std::size_t i = 0; active && i < kSteeringPatterns; ++i) {
    if (steering->abilities()[i].available) patterns.push_back(kSteeringPatternNames[i]);
  }
  return {{"mode", controller.config().trunk.steering ? "auto" : "off"},
          {"active", active},
          {"why", steering != nullptr ? steering->inactive_because() : kNoDevice},
          {"patterns", std::move(patterns)},
          {"endpoints", controller.active().size()},
          {"in_hardware", in_hardware},
          {"rules", active ? steering->installed_rules() : 0},
          {"full_after", active ? or_null(steering->full_after()) : Json(nullptr)},
          {"times_lost", active ? steering->times_lost() : 0}};
}

Json steering_report(const Controller& controller, Steering* steering) {
  const auto endpoints = by_id(steering, true);
  const std::string everywhere = steering == nullptr ? kNoDevice : steering->inactive_because();
  Json list = Json::array();
  for (const auto& [eni, active] : controller.active()) {
    const auto found = endpoints.find(active.endpoint->id);
    SteeredEndpoint each;
    if (found != endpoints.end()) {
      each = found->second;
    } else {
      each.why = everywhere.empty() ? "not yet installed" : everywhere;
    }
    const std::string& arn = controller.desired().attachments.at(eni).task.task_arn;
    list.push_back({{"eni", eni},
                    {"task", arn.substr(arn.rfind('/') + 1)},
                    {"worker", active.endpoint->worker},
                    {"hardware", hardware(each)},
                    {"pattern", each.pattern ? Json(to_string(*each.pattern)) : Json(nullptr)},
                    {"queue", each.pattern ? Json(each.queue) : Json(nullptr)},
                    {"rules", each.installed},
                    {"wanted", each.wanted},
                    {"mark", or_null(each.mark)},
                    {"hits", or_null(each.hits)},
                    {"why", each.why}});
  }
  return {{"steering", steering_summary(controller, steering)}, {"endpoints", std::move(list)}};
}

void add_steering_methods(Server& server, Controller& controller, Steering* steering) {
  server.add("steering.list", Access::look, [&controller, steering](const Json& params, const Caller&) -> Answer {
    Params in(params);
    if (!in.sound()) return in.refusal();
    return steering_report(controller, steering);
  });
  server.add("steering.resync", Access::change, [steering](const Json& params, const Caller&) -> Answer {
    Params in(params);
    if (!in.sound()) return in.refusal();
    if (steering == nullptr) return std::unexpected(not_found("trunk to steer", ""));
    const std::size_t rules = steering->installed_rules();
    steering->resync();
    return Json{{"rules", rules}};
  });
}

}  // namespace trunkline::control
