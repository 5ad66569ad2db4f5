"""Rows that something is derived from: of one index, or of several that are joined by an id."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from medray.engine.data.rows import read_rows
from medray.engine.data.samples import Rows
from medray.engine.job.progress import warn

FOOTERS_AT_ONCE = 16


@dataclass(frozen=True)
class Inputs:
    """Row k of each of ``every`` belongs together. The parts of the first are the pieces of work."""

    every: tuple[Rows, ...]

    def __len__(self) -> int:
        return len(self.every[0])

    def take(self, places: np.ndarray) -> Inputs:
        return Inputs(tuple(rows.take(places) for rows in self.every))

    def read(self, columns: Sequence[str], context: int = 0, stack_column: str = "") -> Iterator[dict[str, Any]]:
        """Rows in order, with the columns of all inputs; where several have a column, the first one's counts.

        Args:
            context, stack_column: as ``read_rows`` has them; neighbours have the columns of the first input only.
        Raises:
            ValueError: a column that no input has.
        """
        if not len(self):
            return
        own = _columns_of(self.every, columns)
        places = np.arange(len(self))
        streams = [read_rows(self.every[0], places, own[0], context, stack_column)]
        streams += [read_rows(rows, places, names) for rows, names in zip(self.every[1:], own[1:], strict=True)]
        for parts in zip(*streams, strict=True):
            yield {name: value for part in reversed(parts) for name, value in part.items()}

    def origin(self, whole: bool) -> list[Any]:
        """What the name of the first input's part does not tell of these rows, which are of one part: which of its rows
        they are, and the parts and rows that are joined to them. Nothing where one input's part is taken as it is."""
        about: list[Any] = [] if whole else [self.every[0].group.tolist(), self.every[0].row.tolist()]
        for rows in self.every[1:]:
            names = [rows.files[i] for i in np.unique(rows.file)]
            about.append([names, rows.file.tolist(), rows.group.tolist(), rows.row.tolist()])
        return about

    def counts(self) -> list[int]:
        """Rows in each of the first input's files, whether they are taken or not."""
        first = self.every[0]

        def count(name: str) -> int:
            return int(pq.read_metadata(first.store.path(name), filesystem=first.store.filesystem).num_rows)

        with ThreadPoolExecutor(FOOTERS_AT_ONCE) as pool:
            return list(pool.map(count, first.files))


def joined(
    first: tuple[Rows, pd.DataFrame],
    *others: tuple[Rows, pd.DataFrame],
    on: str,
    missing: Literal["refuse", "leave out"] = "refuse",
) -> tuple[Inputs, pd.DataFrame]:
    """Rows of several indices that share an id, such as films and their keypoints.

    Args:
        first, others: as ``read_index`` gives them, each with the column ``on``.
        missing: what becomes of a row of the first without partner; those that are left out are counted in a warning.
    Returns:
        The rows in the order of the first, and the rows of its table that are among them.
    Raises:
        ValueError: an id that is there twice, or rows without partner that are to be refused.
    """
    ids = pd.Index(first[1][on])
    indices = [pd.Index(table[on]) for _, table in others]
    for number, index in enumerate([ids, *indices]):
        if index.has_duplicates:
            raise ValueError(
                f"input {number + 1}: {on} {index[index.duplicated()][0]} is there more than once; a join needs each once"
            )
    places = np.stack([index.get_indexer(ids) for index in indices]) if others else np.zeros((0, len(ids)), np.int64)
    alone = (places < 0).any(axis=0)
    if alone.any():
        what = (
            f"{int(alone.sum()):,} of {len(ids):,} rows have no partner, the first is {on} {ids[int(alone.argmax())]}"
        )
        if missing == "refuse":
            raise ValueError(f"{what}; make the missing rows, or leave these out")
        warn(f"{what}; left out")
    kept = np.flatnonzero(~alone)
    partners = [rows.take(own[kept]) for (rows, _), own in zip(others, places, strict=True)]
    return Inputs((first[0].take(kept), *partners)), first[1].iloc[kept].reset_index(drop=True)


def _columns_of(every: Sequence[Rows], columns: Sequence[str]) -> list[list[str]]:
    """The columns that each input gives."""
    if len(every) == 1:
        return [list(columns)]
    found: list[list[str]] = []
    left = list(columns)
    for rows in every:
        path = rows.store.path(rows.files[int(rows.file[0])])
        there = set(pq.read_schema(path, filesystem=rows.store.filesystem).names)
        found.append([name for name in left if name in there])
        left = [name for name in left if name not in there]
    if left:
        raise ValueError(f"no input has the column {left[0]}")
    return found
