"""Pixels that stand for no image, such as those outside the reconstruction circle: PS3.3 C.7.5.1.1.2."""

from __future__ import annotations

import sys

import cv2
import numpy as np

from medray.imaging.elements import Elements, integer
from medray.imaging.tags import PADDING_LIMIT, PIXEL_PADDING

Range = tuple[int, int]


def padding_range(elements: Elements, representation: int) -> Range | None:
    """The lowest and the highest stored value that stand for no image; None where the file names none.

    Pixel Padding Value (0028,0120) and, where it is there, Pixel Padding Range Limit (0028,0121), both ends included,
    whichever is larger. Writers mix up the two VRs: -2000 comes as 63536 (US) in signed files and in unsigned ones. The
    16 bits are read as the pixels are, signed where ``representation`` is 1. A range of more than half of all values is
    damage, or one that crosses 0 in an unsigned file, and counts as none.
    """
    if PIXEL_PADDING not in elements.index:
        return None
    ends = [integer(elements, tag) for tag in (PIXEL_PADDING, PADDING_LIMIT) if tag in elements.index]
    if representation == 1:
        ends = [end - (1 << 16) if end >= 1 << 15 else end for end in ends]
    return (min(ends), max(ends)) if max(ends) - min(ends) < 1 << 15 else None


def at_the_border(values: np.ndarray, low: float, high: float = sys.maxsize) -> np.ndarray | None:
    """Where ``low <= values <= high`` holds from the image's border inwards without a gap.

    A padding value may be one that tissue has too: 0 where 0 HU is water. What pads lies around the image, so that only
    pixels count which are joined to the border, side by side, through others in the range.

    Args:
        values: (rows, columns), any number type.
    Returns:
        (rows, columns) bool; None where no pixel of the border is in the range, which costs a look at the border only.
    """
    border = np.concatenate([values[0], values[-1], values[:, 0], values[:, -1]])
    if not ((border >= low) & (border <= high)).any():
        return None
    inside = ((values >= low) & (values <= high)).astype(np.uint8)
    framed = cv2.copyMakeBorder(inside, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=1)
    cv2.floodFill(framed, None, (0, 0), 2)  # type: ignore[call-overload]
    return framed[1:-1, 1:-1] == 2
