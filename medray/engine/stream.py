"""Batches of examples out of shards, read and augmented by Ray Data tasks on CPU workers."""

from __future__ import annotations

import functools
import pickle
import threading
from collections.abc import Generator, Iterator
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import ray
import ray.data

from medray.engine.cluster import Resources, quiet_data
from medray.engine.numbers import tasks
from medray.engine.samples import EvaluationPlan, Rows, TrainingPlan
from medray.engine.share import share_cluster
from medray.shards.store import Store
from medray.task import Task

Batch = dict[str, Any]

RETRIES = 10
"""Of a reading task whose process died: a node that goes takes its tasks along, and they begin again elsewhere."""


def stream(task: Task, plan: TrainingPlan | EvaluationPlan, resources: Resources) -> Generator[Batch]:
    """Batches of numpy arrays in the planned order.

    One Ray Data row is one unit of the plan; the task that gets it reads, decodes, augments and yields small batches,
    so that decoded row groups never travel through the object store. Batches do not span units.

    Args:
        resources: of the run that the batches are for; it says how many others read at the same time.
    """
    units = plan.units()
    if not units:
        return
    quiet_data()
    data = tasks(len(units), _Reader(task, ray.put(plan), units), resources.data_cpus, RETRIES)
    share_cluster(data, resources)
    blocks: Any = data.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=4)
    for block in blocks:
        for batch in block["batch"]:
            yield pickle.loads(batch.as_buffer())


class _Reader:
    def __init__(self, task: Task, plan: ray.ObjectRef, units: list[tuple[int, int]]) -> None:
        self.task, self.plan, self.units = task, plan, units

    def __call__(self, number: int) -> Iterator[pa.Table]:
        cv2.setNumThreads(1)  # there are as many readers as cores
        for ready in read_unit(self.task, ray.get(self.plan), self.units[number]):
            yield _opaque(ready)


def _opaque(batch: Batch) -> pa.Table:
    """One row with the whole batch: columns of arrays would have to be of one shape in all batches. Copied once."""
    data = pickle.dumps(batch, protocol=5)
    ends = pa.py_buffer(np.array([0, len(data)], np.int64))
    return pa.table({"batch": pa.LargeBinaryArray.from_buffers(pa.large_binary(), 1, [None, ends, pa.py_buffer(data)])})


def read_unit(task: Task, plan: TrainingPlan | EvaluationPlan, unit: tuple[int, int]) -> Iterator[Batch]:
    """The batches of one unit, in this process; of training by the task as it is in the unit's epoch."""
    if isinstance(plan, TrainingPlan):
        task = task.in_epoch(unit[0])
    places, numbers = plan.samples(*unit)
    examples = []
    rows = read_rows(plan.rows, places, list(task.columns), task.context, task.stack_column)
    for row, number in zip(rows, numbers, strict=True):
        if isinstance(plan, TrainingPlan):
            examples.append(task.train_example(row, np.random.default_rng((plan.seed, unit[0], int(number)))))
        else:
            examples.append(task.example(row))
        if len(examples) == plan.local_batch:
            yield task.collate(examples)
            examples = []
    if examples:
        yield task.collate(examples)


def read_rows(
    rows: Rows, places: np.ndarray, columns: list[str], context: int = 0, stack_column: str = ""
) -> Iterator[dict[str, Any]]:
    """Rows in the order of ``places``; each row group is read once.

    Args:
        context: how many rows before and after each one, of its own stack, come with it as ``row["context"]``, itself
            in the middle. Beyond an end of the stack the last row stands again.
        stack_column: rows that share it are one stack.
    """
    wanted = list(zip(rows.file[places].tolist(), rows.group[places].tolist(), rows.row[places].tolist(), strict=True))
    tables: dict[tuple[int, int], pa.Table] = {}
    needed = [_with_context(rows, spot, context) for spot in wanted]
    last_use = {(file, group): i for i, spots in enumerate(needed) for file, group, _ in spots}

    def read(spot: tuple[int, int, int]) -> dict[str, Any]:
        file, group, row = spot
        if (file, group) not in tables:
            tables[file, group] = _opened(rows.store, rows.files[file]).read_row_group(group, columns=columns)
        return {name: tables[file, group].column(name)[row].as_py() for name in columns}

    for i, (spot, around) in enumerate(zip(wanted, needed, strict=True)):
        found = read(spot)
        if context:
            near = [found if s == spot else read(s) for s in around]
            found["context"] = in_stack(near, around.index(spot), context, stack_column)
        yield found
        for place in {(file, group) for file, group, _ in around}:
            if last_use[place] == i:
                tables.pop(place, None)


def in_stack(rows: list[dict[str, Any]], middle: int, context: int, stack_column: str) -> list[dict[str, Any]]:
    """2 · context + 1 rows around ``rows[middle]``; at an end of its stack the last one repeats."""
    out = [rows[middle]]
    for step in (-1, 1):
        at = middle
        for _ in range(context):
            inside = 0 <= at + step < len(rows) and rows[at + step][stack_column] == rows[middle][stack_column]
            at += step if inside else 0
            out.insert(0 if step < 0 else len(out), rows[at])
    return out


def _with_context(rows: Rows, spot: tuple[int, int, int], context: int) -> list[tuple[int, int, int]]:
    """The spot with up to ``context`` rows of the file before and after it."""
    if not context:
        return [spot]
    file, group, row = spot
    starts = _row_group_starts(rows.store, rows.files[file])
    at = int(starts[group]) + row
    near = np.arange(max(0, at - context), min(int(starts[-1]), at + context + 1))
    groups = np.searchsorted(starts, near, side="right") - 1
    return [(file, int(g), int(n - starts[g])) for g, n in zip(groups, near, strict=True)]


@functools.lru_cache(maxsize=32)
def _row_group_starts(store: Store, name: str) -> np.ndarray:
    metadata = _opened(store, name).metadata
    return np.cumsum([0] + [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)])


def _opened(store: Store, name: str) -> pq.ParquetFile:
    return _kept_open(store, name, threading.get_ident())


@functools.lru_cache(maxsize=64)
def _kept_open(store: Store, name: str, thread: int) -> pq.ParquetFile:
    """Footers are kept: one of them holds the places of a thousand rows. A reader belongs to one thread."""
    return pq.ParquetFile(store.filesystem.open_input_file(store.path(name)))
