#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
"""Flow logs of real connections: what nginx and curl said to each other and what was refused, line by line, and that the sum
of all lines is what the counters say. One flow log is a bucket's folder, one a file."""
import glob
import gzip
import json
import os
import re
import signal
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from harness import PING, LabTest, group, main, tcp  # noqa: E402
from lab import Nginx, in_netns  # noqa: E402
from lab.lab import CLIENT  # noqa: E402

CLOSED = "sg-00000000000000002"
ACCOUNT, REGION = "123456789012", "us-west-2"
ROOM_S = 25  # what a test does between two flushes takes a third of it
FORMAT = " ".join("${%s}" % name for name in (
    "version", "interface-id", "srcaddr", "dstaddr", "srcport", "dstport", "protocol", "packets", "bytes", "start", "end", "action",
    "tcp-flags", "flow-direction", "traffic-path", "ecs-task-id", "log-status"))
ETHERNET = 14  # the counters' octets are those of frames, the lines' those of IP packets


class TestFlowLogs(LabTest):
    starts_engine = False

    def setUp(self):
        super().setUp()
        self.bucket = os.path.join(self.lab.directory, "bucket")
        self.stream = os.path.join(self.lab.directory, "flows.log")
        os.mkdir(self.bucket)
        self.read_to = 0
        self.lab.start_engine(self.lab.engine_config(
            identity={"account_id": ACCOUNT, "region": REGION},
            flow_logs=[{"id": "fl-00000001", "max_aggregation_interval": 60, "log_format": FORMAT,
                        "destination": {"type": "stream", "path": self.stream}},
                       {"id": "fl-00000002", "traffic_type": "REJECT", "destination": {"type": "s3", "path": self.bucket, "prefix": "flows"}}]))
        self.put_groups(group(tcp(80), PING), group(group_id=CLOSED))

    def flushed(self):
        """The lines since the last time, each as a dictionary by the names of the header."""
        self.lab.ctl("flow-log", "flush")
        return self.read_lines()

    def read_lines(self):
        with open(self.stream) as file:
            header = file.readline().split()
            self.assertEqual(header, re.findall(r"[a-z-]+", FORMAT))
            file.seek(max(self.read_to, file.tell()))
            text = file.read()
            self.read_to = file.tell()
        lines = []
        for line in text.splitlines():
            self.assertEqual(len(line.split(" ")), len(header), line)
            lines.append(dict(zip(header, line.split(" "))))
            if lines[-1]["log-status"] == "OK":
                self.assertLessEqual(int(lines[-1]["start"]), int(lines[-1]["end"]), line)
        return lines

    def settle(self, *tasks):
        """Neighbours that nobody asks for again: so the counters move by what flow logs log, and by nothing else. Then a new
        interval, and no whole minute, which would end it, in the next ROOM_S."""
        for netns in {self.lab.client, *(task.netns for task in tasks)}:
            for task in tasks:
                self.lab.ping(netns, task.address)
            if netns != self.lab.client:
                self.lab.ping(netns, CLIENT)
            for line in json.loads(subprocess.run(["ip", "-n", netns, "-j", "neigh"], capture_output=True, check=True).stdout or "[]"):
                if "lladdr" in line:
                    subprocess.run(["ip", "-n", netns, "neigh", "replace", line["dst"], "lladdr", line["lladdr"], "dev", line["dev"],
                                    "nud", "permanent"], check=True)
        time.sleep(0.3)
        self.assertTrue(self.lab.wait_until(lambda: self.lab.ctl("flow-log", "list")["flow_logs"][0]["ends_in_s"] >= ROOM_S, ROOM_S + 5))
        self.flushed()

    def since(self, before, after):
        """How a METER has moved."""
        moved = {key: after[key] - before[key] for key in ("rx_packets", "rx_bytes", "tx_packets", "tx_bytes")}
        moved["drops"] = sum(after["drops"].values()) - sum(before["drops"].values())
        return moved

    def assert_lines_are_the_counters(self, lines, before, *tasks):
        for task in tasks:
            egress, ingress = (self.since(b, a) for b, a in zip(before[task.eni], self.meters(task.eni)))
            for direction, meter in (("egress", egress), ("ingress", ingress)):
                own = [line for line in lines if line["interface-id"] == task.eni and line["flow-direction"] == direction]
                packets = {action: sum(int(line["packets"]) for line in own if line["action"] == action) for action in ("ACCEPT", "REJECT")}
                octets = {action: sum(int(line["bytes"]) for line in own if line["action"] == action) for action in ("ACCEPT", "REJECT")}
                self.assertEqual(packets, {"ACCEPT": meter["tx_packets"], "REJECT": meter["drops"]}, f"{task.eni} {direction}")
                self.assertEqual(octets["ACCEPT"], meter["tx_bytes"] - ETHERNET * meter["tx_packets"], f"{task.eni} {direction}")
                if direction == "egress":  # what comes from the trunk is counted with its tag
                    self.assertEqual(sum(octets.values()), meter["rx_bytes"] - ETHERNET * meter["rx_packets"], f"{task.eni} {direction}")

    def test_what_was_accepted_and_what_was_refused(self):
        web, closed = self.attach(1), self.attach(2, groups=[CLOSED])
        Nginx(self.lab, web.netns, "hello")
        self.settle(web, closed)
        before = {task.eni: self.meters(task.eni) for task in (web, closed)}

        for _ in range(5):
            self.assertEqual(self.lab.http_get(self.lab.client, f"http://{web.address}/")[0], 200)
        self.assertEqual(self.lab.http_get(closed.netns, f"http://{web.address}/")[0], 200)
        curl = subprocess.run(["ip", "netns", "exec", self.lab.client, "curl", "-s", "--max-time", "10", f"http://{web.address}/slow"],
                              capture_output=True, check=True)
        self.assertEqual(self.lab.tcp_probe(self.lab.client, web.address, 22), "silence")
        self.assertEqual(self.lab.tcp_probe(self.lab.client, closed.address, 80), "silence")
        self.assertEqual(self.lab.tcp_probe(web.netns, closed.address, 80), "silence")
        time.sleep(0.3)
        lines = self.flushed()

        self.assertEqual({line["log-status"] for line in lines}, {"OK"})
        self.assertEqual({line["ecs-task-id"] for line in lines}, {task.arn.rsplit("/", 1)[1] for task in (web, closed)})
        self.assertEqual({line["version"] for line in lines}, {"7"})
        self.assert_lines_are_the_counters(lines, before, web, closed)

        def of(task, direction, action, **fields):
            return [line for line in lines if (line["interface-id"], line["flow-direction"], line["action"]) == (task.eni, direction, action)
                    and all(line[key.replace("_", "-")] == value for key, value in fields.items())]
        asked = of(web, "ingress", "ACCEPT", srcaddr=CLIENT, dstport="80")
        self.assertEqual(len(asked), 6, "a line a connection")
        self.assertEqual({(line["dstaddr"], line["protocol"], line["tcp-flags"], line["traffic-path"]) for line in asked},
                         {(web.address, "6", "3", "-")})
        answered = of(web, "egress", "ACCEPT", dstaddr=CLIENT, srcport="80")
        self.assertEqual(sorted(line["srcport"] + line["dstport"] for line in answered), sorted(line["dstport"] + line["srcport"] for line in asked))
        self.assertEqual({line["tcp-flags"] for line in answered}, {"19"})
        self.assertGreater(max(int(line["bytes"]) for line in answered), len(curl.stdout))
        # Two tasks of one host: each ENI has both directions.
        self.assertEqual([len(of(closed, "egress", "ACCEPT", dstaddr=web.address, dstport="80")), len(of(web, "ingress", "ACCEPT", srcaddr=closed.address, dstport="80")),
                          len(of(web, "egress", "ACCEPT", dstaddr=closed.address, srcport="80")), len(of(closed, "ingress", "ACCEPT", srcaddr=web.address, srcport="80"))],
                         [1, 1, 1, 1])
        self.assertEqual({line["traffic-path"] for line in of(closed, "egress", "ACCEPT")}, {"1"})
        # What was refused: one SYN each, where it was refused, and nobody answered.
        refused = [line for line in lines if line["action"] == "REJECT"]
        self.assertEqual(sorted((line["interface-id"], line["flow-direction"], line["srcaddr"], line["dstport"], line["packets"], line["tcp-flags"])
                                for line in refused),
                         sorted([(web.eni, "ingress", CLIENT, "22", "1", "2"), (closed.eni, "ingress", CLIENT, "80", "1", "2"),
                                 (closed.eni, "ingress", web.address, "80", "1", "2")]))
        self.assertEqual(len(of(web, "egress", "ACCEPT", dstaddr=closed.address, dstport="80")), 1, "it left the one and did not enter the other")

        # The same three in the bucket, in objects that are whole.
        objects = glob.glob(f"{self.bucket}/**/*.log.gz", recursive=True)
        found = []
        for path in objects:
            self.assertRegex(path, rf"/bucket/flows/AWSLogs/{ACCOUNT}/vpcflowlogs/{REGION}/\d{{4}}/\d\d/\d\d/{ACCOUNT}_vpcflowlogs_{REGION}_fl-00000002_"
                                   r"\d{8}T\d{4}Z_[0-9a-f]{8}\.log\.gz$")
            with gzip.open(path, "rt") as file:
                self.assertTrue(file.readline().startswith("version account-id interface-id srcaddr "))
                found += [line.split() for line in file]
        self.assertEqual(sorted((words[2], words[3], words[6], words[8]) for words in found if words[7] == "6"),  # without the pings of settle()
                         sorted((line["interface-id"], line["srcaddr"], line["dstport"], line["packets"]) for line in refused))
        self.assertEqual(os.listdir(f"{self.bucket}/.unfinished"), [])

    def test_no_data_a_detach_and_a_stop(self):
        web, quiet = self.attach(1), self.attach(2)
        Nginx(self.lab, web.netns, "hello")
        self.settle(web, quiet)
        self.assertEqual(self.lab.http_get(self.lab.client, f"http://{web.address}/")[0], 200)
        time.sleep(0.3)
        lines = self.flushed()
        self.assertEqual([line["interface-id"] for line in lines if line["log-status"] == "NODATA"], [quiet.eni])
        self.assertEqual(len([line for line in lines if line["log-status"] == "OK"]), 2)
        # The last interval of an ENI that goes is written all the same.
        self.assertEqual(self.lab.http_get(self.lab.client, f"http://{web.address}/")[0], 200)
        time.sleep(0.3)
        self.call("task.detach", {"task": web.eni})
        said = []
        self.assertTrue(self.lab.wait_until(lambda: said.extend(self.flushed()) or sum(
            1 for line in said if line["interface-id"] == web.eni and line["log-status"] == "OK") == 2, 15), said)
        # And what was counted when the engine is stopped.
        self.assert_ping(self.lab.client, quiet.address, count=3)
        time.sleep(0.3)
        self.lab.kill_engine(signal.SIGTERM)
        last = [line for line in self.read_lines() if line["log-status"] == "OK"]
        self.assertEqual(sorted((line["flow-direction"], line["packets"], line["srcport"], line["protocol"]) for line in last),
                         [("egress", "3", "0", "1"), ("ingress", "3", "0", "1")])

    def test_a_fifo_without_a_reader_and_a_full_disk_stop_nobody(self):
        web = self.attach(1)
        Nginx(self.lab, web.netns, "hello")
        os.rename(self.stream, self.stream + ".1") if os.path.exists(self.stream) else None
        os.mkfifo(self.stream)
        os.rename(self.bucket, self.bucket + ".gone")
        self.assertEqual(self.lab.http_get(self.lab.client, f"http://{web.address}/")[0], 200)
        done = self.lab.trunkctl("flow-log", "flush", "--timeout", "1")
        self.assertEqual(done.returncode, 4)
        self.assertIn("nobody reads the FIFO", done.stderr)
        self.assertIn("No such file or directory", done.stderr)
        self.assertEqual(self.lab.http_get(self.lab.client, f"http://{web.address}/")[0], 200)
        status = self.lab.ctl("status")["flow_logs"]
        self.assertGreater(status["write_errors"], 0)
        self.assertEqual(len(status["trouble"]), 2)
        # The next interval ends, and what waited is given up.
        self.assertEqual(self.lab.trunkctl("flow-log", "flush", "--timeout", "1").returncode, 4)
        os.rename(self.bucket + ".gone", self.bucket)
        reader = in_netns(self.lab.client, lambda: os.open(self.stream, os.O_RDONLY | os.O_NONBLOCK))
        self.addCleanup(os.close, reader)
        self.lab.ctl("flow-log", "flush")
        text = b""
        while self.lab.ctl("flow-log", "list")["flow_logs"][0]["lines_waiting"]:
            time.sleep(0.1)
        text = os.read(reader, 1 << 20).decode()
        self.assertTrue(text.startswith("version interface-id "), text)
        self.assertIn("SKIPDATA", text, "what nobody read in time")
        self.assertEqual(self.lab.ctl("status")["flow_logs"]["trouble"], [])


if __name__ == "__main__":
    main("nginx", "curl")
