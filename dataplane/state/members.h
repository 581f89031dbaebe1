// SPDX-License-Identifier: BSD-3-Clause
//
// Which security groups an address belongs to, for rules that name a group as their source. One table serves all ENIs
// of the engine: a task that starts or stops is one word written here, never a policy compiled again.
//
// An address is a slot of 8 bytes, and eight slots are a cache line: 32 bits of the address (all of an IPv4 one, a hash
// of an IPv6 one) and the number of a record. A record is a list of groups; IPv4 addresses in the same groups share
// one, so the few records in use stay in the cache and a search reads one cold line. An IPv6 address has a record of
// its own, with the whole address in it. An address is in the line that its hash says or, when that is full, in one of
// the next. Removing an address moves later ones forward into the gap instead of leaving a mark there: marks pile up
// while addresses come and go, until a search in vain walks the whole table.
//
// Threads: set() is for ONE thread, the control thread; it allocates. All else but memory_bytes() is for any number of
// threads at the same time. A reader never sees parts of two writes: it copies a record and takes the copy only if the
// record's sequence number was even and stayed the same, and the slot still names the record. A reader that found
// nothing looks again if a slot was moved meanwhile, so an address that is present is never missed. A reader does not
// allocate and waits only while the writer is inside the few stores of exactly the record it reads; so the writer must
// not be starved by a reader (do not run both on one core with the reader at a higher real-time priority).
//
// What find() answers was true at some moment between its call and its return; a change to one address is seen whole
// or not at all, changes to two addresses are two changes.
//
// Errors: set() answers false, and changes nothing, when there are too many groups or the table is full.
#pragma once

#include <array>
#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <span>
#include <unordered_set>
#include <vector>

#include "config/net.h"

namespace trunkline {

class Members {
 public:
  // More than AWS lets an ENI carry (16).
  static constexpr std::size_t kMaxGroups = 26;

  struct Groups {
    std::array<GroupId, kMaxGroups> ids;  // the first two are there even if the count is less, as no group
    std::uint8_t count = 0;
    std::span<const GroupId> view() const { return {ids.data(), count}; }
  };

  // `capacity`: addresses at most. Memory is 16 bytes times that; records are added as they are needed, 128 bytes for
  // every different list of groups and for every IPv6 address.
  explicit Members(std::size_t capacity);

  // Asks for the line that find() will read first. Inlined always, like every function that only prefetches: GCC takes a call of one for a
  // call without effect, and leaves it out.
  [[gnu::always_inline]] void prefetch(const IpAddress& address) const { __builtin_prefetch(&lines_[home_of(key_of(address))]); }

  Groups find(const IpAddress& address) const;

  // Replaces the groups of an address; none removes it.
  bool set(const IpAddress& address, std::span<const GroupId> groups);

  std::size_t size() const { return size_.load(std::memory_order_relaxed); }
  std::size_t capacity() const { return capacity_; }
  // The writer's thread only.
  std::size_t memory_bytes() const;

  // Lines that find(address) reads, at least 1: how well the table is doing. For tests and diagnostics.
  std::size_t probe_length(const IpAddress& address) const;

 private:
  static constexpr std::size_t kSlots = 8;  // a line
  static constexpr std::size_t kRecordsPerChunk = 512;
  static constexpr std::uint32_t kIsIpv6 = 1U << 31;

  // A slot: the address's 32 bits above; below, kIsIpv6 and the number of the record. 0 is an unused slot.
  struct alignas(64) Line {
    std::array<std::atomic<std::uint64_t>, kSlots> slots{};
  };
  struct alignas(128) Record {
    std::atomic<std::uint32_t> sequence{0};               // odd while the writer is inside
    std::atomic<std::uint32_t> count{0};                  // of groups
    std::array<std::atomic<std::uint64_t>, 2> address{};  // IPv6 only
    std::array<std::atomic<std::uint64_t>, kMaxGroups / 2> groups{
        ~std::uint64_t{0}};  // two GroupIds a word, the first low
  };
  static_assert(sizeof(Line) == 64 && sizeof(Record) == 128);

  struct Key {
    std::array<std::uint64_t, 2> words;
    std::uint64_t hash;       // its high half chooses the line
    std::uint32_t slot_bits;  // what the slot keeps of the address
    std::uint32_t family;     // kIsIpv6 or 0
  };
  struct Place {
    std::size_t line;
    std::size_t slot;
  };

  static std::uint64_t mix(std::uint64_t value) {
    value *= 0x9e3779b97f4a7c15ULL;
    value = (value ^ value >> 32) * 0xff51afd7ed558ccdULL;
    return value ^ value >> 32;
  }
  static Key key_of(const IpAddress& address) {
    Key key;
    std::memcpy(key.words.data(), address.bytes.data(), sizeof key.words);
    if (address.is_v4()) {
      key.slot_bits = address.v4();
      key.family = 0;
      key.hash = mix(key.slot_bits);
    } else {
      key.hash = mix(mix(key.words[0]) ^ key.words[1]);
      key.slot_bits = static_cast<std::uint32_t>(key.hash);
      key.family = kIsIpv6;
    }
    return key;
  }
  // The low 32 bits of an IPv4 key's hash are not used, those of an IPv6 key are in its slot.
  std::size_t home_of(const Key& key) const { return (key.hash >> 32) * line_count_ >> 32; }
  std::size_t next(std::size_t line) const { return line + 1 == line_count_ ? 0 : line + 1; }
  std::size_t distance(std::size_t from, std::size_t to) const {
    return to >= from ? to - from : to + line_count_ - from;
  }

