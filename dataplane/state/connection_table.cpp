// SPDX-License-Identifier: BSD-3-Clause
#include "dataplane/state/connection_table.h"

#include <immintrin.h>
#include <sys/mman.h>

#include <bit>
#include <new>

namespace trunkline {
namespace {

// Splitmix64: spreads one secret over the words of the key schedule.
std::uint64_t next_word(std::uint64_t& state) {
  std::uint64_t z = (state += 0x9e3779b97f4a7c15ULL);
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
  return z ^ (z >> 31);
}

// Address space only: the kernel gives memory, huge pages where it can, when an entry is first used.
void* reserve(std::size_t bytes) {
  void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) throw std::bad_alloc();
  madvise(memory, bytes, MADV_HUGEPAGE);
  return memory;
}

}  // namespace

ConnectionTable::ConnectionTable(std::uint32_t capacity, std::uint64_t seed) : capacity_(capacity) {
  for (std::uint64_t& word : seed_) word = next_word(seed);
  // At most three quarters of the places in use, so that a full bucket finds room for one of its keys elsewhere.
  const std::uint32_t wanted = (capacity / kWays) * 4 / 3 + 2;
  const std::uint32_t buckets = std::bit_ceil(wanted);
  bucket_mask_ = buckets - 1;
  const std::size_t bucket_bytes = std::size_t{buckets} * sizeof(Bucket);
  const std::size_t page = std::size_t{2} << 20;
  bytes_ = (bucket_bytes + std::size_t{capacity} * sizeof(Connection) + page - 1) & ~(page - 1);
  memory_ = reserve(bytes_);
  buckets_ = static_cast<Bucket*>(memory_);
  entries_ = reinterpret_cast<Connection*>(static_cast<std::byte*>(memory_) + bucket_bytes);
}

ConnectionTable::~ConnectionTable() { munmap(memory_, bytes_); }

std::uint64_t ConnectionTable::hash(const FlowKey& key) const {
  const auto* blocks = reinterpret_cast<const __m128i*>(&key);
  const __m128i key0 = _mm_loadu_si128(reinterpret_cast<const __m128i*>(&seed_[0]));
  const __m128i key1 = _mm_loadu_si128(reinterpret_cast<const __m128i*>(&seed_[2]));
  __m128i state = key0;
  for (int i = 0; i < 3; ++i) state = _mm_aesenc_si128(_mm_xor_si128(state, _mm_loadu_si128(blocks + i)), key1);
  state = _mm_aesenc_si128(state, key0);
  state = _mm_aesenc_si128(state, key1);
  return static_cast<std::uint64_t>(_mm_cvtsi128_si64(state));
}

void ConnectionTable::prefetch(std::uint64_t hash) const { __builtin_prefetch(&buckets_[first_bucket(hash)]); }

unsigned ConnectionTable::matches(const Bucket& bucket, std::uint16_t tag) {
  const __m256i tags = _mm256_load_si256(reinterpret_cast<const __m256i*>(&bucket));
  const __m256i equal = _mm256_cmpeq_epi16(tags, _mm256_set1_epi16(static_cast<short>(tag)));
  // Two mask bits a lane; keep one, and only of the lanes that are tags.
  return static_cast<unsigned>(_mm256_movemask_epi8(equal)) & 0x55555U;
}

Connection* ConnectionTable::find_in(const Bucket& bucket, std::uint16_t tag, const FlowKey& key) {
  for (unsigned mask = matches(bucket, tag); mask != 0; mask &= mask - 1) {
    Connection& candidate = entries_[bucket.entry[static_cast<unsigned>(std::countr_zero(mask)) / 2]];
    if (candidate.key == key) return &candidate;
  }
  return nullptr;
}

Connection* ConnectionTable::find(const FlowKey& key, std::uint64_t hash) {
  const std::uint16_t tag = tag_of(hash);
  const std::uint32_t first = first_bucket(hash);
  if (Connection* found = find_in(buckets_[first], tag, key)) return found;
  if (buckets_[first].spilled == 0) return nullptr;
  return find_in(buckets_[other_bucket(first, tag)], tag, key);
}

