// SPDX-License-Identifier: BSD-3-Clause
//
// One conversation with the engine over its control socket: connect, hear its hello, ask, get the answer. Everything a
// client has to get right about docs/control-protocol.md apart from what the methods mean is here: the framing, the API
// version, the deadline, what an error becomes.
//
// The deadline is one for the whole conversation, and no call outlives it, whatever the other side does or does not do.
// What goes wrong is thrown as a Failure, which already knows what trunkctl prints and exits with.
#pragma once

#include <boost/asio/io_context.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <chrono>
#include <cstddef>
#include <stdexcept>
#include <string>
#include <string_view>

#include "config/json_reader.h"

namespace trunkline::control {

// One reader of JSON for the engine and for trunkctl, so that both take the same texts for the same documents.
using config::Json;

// The exit codes of trunkctl, as the protocol page has them.
enum Exit : int { kDone = 0, kRefused = 1, kUsage = 2, kNotFound = 3, kUnreachable = 4, kConflict = 5 };

// what() is one or more lines for stderr, without "trunkctl: " in front of each.
class Failure : public std::runtime_error {
 public:
  Failure(Exit exit_code, const std::string& lines) : std::runtime_error(lines), exit_code_(exit_code) {}
  Exit exit_code() const { return exit_code_; }

 private:
  Exit exit_code_;
};

class Client {
 public:
  static constexpr int kApiMajor = 1;
  static constexpr std::size_t kMaxRequest = 1u << 20;  // the protocol's limit of a line, its newline included
  static constexpr std::size_t kMaxDepth = 64;           // of an answer's objects and lists
  static constexpr std::size_t kMaxState = 64u << 20;   // the same of state.replace
  static constexpr std::size_t kMaxAnswer = 64u << 20;  // no engine says that much; a broken one might

  // Connects and hears the hello, or throws.
  Client(std::string socket_path, std::chrono::milliseconds timeout);

  // `params` of the engine's hello.
  const Json& hello() const { return hello_; }

  // The `result` of one request. `changes` only matters to the words of a failure: whether something may have been
  // done.
  Json call(std::string_view method, const Json& params, bool changes = false);

  // Starts the deadline anew, for those who ask again and again.
  void extend(std::chrono::milliseconds timeout);

 private:
  using Clock = std::chrono::steady_clock;

  void connect();
  void hear_hello();
  Json read_message(std::string_view waiting_for);
  template <typename Start>
  boost::system::error_code run(Start start);
  [[noreturn]] void unreachable(const std::string& why) const;
  [[noreturn]] void malformed(const std::string& why) const;

  std::string path_;
  std::chrono::milliseconds timeout_;
  Clock::time_point deadline_;
  boost::asio::io_context io_{1};
  boost::asio::local::stream_protocol::socket socket_{io_};
  std::string buffer_;  // received, not yet taken
  Json hello_;
  int last_id_ = 0;
};

// One request as it goes over the wire, newline included. Throws Failure(kUsage) when the engine would not take it.
std::string encode_request(int id, std::string_view method, const Json& params);

// What an `error` of the protocol comes down to: "refused (name) at pointer: message", one line a problem.
Failure refusal(const Json& error);

}  // namespace trunkline::control
