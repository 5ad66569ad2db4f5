"""The picture of a film: outline and points of the hand on it, and beside it the registered hand with the regions."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np

from medray.imaging.resize import resize
from medray.systems.boneage.stages.canvas import (
    COLUMNS_PX,
    POINTS,
    REGIONS,
    ROWS_PX,
    RegionName,
    Registration,
    points_of,
)
from medray.systems.boneage.stages.rows import image_of
from medray.systems.boneage.words import short_age

TALL_PX = 560
_LINE_PX, _LETTER_PX = 30, 10  # height of a line of text, and about the width of a letter
_FONT = 0.62  # pages show pictures at about 0.6 of their size
_OUTLINE, _POINT, _NAME = (80, 220, 100), (255, 90, 70), (255, 255, 255)
_FRAMES: Mapping[RegionName, tuple[int, int, int]] = {"A": (90, 170, 255), "B": (255, 200, 60), "C": (220, 120, 255)}


def draw_answer(
    name: str,
    film: Mapping[str, Any],
    hand: Mapping[str, Any] | None,
    points: Sequence[float] | None,
    registration: Registration | None,
    regions: Sequence[RegionName],
    answer: tuple[float, tuple[float, float] | None] | str,
    lines: Sequence[str],
) -> bytes:
    """A PNG.

    Args:
        name: of the film, no identifier.
        film: rows, columns and image. hand: likewise, with its mask; None where none was found.
        points: as shards have them. registration: None where the film did not come so far.
        regions: those that are read.
        answer: months with the interval where there is one, or why there is no answer.
        lines: to be written below the title.
    """
    parts = [_film(film, hand, points)]
    if registration is not None and hand is not None:
        parts.append(_registered(image_of(hand), registration, regions))
    image = np.hstack(parts)
    title = f"{name}: {answer if isinstance(answer, str) else _age(*answer)}"
    written = [part for line in (title, *lines) for part in textwrap.wrap(line, image.shape[1] // _LETTER_PX)]
    return cv2.imencode(".png", np.vstack([_text(written, image.shape[1]), image])[..., ::-1])[1].tobytes()


def _age(months: float, interval: tuple[float, float] | None) -> str:
    return short_age(months) + (
        "" if interval is None else f" (95%: {short_age(interval[0])} to {short_age(interval[1])})"
    )


def _film(film: Mapping[str, Any], hand: Mapping[str, Any] | None, points: Sequence[float] | None) -> np.ndarray:
    grey = image_of(film)
    factor = TALL_PX / grey.shape[0]
    picture = _colour(resize(grey, TALL_PX, max(1, round(grey.shape[1] * factor))))
    if hand is not None:
        mask = image_of(hand, "mask")
        if not mask.all():  # else no network has looked for the hand
            large = cv2.resize(mask, picture.shape[1::-1], interpolation=cv2.INTER_NEAREST)
            outlines, _ = cv2.findContours(large, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
            cv2.drawContours(picture, outlines, -1, _OUTLINE, 2)
    if points is not None:
        for what, (x, y) in zip(POINTS, points_of(points), strict=True):
            if not np.isfinite([x, y]).all():
                continue
            at = (round((x + 0.5) * factor - 0.5), round((y + 0.5) * factor - 0.5))
            cv2.circle(picture, at, 5, _POINT, -1, cv2.LINE_AA)
            (wide, _), _ = cv2.getTextSize(what, cv2.FONT_HERSHEY_SIMPLEX, _FONT, 1)
            left = at[0] + 10 if at[0] + 12 + wide < picture.shape[1] else at[0] - 12 - wide
            _letters(picture, what, (left, at[1] + 6), _NAME)
    return picture


def _registered(grey: np.ndarray, registration: Registration, regions: Sequence[RegionName]) -> np.ndarray:
    """The canvas, with the frames of the regions that are read."""
    scale = TALL_PX / ROWS_PX
    matrix = scale * registration.matrix
    matrix[:, 2] += (scale - 1) / 2
    shrink = min(1.0, registration.scale * scale)
    if shrink < 1:  # by areas: fine lines are not stepped over
        small = resize(grey, max(1, round(grey.shape[0] * shrink)), max(1, round(grey.shape[1] * shrink)))
        y, x = grey.shape[0] / small.shape[0], grey.shape[1] / small.shape[1]
        matrix = matrix @ np.array([[x, 0, (x - 1) / 2], [0, y, (y - 1) / 2], [0, 0, 1]])
        grey = small
    canvas = cv2.warpAffine(grey, matrix, (round(COLUMNS_PX * scale), TALL_PX), flags=cv2.INTER_LINEAR)
    picture = _colour(canvas)
    for region in regions:
        box = REGIONS[region]
        top, left = round(box.top * scale), round(box.left * scale)
        corner = (left + round(box.columns * scale), top + round(box.rows * scale))
        cv2.rectangle(picture, (left, top), corner, _FRAMES[region], 1)
        at = (left + 8, corner[1] - 9) if region == "B" else (left + 8, top + 24)  # C lies above B, and would cross it
        _letters(picture, region, at, _FRAMES[region])
    return picture


def _colour(grey: np.ndarray) -> np.ndarray:
    """(rows, columns, 3), a copy to be drawn on."""
    return np.ascontiguousarray(np.repeat(grey[..., None], 3, axis=2))


def _text(lines: Sequence[str], width: int) -> np.ndarray:
    picture = np.zeros((_LINE_PX * len(lines) + 4, width, 3), np.uint8)
    for i, line in enumerate(lines):
        _letters(picture, line, (8, _LINE_PX * i + 22), (255, 255, 255))
    return picture


def _letters(picture: np.ndarray, text: str, at: tuple[int, int], colour: tuple[int, int, int]) -> None:
    plain = text.replace("–", "-").replace("×", "x").encode("ascii", "replace").decode()  # all that the font has
    for ink, thick in (((0, 0, 0), 5), (colour, 1)):  # a dark rim: legible on bone, too
        cv2.putText(picture, plain, at, cv2.FONT_HERSHEY_SIMPLEX, _FONT, ink, thick, cv2.LINE_AA)
