"""Batches of examples out of shards, read and augmented by Ray Data tasks on CPU workers."""

from __future__ import annotations

import contextlib
import pickle
from collections.abc import Generator, Iterator

import cv2
import numpy as np
import pyarrow as pa
import ray
import ray.data

from medray.engine.data.numbers import tasks
from medray.engine.data.rows import Batch, read_unit
from medray.engine.data.samples import EvaluationPlan, TrainingPlan
from medray.engine.data.share import SharedStream
from medray.engine.nodes.cluster import Resources, quiet_data
from medray.tasks.task import Task

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
    with contextlib.closing(SharedStream(data, resources)) as shared:
        for block in shared.blocks:
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
