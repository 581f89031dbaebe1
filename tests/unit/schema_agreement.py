#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
"""The published schemas and the engine's own reader must accept and refuse the same documents.

    schema_agreement.py path/to/config_check

Every document starts as a valid one with one thing changed. A change marked BEYOND breaks a rule that a schema cannot
express (an address in its subnet, one ENI for a VLAN): there the schema accepts and the engine must refuse.
"""
import copy
import json
import pathlib
import re
import subprocess
import sys

import jsonschema

ROOT = pathlib.Path(__file__).resolve().parents[2]
GOOD, BAD, BEYOND = "accepted by both", "refused by both", "refused by the engine only"
GONE = object()

SUBNET = {"cidr": "10.0.0.0/24", "ipv6_cidr": "2001:db8:0:1::/64", "availability_zone": "us-west-2a", "vpc_id": "vpc-1",
          "vpc_cidr": "10.0.0.0/16"}
CONFIG = {
    "version": 1,
    "trunk": {"device": "0000:00:06.0", "mode": "tagged", "mtu": 9001, "mac": "0a:11:22:33:44:55", "queues": 0, "steering": "auto"},
    "eal": {"main_lcore": 0, "worker_lcores": [1], "memory_mb": 256, "file_prefix": "trunkline", "hugepages": True,
            "extra_args": ["--log-level=7"]},
    "buffers": {"count": 32768, "data_room_bytes": 2176, "rx_descriptors": 512, "tx_descriptors": 512},
    "edge": {"mode": "relay", "router_mac": "0a:00:00:00:00:01", "dhcp": "off", "dhcp_domain": "ec2.internal", "block_imds": False},
    "limits": {"endpoints": 512, "connections": 262144, "connections_per_endpoint": 0, "state_replace_removal_percent": 50, "connection_file": ""},
    "conntrack": {"tcp_handshake_timeout_s": 30, "tcp_closing_timeout_s": 120, "tcp_closed_timeout_s": 10,
                  "icmp_timeout_s": 30, "other_timeout_s": 600, "icmp_related": False, "strict_syn": False},
    "idle": {"spin_us": 50, "sleep_us": 50, "block_after_ms": 10, "long_sleep_us": 1000},
    "control": {"socket": "/run/trunkline/control.sock", "socket_mode": "0660", "socket_group": "", "admin_uids": [1000]},
    "state_dir": "/var/lib/trunkline",
    "task_defaults": {"port": {"kind": "tap", "netns": "{task_id}", "ifname": "eth0"}, "groups": ["sg-9effe8e4"]},
    "names": {"hosts_file": "/run/trunkline/hosts/enis", "region": "us-west-2"},
    "subnets": [dict(SUBNET, id="subnet-c070009b")],
    "identity": {"account_id": "123456789010", "region": "us-west-2", "az_id": "usw2-az1", "instance_id": "i-0123456789abcdef0",
                 "vpc_id": "vpc-1"},
    "flow_logs": [
        {"id": "fl-1234abcd", "traffic_type": "ALL", "max_aggregation_interval": 60, "log_format": "${version} ${srcaddr} ${ecs-task-id}",
         "destination": {"type": "s3", "path": "/var/log/trunkline", "prefix": "a/b", "hive_compatible_partitions": True,
                         "per_hour_partition": False},
         "eni_ids": ["eni-b0aaa4b2"], "subnet_ids": ["subnet-c070009b"], "vpc_ids": ["vpc-1"], "max_flows": 1000, "outside_traffic_path": 8},
        {"id": "fl-2", "destination": {"type": "stream", "path": "/run/flows"}}],
}
STATE = {
    "revision": 7,
    "subnets": {"subnet-c070009b": SUBNET},
    "security_groups": {"sg-9effe8e4": {
        "name": "web", "description": "d", "vpc_id": "vpc-1",
        "ingress": [{"protocol": "tcp", "from_port": 80, "to_port": 80, "ranges": ["0.0.0.0/0", "::/0"],
                     "prefix_lists": ["pl-1"], "groups": ["sg-unknown"]}],
        "egress": [{"protocol": "-1", "ranges": ["0.0.0.0/0"]}]}},
    "prefix_lists": {"pl-1": {"entries": ["10.2.0.0/16", "2001:db8::/32"]}},
    "network_acls": {"acl-9aeb5ef7": {
        "vpc_id": "vpc-1", "is_default": False, "subnets": ["subnet-c070009b"],
        "ingress": [{"number": 100, "action": "allow", "protocol": "tcp", "from_port": 80, "to_port": 80, "range": "0.0.0.0/0"}],
        "egress": [{"number": 90, "action": "deny", "protocol": "-1", "range": "::/0"}]}},
    "remote_members": {"sg-9effe8e4": ["10.0.9.9", "2001:db8::9"]},
    "attachments": {"eni-b0aaa4b2": {
        "attachment_id": "1789", "attachment_status": "ATTACHED", "mac": "0a:47:e4:7a:2b:02", "trunk_mac": "0a:11:22:33:44:55",
        "addresses": ["10.0.0.35", "2001:db8:0:1::35"], "prefixes": ["10.0.0.48/28"], "subnet": "subnet-c070009b", "vlan": 101, "groups": ["sg-9effe8e4"],
        "port": {"kind": "tap", "netns": "nginx", "ifname": "eth0", "mtu": 9001, "default_route": True},
        "private_dns_name": "ip-10-0-0-35", "source_dest_check": True,
        "conntrack": {"TcpEstablishedTimeout": 350, "UdpTimeout": 30, "UdpStreamTimeout": 180},
        "limits": {"ingress_bits": 10**9, "egress_bits": 0, "ingress_packets": 1, "egress_packets": 0},
        "on_change": "keep", "always_track": False, "audit": False, "block_imds": False,
        "task": {"task_arn": "arn:aws:ecs:t", "version": 3, "containers": [{"arn": "a", "name": "n"}]}}},
    "finished_tasks": {"arn:aws:ecs:x": 4},
}
ENI = "/attachments/eni-b0aaa4b2"
ACL = "/network_acls/acl-9aeb5ef7"
RULE = "/security_groups/sg-9effe8e4/ingress/0"
ANYTHING_BUT = {"text": [5, True, None, [], {}], "number": ["1", True, None, [], {}, 1.5, 2**63, -(2**40), 1e30],
                "bool": [0, 1, "true", None, [], {}], "list": [0, "a", None, {}], "object": [0, "a", None, []]}


