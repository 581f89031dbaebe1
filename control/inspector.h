// SPDX-License-Identifier: BSD-3-Clause
//
// The control thread's questions about connections, put to all workers at once (dataplane/state/inspection.h) and waited for with a
// bound. A worker answers between two turns: a few microseconds for find, some milliseconds for a walk over a large table.
//
// A worker that does not answer in time is an error that names it. Its request stays here until the worker has let go of it,
// and until then nothing new is asked. So an Inspector is made before the workers run and destroyed after they ended.
//
// Control thread only. Errors are sentences.
#pragma once

#include <chrono>
#include <expected>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "control/workers.h"
#include "dataplane/state/inspection.h"

namespace trunkline::control {

class Inspector {
 public:
  explicit Inspector(const Workers& workers, std::chrono::milliseconds patience = std::chrono::seconds(2));

  struct Found {
    WorkerNumber worker = 0;
    ConnectionRecord record;
  };
  struct Flows {
    std::vector<Found> found;
    std::uint64_t matched = 0;  // more than found: there was no room for the rest
    std::vector<FragmentedDatagram> datagrams;  // in fragments
    std::vector<Inspection::Flow> asked;        // of services that need no rule
    Tick now = 0;               // the workers' time
    bool is_cut() const { return matched > found.size(); }
  };
  // At most `capacity` of them, with an equal share for each worker.
  std::expected<Flows, std::string> list(const FlowFilter& filter, std::size_t capacity);
  // The live connections with these keys, wherever they are; and what workers know of these datagrams.
  std::expected<Flows, std::string> find(std::span<const Inspection::Flow> flows, std::span<const DatagramKey> datagrams = {});
  // Forgets what matches; how many it were. A packet of a forgotten connection is judged as the first of a new one.
  std::expected<std::uint64_t, std::string> flush(const FlowFilter& filter);

 private:
  template <class Make>
  std::optional<std::string> ask(Make&& make);

  const Workers& workers_;
  const std::chrono::milliseconds patience_;
  std::vector<std::unique_ptr<Inspection>> requests_;  // by worker; what is there may be the worker's still
};

}  // namespace trunkline::control
