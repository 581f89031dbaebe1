// SPDX-License-Identifier: BSD-3-Clause
//
// The memory order of a record's sequence lock. The writer makes the number odd, stores the words each with release,
// and makes the number even with release. A reader loads the number with acquire, the words each with acquire, and the
// number again. If any word it got was stored by a write that began after its first load of the number, then that
// load synchronised with a store that comes after the odd number, so its second load of the number sees at least
// that: the copy is thrown away. On x86 all of these are plain moves; there are no fences, which ThreadSanitizer does
// not model.
//
// That the record is still the address's: between the two loads of the number the reader loads the slot once more, and
// it must say what it said. Had that word been stored for a later content of the record, the load would synchronise
// with it, and the second load of the number would see the later number. Had it been stored for an earlier content,
// then the writer has overwritten the slot before it wrote the record anew (it only rewrites records that no slot
// names, or IPv6 ones for the same address); the first load of the number synchronised with that, so the slot could not
// be seen with the old word any more.
//
// Moving a slot's word from place p to an earlier place q of the same search: write q, count the move (release), then
// write something else to p. A reader that missed the address at both places read q before it was written and p after
// it was written over. The second means that its last load of the count includes the move. The first means that its
// first load does not, or it would have seen q written. So the two loads differ, and it looks again.
#include "dataplane/state/members.h"

#include <algorithm>

