#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
#
# Tries the fabric emulator for real: a veth as the trunk, taps in a namespace of their own as hosts, and this script
# in the engine's place, speaking tagged frames through a packet socket.
#
#   python3 test_fabric.py PATH_TO_BINARY        as root; names begin with tlfab-, and everything is taken down again
#
# Silence is tested without waiting: after the frame that nobody may answer comes a ping to the router, and frames
# keep their order, so whatever arrives before the router's reply was an answer.
import ctypes
import ipaddress
import json
import os
import queue
import random
import re
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import unittest

BINARY = None
ENGINE, FABRIC, HOST = (f"tlfab-{os.getpid()}-{role}" for role in ("engine", "vpc", "host"))
ROUTER_MAC = "0a:00:00:00:00:01"
MTU = 9001
A = {"vlan": 101, "mac": "0a:47:e4:7a:2b:02", "addresses": ["10.0.0.35", "2001:db8:1234:1a00::35"],
     "subnet": "10.0.0.0/24", "subnet6": "2001:db8:1234:1a00::/64"}
B = {"vlan": 102, "mac": "0a:47:e4:7a:2b:03", "addresses": ["10.0.0.36"], "subnet": "10.0.0.0/24"}
C = {"vlan": 103, "mac": "0a:47:e4:7a:2b:04", "addresses": ["10.0.2.7"], "subnet": "10.0.2.0/24"}
CLIENT = {"netns": HOST, "ifname": "eth0", "address": "10.0.1.20/24", "address6": "2001:db8:1234:1a01::20/64",
          "gateway": "10.0.1.1", "gateway6": "fe80:ec2::1"}
SOL_PACKET, PACKET_AUXDATA = 263, 8


def ip(*words):
    subprocess.run(["ip", *words], check=True)


def in_netns(name, work):
    """Runs work() in a thread of its own that has entered the namespace."""
    results = queue.Queue()

    def enter():
        try:
            with open(f"/run/netns/{name}") as netns:
                if ctypes.CDLL(None, use_errno=True).setns(netns.fileno(), 0x40000000) != 0:
                    raise OSError(ctypes.get_errno(), "setns")
            results.put((work(), None))
        except BaseException as error:  # handed to the caller
            results.put((None, error))

    threading.Thread(target=enter).start()
    value, error = results.get(timeout=30)
    if error:
        raise error
    return value


def mac(text):
    return bytes.fromhex(text.replace(":", ""))


def packed(address):
    return ipaddress.ip_address(address).packed


def checksum(data):
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def ethernet(to, source, ether_type, payload):
    return mac(to) + mac(source) + struct.pack("!H", ether_type) + payload


def ipv4(source, to, protocol, payload, total=None, ttl=64):
    head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, total or 20 + len(payload), 1, 0, ttl, protocol, 0,
                       packed(source), packed(to))
    return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + payload


def icmp(kind, body=b"12345678", ident=7):
    message = struct.pack("!BBHHH", kind, 0, 0, ident, 1) + body
    return message[:2] + struct.pack("!H", checksum(message)) + message[4:]


def ipv6_icmp(source, to, message, hops=255):
    source, to = packed(source), packed(to)
    total = checksum(source + to + struct.pack("!II", len(message), 58) + message)
    return (struct.pack("!IHBB", 6 << 28, len(message), 58, hops) + source + to
            + message[:2] + struct.pack("!H", total) + message[4:])


def solicit(source, target, own_mac):
    group = ipaddress.ip_address(bytes.fromhex("ff0200000000000000000001ff") + packed(target)[13:])
    option = b"\1\1" + mac(own_mac) if source != "::" else b""
    body = ipv6_icmp(source, str(group), struct.pack("!BBHI", 135, 0, 0, 0) + packed(target) + option)
    return ethernet("33:33:ff:" + packed(target)[13:].hex(":"), own_mac, 0x86DD, body)


def arp(source_mac, source, target, to="ff:ff:ff:ff:ff:ff", operation=1):
    return ethernet(to, source_mac, 0x0806,
                    struct.pack("!HHBBH", 1, 0x0800, 6, 4, operation) + mac(source_mac) + packed(source)
                    + bytes(6) + packed(target))


