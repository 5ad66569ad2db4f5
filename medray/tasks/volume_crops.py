"""Crops of a volume: where they are cut, so that a stated share holds foreground, and how."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from medray.tasks.sampling import number_of
from medray.tasks.volume_augmentation import Motion, VolumeAugmentation, sampled_at, vary
from medray.tasks.volume_rows import UNKNOWN, VolumeRow

Elsewhere = Literal["empty", "anywhere"]
TRIES = 50
"""To find a crop without foreground. Where foreground is nearly everywhere, the last one is taken."""


@dataclass(frozen=True, kw_only=True)
class CropFields(VolumeAugmentation):
    """Fields of a task: how its crops are made."""

    patch_DHW: tuple[int, int, int] = (80, 80, 80)  # noqa: N815  axes
    """Voxels of a crop that the loss sees."""
    context_padding: int = 0
    """Voxels more on each side that only the network sees."""
    crops: int = 4
    """Of a volume each time that it is read."""
    foreground_share: float = 0.5
    """Part of the crops of each reading that hold foreground, exactly (to the next whole crop)."""
    foreground_class: int | None = None
    """Number of the class that counts as foreground here; any where not given."""
    elsewhere: Elsewhere = "empty"
    """The other crops hold no foreground (empty), or are cut anywhere and may."""

    def class_around(self, volume: VolumeRow, rng: np.random.Generator) -> int | None:
        """The class around which a crop with foreground is cut; None is any."""
        return self.foreground_class

    def check_crops(self) -> None:
        """Raises ValueError where a field is out of range."""
        self.check_augmentation()
        if min(self.patch_DHW) < 1 or self.context_padding < 0 or self.crops < 1:
            raise ValueError(
                f"--patch-DHW {' '.join(map(str, self.patch_DHW))}, --context-padding {self.context_padding}, --crops "
                f"{self.crops}: at least 1 voxel, 0 voxels and 1 crop"
            )
        if not 0 <= self.foreground_share <= 1:
            raise ValueError(f"--foreground-share {self.foreground_share}: from 0 to 1")


def is_foreground_turn(share: float, number: int) -> bool:
    """Whether the crop of this number holds foreground: of any n numbers in a row about n · share do, to one up or down."""
    return np.floor((number + 1) * share + 1e-9) > np.floor(number * share + 1e-9)


def cut(volume: VolumeRow, of: CropFields, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A crop, augmented: (channels, D, H, W) float32 of the patch and its context, and its (D, H, W) uint8 mask of the patch.

    Where it is cut depends on the number of the example in its epoch, which ``rng`` holds: the crops of one reading follow
    on each other, so that the share is exact in each.
    """
    margin = of.context_padding
    patch = np.array(of.patch_DHW)
    size = patch + 2 * margin
    motion = None
    if of.moves and rng.random() < of.resampled_share:
        motion = Motion.drawn(of, size, volume.spacing_mm, rng)
    middle = _middle(volume, of, motion, rng)
    if of.subvoxel_shift and motion is not None:
        middle = middle + rng.uniform(-0.49, 0.49, 3)  # the nearest voxel stays the nearest
    if motion is None:
        start = np.rint(middle - (size - 1) / 2).astype(int)
        voxels, mask, inside = _sliced(volume, start, size)
    else:
        places = motion.everywhere() + middle.astype(np.float32)
        voxels = sampled_at(volume.voxels_CDHW, places - volume.first.astype(np.float32), nearest=False)
        inner = places[tuple(slice(margin, margin + n) for n in patch)]
        inside = sampled_at(volume.inside_DHW[None], places, nearest=True)[0] > 0
        voxels *= inside
        mask = None if volume.mask_DHW is None else sampled_at(volume.mask_DHW[None], inner, nearest=True)[0]
    if mask is None:
        mask = np.full(of.patch_DHW, UNKNOWN, np.uint8)
    elif motion is None:
        mask = mask[tuple(slice(margin, margin + n) for n in patch)]
    vary(voxels, inside, of, rng)
    for axis, name in enumerate("DHW"):
        if name in of.flip_axes and rng.random() < 0.5:
            voxels, mask = np.flip(voxels, axis + 1), np.flip(mask, axis)
    return np.ascontiguousarray(voxels), np.ascontiguousarray(mask, np.uint8)


def _middle(volume: VolumeRow, of: CropFields, motion: Motion | None, rng: np.random.Generator) -> np.ndarray:
    """(3,) the place of the volume that comes to the middle of the crop."""
    margin, patch, shape = of.context_padding, np.array(of.patch_DHW), np.array(volume.shape)
    size = patch + 2 * margin
    places = volume.places(of.class_around(volume, rng))
    wanted = len(places) > 0 and is_foreground_turn(of.foreground_share, number_of(rng))
    if wanted:
        voxel = np.array(np.unravel_index(int(places[rng.integers(len(places))]), volume.shape))
        low, high = np.maximum(0, voxel - patch + 1), np.minimum(voxel, shape - patch)
        # of a volume that is smaller than the patch: its middle in the middle
        start = np.where(shape < patch, (shape - patch) // 2, rng.integers(np.minimum(low, high), high + 1))
        within = voxel - start + margin  # this place of the crop shows the voxel, however the others move
        return voxel - (within - (size - 1) / 2 if motion is None else motion.at(within))
    # where the brain is: of the air around it there is nothing to learn
    first, stop = (np.array([getattr(part, end) for part in volume.box]) for end in ("start", "stop"))
    low, high = np.minimum(first, shape - patch), np.minimum(np.maximum(first, stop - patch), shape - patch)
    for _ in range(TRIES):
        start = np.where(shape < patch, (shape - patch) // 2, rng.integers(low, high + 1))
        middle = start + (patch - 1) / 2
        below, above = (-(patch - 1) / 2, (patch - 1) / 2) if motion is None else motion.reach(margin)
        more = 0.5 if motion is not None else 0.0
        if of.elsewhere == "anywhere" or not volume.holds(
            np.floor(middle + below - more), np.ceil(middle + above + more) + 1, of.foreground_class
        ):
            break
    return middle


def _sliced(volume: VolumeRow, start: np.ndarray, size: np.ndarray) -> tuple[np.ndarray, np.ndarray | None, np.ndarray]:
    """Copies of a box of the voxels, the mask and the brain; what of it is outside of the volume is 0."""

    def copied(some: np.ndarray, first: np.ndarray, dtype: type) -> np.ndarray:
        at = start - first  # of ``some``
        low, high = np.clip(at, 0, some.shape[-3:]), np.clip(at + size, 0, some.shape[-3:])
        out = np.zeros((*some.shape[:-3], *size), dtype)
        box: Any = (..., *map(slice, low, high))
        there: Any = (..., *map(slice, low - at, high - at))
        out[there] = some[box]
        return out

    zero = np.zeros(3, int)
    mask = None if volume.mask_DHW is None else copied(volume.mask_DHW, zero, np.uint8)
    inside = copied(volume.inside_DHW, zero, np.bool_)
    return copied(volume.voxels_CDHW, volume.first, np.float32), mask, inside
