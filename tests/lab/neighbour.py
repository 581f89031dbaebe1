# SPDX-License-Identifier: BSD-3-Clause
"""A task that minds its own business, measured, and others that do not: what tests/e2e/test_neighbours.py and `./dev bench neighbours` share.

    with Neighbour(lab, task) as neighbour, abuse("syn-flood", lab, other):
        began = time.time(); time.sleep(5)
        print(neighbour.between(began, time.time()))

The neighbour is pinged each 5 ms, connected to each 20 ms, and a download from it is kept. Each runs in a process of its own, before all others on its processor: what is measured is the way, not
whether a processor that floods too had time to look. An abuse is a process
or several, which end with the `with` and after a bounded time.
"""
import contextlib
import json
import multiprocessing
import os
import re
import signal
import socket
import struct
import subprocess
import tempfile
import time

from .lab import ROUTER_MAC
from .netns import _checksum, enter_netns

CONNECT_PORT, DOWNLOAD_PORT, OPEN_PORT = 8080, 8081, 80
DNS = "169.254.169.253"
SECONDS = 120  # after which whatever was started here ends by itself
_fork = multiprocessing.get_context("fork")


_cpus = set()


def stay_off_the_worker(lab):
    """Whatever is started from here on leaves the worker's processor to it, where there is another."""
    _cpus.clear()
    _cpus.update(os.sched_getaffinity(0) - {lab.worker_cpu})


def percentile(samples, fraction):
    ordered = sorted(samples)
    return ordered[min(len(ordered) - 1, int(len(ordered) * fraction))] if ordered else None


class _Child:
    """A function that runs in a namespace, in a process of its own, and sends what it finds: (kind, wall time, value) each."""

    def __init__(self, netns, work, first=False):
        """`first`: before others on its processor, as what measures has to be. On a processor that no worker has (Neighbour and abuse() say which)."""
        self.seen, self._reader, writer = [], *_fork.Pipe(duplex=False)
        self.process = _fork.Process(target=self._run, args=(netns, work, writer, first), daemon=True)
        self.process.start()
        writer.close()

    @staticmethod
    def _run(netns, work, writer, first):
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.alarm(SECONDS)
        if _cpus:
            os.sched_setaffinity(0, _cpus)
        if first:
            os.setpriority(os.PRIO_PROCESS, 0, -20)
        enter_netns(netns)
        work(lambda *found: writer.send(found))

    def all(self):
        with contextlib.suppress(EOFError, OSError):
            while self._reader.poll():
                self.seen.append(self._reader.recv())
        return self.seen

    def end(self):
        self.process.terminate()
        self.process.join(5)


def _accept(port, serve):
    def work(_tell):
        with socket.socket() as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(("0.0.0.0", port))
            listener.listen(512)
            while True:
                client, _ = listener.accept()
                if os.fork() == 0:
                    listener.close()
                    with contextlib.suppress(OSError):
                        serve(client)
                    os._exit(0)
                client.close()
                with contextlib.suppress(ChildProcessError):
                    while os.waitpid(-1, os.WNOHANG)[0]:
                        pass
    return work


def _accept_and_close(port):
    def work(_tell):
        with socket.socket() as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(("0.0.0.0", port))
            listener.listen(512)
            while True:
                listener.accept()[0].close()
    return work


def _give(rate):
    """Bytes for ever, so many a second; 0: as many as go."""
    def serve(client):
        signal.alarm(SECONDS)
        chunk = bytes(65536)
        began, given = time.monotonic(), 0
        while True:
            given += client.send(chunk)
            if rate:
                time.sleep(max(0, given / rate - (time.monotonic() - began)))
    return serve


def _connects(address, port):
    def work(tell):
        while True:
            began, wall = time.monotonic(), time.time()
            with socket.socket() as one:
                one.settimeout(1)
                one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                try:
                    one.connect((address, port))
                    tell("connect", wall, (time.monotonic() - began) * 1000)
                except OSError:
                    tell("failed", wall, 0)
            time.sleep(0.02)
    return work


