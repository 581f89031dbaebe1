// SPDX-License-Identifier: BSD-3-Clause
//
// The worker's half of flow logs: makes FlowRecords (flow_record.h) of what connections counted and of what belongs to no
// connection, and passes them to the control thread.
//
// When an interval has ended control asks for it (Worker::end_flow_interval); the worker then takes the totals off its connections, a
// bounded piece a turn, and says when it is through (Worker::flow_interval_done). The packets that pass meanwhile count for the interval before or the
// next one, each once. A connection that ends in between gives its totals at once.
//
// LooseFlows is a table of bounded size: open addressing, a few places to look at. Of its places and of the ring's each
// endpoint has a share, the rest is borrowed (shares.h): a scan of one hides its own lines only. What finds no place is
// counted as lost for its endpoint, so that the log can say SKIPDATA.
//
// Threads: the worker calls everything but what is marked as control's.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>
#include <memory>

#include "dataplane/state/connection.h"
#include "dataplane/state/counters.h"
#include "dataplane/state/flow_record.h"
#include "dataplane/state/shared_ring.h"
#include "dataplane/state/shares.h"

namespace trunkline {

// Packets that belong to no connection, by flow and action.
class LooseFlows {
 public:
  static constexpr std::uint32_t kLeastPlaces = 1024, kMostPlaces = 16384;

  // So many places, a power of two. Three quarters are used at most: then the few places that are looked at are hardly
  // ever all in use.
  explicit LooseFlows(std::uint32_t places)
      : records_(new FlowRecord[places]),
        held_(new std::uint32_t[FlowKey::kMaxEndpoints]()),
        places_(places),
        shares_(places / 4 * 3) {}

  std::uint32_t places() const { return places_; }
  void share_among(std::uint32_t endpoints) {
    if (!shares_.is_set(endpoints)) [[unlikely]]
      shares_.set(endpoints, FlowKey::kMaxEndpoints, [&](std::uint32_t id) { return held_[id]; });
  }

  // The flow's record, a new one if there is none; nullptr: no place, or none for this endpoint. `ipv6` is looked at
  // only for an IPv6 key.
  FlowRecord* find_or_add(const FlowKey& key, std::uint64_t hash, const AddressPair& ipv6, FlowAction action);
  // The record has no packets any more.
  void forget(FlowRecord& record) {
    change(record.key.endpoint(), held_[record.key.endpoint().value] - 1);
    record = FlowRecord{};
    --size_;
  }
  std::uint32_t size() const { return size_; }
  // Hands over what is at a place and frees it. False: not taken, so it stays.
  template <class Take>
  bool take(std::uint32_t place, Take&& take) {
    FlowRecord& record = records_[place];
    if (!is_used(record)) return true;
    if (!take(record)) return false;
    forget(record);
    return true;
  }

 private:
  static constexpr std::uint32_t kLookedAt = 32;
  static bool is_used(const FlowRecord& record) { return record.way[0].packets + record.way[1].packets != 0; }

  std::unique_ptr<FlowRecord[]> records_;
  void change(EndpointId id, std::uint32_t held) {
    shares_.changed(held_[id.value], held);
    held_[id.value] = held;
  }

  std::unique_ptr<std::uint32_t[]> held_;  // by EndpointId
  std::uint32_t places_;
  Shares shares_;
  std::uint32_t size_ = 0;
};

class FlowRecorder {
 public:
  // The ring's size: an eighth of the table's connections, so that the end of an interval takes eight rounds of control's at most.
  static constexpr std::uint32_t kLeastRing = 1024, kLargestRing = 65536;

  FlowRecorder(std::size_t max_endpoints, std::uint32_t max_connections)
      : ring_(std::clamp(max_connections / 8, kLeastRing, kLargestRing)),
        loose_(std::bit_floor(std::clamp(max_connections / 16, LooseFlows::kLeastPlaces, LooseFlows::kMostPlaces))),
        lost_(new Counter[max_endpoints]) {}

  // So many endpoints share what there is room for.
  void share_among(std::uint32_t endpoints) {
    ring_.share_among(endpoints);
    loose_.share_among(endpoints);
  }

  // Set by the worker at the start of a turn: whether anybody wants records, and the time.
  bool on = false;
  Tick now = 0;

  // The connection is about to go, or to be used for another flow. Its totals are nobody's afterwards.
  void ended(Connection& connection, const AddressPair* ipv6);
  // The interval of a connection that goes on. False: no room in the ring now, so its totals stay.
  bool interval_ended(Connection& connection, const AddressPair* ipv6);
  // A packet that belongs to no connection (a super-frame: several). `key` and `hash` as track made them.
  void add_loose(const FlowKey& key, std::uint64_t hash, const AddressPair& ipv6, Direction direction, const Frames& amount,
                 std::uint8_t tcp_flags, FlowAction action);
  // Of what add_loose() was told: it was not sent.
  void take_back_loose(const FlowKey& key, std::uint64_t hash, const AddressPair& ipv6, Direction direction, const Frames& amount);
  // Takes `count` places of LooseFlows. Answers whether all of them have been taken since begin_loose().
  void begin_loose() { loose_at_ = 0; }
  bool take_loose(std::uint32_t count);
  void flush() { ring_.flush(); }

  // --- control thread ---
  SharedRing<FlowRecord>& ring() { return ring_; }  // its reader's half
  std::uint64_t lost(EndpointId endpoint) const { return lost_[endpoint.value].read(); }

 private:
  // Where it will lie: a record made elsewhere would be read back in wide loads right behind its narrow stores, and wait for them.
  void write(FlowRecord& record, const Connection& connection, const AddressPair* ipv6) const;

  SharedRing<FlowRecord> ring_;
  LooseFlows loose_;
  std::uint32_t loose_at_ = 0;
  std::unique_ptr<Counter[]> lost_;  // by EndpointId; written by the worker
};

}  // namespace trunkline
