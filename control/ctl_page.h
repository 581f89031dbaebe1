// SPDX-License-Identifier: BSD-3-Clause
//
// What a page of trunkctl is made of: cells, tables, and values of an answer made text. Whatever comes out of an answer is made safe for a
// terminal on its way into a cell. AnswerError: an answer is not as the protocol has it.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "control/ctl_client.h"

namespace trunkline::control {

struct Style {
  bool headers = true;
  bool colour = false;
};

class AnswerError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

enum class Colour { none, green, yellow, red, bold };

struct Cell {
  Cell(std::string words, Colour colour_of = Colour::none) : text(std::move(words)), colour(colour_of) {}
  std::string text;
  Colour colour;
};

// Rows under headers, each column as wide as its widest cell, two spaces between. A header that begins with '>' is of a
// column of numbers, aligned to the right.
class Table {
 public:
  explicit Table(std::vector<std::string_view> headers) : headers_(std::move(headers)) {}
  void row(std::vector<Cell> cells) { rows_.push_back(std::move(cells)); }
  std::string text(const Style& style) const;

 private:
  std::vector<std::string_view> headers_;
  std::vector<std::vector<Cell>> rows_;
};

// Two columns without headers: what, and how it is.
class Page {
 public:
  void line(const std::string& key, Cell value) { table_.row({key, std::move(value)}); }
  std::string text(const Style& style) const { return table_.text({.headers = false, .colour = style.colour}); }

 private:
  Table table_{{"", ""}};
};

std::string painted(const std::string& text, Colour colour, const Style& style);

// Text from elsewhere made safe for a terminal: each control character becomes '?'. Newlines too.
std::string printable(std::string_view text);

inline constexpr std::string_view kEmpty = "-";  // what is missing

// Null where there is none.
const Json& member(const Json& object, std::string_view key);
// Any value in one cell: lists joined by commas, objects as key=value.
std::string text(const Json& value);
inline std::string text(const Json& object, std::string_view key) { return text(member(object, key)); }
// Counters are what a page is about: one that is no number is an answer gone wrong, not a dash.
std::uint64_t number(const Json& object, std::string_view key);
const Json& list_of_texts(const Json& object, const char* key);
// The elements of result[member], all objects, or AnswerError.
const Json& list_of(const Json& result, const char* member);

}  // namespace trunkline::control
