"""Masks of parallel slices ↔ closed contours in the patient's millimetres, exactly: contour and back is the same mask.

A contour runs halfway between the centres of voxels that are in and voxels that are out (marching squares, contourpy's),
so no centre lies on it, a single voxel has four corners, and the volume within is close to that of the voxels. A voxel
is in where an odd number of contours surround its centre: holes are contours within contours, and a keyhole, which runs
into its hole and back on the same line, is a hole likewise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from medray.imaging.types import Volume

NEAR_SLICE = 0.25
"""A contour lies on a slice where no point is farther from it than this share of the distance to the next slice."""
_RAS_TO_LPS = np.array([-1.0, -1.0, 1.0])


@dataclass(frozen=True, eq=False)
class Slices:
    """Where the voxels of a stack of parallel slices are; slices may lie at uneven distances, and be shifted in plane."""

    origins_mm: np.ndarray
    """(D, 3) LPS: the centre of the first voxel of each slice."""
    row_step_mm: np.ndarray
    """(3,) LPS: from one row to the next."""
    column_step_mm: np.ndarray
    """(3,) LPS: from one column to the next, a right angle to it."""
    shape_HW: tuple[int, int]  # noqa: N815
    """Rows, columns."""

    @staticmethod
    def of(volume: Volume) -> Slices:
        """The first axis counts slices, the second rows, the third columns: as DICOM series are read."""
        depth, rows, columns = volume.voxels.shape
        affine = volume.affine[:3] * _RAS_TO_LPS[:, None]
        origins = affine[:, 3] + np.arange(depth)[:, None] * affine[:, 0]
        return Slices(origins, affine[:, 1], affine[:, 2], (rows, columns))

    @property
    def depths_mm(self) -> np.ndarray:
        """(D,) along the normal of the slices."""
        return self.origins_mm @ self._normal

    @property
    def _normal(self) -> np.ndarray:
        normal = np.cross(self.column_step_mm, self.row_step_mm)
        return normal / np.linalg.norm(normal)

    def in_mm(self, points_rc: np.ndarray, number: int) -> np.ndarray:
        """(n, 2) row, column of slice ``number`` → (n, 3) LPS mm."""
        return self.origins_mm[number] + points_rc @ np.stack([self.row_step_mm, self.column_step_mm])

    def on_slice(self, points_mm: np.ndarray, number: int) -> np.ndarray:
        """(n, 3) LPS mm → (n, 2) row, column of slice ``number``, by the way along its normal."""
        steps = np.stack([self.row_step_mm, self.column_step_mm])
        return (points_mm - self.origins_mm[number]) @ (steps / (steps**2).sum(axis=1, keepdims=True)).T

    def slice_of(self, points_mm: np.ndarray) -> tuple[int | None, str]:
        """The slice on which a contour lies; or None, and why: "not parallel to the slices", "beyond the slices" or
        "between the slices"."""
        along, depths = points_mm @ self._normal, self.depths_mm
        near = int(np.abs(depths - along.mean()).argmin())
        gaps = np.abs(np.diff(np.sort(depths)))
        tolerance = NEAR_SLICE * (float(gaps.min()) if len(gaps) else 1.0)
        if np.ptp(along) > 2 * tolerance:
            return None, "not parallel to the slices"
        if np.abs(along - depths[near]).max() > tolerance:
            outside = along.mean() < depths.min() or along.mean() > depths.max()
            return None, "beyond the slices" if outside else "between the slices"
        return near, ""


def contours_of(mask: np.ndarray, slices: Slices) -> list[tuple[int, np.ndarray]]:
    """(D, H, W) bool → slice and (n, 3) LPS mm of each closed contour, of 4 points or more; the first is not repeated."""
    found = []
    for number in np.flatnonzero(mask.any(axis=(1, 2))):
        found += [(int(number), slices.in_mm(points, int(number))) for points in outlines(mask[number])]
    return found


def outlines(mask: np.ndarray) -> list[np.ndarray]:
    """(H, W) bool → closed contours of it as (n, 2) row, column, without points in the middle of a straight line."""
    from contourpy import contour_generator

    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return []
    first_row, first_column = int(rows[0]), int(columns[0])
    # a border of zeros closes what touches the edge of the image
    part = np.pad(mask[first_row : rows[-1] + 1, first_column : columns[-1] + 1], 1).astype(np.float64)
    lines = contour_generator(z=part).lines(0.5)
    shift = np.array([first_row - 1, first_column - 1])
    return [_corners(np.asarray(line)[:-1, ::-1] + shift) for line in lines]


def _corners(points: np.ndarray) -> np.ndarray:
    before, after = points - np.roll(points, 1, axis=0), np.roll(points, -1, axis=0) - points
    turns = before[:, 0] * after[:, 1] - before[:, 1] * after[:, 0]
    return points[np.abs(turns) > 1e-9]


def filled(contours_rc: Sequence[np.ndarray], shape_HW: tuple[int, int]) -> np.ndarray:  # noqa: N803
    """The voxels whose centres an odd number of contours surround; what lies outside the image is cut off.

    Args:
        contours_rc: (n, 2) row, column each, closed from the last point to the first.
    Returns:
        (H, W) bool.
    """
    rows, columns = shape_HW
    turns = np.zeros((rows, columns + 1), dtype=np.int32)
    for points in contours_rc:
        begin, end = points, np.roll(points, -1, axis=0)
        top, bottom = np.minimum(begin[:, 0], end[:, 0]), np.maximum(begin[:, 0], end[:, 0])
        first = np.clip(np.ceil(top), 0, rows).astype(np.int64)
        stop = np.clip(np.ceil(bottom), 0, rows).astype(np.int64)  # an edge owns its upper end and not its lower one
        count = np.maximum(stop - first, 0)
        edge = np.repeat(np.arange(len(points)), count)
        row = np.arange(len(edge)) - np.repeat(np.cumsum(count) - count, count) + np.repeat(first, count)
        share = (row - begin[edge, 0]) / (end[edge, 0] - begin[edge, 0])
        crossing = begin[edge, 1] + share * (end[edge, 1] - begin[edge, 1])
        np.add.at(turns, (row, np.clip(np.ceil(crossing), 0, columns).astype(np.int64)), 1)
    return np.cumsum(turns[:, :-1], axis=1) % 2 == 1
