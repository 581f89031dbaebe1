#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
"""A vhost-user task that lies: about messages, about its memory, in its rings. It costs its own port and nobody else's: the engine
lives, the neighbour's ping and download lose nothing, and the port serves the next program. T-33, T-34, T-36."""
import contextlib
import os
import random
import struct
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import vhost_frontend as liar  # noqa: E402
from harness import CLIENT, PING, ROUTER_MAC, LabTest, Ping, echo, ethernet, group, ipv4, main, tcp  # noqa: E402
from lab import Download, Nginx  # noqa: E402


class LyingPeerTest(LabTest):
    def setUp(self):
        super().setUp()
        self.put_groups(group(tcp(80), PING))
        self.neighbour = self.attach(2)
        self.server = Nginx(self.lab, self.neighbour.netns, "a page", slow_rate="1m")
        self.path = os.path.join(self.lab.directory, "task1.sock")
        self.liar = self.attach_socket()

    def attach_socket(self):
        task = self.task(1)
        self.tell_vpc()
        self.call("task.attach", task.facts(port={"kind": "vhost-user", "socket": self.path, "client": False}))
        self.assert_state(task, "active")
        return task

    @contextlib.contextmanager
    def neighbour_unharmed(self):
        with Ping(self.lab, self.lab.client, self.neighbour.address) as ping, Download(self.lab.client, self.neighbour.address) as download:
            yield
            self.assertTrue(download.finish(20), download.error)
            sent, received = ping.finish()
        self.assertIsNone(self.lab.engine.poll(), "the engine ended")
        self.assertEqual(sent, received, "the neighbour's pings lost")
        self.assertEqual(download.sha256, self.server.slow_sha256)

    def frame(self, number=1):
        return ethernet(ROUTER_MAC, self.liar.mac, 0x0800, ipv4(self.liar.address, CLIENT, 1, echo(b"x" * 30, number)))

    def is_up(self):
        return self.call("task.show", {"task": self.liar.eni})["link"] == "up"

    def assert_served(self):
        """The port serves a program that means well; nothing of the one before is left."""
        with liar.connect(self.path) as frontend:
            frontend.shake_hands()
            self.assertTrue(self.lab.wait_until(self.is_up, 5), "the port does not serve any more")
            before = self.meters(self.liar.eni)[0]["tx_packets"]
            for number in range(8):
                frontend.transmit(self.frame(number))
            self.assertTrue(self.lab.wait_until(lambda: self.meters(self.liar.eni)[0]["tx_packets"] == before + 8, 3), self.meters(self.liar.eni))
            self.assertEqual(frontend.used(1), 8)
        self.assertTrue(self.lab.wait_until(lambda: not self.is_up(), 5))


