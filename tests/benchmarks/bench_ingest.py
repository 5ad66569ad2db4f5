"""Sharding and training ingest on 1, 2 and 4 Ray nodes of one machine, against a torch DataLoader over the same shards.

    python tests/benchmarks/bench_ingest.py --dicom FOLDER_WITH_SLICES

The DataLoader is as good as one gets: the same plan of samples, the same function that reads, decodes and augments, as
many worker processes as there are cores, whole windows of batches a request. What differs is who carries the batches. The
nodes share the machine's cores: the table says what several nodes cost, not what they bring.
"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro

import medray.engine  # noqa: F401  # sets what Ray reads when it is imported

BATCH, SIZE_PX, ROWS_PER_SHARD = 32, 224, 128


@dataclass
class Flags:
    dicom: Path
    slices: int = 1600
    """Hard links to the files of --dicom; shards hold three windows at their own size."""
    images: int = 2500
    """Measured in each round, after a start of 1,000."""
    rounds: int = 3
    """Ray and DataLoader in turn."""
    nodes: tuple[int, ...] = (1, 2, 4)
    measure: int | None = None
    """Used by the script itself: one number of nodes, in a process of its own."""
    folder: str = ""


def plan(folder: str, batch_size: int = BATCH, epochs: int = 50) -> tuple[Any, Any]:
    from medray.engine.data.samples import TrainingPlan, read_index
    from medray.shards.store import Store
    from medray.systems.ich.task import SliceTask

    rows, _ = read_index(Store(folder), ["slice_id"])
    task = SliceTask(pretrained=False, size_px=SIZE_PX, batch_size=batch_size)
    return task, TrainingPlan(rows, batch_size, epochs, seed=0)


class Windows:
    """A torch Dataset whose item is a window of batches."""

    def __init__(self, folder: str, batch_size: int) -> None:
        self.task, self.plan = plan(folder, batch_size)
        self.units = self.plan.units()

    def __len__(self) -> int:
        return len(self.units)

    def __getitem__(self, number: int) -> list[dict[str, Any]]:
        from medray.engine.data.rows import read_unit

        return list(read_unit(self.task, self.plan, self.units[number]))


def with_loader(folder: str, batch_size: int = BATCH) -> Generator[dict[str, Any]]:
    from torch.utils.data import DataLoader

    data: Any = Windows(folder, batch_size)
    loader = DataLoader(data, batch_size=None, num_workers=os.cpu_count() or 1, prefetch_factor=2)
    yield from itertools.chain.from_iterable(loader)


def with_ray(folder: str) -> Generator[dict[str, Any]]:
    from medray.engine.data.stream import stream
    from medray.engine.nodes.cluster import spread

    task, samples = plan(folder)
    yield from stream(task, samples, spread(1, None, False))  # as a job on this cluster would


def rate(open_stream: Callable[[], Generator[dict[str, Any]]], images: int) -> float:
    """Images per second in steady state; every batch is looked at, as a training step would."""
    batches, seen, started = open_stream(), 0, 0.0
    for batch in batches:
        seen += len(batch["image"])
        batch["image"].max()
        if not started and seen >= 1000:
            seen, started = 0, time.perf_counter()
        if started and seen >= images:
            break
    seconds = time.perf_counter() - started
    batches.close()
    return seen / seconds


def measure(flags: Flags, count: int) -> dict[str, list[float]]:
    """Rates on a cluster of ``count`` nodes."""
    import ray
    from bench_shard import table_of
    from ray.cluster_utils import Cluster

    cores = os.cpu_count() or 1
    of_node = {"num_cpus": max(1, cores // count), "object_store_memory": 1_000_000_000}
    cluster = Cluster(initialize_head=True, head_node_args={**of_node, "include_dashboard": False})
    for _ in range(count - 1):
        cluster.add_node(**of_node)
    ray.init(address=cluster.address, logging_level="ERROR")
    from medray.engine.data import shard
    from medray.engine.nodes.cluster import quiet_data
    from medray.shards.store import Store
    from medray.systems.ich.source import HeadCT

    quiet_data()
    source, found = HeadCT(), {"sharding": [], "ray": [], "loader": []}  # type: dict[str, list[float]]
    with tempfile.TemporaryDirectory() as links:
        slices = table_of(source, flags.dicom, flags.slices, Path(links))
        shard.write(source, {"": Store("/")}, slices.iloc[:256], Store(f"{links}/warm"), 64, 0)
        to = Store(flags.folder) if count == flags.nodes[0] else Store(f"{links}/shards")
        started = time.perf_counter()
        shard.write(source, {"": Store("/")}, slices, to, ROWS_PER_SHARD, 0)
        found["sharding"].append(len(slices) / (time.perf_counter() - started))
    for _ in range(flags.rounds):
        found["ray"].append(rate(lambda: with_ray(flags.folder), flags.images))
        found["loader"].append(rate(lambda: with_loader(flags.folder), flags.images))
    return found


def main(flags: Flags) -> None:
    if flags.measure is not None:
        found = measure(flags, flags.measure)
        print(json.dumps(found), flush=True)
        os._exit(0)  # the nodes end with the process
    with tempfile.TemporaryDirectory() as folder:
        print(
            "| nodes | sharding, slices/s | Ray Data, images/s | DataLoader, images/s | Ray / DataLoader |\n|---|---|---|---|---|"
        )
        for count in flags.nodes:
            words = [
                sys.executable,
                __file__,
                "--dicom",
                flags.dicom,
                "--slices",
                flags.slices,
                "--images",
                flags.images,
            ]
            words += ["--rounds", flags.rounds, "--nodes", *flags.nodes, "--measure", count, "--folder", folder]
            done = subprocess.run(list(map(str, words)), capture_output=True, text=True, check=False)
            if done.returncode:
                sys.exit(done.stderr[-4000:])
            found = json.loads(done.stdout.splitlines()[-1])
            ratios = np.divide(found["ray"], found["loader"])
            print(
                f"| {count} | {found['sharding'][0]:.0f} | {np.median(found['ray']):.0f} | {np.median(found['loader']):.0f} | "
                f"{np.median(ratios):.2f} ({ratios.min():.2f}–{ratios.max():.2f}) |",
                flush=True,
            )


if __name__ == "__main__":
    main(tyro.cli(Flags))
