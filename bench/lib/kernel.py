# SPDX-License-Identifier: BSD-3-Clause
"""iperf3 between containers: over the engine's taps, and over what a kernel gives them (veth, bridge, nft with conntrack), in turns of
one run. One stream, as real programs send: their kernels' super-frames, where the ports carry them.

    task to task      both on this host
    task to fabric    to a host outside; the engine's trunk ends in the laboratory's VPC (tests/fabric), a program that copies each
                      frame, so that this figure is also that program's
"""
import itertools
import json
import os
import shlex
import sys

from . import results, stats
from .processes import BenchError
from .progress import table

sys.path.insert(0, str(results.ROOT / "tests"))
from lab import Lab, missing_requirements  # noqa: E402

PORT = 5201
GROUP = {"GroupId": "sg-0000bench", "GroupName": "bench", "VpcId": "vpc-0a1b2c3d4e5f60718",
         "IpPermissions": [{"IpProtocol": "tcp", "FromPort": PORT, "ToPort": PORT, "IpRanges": [{"CidrIp": "10.0.0.0/16"}]}],
         "IpPermissionsEgress": [{"IpProtocol": "-1", "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}]}
ROUTES = ("task-to-task", "task-to-fabric")
ENGINES = {"engine": {}, "engine without offloads": {"offloads": False}}
KERNEL = "veth+bridge+nft"
# The same policy: what is established, and new connections to one port. Bridged packets meet the hooks of inet by br_netfilter.
RULES = f"""table inet bench {{ chain forward {{ type filter hook forward priority 0; policy drop;
  ct state established accept; tcp dport {PORT} ct state new accept; }}; }}"""


class EngineSide:
    """Two tasks of one engine and a client behind the VPC."""

    def __init__(self, build, mtu, port):
        self.lab, self.mtu, self.port = Lab(build), mtu, port

    def start(self):
        self.lab.start()
        self.lab.start_engine(self.lab.engine_config())
        self._call("sg.put", {"SecurityGroups": [GROUP]})
        tasks = []
        for number in (1, 2):
            name = f"t{number}"
            self.lab.add_netns(name)
            tasks.append({"vlan": 100 + number, "mac": f"0a:47:e4:7a:2c:{number:02x}", "addresses": [f"10.0.0.{30 + number}"], "subnet": "10.0.0.0/24"})
            self.lab.fabric_enis(tasks)
            self._call("task.attach", {"eni": f"eni-0000000{number}", "mac": tasks[-1]["mac"], "addresses": tasks[-1]["addresses"],
                                       "subnet": "subnet-c070009b", "vlan": 100 + number, "groups": [GROUP["GroupId"]],
                                       "port": {"kind": "tap", "netns": self.lab.netns(name), "ifname": "eth0", "mtu": self.mtu, **self.port}})
        self.ends = {"task-to-task": (self.lab.netns("t1"), self.lab.netns("t2"), "10.0.0.32"),
                     "task-to-fabric": (self.lab.netns("t1"), self.lab.client, "10.0.1.20")}
        for netns in {self.lab.netns("t2"), self.lab.client}:
            serve(self.lab, netns)

    def _call(self, method, params):
        answer = self.lab.rpc(method, params)
        if "error" in answer:
            raise BenchError(f"the engine refused {method}: {answer['error']}")

    def describe(self):
        return f"trunklined --config {json.dumps(self.lab.engine_config())}; two tap ports, mtu {self.mtu}, {json.dumps(self.port)}"


class KernelSide:
    """The same three hosts on a bridge."""

    def __init__(self, build, mtu, _port):
        self.lab, self.mtu = Lab(build), mtu

    def start(self):
        self.lab.start()
        bridge = self.lab.add_netns("bridge")
        self._ip(bridge, "link add br0 type bridge", "link set br0 up")
        hosts = {}
        for number, name in enumerate(("k1", "k2", "outside"), 1):
            netns = hosts[name] = self.lab.add_netns(name)
            self.lab.run("ip", "link", "add", f"v{number}", "mtu", str(self.mtu), "netns", bridge, "type", "veth", "peer", "name", "eth0",
                         "mtu", str(self.mtu), "netns", netns)
            self._ip(bridge, f"link set v{number} master br0 up")
            self._ip(netns, f"addr add 10.0.0.{number}/24 dev eth0", "link set eth0 up")
        self.lab.exec(bridge, "sysctl", "-qw", "net.bridge.bridge-nf-call-iptables=1")
        done = self.lab.exec(bridge, "nft", RULES)
        if done.returncode != 0:
            raise BenchError(f"nft: {done.stderr}")
        self.ends = {"task-to-task": (hosts["k1"], hosts["k2"], "10.0.0.2"), "task-to-fabric": (hosts["k1"], hosts["outside"], "10.0.0.3")}
        for netns in (hosts["k2"], hosts["outside"]):
            serve(self.lab, netns)
        self._prove(hosts)

    def _prove(self, hosts):
        serve(self.lab, hosts["k2"], PORT + 1)
        done = self.lab.exec(hosts["k1"], "iperf3", "-c", "10.0.0.2", "-p", str(PORT + 1), "-n", "1k", "--connect-timeout", "500")
        if done.returncode == 0:
            raise BenchError("the bridge's rules are not in force: a port that none of them allows is open")

    def _ip(self, netns, *commands):
        for command in commands:
            self.lab.run("ip", "-n", netns, *shlex.split(command))

    def describe(self):
        return f"bridge of veth pairs, mtu {self.mtu}, net.bridge.bridge-nf-call-iptables=1, nft: {' '.join(RULES.split())}"


def serve(lab, netns, port=PORT):
    lab.spawn(netns, "iperf3", "-s", "-p", str(port), log=f"iperf3-{netns}-{port}.log")


def measure(side, route, seconds):
    source, _, address = side.ends[route]
    words = ["iperf3", "-c", address, "-p", str(PORT), "-t", str(seconds), "-O", "0.5", "-J", "--connect-timeout", "3000"]
    done = side.lab.exec(source, *words, timeout=seconds + 20)
    report = json.loads(done.stdout or "{}")
    if done.returncode != 0 or "error" in report:
        raise BenchError(f"iperf3 {route}: {report.get('error', done.stderr)}")
    return report["end"]["sum_received"]["bits_per_second"] / 1e9, shlex.join(words)


def run(options, progress):
    missing = missing_requirements(options.build, ("iperf3", "nft"), memory_mb=2 * 256)
    if missing:
        raise BenchError("; ".join(missing))
    sides = {name: EngineSide(options.build, options.mtu, port) for name, port in ENGINES.items()}
    sides[KERNEL] = KernelSide(options.build, options.mtu, None)
    taken = {(route, name): [] for route in ROUTES for name in sides}
    try:
        for name, side in sides.items():
            progress.say(f"{name} starts")
            side.start()
        for route, turn in itertools.product(ROUTES, range(options.pairs)):
            for name in list(sides) if turn % 2 == 0 else reversed(sides):
                progress.now(f"{route}: turn {turn + 1} of {options.pairs}, {name}")
                rate, command = measure(sides[name], route, options.seconds)
                taken[route, name].append(rate)
        lines, rows = [], []
        for route in ROUTES:
            own = taken[route, "engine"]
            for name, side in sides.items():
                rates = taken[route, name]
                about = {"command": command, "device": side.describe(), "samples": len(rates), "pairs": options.pairs}
                value, spread = stats.median(rates), list(stats.bootstrap_interval(rates))
                full = f"kernel/{route}/{options.mtu}/throughput"
                if name == "engine":
                    lines.append(results.line(full, "Gbit/s", value, spread=spread, **about))
                    rows.append((full, name, f"{value:.2f}", f"{spread[0]:.2f}..{spread[1]:.2f}", ""))
                    continue
                ratios = stats.paired_ratios(own, rates, False)
                low, high = stats.bootstrap_interval(ratios)
                lines.append(results.line(full, "Gbit/s", stats.median(own), peer=name, peer_value=value, peer_spread=spread, ratio=stats.median(ratios),
                                          ratio_low=low, ratio_high=high, **about))
                rows.append((full, name, f"{value:.2f}", f"{spread[0]:.2f}..{spread[1]:.2f}", f"{stats.median(ratios):.2f} [{low:.2f}, {high:.2f}]"))
        print(table(rows, ("what", "over", "Gbit/s", "95 %", "engine better by")))
        progress.say(f"written to {results.append('kernel', lines, options.results)}")
        return 0
    finally:
        for side in sides.values():
            side.lab.stop()


if os.geteuid() != 0:
    raise BenchError("kernel needs root: network namespaces, hugepages")
