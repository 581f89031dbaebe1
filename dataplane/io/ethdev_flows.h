// SPDX-License-Identifier: BSD-3-Clause
//
// An ethdev as a FlowDevice: rte_flow's patterns and actions made of a rule, its errors in words.
//
// What a device takes is asked with rte_flow_validate(), which installs nothing. A driver may say yes and still refuse the rule
// itself (net_tap asks the kernel only then). Resets are announced on DPDK's interrupt thread, which only sets a flag.
// The ethdev outlives this. Control thread only.
#pragma once

#include <atomic>

#include "dataplane/io/flow_device.h"

namespace trunkline {

class EthdevFlows final : public FlowDevice {
 public:
  explicit EthdevFlows(std::uint16_t ethdev);
  ~EthdevFlows() override;
  EthdevFlows(const EthdevFlows&) = delete;
  EthdevFlows& operator=(const EthdevFlows&) = delete;

  FlowAbility probe(SteeringPattern pattern) override;
  std::expected<FlowHandle, FlowError> insert(const FlowRule& rule) override;
  std::expected<void, FlowError> remove(FlowHandle handle) override;
  std::expected<std::uint64_t, FlowError> hits(FlowHandle handle) override;
  void flush() override;
  bool take_reset() override { return reset_.exchange(false, std::memory_order_relaxed); }
  void announce_reset() { reset_.store(true, std::memory_order_relaxed); }  // any thread

 private:
  std::uint16_t ethdev_;
  std::string driver_;
  std::atomic<bool> reset_{false};
};

}  // namespace trunkline
