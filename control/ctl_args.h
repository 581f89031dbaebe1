// SPDX-License-Identifier: BSD-3-Clause
//
// What was typed at trunkctl: the words of a command, its operands, its options. The commands are a table that ctl.cpp
// owns; parsing, the help text and completion all read that table and the table of options here, and nothing else.
//
// The words after a command's name are written the way help shows them, and that is their grammar too: "T" one, "[T]"
// at most one, "T…" one or more, "[T…]" any number. The word says what completes it: T a task, ENI, ID a group, ACL a network
// ACL, WORKER a worker's number, FILE|-.
//
// --socket means the engine's socket, except after `task attach` and `event submit`, where it is the vhost-user port's
// (and is refused unless the port is one, so that it never ends up meaning the wrong one).
#pragma once

#include <chrono>
#include <map>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "control/ctl_client.h"

namespace trunkline::control {

// Which commands an option belongs to.
enum OptionSet : unsigned {
  kGlobal = 1,
  kChange = 2,  // of every command that changes something
  kWatch = 4,
  kMissingOk = 8,
  kConsent = 1U << 24,  // that a replacing change may take much away
  kReplaceAll = 16,
  kAttach = 32,  // the members of task.attach
  kSettings = 64,  // of these, those that task.set changes too
  kFlow = 128,     // which flows are meant
  kList = 256,
  kAll = 512,
  kCount = 1024,
  kExplain = 2048,
  kPackets = 4096,  // which packets are looked at
  kTrace = 8192,
  kCapture = 16384,
  kPrefixList = 32768,
  kInterfaces = 65536  // which of a document's interfaces are meant
};

struct Option {
  std::string_view name;
  char letter;             // 0: none
  std::string_view value;  // how help names its value; empty: a flag
  std::string_view help;
  unsigned set;
};

std::span<const Option> all_options();

struct Session;

struct Command {
  std::string_view name;      // "task list"
  std::string_view operands;  // "[T…]"
  unsigned options;           // OptionSets beside kGlobal
  std::string_view help;
  int (*run)(Session&);
};

struct Operand {
  std::string_view name;
  bool optional;
  bool many;
};
std::vector<Operand> operands_of(const Command& command);

struct UsageError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// A parsed command line. Options that the command does not have are already refused.
struct Invocation {
  const Command* command = nullptr;  // null: nothing but options (--help, --version, or nothing at all)
  std::vector<std::string> operands;
  std::map<std::string, std::vector<std::string>, std::less<>> options;  // the port's socket is "port-socket"

  bool has(std::string_view option) const { return options.contains(option); }
  const std::string& value(std::string_view option) const { return options.find(option)->second.back(); }

  std::string socket_path() const;
  std::string output() const;  // "table", "json" or "jsonl"
  std::chrono::milliseconds timeout() const;
};

Invocation parse_words(const std::vector<std::string>& words, std::span<const Command> commands);

// A whole number as it was typed for `what`, or in an option.
long long whole_number(const std::string& typed, const std::string& what);
long long integer_option(const Invocation& in, std::string_view option);

// FILE or "-" (standard input) as JSON, read as the engine reads it (config::parse_json): a text that is cut, has a member twice,
// a zero byte or too many levels is refused here, in words.
Json read_json(const std::string& file);

// The parameters of task.attach that --from and the options of kAttach say; options win.
Json attach_params(const Invocation& in);

// Of these the ones that the options of kSettings say.
void add_settings(const Invocation& in, Json& params);

std::string help_text(std::span<const Command> commands);
std::string help_text(const Command& command);

}  // namespace trunkline::control
