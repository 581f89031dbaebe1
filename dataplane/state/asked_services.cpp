// SPDX-License-Identifier: BSD-3-Clause
#include "dataplane/state/asked_services.h"

#include <sys/mman.h>

#include <new>

namespace trunkline {

// Pages that the kernel fills with zeroes when they are first used: a set of zeroes is free.
AskedServices::AskedServices(std::size_t max_endpoints) : bytes_(max_endpoints * kSets * sizeof(Set)) {
  void* pages = mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (pages == MAP_FAILED) throw std::bad_alloc();
  sets_ = static_cast<Set*>(pages);
  static_assert(static_cast<int>(State::free) == 0);
}

AskedServices::~AskedServices() { munmap(sets_, bytes_); }

std::uint32_t AskedServices::live(const FlowKey& key, std::uint64_t hash, Tick now) const {
  const Set& set = set_of(key, hash);
  for (std::uint32_t way = 0; way < kWays; ++way) {
    if (set.key[way] == key && !is_over(set, way, now)) return way;
  }
  return kNone;
}

std::uint32_t AskedServices::place_for(const Set& set, Tick now) {
  std::uint32_t place = 0, value = 0;
  for (std::uint32_t way = 0; way < kWays; ++way) {
    if (is_over(set, way, now)) return way;
    // The age first counts among those of a kind; a datagram that has its answer is worth less than any that waits.
    const bool done = set.state[way] == State::answered && !is_tcp(set.key[way]);
    const std::uint32_t worthless = (done ? kTcpIdle : 0) + (now - set.asked_at[way]) + 1;
    if (worthless > value) place = way, value = worthless;
  }
  return place;
}

void AskedServices::ask(const FlowKey& key, std::uint64_t hash, Packet packet, Tick now) {
  Set& set = set_of(key, hash);
  std::uint32_t way = live(key, hash, now);
  if (way == kNone) {
    way = place_for(set, now);
    set.key[way] = key;
    set.state[way] = State::asked;
  }
  set.asked_at[way] = now;
  if (packet == Packet::opens) set.state[way] = State::asked;
  if (packet == Packet::finishes) set.state[way] = State::finished;
}

bool AskedServices::answer(const FlowKey& key, std::uint64_t hash, Tick now) {
  const std::uint32_t way = live(key, hash, now);
  if (way == kNone) return false;
  State& state = set_of(key, hash).state[way];
  if (state == State::asked) state = State::answered;
  return true;
}

bool AskedServices::forget(const FlowKey& key, std::uint64_t hash, Tick now) {
  const std::uint32_t way = live(key, hash, now);
  if (way != kNone) set_of(key, hash).state[way] = State::free;
  return way != kNone;
}

}  // namespace trunkline
