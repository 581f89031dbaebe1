#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
"""Ports: a host full of taps, churn beside traffic, limits, the other kinds of port, a reader that stopped, a namespace that
went away, and a trunk without VLANs. T-20, T-21, T-24, T-26, T-27, T-30, T-31, T-42."""
import os
import socket
import stat
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from harness import (CLIENT, PING, ROUTER_MAC, Connection, LabTest, Ping, echo, ethernet, group, ipv4, main, tcp)  # noqa: E402
from lab import Download, Nginx, send_frames  # noqa: E402

TASKS = 120


class TestManyTaps(LabTest):
    overrides = {"limits": {"endpoints": TASKS}}

    def attach_all(self, connection, numbers):
        began = time.monotonic()
        for number in numbers:
            answer = connection.call("task.attach", self.task(number).facts())
            self.assertTrue(answer.get("result", {}).get("changed"), answer)
        return time.monotonic() - began

    def test_120_taps_come_and_go_and_come_again(self):
        self.put_groups(group(tcp(80), PING))
        numbers = range(1, TASKS + 1)
        for number in numbers:
            self.lab.add_netns(self.task(number).name)
        self.tell_vpc()
        self.put_groups(group(PING))  # the second change after the start opens the journal's log
        self.put_groups(group(tcp(80), PING))
        # A worker that has polled a tap keeps one descriptor for all that come after.
        self.call("task.attach", self.task(1).facts())
        self.call("task.detach", {"task": self.task(1).eni})
        fds = self.engine_fds()
        buffers = []
        for turn in (1, 2):
            with Connection(self.lab.socket) as connection:
                took = self.attach_all(connection, numbers)
            self.note(f"round {turn}: {TASKS} attached in {took:.1f} s ({TASKS / took:.0f}/s)")
            endpoints = self.lab.ctl("status")["endpoints"]
            self.assertEqual((endpoints["active"], endpoints["waiting"], endpoints["failed"]), (TASKS, 0, 0))
            for number in numbers:
                task = self.task(number)
                seen = self.lab.interface(task.netns)
                self.assertIsNotNone(seen, task.name)
                self.assertEqual((seen["mac"], seen["addresses"], seen["default"], seen["mtu"]),
                                 (task.mac, [task.address + "/24"], "10.0.0.1", 9001), task.name)
            for number in (1, 2, 17, 60, 99, 119, TASKS):
                self.assert_ping(self.lab.client, self.task(number).address, 3)
                self.assertEqual(self.lab.tcp_probe(self.lab.client, self.task(number).address, 22), "silence")
            # No number is left, and all are given back.
            self.lab.assert_accounted()
            began = time.monotonic()
            with Connection(self.lab.socket) as connection:
                for number in numbers:
                    answer = connection.call("task.detach", {"task": self.task(number).eni})
                    self.assertTrue(answer.get("result", {}).get("changed"), answer)
            took = time.monotonic() - began
            self.note(f"round {turn}: {TASKS} detached in {took:.1f} s ({TASKS / took:.0f}/s)")
            self.assertEqual(self.lab.ctl("status")["endpoints"]["active"], 0)
            self.assertEqual([port["name"] for port in self.lab.stats()["ports"]], ["trunk"])
            for number in numbers:
                self.assertIsNone(self.lab.interface(self.task(number).netns), f"t{number}")
            buffers.append(self.lab.ctl("status")["memory"]["mbufs_used"])
            self.assertEqual(self.engine_fds(), fds)
        self.assertLessEqual(abs(buffers[1] - buffers[0]), 256, f"buffers in use after each round: {buffers}")

    def test_churn_beside_traffic(self):
        """20 others come and go five times; one ENI's ping, 100 a second, and its download lose nothing."""
        self.put_groups(group(tcp(80), PING))
        one = self.attach(1)
        others = range(2, 22)
        for number in others:
            self.lab.add_netns(self.task(number).name)
        self.tell_vpc()
        server = Nginx(self.lab, one.netns, "a page")
        before = self.lab.fabric_counters()
        with Ping(self.lab, self.lab.client, one.address) as ping, Download(self.lab.client, one.address) as download, \
                Connection(self.lab.socket) as connection:
            began = time.monotonic()
            for _ in range(5):
                self.attach_all(connection, others)
                for number in others:
                    self.assertIn("result", connection.call("task.detach", {"task": self.task(number).eni}))
            took = time.monotonic() - began
            self.assertTrue(download.finish(20), download.error)
            sent, received = ping.finish()
        self.assertEqual(download.sha256, server.slow_sha256)
        self.assertEqual(sent, received, "pings lost")
        self.assertGreater(sent, 100)
        after = self.lab.fabric_counters()
        self.assertEqual({name: after[name] - before[name] for name in ("spoofed", "unknown_vlan", "malformed") if name in after},
                         {name: 0 for name in ("spoofed", "unknown_vlan", "malformed") if name in after})
        self.assertEqual(self.lab.drops(one.eni), {})
        self.note(f"100 attaches and 100 detaches in {took:.1f} s; {sent} pings, none lost; 4 MB unharmed")


