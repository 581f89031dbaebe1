// SPDX-License-Identifier: BSD-3-Clause
#include "dataplane/io/probed_device.h"

#if __has_include(<ethdev_driver.h>)
// Drivers may use what DPDK promises to nobody else.
#define ALLOW_INTERNAL_API
#define ALLOW_EXPERIMENTAL_API
#include <bus_vdev_driver.h>
#include <ethdev_driver.h>
#define TRUNKLINE_DRIVER_SDK
#endif
#include <rte_bus.h>
#include <rte_dev.h>
#include <rte_errno.h>
#include <rte_ethdev.h>

#include <algorithm>
#include <bitset>
#include <cctype>
#include <cstring>
#include <vector>

namespace trunkline {
namespace {

using Ports = std::bitset<RTE_MAX_ETHPORTS>;

// Ports that can be used, and with the driver SDK also those that have a name only: a driver that fails half-way may
// leave one.
Ports existing_ports() {
  Ports ports;
  for (std::uint16_t port = 0; port < RTE_MAX_ETHPORTS; ++port) {
    if (rte_eth_dev_is_valid_port(port)) ports.set(port);
#ifdef TRUNKLINE_DRIVER_SDK
    const rte_eth_dev_data* data = rte_eth_devices[port].data;
    if (data != nullptr && data->name[0] != '\0') ports.set(port);
#endif
  }
  return ports;
}

std::string port_name(std::uint16_t port) {
  char name[RTE_ETH_NAME_MAX_LEN] = {};
  return rte_eth_dev_get_name_by_port(port, name) == 0 ? name : "";
}

void close_port(std::uint16_t port) {
  if (rte_eth_dev_is_valid_port(port)) {
#ifdef TRUNKLINE_DRIVER_SDK
    rte_eth_dev_data& data = *rte_eth_devices[port].data;
    if (data.dev_started != 0) (void)rte_eth_dev_stop(port);
    data.dev_started = 0;  // a port whose driver cannot stop it would not be closed
#else
    (void)rte_eth_dev_stop(port);
#endif
    (void)rte_eth_dev_close(port);
  }
#ifdef TRUNKLINE_DRIVER_SDK
  rte_eth_dev& device = rte_eth_devices[port];
  if (device.data != nullptr && device.data->name[0] != '\0') rte_eth_dev_release_port(&device);
#endif
}

rte_device* find_on_bus(const DeviceName& wanted) {
  const std::string all = "bus=" + wanted.bus;
  rte_dev_iterator iterator{};
  rte_device* device = nullptr;
  RTE_DEV_FOREACH(device, all.c_str(), &iterator) {
    if (wanted.name == rte_dev_name(device)) return device;
  }
  return nullptr;
}

#ifdef TRUNKLINE_DRIVER_SDK
// The driver of a device that no driver took: the bus gives up only what has one.
int let_go(rte_vdev_device*) { return 0; }
rte_vdev_driver no_driver = [] {
  rte_vdev_driver made{};
  made.driver.name = "none";
  made.remove = let_go;
  return made;
}();
#endif

// PCI devices stay: they are there whether we use them or not.
void remove_from_bus(const DeviceName& wanted) {
  if (wanted.bus != "vdev") return;
  rte_device* device = find_on_bus(wanted);
  if (device == nullptr) return;
#ifdef TRUNKLINE_DRIVER_SDK
  if (!rte_dev_is_probed(device)) device->driver = &no_driver.driver;
#endif
  (void)rte_eal_hotplug_remove(wanted.bus.c_str(), wanted.name.c_str());
}

// Ports first: their drivers may look at the device.
void take_back(const Ports& made, const DeviceName& device) {
  for (std::uint16_t port = 0; port < RTE_MAX_ETHPORTS; ++port) {
    if (made[port]) close_port(port);
  }
  remove_from_bus(device);
}

// What the EAL and drivers make of a name: it ends at a comma, and is cut where it is too long.
bool is_device_name(const std::string& name) {
  return !name.empty() && name.size() < RTE_DEV_NAME_MAX_LEN && std::ranges::all_of(name, [](unsigned char each) {
    return std::isalnum(each) != 0 || std::strchr("_-.:@", each) != nullptr;
  });
}

}  // namespace

DeviceName DeviceName::parse(const std::string& devargs) {
  DeviceName device;
  const std::size_t comma = devargs.find(',');
  device.name = devargs.substr(0, comma);
  if (comma != std::string::npos) device.arguments = devargs.substr(comma + 1);
  device.bus = device.name.find(':') != std::string::npos ? "pci" : "vdev";
  return device;
}

bool device_exists(const std::string& device) {
  std::uint16_t port = 0;
  if (rte_eth_dev_get_port_by_name(device.c_str(), &port) == 0) return true;
  const DeviceName wanted = DeviceName::parse(device);
  if (wanted.bus != "vdev") return false;
  const rte_device* found = find_on_bus(wanted);
  return found != nullptr && rte_dev_is_probed(found) != 0;
}

std::expected<std::uint16_t, std::string> probe_device(const std::string& devargs) {
  const DeviceName device = DeviceName::parse(devargs);
  const auto refuse = [&](const std::string& why) { return std::unexpected(device.name + ": " + why); };
  if (!is_device_name(device.name)) {
    return refuse("not a device's name: up to " + std::to_string(RTE_DEV_NAME_MAX_LEN - 1) +
                  " letters, digits and _-.:@");
  }
  if (devargs.find('\0') != std::string::npos) return refuse("a NUL byte in its arguments");
  // It is an address in the memory of whoever asks, and is followed unseen.
  const bool is_ring = device.name.starts_with("net_ring") || device.name.starts_with("eth_ring");
  if (is_ring && device.arguments.find("internal") != std::string::npos) {
    return refuse("the argument \"internal\" is for programs that make rings themselves; leave it out");
  }
  if (device_exists(device.name)) {
    return refuse("a port of this name is open already; give the device another name or number");
  }
  const Ports before = existing_ports();
  const int result = rte_eal_hotplug_add(device.bus.c_str(), device.name.c_str(), device.arguments.c_str());
  const Ports made = existing_ports() & ~before;
  std::string wrong;
  if (result < 0) {
    wrong = std::string("no such device, or its driver refused it: ") + rte_strerror(-result);
  } else if (made.none()) {
    wrong = "the driver made no port";
    if (device.bus == "pci") wrong += "; a PCI device can be opened once in an engine's life";
  } else if (made.count() > 1) {
    wrong = "the driver made " + std::to_string(made.count()) + " ports, and an ENI has one";
  }
  std::uint16_t port = 0;
  while (port < RTE_MAX_ETHPORTS && !made[port]) ++port;
  if (wrong.empty() && !rte_eth_dev_is_valid_port(port)) wrong = "the driver made half a port";
  if (wrong.empty() && port_name(port) != device.name) {
    wrong = "the driver made a port called " + port_name(port) + "; use arguments that leave it the device's name";
  }
  if (wrong.empty()) return port;
  take_back(made, device);
  return refuse(wrong);
}

void remove_device(const std::string& devargs, std::uint16_t ethdev) {
  take_back(Ports{}.set(ethdev), DeviceName::parse(devargs));
}

}  // namespace trunkline
