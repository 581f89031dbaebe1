// SPDX-License-Identifier: BSD-3-Clause
//
// First half: text to document, over nlohmann's SAX interface, since its DOM parser keeps the last of two equal keys
// without a word. Second half: ObjectReader.
#include "config/json_reader.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "config/words.h"

namespace trunkline::config {
namespace {

using words::describe;
using words::in_quotes;
using words::shorten;

// A line and a column as editors count them, from the offset of a byte.
std::string place_of(std::string_view text, std::size_t offset) {
  const std::string_view before = text.substr(0, std::min(offset, text.size()));
  const auto line = 1 + std::count(before.begin(), before.end(), '\n');
  const std::size_t newline = before.rfind('\n');
  const std::size_t column = newline == std::string_view::npos ? before.size() + 1 : before.size() - newline;
  return "line " + std::to_string(line) + ", column " + std::to_string(column);
}

// What nlohmann says, without its own name and without the part that repeats the input (which may be long, or not
// UTF-8):
// "[json...101] parse error at line 1, column 2: syntax error while parsing object key - invalid literal; last read:
// '{x'; expected string literal" becomes "invalid literal while reading the object key; expected string literal".
std::string shorten_syntax_error(std::string_view what) {
  if (what.find("number overflow") != std::string_view::npos) return "a number that is too large";
  const std::size_t quote = std::min(what.find("; last read: '"), what.size());
  const std::size_t expected = what.rfind("; expected ");
  std::string_view reason = what.substr(0, std::min(quote, expected));
  if (const std::size_t at = reason.find(": "); at != std::string_view::npos) reason.remove_prefix(at + 2);
  std::string_view where;
  constexpr std::string_view lead = "syntax error while parsing ";
  if (const std::size_t dash = reason.find(" - "); reason.starts_with(lead) && dash != std::string_view::npos) {
    where = reason.substr(lead.size(), dash - lead.size());
    reason.remove_prefix(dash + 3);
  }
  std::string text(reason);
  if (!where.empty()) text.append(" while reading the ").append(where);
  // What was expected stands behind the quotation, or before it when the lexer itself complains.
  if (expected != std::string_view::npos) {
    text += expected < quote ? what.substr(expected, quote - expected) : what.substr(expected);
  }
  std::replace_if(
      text.begin(), text.end(), [](char c) { return c < 0x20 || c > 0x7e; }, '?');
  return shorten(text, 200);
}

// Builds the document and stops at the first thing that is wrong with it.
class Builder {
 public:
  Builder(std::string_view text, const JsonLimits& limits) : text_(text), limits_(limits) {}

  bool null() { return put(nullptr) != nullptr; }
  bool boolean(bool value) { return put(value) != nullptr; }
  bool number_integer(Json::number_integer_t value) { return put(value) != nullptr; }
  bool number_unsigned(Json::number_unsigned_t value) { return put(value) != nullptr; }
  bool number_float(Json::number_float_t value, const std::string&) {
    if (!std::isfinite(value)) return refuse("parse_error", "a number that is too large");
    return put(value) != nullptr;
  }
  bool string(std::string& value) { return put(std::move(value)) != nullptr; }
  bool binary(Json::binary_t&) { return refuse("parse_error", "binary data is not JSON"); }
  bool start_object(std::size_t) { return open(Json::object()); }
  bool start_array(std::size_t) { return open(Json::array()); }
  bool end_object() { return close(); }
  bool end_array() { return close(); }

  bool key(std::string& name) {
    Level& level = levels_.back();
    if (level.container->contains(name)) {
      return refuse("parse_error", "the key " + in_quotes(name) + " is given twice, at \"" +
                                       shorten(pointer_to(path(), name), 200) + "\"; keep one of them");
    }
    level.key = std::move(name);
    return true;
  }

  bool parse_error(std::size_t position, const std::string&, const Json::exception& error) {
    return refuse("parse_error",
                  place_of(text_, position > 0 ? position - 1 : 0) + ": " + shorten_syntax_error(error.what()));
  }

