// SPDX-License-Identifier: BSD-3-Clause
//
// The memory order of the sequence lock. The writer makes the number odd, stores the words each with release, and
// makes the number even with release. A reader loads the number with acquire, the words each with acquire, and the
// number again. If any word it got was stored by a write that began after its first load of the number, then that
// load synchronised with a store that comes after the odd number, so its second load of the number sees at least
// that: the copy is thrown away. On x86 all of these are plain moves; there are no fences, which ThreadSanitizer does
// not model.
//
// Moving a line from place p to an earlier place q of the same search: write q, count the move (release), then write
// something else to p. A reader that missed the address at both places read q before it was written and p after it
// was written over. The second means that its last load of the count includes the move. The first means that its
// first load does not, or it would have seen q written. So the two loads differ, and it looks again.
#include "dataplane/state/members.h"

#include <bit>
#include <cstring>

namespace trunkline {
namespace {

void relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

}  // namespace

// One line in four stays unused, so that a search for an address that is in no group (most are) ends soon.
Members::Members(std::size_t capacity)
    : capacity_(capacity),
      mask_(std::bit_ceil(capacity + capacity / 3 + 2) - 1),
      lines_(std::make_unique<Line[]>(mask_ + 1)) {}

Members::Key Members::key_of(const IpAddress& address) {
  Key key;
  std::memcpy(key.data(), address.bytes.data(), sizeof key);
  return key;
}

// Not std::hash<IpAddress>: its low bits do not depend on the bytes of an IPv4 address, and a mask takes low bits.
std::size_t Members::home_of(const Key& key) const {
  std::uint64_t mixed = key[0] * 0x9e3779b97f4a7c15ULL ^ key[1];
  mixed = (mixed ^ mixed >> 33) * 0xff51afd7ed558ccdULL;
  mixed = (mixed ^ mixed >> 33) * 0xc4ceb9fe1a85ec53ULL;
  return static_cast<std::size_t>(mixed ^ mixed >> 33) & mask_;
}

std::uint32_t Members::read(const Line& line, const Key& key, bool& matches, Groups& out) {
  for (;;) {
    const std::uint32_t before = line.sequence.load(std::memory_order_acquire);
    if ((before & 1) == 0) {
      const std::uint32_t count = line.count.load(std::memory_order_acquire);
      matches = count != 0 && line.address[0].load(std::memory_order_acquire) == key[0] &&
                line.address[1].load(std::memory_order_acquire) == key[1];
      if (matches) {
        // Even a count from the middle of a write is one that set() has checked, so this stays within bounds.
        for (std::size_t i = 0; i < (count + 1) / 2; ++i) {
          const std::uint64_t pair = line.groups[i].load(std::memory_order_acquire);
          out.ids[2 * i].value = static_cast<std::uint32_t>(pair);
          out.ids[2 * i + 1].value = static_cast<std::uint32_t>(pair >> 32);
        }
        out.count = static_cast<std::uint8_t>(count);
      }
      if (line.sequence.load(std::memory_order_relaxed) == before) return count;
    }
    relax();
  }
}

Members::Groups Members::find(const IpAddress& address) const {
  const Key key = key_of(address);
  const std::size_t home = home_of(key);
  Groups groups;
  for (;;) {
    const std::uint64_t moves = moves_.load(std::memory_order_acquire);
    for (std::size_t position = home;; ++position) {
      bool matches = false;
      const std::uint32_t count = read(lines_[position & mask_], key, matches, groups);
      if (matches) return groups;
      // There always is an empty line; the bound is for a reader that the writer keeps overtaking.
      if (count == 0 || position == home + mask_) break;
    }
    if (moves_.load(std::memory_order_relaxed) == moves) break;
  }
  groups.count = 0;  // a copy that was thrown away may have left its own
  return groups;
}

std::size_t Members::probe_length(const IpAddress& address) const {
  const Key key = key_of(address);
  const std::size_t home = home_of(key);
  Groups groups;
  for (std::size_t position = home; position < home + mask_; ++position) {
    bool matches = false;
    if (read(lines_[position & mask_], key, matches, groups) == 0 || matches) return position - home + 1;
  }
  return mask_ + 1;
}

Members::Key Members::key_in(const Line& line) {
  return {line.address[0].load(std::memory_order_relaxed), line.address[1].load(std::memory_order_relaxed)};
}

void Members::write(Line& line, const Key& key, std::span<const GroupId> groups) {
  const std::uint32_t sequence = line.sequence.load(std::memory_order_relaxed);
  line.sequence.store(sequence + 1, std::memory_order_relaxed);
  line.address[0].store(key[0], std::memory_order_release);
  line.address[1].store(key[1], std::memory_order_release);
  for (std::size_t i = 0; i < groups.size(); i += 2) {
    const std::uint64_t second = i + 1 < groups.size() ? groups[i + 1].value : GroupId{}.value;
    line.groups[i / 2].store(second << 32 | groups[i].value, std::memory_order_release);
  }
  line.count.store(static_cast<std::uint32_t>(groups.size()), std::memory_order_release);
  line.sequence.store(sequence + 2, std::memory_order_release);
}

void Members::clear(Line& line) {
  const std::uint32_t sequence = line.sequence.load(std::memory_order_relaxed);
  line.sequence.store(sequence + 1, std::memory_order_relaxed);
  line.count.store(0, std::memory_order_release);
  line.sequence.store(sequence + 2, std::memory_order_release);
}

bool Members::set(const IpAddress& address, std::span<const GroupId> groups) {
  if (groups.size() > kMaxGroups) return false;
  const Key key = key_of(address);
  // Ends, since the table is larger than its capacity.
  std::size_t position = home_of(key);
  while (!is_empty(lines_[position]) && key_in(lines_[position]) != key) position = (position + 1) & mask_;
  const bool is_new = is_empty(lines_[position]);
  if (groups.empty()) {
    if (!is_new) remove(position);
    return true;
  }
  if (is_new && size() == capacity_) return false;
  write(lines_[position], key, groups);
  if (is_new) size_.store(size() + 1, std::memory_order_relaxed);
  return true;
}

// Fills the gap with the next line whose search passes it, then the gap that this one leaves, and so on to the end of
// the run. At no moment is a line empty that somebody's search has to pass: until the next line is there, the gap
// still holds what it held, which is the removed address at first and afterwards a second copy of a moved one.
void Members::remove(std::size_t gap) {
  for (std::size_t position = (gap + 1) & mask_; !is_empty(lines_[position]); position = (position + 1) & mask_) {
    const Key key = key_in(lines_[position]);
    // Whether the gap lies on the way from the line's home to its place.
    const std::size_t home = home_of(key);
    if (((position - home) & mask_) < ((position - gap) & mask_)) continue;
    Groups groups;
    bool matches = false;
    read(lines_[position], key, matches, groups);
    write(lines_[gap], key, groups.view());
    moves_.store(moves_.load(std::memory_order_relaxed) + 1, std::memory_order_release);
    gap = position;
  }
  clear(lines_[gap]);
  size_.store(size() - 1, std::memory_order_relaxed);
}

}  // namespace trunkline
