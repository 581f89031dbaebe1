// SPDX-License-Identifier: BSD-3-Clause
#include "control/task_json.h"

#include <algorithm>
#include <vector>

#include "control/aws_reader.h"
#include "control/events.h"

namespace trunkline::control {
namespace {

using config::Attachment;
using config::Json;

// The ENIs of one task, by ENI id. An ENI without a task stands alone.
using TaskInterfaces = std::vector<const Attachment*>;

bool fits(const Attachment& attachment, std::string_view ref) {
  if (ref.empty()) return false;
  const std::string& arn = attachment.task.task_arn;
  return attachment.eni_id == ref || arn == ref || attachment.attachment_id == ref ||
         (!arn.empty() && last_part(arn) == ref);
}

std::vector<TaskInterfaces> by_task(const config::DesiredState& state) {
  std::vector<TaskInterfaces> tasks;
  std::map<std::string_view, std::size_t> places;
  for (const auto& [id, attachment] : state.attachments) {
    const std::string& arn = attachment.task.task_arn;
    const auto [place, is_new] = places.try_emplace(arn.empty() ? id : arn, tasks.size());
    if (is_new) tasks.emplace_back();
    tasks[place->second].push_back(&attachment);
  }
  return tasks;
}

void put(Json& json, const char* key, const std::string& value) {
  if (!value.empty()) json[key] = value;
}

Json attachment_json(const Attachment& attachment) {
  Json details = Json::array();
  const auto add = [&details](const char* name, const std::string& value) {
    if (!value.empty()) details.push_back({{"name", name}, {"value", value}});
  };
  // A subnet known only by its gateway has no id that AWS would know.
  if (!is_gateway_subnet_id(attachment.subnet_id)) add("subnetId", attachment.subnet_id);
  add("networkInterfaceId", attachment.eni_id);
  if (attachment.mac) add("macAddress", attachment.mac->to_string());
  add("privateDnsName", attachment.private_dns_name);
  const auto primary = std::ranges::find_if(attachment.addresses, &IpAddress::is_v4);
  if (primary != attachment.addresses.end()) add("privateIPv4Address", primary->to_string());
  return {{"id", attachment.attachment_id},
          {"type", "ElasticNetworkInterface"},
          {"status", attachment.attachment_status},
          {"details", std::move(details)}};
}

Json interface_json(const Attachment& attachment) {
  Json json = Json::object();
  put(json, "attachmentId", attachment.attachment_id);
  for (const IpAddress& address : attachment.addresses) {
    const char* key = address.is_v4() ? "privateIpv4Address" : "ipv6Address";
    if (!json.contains(key)) json[key] = address.to_string();
  }
  return json;
}

Json task_json(const TaskInterfaces& interfaces) {
  // Facts about the task come with each of its ENIs; the newest speaks.
  const config::Task& task = (*std::ranges::max_element(interfaces, {}, [](const Attachment* attachment) {
                               return attachment->task.version;
                             }))->task;
  Json json{{"attachments", Json::array()}, {"containers", Json::array()}};
  put(json, "taskArn", task.task_arn);
  put(json, "clusterArn", task.cluster_arn);
  put(json, "taskDefinitionArn", task.task_definition_arn);
  put(json, "containerInstanceArn", task.container_instance_arn);
  put(json, "group", task.group);
  put(json, "launchType", task.launch_type);
  put(json, "lastStatus", task.last_status);
  put(json, "desiredStatus", task.desired_status);
  if (task.version != 0) json["version"] = task.version;
  Json network_interfaces = Json::array();
  for (const Attachment* attachment : interfaces) {
    json["attachments"].push_back(attachment_json(*attachment));
    network_interfaces.push_back(interface_json(*attachment));
  }
  for (const auto& container : task.containers) {
    // The containers of an awsvpc task share its interfaces, and no port is mapped.
    Json entry{{"networkBindings", Json::array()}, {"networkInterfaces", network_interfaces}};
    put(entry, "containerArn", container.arn);
    put(entry, "taskArn", task.task_arn);
    put(entry, "name", container.name);
    put(entry, "runtimeId", container.runtime_id);
    put(entry, "lastStatus", container.last_status);
    json["containers"].push_back(std::move(entry));
  }
  return json;
}

}  // namespace

config::Json describe_tasks(const config::DesiredState& state, std::span<const std::string> task_refs) {
  Json result{{"tasks", Json::array()}, {"failures", Json::array()}};
  const std::vector<TaskInterfaces> tasks = by_task(state);
  std::vector<const TaskInterfaces*> chosen;
  for (const std::string& ref : task_refs) {
    std::vector<const TaskInterfaces*> found;
    for (const TaskInterfaces& task : tasks) {
      if (std::ranges::any_of(task, [&ref](const Attachment* attachment) { return fits(*attachment, ref); })) {
        found.push_back(&task);
      }
    }
    if (found.size() != 1) {
      Json failure{{"arn", ref}, {"reason", "MISSING"}};
      if (found.size() > 1) failure["detail"] = "this fits more than one task; give the task's ARN or the ENI's id";
      result["failures"].push_back(std::move(failure));
    } else if (std::ranges::find(chosen, found.front()) == chosen.end()) {
      chosen.push_back(found.front());
    }
  }
  if (task_refs.empty()) {
    for (const TaskInterfaces& task : tasks) chosen.push_back(&task);
  }
  for (const TaskInterfaces* task : chosen) result["tasks"].push_back(task_json(*task));
  return result;
}

const Attachment* find_attachment(const config::DesiredState& state, std::string_view ref) {
  // An ENI's id is unique by itself, whatever else is called so.
  if (const auto exact = state.attachments.find(std::string(ref)); exact != state.attachments.end()) {
    return &exact->second;
  }
  const Attachment* found = nullptr;
  for (const auto& [id, attachment] : state.attachments) {
    if (!fits(attachment, ref)) continue;
    if (found != nullptr) return nullptr;
    found = &attachment;
  }
  return found;
}

}  // namespace trunkline::control
