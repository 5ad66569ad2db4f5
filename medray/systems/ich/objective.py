"""What a search looks at: the score of held-out slices, recalibrated as the pipeline would."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import pandas as pd

from medray.metrics.binary import Ranking
from medray.systems.ich.method import Predictions
from medray.systems.ich.scores import slice_metrics
from medray.systems.ich.task import SliceTask

OBJECTIVES: dict[str, Literal["min", "max"]] = {"weighted_log_loss": "min", "average_precision_epidural": "max"}
"""Figure of ``score_folds`` → where better lies."""


def score_folds(task: SliceTask, folds: Sequence[tuple[pd.DataFrame, pd.DataFrame | None]]) -> dict[str, float]:
    """Figures of the held-out slices of one or more folds, pooled.

    Args:
        folds: predictions of held-out slices and of inner ones, as a run leaves them; where slices were repeated the
            inner ones say how the probabilities come back to the rate of the data.
    Returns:
        OBJECTIVES and auc_any; NaN for a ranking without positives, or without labels.
    """
    plain = pd.concat([held_out.assign(fold=i) for i, (held_out, _) in enumerate(folds)], ignore_index=True)
    inner = {i: table for i, (_, table) in enumerate(folds) if table is not None}
    table, _ = Predictions(task=task, plain=plain, inner=inner).recalibrated(views=False)
    labelled = table.dropna(subset=["epidural"])
    rare = Ranking(labelled["p_epidural"].to_numpy(), labelled["epidural"].to_numpy(dtype="float64"))
    return slice_metrics(table) | {"average_precision_epidural": rare.average_precision()}
