"""Label files: the challenge's long CSV, ``ID_0a1b2c3d4_subdural,1``, six rows an image; and a table by slice or study."""

from __future__ import annotations

import csv
import difflib
import io
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv as pacsv

from medray.ich.classes import CLASSES
from medray.shards.packed import read_unpacked

Level = Literal["slice", "study"]

ID_COLUMNS: dict[str, Level] = {
    "slice_id": "slice",
    "SOPInstanceUID": "slice",
    "study_id": "study",
    "StudyInstanceUID": "study",
}
"""Names of the column of ids in a table, and what it numbers; the first that a table has is taken."""


@dataclass(frozen=True)
class Labels:
    """Labels by slice (of a table by study: by study), and what was wrong with the file."""

    table: pd.DataFrame  # index slice id, six float64 columns: 0, 1, or NaN where missing
    repeated_rows: int  # identical rows, merged
    conflicts: dict[str, str]  # slice id → why all of its labels are set aside


def read_labels(uri: str) -> Labels:
    """Read the long CSV from a path or URI.

    Identical repeated rows are merged. A slice whose rows contradict each other, or whose ``any`` is not the OR of
    its five types, keeps no label: nobody can say which row is right.

    Raises:
        ValueError: another header, a label that is not 0 or 1, an ID without a known class, no such file.
    """
    data, shown = read_unpacked(uri)
    if not is_long(data):
        raise ValueError(
            f'--labels {shown}: the header is "{_header(data)[:80]}", expected "ID,Label" (the challenge\'s long CSV)'
        )
    return from_long(data, shown)


def is_long(data: bytes) -> bool:
    """Whether a file begins as the challenge's does."""
    return _header(data).split(",") == ["ID", "Label"]


def _header(data: bytes) -> str:
    return data.split(b"\n", 1)[0].decode("utf-8", "replace").strip().lstrip("\ufeff")


def from_long(data: bytes, shown: str) -> Labels:
    """The content of a long CSV; ``shown`` names the file in errors."""
    try:
        long = pacsv.read_csv(pa.BufferReader(data)).to_pandas()
    except ValueError as error:  # pyarrow's errors are ValueErrors
        raise ValueError(f"--labels {shown}: {str(error).splitlines()[0]}") from None
    ids = long["ID"].astype(str)
    parts = ids.str.rsplit("_", n=1, expand=True)
    slice_ids, classes = parts[0], parts[1] if 1 in parts else pd.Series([None] * len(ids), dtype=object)
    unknown = ~classes.isin(CLASSES)
    if unknown.any():
        line = int(np.flatnonzero(unknown)[0]) + 2
        raise ValueError(
            f"--labels {shown}: line {line}: no class in this ID; it must end in one of _{', _'.join(CLASSES)}"
        )
    values = pd.to_numeric(long["Label"], errors="coerce")
    wrong = ~values.isin([0, 1])
    if wrong.any():
        line = int(np.flatnonzero(wrong)[0]) + 2
        raise ValueError(f'--labels {shown}: line {line}: label "{long["Label"].iloc[line - 2]}" is neither 0 nor 1')
    flat = pd.DataFrame({"slice_id": slice_ids, "class": classes, "value": values.astype(float)})
    return _merge(flat)


def _merge(flat: pd.DataFrame, repeated_rows: int | None = None) -> Labels:
    """From one row a label (slice_id, class, value) to one row a slice; repeated rows are counted unless given."""
    distinct = flat.drop_duplicates()
    conflicting = distinct.duplicated(["slice_id", "class"], keep=False)
    conflicts = {
        str(slice_id): f"the label file says both 0 and 1 for {', '.join(sorted(set(rows['class'])))}"
        for slice_id, rows in distinct[conflicting].groupby("slice_id")
    }
    table = distinct[~conflicting].pivot(index="slice_id", columns="class", values="value")
    table = table.reindex(columns=list(CLASSES))
    complete = table.notna().all(axis=1)
    either = table[list(CLASSES[:-1])].max(axis=1)
    for slice_id in table.index[complete & (table["any"] != either)]:
        conflicts[str(slice_id)] = '"any" is not the OR of the five types'
    table.loc[table.index.isin(list(conflicts)), :] = np.nan
    table.columns.name = None
    return Labels(table, len(flat) - len(distinct) if repeated_rows is None else repeated_rows, conflicts)


