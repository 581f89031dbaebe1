#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
"""vhost-user peers that hold things up: that connect and go ten thousand times a second, hold a thousand connections,
stop in the middle of a message, do not read their answers, take descriptors, die in the middle of negotiation. DPDK's
vhost library has one thread and one set of descriptors for all tasks. Others' ports come up, lose no packet, and the
port itself serves the next program."""
import contextlib
import json
import multiprocessing
import os
import resource
import socket
import struct
import sys
import threading
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import vhost_frontend as peer  # noqa: E402
from harness import CLIENT, PING, ROUTER_MAC, LabTest, Ping, echo, ethernet, group, ipv4, main  # noqa: E402

SECONDS = 6  # of a flood
UP_SECONDS = 4  # an engine's port that connects tries once a second
HELD = 1000
LOG_LINES = 400  # of everything in a flood, for one socket: a burst, and what its rate gives


def connect_and_drop(path, seconds, half, count):
    """For a process of its own."""
    end, made = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        with socket.socket(socket.AF_UNIX) as each, contextlib.suppress(OSError):
            each.settimeout(1)
            each.connect(path)
            if half:
                each.send(struct.pack("<III", peer.GET_FEATURES, 1, 0)[:7])
            made += 1
    count.value = made


class VhostTest(LabTest):
    def setUp(self):
        super().setUp()
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8192), hard))
        self.addCleanup(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        self.put_groups(group(PING))
        self.attach_socket(1)
        # The neighbour: a task that sends all the time, over a socket of its own.
        self.attach_socket(2)

    def path(self, number):
        return os.path.join(self.lab.directory, f"task{number}.sock")

    def attach_socket(self, number, client=False):
        task = self.task(number)
        self.tell_vpc()
        self.call("task.attach", task.facts(port={"kind": "vhost-user", "socket": self.path(number), "client": client}))
        self.assert_state(task, "active")
        return task

    def is_up(self, number):
        return self.call("task.show", {"task": self.task(number).eni})["link"] == "up"

    def sent_by(self, number):
        return self.meters(self.task(number).eni)[0]["tx_packets"]

    def frame(self, number, sequence):
        task = self.task(number)
        return ethernet(ROUTER_MAC, task.mac, 0x0800, ipv4(task.address, CLIENT, 1, echo(b"x" * 30, sequence & 0xffff)))

    def assert_sends(self, number, frontend, frames=8):
        self.assertTrue(self.lab.wait_until(lambda: self.is_up(number), UP_SECONDS), "the port does not come up")
        before = self.sent_by(number)
        for sequence in range(frames):
            frontend.transmit(self.frame(number, sequence))
        self.assertTrue(self.lab.wait_until(lambda: self.sent_by(number) == before + frames, 3),
                        self.meters(self.task(number).eni))

    def assert_serves(self, number=1):
        """A program that means well connects, and is served; it may have to try twice."""
        def shake():
            with contextlib.suppress(OSError, struct.error):
                frontend = peer.connect(self.path(number))
                try:
                    frontend.shake_hands()
                    return frontend
                except BaseException:
                    frontend.close()
                    raise
            return None

        frontends = []

        def is_served():
            frontends.extend(filter(None, [shake()]))
            return bool(frontends)

        self.assertTrue(self.lab.wait_until(is_served, 5), "nobody is served")
        with frontends[0] as frontend:
            self.assert_sends(number, frontend)
        self.assertTrue(self.lab.wait_until(lambda: not self.is_up(number), 5))

    def assert_another_comes_up(self, number=3, seconds=UP_SECONDS):
        """Another task's port, which connects to its program's socket: attached now, and negotiated now."""
        self.attach_socket(number, client=True)
        began = time.monotonic()
        with peer.accept(self.path(number)) as frontend:
            frontend.shake_hands()
            self.assert_sends(number, frontend)
            took = time.monotonic() - began
        self.assertLess(took, seconds)
        self.call("task.detach", {"task": self.task(number).eni})
        return took

    @contextlib.contextmanager
    def neighbour_unharmed(self):
        """It sends a frame every few milliseconds through it all, and each is counted."""
        with peer.connect(self.path(2)) as frontend:
            frontend.shake_hands()
            self.assertTrue(self.lab.wait_until(lambda: self.is_up(2), UP_SECONDS))
            before, stop, sent = self.sent_by(2), threading.Event(), [0]

            def send():
                while not stop.is_set():
                    if frontend.used(1) == sent[0] & 0xffff:  # as a driver does that has one buffer
                        frontend.transmit(self.frame(2, sent[0]))
                        sent[0] += 1
                    time.sleep(0.004)

            sender = threading.Thread(target=send)
            sender.start()
            try:
                yield
            finally:
                stop.set()
                sender.join()
            self.assertIsNone(self.lab.engine.poll(), "the engine ended")
            self.assertGreater(sent[0], 50)
            self.assertTrue(self.lab.wait_until(lambda: self.sent_by(2) == before + sent[0], 3),
                            (self.sent_by(2) - before, sent[0]))
        self.assertTrue(self.lab.wait_until(lambda: not self.is_up(2), 5))

    def log_lines(self):
        with open(self.lab.log_path("engine.log"), errors="replace") as file:
            return file.readlines()


class TestListener(VhostTest):
    def flood(self, half):
        fds, lines = self.engine_fds(), len(self.log_lines())
        counts = [multiprocessing.Value("q", 0) for _ in range(2)]
        with self.neighbour_unharmed():
            floods = [multiprocessing.Process(target=connect_and_drop, args=(self.path(1), SECONDS, half, count))
                      for count in counts]
            for each in floods:
                each.start()
            try:
                time.sleep(0.5)
                took = self.assert_another_comes_up()
            finally:
                for each in floods:
                    each.join(SECONDS + 10)
        connects = sum(count.value for count in counts)
        said = self.log_lines()[lines:]
        self.assertGreater(connects, 200 * SECONDS)  # it was a flood: ten times this on an idle machine
        about = [line for line in said if self.path(1) in line]
        self.assertLess(len(about), LOG_LINES)
        self.assertLess(len(said), 2 * LOG_LINES)
        told = "line(s) more than are written"
        self.assertTrue(self.lab.wait_until(lambda: any(told in line for line in self.log_lines()[lines:]), 11),
                        "what was withheld is not told")
        self.assert_serves()
        self.assertEqual(self.engine_fds(), fds)
        self.note(f"{connects // SECONDS} connects a second, {len(said)} lines; another port came up in {took:.1f} s")

    def test_connected_to_and_dropped(self):
        self.flood(half=False)

    def test_connected_to_and_dropped_in_the_middle_of_a_message(self):
        self.flood(half=True)

    def test_a_thousand_connections_are_held(self):
        fds = self.engine_fds()
        with contextlib.ExitStack() as held, self.neighbour_unharmed():
            for _ in range(HELD):
                each = held.enter_context(socket.socket(socket.AF_UNIX))
                each.connect(self.path(1))  # waits while the queue is full
            self.assertTrue(self.lab.wait_until(lambda: self.engine_fds() <= fds + 8, 5),
                            f"{self.engine_fds() - fds} descriptors are held")
            took = self.assert_another_comes_up()
            # Nobody of them has said a word: whoever does is served, though they are all there.
            self.assert_serves()
        self.assert_serves()
        self.assertEqual(self.engine_fds(), fds)
        self.note(f"another port came up in {took:.1f} s")

    def test_who_is_served_stays(self):
        with peer.connect(self.path(1)) as frontend:
            frontend.shake_hands()
            self.assert_sends(1, frontend)
            for _ in range(50):
                with peer.connect(self.path(1)) as other:
                    self.assertTrue(other.is_thrown_out())
            time.sleep(0.5)
            with peer.connect(self.path(1)) as other:
                self.assertTrue(other.is_thrown_out())
            self.assert_sends(1, frontend)
        self.assert_serves()

    def test_half_a_message(self):
        """Only the sender waits for the other half."""
        header = struct.pack("<III", peer.SET_FEATURES, 1, 8)
        for part in (b"\x01", header[:11], header, header + b"\0" * 7):
            with self.subTest(len(part)), self.neighbour_unharmed(), peer.connect(self.path(1)) as half:
                half.socket.sendall(part)
                time.sleep(0.1)
                self.assert_another_comes_up()
                self.assert_serves()  # in its place

    def test_a_message_byte_by_byte(self):
        with peer.connect(self.path(1)) as frontend:
            for each in struct.pack("<III", peer.SET_OWNER, 1, 0) + struct.pack("<III", peer.GET_FEATURES, 1, 0):
                frontend.socket.send(bytes((each,)))
                time.sleep(0.002)
            self.assertEqual(len(frontend.socket.recv(20, socket.MSG_WAITALL)), 20)
            frontend.shake_hands()
            self.assert_sends(1, frontend)

    def test_answers_that_nobody_reads(self):
        with self.neighbour_unharmed(), peer.connect(self.path(1)) as frontend:
            with contextlib.suppress(OSError):
                for _ in range(20000):
                    frontend.send(peer.GET_FEATURES)
            self.assert_another_comes_up()
            self.assertTrue(frontend.is_thrown_out())
        self.assert_serves()

    def test_descriptors_of_rings_that_are_not_there(self):
        fds = self.engine_fds()
        most = 0
        for request in (peer.SET_VRING_KICK, peer.SET_VRING_CALL):
            with self.subTest(request), peer.connect(self.path(1)) as frontend:
                frontend.features()
                with contextlib.suppress(OSError):
                    for ring in range(256):
                        frontend.send(request, struct.pack("<Q", ring), [frontend.memfd])
                self.assertTrue(frontend.is_thrown_out())
                most = max(most, self.engine_fds() - fds)
        self.assertLess(most, 24)
        self.assert_serves()
        self.assertEqual(self.engine_fds(), fds)

    def test_descriptors_that_come_with_half_a_message(self):
        fds = self.engine_fds()
        for _ in range(20):
            with peer.connect(self.path(1)) as frontend:
                frontend.send(peer.SET_MEM_TABLE, size=40, fds=[frontend.memfd] * 8)
                with contextlib.suppress(OSError):
                    for _ in range(5):
                        files = struct.pack("8i", *[frontend.memfd] * 8)
                        frontend.socket.sendmsg([b"\0"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, files)])
                time.sleep(0.01)
        self.assert_serves()
        self.assertEqual(self.engine_fds(), fds)


