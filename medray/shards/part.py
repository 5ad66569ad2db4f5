"""One Parquet file of shards: its rows decoded, encoded and written, without Ray."""

from __future__ import annotations

import itertools
import json
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from medray.shards.files import Row, from_text
from medray.shards.reading import encode_item
from medray.shards.source import Encoded, Source
from medray.shards.store import Store

BYTES_PER_GROUP = 64 << 20
"""Of pixels as they are read: a row group is full with the row that reaches this, if not before."""
Encode = Callable[[Source, Store, Mapping[str, Sequence[str]], Sequence[Row]], list[Encoded]]


@dataclass(frozen=True)
class Parts:
    """How parts are made: the same for all of a folder of shards."""

    source: Source
    folders: Mapping[str, Store]  # of the input files, by the name of their input
    to: Store
    columns: Sequence[str]  # of the shard schema that rows have before their pixels

    def write(self, name: str, rows: Sequence[Row], encode: Encode = encode_item) -> pd.DataFrame:
        """Write one part, whole or not at all.

        Args:
            rows: "input" (of ``folders``), "private_files" (``files.texts_of``), and ``columns``; rows of the same files follow each other.
            encode: ``encode_item``, or something that does the same elsewhere.
        Returns:
            id, note ("" where there is nothing to say), written (bool): one row for each of ``rows``. It is also kept in
            the file's metadata, for ``known``.
        Raises:
            ValueError: the file cannot be written.
        """
        own, notes, left_out = self.source.id_column, dict[str, str](), dict[str, str]()
        try:
            self.to.write_stream(name, lambda stream: self._write(stream, rows, encode, notes, left_out))
        except OSError as error:
            why = error.strerror or type(error).__name__
            raise ValueError(f"{self.to.uri}: cannot be written ({why}); make room and start again") from None
        return _result([row[own] for row in rows], notes, left_out)

    def _write(
        self, stream: BinaryIO, rows: Sequence[Row], encode: Encode, notes: dict[str, str], left_out: dict[str, str]
    ) -> None:
        """Row group by row group: memory holds one, and the item that is encoded."""
        schema, own = self.source.shard_schema, self.source.id_column
        shared = [column for column in self.source.kinds() if column in schema.names and column != own]
        group: list[Row] = []
        size = 0
        # volumes are read again for every few crops: lz4 gives them back two to three times as fast as zstd, in a tenth more room (RESULTS.md)
        volumes = any(pa.types.is_large_binary(field.type) for field in schema)
        codec, level = ("lz4", None) if volumes else ("zstd", 1)
        with pq.ParquetWriter(
            stream, schema, compression=codec, compression_level=level, use_dictionary=shared,
            write_statistics=["index"] if "index" in schema.names else False,
        ) as writer:  # fmt: skip
            for row in self._encoded(rows, encode, notes, left_out):
                size += _bytes_of(row)
                group.append(row)
                del row  # what the group has written is to be gone before the next item is read
                if len(group) == self.source.rows_per_group or size >= BYTES_PER_GROUP:
                    _flush(writer, group)
                    size = 0
            if group:
                _flush(writer, group)
            about = {"source": self.source.identity(), "notes": notes, "left_out": left_out}
            writer.add_key_value_metadata({"medray": json.dumps(about, default=str)})

    def _encoded(
        self, rows: Sequence[Row], encode: Encode, notes: dict[str, str], left_out: dict[str, str]
    ) -> Iterator[Row]:
        own = self.source.id_column
        for (name, files), same in itertools.groupby(rows, lambda row: (row["input"], row["private_files"])):
            own_rows = list(same)  # share their files, which are read and decoded once
            results = deque(encode(self.source, self.folders[name], from_text(files), own_rows))
            if len(results) != len(own_rows):
                raise AssertionError(
                    f"{type(self.source).__name__}.encode: {len(results)} results of {len(own_rows)} rows"
                )
            for row in own_rows:
                if results[0].columns is None:
                    left_out[row[own]] = results.popleft().note or "no pixels"
                    continue
                if results[0].note:
                    notes[row[own]] = results[0].note
                yield {column: _plain(row[column]) for column in self.columns} | (results.popleft().columns or {})


def _flush(writer: pq.ParquetWriter, group: list[Row]) -> None:
    """Write the rows as one row group, and forget them."""
    columns = [_column([row.get(field.name) for row in group], field.type) for field in writer.schema]
    group.clear()
    writer.write_table(pa.Table.from_arrays(columns, schema=writer.schema))


def _column(values: list[Any], kind: pa.DataType) -> pa.Array:
    """As ``pa.array``; bytes are copied once, and not at all where there is one value: a volume."""
    offsets: Any = {pa.binary(): np.int32, pa.large_binary(): np.int64}.get(kind)
    if offsets is None or any(value is None for value in values):
        return pa.array(values, kind)
    ends = np.cumsum([0, *(memoryview(value).nbytes for value in values)])
    if ends[-1] > np.iinfo(offsets).max:  # refused there, and not wrapped
        return pa.array(values, kind)
    ends = ends.astype(offsets)
    joined = values[0] if len(values) == 1 else b"".join(values)
    return pa.Array.from_buffers(kind, len(values), [None, pa.py_buffer(ends), pa.py_buffer(joined)])


def _bytes_of(row: Row) -> int:
    """Of its binary columns: what is not pixels does not count."""
    return sum(memoryview(value).nbytes for value in row.values() if isinstance(value, (bytes, bytearray, memoryview)))


def held(shards: Store) -> list[dict[str, Any]]:
    """What the folders of shards hold: ``Source.identity`` of what made each, as JSON has it. A folder of a version that
    left none is not among them: it is used by who makes the same again, and by nobody else."""
    found = []
    for folder in map(shards.sub, shards.folders()):
        for name in folder.names(".parquet")[:1]:
            found.append(_about(folder, name).get("source"))
    return [identity for identity in found if identity]


def _about(to: Store, name: str) -> dict[str, Any]:
    metadata = pq.read_metadata(to.path(name), filesystem=to.filesystem).metadata or {}
    about: dict[str, Any] = json.loads(metadata.get(b"medray", b"{}"))
    return about


def known(to: Store, name: str, ids: Sequence[str]) -> pd.DataFrame:
    """What ``Parts.write`` gave for a part that is there, for its ids in their order. Raises ValueError where another program wrote
    it, or damaged it."""
    try:
        kept = _about(to, name)
        return _result(ids, kept["notes"], kept["left_out"])
    except (KeyError, pa.ArrowInvalid, json.JSONDecodeError):
        raise ValueError(
            f"{to.uri}/{name}: is no shard that this program wrote; delete it, and it is made anew"
        ) from None


def _result(ids: Sequence[str], notes: dict[str, str], left_out: dict[str, str]) -> pd.DataFrame:
    note = np.array([left_out.get(i) or notes.get(i) or "" for i in ids], dtype=object)
    written = np.array([i not in left_out for i in ids], dtype=bool)
    return pd.DataFrame({"id": np.array(ids, dtype=object), "note": note, "written": written})


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and np.isnan(value) else value
