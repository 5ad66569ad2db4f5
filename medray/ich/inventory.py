"""From the headers of all files and the labels to the slices that can be used, and why the others cannot."""

from __future__ import annotations

import numpy as np
import pandas as pd

from medray.ich.classes import CLASSES
from medray.ich.labels import Labels, label_ids
from medray.imaging.geometry import positions_along_normal_mm, stack_order
from medray.imaging.types import Header
from medray.shards.inventory import Inventory
from medray.shards.names import bare, file_name


def assemble(scan: pd.DataFrame, labels: Labels | None) -> Inventory:
    """Join headers with labels, find duplicates, and order each series along its stack's normal.

    Args:
        scan: path, size_bytes, status ("ok" or "quarantined"), reason, and the columns of HeadCT.scan_schema.
        labels: None for studies without labels.
    Raises:
        ValueError: no usable slice, or labels of which none belongs to a slice.
    """
    table = scan.sort_values(["path", "frame"], kind="stable", na_position="first").reset_index(drop=True)
    _set_aside(
        table,
        table["status"].eq("ok") & table.duplicated("item_id"),
        "duplicate",
        "the same SOPInstanceUID as another file",
    )
    usable = table[table["status"] == "ok"]
    patients_of_study = usable.groupby("study_id")["patient_id"].nunique()
    mixed = table["study_id"].isin(patients_of_study.index[patients_of_study > 1]) & table["status"].eq("ok")
    _set_aside(table, mixed, "quarantined", "its study names more than one patient")
    if not table["status"].eq("ok").any():
        counts = table["reason"].value_counts()
        raise ValueError(
            f"none of {len(table)} files is a usable CT slice; most often: {counts.index[0]} ({counts.iloc[0]})"
        )

    warnings = []
    table["label_id"] = table["item_id"]
    table[list(CLASSES)] = np.nan
    if labels is not None:
        warnings += _join(table, labels)
    slices = table[table["status"].isin(["ok", "unlabelled"])].copy()
    slices["slice_id"] = slices["item_id"]
    _order_stacks(slices)
    return Inventory(table, slices, tuple(warnings))


def _join(table: pd.DataFrame, labels: Labels) -> list[str]:
    """Labels of each slice, NaN where a class is unknown; those without any are "unlabelled"."""
    ok = table["status"].eq("ok")
    by_id = labels.table.set_axis(labels.table.index.map(bare), axis=0)
    ids, shared = label_ids(table.loc[ok, "item_id"], table.loc[ok, "path"].map(file_name), by_id.index)
    table.loc[ok, "label_id"] = ids
    known = ok & table["label_id"].isin(by_id.index)
    if not known.any():
        raise ValueError(
            f"--labels: none of its {len(by_id)} ids belongs to one of {int(ok.sum())} slices; "
            "they must be SOPInstanceUIDs or file names"
        )
    table.loc[known, list(CLASSES)] = by_id.loc[table.loc[known, "label_id"]].to_numpy()
    for slice_id, reason in labels.conflicts.items():
        _set_aside(table, ok & table["label_id"].eq(slice_id), "unlabelled", reason)
    _set_aside(table, ok & ~known, "unlabelled", "not in the label file")
    values = table[list(CLASSES)].notna()
    _set_aside(
        table, table["status"].eq("ok") & ~values.any(axis=1), "unlabelled", "the label file knows no class of it"
    )
    learned = table["status"].eq("ok")
    if not learned.any():
        counts = table.loc[ok, "reason"].value_counts()
        raise ValueError(
            f"--labels: none of {int(ok.sum())} slices has a label that can be used; most often: {counts.index[0]} "
            f"({counts.iloc[0]})"
        )
    part = int((learned & ~values.all(axis=1)).sum())
    lines = {
        "slices share a file name with another: labels under it are not used": shared,
        "slices have labels of some of the classes only: they are learned from where a label is known": part,
        "labelled ids without a file": int((~by_id.index.isin(table["label_id"])).sum()),
    }
    return [*labels.notes(), *(f"{count:,} {what}" for what, count in lines.items() if count)]


def _set_aside(table: pd.DataFrame, rows: pd.Series, status: str, reason: str) -> None:
    table.loc[rows, ["status", "reason"]] = [status, reason]


def _order_stacks(slices: pd.DataFrame) -> None:
    """Set ``index`` and ``position_mm`` of each slice within its series."""
    index, position = np.zeros(len(slices), dtype=np.int32), np.zeros(len(slices))
    for places in slices.groupby("series_id", sort=True).indices.values():
        headers = [_header(row) for row in slices.iloc[places].to_dict("records")]
        order = stack_order(headers)
        index[places[order]] = np.arange(len(order))
        position[places] = positions_along_normal_mm(headers)
    slices["index"], slices["position_mm"] = index, position


def _header(row: dict) -> Header:
    return Header(
        slice_id=row["item_id"],
        patient_id=row["patient_id"],
        study_id=row["study_id"],
        series_id=row["series_id"],
        frame=int(row["frame"]),
        rows=0,
        columns=0,
        position_xyz_mm=tuple(row["position_xyz_mm"]),
        orientation_rc=tuple(row["orientation_rc"]),
        spacing_rc_mm=(row["row_spacing_mm"], row["column_spacing_mm"]),
    )
