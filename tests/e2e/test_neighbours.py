#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""One task, one stranger, one operator does its worst; the task beside it goes on. What is measured here is whether it goes on at all and who was refused what;
how well it goes on `./dev bench neighbours` tells, on a machine that has nothing else to do. docs/isolation.md has the law."""
import contextlib
import ctypes
import json
import os
import signal
import subprocess
import sys
import time

from harness import LabTest, PING, Vnet, ethernet, group, ipv4, main, tcp, tcp_segment
from harness import ROUTER_MAC
from lab import neighbour as people

ABUSER, QUIET = "sg-0000a77a", "sg-0000b1c7"
LIBC = ctypes.CDLL(None, use_errno=True)
PTRACE_SEIZE, PTRACE_INTERRUPT, PTRACE_DETACH, WALL = 0x4206, 0x4207, 17, 0x40000000


class ControlStopped:
    """The engine's control thread, and no other, stands still."""

    def __init__(self, pid):
        self.pid = pid

    def _ptrace(self, request):
        LIBC.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
        if LIBC.ptrace(request, self.pid, None, None) != 0:
            raise OSError(ctypes.get_errno(), "ptrace")

    def __enter__(self):
        self._ptrace(PTRACE_SEIZE)
        self._ptrace(PTRACE_INTERRUPT)
        os.waitpid(self.pid, WALL)
        return self

    def __exit__(self, *_):
        self._ptrace(PTRACE_DETACH)


