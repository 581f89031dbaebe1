// SPDX-License-Identifier: BSD-3-Clause
//
// Network ACLs of state_json.h: writer, then reader.
#include <algorithm>
#include <set>

#include "config/protocol.h"
#include "config/state_json.h"
#include "config/validate.h"
#include "config/words.h"

namespace trunkline::config {
namespace {

Json entries_to_json(const std::vector<NetworkAclEntry>& entries) {
  Json list = Json::array();
  for (const NetworkAclEntry& entry : entries) {
    Json each{{"number", entry.number},
              {"action", entry.allow ? "allow" : "deny"},
              {"protocol", protocol_text(entry.protocol)},
              {"range", entry.range.to_string()}};
    if (has_ports(entry.protocol) || entry.protocol == kIcmp || entry.from_port != -1 || entry.to_port != -1) {
      each["from_port"] = entry.from_port;
      each["to_port"] = entry.to_port;
    }
    list.push_back(std::move(each));
  }
  return list;
}

bool read_action(ObjectReader& reader) {
  const auto action = reader.text("action");
  if (action && *action != "allow" && *action != "deny") {
    reader.complain("action", "invalid_params", "\"action\" is " + words::in_quotes(*action) + R"(; wanted "allow" or "deny")");
  }
  if (!action && !reader.has("action")) reader.missing("action", R"("allow" or "deny")");
  return action == "allow";
}

std::vector<NetworkAclEntry> read_entries(ObjectReader& reader, std::string_view key) {
  std::vector<NetworkAclEntry> entries;
  const Json* list = reader.array(key);
  if (list == nullptr) return entries;
  std::set<std::uint16_t> numbers;
  for (std::size_t i = 0; i < list->size(); ++i) {
    Problems& problems = reader.problems();
    const std::size_t problems_before = problems.size();
    ObjectReader each((*list)[i], pointer_to(reader.pointer_to(key), i), problems);
    each.refuse_null();
    NetworkAclEntry entry;
    const auto number = each.integer("number", 1, kMaxNetworkAclEntryNumber);
    if (!number && !each.has("number")) each.missing("number", "1 to 32766; the entry with the lowest one that matches decides");
    entry.number = static_cast<std::uint16_t>(number.value_or(0));
    entry.allow = read_action(each);
    entry.protocol = read_protocol(each);
    entry.from_port = static_cast<int>(each.integer("from_port", -1, 65535).value_or(-1));
    entry.to_port = static_cast<int>(each.integer("to_port", -1, 65535).value_or(-1));
    if (has_ports(entry.protocol) || entry.protocol == kIcmp) {
      for (const char* port : {"from_port", "to_port"}) {
        if (!each.has(port)) each.missing(port, "a number, since tcp, udp and icmp entries need both from_port and to_port");
      }
    }
    if (!each.has("range")) each.missing("range", "a range such as \"0.0.0.0/0\"");
    entry.range = each.network("range").value_or(IpPrefix{});
    each.finish();
    if (problems.size() == problems_before) check_network_acl_entry(entry, each.pointer(), problems);
    if (number && !numbers.insert(entry.number).second) {
      each.complain("number", "invalid_params",
                    "entry " + std::to_string(entry.number) + " is there twice; a number is one entry's in each direction, whatever its family");
    }
    entries.push_back(entry);
  }
  std::ranges::stable_sort(entries, {}, &NetworkAclEntry::number);
  return entries;
}

}  // namespace

Json to_json(const NetworkAcl& acl) {
  Json object{{"ingress", entries_to_json(acl.ingress)}, {"egress", entries_to_json(acl.egress)}, {"subnets", acl.subnet_ids}};
  if (!acl.vpc_id.empty()) object["vpc_id"] = acl.vpc_id;
  if (acl.is_default) object["is_default"] = true;
  return object;
}

NetworkAcl read_network_acl(ObjectReader& reader, const std::string& id) {
  NetworkAcl acl;
  acl.id = id;
  acl.vpc_id = reader.text("vpc_id").value_or("");
  acl.is_default = reader.boolean("is_default").value_or(false);
  acl.ingress = read_entries(reader, "ingress");
  acl.egress = read_entries(reader, "egress");
  acl.subnet_ids = read_ids(reader, "subnets", "subnet");
  return acl;
}

}  // namespace trunkline::config
