# SPDX-License-Identifier: BSD-3-Clause
"""One laboratory.

    tl-ID-client            tl-ID-vpc                 tl-ID-instance                 tl-ID-web1, ...
    eth0 10.0.1.20  <--->  trunkline-fabric  fabric0 <== trunk ==> trunk0  trunklined  <--->  eth0 10.0.0.35

The instance's namespace plays the host's own: the engine runs there, and a host endpoint's interface is made there.
trunkline-fabric plays the VPC (tests/fabric/README.md): router, address mapping, and the client as a host in it.

Rules:
 * Names of namespaces begin with "tl-ID-"; everything else of a lab is in /run/trunkline-lab/ID/. Beside it,
   /run/trunkline-lab/ID.json says whose it is and which processes belong to it. A lab ends those, by pid, and
   nothing else; one whose owner died is taken down when the next lab starts.
 * Nothing waits without an end.
"""
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import threading
import time

from . import netns as inside

RUN = "/run/trunkline-lab"
MTU = 9001
ROUTER_MAC = "0a:00:00:00:00:01"
SUBNET = "10.0.0.0/24"
SUBNET_ID = "subnet-c070009b"
CLIENT = "10.0.1.20"
MEMORY_MB = 256
PAGES = "/sys/kernel/mm/hugepages/hugepages-2048kB"


class LabError(Exception):
    """Something of the laboratory itself does not work."""


class CtlError(Exception):
    """trunkctl did not succeed: `.code` is its exit code, the text is what it said."""

    def __init__(self, code, said):
        super().__init__(said)
        self.code = code


# ---- what the machine must have ---------------------------------------------------------------------------------------

def binaries(build):
    build = os.path.abspath(build)
    return {"trunklined": f"{build}/control/trunklined", "trunkctl": f"{build}/control/trunkctl",
            "trunkline-fabric": f"{build}/tests/fabric/trunkline-fabric"}


def free_hugepages_mb():
    try:
        with open(f"{PAGES}/free_hugepages") as file:
            return 2 * int(file.read())
    except OSError:
        return 0


def missing_requirements(build, programs=(), memory_mb=MEMORY_MB):
    """What is missing, a sentence each with what to do about it."""
    missing = []
    if os.geteuid() != 0:
        missing.append("root: network namespaces and hugepages need it; run it with sudo")
    for name, path in binaries(build).items():
        if not os.access(path, os.X_OK):
            missing.append(f"{name}: there is no {path}; ./dev build makes it")
    for program in ("ip", "curl", "ping", *programs):
        if shutil.which(program, path="/usr/sbin:/usr/bin:/sbin:/bin") is None:
            missing.append(f"the program {program}; ./dev setup installs it")
    if not os.path.exists("/dev/net/tun"):
        missing.append("/dev/net/tun: tasks' interfaces are taps; modprobe tun")
    if len(os.sched_getaffinity(0)) < 2:
        missing.append("a second processor: the engine's worker never shares its own; this process may use one only")
    if free_hugepages_mb() < memory_mb:
        missing.append(f"hugepages: {memory_mb} MB wanted, {free_hugepages_mb()} MB free; "
                       f"sysctl vm.nr_hugepages={512 + memory_mb // 2}, or ./dev setup")
    return missing


# ---- processes and files of labs, dead or alive -----------------------------------------------------------------------

def _stat(pid):
    """(session, start in ticks) of a process; with its start a pid names one process for good. None: there is none."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            fields = file.read().rpartition(")")[2].split()
        return None if fields[0] == "Z" else (int(fields[3]), int(fields[19]))
    except (OSError, IndexError, ValueError):
        return None


def _identify(pid):
    stat = _stat(pid)
    return {"pid": pid, "start": stat[1] if stat else None}


def _is_alive(process):
    stat = _stat(process["pid"])
    return stat is not None and stat[1] == process["start"]


def _family(process):
    """A process that a lab started, and its children: it began a session, and whatever is in that came from it."""
    leader = process["pid"]
    if process["start"] is None or (_stat(leader) is not None and not _is_alive(process)):
        return []  # the number belongs to somebody else by now
    found = ((int(name), _stat(name)) for name in os.listdir("/proc") if name.isdigit())
    return [pid for pid, stat in found if stat is not None and stat[0] == leader and stat[1] >= process["start"]]


def _end(processes, seconds=3):
    """Asks the processes and their children to end, and makes those that do not."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        for process in processes:
            for pid in _family(process):
                try:
                    os.kill(pid, number)
                except ProcessLookupError:
                    pass
        if inside.wait_until(lambda: not any(_family(process) for process in processes), seconds):
            return


