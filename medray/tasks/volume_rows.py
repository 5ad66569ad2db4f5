"""VolumeRow: a row of shards that hold one volume each, decoded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from medray.imaging.volume_checks import UNKNOWN

COLUMNS = (
    "scan_id", "patient_id", "visit", "shape_DHW", "spacing_mm", "voxels", "box_DHW", "brain", "mask", "foreground",
)  # fmt: skip

SCANS_PER_SHARD = 4
"""So that a few dozen scans are read, and drawn, by more than one core."""


@dataclass(frozen=True, eq=False)
class VolumeRow:
    """Views of a row's bytes: what is cut out of them must be copied, or the whole of them stays in memory."""

    voxels_CDHW: np.ndarray  # noqa: N815  axes; float32, of ``box`` alone: outside of it there is no brain, and all is 0
    box: tuple[slice, slice, slice]  # of the volume
    mask_DHW: np.ndarray | None  # noqa: N815  uint8: 0, class numbers, UNKNOWN
    inside_DHW: np.ndarray  # noqa: N815  uint8, 1 in the brain; everywhere where the row does not tell
    spacing_mm: np.ndarray  # (3,) float64 of D, H, W
    foreground: np.ndarray  # (n,) flat places of some voxels that are of a class
    foreground_class: np.ndarray | None = None  # (n,) the class of each, where the row tells: classes may overlap

    @classmethod
    def of(cls, row: Mapping[str, Any], channels: Sequence[int]) -> VolumeRow:
        """
        Args:
            row: with ``COLUMNS``; "mask" None where nobody has drawn, "brain" None where all is inside.
            channels: which of the stored ones, in order.
        """
        shape = tuple(row["shape_DHW"])
        size = int(np.prod(shape))
        box, voxels = _stored(row)
        if list(channels) != list(range(len(voxels))):
            voxels = voxels[list(channels)]
        known = row["mask"] is not None
        brain = row["brain"]
        return cls(
            voxels,
            box,
            np.frombuffer(row["mask"], np.uint8).reshape(shape) if known else None,
            np.ones(shape, np.uint8)
            if brain is None
            else np.unpackbits(np.frombuffer(brain, np.uint8), count=size).reshape(shape),
            np.asarray(row["spacing_mm"], np.float64),
            np.asarray(row["foreground"] if known and row["foreground"] is not None else [], np.int64),
            np.asarray(row["foreground_class"], np.int64)
            if known and row.get("foreground_class") is not None
            else None,
        )

    @property
    def shape(self) -> tuple[int, int, int]:
        d, h, w = self.inside_DHW.shape
        return d, h, w

    def whole(self) -> np.ndarray:
        """(channels, D, H, W) float32 of all of the volume."""
        return _spread(self.voxels_CDHW, self.box, self.shape)

    @property
    def first(self) -> np.ndarray:
        """(3,) the place in the volume of the first of ``voxels_CDHW``."""
        return np.array([part.start for part in self.box])

    def places(self, number: int | None) -> np.ndarray:
        """(n,) flat places of voxels of any class, or of one by its number; all those of a rare one."""
        if number is None or self.mask_DHW is None:
            return self.foreground
        if self.foreground_class is not None:
            return self.foreground[self.foreground_class == number]
        flat = self.mask_DHW.reshape(-1)
        own = self.foreground[flat[self.foreground] == number]
        return own if len(own) else np.flatnonzero(flat == number)

    @property
    def classes(self) -> np.ndarray:
        """Numbers of the classes that have places, where the row tells them."""
        return np.unique(self.foreground_class) if self.foreground_class is not None else np.zeros(0, np.int64)

    def holds(self, start: np.ndarray, stop: np.ndarray, number: int | None) -> bool:
        """Whether a voxel of any class, or of one, is in the box; what of it is outside of the volume holds none."""
        if self.mask_DHW is None:
            return False
        box = self.mask_DHW[tuple(slice(max(0, int(a)), max(0, int(b))) for a, b in zip(start, stop, strict=True))]
        return bool((box == number).any() if number is not None else ((box != 0) & (box != UNKNOWN)).any())


def _extent(there: np.ndarray) -> slice:
    """From the first to the last of (n,) bool."""
    places = np.flatnonzero(there)
    return slice(int(places[0]), int(places[-1]) + 1) if len(places) else slice(0, 0)


def box_of(inside_DHW: np.ndarray) -> tuple[slice, slice, slice]:  # noqa: N803  axes
    """Of the brain; empty where there is none."""
    d, h, w = (_extent(np.asarray(inside_DHW.any(tuple(a for a in range(3) if a != axis)))) for axis in range(3))
    return d, h, w


def in_box(voxels_CDHW: np.ndarray, brain_DHW: np.ndarray) -> dict[str, Any]:  # noqa: N803  axes
    """Columns of a row: the voxels in the box of the brain. Of a head's scan it is a third: that much less is read and
    unpacked for every few crops. Where there is no brain, all of the volume. ``whole`` leads back."""
    box = box_of(brain_DHW) if brain_DHW.any() else tuple(slice(0, side) for side in brain_DHW.shape)
    return {
        "box_DHW": [end for part in box for end in (part.start, part.stop)],
        "voxels": np.ascontiguousarray(voxels_CDHW[(slice(None), *box)], np.float32).tobytes(),
    }


def whole(row: Mapping[str, Any]) -> np.ndarray:
    """(channels, D, H, W) float32 of all of a row's volume."""
    box, voxels = _stored(row)
    return _spread(voxels, box, tuple(row["shape_DHW"]))


def _spread(voxels: np.ndarray, box: tuple[slice, slice, slice], shape: tuple[int, int, int]) -> np.ndarray:
    if voxels.shape[1:] == shape:
        return voxels
    out = np.zeros((len(voxels), *shape), np.float32)
    out[(slice(None), *box)] = voxels
    return out


def _stored(row: Mapping[str, Any]) -> tuple[tuple[slice, slice, slice], np.ndarray]:
    """The box, of which voxels are there (all of the volume where the row names none), and them."""
    ends = row["box_DHW"]
    d, h, w = (
        (slice(0, side) for side in row["shape_DHW"])
        if ends is None
        else (slice(a, b) for a, b in zip(ends[::2], ends[1::2], strict=True))
    )
    sides = [part.stop - part.start for part in (d, h, w)]
    return (d, h, w), np.frombuffer(row["voxels"], np.float32).reshape(-1, *sides)


def mask_of(row: Mapping[str, Any], column: str = "mask") -> np.ndarray:
    """(D, H, W) uint8 of a row of shards or outputs."""
    return np.frombuffer(row[column], np.uint8).reshape(tuple(row["shape_DHW"]))


def probability_of(row: Mapping[str, Any]) -> np.ndarray:
    """(classes, D, H, W) float32 from 0 to 1 of a row of outputs, to 1/255 or as float16."""
    shape = tuple(row["shape_DHW"])
    if row["probability_type"] == "float16":
        return np.frombuffer(row["probability"], np.float16).reshape(-1, *shape).astype(np.float32)
    return np.frombuffer(row["probability"], np.uint8).reshape(-1, *shape).astype(np.float32) / 255
