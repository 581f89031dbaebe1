// SPDX-License-Identifier: BSD-3-Clause
#include "config/safe_file.h"

#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <optional>
#include <string_view>
#include <vector>

namespace trunkline::config {
namespace {

using What = FileError::What;

constexpr int kMaxLinks = 40;  // as the kernel has it
constexpr std::size_t kMaxLinkText = 4096;

std::unexpected<FileError> refuse(What what, int code, std::string message) {
  return std::unexpected(FileError{what, code, std::move(message)});
}

std::unexpected<FileError> refuse_system(const std::string& path, int code) {
  return refuse(What::system, code, "cannot open " + path + ": " + std::strerror(code));
}

bool is_trusted(uid_t owner) { return owner == 0 || owner == ::geteuid(); }

std::string octal(mode_t mode) {
  std::string text;
  for (const unsigned shift : {9U, 6U, 3U, 0U}) text += static_cast<char>('0' + (mode >> shift & 7U));
  return text;
}

std::string own_user() { return ::geteuid() == 0 ? "root" : "root or uid " + std::to_string(::geteuid()); }

// What makes a folder one in which somebody else could put things; empty: it is none.
std::string why_not_folder(const struct stat& status, bool is_last, FolderRule rule) {
  if (rule == FolderRule::any) return {};
  if (!is_trusted(status.st_uid)) {
    return "belongs to uid " + std::to_string(status.st_uid) + ", who can put anything there; wanted one of " + own_user() +
           ": chown it, or name another folder";
  }
  const bool sticky = (status.st_mode & S_ISVTX) != 0;
  if (is_last && rule == FolderRule::own && (status.st_mode & (S_IWGRP | S_IWOTH)) != 0) {
    return "may be written by others (mode " + octal(status.st_mode) + "), who can put links there; chmod go-w it, or name another folder";
  }
  const bool others = (status.st_mode & S_IWOTH) != 0 || (is_last && (status.st_mode & S_IWGRP) != 0);
  if (others && !sticky) {
    return "may be written by others (mode " + octal(status.st_mode) + "), who can put links there; chmod go-w it, or name another folder";
  }
  return {};
}

// A link that nobody but root or this process's user can have made, or can replace.
bool is_trusted_link(const struct stat& folder, const struct stat& link) {
  const bool others_write = (folder.st_mode & (S_IWGRP | S_IWOTH)) != 0;
  return is_trusted(link.st_uid) && is_trusted(folder.st_uid) && (!others_write || (folder.st_mode & S_ISVTX) != 0);
}

std::optional<std::string> read_link(int fd, const char* name) {
  std::string target(kMaxLinkText, '\0');
  const ssize_t size = ::readlinkat(fd, name, target.data(), target.size());
  if (size <= 0 || static_cast<std::size_t>(size) == target.size()) return std::nullopt;
  target.resize(static_cast<std::size_t>(size));
  return target;
}

// Where a walk is: the folder that it has reached, what is known of it, and how it is called in a message.
class Walk {
 public:
  explicit Walk(const FileRule& rule) : rule_(rule) {}

  std::expected<void, FileError> start(bool absolute) {
    shown_ = absolute ? "" : ".";
    here_ = Descriptor(::open(absolute ? "/" : ".", O_PATH | O_DIRECTORY | O_CLOEXEC));
    if (!here_ || ::fstat(here_.get(), &status_) != 0) return refuse_system(absolute ? "/" : ".", errno);
    return {};
  }

  // To the folder of that path, link by link.
  std::expected<void, FileError> go(const std::string& path) {
    std::vector<std::string> ahead;  // the next one last
    push(path, ahead);
    if (auto started = start(path.starts_with('/')); !started) return started;
    while (!ahead.empty()) {
      const std::string name = std::move(ahead.back());
      ahead.pop_back();
      if (auto why = why_not_folder(status_, false, rule_.folder); !why.empty()) return refuse_folder(why);
      Descriptor next(::openat(here_.get(), name.c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC));
      struct stat status {};
      if (!next || ::fstat(next.get(), &status) != 0) return refuse_system(child(name), errno);
      if (S_ISLNK(status.st_mode)) {
        if (auto followed = follow(next.get(), child(name), status, ahead); !followed) return followed;
        continue;
      }
      if (!S_ISDIR(status.st_mode)) return refuse_system(child(name), ENOTDIR);
      shown_ = child(name);
      here_ = std::move(next);
      status_ = status;
    }
    if (auto why = why_not_folder(status_, true, rule_.folder); !why.empty()) return refuse_folder(why);
    return {};
  }

