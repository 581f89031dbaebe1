// SPDX-License-Identifier: BSD-3-Clause
#include <rte_mbuf.h>

#include <algorithm>

#include "bench/generator/clock.h"
#include "bench/generator/histogram.h"
#include "bench/generator/traffic.h"

namespace trunkline::generator {
namespace {

constexpr unsigned kTimeShift = 4;  // the stamp counts 16 cycles
constexpr double kPatience = 0.2;   // seconds without an arrival after which the rest is lost
constexpr int kReceiveRounds = 4;   // bursts a turn, so that sending never starves

struct Counts {
  std::uint64_t sent = 0, bytes = 0, received = 0, bursts = 0, blocked = 0, unsent = 0, out_of_order = 0, foreign = 0;
};

// One direction.
class Lane {
 public:
  Lane(const StreamSettings& settings, const Frames& frames, Side side, Port& from, Port& to, rte_mempool& pool)
      : settings_(settings), frames_(frames), side_(side), from_(from), to_(to), pool_(pool) {
    for (const std::uint16_t size : settings.sizes) payloads_.push_back(frames.payload_of(size));
    // Both lanes walk the same flows, half a round apart.
    if (side == Side::task) next_flow_ = settings.order.size() / 2;
  }

  bool is_done() const { return settings_.timing.count != 0 && counts.sent + counts.unsent >= settings_.timing.count; }

  void send(std::uint64_t now, std::uint64_t since_start) {
    if (pending_ == 0) prepare(now, since_start);
    if (pending_ == 0) return;
    const std::uint16_t accepted = from_.send({packets_ + first_, pending_});
    for (std::uint16_t i = 0; i < accepted; ++i) counts.bytes += lengths_[first_ + i];
    ++counts.bursts;
    counts.sent += accepted;
    if (accepted < pending_) ++counts.blocked;
    first_ = static_cast<std::uint16_t>(first_ + accepted);
    pending_ = static_cast<std::uint16_t>(pending_ - accepted);
    // At a given rate the moment has passed; flat out the rest goes as soon as there is room.
    if (settings_.timing.rate != 0) drop_pending();
  }

  void receive(std::uint64_t now) {
    rte_mbuf* packets[2 * Port::kBurst];
    for (int round = 0; round < kReceiveRounds; ++round) {
      const std::uint16_t count = to_.receive(packets);
      for (std::uint16_t i = 0; i < count; ++i) {
        if (i + 4 < count) rte_prefetch0(rte_pktmbuf_mtod(packets[i + 4], void*));
        take(*packets[i], now);
      }
      rte_pktmbuf_free_bulk(packets, count);
      if (count < 2 * Port::kBurst) break;
    }
  }

  void drop_pending() {
    rte_pktmbuf_free_bulk(packets_ + first_, pending_);
    counts.unsent += pending_;
    pending_ = 0;
  }

  Counts counts;
  Histogram latency;

 private:
  void prepare(std::uint64_t now, std::uint64_t since_start) {
    std::uint64_t wanted = Port::kBurst;
    if (settings_.timing.rate != 0) {
      const auto due = static_cast<std::uint64_t>(to_seconds(since_start) * settings_.timing.rate);
      wanted = std::min<std::uint64_t>(wanted, due - std::min(due, counts.sent + counts.unsent));
    }
    if (settings_.timing.count != 0) {
      wanted = std::min(wanted, settings_.timing.count - std::min(settings_.timing.count, counts.sent + counts.unsent));
    }
    first_ = 0;
    if (wanted == 0 || rte_pktmbuf_alloc_bulk(&pool_, packets_, static_cast<unsigned>(wanted)) != 0) return;
    pending_ = static_cast<std::uint16_t>(wanted);
    const Segment& segment = side_ == Side::trunk ? kDataInward : kDataOutward;
    const auto time = static_cast<std::uint32_t>(now >> kTimeShift);
    for (std::uint16_t i = 0; i < pending_; ++i) {
      rte_mbuf& packet = *packets_[i];
      const std::uint16_t length = frames_.write(rte_pktmbuf_mtod(&packet, std::uint8_t*), side_, settings_.order[next_flow_],
                                                 payloads_[next_size_], segment, {sequence_++, time});
      packet.data_len = length;
      packet.pkt_len = length;
      lengths_[i] = length;
      if (++next_flow_ == settings_.order.size()) next_flow_ = 0;
      if (++next_size_ == payloads_.size()) next_size_ = 0;
    }
  }

  void take(rte_mbuf& packet, std::uint64_t now) {
    const auto received = read(rte_pktmbuf_mtod(&packet, std::uint8_t*), packet.data_len);
    if (!received) {
      ++counts.foreign;
      return;
    }
    ++counts.received;
    const auto ahead = static_cast<std::int16_t>(received->stamp.sequence - expected_);
    if (ahead < 0) {
      ++counts.out_of_order;
    } else {
      expected_ = static_cast<std::uint16_t>(received->stamp.sequence + 1);
    }
    if (settings_.latency) {
      const auto took = static_cast<std::uint32_t>(now >> kTimeShift) - received->stamp.value;
      latency.record(std::uint64_t{took} << kTimeShift);
    }
  }

