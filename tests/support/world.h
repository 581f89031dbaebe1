// SPDX-License-Identifier: BSD-3-Clause
//
// A small VPC for tests of the packet path: endpoints with security groups, the real pipeline, virtual time, and
// accounting to the packet. Every send() tells exactly what came out where; every meter that moved must be named, and
// the test fails if anything else moved or a meter does not close.
#pragma once

#include <gtest/gtest.h>

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "config/desired_state.h"
#include "control/compile.h"
#include "dataplane/pipeline.h"
#include "tests/support/packets.h"

namespace trunkline::test {

inline config::SecurityGroupRule rule(int protocol, int from, int to, std::vector<std::string> ranges,
                                      std::vector<std::string> groups = {}) {
  config::SecurityGroupRule result;
  result.protocol = protocol;
  result.from_port = from;
  result.to_port = to;
  for (const std::string& range : ranges) result.ranges.push_back(IpPrefix::parse(range).value().network());
  result.group_ids = std::move(groups);
  return result;
}
inline config::SecurityGroupRule everything(std::vector<std::string> ranges = {"0.0.0.0/0", "::/0"}) {
  return rule(-1, -1, -1, std::move(ranges));
}

// Drops and other movements since the last look, by name: "a.egress.spoof_ip" -> 1, "trunk.in.rx" -> 1.
using Movements = std::map<std::string, std::uint64_t>;

class World {
 public:
  struct Task {
    std::string name;
    std::uint16_t vlan = 0;
    std::string mac;
    std::vector<std::string> addresses;
    std::string subnet = "10.0.0.0/24";
    std::string subnet6;
    std::vector<config::SecurityGroup> groups;
    std::uint16_t mtu = 9001;
    bool source_dest_check = true;
    std::uint32_t max_connections = 0xffffffff;
    RateLimits limits;
  };

  // What came out of one send.
  struct Output {
    std::vector<Frame> trunk;
    std::map<std::string, std::vector<Frame>> task;  // by task name
    std::vector<const rte_mbuf*> packets;            // all of them, with what their ports are asked to do
    std::size_t discarded = 0;
  };

  explicit World(std::uint32_t connections = 4096) : worker(64, connections, 42), members(std::make_shared<Members>(1024)) {
    worker.buffers = &mbufs;
    publish();
  }

  std::uint16_t add(const Task& task) {
    const auto id = static_cast<std::uint16_t>(tasks.size());
    tasks.push_back(task);
    generations.push_back(1);
    publish();
    return id;
  }

  // Makes the View anew from `tasks`; policies are compiled anew, with a new generation.
  void publish() {
    auto next = std::make_shared<View>();
    next->endpoints.resize(64);
    next->ports.push_back({kTrunkSlot, 0, true, {}});
    for (std::size_t i = 0; i < tasks.size(); ++i) {
      const Task& task = tasks[i];
      if (task.name.empty()) continue;
      auto endpoint = std::make_shared<Endpoint>();
      endpoint->id = EndpointId{static_cast<std::uint16_t>(i)};
      endpoint->generation = generations[i];
      endpoint->port = PortSlot{static_cast<std::uint16_t>(i + 1)};
      endpoint->vlan = VlanId{task.vlan};
      endpoint->mac = mac(task.mac);
      for (const std::string& address : task.addresses) {
        endpoint->address_list[endpoint->address_count++] = ip(address);
        std::vector<GroupId> ids;
        for (const auto& group : task.groups) ids.push_back(numbers.number(group.id));
        members->set(ip(address), ids);
      }
      endpoint->subnet4 = IpPrefix::parse(task.subnet).value();
      endpoint->router4 = IpAddress::from_v4(endpoint->subnet4.address.v4() + 1);
      if (!task.subnet6.empty()) {
        endpoint->has_ipv6_subnet = true;
        endpoint->subnet6 = IpPrefix::parse(task.subnet6).value();
        endpoint->router6 = endpoint->subnet6.address;
        endpoint->router6.bytes[15] = 1;
      }
      endpoint->source_dest_check = task.source_dest_check;
      endpoint->mtu = task.mtu;
      if (adjust) adjust(task, *endpoint);
      std::vector<const config::SecurityGroup*> groups;
      for (const auto& group : task.groups) groups.push_back(&group);
      endpoint->policy = control::compile_policy(groups, prefix_lists, numbers, ++policy_generation);
      endpoint->max_connections = task.max_connections;
      endpoint->limits = task.limits;
      endpoint->derive();
      next->endpoints[i] = endpoint;
      next->ports.push_back({endpoint->port, static_cast<std::uint16_t>(i + 1), false, endpoint->id});
    }
    next->edge = edge;
    next->flow_logs = flow_logs;
    next->members = members;
    next->build_indexes();
    view = next;
    worker.begin_turn(*view, worker.now, worker.micros);
  }

