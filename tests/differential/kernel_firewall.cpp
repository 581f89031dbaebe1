// SPDX-License-Identifier: BSD-3-Clause
#include "tests/differential/kernel_firewall.h"

#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <stdexcept>

#include "tests/differential/nft_rules.h"

namespace trunkline::differential {
namespace {

constexpr const char* kWorldMac = "02:00:00:00:00:01";
constexpr const char* kTasksMac = "02:00:00:00:00:02";
constexpr const char* kNeighbourMac = "02:00:00:00:00:99";

std::runtime_error failure(const std::string& what) { return std::runtime_error(what + ": " + std::strerror(errno)); }

// Runs a program that takes `input`; its own words go to this one's stderr.
void run(const std::string& command, const std::string& input) {
  std::FILE* pipe = ::popen(command.c_str(), "w");
  if (pipe == nullptr) throw failure(command);
  std::fwrite(input.data(), 1, input.size(), pipe);
  if (const int status = ::pclose(pipe); status != 0) {
    throw std::runtime_error("'" + command + "' failed (status " + std::to_string(status) + ") on:\n" + input);
  }
}

void set_sysctl(const std::string& path, const std::string& value) {
  std::ofstream file("/proc/sys/net/" + path);
  if (!(file << value << std::flush)) throw failure("cannot write " + value + " to /proc/sys/net/" + path);
}

int open_tap(const char* name) {
  const int descriptor = ::open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
  if (descriptor < 0) throw failure("/dev/net/tun");
  ifreq request{};
  std::strncpy(request.ifr_name, name, IFNAMSIZ - 1);
  request.ifr_flags = IFF_TAP | IFF_NO_PI;
  if (::ioctl(descriptor, TUNSETIFF, &request) < 0) throw failure(std::string("tap ") + name);
  return descriptor;
}

}  // namespace

void enter_new_namespace() {
  if (::unshare(CLONE_NEWNET) != 0) throw failure("a new network namespace");
}

KernelFirewall::KernelFirewall(const config::DesiredState& state, const Options& options) : options_(options) {
  world_ = open_tap(kWorldInterface);
  tasks_ = open_tap(kTasksInterface);
  set_up_interfaces(state);
  conntrack_ = std::make_unique<ConntrackNetlink>();
  apply(state);  // nft's ct makes the kernel track connections here, and its settings appear
  set_conntrack();
  check_that_it_is_synchronous(state);
}

KernelFirewall::~KernelFirewall() {
  if (world_ >= 0) ::close(world_);
  if (tasks_ >= 0) ::close(tasks_);
}

void KernelFirewall::set_up_interfaces(const config::DesiredState& state) {
  const std::string world = kWorldInterface, tasks = kTasksInterface;
  for (const char* setting : {"ipv4/ip_forward", "ipv6/conf/all/forwarding"}) set_sysctl(setting, "1");
  for (const std::string& name : {std::string("all"), world, tasks}) {
    for (const char* setting : {"rp_filter", "send_redirects"}) set_sysctl("ipv4/conf/" + name + '/' + setting, "0");
  }
  for (const std::string& name : {world, tasks}) {
    for (const char* setting : {"accept_dad", "router_solicitations"})
      set_sysctl("ipv6/conf/" + name + '/' + setting, "0");
  }
  std::string lines;
  for (const auto& [name, mac] : {std::pair{world, kWorldMac}, std::pair{tasks, kTasksMac}}) {
    lines += "link set " + name + " address " + mac + " mtu 9001 up\n";
  }
  lines += "addr add 172.16.0.2/30 dev " + world + "\naddr add fd00:16::2/64 dev " + world + " nodad\n";
  lines += "route add default via 172.16.0.1\nroute add default via fd00:16::1\n";
  for (const char* router : {"172.16.0.1", "fd00:16::1"})
    lines += "neigh add " + std::string(router) + " lladdr " + kNeighbourMac + " dev " + world + " nud permanent\n";
  for (const auto& [id, subnet] : state.subnets) {
    if (subnet.cidr) lines += "route add " + subnet.cidr->to_string() + " dev " + tasks + '\n';
    if (subnet.ipv6_cidr) lines += "route add " + subnet.ipv6_cidr->to_string() + " dev " + tasks + '\n';
  }
  for (const auto& [eni, attachment] : state.attachments) {
    for (const IpAddress& address : attachment.addresses)
      lines += "neigh add " + address.to_string() + " lladdr " + kNeighbourMac + " dev " + tasks + " nud permanent\n";
  }
  run("ip -batch -", lines);
}

void KernelFirewall::set_conntrack() {
  const Timeouts& seconds = options_.timeouts;
  const auto set = [](const std::string& name, std::uint32_t value) {
    set_sysctl("netfilter/nf_conntrack_" + name, std::to_string(value));
  };
  const auto set_timeout = [&](const std::string& name, std::uint32_t value) { set(name, value * kScale); };
  set("checksum", 0);
  set("tcp_be_liberal", 1);          // the engine knows no windows
  set("tcp_ignore_invalid_rst", 1);  // nor whether a RST is within one
  set("tcp_loose", options_.pick_up ? 1 : 0);
  set_timeout("tcp_timeout_syn_sent", seconds.syn_sent);
  set_timeout("tcp_timeout_syn_recv", seconds.syn_recv);
  for (const char* name : {"established", "max_retrans", "unacknowledged"})
    set_timeout(std::string("tcp_timeout_") + name, seconds.established);
  for (const char* name : {"fin_wait", "close_wait", "last_ack", "time_wait"})
    set_timeout(std::string("tcp_timeout_") + name, seconds.closing);
  set_timeout("tcp_timeout_close", seconds.closed);
  set_timeout("udp_timeout", seconds.udp);
  set_timeout("udp_timeout_stream", seconds.udp_stream);
  for (const char* name : {"icmp_timeout", "icmpv6_timeout"}) set_timeout(name, seconds.icmp);
  set_timeout("generic_timeout", seconds.other);
}

void KernelFirewall::check_that_it_is_synchronous(const config::DesiredState& state) {
  run("nft -f -", "flush ruleset\n");
  FlowPacket packet;
  packet.source = test::ip("198.51.100.250");
  packet.destination = state.attachments.begin()->second.addresses.front();
  packet.protocol = proto::udp;
  packet.destination_port = 9;
  for (std::uint16_t i = 0; i < 1000; ++i) {
    packet.source_port = static_cast<std::uint16_t>(1000 + i);
    packet.number = 0xf0000000U + i;
    if (!pass_packet(packet))
      throw std::runtime_error(
          "this kernel does not forward from tap to tap while one writes: a packet that nothing refuses did not come "
          "out at once");
  }
  apply(state);
}

void KernelFirewall::apply(const config::DesiredState& state) { run("nft -f -", nft_script(state, options_.related)); }

bool KernelFirewall::pass_packet(const FlowPacket& packet) {
  const bool in = packet.direction == Direction::ingress;
  const test::Frame payload = ip_bytes(packet);
  test::Frame frame = test::ethernet({test::mac(in ? kWorldMac : kTasksMac), test::mac(kNeighbourMac)},
                                     packet.source.is_v4() ? 0x0800 : 0x86dd);
  test::put(frame, payload.data(), payload.size());
  if (::write(in ? world_ : tasks_, frame.data(), frame.size()) != static_cast<ssize_t>(frame.size()))
    throw failure("write to a tap");
  bool came = false;
  std::uint8_t out[9100];
  for (const int descriptor : {world_, tasks_}) {
    while (true) {
      const ssize_t size = ::read(descriptor, out, sizeof out);
      if (size < 0 && errno == EAGAIN) break;
      if (size < 0) throw failure("read from a tap");
      // What the kernel says by itself (neighbour discovery, reports of multicast groups) goes to multicast addresses.
      if (size < 18 || std::memcmp(out, test::mac(kNeighbourMac).bytes.data(), 6) != 0) continue;
      const bool is_this =
          std::memcmp(out + size - 4, frame.data() + frame.size() - 4, 4) == 0 && descriptor == (in ? tasks_ : world_);
      if (!is_this) throw std::runtime_error("behind packet " + text_of(packet) + " came a frame that is not it");
      came = true;
    }
  }
  return came;
}

}  // namespace trunkline::differential
