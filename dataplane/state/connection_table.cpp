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

// However small the table: so many unconfirmed connections an endpoint may have, and so many may be over.
constexpr std::uint32_t kLeastShare = 64;
// Places of a list.
constexpr std::uint32_t kEntryAhead = 16, kBucketAhead = 6;
// Of those that have unconfirmed connections, so many endpoints are looked at for one that has many.
constexpr std::uint32_t kHoldersLookedAt = 8;

constexpr std::uint64_t mix(std::uint64_t hash, std::uint64_t value) { return (hash ^ value) * 0x100000001b3ULL; }

Arena make_arena(std::uint32_t capacity, const std::string& path) {
  auto arena = Arena::create(ConnectionTable::arena_bytes(capacity), ConnectionTable::layout(), path);
  if (!arena) throw std::runtime_error(arena.error());
  return std::move(*arena);
}

}  // namespace

// FNV over what another build could have elsewhere. A change of meaning without a change of place changes the number.
std::uint64_t ConnectionTable::layout() {
  constexpr std::uint64_t kMeaning = 5;
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
    const Holding& holding = holdings_[entry.key.endpoint().value];
    if (holding.connections == 0 || is_newer(entry.key.generation(), holding.generation)) {
      begin_generation(entry.key.endpoint().value, entry.key.generation());
    }
    const Standing standing = standing_of(entry.state);
    over_count_ += standing == Standing::over;
    if (Holding* const ours = holding_of(entry.key); ours != nullptr) enlist(*ours, entry, standing);
  }
}

// What both constructors do once there is a Head: the places in the arena, and what is kept beside it.
void ConnectionTable::bind() {
  std::byte* at = arena_.contents() + sizeof(Head);
  buckets_ = reinterpret_cast<Bucket*>(at);
  entries_ = reinterpret_cast<Connection*>(at + std::size_t{buckets_count_} * sizeof(Bucket));
  for (int i = 0; i < 3; ++i) secret_[i] = _mm_loadu_si128(reinterpret_cast<const __m128i*>(&head_->secret[2 * i]));
  free_entries_ = capacity_;
  holdings_ = std::make_unique<Holding[]>(FlowKey::kMaxEndpoints);
  links_ = std::make_unique_for_overwrite<Links[]>(capacity_);
  most_unconfirmed_ = std::max(capacity_ / 4, kLeastShare);
  most_over_ = std::max(capacity_ / 8, kLeastShare);
}

std::size_t ConnectionTable::memory_bytes() const {
  return arena_.memory_bytes() + capacity_ * sizeof(Links) + FlowKey::kMaxEndpoints * sizeof(Holding);
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

ConnectionTable::Inserted ConnectionTable::insert_entries(const Connection& fresh, std::uint64_t hash, Bounds bounds,
                                                          const AddressPair* addresses) {
  const FlowKey& key = fresh.key;
  Holding& holding = holdings_[key.endpoint().value];
  if (holding.generation != key.generation()) [[unlikely]] begin_generation(key.endpoint().value, key.generation());
  if (holding.connections >= bounds.quota) [[unlikely]] {
    if (!recycle_oldest_unconfirmed(holding)) return {nullptr, Refusal::quota};
  } else if (holding.unconfirmed_count >= most_unconfirmed_ && is_unconfirmed(fresh.state)) {
    recycle_oldest_unconfirmed(holding);
  }
  const std::uint32_t wanted = addresses != nullptr ? 2 : 1;
  if (!shares_.may_lend(wanted) && bounds.shares && !may_borrow(holding, wanted)) [[unlikely]]
    return {nullptr, Refusal::share};
  while (free_entries_ < wanted) {
    if (!make_free_entry()) return {nullptr, Refusal::full};
  }
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
  const Standing standing = standing_of(fresh.state);
  enlist(holding, *connection, standing);
  if (standing == Standing::over) [[unlikely]] {
    ++over_count_;
    limit_over(holding, *connection);
  }
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
      const Standing standing = standing_of(connection->state);
      over_count_ -= standing == Standing::over;
      if (Holding* const holding = holding_of(connection->key); holding != nullptr) delist(*holding, *connection, standing);
      if (connection->key.is_ipv6()) give_back(connection->link);
      give_back(number);
      erased_.add(1);
      return;
    }
    if (home != first) return;
  }
}

