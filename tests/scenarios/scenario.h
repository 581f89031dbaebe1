// SPDX-License-Identifier: BSD-3-Clause
//
// The world of a scenario, read from its scenario.json over default.json (README.md says what may stand there). AWS's documents are
// read by the project's own readers. What is wrong is told by a ScenarioError with file, place and sentence.
#pragma once

#include <filesystem>
#include <map>
#include <string>

#include "config/desired_state.h"
#include "config/json_reader.h"
#include "tests/scenarios/packet_text.h"
#include "tests/support/vpc.h"

namespace trunkline::test {

struct Scenario {
  std::filesystem::path folder;
  Vpc::Engine engine;
  config::DesiredState state;                        // with the tasks that are attached from the start
  std::map<std::string, config::Attachment> tasks;   // all of them, by name, which is their ENI's too
};

Scenario load_scenario(const std::filesystem::path& folder);

// For steps that change the world: documents of the scenario's folder, in AWS's form.
void put_security_groups(config::DesiredState& state, const config::Json& list, const std::string& place);
void put_network_acls(config::DesiredState& state, const config::Json& list, const std::string& place);
config::Json read_document(const std::filesystem::path& path);
// One member of a task's settings, as scenario.json has them.
void set_task(config::Attachment& attachment, const config::Json& members, const std::string& place);

}  // namespace trunkline::test
