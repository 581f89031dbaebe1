// SPDX-License-Identifier: BSD-3-Clause
//
// A task's port as the control side sees it: the interface in the task's namespace, where the kind has one, and the
// ethdev behind it. open_task_port() makes both or neither; the object's remove_interface() ends the interface's life
// at detach, while plain destruction (an engine that stops) leaves it for the next engine to adopt.
//
// Control thread only. Opening takes milliseconds and never stops a worker.
#pragma once

#include <expected>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "config/desired_state.h"
#include "config/engine_config.h"
#include "config/problem.h"
#include "control/netns.h"
#include "dataplane/io/port.h"

namespace trunkline::control {

class TaskPort {
 public:
  virtual ~TaskPort() = default;
  virtual std::uint16_t ethdev() const = 0;
  virtual bool link_up() const = 0;
  virtual WakeSource wake() const { return {}; }
  virtual SendOffloads offloads() const { return {}; }
  virtual std::vector<Capability> capabilities() const { return {}; }
  // To be called when no worker knows the port any more, before destruction: the task's interface goes with it.
  virtual void remove_with_interface() = 0;
  // After remove_with_interface(): what of it is still there, or stands in the way of the next one, as a sentence. Empty: nothing.
  virtual std::string left_behind() const { return {}; }
};

// How ports are made; the controller is given one, so that its tests need no EAL.
using OpenTaskPort = std::function<std::expected<std::unique_ptr<TaskPort>, config::Problem>(
    const config::Attachment&, const config::Subnet&)>;

// The interface that an earlier engine made for an attachment which is not in service in this one: it goes at detach. The answer
// is why it could not be removed; empty: it is gone, or there was none.
using RemoveLeftover = std::function<std::string(const config::Attachment&)>;
std::string remove_leftover_interface(const config::Attachment& attachment);

// The real one: a tap (io/tap_driver.h, or net_tap where DPDK came without its driver SDK), virtio-user on /dev/vhost-net, net_vhost, or any devargs.
OpenTaskPort make_port_opener(rte_mempool& pool, const config::EngineConfig& config);

}  // namespace trunkline::control
