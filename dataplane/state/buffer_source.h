// SPDX-License-Identifier: BSD-3-Clause
//
// Where a stage takes buffers from that it needs beside those that came: to cut a packet into fragments. A worker's are
// those of the pool of the packet that is cut; `explain` and tests have theirs on the heap, because the stages need
// DPDK's headers only.
//
// Called by the thread that runs the stages. Off the fast path.
#pragma once

#include <rte_mbuf.h>

namespace trunkline {

class BufferSource {
 public:
  virtual ~BufferSource() = default;
  // An empty buffer, as a driver would put a packet into it; nullptr: there is none left. It goes the way of every
  // packet then.
  virtual rte_mbuf* take(const rte_mbuf& like) = 0;
  // A chain of such buffers that goes nowhere.
  virtual void give_back(rte_mbuf* packet) = 0;
};

}  // namespace trunkline
