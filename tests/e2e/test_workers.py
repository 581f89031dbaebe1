#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
"""Two workers: where tasks are placed, what is handed over, and a task that moves back and forth between them while packets
and a download go through it.

The lab's trunk has one queue, so all that comes in or goes out for the second worker is handed over by or to the first."""
import hashlib
import os
import socket
import sys
import threading
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from harness import PING, LabTest, Ping, group, main, tcp, two_workers  # noqa: E402
from lab import in_netns  # noqa: E402

PORT = 8000
OTHER_GROUP = "sg-00000000000000002"
PIECE = 1 << 16


class PacedStream(threading.Thread):
    """A paced TCP stream from a server in one namespace to a client in another, as long as it is let run. Whether it arrived
    whole is told by a digest at both ends."""

    def __init__(self, server_netns, client_netns, address, bytes_a_second):
        super().__init__(daemon=True)
        self.stopping, self.error = threading.Event(), None
        self.sent, self.received = hashlib.sha256(), hashlib.sha256()
        self.bytes_sent = self.bytes_received = 0
        self.listener = in_netns(server_netns, lambda: socket.create_server((address, PORT)))
        self.client = in_netns(client_netns, lambda: socket.create_connection((address, PORT), timeout=10))
        self.listener.settimeout(10)
        self.server, _ = self.listener.accept()
        self.server.settimeout(20)
        self.client.settimeout(20)
        self.server.setsockopt(socket.SOL_SOCKET, 47, bytes_a_second)  # SO_MAX_PACING_RATE
        self.reader = threading.Thread(target=self.guarded, args=(self.read,), daemon=True)

    def guarded(self, work):
        try:
            work()
        except Exception as error:
            self.error = error

    def run(self):
        self.reader.start()
        self.guarded(self.write)

    def write(self):
        while not self.stopping.is_set():
            piece = os.urandom(PIECE)
            self.server.sendall(piece)
            self.sent.update(piece)
            self.bytes_sent += PIECE
        self.server.close()

    def read(self):
        while piece := self.client.recv(PIECE):
            self.received.update(piece)
            self.bytes_received += len(piece)

    def finish(self):
        self.stopping.set()
        self.join(timeout=40)
        self.reader.join(timeout=40)
        self.client.close()
        self.listener.close()
        if self.error is not None:
            raise self.error


class TwoWorkers(LabTest):
    def setUp(self):
        super().setUp()
        # Nothing may leave by a rule: an answer passes because its connection is known, wherever the task is.
        self.put_groups(group(tcp(PORT), PING, egress=[]), group(PING, group_id=OTHER_GROUP))

    @property
    def overrides(self):
        return two_workers(self.lab)

    def workers(self):
        return self.lab.ctl("worker", "list")["workers"]

    def worker_of(self, task):
        return self.lab.task(task.eni)["worker"]

    def move(self, task, worker, seconds=10):
        """Moves it, as soon as the move before is over; how often it was still under way."""
        deadline, conflicts = time.monotonic() + seconds, 0
        while True:
            done = self.lab.trunkctl("worker", "move", task.eni, str(worker))
            if done.returncode == 0:
                self.assertEqual(self.worker_of(task), worker)
                return conflicts
            self.assertEqual(done.returncode, 5, done.stderr)
            self.assertIn("is still moving to worker", done.stderr)
            self.assertLess(time.monotonic(), deadline, done.stderr)
            conflicts += 1
            time.sleep(0.05)


