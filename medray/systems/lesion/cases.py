"""Which files make a case, a visit of a patient: told by a table, or by the BIDS layout."""

from __future__ import annotations

import functools
import posixpath
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from medray.shards.case_table import files_below, files_of, is_table, path_in
from medray.shards.cells import read_cells
from medray.shards.packed import read_unpacked
from medray.shards.store import Store

PATIENT, VISIT, MASK = "patient", "visit", "mask"
FLAG = "--images"

_BIDS = re.compile(
    r"sub-(?P<patient>[A-Za-z0-9]+)(?:_ses-(?P<visit>[A-Za-z0-9]+))?(?P<entities>(?:_[a-z]+-[A-Za-z0-9]+)*)"
    r"_(?P<suffix>FLAIR|T1w|T2w|PDw|mask|dseg)\.nii(?:\.gz)?$"
)
_SUFFIXES = {"FLAIR": "flair", "T1w": "t1", "T2w": "t2", "PDw": "pd", "mask": MASK, "dseg": MASK}
_ORDER = ("flair", "t1", "t1c", "t2", "pd")


@dataclass(frozen=True)
class Cases:
    """One row a case: patient and visit as they are named, then a path for each channel and for the mask; None where there
    is none. Paths are those that ``Store.files`` lists; one may be a folder with the DICOM files of a series."""

    table: pd.DataFrame
    channels: tuple[str, ...]
    doubtful: dict[tuple[str, str], dict[str, str]]  # patient and visit → channel or mask → why it cannot be told

    def having(self, channels: Sequence[str], masks: bool) -> Cases:
        """These channels, in their order, and the masks where they are wanted: what is not asked for can spoil no case. One that
        no case has is there of none.

        Raises:
            ValueError: no case has any of them.
        """
        if not {*channels} & {*self.channels}:
            raise ValueError(f"{FLAG}: has {', '.join(self.channels)}, and the run wants {', '.join(channels)}")
        table = self.table[[PATIENT, VISIT]].copy()
        for name in channels:
            table[name] = self.table.get(name, None)
        table[MASK] = self.table[MASK] if masks else None
        wanted = {*channels, *([MASK] if masks else [])}
        doubtful = {case: {n: why for n, why in own.items() if n in wanted} for case, own in self.doubtful.items()}
        return Cases(table, tuple(channels), {case: own for case, own in doubtful.items() if own})

    def uses(self, path: str) -> bool:
        """Whether a file is one that a case names, or lies in a folder that one names."""
        return path in self._named or path.rpartition("/")[0] in self._named

    @functools.cached_property
    def _named(self) -> frozenset[str]:
        paths = self.table[[*self.channels, MASK]].to_numpy().ravel()
        return frozenset(path for path in paths if isinstance(path, str))


def read_cases(uri: str) -> Cases:
    """By path or URI: a table ``patient,visit,flair,t1,…,mask`` in CSV or TSV, or a folder in the BIDS layout.

    In a table every column but patient, visit and mask is a channel, in this order; a cell is a file, or a folder of DICOM
    files, from the table's own folder on. A missing visit is the only one. An empty cell is a file that is not there.

    Raises:
        ValueError: no table, a column that is missing, a case that is listed twice, or a folder without scans.
    """
    if is_table(uri):
        return _from_table(uri)
    return _from_layout(Store(uri))


