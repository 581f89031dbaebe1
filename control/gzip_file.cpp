// SPDX-License-Identifier: BSD-3-Clause
#include "control/gzip_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "config/safe_file.h"

namespace trunkline::control {
namespace {

constexpr int kLevel = 1;
constexpr int kGzipWindow = 15 + 16;  // the largest window, with gzip's header and trailer
constexpr mode_t kFileMode = 0640;

std::string failed(const std::string& what, const std::string& path) { return "cannot " + what + " " + path + ": " + std::strerror(errno); }

// All of it. The error's number is in errno.
bool write_all(int fd, std::string_view data) {
  while (!data.empty()) {
    const ssize_t written = ::write(fd, data.data(), data.size());
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) return false;
    data.remove_prefix(static_cast<std::size_t>(written));
  }
  return true;
}

}  // namespace

GzipFile::Stream GzipFile::make_stream() {
  return Stream(new z_stream{}, [](z_stream* stream) {
    deflateEnd(stream);
    delete stream;
  });
}

std::expected<std::unique_ptr<GzipFile>, std::string> GzipFile::create(const std::string& path) {
  Stream stream = make_stream();
  if (deflateInit2(stream.get(), kLevel, Z_DEFLATED, kGzipWindow, 8, Z_DEFAULT_STRATEGY) != Z_OK) {
    return std::unexpected("no memory to compress " + path);
  }
  auto file = config::open_file(path, O_WRONLY | O_CREAT | O_EXCL, kFileMode);
  if (!file) return std::unexpected(std::move(file.error().message));
  return std::unique_ptr<GzipFile>(new GzipFile(path, file->release(), std::move(stream)));
}

GzipFile::~GzipFile() { ::close(fd_); }

bool GzipFile::has_vanished() const {
  struct stat status {};
  return ::fstat(fd_, &status) == 0 && status.st_nlink == 0;
}

std::string GzipFile::put(std::string_view text, int flush) {
  Stream before = make_stream();
  if (deflateCopy(before.get(), stream_.get()) != Z_OK) return "no memory to compress " + path_;
  std::string out(deflateBound(stream_.get(), text.size()) + 64, '\0');
  stream_->next_in = reinterpret_cast<Bytef*>(const_cast<char*>(text.data()));
  stream_->avail_in = static_cast<uInt>(text.size());
  stream_->next_out = reinterpret_cast<Bytef*>(out.data());
  stream_->avail_out = static_cast<uInt>(out.size());
  // The output has room for all of it, so one call is enough.
  const int result = deflate(stream_.get(), flush);
  const bool complete = flush == Z_FINISH ? result == Z_STREAM_END : result == Z_OK && stream_->avail_in == 0 && stream_->avail_out != 0;
  out.erase(out.size() - stream_->avail_out);
  std::string error;
  if (!complete) {
    error = "cannot compress " + path_;
  } else if (!write_all(fd_, out)) {
    error = failed("write", path_);
  }
  if (error.empty()) {
    bytes_ += out.size();
    return error;
  }
  stream_ = std::move(before);
  if (::ftruncate(fd_, static_cast<off_t>(bytes_)) != 0 || ::lseek(fd_, static_cast<off_t>(bytes_), SEEK_SET) < 0) {
    error += "; " + failed("shorten", path_);
  }
  return error;
}

std::string GzipFile::seal() {
  if (sealed_) return {};
  std::string error = put({}, Z_FINISH);
  sealed_ = error.empty();
  return error;
}

}  // namespace trunkline::control
