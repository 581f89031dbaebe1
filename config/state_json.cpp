// SPDX-License-Identifier: BSD-3-Clause
//
// Writers first, readers after, in the same order. Members that say nothing (an unknown MAC, an empty list of an
// attachment) are left out, so that what is written is as short as what an operator would write.
#include "config/state_json.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "config/protocol.h"
#include "config/validate.h"
#include "config/words.h"

namespace trunkline::config {
namespace {

constexpr std::int64_t kMaxInteger = std::numeric_limits<std::int64_t>::max();

constexpr std::pair<std::string_view, PortKind> kPortKinds[] = {{"tap", PortKind::tap},
                                                                {"virtio-user", PortKind::virtio_user},
                                                                {"vhost-user", PortKind::vhost_user},
                                                                {"vdev", PortKind::vdev}};

template <typename List>
Json texts_of(const List& list) {
  Json result = Json::array();
  for (const auto& each : list) result.push_back(each.to_string());
  return result;
}

void put_text(Json& object, const char* key, const std::string& text) {
  if (!text.empty()) object[key] = text;
}

Json rules_to_json(const std::vector<SecurityGroupRule>& rules) {
  Json list = Json::array();
  for (const SecurityGroupRule& rule : rules) {
    Json each{{"protocol", protocol_text(rule.protocol)},
              {"ranges", texts_of(rule.ranges)},
              {"prefix_lists", rule.prefix_list_ids},
              {"groups", rule.group_ids}};
    if (has_ports(rule.protocol) || rule.protocol == kIcmp || rule.from_port != -1 || rule.to_port != -1) {
      each["from_port"] = rule.from_port;
      each["to_port"] = rule.to_port;
    }
    list.push_back(std::move(each));
  }
  return list;
}

Json task_to_json(const Task& task) {
  Json object = Json::object();
  put_text(object, "task_arn", task.task_arn);
  put_text(object, "cluster_arn", task.cluster_arn);
  put_text(object, "task_definition_arn", task.task_definition_arn);
  put_text(object, "container_instance_arn", task.container_instance_arn);
  put_text(object, "group", task.group);
  put_text(object, "launch_type", task.launch_type);
  put_text(object, "last_status", task.last_status);
  put_text(object, "desired_status", task.desired_status);
  if (task.version != 0) object["version"] = task.version;
  for (const Task::Container& container : task.containers) {
    Json each = Json::object();
    put_text(each, "arn", container.arn);
    put_text(each, "name", container.name);
    put_text(each, "runtime_id", container.runtime_id);
    put_text(each, "last_status", container.last_status);
    object["containers"].push_back(std::move(each));
  }
  return object;
}

}  // namespace

Json to_json(const PortSpec& port) {
  Json object{{"mtu", port.mtu}};
  for (const auto& [name, kind] : kPortKinds) {
    if (kind == port.kind) object["kind"] = name;
  }
  switch (port.kind) {
    case PortKind::tap:
    case PortKind::virtio_user:
      object["netns"] = port.netns;
      object["ifname"] = port.ifname;
      object["default_route"] = port.default_route;
      break;
    case PortKind::vhost_user:
      object["socket"] = port.socket;
      object["client"] = port.client;
      break;
    case PortKind::vdev: object["devargs"] = port.devargs; break;
  }
  if (!port.offloads) object["offloads"] = false;
  return object;
}

Json to_json(const Subnet& subnet) {
  Json object = Json::object();
  if (subnet.cidr) object["cidr"] = subnet.cidr->to_string();
  if (subnet.ipv6_cidr) object["ipv6_cidr"] = subnet.ipv6_cidr->to_string();
  put_text(object, "availability_zone", subnet.availability_zone);
  put_text(object, "vpc_id", subnet.vpc_id);
  if (subnet.vpc_cidr) object["vpc_cidr"] = subnet.vpc_cidr->to_string();
  return object;
}

Json to_json(const SecurityGroup& group) {
  Json object{{"ingress", rules_to_json(group.ingress)}, {"egress", rules_to_json(group.egress)}};
  put_text(object, "name", group.name);
  put_text(object, "description", group.description);
  put_text(object, "vpc_id", group.vpc_id);
  return object;
}

Json to_json(const Attachment& attachment) {
  const ConnectionTracking& conntrack = attachment.conntrack;
  Json object{{"eni", attachment.eni_id},
              {"attachment_status", attachment.attachment_status},
              {"source_dest_check", attachment.source_dest_check},
              {"conntrack",
               {{"TcpEstablishedTimeout", conntrack.tcp_established_timeout},
                {"UdpStreamTimeout", conntrack.udp_stream_timeout},
                {"UdpTimeout", conntrack.udp_timeout}}}};
  put_text(object, "attachment_id", attachment.attachment_id);
  if (attachment.mac) object["mac"] = attachment.mac->to_string();
  if (!attachment.addresses.empty()) object["addresses"] = texts_of(attachment.addresses);
  if (!attachment.prefixes.empty()) object["prefixes"] = texts_of(attachment.prefixes);
  put_text(object, "subnet", attachment.subnet_id);
  if (attachment.vlan && attachment.vlan->is_untagged()) object["vlan"] = "untagged";
  if (attachment.vlan && !attachment.vlan->is_untagged()) object["vlan"] = attachment.vlan->value;
  if (attachment.trunk_mac) object["trunk_mac"] = attachment.trunk_mac->to_string();
  if (!attachment.group_ids.empty()) object["groups"] = attachment.group_ids;
  if (attachment.port) object["port"] = to_json(*attachment.port);
  put_text(object, "private_dns_name", attachment.private_dns_name);
  put_settings(object, attachment);
  if (attachment.task != Task{}) object["task"] = task_to_json(attachment.task);
  return object;
}

Json to_json(const DesiredState& state) {
  Json object{{"revision", state.revision}};
  for (const char* key :
       {"subnets", "security_groups", "prefix_lists", "network_acls", "remote_members", "attachments", "finished_tasks"}) {
    object[key] = Json::object();
  }
  for (const auto& [id, subnet] : state.subnets) object["subnets"][id] = to_json(subnet);
  for (const auto& [id, group] : state.security_groups) object["security_groups"][id] = to_json(group);
  for (const auto& [id, list] : state.prefix_lists) object["prefix_lists"][id]["entries"] = texts_of(list.entries);
  for (const auto& [id, acl] : state.network_acls) object["network_acls"][id] = to_json(acl);
  for (const auto& [id, members] : state.remote_members) object["remote_members"][id] = texts_of(members);
  for (const auto& [id, attachment] : state.attachments) {
    Json each = to_json(attachment);
    each.erase("eni");  // the key says it
    object["attachments"][id] = std::move(each);
  }
  for (const auto& [arn, version] : state.finished_tasks) object["finished_tasks"][arn] = version;
  return object;
}

// ---------------------------------------------------------------------------------------------------------------------

namespace {

std::vector<SecurityGroupRule> read_rules(ObjectReader& reader, std::string_view key) {
  std::vector<SecurityGroupRule> rules;
  const Json* list = reader.array(key);
  if (list == nullptr) return rules;
  for (std::size_t i = 0; i < list->size(); ++i) {
    Problems& problems = reader.problems();
    const std::size_t problems_before = problems.size();
    ObjectReader each((*list)[i], pointer_to(reader.pointer_to(key), i), problems);
    each.refuse_null();
    SecurityGroupRule rule;
    rule.protocol = read_protocol(each);
    rule.from_port = static_cast<int>(each.integer("from_port", -1, 65535).value_or(-1));
    rule.to_port = static_cast<int>(each.integer("to_port", -1, 65535).value_or(-1));
    rule.ranges = each.networks("ranges");
    rule.prefix_list_ids = read_ids(each, "prefix_lists", "pl");
    rule.group_ids = read_ids(each, "groups", "sg");
    if (has_ports(rule.protocol) || rule.protocol == kIcmp) {
      for (const char* port : {"from_port", "to_port"}) {
        if (!each.has(port))
          each.missing(port, "a number, since tcp, udp and icmp rules need both from_port and to_port");
      }
    }
    each.finish();
    if (problems.size() == problems_before) check_rule(rule, each.pointer(), problems);
    rules.push_back(std::move(rule));
  }
  return rules;
}

ConnectionTracking read_conntrack(const Json& value, std::string pointer, Problems& problems) {
  ConnectionTracking result;
  ObjectReader reader(value, std::move(pointer), problems);
  reader.refuse_null();
  const auto seconds = [&](const char* key, std::int64_t least, std::int64_t most, std::uint32_t otherwise) {
    return static_cast<std::uint32_t>(reader.integer(key, least, most).value_or(otherwise));
  };
  result.tcp_established_timeout = seconds("TcpEstablishedTimeout", 60, 432000, result.tcp_established_timeout);
  result.udp_timeout = seconds("UdpTimeout", 30, 60, result.udp_timeout);
  result.udp_stream_timeout = seconds("UdpStreamTimeout", 60, 180, result.udp_stream_timeout);
  reader.finish();
  return result;
}

Task read_task(const Json& value, std::string pointer, Problems& problems) {
  Task task;
  ObjectReader reader(value, std::move(pointer), problems);
  reader.refuse_null();
  task.task_arn = reader.text("task_arn").value_or("");
  task.cluster_arn = reader.text("cluster_arn").value_or("");
  task.task_definition_arn = reader.text("task_definition_arn").value_or("");
  task.container_instance_arn = reader.text("container_instance_arn").value_or("");
  task.group = reader.text("group").value_or("");
  task.launch_type = reader.text("launch_type").value_or("");
  task.last_status = reader.text("last_status").value_or("");
  task.desired_status = reader.text("desired_status").value_or("");
  task.version = reader.integer("version", 0, kMaxInteger).value_or(0);
  if (const Json* list = reader.array("containers")) {
    for (std::size_t i = 0; i < list->size(); ++i) {
      ObjectReader each((*list)[i], pointer_to(reader.pointer_to("containers"), i), problems);
      each.refuse_null();
      task.containers.push_back({each.text("arn").value_or(""), each.text("name").value_or(""),
                                 each.text("runtime_id").value_or(""), each.text("last_status").value_or("")});
      each.finish();
    }
  }
  reader.finish();
  return task;
}

SecurityGroup read_group(ObjectReader& reader, const std::string& id) {
  SecurityGroup group;
  group.id = id;
  group.name = reader.text("name").value_or("");
  group.description = reader.text("description").value_or("");
  group.vpc_id = reader.text("vpc_id").value_or("");
  group.ingress = read_rules(reader, "ingress");
  group.egress = read_rules(reader, "egress");
  return group;
}

std::optional<std::string> read_id(ObjectReader& reader, std::string_view key, std::string_view kind) {
  auto text = reader.text(key);
  if (!text || is_resource_id(kind, *text)) return text;
  reader.complain(key, "invalid_params",
                  words::in_quotes(key) + " is " + words::in_quotes(*text) + "; wanted an id that begins with \"" +
                      std::string(kind) + "-\"");
  return std::nullopt;
}

Attachment read_attachment(ObjectReader& reader, const std::string& eni) {
  Attachment attachment;
  attachment.eni_id = eni;
  AttachmentFacts facts = read_attachment_facts(reader);
  if (facts.eni_id && *facts.eni_id != eni) {
    reader.complain("eni", "invalid_params",
                    "\"eni\" is " + *facts.eni_id + " and the key is " + eni + "; leave the member out");
  }
  facts.eni_id = eni;
  merge(attachment, facts);
  attachment.attachment_status = reader.text("attachment_status").value_or(attachment.attachment_status);
  attachment.private_dns_name = reader.text("private_dns_name").value_or("");
  if (const Json* task = reader.object("task")) {
    Task whole = read_task(*task, reader.pointer_to("task"), reader.problems());
    if (!attachment.task.task_arn.empty() && !whole.task_arn.empty() && attachment.task.task_arn != whole.task_arn) {
      reader.complain("task_arn", "invalid_params", "\"task_arn\" and the one in \"task\" differ; leave this one out");
    }
    if (whole.task_arn.empty()) whole.task_arn = attachment.task.task_arn;
    attachment.task = std::move(whole);
  }
  return attachment;
}

// One of the state's maps from id to object. An id that is none is told once, and what it holds is not looked at.
template <typename Value, typename Read>
void read_map(ObjectReader& state, std::string_view key, std::string_view kind, SharedMap<std::string, Value>& into,
              Read read) {
  const Json* map = state.object(key);
  if (map == nullptr) return;
  for (const auto& [id, value] : map->items()) {
    const std::string pointer = pointer_to(state.pointer_to(key), id);
    if (!is_resource_id(kind, id)) {
      add_problem(state.problems(), {"invalid_params", pointer,
                                     words::in_quotes(id) + " is no id here; wanted \"" + std::string(kind) +
                                         "-\" and 1 to 32 letters and digits behind it"});
      continue;
    }
    into.try_emplace(id, read(value, pointer, id));
  }
}

}  // namespace

std::vector<std::string> read_ids(ObjectReader& reader, std::string_view key, std::string_view kind) {
  std::vector<std::string> ids;
  const Json* list = reader.array(key);
  if (list == nullptr) return ids;
  std::set<std::string_view> seen;
  for (std::size_t i = 0; i < list->size(); ++i) {
    const Json& value = (*list)[i];
    if (!value.is_string() || !is_resource_id(kind, value.get_ref<const std::string&>())) {
      reader.complain_at(key, i, value, "an id that begins with \"" + std::string(kind) + "-\"");
    } else if (!seen.insert(value.get_ref<const std::string&>()).second) {
      reader.complain_at(key, i, value, "each id once");
    } else {
      ids.push_back(value.get<std::string>());
    }
  }
  return ids;
}

Subnet read_subnet(ObjectReader& reader, std::string id) {
  Subnet subnet;
  subnet.id = std::move(id);
  if (!reader.has("cidr") && !reader.has("ipv6_cidr")) {
    reader.missing("cidr", "the IPv4 range of the subnet such as \"10.0.0.0/24\", or \"ipv6_cidr\" of an IPv6-only one");
  }
  subnet.cidr = reader.network("cidr");
  subnet.ipv6_cidr = reader.network("ipv6_cidr");
  subnet.availability_zone = reader.text("availability_zone").value_or("");
  subnet.vpc_id = reader.text("vpc_id").value_or("");
  subnet.vpc_cidr = reader.network("vpc_cidr");
  return subnet;
}

PortSpec read_port_spec(const Json& value, const std::string& pointer, Problems& problems, std::uint16_t default_mtu) {
  PortSpec port;
  ObjectReader reader(value, pointer, problems);
  reader.refuse_null();
  const auto name = reader.text("kind");
  const auto* kind = std::begin(kPortKinds);
  while (kind != std::end(kPortKinds) && (!name || kind->first != *name)) ++kind;
  if (kind == std::end(kPortKinds)) {
    constexpr std::string_view wanted = R"("tap", "virtio-user", "vhost-user" or "vdev")";
    if (name) {
      reader.complain("kind", "invalid_params",
                      "\"kind\" is " + words::in_quotes(*name) + "; wanted " + std::string(wanted));
    } else if (!reader.has("kind")) {
      reader.missing("kind", wanted);
    }
    return port;  // without it nobody can say which other members belong here
  }
  port.kind = kind->second;
  port.mtu = static_cast<std::uint16_t>(reader.integer("mtu", kMinPortMtu, kMaxPortMtu).value_or(default_mtu));
  port.offloads = reader.boolean("offloads").value_or(port.offloads);
  if (port.kind == PortKind::vhost_user) {
    port.socket = reader.required_text("socket");
    port.client = reader.boolean("client").value_or(port.client);
  } else if (port.kind == PortKind::vdev) {
    port.devargs = reader.required_text("devargs");
  } else {
    port.netns = reader.text("netns").value_or(port.netns);
    port.ifname = reader.text("ifname").value_or(port.ifname);
    port.default_route = reader.boolean("default_route").value_or(port.default_route);
  }
  reader.finish();
  return port;
}

AttachmentFacts read_attachment_facts(ObjectReader& reader, std::uint16_t default_mtu) {
  reader.refuse_null();
  AttachmentFacts facts;
  facts.eni_id = read_id(reader, "eni", "eni");
  facts.attachment_id = reader.text("attachment_id");
  if (const auto arn = reader.text("task_arn")) facts.task.emplace().task_arn = *arn;
  facts.mac = reader.mac("mac");
  auto addresses = reader.addresses("addresses");
  if (reader.has("addresses")) facts.addresses = std::move(addresses);
  auto prefixes = reader.networks("prefixes");
  if (reader.has("prefixes")) {
    std::ranges::sort(prefixes);
    facts.prefixes = std::move(prefixes);
  }
  facts.subnet_id = read_id(reader, "subnet", "subnet");
  // The trunk ENI's own traffic has no tag: said in a word, so that a VLAN of 0 stays the mistake that it is.
  if (const Json* vlan = reader.any("vlan"); vlan != nullptr && *vlan == "untagged") {
    facts.vlan = VlanId{};
  } else if (const auto number = reader.integer("vlan", 1, 4094)) {
    facts.vlan = VlanId{static_cast<std::uint16_t>(*number)};
  }
  facts.trunk_mac = reader.mac("trunk_mac");
  auto groups = read_ids(reader, "groups", "sg");
  if (reader.has("groups")) facts.group_ids = std::move(groups);
  if (const Json* port = reader.object("port")) {
    facts.port = read_port_spec(*port, reader.pointer_to("port"), reader.problems(), default_mtu);
  }
  facts.source_dest_check = reader.boolean("source_dest_check");
  if (const Json* conntrack = reader.object("conntrack")) {
    facts.conntrack = read_conntrack(*conntrack, reader.pointer_to("conntrack"), reader.problems());
  }
  read_settings(reader, facts);
  return facts;
}

int read_protocol(ObjectReader& reader) {
  const auto text = reader.text("protocol");
  if (!text) {
    if (!reader.has("protocol")) reader.missing("protocol", kProtocolWanted);
    return kAnyProtocol;
  }
  if (const auto number = protocol_number(*text)) return *number;
  reader.complain("protocol", "invalid_params",
                  "\"protocol\" is " + words::in_quotes(*text) + "; wanted " + std::string(kProtocolWanted));
  return kAnyProtocol;
}

void merge(Attachment& attachment, const AttachmentFacts& facts) {
  const auto take = [](auto& into, const auto& fact) {
    if (fact) into = *fact;
  };
  if (attachment.eni_id.empty()) take(attachment.eni_id, facts.eni_id);
  take(attachment.attachment_id, facts.attachment_id);
  take(attachment.attachment_status, facts.attachment_status);
  take(attachment.mac, facts.mac);
  take(attachment.addresses, facts.addresses);
  take(attachment.prefixes, facts.prefixes);
  take(attachment.subnet_id, facts.subnet_id);
  take(attachment.vlan, facts.vlan);
  take(attachment.trunk_mac, facts.trunk_mac);
  take(attachment.group_ids, facts.group_ids);
  take(attachment.port, facts.port);
  take(attachment.private_dns_name, facts.private_dns_name);
  take(attachment.source_dest_check, facts.source_dest_check);
  take(attachment.conntrack, facts.conntrack);
  take(attachment.limits.ingress_bits, facts.limits.ingress_bits);
  take(attachment.limits.egress_bits, facts.limits.egress_bits);
  take(attachment.limits.ingress_packets, facts.limits.ingress_packets);
  take(attachment.limits.egress_packets, facts.limits.egress_packets);
  take(attachment.on_change, facts.on_change);
  take(attachment.always_track, facts.always_track);
  take(attachment.audit, facts.audit);
  take(attachment.block_imds, facts.block_imds);
  if (!facts.task) return;
  const auto add = [](auto& into, const auto& fact) {
    if (fact != std::remove_cvref_t<decltype(fact)>{}) into = fact;
  };
  Task& task = attachment.task;
  add(task.task_arn, facts.task->task_arn);
  add(task.cluster_arn, facts.task->cluster_arn);
  add(task.task_definition_arn, facts.task->task_definition_arn);
  add(task.container_instance_arn, facts.task->container_instance_arn);
  add(task.group, facts.task->group);
  add(task.launch_type, facts.task->launch_type);
  add(task.last_status, facts.task->last_status);
  add(task.desired_status, facts.task->desired_status);
  add(task.version, facts.task->version);
  add(task.containers, facts.task->containers);
}

std::expected<DesiredState, Problems> state_from_json(const Json& document, std::string_view pointer) {
  DesiredState state;
  Problems problems;
  ObjectReader reader(document, std::string(pointer), problems);
  reader.refuse_null();
  // An object of the state with its reader made and finished.
  const auto with_reader = [&](auto read) {
    return [&problems, read](const Json& value, const std::string& place, const std::string& id) {
      ObjectReader each(value, place, problems);
      each.refuse_null();
      auto result = read(each, id);
      each.finish();
      return result;
    };
  };
  state.revision = static_cast<std::uint64_t>(reader.integer("revision", 0, kMaxInteger).value_or(0));
  read_map(reader, "subnets", "subnet", state.subnets, with_reader(read_subnet));
  read_map(reader, "security_groups", "sg", state.security_groups, with_reader(read_group));
  read_map(reader, "prefix_lists", "pl", state.prefix_lists, with_reader([](ObjectReader& list, const std::string& id) {
             if (!list.has("entries")) list.missing("entries", "a list of ranges");
             return PrefixList{id, list.networks("entries")};
           }));
  read_map(reader, "network_acls", "acl", state.network_acls, with_reader(read_network_acl));
  read_map(reader, "attachments", "eni", state.attachments, with_reader(read_attachment));
  if (const Json* map = reader.object("remote_members")) {
    ObjectReader members(*map, reader.pointer_to("remote_members"), problems);
    members.refuse_null();
    read_map(reader, "remote_members", "sg", state.remote_members,
             [&](const Json&, const std::string&, const std::string& id) {
               const auto list = members.addresses(id);
               return AddressSet(list.begin(), list.end());
             });
  }
  if (const Json* map = reader.object("finished_tasks")) {
    ObjectReader tasks(*map, reader.pointer_to("finished_tasks"), problems);
    tasks.refuse_null();
    for (const auto& [arn, version] : map->items()) {
      state.finished_tasks.try_emplace(arn, tasks.integer(arn, 0, kMaxInteger).value_or(0));
    }
  }
  reader.finish();
  if (!problems.empty()) return std::unexpected(std::move(problems));
  return state;
}

}  // namespace trunkline::config
