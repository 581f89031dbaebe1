// SPDX-License-Identifier: BSD-3-Clause
#include "dataplane/io/steering_plan.h"

#include <algorithm>
#include <span>

namespace trunkline {
namespace {

constexpr SteeringPattern kTagged[] = {SteeringPattern::vlan_mac_address, SteeringPattern::vlan_mac, SteeringPattern::vlan};
constexpr SteeringPattern kUntagged[] = {SteeringPattern::mac_address, SteeringPattern::mac};

// Why the pattern cannot say all of the endpoint; empty: it can.
std::string unfit(const Endpoint& endpoint, SteeringPattern pattern, const FlowAbility& ability) {
  if (!ability.available) return ability.why.empty() ? "the device takes no such rule" : ability.why;
  if (!names_address(pattern)) return {};
  if (!endpoint.source_dest_check) return "an ENI without source/destination check gets packets to any address";
  if (endpoint.addresses().empty()) return "the ENI has no address";
  const bool has_ipv6 = std::ranges::any_of(endpoint.addresses(), [](const IpAddress& address) { return !address.is_v4(); });
  return has_ipv6 && !ability.ipv6 ? "the device takes no IPv6 address" : "";
}

}  // namespace

SteeringWish rules_for(const Endpoint& endpoint, const FlowAbilities& abilities, std::uint16_t queues) {
  SteeringWish wish;
  const WorkerNumber at = endpoint.previous_worker != kNoWorker ? endpoint.previous_worker : endpoint.worker;
  if (at >= queues) {
    wish.why = "worker " + std::to_string(at) + " has no queue of the trunk, which has " + std::to_string(queues);
    return wish;
  }
  const std::span<const SteeringPattern> patterns = endpoint.vlan.is_untagged() ? std::span<const SteeringPattern>(kUntagged) : kTagged;
  for (const SteeringPattern pattern : patterns) {
    const FlowAbility& ability = abilities[static_cast<std::size_t>(pattern)];
    const std::string why = unfit(endpoint, pattern, ability);
    if (!why.empty()) {
      if (wish.why.find(why) == std::string::npos) wish.why += (wish.why.empty() ? "" : "; ") + why;
      continue;
    }
    FlowRule rule{.match = {.vlan = endpoint.vlan.value, .mac = {}, .address = {}}, .queue = at, .mark = {}, .count = ability.count};
    if (pattern != SteeringPattern::vlan) rule.match.mac = endpoint.mac;
    if (ability.mark) rule.mark = mark_of(endpoint.id, endpoint.generation);
    if (!names_address(pattern)) {
      wish.rules.push_back(rule);
    } else {
      for (const IpAddress& address : endpoint.addresses()) {
        rule.match.address = address;
        wish.rules.push_back(rule);
      }
    }
    wish.pattern = pattern;
    wish.why.clear();
    return wish;
  }
  return wish;
}

std::vector<SteeringStep> plan_steering(const FlowRules& installed, const FlowRules& wanted) {
  std::vector<SteeringStep> steps;
  for (const auto& [match, rule] : installed) {
    if (!wanted.contains(match)) steps.push_back({SteeringStepKind::remove, rule});
  }
  for (const auto& [match, rule] : wanted) {
    const auto there = installed.find(match);
    if (there != installed.end() && there->second != rule) steps.push_back({SteeringStepKind::replace, rule});
  }
  for (const auto& [match, rule] : wanted) {
    if (!installed.contains(match)) steps.push_back({SteeringStepKind::add, rule});
  }
  return steps;
}

}  // namespace trunkline
