"""Sharding by Ray Data against a pool of plain processes that call the same function, and the peak of memory as files grow.

    python tests/benchmarks/bench_shard.py --dicom FOLDER_WITH_SLICES [--slices 1000 20000] [--rounds 3]

The slices are hard links to the files of FOLDER, so that the disk is not what is measured. Both write the same Parquet
files. Ray Data's rate is also given without the time before its first file is written (its workers start and import). Memory
is sampled in one further run, since sampling costs time.
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
import shutil
import statistics
import tempfile
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import pandas as pd
import psutil
import tyro

from medray.engine.data import shard
from medray.engine.nodes.cluster import connect
from medray.shards.files import texts_of
from medray.shards.part import Parts
from medray.shards.store import Store
from medray.systems.ich.classes import CLASSES
from medray.systems.ich.inventory import assemble
from medray.systems.ich.source import HeadCT

ROWS_PER_SHARD = 1024


@dataclass
class Flags:
    dicom: Path
    slices: tuple[int, ...] = (1000, 20000)
    rounds: int = 3
    """Of pool and Ray Data in turn; the table has the medians."""
    memory: bool = True
    """Also run Ray Data once more to sample the peak of memory."""


class Peak:
    """The peak of the memory of this process and all below it, shared pages counted once (PSS), sampled."""

    def __enter__(self) -> Peak:
        self.peak_mb, self._stop = 0.0, threading.Event()
        self._thread = threading.Thread(target=self._sample)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._stop.wait(1.0):
            family = [psutil.Process(), *psutil.Process().children(recursive=True)]
            total = 0
            for process in family:
                try:
                    total += process.memory_full_info().pss
                except psutil.Error:
                    continue
            self.peak_mb = max(self.peak_mb, total / 1e6)


def table_of(source: HeadCT, folder: Path, count: int, links: Path) -> pd.DataFrame:
    """``count`` slices: links to the files of ``folder``, as shard.write wants them."""
    files = sorted(p for p in folder.iterdir() if p.suffix == ".dcm")
    headers = {}
    for path in files:
        with path.open("rb") as stream:
            (headers[path],) = source.scan(stream)
    rows = []
    for number, path in zip(range(count), itertools.cycle(files), strict=False):
        link = links / f"{number:06d}.dcm"
        if not link.exists():
            try:
                os.link(path, link)
            except OSError:  # another disk
                link.symlink_to(path)
        rows.append(headers[path] | {"path": str(link), "size_bytes": 1, "status": "ok", "reason": None})
        rows[-1]["item_id"] = f"{number:06d}"
    slices = assemble(pd.DataFrame(rows), None).rows
    slices[list(CLASSES)] = 0.0
    return slices.assign(input="", private_files=texts_of(slices), about_bytes=150_000, stack_key=slices["item_id"])


def _part(parts: Parts, name: str, rows: list[dict]) -> int:
    cv2.setNumThreads(1)
    return len(parts.write(name, rows))


def by_pool(pool: ProcessPoolExecutor, source: HeadCT, slices: pd.DataFrame, to: Store) -> float:
    """Seconds of a warm pool of as many processes as there are cores."""
    kept = [c for c in source.shard_schema.names if c in slices]
    parts = Parts(source, {"": Store("/")}, to, kept)
    chunks = [slices.iloc[i : i + ROWS_PER_SHARD] for i in range(0, len(slices), ROWS_PER_SHARD)]
    started = time.perf_counter()
    jobs = [pool.submit(_part, parts, f"{i}.parquet", chunk.to_dict("records")) for i, chunk in enumerate(chunks)]
    assert sum(job.result() for job in jobs) == len(slices)
    return time.perf_counter() - started


def by_ray(source: HeadCT, slices: pd.DataFrame, to: Store) -> tuple[float, float]:
    """Seconds in all, and from the first file to the last."""
    started = time.perf_counter()
    written = shard.write(source, {"": Store("/")}, slices, to, ROWS_PER_SHARD, 0)
    seconds = time.perf_counter() - started
    assert written["written"].sum() == len(slices)
    times = sorted(path.stat().st_mtime for path in Path(to.root).iterdir())
    cores = os.cpu_count() or 1
    steady = (times[-1] - times[cores - 1]) * len(times) / max(1, len(times) - cores)
    return seconds, steady


def main(flags: Flags) -> None:
    source, cores = HeadCT(), os.cpu_count() or 1
    connect()
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as name, ProcessPoolExecutor(cores, mp_context=context) as pool:
        links = Path(name) / "links"
        links.mkdir()
        warm = table_of(source, flags.dicom, 2 * cores * ROWS_PER_SHARD, links)
        by_pool(pool, source, warm, Store(f"{name}/warm-pool"))
        by_ray(source, warm, Store(f"{name}/warm-ray"))
        print("| slices | pool, slices/s | Ray Data | once it runs | Ray Data / pool | once it runs | memory, MB |")
        print("|---|---|---|---|---|---|---|")
        for count in flags.slices:
            slices = table_of(source, flags.dicom, count, links)
            rows = []
            for i in range(flags.rounds):
                pooled = by_pool(pool, source, slices, Store(f"{name}/pool{i}"))
                whole, steady = by_ray(source, slices, Store(f"{name}/ray{i}"))
                rows.append((count / pooled, count / whole, count / steady, pooled / whole, pooled / steady))
                for made in ("pool", "ray"):
                    shutil.rmtree(f"{name}/{made}{i}")
            peak = Peak()
            if flags.memory:
                with peak:
                    by_ray(source, slices, Store(f"{name}/memory"))
                shutil.rmtree(f"{name}/memory")
            pool_rate, rate, steady_rate, ratio, steady_ratio = (statistics.median(c) for c in zip(*rows, strict=True))
            print(
                f"| {count} | {pool_rate:.0f} | {rate:.0f} | {steady_rate:.0f} | {ratio:.2f} | {steady_ratio:.2f} | "
                f"{peak.peak_mb if flags.memory else float('nan'):.0f} |",
                flush=True,
            )


if __name__ == "__main__":
    main(tyro.cli(Flags))
