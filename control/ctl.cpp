// SPDX-License-Identifier: BSD-3-Clause
//
// trunkctl: asks a running engine, and tells it what to do. Nothing happens here that docs/control-protocol.md does not
// have; start reading at kCommands, the table of everything that trunkctl can do.
//
// Data goes to stdout, everything said about it to stderr. What was typed is checked before anything is connected to,
// and an answer is read whole before anything is printed.

#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <set>
#include <thread>

#include "control/ctl_session.h"

#ifndef TRUNKLINE_VERSION
#define TRUNKLINE_VERSION "0.1.0"
#endif

namespace trunkline::control {

std::span<const Command> commands();

Session::Session(Invocation invocation) : in(std::move(invocation)) {
  const char* terminal = std::getenv("TERM");
  style.headers = !in.has("no-headers");
  style.colour = ::isatty(STDOUT_FILENO) == 1 && std::getenv("NO_COLOR") == nullptr &&
                 (terminal == nullptr || std::strcmp(terminal, "dumb") != 0);
}

void Session::say(const std::string& lines) const {
  std::size_t from = 0;
  while (from <= lines.size()) {
    const std::size_t end = std::min(lines.find('\n', from), lines.size());
    std::cerr << "trunkctl: " << printable(std::string_view(lines).substr(from, end - from)) << "\n";
    from = end + 1;
  }
}

void Session::show(const Json& result, Printer print, const char* list) const {
  const std::string format = in.output();
  std::string out;
  if (format == "table") {
    out = print(result, style);
  } else if (format == "json") {
    out = result.dump(2) + "\n";
  } else if (list != nullptr) {
    for (const Json& element : list_of(result, list)) out += element.dump() + "\n";
  } else {
    out = result.dump() + "\n";
  }
  std::cout << out << std::flush;
  if (!std::cout) throw Failure(kUnreachable, "the answer cannot be written to standard output");
}

Json Session::look(std::string_view method, const Json& params, Printer print, const char* list) {
  Client client(in.socket_path(), in.timeout());
  const bool redraw = ::isatty(STDOUT_FILENO) == 1 && in.output() == "table";
  while (true) {
    Json result = client.call(method, params);
    if (in.has("watch") && redraw) std::cout << "\033[H\033[2J";
    show(result, print, list);
    if (!in.has("watch")) return result;
    if (!redraw && in.output() == "table") std::cout << "\n" << std::flush;
    std::this_thread::sleep_for(std::chrono::seconds(1));
    client.extend(in.timeout());
  }
}

int Session::change(std::string_view method, Json params) {
  if (in.has("dry-run")) params["dry_run"] = true;
  if (in.has("expect-revision")) params["expect_revision"] = integer_option(in, "expect-revision");
  if (in.has("no-wait")) params["wait"] = "enforced";
  if (in.has("allow-empty")) params["allow_empty"] = true;
  if (in.has("allow-removal")) params["allow_removal"] = true;
  encode_request(1, method, params);  // refuses what is too long before anything is connected to
  Client client(in.socket_path(), in.timeout());
  const Json result = client.call(method, params, true);
  if (!in.has("quiet")) show(result, print_change, nullptr);
  if (result.value("durable", Json(true)) == false && !in.has("dry-run") && !in.has("no-wait")) {
    say("warning: in force, but not in the journal yet; the engine keeps trying");
  }
  if (const auto found = result.find("warnings"); found != result.end() && found->is_array()) {
    for (const Json& warning : *found)
      say("warning: " + (warning.is_string() ? warning.get<std::string>() : warning.dump()));
  }
  return kDone;
}

namespace {

Json object_from(const std::string& file) {
  Json document = read_json(file);
  if (document.is_object()) return document;
  throw UsageError((file == "-" ? "standard input" : file) + ": a JSON object is wanted, and this is " + (document.is_array() ? "a list" : "a single value") +
                   "; give the document whole, as the AWS CLI prints it with --output json and without --query");
}

int drops(Session& s) {
  const Json params = s.in.operands.empty() ? Json::object() : Json{{"eni", s.in.operands[0]}};
  s.look("drops", params, print_drops, "drops");
  return kDone;
}

int task_describe(Session& s) {
  const Json result = s.look("task.describe", {{"tasks", s.in.operands}}, print_json, "tasks");
  const Json failures = result.value("failures", Json::array());
  for (const Json& failure : failures) s.say("not described: " + failure.dump());
  return failures.empty() ? kDone : kNotFound;
}

int task_attach(Session& s) {
  Json params = attach_params(s.in);
  if (!params.contains("eni")) throw UsageError("`task attach` wants --eni ENI (or --from with an \"eni\")");
  return s.change("task.attach", std::move(params));
}

int task_detach(Session& s) {
  Json params = {{"task", s.in.operands[0]}};
  if (s.in.has("missing-ok")) params["missing_ok"] = true;
  return s.change("task.detach", std::move(params));
}

int task_set(Session& s) {
  Json params = {{"task", s.in.operands[0]}};
  add_settings(s.in, params);
  if (params.size() == 1) throw UsageError("`task set` wants something to set; `trunkctl help task set` lists what there is");
  return s.change("task.set", std::move(params));
}

int put_some_or_all(Session& s, const char* method) {
  Json params = {{"document", object_from(s.in.operands[0])}};
  if (s.in.has("replace-all")) params["replace_all"] = true;
  return s.change(method, std::move(params));
}
int sg_put(Session& s) { return put_some_or_all(s, "sg.put"); }
int acl_put(Session& s) { return put_some_or_all(s, "acl.put"); }

int change_members(Session& s, const char* method) {
  const std::vector<std::string> members(s.in.operands.begin() + 1, s.in.operands.end());
  return s.change(method, {{"group", s.in.operands[0]}, {"members", members}});
}
int sg_members_put(Session& s) { return change_members(s, "sg.members.put"); }
int sg_members_add(Session& s) { return change_members(s, "sg.members.add"); }
int sg_members_remove(Session& s) { return change_members(s, "sg.members.remove"); }

int steering_resync(Session& s) {
  Client client(s.in.socket_path(), s.in.timeout());
  const Json result = client.call("steering.resync", Json::object(), true);
  if (!s.in.has("quiet")) {
    s.show(result, [](const Json& gone, const Style&) { return gone.value("rules", Json(0)).dump() + " rule(s) given up; what can be installed comes anew\n"; }, nullptr);
  }
  return kDone;
}

int worker_move(Session& s) {
  return s.change("worker.move", {{"task", s.in.operands[0]}, {"worker", whole_number(s.in.operands[1], "WORKER")}});
}

int event_submit(Session& s) {
  if (s.in.operands[0] == "-" && s.in.has("from") && s.in.value("from") == "-") {
    throw UsageError("standard input can be the event or --from, not both");
  }
  Json params = {{"event", object_from(s.in.operands[0])}};
  if (Json defaults = attach_params(s.in); !defaults.empty()) params["defaults"] = std::move(defaults);
  if (s.in.has("all")) params["all"] = true;
  if (s.in.has("instance")) params["instance"] = s.in.value("instance");
  return s.change("event.submit", std::move(params));
}

std::string print_flushed(const Json& result, const Style&) {
  return "interval " + result.value("interval", Json()).dump() + " is written\n";
}

// Waits until the lines are where they go, since that is what one flushes for.
int flow_log_flush(Session& s) {
  Client client(s.in.socket_path(), s.in.timeout());
  const Json asked = client.call("flow_log.flush", Json::object(), true);
  const Json interval = asked.value("interval", Json());
  if (!interval.is_number_unsigned()) throw AnswerError("\"interval\" is not a number");
  const auto deadline = std::chrono::steady_clock::now() + s.in.timeout();
  while (true) {
    client.extend(s.in.timeout());
    const Json answer = client.call("flow_log.list", Json::object());
    std::string waiting;
    for (const Json& log : list_of(answer, "flow_logs")) {
      if (log.value("written_interval", std::uint64_t{0}) >= interval.get<std::uint64_t>()) continue;
      const std::string trouble = log.value("trouble", std::string());
      waiting += (waiting.empty() ? "" : "\n") + log.value("id", std::string()) + " is not written yet" + (trouble.empty() ? "" : ": " + trouble);
    }
    if (waiting.empty()) break;
    if (std::chrono::steady_clock::now() >= deadline) throw Failure(kUnreachable, waiting + "\nthe interval has ended; the engine goes on trying");
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  if (!s.in.has("quiet")) s.show(asked, print_flushed, nullptr);
  return kDone;
}

std::string print_hello(const Json& hello, const Style&) {
  const auto text = [&](const char* key) {
    const Json value = hello.value(key, Json());
    return printable(value.is_string() ? value.get<std::string>() : value.is_null() ? "-" : value.dump());
  };
  return text("server") + " " + text("version") + "\n";
}

int ping(Session& s) {
  const Client client(s.in.socket_path(), s.in.timeout());
  if (!s.in.has("quiet")) s.show(client.hello(), print_hello, nullptr);
  return kDone;
}

int version(Session& s) {
  const Json mine = {{"server", "trunkctl"}, {"version", TRUNKLINE_VERSION}, {"api", {{"major", Client::kApiMajor}}}};
  s.show(mine, print_hello, nullptr);
  return kDone;
}

int help(Session& s) {
  std::string name;
  for (const std::string& word : s.in.operands) name += (name.empty() ? "" : " ") + word;
  std::string found;
  for (const Command& command : commands()) {
    if (command.name == name) found = help_text(command);
  }
  if (!name.empty() && found.empty()) {  // one noun of several commands, or none
    for (const Command& command : commands()) {
      if (command.name.starts_with(name + " ")) found += (found.empty() ? "" : "\n") + help_text(command);
    }
    if (found.empty()) throw UsageError("no such command: " + name + "; `trunkctl help` lists them");
  }
  std::cout << (name.empty() ? help_text(commands()) : found);
  return kDone;
}

// The file is one member of the request: nothing in it can be taken for an option.
template <const char* Method>
int put_file(Session& s) {
  Json params = {{"document", object_from(s.in.operands[0])}};
  if (s.in.has("id")) params["id"] = s.in.value("id");
  return s.change(Method, std::move(params));
}
constexpr char kPrefixListPut[] = "prefix_list.put", kSubnetPut[] = "subnet.put", kVpcPut[] = "vpc.put", kStateReplace[] = "state.replace";

using S = Session&;
const Command kCommands[] = {
    // name, operands, options, help, run
    {"status", "", 0, "how the engine is",
     [](S s) {
       s.look("status", Json::object(), print_status);
       return 0;
     }},
    {"stats", "", kWatch, "what went through each port, and whether it adds up",
     [](S s) {
       s.look("stats", Json::object(), print_stats, "ports");
       return 0;
     }},
    {"drops top", "", kWatch | kCount, "what is dropped most at this moment, packets a second", drops_top},
    {"drops", "[ENI]", kWatch, "what was dropped, and what each reason means", drops},
    {"explain", "[WORD…]", kExplain | kCount, "what would become of a packet, stage by stage: tcp from 198.51.100.9:4000 to 10.0.0.35:80", explain},
    {"trace", "", kPackets | kTrace | kCount, "the next packets, what each stage said of them, and the rule that decided", trace},
    {"capture", "", kPackets | kCapture | kCount, "packets as a pcapng file, or into a pipe", capture},
    {"flow list", "", kFlow | kList | kWatch, "the connections, and the rule that let each in", flow_list},
    {"flow flush", "", kFlow | kAll, "forget connections; their next packet is judged by the rules as they are", flow_flush},
    {"task list", "", 0, "the tasks' network interfaces",
     [](S s) {
       s.look("task.list", Json::object(), print_task_list, "tasks");
       return 0;
     }},
    {"task show", "T", 0, "all that is known of one",
     [](S s) {
       s.look("task.show", {{"task", s.in.operands[0]}}, print_task_show);
       return 0;
     }},
    {"task describe", "[T…]", 0, "as `aws ecs describe-tasks` has them (JSON)", task_describe},
    {"task attach", "", kChange | kAttach | kSettings, "attach an ENI, or add to what is known of it", task_attach},
    {"task set", "T", kChange | kSettings, "its limits, and how its traffic is treated", task_set},
    {"task detach", "T", kChange | kMissingOk, "take one away", task_detach},
    {"sg list", "", 0, "the security groups",
     [](S s) {
       s.look("sg.list", Json::object(), print_sg_list, "groups");
       return 0;
     }},
    {"sg show", "[ID…]", 0, "their rules (with -o json as `sg put` takes them)",
     [](S s) {
       s.look("sg.show", {{"groups", s.in.operands}}, print_sg_show, "SecurityGroups");
       return 0;
     }},
    {"sg put", "FILE|-", kChange | kReplaceAll | kConsent, "groups as describe-security-groups or describe-security-group-rules prints them", sg_put},
    {"sg delete", "ID", kChange, "remove a group",
     [](S s) {
       return s.change("sg.delete", {{"group", s.in.operands[0]}});
     }},
    {"sg members", "ID", 0, "the addresses in a group, here and elsewhere",
     [](S s) {
       s.look("sg.members", {{"group", s.in.operands[0]}}, print_sg_members);
       return 0;
     }},
    {"sg members-put", "ID [ADDR…]", kChange, "the addresses elsewhere, the whole set (none: it is empty)",
     sg_members_put},
    {"sg members-add", "ID ADDR [ADDR…]", kChange, "some more of them", sg_members_add},
    {"sg members-remove", "ID ADDR [ADDR…]", kChange, "some of them no longer", sg_members_remove},
    {"prefix-list put", "FILE|-", kChange | kPrefixList, "a list as get-managed-prefix-list-entries prints it (with --id), or describe-prefix-lists",
     put_file<kPrefixListPut>},
    {"subnet list", "", 0, "the subnets",
     [](S s) {
       s.look("subnet.list", Json::object(), print_subnet_list, "Subnets");
       return 0;
     }},
    {"subnet put", "FILE|-", kChange, "subnets as describe-subnets prints them", put_file<kSubnetPut>},
    {"vpc put", "FILE|-", kChange, "the ranges of their VPCs as describe-vpcs prints them", put_file<kVpcPut>},
    {"acl list", "", 0, "the network ACLs",
     [](S s) {
       s.look("acl.list", Json::object(), print_acl_list, "acls");
       return 0;
     }},
    {"acl show", "[ACL…]", 0, "their entries (with -o json as `acl put` takes them)",
     [](S s) {
       s.look("acl.show", {{"acls", s.in.operands}}, print_acl_show, "NetworkAcls");
       return 0;
     }},
    {"acl put", "FILE|-", kChange | kReplaceAll | kConsent, "network ACLs as describe-network-acls prints them", acl_put},
    {"acl delete", "ACL", kChange, "remove one",
     [](S s) {
       return s.change("acl.delete", {{"acl", s.in.operands[0]}});
     }},
    {"event submit", "FILE|-", kChange | kAttach | kSettings | kInterfaces, "what ECS or EC2 said; options fill in the rest", event_submit},
    {"state get", "", 0, "the whole dynamic state (JSON)",
     [](S s) {
       s.look("state.get", Json::object(), print_json);
       return 0;
     }},
    {"state replace", "FILE|-", kChange | kConsent, "put that back, whole", put_file<kStateReplace>},
    {"worker list", "", kWatch, "the workers, and how busy they are",
     [](S s) {
       s.look("worker.list", Json::object(), print_worker_list, "workers");
       return 0;
     }},
    {"share list", "", kWatch, "what each ENI has of what ENIs share, and what it was refused",
     [](S s) {
       s.look("share.list", Json::object(), print_share_list, "shares");
       return 0;
     }},
    {"worker move", "T WORKER", kChange, "give a task to another worker, while its traffic goes on", worker_move},
    {"steering list", "", kWatch, "whether the trunk's device leads each ENI's packets to its worker, and why not",
     [](S s) {
       s.look("steering.list", Json::object(), print_steering_list, "endpoints");
       return 0;
     }},
    {"steering resync", "", 0, "give up what the device was told, and tell it anew", steering_resync},
    {"flow-log list", "", kWatch, "the flow logs: what is written, lost and waits",
     [](S s) {
       s.look("flow_log.list", Json::object(), print_flow_log_list, "flow_logs");
       return 0;
     }},
    {"flow-log flush", "", 0, "end the interval now, and wait until its lines are written", flow_log_flush},
    {"ping", "", 0, "is the engine there, and which version", ping},
    {"help", "[COMMAND…]", 0, "this, or one command's options", help},
    {"version", "", 0, "of trunkctl itself", version},
};

}  // namespace

std::span<const Command> commands() { return kCommands; }

// ---- completion --------------------------------------------------------------------------------------------------

namespace {

// What the engine has of a kind (an operand's or an option's name), if it answers at once.
std::set<std::string> live(std::string_view kind, const std::string& socket_path) {
  std::set<std::string> out;
  const auto add = [&out](const Json& list, const char* key) {
    for (const Json& element : list) {
      const Json value = element.value(key, Json());
      if (value.is_string()) out.insert(printable(value.get<std::string>()));
    }
  };
  try {
    if (kind == "T" || kind == "ENI") {
      const Json tasks = Client(socket_path, std::chrono::milliseconds(300)).call("task.list", Json::object());
      add(list_of(tasks, "tasks"), "eni");
      if (kind == "T") add(list_of(tasks, "tasks"), "task");
    } else if (kind == "ID") {
      add(list_of(Client(socket_path, std::chrono::milliseconds(300)).call("sg.list", Json::object()), "groups"), "id");
    } else if (kind == "ACL") {
      add(list_of(Client(socket_path, std::chrono::milliseconds(300)).call("acl.list", Json::object()), "acls"), "id");
    } else if (kind == "WORKER") {
      const Json workers = Client(socket_path, std::chrono::milliseconds(300)).call("worker.list", Json::object());
      for (const Json& worker : list_of(workers, "workers")) out.insert(worker.value("worker", Json()).dump());
    } else if (kind == "SUBNET") {
      add(list_of(Client(socket_path, std::chrono::milliseconds(300)).call("subnet.list", Json::object()), "Subnets"),
          "SubnetId");
    }
  } catch (const std::exception&) {
    out.clear();  // completion is silent
  }
  out.erase("");
  return out;
}

const Option* find_option(std::string_view word) {
  for (const Option& option : all_options()) {
    const bool by_letter = option.letter != 0 && word.size() == 2 && word[0] == '-' && word[1] == option.letter;
    if (by_letter || (word.starts_with("--") && word.substr(2) == option.name)) return &option;
  }
  return nullptr;
}

// `__complete WORDS…`: the words of the line so far, the last of them the one to complete (perhaps empty).
int complete(std::vector<std::string> words) {
  std::string prefix;
  if (!words.empty()) {
    prefix = words.back();
    words.pop_back();
  }
  if (prefix == "=") prefix.clear();  // bash takes "--output=js" apart into three words
  Invocation in;
  std::vector<std::string> plain;
  const Option* open = nullptr;  // waits for its value
  for (const std::string& word : words) {
    if (word == "=") continue;
    if (open != nullptr) {
      if (open->name == "socket" && plain.empty()) in.options["socket"] = {word};
      open = nullptr;
    } else if (word.starts_with('-') && word != "-") {
      open = find_option(word);
      if (open != nullptr && open->value.empty()) open = nullptr;
    } else {
      plain.push_back(word);
    }
  }
  if (plain.size() > 1 && plain[0] == "help") plain.erase(plain.begin());

  std::string line;  // the command's words so far, each followed by a space
  for (const std::string& word : plain) line += word + " ";
  const Command* command = nullptr;
  std::set<std::string> out;
  for (const Command& candidate : commands()) {
    const std::string name = std::string(candidate.name) + " ";
    if (line.starts_with(name)) command = &candidate;
    if (open == nullptr && name.starts_with(line) && name != line) {
      out.insert(name.substr(line.size(), name.find(' ', line.size()) - line.size()));
    }
  }
  if (open != nullptr && command != nullptr) {  // one name may be an option of several kinds
    for (const Option& option : all_options()) {
      if (option.name == open->name && (option.set & command->options) != 0) open = &option;
    }
  }
  if (open != nullptr) {
    if (open->name == "output")
      out = {"table", "json", "jsonl"};
    else if (open->name == "point")
      out = {"in", "out", "drop"};
    else if (open->name == "direction")
      out = {"ingress", "egress"};
    else if (open->name == "sort")
      out = {"bytes", "packets", "idle"};
    else if (open->name == "proto")
      out = {"tcp", "udp", "icmp", "icmpv6"};
    else if (open->name == "state")
      out = {"syn_sent",     "syn_received", "picked_up",  "established", "reopening",  "closing",       "closed",     "refused",     "reset",         "udp_asked",
             "udp_answered", "udp_again",    "udp_stream", "icmp_asked",  "icmp_answered", "icmp_again", "other_asked", "other_answered", "other_again"};
    else if (open->value == "KIND")
      out = {"tap", "virtio-user", "vhost-user", "vdev"};
    else if (open->value == "on|off")
      out = {"on", "off"};
    else if (open->value == "keep|revalidate")
      out = {"keep", "revalidate"};
    else if (open->name != "attachment-id")
      out = live(open->value, in.socket_path());
  } else if (prefix.starts_with('-') || (command != nullptr && command->operands.empty())) {
    const unsigned sets = kGlobal | (command != nullptr ? command->options : 0);
    for (const Option& option : all_options()) {
      if ((option.set & sets) != 0) out.insert("--" + std::string(option.name));
    }
  } else if (command != nullptr && command->name == "help") {
    for (const Command& each : commands()) out.insert(std::string(each.name.substr(0, each.name.find(' '))));
  } else if (command != nullptr) {
    const auto operands = operands_of(*command);
    const auto given = plain.size() - (command->name.find(' ') == std::string_view::npos ? 1 : 2);
    if (given < operands.size() || operands.back().many) {
      out.merge(live(operands[std::min(given, operands.size() - 1)].name, in.socket_path()));
    }
  }
  for (const std::string& word : out) {
    if (word.starts_with(prefix)) std::cout << word << "\n";
  }
  return kDone;
}

int run(const std::vector<std::string>& words) {
  if (!words.empty() && words[0] == "__complete") return complete({words.begin() + 1, words.end()});
  Session session{Invocation{}};
  try {
    Invocation in = parse_words(words, commands());
    if (in.has("version"))
      in.command = &*std::find_if(std::begin(kCommands), std::end(kCommands),
                                  [](const Command& c) { return c.name == "version"; });
    session = Session(std::move(in));
    const Command* command = session.in.command;
    if (session.in.has("help")) {
      std::cout << (command != nullptr ? help_text(*command) : help_text(commands()));
      return kDone;
    }
    if (command == nullptr) throw UsageError("no command given; `trunkctl help` lists them");
    return command->run(session);
  } catch (const UsageError& error) {
    session.say(error.what());
    return kUsage;
  } catch (const Failure& failure) {
    session.say(failure.what());
    return failure.exit_code();
  } catch (const AnswerError& error) {
    session.say("engine at " + session.in.socket_path() + ": its answer is not as the control protocol has it (" +
                error.what() + ")");
    return kUnreachable;
  } catch (const Json::exception& error) {
    session.say("engine at " + session.in.socket_path() + ": its answer is not as the control protocol has it (" +
                error.what() + ")");
    return kUnreachable;
  }
}

}  // namespace

}  // namespace trunkline::control

int main(int argc, char** argv) { return trunkline::control::run({argv + 1, argv + argc}); }
