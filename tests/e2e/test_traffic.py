#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
"""Real programs through the engine: a port scan of all ports, iperf3, jumbo frames, wrk, and a load balancer with health
checks in front of two tasks."""
import csv
import io
import json
import os
import re
import socket
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from harness import CLIENT, MTU, PING, LabTest, group, main, tcp  # noqa: E402
from lab import Nginx, in_netns  # noqa: E402


def listens(netns, port):
    """Whether somebody in the namespace listens on the TCP port, on every address."""
    def look():
        tables = ""
        for name in ("tcp", "tcp6"):
            if os.path.exists(f"/proc/thread-self/net/{name}"):
                with open(f"/proc/thread-self/net/{name}") as file:
                    tables += file.read()
        return re.search(rf" 0+:{port:04X} 0+:0000 0A ", tables) is not None

    return in_netns(netns, look)


class TestScan(LabTest):
    def test_all_65535_ports(self):
        self.put_groups(group(tcp(80)))
        web1 = self.attach(1)
        Nginx(self.lab, web1.netns, "a page", ports=(80, 8080))
        self.assertEqual(self.lab.tcp_probe(web1.netns, web1.address, 8080), "open")  # somebody listens there
        self.assertEqual(self.lab.http_get(self.lab.client, f"http://{web1.address}/")[0], 200)
        before, began = self.meters(web1.eni)[1], time.monotonic()
        done = self.lab.exec(self.lab.client, "nmap", "-Pn", "-n", "-sS", "-p-", "--min-rate", "5000", "--max-retries", "1",
                             "-T5", "-oG", "-", web1.address, timeout=180)
        took = time.monotonic() - began
        self.assertEqual(done.returncode, 0, done.stderr)
        ports = re.search(r"Ports: (.*?)\t+Ignored State: (\w+) \((\d+)\)", done.stdout)
        self.assertIsNotNone(ports, done.stdout)
        self.assertEqual(ports[1].split("/")[:3], ["80", "open", "tcp"], done.stdout)
        self.assertEqual((ports[1].count("/open/"), ports[2], ports[3]), (1, "filtered", "65534"), done.stdout)
        self.lab.assert_accounted()
        after = self.meters(web1.eni)[1]
        dropped = after["drops"].get("security_group_ingress", 0) - before["drops"].get("security_group_ingress", 0)
        self.assertGreaterEqual(dropped, 65534)
        self.assertEqual(set(after["drops"]), {"security_group_ingress"})
        # No entry of the connection table was spent on what was refused: a few for curl and for nmap's port 80.
        self.assertLess(self.lab.ctl("status")["connections"]["used"], 50)
        self.note(f"65535 ports in {took:.0f} s: 80 open, 65534 filtered; {dropped} SYNs dropped as security_group_ingress")


