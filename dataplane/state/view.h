// SPDX-License-Identifier: BSD-3-Clause
//
// All that a worker may read about the world: endpoints, their policies, where they are found and where they come out.
//
// Rules:
//  * A View is immutable from the moment it is published. The controller builds the next one beside it.
//  * A worker loads it once per turn of its loop and keeps nothing of it over the end of the turn.
//  * An endpoint is in the View together with its policy and its port, or not at all: no policy, no packets.
//  * A View owns what it points to (shared with its neighbours in time), so freeing the last View that names an
//    endpoint frees the endpoint.
//
// Built by control (controller.cpp), read by workers; see published.h for how the one reaches the other.
#pragma once

#include <array>
#include <bitset>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "config/net.h"
#include "dataplane/state/clock.h"
#include "dataplane/state/members.h"
#include "dataplane/state/policy.h"

namespace trunkline {

// How long an idle connection is kept, in ticks.
struct Timeouts {
  Tick tcp_handshake = seconds(30);
  Tick tcp_established = seconds(432000);
  Tick tcp_closing = seconds(120);
  Tick tcp_closed = seconds(10);
  Tick udp = seconds(30);
  Tick udp_stream = seconds(180);
  Tick icmp = seconds(30);
  Tick other = seconds(600);
};

// One task ENI (or the host's own).
struct Endpoint {
  static constexpr std::size_t kMaxAddresses = 16;

  EndpointId id;
  std::uint16_t generation = 0;  // grows each time the id is used again; part of every connection's key
  PortSlot port;
  VlanId vlan;
  MacAddress mac;
  std::array<IpAddress, kMaxAddresses> address_list{};
  std::uint8_t address_count = 0;
  IpPrefix subnet4, subnet6;
  IpAddress router4, router6;
  bool has_ipv6_subnet = false;
  bool source_dest_check = true;
  std::uint16_t mtu = 9001;  // of the task's port
  Timeouts timeouts;
  std::shared_ptr<const Policy> policy;

  std::span<const IpAddress> addresses() const { return {address_list.data(), address_count}; }
  bool owns(const IpAddress& address) const {
    for (const IpAddress& own : addresses()) {
      if (own == address) return true;
    }
    return false;
  }
  bool in_subnet(const IpAddress& address) const {
    return address.is_v4() ? subnet4.contains(address) : has_ipv6_subnet && subnet6.contains(address);
  }
  const IpAddress& router(bool ipv4) const { return ipv4 ? router4 : router6; }
};

// A port that a worker polls and sends to.
struct PortView {
  PortSlot slot;
  std::uint16_t ethdev = 0;  // DPDK's number of it
  bool is_trunk = false;
  EndpointId endpoint;  // whose port it is; invalid for the trunk
};

// Immutable map from a key of up to 16 bytes to an EndpointId: flat, linear probing, at most half full.
template <class Key>
class EndpointIndex {
 public:
  struct Slot {
    Key key{};
    EndpointId endpoint;
  };

  void build(std::span<const Slot> entries) {
    std::size_t size = 16;
    while (size < entries.size() * 2) size *= 2;
    slots_.assign(size, Slot{});
    for (const Slot& entry : entries) {
      std::size_t at = position(entry.key);
      while (slots_[at].endpoint.is_valid()) at = (at + 1) & (slots_.size() - 1);
      slots_[at] = entry;
    }
  }

  EndpointId find(const Key& key) const {
    if (slots_.empty()) return {};
    for (std::size_t at = position(key);; at = (at + 1) & (slots_.size() - 1)) {
      if (!slots_[at].endpoint.is_valid()) return {};
      if (slots_[at].key == key) return slots_[at].endpoint;
    }
  }

 private:
  std::size_t position(const Key& key) const {
    std::uint64_t word;
    std::memcpy(&word, reinterpret_cast<const std::uint8_t*>(&key) + sizeof(Key) - sizeof word, sizeof word);
    return static_cast<std::size_t>(word * 0x9e3779b97f4a7c15ULL >> 40) & (slots_.size() - 1);
  }
  std::vector<Slot> slots_;
};

// How the VPC's edge behaves on this host.
struct EdgeSettings {
  bool answer = false;  // answer ARP and ND for the router and remote peers, instead of relaying to the fabric
  MacAddress router_mac{{0x0a, 0, 0, 0, 0, 1}};
};

struct View {
  std::uint64_t generation = 0;
  std::vector<std::shared_ptr<const Endpoint>> endpoints;  // by EndpointId; holes are null
  std::vector<PortView> ports;                             // the trunk first
  std::uint16_t trunk_mtu = 9001;
  EdgeSettings edge;
  std::shared_ptr<const Members> members;

  std::vector<std::uint16_t> port_by_slot;  // place in `ports`, 0xffff where there is none
  std::array<EndpointId, 4096> by_vlan{};
  EndpointIndex<std::uint64_t> by_mac;  // MacAddress::as_integer(); endpoints without a VLAN
  // ENIs that are known and not in service, so that what comes for them is not called unknown.
  std::bitset<4096> waiting_vlans;
  EndpointIndex<std::uint64_t> waiting_macs;
  EndpointIndex<IpAddress> by_address;  // every endpoint's addresses

  const Endpoint* endpoint(EndpointId id) const {
    return id.value < endpoints.size() ? endpoints[id.value].get() : nullptr;
  }
  const PortView* port(PortSlot slot) const {
    return slot.value < port_by_slot.size() && port_by_slot[slot.value] < ports.size() ? &ports[port_by_slot[slot.value]]
                                                                                      : nullptr;
  }
  bool is_waiting(std::uint16_t vlan, const MacAddress& mac) const {
    return vlan != 0 ? waiting_vlans[vlan & 0xfff] : waiting_macs.find(mac.as_integer()).is_valid();
  }
  const Endpoint* at_vlan(std::uint16_t vlan) const { return endpoint(by_vlan[vlan & 0xfff]); }
  const Endpoint* with_mac(const MacAddress& mac) const { return endpoint(by_mac.find(mac.as_integer())); }
  const Endpoint* with_address(const IpAddress& address) const { return endpoint(by_address.find(address)); }

  // Fills the lookup tables from `endpoints` and `ports`; the last step of building a View.
  void build_indexes();
};

}  // namespace trunkline
