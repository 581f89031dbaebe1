// SPDX-License-Identifier: BSD-3-Clause
//
// What the in-process benchmarks of the packet path work on: endpoints with compiled security groups, one worker's state, and
// packets in a ring of buffers spaced as a packet pool spaces them. No EAL, no I/O.
//
// The ring is rewritten between two samples with the headers of the next flows and then used once, so that the headers are
// in the second-level cache, where a network card or a vhost copy leaves them, and the connection table
// sees flows in an order that no cache can guess.
#pragma once

#include <rte_mbuf.h>
#include <sys/mman.h>

#include <cstring>
#include <memory>
#include <random>
#include <stdexcept>
#include <vector>

#include "config/desired_state.h"
#include "control/compile.h"
#include "dataplane/pipeline.h"

namespace trunkline::bench {

inline constexpr std::uint32_t kBurst = 32;

// Packet buffers as a pool lays them out: header, headroom, data.
class Ring {
 public:
  static constexpr std::uint32_t kPackets = 1024;
  static constexpr std::uint16_t kHeadroom = 128, kRoom = 2176;
  static constexpr std::size_t kStride = sizeof(rte_mbuf) + kRoom + 64;

  Ring() : bytes_(kPackets * kStride) {
    memory_ = mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory_ == MAP_FAILED) throw std::runtime_error("no memory for packets");
    madvise(memory_, bytes_, MADV_HUGEPAGE);
    for (std::uint32_t i = 0; i < kPackets; ++i) {
      rte_mbuf* packet = at(i);
      std::memset(static_cast<void*>(packet), 0, sizeof *packet);
      packet->buf_addr = reinterpret_cast<std::uint8_t*>(packet) + sizeof(rte_mbuf);
      packet->buf_len = kRoom;
      packet->nb_segs = 1;
      packet->refcnt = 1;
    }
  }
  ~Ring() { munmap(memory_, bytes_); }
  Ring(const Ring&) = delete;
  Ring& operator=(const Ring&) = delete;

  rte_mbuf* at(std::uint32_t i) const { return reinterpret_cast<rte_mbuf*>(static_cast<std::uint8_t*>(memory_) + i * kStride); }
  std::uint8_t* start(std::uint32_t i, std::uint32_t bytes) {
    rte_mbuf* packet = at(i);
    packet->data_off = kHeadroom;
    packet->data_len = static_cast<std::uint16_t>(bytes);
    packet->pkt_len = bytes;
    return rte_pktmbuf_mtod(packet, std::uint8_t*);
  }

 private:
  std::size_t bytes_;
  void* memory_;
};

// One flow towards an endpoint, in host order.
struct Flow {
  std::uint32_t remote;
  std::uint16_t remote_port, local_port;
  std::uint16_t endpoint;
  std::uint8_t protocol;
};

struct Rules {
  std::vector<config::SecurityGroup> groups;
  std::map<std::string, config::PrefixList> prefix_lists;
};

// What anybody may reach, and everything out: the common security group, untracked in AWS's sense.
inline Rules open_rules() {
  config::SecurityGroup group;
  group.id = "sg-0000000a";
  config::SecurityGroupRule in, out;
  in.protocol = -1;
  in.ranges = {IpPrefix::parse("0.0.0.0/0").value()};
  out = in;
  group.ingress = {in};
  group.egress = {out};
  return {{group}, {}};
}

// `count` rules a direction, tracked: ports here and there from networks here and there, one in ten from a group, one from a
// prefix list of 1000 networks.
inline Rules many_rules(unsigned count, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  Rules rules;
  config::SecurityGroup group;
  group.id = "sg-0000000b";
  config::PrefixList list;
  list.id = "pl-0000000a";
  for (unsigned i = 0; i < 1000; ++i) {
    list.entries.push_back(IpPrefix{IpAddress::from_v4(0x64000000U + (i << 12)), 24});
  }
  rules.prefix_lists[list.id] = list;
  for (auto* direction : {&group.ingress, &group.egress}) {
    for (unsigned i = 0; i < count; ++i) {
      config::SecurityGroupRule rule;
      rule.protocol = i % 4 == 3 ? 17 : 6;
      rule.from_port = static_cast<int>(random() % 60000);
      rule.to_port = i % 3 == 0 ? rule.from_port : rule.from_port + static_cast<int>(random() % 500);
      if (i == count / 2) {
        rule.prefix_list_ids = {list.id};
      } else if (i % 10 == 9) {
        rule.group_ids = {"sg-0000000c"};
      } else {
        rule.ranges = {IpPrefix{IpAddress::from_v4(0xac000000U | (static_cast<std::uint32_t>(random()) & 0x00ffff00U)), 24}};
      }
      direction->push_back(std::move(rule));
    }
  }
  rules.groups = {std::move(group)};
  return rules;
}

class BenchWorld {
 public:
  static constexpr std::uint32_t kRouterSide = 0x0a000001;

