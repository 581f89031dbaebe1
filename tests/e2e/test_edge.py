#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
"""The edge of a VPC with real clients: busybox's udhcpc gets its lease, the kernel its default route from an advertisement, curl the
metadata service where the task may have it."""
import json
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from harness import CLIENT, SUBNET, SUBNET_ID, LabTest, Witness, group, main, mac_bytes  # noqa: E402
from lab import Nginx, in_netns  # noqa: E402

SUBNET6 = "2001:db8:1234:1a00::/64"
IMDS = "169.254.169.254"
# What udhcpc calls with each event: it writes down what it was told and does as it was told.
SCRIPT = """#!/bin/sh
env > "{heard}.$1"
case "$1" in
deconfig) ip address flush dev "$interface" ;;
bound | renew)
  ip address replace "$ip/$mask" broadcast "$broadcast" dev "$interface"
  ip link set "$interface" mtu "$mtu"
  ip route replace default via "$router" dev "$interface" ;;
esac
"""


class DhcpCase(LabTest):
    def dhcp_task(self, number, mtu=1500):
        """A task whose interface has no address: it is to ask for one."""
        task = self.attach(number, port={"kind": "tap", "netns": self.lab.netns(f"t{number}"), "ifname": "eth0", "mtu": mtu})
        self.lab.run("ip", "-n", task.netns, "address", "flush", "dev", "eth0")
        self.lab.run("ip", "-n", task.netns, "link", "set", "eth0", "mtu", "1000")
        self.assertEqual(self.lab.interface(task.netns)["addresses"], [])
        return task

    def udhcpc(self, task, *options):
        self.heard = os.path.join(self.lab.directory, task.name)
        script = self.heard + ".sh"
        with open(script, "w") as file:
            file.write(SCRIPT.format(heard=self.heard))
        os.chmod(script, 0o755)
        return self.lab.exec(task.netns, "busybox", "udhcpc", "-f", "-n", "-q", "-i", "eth0", "-s", script, "-t", "3", "-T", "1", "-O", "mtu", *options)

    def told(self, event="bound"):
        with open(f"{self.heard}.{event}") as file:
            return dict(line.split("=", 1) for line in file.read().splitlines() if "=" in line)


class TestDhcpAnswered(DhcpCase):
    overrides = {"edge": {"mode": "answer", "dhcp_domain": "us-west-2.compute.internal"}}

    def test_lease(self):
        """No rule allows anything, and the fabric hears nothing of it."""
        self.put_groups(group(egress=[]))
        task = self.dhcp_task(1)
        before = self.meters(None)[1]["tx_packets"]
        done = self.udhcpc(task, "-a")  # it asks whether somebody has the address already
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        told = self.told()
        self.assertEqual({key: told.get(key) for key in ("ip", "mask", "subnet", "broadcast", "router", "serverid", "lease", "dns", "mtu", "hostname", "domain")},
                         {"ip": task.address, "mask": "24", "subnet": "255.255.255.0", "broadcast": "10.0.0.255", "router": "10.0.0.1",
                          "serverid": "10.0.0.1", "lease": "3600", "dns": "10.0.0.2", "mtu": "1500",
                          "hostname": "ip-" + task.address.replace(".", "-"), "domain": "us-west-2.compute.internal"})
        shown = self.lab.interface(task.netns)
        self.assertEqual((shown["addresses"], shown["mtu"], shown["default"]), ([f"{task.address}/24"], 1500, "10.0.0.1"))
        self.assertEqual(self.meters(None)[1]["tx_packets"], before, "it went out on the trunk")
        self.assertEqual(self.lab.ctl("status")["connections"]["used"], 0)
        # The rules still refuse everything else.
        refused = self.lab.drops(task.eni).get("security_group_egress", 0)  # its kernel's own multicast is dropped beside it
        self.assertFalse(self.lab.ping(task.netns, CLIENT))
        self.assertTrue(self.lab.wait_until(lambda: self.lab.drops(task.eni).get("security_group_egress", 0) == refused + 1, 2))

    def test_of_the_broadcast_kind_and_for_another_address(self):
        self.put_groups(group())
        task = self.dhcp_task(1)
        done = self.udhcpc(task, "-B", "-r", "10.0.0.99")
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertEqual(self.told()["ip"], task.address)
        self.assert_ping(task.netns, CLIENT, count=3)

    def test_starvation(self):
        """One that asks under another MAC gets nothing, and takes nothing from anybody."""
        self.put_groups(group())
        greedy, other = self.dhcp_task(1), self.dhcp_task(2)
        self.lab.run("ip", "-n", greedy.netns, "link", "set", "eth0", "down")
        self.lab.run("ip", "-n", greedy.netns, "link", "set", "eth0", "address", "0a:47:e4:7a:2c:77", "up")
        self.assertNotEqual(self.udhcpc(greedy).returncode, 0)
        self.assertGreater(self.lab.drops(greedy.eni).get("spoof_mac", 0), 0)
        self.assertEqual(self.udhcpc(other).returncode, 0)
        self.assertEqual(self.told()["ip"], other.address)


