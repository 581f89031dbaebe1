// SPDX-License-Identifier: BSD-3-Clause
//
// The changes since a generation was written, one a line, appended and synced: what makes a change durable at the cost of
// what it changes. journal.h says how generations and logs belong together.
//
//     <checksum> {"after":"<checksum>","change":{...},"revision":7,"version":1}
//
// The checksum (16 hex digits) is that of the text behind it. `after` is the checksum of the line before, and in the first
// line that of the generation which it changes; so a line is believed only on exactly the state that it was written on.
// `change` is what config/state_difference.h writes, `revision` the state's after it.
//
// An append that failed half-way is cut off again; if that fails too, the log takes no more. Errors are values.
#pragma once

#include <cstdint>
#include <expected>
#include <string>
#include <string_view>

#include "config/desired_state.h"

namespace trunkline::control {

// FNV-1a, 64 bits, as 16 hex digits.
std::string checksum_text(std::string_view text);

struct LogReading {
  enum class End {
    absent,   // there is no log
    foreign,  // its first line is for another state than this one: nothing was applied
    whole,    // all of it was applied
    torn,     // all but a last line that was not finished, so nobody was ever told that it is on disk
    broken,   // a line is wrong and others may follow: applied up to there
  };
  End end = End::absent;
  std::string why;           // broken: a sentence
  bool at_end = false;       // broken: nothing stands behind that line
  bool exists = false;       // there is a file of that name, whatever it holds
  std::size_t size = 0;      // of the file
  std::uint64_t lines = 0;   // applied
  bool met = false;          // the awaited checksum was one of them, or is what was given
  std::string last;          // checksum of the last line applied, or what was given
  std::size_t bytes = 0;     // up to and with the last line applied
  std::uint64_t revision = 0;  // foreign: of its last line, if that can be read
};
// Applies a log to `state`, whose generation or last line has the checksum `last`.
LogReading apply_log(const std::string& path, std::string last, config::DesiredState& state, std::string_view awaited = {});

class ChangeLog {
 public:
  ChangeLog() = default;
  ~ChangeLog() { close(); }
  ChangeLog(const ChangeLog&) = delete;
  ChangeLog& operator=(const ChangeLog&) = delete;

  // Goes on behind `bytes` of what is there, which are `lines` lines, or begins a new file, which must not be there then.
  std::expected<void, std::string> open(const std::string& path, std::size_t bytes, std::string last, std::uint64_t lines);
  bool is_open() const { return fd_ >= 0; }
  void close();

  std::expected<void, std::string> append(const config::DesiredState& before, const config::DesiredState& after);
  std::size_t bytes() const { return bytes_; }
  // Since the generation, and the checksum of the last of them.
  std::uint64_t lines() const { return lines_; }
  const std::string& last() const { return last_; }

 private:
  int fd_ = -1;
  std::string path_;
  std::size_t bytes_ = 0;
  std::uint64_t lines_ = 0;
  std::string last_;
};

}  // namespace trunkline::control
