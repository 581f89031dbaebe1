# SPDX-License-Identifier: BSD-3-Clause
"""What is compared: which traffic over which links."""
from dataclasses import dataclass


@dataclass(frozen=True)
class Scenario:
    links: str = "memif"
    what: str = "established"   # established, connections, latency
    flows: int = 10_000
    size: str = "64"
    direction: str = "in"
    order: str = "uniform"

    @property
    def name(self):
        if self.what == "connections":
            return f"peers/{self.links}/connections"
        return f"peers/{self.links}/{self.what}/{short(self.flows)}/{self.size}/{self.direction}" + \
            ("/zipf" if self.order == "zipf" else "")

    def command(self, seconds, warmup, first):
        """The generator's command and its options."""
        if self.what == "connections":
            return "connections", {"seconds": seconds, "warmup": warmup, "first": first}
        options = {"flows": self.flows, "size": self.size, "direction": self.direction, "order": self.order,
                   "seconds": seconds, "warmup": warmup}
        if self.what == "latency":
            options |= {"latency": True, "rate": LATENCY_RATE}
        return "stream", options

    @property
    def metrics(self):
        """(name, unit, smaller is better) each."""
        cycles = ("cycles", "cycles/packet", True)
        if self.what == "connections":
            return (("rate", "connections/s", False), cycles)
        if self.what == "latency":
            return (("latency-p50", "us", True), ("latency-p99", "us", True), ("latency-p99.9", "us", True))
        return (("throughput", "Mpps", False), cycles)


LATENCY_RATE = 300_000  # frames a second: well under what the slowest of the devices can do


def short(number):
    for factor, letter in ((1_000_000, "M"), (1_000, "k")):
        if number >= factor and number % factor == 0:
            return f"{number // factor}{letter}"
    return str(number)


def matrix(which):
    """`which`: quick, default or full."""
    if which == "quick":
        return [Scenario(), Scenario(what="connections")]
    chosen = [Scenario(flows=flows) for flows in (1_000, 10_000, 100_000, 1_000_000)]
    chosen += [Scenario(size=size) for size in ("512", "1518", "imix")]
    chosen += [Scenario(what="connections"), Scenario(what="latency")]
    if which == "full":
        chosen += [Scenario(direction="both"), Scenario(direction="out"), Scenario(flows=1_000_000, direction="both"),
                   Scenario(flows=1_000_000, order="zipf"), Scenario(flows=1_000_000, size="imix")]
        chosen += [Scenario(links=links, **{key: value for key, value in scenario.__dict__.items() if key != "links"})
                   for links in ("memif-zc", "virtio") for scenario in list(chosen)]
    else:
        chosen += [Scenario(links="memif-zc"), Scenario(links="memif-zc", flows=1_000_000), Scenario(links="memif-zc", size="1518")]
        chosen += [Scenario(links="virtio"), Scenario(links="virtio", size="1518")]
    return sorted(chosen, key=lambda scenario: scenario.links)  # one bring-up for each kind of link
