// SPDX-License-Identifier: BSD-3-Clause
// Where flow logs go: objects under the keys of S3, whole or not there at all, and streams that never hold up the writer.
// Disks that are full are a tiny tmpfs (needs root, otherwise skipped) and /dev/full.
#include <fcntl.h>
#include <sys/mount.h>
#include <sys/stat.h>

#include <csignal>

#include "control/flow_objects.h"
#include "control/flow_stream.h"
#include "tests/support/flow_world.h"

namespace trunkline::control {
namespace {

using test::Folder;
using test::gunzip;
using test::text_of;

constexpr std::int64_t kSlot = 1529511600;  // 2018-06-20 16:20 UTC
constexpr const char* kHeader = "srcaddr action\n";

config::FlowLog log_to(const std::string& path, config::FlowLog::Destination::Type type = config::FlowLog::Destination::Type::s3) {
  config::FlowLog log;
  log.id = "fl-1234abcd";
  log.format = config::parse_flow_log_format("${srcaddr} ${action}").value();
  log.destination.type = type;
  log.destination.path = path;
  return log;
}
config::Identity identity() { return {.account_id = "123456789012", .region = "us-east-1", .az_id = "", .instance_id = "", .vpc_id = ""}; }

std::vector<std::string> numbered(int from, int to) {
  std::vector<std::string> lines;
  for (int i = from; i < to; ++i) lines.push_back("10.0.0." + std::to_string(i) + " ACCEPT\n");
  return lines;
}
std::string joined(const std::vector<std::string>& lines) {
  std::string text;
  for (const std::string& line : lines) text += line;
  return text;
}
// Lines that do not compress.
std::vector<std::string> noise(std::size_t bytes) {
  std::vector<std::string> lines;
  std::uint64_t state = 88172645463325252ULL;
  for (std::size_t done = 0; done < bytes; done += 101) {
    std::string line;
    for (int i = 0; i < 100; ++i) {
      state ^= state << 13, state ^= state >> 7, state ^= state << 17;
      line += static_cast<char>(33 + state % 90);
    }
    lines.push_back(line + "\n");
  }
  return lines;
}

// A file system of so many bytes for as long as this lives.
class TinyDisk {
 public:
  TinyDisk(const std::string& path, const std::string& size) : path_(path) {
    std::filesystem::create_directories(path);
    mounted_ = ::mount("tmpfs", path.c_str(), "tmpfs", 0, ("mode=755,size=" + size).c_str()) == 0;
  }
  ~TinyDisk() {
    if (mounted_) ::umount2(path_.c_str(), MNT_DETACH);
  }
  bool is_there() const { return mounted_; }
  bool set_read_only(bool read_only) const {
    return ::mount("tmpfs", path_.c_str(), "tmpfs", MS_REMOUNT | (read_only ? MS_RDONLY : 0), nullptr) == 0;
  }

