"""Masks of held-out scans → scans.csv, lesions.csv, metrics.json, method.json."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from medray.metrics.lesions import Rules
from medray.shards.store import Store
from medray.systems.lesion.scores import MEANS, dice_by_class, scan_table, score
from medray.systems.lesion.source import BrainMR
from medray.systems.lesion.task import LesionTask


def conclude(
    out: Store,
    task: LesionTask,
    source: BrainMR,
    masks: pd.DataFrame,
    files: Mapping[str, str],
    thresholds: Mapping[int, float],
    rules: Rules,
) -> dict[str, Any]:
    """Score the held-out scans, and write the tables and method.json, which a prediction of new scans needs.

    Args:
        masks: the columns ``masks.SMALL`` of every held-out scan, and its fold.
        files: scan_id → beginning of the names of its files. thresholds: fold → of its run.
    Returns:
        The content of metrics.json.
    Raises:
        ValueError: no held-out scan has a mask.
    """
    masks = masks.sort_values("scan_id").reset_index(drop=True)
    table = scan_table(masks)
    write_csv(out, "scans.csv", table.assign(files=table["scan_id"].map(files)))
    several = task.classes if len(task.classes) > 1 else ()
    write_csv(out, "lesions.csv", lesion_table(masks, several))
    drawn = masks["true_ml"].notna()
    if not drawn.any():
        raise ValueError("no held-out scan has a mask: nothing can be scored; name more masks")
    metrics: dict[str, Any] = (
        {"rules": vars(rules)}
        | {"thresholds": {str(fold): value for fold, value in thresholds.items()}}
        | score(masks[drawn].reset_index(drop=True), table[drawn].reset_index(drop=True))
        | ({"dice_by_class": dice_by_class(masks[drawn], several)} if several else {})
    )
    out.write_json("metrics.json", metrics)
    name = out.uri.rstrip("/").rsplit("/", 1)[-1]
    about = {"task": task.identity(), "runs": name, "thresholds": metrics["thresholds"], "rules": vars(rules)}
    out.write_json("method.json", about | {"source": source.identity(), "folds": sorted(thresholds)})
    return metrics


def lesion_table(masks: pd.DataFrame, classes: Sequence[str]) -> pd.DataFrame:
    """One row a finding: scan_id, patient_id, visit, number, class (of several), mm3, probability (highest in it), true (None where nobody has
    drawn), and its centre as an index of the scan turned towards right, front and head."""
    rows = []
    for row in masks.to_dict("records"):
        for number, finding in enumerate(row["findings"], start=1):
            d, h, w = finding["centre_DHW"]
            rows.append(
                {name: row[name] for name in ("scan_id", "patient_id", "visit")}
                | ({"class": classes[finding["class_number"] - 1]} if classes else {})
                | {"number": number, "mm3": finding["mm3"], "probability": finding["score"], "true": finding["true"]}
                | {"centre_d": d, "centre_h": h, "centre_w": w}
            )
    names = [
        "scan_id",
        "patient_id",
        "visit",
        "number",
        "mm3",
        "probability",
        "true",
        "centre_d",
        "centre_h",
        "centre_w",
    ]
    return pd.DataFrame(rows, columns=[*names, *(["class"] if classes else [])])


def write_csv(to: Store, name: str, table: pd.DataFrame) -> None:
    plain = table.copy()
    for column in plain.columns:
        if len(plain) and isinstance(plain[column].iloc[0], list | np.ndarray):
            plain[column] = [" ".join(f"{value:g}" for value in values) for values in plain[column]]
    to.write_csv(name, plain)


def flat(metrics: Mapping[str, Any]) -> dict[str, float]:
    """The values of metrics.json under names like "oof/dice", for MLflow."""
    found = {f"oof/{name}": metrics["means"][name]["value"] for name in MEANS}
    found |= {"oof/isbi": metrics["isbi"]["score"], "oof/volume_correlation": metrics["volume"]["correlation"]}
    return {name: value for name, value in found.items() if value is not None}
