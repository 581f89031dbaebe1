// SPDX-License-Identifier: BSD-3-Clause
//
// How workers pass packets to each other. An endpoint has one owner, and a packet may come in elsewhere: on a trunk queue of
// another worker, or from a task that another worker serves. It is then handed to the owner over a ring that one
// worker writes and one reads: no lock, no line that two write. Packets of one sender stay in order.
//
// What is handed, and in what state:
//   trunk     as it came from the trunk: the receiver parses it and finds its endpoint. Counted as received by the sender.
//   known     its endpoint is found and it passed demux, in the given direction; counted as received there.
//   asked     the same, and the previous owner has said what it knows: a connection that is missing now is new.
//   ask       to the previous owner of an endpoint that moved: have you got the connection of this packet? It comes back as
//             `asked`, and if there is a connection, that comes first, on the ring of records. As `asked_service`, if there is none and the packet
//             answers what the task asked of a service (asked_services.h).
//   deliver   for its endpoint's port as it is (an error of the router's), counted as received.
//   transmit  for the trunk, from a worker that has no transmit queue there.
//
// Moving an endpoint (control/controller.cpp) takes three Views: held by the new owner (nobody serves it, its packets are
// handed on and parked), served by the new owner (who asks the old one for what it does not know, while the old one's sweep
// sends the rest), and settled. Nothing is lost. Packets stay in order but for one case: one that went to ask may be overtaken by
// one of the same connection that came when the answer was here.
//
// A ring holds what its sender put there once flush() was called, which a worker does once a turn. Its places are
// shared among the ENIs (shared_ring.h), and so are those of the packets that wait here: what finds none is dropped as
// handoff_full. Threads: sender and receiver are one worker each; the mesh is made before they start.
#pragma once

#include <rte_mbuf.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "dataplane/state/connection_table.h"
#include "dataplane/state/shared_ring.h"
#include "dataplane/state/spsc_ring.h"
#include "dataplane/state/view.h"

namespace trunkline {

enum class HandoffKind : std::uint8_t { trunk, known, asked, asked_service, ask, deliver, transmit };

struct HandedPacket {
  rte_mbuf* packet = nullptr;
  EndpointId endpoint;
  std::uint16_t generation = 0;
  HandoffKind kind = HandoffKind::trunk;
  Direction direction = Direction::ingress;
  bool was_held = false;  // as a fragment without its first one, by a worker that its endpoint has left since

  // Who looks at packets saw it in this half, or on its way out (observer.h).
  bool was_seen() const { return was_held || kind == HandoffKind::ask || kind == HandoffKind::asked || kind == HandoffKind::asked_service || kind == HandoffKind::transmit; }
};
static_assert(sizeof(HandedPacket) == 16);

// A connection on its way to another worker's table. IPv6: with its addresses, since the key's digest is the old table's.
struct ConnectionRecord {
  Connection connection;
  AddressPair addresses;
};

// From one worker to another.
struct HandoffLane {
  SharedRing<HandedPacket> packets{1024};  // each is the ENI's that it is for or from
  SpscRing<ConnectionRecord> records{256};
};

// All lanes between so many workers.
class HandoffMesh {
 public:
  explicit HandoffMesh(std::uint32_t workers) : workers_(workers), lanes_(std::make_unique<HandoffLane[]>(std::size_t{workers} * workers)) {}
  std::uint32_t workers() const { return workers_; }
  HandoffLane& lane(WorkerNumber from, WorkerNumber to) { return lanes_[std::size_t{from} * workers_ + to]; }

 private:
  std::uint32_t workers_;
  std::unique_ptr<HandoffLane[]> lanes_;
};

// One worker's ends of the lanes, and the packets that wait at it for an endpoint on its way here.
class Handoff {
 public:
  static constexpr std::size_t kMaxParked = 4096;

  Handoff(HandoffMesh* mesh, WorkerNumber self)
      : mesh_(mesh), self_(self), parked_of_(new std::uint32_t[FlowKey::kMaxEndpoints]()) {
    parked_.reserve(kMaxParked);
  }

  std::uint32_t workers() const { return mesh_ != nullptr ? mesh_->workers() : 1; }
  // False: no room for this ENI, or no such worker; the packet is still the caller's.
  bool send(WorkerNumber to, const HandedPacket& packet) {
    if (to == self_) return park(packet);
    return to < workers() && mesh_->lane(self_, to).packets.push(packet, packet.endpoint);
  }
  HandoffLane& to(WorkerNumber worker) { return mesh_->lane(self_, worker); }
  HandoffLane& from(WorkerNumber worker) { return mesh_->lane(worker, self_); }

  // So many ENIs have a share each of the places here and in the lanes to others (shares.h).
  void share_among(std::uint32_t endpoints) {
    if (shares_.is_set(endpoints)) [[likely]]
      return;
    shares_.set(endpoints, FlowKey::kMaxEndpoints, [&](std::uint32_t id) { return parked_of_[id]; });
    for (std::uint32_t to = 0; to < workers(); ++to) {
      if (to != self_) mesh_->lane(self_, static_cast<WorkerNumber>(to)).packets.share_among(endpoints);
    }
  }
  bool park(const HandedPacket& packet) {
    std::uint32_t& held = parked_of_[packet.endpoint.value % FlowKey::kMaxEndpoints];
    if (parked_.size() == kMaxParked || !shares_.may_take(held)) return false;
    shares_.changed(held, held + 1);
    ++held;
    parked_.push_back(packet);  // never grows: reserved
    return true;
  }
  const std::vector<HandedPacket>& parked() const { return parked_; }
  // Into an empty vector that has room for as many. Nothing is parked afterwards.
  void take_parked(std::vector<HandedPacket>& into) {
    into.swap(parked_);
    for (const HandedPacket& packet : into) {
      std::uint32_t& held = parked_of_[packet.endpoint.value % FlowKey::kMaxEndpoints];
      shares_.changed(held, held - 1);
      --held;
    }
  }

 private:
  HandoffMesh* mesh_;
  WorkerNumber self_;
  std::vector<HandedPacket> parked_;
  std::unique_ptr<std::uint32_t[]> parked_of_;  // by EndpointId
  Shares shares_{kMaxParked};
};

}  // namespace trunkline