  std::expected<Json, Problem> result() && {
    if (problem_) return std::unexpected(std::move(*problem_));
    return std::move(root_);
  }

 private:
  struct Level {
    Json* container;
    std::string key;
  };

  Json* put(Json value) {
    if (levels_.empty()) {
      root_ = std::move(value);
      return &root_;
    }
    Level& level = levels_.back();
    if (level.container->is_array()) {
      level.container->push_back(std::move(value));
      return &level.container->back();
    }
    Json& slot = (*level.container)[level.key];
    slot = std::move(value);
    return &slot;
  }

  bool open(Json empty) {
    if (levels_.size() >= limits_.max_depth) {
      return refuse("limit", "the document is more than " + std::to_string(limits_.max_depth) + " levels deep");
    }
    // Only the innermost container grows, so the addresses of those around it stay.
    levels_.push_back({put(std::move(empty)), {}});
    return true;
  }

  bool close() {
    levels_.pop_back();
    return true;
  }

  bool refuse(std::string name, std::string message) {
    if (!problem_) problem_ = Problem{std::move(name), {}, std::move(message)};
    return false;
  }

  std::string path() const {
    std::string pointer;
    for (std::size_t i = 0; i + 1 < levels_.size(); ++i) {
      const Level& level = levels_[i];
      pointer = level.container->is_array() ? pointer_to(pointer, level.container->size() - 1)
                                            : pointer_to(pointer, level.key);
    }
    return pointer;
  }

  std::string_view text_;
  const JsonLimits& limits_;
  Json root_;
  std::vector<Level> levels_;
  std::optional<Problem> problem_;
};

std::string is_but_wanted(std::string_view key, const Json& found, std::string_view wanted) {
  return in_quotes(key) + " is " + describe(found) + "; wanted " + std::string(wanted);
}

// How many single-letter mistakes lie between two words: a letter missing, added, replaced, or two swapped.
std::size_t mistakes_between(std::string_view a, std::string_view b) {
  std::vector<std::size_t> before, previous, row(b.size() + 1);
  for (std::size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (std::size_t i = 1; i <= a.size(); ++i) {
    before = std::exchange(previous, row);
    row[0] = i;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      row[j] = std::min({previous[j] + 1, row[j - 1] + 1, previous[j - 1] + (a[i - 1] == b[j - 1] ? 0U : 1U)});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) row[j] = std::min(row[j], before[j - 2] + 1);
    }
  }
  return row[b.size()];
}

// A JSON number without a fraction, as int64; 5.0 counts, as in JSON Schema. nullopt: not one, or beyond int64.
std::optional<std::int64_t> whole_number(const Json& value) {
  if (value.is_number_unsigned()) {
    const auto number = value.get<std::uint64_t>();
    if (number > static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max())) return std::nullopt;
    return static_cast<std::int64_t>(number);
  }
  if (value.is_number_integer()) return value.get<std::int64_t>();
  if (value.is_number_float()) {
    const double number = value.get<double>();
    constexpr double exact = 9007199254740992.0;  // 2^53: beyond it a double skips whole numbers
    if (std::isfinite(number) && std::abs(number) <= exact && std::trunc(number) == number) {
      return static_cast<std::int64_t>(number);
    }
  }
  return std::nullopt;
}

constexpr std::string_view kWantedMac = "a MAC address such as \"0a:47:e4:7a:2b:02\"";
constexpr std::string_view kWantedAddress = "an IPv4 or IPv6 address such as \"10.0.0.35\"";
constexpr std::string_view kWantedPrefix = "an address and a prefix length such as \"10.0.0.0/24\"";

}  // namespace

namespace {

bool is_utf16(std::string_view text) {
  if (text.starts_with("\xff\xfe") || text.starts_with("\xfe\xff")) return true;
  return text.size() >= 2 && ((text[0] == '\0') != (text[1] == '\0'));
}

}  // namespace

