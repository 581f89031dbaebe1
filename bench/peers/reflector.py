# SPDX-License-Identifier: BSD-3-Clause
"""The generator's own reflector, whose work is nothing: what the generator can do at most is measured against it."""
import subprocess

from lib.processes import Program, wait_until

from .device import Counters, Device


class Reflector(Device):
    name = "reflector"
    hugepages_mb = 160

    def start(self):
        words = [self.settings.generator, "--trunk", self.links.device("trunk"), "--task", self.links.device("task"), "--lcore",
                 self.settings.cpu, "--memory", self.hugepages_mb, "reflect", "--seconds", 86400]
        self.program = Program(words, self.directory / "reflector.log", cpu=self.settings.cpu, nice=self.settings.nice,
                               stdin=subprocess.PIPE)
        wait_until(self.links.ready_to_connect, 20, "the reflector's ports", self.program)

    def counters(self):
        return Counters(0, 0.0)
