"""From the headers of all files to the cases that can be used, and why the others cannot."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from typing import Any

import pandas as pd

from medray.shards.inventory import Inventory, Refused
from medray.systems.fewlabel.source import LABELS, SCORED
from medray.systems.fewlabel.sources import CT, NONE, Sources
from medray.tasks.ct_rows import NO_SLICE


def assemble(scan: pd.DataFrame, sources: Sources) -> Inventory:
    """Join files to cases: a CT, and what is labelled on it. A case of which a file cannot be used is set aside with the reason.

    Args:
        scan: path, size_bytes, status ("ok" or "quarantined"), reason, and the columns of FewLabelCT.scan_schema.
    Raises:
        Refused: a source of which no case can be used.
    """
    table = scan.sort_values("path", kind="stable").reset_index(drop=True)
    status = dict(zip(table["path"], zip(table["status"], table["reason"], strict=True), strict=True))
    header_patient = table.set_index("path")["patient"].dropna().to_dict()
    rows: list[dict[str, Any]] = []
    lost: dict[str, str] = {}
    item_of: dict[str, str] = {}
    why: dict[str, list[str]] = {origin.name: [] for origin in sources.origins}
    counts, labelled = Counter[str](), Counter[str]()
    for case in sources.cases:
        name = "/".join(filter(None, (case["source"], case["case"])))
        files = files_of_case(case, sources)
        slices = [path for path in files[CT] if status[path][0] == "ok" or not NO_SLICE.match(status[path][1])]
        if slices:  # a plan, a list or a preview among the slices
            files[CT] = slices
        paths = [path for own in files.values() for path in own]
        reason = next(
            (f"{_kind(what)}: {status[p][1]}" for what, own in files.items() for p in own if status[p][0] != "ok"), None
        )
        if reason:
            why[case["source"]].append(reason)
            lost |= dict.fromkeys(paths, f"its case is set aside: {reason}")
            continue
        by_header = next((header_patient[path] for path in files[CT] if path in header_patient), name)
        patient = case["patient"] or by_header
        rows.append({"scan_id": name, "patient_id": patient, "visit": "1", "origin": case["source"], "files": files})
        counts[case["source"]] += 1
        labelled[case["source"]] += any(what.startswith(LABELS) for what in files)
        item_of |= dict.fromkeys(paths, name)
    paths = table["path"]
    table["item_id"] = paths.map(item_of).astype(object).where(paths.isin(item_of), None)
    aside = table["status"].eq("ok") & ~paths.isin(item_of) & paths.isin(lost)
    table.loc[aside, "reason"] = paths[aside].map(lost)
    table.loc[aside, "status"] = "quarantined"
    named = {path for case in sources.cases for own in files_of_case(case, sources).values() for path in own}
    rest = ~paths.isin(named) | (table["status"].eq("ok") & ~paths.isin(item_of))
    table.loc[rest, ["status", "reason"]] = ["unused", "no case needs it"]
    lines = []
    for origin in sources.origins:
        who = f"source {origin.name}: " if origin.name else ""
        first = f"; the first reason: {why[origin.name][0]}" if why[origin.name] else ""
        if not counts[origin.name]:
            raise Refused(f"{sources.flag}: {who}no case can be used{first}", table)
        if origin.organs and not labelled[origin.name]:
            raise Refused(
                f"{sources.flag}: {who}no case has a mask; give masks the names of their scans, or leave its organs empty",
                table,
            )
        if why[origin.name]:
            lines.append(f"{who}{len(why[origin.name]):,} cases are set aside{first}")
        if origin.organs and labelled[origin.name] < counts[origin.name]:
            lines.append(
                f"{who}{counts[origin.name] - labelled[origin.name]:,} of {counts[origin.name]:,} cases have no "
                "mask: they are predicted, and not learned from"
            )
    sources_of = defaultdict[str, set[str]](set)
    for row in rows:
        sources_of[row["patient_id"]].add(row["origin"])
    if shared := sum(len(some) > 1 for some in sources_of.values()):
        lines.append(f"patients in several sources, each of whom stays in one fold: {shared:,}")
    notes = [f"source {o.name}: {counts[o.name]:,} cases, {_organs(o.groups)}" for o in sources.origins]
    return Inventory(table, pd.DataFrame(rows), tuple(lines), tuple(notes))


def files_of_case(case: Mapping[str, Any], sources: Sources) -> dict[str, list[str]]:
    """Name → paths, as ``FewLabelCT.encode`` wants them. Labels that are left out are not read."""
    (origin,) = (one for one in sources.origins if one.name == case["source"])
    files = {CT: list(case["ct"])}
    for kind in (LABELS, SCORED):
        for label, path in case[kind].items():
            if not label or origin.organs_of(label, kind == SCORED) != ():
                files[f"{kind} {label}"] = [path]
    return files


def _kind(what: str) -> str:
    """Of a file, to be shown: a mask that is only scored by may be called as nothing else is, such as a patient."""
    return SCORED if what.startswith(SCORED) else what


def _organs(groups: tuple[tuple[str, ...], ...]) -> str:
    return ", ".join("+".join(group) for group in groups) or f"labels {NONE}: predicted and scored only"
