"""Digests of many files: here for a few, over the cluster for many."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa

from medray.engine.data.numbers import tasks
from medray.engine.job.progress import Progress
from medray.shards.manifest import sha256
from medray.shards.store import Store

LITTLE_BYTES = 1 << 30  # hashed in a second or two
_THREADS = 8
_CPUS, _RETRIES = 0.5, 3


def digests(out: Store, names: Sequence[str]) -> dict[str, str]:
    """Name below ``out`` → SHA-256. Raises OSError."""
    sizes = [info.size or 0 for info in out.filesystem.get_file_info([out.path(name) for name in names])]
    if sum(sizes) <= LITTLE_BYTES:
        with ThreadPoolExecutor(_THREADS) as pool:
            return dict(zip(names, pool.map(lambda name: sha256(out, name), names), strict=True))
    progress = Progress("digests of shards", len(names), "files")
    found: dict[str, str] = {}
    for batch in tasks(len(names), _digest_of(out, names), _CPUS, _RETRIES).iter_batches(
        batch_size=None, batch_format="pyarrow"
    ):
        assert isinstance(batch, pa.Table)
        found |= dict(zip(batch["name"].to_pylist(), batch["sha256"].to_pylist(), strict=True))
        progress.add(len(batch))
    progress.close()
    return found


def _digest_of(out: Store, names: Sequence[str]) -> Callable[[int], pa.Table]:
    return lambda number: pa.table({"name": [names[number]], "sha256": [sha256(out, names[number])]})
