"""The types of a radiograph, what size it may have, and how values of unknown range become grey."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from medray.imaging.types import Unreadable

MAX_PIXELS = 64_000_000
"""Three times the largest detector (43 × 43 cm at 0.1 mm): more is a damaged header, or a bomb."""
MIN_SIDE, MAX_ASPECT = 16, 5
"""Below and beyond these it is an icon or a strip, not a film."""
VIEWS = ("PA", "AP", "LL", "RL", "RLD", "LLD", "RLO", "LLO", "LATERAL")
"""View positions that are kept (PS3.3 C.8.1.1; LATERAL is CheXpert's): another text may be anything, a name too."""
OLDEST_YEARS = 90.0
"""Ages above are kept as this one: so few people are older that it would name them (45 CFR 164.514)."""
PERCENTILES = (0.5, 99.5)
"""Of the pixels, what becomes black and what becomes white where a file does not say."""


@dataclass(frozen=True)
class FilmHeader:
    """What a file says of its film. Text is the file's own; None where it does not say."""

    kind: str  # "png", "jpeg" or "dicom"
    mode: str  # of pixels: Pillow's ("L", "RGBA", "I;16", "P", ...), or DICOM's photometric interpretation
    rows: int
    columns: int
    image_id: str | None = None  # SOPInstanceUID
    patient_id: str | None = None
    view: str | None = None  # ViewPosition, one of VIEWS
    age_years: float | None = None  # OLDEST_YEARS at most
    sex: str | None = None  # "M", "F" or "O"
    laterality: str | None = None  # "L" or "R", of a part of the body that there are two of


@dataclass(frozen=True)
class Film:
    """A radiograph, bright where it is dense."""

    grey: np.ndarray  # (rows, columns) uint8
    repaired: str | None = None  # what was mended or assumed, None where nothing was


def known_view(text: str) -> str | None:
    """One of ``VIEWS``, or None."""
    view = text.strip().upper()
    return view if view in VIEWS else None


def check_size(rows: int, columns: int) -> None:
    """Raise Unreadable where a film cannot have this size, before memory is asked for it."""
    shown = f"{columns} × {rows} pixels"
    if rows * columns > MAX_PIXELS:
        raise Unreadable(f"{shown}: more than {MAX_PIXELS:,}, no film has so many")
    if min(rows, columns) < MIN_SIDE:
        raise Unreadable(f"{shown}: too small for a film")
    if max(rows, columns) > MAX_ASPECT * min(rows, columns):
        raise Unreadable(f"{shown}: a strip, not a film")


def stretched(values: np.ndarray, counted: np.ndarray | None = None) -> np.ndarray:
    """Values between the 0.5th and the 99.5th percentile, spread over 0 to 255; the others are clipped.

    For values whose range nobody states: 16 bits in a PNG or in DICOM without a window mostly hold 10 to 14, so that a
    fixed division by 256 would leave a film of 12 bits all but black; and the extremes are often a marker of lead or a
    dead pixel, so that the minimum and maximum would do no better.

    Args:
        values: (rows, columns), any number type.
        counted: (rows, columns) bool, which pixels the percentiles are taken of; all where None.
    Returns:
        uint8 of the same shape.
    """
    sample = values if counted is None or not counted.any() else values[counted]
    low, high = np.percentile(sample, PERCENTILES)
    if low == high:  # all but a few pixels have one value: what differs from it has to stay visible
        low, high = float(sample.min()), float(sample.max())
    if low == high:
        return np.zeros(values.shape, np.uint8)
    grey = (values.astype(np.float32) - np.float32(low)) * np.float32(255 / (high - low))
    return np.clip(np.floor(grey + 0.5), 0, 255).astype(np.uint8)
