# SPDX-License-Identifier: BSD-3-Clause
"""iperf3 between containers: over the engine's taps, and over what a kernel gives them (veth, bridge, nft with conntrack), in turns of
one run. One stream, as real programs send: their kernels' super-frames, where the ports carry them.

    task to task      both on this host
    task to fabric    to a host outside. The engine's trunk is a tap on a bridge, whose kernel takes super-frames as a card with TSO does;
                      the host stands for the VPC: it has the router's MAC and answers for it
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
from lab.lab import ROUTER_MAC  # noqa: E402

PORT = 5201
GROUP = {"GroupId": "sg-0000bench", "GroupName": "bench", "VpcId": "vpc-0a1b2c3d4e5f60718",
         "IpPermissions": [{"IpProtocol": "tcp", "FromPort": PORT, "ToPort": PORT, "IpRanges": [{"CidrIp": "10.0.0.0/16"}]}],
         "IpPermissionsEgress": [{"IpProtocol": "-1", "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}]}
ROUTES = ("task-to-task", "task-to-fabric")
ENGINES = {"engine": True, "engine without offloads": False}  # super-frames and checksums: ports and trunk
TRUNK, OUTSIDE, ROUTER = "trunk1", "10.0.1.20", "10.0.0.1"
KERNEL = "veth+bridge+nft"
# The same policy: what is established, and new connections to one port. Bridged packets meet the hooks of inet by br_netfilter.
RULES = f"""table inet bench {{ chain forward {{ type filter hook forward priority 0; policy drop;
  ct state established accept; tcp dport {PORT} ct state new accept; }}; }}"""


class EngineSide:
    """Tasks of one engine, and a host outside. The first two, which talk, are attached; the rest is ready to be."""

    def __init__(self, build, mtu, offloads, tasks=2, **config):
        self.lab, self.mtu, self.offloads, self.tasks = Lab(build), mtu, offloads, tasks
        self.config = self.lab.engine_config(trunk={"device": f"net_trunkline_tap900,iface={TRUNK}", "mode": "untagged", "mtu": mtu, "offloads": offloads}, **config)

    def start(self):
        self.lab.start()
        outside = self._make_trunk()
        self.lab.start_engine(self.config)
        self.call("sg.put", {"document": {"SecurityGroups": [GROUP]}})
        self.attached = [{"eni": f"eni-{number:08x}", "mac": f"0a:47:e4:7a:2c:{number:02x}", "addresses": [f"10.0.0.{30 + number}"],
                          "subnet": "subnet-c070009b", "vlan": "untagged", "groups": [GROUP["GroupId"]],
                          "port": {"kind": "tap", "netns": self.lab.netns(f"t{number}"), "ifname": "eth0", "mtu": self.mtu, "offloads": self.offloads}}
                         for number in range(1, self.tasks + 1)]
        for number in range(1, self.tasks + 1):
            self.lab.add_netns(f"t{number}")
        for task in self.attached[:2]:
            self.call("task.attach", task)
        first = self.attached[0]
        ip(self.lab, outside, f"neigh replace {first['addresses'][0]} lladdr {first['mac']} dev eth0")
        self.ends = {"task-to-task": (self.lab.netns("t1"), self.lab.netns("t2"), self.attached[1]["addresses"][0]),
                     "task-to-fabric": (self.lab.netns("t1"), outside, OUTSIDE)}
        for netns in (self.lab.netns("t2"), outside):
            serve(self.lab, netns)

    def _make_trunk(self):
        outside, instance = self.lab.add_netns("outside"), self.lab.instance
        ip(self.lab, instance, f"tuntap add dev {TRUNK} mode tap multi_queue vnet_hdr", "link add br0 type bridge",
           f"link add v0 mtu {self.mtu} type veth peer name eth0 mtu {self.mtu} address {ROUTER_MAC} netns {outside}",
           *(f"link set {name} {what}" for name in (TRUNK, "v0") for what in (f"mtu {self.mtu}", "master br0", "up")), "link set br0 up")
        ip(self.lab, outside, f"addr add {OUTSIDE}/24 dev eth0", f"addr add {ROUTER}/24 dev eth0", "link set eth0 up")
        return outside

    def call(self, method, params=None):
        answer = self.lab.rpc(method, params or {})
        if "error" in answer:
            raise BenchError(f"the engine refused {method}: {answer['error']}")
        return answer["result"]

    def describe(self):
        return f"trunklined --config {json.dumps(self.config)}; {self.tasks} tap ports, mtu {self.mtu}, offloads {self.offloads}"


class KernelSide:
    """The same three hosts on a bridge."""

    def __init__(self, build, mtu):
        self.lab, self.mtu = Lab(build), mtu

    def start(self):
        self.lab.start()
        bridge = self.lab.add_netns("bridge")
        ip(self.lab, bridge, "link add br0 type bridge", "link set br0 up")
        hosts = {}
        for number, name in enumerate(("k1", "k2", "outside"), 1):
            netns = hosts[name] = self.lab.add_netns(name)
            self.lab.run("ip", "link", "add", f"v{number}", "mtu", str(self.mtu), "netns", bridge, "type", "veth", "peer", "name", "eth0",
                         "mtu", str(self.mtu), "netns", netns)
            ip(self.lab, bridge, f"link set v{number} master br0 up")
            ip(self.lab, netns, f"addr add 10.0.0.{number}/24 dev eth0", "link set eth0 up")
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

    def describe(self):
        return f"bridge of veth pairs, mtu {self.mtu}, net.bridge.bridge-nf-call-iptables=1, nft: {' '.join(RULES.split())}"


def ip(lab, netns, *commands):
    for command in commands:
        lab.run("ip", "-n", netns, *shlex.split(command))


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
    sides = {name: EngineSide(options.build, options.mtu, offloads) for name, offloads in ENGINES.items()}
    sides[KERNEL] = KernelSide(options.build, options.mtu)
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
