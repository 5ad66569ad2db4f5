"""Simple bodies in millimetres towards head, back and left, of which phantoms of volumes are drawn, and the pose of a patient."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

Points = np.ndarray
"""(..., 3) mm towards head, back and left."""
Inside = Callable[[Points], np.ndarray]


@dataclass(frozen=True)
class Ball:
    """An ellipsoid: its middle and half axes in mm."""

    middle: tuple[float, float, float]
    radii: tuple[float, float, float]

    def __call__(self, at: Points) -> np.ndarray:
        return np.asarray((((at - np.array(self.middle)) / np.array(self.radii)) ** 2).sum(-1) < 1)


@dataclass(frozen=True)
class Rod:
    """What is nearer than a radius to a line between two points, in mm."""

    begin: tuple[float, float, float]
    end: tuple[float, float, float]
    radius: float

    def __call__(self, at: Points) -> np.ndarray:
        begin, way = np.array(self.begin), np.array(self.end) - np.array(self.begin)
        share = np.clip(((at - begin) @ way) / (way @ way), 0, 1)
        return np.asarray(np.linalg.norm(at - (begin + share[..., None] * way), axis=-1) < self.radius)


def affine_of(shape: tuple[int, int, int], spacing_mm: tuple[float, float, float]) -> np.ndarray:
    """(4, 4): index (d, h, w) → RAS+ mm, 0 in the middle of the image."""
    affine = np.zeros((4, 4))
    affine[0, 2], affine[1, 1], affine[2, 0], affine[3, 3] = -spacing_mm[2], -spacing_mm[1], spacing_mm[0], 1
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    return affine


def posed(
    shape: tuple[int, int, int],
    spacing_mm: tuple[float, float, float],
    first_mm: tuple[float, float, float],
    rng: np.random.Generator,
) -> Points:
    """(D, H, W, 3): of every voxel its place in the patient's own millimetres; size, place and turn differ by patient.

    Args:
        first_mm: where the middle of the image lies in them, as voxels of ``shape``.
    """
    grid = np.stack(np.meshgrid(*(np.arange(n, dtype=np.float64) for n in shape), indexing="ij"), -1)
    middle = (np.array(shape) - 1) / 2 + np.array(first_mm)
    mm = (grid - middle) * np.array(spacing_mm) + rng.normal(0, 4, 3)
    turn = np.eye(3)
    for a, b, angle in ((0, 1, 6), (0, 2, 4), (1, 2, 6)):
        by = np.radians(rng.normal(0, angle))
        step = np.eye(3)
        step[[a, a, b, b], [a, b, a, b]] = np.cos(by), -np.sin(by), np.sin(by), np.cos(by)
        turn = turn @ step
    return np.asarray(mm @ turn / rng.normal(1, 0.05, 3).clip(0.88, 1.12))
