// SPDX-License-Identifier: BSD-3-Clause
#include "control/ctl_print.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdio>

namespace trunkline::control {

namespace {

Colour state_colour(const std::string& state) {
  if (state == "active" || state == "up") return Colour::green;
  if (state == "waiting") return Colour::yellow;
  if (state == "failed" || state == "down") return Colour::red;
  return Colour::none;
}

Cell state_cell(const std::string& state) { return {state, state_colour(state)}; }

std::uint64_t drops_of(const Json& meter) {
  std::uint64_t sum = 0;
  if (const Json& drops = member(meter, "drops"); drops.is_object()) {
    for (const auto& [reason, count] : drops.items()) sum += number(drops, reason);
  }
  return sum;
}

std::string duration(std::uint64_t s) {
  char out[64];
  if (s >= 86400) {
    std::snprintf(out, sizeof out, "%llu d %llu h", s / 86400ULL, s % 86400ULL / 3600ULL);
  } else if (s >= 3600) {
    std::snprintf(out, sizeof out, "%llu h %llu min", s / 3600ULL, s % 3600ULL / 60ULL);
  } else if (s >= 60) {
    std::snprintf(out, sizeof out, "%llu min %llu s", s / 60ULL, s % 60ULL);
  } else {
    std::snprintf(out, sizeof out, "%llu s", s * 1ULL);
  }
  return out;
}

std::string percent(const Json& ratio) {
  char out[32];
  std::snprintf(out, sizeof out, "%.0f%%", ratio.is_number() ? ratio.get<double>() * 100.0 : 0.0);
  return ratio.is_number() ? out : std::string(kEmpty);
}

void meter_lines(Page& page, const std::string& name, const Json& meter) {
  page.line(name, text(meter, "rx_packets") + " packets (" + text(meter, "rx_bytes") + " bytes) received, " +
                      text(meter, "tx_packets") + " (" + text(meter, "tx_bytes") + " bytes) sent on, " +
                      std::to_string(drops_of(meter)) + " dropped");
  if (const Json& drops = member(meter, "drops"); drops.is_object()) {
    for (const auto& [reason, count] : drops.items()) {
      if (count != 0) page.line("", "  " + text(count) + " " + printable(reason));
    }
  }
}

void capability_line(Page& page, const std::string& name, const Json& capability) {
  const std::string why = text(capability, "why");
  page.line(name, text(capability, "what") + ": " + (member(capability, "available") == true ? "yes" : "no") + (why == kEmpty ? "" : ", " + why));
}

}  // namespace

std::string print_task_list(const Json& result, const Style& style) {
  Table table({"ENI", "TASK", "STATE", ">VLAN", "MAC", "ADDRESSES", "SUBNET", "GROUPS", "PORT", ">WORKER", "REASON"});
  for (const Json& task : list_of(result, "tasks")) {
    table.row({text(task, "eni"), text(task, "task"), state_cell(text(task, "state")), text(task, "vlan"),
               text(task, "mac"), text(task, "addresses"), text(task, "subnet"), text(task, "groups"),
               text(task, "port"), text(task, "worker"), text(task, "reason")});
  }
  return table.text(style);
}

std::string print_task_show(const Json& result, const Style& style) {
  static constexpr std::array kFirst = {"eni",  "task",   "task_arn",          "attachment", "state",      "reason",
                                        "vlan", "mac",    "addresses",         "subnet",     "groups",     "port",
                                        "mtu",  "worker", "source_dest_check", "conntrack",  "connections",
                                        "network_acl", "limits", "on_change", "always_track", "audit", "block_imds"};
  Page page;
  for (const char* key : kFirst) {
    const std::string value = text(result, key);
    page.line(key, std::string_view(key) == "state" ? state_cell(value) : Cell(value));
  }
  for (const auto& [key, value] : result.items()) {
    if (key != "counters" && key != "capabilities" && std::find(kFirst.begin(), kFirst.end(), key) == kFirst.end()) {
      page.line(printable(key), text(value));
    }
  }
  if (const Json& capabilities = member(result, "capabilities"); capabilities.is_array()) {
    for (const Json& capability : capabilities) capability_line(page, "port can", capability);
  }
  const Json& counters = member(result, "counters");
  if (counters.is_object()) {
    meter_lines(page, "ingress", member(counters, "ingress"));
    meter_lines(page, "egress", member(counters, "egress"));
  }
  return page.text(style);
}

std::string print_share_list(const Json& result, const Style& style) {
  Table table({"ENI", "TASK", ">WORKER", ">CONNECTIONS", ">SHARE", ">BEYOND", ">TIME_MS", ">FRAME_US", ">LINES_LOST",
               "REFUSED"});
  for (const Json& share : list_of(result, "shares")) {
    const Json &connections = member(share, "connections"), &time = member(share, "worker_time");
    std::string refused;
    if (const Json& reasons = member(share, "refused"); reasons.is_object()) {
      for (const auto& [reason, count] : reasons.items())
        refused += (refused.empty() ? "" : " ") + reason + "=" + count.dump();
    }
    table.row({text(share, "eni"), text(share, "task"), text(share, "worker"), text(connections, "entries"),
               text(connections, "share"), text(connections, "beyond_share"), text(time, "ms"), text(time, "frame_us"),
               text(share, "flow_lines_lost"),
               Cell(refused.empty() ? "-" : refused, refused.empty() ? Colour::none : Colour::yellow)});
  }
  return table.text(style);
}

std::string print_worker_list(const Json& result, const Style& style) {
  Table table({">WORKER", ">LCORE", ">ENDPOINTS", ">BUSY", ">PACKETS", ">HANDED_IN", ">CYCLES_A_PACKET", ">CONNECTIONS", ">CAPACITY", ">PAGE_KB", "IDLE"});
  for (const Json& worker : list_of(result, "workers")) {
    table.row({text(worker, "worker"), text(worker, "lcore"), text(worker, "endpoints"), percent(member(worker, "busy_ratio")),
               text(worker, "packets"), text(worker, "handed_in"), text(worker, "cycles_per_packet"), text(worker, "connections"),
               text(worker, "capacity"), std::to_string(number(worker, "page_bytes") / 1024), text(worker, "idle")});
  }
  return table.text(style);
}

namespace {

std::string steering_line(const Json& steering) {
  if (member(steering, "active") != true) return "in software: " + text(steering, "why");
  const Json& full = member(steering, "full_after");
  return text(steering, "in_hardware") + " of " + text(steering, "endpoints") + " endpoints in hardware, " + text(steering, "rules") + " rules, " +
         text(steering, "patterns") + (full.is_null() ? "" : ", flow table full after " + text(steering, "full_after") + " rules");
}

}  // namespace

std::string print_steering_list(const Json& result, const Style& style) {
  Table table({"ENI", "TASK", ">WORKER", "HARDWARE", "PATTERN", ">QUEUE", ">RULES", ">WANTED", ">MARK", ">HITS", "WHY"});
  for (const Json& endpoint : list_of(result, "endpoints")) {
    const std::string hardware = text(endpoint, "hardware");
    table.row({text(endpoint, "eni"), text(endpoint, "task"), text(endpoint, "worker"),
               Cell(hardware, hardware == "yes" ? Colour::green : hardware == "partly" ? Colour::yellow : Colour::none), text(endpoint, "pattern"),
               text(endpoint, "queue"), text(endpoint, "rules"), text(endpoint, "wanted"), text(endpoint, "mark"), text(endpoint, "hits"), text(endpoint, "why")});
  }
  return table.text(style) + "\n" + steering_line(member(result, "steering")) + "\n";
}

std::string print_flow_log_list(const Json& result, const Style& style) {
  Table table({"ID", "TRAFFIC", ">INTERVAL_S", ">ENDS_IN_S", ">FLOWS", ">WRITTEN", ">NODATA", ">SKIPDATA", ">LOST", ">WAITING", ">FILES", ">ERRORS", "DESTINATION", "TROUBLE"});
  for (const Json& log : list_of(result, "flow_logs")) {
    const std::uint64_t lost = number(log, "records_lost"), errors = number(log, "write_errors");
    const Json& destination = member(log, "destination");
    table.row({text(log, "id"), text(log, "traffic_type"), text(log, "max_aggregation_interval"), text(log, "ends_in_s"), text(log, "flows"),
               text(log, "records_written"), text(log, "nodata_written"), text(log, "skipdata_written"),
               Cell(std::to_string(lost), lost != 0 ? Colour::yellow : Colour::none), text(log, "lines_waiting"), text(log, "files"),
               Cell(std::to_string(errors), errors != 0 ? Colour::yellow : Colour::none),
               text(destination, "type") + ":" + text(destination, "path"), text(log, "trouble")});
  }
  return table.text(style);
}

std::string print_stats(const Json& result, const Style& style) {
  Table table({"PORT", "ENI", "DIRECTION", ">RX_PACKETS", ">RX_BYTES", ">TX_PACKETS", ">TX_BYTES", ">DROPS"});
  std::string open;  // meters that do not close
  for (const Json& port : list_of(result, "ports")) {
    for (const char* way : {"ingress", "egress"}) {
      const Json& meter = member(port, way);
      const std::uint64_t rx = number(meter, "rx_packets"), tx = number(meter, "tx_packets"), drops = drops_of(meter);
      if (rx != tx + drops) open += (open.empty() ? "" : ", ") + text(port, "name") + " " + way;
      table.row({text(port, "name"), text(port, "eni"), std::string(way), std::to_string(rx), text(meter, "rx_bytes"),
                 std::to_string(tx), text(meter, "tx_bytes"),
                 Cell(std::to_string(drops), drops ? Colour::yellow : Colour::none)});
    }
  }
  const Json& unaccounted = member(result, "unaccounted");
  std::string out = table.text(style);
  if (!style.headers) return out;  // rows only: for a program
  for (const Json& port : list_of(result, "ports")) {
    for (const auto& [what, count] : member(port, "device").items()) {
      const bool deprecated = what.starts_with("in_") || what.starts_with("out_");
      if (count != 0 && !deprecated) out += "\n" + painted(text(port, "name") + ": " + printable(what) + " " + text(count) + ", by its driver", Colour::yellow, style);
    }
  }
  const Json& allowances = member(result, "allowances");
  if (allowances.is_object()) {
    for (const auto& [name, count] : allowances.items()) {
      if (name.ends_with("_exceeded") && count != 0) out += "\n" + painted(printable(name) + ": " + text(count) + " packets", Colour::yellow, style);
    }
  }
  if (unaccounted == 0 && open.empty())
    return out + "\n" + painted("every packet is accounted for", Colour::green, style) + "\n";
  return out + "\n" +
         painted("NOT accounted for: " + text(unaccounted) + " packets" +
                     (open.empty() ? "" : "; received is not sent plus dropped at " + open),
                 Colour::red, style) +
         "\n";
}

std::string print_drops(const Json& result, const Style& style) {
  Table table({"REASON", ">PACKETS", "DIRECTION", "PORT", "ENI", "WHAT IT MEANS"});
  for (const Json& drop : list_of(result, "drops")) {
    table.row({text(drop, "reason"), std::to_string(number(drop, "packets")), text(drop, "direction"),
               text(drop, "port"), text(drop, "eni"), text(drop, "sentence")});
  }
  return table.text(style);
}

std::string print_drops_top(const Json& result, const Style& style) {
  Table table({"REASON", ">PER_SECOND", ">PACKETS", "DIRECTION", "PORT", "ENI", "WHAT IT MEANS"});
  for (const Json& drop : list_of(result, "drops")) {
    table.row({text(drop, "reason"), text(drop, "per_second"), std::to_string(number(drop, "packets")), text(drop, "direction"), text(drop, "port"),
               text(drop, "eni"), text(drop, "sentence")});
  }
  return table.text(style);
}

std::string print_packet(const Json& packet, const Style& style) {
  const bool refused = member(packet, "refused_by").is_string(), again = member(packet, "point") == "again";
  const bool passes = !refused && (member(packet, "route").is_string() || member(packet, "verdict") == "none");
  std::string out = painted(text(packet, "packet"), Colour::bold, style) + (again ? ", again: it was held, or asked for its connection" : "") + "\n";
  out += "  " + text(packet, "direction") + (member(packet, "eni").is_string() ? " of " + text(packet, "eni") : "") +
         (member(packet, "port").is_string() ? ", at " + text(packet, "port") : "") + "\n";
  for (const Json& stage : list_of(packet, "stages")) {
    std::string name = text(stage, "stage");
    name.resize(std::max<std::size_t>(name.size(), 8), ' ');
    out += "  " + name + " " + painted(text(stage, "said"), member(stage, "refused") == true ? Colour::red : Colour::none, style) + "\n";
  }
  if (const Json& rule = member(packet, "rule"); rule.is_object()) {
    out += "  rule     " + text(rule, "group") + " " + text(rule, "direction") + " " + text(rule, "index") + ": " + text(rule, "rule") + "\n";
  }
  out += "  verdict  " + (refused ? painted("DROPPED: " + text(packet, "verdict") + ", " + text(packet, "sentence"), Colour::red, style)
                                  : passes ? painted("passes", Colour::green, style)
                                           : painted(text(packet, "sentence"), Colour::yellow, style)) + "\n\n";
  return out;
}

std::string print_explanation(const Json& result, const Style& style) {
  std::string out;
  for (const Json& half : list_of(result, "halves")) out += print_packet(half, style);
  const bool delivered = member(result, "delivered") == true;
  if (const Json& verdict = member(result, "verdict"); verdict == "held" || verdict == "asked") return out + painted(text(result, "sentence"), Colour::yellow, style) + "\n";
  return out + (delivered ? painted("it would be delivered", Colour::green, style)
                          : painted("it would be dropped: " + text(result, "verdict") + ", " + text(result, "sentence"), Colour::red, style)) + "\n";
}

std::string print_flow_list(const Json& result, const Style& style) {
  Table table({"DIRECTION", "PROTO", "LOCAL", "REMOTE", "STATE", "TRACKED", ">IDLE_S", ">INGRESS_PACKETS", ">INGRESS_BYTES", ">EGRESS_PACKETS", ">EGRESS_BYTES", "ENI", "RULE"});
  const auto end = [](const Json& flow, const char* address, const char* port) {
    const std::string host = text(flow, address);
    if (member(flow, port).is_null()) return host;
    return (host.find(':') == std::string::npos ? host : "[" + host + "]") + ":" + text(flow, port);
  };
  for (const Json& flow : list_of(result, "flows")) {
    const Json& rule = member(flow, "rule");
    const std::string by = rule.is_object() ? text(rule, "group") + " " + text(rule, "rule") : "no rule any more: it was let in before they changed";
    table.row({text(flow, "direction"), text(flow, "protocol"), end(flow, "local", "local_port"), end(flow, "remote", "remote_port"), text(flow, "state"),
               text(flow, "tracked"), text(flow, "idle_s"), text(member(flow, "ingress"), "packets"), text(member(flow, "ingress"), "bytes"),
               text(member(flow, "egress"), "packets"), text(member(flow, "egress"), "bytes"), text(flow, "eni"), by});
  }
  return table.text(style);
}

std::string print_status(const Json& result, const Style& style) {
  const Json& healthy = member(result, "healthy");
  if (!healthy.is_boolean()) throw AnswerError("\"healthy\" is neither true nor false");
  std::string out = painted(healthy.get<bool>() ? "healthy" : "NOT HEALTHY",
                            healthy.get<bool>() ? Colour::green : Colour::red, style) +
                    ": trunklined " + text(result, "version") + ", up " + duration(number(result, "uptime_s")) +
                    ", revision " + text(result, "revision") + ", pid " + text(result, "pid") + "\n";
  Page page;
  const Json& trunk = member(result, "trunk");
  page.line("trunk", text(trunk, "device") + ", " + text(trunk, "mode") + ", link " +
                         painted(text(trunk, "link"), state_colour(text(trunk, "link")), style) + ", MTU " +
                         text(trunk, "mtu") + ", MAC " + text(trunk, "mac"));
  for (const Json& worker : list_of(result, "workers")) {
    page.line("worker " + text(worker, "worker"), "lcore " + text(worker, "lcore") + ", " + text(worker, "endpoints") +
                                                      " endpoints, " + text(worker, "connections") +
                                                      " connections, busy " + percent(member(worker, "busy_ratio")) +
                                                      ", now " + text(worker, "idle"));
  }
  const Json& endpoints = member(result, "endpoints");
  const auto count = [&](const char* state) {
    const std::string n = text(endpoints, state);
    return painted(n + " " + state, n == "0" ? Colour::none : state_colour(state), style);
  };
  page.line("endpoints", count("active") + ", " + count("waiting") + ", " + count("failed") + ", at most " +
                             text(endpoints, "limit"));
  if (const Json& left_out = member(endpoints, "left_out"); left_out.is_object()) {
    for (const auto& [eni, why] : left_out.items()) page.line("", Cell(eni + " of the journal was left out: " + text(left_out, eni), Colour::red));
  }
  if (const Json& left = member(endpoints, "interfaces_left"); left.is_number() && left != 0) {
    page.line("", Cell(left.dump() + " interface(s) of detached ENIs left behind; the last: " + text(endpoints, "last_interface_left"), Colour::yellow));
  }
  const Json& connections = member(result, "connections");
  page.line("connections", text(connections, "used") + " of " + text(connections, "limit") + ", " + text(connections, "recycled") + " made room for others");
  if (const Json& beyond = member(member(result, "control"), "beyond_bound"); beyond.is_object() && !beyond.empty()) {
    std::string line;
    for (const auto& [name, what] : beyond.items())
      line += (line.empty() ? "" : ", ") + text(what, "calls") + " x " + name + " (up to " + text(what, "longest_ms") +
              " ms)";
    page.line("control", Cell("held for more than " + text(member(result, "control"), "bound_ms") + " ms by " + line,
                              Colour::yellow));
  }
  const Json& memory = member(result, "memory");
  page.line("memory", text(memory, "hugepages_mb") + " MB of huge pages, " + text(memory, "mbufs_used") + " of " +
                          text(memory, "mbufs") + " mbufs in use");
  const Json& state = member(result, "state");
  const bool durable = member(state, "durable") == true;
  page.line("state", Cell(std::string(durable ? "durable" : "NOT DURABLE") + ", journal " + text(state, "journal"),
                          durable ? Colour::none : Colour::red));
  if (const Json& set_aside = member(state, "quarantined"); !set_aside.is_null()) {
    page.line("", Cell("a damaged journal was set aside: " + text(set_aside), Colour::yellow));
  }
  if (const Json& damage = member(state, "damage"); damage.is_string() && damage != "") page.line("", Cell("CHANGES LOST: " + text(state, "damage"), Colour::red));
  if (const Json& steering = member(result, "steering"); steering.is_object()) page.line("steering", steering_line(steering));
  if (const Json& logs = member(result, "flow_logs"); logs.is_object() && member(logs, "configured") != 0) {
    page.line("flow logs", text(logs, "configured") + ", " + text(logs, "records_written") + " records written, " + text(logs, "records_lost") +
                               " lost, " + text(logs, "write_errors") + " write errors");
    for (const Json& trouble : list_of_texts(logs, "trouble")) page.line("", Cell(text(trouble), Colour::yellow));
  }
  if (const Json& names = member(result, "names"); names.is_object()) {
    const std::string why = text(names, "why");
    page.line("names", Cell(text(names, "file") + (why == kEmpty ? "" : ", NOT WRITTEN: " + why), why == kEmpty ? Colour::none : Colour::red));
  }
  for (const Json& capability : list_of(result, "capabilities")) capability_line(page, text(capability, "port"), capability);
  return out + page.text(style);
}

std::string print_change(const Json& result, const Style& style) {
  const Json& steps = member(result, "steps");
  if (!steps.is_array()) throw AnswerError("\"steps\" is not a list");
  const bool dry_run = member(result, "dry_run") == true;
  const bool changed = member(result, "changed") != false;
  std::string out;
  for (const Json& step : steps) out += (dry_run ? "would: " : "") + text(step) + "\n";
  if (dry_run && !changed) out += "would: change nothing\n";
  out += "revision " + std::to_string(number(result, "revision"));
  out += dry_run ? " (dry run: nothing was done)" : changed ? "" : " (it was already so)";
  return painted(out, Colour::none, style) + "\n";
}

std::string print_json(const Json& result, const Style&) { return result.dump(2) + "\n"; }

}  // namespace trunkline::control
