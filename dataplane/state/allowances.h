// SPDX-License-Identifier: BSD-3-Clause
//
// What an ENI has left of what it may use (RateLimits), as token buckets: of octets and of packets, each way. A bucket fills with
// time up to a twentieth of a second's worth, and at least two of the largest packets, so that a burst passes and a steady
// stream gets what its rate says. What is larger than the bucket (a super-frame) passes when it is full, and what it lacks is
// owed. Also the fixed allowances of an ENI. Of what needs no rule 1024 packets a second each: to the link-local services together, to the
// router, and of ARP, neighbour discovery and DHCP. And a tick's (a tenth of a second) of what the router does with packets that are too large.
//
// Owned by the worker that serves the endpoint. An endpoint that comes to another worker, or a new one of the same number, begins
// with full buckets. Units: octets and packets times a million, so that a microsecond's share is a whole number.
#pragma once

#include <algorithm>
#include <cstdint>

#include "dataplane/state/clock.h"

namespace trunkline {

class TokenBucket {
 public:
  // Whether `cost` may be taken at a rate a second.
  bool take(std::uint64_t cost, std::uint64_t rate, std::uint64_t least_depth, std::uint64_t micros) {
    const std::uint64_t depth = std::max(rate / kDepthPart, least_depth) * kUnit;
    const auto full = static_cast<std::int64_t>(depth);
    const auto missing = static_cast<std::uint64_t>(full - std::min(full, tokens_));
    const std::uint64_t elapsed = micros - filled_at_;
    // Slow buckets take seconds to fill, so all that has passed counts; the product is made only where it fits.
    tokens_ = started_ && elapsed <= missing / rate ? full - static_cast<std::int64_t>(missing - elapsed * rate) : full;
    started_ = true;
    filled_at_ = micros;
    if (tokens_ < static_cast<std::int64_t>(std::min(cost * kUnit, depth))) return false;
    tokens_ -= static_cast<std::int64_t>(cost * kUnit);
    return true;
  }
  void give_back(std::uint64_t cost) { tokens_ += static_cast<std::int64_t>(cost * kUnit); }

 private:
  static constexpr std::uint64_t kUnit = 1000000;
  static constexpr std::uint64_t kDepthPart = 20;
  std::int64_t tokens_ = 0;  // below 0: owed
  std::uint64_t filled_at_ = 0;
  bool started_ = false;
};

// So many a tick.
template <std::uint32_t per_tick>
class TickAllowance {
 public:
  // All of them or none.
  bool take(Tick now, std::uint32_t count) {
    if (tick_ != now) tick_ = now, left_ = per_tick;
    if (count > left_) return false;
    left_ -= count;
    return true;
  }

 private:
  Tick tick_ = 0;
  std::uint32_t left_ = per_tick;
};

// So many packets in each second of the clock.
struct PacketsPerSecond {
  static constexpr std::uint32_t kMost = 1024;

  Tick second = 0;
  std::uint32_t taken = 0;  // in that second

  bool take(Tick now, std::uint64_t packets) {
    if (const Tick current = now / kTicksPerSecond; second != current) second = current, taken = 0;
    if (taken + packets > kMost) return false;
    taken += static_cast<std::uint32_t>(packets);
    return true;
  }
};

struct Allowances {
  // Errors: a flood of oversized packets must not become one of errors. Fragments: 500 Mbit/s of 1500 octets each, and of the time
  // of a worker about one part in a hundred.
  static constexpr std::uint32_t kErrorsPerTick = 100, kFragmentsPerTick = 4096;

  TokenBucket bytes[2], packets[2];  // by Direction
  std::uint16_t generation = 0;      // of the endpoint whose they are
  PacketsPerSecond services, router, edge;  // what the task sends
  TickAllowance<kErrorsPerTick> errors;        // ICMP errors about packets that are too large for it, or that it sent
  TickAllowance<kFragmentsPerTick> fragments;  // made for its port, or of what it sent

  void of(std::uint16_t endpoint_generation) {
    if (generation != endpoint_generation) *this = Allowances{}, generation = endpoint_generation;
  }
  bool take_fragments(Tick now, std::uint32_t count) { return fragments.take(now, count); }
};

}  // namespace trunkline
