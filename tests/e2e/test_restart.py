#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
"""The engine ends and begins: killed under load, stopped, started on a broken journal, twice, without memory, without a
trunk, with a config full of mistakes. T-01, T-02, T-07, T-11."""
import json
import os
import signal
import socket
import struct
import sys
import threading
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from harness import CLIENT, PING, LabTest, Ping, Witness, group, main, tcp  # noqa: E402
from lab import HttpLoop, Nginx, in_netns  # noqa: E402


class Listener(threading.Thread):
    """Accepts on a port that no rule opens, and counts."""

    def __init__(self, netns, port):
        super().__init__(daemon=True)
        self.accepted = 0
        self.stopping = threading.Event()
        self.socket = in_netns(netns, lambda: socket.create_server(("", port)))
        self.socket.settimeout(0.2)

    def run(self):
        while not self.stopping.is_set():
            try:
                self.socket.accept()[0].close()
                self.accepted += 1
            except OSError:
                pass

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.stopping.set()
        self.join(timeout=5)
        self.socket.close()


class Knocker(threading.Thread):
    """Tries that port all the while, many at a time."""

    def __init__(self, lab, address, port):
        super().__init__(daemon=True)
        self.netns, self.target = lab.client, (address, port)
        self.tries = self.entered = 0
        self.stopping = threading.Event()

    def run(self):
        from lab.netns import enter_netns
        enter_netns(self.netns)
        while not self.stopping.is_set():
            with socket.socket() as one:
                one.settimeout(0.01)
                self.tries += 1
                try:
                    one.connect(self.target)
                    self.entered += 1
                except OSError:
                    pass

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.stopping.set()
        self.join(timeout=5)


def to_port(port):
    """Frames with a TCP segment for this port."""
    def keep(frame):
        return frame[12:14] == b"\x08\x00" and frame[23] == 6 and frame[36:38] == struct.pack("!H", port)

    return keep


class TestRestart(LabTest):
    def setUp(self):
        super().setUp()
        self.put_groups(group(tcp(80)))
        self.put_groups(group(tcp(80), PING))
        self.one, self.two = self.attach(1), self.attach(2)

    def test_killed_five_times_under_load(self):
        one = self.one
        Nginx(self.lab, one.netns, "a page")
        before = [self.lab.interface(task.netns) for task in (one, self.two)]
        gaps, started = [], []
        with Listener(one.netns, 8080) as listener, Witness(one.netns, "eth0", to_port(8080)) as at_closed, \
                Witness(one.netns, "eth0", to_port(80)) as at_open, Knocker(self.lab, one.address, 8080) as knocker, \
                HttpLoop(self.lab.client, one.address) as loop:
            self.assertEqual(self.lab.tcp_probe(one.netns, one.address, 8080), "open")
            inside = 1
            self.assertTrue(self.lab.wait_until(lambda: len(loop.done) > 20, 5), loop.failed)
            for _ in range(5):
                killed = time.monotonic()
                self.lab.kill_engine(signal.SIGKILL)
                self.lab.start_engine()
                started.append(time.monotonic() - killed)
                self.assert_state(one, "active")
                self.assert_state(self.two, "active")
                self.assertEqual([self.lab.interface(task.netns) for task in (one, self.two)], before)
                self.assertTrue(self.lab.wait_until(lambda: loop.done_since(killed + started[-1]) > 20, 10), loop.failed[-3:])
                ends = [end for _, end in loop.done]
                last = max(end for end in ends if end <= killed)
                first = min(end for end in ends if end > last and end > killed)
                gaps.append(first - last)
                self.assertEqual(self.lab.http_get(self.lab.client, f"http://{one.address}/")[:2], (200, "a page\n"))
        self.assertEqual(listener.accepted, inside, "somebody came in by the closed port")
        self.assertEqual((len(at_closed.frames), knocker.entered), (0, 0), "a packet of the closed port passed")
        self.assertGreater(knocker.tries, 100)
        self.assertGreater(len(at_open.frames), 100)  # so the witness sees
        self.assertEqual(loop.failed, [])
        self.assertLess(max(gaps), 10)
        self.note(f"answering again {min(started):.1f} to {max(started):.1f} s after the kill; gaps in HTTP "
                  + ", ".join(f"{gap:.1f}" for gap in gaps) + f" s; {len(loop.done)} requests, none failed; "
                  f"{knocker.tries} knocks at the closed port, none passed")

    def test_gap_seen_by_ping(self):
        with Ping(self.lab, self.lab.client, self.one.address) as ping:
            time.sleep(1)
            self.lab.restart_engine()
            time.sleep(1)
            sent, received = ping.finish()
        self.assertGreater(received, 100)
        self.assertLess(sent - received, 300)
        self.note(f"kill -9 and start cost {sent - received} of {sent} pings at 10 ms each")

    def test_sigterm(self):
        before = self.lab.interface(self.one.netns)
        Nginx(self.lab, self.one.netns, "a page")
        with HttpLoop(self.lab.client, self.one.address) as loop:
            self.lab.wait_until(lambda: len(loop.done) > 20, 5)
            for number in (signal.SIGTERM, signal.SIGINT):
                began = time.monotonic()
                self.assertEqual(self.lab.kill_engine(number, 10), 0, self.lab.tail("engine.log"))
                took = time.monotonic() - began
                self.assertLess(took, 5)
                self.assertFalse(os.path.exists(self.lab.socket), "the socket is left behind")
                self.assertEqual(self.lab.interface(self.one.netns), before)
                shown = json.loads(self.lab.exec(self.one.netns, "ip", "-j", "link", "show", "eth0").stdout)[0]
                self.assertIn("UP", shown["flags"])
                self.assertFalse(self.lab.ping(self.lab.client, self.one.address))
                self.lab.start_engine()
                began = time.monotonic()
                self.assertTrue(self.lab.wait_until(lambda: loop.done_since(began) > 10, 10), loop.failed[-3:])
                self.note(f"{signal.Signals(number).name}: exit 0 after {took:.2f} s")
        self.assertEqual(loop.failed, [])
        self.assertEqual(self.lab.interface(self.one.netns), before)


