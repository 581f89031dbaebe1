// SPDX-License-Identifier: BSD-3-Clause
//
// What the control plane was told, and nothing that it did about it: the dynamic state of the engine as plain values.
// One object holds all of it, so that a change is "build the next state, validate it whole, apply it or refuse it".
// The journal writes this object to disk; the reconciler compares it with what is there. Copies share what they have in
// common (shared_map.h), so the next state costs what differs from the present one, and so does finding that out.
//
// Names follow AWS where AWS names the thing (security groups, subnets, network interfaces), since these values are
// what AWS's shapes say once parsed. Only the control thread (and tests) touch it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "config/net.h"
#include "config/shared_map.h"

namespace trunkline::config {

// One permission of a security group: the cross product of one protocol-and-ports with every source it lists.
struct SecurityGroupRule {
  static constexpr int kAnyProtocol = -1;

  int protocol = kAnyProtocol;  // IANA number, or kAnyProtocol
  // TCP and UDP: inclusive destination port range. ICMP and ICMPv6: type and code, -1 is any. Ignored otherwise.
  int from_port = -1;
  int to_port = -1;
  std::vector<IpPrefix> ranges;               // IPv4 and IPv6, canonical (host bits clear)
  std::vector<std::string> prefix_list_ids;   // "pl-..."
  std::vector<std::string> group_ids;         // "sg-..." (UserIdGroupPairs)

  friend bool operator==(const SecurityGroupRule&, const SecurityGroupRule&) = default;
};

struct SecurityGroup {
  std::string id;  // "sg-" and 8 or 17 hex digits
  std::string name;
  std::string description;
  std::string vpc_id;
  std::vector<SecurityGroupRule> ingress;  // IpPermissions
  std::vector<SecurityGroupRule> egress;   // IpPermissionsEgress
  friend bool operator==(const SecurityGroup&, const SecurityGroup&) = default;
};

struct PrefixList {
  std::string id;
  std::vector<IpPrefix> entries;
  friend bool operator==(const PrefixList&, const PrefixList&) = default;
};

struct Subnet {
  std::string id;
  // Canonical. At least one is there: an IPv6-only subnet has no IPv4 range.
  std::optional<IpPrefix> cidr;       // IPv4, /16 to /28
  std::optional<IpPrefix> ipv6_cidr;  // /44 to /64 in steps of 4
  std::string availability_zone;
  std::string vpc_id;
  // The first range of the VPC: its base and 2 is where Amazon's DNS resolver answers. Without one: the subnet's.
  std::optional<IpPrefix> vpc_cidr{};

