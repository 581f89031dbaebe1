#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
"""Super-frames and checksums of a vhost-user program: what it negotiated decides, for as long as it is there. The program is a frontend
of the tests' own, which shows every field before a frame."""
import os
import struct
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import vhost_frontend as frontends  # noqa: E402
from harness import CLIENT, PING, ROUTER_MAC, LabTest, Vnet, Witness, ethernet, group, internet_checksum, ipv4, main, tcp, tcp_segment  # noqa: E402

PLAIN = frontends.PROTOCOL_FEATURES | frontends.VERSION_1 | frontends.MERGEABLE
CHECKSUMS = PLAIN | frontends.CSUM | frontends.GUEST_CSUM
SENDS = CHECKSUMS | frontends.HOST_TSO4 | frontends.HOST_TSO6
TAKES = CHECKSUMS | frontends.GUEST_TSO4 | frontends.GUEST_TSO6
PAYLOAD, SEGMENT, SEGMENTS = 8000, 1448, 6


def checksum_of(frame, start=14):
    """What is left of the TCP checksum's sum over a whole IPv4 packet without options: 0 if it is right."""
    packet = frame[start:start + struct.unpack_from("!H", frame, start + 2)[0]]
    return internet_checksum(packet[12:20] + struct.pack("!BBH", 0, 6, len(packet) - 20) + packet[20:])


class VhostOffloadsTest(LabTest):
    def setUp(self):
        super().setUp()
        self.put_groups(group(tcp(80), PING))
        self.path = os.path.join(self.lab.directory, "task1.sock")

    def attach_socket(self, **port):
        task = self.task(1)
        self.tell_vpc()
        self.call("task.attach", task.facts(port={"kind": "vhost-user", "socket": self.path, "client": False, "mtu": 1500, **port}))
        self.assert_state(task, "active")
        return task

    def is_up(self, task):
        return self.call("task.show", {"task": task.eni})["link"] == "up"

    def can(self, task):
        return {each["what"]: each["available"] for each in self.call("task.show", {"task": task.eni})["capabilities"]}

    def connect(self, task, features):
        frontend = frontends.connect(self.path)
        self.addCleanup(frontend.close)
        frontend.shake_hands(features)
        self.assertTrue(self.lab.wait_until(lambda: self.is_up(task), 5))
        return frontend

    def hang_up(self, task, frontend):
        frontend.socket.shutdown(2)
        self.assertTrue(self.lab.wait_until(lambda: not self.is_up(task), 5))

    def made(self):
        worker = self.call("worker.list")["workers"][0]
        return {name: worker[name] for name in ("super_frames_cut", "segments_made", "checksums_made")}

    def assert_made(self, before, **expected):
        now = self.made()
        self.assertEqual({name: now[name] - before[name] for name in now if now[name] != before[name]}, expected)


class TestFromTheProgram(VhostOffloadsTest):
    def frame(self, task, payload=PAYLOAD, flags=0x10):
        return ethernet(ROUTER_MAC, task.mac, 0x0800, ipv4(task.address, CLIENT, 6, tcp_segment(80, 40000, flags, task.address, CLIENT, text=b"x" * payload)))

    def send(self, task, frontend, frame, **header):
        frontend.transmit(frame, Vnet.header(**header))

    def test_cut_towards_a_trunk_that_cannot(self):
        task = self.attach_socket()
        frontend = self.connect(task, SENDS)
        self.assertEqual(frontend.offered & (frontends.HOST_UFO | frontends.GUEST_UFO), 0)
        self.assertTrue(self.can(task)["receives super-frames"])
        before, made = self.meters(task.eni)[0], self.made()
        with Witness(self.lab.vpc, "fabric0", lambda frame: b"xxxx" in frame) as witness:
            self.send(task, frontend, self.frame(task))
            self.assertTrue(self.lab.wait_until(lambda: len(witness.frames) == SEGMENTS, 3), f"{len(witness.frames)} frames")
        after = self.meters(task.eni)[0]
        self.assertEqual(after["rx_packets"] - before["rx_packets"], SEGMENTS)
        self.assertEqual(after["rx_bytes"] - before["rx_bytes"], PAYLOAD + SEGMENTS * 54)
        self.assertEqual([checksum_of(frame, 18) for frame in witness.frames], [0] * SEGMENTS)
        self.assertEqual(sum(frame.count(b"x") for frame in witness.frames), PAYLOAD)
        self.assert_made(made, super_frames_cut=1, segments_made=SEGMENTS)

    def test_a_checksum_is_made(self):
        task = self.attach_socket()
        frontend = self.connect(task, CHECKSUMS)
        frame = bytearray(self.frame(task, 100))
        frame[50:52] = b"\x12\x34"
        made = self.made()
        with Witness(self.lab.vpc, "fabric0", lambda frame: b"xxxx" in frame) as witness:
            self.send(task, frontend, bytes(frame), gso_type=0, gso_size=0)
            self.assertTrue(self.lab.wait_until(lambda: len(witness.frames) == 1, 3))
        self.assertEqual(checksum_of(witness.frames[0], 18), 0)
        self.assert_made(made, checksums_made=1)

    def test_lies_are_dropped_by_name(self):
        task = self.attach_socket()
        frontend = self.connect(task, SENDS)
        lies = {"a SYN in segments": (self.frame(task, flags=0x02), {}), "segments of 20 octets": (self.frame(task), {"gso_size": 20}),
                "one segment only": (self.frame(task, 100), {"gso_size": 1448})}
        for what, (frame, header) in lies.items():
            with self.subTest(what), self.expect_drops(task.eni, bad_offload=1):
                self.send(task, frontend, frame, **header)

    def test_a_port_without(self):
        task = self.attach_socket(offloads=False)
        frontend = self.connect(task, SENDS)
        self.assertEqual(frontend.offered & (frontends.HOST_TSO4 | frontends.HOST_TSO6), 0)
        self.assertNotIn("receives super-frames", self.can(task))


