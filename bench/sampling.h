// SPDX-License-Identifier: BSD-3-Clause
//
// How the benchmarks take and compare measurements: ours and a peer's in one process, in turn, on the same packets.
//
// Rules:
//  * A sample is one call of a `work` function, which does its work on some packets and answers on how many; its value
//    is TSC cycles a packet. Make a call long (some 10,000 packets): the clock costs about 30 cycles to read.
//  * Figures that belong together (ours and a peer's, one stage and the next) are taken in one row. A row counts when the
//    core was at its full pace before and after each of its samples (core_pace.h); rows are taken until enough count, within
//    bounds. If too few do, all are used, and `pace` tells it to whoever reads the figure.
//  * A comparison runs its two works as ours, peer, peer, ours, ... (ABBA), so that a machine that slows down or speeds
//    up meanwhile is equally kind to both, and divides within each row.
//  * A ratio above 1 means that ours is faster. Its interval holds the median ratio with 95 % confidence (bootstrap); a
//    claim is made with the lower end.
//
// Needs no EAL. One thread.
#pragma once

#include <rte_cycles.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <random>
#include <span>
#include <tuple>
#include <type_traits>
#include <vector>

#include "bench/core_pace.h"

namespace trunkline::bench {

// Between the two nearest samples; `fraction` is 0..1. There must be a sample.
inline double percentile(std::vector<double> samples, double fraction) {
  std::ranges::sort(samples);
  const double at = fraction * static_cast<double>(samples.size() - 1);
  const auto below = static_cast<std::size_t>(at);
  const std::size_t above = std::min(below + 1, samples.size() - 1);
  return samples[below] + (samples[above] - samples[below]) * (at - static_cast<double>(below));
}

inline double median(const std::vector<double>& samples) { return percentile(samples, 0.5); }

struct Interval {
  double low = 0;
  double high = 0;
};

// Where the median of such samples lies with 95 % confidence: percentile bootstrap. Repeatable, its seed is fixed.
inline Interval bootstrap_interval(std::span<const double> samples, std::size_t resamples = 2000) {
  std::mt19937_64 random(1);
  std::vector<double> medians, resample(samples.size());
  for (std::size_t i = 0; i < resamples; ++i) {
    for (double& value : resample) value = samples[random() % samples.size()];
    medians.push_back(median(resample));
  }
  return {percentile(medians, 0.025), percentile(medians, 0.975)};
}

// TSC cycles a nanosecond, measured once.
inline double tsc_ghz() {
  static const double value = [] {
    using Clock = std::chrono::steady_clock;
    const Clock::time_point begin = Clock::now();
    const std::uint64_t first = rte_rdtsc();
    while (Clock::now() - begin < std::chrono::milliseconds(50)) {
    }
    const std::uint64_t last = rte_rdtsc();
    return static_cast<double>(last - first) / std::chrono::duration<double, std::nano>(Clock::now() - begin).count();
  }();
  return value;
}

// The slowest pace that a probe has shown on this thread since it was last set to 0; the fastest ever.
inline thread_local double slowest_pace = 0, fastest_pace = 1e9;

inline void note_pace() {
  const double pace = probe_pace();
  slowest_pace = std::max(slowest_pace, pace);
  fastest_pace = std::min(fastest_pace, pace);
}

// One sample.
template <typename Work>
double cycles_a_packet(Work&& work) {
  note_pace();
  const std::uint64_t before = rte_rdtsc();
  const std::size_t packets = work();
  const std::uint64_t after = rte_rdtsc();
  note_pace();
  return static_cast<double>(after - before) / static_cast<double>(packets);
}

template <std::size_t kColumns>
using Row = std::array<double, kColumns>;

template <std::size_t kColumns>
class Samples {
 public:
  // Calls `one`, which answers with a row, until `count` rows count.
  template <typename One>
  void take(std::size_t count, One&& one) {
    constexpr std::size_t kMostTimes = 20;
    constexpr auto kAtMost = std::chrono::milliseconds(700);
    for (int i = 0; i < 3; ++i) one();  // warms the caches and the branch predictor; not counted
    const auto end = std::chrono::steady_clock::now() + kAtMost;
    for (std::size_t calm = 0; rows_.size() < count || (calm < count && rows_.size() < kMostTimes * count && std::chrono::steady_clock::now() < end);) {
      add(one);
      calm += paces_.back() <= fastest_pace * kPaceTolerance;
    }
  }
  // One row more.
  template <typename One>
  void add(One&& one) {
    slowest_pace = 0;
    rows_.push_back(one());
    paces_.push_back(slowest_pace);
  }

