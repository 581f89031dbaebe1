// SPDX-License-Identifier: BSD-3-Clause
//
// The second step of events.h: from what an event says to the next state.
#include <algorithm>
#include <set>

#include "control/aws/documents.h"
#include "control/aws_reader.h"
#include "control/events.h"

namespace trunkline::control {
namespace {

using config::Attachment;
using config::AttachmentFacts;
using config::DesiredState;

constexpr std::size_t kGatewaySubnetIdDigits = 10;

// nullopt: the name needs something that is not known yet, or that must not become part of a path.
std::optional<std::string> fill_in(std::string text, const Attachment& attachment) {
  const std::pair<std::string_view, std::string_view> values[] = {{"{task_id}", last_part(attachment.task.task_arn)},
                                                                  {"{eni}", attachment.eni_id},
                                                                  {"{attachment_id}", attachment.attachment_id}};
  for (const auto& [placeholder, value] : values) {
    for (std::size_t at = text.find(placeholder); at != std::string::npos; at = text.find(placeholder, at)) {
      if (!is_plain_id(value)) return std::nullopt;
      text.replace(at, placeholder.size(), value);
      at += value.size();
    }
  }
  return text;
}

// `is_new`: nobody has spoken of this ENI before. Only then is a switch, which has a value from the start, known to be
// unsaid; a default must not undo what EC2 said of SourceDestCheck.
void fill_gaps(Attachment& attachment, const AttachmentFacts& said, const AttachmentFacts& defaults, bool is_new) {
  AttachmentFacts gaps;
  if (attachment.attachment_id.empty()) gaps.attachment_id = defaults.attachment_id;
  if (is_new && !said.attachment_status) gaps.attachment_status = defaults.attachment_status;
  if (!attachment.mac) gaps.mac = defaults.mac;
  if (attachment.addresses.empty()) gaps.addresses = defaults.addresses;
  if (attachment.subnet_id.empty()) gaps.subnet_id = defaults.subnet_id;
  if (!attachment.vlan) gaps.vlan = defaults.vlan;
  if (!attachment.trunk_mac) gaps.trunk_mac = defaults.trunk_mac;
  if (attachment.group_ids.empty()) gaps.group_ids = defaults.group_ids;
  if (attachment.private_dns_name.empty()) gaps.private_dns_name = defaults.private_dns_name;
  if (is_new && !said.source_dest_check) gaps.source_dest_check = defaults.source_dest_check;
  if (is_new && !said.conntrack) gaps.conntrack = defaults.conntrack;
  if (is_new) {
    gaps.limits = defaults.limits;
    gaps.on_change = defaults.on_change;
    gaps.always_track = defaults.always_track;
    gaps.audit = defaults.audit;
    gaps.block_imds = defaults.block_imds;
  }
  if (defaults.task) {
    config::Task task = *defaults.task;
    const auto keep = [](std::string& given, const std::string& known) {
      if (!known.empty()) given.clear();
    };
    keep(task.task_arn, attachment.task.task_arn);
    keep(task.cluster_arn, attachment.task.cluster_arn);
    keep(task.task_definition_arn, attachment.task.task_definition_arn);
    keep(task.container_instance_arn, attachment.task.container_instance_arn);
    keep(task.group, attachment.task.group);
    keep(task.launch_type, attachment.task.launch_type);
    keep(task.last_status, attachment.task.last_status);
    keep(task.desired_status, attachment.task.desired_status);
    if (attachment.task.version != 0) task.version = 0;
    if (!attachment.task.containers.empty()) task.containers.clear();
    gaps.task = std::move(task);
  }
  merge(attachment, gaps);
  // Last: the port's name may use what the other defaults brought.
  if (attachment.port || !defaults.port) return;
  AttachmentFacts with_port;
  with_port.port = defaults.port;
  const auto netns = fill_in(defaults.port->netns, attachment);
  const auto socket = fill_in(defaults.port->socket, attachment);
  if (!netns || !socket) return;
  with_port.port->netns = *netns;
  with_port.port->socket = *socket;
  merge(attachment, with_port);
}

// A subnet that went by its gateway has got its name: everything that is in it moves along.
void rename_gateway_subnet(const std::string& made_up, const std::string& name, DesiredState& next) {
  if (const config::Subnet* found = next.subnets.get(made_up); found != nullptr) {
    config::Subnet subnet = *found;
    subnet.id = name;
    next.subnets.erase(made_up);
    next.subnets.try_emplace(name, std::move(subnet));
  }
  std::vector<std::string> movers;
  for (const auto& [id, attachment] : next.attachments) {
    if (attachment.subnet_id == made_up) movers.push_back(id);
  }
  for (const std::string& id : movers) next.attachments[id].subnet_id = name;
}

bool overlap(const std::optional<IpPrefix>& one, const std::optional<IpPrefix>& other) {
  return one && other && (one->contains(other->address) || other->contains(one->address));
}

// Ranges are unique within a VPC. A subnet that is told of, over the range of another one of its VPC, was made after
// the other was deleted. One in which an ENI is stays, and the change is refused as a contradiction.
void forget_deleted_subnets(const std::vector<config::Subnet>& told, DesiredState& next) {
  std::set<std::string> kept;
  for (const auto& [eni, attachment] : next.attachments) kept.insert(attachment.subnet_id);
  for (const config::Subnet& subnet : told) kept.insert(subnet.id);
  next.subnets.erase_if([&](const auto& entry) {
    const config::Subnet& old = entry.second;
    return !old.vpc_id.empty() && !kept.contains(old.id) &&
           std::ranges::any_of(told, [&](const config::Subnet& subnet) {
             return subnet.vpc_id == old.vpc_id &&
                    (overlap(subnet.cidr, old.cidr) || overlap(subnet.ipv6_cidr, old.ipv6_cidr));
           });
  });
}

// Neither ARNs nor versions tell an entry's age, so this takes one at an arbitrary place that moves with the revision;
// always the first by name would forget the same tasks at once, however recent.
void forget_finished_tasks(const std::map<std::string, std::int64_t>& just_finished, DesiredState& next) {
  auto& tasks = next.finished_tasks;
  std::uint64_t place = next.revision * 0x9e3779b97f4a7c15ULL;
  const bool sparing = just_finished.size() < kMaxFinishedTasks;
  while (tasks.size() > kMaxFinishedTasks) {
    auto victim = std::next(tasks.begin(), static_cast<std::ptrdiff_t>((place >> 32) % tasks.size()));
    while (sparing && just_finished.contains(victim->first)) {
      if (++victim == tasks.end()) victim = tasks.begin();
    }
    tasks.erase(victim->first);
    place = (place + 1) * 0x9e3779b97f4a7c15ULL;
  }
}

}  // namespace

std::string gateway_subnet_id(const IpPrefix& network) {
  static constexpr char digits[] = "0123456789abcdef";
  std::string id = "subnet-";
  const auto add = [&id](unsigned byte) { id += {digits[byte >> 4 & 15], digits[byte & 15]}; };
  for (std::size_t i = 12; i < 16; ++i) add(network.address.bytes[i]);
  add(network.length);
  return id;
}

bool is_gateway_subnet_id(std::string_view id) {
  constexpr std::string_view prefix = "subnet-";
  return id.starts_with(prefix) && id.size() == prefix.size() + kGatewaySubnetIdDigits;
}

void put_subnet(config::Subnet subnet, DesiredState& next, bool says_ipv6) {
  if (const config::Subnet* known = next.subnets.get(subnet.id); known != nullptr) {
    if (!subnet.vpc_cidr) subnet.vpc_cidr = known->vpc_cidr;
    if (!says_ipv6) subnet.ipv6_cidr = known->ipv6_cidr;
    if (subnet.vpc_id.empty()) subnet.vpc_id = known->vpc_id;
    if (subnet.availability_zone.empty()) subnet.availability_zone = known->availability_zone;
  }
  if (!subnet.vpc_cidr && !subnet.vpc_id.empty()) {
    const auto knows = [&](const auto& each) { return each.second.vpc_id == subnet.vpc_id && each.second.vpc_cidr; };
    const auto neighbour = std::ranges::find_if(next.subnets, knows);
    if (neighbour != next.subnets.end()) subnet.vpc_cidr = neighbour->second.vpc_cidr;
  }
  const std::string id = subnet.id;
  next.subnets.insert_or_assign(id, std::move(subnet));
}

void apply(EventEffect&& effect, const AttachmentFacts& defaults, DesiredState& next) {
  const std::vector<config::Subnet> told = effect.subnets;
  for (config::Subnet& subnet : effect.subnets) {
    const std::string made_up = subnet.cidr ? gateway_subnet_id(*subnet.cidr) : std::string();
    const std::string id = subnet.id;
    const config::Subnet* by_gateway = next.subnets.get(made_up);
    // The one of another VPC has the same range and is not meant.
    const bool is_same = by_gateway == nullptr || by_gateway->vpc_id.empty() || subnet.vpc_id.empty() || by_gateway->vpc_id == subnet.vpc_id;
    put_subnet(std::move(subnet), next, !effect.silent_on_ipv6.contains(id));
    if (id != made_up && is_same) rename_gateway_subnet(made_up, id, next);
  }
  forget_deleted_subnets(told, next);
  for (config::SecurityGroup& group : effect.groups) put_group(std::move(group), effect.rules_only, next);
  for (config::NetworkAcl& acl : effect.acls) {
    const std::string id = acl.id;
    next.network_acls.insert_or_assign(id, std::move(acl));
  }
  for (const std::string& gone : effect.detach) {
    next.attachments.erase_if(
        [&gone](const auto& entry) { return entry.first == gone || entry.second.attachment_id == gone; });
  }
  for (const auto& [arn, version] : effect.finished) {
    auto& known = next.finished_tasks.try_emplace(arn, version).first;
    known = std::max(known, version);
  }
  for (const AttachmentFacts& facts : effect.attach) {
    if (!facts.eni_id) continue;
    const auto [attachment, is_new] = next.attachments.try_emplace(*facts.eni_id);
    const std::string subnet_before = attachment.subnet_id;
    merge(attachment, facts);
    if (facts.task) {
      const auto finished = next.finished_tasks.find(facts.task->task_arn);
      // The attachment carries the version from here on.
      if (finished != next.finished_tasks.end() && facts.task->version > finished->second) {
        next.finished_tasks.erase(finished->first);
      }
    }
    fill_gaps(attachment, facts, defaults, is_new);
    if (attachment.subnet_id != subnet_before && is_gateway_subnet_id(subnet_before)) {
      rename_gateway_subnet(subnet_before, attachment.subnet_id, next);
    }
  }
  forget_finished_tasks(effect.finished, next);
}

}  // namespace trunkline::control