class TestNeighbours(LabTest):
    def setUp(self):
        super().setUp()
        self.put_groups(group(PING, tcp(people.CONNECT_PORT), tcp(people.DOWNLOAD_PORT), group_id=QUIET),
                        group(PING, tcp(people.OPEN_PORT), {"IpProtocol": "udp", "FromPort": 9, "ToPort": 9, "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}, group_id=ABUSER))
        self.quiet = self.attach(1, groups=[QUIET])
        self.abuser = self.attach(2, groups=[ABUSER])

    def share_of(self, task):
        return next(share for share in self.call("share.list")["shares"] if share["eni"] == task.eni)

    def segments(self):
        return self.call("worker.list")["workers"][0]["segments_made"]

    def drain(self):
        """What the abuser's kernel still held is cut: the meters close only then."""
        seen = [-1, self.segments()]
        while seen[-1] != seen[-2] and len(seen) < 60:
            time.sleep(0.5)
            seen.append(self.segments())

    def suffers(self, *names, seconds=3, is_the_engine_alone=True):
        """What the quiet task sees of the abuses: it goes on, and nothing of it is dropped for want of anything shared."""
        before = self.lab.drops(self.quiet.eni)
        with people.Neighbour(self.lab, self.quiet, interval=0.01) as neighbour, contextlib.ExitStack() as abuses:
            time.sleep(0.5)
            for name in names:
                abuses.enter_context(people.abuse(name, self.lab, self.abuser))
            time.sleep(1)
            began = time.time()
            time.sleep(seconds)
            seen = neighbour.between(began, time.time())
        after = self.lab.drops(self.quiet.eni)
        refused = {reason: count - before.get(reason, 0) for reason, count in after.items() if count != before.get(reason, 0)}
        print(f"    {', '.join(names)}: {json.dumps(seen)}", file=sys.stderr)
        self.assertEqual({reason: count for reason, count in refused.items() if reason.startswith(("conntrack", "cpu", "handoff", "fragment", "no_buffer"))}, {})
        if is_the_engine_alone:  # and not the laboratory's VPC behind it, which is a program
            self.assertEqual(seen["failed"], 0)
            self.assertGreater(seen["connects"], 20 * seconds)
            self.assertLess(seen["gap"], 500, "on a machine that does other things too")
        self.drain()
        self.assertEqual(self.share_of(self.quiet)["flow_lines_lost"], 0)
        return seen

    def test_super_frames_of_tiny_segments_are_cut_in_turns(self):
        before = self.segments()
        self.suffers("tiny super-frames")
        self.assertGreater(self.segments() - before, 1000, "they are cut")
        self.assertGreater(self.share_of(self.abuser)["worker_time"]["ms"], 10, "and charged")

    def test_one_super_frame_comes_out_whole_and_in_order(self):
        """Cut in several turns, and followed by a packet that may not overtake it."""
        source, far = self.abuser.address, "198.51.100.9"
        payload = bytes(i % 251 for i in range(60_000))
        segment = tcp_segment(8193, 443, 0x10, source, far, text=payload)
        frame = ethernet(ROUTER_MAC, self.abuser.mac, 0x0800, ipv4(source, far, 6, segment))
        behind = ethernet(ROUTER_MAC, self.abuser.mac, 0x0800, ipv4(source, far, 6, tcp_segment(8193, 443, 0x11, source, far, text=b"behind")))
        before, frames = self.segments(), self.lab.stats()["ports"][0]["egress"]["tx_packets"]
        self.assertTrue(Vnet.send(self.abuser.netns, "eth0", frame, gso_size=48))
        self.assertTrue(Vnet.send(self.abuser.netns, "eth0", behind, flags=0, gso_type=0, header_bytes=0, gso_size=0, start=0, offset=0))
        self.lab.wait_until(lambda: self.segments() - before >= 1250, 5)
        self.assertEqual(self.segments() - before, 1250)
        self.lab.wait_until(lambda: self.lab.stats()["ports"][0]["egress"]["tx_packets"] - frames >= 1251, 5)
        self.assertEqual(self.lab.stats()["ports"][0]["egress"]["drops"].get("cpu_allowance_exceeded", 0), 0)

    def test_downloads_with_tiny_segments(self):
        self.suffers("downloads with tiny segments", is_the_engine_alone=False)

    def test_a_slow_receive_path_loses_its_own_packets(self):
        self.suffers("slow receive path", seconds=5)
        share = self.share_of(self.abuser)
        self.assertGreater(share["worker_time"]["frame_us"], 20)
        self.assertGreater(share["refused"].get("cpu_allowance_exceeded", 0), 100)
        self.assertEqual(self.share_of(self.quiet)["refused"], {})

    def test_floods_by_a_task_and_by_strangers(self):
        for names in (("pings to many", "a stranger's pings"), ("ACKs of no connection", "a stranger's SYNs"), ("fragments that are refused", "a scan that is refused")):
            with self.subTest(names):
                self.suffers(*names, seconds=2)

    def test_observers_and_their_filters(self):
        self.suffers("observers", "filters")
        # An admin is answered meanwhile.
        with people.abuse("observers", self.lab, self.abuser), people.abuse("filters", self.lab, self.abuser):
            time.sleep(1)
            took = []
            for _ in range(50):
                began = time.monotonic()
                self.call("status")
                took.append(time.monotonic() - began)
            print(f"    an admin's call beside them: longest {max(took) * 1000:.0f} ms", file=sys.stderr)
            self.assertLess(sorted(took)[len(took) // 2], 0.2)

    def test_the_workers_clock_goes_on_while_control_stands_still(self):
        asks = people._from_task(self.quiet, self.lab, [people._ipv4(self.quiet.address, people.DNS, 17, people._udp(5353, 53))], 800)
        self.addCleanup(asks.end)
        time.sleep(0.5)
        before = self.lab.drops(self.quiet.eni).get("linklocal_allowance_exceeded", 0)
        with ControlStopped(self.lab.engine.pid):
            time.sleep(4)
        self.assertEqual(self.lab.drops(self.quiet.eni).get("linklocal_allowance_exceeded", 0) - before, 0, "the allowance was refilled each second")

    def test_a_log_that_nobody_reads_stops_nothing(self):
        self.lab.kill_engine(signal.SIGTERM)
        reader, writer = os.pipe()
        self.addCleanup(os.close, reader)
        command = ["ip", "netns", "exec", self.lab.instance, self.lab.binaries["trunklined"], "--config", self.lab.config_path]
        engine = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=writer, stderr=writer, start_new_session=True)
        os.close(writer)
        self.addCleanup(lambda: engine.poll() is None and engine.kill())
        self.assertTrue(self.lab.wait_until(self.lab.answers, 20))
        for _ in range(8000):
            self.lab.rpc("task.detach", {"task": "eni-00000099"})
        self.assertTrue(self.lab.answers())
        self.assertTrue(self.lab.ping(self.lab.client, self.quiet.address))
        self.assertGreater(self.call("status")["control"]["log_lines_dropped"], 0)
        engine.send_signal(signal.SIGTERM)
        self.assertEqual(engine.wait(10), 0)


if __name__ == "__main__":
    main()
