"""Files → header table → Parquet shards, over all cores and nodes, resumable part by part."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute
import ray
import ray.data

from medray.engine.data.numbers import tasks
from medray.engine.job.progress import Progress, warn
from medray.engine.nodes.cluster import what_happened
from medray.shards.alone import Alone
from medray.shards.digest import digest
from medray.shards.part import Parts, known
from medray.shards.reading import encode_item, scan_file, set_aside
from medray.shards.source import Encoded, Source
from medray.shards.store import File, Store, reason

FILES_PER_SCAN = 64  # a Ray Data row: small enough to spread a laptop's folder over its cores
SCANS_PER_CACHE_FILE = 64
BYTES_PER_SHARD = 1 << 30
"""About, of a file: what a task that died does again, and what lies on its machine's disk on the way to object storage."""
CPUS_PER_TASK = 0.66
"""Three tasks on two cores: while one waits for a disk, a decoder or the next task, another works."""
RETRIES = 2
"""Of a task whose process died, before its files are read one by one."""

Table = dict[str, Any]


# ---------------------------------------------------------------- headers


def scan(source: Source, folder: Store, files: list[File], cache: Store) -> pd.DataFrame:
    """Read every header once.

    Args:
        folder: where the files are.
        cache: a private folder of this user's: headers hold patient identifiers. Finished parts are found there.
    Returns:
        path, size_bytes, status ("ok" or "quarantined"), reason, content (``reading.sampled``; none of what cannot be read)
        and the columns of ``source.scan_schema``; one row a file, or a row a frame.
    """
    chunks = [files[i : i + FILES_PER_SCAN] for i in range(0, len(files), FILES_PER_SCAN)]
    batches = [chunks[i : i + SCANS_PER_CACHE_FILE] for i in range(0, len(chunks), SCANS_PER_CACHE_FILE)]
    how = [type(source).__name__, source.version, [*FOUND.names, *source.scan_schema.names], source.allow_burned_in]
    names = [
        f"{digest(folder.root, how, [[(f.path, f.size_bytes) for f in c] for c in batch])}.parquet" for batch in batches
    ]
    finished = set(cache.names(".parquet"))
    progress = Progress("headers", len(files), "files")
    tables = []
    for batch, name in zip(batches, names, strict=True):
        if name in finished:
            table = cache.read_table(name)
        else:
            found = dict(_each(len(batch), _Scan(source, folder, batch), "headers"))
            table = pa.concat_tables(found[i] for i in range(len(batch)))
            cache.write_table(name, table)
        tables.append(table)
        progress.add(sum(map(len, batch)))
    progress.close()
    return pa.concat_tables(tables).to_pandas()


FOUND = pa.schema([
    ("path", pa.string()), ("size_bytes", pa.int64()), ("status", pa.string()), ("reason", pa.string()), ("content", pa.string()),
])  # fmt: skip


class _Scan:
    """Reads the headers of one chunk of files."""

    def __init__(self, source: Source, folder: Store, chunks: list[list[File]]) -> None:
        self.source, self.folder, self.chunks = source, folder, ray.put(chunks)
        self.schema = pa.schema([*FOUND, *source.scan_schema])

    def __call__(self, number: int) -> pa.Table:
        files = ray.get(self.chunks)[number]
        return self._table([row for file in files for row in scan_file(self.source, self.folder, file)])

    def one_by_one(self, number: int) -> pa.Table:
        rows: list[Table] = []
        with Alone() as alone:
            for file in ray.get(self.chunks)[number]:
                try:
                    rows += alone.run(scan_file, self.source, self.folder, file)
                except ValueError as error:
                    rows.append(set_aside(file, reason(error)))
        return self._table(rows)

    def _table(self, rows: list[Table]) -> pa.Table:
        return pa.Table.from_pylist(rows, schema=self.schema)


# ---------------------------------------------------------------- shards