class TestMessages(LyingPeerTest):
    def test_nonsense(self):
        generator = random.Random(5)
        fds = self.engine_fds()

        def header(request, size):
            return struct.pack("<III", request, 1, size)

        lies = {"noise": generator.randbytes(300), "no such request": header(200, 0), "a size of 4 GB": header(liar.SET_FEATURES, 0xffffffff),
                "a size of nothing": header(liar.SET_VRING_ADDR, 0),
                "memory without files": header(liar.SET_MEM_TABLE, 40) + struct.pack("<IIQQQQ", 1, 0, 0, 4096, 0, 0),
                "a ring that is not there": header(liar.SET_VRING_NUM, 8) + struct.pack("<II", 255, 256),
                "a ring of three": header(liar.SET_VRING_NUM, 8) + struct.pack("<II", 0, 3)}
        with self.neighbour_unharmed():
            for what, words in lies.items():
                with self.subTest(what), liar.connect(self.path) as frontend:
                    frontend.socket.sendall(words)
                    frontend.socket.shutdown(1)
                    self.assertTrue(frontend.is_thrown_out())
            for _ in range(200):
                with liar.connect(self.path) as frontend, contextlib.suppress(OSError):
                    for _ in range(generator.randrange(1, 12)):
                        request = generator.randrange(0, 45)
                        takes_files = request in (liar.SET_MEM_TABLE, liar.SET_VRING_KICK, liar.SET_VRING_CALL)
                        size = generator.choice((0, 8, 8, 12, 40, 72))
                        payload = bytes(size) if takes_files else generator.randbytes(size)
                        frontend.send(request, payload, [frontend.memfd] * generator.choice((0, 1, 1, 2, 8)) if takes_files else ())
        self.assertTrue(self.lab.wait_until(lambda: not self.is_up(), 5))
        self.assert_served()
        self.assertEqual(self.engine_fds(), fds)

    def test_files_that_come_with_what_is_refused(self):
        fds = self.engine_fds()
        for _ in range(4):
            with liar.connect(self.path) as frontend:
                frontend.send(liar.SET_VRING_ENABLE, struct.pack("<II", 1 << 20, 1), [frontend.memfd] * 8)
                frontend.socket.shutdown(1)
                self.assertTrue(frontend.is_thrown_out())
        self.assertEqual(self.engine_fds(), fds)

    def test_what_is_not_offered(self):
        """Logs of dirty pages, post-copy and inflight areas: each trusts numbers of the peer, and no task needs one."""
        inflight = struct.pack("<QQHH4x", 4096, 0, 65535, 256)
        messages = {"an inflight area for rings that are not there": (liar.SET_INFLIGHT_FD, inflight, 1),
                    "an inflight area of the engine's memory": (liar.GET_INFLIGHT_FD, struct.pack("<QQHH4x", 0, 0, 64, 1024), 0),
                    "a log that begins behind its end": (liar.SET_LOG_BASE, struct.pack("<QQ", 4096, 1 << 40), 1),
                    "somebody to tell of the log": (liar.SET_LOG_FD, b"", 1),
                    "post-copy": (liar.POSTCOPY_ADVISE, b"", 0), "post-copy's memory": (liar.POSTCOPY_LISTEN, b"", 0)}
        fds = self.engine_fds()
        with self.neighbour_unharmed():
            for what, (request, payload, files) in messages.items():
                with self.subTest(what), liar.connect(self.path) as frontend:
                    frontend.shake_hands()
                    self.assertTrue(self.lab.wait_until(self.is_up, 5))
                    self.assertEqual(frontend.offered & liar.LOG_ALL, 0)
                    frontend.send(request, payload, [frontend.memfd] * files)
                    self.assertTrue(frontend.is_thrown_out())
                self.assertTrue(self.lab.wait_until(lambda: not self.is_up(), 5))
        self.assert_served()
        self.assertEqual(self.engine_fds(), fds)


class TestMemory(LyingPeerTest):
    def test_tables_that_lie(self):
        lies = {"no region": {"regions": 0, "fds": 0}, "nine regions": {"regions": 9, "fds": 8}, "fewer files than regions": {"regions": 2, "fds": 1},
                "more files than regions": {"regions": 1, "fds": 3}, "regions on top of each other": {"regions": 8, "fds": 8, "stride": 4096}}
        impossible = {"a size that overflows": {"size": 1 << 63, "offset": 1 << 63}, "a size of nothing": {"size": 0},
                      "the end of the address space": {"size": (1 << 64) - 4096}}
        fds = self.engine_fds()
        with self.neighbour_unharmed():
            for what, table in [*lies.items(), *impossible.items()]:
                with self.subTest(what), liar.connect(self.path) as frontend, contextlib.suppress(OSError):
                    frontend.features()
                    frontend.memory_table(**table)
                    frontend.rings()
                    frontend.socket.shutdown(1)
                    frontend.is_thrown_out()
        self.assertTrue(self.lab.wait_until(lambda: not self.is_up(), 5))
        self.assert_served()
        self.assertEqual(self.engine_fds(), fds)

    def test_a_size_that_the_file_never_had(self):
        with self.neighbour_unharmed(), liar.connect(self.path) as frontend:
            frontend.features()
            os.ftruncate(frontend.memfd, 4096)
            frontend.memory_table()
            frontend.rings()
            time.sleep(0.3)
        self.assert_told_of_it()

    def test_memory_taken_back(self):
        """Under traffic each way: the worker is about to read and to write there."""
        for what in ("rings", "frames"):
            with self.subTest(what), self.neighbour_unharmed(), liar.connect(self.path) as frontend:
                frontend.shake_hands()
                self.assertTrue(self.lab.wait_until(self.is_up, 5))
                before = self.meters(self.liar.eni)[0]["tx_packets"]
                for number in range(8):
                    frontend.transmit(self.frame(number))
                self.assertTrue(self.lab.wait_until(lambda: self.meters(self.liar.eni)[0]["tx_packets"] == before + 8, 3))
                if what == "frames":
                    # The rings stay, and lead to where nothing is.
                    frontend.describe(1, 8, liar.FRAMES, 100)
                    os.ftruncate(frontend.memfd, liar.FRAMES)
                    frontend.offer(1, 8, 9)
                else:
                    os.ftruncate(frontend.memfd, 0)
                self.lab.ping(self.lab.client, self.liar.address)
                time.sleep(0.3)
            self.assert_told_of_it()

    def assert_told_of_it(self):
        self.assertTrue(self.lab.wait_until(lambda: "took back memory" in self.lab.tail("engine.log", 400), 3), "no word of it in the log")
        self.assertTrue(self.lab.wait_until(lambda: not self.is_up(), 5))
        self.assert_served()


