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

#include <immintrin.h>
#include <rte_mbuf.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <bitset>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "config/net.h"
#include "dataplane/state/clock.h"
#include "dataplane/state/connection_state.h"
#include "dataplane/state/flow_key.h"
#include "dataplane/state/members.h"
#include "dataplane/state/network_acl.h"
#include "dataplane/state/policy.h"
#include "dataplane/state/wake_source.h"

namespace trunkline {

using WorkerNumber = std::uint8_t;
inline constexpr WorkerNumber kNoWorker = 0xff;

// What an ENI may use, per second; 0: as much as there is.
struct RateLimits {
  std::uint64_t bytes[2] = {};    // by Direction; octets of IP packets
  std::uint32_t packets[2] = {};  // by Direction
};

// One task ENI (or the host's own). The first line is what every packet looks at.
struct alignas(64) Endpoint {
  static constexpr std::size_t kMaxAddresses = 16;

  // Derived from the rest by derive(), the last step of making one. Until then nothing matches.
  std::uint64_t mac_bits = ~std::uint64_t{0};  // the MAC as six bytes lie in a frame; all ones where there is no IPv4 address, or a service's
  std::uint32_t policy_generation = 0;         // of policy and network ACL together: whose judgement a connection carries
  Tick shortest_timeout = 0;                   // of `timeouts`: who was idle for less is alive, whatever its state
  // These four are compared with a key at once (stages/demux.h). In network order.
  std::uint32_t first_ipv4 = 0;
  std::uint32_t router_ipv4 = 0;
  std::uint32_t resolver_ipv4 = 0;
  std::uint32_t flow_owner = 0;                // id and generation as FlowKey::owner has them

  EndpointId id;
  std::uint16_t generation = 0;  // grows each time the id is used again; part of every connection's key
  PortSlot port;
  std::uint16_t mtu = 9001;  // of the task's port
  VlanId vlan;
  MacAddress mac;
  // Who owns it, who serves it (its owner, or kNoWorker while it is on its way to it), who owned it before and may still have
  // connections of it. See handoff.h.
  WorkerNumber worker = 0;
  WorkerNumber served_by = 0;
  WorkerNumber previous_worker = kNoWorker;
  bool source_dest_check = true;
  std::uint8_t address_count = 0;
  bool limited = false;  // has rate limits
  std::uint32_t max_connections = 0xffffffff;  // limits.connections_per_endpoint

  // The second line and on.
  bool audit = false;         // what the rules would refuse passes, and is counted
  bool always_track = false;  // no flow is untracked
  bool revalidate = false;    // a change of the rules judges tracked connections anew
  bool strict_syn = false;    // TCP connections begin with a SYN
  bool icmp_related = false;  // ICMP errors that quote a live connection pass
  bool block_imds = false;
  RateLimits limits;
  Timeouts timeouts;
  std::array<IpAddress, kMaxAddresses> address_list{};
  IpPrefix subnet4, subnet6;
  IpAddress router4, router6;
  bool has_ipv6_subnet = false;
  IpAddress resolver;  // Amazon's DNS, the VPC's base and 2
  std::shared_ptr<const Policy> policy;
  std::shared_ptr<const NetworkAcl> network_acl;  // nullptr: everything passes, as with a VPC's default ACL

  void derive();

  // first_ipv4 to flow_owner, and the last of them alone, where a key has it.
  __m128i own_bits() const { return _mm_load_si128(reinterpret_cast<const __m128i*>(&first_ipv4)); }
  static __m128i owner_of(__m128i own) { return _mm_blend_epi32(_mm_setzero_si128(), own, 1 << 3); }
  __m128i owner_bits() const { return owner_of(own_bits()); }

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
  EndpointId endpoint;         // whose port it is; invalid for the trunk
  WorkerNumber polled_by = 0;  // a task's port: its endpoint's served_by
  WakeSource wake{};
  std::uint64_t tx_offloads = 0;     // RTE_ETH_TX_OFFLOAD_*: what its driver does when asked
  const std::atomic<std::uint64_t>* agreed_offloads = nullptr;  // of these, what the program behind it takes now (io/port.h); nullptr: all
  std::uint16_t max_segments = 0xffff;  // buffers that a packet which it cuts may lie in
  bool writes_take_time =
      false;  // a frame is a system call, in which the task's kernel may do work of its own (io/port.h)

