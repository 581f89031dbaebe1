// SPDX-License-Identifier: BSD-3-Clause
//
// Stage 10: out. Refused packets are counted by reason and left to be freed; the others get the headers of the way they
// go (tag popped towards a task, pushed towards the trunk, MAC addresses rewritten between two tasks of this host), the offload
// requests for it (offload.h), and are listed for their port. The end of a meter's story: what demux counted as received is here sent on or dropped.
//
// The run of plain packets (Burst::plain) at a burst's beginning, which nearly always is all of it, takes a short way; forward_one_to_task() and
// forward_one_from_task() are in full. Nothing overtakes: packets of one flow may differ in how plain they are.
//
// What is larger than the port takes goes in fragments (IPv4 without DF: fragment_ipv4.h), or as smaller segments (a super-frame without
// DF), or its sender is told.
//
// Refuses: mtu_exceeded (DF, or IPv6: the sender is told), fragmenting_limit, no_buffer, no_headroom, bad_offload, handoff_full (the
// peer is another worker's).
#pragma once

#include <immintrin.h>

#include <bit>
#include <cstddef>
#include <cstring>

#include "dataplane/packet.h"
#include "dataplane/stages/account.h"
#include "dataplane/stages/edge.h"
#include "dataplane/stages/fragment_ipv4.h"
#include "dataplane/stages/handoff.h"
#include "dataplane/stages/offload.h"
#include "dataplane/stages/oversized.h"
#include "dataplane/stages/parse.h"
#include "dataplane/state/worker_state.h"

