// SPDX-License-Identifier: BSD-3-Clause
//
// The edge stage's part for DHCP: who may say what (dhcp.h), and where it goes: to the fabric (`edge.dhcp` "relay"), back as the
// engine's answer, or nowhere ("off"). DHCPv6 goes to the fabric in both of the first two.
//
// Refuses: malformed (in fragments as well), dhcp_refused, no_headroom (the answer does not fit into the request's buffer).
#pragma once

#include "dataplane/packet.h"
#include "dataplane/state/view.h"

namespace trunkline {

DropReason dhcp_from_task(Burst& burst, std::uint32_t i, const View& view);
DropReason dhcp_from_trunk(Burst& burst, std::uint32_t i, const View& view);

}  // namespace trunkline
