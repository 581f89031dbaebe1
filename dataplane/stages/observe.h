// SPDX-License-Identifier: BSD-3-Clause
//
// Between the stages: what they found of each packet, for whoever looks (state/observer.h). It decides nothing and changes nothing.
//
// The pipeline's functions are templates over who watches (pipeline.h). Unwatched is what a worker runs nearly always: nothing is
// called, nothing is compiled. Watch is compiled apart (observed.cpp) and chosen by one test of a pointer a burst.
//
// Watch sees a burst's packets by comparing it before and after each stage: a verdict is a drop, an mbuf that went is a packet that stays
// behind (held by fragments, sent to ask by admit) or goes on at another worker (demux), a packet more is one that was released. What leaves for a
// port it reads off the outbox, so nothing that forward makes escapes it. Drops of packets that are in no burst are told by observe_drop.h.
#pragma once

#include <rte_cycles.h>

#include "dataplane/packet.h"
#include "dataplane/stages/forward.h"
#include "dataplane/stages/observe_drop.h"
#include "dataplane/state/observer.h"
#include "dataplane/state/super_frame.h"
#include "dataplane/state/worker_state.h"

namespace trunkline {

namespace detail {

// Whose frame this is, of those that leave by the trunk: by its tag, or without one by its source.
inline const Endpoint* sender_on_trunk(const rte_mbuf& packet, const View& view) {
  const auto* frame = rte_pktmbuf_mtod(&packet, const std::uint8_t*);
  if (packet.data_len < ether::header_bytes + ether::tag_bytes) return nullptr;
  return load16(frame + 12) == ether::vlan ? view.at_vlan(load16(frame + 14)) : view.with_mac(mac_at(frame + 6));
}

inline const Endpoint* endpoint_of_port(PortSlot slot, const View& view) {
  const PortView* port = view.port(slot);
  return port != nullptr ? view.endpoint(port->endpoint) : nullptr;
}

}  // namespace detail

struct Unwatched {
  void arrived(const Burst&, Direction, const Endpoint* = nullptr) {}
  void arrived(const Burst&, std::span<const HandedPacket>) {}
  void operator()(Stage, const Burst&) {}
};

// Follows one half after the other.
class Watch {
 public:
  explicit Watch(WorkerState& worker) : worker_(worker) {}

  // The packets of a half, as they came. `endpoint`: whose they are, if that is known already.
  void arrived(const Burst& burst, Direction direction, const Endpoint* endpoint = nullptr) {
    direction_ = direction;
    refused_ = again_ = known_ = reached_track_ = gone_ = 0;
    parsed_ = false;
    arrived_ = burst.size;
    std::fill_n(peer_, kMaxBurst, nullptr);
    std::fill_n(frames_, kMaxBurst, 1U);
    for (Observer* observer : worker_.observers->observers) {
      observer->forget_staged();
      if (!observer->wants(direction, endpoint)) continue;
      for (std::uint32_t i = 0; i < burst.size; ++i) observer->stage(i, burst.mbuf[i]);
    }
  }

  // What other workers handed over: some were in this half before, and were seen then.
  void arrived(const Burst& burst, std::span<const HandedPacket> handed) {
    arrived(burst, handed.front().direction);
    for (std::uint32_t i = 0; i < burst.size; ++i) again_ |= std::uint64_t{handed[i].was_seen()} << i;
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
      case Stage::demux:
        note_gone(burst);  // to another worker, which shows it; or dropped (observe_drop.h)
        return;
      case Stage::fragments:
        write_left(burst, Fate::held);
        return stage_released(burst);
      case Stage::track: return note_known(burst);
      case Stage::admit: return write_left(burst, Fate::asked);
      case Stage::account:
        note_peers(burst);
        listed_ = worker_.outbox.size();
        return;
      case Stage::forward: return write(burst);
      default: return;
    }
  }

  // What was listed for a port from that place of the outbox on without a burst: errors of the router's that another worker made.
  void delivered(std::size_t first) {
    for (; first < worker_.outbox.size(); ++first) write_made(worker_.outbox.listed(first), true);
  }

 private:
  std::uint64_t note_gone(const Burst& burst) {
    std::uint64_t went = 0;
    for (std::uint32_t i = 0; i < burst.size; ++i) went |= std::uint64_t{burst.mbuf[i] == nullptr} << i;
    went &= ~gone_;
    gone_ |= went;
    return went;
  }

