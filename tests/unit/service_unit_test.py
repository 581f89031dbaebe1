#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""packaging/trunklined.service: systemd reads it without a complaint, it runs no command whose failure would be tried again, and the
engine that it starts leaves with 2 where a second start would not help (RestartPreventExitStatus) and with another code where it may.

    service_unit_test.py TRUNKLINED
"""
import fcntl
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
UNIT = ROOT / "packaging" / "trunklined.service"
ENGINE = None


def settings(text):
    """{key: [values]}, sections left out: no key stands in two of them."""
    found = {}
    for line in text.splitlines():
        if match := re.match(r"^(\w+)=(.*)$", line):
            found.setdefault(match[1], []).append(match[2])
    return found


class Unit(unittest.TestCase):
    def setUp(self):
        self.text = UNIT.read_text()
        self.settings = settings(self.text)

    def test_systemd_reads_it(self):
        with tempfile.TemporaryDirectory() as folder:
            program = pathlib.Path(folder, "trunklined")
            program.write_text("#!/bin/sh\n")
            program.chmod(0o755)
            for text, sound in ((self.text, True), (self.text.replace("WatchdogSec=30", "WatchdogSec=soon"), False)):
                unit = pathlib.Path(folder, "trunklined.service")
                unit.write_text(text.replace("/usr/local/bin/trunklined", str(program)))
                got = subprocess.run(["systemd-analyze", "verify", "--man=no", unit], capture_output=True, text=True, timeout=60)
                said = [line for line in got.stderr.splitlines() if "trunklined.service" in line]
                self.assertEqual(not said, sound, said)

    def test_only_the_main_process_can_fail_a_start(self):
        # systemd compares RestartPreventExitStatus with the main process's code alone (systemd.service(5)).
        for key in ("ExecStartPre", "ExecCondition", "ExecStartPost"):
            self.assertNotIn(key, self.settings)
        self.assertEqual(self.settings["ExecStart"], ["/usr/local/bin/trunklined --config /etc/trunkline/trunklined.json"])
        self.assertEqual((self.settings["Restart"], self.settings["RestartPreventExitStatus"]), (["on-failure"], ["2"]))
        self.assertEqual(self.settings["StartLimitIntervalSec"], ["0"], "what is missing at boot may come after five tries")
        self.assertGreaterEqual(float(self.settings["RestartSec"][0]), 1)

    def test_it_is_told_that_it_lives(self):
        self.assertEqual((self.settings["Type"], self.settings["WatchdogSec"]), (["notify"], ["30"]))
        main = (ROOT / "control" / "main.cpp").read_text()
        for word in ("READY=1", "WATCHDOG=1", "STOPPING=1"):
            self.assertIn(word, main)

    def test_it_waits_for_hugepages(self):
        after = " ".join(self.settings["After"]).split()
        for unit in ("systemd-sysctl.service", "systemd-modules-load.service", "dev-hugepages.mount"):
            self.assertIn(unit, after)


class ExitCodes(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.path = os.path.join(self.folder.name, "trunklined.json")

    def config(self, **changes):
        config = {"version": 1, "trunk": {"device": "net_null0", "mtu": 1500}, "state_dir": self.folder.name + "/state",
                  "eal": {"main_lcore": 0, "worker_lcores": [1], "memory_mb": 64, "hugepages": True},
                  "buffers": {"count": 1024, "data_room_bytes": 2176}, "control": {"socket": self.folder.name + "/socket"}}
        for key, value in changes.items():
            config[key] = {**config[key], **value} if isinstance(config.get(key), dict) and isinstance(value, dict) else value
        return config

    def run_engine(self, *words):
        # The environment of a unit, without its notify socket.
        environment = {key: value for key, value in os.environ.items() if key != "NOTIFY_SOCKET"}
        return subprocess.run([ENGINE, *words], capture_output=True, text=True, timeout=60, env=environment)

    def leaves_with(self, code, content, says):
        if content is not None:
            with open(self.path, "w") as file:
                file.write(content if isinstance(content, str) else json.dumps(content))
        got = self.run_engine("--config", self.path)
        self.assertEqual(got.returncode, code, got.stderr)
        self.assertIn(says, got.stderr)
        return got

    def test_a_config_that_is_wrong(self):
        wrong = [("", "problem(s)"), ("{", "problem(s)"), ("[]", "problem(s)"), ("\0\1", "problem(s)"), ('{"version":1}', "problem(s)"),
                 ('{"version":1,"version":1}', "problem(s)"), ({**self.config(), "version": 2}, "problem(s)"),
                 ({**self.config(), "nonsense": 1}, "/nonsense"), (self.config(trunk={"mtu": 70000}), "/trunk/mtu"),
                 (self.config(trunk={"device": 5}), "/trunk/device"), (self.config(eal={"worker_lcores": [0]}), "/eal"),
                 (self.config(eal={"worker_lcores": []}), "/eal"), (self.config(buffers={"count": -1}), "/buffers/count"),
                 (self.config(conntrack={"icmp_timeout_s": "30"}), "/conntrack"), (self.config(state_dir=""), "/state_dir")]
        for content, says in wrong:
            with self.subTest(config=content):
                self.leaves_with(2, content, says)

    def test_a_config_that_cannot_be_read(self):
        got = self.run_engine("--config", self.path)
        self.assertEqual(got.returncode, 2, got.stderr)
        self.assertIn("cannot read the config file", got.stderr)
        self.assertEqual(self.run_engine("--config", self.folder.name).returncode, 2, "a folder")

    def test_a_command_line_that_is_wrong(self):
        for words in (["--nonsense"], ["--config"], ["stray"]):
            self.assertEqual(self.run_engine(*words).returncode, 2, words)

    def test_a_config_for_another_machine(self):
        self.leaves_with(2, self.config(eal={"worker_lcores": [127]}), "this machine has")
        self.leaves_with(2, self.config(buffers={"count": 1048576}), "raise eal.memory_mb")

    def test_what_may_be_otherwise_later(self):
        os.mkdir(self.folder.name + "/state")
        with open(self.folder.name + "/state/lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            self.leaves_with(1, self.config(), "another engine")
        self.leaves_with(1, self.config(eal={"memory_mb": 1048576}), "not enough hugepages")
        with open(self.folder.name + "/file", "w"):
            pass
        self.leaves_with(1, self.config(state_dir=self.folder.name + "/file/state"), self.folder.name)

    def test_the_check_says_the_same(self):
        with open(self.path, "w") as file:
            json.dump(self.config(), file)
        self.assertEqual(self.run_engine("--check-config", "--config", self.path).returncode, 0)
        with open(self.path, "w") as file:
            json.dump(self.config(trunk={"mtu": 70000}), file)
        self.assertEqual(self.run_engine("--check-config", "--config", self.path).returncode, 2)


if __name__ == "__main__":
    ENGINE = sys.argv.pop(1)
    unittest.main()