namespace trunkline {

namespace detail {

// Both MAC addresses over the tag behind them, and the other way round with a new one. Sixteen bytes, which every frame has that comes here: its
// headers are in its first segment, Ethernet and more.
[[gnu::always_inline]] inline void move_macs_over_tag(std::uint8_t* frame) {
  auto* start = reinterpret_cast<__m128i*>(frame);
  _mm_storeu_si128(start, _mm_slli_si128(_mm_loadu_si128(start), ether::tag_bytes));
}
[[gnu::always_inline]] inline void move_macs_before_tag(std::uint8_t* frame, __m128i tag) {
  const __m128i macs = _mm_loadu_si128(reinterpret_cast<const __m128i*>(frame));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(frame - ether::tag_bytes), _mm_blend_epi32(macs, tag, 1 << 3));
}
// A tag behind two MAC addresses. Priority and DEI are 0.
inline __m128i tag_of(VlanId vlan) {
  return _mm_set_epi32(static_cast<int>(__builtin_bswap32(std::uint32_t{ether::vlan} << 16 | vlan.value)), 0, 0, 0);
}

// The last that is done with the headers' offsets: they speak of the frame as it came.
[[gnu::always_inline]] inline void pop_tag(Burst& burst, std::uint32_t i) {
  if (burst.headers[i].tag_bytes == 0) return;
  rte_mbuf* packet = burst.mbuf[i];
  move_macs_over_tag(burst.bytes(i));
  packet->data_off = static_cast<std::uint16_t>(packet->data_off + ether::tag_bytes);
  packet->data_len = static_cast<std::uint16_t>(packet->data_len - ether::tag_bytes);
  packet->pkt_len -= ether::tag_bytes;
}

[[gnu::always_inline]] inline bool push_tag(rte_mbuf* packet, VlanId vlan) {
  if (vlan.is_untagged()) return true;
  std::uint8_t* frame = rte_pktmbuf_mtod(packet, std::uint8_t*);
  if (rte_pktmbuf_prepend(packet, ether::tag_bytes) == nullptr) return false;
  move_macs_before_tag(frame, tag_of(vlan));
  return true;
}

// The lengths of a packet whose start moved by so many bytes, further on in its buffer or back, and of which nothing more is asked: what
// clear_offloads() and three additions do, in two loads and two stores.
template <int by>
[[gnu::always_inline]] inline void set_start_further(rte_mbuf* packet) {
  auto* start = reinterpret_cast<__m128i*>(&packet->rearm_data);                // data_off first, then ol_flags
  auto* lengths = reinterpret_cast<__m128i*>(&packet->rx_descriptor_fields1);  // type, pkt_len, data_len and vlan_tci, hash
  _mm_store_si128(start, _mm_add_epi16(_mm_loadl_epi64(start), _mm_cvtsi32_si128(by & 0xffff)));
  const __m128i resized = _mm_add_epi32(_mm_load_si128(lengths), _mm_setr_epi32(0, -by, -by, 0));
  _mm_store_si128(lengths, _mm_and_si128(resized, _mm_setr_epi32(-1, -1, 0xffff, -1)));
}
static_assert(offsetof(rte_mbuf, rearm_data) == offsetof(rte_mbuf, data_off) && offsetof(rte_mbuf, ol_flags) == offsetof(rte_mbuf, rearm_data) + 8 &&
              offsetof(rte_mbuf, rearm_data) % 16 == 0);
static_assert(offsetof(rte_mbuf, pkt_len) == offsetof(rte_mbuf, rx_descriptor_fields1) + 4 && offsetof(rte_mbuf, data_len) == offsetof(rte_mbuf, pkt_len) + 4 &&
              offsetof(rte_mbuf, vlan_tci) == offsetof(rte_mbuf, data_len) + 2 && offsetof(rte_mbuf, rx_descriptor_fields1) % 16 == 0);

// The tag off a plain packet, if it has one, and nothing more is asked of it. Answers with the frame's bytes then, which are not read from what was just
// stored: a narrow load waits long for a wide store.
[[gnu::always_inline]] inline std::uint32_t untag_plain(Burst& burst, std::uint32_t i) {
  rte_mbuf* packet = burst.mbuf[i];
  const std::uint32_t bytes = packet->pkt_len;
  if (burst.headers[i].tag_bytes == 0) [[unlikely]] return clear_offloads(packet), bytes;
  move_macs_over_tag(burst.bytes(i));
  set_start_further<ether::tag_bytes>(packet);
  return bytes - ether::tag_bytes;
}

[[gnu::always_inline]] inline void send_to_trunk(rte_mbuf* packet, WorkerState& worker) {
  worker.trunk_out.received(frames_of(*packet));
  worker.outbox.send(kTrunkSlot, packet);
}

// Towards a task: its ingress meter already knows the packet; the worker counts it as sent when the port took it.
[[gnu::always_inline]] inline void send_to_task(rte_mbuf* packet, const Endpoint& endpoint, WorkerState& worker) {
  worker.outbox.send(endpoint.port, packet);
}

inline void refuse(Burst& burst, std::uint32_t i, Meter& meter, WorkerState& worker) {
  meter.dropped(burst.verdict[i], frames_of(*burst.mbuf[i]).packets);
  worker.outbox.discard(burst.mbuf[i]);
}

// The packets that nobody refused and that go the way of nearly all: whole frames of filtered flows, which every port takes as they are. They have an
// endpoint, and are still here. Where the burst has others in it that a port might not take, none.
[[gnu::always_inline]] inline std::uint64_t plainly(const Burst& burst, const View& view) {
  const bool as_they_are = (burst.flags_of_all & kUndone) == 0 && burst.longest_plain <= view.least_mtu;
  return as_they_are ? burst.plain & burst.filtered : 0;
}

// A super-frame whose segments are too large, and that may be cut anew, into smaller ones: TCP is a stream of octets. Answers with the
// frames that it stands for in addition.
inline bool shrink_segments(Burst& burst, std::uint32_t i, std::uint32_t mtu, Frames& more) {
  if (!burst.is_super_frame(i) || burst.headers[i].layer3 != Layer3::ipv4) return false;
  if ((burst.bytes(i)[burst.headers[i].layer3_offset + 6] & 0x40) != 0) return false;  // DF
  rte_mbuf& packet = *burst.mbuf[i];
  const auto header_bytes = static_cast<std::uint32_t>(packet.l3_len + packet.l4_len);
  if (mtu < header_bytes + kLeastSegmentBytes) return false;
  const Frames before = frames_of(packet);
  packet.tso_segsz = static_cast<std::uint16_t>(mtu - header_bytes);
  const Frames now = frames_of(packet);
  more = {now.packets - before.packets, now.bytes - before.bytes};
  return true;
}

// The packets and octets that a packet became beyond itself.
inline Frames made_of(const Burst& burst, std::uint32_t i, const Fragmented& fragments, std::uint32_t ether_bytes) {
  return {fragments.frames.packets - 1, fragments.frames.bytes - ether_bytes - burst.headers[i].packet_bytes};
}

// Of a packet that is sent although it was oversized.
inline void account_oversized(Burst& burst, std::uint32_t i, const Frames& ip, WorkerState& worker, Direction direction) {
  if (burst.is_filtered(i)) account_sent(burst, i, ip, worker, direction);
}

// Larger than the task's port takes, and neither cut nor shrunk: its sender is told.
[[gnu::noinline]] inline void report_oversized_to_task(Burst& burst, std::uint32_t i, const Endpoint& endpoint, WorkerState& worker) {
  burst.verdict[i] = DropReason::mtu_exceeded;
  worker.meter(endpoint, Direction::ingress).dropped(DropReason::mtu_exceeded, frames_of(*burst.mbuf[i]).packets);
  // A sender on this host is told here; the fabric would not bring the error back.
  const Endpoint* sender = worker.view->with_address(burst.source(i));
  if (sender != nullptr && make_packet_too_big(burst, i, worker, endpoint.mtu, Direction::egress)) {
    std::memcpy(burst.bytes(i), sender->mac.bytes.data(), 6);
    clear_offloads(burst.mbuf[i]);
    worker.meter(*sender, Direction::ingress).received(frames_of(*burst.mbuf[i]));
    deliver({burst.mbuf[i], sender->id, sender->generation, HandoffKind::deliver, Direction::ingress}, worker);
  } else if (sender == nullptr && make_packet_too_big(burst, i, worker, endpoint.mtu, Direction::ingress) &&
             push_tag(burst.mbuf[i], endpoint.vlan)) {
    clear_offloads(burst.mbuf[i]);
    send_to_trunk(burst.mbuf[i], worker);
  } else {
    worker.outbox.discard(burst.mbuf[i]);
  }
}

[[gnu::noinline]] inline void fragment_to_task(Burst& burst, std::uint32_t i, const Endpoint& endpoint, WorkerState& worker) {
  Meter& meter = worker.meter(endpoint, Direction::ingress);
  pop_tag(burst, i);
  const Fragmented sent = send_in_fragments(burst, i, worker, ether::header_bytes, endpoint.mtu, endpoint.port);
  if (sent.refused != DropReason::none) return burst.drop(i, sent.refused), refuse(burst, i, meter, worker);
  meter.made(made_of(burst, i, sent, ether::header_bytes));
  account_oversized(burst, i, sent.ip, worker, Direction::ingress);
}

// A packet for a task in full.
[[gnu::noinline]] inline void forward_one_to_task(Burst& burst, std::uint32_t i, WorkerState& worker) {
  const Endpoint* endpoint = burst.endpoint[i];
  if (burst.mbuf[i] == nullptr) return;
  if (endpoint == nullptr) return worker.outbox.discard(burst.mbuf[i]);  // counted by demux, in the trunk's meter
  Meter& meter = worker.meter(*endpoint, Direction::ingress);
  if (burst.alive(i) && is_too_large(burst, i, endpoint->mtu)) {
    if (may_be_fragmented(burst, i)) return fragment_to_task(burst, i, *endpoint, worker);
    Frames more;
    if (!shrink_segments(burst, i, endpoint->mtu, more)) return report_oversized_to_task(burst, i, *endpoint, worker);
    meter.made(more);
    account_oversized(burst, i, ip_packets_of(*burst.mbuf[i], burst.headers[i].packet_bytes), worker, Direction::ingress);
  }
  if (burst.alive(i)) {
    pop_tag(burst, i);
    if (!carry_offloads(burst, i, ether::header_bytes)) burst.drop(i, DropReason::bad_offload);
  }
  if (!burst.alive(i)) return refuse(burst, i, meter, worker);
  send_to_task(burst.mbuf[i], *endpoint, worker);
}

// Packets `i` and on, of which some are not plain.
[[gnu::noinline]] inline void forward_mixed_to_task(Burst& burst, std::uint32_t i, std::uint64_t plainly, WorkerState& worker) {
  for (; i < burst.size; ++i) {
    if ((plainly >> i & 1) != 0) {
      const std::uint32_t bytes = untag_plain(burst, i);
      worker.outbox.send(burst.endpoint[i]->port, burst.mbuf[i], bytes, false);
    } else {
      forward_one_to_task(burst, i, worker);
    }
  }
}

}  // namespace detail

