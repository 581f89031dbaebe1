// SPDX-License-Identifier: BSD-3-Clause
#include "control/ec2_shapes.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <map>
#include <set>

#include "control/aws/known_keys.h"
#include "control/aws_reader.h"

namespace trunkline::control {
namespace {

using config::ObjectReader;
using config::SecurityGroup;
using config::SecurityGroupRule;

constexpr int kIcmp = 1;
constexpr int kTcp = 6;
constexpr int kUdp = 17;
constexpr int kIcmp6 = 58;

// EC2 prints these four by name (and, in older output, by number) and all others by number.
constexpr std::array<std::pair<std::string_view, int>, 4> kProtocolNames{
    {{"tcp", kTcp}, {"udp", kUdp}, {"icmp", kIcmp}, {"icmpv6", kIcmp6}}};

std::optional<int> parse_protocol(std::string_view text) {
  for (const auto& [name, number] : kProtocolNames) {
    if (text == name) return number;
  }
  if (text == "-1") return SecurityGroupRule::kAnyProtocol;
  int number = -1;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc{} || end != text.data() + text.size() || number < 0 || number > 255) return std::nullopt;
  return number;
}

std::string protocol_text(int protocol) {
  for (const auto& [name, number] : kProtocolNames) {
    if (protocol == number) return std::string(name);
  }
  return std::to_string(protocol);
}

constexpr bool has_ports(int protocol) { return protocol == kTcp || protocol == kUdp; }
constexpr bool has_icmp_type(int protocol) { return protocol == kIcmp || protocol == kIcmp6; }

void read_ports(ObjectReader& reader, SecurityGroupRule& rule, const std::string& protocol) {
  const bool ports = has_ports(rule.protocol);
  if (!ports && !has_icmp_type(rule.protocol)) {
    // EC2 takes ports for any protocol and does not look at them; so they must not make two rules differ here.
    reader.ignore("FromPort");
    reader.ignore("ToPort");
    return;
  }
  const std::int64_t least = ports ? 0 : -1;
  const std::int64_t most = ports ? 65535 : 255;
  const bool absent = !reader.has("FromPort") && !reader.has("ToPort");
  const auto from = reader.integer("FromPort", least, most);
  const auto to = reader.integer("ToPort", least, most);
  if (rule.protocol == kIcmp6 && absent) return;  // all types and codes
  const std::string_view from_means = ports ? "the first port" : "the ICMP type, -1 for any";
  const std::string_view to_means = ports ? "the last port" : "the ICMP code, -1 for any";
  if (!from && !reader.has("FromPort")) reader.missing("FromPort", from_means);
  if (!to && !reader.has("ToPort")) reader.missing("ToPort", to_means);
  if (!from || !to) return;
  rule.from_port = static_cast<int>(*from);
  rule.to_port = static_cast<int>(*to);
  if (ports && *from > *to) {
    reader.complain("ToPort", "invalid_params",
                    "the " + protocol + " ports go from " + std::to_string(*from) + " to " + std::to_string(*to) +
                        ", but the first must not be above the last; swap them");
  }
  if (!ports && *from == -1 && *to != -1) {
    reader.complain("ToPort", "invalid_params",
                    "the rule allows any " + protocol + " type but only code " + std::to_string(*to) +
                        "; if the type (FromPort) is -1 the code (ToPort) must be -1 too");
  }
}

std::string read_protocol(ObjectReader& reader, SecurityGroupRule& rule) {
  const auto text = reader.text("IpProtocol");
  if (!text) {
    if (!reader.has("IpProtocol"))
      reader.missing("IpProtocol", "\"tcp\", \"udp\", \"icmp\", \"icmpv6\", a number or \"-1\"");
    return {};
  }
  const auto protocol = parse_protocol(*text);
  if (!protocol) {
    reader.complain("IpProtocol", "invalid_params",
                    "IpProtocol is " + config::words::in_quotes(*text) +
                        ", but \"tcp\", \"udp\", \"icmp\", "
                        "\"icmpv6\", a number from 0 to 255 as a string, or \"-1\" for all is wanted");
    return {};
  }
  rule.protocol = *protocol;
  return *text;
}

// A source said twice counts once.
template <typename T>
void add_once(std::vector<T>& list, const T& value) {
  if (std::ranges::find(list, value) == list.end()) list.push_back(value);
}

SecurityGroupRule read_permission(ObjectReader& reader) {
  SecurityGroupRule rule;
  const std::string protocol = read_protocol(reader, rule);
  if (!protocol.empty()) read_ports(reader, rule, protocol);
  for_each_in(reader, "IpRanges", [&](ObjectReader& range) {
    range.ignore_all(harmless::kSource);
    if (const auto cidr = read_cidr(range, "CidrIp", true)) add_once(rule.ranges, *cidr);
  });
  for_each_in(reader, "Ipv6Ranges", [&](ObjectReader& range) {
    range.ignore_all(harmless::kSource);
    if (const auto cidr = read_cidr(range, "CidrIpv6", false)) add_once(rule.ranges, *cidr);
  });
  for_each_in(reader, "PrefixListIds", [&](ObjectReader& list) {
    list.ignore_all(harmless::kSource);
    if (const std::string id = take_aws_id(list, "PrefixListId", "pl"); !id.empty()) {
      add_once(rule.prefix_list_ids, id);
    }
  });
  for_each_in(reader, "UserIdGroupPairs", [&](ObjectReader& pair) {
    pair.ignore_all(harmless::kGroupReference);
    if (!pair.has("GroupId") && pair.has("GroupName")) {
      // A name is unique only within its VPC, and a rule may well point into another one.
      pair.complain("GroupName", "invalid_params",
                    "the rule names a group by GroupName without its GroupId; give "
                    "GroupId (\"sg-...\"), as describe-security-groups prints it");
      return;
    }
    if (const std::string id = take_aws_id(pair, "GroupId", "sg"); !id.empty()) add_once(rule.group_ids, id);
  });
  return rule;
}

}  // namespace