class Emulator:
    """The program under test, with its stderr at hand line by line."""

    def __init__(self, config):
        self.file = tempfile.NamedTemporaryFile("w", suffix=".json")
        self.write(config)
        self.process = subprocess.Popen([BINARY, "--config", self.file.name], stdout=subprocess.PIPE,
                                        stderr=subprocess.PIPE, text=True)
        self.lines = queue.Queue()
        self.reader = threading.Thread(target=lambda: [self.lines.put(line) for line in self.process.stderr])
        self.reader.start()
        first = self.process.stdout.readline()
        if first != "ready\n":
            self.close()
            raise AssertionError(f"not ready: {first!r} {[*self.lines.queue]}")

    def write(self, config):
        self.file.seek(0)
        self.file.truncate()
        self.file.write(config if isinstance(config, str) else json.dumps(config))
        self.file.flush()

    def ask(self, number):
        self.process.send_signal(number)
        return self.lines.get(timeout=10)

    def counters(self):
        return json.loads(self.ask(signal.SIGUSR1))

    def close(self):
        if self.process.poll() is None:
            self.process.terminate()
        try:
            self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.reader.join()
        self.process.stdout.close()
        self.process.stderr.close()
        self.file.close()
        return self.process.returncode


class Trunk:
    """The engine's end of the trunk."""

    def __init__(self):
        self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        self.socket.setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)
        self.socket.bind(("engine0", 3))
        self.socket.settimeout(5)

    def send(self, vlan, frame):
        tag = struct.pack("!HH", 0x8100, vlan) if vlan else b""
        self.socket.send(frame[:12] + tag + frame[12:])

    def receive(self):
        """(VLAN, frame without its tag) of the next frame that is not this script's own."""
        while True:
            frame, control, _, address = self.socket.recvmsg(65536, 256)
            if address[2] == 4:  # PACKET_OUTGOING
                continue
            vlan = 0
            for level, kind, data in control:
                if (level, kind) == (SOL_PACKET, PACKET_AUXDATA):
                    status, _, _, _, _, tci, _ = struct.unpack("=IIIHHHH", data[:20])
                    vlan = tci if status & 0x10 else 0
            return vlan, frame


def config_of(enis, hosts=(CLIENT,), mode="tagged"):
    return {"trunk": {"interface": "fabric0", "netns": FABRIC, "mode": mode}, "router_mac": ROUTER_MAC, "mtu": MTU,
            "enis": list(enis), "hosts": list(hosts)}


def setUpModule():
    try:
        for netns in (ENGINE, FABRIC, HOST):
            ip("netns", "add", netns)

        def quiet():
            with open("/proc/sys/net/ipv6/conf/default/disable_ipv6", "w") as file:
                file.write("1\n")

        in_netns(ENGINE, quiet)
        in_netns(FABRIC, quiet)
        ip("-n", FABRIC, "link", "add", "fabric0", "type", "veth", "peer", "name", "engine0", "netns", ENGINE)
        ip("-n", ENGINE, "link", "set", "engine0", "mtu", str(MTU), "up")
        # Carrier is noticed asynchronously, and until then the kernel drops what is sent.
        ip("-n", FABRIC, "link", "set", "fabric0", "mtu", str(MTU), "up")
        deadline = time.monotonic() + 10
        while b"state UP" not in subprocess.check_output(["ip", "-n", ENGINE, "-o", "link", "show", "engine0"]):
            if time.monotonic() > deadline:
                raise AssertionError("the trunk has no carrier")
            time.sleep(0.01)
    except BaseException:
        tearDownModule()
        raise


def tearDownModule():
    for netns in (ENGINE, FABRIC, HOST):
        if os.path.exists(f"/run/netns/{netns}"):
            ip("netns", "del", netns)


