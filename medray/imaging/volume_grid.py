"""The grid of a volume: is it another's, what differs, and the ways from one to the other.

Flips and permutations are nibabel's, and lose nothing. Resampling is scipy's: it takes any affine, where SimpleITK wants
perpendicular directions, and axes stay in their order.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
from scipy import ndimage

from medray.imaging.types import Volume, VolumeHeader

SAME_PLACE = 0.05
"""Grids are the same where no corner is further from its counterpart than this share of the smallest spacing: a mask
drawn on an image comes back with its affine rounded, and a twentieth of a voxel moves no label."""

Grid = Volume | VolumeHeader


def same_grid(a: Grid, b: Grid, tolerance: float = SAME_PLACE) -> bool:
    """Whether two volumes have one shape and their voxels one place.

    Args:
        tolerance: the share of the smallest spacing that a corner may be off.
    """
    if _shape(a) != _shape(b):
        return False
    apart = np.abs(_corners_mm(a) - _corners_mm(b)).max()
    return bool(apart <= tolerance * min(*_spacing(a), *_spacing(b)))


def difference(a: Grid, b: Grid, tolerance: float = SAME_PLACE) -> str:
    """One line on what differs from ``b`` in ``a``: shape, spacing, orientation, origin; "" where nothing does."""
    if same_grid(a, b, tolerance):
        return ""
    found = []
    if _shape(a) != _shape(b):
        found.append(f"shape {_product(_shape(a))}, not {_product(_shape(b))}")
    if not np.allclose(_spacing(a), _spacing(b), rtol=1e-3):
        found.append(f"spacing {_product(_spacing(a))} mm, not {_product(_spacing(b))}")
    if axis_codes(a) != axis_codes(b):
        found.append(f"orientation {axis_codes(a)}, not {axis_codes(b)}")
    elif (angle := _angle_degrees(a, b)) > 0.05:
        found.append(f"axes turned by {angle:.1f} degrees")
    if np.abs(a.affine[:3, 3] - b.affine[:3, 3]).max() > tolerance * min(_spacing(b)):
        found.append(f"origin {_point(a)} mm, not {_point(b)}")
    return "; ".join(found or ["the far corner lies elsewhere: spacing or axes differ by a little"])


def axis_codes(grid: Grid) -> str:
    """The directions that the axes are nearest to and grow towards, such as "RAS" or "LPS"."""
    from nibabel.orientations import aff2axcodes

    return "".join(code or "?" for code in aff2axcodes(grid.affine))


def reoriented(volume: Volume, codes: str) -> Volume:
    """The volume with its axes in other directions: flips and permutations, each voxel stays at its place in mm.

    ``reoriented(…, axis_codes(volume))`` leads back to the same voxels.

    Args:
        codes: one of each of L/R, A/P, S/I, such as "RAS".
    Raises:
        ValueError: other codes.
    """
    from nibabel.orientations import apply_orientation, axcodes2ornt, inv_ornt_aff, io_orientation, ornt_transform

    if sorted("RLAPSI".find(code) // 2 for code in codes) != [0, 1, 2]:
        raise ValueError(f"axes {codes!r}: give one of each of L/R, A/P and S/I, such as 'RAS'")
    if codes == axis_codes(volume):
        return volume
    turn = ornt_transform(io_orientation(volume.affine), axcodes2ornt(codes))
    voxels = np.ascontiguousarray(apply_orientation(volume.voxels, turn))
    affine = volume.affine @ inv_ornt_aff(turn, volume.voxels.shape)
    return Volume(voxels, affine)


def canonical(volume: Volume) -> Volume:
    """The volume with axes towards right, front and head."""
    return reoriented(volume, "RAS")


def turned_back(answer: np.ndarray, like: Volume, codes: str = "RAS") -> np.ndarray:
    """An answer on the voxels of ``like`` turned to ``codes``, with the axes that ``like`` itself has."""
    return reoriented(replace(reoriented(like, codes), voxels=answer), axis_codes(like)).voxels


def resampled(volume: Volume, like: Grid, order: int) -> Volume:
    """The volume on another's grid; 0 where it does not reach.

    Args:
        order: 1, linear, for images (the result is float32); 0, the nearest voxel, for labels (their type is kept).
    Raises:
        ValueError: another order.
    """
    if order not in (0, 1):
        raise ValueError(f"order {order}: 0 for labels, 1 for images")
    if same_grid(volume, like, tolerance=1e-6):
        return replace(volume, affine=like.affine)
    to_own = np.linalg.inv(volume.affine) @ like.affine
    voxels = volume.voxels if order == 0 else volume.voxels.astype(np.float32)
    # "grid-constant" reaches half a voxel beyond the outermost centres; "constant" would make them 0 where an affine is
    # rounded
    moved = ndimage.affine_transform(
        voxels, to_own[:3, :3], to_own[:3, 3], output_shape=_shape(like), order=order, mode="grid-constant", cval=0
    )
    return Volume(moved, like.affine)


def _shape(grid: Grid) -> tuple[int, int, int]:
    d, h, w = grid.voxels.shape if isinstance(grid, Volume) else grid.shape_DHW
    return int(d), int(h), int(w)


def _spacing(grid: Grid) -> np.ndarray:
    return np.linalg.norm(grid.affine[:3, :3], axis=0)


def _corners_mm(grid: Grid) -> np.ndarray:
    ends = np.array(list(product(*((0, size - 1) for size in _shape(grid)))), dtype=np.float64)
    return ends @ grid.affine[:3, :3].T + grid.affine[:3, 3]


def _angle_degrees(a: Grid, b: Grid) -> float:
    cosines = ((a.affine[:3, :3] / _spacing(a)) * (b.affine[:3, :3] / _spacing(b))).sum(axis=0)
    return float(np.degrees(np.arccos(np.clip(cosines, -1, 1))).max())


def _product(numbers: np.ndarray | tuple[int, ...]) -> str:
    return " × ".join(f"{number:.5g}" for number in numbers)


def _point(grid: Grid) -> str:
    return "(" + ", ".join(f"{number:.2f}" for number in grid.affine[:3, 3]) + ")"
