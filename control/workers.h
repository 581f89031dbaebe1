// SPDX-License-Identifier: BSD-3-Clause
//
// The workers as the control thread sees them: all of them at once, and sums over them. An endpoint that moved has been
// counted by several workers, and so has the trunk; a reading of one worker's meter says little.
//
// Control thread only. The workers outlive this.
#pragma once

#include <cstdint>
#include <vector>

#include "dataplane/worker.h"

namespace trunkline::control {

class Workers {
 public:
  // By number; at least one.
  explicit Workers(std::vector<Worker*> workers) : workers_(std::move(workers)) {}

  std::size_t size() const { return workers_.size(); }
  Worker& operator[](std::size_t number) const { return *workers_[number]; }
  auto begin() const { return workers_.begin(); }
  auto end() const { return workers_.end(); }

  void wake() const {
    for (Worker* worker : workers_) worker->wake();
  }

  MeterReading of(EndpointId id, Direction direction) const {
    return sum([&](const Worker& worker) { return &worker.state.meters[id.value].side(direction); });
  }
  // What audit mode let pass, by what it would have been refused for; since the number was first used.
  std::uint64_t audited(EndpointId id, DropReason reason) const {
    std::uint64_t count = 0;
    for (const Worker* worker : workers_) count += worker->state.meters[id.value].audited[static_cast<std::size_t>(reason)].read();
    return count;
  }
  // Of all endpoints that there are or were, both directions.
  std::uint64_t dropped(DropReason reason) const {
    std::uint64_t count = 0;
    for (const Worker* worker : workers_) {
      for (std::size_t id = 0; id < worker->state.max_endpoints; ++id) {
        const EndpointMeters& meters = worker->state.meters[id];
        count += meters.ingress.drops[static_cast<std::size_t>(reason)].read() + meters.egress.drops[static_cast<std::size_t>(reason)].read();
      }
    }
    return count;
  }
  MeterReading trunk_in() const {
    return sum([](const Worker& worker) { return &worker.state.trunk_in; });
  }
  MeterReading trunk_out() const {
    return sum([](const Worker& worker) { return &worker.state.trunk_out; });
  }
  std::uint64_t connections() const {
    std::uint64_t count = 0;
    for (const Worker* worker : workers_) count += worker->state.connections.size();
    return count;
  }
  // That made room for others since the workers' start (docs/connections.md).
  std::uint64_t recycled_connections() const {
    std::uint64_t count = 0;
    for (const Worker* worker : workers_) count += worker->state.connections.recycled();
    return count;
  }
  std::uint64_t connection_capacity() const {
    std::uint64_t count = 0;
    for (const Worker* worker : workers_) count += worker->state.connections.capacity();
    return count;
  }

 private:
  template <class MeterOf>
  MeterReading sum(MeterOf&& meter_of) const {
    std::vector<const Meter*> meters;
    for (const Worker* worker : workers_) meters.push_back(meter_of(*worker));
    return MeterReading::sum_of(meters);
  }

  std::vector<Worker*> workers_;
};

}  // namespace trunkline::control