  // Of the rows that count.
  template <typename Value>
  std::vector<double> of(Value&& value) const {
    std::vector<double> values;
    const double limit = too_few() ? 1e9 : fastest_pace * kPaceTolerance;
    for (std::size_t i = 0; i < rows_.size(); ++i) {
      if (paces_[i] <= limit) values.push_back(value(rows_[i]));
    }
    return values;
  }
  std::vector<double> column(std::size_t number) const {
    return of([number](const Row<kColumns>& row) { return row[number]; });
  }
  double pace() const { return too_few() ? median(paces_) : fastest_pace; }
  double share_at_full_pace() const { return static_cast<double>(at_full_pace()) / static_cast<double>(rows_.size()); }

 private:
  std::size_t at_full_pace() const {
    return static_cast<std::size_t>(std::ranges::count_if(paces_, [](double pace) { return pace <= fastest_pace * kPaceTolerance; }));
  }
  bool too_few() const { return at_full_pace() < std::min<std::size_t>(10, rows_.size()); }

  std::vector<Row<kColumns>> rows_;
  std::vector<double> paces_;
};

// `one` answers with cycles, or with a row of them.
template <typename One>
auto samples_of(std::size_t count, One&& one) {
  if constexpr (std::is_same_v<decltype(one()), double>) {
    return samples_of(count, [&] { return Row<1>{one()}; });
  } else {
    Samples<std::tuple_size_v<decltype(one())>> samples;
    samples.take(count, one);
    return samples;
  }
}

template <typename Work>
Samples<1> sample(std::size_t count, Work&& work) {
  return samples_of(count, [&] { return cycles_a_packet(work); });
}

// Rows of ours and the peer's.
using Comparison = Samples<2>;

template <typename Ours, typename Peer>
Comparison compare(std::size_t pairs, Ours&& ours, Peer&& peer) {
  bool ours_first = false;
  return samples_of(pairs, [&]() -> Row<2> {
    ours_first = !ours_first;
    if (ours_first) {
      const double first = cycles_a_packet(ours);
      return {first, cycles_a_packet(peer)};
    }
    const double first = cycles_a_packet(peer);
    return {cycles_a_packet(ours), first};
  });
}

// Into `counters`, Google Benchmark's or any other map from names to numbers.
template <typename Counters>
void report(Counters& counters, const std::vector<double>& samples) {
  counters["cycles"] = median(samples);
  counters["p10"] = percentile(samples, 0.1);
  counters["p90"] = percentile(samples, 0.9);
  counters["ns"] = median(samples) / tsc_ghz();
}

// What each sample's row makes of itself.
template <typename Counters, std::size_t kColumns, typename Value>
void report(Counters& counters, const Samples<kColumns>& samples, Value&& value) {
  report(counters, samples.of(value));
  counters["pace"] = samples.pace();
  counters["full_pace"] = samples.share_at_full_pace();
}

template <typename Counters>
void report(Counters& counters, const Samples<1>& samples) {
  report(counters, samples, [](const Row<1>& row) { return row[0]; });
}

template <typename Counters>
void report(Counters& counters, const Comparison& comparison) {
  report(counters, comparison, [](const Row<2>& row) { return row[0]; });
  const std::vector<double> ratios = comparison.of([](const Row<2>& row) { return row[1] / row[0]; });
  const Interval interval = bootstrap_interval(ratios);
  counters["peer_cycles"] = median(comparison.column(1));
  counters["ratio"] = median(ratios);
  counters["ratio_low"] = interval.low;
  counters["ratio_high"] = interval.high;
}

}  // namespace trunkline::bench
