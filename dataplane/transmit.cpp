// SPDX-License-Identifier: BSD-3-Clause
#include "dataplane/transmit.h"

#include <rte_ethdev.h>

#include "dataplane/stages/observe_drop.h"
#include "dataplane/stages/segment.h"
#include "dataplane/state/super_frame.h"

namespace trunkline {
namespace {

constexpr std::uint64_t kRequests = RTE_MBUF_F_TX_TCP_SEG | RTE_MBUF_F_TX_L4_MASK;

// Counts packets that leave by no port, before they are freed. `frames`: of a super-frame, those that were lost; 0: all.
void drop(rte_mbuf& packet, DropReason reason, const PortView& port, Meter& meter, WorkerState& worker, std::uint32_t frames = 0) {
  meter.dropped(reason, frames != 0 ? frames : frames_of(packet).packets);
  if (worker.observers == nullptr) [[likely]] return;
  const Endpoint* endpoint = port.is_trunk ? nullptr : worker.view->endpoint(port.endpoint);
  observe_drop(worker, packet, {.endpoint = endpoint != nullptr ? endpoint->id : EndpointId{},
                                .generation = endpoint != nullptr ? endpoint->generation : std::uint16_t{0},
                                .direction = port.is_trunk ? Direction::egress : Direction::ingress,
                                .stage = Stage::transmit,
                                .reason = reason,
                                .frames = frames});
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
    const std::uint16_t sent = rte_eth_tx_burst(port_.ethdev, queue_, packets, prepared);
    Frames all;
    for (std::uint16_t i = 0; i < sent; ++i) all.packets += frames[i].packets, all.bytes += frames[i].bytes;
    meter_.sent(all);
    return sent != 0 ? sent : drop_all(packets, prepared, DropReason::tx_full);
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

void cut(rte_mbuf* super_frame, std::uint64_t offloads, Batch& batch, const PortView& port, Meter& meter, OffloadCounters& done, WorkerState& worker) {
  Segmenter segmenter(*super_frame);
  std::uint64_t lost = segmenter.left();
  DropReason why = DropReason::bad_offload;
  if (segmenter.is_sound()) {
    why = DropReason::no_buffer;
    const bool checksums = (offloads & RTE_ETH_TX_OFFLOAD_TCP_CKSUM) == 0;
    while (segmenter.left() != 0) {
      const std::uint32_t made = segmenter.next(batch.room(), checksums);
      if (made == 0) break;
      batch.added(made);
      done.segments.add(made);
    }
    lost = segmenter.left();
    done.super_frames.add(1);
  } else {
    lost = frames_of(*super_frame).packets;
  }
  if (lost != 0) drop(*super_frame, why, port, meter, worker, static_cast<std::uint32_t>(lost));
  rte_pktmbuf_free(super_frame);
}

bool can_checksum(std::uint64_t offloads, const rte_mbuf& packet) {
  const bool tcp = (packet.ol_flags & RTE_MBUF_F_TX_L4_MASK) == RTE_MBUF_F_TX_TCP_CKSUM;
  return (offloads & (tcp ? RTE_ETH_TX_OFFLOAD_TCP_CKSUM : RTE_ETH_TX_OFFLOAD_UDP_CKSUM)) != 0;
}

}  // namespace

void transmit(const PortView& port, std::uint16_t queue, std::span<rte_mbuf*> packets, std::uint64_t bytes, Meter& meter, WorkerState& worker) {
  std::size_t sent = 0;
  while (sent < packets.size()) {
    const std::uint16_t accepted = rte_eth_tx_burst(port.ethdev, queue, packets.data() + sent, static_cast<std::uint16_t>(packets.size() - sent));
    if (accepted == 0) break;
    sent += accepted;
  }
  // What the driver took is no longer ours to look at, what it did not take still is.
  const auto refused = packets.subspan(sent);
  for (const rte_mbuf* packet : refused) bytes -= packet->pkt_len;
  meter.sent({sent, bytes});
  if (refused.empty()) return;
  for (rte_mbuf* packet : refused) drop(*packet, DropReason::tx_full, port, meter, worker);
  rte_pktmbuf_free_bulk(refused.data(), static_cast<unsigned>(refused.size()));
}

void transmit_with_offloads(const PortView& port, std::uint16_t queue, std::span<rte_mbuf*> packets, Meter& meter, OffloadCounters& done, WorkerState& worker) {
  Batch batch(port, queue, meter, worker);
  const std::uint64_t offloads = offloads_of(port);
  for (rte_mbuf* packet : packets) {
    if ((packet->ol_flags & kRequests) == 0) {
      batch.add(packet);
    } else if ((packet->ol_flags & RTE_MBUF_F_TX_TCP_SEG) != 0) {
      if ((offloads & RTE_ETH_TX_OFFLOAD_TCP_TSO) == 0 || packet->nb_segs > port.max_segments) {
        cut(packet, offloads, batch, port, meter, done, worker);
        continue;
      }
      // A card that cuts writes each segment's IPv4 checksum, if it is asked to.
      if ((packet->ol_flags & RTE_MBUF_F_TX_IPV4) != 0 && (offloads & RTE_ETH_TX_OFFLOAD_IPV4_CKSUM) != 0) packet->ol_flags |= RTE_MBUF_F_TX_IP_CKSUM;
      batch.add(packet);
    } else if (can_checksum(offloads, *packet)) {
      batch.add(packet);
    } else if (complete_checksum(*packet)) {
      done.checksums.add(1);
      batch.add(packet);
    } else {
      drop(*packet, DropReason::bad_offload, port, meter, worker);
      rte_pktmbuf_free(packet);
    }
  }
}

}  // namespace trunkline