// The ingress half's end: to the task's port. In the burst's order: packets of one flow may differ in how plain they are.
inline void forward_to_task(Burst& burst, WorkerState& worker) {
  const std::uint64_t plainly = detail::plainly(burst, *worker.view);
  const auto run = static_cast<std::uint32_t>(std::countr_one(plainly));  // at the beginning; nearly always all
  {
    Outbox::Row row(worker.outbox);
    for (std::uint32_t i = 0; i < run; ++i) {
      const std::uint32_t bytes = detail::untag_plain(burst, i);
      row.send(burst.endpoint[i]->port, burst.mbuf[i], bytes);
    }
  }
  if (run != burst.size) [[unlikely]] detail::forward_mixed_to_task(burst, run, plainly, worker);
}

namespace detail {

// Larger than the trunk takes, and neither cut nor shrunk: its sender is told.
[[gnu::noinline]] inline void report_oversized_to_trunk(Burst& burst, std::uint32_t i, const Endpoint& endpoint, WorkerState& worker) {
  rte_mbuf* packet = burst.mbuf[i];
  burst.verdict[i] = DropReason::mtu_exceeded;
  worker.meter(endpoint, Direction::egress).dropped(DropReason::mtu_exceeded, frames_of(*packet).packets);
  if (!make_packet_too_big(burst, i, worker, worker.view->trunk_mtu, Direction::egress)) return worker.outbox.discard(packet);
  clear_offloads(packet);
  worker.meter(endpoint, Direction::ingress).received(frames_of(*packet));
  send_to_task(packet, endpoint, worker);
}

[[gnu::noinline]] inline void fragment_to_trunk(Burst& burst, std::uint32_t i, const Endpoint& endpoint, WorkerState& worker) {
  Meter& meter = worker.meter(endpoint, Direction::egress);
  if (!push_tag(burst.mbuf[i], endpoint.vlan)) return burst.drop(i, DropReason::no_headroom), refuse(burst, i, meter, worker);
  const std::uint32_t tag_bytes = endpoint.vlan.is_untagged() ? 0 : ether::tag_bytes;
  const std::uint32_t ether_bytes = ether::header_bytes + tag_bytes;
  const Fragmented sent = send_in_fragments(burst, i, worker, ether_bytes, worker.view->trunk_mtu, kTrunkSlot);
  if (sent.refused != DropReason::none) return burst.drop(i, sent.refused), refuse(burst, i, meter, worker);
  Frames made = made_of(burst, i, sent, ether_bytes);
  made.bytes -= made.packets * tag_bytes;
  meter.made(made);
  meter.sent({sent.frames.packets, sent.frames.bytes - sent.frames.packets * tag_bytes});
  worker.trunk_out.received(sent.frames);
  account_oversized(burst, i, sent.ip, worker, Direction::egress);
}

// A packet from a task in full.
[[gnu::noinline]] inline void forward_one_from_task(Burst& burst, std::uint32_t i, WorkerState& worker, Burst& local) {
  const View& view = *worker.view;
  if (burst.mbuf[i] == nullptr) return;
  const Endpoint& endpoint = *burst.endpoint[i];
  Meter& meter = worker.meter(endpoint, Direction::egress);
  if (!burst.alive(i)) return refuse(burst, i, meter, worker);
  rte_mbuf* packet = burst.mbuf[i];
  if (burst.route[i] == Route::answer) {
    clear_offloads(packet);
    meter.sent(frames_of(*packet));
    worker.meter(endpoint, Direction::ingress).received(frames_of(*packet));
    return send_to_task(packet, endpoint, worker);
  }
  const Endpoint* peer = burst.is_filtered(i) ? local_peer(burst, i, view) : nullptr;
  if (peer != nullptr) {
    const Frames frames = frames_of(*packet);
    meter.sent(frames);
    worker.meter(*peer, Direction::ingress).received(frames);
    std::uint8_t* frame = burst.bytes(i);
    // As the fabric delivers it: within a subnet from the sender's MAC, across subnets from the router's. Not the one that the sender addressed: a
    // task may write there what it likes.
    if (!peer->in_subnet(burst.source(i))) std::memcpy(frame + 6, view.edge.router_mac.bytes.data(), 6);
    std::memcpy(frame, peer->mac.bytes.data(), 6);
    if (peer->served_by == worker.number) {
      local.adopt(burst, i, *peer);
    } else if (!worker.handoff.send(peer->worker, {packet, peer->id, peer->generation, HandoffKind::known, Direction::ingress})) {
      burst.verdict[i] = DropReason::handoff_full;
      worker.meter(*peer, Direction::ingress).dropped(DropReason::handoff_full, frames.packets);
      worker.outbox.discard(packet);
    }
    return;
  }
  const bool oversized = is_too_large(burst, i, view.trunk_mtu);
  Frames more;
  if (oversized) {
    if (may_be_fragmented(burst, i)) return fragment_to_trunk(burst, i, endpoint, worker);
    if (!shrink_segments(burst, i, view.trunk_mtu, more)) return report_oversized_to_trunk(burst, i, endpoint, worker);
  }
  const Frames frames = frames_of(*packet);
  const bool tagged = push_tag(packet, endpoint.vlan);
  if (!tagged || !carry_offloads(burst, i, ether::header_bytes + (endpoint.vlan.is_untagged() ? 0 : ether::tag_bytes))) {
    if (!oversized && burst.is_filtered(i)) account_not_sent(burst, i, worker, Direction::egress);
    burst.drop(i, tagged ? DropReason::bad_offload : DropReason::no_headroom);
    meter.made(more);
    return refuse(burst, i, meter, worker);
  }
  if (oversized) {
    meter.made(more);
    account_oversized(burst, i, ip_packets_of(*packet, burst.headers[i].packet_bytes), worker, Direction::egress);
  }
  meter.sent(frames);
  send_to_trunk(packet, worker);
}

// Plain packets of one endpoint on their way out by the trunk.
template <bool tagged>
class ToTrunk {
 public:
  ToTrunk(const Endpoint& endpoint, const View& view) : endpoint_(endpoint), tag_(tag_of(endpoint.vlan)), here_(view.by_ipv4.filter()) {}

