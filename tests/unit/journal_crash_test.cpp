// SPDX-License-Identifier: BSD-3-Clause
//
// The journal, killed and cut off from power at every system call. The calls that change a disk are this program's own: each is
// carried out and then looked at, and what a disk may hold at that moment is laid into a folder of its own and loaded:
//
//  * killed: everything that was done.
//  * power cut: of names, what the folder's last sync covers and any number of the changes since, or the last of them alone; of
//    each file, what its last sync covers, all of it, half of what came since, or zeros in its place.
//
// Whatever it is: every state that was answered is there, whole, and nothing is said to be lost.
#include <dlfcn.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <set>
#include <sstream>

#include "control/journal.h"

namespace trunkline::control {
namespace {

namespace fs = std::filesystem;
using config::DesiredState;

DesiredState state_of(std::uint64_t revision) {
  DesiredState state;
  state.revision = revision;
  for (std::uint64_t i = 0; i < revision; ++i) {
    state.remote_members["sg-9effe8e4"].insert(IpAddress::from_v4(static_cast<std::uint32_t>(0x0a010000U + i)));
  }
  return state;
}

using Names = std::map<std::string, ino_t>;

// What is in a folder, and what of it a power cut leaves.
class Disk {
 public:
  explicit Disk(std::string folder) : folder_(std::move(folder)) { look(); }

  // Only once everything is where it should be.
  void settle() {
    look();
    durable_names_ = names_;
    pending_.clear();
    durable_ = contents_;
  }

  void changed() {
    look();
    if (pending_.empty() ? names_ != durable_names_ : names_ != pending_.back()) pending_.push_back(names_);
  }
  void synced(ino_t file) {
    look();
    if (file == folder_inode_) {
      durable_names_ = names_;
      pending_.clear();
    } else {
      durable_[file] = contents_[file];
    }
  }

  using Files = std::map<std::string, std::string>;
  // Each different set of files that may be there now.
  std::set<Files> possible() const {
    std::set<Files> found;
    std::vector<Names> names{durable_names_, names_};
    names.insert(names.end(), pending_.begin(), pending_.end());
    if (pending_.size() > 1) names.push_back(only_the_last());
    for (const Names& each : names) add(each, found);
    found.insert(now());
    return found;
  }
  Files now() const {
    Files files;
    for (const auto& [name, inode] : names_) files[name] = contents_.at(inode);
    return files;
  }

 private:
  void look() {
    names_.clear();
    struct stat status {};
    if (::stat(folder_.c_str(), &status) == 0) folder_inode_ = status.st_ino;
    for (const auto& entry : fs::directory_iterator(folder_)) {
      if (::lstat(entry.path().c_str(), &status) != 0) continue;
      names_[entry.path().filename()] = status.st_ino;
      std::ifstream file(entry.path(), std::ios::binary);
      std::ostringstream text;
      text << file.rdbuf();
      contents_[status.st_ino] = text.str();
      // A number that the kernel has given out again is of a new file.
      if (std::ranges::none_of(durable_names_, [&](const auto& each) { return each.second == status.st_ino; }) && !seen_.contains(status.st_ino)) {
        durable_[status.st_ino].clear();
      }
      seen_.insert(status.st_ino);
    }
    std::erase_if(seen_, [&](ino_t inode) { return std::ranges::none_of(names_, [&](const auto& each) { return each.second == inode; }); });
  }

  // The changes that the last one made to the one before it, on the names that are durable.
  Names only_the_last() const {
    const Names& before = pending_[pending_.size() - 2];
    Names result = durable_names_;
    for (const auto& [name, inode] : pending_.back()) {
      const auto was = before.find(name);
      if (was == before.end() || was->second != inode) result[name] = inode;
    }
    for (const auto& [name, inode] : before) {
      if (!pending_.back().contains(name)) result.erase(name);
    }
    return result;
  }

