// SPDX-License-Identifier: BSD-3-Clause
//
// What the kernel says of interfaces in the namespace that the socket is of: links, and one's addresses and default routes. Reads
// only; what they should be, and the way there, is task_interface.cpp's.
//
// Our taps carry a mark in their alias, "trunkline:<tag>" (task_interface.h).
#pragma once

#include <cstdint>
#include <expected>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "control/route_netlink.h"

namespace trunkline {

inline constexpr std::string_view kMarkPrefix = "trunkline:";

struct Link {
  int index = 0;
  unsigned flags = 0;
  std::string name, alias, kind;
  MacAddress mac;
  std::uint32_t mtu = 0;
  bool is_tap = false, persistent = false, multi_queue = false, vnet_hdr = false;
  std::uint32_t queues = 0;  // held by a driver, whether enabled or not
  std::optional<std::uint32_t> owner;  // the user who may attach to it

  bool is_ours() const { return is_tap && alias.starts_with(kMarkPrefix); }
};

// nullopt: there is none of that name.
std::expected<std::optional<Link>, InterfaceError> find_link(RouteSocket& route, const std::string& name);
// The taps with this mark, under whatever name: a task may rename its interface.
std::expected<std::vector<Link>, InterfaceError> find_marked(RouteSocket& route, std::string_view tag);

struct InterfaceAddress {
  IpPrefix prefix;
  bool permanent = false, link_scope = false;
};

std::expected<std::vector<InterfaceAddress>, InterfaceError> read_addresses(RouteSocket& route, int index);

struct DefaultRoute {
  bool is_v4 = false;
  std::optional<IpAddress> gateway;
  std::uint32_t metric = 0;
  std::uint8_t protocol = 0;
};

// Of the main table, of both families.
std::expected<std::vector<DefaultRoute>, InterfaceError> read_default_routes(RouteSocket& route, int index);

}  // namespace trunkline
