// SPDX-License-Identifier: BSD-3-Clause
//
// Why the engine may differ from nftables and conntrack: a short list, each with a sentence and a condition on the
// state of the flow. A difference that no entry describes fails the test.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "tests/differential/engine_firewall.h"
#include "tests/differential/flow_packet.h"
#include "tests/differential/kernel_firewall.h"

namespace trunkline::differential {

// What both firewalls knew, did with one packet, and knew then. Or, with `idle`: what they knew of a flow behind its
// last packet, and what of that is left now; `packet` is then the last one that the engine passed.
struct Comparison {
  FlowPacket packet;
  bool idle = false;
  std::uint32_t idle_s = 0;  // virtual seconds since the flow's last packet
  bool rules_allow = false;  // the packet as the first of a flow, by the rules as they are (security_group_oracle.h)
  bool revalidates = false;  // the ENI judges tracked connections by each new policy
  bool strict_syn = false;
  bool may_be_untracked =
      false;  // the ENI tracks by default, and the packet's flow, or that of the packet it answers, would be untracked
  EngineEntry engine_before, engine_after;
  EngineVerdict engine;
  KernelEntry kernel_before, kernel_after;
  bool kernel_passed = false;

  bool same_verdict() const { return engine.passed == kernel_passed; }
  bool same_memory() const { return engine_after.exists == kernel_after.exists; }
  // Whether a handshake that conntrack still waits for has become a connection to the engine with this packet.
  bool same_belief() const;
};
std::string text_of(const Comparison& comparison);

struct Reason {
  std::string_view name;
  std::string_view sentence;
  bool (*describes)(const Comparison&);
};

// nullptr: none does.
const Reason* reason_of(const Comparison& difference);

}  // namespace trunkline::differential
