"""What a search looks at: the held-out scans' Dice, at the threshold that would have been chosen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import pandas as pd

from medray.systems.lesion.task import LesionTask
from medray.tasks.volume_scores import THRESHOLDS

OBJECTIVES: dict[str, Literal["min", "max"]] = {"dice": "max"}
"""Figure of ``score_folds`` → where better lies."""


def score_folds(task: LesionTask, folds: Sequence[tuple[pd.DataFrame, pd.DataFrame | None]]) -> dict[str, float]:
    """Of the held-out scans of one or more folds: Dice at the threshold of each fold's inner scans; at ``--threshold``, as their
    names say, predictive value and sensitivity."""
    every = task.metrics(pd.concat([held_out for held_out, _ in folds], ignore_index=True))
    dice = []
    for held_out, inner in folds:
        place = int(np.abs(np.array(THRESHOLDS) - task.threshold_by(inner)).argmin())
        dice += [values[place] for values in held_out["dice_by_threshold"]]
    known = [value for value in dice if np.isfinite(value)]
    at = f"at_{task.threshold:g}"
    return {"dice": float(np.mean(known)) if known else float("nan")} | {
        f"{name}_{at}": every[name] for name in ("ppv", "sensitivity")
    }
