"""Label files: the challenge's long CSV, ``ID_0a1b2c3d4_subdural,1``, six rows an image; and a table by slice or study."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from medray.shards.cells import read_cells, zeros_and_ones
from medray.shards.names import bare
from medray.shards.packed import read_unpacked
from medray.systems.ich.classes import CLASSES

Level = Literal["slice", "study"]

ID_COLUMNS: dict[str, Level] = {
    "slice_id": "slice",
    "SOPInstanceUID": "slice",
    "study_id": "study",
    "StudyInstanceUID": "study",
}
"""Names of the column of ids in a table, and what it numbers; the first that a table has is taken."""

_LONG = ("id", "label")
_READ = {*_LONG, *map(str.lower, ID_COLUMNS), *CLASSES}


@dataclass(frozen=True)
class Labels:
    """Labels by slice (of a table by study: by study), and what was wrong with the file."""

    table: pd.DataFrame  # index slice id, six float64 columns: 0, 1, or NaN where unknown
    repeated_rows: int  # identical rows, merged
    conflicts: dict[str, str]  # slice id → why all of its labels are set aside
    stated: tuple[str, ...] = CLASSES  # classes of which the file itself says something, in the order of CLASSES

    def notes(self, level: Level = "slice") -> list[str]:
        """What was odd about the file, one line each, without identifiers."""
        things = "slices" if level == "slice" else "studies"
        counts = {
            "repeated label rows, merged": self.repeated_rows,
            f"{things} whose labels contradict each other: their labels are set aside": len(self.conflicts),
        }
        lines = [f"{count:,} {what}" for what, count in counts.items() if count]
        if "any" not in self.stated and self.table["any"].notna().any():
            lines.append('the file does not say "any": it is the OR of the five types')
        return lines


def read_labels(uri: str) -> Labels:
    """Read labels of slices from a path or URI, as ``read_levelled``.

    Raises:
        ValueError: as there, or a table by study.
    """
    level, labels, shown = read_levelled(uri)
    if level == "study":
        raise ValueError(
            f"--labels {shown}: a table by study does not say which slices bleed, and training needs that: give one with a "
            "column slice_id or SOPInstanceUID; a table by study is for scoring, with jobs/ich_predict.py --labels"
        )
    return labels


def read_levelled(uri: str) -> tuple[Level, Labels, str]:
    """What the ids of a file number, its labels, and its name in messages; by path or URI.

    * the challenge's long CSV: a column ID, ``<slice>_<class>``, and a column Label;
    * a table with one of ID_COLUMNS and a column for each of some classes.

    Other columns are ignored. What is unknown is empty, -1 or "uncertain". Ids lose the suffix of an image file.
    Identical repeated rows are merged. An id whose rows contradict each other, or whose ``any`` is not the OR of its
    five types, keeps no label: nobody can say which row is right. What follows from ``any`` being that OR is known
    without being stated: it is 1 where a type is 1, and the types are 0 where it is 0; but nothing becomes known of a
    type that the whole file does not speak of, since only its absence could.

    Raises:
        ValueError: another header, a label that is not 0 or 1, an ID without a known class, no label at all, no such
            file.
    """
    data, shown = read_unpacked(uri)
    cells = read_cells(data, shown, meaning=lambda name: name.lower() if name.lower() in _READ else None)
    columns = {name.lower(): name for name in cells.columns}
    level: Level = "slice"
    if set(_LONG) <= columns.keys() and not any(name.lower() in columns for name in ID_COLUMNS):
        labels = _from_long(cells.rename(columns={columns[name]: name for name in _LONG}), shown)
    else:
        level, labels = _from_wide(cells, columns, shown)
    if not labels.table.notna().to_numpy().any():
        why = "; ".join(labels.notes(level)) or "all of its cells are empty; fill them in"
        raise ValueError(f"--labels {shown}: there is no label in it that can be used; {why}")
    return level, labels, shown


def label_ids(ids: pd.Series, names: pd.Series, known: pd.Index) -> tuple[pd.Series, int]:
    """By which id the labels know each slice: its own, or its file's name where that belongs to no other slice.

    "IM0001" is in every folder of some archives: such a name says nothing.

    Args:
        ids: (slices,) SOPInstanceUIDs. names: (slices,) of the files, without suffix. known: ids of the labels.
    Returns:
        (slices,) ids, and how many slices share a name of the labels.
    """
    by_name = ~ids.isin(known) & names.isin(known)
    shared = by_name & names.duplicated(keep=False)
    return ids.mask(by_name & ~shared, names), int(shared.sum())


def _from_long(cells: pd.DataFrame, shown: str) -> Labels:
    ids = pa.Table.from_pandas(cells[["id"]], preserve_index=False)["id"].combine_chunks()
    parts = pc.extract_regex(ids, r"^(?P<slice>.+)_(?P<name>[^_]+)$")
    names = pc.utf8_lower(pc.struct_field(parts, "name"))
    place = pc.index_in(names, pa.array(CLASSES, names.type)).to_numpy(zero_copy_only=False)
    unknown = np.isnan(place)
    if unknown.any():
        line = cells.index[unknown.argmax()]
        raise ValueError(
            f"--labels {shown}: line {line}: no class in this ID; it must end in one of _{', _'.join(CLASSES)}"
        )
    values = zeros_and_ones(cells["label"], shown)
    slices = pc.dictionary_encode(pc.struct_field(parts, "slice"))
    codes = slices.indices.to_numpy()
    return _merged(codes, slices.dictionary.to_pylist(), place.astype(np.int64), values)


def _from_wide(cells: pd.DataFrame, columns: dict[str, str], shown: str) -> tuple[Level, Labels]:
    id_name = _id_column(cells, columns, shown)
    named = [name for name in CLASSES if name in columns]
    if not named:
        hint = _near(list(cells.columns), list(CLASSES)) or "rename the columns that hold the labels"
        raise ValueError(
            f"--labels {shown}: no column is named like a class ({', '.join(CLASSES)}); {_named(cells)}; {hint}"
        )
    ids = cells[columns[id_name.lower()]]
    if ids.eq("").any():
        line = cells.index[ids.eq("").to_numpy().argmax()]
        raise ValueError(f"--labels {shown}: line {line}: {id_name} is empty; fill it in or drop the line")
    values = np.stack([zeros_and_ones(cells[columns[name]].rename(name), shown) for name in named], axis=1)
    codes, distinct = pd.factorize(ids)
    repeated = int(pd.DataFrame(values).assign(id=codes).duplicated().sum())
    places = np.array([CLASSES.index(name) for name in named])
    labels = _merged(codes.repeat(len(named)), distinct.tolist(), np.tile(places, len(codes)), values.ravel(), repeated)
    return ID_COLUMNS[id_name], labels


def _id_column(cells: pd.DataFrame, columns: dict[str, str], shown: str) -> str:
    found = next((name for name in ID_COLUMNS if name.lower() in columns), None)
    if found is not None:
        return found
    header = list(cells.columns)
    if any(re.search(rf"_({'|'.join(CLASSES)})$|^[01]\b", name, re.IGNORECASE) for name in header):
        raise ValueError(
            f'--labels {shown}: its first line is a row of labels; write the names of the columns above it, such as "ID,Label"'
        )
    hint = _near(header, list(ID_COLUMNS)) or "rename the column that holds the ids"
    raise ValueError(
        f'--labels {shown}: neither a column ID and a column Label (the challenge\'s long CSV, "ID,Label") nor a column '
        f"{', '.join(ID_COLUMNS)}; {_named(cells)}; {hint}"
    )


def _named(cells: pd.DataFrame) -> str:
    return f"its columns are {', '.join(cells.columns)}"[:200]


def _near(header: list[str], names: list[str]) -> str:
    by_lower = {name.lower(): name for name in names}
    pairs = [(given, near) for given in header for near in difflib.get_close_matches(given.lower(), by_lower, n=1)]
    return f"did you mean {', '.join(f'{by_lower[near]} by {given}' for given, near in pairs)}?" if pairs else ""


def _merged(
    codes: np.ndarray, ids: list[Any], place: np.ndarray, values: np.ndarray, repeated: int | None = None
) -> Labels:
    """From one entry a label to one row an id; repeated rows are counted unless given.

    Args:
        codes: (labels,) which of ``ids`` each is of. place: (labels,) of its class in CLASSES. values: 0, 1 or NaN.
    """
    again, distinct = pd.factorize(np.array([bare(text) for text in ids], dtype=object))
    cell = again[codes] * len(CLASSES) + place
    shape, cells = (len(distinct), len(CLASSES)), len(distinct) * len(CLASSES)
    absent, present = (np.bincount(cell[values == v], minlength=cells).reshape(shape) for v in (0, 1))
    if repeated is None:
        repeated = int((absent - 1).clip(0).sum() + (present - 1).clip(0).sum())
    table = np.where(present > 0, 1.0, np.where(absent > 0, 0.0, np.nan))
    stated = np.array([not np.isnan(column).all() for column in table.T])

    both = (absent > 0) & (present > 0)
    conflicts = {}
    for row in np.flatnonzero(both.any(axis=1)):
        named = sorted(name for name, is_both in zip(CLASSES, both[row], strict=True) if is_both)
        conflicts[str(distinct[row])] = f"the label file says both 0 and 1 for {', '.join(named)}"
    table[both.any(axis=1)] = np.nan
    types: np.ndarray = table[:, :-1]  # views: what is written to them is in the table
    any_: np.ndarray = table[:, -1]
    one, none = (types == 1).any(axis=1), (types == 0).all(axis=1)
    wrong = ((any_ == 0) & one) | ((any_ == 1) & none)
    conflicts |= dict.fromkeys(map(str, distinct[wrong]), '"any" is not the OR of the five types')
    table[wrong] = np.nan
    unsaid = np.isnan(any_) & ~wrong
    any_[unsaid & one], any_[unsaid & none] = 1.0, 0.0
    types[np.isnan(types) & (table[:, -1:] == 0) & stated[:-1]] = 0.0
    frame = pd.DataFrame(table, pd.Index(distinct, dtype="str", name="slice_id"), list(CLASSES))
    return Labels(frame, repeated, conflicts, tuple(np.array(CLASSES)[stated].tolist()))
