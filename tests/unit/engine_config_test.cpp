// SPDX-License-Identifier: BSD-3-Clause
//
// The config file: the smallest one, the fullest one, and what is said about wrong ones. That ranges agree with the
// published schema is schema_agreement.py's business; here it is what the values become.
#include "config/engine_config.h"

#include <gtest/gtest.h>

namespace trunkline::config {
namespace {

// The problems with the smallest file when `members` is added to it; `trunk` to its trunk.
Problems problems_of(const std::string& members, const std::string& trunk = "") {
  const auto config = parse_engine_config(R"({"version":1,"trunk":{"device":"d")" + trunk + "}" + members + "}");
  return config ? Problems{} : config.error();
}

void expect_refused(const std::string& members, const std::string& pointer, const std::string& part,
                    const std::string& trunk = "") {
  const Problems problems = problems_of(members, trunk);
  ASSERT_EQ(problems.size(), 1U) << members << trunk;
  EXPECT_EQ(problems[0].pointer, pointer);
  EXPECT_NE(problems[0].message.find(part), std::string::npos) << problems[0].message;
}

TEST(EngineConfig, TheSmallestFileHasDefaultsForTheRest) {
  const auto config = parse_engine_config(R"({"version":1,"trunk":{"device":"0000:00:06.0"}})");
  ASSERT_TRUE(config);
  EXPECT_EQ(config->trunk.device, "0000:00:06.0");
  EXPECT_EQ(config->trunk.mode, TrunkMode::tagged);
  EXPECT_EQ(config->eal.worker_lcores, std::vector<std::uint16_t>{1});
  EXPECT_EQ(config->control.socket_mode, 0660U);
  EXPECT_FALSE(config->task_defaults.port);
}

TEST(EngineConfig, EveryMemberArrives) {
  const auto config = parse_engine_config(R"(// an operator's words
{"version":1,"trunk":{"device":"net_tap0","mode":"untagged","mtu":1500,"mac":"0a:00:00:00:00:09","queues":2,"steering":"off"},
 "eal":{"main_lcore":2,"worker_lcores":[3,1],"memory_mb":64,"file_prefix":"p","hugepages":false,"extra_args":["-x"]},
 "buffers":{"count":5000,"data_room_bytes":4096,"rx_descriptors":64,"tx_descriptors":128},
 "edge":{"mode":"answer","router_mac":"0a:00:00:00:00:02","dhcp":"off","dhcp_domain":"eu-west-1.compute.internal","block_imds":true},"limits":{"endpoints":3,"connections":2048,"connections_per_endpoint":9,"connection_file":"/c"},
 "conntrack":{"tcp_handshake_timeout_s":1,"tcp_closing_timeout_s":2,"tcp_closed_timeout_s":3,"icmp_timeout_s":4,"other_timeout_s":5,"icmp_related":true,"strict_syn":true},
 "idle":{"spin_us":1,"sleep_us":0,"block_after_ms":2,"long_sleep_us":3},"control":{"socket":"/s","socket_mode":"0600","socket_group":"g","admin_uids":[7]},"state_dir":"/d",
 "task_defaults":{"port":{"kind":"virtio-user","netns":"{task_id}"},"groups":["sg-1"]},
 "subnets":[{"id":"subnet-1","cidr":"10.0.0.9/24","ipv6_cidr":"2001:db8::/64","availability_zone":"a","vpc_id":"v","vpc_cidr":"10.0.0.9/16"}],
  "names":{"hosts_file":"/h","region":"us-west-2"},
 "identity":{"account_id":"123456789010","region":"us-west-2","az_id":"usw2-az1","instance_id":"i-1","vpc_id":"vpc-1"},
 "flow_logs":[{"id":"fl-1","traffic_type":"REJECT","max_aggregation_interval":60,"log_format":"${dstport} ${ecs-task-id}","destination":{"type":"s3","path":"/b",
   "prefix":"p/q","hive_compatible_partitions":true,"per_hour_partition":true},"eni_ids":["eni-1"],"subnet_ids":["subnet-1"],"vpc_ids":["vpc-1"],"max_flows":5,
   "outside_traffic_path":8},{"id":"fl-2","destination":{"type":"stream","path":"/run/flows"}}]})");
  ASSERT_TRUE(config) << config.error()[0].message;
  EXPECT_EQ(config->trunk.mode, TrunkMode::untagged);
  EXPECT_EQ(config->trunk.mtu, 1500);
  EXPECT_EQ(config->trunk.mac->to_string(), "0a:00:00:00:00:09");
  EXPECT_EQ(config->trunk.queues, 2);
  EXPECT_FALSE(config->trunk.steering);
  EXPECT_EQ(config->eal.main_lcore, 2);
  EXPECT_EQ(config->eal.worker_lcores, (std::vector<std::uint16_t>{3, 1}));
  EXPECT_EQ(config->eal.memory_mb, 64U);
  EXPECT_EQ(config->eal.file_prefix, "p");
  EXPECT_FALSE(config->eal.hugepages);
  EXPECT_EQ(config->eal.extra_args, std::vector<std::string>{"-x"});
  EXPECT_EQ(config->buffers.count, 5000U);
  EXPECT_EQ(config->buffers.data_room_bytes, 4096);
  EXPECT_EQ(config->buffers.rx_descriptors, 64);
  EXPECT_EQ(config->buffers.tx_descriptors, 128);
  EXPECT_EQ(config->edge.mode, EdgeMode::answer);
  EXPECT_EQ(config->edge.router_mac.to_string(), "0a:00:00:00:00:02");
  EXPECT_EQ(config->edge.who_answers_dhcp(), DhcpAnswers::off);
  EXPECT_EQ(config->edge.dhcp_domain, "eu-west-1.compute.internal");
  EXPECT_EQ(config->limits.endpoints, 3);
  EXPECT_EQ(config->limits.connections, 2048U);
  EXPECT_EQ(config->limits.connections_per_endpoint, 9U);
  EXPECT_EQ(config->limits.connection_file, "/c");
  EXPECT_EQ(config->conntrack.tcp_handshake_timeout_s, 1U);
  EXPECT_EQ(config->conntrack.tcp_closing_timeout_s, 2U);
  EXPECT_EQ(config->conntrack.tcp_closed_timeout_s, 3U);
  EXPECT_EQ(config->conntrack.icmp_timeout_s, 4U);
  EXPECT_EQ(config->conntrack.other_timeout_s, 5U);
  EXPECT_TRUE(config->conntrack.icmp_related);
  EXPECT_TRUE(config->conntrack.strict_syn);
  EXPECT_TRUE(config->edge.block_imds);
  EXPECT_EQ(config->names.hosts_file, "/h");
  EXPECT_EQ(config->names.region, "us-west-2");
  EXPECT_EQ(config->idle.spin_us, 1U);
  EXPECT_EQ(config->idle.sleep_us, 0U);
  EXPECT_EQ(config->idle.block_after_ms, 2U);
  EXPECT_EQ(config->idle.long_sleep_us, 3U);
  EXPECT_EQ(config->control.socket, "/s");
  EXPECT_EQ(config->control.socket_mode, 0600U);
  EXPECT_EQ(config->control.socket_group, "g");
  EXPECT_EQ(config->control.admin_uids, std::vector<std::uint32_t>{7});
  EXPECT_EQ(config->state_dir, "/d");
  EXPECT_EQ(config->task_defaults.port->kind, PortKind::virtio_user);
  EXPECT_EQ(config->task_defaults.port->mtu, 1500) << "a default port without an MTU has the trunk's";
  EXPECT_EQ(config->task_defaults.group_ids, std::vector<std::string>{"sg-1"});
  ASSERT_EQ(config->subnets.size(), 1U);
  EXPECT_EQ(config->subnets[0].cidr->to_string(), "10.0.0.0/24");
  EXPECT_EQ(config->subnets[0].router6()->to_string(), "2001:db8::1");
  EXPECT_EQ(config->subnets[0].vpc_cidr->to_string(), "10.0.0.0/16");
  EXPECT_EQ(config->identity.account_id, "123456789010");
  EXPECT_EQ(config->identity.region, "us-west-2");
  EXPECT_EQ(config->identity.az_id, "usw2-az1");
  EXPECT_EQ(config->identity.instance_id, "i-1");
  EXPECT_EQ(config->identity.vpc_id, "vpc-1");
  ASSERT_EQ(config->flow_logs.size(), 2U);
  const FlowLog& log = config->flow_logs[0];
  EXPECT_EQ(log.id, "fl-1");
  EXPECT_EQ(log.traffic_type, FlowLogTraffic::reject);
  EXPECT_EQ(log.max_aggregation_interval_s, 60U);
  EXPECT_EQ(log.format.fields, (std::vector{FlowLogField::dstport, FlowLogField::ecs_task_id}));
  EXPECT_EQ(log.destination.type, FlowLog::Destination::Type::s3);
  EXPECT_EQ(log.destination.path, "/b");
  EXPECT_EQ(log.destination.prefix, "p/q");
  EXPECT_TRUE(log.destination.hive_compatible_partitions);
  EXPECT_TRUE(log.destination.per_hour_partition);
  EXPECT_EQ(log.eni_ids, std::vector<std::string>{"eni-1"});
  EXPECT_EQ(log.subnet_ids, std::vector<std::string>{"subnet-1"});
  EXPECT_EQ(log.vpc_ids, std::vector<std::string>{"vpc-1"});
  EXPECT_EQ(log.max_flows, 5U);
  EXPECT_EQ(log.outside_traffic_path, 8);
  const FlowLog& defaults = config->flow_logs[1];
  EXPECT_EQ(defaults.traffic_type, FlowLogTraffic::all);
  EXPECT_EQ(defaults.max_aggregation_interval_s, 600U);
  EXPECT_EQ(defaults.format.header(), "version account-id interface-id srcaddr dstaddr srcport dstport protocol packets bytes start end action log-status");
  EXPECT_EQ(defaults.format.version(), 2);
  EXPECT_EQ(defaults.destination.type, FlowLog::Destination::Type::stream);
  EXPECT_EQ(defaults.max_flows, 262144U);
  EXPECT_EQ(defaults.outside_traffic_path, 0);
}

TEST(EngineConfig, RefusalsNameThePlaceAndTheCure) {
  expect_refused(R"(,"vresion":1)", "/vresion", "did you mean \"version\"?");
  expect_refused("", "/trunk/mtu", "\"mtu\" is 12; wanted a whole number from 576 to 9216", R"(,"mtu":12)");
  expect_refused("", "/trunk/mode", R"(wanted "tagged" or "untagged")", R"(,"mode":"vlan")");
  expect_refused("", "/trunk/steering", R"("steering" is "on"; wanted "auto" or "off")", R"(,"steering":"on")");
  expect_refused("", "/trunk/mac", "multicast", R"(,"mac":"01:00:00:00:00:00")");
  expect_refused(R"(,"eal":{"worker_lcores":[]})", "/eal/worker_lcores", "wanted 1 to 16 lcores");
  expect_refused(R"(,"eal":{"worker_lcores":[1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17]})", "/eal/worker_lcores", "has 17 entries");
  expect_refused(R"(,"eal":{"worker_lcores":[1,2,1]})", "/eal/worker_lcores/2", "each worker has its own");
  expect_refused(R"(,"eal":{"worker_lcores":[1,2]},"limits":{"connections":2047})", "/limits/connections", "at least 1024 for each");
  expect_refused(R"(,"limits":{"connection_file":"a\u0001"})", "/limits/connection_file", "0 to 4095 bytes");
  expect_refused(R"(,"names":{"region":"US"})", "/names/region", "us-west-2");
  expect_refused(R"(,"subnets":[{"id":"subnet-1","cidr":"10.0.0.0/24","vpc_cidr":"10.0.0.0/8"}])", "/subnets/0/vpc_cidr", "/16 to /28");
  expect_refused(R"(,"idle":{"spin_turns":0})", "/idle/spin_turns", "spin_us");
  expect_refused(R"(,"idle":{"long_sleep_us":0})", "/idle/long_sleep_us", "1 to 100000");
  expect_refused(R"(,"eal":{"worker_lcores":[0]})", "/eal/worker_lcores", "both the main lcore and a worker's");
  expect_refused(R"(,"eal":{"main_lcore":1})", "/eal/main_lcore", "both the main lcore and a worker's");
  expect_refused(R"(,"limits":{"endpoints":1001})", "/limits/endpoints", "1 to 1000");
  expect_refused(R"(,"control":{"socket":")" + std::string(108, 's') + "\"}", "/control/socket", "108 bytes");
  expect_refused(R"(,"control":{"socket_mode":"rw"})", "/control/socket_mode", "octal");
  expect_refused(R"(,"task_defaults":{"port":{"kind":"tap","netns":"{task}"}})", "/task_defaults/port/netns",
                 "{task_id}");
  expect_refused(R"(,"task_defaults":{"port":{"kind":"tap","mtu":9000}})", "/task_defaults/port/mtu", "the trunk's",
                 R"(,"mtu":1500)");
  expect_refused(R"(,"subnets":[{"id":"subnet-1","cidr":"10.0.0.0/8"}])", "/subnets/0/cidr", "/16 to /28");
  expect_refused(R"(,"subnets":[{"id":"subnet-1","cidr":"10.0.0.0/24"},{"id":"subnet-2","cidr":"10.0.0.0/25"}])",
                 "/subnets/1/cidr", "overlaps");
  expect_refused(R"(,"edge":{"dhcp":"on"})", "/edge/dhcp", R"(wanted "relay", "answer" or "off")");
  for (const std::string& domain : {std::string(), std::string("a b"), std::string("-a"), std::string("a."), std::string(129, 'a')}) {
    expect_refused(R"(,"edge":{"dhcp_domain":")" + domain + "\"}", "/edge/dhcp_domain", "wanted a domain name of 1 to 128");
  }
  expect_refused(R"(,"idle":null)", "/idle", "null");
}

