// SPDX-License-Identifier: BSD-3-Clause
#include "control/moves.h"

namespace trunkline::control {

std::function<void()> Moves::when_in_force() {
  std::vector<std::shared_ptr<bool>> waiting;
  for (auto& [eni, move] : moves_) {
    if (!*move.in_force) waiting.push_back(move.in_force);
  }
  if (waiting.empty()) return {};
  return [waiting = std::move(waiting)] {
    for (const std::shared_ptr<bool>& in_force : waiting) *in_force = true;
  };
}

// Two whole turns or rounds: the first may have begun before we looked.
bool Moves::counted(Move& move, std::uint64_t counter) const {
  if (!std::exchange(move.counting, true)) move.mark = counter;
  return counter >= move.mark + 2;
}

std::map<std::string, MovePhase> Moves::advance() {
  std::map<std::string, MovePhase> changed;
  for (auto& [eni, move] : moves_) {
    if (!*move.in_force) continue;
    if (move.phase == MovePhase::held) {
      move.phase = MovePhase::served;
      move.in_force = std::make_shared<bool>(false);
      changed[eni] = move.phase;
    } else if (move.phase == MovePhase::served && counted(move, workers_[move.from].clean_rounds())) {
      move.phase = MovePhase::arriving;
      move.counting = false;
    }
    if (move.phase == MovePhase::arriving && counted(move, workers_[move.to].turns())) changed[eni] = MovePhase::settled;
  }
  std::erase_if(moves_, [&](const auto& each) {
    const auto found = changed.find(each.first);
    return found != changed.end() && found->second == MovePhase::settled;
  });
  return changed;
}

}  // namespace trunkline::control
