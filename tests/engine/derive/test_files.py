"""New files over actors: pieces that are refused, that kill their process, that are there already."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from medray.engine.derive import files
from medray.engine.derive.files import NewFiles, cpus_each, derive_files
from medray.engine.derive.scan import LITTLE_BYTES, LITTLE_FILES, little
from medray.shards.store import File, Store
from medray.tasks.task import Task


@dataclass(frozen=True)
class Lengths:
    """The length of a text; no networks."""

    once: str = ""  # a file: the process that does not find it makes it, and dies

    @property
    def runs(self) -> Sequence[tuple[str, int, type[Task]]]:
        return []

    def read(self, piece: str, each: Callable[..., Any]) -> int:
        return sum(each(len, piece))

    def answer(self, networks: Any, piece: str, read: int, outputs_of: Any, to: Store) -> pa.Table:
        if piece == "refused":
            raise ValueError("not a text")
        if piece == "lethal" or (self.once and not os.path.exists(self.once)):
            Path(self.once or os.devnull).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if piece == "slow":
            time.sleep(2)
        to.write_bytes(f"{piece}.png", b"picture")
        return pa.table({"text": [piece], "length": [read], "reason": pa.array([None], pa.string())})

    def refused(self, piece: str, why: str) -> pa.Table:
        return pa.table({"text": [piece], "length": pa.array([None], pa.int64()), "reason": [why]})


def asked(to: Path, *texts: str, once: str = "") -> NewFiles:
    pieces = {f"piece{i}": text for i, text in enumerate(texts)}
    return NewFiles(Lengths(once), Store(to), Store(to), pieces, [1] * len(texts), "texts")


def answers(parts: Sequence[pa.Table]) -> list[tuple[Any, ...]]:
    return [tuple(row.values()) for part in parts for row in part.to_pylist()]


@pytest.mark.slow
@pytest.mark.parametrize("here", [True, False])
def test_a_piece_that_is_refused_costs_nobody_else(here: bool, local_ray: None, tmp_path: Path) -> None:
    new = asked(tmp_path, "a", "refused", "ccc")
    found = answers(derive_files(new, here))
    assert found == [("a", 1, None), ("refused", None, "not a text"), ("ccc", 3, None)]
    assert {path.name for path in tmp_path.glob("*.png")} == {"a.png", "ccc.png"}
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.parquet")}
    lost = tmp_path / "parts" / "piece2.parquet"
    lost.unlink()
    assert answers(derive_files(new, here)) == found
    assert [p for p in before if before[p] != p.stat().st_mtime_ns] == [lost]


@pytest.mark.slow
def test_a_lost_actor_is_replaced_and_a_piece_that_always_kills_is_set_aside(
    local_ray: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = answers(derive_files(asked(tmp_path / "a", "a", "bb", once=str(tmp_path / "died")), False))
    assert (tmp_path / "died").exists()
    assert found == [("a", 1, None), ("bb", 2, None)]
    found = answers(derive_files(asked(tmp_path / "b", "a", "lethal", "ccc"), False))
    assert found[0::2] == [("a", 1, None), ("ccc", 3, None)]
    assert found[1][2] == "the process that read it died of it, each time"
    assert "! piece1: the process that read it died of it, each time; set aside" in capsys.readouterr().err


def test_little_work_needs_no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert little([File("a", 500_000)] * 40)
    assert not little([File("a", 1)] * (LITTLE_FILES + 1))
    assert not little([File("a", LITTLE_BYTES + 1)])
    monkeypatch.setenv("RAY_ADDRESS", "auto")  # the GPUs are elsewhere
    assert not little([File("a", 1)])


def test_processes_share_a_node_by_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def each(cpus: float, gigabytes: int, weights: int) -> int:
        node = {"Alive": True, "Resources": {"CPU": cpus, "memory": gigabytes << 30}}
        monkeypatch.setattr(files.ray, "nodes", lambda: [node])
        return cpus_each(weights)

    assert each(16, 64, 1 << 20) == 1
    assert each(16, 64, 7 << 30) == 4  # 15 GB a process: four of them
    assert each(2, 8, 7 << 30) == 2  # one, if it fits at all


SLOW = """
import sys
sys.path.insert(0, sys.argv[2])

from pathlib import Path
from test_files import asked
from medray.engine.derive.files import derive_files

derive_files(asked(Path(sys.argv[1]), *["slow"] * 8), True)
"""


@pytest.mark.slow
def test_the_same_command_goes_on_after_its_process_was_killed(tmp_path: Path) -> None:
    command = [sys.executable, "-c", SLOW, str(tmp_path / "to"), str(Path(__file__).parent)]
    driver = subprocess.Popen(command, start_new_session=True)
    parts = tmp_path / "to" / "parts"
    began = time.monotonic()
    while len(list(parts.glob("piece*"))) < 2:
        assert time.monotonic() - began < 200
        time.sleep(0.1)
    os.killpg(driver.pid, signal.SIGKILL)
    driver.wait()

    before = {path: path.stat().st_mtime_ns for path in parts.glob("piece*")}
    assert 2 <= len(before) < 8
    subprocess.run(command, check=True, timeout=250)
    assert len(list(parts.glob("piece*"))) == 8
    assert all(path.stat().st_mtime_ns == when for path, when in before.items())
