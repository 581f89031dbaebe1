#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
"""vm.py believes only a guest that says its exit code: other programs in QEMU's place, without a guest."""
import contextlib
import io
import os
import sys
import tempfile
import unittest

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import vm  # noqa: E402


class TestRun(unittest.TestCase):
    def run_machine(self, script, seconds=10):
        """(exit code, what was shown)"""
        with tempfile.TemporaryDirectory() as directory, contextlib.redirect_stdout(io.StringIO()) as shown:
            try:
                code = vm.run(["sh", "-c", script], directory, seconds)
            finally:
                with open(os.path.join(directory, "output.log")) as file:
                    self.log = file.read()
        return code, shown.getvalue()

    def test_exit_code_of_the_command(self):
        for code in (0, 1, 77):
            self.assertEqual(self.run_machine(f"echo words; echo 'trunkline-vm: exit {code}'"), (code, "words\n"))

    def test_ends_without_a_result(self):
        for script in ("echo words", "exit 0", "printf 'trunkline-vm: exit 0'", "echo ' trunkline-vm: exit 0'; kill -9 $$"):
            with self.subTest(script), self.assertRaisesRegex(vm.VmError, "without a result"):
                self.run_machine(script)

    def test_hangs(self):
        with self.assertRaisesRegex(vm.VmError, "not done within 0.3 s"):
            self.run_machine("echo words; exec sleep 20", 0.3)
        self.assertEqual(self.log, "words\n")

    def test_hangs_after_its_result(self):
        with self.assertRaisesRegex(vm.VmError, "not done within"):
            self.run_machine("echo 'trunkline-vm: exit 0'; exec sleep 20", 0.3)

    def test_talks_for_ever(self):
        with self.assertRaisesRegex(vm.VmError, "not done within"):
            self.run_machine("while echo words; do sleep 0.01; done", 0.5)


class TestComplaints(unittest.TestCase):
    def complains(self, line):
        with contextlib.redirect_stdout(io.StringIO()) as shown:
            found = vm.complains(["before\n", line + "\n", "after\n"], "console.log")
        self.assertEqual("after" in shown.getvalue(), found)
        return found

    def test_what_fails_a_run(self):
        for line in ("[   96.1] refcount_t: underflow; use-after-free.", "[   96.2] WARNING: CPU: 1 PID: 0 at lib/refcount.c:28 refcount_warn_saturate",
                     "[    7.3] BUG: kernel NULL pointer dereference, address: 0000000000000008", "[    7.3] Oops: 0002 [#1] PREEMPT SMP"):
            self.assertTrue(self.complains(line), line)

    def test_slowness_does_not(self):
        for line in ("[   60.0] watchdog: BUG: soft lockup - CPU#1 stuck for 22s! [trunklined:300]", "[   60.0] rcu: INFO: rcu_preempt self-detected stall on CPU",
                     "[    5.4] FS-Cache: Loaded"):
            self.assertFalse(self.complains(line), line)


class TestInitramfs(unittest.TestCase):
    def test_archive_as_the_kernel_wants_it(self):
        archive = vm.Archive()
        archive.add("a", b"12345", 0o100755)
        whole = archive.finished()
        self.assertEqual(whole[:6], b"070701")
        self.assertEqual(len(whole) % 4, 0)
        self.assertEqual(whole[110:112], b"a\0")
        self.assertEqual(whole[112:117], b"12345")  # 110 of header and 2 of name need no padding
        self.assertEqual(whole[120:126], b"070701")
        self.assertIn(b"TRAILER!!!\0", whole)


if __name__ == "__main__":
    unittest.main()