namespace trunkline {
namespace {

void relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

}  // namespace

// Half of the slots stay unused, so that few lines are full and a search for an address that is in no group (most are)
// ends in the first one: nineteen in twenty do.
Members::Members(std::size_t capacity)
    : capacity_(capacity),
      line_count_(2 * capacity / kSlots + 1),
      lines_(std::make_unique<Line[]>(line_count_)),
      chunks_(std::make_unique<std::atomic<Record*>[]>((capacity + 2) / kRecordsPerChunk + 1)),
      shared_(0, SameGroups{this}, SameGroups{this}) {
  add_chunk();
}

Members::Reading Members::read(const std::atomic<std::uint64_t>& slot, const Key& key, Groups& out) const {
  const std::uint64_t word = slot.load(std::memory_order_acquire);
  if (word >> 32 != key.slot_bits || word == 0) return Reading::changed;
  if ((word & kIsIpv6) != key.family) return Reading::other_address;
  const Record& source = record(static_cast<std::uint32_t>(word) & ~kIsIpv6);
  const std::uint32_t before = source.sequence.load(std::memory_order_acquire);
  if ((before & 1) != 0) return Reading::changed;
  const bool same = key.family == 0 || (source.address[0].load(std::memory_order_acquire) == key.words[0] &&
                                        source.address[1].load(std::memory_order_acquire) == key.words[1]);
  copy(source, out);
  if (slot.load(std::memory_order_acquire) != word) return Reading::changed;
  if (source.sequence.load(std::memory_order_relaxed) != before) return Reading::changed;
  return same ? Reading::match : Reading::other_address;
}

Members::Groups Members::search(const Key& key) const {
  const std::size_t home = home_of(key);
  Groups groups;
  for (;;) {
    const std::uint64_t moves = moves_.load(std::memory_order_acquire);
    bool changed = false;
    // Some line always has an unused slot; the bound is for a reader that the writer keeps overtaking.
    std::size_t line = home;
    for (std::size_t left = line_count_; left > 0; --left, line = next(line)) {
      const Scan found = scan(lines_[line], key);
      for (std::uint32_t rest = found.candidates; rest != 0; rest &= rest - 1) {
        switch (read(lines_[line].slots[static_cast<std::size_t>(std::countr_zero(rest))], key, groups)) {
          case Reading::match:
            return groups;
          case Reading::other_address:
            break;
          case Reading::changed:
            changed = true;
            break;
        }
      }
      if (found.unused != 0 || changed) break;
    }
    if (!changed && moves_.load(std::memory_order_relaxed) == moves) break;
    relax();
  }
  return {{}, 0};  // not what a copy that was thrown away has left
}

std::size_t Members::memory_bytes() const {
  return line_count_ * sizeof(Line) + owned_chunks_.size() * (kRecordsPerChunk * sizeof(Record) + sizeof(Record*));
}

std::size_t Members::probe_length(const IpAddress& address) const {
  const Key key = key_of(address);
  Groups groups;
  std::size_t line = home_of(key);
  for (std::size_t length = 1; length < line_count_; ++length, line = next(line)) {
    const Scan found = scan(lines_[line], key);
    if (found.unused != 0) return length;
    for (std::uint32_t rest = found.candidates; rest != 0; rest &= rest - 1) {
      if (read(lines_[line].slots[static_cast<std::size_t>(std::countr_zero(rest))], key, groups) == Reading::match)
        return length;
    }
  }
  return line_count_;
}

// ---- Records -----------------------------------------------------------------------------------------------------

std::size_t Members::hash_of(std::span<const GroupId> groups) {
  std::uint64_t hash = groups.size();
  for (const GroupId group : groups) hash = mix(hash ^ group.value);
  return static_cast<std::size_t>(hash);
}

std::size_t Members::SameGroups::operator()(std::uint32_t number) const {
  Groups groups;
  copy(members->record(number), groups);
  return hash_of(groups.view());
}

bool Members::SameGroups::operator()(std::span<const GroupId> groups, std::uint32_t number) const {
  Groups its;
  copy(members->record(number), its);
  return std::ranges::equal(groups, its.view());
}

// There are never more records than slots in use and one, for the address that is being set. Record 0 is what an unused
// slot names: no groups, given to nobody.
void Members::add_chunk() {
  const std::size_t first = owned_chunks_.size() * kRecordsPerChunk;
  owned_chunks_.push_back(std::make_unique<Record[]>(kRecordsPerChunk));
  users_.resize(first + kRecordsPerChunk, 0);
  for (std::size_t i = kRecordsPerChunk; i-- > 0;) {
    if (first + i != 0) free_records_.push_back(static_cast<std::uint32_t>(first + i));
  }
  chunks_[owned_chunks_.size() - 1].store(owned_chunks_.back().get(), std::memory_order_release);
}

std::uint32_t Members::take_record() {
  if (free_records_.empty()) add_chunk();
  const std::uint32_t number = free_records_.back();
  free_records_.pop_back();
  users_[number] = 1;
  return number;
}

std::uint32_t Members::shared_record(std::span<const GroupId> groups) {
  if (const auto known = shared_.find(groups); known != shared_.end()) {
    ++users_[*known];
    return *known;
  }
  const std::uint32_t number = take_record();
  write(record(number), Key{}, groups);
  shared_.insert(number);
  return number;
}

void Members::release_record(std::uint32_t low_half) {
  const std::uint32_t number = low_half & ~kIsIpv6;
  if (--users_[number] != 0) return;
  if ((low_half & kIsIpv6) == 0) shared_.erase(number);
  free_records_.push_back(number);
}

void Members::write(Record& record, const Key& key, std::span<const GroupId> groups) {
  const std::uint32_t sequence = record.sequence.load(std::memory_order_relaxed);
  record.sequence.store(sequence + 1, std::memory_order_relaxed);
  record.address[0].store(key.words[0], std::memory_order_release);
  record.address[1].store(key.words[1], std::memory_order_release);
  for (std::size_t i = 0; i < groups.size(); i += 2) {
    const std::uint64_t second = i + 1 < groups.size() ? groups[i + 1].value : GroupId{}.value;
    record.groups[i / 2].store(second << 32 | groups[i].value, std::memory_order_release);
  }
  record.count.store(static_cast<std::uint32_t>(groups.size()), std::memory_order_release);
  record.sequence.store(sequence + 2, std::memory_order_release);
}

// ---- Slots -------------------------------------------------------------------------------------------------------

Members::Key Members::key_in(std::uint64_t word) const {
  if ((word & kIsIpv6) == 0) return key_of(IpAddress::from_v4(static_cast<std::uint32_t>(word >> 32)));
  const Record& its = record(static_cast<std::uint32_t>(word) & ~kIsIpv6);
  IpAddress address;
  const std::array<std::uint64_t, 2> words{its.address[0].load(std::memory_order_relaxed),
                                           its.address[1].load(std::memory_order_relaxed)};
  std::memcpy(address.bytes.data(), words.data(), sizeof words);
  return key_of(address);
}

// The address's slot or, if it has none, the unused one that it would get.
bool Members::locate(const Key& key, Place& place) const {
  for (std::size_t line = home_of(key);; line = next(line)) {  // ends, since there are more slots than addresses
    const Scan found = scan(lines_[line], key);
    for (std::uint32_t rest = found.candidates; rest != 0; rest &= rest - 1) {
      place = {line, static_cast<std::size_t>(std::countr_zero(rest))};
      const Key its = key_in(word_at(place));
      if (its.words == key.words) return true;
    }
    if (found.unused != 0) {
      place = {line, static_cast<std::size_t>(std::countr_zero(found.unused))};
      return false;
    }
  }
}

bool Members::set(const IpAddress& address, std::span<const GroupId> groups) {
  if (groups.size() > kMaxGroups) return false;
  const Key key = key_of(address);
  Place place;
  const bool is_new = !locate(key, place);
  if (groups.empty()) {
    if (!is_new) remove(place);
    return true;
  }
  if (is_new && size() == capacity_) return false;
  const std::uint64_t old = word_at(place);
  if (key.family == kIsIpv6) {
    const std::uint32_t number = is_new ? take_record() : static_cast<std::uint32_t>(old) & ~kIsIpv6;
    write(record(number), key, groups);
    if (is_new) store(place, std::uint64_t{key.slot_bits} << 32 | kIsIpv6 | number);
  } else {
    store(place, std::uint64_t{key.slot_bits} << 32 | shared_record(groups));
    if (!is_new) release_record(static_cast<std::uint32_t>(old));
  }
  if (is_new) size_.store(size() + 1, std::memory_order_relaxed);
  return true;
}

// If the line was full, searches may pass it: the gap is filled with an address from further on whose search does, then
// the gap that this one leaves if its line was full, and so on. At no moment has a line an unused slot that somebody's
// search has to pass: until the next word is there, the gap still holds what it held, which is the removed address at
// first and afterwards a second copy of a moved one.
void Members::remove(Place gap) {
  const auto removed = static_cast<std::uint32_t>(word_at(gap));
  const auto is_full = [&](std::size_t line) {
    return std::ranges::none_of(lines_[line].slots,
                                [](const auto& slot) { return slot.load(std::memory_order_relaxed) == 0; });
  };
  std::size_t line = gap.line;
  while (is_full(line)) {
    line = next(line);
    if (line == gap.line) break;
    for (std::size_t slot = 0; slot < kSlots; ++slot) {
      const std::uint64_t word = word_at({line, slot});
      if (word == 0) continue;
      // Whether the gap lies on the way from the address's home to its place.
      if (distance(home_of(key_in(word)), line) < distance(gap.line, line)) continue;
      store(gap, word);
      moves_.store(moves_.load(std::memory_order_relaxed) + 1, std::memory_order_release);
      gap = {line, slot};
      break;
    }
  }
  store(gap, 0);
  release_record(removed);
  size_.store(size() - 1, std::memory_order_relaxed);
}

}  // namespace trunkline
