// SPDX-License-Identifier: BSD-3-Clause
//
// A flow log as the objects of an S3 bucket, in a folder that stands for the bucket: whoever moves the folder's contents
// into the bucket needs to know nothing of flow logs.
//
//   <path>/<prefix>/AWSLogs/<account>/vpcflowlogs/<region>/<yyyy>/<mm>/<dd>/[<hh>/]
//       <account>_vpcflowlogs_<region>_<id>_<YYYYMMDD>T<HHmm>Z_<hash>.log.gz
//
// or with hive partitions .../AWSLogs/aws-account-id=<account>/aws-service=vpcflowlogs/aws-region=<region>/year=.../month=.../day=.../[hour=...].
// The time is the slot's start, UTC. An object is one gzip member and begins with the names of the fields.
//
// Rules:
//  * An object is written under <path>/.unfinished/ and renamed when it is complete. So what lies under a key is whole.
//  * It is complete when its slot is over, or when it reaches max_object_bytes; then another follows, with another hash.
//  * Each chunk of lines leaves the file in a state that can be read up to there. A chunk that cannot be written (disk full)
//    is taken back, in the file and in the compressor.
//  * What a crash left behind is completed by adopt_leftovers(), or removed when there is no line in it.
//  * <path> itself is never made: it may be where something is to be mounted. Folders below are.
//  * At most kMaxOpen objects are unfinished at a time; the oldest is then left to the next start.
//
// See flow_sink.h.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "config/flow_log_config.h"
#include "control/flow_sink.h"

namespace trunkline::control {

class FlowObjects final : public FlowSink {
 public:
  static constexpr std::uint64_t kMaxObjectBytes = 75'000'000;
  static constexpr std::size_t kMaxOpen = 8;

  FlowObjects(const config::FlowLog& log, const config::Identity& identity, std::uint64_t max_object_bytes = kMaxObjectBytes);
  ~FlowObjects() override;  // what is unfinished stays for the next start

  Written write(std::int64_t slot, std::span<const std::string> lines) override;
  std::string finish(std::int64_t slots_before) override;
  std::uint64_t take_vanished() override;
  std::vector<std::string> adopt_leftovers() override;  // of this flow log
  std::uint64_t files() const override { return files_; }

 private:
  class Object;

  std::string file_name(std::int64_t slot) const;
  // The folder of a slot's key, under path_.
  std::string folder_of(std::int64_t slot) const;
  std::string make_folders(const std::string& relative) const;
  std::string publish(const std::string& from, const std::string& name, std::int64_t slot);
  std::string complete(Object& object);
  std::string adopt(const std::string& name);
  void drop_vanished();

  const std::string path_, unfinished_, base_, name_start_, header_;
  const bool hive_, per_hour_;
  const std::uint64_t max_object_bytes_;
  std::vector<std::unique_ptr<Object>> objects_;  // oldest first
  std::uint64_t files_ = 0, vanished_ = 0;
};

}  // namespace trunkline::control
