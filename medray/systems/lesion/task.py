"""The scan's task: MR channels of one grid → where there are lesions."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import tyro

from medray.metrics.lesions import without_small
from medray.tasks.volume import VolumeTask
from medray.tasks.volume_scores import best_threshold

LEAST_PATIENTS = 4
"""Of a fold's training scans, for some to be kept to choose a threshold on."""
CHANNELS = ("flair", "t1", "t1c", "t2")


@dataclass(frozen=True, kw_only=True)
class LesionTask(VolumeTask):
    """Lesion or not, a voxel each."""

    channels: tuple[str, ...] = ()
    """Of those in the shards, in this order; all where not given."""
    stored: tyro.conf.Suppress[tuple[str, ...]] = CHANNELS  # channels in the shards; the job sets it
    classes: tuple[str, ...] = ("lesion",)
    """Names of the mask's numbers, from 1."""
    smallest_mm3: float = 0.0
    """Components (18-connected, of one class) below this volume are dropped from predictions, not from the truth."""

    choose_threshold: bool = True
    """Choose the threshold on a tenth of the training patients (of 4 or more), which are not trained on; else it is
    --threshold."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.classes or len({*self.classes}) < len(self.classes):
            raise ValueError(f"--classes {' '.join(self.classes)}: one or more, each once")
        if len({*self.channels}) < len(self.channels):
            raise ValueError(f"--channels {' '.join(self.channels)}: each once")
        if not self.smallest_mm3 >= 0:
            raise ValueError(f"--smallest-mm3 {self.smallest_mm3}: must be 0 or more")

    def reading(self, source: Any) -> LesionTask:
        """Raises ValueError where a channel that is asked for is not in the shards."""
        lost = [name for name in self.channels if name not in source.stored_channels]
        if lost:
            there = ", ".join(source.stored_channels)
            raise ValueError(f"--channels {lost[0]}: the scans have {there}; name some of these")
        return replace(self, stored=tuple(source.stored_channels))

    @property
    def used(self) -> tuple[str, ...]:
        """Names of the network's channels."""
        return self.channels or self.stored

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.classes

    @property
    def channel_places(self) -> tuple[int, ...]:
        return tuple(self.stored.index(name) for name in self.used)

    @property
    def channel_count(self) -> int:
        return len(self.used)

    def identity(self) -> dict[str, Any]:
        """With the channels that the network sees; what else the shards hold changes nothing."""
        told = super().identity() | {"channels": self.used}
        return {name: value for name, value in told.items() if name != "stored"}

    def labelled(self, index: pd.DataFrame) -> np.ndarray:
        """Where somebody has drawn a mask, empty ones too."""
        return index["lesion_ml"].notna().to_numpy()

    def keeps_inner(self, index: pd.DataFrame) -> bool:
        """Unless there are so few that none can be spared."""
        return self.choose_threshold and index["patient_id"].nunique() >= LEAST_PATIENTS

    def threshold_by(self, inner: pd.DataFrame | None) -> float:
        """Chosen on the outputs of a run's inner scans; --threshold where there are none, or it is not to be chosen."""
        if inner is None or not self.choose_threshold:
            return self.threshold
        return best_threshold(inner["dice_by_threshold"].tolist())

    def finished(self, mask_DHW: np.ndarray, spacing_mm: np.ndarray) -> np.ndarray:  # noqa: N803  axes
        voxel_mm3 = float(np.prod(spacing_mm))
        if self.smallest_mm3 <= voxel_mm3:
            return mask_DHW
        kept = mask_DHW.copy()
        for number in range(1, len(self.classes) + 1):
            own = mask_DHW == number
            kept[own & ~without_small(own, voxel_mm3, self.smallest_mm3)] = 0
        return kept

    def metrics(self, outputs: pd.DataFrame) -> dict[str, float]:
        """Means over the scans and classes for which a score is defined; of several classes, of each one too."""
        scores = ("dice", "ppv", "sensitivity")
        every = {score: outputs[[f"{score}_{name}" for name in self.classes]].astype(float) for score in scores}
        found = {score: float(np.nanmean(v)) if v.notna().any(axis=None) else np.nan for score, v in every.items()}
        if len(self.classes) > 1:
            found |= {column: float(v[column].mean()) for v in every.values() for column in v}
        return {"one_minus_dice": 1 - found["dice"], **found}
