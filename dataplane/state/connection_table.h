// SPDX-License-Identifier: BSD-3-Clause
//
// The connections of one worker: one connection, one entry, one owner, one expiry rule.
//
// The key is relative to the ENI: both directions of a flow make the same key, because after demux it is known which
// end is the task's. A connection between two tasks of one host is two entries, one per ENI, each with its own verdict.
// The endpoint's generation is in the key, so a detach forgets all its connections at once: what is left of them
// can match nothing and the sweep takes it away.
//
// Layout: buckets of one cache line hold 16-bit tags and entry numbers; entries never move. A key may live in two
// buckets; a bucket counts how many of its keys had to go to their other one, so that a miss usually costs one line. The
// hash is keyed per table with random bits (two AES rounds a block), because the tuples are chosen by strangers.
//
// Expiry: a packet stores the time in the entry. An entry is dead when it was idle longer than its state allows; find()
// honours that to the tick, sweep() walks the entries with a clock hand and frees the dead.
//
// No locks, no allocation after construction; only the owning worker calls anything but the readers marked so.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <span>

#include "config/net.h"
#include "dataplane/state/clock.h"
#include "dataplane/state/counters.h"
#include "dataplane/state/policy.h"
#include "dataplane/state/view.h"

namespace trunkline {

struct FlowKey {
  IpAddress remote;
  IpAddress local;
  std::uint16_t local_port = 0;
  std::uint16_t remote_port = 0;
  std::uint16_t endpoint = 0;
  std::uint16_t generation = 0;
  std::uint8_t protocol = 0;
  std::uint8_t padding[7]{};

  friend bool operator==(const FlowKey& a, const FlowKey& b) { return std::memcmp(&a, &b, sizeof a) == 0; }
};
static_assert(sizeof(FlowKey) == 48);

// What is known of a conversation. The names follow TCP; the others use the part that fits them.
enum class ConnectionState : std::uint8_t {
  free,           // not in use
  opening,        // TCP: SYN seen, no answer yet. UDP, ICMP, other: one direction only
  established,    // TCP: both have spoken. Others: answered
  stream,         // UDP: more than one request and response
  closing,        // TCP: one side has sent FIN
  closed,         // TCP: both sides have sent FIN (TIME-WAIT), late segments still pass
  reset,          // TCP: RST seen
};

struct alignas(64) Connection {
  FlowKey key;
  Tick last_seen = 0;
  ConnectionState state = ConnectionState::free;
  Direction initiator = Direction::ingress;
  bool untracked = false;       // AWS would not track it: an edit of the rules bites at once
  bool initiator_allowed = true;  // untracked only: what the rules of policy_generation say of each direction
  bool reply_allowed = true;
  std::uint8_t fin_seen = 0;    // bit per Direction
  RuleId rule = kNoRule;        // the rule that let it in
  std::uint32_t policy_generation = 0;
  std::uint8_t exchanges = 0;   // UDP: turns of the conversation, saturating (see track_udp in admit.h)
  std::uint8_t reserved_[3]{};

  struct Totals {
    std::uint64_t packets = 0;
    std::uint64_t bytes = 0;
  } totals[2];  // by Direction; for flow logs

  std::uint32_t next_free = 0;
};
static_assert(sizeof(Connection) == 128);

class ConnectionTable {
 public:
  // `capacity`: connections at most. `seed`: random, secret; tests give a fixed one.
  ConnectionTable(std::uint32_t capacity, std::uint64_t seed);
  ~ConnectionTable();
  ConnectionTable(const ConnectionTable&) = delete;
  ConnectionTable& operator=(const ConnectionTable&) = delete;

  std::uint64_t hash(const FlowKey& key) const;
  // Starts the loads that a find() of this hash will need.
  void prefetch(std::uint64_t hash) const;
  // The connection with this key, dead or alive; nullptr if there is none.
  Connection* find(const FlowKey& key, std::uint64_t hash);
  // A fresh entry for a key that find() did not find; nullptr when the table is full.
  Connection* insert(const FlowKey& key, std::uint64_t hash, Tick now);
  void erase(Connection* connection);

  // Looks at the next `count` entries and frees those that are dead. `view` knows timeouts and generations.
  void sweep(std::uint32_t count, Tick now, const View& view);

  static Tick timeout(const Connection& connection, const Timeouts& timeouts);
  static bool expired(const Connection& connection, const Timeouts& timeouts, Tick now) {
    return now - connection.last_seen >= timeout(connection, timeouts);
  }

  // The control thread may call these.
  std::uint64_t size() const { return used_.read() - freed_.read(); }
  std::uint32_t capacity() const { return capacity_; }
  std::size_t memory_bytes() const { return bytes_; }

  // The worker's own walk over what is in use (tests, explain).
  template <class Visit>
  void for_each(Visit&& visit) const {
    for (std::uint32_t i = 0; i < high_water_; ++i) {
      if (entries_[i].state != ConnectionState::free) visit(entries_[i]);
    }
  }

 private:
  static constexpr unsigned kWays = 10;
  static constexpr std::uint32_t kNone = 0xffffffff;
  struct alignas(64) Bucket {
    std::uint16_t tag[kWays];  // 0: empty
    std::uint16_t spilled;     // keys whose first bucket this is and that live in their other one
    std::uint16_t unused;
    std::uint32_t entry[kWays];
  };
  static_assert(sizeof(Bucket) == 64);

  static std::uint16_t tag_of(std::uint64_t hash) { return static_cast<std::uint16_t>(hash >> 48) | 1; }
  std::uint32_t first_bucket(std::uint64_t hash) const { return static_cast<std::uint32_t>(hash) & bucket_mask_; }
  std::uint32_t other_bucket(std::uint32_t bucket, std::uint16_t tag) const {
    return (bucket ^ (static_cast<std::uint32_t>(tag) * 0x5bd1e995U | 1U)) & bucket_mask_;
  }
  static unsigned matches(const Bucket& bucket, std::uint16_t tag);
  bool make_room(std::uint32_t bucket);
  Connection* find_in(const Bucket& bucket, std::uint16_t tag, const FlowKey& key);

  std::uint32_t capacity_;
  std::uint32_t bucket_mask_;
  std::uint64_t seed_[4];
  std::size_t bytes_ = 0;
  void* memory_ = nullptr;
  Bucket* buckets_ = nullptr;
  Connection* entries_ = nullptr;
  std::uint32_t free_head_ = kNone;   // entries that were used and freed
  std::uint32_t high_water_ = 0;      // entries above were never used: their memory is not touched yet
  std::uint32_t hand_ = 0;
  Counter used_, freed_;
};

}  // namespace trunkline
