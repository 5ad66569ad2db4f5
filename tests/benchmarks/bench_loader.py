"""The training step fed from the shards by Ray Data, against the same step fed with ready batches, and with a DataLoader's.

    python tests/benchmarks/bench_loader.py --dicom FOLDER_WITH_SLICES                                # two CPU cores
    python tests/benchmarks/bench_loader.py --dicom FOLDER_WITH_SLICES --gpu --backbone resnext101_32x8d --batch-size 64

One worker, which is this process, on a Ray of its own with all cores. On a GPU the ratio says whether the CPUs keep up. On
CPUs reading and training share the cores: what the ready batches do not pay for is the reading itself, so that the
DataLoader, with the same plan and the same reading function, is what to compare with.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import tempfile
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from bench_ingest import SIZE_PX, plan, with_loader
from bench_shard import ROWS_PER_SHARD, table_of
from bench_step import engine_of, task_of

from medray.engine import shard
from medray.engine.cluster import connect, spread
from medray.engine.loop import Worker
from medray.engine.stream import stream
from medray.ich.source import HeadCT
from medray.shards.store import Store


@dataclass
class Flags:
    dicom: Path
    slices: int = 1600
    """Hard links to the files of --dicom; shards hold three windows at their own size."""
    backbone: str = "resnet18"
    batch_size: int = 32
    steps: int = 40
    """Measured in each round, after ten of a start."""
    rounds: int = 3
    """Of the three in turn."""
    gpu: bool = False


def main(flags: Flags) -> None:
    connect()
    resources = spread(1, 1 if flags.gpu else None, flags.gpu)
    with tempfile.TemporaryDirectory() as folder:
        links, shards = Path(folder) / "links", f"{folder}/shards"
        links.mkdir()
        slices = table_of(HeadCT(), flags.dicom, flags.slices, links)
        shard.write(HeadCT(), Store("/"), slices, Store(shards), ROWS_PER_SHARD, 0)
        engine = engine_of(
            task_of(flags.backbone, SIZE_PX, flags.batch_size), flags.gpu, resources.threads, f"{folder}/run"
        )

        def with_ray() -> Generator[dict[str, Any]]:
            yield from stream(*plan(shards, flags.batch_size), resources.data_cpus)

        with contextlib.closing(with_ray()) as first:
            ready = list(itertools.islice(first, 4))
        feeds: dict[str, Callable[[], Generator[dict[str, Any]]]] = {
            "ready": lambda: (batch for batch in itertools.cycle(ready)),
            "ray": with_ray,
            "loader": lambda: with_loader(shards, flags.batch_size),
        }
        rates: dict[str, list[float]] = {name: [] for name in feeds}
        for _ in range(flags.rounds):
            for name, feed in feeds.items():
                with contextlib.closing(feed()) as batches:
                    train(engine, batches, 10)
                    seconds = train(engine, batches, flags.steps)
                rates[name].append(flags.steps * flags.batch_size / seconds)
    device = torch.cuda.get_device_name() if flags.gpu else f"{os.cpu_count()} CPU cores"
    print(
        f"{flags.backbone}, {SIZE_PX} px, batch {flags.batch_size}, {device}, {resources.data_cpus:g} CPUs a reading task\n"
    )
    print("| fed by | images/s | of the rate with ready batches |\n|---|---|---|")
    for name, title in (("ready", "ready batches"), ("ray", "Ray Data"), ("loader", "DataLoader")):
        ratios = np.divide(rates[name], rates["ready"])
        print(
            f"| {title} | {np.median(rates[name]):.1f} | {np.median(ratios):.3f} ({ratios.min():.3f}–{ratios.max():.3f}) |"
        )


def train(engine: Worker, batches: Iterator[dict[str, Any]], steps: int) -> float:
    """Seconds of so many steps."""
    started = time.perf_counter()
    engine.step, engine.sums = 0, {}
    engine._train_epoch(batches, steps)
    if engine.device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


if __name__ == "__main__":
    main(tyro.cli(Flags))