 private:
  std::string path_;
  bool mounted_ = false;
};

std::string except_hash(std::string name) { return name.replace(name.size() - 15, 8, "HASH"); }

// --- objects ---------------------------------------------------------------------------------------------------------

TEST(FlowObjects, LieUnderTheKeysOfS3) {
  struct Case {
    const char* prefix;
    bool hive, hourly;
    const char* folder;
  };
  for (const Case& each : {Case{"", false, false, "AWSLogs/123456789012/vpcflowlogs/us-east-1/2018/06/20/"},
                           Case{"a/b", false, true, "a/b/AWSLogs/123456789012/vpcflowlogs/us-east-1/2018/06/20/16/"},
                           Case{"", true, false, "AWSLogs/aws-account-id=123456789012/aws-service=vpcflowlogs/aws-region=us-east-1/year=2018/month=06/day=20/"},
                           Case{"p", true, true, "p/AWSLogs/aws-account-id=123456789012/aws-service=vpcflowlogs/aws-region=us-east-1/year=2018/month=06/day=20/hour=16/"}}) {
    const Folder bucket("flow-keys");
    config::FlowLog log = log_to(bucket.path());
    log.destination.prefix = each.prefix;
    log.destination.hive_compatible_partitions = each.hive;
    log.destination.per_hour_partition = each.hourly;
    FlowObjects objects(log, identity());
    EXPECT_EQ(objects.write(kSlot, numbered(0, 3)).lines, 3U);
    EXPECT_EQ(objects.finish(kSlot + 300), "");
    ASSERT_EQ(bucket.files().size(), 1U);
    EXPECT_EQ(except_hash(bucket.files()[0]), std::string(each.folder) + "123456789012_vpcflowlogs_us-east-1_fl-1234abcd_20180620T1620Z_HASH.log.gz");
    EXPECT_EQ(gunzip(bucket / bucket.files()[0]), kHeader + joined(numbered(0, 3)));
  }
}

TEST(FlowObjects, OneForEachSlotAndNoneBeforeItIsWhole) {
  const Folder bucket("flow-slots");
  FlowObjects objects(log_to(bucket.path()), identity());
  EXPECT_EQ(objects.write(kSlot, numbered(0, 2)).error, "");
  EXPECT_EQ(objects.write(kSlot + 300, numbered(2, 3)).error, "");
  EXPECT_EQ(objects.write(kSlot, numbered(3, 4)).error, "");
  EXPECT_EQ(objects.finish(kSlot), "");
  for (const std::string& name : bucket.files()) EXPECT_TRUE(name.starts_with(".unfinished/")) << name;
  EXPECT_EQ(objects.files(), 0U);
  EXPECT_EQ(objects.finish(kSlot + 300), "");
  ASSERT_EQ(bucket.files().size(), 2U);
  EXPECT_EQ(gunzip(bucket / bucket.files()[1]), kHeader + joined(numbered(0, 2)) + joined(numbered(3, 4)));
  EXPECT_EQ(objects.write(kSlot, numbered(9, 10)).error, "") << "a straggler";
  EXPECT_EQ(objects.finish(INT64_MAX), "");
  EXPECT_EQ(bucket.files().size(), 3U) << "of one slot two, with hashes of their own";
  EXPECT_EQ(objects.files(), 3U);
}

TEST(FlowObjects, OneThatIsLargeIsFinishedEarly) {
  const Folder bucket("flow-large");
  FlowObjects objects(log_to(bucket.path()), identity(), 80000);
  std::string all;
  for (int i = 0; i < 5; ++i) {
    const auto lines = noise(60000);
    all += joined(lines);
    EXPECT_EQ(objects.write(kSlot, lines).lines, lines.size());
  }
  EXPECT_EQ(objects.files(), 2U);
  EXPECT_EQ(objects.finish(INT64_MAX), "");
  std::string found;
  for (const std::string& name : bucket.files()) {
    EXPECT_LT(std::filesystem::file_size(bucket / name), 200000U);
    const std::string text = gunzip(bucket / name);
    EXPECT_TRUE(text.starts_with(kHeader));
    found += text.substr(std::strlen(kHeader));
  }
  EXPECT_EQ(found.size(), all.size());
}

TEST(FlowObjects, AFullDiskTakesNoHalfChunkAndRecovers) {
  const Folder folder("flow-full");
  const TinyDisk disk(folder / "disk", "256k");
  if (!disk.is_there()) GTEST_SKIP() << "only root can mount a small file system";
  FlowObjects objects(log_to(folder / "disk"), identity());
  const auto first = numbered(0, 5);
  ASSERT_EQ(objects.write(kSlot, first).error, "");
  std::ofstream(folder / "disk/ballast") << std::string(200000, 'x');
  const auto large = noise(200000);
  FlowSink::Written written = objects.write(kSlot, large);
  EXPECT_EQ(written.lines, 0U);
  EXPECT_NE(written.error.find("No space left on device"), std::string::npos) << written.error;
  EXPECT_NE(written.error.find(folder / "disk"), std::string::npos) << written.error;
  EXPECT_EQ(objects.write(kSlot, large).lines, 0U);
  std::filesystem::remove(folder / "disk/ballast");
  EXPECT_EQ(objects.write(kSlot, large).lines, large.size());
  EXPECT_EQ(objects.finish(INT64_MAX), "");
  const Folder& where = folder;
  ASSERT_EQ(where.files().size(), 1U);
  EXPECT_EQ(gunzip(where / where.files()[0]), kHeader + joined(first) + joined(large));
}

TEST(FlowObjects, AReadOnlyDiskKeepsWhatIsThereUntilItRecovers) {
  const Folder folder("flow-readonly");
  const TinyDisk disk(folder / "disk", "1m");
  if (!disk.is_there()) GTEST_SKIP() << "only root can mount a small file system";
  {
    FlowObjects objects(log_to(folder / "disk"), identity());
    ASSERT_TRUE(disk.set_read_only(true));
    EXPECT_NE(objects.write(kSlot, numbered(0, 1)).error.find("Read-only file system"), std::string::npos);
    ASSERT_TRUE(disk.set_read_only(false));
    EXPECT_EQ(objects.write(kSlot, numbered(0, 1)).error, "");
  }
  // What the last engine left cannot be finished, and stays.
  ASSERT_TRUE(disk.set_read_only(true));
  FlowObjects next(log_to(folder / "disk"), identity());
  const auto notes = next.adopt_leftovers();
  ASSERT_EQ(notes.size(), 1U);
  EXPECT_NE(notes[0].find("Read-only file system"), std::string::npos) << notes[0];
  ASSERT_TRUE(disk.set_read_only(false));
  EXPECT_TRUE(next.adopt_leftovers().empty());
  ASSERT_EQ(folder.files().size(), 1U);
  EXPECT_EQ(gunzip(folder / folder.files()[0]), kHeader + joined(numbered(0, 1)));
}

TEST(FlowObjects, WhatCannotBePublishedIsKeptAndTriedAgain) {
  const Folder bucket("flow-unpublished");
  FlowObjects objects(log_to(bucket.path()), identity());
  EXPECT_EQ(objects.write(kSlot, numbered(0, 1)).lines, 1U);
  std::ofstream(bucket / "AWSLogs");  // where the folder of that day belongs
  for (int again = 0; again < 2; ++again) EXPECT_NE(objects.finish(INT64_MAX), "") << "told until it is mended";
  std::filesystem::remove(bucket / "AWSLogs");
  EXPECT_EQ(objects.finish(INT64_MAX), "");
  ASSERT_EQ(bucket.files().size(), 1U);
  EXPECT_TRUE(bucket.files()[0].starts_with("AWSLogs/")) << bucket.files()[0];
  EXPECT_EQ(gunzip(bucket / bucket.files()[0]), kHeader + joined(numbered(0, 1)));
}

TEST(FlowObjects, AMissingFolderIsNotMade) {
  const Folder folder("flow-missing");
  FlowObjects objects(log_to(folder / "bucket"), identity());
  EXPECT_NE(objects.write(kSlot, numbered(0, 1)).error.find("No such file or directory"), std::string::npos);
  EXPECT_FALSE(std::filesystem::exists(folder / "bucket"));
  std::filesystem::create_directory(folder / "bucket");
  EXPECT_EQ(objects.write(kSlot, numbered(0, 1)).lines, 1U);
  // Somebody removes it under the writer: those lines are gone and said to be, and later ones are not lost with them.
  std::filesystem::remove_all(folder / "bucket");
  std::filesystem::create_directory(folder / "bucket");
  EXPECT_EQ(objects.write(kSlot, numbered(1, 3)).lines, 2U);
  EXPECT_EQ(objects.take_vanished(), 1U);
  EXPECT_EQ(objects.take_vanished(), 0U);
  EXPECT_EQ(objects.finish(INT64_MAX), "");
  ASSERT_EQ(folder.files().size(), 1U);
  EXPECT_EQ(gunzip(folder / folder.files()[0]), kHeader + joined(numbered(1, 3)));
}

TEST(FlowObjects, WhatACrashLeftIsFinished) {
  const Folder bucket("flow-crash");
  const config::FlowLog log = log_to(bucket.path());
  { FlowObjects(log, identity()).write(kSlot, numbered(0, 4)); }
  config::FlowLog other = log;
  other.id = "fl-other";
  { FlowObjects(other, identity()).write(kSlot, numbered(0, 1)); }
  const auto left = bucket.files();
  ASSERT_EQ(left.size(), 2U);
  const std::string mine = left[0].find("fl-1234abcd") != std::string::npos ? left[0] : left[1];
  // The last chunk reached the disk in part only.
  std::ofstream(bucket / mine, std::ios::app) << "\x01\x02\x03";
  std::ofstream(bucket / (mine + ".recovered")) << "of an engine that died while it did this";

  FlowObjects next(log, identity());
  EXPECT_TRUE(next.adopt_leftovers().empty());
  const auto files = bucket.files();
  ASSERT_EQ(files.size(), 2U);
  EXPECT_TRUE(files[0].starts_with(".unfinished/") && files[0].find("fl-other") != std::string::npos) << "another log's is left alone";
  EXPECT_TRUE(files[1].starts_with("AWSLogs/123456789012/vpcflowlogs/us-east-1/2018/06/20/")) << files[1];
  EXPECT_EQ(gunzip(bucket / files[1]), kHeader + joined(numbered(0, 4)));
}

TEST(FlowObjects, WhatACrashLeftWithoutALineIsRemoved) {
  const Folder bucket("flow-empty");
  std::filesystem::create_directory(bucket / ".unfinished");
  const std::string start = bucket / ".unfinished/123456789012_vpcflowlogs_us-east-1_fl-1234abcd_";
  std::ofstream(start + "20180620T1620Z_fe123456.log.gz");
  std::ofstream(start + "no-time.log.gz");
  FlowObjects objects(log_to(bucket.path()), identity());
  EXPECT_TRUE(objects.adopt_leftovers().empty());
  ASSERT_EQ(bucket.files().size(), 1U);
  EXPECT_NE(bucket.files()[0].find("no-time"), std::string::npos) << "not a name of ours: left alone";
}

TEST(FlowObjects, TheNumberOfUnfinishedOnesIsBounded) {
  const Folder bucket("flow-many");
  const config::FlowLog log = log_to(bucket.path());
  {
    FlowObjects objects(log, identity());
    for (int i = 0; i < 20; ++i) EXPECT_EQ(objects.write(kSlot + 300 * i, numbered(i, i + 1)).error, "");
    EXPECT_EQ(objects.finish(INT64_MAX), "");
    EXPECT_EQ(objects.files(), FlowObjects::kMaxOpen);
  }
  FlowObjects next(log, identity());
  EXPECT_TRUE(next.adopt_leftovers().empty());
  EXPECT_EQ(next.files(), 20 - FlowObjects::kMaxOpen);
  EXPECT_EQ(bucket.files().size(), 20U);
}

// --- streams ---------------------------------------------------------------------------------------------------------

config::FlowLog stream_to(const std::string& path) { return log_to(path, config::FlowLog::Destination::Type::stream); }

TEST(FlowStream, AppendsAndBeginsANewFileWithTheNames) {
  const Folder folder("flow-stream");
  { FlowStream(stream_to(folder / "log")).write(0, numbered(0, 2)); }
  FlowStream stream(stream_to(folder / "log"));
  EXPECT_EQ(stream.write(0, numbered(2, 3)).lines, 1U);
  EXPECT_EQ(text_of(folder / "log"), kHeader + joined(numbered(0, 3)));
}

TEST(FlowStream, FollowsTheNameWhenTheFileIsRotatedAway) {
  const Folder folder("flow-rotate");
  FlowStream stream(stream_to(folder / "log"));
  stream.write(0, numbered(0, 1));
  std::filesystem::rename(folder / "log", folder / "log.1");
  stream.write(0, numbered(1, 2));
  EXPECT_EQ(text_of(folder / "log.1"), kHeader + joined(numbered(0, 1)));
  EXPECT_EQ(text_of(folder / "log"), kHeader + joined(numbered(1, 2)));
  std::filesystem::rename(folder / "log", folder / "log.1");
  std::ofstream(folder / "log") << "made by logrotate\n";
  stream.write(0, numbered(2, 3));
  EXPECT_EQ(text_of(folder / "log"), "made by logrotate\n" + joined(numbered(2, 3)));
  EXPECT_EQ(stream.files(), 3U);
}

TEST(FlowStream, AFullDiskTakesNothingAndRecovers) {
  FlowStream full(stream_to("/dev/full"));
  const FlowSink::Written written = full.write(0, numbered(0, 3));
  EXPECT_EQ(written.lines, 0U);
  EXPECT_EQ(written.error, "/dev/full is not a regular file or FIFO; remove it, or name another") << "a device is no log";

  const Folder folder("flow-stream-full");
  const TinyDisk disk(folder / "disk", "64k");
  if (!disk.is_there()) GTEST_SKIP() << "only root can mount a small file system";
  FlowStream stream(stream_to(folder / "disk/log"));
  EXPECT_EQ(stream.write(0, numbered(0, 5)).error, "");
  EXPECT_NE(stream.write(0, noise(100000)).error.find("No space left on device"), std::string::npos);
  EXPECT_EQ(text_of(folder / "disk/log"), kHeader + joined(numbered(0, 5))) << "the half of it is taken back";
  EXPECT_EQ(stream.write(0, numbered(5, 6)).lines, 1U);
  EXPECT_EQ(text_of(folder / "disk/log"), kHeader + joined(numbered(0, 6)));
}

TEST(FlowStream, AMissingFolderIsAnErrorUntilItIsThere) {
  const Folder folder("flow-stream-missing");
  FlowStream stream(stream_to(folder / "sub/log"));
  EXPECT_NE(stream.write(0, numbered(0, 1)).error.find("No such file or directory"), std::string::npos);
  std::filesystem::create_directory(folder / "sub");
  EXPECT_EQ(stream.write(0, numbered(0, 1)).lines, 1U);
}

TEST(FlowStream, AFifoWithoutAReaderIsAnErrorAndNotAWait) {
  const Folder folder("flow-fifo");
  ASSERT_EQ(::mkfifo((folder / "fifo").c_str(), 0600), 0);
  FlowStream stream(stream_to(folder / "fifo"));
  EXPECT_EQ(stream.write(0, numbered(0, 1)).error, "nobody reads the FIFO " + (folder / "fifo"));
  const int reader = ::open((folder / "fifo").c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC);
  EXPECT_EQ(stream.write(0, numbered(0, 2)).lines, 2U);
  char text[256];
  const ssize_t got = ::read(reader, text, sizeof text);
  EXPECT_EQ(std::string(text, static_cast<std::size_t>(got)), kHeader + joined(numbered(0, 2)));
  ::close(reader);
  std::signal(SIGPIPE, SIG_IGN);
  const FlowSink::Written gone = stream.write(0, numbered(2, 3));
  EXPECT_EQ(gone.lines, 0U);
  EXPECT_EQ(gone.error, "the reader of " + (folder / "fifo") + " is gone");
}

TEST(FlowStream, AReaderThatIsSlowGetsEveryLineWholeAndOnce) {
  const Folder folder("flow-slow");
  ASSERT_EQ(::mkfifo((folder / "fifo").c_str(), 0600), 0);
  const int reader = ::open((folder / "fifo").c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC);
  FlowStream stream(stream_to(folder / "fifo"));
  const std::vector<std::string> lines = noise(3 << 20);  // more than any pipe holds
  std::string received;
  std::size_t next = 0, full = 0;
  std::string block(70001, '\0');
  while (next < lines.size()) {
    const FlowSink::Written written = stream.write(0, std::span(lines).subspan(next, std::min<std::size_t>(1024, lines.size() - next)));
    ASSERT_EQ(written.error, "");
    next += written.lines;
    if (written.lines != 0) continue;
    ++full;
    const ssize_t got = ::read(reader, block.data(), block.size());
    ASSERT_GT(got, 0);
    received.append(block, 0, static_cast<std::size_t>(got));
  }
  EXPECT_GT(full, 3U);
  for (int i = 0; i < 3; ++i) {
    stream.write(0, {});  // what is owed of the last line
    for (ssize_t got = 0; (got = ::read(reader, block.data(), block.size())) > 0;) received.append(block, 0, static_cast<std::size_t>(got));
  }
  EXPECT_TRUE(received == kHeader + joined(lines)) << received.size();
  ::close(reader);
}

}  // namespace
}  // namespace trunkline::control
