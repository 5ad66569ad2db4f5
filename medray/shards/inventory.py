"""Inventory: every input file once, what became of it, and the rows that can be used."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from medray.shards.pseudonym import Pseudonyms

KINDS = {
    "item_id": "slice",
    "slice_id": "slice",
    "patient_id": "patient",
    "study_id": "study",
    "series_id": "series",
    "path": "file",
}
"""Columns that hold identifiers, and the kind of each."""


@dataclass(frozen=True)
class Inventory:
    """Identifiers in it are the files' own; ``renamed`` gives them the names under which they leave the driver."""

    table: pd.DataFrame  # path, size_bytes, item_id, status, reason, …: one row a file or frame, in order of path
    rows: (
        pd.DataFrame
    )  # those of ``table`` that go into the shards, with the columns of the shard schema but for pixels
    warnings: tuple[str, ...]  # one line each, without identifiers


def renamed(table: pd.DataFrame, pseudonyms: Pseudonyms) -> pd.DataFrame:
    """A copy whose identifiers are pseudonyms."""
    out = table.copy()
    for column, kind in KINDS.items():
        if column in out:
            names = {value: pseudonyms.of(kind, value) for value in out[column].dropna().unique()}
            out[column] = out[column].map(names)
    return out


def name_pairs(table: pd.DataFrame, pseudonyms: Pseudonyms) -> dict[str, list[tuple[str, str]]]:
    """kind → pairs of pseudonym and identifier: the map that lies beside the key."""
    pairs: dict[str, list[tuple[str, str]]] = {}
    for column, kind in KINDS.items():
        if column in table:
            pairs.setdefault(kind, []).extend((pseudonyms.of(kind, v), v) for v in table[column].dropna().unique())
    return pairs
