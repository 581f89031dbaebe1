// SPDX-License-Identifier: BSD-3-Clause
#include "config/device_string.h"

#include <algorithm>
#include <iterator>

#include "config/words.h"

namespace trunkline::config {
namespace {

constexpr std::size_t kMaxInterfaceName = 15;  // IFNAMSIZ less the terminator
constexpr std::size_t kMaxDeviceName = 63;     // RTE_DEV_NAME_MAX_LEN less the terminator
constexpr std::size_t kMaxDeviceString = 1023;

bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_hex(char c) { return is_digit(c) || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F'); }
bool is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }

// What the readers of device strings (rte_kvargs, rte_devargs) and of shell-like lists take for more than itself.
constexpr std::string_view kSpecial = ",=[]()\"'\\;";
bool is_special(char c) { return kSpecial.find(c) != std::string_view::npos; }
bool is_blank_or_control(char c) { return static_cast<unsigned char>(c) <= ' ' || c == 0x7f; }

struct Driver {
  std::string_view name;
  std::string_view keys;  // " key key "
};

// What a task may have: no driver and no argument by which a caller could have a file of its choice read or written (net_pcap,
// xdp_prog), or memory (net_ring's "internal" is an address).
constexpr Driver kTaskDrivers[] = {
    {"net_null", " size copy no-rx "},
    {"net_ring", " nodeaction "},
    {"net_memif", " role bsize rsize id socket socket-abstract mac secret zero-copy "},
    {"net_virtio_user", " path mac cq queue_size queues iface server mrg_rxbuf in_order packed_vq speed vectorized "},
    {"virtio_user", " path mac cq queue_size queues iface server mrg_rxbuf in_order packed_vq speed vectorized "},
    {"net_af_packet", " iface qpairs qdisc_bypass blocksz framesz framecnt "},
    {"net_af_xdp", " iface start_queue queue_count shared_umem force_copy busy_budget "},
    {"net_tap", " iface mac persist "},
};

// DPDK finds a driver by the beginning of the device's name.
const Driver* driver_of(std::string_view name) {
  const auto* const found = std::ranges::find_if(kTaskDrivers, [&](const Driver& driver) { return name.starts_with(driver.name); });
  return found == std::end(kTaskDrivers) ? nullptr : found;
}

std::string task_drivers() {
  std::string list;
  for (const Driver& driver : kTaskDrivers) list += (list.empty() ? "" : ", ") + std::string(driver.name);
  return list;
}

// "0000:00:06.0" or "00:06.0".
bool is_pci_address(std::string_view text) {
  std::size_t colons = 0, digits = 0;
  std::size_t i = 0;
  for (; i < text.size() && text[i] != '.'; ++i) {
    if (text[i] == ':') {
      if (digits == 0 || digits > 8) return false;
      ++colons;
      digits = 0;
    } else if (is_hex(text[i])) {
      ++digits;
    } else {
      return false;
    }
  }
  return (colons == 1 || colons == 2) && digits == 2 && i + 2 == text.size() && text[i + 1] >= '0' && text[i + 1] <= '7';
}

// A comma within brackets does not end a value: "representor=[0,2-3]".
std::size_t end_of_argument(std::string_view text, std::size_t from) {
  bool in_list = false;
  for (std::size_t i = from; i < text.size(); ++i) {
    if (text[i] == '[') in_list = true;
    if (text[i] == ']') in_list = false;
    if (text[i] == ',' && !in_list) return i;
  }
  return text.size();
}

bool is_value(std::string_view value, bool lists) {
  bool in_list = false;
  for (const char c : value) {
    if (is_blank_or_control(c)) return false;
    if (lists && c == '[' && !in_list) {
      in_list = true;
    } else if (lists && c == ']' && in_list) {
      in_list = false;
    } else if (in_list ? !(is_digit(c) || is_letter(c) || c == ',' || c == '-') : is_special(c)) {
      return false;
    }
  }
  return !in_list;
}

bool is_key(std::string_view key) {
  return !key.empty() && std::ranges::all_of(key, [](char c) { return is_digit(c) || is_letter(c) || c == '-' || c == '_'; });
}

}  // namespace

std::string why_not_interface_name(std::string_view name) {
  if (name.empty() || name.size() > kMaxInterfaceName) return "has " + std::to_string(name.size()) + " characters; wanted 1 to 15, as Linux has it";
  const auto is_bad = [](char c) { return c <= ' ' || c > '~' || c == '/' || c == ':' || c == '%' || is_special(c); };
  if (std::ranges::any_of(name, is_bad)) {
    return "has a character that an interface's name may not have here; wanted printable ASCII without blanks and without /:%,=;()[]\"'\\";
  }
  if (name == "." || name == "..") return "is a folder's name, which Linux gives to no interface";
  if (name == "lo" || name == "all" || name == "default") return "cannot be a task's interface: the kernel has it for something else";
  return {};
}

std::string why_not_socket_path(std::string_view path) {
  if (path.size() < 2 || path.size() > kMaxSocketPath) {
    return "has " + std::to_string(path.size()) + " bytes; wanted the path of a unix socket, 2 to " + std::to_string(kMaxSocketPath) + " bytes";
  }
  if (path.front() != '/') return "does not begin with a '/'; wanted an absolute path";
  if (path.back() == '/') return "ends with a '/', so it is a folder; wanted the path of a unix socket";
  if (std::ranges::any_of(path, [](char c) { return is_blank_or_control(c) || is_special(c); })) {
    return "has a blank, a control character or one of ,=;()[]\"'\\, which would mean something else to DPDK; wanted a path without them";
  }
  return {};
}

std::string why_not_device(std::string_view text, DeviceUse use) {
  const bool is_trunk = use == DeviceUse::trunk;
  const std::string_view name = text.substr(0, text.find(','));
  if (name.empty()) return "has no device's name before the first comma; wanted a DPDK device string such as \"net_ring0\"";
  if (text.size() > kMaxDeviceString) return "has " + std::to_string(text.size()) + " bytes; wanted at most " + std::to_string(kMaxDeviceString);
  const Driver* driver = driver_of(name);
  const bool is_pci = is_trunk && is_pci_address(name);
  if (!is_pci) {
    const bool legible = std::ranges::all_of(name, [](char c) { return is_digit(c) || is_letter(c) || c == '_'; });
    if (!legible || name.size() > kMaxDeviceName || (!is_trunk && driver == nullptr)) {
      return is_trunk ? "is neither a PCI address such as \"0000:00:06.0\" nor a virtual device such as \"net_af_packet0,iface=trunk0\""
                      : "is not a device that a task may have; wanted the name of one of these drivers with a number, letters or _ behind it: " + task_drivers();
    }
  }
  for (std::size_t from = name.size(); from < text.size();) {
    const std::size_t end = is_trunk ? end_of_argument(text, from + 1) : std::min(text.find(',', from + 1), text.size());
    const std::string_view argument = text.substr(from + 1, end - from - 1);
    const std::size_t equals = argument.find('=');
    const std::string_view key = argument.substr(0, equals);
    if (!is_key(key)) return "has the argument " + words::in_quotes(argument) + "; wanted KEY or KEY=VALUE, the key of letters, digits, '-' and '_'";
    if (equals != std::string_view::npos && !is_value(argument.substr(equals + 1), is_trunk)) {
      return "has the argument " + words::in_quotes(argument) + ", whose value has a blank, a control character or one of ,=;()[]\"'\\";
    }
    if (!is_trunk && driver->keys.find(" " + std::string(key) + " ") == std::string_view::npos) {
      return "has the argument " + words::in_quotes(key) + ", which a task's " + std::string(driver->name) + " may not have; wanted some of:" +
             std::string(driver->keys.substr(0, driver->keys.size() - 1));
    }
    from = end;
  }
  return {};
}

DeviceString& DeviceString::flag(std::string_view key) {
  text_ += ',' + std::string(key);
  return *this;
}

DeviceString& DeviceString::with(std::string_view key, std::string_view value) {
  if (!is_value(value, false) && error_.empty()) error_ = std::string(key) + " is " + words::in_quotes(value) + ", which cannot stand in a device string";
  text_ += ',' + std::string(key) + '=' + std::string(value);
  return *this;
}

std::expected<std::string, std::string> DeviceString::text() const {
  if (!error_.empty()) return std::unexpected(error_);
  return text_;
}

}  // namespace trunkline::config