def change(base, path, value):
    document = copy.deepcopy(base)
    if path == "":
        return value
    *parents, last = path[1:].split("/")
    here = document
    for key in parents:
        here = here[int(key)] if isinstance(here, list) else here[key]
    last = int(last) if isinstance(here, list) else last
    if value is GONE:
        del here[last]
    else:
        here[last] = value
    return document


def of_every_member(base):
    """Each value replaced by ones of other types; each object given an unknown key."""
    def walk(node, path):
        if isinstance(node, dict):
            yield path, "object"
            for key, child in node.items():
                yield from walk(child, f"{path}/{key}")
        elif isinstance(node, list):
            yield path, "list"
            for index, child in enumerate(node):
                yield from walk(child, f"{path}/{index}")
        else:
            yield path, {bool: "bool", int: "number", str: "text"}[type(node)]
    for path, kind in walk(base, ""):
        for value in ANYTHING_BUT[kind]:
            yield path, value, BAD
        if kind == "object" and path != "/finished_tasks":
            yield f"{path}/vlna", 1, BAD


def bounds(path, least, most, good=GOOD):
    return [(path, least, good), (path, most, good), (path, least - 1, BAD), (path, most + 1, BAD), (path, float(least), good)]


def config_changes():
    yield from of_every_member(CONFIG)
    for path in ("/version", "/trunk", "/trunk/device", "/subnets/0/id", "/task_defaults/port/kind"):
        yield path, GONE, BAD
    for path in [f"/{key}" for key in CONFIG if key not in ("version", "trunk", "identity")] + ["/trunk/mode", "/trunk/mtu", "/trunk/mac", "/trunk/steering"]:
        yield path, GONE, GOOD
    yield "", {"version": 1, "trunk": {"device": "net_ring0"}}, GOOD
    yield "/version", 2, BAD
    yield "/version", 1.0, GOOD
    yield from bounds("/trunk/mtu", 576, 9216)[1:4]
    yield from bounds("/eal/memory_mb", 64, 1 << 20)
    yield from bounds("/buffers/count", 1024, 4 << 20)
    yield from bounds("/buffers/data_room_bytes", 512, 16384)
    yield from bounds("/buffers/rx_descriptors", 64, 16384)
    yield from bounds("/buffers/tx_descriptors", 64, 16384)
    yield from bounds("/limits/endpoints", 1, 1000)
    yield from bounds("/limits/connections", 1024, 64 << 20)
    for key in CONFIG["conntrack"]:
        if key.endswith("_s"):
            yield from bounds(f"/conntrack/{key}", 1, 432000)
    yield from bounds("/limits/connections_per_endpoint", 0, 64 << 20)
    yield from [("/limits/state_replace_removal_percent", v, r) for v, r in ((0, GOOD), (100, GOOD), (101, BAD), (-1, BAD), ("50", BAD))]
    yield from [("/limits/connection_file", v, r) for v, r in (("", GOOD), ("/dev/hugepages/c", GOOD), ("a\nb", BAD), ("a" * 4096, BAD))]
    yield from bounds("/trunk/queues", 0, 16)
    yield from bounds("/idle/spin_us", 0, 10**6)
    yield from bounds("/idle/sleep_us", 0, 100000)
    yield from bounds("/idle/block_after_ms", 0, 60000)
    yield from bounds("/idle/long_sleep_us", 1, 100000)
    yield from bounds("/control/admin_uids/0", 0, 4294967294)
    yield from [("/eal/main_lcore", 127, GOOD), ("/eal/main_lcore", 128, BAD), ("/eal/main_lcore", 1, BEYOND)]
    yield from [("/eal/worker_lcores", v, BAD) for v in ([], [1, 1], [128], [-1], ["1"], list(range(1, 18)))]
    yield from [("/eal/worker_lcores", v, GOOD) for v in ([127], [2, 1], list(range(1, 17)))]
    yield from [("/eal/worker_lcores", v, BEYOND) for v in ([0], [1, 0])]
    yield from [("/eal/file_prefix", v, r) for v, r in (("a" * 64, GOOD), ("a" * 65, BAD), ("a/b", BAD), ("", BAD), ("a\u0001", BAD))]
    yield from [("/trunk/device", v, r) for v, r in (("net_tap0,iface=x", GOOD), ("", BAD), ("a\u0000b", BAD), ("00:06.0", GOOD), ("0000:00:06.0,a=[0-1]", GOOD), ("a b", BAD),
                                                             ("net_tap0,iface=x,,", BEYOND), ("net_tap0,iface=x=y", BEYOND))]
    yield from [("/trunk/mode", "Tagged", BAD), ("/trunk/mode", "untagged", GOOD), ("/trunk/steering", "off", GOOD), ("/trunk/steering", "on", BAD), ("/trunk/steering", True, BAD), ("/edge/mode", "answer", GOOD), ("/edge/mode", "", BAD)]
    yield from [("/edge/dhcp", v, r) for v, r in (("relay", GOOD), ("answer", GOOD), ("Off", BAD), ("", BAD), (None, BAD))]
    yield from [("/edge/dhcp_domain", v, r) for v, r in (("eu-west-1.compute.internal", GOOD), ("a", GOOD), ("", BAD), ("a.", BAD), ("-a", BAD),
                                                         ("a b", BAD), ("a" * 128, GOOD), ("a" * 129, BAD))]
    for path in ("/trunk/mac", "/edge/router_mac"):
        for mac in ("01:00:5e:00:00:01", "00:00:00:00:00:00", "ff:ff:ff:ff:ff:ff", "0a:0:0:0:0:1", "0a-00-00-00-00-01", ""):
            yield path, mac, BAD
        yield path, "0A:BC:de:00:00:01", GOOD
    for mode, result in (("0600", GOOD), ("777", GOOD), ("660", GOOD), ("0888", BAD), ("1777", BAD), ("66", BAD), ("", BAD), ("00660", BAD)):
        yield "/control/socket_mode", mode, result
    yield from [("/names/hosts_file", v, r) for v, r in (("", GOOD), ("a" * 4095, GOOD), ("a" * 4096, BAD), ("a\nb", BAD))]
    yield from [("/names/region", v, r) for v, r in (("", GOOD), ("us-gov-west-1", GOOD), ("a" * 33, BAD), ("us_west", BAD), ("US", BAD), ("a.b", BAD))]
    yield from [("/control/socket", "s" * 107, GOOD), ("/control/socket", "s" * 108, BAD), ("/control/socket", "", BAD)]
    yield from [("/state_dir", "", BAD), ("/state_dir", "a\nb", BAD)]
    yield from [("/task_defaults/port/netns", v, r) for v, r in (
        ("{eni}-{attachment_id}", GOOD), ("{task}", BAD), ("a{", BAD), ("a}", BAD), ("", GOOD))]
    yield "/task_defaults/port", {"kind": "vhost-user", "socket": "/run/{eni}.sock"}, GOOD
    yield "/task_defaults/port", {"kind": "vhost-user", "socket": "/run/{ENI}.sock"}, BAD
    yield "/task_defaults/port/mtu", 9100, BEYOND
    yield "/task_defaults/groups", [f"sg-{n}" for n in range(16)], GOOD
    yield "/task_defaults/groups", [f"sg-{n}" for n in range(17)], BAD
    yield "/task_defaults/groups", ["sg-1", "sg-1"], BAD
    yield "/subnets", CONFIG["subnets"] * 2, BEYOND
    yield "/subnets", [{"id": "subnet-1", "cidr": "10.0.0.0/24"}, {"id": "subnet-2", "cidr": "10.0.0.128/25"}], BEYOND
    yield "/subnets", [{"id": "subnet-1", "cidr": "10.0.0.0/25"}, {"id": "subnet-2", "cidr": "10.0.0.128/25"}], GOOD
    yield "/subnets/0/id", "sg-1", BAD
    yield from subnet_changes("/subnets/0")
    yield from flow_log_changes()


