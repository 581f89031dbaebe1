// SPDX-License-Identifier: BSD-3-Clause
//
// Which states the engine can be in. Every test starts from one valid state with two ENIs and changes one thing; each
// named problem is seen once, beside the nearest thing that is allowed.
#include "config/validate.h"

#include <gtest/gtest.h>

namespace trunkline::config {
namespace {

IpAddress ip(const std::string& text) { return *IpAddress::parse(text); }
MacAddress mac(const std::string& text) { return *MacAddress::parse(text); }

PortSpec vhost_user(const std::string& socket) {
  PortSpec port;
  port.kind = PortKind::vhost_user;
  port.socket = socket;
  port.mtu = 1500;
  return port;
}

PortSpec vdev(const std::string& devargs) {
  PortSpec port;
  port.kind = PortKind::vdev;
  port.devargs = devargs;
  return port;
}

SecurityGroupRule rule_for(int protocol, int from, int to) {
  SecurityGroupRule rule;
  rule.protocol = protocol;
  rule.from_port = from;
  rule.to_port = to;
  return rule;
}

class Validate : public testing::Test {
 protected:
  Validate() {
    config_.trunk.device = "net_tap0";
    config_.trunk.mac = mac("0a:00:00:00:00:99");
    state_.subnets["subnet-1"] = {"subnet-1", *IpPrefix::parse("10.0.0.0/24"), IpPrefix::parse("2001:db8:0:1::/64"), "",
                                  ""};
    state_.subnets["subnet-2"] = {"subnet-2", *IpPrefix::parse("10.0.1.0/24"), std::nullopt, "", ""};
    state_.security_groups["sg-1"].id = "sg-1";
    for (const int n : {1, 2}) {
      Attachment& each = state_.attachments["eni-" + std::to_string(n)];
      each.eni_id = "eni-" + std::to_string(n);
      each.mac = mac("0a:00:00:00:00:0" + std::to_string(n));
      each.addresses = {ip("10.0.0.1" + std::to_string(n)), ip("2001:db8:0:1::1" + std::to_string(n))};
      each.subnet_id = "subnet-1";
      each.vlan = VlanId{static_cast<std::uint16_t>(100 + n)};
      each.group_ids = {"sg-1"};
      each.port = PortSpec{};
      each.port->netns = "task" + std::to_string(n);
    }
  }
  Attachment& first() { return state_.attachments["eni-1"]; }
  Attachment& second() { return state_.attachments["eni-2"]; }
  void expect_fine() {
    for (const Problem& problem : validate(state_, config_)) ADD_FAILURE() << problem.pointer << ' ' << problem.message;
  }
  void expect_problem(const std::string& name, const std::string& pointer, const std::string& part = "") {
    const Problems problems = validate(state_, config_);
    ASSERT_EQ(problems.size(), 1U);
    EXPECT_EQ(problems[0].name, name);
    EXPECT_EQ(problems[0].pointer, pointer);
    EXPECT_NE(problems[0].message.find(part), std::string::npos) << problems[0].message;
  }
  void add_ranges(SecurityGroup& group, std::size_t count, const char* range) {
    group.ingress.emplace_back().ranges.assign(count, *IpPrefix::parse(range));
  }
  EngineConfig config_;
  DesiredState state_;
};

TEST_F(Validate, TheStartIsFine) { expect_fine(); }

TEST_F(Validate, OneEniForAVlan) {
  second().vlan = VlanId{101};
  expect_problem("duplicate_vlan", "/attachments/eni-2/vlan",
                 "VLAN 101 is taken by eni-1; give eni-2 another one, or detach that one first");
  // A request about the first one hears that it is at fault, not the one that was there.
  const Problems problems = validate(state_, config_, "eni-1");
  ASSERT_EQ(problems.size(), 1U);
  EXPECT_EQ(problems[0].pointer, "/attachments/eni-1/vlan");
  EXPECT_EQ(problems[0].message, "VLAN 101 is taken by eni-2; give eni-1 another one, or detach that one first");
  config_.trunk.mode = TrunkMode::untagged;
  expect_fine();
}

TEST_F(Validate, VlansThatCanBe) {
  first().vlan = VlanId{4094};
  expect_fine();
  first().vlan = VlanId{4095};
  expect_problem("invalid_params", "/attachments/eni-1/vlan", "4094");
  first().vlan = VlanId{0};
  expect_fine();  // untagged: the host's own ENI
  config_.trunk.mode = TrunkMode::untagged;
  expect_fine();
}

TEST_F(Validate, OneNetworkAclForASubnet) {
  state_.network_acls["acl-1"] = {"acl-1", "", false, {}, {}, {"subnet-1", "subnet-unknown"}};
  state_.network_acls["acl-2"] = {"acl-2", "", false, {}, {}, {"subnet-2"}};
  expect_fine();
  state_.network_acls["acl-2"].subnet_ids.push_back("subnet-1");
  expect_problem("duplicate_subnet", "/network_acls/acl-2/subnets/1", "subnet-1 has network ACL acl-1 already");
  state_.network_acls["acl-2"].subnet_ids[1] = "subnet-2";
  expect_problem("duplicate_subnet", "/network_acls/acl-2/subnets/1", "listed twice");
}

TEST_F(Validate, EntriesOfANetworkAcl) {
  const IpPrefix everyone4 = *IpPrefix::parse("0.0.0.0/0"), everyone6 = *IpPrefix::parse("::/0");
  NetworkAcl& acl = state_.network_acls["acl-1"];
  acl.id = "acl-1";
  acl.egress = {{1, true, 6, 0, 65535, everyone4}, {2, false, 1, 8, -1, everyone4}, {32766, true, 58, 128, 0, everyone6}};
  expect_fine();
  acl.egress[2].number = 32767;
  expect_problem("invalid_params", "/network_acls/acl-1/egress/2/number", "32766");
  acl.egress[2].number = 2;
  expect_problem("invalid_params", "/network_acls/acl-1/egress/2/number", "twice");
  acl.egress[2].number = 3;
  acl.egress[0].to_port = -1;
  expect_problem("invalid_params", "/network_acls/acl-1/egress/0/to_port", "65535");
  acl.egress[0].to_port = 65536;
  expect_problem("invalid_params", "/network_acls/acl-1/egress/0/to_port", "65535");
  acl.egress[0].to_port = 80;
  acl.egress[1].protocol = 256;
  expect_problem("invalid_params", "/network_acls/acl-1/egress/1/protocol", "256");
}

TEST_F(Validate, TheQuotaOfANetworkAclCountsTheFixedEntry) {
  NetworkAcl& acl = state_.network_acls["acl-1"];
  acl.id = "acl-1";
  const auto add = [&](std::vector<NetworkAclEntry>& entries, const char* range) {
    entries.push_back({static_cast<std::uint16_t>(entries.size() + 1), true, -1, -1, -1, *IpPrefix::parse(range)});
  };
  for (int i = 0; i < 39; ++i) {
    for (auto* entries : {&acl.ingress, &acl.egress}) {
      add(*entries, "10.0.0.0/8");
      add(*entries, "2001:db8::/32");
    }
  }
  expect_fine();
  add(acl.ingress, "2001:db8::/32");
  expect_problem("quota", "/network_acls/acl-1/ingress", "41 IPv6 entries");
  acl.ingress.pop_back();
  add(acl.egress, "10.0.0.0/8");
  expect_problem("quota", "/network_acls/acl-1/egress", "41 IPv4 entries");
}

TEST_F(Validate, LimitsAndTheVpcsRange) {
  first().limits = {static_cast<std::uint64_t>(kMaxLimitBits), 0, 0, static_cast<std::uint32_t>(kMaxLimitPackets)};
  state_.subnets["subnet-1"].vpc_cidr = IpPrefix::parse("172.31.0.0/16");  // the subnet may be of another range of its VPC
  expect_fine();
  ++first().limits.ingress_bits;
  expect_problem("invalid_params", "/attachments/eni-1/limits/ingress_bits", "0 for no limit");
  first().limits = {};
  for (const char* range : {"10.0.0.0/15", "10.0.0.0/29", "2001:db8::/24"}) {
    state_.subnets["subnet-1"].vpc_cidr = IpPrefix::parse(range);
    expect_problem("invalid_params", "/subnets/subnet-1/vpc_cidr", "/16 to /28");
  }
}

TEST_F(Validate, OneEniForAMac) {
  second().mac = first().mac;
  expect_problem("duplicate_mac", "/attachments/eni-2/mac", "taken by eni-1");
  second().mac = mac("03:00:00:00:00:01");
  expect_problem("invalid_params", "/attachments/eni-2/mac", "multicast");
  second().mac = MacAddress{};
  expect_problem("invalid_params", "/attachments/eni-2/mac", "zeros");
}

TEST_F(Validate, OneEniForAnAddress) {
  second().addresses[0] = first().addresses[0];
  expect_problem("duplicate_ip", "/attachments/eni-2/addresses/0", "10.0.0.11 is taken by eni-1");
  second().addresses = {ip("10.0.0.12"), ip("10.0.0.12")};
  expect_problem("duplicate_ip", "/attachments/eni-2/addresses/1", "listed twice");
}

TEST_F(Validate, OneEniForAnInterface) {
  second().port->netns = "/run//netns/task1";
  expect_problem("duplicate_interface", "/attachments/eni-2/port", "taken by eni-1");
  second().port->kind = PortKind::virtio_user;
  expect_problem("duplicate_interface", "/attachments/eni-2/port");
  second().port->ifname = "eth1";
  expect_fine();
  first().port = second().port = vhost_user("/run/a.sock");
  expect_problem("duplicate_interface", "/attachments/eni-2/port", "/run/a.sock");
  first().port = vdev("net_ring0,nodeaction=a:0:CREATE");
  second().port = vdev("net_ring0,nodeaction=b:0:CREATE");
  expect_problem("duplicate_interface", "/attachments/eni-2/port", "net_ring0");
  second().port->devargs = "net_ring1";
  expect_fine();
  second().port->devargs = "net_tap0";
  expect_problem("duplicate_interface", "/attachments/eni-2/port", "is the trunk");
}

TEST_F(Validate, AddressesAreInTheirSubnet) {
  first().addresses[0] = ip("10.0.1.11");
  expect_problem("address_outside_subnet", "/attachments/eni-1/addresses/0", "10.0.0.0/24");
  first().addresses = {ip("2001:db8:0:2::11")};
  expect_problem("address_outside_subnet", "/attachments/eni-1/addresses/0");
  first().subnet_id = "subnet-2";
  expect_problem("address_outside_subnet", "/attachments/eni-1/addresses/0", "no IPv6 range");
  first().subnet_id = "subnet-unknown";
  expect_fine();  // it waits for the subnet
  EXPECT_TRUE(missing_facts(first(), state_, config_));
  config_.subnets = {{"subnet-unknown", *IpPrefix::parse("10.9.0.0/24"), std::nullopt, "", ""}};
  expect_problem("address_outside_subnet", "/attachments/eni-1/addresses/0");
}

TEST_F(Validate, AwsKeepsFiveAddresses) {
  for (const char* text :
       {"10.0.0.0", "10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.255", "2001:db8:0:1::", "2001:db8:0:1::1",
        "2001:db8:0:1::2", "2001:db8:0:1::3", "2001:db8:0:1:ffff:ffff:ffff:ffff"}) {
    SCOPED_TRACE(text);
    first().addresses = {ip(text)};
    expect_problem("reserved_address", "/attachments/eni-1/addresses/0");
  }
  for (const char* text : {"10.0.0.4", "10.0.0.254", "2001:db8:0:1::4", "2001:db8:0:1:ffff:ffff:ffff:fffe"}) {
    first().addresses = {ip(text)};
    expect_fine();
  }
}

TEST_F(Validate, TheTrunkIsTheOneOfTheConfig) {
  first().trunk_mac = config_.trunk.mac;
  expect_fine();
  first().trunk_mac = mac("0a:00:00:00:00:98");
  expect_problem("wrong_trunk", "/attachments/eni-1/trunk_mac", "0a:00:00:00:00:99");
  config_.trunk.mac.reset();
  expect_fine();
}

TEST_F(Validate, QuotasOfAnInterface) {
  first().group_ids.clear();
  for (int n = 0; n < 16; ++n) first().group_ids.push_back("sg-" + std::to_string(n));
  expect_fine();
  first().group_ids.push_back("sg-16");
  expect_problem("quota", "/attachments/eni-1/groups", "17 security groups");
  first().group_ids = {"sg-1"};
  first().addresses.clear();
  for (int n = 20; n < 37; ++n) first().addresses.push_back(ip("10.0.0." + std::to_string(n)));
  expect_problem("quota", "/attachments/eni-1/addresses");
}

TEST_F(Validate, RulesAreCountedByFamilyAndDirectionOverAllGroups) {
  state_.security_groups["sg-2"].id = "sg-2";
  first().group_ids = {"sg-1", "sg-2"};
  add_ranges(state_.security_groups["sg-2"], 600, "10.0.0.0/8");
  add_ranges(state_.security_groups["sg-1"], 400, "10.0.0.0/8");
  add_ranges(state_.security_groups["sg-1"], 1000, "::/0");
  expect_fine();
  state_.security_groups["sg-2"].ingress[0].prefix_list_ids = {"pl-1"};
  expect_fine();  // the list is not there yet
  state_.prefix_lists["pl-1"] = {"pl-1", {*IpPrefix::parse("10.0.0.0/8")}};
  expect_problem("quota", "/attachments/eni-1/groups", "1001 IPv4 ingress rules");
  state_.prefix_lists.clear();
  state_.security_groups["sg-2"].egress.emplace_back().group_ids = {"sg-1"};
  expect_fine();
  state_.security_groups["sg-2"].ingress[0].group_ids = {"sg-unknown"};
  EXPECT_EQ(validate(state_, config_).size(), 2U) << "a group counts once in each family";
}

TEST_F(Validate, QuotaOfAPrefixList) {
  state_.prefix_lists["pl-1"] = {"pl-1", std::vector<IpPrefix>(1000, *IpPrefix::parse("10.0.0.0/8"))};
  expect_fine();
  state_.prefix_lists["pl-1"].entries.push_back(*IpPrefix::parse("10.0.0.0/8"));
  expect_problem("quota", "/prefix_lists/pl-1/entries", "1001");
}

TEST_F(Validate, AsManyPortsAsTheLimit) {
  config_.limits.endpoints = 2;
  expect_fine();
  config_.limits.endpoints = 1;
  expect_problem("port_limit", "/attachments", "limits.endpoints is 1");
}

TEST_F(Validate, PortsFitTheHost) {
  config_.trunk.mtu = 1500;
  first().port->mtu = second().port->mtu = 1500;
  expect_fine();
  first().port->mtu = 1501;
  expect_problem("invalid_params", "/attachments/eni-1/port/mtu", "above the trunk's 1500");
  first().port->mtu = 500;
  expect_problem("invalid_params", "/attachments/eni-1/port/mtu", "576");
  first().port->mtu = 576;
  for (const char* name : {"", "a b", "a/b", "sixteen-letters-", "eth0,remote=x", "a=b", "a,b", "eth%d", "a:1", "a[0", "a]", "\"a\"", ".", "..", "lo", "all", "default", "\x7f", "e\xc3\xa9"}) {
    first().port->ifname = name;
    expect_problem("invalid_params", "/attachments/eni-1/port/ifname");
  }
  for (const char* name : {"fifteen-letters", "eth0.100", "veth_a-b", "a@b", "e+1"}) {
    first().port->ifname = name;
    expect_fine();
  }
  first().port = vhost_user("/" + std::string(106, 's'));
  expect_fine();
  first().port->socket += 's';
  expect_problem("invalid_params", "/attachments/eni-1/port/socket", "108 bytes");
  for (const char* socket : {"", "/", "a.sock", "/run/x,queues=9", "/run/x=1", "/run/a b", "/run/a\n", "/run/[a", "/run/"}) {
    first().port->socket = socket;
    expect_problem("invalid_params", "/attachments/eni-1/port/socket");
  }
  first().port->socket = "/run/t\xc3\xa2" "che/{x}.sock";
  expect_fine();
}

TEST_F(Validate, NoEniHasTheRoutersMac) {
  first().mac = config_.edge.router_mac;
  expect_fine();  // the fabric's router has another one
  config_.edge.mode = EdgeMode::answer;
  expect_problem("invalid_params", "/attachments/eni-1/mac", "the router's");
}

TEST_F(Validate, ADeviceOfATaskHasAGrammar) {
  config_.trunk.device = "0000:00:07.0";
  for (const char* device : {"net_null0", "net_null0,no-rx=1", "net_ring7,nodeaction=x:0:CREATE",
                             "net_memif0,role=server,id=0,rsize=10,socket-abstract=no,socket=/run/a.sock",
                             "net_virtio_user0,path=/dev/vhost-net,iface=x0,queue_size=256",
                             "net_null0,size=384,copy=1", "net_tap0,persist,iface=x0"}) {
    first().port = vdev(device);
    expect_fine();
  }
  for (const char* device : {"",
                             ",x=1",
                             "net_pcap0,tx_pcap=/etc/passwd",
                             "net_pcap0,rx_pcap=/etc/shadow",
                             "net_ring0,internal=0x7f0000000000",
                             "0000:00:06.0",
                             "net_null0,",
                             "net_null0,,size=1",
                             "net_null0,size=1=2",
                             "net_null0,size=[1",
                             "net_null0,size=a b",
                             "net_null0 ,size=1",
                             "net_null0,colour=1",
                             "net_af_xdp0,iface=x,xdp_prog=/x",
                             "eth_bond0",
                             "vdev:net_null0",
                             "net_null0\n",
                             "net_null0,size=65600,copy=1",
                             "net_null0,size=385",
                             "net_null0,size=63",
                             "net_null0,size=-1",
                             "net_null0,size",
                             "net_null0,size=0x40",
                             "net_null0,size=99999999999999999999",
                             "net_null0,copy=2",
                             "net_af_packet0,iface=x,framesz=16",
                             "net_af_packet0,iface=../x",
                             "net_memif0,rsize=31",
                             "net_memif0,socket=a.sock",
                             "net_virtio_user0,path=/run/a.sock",
                             "net_virtio_user0,path=/dev/vhost-net,server=1"}) {
    first().port = vdev(device);
    expect_problem("invalid_params", "/attachments/eni-1/port/devargs");
  }
}

TEST_F(Validate, TimeoutsAreWithinAwsBounds) {
  first().conntrack = {60, 60, 60};
  expect_fine();
  first().conntrack.tcp_established_timeout = 59;
  expect_problem("invalid_params", "/attachments/eni-1/conntrack/TcpEstablishedTimeout", "60 to 432000");
  first().conntrack = {60, 61, 60};
  expect_problem("invalid_params", "/attachments/eni-1/conntrack/UdpTimeout");
  first().conntrack = {60, 60, 181};
  expect_problem("invalid_params", "/attachments/eni-1/conntrack/UdpStreamTimeout");
}

TEST_F(Validate, RulesOfGroups) {
  auto& rule = state_.security_groups["sg-1"].ingress.emplace_back(rule_for(6, 80, 80));
  expect_fine();
  rule.to_port = 79;
  expect_problem("invalid_params", "/security_groups/sg-1/ingress/0/from_port", "swap");
  rule = rule_for(300, -1, -1);
  expect_problem("invalid_params", "/security_groups/sg-1/ingress/0/protocol");
  rule = rule_for(-1, -1, -1);
  rule.group_ids = {"sg-stale"};
  expect_fine();  // a stale reference matches nothing, as in AWS
}

TEST_F(Validate, Subnets) {
  Subnet& subnet = state_.subnets["subnet-2"];
  for (const char* range : {"10.1.0.0/16", "10.1.0.0/28"}) {
    subnet.cidr = *IpPrefix::parse(range);
    expect_fine();
  }
  for (const char* range : {"10.1.0.0/15", "10.1.0.0/29", "2001:db8::/64"}) {
    subnet.cidr = *IpPrefix::parse(range);
    expect_problem("invalid_params", "/subnets/subnet-2/cidr");
  }
  subnet.cidr = *IpPrefix::parse("10.1.0.0/24");
  for (const char* range : {"2001:db9::/44", "2001:db9::/48", "2001:db9::/52", "2001:db9::/56", "2001:db9::/60", "2001:db9::/64"}) {
    subnet.ipv6_cidr = IpPrefix::parse(range);
    expect_fine();
  }
  for (const char* range : {"2001:db8::/40", "2001:db8:1::/46", "2001:db8:1::/68"}) {
    subnet.ipv6_cidr = IpPrefix::parse(range);
    expect_problem("invalid_params", "/subnets/subnet-2/ipv6_cidr", "/44");
  }
  subnet.ipv6_cidr = IpPrefix::parse("2001:db9::/60");
  subnet.cidr.reset();  // IPv6-only
  expect_fine();
  subnet.ipv6_cidr.reset();
  expect_problem("invalid_params", "/subnets/subnet-2/cidr", "neither");
  subnet.cidr = *IpPrefix::parse("10.1.0.0/24");
  subnet.ipv6_cidr = IpPrefix::parse("2001:db8:0:1::/64");
  expect_problem("invalid_params", "/subnets/subnet-2/ipv6_cidr", "overlaps");
  subnet.ipv6_cidr.reset();
  subnet.cidr = *IpPrefix::parse("10.0.0.0/20");
  expect_problem("invalid_params", "/subnets/subnet-1/cidr", "overlaps 10.0.0.0/20 of subnet-2");
  subnet.cidr = *IpPrefix::parse("10.1.0.0/24");
  config_.subnets = {{"subnet-3", *IpPrefix::parse("10.1.0.128/25"), std::nullopt, "", ""}};
  expect_problem("invalid_params", "/subnets/subnet-2/cidr", "subnet-3");
  config_.subnets[0].id = "subnet-2";  // the state's own word about it counts
  expect_fine();
}

// A range is unique in a VPC. A subnet whose VPC nobody named counts as one of the host's own.
TEST_F(Validate, TwoVpcsMayHaveOneRange) {
  const auto put = [&](const char* id, const char* range, const char* vpc) {
    Subnet& subnet = state_.subnets[id];
    subnet.id = id;
    subnet.cidr = *IpPrefix::parse(range);
    subnet.vpc_id = vpc;
  };
  put("subnet-a", "10.7.0.0/24", "vpc-a");
  put("subnet-b", "10.7.0.0/24", "vpc-b");
  expect_fine();
  put("subnet-c", "10.7.0.0/20", "vpc-c");
  expect_fine();
  put("subnet-d", "10.7.0.128/25", "vpc-b");
  expect_problem("invalid_params", "/subnets/subnet-d/cidr", "overlaps 10.7.0.0/24 of subnet-b");
  put("subnet-d", "10.7.0.128/25", "");
  expect_fine();
  config_.identity.vpc_id = "vpc-b";
  expect_problem("invalid_params", "/subnets/subnet-d/cidr", "overlaps 10.7.0.0/24 of subnet-b");
  config_.identity.vpc_id = "vpc-e";
  expect_fine();
}

TEST_F(Validate, AnEniWithADelegatedPrefixWaits) {
  Attachment attachment;
  attachment.prefixes = {*IpPrefix::parse("10.0.0.16/28"), *IpPrefix::parse("2001:db8::/80")};
  const auto why = missing_facts(attachment, state_, config_);
  ASSERT_TRUE(why);
  EXPECT_NE(why->find("delegated prefix 10.0.0.16/28 and 1 more to be unassigned"), std::string::npos) << *why;
  attachment.prefixes.clear();
  EXPECT_EQ(missing_facts(attachment, state_, config_)->find("prefix"), std::string::npos);
}

TEST_F(Validate, IdsAreOfTheirKind) {
  state_.security_groups["group"].id = "group";
  expect_problem("invalid_params", "/security_groups/group");
  EXPECT_TRUE(is_resource_id("sg", "sg-9effe8e4"));
  for (const char* text : {"", "sg", "sg-", "sgx-1", "sg-a_b", "pl-1", "sg-123456789012345678901234567890123"})
    EXPECT_FALSE(is_resource_id("sg", text)) << text;
}

TEST_F(Validate, EverythingIsToldAtOnce) {
  second() = first();
  second().eni_id = "eni-2";
  EXPECT_EQ(validate(state_, config_).size(), 5U);  // VLAN, MAC, two addresses, interface
}

TEST_F(Validate, MissingFactsAreNamedInOneSentence) {
  EXPECT_EQ(missing_facts(first(), state_, config_), std::nullopt);
  first().vlan.reset();
  EXPECT_EQ(missing_facts(first(), state_, config_), "waits for its VLAN (agent message or --vlan)");
  first().group_ids.push_back("sg-7");
  EXPECT_EQ(missing_facts(first(), state_, config_),
            "waits for its VLAN (agent message or --vlan) and group sg-7 (sg put)");
  config_.trunk.mode = TrunkMode::untagged;
  EXPECT_EQ(missing_facts(first(), state_, config_), "waits for group sg-7 (sg put)");
  config_.trunk.mode = TrunkMode::tagged;
  const Attachment nothing;
  const std::string sentence = missing_facts(nothing, state_, config_).value_or("");
  for (const char* part : {"VLAN", "MAC", "an address", "its subnet", "security groups", "port"}) {
    EXPECT_NE(sentence.find(part), std::string::npos) << sentence;
  }
  first().group_ids = {"sg-1"};
  first().vlan = VlanId{101};
  first().subnet_id = "subnet-9";
  EXPECT_EQ(missing_facts(first(), state_, config_), "waits for subnet subnet-9 (subnet put)");
  config_.subnets = {{"subnet-9", *IpPrefix::parse("10.9.0.0/24"), std::nullopt, "", ""}};
  EXPECT_EQ(missing_facts(first(), state_, config_), std::nullopt);
}

}  // namespace
}  // namespace trunkline::config
