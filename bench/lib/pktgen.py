# SPDX-License-Identifier: BSD-3-Clause
"""Runs bench/pktgen/*.lua with a pktgen that is there; says how to point at one where none is."""
import os
import pathlib
import shutil

from .processes import BenchError
from .results import BENCH

NONE = """there is no pktgen on the PATH, and Debian has none.
  Build Pktgen-DPDK 23.03 with -Denable_lua=true against DPDK 22.11, and then either put `pktgen` on the PATH or say where it is:
      TRUNKLINE_PKTGEN=/path/to/pktgen ./dev bench pktgen {script} EAL-ARGUMENTS -- PKTGEN-ARGUMENTS
  e.g.  ./dev bench pktgen {script} -l 0-2 --vdev net_memif0,... --vdev net_memif1,... -- -P -m "1.0,2.1"
  Without pktgen, ./dev bench peers measures with Trunkline's own generator."""


def find():
    """The program's path, or None."""
    named = os.environ.get("TRUNKLINE_PKTGEN")
    if named:
        if not os.access(named, os.X_OK):
            raise BenchError(f"TRUNKLINE_PKTGEN is {named}, which is no program")
        return named
    return shutil.which("pktgen")


def command(program, script, rest):
    """`rest`: EAL arguments, "--", pktgen's own; the script comes last."""
    path = BENCH / "pktgen" / f"{script}.lua"
    if not path.exists() or script in ("search", "traffic"):
        scripts = sorted(p.stem for p in (BENCH / "pktgen").glob("*.lua") if p.stem not in ("search", "traffic"))
        raise BenchError(f"there is no script {script}: {', '.join(scripts)}")
    if "--" not in rest:
        rest = [*rest, "--"]
    return [program, *rest, "-f", str(path)]


def run(options):
    script = options.script
    rest = options.rest[1:] if options.rest[:1] == ["--"] and "--" in options.rest[1:] else options.rest
    program = find()
    words = command(program or "pktgen", script, rest)
    if program is None:
        raise BenchError(NONE.format(script=script))
    os.environ.setdefault("RESULT", str(pathlib.Path(options.results) / "pktgen.jsonl"))
    print("bench: pktgen sets the MTU of its ports as it starts: a port whose driver refuses that stops it there.\n"
          f"bench: {' '.join(words)}\nbench: results go to {os.environ['RESULT']}", flush=True)
    # It draws on a terminal and reads keys: it gets ours.
    os.execv(program, words)