def _from_table(uri: str) -> Cases:
    data, shown = read_unpacked(uri, FLAG)
    cells = read_cells(data, shown, FLAG)
    empty = [name for name in cells.columns if re.fullmatch(r" \(\d+\)", name) and (cells[name] == "").all()]
    cells = cells.drop(columns=empty)  # of commas at the ends of lines
    cells.columns = [name.lower() for name in cells.columns]
    if PATIENT not in cells:
        raise ValueError(
            f"{FLAG} {shown}: no column patient; found {', '.join(cells.columns)}; wanted patient, visit, a column for "
            "each channel, such as flair and t1, and mask"
        )
    channels = tuple(name for name in cells.columns if name not in (PATIENT, VISIT, MASK))
    if not channels:
        raise ValueError(f"{FLAG} {shown}: no column names a channel; found {', '.join(cells.columns)}")
    if odd := [name for name in channels if not re.fullmatch(r"[a-z][a-z0-9]*", name)]:
        raise ValueError(f"{FLAG} {shown}: the column {odd[0]!r} is no channel's name; use letters and digits: t1c")
    if VISIT not in cells:
        cells[VISIT] = ""
    if MASK not in cells:
        cells[MASK] = ""
    nameless = cells.index[cells[PATIENT] == ""]
    if len(nameless):
        raise ValueError(f"{FLAG} {shown}: line {nameless[0]} names no patient")
    twice = cells.duplicated([PATIENT, VISIT], keep=False)
    if twice.any():
        lines = cells.index[twice & (cells[[PATIENT, VISIT]] == cells[twice].iloc[0][[PATIENT, VISIT]]).all(axis=1)]
        raise ValueError(f"{FLAG} {shown}: lines {lines[0]} and {lines[1]} are the same visit of one patient; keep one")
    names = pd.Series([scan_name(case) for case in cells[[PATIENT, VISIT]].to_dict("records")], index=cells.index)
    for name in names[names.duplicated()]:
        one, other = names.index[names == name][:2]
        raise ValueError(
            f"{FLAG} {shown}: lines {one} and {other} are both called {name} by patient and visit; rename one of them"
        )
    folder = Store(files_of(uri))
    table = cells[[PATIENT, VISIT]].reset_index(drop=True)
    for name in (*channels, MASK):
        table[name] = pd.Series([path_in(folder, cell) for cell in cells[name]], dtype=object)
    return Cases(table, channels, {})


def _from_layout(folder: Store) -> Cases:
    found: dict[tuple[str, str], dict[str, list[str]]] = {}
    for file in files_below(folder, FLAG):
        match = _BIDS.match(posixpath.basename(file.path))
        if match is None:
            continue
        channel = _SUFFIXES[match["suffix"]]
        entities = match["entities"] or ""
        if channel == MASK and not _of_lesions(match["suffix"], entities.lower()):
            continue
        place = file.path.removeprefix(folder.root)
        if "/sourcedata/" in place or (channel != MASK and "/derivatives/" in place):
            continue  # what the scans were made from; or made from them, in another space
        if channel == "t1" and "_ce-" in entities:
            channel = "t1c"
        files = found.setdefault((match["patient"], match["visit"] or ""), {})
        files.setdefault(channel, []).append(file.path)
    if not found:
        raise ValueError(
            f"{FLAG} {folder.uri}: neither a table (.csv, .tsv) nor a folder in the BIDS layout: no file is named like "
            "sub-01_ses-1_FLAIR.nii.gz"
        )
    there = {channel for files in found.values() for channel in files}
    channels = tuple(name for name in _ORDER if name in there)
    if not channels:
        raise ValueError(f"{FLAG} {folder.uri}: there are masks and no scans beside them")
    doubtful = {
        case: {n: f"{len(own)} files of its {n}; name one in a table" for n, own in files.items() if len(own) > 1}
        for case, files in found.items()
    }
    rows = [
        {PATIENT: patient, VISIT: visit} | {name: next(iter(files.get(name, [])), "") for name in (*channels, MASK)}
        for (patient, visit), files in sorted(found.items())
    ]
    table = pd.DataFrame(rows).astype(object)
    plain = table.where(table.ne("") | table.columns.isin([PATIENT, VISIT]), None)
    return Cases(plain, channels, {case: own for case, own in doubtful.items() if own})


def _of_lesions(suffix: str, entities: str) -> bool:
    """Whether a mask is of lesions: it says so, or it says nothing. Masks of the brain and maps of tissues lie beside scans too."""
    return "_label-lesion" in entities or (
        suffix == "mask" and "_label-" not in entities and "_desc-brain" not in entities
    )


def scan_name(case: Mapping[str, Any]) -> str:
    """What a case of the table is called, before it has a pseudonym."""
    return "_".join(filter(None, [str(case[PATIENT]), case[VISIT]]))


def site_names(pairs: Sequence[str]) -> dict[int, str]:
    """ "1=periventricular" → number of an atlas and its name. Raises ValueError for other text."""
    found: dict[int, str] = {}
    for pair in pairs:
        number, _, name = pair.partition("=")
        if not re.fullmatch("[0-9]{1,9}", number) or not name:
            raise ValueError(f"--site-names {pair}: write a number and a name, such as 1=periventricular")
        if int(number) in found:
            raise ValueError(f"--site-names {pair}: {number} has a name already, {found[int(number)]}")
        found[int(number)] = name
    return found


def in_order(visits: Sequence[str]) -> list[str]:
    """Names of visits in the order in which a person would list them: ses-2 before ses-10."""
    return sorted(visits, key=lambda name: [int(p) if i % 2 else p for i, p in enumerate(re.split(r"(\d+)", name))])