def flow_log_changes():
    yield "/identity", GONE, BEYOND  # the keys of the destination "s3" are made of it
    for key, result in (("account_id", BEYOND), ("region", BEYOND), ("az_id", GOOD), ("instance_id", GOOD), ("vpc_id", GOOD)):
        yield f"/identity/{key}", GONE, result
    for account, result in (("000000000000", GOOD), ("12345678901", BAD), ("1234567890123", BAD), ("12345678901x", BAD), ("", BAD)):
        yield "/identity/account_id", account, result
    for key in ("region", "az_id"):
        yield from [(f"/identity/{key}", v, r) for v, r in (("a" * 32, GOOD), ("a" * 33, BAD), ("", BAD), ("US-west-2", BAD), ("a/b", BAD), ("..", BAD))]
    yield from [("/identity/instance_id", v, r) for v, r in (("i-1", GOOD), ("i-", BAD), ("eni-1", BAD))]
    yield from [("/identity/vpc_id", v, r) for v, r in (("vpc-9", GOOD), ("vpc", BAD), ("i-1", BAD))]
    log = CONFIG["flow_logs"][0]
    stream = CONFIG["flow_logs"][1]
    yield "/flow_logs", [], GOOD
    yield "/flow_logs", [dict(log, id=f"fl-{n}") for n in range(16)], GOOD
    yield "/flow_logs", [dict(log, id=f"fl-{n}") for n in range(17)], BAD
    yield "/flow_logs", [log, log], BEYOND
    yield "/flow_logs", [stream, dict(stream, id="fl-3")], BEYOND
    for key in log:
        yield f"/flow_logs/0/{key}", GONE, BAD if key in ("id", "destination") else GOOD
    yield from [("/flow_logs/0/id", v, r) for v, r in (("fl-A9", GOOD), ("fl-", BAD), ("log", BAD), ("fl-a_b", BAD), ("fl-../x", BAD), ("fl-" + "a" * 33, BAD))]
    yield from [("/flow_logs/0/traffic_type", v, r) for v, r in (("ACCEPT", GOOD), ("REJECT", GOOD), ("accept", BAD), ("", BAD))]
    yield from [("/flow_logs/0/max_aggregation_interval", v, r) for v, r in ((60, GOOD), (600, GOOD), (600.0, GOOD), (61, BAD), (599, BAD), (0, BAD))]
    names = re.findall(r'X\(\w+, "([a-z-]+)", \d+\)', (ROOT / "config/flow_log_format.h").read_text())
    every = " ".join("${" + name + "}" for name in names)
    for text, result in ((every, GOOD), ("${version}", GOOD), ("", BAD), (" ", BAD), ("version", BAD), ("${version", BAD), ("$version", BAD), ("${}", BAD),
                         ("${version}${srcaddr}", BAD), ("${version}  ${srcaddr}", BAD), ("${version} ", BAD), (" ${version}", BAD),
                         ("${version},${srcaddr}", BAD), ("${Version}", BAD), ("${tcp_flags}", BAD), ("${instance-tag}", BAD), ("${version} ${nope}", BAD),
                         ("${version} ${version}", BEYOND)):
        yield "/flow_logs/0/log_format", text, result
    for key, result in (("type", BAD), ("path", BAD), ("prefix", GOOD), ("hive_compatible_partitions", GOOD), ("per_hour_partition", GOOD)):
        yield f"/flow_logs/0/destination/{key}", GONE, result
    yield from [("/flow_logs/0/destination/type", v, r) for v, r in (("S3", BAD), ("", BAD), ("stream", BAD))]
    for path, result in (("/", GOOD), ("relative", BAD), ("", BAD), ("/a\nb", BAD), ("/" + "a" * 4094, GOOD), ("/" + "a" * 4095, BAD)):
        yield "/flow_logs/0/destination/path", path, result
        yield "/flow_logs/1/destination/path", path, result
    for prefix, result in (("", GOOD), ("a", GOOD), ("a.b/c=d", GOOD), ("/a", BAD), ("a/", BAD), ("a//b", BAD), ("..", BAD), ("a/../b", BAD), (".", BAD), ("a b", BAD),
                           ("...", GOOD), ("x/AWSLogs", BAD), ("a" * 512, GOOD), ("a" * 513, BAD)):
        yield "/flow_logs/0/destination/prefix", prefix, result
    yield "/flow_logs/1/destination", {"type": "stream", "path": "/p", "prefix": "a"}, BAD
    yield "/flow_logs/1/destination", {"type": "stream", "path": "/p", "per_hour_partition": True}, BAD
    for key, kind in (("eni_ids", "eni"), ("subnet_ids", "subnet"), ("vpc_ids", "vpc")):
        yield f"/flow_logs/0/{key}", [], GOOD
        yield f"/flow_logs/0/{key}", [f"{kind}-{n}" for n in range(1000)], GOOD
        yield f"/flow_logs/0/{key}", [f"{kind}-{n}" for n in range(1001)], BAD
        yield f"/flow_logs/0/{key}", [f"{kind}-1", f"{kind}-1"], BAD
        yield f"/flow_logs/0/{key}", ["sg-1"], BAD
    yield from bounds("/flow_logs/0/max_flows", 1, 4 << 20)
    yield from bounds("/flow_logs/0/outside_traffic_path", 1, 8)


