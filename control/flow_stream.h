// SPDX-License-Identifier: BSD-3-Clause
//
// A flow log as a stream of lines: one file that grows, or a FIFO that somebody reads.
//
// Rules:
//  * A file is opened to append. When another file (or none) has its name, it was rotated away: that name is opened anew.
//  * A new file, and each opening of a FIFO, begins with the names of the fields.
//  * The end of the stream is never waited for. A FIFO without a reader is an error, a full one takes nothing now; a line
//    that fitted only in part is completed before the next one.
//  * A file that took only a part of a chunk (disk full) is shortened again.
//
// See flow_sink.h.
#pragma once

#include <sys/types.h>

#include <string>

#include "config/flow_log_config.h"
#include "control/flow_sink.h"

namespace trunkline::control {

class FlowStream final : public FlowSink {
 public:
  explicit FlowStream(const config::FlowLog& log) : path_(log.destination.path), header_(log.format.header() + "\n") {}
  ~FlowStream() override { close(); }
  FlowStream(const FlowStream&) = delete;
  FlowStream& operator=(const FlowStream&) = delete;

  Written write(std::int64_t slot, std::span<const std::string> lines) override;
  std::string finish(std::int64_t) override { return {}; }
  std::uint64_t files() const override { return files_; }

 private:
  std::string open();
  void close();
  bool was_rotated() const;
  Written write_to_file(std::span<const std::string> lines);
  Written write_to_pipe(std::span<const std::string> lines);

  const std::string path_, header_;
  int fd_ = -1;
  bool is_file_ = false;
  dev_t device_ = 0;
  ino_t inode_ = 0;
  std::string owed_;  // the rest of what was begun, or the header
  std::uint64_t files_ = 0;
};

}  // namespace trunkline::control
