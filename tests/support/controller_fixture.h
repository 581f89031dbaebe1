// SPDX-License-Identifier: BSD-3-Clause
//
// A controller with ports that are only counted and two workers, whose turns the tests play; its journal is in a folder that goes
// with it.
#pragma once

#include <gtest/gtest.h>
#include <rte_log.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "control/controller.h"

namespace trunkline::control {

// DPDK has no such port: a worker that polls it receives nothing.
inline constexpr std::uint16_t kNoEthdev = 7;

struct FakePort final : TaskPort {
  FakePort(std::multiset<std::string>& ports, std::string name) : open_ports(ports), eni(std::move(name)) {
    open_ports.insert(eni);
  }
  ~FakePort() override { remove_with_interface(); }
  std::uint16_t ethdev() const override { return kNoEthdev; }
  bool link_up() const override { return true; }
  void remove_with_interface() override {
    if (removed) return;
    removed = true;
    open_ports.erase(open_ports.find(eni));
  }
  std::string left_behind() const override { return leaves; }
  std::multiset<std::string>& open_ports;
  std::string eni;
  bool removed = false;
  std::string leaves;  // what is left after its removal
};

class ControllerTest : public ::testing::Test {
 protected:
  ControllerTest() : published_(2) {
    rte_log_set_global_level(0);  // that there is no such port is no news
    for (WorkerNumber number = 0; number < 2; ++number) {
      owned_workers_.push_back(std::make_unique<Worker>(number, published_, IdleSettings{}, 8, 1024, 1, &mesh_));
      workers_.push_back(owned_workers_.back().get());
    }
    for (Worker* worker : workers_) worker->meet(workers_);
    config_.trunk.device = "net_null0";
    config_.limits.endpoints = 8;
    config::Subnet subnet;
    subnet.id = "subnet-c070009b";
    subnet.cidr = *IpPrefix::parse("10.0.0.0/24");
    config_.subnets = {subnet};
    directory_ = std::filesystem::temp_directory_path() / ("trunkline-controller-" + std::to_string(getpid()));
    std::filesystem::remove_all(directory_);
    std::filesystem::create_directories(directory_);
    journal_ = std::make_unique<Journal>(directory_);
    make_controller();
  }
  ~ControllerTest() override {
    controller_.reset();
    std::filesystem::remove_all(directory_);
  }

  void make_controller() {
    controller_ = std::make_unique<Controller>(
        config_, published_, workers_,
        [this](const config::Attachment& attachment, const config::Subnet&)
            -> std::expected<std::unique_ptr<TaskPort>, config::Problem> {
          if (refused_.contains(attachment.eni_id)) {
            return std::unexpected(config::Problem{"netns_missing", "/port/netns", "no namespace for " + attachment.eni_id});
          }
          auto port = std::make_unique<FakePort>(ports_, attachment.eni_id);
          port->leaves = leaves_;
          return port;
        },
        TrunkPort{.ethdev = kNoEthdev, .queues = 4}, journal_.get());
  }

  static config::Attachment attachment(int number) {
    config::Attachment result;
    result.eni_id = "eni-" + std::to_string(number);
    result.mac = MacAddress{{0x0a, 0, 0, 0, 0, static_cast<std::uint8_t>(number + 16)}};
    result.addresses = {IpAddress::from_v4(0x0a000010U + static_cast<std::uint32_t>(number))};
    result.subnet_id = "subnet-c070009b";
    result.vlan = VlanId{static_cast<std::uint16_t>(100 + number)};
    result.group_ids = {"sg-1"};
    result.port = config::PortSpec{};
    result.port->netns = "ns" + std::to_string(number);
    return result;
  }
  std::expected<ChangeResult, config::Problems> attach(int number, ChangeOptions options = {}) {
    return controller_->change(
        [&](config::DesiredState& next, std::vector<std::string>&) {
          next.attachments["eni-" + std::to_string(number)] = attachment(number);
          return config::Problems{};
        },
        options);
  }
  std::expected<ChangeResult, config::Problems> detach(int number) {
    return controller_->change([&](config::DesiredState& next, std::vector<std::string>&) {
      next.attachments.erase("eni-" + std::to_string(number));
      return config::Problems{};
    });
  }
  std::expected<ChangeResult, config::Problems> put_group(int port = 80) {
    return controller_->change([&](config::DesiredState& next, std::vector<std::string>&) {
      config::SecurityGroup group;
      group.id = "sg-1";
      config::SecurityGroupRule rule;
      rule.protocol = 6;
      rule.from_port = rule.to_port = port;
      rule.ranges = {*IpPrefix::parse("0.0.0.0/0")};
      group.ingress = {rule};
      next.security_groups["sg-1"] = group;
      return config::Problems{};
    });
  }
  const Endpoint* endpoint(int number) const {
    return published_.read()->at_vlan(static_cast<std::uint16_t>(100 + number));
  }
  std::string place(int number) const {
    const Endpoint& found = *endpoint(number);
    const auto name = [](WorkerNumber worker) { return worker == kNoWorker ? std::string("-") : std::to_string(worker); };
    return name(found.worker) + " " + name(found.served_by) + " " + name(found.previous_worker);
  }
  // The ports of the View that a worker polls, without the trunk.
  std::size_t polled_by(WorkerNumber worker) const {
    return static_cast<std::size_t>(std::ranges::count_if(published_.read()->ports, [&](const PortView& port) { return !port.is_trunk && port.polled_by == worker; }));
  }
  void turn(int times = 1) {
    for (int i = 0; i < times; ++i) {
      for (Worker* worker : workers_) worker->turn();
    }
  }
  // Until the move is over; how many ticks that took.
  int settle() {
    int ticks = 0;
    for (; published_.read()->moving && ticks < 20; ++ticks) turn(2), controller_->tick();
    return ticks;
  }

  config::EngineConfig config_;
  Published<View> published_;
  HandoffMesh mesh_{2};
  std::vector<std::unique_ptr<Worker>> owned_workers_;
  std::vector<Worker*> workers_;
  std::multiset<std::string> ports_;
  std::set<std::string> refused_;
  std::string leaves_;  // what ports opened from now on leave behind
  std::filesystem::path directory_;
  std::unique_ptr<Journal> journal_;
  std::unique_ptr<Controller> controller_;
};

}  // namespace trunkline::control