TEST(EngineConfig, RefusesFlowLogsWithThePlaceAndTheCure) {
  const auto refused = [](const std::string& members, const std::string& pointer, const std::string& part) {
    expect_refused(R"(,"identity":{"account_id":"123456789010","region":"r"},"flow_logs":[{"id":"fl-1","destination":{"type":"s3","path":"/b"})" + members + "}]",
                   pointer, part);
  };
  EXPECT_TRUE(problems_of(R"(,"flow_logs":[{"id":"fl-1","destination":{"type":"stream","path":"/b"}}])").empty()) << "a stream needs no identity";
  refused(R"(,"max_aggregation_interval":61)", "/flow_logs/0/max_aggregation_interval", "wanted 60 or 600");
  refused(R"(,"traffic_type":"DENY")", "/flow_logs/0/traffic_type", R"("ACCEPT", "REJECT" or "ALL")");
  refused(R"(,"log_format":"${version} ${srcadr}")", "/flow_logs/0/log_format", "at character 12 there is no field \"srcadr\"; the fields are version, account-id");
  refused(R"(,"log_format":"")", "/flow_logs/0/log_format", "at least one field");
  refused(R"(,"eni_ids":["subnet-1"])", "/flow_logs/0/eni_ids/0", "eni-");
  refused(R"(,"max_flows":0)", "/flow_logs/0/max_flows", "1 to 4194304");
  refused(R"(},{"id":"fl-1","destination":{"type":"stream","path":"/s"})", "/flow_logs/1/id", "there twice");
  expect_refused(R"(,"flow_logs":[{"id":"fl-1","destination":{"type":"s3","path":"/b"}}])", "/flow_logs/0/destination/type", "account_id, region");
  expect_refused(R"(,"flow_logs":[{"id":"fl-1","destination":{"type":"stream","path":"/b","prefix":"x"}}])", "/flow_logs/0/destination/prefix", "unknown key");
  expect_refused(R"(,"flow_logs":[{"id":"fl-1","destination":{"type":"stream","path":"/b"}},{"id":"fl-2","destination":{"type":"stream","path":"/b"}}])",
                 "/flow_logs/1/destination/path", "fl-1 writes to");
  expect_refused(R"(,"flow_logs":[{"id":"fl-1"}])", "/flow_logs/0/destination", "missing");
  expect_refused(R"(,"identity":{"account_id":"12"})", "/identity/account_id", "12 digits");
}

