// SPDX-License-Identifier: BSD-3-Clause
//
// What reading every AWS document needs: walking its lists, and the names as AWS spells them, resource ids
// ("eni-b0aaa4b2") and ARNs ("arn:aws:ecs:...:task/cluster/id"). The names come from outside and end up in file names
// (a task's network namespace), so what they may contain is checked where they enter.
//
// Control thread and tests only.
#pragma once

#include <algorithm>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "config/json_reader.h"
#include "config/words.h"

namespace trunkline::control {

constexpr bool is_alphanumeric(char c) {
  return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

// "<prefix>-" and 1..32 letters and digits. AWS uses 8 or 17 hex digits today; it has lengthened its ids once already.
constexpr bool is_aws_id(std::string_view prefix, std::string_view id) {
  if (!id.starts_with(prefix) || id.size() < prefix.size() + 2 || id[prefix.size()] != '-') return false;
  id.remove_prefix(prefix.size() + 1);
  return id.size() <= 32 && std::ranges::all_of(id, is_alphanumeric);
}

// The part of an ARN that names the thing: "arn:...:attachment/1789" -> "1789". A bare id is its own last part.
constexpr std::string_view last_part(std::string_view arn) {
  const std::size_t slash = arn.rfind('/');
  return slash == std::string_view::npos ? arn : arn.substr(slash + 1);
}

// What a task or attachment id may be: UUIDs with or without dashes. Nothing that a path could trip over.
constexpr bool is_plain_id(std::string_view id) {
  return !id.empty() && id.size() <= 64 &&
         std::ranges::all_of(id, [](char c) { return is_alphanumeric(c) || c == '-' || c == '_'; });
}

// Both generations: ".../task/<id>" and ".../task/<cluster>/<id>".
constexpr bool is_task_arn(std::string_view arn) {
  return arn.starts_with("arn:") && arn.find(":task/") != std::string_view::npos && is_plain_id(last_part(arn));
}

// Takes a member that must be there and must be an id with this prefix; complains and answers "" otherwise.
inline std::string take_aws_id(config::ObjectReader& reader, std::string_view key, std::string_view prefix) {
  const std::string wanted = "an id like \"" + std::string(prefix) + "-0a1b2c3d\"";
  const auto found = reader.text(key);
  if (!found) {
    if (!reader.has(key)) reader.missing(key, wanted);
    return {};
  }
  if (is_aws_id(prefix, *found)) return *found;
  reader.complain(key, "invalid_params",
                  std::string(key) + " is " + config::words::in_quotes(*found) + ", but " + wanted +
                      " is wanted; give it as AWS prints it");
  return {};
}

// A CIDR of one family with its host bits cleared, as EC2 itself stores "10.0.0.7/16".
inline std::optional<IpPrefix> read_cidr(config::ObjectReader& reader, std::string_view key, bool v4) {
  const auto prefix = reader.network(key);
  if (!prefix) {
    if (!reader.has(key)) reader.missing(key, v4 ? "a CIDR like \"10.0.0.0/16\"" : "a CIDR like \"2001:db8::/56\"");
    return std::nullopt;
  }
  if (prefix->is_v4() == v4) return prefix;
  reader.complain(key, "invalid_params",
                  std::string(key) + " is " + prefix->to_string() + ", but an IPv" + (v4 ? "4" : "6") +
                      " CIDR is wanted here; the other family has a list of its own");
  return std::nullopt;
}

// An address of the family that the key promises.
inline std::optional<IpAddress> read_address(config::ObjectReader& reader, std::string_view key, bool v4) {
  const auto address = reader.address(key);
  if (!address) {
    if (!reader.has(key))
      reader.missing(key, v4 ? "an address like \"10.0.0.35\"" : "an address like \"2001:db8::35\"");
    return std::nullopt;
  }
  if (address->is_v4() == v4) return address;
  reader.complain(key, "invalid_params",
                  std::string(key) + " is " + address->to_string() + ", but an IPv" + (v4 ? "4" : "6") +
                      " address is wanted here; give each family under its own key");
  return std::nullopt;
}

// Calls `read` with a reader for every element. What AWS adds to its elements over time is told to `unread`, if there is one.
inline void for_each(const config::Json& list, const std::string& pointer, config::Problems& problems, config::UnreadKeys* unread,
                     const std::function<void(config::ObjectReader&)>& read) {
  if (!list.is_array()) {
    add_problem(problems, {"invalid_params", pointer,
                           "here is " + config::words::describe(list) +
                               ", but a list is "
                               "wanted; give the document as the AWS CLI prints it with --output json"});
    return;
  }
  for (std::size_t i = 0; i < list.size(); ++i) {
    config::ObjectReader reader(list[i], config::pointer_to(pointer, i), problems);
    reader.allow_unknown(unread);
    if (!list[i].is_object()) continue;  // told by the reader
    read(reader);
    reader.finish();
  }
}

inline void for_each_in(config::ObjectReader& parent, std::string_view key,
                        const std::function<void(config::ObjectReader&)>& read) {
  if (const config::Json* list = parent.array(key)) for_each(*list, parent.pointer_to(key), parent.problems(), parent.unread(), read);
}

inline void complain_twice(config::ObjectReader& reader, std::string_view key, const std::string& id) {
  reader.complain(key, "invalid_params",
                  id + " is in this document twice, and the engine cannot know which one "
                       "counts; give it once");
}

}  // namespace trunkline::control
