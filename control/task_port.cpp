// SPDX-License-Identifier: BSD-3-Clause
#include "control/task_port.h"

#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <filesystem>

#include "config/device_string.h"
#include "config/safe_file.h"
#include "control/reconcile.h"
#include "control/task_interface.h"
#include "dataplane/io/tap_driver.h"

namespace trunkline::control {
namespace {

// net_tap's receive "descriptors" are the buffers of one frame's chain, not the depth of a queue; our driver lays out what it needs.
constexpr std::uint16_t kTapDescriptors = 32;

struct OpenedPort final : TaskPort {
  std::unique_ptr<Port> port;
  std::optional<NetworkNamespace> netns;  // where the interface is; kept, because its name may be gone at detach
  std::string ifname;
  std::string tag;
  MacAddress mac;
  std::string left;

  std::uint16_t ethdev() const override { return port->ethdev(); }
  bool link_up() const override { return port->link_up(); }
  WakeSource wake() const override { return port->wake(); }
  SendOffloads offloads() const override { return port->send_offloads(); }
  std::vector<Capability> capabilities() const override { return port->capabilities(); }
  void remove_with_interface() override {
    if (port == nullptr) return;
    const config::Descriptor queue(netns ? duplicate_tap_descriptor(port->ethdev()) : -1);
    port.reset();
    if (!netns) return;
    if (queue) {
      if (auto removed = remove_attached_tap(queue.get()); !removed) left = removed.error().message;
    }
    // What has our mark beside it, and whether the name is free for the next one.
    if (auto removed = remove_task_interface(*netns, ifname, tag, mac); !removed) left += (left.empty() ? "" : "; ") + removed.error().message;
  }
  std::string left_behind() const override { return left; }
};

config::Problem problem(std::string name, std::string message) { return {std::move(name), "/port", std::move(message)}; }

config::Problem from(const InterfaceError& error) {
  switch (error.kind) {
    case InterfaceError::Kind::netns_missing: return {"netns_missing", "/port/netns", error.message};
    case InterfaceError::Kind::interface_exists: return {"interface_exists", "/port/ifname", error.message};
    default: return problem("port_failed", error.message);
  }
}

TaskInterface interface_of(const config::Attachment& attachment, const config::Subnet& subnet, bool vnet_hdr) {
  TaskInterface wanted;
  wanted.name = attachment.port->ifname;
  wanted.mac = *attachment.mac;
  wanted.mtu = attachment.port->mtu;
  wanted.default_route = attachment.port->default_route;
  wanted.vnet_hdr = vnet_hdr;
  bool ipv4 = false, ipv6 = false;
  for (const IpAddress& address : attachment.addresses) {
    const std::optional<IpPrefix>& range = address.is_v4() ? subnet.cidr : subnet.ipv6_cidr;
    const std::uint8_t length = range ? range->length : std::uint8_t{64};
    wanted.addresses.push_back({address, length});
    (address.is_v4() ? ipv4 : ipv6) = true;
  }
  if (const auto router = subnet.router(); ipv4 && router) wanted.gateways.push_back(*router);
  if (const auto router = subnet.router6(); ipv6 && router) wanted.gateways.push_back(*router);
  return wanted;
}

class Opener {
 public:
  Opener(rte_mempool& pool, const config::EngineConfig& config) : pool_(pool), config_(config) {}

  std::expected<std::unique_ptr<TaskPort>, config::Problem> operator()(const config::Attachment& attachment,
                                                                       const config::Subnet& subnet) {
    if (ports_in_use() >= max_ports()) {
      return std::unexpected(problem("port_limit", "this build of DPDK has " + std::to_string(max_ports()) +
                                                       " ports and all are in use; detach a task, or build with a higher max_ethports"));
    }
    const config::PortSpec& spec = *attachment.port;
    switch (spec.kind) {
      case config::PortKind::tap: return open_in_namespace(attachment, subnet, false);
      case config::PortKind::virtio_user: {
        // Without the device the driver would take the path for a vhost-user socket and complain about that.
        struct stat info {};
        if (stat("/dev/vhost-net", &info) != 0 || !S_ISCHR(info.st_mode)) {
          return std::unexpected(config::Problem{
              "vhost_net_missing", "/port/kind",
              "there is no /dev/vhost-net on this host, which a virtio-user port needs; load the module vhost_net "
              "(modprobe vhost_net), or ask for a tap port"});
        }
        // The driver's own words would be that it refused the device.
        if (euidaccess("/dev/vhost-net", R_OK | W_OK) != 0) {
          return std::unexpected(config::Problem{
              "port_failed", "/port/kind",
              "the engine's user may not open /dev/vhost-net; put it into the device's group (kvm on Debian) and start "
              "the engine again, or ask for a tap port"});
        }
        return open_in_namespace(attachment, subnet, true);
      }
      case config::PortKind::vhost_user: return open_vhost_user(spec);
      case config::PortKind::vdev: return open_device(spec.devargs, spec, config_.buffers.rx_descriptors);
    }
    return std::unexpected(problem("port_failed", "unknown kind of port"));
  }

 private:
  // The trunk, and ports of devargs, have the names that an operator gave them.
  std::string next_name(const char* driver) {
    std::string name;
    do name = driver + std::to_string(next_number_++);
    while (is_open(name));
    return name;
  }

