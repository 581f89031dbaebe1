// SPDX-License-Identifier: BSD-3-Clause
//
// A ring (spsc_ring.h) whose places endpoints share. Each place belongs to the endpoint that its value is about.
//
// Rule: each endpoint has a share of the places, the rest is borrowed (shares.h).
//
// Threads: as SpscRing. Who holds what only the writer knows; it counts what the reader has taken when it has to.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>

#include "config/net.h"
#include "dataplane/state/flow_key.h"
#include "dataplane/state/shares.h"
#include "dataplane/state/spsc_ring.h"

namespace trunkline {

template <class T>
class SharedRing {
 public:
  explicit SharedRing(std::uint32_t capacity)
      : ring_(capacity),
        owner_(new std::uint16_t[ring_.capacity()]()),
        held_(new std::uint32_t[kOwners]()),
        shares_(ring_.capacity()) {}

  // --- the writer ---
  // So many endpoints have a share each; 0: there are no shares. Looks at all endpoints when the number has changed.
  void share_among(std::uint32_t endpoints) {
    if (!shares_.is_set(endpoints)) [[unlikely]]
      shares_.set(endpoints, kOwners, [&](std::uint32_t owner) { return held_[owner]; });
  }
  bool may_push(EndpointId owner) {
    const std::uint32_t& held = held_[number_of(owner)];
    if (shares_.may_take(held) && outstanding() < ring_.capacity()) [[likely]]
      return true;
    count_what_was_read();
    return shares_.may_take(held) && outstanding() < ring_.capacity();
  }
  bool push(const T& value, EndpointId owner) {
    T* const place = place_of_next(owner);
    if (place == nullptr) return false;
    *place = value;
    push_placed(owner);
    return true;
  }
  // As SpscRing's; nullptr also where the owner may hold no more.
  T* place_of_next(EndpointId owner) { return may_push(owner) ? ring_.place_of_next() : nullptr; }
  void push_placed(EndpointId owner) {
    const std::uint16_t number = number_of(owner);
    owner_[ring_.written() & (ring_.capacity() - 1)] = number;
    change(number, held_[number] + 1);
    ring_.push_placed();
  }
  [[gnu::always_inline]] void prefetch(std::uint32_t further, std::size_t bytes) { ring_.prefetch(further, bytes); }
  bool flush() { return ring_.flush(); }

  // --- the reader ---
  std::uint32_t ready() { return ring_.ready(); }
  const T& front(std::uint32_t at = 0) const { return ring_.front(at); }
  void drop(std::uint32_t count) { ring_.drop(count); }

 private:
  static constexpr std::uint32_t kOwners = FlowKey::kMaxEndpoints + 1;  // the last: nobody's
  static std::uint16_t number_of(EndpointId owner) { return std::min<std::uint16_t>(owner.value, kOwners - 1); }
  std::uint32_t outstanding() const { return ring_.written() - counted_; }
  void count_what_was_read() {
    for (const std::uint32_t read = ring_.read(); counted_ != read; ++counted_) {
      const std::uint16_t number = owner_[counted_ & (ring_.capacity() - 1)];
      change(number, held_[number] - 1);
    }
  }
  void change(std::uint16_t number, std::uint32_t held) {
    shares_.changed(held_[number], held);
    held_[number] = held;
  }

  SpscRing<T> ring_;
  // The writer's.
  const std::unique_ptr<std::uint16_t[]> owner_;  // by place
  const std::unique_ptr<std::uint32_t[]> held_;   // by owner
  Shares shares_;
  std::uint32_t counted_ = 0;  // up to here what was read is held no more
};

}  // namespace trunkline
