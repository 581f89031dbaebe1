// SPDX-License-Identifier: BSD-3-Clause
//
// The network ACLs of ec2_shapes.h.
#include <algorithm>
#include <charconv>
#include <map>
#include <set>

#include "config/protocol.h"
#include "config/validate.h"
#include "control/aws/known_keys.h"
#include "control/aws_reader.h"
#include "control/ec2_shapes.h"

namespace trunkline::control {
namespace {

using config::NetworkAcl;
using config::NetworkAclEntry;
using config::ObjectReader;
using config::words::in_quotes;

// The fixed last entries, one for each family.
constexpr std::int64_t kLastIpv4 = 32767, kLastIpv6 = 32768;

int read_protocol_number(ObjectReader& reader) {
  constexpr std::string_view wanted = R"("6", "17", "1", "58", any other number up to "255", or "-1" for all)";
  const auto text = reader.text("Protocol");
  if (!text) {
    if (!reader.has("Protocol")) reader.missing("Protocol", wanted);
    return config::kAnyProtocol;
  }
  int number = -2;
  const auto [end, error] = std::from_chars(text->data(), text->data() + text->size(), number);
  if (error == std::errc{} && end == text->data() + text->size() && number >= config::kAnyProtocol && number <= 255) return number;
  reader.complain("Protocol", "invalid_params", "Protocol is " + in_quotes(*text) + ", but a number as a string is wanted: " + std::string(wanted));
  return config::kAnyProtocol;
}

// Two numbers in an object of their own.
void read_pair(ObjectReader& reader, std::string_view key, std::string_view first, std::string_view second, std::int64_t least, std::int64_t most,
               NetworkAclEntry& entry) {
  const Json* object = reader.object(key);
  if (object == nullptr) return;
  ObjectReader pair(*object, reader.pointer_to(key), reader.problems());
  pair.allow_unknown(reader.unread());
  const auto from = pair.integer(first, least, most), to = pair.integer(second, least, most);
  const std::string wanted = "a number from " + std::to_string(least) + " to " + std::to_string(most);
  if (!from && !pair.has(first)) pair.missing(first, wanted);
  if (!to && !pair.has(second)) pair.missing(second, wanted);
  pair.finish();
  entry.from_port = static_cast<int>(from.value_or(-1));
  entry.to_port = static_cast<int>(to.value_or(-1));
  if (!from || !to) return;
  if (least == 0 && *from > *to) {
    reader.complain(key, "invalid_params",
                    "the ports go from " + std::to_string(*from) + " to " + std::to_string(*to) +
                        ", but the first must not be above the last; swap them");
  }
  if (least == -1 && *from == -1 && *to != -1) {
    reader.complain(key, "invalid_params",
                    "the entry means any ICMP type but only code " + std::to_string(*to) + "; if Type is -1, Code must be -1 too");
  }
}

void read_ports(ObjectReader& reader, NetworkAclEntry& entry) {
  // EC2 takes both for any protocol and looks at neither but here; so they must not make two entries differ.
  const bool ipv4 = entry.range.is_v4();
  if (config::has_ports(entry.protocol)) {
    reader.ignore("IcmpTypeCode");
    entry.from_port = 0;
    entry.to_port = 65535;
    read_pair(reader, "PortRange", "From", "To", 0, 65535, entry);
  } else if (entry.protocol == (ipv4 ? config::kIcmp : config::kIcmp6)) {
    reader.ignore("PortRange");
    if (!reader.has("IcmpTypeCode")) {
      reader.missing("IcmpTypeCode", R"({"Type":8,"Code":-1}, where -1 is any and 0 is a type and a code like others)");
    }
    read_pair(reader, "IcmpTypeCode", "Type", "Code", -1, 255, entry);
  } else {
    reader.ignore("PortRange");
    reader.ignore("IcmpTypeCode");
  }
}

std::optional<IpPrefix> read_range(ObjectReader& reader) {
  const bool v4 = reader.has("CidrBlock"), v6 = reader.has("Ipv6CidrBlock");
  if (v4 != v6) return read_cidr(reader, v4 ? "CidrBlock" : "Ipv6CidrBlock", v4);
  add_problem(reader.problems(), {"invalid_params", reader.pointer(),
                                  v4 ? "the entry has both CidrBlock and Ipv6CidrBlock; write one entry for each"
                                     : "the entry has no CidrBlock and no Ipv6CidrBlock; give one of them, \"0.0.0.0/0\" is every IPv4 address"});
  reader.ignore("CidrBlock");
  reader.ignore("Ipv6CidrBlock");
  return std::nullopt;
}

// Numbers that are there, by direction.
using Numbers = std::set<std::int64_t>[2];

void read_entry(ObjectReader& reader, NetworkAcl& acl, Numbers& numbers) {
  const std::size_t before = reader.problems().size();
  NetworkAclEntry entry;
  const auto number = reader.integer("RuleNumber", 1, kLastIpv6);
  if (!number && !reader.has("RuleNumber")) reader.missing("RuleNumber", "1 to 32766; the entry with the lowest one that matches decides");
  const auto egress = reader.boolean("Egress");
  if (!egress && !reader.has("Egress")) reader.missing("Egress", "true for what leaves the subnet, false for what enters it");
  const std::string action = reader.required_text("RuleAction");
  if (!action.empty() && action != "allow" && action != "deny") {
    reader.complain("RuleAction", "invalid_params", "RuleAction is " + in_quotes(action) + R"(, but "allow" or "deny" is wanted)");
  }
  entry.protocol = read_protocol_number(reader);
  const auto range = read_range(reader);
  if (range) entry.range = *range;
  if (range && reader.problems().size() == before) read_ports(reader, entry);
  for (const char* key : {"PortRange", "IcmpTypeCode"}) reader.ignore(key);
  if (!number || !egress) return;
  // "*": what no entry matches is denied, and that is so without it.
  if (*number >= kLastIpv4) {
    const bool is_all = !range || (range->is_everything() && range->is_v4() == (*number == kLastIpv4));
    const bool fits = action != "allow" && entry.protocol == config::kAnyProtocol && is_all;
    if (!fits) {
      reader.complain("RuleNumber", "invalid_params",
                      "RuleNumber " + std::to_string(*number) + " is the fixed entry that denies all " + (*number == kLastIpv4 ? "IPv4" : "IPv6") +
                          ", and this one says something else; give it a number from 1 to 32766");
    }
    return;
  }
  if (!numbers[*egress].insert(*number).second) {
    reader.complain("RuleNumber", "invalid_params",
                    "RuleNumber " + std::to_string(*number) + " is there twice among the " + (*egress ? "egress" : "ingress") +
                        " entries; a number is one entry's, whatever its family");
  }
  if (reader.problems().size() != before) return;
  entry.number = static_cast<std::uint16_t>(*number);
  entry.allow = action == "allow";
  (*egress ? acl.egress : acl.ingress).push_back(entry);
}

void check_quota(ObjectReader& reader, const NetworkAcl& acl) {
  for (const bool egress : {false, true}) {
    for (const bool ipv4 : {true, false}) {
      const auto is_of_family = [&](const NetworkAclEntry& entry) { return entry.range.is_v4() == ipv4; };
      const auto count = std::ranges::count_if(egress ? acl.egress : acl.ingress, is_of_family) + 1;
      if (count <= static_cast<std::ptrdiff_t>(config::kMaxNetworkAclEntries)) continue;
      reader.complain("Entries", "quota",
                      acl.id + " has " + std::to_string(count) + (ipv4 ? " IPv4 " : " IPv6 ") + (egress ? "egress" : "ingress") +
                          " entries with the fixed one; AWS allows " + std::to_string(config::kMaxNetworkAclEntries) + " at most, so merge some");
    }
  }
}

Json entry_json(const NetworkAclEntry& entry, bool egress) {
  Json json{{"RuleNumber", entry.number},
            {"Protocol", std::to_string(entry.protocol)},
            {"RuleAction", entry.allow ? "allow" : "deny"},
            {"Egress", egress}};
  json[entry.range.is_v4() ? "CidrBlock" : "Ipv6CidrBlock"] = entry.range.to_string();
  if (config::has_ports(entry.protocol)) json["PortRange"] = {{"From", entry.from_port}, {"To", entry.to_port}};
  if (entry.protocol == (entry.range.is_v4() ? config::kIcmp : config::kIcmp6)) {
    json["IcmpTypeCode"] = {{"Type", entry.from_port}, {"Code", entry.to_port}};
  }
  return json;
}

Json last_entry_json(bool ipv4, bool egress) {
  return {{"RuleNumber", ipv4 ? kLastIpv4 : kLastIpv6},
          {"Protocol", "-1"},
          {"RuleAction", "deny"},
          {"Egress", egress},
          {ipv4 ? "CidrBlock" : "Ipv6CidrBlock", ipv4 ? "0.0.0.0/0" : "::/0"}};
}

}  // namespace

std::vector<NetworkAcl> read_network_acls(const Json& list, const std::string& pointer, Problems& problems, config::UnreadKeys* unread) {
  std::vector<NetworkAcl> acls;
  std::set<std::string> seen;
  std::map<std::string, std::string> acl_of;  // by subnet
  for_each(list, pointer, problems, unread, [&](ObjectReader& reader) {
    const std::size_t before = problems.size();
    reader.ignore_all(harmless::kNetworkAcl);
    NetworkAcl acl;
    acl.id = take_aws_id(reader, "NetworkAclId", "acl");
    acl.vpc_id = reader.text("VpcId").value_or("");
    acl.is_default = reader.boolean("IsDefault").value_or(false);
    Numbers numbers;
    // Without the list nobody said that everything is denied.
    if (!reader.has("Entries")) reader.missing("Entries", "the list of entries, which may be empty");
    for_each_in(reader, "Entries", [&](ObjectReader& entry) { read_entry(entry, acl, numbers); });
    // Nor that it is taken off its subnets, which would let everything pass there.
    if (!reader.has("Associations")) reader.missing("Associations", "the list of its subnets, which may be empty");
    for_each_in(reader, "Associations", [&](ObjectReader& association) {
      association.ignore_all(harmless::kNetworkAclAssociation);
      const std::string subnet = take_aws_id(association, "SubnetId", "subnet");
      if (subnet.empty()) return;
      if (const auto [owner, is_new] = acl_of.try_emplace(subnet, acl.id); !is_new) {
        association.complain("SubnetId", "duplicate_subnet",
                             subnet + " is associated with " + owner->second + " in this document already, and can have one network ACL only");
        return;
      }
      acl.subnet_ids.push_back(subnet);
    });
    check_quota(reader, acl);
    if (!acl.id.empty() && !seen.insert(acl.id).second) complain_twice(reader, "NetworkAclId", acl.id);
    for (auto* entries : {&acl.ingress, &acl.egress}) std::ranges::sort(*entries, {}, &NetworkAclEntry::number);
    reader.finish();
    if (problems.size() == before) acls.push_back(std::move(acl));
  });
  return acls;
}

Json network_acl_json(const NetworkAcl& acl) {
  Json json{{"NetworkAclId", acl.id}, {"IsDefault", acl.is_default}, {"Entries", Json::array()}, {"Associations", Json::array()}};
  if (!acl.vpc_id.empty()) json["VpcId"] = acl.vpc_id;
  for (const bool egress : {true, false}) {
    for (const NetworkAclEntry& entry : egress ? acl.egress : acl.ingress) json["Entries"].push_back(entry_json(entry, egress));
    for (const bool ipv4 : {true, false}) json["Entries"].push_back(last_entry_json(ipv4, egress));
  }
  for (const std::string& subnet : acl.subnet_ids) json["Associations"].push_back({{"NetworkAclId", acl.id}, {"SubnetId", subnet}});
  return json;
}

}  // namespace trunkline::control
