#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""The generator against its own reflector over memif: what it counts is what went over the wire. Needs root and hugepages,
since DPDK does. How fast it is depends on the machine and is not asked here."""
import json
import os
import pathlib
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
        self.assertGreater(events[-1]["pps"], 10_000)
        self.assertEqual({path.name for path in pathlib.Path("/tmp").glob("trunkline-generator-*")}, before)


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
            result = self.generator.run("stream", count=5000, rate=50_000, flows=1000, seconds=5, **options)
            for lane in (result.get("inward"), result.get("outward")):
                if lane:
                    with self.subTest(**options):
                        self.assertEqual(lane["sent"] + lane["unsent"], 5000)
                        self.assertEqual((lane["received"], lane["lost"], lane["out_of_order"], lane["foreign"]), (lane["sent"], 0, 0, 0))

    def test_both_directions_are_counted_apart(self):
        result = self.generator.run("stream", direction="both", count=2000, rate=50_000, seconds=5)
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
        result = self.generator.run("connections", count=3000, rate=20_000, seconds=10)
        self.assertEqual((result["completed"], result["incomplete"], result["packets"]), (3000, 0, 18000))

    def test_nonsense_is_refused_and_the_next_command_works(self):
        for words in ("strem", "stream --size 63", "stream --size large", "stream --nonsense 1", "stream --order random",
                      "stream --protocol sctp", "stream --vlan 4000 --enis 120"):
            with self.assertRaises(BenchError, msg=words):
                command, *rest = words.split()
                self.generator.run(command, **{rest[i].lstrip("-"): rest[i + 1] for i in range(0, len(rest), 2)})
        self.assertEqual(self.generator.run("stream", count=100, rate=10_000)["inward"]["received"], 100)


if __name__ == "__main__":
    unittest.main()