  BenchWorld(unsigned endpoints, const Rules& rules, std::uint32_t connections)
      : worker(endpoints + 1, connections, 7), members(std::make_shared<Members>(20000)) {
    auto next = std::make_shared<View>();
    next->endpoints.resize(endpoints);
    next->ports.push_back({kTrunkSlot, 0, true, {}});
    next->members = members;
    std::vector<const config::SecurityGroup*> groups;
    for (const auto& group : rules.groups) groups.push_back(&group);
    const auto policy = control::compile_policy(groups, rules.prefix_lists, numbers, 1);
    for (unsigned i = 0; i < endpoints; ++i) {
      auto endpoint = std::make_shared<Endpoint>();
      endpoint->id = EndpointId{static_cast<std::uint16_t>(i)};
      endpoint->generation = 1;
      endpoint->port = PortSlot{static_cast<std::uint16_t>(i + 1)};
      endpoint->vlan = VlanId{static_cast<std::uint16_t>(i % 4094 + 1)};
      endpoint->mac = MacAddress{{0x0a, 0, 0, 1, static_cast<std::uint8_t>(i >> 8), static_cast<std::uint8_t>(i)}};
      endpoint->address_list[0] = IpAddress::from_v4(address_of(i));
      endpoint->address_count = 1;
      endpoint->subnet4 = IpPrefix::parse("10.0.0.0/16").value();
      endpoint->router4 = IpAddress::from_v4(kRouterSide);
      endpoint->policy = policy;
      endpoint->derive();
      next->endpoints[i] = endpoint;
      next->ports.push_back({endpoint->port, static_cast<std::uint16_t>(i + 1), false, endpoint->id});
    }
    next->build_indexes();
    view = own_view_ = next;
    worker.view = view.get();
  }

  static std::uint32_t address_of(unsigned endpoint) { return 0x0a000100U + endpoint; }

  // Packet number i of the ring: a TCP segment or datagram of the flow, 64 bytes on the wire, towards the endpoint (tagged) or
  // from it.
  void write(std::uint32_t i, const Flow& flow, Direction direction, std::uint8_t tcp_flags, std::uint32_t ip_bytes = 46) {
    const bool ingress = direction == Direction::ingress;
    const std::uint32_t tag = ingress ? 4 : 0;
    std::uint8_t* frame = ring.start(i, 14 + tag + ip_bytes);
    const Endpoint& endpoint = *view->endpoints[flow.endpoint];
    static constexpr std::uint8_t router[6] = {0x0a, 0, 0, 0, 0, 1};
    std::memcpy(frame + (ingress ? 0 : 6), endpoint.mac.bytes.data(), 6);
    std::memcpy(frame + (ingress ? 6 : 0), router, 6);
    std::uint8_t* at = frame + 12;
    if (ingress) store16(at, 0x8100), store16(at + 2, endpoint.vlan.value), at += 4;
    store16(at, 0x0800);
    std::uint8_t* ip = at + 2;
    std::memset(ip, 0, 40);
    ip[0] = 0x45;
    store16(ip + 2, static_cast<std::uint16_t>(ip_bytes));
    ip[8] = 64, ip[9] = flow.protocol;
    const std::uint32_t remote = __builtin_bswap32(flow.remote), local = __builtin_bswap32(address_of(flow.endpoint));
    std::memcpy(ip + 12, ingress ? &remote : &local, 4);
    std::memcpy(ip + 16, ingress ? &local : &remote, 4);
    store16(ip + 20, ingress ? flow.remote_port : flow.local_port);
    store16(ip + 22, ingress ? flow.local_port : flow.remote_port);
    if (flow.protocol == 6) {
      ip[32] = 0x50, ip[33] = tcp_flags;
    } else {
      store16(ip + 24, static_cast<std::uint16_t>(ip_bytes - 20));
    }
  }

  // What the worker does after a turn, but for the driver: every port's queue is taken, what is refused is freed.
  void flush() {
    worker.outbox.empty([&](PortSlot slot, const Outbox::Batch& batch) {
      Meter& meter = slot == kTrunkSlot ? worker.trunk_out : worker.meters[slot.value - 1U].ingress;
      meter.sent({batch.packets.size(), batch.bytes});
      forwarded += batch.packets.size();
    });
    worker.outbox.clear_discarded();
  }

  void burst_at(Burst& burst, std::uint32_t first, std::uint32_t count = kBurst) const {
    for (std::uint32_t i = 0; i < count; ++i) burst.mbuf[i] = ring.at(first + i);
    burst.received(count);
  }

  // As if an endpoint had rate limits.
  void set_limits(bool limits) { own_view_->limits = limits; }

  WorkerState worker;
  std::shared_ptr<Members> members;
  std::shared_ptr<const View> view;
  control::GroupNumbers numbers;
  Ring ring;
  std::uint64_t forwarded = 0;

 private:
  std::shared_ptr<View> own_view_;
};

// `count` flows over the world's endpoints, all different; flow k is endpoint k modulo endpoints.
inline Flow open_flow(std::uint32_t k, unsigned endpoints, std::uint8_t protocol = 6) {
  const std::uint32_t of_endpoint = k / endpoints;
  return {0xc6330000U + (of_endpoint & 0xffff), static_cast<std::uint16_t>(1024 + (of_endpoint >> 16)), 80,
          static_cast<std::uint16_t>(k % endpoints), protocol};
}

inline std::vector<std::uint32_t> shuffled(std::uint32_t count, std::uint64_t seed) {
  std::vector<std::uint32_t> order(count);
  for (std::uint32_t i = 0; i < count; ++i) order[i] = i;
  std::shuffle(order.begin(), order.end(), std::mt19937_64(seed));
  return order;
}

}  // namespace trunkline::bench
