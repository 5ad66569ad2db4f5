"""One derived part: a Parquet file that appears whole, with the reasons of the rows that it lacks in its metadata."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from medray.shards.store import Store

ROWS_PER_GROUP = 8  # stacks or volumes: a training window then takes whole row groups
BYTES_PER_GROUP = 32 << 20
"""Before compression. A training window holds a few row groups; one row may be larger."""


def write_table(to: Store, name: str, table: pa.Table, left_out: Mapping[str, str]) -> None:
    """Write a table that is there as a whole.

    Args:
        left_out: id of a row that came in → why nothing came of it.
    """
    if left_out:
        table = table.replace_schema_metadata({**(table.schema.metadata or {}), **_metadata(left_out)})
    each = table.nbytes // max(1, table.num_rows)
    to.write_table(name, table, row_group_size=max(1, min(ROWS_PER_GROUP, BYTES_PER_GROUP // max(1, each))))


def write_rows(
    to: Store, name: str, schema: pa.Schema, rows: Iterable[Mapping[str, Any]], left_out: dict[str, str]
) -> int:
    """Write rows as they come: memory holds those of one row group, and the compressed file.

    Args:
        left_out: as in ``write_table``; it is read after the last row.
    Returns:
        How many they were.
    """
    sink = pa.BufferOutputStream()
    count = 0
    with pq.ParquetWriter(sink, schema, compression="zstd", compression_level=1) as writer:
        group: list[pa.Table] = []
        for row in rows:
            group.append(pa.Table.from_pylist([dict(row)], schema=schema))
            count += 1
            if len(group) == ROWS_PER_GROUP or sum(table.nbytes for table in group) >= BYTES_PER_GROUP:
                writer.write_table(pa.concat_tables(group).combine_chunks())
                group = []
        if group:
            writer.write_table(pa.concat_tables(group).combine_chunks())
        if left_out:
            writer.add_key_value_metadata(_metadata(left_out))
    to.write_bytes(name, sink.getvalue())
    return count


def read_left_out(to: Store, name: str) -> dict[str, str]:
    """Id → reason of the rows that a part lacks."""
    metadata = pq.read_metadata(to.path(name), filesystem=to.filesystem).metadata or {}
    found: dict[str, str] = json.loads(metadata[b"medray"])["left_out"] if b"medray" in metadata else {}
    return found


def _metadata(left_out: Mapping[str, str]) -> dict[str, str]:
    return {"medray": json.dumps({"left_out": dict(left_out)})}
