"""From the headers of all files to the cases that can be used, and why the others cannot."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from typing import Any

import pandas as pd

from medray.shards.inventory import Inventory, Refused
from medray.systems.headneck.cases import DOUBT, FLAG, ORGANS, PATIENT, SCAN, Cases, scan_name
from medray.systems.headneck.names import organ_of
from medray.systems.headneck.source import BETWEEN, CT, STRUCTURES
from medray.tasks.ct_rows import NO_SLICE

NAMES_SHOWN = 12
WANTED = "name a table, or a folder of patients (<patient>/ct.nii.gz, or DICOM files)"
ANOTHER_SERIES = "its images are of a series that is not here; give that CT too"
SEVERAL_SETS = "several structure sets of its series; leave the one to learn from"


def assemble(scan: pd.DataFrame, cases: Cases) -> Inventory:
    """Join files to cases: a CT, and what is drawn on it. A case of which a file cannot be used is set aside with the reason.

    Args:
        scan: path, size_bytes, status ("ok" or "quarantined"), reason, and the columns of PlanningCT.scan_schema.
    Raises:
        Refused: no case can be used, or an organ that is asked for is drawn in none.
    """
    table = scan.sort_values("path", kind="stable").reset_index(drop=True)
    told = cases.table if cases.table is not None else _by_headers(table, cases.drawn)
    status = dict(zip(table["path"], zip(table["status"], table["reason"], strict=True), strict=True))
    below: dict[str, list[str]] = {}  # folder → files in it, for series of DICOM files
    for path in table["path"]:
        below.setdefault(path.rpartition("/")[0], []).append(path)
    drawn_in = dict(zip(table["path"], table["drawn"], strict=True))
    sets = {*table.loc[table["kind"] == STRUCTURES, "path"]}
    rows: list[dict[str, Any]] = []
    lost: dict[str, str] = {}
    scan_of: dict[str, str | None] = {}
    why_lost: list[str] = []
    organs, unknown, visits = Counter[str](), Counter[str](), Counter[str]()
    for case in told.sort_values([PATIENT, SCAN], kind="stable").to_dict("records"):
        names = _named(drawn_in.get(case[STRUCTURES])) if case[STRUCTURES] else list(case[ORGANS])
        by_organ: dict[str, list[str]] = {}
        for name in names:
            organ = organ_of(name, cases.names)
            if organ is None:
                unknown[name] += 1
            else:
                by_organ.setdefault(organ, []).append(name)
        files, reason = _files(case, cases, by_organ, status, below, sets)
        paths = [path for own in files.values() for path in own]
        if reason:
            why_lost.append(reason)
            lost |= dict.fromkeys(paths, f"its case is set aside: {reason}")
            continue
        organs.update([*by_organ])
        name = scan_name(case)
        visits[case[PATIENT]] += 1  # a number: what a scan is called may be its series, or a date
        visit = str(visits[case[PATIENT]])
        rows.append({"scan_id": name, "patient_id": case[PATIENT], "visit": visit, "files": files})
        for path in paths:
            scan_of[path] = None if path in scan_of else name  # of several cases: of none
    paths = table["path"]
    table["item_id"] = paths.map(scan_of).astype(object).where(paths.isin(scan_of), None)
    aside = table["status"].eq("ok") & ~paths.isin(scan_of) & paths.isin(lost)
    table.loc[aside, "reason"] = paths[aside].map(lost)
    table.loc[aside, "status"] = "quarantined"
    elsewhere = table["kind"].eq(STRUCTURES) & table["status"].eq("ok") & ~paths.isin(scan_of) & cases.drawn
    of_several = elsewhere & table["series_id"].map(
        lambda series: _series(series) & {*table.loc[table["kind"] == "dicom", "series_id"]} != set()
    )
    table.loc[elsewhere, ["status", "reason"]] = ["quarantined", ANOTHER_SERIES]
    table.loc[of_several, "reason"] = SEVERAL_SETS
    rest = table["status"].eq("ok") & ~paths.isin(scan_of)
    table.loc[rest, ["status", "reason"]] = ["unused", "no case needs it"]
    if not len(told):
        raise Refused(f"{FLAG}: no CT among {len(table):,} files; {WANTED}", table)
    if not rows:
        first = f"; the first reason: {why_lost[0]}" if why_lost else ""
        raise Refused(f"{FLAG}: none of {len(told)} cases can be used{first}", table)
    nowhere = [organ for organ in cases.organs if not organs[organ]]
    if nowhere:
        raise Refused(
            f"--organs {' '.join(nowhere)}: drawn in no case that can be used; there are {_counted(organs) or 'none'}, and names that are no organ's here: "
            f"{_counted(unknown) or 'none'} (--names gives them one)",
            table,
        )
    lines = [f"{len(why_lost):,} cases are set aside; the first reason: {why_lost[0]}"] if why_lost else []
    if unknown:
        lines.append(f"names that are no organ's here: {_counted(unknown)}; --names gives them one")
    for some, why in ((elsewhere & ~of_several, ANOTHER_SERIES), (of_several, SEVERAL_SETS)):
        if some.any():
            lines.append(f"{int(some.sum()):,} structure sets are left out: {why}")
    notes = (
        []
        if not cases.drawn
        else [f"organs, and in how many of {len(rows):,} cases they are drawn: {_counted(organs)}"]
    )
    return Inventory(table, pd.DataFrame(rows), tuple(lines), tuple(notes))


def _by_headers(table: pd.DataFrame, drawn: bool) -> pd.DataFrame:
    """A case for each series of a CT's slices, with the structure set that was drawn on it. Of several sets the case says so."""
    usable = table[table["status"] == "ok"]
    sets: dict[str, list[str]] = {}
    for one in usable[(usable["kind"] == STRUCTURES) & drawn].to_dict("records"):
        for series in sorted(_series(one["series_id"])):
            sets.setdefault(series, []).append(one["path"])
    folder = table["path"].str.rpartition("/")[0]
    slices = usable[usable["kind"] == "dicom"]
    series_in = slices["series_id"].groupby(folder[slices.index]).agg(set)
    broken = table[table["status"].eq("quarantined") & ~table["reason"].fillna("").str.match(NO_SLICE)]
    lost_in = broken["reason"].groupby(folder[broken.index]).agg(list)
    rows = []
    for series, own in slices.groupby("series_id"):
        patients = own["patient"].fillna("").unique()
        # of a folder with several series nobody knows whose slice it was; a gap in the middle of one is seen when it is read
        lost = [
            why
            for place in folder[own.index].unique()
            if series_in[place] == {series}
            for why in lost_in.get(place, [])
        ]
        rows.append({
            PATIENT: patients[0] if len(patients) == 1 else "", SCAN: series, CT: own["path"].tolist(),
            STRUCTURES: sets[series][0] if len(sets.get(series, [])) == 1 else None, ORGANS: {},
            DOUBT: SEVERAL_SETS if len(sets.get(series, [])) > 1
            else "its slices name no patient, or several" if len(patients) != 1 or not patients[0]
            else f"{len(lost)} files beside its slices cannot be read, and may be slices of it ({lost[0]}); export it anew" if lost else None,
        })  # fmt: skip
    return pd.DataFrame(rows, columns=[PATIENT, SCAN, CT, STRUCTURES, ORGANS, DOUBT], dtype=object)


