// SPDX-License-Identifier: BSD-3-Clause
//
// What is wrong with something that came from outside, in a form that a person can mend and a program can test: a
// symbolic name (the table in docs/control-protocol.md), a JSON pointer to the place, and a sentence that says what was
// found, what is wanted and what to do. Validation collects every problem; it never stops at the first.
#pragma once

#include <cstddef>
#include <string>
#include <utility>
#include <vector>

namespace trunkline::config {

struct Problem {
  std::string name;     // "invalid_params", "duplicate_vlan", ...
  std::string pointer;  // RFC 6901, "" is the whole document
  std::string message;
  friend bool operator==(const Problem&, const Problem&) = default;
};

using Problems = std::vector<Problem>;

// A hostile document can be wrong in a million places, and each costs memory and a line in the answer. Nobody reads
// past the first few; beyond this many, one last entry says that there are more.
inline constexpr std::size_t kMaxProblems = 200;

inline void add_problem(Problems& problems, Problem problem) {
  if (problems.size() < kMaxProblems) {
    problems.push_back(std::move(problem));
  } else if (problems.size() == kMaxProblems) {
    problems.push_back({std::move(problem.name), {},
                        "there are more problems than these " + std::to_string(kMaxProblems) + "; mend them first"});
  }
}

}  // namespace trunkline::config
