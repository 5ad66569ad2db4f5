"""Scores of several organs in several scans, as one figure."""

from __future__ import annotations

import numpy as np
import pandas as pd

from medray.metrics.intervals import Score


def over_organs(values: np.ndarray, organs: np.ndarray) -> Score:
    """The mean over organs of each one's mean over scans; organs that nobody has drawn are not among them.

    Args:
        values: (rows,) of a scan and organ each; NaN does not count. organs: (rows,) names.
    """
    counted = ~np.isnan(values)
    kept, codes = values[counted], pd.factorize(organs[counted])[0]

    def statistic(weights: np.ndarray) -> float:
        total, weight = (np.bincount(codes, part, minlength=1) for part in (weights * kept, weights))
        return float((total[weight > 0] / weight[weight > 0]).mean()) if (weight > 0).any() else float("nan")

    return Score(statistic, np.where(counted, 0.0, np.nan), ())
