# SPDX-License-Identifier: BSD-3-Clause
"""Programs that a benchmark starts, and ends again by pid; hugepages that it needs, and gives back."""
import contextlib
import os
import pathlib
import signal
import subprocess
import time

PAGES = pathlib.Path("/sys/kernel/mm/hugepages/hugepages-2048kB")


class BenchError(Exception):
    """The benchmark itself cannot go on; the text says why and what to do."""


def set_priority(nice):
    """Of this process and, where the kernel shares out processors by session, of its session: there a nice value only
    counts among processes of one session."""
    os.setpriority(os.PRIO_PROCESS, 0, nice)
    with contextlib.suppress(OSError):
        pathlib.Path("/proc/self/autogroup").write_text(str(nice))


class Program:
    """One program in a session of its own, with its words in a log file. `nice` below 0 needs root."""

    def __init__(self, words, log, cpu=None, nice=0, environment=None, stdin=subprocess.DEVNULL, stdout=None, setup=None):
        self.words, self.log = [str(word) for word in words], pathlib.Path(log)

        def prepare():
            if cpu is not None:
                os.sched_setaffinity(0, {cpu} if isinstance(cpu, int) else cpu)
            if nice:
                set_priority(nice)

        with open(self.log, "ab") as file:
            self.child = subprocess.Popen(self.words, stdin=stdin, stdout=stdout if stdout is not None else file,
                                          stderr=file, start_new_session=True, preexec_fn=prepare,
                                          env={**os.environ, **(environment or {})})
        self.pid = self.child.pid

    def is_alive(self):
        return self.child.poll() is None

    def pause(self):
        self.child.send_signal(signal.SIGSTOP)

    def resume(self):
        self.child.send_signal(signal.SIGCONT)

    def end(self, seconds=5):
        if not self.is_alive():
            return
        self.resume()
        self.child.terminate()
        try:
            self.child.wait(seconds)
        except subprocess.TimeoutExpired:
            self.child.kill()
            self.child.wait(10)

    def tail(self, lines=15):
        try:
            return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])
        except OSError:
            return ""

    def require_alive(self):
        if not self.is_alive():
            raise BenchError(f"{self.words[0]} ended with {self.child.returncode}; the end of {self.log}:\n{self.tail()}")


def wait_until(condition, seconds, what, program=None):
    end = time.monotonic() + seconds
    while not condition():
        if program is not None:
            program.require_alive()
        if time.monotonic() > end:
            raise BenchError(f"waited {seconds} s: {what}" + (f"; the end of {program.log}:\n{program.tail()}" if program else ""))
        time.sleep(0.05)


def run(words, environment=None, seconds=60):
    """Runs a program to its end and returns what it printed."""
    done = subprocess.run([str(word) for word in words], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                          timeout=seconds, env={**os.environ, **(environment or {})})
    if done.returncode != 0:
        raise BenchError(f"{' '.join(map(str, words[:6]))}: exit code {done.returncode}: {done.stderr.strip()[-800:]}")
    return done.stdout


@contextlib.contextmanager
def hugepages(megabytes, most=4096):
    """That much is free inside the block; what was added is taken away afterwards."""
    if megabytes > most:
        raise BenchError(f"{megabytes} MB of hugepages are more than this benchmark may take ({most} MB)")
    total_file, free_file = PAGES / "nr_hugepages", PAGES / "free_hugepages"
    before = int(total_file.read_text())
    missing = megabytes // 2 - int(free_file.read_text())
    try:
        if missing > 0:
            total_file.write_text(str(before + missing))
            free = int(free_file.read_text())
            if free < megabytes // 2:
                raise BenchError(f"{megabytes} MB of hugepages wanted, the kernel found {2 * free} MB: free some memory")
        yield
    finally:
        if missing > 0:
            total_file.write_text(str(max(before, int(total_file.read_text()) - missing)))
