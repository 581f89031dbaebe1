#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Two tasks of one service as the targets of a real load balancer: haproxy marks a task up as soon as its ENI is live, a
task is drained before it is detached and nobody notices, and the flow log has the flows of both.

Run alone: python3 tests/e2e/test_targets.py --build build   (as root)
"""
import os
import socket
import sys
import time
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from harness import CLIENT, SUBNET_ID, LabTest, group, main, tcp  # noqa: E402
from lab.servers import Download, HttpLoop, Nginx  # noqa: E402

LOG_FORMAT = "${interface-id} ${srcaddr} ${dstaddr} ${srcport} ${dstport} ${packets} ${action} ${flow-direction} ${ecs-service-name} ${log-status}"


class Targets(LabTest):
    def setUp(self):
        super_overrides = self.overrides
        self.overrides = {**super_overrides, "flow_logs": [{
            "id": "fl-0000000a", "traffic_type": "ALL", "max_aggregation_interval": 60, "log_format": LOG_FORMAT,
            "destination": {"type": "stream", "path": "/run/trunkline-test-targets.log"}}]}
        if os.path.exists("/run/trunkline-test-targets.log"):
            os.unlink("/run/trunkline-test-targets.log")
        super().setUp()
        self.addCleanup(lambda: os.path.exists("/run/trunkline-test-targets.log") and os.unlink("/run/trunkline-test-targets.log"))
        # Only the load balancer may reach the targets.
        self.call("sg.put", {"document": {"SecurityGroups": [group(tcp(80, ranges=[{"CidrIp": f"{CLIENT}/32"}]))]}})
        self.proxy_socket = os.path.join(self.lab.directory, "haproxy.sock")
        path = os.path.join(self.lab.directory, "haproxy.cfg")
        slots = "\n".join(f"  server t{n} {self.task(n).address}:80 check inter 200ms fall 2 rise 1" for n in (1, 2))
        with open(path, "w") as file:
            file.write(f"global\n  stats socket {self.proxy_socket} mode 600 level admin\n"
                       "defaults\n  mode http\n  timeout connect 1s\n  timeout client 20s\n  timeout server 20s\n"
                       "  retries 2\n  option redispatch\n"
                       f"listen web\n  bind 127.0.0.1:8000\n  balance roundrobin\n  option httpchk GET /\n{slots}\n")
        for n in (1, 2):
            self.lab.add_netns(self.task(n).name)
            Nginx(self.lab, self.task(n).netns, f"page of t{n}")
        self.lab.spawn(self.lab.client, "haproxy", "-db", "-f", path, log="haproxy.log")
        self.assertTrue(self.lab.wait_until(lambda: os.path.exists(self.proxy_socket), 10), self.lab.tail("haproxy.log"))
        self.tell_vpc()

    def proxy(self, words):
        with socket.socket(socket.AF_UNIX) as control:
            control.settimeout(5)
            control.connect(self.proxy_socket)
            control.sendall(words.encode() + b"\n")
            said = b""
            while piece := control.recv(65536):
                said += piece
        return said.decode()

    def server(self, name, column):
        lines = self.proxy("show stat").splitlines()
        titles = lines[0].lstrip("# ").split(",")
        for line in lines[1:]:
            fields = dict(zip(titles, line.split(",")))
            if fields.get("pxname") == "web" and fields.get("svname") == name:
                return fields[column]
        raise AssertionError(f"haproxy knows no server {name}")

    def comes_up(self, number):
        """Attaches the task; how long after the answer the load balancer takes it for healthy."""
        task = self.task(number)
        self.call("event.submit", {"event": {"failures": [], "tasks": [{
            "taskArn": task.arn, "clusterArn": "arn:aws:ecs:us-west-2:123456789012:cluster/awsvpc-ecs-demo", "group": "service:web",
            "lastStatus": "RUNNING", "desiredStatus": "RUNNING", "version": 3, "containers": [],
            "attachments": [{"id": f"1789bcae-ddfb-4d10-8ebe-8ac87ddba{number:03d}", "type": "ElasticNetworkInterface", "status": "ATTACHED",
                             "details": [{"name": "subnetId", "value": SUBNET_ID}, {"name": "networkInterfaceId", "value": task.eni},
                                         {"name": "macAddress", "value": task.mac}, {"name": "privateIPv4Address", "value": task.address}]}]}]}})
        self.attach(number)
        answered = time.monotonic()
        self.assertTrue(self.lab.wait_until(lambda: self.server(f"t{number}", "status").startswith("UP"), 5),
                        f"t{number}: " + self.server(f"t{number}", "last_chk"))
        return time.monotonic() - answered

    def test_up_as_soon_as_live_drained_before_it_goes(self):
        self.assertTrue(self.lab.wait_until(lambda: self.server("t1", "status") == "DOWN", 5), "not attached, not healthy")
        for n in (1, 2):
            took = self.comes_up(n)
            self.note(f"t{n} is up {took * 1000:.0f} ms after the attach was answered (checks every 200 ms)")
            self.assertLess(took, 2)
        # Nobody but the load balancer.
        self.assertEqual(self.lab.tcp_probe(self.task(1).netns, self.task(2).address, 80), "silence")
        with HttpLoop(self.lab.client, "127.0.0.1:8000") as requests:
            self.proxy("set server web/t1 state drain")
            with Download(self.lab.client, "127.0.0.1:8000", "/slow") as download:
                self.assertTrue(self.lab.wait_until(lambda: download.received > 100000, 10))
                self.proxy("set server web/t1 state ready")
                # The task is told to stop: no new request, the one under way goes on.
                self.proxy("set server web/t2 state drain")
                drained = time.monotonic()
                self.assertTrue(download.finish(20), download.error)
                self.assertGreater(requests.done_since(drained), 10)
                self.assertTrue(self.lab.wait_until(lambda: self.server("t2", "scur") == "0", 5))
            self.call("task.detach", {"task": self.task(2).eni})
            detached = time.monotonic()
            self.assertTrue(self.lab.wait_until(lambda: requests.done_since(detached) > 20, 10))
            self.assertEqual(requests.failed, [], "nobody noticed")
        self.call("flow_log.flush", {})
        accepted = {1: 0, 2: 0}
        refused = 0

        def read():
            nonlocal refused
            if not os.path.exists("/run/trunkline-test-targets.log"):
                return False
            with open("/run/trunkline-test-targets.log") as file:
                lines = [line.split() for line in file if not line.startswith("interface-id")]
            for n in (1, 2):
                accepted[n] = sum(line[0] == self.task(n).eni and line[1] == CLIENT and line[4] == "80" and line[6:9] == ["ACCEPT", "ingress", "web"]
                                  for line in lines)
            refused = sum(line[0] == self.task(2).eni and line[1] == self.task(1).address and line[6] == "REJECT" for line in lines)
            return min(accepted.values()) > 0 and refused > 0
        self.assertTrue(self.lab.wait_until(read, 10), (accepted, refused, self.call("flow_log.list")))
        self.note(f"flows of the load balancer in the log: t1 {accepted[1]}, t2 {accepted[2]}; of the stranger, refused: {refused}")


if __name__ == "__main__":
    main()