// Sends one of a full bucket's keys to its other bucket. Rare: only when both buckets of a new key are full.
bool ConnectionTable::make_room(std::uint32_t bucket) {
  for (unsigned way = 0; way < kWays; ++way) {
    const std::uint16_t tag = buckets_[bucket].tag[way];
    const std::uint32_t other = other_bucket(bucket, tag);
    const unsigned empty = matches(buckets_[other], 0);
    if (empty == 0) continue;
    const std::uint32_t number = buckets_[bucket].entry[way];
    const bool was_home = first_bucket(hash(entries_[number].key)) == bucket;
    const unsigned at = static_cast<unsigned>(std::countr_zero(empty)) / 2;
    buckets_[other].tag[at] = tag;
    buckets_[other].entry[at] = number;
    buckets_[bucket].tag[way] = 0;
    was_home ? ++buckets_[bucket].spilled : --buckets_[other].spilled;
    return true;
  }
  return false;
}

Connection* ConnectionTable::insert(const FlowKey& key, std::uint64_t hash, Tick now) {
  const std::uint16_t tag = tag_of(hash);
  const std::uint32_t first = first_bucket(hash);
  if (free_head_ == kNone && high_water_ == capacity_) return nullptr;
  std::uint32_t home = first;
  unsigned empty = matches(buckets_[home], 0);
  if (empty == 0) {
    home = other_bucket(first, tag);
    empty = matches(buckets_[home], 0);
  }
  if (empty == 0) {
    if (make_room(first)) home = first;
    else if (!make_room(home)) return nullptr;
    empty = matches(buckets_[home], 0);
  }
  std::uint32_t number = free_head_;
  if (number != kNone) {
    free_head_ = entries_[number].next_free;
  } else {
    number = high_water_++;
  }
  if (home != first) ++buckets_[first].spilled;
  const unsigned way = static_cast<unsigned>(std::countr_zero(empty)) / 2;
  buckets_[home].tag[way] = tag;
  buckets_[home].entry[way] = number;
  Connection* connection = new (&entries_[number]) Connection{};
  connection->key = key;
  connection->last_seen = now;
  connection->state = ConnectionState::opening;
  used_.add(1);
  return connection;
}

void ConnectionTable::erase(Connection* connection) {
  const std::uint64_t key_hash = hash(connection->key);
  const std::uint16_t tag = tag_of(key_hash);
  const auto number = static_cast<std::uint32_t>(connection - entries_);
  const std::uint32_t first = first_bucket(key_hash);
  for (const std::uint32_t home : {first, other_bucket(first, tag)}) {
    for (unsigned way = 0; way < kWays; ++way) {
      if (buckets_[home].tag[way] != tag || buckets_[home].entry[way] != number) continue;
      buckets_[home].tag[way] = 0;
      if (home != first) --buckets_[first].spilled;
      connection->state = ConnectionState::free;
      connection->next_free = free_head_;
      free_head_ = number;
      freed_.add(1);
      return;
    }
  }
}

Tick ConnectionTable::timeout(const Connection& connection, const Timeouts& timeouts) {
  switch (connection.key.protocol) {
    case 6:
      switch (connection.state) {
        case ConnectionState::opening: return timeouts.tcp_handshake;
        case ConnectionState::closing:
        case ConnectionState::closed: return timeouts.tcp_closing;
        case ConnectionState::reset: return timeouts.tcp_closed;
        default: return timeouts.tcp_established;
      }
    case 17: return connection.state == ConnectionState::stream ? timeouts.udp_stream : timeouts.udp;
    case 1:
    case 58: return timeouts.icmp;
    default: return timeouts.other;
  }
}

void ConnectionTable::sweep(std::uint32_t count, Tick now, const View& view) {
  for (; count != 0 && high_water_ != 0; --count) {
    if (hand_ >= high_water_) {
      hand_ = 0;
      return;  // one round at most in one call
    }
    Connection& connection = entries_[hand_++];
    if (connection.state == ConnectionState::free) continue;
    const Endpoint* endpoint = view.endpoint(EndpointId{connection.key.endpoint});
    if (endpoint == nullptr || endpoint->generation != connection.key.generation ||
        expired(connection, endpoint->timeouts, now)) {
      erase(&connection);
    }
  }
}

}  // namespace trunkline
