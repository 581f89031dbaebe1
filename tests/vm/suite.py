#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
"""The tests of this folder in one process, since Python takes seconds to start in the guest: those that fit into three minutes, with --all the
rest too, or those that are named (test_vhost.TestVhost.test_beside_a_tap)."""
import glob
import importlib
import os
import sys
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from guest import main  # noqa: E402

# Before every delivery, but not in every run: each has a fellow that runs always, or shows what the host's own kernel shows.
everything = "--all" in sys.argv
WHEN_ALL = ("test_many", "test_pci.TestUio", "test_pci.TestVmxnet3", "test_tap_trunk")
MODULES = sorted(os.path.basename(path).removesuffix(".py") for path in glob.glob(os.path.join(os.path.dirname(os.path.abspath(__file__)), "test_*.py")))
for name in MODULES:
    globals()[name] = importlib.import_module(name)


def load_tests(loader, _tests, _pattern):
    suite = unittest.TestSuite()
    for name in MODULES:
        module = globals()[name]
        for each in vars(module).values():
            if isinstance(each, type) and issubclass(each, unittest.TestCase) and each.__module__ == name:
                if everything or not any(f"{name}.{each.__name__}".startswith(later) for later in WHEN_ALL):
                    suite.addTests(loader.loadTestsFromTestCase(each))
    return suite


if __name__ == "__main__":
    sys.argv = [word for word in sys.argv if word != "--all"]
    main("ethtool", "iperf3", "nginx", "setpriv", "useradd", "tc")
