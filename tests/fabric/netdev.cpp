// SPDX-License-Identifier: BSD-3-Clause
#include "netdev.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <libmnl/libmnl.h>
#include <linux/if_addr.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/if_tun.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <exception>
#include <fstream>
#include <functional>
#include <thread>

namespace trunkline::fabric {
namespace {

[[noreturn]] void fail(const std::string& what) {
  throw std::runtime_error(what + ": " + std::string(std::strerror(errno)));
}

void in_netns(const std::string& name, const std::function<void()>& work) {
  if (name.empty()) return work();
  std::exception_ptr problem;
  std::thread([&] {
    try {
      const std::string path = "/run/netns/" + name;
      const FileDescriptor netns(open(path.c_str(), O_RDONLY | O_CLOEXEC));
      if (netns.get() < 0) fail("cannot open the network namespace " + path);
      if (setns(netns.get(), CLONE_NEWNET) != 0) fail("cannot enter the network namespace " + path);
      work();
    } catch (...) {
      problem = std::current_exception();
    }
  }).join();
  if (problem) std::rethrow_exception(problem);
}

// One netlink request at a time, to the namespace of the thread that made the object.
class Rtnetlink {
 public:
  Rtnetlink() : socket_(mnl_socket_open2(NETLINK_ROUTE, SOCK_CLOEXEC)) {
    if (socket_ == nullptr || mnl_socket_bind(socket_, 0, MNL_SOCKET_AUTOPID) < 0) fail("cannot open netlink");
  }
  Rtnetlink(const Rtnetlink&) = delete;
  Rtnetlink& operator=(const Rtnetlink&) = delete;
  ~Rtnetlink() {
    if (socket_ != nullptr) mnl_socket_close(socket_);
  }

  void set_link_up(int index, unsigned mtu, const Mac* mac) {
    auto* const link = begin<ifinfomsg>(RTM_NEWLINK, 0);
    link->ifi_index = index;
    link->ifi_flags = IFF_UP;
    link->ifi_change = IFF_UP;
    if (mtu != 0) mnl_attr_put_u32(header_, IFLA_MTU, mtu);
    if (mac != nullptr) mnl_attr_put(header_, IFLA_ADDRESS, mac->size(), mac->data());
    send("cannot bring the interface up");
  }

  void add_address(int index, const Prefix& prefix) {
    auto* const address = begin<ifaddrmsg>(RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL);
    address->ifa_family = prefix.address.v6 ? AF_INET6 : AF_INET;
    address->ifa_prefixlen = static_cast<std::uint8_t>(prefix.length);
    address->ifa_flags = prefix.address.v6 ? IFA_F_NODAD : 0;
    address->ifa_index = static_cast<std::uint32_t>(index);
    mnl_attr_put(header_, IFA_LOCAL, prefix.address.size(), prefix.address.bytes.data());
    mnl_attr_put(header_, IFA_ADDRESS, prefix.address.size(), prefix.address.bytes.data());
    send("cannot add the address " + prefix.address.to_string());
  }

  void add_default_route(int index, const Address& gateway) {
    auto* const route = begin<rtmsg>(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL);
    route->rtm_family = gateway.v6 ? AF_INET6 : AF_INET;
    route->rtm_table = RT_TABLE_MAIN;
    route->rtm_protocol = RTPROT_STATIC;
    route->rtm_scope = RT_SCOPE_UNIVERSE;
    route->rtm_type = RTN_UNICAST;
    mnl_attr_put(header_, RTA_GATEWAY, gateway.size(), gateway.bytes.data());
    mnl_attr_put_u32(header_, RTA_OIF, static_cast<std::uint32_t>(index));
    send("cannot add the default route via " + gateway.to_string());
  }

 private:
  template <typename Body>
  Body* begin(std::uint16_t type, int flags) {
    header_ = mnl_nlmsg_put_header(buffer_);
    header_->nlmsg_type = type;
    header_->nlmsg_flags = static_cast<std::uint16_t>(NLM_F_REQUEST | NLM_F_ACK | flags);
    header_->nlmsg_seq = ++sequence_;
    return static_cast<Body*>(mnl_nlmsg_put_extra_header(header_, sizeof(Body)));
  }

  void send(const std::string& complaint) {
    if (mnl_socket_sendto(socket_, header_, header_->nlmsg_len) < 0) fail(complaint);
    const auto received = mnl_socket_recvfrom(socket_, buffer_, sizeof buffer_);
    if (received < 0) fail(complaint);
    if (mnl_cb_run(buffer_, static_cast<std::size_t>(received), sequence_, mnl_socket_get_portid(socket_), nullptr,
                   nullptr) < 0) {
      fail(complaint);
    }
  }

