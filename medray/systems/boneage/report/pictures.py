"""A film on its way: mask, equalised hand with its points, regions; rows of a few films from the shards of the
stages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import pandas as pd

from medray.imaging.resize import resize
from medray.report.outlines import DRAWN, FOUND
from medray.shards.few_rows import few_rows
from medray.systems.boneage.stages.canvas import POINTS
from medray.systems.boneage.stages.rows import Stages, image_of
from medray.systems.boneage.words import age_words, child_word

WORST = 6
REGION_STAGES = ("A", "B", "C")
_LONG_PX = 560
"""Longer side of every picture: a network's image of 75 × 100 pixels is enlarged to it, or nobody sees the bones."""
_RING_PX = 12
_COLUMNS = (
    "film_id", "rows", "columns", "image", "mask", "sex", "age_months", "mirrored", "points", "found_points",
)  # fmt: skip


@dataclass(frozen=True)
class Chain:
    """What the stages made of one film, in their order."""

    film_id: str
    about: str
    tiles: tuple[tuple[str, np.ndarray | None], ...]
    """Title and (rows, columns) or (rows, columns, 3) uint8; None where the film did not come so far."""


def chosen(films: pd.DataFrame) -> list[str]:
    """The films that a report shows: first the one of the median error, whose chain is shown, then the worst ones.

    Args:
        films: as films.csv.
    """
    known = films[films["error"].notna()]
    order = known.assign(off=known["error"].abs()).sort_values(["off", "film_id"], ascending=[False, True])["film_id"]
    ids = order.tolist()
    return list(dict.fromkeys([*ids[len(ids) // 2 :][:1], *ids[:WORST]]))


def collect(wanted: Sequence[str], stages: Stages) -> list[Chain]:
    """The chains of a few films, in the order of ``wanted``; films that no stage has are left out.

    Args:
        wanted: values of film_id.
        stages: "films" (image, mask), "hands" (the same after cleaning), "points" (found_points: six numbers in the
            film's pixels), and the regions (image, mirrored). A stage that was left out is not named, and has no
            tile.
    """
    rows = {
        stage: {row["film_id"]: row for row in few_rows(one.store, one.files, "film_id", wanted, _COLUMNS)}
        for stage, one in stages.items()
        if stage != "masks"  # the hands have them
    }
    return [
        chain_of(film_id, {stage: found.get(film_id) for stage, found in rows.items()})
        for film_id in wanted
        if any(film_id in found for found in rows.values())
    ]


def chain_of(film_id: str, rows: Mapping[str, Mapping[str, Any] | None]) -> Chain:
    """Of one film: stage → its row, None where that stage has refused it."""
    film, hand, points = rows.get("films"), rows.get("hands"), rows.get("points")
    tiles: list[tuple[str, np.ndarray | None]] = []
    if "films" in rows:
        tiles.append(("film", None if film is None else as_shown(image_of(film))))
    looked_for = hand is None or not (image_of(hand, "mask") != 0).all()
    if "hands" in rows and looked_for:
        tiles.append(("mask", None if film is None or hand is None else outlined(film, hand)))
    if "hands" in rows or "points" in rows:
        under = hand if hand is not None else film if "hands" not in rows else None
        title = "equalised hand" if "hands" in rows else "film"
        tiles.append(
            (f"{title}, points" if "points" in rows else title, None if under is None else pointed(under, film, points))
        )
    for region in REGION_STAGES:
        if region in rows:
            row = rows[region]
            mirrored = bool(row and row.get("mirrored"))
            tiles.append(
                (f"{region}, mirrored" if mirrored else region, None if row is None else as_shown(image_of(row)))
            )
    known = next((row for row in rows.values() if row is not None), {})
    return Chain(film_id, f"{child_word(known.get('sex'))}, {age_words(known.get('age_months'))}", tuple(tiles))


def as_shown(image: np.ndarray) -> np.ndarray:
    """As large as the page shows it, proportions kept."""
    rows, columns = image.shape[:2]
    factor = _LONG_PX / max(rows, columns)
    size = max(1, round(rows * factor)), max(1, round(columns * factor))
    if factor <= 1:
        return resize(image, *size)
    return cv2.resize(image, size[::-1], interpolation=cv2.INTER_CUBIC)


def outlined(film: Mapping[str, Any], hand: Mapping[str, Any]) -> np.ndarray:
    """The film with the outline of the mask that was drawn, blue, and of the one that was found, orange and on top."""
    picture = _colour(as_shown(image_of(film)))
    for row, colour in ((film, DRAWN), (hand, FOUND)):
        if row.get("mask") is not None:
            mask = (image_of(row, "mask") != 0).astype(np.uint8)
            if mask.all():  # no network has looked for the hand
                continue
            mask = cv2.resize(mask, picture.shape[1::-1], interpolation=cv2.INTER_NEAREST)
            lines, _ = cv2.findContours(mask, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
            cv2.drawContours(picture, lines, -1, colour, 2)
    return picture


def pointed(under: Mapping[str, Any], film: Mapping[str, Any] | None, points: Mapping[str, Any] | None) -> np.ndarray:
    """A film or hand with its points: rings where they were marked by hand, blue, dots where they were found, orange."""
    whole = image_of(under)
    picture = _colour(as_shown(whole))
    factor = picture.shape[0] / whole.shape[0]
    for row, column, colour, radius, width in (
        (film, "points", DRAWN, _RING_PX, 3),
        (points, "found_points", FOUND, 6, -1),
    ):
        values = None if row is None else row.get(column)
        if values is None:
            continue
        for x, y in np.asarray(values, dtype=np.float64).reshape(len(POINTS), 2):
            if np.isfinite([x, y]).all():
                at = round((x + 0.5) * factor - 0.5), round((y + 0.5) * factor - 0.5)
                cv2.circle(picture, at, radius, colour, width, cv2.LINE_AA)
    return picture


def _colour(image: np.ndarray) -> np.ndarray:
    """(rows, columns, 3), a copy to be drawn on."""
    return np.ascontiguousarray(np.repeat(image[..., None], 3, axis=2))
