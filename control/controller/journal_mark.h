// SPDX-License-Identifier: BSD-3-Clause
//
// state.mark: how far the journal has got, written beside the log that it speaks of. A log that is missing, empty or cut at the
// end of a line looks like one that is whole; the mark names the last line that was answered, so that it is told.
//
//     <checksum> {"base":"<checksum>","last":"<checksum>","lines":7,"revision":12,"sequence":31}
//
// `base` is the generation's checksum (state.json), `last` that of the log's last line (without one: of the generation),
// `revision` the state's. The file has two such records in places of their own, 512 bytes apart, and they are written by turns:
// a record that a power cut tore leaves the one before. The higher sequence counts.
//
// Rules:
//  * The mark is never ahead of the log: a line is synced before the mark names it. After a power cut the mark may be
//    behind, which says nothing; so no crash ever makes it accuse a whole log.
//  * It is made with its content (written aside, synced, renamed), so it is never there and empty.
//
// Thread: the control thread. Errors are values.
#pragma once

#include <cstdint>
#include <expected>
#include <string>

namespace trunkline::control {

struct Promise {
  std::string base;  // empty: no generation was finished yet
  std::string last;
  std::uint64_t lines = 0;  // of the log
  std::uint64_t revision = 0;
};

class JournalMark {
 public:
  explicit JournalMark(std::string path) : path_(std::move(path)) {}

  struct Reading {
    enum class Found { absent, good, broken } found = Found::absent;
    Promise promise;
    std::string why;  // broken: a sentence
  };
  Reading read();

  // `sync`: returns when it is on disk. Otherwise it is there for whoever reads it, and on disk within the kernel's usual time.
  std::expected<void, std::string> write(const Promise& promise, bool sync);

  const std::string& path() const { return path_; }

 private:
  std::expected<void, std::string> make(const std::string& record);

  std::string path_;
  std::uint64_t sequence_ = 0;
  bool usable_ = false;  // the file there is a mark, and may be written in place
};

}  // namespace trunkline::control
