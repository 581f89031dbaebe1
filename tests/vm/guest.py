# SPDX-License-Identifier: BSD-3-Clause
"""What the tests of the guest share: the test case of tests/e2e with the kernel as VPC and virtio-user ports."""
import json
import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(os.path.dirname(HERE), "e2e")]
from harness import (CLIENT, MTU, PING, ROUTER_MAC, Connection, LabTest, Ping, echo, ethernet, group, ipv4, main,  # noqa: E402,F401
                     tcp, two_workers)
from kernel_vpc import KernelVpc  # noqa: E402


class GuestTest(LabTest):
    """Tasks get a virtio-user port unless they ask for another."""

    laboratory = KernelVpc

    def port(self, number):
        return {"kind": "virtio-user", "netns": self.task(number).netns, "ifname": "eth0"}

    def attach(self, number, **facts):
        return super().attach(number, **{"port": self.port(number), **facts})

    def iperf3(self, netns, server, *words, seconds=1):
        """(bits a second, retransmits) of TCP between a namespace and a task with a server on port 5201."""
        child = self.lab.spawn(server.netns, "iperf3", "-s", "-1", "--forceflush", log="iperf3.log")
        self.assertTrue(self.lab.wait_until(lambda: self.lab.tail("iperf3.log").count("Server listening") > 0, 10))
        done = self.lab.exec(netns, "iperf3", "-c", server.address, "-t", str(seconds), "-J", *words, timeout=30)
        result = json.loads(done.stdout)
        self.assertNotIn("error", result)
        self.lab.end(child)
        os.unlink(self.lab.log_path("iperf3.log"))
        return result["end"]["sum_received"]["bits_per_second"], result["end"]["sum_sent"]["retransmits"]
