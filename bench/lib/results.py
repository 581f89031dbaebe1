# SPDX-License-Identifier: BSD-3-Clause
"""Results: one JSON object a line, in bench/results/DATE-KIND.jsonl. bench/README.md says what each member means."""
import datetime
import functools
import json
import os
import pathlib
import platform
import shlex
import subprocess
import sys

BENCH = pathlib.Path(__file__).resolve().parents[1]
ROOT = BENCH.parent
DIRECTORY = BENCH / "results"


def _first_line(*command):
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=20)
        return done.stdout.splitlines()[0].strip() if done.returncode == 0 and done.stdout else ""
    except (OSError, subprocess.TimeoutExpired):
        return ""


def commit():
    """Of the sources; with "+" when something was changed since."""
    name = _first_line("git", "rev-parse", "--short=12", "HEAD")
    changed = _first_line("git", "status", "--porcelain", "--untracked-files=no", "--", ":!bench/results", ":!docs")
    return name + ("+" if name and changed else "")


_tsc_hz = None


def set_tsc_hz(hertz):
    """Whoever has measured it says so, before the first line."""
    global _tsc_hz
    _tsc_hz = hertz


@functools.cache
def _cpu():
    with open("/proc/cpuinfo") as file:
        return next((text.split(":", 1)[1].strip() for text in file if text.startswith("model name")), "")


def machine():
    version = ROOT / ".deps/dpdk-version"
    return {"cpu": _cpu(), "cores": os.cpu_count(), "kernel": platform.release(),
            "dpdk": version.read_text().strip() if version.exists() else "", "tsc_hz": _tsc_hz}


def line(name, unit, value, *, spread=None, samples=0, peer=None, ratio=None, ratio_low=None, ratio_high=None,
         command=None, bottleneck=None, noise=None, refused=None, **more):
    """`refused` is a sentence; a refused figure has no value."""
    if refused:
        value, spread, ratio, ratio_low, ratio_high = None, None, None, None, None
    return {"name": name, "unit": unit, "value": value, "spread": spread, "samples": samples, "peer": peer,
            "ratio": ratio, "ratio_low": ratio_low, "ratio_high": ratio_high,
            "command": command or shlex.join(sys.argv), "machine": machine(), "commit": commit(),
            "time": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
            "bottleneck": bottleneck, "noise": noise, "refused": refused, **more}


def path_of(kind, directory=DIRECTORY):
    return pathlib.Path(directory) / f"{datetime.date.today().isoformat()}-{kind}.jsonl"


def append(kind, lines, directory=DIRECTORY):
    path = path_of(kind, directory)
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a") as file:
        for entry in lines:
            file.write(json.dumps(entry) + "\n")
    return path


def read(paths):
    """All lines of these files, oldest first."""
    entries = []
    for path in sorted(paths):
        with open(path) as file:
            entries += [json.loads(text) for text in file if text.strip()]
    return sorted(entries, key=lambda entry: entry["time"])