  std::expected<std::unique_ptr<TaskPort>, config::Problem> open_device(const std::string& devargs,
                                                                        const config::PortSpec& spec,
                                                                        std::uint16_t rx_descriptors) {
    PortSettings settings{devargs, spec.mtu, rx_descriptors, config_.buffers.tx_descriptors, false, 1, spec.offloads};
    auto port = Port::open(settings, pool_);
    if (!port) return std::unexpected(problem("port_failed", port.error()));
    auto opened = std::make_unique<OpenedPort>();
    opened->port = std::move(*port);
    return opened;
  }

  std::expected<std::unique_ptr<TaskPort>, config::Problem> open_vhost_user(const config::PortSpec& spec) {
    std::error_code ignored;
    const auto directory = std::filesystem::path(spec.socket).parent_path();
    if (!std::filesystem::is_directory(directory, ignored)) {
      return std::unexpected(config::Problem{"port_failed", "/port/socket",
                                             "the directory " + directory.string() + " does not exist; make it, with the task's rights"});
    }
    const auto devargs = config::DeviceString(next_name("net_vhost")).with("iface", spec.socket).with("queues", "1")
                             .with("client", spec.client ? "1" : "0").text();
    if (!devargs) return std::unexpected(config::Problem{"port_failed", "/port/socket", devargs.error()});
    return open_device(*devargs, spec, config_.buffers.rx_descriptors);
  }

  std::expected<std::string, std::string> device_of(const config::PortSpec& spec, const std::string& mac, bool virtio, bool ours) {
    if (ours) return config::DeviceString(next_name(kTapDriver)).with("iface", spec.ifname).text();
    if (!virtio) return config::DeviceString(next_name("net_tap")).flag("persist").with("iface", spec.ifname).with("mac", mac).text();
    return config::DeviceString(next_name("virtio_user")).with("path", "/dev/vhost-net").with("queues", "1").with("queue_size", "1024")
        .with("iface", spec.ifname).with("mac", mac).text();
  }

  std::expected<std::unique_ptr<TaskPort>, config::Problem> open_in_namespace(const config::Attachment& attachment,
                                                                              const config::Subnet& subnet,
                                                                              bool virtio) {
    const config::PortSpec& spec = *attachment.port;
    const bool ours = !virtio && has_tap_driver();
    const TaskInterface wanted = interface_of(attachment, subnet, virtio || ours);
    const auto devargs = device_of(spec, attachment.mac->to_string(), virtio, ours);
    if (!devargs) return std::unexpected(config::Problem{"port_failed", "/port/ifname", devargs.error()});
    auto netns = NetworkNamespace::open(spec.netns);
    if (!netns) return std::unexpected(from(netns.error()));
    const bool existed = task_interface_exists(*netns, spec.ifname);
    if (auto made = ensure_task_interface(*netns, wanted, attachment.eni_id); !made) {
      return std::unexpected(from(made.error()));
    }
    PortSettings settings{*devargs, spec.mtu, virtio ? config_.buffers.rx_descriptors : kTapDescriptors,
                          config_.buffers.tx_descriptors, false, 1, spec.offloads};
    // The driver opens /dev/net/tun, and a tap belongs to the namespace of whoever opens it.
    std::expected<std::unique_ptr<Port>, std::string> port = std::unexpected("not opened");
    auto entered = netns->run([&] { port = Port::open(settings, pool_); });
    if (!entered || !port) {
      if (!existed) (void)remove_task_interface(*netns, spec.ifname, attachment.eni_id, *attachment.mac);
      if (!entered) return std::unexpected(from(entered.error()));
      return std::unexpected(problem("port_failed", port.error()));
    }
    // DPDK's drivers set the link up anew, and the kernel forgets the routes of a link that was down for a moment.
    if (!ours) {
      if (auto again = ensure_task_interface(*netns, wanted, attachment.eni_id); !again) {
        port->reset();
        if (!existed) (void)remove_task_interface(*netns, spec.ifname, attachment.eni_id);
        return std::unexpected(from(again.error()));
      }
    }
    // vhost-net is no quicker to tell the kernel of a carrier than a tap is.
    (void)settle_task_interface(*netns, spec.ifname);
    auto opened = std::make_unique<OpenedPort>();
    opened->port = std::move(*port);
    opened->netns.emplace(std::move(*netns));
    opened->ifname = spec.ifname;
    opened->tag = attachment.eni_id;
    opened->mac = *attachment.mac;
    return opened;
  }

  rte_mempool& pool_;
  const config::EngineConfig& config_;
  std::uint32_t next_number_ = 0;
};

}  // namespace

std::string remove_leftover_interface(const config::Attachment& attachment) {
  const auto& port = attachment.port;
  if (!port || (port->kind != config::PortKind::tap && port->kind != config::PortKind::virtio_user)) return {};
  const auto netns = NetworkNamespace::open(port->netns);
  if (!netns) return netns.error().kind == InterfaceError::Kind::netns_missing ? "" : netns.error().message;
  const auto removed = remove_task_interface(*netns, port->ifname, attachment.eni_id, attachment.mac.value_or(MacAddress{}));
  // Whoever has the name was never this ENI's.
  if (removed || removed.error().kind == InterfaceError::Kind::interface_exists) return {};
  return removed.error().message;
}

OpenTaskPort make_port_opener(rte_mempool& pool, const config::EngineConfig& config) {
  return [opener = std::make_shared<Opener>(pool, config)](const config::Attachment& attachment,
                                                           const config::Subnet& subnet) {
    return (*opener)(attachment, subnet);
  };
}

}  // namespace trunkline::control
