"""What lies between the networks: masks of hands, hands without background, points, and the regions of registered hands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal

import cv2
import numpy as np
import pandas as pd
import pyarrow as pa

from medray.imaging.resize import resize
from medray.systems.boneage.stages.canvas import (
    POINTS,
    RegionName,
    Registration,
    cut,
    on_canvas,
    points_of,
    register,
    whole_film,
)
from medray.systems.boneage.stages.mask_task import MaskTask, largest_part
from medray.systems.boneage.stages.point_task import COORDINATES, PointTask
from medray.systems.boneage.stages.rows import ABOUT, image_of, shape_in

LEAST_SHARE = 0.02
"""Of a film that is hand: below it nobody's hand is there."""
MOST_SHARE = 0.9
"""Above it the network has taken the film itself for the hand."""
OFF_THE_HAND = 0.06
"""Of the length of the hand, that a point may lie outside of what was found to be hand."""
TWO_HANDS = 0.4
"""A second part of at least this size, as a part of the largest, is another hand."""
_ABOUT = [(name, pa.float64() if name.endswith("months") else pa.string()) for name in ABOUT]
_IMAGE = [("rows", pa.int32()), ("columns", pa.int32()), ("image", pa.binary())]
How = Literal["points", "marked", "canvas", "film"]
"""Registered by points that a network has found, or that somebody has marked; on the canvas already; not at all: the whole
film."""
_POINTS = {"points": "found_points", "marked": "points"}


@dataclass(frozen=True)
class Masks:
    """By the first network: how likely each pixel of the film is hand, in the network's own pixels."""

    id_column: ClassVar[str] = "film_id"
    schema: ClassVar[pa.Schema] = pa.schema(
        [
            ("film_id", pa.string()), ("patient_id", pa.string()), ("found_rows", pa.int32()), ("found_columns", pa.int32()),
            pa.field("found", pa.binary(), metadata={"axes": "rows, columns", "dtype": "uint8, 255 is 1"}),
            pa.field("iou", pa.float64(), metadata={"meaning": "with the mask that was drawn; null without one"}),
        ]
    )  # fmt: skip

    def identity(self) -> dict[str, Any]:
        return {"masks": 1}

    def outputs(self, task: MaskTask, network: Any, batch: dict[str, Any]) -> dict[str, Any]:
        shapes = np.asarray([shape_in(shape, task.side_px) for shape in np.asarray(batch["film_px"]).tolist()])
        maps = task.probabilities(network, batch)
        probability = np.rint(maps * 255).astype(np.uint8)
        found = np.empty(len(shapes), dtype=object)
        found[:] = [one[:r, :c].tobytes() for one, (r, c) in zip(probability, shapes.tolist(), strict=True)]
        return task.columns_of(maps, batch) | {
            "found_rows": shapes[:, 0],
            "found_columns": shapes[:, 1],
            "found": found,
        }

    def pack(self, outputs: pd.DataFrame) -> pa.Table:
        return pa.Table.from_pandas(outputs[self.schema.names], schema=self.schema, preserve_index=False)


@dataclass(frozen=True)
class Hands:
    """By a function: the film without what is no hand, contrast equalised (CLAHE) within the hand."""

    masked: bool = True
    """Films are joined with what ``Masks`` found; else the whole film is kept."""
    clip: float = 2.0
    """Clip limit of the equalisation."""

    id_column: ClassVar[str] = "film_id"
    schema: ClassVar[pa.Schema] = pa.schema(
        [
            *_ABOUT, *_IMAGE, ("mask", pa.binary()), ("points", pa.list_(pa.float64())), ("has_points", pa.int8()),
        ]
    )  # fmt: skip

    @property
    def columns(self) -> tuple[str, ...]:
        own = (*ABOUT, "rows", "columns", "image", "points", "has_points")
        return (*own, "found_rows", "found_columns", "found") if self.masked else own

    def identity(self) -> dict[str, Any]:
        return {"hands": 1, **asdict(self)}

    def rows(self, row: Mapping[str, Any]) -> list[dict[str, Any]]:
        image = image_of(row)
        hand = self._hand(row, image) if self.masked else np.ones(image.shape, bool)
        kept = {name: row[name] for name in (*ABOUT, "rows", "columns", "points", "has_points")}
        return [kept | {"image": equalised(image, hand, self.clip).tobytes(), "mask": hand.astype(np.uint8).tobytes()}]

    def _hand(self, row: Mapping[str, Any], image: np.ndarray) -> np.ndarray:
        found = np.frombuffer(row["found"], np.uint8).reshape(row["found_rows"], row["found_columns"])
        return hand_of(resize(found, *image.shape).astype(np.float32) / 255)