  const StreamSettings& settings_;
  const Frames& frames_;
  Side side_;
  Port& from_;
  Port& to_;
  rte_mempool& pool_;
  std::vector<std::uint16_t> payloads_;
  std::size_t next_flow_ = 0, next_size_ = 0;
  std::uint16_t sequence_ = 0, expected_ = 0;
  std::uint16_t first_ = 0, pending_ = 0;
  rte_mbuf* packets_[Port::kBurst];
  std::uint16_t lengths_[Port::kBurst];
};

Json lane_report(const Lane& lane, const Counts& before, const Counts& after, double seconds) {
  const Counts& all = lane.counts;
  Json report = {{"pps", static_cast<double>(after.received - before.received) / seconds},
                 {"sent_pps", static_cast<double>(after.sent - before.sent) / seconds},
                 {"sent", all.sent},
                 {"bytes", all.bytes},
                 {"received", all.received},
                 {"lost", all.sent - std::min(all.sent, all.received)},
                 {"out_of_order", all.out_of_order},
                 {"unsent", all.unsent},
                 {"foreign", all.foreign},
                 {"blocked_share", all.bursts == 0 ? 0 : static_cast<double>(all.blocked) / static_cast<double>(all.bursts)}};
  if (lane.latency.total() != 0) {
    const Histogram& latency = lane.latency;
    report["latency_ns"] = {{"p50", to_ns(latency.percentile(0.5))},    {"p90", to_ns(latency.percentile(0.9))},
                            {"p99", to_ns(latency.percentile(0.99))},   {"p99.9", to_ns(latency.percentile(0.999))},
                            {"max", to_ns(latency.max())},              {"packets", latency.total()}};
  }
  return report;
}

}  // namespace

Json run_stream(Wires& wires, const StreamSettings& settings, const Progress& progress) {
  const Frames frames(settings.addressing, settings.protocol);
  struct Named {
    const char* name;
    Lane lane;
    Counts before{}, after{}, last{};
  };
  std::vector<Named> lanes;
  lanes.reserve(2);
  if (settings.inward) {
    lanes.push_back({"inward", {settings, frames, Side::trunk, wires.trunk, wires.task, *wires.pools.send}});
  }
  if (settings.outward) {
    lanes.push_back({"outward", {settings, frames, Side::task, wires.task, wires.trunk, *wires.pools.send}});
  }
  const std::uint64_t warm = to_cycles(settings.timing.warmup);
  const std::uint64_t whole = warm + to_cycles(settings.timing.seconds);
  bool is_warm = false;
  std::uint64_t began = 0;

  LoopClock clock;
  for (;;) {
    const std::uint64_t now = clock.turn();
    const std::uint64_t elapsed = clock.elapsed();
    if (!is_warm && elapsed >= warm) {
      is_warm = true;
      began = elapsed;
      for (Named& it : lanes) {
        it.before = it.lane.counts;
        it.lane.latency.clear();
      }
    }
    bool all_done = true;
    for (Named& it : lanes) {
      if (!it.lane.is_done()) {
        it.lane.send(now, elapsed);
        all_done = false;
      }
      it.lane.receive(now);
    }
    if (elapsed >= whole || all_done) break;
    if (clock.second_passed()) {
      Json line = {{"event", "second"}, {"elapsed", to_seconds(elapsed)}};
      for (Named& it : lanes) {
        line[it.name] = {{"sent", it.lane.counts.sent - it.last.sent}, {"received", it.lane.counts.received - it.last.received}};
        it.last = it.lane.counts;
      }
      progress(line);
    }
  }
  const double seconds = to_seconds(clock.elapsed() - began);
  for (Named& it : lanes) {
    it.after = it.lane.counts;
    it.lane.drop_pending();
  }
  const std::uint64_t gaps = clock.gaps(), longest = clock.longest(), sending = clock.elapsed();
  const auto all_arrived = [&] {
    return std::ranges::all_of(lanes, [](const Named& it) { return it.lane.counts.received >= it.lane.counts.sent; });
  };
  for (std::uint64_t quiet_since = clock.turn(), now = quiet_since; !all_arrived() && now - quiet_since < to_cycles(kPatience);
       now = clock.turn()) {
    for (Named& it : lanes) {
      const std::uint64_t seen = it.lane.counts.received;
      it.lane.receive(now);
      if (it.lane.counts.received != seen) quiet_since = now;
    }
  }
  Json report = {{"event", "result"}, {"mode", "stream"}, {"seconds", seconds}, {"gaps_over_50us", gaps},
                 {"longest_gap_us", to_ns(longest) / 1e3}, {"total_seconds", to_seconds(sending)}};
  double pps = 0;
  for (Named& it : lanes) {
    report[it.name] = lane_report(it.lane, it.before, it.after, seconds);
    pps += report[it.name]["pps"].get<double>();
  }
  report["pps"] = pps;
  return report;
}

}  // namespace trunkline::generator
