// SPDX-License-Identifier: BSD-3-Clause
#include "control/flow_logs.h"

#include <sys/random.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>

#include "control/flow_objects.h"
#include "control/flow_stream.h"

namespace trunkline::control {
namespace {

constexpr std::int64_t kMsATick = 1000 / kTicksPerSecond;
// The timer and the wall clock differ by less than this unless one of them was set.
constexpr std::int64_t kClockTolerance_ms = 500;
// A boundary that is nearer than this has just been.
constexpr std::int64_t kShortestInterval_ms = 1000;

std::int64_t system_unix_ms() {
  return std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::system_clock::now().time_since_epoch()).count();
}

std::unique_ptr<FlowSink> sink_of(const config::FlowLog& log, const config::Identity& identity) {
  if (log.destination.type == config::FlowLog::Destination::Type::stream) return std::make_unique<FlowStream>(log);
  return std::make_unique<FlowObjects>(log, identity);
}

}  // namespace

FlowLogs::FlowLogs(const config::EngineConfig& config, FlowSource* source, Tick now, FlowLogsOptions options)
    : identity_(config.identity), source_(source), options_(std::move(options)), now_(now) {
  if (!options_.unix_ms) options_.unix_ms = system_unix_ms;
  if (!options_.note) options_.note = [](const std::string&) {};
  std::uint64_t seed = 0;
  static_cast<void>(::getrandom(&seed, sizeof seed, 0));  // without one the hash is as good, and known
  for (const config::FlowLog& log : config.flow_logs) {
    auto sink = options_.make_sink ? options_.make_sink(log) : sink_of(log, identity_);
    logs_.push_back(std::make_unique<FlowLog>(log, identity_, std::move(sink), options_.note, seed, now));
    shortest_s_ = std::min<std::int64_t>(shortest_s_, log.max_aggregation_interval_s);
  }
  time_.base_ms = options_.unix_ms() - std::int64_t{now} * kMsATick;
  schedule();
}

void FlowLogs::adopt_leftovers() {
  for (const auto& log : logs_) log->adopt_leftovers();
}

// --- what is told ----------------------------------------------------------------------------------------------------

void FlowLogs::endpoint_came(const config::Attachment& attachment, EndpointId id, std::uint16_t generation, const config::DesiredState& state) {
  if (logs_.empty()) return;
  const auto facts = std::make_shared<const EniFacts>(eni_facts(attachment, id, generation, state, identity_));
  owners_[id.value] = facts->owner();
  for (const auto& log : logs_) log->endpoint_came(facts, now_);
}

void FlowLogs::endpoint_went(EndpointId id, std::uint16_t generation) {
  for (const auto& log : logs_) log->endpoint_went(FlowKey::owner_of(id, generation), now_);
}

void FlowLogs::add(const FlowRecord& record) {
  told_at_ = now_;
  for (const auto& log : logs_) log->add(record);
}

void FlowLogs::lost(EndpointId id, std::uint64_t records) {
  const auto owner = owners_.find(id.value);
  if (owner == owners_.end() || records == 0) return;
  for (const auto& log : logs_) log->lost(owner->second, records);
}

// --- intervals -------------------------------------------------------------------------------------------------------

// The next whole minute, or ten. The wall clock is compared here, where no interval is under way.
void FlowLogs::schedule() {
  const std::int64_t unix_ms = options_.unix_ms();
  const std::int64_t base_ms = unix_ms - std::int64_t{now_} * kMsATick;
  if (std::llabs(base_ms - time_.base_ms) > kClockTolerance_ms) time_.base_ms = base_ms;
  const std::int64_t known_ms = time_.base_ms + std::int64_t{now_} * kMsATick;
  boundary_s_ = ((known_ms + kShortestInterval_ms) / 1000 / shortest_s_ + 1) * shortest_s_;
  boundary_ = static_cast<Tick>((boundary_s_ * 1000 - time_.base_ms + kMsATick - 1) / kMsATick);
}

void FlowLogs::ask(Tick ends_at, bool is_flush) {
  ending_ = true;
  ending_is_flush_ = is_flush;
  asked_at_ = told_at_ = now_;
  ends_at_ = ends_at;
  ++interval_;
  if (source_ != nullptr) source_->end_interval(interval_);
}

std::uint32_t FlowLogs::flush() {
  if (logs_.empty()) return interval_;
  if (ending_) {  // some workers may have told all that they will of this one
    flush_wanted_ = true;
    return interval_ + 1;
  }
  ask(now_, true);
  return interval_;
}

void FlowLogs::end() {
  ending_ = false;
  for (const auto& log : logs_) {
    const bool due = ending_is_flush_ || boundary_s_ % log->config().max_aggregation_interval_s == 0;
    if (due) log->end_interval(interval_, std::max(ends_at_, log->interval_start()), time_, ending_is_flush_);
  }
  schedule();
}

void FlowLogs::tick(Tick now) {
  now_ = now;
  if (logs_.empty()) return;
  // Asked before it is drained: what a worker told before it said that it has ended is then here.
  const bool ended = ending_ && (source_ == nullptr || source_->has_ended(interval_));
  const bool drained = source_ == nullptr || source_->drain(*this);
  has_more_ = !drained;
  if (ending_) {
    const bool complete = ended && drained;
    const bool late = !complete && (now - told_at_ >= kPatience || now - asked_at_ >= kLongest);
    if (late) options_.note("flow logs: a worker has not told its share of an interval in time; it is in the next one");
    if (complete || late) end();
  } else if (flush_wanted_) {
    flush_wanted_ = false;
    ask(now, true);
  } else if (now >= boundary_) {
    ask(boundary_, false);
  }
  for (const auto& log : logs_) log->tick(now);
}

bool FlowLogs::is_written(std::uint32_t interval) const {
  return interval <= interval_ && std::ranges::all_of(logs_, [&](const auto& log) { return log->written_interval() >= interval; });
}

Tick FlowLogs::left_of(const FlowLog& log) const {
  const std::int64_t length = log.config().max_aggregation_interval_s;
  const std::int64_t end_s = (boundary_s_ + length - 1) / length * length;
  const std::int64_t left_ms = end_s * 1000 - time_.base_ms - std::int64_t{now_} * kMsATick;
  return left_ms > 0 ? static_cast<Tick>(left_ms / kMsATick) : 0;
}

FlowLogCounters FlowLogs::counters() const {
  FlowLogCounters sum;
  for (const auto& log : logs_) {
    const FlowLogCounters each = log->counters();
    sum.records_written += each.records_written;
    sum.nodata_written += each.nodata_written;
    sum.skipdata_written += each.skipdata_written;
    sum.records_lost += each.records_lost;
    sum.packets_lost += each.packets_lost;
    sum.bytes_lost += each.bytes_lost;
    sum.write_errors += each.write_errors;
    sum.files += each.files;
  }
  return sum;
}

}  // namespace trunkline::control