  Output from_trunk(const std::vector<Frame>& frames, std::size_t first_segment = SIZE_MAX) {
    Burst burst;
    for (const Frame& frame : frames) burst.add(arrived(mbufs.make(frame, first_segment)));
    process_from_trunk(burst, worker);
    return collect();
  }
  Output from_task(std::size_t task, const std::vector<Frame>& frames, std::size_t first_segment = SIZE_MAX) {
    Burst burst;
    for (const Frame& frame : frames) burst.add(arrived(mbufs.make(frame, first_segment)));
    process_from_task(burst, worker, *view->endpoints[task]);
    return collect();
  }

  // Plays the worker's flush: every port takes everything.
  Output collect() {
    Output output;
    worker.outbox.empty([&](PortSlot slot, const Outbox::Batch& batch) {
      for (rte_mbuf* packet : batch.packets) {
        const Frame frame = Mbufs::bytes_of(packet);
        EXPECT_EQ(frame.size(), packet->pkt_len);
        output.packets.push_back(packet);
        Meter& meter = slot == kTrunkSlot ? worker.trunk_out : worker.meters[slot.value - 1U].ingress;
        meter.sent(frames_of(*packet));
        if (slot == kTrunkSlot) {
          output.trunk.push_back(frame);
        } else {
          output.task[tasks[slot.value - 1U].name].push_back(frame);
        }
      }
    });
    output.discarded = worker.outbox.discarded().size();
    worker.outbox.clear_discarded();
    return output;
  }

  void pass(std::uint32_t ticks) { worker.begin_turn(*view, worker.now + ticks, worker.micros + ticks * 100000ULL); }

  // What the worker has told flow logs so far, and with the end of the interval.
  std::vector<FlowRecord> records() {
    std::vector<FlowRecord> result;
    SharedRing<FlowRecord>& ring = worker.flows.ring();
    worker.flows.flush();
    const std::uint32_t ready = ring.ready();
    for (std::uint32_t i = 0; i < ready; ++i) result.push_back(ring.front(i));
    ring.drop(ready);
    return result;
  }
  std::vector<FlowRecord> end_interval() {
    std::vector<FlowRecord> result;
    const auto take = [&] {
      for (FlowRecord& record : records()) result.push_back(record);
    };
    std::uint32_t at = 0;
    do {
      worker.connections.end_interval(at, 256, worker.flows);
      take();
    } while (at < worker.connections.high_water());
    worker.flows.begin_loose();
    while (!worker.flows.take_loose(256)) take();
    take();
    return result;
  }

  // Everything that moved since the last call. Also checks that every meter closes.
  Movements movements() {
    Movements moved;
    auto look = [&](const std::string& name, const Meter& meter) {
      const MeterReading now = MeterReading::of(meter);
      const MeterReading delta = now.since(seen[name]);
      seen[name] = now;
      EXPECT_EQ(now.unaccounted(), 0) << name;
      if (delta.rx_packets != 0) moved[name + ".rx"] = delta.rx_packets;
      if (delta.tx_packets != 0) moved[name + ".tx"] = delta.tx_packets;
      for (std::size_t i = 0; i < kDropReasonCount; ++i) {
        if (delta.drops[i] != 0) moved[name + '.' + std::string(kDropReasonTexts[i].name)] = delta.drops[i];
      }
    };
    look("trunk.in", worker.trunk_in);
    look("trunk.out", worker.trunk_out);
    for (std::size_t i = 0; i < tasks.size(); ++i) {
      const std::string name = tasks[i].name.empty() ? "gone" + std::to_string(i) : tasks[i].name;
      look(name + ".ingress", worker.meters[i].ingress);
      look(name + ".egress", worker.meters[i].egress);
    }
    return moved;
  }

  WorkerState worker;
  std::shared_ptr<const View> view;
  std::shared_ptr<Members> members;
  control::GroupNumbers numbers;
  std::map<std::string, config::PrefixList> prefix_lists;
  std::vector<Task> tasks;
  std::vector<std::uint16_t> generations;
  std::uint32_t policy_generation = 0;
  std::function<void(const Task&, Endpoint&)> adjust;  // sets what Task has no word for, with each publish()
  EdgeSettings edge;
  bool flow_logs = false;
  std::function<void(rte_mbuf&)> driver;  // what the port's driver says of each packet that arrives
  Mbufs mbufs;
  std::map<std::string, MeterReading> seen;

 private:
  rte_mbuf* arrived(rte_mbuf* packet) const {
    if (driver) driver(*packet);
    return packet;
  }
};

}  // namespace trunkline::test
