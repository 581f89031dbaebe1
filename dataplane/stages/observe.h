// SPDX-License-Identifier: BSD-3-Clause
//
// Between the stages: what they found of each packet, for whoever looks (state/observer.h). It decides nothing and changes nothing.
//
// The pipeline's functions are templates over who watches (pipeline.h). Unwatched is what a worker runs nearly always: nothing is
// called, nothing is compiled. Watch is compiled apart (observed.cpp) and chosen by one test of a pointer a burst.
#pragma once

#include <rte_cycles.h>

#include "dataplane/packet.h"
#include "dataplane/stages/forward.h"
#include "dataplane/state/observer.h"
#include "dataplane/state/worker_state.h"

namespace trunkline {

struct Unwatched {
  void arrived(const Burst&, Direction, const Endpoint* = nullptr) {}
  void operator()(Stage, const Burst&) {}
};

// Follows one half after the other.
class Watch {
 public:
  explicit Watch(WorkerState& worker) : worker_(worker) {}

  // The packets of a half, as they came. `endpoint`: whose they are, if that is known already.
  void arrived(const Burst& burst, Direction direction, const Endpoint* endpoint = nullptr) {
    direction_ = direction;
    refused_ = known_ = 0;
    parsed_ = false;
    for (Observer* observer : worker_.observers->observers) {
      observer->forget_staged();
      if (!observer->wants(direction, endpoint)) continue;
      for (std::uint32_t i = 0; i < burst.size; ++i) observer->stage(i, burst.mbuf[i]);
    }
  }

  // After a stage.
  void operator()(Stage stage, const Burst& burst) {
    for (std::uint32_t i = 0; i < burst.size; ++i) {
      if (burst.alive(i) || (refused_ >> i & 1) != 0) continue;
      refused_ |= std::uint64_t{1} << i;
      refused_by_[i] = stage;
    }
    switch (stage) {
      case Stage::parse: parsed_ = true; return;
      case Stage::track: return note_known(burst);
      case Stage::account: return note_peers(burst);
      case Stage::forward: return write(burst);
      default: return;
    }
  }

 private:
  void note_known(const Burst& burst) {
    reached_track_ = burst.filtered;
    for_each_bit(burst.filtered, [&](std::uint32_t i) {
      const Connection* connection = burst.connection[i];
      const bool lives = connection != nullptr && !ConnectionTable::expired(*connection, burst.endpoint[i]->timeouts, worker_.now) &&
                         !(detail::is_bare_syn(burst.headers[i]) && detail::begins_anew(*connection));
      known_ |= std::uint64_t{lives} << i;
    });
  }

  // Now, because forward moves the headers. Also what an earlier packet of the burst has opened.
  void note_peers(const Burst& burst) {
    for (std::uint32_t i = 0; i < burst.size; ++i) {
      peer_[i] = {};
      if (!burst.is_filtered(i)) continue;
      for (std::uint32_t before = 0; before < i; ++before) {
        const bool same = burst.is_filtered(before) && burst.connection[before] != nullptr && burst.connection[before] == burst.connection[i];
        known_ |= std::uint64_t{same} << i;
      }
      if (direction_ == Direction::ingress) continue;
      if (const Endpoint* peer = detail::local_peer(burst, i, *worker_.view); peer != nullptr) peer_[i] = peer->id;
    }
  }

  void write(const Burst& burst) {
    for (Observer* observer : worker_.observers->observers) {
      for_each_bit(observer->staged(), [&](std::uint32_t i) {
        // What left for another worker is looked at there.
        if (burst.mbuf[i] == nullptr || !observer->is_of(burst.endpoint[i])) return;
        const bool passed = burst.alive(i);
        Observation observation = describe(burst, i);
        for (const Point point : {Point::in, passed ? Point::out : Point::drop}) {
          observation.point = point;
          if (observer->wants(point)) observer->write(observation, i, burst.mbuf[i]);
        }
      });
      observer->forget_staged();
    }
  }

  Observation describe(const Burst& burst, std::uint32_t i) const {
    Observation result;
    result.cycles = rte_rdtsc();
    result.headers = burst.headers[i];
    result.key = burst.key[i];
    if (const Endpoint* endpoint = burst.endpoint[i]; endpoint != nullptr) result.endpoint = endpoint->id, result.generation = endpoint->generation;
    result.direction = direction_;
    result.from_task_here = !parsed_;
    result.verdict = burst.verdict[i];
    result.filtered = (reached_track_ >> i & 1) != 0;
    result.known = (known_ >> i & 1) != 0;
    // `connection` means something for packets that are filtered to the end.
    if (burst.is_filtered(i) && burst.connection[i] != nullptr) {
      result.has_connection = true;
      result.connection = *burst.connection[i];
    }
    if (!burst.alive(i)) {
      result.stage = refused_by_[i];
    } else if (direction_ == Direction::ingress) {
      result.route = Route::task;
    } else if (burst.route[i] == Route::answer) {
      result.route = Route::answer;
    } else {
      result.peer = peer_[i];
      result.route = peer_[i].is_valid() ? Route::local : Route::trunk;
    }
    return result;
  }

  WorkerState& worker_;
  Direction direction_ = Direction::ingress;
  bool parsed_ = false;
  std::uint64_t refused_ = 0, known_ = 0, reached_track_ = 0;
  Stage refused_by_[kMaxBurst];
  EndpointId peer_[kMaxBurst];
};

}  // namespace trunkline
