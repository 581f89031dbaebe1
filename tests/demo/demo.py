#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
"""Shows Trunkline at work: the walk-through of AWS's awsvpc mode on one machine, with real programs as peers.

    demo.py --build DIR [--json] [--keep]        as root; ./dev demo does all of it

Each step prints the commands it runs (they are real: with --keep the laboratory stays and they can be typed), what was
expected, and what was seen. Nothing is skipped: what cannot be tried has failed.
"""
import argparse
import copy
import json
import os
import shlex
import signal
import subprocess
import sys
import time

sys.dont_write_bytecode = True  # run as root out of somebody's clone
HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.dirname(HERE))
DATA = os.path.join(os.path.dirname(HERE), "data")

from lab import CtlError, Download, Dropbear, HttpLoop, Lab, LabError, Nginx  # noqa: E402
from lab import ipv4_echo_frame, missing_requirements, send_frames  # noqa: E402
from lab.lab import CLIENT, ROUTER_MAC, SUBNET, SUBNET_ID, free_hugepages_mb  # noqa: E402

WEB_GROUP, HOST_GROUP = "sg-9effe8e4", "sg-0a5500c4"
HOST = {"eni": "eni-0000a5c1", "mac": "0a:47:e4:7a:2b:20", "address": "10.0.0.20", "ifname": "ens5"}
PROGRAMS = ("nginx", "dropbear", "dropbearkey", "tcpdump")


class Task:
    """What the demo knows of one of its two tasks."""

    def __init__(self, number):
        self.name = f"web{number}"
        self.eni = f"eni-b0aaa4b{number + 1}"
        self.mac = f"0a:47:e4:7a:2b:0{number + 1}"
        self.address = f"10.0.0.{34 + number}"
        self.vlan = 100 + number
        self.arn = f"arn:aws:ecs:us-west-2:123456789012:task/awsvpc-ecs-demo/f5aa{number:028d}"
        self.attachment = f"1789bcae-ddfb-4d10-8ebe-8ac87ddba5b{7 + number}"
        self.page = f"nginx of task {self.name}, {self.address}"


class Report:
    """Says what happens: for people, or with --json one object a check and nothing else on stdout."""

    def __init__(self, as_json):
        self.as_json = as_json
        self.checks = 0
        self.failed = []
        self.steps = 0
        self.began = time.monotonic()
        colour = not as_json and sys.stdout.isatty() and "NO_COLOR" not in os.environ
        self.bold, self.dim, self.green, self.red, self.plain = \
            ("\033[1m", "\033[2m", "\033[32m", "\033[31m", "\033[0m") if colour else ("",) * 5

    def say(self, text=""):
        if not self.as_json:
            print(text, flush=True)

    def step(self, title, *why):
        self.steps += 1
        self.say(f"\n{self.bold}{self.steps}. {title}{self.plain}")
        for line in why:
            self.say(f"   {line}")

    def command(self, words, output=""):
        self.say(f"   {self.bold}${self.plain} {words if isinstance(words, str) else shlex.join(words)}")
        for line in output.rstrip().splitlines():
            self.say(f"     {self.dim}{line}{self.plain}")

    def does(self, what):
        """Something that is done, but not by a command that could be typed."""
        self.say(f"   {self.bold}>{self.plain} {what}")

    def check(self, name, expected, seen, ok):
        self.checks += 1
        ok, expected, seen = bool(ok), str(expected), str(seen)
        if not ok:
            self.failed.append(name)
        if self.as_json:
            print(json.dumps({"check": name, "expected": expected, "seen": seen, "ok": ok}), flush=True)
            return ok
        self.say(f"   {self.green + 'ok    ' if ok else self.red + 'FAILED'}{self.plain} {name}")
        if not ok or expected != seen:
            self.say(f"          expected  {expected}")
        self.say("          saw       " + seen.replace("\n", "\n" + " " * 20))
        return ok

    def equal(self, name, expected, seen):
        return self.check(name, expected, seen, expected == seen)

    def summary(self):
        return (f"demo: {self.checks} checks, {self.checks - len(self.failed)} ok, {len(self.failed)} failed "
                f"in {time.monotonic() - self.began:.0f} s")


