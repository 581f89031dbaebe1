# SPDX-License-Identifier: BSD-3-Clause
"""Saying how far it is: one line that is written over on a terminal, a line each elsewhere. On stderr."""
import sys
import time


class Progress:
    def __init__(self, stream=sys.stderr):
        self.stream, self.began, self.is_open = stream, time.monotonic(), False
        self.is_terminal = stream.isatty()

    def _clock(self):
        seconds = int(time.monotonic() - self.began)
        return f"{seconds // 60:3d}:{seconds % 60:02d}"

    def say(self, text):
        """What stays."""
        self._clear()
        print(f"{self._clock()}  {text}", file=self.stream, flush=True)

    def now(self, text):
        """What only matters while it lasts: nothing where there is no terminal."""
        if self.is_terminal:
            self._clear()
            print(f"{self._clock()}  {text}"[:118], end="", file=self.stream, flush=True)
            self.is_open = True

    def _clear(self):
        if self.is_open:
            print("\r\x1b[K", end="", file=self.stream)
            self.is_open = False


def table(rows, heading):
    """Columns as wide as they need; numbers to the right. `rows`: tuples of strings."""
    widths = [max(len(row[i]) for row in [heading, *rows]) for i in range(len(heading))]

    def text(row):
        cells = [cell.ljust(width) if i == 0 else cell.rjust(width) for i, (cell, width) in enumerate(zip(row, widths))]
        return "  ".join(cells).rstrip()

    return "\n".join([text(heading), "  ".join("-" * width for width in widths), *map(text, rows)])
