// SPDX-License-Identifier: BSD-3-Clause
//
// All flow logs of the engine: what main and the Controller have to do with. It gives out what the workers tell to the logs
// that want it, and ends their intervals.
//
// Rules:
//  * Intervals end at whole minutes (or ten minutes, where no log asks for less) of the wall clock, after the workers were
//    asked to tell what they have counted, and have. When nothing is told for kPatience, or after kLongest, the rest is not
//    waited for: it belongs to the next interval.
//  * The wall clock is looked at between intervals only, and believed when it has moved: so no line ends before it starts, and
//    after a step the lines of the next interval are right again.
//  * Nothing here waits: tick() is called every tenth of a second and does a bounded part of the work (flow_log.h).
//  * The ENIs are told as they come, change and go; records may come later than that, and are known by number and generation.
//
// Control thread only.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "config/engine_config.h"
#include "control/flow_log.h"

namespace trunkline::control {

class FlowLogs;

// Where records come from: the workers, or a test.
class FlowSource {
 public:
  virtual ~FlowSource() = default;
  // All that was counted until now is to be told. `number` grows by one each time.
  virtual void end_interval(std::uint32_t number) = 0;
  // Whether everything of that interval can be drained.
  virtual bool has_ended(std::uint32_t number) = 0;
  // Gives what there is to add() and lost(), as much as one tick should take. True: there is no more.
  virtual bool drain(FlowLogs& logs) = 0;
};

struct FlowLogsOptions {
  std::function<std::int64_t()> unix_ms;                // absent: the system's clock
  std::function<void(const std::string&)> note;         // a line for the operator's log; absent: none
  std::function<std::unique_ptr<FlowSink>(const config::FlowLog&)> make_sink;  // absent: what the destination says
};

class FlowLogs {
 public:
  static constexpr Tick kPatience = seconds(5), kLongest = seconds(30);

  // The source outlives this; null: there is nothing to wait for.
  FlowLogs(const config::EngineConfig& config, FlowSource* source, Tick now, FlowLogsOptions options = {});

  bool empty() const { return logs_.empty(); }
  // At the start, when packets flow: it may take some seconds.
  void adopt_leftovers();

  // --- what the Controller tells ---
  // Also when what is known of an ENI that is here has changed.
  void endpoint_came(const config::Attachment& attachment, EndpointId id, std::uint16_t generation, const config::DesiredState& state);
  void endpoint_went(EndpointId id, std::uint16_t generation);

  // --- what the workers tell ---
  void add(const FlowRecord& record);
  // So many records of the endpoint that has this number now found no room.
  void lost(EndpointId id, std::uint64_t records);

  // Every tenth of a second, and again soon while has_more(): one call takes so much from the source as it gives at once.
  void tick(Tick now);
  bool has_more() const { return has_more_; }
  // Ends the interval now, and finishes the files that it goes to. The answer is the interval's number, to be waited for with
  // is_written(); the work is done by tick().
  std::uint32_t flush();
  bool is_written(std::uint32_t interval) const;

  const std::vector<std::unique_ptr<FlowLog>>& logs() const { return logs_; }
  std::uint32_t interval() const { return interval_; }  // the last that ended, or is ending
  // Ticks until the log's interval ends.
  Tick left_of(const FlowLog& log) const;
  FlowLogCounters counters() const;  // sums

 private:
  void ask(Tick ends_at, bool is_flush);
  void end();
  void schedule();

  const config::Identity identity_;
  FlowSource* source_;
  FlowLogsOptions options_;
  std::vector<std::unique_ptr<FlowLog>> logs_;
  std::map<std::uint16_t, std::uint32_t> owners_;  // the owner that an endpoint's number belongs to now, or did last
  std::int64_t shortest_s_ = 600;                  // of the logs' intervals
  Tick now_;
  FlowTime time_;
  std::int64_t boundary_s_ = 0;  // Unix time at which the interval is to end
  Tick boundary_ = 0;            // the same
  std::uint32_t interval_ = 0;
  // The interval that is ending: asked for, and not yet told by all.
  bool ending_ = false, ending_is_flush_ = false;
  Tick asked_at_ = 0, told_at_ = 0, ends_at_ = 0;
  bool has_more_ = false;      // the source has
  bool flush_wanted_ = false;  // once that one has ended
};

}  // namespace trunkline::control
