// SPDX-License-Identifier: BSD-3-Clause
//
// Stage 9: out. Refused packets are counted by reason and left to be freed; the others get the headers of the way they
// go (tag popped towards a task, pushed towards the trunk, MAC addresses rewritten between two tasks of this host), the offload
// requests for it (offload.h), and are queued for their port. The end of a meter's story: what demux counted as received is here sent on or dropped.
//
// Refuses: mtu_exceeded (the sender is told, if it asked to be), no_headroom, bad_offload, handoff_full (the peer is another worker's).
#pragma once

#include <cstring>

#include "dataplane/packet.h"
#include "dataplane/stages/edge.h"
#include "dataplane/stages/handoff.h"
#include "dataplane/stages/offload.h"
#include "dataplane/stages/parse.h"
#include "dataplane/state/worker_state.h"

namespace trunkline {

namespace detail {

// The twelve bytes of both MAC addresses, `by` bytes further on; overlapping is the point.
[[gnu::always_inline]] inline void move_macs(std::uint8_t* frame, std::ptrdiff_t by) {
  const auto first = load_raw<std::uint64_t>(frame);
  const auto last = load_raw<std::uint32_t>(frame + 8);
  std::memcpy(frame + by, &first, sizeof first);
  std::memcpy(frame + by + 8, &last, sizeof last);
}

// The last that is done with the headers' offsets: they speak of the frame as it came.
[[gnu::always_inline]] inline void pop_tag(Burst& burst, std::uint32_t i) {
  if (burst.headers[i].tag_bytes == 0) return;
  rte_mbuf* packet = burst.mbuf[i];
  move_macs(burst.bytes(i), ether::tag_bytes);
  packet->data_off = static_cast<std::uint16_t>(packet->data_off + ether::tag_bytes);
  packet->data_len = static_cast<std::uint16_t>(packet->data_len - ether::tag_bytes);
  packet->pkt_len -= ether::tag_bytes;
}

[[gnu::always_inline]] inline bool push_tag(rte_mbuf* packet, VlanId vlan) {
  if (vlan.is_untagged()) return true;
  char* start = rte_pktmbuf_prepend(packet, ether::tag_bytes);
  if (start == nullptr) return false;
  auto* frame = reinterpret_cast<std::uint8_t*>(start);
  move_macs(frame + ether::tag_bytes, -std::ptrdiff_t{ether::tag_bytes});
  store16(frame + 12, ether::vlan);
  store16(frame + 14, vlan.value);  // priority and DEI stay 0
  return true;
}

[[gnu::always_inline]] inline void send_to_trunk(rte_mbuf* packet, WorkerState& worker) {
  worker.trunk_out.received(frames_of(*packet));
  worker.outbox.send(kTrunkSlot, packet);
}

// Towards a task: its ingress meter already knows the packet; the worker counts it as sent when the port took it.
[[gnu::always_inline]] inline void send_to_task(rte_mbuf* packet, const Endpoint& endpoint, WorkerState& worker) {
  worker.outbox.send(endpoint.port, packet);
}

// The endpoint of this host that a packet from a task is for, if there is one.
[[gnu::always_inline]] inline const Endpoint* local_peer(const Burst& burst, std::uint32_t i, const View& view) {
  if (burst.headers[i].layer3 == Layer3::ipv4) [[likely]] return view.by_ipv4.find(burst.key[i].remote);
  return view.with_address(burst.destination(i));
}

inline void refuse(Burst& burst, std::uint32_t i, Meter& meter, WorkerState& worker) {
  meter.dropped(burst.verdict[i], frames_of(*burst.mbuf[i]).packets);
  worker.outbox.discard(burst.mbuf[i]);
}

}  // namespace detail

// The ingress half's end: to the task's port.
inline void forward_to_task(Burst& burst, WorkerState& worker) {
  for (std::uint32_t i = 0; i < burst.size; ++i) {
    const Endpoint* endpoint = burst.endpoint[i];
    if (burst.mbuf[i] == nullptr) [[unlikely]] continue;
    if (endpoint == nullptr) {
      worker.outbox.discard(burst.mbuf[i]);  // counted by demux, in the trunk's meter
      continue;
    }
    Meter& meter = worker.meter(*endpoint, Direction::ingress);
    if (burst.alive(i) && detail::is_too_large(burst, i, endpoint->mtu)) {
      burst.verdict[i] = DropReason::mtu_exceeded;
      meter.dropped(DropReason::mtu_exceeded, frames_of(*burst.mbuf[i]).packets);
      // A sender on this host is told here; the fabric would not bring the error back.
      const Endpoint* sender = worker.view->with_address(burst.source(i));
      if (sender != nullptr && make_packet_too_big(burst, i, worker, endpoint->mtu, Direction::egress)) {
        std::memcpy(burst.bytes(i), sender->mac.bytes.data(), 6);
        detail::clear_offloads(burst.mbuf[i]);
        worker.meter(*sender, Direction::ingress).received(frames_of(*burst.mbuf[i]));
        deliver({burst.mbuf[i], sender->id, sender->generation, HandoffKind::deliver, Direction::ingress}, worker);
      } else if (sender == nullptr && make_packet_too_big(burst, i, worker, endpoint->mtu, Direction::ingress) &&
          detail::push_tag(burst.mbuf[i], endpoint->vlan)) {
        detail::clear_offloads(burst.mbuf[i]);
        detail::send_to_trunk(burst.mbuf[i], worker);
      } else {
        worker.outbox.discard(burst.mbuf[i]);
      }
      continue;
    }
    if (burst.alive(i)) [[likely]] {
      detail::pop_tag(burst, i);
      if (!detail::carry_offloads(burst, i, ether::header_bytes)) burst.drop(i, DropReason::bad_offload);
    }
    if (!burst.alive(i)) {
      detail::refuse(burst, i, meter, worker);
      continue;
    }
    detail::send_to_task(burst.mbuf[i], *endpoint, worker);
  }
}

// The egress half's end: out on the trunk, or into `local` for the ingress half of another task of this host, or, where
// the edge made it an answer, back to the task.
inline void forward_from_task(Burst& burst, WorkerState& worker, Burst& local) {
  const View& view = *worker.view;
  for (std::uint32_t i = 0; i < burst.size; ++i) {
    if (burst.mbuf[i] == nullptr) [[unlikely]] continue;
    const Endpoint& endpoint = *burst.endpoint[i];
    Meter& meter = worker.meter(endpoint, Direction::egress);
    if (!burst.alive(i)) {
      detail::refuse(burst, i, meter, worker);
      continue;
    }
    rte_mbuf* packet = burst.mbuf[i];
    if (burst.route[i] == Route::answer) {
      detail::clear_offloads(packet);
      meter.sent(frames_of(*packet));
      worker.meter(endpoint, Direction::ingress).received(frames_of(*packet));
      detail::send_to_task(packet, endpoint, worker);
      continue;
    }
    const Endpoint* peer = burst.is_filtered(i) ? detail::local_peer(burst, i, view) : nullptr;
    if (peer != nullptr) {
      const Frames frames = frames_of(*packet);
      meter.sent(frames);
      worker.meter(*peer, Direction::ingress).received(frames);
      std::uint8_t* frame = burst.bytes(i);
      // As the fabric delivers it: within a subnet from the sender's MAC, across subnets from the router's, which is
      // the one that the sender addressed.
      if (!peer->in_subnet(burst.source(i))) std::memcpy(frame + 6, frame, 6);
      std::memcpy(frame, peer->mac.bytes.data(), 6);
      if (peer->served_by == worker.number) {
        local.adopt(burst, i, *peer);
      } else if (!worker.handoff.send(peer->worker, {packet, peer->id, peer->generation, HandoffKind::known, Direction::ingress})) {
        burst.verdict[i] = DropReason::handoff_full;
        worker.meter(*peer, Direction::ingress).dropped(DropReason::handoff_full, frames.packets);
        worker.outbox.discard(packet);
      }
      continue;
    }
    if (detail::is_too_large(burst, i, view.trunk_mtu)) {
      burst.verdict[i] = DropReason::mtu_exceeded;
      meter.dropped(DropReason::mtu_exceeded, frames_of(*packet).packets);
      if (make_packet_too_big(burst, i, worker, view.trunk_mtu, Direction::egress)) {
        detail::clear_offloads(packet);
        worker.meter(endpoint, Direction::ingress).received(frames_of(*packet));
        detail::send_to_task(packet, endpoint, worker);
      } else {
        worker.outbox.discard(packet);
      }
      continue;
    }
    const Frames frames = frames_of(*packet);
    const bool tagged = detail::push_tag(packet, endpoint.vlan);
    if (!tagged || !detail::carry_offloads(burst, i, ether::header_bytes + (endpoint.vlan.is_untagged() ? 0 : ether::tag_bytes))) {
      burst.drop(i, tagged ? DropReason::bad_offload : DropReason::no_headroom);
      detail::refuse(burst, i, meter, worker);
      continue;
    }
    meter.sent(frames);
    detail::send_to_trunk(packet, worker);
  }
}

}  // namespace trunkline
