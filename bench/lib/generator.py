# SPDX-License-Identifier: BSD-3-Clause
"""The generator (bench/generator) as a long-lived process: one command in, its JSON lines out. Between commands it waits
on its stdin and leaves the processor alone."""
import json
import shlex
import subprocess

from .processes import BenchError, Program


class Generator:
    def __init__(self, binary, links, log, cpu=0, rx_queues=1, nice=0, memory_mb=160):
        self.log = log
        words = [binary, "--trunk", links.generator("trunk"), "--task", links.generator("task"), "--lcore", cpu,
                 "--memory", memory_mb, "--rx-queues", rx_queues, "commands"]
        self.program = Program(words, log, cpu=cpu, nice=nice, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.words = self.program.words

    def wait_ready(self):
        """Until both links are up."""
        ready = self._result(("ready",), None)
        self.tsc_hz, self.dpdk = ready["tsc_hz"], ready["dpdk"]

    def _result(self, wanted, on_second):
        for text in self.program.child.stdout:
            answer = json.loads(text)
            if answer["event"] == "error":
                raise BenchError(f"generator: {answer['error']}")
            if answer["event"] in wanted:
                return answer
            if answer["event"] == "second" and on_second:
                on_second(answer)
        self.program.child.wait(5)
        raise BenchError(f"the generator ended with {self.program.child.returncode}; the end of {self.log}:\n{self.program.tail()}")

    def run(self, command, on_second=None, **options):
        """run("stream", flows=1000, latency=True): the result as a dictionary, with "command" as it was given."""
        words = [command]
        for name, value in options.items():
            if value is not False and value is not None:
                words += [f"--{name.replace('_', '-')}"] + ([] if value is True else [str(value)])
        line = shlex.join(words)
        self.program.child.stdin.write((line + "\n").encode())
        self.program.child.stdin.flush()
        return {**self._result(("result",), on_second), "command": line}

    def end(self):
        if self.program.is_alive():
            try:
                self.program.child.stdin.write(b"quit\n")
                self.program.child.stdin.close()
                self.program.child.wait(3)
            except (OSError, subprocess.TimeoutExpired):
                pass
        self.program.end()