  // The VPC router answers at the first address of the subnet (AWS reserves it), and over IPv6 at <subnet>::1.
  std::optional<IpAddress> router() const {
    if (!cidr) return std::nullopt;
    return IpAddress::from_v4(cidr->address.v4() + 1);
  }
  std::optional<IpAddress> router6() const {
    if (!ipv6_cidr) return std::nullopt;
    IpAddress address = ipv6_cidr->address;
    address.bytes[15] = 1;
    return address;
  }
  std::optional<IpAddress> resolver() const {
    const std::optional<IpPrefix>& range = vpc_cidr ? vpc_cidr : cidr;
    if (!range) return std::nullopt;
    return IpAddress::from_v4(range->network().address.v4() + 2);
  }
  friend bool operator==(const Subnet&, const Subnet&) = default;
};

enum class PortKind { tap, virtio_user, vhost_user, vdev };

// Where an ENI comes out on this host.
struct PortSpec {
  PortKind kind = PortKind::tap;
  // tap and virtio-user: the task's network namespace, by name or path; empty is the engine's own (a host endpoint).
  std::string netns;
  std::string ifname = "eth0";
  std::string socket;       // vhost-user: path of the socket
  bool client = true;       // vhost-user: the engine connects, the task listens (so a restarted engine comes back)
  std::string devargs;      // vdev: any DPDK device string
  std::uint16_t mtu = 9001;
  // tap and virtio-user: whether the task's default route goes through this interface.
  bool default_route = true;
  bool offloads = true;  // checksums and segmentation may be left to the port, where its driver has them; see EngineConfig::Trunk
  friend bool operator==(const PortSpec&, const PortSpec&) = default;
};

// ConnectionTrackingSpecification of an ENI, in seconds, within AWS's bounds.
struct ConnectionTracking {
  std::uint32_t tcp_established_timeout = 432000;  // 60..432000
  std::uint32_t udp_timeout = 30;                  // 30..60
  std::uint32_t udp_stream_timeout = 180;          // 60..180
  friend bool operator==(const ConnectionTracking&, const ConnectionTracking&) = default;
};

// What one ENI may use of the host, per second; 0: as much as there is. Octets are those of IP packets, in bits as AWS has them.
struct RateLimits {
  std::uint64_t ingress_bits = 0, egress_bits = 0;
  std::uint32_t ingress_packets = 0, egress_packets = 0;
  friend bool operator==(const RateLimits&, const RateLimits&) = default;
};

// What a change of the rules does to connections that are tracked.
enum class OnChange {
  keep,        // AWS's way: they go on until they end or are idle
  revalidate,  // each is judged anew by the rules as they are then
};

// One entry of a network ACL, of one direction.
struct NetworkAclEntry {
  std::uint16_t number = 0;  // 1..32766; the lowest that matches decides
  bool allow = false;
  int protocol = -1;         // IANA number, or -1
  int from_port = -1;        // as in SecurityGroupRule
  int to_port = -1;
  IpPrefix range;            // of one family
  friend bool operator==(const NetworkAclEntry&, const NetworkAclEntry&) = default;
};

// The entries are sorted by number. What no entry matches is denied: the fixed entries 32767 and 32768 are not kept.
struct NetworkAcl {
  std::string id;  // "acl-..."
  std::string vpc_id;
  bool is_default = false;
  std::vector<NetworkAclEntry> ingress, egress;
  std::vector<std::string> subnet_ids;  // its associations; a subnet has one ACL at most, and without one everything passes
  friend bool operator==(const NetworkAcl&, const NetworkAcl&) = default;
};

// What describe-tasks says about the task an ENI belongs to; kept so that it can be said back in the same shape.
struct Task {
  std::string task_arn;
  std::string cluster_arn;
  std::string task_definition_arn;
  std::string container_instance_arn;
  std::string group;
  std::string launch_type;
  std::string last_status;
  std::string desired_status;
  std::int64_t version = 0;  // detail.version: an event with a version not above this one is stale
  struct Container {
    std::string arn;
    std::string name;
    std::string runtime_id;
    std::string last_status;
    friend bool operator==(const Container&, const Container&) = default;
  };
  std::vector<Container> containers;
  friend bool operator==(const Task&, const Task&) = default;
};

// One task ENI as far as it is known. Its facts arrive from several places and in any order: MAC, address and subnet
// from the task's attachment, the VLAN from the agent's message, the groups from EC2, the port from whoever owns the
// network namespace. Until all are there it waits, and says for what.
struct Attachment {
  std::string eni_id;         // "eni-..."
  std::string attachment_id;  // the ECS attachment's id (the part of its ARN behind the last '/')
  std::string attachment_status = "ATTACHED";
  std::optional<MacAddress> mac;
  std::vector<IpAddress> addresses;  // the first IPv4 address is the primary one
  // Delegated to the ENI (Ipv4Prefixes, Ipv6Prefixes): canonical, IPv4 first, sorted. The engine cannot serve them: an
  // ENI that has one waits (missing_facts()).
  std::vector<IpPrefix> prefixes;
  std::string subnet_id;
  std::optional<VlanId> vlan;
  std::optional<MacAddress> trunk_mac;
  std::vector<std::string> group_ids;
  std::optional<PortSpec> port;
  std::string private_dns_name;
  bool source_dest_check = true;
  ConnectionTracking conntrack;
  RateLimits limits;
  OnChange on_change = OnChange::keep;
  bool always_track = false;  // its paths are automatically tracked (a target of a Network Load Balancer, ...)
  bool audit = false;         // what the rules would refuse is counted and logged, and passes
  bool block_imds = false;    // no way to the instance metadata service
  Task task;
  friend bool operator==(const Attachment&, const Attachment&) = default;
};

using AddressSet = SharedSet<IpAddress>;

struct DesiredState {
  std::uint64_t revision = 0;  // of this object; grows by one with every accepted change
  SharedMap<std::string, Subnet> subnets;
  SharedMap<std::string, SecurityGroup> security_groups;
  SharedMap<std::string, PrefixList> prefix_lists;
  SharedMap<std::string, NetworkAcl> network_acls;
  // Members of groups that live elsewhere in the VPC; the ENIs attached here are members without being listed.
  SharedMap<std::string, AddressSet> remote_members;
  SharedMap<std::string, Attachment> attachments;  // by ENI id
  // Last version seen of tasks whose ENI is gone, so that a late event does not bring it back. Bounded.
  SharedMap<std::string, std::int64_t> finished_tasks;

  friend bool operator==(const DesiredState&, const DesiredState&) = default;
};

}  // namespace trunkline::config