class TestLimits(LabTest):
    overrides = {"limits": {"endpoints": 3}}

    def test_fourth_of_three(self):
        self.put_groups(group(tcp(80), PING))
        for number in (1, 2, 3):
            self.attach(number)
        fourth = self.task(4)
        self.lab.add_netns(fourth.name)
        self.refused("task.attach", fourth.facts(), "port_limit", says="limits.endpoints is 3")
        self.refused("task.attach", fourth.facts(dry_run=True), "port_limit")
        self.assertIsNone(self.lab.interface(fourth.netns))
        for number in (1, 2, 3):
            self.assert_ping(self.lab.client, self.task(number).address, 3)
        self.call("task.detach", {"task": self.task(2).eni})
        self.attach(4)
        self.assert_ping(self.lab.client, fourth.address, 3)


class TestKinds(LabTest):
    def setUp(self):
        super().setUp()
        self.put_groups(group(tcp(80), PING))
        self.one = self.attach(1)

    def send_to(self, task, count):
        """Echo requests for a task, as the fabric sends them."""
        send_frames(self.lab.vpc, "fabric0", [
            ethernet(task.mac, ROUTER_MAC, 0x0800, ipv4(CLIENT, task.address, 1, echo(b"x" * 40, number)),
                     [(0x8100, task.vlan)]) for number in range(1, count + 1)])

    def test_virtio_user_without_vhost_net(self):
        if os.path.exists("/dev/vhost-net"):
            self.skipTest("this host has /dev/vhost-net, so the port would be made")
        two = self.task(2)
        self.lab.add_netns(two.name)
        self.refused("task.attach", two.facts(port={"kind": "virtio-user", "netns": two.netns, "ifname": "eth0"}),
                     "vhost_net_missing", "/port/kind", "modprobe vhost_net")
        self.assertIsNone(self.lab.interface(two.netns))
        self.attach(2)  # as the refusal advises

    def test_vdev_as_a_sink(self):
        two = self.task(2)
        self.tell_vpc()
        self.call("task.attach", two.facts(port={"kind": "vdev", "devargs": "net_null7,no-rx=1"}))
        self.assert_state(two, "active")
        self.send_to(two, 50)
        self.assertTrue(self.lab.wait_until(lambda: self.meters(two.eni)[1]["tx_packets"] == 50, 3), self.meters(two.eni))
        way_in, way_out = self.meters(two.eni)
        self.assertEqual((way_out["rx_packets"], way_out["drops"], way_in["rx_packets"]), (50, {}, 0))
        self.refused("task.attach", self.task(3).facts(port={"kind": "vdev", "devargs": "net_null7"}),
                     "duplicate_interface", "/port", two.eni)
        self.refused("task.attach", self.task(3).facts(port={"kind": "vdev", "devargs": "net_nothing9"}), "invalid_params",
                     "/port/devargs", "net_nothing9")
        self.call("task.detach", {"task": two.eni})
        # Its name is free again.
        self.call("task.attach", two.facts(port={"kind": "vdev", "devargs": "net_null7,no-rx=1"}))
        self.assert_ping(self.lab.client, self.one.address, 5)

    def test_vdev_that_floods(self):
        """net_null without no-rx makes frames of zeros as fast as they are taken: they are that port's, and nobody's harm."""
        two = self.task(2)
        self.tell_vpc()
        self.call("task.attach", two.facts(port={"kind": "vdev", "devargs": "net_null7"}))
        with Ping(self.lab, self.lab.client, self.one.address, 100) as ping:
            self.assertEqual(ping.wait(), (100, 100))
        way_in, _ = self.meters(two.eni)
        self.assertGreater(way_in["rx_packets"], 100000)
        self.assertEqual(way_in["tx_packets"], 0)
        self.note(f"{way_in['rx_packets']} frames dropped as {list(way_in['drops'])} meanwhile")
        self.call("task.detach", {"task": two.eni})

    def test_vhost_user_socket(self):
        two = self.task(2)
        self.tell_vpc()
        path = os.path.join(self.lab.directory, "vhost-user.sock")
        self.refused("task.attach", two.facts(port={"kind": "vhost-user", "socket": "/run/no/such/folder/a.sock"}),
                     "port_failed", "/port/socket", "/run/no/such/folder")
        self.call("task.attach", two.facts(port={"kind": "vhost-user", "socket": path, "client": False}))
        self.assertTrue(self.lab.wait_until(lambda: os.path.exists(path), 3), "no socket")
        self.assertTrue(stat.S_ISSOCK(os.stat(path).st_mode))
        # Nobody reads: what comes is dropped there, and counted there.
        self.send_to(two, 25)
        self.assertTrue(self.lab.wait_until(lambda: self.lab.drops(two.eni) == {"tx_full": 25}, 3), self.lab.drops(two.eni))
        # A peer that talks nonsense is thrown out.
        with socket.socket(socket.AF_UNIX) as peer:
            peer.settimeout(5)
            peer.connect(path)
            peer.sendall(b"\xff" * 300)
            try:
                self.assertEqual(peer.recv(100), b"")
            except ConnectionError:
                pass
        self.assert_ping(self.lab.client, self.one.address, 5)
        self.call("task.detach", {"task": two.eni})
        self.assertTrue(self.lab.wait_until(lambda: not os.path.exists(path), 3), "the socket is left behind")
        # By default the task listens and the engine connects, as often as it takes.
        self.call("task.attach", two.facts(port={"kind": "vhost-user", "socket": path}))
        with socket.socket(socket.AF_UNIX) as task:
            task.settimeout(5)
            task.bind(path)
            task.listen(1)
            task.accept()[0].close()
        self.call("task.detach", {"task": two.eni})

    def test_interface_down(self):
        """The task's interface is set down: what is for it is dropped at its port, as tx_full, and nobody else notices."""
        two = self.attach(2)
        self.assert_ping(self.lab.client, two.address, 2)
        self.lab.run("ip", "-n", two.netns, "link", "set", "eth0", "down")
        with Ping(self.lab, self.lab.client, self.one.address) as ping:
            with self.expect_drops(two.eni, tx_full=200):
                self.send_to(two, 200)
            time.sleep(0.3)
            sent, received = ping.finish()
        self.assertEqual(sent, received)
        self.assertEqual(self.lab.drops(self.one.eni), {})
        self.lab.run("ip", "-n", two.netns, "link", "set", "eth0", "up")
        self.lab.run("ip", "-n", two.netns, "route", "replace", "default", "via", "10.0.0.1")
        self.assert_ping(self.lab.client, two.address, 5)

    def test_netns_deleted_under_a_live_port(self):
        two = self.attach(2)
        fds = self.engine_fds()
        with Ping(self.lab, self.lab.client, self.one.address) as ping:
            for way in ("detach", "detach again", "state"):
                with self.subTest(way):
                    self.assert_ping(self.lab.client, two.address, 3)
                    self.lab.run("ip", "netns", "del", two.netns)
                    self.send_to(two, 20)
                    time.sleep(0.2)
                    self.assertIsNone(self.lab.engine.poll())
                    self.lab.assert_accounted()
                    self.assertTrue(self.call("task.detach", {"task": two.eni})["changed"])
                    self.assertFalse(self.call("task.detach", {"task": two.eni, "missing_ok": True})["changed"])
                    self.refused("task.attach", two.facts(), "netns_missing", "/port/netns")
                    two = self.attach(2)
            sent, received = ping.finish()
        self.assertEqual(sent, received)
        self.assertGreater(sent, 50)
        self.assertEqual(self.engine_fds(), fds)

    def test_attach_twice(self):
        before = self.lab.interface(self.one.netns)
        self.assertFalse(self.call("task.attach", self.one.facts())["changed"])
        self.assertEqual(self.lab.interface(self.one.netns), before)
        self.assert_ping(self.lab.client, self.one.address, 3)


