// SPDX-License-Identifier: BSD-3-Clause
//
// Shared by the readers behind read_event(): the effect and the problems found so far, and the questions that every
// reader asks of the state. Not for anyone else.
#pragma once

#include <map>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>

#include "config/desired_state.h"
#include "control/aws_reader.h"
#include "control/events.h"

namespace trunkline::control {

struct EventBuilder {
  const config::DesiredState& state;
  std::span<const config::Subnet> configured{};
  std::optional<std::int64_t> now_ms{};
  HostIdentity host{};
  EventEffect effect{};
  config::Problems problems{};
  std::set<std::string> seen_interfaces{};

  // One document that says two things about one ENI cannot be applied in any order.
  void attach(config::AttachmentFacts facts, const std::string& pointer) {
    if (!facts.eni_id || facts.eni_id->empty()) return;
    if (!seen_interfaces.insert(*facts.eni_id).second) {
      add_problem(problems,
                  {"duplicate_interface", pointer, *facts.eni_id + " is in this document twice; give it once"});
      return;
    }
    effect.attach.push_back(std::move(facts));
  }

  void detach(const std::string& eni_id) {
    if (std::ranges::find(effect.detach, eni_id) == effect.detach.end()) effect.detach.push_back(eni_id);
  }

  // What the state does not know needs no detaching.
  void detach_known(const std::string& eni_id, const std::string& attachment_id) {
    for (const auto& [id, attachment] : state.attachments) {
      if (id == eni_id || (!attachment_id.empty() && attachment.attachment_id == attachment_id)) detach(id);
    }
  }

  void detach_task(const std::string& task_arn) {
    for (const auto& [id, attachment] : state.attachments) {
      if (attachment.task.task_arn == task_arn) detach(id);
    }
  }

  // The highest version that the task's ENIs carry; nullopt: none is here. Zero: here, but only the agent told of it.
  std::optional<std::int64_t> attached_version(const std::string& task_arn) const {
    std::optional<std::int64_t> version;
    for (const auto& [id, attachment] : state.attachments) {
      if (attachment.task.task_arn == task_arn) version = std::max(version.value_or(0), attachment.task.version);
    }
    return version;
  }

  std::optional<std::int64_t> finished_version(const std::string& task_arn) const {
    const auto found = state.finished_tasks.find(task_arn);
    return found == state.finished_tasks.end() ? std::nullopt : std::optional(found->second);
  }

  const config::Subnet* find_subnet(const auto& wanted) const {
    for (const auto& [id, subnet] : state.subnets) {
      if (wanted(subnet)) return &subnet;
    }
    const auto found = std::ranges::find_if(configured, wanted);
    return found == configured.end() ? nullptr : &*found;
  }

  // The VPC that this host's ENIs are in: as the config file says, or that of the subnets of the known ones. "": not known.
  std::string own_vpc() const {
    if (!host.vpc_id.empty()) return host.vpc_id;
    std::set<std::string> vpcs;
    for (const auto& [id, attachment] : state.attachments) {
      const config::Subnet* subnet = find_subnet([&](const config::Subnet& other) { return other.id == attachment.subnet_id; });
      if (subnet != nullptr && !subnet->vpc_id.empty()) vpcs.insert(subnet->vpc_id);
    }
    return vpcs.size() == 1 ? *vpcs.begin() : std::string();
  }

  // The one subnet that `wanted` fits. Where several VPCs have such a one, that of this host's VPC; nullptr: none, or nobody can
  // tell, and then `ambiguous`.
  const config::Subnet* find_own_subnet(const auto& wanted, bool& ambiguous) const {
    std::map<std::string, const config::Subnet*> found;
    for (const config::Subnet& subnet : configured) {
      if (wanted(subnet)) found.try_emplace(subnet.id, &subnet);
    }
    for (const auto& [id, subnet] : state.subnets) {
      if (wanted(subnet)) found.insert_or_assign(id, &subnet);
    }
    ambiguous = false;
    const std::string own = own_vpc();
    std::erase_if(found, [&](const auto& each) { return !own.empty() && !each.second->vpc_id.empty() && each.second->vpc_id != own; });
    if (found.size() == 1) return found.begin()->second;
    ambiguous = found.size() > 1;
    return nullptr;
  }

  void warn(std::string sentence) { effect.warnings.push_back(std::move(sentence)); }
};

inline std::string take_task_arn(config::ObjectReader& reader, std::string_view key) {
  const auto arn = reader.text(key);
  if (!arn) {
    if (!reader.has(key)) reader.missing(key, "the task's ARN, \"arn:aws:ecs:...:task/...\"");
    return {};
  }
  if (is_task_arn(*arn)) return *arn;
  reader.complain(key, "invalid_params",
                  std::string(key) + " is " + config::words::in_quotes(*arn) +
                      ", but a task's ARN is wanted: "
                      "\"arn:aws:ecs:<region>:<account>:task/<cluster>/<id>\", the id of letters, digits and dashes");
  return {};
}

// The agent's messages (ACS); in acs_messages.cpp.
void read_agent_message(const config::Json& event, const std::string& pointer, EventBuilder& builder);

}  // namespace trunkline::control
