"""Runs on a cluster of several nodes that is disturbed: what came out, beside an undisturbed run.

The cluster is Ray's own for tests, of processes on this machine: a head without CPUs, as cluster.yaml has it, and nodes of
one CPU, so that each worker of a run is on a node of its own. A node's processes are killed at once, as when a spot
instance goes. It has its own port, folder and token, and ends by the ids of its processes.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import psutil
from ray._private.services import get_node_ip_address
from ray_processes import MARK, free_port, other_ray, processes

from medray.imaging.phantom import PhantomSet

ROOT = Path(__file__).resolve().parents[1]


def measured_by(driver: str, folder: Path, timeout: float = 290) -> dict[str, Any]:
    """The JSON that ``driver``, a program that starts a Ray of its own in ``folder``, prints last."""
    with cluster_environment() as environment:
        environment["RAY_raylet_start_wait_time_s"] = "120"
        environment.pop("RAY_ADDRESS")
        done = subprocess.run(
            [sys.executable, "-c", driver, str(folder)],
            env=environment, capture_output=True, text=True, timeout=timeout, check=False,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    measured: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return measured


@dataclass(frozen=True)
class Survived:
    """What the cases of one driver left and noted."""

    folder: Path
    notes: dict[str, dict[str, Any]]
    log: str

    def predictions(self, name: str) -> pd.DataFrame:
        return pd.read_parquet(self.run(name) / "predictions.parquet")

    def history(self, name: str) -> list[dict[str, Any]]:
        return list(json.loads((self.run(name) / "history.json").read_text()))

    def run(self, name: str) -> Path:
        return self.folder / name / "runs" / "model" / "fold0"

    def partial_files(self, name: str) -> list[Path]:
        """Hidden files, as unfinished ones are; Ray Train's own folder has a marker of that kind."""
        return [p for p in (self.folder / name).rglob(".*") if p.is_file() and "train" not in p.parts]

    def assert_equal_to_the_bit(self, name: str, to: str = "undisturbed") -> None:
        """Predictions, and the metrics of each epoch, each once."""
        pd.testing.assert_frame_equal(self.predictions(name), self.predictions(to), check_exact=True)
        once, again = self.history(to), self.history(name)
        assert [e["epoch"] for e in again] == list(range(1, len(once) + 1))
        assert [e["metrics"] for e in again] == [e["metrics"] for e in once]


@contextmanager
def cluster_environment() -> Iterator[dict[str, str]]:
    """For a process that starts a cluster of ``nodes_driver.Nodes``, and for all that belongs to it: it ends with this."""
    mark = uuid.uuid4().hex
    sessions = Path(tempfile.mkdtemp(prefix="ray-sv-", dir="/tmp"))  # short: sockets lie below it
    try:
        yield other_ray() | {
            MARK: mark,
            "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}",
            "RAY_ADDRESS": f"{get_node_ip_address()}:{free_port()}",  # also for what Ray's own actors ask, head included
            "RAY_TMPDIR": str(sessions),  # no other `ray.init()` on this machine shall find this cluster
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": uuid.uuid4().hex,
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_health_check_initial_delay_ms": "1000",
            "RAY_health_check_period_ms": "500",
            "RAY_health_check_timeout_ms": "2000",
            "RAY_health_check_failure_threshold": "5",
        }
    finally:
        for _ in range(3):
            for process in processes(mark):
                process.kill()
        psutil.wait_procs(processes(mark), timeout=10)
        shutil.rmtree(sessions, ignore_errors=True)


@contextmanager
def disturbed(phantoms: PhantomSet, folder: Path, timeout: float, **settings: Any) -> Iterator[Survived]:
    """Run the cases of ``nodes_driver``; the cluster is gone when this ends."""
    given = {"dicom": str(phantoms.dicom), "labels": str(phantoms.folder / "labels.csv"), "folder": str(folder)}
    words = [sys.executable, str(ROOT / "tests" / "nodes_driver.py"), json.dumps(given | settings)]
    with cluster_environment() as environment:
        done = subprocess.run(
            words, env=environment, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            timeout=timeout, check=False,
        )  # fmt: skip
    assert done.returncode == 0, done.stdout[-9000:]
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"run"')]
    print(*({k: v for k, v in line.items() if k != "ids"} for line in lines), sep="\n")
    yield Survived(folder, {line["run"]: line for line in lines}, done.stdout)
