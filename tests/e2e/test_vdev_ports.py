#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
"""Ports of devargs (kind vdev) that do not become one: the driver makes another port than it should, none, two, or
fails after it has made one. Each is refused in words, nothing is left of it, and the next attach and the neighbour know
nothing of it."""
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from harness import PING, LabTest, Ping, group, main  # noqa: E402

REFUSED = {
    "net_ring7,nodeaction=x:0:CREATE": "driver",
    "net_ring7,nodeaction=x:0:CREATE,nodeaction=y:0:CREATE": "driver",
    "net_ring7,nodeaction=x:0:ATTACH": "driver",
    "net_ring7,internal=0x1": "internal",
    "net_vhost7,queues=1": "driver",
    "net_vhost7,iface=/tmp/trunkline-no-such,queues=2000": "driver",
    "net_pcap7,rx_pcap=/nowhere": "driver",
    "net_af_packet7,iface=nothing": "driver",
    "net_memif7,role=nothing": "driver",
    "no_such_driver0": "driver",
    "0000:ff:1f.7": "0000:ff:1f.7",
}


class TestVdevPorts(LabTest):
    def setUp(self):
        super().setUp()
        self.put_groups(group(PING))
        self.neighbour = self.attach(2)

    def attach_vdev(self, number, devargs):
        return self.lab.rpc("task.attach", {**self.task(number).facts(), "port": {"kind": "vdev", "devargs": devargs}})

    def assert_attaches(self, number, devargs):
        answer = self.attach_vdev(number, devargs)
        self.assertIn("result", answer, answer)
        self.assert_state(self.task(number), "active")
        self.call("task.detach", {"task": self.task(number).eni})

    def test_what_makes_no_port_leaves_nothing(self):
        fds, active = self.engine_fds(), len(self.lab.ctl("task", "list")["tasks"])
        with Ping(self.lab, self.lab.client, self.neighbour.address) as ping:
            for devargs, says in REFUSED.items():
                with self.subTest(devargs):
                    for _ in range(2):
                        answer = self.attach_vdev(4, devargs)
                        self.assertIn("error", answer, answer)
                        self.assertIn(says, answer["error"]["message"])
                        self.assertIsNone(self.lab.engine.poll(), "the engine ended")
                    # Whoever asks next asks all ports for their names.
                    self.assert_attaches(4, "net_null8")
                    self.assert_attaches(5, "net_ring8")
                    self.assert_attaches(5, "net_ring9,nodeaction=net_ring9:0:CREATE")
            tap = self.attach(3)
            self.assert_ping(self.lab.client, tap.address)
            self.call("task.detach", {"task": tap.eni})
            sent, received = ping.finish()
        self.assertEqual(sent, received, "the neighbour's pings lost")
        self.assertEqual(len(self.lab.ctl("task", "list")["tasks"]), active)
        self.assertEqual(self.engine_fds(), fds)

    def test_a_device_that_another_port_has(self):
        self.assertIn("result", self.attach_vdev(4, "net_null8"))
        answer = self.attach_vdev(5, "net_null8,size=100")
        self.assertIn("is taken by " + self.task(4).eni, answer["error"]["message"])
        self.assert_state(self.task(4), "active")
        self.call("task.detach", {"task": self.task(4).eni})
        self.assert_attaches(5, "net_null8,size=100")

    def test_it_is_tried_again_and_leaves_nothing_each_time(self):
        """A state with such a port survives; the engine tries it every few seconds."""
        before = self.lab.rpc("state.get")["result"]
        for _ in range(50):
            self.assertIn("error", self.attach_vdev(4, "net_ring7,nodeaction=x:0:CREATE"))
        self.assertEqual(self.lab.rpc("state.get")["result"], before)
        self.assert_attaches(4, "net_ring7")


if __name__ == "__main__":
    main()