class Demo:
    def __init__(self, lab, report):
        self.lab, self.report = lab, report
        self.web1, self.web2 = Task(1), Task(2)
        self.servers = {}
        self.drops_table = ""
        with open(os.path.join(DATA, "describe-tasks.json")) as file:
            self.describe_tasks = json.load(file)
        with open(os.path.join(DATA, "ecs-task-state-change.json")) as file:
            self.state_change = json.load(file)
        with open(os.path.join(HERE, "sg-9effe8e4.json")) as file:
            self.web_group = json.load(file)
        with open(os.path.join(HERE, "sg-host.json")) as file:
            self.host_group = json.load(file)

    # -- small words --

    def netns(self, task):
        return self.lab.netns(task.name)

    def trunkctl(self, *words):
        """Runs the command, and shows it with what it said."""
        done = self.lab.trunkctl(*words)
        self.report.command(["trunkctl", *words], done.stdout + done.stderr)
        return done

    def get(self, netns, address, timeout=5):
        self.report.command(["ip", "netns", "exec", netns, "curl", "-sS", "--max-time", str(timeout), f"http://{address}/"])
        status, body, complaint = self.lab.http_get(netns, f"http://{address}/", timeout)
        return f"{status} {body.strip()}" if status else f"no answer ({complaint})"

    def probe(self, netns, address, port):
        """One SYN: the answer is waited for less than the second after which Linux would repeat it."""
        seen = self.lab.tcp_probe(netns, address, port)
        self.report.does(f"one SYN from {netns} to {address}:{port}")
        return seen

    def drop_moves(self, eni, reason, work):
        """What work() returns, and by how many packets the drop counter moved."""
        before = self.lab.drops(eni).get(reason, 0)
        result = work()
        self.lab.wait_until(lambda: self.lab.drops(eni).get(reason, 0) != before, 0.5)
        return result, self.lab.drops(eni).get(reason, 0) - before

    def state(self, eni):
        task = self.lab.task(eni)
        return "unknown" if task is None else f"{task['state']}{': ' + task['reason'] if task['reason'] else ''}"

    def put_group(self, file_name, group, because):
        self.lab.write_file(file_name, group)
        self.report.say(f"   {because}")
        return self.trunkctl("sg", "put", file_name)

    def changed_group(self, ping=False, egress=None):
        group = copy.deepcopy(self.web_group)
        one = group["SecurityGroups"][0]
        if ping:
            one["IpPermissions"].append(
                {"IpProtocol": "icmp", "FromPort": 8, "ToPort": -1, "IpRanges": [{"CidrIp": "10.0.0.0/16"}]})
        if egress is not None:
            one["IpPermissionsEgress"] = egress
        return group

    def write_task(self, task, file_name, version=4):
        """describe-tasks.json of the walk-through, or the same with the second task's own values."""
        text = json.dumps(self.describe_tasks)
        for mine, theirs in self.own_values(task):
            text = text.replace(mine, theirs)
        document = json.loads(text)
        document["tasks"][0]["version"] = version
        self.lab.write_file(file_name, document)

    def submit_task(self, task, file_name, vlan=None, netns=None):
        """Tells the engine what ECS says of the task, and with options what ECS does not say."""
        return self.trunkctl("event", "submit", file_name, "--vlan", str(vlan or task.vlan), "--group", WEB_GROUP,
                             "--port", "tap", "--netns", netns or self.netns(task))

    def own_values(self, task):
        return ((self.web1.arn, task.arn), (self.web1.attachment, task.attachment), (self.web1.eni, task.eni),
                (self.web1.mac, task.mac), (self.web1.address, task.address))

    def tell_vpc(self):
        self.lab.fabric_enis(
            [{"vlan": task.vlan, "mac": task.mac, "addresses": [task.address], "subnet": SUBNET}
             for task in (self.web1, self.web2)]
            + [{"vlan": 0, "mac": HOST["mac"], "addresses": [HOST["address"]], "subnet": SUBNET}])

    def serve(self, task):
        self.servers[task.name] = Nginx(self.lab, self.netns(task), task.page, ports=(80, 8080))

    # -- the steps --

    def prepare(self):
        for task in (self.web1, self.web2):
            self.lab.add_netns(task.name)
        self.tell_vpc()
        lab, web1, web2 = self.lab, self.web1, self.web2
        line = f"   eth0 {CLIENT} --- router ====== trunk ====== trunklined "
        space = " " * len(line)
        self.report.say(f"""Trunkline gives every ECS task on a host a network interface (ENI) of its own, behind one trunk.

   {"a host of the VPC":<20}{"the VPC":<16}{"the container host"}
   {lab.client:<20}{lab.vpc:<16}{lab.instance}
{space}+-- eth0 {web1.address}  VLAN {web1.vlan}  in {lab.netns("web1")}
{line}+-- eth0 {web2.address}  VLAN {web2.vlan}  in {lab.netns("web2")}
{space}+-- {HOST["ifname"]} {HOST["address"]}  untagged  the host itself

Each tl- name is a network namespace of this machine (the VPC is an emulator, tests/fabric), and all is taken down at
the end; --keep leaves it standing. The commands below run in {lab.directory} with
TRUNKLINE_SOCKET={lab.socket}.""")

    def start_engine(self):
        r = self.report
        r.step("The engine starts, and says what memory it needs",
               "Its packet buffers live in hugepages, reserved once. Too little is told before anything happens.")
        config = self.lab.engine_config()
        greedy = self.lab.write_engine_config(self.lab.engine_config(eal={"memory_mb": 524288}),
                                              os.path.join(self.lab.directory, "too-much.json"))
        os.makedirs(config["state_dir"], exist_ok=True)
        done = self.lab.exec(self.lab.instance, self.lab.binaries["trunklined"], "--config", greedy)
        said = done.stderr.strip().splitlines()[-1] if done.stderr.strip() else "nothing"
        r.command("trunklined --config too-much.json", said)
        r.check("an engine without enough memory refuses to start", "exit code 1, naming eal.memory_mb",
                f"exit code {done.returncode}: {said[3:] if said.startswith('<') else said}",
                done.returncode == 1 and "524288 MB wanted (eal.memory_mb)" in said)
        free = free_hugepages_mb()
        r.command(["ip", "netns", "exec", self.lab.instance, "trunklined", "--config", "trunklined.json"])
        began = time.monotonic()
        self.lab.start_engine(config)
        took = time.monotonic() - began
        self.trunkctl("status")
        status = self.lab.ctl("status")
        memory = status["memory"]
        r.check("the engine runs and says what it uses", f"healthy, {config['eal']['memory_mb']} MB of hugepages",
                f"{'healthy' if status['healthy'] else 'not healthy'} after {took:.1f} s, {memory['hugepages_mb']} MB of "
                f"hugepages (the kernel gave {free - free_hugepages_mb()} MB), {memory['mbufs']} buffers",
                status["healthy"] and memory["hugepages_mb"] == config["eal"]["memory_mb"])

    def attach_first(self):
        r, web1 = self.report, self.web1
        r.step("A task is attached by what ECS says of it, and waits for its security group",
               "describe-tasks.json is what `aws ecs describe-tasks` prints. The ENI's VLAN comes from the agent, here from",
               "an option. Its group is not known yet: no policy, no packets.")
        self.write_task(web1, "describe-tasks.json")
        r.say("   In it: " + ", ".join(f"{detail['name']} {detail['value']}" for detail
                                       in self.describe_tasks["tasks"][0]["attachments"][0]["details"]))
        done = self.submit_task(web1, "describe-tasks.json")
        r.equal("the event is accepted", "exit code 0", f"exit code {done.returncode}")
        seen = self.state(web1.eni)
        r.check("the endpoint waits, and says for what", f"waiting for group {WEB_GROUP}", seen,
                seen.startswith("waiting") and f"group {WEB_GROUP}" in seen)
        seen, moved = self.drop_moves(None, "no_policy", lambda: self.probe(self.lab.client, web1.address, 80))
        r.equal("nothing is forwarded meanwhile (fail closed)", "silence, no eth0, 1 SYN dropped as no_policy",
                f"{seen}, {self.describe(self.lab.interface(self.netns(web1)))}, {moved} SYN dropped as no_policy")
        self.put_group("sg-9effe8e4.json", self.web_group, "The group arrives: tcp/80 in from anywhere, everything out.")
        r.equal("the endpoint is in service", "active", self.state(web1.eni))
        interface = self.lab.interface(self.netns(web1)) or {}
        words = ["ip", "-n", self.netns(web1), "addr", "show", "eth0"]
        r.command(words, self.lab.run(*words, check=False))
        r.check("the task has its own eth0", f"{web1.mac} {web1.address}/24 via 10.0.0.1",
                f"{interface.get('mac')} {' '.join(interface.get('addresses', []))} via {interface.get('default')}",
                interface.get("mac") == web1.mac and interface.get("addresses") == [web1.address + "/24"]
                and interface.get("default") == "10.0.0.1")

    def http(self):
        r, web1 = self.report, self.web1
        r.step("The task serves HTTP", "A real nginx listens in the task's namespace, on port 80 and on 8080.")
        self.serve(web1)
        r.equal("HTTP from the client", f"200 {web1.page}", self.get(self.lab.client, web1.address))

    def silence(self):
        r, web1 = self.report, self.web1
        r.step("What no rule allows meets silence, and is counted",
               "The group lets in tcp/80 and nothing else. On 8080 somebody even listens.")
        r.equal("inside the task, 8080 is open", "open", self.probe(self.netns(web1), web1.address, 8080))
        for port in (22, 8080):
            seen, moved = self.drop_moves(web1.eni, "security_group_ingress",
                                          lambda: self.probe(self.lab.client, web1.address, port))
            r.equal(f"port {port} of the task", "silence, 1 SYN dropped as security_group_ingress",
                    f"{seen}, {moved} SYN dropped as security_group_ingress")
        self.trunkctl("drops", web1.eni)

    def host_endpoint(self):
        r, lab = self.report, self.lab
        r.step("The host itself is an endpoint too, with rules of its own",
               f"Its ENI comes out as {HOST['ifname']} in the engine's own namespace, untagged on the trunk. A real SSH server listens there.")
        self.put_group("sg-host.json", self.host_group, "Its group: tcp/22 in from anywhere, everything out.")
        document = {"eni": HOST["eni"], "mac": HOST["mac"], "addresses": [HOST["address"]], "subnet": SUBNET_ID,
                    "vlan": "untagged", "groups": [HOST_GROUP],
                    "port": {"kind": "tap", "netns": "", "ifname": HOST["ifname"]}}
        lab.write_file("host-eni.json", document, indent=None)
        r.command("cat host-eni.json", json.dumps(document))
        self.trunkctl("task", "attach", "--from", "host-eni.json")
        r.equal("the host's ENI is in service", "active", self.state(HOST["eni"]))
        Dropbear(lab, lab.instance)
        r.does(f"the first line that {HOST['address']}:22 says to {lab.client}")
        banner = lab.banner(lab.client, HOST["address"], 22)
        r.check("SSH on the host answers", "SSH-2.0-dropbear…", banner, banner.startswith("SSH-2.0-"))
        r.equal("port 22 of the task is silent all the same", "silence", self.probe(lab.client, self.web1.address, 22))
        seen, moved = self.drop_moves(HOST["eni"], "security_group_ingress", lambda: self.probe(lab.client, HOST["address"], 80))
        r.equal("HTTP to the host is silent", "silence, 1 SYN dropped", f"{seen}, {moved} SYN dropped")

    def live_change(self):
        r, lab, web1 = self.report, self.lab, self.web1
        r.step("Rules change while packets flow", "A download runs all the while, on one connection.")
        with Download(lab.client, web1.address) as download:
            started = lab.wait_until(lambda: download.received > 0, 5)
            r.command(["ip", "netns", "exec", lab.client, "ping", "-c", "1", "-W", "1", web1.address])
            answered, moved = self.drop_moves(web1.eni, "security_group_ingress", lambda: lab.ping(lab.client, web1.address))
            r.equal("a ping is dropped", "no answer, 1 packet security_group_ingress",
                    f"{'an' if answered else 'no'} answer, {moved} packet security_group_ingress")
            self.put_group("sg-with-ping.json", self.changed_group(ping=True),
                           "The group gets a second rule: icmp type 8 from 10.0.0.0/16.")
            at_change = download.received
            r.command(["ip", "netns", "exec", lab.client, "ping", "-c", "1", "-W", "1", web1.address])
            r.equal("the next ping is answered", "answer", "answer" if lab.ping(lab.client, web1.address) else "no answer")
            ended = download.finish(20)
            same = download.sha256 == self.servers[web1.name].slow_sha256
            r.check("the download came through the change whole", "all bytes, same SHA-256, most of them after the change",
                    f"{download.received} bytes, {'same' if same else 'another'} SHA-256, "
                    f"{download.received - at_change} after the change{'' if ended else f', error {download.error}'}",
                    started and ended and same and download.received > at_change)

    def second_task(self):
        r, lab, web2 = self.report, self.lab, self.web2
        r.step("A second task of the same definition, on the same port",
               "Port 80 twice on one host, and no port mapping: each task has an address of its own.")
        self.write_task(web2, "describe-tasks-2.json")
        self.submit_task(web2, "describe-tasks-2.json")
        self.serve(web2)
        for task in (self.web1, web2):
            r.equal(f"HTTP of {task.name} from the client", f"200 {task.page}", self.get(lab.client, task.address))
        self.trunkctl("task", "list")

    def task_to_task(self):
        r, lab, web1, web2 = self.report, self.lab, self.web1, self.web2
        r.step("From task to task on one host, both groups apply",
               "The packet leaves web1 under web1's outbound rules and enters web2 under web2's inbound rules.")
        r.equal("web1 reaches web2 on port 80", f"200 {web2.page}", self.get(self.netns(web1), web2.address))
        seen, moved = self.drop_moves(web2.eni, "security_group_ingress", lambda: self.probe(self.netns(web1), web2.address, 22))
        r.equal("but not on port 22", "silence, 1 SYN dropped as security_group_ingress of web2",
                f"{seen}, {moved} SYN dropped as security_group_ingress of web2")
        https_only = [{"IpProtocol": "tcp", "FromPort": 443, "ToPort": 443, "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}]
        self.put_group("sg-narrow.json", self.changed_group(ping=True, egress=https_only), "Outbound is narrowed to tcp/443.")
        seen, moved = self.drop_moves(web1.eni, "security_group_egress", lambda: self.probe(self.netns(web1), web2.address, 80))
        r.equal("web1 may not connect to web2:80 any more", "silence, 1 SYN dropped as security_group_egress of web1",
                f"{seen}, {moved} SYN dropped as security_group_egress of web1")
        r.equal("the client still gets web1's page: answers need no outbound rule", f"200 {web1.page}",
                self.get(lab.client, web1.address))
        self.put_group("sg-with-ping.json", self.changed_group(ping=True), "Outbound is opened again.")
        r.equal("web1 reaches web2 again", f"200 {web2.page}", self.get(self.netns(web1), web2.address))

    def spoofing(self):
        r, lab, web1 = self.report, self.lab, self.web1
        r.step("A task cannot speak for another",
               "Raw frames written inside web1, as a hostile container with CAP_NET_RAW could.")
        spoofed_before = lab.fabric_counters()["spoofed"]
        # A tag would carry the frame into web2's VLAN if the engine let it through.
        attempts = (("another's address, 10.0.0.99", "spoof_ip", {"source": "10.0.0.99"}),
                    ("another's MAC address, web2's", "spoof_mac", {"from_mac": self.web2.mac}),
                    ("a VLAN tag, web2's", "unexpected_vlan", {"vlan": self.web2.vlan}))
        for what, reason, wrong in attempts:
            frames = [ipv4_echo_frame(ROUTER_MAC, **{"from_mac": web1.mac, "source": web1.address, "destination": CLIENT,
                                                     **wrong}, number=number) for number in range(1, 6)]
            r.does(f"5 frames from {self.netns(web1)} with {what}")

            def send():
                send_frames(self.netns(web1), "eth0", frames)
                lab.wait_until(lambda: lab.drops(web1.eni).get(reason, 0) >= 5, 1)

            _, moved = self.drop_moves(web1.eni, reason, send)
            r.equal(f"frames with {what} are dropped", f"5 packets {reason}", f"{moved} packets {reason}")
        r.equal("the VPC saw none of them", "0 more spoofed frames",
                f"{lab.fabric_counters()['spoofed'] - spoofed_before} more spoofed frames")

    def capture(self):
        r, lab = self.report, self.lab
        r.step("On the trunk each ENI has its VLAN", "The wire as an independent witness sees it.")

        def frame_of(address, condition, work):
            log = f"tcpdump-{address}.log"
            words = ["tcpdump", "-l", "-e", "-n", "-c", "1", "-i", "trunk0", f"{condition}src host {address}"]
            dump = lab.spawn(lab.instance, *words, log=log)
            lab.wait_until(lambda: "listening on" in lab.tail(log) or dump.poll() is not None, 5)
            work()
            lab.wait_until(lambda: dump.poll() is not None, 5)
            lab.end(dump)
            frame = next((line for line in lab.tail(log).splitlines() if f" {address}." in line), "nothing")
            r.command(["ip", "netns", "exec", lab.instance, *words], frame)
            return frame

        for task in (self.web1, self.web2):
            frame = frame_of(task.address, f"vlan {task.vlan} and ",
                             lambda: lab.http_get(lab.client, f"http://{task.address}/"))
            r.check(f"{task.name} travels as VLAN {task.vlan}", f"802.1Q, vlan {task.vlan}, from {task.mac}",
                    " ".join(frame.split()[1:11]).rstrip(","),
                    f"vlan {task.vlan}," in frame and "802.1Q" in frame and f"{task.mac} >" in frame)
        frame = frame_of(HOST["address"], "", lambda: lab.banner(lab.client, HOST["address"], 22))
        r.check("the host's own ENI has none", f"no 802.1Q tag, from {HOST['mac']}", " ".join(frame.split()[1:6]).rstrip(","),
                f"{HOST['mac']} >" in frame and "802.1Q" not in frame)

    def bad_input(self):
        r, lab = self.report, self.lab
        r.step("What is wrong is refused, with a reason, and changes nothing")
        before = lab.revision()
        self.write_task(Task(3), "describe-tasks-3.json")
        done = self.submit_task(Task(3), "describe-tasks-3.json", vlan=self.web1.vlan, netns=self.netns(self.web2))
        r.check("a VLAN that another ENI has", f"exit code 1, VLAN {self.web1.vlan} is taken",
                f"exit code {done.returncode}: {done.stderr.strip()}",
                done.returncode == 1 and str(self.web1.vlan) in done.stderr and self.web1.eni in done.stderr)
        done = self.submit_task(Task(3), "describe-tasks-3.json", netns="nowhere")
        r.check("a network namespace that is not there", "exit code 1, no network namespace",
                f"exit code {done.returncode}: {done.stderr.strip()}",
                done.returncode == 1 and "nowhere" in done.stderr)
        done = self.trunkctl("sg", "put", "sg-9effe8e4.json", "--expect-revision", str(before - 1))
        r.check("a change that was decided on an old state", "exit code 5, conflict",
                f"exit code {done.returncode}: {done.stderr.strip()}", done.returncode == 5)
        junk = b"\x00\xff not JSON \xfe\n"
        r.does(f"the line {junk!r} on the control socket")
        answer = lab.rpc_raw(junk) or {}
        error = answer.get("error", {})
        r.check("junk on the socket", "error -32700, and the engine lives", f"error {error.get('code')}: {error.get('message')}",
                error.get("code") == -32700 and lab.answers())
        r.equal("none of it changed anything", f"revision {before}", f"revision {lab.revision()}")

    def counters(self, final=False):
        r, lab = self.report, self.lab
        r.step("Every packet is accounted for" if not final else "And still every packet is accounted for",
               "At every port, what came equals what was sent on plus what was dropped for a named reason.")
        try:
            lab.assert_accounted()
            seen = "0 unaccounted"
        except AssertionError as error:
            seen = str(error)
        self.trunkctl("stats")
        r.equal("the counters close", "0 unaccounted", seen)
        if not final:
            # Counters begin anew with the engine, and the next step restarts it.
            self.drops_table = lab.trunkctl("drops").stdout

    def restart(self):
        r, lab = self.report, self.lab
        r.step("The engine is killed, and the tasks do not notice much",
               "kill -9 while both tasks serve. Interfaces, addresses and routes are the kernel's; the state is on disk.")
        before = {task.name: lab.interface(self.netns(task)) for task in (self.web1, self.web2)}
        with HttpLoop(lab.client, self.web1.address) as loop1, HttpLoop(lab.client, self.web2.address) as loop2, \
                Download(lab.client, self.web1.address) as download:
            lab.wait_until(lambda: len(loop1.done) > 20 and len(loop2.done) > 20 and download.received > 0, 5)
            r.command(f"kill -9 {lab.engine.pid}")
            killed = time.monotonic()
            lab.kill_engine(signal.SIGKILL)
            r.command(["ip", "netns", "exec", lab.instance, "trunklined", "--config", "trunklined.json"])
            lab.start_engine()
            answers = time.monotonic() - killed
            r.check("the engine is back with both tasks", "active, active",
                    f"{self.state(self.web1.eni)}, {self.state(self.web2.eni)}, {answers:.1f} s after the kill",
                    self.state(self.web1.eni) == self.state(self.web2.eni) == "active")
            back = time.monotonic()
            lab.wait_until(lambda: loop1.done_since(back) > 20 and loop2.done_since(back) > 20, 10)
            for task in (self.web1, self.web2):
                then, now = before[task.name], lab.interface(self.netns(task))
                r.check(f"eth0 of {task.name} is the same one", self.describe(then), self.describe(now), then and then == now)
                r.equal(f"HTTP of {task.name} again", f"200 {task.page}", self.get(lab.client, task.address))
            ended = download.finish(25)
        for task, loop in ((self.web1, loop1), (self.web2, loop2)):
            r.check(f"requests to {task.name} all along", "none failed, the longest gap below 10 s",
                    f"{len(loop.done)} answered, {len(loop.failed)} failed, the longest gap {loop.longest_gap():.1f} s"
                    + (f"; first failure {loop.failed[0][1]}" if loop.failed else ""),
                    not loop.failed and loop.done_since(back) > 0 and loop.longest_gap() < 10)
        same = download.sha256 == self.servers["web1"].slow_sha256
        r.check("the download that was under way went on", "all bytes, same SHA-256",
                f"{download.received} bytes, {'same' if same else 'another'} SHA-256{'' if ended else f', error {download.error}'}",
                ended and same)

    @staticmethod
    def describe(interface):
        if interface is None:
            return "no eth0"
        return (f"index {interface['ifindex']}, {interface['mac']}, {' '.join(interface['addresses'])}, "
                f"default via {interface['default']}")

    def detach(self):
        r, lab, web1, web2 = self.report, self.lab, self.web1, self.web2
        r.step("Tasks end", "One by command, one by the event that ECS sends to EventBridge when a task has stopped.")
        with HttpLoop(lab.client, web2.address) as loop:
            lab.wait_until(lambda: len(loop.done) > 20, 5)
            self.trunkctl("task", "detach", web1.eni)
            detached = time.monotonic()
            lab.wait_until(lambda: loop.done_since(detached) > 50, 5)
        r.equal("eth0 is gone from web1", "no eth0", self.describe(lab.interface(self.netns(web1))))
        r.equal("web1 is silent", "silence", self.probe(lab.client, web1.address, 80))
        r.check("web2 served on without loss", "none failed, no gap of a repeated SYN (1 s)",
                f"{len(loop.done)} answered, {len(loop.failed)} failed, the longest gap {loop.longest_gap() * 1000:.0f} ms",
                not loop.failed and loop.done_since(detached) > 50 and loop.longest_gap() < 0.9)
        self.submit_state_change(web2, "STOPPED", 9, "ecs-task-stopped.json")
        r.equal("the stopped task's eth0 is gone", "no eth0", self.describe(lab.interface(self.netns(web2))))
        done = self.submit_state_change(web2, "RUNNING", 5, "ecs-task-late.json")
        r.check("an older event that comes late does not bring it back", "a warning stale_event, no eth0",
                f"{done.stderr.strip() or 'no warning'}; {self.describe(lab.interface(self.netns(web2)))}",
                "stale_event" in done.stderr and lab.interface(self.netns(web2)) is None and lab.task(web2.eni) is None)
        banner = lab.banner(lab.client, HOST["address"], 22)
        r.check("the host's SSH never minded", "SSH-2.0-dropbear…", banner, banner.startswith("SSH-2.0-"))

    def submit_state_change(self, task, status, version, file_name):
        text = json.dumps(self.state_change)
        for mine, theirs in self.own_values(task):
            text = text.replace(mine, theirs)
        event = json.loads(text)
        detail = event["detail"]
        detail["lastStatus"] = detail["desiredStatus"] = status
        detail["version"] = version
        detail["attachments"][0]["status"] = "DELETED" if status == "STOPPED" else "ATTACHED"
        self.lab.write_file(file_name, event)
        self.report.say(f"   In {file_name}: {event['detail-type']}, task {detail['taskArn'].rsplit('/', 1)[1]}, "
                        f"lastStatus {status}, version {version}")
        return self.trunkctl("event", "submit", file_name)

    # -- the whole --

    def run(self):
        self.prepare()
        # Everything builds on these; without them the rest would only fail again and again.
        self.start_engine()
        self.attach_first()
        if self.state(self.web1.eni) != "active":
            raise LabError("without a task in service there is nothing more to show")
        for step in (self.http, self.silence, self.host_endpoint, self.live_change, self.second_task, self.task_to_task,
                     self.spoofing, self.capture, self.bad_input, self.counters, self.restart, self.detach,
                     lambda: self.counters(final=True)):
            try:
                step()
            except (CtlError, LabError, OSError, subprocess.SubprocessError, KeyError, ValueError) as error:
                self.report.check(f"step {self.report.steps} could be gone through", "no error",
                                  f"{type(error).__name__}: {error}", False)
                if self.lab.engine is None or self.lab.engine.poll() is not None:
                    raise LabError("the engine is not running any more:\n" + self.lab.tail("engine.log")) from error
        if self.drops_table:
            self.report.say("\nWhat was dropped until the restart, by reason (trunkctl drops):\n")
            self.report.say(self.drops_table.rstrip())


def keep(demo):
    """The laboratory stays until Ctrl-C, with both tasks attached anew."""
    report, lab = demo.report, demo.lab
    report.step("Kept: the laboratory stays until Ctrl-C")
    for number, task in ((1, demo.web1), (2, demo.web2)):
        demo.write_task(task, f"kept-{number}.json", version=20)
        demo.submit_task(task, f"kept-{number}.json")
    report.say(f"   In another terminal, as root:\n     export TRUNKLINE_SOCKET={lab.socket}\n     cd {lab.directory}\n"
               f"     {lab.binaries['trunkctl']} task list\n"
               f"     ip netns exec {lab.client} curl http://{demo.web1.address}/")
    while lab.engine is not None and lab.engine.poll() is None:
        time.sleep(0.5)


def stop_by_signal(number, _frame):
    raise KeyboardInterrupt(signal.Signals(number).name)


def main():
    parser = argparse.ArgumentParser(description="Trunkline at work, on this machine.")
    parser.add_argument("--build", required=True, metavar="DIR", help="where ./dev build put the programs")
    parser.add_argument("--json", action="store_true", help="one object a check on stdout, nothing else")
    parser.add_argument("--keep", action="store_true", help="keep the laboratory until Ctrl-C")
    options = parser.parse_args()
    os.environ["PATH"] = "/usr/sbin:/usr/bin:/sbin:/bin"
    os.environ["LC_ALL"] = "C.UTF-8"

    missing = missing_requirements(options.build, PROGRAMS)
    if missing:
        for sentence in missing:
            print(f"demo: missing: {sentence}", file=sys.stderr)
        return 2
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, stop_by_signal)
    report = Report(options.json)
    lab = Lab(options.build)
    try:
        with lab:
            finished = False
            try:
                demo = Demo(lab, report)
                demo.run()
                finished = True
            except (CtlError, LabError, OSError, subprocess.SubprocessError, KeyError, ValueError) as error:
                report.check("the demo goes on", "no error", f"{type(error).__name__}: {error}", False)
            if report.failed:
                for log in ("engine.log", "fabric.log"):
                    print(f"\n--- the end of {log}\n{lab.tail(log, 40)}", file=sys.stderr, flush=True)
            if options.keep and finished:
                try:
                    keep(demo)
                except KeyboardInterrupt:
                    pass
    except KeyboardInterrupt as interrupt:
        print(f"demo: interrupted ({interrupt}); everything was taken down", file=sys.stderr)
        return 130
    except LabError as error:
        print(f"demo: the laboratory cannot be built: {error}", file=sys.stderr)
        return 1
    for name in report.failed:
        print(f"demo: failed: {name}", file=sys.stderr)
    print(("\n" if not options.json else "") + report.summary(), file=sys.stderr if options.json else sys.stdout, flush=True)
    return 1 if report.failed or not report.checks else 0


if __name__ == "__main__":
    sys.exit(main())
