# SPDX-License-Identifier: BSD-3-Clause
"""All devices of a comparison, up at the same time on links of their own, each with its generator; one of them runs at a
time, the others are stopped with their connections in memory."""
import pathlib
import shutil
import tempfile
import time

from peers.engine import Engine
from peers.ovs import Ovs
from peers.reflector import Reflector
from peers.testpmd import Mode, Testpmd

from . import noise, trial
from .generator import Generator
from .links import Links
from .processes import BenchError, hugepages, wait_until

GENERATOR_MB = 160
SETTLE = 0.05  # seconds between the start of a stopped device and its first frame
NAMES = ("engine", "testpmd-io", "testpmd-macswap", "ovs-dpdk")
UNFORBIDDEN = "the policy is not in force: {name} let through {count} of 1000 frames that no rule allows"


class Session:
    def __init__(self, kind, names, settings, say):
        self.kind, self.names, self.settings, self.say = kind, names, settings, say
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="trunkline-bench-", dir="/run"))
        self.devices, self.generators, self._started = {}, {}, []
        self._ramped, self._next_connection = {}, {}
        self._pages = None

    def __enter__(self):
        try:
            classes = {"reflector": Reflector}
            if "engine" in self.names:
                classes["engine"] = Engine
            if any(name.startswith("testpmd") for name in self.names):
                classes["testpmd"] = Testpmd
            if "ovs-dpdk" in self.names:
                classes["ovs-dpdk"] = Ovs
            self._pages = hugepages(sum(cls.hugepages_mb + cls.more_hugepages_mb + GENERATOR_MB for cls in classes.values()))
            self._pages.__enter__()
            for name, cls in classes.items():
                self._bring_up(name, cls)
            if "testpmd" in self.devices:
                for mode in Testpmd.modes:
                    if f"testpmd-{mode}" in self.names:
                        self.devices[f"testpmd-{mode}"] = Mode(self.devices["testpmd"], mode)
                        self.generators[f"testpmd-{mode}"] = self.generators["testpmd"]
            return self
        except BaseException:
            self.__exit__()
            raise

    def _bring_up(self, name, cls):
        self.say(f"{self.kind}: {name} starts")
        place = self.directory / name
        links = Links(self.kind, place / "links", self.settings.ring)
        device = cls(links, place, self.settings)
        self._started.append(device)

        def generator():
            self.generators[name] = Generator(self.settings.generator, links, place / "generator.log", cpu=self.settings.main_cpu,
                                              rx_queues=device.tx_queues if self.kind.startswith("memif") else 1,
                                              nice=self.settings.nice, memory_mb=GENERATOR_MB)

        if links.generator_first:
            generator()
            if self.kind == "memif-zc":
                # The first client that is connected closes the descriptor of its process's memory (22.11), so both have to be
                # there before either is answered.
                wait_until(links.ready_to_connect, 20, "the generator's ports", self.generators[name].program)
                self.generators[name].program.pause()
        device.start()
        if self.kind == "memif-zc":
            self.generators[name].program.resume()
        if not links.generator_first:
            generator()
        self.generators[name].wait_ready()
        self.settings.set_tsc_hz(self.generators[name].tsc_hz)
        device.prepare()
        self.devices[name] = device
        if device.stateful:
            self._prove_policy(device, name)
        device.pause()

    def _prove_policy(self, device, name):
        """A firewall that lets everything through is fast. What a rule allows passes, what none allows does not."""
        generator = self.generators[name]
        forbidden = generator.run("stream", flows=1000, count=1000, rate=100_000, port=81)
        if forbidden["inward"]["received"] != 0:
            raise BenchError(UNFORBIDDEN.format(name=name, count=forbidden["inward"]["received"]))
        allowed = generator.run("ramp", flows=1000)
        if allowed["established"] != 1000:
            raise BenchError(f"{name} lets only {allowed['established']} of 1000 allowed connections through; its log: {device.program.log}")

    def __exit__(self, *_):
        # The device first: a memif port whose peer goes away while it is polled may bring its process down.
        for device in reversed(self._started):
            device.end()
        for generator in self.generators.values():
            generator.end()
        if self._pages is not None:
            self._pages.__exit__(None, None, None)
        if not self.settings.keep:
            shutil.rmtree(self.directory, ignore_errors=True)

    def generator_limit(self, scenario, seconds=1.0, trials=3):
        """The generator's median rate in this scenario against the reflector; frames or connections a second."""
        if scenario.what == "latency":
            return None
        device, generator = self.devices["reflector"], self.generators["reflector"]
        rates = []
        device.resume()
        time.sleep(SETTLE)
        for _ in range(trials):
            command, options = scenario.command(seconds, 0.2, 0)
            result = generator.run(command, **options)
            rates.append(result.get("pps", result.get("connections_per_second")))
        device.pause()
        return sorted(rates)[trials // 2]

    def ramp(self, name, scenario):
        """The device knows all flows of the scenario, or this raises."""
        device = self.devices[name]
        if not device.stateful or scenario.what == "connections" or self._ramped.get(name, 0) >= scenario.flows:
            return
        device.resume()
        time.sleep(SETTLE)
        result = self.generators[name].run("ramp", flows=scenario.flows)
        device.pause()
        if result["established"] < scenario.flows:
            raise BenchError(f"{name} knows {result['established']} of {scenario.flows} connections after the ramp")
        self._ramped[name] = scenario.flows

    def trial(self, name, scenario, seconds, warmup, limit):
        device, generator = self.devices[name], self.generators[name]
        device.program.require_alive()
        first = self._next_connection.get(name, 1 << 30)  # far from the numbers that the ramps use
        command, options = scenario.command(seconds, warmup, first)
        device.resume()
        try:
            time.sleep(SETTLE)
            before = device.counters()
            watch = device.watch()
            result = generator.run(command, **options)
            seen = watch.result()
            after = device.counters()
        finally:
            device.pause()
        if scenario.what == "connections":
            self._next_connection[name] = first + result["opened"]
        objection = noise.objection(seen, self.settings.max_steal, self.settings.max_switches, self.settings.max_taken)
        if scenario.what == "latency" and result["longest_gap_us"] > noise.MAX_GAP_US:
            # The generator's clock is what measures here.
            objection = objection or f"the generator was kept from its processor for {result['longest_gap_us']:.0f} us"
        busy = after.busy_cycles - before.busy_cycles
        share = busy / (result["total_seconds"] * generator.tsc_hz) if busy > 0 else None
        return trial.Trial(values=trial.values(scenario, result, before, after),
                           bottleneck="" if scenario.what == "latency" else trial.bottleneck(result, share, limit),
                           noise=seen, objection=objection,
                           command=result["command"], details={"busy_share": share, "result": result})
