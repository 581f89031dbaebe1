#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
"""Task ports as production has them, virtio-user on /dev/vhost-net, with the kernel's own VLAN devices at the other end of
the trunk."""
import os
import signal
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from guest import CLIENT, GuestTest, PING, Ping, group, main, tcp  # noqa: E402
from lab import Download, HttpLoop, Nginx  # noqa: E402

NO_EGRESS = "sg-00000000"


class TestVhost(GuestTest):
    shares = True

    def setUp(self):
        super().setUp()
        self.put_groups(group(tcp(80), tcp(5201), PING), group(PING, egress=[], group_id=NO_EGRESS))
        self.one = self.attach(1)

    def test_traffic_and_its_refusals(self):
        one, two = self.one, self.attach(2)
        Nginx(self.lab, one.netns, "a page", ports=(80, 8080))
        for netns in (self.lab.client, two.netns):
            self.assert_ping(netns, one.address, 5)
            self.assertEqual(self.lab.http_get(netns, f"http://{one.address}/")[:2], (200, "a page\n"))
            with self.expect_drops(one.eni, 5, security_group_ingress=1):
                self.assertEqual(self.lab.tcp_probe(netns, one.address, 8080), "silence")
        self.assertEqual(self.lab.tcp_probe(one.netns, one.address, 8080), "open")  # so it was the group that refused
        self.assert_ping(one.netns, CLIENT, 5)
        # Jumbo frames, whole.
        for netns, address in ((self.lab.client, one.address), (one.netns, CLIENT), (two.netns, one.address)):
            done = self.lab.exec(netns, "ping", "-n", "-c", "3", "-i", "0.1", "-s", "8973", "-M", "do", address)
            self.assertIn("3 received", done.stdout)
        # Nothing out: its own connections are refused, answers are not.
        three = self.attach(3, groups=[NO_EGRESS])
        self.assert_ping(self.lab.client, three.address, 5)
        with self.expect_drops(three.eni, 5, security_group_egress=1):
            self.assertEqual(self.lab.tcp_probe(three.netns, one.address, 80), "silence")

    def test_iperf3_both_ways(self):
        two = self.attach(2)
        for where, netns in (("the fabric", self.lab.client), ("a task", two.netns)):
            for way, words in (("in", ()), ("out", ("-R",))):
                rate, retransmits = self.iperf3(netns, self.one, *words)
                self.assertGreater(rate, 1e6)
                self.note(f"{way}, with {where}: {rate / 1e6:.0f} Mbit/s, {retransmits} retransmits")

    def test_attach_and_detach_under_traffic(self):
        server = Nginx(self.lab, self.one.netns, "a page", slow_rate="400k")
        with Ping(self.lab, self.lab.client, self.one.address, interval=0.05) as ping, \
                Download(self.lab.client, self.one.address) as download:
            self.assertTrue(self.lab.wait_until(lambda: download.received > 0, 10), download.error)
            for _ in range(3):
                two = self.attach(2)
                self.assert_ping(self.lab.client, two.address, 2)
                self.call("task.detach", {"task": two.eni})
                self.assertIsNone(self.lab.interface(two.netns))
            self.assertTrue(download.finish(30), download.error)
            sent, received = ping.finish()
        self.assertEqual(download.sha256, server.slow_sha256)
        self.assertEqual(sent, received, "pings lost")
        self.assertGreater(sent, 50)
        self.assertEqual(self.lab.drops(self.one.eni), {})
        self.note(f"three times attached and detached; {sent} pings, none lost; 4 MB unharmed")

    def test_killed_and_started_again(self):
        two = self.attach(2)
        server = Nginx(self.lab, self.one.netns, "a page", ports=(80, 8080))
        before = [self.lab.interface(task.netns) for task in (self.one, two)]
        self.assertEqual(before[0]["default"], "10.0.0.1")
        with HttpLoop(two.netns, self.one.address, timeout=30) as loop, Download(self.lab.client, self.one.address, timeout=60) as download:
            self.assertTrue(self.lab.wait_until(lambda: len(loop.done) > 3 and download.received > 0, 20), loop.failed)
            killed = time.monotonic()
            self.lab.kill_engine(signal.SIGKILL)
            self.assertEqual([self.lab.interface(task.netns) for task in (self.one, two)], before)
            self.assertFalse(self.lab.ping(self.lab.client, self.one.address))
            self.lab.start_engine()
            again = time.monotonic()
            self.assertEqual([self.lab.interface(task.netns) for task in (self.one, two)], before)
            self.assertTrue(self.lab.wait_until(lambda: loop.done_since(again) > 3, 30), loop.failed[-3:])
            self.assertTrue(download.finish(60), download.error)
        self.assertEqual(download.sha256, server.slow_sha256)
        # Meanwhile nobody answered ARP. What began after the first answer is not to fail.
        answered = min(end for began, end in loop.done if began >= again)
        self.assertEqual([what for when, what in loop.failed if when > answered], [])
        with self.expect_drops(self.one.eni, 5, security_group_ingress=1):
            self.assertEqual(self.lab.tcp_probe(self.lab.client, self.one.address, 8080), "silence")
        self.note(f"ready again {again - killed:.1f} s after the kill; the longest gap in HTTP {loop.longest_gap():.1f} s; a download went on")

    def test_beside_a_tap(self):
        two = self.attach(2, port={**self.port(2), "kind": "tap"})
        Nginx(self.lab, two.netns, "of the tap")
        self.assert_ping(self.one.netns, two.address, 5)
        self.assert_ping(two.netns, self.one.address, 5)
        self.assertEqual(self.lab.http_get(self.one.netns, f"http://{two.address}/")[:2], (200, "of the tap\n"))
        with self.expect_drops(two.eni, 5, security_group_ingress=1):
            self.assertEqual(self.lab.tcp_probe(self.one.netns, two.address, 8080), "silence")
        # The same task on the other kind of port: the interface is made anew, and is as it was.
        for kind in ("virtio-user", "tap"):
            self.call("task.attach", two.facts(port={**self.port(2), "kind": kind}))
            self.assert_state(two, "active")
            self.assertIn(kind, self.lab.task(two.eni)["port"])
            self.assert_ping(self.one.netns, two.address, 5)
            self.assertEqual(self.lab.http_get(self.lab.client, f"http://{two.address}/")[:2], (200, "of the tap\n"))

    def test_without_the_device(self):
        two = self.task(2)
        self.lab.add_netns(two.name)
        os.rename("/dev/vhost-net", "/dev/vhost-net.away")
        try:
            self.refused("task.attach", two.facts(port=self.port(2)), "vhost_net_missing", "/port/kind", "modprobe vhost_net")
        finally:
            os.rename("/dev/vhost-net.away", "/dev/vhost-net")
        self.assertIsNone(self.lab.interface(two.netns))
        self.assert_ping(self.lab.client, self.attach(2).address, 3)


if __name__ == "__main__":
    main("ethtool", "iperf3", "nginx")
