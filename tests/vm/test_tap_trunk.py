#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
"""Steering on a trunk that is a tap of several queues: this kernel has the flower filters that net_tap makes of rules."""
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from guest import main  # noqa: E402
import test_steering  # noqa: E402


class TestTapTrunk(test_steering.TestTapTrunk):
    def setUp(self):
        super().setUp()
        self.assertTrue(self.flower, "this kernel has flower")


if __name__ == "__main__":
    main("tc", "ping")
