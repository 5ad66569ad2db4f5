"""The second network: the hand → three points of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pandas as pd

from medray.systems.boneage.stages.canvas import POINTS, points_of, thumb_aside
from medray.systems.boneage.stages.disturb import Disturbed, check_sizes, moved, moved_points
from medray.systems.boneage.stages.rows import (
    IDENTIFIERS,
    image_of,
    in_square,
    points_in_square,
    points_of_film,
    scale_of,
)
from medray.tasks.task import At, Example, Task

if TYPE_CHECKING:
    from torch import Tensor, nn

COORDINATES = tuple(f"{axis}_{point}" for point in POINTS for axis in "xy")
"""Output columns: pixels of the film."""


@dataclass(frozen=True, kw_only=True)
class PointTask(Disturbed, Task):
    """A VGG-like regression of six coordinates; squared error. Points that nobody has marked do not count."""

    id_column: ClassVar[str] = "film_id"
    host: ClassVar[tuple[str, ...]] = IDENTIFIERS
    columns: ClassVar[tuple[str, ...]] = (*IDENTIFIERS, "rows", "columns", "image", "points")

    side_px: int = 256
    """The film's longer side becomes this."""
    channels: tuple[int, ...] = (32, 64, 128, 128, 256)
    """Of the blocks; each halves the image."""
    dense: int = 512
    """Of the layer before the last."""
    dropout: float = 0.3
    """Before the last layer."""
    flip: bool = True
    """Augment with mirror images: the points go with them, so a right hand is found as a left one is."""
    test_flip: bool = True
    """Answer with the mean over a film and its mirror image."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_disturbance()
        check_sizes(self.channels, self.dense, self.dropout)
        if self.side_px < 2 ** len(self.channels):
            raise ValueError(
                f"side_px {self.side_px}: too small for {len(self.channels)} blocks, each of which halves it"
            )

    def labelled(self, index: pd.DataFrame) -> np.ndarray:
        return index["has_points"].fillna(0).to_numpy() == 1

    def train_example(self, row: Mapping[str, Any], rng: np.random.Generator) -> Example:
        example = self.example(row)
        if not self.still or self.flip:
            matrix = self.pose(rng, self.side_px, self.side_px, self.flip)
            example["image"] = moved(example["image"][0], matrix)[None]
            points = moved_points(self._pixels(example["points"]), matrix)
            # what has left the square cannot be seen: nobody could tell where it is
            seen = ((points > -0.5) & (points < self.side_px - 0.5)).all(axis=1, keepdims=True)
            example["points"] = self._parts(np.where(seen, points, np.nan))
        example["image"] = self.exposure(example["image"][0], rng)[None]
        return example

    def example(self, row: Mapping[str, Any]) -> Example:
        scale = scale_of(row["rows"], row["columns"], self.side_px)
        points = np.full((len(POINTS), 2), np.nan)
        if row["points"] is not None:
            points = points_in_square(points_of([np.nan if v is None else v for v in row["points"]]), scale)
        image = in_square(image_of(row), self.side_px)
        return {name: row[name] for name in IDENTIFIERS} | {
            "image": image[None], "points": self._parts(points), "scale": np.float32(scale),
        }  # fmt: skip

    def _parts(self, points: np.ndarray) -> np.ndarray:
        """(6,) float32: −1 and 1 are the square's edges."""
        return ((points + 0.5) * 2 / self.side_px - 1).astype(np.float32).ravel()

    def _pixels(self, parts: np.ndarray) -> np.ndarray:
        """(..., 3, 2) of the square."""
        return (np.asarray(parts, np.float64).reshape(*parts.shape[:-1], len(POINTS), 2) + 1) * self.side_px / 2 - 0.5

    def network(self) -> nn.Module:
        from medray.systems.boneage.stages.networks import point_network

        return point_network(self.channels, self.dense, self.dropout, self.side_px, len(POINTS))

    def losses(self, network: nn.Module, batch: dict[str, Any], at: At) -> dict[str, Tensor]:
        found, points = network(batch["image"]).float(), batch["points"]
        known = ~points.isnan()
        squares = (found - points.nan_to_num()).square() * known
        return {"loss": at.mean(squares.sum(), known.float().sum())}

    def points(self, network: nn.Module, batch: dict[str, Any]) -> np.ndarray:
        """(batch, 3, 2) x, y in pixels of the film."""
        found = self._pixels(network(batch["image"]).float().cpu().numpy())
        if self.test_flip:
            mirrored = self._pixels(network(batch["image"].flip(-1)).float().cpu().numpy())
            mirrored[..., 0] = self.side_px - 1 - mirrored[..., 0]
            found = (found + mirrored) / 2
        return points_of_film(found, batch["scale"].cpu().numpy()[:, None, None].astype(np.float64))

    def outputs(self, network: nn.Module, batch: dict[str, Any]) -> dict[str, np.ndarray]:
        """COORDINATES, and the mean distance from the points that are marked: in pixels of the film, and in parts of its
        longer side; and whether the thumb was found on the side where it is marked (1 or 0; NaN where it is not)."""
        found = self.points(network, batch)
        scale = batch["scale"].cpu().numpy().astype(np.float64)
        true = points_of_film(self._pixels(batch["points"].cpu().numpy()), scale[:, None, None])
        distance = np.linalg.norm(found - true, axis=2)
        known = np.isfinite(distance)
        error = np.where(known, distance, 0).sum(axis=1) / np.maximum(known.sum(axis=1), 1)
        error = np.where(known.any(axis=1), error, np.nan)
        return {
            **dict(zip(COORDINATES, found.reshape(len(found), -1).T, strict=True)),
            "error_part": error * scale / self.side_px,
            "error_px": error,
            "thumb_right": np.array([_same_side(*pair) for pair in zip(found, true, strict=True)]),
            **{name: np.asarray(batch[name]) for name in IDENTIFIERS},
        }

    def metrics(self, outputs: pd.DataFrame) -> dict[str, float]:
        return {"error_part": float(outputs["error_part"].mean()), "error_px": float(outputs["error_px"].mean())}

    def training_gigabytes(self) -> float | None:
        return self.counted_gigabytes()

    def example_input(self) -> np.ndarray:
        return np.zeros((2, 1, self.side_px, self.side_px), dtype=np.uint8)


def _same_side(found: np.ndarray, true: np.ndarray) -> float:
    """Of two times (3, 2) x, y: 1 where both have the thumb on one side, else 0; NaN where one is not known."""
    if not (np.isfinite(found).all() and np.isfinite(true).all()):
        return np.nan
    return float((thumb_aside(found) > 0) == (thumb_aside(true) > 0))
