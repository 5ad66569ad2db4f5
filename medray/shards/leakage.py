"""Images that a network was trained on are found in new data by their pixels, whatever their files say."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from collections.abc import Set as AbstractSet

import numpy as np
import pandas as pd

from medray.shards.store import Store

PIXELS_HASH = "pixels_hash"
"""Column of shards and predictions."""


def pixels_hash(pixels: np.ndarray) -> str:
    """Equal for equal images of one type, whatever their names, headers and formats."""
    content = np.ascontiguousarray(pixels)
    return hashlib.blake2b(repr(content.shape).encode() + content.tobytes(), digest_size=16).hexdigest()


def pixels_hash_unless_flat(pixels: np.ndarray) -> str:
    """``pixels_hash``; empty for an image of one value, which says nothing: many scans begin with one."""
    return "" if pixels.min() == pixels.max() else pixels_hash(pixels)


def trained_on(
    shards: Store, columns: Sequence[str] = (PIXELS_HASH,), id_column: str = "", held_out: Collection[str] = ()
) -> set[str]:
    """The values by which a training image is known.

    Args:
        shards: that a model was made from.
        columns: which hold such a value; an id finds an image in another size, where ids are no pseudonyms.
        id_column: of ``held_out``: rows that no network has learned from.
    """
    known: set[str] = set()
    out = set(held_out)
    for name in shards.names(".parquet"):
        table = shards.read_table(name, columns=[*dict.fromkeys([*columns, *([id_column] if held_out else [])])])
        rows = table.to_pandas()
        if out:
            rows = rows[~rows[id_column].isin(out)]
        for column in columns:
            known |= set(rows[column].dropna())
    return known - {""}


def seen_in_training(
    table: pd.DataFrame, trained: AbstractSet[str], columns: Sequence[str] = (PIXELS_HASH,)
) -> pd.Series[bool]:
    """Which rows a network was trained on: (rows,), with the index of ``table``.

    Args:
        table: with ``columns``; an empty value says nothing.
        trained: as ``trained_on``.
    """
    found = pd.Series(False, index=table.index)
    for column in columns:
        values = table[column]
        found |= values.notna() & values.ne("") & values.isin(trained)
    return found.astype(bool)
