// SPDX-License-Identifier: BSD-3-Clause
//
// Files that are not what their names promise, in folders of this test's own. What needs another user's files is tried as root only.
#include "config/safe_file.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <fstream>
#include <sstream>

namespace trunkline::config {
namespace {

namespace fs = std::filesystem;
using What = FileError::What;

class SafeFileTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string name = (fs::temp_directory_path() / "trunkline-files-XXXXXX").string();
    ASSERT_NE(::mkdtemp(name.data()), nullptr);
    root_ = name;
    folder_ = root_ + "/folder";
    fs::create_directory(folder_);
    fs::permissions(folder_, fs::perms::owner_all);
    path_ = folder_ + "/file";
    victim_ = root_ + "/victim";
    write(victim_, "precious");
  }
  void TearDown() override {
    std::error_code ignored;
    fs::remove_all(root_, ignored);
  }

  static void write(const std::string& path, const std::string& text) { std::ofstream(path, std::ios::binary) << text; }
  static std::string read(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    std::ostringstream text;
    text << file.rdbuf();
    return text.str();
  }
  void expect_refused(const std::string& path, int flags, What what, const std::string& words, const FileRule& rule = {}) const {
    const auto opened = open_file(path, flags, 0600, rule);
    ASSERT_FALSE(opened) << path;
    EXPECT_EQ(opened.error().what, what) << opened.error().message;
    EXPECT_NE(opened.error().message.find(words), std::string::npos) << opened.error().message;
    EXPECT_EQ(read(victim_), "precious");
  }

  std::string root_, folder_, path_, victim_;
};

constexpr int kReplace = O_WRONLY | O_CREAT | O_TRUNC;