TEST(FlowLogFormat, KnowsEveryFieldAndItsVersion) {
  EXPECT_EQ(kFlowLogFields.size(), 42U);
  for (const FlowLogFieldInfo& field : kFlowLogFields) {
    const auto format = parse_flow_log_format("${" + std::string(field.name) + "}");
    ASSERT_TRUE(format) << field.name;
    EXPECT_EQ(format->header(), field.name);
    EXPECT_EQ(format->version(), field.version);
    EXPECT_NE(field.version, 6) << "of transit gateways";
  }
  EXPECT_EQ(parse_flow_log_format("${version} ${interface-id} ${srcaddr} ${dstaddr} ${tcp-flags} ${action}")->version(), 3);
  EXPECT_EQ(parse_flow_log_format("${encryption-status} ${srcaddr}")->version(), 10) << "the highest, wherever it stands";
}

TEST(FlowLogFormat, SaysWhereItGoesWrong) {
  const auto says = [](const char* text, const char* part) {
    const auto format = parse_flow_log_format(text);
    ASSERT_FALSE(format) << text;
    EXPECT_NE(format.error().find(part), std::string::npos) << format.error();
  };
  says("", "at least one field");
  says("srcaddr", "at character 1 there is \"srcaddr\"");
  says("${srcaddr", "at character 1");
  says("${srcaddr} ${instance-tag}", "at character 12 there is no field \"instance-tag\"");
  says("${srcaddr}${dstaddr}", "at character 11 something stands behind a field");
  says("${srcaddr} ", "at character 11");
  says("${srcaddr}  ${dstaddr}", "at character 12");
  says("${srcaddr} ${srcaddr}", "second time");
}

