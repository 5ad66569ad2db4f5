"""Overlap of two masks of one grid, voxel by voxel.

Empty masks. Both empty: there is nothing to agree on, every score is NaN (absent), and a mean must say over how many scans
it is. One empty: Dice and IoU are 0. Nothing predicted where there is something: the predictive value is 0, not absent,
or finding less would raise a mean. Nothing to find: sensitivity and relative volume difference are absent.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Overlap:
    """How many voxels two masks have, and share."""

    truth: int
    predicted: int
    both: int

    @staticmethod
    def of(truth: np.ndarray, predicted: np.ndarray) -> Overlap:
        """
        Args:
            truth, predicted: bool of one shape; of a class ``k`` of several: ``mask == k``. Where a part of the truth is
                unknown, both without it.
        Raises:
            ValueError: of two shapes, or not bool (a mask of classes would be counted as if all were one).
        """
        same_grid_bool(truth, predicted)
        both = np.count_nonzero(truth & predicted)
        return Overlap(int(np.count_nonzero(truth)), int(np.count_nonzero(predicted)), int(both))

    @property
    def dice(self) -> float:
        return _ratio(2 * self.both, self.truth + self.predicted)

    @property
    def iou(self) -> float:
        return _ratio(self.both, self.truth + self.predicted - self.both)

    @property
    def predictive_value(self) -> float:
        """Of what was predicted, how much is true (precision)."""
        return 0.0 if self.truth and not self.predicted else _ratio(self.both, self.predicted)

    @property
    def sensitivity(self) -> float:
        """Of what is true, how much was predicted (recall)."""
        return _ratio(self.both, self.truth)

    @property
    def volume_difference(self) -> float:
        """(predicted − true) / true; negative where too little was found."""
        return _ratio(self.predicted - self.truth, self.truth)


def same_grid_bool(truth: np.ndarray, predicted: np.ndarray) -> None:
    """Raise ValueError unless both are bool arrays of one shape."""
    if truth.shape != predicted.shape:
        raise ValueError(f"masks of shape {truth.shape} and {predicted.shape}: resample one to the other's grid first")
    if truth.dtype != bool or predicted.dtype != bool:
        raise ValueError(f"masks of type {truth.dtype} and {predicted.dtype}: give bool, a class at a time")


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else float("nan")
