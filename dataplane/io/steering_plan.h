// SPDX-License-Identifier: BSD-3-Clause
//
// Which rules an endpoint wants of a device, and the steps from the rules that are installed to those that are wanted. Pure: looks
// at its arguments, touches nothing.
//
// Rules:
//  * The finest pattern that the device takes and that says all of the endpoint; one rule for each of its addresses, where the
//    pattern names them. An ENI that forwards (no source/destination check) gets packets to any address: its pattern names none.
//  * A rule leads to the queue of the endpoint's worker. While an endpoint moves, to that of its previous worker: until the move
//    has settled all packets take the same way, and stay in order.
//  * The mark is the endpoint's number and, above it, some bits of its generation: 20 bits, which every device with marks has.
//  * Order of the steps: what is wanted no more goes first, since it may make room; then what leads elsewhere now, since
//    packets take a detour meanwhile; then what is new.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "dataplane/io/flow_device.h"
#include "dataplane/state/view.h"

namespace trunkline {

using FlowAbilities = std::array<FlowAbility, kSteeringPatterns>;  // by SteeringPattern

struct SteeringWish {
  std::optional<SteeringPattern> pattern;  // nullopt: the endpoint stays in software
  std::vector<FlowRule> rules;
  std::string why;  // without a pattern: why
};

SteeringWish rules_for(const Endpoint& endpoint, const FlowAbilities& abilities, std::uint16_t queues);

constexpr std::uint32_t mark_of(EndpointId id, std::uint16_t generation) { return (generation & 0xffU) << 12 | (id.value & 0xfffU); }

using FlowRules = std::map<FlowMatch, FlowRule>;

enum class SteeringStepKind { remove, replace, add };
struct SteeringStep {
  SteeringStepKind kind;
  FlowRule rule;  // remove: the one that is there
};

std::vector<SteeringStep> plan_steering(const FlowRules& installed, const FlowRules& wanted);

}  // namespace trunkline