def subnet_changes(path):
    for cidr, result in (("10.0.0.0/16", GOOD), ("10.0.0.0/28", GOOD), ("10.0.0.0/15", BAD), ("10.0.0.0/29", BAD), ("10.0.0.0", BAD),
                         ("10.0.0.0/024", BAD), ("10.0.0/24", BAD), ("256.0.0.0/24", BAD), ("010.0.0.0/24", BAD), ("2001:db8::/64", BAD), ("", BAD)):
        yield f"{path}/cidr", cidr, result
    for cidr, result in (("2001:db8:0:1::/64", GOOD), ("2001:DB8:0:1::5/64", GOOD), ("2001:db8::/63", BAD), ("2001:db8::/56", GOOD), ("2001:db8::/60", GOOD), ("2001:db8::/44", GOOD), ("2001:db8::/40", BAD), ("2001:db8::/46", BAD),
                        
                         ("10.0.0.0/24", BAD), ("2001:db8:::/64", BEYOND)):
        yield f"{path}/ipv6_cidr", cidr, result
    for cidr, result in (("10.0.0.0/16", GOOD), ("172.31.0.0/28", GOOD), ("10.0.0.0/15", BAD), ("10.0.0.0/29", BAD), ("2001:db8::/64", BAD), ("", BAD)):
        yield f"{path}/vpc_cidr", cidr, result
    for key in ("cidr", "ipv6_cidr", "vpc_id", "availability_zone", "vpc_cidr"):
        yield f"{path}/{key}", GONE, GOOD