class TestThroughput(LabTest):
    def server(self, netns, port=5201):
        process = self.lab.spawn(netns, "iperf3", "-s", "-p", str(port), log="iperf3-server.log")
        self.assertTrue(self.lab.wait_until(lambda: listens(netns, port), 5), self.lab.tail("iperf3-server.log"))
        return process

    def iperf(self, netns, address, *options):
        done = self.lab.exec(netns, "iperf3", "-c", address, "-t", "3", "-J", "--connect-timeout", "3000", *options, timeout=30)
        report = json.loads(done.stdout)
        self.assertNotIn("error", report)
        received = report["end"]["sum_received"]
        self.assertGreater(received["bytes"], 10 << 20)
        return received["bits_per_second"] / 1e9, report["end"]["sum_sent"].get("retransmits", 0)

    def setUp(self):
        super().setUp()
        self.put_groups(group(tcp(5201), PING))
        self.web1 = self.attach(1)

    def test_task_and_client_both_ways(self):
        self.server(self.web1.netns)
        before = self.meters(self.web1.eni)
        down, again_down = self.iperf(self.lab.client, self.web1.address)
        up, again_up = self.iperf(self.lab.client, self.web1.address, "-R")
        way_in, way_out = self.meters(self.web1.eni)
        self.assertGreater(way_in["tx_bytes"] - before[0]["tx_bytes"], 10 << 20)
        self.assertGreater(way_out["tx_bytes"] - before[1]["tx_bytes"], 10 << 20)
        # Frames of 9001 bytes were carried, not cut up: the mean is far above 1500.
        mean = (way_out["tx_bytes"] - before[1]["tx_bytes"]) / (way_out["tx_packets"] - before[1]["tx_packets"])
        self.assertEqual(self.lab.tcp_probe(self.lab.client, self.web1.address, 5202), "silence")
        self.note(f"client to task {down:.2f} Gbit/s ({again_down} sent again), task to client {up:.2f} Gbit/s ({again_up} "
                  f"sent again), {mean:.0f} bytes a packet towards the task")

    def test_from_a_task_that_may_connect_out(self):
        """The other way round: the server is outside, and the outbound rules decide."""
        self.server(self.lab.client)
        out, again = self.iperf(self.web1.netns, CLIENT)
        self.note(f"task to a server outside {out:.2f} Gbit/s ({again} sent again)")
        self.put_groups(group(tcp(5201), PING, egress=[tcp(443)]))
        with self.expect_drops(self.web1.eni, security_group_egress=1):
            self.assertEqual(self.lab.tcp_probe(self.web1.netns, CLIENT, 5201), "silence")

    def test_between_two_tasks(self):
        web2 = self.attach(2)
        self.server(web2.netns)
        trunk_before = self.meters(None)[1]["tx_packets"]
        rate, again = self.iperf(self.web1.netns, web2.address)
        self.assertLess(self.meters(None)[1]["tx_packets"] - trunk_before, 100, "it went round by the trunk")
        self.note(f"task to task {rate:.2f} Gbit/s ({again} sent again)")
        with self.expect_drops(web2.eni, security_group_ingress=1):
            self.assertEqual(self.lab.tcp_probe(self.web1.netns, web2.address, 5202), "silence")

    def ping_of_size(self, netns, address, size):
        return self.lab.exec(netns, "ping", "-n", "-c", "3", "-i", "0.05", "-W", "1", "-M", "do", "-s", str(size), address)

    def test_jumbo_frames(self):
        web2 = self.attach(2)
        most = MTU - 28
        self.assertEqual(most, 8973)
        for netns, address in ((self.lab.client, self.web1.address), (self.web1.netns, CLIENT), (self.web1.netns, web2.address)):
            done = self.ping_of_size(netns, address, most)
            self.assertIn(" 3 received", done.stdout, done.stdout + done.stderr)
            before = self.meters(self.web1.eni)
            done = self.ping_of_size(netns, address, most + 1)
            self.assertRegex(done.stdout + done.stderr, "[Mm]essage too long")
            self.assertIn(" 0 received", done.stdout)
            self.assertEqual(self.meters(self.web1.eni), before, "refused locally, so nothing came to the engine")

    def test_smaller_mtu_of_one_task(self):
        """A port of 1500: the sender is told so, and TCP copes."""
        small = self.attach(3, port={"kind": "tap", "netns": self.lab.netns("t3"), "ifname": "eth0", "mtu": 1500})
        self.assertIn(" 3 received", self.ping_of_size(self.lab.client, small.address, 1472).stdout)
        spoofed = self.lab.fabric_counters()["spoofed"]
        with self.expect_drops(small.eni, mtu_exceeded=1):
            done = self.lab.exec(self.lab.client, "ping", "-n", "-c", "1", "-W", "1", "-M", "do", "-s", "1473", small.address)
        spoofed_after = self.lab.fabric_counters()["spoofed"]
        with self.subTest("the VPC takes the error for what it is, not for a spoofed packet"):
            self.assertEqual(spoofed_after, spoofed)
        with self.subTest("the sender is told the MTU"):
            self.assertRegex(done.stdout + done.stderr, r"mtu ?= ?1500")
        self.server(small.netns)
        rate, _ = self.iperf(self.lab.client, small.address)
        self.note(f"client to a task with MTU 1500 {rate:.2f} Gbit/s")


