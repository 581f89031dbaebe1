#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
"""Looking into the packet path of a running engine: the connections it has and the rule that let each in, what it says would
become of a packet, and the packets themselves; each compared with what the engine then does."""
import json
import os
import signal
import socket
import struct
import subprocess
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from harness import ANYWHERE, CLIENT, GROUP, PING, ROUTER_MAC, LabTest, ethernet, group, ipv4, main, tcp, tcp_segment, two_workers, udp  # noqa: E402
from lab import in_netns  # noqa: E402
from lab.netns import send_frames  # noqa: E402

OPEN, CLOSED = 8000, 8001
TO_NOBODY = []


class Conversation:
    """One TCP connection of the client to a task, and what goes through it."""

    def __init__(self, test, task, port=OPEN):
        self.listener = in_netns(task.netns, lambda: socket.create_server((task.address, port)))
        self.client = in_netns(test.lab.client, lambda: socket.create_connection((task.address, port), timeout=5))
        self.listener.settimeout(5)
        self.server, _ = self.listener.accept()
        self.server.settimeout(5)
        self.port = self.client.getsockname()[1]
        test.addCleanup(self.close)

    def say(self, text=b"hello", seconds=5):
        """Whether it arrives, and the answer to it."""
        self.client.settimeout(seconds)
        self.server.settimeout(seconds)
        try:
            self.client.sendall(text)
            if self.server.recv(len(text)) != text:
                return False
            self.server.sendall(text)
            return self.client.recv(len(text)) == text
        except TimeoutError:
            return False

    def close(self):
        for each in (self.client, self.server, self.listener):
            each.close()


class Flows(LabTest):
    def setUp(self):
        super().setUp()
        # Answers leave by state alone, so every connection is tracked.
        self.put_groups(group(tcp(OPEN), PING, egress=TO_NOBODY))
        self.web = self.attach(1)

    def flows(self, *words):
        return self.lab.ctl("flow", "list", *words)["flows"]

    def test_list_names_the_rule(self):
        conversation = Conversation(self, self.web)
        self.assertTrue(conversation.say())
        self.assert_ping(self.lab.client, self.web.address, count=2)
        flow, = self.flows("--proto", "tcp")
        self.assertEqual({name: flow[name] for name in ("eni", "direction", "protocol", "local", "local_port", "remote", "remote_port", "state",
                                                        "tracked", "allowed", "worker")},
                         {"eni": self.web.eni, "direction": "ingress", "protocol": "tcp", "local": self.web.address, "local_port": OPEN,
                          "remote": CLIENT, "remote_port": conversation.port, "state": "established", "tracked": True,
                          "allowed": ["ingress", "egress"], "worker": 0})
        self.assertEqual(flow["rule"], {"group": GROUP, "direction": "ingress", "index": 0, "rule": f"tcp {OPEN} from 0.0.0.0/0"})
        self.assertGreaterEqual(flow["ingress"]["packets"], 3)
        self.assertGreater(flow["egress"]["bytes"], 40)
        ping, = self.flows("--proto", "icmp")
        self.assertEqual((ping["state"], ping["rule"]["rule"], ping["ingress"]["packets"], ping["egress"]["packets"]),
                         ("icmp_again", "icmp type 8 from 0.0.0.0/0", 2, 2))
        self.assertEqual(len(self.flows()), 2)
        self.assertEqual(len(self.flows("--remote", "10.0.1.0/24", "--task", self.web.eni, "--port", str(OPEN), "--state", "established")), 1)
        self.assertEqual(self.flows("--remote", "10.0.2.0/24"), [])
        self.assertEqual(self.flows("--port", str(CLOSED)), [])
        self.assertEqual(len(self.flows("--limit", "1")), 1)
        table = self.lab.trunkctl("flow", "list", "--proto", "tcp")
        self.assertIn(f"{CLIENT}:{conversation.port}", table.stdout)
        self.assertTrue(table.stdout.splitlines()[1].endswith(f"{GROUP} tcp {OPEN} from 0.0.0.0/0"), table.stdout)
        self.assertEqual(self.lab.trunkctl("flow", "list", "--task", "nobody").returncode, 3)
        self.assertEqual(self.lab.trunkctl("flow", "list", "--state", "open").returncode, 1)

    def test_flush_cuts_what_a_removed_rule_left(self):
        conversation, other = Conversation(self, self.web), Conversation(self, self.attach(2))
        self.assertTrue(conversation.say() and other.say())
        self.put_groups(group(PING, egress=TO_NOBODY))
        self.assertTrue(conversation.say(), "tracked: it goes on")
        flow, = self.flows("--task", self.web.eni, "--proto", "tcp")
        self.assertIsNone(flow["rule"], "no rule allows it now")
        refused = self.lab.trunkctl("flow", "flush")
        self.assertEqual(refused.returncode, 2, refused.stderr)
        self.assertEqual(self.lab.ctl("flow", "flush", "--task", self.web.eni, "--port", str(CLOSED)), {"flushed": 0})
        self.assertTrue(conversation.say())
        before = self.lab.drops(self.web.eni).get("security_group_ingress", 0)
        self.assertEqual(self.lab.ctl("flow", "flush", "--task", self.web.eni, "--proto", "tcp"), {"flushed": 1})
        self.assertFalse(conversation.say(seconds=1), "cut")
        self.assertGreater(self.lab.drops(self.web.eni)["security_group_ingress"], before)
        self.assertTrue(other.say(), "another task's goes on")
        self.assertEqual(self.lab.ctl("flow", "flush", "--all")["flushed"], 1)
        self.assertEqual(self.flows(), [])