def port_changes(path):
    tap = {"kind": "tap", "netns": "n", "ifname": "eth0"}
    for kind in ("tap", "virtio-user"):
        yield path, {"kind": kind}, GOOD
        yield path, dict(tap, kind=kind), GOOD
        yield path, dict(tap, kind=kind, socket="/s"), BAD
        yield path, dict(tap, kind=kind, devargs="d"), BAD
    for name, result in (("a" * 15, GOOD), ("a" * 16, BAD), ("", BAD), ("a/b", BAD), ("a b", BAD), ("a:1", BAD), (".", BAD), ("..", BAD),
                         ("eth0.5", GOOD), ("a\tb", BAD), ("a,b", BAD), ("a=b", BAD), ("a%d", BAD), ("a[b", BAD), ("a'b", BAD), ("lo", BAD), ("a@b-c_d+e", GOOD)):
        yield path, dict(tap, ifname=name), result
    yield path, dict(tap, netns="/run/netns/x"), GOOD
    yield path, dict(tap, netns="a\u0000b"), BAD
    for mtu, result in ((576, GOOD), (9216, GOOD), (575, BAD), (9217, BAD)):
        yield path, dict(tap, mtu=mtu), result
    yield path, {"kind": "vhost-user", "socket": "/" + "s" * 106, "client": False, "mtu": 1500}, GOOD
    yield path, {"kind": "vhost-user", "socket": "/" + "s" * 107}, BAD
    for socket in ("s", "/", "/a,queues=9", "/a=b", "/a b", "/a/", "/a[b", "/a\u007f"):
        yield path, {"kind": "vhost-user", "socket": socket}, BAD
    yield path, {"kind": "vhost-user", "socket": ""}, BAD
    yield path, {"kind": "vhost-user"}, BAD
    yield path, {"kind": "vhost-user", "socket": "/s", "ifname": "eth0"}, BAD
    for devargs, result in (("net_ring0", GOOD), ("net_null7,no-rx=1", GOOD), ("net_tap0,persist,iface=x", GOOD), ("net_ring0,x=1", BEYOND), ("net_pcap0,tx_pcap=/x", BAD),
                            ("net_null0,a=b=c", BAD), ("net_null0,", BAD), ("net_null0,size=[1", BAD), ("0000:00:06.0", BAD)):
        yield path, {"kind": "vdev", "devargs": devargs}, result
    yield path, {"kind": "vdev"}, BAD
    yield path, {"kind": "vdev", "devargs": ""}, BAD
    yield path, {"kind": "vdev", "devargs": ",x=1"}, BAD
    yield path, {"kind": "veth"}, BAD
    yield path, {}, BAD


