// SPDX-License-Identifier: BSD-3-Clause
#include "control/controller/journal_mark.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <optional>
#include <string_view>

#include "config/json_reader.h"
#include "config/safe_file.h"
#include "control/journal_log.h"

namespace trunkline::control {
namespace {

using config::Json;

constexpr std::size_t kRecordBytes = 256;  // its newline included; the rest is blanks
constexpr std::size_t kPlaceBytes = 512;   // a disk writes so many at once, or none
constexpr std::size_t kFileBytes = kPlaceBytes + kRecordBytes;

std::string failure(const char* what, const std::string& path) { return std::string("cannot ") + what + ' ' + path + ": " + std::strerror(errno); }

std::string record_of(const Promise& promise, std::uint64_t sequence) {
  const std::string body =
      Json{{"base", promise.base}, {"last", promise.last}, {"lines", promise.lines}, {"revision", promise.revision}, {"sequence", sequence}}.dump();
  std::string record = checksum_text(body) + ' ' + body;
  record.resize(kRecordBytes - 1, ' ');
  return record + '\n';
}

struct Record {
  Promise promise;
  std::uint64_t sequence = 0;
};

std::optional<Record> read_record(std::string_view text) {
  if (text.size() < kRecordBytes || text[kRecordBytes - 1] != '\n') return std::nullopt;
  text = text.substr(0, kRecordBytes - 1);
  text = text.substr(0, text.find_last_not_of(' ') + 1);
  const std::size_t blank = text.find(' ');
  if (blank == std::string_view::npos || checksum_text(text.substr(blank + 1)) != text.substr(0, blank)) return std::nullopt;
  const auto document = config::parse_json(text.substr(blank + 1), {.max_bytes = kRecordBytes, .max_depth = 2, .comments = false});
  if (!document || !document->is_object()) return std::nullopt;
  Record record;
  const auto number = [&](const char* key, std::uint64_t& into) {
    const auto found = document->find(key);
    if (found == document->end() || !found->is_number_unsigned()) return false;
    into = found->get<std::uint64_t>();
    return true;
  };
  const auto words = [&](const char* key, std::string& into) {
    const auto found = document->find(key);
    if (found == document->end() || !found->is_string()) return false;
    into = found->get<std::string>();
    return true;
  };
  const bool whole = number("sequence", record.sequence) && number("lines", record.promise.lines) && number("revision", record.promise.revision) &&
                     words("base", record.promise.base) && words("last", record.promise.last);
  return whole ? std::optional(record) : std::nullopt;
}

bool write_whole(int fd, std::string_view text, off_t at) {
  while (!text.empty()) {
    const ssize_t n = ::pwrite(fd, text.data(), text.size(), at);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return false;
    text.remove_prefix(static_cast<std::size_t>(n));
    at += n;
  }
  return true;
}

// What cannot be replaced by a file, which a folder is, goes out of the way by its name.
void set_folder_aside(const std::string& path) {
  struct stat found {};
  if (::lstat(path.c_str(), &found) != 0 || !S_ISDIR(found.st_mode)) return;
  for (int i = 1; i <= 100; ++i) {
    if (::renameat2(AT_FDCWD, path.c_str(), AT_FDCWD, (path + ".bad-" + std::to_string(i)).c_str(), RENAME_NOREPLACE) ==
            0 ||
        errno != EEXIST)
      return;
  }
}

}  // namespace

JournalMark::Reading JournalMark::read() {
  Reading reading;
  usable_ = false;
  const auto text = config::read_file(path_, kFileBytes);
  if (!text) {
    if (text.error().code == ENOENT) return reading;
    reading.found = Reading::Found::broken;
    reading.why = text.error().message;
    return reading;
  }
  std::optional<Record> best;
  for (const std::size_t at : {std::size_t{0}, kPlaceBytes}) {
    const auto record = read_record(std::string_view(*text).substr(std::min(at, text->size())));
    if (record && (!best || record->sequence > best->sequence)) best = record;
  }
  if (!best) {
    reading.found = Reading::Found::broken;
    reading.why = "neither of its records is whole";
    return reading;
  }
  usable_ = text->size() == kFileBytes;
  sequence_ = best->sequence;
  reading.found = Reading::Found::good;
  reading.promise = best->promise;
  return reading;
}

std::expected<void, std::string> JournalMark::write(const Promise& promise, bool sync) {
  const std::string record = record_of(promise, ++sequence_);
  if (!usable_) return make(record);
  // Not kept open: a file that is held for writing keeps its file system from being made read-only.
  const auto file = config::open_file(path_, O_RDWR);
  if (!file) {
    usable_ = false;
    return make(record);
  }
  if (!write_whole(file->get(), record, static_cast<off_t>(sequence_ % 2 * kPlaceBytes))) return std::unexpected(failure("write", path_));
  if (sync) {
    if (::fdatasync(file->get()) != 0) return std::unexpected(failure("sync", path_));
  } else {
    // Begins to write it, and waits for nothing.
    ::sync_file_range(file->get(), 0, 0, SYNC_FILE_RANGE_WRITE);
  }
  return {};
}

std::expected<void, std::string> JournalMark::make(const std::string& record) {
  const std::string aside = path_ + ".tmp";
  ::unlink(aside.c_str());
  set_folder_aside(aside);
  set_folder_aside(path_);
  auto file = config::open_file(aside, O_RDWR | O_CREAT | O_EXCL);
  if (!file) return std::unexpected(file.error().message);
  // The other place is there from the start, so that a write in place needs no room on the disk.
  std::string text(kFileBytes, ' ');
  text.replace(sequence_ % 2 * kPlaceBytes, record.size(), record);
  const bool made = write_whole(file->get(), text, 0) && ::fsync(file->get()) == 0 && ::rename(aside.c_str(), path_.c_str()) == 0;
  if (!made) {
    const std::string why = failure("write", path_);
    ::unlink(aside.c_str());
    return std::unexpected(why);
  }
  usable_ = true;
  return {};
}

}  // namespace trunkline::control
