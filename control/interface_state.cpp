// SPDX-License-Identifier: BSD-3-Clause
#include "control/interface_state.h"

#include <linux/if.h>
#include <linux/if_tun.h>

#include <utility>

namespace trunkline {
namespace {

void read_tun(const nlattr* data, Link& link) {
  each_attribute(data, [&](const nlattr* attribute) {
    switch (mnl_attr_get_type(attribute)) {
      case IFLA_TUN_TYPE: link.is_tap = number_of<std::uint8_t>(attribute) == IFF_TAP; break;
      case IFLA_TUN_VNET_HDR: link.vnet_hdr = number_of<std::uint8_t>(attribute) != 0; break;
      case IFLA_TUN_PERSIST: link.persistent = number_of<std::uint8_t>(attribute) != 0; break;
      case IFLA_TUN_OWNER: link.owner = number_of<std::uint32_t>(attribute); break;
      case IFLA_TUN_MULTI_QUEUE: link.multi_queue = number_of<std::uint8_t>(attribute) != 0; break;
      case IFLA_TUN_NUM_QUEUES:
      case IFLA_TUN_NUM_DISABLED_QUEUES: link.queues += number_of<std::uint32_t>(attribute); break;
      default: break;
    }
  });
}

Link read_link(const nlmsghdr* message) {
  Link link;
  const auto* body = static_cast<const ifinfomsg*>(mnl_nlmsg_get_payload(message));
  link.index = body->ifi_index;
  link.flags = body->ifi_flags;
  const nlattr* data = nullptr;
  each_attribute(message, sizeof *body, [&](const nlattr* attribute) {
    switch (mnl_attr_get_type(attribute)) {
      case IFLA_IFNAME: link.name = text_of(attribute); break;
      case IFLA_IFALIAS: link.alias = text_of(attribute); break;
      case IFLA_MTU: link.mtu = number_of<std::uint32_t>(attribute); break;
      case IFLA_ADDRESS: link.mac = number_of<MacAddress>(attribute); break;
      case IFLA_LINKINFO: {
        each_attribute(attribute, [&](const nlattr* inner) {
          if (mnl_attr_get_type(inner) == IFLA_INFO_KIND) link.kind = text_of(inner);
          if (mnl_attr_get_type(inner) == IFLA_INFO_DATA) data = inner;
        });
        break;
      }
      default: break;
    }
  });
  if (link.kind == "tun" && data != nullptr) read_tun(data, link);
  return link;
}

}  // namespace

std::expected<std::optional<Link>, InterfaceError> find_link(RouteSocket& route, const std::string& name) {
  NetlinkRequest request(RTM_GETLINK, NLM_F_ACK);
  request.body<ifinfomsg>().ifi_family = AF_UNSPEC;
  request.put(IFLA_IFNAME, name);
  std::optional<Link> found;
  const auto answered = route.talk(request, [&](const nlmsghdr* message) {
    if (message->nlmsg_type == RTM_NEWLINK) found = read_link(message);
  });
  if (!answered && answered.error().code != ENODEV) return refuse("look it up", answered.error());
  return found;
}

std::expected<std::vector<Link>, InterfaceError> find_marked(RouteSocket& route, std::string_view tag) {
  NetlinkRequest request(RTM_GETLINK, NLM_F_DUMP);
  request.body<ifinfomsg>().ifi_family = AF_UNSPEC;
  const std::string mark = std::string(kMarkPrefix) + std::string(tag);
  std::vector<Link> found;
  const auto answered = route.dump(request, [&] { found.clear(); }, [&](const nlmsghdr* message) {
    if (message->nlmsg_type != RTM_NEWLINK) return;
    Link link = read_link(message);
    if (link.is_tap && link.alias == mark) found.push_back(std::move(link));
  });
  if (!answered) return refuse("look for its mark", answered.error());
  return found;
}

std::expected<std::vector<InterfaceAddress>, InterfaceError> read_addresses(RouteSocket& route, int index) {
  NetlinkRequest request(RTM_GETADDR, NLM_F_DUMP);
  request.body<ifaddrmsg>().ifa_family = AF_UNSPEC;
  std::vector<InterfaceAddress> found;
  const auto answered = route.dump(request, [&] { found.clear(); }, [&](const nlmsghdr* message) {
    const auto* body = static_cast<const ifaddrmsg*>(mnl_nlmsg_get_payload(message));
    if (body->ifa_index != static_cast<unsigned>(index)) return;
    std::uint32_t flags = body->ifa_flags;
    std::optional<IpAddress> local, address;
    each_attribute(message, sizeof *body, [&](const nlattr* attribute) {
      switch (mnl_attr_get_type(attribute)) {
        case IFA_LOCAL: local = address_of(attribute); break;
        case IFA_ADDRESS: address = address_of(attribute); break;
        case IFA_FLAGS: flags = number_of<std::uint32_t>(attribute); break;
        default: break;
      }
    });
    if (!local) local = address;
    if (local)
      found.push_back({IpPrefix{*local, body->ifa_prefixlen}, (flags & IFA_F_PERMANENT) != 0,
                       body->ifa_scope == RT_SCOPE_LINK});
  });
  if (!answered) return refuse("read its addresses", answered.error());
  return found;
}

std::expected<std::vector<DefaultRoute>, InterfaceError> read_default_routes(RouteSocket& route, int index) {
  std::vector<DefaultRoute> found;
  for (const int family : {AF_INET, AF_INET6}) {
    NetlinkRequest request(RTM_GETROUTE, NLM_F_DUMP);
    request.body<rtmsg>().rtm_family = static_cast<unsigned char>(family);
    const std::size_t before = found.size();
    const auto answered = route.dump(request, [&] { found.resize(before); }, [&](const nlmsghdr* message) {
      const auto* body = static_cast<const rtmsg*>(mnl_nlmsg_get_payload(message));
      if (body->rtm_family != family || body->rtm_dst_len != 0 || body->rtm_type != RTN_UNICAST) return;
      DefaultRoute entry;
      entry.is_v4 = family == AF_INET;
      entry.protocol = body->rtm_protocol;
      std::uint32_t table = body->rtm_table, out = 0;
      each_attribute(message, sizeof *body, [&](const nlattr* attribute) {
        switch (mnl_attr_get_type(attribute)) {
          case RTA_TABLE: table = number_of<std::uint32_t>(attribute); break;
          case RTA_OIF: out = number_of<std::uint32_t>(attribute); break;
          case RTA_PRIORITY: entry.metric = number_of<std::uint32_t>(attribute); break;
          case RTA_GATEWAY: entry.gateway = address_of(attribute); break;
          default: break;
        }
      });
      if (table == RT_TABLE_MAIN && out == static_cast<unsigned>(index)) found.push_back(entry);
    });
    if (!answered && answered.error().code != EAFNOSUPPORT && answered.error().code != EOPNOTSUPP)
      return refuse("read the routes", answered.error());
  }
  return found;
}

}  // namespace trunkline
