// SPDX-License-Identifier: BSD-3-Clause
//
// An engine without ports: a real Controller and Workers (two, unless said otherwise) that nobody runs. The test plays their turns, or lets a thread answer
// what control asks of them.
#pragma once

#include <gtest/gtest.h>
#include <rte_log.h>

#include <atomic>
#include <chrono>
#include <functional>
#include <thread>

#include "control/controller.h"
#include "control/inspector.h"
#include "dataplane/pipeline.h"
#include "tests/support/world.h"

namespace trunkline::test {

class Engine {
 public:
  // DPDK has no such port: a worker that polls it receives nothing.
  static constexpr std::uint16_t kNoEthdev = 7;

  struct NoPort final : control::TaskPort {
    std::uint16_t ethdev() const override { return kNoEthdev; }
    bool link_up() const override { return true; }
    void remove_with_interface() override {}
  };

  explicit Engine(const std::function<void(config::EngineConfig&)>& adjust = {}, WorkerNumber worker_count = 2) : published(worker_count), mesh(worker_count) {
    rte_log_set_global_level(0);  // that there is no such port is no news
    config.trunk.device = "net_null0";
    config.limits.endpoints = 8;
    config::Subnet subnet;
    subnet.id = "subnet-c070009b";
    subnet.cidr = *IpPrefix::parse("10.0.0.0/24");
    subnet.ipv6_cidr = *IpPrefix::parse("2001:db8:1::/64");
    config.subnets = {subnet};
    if (adjust) adjust(config);
    for (WorkerNumber number = 0; number < worker_count; ++number) {
      owned.push_back(std::make_unique<Worker>(number, published, IdleSettings{}, 8, 1024, number + 1U, &mesh));
      workers.push_back(owned.back().get());
    }
    for (Worker* worker : workers) worker->meet(workers);
    controller = std::make_unique<control::Controller>(
        config, published, workers,
        [](const config::Attachment&, const config::Subnet&) -> std::expected<std::unique_ptr<control::TaskPort>, config::Problem> {
          return std::make_unique<NoPort>();
        },
        control::TrunkPort{.ethdev = kNoEthdev, .queues = worker_count}, nullptr);
    inspector = std::make_unique<control::Inspector>(controller->workers());
    answering = std::thread([this] {
      while (!stopping) {
        for (Worker* worker : workers) {
          if (worker->inspections.has_request())
            worker->inspections.step(
                {worker->state.connections, worker->state.fragments, worker->state.asked, controller->view()},
                worker->state.now, 100);
        }
        // Not a busy loop: on two cores it would take the turn of whoever asks.
        std::this_thread::sleep_for(std::chrono::microseconds(20));
      }
    });
  }
  ~Engine() {
    stopping = true;
    answering.join();
  }

  void change(const std::function<void(config::DesiredState&)>& edit) {
    const auto result = controller->change([&](config::DesiredState& next, std::vector<std::string>&) {
      edit(next);
      return config::Problems{};
    });
    ASSERT_TRUE(result) << result.error().front().message;
    for (Worker* worker : workers) worker->state.view = &controller->view();
  }
  void put_group(const config::SecurityGroup& group) {
    change([&](config::DesiredState& next) { next.security_groups.insert_or_assign(group.id, group); });
  }
  // eni-N: VLAN 100 + N, 10.0.0.(16 + N), 2001:db8:1::1N, in a namespace nsN. The first is worker 0's, the next worker 1's.
  void attach(int number, const std::string& group) {
    change([&](config::DesiredState& next) {
      config::Attachment attachment;
      attachment.eni_id = "eni-" + std::to_string(number);
      attachment.mac = MacAddress{{0x0a, 0, 0, 0, 0, static_cast<std::uint8_t>(number + 16)}};
      attachment.addresses = {IpAddress::from_v4(0x0a000010U + static_cast<std::uint32_t>(number)), ip("2001:db8:1::1" + std::to_string(number))};
      attachment.subnet_id = "subnet-c070009b";
      attachment.vlan = VlanId{static_cast<std::uint16_t>(100 + number)};
      attachment.group_ids = {group};
      attachment.port = config::PortSpec{};
      attachment.port->netns = "ns" + std::to_string(number);
      next.attachments.insert_or_assign(attachment.eni_id, attachment);
    });
  }
  const Endpoint& endpoint(int number) const { return *controller->active().at("eni-" + std::to_string(number)).endpoint; }
  // A real packet through the worker that owns its ENI.
  DropReason from_trunk(const Frame& frame) {
    Burst burst;
    burst.add(mbufs.make(frame));
    WorkerState& worker = workers[controller->view().at_vlan(static_cast<std::uint16_t>(frame[14] << 8 | frame[15]))->worker]->state;
    process_from_trunk(burst, worker);
    forget_output(worker);
    return burst.verdict[0];
  }
  DropReason from_task(int number, const Frame& frame) {
    Burst burst;
    burst.add(mbufs.make(frame));
    WorkerState& worker = workers[endpoint(number).worker]->state;
    process_from_task(burst, worker, endpoint(number));
    forget_output(worker);
    return burst.verdict[0];
  }

  Published<View> published;
  HandoffMesh mesh;
  config::EngineConfig config;
  std::vector<std::unique_ptr<Worker>> owned;
  std::vector<Worker*> workers;
  std::unique_ptr<control::Controller> controller;
  std::unique_ptr<control::Inspector> inspector;
  Mbufs mbufs;

 private:
  static void forget_output(WorkerState& worker) {
    worker.outbox.empty([](PortSlot, const Outbox::Batch&) {});
    worker.outbox.clear_discarded();
  }

  std::atomic<bool> stopping{false};
  std::thread answering;
};

}  // namespace trunkline::test