TEST_F(SafeFileTest, AFileOfOnesOwnIsMadeReadAndReplaced) {
  ASSERT_TRUE(open_file(path_, kReplace, 0640));
  struct stat status {};
  ASSERT_EQ(::stat(path_.c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777U, 0640U);
  write(path_, "some text");
  EXPECT_EQ(*read_file(path_, 100), "some text");
  EXPECT_EQ(read_file(path_, 8).error().code, EFBIG);
  ASSERT_TRUE(open_file(path_, O_WRONLY));
  EXPECT_EQ(read(path_), "some text");
  ASSERT_TRUE(open_file(path_, kReplace));
  EXPECT_EQ(read(path_), "");
  EXPECT_EQ(open_file(path_, kReplace | O_EXCL).error().code, EEXIST);
}

TEST_F(SafeFileTest, WhatIsNotThereSaysSo) {
  for (const std::string& path : {path_, folder_ + "/no/file", folder_ + "//no", std::string("")}) {
    const auto opened = open_file(path, O_RDONLY);
    ASSERT_FALSE(opened);
    EXPECT_EQ(opened.error().what, What::system);
    EXPECT_EQ(opened.error().code, ENOENT) << opened.error().message;
  }
  EXPECT_EQ(open_file(folder_ + "/", O_RDONLY).error().code, EISDIR);
  EXPECT_EQ(open_file(folder_ + "/..", O_RDONLY).error().code, EISDIR);
  EXPECT_EQ(open_file(victim_ + "/file", O_RDONLY).error().code, ENOTDIR);
  EXPECT_EQ(open_file(path_ + std::string(1, '\0') + "x", O_RDONLY).error().code, EINVAL);
}

TEST_F(SafeFileTest, ALinkIsNotFollowedWhereverItLeads) {
  for (const std::string& target : {victim_, std::string("../victim"), root_ + "/nothing", path_}) {
    fs::remove(path_);
    fs::create_symlink(target, path_);
    for (const int flags : {O_RDONLY, O_WRONLY, O_RDWR, kReplace, kReplace | O_EXCL, O_WRONLY | O_APPEND | O_CREAT}) {
      expect_refused(path_, flags, What::file, path_ + " is a symbolic link");
    }
    EXPECT_FALSE(fs::exists(root_ + "/nothing"));
  }
}

TEST_F(SafeFileTest, ASecondNameOfAFileIsNotWritten) {
  fs::create_hard_link(victim_, path_);
  expect_refused(path_, kReplace, What::file, "has 2 names (hard links)");
  expect_refused(path_, O_RDWR, What::file, "hard links");
  EXPECT_EQ(*read_file(path_, 100), "precious") << "reading harms nobody";
}

TEST_F(SafeFileTest, OnlyRegularFilesAndWhatIsAllowed) {
  ASSERT_EQ(::mkfifo(path_.c_str(), 0600), 0);
  expect_refused(path_, O_RDONLY, What::file, "is not a regular file");
  expect_refused(path_, kReplace, What::file, "is not a regular file");
  const auto fifo = open_file(path_, O_WRONLY | O_NONBLOCK, 0600, {.fifo = true});
  ASSERT_FALSE(fifo);
  EXPECT_EQ(fifo.error().code, ENXIO) << "it is taken, and nobody reads it: " << fifo.error().message;
  fs::remove(path_);
  fs::create_directory(path_);
  expect_refused(path_, O_RDONLY, What::file, "is not a regular file");
  expect_refused("/dev/null", O_WRONLY, What::file, "is not a regular file");
  EXPECT_TRUE(open_file("/dev/null", O_WRONLY, 0600, {.folder = FolderRule::any, .device = true}));
}

TEST_F(SafeFileTest, AFolderThatOthersMayWriteIsRefused) {
  using fs::perms;
  write(path_, "text");
  for (const auto& [mode, octal] : {std::pair{perms::owner_all | perms::others_write, "0702"}, std::pair{perms::owner_all | perms::group_write, "0720"},
                                    std::pair{perms::all, "0777"}}) {
    fs::permissions(folder_, mode);
    expect_refused(path_, O_RDONLY, What::folder, std::string("the folder ") + folder_ + " may be written by others (mode " + octal);
    expect_refused(folder_ + "/new", kReplace, What::folder, "chmod go-w");
    expect_refused(path_, O_RDONLY, What::folder, "may be written by others", {.folder = FolderRule::sticky});
    EXPECT_TRUE(open_file(path_, O_RDWR, 0600, {.folder = FolderRule::any}));
  }
  EXPECT_FALSE(fs::exists(folder_ + "/new"));
  fs::permissions(folder_, perms::all | perms::sticky_bit);
  expect_refused(path_, O_RDONLY, What::folder, "may be written by others");
  EXPECT_TRUE(open_file(path_, O_RDWR, 0600, {.folder = FolderRule::sticky}));
  // Above the file's own folder a sticky one will do (/tmp), and no other that everyone may write.
  fs::create_directory(folder_ + "/inner");
  fs::permissions(folder_ + "/inner", perms::owner_all);
  EXPECT_TRUE(open_file(folder_ + "/inner/file", kReplace));
  fs::permissions(folder_, perms::all);
  expect_refused(folder_ + "/inner/file", O_RDONLY, What::folder, std::string("the folder ") + folder_ + " may be written");
}

TEST_F(SafeFileTest, AFileThatEveryoneMayWriteIsNotBelieved) {
  write(path_, "text");
  fs::permissions(path_, fs::perms::all);
  expect_refused(path_, O_RDONLY, What::file, "may be written by everyone (mode 0777)");
  EXPECT_TRUE(open_file(path_, O_RDONLY, 0, {.folder = FolderRule::any}));
}

TEST_F(SafeFileTest, TheFolderIsNoLinkAndThoseAboveMayBeOnesOfOnesOwn) {
  write(path_, "text");
  const std::string link = root_ + "/link";
  fs::create_directory_symlink(folder_, link);
  expect_refused(link + "/file", O_RDONLY, What::folder, link + " is a symbolic link");
  EXPECT_FALSE(open_folder(link));
  EXPECT_TRUE(open_folder(folder_));
  // As /var/run is one.
  fs::create_directory(folder_ + "/inner");
  fs::permissions(folder_ + "/inner", fs::perms::owner_all);
  write(folder_ + "/inner/file", "inner");
  EXPECT_EQ(*read_file(link + "/inner/file", 100), "inner");
  EXPECT_EQ(*read_file(link + "/../folder/inner/file", 100), "inner") << "the folder that the link leads to";
  fs::create_directory_symlink("loop", root_ + "/loop");
  EXPECT_EQ(open_file(root_ + "/loop/x/file", O_RDONLY).error().code, ELOOP);
  // In a folder that everyone may write, anybody could have made it.
  fs::permissions(root_, fs::perms::all);
  EXPECT_FALSE(open_file(link + "/inner/file", O_RDONLY));
  fs::permissions(root_, fs::perms::owner_all);
}

TEST_F(SafeFileTest, AConfigFileMayBeALinkOfOnesOwn) {
  const FileRule config{.own_links = true};
  write(path_, "text");
  fs::create_symlink("folder/file", root_ + "/config");
  fs::create_directory_symlink("folder", root_ + "/linked");
  EXPECT_EQ(*read_file(root_ + "/config", 100, config), "text");
  EXPECT_EQ(*read_file(root_ + "/linked/file", 100, config), "text");
  expect_refused(root_ + "/config", O_RDONLY, What::file, "is a symbolic link");
  fs::create_symlink("circle", root_ + "/circle");
  EXPECT_EQ(open_file(root_ + "/circle", O_RDONLY, 0, config).error().code, ELOOP);
}

TEST_F(SafeFileTest, WhatBelongsToAnotherUserIsRefused) {
  if (::geteuid() != 0) GTEST_SKIP() << "needs root to give files away";
  constexpr uid_t kOther = 12345;
  write(path_, "text");
  ASSERT_EQ(::chown(path_.c_str(), kOther, kOther), 0);
  expect_refused(path_, O_RDONLY, What::file, path_ + " belongs to uid 12345");
  expect_refused(path_, kReplace, What::file, "belongs to uid 12345");
  // A person's own folder: what he has there is his, and a link of his is not followed.
  ASSERT_EQ(::chown(folder_.c_str(), kOther, kOther), 0);
  expect_refused(path_, O_RDONLY, What::folder, "the folder " + folder_ + " belongs to uid 12345");
  EXPECT_TRUE(open_file(path_, O_RDWR, 0600, {.folder = FolderRule::any}));
  fs::create_symlink(victim_, folder_ + "/link");
  expect_refused(folder_ + "/link", kReplace, What::file, "is a symbolic link", {.folder = FolderRule::any});
  // What another put into /tmp is not written.
  const std::string shared = root_ + "/shared";
  fs::create_directory(shared);
  fs::permissions(shared, fs::perms::all | fs::perms::sticky_bit);
  write(shared + "/file", "his");
  ASSERT_EQ(::chown((shared + "/file").c_str(), kOther, kOther), 0);
  expect_refused(shared + "/file", kReplace, What::file, "belongs to uid 12345", {.folder = FolderRule::any});
  EXPECT_EQ(read(shared + "/file"), "his");
  // A link of his above the folder.
  fs::create_directory(root_ + "/a");
  fs::create_directory(root_ + "/a/b");
  fs::permissions(root_ + "/a/b", fs::perms::owner_all);
  fs::create_directory_symlink(root_ + "/a", shared + "/up");
  ASSERT_EQ(::lchown((shared + "/up").c_str(), kOther, kOther), 0);
  expect_refused(shared + "/up/b/file", kReplace, What::folder, "is a symbolic link that others can have made");
}

}  // namespace
}  // namespace trunkline::config
