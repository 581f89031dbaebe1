// SPDX-License-Identifier: BSD-3-Clause
//
// The dynamic state as JSON, in and out: what the journal keeps on disk, what `state.get` answers and `state.replace`
// takes, what `task.attach` takes of one attachment. from_json(to_json(x)) == x for every valid state.
// The published contract is config/schema/state.schema.json.
#pragma once

#include <expected>
#include <string>

#include "config/desired_state.h"
#include "config/json_reader.h"

namespace trunkline::config {

Json to_json(const DesiredState& state);
Json to_json(const Attachment& attachment);
Json to_json(const PortSpec& port);
Json to_json(const Subnet& subnet);        // without its id, which is the key in the state
Json to_json(const SecurityGroup& group);  // the same
Json to_json(const NetworkAcl& acl);       // the same; in state_json_acl.cpp

std::expected<DesiredState, Problems> state_from_json(const Json& document, std::string_view pointer = "");

// What one task.attach (or the `defaults` of an event) says: every member may be absent, and an absent one changes nothing.
struct AttachmentFacts {
  std::optional<std::string> eni_id;
  std::optional<std::string> attachment_id;
  std::optional<std::string> attachment_status;
  std::optional<MacAddress> mac;
  std::optional<std::vector<IpAddress>> addresses;
  std::optional<std::vector<IpPrefix>> prefixes;
  std::optional<std::string> subnet_id;
  std::optional<VlanId> vlan;
  std::optional<MacAddress> trunk_mac;
  std::optional<std::vector<std::string>> group_ids;
  std::optional<PortSpec> port;
  std::optional<std::string> private_dns_name;
  std::optional<bool> source_dest_check;
  std::optional<ConnectionTracking> conntrack;
  struct Limits {
    std::optional<std::uint64_t> ingress_bits, egress_bits;
    std::optional<std::uint32_t> ingress_packets, egress_packets;
  } limits;
  std::optional<OnChange> on_change;
  std::optional<bool> always_track, audit, block_imds;
  std::optional<Task> task;  // merged member by member: an empty member changes nothing
};

// Reads the members of task.attach from `reader`; the caller calls reader.finish(). `eni` is not required here.
// `default_mtu` is for a port that names none: the trunk's, for a caller who knows it.
AttachmentFacts read_attachment_facts(ObjectReader& reader, std::uint16_t default_mtu = PortSpec{}.mtu);
PortSpec read_port_spec(const Json& value, const std::string& pointer, Problems& problems,
                        std::uint16_t default_mtu = PortSpec{}.mtu);
// The members cidr, ipv6_cidr, availability_zone, vpc_id and vpc_cidr; the caller knows the id and calls reader.finish().
Subnet read_subnet(ObjectReader& reader, std::string id);
// The members of a network ACL; the caller calls reader.finish(). Entries may come in any order.
NetworkAcl read_network_acl(ObjectReader& reader, const std::string& id);
// The settings of an ENI that task.set changes too: limits, on_change, always_track, audit, block_imds.
void read_settings(ObjectReader& reader, AttachmentFacts& facts);
void put_settings(Json& object, const Attachment& attachment);
// The member "protocol" of a rule or an entry.
int read_protocol(ObjectReader& reader);
// A list of ids of one kind ("sg", "pl"), each once. Absent is empty.
std::vector<std::string> read_ids(ObjectReader& reader, std::string_view key, std::string_view kind);
// Adds the facts to an attachment (a new one if its eni_id is empty).
void merge(Attachment& attachment, const AttachmentFacts& facts);

}  // namespace trunkline::config
