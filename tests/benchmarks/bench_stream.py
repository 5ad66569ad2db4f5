"""Batches out of shards at several sizes: readers at once and images per second, beside a torch DataLoader.

    python tests/benchmarks/bench_stream.py                                # this machine's cores, one H100's batch
    python tests/benchmarks/bench_stream.py --sizes-px 480 --cpus 8        # eight readers by name, on fewer cores

Shards of random slices are made first. "joined" is the stream as Ray Data has it when left alone, under the limit of 512 MB
that it once had: batches joined to blocks of 128 MiB. All three read with the same function and nothing is trained.
"""

from __future__ import annotations

import itertools
import os
import pickle
import tempfile
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

import medray.engine  # noqa: F401  # sets what Ray reads when it is imported

# isort: split
import ray
import ray.data
import tyro
from torch.utils.data import DataLoader

from medray.engine.data.numbers import tasks
from medray.engine.data.rows import read_unit
from medray.engine.data.samples import TrainingPlan, read_index
from medray.engine.data.stream import _Reader, stream
from medray.engine.nodes.cluster import Resources, quiet_data
from medray.shards.store import Store
from medray.systems.ich.classes import CLASSES
from medray.systems.ich.source import HeadCT
from medray.systems.ich.task import SliceTask
from medray.tasks.task import Example

WARM_BATCHES = 10
_began: list[float] = []  # of this process: when it began the batch that it reads


@dataclass
class Flags:
    sizes_px: tuple[int, ...] = (224, 300, 480, 512)
    batch: int = 64
    batches: int = 60
    """Measured in each round, after the first 10."""
    rounds: int = 2
    cpus: int = os.cpu_count() or 1
    """That Ray counts, and DataLoader workers."""
    slices: int = 2048
    store_gb: float = 3.0
    """Object store. With 16 cores and 128 GB of memory Ray takes 38."""


@dataclass(frozen=True, kw_only=True)
class Noted(SliceTask):
    notes: str

    def train_example(self, row: Mapping[str, Any], rng: np.random.Generator) -> Example:
        _began.extend([] if _began else [time.time()])
        return super().train_example(row, rng)

    def collate(self, examples: list[Example]) -> dict[str, Any]:
        batch = super().collate(examples)
        with open(Path(self.notes) / str(os.getpid()), "a") as notes:
            notes.write(f"{_began.pop()} {time.time()}\n")
        return batch


def write_shards(folder: Path, slices: int, side_px: int = 512) -> None:
    """Noise, smoothed by repetition: as a head CT it takes about a fifth of its size under Zstandard."""
    schema, rng = HeadCT().shard_schema, np.random.default_rng(0)
    for part in range(0, slices, 256):
        rows = []
        for i in range(part, part + 256):
            image = np.kron(
                rng.integers(0, 256, (side_px // 8, side_px // 8, 3), np.uint8), np.ones((8, 8, 1), np.uint8)
            )
            known = {n: f"{n}{i:06d}" for n in schema.names if pa.types.is_string(schema.field(n).type)}
            known |= {"rows": side_px, "columns": side_px, "image": image.tobytes()} | dict.fromkeys(CLASSES, 0)
            rows.append({n: known.get(n) for n in schema.names})
        nullable = pa.schema([field.with_nullable(True) for field in schema])
        table = pa.Table.from_pylist(rows, schema=nullable)
        Store(folder).write_table(f"part-{part:06d}.parquet", table, row_group_size=32, compression_level=1)


def joined(task: Noted, plan: TrainingPlan) -> Iterator[dict[str, Any]]:
    units = plan.units()
    data = tasks(len(units), _Reader(task, ray.put(plan), units), 1.0, 1)
    data.context.execution_options.resource_limits = ray.data.ExecutionResources.for_limits(object_store_memory=512e6)
    blocks: Any = data.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=4)
    for block in blocks:
        for batch in block["batch"]:
            yield pickle.loads(batch.as_buffer())


class Windows:
    """A torch Dataset whose item is a window of batches."""

    def __init__(self, task: Noted, plan: TrainingPlan) -> None:
        self.task, self.plan, self.units = task, plan, plan.units()

    def __len__(self) -> int:
        return len(self.units)

    def __getitem__(self, number: int) -> list[dict[str, Any]]:
        return list(read_unit(self.task, self.plan, self.units[number]))


def loader(task: Noted, plan: TrainingPlan, cpus: int) -> Iterator[dict[str, Any]]:
    data: Any = Windows(task, plan)
    # a process that was forked beside Ray's threads may wait for ever for a lock that one of them held
    batches = DataLoader(data, batch_size=None, num_workers=cpus, prefetch_factor=2, multiprocessing_context="spawn")
    yield from itertools.chain.from_iterable(batches)


def measured(
    open_stream: Callable[[Noted], Iterator[dict[str, Any]]], flags: Flags, size_px: int
) -> tuple[float, float]:
    """Images per second, and readers at once."""
    with tempfile.TemporaryDirectory() as notes:
        batches = open_stream(Noted(pretrained=False, size_px=size_px, batch_size=flags.batch, notes=notes))
        for _ in range(WARM_BATCHES):
            next(batches)
        began, wall = time.time(), time.perf_counter()
        for batch in itertools.islice(batches, flags.batches):
            batch["image"].max()
        ended, seconds = time.time(), time.perf_counter() - wall
        if isinstance(batches, Generator):
            batches.close()
        spans = np.concatenate([np.loadtxt(path, ndmin=2) for path in Path(notes).iterdir()]).clip(began, ended)
    return flags.batches * flags.batch / seconds, float((spans[:, 1] - spans[:, 0]).sum() / (ended - began))


def main(flags: Flags) -> None:
    store = int(flags.store_gb * 1e9)
    ray.init(num_cpus=flags.cpus, object_store_memory=store, include_dashboard=False, logging_level="ERROR")
    quiet_data()
    # as `spread` gives it to one run with a GPU, on a machine with a core more
    resources = Resources(0, True, 1, 1, 0.0, 0.5)
    print(
        f"{flags.cpus} CPUs, batches of {flags.batch}, object store of {flags.store_gb:g} GB; images/s (readers at once)"
    )
    print("| px | joined | stream | DataLoader | stream / joined | stream / DataLoader |\n|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        write_shards(Path(folder), flags.slices)
        rows, _ = read_index(Store(folder), ["slice_id"])
        plan = TrainingPlan(rows, flags.batch, 1000, seed=0)
        ways: dict[str, Callable[[Noted], Iterator[dict[str, Any]]]] = {
            "joined": lambda task: joined(task, plan),
            "stream": lambda task: stream(task, plan, resources),
            "DataLoader": lambda task: loader(task, plan, flags.cpus),
        }
        for size_px in flags.sizes_px:
            found: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
            for _, name in itertools.product(range(flags.rounds), ways):
                found[name].append(measured(ways[name], flags, size_px))
            rate, at_once = ({n: float(np.median([v[i] for v in f])) for n, f in found.items()} for i in (0, 1))
            cells = [f"{rate[name]:.0f} ({at_once[name]:.1f})" for name in ways]
            ratios = [f"{rate['stream'] / rate[other]:.2f}" for other in ("joined", "DataLoader")]
            print("| " + " | ".join([str(size_px), *cells, *ratios]) + " |", flush=True)
    ray.shutdown()


if __name__ == "__main__":
    main(tyro.cli(Flags))