def _write_atomically(path, value):
    with open(path + ".new", "w") as file:
        json.dump(value, file)
    os.replace(path + ".new", path)


def _delete_namespaces(identity):
    try:
        names = [name for name in os.listdir("/run/netns") if name.startswith(f"tl-{identity}-")]
    except FileNotFoundError:
        return
    for name in names:
        subprocess.run(["ip", "netns", "del", name], check=False, timeout=20, stderr=subprocess.DEVNULL)


def sweep():
    """Takes down what labs left behind whose owner is dead. Returns their ids."""
    swept = []
    for file_name in sorted(os.listdir(RUN)) if os.path.isdir(RUN) else ():
        identity, extension = os.path.splitext(file_name)
        if extension != ".json":
            continue
        path = os.path.join(RUN, file_name)
        try:
            with open(path) as file:
                record = json.load(file)
            owner, processes = record["owner"], record["processes"]
        except (OSError, ValueError, KeyError):
            owner, processes = {"pid": 0, "start": None}, []
        if _is_alive(owner):
            continue
        _end(processes)
        _delete_namespaces(identity)
        shutil.rmtree(os.path.join(RUN, identity), ignore_errors=True)
        os.unlink(path)
        swept.append(identity)
    return swept


# ---- the laboratory ---------------------------------------------------------------------------------------------------

