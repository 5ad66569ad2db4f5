"""What every volume must be, whichever file it came from. Each failing raises Unreadable with the value and a way out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from medray.imaging.types import Unreadable, Volume

MOST_VOXELS = 1 << 29
"""Of a volume: 512 × 512 × 2,048, a CT of a whole body. A damaged header asks for more than memory holds."""
MOST_BYTES = 1 << 31
"""Of its voxels as they are stored: four bytes each, of the largest one."""
_SLAB_VOXELS = 1 << 22
_SIZES_SHOWN = 8  # a header may list as many as a megabyte holds
_LEAST_SPACING_MM, _MOST_SPACING_MM = 1e-3, 1e3


def three_axes(shape: Sequence[int], kind: str) -> tuple[int, int, int]:
    """The first three sizes; a fourth axis and later ones must have the size 1."""
    sizes = [int(size) for size in shape]
    text = " × ".join(map(str, sizes[:_SIZES_SHOWN])) + (" × …" if len(sizes) > _SIZES_SHOWN else "")
    if len(sizes) < 3 or min(sizes) < 1:
        raise Unreadable(f"{kind} of shape ({text}): not a volume; give a file of three axes, none of them empty")
    if any(size != 1 for size in sizes[3:]):
        raise Unreadable(f"{kind} of shape ({text}): {len(sizes)}D, not 3D; split it and give each volume as a file")
    if np.prod(np.array(sizes, dtype=np.float64)) > MOST_VOXELS:
        raise Unreadable(
            f"{kind} of shape ({text}): more than {MOST_VOXELS:,} voxels; the header is damaged, copy it anew"
        )
    return sizes[0], sizes[1], sizes[2]


def sound_affine(affine: np.ndarray, kind: str) -> np.ndarray:
    """(4, 4) float64 as it is, where it can be inverted and its steps are of a plausible size."""
    affine = np.asarray(affine, dtype=np.float64)
    if not np.isfinite(affine).all():
        raise Unreadable(f"{kind} whose affine holds NaN or infinite numbers; write it anew with a valid orientation")
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    text = " × ".join(f"{step:.4g}" for step in spacing)
    if spacing.min() < _LEAST_SPACING_MM or spacing.max() > _MOST_SPACING_MM:
        raise Unreadable(f"{kind} with a spacing of {text} mm; write it anew with the true spacing")
    determinant = float(np.linalg.det(affine[:3, :3] / spacing))
    if abs(determinant) < 1e-3:
        raise Unreadable(
            f"{kind} with a singular affine (spacing {text} mm, determinant of its directions {determinant:.2g}): two "
            "axes run alike; write it anew with a valid orientation"
        )
    return affine


def finite(volume: Volume) -> Volume:
    """The volume as it is, where all voxels are finite."""
    if volume.voxels.dtype.kind == "f":
        count = sum(int(part.size - np.count_nonzero(np.isfinite(part))) for part in _slabs(volume.voxels))
        if count:
            raise Unreadable(
                f"{count:,} of {volume.voxels.size:,} voxels are NaN or infinite; give them the value of what is outside (0 in an MR, -1000 HU in a CT)"
            )
    return volume


def native(stored: np.ndarray, slope: float = 1.0, intercept: float = 0.0) -> np.ndarray:
    """Stored voxels → C order and this machine's byte order: integers as they are, float32 of floats and of scaled ones."""
    if stored.dtype.kind in "iu" and slope == 1 and intercept == 0:
        return np.ascontiguousarray(stored, dtype=stored.dtype.newbyteorder("="))
    with np.errstate(over="ignore", invalid="ignore"):  # what does not fit is counted by ``finite``
        if slope == 1 and intercept == 0:
            return np.ascontiguousarray(stored, dtype=np.float32)
        scaled = np.empty(stored.shape, dtype=np.float32)
        for to, part in zip(_slabs(scaled), _slabs(stored), strict=True):  # of float64, all would be twice the result
            to[...] = part.astype(np.float64) * slope + intercept
        return scaled


def _slabs(voxels: np.ndarray) -> Iterator[np.ndarray]:
    """Parts along the last axis, of some megabytes each."""
    step = max(1, _SLAB_VOXELS // max(1, voxels[..., 0].size))
    return (voxels[..., i : i + step] for i in range(0, voxels.shape[-1], step))


def check_bytes(shape: tuple[int, int, int], dtype: np.dtype, kind: str) -> int:
    """How many bytes the voxels take as they are stored. Raises Unreadable for more than ``MOST_BYTES``."""
    size = int(np.prod(shape)) * dtype.itemsize
    if size > MOST_BYTES:
        raise Unreadable(
            f"{kind} of {size:,} bytes of voxels ({dtype.name}), at most {MOST_BYTES:,}; store it as int16 or float32"
        )
    return size


UNKNOWN = 255
"""In a mask: nobody has looked here; neither trained nor scored."""


def class_numbers(mask: Volume, classes: Sequence[int]) -> np.ndarray:
    """(D, H, W) uint8: a mask that was stored as any type, 0 for background, the classes, and UNKNOWN.

    Raises:
        Unreadable: other values, such as those of a probability or of another list of classes.
    """
    found = np.unique(mask.voxels)
    odd = found[~np.isin(found, [0, *classes, UNKNOWN])]
    if len(odd):
        shown = ", ".join(f"{value:.9g}" for value in odd[:5]) + (", ..." if len(odd) > 5 else "")
        names = " and ".join(str(number) for number in classes)
        raise Unreadable(
            f"values that are no class ({shown}); 0 is the background, {names} the classes, {UNKNOWN} what is not known"
        )
    return mask.voxels.astype(np.uint8)
