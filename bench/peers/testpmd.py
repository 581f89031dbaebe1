# SPDX-License-Identifier: BSD-3-Clause
"""testpmd, which forwards and looks at nothing (io) or swaps the MAC addresses (macswap). One process plays both: the
mode is set before a trial."""
import os
import re
import select
import shutil
import time

from lib.processes import BenchError, Program, wait_until

from .device import Counters, Device


class Testpmd(Device):
    name = "testpmd"
    modes = ("io", "macswap")
    hugepages_mb = 160

    def start(self):
        binary = shutil.which("dpdk-testpmd")
        if binary is None:
            raise BenchError("there is no dpdk-testpmd; Debian has it in dpdk-dev")
        self._terminal, end = os.openpty()  # it is a program for a terminal, and holds back its words from a pipe
        ring = 1 << self.links.ring
        words = [binary, "-l", f"{self.settings.main_cpu},{self.settings.cpu}", "-m", self.hugepages_mb, "--no-pci", "--in-memory",
                 "--single-file-segments", "--vdev", self.links.device("trunk"), "--vdev", self.links.device("task"), "--",
                 "-i", "--nb-cores=1", "--burst=32", f"--rxd={ring}", f"--txd={ring}", "--record-core-cycles",
                 "--total-num-mbufs=32768", "--no-lsc-interrupt", "--disable-link-check"]
        self.program = Program(words, self.directory / "testpmd.log", nice=self.settings.nice, stdin=end, stdout=end)
        os.close(end)
        self._read_until("testpmd> ", 30)
        wait_until(self.links.ready_to_connect, 10, "testpmd's ports", self.program)
        self._mode = None

    def _read_until(self, wanted, seconds):
        text, end = "", time.monotonic() + seconds
        while wanted not in text:
            if not select.select([self._terminal], [], [], max(0, end - time.monotonic()))[0]:
                raise BenchError(f"testpmd did not say {wanted!r}; it said:\n{text[-600:]}")
            try:
                text += os.read(self._terminal, 65536).decode(errors="replace")
            except OSError:
                raise BenchError(f"testpmd ended; it said:\n{text[-600:]}\n{self.program.tail()}") from None
        return text

    def tell(self, command):
        os.write(self._terminal, command.encode() + b"\n")
        return self._read_until("testpmd> ", 10)

    def prepare(self):
        self.set_mode("io")

    def set_mode(self, mode):
        if mode == self._mode:
            return
        if self._mode is not None:
            self.tell("stop")
        self.tell(f"set fwd {mode}")
        self.tell("start")
        self._mode = mode

    def counters(self):
        said = self.tell("show fwd stats all")
        total = re.search(r"total cycles=(\d+) / total \S+ packets=(\d+)", said)
        if total is None:  # nothing was forwarded in this mode yet
            return Counters(0, 0.0)
        return Counters(int(total[2]), float(total[1]))

    def end(self):
        super().end()
        if self.program is not None:
            os.close(self._terminal)


class Mode(Device):
    """One forwarding mode of a testpmd that is shared."""

    def __init__(self, testpmd, mode):
        self.testpmd, self.mode, self.name = testpmd, mode, f"testpmd-{mode}"
        self.links, self.settings = testpmd.links, testpmd.settings

    @property
    def program(self):
        return self.testpmd.program

    def resume(self):
        self.testpmd.resume()
        self.testpmd.set_mode(self.mode)

    def counters(self):
        return self.testpmd.counters()

    def describe(self):
        return f"{self.testpmd.describe()}; set fwd {self.mode}"

    def end(self):
        pass  # its owner ends it
