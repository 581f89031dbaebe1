// SPDX-License-Identifier: BSD-3-Clause
//
// Reads documents as the engine's methods do, each into an empty state, and says what came of it. For aws_documents.py, which makes
// them from AWS's own models.
//
//     read_documents < LINES        a line: {"kind":"groups","document":{...},"replace_all":false,"id":"pl-1"}
//
// A line of answer each: {"problems":[{"name","pointer","message"}],"warnings":["..."],"counts":{"groups":1,...}}
#include <iostream>
#include <string>

#include "config/state_json.h"
#include "config/validate.h"
#include "config/words.h"
#include "control/aws/documents.h"
#include "control/events.h"

namespace {

using namespace trunkline;
using namespace trunkline::control;

constexpr const char* kAt = "/document";

struct Outcome {
  Problems problems;
  Warnings warnings;
  config::DesiredState state;
};

// What `read` answered goes into the outcome, or `put` is called with it.
void settle(auto read, Outcome& outcome, auto put) {
  if (!read) {
    outcome.problems = read.error();
    return;
  }
  outcome.warnings = read->warnings;
  put(*read);
}

void read_event_into(const Json& document, Outcome& outcome) {
  auto effect = read_event(document, kAt, outcome.state, {}, {}, {.take_all = true});
  settle(std::move(effect), outcome, [&](EventEffect& read) { apply(std::move(read), {}, outcome.state); });
}

Outcome read_line(const Json& line) {
  Outcome outcome;
  const std::string kind = line.at("kind");
  const Json& document = line.at("document");
  const bool replace_all = line.value("replace_all", false);
  if (kind == "groups") {
    settle(read_groups_document(document, kAt, replace_all), outcome, [&](GroupsDocument& read) {
      for (const auto& group : read.groups) put_group(group, read.rules_only, outcome.state);
    });
  } else if (kind == "acls") {
    settle(read_acls_document(document, kAt, replace_all), outcome, [&](AclsDocument& read) {
      for (const auto& acl : read.acls) outcome.state.network_acls.insert_or_assign(acl.id, acl);
    });
  } else if (kind == "vpcs") {
    settle(read_vpcs_document(document, kAt), outcome, [&](VpcsDocument& read) {
      for (const auto& [id, range] : read.ranges) outcome.state.prefix_lists.insert_or_assign("pl-1", config::PrefixList{"pl-1", {range}});
    });
  } else if (kind == "prefix_lists") {
    settle(read_prefix_lists_document(document, kAt, line.value("id", std::string())), outcome, [&](PrefixListsDocument& read) {
      for (const auto& list : read.lists) outcome.state.prefix_lists.insert_or_assign(list.id, list);
    });
  } else {
    read_event_into(document, outcome);
  }
  return outcome;
}

Json counts_of(const config::DesiredState& state) {
  std::size_t rules = 0, entries = 0, addresses = 0, prefixes = 0;
  for (const auto& [id, group] : state.security_groups) rules += group.ingress.size() + group.egress.size();
  for (const auto& [id, acl] : state.network_acls) entries += acl.ingress.size() + acl.egress.size();
  for (const auto& [id, list] : state.prefix_lists) entries += list.entries.size();
  for (const auto& [id, attachment] : state.attachments) {
    addresses += attachment.addresses.size();
    prefixes += attachment.prefixes.size();
  }
  return {{"groups", state.security_groups.size()}, {"rules", rules},         {"acls", state.network_acls.size()},
          {"entries", entries},                     {"subnets", state.subnets.size()}, {"attachments", state.attachments.size()},
          {"addresses", addresses},                 {"prefixes", prefixes}};
}

}  // namespace

int main() {
  config::EngineConfig engine;
  engine.limits.endpoints = 1000;
  for (std::string text; std::getline(std::cin, text);) {
    const auto line = config::parse_json(text, {.max_bytes = 1 << 22, .max_depth = 32});
    Outcome outcome;
    if (line) {
      outcome = read_line(*line);
    } else {
      outcome.problems = {line.error()};
    }
    // What was read is a state that the engine can be in, and that the journal gives back.
    const Problems invalid = config::validate(outcome.state, engine);
    outcome.problems.insert(outcome.problems.end(), invalid.begin(), invalid.end());
    const auto again = config::state_from_json(config::to_json(outcome.state));
    if (!again || *again != outcome.state) outcome.problems.push_back({"internal", "", "the state is not the same when it is written and read"});
    Json answer{{"problems", Json::array()}, {"warnings", outcome.warnings}, {"counts", counts_of(outcome.state)}};
    for (const auto& problem : outcome.problems) {
      answer["problems"].push_back({{"name", problem.name}, {"pointer", problem.pointer}, {"message", problem.message}});
    }
    std::cout << config::words::dump(answer) << '\n';
  }
  return 0;
}
