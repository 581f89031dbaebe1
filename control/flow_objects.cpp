// SPDX-License-Identifier: BSD-3-Clause
#include "control/flow_objects.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <ctime>

#include "config/safe_file.h"
#include "control/gzip_file.h"

namespace trunkline::control {
namespace {

constexpr mode_t kFolderMode = 0750;
constexpr std::string_view kSuffix = ".log.gz";
constexpr std::string_view kRecovered = ".recovered";  // a leftover that is being written anew

std::string failed(const std::string& what, const std::string& path) { return "cannot " + what + " " + path + ": " + std::strerror(errno); }

std::tm utc(std::int64_t unix_seconds) {
  const auto time = static_cast<std::time_t>(unix_seconds);
  std::tm parts{};
  ::gmtime_r(&time, &parts);
  return parts;
}

std::string formatted(const char* format, const std::tm& parts) {
  char text[128];
  return {text, std::strftime(text, sizeof text, format, &parts)};
}

std::string random_hash() {
  std::uint32_t bits = 0;
  if (::getrandom(&bits, sizeof bits, 0) != sizeof bits) {
    static std::uint32_t counter = 0;
    bits = static_cast<std::uint32_t>(std::time(nullptr)) * 2654435761U + ++counter;
  }
  char text[9];
  std::snprintf(text, sizeof text, "%08x", bits);
  return text;
}

bool is_there(const std::string& path) {
  struct stat status {};
  return ::lstat(path.c_str(), &status) == 0;
}

// The slot in "..._20180620T1620Z_fe123456.log.gz"; -1: there is none.
std::int64_t slot_of(std::string_view name) {
  constexpr std::string_view kLike = "YYYYMMDDThhmmZ_xxxxxxxx.log.gz";
  if (name.size() < kLike.size()) return -1;
  std::tm parts{};
  const std::string text(name.substr(name.size() - kLike.size(), 14));
  const char* end = ::strptime(text.c_str(), "%Y%m%dT%H%MZ", &parts);
  return end != nullptr && *end == '\0' ? static_cast<std::int64_t>(::timegm(&parts)) : -1;
}

}  // namespace

class FlowObjects::Object {
 public:
  Object(std::int64_t slot_of_it, std::string file_name, std::unique_ptr<GzipFile> opened)
      : slot(slot_of_it), name(std::move(file_name)), file(std::move(opened)) {}
  std::int64_t slot;
  std::string name;
  std::unique_ptr<GzipFile> file;
  std::uint64_t lines = 0;
};

FlowObjects::FlowObjects(const config::FlowLog& log, const config::Identity& identity, std::uint64_t max_object_bytes)
    : path_(log.destination.path),
      unfinished_(path_ + "/.unfinished"),
      base_((log.destination.prefix.empty() ? "" : log.destination.prefix + "/") + "AWSLogs/" +
            (log.destination.hive_compatible_partitions
                 ? "aws-account-id=" + identity.account_id + "/aws-service=vpcflowlogs/aws-region=" + identity.region
                 : identity.account_id + "/vpcflowlogs/" + identity.region) +
            "/"),
      name_start_(identity.account_id + "_vpcflowlogs_" + identity.region + "_" + log.id + "_"),
      header_(log.format.header() + "\n"),
      hive_(log.destination.hive_compatible_partitions),
      per_hour_(log.destination.per_hour_partition),
      max_object_bytes_(max_object_bytes) {}

FlowObjects::~FlowObjects() = default;

std::string FlowObjects::file_name(std::int64_t slot) const {
  return name_start_ + formatted("%Y%m%dT%H%MZ_", utc(slot)) + random_hash() + std::string(kSuffix);
}

std::string FlowObjects::folder_of(std::int64_t slot) const {
  const std::tm parts = utc(slot);
  std::string folder = base_ + formatted(hive_ ? "year=%Y/month=%m/day=%d/" : "%Y/%m/%d/", parts);
  if (per_hour_) folder += formatted(hive_ ? "hour=%H/" : "%H/", parts);
  return folder;
}

std::string FlowObjects::make_folders(const std::string& relative) const {
  for (std::size_t end = relative.find('/'); end != std::string::npos; end = relative.find('/', end + 1)) {
    const std::string folder = path_ + "/" + relative.substr(0, end);
    if (::mkdir(folder.c_str(), kFolderMode) != 0 && errno != EEXIST) return failed("make the folder", folder);
  }
  // What is there already may be a link, or somebody else's.
  const auto made = config::open_folder(path_ + "/" + relative.substr(0, relative.rfind('/')));
  return made ? std::string() : made.error().message;
}

FlowSink::Written FlowObjects::write(std::int64_t slot, std::span<const std::string> lines) {
  drop_vanished();
  auto found = std::ranges::find_if(objects_, [&](const auto& object) { return object->slot == slot && !object->file->is_sealed(); });
  if (found == objects_.end()) {
    if (objects_.size() >= kMaxOpen) objects_.erase(objects_.begin());  // adopted at the next start
    if (::mkdir(unfinished_.c_str(), kFolderMode) != 0 && errno != EEXIST) return {0, failed("make the folder", unfinished_)};
    std::string name = file_name(slot);
    auto file = GzipFile::create(unfinished_ + "/" + name);
    if (!file) return {0, std::move(file.error())};
    objects_.push_back(std::make_unique<Object>(slot, std::move(name), std::move(*file)));
    found = objects_.end() - 1;
  }
  Object& object = **found;
  std::string text = object.lines == 0 ? header_ : std::string();
  for (const std::string& line : lines) text += line;
  if (std::string error = object.file->append(text); !error.empty()) {
    if (object.lines == 0) {
      ::unlink(object.file->path().c_str());
      objects_.erase(found);
    }
    return {0, std::move(error)};
  }
  object.lines += lines.size();
  if (object.file->bytes() < max_object_bytes_) return {lines.size(), {}};
  std::string error = complete(object);
  if (error.empty()) objects_.erase(found);
  return {lines.size(), std::move(error)};
}

std::string FlowObjects::finish(std::int64_t slots_before) {
  drop_vanished();
  std::string first_error;
  std::erase_if(objects_, [&](const auto& object) {
    if (object->slot >= slots_before && !object->file->is_sealed()) return false;
    std::string error = complete(*object);
    if (error.empty()) return true;
    if (first_error.empty()) first_error = std::move(error);
    return false;
  });
  return first_error;
}

std::string FlowObjects::complete(Object& object) {
  if (std::string error = object.file->seal(); !error.empty()) return error;
  return publish(object.file->path(), object.name, object.slot);
}

std::string FlowObjects::publish(const std::string& from, const std::string& name, std::int64_t slot) {
  const std::string folder = folder_of(slot);
  if (std::string error = make_folders(folder); !error.empty()) return error;
  std::string to = path_ + "/" + folder + name;
  while (is_there(to)) to = path_ + "/" + folder + file_name(slot);
  if (::rename(from.c_str(), to.c_str()) != 0) return failed("rename " + from + " to", to);
  ++files_;
  return {};
}

// Somebody removed the folder, or what was in it: a file without a name takes lines and shows them to nobody.
void FlowObjects::drop_vanished() {
  std::erase_if(objects_, [&](const auto& object) {
    if (!object->file->has_vanished()) return false;
    vanished_ += object->lines;
    return true;
  });
}

std::uint64_t FlowObjects::take_vanished() { return std::exchange(vanished_, 0); }

// --- after a crash ---------------------------------------------------------------------------------------------------

std::vector<std::string> FlowObjects::adopt_leftovers() {
  std::vector<std::string> notes, names;
  const auto checked = config::open_folder(unfinished_);
  if (!checked) {
    if (checked.error().code != ENOENT) notes.push_back(checked.error().message);
    return notes;
  }
  const int descriptor = ::openat(checked->get(), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  DIR* folder = descriptor < 0 ? nullptr : ::fdopendir(descriptor);
  if (folder == nullptr) {
    notes.push_back(failed("read", unfinished_));
    if (descriptor >= 0) ::close(descriptor);
    return notes;
  }
  while (const dirent* entry = ::readdir(folder)) {
    const std::string name = entry->d_name;
    if (name.starts_with(name_start_)) names.push_back(name);
  }
  ::closedir(folder);
  std::ranges::sort(names);
  for (const std::string& name : names) {
    if (name.ends_with(kRecovered)) {
      ::unlink((unfinished_ + "/" + name).c_str());  // the original of it is still there
    } else if (slot_of(name) >= 0) {
      if (std::string error = adopt(name); !error.empty()) notes.push_back(std::move(error));
    }
  }
  return notes;
}

// What can be read of it, up to the last whole line, becomes an object.
std::string FlowObjects::adopt(const std::string& name) {
  const std::string path = unfinished_ + "/" + name;
  auto file = config::open_file(path, O_RDONLY);
  if (!file) return std::move(file.error().message);
  const std::unique_ptr<gzFile_s, int (*)(gzFile)> in(::gzdopen(file->get(), "rb"), gzclose_r);
  if (!in) return failed("read", path);
  static_cast<void>(file->release());  // it is closed with `in`
  const std::string copy_path = path + std::string(kRecovered);
  ::unlink(copy_path.c_str());
  auto copy = GzipFile::create(copy_path);
  if (!copy) return std::move(copy.error());
  std::string rest, block(std::size_t{256} << 10, '\0');
  std::uint64_t newlines = 0;
  std::string error;
  for (int got = 0; error.empty() && (got = gzread(in.get(), block.data(), static_cast<unsigned>(block.size()))) > 0;) {
    rest.append(block, 0, static_cast<std::size_t>(got));
    const std::size_t end = rest.rfind('\n') + 1;
    newlines += static_cast<std::uint64_t>(std::count(rest.begin(), rest.begin() + static_cast<std::ptrdiff_t>(end), '\n'));
    error = (*copy)->append(std::string_view(rest).substr(0, end));
    rest.erase(0, end);
  }
  // One line alone is the header.
  if (error.empty() && newlines > 1) {
    error = (*copy)->seal();
    if (error.empty()) error = publish(copy_path, name, slot_of(name));
  }
  ::unlink(error.empty() ? path.c_str() : copy_path.c_str());
  if (error.empty() && newlines <= 1) ::unlink(copy_path.c_str());
  return error;
}

}  // namespace trunkline::control
