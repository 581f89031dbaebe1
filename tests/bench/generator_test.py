#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""The generator against its own reflector over memif: what it counts is what went over the wire. Needs root and hugepages,
since DPDK does. How fast it is depends on the machine and is not asked here."""
import ipaddress
import json
import os
import pathlib
import struct
import subprocess
import sys
import tempfile
import unittest

sys.dont_write_bytecode = True
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "bench"))

from lib.generator import Generator  # noqa: E402
from lib.links import Links  # noqa: E402
from lib.processes import BenchError, Program, hugepages, wait_until  # noqa: E402

BUILD = pathlib.Path(os.environ.get("TRUNKLINE_BUILD", "build"))
MEMORY_MB = 128


class SelfTest(unittest.TestCase):
    def test_self_test_proves_a_rate_and_leaves_nothing(self):
        before = {path.name for path in pathlib.Path("/tmp").glob("trunkline-generator-*")}
        with hugepages(2 * MEMORY_MB):
            done = subprocess.run([BUILD / "bench/generator/trunkline-generator", "--self-test", "--memory", str(MEMORY_MB), "stream",
                                   "--seconds", "1"], capture_output=True, text=True, timeout=50)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        events = [json.loads(line) for line in done.stdout.splitlines()]
        self.assertEqual((events[0]["event"], events[-1]["event"]), ("ready", "result"))
        self.assertGreater(events[-1]["inward"]["received"], 0)
        self.assertGreater(events[-1]["pps"], 0)
        self.assertEqual({path.name for path in pathlib.Path("/tmp").glob("trunkline-generator-*")}, before)


def packets_of(path, most=3000):
    """The first frames of a pcap file."""
    data, at, frames = path.read_bytes(), 24, []
    while at < len(data) and len(frames) < most:
        length = struct.unpack_from("<I", data, at + 8)[0]
        frames.append(data[at + 16:at + 16 + length])
        at += 16 + length
    return frames


def write_pcap(path, frames):
    data = struct.pack("<IHHiIII", 0xa1b2c3d4, 2, 4, 0, 0, 65535, 1)
    path.write_bytes(data + b"".join(struct.pack("<IIII", 0, 0, len(frame), len(frame)) + frame for frame in frames))


def sum16(data):
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xffff) + (total >> 16)
    return total


class Frame:
    def __init__(self, data):
        self.data, self.vlan, l3 = data, None, 14
        if data[12:14] == b"\x81\0":
            self.vlan, l3 = struct.unpack("!H", data[14:16])[0], 18
        ip = data[l3:l3 + 20]
        self.ip = data[l3:l3 + struct.unpack("!H", ip[2:4])[0]]
        self.protocol = ip[9]
        self.source, self.destination = (str(ipaddress.ip_address(ip[at:at + 4])) for at in (12, 16))
        self.l4 = self.ip[20:]
        self.ports = struct.unpack("!HH", self.l4[:4])
        self.flags = self.l4[13] if self.protocol == 6 else None
        self.numbers = struct.unpack("!II", self.l4[4:12]) if self.protocol == 6 else None

    def checksums_are_right(self):
        pseudo = self.ip[12:20] + struct.pack("!HH", self.protocol, len(self.l4))
        return sum16(self.ip[:20]) == 0xffff and sum16(pseudo + self.l4) == 0xffff


class Frames(unittest.TestCase):
    """What it sends, byte for byte, by way of pcap files."""

    def setUp(self):
        directory = tempfile.TemporaryDirectory(dir="/run")
        self.addCleanup(directory.cleanup)
        self.place = pathlib.Path(directory.name)

    def frames(self, *words, task_rx=None):
        receive = f",rx_pcap={task_rx},infinite_rx=1" if task_rx else ""
        with hugepages(64):
            done = subprocess.run([BUILD / "bench/generator/trunkline-generator", "--memory", "64", "--buffers", "4096", "--trunk",
                                   f"net_pcap0,tx_pcap={self.place}/trunk", "--task", f"net_pcap1{receive},tx_pcap={self.place}/task",
                                   *words], capture_output=True, text=True, timeout=50)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        return tuple([Frame(data) for data in packets_of(self.place / side)] for side in ("trunk", "task"))

    def test_stream(self):
        for protocol, number in (("tcp", 6), ("udp", 17)):
            for size in (64, 1517) if number == 6 else (65,):
                trunk, task = self.frames("stream", "--count", "240", "--rate", "100000", "--direction", "both", "--flows", "150", "--enis",
                                          "3", "--protocol", protocol, "--size", str(size))
                self.assertGreater(min(len(trunk), len(task)), 150)
                for frame in trunk + task:
                    self.assertTrue(frame.checksums_are_right(), frame.data.hex())
                    self.assertEqual(frame.protocol, number)
                    self.assertEqual(len(frame.ip), size - 18)
                self.assertEqual({len(frame.data) for frame in trunk}, {size})      # 4 of CRC less, 4 of tag more
                self.assertEqual({len(frame.data) for frame in task}, {size - 4})
                self.assertEqual({(frame.vlan, frame.destination, frame.data[:6].hex(":")) for frame in trunk},
                                 {(101 + i, f"10.0.0.{10 + i}", f"0a:00:00:00:01:0{i}") for i in range(3)})
                self.assertEqual({(frame.vlan, frame.source) for frame in task}, {(None, f"10.0.0.{10 + i}") for i in range(3)})
                remotes = {(frame.source, frame.ports) for frame in trunk}
                self.assertEqual(len(remotes), 150)
                self.assertTrue(all(ipaddress.ip_address(source) in ipaddress.ip_network("198.18.0.0/15") for source, _ in remotes))
                # Both directions are the same connections.
                self.assertLessEqual({(frame.destination, frame.ports[::-1]) for frame in task}, remotes)

    def test_imix_is_7_4_1(self):
        trunk, _ = self.frames("stream", "--count", "1200", "--rate", "100000", "--size", "imix")
        lengths = [len(frame.data) for frame in trunk][:1188]
        self.assertEqual([lengths.count(size) * 12 // len(lengths) for size in (64, 570, 1518)], [7, 4, 1])

    def test_answers(self):
        trunk, _ = self.frames("connections", "--count", "20", "--seconds", "0.05")
        self.assertEqual({frame.flags for frame in trunk}, {0x02})
        self.assertTrue(all(frame.checksums_are_right() for frame in trunk))
        self.assertEqual(len({(frame.source, frame.ports) for frame in trunk}), len(trunk), "every connection is a new one")
        # The task's side sees SYN, ACK and FIN-ACK; the answers are in the other file.
        syn = trunk[0].data[:12] + trunk[0].data[16:]
        received = self.place / "received"

        def with_flags(flags):
            frame = bytearray(syn)
            old = frame[14 + 20 + 13]
            frame[14 + 20 + 13] = flags
            checksum = 0xffff - struct.unpack_from("!H", frame, 14 + 36)[0] + flags - old
            struct.pack_into("!H", frame, 14 + 36, 0xffff - (checksum & 0xffff) - (checksum >> 16))
            self.assertTrue(Frame(bytes(frame)).checksums_are_right())
            return bytes(frame)

        write_pcap(received, [with_flags(flags) for flags in (0x02, 0x10, 0x11, 0x04)])
        _, task = self.frames("connections", "--count", "5", "--seconds", "0.002", task_rx=received)
        asked = Frame(syn)
        self.assertGreater(len(task), 3)
        self.assertEqual({(frame.flags, frame.numbers[1]) for frame in task}, {(0x12, 1001), (0x11, 1000), (0x10, 1001)})
        for frame in task:
            self.assertTrue(frame.checksums_are_right(), frame.data.hex())
            self.assertEqual((frame.source, frame.destination, frame.ports), (asked.destination, asked.source, asked.ports[::-1]))
            self.assertEqual((frame.data[:6], frame.data[6:12]), (syn[6:12], syn[:6]))


class OverMemif(unittest.TestCase):
    """One generator and one reflector for all tests of the class."""

    @classmethod
    def setUpClass(cls):
        cls.place = tempfile.TemporaryDirectory(dir="/run")
        place = pathlib.Path(cls.place.name)
        cls.addClassCleanup(cls.place.cleanup)
        cls.enterClassContext(hugepages(2 * MEMORY_MB))
        binary = BUILD / "bench/generator/trunkline-generator"
        links = Links("memif", place / "links")
        cpus = sorted(os.sched_getaffinity(0))
        cls.reflector = Program([binary, "--trunk", links.device("trunk"), "--task", links.device("task"), "--lcore", cpus[-1],
                                 "--memory", MEMORY_MB, "reflect", "--seconds", 60], place / "reflector.log", stdin=subprocess.PIPE)
        cls.addClassCleanup(cls.reflector.end)
        wait_until(links.ready_to_connect, 20, "the reflector's ports", cls.reflector)
        cls.generator = Generator(binary, links, place / "generator.log", cpu=cpus[0], memory_mb=MEMORY_MB)
        cls.generator.wait_ready()
        # A memif server learns a little later than its client that they are connected, and drops until then.
        assert cls.generator.run("ramp", flows=100)["established"] == 100

    @classmethod
    def tearDownClass(cls):
        cls.reflector.end()  # before its peer goes: see Session
        cls.generator.end()

    def test_every_frame_of_a_slow_stream_arrives_in_order(self):
        for options in ({}, {"size": "imix"}, {"size": 1518}, {"protocol": "udp"}, {"direction": "out"}, {"enis": 120}, {"order": "zipf"}):
            # Fewer than a ring holds: who loses its processor for a while loses no frame.
            result = self.generator.run("stream", count=900, rate=50_000, flows=300, seconds=5, **options)
            for lane in (result.get("inward"), result.get("outward")):
                if lane:
                    with self.subTest(**options):
                        self.assertEqual(lane["sent"] + lane["unsent"], 900)
                        self.assertEqual((lane["received"], lane["lost"], lane["out_of_order"], lane["foreign"]), (lane["sent"], 0, 0, 0))

    def test_both_directions_are_counted_apart(self):
        result = self.generator.run("stream", direction="both", count=900, rate=50_000, seconds=5)
        self.assertEqual({result[lane]["received"] == result[lane]["sent"] for lane in ("inward", "outward")}, {True})

    def test_rate_is_kept(self):
        result = self.generator.run("stream", rate=20_000, seconds=1)
        offered = (result["inward"]["sent"] + result["inward"]["unsent"]) / result["total_seconds"]
        self.assertLess(abs(offered / 20_000 - 1), 0.1)

    def test_bytes_are_frames_without_crc_and_with_tag(self):
        result = self.generator.run("stream", count=1000, rate=50_000, size=64, seconds=5)["inward"]
        self.assertEqual(result["bytes"], 64 * result["sent"])  # 60, and 4 of VLAN tag
        result = self.generator.run("stream", count=1000, rate=50_000, size=1518, direction="out", seconds=5)["outward"]
        self.assertEqual(result["bytes"], 1514 * result["sent"])

    def test_latency_is_ordered(self):
        latency = self.generator.run("stream", rate=50_000, seconds=0.5, latency=True)["inward"]["latency_ns"]
        self.assertGreater(latency["p50"], 0)
        self.assertTrue(latency["p50"] <= latency["p90"] <= latency["p99"] <= latency["p99.9"])

    def test_ramp_knows_every_flow(self):
        for protocol in ("tcp", "udp"):
            result = self.generator.run("ramp", flows=5000, protocol=protocol)
            self.assertEqual((result["established"], result["flows"]), (5000, 5000), protocol)

    def test_connections_take_six_packets(self):
        result = self.generator.run("connections", count=300, rate=20_000, seconds=10)
        self.assertEqual((result["completed"], result["incomplete"], result["packets"]), (300, 0, 1800))

    def test_nonsense_is_refused_and_the_next_command_works(self):
        for words in ("strem", "stream --size 63", "stream --size large", "stream --nonsense 1", "stream --order random",
                      "stream --protocol sctp", "stream --vlan 4000 --enis 120"):
            with self.assertRaises(BenchError, msg=words):
                command, *rest = words.split()
                self.generator.run(command, **{rest[i].lstrip("-"): rest[i + 1] for i in range(0, len(rest), 2)})
        self.assertEqual(self.generator.run("stream", count=100, rate=10_000)["inward"]["received"], 100)


if __name__ == "__main__":
    unittest.main()
