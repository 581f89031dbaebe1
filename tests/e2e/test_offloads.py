#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
"""Super-frames and checksums left to the port, with real kernels at both ends: whole from task to task, cut towards a
trunk whose driver cannot, counted as what they are on a wire; and what a task makes up is refused."""
import hashlib
import os
import random
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from harness import CLIENT, PING, ROUTER_MAC, LabTest, Vnet, ethernet, group, ipv4, main, tcp, tcp_segment  # noqa: E402
from lab import Nginx  # noqa: E402

SIZE = 24 << 20


class OffloadsTest(LabTest):
    size = SIZE  # of what is fetched

    def attach_port(self, number, **port):
        task = self.task(number)
        facts = task.facts()["port"] | {"mtu": 1500} | port
        return self.attach(number, port=facts)

    def worker(self):
        return self.call("worker.list")["workers"][0]

    def page(self, task):
        """A file in the task's web server; its hash."""
        data = random.Random(task.number).randbytes(self.size)
        server = Nginx(self.lab, task.netns, "a page")
        with open(os.path.join(server.directory, "html", "data"), "wb") as file:
            file.write(data)
        return hashlib.sha256(data).hexdigest()

    def fetch(self, netns, task):
        done = self.lab.exec(netns, "sh", "-c", f"curl -s --max-time 20 http://{task.address}/data | sha256sum", timeout=30)
        return done.stdout.split()[0]

    def moved(self, before, eni):
        """Packets and octets out of the task since then, by its meter; frames that the worker received; what it made."""
        worker, meters = self.worker(), self.meters(eni)
        return {"packets": meters[0]["rx_packets"] - before[1][0]["rx_packets"], "bytes": meters[0]["rx_bytes"] - before[1][0]["rx_bytes"],
                "frames": worker["packets"] - before[0]["packets"], "segments": worker["segments_made"] - before[0]["segments_made"],
                "cut": worker["super_frames_cut"] - before[0]["super_frames_cut"], "checksums": worker["checksums_made"] - before[0]["checksums_made"]}

    def look(self, eni):
        return self.worker(), self.meters(eni)


