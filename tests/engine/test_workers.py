"""Two real Ray Train workers: DDP, and a worker that is killed; slices, and crops of volumes. Local mode has neither."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
import psutil
import pyarrow as pa
import pytest
from lesion_scans import scan_row

from medray.engine.data.prepare import Ingest
from medray.engine.data.samples import Shards, read_index
from medray.engine.job.options import Options
from medray.engine.nodes.cluster import Resources
from medray.engine.train.fit import fit
from medray.engine.train.run import Run
from medray.engine.train.sweep import CrossValidation, Strata
from medray.shards.store import Store
from medray.systems.ich.system import strata
from medray.systems.ich.task import SliceTask
from medray.systems.lesion import recipes
from medray.systems.lesion.source import BrainMR
from medray.systems.lesion.system import strata as bands_of_load
from medray.tasks.task import Task

pytestmark = pytest.mark.slow
TWO = Resources(workers=2, gpu=False, side_by_side=1, threads=1, cpus_per_worker=0.5, data_cpus=0.5)


@dataclass
class Learning:
    task: Task
    shards: Ingest | Shards
    strata: Strata

    def run_in(self, folder: Path) -> Run:
        folds = CrossValidation(Store(folder), (0,), Options(out=str(folder), folds=3), TWO, self.strata)
        return folds.runs("model", replace(self.task, epochs=4), self.shards)[0]


@pytest.fixture(scope="module")
def slices(prepared: Ingest, tiny_task: SliceTask) -> Learning:
    return Learning(tiny_task, prepared, strata)


@pytest.fixture(scope="module")
def volumes(local_ray: None, tmp_path_factory: pytest.TempPathFactory) -> Learning:
    """Twelve scans of six patients, a row group each, in three files."""
    store = Store(tmp_path_factory.mktemp("volumes"))
    for start in range(0, 12, 4):
        rows = [scan_row(number, (20, 22, 24)) for number in range(start, start + 4)]
        store.write_table(f"{start}.parquet", pa.Table.from_pylist(rows, BrainMR.shard_schema), row_group_size=1)
    rows, index = read_index(store, ["scan_id", "patient_id", "lesion_ml"])
    index["fold"] = index["patient_id"].str.removeprefix("patient").astype(int) % 3
    moved = {"rotation_deg": 15.0, "noise": 0.05, "flip_axes": ("D", "W"), "resampled_share": 0.5}
    task = replace(recipes.phantom(), patch_DHW=(12, 12, 12), width=4, levels=2, steps_per_epoch=24, **moved)
    return Learning(task, Shards(rows, index), bands_of_load)


@pytest.fixture(scope="module", params=["slices", "volumes"])
def undisturbed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Learning, Run]:
    learning: Learning = request.getfixturevalue(request.param)
    run = learning.run_in(tmp_path_factory.mktemp("two"))
    fit([run])
    return learning, run


def test_two_workers_predict_every_held_out_row_once(undisturbed: tuple[Learning, Run]) -> None:
    learning, run = undisturbed
    assert sorted(run.predictions()[learning.task.id_column]) == sorted(run.held_out_ids)
    assert [e["epoch"] for e in run.history()] == [1, 2, 3, 4]


def test_a_killed_worker_changes_nothing(undisturbed: tuple[Learning, Run], tmp_path: Path) -> None:
    learning, expected = undisturbed
    run = learning.run_in(tmp_path)
    killed: list[int] = []
    thread = threading.Thread(target=killing_one_of, args=(run, killed.append))
    thread.start()
    fit([run])
    thread.join()
    assert killed
    pd.testing.assert_frame_equal(run.predictions(), expected.predictions(), check_exact=True)
    assert [e["metrics"] for e in run.history()] == [e["metrics"] for e in expected.history()]


def killing_one_of(run: Run, killed: Callable[[int], None]) -> None:
    """A worker, after the first epoch."""
    while not run.history():
        time.sleep(0.05)
    for process in psutil.Process().children(recursive=True):  # no other cluster's, nor a user's
        if "RayTrainWorker" in " ".join(process.cmdline()):
            process.kill()
            killed(process.pid)
            return
