"""From the headers of all files and the labels to the slices that can be used, and why the others cannot."""

from __future__ import annotations

import numpy as np
import pandas as pd

from medray.imaging.geometry import plane_name, tilt_degrees
from medray.shards.inventory import Inventory, Refused
from medray.shards.names import bare, file_name
from medray.systems.ich.classes import CLASSES
from medray.systems.ich.labels import Labels, label_ids
from medray.systems.ich.stacks import STACK_COLUMNS, stack

MOST_OF_A_STUDY = 0.9
"""Of its slices: as many have to name one patient, or the study belongs to nobody."""


def assemble(scan: pd.DataFrame, labels: Labels | None) -> Inventory:
    """Join headers with labels, set aside what is a duplicate or no axial slice, and make stacks of the rest.

    Args:
        scan: path, size_bytes, status ("ok" or "quarantined"), reason, and the columns of HeadCT.scan_schema.
        labels: None for studies without labels.
    Raises:
        Refused: no usable slice, or labels of which none belongs to a slice.
    """
    table = scan.sort_values(["path", "frame"], kind="stable", na_position="first").reset_index(drop=True)
    _set_aside(
        table,
        table["status"].eq("ok") & table.duplicated("item_id"),
        "duplicate",
        "the same SOPInstanceUID as another file",
    )
    no_slices = _no_axial_slices(table[table["status"] == "ok"])
    table.loc[no_slices.index, "status"] = "quarantined"
    table.loc[no_slices.index, "reason"] = no_slices
    for reason, rows in _mixed_studies(table[table["status"] == "ok"]).items():
        _set_aside(table, table.index.isin(rows), "quarantined", reason)
    if not table["status"].eq("ok").any():
        counts = table["reason"].value_counts()
        raise Refused(
            f"none of {len(table)} files is a usable CT slice; most often: {counts.index[0]} ({counts.iloc[0]})", table
        )

    stacks, warnings = stack(table[table["status"] == "ok"])
    table[list(STACK_COLUMNS)] = stacks.reindex(table.index)
    table["label_id"] = table["item_id"]
    table[list(CLASSES)] = np.nan
    if labels is not None:
        try:
            warnings += _join(table, labels)
        except ValueError as error:
            raise Refused(str(error), table) from error
    slices = table[table["status"].isin(["ok", "unlabelled"])].copy()
    slices["slice_id"] = slices["item_id"]
    slices["index"] = slices["index"].astype(np.int32)
    return Inventory(table, slices, tuple(warnings))


def _mixed_studies(usable: pd.DataFrame) -> dict[str, pd.Index]:
    """Reason → rows of studies that name more than one patient.

    It may be one patient under two names, whose slices would be on both sides of a fold, or two patients under one study:
    no telling. A few odd slices among many are damaged or astray, and only they fall out.
    """
    if usable.empty:
        return {}
    counts = usable.groupby(["study_id", "patient_id"]).size()
    of_study = counts.groupby("study_id")
    mixed = of_study.size() > 1
    clear = mixed & (of_study.max() >= MOST_OF_A_STUDY * of_study.sum())
    owner = pd.Series({study: patient for study, patient in of_study.idxmax()}, dtype=object)
    astray = usable["study_id"].map(clear) & (usable["patient_id"] != usable["study_id"].map(owner))
    unclear = usable["study_id"].map(mixed & ~clear)
    return {
        "its study names more than one patient": usable.index[unclear],
        "most slices of its study name another patient": usable.index[astray],
    }


def _no_axial_slices(usable: pd.DataFrame) -> pd.Series:
    """Row → reason: scouts (ImageType value 3, PS3.3 C.8.2.1.1.1, or FrameType) and planes that are not axial. A study's
    maximum must not come from them, nor a network learn from them."""
    reasons = pd.Series(None, index=usable.index, dtype=object)
    if len(usable):
        cuts, number = np.unique(np.array(usable["orientation_rc"].tolist()), axis=0, return_inverse=True)
        planes = [(plane_name(cut), round(tilt_degrees(cut))) for cut in cuts]
        said = [None if name == "axial" else f"a {name} plane, {tilt} degrees from axial" for name, tilt in planes]
        reasons[:] = np.array(said, dtype=object)[number.ravel()]
    reasons[["LOCALIZER" in list(codes)[2:] for codes in usable["image_type"]]] = (
        "a scout (its image type is LOCALIZER)"
    )
    return reasons.dropna()


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
