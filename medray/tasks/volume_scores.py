"""Scores of one scan's mask against the one that was drawn, voxel by voxel; what is unknown does not count."""

from __future__ import annotations

import numpy as np

from medray.metrics.overlap import Overlap
from medray.tasks.volume_rows import UNKNOWN

THRESHOLDS = tuple(round(0.05 * i, 2) for i in range(1, 20))
"""Of ``dice_by_threshold``."""


def voxel_scores(mask: np.ndarray, truth: np.ndarray, number: int, ml: float) -> dict[str, float]:
    """Dice, positive predictive value, sensitivity (``metrics.overlap`` has their rules for empty masks), and the volumes of one
    class; NaN of a scan of which nothing is known.

    Args:
        mask, truth: (D, H, W) uint8 of class numbers.
        ml: millilitres of a voxel.
    """
    known = truth != UNKNOWN
    found, drawn = mask == number, truth == number
    if not known.any():
        return dict.fromkeys(("dice", "ppv", "sensitivity", "true_ml"), np.nan) | {"ml": float(found.sum()) * ml}
    overlap = Overlap.of(drawn, found & known)
    return {
        "dice": overlap.dice,
        "ppv": overlap.predictive_value,
        "sensitivity": overlap.sensitivity,
        "ml": float(found.sum()) * ml,
        "true_ml": overlap.truth * ml,
    }


def dice_by_threshold(probability: np.ndarray, truth: np.ndarray) -> list[float]:
    """Dice of any class at each of ``THRESHOLDS``, by which one is chosen on inner scans.

    Args:
        probability: (D, H, W) of the most probable class.
    """
    known = truth != UNKNOWN
    step = np.searchsorted(np.array(THRESHOLDS, np.float32), probability[known], side="right")
    drawn = truth[known] != 0
    found = np.bincount(step, minlength=len(THRESHOLDS) + 1)[:0:-1].cumsum()[::-1]
    both = np.bincount(step[drawn], minlength=len(THRESHOLDS) + 1)[:0:-1].cumsum()[::-1]
    all_drawn = int(drawn.sum())
    with np.errstate(invalid="ignore"):
        return [float(v) for v in 2 * both / (found + all_drawn)]


def best_threshold(columns: list[list[float]]) -> float:
    """Where the mean of these scans' Dice is highest, the middle one of equals; 0.5 where nothing is known."""
    table = np.asarray(columns, dtype=float).reshape(-1, len(THRESHOLDS))
    table = table[np.isfinite(table).any(1)]
    if not len(table):
        return 0.5
    means = np.nan_to_num(table).mean(0)
    best = np.flatnonzero(means == means.max())
    return THRESHOLDS[int(best[len(best) // 2])]