def rule_changes():
    def rule(protocol, *ports):
        return dict({"protocol": protocol, "ranges": ["10.0.0.0/8"]}, **dict(zip(("from_port", "to_port"), ports)))
    for protocol in ("tcp", "udp", "6", "17"):
        yield RULE, rule(protocol, 0, 65535), GOOD
        yield RULE, rule(protocol, 80, 79), BEYOND
        for ports in ((), (80,), (-1, -1), (-1, 80), (0, 65536)):
            yield RULE, rule(protocol, *ports), BAD
    for protocol in ("icmp", "1", "icmpv6", "58"):
        for ports in ((8, -1), (8, 0), (-1, -1), (255, 255)):
            yield RULE, rule(protocol, *ports), GOOD
        for ports in ((-1, 0), (256, 0), (8, 256), (-2, -1)):
            yield RULE, rule(protocol, *ports), BAD
        yield RULE, rule(protocol), BAD if protocol in ("icmp", "1") else GOOD
    yield RULE, {"protocol": "icmpv6", "to_port": 0}, BAD
    yield RULE, {"protocol": "icmpv6", "from_port": 128}, GOOD
    for protocol in ("-1", "0", "50", "255"):
        yield RULE, rule(protocol), GOOD
        yield RULE, rule(protocol, 0, 65535), GOOD
        yield RULE, rule(protocol, -2, 0), BAD
    for protocol in ("TCP", "", "256", "-2", "06", "tcpx", " 6"):
        yield RULE, rule(protocol, 1, 2), BAD
    yield f"{RULE}/protocol", GONE, BAD
    for text, result in (("10.0.0.7/8", GOOD), ("10.0.0.0/0", GOOD), ("10.0.0.0/33", BAD), ("10.0.0.0", BAD), ("::/0", GOOD), ("::1/128", GOOD),
                         ("::1/129", BAD), ("2001:db8::/032", BAD), ("x/8", BAD), ("", BAD), ("1.2.3.4/08", BAD), ("::ffff:1.2.3.4/128", BEYOND)):
        yield f"{RULE}/ranges/0", text, result
    yield from [(f"{RULE}/groups", v, r) for v, r in (([], GOOD), (["sg-1", "sg-1"], BAD), (["pl-1"], BAD), (["sg-"], BAD), (["sg-" + "0" * 33], BAD))]
    yield from [(f"{RULE}/prefix_lists", v, r) for v, r in (([], GOOD), (["pl-2"], GOOD), (["sg-1"], BAD))]
    for key in ("ranges", "groups", "prefix_lists"):
        yield f"{RULE}/{key}", GONE, GOOD


