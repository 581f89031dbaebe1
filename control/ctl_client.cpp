// SPDX-License-Identifier: BSD-3-Clause
#include "control/ctl_client.h"

#include <boost/asio/buffer.hpp>
#include <boost/asio/read_until.hpp>
#include <boost/asio/write.hpp>
#include <cstdio>
#include <optional>
#include <thread>
#include <utility>

namespace trunkline::control {

namespace asio = boost::asio;
using boost::system::error_code;

namespace {

std::string seconds(std::chrono::milliseconds time) {
  char text[32];
  std::snprintf(text, sizeof text, "%g s", static_cast<double>(time.count()) / 1000.0);
  return text;
}

std::string string_or(const Json& object, const char* key, const std::string& otherwise) {
  if (!object.is_object()) return otherwise;
  const auto found = object.find(key);
  return found != object.end() && found->is_string() ? found->get<std::string>() : otherwise;
}

std::string problem_line(const Json& problem, const std::string& fallback_name, const std::string& fallback_message) {
  const std::string pointer = string_or(problem, "pointer", "");
  return "refused (" + string_or(problem, "name", fallback_name) + ")" + (pointer.empty() ? "" : " at " + pointer) +
         ": " + string_or(problem, "message", fallback_message);
}

}  // namespace

std::string encode_request(int id, std::string_view method, const Json& params) {
  const Json request = {{"jsonrpc", "2.0"}, {"id", id}, {"method", method}, {"params", params}};
  std::string line;
  try {
    line = request.dump() + "\n";
  } catch (const Json::type_error&) {
    throw Failure(kUsage, "what was given is not UTF-8");
  }
  const bool is_state = method == "state.replace";
  if (const std::size_t most = is_state ? Client::kMaxState : Client::kMaxRequest; line.size() > most) {
    throw Failure(kUsage, "this request is " + std::to_string(line.size()) + " bytes; the engine takes at most " + std::to_string(most) +
                              (is_state ? " (64 MiB) of a state. Nothing was sent" : " (1 MiB); give it in parts. Nothing was sent"));
  }
  return line;
}

Failure refusal(const Json& error) {
  const Json data = error.is_object() ? error.value("data", Json::object()) : Json::object();
  int code = 0;
  if (const auto found = error.find("code"); found != error.end() && found->is_number_integer()) code = *found;
  const std::string name = string_or(data, "name", "error " + std::to_string(code));
  const std::string message = string_or(error, "message", "no reason given");

  std::string lines;
  if (data.is_object() && data.contains("problems") && data["problems"].is_array()) {
    for (const Json& problem : data["problems"]) {
      lines += (lines.empty() ? "" : "\n") + problem_line(problem, name, message);
    }
  }
  if (lines.empty()) {
    Json top = data.is_object() ? data : Json::object();
    top["message"] = message;
    lines = problem_line(top, name, message);
  }
  if (name == "not_found" || code == -32004) return Failure(kNotFound, lines);
  if (name == "conflict" || code == -32003) return Failure(kConflict, lines);
  return Failure(kRefused, lines);
}

Client::Client(std::string socket_path, std::chrono::milliseconds timeout)
    : path_(std::move(socket_path)), timeout_(timeout), deadline_(Clock::now() + timeout) {
  connect();
  hear_hello();
}

void Client::extend(std::chrono::milliseconds timeout) {
  timeout_ = timeout;
  deadline_ = Clock::now() + timeout;
}

void Client::unreachable(const std::string& why) const {
  throw Failure(kUnreachable, "engine at " + path_ + ": " + why);
}

void Client::malformed(const std::string& why) const {
  unreachable("what it sent is not as the control protocol has it (" + why + "); is this trunklined's socket?");
}

// Starts one asynchronous operation and waits for it until the deadline. Past it the socket is closed for good.
template <typename Start>
error_code Client::run(Start start) {
  std::optional<error_code> done;
  start([&done](const error_code& error, auto...) { done = error; });
  io_.restart();
  io_.run_until(deadline_);
  if (done) return *done;
  error_code ignored;
  socket_.close(ignored);
  io_.restart();
  io_.run();
  return asio::error::timed_out;
}

void Client::connect() {
  if (path_.empty()) unreachable("the socket's path is empty; give --socket PATH");
  std::optional<asio::local::stream_protocol::endpoint> endpoint;
  try {
    endpoint.emplace(path_);
  } catch (const boost::system::system_error&) {
    unreachable("a unix socket's path has at most 107 bytes; give a shorter --socket PATH");
  }
  error_code error;
  while (true) {
    error = run([&](auto handler) { socket_.async_connect(*endpoint, handler); });
    // A full backlog is not waited for by the kernel when the socket does not block: try again until the deadline.
    if (error != asio::error::try_again && error != asio::error::no_buffer_space) break;
    if (Clock::now() >= deadline_) {
      error = asio::error::timed_out;
      break;
    }
    error_code ignored;
    socket_.close(ignored);
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  if (!error) return;
  if (error == boost::system::errc::no_such_file_or_directory) {
    unreachable("there is no such socket; is trunklined running? Start it, or give --socket PATH");
  }
  if (error == asio::error::connection_refused) {
    unreachable("nobody listens; trunklined has stopped. Start it, or give --socket PATH");
  }
  if (error == asio::error::access_denied) {
    unreachable("permission denied; become root or join the group that the socket belongs to");
  }
  if (error == asio::error::timed_out) {
    unreachable("too busy to take a connection within " + seconds(timeout_) +
                "; try again, or give a longer --timeout");
  }
  unreachable("cannot connect: " + error.message());
}

void Client::hear_hello() {
  const Json message = read_message("hello");
  if (message.contains("error")) throw refusal(message["error"]);
  if (string_or(message, "method", "") != "hello" || !message.contains("params") || !message["params"].is_object()) {
    malformed("its first line is not a hello");
  }
  hello_ = message["params"];
  const Json api = hello_.value("api", Json::object());
  if (!api.is_object() || !api.contains("major") || !api["major"].is_number_integer()) {
    malformed("its hello does not say which API it speaks");
  }
  if (api["major"] != kApiMajor) {
    unreachable(string_or(hello_, "server", "trunklined") + " " + string_or(hello_, "version", "of no version") +
                " speaks version " + api["major"].dump() + " of the control protocol, this trunkctl only " +
                std::to_string(kApiMajor) + "; use the trunkctl that came with the engine");
  }
}

Json Client::read_message(std::string_view waiting_for) {
  // A client that is over a limit is told so and cut off; what it was told may be readable after a failed write.
  const error_code error = run(
      [&](auto handler) { asio::async_read_until(socket_, asio::dynamic_buffer(buffer_, kMaxAnswer), '\n', handler); });
  if (error == asio::error::timed_out) {
    unreachable("no answer (" + std::string(waiting_for) + ") within " + seconds(timeout_) +
                "; see its log, or give a longer --timeout");
  }
  if (error == asio::error::not_found) malformed("a line of more than 64 MiB");
  if (error) {
    unreachable("closed the connection before it answered (" + std::string(waiting_for) + "); see its log");
  }
  const std::size_t end = buffer_.find('\n');
  auto read = config::parse_json(std::string_view(buffer_).substr(0, end), {.max_bytes = kMaxAnswer, .max_depth = kMaxDepth});
  buffer_.erase(0, end + 1);
  if (!read) malformed("a line that is not JSON");
  Json message = std::move(*read);
  if (!message.is_object() || string_or(message, "jsonrpc", "") != "2.0") malformed("a line that is not JSON-RPC 2.0");
  if (message.contains("error") && !message["error"].is_object()) malformed("an error that is not an object");
  return message;
}

Json Client::call(std::string_view method, const Json& params, bool changes) {
  const int id = ++last_id_;
  const std::string line = encode_request(id, method, params);
  try {
    // An error here is told better by the read that follows: what the engine said last, or that it is gone.
    run([&](auto handler) { asio::async_write(socket_, asio::buffer(line), handler); });
    if (!socket_.is_open()) {
      unreachable("did not take the request within " + seconds(timeout_) + "; see its log, or give a longer --timeout");
    }
    while (true) {
      Json message = read_message(method);
      if (message.contains("method") && !message.contains("id")) continue;  // a notification
      // An error without an id is about the line that was just sent: too long, too deep, not JSON.
      const Json answered = message.value("id", Json());
      if (message.contains("error") && (answered == id || answered.is_null())) throw refusal(message["error"]);
      if (answered != id) malformed("an answer to a question that was not asked");
      if (!message.contains("result") || !message["result"].is_object()) malformed("an answer without a result");
      return std::move(message["result"]);
    }
  } catch (const Failure& failure) {
    if (!changes || failure.exit_code() != kUnreachable) throw;
    throw Failure(kUnreachable, std::string(failure.what()) +
                                    "\nthe change may or may not have been made; look before you repeat it");
  }
}

}  // namespace trunkline::control
