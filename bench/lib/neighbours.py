# SPDX-License-Identifier: BSD-3-Clause
"""What a task notices of its neighbours: one that is pinged, connected to, that serves a download and asks the resolver at 80 % of its allowance, while another
task (or a stranger, or an observer) does its worst. Each abuse alone, and all at once, one task each; before, during and after it; ratios to the
quiet time right before, in the same run. tests/lab/neighbour.py says what each is.

    ping p50, p99, p99.9   milliseconds, a ping each 5 ms
    gap                    longest time without an answer, ms
    failed                 connects that did not come about, of those tried each 20 ms
    download               Mbit/s of a kept one that may have 160
    dns                    packets within the allowance that the engine refused
    cut back               frames of the abuser that were dropped as cpu_allowance_exceeded
"""
import contextlib
import sys
import time

from . import kernel, results
from .processes import BenchError
from .progress import table

sys.path.insert(0, str(results.ROOT / "tests"))
from lab import Lab, missing_requirements, neighbour as people  # noqa: E402
from lab.lab import ROUTER_MAC, SUBNET_ID  # noqa: E402

ANY = [{"CidrIp": "0.0.0.0/0"}]
PING = {"IpProtocol": "icmp", "FromPort": 8, "ToPort": -1, "IpRanges": ANY}
OUT = [{"IpProtocol": "-1", "IpRanges": ANY}]
MUST = {"p99": 3.0, "gap": 20.0, "failed": 0, "download": 0.9, "dns": 0}


def rule(protocol, port):
    return {"IpProtocol": protocol, "FromPort": port, "ToPort": port, "IpRanges": ANY}


def group(identity, *rules):
    return {"GroupId": identity, "GroupName": identity[3:], "Description": "of a benchmark", "VpcId": "vpc-0a1b2c3d4e5f60718",
            "IpPermissions": list(rules), "IpPermissionsEgress": OUT}


class Host:
    """An engine with a quiet task and one for each abuse."""

    def __init__(self, build, tasks):
        self.lab, self.count = Lab(build), tasks

    def __enter__(self):
        try:
            return self.start()
        except BaseException:
            self.lab.stop()
            raise

    def __exit__(self, *_):
        self.lab.stop()

    def start(self):
        lab = self.lab
        lab.trunk_mode = "untagged"
        lab.start()
        # No program between the trunk and the host outside: a kernel's bridge. What is slow then is the engine.
        outside = lab.add_netns("outside")
        kernel.ip(lab, lab.instance, "link add br0 type bridge", "link add trunk1 mtu 9001 type veth peer name b0 mtu 9001",
                  f"link add v0 mtu 9001 type veth peer name eth0 mtu 9001 address {ROUTER_MAC} netns {outside}",
                  *(f"link set {name} {what}" for name in ("b0", "v0") for what in ("master br0", "up")), "link set trunk1 up", "link set br0 up")
        kernel.ip(lab, outside, "addr add 10.0.1.20/24 dev eth0", "addr add 10.0.0.1/24 dev eth0", "link set eth0 up", "route add default dev eth0")
        self.config = lab.engine_config(trunk={"device": "net_af_packet0,iface=trunk1,blocksz=36864,framesz=9216,framecnt=512,qdisc_bypass=0"})
        lab.start_engine(self.config)
        lab.client = lab.vpc = outside
        self.call("sg.put", {"document": {"SecurityGroups": [group("sg-0000b1c7", PING, rule("tcp", people.CONNECT_PORT), rule("tcp", people.DOWNLOAD_PORT)),
                                                             group("sg-0000a77a", PING, rule("tcp", people.OPEN_PORT), rule("udp", 9))]}})
        self.tasks = [Task(lab, number) for number in range(1, self.count + 1)]
        for task in self.tasks:
            lab.add_netns(task.name)
        for task in self.tasks:
            kernel.ip(lab, lab.client, f"neigh replace {task.address} lladdr {task.mac} dev eth0")
        for task in self.tasks:
            self.call("task.attach", {"eni": task.eni, "mac": task.mac, "addresses": [task.address], "subnet": SUBNET_ID, "vlan": "untagged",
                                      "groups": ["sg-0000b1c7" if task is self.tasks[0] else "sg-0000a77a"],
                                      "port": {"kind": "tap", "netns": task.netns, "ifname": "eth0"}})
        return self

    def call(self, method, params=None):
        answer = self.lab.rpc(method, params or {})
        if "error" in answer:
            raise BenchError(f"the engine refused {method}: {answer['error']}")
        return answer["result"]

    def dropped(self, eni, reason):
        return self.lab.drops(eni).get(reason, 0)


