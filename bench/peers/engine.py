# SPDX-License-Identifier: BSD-3-Clause
"""trunklined with its trunk and one task's port on the two links."""
import json
import socket
import time

from lib.processes import BenchError, Program, wait_until
from lib.results import ROOT

from . import policy
from .device import Counters, Device

ENI = "eni-0000bench"
SUBNET = {"SubnetId": "subnet-0000bench", "CidrBlock": "10.0.0.0/24", "VpcId": "vpc-0a1b2c3d4e5f60718",
          "AvailabilityZone": "eu-central-1a"}


class Engine(Device):
    name = "engine"
    stateful = True
    hugepages_mb = 256
    more_hugepages_mb = 192  # the connection table

    @staticmethod
    def _idle():
        """The devices beside it never sleep; the setting by whichever name this engine has it."""
        schema = json.loads((ROOT / "config/schema/engine-config.schema.json").read_text())
        known = schema["properties"].get("idle", {}).get("properties", {})
        return {name: 0 for name in ("sleep_us", "max_sleep_us") if name in known}

    def _config(self):
        return {"version": 1,
                "trunk": {"device": self.links.device("trunk"), "mode": "tagged", "mtu": 1500},
                "eal": {"main_lcore": self.settings.main_cpu, "worker_lcores": [self.settings.cpu],
                        "memory_mb": self.hugepages_mb, "file_prefix": f"bench-engine-{self.links.kind}",
                        "extra_args": ["--single-file-segments", "--no-pci"]},
                "buffers": {"rx_descriptors": 1 << self.links.ring, "tx_descriptors": 1 << self.links.ring},
                "limits": {"endpoints": 16, "connections": self.settings.connections},
                "conntrack": {"tcp_closing_timeout_s": 1, "tcp_closed_timeout_s": 1},
                "idle": self._idle(),
                "control": {"socket": str(self.socket)}, "state_dir": str(self.directory / "state")}

    def start(self):
        self.socket = self.directory / "control.sock"
        (self.directory / "state").mkdir(exist_ok=True)
        config = self.directory / "trunklined.json"
        config.write_text(json.dumps(self._config(), indent=1))
        self.program = Program([self.settings.build / "control/trunklined", "--config", config],
                               self.directory / "engine.log", nice=self.settings.nice)
        wait_until(self.socket.exists, 20, "the engine's control socket", self.program)
        self._client = None
        self._attach()
        wait_until(self.links.ready_to_connect, 10, "the engine's ports", self.program)
        self._epoch = None

    def _attach(self):
        self.call("subnet.put", {"document": {"Subnets": [SUBNET]}})
        self.call("sg.put", {"document": {"SecurityGroups": [policy.security_group(self.settings.rules)]}})
        self.call("task.attach", {
            "eni": ENI, "mac": policy.MAC, "addresses": [policy.ADDRESS], "subnet": SUBNET["SubnetId"],
            "vlan": policy.VLAN, "groups": ["sg-0000bench"],
            "port": {"kind": "vdev", "devargs": self.links.device("task"), "mtu": 1500}})
        tasks = self.call("task.list")["tasks"]
        if [task["state"] for task in tasks] != ["active"]:
            raise BenchError(f"the engine's task is not active: {tasks}")

    def call(self, method, params=None):
        if self._client is None:
            connection = socket.socket(socket.AF_UNIX)
            connection.settimeout(30)
            connection.connect(str(self.socket))
            self._client = connection.makefile("rwb")
            self._client.readline()  # hello
        request = {"jsonrpc": "2.0", "id": 1, "method": method, **({"params": params} if params else {})}
        self._client.write(json.dumps(request).encode() + b"\n")
        self._client.flush()
        answer = json.loads(self._client.readline())
        if "error" in answer:
            raise BenchError(f"the engine refused {method}: {answer['error']}")
        return answer["result"]

    def _busy_cycles(self, workers):
        if all("busy_cycles" in worker for worker in workers):
            return sum(worker["busy_cycles"] for worker in workers)
        # An engine that only states its busy share since the worker's start. When that was follows from two readings
        # with no traffic in between, as the cycles are the same in both: r1 (t1 - s) = r2 (t2 - s).
        now = time.clock_gettime(time.CLOCK_MONOTONIC_RAW)
        ratio = workers[0]["busy_ratio"]
        if self._epoch is None:
            if ratio == 0:
                return 0.0
            time.sleep(1.5)
            later = self.call("status")["workers"][0]["busy_ratio"]
            then = time.clock_gettime(time.CLOCK_MONOTONIC_RAW)
            self._epoch = (ratio * now - later * then) / (ratio - later)
        return ratio * (now - self._epoch) * self.settings.tsc_hz()

    def counters(self):
        workers = self.call("status")["workers"]
        busy = self._busy_cycles(workers)
        if all("packets" in worker for worker in workers):
            packets = sum(worker["packets"] for worker in workers)
        else:
            # What came in by each port: of the trunk that is ingress, of a task egress.
            packets = sum(port["ingress" if port["eni"] is None else "egress"]["rx_packets"] for port in self.call("stats")["ports"])
        return Counters(packets, busy)

    def describe(self):
        return f"trunklined --config {json.dumps(self._config())}; one group, {self.settings.rules} rules a direction"