def hand_of(probability: np.ndarray) -> np.ndarray:
    """The hand in a map of probabilities: (rows, columns) bool.

    Raises:
        ValueError: there is none, or there are two.
    """
    hand, share, second = largest_part(probability)
    if share < LEAST_SHARE:
        raise ValueError("no hand was found on it")
    if share > MOST_SHARE:
        raise ValueError("no hand was found on it: nearly all of the film was taken for one")
    if second >= TWO_HANDS:
        raise ValueError("two hands, or parts of two: a film must show one")
    return hand


def equalised(image: np.ndarray, hand: np.ndarray, clip: float) -> np.ndarray:
    """(rows, columns) uint8: within the hand its grey values stretched and equalised in tiles (CLAHE, Zuiderveld 1994), 0
    elsewhere."""
    inside = image[hand]
    low, high = np.percentile(inside, [0.5, 99.5])
    grey = np.clip((image.astype(np.float32) - low) * 255 / max(1.0, float(high - low)), 0, 255).astype(np.uint8)
    even = cv2.createCLAHE(clipLimit=clip, tileGridSize=(8, 8)).apply(np.where(hand, grey, 0).astype(np.uint8))
    return np.where(hand, even, 0).astype(np.uint8)


@dataclass(frozen=True)
class Points:
    """By the second network: the three points of every hand, in pixels of the film."""

    id_column: ClassVar[str] = "film_id"
    schema: ClassVar[pa.Schema] = pa.schema(
        [
            ("film_id", pa.string()), ("patient_id", pa.string()), ("found_points", pa.list_(pa.float64())),
            ("error_px", pa.float64()), ("error_part", pa.float64()), ("thumb_right", pa.float64()),
        ]
    )  # fmt: skip

    def identity(self) -> dict[str, Any]:
        return {"points": 2}

    def outputs(self, task: PointTask, network: Any, batch: dict[str, Any]) -> dict[str, Any]:
        return task.outputs(network, batch)

    def pack(self, outputs: pd.DataFrame) -> pa.Table:
        table = outputs.assign(found_points=outputs[list(COORDINATES)].to_numpy().tolist())
        return pa.Table.from_pandas(table[self.schema.names], schema=self.schema, preserve_index=False)


@dataclass(frozen=True)
class Region:
    """By a function: one region of every hand that could be registered."""

    name: RegionName
    scale: float
    how: How

    id_column: ClassVar[str] = "film_id"
    schema: ClassVar[pa.Schema] = pa.schema([*_ABOUT, *_IMAGE, ("mirrored", pa.int8())])

    @property
    def title(self) -> str:
        return f"region {self.name}"

    @property
    def columns(self) -> tuple[str, ...]:
        own = (*ABOUT, "rows", "columns", "image")
        column = _POINTS.get(self.how)
        return (*own, column) if column else own

    def identity(self) -> dict[str, Any]:
        return {"region": 2, **asdict(self)}

    def rows(self, row: Mapping[str, Any]) -> list[dict[str, Any]]:
        image = image_of(row)
        found = registration(self.how, image, row.get(_POINTS.get(self.how, "")))
        image = cut(image, found, self.name, self.scale)
        about = {name: row[name] for name in ABOUT} | {"mirrored": int(found.mirrored)}
        return [about | {"rows": image.shape[0], "columns": image.shape[1], "image": image.tobytes()}]


def registration(how: How, hand: np.ndarray, points: Sequence[float] | None) -> Registration:
    """Of a hand; see ``canvas.register``. Raises ValueError where it cannot be registered.

    Args:
        hand: (rows, columns) uint8, 0 where there is none.
    """
    rows, columns = hand.shape
    if how == "film":
        return whole_film(rows, columns)
    if how == "canvas":
        return on_canvas(rows, columns)
    if points is None:
        raise ValueError("nobody has marked its points")
    placed = points_of([np.nan if value is None else value for value in points])
    found = register(placed, rows, columns)
    _check_on_hand(hand, placed)
    return found


def _check_on_hand(hand: np.ndarray, points: np.ndarray) -> None:
    """Raises ValueError where a point of the film lies far from all that is hand; beyond the film there is nothing to see."""
    reach = max(1, round(OFF_THE_HAND * float(np.linalg.norm(points[2] - points[0]))))
    for name, (x, y) in zip(POINTS, np.rint(points).astype(int).tolist(), strict=True):
        near = hand[max(0, y - reach) : max(0, y + reach + 1), max(0, x - reach) : max(0, x + reach + 1)]
        if near.size and not near.any():
            raise ValueError(f"the point of the {name} lies off the hand")
