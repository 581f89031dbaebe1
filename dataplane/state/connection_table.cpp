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

constexpr std::uint64_t mix(std::uint64_t hash, std::uint64_t value) { return (hash ^ value) * 0x100000001b3ULL; }

Arena make_arena(std::uint32_t capacity, const std::string& path) {
  auto arena = Arena::create(ConnectionTable::arena_bytes(capacity), ConnectionTable::layout(), path);
  if (!arena) throw std::runtime_error(arena.error());
  return std::move(*arena);
}

}  // namespace

// FNV over what another build could have elsewhere. A change of meaning without a change of place changes the number.
std::uint64_t ConnectionTable::layout() {
  constexpr std::uint64_t kMeaning = 3;
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
  head_->free = kNone;
  bind();
}

ConnectionTable::ConnectionTable(std::uint32_t capacity, Arena arena, TakenOver)
    : capacity_(capacity), buckets_count_(bucket_count(capacity)), arena_(std::move(arena)) {
  head_ = reinterpret_cast<Head*>(arena_.contents());
  bind();
  for (std::uint32_t i = 0; i < head_->high_water; ++i) {
    const Connection& entry = entries_[i];
    if (entry.state == ConnectionState::free) continue;
    --free_entries_;
    if (entry.state == ConnectionState::addresses) continue;
    inserted_.add(1);
    EndpointCount& count = by_endpoint_[entry.key.endpoint().value];
    if (count.generation != entry.key.generation()) count = {0, entry.key.generation()};
    ++count.connections;
    if (is_unanswered(entry)) remember_unanswered(entry);
    if (is_over(entry)) remember_over(entry);
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
  const std::uint32_t number = head_->free;
  if (number == kNone) return head_->high_water++;
  head_->free = entries_[number].link;
  if (head_->free != kNone) __builtin_prefetch(&entries_[head_->free], 1);  // for the next one
  return number;
}

void ConnectionTable::give_back(std::uint32_t number) {
  ++free_entries_;
  entries_[number].state = ConnectionState::free;
  entries_[number].link = head_->free;
  head_->free = number;
}

ConnectionTable::Inserted ConnectionTable::insert(const FlowKey& key, std::uint64_t hash, Tick now, std::uint32_t quota) {
  return insert_entries(key, hash, now, quota, nullptr);
}

ConnectionTable::Inserted ConnectionTable::insert(const FlowKey& ipv6_key, std::uint64_t hash, const AddressPair& addresses, Tick now,
                                                  std::uint32_t quota) {
  return insert_entries(ipv6_key, hash, now, quota, &addresses);
}

ConnectionTable::Inserted ConnectionTable::insert_entries(const FlowKey& key, std::uint64_t hash, Tick now, std::uint32_t quota,
                                                          const AddressPair* addresses) {
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
  Connection* connection = new (&entries_[number]) Connection{};
  connection->key = key;
  connection->last_seen = now;
  connection->state = ConnectionState::other;
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
  FlowKey key = connection.key;
  if (key.is_ipv6()) set_digest(key, addresses);
  const std::uint64_t key_hash = hash(key);
  if ((key.is_ipv6() ? find(key, key_hash, addresses) : find(key, key_hash)) != nullptr) return false;
  Connection* here = insert_entries(key, key_hash, connection.last_seen, kNone, key.is_ipv6() ? &addresses : nullptr).connection;
  if (here == nullptr) return false;
  const std::uint32_t link = here->link;
  *here = connection;
  here->key = key;
  here->link = link;
  if (is_over(*here)) remember_over(*here);
  return true;
}

void ConnectionTable::restart(Connection& connection) {
  log_end_of(connection);
  if (is_over(connection)) ++count_of(connection);
  const FlowKey key = connection.key;
  const std::uint32_t link = connection.link;
  connection = Connection{};
  connection.key = key;
  connection.link = link;
  connection.state = ConnectionState::other;
}

void ConnectionTable::remember(Ring& ring, const Connection& connection, bool (*still)(const Connection&)) {
  if (ring.count == ring_capacity_) {
    const Remembered& oldest = ring.places[ring.first];
    Connection& entry = entries_[oldest.entry];
    // No longer of the kind, or gone: then it takes no room of this kind.
    if (&entry != &connection && still(entry) && static_cast<std::uint32_t>(hash(entry.key)) == oldest.check) {
      erase(&entry);
      recycled_.add(1);
    }
    if (++ring.first == ring_capacity_) ring.first = 0;
    --ring.count;
    __builtin_prefetch(&entries_[ring.places[ring.first].entry]);
  }
  std::uint32_t at = ring.first + ring.count++;
  if (at >= ring_capacity_) at -= ring_capacity_;
  ring.places[at] = {static_cast<std::uint32_t>(&connection - entries_), static_cast<std::uint32_t>(hash(connection.key))};
}

bool ConnectionTable::sweep(std::uint32_t count, Tick now, const View& view) {
  return sweep(count, now, view, [](Connection&, const Endpoint&) {});
}

std::uint32_t ConnectionTable::size_of(const Endpoint& endpoint) const {
  const EndpointCount& count = by_endpoint_[endpoint.id.value & (FlowKey::kMaxEndpoints - 1)];
  return count.generation == (endpoint.generation & FlowKey::kGenerationMask) ? count.connections : 0;
}

}  // namespace trunkline
