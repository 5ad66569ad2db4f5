"""Scores of a set of scans: voxel by voxel, by lesion, by volume; means have intervals over patients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

from medray.metrics.agreement import bland_altman, pearson, repeatability
from medray.metrics.clustered import Range
from medray.metrics.intervals import LEAST_PATIENTS, intervals, mean
from medray.metrics.isbi import IsbiScore, isbi_score
from medray.metrics.lesions import LesionMatch, free_response, recall_by_size
from medray.metrics.overlap import Overlap
from medray.report.figures import line
from medray.systems.lesion.masks import SCORES

DEPTHS_MM = (0.0, 5.0, 10.0, 20.0, 40.0, np.inf)
MEANS = (*SCORES, "lesion_recall", "lesion_false_rate", "lesion_f1")
"""Figures of which there is one a scan."""


def _range_of(name: str) -> Range:
    return (0.0, 1.0) if name not in ("volume_difference", "hd95_mm", "assd_mm") else (0.0, float("inf"))


def match_of(row: Mapping[str, Any]) -> LesionMatch:
    """The lesions of a scan, as its row of masks has them."""
    lesions, findings = list(row["lesions"]), [one for one in row["findings"] if one["true"] is not None]
    return LesionMatch(
        truth_mm3=np.array([one["mm3"] for one in lesions], dtype=float),
        found=np.array([one["found"] for one in lesions], dtype=bool),
        predicted_mm3=np.array([one["mm3"] for one in findings], dtype=float),
        true=np.array([one["true"] for one in findings], dtype=bool),
        truth_score=np.array([-np.inf if one["score"] is None else one["score"] for one in lesions], dtype=float),
        predicted_score=np.array([one["score"] for one in findings], dtype=float),
    )


def scan_table(masks: pd.DataFrame) -> pd.DataFrame:
    """One row a scan: what ``masks`` says without its lists, and counts and rates of lesions.

    Args:
        masks: the columns ``masks.SMALL``, and fold where there is one.
    """
    table = masks.drop(columns=["lesions", "findings", "shape_DHW", "dice_by_class"], errors="ignore").copy()
    for name in ("lesions", "findings_true", "findings_false", *MEANS[len(SCORES) :]):
        table[name] = np.nan
    for place, row in zip(masks.index, masks.to_dict("records"), strict=True):
        table.loc[place, "findings"] = len(row["findings"])
        if row["lesions"] is None:
            continue
        match = match_of(row)
        table.loc[place, ["lesions", "findings_true", "findings_false"]] = (
            len(match.found), int(match.true.sum()), int((~match.true).sum()),
        )  # fmt: skip
        rates = match.true_positive_rate, match.false_positive_rate, match.f1
        table.loc[place, list(MEANS[len(SCORES) :])] = rates
    return table


def score(masks: pd.DataFrame, scans: pd.DataFrame) -> dict[str, Any]:
    """Everything that metrics.json says of held-out scans with a mask.

    Args:
        masks: as in ``scan_table``, of scans with a mask only. scans: what that gives for them.
    """
    rows = masks.to_dict("records")
    matches = [match_of(row) for row in rows]
    patients = scans["patient_id"].to_numpy()
    values = {name: scans[name].to_numpy(dtype=np.float64) for name in MEANS}
    figures = intervals({n: mean(value, within=_range_of(n)) for n, value in values.items()}, patients)
    true_ml, ml = scans["true_ml"].to_numpy(dtype=float), scans["ml"].to_numpy(dtype=float)
    limits = bland_altman(true_ml, ml)
    enough = len(set(patients)) >= LEAST_PATIENTS
    curve = free_response(matches)
    return {
        "counts": {
            "scans": len(scans), "patients": len(set(patients)), "lesions": int(sum(len(m.found) for m in matches)),
            "found": int(sum(m.found.sum() for m in matches)), "findings": int(sum(len(m.true) for m in matches)),
            "false": int(sum((~m.true).sum() for m in matches)), "scans_without_lesion": int((true_ml == 0).sum()),
            "scans_without_finding": int((ml == 0).sum()),
        },
        "means": {name: figure | {"scans": int(np.isfinite(values[name]).sum())} for name, figure in figures.items()},
        "recall_by_size": [
            {"from_mm3": low, "to_mm3": high if np.isfinite(high) else None, "lesions": there, "found": found}
            for low, high, there, found in recall_by_size(matches)
        ],
        "by_depth": by_depth(rows),
        "free_response": [
            {"score": float(s), "false_a_scan": float(f), "recall": float(r)} for s, f, r in curve[_some(len(curve))]
        ],
        "volume": {
            "bias_ml": _known(limits.bias), "low_ml": _known(limits.low) if enough else None,
            "high_ml": _known(limits.high) if enough else None,
            "correlation": _known(pearson(true_ml, ml)) if enough else None,
        },
        "isbi": isbi_figures(rows, matches) | ({} if enough else {"correlation": None, "score": None}),
        "repeatability": change_by_error(scans),
    }  # fmt: skip


def dice_by_class(masks: pd.DataFrame, classes: Sequence[str]) -> dict[str, Any]:
    """Class → its mean Dice over the scans with a mask, with its interval over patients and how many scans there are."""
    values = {name: masks["dice_by_class"].str[i].to_numpy(dtype=np.float64) for i, name in enumerate(classes)}
    figures = intervals({n: mean(own, within=(0.0, 1.0)) for n, own in values.items()}, masks["patient_id"].to_numpy())
    return {name: figure | {"scans": int(np.isfinite(values[name]).sum())} for name, figure in figures.items()}


def by_depth(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Where lesions and false findings lie: how far below the surface of the brain."""
    out = []
    for low, high in pairwise(DEPTHS_MM):
        lesions = [one for row in rows for one in row["lesions"] if low <= (one["depth_mm"] or 0) < high]
        false = [
            one
            for row in rows
            for one in row["findings"]
            if one["true"] is False and low <= (one["depth_mm"] or 0) < high
        ]
        out.append(
            {"from_mm": low, "to_mm": high if np.isfinite(high) else None, "lesions": len(lesions)}
            | {"found": sum(one["found"] for one in lesions), "false": len(false)}
        )
    return out


