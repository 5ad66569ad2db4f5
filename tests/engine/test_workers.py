"""Two real Ray Train workers: DDP, and a worker that is killed. Local mode has neither."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from pathlib import Path

import pandas as pd
import psutil
import pytest

from medray.engine.data.prepare import Ingest
from medray.engine.job.options import Options
from medray.engine.nodes.cluster import Resources
from medray.engine.train.fit import fit
from medray.engine.train.run import Run
from medray.engine.train.sweep import CrossValidation
from medray.shards.store import Store
from medray.systems.ich.system import strata
from medray.systems.ich.task import SliceTask

pytestmark = pytest.mark.slow
TWO = Resources(workers=2, gpu=False, side_by_side=1, threads=1, cpus_per_worker=0.5, data_cpus=0.5)


def run_in(folder: Path, prepared: Ingest, task: SliceTask) -> Run:
    options = Options(out=str(folder), folds=3)
    task = replace(task, epochs=4)
    return CrossValidation(Store(folder), (0,), options, TWO, strata).runs("model", task, prepared)[0]


@pytest.fixture(scope="module")
def undisturbed(prepared: Ingest, tiny_task: SliceTask, tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = run_in(tmp_path_factory.mktemp("two"), prepared, tiny_task)
    fit([run])
    return run


def test_two_workers_predict_every_held_out_slice_once(undisturbed: Run) -> None:
    assert sorted(undisturbed.predictions()["slice_id"]) == sorted(undisturbed.held_out_ids)
    assert [e["epoch"] for e in undisturbed.history()] == [1, 2, 3, 4]


def test_a_killed_worker_changes_nothing(
    undisturbed: Run, prepared: Ingest, tiny_task: SliceTask, tmp_path: Path
) -> None:
    run = run_in(tmp_path, prepared, tiny_task)
    killed = []

    def kill_one() -> None:
        while not run.history():
            time.sleep(0.05)
        for process in psutil.Process().children(recursive=True):  # no other cluster's, nor a user's
            if "RayTrainWorker" in " ".join(process.cmdline()):
                process.kill()
                killed.append(process.pid)
                return

    thread = threading.Thread(target=kill_one)
    thread.start()
    fit([run])
    thread.join()
    assert killed
    pd.testing.assert_frame_equal(run.predictions(), undisturbed.predictions(), check_exact=True)
    assert [e["metrics"] for e in run.history()] == [e["metrics"] for e in undisturbed.history()]
