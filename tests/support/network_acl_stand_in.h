// SPDX-License-Identifier: BSD-3-Clause
//
// Stands in for what control/compile.h and control/ec2_shapes.h are to declare, with the same signatures, so that network ACLs can be
// tested through the whole pipeline. To be deleted, with its .cpp, when they do: then those two are included in its place.
//
// Less than the real thing: of an ACL's JSON only what is sound is understood, and ICMP of the other family (protocol 58 with an
// IPv4 range, 1 with an IPv6 one) matches nothing.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "config/desired_state.h"
#include "config/json_reader.h"
#include "dataplane/state/network_acl.h"

namespace trunkline::control {

std::vector<config::NetworkAcl> read_network_acls(const config::Json& list, const std::string& pointer, config::Problems& problems);
std::shared_ptr<const NetworkAcl> compile_network_acl(const config::NetworkAcl& acl, std::uint32_t generation);

}  // namespace trunkline::control
