// SPDX-License-Identifier: BSD-3-Clause
//
// A worker's time, as a resource that its ENIs share. What costs much and can be told whose it is, is measured by the
// processor's counter (TSC) and charged to an ENI: frames written to its port, where each is a system call in which the
// task's kernel may do work of its own, and super-frames that are cut for it.
//
// Rules:
//  * A write that takes longer than kFrame and kBytesAMicro allow has an excess. One in which the scheduler gave the
//    processor to another thread has none: that is asked of the kernel only where the excess is above kNoticed. Another
//    may still be an interrupt's. What a port's writes typically exceed is their median, nearly: it doubles with a
//    larger one and halves with a smaller one. Only where that is above kNoticed the excess is the port's debt.
//  * While the debt is above kDebt nothing is written to the port: its packets are dropped as cpu_allowance_exceeded,
//    and nobody else's. Debt is paid off by time: all of it while no other ENI is active; otherwise a quarter, and of a
//    port whose typical excess is above kLongFrame a hundredth.
//  * While the trunk brings more than the worker can take (kFullTurns full bursts in a row), an ENI whose writes have
//    had one and a half times its fair part of the present millisecond gets no more of it.
//  * In a turn super-frames are cut for one ENI for a slice of kCutting, of which there are as many as ENIs that have
//    some; what is left waits (backlog.h).
//  * A port that brings super-frames is asked for fewer packets at once, so that a burst has kBurstBytes.
//
// Owned by the worker. The counters are read by control. Units: TSC cycles.
#pragma once

#include <x86intrin.h>

#include <algorithm>
#include <cstdint>
#include <memory>
#include <utility>

#include "config/net.h"
#include "dataplane/state/clock.h"
#include "dataplane/state/counters.h"
#include "dataplane/state/worker_clock.h"

namespace trunkline {

class WorkerTime {
 public:
  // What an ENI had of the worker. Written by the worker, read by control; since the number was first used.
  struct Had {
    Counter cycles;      // of writes to its port and of cutting its super-frames
    Counter cut_back;    // frames that were dropped as cpu_allowance_exceeded
    Counter frame_cost;  // no sum: what one write takes now, smoothed
  };

  // What is asked of the machine; tests give something else.
  struct Machine {
    std::uint64_t hz = ClockOrigin::of_process().hz;
    std::uint64_t (*cycles)() = read_tsc;
    // How often the calling thread lost its processor to another one.
    std::uint64_t (*preemptions)() = count_preemptions;
  };

  explicit WorkerTime(std::size_t max_endpoints) : WorkerTime(max_endpoints, Machine{}) {}
  WorkerTime(std::size_t max_endpoints, const Machine& machine)
      : had(new Had[max_endpoints]),
        accounts_(new Account[max_endpoints]),
        micro_(std::max<std::uint64_t>(1, machine.hz / 1'000'000)),
        machine_(machine) {}

  std::uint64_t now() const { return machine_.cycles(); }

  // At the start of a turn.
  void begin_turn(Tick tick, std::uint64_t micros) {
    if (tick != tick_) {
      active_before_ = tick - tick_ == 1 ? active_ : 0;
      active_ = 0;
      tick_ = tick;
    }
    millisecond_ = micros / 1000;
    ++turn_;
  }
  // Whether the burst that the trunk gave was full.
  void trunk_gave(bool full_burst) { full_turns_ = full_burst ? full_turns_ + 1 : 0; }
  // The ENI sent or received something.
  void mark(EndpointId id) {
    Account& account = accounts_[id.value];
    if (account.active_at == tick_ + 1) [[likely]]
      return;
    account.active_at = tick_ + 1;
    ++active_;
  }
  // ENIs that were active in this tick or the one before.
  std::uint32_t active() const { return std::max({active_, active_before_, 1U}); }

  // Whether a frame may be written to the port of the ENI now.
  bool may_write(EndpointId id, std::uint16_t generation) {
    Account& account = of(id, generation);
    pay(account);
    if (account.debt > kDebt * micro_) return false;
    return full_turns_ < kFullTurns || used_of(account) < millisecond_share();
  }
  // Frames to be written before may_write() is asked again.
  std::uint32_t frames_at_once(EndpointId id) const {
    return accounts_[id.value].typical_excess > kNoticed * micro_ ? 1 : kFramesAtOnce;
  }
  void wrote(EndpointId id, std::uint32_t frames, std::uint64_t bytes, std::uint64_t cycles) {
    if (frames == 0) return;
    Account& account = accounts_[id.value];
    charge(id, account, cycles);
    const std::uint64_t expected = (frames * kFrame + bytes / kBytesAMicro) * micro_;
    std::uint64_t excess = cycles > expected ? std::min(cycles - expected, frames * kMostOfFrame * micro_) : 0;
    if (excess > kNoticed * micro_ && was_preempted()) [[unlikely]]
      excess = 0;
    std::uint64_t& typical = account.typical_excess;
    typical = std::clamp(excess / frames > typical ? 2 * typical : typical / 2, micro_ / 2, kMostOfFrame * micro_);
    if (typical > kNoticed * micro_) account.debt += excess;
    account.cost += (static_cast<std::int64_t>(cycles / frames) - account.cost) / 8;
    had[id.value].frame_cost.add(static_cast<std::uint64_t>(account.cost) - had[id.value].frame_cost.read());
  }
  void cut_back(EndpointId id, std::uint64_t frames) { had[id.value].cut_back.add(frames); }

