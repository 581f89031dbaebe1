# SPDX-License-Identifier: BSD-3-Clause
"""Whether a trial was left alone: what the hypervisor took, and what the kernel put in front of the tested thread.

Without isolated processors the kernel's own threads run on every processor a few times a second, so no switch at all is
too much to ask: an undisturbed busy loop on a quiet machine of two processors sees two to five a second. What counts more
is how much of the time the tested thread, which never sleeps while there is traffic, was not on its processor. The limits
are the caller's, and every result carries what was seen.
"""
import os
import time

MAX_STEAL = 0.005
MAX_SWITCHES_PER_SECOND = 10.0
MAX_TAKEN = 0.01
MAX_GAP_US = 1000.0  # of the generator, where it measures latency
MANY_WAITS = 20.0  # a second


def _cpu_ticks(cpu):
    with open("/proc/stat") as file:
        for line in file:
            if line.startswith(f"cpu{cpu} "):
                fields = [int(field) for field in line.split()[1:]]
                return sum(fields[:8]), fields[7]  # all but guest times, which are in user time already; steal
    raise LookupError(f"/proc/stat knows no cpu{cpu}")


def _switches(pid, tid):
    """(made by others, made by itself)"""
    found = {}
    with open(f"/proc/{pid}/task/{tid}/status") as file:
        for line in file:
            if "ctxt_switches" in line:
                name, count = line.split(":")
                found[name] = int(count)
    return found["nonvoluntary_ctxt_switches"], found["voluntary_ctxt_switches"]


def _seconds_on_cpu(pid, tid):
    with open(f"/proc/{pid}/task/{tid}/schedstat") as file:
        return int(file.read().split()[0]) / 1e9


def pinned_thread(pid, cpu):
    """The thread of a process that is held to this one processor and has used it most."""
    best, most = None, -1
    for tid in os.listdir(f"/proc/{pid}/task"):
        try:
            with open(f"/proc/{pid}/task/{tid}/status") as file:
                allowed = next(line for line in file if line.startswith("Cpus_allowed_list")).split()[1]
            with open(f"/proc/{pid}/task/{tid}/stat") as file:
                fields = file.read().rpartition(")")[2].split()
        except (OSError, StopIteration):
            continue
        used = int(fields[11]) + int(fields[12])
        if allowed == str(cpu) and used > most:
            best, most = int(tid), used
    if best is None:
        raise LookupError(f"process {pid} has no thread that is held to cpu {cpu}")
    return best


class Watch:
    """Begin with Watch(...), end with result(): {"steal", "taken", "switches_per_second", "waits_per_second", "seconds"}.

    A thread that waits by itself (for a lock, say) is off its processor by its own doing: "taken" is None then."""

    def __init__(self, pid, tid, cpu):
        self.pid, self.tid, self.cpu = pid, tid, cpu
        self.began = time.monotonic()
        self.ticks = _cpu_ticks(cpu)
        self.switches = _switches(pid, tid)
        self.on_cpu = _seconds_on_cpu(pid, tid)

    def result(self):
        all_ticks, stolen = _cpu_ticks(self.cpu)
        seconds = time.monotonic() - self.began
        interrupted, waited = (now - before for now, before in zip(_switches(self.pid, self.tid), self.switches))
        taken = max(0.0, 1 - (_seconds_on_cpu(self.pid, self.tid) - self.on_cpu) / seconds)
        return {"steal": round((stolen - self.ticks[1]) / max(1, all_ticks - self.ticks[0]), 5),
                "taken": round(taken, 4) if waited / seconds < MANY_WAITS else None,
                "switches_per_second": round(interrupted / seconds, 2), "waits_per_second": round(waited / seconds, 2),
                "seconds": round(seconds, 3)}


def objection(noise, max_steal=MAX_STEAL, max_switches=MAX_SWITCHES_PER_SECOND, max_taken=MAX_TAKEN):
    """Why a trial with this noise does not count, as a sentence; empty if it does."""
    reasons = []
    if noise["steal"] > max_steal:
        reasons.append(f"the hypervisor took {100 * noise['steal']:.2f} % of the tested processor "
                       f"(limit {100 * max_steal:.2f} %)")
    if noise["taken"] is not None and noise["taken"] > max_taken:
        reasons.append(f"other threads had the tested processor for {100 * noise['taken']:.1f} % of the time "
                       f"(limit {100 * max_taken:.1f} %)")
    if noise["switches_per_second"] > max_switches:
        reasons.append(f"the tested thread was interrupted {noise['switches_per_second']:.1f} times a second "
                       f"(limit {max_switches:g})")
    return "; ".join(reasons)
