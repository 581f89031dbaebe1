// SPDX-License-Identifier: BSD-3-Clause
//
// Which security groups an address belongs to, for rules that name a group as their source. One table serves all ENIs
// of the engine: a task that starts or stops is one line written here, never a policy compiled again.
//
// A line is 128 bytes: the address, a sequence number, a count and up to 26 groups. Lines lie in an open addressed
// table with linear probing, allocated once. Removing an address moves later lines forward into the gap instead of
// leaving a mark there: marks pile up while addresses come and go, until a search in vain walks the whole table.
//
// Threads: set() is for ONE thread, the control thread. find() and size() are for any number of threads at the same
// time. A reader never sees parts of two writes: it copies a line and takes the copy only if the sequence number was
// even and stayed the same. A reader that found nothing looks again if a line was moved meanwhile, so an address that
// is present is never missed. A reader does not allocate and waits only while the writer is inside the few stores of
// exactly the line it reads; so the writer must not be starved by a reader (do not run both on one core with the
// reader at a higher real-time priority).
//
// What find() answers was true at some moment between its call and its return; a change to one address is seen whole
// or not at all, changes to two addresses are two changes.
//
// Errors: set() answers false, and changes nothing, when there are too many groups or the table is full.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "config/net.h"

namespace trunkline {

class Members {
 public:
  // More than AWS lets an ENI carry (16).
  static constexpr std::size_t kMaxGroups = 26;

  struct Groups {
    std::array<GroupId, kMaxGroups> ids;
    std::uint8_t count = 0;
    std::span<const GroupId> view() const { return {ids.data(), count}; }
  };

  // `capacity`: addresses at most. Memory is 128 bytes times the power of two that holds 4/3 of it.
  explicit Members(std::size_t capacity);

  Groups find(const IpAddress& address) const;

  // Replaces the groups of an address; none removes it.
  bool set(const IpAddress& address, std::span<const GroupId> groups);

  std::size_t size() const { return size_.load(std::memory_order_relaxed); }
  std::size_t capacity() const { return capacity_; }
  std::size_t memory_bytes() const { return (mask_ + 1) * sizeof(Line); }

  // Lines that find(address) reads, at least 1: how well the table is doing. For tests and diagnostics.
  std::size_t probe_length(const IpAddress& address) const;

 private:
  struct alignas(128) Line {
    std::array<std::atomic<std::uint64_t>, 2> address{};
    std::atomic<std::uint32_t> sequence{0};  // odd while the writer is inside
    std::atomic<std::uint32_t> count{0};     // of groups; 0: the line is empty, and every search ends here
    std::array<std::atomic<std::uint64_t>, kMaxGroups / 2> groups{};  // two GroupIds a word, the first one low
  };
  static_assert(sizeof(Line) == 128);

  using Key = std::array<std::uint64_t, 2>;
  static Key key_of(const IpAddress& address);
  std::size_t home_of(const Key& key) const;
  // Copies a line, whole. Answers its count; groups are copied only if the line is `key`'s.
  static std::uint32_t read(const Line& line, const Key& key, bool& matches, Groups& out);
  // The writer's own view of a line, and its stores.
  static Key key_in(const Line& line);
  static bool is_empty(const Line& line) { return line.count.load(std::memory_order_relaxed) == 0; }
  static void write(Line& line, const Key& key, std::span<const GroupId> groups);
  static void clear(Line& line);
  void remove(std::size_t position);

  std::size_t capacity_;
  std::size_t mask_;
  std::unique_ptr<Line[]> lines_;
  std::atomic<std::size_t> size_{0};
  // Lines moved so far. On a cache line of its own: readers load it with every search.
  alignas(64) std::atomic<std::uint64_t> moves_{0};
};

}  // namespace trunkline
