"""Rows of shards as arrays, and films of any proportions in a square for the networks that look for the hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from medray.imaging.resize import resize
from medray.shards.few_rows import Stored

IDENTIFIERS = ("film_id", "patient_id")
ABOUT = (*IDENTIFIERS, "age_months", "sex", "calendar_months")
"""What goes with a film through all stages."""


Stages = Mapping[str, Stored]
"""films, masks, hands, points, A, B, C → its shards; a stage that was left out is not named."""


def image_of(row: Mapping[str, Any], column: str = "image") -> np.ndarray:
    """(rows, columns) uint8."""
    return np.frombuffer(row[column], dtype=np.uint8).reshape(row["rows"], row["columns"])


def number_of(value: float | None) -> float:
    """A number, NaN where it is not known."""
    return float("nan") if value is None else float(value)


def scale_of(rows: int, columns: int, side_px: int) -> float:
    """Pixels of the square a pixel of the film."""
    return side_px / max(rows, columns)


def shape_in(shape: Sequence[int], side_px: int) -> tuple[int, int]:
    """Rows and columns that a film of this shape takes of the square: its upper left part."""
    rows, columns = shape
    scale = scale_of(rows, columns, side_px)
    return max(1, round(rows * scale)), max(1, round(columns * scale))


def in_square(image: np.ndarray, side_px: int, fill: int = 0) -> np.ndarray:
    """(side_px, side_px) uint8: the film as large as fits, proportions kept."""
    rows, columns = shape_in(image.shape, side_px)
    out = np.full((side_px, side_px), fill, dtype=np.uint8)
    out[:rows, :columns] = resize(image, rows, columns)
    return out


def points_in_square(points: np.ndarray, scale: float) -> np.ndarray:
    """x, y of the film → of the square; pixel centres at whole numbers in both."""
    return (points + 0.5) * scale - 0.5


def points_of_film(points: np.ndarray, scale: float) -> np.ndarray:
    """The way back."""
    return (points + 0.5) / scale - 0.5