std::expected<Json, Problem> parse_json(std::string_view text, const JsonLimits& limits) {
  if (text.size() > limits.max_bytes) {
    return std::unexpected(Problem{"limit",
                                   {},
                                   "the document has " + std::to_string(text.size()) + " bytes; at most " +
                                       std::to_string(limits.max_bytes) + " are read"});
  }
  if (is_utf16(text)) {
    return std::unexpected(Problem{"parse_error", {}, "line 1, column 1: the text is UTF-16; wanted UTF-8, so save it as that"});
  }
  // To nlohmann's lexer a zero byte is the end of the text, and what follows it would never be looked at.
  if (const std::size_t zero = text.find('\0'); zero != std::string_view::npos) {
    return std::unexpected(Problem{"parse_error", {}, place_of(text, zero) + ": a zero byte is not JSON"});
  }
  Builder builder(text, limits);
  Json::sax_parse(text.begin(), text.end(), &builder, Json::input_format_t::json, true, limits.comments);
  return std::move(builder).result();
}

namespace {

// The pointer without the indices of lists: "/SecurityGroups/3/Tags" becomes "SecurityGroups[].Tags".
std::string name_of(std::string_view pointer) {
  std::string name;
  while (!pointer.empty()) {
    pointer.remove_prefix(1);
    const std::size_t end = std::min(pointer.find('/'), pointer.size());
    const std::string_view part = pointer.substr(0, end);
    const bool is_index = !part.empty() && std::ranges::all_of(part, [](char c) { return c >= '0' && c <= '9'; });
    if (is_index) {
      name += "[]";
    } else {
      name += (name.empty() ? "" : ".") + std::string(part);
    }
    pointer.remove_prefix(end);
  }
  return name;
}

// A value that says nothing: nothing is lost if it is not read.
bool says_nothing(const Json& value) {
  return value.is_null() || value == false || ((value.is_string() || value.is_structured()) && value.empty());
}

}  // namespace

void UnreadKeys::add(const std::string& pointer, std::string_view key) {
  std::string place = pointer_to(pointer, shorten(key));
  std::string name = name_of(place);
  auto found = names_.find(name);
  if (found == names_.end()) {
    if (names_.size() >= kMaxNames) {
      ++more_;
      return;
    }
    found = names_.try_emplace(std::move(name), std::move(place), 0).first;
  }
  ++found->second.count;
}

std::vector<std::string> UnreadKeys::sentences() const {
  std::vector<std::string> result;
  for (const auto& [name, found] : names_) {
    result.push_back(in_quotes(shorten(name, 200)) + " was not read: the engine does not know it (" +
                     (found.count == 1 ? "at " : std::to_string(found.count) + " times, first at ") + in_quotes(shorten(found.first, 200)) + ")");
  }
  if (more_ != 0) result.push_back(std::to_string(more_) + " members more, of other names, were not read");
  return result;
}

std::string pointer_to(std::string_view parent, std::string_view key) {
  std::string pointer(parent);
  pointer += '/';
  for (const char c : key) {
    if (c == '~') {
      pointer += "~0";
    } else if (c == '/') {
      pointer += "~1";
    } else {
      pointer += c;
    }
  }
  return pointer;
}

std::string pointer_to(std::string_view parent, std::size_t index) {
  return std::string(parent) + '/' + std::to_string(index);
}

ObjectReader::ObjectReader(const Json& value, std::string pointer, Problems& problems)
    : pointer_(std::move(pointer)), problems_(problems) {
  if (value.is_object()) {
    object_ = &value;
  } else {
    add_problem(problems_, {"invalid_params", pointer_, "found " + describe(value) + " here; wanted an object"});
  }
}

bool ObjectReader::has(std::string_view key) const {
  if (object_ == nullptr) return false;
  const auto found = object_->find(key);
  return found != object_->end() && !found->is_null();
}

const Json* ObjectReader::find(std::string_view key) {
  known_.emplace(key);
  if (object_ == nullptr) return nullptr;
  const auto found = object_->find(key);
  if (found == object_->end() || (found->is_null() && !null_refused_)) return nullptr;
  return &*found;
}

void ObjectReader::wrong_type(std::string_view key, std::string_view wanted, const Json& found) {
  complain(key, "invalid_params", is_but_wanted(key, found, wanted));
}

