"""A few rows of shards, such as those that a report shows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import pyarrow.parquet as pq

from medray.shards.store import Store


class Stored(Protocol):
    """What a stage has made."""

    @property
    def store(self) -> Store:
        """Where its shards are."""

    @property
    def files(self) -> Sequence[str]:
        """Their names, relative to the store."""


def few_rows(
    store: Store, names: Sequence[str], id_column: str, wanted: Sequence[str], columns: Sequence[str]
) -> Iterator[dict[str, Any]]:
    """Rows by their ids; groups that hold none of them are not read.

    Args:
        names: of the files. columns: of these, those that a file has; ``id_column`` among them.
    """
    ids = {*wanted}
    for name in names:
        with store.filesystem.open_input_file(store.path(name)) as stream:
            file = pq.ParquetFile(stream)
            there = [column for column in columns if column in file.schema_arrow.names]
            for group in range(file.num_row_groups):
                if ids & {*file.read_row_group(group, columns=[id_column])[id_column].to_pylist()}:
                    table = file.read_row_group(group, columns=there)
                    yield from (row for row in table.to_pylist() if row[id_column] in ids)
