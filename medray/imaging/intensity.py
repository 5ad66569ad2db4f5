"""Intensities of skull-stripped MR: the brain is where a channel is not 0, and is what they are measured in."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from medray.imaging.types import Unreadable

SIGMA_VOXELS = 5.0
"""Of the Gaussian of filtered and high-pass copies, as the source of the method has it."""


def brain_mask(channels: Sequence[np.ndarray]) -> np.ndarray:
    """(D, H, W) bool: where any of the channels is not 0. Values below 0 are brain: skull-stripped files have thousands.

    Raises:
        Unreadable: all channels are 0 everywhere.
    """
    mask = np.logical_or.reduce([channel != 0 for channel in channels])
    if not mask.any():
        raise Unreadable("an empty brain: every voxel of every channel is 0; give the scans before they were masked")
    return mask


def whitened(voxels: np.ndarray, brain: np.ndarray) -> np.ndarray:
    """(D, H, W) → float32 of mean 0 and deviation 1 in the brain, 0 outside; a channel of one value becomes 0."""
    inside = voxels[brain].astype(np.float64)
    deviation = float(inside.std())
    scaled = (inside - inside.mean()) / deviation if deviation > 0 else np.zeros_like(inside)
    return _placed(scaled, brain)


def between_percentiles(voxels: np.ndarray, brain: np.ndarray, low: float = 0.5, high: float = 99.5) -> np.ndarray:
    """(D, H, W) → float32 in [0, 1] in the brain, 0 outside: 0 at and below the low percentile of the brain, 1 at and above
    the high one; a channel of one value becomes 0."""
    inside = voxels[brain].astype(np.float64)
    bottom, top = np.percentile(inside, [low, high])
    scaled = np.clip((inside - bottom) / (top - bottom), 0, 1) if top > bottom else np.zeros_like(inside)
    return _placed(scaled, brain)


def smoothed(voxels: np.ndarray, brain: np.ndarray, sigma: float | Sequence[float] = SIGMA_VOXELS) -> np.ndarray:
    """(D, H, W) → float32, filtered with a Gaussian, 0 outside the brain.

    Args:
        sigma: deviation in voxels, of all axes or of each.
    """
    filtered = ndimage.gaussian_filter(np.asarray(voxels, dtype=np.float32), sigma, mode="constant")
    return np.where(brain, filtered, np.float32(0))


def high_passed(voxels: np.ndarray, brain: np.ndarray, sigma: float | Sequence[float] = SIGMA_VOXELS) -> np.ndarray:
    """(D, H, W) → float32: the image less its Gaussian-filtered copy, 0 outside the brain."""
    return np.where(brain, np.asarray(voxels, dtype=np.float32) - smoothed(voxels, brain, sigma), np.float32(0))


def _placed(inside: np.ndarray, brain: np.ndarray) -> np.ndarray:
    whole = np.zeros(brain.shape, dtype=np.float32)
    whole[brain] = inside
    return whole
