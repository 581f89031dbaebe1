// SPDX-License-Identifier: BSD-3-Clause
//
// Which of the interfaces and subnets that a document of a whole account lists concern this host. Everything that is left
// aside is said in a warning: how many, which, why, and how to take them all the same.
//
// An interface is this host's if the state knows it already (ECS, its agent or an operator spoke of it), or if it is attached to
// this host's instance (identity.instance_id). A document with one interface only was asked for by the interface's id, so that
// one is taken unless it is attached to another instance. HostIdentity::take_all takes all.
//
// Pure functions; control thread and tests only.
#pragma once

#include <vector>

#include "control/ec2_shapes.h"
#include "control/event_builder.h"

namespace trunkline::control {

// Of describe-network-interfaces. Where a document does not say a family's addresses, the known ones are added.
std::vector<config::AttachmentFacts> own_interfaces(std::vector<config::AttachmentFacts> all, const std::vector<InterfaceContext>& contexts,
                                                    EventBuilder& builder);
// Of describe-trunk-interface-associations: where it has several trunks, those of a trunk that has a branch here.
std::vector<config::AttachmentFacts> own_branches(std::vector<config::AttachmentFacts> all, const std::vector<InterfaceContext>& contexts,
                                                  EventBuilder& builder);

// Without subnets of one range in several VPCs where the agent named that range by its gateway and nobody knows which VPC is
// this host's.
std::vector<config::Subnet> without_ambiguous(std::vector<config::Subnet> all, EventBuilder& builder);

}  // namespace trunkline::control
