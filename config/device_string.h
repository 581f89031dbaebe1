// SPDX-License-Identifier: BSD-3-Clause
//
// What is handed to the kernel and to DPDK as text: names of interfaces, paths of sockets, DPDK device strings
// ("net_ring0,nodeaction=...", "0000:00:06.0,large_llq_hdr=1"). A device string is a list, so a comma in one of its values
// is another argument: an interface called "eth0,remote=x" must never get into one. Each kind has a grammar here, and a string
// is put together in one place (DeviceString), which holds each value against it.
//
// The answers of why_not_*() are the rest of a sentence that begins with the value ("has a comma ..."); empty: it is fine.
// Pure functions.
#pragma once

#include <cstddef>
#include <expected>
#include <string>
#include <string_view>

namespace trunkline::config {

inline constexpr std::size_t kMaxSocketPath = 107;  // sockaddr_un has 108 bytes, one of them for the terminator

// Of a network interface: 1 to 15 printable ASCII characters as the kernel has it (dev_valid_name), less those that mean
// something to it (a '%' is a pattern) or to DPDK. "lo", "all" and "default" are no task's.
std::string why_not_interface_name(std::string_view name);

// Of a unix socket: absolute, 2 to 107 bytes, nothing that means something in a device string.
std::string why_not_socket_path(std::string_view path);

enum class DeviceUse {
  trunk,  // from the config file, which is root's word: a PCI address, or a virtual device of any driver
  task,   // from the control socket: a virtual device of a driver, and with arguments, that open no file of the caller's
          // choice, wait for nobody, and are within the bounds that the driver itself does not check
};

std::string why_not_device(std::string_view text, DeviceUse use);

// A device string in the making: the driver's name and number, then its arguments.
class DeviceString {
 public:
  explicit DeviceString(std::string name) : text_(std::move(name)) {}
  DeviceString& flag(std::string_view key);
  DeviceString& with(std::string_view key, std::string_view value);
  // The whole; an error names the value that cannot stand in one.
  std::expected<std::string, std::string> text() const;

 private:
  std::string text_, error_;
};

}  // namespace trunkline::config
