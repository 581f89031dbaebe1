# SPDX-License-Identifier: BSD-3-Clause
"""What the end-to-end tests share: a laboratory a test, tasks by number, words for asking and refusing, frames.

    class TestX(LabTest):
        def test_x(self):
            web1 = self.attach(1)
            ...

Every test ends with the counters: setUp() builds the laboratory and starts the engine, tearDown() asks that every packet
is accounted for (unless the test ended the engine itself), prints the logs of a failed test and takes all down.
"""
import argparse
import contextlib
import json
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import unittest

sys.dont_write_bytecode = True  # run as root out of somebody's clone
HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.dirname(HERE))
DATA = os.path.join(os.path.dirname(HERE), "data")

from lab import Lab, in_netns, missing_requirements  # noqa: E402
from lab.lab import CLIENT, MTU, ROUTER_MAC, SUBNET, SUBNET_ID  # noqa: E402,F401
from lab.netns import _checksum as internet_checksum  # noqa: E402
from lab.netns import enter_netns  # noqa: E402

GROUP = "sg-9effe8e4"
BUILD = "build"
ANYWHERE = [{"CidrIp": "0.0.0.0/0"}]
EVERYTHING = [{"IpProtocol": "-1", "IpRanges": ANYWHERE}]
PING = {"IpProtocol": "icmp", "FromPort": 8, "ToPort": -1, "IpRanges": ANYWHERE}


def tcp(first, last=None, ranges=None):
    return {"IpProtocol": "tcp", "FromPort": first, "ToPort": last or first, "IpRanges": ranges or ANYWHERE}


def group(*ingress, egress=None, group_id=GROUP):
    """A security group as describe-security-groups prints it."""
    return {"GroupId": group_id, "GroupName": group_id[3:], "Description": "of a test", "VpcId": "vpc-0a1b2c3d4e5f60718",
            "IpPermissions": list(ingress), "IpPermissionsEgress": EVERYTHING if egress is None else egress}


def two_workers(lab):
    """Overrides of the engine's config. With two processors only, the second worker shares one with the control thread."""
    cpus = sorted(os.sched_getaffinity(0))
    second = cpus[2] if len(cpus) > 2 else lab.main_cpu
    return {"eal": {"main_lcore": 0, "worker_lcores": [1, 2],
                    "extra_args": [f"--lcores=0@{lab.main_cpu},1@{lab.worker_cpu},2@{second}"]}}


class Task:
    """The n-th task: its ENI's values follow from the number."""

    def __init__(self, lab, number, vlan=None):
        self.number = number
        self.name = f"t{number}"
        self.netns = lab.netns(self.name)
        self.eni = f"eni-{number:08x}"
        self.mac = f"0a:47:e4:7a:2c:{number:02x}"
        self.address = f"10.0.0.{number + 30}"
        self.vlan = 100 + number if vlan is None else vlan
        self.arn = f"arn:aws:ecs:us-west-2:123456789012:task/awsvpc-ecs-demo/f5ab{number:028d}"

    def facts(self, **changes):
        """The parameters of task.attach."""
        facts = {"eni": self.eni, "mac": self.mac, "addresses": [self.address], "subnet": SUBNET_ID, "vlan": self.vlan,
                 "groups": [GROUP], "task_arn": self.arn,
                 "port": {"kind": "tap", "netns": self.netns, "ifname": "eth0"}}
        return {**facts, **changes}

    def of_vpc(self):
        return {"vlan": self.vlan, "mac": self.mac, "addresses": [self.address], "subnet": SUBNET}


class Connection:
    """One connection to the control socket that stays open."""

    def __init__(self, path, timeout=15):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(timeout)
        self.socket.connect(path)
        self.lines = self.socket.makefile("rb")
        self.hello = json.loads(self.lines.readline())["params"]
        self.number = 0

    def call(self, method, params=None):
        self.number += 1
        request = {"jsonrpc": "2.0", "id": self.number, "method": method, "params": params or {}}
        self.socket.sendall(json.dumps(request).encode() + b"\n")
        answer = json.loads(self.lines.readline())
        assert answer.get("id") == self.number, answer
        return answer

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.lines.close()
        self.socket.close()


