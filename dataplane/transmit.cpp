// SPDX-License-Identifier: BSD-3-Clause
#include "dataplane/transmit.h"

#include <rte_ethdev.h>

#include <algorithm>

#include "dataplane/stages/observe_drop.h"
#include "dataplane/stages/segment.h"
#include "dataplane/state/super_frame.h"

namespace trunkline {
namespace {

constexpr std::uint64_t kRequests = RTE_MBUF_F_TX_TCP_SEG | RTE_MBUF_F_TX_L4_MASK;

// Counts packets that leave by no port, before they are freed. `frames`: of a super-frame, those that were lost; 0: all.
void drop(rte_mbuf& packet, DropReason reason, const PortView& port, Meter& meter, WorkerState& worker, std::uint32_t frames = 0) {
  if (frames == 0) frames = static_cast<std::uint32_t>(frames_of(packet).packets);
  meter.dropped(reason, frames);
  if (reason == DropReason::cpu_allowance_exceeded && !port.is_trunk) worker.time.cut_back(port.endpoint, frames);
  if (worker.observers == nullptr) [[likely]] return;
  const Endpoint* endpoint = port.is_trunk ? nullptr : worker.view->endpoint(port.endpoint);
  observe_drop(worker, packet, {.endpoint = endpoint != nullptr ? endpoint->id : EndpointId{},
                                .generation = endpoint != nullptr ? endpoint->generation : std::uint16_t{0},
                                .direction = port.is_trunk ? Direction::egress : Direction::ingress,
                                .stage = Stage::transmit,
                                .reason = reason,
                                .frames = frames});
}

struct Written {
  std::uint16_t count;                   // taken by the driver
  DropReason others = DropReason::none;  // why not the rest
};

// Into a port of which each frame is a system call: a few at a time, while the ENI has time.
Written write_for_time(const PortView& port, std::uint16_t queue, rte_mbuf** packets, std::uint16_t count,
                       WorkerState& worker) {
  WorkerTime& time = worker.time;
  const Endpoint* endpoint = worker.view->endpoint(port.endpoint);
  const std::uint16_t generation = endpoint != nullptr ? endpoint->generation : std::uint16_t{0};
  std::uint64_t before = time.now();
  for (std::uint16_t at = 0; at < count;) {
    if (!time.may_write(port.endpoint, generation)) return {at, DropReason::cpu_allowance_exceeded};
    const auto some =
        static_cast<std::uint16_t>(std::min<std::uint32_t>(count - at, time.frames_at_once(port.endpoint)));
    std::uint64_t bytes = 0;
    for (std::uint16_t i = 0; i < some; ++i) bytes += packets[at + i]->pkt_len;
    const std::uint16_t taken = rte_eth_tx_burst(port.ethdev, queue, packets + at, some);
    const std::uint64_t after = time.now();
    time.wrote(port.endpoint, taken, bytes, after - before);
    before = after;
    at = static_cast<std::uint16_t>(at + taken);
    if (taken < some) return {at, DropReason::tx_full};
  }
  return {count};
}

Written write(const PortView& port, std::uint16_t queue, rte_mbuf** packets, std::uint16_t count, WorkerState& worker) {
  if (port.writes_take_time) return write_for_time(port, queue, packets, count, worker);
  std::uint16_t at = 0;
  while (at < count) {
    const std::uint16_t taken =
        rte_eth_tx_burst(port.ethdev, queue, packets + at, static_cast<std::uint16_t>(count - at));
    if (taken == 0) return {at, DropReason::tx_full};
    at = static_cast<std::uint16_t>(at + taken);
  }
  return {count};
}

// Packets of which the driver can do all that they ask for, on their way into it.
class Batch {
 public:
  Batch(const PortView& port, std::uint16_t queue, Meter& meter, WorkerState& worker) : port_(port), queue_(queue), meter_(meter), worker_(worker) {}
  ~Batch() { send(); }
  Batch(const Batch&) = delete;

  // Where to put the next ones; at least one has room.
  std::span<rte_mbuf*> room() {
    if (count_ == kSize) send();
    return std::span(packets_).subspan(count_);
  }
  void added(std::uint32_t count) { count_ += count; }
  void add(rte_mbuf* packet) {
    room()[0] = packet;
    added(1);
  }

  void send() {
    for (std::uint16_t at = 0; at < count_;) at = static_cast<std::uint16_t>(at + send_from(at));
    count_ = 0;
  }

 private:
  static constexpr std::uint32_t kSize = 64;

