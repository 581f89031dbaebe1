#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""What the benchmarks' figures go through: statistics, noise, conversion, policy, targets. No traffic, no root."""
import contextlib
import json
import pathlib
import random
import subprocess
import sys
import tempfile
import time
import types
import unittest

sys.dont_write_bytecode = True
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "bench"))

from lib import compare, noise, pktgen, plot, quick, results, scenarios, stats, targets, trial  # noqa: E402
from lib.processes import BenchError, Program  # noqa: E402
from peers import policy  # noqa: E402
from peers.device import Counters  # noqa: E402


class Statistics(unittest.TestCase):
    def test_percentiles(self):
        self.assertEqual(stats.median([3, 1, 2]), 2)
        self.assertEqual(stats.median([4, 1, 2, 3]), 2.5)
        self.assertEqual(stats.percentile([10], 0.9), 10)
        self.assertEqual(stats.percentile([0, 10], 0.25), 2.5)

    def test_interval_holds_the_median_and_shrinks_with_samples(self):
        random.seed(7)
        few = [random.gauss(100, 5) for _ in range(12)]
        many = few * 20
        low, high = stats.bootstrap_interval(few)
        self.assertLess(low, stats.median(few))
        self.assertGreater(high, stats.median(few))
        narrow = stats.bootstrap_interval(many, resamples=300)
        self.assertLess(narrow[1] - narrow[0], high - low)
        self.assertEqual(stats.bootstrap_interval(few), (low, high), "repeatable")

    def test_interval_covers_as_often_as_it_says(self):
        # 95 % is a promise: of many experiments about so many intervals hold the true median.
        draw = random.Random(3)
        held = 0
        for _ in range(120):
            low, high = stats.bootstrap_interval([draw.gauss(50, 10) for _ in range(15)], resamples=200)
            held += low <= 50 <= high
        self.assertGreater(held, 120 * 0.86)

    def test_ratios_are_above_one_where_ours_is_better(self):
        self.assertEqual(stats.paired_ratios([100, 200], [300, 400], smaller_is_better=True), [3, 2])
        self.assertEqual(stats.paired_ratios([100, 200], [300, 400], smaller_is_better=False), [1 / 3, 0.5])

    def test_a_pair_with_a_missing_half_is_no_pair(self):
        self.assertEqual(stats.paired_ratios([None, 2, 2], [1, None, 4], smaller_is_better=True), [2])


class Noise(unittest.TestCase):
    quiet = {"steal": 0.001, "taken": 0.002, "switches_per_second": 3.0, "waits_per_second": 0.0, "seconds": 2.0}

    def test_quiet_is_no_objection(self):
        self.assertEqual(noise.objection(self.quiet), "")

    def test_each_kind_of_noise_objects_and_says_which(self):
        for change, words in (({"steal": 0.006}, "hypervisor"), ({"taken": 0.02}, "other threads"),
                              ({"switches_per_second": 11.0}, "interrupted")):
            self.assertIn(words, noise.objection({**self.quiet, **change}))

    def test_a_thread_that_shares_its_processor_is_seen(self):
        cpu = 0
        spin = "import os,time\nend=time.time()+3\nwhile time.time()<end: pass"
        with tempfile.TemporaryDirectory() as place:
            one, other = (Program([sys.executable, "-c", spin], f"{place}/{name}", cpu=cpu) for name in "ab")
            try:
                time.sleep(0.3)
                watch = noise.Watch(one.pid, noise.pinned_thread(one.pid, cpu), cpu)
                time.sleep(0.8)
                seen = watch.result()
            finally:
                one.end()
                other.end()
        self.assertGreater(seen["taken"], 0.15, seen)
        self.assertNotEqual(noise.objection(seen), "")

    def test_a_thread_that_waits_by_itself_is_not_disturbed_by_others(self):
        self.assertEqual(noise.objection({**self.quiet, "taken": None, "waits_per_second": 900.0}), "")
        nap = "import time\nend=time.time()+8\nwhile time.time()<end: time.sleep(0.001)"
        with tempfile.TemporaryDirectory() as place:
            napper = Program([sys.executable, "-c", nap], f"{place}/log", cpu=0)
            try:
                seen = []
                while len(seen) < 6 and (not seen or seen[-1]["taken"] is not None):  # it may have to share at first
                    time.sleep(0.3)
                    watch = noise.Watch(napper.pid, noise.pinned_thread(napper.pid, 0), 0)
                    time.sleep(0.5)
                    seen.append(watch.result())
                self.assertIsNone(seen[-1]["taken"], seen)
            finally:
                napper.end()

    def test_a_process_without_such_a_thread_is_an_error(self):
        with tempfile.TemporaryDirectory() as place, contextlib.ExitStack() as stack:
            sleeper = Program(["sleep", "5"], f"{place}/log")
            stack.callback(sleeper.end)
            with self.assertRaises(LookupError):
                noise.pinned_thread(sleeper.pid, 4095)


