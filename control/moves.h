// SPDX-License-Identifier: BSD-3-Clause
//
// Endpoints on their way from one worker to another (dataplane/state/handoff.h says what the workers do meanwhile):
//
//     held      nobody serves it      until every worker has left the View before
//     served    by the new owner      until the old owner's sweep has found nothing of it, twice, in the View that says so
//     arriving                        until the new owner has looked at its lanes after that
//     settled   forgotten here
//
// This knows where each move stands and which comes next; the controller makes the Views. Control thread only.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>

#include "control/workers.h"

namespace trunkline::control {

enum class MovePhase { held, served, arriving, settled };

class Moves {
 public:
  explicit Moves(const Workers& workers) : workers_(workers) {}

  bool empty() const { return moves_.empty(); }
  bool contains(const std::string& eni) const { return moves_.contains(eni); }

  void begin(const std::string& eni, WorkerNumber from, WorkerNumber to) { moves_[eni] = {from, to}; }
  // The endpoint left, or comes anew.
  void forget(const std::string& eni) { moves_.erase(eni); }

  // To be run when no worker can know of a View any more that is older than the one about to be published.
  std::function<void()> when_in_force();
  // Those that are in another phase now, and need a View that says so. A settled one is forgotten.
  std::map<std::string, MovePhase> advance();

 private:
  struct Move {
    WorkerNumber from = 0, to = 0;
    MovePhase phase = MovePhase::held;
    // Whether a View that says so is in force; shared with the one who tells, who may outlive us.
    std::shared_ptr<bool> in_force = std::make_shared<bool>(false);
    bool counting = false;
    std::uint64_t mark = 0;  // what the phase's counter said when counting began
  };
  bool counted(Move& move, std::uint64_t counter) const;

  const Workers& workers_;
  std::map<std::string, Move> moves_;
};

}  // namespace trunkline::control
