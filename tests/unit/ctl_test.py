#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
"""trunkctl against a fake engine: what it asks, what it prints, what it exits with, whatever the other side does.

Run as: python3 ctl_test.py PATH_TO_TRUNKCTL
"""
import base64
import json
import os
import pty
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import unittest

TRUNKCTL = "trunkctl"

METER = {"rx_packets": 10, "rx_bytes": 1000, "tx_packets": 8, "tx_bytes": 800, "drops": {"security_group_ingress": 2}}
TASK = {"eni": "eni-b0aaa4b2", "task": "f5aa", "task_arn": "arn:aws:ecs:eu-west-1:1:task/c/f5aa", "state": "active",
        "reason": "", "vlan": 101, "mac": "0a:47:e4:7a:2b:02", "addresses": ["10.0.0.35"], "subnet": "subnet-c070009b",
        "groups": ["sg-9effe8e4", "sg-1"], "port": "tap:nginx/eth0", "worker": 0}
WAITING = {"eni": "eni-0000000f", "task": None, "state": "waiting", "reason": "no VLAN yet", "vlan": None,
           "addresses": [], "groups": [], "port": "", "worker": None}
CHANGE = {"revision": 8, "changed": True, "durable": True, "steps": ["create tap eth0", "publish eni-b0aaa4b2"],
          "dry_run": False, "warnings": []}
WORKERS = [{"worker": 0, "lcore": 1, "endpoints": 2, "loops": 9, "busy_ratio": 0.1, "packets": 1000, "handed_in": 20, "busy_cycles": 102000,
            "cycles_per_packet": 100, "connections": 12, "capacity": 131072, "page_bytes": 2097152, "idle": "spinning"},
           {"worker": 1, "lcore": 2, "endpoints": 0, "loops": 9, "busy_ratio": 0, "packets": 0, "handed_in": 0, "busy_cycles": 0,
            "cycles_per_packet": None, "connections": 0, "capacity": 131072, "page_bytes": 4096, "idle": "blocked"}]
GROUP = {"GroupId": "sg-9effe8e4", "GroupName": "web", "IpPermissions": [
    {"IpProtocol": "tcp", "FromPort": 80, "ToPort": 80, "IpRanges": [{"CidrIp": "0.0.0.0/0", "Description": "all of it"}]},
    {"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": "sg-1"}]}], "IpPermissionsEgress": []}
RULE = {"group": "sg-1", "direction": "ingress", "index": 0, "rule": "tcp 80 from 0.0.0.0/0"}
FLOW = {"eni": "eni-1", "direction": "ingress", "protocol": "tcp", "local": "10.0.0.35", "local_port": 80, "remote": "2001:db8::9",
        "remote_port": 4000, "state": "established", "tracked": True, "rule": RULE, "idle_s": 0.5, "ingress": {"packets": 4, "bytes": 221},
        "egress": {"packets": 3, "bytes": 169}}
HALF = {"packet": "tcp 198.51.100.9:4000 to 10.0.0.35:22, SYN", "direction": "ingress", "eni": "eni-1", "rule": None, "verdict": "security_group_ingress",
        "sentence": "No rule lets it in.", "refused_by": "admit",
        "stages": [{"stage": "parse", "refused": False, "said": "IPv4"}, {"stage": "admit", "refused": True, "said": "no\trule"}]}
STEERING = {"mode": "auto", "active": True, "why": "", "patterns": ["vlan+mac+address", "vlan"], "endpoints": 3, "in_hardware": 1, "rules": 3,
            "full_after": 3, "times_lost": 0}
STEERED = {"eni": "eni-b0aaa4b2", "task": "f5aa", "worker": 1, "hardware": "yes", "pattern": "vlan+mac+address", "queue": 1, "rules": 2, "wanted": 2,
           "mark": 4097, "hits": 120, "why": ""}
UNSTEERED = {"eni": "eni-0000000f", "task": "f5ab", "worker": 0, "hardware": "no", "pattern": None, "queue": None, "rules": 0, "wanted": 0,
             "mark": None, "hits": None, "why": "the driver net_ena has no rte_flow"}
RESULTS = {
    "steering.list": {"steering": STEERING, "endpoints": [
        STEERED, {**STEERED, "eni": "eni-2", "hardware": "partly", "rules": 1, "hits": None, "why": "flow table full after 3 rules"}, UNSTEERED]},
    "steering.resync": {"rules": 3},
    "flow.list": {"flows": [FLOW, {**FLOW, "local_port": None, "remote_port": None, "protocol": "icmp", "rule": None}], "matched": 2, "sorted_of": 2},
    "flow.flush": {"flushed": 2},
    "explain": {"delivered": True, "verdict": "none", "sentence": "not dropped", "halves": [{**HALF, "verdict": "none", "refused_by": None, "rule": RULE}]},
    "status": {"version": "0.1.0", "pid": 12, "uptime_s": 3700, "revision": 7, "boot_id": "5f", "healthy": True,
               "trunk": {"device": "0000:00:06.0", "mode": "tagged", "link": "up", "mtu": 9001, "mac": "0a:11"},
               "workers": WORKERS,
               "endpoints": {"active": 2, "waiting": 0, "failed": 0, "left_out": {}, "interfaces_left": 0, "last_interface_left": "", "limit": 512},
               "connections": {"used": 12, "limit": 262144, "recycled": 3},
               "memory": {"hugepages_mb": 512, "mbufs_used": 5, "mbufs": 100},
               "state": {"durable": True, "journal": "/var/lib/trunkline/j", "damage": "", "quarantined": None},
               "flow_logs": {"configured": 1, "records_written": 40, "records_lost": 5, "write_errors": 4, "trouble": ["fl-1: disk full"]},
               "steering": STEERING,
               "names": {"file": "/run/hosts/enis", "why": "no room"},
               "capabilities": [{"port": "trunk", "what": "rte_flow", "available": False, "why": "ENA has none"}]},
    "worker.list": {"workers": WORKERS},
    "share.list": {"shares": [
        {"eni": "eni-b0aaa4b2", "task": "f5aa", "worker": 0, "connections": {"entries": 1500, "share": 1092, "beyond_share": 408},
         "worker_time": {"ms": 35, "frame_us": 310.5}, "flow_lines_lost": 4, "refused": {"conntrack_share": 3, "cpu_allowance_exceeded": 12}},
        {"eni": "eni-0000000f", "task": "f5ab", "worker": 1, "connections": {"entries": 0, "share": 1092, "beyond_share": 0},
         "worker_time": {"ms": 0, "frame_us": 0}, "flow_lines_lost": 0, "refused": {}}]},
    "task.list": {"tasks": [TASK, WAITING]},
    "task.show": {**TASK, "attachment": "1789", "connections": 3, "mtu": 9001, "source_dest_check": True,
                  "port": {"kind": "tap", "netns": "nginx"}, "counters": {"ingress": METER, "egress": METER}, "new_member": 5,
                  "capabilities": [{"what": "receives super-frames", "available": True, "why": ""},
                                   {"what": "sends super-frames", "available": False, "why": "no program is there"}]},
    "task.describe": {"tasks": [{"taskArn": "a"}], "failures": []},
    "sg.list": {"groups": [{"id": "sg-9effe8e4", "name": "web", "ingress_rules": 1, "egress_rules": 1, "members": 2,
                            "used_by": ["eni-b0aaa4b2"]}]},
    "sg.show": {"SecurityGroups": [GROUP]},
    "sg.members": {"group": "sg-9effe8e4", "local": ["10.0.0.35"], "remote": ["10.0.9.9"]},
    "acl.list": {"acls": [{"id": "acl-9aeb5ef7", "vpc": "vpc-1", "is_default": False, "ingress_entries": 2, "egress_entries": 1,
                           "subnets": ["subnet-c070009b"], "used_by": ["eni-b0aaa4b2"]}]},
    "acl.show": {"NetworkAcls": [{"NetworkAclId": "acl-9aeb5ef7", "Entries": [
        {"RuleNumber": 100, "Protocol": "6", "RuleAction": "allow", "Egress": True, "CidrBlock": "0.0.0.0/0", "PortRange": {"From": 1024, "To": 65535}},
        {"RuleNumber": 90, "Protocol": "17", "RuleAction": "deny", "Egress": False, "CidrBlock": "0.0.0.0/0", "PortRange": {"From": 0, "To": 65535}},
        {"RuleNumber": 100, "Protocol": "1", "RuleAction": "allow", "Egress": False, "CidrBlock": "10.0.0.0/8", "IcmpTypeCode": {"Type": 0, "Code": -1}},
        {"RuleNumber": 32768, "Protocol": "-1", "RuleAction": "deny", "Egress": False, "Ipv6CidrBlock": "::/0"}]}]},
    "subnet.list": {"Subnets": [{"SubnetId": "subnet-c070009b", "CidrBlock": "10.0.0.0/24",
                                 "Ipv6CidrBlockAssociationSet": [{"Ipv6CidrBlock": "fd00::/64"}]}]},
    "stats": {"ports": [{"name": "trunk", "eni": None, "ingress": METER, "egress": METER, "in": METER, "out": METER}], "unaccounted": 0},
    "drops": {"drops": [{"reason": "security_group_ingress", "sentence": "No rule lets it in.", "packets": 12,
                         "port": "tap:nginx/eth0", "eni": "eni-b0aaa4b2", "direction": "ingress"}]},
    "state.get": {"SecurityGroups": [], "enis": []},
    "flow_log.list": {"interval": 7, "flow_logs": [
        {"id": "fl-1", "traffic_type": "ALL", "max_aggregation_interval": 60, "fields": "srcaddr", "ends_in_s": 12, "flows": 3, "max_flows": 9,
         "destination": {"type": "s3", "path": "/bucket"}, "records_written": 40, "nodata_written": 2, "skipdata_written": 1, "records_lost": 5,
         "packets_lost": 6, "bytes_lost": 7, "lines_waiting": 0, "files": 2, "write_errors": 4, "written_interval": 7, "trouble": ""}]},
    "flow_log.flush": {"interval": 7},
}
HELLO = {"jsonrpc": "2.0", "method": "hello", "params": {
    "server": "trunklined", "version": "0.1.0", "api": {"major": 1, "minor": 4}, "features": [], "boot_id": "5f",
    "revision": 7, "role": "admin"}}