  mnl_socket* socket_;
  nlmsghdr* header_ = nullptr;
  std::uint32_t sequence_ = 0;
  alignas(nlmsghdr) char buffer_[4096];
};

int index_of(const std::string& interface) {
  const unsigned index = if_nametoindex(interface.c_str());
  if (index == 0) fail("no interface");
  return static_cast<int>(index);
}

template <typename Value>
void set_option(int fd, int level, int option, const Value& value, const char* complaint) {
  if (setsockopt(fd, level, option, &value, sizeof value) != 0) fail(complaint);
}

// That an interface has carrier the kernel notices a little later, on a busy machine much later, and until then it drops what is sent.
void wait_until_running(const std::string& ifname) {
  const FileDescriptor any(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  ifreq request{};
  ifname.copy(request.ifr_name, IFNAMSIZ - 1);
  for (int i = 0; i < 300; ++i) {
    if (ioctl(any.get(), SIOCGIFFLAGS, &request) != 0 || (request.ifr_flags & IFF_RUNNING) != 0) return;
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
}

}  // namespace

FileDescriptor::~FileDescriptor() {
  if (fd_ >= 0) close(fd_);
}

FileDescriptor open_trunk(const Config& config) {
  FileDescriptor result;
  try {
    in_netns(config.trunk_netns, [&] {
      const int index = index_of(config.trunk_interface);
      // The kernel would solicit routers and report multicast groups on the trunk. Where /proc/sys is read-only this
      // fails, and the trunk carries a little noise.
      std::ofstream("/proc/sys/net/ipv6/conf/" + config.trunk_interface + "/disable_ipv6") << "1\n";
      Rtnetlink().set_link_up(index, config.mtu, nullptr);

      // Protocol 0 receives nothing until bind(), so no frame of another interface gets in.
      result = FileDescriptor(socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
      const int fd = result.get();
      if (fd < 0) fail("cannot open a packet socket");
      set_option(fd, SOL_PACKET, PACKET_AUXDATA, 1, "cannot ask for VLAN tags");
      set_option(fd, SOL_PACKET, PACKET_IGNORE_OUTGOING, 1, "cannot ignore outgoing frames");
      constexpr int kBuffer = 64 << 20;
      set_option(fd, SOL_SOCKET, SO_RCVBUFFORCE, kBuffer, "cannot enlarge the receive buffer");
      set_option(fd, SOL_SOCKET, SO_SNDBUFFORCE, kBuffer, "cannot enlarge the send buffer");
      packet_mreq membership{};
      membership.mr_ifindex = index;
      membership.mr_type = PACKET_MR_PROMISC;
      set_option(fd, SOL_PACKET, PACKET_ADD_MEMBERSHIP, membership, "cannot turn promiscuous mode on");
      sockaddr_ll address{};
      address.sll_family = AF_PACKET;
      address.sll_protocol = htons(ETH_P_ALL);
      address.sll_ifindex = index;
      if (bind(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) fail("cannot bind");
    });
  } catch (const std::exception& error) {
    throw std::runtime_error("trunk " + config.trunk_interface + ": " + error.what());
  }
  return result;
}

FileDescriptor open_host(const HostConfig& host, unsigned mtu) {
  FileDescriptor result;
  try {
    in_netns(host.netns, [&] {
      result = FileDescriptor(open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK));
      if (result.get() < 0) fail("cannot open /dev/net/tun");
      // Without a virtio-net header the kernel hands over finished checksums and no super-frames. TUN_EXCL: never
      // take over a tap that somebody else made.
      ifreq request{};
      host.ifname.copy(request.ifr_name, IFNAMSIZ - 1);
      request.ifr_flags = static_cast<short>(IFF_TAP | IFF_NO_PI | IFF_TUN_EXCL);
      if (ioctl(result.get(), TUNSETIFF, &request) != 0) fail("cannot create the tap");

      const int index = index_of(host.ifname);
      Rtnetlink netlink;
      netlink.set_link_up(index_of("lo"), 0, nullptr);
      netlink.set_link_up(index, mtu, &host.mac);
      if (host.address) netlink.add_address(index, *host.address);
      if (host.address6) netlink.add_address(index, *host.address6);
      if (host.gateway) netlink.add_default_route(index, *host.gateway);
      if (host.gateway6) netlink.add_default_route(index, *host.gateway6);
      wait_until_running(host.ifname);
    });
  } catch (const std::exception& error) {
    const std::string place = host.netns.empty() ? "" : " in " + host.netns;
    throw std::runtime_error("host " + host.ifname + place + ": " + error.what());
  }
  return result;
}

}  // namespace trunkline::fabric
