"""Runs of age networks that sleep in place of training: what the engine starts, where and in which order, and nothing else.

As with ``medray.engine.train.fit``, a task without CPUs sees to a run, and something that holds a GPU does the work; an epoch
that has ended stands in history.json, and a run that was lost goes on after it.
"""

from __future__ import annotations

import json
import time
import uuid
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import ray

from medray.engine.data.rows import read_rows
from medray.engine.train.fit import RETRIES
from medray.engine.train.run import Run

EPOCH_SECONDS = 0.7


def see_to(notes: str) -> Any:
    """In place of ``fit._train``. Notes go to this folder, a file each time that a run is seen to or trained."""

    def seen_to(run: Run) -> None:
        if run.finished:
            return
        note(notes, run, "seen to")
        trained = ray.remote(train_asleep).options(
            num_cpus=run.resources.cpus_per_worker, num_gpus=1, max_retries=RETRIES
        )
        ray.get(trained.remote(run, notes))

    return ray.remote(seen_to)


def train_asleep(run: Run, notes: str) -> None:
    """One run on one GPU, and its answers: the true ages and an error of the model's own."""
    began = len(run.history())
    note(notes, run, "trained", after=began)
    for epoch in range(began + 1, run.last_epoch + 1):
        time.sleep(EPOCH_SECONDS)
        system = {"epoch_seconds": EPOCH_SECONDS, "images_per_s": 100.0}
        entry = {"epoch": epoch, "metrics": {"mae_months": 10.0 / epoch}, "system": system, "workers": [1]}
        run.store.write_json("history.json", [*run.history(), entry])
    columns = ["film_id", "patient_id", "sex", "age_months", "calendar_months"]
    table = pd.DataFrame(read_rows(run.held_out, np.arange(len(run.held_out)), columns))
    rng = np.random.default_rng(zlib.crc32(run.name.encode()))
    table["p_months"] = table["age_months"] + rng.normal(0, 10, len(table))
    table["sex"] = table["sex"].fillna("")
    run.results.write_table("predictions.parquet", pa.Table.from_pandas(table, preserve_index=False))
    run.results.write_json(
        "done.json", {"epoch": run.last_epoch, "rows": len(table), "weights": run.name, "metrics": {}}
    )
    note(notes, run, "ended")


def note(folder: str, run: Run, what: str, **more: Any) -> None:
    gpus = [str(gpu) for gpu in ray.get_gpu_ids()]
    found = {
        "run": run.name,
        "what": what,
        "node": ray.get_runtime_context().get_node_id(),
        "gpus": gpus,
        "at": time.time(),
    }
    (Path(folder) / f"{uuid.uuid4().hex}.json").write_text(json.dumps(found | more))


def notes_in(folder: str | Path) -> list[dict[str, Any]]:
    """In the order of time."""
    found = []
    for path in Path(folder).glob("*.json"):
        text = path.read_text()
        if text:  # not one that is just being written
            found.append(json.loads(text))
    return sorted(found, key=lambda one: one["at"])