TEST(EngineConfig, TheRegionIsSaidOnce) {
  const auto of = [](const std::string& more) { return parse_engine_config(R"({"version":1,"trunk":{"device":"d"})" + more + "}").value(); };
  EXPECT_EQ(of("").names.region, "");
  EXPECT_EQ(of("").edge.dhcp_domain, "ec2.internal");
  const EngineConfig west = of(R"(,"identity":{"region":"us-west-2"})");
  EXPECT_EQ(west.names.region, "us-west-2");
  EXPECT_EQ(west.edge.dhcp_domain, "us-west-2.compute.internal");
  EXPECT_EQ(of(R"(,"identity":{"region":"us-east-1"})").edge.dhcp_domain, "ec2.internal");
  const EngineConfig own = of(R"(,"identity":{"region":"us-west-2"},"names":{"region":"eu-west-1"},"edge":{"dhcp_domain":"a.b"})");
  EXPECT_EQ(own.names.region, "eu-west-1");
  EXPECT_EQ(own.edge.dhcp_domain, "a.b");
}

TEST(EngineConfig, DhcpIsAnsweredByWhoAnswersTheRest) {
  const auto of = [](const std::string& edge) {
    return parse_engine_config(R"({"version":1,"trunk":{"device":"d"},"edge":{)" + edge + "}}")->edge.who_answers_dhcp();
  };
  EXPECT_EQ(of(""), DhcpAnswers::relay);
  EXPECT_EQ(of(R"("mode":"answer")"), DhcpAnswers::answer);
  EXPECT_EQ(of(R"("mode":"answer","dhcp":"relay")"), DhcpAnswers::relay);
  EXPECT_EQ(of(R"("dhcp":"answer")"), DhcpAnswers::answer);
  EXPECT_EQ(of(R"("dhcp":"off")"), DhcpAnswers::off);
  const auto longest = parse_engine_config(R"({"version":1,"trunk":{"device":"d"},"edge":{"dhcp_domain":")" + std::string(128, 'a') + "\"}}");
  EXPECT_TRUE(longest);
  EXPECT_EQ(parse_engine_config(R"({"version":1,"trunk":{"device":"d"}})")->edge.dhcp_domain, "ec2.internal");
}