class TestDhcpElsewhere(DhcpCase):
    """The emulated fabric has no DHCP server: what is relayed can be seen, and stays unanswered."""

    def requests_on_the_trunk(self, task):
        def is_request(frame):
            return frame[12:18] == b"\x81\x00" + task.vlan.to_bytes(2, "big") + b"\x08\x00" and frame[38:42] == b"\x00\x44\x00\x43"

        with Witness(self.lab.vpc, "fabric0", is_request) as witness:
            self.assertNotEqual(self.udhcpc(task).returncode, 0)
            self.lab.wait_until(lambda: witness.frames, 1)
        self.assertTrue(all(frame[6:12] == mac_bytes(task.mac) and frame[:6] == b"\xff" * 6 for frame in witness.frames))
        return len(witness.frames)

    def test_relayed(self):
        self.put_groups(group(egress=[]))
        task = self.dhcp_task(1)
        with self.expect_drops(task.eni):
            self.assertEqual(self.requests_on_the_trunk(task), 3)

    def test_off(self):
        self.lab.kill_engine()
        self.lab.start_engine(self.lab.engine_config(edge={"dhcp": "off"}))
        self.put_groups(group(egress=[]))
        task = self.dhcp_task(1)
        with self.expect_drops(task.eni, dhcp_refused=3):
            self.assertEqual(self.requests_on_the_trunk(task), 0)


class TestRouter6(LabTest):
    overrides = {"edge": {"mode": "answer"}, "subnets": [{"id": SUBNET_ID, "cidr": SUBNET, "ipv6_cidr": SUBNET6}]}

    def test_default_route_from_an_advertisement(self):
        self.put_groups(group(egress=[]))
        task = self.task(1)
        own = "2001:db8:1234:1a00::31"
        task.of_vpc = lambda: {"vlan": task.vlan, "mac": task.mac, "addresses": [task.address, own], "subnet": SUBNET, "subnet6": SUBNET6}
        self.attach(1, addresses=[task.address, own],
                    port={"kind": "tap", "netns": task.netns, "ifname": "eth0", "mtu": 1500, "default_route": False})
        self.lab.run("ip", "-n", task.netns, "link", "set", "eth0", "down")

        def listen():
            for key, value in (("disable_ipv6", "0"), ("accept_ra", "1"), ("forwarding", "0"), ("router_solicitation_delay", "0")):
                with open(f"/proc/sys/net/ipv6/conf/eth0/{key}", "w") as file:
                    file.write(value + "\n")

        in_netns(task.netns, listen)
        self.lab.run("ip", "-n", task.netns, "link", "set", "eth0", "up")

        def routes():
            return json.loads(self.lab.exec(task.netns, "ip", "-6", "-j", "route", "show", "default").stdout or "[]")

        self.assertTrue(self.lab.wait_until(lambda: any(route.get("protocol") == "ra" for route in routes()), 8), routes())
        route = next(route for route in routes() if route.get("protocol") == "ra")
        self.assertEqual((route["gateway"], route["dev"]), ("fe80:ec2::1", "eth0"))
        # The router is a neighbour by that name, and after it was asked for its MAC it is still a router.
        self.lab.run("ip", "-n", task.netns, "-6", "address", "replace", own + "/64", "dev", "eth0", "nodad")
        self.lab.run("ip", "-n", task.netns, "-6", "neigh", "flush", "dev", "eth0")
        self.assertTrue(self.lab.ping(task.netns, "fe80:ec2::1%eth0") or self.lab.ping(task.netns, "2001:db8:1234:1a00::1"))
        neighbours = self.lab.run("ip", "-n", task.netns, "-6", "neigh", "show", "dev", "eth0")
        self.assertRegex(neighbours, r"(fe80:ec2::1|2001:db8:1234:1a00::1) lladdr 0a:00:00:00:00:01 router")
        self.assertTrue(any(route.get("protocol") == "ra" for route in routes()), routes())


