// SPDX-License-Identifier: BSD-3-Clause
//
// One flow log: adds up what the workers tell of its ENIs, and at the end of each interval has a line written for each
// direction of each conversation, NODATA for an ENI of which there is none, and SKIPDATA for one of which something was lost.
//
// Rules:
//  * Lines are written a chunk at a time, from tick(): at most kLinesATick (about a megabyte of text), so that the control
//    thread is never held up for long. What cannot be written is tried again each second.
//  * What is not written when the next interval ends is given up, and counted. The ENIs of it get a SKIPDATA line in the
//    interval that ends then; if that line is given up as well, in the one after it. So at most two intervals are in memory.
//  * More conversations than max_flows are lost at once, and told by SKIPDATA of the same interval.
//  * An ENI that went has its last interval written, and is known for another minute: records may come late.
//  * An ENI of which this log captures nothing (all that passed, in a log of what was refused) has NODATA.
//
// Times are Ticks until a line is made. Control thread only.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "config/flow_log_config.h"
#include "control/flow_line.h"
#include "control/flow_sink.h"
#include "control/flow_table.h"

namespace trunkline::control {

struct FlowLogCounters {
  std::uint64_t records_written = 0;  // lines of flows
  std::uint64_t nodata_written = 0, skipdata_written = 0;
  std::uint64_t records_lost = 0;     // lines that there would have been; of a worker's loss, records
  std::uint64_t packets_lost = 0, bytes_lost = 0;  // as far as they are known: what control itself gave up
  std::uint64_t write_errors = 0;
  std::uint64_t files = 0;            // objects finished, or streams opened
};

class FlowLog {
 public:
  static constexpr std::size_t kLinesATick = 4096;
  static constexpr Tick kRetry = seconds(1), kLateRecords = seconds(60), kQuiet = seconds(60);

  // `note`: a line for the operator's log; called at most once in kQuiet for trouble, and when it is over.
  FlowLog(const config::FlowLog& config, const config::Identity& identity, std::unique_ptr<FlowSink> sink,
          std::function<void(const std::string&)> note, std::uint64_t seed, Tick now);

  // At the start; see FlowSink.
  void adopt_leftovers();
  // Again for the same id and generation: the facts have changed.
  void endpoint_came(const std::shared_ptr<const EniFacts>& facts, Tick now);
  void endpoint_went(std::uint32_t owner, Tick now);
  void add(const FlowRecord& record);
  void lost(std::uint32_t owner, std::uint64_t records);

  // What was added so far becomes lines; `interval` is how the caller knows it again. With `finish_files` what is
  // unfinished is finished when the lines are written.
  void end_interval(std::uint32_t interval, Tick end, const FlowTime& time, bool finish_files);
  void tick(Tick now);

  const config::FlowLog& config() const { return config_; }
  FlowLogCounters counters() const;
  Tick interval_start() const { return start_; }
  // All of it, and of what was before it, is written, or given up.
  std::uint32_t written_interval() const { return written_interval_; }
  std::size_t flows() const { return table_.size(); }
  std::size_t lines_waiting() const { return waiting_.items.size() - waiting_.next; }
  // Why lines wait; empty: nothing is wrong.
  const std::string& trouble() const { return trouble_; }

 private:
  struct Presence {
    std::shared_ptr<const EniFacts> facts;
    Tick came = 0;
    std::optional<Tick> went;
    bool seen = false;  // in this interval
    std::uint64_t lost = 0;
  };
  struct Item {
    enum class Kind : std::uint8_t { ingress, egress, no_data, skip_data };
    std::uint32_t number;  // of a flow, or of a status line
    Kind kind;
  };
  struct StatusLine {
    std::shared_ptr<const EniFacts> facts;
    std::int64_t start, end;
    std::uint64_t lost;
  };
  // What an interval left to be written.
  struct Waiting {
    std::uint32_t interval = 0;
    FlowTime time;
    Tick end = 0;
    std::deque<Flow> flows;
    std::vector<StatusLine> status_lines;
    std::unordered_map<std::uint32_t, std::shared_ptr<const EniFacts>> facts;  // by owner
    std::vector<Item> items;                                                 // in the order of slots
    std::vector<std::pair<std::int64_t, std::size_t>> slots;                 // and where each ends in items
    std::size_t next = 0;                                                    // of items: not written yet
    bool finish_files = false, finished = true;
  };

  bool wants(const EniFacts& facts) const;
  void count_lost(Presence* presence, std::uint64_t lines, std::uint64_t packets, std::uint64_t bytes);
  void give_up();
  void lay_out(Waiting& waiting, Tick start);
  void line_of(const Item& item, std::string& out) const;
  void count_written(const Item& item);
  bool write_some(Tick now);
  void finish(Tick now);
  void failed(const std::string& error, Tick now);

  const config::FlowLog config_;
  const FlowLineWriter writer_;
  const bool packet_addresses_;  // the format shows them
  std::unique_ptr<FlowSink> sink_;
  std::function<void(const std::string&)> note_;
  FlowTable table_;
  std::map<std::uint32_t, Presence> enis_;  // by owner; in order, so that lines are
  Tick start_;
  Waiting waiting_;
  std::uint32_t written_interval_ = 0;
  FlowLogCounters counters_;
  std::string trouble_;
  Tick retry_at_ = 0, quiet_until_ = 0;
  std::uint64_t untold_ = 0;  // errors since the last note
  std::vector<std::string> lines_;
};

}  // namespace trunkline::control