  std::vector<std::string> contents_of(ino_t inode) const {
    const auto is = contents_.find(inode);
    const auto was = durable_.find(inode);
    const std::string now = is == contents_.end() ? std::string() : is->second;
    const std::string kept = was == durable_.end() ? std::string() : was->second;
    if (now == kept) return {now};
    if (now.size() == kept.size() || !now.starts_with(kept)) return {kept, now};  // in place, within what a disk writes at once; or cut
    const std::size_t more = now.size() - kept.size();
    return {kept, now, now.substr(0, kept.size() + more / 2), kept + std::string(more, '\0'), now.substr(0, kept.size() + more / 2) + std::string(more - more / 2, '\0'),
            kept + std::string(more - 1, '\0') + now.back()};
  }

  void add(const Names& names, std::set<Files>& found) const {
    std::vector<Files> all{Files()};
    std::map<ino_t, std::vector<std::string>> choices;
    for (const auto& [name, inode] : names) choices.try_emplace(inode, contents_of(inode));
    for (const auto& [inode, contents] : choices) {
      std::vector<Files> more;
      for (const Files& files : all) {
        for (const std::string& content : contents) {
          Files next = files;
          for (const auto& [name, of] : names) {
            if (of == inode) next[name] = content;
          }
          more.push_back(std::move(next));
        }
      }
      all = std::move(more);
    }
    found.insert(all.begin(), all.end());
  }

  std::string folder_;
  ino_t folder_inode_ = 0;
  Names names_, durable_names_;
  std::vector<Names> pending_;
  std::map<ino_t, std::string> contents_, durable_;
  std::set<ino_t> seen_;
};

Disk* watched = nullptr;
std::size_t calls = 0;
void (*after_call)() = nullptr;

void done(bool is_sync, int fd) {
  if (watched == nullptr) return;
  Disk* const disk = std::exchange(watched, nullptr);
  ++calls;
  struct stat status {};
  if (is_sync && ::fstat(fd, &status) == 0) {
    disk->synced(status.st_ino);
  } else {
    disk->changed();
  }
  watched = disk;
  Disk* const paused = std::exchange(watched, nullptr);
  after_call();
  watched = paused;
}

}  // namespace
}  // namespace trunkline::control

// What the C library has under these names is not called any more.
extern "C" {
ssize_t write(int fd, const void* data, size_t size) {
  const ssize_t result = syscall(SYS_write, fd, data, size);
  if (fd > 2) trunkline::control::done(false, fd);
  return result;
}
ssize_t pwrite(int fd, const void* data, size_t size, off_t at) {
  const ssize_t result = syscall(SYS_pwrite64, fd, data, size, at);
  trunkline::control::done(false, fd);
  return result;
}
int ftruncate(int fd, off_t size) noexcept {
  const long result = syscall(SYS_ftruncate, fd, size);
  trunkline::control::done(false, fd);
  return static_cast<int>(result);
}
int openat(int folder, const char* path, int flags, ...) {
  va_list more;
  va_start(more, flags);
  const mode_t mode = (flags & O_CREAT) != 0 ? va_arg(more, mode_t) : 0;
  va_end(more);
  const long result = syscall(SYS_openat, folder, path, flags, mode);
  const int error = errno;
  if (result >= 0 && (flags & O_CREAT) != 0) trunkline::control::done(false, static_cast<int>(result));
  errno = error;
  return static_cast<int>(result);
}
int rename(const char* from, const char* to) noexcept {
  const long result = syscall(SYS_rename, from, to);
  const int error = errno;
  trunkline::control::done(false, -1);
  errno = error;
  return static_cast<int>(result);
}
int link(const char* from, const char* to) noexcept {
  const long result = syscall(SYS_link, from, to);
  const int error = errno;
  trunkline::control::done(false, -1);
  errno = error;
  return static_cast<int>(result);
}
int unlink(const char* path) noexcept {
  const long result = syscall(SYS_unlink, path);
  const int error = errno;
  trunkline::control::done(false, -1);
  errno = error;
  return static_cast<int>(result);
}
// Nothing is to reach a real disk: what a sync means is the model's.
int fsync(int fd) {
  trunkline::control::done(true, fd);
  return 0;
}
int fdatasync(int fd) {
  trunkline::control::done(true, fd);
  return 0;
}
}