def line(message):
    return (json.dumps(message) + "\n").encode()


class Engine:
    """A socket that says hello, records requests and answers them with answer(request) -> bytes, or None for silence."""

    def __init__(self, answer=None, hello=line(HELLO)):
        self.directory = tempfile.TemporaryDirectory()
        self.path = os.path.join(self.directory.name, "s")
        self.requests = []
        self.answer = answer or self.ordinary
        self.hello = hello
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(self.path)
        self.listener.listen(8)
        self.done = threading.Event()
        self.server = threading.Thread(target=self.serve, daemon=True)
        self.server.start()

    @staticmethod
    def ordinary(request):
        return line({"jsonrpc": "2.0", "id": request["id"], "result": RESULTS.get(request["method"], CHANGE)})

    def serve(self):
        while True:
            try:
                peer, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.talk, args=(peer,), daemon=True).start()

    def talk(self, peer):
        with peer:
            try:
                if self.hello is None:
                    self.done.wait(20)
                    return
                peer.sendall(self.hello)
                for raw in peer.makefile("rb"):
                    request = json.loads(raw)
                    self.requests.append(request)
                    answer = self.answer(request)
                    if answer is None:
                        self.done.wait(20)
                    if not answer:  # b"": hang up
                        return
                    peer.sendall(answer)
            except OSError:
                pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.done.set()
        # The thread must be out of accept() before the descriptor's number can be another test's.
        self.listener.shutdown(socket.SHUT_RDWR)
        self.server.join()
        self.listener.close()
        self.directory.cleanup()


def refusing(code, name, message, pointer="", problems=None):
    first = {"name": name, "pointer": pointer, "message": message}
    return lambda request: line({"jsonrpc": "2.0", "id": request["id"], "error": {
        "code": code, "message": message, "data": {"name": name, "pointer": pointer, "problems": problems or [first]}}})


def run(*words, engine=None, stdin="", env=None):
    environment = {k: v for k, v in os.environ.items() if k not in ("TRUNKLINE_SOCKET", "NO_COLOR")}
    if engine:
        environment["TRUNKLINE_SOCKET"] = engine.path
    environment.update(env or {})
    return subprocess.run([TRUNKCTL, *words], input=stdin, capture_output=True, text=True, timeout=30, env=environment)


class Case(unittest.TestCase):
    def ok(self, *words, **how):
        result = run(*words, **how)
        self.assertEqual((result.returncode, result.stderr), (0, ""), words)
        return result.stdout

    def fails(self, code, *words, says="", **how):
        result = run(*words, **how)
        self.assertEqual((result.returncode, result.stdout), (code, ""), (words, result.stderr))
        self.assertIn(says, result.stderr)
        for said in result.stderr.splitlines():
            self.assertTrue(said.startswith("trunkctl: "), said)
        return result.stderr

    def asks(self, method, params, *words, **how):
        with Engine() as engine:
            out = self.ok(*words, engine=engine, **how)
            self.assertEqual([(r["method"], r["params"]) for r in engine.requests], [(method, params)])
            return out