class TestClient(VhostTest):
    """The engine connects to the program's socket, and the program is not as it should be."""

    def setUp(self):
        super().setUp()
        self.other = self.attach_socket(3, client=True)

    def listener(self, kind=socket.SOCK_STREAM):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path(3))
        made = socket.socket(socket.AF_UNIX, kind)
        made.bind(self.path(3))
        if kind == socket.SOCK_STREAM:
            made.listen(8)
            made.settimeout(UP_SECONDS)
        return made

    def assert_recovers(self, seconds=UP_SECONDS):
        began = time.monotonic()
        with peer.accept(self.path(3), seconds) as frontend:
            frontend.shake_hands()
            self.assert_sends(3, frontend)
            took = time.monotonic() - began
        self.assertTrue(self.lab.wait_until(lambda: not self.is_up(3), 5))
        return took

    def test_a_program_that_accepts_and_closes(self):
        """The engine comes again, and not ten thousand times a second."""
        lines, came = len(self.log_lines()), 0
        with self.neighbour_unharmed(), self.listener() as listening:
            end = time.monotonic() + 4
            while time.monotonic() < end:
                with contextlib.suppress(TimeoutError):
                    listening.accept()[0].close()
                    came += 1
            self.assert_serves()
        self.assertGreater(came, 1)
        self.assertLess(came, 8)
        self.assertLess(len(self.log_lines()) - lines, LOG_LINES)
        self.assert_recovers()

    def test_it_dies_at_each_step_of_the_negotiation(self):
        fds = self.engine_fds()
        steps = [lambda frontend: None, lambda frontend: frontend.send(peer.SET_OWNER),
                 lambda frontend: frontend.send(peer.GET_FEATURES),
                 lambda frontend: frontend.features(), lambda frontend: (frontend.features(), frontend.memory_table()),
                 lambda frontend: frontend.socket.send(b"\x01\0"),
                 lambda frontend: frontend.send(peer.SET_FEATURES, size=8),
                 lambda frontend: frontend.send(peer.SET_MEM_TABLE, size=40, fds=[frontend.memfd]),
                 lambda frontend: frontend.shake_hands(),
                 lambda frontend: frontend.send(250, b"nonsense")]
        with self.neighbour_unharmed(), self.listener() as listening:
            for number, step in enumerate(steps):
                with self.subTest(number):
                    with peer.Frontend(listening.accept()[0]) as frontend, contextlib.suppress(OSError):
                        step(frontend)
        self.assertTrue(self.lab.wait_until(lambda: not self.is_up(3), 5))
        self.assert_recovers()
        self.assertTrue(self.lab.wait_until(lambda: abs(self.engine_fds() - fds) <= 1, 5))

    def test_the_file_of_the_socket(self):
        """Deleted under the connection, deleted and made anew, a file of another kind, a socket of another kind."""
        with self.neighbour_unharmed():
            with self.listener() as listening, peer.Frontend(listening.accept()[0]) as frontend:
                frontend.shake_hands()
                os.unlink(self.path(3))
                self.assert_sends(3, frontend)
            self.assertTrue(self.lab.wait_until(lambda: not self.is_up(3), 5))
            time.sleep(1.2)
            self.assert_recovers()
            os.unlink(self.path(3))
            with open(self.path(3), "w") as file:
                file.write("not a socket")
            time.sleep(1.2)
            self.assert_recovers()
            os.unlink(self.path(3))
            os.mkdir(self.path(3))
            time.sleep(1.2)
            os.rmdir(self.path(3))
            self.listener(socket.SOCK_DGRAM).close()
            time.sleep(1.2)
            self.assert_recovers()
            os.unlink(self.path(3))
            os.symlink(self.path(3), self.path(3))
            time.sleep(1.2)
            os.unlink(self.path(3))
            self.assert_recovers()

    def test_nobody_accepts(self):
        """The connection stands in the queue of a program that is stopped."""
        with self.listener() as listening:
            time.sleep(2.5)
            with peer.Frontend(listening.accept()[0]) as frontend:
                frontend.shake_hands()
                self.assert_sends(3, frontend)
        self.assert_recovers()

    def test_silence_and_half_a_message(self):
        for part in (b"", struct.pack("<III", peer.SET_FEATURES, 1, 8)):
            with self.subTest(len(part)):
                with self.neighbour_unharmed(), self.listener() as listening, \
                        peer.Frontend(listening.accept()[0]) as frontend:
                    frontend.socket.sendall(part)
                    time.sleep(0.2)
                    self.assert_another_comes_up(4)
                    self.assert_serves()
                self.assert_recovers()

    def test_the_engine_has_no_descriptors_left(self):
        """When it would connect again; it does as soon as it has some."""
        with peer.accept(self.path(3)) as frontend:
            frontend.shake_hands()
            self.assert_sends(3, frontend)
            before = resource.prlimit(self.lab.engine.pid, resource.RLIMIT_NOFILE)
            resource.prlimit(self.lab.engine.pid, resource.RLIMIT_NOFILE, (3, before[1]))
        time.sleep(2.5)
        with peer.connect(self.path(1)):  # a listener without a descriptor for who comes
            time.sleep(0.3)
        resource.prlimit(self.lab.engine.pid, resource.RLIMIT_NOFILE, before)
        self.assert_recovers()
        self.assert_serves()
        self.assert_another_comes_up(4)


