// SPDX-License-Identifier: BSD-3-Clause
//
// One gzip member that grows in a file, chunk by chunk. After each chunk everything so far can be read from the file; a chunk
// that cannot be written leaves the file and the compressor as they were. Level 1: the control thread has other things to
// do, and logs compress well by themselves.
//
// Errors are sentences with the path in them; empty: done. One thread.
#pragma once

#include <zlib.h>

#include <cstdint>
#include <expected>
#include <memory>
#include <string>
#include <string_view>

namespace trunkline::control {

class GzipFile {
 public:
  // The file must not be there yet.
  static std::expected<std::unique_ptr<GzipFile>, std::string> create(const std::string& path);
  ~GzipFile();
  GzipFile(const GzipFile&) = delete;
  GzipFile& operator=(const GzipFile&) = delete;

  std::string append(std::string_view text) { return text.empty() ? std::string() : put(text, Z_SYNC_FLUSH); }
  // The member's end; nothing can be appended afterwards. May be repeated.
  std::string seal();
  bool is_sealed() const { return sealed_; }
  std::uint64_t bytes() const { return bytes_; }
  const std::string& path() const { return path_; }
  // Whether somebody removed the file.
  bool has_vanished() const;

 private:
  using Stream = std::unique_ptr<z_stream, void (*)(z_stream*)>;

  GzipFile(std::string path, int fd, Stream stream) : path_(std::move(path)), fd_(fd), stream_(std::move(stream)) {}
  static Stream make_stream();
  std::string put(std::string_view text, int flush);

  std::string path_;
  int fd_;
  Stream stream_;
  std::uint64_t bytes_ = 0;
  bool sealed_ = false;
};

}  // namespace trunkline::control