def change_by_error(scans: pd.DataFrame) -> dict[str, Any]:
    """How much the total volume of two visits of one patient differs by error alone: 95% of such differences are smaller.

    Of each pair of neighbouring visits that both have a mask it takes how far the two volumes are off; mL, and how many pairs and patients.
    """
    first, second, who = [], [], []
    for patient, own in scans.groupby("patient_id"):
        errors = dict(zip(own["visit"].astype(int), own["ml"] - own["true_ml"], strict=True))
        pairs = [(error, errors[visit + 1]) for visit, error in errors.items() if visit + 1 in errors]
        first += [error for error, _ in pairs]
        second += [error for _, error in pairs]
        who += [patient] * len(pairs)
    return {"ml": _known(repeatability(first, second)), "pairs": len(first), "patients": len(set(who))}


def isbi_figures(rows: list[dict[str, Any]], matches: list[LesionMatch]) -> dict[str, float | None]:
    """The ISBI 2015 score, unscaled, and its parts."""
    overlaps, voxels = [], []
    for row in rows:
        voxel_mm3 = float(np.prod(row["spacing_mm"]))
        truth, predicted = round(row["true_ml"] * 1000 / voxel_mm3), round(row["ml"] * 1000 / voxel_mm3)
        both = round(row["dice"] * (truth + predicted) / 2) if truth + predicted and row["dice"] is not None else 0
        overlaps.append(Overlap(truth, predicted, both))
        voxels.append(voxel_mm3)
    found: IsbiScore = isbi_score(overlaps, matches, voxels)
    parts = ("dice", "predictive_value", "true_positive_rate", "false_positive_rate", "correlation", "score")
    return {name: _known(getattr(found, name)) for name in parts}


def _some(count: int, most: int = 200) -> np.ndarray:
    return np.unique(np.linspace(0, count - 1, min(count, most)).astype(int)) if count else np.zeros(0, dtype=int)


def _known(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def summary(metrics: Mapping[str, Any]) -> list[str]:
    """The figures of metrics.json as lines for a terminal."""
    counts, means = metrics["counts"], metrics["means"]
    lines = [
        f"{counts['scans']:,} held-out scans of {counts['patients']:,} patients: {counts['found']:,} of {counts['lesions']:,} "
        f"lesions found, {counts['false']:,} of {counts['findings']:,} findings false"
    ]
    words = {"dice": "Dice", "ppv": "predictive value", "sensitivity": "sensitivity", "hd95_mm": "HD95, mm", "lesion_f1": "lesion F1"}  # fmt: skip
    lines += [f"{text:<18}{line(means[name], 1 if name == 'hd95_mm' else 3)}" for name, text in words.items()]
    volume = metrics["volume"]
    if volume["low_ml"] is not None:
        lines.append(
            f"volume            {volume['bias_ml']:+.2f} mL, 95% limits of agreement {volume['low_ml']:.2f} to {volume['high_ml']:.2f}, "
            f"{counts['scans']:,} scans"
        )
    return lines
