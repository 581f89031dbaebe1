// SPDX-License-Identifier: BSD-3-Clause
//
// The last accepted state on disk, so that a restarted engine comes back with it. One file, state.json in the state
// directory:
//
//     {"checksum":"<16 hex digits>","format":"trunkline-state","state":{...},"version":1}
//
// The checksum is FNV-1a (64 bits) over "<version>:" and the state's canonical dump (keys sorted, no spaces). These
// four members stay in every version to come, so a version number is believed only when the checksum agrees.
//
// Rules:
//  * A save is atomic: written to state.json.tmp, synced, renamed, directory synced. Whenever the engine dies,
//    state.json is the old state or the new one, whole. The generation before it is kept as state.json.previous.
//  * A broken file (not readable, not JSON, wrong checksum, not a state) is set aside as state.json.bad-<UTC time>, and
//    the previous generation is used; if there is none, nothing. Loading never fails, so a bad file cannot keep the
//    engine from starting. A missing state.json with a state.json.previous beside it is the same case.
//  * A file of a newer version is not broken: it stays where it is and nothing is loaded, not even the previous
//    generation. The first save moves it to state.json.newer-<UTC time>.
//  * To start from nothing, remove both state.json and state.json.previous.
//
// Thread: the control thread. save() waits for the disk. Exactly one engine may use a directory: hold
// lock_state_directory(). Errors are values; nothing throws.
#pragma once

#include <expected>
#include <optional>
#include <string>

#include "config/desired_state.h"

namespace trunkline::control {

class Journal {
 public:
  explicit Journal(std::string directory);

  struct Loaded {
    std::optional<config::DesiredState> state;
    std::optional<std::string> quarantined;  // path of the broken file set aside
    std::string note;                        // what an operator should know; empty if all is well
  };
  Loaded load();

  // On an error the file on disk is the old one, with one exception, which the message names: the new one is in place
  // but the directory could not be synced, so a power cut may bring the old one back.
  std::expected<void, std::string> save(const config::DesiredState& state);

  const std::string& path() const { return path_; }

 private:
  // What is known of a generation on disk. Only `good` may be overwritten; everything else is set aside first.
  enum class Found { absent, good, newer, broken, unread };
  struct Examined;

  Examined examine(const std::string& path) const;
  Loaded load_generations();
  std::expected<std::string, std::string> move_aside(const std::string& path, const char* what) const;
  std::expected<void, std::string> write_temporary(const std::string& text) const;
  std::expected<void, std::string> keep_previous();
  std::expected<void, std::string> sync_directory() const;

  std::string directory_;
  std::string path_;
  std::string previous_;
  std::string temporary_;
  bool loaded_ = false;
  Found current_found_ = Found::absent;
  Found previous_found_ = Found::absent;
};

// Takes the directory for this process: flock on <directory>/lock. Makes the directory (0750) if it is missing. The
// lock lasts as long as the descriptor is open, which is the caller's to close. A second engine is refused with a
// sentence that names the pid of the first.
std::expected<int, std::string> lock_state_directory(const std::string& directory);

}  // namespace trunkline::control