  // How many of those from `at` on are no longer ours.
  std::uint16_t send_from(std::uint16_t at) {
    rte_mbuf** const packets = packets_ + at;
    const auto count = static_cast<std::uint16_t>(count_ - at);
    const std::uint16_t prepared = rte_eth_tx_prepare(port_.ethdev, queue_, packets, count);
    if (prepared == 0) return drop_all(packets, 1, DropReason::bad_offload);
    // After the driver took them they are no longer ours to look at.
    Frames frames[kSize];
    for (std::uint16_t i = 0; i < prepared; ++i) frames[i] = frames_of(*packets[i]);
    const Written sent = write(port_, queue_, packets, prepared, worker_);
    Frames all;
    for (std::uint16_t i = 0; i < sent.count; ++i) all.packets += frames[i].packets, all.bytes += frames[i].bytes;
    meter_.sent(all);
    if (sent.count < prepared)
      drop_all(packets + sent.count, static_cast<std::uint16_t>(prepared - sent.count), sent.others);
    return prepared;
  }

  std::uint16_t drop_all(rte_mbuf** packets, std::uint16_t count, DropReason reason) {
    for (std::uint16_t i = 0; i < count; ++i) drop(*packets[i], reason, port_, meter_, worker_);
    rte_pktmbuf_free_bulk(packets, count);
    return count;
  }

  const PortView& port_;
  const std::uint16_t queue_;
  Meter& meter_;
  WorkerState& worker_;
  std::uint16_t count_ = 0;
  rte_mbuf* packets_[kSize];
};

// What the port does now, of RTE_ETH_TX_OFFLOAD_*. Asked once for all packets of a turn.
std::uint64_t offloads_of(const PortView& port) {
  return port.agreed_offloads == nullptr ? port.tx_offloads : port.tx_offloads & port.agreed_offloads->load(std::memory_order_relaxed);
}

// Who is charged for what is made of the packet: who sent it; of what came from elsewhere, the ENI that it is for.
EndpointId payer_of(const rte_mbuf& packet, const PortView& port, const View& view) {
  const EndpointId sender = view.sender_of(packet);
  return sender.is_valid() ? sender : port.endpoint;
}

// The super-frames of one port that are cut in one call of transmit_*().
class Cutter {
 public:
  Cutter(const PortView& port, std::uint64_t offloads, Batch& batch, Meter& meter, OffloadCounters& done,
         WorkerState& worker)
      : port_(port),
        batch_(batch),
        meter_(meter),
        done_(done),
        worker_(worker),
        checksums_((offloads & RTE_ETH_TX_OFFLOAD_TCP_CKSUM) == 0) {}

  // From now on for this ENI, until its time of this turn is up. Nobody's super-frames are cut at once.
  void begin(EndpointId payer) {
    payer_ = payer;
    if (payer.is_valid())
      until_ = worker_.time.now() +
               worker_.time.left_to_cut(payer, worker_.backlog.owners() + !worker_.backlog.holds(payer));
  }
  // Cuts on behind `made` segments. False: time is up, and `made` says how far it came. True: it is done with and
  // freed.
  bool cut(rte_mbuf* super_frame, std::uint32_t& made) {
    Segmenter segmenter(*super_frame);
    if (!segmenter.is_sound()) return lose(super_frame, DropReason::bad_offload, frames_of(*super_frame).packets);
    if (made == 0) done_.super_frames.add(1);
    segmenter.resume_after(made);
    std::uint64_t before = worker_.time.now();
    while (segmenter.left() != 0) {
      if (before >= until_ && payer_.is_valid()) return made = segmenter.made(), false;
      const std::span<rte_mbuf*> room = batch_.room();
      const std::uint32_t count = segmenter.next(room.first(std::min<std::size_t>(room.size(), kAtOnce)), checksums_);
      batch_.added(count);
      done_.segments.add(count);
      if (count == 0) return lose(super_frame, DropReason::no_buffer, segmenter.left());
      batch_.send();
      const std::uint64_t after = worker_.time.now();
      if (payer_.is_valid()) worker_.time.cut(payer_, after - before);
      before = after;
    }
    rte_pktmbuf_free(super_frame);
    return true;
  }

 private:
  static constexpr std::uint32_t kAtOnce = 16;  // frames, between two looks at the clock

  bool lose(rte_mbuf* super_frame, DropReason reason, std::uint64_t frames) {
    drop(*super_frame, reason, port_, meter_, worker_, static_cast<std::uint32_t>(frames));
    rte_pktmbuf_free(super_frame);
    return true;
  }

