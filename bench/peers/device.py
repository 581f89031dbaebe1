# SPDX-License-Identifier: BSD-3-Clause
"""What the comparison asks of a device under test.

A device polls on one processor. Between its trials it is stopped (SIGSTOP), so that several can be up, with all their
connections, and take turns on that processor. Counters are read while no traffic flows: they only ever grow, and say
packets received and TSC cycles spent on turns that had packets.
"""
from dataclasses import dataclass

from lib import noise


@dataclass
class Counters:
    packets: int
    busy_cycles: float


class Device:
    name = ""
    stateful = False
    tx_queues = 1       # that it sends on: the generator must receive on as many
    hugepages_mb = 256  # of DPDK
    more_hugepages_mb = 0

    def __init__(self, links, directory, settings):
        """`settings`: build, cpu (the tested one), main_cpu, nice, rules, connections, tsc_hz()."""
        self.links, self.directory, self.settings = links, directory, settings
        directory.mkdir(parents=True, exist_ok=True)
        self.program = None

    def start(self):
        """Returns when the generator may connect."""
        raise NotImplementedError

    def prepare(self):
        """Once the generator is connected: policy, ports up."""

    def counters(self):
        raise NotImplementedError

    def describe(self):
        """The command line and what else it takes to do the same again."""
        return " ".join(self.program.words)

    def watch(self):
        tid = noise.pinned_thread(self.program.pid, self.settings.cpu)
        return noise.Watch(self.program.pid, tid, self.settings.cpu)

    def pause(self):
        self.program.pause()

    def resume(self):
        self.program.resume()

    def end(self):
        if self.program is not None:
            self.program.end()
