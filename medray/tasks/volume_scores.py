"""Scores of one scan's mask against the one that was drawn, voxel by voxel; what is unknown does not count."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from medray.metrics.overlap import Overlap
from medray.tasks.volume_rows import UNKNOWN

THRESHOLDS = tuple(round(0.05 * i, 2) for i in range(1, 20))
"""Of ``dice_by_threshold``."""


@dataclass(frozen=True, eq=False)
class Drawn:
    """What somebody has drawn in a scan; classes may overlap where the mask holds numbers of sets."""

    mask: np.ndarray
    """(D, H, W) uint8: 0, numbers from 1, UNKNOWN."""
    sets: np.ndarray | None = None
    """(numbers,) int64: of each number the classes in it, class k at bit k − 1; where not given, a number is a class."""
    drawn: np.ndarray | None = None
    """(classes,) above 0 where the class has been drawn in the scan; all, where not given."""

    def of(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """(D, H, W) bool twice: the voxels of a class, and where it is known whether they are."""
        known = self.mask != UNKNOWN
        if self.drawn is not None and not self.drawn[number - 1] > 0:
            known = np.zeros_like(known)
        if self.sets is None:
            return (self.mask == number) & known, known
        has = np.zeros(256, dtype=bool)
        has[: len(self.sets)] = (self.sets >> (number - 1)) & 1 > 0
        return has[self.mask] & known, known


def voxel_scores(found: np.ndarray, drawn: np.ndarray, known: np.ndarray, ml: float) -> dict[str, float]:
    """Dice, positive predictive value, sensitivity (``metrics.overlap`` has their rules for empty masks), and the volumes of one
    class; NaN of a scan of which nothing is known.

    Args:
        found, drawn, known: (D, H, W) bool.
        ml: millilitres of a voxel.
    """
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
        truth: (D, H, W): 0 where no class is, UNKNOWN where nobody has looked.
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
