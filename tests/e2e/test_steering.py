#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
"""Steering, as an operator sees it: what `steering list` and `status` say where the trunk's device cannot be told anything, and a
trunk on a tap of several queues, whose driver makes the kernel's flower filters of rules.

A kernel without flower, multiq and skbedit (act) shows the other half of the second: rules that are refused one by one, traffic
that is handed over as ever, and the driver's words for it."""
import os
import subprocess
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from harness import CLIENT, MTU, PING, LabTest, Ping, group, main, two_workers  # noqa: E402


def has_flower(lab):
    """Whether a tap's queue can be chosen by a filter: asked of a tap of the test's own, the way the driver does it."""
    netns = lab.add_netns("flower")
    tc = ["tc", "-n", netns]
    lab.run("ip", "-n", netns, "tuntap", "add", "dev", "t0", "mode", "tap", "multi_queue")
    lab.run("ip", "-n", netns, "link", "set", "t0", "up")
    for words in (["qdisc", "add", "dev", "t0", "root", "handle", "1:", "multiq"],
                  ["filter", "add", "dev", "t0", "parent", "1:", "protocol", "802.1Q", "flower", "vlan_id", "5", "action", "skbedit", "queue_mapping", "0"]):
        if subprocess.run([*tc, *words], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=20).returncode != 0:
            return False
    return True


class SteeringTest(LabTest):
    def setUp(self):
        super().setUp()
        self.put_groups(group(PING))

    @property
    def overrides(self):
        return two_workers(self.lab)

    def steering(self):
        return self.lab.ctl("steering", "list")

    def of(self, task):
        return next(each for each in self.steering()["endpoints"] if each["eni"] == task.eni)

    def handed_in(self):
        return sum(worker["handed_in"] for worker in self.lab.ctl("worker", "list")["workers"])

    def assert_all_in_software(self, why):
        answer = self.steering()
        self.assertFalse(answer["steering"]["active"])
        self.assertIn(why, answer["steering"]["why"])
        self.assertEqual(answer["steering"]["rules"], 0)
        for each in answer["endpoints"]:
            self.assertEqual((each["hardware"], each["rules"], each["pattern"]), ("no", 0, None))
            self.assertIn(why, each["why"])
        self.assertIn(f"steering     in software: {why}", self.lab.trunkctl("status").stdout)
        self.assertTrue(self.lab.trunkctl("steering", "list").stdout.endswith(f"\nin software: {answer['steering']['why']}\n"))


class TestNothingToSteer(SteeringTest):
    def test_a_trunk_of_one_queue(self):
        first, second = self.attach(1), self.attach(2)
        self.assert_all_in_software("nothing to steer: the trunk has one queue")
        self.assertEqual([each["worker"] for each in self.steering()["endpoints"]], [0, 1])
        self.assertEqual(self.lab.ctl("steering", "resync"), {"rules": 0})
        for task in (first, second):
            self.assert_ping(self.lab.client, task.address)


class TestOneWorker(SteeringTest):
    overrides = {}

    def test_one_worker(self):
        self.attach(1)
        self.assert_all_in_software("nothing to steer: there is one worker")


class TestSwitchedOff(SteeringTest):
    @property
    def overrides(self):
        return {**two_workers(self.lab), "trunk": {"steering": "off"}}

    def test_switched_off(self):
        self.attach(1)
        self.assert_all_in_software("switched off (trunk.steering)")
        self.assertEqual(self.steering()["steering"]["mode"], "off")


