"""Batches of examples out of shards, read and augmented by Ray Data tasks on CPU workers."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import ray
import ray.data

from medray.engine.cluster import quiet_data
from medray.engine.collate import collate
from medray.engine.samples import EvaluationPlan, Rows, TrainingPlan
from medray.shards.store import Store
from medray.task import Task

Batch = dict[str, Any]


def stream(task: Task, plan: TrainingPlan | EvaluationPlan, data_cpus: float) -> Iterator[Batch]:
    """Batches of numpy arrays in the planned order.

    One Ray Data row is one unit of the plan; the task that gets it reads, decodes, augments and yields small batches,
    so that whole decoded blocks never travel through the object store. Batches do not span units.
    """
    units = plan.units()
    if not units:
        return
    quiet_data()
    reader: Any = _Reader(task, ray.put(plan), units)
    data = ray.data.range(len(units), override_num_blocks=len(units))
    data = data.map_batches(reader, batch_size=1, num_cpus=data_cpus)
    batches: Any = data.iter_batches(batch_size=plan.local_batch, batch_format="numpy", prefetch_batches=4)
    yield from batches


class _Reader:
    def __init__(self, task: Task, plan: ray.ObjectRef, units: list[tuple[int, int]]) -> None:
        self.task, self.plan, self.units = task, plan, units

    def __call__(self, batch: dict[str, np.ndarray]) -> Iterator[Batch]:
        plan = ray.get(self.plan)
        for number in batch["id"]:
            yield from read_unit(self.task, plan, self.units[int(number)])


def read_unit(task: Task, plan: TrainingPlan | EvaluationPlan, unit: tuple[int, int]) -> Iterator[Batch]:
    """The batches of one unit, in this process."""
    places, numbers = plan.samples(*unit)
    examples = []
    for row, number in zip(read_rows(plan.rows, places, list(task.columns)), numbers, strict=True):
        if isinstance(plan, TrainingPlan):
            examples.append(task.train_example(row, np.random.default_rng((plan.seed, unit[0], int(number)))))
        else:
            examples.append(task.example(row))
        if len(examples) == plan.local_batch:
            yield collate(examples)
            examples = []
    if examples:
        yield collate(examples)


def read_rows(rows: Rows, places: np.ndarray, columns: list[str]) -> Iterator[dict[str, Any]]:
    """Rows in the order of ``places``; each row group is read once."""
    wanted = list(zip(rows.file[places].tolist(), rows.group[places].tolist(), rows.row[places].tolist(), strict=True))
    tables: dict[tuple[int, int], pa.Table] = {}
    last_use = {(file, group): i for i, (file, group, _) in enumerate(wanted)}
    for i, (file, group, row) in enumerate(wanted):
        if (file, group) not in tables:
            tables[file, group] = _opened(rows.store, rows.files[file]).read_row_group(group, columns=columns)
        yield {name: tables[file, group].column(name)[row].as_py() for name in columns}
        if last_use[file, group] == i:
            del tables[file, group]


@functools.lru_cache(maxsize=32)
def _opened(store: Store, name: str) -> pq.ParquetFile:
    """Footers are kept: one of them holds the places of a thousand rows."""
    return pq.ParquetFile(store.filesystem.open_input_file(store.path(name)))
