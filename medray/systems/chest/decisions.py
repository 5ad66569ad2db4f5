"""Yes or no by a threshold: how it is chosen."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from sklearn.metrics import precision_recall_curve


def thresholds_f1(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """The threshold (a film is positive at or above it) of the highest F1; the highest such one.

    Args:
        probabilities, labels: (films,) with at least one positive, no NaN.
    """
    precision, recall, at = precision_recall_curve(labels, probabilities)
    both = precision[:-1] + recall[:-1]  # the last point is of no threshold
    f1 = np.divide(2 * precision[:-1] * recall[:-1], both, out=np.zeros_like(both), where=both > 0)
    return float(at[np.flatnonzero(f1 == f1.max())[-1]])


def decisions(predictions: pd.DataFrame, thresholds: Mapping[str, float | np.ndarray | None]) -> pd.DataFrame:
    """0 or 1 for each film (index image_id) and target; NaN where there is no threshold.

    Args:
        thresholds: target → of all films, or (films,) of each.
    """
    table = {}
    for target, threshold in thresholds.items():
        at = np.full(len(predictions), np.nan if threshold is None else threshold)
        positive = (predictions[f"p_{target}"].to_numpy() >= at).astype(float)
        table[target] = np.where(np.isnan(at), np.nan, positive)
    return pd.DataFrame(table, index=pd.Index(predictions["image_id"].to_numpy(), name="image_id"))
