// SPDX-License-Identifier: BSD-3-Clause
#include "control/flow_log.h"

#include <algorithm>
#include <limits>

namespace trunkline::control {
namespace {

constexpr std::uint32_t kOwnerMask = FlowKey::owner_of({FlowKey::kMaxEndpoints - 1}, FlowKey::kGenerationMask);
constexpr std::size_t kLinesAWrite = 1024;

bool names(const std::vector<std::string>& ids, const std::string& id) { return std::ranges::find(ids, id) != ids.end(); }

}  // namespace

FlowLog::FlowLog(const config::FlowLog& config, const config::Identity& identity, std::unique_ptr<FlowSink> sink,
                 std::function<void(const std::string&)> note, std::uint64_t seed, Tick now)
    : config_(config),
      writer_(config, identity),
      packet_addresses_(config.format.has(config::FlowLogField::pkt_srcaddr) || config.format.has(config::FlowLogField::pkt_dstaddr)),
      sink_(std::move(sink)),
      note_(std::move(note)),
      table_(config.max_flows, seed),
      start_(now) {}

bool FlowLog::wants(const EniFacts& facts) const {
  if (config_.eni_ids.empty() && config_.subnet_ids.empty() && config_.vpc_ids.empty()) return true;
  return names(config_.eni_ids, facts.eni_id) || names(config_.subnet_ids, facts.subnet_id) || names(config_.vpc_ids, facts.vpc_id);
}

void FlowLog::adopt_leftovers() {
  for (const std::string& trouble : sink_->adopt_leftovers()) {
    ++counters_.write_errors;
    note_("flow log " + config_.id + ": what the last engine left unfinished stays there: " + trouble);
  }
}

void FlowLog::endpoint_came(const std::shared_ptr<const EniFacts>& facts, Tick now) {
  const auto known = enis_.find(facts->owner());
  if (known != enis_.end()) {
    known->second.facts = facts;
    known->second.went.reset();
  } else if (wants(*facts)) {
    enis_.emplace(facts->owner(), Presence{.facts = facts, .came = now, .went = {}});
  }
}

void FlowLog::endpoint_went(std::uint32_t owner, Tick now) {
  if (const auto known = enis_.find(owner); known != enis_.end()) known->second.went = now;
}

void FlowLog::count_lost(Presence* presence, std::uint64_t lines, std::uint64_t packets, std::uint64_t bytes) {
  counters_.records_lost += lines;
  counters_.packets_lost += packets;
  counters_.bytes_lost += bytes;
  if (presence != nullptr) presence->lost += lines;
}

void FlowLog::add(const FlowRecord& record) {
  if (config_.traffic_type == config::FlowLogTraffic::accept && record.action != FlowAction::accept) return;
  if (config_.traffic_type == config::FlowLogTraffic::reject && record.action != FlowAction::reject) return;
  const auto known = enis_.find(record.key.owner & kOwnerMask);
  if (known == enis_.end()) return;  // none of this log's
  const FlowRecord::Way& in = record.way[index(Direction::ingress)];
  const FlowRecord::Way& out = record.way[index(Direction::egress)];
  const std::uint64_t lines = (in.packets != 0 ? 1 : 0) + (out.packets != 0 ? 1 : 0);
  if (lines == 0) return;
  Presence& presence = known->second;
  FlowRecord shown = record;
  // Lines that would show the same are one.
  if (!packet_addresses_ && !record.key.is_ipv6() && presence.facts->primary) shown.key.local = __builtin_bswap32(presence.facts->primary->v4());
  if (table_.add(shown)) {
    presence.seen = true;
  } else {
    count_lost(&presence, lines, std::uint64_t{in.packets} + out.packets, in.bytes + out.bytes);
  }
}

void FlowLog::lost(std::uint32_t owner, std::uint64_t records) {
  const auto known = enis_.find(owner);
  if (known != enis_.end()) count_lost(&known->second, records, 0, 0);
}

// --- the end of an interval ------------------------------------------------------------------------------------------

void FlowLog::end_interval(std::uint32_t interval, Tick end, const FlowTime& time, bool finish_files) {
  give_up();
  Waiting waiting;
  waiting.interval = interval;
  waiting.time = time;
  waiting.end = end;
  waiting.finish_files = finish_files || waiting_.finish_files;
  waiting.finished = false;
  waiting.flows = table_.take();
  lay_out(waiting, start_);
  waiting_ = std::move(waiting);
  start_ = end;
  std::erase_if(enis_, [&](const auto& each) { return each.second.went && *each.second.went + kLateRecords < end; });
  retry_at_ = 0;
}

// What waits since the interval before has had its time.
void FlowLog::give_up() {
  for (; waiting_.next < waiting_.items.size(); ++waiting_.next) {
    const Item& item = waiting_.items[waiting_.next];
    if (item.kind == Item::Kind::no_data) continue;
    if (item.kind == Item::Kind::skip_data) {
      const StatusLine& line = waiting_.status_lines[item.number];
      if (const auto known = enis_.find(line.facts->owner()); known != enis_.end()) known->second.lost += line.lost;
      continue;
    }
    const Flow& flow = waiting_.flows[item.number];
    const FlowTotals& totals = flow.way[item.kind == Item::Kind::ingress ? 0 : 1];
    const auto known = enis_.find(flow.key.owner & kOwnerMask);
    count_lost(known != enis_.end() ? &known->second : nullptr, 1, totals.packets, totals.bytes);
  }
  if (!waiting_.items.empty()) written_interval_ = waiting_.interval;
}

// Which lines there will be, in the order of the slots that they belong to.
void FlowLog::lay_out(Waiting& waiting, Tick start) {
  std::map<std::int64_t, std::vector<Item>> slots;
  std::vector<Item>* items = nullptr;
  std::int64_t slot_of_items = std::numeric_limits<std::int64_t>::min();
  const auto put = [&](std::int64_t end, Item item) {
    const std::int64_t slot = end - end % FlowSink::kSlotSeconds;
    if (slot != slot_of_items) items = &slots[slot], slot_of_items = slot;
    items->push_back(item);
  };
  for (std::uint32_t number = 0; number < waiting.flows.size(); ++number) {
    const Flow& flow = waiting.flows[number];
    if (flow.way[0].packets != 0) put(waiting.time.seconds_at(flow.way[0].last), {number, Item::Kind::ingress});
    if (flow.way[1].packets != 0) put(waiting.time.seconds_at(flow.way[1].last), {number, Item::Kind::egress});
  }
  for (auto& [owner, eni] : enis_) {
    waiting.facts.emplace(owner, eni.facts);
    const bool was_here = eni.came < waiting.end && (!eni.went || *eni.went > start);
    if (eni.lost != 0 || (!eni.seen && was_here)) {
      // The last tick of the interval, not the first of the next: so both lie in one slot.
      const Tick last = std::max(waiting.end, Tick{1}) - 1;
      const Tick from = std::min(std::max(start, was_here ? eni.came : start), last);
      const Tick to = was_here && eni.went ? std::clamp(*eni.went, from, last) : last;
      const std::int64_t end = waiting.time.seconds_at(to);
      put(end, {static_cast<std::uint32_t>(waiting.status_lines.size()), eni.lost != 0 ? Item::Kind::skip_data : Item::Kind::no_data});
      waiting.status_lines.push_back({eni.facts, waiting.time.seconds_at(from), end, eni.lost});
    }
    eni.seen = false;
    eni.lost = 0;
  }
  for (auto& [slot, of_slot] : slots) {
    waiting.items.insert(waiting.items.end(), of_slot.begin(), of_slot.end());
    waiting.slots.emplace_back(slot, waiting.items.size());
  }
}

// --- writing ---------------------------------------------------------------------------------------------------------

void FlowLog::line_of(const Item& item, std::string& out) const {
  out.clear();
  if (item.kind == Item::Kind::no_data || item.kind == Item::Kind::skip_data) {
    const StatusLine& line = waiting_.status_lines[item.number];
    return writer_.without_flow(*line.facts, line.start, line.end, item.kind == Item::Kind::no_data ? "NODATA" : "SKIPDATA", out);
  }
  const Flow& flow = waiting_.flows[item.number];
  const Direction direction = item.kind == Item::Kind::ingress ? Direction::ingress : Direction::egress;
  writer_.flow(*waiting_.facts.at(flow.key.owner & kOwnerMask), flow, direction, waiting_.time, out);
}

void FlowLog::count_written(const Item& item) {
  switch (item.kind) {
    case Item::Kind::no_data: ++counters_.nodata_written; break;
    case Item::Kind::skip_data: ++counters_.skipdata_written; break;
    default: ++counters_.records_written;
  }
}

void FlowLog::tick(Tick now) {
  if (waiting_.finished || now < retry_at_) return;
  if (write_some(now) && waiting_.next == waiting_.items.size()) finish(now);
}

// False: something went wrong.
bool FlowLog::write_some(Tick now) {
  for (std::size_t budget = kLinesATick; budget != 0 && waiting_.next < waiting_.items.size();) {
    const auto slot = std::ranges::find_if(waiting_.slots, [&](const auto& each) { return each.second > waiting_.next; });
    const std::size_t count = std::min({budget, kLinesAWrite, slot->second - waiting_.next});
    lines_.resize(kLinesAWrite);
    for (std::size_t i = 0; i < count; ++i) line_of(waiting_.items[waiting_.next + i], lines_[i]);
    const FlowSink::Written written = sink_->write(slot->first, std::span(lines_).first(count));
    for (std::size_t i = 0; i < written.lines; ++i) count_written(waiting_.items[waiting_.next + i]);
    waiting_.next += written.lines;
    budget -= count;
    if (!written.error.empty()) {
      failed(written.error, now);
      return false;
    }
    if (written.lines < count) return true;  // no room now
  }
  return true;
}

void FlowLog::finish(Tick now) {
  const std::int64_t end = waiting_.time.seconds_at(waiting_.end);
  const std::string error = sink_->finish(waiting_.finish_files ? std::numeric_limits<std::int64_t>::max() : end - end % FlowSink::kSlotSeconds);
  if (const std::uint64_t vanished = sink_->take_vanished(); vanished != 0) {
    counters_.records_written -= std::min(vanished, counters_.records_written);
    count_lost(nullptr, vanished, 0, 0);
    for (auto& [owner, eni] : enis_) eni.lost += 1;  // nobody knows whose they were
  }
  written_interval_ = waiting_.interval;
  if (!error.empty()) return failed(error, now);
  if (!trouble_.empty()) note_("flow log " + config_.id + " is written again");
  trouble_.clear();
  waiting_ = Waiting{};
  waiting_.interval = written_interval_;
}

void FlowLog::failed(const std::string& error, Tick now) {
  ++counters_.write_errors;
  trouble_ = error;
  retry_at_ = now + kRetry;
  ++untold_;
  if (now < quiet_until_) return;
  note_("flow log " + config_.id + ": " + error + "; tried again every second until the next interval ends" +
        (untold_ > 1 ? " (" + std::to_string(untold_) + " errors since this was last said)" : ""));
  quiet_until_ = now + kQuiet;
  untold_ = 0;
}

FlowLogCounters FlowLog::counters() const {
  FlowLogCounters counters = counters_;
  counters.files = sink_->files();
  return counters;
}

}  // namespace trunkline::control
