// SPDX-License-Identifier: BSD-3-Clause
//
// The dynamic state as JSON: what is written is read back as it was, for any state; and each refusal beside the form
// that is accepted.
#include "config/state_json.h"

#include <gtest/gtest.h>

#include <random>

#include "config/validate.h"

namespace trunkline::config {
namespace {

DesiredState read(const char* text) {
  const auto state = state_from_json(*parse_json(text));
  EXPECT_TRUE(state) << text << ": " << state.error()[0].message;
  return state.value_or(DesiredState{});
}

void expect_refused(const std::string& text, const std::string& pointer, const std::string& part) {
  const auto state = state_from_json(*parse_json(text), "/state");
  ASSERT_FALSE(state) << text;
  ASSERT_EQ(state.error().size(), 1U) << text;
  EXPECT_EQ(state.error()[0].name, "invalid_params");
  EXPECT_EQ(state.error()[0].pointer, "/state" + pointer);
  EXPECT_NE(state.error()[0].message.find(part), std::string::npos) << state.error()[0].message;
}

// Random states: not valid as a whole (VLANs repeat, addresses are anywhere), but made of parts that are.
class Dice {
 public:
  explicit Dice(unsigned seed) : random_(seed) {}
  DesiredState state() {
    DesiredState state;
    state.revision = random_() & 0x7fffffffffffffff;
    repeat(3, [&] {
      auto subnet = make_subnet();
      state.subnets[subnet.id] = subnet;
    });
    repeat(3, [&] {
      SecurityGroup group{id("sg"), text(), text(), text(), {}, {}};
      repeat(3, [&] { group.ingress.push_back(rule()); });
      repeat(3, [&] { group.egress.push_back(rule()); });
      state.security_groups[group.id] = group;
    });
    repeat(2, [&] {
      PrefixList list{id("pl"), {}};
      repeat(4, [&] { list.entries.push_back(range()); });
      state.prefix_lists[list.id] = list;
    });
    repeat(3, [&] {
      NetworkAcl acl{id("acl"), text(), coin(), entries(), entries(), ids("subnet")};
      state.network_acls[acl.id] = acl;
    });
    repeat(2, [&] {
      auto& members = state.remote_members[id("sg")];
      repeat(4, [&] { members.insert(address()); });
    });
    repeat(3, [&] {
      auto each = attachment();
      state.attachments[each.eni_id] = each;
    });
    repeat(3, [&] { state.finished_tasks[text()] = from(0, 1 << 30); });
    return state;
  }
  Attachment attachment() {
    Attachment each;
    each.eni_id = id("eni");
    each.attachment_id = text();
    each.attachment_status = text();
    if (coin()) each.mac = mac();
    repeat(3, [&] { each.addresses.push_back(address()); });
    if (coin()) each.prefixes = {IpPrefix{IpAddress::from_v4(0x0a000030), 28}};
    if (coin()) each.subnet_id = id("subnet");
    if (coin()) each.vlan = VlanId{static_cast<std::uint16_t>(from(1, 4094))};
    if (coin()) each.trunk_mac = mac();
    each.group_ids = ids("sg");
    if (coin()) each.port = port();
    each.private_dns_name = text();
    each.source_dest_check = coin();
    each.conntrack = {static_cast<std::uint32_t>(from(60, 432000)), static_cast<std::uint32_t>(from(30, 60)),
                      static_cast<std::uint32_t>(from(60, 180))};
    if (coin()) each.limits.ingress_bits = static_cast<std::uint64_t>(from(0, kMaxLimitBits));
    if (coin()) each.limits.egress_bits = static_cast<std::uint64_t>(from(0, kMaxLimitBits));
    if (coin()) each.limits.ingress_packets = static_cast<std::uint32_t>(from(0, kMaxLimitPackets));
    if (coin()) each.limits.egress_packets = static_cast<std::uint32_t>(from(0, kMaxLimitPackets));
    each.on_change = coin() ? OnChange::revalidate : OnChange::keep;
    each.always_track = coin();
    each.audit = coin();
    each.block_imds = coin();
    if (coin()) {
      each.task = {text(), text(), text(), text(), text(), text(), text(), text(), from(0, 9), {}};
      repeat(2, [&] { each.task.containers.push_back({text(), text(), text(), text()}); });
    }
    return each;
  }