class Explained(LabTest):
    """What explain says, and what then happens."""

    def setUp(self):
        super().setUp()
        self.put_groups(group(tcp(OPEN), PING, egress=TO_NOBODY))
        self.web, self.other = self.attach(1), self.attach(2)

    def explain(self, *words):
        """(exit code, the answer)"""
        done = self.lab.trunkctl("-o", "json", "explain", *words)
        self.assertIn(done.returncode, (0, 1), done.stderr)
        return done.returncode, json.loads(done.stdout)

    def test_it_agrees_with_what_happens(self):
        before = self.lab.stats()
        code, answer = self.explain(f"tcp from {CLIENT}:4000 to {self.web.address}:{OPEN}")
        self.assertEqual((code, answer["delivered"]), (0, True))
        self.assertEqual(answer["halves"][0]["rule"]["rule"], f"tcp {OPEN} from 0.0.0.0/0")
        code, answer = self.explain("--to", self.web.address, "--from", CLIENT, "tcp", str(CLOSED))
        self.assertEqual((code, answer["verdict"], answer["halves"][0]["refused_by"]), (1, "security_group_ingress", "admit"))
        code, outbound = self.explain("--from", self.web.eni, "--to", CLIENT, "tcp", "443")
        self.assertEqual((code, outbound["verdict"]), (1, "security_group_egress"))
        code, between = self.explain("--from", self.other.eni, "--to", self.web.eni, "udp", "53")
        self.assertEqual((code, between["verdict"]), (1, "security_group_egress"))
        self.assertEqual(self.lab.stats(), before, "to ask has moved a counter")
        self.assertEqual(self.lab.ctl("flow", "list")["matched"], 0)
        # The same packets for real.
        self.assertTrue(Conversation(self, self.web).say())
        with self.expect_drops(self.web.eni, **{answer["verdict"]: 1}):
            self.assertEqual(self.lab.tcp_probe(self.lab.client, self.web.address, CLOSED, 0.3), "silence")
        with self.expect_drops(self.web.eni, **{outbound["verdict"]: 1}):
            self.assertEqual(self.lab.tcp_probe(self.web.netns, CLIENT, 443, 0.3), "silence")

    def test_a_live_connection_counts(self):
        conversation = Conversation(self, self.web)
        words = ("--from", self.web.eni, "--to", f"{CLIENT}:{conversation.port}", "tcp", "flags", "A")
        params = {"from": self.web.eni, "destination": CLIENT, "protocol": "tcp", "source_port": OPEN, "destination_port": conversation.port, "tcp_flags": "A"}
        answer = self.call("explain", params)
        self.assertTrue(answer["delivered"])
        self.assertEqual(answer["connections"], 1)
        self.assertFalse(self.call("explain", {**params, "source_port": OPEN + 1})["delivered"])
        self.assertEqual(self.explain(*words)[0], 1, "another source port is another flow")
        page = self.lab.trunkctl("explain", "tcp", "from", f"{CLIENT}:{conversation.port}", "to", f"{self.web.address}:{OPEN}", "flags", "A")
        self.assertIn("the connection lets it pass; the rules are not asked", page.stdout)
        self.assertIn("it would be delivered", page.stdout)

    def test_wrong_words(self):
        for words in ((), ("tcp", "frm", CLIENT), ("tcp", "from")):
            self.assertEqual(self.lab.trunkctl("explain", *words).returncode, 2, words)
        self.assertEqual(self.lab.trunkctl("explain", "--from", CLIENT, "--to", "10.0.0.99", "tcp", "80").returncode, 3)


