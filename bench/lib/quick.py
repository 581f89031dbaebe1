# SPDX-License-Identifier: BSD-3-Clause
"""The in-process benchmarks: runs every Google Benchmark program of the build, and turns what it prints into result lines.

A program reports through counters: `cycles` with `p10` and `p90`, `ns`; beside a peer `peer_cycles`, `ratio`, `ratio_low`,
`ratio_high`; `pace` (TSC cycles a round of bench/core_pace.h's loop) and `full_pace` (the share of samples taken at the fastest pace seen). A line's name is PROGRAM/BENCHMARK; a counter of any other name is a line of its own, PROGRAM/BENCHMARK/counter.
A benchmark that Google Benchmark reports as failed is a refused line; so are cycles taken while the core was slower than it was
for others of the same run. What a program says after "note:" is shown.
"""
import json
import os
import re
import subprocess
import tempfile
import time

from . import results, targets
from .processes import BenchError
from .progress import table

BESIDE = ("peer_cycles", "ratio", "ratio_low", "ratio_high")
OF_CYCLES = ("cycles", "cycles/packet", "p10", "p90", "ns", "pace", "full_pace")
PACE_TOLERANCE = 1.1  # as bench/core_pace.h has it
ONE_PACE_UNITS = ("cycles", "1/s")
UNITS = (("per_second", "1/s"), ("bytes", "bytes"), ("us_", "us"), ("_us", "us"), ("_ns", "ns"), ("cycles", "cycles"))
NOT_COUNTERS = {"name", "family_index", "per_family_instance_index", "run_name", "run_type", "repetitions", "repetition_index",
                "threads", "iterations", "real_time", "cpu_time", "time_unit", "label", "error_occurred", "error_message",
                "aggregate_name", "aggregate_unit", "items_per_second", "bytes_per_second"}
PEER_NAMES = ("rte_acl", "rte_hash")
SECONDS = 55  # the whole word takes less than a minute


def unit_of(counter):
    return next((unit for part, unit in UNITS if part in counter), "")


def peer_of(benchmark):
    """Named by the benchmark's label, or by its name."""
    label = benchmark.get("label", "")
    known = re.match(r"(?:beside |vs |peer[:= ])?([\w-]+)$", label)
    if known:
        return known[1]
    return next((peer for peer in PEER_NAMES if peer in benchmark["name"]),
                "rte_acl" if "beside_acl" in benchmark["name"] else "rte_hash" if "table_" in benchmark["name"]
                else "without updates" if "during_updates" in benchmark["name"] else "peer")


def convert(program, report, command, noise=None):
    """Result lines of one program's JSON report."""
    lines = []
    for benchmark in report["benchmarks"]:
        if benchmark.get("run_type") == "aggregate" and benchmark.get("aggregate_name") != "median":
            continue
        # How often Google Benchmark ran it, and how it timed it, is not what it is.
        name = f"{program}/" + re.sub(r"/(iterations:\d+|manual_time|real_time)", "", benchmark["name"])
        pace = {"pace": round(benchmark["pace"], 3), "full_pace": round(benchmark["full_pace"], 3)} if "pace" in benchmark else None
        about = {"command": command, "noise": noise or pace}
        if benchmark.get("error_occurred"):
            lines.append(results.line(name, "cycles", None, refused=benchmark.get("error_message") or "it failed", **about))
            continue
        counters = {key: value for key, value in benchmark.items() if key not in NOT_COUNTERS and isinstance(value, (int, float))}
        cycles = counters.get("cycles", counters.get("cycles/packet"))
        if cycles is not None:
            spread = [counters["p10"], counters["p90"]] if "p10" in counters and "p90" in counters else None
            beside = "ratio" in counters
            lines.append(results.line(
                name, "cycles", cycles, spread=spread, samples=benchmark.get("iterations", 0),
                peer=peer_of(benchmark) if beside else None, ratio=counters.get("ratio"),
                ratio_low=counters.get("ratio_low"), ratio_high=counters.get("ratio_high"),
                ns=counters.get("ns"), peer_value=counters.get("peer_cycles"), **about))
        elif not counters:
            lines.append(results.line(name, benchmark["time_unit"], benchmark["real_time"], samples=benchmark.get("iterations", 0), **about))
        for counter, value in counters.items():
            if counter not in OF_CYCLES + BESIDE:
                lines.append(results.line(f"{name}/{counter}", unit_of(counter), value, samples=benchmark.get("iterations", 0), **about))
        if counters.get("ns") and cycles and cycles > 1:
            results.set_tsc_hz(round(cycles / counters["ns"] * 1e3) * 1_000_000)
    for line in lines:
        line["machine"] = results.machine()
    return lines


