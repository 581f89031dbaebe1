#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
"""Tasks that are DPDK programs: Debian's testpmd on the socket of a vhost-user port. What it may send and receive, what
happens when either side dies, and what it sees of the engine. T-37, T-38."""
import contextlib
import os
import re
import socket
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from harness import ANYWHERE, CLIENT, PING, ROUTER_MAC, LabTest, Ping, group, main, tcp  # noqa: E402
from lab import DpdkTask, in_netns  # noqa: E402

UDP_9 = {"IpProtocol": "udp", "FromPort": 9, "ToPort": 9, "IpRanges": ANYWHERE}
RECONNECT_SECONDS = 10  # the engine tries once a second; testpmd needs its time to start


class VhostUserTest(LabTest):
    def setUp(self):
        super().setUp()
        self.put_groups(group(PING, egress=[UDP_9]))

    def socket_of(self, number):
        return os.path.join(self.lab.directory, f"task{number}.sock")

    def attach_socket(self, number, **port):
        """An ENI whose port is a socket; nobody is there yet."""
        task = self.task(number)
        self.tell_vpc()
        self.call("task.attach", task.facts(port={"kind": "vhost-user", "socket": self.socket_of(number), **port}))
        self.assert_state(task, "active")
        return task

    @contextlib.contextmanager
    def program(self, task, source=None, to_port=9, **options):
        """testpmd as the task; it sends UDP to the client."""
        with DpdkTask(self.lab, self.socket_of(task.number), task.mac, gateway=ROUTER_MAC,
                      sends=(source or task.address, CLIENT, 5000 + task.number, to_port), **options) as program:
            yield program

    def is_up(self, task):
        """The engine and the program have shaken hands."""
        return self.call("task.show", {"task": task.eni})["link"] == "up"

    def wait_for_ping(self, task, seconds=RECONNECT_SECONDS):
        began = time.monotonic()
        self.assertTrue(self.lab.wait_until(lambda: self.lab.ping(self.lab.client, task.address), seconds), f"no answer from {task.address}")
        return time.monotonic() - began


class Listener:
    """A UDP socket of the client's."""

    def __init__(self, netns, port):
        def bind():
            made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            made.bind((CLIENT, port))
            return made

        self.socket = in_netns(netns, bind)
        self.socket.settimeout(1)

    def take(self, count):
        """Where that many datagrams came from; fewer if no more come."""
        sources = []
        with contextlib.suppress(TimeoutError):
            while len(sources) < count:
                sources.append(self.socket.recvfrom(2048)[1])
        return sources

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()


class TestTraffic(VhostUserTest):
    def test_a_dpdk_task_is_pinged_and_sends(self):
        task = self.attach_socket(1)
        with self.program(task) as program, Listener(self.lab.client, 9) as client:
            self.wait_for_ping(task)
            before = self.meters(task.eni)
            self.assert_ping(self.lab.client, task.address, 50)
            way_in, way_out = self.meters(task.eni)
            self.assertEqual((way_in["rx_packets"] - before[0]["rx_packets"], way_out["tx_packets"] - before[1]["tx_packets"]), (50, 50))
            program.send(32)
            self.assertEqual(client.take(32), [(task.address, 5001)] * 32)
            self.lab.wait_until(lambda: self.meters(task.eni)[0]["tx_packets"] == way_in["tx_packets"] + 32, 2)
            self.assertEqual(self.meters(task.eni)[0]["tx_packets"], way_in["tx_packets"] + 32)
            self.assertEqual(self.lab.drops(task.eni), {})

    def test_what_the_group_does_not_allow(self):
        task = self.attach_socket(1)
        with self.program(task, to_port=10) as program, Listener(self.lab.client, 10) as client:
            self.wait_for_ping(task)
            with self.expect_drops(task.eni, security_group_egress=32):
                program.send(32)
            with self.expect_drops(task.eni, security_group_ingress=1):
                self.assertEqual(self.lab.tcp_probe(self.lab.client, task.address, 22), "silence")
            self.assertEqual(client.take(1), [])
            self.put_groups(group(tcp(80), egress=[{**UDP_9, "ToPort": 10}]))
            program.send(8)
            self.assertEqual(len(client.take(8)), 8)
            with self.expect_drops(task.eni, security_group_ingress=1):
                self.assertFalse(self.lab.ping(self.lab.client, task.address))

    def test_what_is_not_its_own(self):
        task = self.attach_socket(1)
        with self.program(task, source="10.0.0.77") as program, Listener(self.lab.client, 9) as client:
            self.wait_for_ping(task)
            with self.expect_drops(task.eni, spoof_ip=32):
                program.send(32)
            self.assertEqual(client.take(1), [])
        with DpdkTask(self.lab, self.socket_of(1), "0a:47:e4:7a:2c:99", gateway=ROUTER_MAC, sends=(task.address, CLIENT, 5001, 9)) as program:
            self.assertTrue(self.lab.wait_until(lambda: self.is_up(task), RECONNECT_SECONDS))
            with self.expect_drops(task.eni, spoof_mac=8):
                program.send(8)


