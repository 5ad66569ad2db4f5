"""Which files make a planning CT and what is drawn on it: told by a table, by folders of NIfTI, or by DICOM headers."""

from __future__ import annotations

import difflib
import posixpath
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from medray.shards.case_table import files_below, files_of, is_table, path_in
from medray.shards.cells import read_cells
from medray.shards.packed import read_unpacked
from medray.shards.store import Store
from medray.systems.headneck.source import CT, STRUCTURES

PATIENT, SCAN, ORGANS = "patient", "scan", "organs"
DOUBT = "doubt"
"""Why a case cannot be used, as far as names tell."""
NO_MASKS = "organs: no mask lies there; name the folder of its masks, from the table's own folder on"
FLAG = "--images"
_COLUMNS = (PATIENT, SCAN, CT, STRUCTURES, ORGANS)
VOLUMES = re.compile(r"(?P<stem>.+?)\.(?:nii|nii\.gz|nrrd)$", re.IGNORECASE)


@dataclass(frozen=True)
class Cases:
    """What a table or folders of NIfTI say. Paths are those that ``Store.files`` lists."""

    table: pd.DataFrame | None
    """One row a case: patient, scan ("" where a patient has one), ct (a file, or a folder with a DICOM series), structures (a
    file, or None), organs (a dict of names as they are written → files). None where DICOM headers tell."""
    names: Mapping[str, str]
    """The user's own: as written → organ."""
    organs: tuple[str, ...]
    """That a run learns; empty where nobody has chosen."""
    drawn: bool = True
    """Whether what is drawn is looked at: of new scans it is not."""

    def undrawn(self) -> Cases:
        """The CTs alone."""
        bare = None if self.table is None else self.table.assign(**{STRUCTURES: None, ORGANS: [{}] * len(self.table)})
        return replace(self, table=bare, drawn=False)


def read_cases(uri: str) -> Cases:
    """By path or URI: a table ``patient,scan,ct,structures,organs``, or a folder.

    In a table ct is a file or a folder of DICOM files, structures an RT structure set, organs a folder with a mask (NIfTI,
    NRRD) an organ, all from the table's own folder on. A folder holds ``<patient>/ct.nii.gz`` (or
    ``<patient>/<scan>/ct.nii.gz``) and ``organs/`` beside it with a mask an organ, or DICOM files in any order, of which the headers tell series and structure sets.

    Raises:
        ValueError: no table, a column that is missing, a case that is listed twice, or a folder without files.
    """
    if is_table(uri):
        return Cases(_from_table(uri), {}, ())
    return Cases(_from_layout(Store(uri)), {}, ())


def _from_table(uri: str) -> pd.DataFrame:
    data, shown = read_unpacked(uri, FLAG)
    cells = read_cells(data, shown, FLAG)
    cells.columns = [name.lower() for name in cells.columns]
    if lost := [name for name in (PATIENT, CT) if name not in cells]:
        raise ValueError(
            f"{FLAG} {shown}: no column {lost[0]}; found {', '.join(cells.columns)}; wanted patient, ct, and structures or "
            "organs (and scan, where a patient has several)"
        )
    for name in (SCAN, STRUCTURES, ORGANS):
        if name not in cells:
            if meant := difflib.get_close_matches(name, [own for own in cells.columns if own not in _COLUMNS], 1):
                raise ValueError(f"{FLAG} {shown}: column {meant[0]}; call it {name}, or take it out")
            cells[name] = ""
    for name in (PATIENT, CT):
        empty = cells.index[cells[name] == ""]
        if len(empty):
            raise ValueError(f"{FLAG} {shown}: line {empty[0]} names no {name}")
    both = cells.index[(cells[STRUCTURES] != "") & (cells[ORGANS] != "")]
    if len(both):
        raise ValueError(f"{FLAG} {shown}: line {both[0]} names structures and organs; leave one of them empty")
    twice = cells.index[cells.duplicated([PATIENT, SCAN])]
    if len(twice):
        raise ValueError(f"{FLAG} {shown}: line {twice[0]} is a scan that another line names already; keep one")
    names = cells.apply(scan_name, axis=1)
    alike = cells.index[names.duplicated()]
    if len(alike):
        raise ValueError(
            f"{FLAG} {shown}: line {alike[0]}: its patient and scan make the same name as another line's; rename one"
        )
    folder = Store(files_of(uri))
    listed = [file.path for file in files_below(folder, FLAG)]
    table = cells[[PATIENT, SCAN]].reset_index(drop=True)
    for name in (CT, STRUCTURES):
        table[name] = pd.Series([path_in(folder, cell) for cell in cells[name]], dtype=object)
    table[ORGANS] = pd.Series([_masks(path_in(folder, cell), listed) for cell in cells[ORGANS]], dtype=object)
    no_masks = [bool(cell) and not masks for cell, masks in zip(cells[ORGANS], table[ORGANS], strict=True)]
    table[DOUBT] = pd.Series([NO_MASKS if lost else None for lost in no_masks], dtype=object)
    return table


def _masks(below: str | None, listed: list[str]) -> dict[str, str]:
    """Name without suffix → path of the volumes in a folder."""
    if below is None:
        return {}
    own = [path for path in listed if path.rpartition("/")[0] == below]
    found: dict[str, str] = {}
    for match, path in ((VOLUMES.match(posixpath.basename(path)), path) for path in own):
        if match:  # of Brain.nii beside Brain.nii.gz both stay, as two masks of one organ
            found[match["stem"] + " " * (match["stem"] in found)] = path
    return found


def _from_layout(folder: Store) -> pd.DataFrame | None:
    listed = [file.path for file in files_below(folder, FLAG)]
    rows: dict[str, dict[str, Any]] = {}
    for path in listed:
        match = VOLUMES.match(posixpath.basename(path))
        if match is None or match["stem"].lower() != CT:
            continue
        home = path.rpartition("/")[0]
        name = home.removeprefix(folder.root).strip("/") or posixpath.basename(folder.root)
        masks = _masks(f"{home}/{ORGANS}", listed)
        doubt = "several files are called ct; leave one" if home in rows else None
        patient, _, scan = name.partition("/")  # <patient>/<date>/ct.nii.gz: a fold has all dates of a patient
        rows[home] = {
            PATIENT: patient,
            SCAN: scan.replace("/", "_"),
            CT: path,
            STRUCTURES: None,
            ORGANS: masks,
            DOUBT: doubt,
        }
    return pd.DataFrame([*rows.values()], dtype=object) if rows else None


def scan_name(case: Mapping[str, Any]) -> str:
    """What a case is called, before it has a pseudonym."""
    return "_".join(filter(None, [str(case[PATIENT]), str(case[SCAN])]))
