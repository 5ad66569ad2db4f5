"""Files → header table → Parquet shards, over all cores and nodes, resumable part by part."""

from __future__ import annotations

import io
import itertools
import json
import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import ray
import ray.data

from medray.engine.cluster import what_happened
from medray.engine.digest import digest
from medray.engine.numbers import numbers
from medray.engine.progress import Progress
from medray.shards.source import Source, named
from medray.shards.store import File, Store, reason

FILES_PER_SCAN = 64  # a Ray Data row: small enough to spread a laptop's folder over its cores
SCANS_PER_CACHE_FILE = 64
_HEADER_BYTES = 1 << 16

Table = dict[str, Any]


# ---------------------------------------------------------------- headers


def scan(source: Source, folder: Store, files: list[File], cache: Store) -> pd.DataFrame:
    """Read every header once.

    Args:
        folder: where the files are.
        cache: a private folder of this user's: headers hold patient identifiers. Finished parts are found there.
    Returns:
        path, size_bytes, status ("ok" or "quarantined"), reason and the columns of ``source.scan_schema``; one row a
        file, or a row a frame.
    """
    chunks = [files[i : i + FILES_PER_SCAN] for i in range(0, len(files), FILES_PER_SCAN)]
    batches = [chunks[i : i + SCANS_PER_CACHE_FILE] for i in range(0, len(chunks), SCANS_PER_CACHE_FILE)]
    how = [type(source).__name__, source.version, source.scan_schema.names]
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
            rows = [
                {"chunk": i, "paths": [f.path for f in c], "sizes": [f.size_bytes for f in c]}
                for i, c in enumerate(batch)
            ]
            data = ray.data.from_items(rows, override_num_blocks=len(rows))
            parts = data.map_batches(_Scan(source, folder), batch_size=1, batch_format="pyarrow", num_cpus=1)
            table = pa.concat_tables(parts.iter_batches(batch_size=None, batch_format="pyarrow"))
            cache.write_table(name, table)
        tables.append(table)
        progress.add(sum(map(len, batch)))
    progress.close()
    return pa.concat_tables(tables).to_pandas()


class _Scan:
    def __init__(self, source: Source, folder: Store) -> None:
        self.source, self.folder = source, folder
        found = [
            pa.field(n, t) for n, t in [("path", pa.string()), ("size_bytes", pa.int64()), ("status", pa.string())]
        ]
        self.schema = pa.schema([*found, pa.field("reason", pa.string()), *source.scan_schema])

    def __call__(self, batch: pa.Table) -> pa.Table:
        rows = []
        for item in batch.to_pylist():
            for path, size in zip(item["paths"], item["sizes"], strict=True):
                found = {"path": path, "size_bytes": size, "status": "ok", "reason": None}
                try:
                    with self.folder.filesystem.open_input_file(path) as raw:
                        headers = self.source.scan(io.BufferedReader(raw, _HEADER_BYTES))  # type: ignore[arg-type]
                    rows += [found | header for header in named(headers, path)]
                except (ValueError, OSError) as error:
                    rows.append(found | {"status": "quarantined", "reason": reason(error)})
        return pa.Table.from_pylist(rows, schema=self.schema)


# ---------------------------------------------------------------- shards


def write(
    source: Source, folder: Store, table: pd.DataFrame, to: Store, rows_per_shard: int, seed: int
) -> pd.DataFrame:
    """Decode and write all rows of ``table`` as Parquet files of about ``rows_per_shard`` rows each.

    Stacks are shuffled once and stay whole, in their order, within one file: later stages read a stack without a
    search. The shuffle depends on ``stack_key`` and the seed only.

    Args:
        table: "private_path", "stack_key" (the same for the rows of a stack, wherever the files lie), "index" (place
            in the stack), and the columns of ``source.shard_schema`` that do not come from pixels.
    Raises:
        ValueError: a shard cannot be written; those that are, stay.
    Returns:
        "id" (of ``source.id_column``), note (str or None), written (bool): one row for each of ``table``. What a shard
        left out is kept in its own metadata, so that a restart knows it too.
    """
    shuffled = _shuffle(table, seed)
    first = np.append(np.flatnonzero(~shuffled["stack_key"].duplicated().to_numpy()), len(shuffled))
    starts = np.unique(
        first[
            np.searchsorted(first, np.arange(0, len(shuffled) + rows_per_shard, rows_per_shard).clip(max=len(shuffled)))
        ]
    )
    parts = [shuffled.iloc[a:b] for a, b in itertools.pairwise(starts)]
    kept = [c for c in source.shard_schema.names if c in shuffled]
    names = [f"part-{i:05d}-{digest(source.identity(), p[kept].to_json())}.parquet" for i, p in enumerate(parts)]
    to.remove_unfinished()
    finished = set(to.names(".parquet"))
    for stale in finished - set(names):
        to.delete(stale)
    todo = [i for i, name in enumerate(names) if name not in finished]
    rest = sum(len(parts[i]) for i in todo)
    progress = Progress("shards", len(shuffled), f"{source.kinds()['item_id']}s", done=len(shuffled) - rest)
    done_before = [i for i in range(len(parts)) if i not in set(todo)]
    results = [_left_out(to, names[i], parts[i][source.id_column].tolist()) for i in done_before]
    if todo:
        rows = [ray.put(pa.Table.from_pandas(parts[i], preserve_index=False)) for i in todo]
        writer: Any = _Writer(source, folder, to, [names[i] for i in todo], rows, kept)
        data = numbers(len(todo), 1).map_batches(writer, batch_size=1, num_cpus=1)
        try:
            for done in data.iter_batches(batch_size=None, batch_format="pandas"):
                results.append(pd.DataFrame(done))
                progress.add(len(done))
        except ray.exceptions.RayError as error:
            raise ValueError(what_happened(error)) from error
    progress.close()
    return pd.concat(results, ignore_index=True) if results else pd.DataFrame(columns=["id", "note", "written"])