def stream_result(pps=5e6, lost=0, blocked=0.9, sent=10_000_000):
    return {"pps": pps, "seconds": 2.0, "total_seconds": 2.3,
            "inward": {"sent": sent, "lost": lost, "blocked_share": blocked, "pps": pps}}


class Trials(unittest.TestCase):
    def test_who_was_the_bottleneck(self):
        for result, busy, limit, who in (
                (stream_result(), 0.99, 9e6, "device"),
                (stream_result(blocked=0.01), 0.6, 9e6, "generator"),
                (stream_result(pps=8.9e6, blocked=0.7), 0.8, 9e6, "generator"),
                (stream_result(lost=200_000), 0.7, 9e6, "receive side"),
                (stream_result(), None, 9e6, "device"),
                (stream_result(), 0.5, 9e6, "the device's processor, which others used")):
            self.assertEqual(trial.bottleneck(result, busy, limit), who)

    def test_cycles_are_busy_cycles_over_packets(self):
        values = trial.values(scenarios.Scenario(), stream_result(), Counters(1000, 5e6), Counters(2000, 5.25e6))
        self.assertEqual(values, {"throughput": 5.0, "cycles": 250.0})

    def test_no_packets_no_cycles(self):
        self.assertIsNone(trial.values(scenarios.Scenario(), stream_result(), Counters(5, 1), Counters(5, 9))["cycles"])


class FakeSession:
    """Devices with a fixed speed; `disturbed(name, turn)` says which trials somebody else spoiled."""

    def __init__(self, speeds, disturbed=lambda name, turn: False):
        self.speeds, self.disturbed = speeds, disturbed
        self.devices = {name: types.SimpleNamespace(describe=lambda name=name: name) for name in speeds}
        self.order = []

    def generator_limit(self, scenario):
        return 20e6

    def ramp(self, name, scenario):
        pass

    def trial(self, name, scenario, seconds, warmup, limit):
        turn = len(self.order) // len(self.speeds)
        self.order.append(name)
        cycles = self.speeds[name] * (1 + 0.01 * (turn % 3))
        return trial.Trial({"throughput": 2600 / cycles, "cycles": cycles}, "device", dict(Noise.quiet),
                           "somebody else" if self.disturbed(name, turn) else "", "stream")


class Comparison(unittest.TestCase):
    options = types.SimpleNamespace(pairs=6, more_turns=4, seconds=1, warmup=0, accept_noise=False, kind="peers")
    silent = types.SimpleNamespace(now=lambda text: None, say=lambda text: None)

    def lines(self, session, **changes):
        options = types.SimpleNamespace(**{**vars(self.options), **changes})
        taken, limit = compare.take_turns(session, scenarios.Scenario(), list(session.speeds), options, self.silent)
        return compare.result_lines(session, scenarios.Scenario(), taken, limit, options)

    def test_turns_alternate_and_ratios_follow(self):
        session = FakeSession({"engine": 100, "ovs-dpdk": 800})
        lines = self.lines(session)
        self.assertEqual(session.order[:4], ["engine", "ovs-dpdk", "ovs-dpdk", "engine"])
        cycles = next(line for line in lines if line["unit"] == "cycles/packet" and line["peer"] == "ovs-dpdk")
        self.assertAlmostEqual(cycles["ratio"], 8.0)
        self.assertLessEqual(cycles["ratio_low"], cycles["ratio"])
        self.assertGreaterEqual(cycles["ratio_high"], cycles["ratio"])
        self.assertIsNone(cycles["refused"])
        self.assertEqual(cycles["generator_limit"], 20e6)

    def test_a_disturbed_trial_is_replaced(self):
        session = FakeSession({"engine": 100, "ovs-dpdk": 800}, lambda name, turn: name == "engine" and turn < 2)
        lines = self.lines(session)
        self.assertEqual(len(session.order), 2 * 8)
        self.assertEqual({line["refused"] for line in lines}, {None})
        self.assertEqual({line["disturbed"] for line in lines if line["peer"] is None}, {2})

    def test_too_many_disturbed_trials_refuse_the_figure_and_say_why(self):
        session = FakeSession({"engine": 100, "ovs-dpdk": 800}, lambda name, turn: name == "ovs-dpdk" and turn % 4 != 0)
        lines = self.lines(session)
        for line in lines:
            if line["peer"] == "ovs-dpdk":
                self.assertIn("somebody else", line["refused"])
                self.assertIsNone(line["value"])
                self.assertIsNone(line["ratio"])
                self.assertIsNone(line["peer_value"])
            else:
                self.assertIsNone(line["refused"])

    def test_accepted_noise_is_said(self):
        lines = self.lines(FakeSession({"engine": 100}, lambda name, turn: True), accept_noise=True)
        self.assertEqual([line["noise_accepted"] for line in lines], [True] * len(lines))

    def test_peers_are_held_against_targets(self):
        wanted = [{"what": "cycles beside OVS", "name": "memif/established/10k/64/in/cycles", "peer": "ovs-dpdk", "field": "ratio_low",
                   "good": "above", "must": 5, "aim": 12}]
        fast, slow = (self.lines(FakeSession({"engine": 100, "ovs-dpdk": cycles})) for cycles in (800, 300))
        text, missed = compare.held_against_targets(fast, wanted)
        self.assertEqual((missed, text.split()[-1]), (False, "must"))
        self.assertTrue(compare.held_against_targets(slow, wanted)[1])

    def test_show_has_every_device(self):
        text = compare.show(self.lines(FakeSession({"engine": 100, "ovs-dpdk": 800})))
        self.assertIn("engine", text)
        self.assertIn("8.00 [", text)