class TestToTheProgram(VhostOffloadsTest):
    def setUp(self):
        super().setUp()
        self.program, self.sender = self.attach_socket(), self.attach(2)

    def send(self, payload=PAYLOAD, port=80, **header):
        segment = tcp_segment(40000, port, 0x10, self.sender.address, self.program.address, text=b"x" * payload)
        frame = ethernet(ROUTER_MAC, self.sender.mac, 0x0800, ipv4(self.sender.address, self.program.address, 6, segment))
        self.assertTrue(Vnet.send(self.sender.netns, "eth0", frame, **header))

    def take(self, frontend, count):
        self.assertTrue(self.lab.wait_until(lambda: len(frontend.received()) >= count, 3), f"{len(frontend.received())} of {count} frames")
        frames = frontend.received()
        self.assertEqual(len(frames), count)
        return frames

    def assert_whole(self, frontend):
        before, made = self.meters(self.program.eni)[1], self.made()
        self.send()
        (flags, gso_type, header_bytes, gso_size, start, offset, buffers), frame = self.take(frontend, 1)[0]
        self.assertEqual((flags, gso_type, header_bytes, gso_size, start, offset, buffers), (Vnet.NEEDS_CSUM, Vnet.TCPV4, 54, SEGMENT, 34, 16, 1))
        self.assertEqual(frame.count(b"x"), PAYLOAD)
        # What a kernel would find there: the pseudo-header's sum with the length in it, not complemented.
        pseudo = frame[26:34] + struct.pack("!BBH", 0, 6, len(frame) - 34)
        self.assertEqual(struct.unpack_from("!H", frame, 50)[0], ~internet_checksum(pseudo) & 0xffff)
        self.assert_made(made)
        self.assertEqual(self.meters(self.program.eni)[1]["tx_packets"] - before["tx_packets"], SEGMENTS)

    def assert_cut(self, frontend, flags):
        made = self.made()
        self.send()
        frames = self.take(frontend, SEGMENTS)
        self.assertEqual({(header[0], header[1], header[3]) for header, _ in frames}, {(flags, 0, 0)})
        self.assertEqual(sum(frame.count(b"x") for _, frame in frames), PAYLOAD)
        if flags == 0:
            self.assertEqual([checksum_of(frame) for _, frame in frames], [0] * SEGMENTS)
        self.assert_made(made, super_frames_cut=1, segments_made=SEGMENTS)

    def test_whole_to_one_that_takes_them(self):
        frontend = self.connect(self.program, TAKES)
        frontend.make_room()
        can = self.can(self.program)
        self.assertEqual((can["sends super-frames"], can["sends with checksums to make"]), (True, True))
        self.assert_whole(frontend)
        with self.expect_drops(self.program.eni, security_group_ingress=SEGMENTS):
            self.send(port=81)
        self.assertEqual(len(frontend.received()), 1)

    def test_a_checksum_is_left_to_it(self):
        frontend = self.connect(self.program, CHECKSUMS)
        frontend.make_room()
        made = self.made()
        self.send(100, gso_type=0, gso_size=0)
        header, _ = self.take(frontend, 1)[0]
        self.assertEqual((header[0], header[1], header[4], header[5]), (Vnet.NEEDS_CSUM, 0, 34, 16))
        self.assert_made(made)

    def test_each_program_gets_what_it_agreed_to(self):
        self.assertEqual(self.can(self.program)["sends super-frames"], False)
        one = self.connect(self.program, TAKES)
        one.make_room()
        self.assert_whole(one)
        self.hang_up(self.program, one)
        self.assertEqual(self.can(self.program)["sends super-frames"], False)
        two = self.connect(self.program, PLAIN)
        two.make_room()
        can = self.can(self.program)
        self.assertEqual((can["sends super-frames"], can["sends with checksums to make"]), (False, False))
        self.assert_cut(two, 0)
        self.hang_up(self.program, two)
        three = self.connect(self.program, CHECKSUMS | frontends.GUEST_TSO4)  # of IPv6 it takes none
        three.make_room()
        self.assert_cut(three, Vnet.NEEDS_CSUM)
        self.lab.assert_accounted()


if __name__ == "__main__":
    main()