def _take(address, port, segment=None, quietly=False):
    def work(tell):
        with socket.socket() as one:
            if segment:
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, segment)
            one.settimeout(10)
            one.connect((address, port))
            one.settimeout(None)
            taken, until = 0, time.time() + 0.1
            while data := one.recv(1 << 20):
                taken += len(data)
                if (now := time.time()) >= until:
                    if not quietly:
                        tell("bytes", now, taken)
                    taken, until = 0, now + 0.1
    return work


class Neighbour:
    """`lab.client` talks to it. Its group lets in ping and the two ports."""
    RATE = 20_000_000  # bytes a second of the download

    def __init__(self, lab, task, interval=0.005):
        self.lab, self.task, self.interval = lab, task, interval

    def __enter__(self):
        stay_off_the_worker(self.lab)
        self._pings = tempfile.TemporaryFile("w+")
        self._children = [_Child(self.task.netns, _accept_and_close(CONNECT_PORT), True), _Child(self.task.netns, _accept(DOWNLOAD_PORT, _give(self.RATE)), True)]
        time.sleep(0.3)
        taskset = ["taskset", "-c", ",".join(map(str, sorted(_cpus)))] if _cpus else []
        self._ping = subprocess.Popen([*taskset, "nice", "-n", "-20", "ip", "netns", "exec", self.lab.client, "ping", "-n", "-D", "-i", str(self.interval), "-W", "2", self.task.address],
                                      stdin=subprocess.DEVNULL, stdout=self._pings, stderr=subprocess.STDOUT)
        self._children += [_Child(self.lab.client, _connects(self.task.address, CONNECT_PORT), True), _Child(self.lab.client, _take(self.task.address, DOWNLOAD_PORT), True)]
        return self

    def __exit__(self, *_):
        self._ping.terminate()
        self._ping.wait(5)
        for child in reversed(self._children):
            child.end()
        self._pings.close()

    def between(self, began, ended):
        """What it saw from one wall time to another: milliseconds, Mbit/s."""
        text = os.pread(self._pings.fileno(), 1 << 26, 0).decode(errors="replace")
        answers = [(float(at), float(took)) for at, took in re.findall(r"\[(\d+\.\d+)\].*time=([\d.]+) ms", text) if began <= float(at) < ended]
        times = [took for _, took in answers]
        edges = [began, *(at for at, _ in answers), ended]
        seen = [each for child in self._children for each in child.all() if began <= each[1] < ended]
        connects = [value for kind, _, value in seen if kind == "connect"]
        return {"pings": len(answers), "p50": percentile(times, 0.5), "p99": percentile(times, 0.99), "p999": percentile(times, 0.999),
                "gap": max(b - a for a, b in zip(edges, edges[1:])) * 1000,
                "connects": len(connects), "failed": sum(kind == "failed" for kind, _, _ in seen), "connect_p99": percentile(connects, 0.99),
                "mbits": sum(value for kind, _, value in seen if kind == "bytes") * 8 / 1e6 / (ended - began)}


# ---- abuses -----------------------------------------------------------------------------------------------------------

def _mac(text):
    return bytes.fromhex(text.replace(":", ""))


def _ethernet(to, source, payload, vlan=None):
    return _mac(to) + _mac(source) + (struct.pack("!HH", 0x8100, vlan) if vlan else b"") + struct.pack("!H", 0x0800) + payload


def _ipv4(source, destination, protocol, payload, fragment=0x4000, identification=1):
    head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(payload), identification, fragment, 64, protocol, 0, socket.inet_aton(source), socket.inet_aton(destination))
    return head[:10] + struct.pack("!H", _checksum(head)) + head[12:] + payload


def _tcp(source, destination, source_port, destination_port, flags):
    head = struct.pack("!HHIIBBHHH", source_port, destination_port, 1, 1, 0x50, flags, 1024, 0, 0)
    pseudo = socket.inet_aton(source) + socket.inet_aton(destination) + struct.pack("!BBH", 0, 6, len(head))
    return head[:16] + struct.pack("!H", _checksum(pseudo + head)) + head[18:]


def _udp(source_port, destination_port, text=b"x"):
    return struct.pack("!HHHH", source_port, destination_port, 8 + len(text), 0) + text


