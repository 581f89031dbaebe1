// SPDX-License-Identifier: BSD-3-Clause
// Both sides of TCP, without memory of any connection: what comes next follows from the side that a packet reached and
// from its flags.
#include <rte_mbuf.h>

#include <algorithm>
#include <array>

#include "bench/generator/clock.h"
#include "bench/generator/histogram.h"
#include "bench/generator/traffic.h"

namespace trunkline::generator {
namespace {

constexpr unsigned kTimeShift = 4;
constexpr double kLostAfter = 0.1;  // seconds without an arrival: what is under way will not come

// What leaves a port together; what does not fit into the ring is tried once more, then dropped and counted.
class Outlet {
 public:
  explicit Outlet(const Port& port) : port_(port) {}

  void add(rte_mbuf* packet) {
    if (count_ == packets_.size()) flush();
    packets_[count_++] = packet;
  }
  void flush() {
    std::uint16_t sent = 0;
    for (int attempt = 0; sent < count_ && attempt < 64; ++attempt) {
      sent = static_cast<std::uint16_t>(sent + port_.send({packets_.data() + sent, static_cast<std::size_t>(count_ - sent)}));
    }
    dropped_ += static_cast<std::uint64_t>(count_ - sent);
    rte_pktmbuf_free_bulk(packets_.data() + sent, static_cast<unsigned>(count_ - sent));
    count_ = 0;
  }
  std::uint64_t dropped() const { return dropped_; }

 private:
  const Port& port_;
  std::array<rte_mbuf*, 2 * Port::kBurst> packets_;
  std::uint16_t count_ = 0;
  std::uint64_t dropped_ = 0;
};

class Conversation {
 public:
  Conversation(Wires& wires, const Addressing& addressing, Protocol protocol)
      : wires_(wires), frames_(addressing, protocol), trunk_(wires.trunk), task_(wires.task) {}

  // Sends up to a burst of opening packets, numbers from next(). `value` goes round with all packets of the flow.
  template <typename Next, typename Value>
  void open(std::uint32_t count, Next&& next, Value&& value) {
    count = std::min<std::uint32_t>(count, Port::kBurst);
    rte_mbuf* packets[Port::kBurst];
    if (count == 0 || rte_pktmbuf_alloc_bulk(wires_.pools.send, packets, count) != 0) return;
    for (std::uint32_t i = 0; i < count; ++i) {
      const std::uint32_t flow = next();
      const std::uint16_t length = frames_.write(rte_pktmbuf_mtod(packets[i], std::uint8_t*), Side::trunk, flow, kNoPayload,
                                                 kOpening, {0, value(flow)});
      packets[i]->data_len = length;
      packets[i]->pkt_len = length;
      trunk_.add(packets[i]);
    }
    trunk_.flush();
  }

  // `at_task(received)` and `at_trunk(received)` say the flags of the answer, or 0 for none.
  template <typename AtTask, typename AtTrunk>
  std::uint32_t turn(AtTask&& at_task, AtTrunk&& at_trunk) {
    const std::uint32_t packets = answer_all(wires_.task, task_, at_task) + answer_all(wires_.trunk, trunk_, at_trunk);
    task_.flush();
    trunk_.flush();
    return packets;
  }

  std::uint64_t dropped() const { return trunk_.dropped() + task_.dropped(); }

 private:
  template <typename Reply>
  static std::uint32_t answer_all(Port& port, Outlet& outlet, Reply& reply) {
    rte_mbuf* packets[2 * Port::kBurst];
    const std::uint16_t count = port.receive(packets);
    for (std::uint16_t i = 0; i < count; ++i) {
      if (i + 4 < count) rte_prefetch0(rte_pktmbuf_mtod(packets[i + 4], void*));
      auto* data = rte_pktmbuf_mtod(packets[i], std::uint8_t*);
      const auto received = read(data, packets[i]->data_len);
      const std::uint8_t flags = received ? reply(*received) : 0;
      if (flags == 0) {
        rte_pktmbuf_free(packets[i]);
        continue;
      }
      answer(data, *received, flags);
      outlet.add(packets[i]);
    }
    return count;
  }