std::optional<std::string> ObjectReader::text(std::string_view key) {
  const Json* value = find(key);
  if (value == nullptr) return std::nullopt;
  if (value->is_string()) return value->get<std::string>();
  wrong_type(key, "a string", *value);
  return std::nullopt;
}

std::optional<bool> ObjectReader::boolean(std::string_view key) {
  const Json* value = find(key);
  if (value == nullptr) return std::nullopt;
  if (value->is_boolean()) return value->get<bool>();
  wrong_type(key, "true or false", *value);
  return std::nullopt;
}

std::optional<std::int64_t> ObjectReader::integer(std::string_view key, std::int64_t least, std::int64_t most) {
  const Json* value = find(key);
  if (value == nullptr) return std::nullopt;
  const auto number = whole_number(*value);
  if (number && *number >= least && *number <= most) return number;
  wrong_type(key,
             least == most ? std::to_string(least)
                           : "a whole number from " + std::to_string(least) + " to " + std::to_string(most),
             *value);
  return std::nullopt;
}

std::optional<double> ObjectReader::number(std::string_view key, double least, double most) {
  const Json* value = find(key);
  if (value == nullptr) return std::nullopt;
  if (value->is_number()) {
    const double number = value->get<double>();
    if (number >= least && number <= most) return number;
  }
  wrong_type(key, "a number from " + words::dump(least) + " to " + words::dump(most), *value);
  return std::nullopt;
}

std::optional<MacAddress> ObjectReader::mac(std::string_view key) {
  const Json* value = find(key);
  if (value == nullptr) return std::nullopt;
  if (value->is_string()) {
    if (const auto mac = MacAddress::parse(value->get_ref<const std::string&>())) return mac;
  }
  wrong_type(key, kWantedMac, *value);
  return std::nullopt;
}

std::optional<IpAddress> ObjectReader::address(std::string_view key) {
  const Json* value = find(key);
  if (value == nullptr) return std::nullopt;
  if (value->is_string()) {
    if (const auto address = IpAddress::parse(value->get_ref<const std::string&>())) return address;
  }
  wrong_type(key, kWantedAddress, *value);
  return std::nullopt;
}

std::optional<IpPrefix> ObjectReader::prefix(std::string_view key) {
  const Json* value = find(key);
  if (value == nullptr) return std::nullopt;
  if (value->is_string()) {
    if (const auto prefix = IpPrefix::parse(value->get_ref<const std::string&>())) return prefix;
  }
  wrong_type(key, kWantedPrefix, *value);
  return std::nullopt;
}

std::optional<IpPrefix> ObjectReader::network(std::string_view key) {
  const auto found = prefix(key);
  return found ? std::optional(found->network()) : std::nullopt;
}

std::vector<std::string> ObjectReader::texts(std::string_view key) {
  std::vector<std::string> result;
  const Json* list = array(key);
  if (list == nullptr) return result;
  for (std::size_t i = 0; i < list->size(); ++i) {
    const Json& value = (*list)[i];
    if (value.is_string()) {
      result.push_back(value.get<std::string>());
    } else {
      complain_at(key, i, value, "a string");
    }
  }
  return result;
}

std::vector<IpAddress> ObjectReader::addresses(std::string_view key) {
  std::vector<IpAddress> result;
  const Json* list = array(key);
  if (list == nullptr) return result;
  for (std::size_t i = 0; i < list->size(); ++i) {
    const Json& value = (*list)[i];
    const auto address = value.is_string() ? IpAddress::parse(value.get_ref<const std::string&>()) : std::nullopt;
    if (address) {
      result.push_back(*address);
    } else {
      complain_at(key, i, value, kWantedAddress);
    }
  }
  return result;
}