class Ping:
    """ping in the background; finish() and wait() answer (sent, received)."""

    def __init__(self, lab, netns, address, count=None, interval=0.01):
        words = ["ping", "-n", "-i", str(interval), "-W", "1", *(["-c", str(count)] if count else []), address]
        # Into a file: a pipe that nobody reads would hold ping up.
        self.output = tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen(["ip", "netns", "exec", netns, *words], stdin=subprocess.DEVNULL,
                                        stdout=self.output, stderr=subprocess.STDOUT)

    def finish(self):
        """Ends it now. The last request may have been under way at that moment: then it does not count as sent."""
        self.process.send_signal(signal.SIGINT)
        sent, received = self.wait()
        return (sent - 1, received) if sent not in self.arrived() else (sent, received)

    def arrived(self):
        """The numbers of the requests that were answered so far."""
        text = os.pread(self.output.fileno(), 1 << 24, 0).decode(errors="replace")
        return {int(number) for number in re.findall(r"icmp_seq=(\d+) ttl", text)}

    def wait(self, timeout=60):
        self.process.wait(timeout=timeout)
        self.output.seek(0)
        said = self.output.read()
        found = re.search(r"(\d+) packets transmitted, (\d+) received(, \+\d+ duplicates)?", said)
        if found is None or found[3]:
            raise AssertionError("ping said: " + said[-500:])
        return int(found[1]), int(found[2])

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(timeout=10)
        self.output.close()


class Witness(threading.Thread):
    """Everything that comes in on an interface, as the kernel shows it to AF_PACKET; frames as they are on the wire."""

    def __init__(self, netns, ifname, keep=lambda frame: True):
        super().__init__(daemon=True)
        self.netns, self.ifname, self.keep = netns, ifname, keep
        self.frames, self.seen = [], 0
        self.ready, self.stopping = threading.Event(), threading.Event()
        self.error = None

    def run(self):
        try:
            enter_netns(self.netns)
            # An interface that is deleted or set down is an error of one read, not the end of the watch.
            with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)) as raw:
                raw.bind((self.ifname, 3))
                raw.setsockopt(263, 8, 1)  # SOL_PACKET, PACKET_AUXDATA: the tag that the kernel took off
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUFFORCE if hasattr(socket, "SO_RCVBUFFORCE") else 33, 16 << 20)
                raw.settimeout(0.2)
                self.ready.set()
                while not self.stopping.is_set():
                    try:
                        frame, ancillary, _, source = raw.recvmsg(65536, 256)
                    except OSError:
                        continue
                    if source[2] == 4:  # PACKET_OUTGOING
                        continue
                    for level, kind, data in ancillary:
                        status, _, _, _, _, tci, _ = struct.unpack("=IIIHHHH", data[:20])
                        if level == 263 and kind == 8 and status & 0x10:  # TP_STATUS_VLAN_VALID
                            frame = frame[:12] + struct.pack("!HH", 0x8100, tci) + frame[12:]
                    self.seen += 1
                    if self.keep(frame):
                        self.frames.append(frame)
        except Exception as error:
            self.error = error
            self.ready.set()

    def with_text(self, text):
        return sum(text in frame for frame in self.frames)

    def __enter__(self):
        self.start()
        self.ready.wait(10)
        if self.error:
            raise self.error
        return self

    def __exit__(self, *_):
        self.stopping.set()
        self.join(timeout=10)


# ---- frames -----------------------------------------------------------------------------------------------------------

def mac_bytes(text):
    return bytes.fromhex(text.replace(":", ""))


def ethernet(to, source, ethertype, payload, tags=()):
    """`tags`: (tag protocol, tag control) each, the outer one first."""
    frame = mac_bytes(to) + mac_bytes(source)
    for protocol, control in tags:
        frame += struct.pack("!HH", protocol, control)
    return frame + struct.pack("!H", ethertype) + payload


