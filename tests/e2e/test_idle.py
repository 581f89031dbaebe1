#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
"""What a quiet engine costs: the CPU time of its workers with 120 taps that say nothing. The figures are printed.

A tap can wake a worker, the lab's trunk (net_af_packet) cannot: who polls the trunk sleeps long, and a second worker, who has
taps only, blocks."""
import os
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from harness import CLIENT, PING, ROUTER_MAC, LabTest, ethernet, group, in_netns, ipv4, main, two_workers, udp  # noqa: E402
from lab import send_frames  # noqa: E402
from lab.lab import _disable_ipv6  # noqa: E402

PORTS = 120
SECONDS = 5


class IdleTest(LabTest):
    def seconds_by_lcore(self):
        """CPU time so far of the engine's worker threads."""
        tasks, spent = f"/proc/{self.lab.engine.pid}/task", {}
        for thread in os.listdir(tasks):
            with open(f"{tasks}/{thread}/comm") as file:
                name = file.read().strip()
            if "worker" in name:
                with open(f"{tasks}/{thread}/schedstat") as file:
                    spent[int(name.rpartition("-")[2])] = int(file.read().split()[0]) / 1e9
        return spent

    def measure(self, expected):
        """{lcore: share of a core} while nothing happens, with these rungs of the ladder."""
        netns = self.lab.add_netns("quiet")
        in_netns(netns, _disable_ipv6)  # no router solicitations
        self.put_groups(group(PING))
        for number in range(1, PORTS + 1):
            self.call("task.attach", self.task(number).facts(
                port={"kind": "tap", "netns": netns, "ifname": f"t{number}", "default_route": False}))
        self.tell_vpc()
        self.assertEqual(self.lab.ctl("status")["endpoints"]["active"], PORTS)
        rungs = lambda: [worker["idle"] for worker in self.lab.ctl("worker", "list")["workers"]]  # noqa: E731
        self.assertTrue(self.lab.wait_until(lambda: rungs() == expected, 5), rungs())
        before, began = self.seconds_by_lcore(), time.monotonic()
        time.sleep(SECONDS)
        after, took = self.seconds_by_lcore(), time.monotonic() - began
        self.assertEqual(rungs(), expected)
        shares = {lcore: (after[lcore] - before[lcore]) / took for lcore in sorted(after)}
        self.note(f"{PORTS} quiet ports, {SECONDS} s: " + ", ".join(
            f"worker on lcore {lcore} {share:.2%} of a core ({rung})" for (lcore, share), rung in zip(shares.items(), expected)))
        self.assertEqual(len(shares), len(expected))
        # And they are there when something comes.
        for number in (1, 2):
            before = self.meters(self.task(number).eni)[1]["tx_packets"]
            self.lab.ping(self.lab.client, self.task(number).address, 0.2)  # no route back: nobody answers
            self.assertEqual(self.meters(self.task(number).eni)[1]["tx_packets"], before + 1)
        # Each way: a tap that speaks is heard, whatever the rung, and whoever polls it.
        for number in (1, 2, PORTS - 1, PORTS):
            task = self.task(number)
            self.assertTrue(self.lab.wait_until(lambda: rungs() == expected, 5), rungs())
            before = self.meters(task.eni)[0]["rx_packets"]
            send_frames(netns, f"t{number}", [ethernet(ROUTER_MAC, task.mac, 0x0800, ipv4(task.address, CLIENT, 17, udp(1, 9, b"x")))])
            self.assertTrue(self.lab.wait_until(lambda: self.meters(task.eni)[0]["rx_packets"] == before + 1, 1), f"t{number} was not heard")
        return shares


class TestOneWorker(IdleTest):
    overrides = {"limits": {"endpoints": PORTS}}

    def test_sleeps_long_with_a_trunk_that_cannot_wake_it(self):
        self.assertLess(max(self.measure(["sleeping_long"]).values()), 0.05)


class TestTwoWorkers(IdleTest):
    @property
    def overrides(self):
        return {"limits": {"endpoints": PORTS}, **two_workers(self.lab)}

    def test_blocks_with_taps_only(self):
        shares = list(self.measure(["sleeping_long", "blocked"]).values())
        self.assertLess(shares[0], 0.05)
        self.assertLess(shares[1], 0.01)


if __name__ == "__main__":
    main()
