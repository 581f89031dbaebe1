// SPDX-License-Identifier: BSD-3-Clause
#include "dataplane/state/connection_table.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <new>
#include <stdexcept>

namespace trunkline {
namespace {

// Splitmix64: spreads one secret over the words of the keys.
std::uint64_t next_word(std::uint64_t& state) {
  std::uint64_t z = (state += 0x9e3779b97f4a7c15ULL);
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
  return z ^ (z >> 31);
}

// Places of a ring, of which the smallest has 64.
constexpr std::uint32_t kEntryAhead = 16, kBucketAhead = 8;

constexpr std::uint64_t mix(std::uint64_t hash, std::uint64_t value) { return (hash ^ value) * 0x100000001b3ULL; }

Arena make_arena(std::uint32_t capacity, const std::string& path) {
  auto arena = Arena::create(ConnectionTable::arena_bytes(capacity), ConnectionTable::layout(), path);
  if (!arena) throw std::runtime_error(arena.error());
  return std::move(*arena);
}

}  // namespace

// FNV over what another build could have elsewhere. A change of meaning without a change of place changes the number.
std::uint64_t ConnectionTable::layout() {
  constexpr std::uint64_t kMeaning = 4;
  std::uint64_t hash = 0xcbf29ce484222325ULL;
  for (const std::uint64_t value :
       {kMeaning, std::uint64_t{sizeof(Connection)}, std::uint64_t{offsetof(Connection, last_seen)}, std::uint64_t{offsetof(Connection, state)},
        std::uint64_t{offsetof(Connection, link)}, std::uint64_t{offsetof(Connection, totals)}, std::uint64_t{sizeof(Connection::Totals)},
        std::uint64_t{offsetof(ConnectionAddresses, addresses)}, std::uint64_t{offsetof(FlowKey, owner)}, std::uint64_t{FlowKey::kEndpointBits},
        std::uint64_t{FlowKey::kGenerationBits}, std::uint64_t{sizeof(Bucket)}, std::uint64_t{kWays}, std::uint64_t{sizeof(Head)},
        std::uint64_t{kConnectionStates}, std::uint64_t{kTicksPerSecond}}) {
    hash = mix(hash, value);
  }
  return hash;
}

std::size_t ConnectionTable::arena_bytes(std::uint32_t capacity) {
  return sizeof(Head) + std::size_t{bucket_count(capacity)} * sizeof(Bucket) + std::size_t{capacity} * sizeof(Connection);
}

ConnectionTable::ConnectionTable(std::uint32_t capacity, std::uint64_t seed, const std::string& path)
    : capacity_(capacity), buckets_count_(bucket_count(capacity)), arena_(make_arena(capacity, path)) {
  head_ = new (arena_.contents()) Head{};
  for (std::uint64_t& word : head_->secret) word = next_word(seed);
  bind();
}

ConnectionTable::ConnectionTable(std::uint32_t capacity, Arena arena, TakenOver)
    : capacity_(capacity), buckets_count_(bucket_count(capacity)), arena_(std::move(arena)) {
  head_ = reinterpret_cast<Head*>(arena_.contents());
  bind();
  for (std::uint32_t i = 0; i < head_->high_water; ++i) {
    const Connection& entry = entries_[i];
    --free_entries_;
    if (entry.state == ConnectionState::free) give_back(i);
    if (entry.state <= ConnectionState::addresses) continue;
    inserted_.add(1);
    EndpointCount& count = by_endpoint_[entry.key.endpoint().value];
    if (count.connections == 0 || is_newer(entry.key.generation(), count.generation)) count = {0, entry.key.generation()};
    if (count.generation == entry.key.generation()) ++count.connections;
  }
  // Behind the others, because who is remembered may make room at once.
  for (std::uint32_t i = 0; i < head_->high_water; ++i) {
    const Connection& entry = entries_[i];
    if (is_unanswered(entry)) remember_unanswered(entry, hash(entry.key));
    if (is_over(entry)) remember_over(entry, hash(entry.key));
  }
}

// What both constructors do once there is a Head: the places in the arena, and what is kept beside it.
void ConnectionTable::bind() {
  std::byte* at = arena_.contents() + sizeof(Head);
  buckets_ = reinterpret_cast<Bucket*>(at);
  entries_ = reinterpret_cast<Connection*>(at + std::size_t{buckets_count_} * sizeof(Bucket));
  for (int i = 0; i < 3; ++i) secret_[i] = _mm_loadu_si128(reinterpret_cast<const __m128i*>(&head_->secret[2 * i]));
  free_entries_ = capacity_;
  by_endpoint_ = std::make_unique<EndpointCount[]>(FlowKey::kMaxEndpoints);
  ring_capacity_ = std::max(capacity_ / 8, 64U);
  unanswered_.places = std::make_unique<Remembered[]>(ring_capacity_);
  over_.places = std::make_unique<Remembered[]>(ring_capacity_);
}

std::size_t ConnectionTable::memory_bytes() const {
  return arena_.memory_bytes() + 2 * ring_capacity_ * sizeof(Remembered) + FlowKey::kMaxEndpoints * sizeof(EndpointCount);
}

void ConnectionTable::set_digest(FlowKey& key, const AddressPair& addresses) const {
  const auto block = [](const IpAddress& address) { return _mm_loadu_si128(reinterpret_cast<const __m128i*>(address.bytes.data())); };
  __m128i state = _mm_xor_si128(secret_[2], block(addresses.remote));
  state = _mm_xor_si128(_mm_aesenc_si128(state, secret_[1]), block(addresses.local));
  state = _mm_aesenc_si128(_mm_aesenc_si128(state, secret_[0]), secret_[2]);
  const auto digest = static_cast<std::uint64_t>(_mm_cvtsi128_si64(state));
  key.remote = static_cast<std::uint32_t>(digest);
  key.local = static_cast<std::uint32_t>(digest >> 32);
}

template <class Same>
Connection* ConnectionTable::find_if(std::uint64_t hash, Same&& same) const {
  const std::uint16_t tag = tag_of(hash);
  const Bucket* bucket = &buckets_[first_bucket(hash)];
  for (bool last = bucket->spilled == 0;; last = true) {
    for (unsigned mask = matches(*bucket, tag); mask != 0; mask &= mask - 1, mask &= mask - 1) {
      Connection& entry = entries_[bucket->entry[static_cast<unsigned>(std::countr_zero(mask)) / 2]];
      if (same(entry)) return &entry;
    }
    if (last) return nullptr;
    bucket = &buckets_[other_bucket(hash)];
  }
}

Connection* ConnectionTable::find(const FlowKey& key, std::uint64_t hash) const {
  return find_if(hash, [&](const Connection& entry) { return entry.key == key; });
}

Connection* ConnectionTable::find(const FlowKey& ipv6_key, std::uint64_t hash, const AddressPair& addresses) const {
  return find_if(hash, [&](const Connection& entry) { return entry.key == ipv6_key && addresses_of(entry) == addresses; });
}

// Sends one of a full bucket's keys to its other bucket. Rare: only when both buckets of a new key are full.
bool ConnectionTable::make_room(std::uint32_t number) {
  Bucket& full = buckets_[number];
  for (unsigned way = 0; way < kWays; ++way) {
    const std::uint64_t key_hash = hash(entries_[full.entry[way]].key);
    const bool is_first = first_bucket(key_hash) == number;
    Bucket& elsewhere = buckets_[is_first ? other_bucket(key_hash) : first_bucket(key_hash)];
    const unsigned empty = matches(elsewhere, 0);
    if (empty == 0) continue;
    const unsigned at = static_cast<unsigned>(std::countr_zero(empty)) / 2;
    elsewhere.tag[at] = full.tag[way];
    elsewhere.entry[at] = full.entry[way];
    full.tag[way] = 0;
    is_first ? ++full.spilled : --elsewhere.spilled;
    return true;
  }
  return false;
}

std::uint32_t ConnectionTable::take_entry() {
  --free_entries_;
  const std::uint32_t first = free_;
  if (first == kNone) return head_->high_water++;
  FreeEntries& list = free_entries_at(first);
  if (list.count != 0) return list.number[--list.count];
  free_ = list.next;
  if (free_ != kNone) {
    const FreeEntries& next = free_entries_at(free_);
    for (std::uint32_t i = 0; i < next.count; ++i) __builtin_prefetch(&entries_[next.number[i]], 1);
    if (next.next != kNone) __builtin_prefetch(&entries_[next.next], 1);
  }
  return first;
}

void ConnectionTable::give_back(std::uint32_t number) {
  ++free_entries_;
  if (free_ != kNone && free_entries_at(free_).count < FreeEntries::kNumbers) {
    FreeEntries& list = free_entries_at(free_);
    list.number[list.count++] = number;
    entries_[number].state = ConnectionState::free;
  } else {
    new (&entries_[number]) FreeEntries{.next = free_};
    free_ = number;
  }
}

ConnectionTable::Inserted ConnectionTable::insert_entries(const Connection& fresh, std::uint64_t hash, std::uint32_t quota,
                                                          const AddressPair* addresses) {
  const FlowKey& key = fresh.key;
  EndpointCount& count = by_endpoint_[key.endpoint().value];
  if (count.generation != key.generation()) count = {0, key.generation()};
  if (count.connections >= quota) return {nullptr, Refusal::quota};
  if (free_entries_ < (addresses != nullptr ? 2U : 1U)) return {nullptr, Refusal::full};
  const std::uint32_t first = first_bucket(hash);
  std::uint32_t home = first;
  unsigned empty = matches(buckets_[home], 0);
  if (empty == 0) {
    home = other_bucket(hash);
    empty = matches(buckets_[home], 0);
    if (empty == 0) {
      if (make_room(first)) {
        home = first;
      } else if (!make_room(home)) {
        return {nullptr, Refusal::full};
      }
      empty = matches(buckets_[home], 0);
    }
  }
  if (home != first) ++buckets_[first].spilled;
  const std::uint32_t number = take_entry();
  const unsigned way = static_cast<unsigned>(std::countr_zero(empty)) / 2;
  buckets_[home].tag[way] = tag_of(hash);
  buckets_[home].entry[way] = number;
  Connection* connection = new (&entries_[number]) Connection{fresh};
  if (addresses != nullptr) {
    const std::uint32_t second = take_entry();
    (new (&entries_[second]) ConnectionAddresses{})->addresses = *addresses;
    connection->link = second;
  }
  ++count.connections;
  inserted_.add(1);
  return {connection, Refusal::none};
}

bool ConnectionTable::end_interval(std::uint32_t& at, std::uint32_t count, FlowRecorder& recorder) {
  for (; count != 0 && at < head_->high_water; --count, ++at) {
    Connection& connection = entries_[at];
    if (connection.state <= ConnectionState::addresses) continue;
    if (!recorder.interval_ended(connection, connection.key.is_ipv6() ? &addresses_of(connection) : nullptr)) return false;
  }
  return true;
}

void ConnectionTable::erase(Connection* connection) {
  log_end_of(*connection);
  const std::uint64_t key_hash = hash(connection->key);
  const std::uint16_t tag = tag_of(key_hash);
  const auto number = static_cast<std::uint32_t>(connection - entries_);
  const std::uint32_t first = first_bucket(key_hash);
  for (std::uint32_t home = first;; home = other_bucket(key_hash)) {
    Bucket& bucket = buckets_[home];
    for (unsigned mask = matches(bucket, tag); mask != 0; mask &= mask - 1, mask &= mask - 1) {
      const unsigned way = static_cast<unsigned>(std::countr_zero(mask)) / 2;
      if (bucket.entry[way] != number) continue;
      bucket.tag[way] = 0;
      if (home != first) --buckets_[first].spilled;
      if (!is_over(*connection)) --count_of(*connection);
      if (connection->key.is_ipv6()) give_back(connection->link);
      give_back(number);
      erased_.add(1);
      return;
    }
    if (home != first) return;
  }
}

bool ConnectionTable::adopt(const Connection& connection, const AddressPair& addresses) {
  Connection arrival = connection;
  FlowKey& key = arrival.key;
  if (key.is_ipv6()) set_digest(key, addresses);
  // Of a task that has gone: nobody will ask for it.
  const EndpointCount& count = by_endpoint_[key.endpoint().value];
  if (count.connections != 0 && is_newer(count.generation, key.generation())) return false;
  const std::uint64_t key_hash = hash(key);
  if ((key.is_ipv6() ? find(key, key_hash, addresses) : find(key, key_hash)) != nullptr) return false;
  Connection* here = insert_entries(arrival, key_hash, kNoQuota, key.is_ipv6() ? &addresses : nullptr).connection;
  if (here == nullptr) return false;
  if (is_unanswered(*here)) remember_unanswered(*here, key_hash);
  if (is_over(*here)) remember_over(*here, key_hash);
  return true;
}

void ConnectionTable::restart(Connection& connection, const Connection& fresh) {
  log_end_of(connection);
  if (is_over(connection)) ++count_of(connection);
  const std::uint32_t link = connection.link;
  connection = fresh;
  connection.link = link;
}

template <bool (*still)(const Connection&)>
void ConnectionTable::remember(Ring& ring, const Connection& connection, std::uint64_t hash) {
  const auto place = [&](std::uint32_t behind_first) -> Remembered& {
    const std::uint32_t at = ring.first + behind_first;
    return ring.places[at < ring_capacity_ ? at : at - ring_capacity_];
  };
  // Not if it is no longer of the kind, or gone: then it takes no room of this kind.
  const auto may_go = [&](const Remembered& remembered) {
    const Connection& entry = entries_[remembered.entry];
    return still(entry) && high_half(this->hash(entry.key)) == remembered.hash_high;
  };
  if (ring.count == ring_capacity_) {
    // What is next in turn was used last long ago. Asked for in time, its entry is here when it comes, and its bucket too if it will go.
    __builtin_prefetch(&entries_[place(kEntryAhead).entry], 1);
    const Remembered& soon = place(kBucketAhead);
    if (may_go(soon)) __builtin_prefetch(&buckets_[bucket_of_high_half(soon.hash_high)], 1);
    const Remembered oldest = place(0);
    if (++ring.first == ring_capacity_) ring.first = 0;
    --ring.count;
    Connection& entry = entries_[oldest.entry];
    if (&entry != &connection && may_go(oldest)) {
      erase(&entry);
      recycled_.add(1);
    }
  }
  place(ring.count++) = {static_cast<std::uint32_t>(&connection - entries_), high_half(hash)};
}

template void ConnectionTable::remember<ConnectionTable::is_unanswered>(Ring&, const Connection&, std::uint64_t);
template void ConnectionTable::remember<ConnectionTable::is_over>(Ring&, const Connection&, std::uint64_t);

bool ConnectionTable::sweep(std::uint32_t count, Tick now, const View& view) {
  return sweep(count, now, view, [](Connection&, const Endpoint&) {});
}

std::uint32_t ConnectionTable::size_of(const Endpoint& endpoint) const {
  const EndpointCount& count = by_endpoint_[endpoint.id.value & (FlowKey::kMaxEndpoints - 1)];
  return count.generation == (endpoint.generation & FlowKey::kGenerationMask) ? count.connections : 0;
}

}  // namespace trunkline