class Task:
    def __init__(self, lab, number):
        self.name, self.eni, self.vlan = f"t{number}", f"eni-{number:08x}", None
        self.netns, self.mac, self.address = lab.netns(self.name), f"0a:47:e4:7a:2c:{number:02x}", f"10.0.0.{30 + number}"


def watch(host, neighbour, seconds):
    """What the neighbour saw of the next seconds."""
    eni = host.tasks[0].eni
    before = host.dropped(eni, "linklocal_allowance_exceeded")
    began = time.time()
    time.sleep(seconds)
    seen = neighbour.between(began, time.time() - 0.05)
    time.sleep(0.1)
    seen["dns"] = host.dropped(eni, "linklocal_allowance_exceeded") - before
    return seen


def run_one(host, names, seconds, progress):
    """(before, during, after, frames cut back) of these abuses at once."""
    neighbour_task, others = host.tasks[0], host.tasks[1:]
    resolver = people._from_task(neighbour_task, host.lab, [people._ipv4(neighbour_task.address, people.DNS, 17, people._udp(5353, 53))], 819)
    try:
        with people.Neighbour(host.lab, neighbour_task) as neighbour:
            time.sleep(1)
            before = watch(host, neighbour, seconds)
            cut = sum(host.dropped(task.eni, "cpu_allowance_exceeded") for task in others)
            with contextlib.ExitStack() as stack:
                for name, task in zip(names, others):
                    progress.now(f"{name} begins")
                    stack.enter_context(people.abuse(name, host.lab, task))
                time.sleep(1)
                progress.now(f"{', '.join(names)}: {seconds} s")
                during = watch(host, neighbour, seconds)
            cut = sum(host.dropped(task.eni, "cpu_allowance_exceeded") for task in others) - cut
            time.sleep(1)
            after = watch(host, neighbour, seconds / 2)
    finally:
        resolver.end()
    return before, during, after, cut


def ratio(value, to):
    return value / to if value is not None and to else None


def text(value, form="{:.2f}"):
    return "-" if value is None else form.format(value)


def judge(before, during):
    """Names of what missed its bound."""
    missed = []
    if (p99 := ratio(during["p99"], before["p99"])) is None or p99 > MUST["p99"]:
        missed.append("ping p99")
    if during["gap"] > MUST["gap"]:
        missed.append("gap")
    if during["failed"] > MUST["failed"]:
        missed.append("connects")
    if (ratio(during["mbits"], before["mbits"]) or 0) < MUST["download"]:
        missed.append("download")
    if during["dns"] > MUST["dns"]:
        missed.append("dns")
    return missed


def run(options, progress):
    missing = missing_requirements(options.build, ("nft", "ping"), memory_mb=256)
    if missing:
        raise BenchError("; ".join(missing))
    chosen = [name for name in people.ABUSES if not options.only or any(part in name for part in options.only)]
    lines, rows, missed_all = [], [], []
    with Host(options.build, len(people.ABUSES) + 1) as host:
        rounds = [[name] for name in chosen] + ([chosen] if len(chosen) > 1 else [])
        for at, names in enumerate(rounds):
            label = names[0] if len(names) == 1 else "all at once"
            progress.say(f"{at + 1} of {len(rounds)}: {label}")
            before, during, after, cut = run_one(host, names, options.seconds, progress)
            missed = judge(before, during)
            missed_all += missed
            rows.append((label, *(f"{text(before[key])} > {text(during[key])}" for key in ("p50", "p99", "p999")), text(ratio(during["p99"], before["p99"])),
                         f"{during['gap']:.0f}", f"{during['failed']} of {during['failed'] + during['connects']}",
                         text(ratio(during["mbits"], before["mbits"])), str(during["dns"]), str(cut), ", ".join(missed) or "-"))
            lines.append(results.line(f"neighbours/{label}/ping-p99", "ms", during["p99"], samples=during["pings"], ratio=ratio(during["p99"], before["p99"]),
                                      before=before, during=during, after=after, cut_back=cut, missed=missed, device=f"trunklined, {len(host.tasks)} taps, trunk net_af_packet"))
    print(table(rows, ("abuse", "ping p50 ms", "p99", "p99.9", "p99 ratio", "gap ms", "failed", "download", "dns", "cut back", "missed")))
    progress.say(f"written to {results.append('neighbours', lines, options.results)}")
    return 1 if missed_all else 0
