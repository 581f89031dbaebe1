// SPDX-License-Identifier: BSD-3-Clause
#include "control/journal.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <ctime>
#include <exception>
#include <filesystem>
#include <string_view>
#include <utility>

#include "config/json_reader.h"
#include "config/safe_file.h"
#include "config/state_json.h"
#include "config/words.h"

namespace trunkline::control {
namespace {

using config::Json;

constexpr std::string_view kFormat = "trunkline-state";
// 2: network ACLs, settings of ENIs. 3: state.mark is beside it. Those below are read as well.
constexpr std::int64_t kVersion = 3;
constexpr std::int64_t kVersionWithMark = 3;
// Far above what a host's worth of attachments and groups takes; it bounds what a foreign file can make load() read.
constexpr std::size_t kMaxBytes = 64 << 20;
// A state may come in 32 levels deep over the socket, and stands one level deeper here.
constexpr std::size_t kMaxDepth = 40;
// A log is read at every start, so it stays in proportion to the state.
constexpr std::size_t kMinLogBytes = 4 << 20;
constexpr std::size_t kLogPerState = 2;
constexpr std::size_t kMaxLogBytes = 256 << 20;  // what journal_log.cpp reads

std::string failure(std::string_view what, const std::string& path, int error) {
  return "cannot " + std::string(what) + ' ' + path + ": " + std::strerror(error);
}

std::string checksum_of(std::int64_t version, const std::string& state_dump) {
  return checksum_text(std::to_string(version) + ':' + state_dump);
}

// A generation's file, and the checksum in it. Its members are in the order of their names, as a dump has them.
struct Written {
  std::string text, checksum;
};
Written write_content(const config::DesiredState& state) {
  const std::string dump = config::to_json(state).dump();
  std::string checksum = checksum_of(kVersion, dump);
  std::string text = "{\"checksum\":\"" + checksum + "\",\"format\":\"" + std::string(kFormat) + "\",\"state\":" + dump +
                     ",\"version\":" + std::to_string(kVersion) + "}\n";
  return {std::move(text), std::move(checksum)};
}

std::string utc_now() {
  const std::time_t now = std::time(nullptr);
  std::tm parts{};
  gmtime_r(&now, &parts);
  char text[32];
  return {text, std::strftime(text, sizeof text, "%Y%m%dT%H%M%SZ", &parts)};
}

// What a whole and unbroken file says. An error is a sentence about what is wrong with it.
struct Content {
  std::int64_t version = 0;
  std::string checksum;
  std::optional<config::DesiredState> state;  // of a newer version: not read
};

std::expected<Content, std::string> read_content(std::string_view text) {
  const auto document = config::parse_json(text, {.max_bytes = kMaxBytes, .max_depth = kMaxDepth, .comments = false});
  if (!document) return std::unexpected(document.error().message);
  if (!document->is_object()) return std::unexpected("it is not an object");
  const auto member = [&document](const char* key) {
    const auto found = document->find(key);
    return found == document->end() ? Json() : *found;
  };
  if (member("format") != kFormat) return std::unexpected("its \"format\" is not \"" + std::string(kFormat) + '"');
  const Json version = member("version");
  // No dump of ours has another spelling of a number, so 1.0 and 2^63 are as wrong as a string.
  if (!version.is_number_unsigned() || version.get<std::uint64_t>() > 1'000'000 || version == 0) {
    return std::unexpected("its \"version\" is " + config::words::describe(version));
  }
  const auto state = document->find("state");
  if (state == document->end() || !state->is_object()) return std::unexpected("it has no \"state\"");

  Content content;
  content.version = version.get<std::int64_t>();
  content.checksum = member("checksum").is_string() ? member("checksum").get<std::string>() : "";
  if (member("checksum") != checksum_of(content.version, state->dump())) {
    return std::unexpected("its checksum does not match");
  }
  if (content.version > kVersion) return content;
  if (document->size() != 4) return std::unexpected("it has members that do not belong there");
  auto read = config::state_from_json(*state, "/state");
  if (!read) {
    const auto& problems = read.error();
    if (problems.empty()) return std::unexpected("it does not hold a state");
    return std::unexpected(problems.front().pointer + ": " + problems.front().message);
  }
  content.state = std::move(*read);
  return content;
}

}  // namespace

struct Journal::Examined {
  Found found = Found::absent;
  std::optional<config::DesiredState> state;
  std::string why;  // broken, unread: a sentence; newer: its version
  std::string checksum = {};
  std::size_t bytes = 0;
  std::int64_t version = 0;
};

Journal::Journal(std::string directory)
    : directory_(directory.empty() ? "." : std::move(directory)),
      path_(directory_ + "/state.json"),
      previous_(path_ + ".previous"),
      temporary_(path_ + ".tmp"),
      log_path_(directory_ + "/state.log"),
      previous_log_(log_path_ + ".previous"),
      mark_(directory_ + "/state.mark") {}

Journal::Examined Journal::examine(const std::string& path) const {
  const auto text = config::read_file(path, kMaxBytes);
  if (!text) {
    const config::FileError& error = text.error();
    if (error.code == ENOENT) return {};
    const bool broken = error.what == config::FileError::What::file || error.code == EIO;
    return {broken ? Found::broken : Found::unread, {}, error.message};
  }
  auto content = read_content(*text);
  if (!content) return {Found::broken, {}, std::move(content.error())};
  if (!content->state) return {Found::newer, {}, std::to_string(content->version)};
  return {Found::good, std::move(content->state), {}, std::move(content->checksum), text->size(), content->version};
}

// Renames without overwriting; the answer is the new path.
std::expected<std::string, std::string> Journal::move_aside(const std::string& path, const char* what) const {
  const std::string wanted = path + '.' + what + '-' + utc_now();
  for (int i = 1; i <= 100; ++i) {
    const std::string target = i == 1 ? wanted : wanted + '-' + std::to_string(i);
    if (::renameat2(AT_FDCWD, path.c_str(), AT_FDCWD, target.c_str(), RENAME_NOREPLACE) == 0) return target;
    if (errno == EINVAL || errno == ENOSYS) {  // a file system that cannot promise it
      if (::access(target.c_str(), F_OK) == 0) continue;
      if (::rename(path.c_str(), target.c_str()) == 0) return target;
    }
    if (errno != EEXIST) return std::unexpected(failure("set aside", path, errno));
  }
  return std::unexpected("cannot set aside " + path + ": " + wanted + " and 99 others are there already");
}

Journal::Loaded Journal::load() {
  try {
    return load_generations();
  } catch (const std::exception& error) {
    // Out of memory, or a defect in reading: what is on disk may be fine, so it is kept and set aside by the next save.
    current_found_ = previous_found_ = Found::unread;
    loaded_ = true;
    Loaded nothing;
    nothing.note = "cannot read " + path_ + ": " + error.what() + "; started with nothing";
    return nothing;
  }
}

Journal::Loaded Journal::load_generations() {
  Loaded loaded;
  const auto tell = [&loaded](const std::string& sentence) {
    loaded.note += (loaded.note.empty() ? "" : "; ") + sentence;
  };
  // Sets a broken generation aside and answers what is there now.
  const auto quarantine = [&](const std::string& path, Examined& examined) {
    tell(path + (examined.found == Found::broken ? " is broken: " : " cannot be read: ") + examined.why);
    if (examined.found != Found::broken) return examined.found;
    const auto moved = move_aside(path, "bad");
    if (!moved) {
      tell(moved.error());
      return Found::broken;
    }
    tell("set aside as " + *moved);
    if (!loaded.quarantined) loaded.quarantined = *moved;
    return Found::absent;
  };

  const JournalMark::Reading mark = mark_.read();
  promise_ = mark.promise;
  Examined current = examine(path_);
  current_found_ = current.found;
  if (current.found == Found::good) {
    previous_found_ = examine(previous_).found;  // the next save replaces it only if it is ours
    loaded.state = std::move(current.state);
    log_limit_ = std::max(kMinLogBytes, kLogPerState * current.bytes);
    generation_ = current.checksum;
    load_log(loaded, current.checksum, mark);
    if (current.version >= kVersionWithMark && mark.found != JournalMark::Reading::Found::good) {
      loaded.damage = mark_.path() + (mark.found == JournalMark::Reading::Found::absent ? " is missing" : " is broken: " + mark.why) +
                      "; whether all of state.log is there cannot be told";
      tell(loaded.damage);
    }
  } else if (current.found == Found::newer) {
    previous_found_ = examine(previous_).found;
    tell(path_ + " was written by a newer engine (version " + current.why + ", this one reads " +
         std::to_string(kVersion) +
         "): nothing loaded, and the file is kept; run that engine, or attach the tasks anew");
  } else {
    if (current.found != Found::absent) current_found_ = quarantine(path_, current);
    Examined previous = examine(previous_);
    previous_found_ = previous.found;
    if (previous.found == Found::good) {
      if (current.found == Found::absent) tell(path_ + " is missing");
      const std::uint64_t revision = previous.state->revision;
      load_logs_after_previous(*previous.state, std::move(previous.checksum));
      if (previous.state->revision < promise_.revision) {
        loaded.damage = "revision " + std::to_string(promise_.revision) + " was the last one on disk, and what is left leads to revision " +
                        std::to_string(previous.state->revision) + " only";
      }
      tell("loaded the generation before it, revision " + std::to_string(revision) +
           (previous.state->revision == revision ? "" : ", and the changes up to revision " + std::to_string(previous.state->revision)));
      if (!loaded.damage.empty()) tell(loaded.damage);
      loaded.state = std::move(previous.state);
    } else if (previous.found == Found::newer) {
      tell(previous_ + " was written by a newer engine (version " + previous.why +
           "): nothing loaded, and the file is kept");
    } else {
      if (previous.found != Found::absent) previous_found_ = quarantine(previous_, previous);
      if (loaded.note.empty() && !promise_.base.empty()) tell(path_ + " is missing");
      if (!promise_.base.empty()) tell("revision " + std::to_string(promise_.revision) + " was the last one on disk");
      if (!loaded.note.empty()) {
        tell("started with nothing");
        loaded.damage = loaded.note;
      }
    }
  }
  loaded_ = true;
  return loaded;
}

// What has changed since the generation that was loaded.
void Journal::load_log(Loaded& loaded, const std::string& generation, const JournalMark::Reading& mark) {
  // That the previous log follows this generation takes a file system that kept the later of two renames and lost the
  // earlier one.
  LogReading reading = apply_log(previous_log_, generation, *loaded.state, mark.promise.last);
  const bool orderly = reading.bytes == 0;
  bool met = reading.met;
  std::uint64_t lines = reading.lines;
  reading = apply_log(log_path_, std::move(reading.last), *loaded.state, mark.promise.last);
  met = met || reading.met;
  lines += reading.lines;
  using End = LogReading::End;
  const auto tell = [&](const std::string& sentence) { loaded.note += (loaded.note.empty() ? "" : "; ") + sentence; };
  // A mark of this generation names the line that must be there. One of another generation is that of the one before, whose
  // successor was being written when the engine ended; then the revision must have been reached.
  const bool is_marked = mark.found == JournalMark::Reading::Found::good;
  const std::uint64_t revision = loaded.state->revision;
  const bool is_short = is_marked && (mark.promise.base == generation ? !met : revision < mark.promise.revision);
  // The line that was being written when the power went: nobody was told of it, and nothing stands behind it.
  if (reading.end == End::broken && reading.exists && reading.at_end && is_marked && mark.promise.base == generation && met) reading.end = End::torn;
  if (is_short) {
    std::string what = !reading.exists                                    ? " is missing"
                       : reading.size == 0 && reading.end == End::whole   ? " is empty"
                       : reading.end == End::foreign                      ? " does not belong to state.json"
                       : reading.end == End::broken || reading.lines == 0 ? " is broken"
                                                                          : " ends too early";
    loaded.damage = log_path_ + what + ": revision " + std::to_string(mark.promise.revision) + " was the last one on disk, and what is there leads to revision " +
                    std::to_string(revision);
    if (mark.promise.base == generation) {
      loaded.damage += " (" + std::to_string(lines) + " of " + std::to_string(std::max(lines, mark.promise.lines)) + " changes since state.json)";
    }
    tell(loaded.damage);
  }
  bool clean = orderly && (reading.end == End::absent || reading.end == End::whole || reading.end == End::torn);
  if (reading.end == End::foreign && (is_short || reading.revision > revision)) {
    if (loaded.damage.empty()) {
      loaded.damage = log_path_ + " does not belong to state.json";
      tell(loaded.damage);
    }
    const auto moved = move_aside(log_path_, "bad");
    tell(moved ? "set aside as " + *moved : moved.error());
    if (moved && !loaded.quarantined) loaded.quarantined = *moved;
  }
  const bool cuts = reading.exists && (reading.end == End::torn || reading.end == End::broken);
  if (reading.end == End::broken) {
    const std::string why = log_path_ + " is broken: " + reading.why + "; what came after revision " + std::to_string(revision) + " is lost";
    if (loaded.damage.empty()) loaded.damage = why;
    tell(why);
  }
  if (cuts && (is_short || reading.end == End::broken)) {
    // What is not a log at all, such as a link, cannot be copied and goes by its name.
    auto kept = reading.size != 0 ? copy_aside(log_path_, "bad") : move_aside(log_path_, "bad");
    clean = orderly && kept.has_value();
    if (kept && !loaded.quarantined) loaded.quarantined = *kept;
    tell(kept ? "kept as " + *kept : kept.error());
  }
  if (clean && cuts) clean = cut_log(reading.bytes);
  if (!clean) return;  // the next change writes a generation
  on_disk_ = loaded.state;
  // A file that is there and empty is begun anew: open() makes the file of a log without lines.
  if (reading.bytes == 0) ::unlink(log_path_.c_str());
  log_bytes_ = reading.bytes;
  log_lines_ = reading.lines;
  log_last_ = std::move(reading.last);
}

bool Journal::cut_log(std::size_t bytes) const {
  const auto log = config::open_file(log_path_, O_WRONLY);
  if (!log) return log.error().code == ENOENT && bytes == 0;  // set aside by its name
  return ::ftruncate(log->get(), static_cast<off_t>(bytes)) == 0;
}

std::expected<std::string, std::string> Journal::copy_aside(const std::string& path, const char* what) const {
  const auto text = config::read_file(path, kMaxLogBytes);
  if (!text) return std::unexpected(text.error().message);
  const std::string wanted = path + '.' + what + '-' + utc_now();
  for (int i = 1; i <= 100; ++i) {
    const std::string target = i == 1 ? wanted : wanted + '-' + std::to_string(i);
    auto written = write_new(target, *text);
    if (written) return target;
    if (!written.error().second) return std::unexpected(written.error().first);
  }
  return std::unexpected("cannot keep a copy of " + path + ": " + wanted + " and 99 others are there already");
}

// The generation that followed is lost; the log that led to it and the one that goes on from it are not.
void Journal::load_logs_after_previous(config::DesiredState& state, std::string generation) const {
  LogReading reading = apply_log(previous_log_, std::move(generation), state);
  reading = apply_log(log_path_, std::move(reading.last), state);
  if (reading.end != LogReading::End::foreign) return;
  static_cast<void>(apply_log(log_path_, write_content(state).checksum, state));
}

std::expected<void, std::string> Journal::record(const config::DesiredState& state) {
  try {
    if (!loaded_) load_generations();
    if (!on_disk_) return save(state);
    if (*on_disk_ == state) return {};
    if (!append(state)) return save(state);
    // It is on disk already, so a generation that cannot be written is the next change's concern.
    if (log_.bytes() > log_limit_) static_cast<void>(save(state));
    return {};
  } catch (const std::exception& error) {
    on_disk_.reset();
    return std::unexpected(std::string("cannot write the state: ") + error.what());
  }
}

std::expected<void, std::string> Journal::append(const config::DesiredState& state) {
  if (!log_.is_open()) {
    if (auto opened = log_.open(log_path_, log_bytes_, log_last_, log_lines_); !opened) return opened;
    if (auto synced = sync_directory(); log_bytes_ == 0 && !synced) return synced;
  }
  if (auto appended = log_.append(*on_disk_, state); !appended) return appended;
  on_disk_ = state;
  // A mark that cannot be written is behind, which is no lie; the next line tries again.
  promise_ = {generation_, log_.last(), log_.lines(), state.revision};
  static_cast<void>(mark_.write(promise_, false));
  return {};
}

void Journal::rotate_log() {
  log_.close();
  if (::rename(log_path_.c_str(), previous_log_.c_str()) != 0 && errno == ENOENT) ::unlink(previous_log_.c_str());
}

std::expected<void, std::string> Journal::write_copy(const config::DesiredState& state, const std::string& path) const {
  try {
    auto done = write_temporary(write_content(state).text);
    if (done && ::rename(temporary_.c_str(), path.c_str()) != 0) done = std::unexpected(failure("replace", path, errno));
    if (!done) ::unlink(temporary_.c_str());
    return done;
  } catch (const std::exception& error) {
    return std::unexpected("cannot write " + path + ": " + error.what());
  }
}

// A file that is made with its content and synced. The second of an error: there is one of that name already.
std::expected<void, std::pair<std::string, bool>> Journal::write_new(const std::string& path, const std::string& text) const {
  const auto failed = [](std::string why, bool exists = false) { return std::unexpected(std::pair(std::move(why), exists)); };
  const auto file = config::open_file(path, O_WRONLY | O_CREAT | O_EXCL);
  if (!file) return failed(file.error().message, file.error().code == EEXIST || file.error().what == config::FileError::What::file);
  std::size_t written = 0;
  while (written < text.size()) {
    const ssize_t n = ::write(file->get(), text.data() + written, text.size() - written);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return failed(failure("write", path, n < 0 ? errno : EIO));
    written += static_cast<std::size_t>(n);
  }
  if (::fsync(file->get()) != 0) return failed(failure("sync", path, errno));
  return {};
}

std::expected<void, std::string> Journal::write_temporary(const std::string& text) const {
  ::unlink(temporary_.c_str());  // of an engine that was killed, or planted: O_EXCL follows nothing
  if (auto done = write_new(temporary_, text); !done) return std::unexpected(done.error().first);
  return {};
}

// Makes state.json the previous generation as well, or sets it aside if it is not ours to replace.
std::expected<void, std::string> Journal::keep_previous() {
  const auto set_aside = [this](const std::string& path, Found& found) -> std::expected<void, std::string> {
    const auto moved = move_aside(path, found == Found::newer ? "newer" : "bad");
    if (!moved && ::access(path.c_str(), F_OK) == 0) return std::unexpected(moved.error());
    found = Found::absent;
    return {};
  };
  if (current_found_ == Found::absent) return {};
  if (current_found_ != Found::good) return set_aside(path_, current_found_);
  if (previous_found_ != Found::good && previous_found_ != Found::absent) {
    if (auto done = set_aside(previous_, previous_found_); !done) return done;
  }
  // A link first, so that state.json is there at every moment.
  const std::string link = previous_ + ".tmp";
  ::unlink(link.c_str());
  if (::link(path_.c_str(), link.c_str()) == 0) {
    if (::rename(link.c_str(), previous_.c_str()) != 0) {
      const int error = errno;
      ::unlink(link.c_str());
      return std::unexpected(failure("replace", previous_, error));
    }
    // The old and the new name of one file: rename() then does nothing and leaves both.
    ::unlink(link.c_str());
  } else if (errno == EPERM || errno == EOPNOTSUPP || errno == EMLINK) {
    // A file system without links: for a moment only the previous generation is there, which load() knows about.
    if (::rename(path_.c_str(), previous_.c_str()) != 0) return std::unexpected(failure("replace", previous_, errno));
    current_found_ = Found::absent;
  } else if (errno != ENOENT) {  // someone removed state.json under us: there is nothing to keep
    return std::unexpected(failure("link", path_, errno));
  }
  previous_found_ = Found::good;
  return {};
}

std::expected<void, std::string> Journal::sync_directory() const {
  const auto folder = config::open_folder(directory_);
  const config::Descriptor directory(folder ? ::openat(folder->get(), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1);
  if (!directory || ::fsync(directory.get()) != 0) {
    return std::unexpected((folder ? failure("sync", directory_, errno) : folder.error().message) +
                           "; the new state is in place, but a power cut may bring the old one back");
  }
  return {};
}

std::expected<void, std::string> Journal::save(const config::DesiredState& state) {
  try {
    if (!loaded_) load_generations();
    on_disk_.reset();
    auto [text, checksum] = write_content(state);
    if (text.size() > kMaxBytes) {
      return std::unexpected("the state takes " + std::to_string(text.size()) + " bytes on disk; at most " +
                             std::to_string(kMaxBytes) + " are written");
    }
    const bool follows = current_found_ == Found::good;
    // The mark is there before the first generation, which says that there is one; and it accuses no state that begins anew.
    auto done = std::expected<void, std::string>();
    if (promise_.base.empty() || state.revision < promise_.revision) {
      promise_ = {};
      if (done = mark_.write(promise_, true); done) done = sync_directory();
    }
    if (done) done = write_temporary(text);
    if (done) done = keep_previous();
    if (done && ::rename(temporary_.c_str(), path_.c_str()) != 0) {
      done = std::unexpected(failure("replace", path_, errno));
    }
    if (!done) {
      ::unlink(temporary_.c_str());
      return done;
    }
    current_found_ = Found::good;
    rotate_log();
    if (done = sync_directory(); !done) return done;
    // The first generation, and one after a broken one, has none before it that leads to it: a copy stands in, which the log
    // follows as well as it follows the original.
    if (!follows && (previous_found_ == Found::absent || previous_found_ == Found::good) && write_copy(state, previous_)) {
      previous_found_ = Found::good;
      static_cast<void>(sync_directory());
    }
    on_disk_ = state;
    log_bytes_ = 0;
    log_lines_ = 0;
    generation_ = checksum;
    log_last_ = checksum;
    promise_ = {checksum, checksum, 0, state.revision};
    static_cast<void>(mark_.write(promise_, true));
    log_limit_ = std::max(kMinLogBytes, kLogPerState * text.size());
    return {};
  } catch (const std::exception& error) {
    ::unlink(temporary_.c_str());
    return std::unexpected(std::string("cannot write the state: ") + error.what());
  }
}

std::expected<int, std::string> lock_state_directory(const std::string& directory) {
  // Only the last level gets our mode: what lies above is not ours to restrict.
  std::error_code ignored;
  const std::filesystem::path parent = std::filesystem::path(directory).parent_path();
  if (!parent.empty()) std::filesystem::create_directories(parent, ignored);
  if (::mkdir(directory.c_str(), 0750) != 0 && errno != EEXIST) {
    return std::unexpected(failure("create", directory, errno));
  }

  const std::string path = directory + "/lock";
  auto file = config::open_file(path, O_RDWR | O_CREAT);
  if (!file) return std::unexpected(file.error().message);
  while (::flock(file->get(), LOCK_EX | LOCK_NB) != 0) {
    if (errno == EINTR) continue;
    if (errno != EWOULDBLOCK) return std::unexpected(failure("lock", path, errno));
    char pid[16] = {};
    const ssize_t n = ::pread(file->get(), pid, sizeof pid - 1, 0);
    const std::string_view digits(pid, n > 0 ? std::strspn(pid, "0123456789") : 0);
    return std::unexpected("another engine " + (digits.empty() ? "" : "(pid " + std::string(digits) + ") ") +
                           "uses the state directory " + directory +
                           "; stop it, or give this one a directory of its own");
  }
  // For the sentence above, nothing depends on it: on a full disk the lock holds all the same.
  const std::string pid = std::to_string(::getpid()) + '\n';
  if (::ftruncate(file->get(), 0) == 0) [[maybe_unused]]
    const ssize_t n = ::pwrite(file->get(), pid.data(), pid.size(), 0);
  return file->release();
}

}  // namespace trunkline::control