def acl_changes():
    def entry(protocol, *ports, number=7, **more):
        return dict({"number": number, "action": "deny", "protocol": protocol, "range": "10.0.0.0/8"}, **dict(zip(("from_port", "to_port"), ports)), **more)
    place = f"{ACL}/ingress/0"
    yield from bounds(f"{place}/number", 1, 32766)
    yield from [(f"{place}/action", v, r) for v, r in (("deny", GOOD), ("Allow", BAD), ("", BAD))]
    for protocol in ("tcp", "17"):
        yield place, entry(protocol, 0, 65535), GOOD
        yield place, entry(protocol, 80, 79), BEYOND
        for ports in ((), (80,), (-1, 80), (0, 65536)):
            yield place, entry(protocol, *ports), BAD
    for protocol in ("icmp", "58"):
        for ports in ((8, -1), (0, 0), (-1, -1), (255, 255)):
            yield place, entry(protocol, *ports), GOOD
        for ports in ((-1, 0), (256, 0), (8, 256), (-2, -1)):
            yield place, entry(protocol, *ports), BAD
        yield place, entry(protocol), BAD if protocol == "icmp" else GOOD
    for protocol in ("-1", "50", "0"):
        yield place, entry(protocol), GOOD
    yield from [(place, entry(protocol), BAD) for protocol in ("", "all", "256", "06")]
    yield from [(f"{place}/range", v, r) for v, r in (("10.0.0.7/8", GOOD), ("::/0", GOOD), ("10.0.0.0", BAD), ("10.0.0.0/33", BAD))]
    for key in ("number", "action", "protocol", "range"):
        yield f"{place}/{key}", GONE, BAD
    for key in ("ingress", "egress", "subnets", "vpc_id", "is_default"):
        yield f"{ACL}/{key}", GONE, GOOD
    yield f"{ACL}/ingress", [entry("-1", number=n) for n in (2, 1)], GOOD
    yield f"{ACL}/ingress", [entry("-1", number=1)] * 2, BEYOND
    yield f"{ACL}/ingress", [entry("-1", number=n) for n in range(1, 40)], GOOD
    yield f"{ACL}/ingress", [entry("-1", number=n) for n in range(1, 41)], BEYOND
    yield f"{ACL}/ingress", [dict(entry("-1", number=n), range="::/0" if n % 2 else "0.0.0.0/0") for n in range(1, 79)], GOOD
    yield f"{ACL}/ingress", [dict(entry("-1", number=n), range="::/0" if n % 2 else "0.0.0.0/0") for n in range(1, 80)], BAD
    yield from [(f"{ACL}/subnets", v, r) for v, r in (([], GOOD), (["subnet-unknown"], GOOD), (["subnet-1"] * 2, BAD), (["sg-1"], BAD))]
    yield "/network_acls/acl-2", {"subnets": ["subnet-c070009b"]}, BEYOND