class TestJournal(LabTest):
    def setUp(self):
        super().setUp()
        self.put_groups(group(tcp(80)))
        self.one = self.attach(1)
        self.journal = self.lab.ctl("status")["state"]["journal"]
        self.before = self.lab.interface(self.one.netns)
        Nginx(self.lab, self.one.netns, "a page")

    def damage(self, path, how):
        with open(path, "rb") as file:
            whole = file.read()
        with open(path, "wb") as file:
            file.write(how(whole))

    def serves(self):
        return self.lab.http_get(self.lab.client, f"http://{self.one.address}/", 2)[0] == 200

    def test_truncated_the_generation_before_is_taken(self):
        ways = {"cut in half": lambda text: text[:len(text) // 2], "empty": lambda text: b"",
                "one bit": lambda text: text[:200] + bytes([text[200] ^ 1]) + text[201:],
                "garbage": lambda text: os.urandom(len(text))}
        for number, (what, how) in enumerate(ways.items()):
            with self.subTest(what):
                self.put_groups(group(tcp(80), tcp(9000 + number), PING))
                self.assertTrue(self.lab.ping(self.lab.client, self.one.address))
                good = self.put_groups(group(tcp(80), tcp(9000 + number)))["revision"]  # in the log, which is whole
                self.lab.kill_engine(signal.SIGKILL)
                self.damage(self.journal, how)
                self.lab.start_engine()
                status = self.lab.ctl("status")
                self.assertEqual(status["revision"], good)
                self.assertIsNotNone(status["state"]["quarantined"])
                self.assertTrue(os.path.exists(status["state"]["quarantined"]))
                self.assertTrue(self.serves())
                self.assertEqual(self.lab.interface(self.one.netns), self.before)
                with self.expect_drops(self.one.eni, security_group_ingress=1):
                    self.assertFalse(self.lab.ping(self.lab.client, self.one.address))

    def test_both_generations_are_garbage(self):
        self.lab.kill_engine(signal.SIGKILL)
        for path in (self.journal, self.journal + ".previous"):
            self.damage(path, lambda text: b"{" * 5000)
        self.lab.start_engine()
        status = self.lab.ctl("status")
        self.assertIsNotNone(status["state"]["quarantined"])
        self.assertEqual(status["endpoints"]["active"], 0)
        self.assertTrue(status["state"]["durable"])
        self.assertIn(status["state"]["quarantined"], self.lab.trunkctl("status").stdout)
        with self.expect_drops(None, unknown_eni=1):  # deny all
            self.assertEqual(self.lab.tcp_probe(self.lab.client, self.one.address, 80), "silence")
        # Told anew, the task's old interface is adopted.
        self.put_groups(group(tcp(80)))
        self.attach(1)
        self.assertEqual(self.lab.interface(self.one.netns), self.before)
        self.assertTrue(self.serves())
        self.assertEqual(len([name for name in os.listdir(os.path.dirname(self.journal)) if ".bad-" in name]), 2)
        self.lab.restart_engine()
        self.assertIsNone(self.lab.ctl("status")["state"]["quarantined"])
        self.assertTrue(self.serves())

    def test_namespace_that_is_gone_fails_alone(self):
        two = self.attach(2)
        self.lab.kill_engine(signal.SIGKILL)
        self.lab.run("ip", "netns", "del", two.netns)
        self.lab.start_engine()
        self.assert_state(two, "failed")
        self.assertIn(two.netns, self.lab.task(two.eni)["reason"])
        self.assertFalse(self.lab.ctl("status")["healthy"])
        self.assertTrue(self.serves())
        self.lab.add_netns("t2")  # it comes back, and is tried again by itself
        self.assertTrue(self.lab.wait_until(lambda: self.lab.task(two.eni)["state"] == "active", 6))
        self.assertTrue(self.lab.ctl("status")["healthy"])


class TestRefusesToStart(LabTest):
    starts_engine = False

    def run_engine(self, config, *more, text=None):
        """(exit code, what it said, seconds)"""
        path = os.path.join(self.lab.directory, "another.json")
        if text is None:
            self.lab.write_engine_config(config, path)
        else:
            with open(path, "w") as file:
                file.write(text)
        began = time.monotonic()
        done = self.lab.exec(self.lab.instance, self.lab.binaries["trunklined"], "--config", path, *more, timeout=30)
        return done.returncode, done.stderr + done.stdout, time.monotonic() - began

    def own(self, **sections):
        """A config that has nothing in common with the running engine's but the trunk."""
        return self.lab.engine_config(**{"state_dir": os.path.join(self.lab.directory, "state2"),
                                         "control": {"socket": os.path.join(self.lab.directory, "second.sock")},
                                         "eal": {"file_prefix": f"tl2-{self.lab.id}"}, **sections})

    def assert_last_line(self, said, *words):
        last = said.strip().splitlines()[-1]
        for word in words:
            self.assertIn(word, last)

    def test_not_enough_hugepages(self):
        code, said, took = self.run_engine(self.own(eal={"memory_mb": 400000}))
        self.assertEqual(code, 1, said)
        self.assert_last_line(said, "400000 MB wanted", "eal.memory_mb", "MB free", "nr_hugepages")
        self.assertLess(took, 3)
        self.note(f"refused in {took:.2f} s")
        # The limit itself is met: what is there is enough.
        self.lab.start_engine()

    def test_trunk_that_is_not_there(self):
        for device in ("net_af_packet0,iface=nosuch0", "0000:99:00.0", "net_nonsense0"):
            with self.subTest(device):
                code, said, took = self.run_engine(self.own(trunk={"device": device}))
                self.assertEqual(code, 1, said)
                self.assert_last_line(said, "the trunk cannot be opened", device.split(",")[0], "trunk.device")
                self.assertLess(took, 10)
                self.assertFalse(os.path.exists(os.path.join(self.lab.directory, "second.sock")))
        self.lab.start_engine()

    def test_second_engine(self):
        self.lab.start_engine()
        self.put_groups(group(tcp(80), PING))
        one = self.attach(1)
        with Ping(self.lab, self.lab.client, one.address) as ping:
            code, said, took = self.run_engine(self.own(state_dir=os.path.join(self.lab.directory, "state")))
            self.assertEqual(code, 1, said)
            self.assert_last_line(said, "another engine", f"pid {self.lab.engine.pid}", "state directory")
            self.assertLess(took, 3)
            sent, received = ping.finish()
        self.assertEqual(sent, received, "the first engine lost packets")
        # Another state directory, the same socket: the first one goes on, and keeps its socket.
        code, said, _ = self.run_engine(self.own(control={"socket": self.lab.socket}))
        self.assertEqual(code, 1, said)
        self.assert_last_line(said, self.lab.socket)
        self.assertTrue(self.lab.answers())
        self.assert_state(one, "active")
        self.assert_ping(self.lab.client, one.address, 10)
        # A socket that nobody listens on is replaced.
        self.lab.kill_engine(signal.SIGKILL)
        self.assertTrue(os.path.exists(self.lab.socket))
        self.lab.start_engine()
        self.assert_ping(self.lab.client, one.address, 10)

    def test_bad_config(self):
        bad = self.own(trunk={"mode": "tripled", "mtu": 70000}, eal={"worker_lcores": []}, limits={"endpoints": 0})
        bad["nonsense"] = 1
        bad["subnets"] = [{"id": "subnet-c070009b", "cidr": "10.0.0.0/33"}]
        for more in ((), ("--check-config",)):
            code, said, took = self.run_engine(bad, *more)
            self.assertEqual(code, 2, said)
            for pointer in ("/trunk/mode", "/trunk/mtu", "/eal/worker_lcores", "/limits/endpoints", "/nonsense", "/subnets/0/cidr"):
                self.assertIn(f"{pointer}: ", said)
            self.assert_last_line(said, "6 problem(s)")
            self.assertLess(took, 3)
        for text, word in (("{", "another.json"), ("", "another.json"), ("[]", "object"), ('{"version":1}', "/trunk"),
                           ('{"version":2,"trunk":{"device":"net_null0"}}', "/version")):
            code, said, _ = self.run_engine(None, text=text)
            self.assertEqual(code, 2, (text, said))
            self.assertIn(word, said)
        code, said, _ = self.run_engine(self.own(), "--check-config")
        self.assertEqual(code, 0, said)
        self.assertTrue(said.strip().endswith(": ok"), said)
        self.assertFalse(os.path.exists(os.path.join(self.lab.directory, "state2")), "a check has made something")
        done = self.lab.exec(self.lab.instance, self.lab.binaries["trunklined"], "--config", "/no/such/file")
        self.assertEqual(done.returncode, 2)
        self.assertIn("/no/such/file", done.stderr)
        done = self.lab.exec(self.lab.instance, self.lab.binaries["trunklined"], "--confog", "x")
        self.assertEqual(done.returncode, 2)


if __name__ == "__main__":
    main("nginx")