class TestRings(LyingPeerTest):
    def lies(self, frontend):
        """(what, what it does to the ring that it sends from), each on a connection of its own."""
        def one(address, length, flags=0, following=0):
            frontend.describe(1, 0, address, length, flags, following)
            frontend.offer(1, 0, 1)

        def chain(pieces):
            for index, (address, length) in enumerate(pieces):
                frontend.describe(1, index, address, length, 0 if index == len(pieces) - 1 else liar.NEXT, index + 1)
            for number in range(1, 65):
                frontend.offer(1, 0, number)

        def loop():
            for index in range(liar.QUEUE):
                frontend.describe(1, index, liar.FRAMES, 64, liar.NEXT, (index + 1) % liar.QUEUE)
            frontend.offer(1, 0, 1)

        def indirect_loop():
            struct.pack_into("<QIHH", frontend.memory, liar.FRAMES, liar.FRAMES, 16, liar.INDIRECT | liar.NEXT, 0)
            one(liar.FRAMES, 16, liar.INDIRECT)

        def receive(address, length, flags=liar.WRITE):
            for index in range(liar.QUEUE):
                frontend.describe(0, index, address, length, flags, index)
                frontend.offer(0, index, index + 1)
            for _ in range(3):
                self.lab.ping(self.lab.client, self.liar.address, 1)

        def receive_into(*pieces):
            """Room in a chain of these (address, length), offered eight times."""
            for index, (address, length) in enumerate(pieces):
                last = index == len(pieces) - 1
                frontend.describe(0, index, address, length, liar.WRITE | (0 if last else liar.NEXT), index + 1)
            for number in range(1, 9):
                frontend.offer(0, 0, number)
            for _ in range(3):
                self.lab.ping(self.lab.client, self.liar.address, 1)

        return {
            "an address outside": lambda: one(1 << 46, 100),
            "an address before the end": lambda: one(liar.SIZE - 10, 100),
            "an address that overflows": lambda: one((1 << 64) - 50, 100),
            "a length of nothing": lambda: one(liar.FRAMES, 0),
            "a length of 4 GB": lambda: one(liar.FRAMES, 0xffffffff),
            "a frame shorter than its header": lambda: one(liar.FRAMES, 5),
            "only the header": lambda: one(liar.FRAMES, 12),
            "a loop": loop,
            "a descriptor that follows itself": lambda: one(liar.FRAMES, 64, liar.NEXT, 0),
            "a next one outside the ring": lambda: one(liar.FRAMES, 64, liar.NEXT, 40000),
            "a table of a table": indirect_loop,
            "a table outside": lambda: one(1 << 46, 4096, liar.INDIRECT),
            "a table of nothing": lambda: one(liar.FRAMES, 0, liar.INDIRECT),
            "a table of 4 GB": lambda: one(liar.FRAMES, 0xfffffff0, liar.INDIRECT),
            "an index that jumps": lambda: frontend.offer(1, 0, 40000),
            "an index that goes back": lambda: (frontend.offer(1, 0, 5), time.sleep(0.05), frontend.offer(1, 0, 1)),
            "a number outside the ring": lambda: frontend.offer(1, 60000, 1),
            "room outside": lambda: receive(1 << 46, 2048),
            "room of nothing": lambda: receive(liar.FRAMES, 0),
            "room that goes in circles": lambda: receive(liar.FRAMES, 1, liar.WRITE | liar.NEXT),
            # The header's rest is more than the second of them has, which is the last of the memory.
            "room in runts at the end": lambda: receive_into((liar.FRAMES, 4), (liar.SIZE - 4, 4), (liar.ROOM, 4096)),
            "room in bytes at the end": lambda: receive_into(*[(liar.SIZE - 1, 1)] * 8, (liar.ROOM, 4096)),
            "room that ends in the header": lambda: receive_into((liar.FRAMES, 4), (liar.SIZE - 4, 4)),
            "chains of the whole memory": lambda: chain([(0, liar.SIZE)] * 200),
        }

    def test_each_lie(self):
        with self.neighbour_unharmed():
            for what in self.lies(None):
                with self.subTest(what):
                    with liar.connect(self.path) as frontend:
                        frontend.shake_hands()
                        self.assertTrue(self.lab.wait_until(self.is_up, 5))
                        before = self.lab.engine.poll()
                        self.lies(frontend)[what]()
                        time.sleep(0.05)
                        self.assertEqual(self.lab.engine.poll(), before, "the engine ended")
                    self.assertTrue(self.lab.wait_until(lambda: not self.is_up(), 5))
        self.lab.assert_accounted()
        self.assert_served()

    def test_a_header_in_pieces(self):
        """Allowed, if unusual: the frame comes whole."""
        with liar.connect(self.path) as frontend:
            frontend.shake_hands()
            self.assertTrue(self.lab.wait_until(self.is_up, 5))
            for index, (offset, length) in enumerate(((0, 3), (3, 1), (4, 5), (9, 7), (16, 4000))):
                frontend.describe(0, index, liar.ROOM + offset, length, liar.WRITE | (liar.NEXT if index < 4 else 0), index + 1)
            frontend.offer(0, 0, 1)
            self.lab.ping(self.lab.client, self.liar.address, 1)
            self.assertTrue(self.lab.wait_until(lambda: frontend.used(0) == 1, 3), "nothing was received")
            head, length = struct.unpack_from("<II", frontend.memory, frontend.place(0)[2] + 4)
            frame = frontend.memory[liar.ROOM + liar.VNET_BYTES:liar.ROOM + length]
            self.assertEqual(head, 0)
            self.assertEqual(frame[:6], bytes.fromhex(self.liar.mac.replace(":", "")))
            self.assertEqual(struct.unpack_from("!H", frame, 16)[0], len(frame) - 14, "not the whole packet")
        self.assert_served()

    def test_packed_rings_of_runts(self):
        """Four at a time, each of four bytes at the end of the memory."""
        packed = 1 << 34
        with self.neighbour_unharmed(), liar.connect(self.path) as frontend:
            frontend.shake_hands(liar.PROTOCOL_FEATURES | liar.VERSION_1 | liar.MERGEABLE | packed)
            if frontend.offered & packed == 0:
                return
            self.assertTrue(self.lab.wait_until(self.is_up, 5))
            for index in range(liar.QUEUE):  # the wrap counters begin with 0, so that what is marked as used is available
                struct.pack_into("<QIHH", frontend.memory, 16 * index, liar.SIZE - 4, 4, index, liar.WRITE | 1 << 15)
            with contextlib.ExitStack() as stack:
                for ping in [stack.enter_context(Ping(self.lab, self.lab.client, self.liar.address, 1000, 0.001)) for _ in range(4)]:
                    ping.wait()
            self.assertIsNone(self.lab.engine.poll(), "the engine ended")
        self.assertTrue(self.lab.wait_until(lambda: not self.is_up(), 5))
        self.assert_served()

    def test_noise_in_the_rings(self):
        generator = random.Random(11)
        used = self.call("status")["memory"]["mbufs_used"]
        with self.neighbour_unharmed(), liar.connect(self.path) as frontend:
            frontend.shake_hands()
            self.assertTrue(self.lab.wait_until(self.is_up, 5))
            last = time.monotonic() + 3
            while time.monotonic() < last:
                ring = generator.randrange(2)
                for _ in range(16):
                    frontend.describe(ring, generator.randrange(liar.QUEUE), generator.choice((liar.FRAMES, liar.SIZE - 64, generator.getrandbits(64))),
                                      generator.choice((0, 12, 80, 1514, 65535, 0xffffffff)), generator.randrange(8), generator.randrange(1 << 9))
                frontend.offer(ring, generator.randrange(liar.QUEUE), generator.getrandbits(16))
        self.assertTrue(self.lab.wait_until(lambda: not self.is_up(), 5))
        self.assert_served()
        self.assertTrue(self.lab.wait_until(lambda: self.call("status")["memory"]["mbufs_used"] <= used + 256, 3), "buffers lost")


if __name__ == "__main__":
    main("nginx")
