// SPDX-License-Identifier: BSD-3-Clause
#include "control/ctl_args.h"

#include <algorithm>
#include <array>
#include <boost/program_options.hpp>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <set>
#include <sstream>

namespace trunkline::control {

namespace po = boost::program_options;

namespace {

constexpr std::string_view kDefaultSocket = "/run/trunkline/control.sock";
constexpr std::size_t kMaxFile = 16u << 20;  // read no more than this; the request's own limit is the client's to check

// --address and --group may be given again and again.
constexpr std::array kOptions = {
    Option{"socket", 0, "PATH", "the engine's socket (else TRUNKLINE_SOCKET, /run/trunkline/control.sock)", kGlobal},
    Option{"output", 'o', "FORMAT", "table, json (the result as it is) or jsonl (a line an element)", kGlobal},
    Option{"no-headers", 0, "", "tables without their first line", kGlobal},
    Option{"timeout", 0, "SECONDS", "give up after this long in all (10)", kGlobal},
    Option{"quiet", 0, "", "of a change that succeeds print only warnings", kGlobal},
    Option{"help", 'h', "", "what trunkctl, or this command, can do", kGlobal},
    Option{"version", 0, "", "of trunkctl itself", kGlobal},
    Option{"dry-run", 0, "", "of a change: check it and say what would be done", kChange},
    Option{"expect-revision", 0, "N", "of a change: only if the state still has this revision", kChange},
    Option{"no-wait", 0, "", "of a change: in force is enough, the disk follows within a tenth of a second", kChange},
    Option{"watch", 0, "", "again every second", kWatch},
    Option{"missing-ok", 0, "", "succeed when there is no such task", kMissingOk},
    Option{"allow-empty", 0, "", "even if that leaves nothing", kConsent},
    Option{"allow-removal", 0, "", "even if that takes away most of the ENIs, groups, rules or another kind", kConsent},
    Option{"replace-all", 0, "", "remove those that are not given", kReplaceAll},
    Option{"id", 0, "ID", "the prefix list that the entries are of", kPrefixList},
    Option{"instance", 0, "INSTANCE", "of describe-network-interfaces: this host's instance (else identity.instance_id of the engine's config)", kInterfaces},
    Option{"all", 0, "", "of interfaces: also those that nothing says are this host's", kInterfaces},
    Option{"eni", 0, "ENI", "the network interface", kAttach},
    Option{"attachment-id", 0, "ID", "its attachment", kAttach},
    Option{"task-arn", 0, "ARN", "the task", kAttach},
    Option{"mac", 0, "MAC", "the interface's", kAttach},
    Option{"address", 0, "IP", "of the interface; repeatable", kAttach},
    Option{"subnet", 0, "SUBNET", "the interface's", kAttach},
    Option{"vlan", 0, "N", "its VLAN on the trunk; \"untagged\" for the trunk's own ENI", kAttach},
    Option{"trunk-mac", 0, "MAC", "of the trunk it is a branch of", kAttach},
    Option{"group", 0, "ID", "a security group; repeatable", kAttach},
    Option{"port", 0, "KIND", "tap, virtio-user, vhost-user or vdev", kAttach},
    Option{"netns", 0, "NAME", "tap, virtio-user: network namespace; \"\" is the engine's own", kAttach},
    Option{"ifname", 0, "NAME", "tap, virtio-user: the interface's name in it", kAttach},
    Option{"mtu", 0, "N", "the port's", kAttach},
    Option{"no-default-route", 0, "", "tap, virtio-user: addresses only", kAttach},
    Option{"no-offloads", 0, "", "every frame leaves the port's sender whole: no segmentation or checksum left to the other end", kAttach},
    Option{"socket", 0, "PATH", "vhost-user: the port's socket (the engine's goes before the command)", kAttach},
    Option{"devargs", 0, "ARGS", "vdev: as DPDK takes them", kAttach},
    Option{"no-source-dest-check", 0, "", "the task may send and receive for other addresses", kAttach},
    Option{"ingress-bits", 0, "N", "at most so many bits a second towards the task; 0: no limit", kSettings},
    Option{"egress-bits", 0, "N", "the same from the task", kSettings},
    Option{"ingress-packets", 0, "N", "at most so many packets a second towards the task; 0: no limit", kSettings},
    Option{"egress-packets", 0, "N", "the same from the task", kSettings},
    Option{"on-change", 0, "keep|revalidate", "what other rules do to tracked connections", kSettings},
    Option{"always-track", 0, "on|off", "track every connection, as behind a Network Load Balancer", kSettings},
    Option{"audit", 0, "on|off", "what the rules would refuse is counted, and passes", kSettings},
    Option{"block-imds", 0, "on|off", "no way to the instance metadata service", kSettings},
    Option{"from", 0, "FILE|-", "a JSON object with the same members as the protocol's; options override", kAttach},
    Option{"task", 0, "T", "of this task", kFlow | kPackets},
    Option{"remote", 0, "CIDR", "with this address, or one of these, at the other end", kFlow},
    Option{"proto", 0, "NAME", "tcp, udp, icmp, icmpv6 or a number", kFlow},
    Option{"port", 0, "N", "TCP or UDP port, of either end", kFlow},
    Option{"state", 0, "NAME", "established, syn_sent, closing, reset, udp_..., icmp_... and so on: docs/connections.md", kFlow},
    Option{"idle", 0, "SECONDS", "without a packet for so long at least", kFlow},
    Option{"sort", 0, "WHAT", "bytes, packets or idle, largest first (bytes)", kList},
    Option{"limit", 0, "N", "so many at most (100)", kList},
    Option{"all", 0, "", "every connection of the engine", kAll},
    Option{"from", 0, "END", "task, trunk or address that sends it; with --pcap task or trunk (trunk)", kExplain},
    Option{"to", 0, "END", "address or task that it is for", kExplain},
    Option{"pcap", 0, "FILE", "the packets of a capture file instead of words", kExplain},
    Option{"filter", 0, "EXPR", "as tcpdump takes it; it sees frames without their VLAN tag", kPackets},
    Option{"direction", 0, "WAY", "ingress (towards the task) or egress", kPackets},
    Option{"drops", 0, "", "only what is refused", kTrace},
    Option{"point", 0, "POINT", "in (as packets come), out (as they go) or drop (those refused) (in)", kCapture},
    Option{"duration", 0, "SECONDS", "stop after so long", kCapture},
    Option{"snaplen", 0, "N", "bytes of each frame (9216)", kCapture},
    Option{"write", 'w', "FILE|-", "where to", kCapture},
    Option{"count", 'n', "N", "so many (drops top: 10; trace: 20; explain --pcap, capture: all)", kCount},
};

bool repeatable(std::string_view option) { return option == "address" || option == "group"; }

// Insertions, deletions, replacements and swaps of neighbours that lead from one to the other.
std::size_t edits(std::string_view a, std::string_view b) {
  std::vector<std::vector<std::size_t>> d(a.size() + 1, std::vector<std::size_t>(b.size() + 1));
  for (std::size_t i = 0; i <= a.size(); ++i) {
    for (std::size_t j = 0; j <= b.size(); ++j) {
      if (i == 0 || j == 0) {
        d[i][j] = i + j;
        continue;
      }
      const std::size_t differs = a[i - 1] == b[j - 1] ? 0 : 1;
      d[i][j] = std::min({d[i - 1][j] + 1, d[i][j - 1] + 1, d[i - 1][j - 1] + differs});
      const bool swapped = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
      if (swapped) d[i][j] = std::min(d[i][j], d[i - 2][j - 2] + 1);
    }
  }
  return d[a.size()][b.size()];
}

// "; did you mean X?" for the nearest spelling, when one is near.
std::string suggestion(std::string_view typed, const std::set<std::string>& known) {
  std::string best;
  std::size_t least = std::max<std::size_t>(2, typed.size() / 3) + 1;
  for (const std::string& word : known) {
    const std::size_t distance = typed.size() >= 3 && word.starts_with(typed) ? 1 : edits(typed, word);
    if (distance < least && distance < word.size()) {
      least = distance;
      best = word;
    }
  }
  return best.empty() ? "" : "; did you mean " + best + "?";
}

std::pair<std::string, std::string> two_words(std::string_view name) {
  const std::size_t space = name.find(' ');
  if (space == std::string_view::npos) return {std::string(name), ""};
  return {std::string(name.substr(0, space)), std::string(name.substr(space + 1))};
}

// The command that these words begin with, or null.
const Command* command_of(const std::vector<std::string>& words, std::span<const Command> commands) {
  for (const Command& command : commands) {
    const auto [noun, verb] = two_words(command.name);
    if (!words.empty() && words[0] == noun && (verb.empty() || (words.size() > 1 && words[1] == verb))) return &command;
  }
  return nullptr;
}

[[noreturn]] void no_such_command(const std::vector<std::string>& words, std::span<const Command> commands) {
  std::set<std::string> nouns, verbs;
  for (const Command& command : commands) {
    const auto [noun, verb] = two_words(command.name);
    nouns.insert(noun);
    if (noun == words[0]) verbs.insert(verb);
  }
  if (verbs.empty()) throw UsageError("unknown command \"" + words[0] + "\"" + suggestion(words[0], nouns));
  std::string listed;
  for (const std::string& verb : verbs) listed += (listed.empty() ? "" : ", ") + verb;
  if (words.size() < 2) throw UsageError("\"" + words[0] + "\" wants one of: " + listed);
  const std::string near = suggestion(words[1], verbs);
  throw UsageError("unknown command \"" + words[0] + " " + words[1] + "\"" +
                   (near.empty() ? "; there is " + listed : near));
}

void check_operands(const Invocation& in) {
  const std::string name(in.command->name);
  std::size_t least = 0, most = 0;
  for (const Operand& operand : operands_of(*in.command)) {
    least += operand.optional ? 0 : 1;
    most = operand.many ? static_cast<std::size_t>(-1) : most + 1;
    if (in.operands.size() < least) throw UsageError("`" + name + "` wants " + std::string(in.command->operands));
  }
  if (in.operands.size() > most) {
    throw UsageError("`" + name + "` has no use for \"" + in.operands[most] + "\"");
  }
}

void check_option(const std::string& name, const Invocation& in) {
  bool known = false;
  std::set<std::string> allowed;
  const unsigned sets = kGlobal | (in.command != nullptr ? in.command->options : ~0u);
  for (const Option& option : kOptions) {
    known = known || option.name == name;
    if ((option.set & sets) != 0) allowed.insert("--" + std::string(option.name));
  }
  const std::string shown = (name.starts_with('-') ? "" : "--") + name;
  if (allowed.contains(shown)) return;
  if (!known) throw UsageError("unknown option " + shown + suggestion(shown, allowed));
  throw UsageError(shown + " is not an option of `" + std::string(in.command->name) + "`");
}

std::string option_line(const Option& option) {
  std::string left = option.letter != 0 ? std::string("  -") + option.letter + ", --" : std::string("  --");
  left += std::string(option.name) + (option.value.empty() ? "" : " " + std::string(option.value));
  left.resize(std::max<std::size_t>(left.size() + 2, 26), ' ');
  return left + std::string(option.help) + "\n";
}

}  // namespace

std::span<const Option> all_options() { return kOptions; }

std::vector<Operand> operands_of(const Command& command) {
  static constexpr std::string_view kMany = "…";
  std::vector<Operand> out;
  std::istringstream words{std::string(command.operands)};
  for (std::string word; words >> word;) {
    std::string_view name = command.operands.substr(command.operands.find(word), word.size());
    Operand operand{name, false, false};
    if (name.starts_with('[')) {
      operand.optional = true;
      name = name.substr(1, name.size() - 2);
    }
    if (name.ends_with(kMany)) {
      operand.many = true;
      name.remove_suffix(kMany.size());
    }
    operand.name = name;
    out.push_back(operand);
  }
  return out;
}

Invocation parse_words(const std::vector<std::string>& words, std::span<const Command> commands) {
  po::options_description known;
  std::set<std::string_view> added;
  for (const Option& option : kOptions) {
    if (!added.insert(option.name).second) continue;
    const std::string name = std::string(option.name) + (option.letter != 0 ? std::string(",") + option.letter : "");
    option.value.empty() ? known.add_options()(name.c_str(), "")
                         : known.add_options()(name.c_str(), po::value<std::string>(), "");
  }
  po::positional_options_description positions;
  positions.add("words", -1);
  std::vector<std::string> tokens;  // Boost refuses "--netns=", which is --netns ""
  bool verbatim = false;            // after "--"
  for (const std::string& word : words) {
    verbatim = verbatim || word == "--";
    const bool empty_value =
        !verbatim && word.starts_with("--") && word.size() > 3 && word.find('=') + 1 == word.size();
    tokens.push_back(empty_value ? word.substr(0, word.size() - 1) : word);
    if (empty_value) tokens.emplace_back();
  }

  namespace style = po::command_line_style;
  std::vector<po::option> parsed;
  try {
    parsed = po::command_line_parser(tokens)
                 .options(known)
                 .positional(positions)
                 .allow_unregistered()
                 .style(style::unix_style & ~style::allow_guessing)
                 .run()
                 .options;
  } catch (const po::error& error) {
    throw UsageError(error.what());
  }

  Invocation in;
  std::vector<std::string> plain;
  std::vector<std::string> names;
  for (const po::option& option : parsed) {
    if (option.position_key >= 0) {
      plain.insert(plain.end(), option.value.begin(), option.value.end());
      continue;
    }
    if (option.unregistered) {
      const std::string& token = option.original_tokens.at(0);
      names.push_back(token.substr(0, token.find('=')));
      continue;
    }
    std::string name = option.string_key;
    names.push_back(name);
    const Command* so_far = command_of(plain, commands);
    if (name == "socket" && so_far != nullptr && (so_far->options & kAttach) != 0) name = "port-socket";
    auto& values = in.options[name];
    if (!values.empty() && !repeatable(name)) throw UsageError("--" + option.string_key + " is given twice");
    values.push_back(option.value.empty() ? "" : option.value[0]);
  }
  in.command = command_of(plain, commands);
  for (const std::string& name : names) check_option(name, in);
  if (in.command == nullptr) {
    if (!plain.empty()) no_such_command(plain, commands);
    return in;
  }
  const auto name_words = two_words(in.command->name).second.empty() ? 1 : 2;
  in.operands.assign(plain.begin() + name_words, plain.end());
  if (!in.has("help")) check_operands(in);
  in.output();
  in.timeout();
  return in;
}

std::string Invocation::socket_path() const {
  if (has("socket")) return value("socket");
  const char* from_env = std::getenv("TRUNKLINE_SOCKET");
  return from_env != nullptr && *from_env != '\0' ? from_env : std::string(kDefaultSocket);
}

std::string Invocation::output() const {
  const std::string format = has("output") ? value("output") : "table";
  if (format != "table" && format != "json" && format != "jsonl") {
    throw UsageError("--output is table, json or jsonl, not \"" + format + "\"" +
                     suggestion(format, {"table", "json", "jsonl"}));
  }
  return format;
}

std::chrono::milliseconds Invocation::timeout() const {
  if (!has("timeout")) return std::chrono::seconds(10);
  const std::string& typed = value("timeout");
  double seconds = 0;
  const auto [end, error] = std::from_chars(typed.data(), typed.data() + typed.size(), seconds);
  if (error != std::errc() || end != typed.data() + typed.size() || !(seconds >= 0.001 && seconds <= 86400)) {
    throw UsageError("--timeout is a number of seconds from 0.001 to 86400, not \"" + typed + "\"");
  }
  return std::chrono::milliseconds(std::llround(seconds * 1000));
}

long long whole_number(const std::string& typed, const std::string& what) {
  long long number = 0;
  const auto [end, error] = std::from_chars(typed.data(), typed.data() + typed.size(), number);
  if (error != std::errc() || end != typed.data() + typed.size()) {
    throw UsageError(what + " is a whole number, not \"" + typed + "\"");
  }
  return number;
}

long long integer_option(const Invocation& in, std::string_view option) {
  return whole_number(in.value(option), "--" + std::string(option));
}

Json read_json(const std::string& file) {
  const std::string name = file == "-" ? "standard input" : file;
  std::ifstream opened;
  if (file != "-") opened.open(file, std::ios::binary);
  std::istream& stream = file == "-" ? std::cin : opened;
  std::string text(kMaxFile + 1, '\0');
  if (!stream || !stream.read(text.data(), static_cast<std::streamsize>(text.size()))) {
    // Short reads are the rule; a stream that is bad, or that never opened, is not.
    if (stream.bad() || (file != "-" && !opened.is_open())) throw UsageError("cannot read " + name);
  }
  text.resize(static_cast<std::size_t>(stream.gcount()));
  if (text.size() > kMaxFile) {
    throw UsageError(name + " is over 16 MiB; the engine takes at most 1 MiB a request. Nothing was sent");
  }

  // Inside a request it lies two levels deeper, and the engine takes 32 in all.
  auto document = config::parse_json(text, {.max_bytes = kMaxFile, .max_depth = 30});
  if (document) return std::move(*document);
  const std::size_t first = text.find_first_not_of(" \t\r\n\xef\xbb\xbf");
  const bool looks_like_json = first == std::string::npos || text[first] == '{' || text[first] == '[';
  throw UsageError(name + ": " + (document.error().name == "limit" ? "" : "not JSON: ") + document.error().message +
                   (looks_like_json ? "" : "; the AWS CLI prints JSON with --output json"));
}

Json attach_params(const Invocation& in) {
  Json params = in.has("from") ? read_json(in.value("from")) : Json::object();
  if (!params.is_object()) throw UsageError("--from " + in.value("from") + ": a JSON object is wanted");
  const auto strings = [&](Json& into, std::string_view option, const char* member) {
    if (in.has(option)) into[member] = in.value(option);
  };
  strings(params, "eni", "eni");
  strings(params, "attachment-id", "attachment_id");
  strings(params, "task-arn", "task_arn");
  strings(params, "mac", "mac");
  if (in.has("address")) params["addresses"] = in.options.find("address")->second;
  strings(params, "subnet", "subnet");
  if (in.has("vlan")) params["vlan"] = in.value("vlan") == "untagged" ? Json("untagged") : Json(integer_option(in, "vlan"));
  strings(params, "trunk-mac", "trunk_mac");
  if (in.has("group")) params["groups"] = in.options.find("group")->second;
  if (in.has("no-source-dest-check")) params["source_dest_check"] = false;

  Json port = params.value("port", Json::object());
  if (!port.is_object()) throw UsageError("--from " + in.value("from") + ": \"port\" is not an object");
  // A port of another kind than the file's shares nothing with it.
  if (in.has("port") && port.value("kind", Json()) != in.value("port")) port = Json::object();
  strings(port, "port", "kind");
  strings(port, "netns", "netns");
  strings(port, "ifname", "ifname");
  if (in.has("mtu")) port["mtu"] = integer_option(in, "mtu");
  if (in.has("no-default-route")) port["default_route"] = false;
  if (in.has("no-offloads")) port["offloads"] = false;
  strings(port, "devargs", "devargs");
  if (in.has("port-socket")) {
    if (port.value("kind", Json()) != "vhost-user") {
      throw UsageError("after `" + std::string(in.command->name) +
                       "` --socket is a vhost-user port's; put the engine's before the command");
    }
    port["socket"] = in.value("port-socket");
  }
  // Words that only one kind has tell the kind.
  if (!port.empty() && !port.contains("kind")) port["kind"] = port.contains("devargs") ? "vdev" : "tap";
  if (!port.empty()) params["port"] = port;
  add_settings(in, params);
  return params;
}

void add_settings(const Invocation& in, Json& params) {
  for (const auto& [option, member] : {std::pair{"ingress-bits", "ingress_bits"}, std::pair{"egress-bits", "egress_bits"},
                                       std::pair{"ingress-packets", "ingress_packets"}, std::pair{"egress-packets", "egress_packets"}}) {
    if (!in.has(option)) continue;
    if (params.contains("limits") && !params["limits"].is_object()) throw UsageError("--from " + in.value("from") + ": \"limits\" is not an object");
    params["limits"][member] = integer_option(in, option);
  }
  if (in.has("on-change")) params["on_change"] = in.value("on-change");
  for (const auto& [option, member] :
       {std::pair{"always-track", "always_track"}, std::pair{"audit", "audit"}, std::pair{"block-imds", "block_imds"}}) {
    if (!in.has(option)) continue;
    const std::string& word = in.value(option);
    if (word != "on" && word != "off") throw UsageError("--" + std::string(option) + " is \"" + word + "\"; wanted on or off");
    params[member] = word == "on";
  }
}

std::string help_text(std::span<const Command> commands) {
  std::string out =
      "usage: trunkctl [OPTION…] COMMAND …\n\nAsks trunklined, and tells it what to do.\n\ncommands:\n";
  for (const Command& command : commands) {
    std::string left = "  " + std::string(command.name) + " " + std::string(command.operands);
    const auto wide = static_cast<std::size_t>(
        std::count_if(left.begin(), left.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; }));
    left.append(wide < 32 ? 32 - wide : 1, ' ');
    out += left + std::string(command.help) + "\n";
  }
  out += "\noptions, anywhere:\n";
  for (const Option& option : kOptions) {
    if ((option.set & (kGlobal | kChange)) != 0) out += option_line(option);
  }
  return out +
         "\nT is a task id, a task ARN, an ENI or an attachment id. FILE may be - for standard input.\n"
         "Exit codes: 0 done; 1 refused (explain: would not be delivered); 2 usage; 3 not found; 4 no engine, or no answer in time; 5 stale revision.\n"
         "`trunkctl help COMMAND` says more.\n";
}

std::string help_text(const Command& command) {
  std::string out = "usage: trunkctl " + std::string(command.name) + " [OPTION…]" +
                    (command.operands.empty() ? "" : " ") + std::string(command.operands) + "\n\n" +
                    std::string(command.help) + "\n\noptions:\n";
  for (const Option& option : kOptions) {
    if ((option.set & command.options) != 0) out += option_line(option);
  }
  for (const Option& option : kOptions) {
    if (option.set == kGlobal) out += option_line(option);
  }
  return out;
}

}  // namespace trunkline::control
