// SPDX-License-Identifier: BSD-3-Clause
//
// Plays a scenario's steps.txt, line by line, in virtual time. After each packet everything that came out and every counter that moved
// must be what the lines behind it say; the first thing that is not ends the scenario.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "tests/scenarios/scenario.h"

namespace trunkline::test {

class Steps {
 public:
  // `sweep`: whether the worker's sweep comes round after each step of time. What packets see must not depend on it.
  Steps(const Scenario& scenario, bool sweep);
  // What went wrong, with file and line; nothing: all as it should be.
  std::optional<std::string> run();

 private:
  // A packet step and what was said of it, until the next step.
  struct Packets {
    std::size_t line = 0;
    std::string task;  // the sender; empty: the trunk
    std::string receiver;  // of what came by the trunk; empty: nobody's
    std::vector<Frame> sent;
    Vpc::Output output;
    std::map<std::string, std::size_t> taken;   // of the output, by place
    std::map<std::string, std::size_t> matched;  // of what was sent, by place
    Vpc::Movements implied;
    std::optional<Vpc::Movements> counters;  // said in their place
    bool expected = false;
  };

  void line(const std::string& text);
  void packet_step(const Words& words, const std::string& head, const std::string& rest);
  void expect(const std::string& head, const std::string& rest);
  void expect_frame(const std::string& place, const std::string& what);
  void refuse(const std::string& reason, std::int64_t count);
  void imply_delivery(const std::string& place);
  const std::vector<Frame>& output_at(const std::string& place) const;
  Frame as_delivered(const Frame& sent, const std::string& place) const;
  void counters(const Words& words);
  void audited(const Words& words);
  void end_packets();
  void end_flow_log();
  void begin_flow_log();
  void connections(const Words& words);
  bool change(const Words& words);
  void change_rule(const Words& words, bool add);
  void change_entry(const Words& words, bool add);
  void set(const Words& words);
  void pass_to(const std::string& text, bool relative);
  std::string logged(const FlowRecord& record, Direction direction) const;

  const Scenario& scenario_;
  const bool sweep_;
  std::vector<std::string> lines_;
  std::size_t at_ = 0;  // the line, from 0
  Vpc vpc_;
  std::optional<Packets> packets_;
  std::optional<std::size_t> flow_log_at_;
  std::vector<std::string> flow_log_wanted_;
  bool flow_logs_ = false;
};

}  // namespace trunkline::test