REPORT = {"benchmarks": [
    {"name": "classify/1000", "run_type": "iteration", "iterations": 50, "real_time": 9.0, "cpu_time": 9.0, "time_unit": "ns",
     "cycles": 80.0, "p10": 78.0, "p90": 85.0, "ns": 40.0, "peer_cycles": 400.0, "ratio": 5.0, "ratio_low": 4.8,
     "ratio_high": 5.2, "label": "rte_acl", "rules": 1000.0},
    {"name": "demux/120", "run_type": "iteration", "iterations": 10, "real_time": 9.0, "cpu_time": 9.0, "time_unit": "ns",
     "cycles": 13.0, "p10": 12.0, "p90": 14.0, "ns": 6.5},
    {"name": "broken", "run_type": "iteration", "iterations": 0, "real_time": 0, "cpu_time": 0, "time_unit": "ns",
     "error_occurred": True, "error_message": "no memory"},
    {"name": "demux/120_mean", "run_type": "aggregate", "aggregate_name": "mean", "iterations": 3, "real_time": 1, "cpu_time": 1,
     "time_unit": "ns", "cycles": 99.0}]}


class Conversion(unittest.TestCase):
    def setUp(self):
        self.lines = {line["name"]: line for line in quick.convert("some-bench", REPORT, "some-bench --x")}

    def test_counters_become_a_line(self):
        line = self.lines["some-bench/classify/1000"]
        self.assertEqual((line["value"], line["spread"], line["unit"], line["samples"]), (80, [78, 85], "cycles", 50))
        self.assertEqual((line["peer"], line["ratio"], line["ratio_low"], line["ratio_high"], line["peer_value"]), ("rte_acl", 5, 4.8, 5.2, 400))
        self.assertEqual(line["machine"]["tsc_hz"], 2_000_000_000)

    def test_other_counters_are_lines_of_their_own(self):
        self.assertEqual(self.lines["some-bench/classify/1000/rules"]["value"], 1000)

    def test_means_are_not_medians(self):
        self.assertNotIn("some-bench/demux/120_mean", self.lines)

    def test_an_error_is_a_refused_line(self):
        self.assertEqual((self.lines["some-bench/broken"]["value"], self.lines["some-bench/broken"]["refused"]), (None, "no memory"))

    def test_figures_of_a_slow_core_are_refused(self):
        def benchmark(name, pace, **more):
            return {"name": name, "run_type": "iteration", "iterations": 1, "real_time": 1.0, "time_unit": "ms", "cycles": 80.0, "p10": 78.0,
                    "p90": 85.0, "ns": 40.0, "pace": pace, "full_pace": 0.25, **more}

        report = {"benchmarks": [benchmark("quiet", 0.8, bytes=64.0), benchmark("nearly", 0.87), benchmark("shared", 1.6, bytes=64.0, part_cycles=3.0),
                                 benchmark("beside", 1.6, peer_cycles=400.0, ratio=5.0, ratio_low=4.8, ratio_high=5.2, label="rte_acl")]}
        lines = {line["name"]: line for line in quick.convert("some-bench", report, "some-bench")}
        quick.refuse_slow_core(list(lines.values()))
        self.assertEqual({name for name, line in lines.items() if line["refused"]}, {"some-bench/shared", "some-bench/shared/part_cycles"})
        shared = lines["some-bench/shared"]
        self.assertEqual((shared["value"], shared["spread"]), (None, None))
        self.assertIn("25 % of the samples met its full pace, at the others it had 50 % of it; it took 80 cycles", shared["refused"])
        self.assertEqual(lines["some-bench/quiet"]["noise"], {"pace": 0.8, "full_pace": 0.25})

    def test_a_missed_must_is_noticed(self):
        wanted = [{"what": "demux", "name": "demux.*120", "unit": "cycles", "field": "value", "good": "below", "must": 12, "aim": 6}]
        line = self.lines["some-bench/demux/120"]
        self.assertEqual(targets.verdict(line, targets.of(line, wanted)), (13, "missed"))
        text, missed = quick.show(list(self.lines.values()), wanted)
        self.assertTrue(missed)
        self.assertIn("missed: demux", text)
        self.assertFalse(quick.show([self.lines["some-bench/classify/1000"]], wanted)[1])

    def test_verdicts(self):
        wanted = {"field": "ratio_low", "good": "above", "must": 2, "aim": 5}
        for low, word in ((1.9, "missed"), (2, "must"), (5, "aim"), (None, "absent")):
            self.assertEqual(targets.verdict({"ratio_low": low}, wanted)[1], word)

    def test_every_target_is_well_formed(self):
        for target in targets.load():
            self.assertIn(target["good"], ("above", "below"))
            better = target["aim"] - target["must"]
            self.assertGreater(better if target["good"] == "above" else -better, 0, target["what"])

    def test_lines_survive_the_file(self):
        with tempfile.TemporaryDirectory() as place:
            path = results.append("quick", self.lines.values(), place)
            self.assertEqual(results.read([path]), json.loads(json.dumps(list(self.lines.values()))))


