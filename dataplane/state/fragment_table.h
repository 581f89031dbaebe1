// SPDX-License-Identifier: BSD-3-Clause
//
// Datagrams in fragments, as far as a worker has to know them: not the bytes, which are never put together here, but what the first
// fragment said (ports, so that the later ones can be asked about like it), and which pieces have come (so that none overwrites
// another). Later fragments that come before the first one are held, few and not for long.
//
// Room: an endpoint may have so many datagrams under way; one more pushes out that endpoint's oldest, so that a flood
// of fragments costs its owner alone. A datagram is forgotten when all of it has passed, or 30 seconds (IPv6: 60) after it began.
//
// Owned by one worker. No allocation after construction. Held mbufs are this table's until it gives them back.
#pragma once

#include <rte_mbuf.h>

#include <cstdint>
#include <memory>
#include <span>

#include "config/net.h"
#include "dataplane/state/clock.h"
#include "dataplane/state/flow_key.h"

namespace trunkline {

// Which datagram a fragment is of. `flow` has addresses (or their digest), owner and no ports.
struct DatagramKey {
  FlowKey flow;
  AddressPair ipv6;
  std::uint32_t identification = 0;
  Direction direction = Direction::ingress;
  friend bool operator==(const DatagramKey&, const DatagramKey&) = default;
};

class ConnectionTable;
// Where a worker's table has it: by the secrets of that worker's connection table, which `key` has its digest of, too.
std::uint64_t hash_of(const DatagramKey& key, const ConnectionTable& secrets);

struct FragmentedDatagram {
  static constexpr std::uint32_t kMaxPieces = 128;
  static constexpr std::uint32_t kMaxHeld = 4;
  struct Piece {
    std::uint16_t begin = 0, end = 0;
  };
  enum class State : std::uint8_t { waiting, known, refused };  // for its first fragment; it has come; overlapping pieces

  DatagramKey key;
  State state = State::waiting;
  std::uint8_t protocol = 0, icmp_type = 0, icmp_code = 0;  // as the first fragment says
  std::uint8_t held_count = 0;
  std::uint16_t local_port = 0, remote_port = 0;  // network order
  std::uint32_t passed_bytes = 0, total_bytes = 0;  // total: 0 until the last piece has come
  std::uint32_t piece_count = 0;
  Tick began = 0;
  std::uint16_t next_in_bucket = 0, older = 0, newer = 0;
  rte_mbuf* held[kMaxHeld] = {};
  Piece pieces[kMaxPieces];

  bool is_whole() const { return state == State::known && held_count == 0 && total_bytes != 0 && passed_bytes == total_bytes; }
};

class FragmentTable {
 public:
  static constexpr std::uint32_t kCapacity = 4096;
  static constexpr std::uint32_t kQuota = 64;  // datagrams of an endpoint
  static constexpr Tick kHold = 2;             // later fragments without their first
  static constexpr Tick kLife4 = seconds(30), kLife6 = seconds(60);

  explicit FragmentTable(std::size_t max_endpoints);

  FragmentedDatagram* find(const DatagramKey& key, std::uint64_t hash);
  // A new one. What has to go for it is handed to `release` first; nullptr: no room at all.
  template <class Release>
  FragmentedDatagram* add(const DatagramKey& key, std::uint64_t hash, Tick now, Release&& release);
  void erase(FragmentedDatagram& datagram);
  // What another table knows of a datagram, for explain: `held` are packets in the place of those that it holds. Its key is `key` here.
  void adopt(const FragmentedDatagram& other, const DatagramKey& key, std::uint64_t hash, std::span<rte_mbuf* const> held);
  std::uint32_t size() const { return size_; }
  bool empty() const { return size_ == 0; }

  // Looks at `count` places: visit(datagram) says whether it is to be forgotten.
  template <class Visit>
  void sweep(std::uint32_t count, Visit&& visit);

 private:
  static constexpr std::uint16_t kNone = 0xffff;
  static constexpr std::uint32_t kBuckets = 4096;
  struct Owned {
    std::uint16_t oldest = kNone, newest = kNone;
    std::uint32_t count = 0;
  };
  std::uint16_t number(const FragmentedDatagram& datagram) const { return static_cast<std::uint16_t>(&datagram - datagrams_.get()); }

  std::unique_ptr<FragmentedDatagram[]> datagrams_;
  std::unique_ptr<std::uint16_t[]> buckets_;
  std::unique_ptr<std::uint64_t[]> hashes_;  // of a datagram in use
  std::unique_ptr<bool[]> used_;
  std::unique_ptr<Owned[]> owned_;  // by EndpointId
  std::uint16_t free_ = kNone;
  std::uint32_t high_water_ = 0, size_ = 0, hand_ = 0;
};

template <class Release>
FragmentedDatagram* FragmentTable::add(const DatagramKey& key, std::uint64_t hash, Tick now, Release&& release) {
  Owned& owned = owned_[key.flow.endpoint().value];
  const bool full = free_ == kNone && high_water_ == kCapacity;
  if (owned.count >= kQuota || (full && owned.count != 0)) {
    FragmentedDatagram& oldest = datagrams_[owned.oldest];
    release(oldest);
    erase(oldest);
  } else if (full) {
    return nullptr;
  }
  const std::uint16_t at = free_ != kNone ? free_ : static_cast<std::uint16_t>(high_water_++);
  FragmentedDatagram& datagram = datagrams_[at];
  if (free_ != kNone) free_ = datagram.next_in_bucket;
  datagram.key = key;
  datagram.state = FragmentedDatagram::State::waiting;
  datagram.held_count = 0;
  datagram.local_port = datagram.remote_port = 0;
  datagram.protocol = datagram.icmp_type = datagram.icmp_code = 0;
  datagram.passed_bytes = datagram.total_bytes = datagram.piece_count = 0;
  datagram.began = now;
  std::uint16_t& bucket = buckets_[hash % kBuckets];
  datagram.next_in_bucket = bucket;
  bucket = at;
  datagram.older = owned.newest;
  datagram.newer = kNone;
  (owned.newest != kNone ? datagrams_[owned.newest].newer : owned.oldest) = at;
  owned.newest = at;
  ++owned.count;
  hashes_[at] = hash;
  used_[at] = true;
  ++size_;
  return &datagram;
}

template <class Visit>
void FragmentTable::sweep(std::uint32_t count, Visit&& visit) {
  for (; count != 0 && size_ != 0; --count) {
    if (hand_ >= high_water_) hand_ = 0;
    const std::uint32_t at = hand_++;
    if (used_[at] && visit(datagrams_[at])) erase(datagrams_[at]);
  }
}

}  // namespace trunkline
