"""The score of the ISBI 2015 longitudinal lesion challenge, without its scale.

Carass A et al. Longitudinal multiple sclerosis lesion segmentation. NeuroImage 2017; 148: 77-102. The published numbers
(93.36 the best seen) are this score scaled so that the two raters reach 90; the scale needs the challenge's own test
scans, so that only figures of one set of scans compare.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from medray.metrics.agreement import pearson
from medray.metrics.lesions import LesionMatch
from medray.metrics.overlap import Overlap


@dataclass(frozen=True)
class IsbiScore:
    """Means over the scans in which each figure is defined, and their weighted sum, 0 to 1."""

    dice: float
    predictive_value: float
    true_positive_rate: float
    false_positive_rate: float
    correlation: float  # of lesion volumes over scans, not over voxels

    @property
    def score(self) -> float:
        """NaN where one of its parts is, as of fewer than two scans."""
        return (
            self.dice / 8
            + self.predictive_value / 8
            + (1 - self.false_positive_rate) / 4
            + self.true_positive_rate / 4
            + self.correlation / 4
        )


def isbi_score(overlaps: Sequence[Overlap], lesions: Sequence[LesionMatch], voxels_mm3: Sequence[float]) -> IsbiScore:
    """
    A scan with lesions in which nothing was predicted has a false-positive rate of 1 here: it earns nothing, where an
    absent rate would leave the mean and finding nothing would be rewarded.

    Args:
        overlaps, lesions, voxels_mm3: of each scan, in one order; the last is the volume of its voxel.
    """
    false_rates = [1.0 if match.found.size and not match.true.size else match.false_positive_rate for match in lesions]
    return IsbiScore(
        mean_present([o.dice for o in overlaps]),
        mean_present([o.predictive_value for o in overlaps]),
        mean_present([m.true_positive_rate for m in lesions]),
        mean_present(false_rates),
        pearson(
            [o.truth * mm3 for o, mm3 in zip(overlaps, voxels_mm3, strict=True)],
            [o.predicted * mm3 for o, mm3 in zip(overlaps, voxels_mm3, strict=True)],
        ),
    )


def mean_present(values: Sequence[float]) -> float:
    """The mean of what is not NaN; NaN where nothing is."""
    present = [value for value in values if not np.isnan(value)]
    return float(np.mean(present)) if present else float("nan")