std::vector<SecurityGroup> read_security_groups(const Json& list, const std::string& pointer, Problems& problems, config::UnreadKeys* unread) {
  std::vector<SecurityGroup> groups;
  std::set<std::string> seen;
  for_each(list, pointer, problems, unread, [&](ObjectReader& reader) {
    const std::size_t before = problems.size();
    reader.ignore_all(harmless::kSecurityGroup);
    SecurityGroup group;
    group.id = take_aws_id(reader, "GroupId", "sg");
    group.name = reader.text("GroupName").value_or("");
    group.description = reader.text("Description").value_or("");
    group.vpc_id = reader.text("VpcId").value_or("");
    // The group is replaced whole, and without the list nobody said that nothing is allowed.
    for (const char* rules : {"IpPermissions", "IpPermissionsEgress"}) {
      if (!reader.has(rules)) reader.missing(rules, "the list of rules, which may be empty; give the group whole, as describe-security-groups prints it");
    }
    for_each_in(reader, "IpPermissions", [&](ObjectReader& rule) { group.ingress.push_back(read_permission(rule)); });
    for_each_in(reader, "IpPermissionsEgress",
                [&](ObjectReader& rule) { group.egress.push_back(read_permission(rule)); });
    if (!group.id.empty() && !seen.insert(group.id).second) complain_twice(reader, "GroupId", group.id);
    reader.finish();
    if (problems.size() == before) groups.push_back(std::move(group));
  });
  return groups;
}

std::vector<SecurityGroup> read_security_group_rules(const Json& list, const std::string& pointer, Problems& problems,
                                                     config::UnreadKeys* unread) {
  std::map<std::string, SecurityGroup> groups;
  for_each(list, pointer, problems, unread, [&](ObjectReader& reader) {
    const std::size_t before = problems.size();
    reader.ignore_all(harmless::kSecurityGroupRule);
    SecurityGroupRule rule;
    const std::string id = take_aws_id(reader, "GroupId", "sg");
    const auto is_egress = reader.boolean("IsEgress");
    if (!is_egress && !reader.has("IsEgress")) reader.missing("IsEgress", "true or false: the rule's direction");
    const std::string protocol = read_protocol(reader, rule);
    if (!protocol.empty()) read_ports(reader, rule, protocol);

    int sources = 0;
    for (const std::string_view key : {"CidrIpv4", "CidrIpv6"}) {
      reader.any(key);
      if (!reader.has(key)) continue;
      ++sources;
      if (const auto cidr = read_cidr(reader, key, key == "CidrIpv4")) add_once(rule.ranges, *cidr);
    }
    reader.any("PrefixListId");
    if (reader.has("PrefixListId")) {
      ++sources;
      rule.prefix_list_ids.push_back(take_aws_id(reader, "PrefixListId", "pl"));
    }
    reader.any("ReferencedGroupInfo");
    if (reader.has("ReferencedGroupInfo")) {
      ++sources;
      if (const Json* referenced = reader.object("ReferencedGroupInfo")) {
        ObjectReader info(*referenced, reader.pointer_to("ReferencedGroupInfo"), problems);
        info.allow_unknown(reader.unread());
        info.ignore_all(harmless::kGroupReference);
        rule.group_ids.push_back(take_aws_id(info, "GroupId", "sg"));
        info.finish();
      }
    }
    if (sources != 1) {
      add_problem(problems,
                  {"invalid_params", reader.pointer(),
                   "this row has " + std::to_string(sources) +
                       " sources, "
                       "but exactly one of CidrIpv4, CidrIpv6, PrefixListId and ReferencedGroupInfo is wanted; "
                       "write one row for each source"});
    }
    reader.finish();
    if (problems.size() != before || id.empty() || !is_egress) return;

    SecurityGroup& group = groups[id];
    group.id = id;
    auto& rules = *is_egress ? group.egress : group.ingress;
    for (SecurityGroupRule& other : rules) {
      if (other.protocol != rule.protocol || other.from_port != rule.from_port || other.to_port != rule.to_port)
        continue;
      for (const auto& range : rule.ranges) add_once(other.ranges, range);
      for (const auto& list_id : rule.prefix_list_ids) add_once(other.prefix_list_ids, list_id);
      for (const auto& group_id : rule.group_ids) add_once(other.group_ids, group_id);
      return;
    }
    rules.push_back(std::move(rule));
  });
  std::vector<SecurityGroup> result;
  for (auto& [id, group] : groups) result.push_back(std::move(group));
  return result;
}

