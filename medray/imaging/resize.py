"""Another number of pixels: the one rule for training, evaluation and prediction."""

from __future__ import annotations

import cv2
import numpy as np


def resize(image: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """(rows, columns[, channels]) uint8 or float32 of that size.

    By the mean over the area of each new pixel (cv2.INTER_AREA) where both sides shrink: what is small is not stepped
    over. Else linearly: cv2.INTER_AREA would enlarge by repeating pixels.
    """
    if image.shape[:2] == (rows, columns):
        return image
    shrinks = rows <= image.shape[0] and columns <= image.shape[1]
    out = cv2.resize(image, (columns, rows), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    return out.reshape(rows, columns, *image.shape[2:])  # OpenCV drops a single channel


def shrunk(grey: np.ndarray, size_px: int) -> np.ndarray:
    """(rows, columns) uint8 with the shorter side at most ``size_px``; a smaller film stays as it is."""
    rows, columns = grey.shape
    factor = size_px / min(rows, columns)
    if factor >= 1:
        return grey
    return resize(grey, max(size_px, round(rows * factor)), max(size_px, round(columns * factor)))
