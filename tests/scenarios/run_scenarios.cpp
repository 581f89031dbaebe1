// SPDX-License-Identifier: BSD-3-Clause
//
// Plays the scenarios of a folder (README.md beside this file says how to write one).
//
//     run_scenarios FOLDER [PART-OF-A-NAME]      exit code 0: all as they should be, 1: not, 2: usage, or nothing to play
#include <algorithm>
#include <cstdio>
#include <vector>

#include "tests/scenarios/steps.h"

namespace {

using namespace trunkline::test;

std::optional<std::string> play(const std::filesystem::path& folder) {
  try {
    const Scenario scenario = load_scenario(folder);
    for (const bool sweep : {false, true}) {
      if (auto failure = Steps(scenario, sweep).run()) return failure;
    }
    return std::nullopt;
  } catch (const std::exception& error) {
    return error.what();
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2 && argc != 3) {
    std::fprintf(stderr, "usage: run_scenarios FOLDER [PART-OF-A-NAME]\n");
    return 2;
  }
  std::vector<std::filesystem::path> folders;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(argv[1], error)) {
    const std::string name = entry.path().filename().string();
    const bool wanted = argc == 2 || name.find(argv[2]) != std::string::npos;
    if (entry.is_directory() && wanted) folders.push_back(entry.path());
  }
  std::ranges::sort(folders);
  if (folders.empty()) {
    std::fprintf(stderr, "%s has no scenario%s%s\n", argv[1], argc == 3 ? " with a name like " : "", argc == 3 ? argv[2] : "");
    return 2;
  }
  std::size_t failed = 0;
  for (const auto& folder : folders) {
    const auto failure = play(folder);
    std::printf("%s %s\n", failure ? "FAILED" : "ok    ", folder.filename().c_str());
    if (failure) std::printf("%s\n", failure->c_str()), ++failed;
  }
  std::printf("%zu scenarios, %zu failed\n", folders.size(), failed);
  return failed == 0 ? 0 : 1;
}
