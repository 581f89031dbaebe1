// SPDX-License-Identifier: BSD-3-Clause
#include "control/protocol.h"

#include <algorithm>
#include <array>
#include <utility>

#include "config/words.h"

namespace trunkline::control {
namespace {

using config::Json;
using config::Problem;
using config::Problems;
using config::words::describe;
using config::words::dump;  // never throws at a byte that is not UTF-8
using config::words::in_quotes;

constexpr int kInternal = -32603;

struct ErrorCode {
  std::string_view name;
  int code;
};

// In the order of the protocol page (docs/control-protocol.md, Errors), which has them all; a test compares.
constexpr std::array kErrorCodes{
    ErrorCode{"parse_error", -32700},         ErrorCode{"invalid_request", -32600},
    ErrorCode{"unknown_method", -32601},      ErrorCode{"invalid_params", -32602},
    ErrorCode{"internal", kInternal},         ErrorCode{"limit", -32001},
    ErrorCode{"forbidden", -32002},           ErrorCode{"conflict", -32003},
    ErrorCode{"not_found", -32004},           ErrorCode{"duplicate_vlan", -32010},
    ErrorCode{"duplicate_mac", -32010},       ErrorCode{"duplicate_ip", -32010},
    ErrorCode{"duplicate_interface", -32010}, ErrorCode{"duplicate_subnet", -32010},
    ErrorCode{"address_outside_subnet", -32011}, ErrorCode{"reserved_address", -32011},
    ErrorCode{"wrong_trunk", -32011},         ErrorCode{"group_in_use", -32012},
    ErrorCode{"acl_in_use", -32012},          ErrorCode{"quota", -32012},
    ErrorCode{"netns_missing", -32013},       ErrorCode{"interface_exists", -32013},
    ErrorCode{"vhost_net_missing", -32013},   ErrorCode{"port_failed", -32013},
    ErrorCode{"port_limit", -32013},          ErrorCode{"stale_event", -32014},
    ErrorCode{"worker_silent", -32015},       ErrorCode{"would_empty", -32016},
    ErrorCode{"would_remove", -32016},
};

bool is_id(const Json& value) { return value.is_string() || value.is_number_integer() || value.is_null(); }

Json as_json(const Problem& problem) {
  return Json{{"name", problem.name}, {"pointer", problem.pointer}, {"message", problem.message}};
}

}  // namespace

RpcError refuse(Problems problems) {
  if (problems.empty()) {
    return {"internal", "the engine refused this without saying why; that is a defect of the engine", {}, {}};
  }
  const Problem& first = problems.front();
  RpcError error{first.name, first.message, first.pointer, {}};
  error.problems = std::move(problems);
  return error;
}

std::optional<int> find_error_code(std::string_view name) {
  const auto* const found = std::ranges::find(kErrorCodes, name, &ErrorCode::name);
  if (found == kErrorCodes.end()) return std::nullopt;
  return found->code;
}

int code_for(std::string_view name) { return find_error_code(name).value_or(kInternal); }

std::expected<Request, BadRequest> parse_request(std::string_view line, std::size_t max_bytes, std::size_t max_depth) {
  auto document = config::parse_json(line, {.max_bytes = max_bytes, .max_depth = max_depth, .comments = false});
  if (!document) return std::unexpected(BadRequest{nullptr, refuse({std::move(document.error())})});

  Problems problems;
  const auto complain = [&problems](std::string message) {
    config::add_problem(problems, {"invalid_request", {}, std::move(message)});
  };
  if (!document->is_object()) {
    complain(document->is_array() ? "batches are not taken; send one request object a line"
                                  : "found " + describe(*document) + "; wanted a JSON-RPC 2.0 request object");
    return std::unexpected(BadRequest{nullptr, refuse(std::move(problems))});
  }

  Request request;
  request.notification = true;
  bool has_version = false, has_method = false;
  std::optional<Problem> bad_params;
  for (auto& [key, value] : document->items()) {
    if (key == "jsonrpc") {
      has_version = true;
      if (value != "2.0") complain("\"jsonrpc\" is " + describe(value) + "; wanted \"2.0\"");
    } else if (key == "id") {
      request.notification = false;
      if (is_id(value)) {
        request.id = std::move(value);
      } else {
        complain("\"id\" is " + describe(value) + "; wanted a string, a whole number or null");
      }
    } else if (key == "method") {
      has_method = true;
      if (value.is_string() && !value.get_ref<const std::string&>().empty()) {
        request.method = std::move(value.get_ref<std::string&>());
      } else {
        complain("\"method\" is " + describe(value) + "; wanted the name of a method");
      }
    } else if (key == "params") {
      if (value.is_object()) {
        request.params = std::move(value);
      } else {
        bad_params =
            Problem{"invalid_params", {}, "\"params\" is " + describe(value) + "; wanted an object, or no \"params\""};
      }
    } else {
      complain("unknown member " + in_quotes(key) + "; a request has \"jsonrpc\", \"id\", \"method\" and \"params\"");
    }
  }
  if (!has_version) complain("\"jsonrpc\" is missing; wanted \"2.0\"");
  if (!has_method) complain("\"method\" is missing; wanted the name of a method");

  // What is not a request is said first. A well-formed notification gets no answer, not even about its params.
  if (bad_params && (!problems.empty() || !request.notification)) config::add_problem(problems, std::move(*bad_params));
  if (!problems.empty()) return std::unexpected(BadRequest{std::move(request.id), refuse(std::move(problems))});
  return request;
}

std::string result_line(const Json& id, const Json& result) {
  // Put together as text, since a state may be large and a document around it would be a copy of it.
  return R"({"jsonrpc":"2.0","id":)" + dump(id) + R"(,"result":)" + dump(result) + "}\n";
}

std::string error_line(const Json& id, const RpcError& error) {
  Json problems = Json::array();
  for (const Problem& problem : error.problems) problems.push_back(as_json(problem));
  if (problems.empty()) problems.push_back(as_json({error.name, error.pointer, error.message}));
  Json data = {{"name", error.name}, {"pointer", error.pointer}, {"problems", std::move(problems)}};
  const Json body = {{"code", code_for(error.name)}, {"message", error.message}, {"data", std::move(data)}};
  return R"({"jsonrpc":"2.0","id":)" + dump(id) + R"(,"error":)" + dump(body) + "}\n";
}

std::string notification_line(std::string_view method, const Json& params) {
  return R"({"jsonrpc":"2.0","method":)" + dump(method) + R"(,"params":)" + dump(params) + "}\n";
}

}  // namespace trunkline::control