  // One bit a slot: those that may be the key's, and those that are unused.
  struct Scan {
    std::uint32_t candidates = 0;
    std::uint32_t unused = 0;
  };
  static Scan scan(const Line& line, const Key& key);
  Record& record(std::uint32_t number) const {
    return chunks_[number / kRecordsPerChunk].load(std::memory_order_acquire)[number % kRecordsPerChunk];
  }
  // Copies what a slot's word says; false if it does not say anything any more, or is another address's.
  enum class Reading : std::uint8_t { match, other_address, changed };
  Reading read(const std::atomic<std::uint64_t>& slot, const Key& key, Groups& out) const;
  static void copy(const Record& source, Groups& out);
  Groups search(const Key& key) const;  // find(), whatever happens

  // The writer's own view, and its stores.
  bool locate(const Key& key, Place& place) const;
  Key key_in(std::uint64_t word) const;
  std::uint64_t word_at(const Place& place) const {
    return lines_[place.line].slots[place.slot].load(std::memory_order_relaxed);
  }
  void store(const Place& place, std::uint64_t word) {
    lines_[place.line].slots[place.slot].store(word, std::memory_order_release);
  }
  void add_chunk();
  std::uint32_t take_record();
  std::uint32_t shared_record(std::span<const GroupId> groups);
  void release_record(std::uint32_t low_half);
  void write(Record& record, const Key& key, std::span<const GroupId> groups);
  void remove(Place place);
  static std::size_t hash_of(std::span<const GroupId> groups);

  std::size_t capacity_;
  std::size_t line_count_;
  std::unique_ptr<Line[]> lines_;
  std::unique_ptr<std::atomic<Record*>[]> chunks_;
  std::atomic<std::size_t> size_{0};
  // Slots moved so far. On a cache line of its own: readers load it with every search.
  alignas(64) std::atomic<std::uint64_t> moves_{0};

  // The writer's books.
  struct SameGroups {
    using is_transparent = void;
    const Members* members;
    std::size_t operator()(std::uint32_t number) const;
    std::size_t operator()(std::span<const GroupId> groups) const { return hash_of(groups); }
    bool operator()(std::uint32_t a, std::uint32_t b) const { return a == b; }
    bool operator()(std::span<const GroupId> groups, std::uint32_t number) const;
    bool operator()(std::uint32_t number, std::span<const GroupId> groups) const { return (*this)(groups, number); }
  };
  alignas(64) std::vector<std::unique_ptr<Record[]>> owned_chunks_;  // chunks_, for readers, shows these
  std::vector<std::uint32_t> users_;                                 // of each record
  std::vector<std::uint32_t> free_records_;
  std::unordered_set<std::uint32_t, SameGroups, SameGroups> shared_;  // records of IPv4 addresses
};

// ---- Reading -----------------------------------------------------------------------------------------------------
//
// Here, because the classifier's loop holds it. The memory order is explained in members.cpp.

inline Members::Scan Members::scan(const Line& line, const Key& key) {
  Scan result;
  for (std::size_t i = 0; i < kSlots; ++i) {
    const std::uint64_t word = line.slots[i].load(std::memory_order_acquire);
    result.candidates |= static_cast<std::uint32_t>(word >> 32 == key.slot_bits) << i;
    result.unused |= static_cast<std::uint32_t>(word == 0) << i;
  }
  // An unused slot looks like 0.0.0.0.
  result.candidates &= ~result.unused;
  return result;
}

// Even a count from the middle of a write is one that set() has checked, so this stays within bounds.
inline void Members::copy(const Record& source, Groups& out) {
  const std::uint32_t count = source.count.load(std::memory_order_acquire);
  std::size_t i = 0;
  do {
    const std::uint64_t pair = source.groups[i].load(std::memory_order_acquire);
    out.ids[2 * i].value = static_cast<std::uint32_t>(pair);
    out.ids[2 * i + 1].value = static_cast<std::uint32_t>(pair >> 32);
  } while (++i < (count + 1) / 2);
  out.count = static_cast<std::uint8_t>(count);
}

// Nearly always the first line decides, whether the address is there or not; which of the two is a coin toss, so
// neither way has branches of its own: what is not there has record 0, which is empty and stays so.
inline Members::Groups Members::find(const IpAddress& address) const {
  const Key key = key_of(address);
  const Line& line = lines_[home_of(key)];
  const std::uint64_t moves = moves_.load(std::memory_order_acquire);
  const Scan found = scan(line, key);
  const std::size_t at = static_cast<std::size_t>(std::countr_zero(found.candidates | 1U << (kSlots - 1)));
  const std::uint64_t slot = line.slots[at].load(std::memory_order_acquire);
  const std::uint64_t word = found.candidates != 0 ? slot : 0;
  const Record& source = record(static_cast<std::uint32_t>(word) & ~kIsIpv6);
  const std::uint32_t before = source.sequence.load(std::memory_order_acquire);
  Groups groups;
  copy(source, groups);
  const bool is_whole = (before & 1) == 0 && line.slots[at].load(std::memory_order_acquire) == slot &&
                        source.sequence.load(std::memory_order_relaxed) == before &&
                        moves_.load(std::memory_order_relaxed) == moves;
  const bool is_decided = found.candidates != 0
                              ? word >> 32 == key.slot_bits && (word & kIsIpv6) == 0 && key.family == 0
                              : found.unused != 0;
  if (is_whole && is_decided) [[likely]]
    return groups;
  return search(key);
}

}  // namespace trunkline
