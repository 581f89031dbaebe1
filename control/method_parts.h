// SPDX-License-Identifier: BSD-3-Clause
//
// What every method of the control protocol is made of: reading its parameters, making a change, answering. Shared by the files
// behind add_methods(); not for anyone else.
#pragma once

#include <expected>
#include <initializer_list>
#include <string>
#include <string_view>
#include <utility>

#include "config/json_reader.h"
#include "config/words.h"
#include "control/controller.h"
#include "control/rpc/removals.h"
#include "control/server.h"

namespace trunkline::control {

using Answer = std::expected<config::Json, RpcError>;

inline RpcError not_found(std::string what, std::string pointer) {
  return {"not_found", "there is no " + std::move(what), std::move(pointer), {}};
}

inline RpcError unknown_task(const std::string& ref) {
  return not_found("task, ENI or attachment \"" + ref + "\"; trunkctl task list shows what there is", "/task");
}

inline config::Json result_json(const ChangeResult& result) {
  return {{"revision", result.revision}, {"changed", result.changed}, {"durable", result.durable},
          {"dry_run", result.dry_run},   {"steps", result.steps},     {"warnings", result.warnings}};
}

// The parameters of one call: reads its own members, and the ones that every change has.
class Params {
 public:
  explicit Params(const config::Json& params) : reader(params, "", problems) {}

  ChangeOptions change_options() {
    ChangeOptions options;
    options.dry_run = reader.boolean("dry_run").value_or(false);
    if (const auto revision = reader.integer("expect_revision", 0, INT64_MAX)) {
      options.expect_revision = static_cast<std::uint64_t>(*revision);
    }
    if (const auto wait = reader.text("wait")) {
      options.wait_for_disk = *wait != "enforced";
      if (*wait != "durable" && *wait != "enforced") {
        reader.complain("wait", "invalid_params", "\"wait\" is " + config::words::in_quotes(*wait) + "; wanted \"durable\" or \"enforced\"");
      }
    }
    return options;
  }

  // Of a request that replaces all of a kind; rpc/removals.h.
  RemovalConsent removal_consent() {
    return {reader.boolean("allow_empty").value_or(false), reader.boolean("allow_removal").value_or(false)};
  }

  // To be asked once, after the last member was read.
  bool sound() {
    reader.finish();
    return problems.empty();
  }
  std::unexpected<RpcError> refusal() { return std::unexpected(refuse(std::move(problems))); }

  config::Problems problems;
  config::ObjectReader reader;
};

// A document of AWS's (or a whole state) among the parameters: the member "document", whose own members are never the request's.
struct GivenDocument {
  const config::Json* value = nullptr;  // null: a problem was added
  std::string pointer;
};

// Clients of before gave the document's members as the request's own: `older_keys` tell that form. It is still taken where nothing
// stands beside them, since then nobody can mean the one and say the other.
inline GivenDocument take_document(Params& in, const config::Json& params, std::initializer_list<std::string_view> older_keys, std::string_view command) {
  config::ObjectReader& reader = in.reader;
  std::string_view older;
  std::size_t of_older_form = 0;
  for (const std::string_view key : older_keys) {
    if (!params.contains(key)) continue;
    if (older.empty()) older = key;
    ++of_older_form;
    reader.ignore(key);
  }
  if (const config::Json* document = reader.object("document"); document != nullptr && older.empty()) return {document, "/document"};
  if (older.empty()) {
    if (!reader.has("document")) reader.missing("document", "what " + std::string(command) + " prints");
    return {};
  }
  if (of_older_form == params.size()) return {&params, ""};
  reader.complain(older, "invalid_params",
                  config::words::in_quotes(older) + " stands among the request's own members, and a document has members of its own; give the document as one: "
                  "{\"document\":{" + config::words::in_quotes(older) + ":...}}");
  return {};
}

// `pointer_prefix`: problems of the state under it are told as problems of the call's own members.
inline Answer change_state(Controller& controller, const ChangeOptions& options, const Edit& edit, const std::string& pointer_prefix = "") {
  auto result = controller.change(edit, options);
  if (result) return result_json(*result);
  for (config::Problem& problem : result.error()) {
    if (!pointer_prefix.empty() && problem.pointer.starts_with(pointer_prefix)) problem.pointer.erase(0, pointer_prefix.size());
  }
  return std::unexpected(refuse(std::move(result.error())));
}

// A subnet without an ACL lets everything pass, which nobody should find out by chance.
inline void warn_of_open(const config::DesiredState& before, const config::DesiredState& after, std::vector<std::string>& warnings) {
  for (const std::string& subnet : subnets_left_open(before, after)) {
    warnings.push_back(subnet + " has ENIs here and no network ACL any more: everything passes");
  }
}

// Network ACLs; in methods_acl.cpp.
void add_acl_methods(Server& server, Controller& controller);

}  // namespace trunkline::control
