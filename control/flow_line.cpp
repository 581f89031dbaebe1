// SPDX-License-Identifier: BSD-3-Clause
#include "control/flow_line.h"

#include <algorithm>

namespace trunkline::control {
namespace {

using config::FlowLogField;

constexpr std::size_t kMaxText = 512;

// Text from outside as one word of a line.
std::string word(std::string_view text) {
  if (text.empty()) return "-";
  std::string clean(text.substr(0, kMaxText));
  for (char& c : clean) {
    if (static_cast<unsigned char>(c) <= 0x20 || static_cast<unsigned char>(c) >= 0x7f) c = '_';
  }
  return clean;
}

std::string_view behind_last_slash(std::string_view arn) { return arn.substr(arn.rfind('/') + 1); }

std::uint8_t traffic_path(const EniFacts& eni, const IpAddress& remote, std::uint8_t outside) {
  const bool within = std::ranges::any_of(eni.vpc_ranges, [&](const IpPrefix& range) { return range.contains(remote); });
  return within ? 1 : outside;
}

}  // namespace

EniFacts eni_facts(const config::Attachment& attachment, EndpointId id, std::uint16_t generation, const config::DesiredState& state,
                   const config::Identity& identity) {
  EniFacts facts;
  facts.id = id;
  facts.generation = generation;
  facts.eni_id = word(attachment.eni_id);
  facts.subnet_id = word(attachment.subnet_id);
  facts.vpc_id = identity.vpc_id;
  for (const IpAddress& address : attachment.addresses) {
    if (!address.is_v4()) continue;
    facts.primary = address;
    break;
  }
  if (const config::Subnet* own = state.subnets.get(attachment.subnet_id)) {
    if (!own->vpc_id.empty()) facts.vpc_id = own->vpc_id;
    for (const auto& [subnet_id, subnet] : state.subnets) {
      if (subnet_id != own->id && (own->vpc_id.empty() || subnet.vpc_id != own->vpc_id)) continue;
      if (subnet.cidr) facts.vpc_ranges.push_back(*subnet.cidr);
      if (subnet.ipv6_cidr) facts.vpc_ranges.push_back(*subnet.ipv6_cidr);
      if (subnet.vpc_cidr) facts.vpc_ranges.push_back(*subnet.vpc_cidr);
    }
  }
  facts.vpc_id = word(facts.vpc_id);

  const config::Task& task = attachment.task;
  static constexpr std::string_view kService = "service:";
  const std::string_view service = task.group.starts_with(kService) ? std::string_view(task.group).substr(kService.size()) : "";
  const auto container = [&](std::size_t n) { return n < task.containers.size() ? std::string_view(task.containers[n].runtime_id) : ""; };
  const bool has_task = !task.task_arn.empty();
  facts.ecs = {word(task.cluster_arn),
               word(behind_last_slash(task.cluster_arn)),
               word(task.container_instance_arn),
               word(behind_last_slash(task.container_instance_arn)),
               word(container(0)),
               word(container(1)),
               word(service),
               word(task.task_definition_arn),
               word(task.task_arn),
               word(behind_last_slash(task.task_arn))};
  if (!has_task) facts.ecs.fill("-");
  return facts;
}

FlowLineWriter::FlowLineWriter(const config::FlowLog& log, const config::Identity& identity)
    : format_(log.format), identity_(identity), version_(std::to_string(log.format.version())), outside_traffic_path_(log.outside_traffic_path) {
  for (std::string* value : {&identity_.account_id, &identity_.region, &identity_.az_id, &identity_.instance_id}) {
    if (value->empty()) *value = "-";
  }
}

// What does not depend on the flow.
void FlowLineWriter::of_eni(FlowLogField field, const EniFacts& eni, std::string& out) const {
  const auto number = static_cast<std::size_t>(field);
  if (number >= EniFacts::kFirstEcsField && number < EniFacts::kFirstEcsField + EniFacts::kEcsFields) {
    out += eni.ecs[number - EniFacts::kFirstEcsField];
    return;
  }
  switch (field) {
    case FlowLogField::version: out += version_; break;
    case FlowLogField::account_id: out += identity_.account_id; break;
    case FlowLogField::interface_id: out += eni.eni_id; break;
    case FlowLogField::vpc_id: out += eni.vpc_id; break;
    case FlowLogField::subnet_id: out += eni.subnet_id; break;
    case FlowLogField::instance_id: out += identity_.instance_id; break;
    case FlowLogField::region: out += identity_.region; break;
    case FlowLogField::az_id: out += identity_.az_id; break;
    default: out += '-';  // of the flow, or of things that this engine does not have (sublocation, AWS services, reject-reason, ...)
  }
}

void FlowLineWriter::flow(const EniFacts& eni, const Flow& flow, Direction direction, const FlowTime& time, std::string& out) const {
  const FlowTotals& totals = flow.way[index(direction)];
  const bool ingress = direction == Direction::ingress;
  const IpAddress remote = flow.remote(), local = flow.local();
  const IpAddress& shown = !flow.key.is_ipv6() && eni.primary ? *eni.primary : local;
  const std::uint16_t remote_port = flow.key.remote_port_number(), local_port = flow.key.local_port_number();
  for (const FlowLogField field : format_.fields) {
    switch (field) {
      case FlowLogField::srcaddr: out += (ingress ? remote : shown).to_string(); break;
      case FlowLogField::dstaddr: out += (ingress ? shown : remote).to_string(); break;
      case FlowLogField::pkt_srcaddr: out += (ingress ? remote : local).to_string(); break;
      case FlowLogField::pkt_dstaddr: out += (ingress ? local : remote).to_string(); break;
      case FlowLogField::srcport: out += std::to_string(ingress ? remote_port : local_port); break;
      case FlowLogField::dstport: out += std::to_string(ingress ? local_port : remote_port); break;
      case FlowLogField::protocol: out += std::to_string(flow.key.protocol()); break;
      case FlowLogField::packets: out += std::to_string(totals.packets); break;
      case FlowLogField::bytes: out += std::to_string(totals.bytes); break;
      case FlowLogField::start: out += std::to_string(time.seconds_at(totals.first)); break;
      case FlowLogField::end: out += std::to_string(time.seconds_at(totals.last)); break;
      case FlowLogField::action: out += flow.action == FlowAction::accept ? "ACCEPT" : "REJECT"; break;
      case FlowLogField::log_status: out += "OK"; break;
      case FlowLogField::tcp_flags: out += std::to_string(totals.tcp_flags); break;
      case FlowLogField::type: out += flow.key.is_ipv6() ? "IPv6" : "IPv4"; break;
      case FlowLogField::flow_direction: out += to_string(direction); break;
      case FlowLogField::traffic_path: {
        const std::uint8_t path = ingress ? std::uint8_t{0} : traffic_path(eni, remote, outside_traffic_path_);
        out += path == 0 ? "-" : std::to_string(path);
        break;
      }
      default: of_eni(field, eni, out);
    }
    out += ' ';
  }
  out.back() = '\n';
}

void FlowLineWriter::without_flow(const EniFacts& eni, std::int64_t start, std::int64_t end, const char* status, std::string& out) const {
  for (const FlowLogField field : format_.fields) {
    switch (field) {
      case FlowLogField::start: out += std::to_string(start); break;
      case FlowLogField::end: out += std::to_string(end); break;
      case FlowLogField::log_status: out += status; break;
      default: of_eni(field, eni, out);
    }
    out += ' ';
  }
  out.back() = '\n';
}

}  // namespace trunkline::control
