// SPDX-License-Identifier: BSD-3-Clause
//
// A ring for one writer and one reader, without locks. The writer's fields and the reader's lie on lines of their own; each
// keeps a copy of the other's position and looks at the original only when the copy says full or empty. What is pushed can
// be read once flush() was called. A full ring refuses.
#pragma once

#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <memory>

namespace trunkline {

template <class T>
class SpscRing {
 public:
  explicit SpscRing(std::uint32_t capacity) : mask_(std::bit_ceil(capacity) - 1), slots_(new T[mask_ + 1]) {}

  // --- the writer ---
  bool push(const T& value) {
    T* const place = place_of_next();
    if (place == nullptr) return false;
    *place = value;
    push_placed();
    return true;
  }
  // For what is better made where it will lie: its place, with what was there before; nullptr: no room.
  T* place_of_next() {
    if (written_ - seen_read_ > mask_) {
      seen_read_ = read_.load(std::memory_order_acquire);
      if (written_ - seen_read_ > mask_) return nullptr;
    }
    return &slots_[written_ & mask_];
  }
  void push_placed() { ++written_; }
  // Asks for the line of the place so many further on that is so far into it: the reader has it, or memory. (Inlined always: members.h.)
  [[gnu::always_inline]] void prefetch(std::uint32_t further, std::size_t bytes) {
    __builtin_prefetch(reinterpret_cast<std::byte*>(&slots_[(written_ + further) & mask_]) + bytes, 1);
  }
  // What was pushed can be read from now on. True: there was something.
  bool flush() {
    if (flushed_.load(std::memory_order_relaxed) == written_) return false;
    flushed_.store(written_, std::memory_order_release);
    return true;
  }
  std::uint32_t room() { return mask_ + 1 - (written_ - read()); }
  std::uint32_t capacity() const { return mask_ + 1; }
  // How many were ever pushed, and how many of them the reader has taken.
  std::uint32_t written() const { return written_; }
  std::uint32_t read() { return seen_read_ = read_.load(std::memory_order_acquire); }

  // --- the reader ---
  std::uint32_t ready() {
    seen_flushed_ = flushed_.load(std::memory_order_acquire);
    return seen_flushed_ - read_.load(std::memory_order_relaxed);
  }
  // The oldest; only when ready() said so. drop() takes them out.
  const T& front(std::uint32_t at = 0) const { return slots_[(read_.load(std::memory_order_relaxed) + at) & mask_]; }
  void drop(std::uint32_t count) { read_.store(read_.load(std::memory_order_relaxed) + count, std::memory_order_release); }

 private:
  const std::uint32_t mask_;
  const std::unique_ptr<T[]> slots_;
  alignas(64) std::uint32_t written_ = 0;
  std::uint32_t seen_read_ = 0;
  std::atomic<std::uint32_t> flushed_{0};
  alignas(64) std::atomic<std::uint32_t> read_{0};
  std::uint32_t seen_flushed_ = 0;
};

}  // namespace trunkline
