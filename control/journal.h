// SPDX-License-Identifier: BSD-3-Clause
//
// The last accepted state on disk, so that a restarted engine comes back with it. A generation is the whole state, in
// state.json in the state directory; what has changed since is in state.log (journal_log.h), a line a change:
//
//     {"checksum":"<16 hex digits>","format":"trunkline-state","state":{...},"version":1}
//
// The checksum is FNV-1a (64 bits) over "<version>:" and the state's canonical dump (keys sorted, no spaces). These
// four members stay in every version to come, so a version number is believed only when the checksum agrees.
//
// Rules:
//  * A save is atomic: written to state.json.tmp, synced, renamed, directory synced. Whenever the engine dies,
//    state.json is the old state or the new one, whole. The generation before it is kept as state.json.previous; of the first
//    one it is a copy, so that no single broken file loses the state.
//  * record() appends a line and syncs it: a change costs what it changes. When the log has grown large beside the state, a
//    generation is written, and the log becomes state.log.previous, which leads from the generation before to this one.
//    A log's lines name what they follow, so a crash between any two of these steps leaves nothing ambiguous.
//  * A last line that was not finished was promised to nobody and is cut off. A log with a broken line is copied to
//    state.log.bad-<UTC time> and cut off before that line.
//  * state.mark (controller/journal_mark.h) names the last line that was answered. A log that is missing, empty, another's, or
//    that ends before that line is told (Loaded::damage), and what of it is not used is kept as state.log.bad-<UTC time>. It goes on
//    being told at each start until a change is recorded.
//  * A file here that is not a regular file of this user's (a link above all) is set aside by its name and never followed or
//    written (config/safe_file.h); a directory that others may write is an error.
//  * A broken file (not readable, not JSON, wrong checksum, not a state) is set aside as state.json.bad-<UTC time>, and
//    the previous generation is used, with both logs; if there is none, nothing. Loading never fails, so a bad file cannot keep the
//    engine from starting. A missing state.json with a state.json.previous beside it is the same case.
//  * A file of a newer version is not broken: it stays where it is and nothing is loaded, not even the previous
//    generation. The first save moves it to state.json.newer-<UTC time>.
//  * To start from nothing, remove everything that begins with "state." from the directory.
//
// Thread: the control thread. record() and save() wait for the disk. Exactly one engine may use a directory: hold
// lock_state_directory(). Errors are values; nothing throws.
#pragma once

#include <expected>
#include <optional>
#include <string>
#include <utility>

#include "config/desired_state.h"
#include "control/controller/journal_mark.h"
#include "control/journal_log.h"

namespace trunkline::control {

class Journal {
 public:
  explicit Journal(std::string directory);

  struct Loaded {
    std::optional<config::DesiredState> state;
    std::optional<std::string> quarantined;  // path of the broken file set aside
    std::string note;                        // what an operator should know; empty if all is well
    std::string damage;                      // what is lost, or may be, as a sentence; part of the note. Empty: nothing is
  };
  Loaded load();

  // Brings the disk to this state by the cheapest way that can be trusted. When it returns without an error, the state is
  // on disk and synced.
  std::expected<void, std::string> record(const config::DesiredState& state);

  // The same by a whole generation. On an error the file on disk is the old one, with one exception, which the message names: the new one is in place
  // but the directory could not be synced, so a power cut may bring the old one back.
  std::expected<void, std::string> save(const config::DesiredState& state);

  // Writes a whole state beside the journal's own files, in the format of state.json.
  std::expected<void, std::string> write_copy(const config::DesiredState& state, const std::string& path) const;

  const std::string& path() const { return path_; }

 private:
  // What is known of a generation on disk. Only `good` may be overwritten; everything else is set aside first.
  enum class Found { absent, good, newer, broken, unread };
  struct Examined;

  Examined examine(const std::string& path) const;
  Loaded load_generations();
  std::expected<std::string, std::string> move_aside(const std::string& path, const char* what) const;
  void load_log(Loaded& loaded, const std::string& generation, const JournalMark::Reading& mark);
  bool cut_log(std::size_t bytes) const;
  std::expected<std::string, std::string> copy_aside(const std::string& path, const char* what) const;
  std::expected<void, std::pair<std::string, bool>> write_new(const std::string& path, const std::string& text) const;
  void load_logs_after_previous(config::DesiredState& state, std::string generation) const;
  std::expected<void, std::string> append(const config::DesiredState& state);
  void rotate_log();
  std::expected<void, std::string> write_temporary(const std::string& text) const;
  std::expected<void, std::string> keep_previous();
  std::expected<void, std::string> sync_directory() const;

  std::string directory_;
  std::string path_;
  std::string previous_;
  std::string temporary_;
  std::string log_path_;
  std::string previous_log_;
  bool loaded_ = false;
  // What state.json and state.log say together, as long as a line may be appended there.
  std::optional<config::DesiredState> on_disk_;
  ChangeLog log_;
  std::size_t log_bytes_ = 0;  // where log_ is to be opened, and after what
  std::uint64_t log_lines_ = 0;
  std::string log_last_;
  std::string generation_;  // the checksum of state.json, once it is known
  JournalMark mark_;
  Promise promise_;  // what the mark says, or should
  std::size_t log_limit_ = 0;  // bytes from which on a generation is written
  Found current_found_ = Found::absent;
  Found previous_found_ = Found::absent;
};

// Takes the directory for this process: flock on <directory>/lock. Makes the directory (0750) if it is missing. The
// lock lasts as long as the descriptor is open, which is the caller's to close. A second engine is refused with a
// sentence that names the pid of the first.
std::expected<int, std::string> lock_state_directory(const std::string& directory);

}  // namespace trunkline::control