  // How long super-frames may still be cut for the ENI in this turn, where so many have some.
  std::uint64_t left_to_cut(EndpointId id, std::uint32_t enis) const {
    const Account& account = accounts_[id.value];
    const std::uint64_t slice = std::max(kCutting / std::max(enis, 1U), kLeastSlice) * micro_;
    const std::uint64_t spent = account.turn == turn_ ? account.cut : 0;
    return slice > spent ? slice - spent : 0;
  }
  void cut(EndpointId id, std::uint64_t cycles) {
    Account& account = accounts_[id.value];
    if (account.turn != turn_) account.turn = turn_, account.cut = 0;
    account.cut += cycles;
    charge(id, account, cycles);
  }

  // How many packets to ask the port of the ENI for, at most so many; and what a burst was.
  std::uint16_t burst_of(EndpointId id, std::uint16_t most) const { return std::min(accounts_[id.value].burst, most); }
  void received(EndpointId id, std::uint32_t packets, std::uint64_t bytes) {
    accounts_[id.value].burst = static_cast<std::uint16_t>(
        std::clamp<std::uint64_t>(kBurstBytes * packets / std::max<std::uint64_t>(bytes, 1), kLeastBurst, kAnyBurst));
  }

  const std::unique_ptr<Had[]> had;  // by EndpointId

 private:
  // Microseconds.
  // What a write takes at most where the other side does no work of its own: so long, and one more for so many bytes.
  static constexpr std::uint64_t kFrame = 6, kBytesAMicro = 2048;
  static constexpr std::uint64_t kDebt = 2000, kMostOfFrame = 1000, kNoticed = 5, kLongFrame = 50;
  static constexpr std::uint32_t kCutting = 100, kLeastSlice = 20;
  static constexpr std::uint32_t kFramesAtOnce = 4;
  static constexpr std::uint64_t kBurstBytes = 512 << 10, kLeastBurst = 4, kAnyBurst = 1024;
  static constexpr std::uint32_t kFullTurns = 16;

  struct Account {
    std::uint64_t debt = 0, paid_at = 0;
    std::uint64_t typical_excess = 0;
    std::int64_t cost = 0;                    // of a frame, smoothed
    std::uint64_t millisecond = 0, used = 0;  // in it
    std::uint64_t turn = 0, cut = 0;          // in it
    Tick active_at = 0;                       // the tick and one
    std::uint16_t burst = kAnyBurst;
    std::uint16_t generation = 0;
  };

  static std::uint64_t read_tsc() { return __rdtsc(); }
  static std::uint64_t count_preemptions();
  // Since it was asked last.
  bool was_preempted() {
    const std::uint64_t count = machine_.preemptions();
    return std::exchange(preemptions_, count) != count;
  }

  // A new ENI of the same number owes nothing.
  Account& of(EndpointId id, std::uint16_t generation) {
    Account& account = accounts_[id.value];
    if (account.generation != generation) [[unlikely]]
      account = Account{.active_at = account.active_at, .burst = account.burst, .generation = generation};
    return account;
  }
  void pay(Account& account) {
    const std::uint64_t time = now(), passed = time - account.paid_at;
    account.paid_at = time;
    if (account.debt == 0) [[likely]]
      return;
    const std::uint64_t part = active() <= 1 ? 1 : account.typical_excess > kLongFrame * micro_ ? 100 : 4;
    // A remainder is not lost to a part that is asked often.
    if (passed / part == 0) account.paid_at = time - passed;
    account.debt -= std::min(account.debt, passed / part);
  }
  void charge(EndpointId id, Account& account, std::uint64_t cycles) {
    had[id.value].cycles.add(cycles);
    if (account.millisecond != millisecond_) account.millisecond = millisecond_, account.used = 0;
    account.used += cycles;
  }
  std::uint64_t used_of(const Account& account) const { return account.millisecond == millisecond_ ? account.used : 0; }
  std::uint64_t millisecond_share() const { return 1500 * micro_ / active(); }

  std::unique_ptr<Account[]> accounts_;  // by EndpointId
  const std::uint64_t micro_;            // cycles of a microsecond
  const Machine machine_;
  std::uint64_t preemptions_ = 0;
  std::uint64_t millisecond_ = 0, turn_ = 0;
  std::uint32_t full_turns_ = 0;
  Tick tick_ = 0;
  std::uint32_t active_ = 0, active_before_ = 0;  // ENIs, in this tick and in the one before
};

}  // namespace trunkline
