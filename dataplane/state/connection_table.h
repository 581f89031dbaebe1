// SPDX-License-Identifier: BSD-3-Clause
//
// The connections of one worker: one connection, one entry, one owner, one expiry rule.
//
// An entry is one cache line: the key, the state, and both directions' totals for flow logs. An IPv6 connection has a
// second entry for its addresses. Entries never move. A connection between two tasks of one host is two connections, one
// per ENI, each with its own verdict. What a detach leaves behind matches nothing (flow_key.h) and the sweep frees it.
//
// Layout: buckets of one cache line hold ten 16-bit tags and ten entry numbers. A key may live in two buckets; a bucket counts
// how many of its keys had to go to their other one, so that a miss usually costs one line. There are as many buckets as
// three quarters of their places hold the capacity, no power of two, so that a connection costs 64 + 8.5 bytes. The hash is
// keyed per table with random bits (three AES rounds), because the tuples are chosen by strangers.
// The lists take 8 bytes more, in an array of their own.
//
// All of it lies in an Arena without pointers, so that another process can go on with it (Arena::adopt, and this class's
// constructor with `taken_over`). What is counted beside it is made anew from the entries.
//
// Expiry: a packet stores the time in the entry. An entry is dead when it was idle longer than its state allows; who finds
// it has to ask expired(), sweep() walks the entries with a clock hand and frees the dead.
//
// Room: an endpoint may hold so many connections and no more (its quota); those that are over do not count. What makes room is told by a
// connection's standing (connection_state.h), and each endpoint has a list of its unconfirmed connections and one of those that are over,
// each in the order in which they became so:
//  * an endpoint has at most a quarter of the table in unconfirmed connections; one more takes the place of its own oldest.
//  * over its quota, too, a new connection takes the place of the endpoint's own oldest unconfirmed one.
//  * what is over has at most an eighth of the table; one more takes the place of its endpoint's oldest.
//  * when the table is full, first what is over makes room, then the oldest unconfirmed one of an endpoint that has many.
//  * a quarter of the table is divided among the endpoints: their shares. What endpoints have beyond their shares is at
//    most three quarters; one more takes the place of an unconfirmed one of an endpoint beyond its share, or is
//    refused. So an endpoint below its share always finds room.
// So one endpoint's flood takes the places of its own flood, and a confirmed connection is never ended for a new one.
//
// No locks, no allocation after construction; only the owning worker calls anything but the readers marked so.
#pragma once

#include <immintrin.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "config/net.h"
#include "dataplane/state/arena.h"
#include "dataplane/state/clock.h"
#include "dataplane/state/connection.h"
#include "dataplane/state/counters.h"
#include "dataplane/state/endpoint_set.h"
#include "dataplane/state/flow_key.h"
#include "dataplane/state/flow_recorder.h"
#include "dataplane/state/policy.h"
#include "dataplane/state/shares.h"
#include "dataplane/state/view.h"

namespace trunkline {

class ConnectionTable {
 public:
  // `capacity`: entries at most. `seed`: random, secret; tests give a fixed one. Memory is a memfd, or a file at `path`.
  // Throws std::runtime_error with a sentence if there is not enough.
  ConnectionTable(std::uint32_t capacity, std::uint64_t seed, const std::string& path = {});
  // Goes on with what another table of the same capacity left in the arena.
  struct TakenOver {};
  ConnectionTable(std::uint32_t capacity, Arena arena, TakenOver);
  ConnectionTable(const ConnectionTable&) = delete;
  ConnectionTable& operator=(const ConnectionTable&) = delete;

  static std::size_t arena_bytes(std::uint32_t capacity);
  static std::uint64_t layout();