def write(
    source: Source,
    folders: Mapping[str, Store],
    table: pd.DataFrame,
    to: Store,
    rows_per_shard: int,
    seed: int,
    check: Callable[[list[str]], None] = lambda names: None,
) -> pd.DataFrame:
    """Decode and write all rows of ``table`` as Parquet files of about ``rows_per_shard`` rows or
    ``BYTES_PER_SHARD`` each, whichever is less.

    Stacks are shuffled once and stay whole, in their order, within one file: later stages read a stack without a
    search. The shuffle depends on ``stack_key`` and the seed only: whoever knows both knows which is which.

    Args:
        folders: of the input files, by the name of their input.
        check: is given the names of all files, each of which tells what is in it, before anything is written or removed;
            it may raise.
        table: "input" (of ``folders``), "private_files" (``files.texts_of``), "stack_key" (the same for the rows of a stack, wherever the files lie, and not to be had from identifiers), "index" (place
            in the stack), "files_key" (of items of several files, a word that changes with them), "about_bytes" (that the row will take), and the columns of ``source.shard_schema`` that do not come from pixels.
    Raises:
        ValueError: a shard cannot be written; those that are, stay.
    Returns:
        "id" (of ``source.id_column``), note (str or None), written (bool): one row for each of ``table``. What a shard
        left out is kept in its own metadata, so that a restart knows it too.
    """
    shuffled = _shuffle(table, seed)
    starts = _starts(shuffled["stack_key"].to_numpy(), shuffled["about_bytes"].to_numpy(), rows_per_shard)
    parts = [shuffled.iloc[a:b] for a, b in itertools.pairwise(starts)]
    kept = [c for c in source.shard_schema.names if c in shuffled]
    names = [
        f"part-{i:05d}-{digest(source.identity(), p[kept].to_json(), *_named(p))}.parquet" for i, p in enumerate(parts)
    ]
    check(names)
    to.remove_unfinished()
    finished = set(to.names(".parquet"))
    for stale in finished - set(names):
        to.delete(stale)
    todo = [i for i, name in enumerate(names) if name not in finished]
    rest = sum(len(parts[i]) for i in todo)
    progress = Progress("shards", len(shuffled), f"{source.kinds()['item_id']}s", done=len(shuffled) - rest)
    results = [known(to, names[i], p[source.id_column].tolist()) for i, p in enumerate(parts) if i not in set(todo)]
    if todo:
        rows = [ray.put(pa.Table.from_pandas(parts[i], preserve_index=False)) for i in todo]
        writer = _Writer(Parts(source, folders, to, kept), [names[i] for i in todo], rows)
        for _, table in _each(len(todo), writer, "shards"):
            done = table.to_pandas()
            if len(failed := done["failed"].dropna()):
                raise ValueError(failed.iloc[0])
            results.append(done.drop(columns="failed"))
            progress.add(len(done))
    progress.close()
    return pd.concat(results, ignore_index=True) if results else pd.DataFrame(columns=["id", "note", "written"])


def _starts(stack_key: np.ndarray, about_bytes: np.ndarray, rows_per_shard: int) -> list[int]:
    """Where parts begin, and the end: at the first stack from each ``rows_per_shard``-th row on, and within such a part at
    each stack with which it would be larger than ``BYTES_PER_SHARD``."""
    count = len(stack_key)
    stacks = np.append(np.flatnonzero(~pd.Series(stack_key).duplicated().to_numpy()), count)
    wanted = np.arange(0, count + rows_per_shard, rows_per_shard).clip(max=count)
    by_rows = set(stacks[np.searchsorted(stacks, wanted)].tolist())
    starts: list[int] = []
    held = 0.0
    for start, stop in itertools.pairwise(stacks.tolist()):
        size = float(about_bytes[start:stop].sum())
        if start in by_rows or held + size > BYTES_PER_SHARD:
            starts.append(start)
            held = 0.0
        held += size
    return [*starts, count]


