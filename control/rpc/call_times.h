// SPDX-License-Identifier: BSD-3-Clause
//
// How long the control thread was held, by what held it: a histogram, and the longest of each name. While it is held
// nobody else is answered, so no call should take longer than kBound.
//
// Control thread only.
#pragma once

#include <array>
#include <chrono>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>

namespace trunkline::control {

class CallTimes {
 public:
  using Duration = std::chrono::microseconds;
  static constexpr Duration kBound = std::chrono::milliseconds(10);
  // Upper bounds; one bucket more is for what is longer than all.
  static constexpr std::array<Duration, 7> kBuckets{
      Duration(100), Duration(1000), Duration(2000), Duration(5000), kBound, Duration(100'000), Duration(1'000'000)};

  struct Longest {
    std::uint64_t calls = 0, beyond_bound = 0;
    Duration longest{0};
  };

  // `name`: a method, or what the thread does by itself. Names are the engine's own, so there are few.
  void add(std::string_view name, Duration took) {
    std::size_t bucket = 0;
    while (bucket < kBuckets.size() && took > kBuckets[bucket]) ++bucket;
    ++counts_[bucket];
    auto found = by_name_.find(name);
    if (found == by_name_.end()) found = by_name_.emplace(std::string(name), Longest{}).first;
    Longest& of_name = found->second;
    ++of_name.calls;
    of_name.beyond_bound += took > kBound;
    of_name.longest = std::max(of_name.longest, took);
  }
  const std::array<std::uint64_t, kBuckets.size() + 1>& counts() const { return counts_; }
  const std::map<std::string, Longest, std::less<>>& by_name() const { return by_name_; }

 private:
  std::array<std::uint64_t, kBuckets.size() + 1> counts_{};
  std::map<std::string, Longest, std::less<>> by_name_;
};

// Adds what passes between its two ends.
class TimedCall {
 public:
  using Clock = std::chrono::steady_clock;
  TimedCall(CallTimes& times, std::string_view name) : times_(times), name_(name) {}
  ~TimedCall() { times_.add(name_, took()); }
  TimedCall(const TimedCall&) = delete;
  CallTimes::Duration took() const { return std::chrono::duration_cast<CallTimes::Duration>(Clock::now() - began_); }

 private:
  CallTimes& times_;
  std::string_view name_;
  Clock::time_point began_ = Clock::now();
};

}  // namespace trunkline::control