  // Adds what a link leads to. `link` is a descriptor of it.
  std::expected<void, FileError> follow(int link, const std::string& shown, const struct stat& status, std::vector<std::string>& ahead) {
    const bool is_last = ahead.empty();
    if (rule_.folder != FolderRule::any) {
      if (is_last && !rule_.own_links) return refuse(What::folder, ELOOP, shown + " is a symbolic link, and links are not followed; name the folder that it leads to");
      if (!is_trusted_link(status_, status)) {
        return refuse(What::folder, ELOOP, shown + " is a symbolic link that others can have made; name the folder that it leads to");
      }
    }
    if (++links_ > kMaxLinks) return refuse_system(shown, ELOOP);
    const auto target = read_link(link, "");
    if (!target) return refuse_system(shown, ELOOP);
    push(*target, ahead);
    return target->starts_with('/') ? start(true) : std::expected<void, FileError>{};
  }

  int here() const { return here_.get(); }
  Descriptor take() { return std::move(here_); }
  const struct stat& status() const { return status_; }
  std::string child(const std::string& name) const { return shown_ + '/' + name; }

 private:
  static void push(std::string_view path, std::vector<std::string>& ahead) {
    std::vector<std::string> names;
    for (std::size_t from = 0; from < path.size();) {
      const std::size_t end = std::min(path.find('/', from), path.size());
      if (const std::string_view name = path.substr(from, end - from); !name.empty() && name != ".") names.emplace_back(name);
      from = end + 1;
    }
    ahead.insert(ahead.end(), std::make_move_iterator(names.rbegin()), std::make_move_iterator(names.rend()));
  }

  std::unexpected<FileError> refuse_folder(const std::string& why) const {
    return refuse(What::folder, EPERM, "the folder " + (shown_.empty() ? "/" : shown_) + ' ' + why);
  }