class TestUntagged(LabTest):
    mode = "untagged"

    def test_two_tasks_told_by_mac_and_address(self):
        self.put_groups(group(tcp(80), PING))
        one, two = self.attach(1), self.attach(2)
        for task in (one, two):
            Nginx(self.lab, task.netns, task.name, ports=(80, 22))
            self.assertEqual(self.lab.http_get(self.lab.client, f"http://{task.address}/")[:2], (200, task.name + "\n"))
            with self.expect_drops(task.eni, security_group_ingress=1):
                self.assertEqual(self.lab.tcp_probe(self.lab.client, task.address, 22), "silence")
        self.assertEqual(self.lab.http_get(one.netns, f"http://{two.address}/")[:2], (200, two.name + "\n"))

        def frame(mac, address, tags=()):
            return ethernet(mac, ROUTER_MAC, 0x0800, ipv4(CLIENT, address, 1, echo(b"y" * 40)), tags)

        for what, where, reason, one_frame in (
                ("nobody's MAC", None, "unknown_eni", frame("0a:00:00:00:00:99", one.address)),
                ("a VLAN tag", None, "unknown_eni", frame(one.mac, one.address, [(0x8100, 101)])),
                ("the other's address", one, "dest_check", frame(one.mac, two.address)),
                ("nobody's address", one, "dest_check", frame(one.mac, "10.0.0.200"))):
            with self.subTest(what), self.expect_drops(where and where.eni, **{reason: 5}):
                send_frames(self.lab.vpc, "fabric0", [one_frame] * 5)
        # From inside, too.
        with self.expect_drops(one.eni, spoof_mac=3):
            send_frames(one.netns, "eth0", [ethernet(ROUTER_MAC, two.mac, 0x0800, ipv4(one.address, CLIENT, 1, echo(b"z")))] * 3)
        self.call("task.detach", {"task": two.eni})
        with self.expect_drops(None, unknown_eni=5):
            send_frames(self.lab.vpc, "fabric0", [frame(two.mac, two.address)] * 5)
        self.assertEqual(self.lab.http_get(self.lab.client, f"http://{one.address}/")[0], 200)


if __name__ == "__main__":
    main("nginx")