def _echo(number):
    message = struct.pack("!BBHHH", 8, 0, 0, number & 0xffff, 1) + bytes(8)
    return message[:2] + struct.pack("!H", _checksum(message)) + message[4:]


def _address(base, number):
    return socket.inet_ntoa(struct.pack("!I", struct.unpack("!I", socket.inet_aton(base))[0] + number))


def _send(netns, ifname, frames, rate, vnet=None):
    """A process that sends these frames round and round, so many a second."""
    def work(_tell):
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as out:
            if vnet is not None:
                out.setsockopt(263, 15, 1)  # SOL_PACKET, PACKET_VNET_HDR
            out.bind((ifname, 0x0800))
            out.setblocking(False)
            began, sent, count = time.monotonic(), 0, len(frames)
            while True:
                due = int((time.monotonic() - began) * rate)
                while sent < due:
                    with contextlib.suppress(OSError):
                        out.send((vnet or b"") + frames[sent % count])
                    sent += 1
                time.sleep(0.001)
    return _Child(netns, work)


def _from_task(task, lab, payloads, rate):
    return _send(task.netns, "eth0", [_ethernet(ROUTER_MAC, task.mac, payload) for payload in payloads], rate)


def _from_stranger(task, lab, payloads, rate):
    return _send(lab.vpc, "fabric0" if task.vlan else "eth0", [_ethernet(task.mac, ROUTER_MAC, payload, task.vlan) for payload in payloads], rate)


STRANGER, FAR = "203.0.113.7", "198.51.100.0"
FRAMES = 20_000


def _tiny_super_frames(lab, task):
    payload = bytes(64000)
    head = struct.pack("!HHIIBBHHH", 8193, 443, 1, 1, 0x50, 0x10, 65280, 0, 0)
    pseudo = socket.inet_aton(task.address) + socket.inet_aton("198.51.100.9") + struct.pack("!BBH", 0, 6, len(head) + len(payload))
    partial = ~_checksum(pseudo) & 0xffff
    segment = head[:16] + struct.pack("!H", partial) + head[18:] + payload
    frame = _ethernet(ROUTER_MAC, task.mac, _ipv4(task.address, "198.51.100.9", 6, segment))
    return [_send(task.netns, "eth0", [frame], 500, struct.pack("=BBHHHH", 1, 1, 54, 48, 34, 16))]


def _tiny_segment_downloads(lab, task):
    server = _Child(task.netns, _accept(OPEN_PORT, _give(0)))
    time.sleep(0.3)
    return [server, *(_Child(lab.client, _take(task.address, OPEN_PORT, 88, True)) for _ in range(4))]


def _slow_receiver(lab, task, rules=20_000):
    text = "flush ruleset\ntable ip s {\n chain p {\n type filter hook prerouting priority -300; policy accept;\n"
    text += "".join(f"  udp dport 9 ip saddr 10.{i >> 16 & 255}.{i >> 8 & 255}.{i & 255} drop\n" for i in range(rules)) + " }\n}\n"
    subprocess.run(["ip", "netns", "exec", task.netns, "nft", "-f", "-"], input=text, text=True, check=True, capture_output=True, timeout=60)
    return [_from_stranger(task, lab, [_ipv4(STRANGER, task.address, 17, _udp(5000, 9))], 1000)]


def _pings_to_many(lab, task):
    return [_from_task(task, lab, [_ipv4(task.address, _address(FAR, i >> 8), 1, _echo(i)) for i in range(FRAMES)], 60_000)]


def _pings_from_a_stranger(lab, task):
    return [_from_stranger(task, lab, [_ipv4(_address("203.0.113.0", i % 200), task.address, 1, _echo(i)) for i in range(FRAMES)], 60_000)]


def _acks_of_no_connection(lab, task):
    return [_from_task(task, lab, [_ipv4(task.address, _address(FAR, i >> 12), 6, _tcp(task.address, _address(FAR, i >> 12), 1024 + i % 4096, 443, 0x10)) for i in range(FRAMES)], 60_000)]


