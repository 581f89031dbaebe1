#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
"""Super-frames and checksums left to the port on what production has: virtio-user with vhost-net, and a trunk that is a NIC with TSO."""
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from guest import PING, GuestTest, group, main, tcp  # noqa: E402
from kernel_vpc import KernelVpcOnPci, bind  # noqa: E402
from lab import in_netns  # noqa: E402
from test_offloads import OffloadsTest  # noqa: E402

NAPI = 0x10  # IFF_NAPI


class SuperFramesTest(OffloadsTest, GuestTest):
    size = 4 << 20

    def setUp(self):
        super().setUp()
        self.put_groups(group(tcp(80), PING))

    def attach_port(self, number, **port):
        return super().attach_port(number, kind="virtio-user", **port)

    def page(self, task):
        # A kernel that measures a slow network sends small super-frames, and an emulated one always does.
        def send_large():
            with open("/proc/sys/net/ipv4/tcp_min_tso_segs", "w") as file:
                file.write("40")

        in_netns(task.netns, send_large)
        return super().page(task)

    def trunk_can(self):
        return {each["what"]: each["available"] for each in self.lab.ctl("status")["capabilities"]}


class TestOnVeth(SuperFramesTest):
    shares = True

    def test_whole_from_task_to_task(self):
        web, client = self.attach_port(1), self.attach_port(2)
        wanted = self.page(web)
        before = self.look(web.eni)
        self.assertEqual(self.fetch(client.netns, web), wanted)
        moved = self.moved(before, web.eni)
        self.assertGreaterEqual(moved["packets"], self.size // 1448)
        self.assertLessEqual(moved["bytes"] / moved["packets"], 1514)
        self.assertLess(moved["frames"], moved["packets"] / 4)
        self.assertEqual((moved["segments"], moved["cut"], moved["checksums"]), (0, 0, 0))
        self.note(f"{moved['packets']} packets in {moved['frames']} frames both ways")
        self.assertEqual(self.lab.tcp_probe(client.netns, web.address, 81), "silence")
        # The kernel loses count of buffers where a tap's queue has a NAPI of its own and vhost-net sends into it.
        self.assertEqual(int(self.lab.exec(web.netns, "cat", "/sys/class/net/eth0/tun_flags").stdout, 16) & NAPI, 0)

    def test_cut_towards_a_trunk_that_cannot(self):
        self.assertFalse(self.trunk_can()["sends super-frames"])
        web = self.attach_port(1)
        wanted = self.page(web)
        before = self.look(web.eni)
        self.assertEqual(self.fetch(self.lab.client, web), wanted)
        moved = self.moved(before, web.eni)
        self.assertGreater(moved["cut"], 0)
        self.assertGreaterEqual(moved["segments"], moved["packets"] * 3 // 4)
        self.assertGreater(moved["checksums"], 0)  # of what was one segment
        trunk = self.meters(None)[1]
        self.assertLessEqual(trunk["tx_bytes"] / trunk["tx_packets"], 1518)
        self.note(f"{moved['cut']} super-frames cut into {moved['segments']}, {moved['checksums']} checksums made")


class TestOnVirtio(SuperFramesTest):
    class laboratory(KernelVpcOnPci):
        nic = "0000:00:11.0"

    def setUp(self):
        bind(self.laboratory.nic, "vfio-pci")
        super().setUp()

    def test_whole_towards_a_trunk_that_can(self):
        can = self.trunk_can()
        self.assertEqual([can[what] for what in ("receives super-frames", "sends super-frames", "sends with checksums to make")], [True] * 3, can)
        web = self.attach_port(1)
        wanted = self.page(web)
        before = self.look(web.eni)
        self.assertEqual(self.fetch(self.lab.client, web), wanted)
        moved = self.moved(before, web.eni)
        self.assertGreaterEqual(moved["packets"], self.size // 1448)
        self.assertLess(moved["frames"], moved["packets"] / 4)
        self.assertEqual((moved["segments"], moved["cut"], moved["checksums"]), (0, 0, 0))
        self.note(f"{moved['packets']} packets in {moved['frames']} frames both ways")


if __name__ == "__main__":
    main("nginx")
