"""The scan's task: MR channels of one grid → where there are lesions."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import tyro
from scipy import ndimage

from medray.tasks.volume import VolumeTask

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

    def finished(self, mask_DHW: np.ndarray, spacing_mm: np.ndarray) -> np.ndarray:  # noqa: N803  axes
        least = self.smallest_mm3 / float(np.prod(spacing_mm))
        if least <= 1:
            return mask_DHW
        kept = mask_DHW.copy()
        for number in range(1, len(self.classes) + 1):
            components, _ = ndimage.label(mask_DHW == number, ndimage.generate_binary_structure(3, 2))
            small = np.bincount(components.ravel()) < least
            small[0] = False
            kept[small[components]] = 0
        return kept

    def metrics(self, outputs: pd.DataFrame) -> dict[str, float]:
        """Means over the scans for which a score is defined; Dice over the classes too."""
        named = {
            f"{score}_{name}" if len(self.classes) > 1 else score: float(
                outputs[f"{score}_{name}"].astype(float).mean()
            )
            for score in ("dice", "ppv", "sensitivity")
            for name in self.classes
        }
        dice = float(np.nanmean(values)) if np.isfinite(values := self._dice(outputs)).any() else np.nan
        return {"one_minus_dice": 1 - dice, **named}

    def _dice(self, outputs: pd.DataFrame) -> np.ndarray:
        return outputs[[f"dice_{name}" for name in self.classes]].to_numpy(dtype=float)
