"""Which pixels of a film the network sees: resize, crop, and the way back."""

from __future__ import annotations

import numpy as np

from medray.imaging.resize import resize


def resized(image: np.ndarray, resize_px: int) -> np.ndarray:
    """(rows, columns) uint8 with its shorter side at ``resize_px``, the sides' proportion kept."""
    rows, columns = image.shape
    height, width = resized_shape(rows, columns, resize_px)
    return resize(image, height, width)


def resized_shape(rows: int, columns: int, resize_px: int) -> tuple[int, int]:
    """Rows and columns after ``resized``."""
    factor = resize_px / min(rows, columns)
    return max(resize_px, round(rows * factor)), max(resize_px, round(columns * factor))


def centre(image: np.ndarray, side_px: int) -> np.ndarray:
    """The central square of an image that is no smaller."""
    top, left = (image.shape[0] - side_px) // 2, (image.shape[1] - side_px) // 2
    return image[top : top + side_px, left : left + side_px]


def seen(film_rows: int, film_columns: int, resize_px: int, crop_px: int) -> tuple[float, float, float, float]:
    """The part of the film that the central crop covers, in pixels of the film itself.

    What a map over the crop is laid on: ``resized`` and ``centre``, undone.

    Returns:
        top, left, height, width.
    """
    rows, columns = resized_shape(film_rows, film_columns, resize_px)
    by_row, by_column = film_rows / rows, film_columns / columns
    top, left = (rows - crop_px) // 2, (columns - crop_px) // 2
    return top * by_row, left * by_column, crop_px * by_row, crop_px * by_column


def corners(side_px: int, crop_px: int) -> list[tuple[int, int]]:
    """Top and left of the four corner crops and the central one, of a square."""
    far, middle = side_px - crop_px, (side_px - crop_px) // 2
    return [(0, 0), (0, far), (far, 0), (far, far), (middle, middle)]
