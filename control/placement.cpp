// SPDX-License-Identifier: BSD-3-Clause
//
// The controller's part that decides which worker has an endpoint, and moves it to another.
#include <algorithm>

#include "control/controller.h"

namespace trunkline::control {

std::size_t Controller::endpoints_of(WorkerNumber worker) const {
  return static_cast<std::size_t>(std::ranges::count_if(active_, [&](const auto& each) { return each.second.endpoint->worker == worker; }));
}

WorkerNumber Controller::least_loaded() const {
  std::vector<std::size_t> endpoints(workers_.size(), 0);
  for (const auto& [eni, active] : active_) ++endpoints[active.endpoint->worker];
  return static_cast<WorkerNumber>(std::ranges::min_element(endpoints) - endpoints.begin());
}

void Controller::put(ActiveEndpoint& active, Place place) {
  auto other = std::make_shared<Endpoint>(*active.endpoint);
  other->worker = place.worker;
  other->served_by = place.served_by;
  other->previous_worker = place.previous_worker;
  active.endpoint = std::move(other);
}

std::expected<ChangeResult, config::Problems> Controller::move(const std::string& eni_id, WorkerNumber to, const ChangeOptions& options) {
  const auto refused = [](std::string name, std::string pointer, std::string message) {
    return std::unexpected(config::Problems{{std::move(name), std::move(pointer), std::move(message)}});
  };
  if (auto stale = stale_revision(options)) return std::unexpected(config::Problems{std::move(*stale)});
  if (to >= workers_.size()) {
    return refused("invalid_params", "/worker", "there is no worker " + std::to_string(to) + "; trunkctl worker list shows those that there are");
  }
  const auto entry = active_.find(eni_id);
  if (entry == active_.end()) {
    return refused("invalid_params", "/task", eni_id + " is not active, so no worker has it: " + trouble(eni_id));
  }
  ChangeResult result;
  result.revision = desired_.revision;
  result.durable = durable() && !behind_;
  result.dry_run = options.dry_run;
  const WorkerNumber from = entry->second.endpoint->worker;
  if (from == to) return result;
  if (moves_.contains(eni_id)) return refused("conflict", "/task", eni_id + " is still moving to worker " + std::to_string(from) + ", try again in a second");
  result.changed = true;
  result.steps.push_back("move " + eni_id + " from worker " + std::to_string(from) + " to worker " + std::to_string(to));
  if (options.dry_run) return result;
  moves_.begin(eni_id, from, to);
  put(entry->second, {to, kNoWorker, from});
  publish(moves_.when_in_force());
  // If a worker is stuck for longer, the timer goes on with it.
  wait_for_readers();
  advance_moves();
  return result;
}

void Controller::advance_moves() {
  const auto changed = moves_.advance();
  for (const auto& [eni, phase] : changed) {
    ActiveEndpoint& active = active_.at(eni);
    const Place place = place_of(*active.endpoint);
    put(active, {place.worker, place.worker, phase == MovePhase::settled ? kNoWorker : place.previous_worker});
  }
  if (!changed.empty()) publish(moves_.when_in_force());
}

}  // namespace trunkline::control
