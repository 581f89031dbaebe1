#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
"""What a quiet engine costs: the CPU time of its worker with 120 taps that say nothing. The figure is printed.

net_tap can wake a worker; the lab's trunk (net_af_packet) cannot. So the ladder ends in long sleeps here, which is the dearer
of the two ends."""
import os
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from harness import PING, LabTest, group, in_netns, main  # noqa: E402
from lab.lab import _disable_ipv6  # noqa: E402

PORTS = 120
SECONDS = 5


class TestIdle(LabTest):
    overrides = {"limits": {"endpoints": 128}}

    def worker_seconds(self):
        """CPU time so far of the engine's worker threads."""
        tasks, spent = f"/proc/{self.lab.engine.pid}/task", []
        for thread in os.listdir(tasks):
            with open(f"{tasks}/{thread}/comm") as file:
                name = file.read()
            if "worker" in name:
                with open(f"{tasks}/{thread}/schedstat") as file:
                    spent.append(int(file.read().split()[0]) / 1e9)
        self.assertEqual(len(spent), 1, "worker threads")
        return spent[0]

    def measure(self):
        before, began = self.worker_seconds(), time.monotonic()
        time.sleep(SECONDS)
        return (self.worker_seconds() - before) / (time.monotonic() - began)

    def test_quiet_ports(self):
        netns = self.lab.add_netns("quiet")
        in_netns(netns, _disable_ipv6)  # no router solicitations
        self.put_groups(group(PING))
        for number in range(1, PORTS + 1):
            task = self.task(number)
            self.call("task.attach", task.facts(port={"kind": "tap", "netns": netns, "ifname": f"t{number}", "default_route": False}))
        self.tell_vpc()
        self.assertEqual(self.lab.ctl("status")["endpoints"]["active"], PORTS)
        time.sleep(1)
        share = self.measure()
        rung = self.lab.ctl("worker", "list")["workers"][0]["idle"]
        self.note(f"the worker took {share:.2%} of a core over {SECONDS} s with {PORTS} quiet ports; it was {rung}")
        self.assertLess(share, 0.05)
        self.assertEqual(rung, "sleeping_long")
        # And it is there when something comes.
        self.assertEqual(self.lab.exec(self.lab.client, "ping", "-n", "-c", "1", "-W", "1", self.task(1).address).returncode in (0, 1), True)


if __name__ == "__main__":
    main()
