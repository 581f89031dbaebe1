// SPDX-License-Identifier: BSD-3-Clause
//
// Counters that close. A Meter watches one side of one port, and at rest
//
//     rx_packets + made_packets == tx_packets + sum of drops
//
// holds for every one: what came to this side either went on or has a named reason. `made` are the packets beyond the first that
// a packet became which was larger than the MTU (stages/fragment_ipv4.h), and their repeated headers. For a task port the
// `egress` meter counts what the task sent, the `ingress` meter what went towards it; the trunk has one for each way too.
//
// A super-frame counts as the frames that it stands for (super_frame.h), however it came and goes.
//
// One worker writes a meter; the control thread reads it. Each worker has its own of each side, and it is their sum that
// closes: an endpoint may have moved. A reader may see a packet counted as received and not yet as sent; it never sees a
// torn number. Cells are padded so that two writers share no line.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>

#include "dataplane/verdict.h"

namespace trunkline {

class Counter {
 public:
  // The single writer's increment: a plain load and store, no locked instruction.
  [[gnu::always_inline]] void add(std::uint64_t n) { value_.store(value_.load(std::memory_order_relaxed) + n, std::memory_order_relaxed); }
  std::uint64_t read() const { return value_.load(std::memory_order_relaxed); }

 private:
  std::atomic<std::uint64_t> value_{0};
};

// Some frames and their bytes.
struct Frames {
  std::uint64_t packets = 0, bytes = 0;

  Frames& operator+=(const Frames& more) {
    packets += more.packets, bytes += more.bytes;
    return *this;
  }
  friend Frames operator+(Frames sum, const Frames& more) { return sum += more; }
};

struct alignas(64) Meter {
  Counter rx_packets, rx_bytes;
  Counter tx_packets, tx_bytes;
  std::array<Counter, kDropReasonCount> drops;  // by DropReason; [none] stays 0
  Counter made_packets, made_bytes;

  [[gnu::always_inline]] void received(Frames frames) { rx_packets.add(frames.packets), rx_bytes.add(frames.bytes); }
  [[gnu::always_inline]] void sent(Frames frames) { tx_packets.add(frames.packets), tx_bytes.add(frames.bytes); }
  void made(Frames frames) { made_packets.add(frames.packets), made_bytes.add(frames.bytes); }
  void dropped(DropReason reason, std::uint64_t packets = 1) { drops[static_cast<std::size_t>(reason)].add(packets); }
};

// What a Meter said at one moment, as plain numbers; differences of two of these are what is shown, since an
// EndpointId (and with it the meter) is used again after a detach.
struct MeterReading {
  std::uint64_t rx_packets = 0, rx_bytes = 0, tx_packets = 0, tx_bytes = 0, made_packets = 0, made_bytes = 0;
  std::array<std::uint64_t, kDropReasonCount> drops{};

  static MeterReading of(const Meter& meter) {
    // Drops and tx before rx: a packet between the two reads makes a positive remainder, never a negative one.
    return sum_of(std::array{&meter});
  }

  // The sum of several workers' meters of one side. In the same order over all of them: a packet may be received by one
  // worker and sent on by another.
  template <class Meters>
  static MeterReading sum_of(const Meters& meters) {
    MeterReading sum;
    for (const Meter* meter : meters) {
      for (std::size_t i = 0; i < kDropReasonCount; ++i) sum.drops[i] += meter->drops[i].read();
      sum.tx_packets += meter->tx_packets.read();
      sum.tx_bytes += meter->tx_bytes.read();
    }
    for (const Meter* meter : meters) {
      sum.rx_packets += meter->rx_packets.read();
      sum.rx_bytes += meter->rx_bytes.read();
      sum.made_packets += meter->made_packets.read();
      sum.made_bytes += meter->made_bytes.read();
    }
    return sum;
  }

  MeterReading since(const MeterReading& start) const {
    MeterReading result = *this;
    result.rx_packets -= start.rx_packets, result.rx_bytes -= start.rx_bytes;
    result.tx_packets -= start.tx_packets, result.tx_bytes -= start.tx_bytes;
    result.made_packets -= start.made_packets, result.made_bytes -= start.made_bytes;
    for (std::size_t i = 0; i < kDropReasonCount; ++i) result.drops[i] -= start.drops[i];
    return result;
  }

  std::uint64_t dropped() const {
    std::uint64_t sum = 0;
    for (const std::uint64_t n : drops) sum += n;
    return sum;
  }
  // Packets neither sent nor dropped: 0 when nothing is in flight.
  std::int64_t unaccounted() const { return static_cast<std::int64_t>(rx_packets + made_packets - tx_packets - dropped()); }
};

}  // namespace trunkline
