"""A slice in grey with the outlines of masks on it."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from scipy import ndimage

DRAWN, FOUND = (90, 200, 255), (255, 150, 40)  # blue and orange, which everybody can tell apart
Colour = tuple[int, int, int]


def outlined(grey: np.ndarray, masks: Sequence[tuple[np.ndarray, Colour]], size_px: tuple[int, int]) -> np.ndarray:
    """(rows, columns, 3) uint8; later outlines lie on earlier ones.

    Args:
        grey: (rows, columns) from 0 to 1. masks: each (rows, columns) bool, and its colour. size_px: rows and columns of the
            picture, one mm as long both ways.
    """
    height, width = size_px
    large = cv2.resize(grey.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
    picture = np.repeat((large.clip(0, 1) * 255).astype(np.uint8)[..., None], 3, 2)
    for mask, colour in masks:
        upright = np.ascontiguousarray(mask.astype(np.uint8))
        there = cv2.resize(upright, (width, height), interpolation=cv2.INTER_NEAREST) > 0
        picture[there & ~ndimage.binary_erosion(there, border_value=1)] = colour  # the picture's edge is no outline
    return picture