class Looking(Case):
    def test_task_list_layout(self):
        self.assertEqual(self.asks("task.list", {}, "task", "list"), (
            "ENI           TASK  STATE    VLAN  MAC                ADDRESSES  SUBNET           GROUPS            "
            "PORT            WORKER  REASON\n"
            "eni-b0aaa4b2  f5aa  active    101  0a:47:e4:7a:2b:02  10.0.0.35  subnet-c070009b  sg-9effe8e4,sg-1  "
            "tap:nginx/eth0       0  -\n"
            "eni-0000000f  -     waiting     -  -                  -          -                -                 "
            "-                    -  no VLAN yet\n"))

    def test_share_list_layout(self):
        self.assertEqual(self.asks("share.list", {}, "share", "list"), (
            "ENI           TASK  WORKER  CONNECTIONS  SHARE  BEYOND  TIME_MS  FRAME_US  LINES_LOST  REFUSED\n"
            "eni-b0aaa4b2  f5aa       0         1500   1092     408       35     310.5           4  conntrack_share=3 cpu_allowance_exceeded=12\n"
            "eni-0000000f  f5ab       1            0   1092       0        0         0           0  -\n"))

    def test_worker_list_layout(self):
        self.assertEqual(self.asks("worker.list", {}, "worker", "list"), (
            "WORKER  LCORE  ENDPOINTS  BUSY  PACKETS  HANDED_IN  CYCLES_A_PACKET  CONNECTIONS  CAPACITY  PAGE_KB  IDLE\n"
            "     0      1          2   10%     1000         20              100           12    131072     2048  spinning\n"
            "     1      2          0    0%        0          0                -            0    131072        4  blocked\n"))
        self.assertEqual(json.loads(self.asks("worker.list", {}, "worker", "list", "-o", "json")), {"workers": WORKERS})

    def test_steering_layout(self):
        self.assertEqual(self.asks("steering.list", {}, "steering", "list"), (
            "ENI           TASK  WORKER  HARDWARE  PATTERN           QUEUE  RULES  WANTED  MARK  HITS  WHY\n"
            "eni-b0aaa4b2  f5aa       1  yes       vlan+mac+address      1      2       2  4097   120  -\n"
            "eni-2         f5aa       1  partly    vlan+mac+address      1      1       2  4097     -  flow table full after 3 rules\n"
            "eni-0000000f  f5ab       0  no        -                     -      0       0     -     -  the driver net_ena has no rte_flow\n"
            "\n1 of 3 endpoints in hardware, 3 rules, vlan+mac+address,vlan, flow table full after 3 rules\n"))
        off = {"steering": {**STEERING, "active": False, "why": "nothing to steer: there is one worker"}, "endpoints": []}
        with Engine(lambda r: line({"jsonrpc": "2.0", "id": r["id"], "result": off})) as engine:
            self.assertTrue(self.ok("steering", "list", engine=engine).endswith("\nin software: nothing to steer: there is one worker\n"))
        self.assertEqual(self.asks("steering.resync", {}, "steering", "resync"), "3 rule(s) given up; what can be installed comes anew\n")

    def test_drops_layout(self):
        golden = ("REASON                  PACKETS  DIRECTION  PORT            ENI           WHAT IT MEANS\n"
                  "security_group_ingress       12  ingress    tap:nginx/eth0  eni-b0aaa4b2  No rule lets it in.\n")
        self.assertEqual(self.asks("drops", {}, "drops"), golden)
        self.assertEqual(self.asks("drops", {"eni": "eni-1"}, "drops", "eni-1"), golden)

    def test_flow_list(self):
        self.assertEqual(self.asks("flow.list", {}, "flow", "list"), (
            "DIRECTION  PROTO  LOCAL         REMOTE              STATE        TRACKED  IDLE_S  INGRESS_PACKETS  INGRESS_BYTES  EGRESS_PACKETS  EGRESS_BYTES  ENI    RULE\n"
            "ingress    tcp    10.0.0.35:80  [2001:db8::9]:4000  established  yes         0.5                4            221               3           169  eni-1  "
            "sg-1 tcp 80 from 0.0.0.0/0\n"
            "ingress    icmp   10.0.0.35     2001:db8::9         established  yes         0.5                4            221               3           169  eni-1  "
            "no rule any more: it was let in before they changed\n"))
        self.asks("flow.list", {"task": "t", "remote": "10.0.0.0/8", "protocol": "tcp", "state": "established", "port": 80, "min_idle_s": 5, "limit": 3,
                                "sort": "idle"},
                  *"flow list --task t --remote 10.0.0.0/8 --proto tcp --port 80 --state established --idle 5 --limit 3 --sort idle".split())
        self.assertEqual(self.asks("flow.flush", {"port": 80}, "flow", "flush", "--port", "80"), "2 connection(s) forgotten\n")
        self.fails(2, "flow", "flush", says="--all")

    def test_explain_takes_words(self):
        page = self.asks("explain", {"protocol": "tcp", "source": "198.51.100.9", "source_port": 4000, "destination": "10.0.0.35", "destination_port": 80},
                         "explain", "tcp from 198.51.100.9:4000 to 10.0.0.35:80")
        self.assertIn("  rule     sg-1 ingress 0: tcp 80 from 0.0.0.0/0\n  verdict  passes\n", page)
        self.assertTrue(page.endswith("it would be delivered\n"), page)
        self.assertIn("admit    no?rule\n", page)
        for words, params in [
                ("--from web --to 198.51.100.9 tcp 443", {"from": "web", "destination": "198.51.100.9", "protocol": "tcp", "destination_port": 443}),
                ("icmp from trunk to web type 3 code 4", {"protocol": "icmp", "from": "trunk", "to": "web", "icmp_type": 3, "icmp_code": 4}),
                ("udp from [2001:db8::1]:53 to 2001:db8::2 port 5000",
                 {"protocol": "udp", "source": "2001:db8::1", "source_port": 53, "destination": "2001:db8::2", "destination_port": 5000}),
                ("tcp to 10.0.0.35:80 flags SA octets 1500", {"protocol": "tcp", "destination": "10.0.0.35", "destination_port": 80, "tcp_flags": "SA", "octets": 1500})]:
            with self.subTest(words=words):
                self.asks("explain", params, "explain", *words.split())
        for words in ("", "tcp frm 10.0.0.1", "tcp to", "tcp to 10.0.0.1:http", "tcp port x"):
            self.fails(2, "explain", *words.split())
        self.fails(2, "explain", "--pcap", "/nonexistent", says="/nonexistent")
        self.fails(2, "explain", "--pcap", "/dev/null", "-n", "0")

    def test_explain_of_what_is_dropped(self):
        dropped = {"delivered": False, "verdict": "security_group_ingress", "sentence": "No rule lets it in.", "halves": [HALF]}
        with Engine(lambda r: line({"jsonrpc": "2.0", "id": r["id"], "result": dropped})) as engine:
            got = run("explain", "tcp", "to", "10.0.0.35:22", engine=engine)
        self.assertEqual((got.returncode, got.stderr), (1, ""))
        self.assertIn("DROPPED: security_group_ingress, No rule lets it in.", got.stdout)
        self.assertIn("it would be dropped: security_group_ingress", got.stdout)

    def explain_file(self, content, *words, answer=None):
        with Engine(answer) as engine, tempfile.TemporaryDirectory() as folder:
            with open(folder + "/x", "wb") as file:
                file.write(content)
            got = run(*words, "explain", "--pcap", folder + "/x", engine=engine)
            return got, [base64.b64decode(request["params"]["frame"]) for request in engine.requests]

    def test_explain_reads_a_file_record_by_record_to_its_end(self):
        def refuse_one(request):
            if base64.b64decode(request["params"]["frame"]).startswith(b"bad"):
                return refusing(-32602, "invalid_params", "no frame", "/frame")(request)
            return Engine.ordinary(request)

        head = struct.pack("<IHHIIII", 0xa1b2c3d4, 2, 4, 0, 0, 262144, 1)

        def record(frame, wire=None):
            return struct.pack("<IIII", 1, 2, len(frame), len(frame) if wire is None else wire) + frame

        records = [record(b"first"), record(b""), record(bytes(60001)), record(b"cut", 9), record(b"lies", 0xfffffff0), record(b"bad"), record(b"last")]
        got, frames = self.explain_file(head + b"".join(records) + record(b"half of it")[:-5], "-o", "jsonl", answer=refuse_one)
        self.assertEqual(frames, [b"first", b"cut" + bytes(6), b"lies", b"bad", b"last"])
        lines = [json.loads(each) for each in got.stdout.splitlines()]
        self.assertEqual([each["packet"] for each in lines], [1, 2, 3, 4, 5, 6, 7, 8])
        self.assertEqual([each["packet"] for each in lines if each.get("delivered")], [1, 4, 5, 7])
        self.assertEqual({each["packet"]: each["skipped"] for each in lines if "skipped" in each},
                         {2: "empty", 3: "60001 bytes; a frame of at most 60000 can be explained", 6: "refused (invalid_params) at /frame: no frame",
                          8: "the file ends within it: 5 of 10 bytes are there"})
        self.assertIn("the file says 4294967280 bytes, and is believed as far as it has them: 4 bytes", lines[4]["note"])
        self.assertIn("filled up", lines[3]["note"])
        self.assertEqual(got.returncode, 1)
        self.assertEqual(got.stderr, "trunkctl: 4 packet(s) explained (4 would be delivered, 0 would not), 4 skipped: 1 empty, 1 larger than 60000 bytes, "
                                     "1 not whole, or not Ethernet, 1 without an answer of the engine\n")
        # As a page; and a file in which all is well.
        got, _ = self.explain_file(head + record(b"first") + record(b""))
        self.assertIn("packet 1: tcp 198.51.100.9:4000", got.stdout)
        self.assertIn("packet 2: not explained: empty\n", got.stdout)
        got, frames = self.explain_file(head + record(b"first") + record(b"second"))
        self.assertEqual((got.returncode, frames), (0, [b"first", b"second"]))
        got, frames = self.explain_file(head + record(b"x") * 300)
        self.assertEqual(len(frames), 300, "to its end, unless -n says otherwise")
        got, frames = self.explain_file(head + record(b"x") * 300, "-n", "7")
        self.assertEqual(len(frames), 7)

    def test_explain_of_files_that_are_none(self):
        for content, says in [(b"", "is empty"), (b"\x1f\x8b\x08\0", "gunzip"), (b"hello, world", "neither a pcap nor a pcapng"),
                              (struct.pack("<IHHIIII", 0xa1b2c3d4, 2, 4, 0, 0, 262144, 113), "not on \"any\"")]:
            got, frames = self.explain_file(content)
            self.assertEqual((got.returncode, got.stdout, frames), (2, "", []))
            self.assertIn(says, got.stderr)

    def test_explain_of_a_file_stops_when_the_question_is_wrong(self):
        head = struct.pack("<IHHIIII", 0xa1b2c3d4, 2, 4, 0, 0, 262144, 1) + struct.pack("<IIII", 1, 2, 3, 3) + b"abc"
        for answer, code in [(refusing(-32004, "not_found", "no such task", "/from"), 3), (refusing(-32002, "forbidden", "no"), 1), (lambda request: b"", 4)]:
            got, frames = self.explain_file(head + struct.pack("<IIII", 1, 2, 3, 3) + b"abc", answer=answer)
            self.assertEqual((got.returncode, len(frames)), (code, 1))
            self.assertIn("0 packet(s) explained", got.stderr)

    def test_held_is_not_dropped(self):
        held = {**HALF, "verdict": "held", "sentence": "held: waits for its first fragment, at most 0.2 s", "refused_by": None, "route": None}
        answer = {"delivered": False, "verdict": "held", "sentence": held["sentence"], "halves": [held]}
        with Engine(lambda r: line({"jsonrpc": "2.0", "id": r["id"], "result": answer})) as engine:
            got = run("explain", "udp", "to", "10.0.0.35:53", engine=engine)
        self.assertEqual((got.returncode, got.stderr), (1, ""))
        self.assertIn("  verdict  held: waits for its first fragment, at most 0.2 s\n", got.stdout)
        self.assertTrue(got.stdout.endswith("held: waits for its first fragment, at most 0.2 s\n"))
        self.assertNotIn("drop", got.stdout.lower())

    def test_capture_writes_where_it_is_told(self):
        self.fails(2, "capture", says="-w")
        packet = {**HALF, "port": "trunk", "point": "in", "time_ns": 1, "bytes": 60, "data": "AQID", "route": None}
        held = {**packet, "verdict": "held", "sentence": "waits for its first fragment", "refused_by": None}
        answers = {"capture.start": {}, "capture.read": {"packets": [packet, held], "lost": 3, "done": True}}
        with Engine(lambda r: line({"jsonrpc": "2.0", "id": r["id"], "result": answers[r["method"]]})) as engine, tempfile.TemporaryDirectory() as folder:
            got = run("capture", "--filter", "tcp", "--point", "in", "-n", "2", "-w", folder + "/x", engine=engine)
            with open(folder + "/x", "rb") as file:
                written = file.read()
        self.assertEqual(got.returncode, 0, got.stderr)
        self.assertEqual(engine.requests[0]["params"], {"filter": "tcp", "point": "in", "limit": 2})
        self.assertIn("3 packet(s) more matched", got.stderr)
        self.assertIn("2 packet(s)", got.stderr)
        self.assertEqual((written[:4], written.count(b"\x01\x02\x03")), (b"\x0a\x0d\x0d\x0a", 2))
        self.assertIn(b"ingress eni-1: waits for its first fragment", written)

    def test_stats_layout(self):
        self.assertEqual(self.asks("stats", {}, "stats"), (
            "PORT   ENI  DIRECTION  RX_PACKETS  RX_BYTES  TX_PACKETS  TX_BYTES  DROPS\n"
            "trunk  -    ingress            10      1000           8       800      2\n"
            "trunk  -    egress             10      1000           8       800      2\n"
            "\nevery packet is accounted for\n"))

    def test_stats_that_do_not_add_up(self):
        wrong = {"ports": [{"name": "trunk", "eni": None, "ingress": {**METER, "rx_packets": 11}, "egress": METER}], "unaccounted": 1}
        with Engine(lambda r: line({"jsonrpc": "2.0", "id": r["id"], "result": wrong})) as engine:
            out = self.ok("stats", engine=engine)
        self.assertIn("NOT accounted for: 1 packets; received is not sent plus dropped at trunk ingress", out)

    def test_status(self):
        out = self.asks("status", {}, "status")
        self.assertEqual(out.splitlines()[0], "healthy: trunklined 0.1.0, up 1 h 1 min, revision 7, pid 12")
        for part in ("trunk        0000:00:06.0, tagged, link up, MTU 9001", "2 active, 0 waiting, 0 failed, at most 512",
                     "12 of 262144, 3 made room for others", "512 MB of huge pages", "durable, journal", "/run/hosts/enis, NOT WRITTEN: no room", "rte_flow: no, ENA has none",
                     "worker 0     lcore 1, 2 endpoints, 12 connections, busy 10%, now spinning", "worker 1     lcore 2, 0 endpoints",
                     "steering     1 of 3 endpoints in hardware, 3 rules, vlan+mac+address,vlan, flow table full after 3 rules\n",
                     "flow logs    1, 40 records written, 5 lost, 4 write errors\n             fl-1: disk full\n"):
            self.assertIn(part, out)

    def test_task_show(self):
        out = self.asks("task.show", {"task": "f5aa"}, "task", "show", "f5aa")
        for part in ("vlan               101\n", "kind=tap netns=nginx", "2 security_group_ingress", "new_member", "2 dropped",
                     "receives super-frames: yes\n", "sends super-frames: no, no program is there\n"):
            self.assertIn(part, out)
        self.assertNotIn("available", out)

    def test_flow_logs(self):
        out = self.asks("flow_log.list", {}, "flow-log", "list")
        self.assertIn("fl-1  ALL              60         12      3       40       2         1     5        0      2       4  s3:/bucket   -\n", out)

    def test_a_flush_waits_until_the_lines_are_written(self):
        asked = []

        def answers(written_at, trouble=""):
            def handle(request):
                asked.append(request["method"])
                result = {"interval": 7}
                if request["method"] == "flow_log.list":
                    written = 7 if len(asked) > written_at else 6
                    result = {"interval": 7, "flow_logs": [{"id": "fl-1", "written_interval": written, "trouble": trouble}]}
                return line({"jsonrpc": "2.0", "id": request["id"], "result": result})
            return handle
        with Engine(answers(3)) as engine:
            self.assertEqual(self.ok("flow-log", "flush", engine=engine), "interval 7 is written\n")
        self.assertEqual(asked, ["flow_log.flush"] + ["flow_log.list"] * 3)
        asked.clear()
        with Engine(answers(10**9, "No space left on device")) as engine:
            self.fails(4, "flow-log", "flush", "--timeout", "0.3", engine=engine, says="fl-1 is not written yet: No space left on device")

    def test_the_others(self):
        self.assertEqual(json.loads(self.asks("task.describe", {"tasks": []}, "task", "describe")), RESULTS["task.describe"])
        self.asks("task.describe", {"tasks": ["a", "b"]}, "task", "describe", "a", "b")
        self.assertIn("sg-9effe8e4              1             1        2  eni-b0aaa4b2  web\n", self.asks("sg.list", {}, "sg", "list"))
        out = self.asks("sg.show", {"groups": ["sg-9effe8e4"]}, "sg", "show", "sg-9effe8e4")
        self.assertIn("sg-9effe8e4  web   ingress    tcp 80   0.0.0.0/0  all of it\n", out)
        self.assertIn("sg-9effe8e4  web   ingress    all      sg-1       -\n", out)
        self.assertIn("remote  10.0.9.9\n", self.asks("sg.members", {"group": "sg-1"}, "sg", "members", "sg-1"))
        self.assertEqual(self.asks("acl.list", {}, "acl", "list"), (
            "ACL           INGRESS_ENTRIES  EGRESS_ENTRIES  DEFAULT  SUBNETS          USED_BY       VPC\n"
            "acl-9aeb5ef7                2               1  no       subnet-c070009b  eni-b0aaa4b2  vpc-1\n"))
        self.assertEqual(self.asks("acl.show", {"acls": ["acl-9aeb5ef7"]}, "acl", "show", "acl-9aeb5ef7"), (
            "ACL           DIRECTION  NUMBER  ACTION  TRAFFIC         PEER\n"
            "acl-9aeb5ef7  ingress        90  deny    udp             0.0.0.0/0\n"
            "acl-9aeb5ef7  ingress       100  allow   icmp type 0     10.0.0.0/8\n"
            "acl-9aeb5ef7  ingress         *  deny    all             ::/0\n"
            "acl-9aeb5ef7  egress        100  allow   tcp 1024-65535  0.0.0.0/0\n"))
        self.asks("acl.show", {"acls": []}, "acl", "show")
        self.assertIn("10.0.0.0/24  fd00::/64", self.asks("subnet.list", {}, "subnet", "list"))
        self.assertEqual(json.loads(self.asks("state.get", {}, "state", "get")), RESULTS["state.get"])

    def test_describe_with_failures(self):
        result = {"tasks": [], "failures": [{"arn": "x", "reason": "MISSING"}]}
        with Engine(lambda r: line({"jsonrpc": "2.0", "id": r["id"], "result": result})) as engine:
            got = run("task", "describe", "x", engine=engine)
        self.assertEqual((got.returncode, json.loads(got.stdout)), (3, result))
        self.assertIn("MISSING", got.stderr)

    def test_formats(self):
        with Engine() as engine:
            self.assertEqual(json.loads(self.ok("-o", "json", "task", "list", engine=engine)), RESULTS["task.list"])
            lines = self.ok("task", "list", "--output=jsonl", engine=engine).splitlines()
            self.assertEqual([json.loads(l) for l in lines], [TASK, WAITING])
            self.assertEqual(self.ok("subnet", "list", "--no-headers", engine=engine),
                             "subnet-c070009b  10.0.0.0/24  fd00::/64  -  -\n")
            self.assertEqual(len(self.ok("stats", "--no-headers", engine=engine).splitlines()), 2)

    def test_control_characters_do_not_reach_the_terminal(self):
        nasty = {"tasks": [{**WAITING, "reason": "a\u001b[31m\nb\u009b\u00e9"}]}
        with Engine(lambda r: line({"jsonrpc": "2.0", "id": r["id"], "result": nasty})) as engine:
            self.assertTrue(self.ok("task", "list", engine=engine).endswith("a?[31m?b?\u00e9\n"))

    def test_colour_on_a_terminal_only(self):
        def on_terminal(**env):
            with Engine() as engine:
                ours, theirs = pty.openpty()
                environment = {**{k: v for k, v in os.environ.items() if k != "NO_COLOR"}, "TERM": "xterm", **env}
                subprocess.run([TRUNKCTL, "--socket", engine.path, "task", "list"], stdout=theirs, env=environment, timeout=30)
                os.close(theirs)
                out = os.read(ours, 65536).decode()
                os.close(ours)
                return out
        self.assertIn("\033[32mactive\033[0m", on_terminal())
        self.assertIn("\033[33mwaiting\033[0m", on_terminal())
        self.assertNotIn("\033", on_terminal(NO_COLOR="1"))

    def test_watch_repeats_until_the_engine_is_gone(self):
        count = []

        def twice(request):
            count.append(1)
            return Engine.ordinary(request) if len(count) < 3 else b""
        with Engine(twice) as engine:
            got = run("drops", "--watch", "--no-headers", engine=engine)
        self.assertEqual((got.returncode, got.stdout.count("security_group_ingress")), (4, 2))

    def test_ping_version_help(self):
        with Engine() as engine:
            self.assertEqual(self.ok("ping", engine=engine), "trunklined 0.1.0\n")
            self.assertEqual(engine.requests, [])
        self.assertTrue(self.ok("version").startswith("trunkctl "))
        self.assertTrue(self.ok("--version").startswith("trunkctl "))
        self.assertIn("members-put", self.ok("help"))
        self.assertIn("--trunk-mac", self.ok("help", "task", "attach"))
        self.assertEqual(self.ok("help", "task", "attach"), self.ok("task", "attach", "--help"))


