"""Films of drawn hands: the bones and the outline of ``bones``, posed, exposed and marked.

Pixel centres are whole numbers, x is the column and y the row. A pose is a similarity from the canvas to the film:
``Pose()`` on a film of the canvas's size is the canvas itself.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from medray.systems.boneage.phantoms.bones import Child, Sex, Shapes, draw_child, draw_shapes, maturity
from medray.systems.boneage.stages.canvas import CAPITATE_XY, COLUMNS_PX, ROWS_PX, TIP_XY

_MARGIN = 0.03  # of the film's shorter side, around a hand whose pose is drawn
_SCALES = (0.6, 0.96)  # the largest is 1.6 times the smallest, as the hands of a child of two and of an adult
_MOST_DEG = 25.0
_MOST_SHIFT = 0.12
_LEAST_PX = 32
_SHIFT_BITS = 4  # cv2 draws polygons in sixteenths of a pixel
_ROUNDING = 22.0  # canvas units: corners of the soft tissue are rounded by about so much


@dataclass(frozen=True)
class Pose:
    """How a hand lies on a film: mirrored first, then turned and scaled about the middle, then shifted."""

    rotation_deg: float = 0.0  # clockwise as seen
    scale: float = 1.0  # 1: the canvas fits the film
    shift_x: float = 0.0  # share of the film's columns, to the right
    shift_y: float = 0.0  # share of the film's rows, down
    mirrored: bool = False  # thumb at lesser x, before it is turned

    def matrix(self, rows: int, columns: int) -> np.ndarray:
        """(2, 3) float64: x, y, 1 on the canvas → x, y in pixels of a film of this size."""
        size = self.scale * min(rows / ROWS_PX, columns / COLUMNS_PX)
        c, s = size * np.cos(np.radians(self.rotation_deg)), size * np.sin(np.radians(self.rotation_deg))
        linear = np.array([[c, -s], [s, c]]) * ((-1, 1) if self.mirrored else (1, 1))
        middle = np.array([COLUMNS_PX - 1, ROWS_PX - 1]) / 2
        to = np.array([(columns - 1) / 2 + self.shift_x * columns, (rows - 1) / 2 + self.shift_y * rows])
        return np.column_stack([linear, to - linear @ middle])


@dataclass(frozen=True)
class Hand:
    """A film and all that is known of it."""

    image: np.ndarray  # (rows, columns) uint8, bright is dense
    mask: np.ndarray  # (rows, columns) uint8, 1 in the soft tissue, forearm included
    points: np.ndarray  # (3, 2) float64, x and y in pixels, in the order of canvas.POINTS
    pose: Pose


def draw_hand(
    rng: np.random.Generator,
    age_months: float,
    sex: Sex,
    rows: int,
    columns: int,
    pose: Pose | None = None,
    child: Child | None = None,
) -> Hand:
    """One film of a hand.

    Args:
        age_months: bone age; what is seen is ``maturity`` of it, give or take what is the child's own.
        pose: drawn so that the hand lies within the film where it is None; one that is given is not checked.
        child: drawn where it is None; the same one for several films of a child.
    Raises:
        ValueError: a film that is too small to show a hand.
    """
    if min(rows, columns) < _LEAST_PX:
        raise ValueError(f"a film of {rows} × {columns} pixels is too small for a hand; {_LEAST_PX} is the least")
    child = child or draw_child(rng)
    shapes = draw_shapes(rng, child, maturity(age_months, sex))
    pose = pose or _draw_pose(rng, shapes, rows, columns)
    matrix = pose.matrix(rows, columns)
    px = float(np.hypot(matrix[0, 0], matrix[1, 0]))  # of a canvas unit
    mask = _soft_tissue(shapes, matrix, rows, columns, px)
    image = _exposed(rng, mask, _bones(shapes, matrix, rows, columns), px)
    points = np.array([TIP_XY, shapes.thumb, CAPITATE_XY]) @ matrix[:, :2].T + matrix[:, 2]
    return Hand(image, mask, points, pose)


def _draw_pose(rng: np.random.Generator, shapes: Shapes, rows: int, columns: int) -> Pose:
    outline = np.vstack(shapes.hand)
    margin = _MARGIN * min(rows, columns)
    mirrored = bool(rng.uniform() < 0.2)
    while True:  # the smaller ones fit, however they are turned
        turn, scale = float(rng.uniform(-_MOST_DEG, _MOST_DEG)), float(rng.uniform(*_SCALES))
        matrix = Pose(turn, scale, mirrored=mirrored).matrix(rows, columns)
        on_film = outline @ matrix[:, :2].T + matrix[:, 2]
        size = np.array([columns, rows])
        least = np.maximum((margin - on_film.min(axis=0)) / size, -_MOST_SHIFT)
        most = np.minimum((size - 1 - margin - on_film.max(axis=0)) / size, _MOST_SHIFT)
        if (least <= most).all():
            x, y = rng.uniform(least, most)
            return Pose(turn, scale, float(x), float(y), mirrored)


def _soft_tissue(shapes: Shapes, matrix: np.ndarray, rows: int, columns: int, px: float) -> np.ndarray:
    solid = np.zeros((rows, columns), dtype=np.uint8)
    for polygon in _on_film([*shapes.hand, *shapes.forearm], matrix):
        cv2.fillPoly(solid, [polygon], 255, cv2.LINE_AA, _SHIFT_BITS)
    rounded = cv2.GaussianBlur(solid, (0, 0), max(0.5, _ROUNDING * px), borderType=cv2.BORDER_REPLICATE)
    return (rounded > 127).astype(np.uint8)


def _bones(shapes: Shapes, matrix: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """(rows, columns) uint8, 0 where there is none."""
    layers = np.zeros((2, rows, columns), dtype=np.uint8)
    polygons = _on_film([points for _, _, points in shapes.bones], matrix)
    for (layer, value, _), polygon in zip(shapes.bones, polygons, strict=True):
        cv2.fillPoly(layers[layer], [polygon], value, cv2.LINE_AA, _SHIFT_BITS)
    return cv2.addWeighted(layers[0], 1.0, layers[1], 0.5, 0.0)


def _on_film(polygons: list[np.ndarray], matrix: np.ndarray) -> list[np.ndarray]:
    """Polygons on the canvas → on the film, in the fixed point of cv2."""
    posed = np.vstack(polygons) @ matrix[:, :2].T + matrix[:, 2]
    fixed = np.rint(posed * 2**_SHIFT_BITS).astype(np.int32)
    return np.split(fixed, np.cumsum([len(polygon) for polygon in polygons])[:-1])


def _exposed(rng: np.random.Generator, mask: np.ndarray, bones: np.ndarray, px: float) -> np.ndarray:
    rows, columns = mask.shape
    field = _uneven(rng, rows, columns)
    _frame(rng, field, mask)
    image = field + 92 * _thickness(mask, px) * float(rng.uniform(0.75, 1.15))
    grain = rng.standard_normal((rows, columns), dtype=np.float32)
    trabeculae = cv2.GaussianBlur(grain, (0, 0), 1.0)
    image += cv2.GaussianBlur(bones, (0, 0), 0.6) * (0.72 * float(rng.uniform(0.8, 1.1)) + 0.12 * trabeculae)
    image = image * float(rng.uniform(0.75, 1.1)) + float(rng.uniform(2, 20)) + grain * float(rng.uniform(1.5, 5))
    film = np.clip(image, 0, 255).astype(np.uint8)
    if rng.uniform() < 0.4:
        _letter(rng, film, mask)
    return film


def _uneven(rng: np.random.Generator, rows: int, columns: int) -> np.ndarray:
    """(rows, columns) float32: what the film shows beside the hand."""
    if rng.uniform() < 0.6:
        return np.zeros((rows, columns), dtype=np.float32)
    corners = rng.uniform(0, 38, (2, 2)).astype(np.float32)
    return cv2.resize(corners, (columns, rows), interpolation=cv2.INTER_LINEAR)


def _frame(rng: np.random.Generator, field: np.ndarray, mask: np.ndarray) -> None:
    """The edge that the collimator left unexposed, on some films; the hand hides it."""
    widths = rng.uniform(0, 0.05, 4)
    value = rng.uniform(35, 110)
    if rng.uniform() < 0.3:
        rows, columns = field.shape
        top, bottom = round(widths[0] * rows), rows - round(widths[1] * rows)
        left, right = round(widths[2] * columns), columns - round(widths[3] * columns)
        edge = np.ones(field.shape, dtype=bool)
        edge[top:bottom, left:right] = False
        field[edge & (mask == 0)] += value


def _thickness(mask: np.ndarray, px: float) -> np.ndarray:
    """(rows, columns) float32: how much tissue lies behind a pixel, 1 in the palm, less in fingers and at edges."""
    solid = mask.astype(np.float32)
    near = cv2.GaussianBlur(solid, (0, 0), max(0.5, 24 * px), borderType=cv2.BORDER_REPLICATE)
    step = max(1, round(24 * px))  # what is as smooth as this may be made on a small film
    small = cv2.resize(solid, (mask.shape[1] // step, mask.shape[0] // step), interpolation=cv2.INTER_AREA)
    small = cv2.GaussianBlur(small, (0, 0), 120 * px / step, borderType=cv2.BORDER_REPLICATE)
    far = cv2.resize(small, (mask.shape[1], mask.shape[0]), interpolation=cv2.INTER_LINEAR)
    return solid * (0.4 * near + 0.6 * far)


def _letter(rng: np.random.Generator, film: np.ndarray, mask: np.ndarray) -> None:
    """The marker of the side, in a corner where the hand is not."""
    rows, columns = film.shape
    high = round(0.055 * rows)
    wide, edge = round(0.7 * high), round(0.07 * columns)
    for corner in rng.permutation(4):
        top = edge if corner < 2 else rows - edge - high
        left = edge if corner % 2 else columns - edge - wide
        if not mask[max(0, top - 3) : top + high + 3, max(0, left - 3) : left + wide + 3].any():
            scale = cv2.getFontScaleFromHeight(cv2.FONT_HERSHEY_SIMPLEX, high)
            line = max(1, round(high / 7))
            cv2.putText(film, "L", (left, top + high), cv2.FONT_HERSHEY_SIMPLEX, scale, 235, line, cv2.LINE_AA)
            return
