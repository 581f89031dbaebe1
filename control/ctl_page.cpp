// SPDX-License-Identifier: BSD-3-Clause
#include "control/ctl_page.h"

#include <algorithm>

namespace trunkline::control {
namespace {

std::string_view escape(Colour colour) {
  switch (colour) {
    case Colour::green: return "\033[32m";
    case Colour::yellow: return "\033[33m";
    case Colour::red: return "\033[31m";
    case Colour::bold: return "\033[1m";
    case Colour::none: break;
  }
  return "";
}

// Characters, not bytes: what is not the continuation of a UTF-8 sequence.
std::size_t width(std::string_view text) {
  return static_cast<std::size_t>(
      std::count_if(text.begin(), text.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; }));
}

}  // namespace

std::string painted(const std::string& text, Colour colour, const Style& style) {
  if (!style.colour || colour == Colour::none) return text;
  return std::string(escape(colour)) + text + "\033[0m";
}

std::string printable(std::string_view from) {
  std::string out;
  out.reserve(from.size());
  for (std::size_t i = 0; i < from.size(); ++i) {
    const auto c = static_cast<unsigned char>(from[i]);
    const bool c1 = c == 0xC2 && i + 1 < from.size() && static_cast<unsigned char>(from[i + 1]) < 0xA0;
    if (c1) ++i;
    out += c < 0x20 || c == 0x7F || c1 ? '?' : from[i];
  }
  return out;
}

const Json& member(const Json& object, std::string_view key) {
  static const Json nothing;
  if (!object.is_object()) return nothing;
  const auto found = object.find(std::string(key));
  return found == object.end() ? nothing : *found;
}

std::string text(const Json& value) {
  std::string out;
  if (value.is_string()) {
    out = printable(value.get_ref<const std::string&>());
  } else if (value.is_array()) {
    for (const Json& element : value) out += (out.empty() ? "" : ",") + text(element);
  } else if (value.is_object()) {
    for (const auto& [key, element] : value.items())
      out += (out.empty() ? "" : " ") + printable(key) + "=" + text(element);
  } else if (value.is_boolean()) {
    out = value.get<bool>() ? "yes" : "no";
  } else if (!value.is_null()) {
    out = value.dump();
  }
  return out.empty() ? std::string(kEmpty) : out;
}

std::uint64_t number(const Json& object, std::string_view key) {
  const Json& value = member(object, key);
  if (!value.is_number_unsigned()) throw AnswerError("\"" + std::string(key) + "\" is not a count");
  return value.get<std::uint64_t>();
}

const Json& list_of_texts(const Json& object, const char* key) {
  const Json& list = member(object, key);
  if (!list.is_array()) throw AnswerError("\"" + std::string(key) + "\" is not a list");
  return list;
}

const Json& list_of(const Json& result, const char* name) {
  const Json& list = member(result, name);
  if (!list.is_array()) throw AnswerError("\"" + std::string(name) + "\" is not a list");
  for (const Json& element : list) {
    if (!element.is_object()) throw AnswerError("an element of \"" + std::string(name) + "\" is not an object");
  }
  return list;
}

std::string Table::text(const Style& style) const {
  const auto name = [&](std::size_t column) {
    return headers_[column].starts_with('>') ? headers_[column].substr(1) : headers_[column];
  };
  std::vector<std::size_t> widths(headers_.size());
  for (std::size_t c = 0; c < headers_.size(); ++c) {
    if (style.headers) widths[c] = width(name(c));
    for (const auto& cells : rows_) widths[c] = std::max(widths[c], width(cells[c].text));
  }
  std::string out;
  const auto line = [&](const auto& cell_of) {
    for (std::size_t c = 0; c < headers_.size(); ++c) {
      const Cell cell = cell_of(c);
      const std::string pad(widths[c] - width(cell.text), ' ');
      const bool right = headers_[c].starts_with('>');
      const bool last = c + 1 == headers_.size();
      out += (right ? pad : "") + painted(cell.text, cell.colour, style) + (right || last ? "" : pad) +
             (last ? "\n" : "  ");
    }
  };
  if (style.headers) line([&](std::size_t c) { return Cell(std::string(name(c)), Colour::bold); });
  for (const auto& cells : rows_) line([&](std::size_t c) { return cells[c]; });
  return out;
}

}  // namespace trunkline::control
