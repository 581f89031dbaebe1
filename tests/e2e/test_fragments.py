#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
"""Fragments both ways over the laboratory's trunk, with real kernels at both ends: every pair of MTUs, sizes up to the largest
datagram, both families, every octet compared; and what the trunk's driver loses, counted."""
import os
import signal
import socket
import struct
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from harness import CLIENT, EVERYTHING, ROUTER_MAC, SUBNET, SUBNET_ID, LabTest, ethernet, group, in_netns, ipv4, main, udp  # noqa: E402
from lab import Lab  # noqa: E402
from lab.netns import send_frames  # noqa: E402

SUBNET6 = "2001:db8:1234:1a00::/64"
CLIENT6 = "2001:db8:1234:1a01::20"
MTUS = (9001, 1500, 1280, 576)
SIZES4 = (1400, 1473, 4000, 9100, 20000, 65507)
SIZES6 = (1400, 4000, 9100, 20000, 65487)
PORT = 5000
IP_MTU_DISCOVER, IP_PMTUDISC_DONT = 10, 0
SIOCETHTOOL, ETHTOOL_GGRO = 0x8946, 0x2B


class BothFamilies(Lab):
    """A client with an IPv6 address, and kernels that may have them."""

    def _fabric_config(self):
        config = super()._fabric_config()
        config["hosts"][0] |= {"address6": CLIENT6 + "/64", "gateway6": "fe80:ec2::1"}
        return config