def _shuffle(table: pd.DataFrame, seed: int) -> pd.DataFrame:
    ordered = table.sort_values(["stack_key", "index"], kind="stable")
    keys = ordered["stack_key"].unique()
    place = pd.Series(np.random.default_rng(seed).permutation(len(keys)), index=keys)
    return ordered.iloc[np.argsort(place[ordered["stack_key"]].to_numpy(), kind="stable")].reset_index(drop=True)


class _Writer:
    """Reads, decodes and writes one shard within one task: images never travel through the object store."""

    def __init__(
        self, source: Source, folder: Store, to: Store, names: list[str], parts: list[ray.ObjectRef], kept: list[str]
    ) -> None:
        self.source, self.folder, self.to, self.names, self.parts, self.kept = source, folder, to, names, parts, kept

    def __call__(self, batch: dict[str, np.ndarray]) -> Table:
        (number,) = batch["id"]
        rows = ray.get(self.parts[number]).to_pylist()
        notes: dict[str, str] = {}
        left_out: dict[str, str] = {}
        sink = pa.BufferOutputStream()
        own = self.source.id_column
        shared = [name for name in self.source.kinds() if name in self.source.shard_schema.names and name != own]
        writer = pq.ParquetWriter(
            sink, self.source.shard_schema, compression="zstd", compression_level=1, use_dictionary=shared,
            write_statistics=["index"] if "index" in self.source.shard_schema.names else False,
        )  # fmt: skip
        for group in _groups(self._encoded(rows, notes, left_out), self.source.rows_per_group):
            writer.write_table(pa.Table.from_pylist(group, schema=self.source.shard_schema))
        writer.add_key_value_metadata({"medray": json.dumps({"notes": notes, "left_out": left_out})})
        writer.close()
        try:
            self.to.write_bytes(self.names[number], sink.getvalue())
        except OSError as error:
            why = os.strerror(error.errno) if error.errno else type(error).__name__
            raise ValueError(f"{self.to.uri}: cannot be written ({why}); make room and start again") from None
        return _result([row[own] for row in rows], notes, left_out)

    def _encoded(self, rows: list[Table], notes: dict[str, str], left_out: dict[str, str]) -> Iterator[Table]:
        own = self.source.id_column
        for path, of_file in _by_path(rows):
            try:
                with self.folder.filesystem.open_input_file(path) as stream:
                    encoded = self.source.encode(stream.read(), of_file)
            except (ValueError, OSError) as error:
                left_out |= {row[own]: reason(error) for row in of_file}
                continue
            for row, result in zip(of_file, encoded, strict=True):
                if result.columns is None:
                    left_out[row[own]] = result.note or "no pixels"
                    continue
                if result.note:
                    notes[row[own]] = result.note
                yield {name: _plain(row[name]) for name in self.kept} | result.columns


def _by_path(rows: list[Table]) -> Iterator[tuple[str, list[Table]]]:
    start = 0
    for i in range(1, len(rows) + 1):
        if i == len(rows) or rows[i]["private_path"] != rows[start]["private_path"]:
            yield rows[start]["private_path"], rows[start:i]
            start = i


def _groups(rows: Iterator[Table], size: int) -> Iterator[list[Table]]:
    group: list[Table] = []
    for row in rows:
        group.append(row)
        if len(group) == size:
            yield group
            group = []
    if group:
        yield group


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and np.isnan(value) else value


def _left_out(to: Store, name: str, ids: list[str]) -> pd.DataFrame:
    metadata = pq.read_metadata(to.path(name), filesystem=to.filesystem).metadata or {}
    said = json.loads(metadata[b"medray"])
    return pd.DataFrame(_result(ids, said["notes"], said["left_out"]))


def _result(ids: list[str], notes: dict[str, str], left_out: dict[str, str]) -> Table:
    return {
        "id": np.array(ids, dtype=object),
        "note": np.array([left_out.get(i) or notes.get(i) or "" for i in ids], dtype=object),
        "written": np.array([i not in left_out for i in ids]),
    }