def _named(part: pd.DataFrame) -> list[list[str]]:
    """What tells the files of each item: a mask that was added or changed makes the part anew. Nothing for items of one file."""
    return [part["files_key"].tolist()] if "files_key" in part else []


def _shuffle(table: pd.DataFrame, seed: int) -> pd.DataFrame:
    ordered = table.sort_values(["stack_key", "index"], kind="stable")
    keys = ordered["stack_key"].unique()
    place = pd.Series(np.random.default_rng(seed).permutation(len(keys)), index=keys)
    return ordered.iloc[np.argsort(place[ordered["stack_key"]].to_numpy(), kind="stable")].reset_index(drop=True)


class _Writer:
    """Reads, decodes and writes one shard within one task: images never travel through the object store."""

    def __init__(self, parts: Parts, names: list[str], rows: list[ray.ObjectRef]) -> None:
        self.parts, self.names, self.rows = parts, names, rows

    def __call__(self, number: int) -> pa.Table:
        return self._write(number, encode_item)

    def one_by_one(self, number: int) -> pa.Table:
        with Alone() as alone:

            def encode(source: Source, folder: Store, paths: Any, rows: Any) -> list[Encoded]:
                try:
                    return alone.run(encode_item, source, folder, paths, rows)
                except ValueError as error:
                    return [Encoded(None, reason(error))] * len(rows)

            return self._write(number, encode)

    def _write(self, number: int, encode: Any) -> pa.Table:
        try:
            result = self.parts.write(self.names[number], ray.get(self.rows[number]).to_pylist(), encode)
        except ValueError as error:  # for the driver, which then ends the job; an exception here would be waited for
            result = pd.DataFrame({"id": [None], "note": [None], "written": [False], "failed": [str(error)]})
        return pa.Table.from_pandas(result.reindex(columns=["id", "note", "written", "failed"]), schema=_RESULT)


_RESULT = pa.schema([("id", pa.string()), ("note", pa.string()), ("written", pa.bool_()), ("failed", pa.string())])


# ---------------------------------------------------------------- tasks that may die


def _each(count: int, work: Any, what: str) -> Iterator[tuple[int, pa.Table]]:
    """Yield ``work(number)``, a table, for each number below ``count``, as they are done, in Ray Data tasks.

    A task whose process dies is tried ``RETRIES`` times more. Those that died each time are done once more when all others
    are through, by ``work.one_by_one``, which finds out what killed them.

    Raises:
        ValueError: what a task raised.
    """
    left = set(range(count))
    try:
        with _errors_do_not_end_it():
            for number, table in _tasks(sorted(left), work):
                left.discard(number)
                yield number, table
        if left:
            warn(f"{what}: {len(left)} of {count} tasks failed; their files are read one by one")
            yield from _tasks(sorted(left), work.one_by_one)
    except ray.exceptions.RayError as error:
        raise ValueError(what_happened(error)) from error


def _tasks(wanted: list[int], work: Callable[[int], pa.Table]) -> Iterator[tuple[int, pa.Table]]:
    def task(place: int) -> pa.Table:
        cv2.setNumThreads(1)  # there are as many tasks as cores
        table = work(wanted[place])
        return table.append_column("task", pa.array([wanted[place]] * len(table), pa.int64()))

    table: Any
    for table in tasks(len(wanted), task, CPUS_PER_TASK, RETRIES).iter_batches(batch_size=None, batch_format="pyarrow"):
        for number in table["task"].unique().to_pylist():
            yield number, table.filter(pa.compute.equal(table["task"], number)).drop_columns("task")


@contextmanager
def _errors_do_not_end_it() -> Iterator[None]:
    """Ray Data goes on where a task failed, and does not print why: whoever asks sees what is missing."""
    context, logger = ray.data.DataContext.get_current(), logging.getLogger("ray.data")
    before, level = context.max_errored_blocks, logger.level
    context.max_errored_blocks = -1
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        context.max_errored_blocks = before
        logger.setLevel(level)
