#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
"""Task ports as production has them, virtio-user on /dev/vhost-net, with the kernel's own VLAN devices at the other end of
the trunk. Runs in the guest (vm.py); the laboratory and the words are those of tests/e2e."""
import json
import os
import re
import signal
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(os.path.dirname(HERE), "e2e")]
from harness import CLIENT, PING, LabTest, Ping, group, main, tcp  # noqa: E402
from kernel_vpc import KernelVpc  # noqa: E402
from lab import Download, HttpLoop, Nginx  # noqa: E402


class GuestTest(LabTest):
    """Tasks get a virtio-user port unless they ask for another."""

    laboratory = KernelVpc
    kind = "virtio-user"

    def attach(self, number, **facts):
        return super().attach(number, **{"port": self.port(number), **facts})

    def port(self, number):
        return {"kind": self.kind, "netns": self.task(number).netns, "ifname": "eth0"}


class TestVhost(GuestTest):
    def test_ping_both_ways(self):
        self.put_groups(group(tcp(80), PING))
        one = self.attach(1)
        self.assert_ping(self.lab.client, one.address)
        self.assert_ping(one.netns, CLIENT)


if __name__ == "__main__":
    main("ethtool", "iperf3", "nginx", "sysctl")
