"""OrgansTask: organs on CTs, as the systems that find them have it in common."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
import pandas as pd
import tyro

from medray.metrics.surface import SurfaceDistances
from medray.tasks.ct_rows import largest_part, windowed
from medray.tasks.volume import VolumeTask
from medray.tasks.volume_rows import VolumeRow

Kind = TypeVar("Kind", bound="OrgansTask")


@dataclass(frozen=True, kw_only=True)
class OrgansTask(VolumeTask):
    """A CT in a window of HU → the voxels of each organ."""

    window_hu: tuple[float, float] = (-200.0, 300.0)
    """What the networks tell apart: below it all is as the first, above it as the last. Soft tissue differs by 20 HU."""
    largest_part: bool = True
    """Give out the largest connected part of each organ only: an organ is one piece."""
    organs: tuple[str, ...] = ()
    """Names of those to learn."""
    scans_with: tyro.conf.Suppress[tuple[int, ...]] = ()
    """Of each organ, in how many of the scans that are learned from it is drawn; a run says it."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.window_hu[0] < self.window_hu[1]:
            raise ValueError(f"--window-hu {self.window_hu[0]:g} {self.window_hu[1]:g}: the lower end first")

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.organs

    @property
    def channel_places(self) -> tuple[int, ...]:
        return (0,)

    def keeps_inner(self, index: pd.DataFrame) -> bool:
        """Nothing is chosen on inner scans, and how often a scan is seen changes nothing of what its voxels are."""
        return False

    def volume_of(self, row: Mapping[str, Any]) -> VolumeRow:
        """0 to 1 over the window; outside of the body 0, as its lower end."""
        return windowed(super().volume_of(row), self.window_hu)

    def learning_from(self: Kind, index: pd.DataFrame) -> Kind:
        drawn = np.array(index["organs_ml"].tolist(), dtype=float).reshape(len(index), len(self.organs)) > 0
        return replace(self, scans_with=tuple(drawn.sum(0).tolist()))

    def class_around(self, volume: VolumeRow, rng: np.random.Generator) -> int | None:
        """Over all scans each organ as often as another: small ones would hardly be met otherwise, and neither would those that
        few scans have drawn."""
        if self.foreground_class is not None or not len(volume.classes):
            return self.foreground_class
        return self.one_of(volume.classes.tolist(), rng)

    def one_of(self, classes: Sequence[int], rng: np.random.Generator) -> int:
        """Of those that a scan has; the oftener, the fewer scans have it."""
        if not self.scans_with:
            return int(rng.choice(classes))
        rare = 1 / np.maximum(1, np.array(self.scans_with)[np.asarray(classes) - 1])
        return int(rng.choice(classes, p=rare / rare.sum()))

    def organs_in(self, probabilities: Iterable[np.ndarray]) -> dict[str, np.ndarray]:
        """Organ → (D, H, W) bool: by its own threshold, or, where a voxel is of one class, the most probable of those above it;
        the largest part of each, if so wanted.

        Args:
            probabilities: of each organ in turn, (D, H, W) from 0 to 1.
        """
        if self.activation == "sigmoid":
            found = [one >= self.threshold for one in probabilities]
        else:
            for number, one in enumerate(probabilities, 1):
                if number == 1:
                    best, winner = one.copy(), np.ones(one.shape, np.uint8)
                    continue
                more = one > best
                best[more], winner[more] = one[more], number
            winner[best < self.threshold] = 0
            found = [winner == number for number in range(1, len(self.organs) + 1)]
        return {
            organ: largest_part(mask) if self.largest_part else mask
            for organ, mask in zip(self.organs, found, strict=True)
        }

    def surface_scores(self, name: str, surface: SurfaceDistances | None) -> dict[str, float]:
        """Scores of an organ by the distances between its surfaces; NaN of all where it is not known (None)."""
        return {"hd95_mm": np.nan if surface is None else surface.hausdorff95_mm}

    def scores_of(
        self, name: str, found: np.ndarray, drawn: np.ndarray, known: np.ndarray, spacing_mm: np.ndarray
    ) -> dict[str, float]:
        """With the larger of both directions' 95th percentiles of the distance between surfaces; NaN where nobody has drawn it."""
        own = super().scores_of(name, found, drawn, known, spacing_mm)
        surface = SurfaceDistances.of(drawn, found & known, spacing_mm.tolist()) if known.any() else None
        return own | self.surface_scores(name, surface)

    def metrics(self, outputs: pd.DataFrame) -> dict[str, float]:
        """Mean Dice over the organs, each a mean over the scans in which it is drawn; and of each organ."""
        each = {name: outputs[f"dice_{name}"].astype(float).mean() for name in self.organs}
        found = [value for value in each.values() if np.isfinite(value)]
        mean = float(np.mean(found)) if found else np.nan
        return {"one_minus_dice": 1 - mean, "dice": mean, **{f"dice_{name}": float(v) for name, v in each.items()}}