  // Those that this stage kept or sent away.
  void write_left(const Burst& burst, Fate fate) {
    const std::uint64_t went = note_gone(burst);
    for_each_bit(went, [&](std::uint32_t i) {
      Observation observation = describe(burst, i);
      observation.fate = fate;
      observation.stage = fate == Fate::held ? Stage::fragments : Stage::admit;
      observation.route = Route::undecided;
      write_as_it_came(burst, i, observation);
    });
  }

  void write_as_it_came(const Burst& burst, std::uint32_t i, Observation& observation) {
    observation.point = (again_ >> i & 1) != 0 ? Point::again : Point::in;
    for (Observer* observer : worker_.observers->observers) {
      if ((observer->staged() >> i & 1) != 0 && observer->is_of(burst.endpoint[i]) && observer->wants(observation.point)) observer->write_staged(observation, i);
    }
  }

  // Fragments that go on behind their first one.
  void stage_released(const Burst& burst) {
    for (std::uint32_t i = 0; i < burst.size; ++i) {
      if (burst.mbuf[i] != nullptr) frames_[i] = static_cast<std::uint32_t>(frames_of(*burst.mbuf[i]).packets);
    }
    for (; arrived_ < burst.size; ++arrived_) {
      again_ |= std::uint64_t{1} << arrived_;
      for (Observer* observer : worker_.observers->observers) {
        if (observer->wants(direction_, burst.endpoint[arrived_])) observer->stage(arrived_, burst.mbuf[arrived_]);
      }
    }
  }

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
      peer_[i] = nullptr;
      if (!burst.is_filtered(i)) continue;
      for (std::uint32_t before = 0; before < i; ++before) {
        const bool same = burst.is_filtered(before) && burst.connection[before] != nullptr && burst.connection[before] == burst.connection[i];
        known_ |= std::uint64_t{same} << i;
      }
      if (direction_ == Direction::egress) peer_[i] = detail::local_peer(burst, i, *worker_.view);
    }
  }

  // The other half's worker had no room: this half is through with the packet, and the drop is the receiver's.
  bool is_dropped_at_peer(const Burst& burst, std::uint32_t i) const {
    return burst.verdict[i] == DropReason::handoff_full && (refused_ >> i & 1) != 0 && refused_by_[i] == Stage::forward && peer_[i] != nullptr;
  }

  void write(const Burst& burst) {
    // In the order of the burst, but for what was made in between.
    std::uint64_t listed = 0;
    for (std::size_t place = listed_; place < worker_.outbox.size(); ++place) {
      if (const std::uint32_t i = place_of(burst, worker_.outbox.listed(place).second); i < burst.size && burst.alive(i) && burst.route[i] != Route::answer) {
        listed |= std::uint64_t{1} << i;
      }
    }
    const std::uint64_t gone_before = gone_;
    for (std::uint32_t i = 0; i < burst.size; ++i) {
      if ((gone_before >> i & 1) != 0) continue;
      const bool at_peer = is_dropped_at_peer(burst, i), passed = burst.alive(i) || at_peer;
      Observation observation = describe(burst, i);
      if (at_peer) observation.verdict = DropReason::none, observation.fate = Fate::passed, observation.stage = Stage::forward, observation.route = Route::local;
      write_as_it_came(burst, i, observation);
      // A packet that was cut into pieces is gone: its pieces are seen. An answer is another packet.
      const bool out = passed && (observation.route == Route::local || (listed >> i & 1) != 0);
      if (passed && !out) continue;
      observation.point = passed ? Point::out : Point::drop;
      if (passed) observation.frames = static_cast<std::uint32_t>(frames_of(*burst.mbuf[i]).packets);  // a super-frame may have smaller segments now
      for (Observer* observer : worker_.observers->observers) {
        if ((observer->staged() >> i & 1) == 0 || !observer->is_of(burst.endpoint[i]) || !observer->wants(observation.point)) continue;
        passed ? observer->write_packet(observation, *burst.mbuf[i]) : observer->write_staged(observation, i);
      }
      if (at_peer) {
        observed::dropped(worker_, *burst.mbuf[i], {.endpoint = peer_[i]->id, .generation = peer_[i]->generation, .direction = Direction::ingress,
                                                   .stage = Stage::forward, .reason = DropReason::handoff_full, .is_first_sight = true});
      }
    }
    for (Observer* observer : worker_.observers->observers) observer->forget_staged();
    for (std::size_t place = listed_; place < worker_.outbox.size(); ++place) {
      const auto entry = worker_.outbox.listed(place);
      const std::uint32_t i = place_of(burst, entry.second);
      const bool is_of_burst = i < burst.size;
      if (is_of_burst && burst.alive(i) && burst.route[i] != Route::answer) continue;
      write_made(entry, is_of_burst);
    }
  }

  // Which packet of the burst this is, or burst.size. They are asked about in the burst's order, each once a round: copies share their bytes.
  std::uint32_t place_of(const Burst& burst, const rte_mbuf* packet) {
    for (std::uint32_t tried = 0; tried < burst.size; ++tried, ++next_place_) {
      if (next_place_ >= burst.size) next_place_ = 0;
      if (burst.mbuf[next_place_] == packet) return next_place_++;
    }
    return burst.size;
  }

  // `whole`: a packet of its own, an answer or an error; else a piece of one that came.
  void write_made(std::pair<PortSlot, rte_mbuf*> entry, bool whole) {
    rte_mbuf& packet = *entry.second;
    Observation observation;
    observation.cycles = rte_rdtsc();
    observation.made_here = observation.outside_burst = true;
    observation.piece = !whole;
    observation.worker = worker_.number;
    observation.frames = static_cast<std::uint32_t>(frames_of(packet).packets);
    const bool to_trunk = entry.first == kTrunkSlot;
    observation.direction = to_trunk ? Direction::egress : Direction::ingress;
    observation.route = to_trunk ? Route::trunk : Route::task;
    const Endpoint* endpoint = to_trunk ? detail::sender_on_trunk(packet, *worker_.view) : detail::endpoint_of_port(entry.first, *worker_.view);
    if (endpoint != nullptr) observation.endpoint = endpoint->id, observation.generation = endpoint->generation;
    for (Observer* observer : worker_.observers->observers) {
      if (!observer->wants(observation.direction, endpoint) || !observer->is_of(endpoint) || !observer->passes_filter(packet)) continue;
      for (const Point point : {Point::in, Point::out}) {
        observation.point = point;
        if ((whole || point == Point::out) && observer->wants(point)) observer->write_packet(observation, packet);
      }
    }
  }

  Observation describe(const Burst& burst, std::uint32_t i) const {
    Observation result;
    result.cycles = rte_rdtsc();
    result.headers = burst.headers[i];
    result.key = burst.key[i];
    if (const Endpoint* endpoint = burst.endpoint[i]; endpoint != nullptr) result.endpoint = endpoint->id, result.generation = endpoint->generation;
    result.direction = direction_;
    result.worker = worker_.number;
    result.frames = frames_[i];
    result.from_task_here = !parsed_;
    result.verdict = burst.verdict[i];
    result.filtered = (reached_track_ >> i & 1) != 0;
    result.service = burst.has_service_address(i);
    result.exempt = (burst.exempt >> i & 1) != 0;
    result.known = (known_ >> i & 1) != 0;
    // `connection` means something for packets that are filtered to the end.
    if (burst.is_filtered(i) && burst.connection[i] != nullptr) {
      result.has_connection = true;
      result.connection = *burst.connection[i];
    }
    if (!burst.alive(i)) {
      result.fate = Fate::dropped;
      result.stage = refused_by_[i];
    } else if (direction_ == Direction::ingress) {
      result.route = Route::task;
    } else if (burst.route[i] == Route::answer) {
      result.route = Route::answer;
    } else {
      if (peer_[i] != nullptr) result.peer = peer_[i]->id;
      result.route = peer_[i] != nullptr ? Route::local : Route::trunk;
    }
    return result;
  }

  WorkerState& worker_;
  Direction direction_ = Direction::ingress;
  bool parsed_ = false;
  std::uint32_t arrived_ = 0, next_place_ = 0;
  std::size_t listed_ = 0;  // in the outbox, before forward
  std::uint64_t refused_ = 0, known_ = 0, reached_track_ = 0;
  std::uint64_t gone_ = 0;   // their mbuf left the burst
  std::uint64_t again_ = 0;  // they were in this half before
  Stage refused_by_[kMaxBurst];
  const Endpoint* peer_[kMaxBurst] = {};
  std::uint32_t frames_[kMaxBurst];
};

}  // namespace trunkline
