"""One file at a time in a process that may die."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

from medray.imaging.types import Unreadable
from medray.shards import alone
from medray.shards.alone import Alone


@pytest.fixture(autouse=True)
def _child_finds_this_module(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    monkeypatch.setitem(sys.modules, "test_alone", sys.modules[__name__])
    for function in (square, refuse, dies, dies_once, waits, takes_all):
        monkeypatch.setattr(function, "__module__", "test_alone")


def square(number: int) -> int:
    return number * number


def refuse() -> None:
    raise ValueError("no image")


def dies() -> None:
    os.abort()


def dies_once(marker: str) -> int:
    if os.path.exists(marker):
        return 1
    Path(marker).touch()
    os.abort()


def waits() -> None:
    time.sleep(600)


def takes_all() -> int:
    return len(bytearray(1 << 45))


def test_what_dies_twice_is_named_and_the_next_goes_on(tmp_path: Path) -> None:
    with Alone() as process:
        assert process.run(square, 3) == 9
        with pytest.raises(Unreadable, match="died of it, twice"):
            process.run(dies)
        assert process.run(square, 4) == 16
        assert process.run(dies_once, str(tmp_path / "marker")) == 1
        with pytest.raises(ValueError, match="no image"):
            process.run(refuse)
        with pytest.raises(Unreadable, match="takes more than .* MB of memory"):
            process.run(takes_all)
        assert process.run(square, 5) == 25


def test_what_takes_for_ever_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    with Alone() as process:
        assert process.run(square, 3) == 9
        monkeypatch.setattr(alone, "SECONDS", 1.0)
        with pytest.raises(Unreadable, match="took more than 1 seconds"):
            process.run(waits)
        monkeypatch.setattr(alone, "SECONDS", 60.0)
        assert process.run(square, 4) == 16
