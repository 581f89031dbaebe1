// SPDX-License-Identifier: BSD-3-Clause
#include "control/flow_stream.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "config/safe_file.h"

namespace trunkline::control {
namespace {

constexpr mode_t kFileMode = 0640;
constexpr int kPipeBytes = 1 << 20;  // as much as the kernel lets everyone have

}  // namespace

void FlowStream::close() {
  if (fd_ >= 0) ::close(fd_);
  fd_ = -1;
  owed_.clear();
}

bool FlowStream::was_rotated() const {
  struct stat status {};
  return ::lstat(path_.c_str(), &status) != 0 || status.st_dev != device_ || status.st_ino != inode_;
}

std::string FlowStream::open() {
  auto file = config::open_file(path_, O_WRONLY | O_APPEND | O_CREAT | O_NONBLOCK, kFileMode, {.fifo = true});
  if (!file) return file.error().code == ENXIO ? "nobody reads the FIFO " + path_ : std::move(file.error().message);
  fd_ = file->release();
  struct stat status {};
  if (::fstat(fd_, &status) != 0) {
    std::string error = "cannot look at " + path_ + ": " + std::strerror(errno);
    close();
    return error;
  }
  device_ = status.st_dev;
  inode_ = status.st_ino;
  is_file_ = S_ISREG(status.st_mode);
  if (S_ISFIFO(status.st_mode)) ::fcntl(fd_, F_SETPIPE_SZ, kPipeBytes);  // without it there are 64 KiB
  if (!is_file_ || status.st_size == 0) owed_ = header_;
  ++files_;
  return {};
}

FlowSink::Written FlowStream::write(std::int64_t, std::span<const std::string> lines) {
  if (fd_ >= 0 && was_rotated()) close();
  if (fd_ < 0) {
    if (std::string error = open(); !error.empty()) return {0, std::move(error)};
  }
  return is_file_ ? write_to_file(lines) : write_to_pipe(lines);
}

FlowSink::Written FlowStream::write_to_file(std::span<const std::string> lines) {
  std::string text = owed_;
  for (const std::string& line : lines) text += line;
  const off_t size = ::lseek(fd_, 0, SEEK_END);
  std::size_t done = 0;
  while (done < text.size()) {
    const ssize_t written = ::write(fd_, text.data() + done, text.size() - done);
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) {
      std::string error = "cannot write " + path_ + ": " + std::strerror(errno);
      // Opened anew the next time, by when it may be somewhere else.
      if (done != 0 && ::ftruncate(fd_, size) != 0) error += "; its last line may be cut short";
      close();
      return {0, std::move(error)};
    }
    done += static_cast<std::size_t>(written);
  }
  owed_.clear();
  return {lines.size(), {}};
}

FlowSink::Written FlowStream::write_to_pipe(std::span<const std::string> lines) {
  std::string text = owed_;
  for (const std::string& line : lines) text += line;
  std::size_t done = 0;
  std::string error;
  while (done < text.size()) {
    const ssize_t written = ::write(fd_, text.data() + done, text.size() - done);
    if (written < 0 && errno == EINTR) continue;
    if (written < 0 && errno != EAGAIN) {
      error = errno == EPIPE ? "the reader of " + path_ + " is gone" : "cannot write " + path_ + ": " + std::strerror(errno);
    }
    if (written <= 0) break;
    done += static_cast<std::size_t>(written);
  }
  // Lines that are in the pipe at least in part; the rest of the last of them is owed.
  std::size_t taken = 0, end = owed_.size();
  while (taken < lines.size() && end < done) end += lines[taken++].size();
  if (error.empty()) {
    owed_ = end > done ? text.substr(done, end - done) : std::string();
    return {taken, {}};
  }
  close();
  // What was begun and cannot be completed has not been taken.
  return {end > done && taken > 0 ? taken - 1 : taken, std::move(error)};
}

}  // namespace trunkline::control
