// SPDX-License-Identifier: BSD-3-Clause
#include "control/names.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <string_view>

#include "config/safe_file.h"

namespace trunkline::control {
namespace {

constexpr std::size_t kMaxBytes = 16 << 20;  // far above a name for each address of a thousand ENIs
constexpr mode_t kMode = 0644;  // whatever the umask: the DNS server is another user

// What may stand in a hosts file as one name; it came from outside.
bool is_host_name(std::string_view name) {
  if (name.empty() || name.size() > 253) return false;
  std::size_t label = 0;
  for (std::size_t i = 0; i < name.size(); ++i) {
    const char c = name[i];
    if (c == '.') {
      if (label == 0 || name[i - 1] == '-') return false;
      label = 0;
      continue;
    }
    const bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
    if (!letter && (c != '-' || label == 0)) return false;
    if (++label > 63) return false;
  }
  return label != 0 && name.back() != '-';
}

std::string label_of(const IpAddress& address) {
  std::string label = "ip-" + address.to_string();
  std::ranges::replace(label, '.', '-');
  return label;
}

std::string full_name(const std::string& label, const std::string& region) {
  return label + (region == "us-east-1" ? ".ec2.internal" : "." + region + ".compute.internal");
}

std::string why(const char* what, const std::string& path) { return std::string(what) + " " + path + ": " + std::strerror(errno); }

bool write_all(int file, std::string_view text) {
  while (!text.empty()) {
    const ssize_t count = ::write(file, text.data(), text.size());
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) return false;
    text.remove_prefix(static_cast<std::size_t>(count));
  }
  return true;
}

// Empty: it is done.
std::string replace_file(const std::string& path, std::string_view text) {
  const std::filesystem::path target(path);
  const std::string aside = (target.parent_path() / ("." + target.filename().string() + ".new")).string();
  ::unlink(aside.c_str());  // of an engine that was killed
  const auto file = config::open_file(aside, O_WRONLY | O_CREAT | O_EXCL, kMode);
  if (!file) return "cannot write " + path + ": " + file.error().message;
  const bool written = write_all(file->get(), text) && ::fchmod(file->get(), kMode) == 0;
  std::string trouble = written ? "" : why("cannot write", aside);
  if (trouble.empty() && ::rename(aside.c_str(), path.c_str()) != 0) trouble = why("cannot replace", path);
  if (!trouble.empty()) ::unlink(aside.c_str());
  return trouble;
}

}  // namespace

std::string hosts_text(const ActiveAttachments& active, const std::string& region) {
  std::string text = "# Written by trunklined; what is changed here is lost.\n";
  for (const auto& [eni, attachment] : active) {
    bool is_primary = true;
    for (const IpAddress& address : attachment.addresses) {
      if (!address.is_v4()) continue;
      const std::string label = label_of(address), &own = attachment.private_dns_name;
      std::string name = region.empty() ? "" : full_name(label, region);
      if (is_primary && is_host_name(own)) name = own;
      is_primary = false;
      text += address.to_string() + " " + (name.empty() || name == label ? "" : name + " ") + label + "\n";
    }
  }
  return text;
}

bool Names::write(const ActiveAttachments& active) {
  if (config_.hosts_file.empty()) return true;
  std::string text = hosts_text(active, config_.region);
  if (!written_) {
    if (auto before = config::read_file(config_.hosts_file, kMaxBytes)) written_ = std::move(*before);
  }
  if (written_ == text) {
    trouble_.clear();
    return true;
  }
  trouble_ = replace_file(config_.hosts_file, text);
  if (trouble_.empty()) written_ = std::move(text);
  return trouble_.empty();
}

}  // namespace trunkline::control