class TestTapTrunk(SteeringTest):
    """The trunk is a tap with a queue for each worker, behind a bridge to the VPC."""

    starts_engine = False

    def setUp(self):
        LabTest.setUp(self)
        self.flower = has_flower(self.lab)
        self.note(f"the kernel has flower for taps: {self.flower}")
        ip = ["ip", "-n", self.lab.instance]
        for words in (["link", "set", "trunk0", "down"], ["link", "set", "trunk0", "name", "uplink0"],
                      ["tuntap", "add", "dev", "trunk0", "mode", "tap", "multi_queue"], ["link", "add", "bridge0", "type", "bridge"],
                      *[["link", "set", name, "mtu", str(MTU), "master", "bridge0"] for name in ("uplink0", "trunk0")],
                      *[["link", "set", name, "up"] for name in ("uplink0", "trunk0", "bridge0")]):
            self.lab.run(*ip, *words)
        two = two_workers(self.lab)
        self.lab.start_engine(self.lab.engine_config(**two, trunk={"device": "net_taptrunk,iface=trunk0,persist", "queues": 2}))
        self.put_groups(group(PING))

    def attach(self, number, **facts):
        """The kernel notices the carrier of the engine's tap when it likes, and the bridge forwards only then."""
        task = super().attach(number, **facts)
        self.lab.wait_until(lambda: self.lab.ping(self.lab.client, task.address), 10)
        return task

    def settled(self, task):
        """Its row, once nothing is under way for it any more."""
        self.lab.wait_until(lambda: self.of(task)["why"] != "not yet installed", 5)
        return self.of(task)

    def test_each_task_at_its_own_worker(self):
        first, second = self.attach(1), self.attach(2)
        rows = [self.settled(first), self.settled(second)]
        if not self.flower:
            for row in rows:
                self.assertEqual((row["hardware"], row["rules"], row["wanted"]), ("no", 0, 1), row)
                self.assertIn("net_tap: ", row["why"])
            for task in (first, second):  # the tap spreads flows by their hash: whichever queue that is, they arrive
                self.assert_ping(self.lab.client, task.address)
            return
        self.assertEqual([(row["hardware"], row["pattern"], row["queue"], row["rules"]) for row in rows],
                         [("yes", "vlan+mac+address", 0, 1), ("yes", "vlan+mac+address", 1, 1)], rows)
        self.assert_ping(self.lab.client, first.address)  # who asks for whom by ARP has been answered
        self.assert_ping(self.lab.client, second.address)
        before = self.handed_in()
        for task in (first, second):
            self.assert_ping(self.lab.client, task.address, 100, 0.01)
        # What is no packet for an address, such as ARP, is handed over still.
        self.assertLess(self.handed_in() - before, 20)

    def test_each_worker_blocks_on_its_own_queue(self):
        tasks = self.attach(1), self.attach(2)
        def rungs():
            return {worker["idle"] for worker in self.lab.ctl("worker", "list")["workers"]}

        for _ in range(3):
            for task in tasks:
                for netns, address in ((self.lab.client, task.address), (task.netns, CLIENT)):
                    self.assertTrue(self.lab.wait_until(lambda: rungs() == {"blocked"}, 15), rungs())
                    self.assertTrue(self.lab.ping(netns, address, 5))

    def test_a_move_under_traffic(self):
        task = self.attach(1)
        self.settled(task)
        count = 1200 if self.flower else 200  # a guest with that kernel is ten times slower
        with Ping(self.lab, self.lab.client, task.address, count, 0.02) as ping:
            for worker in (1, 0, 1):
                self.lab.ctl("worker", "move", task.eni, str(worker))
                self.lab.wait_until(lambda: not self.lab.ctl("task", "show", task.eni)["moving"], 5)
                if self.flower:
                    self.lab.wait_until(lambda: self.of(task)["queue"] == worker, 5)
                    self.assertEqual((self.of(task)["queue"], self.of(task)["hardware"]), (worker, "yes"))
            self.assertIsNone(ping.process.poll(), "there was traffic until the last move had settled")
            self.assertEqual(ping.wait(), (count, count))

    def test_detach_takes_the_rules_away(self):
        first, second = self.attach(1), self.attach(2)
        self.settled(second)
        self.call("task.detach", {"task": first.eni})
        self.lab.wait_until(lambda: self.steering()["steering"]["rules"] == (1 if self.flower else 0), 5)
        self.assertEqual(self.steering()["steering"]["rules"], 1 if self.flower else 0)
        self.lab.ctl("steering", "resync")
        self.settled(second)
        self.assertEqual(self.of(second)["hardware"], "yes" if self.flower else "no")
        self.assert_ping(self.lab.client, second.address)


if __name__ == "__main__":
    main("tc", "ping")