class TestReconnect(VhostUserTest):
    def test_the_program_dies(self):
        """The engine, client by default, comes back by itself; the neighbour notices nothing."""
        task, neighbour = self.attach_socket(1), self.attach(2)
        with Ping(self.lab, self.lab.client, neighbour.address) as ping:
            with self.program(task) as program:
                self.wait_for_ping(task)
                program.kill()
            self.assertTrue(self.lab.wait_until(lambda: not self.is_up(task), 5), "the port is up with nobody there")
            with self.expect_drops(task.eni, tx_full=1):
                self.assertFalse(self.lab.ping(self.lab.client, task.address))
            began = time.monotonic()
            with self.program(task) as program, Listener(self.lab.client, 9) as client:
                ready = time.monotonic()
                self.wait_for_ping(task)
                self.note(f"answers {time.monotonic() - began:.1f} s after it was started again, {time.monotonic() - ready:.1f} s after it was ready")
                program.send(32)
                self.assertEqual(len(client.take(32)), 32)
                self.assert_ping(self.lab.client, task.address)
            sent, received = ping.finish()
        self.assertEqual(sent, received, "the neighbour's pings lost")

    def test_the_program_dies_and_the_engine_listens(self):
        task = self.attach_socket(1, client=False)
        for turn in (1, 2):
            with self.subTest(turn), self.program(task, server=False) as program, Listener(self.lab.client, 9) as client:
                self.wait_for_ping(task)
                program.send(32)
                self.assertEqual(len(client.take(32)), 32)
                program.kill()
                self.assertTrue(self.lab.wait_until(lambda: not self.is_up(task), 5))
        self.assertTrue(os.path.exists(self.socket_of(1)))

    def test_the_engine_dies(self):
        """The program stays, and is not told anything but by its socket."""
        task = self.attach_socket(1)
        with self.program(task) as program, Listener(self.lab.client, 9) as client:
            self.wait_for_ping(task)
            pid = program.pid()
            began = time.monotonic()
            self.lab.kill_engine()
            self.lab.start_engine()
            ready = time.monotonic()
            self.wait_for_ping(task)
            self.note(f"answers {time.monotonic() - began:.1f} s after kill -9, {time.monotonic() - ready:.1f} s after the engine was ready")
            self.assertEqual(program.pid(), pid)
            self.assertIsNone(program.process.poll())
            program.send(32)
            self.assertEqual(len(client.take(32)), 32)
            self.assert_ping(self.lab.client, task.address)

    def test_detach_and_attach_under_a_program(self):
        task = self.attach_socket(1)
        with self.program(task):
            self.wait_for_ping(task)
            fds = self.engine_fds()
            self.call("task.detach", {"task": task.eni})
            self.assertFalse(self.lab.ping(self.lab.client, task.address))
            self.attach_socket(1)
            self.wait_for_ping(task)
            self.assertEqual(self.engine_fds(), fds)


class TestMemory(VhostUserTest):
    def test_nothing_of_the_engine_is_seen_by_its_peer(self):
        """The task shows its memory to the engine, and never the other way round: no file that the engine has memory in is
        mapped or open at the peer's."""
        task = self.attach_socket(1)
        owned = memory_of(self.lab.engine.pid)
        self.assertTrue(owned, "the engine's own memory was not found")
        with self.program(task) as program:
            self.wait_for_ping(task)
            peer = memory_of(program.pid())
            self.assertEqual(peer & owned, set())
            shared = peer & memory_of(self.lab.engine.pid)
            self.assertTrue(shared, "the engine has not mapped its peer's memory, so that this test would see nothing")
        self.assertTrue(self.lab.wait_until(lambda: not memory_of(self.lab.engine.pid) & shared, 5), "the peer's memory stays mapped")
        self.assertEqual(memory_of(self.lab.engine.pid), owned)
        self.note(f"{len(owned)} files of the engine's, none at the peer's; {len(shared)} of the peer's here")


def memory_of(pid):
    """(device, inode) of each file in memory alone (hugepages, memfd) that a process has mapped or open."""
    found = set()
    with open(f"/proc/{pid}/maps") as maps:
        for line in maps:
            fields = line.split(None, 5)
            if len(fields) == 6 and re.match(r"/(memfd:|dev/hugepages|anon_hugepage)", fields[5]):
                found.add((int(fields[3].split(":")[0], 16) << 20 | int(fields[3].split(":")[1], 16), int(fields[4])))
    for number in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(OSError):
            path = f"/proc/{pid}/fd/{number}"
            if os.readlink(path).startswith(("/memfd:", "/dev/hugepages")):
                status = os.stat(path)
                found.add((os.major(status.st_dev) << 20 | os.minor(status.st_dev), status.st_ino))
    return found


if __name__ == "__main__":
    main("dpdk-testpmd")
