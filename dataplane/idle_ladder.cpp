// SPDX-License-Identifier: BSD-3-Clause
#include "dataplane/idle_ladder.h"

#include <rte_cycles.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

namespace trunkline {
namespace {

// Blocked, the worker still looks up now and then: old connections have to be swept.
constexpr int kBlockMs = 100;

std::uint64_t cycles_a_us() {
  const std::uint64_t hz = rte_get_tsc_hz();
  return hz != 0 ? hz / 1'000'000 : 2000;
}

}  // namespace

IdleLadder::IdleLadder(IdleSettings settings) : settings_(settings), cycles_a_us_(cycles_a_us()) {
  epoll_ = epoll_create1(EPOLL_CLOEXEC);
  event_ = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  epoll_event event{EPOLLIN, {}};
  event.data.fd = event_;
  epoll_ctl(epoll_, EPOLL_CTL_ADD, event_, &event);
}

IdleLadder::~IdleLadder() {
  close(epoll_);
  close(event_);
}

IdleRung IdleLadder::next(std::uint64_t now, const View& view, WorkerNumber worker) {
  IdleRung rung = this->rung();
  if (rung == IdleRung::busy) {
    quiet_since_ = now;
    nap_us_ = 1;
    rung = IdleRung::spinning;
  }
  const std::uint64_t quiet_us = (now - quiet_since_) / cycles_a_us_;
  if (settings_.sleep_us != 0 && settings_.block_after_ms != 0 && quiet_us >= std::uint64_t{settings_.block_after_ms} * 1000) {
    if (watched_view_ != view.generation) watch(view, worker);
    rung = can_block_ ? IdleRung::blocked : IdleRung::sleeping_long;
  } else if (settings_.sleep_us != 0 && quiet_us >= settings_.spin_us) {
    if (rung == IdleRung::sleeping) nap_us_ = std::min(nap_us_ * 2, settings_.sleep_us);
    rung = IdleRung::sleeping;
  }
  rung_.store(rung, std::memory_order_relaxed);
  return rung;
}

void IdleLadder::watch(const View& view, WorkerNumber worker) {
  // Anew from nothing: the ports of the last View may be closed, and their descriptors somebody else's.
  close(epoll_);
  epoll_ = epoll_create1(EPOLL_CLOEXEC);
  epoll_event event{EPOLLIN, {}};
  event.data.fd = event_;
  epoll_ctl(epoll_, EPOLL_CTL_ADD, event_, &event);
  can_block_ = hears_all_ = true;
  for (const PortView& port : view.ports) {
    const bool polled = port.is_trunk ? worker < view.trunk_queues : port.polled_by == worker;
    if (!polled) continue;
    event.data.fd = port.wake_descriptor;
    if (port.wake_descriptor < 0) {
      can_block_ = false;
    } else if (epoll_ctl(epoll_, EPOLL_CTL_ADD, port.wake_descriptor, &event) != 0) {
      can_block_ = hears_all_ = false;
    }
  }
  watched_view_ = view.generation;
}

void IdleLadder::sleep(std::uint32_t microseconds) const {
  // The kernel adds 50 us to a sleep unless it is told that this thread means what it says.
  static thread_local const int exact = prctl(PR_SET_TIMERSLACK, 1000UL, 0UL, 0UL, 0UL);
  (void)exact;
  const timespec duration{0, static_cast<long>(microseconds) * 1000};
  nanosleep(&duration, nullptr);
}

bool IdleLadder::sleep_long() const {
  const timespec duration{0, static_cast<long>(settings_.long_sleep_us) * 1000};
  epoll_event event;
  int count = epoll_pwait2(epoll_, &event, 1, &duration, nullptr);
  if (count < 0 && errno == ENOSYS) {  // before Linux 5.11
    sleep(settings_.long_sleep_us);
    count = epoll_wait(epoll_, &event, 1, 0);
  }
  if (count != 0) take_wake();
  return count != 0 || !hears_all_;
}

void IdleLadder::block() const {
  epoll_event events[8];
  epoll_wait(epoll_, events, 8, kBlockMs);
  take_wake();
}

void IdleLadder::take_wake() const {
  std::uint64_t count;
  [[maybe_unused]] const ssize_t taken = read(event_, &count, sizeof count);
}

}  // namespace trunkline
