// SPDX-License-Identifier: BSD-3-Clause
//
// The addresses of a VPC's services that need no rule (VPC user guide, "Control traffic using security groups"): the
// subnet's router, Amazon's DNS resolver, time service, instance metadata, licence activation, the task's own metadata.
// docs/security-groups.md has the table.
//
// An address says who it is; what the task may ask of it without a rule is a matter of protocol and port
// (stages/services.h). Pure functions over a parsed packet and the View; any thread.
#pragma once

#include <array>
#include <cstring>

#include "config/net.h"
#include "dataplane/state/view.h"

namespace trunkline::detail {

// nobody: link-local (169.254.0.0/16) or Amazon's fd00:ec2::/32, and no service.
enum class Service : std::uint8_t { none, router, resolver, time, metadata, licence, task_metadata, nobody };

inline bool is_link_local6(const IpAddress& address) {
  return address.bytes[0] == 0xfe && (address.bytes[1] & 0xc0) == 0x80;
}

// The address that an interface gives itself out of its MAC (EUI-64, RFC 4291). A VPC lets an ENI use no other of
// fe80::/10.
inline IpAddress link_local_of(const MacAddress& mac) {
  const auto& m = mac.bytes;
  return IpAddress{
      {0xfe, 0x80, 0, 0, 0, 0, 0, 0, static_cast<std::uint8_t>(m[0] ^ 2), m[1], m[2], 0xff, 0xfe, m[3], m[4], m[5]}};
}

inline constexpr IpAddress kRouter6{
    {0xfe, 0x80, 0x0e, 0xc2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1}};  // fe80:ec2::1, in every subnet

// The router's two link-local addresses: the one of every VPC, and the one made of its MAC.
inline bool is_router_link_local(const IpAddress& address, const View& view) {
  return address == kRouter6 || address == link_local_of(view.edge.router_mac);
}
inline bool is_router6(const Endpoint& endpoint, const IpAddress& address, const View& view) {
  return (endpoint.has_ipv6_subnet && address == endpoint.router6) || is_router_link_local(address, view);
}

inline constexpr std::uint16_t kLinkLocalIpv4 = 0xfea9;  // 169.254 as it lies in a packet

// `address` in network order.
inline Service service_at4(std::uint32_t address, const Endpoint& endpoint) {
  if (address == endpoint.router_ipv4) return Service::router;
  if (address == endpoint.resolver_ipv4) return Service::resolver;
  if (static_cast<std::uint16_t>(address) != kLinkLocalIpv4) return Service::none;
  switch (__builtin_bswap32(address) & 0xffff) {
    case 0xa9fd:
      return Service::resolver;  // 169.254.169.253
    case 0xa97b:
      return Service::time;  // .123
    case 0xa9fe:
      return Service::metadata;  // .254
    case 0xa9fa:
    case 0xa9fb:
      return Service::licence;  // .250, .251
    case 0xaa02:
      return Service::task_metadata;  // 169.254.170.2
    default:
      return Service::nobody;
  }
}

inline Service service_at6(const IpAddress& address, const Endpoint& endpoint, const View& view) {
  static constexpr std::array<std::uint8_t, 14> kAmazon{0xfd, 0x00, 0x0e, 0xc2};  // fd00:ec2::/112
  if (endpoint.has_ipv6_subnet && address == endpoint.router6) return Service::router;
  if (address.bytes[0] == 0xfe && is_router_link_local(address, view)) return Service::router;
  if (std::memcmp(address.bytes.data(), kAmazon.data(), 4) != 0) return Service::none;
  if (std::memcmp(address.bytes.data(), kAmazon.data(), kAmazon.size()) != 0 || address.bytes[14] > 2)
    return Service::nobody;
  switch (address.bytes[14] << 8 | address.bytes[15]) {
    case 0x253:
      return Service::resolver;
    case 0x123:
      return Service::time;
    case 0x254:
      return Service::metadata;
    default:
      return Service::nobody;
  }
}

inline Service service_at(const IpAddress& address, const Endpoint& endpoint, const View& view) {
  if (!address.is_v4()) return service_at6(address, endpoint, view);
  std::uint32_t network_order;
  std::memcpy(&network_order, &address.bytes[12], sizeof network_order);
  return service_at4(network_order, endpoint);
}

}  // namespace trunkline::detail
