"""Inventory: every input file once, what became of it, and the rows that can be used."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from medray.shards.files import paths_of
from medray.shards.pseudonym import Pseudonyms


class Refused(ValueError):
    """Files and labels that cannot be used at all: ``str(error)`` is the one line, and the table says of each file why.

    Args:
        table: as ``Inventory.table``.
    """

    def __init__(self, message: str, table: pd.DataFrame) -> None:
        super().__init__(message)
        self.table = table


@dataclass(frozen=True)
class Inventory:
    """Identifiers in it are the files' own; ``renamed`` gives them the names under which they leave the driver."""

    table: pd.DataFrame
    """path, size_bytes, item_id, status, reason, …: one row a file or frame, in order of path. "item_id" is what the file is
    part of; none where it is part of several. Of several inputs, "source" says which, here and in ``rows``."""
    rows: pd.DataFrame
    """The items that go into the shards, with the columns of the shard schema that do not come from pixels. Items of one file
    are rows of ``table``, under its index; those of several have a column "files" (``medray.shards.files``).
    Where lists are given, "split" is train, val, test, or missing for rows of none."""
    warnings: tuple[str, ...]  # one line each, without identifiers
    notes: tuple[str, ...] = ()  # likewise: what was found, where nothing is odd

    def links(self, id_column: str) -> pd.DataFrame:
        """Which files are in which items: "place" (of ``table``'s index) and "item" (of ``rows[id_column]``)."""
        if "files" not in self.rows:
            return pd.DataFrame({"place": self.rows.index, "item": self.rows[id_column].to_numpy()})
        paths = [[path for own in paths_of({"files": files}).values() for path in own] for files in self.rows["files"]]
        by = [name for name in ("source", "path") if name in self.table]  # two sources may have paths that are alike
        items = self.rows[by[:-1]].assign(item=self.rows[id_column], path=paths).explode("path")
        return items.merge(self.table[by].assign(place=self.table.index), on=by)


def set_aside(table: pd.DataFrame) -> pd.DataFrame:
    """path, status and reason of the files (or frames) of an ``Inventory.table`` that are not used."""
    return table.loc[~table["status"].isin(["ok", "unlabelled"]), ["path", "status", "reason"]]


def renamed(table: pd.DataFrame, pseudonyms: Pseudonyms, kinds: Mapping[str, str]) -> pd.DataFrame:
    """A copy whose identifiers are pseudonyms.

    Args:
        kinds: columns that hold identifiers → the kind of each, as ``Source.kinds``.
    """
    out = table.copy()
    for column, kind in kinds.items():
        if column in out:
            names = {value: pseudonyms.of(kind, value) for value in out[column].dropna().unique()}
            out[column] = out[column].map(names)
    return out


def name_pairs(
    tables: Sequence[pd.DataFrame], pseudonyms: Pseudonyms, kinds: Mapping[str, str]
) -> dict[str, list[tuple[str, str]]]:
    """kind → pairs of pseudonym and identifier in any of the tables: the map that lies beside the key."""
    pairs: dict[str, list[tuple[str, str]]] = {}
    for table, (column, kind) in itertools.product(tables, kinds.items()):
        if column in table:
            pairs.setdefault(kind, []).extend((pseudonyms.of(kind, v), v) for v in table[column].dropna().unique())
    return pairs
