// SPDX-License-Identifier: BSD-3-Clause
//
// A compiled network ACL: what a subnet's edge lets in and out, asked about each packet that crosses it, replies too.
//
// A network ACL is a list: the entry with the lowest number that matches decides, to allow or to deny, and where none does the
// packet is denied. Matching is that of RuleBits (policy.h), which names the lowest numbered of the rules that match; so an ACL
// is RuleBits over its entries in their order, and beside it which of them allow.
//
// Stateless does not mean that each packet has to be asked about: all packets of one connection in one direction look the same
// to an ACL. The answer is kept with the connection until the ACL is another one (admit.h).
//
// Threads: compiled by control (control/compile.h), immutable from then on, read by workers.
#pragma once

#include <cstdint>
#include <vector>

#include "config/net.h"
#include "dataplane/state/policy.h"

namespace trunkline {

class NetworkAcl {
 public:
  // One direction. `allows`: by RuleId, whether the entry allows.
  struct Side {
    RuleBits entries;
    std::vector<bool> allows;
  };
  struct Answer {
    bool allowed = false;
    RuleId entry = kNoRule;  // the place of the entry that decided; kNoRule: none matched
  };

  std::uint32_t generation = 0;  // never 0 once compiled
  Side ingress, egress;

  // `query` as for security groups, but of this packet: its own destination port, its own ICMP type and code.
  Answer ask(const FlowQuery& query, Direction direction) const {
    const Side& side = direction == Direction::ingress ? ingress : egress;
    const RuleMatch match = side.entries.match(query, {});
    return {match.allowed && side.allows[match.rule], match.rule};
  }
};

}  // namespace trunkline
