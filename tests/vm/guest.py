# SPDX-License-Identifier: BSD-3-Clause
"""What the tests of the guest share: the test case of tests/e2e with the kernel as VPC and virtio-user ports."""
import glob
import json
import os
import shutil
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(os.path.dirname(HERE), "e2e")]
from harness import (CLIENT, MTU, PING, ROUTER_MAC, Connection, LabTest, Ping, echo, ethernet, group, ipv4, main,  # noqa: E402,F401
                     tcp, two_workers)
from kernel_vpc import KernelVpc  # noqa: E402


class GuestTest(LabTest):
    """Tasks get a virtio-user port unless they ask for another. With `shares` the tests of a class have one laboratory and one engine after
    the other, since both take seconds to start here: what a test made, it is rid of in the end, and a test that failed takes them down."""

    laboratory = KernelVpc
    shares = False
    _shared = None

    def assert_ping(self, netns, address, count=20, interval=0.05):
        """Each of the first `count` requests is answered. ping by itself gives the last answer one second, which the emulator
        may take for it; so it goes on asking until they are there."""
        wanted = set(range(1, count + 1))
        with Ping(self.lab, netns, address, interval=interval) as ping:
            self.lab.wait_until(lambda: wanted <= ping.arrived(), 15)
            self.assertLessEqual(wanted, ping.arrived(), f"ping of {address}: unanswered")

    def setUp(self):
        if self._shared is None:
            super().setUp()
            type(self)._shared = self.lab if self.shares else None
            return
        self.began = time.monotonic()
        self.lab, self.tasks = self._shared, {}
        self.addCleanup(self._take_down)

    def _take_down(self):
        if not self.shares or self.lab.engine is None or self.has_failed():
            type(self)._shared = None
            super()._take_down()
            return
        for task in self.tasks.values():
            self.lab.rpc("task.detach", {"task": task.eni})
        self.lab.end_others()
        for folder in glob.glob(os.path.join(self.lab.directory, "nginx-*")):
            shutil.rmtree(folder)
        self.lab.fabric_enis([])
        for task in self.tasks.values():
            if os.path.exists(f"/run/netns/{task.netns}"):
                self.lab.run("ip", "netns", "del", task.netns)

    @classmethod
    def tearDownClass(cls):
        if cls._shared is not None:
            cls._shared.stop()
            cls._shared = None

    def port(self, number):
        return {"kind": "virtio-user", "netns": self.task(number).netns, "ifname": "eth0"}

    def attach(self, number, **facts):
        return super().attach(number, **{"port": self.port(number), **facts})

    def iperf3(self, netns, server, *words, seconds=1):
        """(bits a second, retransmits) of TCP between a namespace and a task with a server on port 5201."""
        child = self.lab.spawn(server.netns, "iperf3", "-s", "-1", "--forceflush", log="iperf3.log")
        listens = self.lab.wait_until(lambda: "Server listening" in self.lab.tail("iperf3.log") or child.poll() is not None, 60)
        self.assertTrue(listens and child.poll() is None, self.lab.tail("iperf3.log"))
        done = self.lab.exec(netns, "iperf3", "-c", server.address, "-t", str(seconds), "-J", *words, timeout=30)
        result = json.loads(done.stdout)
        self.assertNotIn("error", result)
        self.lab.end(child)
        os.unlink(self.lab.log_path("iperf3.log"))
        return result["end"]["sum_received"]["bits_per_second"], result["end"]["sum_sent"]["retransmits"]
