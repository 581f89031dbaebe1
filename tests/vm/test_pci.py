#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
"""The trunk on a PCI NIC, bound to vfio-pci behind an IOMMU (or uio_pci_generic), with the kernel's VLAN devices on another NIC
of the same segment. QEMU 7.2 has no igb."""
import os
import signal
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from guest import CLIENT, MTU, PING, ROUTER_MAC, GuestTest, echo, ethernet, group, ipv4, main, tcp, two_workers  # noqa: E402
from kernel_vpc import KernelVpcOnPci, bind  # noqa: E402
from lab import LabError, Nginx, send_frames  # noqa: E402


class OnVirtio(KernelVpcOnPci):
    nic = "0000:00:11.0"


class OnE1000e(KernelVpcOnPci):
    nic = "0000:00:12.0"


class OnVmxnet3(KernelVpcOnPci):
    nic = "0000:00:13.0"


class NicTest(GuestTest):
    # Buffers smaller than a jumbo frame: it is chained, both ways.
    overrides = {"buffers": {"count": 16384, "data_room_bytes": 2176}}
    driver = "vfio-pci"
    mtu = MTU
    starts_engine = False

    def setUp(self):
        bind(self.laboratory.nic, self.driver)
        super().setUp()
        self.lab.start_engine(self.config())
        self.put_groups(group(tcp(80), tcp(5201), PING))

    def config(self):
        return self.lab.engine_config(**{**self.overrides, "trunk": {"mtu": self.mtu}})

    def assert_carries(self):
        one, two = self.attach(1), self.attach(2)
        Nginx(self.lab, one.netns, "a page", ports=(80, 8080))
        self.assert_ping(self.lab.client, one.address, 10)
        self.assert_ping(two.netns, CLIENT, 10)
        for netns, address in ((self.lab.client, one.address), (one.netns, CLIENT)):
            done = self.lab.exec(netns, "ping", "-n", "-c", "3", "-i", "0.1", "-s", str(self.mtu - 28), "-M", "do", address)
            self.assertIn("3 received", done.stdout)
        for netns in (self.lab.client, two.netns):
            self.assertEqual(self.lab.http_get(netns, f"http://{one.address}/")[:2], (200, "a page\n"))
        with self.expect_drops(one.eni, 5, security_group_ingress=1):
            self.assertEqual(self.lab.tcp_probe(self.lab.client, one.address, 8080), "silence")
        # A tag of nobody's: the NIC lets it through, and the engine counts it.
        with self.expect_drops(None, 5, unknown_eni=3):
            send_frames(self.lab.vpc, "fabric0", [ethernet(one.mac, ROUTER_MAC, 0x0800, ipv4(CLIENT, one.address, 1, echo(b"x")), [(0x8100, 999)])] * 3)
        return one

    def measure(self, one):
        rates = {way: self.iperf3(self.lab.client, one, *words)[0] for way, words in (("in", ()), ("out", ("-R",)))}
        self.note(", ".join(f"{way} {rate / 1e6:.0f} Mbit/s" for way, rate in rates.items()))
        self.assertGreater(min(rates.values()), 1e6)


class TestVirtio(NicTest):
    laboratory = OnVirtio

    def config(self):
        return self.lab.engine_config(**self.overrides, **two_workers(self.lab))

    def assert_blocks_and_is_woken(self, one):
        """By armed interrupts of the card and of virtio-user. A ladder that is not told of three packets in a row blocks no more."""
        rungs = lambda: {worker["idle"] for worker in self.lab.ctl("worker", "list")["workers"]}  # noqa: E731
        can = {each["what"]: each["available"] for each in self.lab.ctl("status")["capabilities"]}
        self.assertTrue(can["wakes an idle worker"], can)
        for netns, address in ((self.lab.client, one.address), (one.netns, CLIENT)):
            for _ in range(5):
                self.assertTrue(self.lab.wait_until(lambda: rungs() == {"blocked"}, 15), rungs())
                self.assertTrue(self.lab.ping(netns, address, 5))
        self.assertTrue(self.lab.wait_until(lambda: rungs() == {"blocked"}, 15), rungs())

    def test_two_queues_and_a_kill(self):
        self.assertIn("trunk: 2 queue(s) each way for 2 worker(s)", self.lab.tail("engine.log", 30))
        one = self.assert_carries()
        self.measure(one)
        self.assert_blocks_and_is_woken(one)
        before = self.lab.interface(one.netns)
        self.lab.kill_engine(signal.SIGKILL)
        self.assertFalse(self.lab.ping(self.lab.client, one.address))
        self.lab.start_engine()
        self.assertEqual(self.lab.interface(one.netns), before)
        self.assert_ping(self.lab.client, one.address, 5)
        self.assertEqual(self.lab.http_get(self.lab.client, f"http://{one.address}/")[0], 200)


class TestE1000e(NicTest):
    laboratory = OnE1000e

    def test_carries(self):
        self.measure(self.assert_carries())


class TestVmxnet3(NicTest):
    laboratory = OnVmxnet3
    # DPDK leaves the number of buffers a frame may have at 0, which QEMU's device takes for one. So a frame lies in one.
    overrides = {}
    mtu = 9000

    def config(self):
        # One byte more than the device can is refused, in words that say so.
        with self.assertRaises(LabError) as refusal:
            self.lab.start_engine(self.lab.engine_config(**{**self.overrides, "trunk": {"mtu": 9001}}))
        self.assertIn("its largest MTU is 9000, and 9001 is asked for", str(refusal.exception))
        self.lab.engine = None
        return super().config()

    def test_carries(self):
        self.measure(self.assert_carries())


class TestUio(NicTest):
    """Without an IOMMU: physical addresses, which take root."""

    laboratory = OnVirtio
    driver = "uio_pci_generic"
    overrides = {**NicTest.overrides, "eal": {"extra_args": ["--iova-mode=pa"]}}

    def test_carries(self):
        self.assert_carries()


if __name__ == "__main__":
    main("ethtool", "iperf3", "nginx")
