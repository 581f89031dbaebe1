// SPDX-License-Identifier: BSD-3-Clause
#include "dataplane/idle_ladder.h"

#include <rte_cycles.h>
#include <rte_ethdev.h>
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
// Packets in a row that armed ports did not announce, and they are trusted no more.
constexpr unsigned kTrust = 3;

bool hear(int epoll, int descriptor) {
  epoll_event event{EPOLLIN, {}};
  event.data.fd = descriptor;
  return epoll_ctl(epoll, EPOLL_CTL_ADD, descriptor, &event) == 0;
}

std::uint64_t cycles_a_us() {
  const std::uint64_t hz = rte_get_tsc_hz();
  return hz != 0 ? hz / 1'000'000 : 2000;
}

}  // namespace

IdleLadder::IdleLadder(IdleSettings settings) : settings_(settings), cycles_a_us_(cycles_a_us()) {
  epoll_ = epoll_create1(EPOLL_CLOEXEC);
  event_ = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  hear(epoll_, event_);
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
    if (is_armed_ && has_waited_) disarm(view, false);
    if (watched_view_ != view.generation) watch(view, worker);
    if (!can_block_) {
      rung = IdleRung::sleeping_long;
    } else if (is_armed_ || arm()) {
      rung = IdleRung::blocked;
    } else {
      rung = IdleRung::sleeping;  // and a turn for what came before they were armed
      nap_us_ = 1;
    }
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
  hear(epoll_, event_);
  can_block_ = hears_all_ = true;
  to_arm_.clear();
  is_armed_ = false;
  for (const PortView& port : view.ports) {
    const bool polled = port.is_trunk ? worker < view.trunk_queues : port.polled_by == worker;
    if (!polled) continue;
    const std::uint16_t queue = port.queue_of(worker);
    const int descriptor = port.wake.of_queue(queue);
    if (descriptor < 0 || (port.wake.must_be_armed && unannounced_ >= kTrust)) {
      can_block_ = false;
    } else if (port.wake.must_be_armed) {
      to_arm_.push_back({port.ethdev, queue, descriptor});
    } else if (!hear(epoll_, descriptor)) {
      can_block_ = hears_all_ = false;
    }
  }
  // Heard only by a worker that blocks: nobody arms them for a long sleep, and what they announced long ago would end each one.
  if (can_block_) can_block_ = std::ranges::all_of(to_arm_, [&](const ArmedQueue& each) { return hear(epoll_, each.descriptor); });
  watched_view_ = view.generation;
}

// Whether the worker may block at once.
bool IdleLadder::arm() {
  can_block_ = std::ranges::all_of(to_arm_, [](const ArmedQueue& each) { return rte_eth_dev_rx_intr_enable(each.ethdev, each.queue) == 0; });
  is_armed_ = true;
  has_waited_ = false;
  return can_block_ && to_arm_.empty();
}

void IdleLadder::disarm(const View& view, bool packet_came) {
  is_armed_ = false;
  if (view.generation != watched_view_) return;  // the ports may be gone; what they announce comes to nobody
  bool announced = false;
  for (const ArmedQueue& each : to_arm_) {
    rte_eth_dev_rx_intr_disable(each.ethdev, each.queue);
    std::uint64_t count;
    announced |= read(each.descriptor, &count, sizeof count) > 0;
  }
  if (announced) unannounced_ = 0;
  if (packet_came && has_waited_ && !announced && !to_arm_.empty() && !heard_) {
    if (++unannounced_ == kTrust) watched_view_ = 0;
  }
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

void IdleLadder::block() {
  epoll_event events[8];
  heard_ = epoll_wait(epoll_, events, 8, kBlockMs) > 0;
  has_waited_ = true;
  take_wake();
}

void IdleLadder::take_wake() const {
  std::uint64_t count;
  [[maybe_unused]] const ssize_t taken = read(event_, &count, sizeof count);
}

}  // namespace trunkline
