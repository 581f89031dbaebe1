# SPDX-License-Identifier: BSD-3-Clause
"""A DPDK task: Debian's testpmd with one net_virtio_user port, spoken to as a person would at its terminal."""
import os
import re
import select
import time

from .lab import LabError

MEMORY_MB = 64


class DpdkTask:
    """testpmd on a vhost-user socket. `server`: it makes the socket and waits there for the engine; if not, the engine has made it.

    Modes are testpmd's: icmpecho answers ARP and ping, io with one port sends back what comes, rxonly swallows it. send() writes
    UDP datagrams with the addresses and ports that `sends` says: (source, destination, source port, destination port).
    """

    def __init__(self, lab, path, mac, server=True, mode="icmpecho", sends=None, gateway=None, device="", options=()):
        self.lab = lab
        self.log = f"testpmd-{os.path.basename(path)}.log"
        if server and os.path.exists(path):
            os.unlink(path)  # of one that crashed: it would not bind, as any program would not
        self._terminal, end = os.openpty()  # it holds back its words from a pipe
        words = ["dpdk-testpmd", f"--lcores=0@{lab.main_cpu},1@{lab.main_cpu}", "-m", str(MEMORY_MB), "--in-memory",
                 "--single-file-segments", "--no-pci", "--no-telemetry", "--iova-mode=va",
                 "--file-prefix", f"tl-{lab.id}-{os.path.basename(path)}",
                 "--vdev", f"net_virtio_user0,path={path},server={int(server)},queues=1,mac={mac}{device}", "--", "-i",
                 "--total-num-mbufs=2048", "--nb-cores=1", "--burst=8", f"--forward-mode={mode}", *options]
        if sends is not None:
            source, destination, from_port, to_port = sends
            words += [f"--tx-ip={source},{destination}", f"--tx-udp={from_port},{to_port}"]
        if gateway is not None:
            words += [f"--eth-peer=0,{gateway}"]
        # It polls without a rest, on the processor of the control thread and the test: the worker keeps its own.
        self.process = lab.spawn(None, *words, log=self.log, stdin=end, stdout=end)
        os.close(end)
        try:
            said = self._read_until("testpmd> ", 30)
            if "No probed ethernet devices" in said:
                raise LabError(f"testpmd has no port; it said:\n{said[-800:]}")
            self.tell("start")
        except BaseException:
            self.end()
            raise

    def tell(self, command, seconds=10):
        """What it says to a command."""
        os.write(self._terminal, command.encode() + b"\n")
        return self._read_until("testpmd> ", seconds)

    def send(self, count):
        """Exactly that many datagrams of the kind it was started for; a multiple of eight, at most 64 at a time."""
        assert count % 8 == 0 and count <= 64
        self.tell("stop")
        self.tell(f"start tx_first {count // 8}")

    def counters(self):
        """(received, sent) by its port's own counting."""
        said = self.tell("show port stats 0")
        return int(re.search(r"RX-packets: (\d+)", said)[1]), int(re.search(r"TX-packets: (\d+)", said)[1])

    def pid(self):
        """Of testpmd itself."""
        return self.process.pid

    def kill(self):
        """As if it had crashed."""
        self.process.kill()
        self.process.wait(timeout=10)
        self.end()

    def end(self):
        self.lab.end(self.process)
        if self._terminal >= 0:
            os.close(self._terminal)
            self._terminal = -1

    def _read_until(self, wanted, seconds):
        text, last = "", time.monotonic() + seconds
        while wanted not in text:
            if not select.select([self._terminal], [], [], max(0, last - time.monotonic()))[0]:
                raise LabError(f"testpmd did not say {wanted!r} in {seconds} s; it said:\n{text[-800:]}")
            try:
                text += os.read(self._terminal, 65536).decode(errors="replace")
            except OSError:
                raise LabError(f"testpmd ended; it said:\n{text[-800:]}") from None
        return text

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.end()