class Changing(Case):
    def test_attach_options(self):
        out = self.asks("task.attach", {
            "eni": "eni-1", "attachment_id": "at", "task_arn": "arn:x", "mac": "0a:00", "addresses": ["10.0.0.1", "fd00::1"],
            "subnet": "subnet-1", "vlan": 101, "trunk_mac": "0a:11", "groups": ["sg-1", "sg-2"], "source_dest_check": False,
            "port": {"kind": "tap", "netns": "", "ifname": "eth0", "mtu": 1500, "default_route": False},
            "dry_run": True, "expect_revision": 7},
            "--dry-run", "task", "attach", "--eni", "eni-1", "--attachment-id", "at", "--task-arn", "arn:x", "--mac", "0a:00",
            "--address", "10.0.0.1", "--address", "fd00::1", "--subnet", "subnet-1", "--vlan", "101", "--trunk-mac", "0a:11",
            "--group", "sg-1", "--group=sg-2", "--port", "tap", "--netns", "", "--ifname", "eth0", "--mtu", "1500",
            "--no-default-route", "--no-source-dest-check", "--expect-revision", "7")
        self.assertEqual(out, "create tap eth0\npublish eni-b0aaa4b2\nrevision 8\n")

    def test_presence_of_netns(self):
        self.asks("task.attach", {"eni": "e"}, "task", "attach", "--eni", "e")
        self.asks("task.attach", {"eni": "e", "port": {"kind": "tap", "netns": ""}}, "task", "attach", "--eni", "e", "--netns=")

    def test_attach_from_a_file(self):
        file = json.dumps({"eni": "e", "vlan": 5, "port": {"kind": "tap", "netns": "n", "mtu": 9001}})
        self.asks("task.attach", {"eni": "e", "vlan": 6, "port": {"kind": "tap", "netns": "", "mtu": 9001}},
                  "task", "attach", "--from", "-", "--vlan", "6", "--netns", "", stdin=file)
        self.asks("task.attach", {"eni": "e", "vlan": 5, "port": {"kind": "vdev", "devargs": "net_null0"}},
                  "task", "attach", "--from", "-", "--port", "vdev", "--devargs", "net_null0", stdin=file)

    def test_both_sockets(self):
        with Engine() as engine:
            self.ok("--socket", engine.path, "task", "attach", "--eni", "e", "--port", "vhost-user", "--socket", "/v")
            self.assertEqual(engine.requests[0]["params"]["port"], {"kind": "vhost-user", "socket": "/v"})
            self.fails(2, "task", "attach", "--eni", "e", "--socket", engine.path, says="put the engine's before the command")
            self.ok("task", "list", "--socket", engine.path)

    def test_each_request(self):
        body = {"a": [1], "dry_run": True, "replace_all": True, "wait": "enforced", "document": {}}
        document = {"document": body}
        for words, method, params in [
            (("task", "detach", "f5"), "task.detach", {"task": "f5"}),
            (("task", "detach", "f5", "--missing-ok"), "task.detach", {"task": "f5", "missing_ok": True}),
            (("sg", "put", "-"), "sg.put", document),
            (("sg", "put", "-", "--replace-all"), "sg.put", {**document, "replace_all": True}),
            (("sg", "delete", "sg-1"), "sg.delete", {"group": "sg-1"}),
            (("acl", "put", "-"), "acl.put", document),
            (("acl", "put", "-", "--replace-all"), "acl.put", {**document, "replace_all": True}),
            (("acl", "delete", "acl-1", "--dry-run"), "acl.delete", {"acl": "acl-1", "dry_run": True}),
            (("vpc", "put", "-"), "vpc.put", document),
            (("task", "set", "f5", "--audit", "on", "--block-imds", "off"), "task.set", {"task": "f5", "audit": True, "block_imds": False}),
            (("task", "set", "f5", "--ingress-bits", "8000", "--egress-packets", "0"), "task.set",
             {"task": "f5", "limits": {"ingress_bits": 8000, "egress_packets": 0}}),
            (("task", "set", "f5", "--on-change", "revalidate", "--always-track", "on"), "task.set",
             {"task": "f5", "on_change": "revalidate", "always_track": True}),
            (("task", "attach", "--eni", "e", "--audit", "on", "--egress-bits", "5"), "task.attach", {"eni": "e", "audit": True, "limits": {"egress_bits": 5}}),
            (("sg", "members-put", "sg-1", "10.0.0.1", "::1"), "sg.members.put", {"group": "sg-1", "members": ["10.0.0.1", "::1"]}),
            (("sg", "members-put", "sg-1"), "sg.members.put", {"group": "sg-1", "members": []}),
            (("sg", "members-add", "sg-1", "10.0.0.1", "::1"), "sg.members.add", {"group": "sg-1", "members": ["10.0.0.1", "::1"]}),
            (("sg", "members-remove", "sg-1", "10.0.0.1"), "sg.members.remove", {"group": "sg-1", "members": ["10.0.0.1"]}),
            (("sg", "members-add", "sg-1", "::1", "--no-wait"), "sg.members.add", {"group": "sg-1", "members": ["::1"], "wait": "enforced"}),
            (("prefix-list", "put", "-"), "prefix_list.put", document),
            (("prefix-list", "put", "--id", "pl-1", "-"), "prefix_list.put", {**document, "id": "pl-1"}),
            (("subnet", "put", "-"), "subnet.put", document),
            (("subnet", "put", "-", "--dry-run"), "subnet.put", {**document, "dry_run": True}),
            (("event", "submit", "-"), "event.submit", {"event": body}),
            (("event", "submit", "-", "--all", "--instance", "i-1"), "event.submit", {"event": body, "all": True, "instance": "i-1"}),
            (("event", "submit", "-", "--vlan", "9", "--netns", ""), "event.submit",
             {"event": body, "defaults": {"vlan": 9, "port": {"kind": "tap", "netns": ""}}}),
            (("state", "replace", "-"), "state.replace", document),
            (("state", "replace", "-", "--allow-empty", "--allow-removal"), "state.replace", {**document, "allow_empty": True, "allow_removal": True}),
            (("worker", "move", "f5", "1"), "worker.move", {"task": "f5", "worker": 1}),
        ]:
            with self.subTest(words=words):
                self.assertTrue(self.asks(method, params, *words, stdin=json.dumps(body)).endswith("revision 8\n"))

    def answered(self, result, *words):
        with Engine(lambda r: line({"jsonrpc": "2.0", "id": r["id"], "result": {**CHANGE, **result}})) as engine:
            got = run("task", "detach", "f5", *words, engine=engine)
            self.assertEqual(got.returncode, 0)
            return got

    def test_what_it_says(self):
        self.assertEqual(self.answered({"dry_run": True, "revision": 7}, "--dry-run").stdout,
                         "would: create tap eth0\nwould: publish eni-b0aaa4b2\nrevision 7 (dry run: nothing was done)\n")
        self.assertEqual(self.answered({"changed": False, "steps": []}).stdout, "revision 8 (it was already so)\n")
        self.assertEqual(self.answered({}, "--quiet").stdout, "")
        self.assertEqual(json.loads(self.answered({}, "-o", "json").stdout), CHANGE)
        got = self.answered({"durable": False, "warnings": ["disk full"]}, "--quiet")
        self.assertEqual(got.stderr, "trunkctl: warning: in force, but not in the journal yet; the engine keeps trying\n"
                                     "trunkctl: warning: disk full\n")


