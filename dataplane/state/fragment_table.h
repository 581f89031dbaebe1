// SPDX-License-Identifier: BSD-3-Clause
//
// Datagrams in fragments, as far as a worker has to know them: not the bytes, which are never put together here, but
// what the first fragment said (ports, so that the later ones can be asked about like it), and which pieces have come
// (so that none overwrites another). Later fragments that come before the first one are held, few and not for long.
//
// Room: an endpoint has two shares. In one are the datagrams whose first fragment the rules have let pass, in the other
// all others: those that wait for it, and those whose first fragment was refused. One more than a share holds pushes
// out the oldest of the same endpoint and share. So a flood of fragments costs its owner alone, and what is refused
// never takes the place of what passes.
//
// Life: a datagram is forgotten when all of it has passed; otherwise after kHold without its first fragment, kRefused
// behind one that was refused, and 30 seconds (IPv6: 60) behind one that passed.
//
// Owned by one worker. No allocation after construction. Held mbufs are this table's until it gives them back.
#pragma once

#include <rte_mbuf.h>

#include <algorithm>
#include <cstdint>
#include <memory>
#include <new>
#include <span>
#include <type_traits>

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

// What a first fragment says, and where it ends.
struct FirstFragment {
  std::uint16_t local_port = 0, remote_port = 0;  // network order; of an ICMP query or answer its identifier and 0
  std::uint16_t end = 0;
  std::uint8_t protocol = 0, icmp_type = 0, icmp_code = 0, tcp_flags = 0;
  friend bool operator==(const FirstFragment&, const FirstFragment&) = default;
};

struct FragmentedDatagram {
  static constexpr std::uint32_t kMaxPieces = 128;
  static constexpr std::uint32_t kMaxHeld = 4;
  // Octets [begin, end) of the datagram's payload. Old: it came before a copy of the first fragment did, and may be of
  // another datagram.
  struct Piece {
    std::uint16_t eighths : 13, last : 1, old : 1;  // begin / 8
    std::uint16_t end;
    std::uint32_t begin() const { return eighths * 8U; }
    std::uint32_t bytes() const { return end - begin(); }
  };
  static_assert(sizeof(Piece) == 4);
  enum class State : std::uint8_t {
    waiting,
    known,
    overlapped
  };  // for its first fragment; it has come; overlapping pieces
  enum class Share : std::uint8_t { unproved, passed };

  DatagramKey key;
  State state = State::waiting;
  Share share = Share::unproved;
  std::uint8_t held_count = 0;
  FirstFragment first;  // where known
  std::uint32_t piece_count = 0;
  Tick began = 0;  // overlapped: when it became so
  std::uint16_t next_in_bucket = 0, older = 0, newer = 0;
  rte_mbuf* held[kMaxHeld] = {};
  Piece pieces[kMaxPieces];

  enum class Place : std::uint8_t { fresh, copy, overlaps, contradicts_old, too_many };
  // Where a piece would lie among those that came. A copy of an old one is of this datagram from now on.
  Place place_of(std::uint32_t begin, std::uint32_t end, bool last);
  void add_piece(std::uint32_t begin, std::uint32_t end, bool last);
  // A copy of the first fragment has come.
  void came_again();
  void forget_old();
  // Another first fragment has come: nothing of what came before is of its datagram.
  void begin_anew() { piece_count = 0; }
  // All of it has come, and nothing waits.
  bool is_whole() const;
};

static_assert(std::is_trivially_destructible_v<FragmentedDatagram>);

class FragmentTable {
 public:
  static constexpr std::uint32_t kCapacity = 8192;
  static constexpr std::uint32_t kQuota =
      64;  // datagrams of an endpoint in each share; fewer where more than 64 endpoints have one
  static constexpr Tick kHold = 2;              // later fragments without their first
  static constexpr Tick kRefused = seconds(2);  // what the later fragments of a refused one are refused by
  static constexpr Tick kOverlapped =
      seconds(1);  // before an identification begins anew whose datagram had overlapping pieces
  static constexpr Tick kLife4 = seconds(30), kLife6 = seconds(60);

  explicit FragmentTable(std::size_t max_endpoints);

