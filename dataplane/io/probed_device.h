// SPDX-License-Identifier: BSD-3-Clause
//
// A device on one of DPDK's buses and the one ethdev that its driver makes of it: made whole or not at all, and taken
// back whole.
//
// Rules:
//   * The EAL says whether a driver took a device, not which ports it made: a driver may make none, or two, or one of
//     another name, or leave ports behind and then fail. The ports that exist are compared before and after. Anything
//     but exactly one port with the device's name is an error.
//   * After an error nothing is left: no port, no device, and no device that a port points to. A virtual device that
//     no driver took leaves the bus as well (driver SDK only; DPDK has no call for it).
//   * A name that a port or a virtual device has is refused, and nothing is touched: the EAL would answer "done" for
//     a device that it has already, and the caller would close what belongs to another.
//
// Control thread, or a thread that it waits for: nobody else probes. Errors are sentences that name the device.
#pragma once

#include <cstdint>
#include <expected>
#include <string>

namespace trunkline {

// "net_tap7,iface=eth0" is on the vdev bus; "0000:00:06.0,..." on PCI.
struct DeviceName {
  std::string bus, name, arguments;

  static DeviceName parse(const std::string& devargs);
};

// The number of its ethdev, which is not configured yet.
std::expected<std::uint16_t, std::string> probe_device(const std::string& devargs);

// Closes the ethdev that probe_device() made, started or not, and takes a virtual device off its bus. A PCI device
// stays bound, and there.
void remove_device(const std::string& devargs, std::uint16_t ethdev);

// Whether a port or a virtual device has this name ("net_tap7", "0000:00:06.0"); probe_device() refuses it then.
bool device_exists(const std::string& name);

}  // namespace trunkline
