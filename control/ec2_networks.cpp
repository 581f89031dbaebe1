// SPDX-License-Identifier: BSD-3-Clause
//
// The half of ec2_shapes.h that is about where an interface lives: VPCs, subnets, interfaces, trunk associations.
#include <algorithm>
#include <set>

#include "control/aws_reader.h"
#include "control/ec2_shapes.h"

namespace trunkline::control {

using config::ObjectReader;

std::map<std::string, IpPrefix> read_vpcs(const Json& list, const std::string& pointer, Problems& problems) {
  std::map<std::string, IpPrefix> ranges;
  for_each(list, pointer, problems, [&](ObjectReader& reader) {
    const std::string id = take_aws_id(reader, "VpcId", "vpc");
    const auto cidr = read_cidr(reader, "CidrBlock", true);
    if (!id.empty() && cidr && !ranges.try_emplace(id, *cidr).second) complain_twice(reader, "VpcId", id);
  });
  return ranges;
}

std::vector<config::Subnet> read_subnets(const Json& list, const std::string& pointer, Problems& problems) {
  std::vector<config::Subnet> subnets;
  std::set<std::string> seen;
  for_each(list, pointer, problems, [&](ObjectReader& reader) {
    const std::size_t before = problems.size();
    config::Subnet subnet;
    subnet.id = take_aws_id(reader, "SubnetId", "subnet");
    if (const auto cidr = read_cidr(reader, "CidrBlock", true)) subnet.cidr = *cidr;
    subnet.vpc_id = reader.text("VpcId").value_or("");
    subnet.availability_zone = reader.text("AvailabilityZone").value_or("");
    if (reader.has("VpcCidrBlock")) subnet.vpc_cidr = read_cidr(reader, "VpcCidrBlock", true);
    for_each_in(reader, "Ipv6CidrBlockAssociationSet", [&](ObjectReader& association) {
      // A block that was taken away stays listed for a while.
      if (const Json* state = association.object("Ipv6CidrBlockState")) {
        const auto word = state->find("State");
        if (word != state->end() && *word != "associated" && *word != "associating") {
          association.ignore("Ipv6CidrBlock");
          return;
        }
      }
      const auto cidr = read_cidr(association, "Ipv6CidrBlock", false);
      if (cidr && subnet.ipv6_cidr) {
        association.complain("Ipv6CidrBlock", "invalid_params",
                             "the subnet has " + subnet.ipv6_cidr->to_string() +
                                 " already, and the engine knows one IPv6 block a subnet; give only the one in use");
      } else if (cidr) {
        subnet.ipv6_cidr = cidr;
      }
    });
    if (!subnet.id.empty() && !seen.insert(subnet.id).second) complain_twice(reader, "SubnetId", subnet.id);
    if (problems.size() == before) subnets.push_back(std::move(subnet));
  });
  return subnets;
}

Json subnet_json(const config::Subnet& subnet) {
  Json json{{"SubnetId", subnet.id},
            {"CidrBlock", subnet.cidr.to_string()},
            {"VpcId", subnet.vpc_id},
            {"AvailabilityZone", subnet.availability_zone},
            {"Ipv6CidrBlockAssociationSet", Json::array()}};
  if (subnet.vpc_cidr) json["VpcCidrBlock"] = subnet.vpc_cidr->to_string();
  if (subnet.ipv6_cidr) {
    json["Ipv6CidrBlockAssociationSet"].push_back(
        {{"Ipv6CidrBlock", subnet.ipv6_cidr->to_string()}, {"Ipv6CidrBlockState", {{"State", "associated"}}}});
  }
  return json;
}

void add_address(config::AttachmentFacts& facts, const IpAddress& address, bool primary) {
  if (!facts.addresses) facts.addresses.emplace();
  auto& addresses = *facts.addresses;
  const auto found = std::ranges::find(addresses, address);
  if (found == addresses.end()) {
    addresses.insert(primary ? addresses.begin() : addresses.end(), address);
  } else if (primary) {
    std::rotate(addresses.begin(), found, found + 1);
  }
}

namespace {

config::ConnectionTracking read_connection_tracking(const Json& value, std::string pointer, Problems& problems) {
  config::ConnectionTracking timeouts;
  ObjectReader reader(value, std::move(pointer), problems);
  reader.allow_unknown();
  const auto take = [&](std::string_view key, std::uint32_t least, std::uint32_t most, std::uint32_t& member) {
    if (const auto seconds = reader.integer(key, least, most)) member = static_cast<std::uint32_t>(*seconds);
  };
  take("TcpEstablishedTimeout", 60, 432000, timeouts.tcp_established_timeout);
  take("UdpTimeout", 30, 60, timeouts.udp_timeout);
  take("UdpStreamTimeout", 60, 180, timeouts.udp_stream_timeout);
  reader.finish();
  return timeouts;
}

}  // namespace

std::vector<config::AttachmentFacts> read_network_interfaces(const Json& list, const std::string& pointer,
                                                             Problems& problems, Warnings& warnings) {
  static const std::set<std::string, std::less<>> task_interfaces{"interface", "branch", "efa"};
  std::vector<config::AttachmentFacts> result;
  std::set<std::string> seen;
  for_each(list, pointer, problems, [&](ObjectReader& reader) {
    const std::size_t before = problems.size();
    config::AttachmentFacts facts;
    const std::string id = take_aws_id(reader, "NetworkInterfaceId", "eni");
    const std::string type = reader.text("InterfaceType").value_or("interface");
    if (!task_interfaces.contains(type)) {
      warnings.push_back(id + " is of type " + config::words::in_quotes(type) +
                         ", which no task can have; it was left out");
      return;
    }
    facts.eni_id = id;
    facts.mac = reader.mac("MacAddress");
    for_each_in(reader, "PrivateIpAddresses", [&](ObjectReader& entry) {
      const auto address = read_address(entry, "PrivateIpAddress", true);
      if (address) add_address(facts, *address, entry.boolean("Primary").value_or(false));
    });
    if (reader.has("PrivateIpAddress")) {
      if (const auto address = read_address(reader, "PrivateIpAddress", true)) add_address(facts, *address, true);
    }
    for_each_in(reader, "Ipv6Addresses", [&](ObjectReader& entry) {
      if (const auto address = read_address(entry, "Ipv6Address", false)) add_address(facts, *address, false);
    });
    if (reader.has("SubnetId")) facts.subnet_id = take_aws_id(reader, "SubnetId", "subnet");
    if (reader.has("Groups")) {
      facts.group_ids.emplace();
      for_each_in(reader, "Groups", [&](ObjectReader& group) {
        std::string group_id = take_aws_id(group, "GroupId", "sg");
        auto& ids = *facts.group_ids;
        if (std::ranges::find(ids, group_id) == ids.end()) ids.push_back(std::move(group_id));
      });
    }
    facts.source_dest_check = reader.boolean("SourceDestCheck");
    if (const Json* timeouts = reader.object("ConnectionTrackingConfiguration")) {
      facts.conntrack =
          read_connection_tracking(*timeouts, reader.pointer_to("ConnectionTrackingConfiguration"), problems);
    }
    if (auto name = reader.text("PrivateDnsName"); name && !name->empty()) facts.private_dns_name = std::move(name);
    if (!id.empty() && !seen.insert(id).second) complain_twice(reader, "NetworkInterfaceId", id);
    if (problems.size() == before) result.push_back(std::move(facts));
  });
  return result;
}

std::vector<config::AttachmentFacts> read_trunk_associations(const Json& list, const std::string& pointer,
                                                             Problems& problems, Warnings& warnings) {
  std::vector<config::AttachmentFacts> result;
  std::set<std::string> seen;
  std::set<std::string> trunks;
  for_each(list, pointer, problems, [&](ObjectReader& reader) {
    const std::size_t before = problems.size();
    config::AttachmentFacts facts;
    const std::string id = take_aws_id(reader, "BranchInterfaceId", "eni");
    const std::string protocol = reader.text("InterfaceProtocol").value_or("VLAN");
    if (protocol == "GRE") {
      warnings.push_back(id + " is associated by GRE, but the engine's trunk carries VLANs; it was left out");
      return;
    }
    if (protocol != "VLAN") {
      reader.complain("InterfaceProtocol", "invalid_params",
                      "InterfaceProtocol is " + config::words::in_quotes(protocol) + ", but VLAN or GRE is wanted");
    }
    facts.eni_id = id;
    const auto vlan = reader.integer("VlanId", 1, 4094);
    if (vlan) {
      facts.vlan = VlanId{static_cast<std::uint16_t>(*vlan)};
    } else if (!reader.has("VlanId")) {
      reader.missing("VlanId", "the branch's VLAN, 1 to 4094");
    }
    if (reader.has("TrunkInterfaceId")) trunks.insert(take_aws_id(reader, "TrunkInterfaceId", "eni"));
    if (!id.empty() && !seen.insert(id).second) complain_twice(reader, "BranchInterfaceId", id);
    if (problems.size() == before) result.push_back(std::move(facts));
  });
  if (trunks.size() > 1) {
    warnings.push_back("the associations are of " + std::to_string(trunks.size()) +
                       " trunks, but this engine owns one; "
                       "ask describe-trunk-interface-associations for this host's trunk alone");
  }
  return result;
}

}  // namespace trunkline::control
