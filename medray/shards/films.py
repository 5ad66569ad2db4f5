"""Films that a table names: which column says what, and which row belongs to which file."""

from __future__ import annotations

import os
import re

import pandas as pd

from medray.shards.names import bare


def plain_name(name: str) -> str:
    """A name without case, blanks and underscores: how names are compared."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


def column_of(table: pd.DataFrame, names: tuple[str, ...]) -> str | None:
    """The column with the first of these plain names that the table has."""
    by_plain = {plain_name(column): column for column in table.columns}
    return next((by_plain[name] for name in names if name in by_plain), None)


def image_keys(names: pd.Series) -> pd.Series:
    """Names of images as they are compared: with slashes, without the suffix of an image."""
    return names.str.strip().str.replace("\\", "/").map(bare).astype("str")


def rows_of(items: pd.Series, paths: pd.Series, index: pd.Index) -> pd.Series:
    """The row of a table, of those that ``index`` names as the table does, that each film belongs to; None without one.

    Args:
        items: SOPInstanceUID of each film, or what a table called it. paths: of the files, as ``image_keys`` gives them.
    """
    found = items.where(items.isin(index), None).astype(object)
    depths = sorted({name.count("/") + 1 for name in index}, reverse=True)
    for depth in depths:
        tails = paths.str.split("/").str[-depth:].str.join("/")
        found = found.where(found.notna(), tails.where(tails.isin(index), None))
    # files that were moved: by the name alone, where it says enough
    names = pd.Series(index, index=index.str.rsplit("/", n=1).str[-1], dtype=object)
    by_name = paths.str.rsplit("/", n=1).str[-1].map(names[~names.index.duplicated(keep=False)])
    found = found.where(found.notna(), by_name.where(by_name.notna(), None))
    return found.where(found.notna(), None)


def film_names(table: pd.DataFrame, paths: pd.Series, keys: pd.Series) -> pd.Series:
    """What a film is called: its SOPInstanceUID, else its row of the labels, else its file's name, with as much of the
    path as it takes to tell two such apart.

    Args:
        table: path, kind and item_id, as scanned. paths: of the files, as ``image_keys`` gives them. keys: of ``rows_of``.
    """
    own = table["item_id"].where(table["kind"].eq("dicom"), None)
    names = first_known(own, keys)
    stems = paths.str.rsplit("/", n=1).str[-1]
    alike = stems.duplicated(keep=False) & names.isna()
    above = os.path.commonpath([os.path.dirname(path) for path in table["path"]])
    return first_known(names, stems.where(~alike, paths.str.slice(len(above)).str.lstrip("/")))


def first_known(first: pd.Series, second: pd.Series) -> pd.Series:
    """Text of the first where it has any, else of the second; None where neither has."""
    out = first.astype(object).where(first.notna(), second)
    return out.where(out.notna(), None)


def mark(table: pd.DataFrame, rows: pd.Series, status: str, reason: str) -> None:
    """Say of some rows of an ``Inventory.table`` what became of them, and why."""
    table.loc[rows, ["status", "reason"]] = [status, reason]
