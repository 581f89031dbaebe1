#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Real programs through the engine: nmap, wrk, iperf3, jumbo pings, haproxy with health checks, and 120 tasks at once.

Run alone: python3 tests/e2e/test_real.py --build build   (as root)
"""
import json
import os
import re
import subprocess
import sys
import time
import unittest

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from lab.lab import SUBNET, SUBNET_ID, Lab  # noqa: E402
from lab.servers import Nginx  # noqa: E402

BUILD = "build"


def group(group_id, ports, egress=True):
    anywhere = [{"CidrIp": "0.0.0.0/0"}]
    permissions = [{"IpProtocol": "icmp", "FromPort": 8, "ToPort": -1, "IpRanges": anywhere}]
    permissions += [{"IpProtocol": "tcp", "FromPort": p, "ToPort": p, "IpRanges": anywhere} for p in ports]
    return {"GroupId": group_id, "GroupName": group_id, "IpPermissions": permissions,
            "IpPermissionsEgress": [{"IpProtocol": "-1", "IpRanges": anywhere}] if egress else []}


def call(lab, method, params=None):
    answer = lab.rpc(method, params)
    if "error" in answer:
        raise AssertionError(answer["error"])
    return answer["result"]


class Task:
    def __init__(self, lab, number, name=None):
        self.eni = f"eni-{number:08x}"
        self.mac = f"0a:47:e4:00:{number >> 8:02x}:{number & 255:02x}"
        self.address = f"10.0.0.{10 + number}"
        self.vlan = 100 + number
        self.netns = lab.add_netns(name or f"t{number}")

    def fabric(self):
        return {"vlan": self.vlan, "mac": self.mac, "addresses": [self.address], "subnet": SUBNET}

    def attach(self, lab, group_id="sg-0000000a"):
        call(lab, "task.attach", {"eni": self.eni, "mac": self.mac, "addresses": [self.address], "subnet": SUBNET_ID,
                                "vlan": self.vlan, "groups": [group_id], "port": {"kind": "tap", "netns": self.netns}})


class RealPrograms(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.lab = Lab(BUILD)
        cls.lab.start()
        cls.addClassCleanup(cls.lab.stop)
        cls.lab.start_engine()
        cls.tasks = [Task(cls.lab, 1), Task(cls.lab, 2)]
        cls.lab.fabric_enis([task.fabric() for task in cls.tasks])
        call(cls.lab, "sg.put", {"document": {"SecurityGroups": [group("sg-0000000a", [80, 5201])]}})
        for task in cls.tasks:
            task.attach(cls.lab)
            Nginx(cls.lab, task.netns, f"page of {task.eni}", ports=(80, 8080))

    def tearDown(self):
        self.lab.assert_accounted()

    def run_in(self, netns, *words, timeout=60):
        return subprocess.run(["ip", "netns", "exec", netns, *words], text=True, capture_output=True, timeout=timeout)

    def test_nmap_finds_the_open_port_and_no_other(self):
        done = self.run_in(self.lab.client, "nmap", "-Pn", "-n", "-p-", "--min-rate", "8000", "--max-retries", "1", "-T5",
                           "-oG", "-", self.tasks[0].address, timeout=120)
        found = re.findall(r"(\d+)/(\w+)/tcp", done.stdout)
        self.assertEqual(sorted(port for port, state in found if state == "open"), ["80"], done.stdout + done.stderr)
        # 5201 is allowed and nobody listens: the task's own kernel says so. Everything else is silence.
        self.assertEqual([port for port, state in found if state == "closed"], ["5201"])
        self.assertRegex(done.stdout, r"Ignored State: filtered \(65533\)")

    def test_jumbo_frames_pass_and_larger_ones_do_not(self):
        for netns, address in ((self.lab.client, self.tasks[0].address), (self.tasks[0].netns, self.tasks[1].address)):
            done = self.run_in(netns, "ping", "-c", "3", "-i", "0.2", "-M", "do", "-s", "8973", address)
            self.assertIn(" 0% packet loss", done.stdout, done.stdout + done.stderr)
            done = self.run_in(netns, "ping", "-c", "1", "-W", "1", "-M", "do", "-s", "8974", address)
            self.assertNotIn(" 0% packet loss", done.stdout)

    def test_iperf3_both_ways_and_between_tasks(self):
        server = self.lab.spawn(self.tasks[0].netns, "iperf3", "-s", log="iperf3.log")
        time.sleep(0.5)
        try:
            for netns, words in ((self.lab.client, []), (self.lab.client, ["-R"]), (self.tasks[1].netns, [])):
                done = self.run_in(netns, "iperf3", "-c", self.tasks[0].address, "-t", "2", "-J", *words)
                result = json.loads(done.stdout)
                self.assertNotIn("error", result)
                rate = result["end"]["sum_received"]["bits_per_second"]
                print(f"iperf3 {'from ' + netns} {' '.join(words)}: {rate / 1e9:.2f} Gb/s")
                self.assertGreater(rate, 1e8)
        finally:
            self.lab.end(server)

    def test_wrk_without_an_error(self):
        done = self.run_in(self.lab.client, "wrk", "-t1", "-c32", "-d3s", f"http://{self.tasks[0].address}/")
        print(done.stdout)
        self.assertNotIn("Socket errors", done.stdout)
        self.assertNotIn("Non-2xx", done.stdout)
        self.assertGreater(float(re.search(r"Requests/sec:\s+([\d.]+)", done.stdout)[1]), 100)

    def test_haproxy_with_health_checks(self):
        servers = "\n".join(f"  server s{n} {task.address}:80 check inter 200ms fall 2 rise 2" for n, task in enumerate(self.tasks))
        path = os.path.join(self.lab.directory, "haproxy.cfg")
        with open(path, "w") as file:
            file.write("defaults\n  mode http\n  timeout connect 1s\n  timeout client 5s\n  timeout server 5s\n  retries 3\n"
                       "  option redispatch\nlisten web\n  bind 127.0.0.1:8000\n  balance roundrobin\n"
                       f"  option httpchk GET /\n{servers}\n")
        proxy = self.lab.spawn(self.lab.client, "haproxy", "-db", "-f", path, log="haproxy.log")
        try:
            self.assertTrue(self.lab.wait_until(lambda: self.lab.http_get(self.lab.client, "http://127.0.0.1:8000/", 2)[0], 10))

            def pages(count=8):
                answers = [self.lab.http_get(self.lab.client, "http://127.0.0.1:8000/", 5) for _ in range(count)]
                self.assertEqual({str(answer[0]) for answer in answers}, {"200"}, answers)
                return {answer[1].strip() for answer in answers}
            both = {f"page of {task.eni}" for task in self.tasks}
            self.assertTrue(self.lab.wait_until(lambda: pages(4) == both, 10), "both are up")
            call(self.lab, "task.detach", {"task": self.tasks[1].eni})
            self.assertTrue(self.lab.wait_until(lambda: pages() == {f"page of {self.tasks[0].eni}"}, 10), "one goes on")
        finally:
            self.lab.end(proxy)
            self.tasks[1].attach(self.lab)


class ManyTasks(unittest.TestCase):
    COUNT = 120

    def test_120_tasks_in_120_namespaces(self):
        lab = Lab(BUILD)
        self.addCleanup(lab.stop)
        lab.start()
        lab.start_engine(lab.engine_config(limits={"endpoints": self.COUNT}))
        call(lab, "sg.put", {"document": {"SecurityGroups": [group("sg-0000000a", [80])]}})
        tasks = [Task(lab, number + 1) for number in range(self.COUNT)]
        lab.fabric_enis([task.fabric() for task in tasks])
        started = time.time()
        for task in tasks:
            task.attach(lab)
        took = time.time() - started
        print(f"{self.COUNT} tasks attached in {took:.1f} s, {1000 * took / self.COUNT:.0f} ms each")
        self.assertEqual(lab.ctl("status")["endpoints"]["active"], self.COUNT)
        # One more is refused, by name, and changes nothing.
        extra = Task(lab, self.COUNT + 1)
        revision = lab.revision()
        with self.assertRaisesRegex(Exception, "port_limit"):
            lab.ctl("task", "attach", "--eni", extra.eni, "--mac", extra.mac, "--address", extra.address, "--subnet", SUBNET_ID,
                    "--vlan", str(extra.vlan), "--group", "sg-0000000a", "--netns", extra.netns)
        self.assertEqual(lab.revision(), revision)
        for task in (tasks[0], tasks[60], tasks[-1]):
            self.assertTrue(lab.ping(lab.client, task.address), task.address)
        # The first serves without a lost packet while others come and go.
        ping = subprocess.Popen(["ip", "netns", "exec", lab.client, "ping", "-q", "-i", "0.01", "-c", "300", tasks[0].address],
                                stdout=subprocess.PIPE, text=True)
        while ping.poll() is None:
            for task in tasks[40:50]:
                call(lab, "task.detach", {"task": task.eni})
            for task in tasks[40:50]:
                task.attach(lab)
        said = ping.stdout.read()
        self.assertIn("300 received", said, said)
        self.assertTrue(lab.ping(lab.client, tasks[45].address))
        lab.assert_accounted()
        started = time.time()
        for task in tasks:
            call(lab, "task.detach", {"task": task.eni})
        print(f"{self.COUNT} tasks detached in {time.time() - started:.1f} s")
        self.assertEqual(lab.ctl("status")["endpoints"]["active"], 0)
        self.assertIsNone(lab.interface(tasks[7].netns))


class UntaggedTrunk(unittest.TestCase):
    def test_tasks_are_told_by_mac_and_address(self):
        lab = Lab(BUILD)
        self.addCleanup(lab.stop)
        lab.trunk_mode = "untagged"
        lab.start()
        config = lab.engine_config()
        config["trunk"]["mode"] = "untagged"
        lab.start_engine(config)
        call(lab, "sg.put", {"document": {"SecurityGroups": [group("sg-0000000a", [80])]}})
        tasks = [Task(lab, 1), Task(lab, 2)]
        lab.fabric_enis([{k: v for k, v in task.fabric().items() if k != "vlan"} for task in tasks])
        for task in tasks:
            task.attach(lab)
            Nginx(lab, task.netns, f"page of {task.eni}")
        for task in tasks:
            status, body, _ = lab.http_get(lab.client, f"http://{task.address}/", 5)
            self.assertEqual((str(status), body.strip()), ("200", f"page of {task.eni}"))
            self.assertEqual(lab.tcp_probe(lab.client, task.address, 22), "silence")
        status, body, _ = lab.http_get(tasks[0].netns, f"http://{tasks[1].address}/", 5)
        self.assertEqual(body.strip(), f"page of {tasks[1].eni}")
        lab.assert_accounted()


if __name__ == "__main__":
    if "--build" in sys.argv:
        at = sys.argv.index("--build")
        BUILD = sys.argv[at + 1]
        del sys.argv[at:at + 2]
    unittest.main(verbosity=2)
