// SPDX-License-Identifier: BSD-3-Clause
//
// Reads one document from stdin as the engine would, and says "ok" or prints every problem as JSON. For
// schema_agreement.py, which holds this judgement against the published schemas.
//
//     config_check engine-config|state < document.json        exit code 0: accepted, 1: refused, 2: usage
#include <iostream>
#include <iterator>
#include <string>

#include "config/engine_config.h"
#include "config/json_reader.h"
#include "config/state_json.h"
#include "config/validate.h"

namespace {

using namespace trunkline::config;

Problems check_state(const std::string& text) {
  const auto document = parse_json(text);
  if (!document) return {document.error()};
  const auto state = state_from_json(*document);
  if (!state) return state.error();
  EngineConfig config;
  config.trunk.mtu = kMaxPortMtu;
  config.limits.endpoints = 1000;
  return validate(*state, config);
}

Problems check_config(const std::string& text) {
  const auto config = parse_engine_config(text);
  return config ? Problems{} : config.error();
}

}  // namespace

int main(int argc, char** argv) {
  const std::string kind = argc == 2 ? argv[1] : "";
  if (kind != "engine-config" && kind != "state") {
    std::cerr << "usage: config_check engine-config|state < document.json\n";
    return 2;
  }
  const std::string text(std::istreambuf_iterator<char>(std::cin), {});
  const Problems problems = kind == "state" ? check_state(text) : check_config(text);
  if (problems.empty()) {
    std::cout << "ok\n";
    return 0;
  }
  Json list = Json::array();
  for (const Problem& problem : problems) {
    list.push_back({{"name", problem.name}, {"pointer", problem.pointer}, {"message", problem.message}});
  }
  std::cout << list.dump(2) << '\n';
  return 1;
}
