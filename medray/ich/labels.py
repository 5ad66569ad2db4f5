"""The challenge's label file: a long CSV, ``ID_0a1b2c3d4_subdural,1``, six rows an image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv as pacsv

from medray.ich.classes import CLASSES
from medray.shards.store import Store, read_file


@dataclass(frozen=True)
class Labels:
    """Labels by slice, and what was wrong with the file."""

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
    shown = Store(uri).uri
    try:
        data = read_file(uri)
    except OSError as error:
        raise ValueError(f"--labels {shown}: cannot be read ({str(error).splitlines()[0]})") from None
    header = data.split(b"\n", 1)[0].decode("utf-8", "replace").strip().lstrip("\ufeff")
    if header.split(",") != ["ID", "Label"]:
        raise ValueError(
            f'--labels {shown}: the header is "{header[:80]}", expected "ID,Label" (the challenge\'s long CSV)'
        )
    try:
        long = pacsv.read_csv(pa.BufferReader(data)).to_pandas()
    except ValueError as error:  # pyarrow's errors are ValueErrors
        raise ValueError(f"--labels {shown}: {str(error).splitlines()[0]}") from None
    return _from_long(long, shown)


def _from_long(long: pd.DataFrame, shown: str) -> Labels:
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
    return Labels(table, len(flat) - len(distinct), conflicts)
