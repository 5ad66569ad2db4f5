"""Agreement of two measurements of the same things, such as lesion volumes by hand and by program."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_Z = 1.959964  # of a normal distribution's central 95%


@dataclass(frozen=True)
class BlandAltman:
    """Bland JM, Altman DG. Lancet 1986; 1: 307-310. In the unit of the measurements."""

    bias: float  # mean of second − first
    low: float  # 95% limits of agreement
    high: float


def bland_altman(first: Sequence[float], second: Sequence[float]) -> BlandAltman:
    """NaN limits of fewer than two pairs."""
    differences = np.asarray(second, dtype=np.float64) - np.asarray(first, dtype=np.float64)
    if not differences.size:
        return BlandAltman(float("nan"), float("nan"), float("nan"))
    bias = float(differences.mean())
    half = _Z * float(differences.std(ddof=1)) if differences.size > 1 else float("nan")
    return BlandAltman(bias, bias - half, bias + half)


def pearson(first: Sequence[float], second: Sequence[float]) -> float:
    """Correlation, -1 to 1; NaN of fewer than two pairs, and where one of them does not vary."""
    a, b = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if a.size < 2 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return float("nan")
    return float(np.corrcoef(a, b)[0, 1])


def repeatability(first: Sequence[float], second: Sequence[float]) -> float:
    """The repeatability coefficient of pairs of measurements between which nothing changed: 95% of such pairs differ by
    less. In the unit of the measurements; NaN without pairs.

    √2 · 1.96 · within-subject deviation, whose square is the mean of (second − first)² / 2 (Bland and Altman 1999).
    """
    differences = np.asarray(second, dtype=np.float64) - np.asarray(first, dtype=np.float64)
    if not differences.size:
        return float("nan")
    return float(_Z * np.sqrt(2) * np.sqrt((differences**2).mean() / 2))
