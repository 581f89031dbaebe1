// SPDX-License-Identifier: BSD-3-Clause
#include "config/log_budget.h"

#include <algorithm>
#include <functional>
#include <utility>

namespace trunkline {

bool LogBudget::Bucket::take(std::uint64_t burst, std::uint64_t per_second, Time now) {
  if (now > filled) {
    const auto passed = static_cast<std::uint64_t>((now - filled).count());
    thousandths = std::min(burst * 1000, thousandths + std::min(passed, std::uint64_t{1} << 32) * per_second);
    filled = now;
  }
  if (thousandths < 1000) return false;
  thousandths -= 1000;
  return true;
}

bool LogBudget::admit(std::string_view subject, Time now) {
  Bucket& own = buckets_[std::hash<std::string_view>{}(subject) % buckets_.size()];
  if (own.take(kBurst, kPerSecond, now)) {
    if (all_.take(kBurstOfAll, kPerSecondOfAll, now)) return true;
    own.give_back();
  }
  ++withheld_.lines;
  withheld_.subject = subject;
  return false;
}

LogBudget::Withheld LogBudget::take_withheld() { return std::exchange(withheld_, {}); }

}  // namespace trunkline
