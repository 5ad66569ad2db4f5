"""Progress as lines: as readable in the log of a submitted job as in a terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from datetime import timedelta

_SECONDS_BETWEEN = 5.0


def say(text: str = "") -> None:
    print(text, flush=True)


def warn(text: str) -> None:
    print(f"! {text}", file=sys.stderr, flush=True)


def say_all(lines: Iterable[str]) -> None:
    """Lines for a terminal; those that begin with "! " are warnings."""
    for line in lines:
        (warn if line.startswith("!") else say)(line.removeprefix("! "))


class Progress:
    """``shards  1,024/3,600 slices  210/s  0:00:12 left``, at most every few seconds and once at the end."""

    def __init__(self, name: str, total: int, unit: str, done: int = 0) -> None:
        self.name, self.total, self.unit = name, total, unit
        self.done, self.first = done, done
        self.start = self.last = time.monotonic()

    def add(self, count: int) -> None:
        self.done += count
        now = time.monotonic()
        if now - self.last >= _SECONDS_BETWEEN and self.done < self.total:
            self.last = now
            rate = (self.done - self.first) / max(1e-9, now - self.start)
            left = timedelta(seconds=round((self.total - self.done) / max(1e-9, rate)))
            say(f"  {self.name}  {self.done:,}/{self.total:,} {self.unit}  {_shown(rate)}/s  {left} left")

    def close(self, more: str = "") -> None:
        seconds = time.monotonic() - self.start
        rate = (self.done - self.first) / max(1e-9, seconds)
        say(f"  {self.name}  {self.done:,} {self.unit} in {seconds:.0f} s ({_shown(rate)}/s){more}")


def _shown(rate: float) -> str:
    return f"{rate:,.0f}" if rate >= 10 else f"{rate:.2g}"