namespace {

Json permission_json(const SecurityGroupRule& rule) {
  Json json{{"IpProtocol", protocol_text(rule.protocol)},
            {"IpRanges", Json::array()},
            {"Ipv6Ranges", Json::array()},
            {"PrefixListIds", Json::array()},
            {"UserIdGroupPairs", Json::array()}};
  if (has_ports(rule.protocol) || has_icmp_type(rule.protocol)) {
    json["FromPort"] = rule.from_port;
    json["ToPort"] = rule.to_port;
  }
  for (const IpPrefix& range : rule.ranges) {
    if (range.is_v4()) {
      json["IpRanges"].push_back({{"CidrIp", range.to_string()}});
    } else {
      json["Ipv6Ranges"].push_back({{"CidrIpv6", range.to_string()}});
    }
  }
  for (const std::string& id : rule.prefix_list_ids) json["PrefixListIds"].push_back({{"PrefixListId", id}});
  for (const std::string& id : rule.group_ids) json["UserIdGroupPairs"].push_back({{"GroupId", id}});
  return json;
}

Json permissions_json(const std::vector<SecurityGroupRule>& rules) {
  Json json = Json::array();
  for (const SecurityGroupRule& rule : rules) json.push_back(permission_json(rule));
  return json;
}

}  // namespace

Json security_group_json(const SecurityGroup& group) {
  Json json{{"GroupId", group.id},
            {"GroupName", group.name},
            {"Description", group.description},
            {"IpPermissions", permissions_json(group.ingress)},
            {"IpPermissionsEgress", permissions_json(group.egress)}};
  if (!group.vpc_id.empty()) json["VpcId"] = group.vpc_id;
  return json;
}

config::PrefixList read_prefix_list(ObjectReader& reader, const std::string& id) {
  config::PrefixList list;
  list.id = id;
  if (id.empty() || reader.has("PrefixListId")) list.id = take_aws_id(reader, "PrefixListId", "pl");
  if (!id.empty() && !list.id.empty() && list.id != id) {
    reader.complain("PrefixListId", "invalid_params",
                    "the document is of " + list.id + ", but the request names " + id + "; give the entries of the list that is meant");
  }
  if (!reader.has("Entries")) reader.missing("Entries", "a list like [{\"Cidr\":\"10.2.0.0/16\"}], which may be empty");
  for_each_in(reader, "Entries", [&](ObjectReader& entry) {
    entry.ignore_all(harmless::kPrefixListEntry);
    const auto cidr = entry.network("Cidr");
    if (!cidr) {
      if (!entry.has("Cidr")) entry.missing("Cidr", "a CIDR like \"10.2.0.0/16\"");
      return;
    }
    if (!list.entries.empty() && list.entries.front().is_v4() != cidr->is_v4()) {
      entry.complain("Cidr", "invalid_params",
                     "Cidr is " + cidr->to_string() + ", but the list began with " + list.entries.front().to_string() +
                         ", and a prefix list has one family; make a list for each");
      return;
    }
    list.entries.push_back(*cidr);
  });
  return list;
}

Json prefix_list_json(const config::PrefixList& list) {
  Json json{{"PrefixListId", list.id}, {"Entries", Json::array()}};
  for (const IpPrefix& entry : list.entries) json["Entries"].push_back({{"Cidr", entry.to_string()}});
  return json;
}

}  // namespace trunkline::control