  const PortView& port_;
  Batch& batch_;
  Meter& meter_;
  OffloadCounters& done_;
  WorkerState& worker_;
  const bool checksums_;
  EndpointId payer_;
  std::uint64_t until_ = 0;
};

// Until it is the ENI's turn again.
void keep(rte_mbuf* packet, std::uint32_t made, EndpointId payer, const PortView& port, Meter& meter,
          WorkerState& worker) {
  const Endpoint* endpoint = port.is_trunk ? nullptr : worker.view->endpoint(port.endpoint);
  if (worker.backlog.push(payer, packet, made, port.slot,
                          endpoint != nullptr ? endpoint->generation : std::uint16_t{0}))
    return;
  const std::uint64_t lost = frames_of(*packet).packets - made;
  if (payer.is_valid() && payer != port.endpoint) worker.time.cut_back(payer, lost);
  drop(*packet, DropReason::cpu_allowance_exceeded, port, meter, worker, static_cast<std::uint32_t>(lost));
  rte_pktmbuf_free(packet);
}

bool must_be_cut(const rte_mbuf& packet, std::uint64_t offloads, const PortView& port) {
  return (packet.ol_flags & RTE_MBUF_F_TX_TCP_SEG) != 0 &&
         ((offloads & RTE_ETH_TX_OFFLOAD_TCP_TSO) == 0 || packet.nb_segs > port.max_segments);
}

bool can_checksum(std::uint64_t offloads, const rte_mbuf& packet) {
  const bool tcp = (packet.ol_flags & RTE_MBUF_F_TX_L4_MASK) == RTE_MBUF_F_TX_TCP_CKSUM;
  return (offloads & (tcp ? RTE_ETH_TX_OFFLOAD_TCP_CKSUM : RTE_ETH_TX_OFFLOAD_UDP_CKSUM)) != 0;
}

}  // namespace

void transmit(const PortView& port, std::uint16_t queue, std::span<rte_mbuf*> packets, std::uint64_t bytes, Meter& meter, WorkerState& worker) {
  const Written sent = write(port, queue, packets.data(), static_cast<std::uint16_t>(packets.size()), worker);
  // What the driver took is no longer ours to look at, what it did not take still is.
  const auto refused = packets.subspan(sent.count);
  for (const rte_mbuf* packet : refused) bytes -= packet->pkt_len;
  meter.sent({sent.count, bytes});
  if (refused.empty()) return;
  for (rte_mbuf* packet : refused) drop(*packet, sent.others, port, meter, worker);
  rte_pktmbuf_free_bulk(refused.data(), static_cast<unsigned>(refused.size()));
}

namespace {

// A packet that the port's driver takes whole: what it cannot do for it is done here.
void add_whole(rte_mbuf* packet, std::uint64_t offloads, Batch& batch, const PortView& port, Meter& meter,
               OffloadCounters& done, WorkerState& worker) {
  if ((packet->ol_flags & kRequests) == 0) return batch.add(packet);
  if ((packet->ol_flags & RTE_MBUF_F_TX_TCP_SEG) != 0) {
    // A card that cuts writes each segment's IPv4 checksum, if it is asked to.
    if ((packet->ol_flags & RTE_MBUF_F_TX_IPV4) != 0 && (offloads & RTE_ETH_TX_OFFLOAD_IPV4_CKSUM) != 0)
      packet->ol_flags |= RTE_MBUF_F_TX_IP_CKSUM;
    return batch.add(packet);
  }
  if (can_checksum(offloads, *packet)) return batch.add(packet);
  if (complete_checksum(*packet)) return done.checksums.add(1), batch.add(packet);
  drop(*packet, DropReason::bad_offload, port, meter, worker);
  rte_pktmbuf_free(packet);
}

}  // namespace

void transmit_with_offloads(const PortView& port, std::uint16_t queue, std::span<rte_mbuf*> packets, Meter& meter, OffloadCounters& done, WorkerState& worker) {
  Batch batch(port, queue, meter, worker);
  const std::uint64_t offloads = offloads_of(port);
  Cutter cutter(port, offloads, batch, meter, done, worker);
  for (rte_mbuf* packet : packets) {
    const bool cut = must_be_cut(*packet, offloads, port);
    if (!cut && worker.backlog.is_empty()) {
      add_whole(packet, offloads, batch, port, meter, done, worker);
      continue;
    }
    const EndpointId payer = payer_of(*packet, port, *worker.view);
    std::uint32_t made = 0;
    if (worker.backlog.holds(payer)) {
      keep(packet, made, payer, port, meter, worker);
    } else if (!cut) {
      add_whole(packet, offloads, batch, port, meter, done, worker);
    } else if (cutter.begin(payer); !cutter.cut(packet, made)) {
      keep(packet, made, payer, port, meter, worker);
    }
  }
}

void transmit_backlog(const PortView& port, std::uint16_t queue, EndpointId owner, Meter& meter, OffloadCounters& done,
                      WorkerState& worker) {
  Batch batch(port, queue, meter, worker);
  const std::uint64_t offloads = offloads_of(port);
  Cutter cutter(port, offloads, batch, meter, done, worker);
  cutter.begin(owner);
  Backlog& backlog = worker.backlog;
  while (backlog.holds(owner) && backlog.front(owner).port == port.slot) {
    Backlog::Waiting& waiting = backlog.front(owner);
    if (must_be_cut(*waiting.packet, offloads, port)) {
      const std::uint32_t buffers = waiting.packet->nb_segs;
      if (!cutter.cut(waiting.packet, waiting.made)) return;
      backlog.forget_front(owner, buffers);
    } else {
      add_whole(backlog.pop(owner), offloads, batch, port, meter, done, worker);
    }
  }
}

}  // namespace trunkline