class TestFiles(VhostTest):
    """A listener's file: ours is made and removed, another's is neither used nor removed."""

    def refuse(self, path):
        task = self.task(5)
        answer = self.lab.rpc("task.attach", task.facts(port={"kind": "vhost-user", "socket": path, "client": False}))
        self.assertIn("error", answer, answer)
        return answer["error"]["message"]

    def test_what_is_there_already_stays(self):
        victim = os.path.join(self.lab.directory, "passwd")
        with open(victim, "w") as file:
            file.write("root")
        os.symlink(victim, victim + ".link")
        for path in (victim, victim + ".link", self.lab.socket):
            with self.subTest(path):
                for _ in range(2):
                    self.refuse(path)
                    self.assertTrue(os.path.lexists(path), "the engine removed it")
        with open(victim) as file:
            self.assertEqual(file.read(), "root")
        self.assertTrue(self.lab.answers())
        self.assert_another_comes_up()

    def test_a_socket_that_nobody_listens_to(self):
        """As a crash leaves it."""
        self.lab.kill_engine()
        self.assertTrue(os.path.exists(self.path(1)))
        self.lab.start_engine()
        self.assert_state(self.task(1), "active")
        self.assert_serves()
        self.call("task.detach", {"task": self.task(1).eni})
        self.assertFalse(os.path.exists(self.path(1)))

    def test_at_the_end_only_the_own_file_goes(self):
        os.unlink(self.path(1))
        with open(self.path(1), "w") as file:
            file.write("the task's")
        self.call("task.detach", {"task": self.task(1).eni})
        with open(self.path(1)) as file:
            self.assertEqual(file.read(), "the task's")

    def test_one_socket_for_two_ports(self):
        """However it is asked for, the second is refused, and the first serves on."""
        task = self.task(5)
        for devargs in (f"net_vhost90,iface={self.path(1)},client=0", f"net_vhost90,iface={self.path(1)},client=1"):
            with self.subTest(devargs):
                for _ in range(2):
                    answer = self.lab.rpc("task.attach", task.facts(port={"kind": "vdev", "devargs": devargs}))
                    self.assertIn("error", answer, answer)
                self.assertTrue(os.path.exists(self.path(1)))
                self.assert_serves()

    def test_a_path_that_is_too_long(self):
        path = os.path.join(self.lab.directory, "x" * 120)
        self.refuse(path)
        self.assertEqual([name for name in os.listdir(self.lab.directory) if name.startswith("xx")], [])


if __name__ == "__main__":
    main()