namespace trunkline::control {
namespace {

class JournalCrashTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string name = (fs::temp_directory_path() / "trunkline-crash-XXXXXX").string();
    ASSERT_NE(::mkdtemp(name.data()), nullptr);
    root_ = name;
    folder_ = root_ + "/state";
    fs::create_directory(folder_);
    fs::permissions(folder_, fs::perms::owner_all);
    test_ = this;
    after_call = [] { test_->check(); };
  }
  void TearDown() override {
    watched = nullptr;
    std::error_code ignored;
    fs::remove_all(root_, ignored);
  }

  // Everything that the disk may hold now, loaded.
  void check() {
    if (HasFatalFailure()) return;
    const Disk::Files killed = disk_->now();
    std::set<Disk::Files> states = disk_->possible();
    for (const Disk::Files& files : states) {
      if (!tried_.insert({files, answered_}).second) continue;
      lay(files);
      Journal journal(root_ + "/loaded");
      const auto loaded = journal.load();
      const std::string what = "call " + std::to_string(calls) + ", answered " + std::to_string(answered_) + (files == killed ? ", killed" : ", power cut") + ": " + described(files);
      ASSERT_EQ(loaded.damage, "") << what;
      ASSERT_EQ(loaded.note, "") << what;
      ASSERT_FALSE(loaded.quarantined) << what;
      ++loads_;
      if (answered_ == 0 && !loaded.state) continue;
      ASSERT_TRUE(loaded.state) << what;
      ASSERT_GE(loaded.state->revision, answered_) << what;
      ASSERT_LE(loaded.state->revision, asked_) << what;
      ASSERT_EQ(*loaded.state, state_of(loaded.state->revision)) << what;
      // It goes on from there.
      ASSERT_TRUE(journal.record(state_of(asked_ + 1))) << what;
      const auto after = Journal(root_ + "/loaded").load();
      ASSERT_EQ(after.note, "") << what;
      ASSERT_EQ(after.state, state_of(asked_ + 1)) << what;
    }
  }

  void lay(const Disk::Files& files) const {
    fs::remove_all(root_ + "/loaded");
    fs::create_directory(root_ + "/loaded");
    fs::permissions(root_ + "/loaded", fs::perms::owner_all);
    for (const auto& [name, content] : files) std::ofstream(root_ + "/loaded/" + name, std::ios::binary) << content;
  }
  static std::string described(const Disk::Files& files) {
    std::string text;
    for (const auto& [name, content] : files) text += name + " (" + std::to_string(content.size()) + ") ";
    return text;
  }

  // From the state that is answered to the next one, with every call looked at.
  void play(Journal& journal, bool whole) {
    asked_ = answered_ + 1;
    watched = disk_.get();
    const auto outcome = whole ? journal.save(state_of(asked_)) : journal.record(state_of(asked_));
    watched = nullptr;
    ASSERT_TRUE(outcome) << outcome.error();
    answered_ = asked_;
    check();
  }

  static JournalCrashTest* test_;
  std::string root_, folder_;
  std::unique_ptr<Disk> disk_;
  std::set<std::pair<Disk::Files, std::uint64_t>> tried_;
  std::uint64_t answered_ = 0, asked_ = 0;
  std::size_t loads_ = 0;
};
JournalCrashTest* JournalCrashTest::test_ = nullptr;

TEST_F(JournalCrashTest, NothingAnsweredIsLostAndNoCrashIsTakenForDamage) {
  disk_ = std::make_unique<Disk>(folder_);
  calls = 0;
  for (int engine = 0; engine < 3; ++engine) {
    Journal journal(folder_);
    watched = disk_.get();
    const auto loaded = journal.load();
    watched = nullptr;
    ASSERT_EQ(loaded.note, "");
    for (const bool whole : {false, false, false, true, false, false, true, true, false}) {
      ASSERT_NO_FATAL_FAILURE(play(journal, whole));
    }
  }
  EXPECT_GT(calls, 150U) << "the journal's calls are seen";
  EXPECT_GT(loads_, 300U);
  RecordProperty("loads", static_cast<int>(loads_));
  std::printf("%zu calls, %zu different disks loaded\n", calls, loads_);
}

}  // namespace
}  // namespace trunkline::control