class Refusals(Case):
    ALL = [("status",), ("stats",), ("drops",), ("task", "list"), ("task", "show", "x"), ("task", "describe"),
           ("task", "attach", "--eni", "e"), ("task", "detach", "x"), ("sg", "list"), ("sg", "show"), ("sg", "put", "-"),
           ("sg", "delete", "x"), ("sg", "members", "x"), ("sg", "members-put", "x", "y"),
           ("sg", "members-add", "x", "y"), ("sg", "members-remove", "x", "y"), ("prefix-list", "put", "-"),
           ("subnet", "list"), ("subnet", "put", "-"), ("event", "submit", "-"), ("state", "get"), ("state", "replace", "-"),
            ("worker", "list"), ("worker", "move", "x", "1"), ("steering", "list"), ("steering", "resync"), ("flow-log", "list"), ("flow-log", "flush"), ("flow", "list"),
            ("flow", "flush", "--all"), ("drops", "top"), ("explain", "tcp", "to", "10.0.0.35:80"), ("trace",), ("capture", "-w", "/dev/null")]

    def test_every_command(self):
        with Engine(refusing(-32002, "forbidden", "you may only look")) as engine:
            for words in self.ALL:
                with self.subTest(words=words):
                    self.assertEqual(self.fails(1, *words, engine=engine, stdin="{}"),
                                     "trunkctl: refused (forbidden): you may only look\n")

    def test_all_problems_are_listed(self):
        problems = [{"name": "duplicate_vlan", "pointer": "/vlan", "message": "VLAN 101 is taken"},
                    {"name": "duplicate_ip", "pointer": "/addresses/0", "message": "so is that"}]
        with Engine(refusing(-32010, "duplicate_vlan", "VLAN 101 is taken", "/vlan", problems)) as engine:
            self.assertEqual(self.fails(1, "task", "attach", "--eni", "e", engine=engine),
                             "trunkctl: refused (duplicate_vlan) at /vlan: VLAN 101 is taken\n"
                             "trunkctl: refused (duplicate_ip) at /addresses/0: so is that\n")

    def test_exit_codes(self):
        for code, name, status in [(-32004, "not_found", 3), (-32003, "conflict", 5), (-32603, "internal", 1)]:
            with Engine(refusing(code, name, "m")) as engine:
                self.fails(status, "task", "detach", "x", engine=engine, says="refused (%s): m" % name)
        for code, status in [(-32004, 3), (-32003, 5), (-32010, 1)]:  # an error without data
            bare = lambda r, c=code: line({"jsonrpc": "2.0", "id": r["id"], "error": {"code": c, "message": "m"}})
            with Engine(bare) as engine:
                self.fails(status, "task", "detach", "x", engine=engine, says="m")

    def test_limit_instead_of_hello(self):
        full = line({"jsonrpc": "2.0", "id": None, "error": {"code": -32001, "message": "64 clients", "data": {"name": "limit"}}})
        with Engine(hello=full) as engine:
            self.fails(1, "ping", engine=engine, says="refused (limit): 64 clients")