bool ConnectionTable::adopt(const Connection& connection, const AddressPair& addresses, Tick now) {
  Connection arrival = connection;
  arrival.set_no_later_than(now);
  FlowKey& key = arrival.key;
  if (key.is_ipv6()) set_digest(key, addresses);
  // Of a task that has gone: nobody will ask for it.
  const Holding& holding = holdings_[key.endpoint().value];
  if (holding.connections != 0 && is_newer(holding.generation, key.generation())) return false;
  const std::uint64_t key_hash = hash(key);
  if ((key.is_ipv6() ? find(key, key_hash, addresses) : find(key, key_hash)) != nullptr) return false;
  // It was there already, so it keeps its place, wherever its endpoint is served now.
  return insert_entries(arrival, key_hash, {.shares = false}, key.is_ipv6() ? &addresses : nullptr).connection !=
         nullptr;
}

void ConnectionTable::restart(Connection& connection, const Connection& fresh) {
  log_end_of(connection);
  // It is the newest of its list from now on, even where its standing is as it was.
  const Standing before = standing_of(connection.state), now = standing_of(fresh.state);
  Holding* const holding = holding_of(connection.key);
  if (holding != nullptr) delist(*holding, connection, before);
  over_count_ -= before == Standing::over;
  over_count_ += now == Standing::over;
  const std::uint32_t link = connection.link;
  connection = fresh;
  connection.link = link;
  if (holding != nullptr) enlist(*holding, connection, now);
}

// --- what makes room -------------------------------------------------------------------------------------------------

// What the generation before has left is in no list from now on; the sweep frees it.
void ConnectionTable::begin_generation(std::uint32_t id, std::uint16_t generation) {
  shares_.changed(holdings_[id].entries, 0);
  holdings_[id] = {};
  holdings_[id].generation = generation;
  unconfirmed_holders_.set(id, false);
  over_holders_.set(id, false);
}

void ConnectionTable::append(List& list, std::uint32_t number) {
  links_[number] = {list.newest, kNone};
  (list.empty() ? list.oldest : links_[list.newest].newer) = number;
  list.newest = number;
}

void ConnectionTable::remove(List& list, std::uint32_t number) {
  const Links links = links_[number];
  (links.older == kNone ? list.oldest : links_[links.older].newer) = links.newer;
  (links.newer == kNone ? list.newest : links_[links.newer].older) = links.older;
}

void ConnectionTable::enlist(Holding& holding, const Connection& connection, Standing standing) {
  const auto number = static_cast<std::uint32_t>(&connection - entries_);
  const std::uint32_t id = connection.key.endpoint().value;
  if (standing != Standing::over) {
    ++holding.connections;
    add_entries(holding, entries_of(connection.key));
  }
  if (standing == Standing::unconfirmed) {
    append(holding.unconfirmed, number);
    if (holding.unconfirmed_count++ == 0) unconfirmed_holders_.set(id, true);
  } else if (standing == Standing::over) {
    append(holding.over, number);
    over_holders_.set(id, true);
  }
}

void ConnectionTable::delist(Holding& holding, const Connection& connection, Standing standing) {
  const auto number = static_cast<std::uint32_t>(&connection - entries_);
  const std::uint32_t id = connection.key.endpoint().value;
  if (standing != Standing::over) {
    --holding.connections;
    add_entries(holding, -entries_of(connection.key));
  }
  if (standing == Standing::unconfirmed) {
    remove(holding.unconfirmed, number);
    if (--holding.unconfirmed_count == 0) unconfirmed_holders_.set(id, false);
  } else if (standing == Standing::over) {
    remove(holding.over, number);
    if (holding.over.empty()) over_holders_.set(id, false);
  }
}

