"""The canvas that every hand is laid on: two points in fixed places, the thumb on the right; and the regions that are cut from it.

Coordinates are x, y: columns to the right and rows down, pixel centres at whole numbers. The canvas is the source's, 1600 wide
and 2080 high (Iglovikov et al. 2018, DLMIA): fingertip about 100 pixels below the upper edge, capitate about 480 above the
lower one, both in the middle.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np

from medray.imaging.resize import resize

RegionName = Literal["A", "B", "C"]
POINTS = ("tip", "thumb", "capitate")
"""Tip of the middle finger's distal phalanx, tip of the thumb's, centre of the capitate."""
ROWS_PX, COLUMNS_PX = 2080, 1600
TIP_XY, CAPITATE_XY = (800.0, 100.0), (800.0, 1600.0)
_LEAST_LENGTH = 0.15
"""Of the film's longer side, between fingertip and capitate: a hand that is smaller shows no growth plate."""
_THUMB_BEYOND = 0.1
"""Of the length of the hand, that the thumb's tip may lie beyond the film: only its side is asked for."""
_LEAST_THUMB = 0.08
"""Of the length of the hand, between the thumb and its axis: below it nobody can tell which side the thumb is on."""


@dataclass(frozen=True)
class Box:
    """A rectangle on the canvas, in its pixels."""

    top: int
    left: int
    rows: int
    columns: int


REGIONS: dict[RegionName, Box] = {
    "A": Box(40, 50, 2000, 1500),  # the whole hand
    "B": Box(1300, 425, 750, 750),  # carpals, and the growth plates of radius and ulna
    "C": Box(750, 100, 600, 1400),  # metacarpals and proximal phalanges
}


@dataclass(frozen=True)
class Registration:
    """Film to canvas: a similarity, with a reflection where the thumb was on the left."""

    matrix: np.ndarray  # (2, 3) float64: (x, y, 1) of the film → (x, y) of the canvas
    mirrored: bool

    @property
    def scale(self) -> float:
        """Canvas pixels a film pixel."""
        return float(np.sqrt(abs(np.linalg.det(self.matrix[:, :2]))))

    def to_canvas(self, points: np.ndarray) -> np.ndarray:
        """(n, 2) x, y of the film → of the canvas."""
        return np.asarray(points, dtype=np.float64) @ self.matrix[:, :2].T + self.matrix[:, 2]


def points_of(values: Sequence[float]) -> np.ndarray:
    """Six numbers as shards have them → (3, 2) x, y in the order of POINTS."""
    return np.asarray(values, dtype=np.float64).reshape(len(POINTS), 2)


def register(points: np.ndarray, rows: int, columns: int) -> Registration:
    """The similarity that lays fingertip and capitate on their places, aspect kept, and the thumb on the right.

    Args:
        points: (3, 2) x, y on a film of ``rows`` × ``columns``.
    Raises:
        ValueError: points that no hand has; the reason is one line.
    """
    if not np.isfinite(points).all():
        raise ValueError("a point is missing")
    tip, thumb, capitate = points
    size = np.array([columns, rows])
    axis = capitate - tip
    length = float(np.linalg.norm(axis))
    beyond = np.maximum(-0.5 - points, points - (size - 0.5)).max(axis=1)
    outside = beyond > [0, _THUMB_BEYOND * length, 0]
    if outside.any():
        name = ("the fingertip", "the thumb", "the wrist")[int(outside.argmax())]
        raise ValueError(f"{name} lies outside of the film")
    if length < _LEAST_LENGTH * max(rows, columns):
        raise ValueError(f"fingertip and wrist are {length:.0f} pixels apart: no hand, or a very small one")
    aside = thumb_aside(points)
    if abs(aside) < _LEAST_THUMB:
        raise ValueError("the thumb's point lies on the axis of the hand, and tells no side")
    along = float(axis @ (thumb - tip)) / length**2
    if not -0.1 <= along <= 1.2 or abs(aside) > 1.2:
        raise ValueError("the thumb's point is nowhere near the hand")
    mirrored = aside > 0
    turn = np.diag([-1.0 if mirrored else 1.0, 1.0])  # x reflected first
    first, last = turn @ tip, turn @ capitate
    wanted = complex(*CAPITATE_XY) - complex(*TIP_XY)
    factor = wanted / (complex(*last) - complex(*first))  # a rotation and a scale are one complex number
    rotation = np.array([[factor.real, -factor.imag], [factor.imag, factor.real]])
    linear = rotation @ turn
    return Registration(np.column_stack([linear, np.array(TIP_XY) - linear @ tip]), mirrored)


def thumb_aside(points: np.ndarray) -> float:
    """How far the thumb lies from the axis of the hand, in parts of its length: above 0 on the left, seen from the wrist with
    the fingers up, below 0 on the right.

    Args:
        points: (3, 2) x, y.
    """
    tip, thumb, capitate = points
    axis, off = capitate - tip, thumb - tip
    return float(axis[0] * off[1] - axis[1] * off[0]) / max(float(axis @ axis), 1e-12)


def on_canvas(rows: int, columns: int) -> Registration:
    """Of a film that lies on the canvas already, in whatever number of pixels. Raises ValueError for other proportions."""
    x, y = COLUMNS_PX / columns, ROWS_PX / rows
    if abs(x / y - 1) > 0.02:
        raise ValueError(f"{rows} × {columns} pixels are not the canvas's proportions ({ROWS_PX} × {COLUMNS_PX})")
    return Registration(_centred(x, y), False)


def whole_film(rows: int, columns: int) -> Registration:
    """A film that nobody has registered: as large as fits onto the canvas's whole hand, in its middle."""
    box = REGIONS["A"]
    scale = min(box.rows / rows, box.columns / columns)
    matrix = _centred(scale, scale)
    matrix[:, 2] += [box.left + (box.columns - columns * scale) / 2, box.top + (box.rows - rows * scale) / 2]
    return Registration(matrix, False)


def _centred(x: float, y: float) -> np.ndarray:
    """Scales that keep edges of pixels on edges: half a pixel from the first centre."""
    return np.array([[x, 0, (x - 1) / 2], [0, y, (y - 1) / 2]], dtype=np.float64)


def cut(image: np.ndarray, registration: Registration, region: RegionName, scale: float) -> np.ndarray:
    """A region of the canvas in ``scale`` pixels a canvas pixel: (rows, columns) uint8, black where the film has nothing.

    What shrinks by more than half is shrunk by areas first: fine lines of bone are not stepped over.
    """
    box = REGIONS[region]
    rows, columns = size_px(region, scale)
    matrix = registration.matrix.copy()
    shrink = registration.scale * scale
    if shrink < 0.5:
        small = resize(image, max(1, round(image.shape[0] * shrink)), max(1, round(image.shape[1] * shrink)))
        y, x = image.shape[0] / small.shape[0], image.shape[1] / small.shape[1]
        matrix = matrix @ np.vstack([_centred(x, y), [0, 0, 1]])
        image = small
    to_region = np.vstack([_centred(scale, scale), [0, 0, 1]]) @ np.array(
        [[1, 0, -box.left], [0, 1, -box.top], [0, 0, 1]], dtype=np.float64
    )
    whole = (to_region @ np.vstack([matrix, [0, 0, 1]]))[:2]
    return np.asarray(cv2.warpAffine(image, whole, (columns, rows), flags=cv2.INTER_LINEAR, borderValue=0.0))


def size_px(region: RegionName, scale: float) -> tuple[int, int]:
    """Rows and columns of what ``cut`` gives."""
    box = REGIONS[region]
    return round(box.rows * scale), round(box.columns * scale)