class Usage(Case):
    def test_wrong_words(self):
        for words, says in [
            ((), "no command given"), (("taks", "list"), 'unknown command "taks"; did you mean task?'),
            (("task", "lst"), "did you mean list?"), (("task",), "wants one of: attach, describe, detach, list, set, show"),
            (("task", "show"), "`task show` wants T"), (("task", "show", "a", "b"), 'has no use for "b"'),
            (("status", "--tiemout", "3"), "unknown option --tiemout; did you mean --timeout?"),
            (("task", "list", "--vlan", "3"), "--vlan is not an option of `task list`"),
            (("task", "list", "--dry-run"), "--dry-run is not an option of `task list`"),
            (("task", "list", "-o", "jsno"), "did you mean json?"), (("task", "attach"), "wants --eni"),
            (("task", "attach", "--eni", "e", "--vlan", "x"), "--vlan is a whole number"),
            (("task", "attach", "--eni", "e", "--audit", "yes"), "wanted on or off"), (("task", "set", "f5"), "wants something to set"),
            (("task", "set", "f5", "--egress-bits", "1G"), "--egress-bits is a whole number"), (("task", "set", "f5", "--vlan", "3"), "--vlan is not an option of `task set`"),
            (("task", "attach", "--eni"), "--eni"), (("ping", "--timeout", "0"), "--timeout"),
            (("ping", "--timeout", "nan"), "--timeout"), (("ping", "--out", "json"), "unknown option --out"),
            (("task", "attach", "--eni", "a", "--eni", "b"), "--eni is given twice"), (("help", "nope"), "no such command"),
            (("worker", "move", "f5"), "`worker move` wants T WORKER"), (("worker", "move", "f5", "one"), "WORKER is a whole number"),
        ]:
            with self.subTest(words=words):
                self.assertEqual(self.fails(2, *words, says=says).count("\n"), 1)

    def test_files(self):
        self.fails(2, "sg", "put", "/nonexistent", says="cannot read /nonexistent")
        self.fails(2, "sg", "put", "/", says="cannot read /")
        self.fails(2, "sg", "put", "-", stdin='{"a":1,\n "b" 2}', says="standard input: not JSON: line 2, column 6")
        self.fails(2, "sg", "put", "-", stdin="[]", says="standard input: a JSON object is wanted, and this is a list; give the document whole")
        self.fails(2, "sg", "put", "-", stdin='{"a":[{"b":1,"b":2}]}', says='the key "b" is given twice, at "/a/0/b"')
        self.fails(2, "event", "submit", "-", "--from", "-", says="not both")

    def test_files_that_are_no_document_are_refused_in_words(self):
        """Nothing is sent, nothing is lost in silence, nothing ends the program."""
        whole = b'{"Subnets": []}'
        for content, says in [
                (whole + b"\0" + whole, "line 1, column 16: a zero byte is not JSON"), (whole + b" " + whole, "line 1, column 17"),
                (b"[" * 80000 + b"]" * 80000, "levels deep"), (b'{"a":' * 80000, "levels deep"), (b'{"a":' * 31 + b"1" + b"}" * 31, "more than 30 levels deep"),
                (whole.decode().encode("utf-16"), "UTF-16"), (whole.decode().encode("utf-16-le"), "UTF-16"), (whole.decode().encode("utf-16-be"), "UTF-16"),
                (whole[:-3], "not JSON: line 1"), (b"", "not JSON: line 1, column 1"), (b"\xff{}", "not JSON"), (b'{"a":"\xc3("}', "UTF-8"),
                (b'{"a":"\\ud800"}', "surrogate"), (b'{"a":1e400}', "a number that is too large"), (b"{'a':1}", "not JSON"), (b'{"a":1,}', "not JSON"),
                (b'{"a":NaN}', "not JSON"), (b'// c\n{}', "not JSON"), (b"Subnets:\n- CidrBlock: 10.0.0.0/24\n", "--output json"),
                (b"SUBNETS\tus-west-2a\t251\n", "--output json"), (b"-----------\n|  DescribeSubnets  |\n", "--output json"), (b'"x"', "single value")]:
            for words in (("subnet", "put"), ("event", "submit"), ("state", "replace")):
                with self.subTest(content=content[:40], words=words), Engine() as engine, tempfile.NamedTemporaryFile() as file:
                    file.write(content)
                    file.flush()
                    self.fails(2, *words, file.name, engine=engine, says=says)
                    self.assertEqual(engine.requests, [])
        with tempfile.NamedTemporaryFile() as file:
            file.write(b"\xef\xbb\xbf" + whole)  # a byte order mark before UTF-8 says nothing else
            file.flush()
            self.asks("subnet.put", {"document": {"Subnets": []}}, "subnet", "put", file.name)
            file.seek(0)
            file.write(b'{"a":' * 30 + b"1" + b"}" * 30)
            file.flush()
            with Engine() as engine:
                self.ok("subnet", "put", file.name, engine=engine)

    def test_too_large_is_not_sent(self):
        with Engine() as engine:
            self.fails(2, "sg", "put", "-", engine=engine, stdin=json.dumps({"a": "x" * (1 << 20)}), says="at most 1048576")
            self.fails(2, "sg", "put", "-", engine=engine, stdin=" " * (17 << 20), says="over 16 MiB")
            self.assertEqual(engine.requests, [])
            self.ok("sg", "put", "-", engine=engine, stdin=json.dumps({"a": "x" * ((1 << 20) - 200)}))


