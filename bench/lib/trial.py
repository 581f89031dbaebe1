# SPDX-License-Identifier: BSD-3-Clause
"""One trial of one device, and what it says."""
from dataclasses import dataclass, field
from statistics import fmean

BUSY = 0.9           # a device that spends this share of its processor on packets has no more to give
BLOCKED = 0.5        # of the generator's bursts found a full ring: it was waiting for the device
LOST = 0.005         # of the frames that the device took did not come out
NEAR_LIMIT = 0.9     # of what the generator does against a device whose work is nothing


@dataclass
class Trial:
    values: dict                 # metric: value
    bottleneck: str
    noise: dict
    objection: str               # empty: it counts
    command: str                 # the generator's
    details: dict = field(default_factory=dict)


def lanes(result):
    return [result[name] for name in ("inward", "outward") if name in result]


def bottleneck(result, busy_share, generator_limit):
    """Who set the pace of a run that went as fast as it could. `generator_limit`: its rate against the reflector."""
    sent = sum(lane["sent"] for lane in lanes(result)) or result.get("packets", 0)
    lost = sum(lane["lost"] for lane in lanes(result))
    blocked = fmean([lane["blocked_share"] for lane in lanes(result)] or [result.get("blocked_share", 0.0)])
    if busy_share is not None and busy_share >= BUSY:
        return "device"
    if sent and lost / sent > LOST:
        return "receive side"
    rate = result.get("pps", result.get("connections_per_second", 0))
    if generator_limit and rate >= NEAR_LIMIT * generator_limit:
        return "generator"
    if blocked >= BLOCKED:
        # It did not keep up, and was not busy: somebody else had its processor.
        return "device" if busy_share is None else "the device's processor, which others used"
    return "generator"


def values(scenario, result, before, after):
    """The metrics of a scenario out of the generator's result and the device's counters around it."""
    packets = after.packets - before.packets
    cycles = (after.busy_cycles - before.busy_cycles) / packets if packets > 0 and after.busy_cycles > before.busy_cycles else None
    if scenario.what == "connections":
        return {"rate": result["connections_per_second"], "cycles": cycles}
    if scenario.what == "latency":
        latency = lanes(result)[0]["latency_ns"]
        return {f"latency-{name}": latency[name] / 1e3 for name in ("p50", "p99", "p99.9")}
    return {"throughput": result["pps"] / 1e6, "cycles": cycles}
