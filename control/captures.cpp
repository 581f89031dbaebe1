// SPDX-License-Identifier: BSD-3-Clause
#include "control/captures.h"

#include <rte_cycles.h>

#include <algorithm>

#include "config/words.h"
#include "control/base64.h"
#include "control/packet_filter.h"
#include "control/packet_report.h"
#include "control/reconcile.h"
#include "control/task_json.h"

namespace trunkline::control {
namespace {

using config::Json;
using config::ObjectReader;
using config::words::in_quotes;

constexpr std::size_t kRingBytes = 8 << 20;        // of each worker's
constexpr std::size_t kAnswerBytes = 384 << 10;    // of frames in one answer
constexpr std::uint32_t kLeastForReport = 128;     // so that the headers are there

RpcError none() { return {"not_found", "this connection has no capture: none was started, it is over, or it was not read for " + std::to_string(Captures::kPatience.count()) + " s", "", {}}; }

// Where a packet was seen, as the interface of a capture file.
std::string port_of(const Controller& controller, const Json& summary, const Observation& seen) {
  const bool ingress = seen.direction == Direction::ingress;
  // What a port's driver refused is seen at that port.
  const bool came = seen.point != Point::out && seen.stage != Stage::transmit;
  if (came && (seen.from_task_here || seen.made_here)) return "local";
  if (!came && seen.route == Route::local) return "local";
  if (came == ingress || (!came && !ingress && (seen.route == Route::trunk || seen.stage == Stage::transmit))) return "trunk";
  const config::Attachment* attachment = summary.at("eni").is_string() ? controller.desired().attachments.get(summary.at("eni").get<std::string>()) : nullptr;
  return attachment != nullptr && attachment->port ? port_name(*attachment->port) : "task";
}

}  // namespace

Captures::Captures(const Controller& controller, std::uint64_t cycles_a_second, std::function<Clock::time_point()> now)
    : controller_(controller), cycles_a_second_(cycles_a_second), now_(std::move(now)), told_(controller.workers().size()) {}

std::expected<Json, RpcError> Captures::start(const Json& params, const Caller& caller) {
  config::Problems problems;
  ObjectReader reader(params, "", problems);
  const auto task = reader.text("task");
  ObserverSettings settings;
  if (const auto filter = reader.text("filter")) {
    auto program = compile_filter(*filter);
    if (!program) reader.complain("filter", "invalid_params", program.error());
    settings.filter = std::move(program).value_or(std::vector<bpf_insn>{});
  }
  const std::string point = reader.text("point").value_or("in");
  if (point != "in" && point != "out" && point != "drop") {
    reader.complain("point", "invalid_params", "\"point\" is " + in_quotes(point) + "; wanted \"in\" (as packets come), \"out\" (as they go) or \"drop\" (those that are refused)");
  }
  settings.points = point_bit(point == "out" ? Point::out : point == "drop" ? Point::drop : Point::in);
  if (const auto direction = reader.text("direction")) {
    if (*direction != "ingress" && *direction != "egress") reader.complain("direction", "invalid_params", "\"direction\" is " + in_quotes(*direction) + "; wanted \"ingress\" or \"egress\"");
    settings.directions = static_cast<std::uint8_t>(1U << index(*direction == "egress" ? Direction::egress : Direction::ingress));
  }
  Session session;
  session.uid = caller.uid;
  session.admin = caller.admin;
  session.limit = static_cast<std::uint64_t>(reader.integer("limit", 1, 1'000'000'000).value_or(0));
  const auto duration = reader.number("duration_s", 0.001, 86400);
  settings.snaplen = static_cast<std::uint32_t>(reader.integer("snaplen", 14, 65535).value_or(9216));
  session.report = reader.boolean("report").value_or(false);
  // Who reads reports wants to know the end of a packet that was held; who counts packets wants each once.
  if (session.report && point == "in") settings.points |= point_bit(Point::again);
  reader.finish();
  if (!problems.empty()) return std::unexpected(refuse(std::move(problems)));
  if (task) {
    const config::Attachment* attachment = find_attachment(controller_.desired(), *task);
    const auto active = attachment != nullptr ? controller_.active().find(attachment->eni_id) : controller_.active().end();
    if (active == controller_.active().end()) {
      return std::unexpected(RpcError{"not_found", "there is no task, ENI or attachment " + in_quotes(*task) + " in service; see trunkctl task list", "/task", {}});
    }
    settings.endpoint = active->second.endpoint->id;
    settings.generation = active->second.endpoint->generation;
  }
  tick();
  if (sessions_.contains(caller.connection)) return std::unexpected(RpcError{"quota", "this connection has a capture already; stop it, or connect once more", "", {}});
  // Whoever may only look has one, and one is left for admins.
  if (!caller.admin) {
    const auto of_uid = std::ranges::count_if(
        sessions_, [&](const auto& each) { return each.second.uid == caller.uid && !each.second.admin; });
    const auto of_observers = std::ranges::count_if(sessions_, [](const auto& each) { return !each.second.admin; });
    if (of_uid != 0)
      return std::unexpected(
          RpcError{"quota",
                   "uid " + std::to_string(caller.uid) +
                       " has a capture under way, and whoever may only look has one at a time; end it",
                   "",
                   {}});
    if (of_observers + 1 >= static_cast<std::ptrdiff_t>(ObserverSet::kMost)) {
      return std::unexpected(RpcError{"quota",
                                      "there are " + std::to_string(of_observers) +
                                          " captures of observers under way, and no more at a time; end one",
                                      "",
                                      {}});
    }
  }
  if (sessions_.size() >= ObserverSet::kMost) {
    return std::unexpected(RpcError{"quota", "there are " + std::to_string(sessions_.size()) + " captures under way, and no more at a time; end one", "", {}});
  }
  if (session.limit != 0) settings.limit = session.limit;
  if (session.report) settings.snaplen = std::max(settings.snaplen, kLeastForReport);
  settings.capacity = static_cast<std::uint32_t>(std::clamp<std::size_t>(kRingBytes / (settings.snaplen + sizeof(Observation)), 64, 4096));
  for (std::size_t worker = 0; worker < told_.size(); ++worker) session.observers.push_back(std::make_shared<Observer>(settings));
  session.last_read = now_();
  if (duration) session.end = session.last_read + std::chrono::milliseconds(static_cast<std::int64_t>(*duration * 1000));
  session.start_cycles = rte_rdtsc();
  session.start_ns = static_cast<std::uint64_t>(std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::system_clock::now().time_since_epoch()).count());
  sessions_.emplace(caller.connection, std::move(session));
  tell_workers();
  return Json{{"point", point}, {"snaplen", settings.snaplen}, {"buffer", settings.capacity}};
}

std::expected<Json, RpcError> Captures::read(const Json& params, const Caller& caller) {
  config::Problems problems;
  ObjectReader reader(params, "", problems);
  auto most = static_cast<std::size_t>(reader.integer("max", 1, 4096).value_or(256));
  reader.finish();
  if (!problems.empty()) return std::unexpected(refuse(std::move(problems)));
  tick();
  const auto found = sessions_.find(caller.connection);
  if (found == sessions_.end()) return std::unexpected(none());
  Session& session = found->second;
  session.last_read = now_();
  if (session.limit != 0) most = std::min<std::size_t>(most, session.limit - session.taken);
  most = std::min(most, std::max<std::size_t>(1, kAnswerBytes / session.observers[0]->settings().snaplen));

  // Whether there may be more is asked before reading: what comes in between is read by the next call.
  const bool over = !session.armed || std::ranges::all_of(session.observers, [](const auto& observer) { return observer->is_finished(); });
  std::vector<std::pair<std::uint64_t, Json>> packets;
  std::uint64_t lost = 0;
  for (const auto& observer : session.observers) {
    observer->read(most - packets.size(), [&](const Observation& seen, std::span<const std::uint8_t> bytes) { packets.emplace_back(seen.cycles, packet(session, seen, bytes)); });
    lost += observer->lost();
  }
  std::ranges::stable_sort(packets, {}, [](const auto& each) { return each.first; });
  session.taken += packets.size();
  const bool done = (session.limit != 0 && session.taken >= session.limit) || (over && packets.empty());
  Json list = Json::array();
  for (auto& [cycles, json] : packets) list.push_back(std::move(json));
  if (done) {
    sessions_.erase(found);
    tell_workers();
  }
  return Json{{"packets", std::move(list)}, {"lost", lost}, {"done", done}};
}

std::expected<Json, RpcError> Captures::stop(const Json& params, const Caller& caller) {
  config::Problems problems;
  ObjectReader reader(params, "", problems);
  reader.finish();
  if (!problems.empty()) return std::unexpected(refuse(std::move(problems)));
  const auto found = sessions_.find(caller.connection);
  if (found == sessions_.end()) return std::unexpected(none());
  disarm(found->second);
  return Json::object();
}

void Captures::gone(std::uint64_t connection) {
  if (sessions_.erase(connection) != 0) tell_workers();
}

void Captures::tick() {
  const Clock::time_point now = now_();
  const std::size_t before = sessions_.size();
  std::erase_if(sessions_, [&](const auto& each) { return now - each.second.last_read > kPatience; });
  if (sessions_.size() != before) tell_workers();
  for (auto& [connection, session] : sessions_) {
    if (session.end && now >= *session.end) disarm(session);
  }
  reclaim();
}

// No more packets; what was caught can be read still.
void Captures::disarm(Session& session) {
  if (!std::exchange(session.armed, false)) return;
  tell_workers();
}

void Captures::tell_workers() {
  for (std::size_t number = 0; number < told_.size(); ++number) {
    auto next = std::make_unique<Told>();
    for (const auto& [connection, session] : sessions_) {
      if (!session.armed) continue;
      next->observers.push_back(session.observers[number]);
      next->set.observers.push_back(session.observers[number].get());
    }
    if (next->observers.empty()) next.reset();
    Worker& worker = controller_.workers()[number];
    worker.observers.post(next ? &next->set : nullptr);
    worker.wake();
    if (told_[number]) leaving_.emplace_back(number, std::move(told_[number]));
    told_[number] = std::move(next);
  }
  reclaim();
}

void Captures::reclaim() {
  std::erase_if(leaving_, [&](const auto& each) { return !controller_.workers()[each.first].observers.is_used(&each.second->set); });
}

std::uint64_t Captures::time_of(const Session& session, std::uint64_t cycles) const {
  const std::uint64_t passed = cycles > session.start_cycles ? cycles - session.start_cycles : 0;
  return session.start_ns + passed / cycles_a_second_ * 1'000'000'000 + passed % cycles_a_second_ * 1'000'000'000 / cycles_a_second_;
}

Json Captures::packet(const Session& session, const Observation& seen, std::span<const std::uint8_t> bytes) const {
  Json result = session.report ? packet_report(controller_, seen, bytes) : packet_summary(controller_, seen);
  result["port"] = port_of(controller_, result, seen);
  result["time_ns"] = time_of(session, seen.cycles);
  result["bytes"] = seen.frame_bytes;
  result["data"] = to_base64(bytes);
  return result;
}

}  // namespace trunkline::control