  // The queue that a worker polls.
  std::uint16_t queue_of(WorkerNumber worker) const { return is_trunk ? worker : std::uint16_t{0}; }
  // Whether it tells a worker that sleeps, without being asked to, that there is something.
  bool announces(WorkerNumber worker) const { return !wake.must_be_armed && wake.of_queue(queue_of(worker)) >= 0; }
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
  // All bytes of the key have a say: the last ones of an address are what tells neighbours apart.
  std::size_t position(const Key& key) const {
    std::uint64_t words[2] = {};
    std::memcpy(words, &key, sizeof key);
    const std::uint64_t mixed = (words[0] ^ words[1] ^ words[1] >> 32) * 0x9e3779b97f4a7c15ULL;
    return static_cast<std::size_t>(mixed >> 32 ^ mixed >> 48) & (slots_.size() - 1);
  }
  std::vector<Slot> slots_;
};

// Every endpoint's IPv4 addresses, asked about for each packet that a task sends: nearly always in vain. So a filter says so first, a bit an
// address of more than a hundred, in which few strangers meet a bit that is set: where many do, nobody can guess the branch.
class Ipv4Index {
 public:
  void add(std::uint32_t network_order, const Endpoint& endpoint) { pending_.push_back({network_order, &endpoint}); }
  void build() {
    slots_.assign(std::bit_ceil(std::max<std::size_t>(16, pending_.size() * 2)), Slot{});
    filter_.assign(std::bit_ceil(std::max<std::size_t>(1024, pending_.size() * 128)) / kWordBits, 0);
    slot_shift_ = 64U - static_cast<unsigned>(std::countr_zero(slots_.size()));
    filter_shift_ = 64U - static_cast<unsigned>(std::countr_zero(filter_.size() * kWordBits));
    for (const Slot& entry : pending_) {
      const std::uint64_t hash = hash_of(entry.address);
      filter_[hash >> filter_shift_ >> kWordShift] |= std::uint64_t{1} << (hash >> filter_shift_ & (kWordBits - 1));
      std::size_t at = hash >> slot_shift_;
      while (slots_[at].endpoint != nullptr) at = (at + 1) & (slots_.size() - 1);
      slots_[at] = entry;
    }
    pending_.clear();
  }
  void replace(const Endpoint* before, const Endpoint* after) {
    for (Slot& slot : slots_) {
      if (slot.endpoint == before) slot.endpoint = after;
    }
  }
  // To ask for a burst: what it works on is read once.
  class Filter {
   public:
    [[gnu::always_inline]] bool may_have(std::uint32_t network_order) const {
      const std::uint64_t bit = hash_of(network_order) >> shift_;
      return (words_[bit >> kWordShift] >> (bit & (kWordBits - 1)) & 1) != 0;
    }

   private:
    friend class Ipv4Index;
    Filter(const std::uint64_t* words, unsigned shift) : words_(words), shift_(shift) {}
    const std::uint64_t* words_;
    unsigned shift_;
  };
  Filter filter() const { return {filter_.data(), filter_shift_}; }
  const Endpoint* find(std::uint32_t network_order) const {
    if (!filter().may_have(network_order)) [[likely]] return nullptr;
    for (std::size_t at = hash_of(network_order) >> slot_shift_;; at = (at + 1) & (slots_.size() - 1)) {
      if (slots_[at].endpoint == nullptr || slots_[at].address == network_order) return slots_[at].endpoint;
    }
  }