void ConnectionTable::changed_standing(Connection& connection, Standing before) {
  const Standing now = standing_of(connection.state);
  if (now == before) return;
  over_count_ += now == Standing::over;
  over_count_ -= before == Standing::over;
  Holding* const holding = holding_of(connection.key);
  if (holding == nullptr) return;
  delist(*holding, connection, before);
  enlist(*holding, connection, now);
  if (now == Standing::over) limit_over(*holding, connection);
}

void ConnectionTable::limit_over(const Holding& holding, const Connection& newest) {
  if (over_count_ > most_over_ && &entries_[holding.over.oldest] != &newest) recycle(holding.over.oldest);
}

void ConnectionTable::recycle(std::uint32_t number) {
  // What is in turn soon was used last long ago: its entry is asked for some places ahead, and, when that is here, its bucket.
  std::uint32_t ahead = number;
  for (std::uint32_t i = 1; i <= kEntryAhead && ahead != kNone; ++i) {
    ahead = links_[ahead].newer;
    if (i == kBucketAhead && ahead != kNone) __builtin_prefetch(&buckets_[first_bucket(hash(entries_[ahead].key))], 1);
  }
  if (ahead != kNone) __builtin_prefetch(&entries_[ahead], 1);
  erase(&entries_[number]);
  recycled_.add(1);
}

bool ConnectionTable::recycle_oldest_unconfirmed(const Holding& holding) {
  if (holding.unconfirmed.empty()) return false;
  recycle(holding.unconfirmed.oldest);
  return true;
}

// The one of a few endpoints, and of the one that was found last, that has most. kNone: nothing is unconfirmed.
std::uint32_t ConnectionTable::holder_of_many_unconfirmed() {
  std::uint32_t best = unconfirmed_holders_.next(next_holder_);
  if (best == kNone) return kNone;
  if (unconfirmed_holders_.has(large_holder_)) best = large_holder_;
  for (std::uint32_t i = 0; i < kHoldersLookedAt; ++i) {
    const std::uint32_t id = unconfirmed_holders_.next(next_holder_);
    next_holder_ = (id + 1) % FlowKey::kMaxEndpoints;
    if (holdings_[id].unconfirmed_count > holdings_[best].unconfirmed_count) best = id;
  }
  return large_holder_ = best;
}

// Of a full table. An IPv6 connection gives back two. False: everything is confirmed.
bool ConnectionTable::make_free_entry() {
  if (const std::uint32_t id = over_holders_.next(next_holder_); id != kNone) {
    recycle(holdings_[id].over.oldest);
    return true;
  }
  const std::uint32_t id = holder_of_many_unconfirmed();
  return id != kNone && recycle_oldest_unconfirmed(holdings_[id]);
}

void ConnectionTable::set_shares(std::uint32_t endpoints) {
  shares_.set(endpoints, FlowKey::kMaxEndpoints, [&](std::uint32_t id) { return holdings_[id].entries; });
  share_shown_.store(endpoints == 0 ? 0 : shares_.share(), std::memory_order_relaxed);
}

// Whether a holding may have so many entries more where all that may be borrowed is: within its share, or in the place
// of an unconfirmed connection of an endpoint that is beyond its own.
bool ConnectionTable::may_borrow(const Holding& holding, std::uint32_t entries) {
  while (!shares_.may_take(holding.entries, entries)) {
    std::uint32_t id = holder_of_many_unconfirmed();
    if (id == kNone || !shares_.is_beyond(holdings_[id].entries)) {
      if (holding.unconfirmed.empty()) return false;
      recycle(holding.unconfirmed.oldest);
    } else {
      recycle(holdings_[id].unconfirmed.oldest);
    }
  }
  return true;
}

bool ConnectionTable::sweep(std::uint32_t count, Tick now, const View& view) {
  return sweep(count, now, view, [](Connection&, const Endpoint&) {});
}

std::uint32_t ConnectionTable::size_of(const Endpoint& endpoint) const {
  const Holding& holding = holdings_[endpoint.id.value & (FlowKey::kMaxEndpoints - 1)];
  return holding.generation == (endpoint.generation & FlowKey::kGenerationMask) ? holding.connections : 0;
}

}  // namespace trunkline
