// SPDX-License-Identifier: BSD-3-Clause
#include "control/task_interface.h"

#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <optional>
#include <thread>
#include <utility>

#include "config/device_string.h"
#include "control/interface_state.h"

namespace trunkline {
namespace {

using Kind = InterfaceError::Kind;
using Done = std::expected<void, InterfaceError>;

constexpr int loopback_index = 1;            // the kernel's LOOPBACK_IFINDEX, the same in every namespace
constexpr std::uint32_t ipv6_metric = 1024;  // the kernel's IP6_RT_PRIO_USER, what a route without a metric gets

class File {
 public:
  explicit File(int fd = -1) : fd_(fd) {}
  File(File&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  File& operator=(File&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  ~File() {
    if (fd_ >= 0) ::close(fd_);
  }
  explicit operator bool() const { return fd_ >= 0; }
  int get() const { return fd_; }

 private:
  int fd_;
};

// ---- the steps ----

// `change` puts the attributes and may set flags in the body.
template <class Change>
Done change_link(RouteSocket& route, int index, std::string_view what, Change change) {
  NetlinkRequest request(RTM_NEWLINK, 0);
  ifinfomsg& body = request.body<ifinfomsg>();
  body.ifi_family = AF_UNSPEC;
  body.ifi_index = index;
  change(body, request);
  if (const auto sent = route.send(request); !sent) return refuse(what, sent.error());
  return {};
}

Done set_up(RouteSocket& route, int index, bool up, std::string_view what) {
  return change_link(route, index, what, [up](ifinfomsg& body, NetlinkRequest&) {
    body.ifi_change = IFF_UP;
    body.ifi_flags = up ? IFF_UP : 0;
  });
}

// Attaches a queue to the tap of that name, or makes it (`exclusive`); it lives as long as the file, unless persistent.
std::expected<File, InterfaceError> attach_tap(const std::string& name, bool vnet_hdr, bool exclusive) {
  // A tap belongs to the namespace of the thread that opens the device, not to the one that names it.
  File tun(::open("/dev/net/tun", O_RDWR | O_CLOEXEC));
  if (!tun) {
    const int code = errno;
    if (code == ENOENT || code == ENXIO || code == ENODEV)
      return refuse(Kind::kernel, "there is no /dev/net/tun: load the module (`modprobe tun`), and give the device to "
                                  "the container if the engine runs in one");
    return refuse("open /dev/net/tun", KernelRefusal{code, {}});
  }
  int flags = IFF_TAP | IFF_NO_PI | IFF_MULTI_QUEUE;
  if (vnet_hdr) flags |= IFF_VNET_HDR;
  if (exclusive) flags |= IFF_TUN_EXCL;
  ifreq request{};
  name.copy(request.ifr_name, IFNAMSIZ - 1);
  request.ifr_flags = static_cast<short>(flags);
  if (::ioctl(tun.get(), TUNSETIFF, &request) != 0) {
    const int code = errno;
    if (exclusive && (code == EBUSY || code == EEXIST))
      return refuse(Kind::interface_exists, "somebody else made an interface of that name just now");
    return refuse(exclusive ? "make the tap" : "attach to the tap", KernelRefusal{code, {}});
  }
  return tun;
}

// /proc/sys/net answers for the namespace of the thread that asks (read and write are resolved at open).
std::string setting_path(const std::string& interface, const char* setting) {
  return "/proc/sys/net/ipv6/conf/" + interface + "/" + setting;
}

// nullopt: there is no such setting, as on a host without IPv6.
std::optional<std::string> read_setting(const std::string& path) {
  const File file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  char text[32];
  const ssize_t size = file ? ::read(file.get(), text, sizeof text) : -1;
  if (size < 0) return std::nullopt;
  std::string value(text, static_cast<std::size_t>(size));
  while (!value.empty() && value.back() == '\n') value.pop_back();
  return value;
}

// Written only when it differs: /proc/sys may be mounted read-only, and right all the same.
Done write_setting(const std::string& path, const std::string& value) {
  if (read_setting(path) == value) return {};
  const File file(::open(path.c_str(), O_WRONLY | O_CLOEXEC));
  if (!file || ::write(file.get(), value.data(), value.size()) < 0)
    return refuse("write " + value + " to " + path, KernelRefusal{errno, {}});
  return {};
}

bool has_family(const std::vector<IpPrefix>& addresses, bool v4) {
  return std::ranges::any_of(addresses, [v4](const IpPrefix& prefix) { return prefix.is_v4() == v4; });
}

const IpAddress* gateway_of(const TaskInterface& wanted, bool v4) {
  const auto found = std::ranges::find(wanted.gateways, v4, &IpAddress::is_v4);
  return found == wanted.gateways.end() ? nullptr : &*found;
}

Done apply_ipv6_settings(const TaskInterface& wanted) {
  const std::string disable = setting_path(wanted.name, "disable_ipv6");
  const bool host_has_ipv6 = read_setting(disable).has_value();
  if (!has_family(wanted.addresses, false)) return host_has_ipv6 ? write_setting(disable, "1") : Done{};
  if (!host_has_ipv6)
    return refuse(Kind::kernel, "it is to have an IPv6 address, but the kernel has no IPv6 (ipv6.disable=1?)");
  // Before IPv6 is switched on: the first advertisement must not win the race.
  const std::string accept_ra = setting_path(wanted.name, "accept_ra");
  if (gateway_of(wanted, false) != nullptr) {
    if (auto done = write_setting(accept_ra, "0"); !done) return done;
  } else if (read_setting(accept_ra) == "0") {
    // An adopted interface that had a given gateway before: what a new one would have.
    const auto as_new = read_setting(setting_path("default", "accept_ra"));
    if (auto done = write_setting(accept_ra, as_new.value_or("1")); !done) return done;
  }
  return write_setting(disable, "0");  // some container runtimes disable it for every new interface
}

Done apply_link(RouteSocket& route, Link& link, const TaskInterface& wanted) {
  if (link.mac != wanted.mac) {
    // Down first: the link-local address is made of the MAC when the interface comes up, and not again.
    if ((link.flags & IFF_UP) != 0)
      if (auto done = set_up(route, link.index, false, "set it down to change its MAC"); !done) return done;
    link.flags &= ~static_cast<unsigned>(IFF_UP);
    auto done = change_link(route, link.index, "set its MAC to " + wanted.mac.to_string(),
                            [&](ifinfomsg&, NetlinkRequest& request) {
                              request.put(IFLA_ADDRESS, wanted.mac.bytes.data(), wanted.mac.bytes.size());
                            });
    if (!done) return done;
  }
  if (link.mtu != wanted.mtu) {
    auto done = change_link(route, link.index, "set its MTU to " + std::to_string(wanted.mtu),
                            [&](ifinfomsg&, NetlinkRequest& request) { request.put(IFLA_MTU, std::uint32_t{wanted.mtu}); });
    if (!done) return done;
  }
  if (auto done = apply_ipv6_settings(wanted); !done) return done;
  if (auto done = set_up(route, loopback_index, true, "set lo up"); !done) return done;
  if ((link.flags & IFF_UP) != 0) return {};
  return set_up(route, link.index, true, "set it up");
}

std::expected<void, KernelRefusal> send_address(RouteSocket& route, int index, const IpPrefix& prefix, int type, int flags) {
  NetlinkRequest request(type, flags);
  ifaddrmsg& body = request.body<ifaddrmsg>();
  body.ifa_family = prefix.is_v4() ? AF_INET : AF_INET6;
  body.ifa_prefixlen = prefix.length;
  body.ifa_index = static_cast<unsigned>(index);
  // No duplicate address detection: the VPC answers for the address, and a second of "tentative" delays the task.
  if (!prefix.is_v4() && type == RTM_NEWADDR) body.ifa_flags = IFA_F_NODAD;
  request.put(IFA_LOCAL, prefix.address);
  request.put(IFA_ADDRESS, prefix.address);
  return route.send(request);
}

Done apply_addresses(RouteSocket& route, int index, const std::vector<IpPrefix>& wanted) {
  auto present = read_addresses(route, index);
  if (!present) return std::unexpected(std::move(present).error());
  for (const InterfaceAddress& address : *present) {
    if (std::ranges::find(wanted, address.prefix) != wanted.end()) continue;
    // An address that is wanted with another length has to go in any case: it would hide the right one.
    const bool wrong_length = std::ranges::find(wanted, address.prefix.address, &IpPrefix::address) != wanted.end();
    const bool made_by_kernel = !address.permanent || (!address.prefix.is_v4() && address.link_scope);
    if (made_by_kernel && !wrong_length) continue;
    const auto sent = send_address(route, index, address.prefix, RTM_DELADDR, 0);
    if (!sent && sent.error().code != EADDRNOTAVAIL)  // gone with the primary address of its subnet
      return refuse("remove its address " + address.prefix.to_string(), sent.error());
  }
  // Read again: with an IPv4 address, the others of its subnet may have gone.
  present = read_addresses(route, index);
  if (!present) return std::unexpected(std::move(present).error());
  for (const IpPrefix& prefix : wanted) {
    const auto same = [&](const InterfaceAddress& address) { return address.permanent && address.prefix == prefix; };
    if (std::ranges::any_of(*present, same)) continue;
    const auto sent = send_address(route, index, prefix, RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE);
    if (!sent) return refuse("give it the address " + prefix.to_string(), sent.error());
  }
  return {};
}

std::expected<void, KernelRefusal> send_default_route(RouteSocket& route, int index, const DefaultRoute& entry, int type,
                                                int flags) {
  NetlinkRequest request(type, flags);
  rtmsg& body = request.body<rtmsg>();
  body.rtm_family = entry.is_v4 ? AF_INET : AF_INET6;
  body.rtm_table = RT_TABLE_MAIN;
  body.rtm_protocol = entry.protocol;
  body.rtm_type = RTN_UNICAST;
  body.rtm_scope = type == RTM_DELROUTE ? RT_SCOPE_NOWHERE : RT_SCOPE_UNIVERSE;
  // The gateway need not lie in the subnet of an address: fe80:ec2::1 does not, nor does any for a /32.
  if (type == RTM_NEWROUTE) body.rtm_flags = RTNH_F_ONLINK;
  request.put(RTA_OIF, static_cast<std::uint32_t>(index));
  request.put(RTA_PRIORITY, entry.metric);
  if (entry.gateway) request.put(RTA_GATEWAY, *entry.gateway);
  return route.send(request);
}

Done apply_default_routes(RouteSocket& route, int index, const TaskInterface& wanted) {
  const auto present = read_default_routes(route, index);
  if (!present) return std::unexpected(present.error());
  bool there[2] = {false, false};
  for (const DefaultRoute& entry : *present) {
    const IpAddress* gateway = gateway_of(wanted, entry.is_v4);
    // What a router advertised stays while the interface listens to routers, and goes when a gateway is given: it has
    // the same metric and would be in the way.
    if (entry.protocol == RTPROT_RA && gateway == nullptr) continue;
    const bool right = wanted.default_route && gateway != nullptr && entry.gateway == *gateway &&
                       entry.protocol != RTPROT_RA && entry.metric == (entry.is_v4 ? 0 : ipv6_metric);
    if (right) {
      there[entry.is_v4] = true;
      continue;
    }
    const auto sent = send_default_route(route, index, entry, RTM_DELROUTE, 0);
    if (!sent && sent.error().code != ESRCH) return refuse("remove its old default route", sent.error());
  }
  if (!wanted.default_route) return {};
  for (const IpAddress& gateway : wanted.gateways) {
    const bool v4 = gateway.is_v4();
    if (there[v4]) continue;
    const DefaultRoute entry{
        .is_v4 = v4, .gateway = gateway, .metric = v4 ? 0 : ipv6_metric, .protocol = RTPROT_STATIC};
    const auto sent = send_default_route(route, index, entry, RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL);
    if (sent) continue;
    const std::string what = "add the default route via " + gateway.to_string();
    if (sent.error().code == EEXIST)
      return refuse(Kind::kernel, "cannot " + what + ": the namespace has one over another interface; remove that one, "
                                  "or ask for no default route");
    return refuse(what, sent.error());
  }
  return {};
}

// ---- what is asked ----

Done check_name(std::string_view name) {
  const std::string why = config::why_not_interface_name(name);
  if (why.empty()) return {};
  return refuse(Kind::invalid, '"' + std::string(name) + "\" cannot be an interface's name: it " + why);
}

Done check_tag(std::string_view tag) {
  const auto bad = [](char c) { return c <= ' ' || c > '~'; };
  if (tag.empty() || kMarkPrefix.size() + tag.size() >= IFALIASZ || std::ranges::any_of(tag, bad))
    return refuse(Kind::invalid, "the tag of an interface must have 1 to " +
                                     std::to_string(IFALIASZ - 1 - kMarkPrefix.size()) +
                                     " printable characters without blanks");
  return {};
}

Done check(const TaskInterface& wanted, std::string_view tag) {
  if (auto named = check_name(wanted.name); !named) return named;
  if (auto tagged = check_tag(tag); !tagged) return tagged;
  const std::string subject = "interface " + wanted.name + ": ";
  if (wanted.mac.is_zero() || wanted.mac.is_multicast())
    return refuse(Kind::invalid, subject + wanted.mac.to_string() + " is not the MAC of one interface");
  const bool has_v6 = has_family(wanted.addresses, false);
  if (wanted.mtu < (has_v6 ? 1280 : 68))
    return refuse(Kind::invalid, subject + "an MTU of " + std::to_string(wanted.mtu) + " is too small for " +
                                     (has_v6 ? "IPv6, which needs 1280" : "IPv4, which needs 68"));
  for (const IpPrefix& prefix : wanted.addresses)
    if (prefix.length > (prefix.is_v4() ? 32 : 128) || prefix.address.is_zero())
      return refuse(Kind::invalid, subject + prefix.to_string() + " is not an interface's address");
  for (const IpAddress& gateway : wanted.gateways) {
    if (std::ranges::count(wanted.gateways, gateway.is_v4(), &IpAddress::is_v4) > 1)
      return refuse(Kind::invalid, subject + "more than one gateway of a family");
    if (!has_family(wanted.addresses, gateway.is_v4()))
      return refuse(Kind::invalid, subject + "the gateway " + gateway.to_string() + " needs an address of its family");
  }
  if (wanted.default_route && !has_v6 && !wanted.addresses.empty() && wanted.gateways.empty())
    return refuse(Kind::invalid, subject + "a default route is asked for, but no gateway is given");
  return {};
}

std::string describe(const Link& link) {
  if (link.is_ours()) return "is marked \"" + link.alias + "\", it belongs to another attachment";
  const std::string kind = link.kind == "tun" ? (link.is_tap ? "tap" : "tun") : link.kind;
  return "is " + (kind.empty() ? std::string("there") : "a " + kind) + " without the mark of this engine";
}

bool may_be_made_here(const Link& link) {
  const bool own = link.owner && (*link.owner == 0 || *link.owner == ::geteuid());
  return link.is_tap && own && link.persistent && link.multi_queue && link.queues == 0;
}

// Whether it is the tap that was made for this ENI. The mark says so; where the task has rewritten it: a persistent tap of
// several queues that nothing is attached to, whose owner is the engine's user (set when it was made), with the ENI's MAC.
bool is_made_for(const Link& link, std::string_view tag, const MacAddress& mac) {
  if (!link.is_tap) return false;
  if (link.alias == std::string(kMarkPrefix) + std::string(tag)) return true;
  return may_be_made_here(link) && !mac.is_zero() && link.mac == mac;
}

Done refuse_foreign(const Link& link) {
  return refuse(Kind::interface_exists, "the name is taken: " + link.name + " " + describe(link) + "; it was left as it is. Rename or remove it");
}

Done mark_as_ours(RouteSocket& route, int index, std::string_view tag) {
  return change_link(route, index, "mark it as ours", [tag](ifinfomsg&, NetlinkRequest& request) {
    const std::string mark = std::string(kMarkPrefix) + std::string(tag);
    request.put(IFLA_IFALIAS, mark.data(), mark.size());
  });
}

Done remove_link(RouteSocket& route, int index) {
  NetlinkRequest request(RTM_DELLINK, 0);
  ifinfomsg& body = request.body<ifinfomsg>();
  body.ifi_family = AF_UNSPEC;
  body.ifi_index = index;
  const auto sent = route.send(request);
  if (!sent && sent.error().code != ENODEV) return refuse("remove it", sent.error());
  return {};
}

// Brings the kernel's half of an adopted tap, that which only an attached queue can change, to what is asked.
Done adopt(const Link& link, const TaskInterface& wanted) {
  if (!link.multi_queue)
    return refuse(Kind::interface_exists,
                  "it has our mark but is not multi-queue, which cannot be changed; remove it and try again");
  if (link.persistent && link.vnet_hdr == wanted.vnet_hdr) return {};
  if (link.vnet_hdr != wanted.vnet_hdr && link.queues > 0)
    return refuse(Kind::kernel, "cannot change vnet_hdr while a driver is attached; detach the port first");
  auto tun = attach_tap(wanted.name, wanted.vnet_hdr, false);
  if (!tun) return std::unexpected(std::move(tun).error());
  if (::ioctl(tun->get(), TUNSETPERSIST, 1) != 0) return refuse("make it persistent", KernelRefusal{errno, {}});
  return {};
}

Done ensure_here(const TaskInterface& wanted, std::string_view tag) {
  auto route = RouteSocket::open();
  if (!route) return std::unexpected(std::move(route).error());
  auto link = find_link(*route, wanted.name);
  if (!link) return std::unexpected(std::move(link).error());

  File created;  // closing it before the last step takes the interface back
  if (*link) {
    if ((*link)->name != wanted.name || !is_made_for(**link, tag, wanted.mac)) return refuse_foreign(**link);
    if (auto adopted = adopt(**link, wanted); !adopted) return adopted;
    if ((*link)->alias != std::string(kMarkPrefix) + std::string(tag)) {
      if (auto marked = mark_as_ours(*route, (*link)->index, tag); !marked) return marked;
    }
  } else {
    auto tun = attach_tap(wanted.name, wanted.vnet_hdr, true);
    if (!tun) return std::unexpected(std::move(tun).error());
    created = *std::move(tun);
    // Without an owner, some kernels let any process of the task open another queue and read the task's packets.
    if (::ioctl(created.get(), TUNSETOWNER, static_cast<unsigned long>(::geteuid())) != 0)
      return refuse("set its owner", KernelRefusal{errno, {}});
    link = find_link(*route, wanted.name);
    if (!link) return std::unexpected(std::move(link).error());
    if (!*link) return refuse(Kind::kernel, "it was removed while it was being made");
    auto marked = mark_as_ours(*route, (*link)->index, tag);
    if (!marked) return marked;
  }

  Link& here = **link;
  if (auto done = apply_link(*route, here, wanted); !done) return done;
  if (auto done = apply_addresses(*route, here.index, wanted.addresses); !done) return done;
  if (auto done = apply_default_routes(*route, here.index, wanted); !done) return done;
  if (created && ::ioctl(created.get(), TUNSETPERSIST, 1) != 0)
    return refuse("make it persistent", KernelRefusal{errno, {}});
  return {};
}

Done remove_here(const std::string& name, std::string_view tag, const MacAddress& mac) {
  auto route = RouteSocket::open();
  if (!route) return std::unexpected(std::move(route).error());
  const auto marked = find_marked(*route, tag);
  if (!marked) return std::unexpected(marked.error());
  for (const Link& link : *marked) {
    if (auto removed = remove_link(*route, link.index); !removed) return removed;
  }
  const auto link = find_link(*route, name);
  if (!link) return std::unexpected(link.error());
  if (!*link) return {};
  if ((*link)->name == name && is_made_for(**link, tag, mac)) return remove_link(*route, (*link)->index);
  if (!(*link)->is_ours() && may_be_made_here(**link)) {
    return refuse(Kind::kernel, (*link)->name +
                                    " is a tap of the engine's user without its mark and with another MAC; it was left "
                                    "as it is. If it was this ENI's, "
                                    "remove it, or the next attach finds its name taken");
  }
  return refuse_foreign(**link);
}

// Runs the work inside and says in a failure which interface it was about.
template <class Work>
Done run_for(const NetworkNamespace& netns, std::string_view name, Work work) {
  return netns.run([&]() -> Done {
    Done done = work();
    if (!done)
      done.error().message = "interface " + std::string(name) + " in " + netns.label() + ": " + done.error().message;
    return done;
  });
}

}  // namespace

Done ensure_task_interface(const NetworkNamespace& netns, const TaskInterface& wanted, std::string_view tag) {
  if (auto checked = check(wanted, tag); !checked) return checked;
  return run_for(netns, wanted.name, [&] { return ensure_here(wanted, tag); });
}

Done remove_task_interface(const NetworkNamespace& netns, std::string_view name, std::string_view tag, const MacAddress& mac) {
  if (auto checked = check_name(name); !checked) return checked;
  if (auto checked = check_tag(tag); !checked) return checked;
  return run_for(netns, name, [&] { return remove_here(std::string(name), tag, mac); });
}

Done remove_attached_tap(int queue) {
  // The task may rename it meanwhile; what was asked about it is then asked anew.
  constexpr int kTries = 10;
  Done outcome;
  for (int i = 0; i < kTries; ++i) {
    ifreq request{};
    // EBADFD: nothing is attached to the descriptor any more. ENOTTY: the driver has put another in its place.
    if (::ioctl(queue, TUNGETIFF, &request) != 0) return {};
    // From here on it lives as long as its queues do, whatever fails below.
    if (::ioctl(queue, TUNSETPERSIST, 0) != 0) outcome = refuse("take its persistence away", KernelRefusal{errno, {}});
    const int descriptor = ::ioctl(queue, TUNGETDEVNETNS);
    if (descriptor < 0) return outcome;
    const NetworkNamespace where = NetworkNamespace::of(descriptor, "the namespace that the interface is in");
    request.ifr_name[IFNAMSIZ - 1] = '\0';
    const std::string name = request.ifr_name;
    outcome = run_for(where, name, [&]() -> Done {
      auto route = RouteSocket::open();
      if (!route) return std::unexpected(std::move(route).error());
      const auto link = find_link(*route, name);
      if (!link) return std::unexpected(link.error());
      return *link && (*link)->is_tap ? remove_link(*route, (*link)->index) : Done{};
    });
  }
  if (!outcome) return outcome;
  return refuse(Kind::kernel, "the task's interface is still there after " + std::to_string(kTries) + " tries to remove it");
}

bool settle_task_interface(const NetworkNamespace& netns, const std::string& name) {
  using std::chrono::milliseconds;
  const auto settled = netns.run([&] {
    auto route = RouteSocket::open();
    if (!route) return false;
    for (milliseconds waited{0};; ++waited) {
      // Where the kernel can, this question itself makes it take notice.
      const auto link = find_link(*route, name);
      if (!link || !*link) return false;
      if (((*link)->flags & IFF_RUNNING) != 0) return true;
      if (waited == milliseconds(200)) return false;
      std::this_thread::sleep_for(milliseconds(1));
    }
  });
  return settled && *settled;
}

bool task_interface_exists(const NetworkNamespace& netns, std::string_view name) {
  if (!check_name(name)) return false;
  const auto exists = netns.run([&] {
    auto route = RouteSocket::open();
    if (!route) return false;
    const auto link = find_link(*route, std::string(name));
    return link && *link && (*link)->name == name && (*link)->is_ours();
  });
  return exists && *exists;
}

}  // namespace trunkline
