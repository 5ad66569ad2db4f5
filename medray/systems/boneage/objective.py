"""What a search looks at: the mean absolute error of held-out films, months."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import pandas as pd

from medray.tasks.task import Task

OBJECTIVES: dict[str, Literal["min", "max"]] = {"mae": "min"}
"""Figure of ``score_folds`` → where better lies."""


def score_folds(task: Task, folds: Sequence[tuple[pd.DataFrame, pd.DataFrame | None]]) -> dict[str, float]:
    """Of the held-out films of one or more folds, pooled: mae, months; bias, the mean of predicted − true; NaN where
    no film has a known age.

    Args:
        task: the same for any; nothing is chosen by it.
        folds: outputs of the held-out films (age_months, p_months) and of the inner ones, which do not count.
    """
    held_out = pd.concat([table for table, _ in folds], ignore_index=True)
    error = (held_out["p_months"] - held_out["age_months"]).to_numpy(dtype=np.float64)
    known = error[np.isfinite(error)]
    if not len(known):
        return {"mae": float("nan"), "bias": float("nan")}
    return {"mae": float(np.abs(known).mean()), "bias": float(known.mean())}
