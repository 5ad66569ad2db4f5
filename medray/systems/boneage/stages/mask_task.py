"""The first network: a film → where the hand is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import cv2
import numpy as np
import pandas as pd

from medray.systems.boneage.stages.disturb import Disturbed, moved
from medray.systems.boneage.stages.rows import IDENTIFIERS, image_of, in_square
from medray.tasks.task import At, Example, Task

if TYPE_CHECKING:
    from torch import Tensor, nn

UNKNOWN = 255  # of a mask: where nobody has drawn


@dataclass(frozen=True, kw_only=True)
class MaskTask(Disturbed, Task):
    """A U-Net with batch normalization; cross-entropy minus the logarithm of the soft Jaccard index (Iglovikov et al. 2018)."""

    id_column: ClassVar[str] = "film_id"
    host: ClassVar[tuple[str, ...]] = (*IDENTIFIERS, "film_px")
    columns: ClassVar[tuple[str, ...]] = (*IDENTIFIERS, "rows", "columns", "image", "mask")

    side_px: int = 256
    """The film's longer side becomes this."""
    width: int = 32
    """Channels of the first level."""
    flip: bool = True
    """Augment with mirror images."""
    jaccard_weight: float = 1.0
    """Of the second part of the loss."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_disturbance()
        if self.side_px < 32 or self.side_px % 16:
            raise ValueError(f"side_px {self.side_px}: a multiple of 16, at least 32")
        if self.width < 1:
            raise ValueError(f"width {self.width}: must be at least 1")

    def labelled(self, index: pd.DataFrame) -> np.ndarray:
        return index["has_mask"].fillna(0).to_numpy() == 1

    def train_example(self, row: Mapping[str, Any], rng: np.random.Generator) -> Example:
        example = self.example(row)
        if not self.still or self.flip:
            matrix = self.pose(rng, self.side_px, self.side_px, self.flip)
            example["image"] = moved(example["image"][0], matrix)[None]
            if (example["mask"] != UNKNOWN).any():
                example["mask"] = moved(example["mask"][0], matrix, nearest=True)[None]
        example["image"] = self.exposure(example["image"][0], rng)[None]
        return example

    def example(self, row: Mapping[str, Any]) -> Example:
        if row["mask"] is None:
            mask = np.full((self.side_px, self.side_px), UNKNOWN, np.uint8)
        else:  # half of a pixel's area is hand
            mask = (in_square(image_of(row, "mask") * np.uint8(254), self.side_px) >= 127).astype(np.uint8)
        image = in_square(image_of(row), self.side_px)
        film_px = np.array([row["rows"], row["columns"]], dtype=np.int32)
        return {name: row[name] for name in IDENTIFIERS} | {
            "image": image[None],
            "mask": mask[None],
            "film_px": film_px,
        }

    def network(self) -> nn.Module:
        from medray.systems.boneage.stages.networks import mask_network

        return mask_network(self.width)

    def losses(self, network: nn.Module, batch: dict[str, Any], at: At) -> dict[str, Tensor]:
        """Both parts are means over the films whose mask is known."""
        from torch.nn import functional

        logits = network(batch["image"])[:, 0].float()
        drawn = batch["mask"][:, 0]
        known = (drawn != UNKNOWN).all(dim=2).all(dim=1)
        target = drawn.float() * known[:, None, None]
        count = at.sum_over_workers(known.float().sum()).clamp(min=1) / at.workers
        entropy = functional.binary_cross_entropy_with_logits(logits, target, reduction="none").mean(dim=(1, 2))
        probability = logits.sigmoid()
        both = (probability * target).sum(dim=(1, 2))
        either = probability.sum(dim=(1, 2)) + target.sum(dim=(1, 2)) - both
        jaccard = (both + 1) / (either + 1)  # an empty mask, rightly not found, has 1
        parts = {"entropy": entropy, "jaccard": -self.jaccard_weight * jaccard.log()}
        found = {name: (value * known).sum() / count for name, value in parts.items()}
        return {"loss": found["entropy"] + found["jaccard"]} | found

    def probabilities(self, network: nn.Module, batch: dict[str, Any]) -> np.ndarray:
        """(batch, side_px, side_px) float32."""
        return np.asarray(network(batch["image"])[:, 0].float().sigmoid().cpu().numpy())

    def outputs(self, network: nn.Module, batch: dict[str, Any]) -> dict[str, np.ndarray]:
        return self.columns_of(self.probabilities(network, batch), batch)

    def columns_of(self, probability: np.ndarray, batch: dict[str, Any]) -> dict[str, np.ndarray]:
        """The Jaccard index (IoU) of each film, NaN where nobody has drawn, and cross-entropy, its mean over pixels.

        Args:
            probability: as ``probabilities`` gives it.
        """
        drawn = batch["mask"][:, 0].cpu().numpy()
        known = (drawn != UNKNOWN).all(axis=(1, 2))
        found, true = probability >= 0.5, drawn == 1
        both, either = (found & true).sum(axis=(1, 2)), (found | true).sum(axis=(1, 2))
        sure = np.clip(np.where(true, probability, 1 - probability).astype(np.float64), 1e-7, 1)
        return {
            "log_loss": np.where(known, -np.log(sure).mean(axis=(1, 2)), np.nan),
            "iou": np.where(known, np.where(either > 0, both / np.maximum(either, 1), 1.0), np.nan),
            **{name: np.asarray(batch[name]) for name in IDENTIFIERS},
        }

    def metrics(self, outputs: pd.DataFrame) -> dict[str, float]:
        return {"mask_log_loss": float(outputs["log_loss"].mean()), "iou": float(outputs["iou"].mean())}

    def training_gigabytes(self) -> float | None:
        return self.counted_gigabytes()

    def example_input(self) -> np.ndarray:
        return np.zeros((2, 1, self.side_px, self.side_px), dtype=np.uint8)


def largest_part(probability: np.ndarray) -> tuple[np.ndarray, float, float]:
    """The hand in a map of probabilities, holes filled.

    Args:
        probability: (rows, columns) of any film.
    Returns:
        (rows, columns) bool; its share of the film; the next largest part's size as a part of its own.
    """
    count, labels, stats, _ = cv2.connectedComponentsWithStats((probability >= 0.5).astype(np.uint8), connectivity=8)
    if count < 2:
        return np.zeros(probability.shape, bool), 0.0, 0.0
    areas = stats[1:, cv2.CC_STAT_AREA]
    order = np.argsort(areas)[::-1]
    hand = (labels == order[0] + 1).astype(np.uint8)
    outlines, _ = cv2.findContours(hand, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    filled = cv2.drawContours(np.zeros_like(hand), outlines, -1, 1, cv2.FILLED).astype(bool)
    next_largest = float(areas[order[1]] / areas[order[0]]) if len(areas) > 1 else 0.0
    return filled, float(filled.mean()), next_largest