  // What leaves here is for no task of this host, and has room for the tag.
  [[gnu::always_inline]] bool takes(const Burst& burst, std::uint32_t i) const {
    return burst.endpoint[i] == &endpoint_ && !here_.may_have(burst.key[i].remote) && (!tagged || burst.mbuf[i]->data_off >= ether::tag_bytes);
  }
  // Answers with the frame's bytes before.
  [[gnu::always_inline]] std::uint32_t prepare(rte_mbuf* packet) const {
    const std::uint32_t bytes = packet->pkt_len;
    if constexpr (tagged) {
      move_macs_before_tag(rte_pktmbuf_mtod(packet, std::uint8_t*), tag_);
      set_start_further<-int{ether::tag_bytes}>(packet);
    } else {
      clear_offloads(packet);
    }
    return bytes;
  }
  // Answers with the frames' bytes on the trunk.
  [[gnu::always_inline]] std::uint64_t count(Frames sent, WorkerState& worker) const {
    worker.meter(endpoint_, Direction::egress).sent(sent);
    if (tagged) sent.bytes += sent.packets * ether::tag_bytes;
    worker.trunk_out.received(sent);
    return sent.bytes;
  }

 private:
  const Endpoint& endpoint_;
  const __m128i tag_;
  const Ipv4Index::Filter here_;
};

// Packets `i` and on, of which some are not plain or not for the trunk, in the burst's order: packets of one flow may differ in how plain they are.
template <bool tagged>
[[gnu::noinline]] void forward_mixed_from_task(const ToTrunk<tagged>& to_trunk, Burst& burst, std::uint32_t i, std::uint64_t plainly, WorkerState& worker, Burst& local) {
  for (; i < burst.size; ++i) {
    if ((plainly >> i & 1) != 0 && to_trunk.takes(burst, i)) {
      const std::uint64_t bytes = to_trunk.count({1, to_trunk.prepare(burst.mbuf[i])}, worker);
      worker.outbox.send(kTrunkSlot, burst.mbuf[i], static_cast<std::uint32_t>(bytes), false);
    } else {
      forward_one_from_task(burst, i, worker, local);
    }
  }
}

// The run of plain packets at the burst's beginning, which nearly always is all of it, is sent and counted together.
template <bool tagged>
[[gnu::noinline]] void forward_from(const Endpoint& endpoint, Burst& burst, WorkerState& worker, Burst& local) {
  const ToTrunk<tagged> to_trunk(endpoint, *worker.view);
  const std::uint64_t plainly = detail::plainly(burst, *worker.view);
  const auto run = static_cast<std::uint32_t>(std::countr_one(plainly));
  rte_mbuf** const room = worker.outbox.room();
  std::uint64_t bytes = 0;
  std::uint32_t i = 0;
  for (; i < run; ++i) {
    if (!to_trunk.takes(burst, i)) [[unlikely]] break;
    bytes += to_trunk.prepare(burst.mbuf[i]);
    room[i] = burst.mbuf[i];
  }
  worker.outbox.send_from_room(kTrunkSlot, i, to_trunk.count({i, bytes}, worker));
  if (i != burst.size) [[unlikely]] forward_mixed_from_task(to_trunk, burst, i, plainly, worker, local);
}

}  // namespace detail

// The egress half's end: out on the trunk, or into `local` for the ingress half of another task of this host, or, where
// the edge made it an answer, back to the task.
inline void forward_from_task(Burst& burst, WorkerState& worker, Burst& local) {
  // One for all, but for packets that come back from another worker; there some may have gone with their endpoint.
  std::uint32_t first = 0;
  while (first < burst.size && burst.endpoint[first] == nullptr) ++first;
  if (first == burst.size) return;
  const Endpoint* endpoint = burst.endpoint[first];
  endpoint->vlan.is_untagged() ? detail::forward_from<false>(*endpoint, burst, worker, local) : detail::forward_from<true>(*endpoint, burst, worker, local);
}

}  // namespace trunkline