class FabricCase(unittest.TestCase):
    mode, enis = "tagged", (A, B, C)

    def setUp(self):
        self.fabric = Emulator(config_of(self.enis, mode=self.mode))
        self.addCleanup(self.fabric.close)
        self.trunk = in_netns(ENGINE, Trunk)
        self.addCleanup(self.trunk.socket.close)

    def ask(self, eni, frame):
        """Sends the frame and returns what comes back."""
        self.trunk.send(eni["vlan"], frame)
        vlan, answer = self.trunk.receive()
        return vlan, answer

    def ping_router(self, ident=99):
        router = "10.0.0.1"
        self.trunk.send(A["vlan"], ethernet(ROUTER_MAC, A["mac"], 0x0800,
                                            ipv4("10.0.0.35", router, 1, icmp(8, ident=ident))))

    def assert_silent(self, counter, *frames):
        """None of the (VLAN, frame) is answered or delivered, and each is counted as `counter`."""
        before = self.fabric.counters()
        for vlan, frame in frames:
            self.trunk.send(vlan, frame)
        self.ping_router()
        vlan, answer = self.trunk.receive()
        self.assertEqual((vlan, answer[26:30], answer[34]), (A["vlan"], packed("10.0.0.1"), 0), answer.hex())
        after = self.fabric.counters()
        # A host's kernel may have reported a multicast group or asked for a router meanwhile.
        noise = after["hosts_rx"] - before["hosts_rx"] if counter == "swallowed" else 0
        counted = after[counter] - before[counter]
        self.assertTrue(len(frames) <= counted <= len(frames) + noise, (counter, before, after))
        self.assertEqual(after["forwarded"], before["forwarded"])

    def echo(self, eni, source, to, body=b"12345678"):
        vlan, answer = self.ask(eni, ethernet(ROUTER_MAC, eni["mac"], 0x0800, ipv4(source, to, 1, icmp(8, body))))
        self.assertEqual((vlan, answer[:6]), (eni["vlan"], mac(eni["mac"])))
        self.assertEqual(answer[6:14], mac(ROUTER_MAC) + b"\x08\0")
        self.assertEqual((answer[26:30], answer[30:34]), (packed(to), packed(source)))
        message = answer[34:34 + 8 + len(body)]
        self.assertEqual((message[0], message[8:]), (0, body))
        self.assertEqual((checksum(answer[14:34]), checksum(message)), (0, 0))


