// SPDX-License-Identifier: BSD-3-Clause
//
// Where the stages leave what they have finished with: packets to send, gathered so that each port is kicked once per turn, and
// packets to free. The stages call no driver; the worker empties the outbox into the ports, a unit test looks at it.
//
// Packets are listed in the order in which they were sent, with their ports beside them, and sorted by port when the outbox is
// emptied (a counting sort: each port's packets stay in order). A queue for each port would be written to in as many places as there
// are ports, and 120 of them do not fit into the first-level cache beside the rest.
//
// One call of a pipeline function adds at most kRoom packets, so the worker empties an outbox that has less room left before it goes on.
#pragma once

#include <rte_mbuf.h>

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <utility>

#include "config/net.h"
#include "dataplane/packet.h"

namespace trunkline {

class Outbox {
 public:
  static constexpr std::size_t kCapacity = 4096, kRoom = 2 * kMaxBurst;

  // What one port is to be sent.
  struct Batch {
    std::span<rte_mbuf*> packets;
    std::uint64_t bytes;  // of them
    bool asks;            // something of the port, by the ol_flags of one of them (stages/offload.h)
  };

  explicit Outbox(std::size_t ports) : loads_(new Load[ports]()), places_(new std::uint32_t[ports]()), ports_(new PortSlot[ports + 1]) {}

  // `bytes` and `asks`: what its pkt_len and ol_flags say. Without a branch on whether the port has something already: in a burst for many
  // ports nobody could guess it.
  [[gnu::always_inline]] void send(PortSlot port, rte_mbuf* packet, std::uint32_t bytes, bool asks) {
    const Load load = loads_[port.value];
    packets_[packet_count_] = packet;
    port_of_[packet_count_] = port;
    ++packet_count_;
    ports_[port_count_] = port;
    port_count_ += load == 0;
    loads_[port.value] = (load + (Load{bytes} << kBytesShift) + 1) | Load{asks} << kAsksShift;
  }
  [[gnu::always_inline]] void send(PortSlot port, rte_mbuf* packet) { send(port, packet, packet->pkt_len, packet->ol_flags != 0); }

  // Calls take(port, batch) for each port that has packets; afterwards none has.
  template <class Take>
  void empty(Take&& take) {
    rte_mbuf** next = port_count_ > 1 ? sort() : packets_.data();
    for (std::size_t i = 0; i < port_count_; ++i) {
      const PortSlot port = ports_[i];
      const Load load = std::exchange(loads_[port.value], 0);
      take(port, Batch{{next, count_of(load)}, load >> kBytesShift, (load >> kAsksShift & 1) != 0});
      next += count_of(load);
    }
    packet_count_ = port_count_ = 0;
  }
  bool is_empty() const { return packet_count_ == 0; }
  bool is_full() const { return packet_count_ > kCapacity - kRoom; }

  void discard(rte_mbuf* packet) {
    if (discarded_count_ < discarded_.size()) discarded_[discarded_count_++] = packet;
  }
  std::span<rte_mbuf*> discarded() { return {discarded_.data(), discarded_count_}; }
  void clear_discarded() { discarded_count_ = 0; }

 private:
  // Of a port: how many packets, whether they ask for something, and their bytes, in one word so that one addition does for all.
  using Load = std::uint64_t;
  static constexpr unsigned kAsksShift = 16, kBytesShift = 17;
  static_assert(kCapacity < 1U << kAsksShift);
  static std::uint32_t count_of(Load load) { return load & ((1U << kAsksShift) - 1); }

  rte_mbuf** sort() {
    std::uint32_t place = 0;
    for (std::size_t i = 0; i < port_count_; ++i) {
      places_[ports_[i].value] = place;
      place += count_of(loads_[ports_[i].value]);
    }
    for (std::size_t i = 0; i < packet_count_; ++i) sorted_[places_[port_of_[i].value]++] = packets_[i];
    return sorted_.data();
  }

  std::unique_ptr<Load[]> loads_;            // by PortSlot
  std::unique_ptr<std::uint32_t[]> places_;  // by PortSlot: where its next packet goes in sorted_
  std::unique_ptr<PortSlot[]> ports_;        // those that have packets; one more than there are, for send() writes before it knows
  std::size_t packet_count_ = 0, port_count_ = 0;
  std::array<rte_mbuf*, kCapacity> packets_;
  // A burst's packets, the local packets made of it, the tails cut off their chains, and the fragments that were held for each
  // of both. Here, so that packets_ and sorted_ do not begin at the same place in their pages.
  std::array<rte_mbuf*, 12 * kMaxBurst> discarded_;
  std::size_t discarded_count_ = 0;
  std::array<rte_mbuf*, kCapacity> sorted_;
  std::array<PortSlot, kCapacity> port_of_;
};

}  // namespace trunkline