  FileRule rule_;
  Descriptor here_;
  struct stat status_ {};
  std::string shown_;
  int links_ = 0;
};

// What makes a file one that is not to be opened; empty: nothing does.
std::string why_not_file(const struct stat& status, const struct stat& folder, bool for_writing, const FileRule& rule) {
  if (S_ISLNK(status.st_mode)) return "is a symbolic link, and links are not followed; remove it, or name the file that it leads to";
  if (S_ISFIFO(status.st_mode) && rule.fifo) return {};
  if (S_ISCHR(status.st_mode) && rule.device) return {};
  if (!S_ISREG(status.st_mode)) return std::string("is not a regular file") + (rule.fifo ? " or FIFO" : "") + "; remove it, or name another";
  const bool trusted = is_trusted(status.st_uid) || (rule.folder == FolderRule::any && status.st_uid == folder.st_uid);
  if (!trusted) return "belongs to uid " + std::to_string(status.st_uid) + "; wanted one of " + own_user() + ": remove it, or chown it";
  if (rule.folder != FolderRule::any && (status.st_mode & S_IWOTH) != 0) {
    return "may be written by everyone (mode " + octal(status.st_mode) + "); look at what is in it, then chmod o-w";
  }
  if (for_writing && status.st_nlink > 1) {
    return "has " + std::to_string(status.st_nlink) + " names (hard links), so it may be another file as well; remove it, or copy it in its place";
  }
  return {};
}

struct Split {
  std::string folder, name;
};

Split split(const std::string& path) {
  const std::size_t slash = path.rfind('/');
  if (slash == std::string::npos) return {".", path};
  return {slash == 0 ? "/" : path.substr(0, slash), path.substr(slash + 1)};
}

std::expected<Descriptor, FileError> open_file_at(const std::string& path, int flags, mode_t mode, const FileRule& rule, int links) {
  const auto [folder_path, name] = split(path);
  if (path.find('\0') != std::string::npos) return refuse_system("a path with a zero byte in it", EINVAL);
  if (name.empty() || name == "." || name == "..") return refuse_system(path, name.empty() && path.empty() ? ENOENT : EISDIR);
  Walk walk(rule);
  if (auto reached = walk.go(folder_path); !reached) return std::unexpected(std::move(reached.error()));
  const bool for_writing = (flags & O_ACCMODE) != O_RDONLY;
  struct stat status {};
  // Looked at first, since opening a device or a FIFO may do something by itself.
  if (::fstatat(walk.here(), name.c_str(), &status, AT_SYMLINK_NOFOLLOW) == 0) {
    if (S_ISLNK(status.st_mode) && rule.own_links && (rule.folder == FolderRule::any || is_trusted_link(walk.status(), status))) {
      const auto target = read_link(walk.here(), name.c_str());
      if (!target || links == kMaxLinks) return refuse_system(path, ELOOP);
      return open_file_at(target->starts_with('/') ? *target : folder_path + '/' + *target, flags, mode, rule, links + 1);
    }
    if (const std::string why = why_not_file(status, walk.status(), for_writing, rule); !why.empty()) {
      return refuse(What::file, S_ISLNK(status.st_mode) ? ELOOP : EPERM, path + ' ' + why);
    }
  } else if (errno != ENOENT || (flags & O_CREAT) == 0) {
    return refuse_system(path, errno);
  }
  const int more = O_CLOEXEC | O_NOCTTY | O_NOFOLLOW | (rule.fifo ? 0 : O_NONBLOCK);
  Descriptor file(::openat(walk.here(), name.c_str(), (flags & ~O_TRUNC) | more, mode));
  if (!file || ::fstat(file.get(), &status) != 0) return refuse_system(path, errno);
  if (const std::string why = why_not_file(status, walk.status(), for_writing, rule); !why.empty()) {
    return refuse(What::file, EPERM, path + ' ' + why);
  }
  if ((flags & O_TRUNC) != 0 && S_ISREG(status.st_mode) && ::ftruncate(file.get(), 0) != 0) return refuse_system(path, errno);
  return file;
}

}  // namespace

Descriptor::~Descriptor() {
  if (fd_ >= 0) ::close(fd_);
}

std::expected<Descriptor, FileError> open_file(const std::string& path, int flags, mode_t mode, const FileRule& rule) {
  return open_file_at(path, flags, mode, rule, 0);
}

std::expected<Descriptor, FileError> open_folder(const std::string& path, const FileRule& rule) {
  Walk walk(rule);
  if (auto reached = walk.go(path); !reached) return std::unexpected(std::move(reached.error()));
  return walk.take();
}

std::expected<std::string, FileError> read_file(const std::string& path, std::size_t max_bytes, const FileRule& rule) {
  const auto file = open_file(path, O_RDONLY, 0, rule);
  if (!file) return std::unexpected(file.error());
  struct stat status {};
  if (::fstat(file->get(), &status) != 0) return refuse_system(path, errno);
  if (static_cast<std::size_t>(status.st_size) > max_bytes) {
    return refuse(What::file, EFBIG, path + " has " + std::to_string(status.st_size) + " bytes; at most " + std::to_string(max_bytes) + " are read");
  }
  std::string text(static_cast<std::size_t>(status.st_size), '\0');
  std::size_t have = 0;
  while (have < text.size()) {
    const ssize_t n = ::read(file->get(), text.data() + have, text.size() - have);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return refuse(What::system, errno, "cannot read " + path + ": " + std::strerror(errno));
    if (n == 0) break;  // it was shortened meanwhile
    have += static_cast<std::size_t>(n);
  }
  text.resize(have);
  return text;
}

}  // namespace trunkline::config
