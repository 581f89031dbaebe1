// SPDX-License-Identifier: BSD-3-Clause
//
// The documents under tests/data, and what the tests of AWS's shapes do with them.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <sstream>
#include <string>

#include "config/json_reader.h"

namespace trunkline {

// The build may say where the data is; otherwise it is beside this file.
inline std::string data_path(const std::string& name) {
#ifdef TRUNKLINE_TEST_DATA
  return std::string(TRUNKLINE_TEST_DATA) + "/" + name + ".json";
#else
  std::string here = __FILE__;
  return here.substr(0, here.rfind("unit/")) + "data/" + name + ".json";
#endif
}

inline config::Json test_data(const std::string& name) {
  std::ifstream file(data_path(name));
  std::stringstream text;
  text << file.rdbuf();
  auto document = config::parse_json(text.str());
  EXPECT_TRUE(document.has_value()) << name << ": " << (document ? "" : document.error().message);
  return document.value_or(config::Json());
}

inline std::string all_of(const config::Problems& problems) {
  std::string text;
  for (const auto& problem : problems) text += problem.name + " at " + problem.pointer + ": " + problem.message + "\n";
  return text;
}

// Whether some problem is at this place, says this word, and reads as a sentence that wants something.
inline bool has_problem(const config::Problems& problems, const std::string& pointer, const std::string& word) {
  return std::ranges::any_of(problems, [&](const config::Problem& problem) {
    return problem.pointer == pointer && problem.message.find(word) != std::string::npos;
  });
}

}  // namespace trunkline
