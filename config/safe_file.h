// SPDX-License-Identifier: BSD-3-Clause
//
// Opening files that a privileged process reads or writes. A path names whatever lies there at the moment: a symbolic link
// that somebody else put there makes root empty /etc/passwd. So every file of the engine's is opened by open_file(), which
// walks the path folder by folder (openat, O_NOFOLLOW) and looks at what it holds, never at a name twice.
//
// Rules:
//  * The file, and the folder that it lies in, are never reached through a symbolic link. Above that folder a link is
//    followed only where root or this process's user made it and nobody else could have (/var/run -> /run).
//  * Each folder on the way belongs to root or to this process's user. The one that the file lies in may be written by its
//    owner alone (FolderRule says otherwise); those above may be written by everyone only if they are sticky, like /tmp.
//  * The file is a regular one, of root or of this process's user, that everyone else may not write. One that is opened
//    for writing has one name only: a hard link may be another file's second name.
//  * O_TRUNC is carried out after these checks, not before.
//
// What does not hold is an error that names the path, what is wrong with it, and how to mend it. Nothing was changed then.
// Throws nothing but std::bad_alloc; any thread.
#pragma once

#include <fcntl.h>
#include <sys/types.h>

#include <cstddef>
#include <expected>
#include <string>
#include <utility>

namespace trunkline::config {

// A file descriptor, closed with the object.
class Descriptor {
 public:
  explicit Descriptor(int fd = -1) : fd_(fd) {}
  Descriptor(Descriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Descriptor& operator=(Descriptor&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  ~Descriptor();
  explicit operator bool() const { return fd_ >= 0; }
  int get() const { return fd_; }
  int release() { return std::exchange(fd_, -1); }

 private:
  int fd_;
};

// Who may write in the folder that the file lies in.
enum class FolderRule {
  own,     // its owner, who is root or this process's user
  sticky,  // or everyone, where only a file's owner may replace it (/tmp, /dev/shm)
  any,     // whoever: a person names the file for this one time (trunkctl). Links above the folder are followed.
};

struct FileRule {
  FolderRule folder = FolderRule::own;
  bool fifo = false;    // a FIFO will do as well, whoever owns it
  bool device = false;  // a character device too
  // The file and its folder may be links, where nobody else could have made them: for what is only read, such as the config file.
  bool own_links = false;
};

struct FileError {
  enum class What {
    system,  // the kernel refused; `code` is its errno (ENOENT: there is no such file)
    folder,  // a folder on the way is not as the rules want it
    file,    // the file itself is not
  };
  What what = What::system;
  int code = 0;
  std::string message;
};

// `flags` and `mode` as for open(2); O_CLOEXEC, O_NOCTTY and O_NOFOLLOW are added, and O_NONBLOCK where no FIFO is wanted.
std::expected<Descriptor, FileError> open_file(const std::string& path, int flags, mode_t mode = 0600, const FileRule& rule = {});

// The folder itself, by the same rules: an O_PATH descriptor.
std::expected<Descriptor, FileError> open_folder(const std::string& path, const FileRule& rule = {});

// All of a file, which may have so many bytes at most.
std::expected<std::string, FileError> read_file(const std::string& path, std::size_t max_bytes, const FileRule& rule = {});

}  // namespace trunkline::config
