#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
"""Looking into the packet path of a running engine: the connections it has and the rule that let each in, what it says would
become of a packet, and the packets themselves; each compared with what the engine then does."""
import os
import socket
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from harness import CLIENT, GROUP, PING, LabTest, group, main, tcp  # noqa: E402
from lab import in_netns  # noqa: E402

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
                         ("icmp", "icmp type 8 from 0.0.0.0/0", 2, 2))
        self.assertEqual(len(self.flows()), 2)
        self.assertEqual(self.flows("--remote", "10.0.1.0/24", "--task", self.web.eni, "--port", str(OPEN), "--state", "established"), self.flows("--port", str(OPEN)))
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


if __name__ == "__main__":
    main()
