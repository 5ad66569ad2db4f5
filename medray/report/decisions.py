"""Tables of yes and no at thresholds, as ``medray.metrics.operating`` gives them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from medray.report.figures import texts
from medray.report.page import Cell, Table

_NAMES = {"sensitivity": "sensitivity", "specificity": "specificity", "ppv": "PPV", "npv": "NPV", "f1": "F1"}
_OF = {
    "sensitivity": ("true_positives", ("true_positives", "false_negatives")),
    "specificity": ("true_negatives", ("true_negatives", "false_positives")),
    "ppv": ("true_positives", ("true_positives", "false_positives")),
    "npv": ("true_negatives", ("true_negatives", "false_negatives")),
}


def of_points(points: Mapping[str, Mapping[str, Any]], things: str) -> list[Table]:
    """A row an operating point, and a row a point and fold.

    Args:
        points: as ``operating_points``, also after JSON. things: what is decided on, such as "studies".
    """
    rows = [
        {"specificity that was aimed at": aim, "threshold": _threshold(point["threshold"]), **cells(point)}
        for aim, point in points.items()
    ]
    by_fold = [
        {
            "aim": aim,
            "fold": fold,
            "threshold": _threshold(point["thresholds"].get(fold)),
            **{name: _cell(name, own) for name in ("sensitivity", "specificity")},
        }
        for aim, point in points.items()
        for fold, own in point["by_fold"].items()
    ]
    caption = (
        f"Each fold's {things} are decided at a threshold that the other folds' {things} have given: what a threshold reaches on "
        "patients who did not choose it. The threshold shown is that of all folds, for new images."
    )
    alone = f"The same fold by fold, at the threshold that the other folds' {things} have given."
    return [Table(pd.DataFrame(rows), caption), Table(pd.DataFrame(by_fold), alone)]


def cells(
    point: Mapping[str, Any], names: tuple[str, ...] = ("sensitivity", "specificity", "ppv", "npv")
) -> dict[str, Cell]:
    """Heading → figure with its interval and the counts that it is of; predictive values at a prevalence where there are some."""
    found = {_NAMES[name]: _cell(name, point) for name in names}
    for name in ("ppv_at", "npv_at"):
        if name in point:
            found[f"{name[:3].upper()} at {point['prevalence']:.2%}"] = Cell(*texts(point[name], 3))
    return found


def _cell(name: str, point: Mapping[str, Any]) -> Cell:
    value, note = texts(point[name], 3)
    if name not in _OF or point[name]["value"] is None:
        return Cell(value, note)
    part, whole = _OF[name]
    counts = point["counts"]
    return Cell(value, f"{counts[part]:,} of {sum(counts[one] for one in whole):,}; {note}")


def _threshold(value: float | None) -> str | None:
    return None if value is None else f"{value:.4f}"
