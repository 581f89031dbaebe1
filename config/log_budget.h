// SPDX-License-Identifier: BSD-3-Clause
//
// How many lines may be logged because of somebody, so that nobody fills the log.
//
// Rules:
//   * A subject (a socket, a user) has a budget of lines, and all subjects together have one.
//   * A line that is over the budget is not written, and counted.
//
// Not synchronised: whoever has one calls it from one thread, or locks.
#pragma once

#include <array>
#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>

namespace trunkline {

class LogBudget {
 public:
  using Time = std::chrono::milliseconds;  // since any beginning

  static constexpr std::uint32_t kBurst = 100, kPerSecond = 2;  // of a subject
  static constexpr std::uint32_t kBurstOfAll = 4000, kPerSecondOfAll = 50;

  // Whether a line may be written; it is counted as withheld if not.
  bool admit(std::string_view subject, Time now);

  struct Withheld {
    std::uint64_t lines = 0;
    std::string subject;  // of the last one
  };
  // Since this was last asked.
  Withheld take_withheld();

 private:
  struct Bucket {
    std::uint64_t thousandths = std::uint64_t{kBurst} * 1000;
    Time filled{0};
    bool take(std::uint64_t burst, std::uint64_t per_second, Time now);
    void give_back() { thousandths += 1000; }
  };

  // Subjects that fall together share one: there is no memory to be had by inventing subjects.
  std::array<Bucket, 256> buckets_;
  Bucket all_{std::uint64_t{kBurstOfAll} * 1000, Time{0}};
  Withheld withheld_;
};

}  // namespace trunkline
