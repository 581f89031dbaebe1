# SPDX-License-Identifier: BSD-3-Clause
"""What a figure must be and aims at: bench/targets.json, held against result lines."""
import json
import re

from .results import BENCH


def load(path=BENCH / "targets.json"):
    return json.loads(path.read_text())["targets"]


def of(line, targets):
    """The target of a line, or None."""
    for target in targets:
        if re.search(target["name"], line["name"]) and target.get("peer") == line["peer"] and \
                target.get("unit", line["unit"]) == line["unit"]:
            return target
    return None


def verdict(line, target):
    """(figure, "aim" | "must" | "missed" | "absent")."""
    figure = line.get(target["field"])
    if figure is None:
        return None, "absent"

    def reaches(bound):
        return figure <= bound if target["good"] == "below" else figure >= bound

    return figure, "aim" if reaches(target["aim"]) else "must" if reaches(target["must"]) else "missed"