class TestHttpLoad(LabTest):
    def test_wrk(self):
        self.put_groups(group(tcp(80)))
        web1 = self.attach(1)
        Nginx(self.lab, web1.netns, "a page")
        done = self.lab.exec(self.lab.client, "wrk", "-t", "1", "-c", "16", "-d", "3s", f"http://{web1.address}/", timeout=30)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertNotIn("Socket errors", done.stdout)
        self.assertNotIn("Non-2xx", done.stdout)
        rate = float(re.search(r"Requests/sec:\s+([\d.]+)", done.stdout)[1])
        self.assertGreater(rate, 500)
        self.assertEqual(self.lab.tcp_probe(self.lab.client, web1.address, 8081), "silence")
        # And a new connection for each request, the work of the connection table.
        done = self.lab.exec(self.lab.client, "wrk", "-t", "1", "-c", "16", "-d", "3s", "-H", "Connection: close",
                             f"http://{web1.address}/", timeout=30)
        self.assertNotIn("Socket errors", done.stdout)
        closing = float(re.search(r"Requests/sec:\s+([\d.]+)", done.stdout)[1])
        self.note(f"{rate:.0f} requests/s on 16 connections, {closing:.0f}/s with a connection each; no socket error; "
                  f"{self.lab.ctl('status')['connections']['used']} entries in the table")


class TestLoadBalancer(LabTest):
    def states(self):
        """{server: state} as haproxy has it."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(5)
            connection.connect(self.socket)
            connection.sendall(b"show stat\n")
            text = b""
            while piece := connection.recv(65536):
                text += piece
        rows = csv.DictReader(io.StringIO(text.decode().lstrip("# ")))
        return {row["svname"]: row["status"] for row in rows if row["pxname"] == "service" and row["svname"] != "BACKEND"}

    def pages(self, count):
        pages = {}
        for _ in range(count):
            status, body, complaint = self.lab.http_get(self.lab.client, "http://127.0.0.1:8000/")
            self.assertEqual(status, 200, complaint)
            pages[body.strip()] = pages.get(body.strip(), 0) + 1
        return pages

    def test_two_tasks_of_one_service(self):
        # Only the load balancer may come in, as behind an ALB.
        self.put_groups(group(tcp(80, ranges=[{"CidrIp": CLIENT + "/32"}])))
        tasks = [self.attach(1), self.attach(2)]
        for task in tasks:
            Nginx(self.lab, task.netns, task.name)
        self.lab.run("ip", "-n", self.lab.client, "link", "set", "lo", "up")
        self.socket = os.path.join(self.lab.directory, "haproxy.sock")
        config = os.path.join(self.lab.directory, "haproxy.cfg")
        with open(config, "w") as file:
            file.write(f"""global
  stats socket {self.socket} mode 600
  maxconn 100
defaults
  mode http
  timeout connect 500ms
  timeout client 5s
  timeout server 5s
  timeout check 500ms
  retries 2
  option redispatch
frontend front
  bind 127.0.0.1:8000
  default_backend service
backend service
  balance roundrobin
  option httpchk GET /
  default-server check inter 200ms fall 2 rise 1
""" + "".join(f"  server {task.name} {task.address}:80\n" for task in tasks))
        self.lab.spawn(self.lab.client, "haproxy", "-db", "-f", config, log="haproxy.log")
        self.assertTrue(self.lab.wait_until(lambda: os.path.exists(self.socket), 5), self.lab.tail("haproxy.log"))
        self.assertTrue(self.lab.wait_until(lambda: set(self.states().values()) == {"UP"}, 5), self.states())
        self.assertEqual(self.pages(20), {"t1": 10, "t2": 10})
        # From somewhere else in the VPC the same port is silent.
        self.assertEqual(self.lab.tcp_probe(tasks[0].netns, tasks[1].address, 80), "silence")

        self.call("task.detach", {"task": tasks[1].eni})
        detached = time.monotonic()
        first = self.pages(5)  # while it still believes in both: redispatched
        self.assertTrue(self.lab.wait_until(lambda: self.states()["t2"].startswith("DOWN"), 5), self.states())
        noticed = time.monotonic() - detached
        self.assertEqual(self.states()["t1"], "UP")
        self.assertEqual(set(first), {"t1"})
        self.assertEqual(self.pages(20), {"t1": 20})

        self.attach(2)  # the interface is a new one, nginx listens on every address
        self.assertTrue(self.lab.wait_until(lambda: set(self.states().values()) == {"UP"}, 5), self.states())
        self.assertEqual(self.pages(20), {"t1": 10, "t2": 10})
        self.note(f"DOWN {noticed:.1f} s after the detach, no request failed, UP again after the attach")


if __name__ == "__main__":
    main("nmap", "iperf3", "wrk", "haproxy", "nginx")
