#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""The rules of the house, read off the sources: dependencies run config <- dataplane <- control and never back, the packet
path makes no call that it may not make, and the drop reasons of the code and of the docs are the same ones."""

import pathlib
import re
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
ROOMS = ("config", "dataplane", "control", "bench", "tests")


def sources(room):
    return [p for p in sorted((ROOT / room).rglob("*")) if p.suffix in (".h", ".cpp")]


def includes(path):
    return re.findall(r'^\s*#include\s+["<]([^">]+)[">]', path.read_text(), re.M)


class House(unittest.TestCase):
    def test_there_is_something_to_read(self):
        for room in ("config", "dataplane", "control"):
            self.assertGreater(len(sources(room)), 5, room)

    def test_arrows_never_run_back(self):
        allowed = {"config": {"config"}, "dataplane": {"dataplane"}, "control": {"config", "dataplane", "control"}}
        for room, rooms in allowed.items():
            for path in sources(room):
                for name in includes(path):
                    first = name.split("/")[0]
                    if first in ROOMS and first not in rooms:
                        self.assertEqual(room, "dataplane", f"{path} includes {name}")
                        self.assertIn(name, ("config/net.h", "config/safe_file.h", "config/log_budget.h"), f"{path} includes {name}")

    def test_dataplane_knows_no_json_no_sockets(self):
        for path in sources("dataplane"):
            for name in includes(path):
                self.assertNotRegex(name, r"nlohmann|boost|sys/socket|netlink", str(path))

    def test_config_knows_no_dpdk_and_no_threads(self):
        for path in sources("config"):
            for name in includes(path):
                self.assertNotRegex(name, r"^rte_|^thread$|^mutex$|^atomic$", str(path))

    def test_packet_path_makes_no_forbidden_call(self):
        forbidden = re.compile(r"\b(malloc|calloc|new\s+\w|std::mutex|lock_guard|printf|fprintf|std::cout|throw\s|rte_malloc|RTE_LOG|syslog)\b")
        for path in sources("dataplane/stages") + [ROOT / "dataplane/pipeline.h", ROOT / "dataplane/packet.h"]:
            for number, line in enumerate(path.read_text().splitlines(), 1):
                code = line.split("//")[0]
                self.assertIsNone(forbidden.search(code), f"{path}:{number}: {line.strip()}")

    def test_every_fixed_size_has_a_row_on_the_page_of_isolation(self):
        """What has a fixed size may be filled by one ENI: docs/isolation.md says what its share is, or that ENIs do not share it."""
        page = (ROOT / "docs/isolation.md").read_text()
        size = re.compile(r"\b(k(?:\w*(?:Capacity|Places|Slots|Quota|PerTick|PerSecond|PerSecondOfAll|Buffers|Lines|AMicro)|Most\w*|Max\w+|Least\w+|Largest\w+|"
                          r"\w*Burst\w*|\w*Bytes|Unread\w*|Part\w+|Flows|Debt|Cutting|Frame|FullTurns|FramesAtOnce))\b\s*=")
        found = 0
        for path in sources("dataplane/state") + sources("dataplane/io") + sources("control/rpc") + [ROOT / "config/log_budget.h", ROOT / "dataplane/packet.h", ROOT / "control/packet_filter.h"]:
            if path.suffix != ".h":
                continue
            for line in path.read_text().splitlines():
                if "constexpr" not in line:
                    continue
                for name in size.findall(line.split("//")[0]):
                    found += 1
                    rows = [row for row in page.splitlines() if f"`{path.name}`" in row and f"`{name}`" in row]
                    self.assertTrue(rows, f"{path.name}: {name} has no row in docs/isolation.md")
        self.assertGreater(found, 30)

    def test_every_drop_reason_is_documented_and_used(self):
        names = re.findall(r"^\s*X\((\w+),", (ROOT / "dataplane/verdict.h").read_text(), re.M)
        self.assertGreater(len(names), 20)
        page = (ROOT / "docs/packet-walk.md").read_text()
        code = "\n".join(p.read_text() for p in sources("dataplane") if p.name != "verdict.h")
        for name in names:
            self.assertIn(f"`{name}`", page, "docs/packet-walk.md lacks it")
            self.assertIn(f"DropReason::{name}", code, "nothing drops for it")

    def test_error_names_are_those_of_the_protocol_page(self):
        code = re.findall(r'ErrorCode\{"(\w+)", (?:(-\d+)|kInternal)\}', (ROOT / "control/protocol.cpp").read_text())
        rows = re.findall(r"^\| (-32\d+) \| ([^|]+) \|", (ROOT / "docs/control-protocol.md").read_text(), re.M)
        page = [(name, number) for number, names in rows for name in re.findall(r"`(\w+)`", names)]
        self.assertGreater(len(page), 20)
        self.assertEqual([(name, number or "-32603") for name, number in code], page)

    def test_every_source_says_its_licence(self):
        for room in ROOMS:
            for path in sources(room):
                self.assertIn("SPDX-License-Identifier: BSD-3-Clause", path.read_text().splitlines()[0], str(path))


if __name__ == "__main__":
    unittest.main()
