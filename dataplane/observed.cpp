// SPDX-License-Identifier: BSD-3-Clause
//
// The pipeline with somebody who looks: the same stages in the same order, compiled apart so that the worker's own copy of them
// stays as it is.
#include "dataplane/pipeline.h"

namespace trunkline::observed {

void process_from_trunk(Burst& burst, WorkerState& worker) {
  Watch watch(worker);
  pipeline::from_trunk(burst, worker, false, watch);
}

void process_from_task(Burst& burst, WorkerState& worker, const Endpoint& endpoint) {
  Watch watch(worker);
  pipeline::from_task(burst, worker, endpoint, watch);
}

void process_handed_from_trunk(Burst& burst, WorkerState& worker) {
  Watch watch(worker);
  pipeline::from_trunk(burst, worker, true, watch);
}

void process_known(Burst& burst, std::span<const HandedPacket> handed, WorkerState& worker) {
  Watch watch(worker);
  pipeline::known(burst, handed, worker, watch);
}

void process_delivered(std::span<const HandedPacket> handed, WorkerState& worker) {
  const std::size_t before = worker.outbox.size();
  for (const HandedPacket& each : handed) deliver(each, worker);
  Watch(worker).delivered(before);
}

void dropped(WorkerState& worker, rte_mbuf& packet, const DropOutsideBurst& drop) {
  Observation observation;
  observation.cycles = rte_rdtsc();
  observation.endpoint = drop.endpoint, observation.generation = drop.generation;
  if (!drop.endpoint.is_valid() && drop.direction == Direction::egress) {
    if (const Endpoint* sender = detail::sender_on_trunk(packet, *worker.view); sender != nullptr) {
      observation.endpoint = sender->id, observation.generation = sender->generation;
    }
  }
  observation.direction = drop.direction;
  observation.stage = drop.stage;
  observation.verdict = drop.reason;
  observation.fate = Fate::dropped;
  observation.outside_burst = true;
  observation.worker = worker.number;
  observation.frames = drop.frames != 0 ? drop.frames : static_cast<std::uint32_t>(frames_of(packet).packets);
  for (Observer* observer : worker.observers->observers) {
    if (!observer->wants(drop.direction, nullptr) || !observer->is_of(observation.endpoint, observation.generation) || !observer->passes_filter(packet)) continue;
    for (const Point point : {Point::in, Point::drop}) {
      observation.point = point;
      if ((drop.is_first_sight || point == Point::drop) && observer->wants(point)) observer->write_packet(observation, packet);
    }
  }
}

}  // namespace trunkline::observed