def _files(
    case: Mapping[str, Any],
    cases: Cases,
    by_organ: Mapping[str, list[str]],
    status: Mapping[str, tuple[str, str]],
    below: Mapping[str, list[str]],
    sets: Collection[str],
) -> tuple[dict[str, list[str]], str | None]:
    """Name → paths of a case, and why it cannot be used; ``sets`` are the structure sets' paths. The reasons hold no path: a path may name a patient."""
    files: dict[str, list[str]] = {}
    reason = case.get(DOUBT)
    ct = case[CT]
    files[CT] = ct if isinstance(ct, list) else [ct] if ct in status else list(below.get(ct, []))
    if not isinstance(ct, list) and ct not in status:
        # a folder as it was exported, with its plan, structure set or list
        files[CT] = [
            p for p in files[CT] if p not in sets and not (status[p][0] != "ok" and NO_SLICE.match(status[p][1]))
        ]
    if not files[CT]:
        reason = reason or "ct: its file is not there, or not below the table's folder"
    if case[STRUCTURES]:
        files[STRUCTURES] = [case[STRUCTURES]] if case[STRUCTURES] in status else []
        if not files[STRUCTURES]:
            reason = reason or "structures: its file is not there, or not below the table's folder"
    for organ, written in by_organ.items():
        if organ not in cases.organs:
            continue
        if len(written) > 1:
            reason = (
                reason or f"{organ}: {len(written)} masks or structures of it; leave one, or name them with --names"
            )
        if not case[STRUCTURES]:
            files[organ] = [case[ORGANS][written[0]]]
    for name, own in files.items():
        for path in own:
            kind, why = status[path]
            if kind != "ok":
                reason = reason or f"{name}: {why}"
    return files, reason


def _named(drawn: Any) -> list[str]:
    """Names in a cell of a header scan: a list or an array; nothing where the file is not there."""
    return [] if drawn is None or isinstance(drawn, float) else [str(name) for name in drawn]


def _series(cell: Any) -> set[str]:
    """Series that a structure set was drawn on."""
    return {*cell.split(BETWEEN)} if isinstance(cell, str) else set()


def _counted(names: Counter[str]) -> str:
    shown = ", ".join(f"{name} {count}" for name, count in names.most_common(NAMES_SHOWN))
    return shown + (f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else "")
