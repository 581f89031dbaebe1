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

FragmentTable::FragmentTable(std::size_t max_endpoints)
    : datagrams_(new FragmentedDatagram[kCapacity]),
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

void FragmentTable::adopt(const FragmentedDatagram& other, const DatagramKey& key, std::uint64_t hash, std::span<rte_mbuf* const> held) {
  FragmentedDatagram* datagram = add(key, hash, other.began, [](FragmentedDatagram&) {});
  if (datagram == nullptr) return;
  const auto next_in_bucket = datagram->next_in_bucket, older = datagram->older, newer = datagram->newer;
  *datagram = other;
  datagram->key = key;
  datagram->next_in_bucket = next_in_bucket, datagram->older = older, datagram->newer = newer;
  datagram->held_count = static_cast<std::uint8_t>(std::min<std::size_t>(other.held_count, held.size()));
  std::copy_n(held.begin(), datagram->held_count, datagram->held);
}

void FragmentTable::erase(FragmentedDatagram& datagram) {
  const std::uint16_t at = number(datagram);
  std::uint16_t* link = &buckets_[hashes_[at] % kBuckets];
  while (*link != at) link = &datagrams_[*link].next_in_bucket;
  *link = datagram.next_in_bucket;
  Owned& owned = owned_[datagram.key.flow.endpoint().value];
  (datagram.older != kNone ? datagrams_[datagram.older].newer : owned.oldest) = datagram.newer;
  (datagram.newer != kNone ? datagrams_[datagram.newer].older : owned.newest) = datagram.older;
  --owned.count;
  used_[at] = false;
  datagram.next_in_bucket = free_;
  free_ = at;
  --size_;
}

}  // namespace trunkline
