// SPDX-License-Identifier: BSD-3-Clause
//
// Where the lines of a flow log go, and what goes wrong there. One is a folder of objects (flow_objects.h), one a stream
// (flow_stream.h).
//
// Rules:
//  * Lines are taken in order, each whole or not at all; what was not taken is offered again. So nothing is there twice.
//  * No call waits for somebody else: not for a reader, not for room on a disk. Regular files are written as the kernel
//    takes them, a chunk of lines a call, and are not synced.
//  * An error is a sentence with the path in it; the next call tries again.
//
// Control thread only.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace trunkline::control {

class FlowSink {
 public:
  // Lines of one slot go into one object: the slot of a line is the five minutes in which its end lies.
  static constexpr std::int64_t kSlotSeconds = 300;

  struct Written {
    std::size_t lines = 0;  // how many were taken
    std::string error;      // empty: the rest finds no room now, and nothing is wrong
  };

  virtual ~FlowSink() = default;

  // Unix seconds of the slot's start; each line with its '\n'.
  virtual Written write(std::int64_t slot, std::span<const std::string> lines) = 0;
  // Nothing more comes for slots that begin before this: what holds their lines is complete. The error of the first that
  // cannot be finished, which the next call tries again.
  virtual std::string finish(std::int64_t slots_before) = 0;
  // Lines that were taken and are gone since, because what held them is. Counted once.
  virtual std::uint64_t take_vanished() { return 0; }
  // Completes what another engine left behind. Returns what an operator should read. The one call that may take seconds.
  virtual std::vector<std::string> adopt_leftovers() { return {}; }
  // Objects finished, or streams opened.
  virtual std::uint64_t files() const = 0;
};

}  // namespace trunkline::control
