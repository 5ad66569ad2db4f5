"""What acting on a probability is worth (Vickers and Elkin, Medical Decision Making 2006; 26: 565-574)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

THRESHOLDS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5)


def net_benefit(answers: np.ndarray, labels: np.ndarray, threshold: float) -> float:
    """True positives less false ones, weighed by the odds at which one would act, over the rows; NaN without rows.

    Args:
        answers, labels: (rows,) 0 or 1.
    """
    if not len(labels):
        return float("nan")
    right, wrong = (answers * labels).mean(), (answers * (1 - labels)).mean()
    return float(right - wrong * threshold / (1 - threshold))


def decision_curve(
    probabilities: np.ndarray, labels: np.ndarray, thresholds: Sequence[float] = THRESHOLDS
) -> pd.DataFrame:
    """A row a threshold probability: the net benefit of acting where the model says so (``model``), and on everybody (``all``);
    on nobody it is 0.

    Args:
        probabilities, labels: (rows,), labels 0, 1 or NaN, which does not count.
    """
    known = ~np.isnan(labels)
    p, y = np.asarray(probabilities, np.float64)[known], labels[known]
    rows = [
        {"threshold": t, "model": net_benefit((p >= t).astype(float), y, t), "all": net_benefit(np.ones(len(y)), y, t)}
        for t in thresholds
    ]
    return pd.DataFrame(rows)
