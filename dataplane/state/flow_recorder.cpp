// SPDX-License-Identifier: BSD-3-Clause
#include "dataplane/state/flow_recorder.h"

namespace trunkline {
namespace {

// The ring is larger than the caches, and the reader has its lines besides: so far ahead a record's place is asked for.
constexpr std::uint32_t kPlacesAhead = 4;

}  // namespace

FlowRecord* LooseFlows::find_or_add(const FlowKey& key, std::uint64_t hash, const AddressPair& ipv6, FlowAction action) {
  FlowRecord* free = nullptr;
  const std::uint64_t start = hash + (action == FlowAction::reject ? 0x9e3779b97f4a7c15ULL : 0);
  const std::uint64_t step = hash >> 32 | 1;  // not the next ones: they would be in use where this one is
  for (std::uint32_t i = 0; i < kLookedAt; ++i) {
    FlowRecord& record = records_[(start + i * step) & (places_ - 1)];
    if (!is_used(record)) {
      if (free == nullptr) free = &record;
      continue;
    }
    if (record.key == key && record.action == action && (!key.is_ipv6() || record.ipv6 == ipv6)) return &record;
  }
  const std::uint32_t held = held_[key.endpoint().value];
  if (free == nullptr || !shares_.may_take(held)) return nullptr;
  change(key.endpoint(), held + 1);
  ++size_;
  free->key = key;
  if (key.is_ipv6()) free->ipv6 = ipv6;
  free->action = action;
  return free;
}

void FlowRecorder::write(FlowRecord& record, const Connection& connection, const AddressPair* ipv6) const {
  record.key = connection.key;
  if (ipv6 != nullptr) record.ipv6 = *ipv6;
  record.action = FlowAction::accept;
  record.audited = connection.rule == kAuditedRule;
  for (std::size_t i = 0; i < 2; ++i) {
    const Connection::Totals& totals = connection.totals[i];
    record.way[i] = {totals.bytes(), totals.packets, totals.first_seen(now), totals.last_seen(now), totals.tcp_flags()};
  }
}

void FlowRecorder::ended(Connection& connection, const AddressPair* ipv6) {
  if (!interval_ended(connection, ipv6)) {
    lost_[connection.key.endpoint().value].add(1);
    connection.totals[0] = connection.totals[1] = {};
  }
}

bool FlowRecorder::interval_ended(Connection& connection, const AddressPair* ipv6) {
  if (!on || (connection.totals[0].packets | connection.totals[1].packets) == 0) return true;
  FlowRecord* const record = ring_.place_of_next(connection.key.endpoint());
  if (record == nullptr) return false;
  for (std::size_t line = 0; line < sizeof *record; line += 64) ring_.prefetch(kPlacesAhead, line);
  write(*record, connection, ipv6);
  ring_.push_placed(connection.key.endpoint());
  connection.totals[0] = connection.totals[1] = {};
  return true;
}

void FlowRecorder::add_loose(const FlowKey& key, std::uint64_t hash, const AddressPair& ipv6, Direction direction, const Frames& amount,
                             std::uint8_t tcp_flags, FlowAction action) {
  if (!on) return;
  FlowRecord* record = loose_.find_or_add(key, hash, ipv6, action);
  if (record == nullptr) return lost_[key.endpoint().value].add(1);  // a record, of however many packets
  FlowRecord::Way& way = record->way[index(direction)];
  if (way.packets == 0) way.first = now;
  way.packets += static_cast<decltype(way.packets)>(amount.packets);
  way.last = now;
  way.bytes += amount.bytes;
  way.tcp_flags |= tcp_flags;
}

void FlowRecorder::take_back_loose(const FlowKey& key, std::uint64_t hash, const AddressPair& ipv6, Direction direction, const Frames& amount) {
  if (!on) return;
  FlowRecord* record = loose_.find_or_add(key, hash, ipv6, FlowAction::accept);
  if (record == nullptr) return;  // it found no place then, and its record counts as lost
  FlowRecord::Way& way = record->way[index(direction)];
  way.packets -= static_cast<decltype(way.packets)>(std::min<std::uint64_t>(amount.packets, way.packets));
  way.bytes -= std::min(amount.bytes, std::uint64_t{way.bytes});
  if (record->way[0].packets + record->way[1].packets == 0) loose_.forget(*record);
}

bool FlowRecorder::take_loose(std::uint32_t count) {
  for (; count != 0 && loose_at_ < loose_.places(); --count, ++loose_at_) {
    if (!loose_.take(loose_at_, [&](const FlowRecord& record) { return ring_.push(record, record.key.endpoint()); }))
      break;
  }
  return loose_at_ == loose_.places();
}

}  // namespace trunkline