def _syns_of_a_stranger(lab, task):
    return [_from_stranger(task, lab, [_ipv4(_address("203.0.113.0", i >> 12), task.address, 6, _tcp(_address("203.0.113.0", i >> 12), task.address, 1024 + i % 4096, OPEN_PORT, 2))
                                       for i in range(FRAMES)], 60_000)]


def _syns_and_resets(lab, task):
    frames = []
    for i in range(FRAMES // 2):
        frames += [_ipv4(task.address, _address(FAR, i >> 12), 6, _tcp(task.address, _address(FAR, i >> 12), 1024 + i % 4096, 443, flags)) for flags in (2, 4)]
    return [_from_task(task, lab, frames, 60_000)]


def _scan_that_is_refused(lab, task):
    return [_from_stranger(task, lab, [_ipv4(STRANGER, task.address, 6, _tcp(STRANGER, task.address, 1024 + i, 9000 + i % 8000, 2)) for i in range(FRAMES)], 60_000)]


def _fragments_that_are_refused(lab, task):
    return [_from_stranger(task, lab, [_ipv4(STRANGER, task.address, 17, _udp(5000, 10, bytes(1000)), 0x2000, i) for i in range(FRAMES)], 30_000)]


def _datagrams(lab, task):
    return [_from_stranger(task, lab, [_ipv4(STRANGER, task.address, 17, _udp(5000 + i, 9)) for i in range(64)], 150_000)]


def _observers(lab, task, calls=("state.get", "sg.show", "stats"), uid=65534):
    def work(_tell):
        os.setgid(uid)
        os.setuid(uid)
        clients = []
        for _ in range(25):
            with contextlib.suppress(OSError):
                one = socket.socket(socket.AF_UNIX)
                one.connect(lab.socket)
                one.setblocking(False)
                clients.append(one)
        line = "".join(json.dumps({"jsonrpc": "2.0", "id": n, "method": calls[n % len(calls)], "params": {}}) + "\n" for n in range(30)).encode()
        while True:
            for one in list(clients):
                with contextlib.suppress(BlockingIOError):
                    while one.recv(1 << 20):
                        pass
                try:
                    one.send(line)
                except BlockingIOError:
                    pass
                except OSError:
                    clients.remove(one)
            time.sleep(0.005)
    os.chmod(os.path.dirname(lab.socket), 0o755)
    os.chmod(lab.socket, 0o666)
    return [_Child(lab.client, work)]


def _filters(lab, task):
    text = " or ".join(f"tcp port {i + 1}" for i in range(1600))

    def work(_tell):
        line = (json.dumps({"jsonrpc": "2.0", "id": 1, "method": "capture.start", "params": {"filter": text}}) + "\n").encode()
        while True:
            with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as one:
                one.settimeout(30)
                one.connect(lab.socket)
                one.sendall(line)
                while b'"id"' not in one.recv(1 << 16):
                    pass
            time.sleep(0.05)
    return [_Child(lab.client, work)]


ABUSES = {
    "tiny super-frames": _tiny_super_frames,
    "downloads with tiny segments": _tiny_segment_downloads,
    "slow receive path": _slow_receiver,
    "pings to many": _pings_to_many,
    "a stranger's pings": _pings_from_a_stranger,
    "ACKs of no connection": _acks_of_no_connection,
    "a stranger's SYNs": _syns_of_a_stranger,
    "SYNs and RSTs": _syns_and_resets,
    "a scan that is refused": _scan_that_is_refused,
    "fragments that are refused": _fragments_that_are_refused,
    "datagrams": _datagrams,
    "observers": _observers,
    "filters": _filters,
}
# What needs no part of a packet's way: only one of a kind makes sense.
OF_CONTROL = ("observers", "filters")


@contextlib.contextmanager
def abuse(name, lab, task):
    """`task` (whose group lets in ping, OPEN_PORT and UDP 9) does it, or has it done to it."""
    stay_off_the_worker(lab)
    children = ABUSES[name](lab, task)
    try:
        yield
    finally:
        for child in reversed(children):
            child.end()
        if name == "slow receive path":
            subprocess.run(["ip", "netns", "exec", task.netns, "nft", "flush", "ruleset"], check=False, capture_output=True, timeout=60)