  [[gnu::always_inline]] std::uint64_t hash(const FlowKey& key) const {
    // After two rounds a half of the state depends on one byte only of what the first made of four, and the flows between two neighbours collide.
    __m128i state = _mm_xor_si128(key.bits(), secret_[0]);
    state = _mm_aesenc_si128(_mm_aesenc_si128(_mm_aesenc_si128(state, secret_[1]), secret_[2]), secret_[0]);
    return static_cast<std::uint64_t>(_mm_cvtsi128_si64(state)) | 1;  // the low bits are the tag, which is never 0
  }
  // Puts the digest of an IPv6 flow's addresses into its key.
  void set_digest(FlowKey& key, const AddressPair& addresses) const;

  // Starts the load of the bucket that the next ones will need. (Inlined always: members.h.)
  [[gnu::always_inline]] void prefetch(std::uint64_t hash) const { __builtin_prefetch(&buckets_[first_bucket(hash)]); }
  // Who may be the one, by its tag alone, with the load of it started. nullptr: nobody in the key's first bucket; if some of that bucket's keys
  // had to go to their other one, the load of this one's is started.
  [[gnu::always_inline]] Connection* candidate(std::uint64_t hash) const {
    const Bucket& bucket = buckets_[first_bucket(hash)];
    if (Connection* entry = candidate_in(bucket, hash); entry != nullptr) [[likely]] return entry;
    if (bucket.spilled != 0) __builtin_prefetch(&buckets_[other_bucket(hash)]);
    return nullptr;
  }
  // The same in the other bucket, where the first one has none. nullptr: there is no such key.
  [[gnu::always_inline]] Connection* candidate_elsewhere(std::uint64_t hash) const {
    return buckets_[first_bucket(hash)].spilled != 0 ? candidate_in(buckets_[other_bucket(hash)], hash) : nullptr;
  }
  // The connection with this key, dead or alive; nullptr if there is none.
  Connection* find(const FlowKey& key, std::uint64_t hash) const;
  Connection* find(const FlowKey& ipv6_key, std::uint64_t hash, const AddressPair& addresses) const;

  static constexpr std::uint32_t kNoQuota = 0xffffffff;
  enum class Refusal : std::uint8_t { none, full, quota, share };
  struct Inserted {
    Connection* connection;
    Refusal refusal;
  };
  // An entry for a connection that find() did not find. It is written as a whole: where it will lie may be in no cache yet, and nobody has to
  // wait for it. `quota`: connections that its endpoint may have.
  Inserted insert(const Connection& fresh, std::uint64_t hash, std::uint32_t quota = kNoQuota) {
    return insert_entries(fresh, hash, {.quota = quota}, nullptr);
  }
  Inserted insert(const Connection& fresh_ipv6, std::uint64_t hash, const AddressPair& addresses, std::uint32_t quota = kNoQuota) {
    return insert_entries(fresh_ipv6, hash, {.quota = quota}, &addresses);
  }
  void erase(Connection* connection);
  // So many endpoints have a share each; 0: there are no shares. Looks at all endpoints when the number has changed.
  void share_among(std::uint32_t endpoints) {
    if (!shares_.is_set(endpoints)) [[unlikely]]
      set_shares(endpoints);
  }
  // Who is told of the totals of a connection before it goes.
  void tell(FlowRecorder* recorder) { recorder_ = recorder; }
  // Its entry is about to be used for another flow of the same name.
  void log_end_of(Connection& connection) {
    if (recorder_ != nullptr) recorder_->ended(connection, connection.key.is_ipv6() ? &addresses_of(connection) : nullptr);
  }
  // A connection that another table had, state and totals and all. `addresses`: of an IPv6 one. `now`: by the clock of
  // this table's owner. False: no room, it is here, or it is of a task that has gone.
  bool adopt(const Connection& connection, const AddressPair& addresses, Tick now);
  // To be told of each change of a connection's standing by its state. Another connection of the endpoint may have to make room.
  void changed_standing(Connection& connection, Standing before);
  // An entry is used again by a new connection of the same key.
  void restart(Connection& connection, const Connection& fresh);
  const AddressPair& addresses_of(const Connection& ipv6) const {
    return reinterpret_cast<const ConnectionAddresses&>(entries_[ipv6.link]).addresses;
  }

