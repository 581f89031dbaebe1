// SPDX-License-Identifier: BSD-3-Clause
#include "tests/support/network_acl_stand_in.h"

#include <algorithm>

#include "control/aws_reader.h"

namespace trunkline::control {
namespace {

NetworkAcl::Side compile_side(const std::vector<config::NetworkAclEntry>& entries) {
  std::vector<RuleSpec> specs;
  NetworkAcl::Side side;
  for (const config::NetworkAclEntry& entry : entries) {
    specs.push_back({entry.protocol, entry.from_port, entry.to_port, {&entry.range, 1}, {}});
    side.allows.push_back(entry.allow);
  }
  side.entries = RuleBits::compile(specs);
  return side;
}

}  // namespace

std::vector<config::NetworkAcl> read_network_acls(const config::Json& list, const std::string& pointer, config::Problems& problems) {
  std::vector<config::NetworkAcl> acls;
  for_each(list, pointer, problems, [&](config::ObjectReader& reader) {
    config::NetworkAcl acl;
    acl.id = take_aws_id(reader, "NetworkAclId", "acl");
    for_each_in(reader, "Associations", [&](config::ObjectReader& association) { acl.subnet_ids.push_back(take_aws_id(association, "SubnetId", "subnet")); });
    for_each_in(reader, "Entries", [&](config::ObjectReader& each) {
      config::NetworkAclEntry entry;
      entry.number = static_cast<std::uint16_t>(each.integer("RuleNumber", 1, 32768).value_or(32768));
      entry.allow = each.required_text("RuleAction") == "allow";
      entry.protocol = std::atoi(each.required_text("Protocol").c_str());
      const bool ipv4 = each.has("CidrBlock");
      if (const auto range = read_cidr(each, ipv4 ? "CidrBlock" : "Ipv6CidrBlock", ipv4)) entry.range = *range;
      if (entry.protocol == 6 || entry.protocol == 17) entry.from_port = 0, entry.to_port = 65535;
      for (const auto& [key, first, second] : {std::tuple{"PortRange", "From", "To"}, std::tuple{"IcmpTypeCode", "Type", "Code"}}) {
        if (const config::Json* pair = each.object(key)) entry.from_port = pair->value(first, -1), entry.to_port = pair->value(second, -1);
      }
      const bool egress = each.boolean("Egress").value_or(false);
      if (entry.number < 32767) (egress ? acl.egress : acl.ingress).push_back(entry);
    });
    for (auto* entries : {&acl.ingress, &acl.egress}) std::ranges::sort(*entries, {}, &config::NetworkAclEntry::number);
    acls.push_back(std::move(acl));
  });
  return acls;
}

std::shared_ptr<const NetworkAcl> compile_network_acl(const config::NetworkAcl& acl, std::uint32_t generation) {
  auto compiled = std::make_shared<NetworkAcl>();
  compiled->generation = generation;
  compiled->ingress = compile_side(acl.ingress);
  compiled->egress = compile_side(acl.egress);
  return compiled;
}

}  // namespace trunkline::control