 private:
  std::int64_t from(std::int64_t least, std::int64_t most) {
    return std::uniform_int_distribution<std::int64_t>(least, most)(random_);
  }
  bool coin() { return from(0, 1) == 1; }
  template <typename Do>
  void repeat(int most, Do each) {
    for (auto left = from(0, most); left > 0; --left) each();
  }
  std::string text() {
    static const char* const kTexts[] = {
        "", "a", "web task", "Grüße \u20ac", "a/b~c", "\"quoted\"\n\t\\", "arn:aws:ecs:us-west-2:1:task/x"};
    return kTexts[from(0, 6)];
  }
  std::string id(const char* kind) { return std::string(kind) + "-" + std::to_string(from(0, 50)); }
  std::vector<std::string> ids(const char* kind) {
    std::set<std::string> unique;
    repeat(3, [&] { unique.insert(id(kind)); });
    return {unique.begin(), unique.end()};
  }
  IpAddress address() {
    if (coin()) return IpAddress::from_v4(static_cast<std::uint32_t>(random_()));
    IpAddress result = *IpAddress::parse("2001:db8::");
    for (std::size_t i = 4; i < 16; ++i) result.bytes[i] = static_cast<std::uint8_t>(random_() & random_());
    return result;
  }
  IpPrefix range() {
    const IpAddress host = address();
    return IpPrefix{host, static_cast<std::uint8_t>(from(0, host.is_v4() ? 32 : 128))}.network();
  }
  MacAddress mac() {
    return {{0x0a, static_cast<std::uint8_t>(random_()), 0, 0xff, 0, static_cast<std::uint8_t>(random_())}};
  }
  Subnet make_subnet() {
    Subnet subnet{id("subnet"), IpPrefix{IpAddress::from_v4(static_cast<std::uint32_t>(random_())), 24}.network(),
                  std::nullopt, text(), text()};
    if (coin()) subnet.ipv6_cidr = IpPrefix{*IpAddress::parse("2001:db8:5::9"), static_cast<std::uint8_t>(64 - 4 * from(0, 5))}.network();
    if (coin()) subnet.vpc_cidr = IpPrefix{subnet.cidr->address, static_cast<std::uint8_t>(from(16, 28))}.network();
    if (subnet.ipv6_cidr && coin()) subnet.cidr.reset();
    return subnet;
  }
  SecurityGroupRule rule() {
    SecurityGroupRule result;
    static constexpr int kProtocols[] = {-1, 0, 1, 6, 17, 50, 58, 255};
    result.protocol = kProtocols[from(0, 7)];
    if (result.protocol == 6 || result.protocol == 17) {
      result.from_port = static_cast<int>(from(0, 65535));
      result.to_port = static_cast<int>(from(result.from_port, 65535));
    } else if (coin()) {
      result.from_port = static_cast<int>(from(0, 255));
      result.to_port = static_cast<int>(from(-1, 255));
    }
    repeat(3, [&] { result.ranges.push_back(range()); });
    result.prefix_list_ids = ids("pl");
    result.group_ids = ids("sg");
    return result;
  }
  std::vector<NetworkAclEntry> entries() {
    std::vector<NetworkAclEntry> result;
    repeat(4, [&] {
      const SecurityGroupRule like = rule();
      const auto last = result.empty() ? 0 : result.back().number;
      result.push_back({static_cast<std::uint16_t>(last + from(1, 1000)), coin(), like.protocol, like.from_port, like.to_port, range()});
    });
    return result;
  }
  PortSpec port() {
    PortSpec result;
    result.kind = static_cast<PortKind>(from(0, 3));
    result.mtu = static_cast<std::uint16_t>(from(576, 9216));
    if (result.kind == PortKind::vhost_user) {
      result.socket = "/run/" + std::to_string(from(0, 99));
      result.client = coin();
    } else if (result.kind == PortKind::vdev) {
      result.devargs = "net_ring" + std::to_string(from(0, 99)) + ",nodeaction=a:0:CREATE";
    } else {
      result.netns = coin() ? "nginx" : "";
      result.ifname = "eth" + std::to_string(from(0, 99));
      result.default_route = coin();
    }
    return result;
  }
  std::mt19937_64 random_;
};

TEST(StateJson, WhatIsWrittenIsReadBack) {
  const unsigned seed = std::random_device{}();
  std::cout << "seed " << seed << '\n';
  Dice dice(seed);
  for (int round = 0; round < 2000; ++round) {
    const DesiredState state = dice.state();
    const std::string text = to_json(state).dump();
    const auto document = parse_json(text);
    ASSERT_TRUE(document) << "seed " << seed << ' ' << text;
    const auto again = state_from_json(*document);
    ASSERT_TRUE(again) << "seed " << seed << ' ' << text << again.error()[0].pointer << again.error()[0].message;
    ASSERT_TRUE(*again == state) << "seed " << seed << ' ' << text;
  }
}

TEST(StateJson, AnEmptyDocumentIsTheEmptyState) {
  EXPECT_EQ(read("{}"), DesiredState{});
  expect_refused("[]", "", "wanted an object");
  expect_refused(R"({"attachment":{}})", "/attachment", "did you mean \"attachments\"?");
  expect_refused(R"({"revision":-1})", "/revision", "whole number");
}

TEST(StateJson, RangesAreMadeCanonical) {
  const auto state = read(
      R"({"security_groups":{"sg-1":{"ingress":[{"protocol":"6","from_port":1,"to_port":2,"ranges":["10.1.2.3/8"]}]}},
                              "prefix_lists":{"pl-1":{"entries":["2001:db8::1/32"]}},"subnets":{"subnet-1":{"cidr":"10.0.0.77/24"}}})");
  EXPECT_EQ(state.security_groups.at("sg-1").ingress[0].ranges[0].to_string(), "10.0.0.0/8");
  EXPECT_EQ(state.security_groups.at("sg-1").ingress[0].protocol, 6);
  EXPECT_EQ(state.prefix_lists.at("pl-1").entries[0].to_string(), "2001:db8::/32");
  EXPECT_EQ(state.subnets.at("subnet-1").cidr->to_string(), "10.0.0.0/24");
}

TEST(StateJson, RulesNeedWhatTheirProtocolNeeds) {
  const auto with_rule = [](const std::string& members) {
    return R"({"security_groups":{"sg-1":{"egress":[{)" + members + "}]}}}";
  };
  const std::string place = "/security_groups/sg-1/egress/0/";
  EXPECT_EQ(read(with_rule(R"("protocol":"icmpv6")").c_str()).security_groups.at("sg-1").egress[0].from_port, -1);
  read(with_rule(R"("protocol":"icmp","from_port":-1,"to_port":-1)").c_str());
  expect_refused(with_rule(R"("protocol":"icmp","from_port":-1,"to_port":0)"), place + "to_port", "must be any too");
  expect_refused(with_rule(R"("protocol":"icmp","from_port":256,"to_port":0)"), place + "from_port", "ICMP type");
  expect_refused(with_rule(R"("protocol":"icmp","from_port":8)"), place + "to_port", "missing");
  expect_refused(with_rule(R"("protocol":"tcp","to_port":8)"), place + "from_port", "missing");
  expect_refused(with_rule(R"("protocol":"udp","from_port":2,"to_port":1)"), place + "from_port", "swap");
  expect_refused(with_rule(R"("protocol":"tcp","from_port":0,"to_port":65536)"), place + "to_port", "65535");
  expect_refused(with_rule(R"("protocol":"sctp")"), place + "protocol", "\"sctp\"");
  expect_refused(with_rule(R"("protocol":256)"), place + "protocol", "a string");
  expect_refused(with_rule(""), place + "protocol", "missing");
  expect_refused(with_rule(R"("protocol":"-1","ranges":["10.0.0.0/40"])"), place + "ranges/0", "prefix length");
  expect_refused(with_rule(R"("protocol":"-1","groups":["pl-1"])"), place + "groups/0", "\"sg-\"");
}

TEST(StateJson, EntriesOfANetworkAclAreSortedAndWhole) {
  const auto with_entries = [](const std::string& entries) { return R"({"network_acls":{"acl-1":{"ingress":[)" + entries + "]}}}"; };
  const auto with = [&](const std::string& members) { return with_entries("{" + members + "}"); };
  const std::string place = "/network_acls/acl-1/ingress";
  const auto state = read(with_entries(R"({"number":100,"action":"allow","protocol":"-1","range":"0.0.0.0/0"},
      {"number":90,"action":"deny","protocol":"tcp","from_port":80,"to_port":80,"range":"203.0.113.9/24"})").c_str());
  const NetworkAcl& acl = state.network_acls.at("acl-1");
  ASSERT_EQ(acl.ingress.size(), 2U);
  EXPECT_EQ(acl.ingress[0], (NetworkAclEntry{90, false, 6, 80, 80, *IpPrefix::parse("203.0.113.0/24")}));
  EXPECT_EQ(acl.ingress[1].number, 100);
  EXPECT_TRUE(acl.ingress[1].allow);
  const std::string rest = R"("action":"deny","protocol":"-1","range":"::/0")";
  read(with(R"("number":1,)" + rest).c_str());
  read(with(R"("number":32766,)" + rest).c_str());
  expect_refused(with(R"("number":0,)" + rest), place + "/0/number", "1 to 32766");
  expect_refused(with(R"("number":32767,)" + rest), place + "/0/number", "1 to 32766");
  expect_refused(with(rest), place + "/0/number", "missing");
  expect_refused(with(R"("number":1,"action":"ALLOW","protocol":"-1","range":"::/0")"), place + "/0/action", "\"allow\" or \"deny\"");
  expect_refused(with(R"("number":1,"protocol":"-1","range":"::/0")"), place + "/0/action", "missing");
  expect_refused(with(R"("number":1,"action":"deny","protocol":"-1")"), place + "/0/range", "missing");
  expect_refused(with(R"("number":1,"action":"deny","protocol":"udp","from_port":5,"to_port":4,"range":"::/0")"), place + "/0/from_port", "swap");
  expect_refused(with(R"("number":1,"action":"deny","protocol":"tcp","to_port":4,"range":"::/0")"), place + "/0/from_port", "missing");
  // One number is one entry's, be it of IPv4 or IPv6; the place is that in the document.
  const std::string seventh = R"("number":7,"action":"deny","protocol":"-1","range":)";
  expect_refused(with_entries("{" + seventh + R"("::/0"},{"number":3,)" + rest + "},{" + seventh + R"("0.0.0.0/0"})"), place + "/2/number", "twice");
  expect_refused(R"({"network_acls":{"acl-1":{"subnets":["subnet-1","subnet-1"]}}})", "/network_acls/acl-1/subnets/1", "once");
  expect_refused(R"({"network_acls":{"sg-1":{}}})", "/network_acls/sg-1", "\"acl-\"");
}

TEST(StateJson, IdsHaveTheirKind) {
  EXPECT_EQ(read(R"({"attachments":{"eni-0trunk000000000001":{}}})").attachments.size(), 1U);
  expect_refused(R"({"attachments":{"sg-1":{}}})", "/attachments/sg-1", "\"eni-\"");
  expect_refused(R"({"remote_members":{"x/y":[]}})", "/remote_members/x~1y", "\"sg-\"");
  expect_refused(R"({"attachments":{"eni-1":{"subnet":"x"}}})", "/attachments/eni-1/subnet", "\"subnet-\"");
  expect_refused(R"({"attachments":{"eni-1":{"groups":["sg-1","sg-1"]}}})", "/attachments/eni-1/groups/1", "once");
}

TEST(StateJson, PortsHaveTheMembersOfTheirKind) {
  const auto with_port = [](const std::string& port) { return R"({"attachments":{"eni-1":{"port":)" + port + "}}}"; };
  const std::string place = "/attachments/eni-1/port";
  EXPECT_EQ(read(with_port(R"({"kind":"tap"})").c_str()).attachments.at("eni-1").port, PortSpec{});
  expect_refused(with_port(R"({"kind":"veth"})"), place + "/kind", "virtio-user");
  expect_refused(with_port("{}"), place + "/kind", "missing");
  expect_refused(with_port(R"({"kind":"tap","socket":"/s"})"), place + "/socket", "unknown key");
  expect_refused(with_port(R"({"kind":"vhost-user"})"), place + "/socket", "missing");
  expect_refused(with_port(R"({"kind":"vdev","devargs":""})"), place + "/devargs", "empty");
  expect_refused(with_port(R"({"kind":"tap","mtu":575})"), place + "/mtu", "576 to 9216");
}

TEST(StateJson, OtherFactsOfAnAttachment) {
  expect_refused(R"({"attachments":{"eni-1":{"vlan":4095}}})", "/attachments/eni-1/vlan", "1 to 4094");
  expect_refused(R"({"attachments":{"eni-1":{"vlan":null}}})", "/attachments/eni-1/vlan", "null");
  expect_refused(R"({"attachments":{"eni-1":{"conntrack":{"UdpTimeout":61}}}})",
                 "/attachments/eni-1/conntrack/UdpTimeout", "30 to 60");
  expect_refused(R"({"attachments":{"eni-1":{"limits":{"ingress_bits":-1}}}})", "/attachments/eni-1/limits/ingress_bits", "10000000000000");
  expect_refused(R"({"attachments":{"eni-1":{"limits":{"bits":1}}}})", "/attachments/eni-1/limits/bits", "unknown key");
  expect_refused(R"({"attachments":{"eni-1":{"on_change":"flush"}}})", "/attachments/eni-1/on_change", "revalidate");
  expect_refused(R"({"attachments":{"eni-1":{"audit":"on"}}})", "/attachments/eni-1/audit", "true or false");
  expect_refused(R"({"attachments":{"eni-1":{"eni":"eni-2"}}})", "/attachments/eni-1/eni", "leave the member out");
  expect_refused(R"({"attachments":{"eni-1":{"task_arn":"a","task":{"task_arn":"b"}}}})", "/attachments/eni-1/task_arn",
                 "differ");
  EXPECT_EQ(
      read(R"({"attachments":{"eni-1":{"task_arn":"a","task":{"group":"g"}}}})").attachments.at("eni-1").task.task_arn,
      "a");
  expect_refused(R"({"finished_tasks":{"arn":"1"}})", "/finished_tasks/arn", "whole number");
  expect_refused(R"({"subnets":{"subnet-1":{}}})", "/subnets/subnet-1/cidr", "missing");
  expect_refused(R"({"prefix_lists":{"pl-1":{}}})", "/prefix_lists/pl-1/entries", "missing");
}

TEST(AttachmentFacts, AreThoseOfTaskAttach) {
  Problems problems;
  const auto document = *parse_json(
      R"({"eni":"eni-1","attachment_id":"17","task_arn":"arn","mac":"0a:00:00:00:00:01","addresses":["10.0.0.35"],"subnet":"subnet-1","vlan":101,
          "trunk_mac":"0a:00:00:00:00:02","groups":["sg-1"],"port":{"kind":"tap"},"source_dest_check":false,"conntrack":{"UdpTimeout":60},
          "limits":{"ingress_bits":8000,"egress_packets":5},"on_change":"revalidate","always_track":true,"audit":true,"block_imds":true})");
  ObjectReader reader(document, "", problems);
  const auto facts = read_attachment_facts(reader, 1500);
  reader.finish();
  ASSERT_TRUE(problems.empty()) << problems[0].message;
  Attachment attachment;
  merge(attachment, facts);
  EXPECT_EQ(attachment.eni_id, "eni-1");
  EXPECT_EQ(attachment.task.task_arn, "arn");
  EXPECT_EQ(attachment.vlan->value, 101);
  EXPECT_EQ(attachment.port->mtu, 1500);
  EXPECT_EQ(attachment.conntrack.udp_timeout, 60U);
  EXPECT_FALSE(attachment.source_dest_check);
  EXPECT_EQ(attachment.limits, (RateLimits{8000, 0, 0, 5}));
  EXPECT_EQ(attachment.on_change, OnChange::revalidate);
  EXPECT_TRUE(attachment.always_track && attachment.audit && attachment.block_imds);
  // Limits are merged one by one, and 0 takes one away.
  const auto others = *parse_json(R"({"limits":{"ingress_bits":0,"egress_packets":7},"audit":false})");
  ObjectReader settings(others, "", problems);
  merge(attachment, read_attachment_facts(settings));
  EXPECT_EQ(attachment.limits, (RateLimits{0, 0, 0, 7}));
  EXPECT_FALSE(attachment.audit);
  EXPECT_TRUE(attachment.block_imds);
  // What the page does not list is not taken.
  const auto more = *parse_json(R"({"private_dns_name":"x"})");
  ObjectReader strict(more, "", problems);
  read_attachment_facts(strict);
  strict.finish();
  EXPECT_EQ(problems.size(), 1U);
}

TEST(AttachmentFacts, AbsentOnesChangeNothing) {
  const unsigned seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  Dice dice(seed);
  for (int round = 0; round < 200; ++round) {
    const Attachment before = dice.attachment();
    Attachment after = before;
    merge(after, AttachmentFacts{});
    ASSERT_EQ(after, before);
    AttachmentFacts facts;
    facts.task.emplace().last_status = "RUNNING";
    merge(after, facts);
    ASSERT_EQ(after.task.last_status, "RUNNING");
    after.task.last_status = before.task.last_status;
    ASSERT_EQ(after, before);
  }
}

}  // namespace
}  // namespace trunkline::config