def state_changes():
    yield from of_every_member(STATE)
    yield "", {}, GOOD
    for key in STATE:
        yield f"/{key}", GONE, GOOD
    for key in STATE["attachments"]["eni-b0aaa4b2"]:
        yield f"{ENI}/{key}", GONE, GOOD
    yield "/revision", 2**63 - 1, GOOD
    yield "/finished_tasks/x", 2**63 - 1, GOOD
    yield "/finished_tasks/x", -1, BAD
    yield from acl_changes()
    for collection, good in (("subnets", SUBNET), ("network_acls", {}), ("security_groups", {}), ("prefix_lists", {"entries": []}), ("remote_members", []), ("attachments", {})):
        prefix = {"subnets": "subnet", "security_groups": "sg", "prefix_lists": "pl", "network_acls": "acl", "remote_members": "sg", "attachments": "eni"}[collection]
        good = dict(good, cidr="10.9.0.0/24", ipv6_cidr="2001:db8:9::/64") if collection == "subnets" else good
        yield f"/{collection}/{prefix}-0trunk000000000001", good, GOOD
        for name in ("x-1", prefix, f"{prefix}-", f"{prefix}-a_b", f"{prefix}-" + "a" * 33):
            yield f"/{collection}/{name}", good, BAD
    yield "/subnets/subnet-2", dict(SUBNET, ipv6_cidr="2001:db8:9::/64"), BEYOND
    yield from lone_subnet_changes()
    yield "/prefix_lists/pl-1", {}, BAD
    yield "/prefix_lists/pl-2", {"entries": ["10.0.0.0/32"] * 1000}, GOOD
    yield "/prefix_lists/pl-2", {"entries": ["10.0.0.0/32"] * 1001}, BAD
    yield from port_changes(f"{ENI}/port")
    yield from rule_changes()
    yield from bounds(f"{ENI}/vlan", 1, 4094)
    yield f"{ENI}/vlan", "untagged", GOOD
    yield f"{ENI}/vlan", "tagged", BAD
    yield from bounds(f"{ENI}/conntrack/TcpEstablishedTimeout", 60, 432000)
    yield from bounds(f"{ENI}/conntrack/UdpTimeout", 30, 60)
    yield from bounds(f"{ENI}/conntrack/UdpStreamTimeout", 60, 180)
    for key, most in (("ingress_bits", 10**13), ("egress_bits", 10**13), ("ingress_packets", 4 * 10**9), ("egress_packets", 4 * 10**9)):
        yield from bounds(f"{ENI}/limits/{key}", 0, most)
        yield f"{ENI}/limits/{key}", GONE, GOOD
    yield from [(f"{ENI}/on_change", v, r) for v, r in (("revalidate", GOOD), ("", BAD), ("Keep", BAD))]
    yield from [(f"{ENI}/mac", v, r) for v, r in (("02:00:00:00:00:01", GOOD), ("03:00:00:00:00:01", BAD), ("00:00:00:00:00:00", BAD), ("0a:47", BAD))]
    yield f"{ENI}/trunk_mac", "00:00:00:00:00:00", GOOD
    yield from [(f"{ENI}/addresses/0", v, r) for v, r in (
        ("10.0.0.254", GOOD), ("10.0.0.3", BEYOND), ("10.0.0.255", BEYOND), ("10.0.1.5", BEYOND), ("2001:db8:0:1::3", BEYOND), ("10.0.0", BAD),
        ("10.0.0.035", BAD), ("x", BAD), ("10.0.0.35/24", BAD))]
    yield f"{ENI}/addresses", [f"10.0.0.{n}" for n in range(10, 26)], GOOD
    yield f"{ENI}/addresses", [f"10.0.0.{n}" for n in range(10, 27)], BAD
    yield f"{ENI}/addresses", ["10.0.0.9", "10.0.0.9"], BAD
    yield f"{ENI}/groups", [f"sg-{n}" for n in range(16)], GOOD
    yield f"{ENI}/groups", [f"sg-{n}" for n in range(17)], BAD
    yield f"{ENI}/groups", ["sg-1", "sg-1"], BAD
    yield f"{ENI}/eni", "eni-b0aaa4b2", GOOD
    yield f"{ENI}/eni", "eni-other", BEYOND
    yield f"{ENI}/task_arn", "arn:aws:ecs:t", GOOD
    yield f"{ENI}/task_arn", "arn:aws:ecs:other", BEYOND
    yield "/attachments/eni-2", {"vlan": 101}, BEYOND
    yield "/attachments/eni-2", {"mac": "0a:47:e4:7a:2b:02"}, BEYOND
    yield "/attachments/eni-2", {"port": {"kind": "virtio-user", "netns": "/run/netns/nginx"}}, BEYOND


def lone_subnet_changes():
    """As subnet_changes, of a subnet without ENIs."""
    for path, value, result in subnet_changes("/subnets/subnet-c070009b"):
        key = path.rsplit("/", 1)[1]
        subnet = {k: v for k, v in dict(SUBNET, **{key: value}).items() if v is not GONE}
        yield "", {"subnets": {"subnet-c070009b": subnet}}, result


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    schemas = {name: json.loads((ROOT / f"config/schema/{name}.schema.json").read_text()) for name in ("engine-config", "state")}
    store = {schema["$id"]: schema for schema in schemas.values()}
    wrong = total = 0
    for kind, base, changes in (("engine-config", CONFIG, config_changes()), ("state", STATE, state_changes())):
        schema = schemas[kind]
        jsonschema.Draft7Validator.check_schema(schema)
        validator = jsonschema.Draft7Validator(schema, resolver=jsonschema.RefResolver(schema["$id"], schema, store=store))
        for path, value, expected in [("/version" if kind == "engine-config" else "/revision", 1, GOOD), *changes]:
            document = change(base, path, value)
            run = subprocess.run([sys.argv[1], kind], input=json.dumps(document), capture_output=True, text=True, check=False)
            by_schema, by_engine = validator.is_valid(document), run.returncode == 0
            total += 1
            if run.returncode not in (0, 1) or (by_schema, by_engine) != {GOOD: (True, True), BAD: (False, False), BEYOND: (True, False)}[expected]:
                wrong += 1
                shown = "absent" if value is GONE else json.dumps(value)[:120]
                print(f"{kind} {path} = {shown}: wanted {expected}; schema {'accepts' if by_schema else 'refuses'}, "
                      f"engine {'accepts' if by_engine else 'refuses'} {run.stdout.strip()[:300]} {run.stderr.strip()[:300]}")
    print(f"{total} documents, {wrong} judged differently than wanted")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
