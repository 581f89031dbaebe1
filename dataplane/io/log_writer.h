// SPDX-License-Identifier: BSD-3-Clause
//
// All lines of the engine's log, on their way to stderr. A thread of its own writes them, so that nobody who logs waits
// for whoever reads: a pipe that nobody empties, a full disk, a journal that has stopped.
//
// Rules:
//  * kLines lines or kBytes wait at most. One more is dropped and counted, and when there is room again the log says
//    how many were.
//  * Before start() and after stop() a line is written at once, by the caller.
//  * stop() waits for what is left, a second at most.
//
// Threads: any. The lines of one thread stay in order. Workers do not log.
#pragma once

#include <cstdint>
#include <string>

namespace trunkline {

class LogWriter {
 public:
  static constexpr std::size_t kLines = 4096, kBytes = 1 << 20;

  // The one of this process.
  static LogWriter& of_process();

  // `descriptor`: where lines go.
  explicit LogWriter(int descriptor);
  ~LogWriter();  // stop()
  LogWriter(const LogWriter&) = delete;

  void start();
  void stop();
  // A line with its newline, or several.
  void write(std::string line);
  // Lines that were dropped since the start.
  std::uint64_t dropped() const;

 private:
  // Outlives a writer whose thread never comes back from a write.
  struct Shared;
  static void run(Shared& shared);

  Shared* shared_;
};

}  // namespace trunkline
