"""Distances between the surfaces of two masks, in mm.

A mask's surface are its voxels with a neighbour over a face that is not of it; what leaves the image has its surface at
the border. A distance is between centres of voxels. So MONAI defines them, and a test holds the two equal.

Empty masks. Both empty: every figure is NaN (absent). One empty: the distances are the image's diagonal, the worst that
there is, and the surface Dice is 0; NaN would leave a mean, and finding nothing would improve it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from medray.metrics.overlap import same_grid_bool

_FACES = ndimage.generate_binary_structure(3, 1)


@dataclass(frozen=True, eq=False)
class SurfaceDistances:
    """Of every voxel of each surface, how far it is from the other one."""

    from_truth_mm: np.ndarray  # (voxels of the truth's surface,)
    from_predicted_mm: np.ndarray  # (voxels of the prediction's surface,)
    diagonal_mm: float  # between the centres of opposite corners of the image

    @staticmethod
    def of(truth: np.ndarray, predicted: np.ndarray, spacing_mm: Sequence[float]) -> SurfaceDistances:
        """
        Args:
            truth, predicted: (D, H, W) bool.
            spacing_mm: between voxels along D, H, W.
        Raises:
            ValueError: of two shapes, or not bool.
        """
        same_grid_bool(truth, predicted)
        diagonal_mm = float(np.linalg.norm((np.array(truth.shape) - 1) * np.asarray(spacing_mm)))
        found = ndimage.find_objects((truth | predicted).view(np.uint8), max_label=1)[0]
        if found is None:
            return SurfaceDistances(np.zeros(0), np.zeros(0), diagonal_mm)
        # no distance leads out of the box around both
        one, other = _surface(truth[found]), _surface(predicted[found])
        return SurfaceDistances(_to(other, one, spacing_mm), _to(one, other, spacing_mm), diagonal_mm)

    @property
    def hausdorff_mm(self) -> float:
        """The farthest that a voxel of one surface lies from the other."""
        return self._percentile(100)

    @property
    def hausdorff95_mm(self) -> float:
        """The larger of the two directions' 95th percentiles."""
        return self._percentile(95)

    @property
    def average_mm(self) -> float:
        """Average symmetric surface distance: the mean over the voxels of both surfaces."""
        if self._one_empty():
            return self.diagonal_mm
        every = np.concatenate([self.from_truth_mm, self.from_predicted_mm])
        return float(every.mean()) if every.size else float("nan")

    def dice(self, tolerance_mm: float) -> float:
        """Of the voxels of both surfaces, the share that lies within the tolerance of the other one."""
        if self._one_empty():
            return 0.0
        every = np.concatenate([self.from_truth_mm, self.from_predicted_mm])
        return float((every <= tolerance_mm).mean()) if every.size else float("nan")

    def _percentile(self, percent: float) -> float:
        if self._one_empty():
            return self.diagonal_mm
        if not self.from_truth_mm.size:
            return float("nan")
        return float(max(np.percentile(self.from_truth_mm, percent), np.percentile(self.from_predicted_mm, percent)))

    def _one_empty(self) -> bool:
        """Of an empty mask there are no voxels; what lies over against it has no distance, and is noted as infinite."""
        return bool(np.isinf(self.from_truth_mm).any() or np.isinf(self.from_predicted_mm).any())


def _surface(mask: np.ndarray) -> np.ndarray:
    return mask & ~ndimage.binary_erosion(mask, _FACES)


def _to(target: np.ndarray, source: np.ndarray, spacing_mm: Sequence[float]) -> np.ndarray:
    """(voxels of ``source``,) distance of each to the nearest voxel of ``target``, in mm."""
    if not target.any():
        return np.full(np.count_nonzero(source), np.inf)
    return ndimage.distance_transform_edt(~target, sampling=spacing_mm)[source]
