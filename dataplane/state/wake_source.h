// SPDX-License-Identifier: BSD-3-Clause
//
// How a port tells a worker that waits, and does not poll, that there is something to receive. A value; the descriptors are the port's
// and live as long as it does.
#pragma once

#include <cstdint>
#include <span>

namespace trunkline {

struct WakeSource {
  std::span<const int> descriptors;  // by queue, readable when there is something; none: it cannot tell
  bool must_be_armed = false;        // by rte_eth_dev_rx_intr_enable(); then it tells once of what comes from then on

  int of_queue(std::uint16_t queue) const { return queue < descriptors.size() ? descriptors[queue] : -1; }
};

}  // namespace trunkline
