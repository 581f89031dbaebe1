# SPDX-License-Identifier: BSD-3-Clause
"""The laboratory with the kernel as the VPC: its own VLAN devices, router, ARP and TCP, which nobody here wrote.

    tl-ID-client                       tl-ID-vpc                                tl-ID-instance
    eth0 10.0.1.20 <-veth-> client0  (router)  vlan101, vlan102, ... on fabric0 <== trunk ==> trunk0  trunklined

Each ENI has a VLAN device in the vpc namespace, all with the router's MAC and its address; the kernel forwards between
them and the client, and answers ARP for an ENI on behalf of the others' (proxy_arp), as a VPC does.
"""
import glob
import os
import tempfile

from lab import Lab, in_netns
from lab.lab import CLIENT, MTU, ROUTER_MAC


class KernelVpc(Lab):
    """The trunk is a veth; KernelVpcOnPci has a NIC in its place. What the guest is asked may take ten times what it takes its host."""

    def start_engine(self, config=None, seconds=90):
        super().start_engine(config, seconds)

    def trunkctl(self, *words, input=None, timeout=60):
        return super().trunkctl(*words, input=input, timeout=timeout)

    def rpc_raw(self, line, timeout=60):
        return super().rpc_raw(line, timeout)

    def spawn_in(self, netns, *command, log):
        """A program that has entered its namespace when this returns: /proc/PID/ns/net is that of its parent at first."""
        child = self.spawn(netns, *command, log=log)
        wanted = os.stat(f"/run/netns/{netns}").st_ino
        self._expect(lambda: os.stat(f"/proc/{child.pid}/ns/net").st_ino == wanted, 30, f"{command[0]} is not in {netns}")
        return child

    def _start_fabric(self):
        self.vlans = set()
        # A frame leaves as it would on a wire: whole, and with its checksum. What a veth hands over as it is would
        # be a packet of 64 KB that no NIC ever sends.
        self.run("ip", "netns", "exec", self.vpc, "ethtool", "-K", "fabric0", "tx", "off")
        in_netns(self.vpc, lambda: _write("/proc/sys/net/ipv4/ip_forward", "1"))
        self.ip(self.vpc, f"link set fabric0 address {ROUTER_MAC}",
                f"link add client0 mtu {MTU} type veth peer name eth0 mtu {MTU} netns {self.client}",
                "addr add 10.0.1.1/24 dev client0", "link set client0 up")
        self.ip(self.client, f"addr add {CLIENT}/24 dev eth0", "link set eth0 up", "route add default via 10.0.1.1")

    def ip(self, netns, *lines):
        """Commands for ip in a namespace, by one process: the guest is slow."""
        with tempfile.NamedTemporaryFile("w", dir=self.directory) as batch:
            batch.write("\n".join(lines) + "\n")
            batch.flush()
            self.run("ip", "-n", netns, "-batch", batch.name)

    def fabric_enis(self, enis):
        """A VLAN device for each ENI that has none yet, and none for those that are not named."""
        wanted = {eni["vlan"]: eni for eni in enis}
        made = wanted.keys() - self.vlans
        lines = [f"link del vlan{vlan}" for vlan in self.vlans - wanted.keys()]
        for vlan in made:
            device = f"vlan{vlan}"
            lines += [f"link add link fabric0 name {device} mtu {MTU} type vlan id {vlan}", f"addr add 10.0.0.1/32 dev {device}",
                      f"link set {device} up"]
            lines += [f"route add {address}/32 dev {device}" for address in wanted[vlan]["addresses"]]
        if lines:
            self.ip(self.vpc, *lines)
        in_netns(self.vpc, lambda: [_write(f"/proc/sys/net/ipv4/conf/vlan{vlan}/proxy_arp", "1") for vlan in made])
        self.vlans = set(wanted)

    def fabric_counters(self):
        return {}


class KernelVpcOnPci(KernelVpc):
    """The trunk is a PCI NIC, driven by DPDK; the far end is another NIC of the same segment, driven by the kernel."""

    nic = None  # the trunk's PCI address; set it before start()

    def _make_trunk(self):
        # It comes back from the namespace of a laboratory before this one when the kernel has cleaned that up.
        self._expect(lambda: netdevs(PEER), 10, f"no kernel interface on {PEER}")
        self.run("ip", "link", "set", netdevs(PEER)[0], "down")
        self.run("ip", "link", "set", netdevs(PEER)[0], "name", "fabric0", "mtu", str(MTU), "netns", self.vpc)
        self.run("ip", "-n", self.vpc, "link", "set", "fabric0", "up")

    def engine_config(self, **overrides):
        config = super().engine_config(**overrides)
        config["trunk"]["device"] = self.nic
        return config


PEER = "0000:00:10.0"


def netdevs(address):
    """Names of a PCI device's kernel interfaces, in this namespace."""
    return [os.path.basename(path) for pattern in ("net/*", "virtio*/net/*")
            for path in glob.glob(f"/sys/bus/pci/devices/{address}/{pattern}")]


def _driver(address):
    link = f"/sys/bus/pci/devices/{address}/driver"
    return os.path.basename(os.readlink(link)) if os.path.exists(link) else None


def bind(address, driver):
    """Gives a PCI device to another driver, as driverctl does."""
    device = f"/sys/bus/pci/devices/{address}"
    if _driver(address) == driver:
        return
    if _driver(address) is not None:
        _write(f"{device}/driver/unbind", address)
    _write(f"{device}/driver_override", driver)
    _write("/sys/bus/pci/drivers_probe", address)
    if _driver(address) != driver:
        raise RuntimeError(f"{address} is not bound to {driver}; the kernel's log says why")


def _write(path, text):
    with open(path, "w") as file:
        file.write(text + "\n")