 private:
  struct Slot {
    std::uint32_t address = 0;
    const Endpoint* endpoint = nullptr;
  };
  static constexpr unsigned kWordShift = 6, kWordBits = 64;
  // Of both halves of the product the upper bits depend on all of the address, and neighbours do not meet.
  static std::uint64_t hash_of(std::uint32_t address) { return address * 0x9e3779b97f4a7c15ULL; }
  std::vector<Slot> slots_, pending_;
  std::vector<std::uint64_t> filter_{0};
  unsigned slot_shift_ = 60, filter_shift_ = 63;
};

// Who answers a task's DHCP.
enum class DhcpMode : std::uint8_t { relay, answer, off };

// How the VPC's edge behaves on this host.
struct EdgeSettings {
  bool answer = false;  // answer ARP and ND for the router and remote peers, instead of relaying to the fabric
  DhcpMode dhcp = DhcpMode::relay;
  std::string dhcp_domain = "ec2.internal";
  MacAddress router_mac{{0x0a, 0, 0, 0, 0, 1}};
};

struct View {
  std::uint64_t generation = 0;
  std::vector<std::shared_ptr<const Endpoint>> endpoints;  // by EndpointId; holes are null
  std::vector<PortView> ports;                             // the trunk first
  std::uint16_t trunk_mtu = 9001;
  std::uint16_t least_mtu = 0;  // no port's is smaller
  // Queues that the trunk has, each way: worker k has queue k, and one that has none sends through worker k modulo these.
  std::uint16_t trunk_queues = 1;
  std::uint32_t endpoint_count = 0;  // made by build_indexes()
  bool limits = false;  // an endpoint has rate limits
  bool flow_logs = false;  // somebody wants records of flows
  bool moving = false;  // an endpoint's previous owner is still to hand over
  EdgeSettings edge;
  std::shared_ptr<const Members> members;

  std::vector<EndpointId> endpoint_by_ethdev;  // invalid for the trunk's, and where there is none
  std::vector<std::uint16_t> port_by_slot;  // place in `ports`, 0xffff where there is none
  std::array<EndpointId, 4096> by_vlan{};  // invalid where there is none. Numbers: what else an endpoint has is found by the same one, without waiting for it
  EndpointIndex<std::uint64_t> by_mac;  // MacAddress::as_integer(); endpoints without a VLAN
  // ENIs that are known and not in service, so that what comes for them is not called unknown.
  std::bitset<4096> waiting_vlans;
  EndpointIndex<std::uint64_t> waiting_macs;
  EndpointIndex<IpAddress> by_address;  // every endpoint's addresses
  Ipv4Index by_ipv4;                    // of these the IPv4 ones
  EndpointIndex<IpAddress> by_service;  // routers and resolvers of all endpoints' subnets: an endpoint that has it
  std::vector<EndpointId> untagged;     // endpoints without a VLAN

  const Endpoint* endpoint(EndpointId id) const {
    return id.value < endpoints.size() ? endpoints[id.value].get() : nullptr;
  }
  const PortView* port(PortSlot slot) const {
    return slot.value < port_by_slot.size() && port_by_slot[slot.value] < ports.size() ? &ports[port_by_slot[slot.value]]
                                                                                      : nullptr;
  }
  // Of the ENI by whose port a packet came in (rte_mbuf::port); invalid: the trunk, or it was made here.
  EndpointId sender_of(const rte_mbuf& packet) const {
    return packet.port < endpoint_by_ethdev.size() ? endpoint_by_ethdev[packet.port] : EndpointId{};
  }
  bool is_waiting(std::uint16_t vlan, const MacAddress& mac) const {
    return vlan != 0 ? waiting_vlans[vlan & 0xfff] : waiting_macs.find(mac.as_integer()).is_valid();
  }
  const Endpoint* at_vlan(std::uint16_t vlan) const { return endpoint(by_vlan[vlan & 0xfff]); }
  const Endpoint* with_mac(const MacAddress& mac) const { return endpoint(by_mac.find(mac.as_integer())); }
  const Endpoint* with_address(const IpAddress& address) const { return endpoint(by_address.find(address)); }
  bool is_router_or_resolver(const IpAddress& address) const { return by_service.find(address).is_valid(); }

  // Puts another object in the place of an endpoint that is there: same id, VLAN, MAC and addresses.
  void replace(const std::shared_ptr<const Endpoint>& endpoint);

  // Fills the lookup tables from `endpoints` and `ports`; the last step of building a View.
  void build_indexes();
};

}  // namespace trunkline
