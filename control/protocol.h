// SPDX-License-Identifier: BSD-3-Clause
//
// The words of the control protocol (docs/control-protocol.md) as values: one line in becomes a Request or a refusal,
// a result or a refusal becomes one line out. Nothing here knows about sockets or about what the methods do.
//
// Rules:
//  * An error's code follows from its name by one table; a name that the table does not have is a defect of the engine
//    and travels with the code of `internal`.
//  * Every line built here is one line: it ends in the only '\n' it has, and is valid UTF-8 whatever the strings hold.
//  * A request is refused whole, and all that is wrong with its frame is told at once.
//
// Pure functions, safe on any input and from any thread. They throw nothing but std::bad_alloc.
#pragma once

#include <cstddef>
#include <expected>
#include <optional>
#include <string>
#include <string_view>

#include "config/json_reader.h"
#include "config/problem.h"

namespace trunkline::control {

// What a method answers when it does not do what was asked.
struct RpcError {
  std::string name;     // "duplicate_vlan", ...; the code comes from it
  std::string message;
  std::string pointer;  // into the request's params, "" is all of them
  // All that was found, the first of them on top as well. Empty: name, message and pointer are the one problem.
  config::Problems problems;
};

// The first problem on top. An empty list is a defect of the caller and becomes `internal`.
RpcError refuse(config::Problems problems);

// The table of the protocol page. nullopt: no such name.
std::optional<int> find_error_code(std::string_view name);
// The same, with the code of `internal` for a name that is not in the table.
int code_for(std::string_view name);

struct Request {
  config::Json id;            // a string, an integer or null
  bool notification = false;  // no id at all: to be ignored without an answer
  std::string method;
  config::Json params = config::Json::object();
};

struct BadRequest {
  config::Json id;  // null if it cannot be told
  RpcError error;   // parse_error, invalid_request, invalid_params; limit: the connection has to be closed
};

// `line` is without its '\n'.
std::expected<Request, BadRequest> parse_request(std::string_view line, std::size_t max_bytes, std::size_t max_depth);

std::string result_line(const config::Json& id, const config::Json& result);
std::string error_line(const config::Json& id, const RpcError& error);
std::string notification_line(std::string_view method, const config::Json& params);

}  // namespace trunkline::control