TEST(EngineConfig, WhatEachWorkerGets) {
  const auto of = [](const char* device, const char* members) {
    return *parse_engine_config(std::string(R"({"version":1,"trunk":{"device":")") + device + R"("},"eal":{"worker_lcores":[1,2,3]})" + members + "}");
  };
  const EngineConfig pci = of("0000:00:06.0,large_llq_hdr=1", R"(,"limits":{"connections":30001,"connection_file":"/c"})");
  EXPECT_EQ(pci.trunk_queues(), 3);
  EXPECT_EQ(pci.connections_of_a_worker(), 10000U);
  EXPECT_EQ(pci.connection_file_of(2), "/c.2");
  EngineConfig vdev = of("net_virtio_user0,path=/a:b", "");
  EXPECT_EQ(vdev.trunk_queues(), 1);
  EXPECT_EQ(vdev.connection_file_of(2), "");
  vdev.trunk.queues = 2;
  EXPECT_EQ(vdev.trunk_queues(), 2);
  vdev.eal.worker_lcores = {1};
  vdev.limits.connection_file = "/c";
  EXPECT_EQ(vdev.connection_file_of(0), "/c");
}

TEST(EngineConfig, WantsTheVersionAndTheTrunk) {
  const auto config = parse_engine_config("{}");
  ASSERT_FALSE(config);
  ASSERT_EQ(config.error().size(), 2U);
  EXPECT_EQ(config.error()[0].pointer, "/version");
  EXPECT_EQ(config.error()[1].pointer, "/trunk");
  EXPECT_FALSE(parse_engine_config(R"({"version":2,"trunk":{"device":"d"}})"));
  EXPECT_FALSE(parse_engine_config(R"({"version":1,"trunk":{"device":""}})"));
  EXPECT_EQ(parse_engine_config("{").error()[0].name, "parse_error");
  EXPECT_FALSE(parse_engine_config("[]"));
}

TEST(EngineConfig, TellsEverythingAtOnce) {
  EXPECT_EQ(problems_of(R"(,"limits":{"endpoints":0,"connections":1,"x":2})", R"(,"mtu":1)").size(), 4U);
}

}  // namespace
}  // namespace trunkline::config