class Policy(unittest.TestCase):
    def test_prefixes_tile_the_remotes(self):
        for rules in (1, 2, 3, 60, 1000, 1024):
            networks = policy.prefixes(rules)
            self.assertEqual(len(networks), rules)
            self.assertEqual(sum(network.num_addresses for network in networks), policy.REMOTES.num_addresses)
            self.assertLessEqual(len({network.prefixlen for network in networks}), 2)

    def test_both_devices_get_the_same_rules(self):
        group = policy.security_group(10)
        flows = policy.openflow(10)
        for permission in group["IpPermissions"]:
            self.assertEqual(sum(f"nw_src={permission['IpRanges'][0]['CidrIp']},tp_dst={permission['FromPort']}," in flow for flow in flows), 1)
        self.assertFalse(any(f"tp_dst={policy.FORBIDDEN_PORT}" in flow for flow in flows))
        self.assertEqual(sum(flow.endswith("actions=drop") for flow in flows), 3)


class Plots(unittest.TestCase):
    def test_newest_wins_and_refused_is_nothing(self):
        def line(value, time, refused=None):
            return {"name": "n", "peer": None, "value": value, "time": time, "refused": refused, "commit": "c", "machine": {"cpu": "x", "tsc_hz": 10**9}}

        chosen = plot.newest([line(1, "a"), line(2, "b"), line(None, "c", "noise")])
        self.assertEqual(chosen["n", None]["value"], 2)

    def test_no_plot_mixes_machines(self):
        def line(name, tsc_hz):
            return {"name": name, "peer": None, "value": 1, "commit": "a", "machine": {"cpu": "AMD EPYC", "tsc_hz": tsc_hz}}

        chosen = plot.newest([line("a", 2096000000), line("b", 2096000000), line("a", 2445000000), line("c", 2450000000), line("kernel", None)])
        self.assertEqual(sorted(name for name, _ in chosen), ["a", "c"])
        self.assertEqual(plot.newest([]), {})


class Pktgen(unittest.TestCase):
    folder = pathlib.Path(__file__).resolve().parents[2] / "bench/pktgen"

    def lua(self, *words):
        return subprocess.run(words, capture_output=True, text=True, timeout=60)

    def test_syntax(self):
        files = sorted(self.folder.glob("*.lua"))
        self.assertGreaterEqual(len(files), 5)
        for path in files:
            done = self.lua("luac5.4", "-p", str(path))
            self.assertEqual(done.returncode, 0, done.stderr)

    def test_scripts_against_a_pktgen_of_paper(self):
        done = self.lua("lua5.4", str(pathlib.Path(__file__).with_name("pktgen_test.lua")), str(self.folder))
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertIn("all passed", done.stdout)

    def test_command_line(self):
        words = pktgen.command("/opt/pktgen", "rfc2544", ["-l", "0-2", "--", "-P"])
        self.assertEqual(words[:5], ["/opt/pktgen", "-l", "0-2", "--", "-P"])
        self.assertTrue(words[-1].endswith("bench/pktgen/rfc2544.lua"))
        with self.assertRaisesRegex(BenchError, "no script nonsense: enis, latency, rfc2544"):
            pktgen.command("pktgen", "nonsense", [])

    def test_without_pktgen_it_says_how_to_point_at_one(self):
        run = self.folder.parent / "run"
        done = subprocess.run([str(run), "pktgen"], capture_output=True, text=True, timeout=30, env={"PATH": "/nonexistent"})
        self.assertEqual(done.returncode, 1)
        self.assertIn("TRUNKLINE_PKTGEN=", done.stderr)


if __name__ == "__main__":
    unittest.main()
