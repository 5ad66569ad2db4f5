"""Percentile bootstrap over patients: slices of one patient are not independent."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd

Statistic = Callable[[np.ndarray], float]
"""Row weights (rows,) → figure; NaN where it is undefined."""


def interval_over_groups(
    statistics: dict[str, Statistic], groups: np.ndarray, samples: int, seed: int
) -> dict[str, dict[str, float | None]]:
    """Value and 95% interval of each statistic, resampling whole groups with replacement.

    Efron and Tibshirani 1993, chapter 13. Samples in which a statistic is undefined (a class without positives)
    do not count; the interval is None where more than half are, and without rows.

    Args:
        statistics: name → statistic.
        groups: (rows,) the patient of each row.
        samples: bootstrap samples.
    Returns:
        name → {"value", "low", "high"}; None for what is undefined.
    """
    # numbered as they appear, not as they sort: identifiers are hashes of a key, and results must not depend on it
    group_of_row, distinct = pd.factorize(groups)
    rng = np.random.default_rng(seed)
    drawn: dict[str, list[float]] = {name: [] for name in statistics}
    for _ in range(samples if len(distinct) else 0):
        times = np.bincount(rng.integers(0, len(distinct), len(distinct)), minlength=len(distinct))
        weights = times[group_of_row].astype(np.float64)
        for name, statistic in statistics.items():
            drawn[name].append(statistic(weights))
    out: dict[str, dict[str, float | None]] = {}
    for name, statistic in statistics.items():
        values = np.array([v for v in drawn[name] if np.isfinite(v)])
        value = statistic(np.ones(len(groups)))
        usable = len(values) * 2 > samples
        low, high = np.quantile(values, [0.025, 0.975]) if usable else (None, None)
        out[name] = {
            "value": float(value) if np.isfinite(value) else None,
            "low": None if low is None else float(low),
            "high": None if high is None else float(high),
        }
    return out