def ipv4(source, destination, protocol, payload, flags=0x4000, options=b"", ihl=None, total=None, ttl=64):
    header_bytes = 20 + len(options)
    head = struct.pack("!BBHHHBBH4s4s", 0x40 | (ihl if ihl is not None else header_bytes // 4), 0,
                       total if total is not None else header_bytes + len(payload), 1, flags, ttl, protocol, 0,
                       socket.inet_aton(source), socket.inet_aton(destination)) + options
    return head[:10] + struct.pack("!H", internet_checksum(head)) + head[12:] + payload


def echo(text, number=1):
    message = struct.pack("!BBHHH", 8, 0, 0, 0x7472, number) + text
    return message[:2] + struct.pack("!H", internet_checksum(message)) + message[4:]


def udp(source_port, destination_port, text):
    return struct.pack("!HHHH", source_port, destination_port, 8 + len(text), 0) + text  # no checksum


def tcp_segment(source_port, destination_port, flags, source, destination, offset=5, text=b""):
    head = struct.pack("!HHIIBBHHH", source_port, destination_port, 1, 0, offset << 4, flags, 1024, 0, 0) + text
    pseudo = socket.inet_aton(source) + socket.inet_aton(destination) + struct.pack("!BBH", 0, 6, len(head))
    return head[:16] + struct.pack("!H", internet_checksum(pseudo + head)) + head[18:]


class Vnet:
    """struct virtio_net_hdr: what a task's kernel, or whoever stands in for it, writes before a frame that it leaves to the port to finish."""
    NEEDS_CSUM, TCPV4, UDP = 1, 1, 3

    @staticmethod
    def header(flags=NEEDS_CSUM, gso_type=TCPV4, header_bytes=54, gso_size=1448, start=34, offset=16):
        return struct.pack("=BBHHHH", flags, gso_type, header_bytes, gso_size, start, offset)

    @staticmethod
    def send(netns, ifname, frame, **header):
        """Whether the kernel there let it go."""
        def send():
            with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as out:
                out.setsockopt(263, 15, 1)  # SOL_PACKET, PACKET_VNET_HDR
                out.bind((ifname, 0x0800))
                try:
                    out.send(Vnet.header(**header) + frame)
                    return True
                except OSError:
                    return False

        return in_netns(netns, send)


def arp(operation, sender_mac, sender, target_mac, target, hlen=6, plen=4):
    return struct.pack("!HHBBH", 1, 0x0800, hlen, plen, operation) + mac_bytes(sender_mac) + socket.inet_aton(sender) + \
        mac_bytes(target_mac) + socket.inet_aton(target)


def icmp6(source, destination, kind, body, hop_limit=255):
    message = struct.pack("!BBH", kind, 0, 0) + body
    addresses = socket.inet_pton(socket.AF_INET6, source) + socket.inet_pton(socket.AF_INET6, destination)
    total = internet_checksum(addresses + struct.pack("!II", len(message), 58) + message)
    message = message[:2] + struct.pack("!H", total) + message[4:]
    return struct.pack("!IHBB", 0x60000000, len(message), 58, hop_limit) + addresses + message


# ---- the test case ----------------------------------------------------------------------------------------------------

class LabTest(unittest.TestCase):
    """One laboratory and one engine a test."""

    overrides = {}  # of the engine's config
    hosts = {}  # in the VPC beside the client, as Lab.hosts has them
    mode = "tagged"
    laboratory = Lab  # its class
    starts_engine = True
    maxDiff = None

    def setUp(self):
        self.began = time.monotonic()
        self.lab = self.laboratory(BUILD)
        self.lab.trunk_mode, self.lab.hosts = self.mode, self.hosts
        self.addCleanup(self._take_down)
        self.lab.start()
        self.tasks = {}
        if self.starts_engine:
            self.lab.start_engine(self.lab.engine_config(**self.overrides))

    def has_failed(self):
        """So far, and so this test."""
        return any(error for _, error in getattr(self._outcome, "errors", [])) or \
            any(test is self for test, _ in [*self._outcome.result.failures, *self._outcome.result.errors])

    def _take_down(self):
        if self.has_failed():
            for test, why in [*self._outcome.result.failures, *self._outcome.result.errors]:
                if test is self:  # unittest says it at the end, which a run that is cut off does not see
                    print(f"\n{why}", file=sys.stderr, flush=True)
            for log in ("engine.log", "fabric.log"):
                print(f"\n--- {self.id()}: the end of {log}\n{self.lab.tail(log, 25)}", file=sys.stderr, flush=True)
        self.lab.stop()

    def tearDown(self):
        try:
            if self.lab.engine is not None:
                self.assertIsNone(self.lab.engine.poll(), "the engine ended by itself")
                self.lab.assert_accounted()
        finally:
            self.note(f"{time.monotonic() - self.began:.1f} s")

    def note(self, text):
        """A figure for whoever reads the log."""
        print(f"    {self._testMethodName}: {text}", flush=True)

    # -- tasks --

    def task(self, number, vlan=None):
        if number not in self.tasks:
            self.tasks[number] = Task(self.lab, number, 0 if self.mode == "untagged" else vlan)
        return self.tasks[number]

    def tell_vpc(self):
        self.lab.fabric_enis([task.of_vpc() for task in self.tasks.values()])

    def put_groups(self, *groups, **options):
        return self.call("sg.put", {"document": {"SecurityGroups": list(groups)}, **options})

    def attach(self, number, **facts):
        """A task in a namespace of its own, known to the VPC and in service."""
        task = self.task(number)
        if not os.path.exists(f"/run/netns/{task.netns}"):
            self.lab.add_netns(task.name)
        self.tell_vpc()
        if self.mode == "untagged":
            facts = {"vlan": "untagged", **facts}
        self.call("task.attach", task.facts(**facts))
        self.assert_state(task, "active")
        return task

    def assert_state(self, task, state):
        line = self.lab.task(task.eni)
        self.assertEqual((line or {}).get("state"), state, line)

    # -- the control socket --

    def call(self, method, params=None):
        answer = self.lab.rpc(method, params)
        self.assertIn("result", answer, f"{method}: {answer}")
        return answer["result"]

    def refused(self, method, params, name, pointer=None, says=None):
        """The call is refused for this reason, and nothing has changed."""
        before = self.call("state.get")
        answer = self.lab.rpc(method, params)
        self.assertIn("error", answer, f"{method} was not refused: {answer}")
        error = answer["error"]
        data = error.get("data", {})
        self.assertEqual(data.get("name"), name, answer)
        if pointer is not None:
            self.assertEqual(data.get("pointer"), pointer, answer)
        if says is not None:
            self.assertIn(says, error["message"])
        self.assertEqual(self.call("state.get"), before, f"{method} was refused and changed something")
        return error

    # -- packets --

    def meters(self, eni=None):
        """What came in by an ENI's port, and what went out by it: (egress, ingress). Of the trunk: (ingress, egress)."""
        for port in self.lab.stats()["ports"]:
            if port["eni"] == eni:
                return (port["ingress"], port["egress"]) if eni is None else (port["egress"], port["ingress"])
        raise AssertionError(f"no port of {eni}")

    @contextlib.contextmanager
    def expect_drops(self, eni=None, seconds=2, **expected):
        """Exactly these drops happen in the block, at this ENI (None: on the whole engine); no other reason moves."""
        before = self.lab.drops(eni)
        yield
        def moved():
            now = self.lab.drops(eni)
            return {reason: packets - before.get(reason, 0) for reason, packets in now.items()
                    if packets != before.get(reason, 0)}

        self.lab.wait_until(lambda: moved() == expected, seconds)
        time.sleep(0.05)  # one too many would come now
        self.assertEqual(moved(), expected, f"drops of {eni or 'the engine'}")

    def assert_ping(self, netns, address, count=20, interval=0.02):
        with Ping(self.lab, netns, address, count, interval) as ping:
            sent, received = ping.wait()
        self.assertEqual((sent, received), (count, count), f"ping of {address}")

    def engine_fds(self):
        """How many files the engine has open, once the clients before have gone."""
        def count():
            return len(os.listdir(f"/proc/{self.lab.engine.pid}/fd"))

        counts = [count()]
        while len(counts) < 3 or len(set(counts[-3:])) > 1:
            time.sleep(0.05)
            counts.append(count())
        return counts[-1]


def main(*programs):
    """Runs the tests of the file that was started."""
    global BUILD
    parser = argparse.ArgumentParser()
    parser.add_argument("--build", required=True, metavar="DIR", help="where ./dev build put the programs")
    parser.add_argument("names", nargs="*", help="tests, as unittest names them: TestX.test_y")
    options = parser.parse_args()
    BUILD = options.build
    os.environ["PATH"] = "/usr/sbin:/usr/bin:/sbin:/bin"
    os.environ["LC_ALL"] = "C.UTF-8"
    missing = missing_requirements(options.build, programs)
    if missing:
        for sentence in missing:
            print(f"missing: {sentence}", file=sys.stderr)
        sys.exit(2)

    def stop(number, _frame):
        raise KeyboardInterrupt(signal.Signals(number).name)

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stop)
    import __main__
    unittest.main(module=__main__, argv=[sys.argv[0], *options.names], verbosity=2)