class Tagged(FabricCase):
    def arp_answer(self, eni, source, target):
        vlan, answer = self.ask(eni, arp(eni["mac"], source, target))
        self.assertEqual((vlan, answer[:6], answer[12:14], answer[20:22]),
                         (eni["vlan"], mac(eni["mac"]), b"\x08\x06", b"\0\2"))
        self.assertEqual((answer[28:32], answer[32:38], answer[38:42]), (packed(target), mac(eni["mac"]),
                                                                         packed(source)))
        self.assertEqual(answer[6:12], answer[22:28])
        return answer[22:28].hex(":")

    def test_arp_is_answered_from_the_mapping(self):
        self.assertEqual(self.arp_answer(A, "10.0.0.35", "10.0.0.1"), ROUTER_MAC)
        self.assertEqual(self.arp_answer(C, "10.0.2.7", "10.0.2.1"), ROUTER_MAC)
        self.assertEqual(self.arp_answer(A, "10.0.0.35", "10.0.0.36"), B["mac"])
        self.assertEqual(self.fabric.counters()["arp_answered"], 3)

    def test_arp_silence(self):
        own, vlan = A["mac"], A["vlan"]
        self.assert_silent("swallowed",
                           (vlan, arp(own, "10.0.0.35", "10.0.0.99")),  # nobody's
                           (vlan, arp(own, "10.0.0.35", "10.0.2.7")),  # another subnet's
                           (vlan, arp(own, "0.0.0.0", "10.0.0.35")),  # probe
                           (vlan, arp(own, "10.0.0.35", "10.0.0.35")),  # gratuitous
                           (vlan, arp(own, "10.0.0.35", "10.0.0.36", operation=2)))
        self.assert_silent("spoofed",
                           (vlan, arp(B["mac"], "10.0.0.36", "10.0.0.1")),  # B's on A's VLAN
                           (vlan, arp(own, "10.0.0.36", "10.0.0.1")),  # B's address
                           (vlan, ethernet("ff:ff:ff:ff:ff:ff", own, 0x0806,
                                           arp(B["mac"], "10.0.0.35", "10.0.0.1")[14:])))

    def test_echo_of_a_host(self):
        self.echo(A, "10.0.0.35", "10.0.1.20")
        self.echo(C, "10.0.2.7", "10.0.1.20")

    def test_echo_of_the_router(self):
        self.echo(A, "10.0.0.35", "10.0.0.1")
        self.echo(C, "10.0.2.7", "10.0.2.1", bytes(1001))

    def test_largest_packet(self):
        self.echo(A, "10.0.0.35", "10.0.1.20", random.Random(1).randbytes(MTU - 28))
        ip("-n", ENGINE, "link", "set", "engine0", "mtu", str(MTU + 100))
        ip("-n", FABRIC, "link", "set", "fabric0", "mtu", str(MTU + 100))
        self.assert_silent("too_big", (A["vlan"], ethernet(ROUTER_MAC, A["mac"], 0x0800, ipv4(
            "10.0.0.35", "10.0.1.20", 1, icmp(8, bytes(MTU - 27))))))
        ip("-n", ENGINE, "link", "set", "engine0", "mtu", str(MTU))

    def test_dropped(self):
        def packet(source, to, to_mac=ROUTER_MAC, own=A["mac"], total=None):
            return ethernet(to_mac, own, 0x0800, ipv4(source, to, 17, bytes(8), total=total))

        self.assert_silent("spoofed", (101, packet("10.0.0.36", "10.0.1.20")), (101, packet("1.1.1.1", "10.0.1.20")),
                           (101, packet("10.0.0.36", "10.0.1.20", own=B["mac"])),
                           (102, packet("10.0.0.35", "10.0.1.20")))
        self.assert_silent("no_route", (101, packet("10.0.0.35", "10.0.1.21")), (101, packet("10.0.0.35", "8.8.8.8")),
                           (101, packet("10.0.0.35", "10.0.1.20", to_mac=B["mac"])))
        self.assert_silent("unknown_vlan", (104, packet("10.0.0.35", "10.0.1.20")),
                           (0, packet("10.0.0.35", "10.0.1.20")))
        self.assert_silent("swallowed", (101, packet("10.0.0.35", "255.255.255.255", "ff:ff:ff:ff:ff:ff")),
                           (101, packet("10.0.0.35", "224.0.0.1", "01:00:5e:00:00:01")),
                           (101, ethernet(ROUTER_MAC, A["mac"], 0x88CC, bytes(46))))
        self.assert_silent("malformed", (101, packet("10.0.0.35", "10.0.1.20", total=5000)),
                           (101, packet("10.0.0.35", "10.0.1.20", total=19)),
                           (101, ethernet(ROUTER_MAC, A["mac"], 0x8100, bytes(46))))

    def test_eni_to_eni(self):
        def udp(source, to):
            return ipv4(source, to, 17, struct.pack("!HHHH", 1, 2, 8, 0), ttl=9)

        vlan, frame = self.ask(A, ethernet(B["mac"], A["mac"], 0x0800, udp("10.0.0.35", "10.0.0.36")))
        self.assertEqual((vlan, frame), (102, ethernet(B["mac"], A["mac"], 0x0800, udp("10.0.0.35", "10.0.0.36"))))
        vlan, frame = self.ask(A, ethernet(ROUTER_MAC, A["mac"], 0x0800, udp("10.0.0.35", "10.0.2.7")))
        self.assertEqual((vlan, frame), (103, ethernet(C["mac"], ROUTER_MAC, 0x0800, udp("10.0.0.35", "10.0.2.7"))))

    def test_host_to_eni(self):
        """The host's own kernel resolves its router, and sends finished checksums, also in jumbo frames."""
        sender = in_netns(HOST, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        self.addCleanup(sender.close)
        for size in (5, MTU - 28):
            sender.sendto(b"x" * size, ("10.0.0.35", 4242))
            vlan, frame = self.trunk.receive()
            self.assertEqual((vlan, frame[:12]), (101, mac(A["mac"]) + mac(ROUTER_MAC)))
            datagram = frame[34:34 + 8 + size]
            self.assertEqual(checksum(frame[26:34] + struct.pack("!HH", 17, 8 + size) + datagram), 0)
            self.assertEqual(datagram[8:], b"x" * size)

    def test_ipv6(self):
        own, host = "2001:db8:1234:1a00::35", "2001:db8:1234:1a01::20"
        for router in ("fe80:ec2::1", "2001:db8:1234:1a00::1"):
            vlan, answer = self.ask(A, solicit(own, router, A["mac"]))
            self.assertEqual((vlan, answer[:6], answer[6:12]), (101, mac(A["mac"]), mac(ROUTER_MAC)))
            self.assertEqual((answer[54], answer[58] & 0xE0, answer[62:78]), (136, 0xE0, packed(router)))
            self.assertEqual(answer[78:86], b"\2\1" + mac(ROUTER_MAC))
            self.assertEqual(checksum(answer[22:54] + struct.pack("!II", 32, 58) + answer[54:]), 0)

        link_local = "fe80::847:e4ff:fe7a:2b02"
        solicitation = ipv6_icmp(link_local, "ff02::2", struct.pack("!BBHI", 133, 0, 0, 0))
        vlan, answer = self.ask(A, ethernet("33:33:00:00:00:02", A["mac"], 0x86DD, solicitation))
        self.assertEqual((vlan, answer[22:38], answer[38:54]), (101, packed("fe80:ec2::1"), packed(link_local)))
        self.assertEqual((answer[54], answer[60:62], len(answer)), (134, struct.pack("!H", 1800), 14 + 40 + 24))
        self.assertEqual(checksum(answer[22:54] + struct.pack("!II", 24, 58) + answer[54:]), 0)

        for target in (host, "fe80:ec2::1"):
            request = ipv6_icmp(own, target, struct.pack("!BBHHH", 128, 0, 0, 5, 1) + b"hello", hops=64)
            vlan, answer = self.ask(A, ethernet(ROUTER_MAC, A["mac"], 0x86DD, request))
            self.assertEqual((vlan, answer[22:38], answer[54], answer[62:67]), (101, packed(target), 129, b"hello"))
            self.assertEqual(checksum(answer[22:54] + struct.pack("!II", 13, 58) + answer[54:67]), 0)

        self.assert_silent("swallowed", (101, solicit("::", own, A["mac"])), (101, solicit(own, host, A["mac"])))
        self.assert_silent("spoofed", (101, solicit("fe80::1", "fe80:ec2::1", A["mac"])),
                           (101, solicit(host, "fe80:ec2::1", A["mac"])))

    def test_the_routers_errors(self):
        """The engine says "too big" in the router's name; nothing else may be said in it."""
        def error(source, kind, code, to="10.0.2.7", to_mac=ROUTER_MAC, protocol=1):
            message = struct.pack("!BBHHH", kind, code, 0, 0, 1500) + bytes(28)
            return ethernet(to_mac, A["mac"], 0x0800, ipv4(source, to, protocol, message))

        vlan, frame = self.ask(A, error("10.0.0.1", 3, 4))
        self.assertEqual((vlan, frame[:12]), (103, mac(C["mac"]) + mac(ROUTER_MAC)))
        vlan, frame = self.ask(A, error("10.0.0.1", 3, 4, to="10.0.0.36", to_mac=B["mac"]))
        self.assertEqual((vlan, frame[:12]), (102, mac(B["mac"]) + mac(ROUTER_MAC)))
        self.assert_silent("spoofed", (101, error("10.0.0.1", 3, 1)), (101, error("10.0.0.1", 8, 4)), (101, error("10.0.0.1", 11, 0)),
                           (101, error("10.0.0.1", 3, 4, protocol=17)), (101, error("10.0.2.1", 3, 4)), (101, error("10.0.0.36", 3, 4)),
                           (101, error("10.0.0.3", 3, 4)))

        def error6(source, kind, code=0):
            message = struct.pack("!BBHI", kind, code, 0, 1500) + bytes(48)
            return ethernet(ROUTER_MAC, A["mac"], 0x86DD, ipv6_icmp(source, "2001:db8:1234:1a00::36", message, hops=64))

        six = dict(B, addresses=["10.0.0.36", "2001:db8:1234:1a00::36"], subnet6=A["subnet6"])
        self.fabric.write(config_of((A, six, C)))
        self.assertIn("reloaded", self.fabric.ask(signal.SIGHUP))
        vlan, frame = self.ask(A, error6("2001:db8:1234:1a00::1", 2))
        self.assertEqual((vlan, frame[:12], frame[54]), (102, mac(B["mac"]) + mac(ROUTER_MAC), 2))
        self.assert_silent("spoofed", (101, error6("2001:db8:1234:1a00::1", 1)), (101, error6("2001:db8:1234:1a00::1", 3)),
                           (101, error6("2001:db8:1234:1a00::1", 2, 1)), (101, error6("2001:db8:1234:1a01::1", 2)),
                           (101, error6("fe80:ec2::1", 2)))

    def test_reload(self):
        late = {"vlan": 104, "mac": "0a:47:e4:7a:2b:05", "addresses": ["10.0.0.40"], "subnet": "10.0.0.0/24"}
        self.assert_silent("unknown_vlan", (104, arp(late["mac"], "10.0.0.40", "10.0.0.1")))
        self.fabric.write(config_of((A, C, late)))
        self.assertIn("reloaded", self.fabric.ask(signal.SIGHUP))
        self.echo(late, "10.0.0.40", "10.0.1.20")
        self.assert_silent("unknown_vlan", (102, arp(B["mac"], "10.0.0.36", "10.0.0.1")))
        for broken, complaint in (("{", "not JSON"), (config_of((A, A)), "/enis/1: MAC"),
                                  (config_of((A,), hosts=()), "only /enis may change")):
            self.fabric.write(broken)
            self.assertIn(complaint, self.fabric.ask(signal.SIGHUP))
            self.echo(late, "10.0.0.40", "10.0.1.20")

    def test_garbage(self):
        """No frame, however broken, ends the program; afterwards it still works."""
        dice = random.Random(20)
        seeds = [solicit("2001:db8:1234:1a00::35", "fe80:ec2::1", A["mac"]), arp(A["mac"], "10.0.0.35", "10.0.0.1"),
                 ethernet(ROUTER_MAC, A["mac"], 0x0800, ipv4("10.0.0.35", "10.0.0.1", 1, icmp(8)))]
        for _ in range(5000):
            frame = bytearray(dice.choice(seeds))
            for _ in range(dice.randrange(1, 5)):
                frame[dice.randrange(12, len(frame))] = dice.randrange(256)
            self.trunk.send(101, bytes(frame[:dice.randrange(14, len(frame) + 1)]))
        self.trunk.socket.close()
        self.trunk = in_netns(ENGINE, Trunk)
        deadline = time.monotonic() + 10
        while self.fabric.counters()["trunk_rx"] < 5000 and time.monotonic() < deadline:
            time.sleep(0.02)
        self.trunk.socket.close()
        self.trunk = in_netns(ENGINE, Trunk)
        self.addCleanup(self.trunk.socket.close)
        self.echo(A, "10.0.0.35", "10.0.1.20")
        self.assertGreater(self.fabric.counters()["malformed"], 100)

    def test_counters_at_exit(self):
        self.echo(A, "10.0.0.35", "10.0.1.20")
        self.fabric.process.send_signal(signal.SIGINT)
        last = json.loads(self.fabric.lines.get(timeout=10))
        self.assertEqual((last["trunk_rx"], last["trunk_tx"]), (1, 1))
        self.assertEqual(self.fabric.close(), 0)


class Untagged(FabricCase):
    mode, enis = "untagged", ({**A, "vlan": 0}, {**B, "vlan": 0})

    def test_enis_are_told_apart_by_their_mac(self):
        for eni, source in zip(self.enis, ("10.0.0.35", "10.0.0.36")):
            self.echo(eni, source, "10.0.1.20")
        before = self.fabric.counters()["spoofed"]
        self.trunk.send(0, arp(C["mac"], "10.0.2.7", "10.0.2.1"))
        self.echo(self.enis[0], "10.0.0.35", "10.0.0.1")
        self.assertEqual(self.fabric.counters()["spoofed"], before + 1)


class BadConfig(unittest.TestCase):
    def test_refusals(self):
        good = config_of((A,))
        for config, complaint in (
                ("[1,", "not JSON"), ([], "expected an object"), ({}, 'lacks "trunk"'),
                ({**good, "mtu": -1}, "/mtu: expected a number"), ({**good, "colour": 1}, "/colour: unknown member"),
                (config_of([{**A, "vlan": 4095}]), "/enis/0/vlan: expected a number from 0 to 4094"),
                (config_of([{**A, "mac": "0a:0"}]), "/enis/0/mac: .* is not a MAC address"),
                (config_of([{**A, "addresses": ["10.0.9.1"]}]), "/enis/0/addresses/0: 10.0.9.1 is not in"),
                (config_of([{**A, "addresses": ["10.0.0.1"]}]), "/enis/0: 10.0.0.1 is the address of a router"),
                (config_of([A, {**B, "vlan": 101}]), "/enis/1: VLAN 101 belongs to /enis/0 already"),
                (config_of([A, {**B, "addresses": A["addresses"][:1]}]), "/enis/1: address 10.0.0.35 belongs to"),
                (config_of([A], [{**CLIENT, "netns": "tlfab-none"}]), "host eth0 in tlfab-none: cannot open"),
                ({**good, "trunk": {"interface": "none0"}}, "trunk none0: no interface")):
            with self.subTest(complaint), tempfile.NamedTemporaryFile("w", suffix=".json") as file:
                file.write(config if isinstance(config, str) else json.dumps(config))
                file.flush()
                done = subprocess.run([BINARY, "--config", file.name], capture_output=True, text=True, timeout=10)
                self.assertNotEqual(done.returncode, 0)
                self.assertEqual(done.stdout, "")
                self.assertEqual(done.stderr.count("\n"), 1, done.stderr)
                self.assertTrue(re.search(complaint, done.stderr), done.stderr)


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit("usage: test_fabric.py PATH_TO_BINARY [unittest arguments]")
    if os.geteuid() != 0:
        sys.exit("test_fabric.py: makes network namespaces, so it has to run as root")
    BINARY = os.path.abspath(sys.argv.pop(1))
    unittest.main()
