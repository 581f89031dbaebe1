// SPDX-License-Identifier: BSD-3-Clause
#include "dataplane/state/fragment_table.h"

#include <algorithm>

#include "dataplane/state/connection_table.h"

namespace trunkline {

std::uint64_t hash_of(const DatagramKey& key, const ConnectionTable& secrets) {
  FlowKey mixed = key.flow;
  mixed.remote_port = static_cast<std::uint16_t>(key.identification);
  mixed.local_port = static_cast<std::uint16_t>(key.identification >> 16 ^ index(key.direction) << 15);
  return secrets.hash(mixed);
}

// --- a datagram's pieces ---------------------------------------------------------------------------------------------

FragmentedDatagram::Place FragmentedDatagram::place_of(std::uint32_t begin, std::uint32_t end, bool last) {
  bool contradicts_old = false;
  for (Piece& piece : std::span(pieces, piece_count)) {
    if (piece.begin() == begin && piece.end == end) {
      // The same octets, but the last ones in one of them only: there are two ends.
      if ((piece.last != 0) == last) return piece.old = 0, Place::copy;
    }
    const bool overlap = begin < piece.end && piece.begin() < end;
    const bool behind_the_end = (piece.last && end > piece.end) || (last && piece.end > end) || (last && piece.last);
    if (!overlap && !behind_the_end) continue;
    if (!piece.old) return Place::overlaps;
    contradicts_old = true;
  }
  if (contradicts_old) return Place::contradicts_old;
  if (piece_count < kMaxPieces) return Place::fresh;
  return std::ranges::any_of(std::span(pieces, piece_count), [](const Piece& piece) { return piece.old != 0; })
             ? Place::contradicts_old
             : Place::too_many;
}

void FragmentedDatagram::add_piece(std::uint32_t begin, std::uint32_t end, bool last) {
  Piece& piece = pieces[piece_count++];
  piece.eighths = static_cast<std::uint16_t>(begin / 8) & 0x1fff;
  piece.last = last;
  piece.old = 0;
  piece.end = static_cast<std::uint16_t>(end);
}

void FragmentedDatagram::came_again() {
  for (Piece& piece : std::span(pieces, piece_count)) piece.old = piece.begin() != 0;
}

void FragmentedDatagram::forget_old() {
  const auto kept = std::remove_if(pieces, pieces + piece_count, [](const Piece& piece) { return piece.old != 0; });
  piece_count = static_cast<std::uint32_t>(kept - pieces);
}

bool FragmentedDatagram::is_whole() const {
  if (state != State::known || held_count != 0) return false;
  std::uint32_t octets = 0, total = 0;
  for (const Piece& piece : std::span(pieces, piece_count)) {
    if (piece.old) continue;
    octets += piece.bytes();
    if (piece.last) total = piece.end;
  }
  return total != 0 && octets == total;
}

// --- the table -------------------------------------------------------------------------------------------------------

FragmentTable::FragmentTable(std::size_t max_endpoints)
    : datagrams_(static_cast<FragmentedDatagram*>(
          ::operator new (sizeof(FragmentedDatagram) * kCapacity, std::align_val_t{alignof(FragmentedDatagram)}))),
      buckets_(new std::uint16_t[kBuckets]),
      hashes_(new std::uint64_t[kCapacity]),
      used_(new bool[kCapacity]{}),
      owned_(new Owned[max_endpoints]) {
  std::fill_n(buckets_.get(), kBuckets, kNone);
}

FragmentedDatagram* FragmentTable::find(const DatagramKey& key, std::uint64_t hash) {
  for (std::uint16_t at = buckets_[hash % kBuckets]; at != kNone; at = datagrams_[at].next_in_bucket) {
    if (hashes_[at] == hash && datagrams_[at].key == key) return &datagrams_[at];
  }
  return nullptr;
}

void FragmentTable::adopt(const FragmentedDatagram& other, const DatagramKey& key, std::uint64_t hash,
                          std::span<rte_mbuf* const> held) {
  FragmentedDatagram* datagram = add(key, hash, other.began, [](FragmentedDatagram&) {});
  if (datagram == nullptr) return;
  const auto next_in_bucket = datagram->next_in_bucket, older = datagram->older, newer = datagram->newer;
  *datagram = other;
  datagram->key = key;
  datagram->next_in_bucket = next_in_bucket, datagram->older = older, datagram->newer = newer;
  datagram->held_count = static_cast<std::uint8_t>(std::min<std::size_t>(other.held_count, held.size()));
  std::copy_n(held.begin(), datagram->held_count, datagram->held);
  datagram->share = FragmentedDatagram::Share::unproved;
  settle(*datagram, other.share == FragmentedDatagram::Share::passed, [](FragmentedDatagram&) {});
}

void FragmentTable::link(FragmentedDatagram& datagram) {
  const std::uint16_t at = number(datagram);
  List& list = list_of(datagram);
  datagram.older = list.newest;
  datagram.newer = kNone;
  (list.newest != kNone ? datagrams_[list.newest].newer : list.oldest) = at;
  list.newest = at;
  ++list.count;
}

void FragmentTable::unlink(FragmentedDatagram& datagram) {
  List& list = list_of(datagram);
  (datagram.older != kNone ? datagrams_[datagram.older].newer : list.oldest) = datagram.newer;
  (datagram.newer != kNone ? datagrams_[datagram.newer].older : list.newest) = datagram.older;
  --list.count;
}

void FragmentTable::touch(FragmentedDatagram& datagram, Tick now) {
  datagram.began = now;
  unlink(datagram);
  link(datagram);
}

void FragmentTable::erase(FragmentedDatagram& datagram) {
  const std::uint16_t at = number(datagram);
  std::uint16_t* chain = &buckets_[hashes_[at] % kBuckets];
  while (*chain != at) chain = &datagrams_[*chain].next_in_bucket;
  *chain = datagram.next_in_bucket;
  unlink(datagram);
  used_[at] = false;
  datagram.next_in_bucket = free_;
  free_ = at;
  --size_;
}

Tick FragmentTable::life_of(const FragmentedDatagram& datagram) {
  if (datagram.state == FragmentedDatagram::State::waiting) return kHold;
  const Tick life = datagram.key.flow.is_ipv6() ? kLife6 : kLife4;
  const bool refused =
      datagram.state == FragmentedDatagram::State::known && datagram.share == FragmentedDatagram::Share::unproved;
  return refused ? kRefused : life;
}

}  // namespace trunkline
