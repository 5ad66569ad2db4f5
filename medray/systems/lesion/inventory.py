"""From the headers of all files and the cases that they make to the scans that can be used, and why the others cannot."""

from __future__ import annotations

from typing import Any

import pandas as pd

from medray.shards.inventory import Inventory, Refused
from medray.systems.lesion.cases import MASK, PATIENT, VISIT, Cases, in_order, scan_name


def assemble(scan: pd.DataFrame, cases: Cases) -> Inventory:
    """Join files with cases: a case whose files are not all there, or are no images, is set aside with the reason.

    Args:
        scan: path, size_bytes, status ("ok" or "quarantined"), reason, and the columns of BrainMR.scan_schema.
    Raises:
        Refused: no case can be used.
    """
    table = scan.sort_values("path", kind="stable").reset_index(drop=True)
    status = dict(zip(table["path"], zip(table["status"], table["reason"], strict=True), strict=True))
    below: dict[str, list[str]] = {}  # folder → files in it, for series of DICOM files
    for path in table["path"]:
        below.setdefault(path.rpartition("/")[0], []).append(path)
    rows: list[dict[str, Any]] = []
    lost: dict[str, str] = {}  # path → why its case is set aside
    scan_of: dict[str, str | None] = {}  # path → the scan that uses it
    why_lost: list[str] = []
    named: set[str] = set()
    for patient, visits in cases.table.groupby(PATIENT, sort=True):
        number = {visit: str(i) for i, visit in enumerate(in_order(visits[VISIT].tolist()), start=1)}
        for case in visits.to_dict("records"):
            files, reason = _files(case, cases, status, below)
            reason = reason or next(iter(cases.doubtful.get((case[PATIENT], case[VISIT]), {}).values()), None)
            paths = [path for own in files.values() for path in own]
            named |= set(paths)
            if reason:
                why_lost.append(reason)
                lost |= dict.fromkeys(paths, f"its case is set aside: {reason}")
                continue
            scan_id = scan_name(case)
            rows.append({"scan_id": scan_id, "patient_id": patient, "visit": number[case[VISIT]], "files": files})
            for path in paths:
                scan_of[path] = None if path in scan_of else scan_id  # of several scans: of none
    paths = table["path"]
    table["item_id"] = paths.map(scan_of).astype(object).where(paths.isin(scan_of), None)
    aside = table["status"].eq("ok") & ~paths.isin(scan_of) & paths.isin(lost)  # another case may have the file too
    table.loc[aside, "reason"] = paths[aside].map(lost)
    table.loc[aside, "status"] = "quarantined"
    table.loc[~table["path"].isin(named), ["status", "reason"]] = ["unused", "no case needs it"]
    if not rows:
        first = f"; the first reason: {why_lost[0]}" if why_lost else ""
        raise Refused(f"none of {len(cases.table)} cases can be used{first}", table)
    lines = [f"{len(why_lost):,} cases are set aside; the first reason: {why_lost[0]}"] if why_lost else []
    without = sum(MASK not in row["files"] for row in rows)
    if without and without < len(rows):
        lines.append(f"{without:,} of {len(rows):,} scans have no mask: they are predicted, never trained on")
    return Inventory(table, pd.DataFrame(rows), tuple(lines))


def _files(
    case: dict[str, Any], cases: Cases, status: dict[str, tuple[str, str]], below: dict[str, list[str]]
) -> tuple[dict[str, list[str]], str | None]:
    """Name → paths of a case, and why it cannot be used. The reasons hold no path: a path may name a patient."""
    found: dict[str, list[str]] = {}
    reason = None
    for name in (*cases.channels, MASK):
        path = case[name]
        if not isinstance(path, str):
            continue
        own = [path] if path in status else below.get(path, [])
        if not own:
            reason = reason or f"{name}: its file is not there, or not below the table's folder"
        for one in own:
            kind, why = status[one]
            if kind != "ok":
                reason = reason or f"{name}: {why}"
        found[name] = own
    if not any(name in found for name in cases.channels):
        reason = reason or "it has no channel"
    return found, reason
