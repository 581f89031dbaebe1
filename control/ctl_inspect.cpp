// SPDX-License-Identifier: BSD-3-Clause
//
// The commands of trunkctl that look into the packet path: what is dropped most, and the connections.
#include <unistd.h>

#include <algorithm>
#include <iostream>
#include <map>
#include <thread>

#include "control/ctl_session.h"

namespace trunkline::control {
namespace {

// The members that say which flows are meant.
Json flow_filter(const Invocation& in) {
  Json params = Json::object();
  for (const auto& [option, member] : {std::pair{"task", "task"}, {"remote", "remote"}, {"proto", "protocol"}, {"state", "state"}}) {
    if (in.has(option)) params[member] = in.value(option);
  }
  if (in.has("port")) params["port"] = integer_option(in, "port");
  if (in.has("idle")) params["min_idle_s"] = integer_option(in, "idle");
  return params;
}

std::string print_flushed(const Json& result, const Style&) {
  return result.value("flushed", Json(0)).dump() + " connection(s) forgotten\n";
}

}  // namespace

int flow_list(Session& s) {
  Json params = flow_filter(s.in);
  if (s.in.has("limit")) params["limit"] = integer_option(s.in, "limit");
  if (s.in.has("sort")) params["sort"] = s.in.value("sort");
  const Json result = s.look("flow.list", params, print_flow_list, "flows");
  const Json matched = result.value("matched", Json(0)), sorted = result.value("sorted_of", Json(0));
  const std::size_t shown = list_of(result, "flows").size();
  if (matched.is_number() && matched > shown) {
    s.say("shown: " + std::to_string(shown) + " of " + matched.dump() + (sorted < matched ? ", the largest of " + sorted.dump() : "") +
          "; --limit N shows more, --task, --remote, --proto, --port, --state and --idle fewer");
  }
  return kDone;
}

int flow_flush(Session& s) {
  Json params = flow_filter(s.in);
  if (s.in.has("all")) params["all"] = true;
  if (params.empty()) throw UsageError("`flow flush` wants --task, --remote, --proto, --port, --state or --idle, or --all");
  Client client(s.in.socket_path(), s.in.timeout());
  const Json result = client.call("flow.flush", params, true);
  if (!s.in.has("quiet")) s.show(result, print_flushed, nullptr);
  return kDone;
}

// Two readings a second apart; what drops most now is on top.
int drops_top(Session& s) {
  const long long most = s.in.has("count") ? integer_option(s.in, "count") : 10;
  if (most < 1) throw UsageError("-n is at least 1");
  Client client(s.in.socket_path(), s.in.timeout());
  const bool redraw = ::isatty(STDOUT_FILENO) == 1 && s.in.output() == "table";
  std::map<std::string, std::uint64_t> before;
  const auto read = [&] {
    Json drops = list_of(client.call("drops", Json::object()), "drops");
    for (Json& drop : drops) {
      const std::string key = drop.value("reason", Json()).dump() + drop.value("port", Json()).dump() + drop.value("direction", Json()).dump();
      const auto packets = drop.at("packets").get<std::uint64_t>();
      const auto known = before.find(key);
      drop["per_second"] = packets - std::min(packets, known == before.end() ? 0 : known->second);
      before[key] = packets;
    }
    return drops;
  };
  read();
  do {
    std::this_thread::sleep_for(std::chrono::seconds(1));
    client.extend(s.in.timeout());
    Json drops = read();
    std::stable_sort(drops.begin(), drops.end(), [](const Json& a, const Json& b) { return a["per_second"] > b["per_second"]; });
    if (drops.size() > static_cast<std::size_t>(most)) drops.erase(drops.begin() + static_cast<std::ptrdiff_t>(most), drops.end());
    if (s.in.has("watch") && redraw) std::cout << "\033[H\033[2J";
    s.show({{"drops", std::move(drops)}}, print_drops_top, "drops");
  } while (s.in.has("watch"));
  return kDone;
}

}  // namespace trunkline::control
