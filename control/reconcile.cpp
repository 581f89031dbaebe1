// SPDX-License-Identifier: BSD-3-Clause
#include "control/reconcile.h"

#include "config/validate.h"

namespace trunkline::control {
namespace {

// What the task's interface is made of; a change here needs a new port, any other change only a new endpoint.
bool same_interface(const config::Attachment& a, const config::Attachment& b) {
  return a.port == b.port && a.mac == b.mac && a.addresses == b.addresses && a.subnet_id == b.subnet_id;
}

// What a worker sees of an attachment, beside its policy's contents.
bool same_endpoint(const config::Attachment& a, const config::Attachment& b) {
  return a.vlan == b.vlan && a.group_ids == b.group_ids && a.source_dest_check == b.source_dest_check &&
         a.conntrack == b.conntrack && a.limits == b.limits && a.on_change == b.on_change && a.always_track == b.always_track &&
         a.audit == b.audit && a.block_imds == b.block_imds;
}

}  // namespace

std::string port_name(const config::PortSpec& port) {
  switch (port.kind) {
    case config::PortKind::tap: return "tap:" + port.netns + '/' + port.ifname;
    case config::PortKind::virtio_user: return "virtio-user:" + port.netns + '/' + port.ifname;
    case config::PortKind::vhost_user: return "vhost-user:" + port.socket;
    case config::PortKind::vdev: return "vdev:" + port.devargs.substr(0, port.devargs.find(','));
  }
  return "?";
}

std::vector<Step> plan(const ActiveAttachments& active, const config::DesiredState& desired,
                       const config::EngineConfig& config, const std::set<std::string>* among) {
  std::vector<Step> leaving, coming, changing;
  const auto look = [&](const std::string& eni, const config::Attachment* present, const config::Attachment* wanted) {
    const bool complete = wanted != nullptr && !config::missing_facts(*wanted, desired, config);
    if (present != nullptr && complete && same_interface(*present, *wanted)) {
      if (!same_endpoint(*present, *wanted)) changing.push_back({StepKind::update, eni, "update " + eni});
      return;
    }
    if (present != nullptr) {
      leaving.push_back({StepKind::withdraw, eni, "withdraw " + eni});
      leaving.push_back({StepKind::close_port, eni, "close " + port_name(*present->port)});
    }
    if (complete) {
      coming.push_back({StepKind::open_port, eni, "open " + port_name(*wanted->port)});
      coming.push_back({StepKind::admit, eni, "admit " + eni});
    }
  };
  const auto find_present = [&](const std::string& eni) {
    const auto found = active.find(eni);
    return found == active.end() ? nullptr : &found->second;
  };
  if (among != nullptr) {
    for (const std::string& eni : *among) look(eni, find_present(eni), desired.attachments.get(eni));
  } else {
    for (const auto& [eni, present] : active) {
      if (!desired.attachments.contains(eni)) look(eni, &present, nullptr);
    }
    for (const auto& [eni, wanted] : desired.attachments) look(eni, find_present(eni), &wanted);
  }
  std::vector<Step> steps = std::move(leaving);
  steps.insert(steps.end(), coming.begin(), coming.end());
  steps.insert(steps.end(), changing.begin(), changing.end());
  return steps;
}

}  // namespace trunkline::control
