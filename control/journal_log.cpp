// SPDX-License-Identifier: BSD-3-Clause
#include "control/journal_log.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "config/json_reader.h"
#include "config/safe_file.h"
#include "config/state_difference.h"

namespace trunkline::control {
namespace {

using config::Json;

constexpr std::int64_t kVersion = 1;
constexpr std::size_t kChecksumDigits = 16;
constexpr std::size_t kMaxBytes = 256 << 20;  // far above where a generation is written instead
constexpr std::size_t kMaxDepth = 40;

std::string failure(std::string_view what, const std::string& path, int error) {
  return "cannot " + std::string(what) + ' ' + path + ": " + std::strerror(error);
}

struct Line {
  std::string checksum, after;
  std::uint64_t revision = 0;
  Json change;
};

std::expected<Line, std::string> read_line(std::string_view text) {
  if (text.size() < kChecksumDigits + 1 || text[kChecksumDigits] != ' ') return std::unexpected("it has no checksum");
  Line line;
  line.checksum = text.substr(0, kChecksumDigits);
  const std::string_view body = text.substr(kChecksumDigits + 1);
  if (checksum_text(body) != line.checksum) return std::unexpected("its checksum does not match");
  auto parsed = config::parse_json(body, {.max_bytes = kMaxBytes, .max_depth = kMaxDepth, .comments = false});
  if (!parsed) return std::unexpected(parsed.error().message);
  const bool known = parsed->is_object() && parsed->contains("version") && (*parsed)["version"] == kVersion;
  if (!known) return std::unexpected("it was written by another version of the engine");
  const Json& revision = parsed->value("revision", Json());
  const Json& after = parsed->value("after", Json());
  if (!revision.is_number_unsigned() || !after.is_string() || !parsed->contains("change")) {
    return std::unexpected("it is no change");
  }
  line.revision = revision.get<std::uint64_t>();
  line.after = after.get<std::string>();
  line.change = std::move((*parsed)["change"]);
  return line;
}

}  // namespace

std::string checksum_text(std::string_view text) {
  std::uint64_t hash = 14695981039346656037U;
  for (const char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * 1099511628211U;
  std::string digits(kChecksumDigits, '0');
  for (std::size_t i = kChecksumDigits; i-- > 0; hash >>= 4) digits[i] = "0123456789abcdef"[hash & 15];
  return digits;
}

LogReading apply_log(const std::string& path, std::string last, config::DesiredState& state, std::string_view awaited) {
  LogReading reading;
  reading.last = std::move(last);
  reading.met = reading.last == awaited;
  const auto text = config::read_file(path, kMaxBytes);
  if (!text) {
    if (text.error().code == ENOENT) return reading;
    reading.exists = true;
    reading.end = LogReading::End::broken;
    reading.why = text.error().message;
    return reading;
  }
  reading.exists = true;
  reading.size = text->size();
  reading.end = LogReading::End::whole;
  const auto broken = [&](std::string why) {
    reading.end = LogReading::End::broken;
    reading.why = std::move(why);
    return reading;
  };
  for (std::size_t begin = 0; begin < text->size();) {
    const std::size_t newline = text->find('\n', begin);
    if (newline == std::string::npos) {
      reading.end = LogReading::End::torn;
      break;
    }
    auto line = read_line(std::string_view(*text).substr(begin, newline - begin));
    begin = newline + 1;
    reading.at_end = begin == text->size();
    if (!line) return broken("line at byte " + std::to_string(reading.bytes) + ": " + line.error());
    if (line->after != reading.last) {
      if (reading.bytes != 0) return broken("line at byte " + std::to_string(reading.bytes) + " does not follow the one before");
      reading.end = LogReading::End::foreign;
      const std::size_t end = text->rfind('\n');
      const std::size_t start = end == 0 ? std::string::npos : text->rfind('\n', end - 1);
      const auto final_line = read_line(std::string_view(*text).substr(start + 1, end - start - 1));
      if (final_line) reading.revision = final_line->revision;
      return reading;
    }
    config::DesiredState next = state;
    if (auto applied = config::apply_difference(next, line->change); !applied) return broken(applied.error());
    next.revision = line->revision;
    state = std::move(next);
    reading.last = std::move(line->checksum);
    reading.bytes = begin;
    ++reading.lines;
    reading.met = reading.met || reading.last == awaited;
  }
  return reading;
}

std::expected<void, std::string> ChangeLog::open(const std::string& path, std::size_t bytes, std::string last, std::uint64_t lines) {
  close();
  auto file = config::open_file(path, O_WRONLY | (bytes == 0 ? O_CREAT | O_EXCL : 0));
  if (!file) return std::unexpected(std::move(file.error().message));
  if (bytes != 0 && ::lseek(file->get(), static_cast<off_t>(bytes), SEEK_SET) < 0) return std::unexpected(failure("seek in", path, errno));
  fd_ = file->release();
  path_ = path;
  bytes_ = bytes;
  last_ = std::move(last);
  lines_ = lines;
  return {};
}

void ChangeLog::close() {
  if (fd_ >= 0) ::close(std::exchange(fd_, -1));
}

std::expected<void, std::string> ChangeLog::append(const config::DesiredState& before, const config::DesiredState& after) {
  const std::string body = Json{{"after", last_},
                                {"change", config::difference_json(before, after)},
                                {"revision", after.revision},
                                {"version", kVersion}}
                               .dump();
  std::string checksum = checksum_text(body);
  const std::string line = checksum + ' ' + body + '\n';
  std::size_t written = 0;
  int error = 0;
  while (error == 0 && written < line.size()) {
    const ssize_t n = ::write(fd_, line.data() + written, line.size() - written);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) error = n < 0 ? errno : EIO;
    if (n > 0) written += static_cast<std::size_t>(n);
  }
  if (error == 0 && ::fdatasync(fd_) != 0) error = errno;
  if (error == 0) {
    bytes_ += line.size();
    ++lines_;
    last_ = std::move(checksum);
    return {};
  }
  const std::string why = failure("append to", path_, error);
  // Half a line must not stand before a whole one. After a sync that failed nobody knows what is on disk, so then as well.
  if (::ftruncate(fd_, static_cast<off_t>(bytes_)) == 0) static_cast<void>(::fdatasync(fd_));
  close();
  return std::unexpected(why);
}

}  // namespace trunkline::control
