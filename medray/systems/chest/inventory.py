"""From the headers of all files and the labels to the films that can be used, and why the others cannot."""

from __future__ import annotations

import pandas as pd

from medray.shards.films import film_names, first_known, image_keys, mark, rows_of
from medray.shards.inventory import Inventory, Refused
from medray.systems.chest.classes import FINDINGS
from medray.systems.chest.labels import Labels
from medray.systems.chest.table import nih_patients

LATERAL = ("LL", "RL", "LAT", "LATERAL", "L")
"""View Positions (0018,5101) from the side, as DICOM and public tables write them."""


def assemble(scan: pd.DataFrame, labels: Labels | None) -> Inventory:
    """Join headers with labels, find duplicates, and set lateral films aside: the findings are those of frontal ones.

    A film belongs to a row of the labels by its SOPInstanceUID or by its path: by as many folders of it as the row gives,
    or by the file's name alone where no other row has it. A film without a row is "unlabelled": predicted, never
    trained on. What the labels say of view, age, sex and patient comes before what a DICOM header says.

    Args:
        scan: path, size_bytes, status ("ok" or "quarantined"), reason, and the columns of Radiograph.scan_schema.
        labels: None for films without labels.
    Raises:
        Refused: no usable film, or labels of which none belongs to a film.
    """
    table = scan.sort_values("path", kind="stable").reset_index(drop=True)
    readable = table["status"].eq("ok")
    if not readable.any():
        counts = table["reason"].value_counts()
        raise Refused(
            f"none of {len(table)} files is a usable film; most often: {counts.index[0]} ({counts.iloc[0]})"
            if len(counts)
            else "there is no file",
            table,
        )
    paths = image_keys(table["path"])
    keys = pd.Series(None, index=table.index, dtype=object)
    if labels is not None:
        keys = rows_of(table["item_id"], paths, labels.table.index).where(readable, None)
    table["item_id"] = film_names(table, paths, keys)
    mark(table, readable & table["item_id"].where(readable).duplicated(), "duplicate", "the same image as another file")

    warnings: list[str] = []
    for name in FINDINGS:
        table[name] = float("nan")
    table["split"] = None
    if labels is not None:
        try:
            warnings += _join(table, keys, labels)
        except ValueError as error:
            raise Refused(str(error), table) from error
    by_name = nih_patients(table["item_id"].astype(str))
    table["patient_id"] = first_known(table["patient_id"], by_name)
    lateral = table["view"].isin(LATERAL) & table["status"].isin(["ok", "unlabelled"])
    mark(table, lateral, "quarantined", "a lateral film: the findings are those of frontal ones")
    usable = table["status"].isin(["ok", "unlabelled"])
    if not usable.any():
        raise Refused(
            f"none of {len(table)} files is a usable film: all {int(lateral.sum())} that could be are lateral", table
        )
    nameless = usable & table["patient_id"].isna()
    if nameless.any():
        table["patient_id"] = table["patient_id"].where(~nameless, table["item_id"])
        warnings.append(f"{int(nameless.sum())} films name no patient: each counts as one of its own")
    rows = table[usable].copy()
    rows["image_id"] = rows["item_id"]
    if labels is None or labels.split is None:
        rows = rows.drop(columns="split")
    return Inventory(table, rows, tuple(warnings))


def _join(table: pd.DataFrame, keys: pd.Series, labels: Labels) -> list[str]:
    known = keys.notna()
    ok = table["status"].eq("ok")
    if not (ok & known).any():
        raise ValueError(
            f"--labels: none of its {len(labels.table)} rows belongs to one of {int(ok.sum())} films; "
            "they must name the files (00000013_005.png, or with folders) or be SOPInstanceUIDs"
        )
    joined = labels.table.reindex(keys.where(known, "")).reset_index(drop=True)
    table[list(FINDINGS)] = joined[list(FINDINGS)].to_numpy()
    for name in ("patient_id", "view", "sex"):
        table[name] = first_known(joined[name], table[name])
    table["age_years"] = joined["age_years"].fillna(table["age_years"].astype(float))
    table["split"] = first_known(joined["split"], table["split"])

    contradicted = ok & keys.isin(list(labels.conflicts))
    table.loc[contradicted, "status"] = "unlabelled"
    table.loc[contradicted, "reason"] = keys[contradicted].map(labels.conflicts)
    mark(table, ok & ~known, "unlabelled", "not in the label file")
    blank = table["status"].eq("ok") & table[list(FINDINGS)].isna().all(axis=1)
    mark(table, blank, "unlabelled", "the label file knows no finding of it")
    lines = [(int((~labels.table.index.isin(keys)).sum()), "films of the label file are not there")]
    lines += [(int((ok & ~known).sum()), "films are not in the label file: they are predicted, never trained on")]
    if labels.split is not None:
        nowhere = table["status"].eq("ok") & table["split"].isna()
        mark(table, nowhere, "unlabelled", "in none of the splits")
        table.loc[nowhere, list(FINDINGS)] = float("nan")
        lines += [(int(nowhere.sum()), "films are in none of the splits: they are predicted, never trained on")]
    return [*labels.warnings, *(f"{count:,} {what}" for count, what in lines if count)]