class TestOrdinaryHost6(LabTest):
    """An untagged ENI and a host on its link that is no part of the VPC: both find each other by neighbour discovery."""
    mode = "untagged"
    overrides = {"subnets": [{"id": SUBNET_ID, "cidr": SUBNET, "ipv6_cidr": SUBNET6}]}

    def test_ping_both_ways(self):
        ping = {"IpProtocol": "icmpv6", "FromPort": 128, "ToPort": -1, "Ipv6Ranges": [{"CidrIpv6": SUBNET6}]}
        self.put_groups(group(ping, egress=[ping]))
        task = self.task(1)
        own, host = "2001:db8:1234:1a00::31", "2001:db8:1234:1a00::99"
        task.of_vpc = lambda: {"vlan": 0, "mac": task.mac, "addresses": [task.address, own], "subnet": SUBNET, "subnet6": SUBNET6}
        self.attach(1, addresses=[task.address, own])

        def use_ipv6(interface):
            with open(f"/proc/sys/net/ipv6/conf/{interface}/disable_ipv6", "w") as file:
                file.write("0\n")

        in_netns(self.lab.vpc, lambda: use_ipv6("fabric0"))
        in_netns(task.netns, lambda: use_ipv6("eth0"))
        self.lab.run("ip", "-n", self.lab.vpc, "-6", "address", "replace", host + "/64", "dev", "fabric0", "nodad")
        self.lab.run("ip", "-n", task.netns, "-6", "address", "replace", own + "/64", "dev", "eth0", "nodad")
        for netns, target in ((self.lab.vpc, own), (task.netns, host)):
            for namespace, interface in ((self.lab.vpc, "fabric0"), (task.netns, "eth0")):
                self.lab.run("ip", "-n", namespace, "-6", "neigh", "flush", "dev", interface)
            said = self.lab.exec(netns, "ping", "-n", "-c", "3", "-i", "0.2", "-W", "2", target).stdout
            self.assertIn(" 3 received", said, said)


class TestMetadata(LabTest):
    hosts = {"imds": (IMDS + "/16", "169.254.0.1")}

    def test_blocked_and_not(self):
        """No rule allows anything: what is no service stays refused."""
        self.put_groups(group(egress=[]))
        Nginx(self.lab, self.lab.netns("imds"), "ami-id")
        free, blocked = self.attach(1), self.attach(2, block_imds=True)
        status, body, complaint = self.lab.http_get(free.netns, f"http://{IMDS}/")
        self.assertEqual((status, body.strip()), (200, "ami-id"), complaint)
        with self.expect_drops(blocked.eni, imds_blocked=1):
            self.assertEqual(self.lab.tcp_probe(blocked.netns, IMDS, 80), "silence")
        with self.expect_drops(free.eni, link_local=1):
            self.assertEqual(self.lab.tcp_probe(free.netns, "169.254.169.252", 80), "silence")
        with self.expect_drops(free.eni, security_group_egress=1):
            self.assertEqual(self.lab.tcp_probe(free.netns, CLIENT, 80), "silence")
        self.assertEqual(self.lab.ctl("status")["connections"]["used"], 0)


if __name__ == "__main__":
    main("busybox", "nginx")