class Packets(LabTest):
    def setUp(self):
        super().setUp()
        self.put_groups(group(tcp(OPEN), PING, egress=TO_NOBODY))
        self.web = self.attach(1)

    def start(self, *words, stdout=subprocess.PIPE):
        """trunkctl in the background, once the engine looks."""
        def started():
            return self.lab.tail("engine.log", 1000).count("capture.start by")

        before = started()
        process = subprocess.Popen([self.lab.binaries["trunkctl"], "--socket", self.lab.socket, *words], stdin=subprocess.DEVNULL,
                                   stdout=stdout, stderr=subprocess.PIPE)
        self.addCleanup(self.end, process)
        self.assertTrue(self.lab.wait_until(lambda: started() > before, 5), self.lab.tail("engine.log"))
        return process

    def end(self, process):
        if process.poll() is None:
            process.kill()
        process.communicate(timeout=10)

    def finish(self, process, number=None):
        if number is not None:
            process.send_signal(number)
        out, said = process.communicate(timeout=15)
        self.assertEqual(process.returncode, 0, said)
        return out, said.decode()

    def tcpdump(self, path, *words):
        """The packets of a file as tcpdump prints them."""
        done = subprocess.run(["tcpdump", "-n", "-e", "-r", path, *words], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              text=True, timeout=20)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout.splitlines()

    def test_trace_says_why(self):
        process = self.start("trace", "--task", self.web.eni, "--filter", f"tcp port {CLOSED}", "-n", "1", "--timeout", "10")
        self.assertTrue(Conversation(self, self.web).say(), "another port, not looked at")
        self.assertEqual(self.lab.tcp_probe(self.lab.client, self.web.address, CLOSED, 0.3), "silence")
        out, _ = self.finish(process)
        page = out.decode()
        self.assertRegex(page, rf"tcp {CLIENT}:\d+ to {self.web.address}:{CLOSED}, SYN, \d+ octets, VLAN {self.web.vlan}")
        self.assertIn("ingress of " + self.web.eni + ", at trunk", page)
        self.assertIn(f"DROPPED: security_group_ingress, no inbound rule of the ENI's security groups allows it", page)
        self.assertRegex(page, rf"admit +security_group_ingress: .*Asked: tcp {CLOSED} from {CLIENT}, 2 rule\(s\) of {GROUP}")

    def test_trace_of_what_passes_and_of_drops_only(self):
        process = self.start("-o", "jsonl", "trace", "--task", self.web.eni, "-n", "4", "--filter", "icmp", "--timeout", "10")
        self.assert_ping(self.lab.client, self.web.address, count=2)
        out, _ = self.finish(process)
        packets = [json.loads(line) for line in out.splitlines()]
        def ways(name):
            return sorted((packet["direction"], packet["connection"]["new"] if name == "new" else packet[name]) for packet in packets)

        self.assertEqual(ways("new"), [("egress", False), ("egress", False), ("ingress", False), ("ingress", True)])
        self.assertEqual({packet["rule"]["rule"] for packet in packets}, {"icmp type 8 from 0.0.0.0/0"})
        self.assertEqual(ways("route"), [("egress", "trunk")] * 2 + [("ingress", "task")] * 2)
        process = self.start("-o", "jsonl", "trace", "--drops", "--timeout", "1")
        self.assert_ping(self.lab.client, self.web.address, count=2)
        out, said = self.finish(process)
        self.assertEqual(out, b"")
        self.assertIn("no packet matched", said)

    def test_capture_is_read_by_tcpdump(self):
        path = os.path.join(self.lab.directory, "web.pcapng")
        process = self.start("capture", "--task", self.web.eni, "--filter", "icmp", "-w", path)
        self.assert_ping(self.lab.client, self.web.address, count=3)
        self.assertEqual(self.lab.tcp_probe(self.lab.client, self.web.address, CLOSED, 0.2), "silence")
        _, said = self.finish(process, signal.SIGINT)
        self.assertIn("6 packet(s)", said)
        lines = self.tcpdump(path)
        self.assertEqual(len(lines), 6, lines)
        self.assertEqual(sum(f"vlan {self.web.vlan}" in line and "echo request" in line for line in lines), 3, "as they came from the trunk")
        self.assertEqual(sum("vlan" not in line and "echo reply" in line for line in lines), 3, "as they came from the task")
        with open(path, "rb") as file:
            content = file.read()
        self.assertIn(b"ingress " + self.web.eni.encode() + b": passed, to task", content)

    def test_capture_of_drops_into_a_pipe_and_out_with_tags(self):
        path = os.path.join(self.lab.directory, "drops.pcapng")
        with open(path, "wb") as file:
            process = self.start("capture", "--point", "drop", "-n", "2", "-w", "-", stdout=file)
            self.assert_ping(self.lab.client, self.web.address, count=2)
            for _ in range(2):
                self.assertEqual(self.lab.tcp_probe(self.lab.client, self.web.address, CLOSED, 0.2), "silence")
            self.finish(process)
        lines = self.tcpdump(path)
        self.assertEqual(len(lines), 2, lines)
        self.assertTrue(all(f".{CLOSED}: Flags [S]" in line for line in lines), lines)
        with open(path, "rb") as file:
            self.assertIn(b"security_group_ingress (admit)", file.read())
        # The same packets from the file: what would become of them.
        done = self.lab.trunkctl("-o", "jsonl", "explain", "--pcap", path)
        self.assertEqual(done.returncode, 1, done.stderr)
        self.assertEqual([json.loads(line)["verdict"] for line in done.stdout.splitlines()], ["security_group_ingress"] * 2)
        process = self.start("capture", "--point", "out", "--direction", "egress", "--duration", "1", "-w", path)
        self.assert_ping(self.lab.client, self.web.address, count=2)
        self.finish(process)
        lines = [line for line in self.tcpdump(path) if "echo" in line]
        self.assertEqual(len(lines), 2, lines)
        self.assertTrue(all(f"vlan {self.web.vlan}" in line and "echo reply" in line for line in lines), lines)

    def test_a_fragment_that_waits_is_seen_and_explained(self):
        self.put_groups(group(tcp(OPEN), egress=[{"IpProtocol": "udp", "FromPort": 5000, "ToPort": 5000, "IpRanges": ANYWHERE}]))
        datagram = udp(4000, 5000, bytes(40))

        def piece(begin, more):
            return ethernet(ROUTER_MAC, self.web.mac, 0x0800, ipv4(self.web.address, CLIENT, 17, datagram[begin:begin + 24], flags=(0x2000 if more else 0) | begin // 8))

        first, later = piece(0, True), piece(24, False)
        trace = self.start("-o", "jsonl", "trace", "--task", self.web.eni, "--filter", "udp", "-n", "4", "--timeout", "10")
        path = os.path.join(self.lab.directory, "in.pcapng")
        capture = self.start("capture", "--task", self.web.eni, "--filter", "udp", "-n", "3", "-w", path)
        drops = self.start("-o", "jsonl", "trace", "--drops", "--task", self.web.eni, "-n", "1", "--timeout", "10")
        # Alone it is dropped; the second time its first one comes behind it, in the same turn.
        with self.expect_drops(self.web.eni, fragment_orphan=1):
            send_frames(self.web.netns, "eth0", [later])
        send_frames(self.web.netns, "eth0", [later, first])
        seen = [json.loads(line) for line in self.finish(trace)[0].splitlines()]
        self.assertEqual([(packet["point"], packet["verdict"]) for packet in seen if packet["point"] == "in"], [("in", "held"), ("in", "held"), ("in", "none")])
        self.assertEqual([(packet["verdict"], packet["route"]) for packet in seen if packet["point"] == "again"], [("none", "trunk")])
        self.finish(capture)
        self.assertEqual(len(self.tcpdump(path)), 3)
        dropped, = [json.loads(line) for line in self.finish(drops)[0].splitlines()]
        self.assertEqual((dropped["verdict"], dropped["refused_by"]), ("fragment_orphan", "fragments"))
        # The same from the file: no piece is anybody's defect, and the file is read to its end.
        done = self.lab.trunkctl("-o", "jsonl", "explain", "--from", self.web.eni, "--pcap", path)
        self.assertEqual(done.returncode, 1, done.stderr)
        said = [json.loads(line) for line in done.stdout.splitlines()]
        self.assertEqual(len(said), 3)
        self.assertEqual((said[2]["packet"], said[2]["verdict"]), (3, "none"))
        self.assertIn(said[0]["verdict"], ("held", "none"))
        self.assertIn("3 packet(s) explained", done.stderr)

    def test_explain_of_lying_files(self):
        def pcap(*records):
            content = struct.pack("<IHHIIII", 0xa1b2c3d4, 2, 4, 0, 0, 262144, 1)
            for frame, wire in records:
                content += struct.pack("<IIII", 1, 2, len(frame), wire) + frame
            path = os.path.join(self.lab.directory, "lying.pcap")
            with open(path, "wb") as file:
                file.write(content)
            return path

        syn = ethernet(self.web.mac, ROUTER_MAC, 0x0800, ipv4(CLIENT, self.web.address, 6, tcp_segment(4000, OPEN, 2, CLIENT, self.web.address)), [(0x8100, self.web.vlan)])
        path = pcap((syn, 0xfffffff0), (b"", 0), (syn + bytes(60001), 60059), (syn[:20], len(syn)), (syn, len(syn)))
        done = self.lab.trunkctl("-o", "jsonl", "explain", "--pcap", path)
        self.assertEqual(done.returncode, 1, done.stderr)
        said = [json.loads(line) for line in done.stdout.splitlines()]
        self.assertEqual([line.get("verdict", "skipped") for line in said], ["none", "skipped", "skipped", "skipped", "none"])
        self.assertIn("within its headers", said[3]["skipped"])
        self.assertIn("2 packet(s) explained (2 would be delivered, 0 would not), 3 skipped", done.stderr)

    def test_a_client_that_is_gone_takes_its_capture_along(self):
        for _ in range(6):  # more than there may be at a time
            process = self.start("capture", "-w", "/dev/null")
            process.kill()
            process.wait(timeout=10)
        for _ in range(4):
            self.start("capture", "-w", "/dev/null")
        def fifth():
            return self.lab.trunkctl("capture", "-n", "1", "-w", "/dev/null", timeout=10)
        done = fifth()
        self.assertEqual((done.returncode, "no more at a time" in done.stderr), (1, True), done.stderr)
        self.assert_ping(self.lab.client, self.web.address, count=3)
        self.assertEqual(self.lab.trunkctl("capture", "--filter", "vlan 101", "-w", "/dev/null").returncode, 1)
        self.assertEqual(self.lab.trunkctl("capture", "--task", "nobody", "-w", "/dev/null").returncode, 3)
        self.assertEqual(self.lab.trunkctl("capture").returncode, 2)


class TwoWorkers(Packets):
    """The same with the task at another worker than the one that receives from the trunk."""

    @property
    def overrides(self):
        return two_workers(self.lab)

    def setUp(self):
        super().setUp()
        self.first, self.web = self.web, self.attach(2)
        self.assertEqual(self.lab.task(self.web.eni)["worker"], 1)

    def test_explain_and_flows_ask_both_workers(self):
        self.assert_ping(self.lab.client, self.first.address, count=1)
        self.assert_ping(self.lab.client, self.web.address, count=1)
        flows = self.lab.ctl("flow", "list", "--proto", "icmp")["flows"]
        self.assertEqual(sorted((flow["eni"], flow["worker"]) for flow in flows), [(self.first.eni, 0), (self.web.eni, 1)])
        conversation = Conversation(self, self.web)
        answer = self.call("explain", {"source": CLIENT, "source_port": conversation.port, "destination": self.web.address, "destination_port": OPEN, "tcp_flags": "A"})
        self.assertEqual((answer["connections"], answer["delivered"]), (1, True))
        self.put_groups(group(tcp(OPEN), PING, egress=[tcp(OPEN)]))
        between = self.call("explain", {"from": self.first.eni, "to": self.web.eni, "destination_port": OPEN})
        self.assertEqual([half["eni"] for half in between["halves"]], [self.first.eni, self.web.eni])
        self.assertTrue(between["delivered"])
        self.assertEqual(self.lab.ctl("flow", "flush", "--proto", "icmp"), {"flushed": 2})


if __name__ == "__main__":
    main("tcpdump")