class TestPlacement(TwoWorkers):
    def test_placement_and_handoff(self):
        first, second, third = self.attach(1), self.attach(2), self.attach(3)
        self.assertEqual([self.worker_of(task) for task in (first, second, third)], [0, 1, 0])
        self.assertEqual([worker["endpoints"] for worker in self.workers()], [2, 1])
        self.assertEqual([worker["lcore"] for worker in self.workers()], [1, 2])
        self.assert_ping(self.lab.client, second.address)
        for worker in self.workers():
            self.assertGreater(worker["handed_in"], 19, "requests came by worker 0's queue, answers go out by it")
        self.assertEqual(self.workers()[1]["connections"], 1)
        self.assertEqual(sum(worker["capacity"] for worker in self.workers()), 65536)
        self.assertEqual(self.lab.ctl("status")["connections"], {"used": 1, "limit": 65536, "recycled": 0})
        self.call("task.detach", {"task": third.eni})
        self.call("task.detach", {"task": first.eni})
        self.assertEqual(self.worker_of(self.attach(4)), 0)

    def test_refusals(self):
        task = self.attach(1)
        self.refused("worker.move", {"task": task.eni, "worker": 2}, "invalid_params", "/worker", "from 0 to 1")
        self.refused("worker.move", {"task": task.eni}, "invalid_params", "/worker")
        self.refused("worker.move", {"task": "eni-1", "worker": 1}, "not_found", "/task")
        self.refused("worker.move", {"task": task.eni, "worker": 1, "expect_revision": 0}, "conflict", "/expect_revision")
        would = self.call("worker.move", {"task": task.eni, "worker": 1, "dry_run": True})
        self.assertEqual((would["changed"], self.worker_of(task)), (True, 0))
        self.assertFalse(self.call("worker.move", {"task": task.eni, "worker": 0})["changed"])


class TestMoves(TwoWorkers):
    MOVES = 20

    def test_back_and_forth_under_traffic(self):
        moved = self.attach(1)
        self.attach(2)  # worker 1's
        peer = self.attach(3, groups=[OTHER_GROUP])
        self.assertEqual(self.worker_of(peer), 0)
        self.lab.ping(self.lab.client, moved.address)
        self.lab.ping(peer.netns, moved.address)
        download = PacedStream(moved.netns, self.lab.client, moved.address, 8 << 20)
        download.start()
        began, conflicts = time.monotonic(), 0
        with Ping(self.lab, self.lab.client, moved.address, interval=0.005) as outside, \
                Ping(self.lab, peer.netns, moved.address, interval=0.005) as inside:
            time.sleep(0.5)
            for number in range(self.MOVES):
                conflicts += self.move(moved, (number + 1) % 2)
                time.sleep(0.1)
            took = time.monotonic() - began
            time.sleep(0.5)
            pings = [ping.finish() for ping in (outside, inside)]
        download.finish()
        for sent, received in pings:
            self.assertGreater(sent, 200)
            self.assertEqual(sent - received, 0, f"of {sent} pings")
        self.assertEqual(download.bytes_received, download.bytes_sent)
        self.assertEqual(download.received.digest(), download.sent.digest())
        self.assertGreater(download.bytes_sent, 4 << 20)
        self.assertEqual(self.lab.drops(), {}, "nothing was dropped, for any reason")
        self.lab.assert_accounted()
        self.assertIn("every packet is accounted for", self.lab.trunkctl("stats").stdout)
        handed = [worker["handed_in"] for worker in self.workers()]
        self.assertGreater(min(handed), 200)
        self.note(f"{self.MOVES} moves in {took:.1f} s ({conflicts} times still under way); {pings[0][0]} pings from outside and {pings[1][0]} from "
                  f"a task, none lost; {download.bytes_sent / 1e6:.0f} MB by TCP, whole; handed over {handed[0]} and {handed[1]} packets")

    def test_detach_while_moving(self):
        """A task that leaves in the middle of a move leaves nothing behind, and comes back clean."""
        peer = self.attach(3, groups=[OTHER_GROUP])
        for number in range(5):
            task = self.attach(1)
            with Ping(self.lab, self.lab.client, task.address, interval=0.005) as ping:
                time.sleep(0.1)
                self.call("worker.move", {"task": task.eni, "worker": 1 - self.worker_of(task)})
                self.call("task.detach", {"task": task.eni})
                ping.finish()
            self.assertIsNone(self.lab.interface(task.netns))
            self.assert_ping(self.lab.client, peer.address, count=5)
        task = self.attach(1)
        self.assert_ping(self.lab.client, task.address)
        self.assertTrue(self.lab.wait_until(lambda: self.call("task.show", {"task": task.eni})["moving"] is False, 3))


if __name__ == "__main__":
    main()
