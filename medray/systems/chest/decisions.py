"""Yes or no by a threshold: how it is chosen, and what comes of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from sklearn.metrics import f1_score, precision_recall_curve, recall_score


def thresholds_f1(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """The threshold (a film is positive at or above it) of the highest F1; the highest such one.

    Args:
        probabilities, labels: (films,) with at least one positive, no NaN.
    """
    precision, recall, at = precision_recall_curve(labels, probabilities)
    both = precision[:-1] + recall[:-1]  # the last point is of no threshold
    f1 = np.divide(2 * precision[:-1] * recall[:-1], both, out=np.zeros_like(both), where=both > 0)
    return float(at[np.flatnonzero(f1 == f1.max())[-1]])


def decided(probabilities: np.ndarray, labels: np.ndarray, threshold: float | np.ndarray) -> dict[str, Any]:
    """F1, sensitivity and specificity at a threshold; None where no film could have made them anything.

    Args:
        threshold: of all films, or (films,) of each. The answer's "threshold" is their mean.
    """
    positive = (probabilities >= threshold).astype(int)
    truth = labels.astype(int)
    has_positives, has_negatives = bool((truth == 1).any()), bool((truth == 0).any())
    out: dict[str, Any] = {
        "threshold": float(np.mean(threshold)),
        "f1": float(f1_score(truth, positive, zero_division=0.0)) if has_positives else None,
        "sensitivity": float(recall_score(truth, positive)) if has_positives else None,
        "specificity": float(recall_score(truth, positive, pos_label=0)) if has_negatives else None,
    }
    absent = [name for name, there in (("positive", has_positives), ("negative", has_negatives)) if not there]
    return out | ({"reason": f"no {' and no '.join(absent)} film"} if absent else {})


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
