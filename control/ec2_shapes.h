// SPDX-License-Identifier: BSD-3-Clause
//
// EC2's side of the edge: the JSON that `aws ec2 describe-...` prints, turned into the model's values and back. AWS's
// spelling of names lives here and in events.h, and nowhere else.
//
// The readers take the list inside the document (the value of "SecurityGroups", say) and the pointer to it. They add
// every problem they find to `problems` and leave the thing that has one out, so a caller uses the result only if no
// problem was added. What replaces something whole must have its lists, which may be empty. Keys that nobody reads are told
// to `unread`, if there is one. What is odd yet no reason to refuse goes to `warnings`, as sentences.
//
// Pure functions; control thread and tests only.
#pragma once

#include <map>
#include <set>
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
std::vector<config::SecurityGroup> read_security_groups(const Json& list, const std::string& pointer, Problems& problems,
                                                        config::UnreadKeys* unread = nullptr);
// describe-security-group-rules: {"SecurityGroupRules":[...]}, one source a row. Rows of the same group, direction,
// protocol and ports become one rule. The groups' names are not in this form, and a group without rows is not there.
std::vector<config::SecurityGroup> read_security_group_rules(const Json& list, const std::string& pointer, Problems& problems,
                                                             config::UnreadKeys* unread = nullptr);
Json security_group_json(const config::SecurityGroup& group);

// get-managed-prefix-list-entries: takes "Entries", and "PrefixListId" where it is there; the caller calls reader.finish().
// AWS's answer does not repeat the id that it was asked for, so whoever relays it says it: `id`, or in the document.
config::PrefixList read_prefix_list(config::ObjectReader& reader, const std::string& id = {});
Json prefix_list_json(const config::PrefixList& list);

// describe-network-acls: {"NetworkAcls":[...]}. The fixed entries 32767 and 32768 are read and not kept, and written again.
std::vector<config::NetworkAcl> read_network_acls(const Json& list, const std::string& pointer, Problems& problems,
                                                  config::UnreadKeys* unread = nullptr);
Json network_acl_json(const config::NetworkAcl& acl);

// describe-vpcs: {"Vpcs":[...]}: the first range of each VPC, by its id.
std::map<std::string, IpPrefix> read_vpcs(const Json& list, const std::string& pointer, Problems& problems,
                                          config::UnreadKeys* unread = nullptr);

// describe-subnets: {"Subnets":[...]}, where each may say "VpcCidrBlock" beside what AWS says. The ids of those that say nothing
// about an IPv6 block (no Ipv6CidrBlockAssociationSet, rather than an empty one) are added to `silent_on_ipv6`.
std::vector<config::Subnet> read_subnets(const Json& list, const std::string& pointer, Problems& problems, config::UnreadKeys* unread = nullptr,
                                         std::set<std::string>* silent_on_ipv6 = nullptr);
Json subnet_json(const config::Subnet& subnet);

// What a document says about an interface beside its facts.
struct InterfaceContext {
  std::string instance_id;  // that it is attached to; empty: none is named
  std::string vpc_id;
  std::string trunk_id;     // that it is a branch of
  // Whether it has the family's list of addresses, which may be empty.
  bool says_ipv4 = false, says_ipv6 = false;
};
// describe-network-interfaces: {"NetworkInterfaces":[...]}. Interfaces that no task can have (trunks, NAT gateways,
// load balancers, ...) are left out with a warning. `contexts` gets one for each that is answered.
std::vector<config::AttachmentFacts> read_network_interfaces(const Json& list, const std::string& pointer, Problems& problems, Warnings& warnings,
                                                             config::UnreadKeys* unread = nullptr,
                                                             std::vector<InterfaceContext>* contexts = nullptr);
// describe-trunk-interface-associations: {"InterfaceAssociations":[...]}. A GRE association is left out with a warning.
std::vector<config::AttachmentFacts> read_trunk_associations(const Json& list, const std::string& pointer, Problems& problems, Warnings& warnings,
                                                             config::UnreadKeys* unread = nullptr,
                                                             std::vector<InterfaceContext>* contexts = nullptr);

// Adds an address to those of an interface: a primary one in front, the rest in the order given, none twice.
void add_address(config::AttachmentFacts& facts, const IpAddress& address, bool primary);

}  // namespace trunkline::control
