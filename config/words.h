// SPDX-License-Identifier: BSD-3-Clause
//
// Pieces of the sentences that this room says. What came from outside is cut short and made printable before it stands
// in one: a message travels as JSON itself, and a bad byte or a megabyte of input must not travel with it.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace trunkline::config::words {

// At most `limit` bytes of `text`, and never half a UTF-8 character.
inline std::string shorten(std::string_view text, std::size_t limit = 64) {
  if (text.size() <= limit) return std::string(text);
  while (limit > 0 && (static_cast<unsigned char>(text[limit]) & 0xc0) == 0x80) --limit;
  return std::string(text.substr(0, limit)) + "...";
}

inline std::string dump(const nlohmann::json& value) {
  return value.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

inline std::string in_quotes(std::string_view text) { return dump(nlohmann::json(shorten(text))); }

// A value as it can stand after "is".
inline std::string describe(const nlohmann::json& value) {
  if (value.is_null()) return "null";
  if (value.is_object()) return "an object";
  if (value.is_array()) return value.empty() ? "an empty list" : "a list";
  if (value.is_string()) return in_quotes(value.get_ref<const std::string&>());
  return shorten(dump(value));
}

}  // namespace trunkline::config::words
