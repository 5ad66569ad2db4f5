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
