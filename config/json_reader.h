// SPDX-License-Identifier: BSD-3-Clause
//
// Reading JSON from outside without trusting it. Two steps:
//
//  1. parse_json() turns text into a document, refusing what nlohmann's DOM would let through silently: duplicate keys,
//     more than `max_depth` levels, more than `max_bytes`, invalid UTF-8, numbers that are not finite. A syntax error
//     says line and column (`parse_error`; too deep and too long are `limit`).
//  2. ObjectReader takes one object apart by name. Each of its readers (text(), integer(), ...) checks the type and the range, notes the
//     place, and marks the key as known; finish() reports what nobody asked for. All complaints go to one list, so that a bad
//     document is told everything at once.
//
//     A document of somebody else's (AWS's) may have members that nobody here reads: allow_unknown(). With an UnreadKeys they
//     are collected there, each name once, unless they say nothing (null, false, an empty text or list) or look like a
//     misspelling of a member that is read and absent: that is a problem, since absent is not empty.
//
//     ObjectReader reader(document, "/port", problems);
//     spec.ifname = reader.text("ifname").value_or("eth0");
//     spec.mtu = reader.integer("mtu", 68, 9216).value_or(9001);
//     reader.finish();
//
// The functions throw nothing and are safe on any input. Control thread and tests only.
#pragma once

#include <cstdint>
#include <expected>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "config/net.h"
#include "config/problem.h"

namespace trunkline::config {

using Json = nlohmann::json;

struct JsonLimits {
  std::size_t max_bytes = 1 << 20;
  std::size_t max_depth = 32;
  bool comments = false;  // the config file may have them, the wire may not
};

std::expected<Json, Problem> parse_json(std::string_view text, const JsonLimits& limits = {});

// RFC 6901: '~' and '/' in a key are escaped.
std::string pointer_to(std::string_view parent, std::string_view key);
std::string pointer_to(std::string_view parent, std::size_t index);

// Members of somebody else's documents that say something and were not read: each name once, with its place and count.
class UnreadKeys {
 public:
  void add(const std::string& pointer, std::string_view key);
  // One for each name, at most kMaxNames of them.
  std::vector<std::string> sentences() const;

 private:
  static constexpr std::size_t kMaxNames = 32;
  struct Found {
    std::string first;  // pointer to the first one
    std::size_t count = 0;
  };
  std::map<std::string, Found, std::less<>> names_;  // by pointer without the indices
  std::size_t more_ = 0;                             // that had no room
};

class ObjectReader {
 public:
  // If `value` is not an object that is a problem, and every take finds nothing.
  ObjectReader(const Json& value, std::string pointer, Problems& problems);

  bool has(std::string_view key) const;  // present and not null
  std::optional<std::string> text(std::string_view key);
  std::optional<bool> boolean(std::string_view key);
  std::optional<std::int64_t> integer(std::string_view key, std::int64_t least, std::int64_t most);
  std::optional<double> number(std::string_view key, double least, double most);
  std::optional<MacAddress> mac(std::string_view key);
  std::optional<IpAddress> address(std::string_view key);
  std::optional<IpPrefix> prefix(std::string_view key);      // host bits kept
  std::optional<IpPrefix> network(std::string_view key);     // host bits cleared
  std::vector<std::string> texts(std::string_view key);      // a list of strings, absent is empty
  std::vector<IpAddress> addresses(std::string_view key);
  std::vector<IpPrefix> networks(std::string_view key);      // host bits cleared
  const Json* object(std::string_view key);                  // nullptr if absent; a problem if not an object
  const Json* array(std::string_view key);                   // the same for an array
  const Json* any(std::string_view key);
  // The same as above, but absence is a problem, and so is an empty string.
  std::string required_text(std::string_view key);

  // A key that is allowed and of no interest.
  void ignore(std::string_view key) {
    known_.emplace(key);
    ignored_.emplace(key);
  }
  template <typename Keys>
  void ignore_all(const Keys& keys) {
    for (const auto& key : keys) ignore(key);
  }
  // Keys of others' documents come and go: no complaint about unknown ones. `unread` is told of them, if there is one.
  void allow_unknown(UnreadKeys* unread = nullptr) {
    unknown_allowed_ = true;
    unread_ = unread;
  }
  UnreadKeys* unread() const { return unread_; }
  // The object is left out as a whole, and the caller says so: finish() says nothing about its keys.
  void leave_out() {
    unknown_allowed_ = true;
    unread_ = nullptr;
  }
  // AWS's tools print null for what is not there, so null counts as absent. In our own shapes it is a wrong type:
  // "vlan": null could mean "forget the VLAN", and nothing here does that.
  void refuse_null() { null_refused_ = true; }
  // Complains about a known key's value, in the caller's words.
  void complain(std::string_view key, std::string name, std::string message);
  // The same for one entry of a list, with a sentence made from what it is and what is wanted.
  void complain_at(std::string_view key, std::size_t index, const Json& found, std::string_view wanted);
  void missing(std::string_view key, std::string_view what);
  // Reports unknown keys, with the nearest known spelling when there is one. A second call does nothing.
  void finish();

  const std::string& pointer() const { return pointer_; }
  std::string pointer_to(std::string_view key) const { return config::pointer_to(pointer_, key); }
  Problems& problems() { return problems_; }

 private:
  const Json* find(std::string_view key);
  void tell_unread();
  std::string_view nearest_known(std::string_view key, std::size_t most_mistakes, bool absent_only) const;
  void wrong_type(std::string_view key, std::string_view wanted, const Json& found);

  const Json* object_ = nullptr;
  std::string pointer_;
  Problems& problems_;
  std::set<std::string> known_;
  std::set<std::string> ignored_;  // of these the ones that ignore() named
  bool unknown_allowed_ = false;
  UnreadKeys* unread_ = nullptr;
  bool null_refused_ = false;
  bool finished_ = false;
};

}  // namespace trunkline::config
