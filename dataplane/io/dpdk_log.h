// SPDX-License-Identifier: BSD-3-Clause
//
// What DPDK and its drivers say, on its way to stderr. Some of it is said because somebody else wants it: the vhost
// library writes ten lines for each program that connects, and a program may connect ten thousand times a second.
//
// Rules:
//   * A subject has a budget of lines, and all subjects together have one. The subject is what stands in brackets at
//     the line's beginning, which is the socket for the vhost library; otherwise the part of DPDK that speaks.
//   * A line that is over the budget is not written, and counted. tell_of_withheld_lines() says how many and about
//     what.
//   * Lines go to stderr alone, with a level for the journal where stderr is one; DPDK's own stream would send them
//     to syslog as well.
//
// Threads: direct_dpdk_log() once, before the EAL starts. Whoever logs, does; the budget is behind a mutex. Workers
// do not log.
#pragma once

#include <array>
#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>

namespace trunkline {

// Lines by subject, over time. Not synchronised.
class LogBudget {
 public:
  using Time = std::chrono::milliseconds;  // since any beginning

  static constexpr std::uint32_t kBurst = 100, kPerSecond = 2;             // of a subject
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

// "VHOST_CONFIG: (/run/task1.sock) new device" is about "/run/task1.sock"; "EAL: Probe" about "EAL".
std::string_view log_subject(std::string_view line);

// From here on DPDK's lines come this way.
void direct_dpdk_log();

LogBudget::Withheld take_withheld_dpdk_lines();

}  // namespace trunkline