def refuse_slow_core(lines):
    """Refuses figures in TSC cycles whose samples met a slower core than the fastest of this run: one that was shared, or had a lower
    clock. A ratio to a peer that took turns with ours stays."""
    paces = [line["noise"]["pace"] for line in lines if line["noise"] and "pace" in line["noise"]]
    for line in lines:
        pace = line["noise"].get("pace") if line["noise"] else None
        if pace and not line["refused"] and not line["peer"] and line["unit"] in ONE_PACE_UNITS and pace > PACE_TOLERANCE * min(paces):
            line["refused"] = (f"the core was shared or slow: {100 * line['noise']['full_pace']:.0f} % of the samples met its full pace, "
                               f"at the others it had {100 * min(paces) / pace:.0f} % of it; it took {line['value']:.4g} {line['unit']} so")
            line["value"] = line["spread"] = None


def programs(build):
    folder = build / "bench"
    return sorted(path for path in folder.glob("trunkline-*bench") if path.is_file() and os.access(path, os.X_OK))


def run_program(path, options, progress, deadline):
    with tempfile.NamedTemporaryFile(suffix=".json") as out:
        words = [str(path), f"--benchmark_out={out.name}", "--benchmark_out_format=json", "--benchmark_format=json"]
        if options.filter:
            words.append(f"--benchmark_filter={options.filter}")
        began = time.monotonic()
        child = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        try:
            for text in child.stdout:
                if text.startswith("note: "):
                    progress.say(f"{path.name}: {text.strip()}")
                known = re.search(r'"name": "([^"]+)"', text)
                if known:
                    progress.now(f"{path.name}: {known[1]}")
                if time.monotonic() > deadline:
                    progress.say(f"{path.name}: this takes longer than the minute that is meant for all")
                    deadline = float("inf")
            status = child.wait()
        finally:
            if child.poll() is None:
                child.terminate()
                child.wait(10)
        if status != 0:
            raise BenchError(f"{path.name} ended with {status}")
        progress.say(f"{path.name}: {time.monotonic() - began:.1f} s")
        text = open(out.name).read()
    if not text.strip():  # --filter left nothing of it
        return []
    # The command as somebody types it who stands in the project's folder.
    return convert(path.name.removeprefix("trunkline-"), json.loads(text), " ".join([os.path.relpath(path, results.ROOT)] + words[4:]))


def number(value):
    return "-" if value is None else f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def show(lines, wanted):
    """(table, whether a must is missed)."""
    rows, missed = [], []
    for line in lines:
        target = targets.of(line, wanted)
        figure, verdict = targets.verdict(line, target) if target else (None, "")
        if verdict in ("missed", "absent"):
            missed.append((line, target))
        rows.append((line["name"], number(line["value"]),
                     f"{number(line['spread'][0])}..{number(line['spread'][1])}" if line["spread"] else "", line["unit"],
                     f"{line['ratio']:.2f} [{number(line['ratio_low'])}, {number(line['ratio_high'])}] {line['peer']}" if line["ratio"] else "",
                     number(target["must"]) if target else "", number(target["aim"]) if target else "",
                     verdict if not line["refused"] else "refused"))
    head = ("what", "value", "p10..p90", "unit", "better than the peer by", "must", "aim", "reached")
    text = table(rows, head)
    text += "".join(f"\nrefused: {line['name']}: {line['refused']}" for line in lines if line["refused"])
    text += "".join(f"\nmissed: {target['what']}: {line['name']}" for line, target in missed)
    return text, bool(missed)


def run(options, progress):
    found = programs(options.build)
    if not found:
        raise BenchError(f"there is no trunkline-*bench in {options.build}/bench; ./dev bench quick builds them")
    deadline = time.monotonic() + SECONDS
    lines, failed = [], []
    for path in found:
        progress.say(path.name)
        try:
            lines += run_program(path, options, progress, deadline)
        except BenchError as trouble:
            failed.append(str(trouble))
            progress.say(str(trouble))
    refuse_slow_core(lines)
    if lines:
        text, missed = show(lines, targets.load())
        print(text, flush=True)
        progress.say(f"written to {results.append('quick', lines, options.results)}")
    else:
        missed = False
    return 1 if failed or missed or any(line["refused"] for line in lines) else 0
