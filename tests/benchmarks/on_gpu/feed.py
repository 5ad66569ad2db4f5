"""Do the cores keep the GPU busy? Reading alone, Ray's stream alone, and both with the step."""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import os
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from medray.engine.data.samples import Rows, TrainingPlan, read_index
from medray.engine.train.device import on_device
from medray.engine.train.layout import laid_out
from medray.engine.train.step import Trainer
from medray.shards.store import Store
from on_gpu.material import device_of, slice_task, slices

MODELS = (("resnext101_32x8d", 480, 64), ("efficientnet_b3", 300, 64))
EACH_S = 12.0


def shards(folder: Path, dry: bool) -> Rows:
    """Slices of 512 × 512 under three windows, as they lie in the shards of a job: 8 different ones, over and over."""
    count, side_px = (64, 48) if dry else (2048, 512)
    pictures = slices(8, side_px)
    for first in range(0, count, count // 4):
        rows = [pictures[i % 8] | {"slice_id": f"s{i}"} for i in range(first, first + count // 4)]
        pq.write_table(
            pa.Table.from_pylist(rows), folder / f"{first:06d}.parquet", compression="zstd", compression_level=1,
            row_group_size=16,
        )  # fmt: skip
    return read_index(Store(folder), ["slice_id"])[0]


def models(dry: bool) -> Iterator[tuple[str, Any]]:
    for backbone, size_px, batch_size in (("test_resnet", 32, 4),) if dry else MODELS:
        yield f"{backbone}@{size_px}", slice_task(backbone, size_px, batch_size)


def read(task: Any, plan: TrainingPlan, numbers: list[int], until: float) -> int:
    """Images that one process reads and augments until a moment of the clock."""
    from medray.engine.data.rows import read_unit

    units, seen = plan.units(), 0
    for number in numbers:
        for batch in read_unit(task, plan, units[number % len(units)]):
            seen += len(batch["image"])
            if time.time() > until:
                return seen
    return seen


def readers(dry: bool, until: float) -> dict[str, Any]:
    """Plain processes with the reading function: what the cores can do."""
    found, seconds = {}, 1.0 if dry else EACH_S / 2
    count = 2 if dry else max(1, min(15, len(os.sched_getaffinity(0)) - 1))
    with tempfile.TemporaryDirectory() as folder:
        rows = shards(Path(folder), dry)
        with ProcessPoolExecutor(count, mp_context=multiprocessing.get_context("spawn")) as pool:
            for name, task in models(dry):
                plan = TrainingPlan(rows, task.batch_size, 100, seed=0)
                for _ in range(2):  # imports
                    end = time.time() + seconds
                    parts = [pool.submit(read, task, plan, list(range(i, 10_000, count)), end) for i in range(count)]
                    found[name] = round(sum(part.result() for part in parts) / seconds, 1)
    return {"processes": count, **found}


def stream_and_step(dry: bool, until: float) -> dict[str, Any]:
    """Ray's stream alone, then with the step behind it, against the step on ready batches."""
    import ray

    from medray.engine.data.stream import stream
    from medray.engine.nodes.cluster import connect, spread
    from on_gpu.table import engine

    torch.backends.cudnn.benchmark = True
    found: dict[str, Any] = {}
    device, seconds = device_of(dry), 1.0 if dry else EACH_S
    connect()
    resources = spread(1, None if dry else 1, not dry)
    with tempfile.TemporaryDirectory() as folder:
        rows = shards(Path(folder), dry)
        for name, task in models(dry):
            plan = TrainingPlan(rows, task.batch_size, 1000, seed=0)
            with contextlib.closing(stream(task, plan, resources)) as alone:
                found[name] = {"stream": rate(alone, task.batch_size, seconds)}
            step = engine(dry, task)["images_per_s"]
            trainer = Trainer(task, laid_out(task.network().to(device), "channels-last"), device)
            trainer.train()
            with contextlib.closing(on_device(stream(task, plan, resources), device, task.host)) as batches:
                steps = (trainer.step(batch, 0, number, 10_000) for number, batch in enumerate(batches))
                both = rate(steps, task.batch_size, seconds)
            trainer.check()
            found[name] |= {"step": step, "end_to_end": both, "share": round(both / step, 3)}
            del trainer
            if time.monotonic() > until:
                break
    ray.shutdown()
    return found


def rate(items: Iterator[Any], images: int, seconds: float) -> float:
    """Images per second once the first ten batches have come."""
    for _ in itertools.islice(items, 10):
        pass
    started, count = time.perf_counter(), 0
    for item in items:
        if isinstance(item, torch.Tensor) and item.is_cuda and count % 8 == 0:
            item.item()  # the host gets not more steps ahead than a run would be
        count += 1
        if time.perf_counter() - started > seconds:
            break
    return round(count * images / (time.perf_counter() - started), 1)


PARTS = {"readers": readers, "stream and step": stream_and_step}
SECONDS = {"readers": 45.0, "stream and step": 100.0}
