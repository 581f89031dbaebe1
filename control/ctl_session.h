// SPDX-License-Identifier: BSD-3-Clause
//
// One run of one command of trunkctl: what was typed, how to print, and the two ways to ask. The commands themselves are in ctl.cpp (kCommands,
// the table of all), ctl_inspect.cpp, ctl_explain.cpp and ctl_capture.cpp.
#pragma once

#include <string>
#include <string_view>

#include "control/ctl_args.h"
#include "control/ctl_client.h"
#include "control/ctl_print.h"

namespace trunkline::control {

using Printer = std::string (*)(const Json&, const Style&);

struct Session {
  explicit Session(Invocation invocation);

  // A method that looks. `list` is what jsonl prints a line an element of.
  Json look(std::string_view method, const Json& params, Printer print, const char* list = nullptr);
  // A method that changes.
  int change(std::string_view method, Json params);
  void show(const Json& result, Printer print, const char* list) const;
  void say(const std::string& lines) const;

  Invocation in;
  Style style;
};

// ctl_inspect.cpp
int drops_top(Session& s);
int flow_list(Session& s);
int flow_flush(Session& s);
// ctl_explain.cpp
int explain(Session& s);
// ctl_capture.cpp
int trace(Session& s);
int capture(Session& s);

}  // namespace trunkline::control
