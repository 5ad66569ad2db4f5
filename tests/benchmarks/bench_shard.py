"""Sharding by Ray on all cores against the same function on one core, and the peak of memory as files grow.

    python tests/benchmarks/bench_shard.py --dicom FOLDER_WITH_SLICES [--slices 1000 4000]

The slices are hard links to the files of FOLDER, so that the disk is not what is measured. Prints two tables.
"""

from __future__ import annotations

import itertools
import os
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pyarrow as pa
import tyro

from medray.engine import shard
from medray.engine.cluster import connect
from medray.ich.classes import CLASSES
from medray.ich.inventory import assemble
from medray.ich.source import HeadCT
from medray.shards.store import Store

ROWS_PER_SHARD = 128


@dataclass
class Flags:
    dicom: Path
    slices: tuple[int, ...] = (1000, 4000)


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
    rows = []
    for number, path in zip(range(count), itertools.cycle(files), strict=False):
        link = links / f"{number:06d}.dcm"
        if not link.exists():
            try:
                os.link(path, link)
            except OSError:  # another disk
                link.symlink_to(path)
        with path.open("rb") as stream:
            (header,) = source.scan(stream)
        rows.append(header | {"path": str(link), "size_bytes": path.stat().st_size, "status": "ok", "reason": None})
        rows[-1]["item_id"] = f"{number:06d}"
    slices = assemble(pd.DataFrame(rows), None).rows
    slices[list(CLASSES)] = 0.0
    return slices.assign(private_path=slices["path"], stack_key=slices["item_id"])


def one_core(source: HeadCT, slices: pd.DataFrame, to: Store) -> float:
    """Slices per second of the very function that the tasks run, in this process."""
    import ray

    part = pa.Table.from_pandas(slices, preserve_index=False)
    kept = [c for c in source.shard_schema.names if c in slices]
    writer = shard._Writer(source, Store(to.root), to, ["one.parquet"], [ray.put(part)], kept)
    started = time.perf_counter()
    writer({"id": np.array([0])})
    return len(slices) / (time.perf_counter() - started)


def main(flags: Flags) -> None:
    source = HeadCT()
    connect()
    cores = os.cpu_count() or 1
    with tempfile.TemporaryDirectory() as name:
        links = Path(name) / "links"
        links.mkdir()
        single = []
        print("| slices | seconds | Ray, slices/s | one core, slices/s | Ray / (cores × one core) | peak memory, MB |")
        print("|---|---|---|---|---|---|")
        shard.write(source, Store("/"), table_of(source, flags.dicom, 256, links), Store(f"{name}/warm"), 64, 0)
        for count in flags.slices:
            slices = table_of(source, flags.dicom, count, links)
            single.append(one_core(source, slices.iloc[:256], Store(f"{name}/one{count}")))
            with Peak() as peak:
                started = time.perf_counter()
                shard.write(source, Store("/"), slices, Store(f"{name}/{count}"), ROWS_PER_SHARD, 0)
                seconds = time.perf_counter() - started
            single.append(one_core(source, slices.iloc[:256], Store(f"{name}/one{count}")))
            alone = float(np.median(single))
            rate = count / seconds
            print(
                f"| {count} | {seconds:.1f} | {rate:.0f} | {alone:.0f} | {rate / cores / alone:.2f} | {peak.peak_mb:.0f} |",
                flush=True,
            )


if __name__ == "__main__":
    main(tyro.cli(Flags))
