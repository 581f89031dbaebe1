// SPDX-License-Identifier: BSD-3-Clause
//
// How the benchmarks take and compare measurements: ours and a peer's in one process, in turn, on the same packets.
//
// Rules:
//  * A sample is one call of a `work` function, which does its work on some packets and answers on how many; its value
//    is TSC cycles a packet. Make a call long (some 10,000 packets): the clock costs about 30 cycles to read.
//  * A comparison runs its two works as ours, peer, peer, ours, ... (ABBA), so that a machine that slows down or speeds
//    up meanwhile is equally kind to both, and divides within each neighbouring pair.
//  * A ratio above 1 means that ours is faster. Its interval holds the median ratio with 95 % confidence (bootstrap); a
//    claim is made with the lower end.
//
// Needs no EAL. One thread.
#pragma once

#include <rte_cycles.h>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <random>
#include <span>
#include <vector>

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

// One sample.
template <typename Work>
double cycles_a_packet(Work&& work) {
  const std::uint64_t before = rte_rdtsc();
  const std::size_t packets = work();
  return static_cast<double>(rte_rdtsc() - before) / static_cast<double>(packets);
}

template <typename Work>
std::vector<double> sample(std::size_t count, Work&& work) {
  cycles_a_packet(work);  // warms the caches and the branch predictor; not counted
  std::vector<double> samples;
  for (std::size_t i = 0; i < count; ++i) samples.push_back(cycles_a_packet(work));
  return samples;
}

struct Comparison {
  std::vector<double> ours, peer;
  std::vector<double> ratios() const {
    std::vector<double> result;
    for (std::size_t i = 0; i < ours.size(); ++i) result.push_back(peer[i] / ours[i]);
    return result;
  }
};

template <typename Ours, typename Peer>
Comparison compare(std::size_t pairs, Ours&& ours, Peer&& peer) {
  cycles_a_packet(ours);
  cycles_a_packet(peer);
  Comparison result;
  for (std::size_t pair = 0; pair < pairs; ++pair) {
    if (pair % 2 == 0) result.ours.push_back(cycles_a_packet(ours));
    result.peer.push_back(cycles_a_packet(peer));
    if (pair % 2 != 0) result.ours.push_back(cycles_a_packet(ours));
  }
  return result;
}

// Into `counters`, Google Benchmark's or any other map from names to numbers.
template <typename Counters>
void report(Counters& counters, const std::vector<double>& samples) {
  counters["cycles"] = median(samples);
  counters["p10"] = percentile(samples, 0.1);
  counters["p90"] = percentile(samples, 0.9);
  counters["ns"] = median(samples) / tsc_ghz();
}

template <typename Counters>
void report(Counters& counters, const Comparison& comparison) {
  report(counters, comparison.ours);
  const std::vector<double> ratios = comparison.ratios();
  const Interval interval = bootstrap_interval(ratios);
  counters["peer_cycles"] = median(comparison.peer);
  counters["ratio"] = median(ratios);
  counters["ratio_low"] = interval.low;
  counters["ratio_high"] = interval.high;
}

}  // namespace trunkline::bench