class BrokenEngines(Case):
    def test_nobody_there(self):
        with tempfile.TemporaryDirectory() as directory:
            path = os.path.join(directory, "s")
            self.fails(4, "ping", "--socket", path, says=path + ": there is no such socket; is trunklined running?")
            with socket.socket(socket.AF_UNIX) as left_behind:
                left_behind.bind(path)
            self.fails(4, "ping", "--socket", path, says="nobody listens")
        self.fails(4, "ping", "--socket", "/" + "x" * 200, says="at most 107 bytes")
        self.fails(4, "ping", "--socket", "", says="path is empty")

    def timed(self, *words, **how):
        start = time.monotonic()
        said = self.fails(4, *words, "--timeout", "0.3", says="within 0.3 s", **how)
        self.assertLess(time.monotonic() - start, 3)
        self.assertGreater(time.monotonic() - start, 0.25)
        return said

    def test_timeout(self):
        with Engine(hello=None) as engine:
            self.timed("ping", engine=engine)
        with Engine(lambda request: None) as engine:
            self.assertNotIn("may or may not", self.timed("status", engine=engine))
            self.assertIn("may or may not have been made", self.timed("task", "detach", "x", engine=engine))

    def test_timeout_in_a_full_backlog(self):
        with tempfile.TemporaryDirectory() as directory, socket.socket(socket.AF_UNIX) as listener:
            path = os.path.join(directory, "s")
            listener.bind(path)
            listener.listen(0)
            with socket.socket(socket.AF_UNIX) as waiting:
                waiting.connect(path)
                self.timed("ping", "--socket", path)

    def test_timeout_under_a_flood_of_notifications(self):
        flood = line({"jsonrpc": "2.0", "method": "tick", "params": {}}) * 3000

        with Engine() as engine:
            def drown(_):
                return flood * 200
            engine.answer = drown
            self.assertIn(run("status", "--timeout", "0.3", engine=engine).returncode, (4,))

    def test_notifications_are_skipped(self):
        tick = line({"jsonrpc": "2.0", "method": "tick", "params": {}})
        with Engine(lambda r: tick + tick + Engine.ordinary(r)) as engine:
            self.ok("task", "list", engine=engine)

    def test_unknown_api(self):
        hello = {**HELLO, "params": {**HELLO["params"], "api": {"major": 2, "minor": 0}}}
        with Engine(hello=line(hello)) as engine:
            self.fails(4, "status", engine=engine, says="speaks version 2 of the control protocol")
            self.assertEqual(engine.requests, [])

    def test_malformed(self):
        for hello in (b"SSH-2.0\n", b"[]\n", b"{}\n", b'{"jsonrpc":"2.0","method":"hello"}\n', b"",
                      line({"jsonrpc": "2.0", "method": "hello", "params": {"api": 1}}), b"\xff\xfe\n", b"{" * 100000 + b"\n"):
            with self.subTest(hello=hello[:40]), Engine(hello=hello) as engine:
                self.fails(4, "ping", "--timeout", "2", engine=engine)
        answers = [b"", b"nonsense\n", b'{"jsonrpc":"2.0","id":1', line({"jsonrpc": "2.0", "id": 1}),
                   line({"jsonrpc": "2.0", "id": 7, "result": {}}), line({"id": 1, "result": {}}),
                   line({"jsonrpc": "2.0", "id": 1, "result": 5}), line({"jsonrpc": "2.0", "id": 1, "error": "no"}),
                   line({"jsonrpc": "2.0", "id": 1, "result": {}}),
                   line({"jsonrpc": "2.0", "id": 1, "result": {"tasks": 5}}),
                   line({"jsonrpc": "2.0", "id": 1, "result": {"tasks": [5]}}), b'{"jsonrpc":"2.0","id":1,"result":' + b"[" * 200000 + b"\n",
                   b'{"jsonrpc":"2.0","id":1,"result":' + b'{"tasks":' * 100000 + b"1" + b"}" * 100001 + b"\n"]
        for answer in answers:
            with self.subTest(answer=answer), Engine(lambda r, a=answer: a) as engine:
                self.assertEqual(self.fails(4, "task", "list", "--timeout", "0.5", engine=engine).count("\n"), 1)

    def test_wrong_types_inside(self):
        for method, words in [("stats", ("stats",)), ("drops", ("drops",)), ("status", ("status",)), ("sg.show", ("sg", "show")),
                              ("x", ("task", "detach", "x"))]:
            for result in ({}, {"ports": [{"ingress": 5}], "drops": [{"packets": "many"}], "healthy": "so", "steps": 5,
                                "SecurityGroups": [7], "revision": "x"}):
                with self.subTest(words=words), Engine(lambda r, a=result: line({"jsonrpc": "2.0", "id": 1, "result": a})) as e:
                    self.fails(4, *words, engine=e, says="not as the control protocol has it")

    def test_stdout_that_cannot_be_written(self):
        with Engine() as engine, open("/dev/full", "w") as full:
            got = subprocess.run([TRUNKCTL, "--socket", engine.path, "task", "list"], stdout=full, stderr=subprocess.PIPE)
            self.assertEqual(got.returncode, 4)