def content(size, seed):
    """Octets that do not repeat at any fragment's length."""
    return b"".join(struct.pack("!I", (n * 2654435761 + seed) & 0xFFFFFFFF) for n in range(size // 4 + 1))[:size]


class Endpoint:
    """A datagram socket in a namespace. What it sends over IPv4 has no DF, so that routers may cut it."""

    def __init__(self, netns, address, port=PORT):
        self.address = (address, port)
        family = socket.AF_INET6 if ":" in address else socket.AF_INET

        def open_socket():
            end = socket.socket(family, socket.SOCK_DGRAM)
            if family == socket.AF_INET:
                end.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DONT)
            end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
            end.bind(self.address)
            end.settimeout(1)
            return end

        self.socket = in_netns(netns, open_socket)

    def close(self):
        self.socket.close()

    def receive(self):
        try:
            return self.socket.recvfrom(70000)
        except TimeoutError:
            return b"", None


class FragmentsTest(LabTest):
    laboratory = BothFamilies
    overrides = {"subnets": [{"id": SUBNET_ID, "cidr": SUBNET, "ipv6_cidr": SUBNET6}]}

    def setUp(self):
        super().setUp()
        everything = [{**EVERYTHING[0], "Ipv6Ranges": [{"CidrIpv6": "::/0"}]}]
        self.put_groups(group(*everything, egress=everything))

    def tell_vpc(self):
        enis = [{**task.of_vpc(), "addresses": [task.address, self.address6(task)], "subnet6": SUBNET6} for task in self.tasks.values()]
        self.lab.fabric_enis(enis)

    @staticmethod
    def address6(task):
        return f"2001:db8:1234:1a00::{task.number + 30:x}"

    def attach_mtu(self, number, mtu):
        """A task whose port has this MTU; of IPv6 from 1280 on."""
        task = self.task(number)
        families = [task.address] + ([self.address6(task)] if mtu >= 1280 else [])
        self.attach(number, addresses=families, port=task.facts()["port"] | {"mtu": mtu})
        if mtu >= 1280:
            self.add_ipv6(task)
        return task

    def add_ipv6(self, task):
        def allow():
            for key, value in (("disable_ipv6", "0"), ("accept_ra", "0"), ("accept_dad", "0")):
                with open(f"/proc/sys/net/ipv6/conf/eth0/{key}", "w") as file:
                    file.write(value)

        in_netns(task.netns, allow)
        self.lab.exec(task.netns, "ip", "-6", "addr", "replace", self.address6(task) + "/64", "dev", "eth0", "nodad")
        # The fabric's router; its MAC by hand, since nothing here is about discovery.
        self.lab.exec(task.netns, "ip", "-6", "neigh", "replace", "fe80:ec2::1", "lladdr", ROUTER_MAC, "dev", "eth0")
        self.lab.exec(task.netns, "ip", "-6", "route", "replace", "default", "via", "fe80:ec2::1", "dev", "eth0")

    def know_each_other(self, tasks):
        """IPv6 neighbours by hand, as the router: within the subnet, too, packets go by the router's MAC or the neighbour's."""
        for task in tasks:
            for other in tasks:
                if other is not task:
                    self.lab.exec(task.netns, "ip", "-6", "neigh", "replace", self.address6(other), "lladdr", other.mac, "dev", "eth0")

    def set_client_mtu(self, mtu):
        done = self.lab.exec(self.lab.client, "ip", "link", "set", "eth0", "mtu", str(mtu))
        self.assertEqual(done.returncode, 0, done.stderr)

    def worker(self):
        return self.call("worker.list")["workers"][0]

    def assert_exchanged(self, one, other, size, tries=1):
        """A datagram there, and the same back. `tries`: IPv6 senders, and their routers' errors, learn of a way's MTU by losing the first."""
        data = content(size, size)
        for left in range(tries, 0, -1):
            one.socket.sendto(data, other.address)
            came, sender = other.receive()
            if came == data:
                break
            self.assertTrue(left > 1 and came == b"", f"{size} octets {one.address} > {other.address}: {len(came)} came")
        for left in range(tries, 0, -1):
            other.socket.sendto(data, sender)
            came, _ = one.receive()
            if came == data:
                return
            self.assertTrue(left > 1 and came == b"", f"{size} octets {other.address} > {one.address}: {len(came)} came back")

    def exchange(self, pairs, sizes, tries=1):
        count = 0
        for (netns, address), (other_netns, other_address) in pairs:
            one, other = Endpoint(netns, address, 0), Endpoint(other_netns, other_address)
            try:
                one.address = one.socket.getsockname()
                for size in sizes:
                    self.assert_exchanged(one, other, size, tries)
                    count += 1
            finally:
                one.close()
                other.close()
        return count

    def dropped(self):
        """Without what kernels say by themselves when their interfaces come up."""
        noise = ("arp_", "nd_", "multicast", "unknown_eni", "martian")
        return {reason: packets for reason, packets in self.lab.drops().items() if not reason.startswith(noise)}

    def lost(self):
        device = self.call("stats")["ports"][0]["device"]
        return device["rx_missed"], device["rx_errors"]


class TestSizes(FragmentsTest):
    def test_every_pair_of_mtus_over_the_trunk(self):
        tasks = {mtu: self.attach_mtu(number, mtu) for number, mtu in enumerate(MTUS, 1)}
        lost = self.lost()
        before, count = self.worker(), 0
        for client_mtu in MTUS:
            self.set_client_mtu(client_mtu)
            if client_mtu >= 1280:
                pairs = [((self.lab.client, CLIENT6), (task.netns, self.address6(task))) for mtu, task in tasks.items() if mtu >= 1280]
                count += self.exchange(pairs, SIZES6, tries=4)
            count += self.exchange([((self.lab.client, CLIENT), (task.netns, task.address)) for task in tasks.values()], SIZES4)
        after = self.worker()
        # A client of 9001 and tasks of less: the engine is the router that cuts.
        self.assertGreater(after["fragmented_packets"], before["fragmented_packets"])
        self.assertGreater(after["fragments_made"] - before["fragments_made"], 2 * (after["fragmented_packets"] - before["fragmented_packets"]) - 1)
        self.assertEqual(self.lost(), lost)
        # The sender of IPv6 was told where it had to be, and nothing else was dropped.
        self.assertLessEqual(set(self.dropped()), {"mtu_exceeded"})
        self.note(f"{count} datagrams there and back, {after['fragments_made'] - before['fragments_made']} fragments made")

    def test_every_pair_of_mtus_between_tasks(self):
        tasks = {mtu: self.attach_mtu(number, mtu) for number, mtu in enumerate(MTUS, 1)}
        six = {mtu: task for mtu, task in tasks.items() if mtu >= 1280}
        self.know_each_other(list(six.values()))
        before, count = self.worker(), 0
        for mtu, task in tasks.items():
            count += self.exchange([((task.netns, task.address), (other.netns, other.address)) for other in tasks.values() if other is not task], SIZES4)
        for mtu, task in six.items():
            count += self.exchange([((task.netns, self.address6(task)), (other.netns, self.address6(other))) for other in six.values() if other is not task],
                                   SIZES6, tries=4)
        after = self.worker()
        self.assertGreater(after["fragmented_packets"], before["fragmented_packets"])
        self.assertLessEqual(set(self.dropped()), {"mtu_exceeded"})
        self.note(f"{count} datagrams there and back, {after['fragments_made'] - before['fragments_made']} fragments made")

    def test_ping_of_20000(self):
        small, large = self.attach_mtu(1, 1500), self.attach_mtu(2, 9001)
        for netns, address in ((large.netns, small.address), (small.netns, large.address), (self.lab.client, small.address), (large.netns, CLIENT)):
            done = self.lab.exec(netns, "ping", "-n", "-c", "3", "-i", "0.2", "-W", "2", "-M", "dont", "-s", "20000", address)
            self.assertIn("3 received", done.stdout)

    def test_fragments_come_as_they_were_sent(self):
        """Each is one packet of the trunk's: nobody put them together before the engine saw them."""
        task = self.attach_mtu(1, 9001)
        self.set_client_mtu(1500)
        self.assertEqual(self.exchange([((self.lab.client, CLIENT), (task.netns, task.address))], (100,)), 1)
        before = self.meters(task.eni)
        self.assertEqual(self.exchange([((self.lab.client, CLIENT), (task.netns, task.address))], (20000,)), 1)
        after = self.meters(task.eni)
        self.assertEqual(after[1]["rx_packets"] - before[1]["rx_packets"], 14)  # 20008 octets in pieces of 1480
        self.assertEqual(after[0]["rx_packets"] - before[0]["rx_packets"], 3)  # and in pieces of 8976
        # One of which the first never comes is dropped by name.
        late = ipv4(CLIENT, task.address, 17, bytes(1480), flags=185)
        before = self.dropped()
        send_frames(self.lab.vpc, "fabric0", [ethernet(task.mac, ROUTER_MAC, 0x0800, late, [(0x8100, task.vlan)])])
        self.lab.wait_until(lambda: self.dropped() != before, 2)
        self.assertEqual(self.dropped(), {**before, "fragment_orphan": before.get("fragment_orphan", 0) + 1})


class TestDetach(FragmentsTest):
    def test_an_eni_that_goes_takes_what_it_held_along(self):
        task = self.attach_mtu(1, 9001)
        for number in range(8):
            late = ipv4(CLIENT, task.address, 17, bytes(1480), flags=185)
            late = late[:4] + struct.pack("!H", number) + late[6:]
            send_frames(self.lab.vpc, "fabric0", [ethernet(task.mac, ROUTER_MAC, 0x0800, late, [(0x8100, task.vlan)])])
            self.call("task.detach", {"task": task.eni})
            self.attach(1, addresses=[task.address], port=task.facts()["port"] | {"mtu": 9001})
            self.assertEqual(self.call("stats")["unaccounted"], 0)
        time.sleep(0.5)
        self.lab.assert_accounted()
        self.assertEqual(self.call("stats")["unaccounted"], 0)
        self.assertNotIn("fragment_orphan", self.lab.drops(task.eni))


class TestTrunkDriver(FragmentsTest):
    """What net_af_packet does with what comes, and counts of what does not."""

    def attach_listener(self):
        """A task that hears what comes, so that its kernel has nothing to answer, nor to ask for a neighbour's MAC."""
        task = self.attach_mtu(1, 9001)
        listener = Endpoint(task.netns, task.address)
        self.addCleanup(listener.close)
        return task

    def send_on_trunk(self, frames):
        send_frames(self.lab.vpc, "fabric0", frames)

    def frame(self, task, payload, tags=None):
        return ethernet(task.mac, ROUTER_MAC, 0x0800, ipv4(CLIENT, task.address, 17, udp(4000, PORT, payload)), tags or [(0x8100, task.vlan)])

    def test_what_the_ring_has_no_room_for_is_missed(self):
        task = self.attach_listener()
        received, lost = self.meters(None)[0]["rx_packets"], self.lost()
        self.lab.engine.send_signal(signal.SIGSTOP)
        try:
            self.send_on_trunk([self.frame(task, b"x" * 100)] * 2000)
        finally:
            self.lab.engine.send_signal(signal.SIGCONT)

        def counted():
            return self.meters(None)[0]["rx_packets"] - received, self.lost()[0] - lost[0]

        self.lab.wait_until(lambda: sum(counted()) == 2000, 5)
        came, missed = counted()
        self.assertEqual(came + missed, 2000)
        self.assertGreater(missed, 1000)
        self.assertEqual(self.lost()[0], lost[0] + missed, "reading it does not change it")

    def test_what_the_ring_cuts_is_an_error_and_no_packet(self):
        task = self.attach_listener()
        for netns, name in ((self.lab.vpc, "fabric0"), (self.lab.instance, "trunk0")):
            self.lab.run("ip", "-n", netns, "link", "set", name, "mtu", "12000")
        received, lost = self.meters(None)[0]["rx_packets"], self.lost()
        before = self.dropped()
        self.send_on_trunk([self.frame(task, b"x" * 9300), self.frame(task, b"x" * 8900)])
        self.lab.wait_until(lambda: self.lost() != lost, 2)
        self.assertEqual(self.lost(), (lost[0], lost[1] + 1))
        self.assertEqual(self.dropped(), before)
        self.assertEqual(self.meters(None)[0]["rx_packets"] - received, 1)

    def test_a_tag_of_another_type_is_none_of_ours(self):
        task = self.attach_mtu(1, 9001)
        before = self.dropped()
        self.send_on_trunk([self.frame(task, b"x" * 100, [(0x88A8, task.vlan)])])
        self.lab.wait_until(lambda: self.dropped() != before, 2)
        self.assertEqual(self.dropped(), {**before, "unexpected_vlan": before.get("unexpected_vlan", 0) + 1})

    def test_what_the_host_sends_by_the_trunk_does_not_come_in(self):
        task = self.attach_mtu(1, 9001)
        before = self.meters(None)[0]["rx_packets"]
        send_frames(self.lab.instance, "trunk0", [self.frame(task, b"x" * 100)] * 10)
        time.sleep(0.3)
        self.assertEqual(self.meters(None)[0]["rx_packets"], before)

    def test_the_kernel_merges_nothing(self):
        import ctypes
        import fcntl

        def gro():
            with socket.socket() as any_socket:
                value = ctypes.create_string_buffer(struct.pack("=II", ETHTOOL_GGRO, 1), 8)
                fcntl.ioctl(any_socket, SIOCETHTOOL, struct.pack("16sQ", b"trunk0", ctypes.addressof(value)) + bytes(16))
                return struct.unpack("=II", value.raw)[1]

        self.assertEqual(in_netns(self.lab.instance, gro), 0)
        self.lab.kill_engine(signal.SIGTERM)
        done = self.lab.exec(self.lab.instance, "ethtool", "-K", "trunk0", "gro", "on")
        if done.returncode == 0:
            self.assertEqual(in_netns(self.lab.instance, gro), 1)
        self.lab.start_engine()
        self.assertEqual(in_netns(self.lab.instance, gro), 0)


if __name__ == "__main__":
    main()
