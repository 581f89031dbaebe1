// SPDX-License-Identifier: BSD-3-Clause
//
// EC2's side of the edge: the JSON that `aws ec2 describe-...` prints, turned into the model's values and back. AWS's
// spelling of names lives here and in events.h, and nowhere else.
//
// The readers take the list inside the document (the value of "SecurityGroups", say) and the pointer to it. They add
// every problem they find to `problems` and leave the thing that has one out, so a caller uses the result only if no
// problem was added. Keys that AWS added since are ignored; lists that are absent are empty. What is odd yet no reason
// to refuse goes to `warnings`, as sentences.
//
// Pure functions; control thread and tests only.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "config/desired_state.h"
#include "config/json_reader.h"
#include "config/state_json.h"

namespace trunkline::control {

using config::Json;
using config::Problems;
using Warnings = std::vector<std::string>;

// describe-security-groups: {"SecurityGroups":[...]}.
std::vector<config::SecurityGroup> read_security_groups(const Json& list, const std::string& pointer,
                                                        Problems& problems);
// describe-security-group-rules: {"SecurityGroupRules":[...]}, one source a row. Rows of the same group, direction,
// protocol and ports become one rule. The groups' names are not in this form, and a group without rows is not there.
std::vector<config::SecurityGroup> read_security_group_rules(const Json& list, const std::string& pointer,
                                                             Problems& problems);
Json security_group_json(const config::SecurityGroup& group);

// get-managed-prefix-list-entries: takes "PrefixListId" and "Entries"; the caller calls reader.finish(). AWS's answer
// does not repeat the id it was asked for, so whoever relays it adds that.
config::PrefixList read_prefix_list(config::ObjectReader& reader);
Json prefix_list_json(const config::PrefixList& list);

// describe-network-acls: {"NetworkAcls":[...]}. The fixed entries 32767 and 32768 are read and not kept, and written again.
std::vector<config::NetworkAcl> read_network_acls(const Json& list, const std::string& pointer, Problems& problems);
Json network_acl_json(const config::NetworkAcl& acl);

// describe-vpcs: {"Vpcs":[...]}: the first range of each VPC, by its id.
std::map<std::string, IpPrefix> read_vpcs(const Json& list, const std::string& pointer, Problems& problems);

// describe-subnets: {"Subnets":[...]}, where each may say "VpcCidrBlock" beside what AWS says.
std::vector<config::Subnet> read_subnets(const Json& list, const std::string& pointer, Problems& problems);
Json subnet_json(const config::Subnet& subnet);

// describe-network-interfaces: {"NetworkInterfaces":[...]}. Interfaces that no task can have (trunks, NAT gateways,
// load balancers, ...) are left out with a warning.
std::vector<config::AttachmentFacts> read_network_interfaces(const Json& list, const std::string& pointer,
                                                             Problems& problems, Warnings& warnings);
// describe-trunk-interface-associations: {"InterfaceAssociations":[...]}. A GRE association is left out with a warning.
std::vector<config::AttachmentFacts> read_trunk_associations(const Json& list, const std::string& pointer,
                                                             Problems& problems, Warnings& warnings);

// Adds an address to those of an interface: a primary one in front, the rest in the order given, none twice.
void add_address(config::AttachmentFacts& facts, const IpAddress& address, bool primary);

}  // namespace trunkline::control
