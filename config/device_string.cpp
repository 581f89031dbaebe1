// SPDX-License-Identifier: BSD-3-Clause
#include "config/device_string.h"

#include <algorithm>
#include <charconv>
#include <cstdint>
#include <iterator>
#include <optional>
#include <span>

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

enum class ArgumentKind : std::uint8_t { number, word, interface, path, kernel_vhost };

// What a driver takes as an argument of a task. A number is decimal and within its bounds: the drivers compute with it
// unchecked (net_null copies so many bytes into one buffer, net_af_packet subtracts a header from the frame's size).
struct Argument {
  std::string_view key;
  ArgumentKind kind = ArgumentKind::word;
  std::uint64_t least = 0, most = 0;  // of a number
};

struct Driver {
  std::string_view name;
  std::span<const Argument> arguments;
};

constexpr Argument number(std::string_view key, std::uint64_t least, std::uint64_t most) {
  return {key, ArgumentKind::number, least, most};
}
constexpr Argument yes_or_no(std::string_view key) { return number(key, 0, 1); }
constexpr Argument word(std::string_view key) { return {key}; }
constexpr Argument interface_name(std::string_view key) { return {key, ArgumentKind::interface}; }
constexpr Argument path(std::string_view key) { return {key, ArgumentKind::path}; }
// net_virtio_user waits for whoever is behind a socket, without end, and with `server` for somebody to come. A task's
// peer in user space has a port of its own kind, vhost-user.
constexpr Argument kernel_vhost(std::string_view key) { return {key, ArgumentKind::kernel_vhost}; }

// The smallest data_room_bytes (config/engine_config.cpp) without its headroom.
constexpr std::uint64_t kMaxNullPacket = 384;

constexpr Argument kNull[] = {number("size", 64, kMaxNullPacket), yes_or_no("copy"), yes_or_no("no-rx")};
constexpr Argument kRing[] = {word("nodeaction")};
constexpr Argument kMemif[] = {word("role"),
                               number("bsize", 64, 65535),
                               number("rsize", 1, 14),
                               number("id", 0, 4294967295),
                               path("socket"),
                               word("socket-abstract"),
                               word("mac"),
                               word("secret"),
                               word("zero-copy")};
constexpr Argument kVirtioUser[] = {kernel_vhost("path"),    word("mac"),
                                    yes_or_no("cq"),         number("queue_size", 64, 32768),
                                    number("queues", 1, 16), interface_name("iface"),
                                    yes_or_no("mrg_rxbuf"),  yes_or_no("in_order"),
                                    yes_or_no("packed_vq"),  number("speed", 0, 400000),
                                    yes_or_no("vectorized")};
constexpr Argument kAfPacket[] = {interface_name("iface"),        number("qpairs", 1, 16),
                                  yes_or_no("qdisc_bypass"),      number("blocksz", 4096, 4194304),
                                  number("framesz", 2048, 65536), number("framecnt", 1, 32768)};
constexpr Argument kAfXdp[] = {interface_name("iface"),      number("start_queue", 0, 1023),
                               number("queue_count", 1, 64), yes_or_no("shared_umem"),
                               yes_or_no("force_copy"),      number("busy_budget", 0, 65535)};
constexpr Argument kTap[] = {interface_name("iface"), word("mac"), word("persist")};

// What a task may have: no driver and no argument by which a caller could have a file of its choice read or written (net_pcap,
// xdp_prog), or memory (net_ring's "internal" is an address).
constexpr Driver kTaskDrivers[] = {
    {"net_null", kNull},          {"net_ring", kRing},
    {"net_memif", kMemif},        {"net_virtio_user", kVirtioUser},
    {"virtio_user", kVirtioUser}, {"net_af_packet", kAfPacket},
    {"net_af_xdp", kAfXdp},       {"net_tap", kTap},
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

std::string why_not_argument(const Driver& driver, std::string_view key, std::optional<std::string_view> value) {
  const auto argument = std::ranges::find(driver.arguments, key, &Argument::key);
  if (argument == driver.arguments.end()) {
    std::string keys;
    for (const Argument& each : driver.arguments) keys += ' ' + std::string(each.key);
    return "has the argument " + words::in_quotes(key) + ", which a task's " + std::string(driver.name) +
           " may not have; wanted some of:" + keys;
  }
  const std::string wrong =
      "has the argument " + words::in_quotes(key) + (value ? " with " + words::in_quotes(*value) : " without a value");
  std::string why;
  switch (argument->kind) {
    case ArgumentKind::word:
      return {};
    case ArgumentKind::number: {
      std::uint64_t number = 0;
      const bool legible =
          value && !value->empty() &&
          std::from_chars(value->data(), value->data() + value->size(), number).ptr == value->data() + value->size();
      if (legible && number >= argument->least && number <= argument->most) return {};
      return wrong + "; wanted a number from " + std::to_string(argument->least) + " to " +
             std::to_string(argument->most);
    }
    case ArgumentKind::interface:
      why = why_not_interface_name(value.value_or(""));
      break;
    case ArgumentKind::path:
      why = why_not_socket_path(value.value_or(""));
      break;
    case ArgumentKind::kernel_vhost:
      return value == "/dev/vhost-net"
                 ? ""
                 : wrong + "; wanted /dev/vhost-net, or a port of the kind vhost-user for a socket";
  }
  return why.empty() ? why : wrong + ", which " + why;
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
    if (!is_trunk) {
      const std::optional<std::string_view> value =
          equals == std::string_view::npos ? std::nullopt : std::optional(argument.substr(equals + 1));
      if (std::string why = why_not_argument(*driver, key, value); !why.empty()) return why;
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
