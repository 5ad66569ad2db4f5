"""One Parquet file of shards: its rows decoded, encoded and written, without Ray."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from medray.shards.files import Row, by_files, from_text
from medray.shards.reading import encode_item
from medray.shards.source import Encoded, Source
from medray.shards.store import Store

Encode = Callable[[Source, Store, Mapping[str, Sequence[str]], Sequence[Row]], list[Encoded]]


@dataclass(frozen=True)
class Parts:
    """How parts are made: the same for all of a folder of shards."""

    source: Source
    folder: Store  # of the input files
    to: Store
    columns: Sequence[str]  # of the shard schema that rows have before their pixels

    def write(self, name: str, rows: Sequence[Row], encode: Encode = encode_item) -> pd.DataFrame:
        """Write one part, whole or not at all.

        Args:
            rows: "private_files" (``files.texts_of``), and ``columns``; rows of the same files follow each other.
            encode: ``encode_item``, or something that does the same elsewhere.
        Returns:
            id, note ("" where there is nothing to say), written (bool): one row for each of ``rows``. It is also kept in
            the file's metadata, for ``known``.
        Raises:
            ValueError: the file cannot be written.
        """
        notes: dict[str, str] = {}
        left_out: dict[str, str] = {}
        schema, own = self.source.shard_schema, self.source.id_column
        shared = [column for column in self.source.kinds() if column in schema.names and column != own]
        sink = pa.BufferOutputStream()
        with pq.ParquetWriter(
            sink, schema, compression="zstd", compression_level=1, use_dictionary=shared,
            write_statistics=["index"] if "index" in schema.names else False,
        ) as writer:  # fmt: skip
            for group in _groups(self._encoded(rows, encode, notes, left_out), self.source.rows_per_group):
                writer.write_table(pa.Table.from_pylist(group, schema=schema))
            writer.add_key_value_metadata({"medray": json.dumps({"notes": notes, "left_out": left_out})})
        try:
            self.to.write_bytes(name, sink.getvalue())
        except OSError as error:
            why = os.strerror(error.errno) if error.errno else type(error).__name__
            raise ValueError(f"{self.to.uri}: cannot be written ({why}); make room and start again") from None
        return _result([row[own] for row in rows], notes, left_out)

    def _encoded(
        self, rows: Sequence[Row], encode: Encode, notes: dict[str, str], left_out: dict[str, str]
    ) -> Iterator[Row]:
        own = self.source.id_column
        for files, own_rows in by_files(rows, lambda row: row["private_files"]):
            for row, result in zip(own_rows, encode(self.source, self.folder, from_text(files), own_rows), strict=True):
                if result.columns is None:
                    left_out[row[own]] = result.note or "no pixels"
                    continue
                if result.note:
                    notes[row[own]] = result.note
                yield {name: _plain(row[name]) for name in self.columns} | result.columns


def known(to: Store, name: str, ids: Sequence[str]) -> pd.DataFrame:
    """What ``Parts.write`` gave for a part that is there, for its ids in their order."""
    metadata = pq.read_metadata(to.path(name), filesystem=to.filesystem).metadata or {}
    kept = json.loads(metadata[b"medray"])
    return _result(ids, kept["notes"], kept["left_out"])


def _result(ids: Sequence[str], notes: dict[str, str], left_out: dict[str, str]) -> pd.DataFrame:
    note = np.array([left_out.get(i) or notes.get(i) or "" for i in ids], dtype=object)
    written = np.array([i not in left_out for i in ids], dtype=bool)
    return pd.DataFrame({"id": np.array(ids, dtype=object), "note": note, "written": written})


def _groups(rows: Iterator[Row], size: int) -> Iterator[list[Row]]:
    group: list[Row] = []
    for row in rows:
        group.append(row)
        if len(group) == size:
            yield group
            group = []
    if group:
        yield group


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and np.isnan(value) else value