  // Looks at the next `count` entries and frees those that are dead. `view` knows timeouts and generations. Answers whether
  // the hand came round.
  bool sweep(std::uint32_t count, Tick now, const View& view);
  // The same walk with a word on what lives: visit(connection, endpoint) may erase it, and no other.
  template <class Visit>
  bool sweep(std::uint32_t count, Tick now, const View& view, Visit&& visit);

  // Looks at `count` entries from number `at` on, dead ones too, and moves `at` on: visit(connection) may erase it. Answers
  // whether the end was reached. Entries never move: what is there all the while is seen once.
  template <class Visit>
  bool walk(std::uint32_t& at, std::uint32_t count, Visit&& visit);

  // Whether what was found for the key is in use for it still. (Of an IPv6 connection find() compares the addresses, too.)
  static bool is_of(const Connection& found, const FlowKey& key) { return found.state > ConnectionState::addresses && found.key == key; }
  static bool expired(const Connection& connection, const Timeouts& timeouts, Tick now) {
    return now - connection.last_seen >= timeouts[connection.state];
  }
  // Takes the totals off the next `count` connections from entry `at` on. False: the recorder has no room now; `at` is where to
  // go on. At the end `at` is high_water().
  bool end_interval(std::uint32_t& at, std::uint32_t count, FlowRecorder& recorder);

  // The control thread may call these.
  std::uint64_t size() const { return inserted_.read() - erased_.read(); }
  std::uint64_t recycled() const { return recycled_.read(); }  // that made room for another
  std::uint32_t capacity() const { return capacity_; }
  // Entries that count of whoever has the number now, and its share of them; 0: there are none.
  std::uint32_t entries_of(EndpointId id) const {
    return std::atomic_ref(holdings_[id.value].entries).load(std::memory_order_relaxed);
  }
  std::uint32_t share_of_each() const { return share_shown_.load(std::memory_order_relaxed); }
  std::size_t memory_bytes() const;
  std::size_t page_bytes() const { return arena_.page_bytes(); }
  int descriptor() const { return arena_.descriptor(); }

  // Of this generation of the endpoint.
  std::uint32_t size_of(const Endpoint& endpoint) const;
  std::uint32_t share() const { return shares_.share(); }  // entries
  // Entries that were ever used: what a sweep has to walk.
  std::uint32_t high_water() const { return head_->high_water; }

  // The worker's own walk over what is in use (tests, explain).
  template <class Visit>
  void for_each(Visit&& visit) const {
    for (std::uint32_t i = 0; i < head_->high_water; ++i) {
      if (entries_[i].state > ConnectionState::addresses) visit(entries_[i]);
    }
  }

 private:
  static constexpr unsigned kWays = 10;
  static constexpr std::uint32_t kNone = EndpointSet::kNone;
  struct alignas(64) Bucket {
    std::uint16_t tag[kWays];  // 0: empty
    std::uint16_t spilled;     // keys whose first bucket this is and that live in their other one
    std::uint16_t unused;
    std::uint32_t entry[kWays];
  };
  static_assert(sizeof(Bucket) == 64);
  // What a process that takes over has to know beside the buckets and entries.
  struct alignas(64) Head {
    std::uint64_t secret[6];
    std::uint32_t high_water;  // entries from here on were never used
  };
  static_assert(sizeof(Head) == 64);
  // Entries that were used and freed are a list, each ninth of which holds the numbers of the eight that were freed after it: so the
  // loads of the next ones to be used can be under way together, which from link to link they cannot. `state` lies where Connection has it.
  // The key is zero, so that nobody who found a connection here before takes this for it.
  struct alignas(64) FreeEntries {
    static constexpr std::uint32_t kNumbers = 8;
    std::uint8_t before[offsetof(Connection, state)]{};
    ConnectionState state = ConnectionState::free;
    std::uint8_t count = 0;
    std::uint32_t next = kNone;
    std::uint32_t number[kNumbers]{};
  };
  static_assert(sizeof(FreeEntries) == 64 && offsetof(FreeEntries, state) == offsetof(Connection, state));
  // Entry numbers; the neighbours of an entry in its endpoint's list.
  struct Links {
    std::uint32_t older, newer;
  };
  struct List {
    std::uint32_t oldest = kNone, newest = kNone;
    bool empty() const { return oldest == kNone; }
  };
  // What one generation of an endpoint has.
  struct Holding {
    std::uint32_t connections = 0;  // that count for the quota
    std::uint32_t entries = 0;      // of these
    std::uint32_t unconfirmed_count = 0;
    List unconfirmed, over;
    std::uint16_t generation = 0;
  };

