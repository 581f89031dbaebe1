// SPDX-License-Identifier: BSD-3-Clause
#include "dataplane/state/view.h"

#include <algorithm>
#include <cstddef>
#include <cstring>

namespace trunkline {

static_assert(offsetof(Endpoint, first_ipv4) == 16 && offsetof(Endpoint, flow_owner) == 28 && offsetof(Endpoint, max_connections) < 64);

Tick Timeouts::shortest() const {
  return *std::min_element(ticks_.begin() + static_cast<std::ptrdiff_t>(ConnectionState::syn_sent), ticks_.end());
}

void Endpoint::derive() {
  shortest_timeout = timeouts.shortest();
  flow_owner = FlowKey::owner_of(id, generation);
  // Different for each pair of the two; neither of them ever has the same number again.
  policy_generation = (policy != nullptr ? policy->generation : 0) + (network_acl != nullptr ? network_acl->generation * 0x9e3779b1U : 0);
  if (audit) policy_generation ^= 1U << 31;  // what it let pass is judged when it ends
  std::memcpy(&router_ipv4, &router4.bytes[12], sizeof router_ipv4);
  std::memcpy(&resolver_ipv4, &resolver.bytes[12], sizeof resolver_ipv4);
  limited = (limits.bytes[0] | limits.bytes[1] | limits.packets[0] | limits.packets[1]) != 0;
  mac_bits = ~std::uint64_t{0};
  for (const IpAddress& address : addresses()) {
    if (!address.is_v4()) continue;
    std::memcpy(&first_ipv4, &address.bytes[12], sizeof first_ipv4);
    // One that is a service's may not be sent from: no packet of it is plain.
    const bool link_local = address.bytes[12] == 169 && address.bytes[13] == 254;
    if (link_local || first_ipv4 == router_ipv4 || first_ipv4 == resolver_ipv4) break;
    mac_bits = 0;
    std::memcpy(&mac_bits, mac.bytes.data(), mac.bytes.size());
    break;
  }
}

void View::replace(const std::shared_ptr<const Endpoint>& endpoint) {
  std::shared_ptr<const Endpoint>& place = endpoints[endpoint->id.value];
  if (place == endpoint) return;
  limits = limits || endpoint->limited;
  least_mtu = std::min(least_mtu, endpoint->mtu);
  by_ipv4.replace(place.get(), endpoint.get());
  place = endpoint;
}

void View::build_indexes() {
  by_vlan.fill(EndpointId{});
  least_mtu = trunk_mtu;
  std::vector<EndpointIndex<std::uint64_t>::Slot> macs;
  std::vector<EndpointIndex<IpAddress>::Slot> addresses, services;
  const auto add_service = [&](const IpAddress& address, const Endpoint& endpoint) {
    if (!address.is_zero()) services.push_back({address, endpoint.id});
  };
  untagged.clear();
  endpoint_count = 0;
  for (const auto& endpoint : endpoints) {
    if (!endpoint) continue;
    ++endpoint_count;
    limits = limits || endpoint->limited;
    least_mtu = std::min(least_mtu, endpoint->mtu);
    add_service(endpoint->router4, *endpoint);
    add_service(endpoint->resolver, *endpoint);
    if (endpoint->has_ipv6_subnet) add_service(endpoint->router6, *endpoint);
    if (endpoint->vlan.is_untagged()) {
      untagged.push_back(endpoint->id);
      macs.push_back({endpoint->mac.as_integer(), endpoint->id});
    } else {
      by_vlan[endpoint->vlan.value & 0xfff] = endpoint->id;
    }
    for (const IpAddress& address : endpoint->addresses()) {
      addresses.push_back({address, endpoint->id});
      if (!address.is_v4()) continue;
      std::uint32_t network_order;
      std::memcpy(&network_order, &address.bytes[12], sizeof network_order);
      by_ipv4.add(network_order, *endpoint);
    }
  }
  port_by_slot.clear();
  endpoint_by_ethdev.clear();
  for (std::size_t i = 0; i < ports.size(); ++i) {
    if (ports[i].ethdev >= endpoint_by_ethdev.size()) endpoint_by_ethdev.resize(ports[i].ethdev + 1U);
    endpoint_by_ethdev[ports[i].ethdev] = ports[i].is_trunk ? EndpointId{} : ports[i].endpoint;
    if (ports[i].slot.value >= port_by_slot.size()) port_by_slot.resize(ports[i].slot.value + 1U, 0xffff);
    port_by_slot[ports[i].slot.value] = static_cast<std::uint16_t>(i);
  }
  by_mac.build(macs);
  by_address.build(addresses);
  // Those of one subnet have the same.
  std::sort(services.begin(), services.end(), [](const auto& a, const auto& b) { return a.key.bytes < b.key.bytes; });
  const auto same = [](const auto& a, const auto& b) { return a.key == b.key; };
  services.erase(std::unique(services.begin(), services.end(), same), services.end());
  by_service.build(services);
  by_ipv4.build();
}

}  // namespace trunkline