class Completion(Case):
    def completes(self, *words, engine=None, env=None):
        return self.ok("__complete", *words, engine=engine, env=env).split()

    def test_words_and_options(self):
        nobody = {"TRUNKLINE_SOCKET": "/nonexistent"}
        self.assertEqual(self.completes("t"), ["task", "trace"])
        self.assertEqual(self.completes("task", "d"), ["describe", "detach"])
        self.assertEqual(self.completes("--socket", "/x", "sg", "members"), ["members", "members-add", "members-put", "members-remove"])
        self.assertEqual(self.completes("task", "detach", "--mis"), ["--missing-ok"])
        self.assertEqual(self.completes("task", "list", "--output", "json"), ["json", "jsonl"])
        self.assertEqual(self.completes("task", "list", "--output", "="), ["json", "jsonl", "table"])
        self.assertIn("vhost-user", self.completes("task", "attach", "--port", ""))
        self.assertEqual(self.completes("task", "set", "f5", "--audit", ""), ["off", "on"])
        self.assertEqual(self.completes("task", "set", "f5", "--on-change", "r"), ["revalidate"])
        self.assertEqual(self.completes("acl", "p"), ["put"])
        self.assertIn("status", self.completes(""))
        self.assertEqual(self.completes("worker", ""), ["list", "move"])
        self.assertEqual(self.completes("help", "task", "at"), ["attach"])
        self.assertEqual(self.completes("task", "show", "", env=nobody), [])
        self.assertEqual(self.completes(env=nobody)[:2], ["acl", "capture"])

    def test_live(self):
        with Engine() as engine:
            self.assertEqual(self.completes("task", "show", "", engine=engine), ["eni-0000000f", "eni-b0aaa4b2", "f5aa"])
            self.assertEqual(self.completes("drops", "eni-b", engine=engine), ["eni-b0aaa4b2"])
            self.assertEqual(self.completes("worker", "move", "f", engine=engine), ["f5aa"])
            self.assertEqual(self.completes("flow", "list", "--task", "f", engine=engine), ["f5aa"])
            self.assertEqual(self.completes("flow", "list", "--port", "", engine=engine), [])
            self.assertEqual(self.completes("capture", "--point", "", engine=engine), ["drop", "in", "out"])
            self.assertEqual(self.completes("worker", "move", "f5aa", "", engine=engine), ["0", "1"])
            self.assertEqual(self.completes("sg", "delete", "", engine=engine), ["sg-9effe8e4"])
            self.assertEqual(self.completes("acl", "show", "", engine=engine), ["acl-9aeb5ef7"])
            self.assertEqual(self.completes("task", "attach", "--group", "", engine=engine), ["sg-9effe8e4"])
            self.assertEqual(self.completes("task", "attach", "--subnet", "", engine=engine), ["subnet-c070009b"])
            self.assertEqual(self.completes("--socket", engine.path, "sg", "delete", "s"), ["sg-9effe8e4"])

    def test_silent_and_quick_without_an_answer(self):
        with Engine(hello=None) as engine:
            start = time.monotonic()
            self.assertEqual(self.completes("task", "show", "", engine=engine), [])
            self.assertLess(time.monotonic() - start, 2)


if __name__ == "__main__":
    if len(sys.argv) > 1 and not sys.argv[1].startswith("-"):
        TRUNKCTL = os.path.abspath(sys.argv.pop(1))
    unittest.main()