  static std::uint32_t entries_of(const FlowKey& key) { return key.is_ipv6() ? 2 : 1; }
  void set_shares(std::uint32_t endpoints);
  void add_entries(Holding& holding, std::uint32_t count) {
    const std::uint32_t before = holding.entries, now = before + count;
    std::atomic_ref(holding.entries).store(now, std::memory_order_relaxed);  // control reads it
    shares_.changed(before, now);
  }
  bool may_borrow(const Holding& holding, std::uint32_t entries);
  static std::uint32_t bucket_count(std::uint32_t capacity) { return static_cast<std::uint32_t>(std::uint64_t{capacity} * 4 / (3 * kWays)) + 2; }
  static std::uint16_t tag_of(std::uint64_t hash) { return static_cast<std::uint16_t>(hash); }
  static std::uint32_t high_half(std::uint64_t hash) { return static_cast<std::uint32_t>(hash >> 32); }
  std::uint32_t bucket_of_high_half(std::uint32_t high) const { return static_cast<std::uint32_t>(std::uint64_t{high} * buckets_count_ >> 32); }
  std::uint32_t first_bucket(std::uint64_t hash) const { return bucket_of_high_half(high_half(hash)); }
  // Another bucket than the first, made of the tag too, so that keys of one bucket do not share the other one.
  std::uint32_t other_bucket(std::uint64_t hash) const {
    const std::uint64_t mixed = (hash ^ hash >> 32) * 0x9e3779b97f4a7c15ULL;
    const auto other = static_cast<std::uint32_t>((mixed >> 32) * buckets_count_ >> 32);
    return other != first_bucket(hash) ? other : (other + 1 == buckets_count_ ? 0 : other + 1);
  }
  // Two bits for each place whose tag is the one.
  static unsigned matches(const Bucket& bucket, std::uint16_t tag) {
    const __m256i tags = _mm256_load_si256(reinterpret_cast<const __m256i*>(&bucket));
    const __m256i equal = _mm256_cmpeq_epi16(tags, _mm256_set1_epi16(static_cast<short>(tag)));
    return static_cast<unsigned>(_mm256_movemask_epi8(equal)) & ((1U << 2 * kWays) - 1);
  }
  [[gnu::always_inline]] Connection* candidate_in(const Bucket& bucket, std::uint64_t hash) const {
    const unsigned mask = matches(bucket, tag_of(hash));
    if (mask == 0) return nullptr;
    Connection* entry = &entries_[bucket.entry[static_cast<unsigned>(__builtin_ctz(mask)) / 2]];
    __builtin_prefetch(entry, 1);
    return entry;
  }
  static bool is_newer(std::uint16_t generation, std::uint16_t than) {
    const unsigned ahead = (generation - than) & FlowKey::kGenerationMask;
    return ahead != 0 && ahead <= FlowKey::kGenerationMask / 2;
  }
  void bind();
  bool make_room(std::uint32_t bucket);
  template <class Same>
  Connection* find_if(std::uint64_t hash, Same&& same) const;
  // nullptr: of a generation that has gone. Its connections are in no list.
  Holding* holding_of(const FlowKey& key) {
    Holding& holding = holdings_[key.endpoint().value];
    return holding.generation == key.generation() ? &holding : nullptr;
  }
  void begin_generation(std::uint32_t id, std::uint16_t generation);
  void append(List& list, std::uint32_t number);
  void remove(List& list, std::uint32_t number);
  void enlist(Holding& holding, const Connection& connection, Standing standing);
  void delist(Holding& holding, const Connection& connection, Standing standing);
  void limit_over(const Holding& holding, const Connection& newest);
  void recycle(std::uint32_t number);
  bool recycle_oldest_unconfirmed(const Holding& holding);
  bool make_free_entry();
  std::uint32_t holder_of_many_unconfirmed();
  FreeEntries& free_entries_at(std::uint32_t number) { return reinterpret_cast<FreeEntries&>(entries_[number]); }
  std::uint32_t take_entry();
  void give_back(std::uint32_t number);
  // What a new connection has to keep to.
  struct Bounds {
    std::uint32_t quota = kNoQuota;
    bool shares = true;  // of other endpoints are left to them
  };
  Inserted insert_entries(const Connection& fresh, std::uint64_t hash, Bounds bounds, const AddressPair* addresses);

