// SPDX-License-Identifier: BSD-3-Clause
//
// The engine as one of the two firewalls: its real pipeline (tests/support/vpc.h), one packet a burst, in virtual time.
#pragma once

#include <cstdint>
#include <string>

#include "config/desired_state.h"
#include "tests/differential/flow_packet.h"
#include "tests/support/vpc.h"

namespace trunkline::differential {

struct EngineEntry {
  bool exists = false;  // and is alive
  ConnectionState state = ConnectionState::free;
  bool by_initiator = false;  // the packet that was asked about goes the way of the connection's first one
  bool untracked = false;
  std::uint32_t idle_s = 0;
};
std::string text_of(const EngineEntry& entry);

struct EngineVerdict {
  bool passed = false;
  std::string reason;  // the drop reason's name; empty: it passed
};

class EngineFirewall {
 public:
  EngineFirewall(const config::DesiredState& state, const test::Vpc::Engine& engine);

  void apply(const config::DesiredState& state);
  EngineVerdict pass_packet(const FlowPacket& packet);
  EngineEntry entry_of(const FlowPacket& packet);
  void forget(const FlowPacket& packet);
  void pass_seconds(std::uint32_t seconds) { vpc_.pass(std::uint64_t{seconds} * 1000000); }

 private:
  Connection* find(const FlowPacket& packet);

  test::Vpc vpc_;
};

}  // namespace trunkline::differential
