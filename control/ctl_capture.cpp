// SPDX-License-Identifier: BSD-3-Clause
//
// `trunkctl trace` and `trunkctl capture`: packets as they come, in words or as a pcapng file. Both start a capture in the engine and
// read it until there is no more, the time is up, or somebody presses Ctrl-C; then what was caught is still written.
#include <poll.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdio>
#include <iostream>
#include <map>
#include <memory>
#include <thread>

#include "config/safe_file.h"
#include "control/base64.h"
#include "control/ctl_session.h"
#include "control/pcapng.h"

namespace trunkline::control {
namespace {

using Clock = std::chrono::steady_clock;

volatile std::sig_atomic_t interrupted = 0;

constexpr auto kPause = std::chrono::milliseconds(50);
constexpr auto kPatience = std::chrono::seconds(10);  // of one call

Json capture_params(const Invocation& in) {
  Json params = Json::object();
  for (const char* option : {"task", "filter", "point", "direction"}) {
    if (in.has(option)) params[option] = in.value(option);
  }
  if (in.has("count")) params["limit"] = integer_option(in, "count");
  if (in.has("snaplen")) params["snaplen"] = integer_option(in, "snaplen");
  return params;
}

// Whoever read standard output has closed it.
bool reader_is_gone() {
  pollfd out{STDOUT_FILENO, 0, 0};
  return ::poll(&out, 1, 0) > 0 && (out.revents & POLLERR) != 0;
}

// What became of a packet, in its comment.
std::string fate_of(const Json& packet) {
  const auto text = [&](const char* member) { return packet.at(member).is_string() ? packet.at(member).get<std::string>() : std::string("-"); };
  std::string fate = packet.at("refused_by").is_string() ? text("verdict") + " (" + text("refused_by") + "): " + text("sentence")
                     : packet.at("route").is_string()    ? "passed, to " + text("route")
                                                         : text("sentence");
  if (packet.value("made_here", false)) fate = "made by the engine; " + fate;
  if (const auto frames = packet.value("frames", std::uint64_t{1}); frames > 1) fate += "; a super-frame of " + std::to_string(frames) + " frames";
  return fate;
}

// Calls take(packet) for each; false: no more is wanted. Answers with how many were lost.
template <class Take>
std::uint64_t run_capture(Session& s, const Json& params, std::optional<Clock::duration> duration, Take&& take) {
  std::signal(SIGPIPE, SIG_IGN);
  std::signal(SIGINT, [](int) { interrupted = 1; });
  std::signal(SIGTERM, [](int) { interrupted = 1; });
  Client client(s.in.socket_path(), kPatience);
  client.call("capture.start", params);
  const auto began = Clock::now();
  bool stopped = false;
  while (true) {
    client.extend(kPatience);
    if (!stopped && (interrupted != 0 || reader_is_gone() || (duration && Clock::now() - began >= *duration))) {
      client.call("capture.stop", Json::object());
      stopped = true;
    }
    const Json result = client.call("capture.read", Json::object());
    const Json& packets = list_of(result, "packets");
    for (const Json& packet : packets) {
      if (!take(packet)) return result.value("lost", std::uint64_t{0});
    }
    if (result.value("done", false)) return result.value("lost", std::uint64_t{0});
    if (packets.empty()) std::this_thread::sleep_for(kPause);
  }
}

std::optional<Clock::duration> seconds_option(const Invocation& in, const char* option) {
  if (!in.has(option)) return std::nullopt;
  return std::chrono::seconds(integer_option(in, option));
}

void tell_lost(const Session& s, std::uint64_t lost) {
  if (lost != 0) s.say(std::to_string(lost) + " packet(s) more matched and were not taken: they came faster than they were read; give a --filter");
}

}  // namespace

int trace(Session& s) {
  Json params = capture_params(s.in);
  if (!params.contains("limit")) params["limit"] = 20;
  params["report"] = true;
  params["snaplen"] = 256;
  params["point"] = s.in.has("drops") ? "drop" : "in";
  const auto duration = s.in.has("timeout") ? std::optional<Clock::duration>(s.in.timeout()) : std::nullopt;
  std::uint64_t seen = 0;
  const std::uint64_t lost = run_capture(s, params, duration, [&](Json packet) {
    ++seen;
    packet.erase("data");
    s.show(packet, print_packet, nullptr);
    return true;
  });
  tell_lost(s, lost);
  if (seen == 0) s.say("no packet matched; `trunkctl drops` shows what the engine counts, and whether the port receives is in `trunkctl stats`");
  return kDone;
}

namespace {

using OpenedFile = std::unique_ptr<std::FILE, int (*)(std::FILE*)>;

int close_file(std::FILE* file) { return file != nullptr ? std::fclose(file) : 0; }

// Often run by root, and often for a file in /tmp, where anybody can have put a link of that name.
OpenedFile open_for_writing(const std::string& path) {
  auto file = config::open_file(path, O_WRONLY | O_CREAT | O_TRUNC, 0644, {.folder = config::FolderRule::any, .fifo = true, .device = true});
  if (!file) throw UsageError("cannot write " + path + ": " + file.error().message);
  OpenedFile opened(::fdopen(file->get(), "wb"), close_file);
  if (opened == nullptr) throw UsageError("cannot write " + path);
  static_cast<void>(file->release());  // it is closed with the stream
  return opened;
}

}  // namespace

int capture(Session& s) {
  if (!s.in.has("write")) throw UsageError("`capture` wants -w FILE, or -w - for a pipe into wireshark -k -i - or tcpdump -r -");
  const std::string path = s.in.value("write");
  if (path == "-" && ::isatty(STDOUT_FILENO) == 1) throw UsageError("standard output is a terminal; pipe it into tcpdump -r - or wireshark -k -i -, or give -w FILE");
  const OpenedFile opened = path == "-" ? OpenedFile(nullptr, close_file) : open_for_writing(path);
  std::FILE* file = path == "-" ? stdout : opened.get();
  const Json params = capture_params(s.in);
  const auto snaplen = params.value("snaplen", std::uint32_t{9216});
  // A reader that has gone (a closed pipe) is the end, and no failure.
  const auto write = [&](const std::string& block) { return std::fwrite(block.data(), 1, block.size(), file) == block.size() && std::fflush(file) == 0; };
  bool writes = true;
  std::map<std::string, std::uint32_t> interfaces;
  std::uint64_t written = 0;
  const auto take = [&](const Json& packet) {
    const auto text = [&](const char* member) { return packet.at(member).is_string() ? packet.at(member).get<std::string>() : std::string("-"); };
    const auto [interface, is_new] = interfaces.try_emplace(text("port"), static_cast<std::uint32_t>(interfaces.size()));
    if (is_new) writes = writes && write(pcapng::interface_description(interface->first, snaplen));
    std::string comment = text("direction") + " " + text("eni") + ": ";
    comment += fate_of(packet);
    const auto bytes = from_base64(text("data"));
    if (!bytes) throw AnswerError("\"data\" is not base64");
    writes = writes && write(pcapng::enhanced_packet(interface->second, packet.at("time_ns").get<std::uint64_t>(), *bytes, packet.at("bytes").get<std::uint32_t>(),
                                                     text("point") == "out" ? pcapng::Way::outbound : pcapng::Way::inbound, comment));
    written += writes;
    return writes;
  };
  std::signal(SIGPIPE, SIG_IGN);
  // The file is one from the start, so that who waits on the pipe sees it.
  writes = write(pcapng::section_header("trunkctl"));
  const std::uint64_t lost = writes ? run_capture(s, params, seconds_option(s.in, "duration"), take) : 0;
  if (!writes && path != "-") throw Failure(kUnreachable, "cannot write " + path + "; is the disk full?");
  tell_lost(s, lost);
  if (!s.in.has("quiet")) s.say(std::to_string(written) + " packet(s)");
  return kDone;
}

}  // namespace trunkline::control
