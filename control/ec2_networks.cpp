// SPDX-License-Identifier: BSD-3-Clause
//
// The half of ec2_shapes.h that is about where an interface lives: VPCs, subnets, interfaces, trunk associations.
#include <algorithm>
#include <set>

#include "control/aws/known_keys.h"
#include "control/aws_reader.h"
#include "control/ec2_shapes.h"

namespace trunkline::control {

using config::ObjectReader;

namespace {

void check_ipv4_length(ObjectReader& reader, std::string_view key, const std::optional<IpPrefix>& cidr) {
  if (!cidr || (cidr->length >= 16 && cidr->length <= 28)) return;
  reader.complain(key, "invalid_params", std::string(key) + " is " + cidr->to_string() + ", but AWS's ranges are a /16 to a /28; give it as AWS prints it");
}

}  // namespace

std::map<std::string, IpPrefix> read_vpcs(const Json& list, const std::string& pointer, Problems& problems, config::UnreadKeys* unread) {
  std::map<std::string, IpPrefix> ranges;
  for_each(list, pointer, problems, unread, [&](ObjectReader& reader) {
    const std::size_t before = problems.size();
    reader.ignore_all(harmless::kVpc);
    const std::string id = take_aws_id(reader, "VpcId", "vpc");
    const auto cidr = read_cidr(reader, "CidrBlock", true);
    check_ipv4_length(reader, "CidrBlock", cidr);
    reader.finish();
    if (problems.size() != before) return;
    if (!id.empty() && cidr && !ranges.try_emplace(id, *cidr).second) complain_twice(reader, "VpcId", id);
  });
  return ranges;
}

std::vector<config::Subnet> read_subnets(const Json& list, const std::string& pointer, Problems& problems, config::UnreadKeys* unread,
                                         std::set<std::string>* silent_on_ipv6) {
  std::vector<config::Subnet> subnets;
  std::set<std::string> seen;
  for_each(list, pointer, problems, unread, [&](ObjectReader& reader) {
    const std::size_t before = problems.size();
    reader.ignore_all(harmless::kSubnet);
    config::Subnet subnet;
    subnet.id = take_aws_id(reader, "SubnetId", "subnet");
    const bool ipv6_only = reader.boolean("Ipv6Native").value_or(false);
    if (!ipv6_only || reader.has("CidrBlock")) subnet.cidr = read_cidr(reader, "CidrBlock", true);
    check_ipv4_length(reader, "CidrBlock", subnet.cidr);
    subnet.vpc_id = reader.text("VpcId").value_or("");
    subnet.availability_zone = reader.text("AvailabilityZone").value_or("");
    if (reader.has("VpcCidrBlock")) subnet.vpc_cidr = read_cidr(reader, "VpcCidrBlock", true);
    check_ipv4_length(reader, "VpcCidrBlock", subnet.vpc_cidr);
    if (!reader.has("Ipv6CidrBlockAssociationSet") && silent_on_ipv6 != nullptr) silent_on_ipv6->insert(subnet.id);
    for_each_in(reader, "Ipv6CidrBlockAssociationSet", [&](ObjectReader& association) {
      association.ignore_all(harmless::kSubnetIpv6Block);
      // A block that was taken away stays listed for a while.
      if (const Json* state = association.object("Ipv6CidrBlockState")) {
        const auto word = state->find("State");
        if (word != state->end() && *word != "associated" && *word != "associating") {
          association.leave_out();
          return;
        }
      }
      const auto cidr = read_cidr(association, "Ipv6CidrBlock", false);
      if (cidr && (cidr->length < 44 || cidr->length > 64 || cidr->length % 4 != 0)) {
        association.complain("Ipv6CidrBlock", "invalid_params",
                             "Ipv6CidrBlock is " + cidr->to_string() + ", but a subnet has a /44, /48, /52, /56, /60 or /64; give the subnet's own block");
        return;
      }
      if (cidr && subnet.ipv6_cidr) {
        association.complain("Ipv6CidrBlock", "invalid_params",
                             "the subnet has " + subnet.ipv6_cidr->to_string() +
                                 " already, and the engine knows one IPv6 block a subnet; give only the one in use");
      } else if (cidr) {
        subnet.ipv6_cidr = cidr;
      }
    });
    if (ipv6_only && !subnet.cidr && !subnet.ipv6_cidr && problems.size() == before) {
      reader.complain("Ipv6CidrBlockAssociationSet", "invalid_params",
                      "the subnet is IPv6-only (Ipv6Native) and has no IPv6 block in use; give it once EC2 says that one is associated");
    }
    if (!subnet.id.empty() && !seen.insert(subnet.id).second) complain_twice(reader, "SubnetId", subnet.id);
    reader.finish();
    if (problems.size() == before) subnets.push_back(std::move(subnet));
  });
  return subnets;
}

Json subnet_json(const config::Subnet& subnet) {
  Json json{{"SubnetId", subnet.id},
            {"VpcId", subnet.vpc_id},
            {"AvailabilityZone", subnet.availability_zone},
            {"Ipv6CidrBlockAssociationSet", Json::array()},
            {"Ipv6Native", !subnet.cidr}};
  if (subnet.cidr) json["CidrBlock"] = subnet.cidr->to_string();
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

config::ConnectionTracking read_connection_tracking(const Json& value, std::string pointer, Problems& problems, config::UnreadKeys* unread) {
  config::ConnectionTracking timeouts;
  ObjectReader reader(value, std::move(pointer), problems);
  reader.allow_unknown(unread);
  const auto take = [&](std::string_view key, std::uint32_t least, std::uint32_t most, std::uint32_t& member) {
    if (const auto seconds = reader.integer(key, least, most)) member = static_cast<std::uint32_t>(*seconds);
  };
  take("TcpEstablishedTimeout", 60, 432000, timeouts.tcp_established_timeout);
  take("UdpTimeout", 30, 60, timeouts.udp_timeout);
  take("UdpStreamTimeout", 60, 180, timeouts.udp_stream_timeout);
  reader.finish();
  return timeouts;
}

void read_prefixes(ObjectReader& interface, std::string_view list, std::string_view key, bool v4, std::vector<IpPrefix>& prefixes) {
  for_each_in(interface, list, [&](ObjectReader& entry) {
    if (const auto prefix = read_cidr(entry, key, v4)) prefixes.push_back(*prefix);
  });
}

// The instance that it is attached to, as far as the document names one.
std::string read_instance(ObjectReader& interface) {
  const Json* attachment = interface.object("Attachment");
  if (attachment == nullptr) return {};
  ObjectReader reader(*attachment, interface.pointer_to("Attachment"), interface.problems());
  reader.allow_unknown(interface.unread());
  reader.ignore_all(harmless::kInterfaceAttachment);
  std::string instance = reader.text("InstanceId").value_or("");
  reader.finish();
  return instance;
}

}  // namespace

std::vector<config::AttachmentFacts> read_network_interfaces(const Json& list, const std::string& pointer, Problems& problems, Warnings& warnings,
                                                             config::UnreadKeys* unread, std::vector<InterfaceContext>* contexts) {
  static const std::set<std::string, std::less<>> task_interfaces{"interface", "branch", "efa"};
  std::vector<config::AttachmentFacts> result;
  std::set<std::string> seen;
  for_each(list, pointer, problems, unread, [&](ObjectReader& reader) {
    const std::size_t before = problems.size();
    reader.ignore_all(harmless::kNetworkInterface);
    config::AttachmentFacts facts;
    InterfaceContext context;
    const std::string id = take_aws_id(reader, "NetworkInterfaceId", "eni");
    const std::string type = reader.text("InterfaceType").value_or("interface");
    if (!task_interfaces.contains(type)) {
      warnings.push_back(id + " is of type " + config::words::in_quotes(type) +
                         ", which no task can have; it was left out");
      reader.leave_out();
      return;
    }
    facts.eni_id = id;
    facts.mac = reader.mac("MacAddress");
    context.instance_id = read_instance(reader);
    context.vpc_id = reader.text("VpcId").value_or("");
    context.says_ipv4 = reader.has("PrivateIpAddresses") || reader.has("PrivateIpAddress");
    context.says_ipv6 = reader.has("Ipv6Addresses") || reader.has("Ipv6Address");
    for_each_in(reader, "PrivateIpAddresses", [&](ObjectReader& entry) {
      entry.ignore_all(harmless::kInterfaceAddress);
      const auto address = read_address(entry, "PrivateIpAddress", true);
      if (address) add_address(facts, *address, entry.boolean("Primary").value_or(false));
    });
    reader.any("PrivateIpAddress");
    if (reader.has("PrivateIpAddress")) {
      if (const auto address = read_address(reader, "PrivateIpAddress", true)) add_address(facts, *address, true);
    }
    for_each_in(reader, "Ipv6Addresses", [&](ObjectReader& entry) {
      entry.ignore_all(harmless::kInterfaceAddress);
      if (const auto address = read_address(entry, "Ipv6Address", false)) add_address(facts, *address, false);
    });
    reader.any("Ipv6Address");
    if (reader.has("Ipv6Address")) {
      if (const auto address = read_address(reader, "Ipv6Address", false)) add_address(facts, *address, false);
    }
    // EC2 prints these lists only where there is a prefix. So an interface that is described with its addresses, and without
    // them, has none.
    std::vector<IpPrefix> prefixes;
    read_prefixes(reader, "Ipv4Prefixes", "Ipv4Prefix", true, prefixes);
    read_prefixes(reader, "Ipv6Prefixes", "Ipv6Prefix", false, prefixes);
    std::ranges::sort(prefixes);
    if (!prefixes.empty() || context.says_ipv4 || context.says_ipv6) facts.prefixes = std::move(prefixes);
    reader.any("SubnetId");
    if (reader.has("SubnetId")) facts.subnet_id = take_aws_id(reader, "SubnetId", "subnet");
    reader.any("Groups");
    if (reader.has("Groups")) {
      facts.group_ids.emplace();
      for_each_in(reader, "Groups", [&](ObjectReader& group) {
        group.ignore_all(harmless::kInterfaceGroup);
        std::string group_id = take_aws_id(group, "GroupId", "sg");
        auto& ids = *facts.group_ids;
        if (std::ranges::find(ids, group_id) == ids.end()) ids.push_back(std::move(group_id));
      });
    }
    facts.source_dest_check = reader.boolean("SourceDestCheck");
    if (const Json* timeouts = reader.object("ConnectionTrackingConfiguration")) {
      facts.conntrack =
          read_connection_tracking(*timeouts, reader.pointer_to("ConnectionTrackingConfiguration"), problems, unread);
    }
    if (auto name = reader.text("PrivateDnsName"); name && !name->empty()) facts.private_dns_name = std::move(name);
    if (!id.empty() && !seen.insert(id).second) complain_twice(reader, "NetworkInterfaceId", id);
    reader.finish();
    if (problems.size() != before) return;
    result.push_back(std::move(facts));
    if (contexts != nullptr) contexts->push_back(std::move(context));
  });
  return result;
}

std::vector<config::AttachmentFacts> read_trunk_associations(const Json& list, const std::string& pointer, Problems& problems, Warnings& warnings,
                                                             config::UnreadKeys* unread, std::vector<InterfaceContext>* contexts) {
  std::vector<config::AttachmentFacts> result;
  std::set<std::string> seen;
  std::set<std::string> trunks;
  for_each(list, pointer, problems, unread, [&](ObjectReader& reader) {
    const std::size_t before = problems.size();
    reader.ignore_all(harmless::kTrunkAssociation);
    config::AttachmentFacts facts;
    InterfaceContext context;
    const std::string id = take_aws_id(reader, "BranchInterfaceId", "eni");
    const std::string protocol = reader.text("InterfaceProtocol").value_or("VLAN");
    if (protocol == "GRE") {
      warnings.push_back(id + " is associated by GRE, but the engine's trunk carries VLANs; it was left out");
      reader.leave_out();
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
    reader.any("TrunkInterfaceId");
    if (reader.has("TrunkInterfaceId")) trunks.insert(context.trunk_id = take_aws_id(reader, "TrunkInterfaceId", "eni"));
    if (!id.empty() && !seen.insert(id).second) complain_twice(reader, "BranchInterfaceId", id);
    reader.finish();
    if (problems.size() != before) return;
    result.push_back(std::move(facts));
    if (contexts != nullptr) contexts->push_back(std::move(context));
  });
  if (trunks.size() > 1 && contexts == nullptr) {
    warnings.push_back("the associations are of " + std::to_string(trunks.size()) +
                       " trunks, but this engine owns one; "
                       "ask describe-trunk-interface-associations for this host's trunk alone");
  }
  return result;
}

}  // namespace trunkline::control