  Wires& wires_;
  Frames frames_;
  Outlet trunk_, task_;
};

}  // namespace

Json run_ramp(Wires& wires, const RampSettings& settings, const Progress& progress) {
  Conversation conversation(wires, settings.addressing, settings.protocol);
  const bool is_tcp = settings.protocol == Protocol::tcp;
  std::vector<bool> known(settings.flows);
  std::uint32_t established = 0, under_way = 0;
  const auto settle = [&](std::uint32_t flow) {
    if (flow >= settings.flows || known[flow]) return;
    known[flow] = true;
    ++established;
    if (under_way > 0) --under_way;
  };
  const auto at_task = [&](const Received& received) -> std::uint8_t {
    if (!is_tcp) return kAck;
    if (tcp_flags(received) == kSyn) return kSynAck;
    if (tcp_flags(received) == kAck) settle(received.stamp.value);
    return 0;
  };
  const auto at_trunk = [&](const Received& received) -> std::uint8_t {
    if (is_tcp) return tcp_flags(received) == kSynAck ? kAck : 0;
    settle(received.stamp.value);
    return 0;
  };
  LoopClock clock;
  std::uint32_t pass = 0;
  const std::uint64_t deadline = to_cycles(settings.seconds);
  for (; pass < settings.passes && established < settings.flows && clock.elapsed() < deadline; ++pass) {
    std::uint32_t next = 0;
    const auto find_next = [&] {
      while (next < settings.flows && known[next]) ++next;
      return next < settings.flows;
    };
    std::uint64_t last_arrival = clock.turn();
    under_way = 0;
    while (clock.elapsed() < deadline) {
      const std::uint64_t now = clock.turn();
      std::uint32_t burst[Port::kBurst];
      std::uint32_t count = 0;
      const std::uint32_t room = settings.window - std::min(settings.window, under_way);
      while (count < std::min<std::uint32_t>(room, Port::kBurst) && find_next()) burst[count++] = next++;
      std::uint32_t at = 0;
      conversation.open(count, [&] { return burst[at++]; }, [](std::uint32_t flow) { return flow; });
      under_way += count;
      if (conversation.turn(at_task, at_trunk) != 0) last_arrival = now;
      if (now - last_arrival > to_cycles(kLostAfter)) {
        if (!find_next()) break;
        under_way = 0;
        last_arrival = now;
      }
      if (under_way == 0 && !find_next()) break;
      if (clock.second_passed()) {
        progress({{"event", "second"}, {"elapsed", to_seconds(clock.elapsed())}, {"established", established}});
      }
    }
  }
  return {{"event", "result"},  {"mode", "ramp"}, {"flows", settings.flows}, {"established", established},
          {"passes", pass},     {"seconds", to_seconds(clock.elapsed())},
          {"unsent", conversation.dropped()}};
}

Json run_connections(Wires& wires, const ConnectionSettings& settings, const Progress& progress) {
  Conversation conversation(wires, settings.addressing, Protocol::tcp);
  std::uint64_t opened = 0, completed = 0, lost = 0;
  Histogram latency;
  std::uint64_t now = 0;
  std::uint64_t packets = 0;
  const auto at_task = [&](const Received& received) -> std::uint8_t {
    ++packets;
    switch (tcp_flags(received)) {
      case kSyn: return kSynAck;
      case kAck: return kFinAck;
      case kFinAck: return kAck;
      default: return 0;
    }
  };
  const auto at_trunk = [&](const Received& received) -> std::uint8_t {
    ++packets;
    switch (tcp_flags(received)) {
      case kSynAck: return kAck;
      case kFinAck: return kFinAck;
      case kAck:
        ++completed;
        latency.record(std::uint64_t{static_cast<std::uint32_t>(now >> kTimeShift) - received.stamp.value} << kTimeShift);
        return 0;
      default: return 0;
    }
  };
  const Timing& timing = settings.timing;
  const std::uint64_t warm = to_cycles(timing.warmup);
  const std::uint64_t whole = warm + to_cycles(timing.seconds);
  bool is_warm = false;
  std::uint64_t began = 0, completed_before = 0, completed_last = 0;
  std::uint64_t waited = 0, turns = 0;

  LoopClock clock;
  std::uint64_t last_arrival = clock.start();
  while (clock.elapsed() < whole && (timing.count == 0 || completed + lost < timing.count)) {
    now = clock.turn();
    ++turns;
    if (!is_warm && clock.elapsed() >= warm) {
      is_warm = true;
      began = clock.elapsed();
      completed_before = completed;
      latency.clear();
    }
    std::uint64_t wanted = Port::kBurst;
    if (timing.rate != 0) {
      const auto due = static_cast<std::uint64_t>(to_seconds(clock.elapsed()) * timing.rate);
      wanted = std::min(wanted, due - std::min(due, opened));
    } else {
      const std::uint64_t under_way = opened - std::min(opened, completed + lost);
      wanted = std::min(wanted, settings.window - std::min<std::uint64_t>(settings.window, under_way));
      if (wanted == 0) ++waited;
    }
    if (timing.count != 0) wanted = std::min(wanted, timing.count - std::min(timing.count, opened));
    conversation.open(
        static_cast<std::uint32_t>(wanted), [&] { return settings.first + static_cast<std::uint32_t>(opened++); },
        [&](std::uint32_t) { return static_cast<std::uint32_t>(now >> kTimeShift); });
    if (conversation.turn(at_task, at_trunk) != 0) last_arrival = now;
    // A window full of connections that lost a packet would stand still for ever.
    if (now - last_arrival > to_cycles(kLostAfter)) {
      lost = opened - completed;
      last_arrival = now;
    }
    if (clock.second_passed()) {
      progress({{"event", "second"}, {"elapsed", to_seconds(clock.elapsed())}, {"completed", completed - completed_last}});
      completed_last = completed;
    }
  }
  const double total_seconds = to_seconds(clock.elapsed());
  const double seconds = to_seconds(clock.elapsed() - began);
  const std::uint64_t completed_in_time = completed - completed_before;
  const std::uint64_t stopped = clock.turn();
  for (last_arrival = stopped, now = stopped;
       completed < opened && now - last_arrival < to_cycles(kLostAfter) && now - stopped < to_cycles(10 * kLostAfter);
       now = clock.turn()) {
    if (conversation.turn(at_task, at_trunk) != 0) last_arrival = now;
  }
  return {{"event", "result"},
          {"mode", "connections"},
          {"seconds", seconds},
          {"total_seconds", total_seconds},
          {"connections_per_second", static_cast<double>(completed_in_time) / seconds},
          {"opened", opened},
          {"completed", completed},
          {"incomplete", opened - std::min(opened, completed)},
          {"packets", packets},
          {"unsent", conversation.dropped()},
          {"blocked_share", turns == 0 ? 0 : static_cast<double>(waited) / static_cast<double>(turns)},
          {"gaps_over_50us", clock.gaps()},
          {"longest_gap_us", to_ns(clock.longest()) / 1e3},
          {"latency_ns", {{"p50", to_ns(latency.percentile(0.5))}, {"p99", to_ns(latency.percentile(0.99))},
                          {"p99.9", to_ns(latency.percentile(0.999))}, {"max", to_ns(latency.max())}}}};
}

}  // namespace trunkline::generator
