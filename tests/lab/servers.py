# SPDX-License-Identifier: BSD-3-Clause
"""The peers that talk through the engine: nginx and dropbear as they are packaged, and two kinds of HTTP client."""
import hashlib
import http.client
import os
import re
import subprocess
import threading
import time

from .netns import enter_netns, in_netns, wait_until

SLOW_BYTES = 4 << 20


class Nginx:
    """nginx in a namespace: / is a page that names the task, /slow a big file at a bounded rate."""

    def __init__(self, lab, netns, page, ports=(80,), slow_rate="1m"):
        self.netns = netns
        self.directory = os.path.join(lab.directory, f"nginx-{netns}")
        os.makedirs(os.path.join(self.directory, "html"))
        os.makedirs(os.path.join(self.directory, "tmp"))
        with open(os.path.join(self.directory, "html", "index.html"), "w") as file:
            file.write(page + "\n")
        # Not all the same byte: a hole or a repetition in what arrives must show.
        slow = b"".join(b"%063d\n" % number for number in range(SLOW_BYTES // 64))
        self.slow_sha256 = hashlib.sha256(slow).hexdigest()
        with open(os.path.join(self.directory, "html", "slow"), "wb") as file:
            file.write(slow)
        listens = " ".join(f"listen {port};" for port in ports)
        temporary = "\n  ".join(f"{kind}_temp_path {self.directory}/tmp/{kind};"
                                for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        config = os.path.join(self.directory, "nginx.conf")
        with open(config, "w") as file:
            file.write(f"""daemon off;
user root;
worker_processes 1;
pid {self.directory}/nginx.pid;
error_log {self.directory}/error.log;
events {{ worker_connections 512; }}
http {{
  access_log {self.directory}/access.log;
  {temporary}
  default_type text/plain;
  server {{
    {listens}
    root {self.directory}/html;
    location = /slow {{ limit_rate {slow_rate}; }}
  }}
}}
""")
        self.process = lab.spawn(netns, "nginx", "-p", self.directory, "-c", config,
                                 "-e", f"{self.directory}/error.log", log=f"nginx-{netns}.log")
        if not wait_until(lambda: os.path.exists(f"{self.directory}/nginx.pid") or self.process.poll() is not None, 60) \
                or self.process.poll() is not None:
            from .lab import LabError
            raise LabError(f"nginx did not start in {netns}: " + lab.tail(f"nginx-{netns}.log"))

    def served(self, client):
        """How many requests of this client's address the log has."""
        with open(os.path.join(self.directory, "access.log")) as file:
            return sum(line.startswith(client + " ") for line in file)


class Dropbear:
    """An SSH server in a namespace."""

    def __init__(self, lab, netns, port=22):
        key = os.path.join(lab.directory, f"dropbear-{netns}.key")
        subprocess.run(["dropbearkey", "-t", "ed25519", "-f", key], check=True, stdout=subprocess.DEVNULL,
                       stderr=subprocess.DEVNULL, timeout=20)
        self.process = lab.spawn(netns, "dropbear", "-F", "-E", "-r", key, "-p", str(port),
                                 "-P", os.path.join(lab.directory, f"dropbear-{netns}.pid"), log=f"dropbear-{netns}.log")

        def listens():
            table = in_netns(netns, lambda: open("/proc/thread-self/net/tcp").read())
            return re.search(rf":{port:04X} 00000000:0000 0A", table)

        if not wait_until(listens, 10):
            from .lab import LabError
            raise LabError(f"dropbear does not listen in {netns}: " + lab.tail(f"dropbear-{netns}.log"))


class _ClientThread(threading.Thread):
    """A client that lives in a namespace, so that its sockets are made there. Always stop it: `with` does."""

    def __init__(self, netns):
        super().__init__(daemon=True)
        self.netns = netns
        self.stopping = threading.Event()
        self.error = None

    def run(self):
        try:
            enter_netns(self.netns)
            self.work()
        except Exception as error:  # told by whoever looks at the result
            self.error = error

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.stopping.set()
        self.join(timeout=15)


class HttpLoop(_ClientThread):
    """One request after the other, each on a new connection, until stopped."""

    def __init__(self, netns, address, timeout=8, pause=0.01):
        super().__init__(netns)
        self.address, self.timeout, self.pause = address, timeout, pause
        self.done = []  # (when it began, when it ended)
        self.failed = []  # (when, what)

    def work(self):
        while not self.stopping.is_set():
            began = time.monotonic()
            connection = http.client.HTTPConnection(self.address, timeout=self.timeout)
            try:
                connection.request("GET", "/")
                answer = connection.getresponse()
                answer.read()
                if answer.status != 200:
                    raise http.client.HTTPException(f"status {answer.status}")
                self.done.append((began, time.monotonic()))
            except (OSError, http.client.HTTPException) as error:
                self.failed.append((time.monotonic(), f"{type(error).__name__}: {error}"))
            finally:
                connection.close()
            self.stopping.wait(self.pause)

    def done_since(self, when):
        return sum(began >= when for began, _ in self.done)

    def longest_gap(self):
        """The longest time between two answers, in seconds."""
        ends = [end for _, end in self.done]
        return max((later - earlier for earlier, later in zip(ends, ends[1:])), default=0.0)


class Download(_ClientThread):
    """One long download on one connection; `received` grows while it runs."""

    def __init__(self, netns, address, path="/slow", timeout=15):
        super().__init__(netns)
        self.address, self.path, self.timeout = address, path, timeout
        self.received = 0
        self.sha256 = None

    def work(self):
        connection = http.client.HTTPConnection(self.address, timeout=self.timeout)
        try:
            connection.request("GET", self.path)
            answer = connection.getresponse()
            digest = hashlib.sha256()
            while not self.stopping.is_set():
                piece = answer.read1(65536)
                if not piece:
                    break
                digest.update(piece)
                self.received += len(piece)
            self.sha256 = digest.hexdigest()
        finally:
            connection.close()

    def finish(self, seconds):
        """Waits for the end; True when it came in time and without an error."""
        self.join(timeout=seconds)
        return not self.is_alive() and self.error is None