  std::uint32_t capacity_;
  std::uint32_t buckets_count_;
  Bucket* buckets_ = nullptr;
  Connection* entries_ = nullptr;
  Head* head_ = nullptr;
  __m128i secret_[3];
  Arena arena_;
  std::uint32_t hand_ = 0;
  std::uint32_t free_ = kNone;  // the first FreeEntries
  std::uint32_t free_entries_;  // not in use, of all
  std::unique_ptr<Holding[]> holdings_;  // by EndpointId
  std::unique_ptr<Links[]> links_;       // by entry
  EndpointSet unconfirmed_holders_, over_holders_;
  std::uint32_t most_unconfirmed_, most_over_;  // of one endpoint; of all
  std::uint32_t over_count_ = 0;                // of all generations
  Shares shares_{capacity_};                    // of entries
  std::atomic<std::uint32_t> share_shown_{0};   // written by the worker, read by control
  std::uint32_t next_holder_ = 0, large_holder_ = 0;  // where holder_of_many_unconfirmed() goes on, and whom it found last
  FlowRecorder* recorder_ = nullptr;
  Counter inserted_, erased_, recycled_;  // written by the worker, read by control
};

template <class Visit>
bool ConnectionTable::sweep(std::uint32_t count, Tick now, const View& view, Visit&& visit) {
  // The dead of a few entries are erased together, so that the loads of their buckets are under way together.
  constexpr std::uint32_t kTogether = 16;
  while (count != 0) {
    Connection* dead[kTogether];
    std::uint32_t deaths = 0;
    const std::uint32_t end = std::min(hand_ + std::min(count, kTogether), head_->high_water);
    count -= std::min(count, kTogether);
    for (; hand_ < end; ++hand_) {
      __builtin_prefetch(&entries_[hand_ + kTogether]);  // for the next time, if this was all
      Connection& connection = entries_[hand_];
      if (connection.state <= ConnectionState::addresses) continue;
      const Endpoint* endpoint = view.endpoint(connection.key.endpoint());
      if (endpoint == nullptr || (endpoint->generation & FlowKey::kGenerationMask) != connection.key.generation() ||
          expired(connection, endpoint->timeouts, now)) {
        prefetch(hash(connection.key));
        dead[deaths++] = &connection;
      } else {
        visit(connection, *endpoint);
      }
    }
    for (std::uint32_t i = 0; i < deaths; ++i) erase(dead[i]);
    if (hand_ >= head_->high_water) {
      hand_ = 0;
      return true;
    }
  }
  return false;
}

template <class Visit>
bool ConnectionTable::walk(std::uint32_t& at, std::uint32_t count, Visit&& visit) {
  for (; count != 0 && at < head_->high_water; --count, ++at) {
    if (entries_[at].state > ConnectionState::addresses) visit(entries_[at]);
  }
  return at >= head_->high_water;
}

}  // namespace trunkline
