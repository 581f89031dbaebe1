// SPDX-License-Identifier: BSD-3-Clause
//
// What ECS tells the container agent: {"type":"...Message","message":{...}}. This is the only place where a branch
// ENI's VLAN is said. The checks are those that the agent itself makes before it acknowledges a message. ECS waits for an
// attachment until waitTimeoutMs after its message came: who relays the message says when that was (receivedAt, which AWS
// does not have), and without that nobody can tell.
#include <charconv>

#include "control/ec2_shapes.h"
#include "control/event_builder.h"

namespace trunkline::control {
namespace {

using config::AttachmentFacts;
using config::ObjectReader;
using config::words::in_quotes;

// Exactly one '/': the agent splits at it and refuses anything else.
std::optional<IpPrefix> read_gateway(ObjectReader& reader, std::string_view key, bool v4) {
  const auto text = reader.text(key);
  if (!text) return std::nullopt;
  const auto gateway = IpPrefix::parse(*text);
  if (gateway && gateway->is_v4() == v4) return gateway;
  reader.complain(key, "invalid_params",
                  std::string(key) + " is " + in_quotes(*text) +
                      ", but an address and a length "
                      "with one '/' between are wanted, like " +
                      (v4 ? "\"10.0.0.1/24\"" : "\"2001:db8::1/64\""));
  return std::nullopt;
}

// ECS sends the VLAN as a string; a number is what everyone expects, so that is taken as well.
std::optional<VlanId> read_vlan(ObjectReader& reader) {
  const Json* value = reader.any("vlanId");
  if (value == nullptr) {
    reader.missing("vlanId", "the branch's VLAN, \"1\" to \"4094\"");
    return std::nullopt;
  }
  std::int64_t number = -1;
  if (value->is_string()) {
    const auto& text = value->get_ref<const std::string&>();
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
    if (error != std::errc{} || end != text.data() + text.size()) number = -1;
  } else if (value->is_number_integer()) {
    number = value->is_number_unsigned() && value->get<std::uint64_t>() > 4094 ? -1 : value->get<std::int64_t>();
  }
  if (VlanId::is_valid(number)) return VlanId{static_cast<std::uint16_t>(number)};
  reader.complain("vlanId", "invalid_params",
                  "vlanId is " + config::words::describe(*value) + ", but \"1\" to \"4094\" is wanted");
  return std::nullopt;
}

void read_association(ObjectReader& reader, AttachmentFacts& facts) {
  const std::string protocol = reader.text("interfaceAssociationProtocol").value_or("default");
  if (protocol == "default" || protocol.empty()) return;
  if (protocol != "vlan") {
    reader.complain("interfaceAssociationProtocol", "invalid_params",
                    "interfaceAssociationProtocol is " + in_quotes(protocol) +
                        ", but \"default\" or \"vlan\" is wanted; "
                        "the engine's trunk carries nothing else");
    return;
  }
  const Json* properties = reader.object("interfaceVlanProperties");
  if (properties == nullptr) {
    if (!reader.has("interfaceVlanProperties")) {
      reader.missing("interfaceVlanProperties", "vlanId and trunkInterfaceMacAddress, since the protocol is \"vlan\"");
    }
    return;
  }
  ObjectReader vlan(*properties, reader.pointer_to("interfaceVlanProperties"), reader.problems());
  vlan.allow_unknown();
  facts.vlan = read_vlan(vlan);
  facts.trunk_mac = vlan.mac("trunkInterfaceMacAddress");
  if (!vlan.has("trunkInterfaceMacAddress")) vlan.missing("trunkInterfaceMacAddress", "the MAC address of the trunk");
}

// The subnet that has this network, or a new one that goes by the network until something names it.
void find_subnet(AttachmentFacts& facts, const IpPrefix& gateway, EventBuilder& builder) {
  config::Subnet subnet{.id = {}, .cidr = gateway.network(), .ipv6_cidr = {}, .availability_zone = {}, .vpc_id = builder.host.vpc_id};
  for (const IpAddress& address : *facts.addresses) {
    if (!address.is_v4()) subnet.ipv6_cidr = IpPrefix{address, 64}.network();  // the usual length, until describe-subnets says it
  }
  const auto known = builder.state.attachments.find(*facts.eni_id);
  if (known != builder.state.attachments.end() && !known->second.subnet_id.empty()) {
    // The attachment's own word stands; the gateway may still tell where that subnet is.
    subnet.id = known->second.subnet_id;
    const config::Subnet* named =
        builder.find_subnet([&](const config::Subnet& other) { return other.id == subnet.id; });
    if (named != nullptr) {
      if (named->cidr != subnet.cidr) {
        builder.warn(*facts.eni_id + " is in " + subnet.id + ", which is " + (named->cidr ? named->cidr->to_string() : "IPv6-only") +
                     ", but its gateway says " + subnet.cidr->to_string() + "; the former was kept");
      }
      return;
    }
  } else {
    bool ambiguous = false;
    const auto* same = builder.find_own_subnet([&](const config::Subnet& other) { return other.cidr == subnet.cidr; }, ambiguous);
    if (same != nullptr) {
      facts.subnet_id = same->id;
      return;
    }
    if (ambiguous) {
      builder.warn(*facts.eni_id + " is in one of several subnets of " + subnet.cidr->to_string() +
                   "; say which VPC this host is in (identity.vpc_id in the config file), or its subnet");
      return;
    }
    subnet.id = gateway_subnet_id(*subnet.cidr);
    facts.subnet_id = subnet.id;
  }
  auto& added = builder.effect.subnets;
  const auto same = std::ranges::find(added, subnet.id, &config::Subnet::id);
  if (same == added.end()) {
    added.push_back(std::move(subnet));
  } else if (!same->ipv6_cidr) {
    same->ipv6_cidr = subnet.ipv6_cidr;
  }
}

void find_subnet6(AttachmentFacts& facts, const IpAddress& address, EventBuilder& builder) {
  const auto known = builder.state.attachments.find(*facts.eni_id);
  if (known != builder.state.attachments.end() && !known->second.subnet_id.empty()) return;
  const auto* same = builder.find_subnet([&](const config::Subnet& other) { return other.ipv6_cidr && other.ipv6_cidr->contains(address); });
  if (same != nullptr) {
    facts.subnet_id = same->id;
    return;
  }
  builder.warn(*facts.eni_id + " has only IPv6 addresses, and no known subnet has " + address.to_string() +
               "; tell of it with describe-subnets");
}

void read_interface(ObjectReader& reader, AttachmentFacts& facts, EventBuilder& builder) {
  facts.eni_id = take_aws_id(reader, "ec2Id", "eni");
  facts.mac = reader.mac("macAddress");
  if (!reader.has("macAddress")) reader.missing("macAddress", "the ENI's MAC address");
  if (const auto arn = reader.text("attachmentArn"); arn && !arn->empty()) {
    facts.attachment_id = std::string(last_part(*arn));
    if (!is_plain_id(*facts.attachment_id)) {
      reader.complain("attachmentArn", "invalid_params",
                      "attachmentArn is " + in_quotes(*arn) +
                          ", but an ARN that ends "
                          "in \"attachment/<id>\" is wanted, the id of letters, digits and dashes");
    }
  }
  facts.addresses.emplace();
  for_each_in(reader, "ipv4Addresses", [&](ObjectReader& entry) {
    const auto address = read_address(entry, "privateAddress", true);
    if (address) add_address(facts, *address, entry.boolean("primary").value_or(false));
  });
  const bool has_v4 = !facts.addresses->empty();
  for_each_in(reader, "ipv6Addresses", [&](ObjectReader& entry) {
    if (const auto address = read_address(entry, "address", false)) add_address(facts, *address, false);
  });
  const bool has_v6 = !facts.addresses->empty() && !facts.addresses->back().is_v4();
  const auto gateway = read_gateway(reader, "subnetGatewayIpv4Address", true);
  const auto gateway6 = read_gateway(reader, "subnetGatewayIpv6Address", false);
  if (has_v4 && !reader.has("subnetGatewayIpv4Address")) {
    reader.missing("subnetGatewayIpv4Address", "the subnet's gateway and length, like \"10.0.0.1/24\"");
  }
  if (has_v6 && !has_v4 && !reader.has("subnetGatewayIpv6Address")) {
    reader.missing("subnetGatewayIpv6Address",
                   "the subnet's gateway and length, since the ENI has only IPv6 addresses");
  }
  if (auto name = reader.text("privateDnsName"); name && !name->empty()) facts.private_dns_name = std::move(name);
  read_association(reader, facts);
  if (!builder.problems.empty()) return;
  if (facts.addresses->empty()) {
    facts.addresses.reset();
    return;
  }
  if (has_v4 && gateway) find_subnet(facts, *gateway, builder);
  // The gateway may be link-local; the addresses are not.
  if (!has_v4 && gateway6) find_subnet6(facts, facts.addresses->front(), builder);
}

// The ENIs of one task. A task whose ENI was detached never gets one again.
void read_interfaces(ObjectReader& parent, const config::Task* task, EventBuilder& builder) {
  const bool finished = task != nullptr && builder.finished_version(task->task_arn).has_value();
  for_each_in(parent, "elasticNetworkInterfaces", [&](ObjectReader& reader) {
    AttachmentFacts facts;
    const std::size_t subnets = builder.effect.subnets.size();
    read_interface(reader, facts, builder);
    if (task == nullptr || finished) {
      builder.effect.subnets.resize(subnets);
      return;
    }
    facts.task = *task;
    builder.attach(std::move(facts), reader.pointer());
  });
  if (finished && parent.has("elasticNetworkInterfaces")) {
    builder.warn("stale_event: the agent's message for task " + std::string(last_part(task->task_arn)) +
                 " was ignored, its ENI was detached already");
  }
}

// Milliseconds since 1970. The same message again has the same receivedAt: a duplicate extends nothing.
void check_deadline(ObjectReader& message, std::optional<std::int64_t> received_ms, std::int64_t wait_ms, EventBuilder& builder) {
  if (!received_ms || !builder.now_ms || *builder.now_ms - *received_ms < wait_ms) return;
  message.complain("waitTimeoutMs", "stale_event",
                   "the message came " + std::to_string(*builder.now_ms - *received_ms) + " ms ago and ECS waited " + std::to_string(wait_ms) +
                       " ms for this attachment; ECS stops the task, so there is nothing to attach");
}

void read_attach(ObjectReader& message, bool of_task, std::optional<std::int64_t> received_ms, EventBuilder& builder) {
  message.required_text("messageId");
  config::Task task;
  task.cluster_arn = message.required_text("clusterArn");
  task.container_instance_arn = message.required_text("containerInstanceArn");
  if (of_task) task.task_arn = take_task_arn(message, "taskArn");
  if (!message.has("waitTimeoutMs")) message.missing("waitTimeoutMs", "how long ECS waits, in milliseconds, above 0");
  if (const auto wait_ms = message.integer("waitTimeoutMs", 1, std::int64_t{1} << 53)) check_deadline(message, received_ms, *wait_ms, builder);
  const Json* interfaces = message.array("elasticNetworkInterfaces");
  if (!message.has("elasticNetworkInterfaces") || (interfaces != nullptr && interfaces->empty())) {
    message.complain("elasticNetworkInterfaces", "invalid_params",
                     "the message has no elasticNetworkInterfaces; at least one ENI is wanted");
    return;
  }
  read_interfaces(message, of_task ? &task : nullptr, builder);
  if (!of_task) builder.warn("this is the trunk or an instance interface; nothing to attach");
}

void read_payload_task(ObjectReader& reader, const config::Task& of_message, EventBuilder& builder) {
  config::Task task = of_message;
  task.task_arn = take_task_arn(reader, "arn");
  task.launch_type = reader.text("launchType").value_or("");
  // "version" here is the task definition's revision, not the version of the task's changes.
  if (reader.text("desiredStatus").value_or("") != "STOPPED") {
    read_interfaces(reader, &task, builder);
    return;
  }
  // It is to stop, not stopped: the ENI serves until it is detached, so that the task can finish what it has begun.
  reader.any("elasticNetworkInterfaces");
  builder.warn("task " + task.task_arn + " is to stop; its ENI serves until an event or task detach says that it is gone");
}

void read_payload(ObjectReader& message, EventBuilder& builder) {
  message.required_text("messageId");
  config::Task task;
  task.cluster_arn = message.text("clusterArn").value_or("");
  task.container_instance_arn = message.text("containerInstanceArn").value_or("");
  const Json* tasks = message.array("tasks");
  if (!message.has("tasks") || (tasks != nullptr && tasks->empty())) {
    message.complain("tasks", "invalid_params", "the payload has no tasks; at least one is wanted");
    return;
  }
  for_each_in(message, "tasks", [&](ObjectReader& reader) { read_payload_task(reader, task, builder); });
}

}  // namespace

void read_agent_message(const Json& event, const std::string& pointer, EventBuilder& builder) {
  ObjectReader envelope(event, pointer, builder.problems);
  envelope.allow_unknown();
  const std::string type = envelope.required_text("type");
  const auto received_ms = envelope.integer("receivedAt", 0, std::int64_t{1} << 53);
  const Json* body = envelope.object("message");
  if (type.empty() || body == nullptr) return;
  ObjectReader message(*body, envelope.pointer_to("message"), builder.problems);
  message.allow_unknown();
  if (type == "AttachTaskNetworkInterfacesMessage") {
    read_attach(message, true, received_ms, builder);
  } else if (type == "AttachInstanceNetworkInterfacesMessage") {
    read_attach(message, false, received_ms, builder);
  } else if (type == "PayloadMessage") {
    read_payload(message, builder);
  } else {
    envelope.complain(
        "type", "invalid_params",
        "the message's type is " + in_quotes(type) +
            ", but "
            "AttachTaskNetworkInterfacesMessage, AttachInstanceNetworkInterfacesMessage or PayloadMessage is "
            "wanted; the others say nothing about a task's network");
  }
}

}  // namespace trunkline::control