std::vector<IpPrefix> ObjectReader::networks(std::string_view key) {
  std::vector<IpPrefix> result;
  const Json* list = array(key);
  if (list == nullptr) return result;
  for (std::size_t i = 0; i < list->size(); ++i) {
    const Json& value = (*list)[i];
    const auto prefix = value.is_string() ? IpPrefix::parse(value.get_ref<const std::string&>()) : std::nullopt;
    if (prefix) {
      result.push_back(prefix->network());
    } else {
      complain_at(key, i, value, kWantedPrefix);
    }
  }
  return result;
}

const Json* ObjectReader::object(std::string_view key) {
  const Json* value = find(key);
  if (value == nullptr || value->is_object()) return value;
  wrong_type(key, "an object", *value);
  return nullptr;
}

const Json* ObjectReader::array(std::string_view key) {
  const Json* value = find(key);
  if (value == nullptr || value->is_array()) return value;
  wrong_type(key, "a list", *value);
  return nullptr;
}

const Json* ObjectReader::any(std::string_view key) { return find(key); }

std::string ObjectReader::required_text(std::string_view key) {
  if (find(key) == nullptr) {
    missing(key, "a string");
    return {};
  }
  const auto value = text(key);
  if (value && value->empty())
    complain(key, "invalid_params", in_quotes(key) + " is empty; wanted a string with something in it");
  return value.value_or("");
}

void ObjectReader::complain(std::string_view key, std::string name, std::string message) {
  add_problem(problems_, {std::move(name), pointer_to(key), std::move(message)});
}

void ObjectReader::complain_at(std::string_view key, std::size_t index, const Json& found, std::string_view wanted) {
  add_problem(problems_, {"invalid_params", config::pointer_to(pointer_to(key), index),
                          "entry " + std::to_string(index) + " of " + in_quotes(key) + " is " + describe(found) +
                              "; wanted " + std::string(wanted)});
}

void ObjectReader::missing(std::string_view key, std::string_view what) {
  if (object_ == nullptr) return;  // told already
  add_problem(problems_,
              {"invalid_params", pointer_to(key), in_quotes(key) + " is missing; wanted " + std::string(what)});
}

// The known key that is spelled nearly so: at most as many letters are wrong. `absent_only`: of those that were asked for in vain.
std::string_view ObjectReader::nearest_known(std::string_view key, std::size_t most_mistakes, bool absent_only) const {
  std::string_view nearest;
  std::size_t fewest = most_mistakes + 1;
  if (key.size() > 64) return nearest;
  for (const std::string& known : known_) {
    if (absent_only && (ignored_.contains(known) || has(known))) continue;
    if (key.size() > known.size() + most_mistakes || known.size() > key.size() + most_mistakes) continue;
    const std::size_t mistakes = mistakes_between(key, known);
    if (mistakes < fewest && mistakes < known.size()) {
      fewest = mistakes;
      nearest = known;
    }
  }
  return nearest;
}

void ObjectReader::tell_unread() {
  for (const auto& [key, value] : object_->items()) {
    if (known_.contains(key) || says_nothing(value)) continue;
    const std::string_view meant = nearest_known(key, 2, true);
    if (meant.empty()) {
      unread_->add(pointer_, key);
    } else {
      complain(key, "invalid_params", "unknown key " + in_quotes(key) + ", and " + in_quotes(meant) + " is missing; if that is meant, spell it so");
    }
  }
}

void ObjectReader::finish() {
  if (object_ == nullptr || std::exchange(finished_, true)) return;
  if (unknown_allowed_) {
    if (unread_ != nullptr) tell_unread();
    return;
  }
  for (const auto& [key, value] : object_->items()) {
    if (known_.contains(key)) continue;
    if (problems_.size() > kMaxProblems) return;
    const std::string_view nearest = nearest_known(key, key.size() <= 3 ? 1 : 2, false);
    std::string message = "unknown key " + in_quotes(key);
    if (!nearest.empty()) {
      message += "; did you mean " + in_quotes(nearest) + "?";
    } else if (!known_.empty() && known_.size() <= 24) {
      message += "; known here:";
      for (const std::string& known : known_) message += (known == *known_.begin() ? " " : ", ") + known;
    }
    complain(key, "invalid_params", std::move(message));
  }
}

}  // namespace trunkline::config