  // So many endpoints have their two shares each: there is always room for all of them.
  void share_among(std::uint32_t endpoints) {
    quota_ = std::clamp(kCapacity / 2 / std::max(endpoints, 1U), 1U, kQuota);
  }
  FragmentedDatagram* find(const DatagramKey& key, std::uint64_t hash);
  // A new one, in the share of those that nobody has let pass. What has to go for it is handed to `release` first;
  // nullptr: no room at all.
  template <class Release>
  FragmentedDatagram* add(const DatagramKey& key, std::uint64_t hash, Tick now, Release&& release);
  // What the rules said of its first fragment: into the share that is its.
  template <class Release>
  void settle(FragmentedDatagram& datagram, bool passed, Release&& release);
  // It begins (again) now, and is the newest of its share.
  void touch(FragmentedDatagram& datagram, Tick now);
  void erase(FragmentedDatagram& datagram);
  // What another table knows of a datagram, for explain: `held` are packets in the place of those that it holds. Its key is `key` here.
  void adopt(const FragmentedDatagram& other, const DatagramKey& key, std::uint64_t hash, std::span<rte_mbuf* const> held);
  std::uint32_t size() const { return size_; }
  bool empty() const { return size_ == 0; }

  // How long after it began a datagram is kept.
  static Tick life_of(const FragmentedDatagram& datagram);

  // Looks at `count` places: visit(datagram) says whether it is to be forgotten.
  template <class Visit>
  void sweep(std::uint32_t count, Visit&& visit);

 private:
  static constexpr std::uint16_t kNone = 0xffff;
  static constexpr std::uint32_t kBuckets = 8192;
  struct List {
    std::uint16_t oldest = kNone, newest = kNone;
    std::uint32_t count = 0;
  };
  struct Owned {
    List shares[2];
  };
  std::uint16_t number(const FragmentedDatagram& datagram) const {
    return static_cast<std::uint16_t>(&datagram - datagrams_.get());
  }
  List& list_of(const FragmentedDatagram& datagram) {
    return owned_[datagram.key.flow.endpoint().value].shares[static_cast<std::size_t>(datagram.share)];
  }
  void link(FragmentedDatagram& datagram);
  void unlink(FragmentedDatagram& datagram);
  // Answers whether there was one.
  template <class Release>
  bool push_out_oldest(List& list, Release&& release);

  // Room for all of them; each is made when it is first needed, so that a table which stays empty touches no memory.
  struct FreeRoom {
    void operator()(FragmentedDatagram* room) const {
      ::operator delete(room, std::align_val_t{alignof(FragmentedDatagram)});
    }
  };
  std::unique_ptr<FragmentedDatagram[], FreeRoom> datagrams_;
  std::unique_ptr<std::uint16_t[]> buckets_;
  std::unique_ptr<std::uint64_t[]> hashes_;  // of a datagram in use
  std::unique_ptr<bool[]> used_;
  std::unique_ptr<Owned[]> owned_;  // by EndpointId
  std::uint32_t quota_ = kQuota;
  std::uint16_t free_ = kNone;
  std::uint32_t high_water_ = 0, size_ = 0, hand_ = 0;
};

template <class Release>
bool FragmentTable::push_out_oldest(List& list, Release&& release) {
  if (list.count == 0) return false;
  FragmentedDatagram& oldest = datagrams_[list.oldest];
  release(oldest);
  erase(oldest);
  return true;
}

template <class Release>
FragmentedDatagram* FragmentTable::add(const DatagramKey& key, std::uint64_t hash, Tick now, Release&& release) {
  List& unproved = owned_[key.flow.endpoint().value].shares[0];
  List& passed = owned_[key.flow.endpoint().value].shares[1];
  if (unproved.count >= quota_) push_out_oldest(unproved, release);
  const bool full = free_ == kNone && high_water_ == kCapacity;
  if (full && !push_out_oldest(unproved, release) && !push_out_oldest(passed, release)) return nullptr;
  const std::uint16_t at = free_ != kNone ? free_ : static_cast<std::uint16_t>(high_water_++);
  if (free_ != kNone) free_ = datagrams_[at].next_in_bucket;
  FragmentedDatagram& datagram = *new (&datagrams_[at]) FragmentedDatagram;
  datagram.key = key;
  datagram.began = now;
  std::uint16_t& bucket = buckets_[hash % kBuckets];
  datagram.next_in_bucket = bucket;
  bucket = at;
  link(datagram);
  hashes_[at] = hash;
  used_[at] = true;
  ++size_;
  return &datagram;
}

template <class Release>
void FragmentTable::settle(FragmentedDatagram& datagram, bool passed, Release&& release) {
  const auto share = passed ? FragmentedDatagram::Share::passed : FragmentedDatagram::Share::unproved;
  if (share == datagram.share) return;
  unlink(datagram);
  datagram.share = share;
  if (List& list = list_of(datagram); list.count >= quota_) push_out_oldest(list, release);
  link(datagram);
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
