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
#include <span>
#include <utility>

#include "config/net.h"
#include "dataplane/packet.h"
#include "dataplane/state/flow_key.h"

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

  // `bytes` and `asks`: what its pkt_len and ol_flags say. Without a branch on whether the port has something already: in a burst for many
  // ports nobody could guess it.
  [[gnu::always_inline]] void send(PortSlot port, rte_mbuf* packet, std::uint32_t bytes, bool asks) {
    list(port, packet, bytes, asks, packet_count_, port_count_);
  }
  [[gnu::always_inline]] void send(PortSlot port, rte_mbuf* packet) { send(port, packet, packet->pkt_len, packet->ol_flags != 0); }

  // The same for packets that ask for nothing, in a row: while one of these is there, nobody else may send.
  class Row {
   public:
    explicit Row(Outbox& outbox) : outbox_(outbox), packets_(outbox.packet_count_), ports_(outbox.port_count_) {}
    ~Row() { outbox_.packet_count_ = packets_, outbox_.port_count_ = ports_; }
    Row(const Row&) = delete;
    Row& operator=(const Row&) = delete;
    [[gnu::always_inline]] void send(PortSlot port, rte_mbuf* packet, std::uint32_t bytes) { outbox_.list(port, packet, bytes, false, packets_, ports_); }

   private:
    Outbox& outbox_;
    std::size_t packets_, ports_;
  };

  // The same for packets of one port: put into room(), and then told of all together.
  rte_mbuf** room() { return &packets_[packet_count_]; }
  void send_from_room(PortSlot port, std::uint32_t count, std::uint64_t bytes) {
    if (count == 0) return;
    const Load load = loads_[port.value];
    const Address first = address_of(port, load);
    for (std::uint32_t i = 0; i < count; ++i) address_[packet_count_ + i] = first + (i << kRankShift);
    packet_count_ += count;
    ports_[port_count_] = port;
    port_count_ += load == 0;
    loads_[port.value] = load + (bytes << kBytesShift) + count;
  }

  // Calls take(port, batch) for each port that has packets; afterwards none has. `take` sends nothing.
  template <class Take>
  void empty(Take&& take) {
    rte_mbuf** const packets = port_count_ > 1 ? sort() : packets_.data();
    const std::size_t count = port_count_;
    for (std::size_t i = 0; i < count; ++i) {
      const PortSlot port = ports_[i];
      const Load load = std::exchange(loads_[port.value], 0);
      take(port, Batch{{packets + (load >> kPlaceShift), count_of(load)}, load >> kBytesShift & kBytesMask, (load >> kAsksShift & 1) != 0});
    }
    packet_count_ = port_count_ = 0;
  }
  bool is_empty() const { return packet_count_ == 0; }
  // For the watchers (stages/observe.h): how many packets are listed, and one of them with its port, by its place in the list.
  std::size_t size() const { return packet_count_; }
  std::pair<PortSlot, rte_mbuf*> listed(std::size_t place) const { return {PortSlot{static_cast<std::uint16_t>(address_[place])}, packets_[place]}; }
  bool is_full() const { return packet_count_ > kCapacity - kRoom; }
  // For so many packets beside those that a call of a pipeline function may always add.
  bool has_room(std::size_t packets) const { return packet_count_ + packets + kRoom <= kCapacity; }

  void discard(rte_mbuf* packet) {
    if (discarded_count_ < discarded_.size()) discarded_[discarded_count_++] = packet;
  }
  std::span<rte_mbuf*> discarded() { return {discarded_.data(), discarded_count_}; }
  void clear_discarded() { discarded_count_ = 0; }

 private:
  // Of a port: how many packets, their bytes, and whether they ask for something, in one word so that one addition does for all; above them,
  // while the outbox is emptied, where its packets begin.
  using Load = std::uint64_t;
  static constexpr unsigned kBytesShift = 16, kAsksShift = 51, kPlaceShift = 52;
  static constexpr Load kBytesMask = (Load{1} << (kAsksShift - kBytesShift)) - 1;  // more than there are buffers for
  static_assert(kCapacity < 1U << kBytesShift && kCapacity - 1 < 1U << (64 - kPlaceShift));
  static std::uint32_t count_of(Load load) { return static_cast<std::uint16_t>(load); }

  // Where a packet goes: its port, and above it how many the port has before it.
  using Address = std::uint32_t;
  static constexpr unsigned kRankShift = 16;
  static Address address_of(PortSlot port, Load load) { return static_cast<Address>(load << kRankShift) | port.value; }

  [[gnu::always_inline]] void list(PortSlot port, rte_mbuf* packet, std::uint32_t bytes, bool asks, std::size_t& packets, std::size_t& ports) {
    const Load load = loads_[port.value];
    packets_[packets] = packet;
    address_[packets] = address_of(port, load);
    ++packets;
    ports_[ports] = port;
    ports += load == 0;
    loads_[port.value] = (load + (Load{bytes} << kBytesShift) + 1) | Load{asks} << kAsksShift;
  }

  rte_mbuf** sort() {
    const std::size_t ports = port_count_, packets = packet_count_;
    Load place = 0;
    for (std::size_t i = 0; i < ports; ++i) {
      Load& load = loads_[ports_[i].value];
      const std::uint32_t count = count_of(load);
      load |= place << kPlaceShift;
      place += count;
    }
    for (std::size_t i = 0; i < packets; ++i) {
      const Address address = address_[i];
      sorted_[(loads_[address & 0xffff] >> kPlaceShift) + (address >> kRankShift)] = packets_[i];
    }
    return sorted_.data();
  }

  static constexpr std::size_t kPorts = FlowKey::kMaxEndpoints + 1;  // the trunk's and a port each

  std::size_t packet_count_ = 0, port_count_ = 0;
  std::array<Load, kPorts> loads_{};       // by PortSlot
  std::array<PortSlot, kPorts + 1> ports_;  // those that have packets; one more than there are, for send() writes before it knows
  std::array<rte_mbuf*, kCapacity> packets_;
  // A burst's packets, the local packets made of it, the tails cut off their chains, and the fragments that were held for each
  // of both. Here, so that packets_ and sorted_ do not begin at the same place in their pages.
  std::array<rte_mbuf*, 12 * kMaxBurst> discarded_;
  std::size_t discarded_count_ = 0;
  std::array<rte_mbuf*, kCapacity> sorted_;
  std::array<Address, kCapacity> address_;
};

}  // namespace trunkline