class TestSuperFrames(OffloadsTest):
    def setUp(self):
        super().setUp()
        self.put_groups(group(tcp(80), PING))

    def test_whole_from_task_to_task(self):
        web, client = self.attach_port(1), self.attach_port(2)
        wanted = self.page(web)
        before = self.look(web.eni)
        self.assertEqual(self.fetch(client.netns, web), wanted)
        moved = self.moved(before, web.eni)
        # By the meter what a wire would have carried; through the engine far less.
        self.assertGreaterEqual(moved["packets"], self.size // 1448)
        self.assertLessEqual(moved["bytes"] / moved["packets"], 1514)
        self.assertLess(moved["frames"], moved["packets"] / 4)
        self.assertEqual((moved["segments"], moved["cut"], moved["checksums"]), (0, 0, 0))
        self.note(f"{moved['packets']} packets in {moved['frames']} frames both ways")
        self.assertEqual(self.lab.tcp_probe(client.netns, web.address, 81), "silence")

    def test_cut_towards_a_trunk_that_cannot(self):
        web = self.attach_port(1)
        wanted = self.page(web)
        before = self.look(web.eni)
        self.assertEqual(self.fetch(self.lab.client, web), wanted)
        moved = self.moved(before, web.eni)
        self.assertGreater(moved["cut"], 0)
        self.assertGreaterEqual(moved["segments"], moved["packets"] * 3 // 4)
        self.assertLessEqual(moved["bytes"] / moved["packets"], 1514)
        self.assertGreater(moved["checksums"], 0)  # of what was one segment
        trunk = self.meters(None)[1]
        self.assertLessEqual(trunk["tx_bytes"] / trunk["tx_packets"], 1518)
        self.note(f"{moved['cut']} super-frames cut into {moved['segments']}, {moved['checksums']} checksums made")

    def test_without_offloads_every_frame_is_whole(self):
        web, client = self.attach_port(1, offloads=False), self.attach_port(2, offloads=False)
        wanted = self.page(web)
        before = self.look(web.eni)
        self.assertEqual(self.fetch(client.netns, web), wanted)
        moved = self.moved(before, web.eni)
        self.assertGreaterEqual(moved["frames"], moved["packets"])
        self.assertEqual((moved["segments"], moved["cut"], moved["checksums"]), (0, 0, 0))

    def test_from_a_port_with_to_one_without(self):
        web, client = self.attach_port(1), self.attach_port(2, offloads=False)
        wanted = self.page(web)
        before = self.look(web.eni)
        self.assertEqual(self.fetch(client.netns, web), wanted)
        moved = self.moved(before, web.eni)
        self.assertGreater(moved["cut"], 0)
        self.assertGreaterEqual(moved["segments"], moved["packets"] * 3 // 4)

    def test_segments_too_large_for_the_other_port_are_reported(self):
        """The sender's segments are of 9001 bytes: told once, it sends smaller ones, whole again."""
        web, client = self.attach_port(1, mtu=9001), self.attach_port(2, mtu=1500)
        # The client would announce its small MSS; a route's advmss hides it, as a tunnel in between does.
        self.lab.exec(client.netns, "ip", "route", "change", "default", "via", "10.0.0.1", "dev", "eth0", "advmss", "8961")
        self.lab.exec(client.netns, "ip", "route", "change", "10.0.0.0/24", "dev", "eth0", "advmss", "8961")
        wanted = self.page(web)
        before = self.meters(client.eni)[1]["drops"].get("mtu_exceeded", 0)
        self.assertEqual(self.fetch(client.netns, web), wanted)
        dropped = self.meters(client.eni)[1]["drops"].get("mtu_exceeded", 0) - before
        self.assertGreater(dropped, 0)
        self.assertLess(dropped, 1000)

    def test_flows_count_what_the_meter_counts(self):
        web, client = self.attach_port(1), self.attach_port(2)
        self.page(web)
        before = self.meters(web.eni)[0]
        self.fetch(client.netns, web)
        flow, = [each for each in self.call("flow.list", {"task": web.eni, "protocol": "tcp"})["flows"]]
        after = self.meters(web.eni)[0]
        # Neighbour discovery and ARP are in the meter and in no flow.
        self.assertAlmostEqual(flow["egress"]["packets"], after["rx_packets"] - before["rx_packets"], delta=5)
        self.assertGreaterEqual(flow["egress"]["bytes"], self.size + flow["egress"]["packets"] * 40)


class TestForged(OffloadsTest):
    """What a task that has its interface to itself may write before a frame (struct virtio_net_hdr). What its own kernel refuses
    never comes; what comes is the engine's to refuse."""

    def setUp(self):
        super().setUp()
        self.put_groups(group(tcp(80), PING))
        self.web = self.attach_port(1)

    def inject(self, frame, **header):
        return Vnet.send(self.web.netns, "eth0", frame, **header)

    def tcp_frame(self, flags=0x10, payload=8000):
        segment = tcp_segment(40000, 80, flags, self.web.address, CLIENT, text=b"x" * payload)
        return ethernet(ROUTER_MAC, self.web.mac, 0x0800, ipv4(self.web.address, CLIENT, 6, segment))

    def test_sound_ones_pass(self):
        before = self.meters(self.web.eni)[0]
        self.assertTrue(self.inject(self.tcp_frame()))
        self.lab.wait_until(lambda: self.meters(self.web.eni)[0]["rx_packets"] > before["rx_packets"], 2)
        self.assertEqual(self.meters(self.web.eni)[0]["rx_packets"] - before["rx_packets"], 6)  # 8000 octets in segments of 1448

    def test_lies_are_dropped_by_name(self):
        lies = {"a SYN in segments": (self.tcp_frame(0x02), {}),
                "segments of 20 octets": (self.tcp_frame(), {"gso_size": 20})}
        for what, (frame, header) in lies.items():
            with self.subTest(what), self.expect_drops(self.web.eni, bad_offload=1):
                self.assertTrue(self.inject(frame, **header), "the task's kernel refused it; the engine was not asked")

    def test_the_neighbour_notices_nothing(self):
        other = self.attach_port(2)
        Nginx(self.lab, other.netns, "a page")
        generator, sent = random.Random(7), 0
        for _ in range(400):
            frame = bytearray(self.tcp_frame(generator.choice((0x10, 0x02, 0x04, 0x11)), generator.randrange(0, 3000)))
            if generator.random() < 0.3:
                frame[23] = generator.choice((1, 6, 17, 47))
            sent += self.inject(bytes(frame), flags=generator.choice((0, Vnet.NEEDS_CSUM, 2, 255)), gso_type=generator.choice((0, Vnet.TCPV4, Vnet.UDP, 4, 5, 0x81)),
                                header_bytes=generator.randrange(0, 200), gso_size=generator.randrange(0, 3000), start=generator.randrange(0, 100),
                                offset=generator.choice((6, 16, 2, 60)))
        self.assertGreater(sent, 20)
        self.assertEqual(self.lab.http_get(self.lab.client, f"http://{other.address}/")[0], 200)
        self.lab.assert_accounted()
        self.note(f"{sent} of 400 passed the task's kernel; {self.meters(self.web.eni)[0]['drops']}")


if __name__ == "__main__":
    main("nginx")