def from_wide(data: bytes, shown: str) -> tuple[Level, Labels]:
    """The content of a table with one of ID_COLUMNS and a column for each of some classes; other columns are ignored.

    Raises:
        ValueError: no such columns, a cell that is neither 0, 1 nor empty, not a table.
    """
    try:
        # not pyarrow's reader: it would take ids for numbers, and its row numbers are not the file's lines
        lines = csv.reader(io.StringIO(data.decode("utf-8-sig"), newline=""), strict=True)
        header = [" ".join(name.split()) for name in next(lines, [])]
        rows = [(lines.line_num, row) for row in lines if any(cell.strip() for cell in row)]
    except (UnicodeDecodeError, csv.Error):
        raise ValueError(f"--labels {shown}: not a CSV file in UTF-8; save it as one") from None
    if not rows:
        raise ValueError(f"--labels {shown}: there is no row of labels in it")
    id_place, level, places = _columns(header, shown)

    records = []
    for line, row in rows:
        if len(row) != len(header):
            raise ValueError(f"--labels {shown}: line {line} has {len(row)} cells, the header has {len(header)}")
        slice_id = row[id_place].strip()
        if not slice_id:
            raise ValueError(f"--labels {shown}: line {line}: {header[id_place]} is empty; fill it in or drop the line")
        cells = {name: " ".join(row[place].split()) for name, place in places.items()}
        for name, cell in cells.items():
            if cell not in _VALUES:
                raise ValueError(
                    f'--labels {shown}: line {line}: {name} is "{cell[:40]}", neither 0 nor 1; '
                    "leave the cell empty where it is unknown"
                )
        records.append((slice_id, *(_VALUES[cell] for cell in cells.values())))
    table = pd.DataFrame(records, columns=["slice_id", *places])
    flat = table.melt("slice_id", var_name="class").dropna()
    return level, _merge(flat, int(table.duplicated().sum()))


_VALUES = {"": float("nan"), "0": 0.0, "1": 1.0, "0.0": 0.0, "1.0": 1.0}  # "1.0": pandas writes it beside empty cells


def _columns(header: list[str], shown: str) -> tuple[int, Level, dict[str, int]]:
    """The place of the ids, what they number, and the place of each class."""
    lower = [name.lower() for name in header]
    named = f"its columns are {', '.join(header)}"[:200]
    found = [name for name in ID_COLUMNS if name.lower() in lower]
    if not found:
        hint = _near(header, list(ID_COLUMNS)) or "rename the column that holds the ids"
        raise ValueError(f"--labels {shown}: no column {', '.join(ID_COLUMNS)}; {named}; {hint}")
    places = {name: lower.index(name) for name in CLASSES if name in lower}
    if not places:
        hint = _near(header, list(CLASSES)) or "rename the columns that hold the labels"
        raise ValueError(f"--labels {shown}: no column is named like a class ({', '.join(CLASSES)}); {named}; {hint}")
    for name in (found[0], *places):
        if lower.count(name.lower()) > 1:
            raise ValueError(f"--labels {shown}: {lower.count(name.lower())} columns are named {name}; keep one")
    return lower.index(found[0].lower()), ID_COLUMNS[found[0]], places


def _near(header: list[str], names: list[str]) -> str:
    by_lower = {name.lower(): name for name in names}
    pairs = [(given, near) for given in header for near in difflib.get_close_matches(given.lower(), by_lower, n=1)]
    return f"did you mean {', '.join(f'{by_lower[near]} by {given}' for given, near in pairs)}?" if pairs else ""