class Lab:
    """Everything of one run. Use it with `with`; stop() may be called at any time and again."""

    def __init__(self, build, keep_directory=False):
        self.binaries = binaries(build)
        self.id = os.urandom(2).hex()
        self.directory = os.path.join(RUN, self.id)
        self.socket = os.path.join(self.directory, "control.sock")
        self.config_path = os.path.join(self.directory, "trunklined.json")
        self.fabric_path = os.path.join(self.directory, "fabric.json")
        self.keep_directory = keep_directory
        self.engine = None
        self.fabric = None
        self._children = []
        self._enis = []
        self.hosts = {}  # others in the VPC beside the client: {name: (address with its prefix length, gateway)}; set it before start()
        self.engine_prefix = []  # a command that runs the engine: as another user, with fewer rights
        self.trunk_mode = "tagged"  # or "untagged" (ENIs are told by MAC and address alone); set it before start()
        cpus = sorted(os.sched_getaffinity(0))
        self.main_cpu, self.worker_cpu = cpus[0], cpus[1 if len(cpus) > 1 else 0]

    def __enter__(self):
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_):
        self.stop()

    def start(self):
        """The namespaces, the trunk and the fabric; not yet the engine."""
        sweep()
        os.makedirs(os.path.join(self.directory, "log"))
        self._record()
        self.instance, self.vpc = self.add_netns("instance"), self.add_netns("vpc")
        self.client = self.add_netns("client")
        for name in self.hosts:
            self.add_netns(name)
        for name in (self.instance, self.vpc):
            inside.in_netns(name, _disable_ipv6)
        self._make_trunk()
        self._start_fabric()

    def _make_trunk(self):
        self.run("ip", "-n", self.vpc, "link", "add", "fabric0", "type", "veth", "peer", "name", "trunk0",
                 "netns", self.instance)
        self.run("ip", "-n", self.instance, "link", "set", "trunk0", "mtu", str(MTU), "up")
        self.run("ip", "-n", self.vpc, "link", "set", "fabric0", "mtu", str(MTU), "up")
        # Carrier is noticed asynchronously, and until then the kernel drops what is sent.
        self._expect(lambda: "state UP" in self.run("ip", "-n", self.instance, "-o", "link", "show", "trunk0"), 10,
                     "the trunk has no carrier")

    def stop(self):
        """Ends every process of the lab and removes its namespaces and files. A second signal does not interrupt it."""
        signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        is_main = threading.current_thread() is threading.main_thread()  # only that one may set handlers
        before = {number: signal.signal(number, signal.SIG_IGN) for number in signals} if is_main else {}
        try:
            _end([identity for _, identity in self._children], 5)
            for child, _ in self._children:
                child.wait(timeout=10)
            self._children.clear()
            _delete_namespaces(self.id)
            if not self.keep_directory:
                shutil.rmtree(self.directory, ignore_errors=True)
                if os.path.exists(self.directory + ".json"):
                    os.unlink(self.directory + ".json")
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _record(self):
        _write_atomically(self.directory + ".json", {
            "owner": _identify(os.getpid()), "processes": [identity for _, identity in self._children]})

    # -- namespaces and programs in them --

    def netns(self, name):
        return f"tl-{self.id}-{name}"

    def add_netns(self, name):
        """Makes a namespace and returns its full name."""
        full = self.netns(name)
        self.run("ip", "netns", "add", full)
        return full

    def run(self, *command, timeout=20, check=True):
        """Runs a program here to its end, and returns what it printed."""
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              text=True, timeout=timeout)
        if check and done.returncode != 0:
            raise LabError(f"{shlex.join(command)}: exit code {done.returncode}: {done.stderr.strip()}")
        return done.stdout

    def exec(self, netns, *command, timeout=20):
        """Runs a program in a namespace to its end: a CompletedProcess with text."""
        return subprocess.run(["ip", "netns", "exec", netns, *command], stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=timeout)

    def spawn(self, netns, *command, log, stdout=None, stdin=subprocess.DEVNULL):
        """Starts a program, in a namespace unless netns is None; its words go to a file in the lab's log folder."""
        prefix = [] if netns is None else ["ip", "netns", "exec", netns]
        with open(self.log_path(log), "a") as file:
            # A session of its own: Ctrl-C is this process's to handle, in the right order.
            child = subprocess.Popen([*prefix, *command], stdin=stdin, stdout=stdout or file, stderr=file,
                                     start_new_session=True)
        self._children.append((child, _identify(child.pid)))
        self._record()
        return child

    def end(self, child, seconds=5):
        """Ends one program that spawn() started."""
        _end([identity for other, identity in self._children if other is child], seconds)
        child.wait(timeout=10)
        self._children = [(other, identity) for other, identity in self._children if other is not child]
        self._record()

    def end_others(self, seconds=5):
        """Ends every program but the engine and the fabric."""
        kept = (self.engine, self.fabric)
        others = [(child, identity) for child, identity in self._children if child not in kept]
        _end([identity for _, identity in others], seconds)
        for child, _ in others:
            child.wait(timeout=10)
        self._children = [each for each in self._children if each not in others]
        self._record()

    def log_path(self, name):
        return os.path.join(self.directory, "log", name)

    def tail(self, name, lines=15):
        try:
            with open(self.log_path(name), errors="replace") as file:
                return "".join(file.readlines()[-lines:]).rstrip()
        except OSError:
            return "(no log)"

    def logs(self):
        folder = os.path.join(self.directory, "log")
        return sorted(os.listdir(folder)) if os.path.isdir(folder) else []

    # -- the VPC --

    def _fabric_config(self):
        return {"trunk": {"interface": "fabric0", "netns": self.vpc, "mode": self.trunk_mode}, "router_mac": ROUTER_MAC,
                "mtu": MTU, "enis": self._enis,
                "hosts": [{"netns": self.client, "ifname": "eth0", "address": CLIENT + "/24", "gateway": "10.0.1.1"},
                          *({"netns": self.netns(name), "ifname": "eth0", "address": address, "gateway": gateway}
                            for name, (address, gateway) in self.hosts.items())]}

    def _start_fabric(self):
        _write_atomically(self.fabric_path, self._fabric_config())
        self.fabric = self.spawn(None, self.binaries["trunkline-fabric"], "--config", self.fabric_path, log="fabric.log")
        self._expect(lambda: self.fabric.poll() is not None or "ready\n" in self._fabric_log(0), 10, "the fabric is not ready")
        if self.fabric.poll() is not None:
            raise LabError("the fabric ended: " + self.tail("fabric.log"))

    def _fabric_log(self, offset):
        with open(self.log_path("fabric.log")) as file:
            file.seek(offset)
            return file.read()

    def _ask_fabric(self, number):
        offset = os.path.getsize(self.log_path("fabric.log"))
        self.fabric.send_signal(number)
        self._expect(lambda: "\n" in self._fabric_log(offset), 5, "the fabric does not answer a signal")
        return self._fabric_log(offset).splitlines()[0]

    def fabric_enis(self, enis):
        """Tells the VPC which ENIs there are: {"vlan", "mac", "addresses", "subnet"} each; VLAN 0 is untagged."""
        self._enis = list(enis)
        _write_atomically(self.fabric_path, self._fabric_config())
        answer = self._ask_fabric(signal.SIGHUP)
        if "reloaded" not in answer:
            raise LabError("the fabric refused the ENIs: " + answer)

    def fabric_counters(self):
        return json.loads(self._ask_fabric(signal.SIGUSR1))

    # -- the engine --

    def engine_config(self, **overrides):
        """The engine's config; overrides replace whole sections' members: engine_config(idle={"sleep_us": 0})."""
        config = {
            "version": 1,
            # net_af_packet cannot chain buffers: a frame of 9001 + 18 bytes lies in one, on the ring and in the pool.
            "trunk": {"device": "net_af_packet0,iface=trunk0,blocksz=36864,framesz=9216,framecnt=512,qdisc_bypass=0",
                      "mode": self.trunk_mode, "mtu": MTU},
            "eal": {"main_lcore": self.main_cpu, "worker_lcores": [self.worker_cpu], "memory_mb": MEMORY_MB,
                    "file_prefix": f"tl-{self.id}"},
            "buffers": {"count": 8192, "data_room_bytes": 9472},
            "limits": {"endpoints": 64, "connections": 65536},
            "control": {"socket": self.socket},
            "state_dir": os.path.join(self.directory, "state"),
            "subnets": [{"id": SUBNET_ID, "cidr": SUBNET}],
        }
        for section, value in overrides.items():
            config[section] = {**config[section], **value} if isinstance(config.get(section), dict) else value
        return config

    def write_file(self, name, value, indent=2):
        """An object as a JSON file in the lab's folder; returns its path."""
        path = os.path.join(self.directory, name)
        with open(path, "w") as file:
            json.dump(value, file, indent=indent)
        return path

    def write_engine_config(self, config, path=None):
        path = path or self.config_path
        with open(path, "w") as file:
            json.dump(config, file, indent=2)
        return path

    def start_engine(self, config=None, seconds=20):
        """Starts trunklined in the instance's namespace and waits until it answers `trunkctl ping`."""
        if config is not None or not os.path.exists(self.config_path):
            self.write_engine_config(config or self.engine_config())
        os.makedirs(os.path.join(self.directory, "state"), exist_ok=True)
        self.engine = self.spawn(self.instance, *self.engine_prefix, self.binaries["trunklined"], "--config", self.config_path,
                                 log="engine.log")
        self._expect(lambda: self.engine.poll() is not None or self.answers(), seconds, "the engine does not answer")
        if self.engine.poll() is not None:
            raise LabError(f"the engine ended with {self.engine.returncode}:\n" + self.tail("engine.log"))

    def answers(self):
        return self.trunkctl("--timeout", "1", "--quiet", "ping").returncode == 0

    def kill_engine(self, number=signal.SIGKILL, seconds=10):
        """Ends the engine with this signal and returns its exit code."""
        engine, self.engine = self.engine, None
        engine.send_signal(number)
        code = engine.wait(timeout=seconds)
        self.end(engine)
        return code

    def restart_engine(self, number=signal.SIGKILL):
        self.kill_engine(number)
        self.start_engine()

    # -- asking and telling the engine --

    def trunkctl(self, *words, input=None, timeout=20):
        """Runs trunkctl as a person in the lab's folder would: a CompletedProcess with text."""
        return subprocess.run([self.binaries["trunkctl"], *words], input=input, text=True, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, timeout=timeout, cwd=self.directory,
                              env={**os.environ, "TRUNKLINE_SOCKET": self.socket})

    def ctl(self, *words, input=None, check=True):
        """What a trunkctl command answers, as JSON. `input`: an object for its standard input ("-")."""
        done = self.trunkctl("--output", "json", *words, input=None if input is None else json.dumps(input))
        if check and done.returncode != 0:
            raise CtlError(done.returncode, done.stderr.strip())
        return json.loads(done.stdout) if done.stdout.strip() else None

    def rpc_raw(self, line, timeout=10):
        """Sends bytes as they are and returns the engine's answer to them (its greeting is read before)."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(timeout)
            connection.connect(self.socket)
            with connection.makefile("rb") as lines:
                if b'"hello"' not in lines.readline():
                    raise LabError("the engine did not greet")
                connection.sendall(line)
                answer = lines.readline()
        return json.loads(answer) if answer else None

    def rpc(self, method, params=None):
        """One JSON-RPC call; the whole answer, with "result" or "error"."""
        request = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params or {}}
        return self.rpc_raw(json.dumps(request).encode() + b"\n")

    def revision(self):
        return self.ctl("status")["revision"]

    def task(self, eni):
        """The engine's line on one ENI, or None."""
        return next((task for task in self.ctl("task", "list")["tasks"] if task["eni"] == eni), None)

    def stats(self):
        return self.ctl("stats")

    def drops(self, eni=None):
        """{reason: packets}, of one ENI or of everything."""
        total = {}
        for drop in self.ctl("drops", *([eni] if eni else []))["drops"]:
            total[drop["reason"]] = total.get(drop["reason"], 0) + drop["packets"]
        return total

    def assert_accounted(self, seconds=3):
        """Every packet that came was sent on or dropped for a reason, once nothing is under way."""
        def open_meters():
            stats = self.stats()
            wrong = [] if stats["unaccounted"] == 0 else [f"unaccounted {stats['unaccounted']}"]
            for port in stats["ports"]:
                for way in ("ingress", "egress"):
                    meter = port[way]
                    rest = meter["rx_packets"] - meter["tx_packets"] - sum(meter["drops"].values())
                    if rest != 0:
                        wrong.append(f"{port['name']} {way}: {rest} packets neither sent nor dropped")
            return wrong

        if not inside.wait_until(lambda: not open_meters(), seconds):
            raise AssertionError("; ".join(open_meters()))

    # -- looking from a namespace --

    def http_get(self, netns, url, timeout=5):
        """(status, body, what curl complains of); status 0 when there was no answer."""
        done = self.exec(netns, "curl", "-sS", "--max-time", str(timeout), "-w", "\n%{http_code}", url, timeout=timeout + 10)
        body, _, status = done.stdout.rpartition("\n")
        return int(status or 0), body, done.stderr.strip()

    def tcp_probe(self, netns, address, port, timeout=0.8):
        return inside.tcp_probe(netns, address, port, timeout)

    def banner(self, netns, address, port, timeout=5):
        return inside.read_banner(netns, address, port, timeout)

    def ping(self, netns, address, timeout=1):
        """Whether one echo request is answered."""
        return self.exec(netns, "ping", "-n", "-c", "1", "-W", str(timeout), address, timeout=timeout + 10).returncode == 0

    def interface(self, netns, name="eth0"):
        """{"ifindex", "mac", "addresses", "default"} of an interface, or None when there is none."""
        shown = self.exec(netns, "ip", "-j", "addr", "show", "dev", name)
        if shown.returncode != 0:
            return None
        link = json.loads(shown.stdout)[0]
        routes = json.loads(self.exec(netns, "ip", "-j", "route", "show", "default", "dev", name).stdout or "[]")
        return {"ifindex": link["ifindex"], "mac": link["address"], "mtu": link["mtu"],
                "addresses": [f"{one['local']}/{one['prefixlen']}" for one in link["addr_info"] if one["family"] == "inet"],
                "default": routes[0].get("gateway") if routes else None}

    def wait_until(self, predicate, seconds):
        return inside.wait_until(predicate, seconds)

    def _expect(self, predicate, seconds, complaint):
        if not inside.wait_until(predicate, seconds):
            raise LabError(f"{complaint} (after {seconds} s); logs: " + os.path.join(self.directory, "log"))


def _disable_ipv6():
    for which in ("all", "default"):
        with open(f"/proc/sys/net/ipv6/conf/{which}/disable_ipv6", "w") as file:
            file.write("1\n")
