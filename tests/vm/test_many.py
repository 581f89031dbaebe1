#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
"""A host full of tasks on virtio-user ports: each has a kernel thread of vhost, three rings and a tap of its own."""
import os
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from guest import PING, Connection, GuestTest, group, main, tcp  # noqa: E402

TASKS = 120


class TestMany(GuestTest):
    # Each port's receive ring holds rx_descriptors buffers.
    overrides = {"limits": {"endpoints": TASKS}, "eal": {"memory_mb": 512},
                 "buffers": {"count": 24576, "rx_descriptors": 128, "tx_descriptors": 128}}

    def test_120_virtio_user_ports(self):
        self.put_groups(group(PING))  # the second change after the start opens the journal's log
        self.put_groups(group(tcp(80), PING))
        tasks = [self.task(number) for number in range(1, TASKS + 1)]
        for task in tasks:
            self.lab.add_netns(task.name)
        self.tell_vpc()
        fds, resident, buffers = self.engine_fds(), self.resident_kb(), self.lab.ctl("status")["memory"]["mbufs_used"]
        with Connection(self.lab.socket, 60) as connection:
            began = time.monotonic()
            for task in tasks:
                answer = connection.call("task.attach", task.facts(port=self.port(task.number)))
                self.assertTrue(answer.get("result", {}).get("changed"), answer)
            took = time.monotonic() - began
            endpoints = self.lab.ctl("status")["endpoints"]
            self.assertEqual((endpoints["active"], endpoints["waiting"], endpoints["failed"]), (TASKS, 0, 0))
            used = self.lab.ctl("status")["memory"]["mbufs_used"] - buffers
            self.note(f"{TASKS} attached in {took:.1f} s ({TASKS / took:.0f}/s); a port: {(self.engine_fds() - fds) / TASKS:.0f} descriptors, "
                      f"{used / TASKS:.0f} buffers, {(self.resident_kb() - resident) / TASKS:.0f} KB resident beside them; worker {self.worker_share():.0%} "
                      "of a processor without traffic")
            one_more = self.task(TASKS + 1)
            self.lab.add_netns(one_more.name)
            self.refused("task.attach", one_more.facts(port=self.port(one_more.number)), "port_limit", says=f"limits.endpoints is {TASKS}")
            for number in (1, 2, 60, TASKS):
                self.assert_ping(self.lab.client, self.task(number).address, 3)
                with self.expect_drops(self.task(number).eni, 5, security_group_ingress=1):
                    self.assertEqual(self.lab.tcp_probe(self.lab.client, self.task(number).address, 22), "silence")
            began = time.monotonic()
            for task in tasks:
                answer = connection.call("task.detach", {"task": task.eni})
                self.assertTrue(answer.get("result", {}).get("changed"), answer)
            took = time.monotonic() - began
        self.note(f"{TASKS} detached in {took:.1f} s ({TASKS / took:.0f}/s)")
        self.assertEqual([port["name"] for port in self.lab.stats()["ports"]], ["trunk"])
        self.assertIsNone(self.lab.interface(tasks[0].netns))
        self.assertEqual(self.engine_fds(), fds)

    def resident_kb(self):
        with open(f"/proc/{self.lab.engine.pid}/status") as file:
            return next(int(line.split()[1]) for line in file if line.startswith("VmRSS:"))

    def worker_share(self, seconds=2):
        """Of a processor, by the worker's thread."""
        def ticks():
            folder = f"/proc/{self.lab.engine.pid}/task"
            for thread in os.listdir(folder):
                with open(f"{folder}/{thread}/stat") as file:
                    name, _, rest = file.read().partition("(")[2].rpartition(")")
                if "worker" in name:
                    return sum(int(field) for field in rest.split()[11:13])
            raise AssertionError("no thread of a worker")

        before, began = ticks(), time.monotonic()
        time.sleep(seconds)
        return (ticks() - before) / os.sysconf("SC_CLK_TCK") / (time.monotonic() - began)


if __name__ == "__main__":
    main("ethtool")
