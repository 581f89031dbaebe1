#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
"""One ENI uses up what it may have, and nobody else notices: floods of SYNs both ways, of one-packet datagrams and of fragments.
What was established goes on, a neighbour's requests are answered, the table comes back to where it was by itself, the engine's log
has no line for a packet.

Run alone: python3 tests/e2e/test_exhaustion.py --build build   (as root)
"""
import os
import struct
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from harness import CLIENT, PING, ROUTER_MAC, LabTest, ethernet, group, ipv4, main, tcp, tcp_segment, udp  # noqa: E402
from lab import Download, HttpLoop, Nginx, send_frames  # noqa: E402

QUOTA = 500
FLOOD = 6000


class TestExhaustion(LabTest):
    overrides = {"limits": {"endpoints": 64, "connections": 16384, "connections_per_endpoint": QUOTA},
                 "conntrack": {"tcp_handshake_timeout_s": 5}}

    def setUp(self):
        super().setUp()
        # From the client alone, so that everything is tracked.
        self.put_groups(group(tcp(80, ranges=[{"CidrIp": f"{CLIENT}/32"}]), tcp(8080, ranges=[{"CidrIp": "10.0.0.0/8"}]), PING))
        self.greedy, self.other = self.attach(1), self.attach(2)
        for task in (self.greedy, self.other):
            Nginx(self.lab, task.netns, f"page of {task.name}", slow_rate="600k")

    def used(self):
        """The greedy ENI's connections."""
        return self.call("flow.list", {"task": self.greedy.eni, "limit": 1})["matched"]

    def log_lines(self):
        with open(self.lab.log_path("engine.log")) as file:
            return sum(1 for _ in file)

    def beside_traffic(self, flood):
        """Runs the flood; answers the greedy ENI's drops of it. Its own download and its neighbour's requests go on."""
        lines, before = self.log_lines(), self.lab.drops(self.greedy.eni)
        with Download(self.lab.client, self.greedy.address) as download, HttpLoop(self.lab.client, self.other.address) as requests:
            self.assertTrue(self.lab.wait_until(lambda: download.received > 100000 and len(requests.done) > 5, 10))
            began = time.monotonic()
            flood()
            took = time.monotonic() - began
            during = requests.done_since(began)
            self.assertTrue(self.lab.wait_until(lambda: requests.done_since(began) > during + 5, 10))
            self.assertTrue(download.finish(20), f"the download that was under way: {download.error}")
        self.assertEqual(requests.failed, [], "the neighbour's requests")
        self.note(f"flood of {took:.1f} s; {during} requests of the neighbour meanwhile, longest gap {requests.longest_gap() * 1000:.0f} ms")
        # Attaching and reading are told in the log, packets are not.
        self.assertLess(self.log_lines() - lines, 20)
        after = self.lab.drops(self.greedy.eni)
        return {reason: count - before.get(reason, 0) for reason, count in after.items() if count != before.get(reason, 0)}

    def out(self, payload):
        return ethernet(ROUTER_MAC, self.greedy.mac, 0x0800, payload)

    def send_all(self, frames):
        """From the greedy task, as fast as its interface's queue of 500 takes them: what its own kernel drops would be no flood of the engine."""
        at_once = 250
        for start in range(0, len(frames), at_once):
            part, before = frames[start:start + at_once], self.meters(self.greedy.eni)[0]["rx_packets"]
            send_frames(self.greedy.netns, "eth0", part)
            self.assertTrue(self.lab.wait_until(lambda: self.meters(self.greedy.eni)[0]["rx_packets"] >= before + len(part), 5), "the flood did not arrive")

    def recycled(self):
        return self.call("status")["connections"]["recycled"]

    def comes_back(self, seconds=25):
        self.assertTrue(self.lab.wait_until(lambda: self.used() < 50, seconds), f"{self.used()} connections are left")

    def test_syn_flood_of_the_task(self):
        frames = [self.out(ipv4(self.greedy.address, f"198.51.{n >> 8 & 255}.{n & 255}", 6, tcp_segment(1024 + n, 443, 2, self.greedy.address, CLIENT)))
                  for n in range(FLOOD)]
        before = self.recycled()
        drops = self.beside_traffic(lambda: self.send_all(frames))
        # Nobody confirms them, so they make room for each other within the quota; nothing is refused.
        self.assertEqual(drops, {})
        self.assertGreater(self.recycled() - before, FLOOD - 4 * QUOTA)
        self.assertLessEqual(self.used(), QUOTA + 50)
        self.comes_back()

    def test_syn_flood_towards_an_open_port(self):
        frames = [ethernet(self.greedy.mac, ROUTER_MAC, 0x0800,
                           ipv4(f"10.9.{n >> 8 & 255}.{n & 255}", self.greedy.address, 6, tcp_segment(1024 + n, 8080, 2, CLIENT, self.greedy.address)),
                           tags=[(0x8100, self.greedy.vlan)]) for n in range(FLOOD)]
        drops = self.beside_traffic(lambda: send_frames(self.lab.vpc, "fabric0", frames))
        self.assertLessEqual(self.used(), QUOTA + 200)
        # The closed port answers with RST, so most are over at once; the rest is unconfirmed. Either makes room. Its kernel works for each of them while the
        # worker writes it, which may cost the flooded task some.
        self.assertLessEqual(set(drops), {"cpu_allowance_exceeded"}, drops)
        self.comes_back(40)

    def test_one_packet_datagrams(self):
        frames = [self.out(ipv4(self.greedy.address, CLIENT, 17, udp(1024 + n, 9, b"x"))) for n in range(FLOOD)]
        before = self.recycled()
        drops = self.beside_traffic(lambda: self.send_all(frames))
        # The client's ICMP errors, if it sends any, have no rule.
        self.assertLessEqual(set(drops), {"security_group_ingress"}, drops)
        self.assertGreater(self.recycled() - before, FLOOD - 4 * QUOTA)
        self.comes_back(45)

    def test_fragments_without_their_first(self):
        def fragment(n):
            packet = bytearray(ipv4(self.greedy.address, CLIENT, 17, bytes(64), flags=0x2000 | 100))
            struct.pack_into("!H", packet, 4, n)
            return self.out(bytes(packet))

        drops = self.beside_traffic(lambda: self.send_all([fragment(n) for n in range(FLOOD)]))
        self.assertTrue(self.lab.wait_until(lambda: sum(self.lab.drops(self.greedy.eni).get(reason, 0) for reason in ("fragment_quota", "fragment_orphan")) >= FLOOD, 5),
                        drops)
        self.assertEqual(set(drops) - {"fragment_quota", "fragment_orphan"}, set())
        # The neighbour's own fragments pass meanwhile and after.
        done = self.lab.exec(self.other.netns, "ping", "-n", "-c", "3", "-i", "0.2", "-W", "1", "-s", "20000", "-M", "dont", self.greedy.address)
        self.assertIn(" 3 received", done.stdout)


if __name__ == "__main__":
    main()
