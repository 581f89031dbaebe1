// SPDX-License-Identifier: BSD-3-Clause
//
// How one thread changes what others read without either waiting: the writer stores a pointer to the new object, and
// frees the old one after every reader has said that it holds nothing (a quiescent state, rte_rcu_qsbr).
//
//     controller                          worker, every turn of its loop
//     published.publish(next, cleanup);   const View* view = published.read();
//     ... later, from a timer:            ... the turn ...
//     published.reclaim();                published.quiescent(reader);
//
// Rules:
//  * publish() and reclaim() belong to one thread, the controller's. Neither waits.
//  * read() is good until the same reader's next quiescent().
//  * A reader that is going to sleep or stop calls offline() first; it must read() anew after online().
//  * `cleanup` runs on the controller's thread, in reclaim(), when no reader can know of the old object any more: the
//    place to close a port that the old View named.
#pragma once

#include <rte_rcu_qsbr.h>

#include <atomic>
#include <cstdlib>
#include <deque>
#include <functional>
#include <memory>
#include <new>
#include <utility>

namespace trunkline {

template <class T>
class Published {
 public:
  explicit Published(std::uint32_t readers) {
    const std::size_t size = (rte_rcu_qsbr_get_memsize(readers) + RTE_CACHE_LINE_SIZE - 1) & ~(RTE_CACHE_LINE_SIZE - 1UL);
    qsbr_ = static_cast<rte_rcu_qsbr*>(std::aligned_alloc(RTE_CACHE_LINE_SIZE, size));
    if (qsbr_ == nullptr || rte_rcu_qsbr_init(qsbr_, readers) != 0) throw std::bad_alloc();
  }
  ~Published() { std::free(qsbr_); }
  Published(const Published&) = delete;
  Published& operator=(const Published&) = delete;

  // --- readers ---
  void join(std::uint32_t reader) {
    rte_rcu_qsbr_thread_register(qsbr_, reader);
    rte_rcu_qsbr_thread_online(qsbr_, reader);
  }
  void leave(std::uint32_t reader) {
    rte_rcu_qsbr_thread_offline(qsbr_, reader);
    rte_rcu_qsbr_thread_unregister(qsbr_, reader);
  }
  void offline(std::uint32_t reader) { rte_rcu_qsbr_thread_offline(qsbr_, reader); }
  void online(std::uint32_t reader) { rte_rcu_qsbr_thread_online(qsbr_, reader); }
  const T* read() const { return current_.load(std::memory_order_acquire); }
  void quiescent(std::uint32_t reader) { rte_rcu_qsbr_quiescent(qsbr_, reader); }

  // --- the one writer ---
  void publish(std::shared_ptr<const T> next, std::function<void()> cleanup = {}) {
    current_.store(next.get(), std::memory_order_release);
    const std::uint64_t token = rte_rcu_qsbr_start(qsbr_);
    retired_.push_back({token, std::exchange(held_, std::move(next)), std::move(cleanup)});
  }

  // Frees what no reader can see any more, oldest first. Returns how many wait still.
  std::size_t reclaim() {
    while (!retired_.empty() && rte_rcu_qsbr_check(qsbr_, retired_.front().token, false) == 1) {
      Retired oldest = std::move(retired_.front());
      retired_.pop_front();
      oldest.object.reset();
      if (oldest.cleanup) oldest.cleanup();
    }
    return retired_.size();
  }

  const std::shared_ptr<const T>& latest() const { return held_; }

 private:
  struct Retired {
    std::uint64_t token;
    std::shared_ptr<const T> object;
    std::function<void()> cleanup;
  };

  rte_rcu_qsbr* qsbr_ = nullptr;
  std::atomic<const T*> current_{nullptr};  // written by the controller, read by workers
  std::shared_ptr<const T> held_;           // controller only
  std::deque<Retired> retired_;             // controller only
};

}  // namespace trunkline
