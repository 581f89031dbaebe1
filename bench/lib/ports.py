# SPDX-License-Identifier: BSD-3-Clause
"""What ports cost: one engine with more and more taps, all quiet but for the two that iperf3 uses.

    attach, detach      tasks a second, one after the other, each on a connection of its own; the interface is there when it answers
    descriptors, KiB, mbufs   a port, against the engine with two
    empty turn          of a worker that never sleeps: all ports asked, nothing there
    idle                share of a processor with the idle ladder, nobody talking
    throughput          one TCP stream from task to task
"""
import os
import time

from . import kernel, results, stats
from .processes import BenchError
from .progress import table

COUNTS = (2, 30, 120)
SPIN = {"sleep_us": 0, "block_after_ms": 0}


class Engine(kernel.EngineSide):
    def __init__(self, build, tasks, **config):
        super().__init__(build, 1500, True, tasks, limits={"endpoints": tasks, "connections": 65536}, **config)

    def footprint(self):
        pid = self.lab.engine.pid
        with open(f"/proc/{pid}/status") as file:
            resident = next(int(line.split()[1]) for line in file if line.startswith("VmRSS"))
        return {"descriptors": len(os.listdir(f"/proc/{pid}/fd")), "KiB": resident, "mbufs": self.call("status")["memory"]["mbufs_used"]}

    def processor_seconds(self):
        tasks, spent = f"/proc/{self.lab.engine.pid}/task", 0
        for thread in os.listdir(tasks):
            with open(f"{tasks}/{thread}/schedstat") as file:
                spent += int(file.read().split()[0])
        return spent / 1e9

    def rate_of(self, method, params):
        began = time.monotonic()
        for each in params:
            self.call(method, each)
        return len(params) / (time.monotonic() - began)

    def empty_turn(self, seconds=1.0):
        """Nanoseconds."""
        before, began = self.call("worker.list")["workers"][0]["loops"], time.monotonic()
        time.sleep(seconds)
        after, ended = self.call("worker.list")["workers"][0]["loops"], time.monotonic()
        return (ended - began) * 1e9 / (after - before)

    def idle_share(self, seconds=5.0):
        before, began = self.processor_seconds(), time.monotonic()
        time.sleep(seconds)
        return 100 * (self.processor_seconds() - before) / (time.monotonic() - began)


def measure(build, count, options, progress):
    """{name: (unit, samples)}"""
    found = {}
    engine = Engine(build, count)
    try:
        progress.now(f"{count} ports: attach, idle, throughput")
        engine.start()
        few, others = engine.footprint(), engine.attached[2:]
        if others:
            attached, detached = [], []
            for turn in range(3):
                attached.append(engine.rate_of("task.attach", others))
                if turn == 0:
                    many = engine.footprint()
                detached.append(engine.rate_of("task.detach", [{"task": task["eni"]} for task in others]))
            engine.rate_of("task.attach", others)
            found["attach"], found["detach"] = ("tasks/s", attached), ("tasks/s", detached)
            for what in many:
                found[f"{what} a port"] = (what, [(many[what] - few[what]) / len(others)])
        time.sleep(1)
        found["idle"] = ("% of a processor", [engine.idle_share() for _ in range(3)])
        found["throughput"] = ("Gbit/s", [kernel.measure(engine, "task-to-task", options.seconds)[0] for _ in range(options.pairs)])
    finally:
        engine.lab.stop()
    engine = Engine(build, count, idle=SPIN)
    try:
        progress.now(f"{count} ports: empty turns")
        engine.start()
        for task in engine.attached[2:]:
            engine.call("task.attach", task)
        time.sleep(1)
        found["empty turn"] = ("ns", [engine.empty_turn() for _ in range(9)])
    finally:
        engine.lab.stop()
    return found


def run(options, progress):
    missing = kernel.missing_requirements(options.build, ("iperf3",), memory_mb=256)
    if missing:
        raise BenchError("; ".join(missing))
    lines, rows = [], []
    for count in COUNTS:
        progress.say(f"{count} ports")
        for name, (unit, samples) in measure(options.build, count, options, progress).items():
            value = stats.median(samples)
            spread = list(stats.bootstrap_interval(samples)) if len(samples) > 1 else None
            lines.append(results.line(f"ports/{count}/{name.replace(' ', '-')}", unit, value, spread=spread, samples=len(samples)))
            rows.append((str(count), name, f"{value:.3g}", f"{spread[0]:.3g}..{spread[1]:.3g}" if spread else "", unit))
    print(table(rows, ("ports", "what", "value", "95 %", "unit")))
    progress.say(f"written to {results.append('ports', lines, options.results)}")
    return 0
