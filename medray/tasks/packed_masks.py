"""Voxels of one organ as bits of the box around it: organs overlap, and a box is a thousandth of a scan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import ndimage


def packed(mask: np.ndarray) -> dict[str, Any]:
    """(D, H, W) bool → box_DHW, first and after last of each axis, and bits; both None of an empty one."""
    found = ndimage.find_objects(np.asarray(mask, dtype=bool).view(np.uint8), max_label=1)[0]
    if found is None:
        return {"box_DHW": None, "bits": None}
    box = [int(end) for part in found for end in (part.start, part.stop)]
    return {"box_DHW": box, "bits": np.packbits(mask[found]).tobytes()}


def unpacked(one: Mapping[str, Any], shape: Sequence[int]) -> np.ndarray:
    """The way back: (D, H, W) bool."""
    out = np.zeros(tuple(shape), dtype=bool)
    if one["bits"] is not None:
        ends = one["box_DHW"]
        box = tuple(slice(a, b) for a, b in zip(ends[::2], ends[1::2], strict=True))
        sides = [part.stop - part.start for part in box]
        bits = np.unpackbits(np.frombuffer(one["bits"], np.uint8), count=int(np.prod(sides)))
        out[box] = bits.reshape(sides).astype(bool)
    return out
