"""A 3D segmentation: trained on random crops, several from one reading of a volume; predicted on the whole volume."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional

from medray.tasks.task import At, Example, Task

CHANNELS = 2
UNKNOWN = 255
"""In a mask: nobody has drawn here."""


def entropy_of_known(logits: Tensor, target: Tensor, known: Tensor, at: At) -> Tensor:
    """Cross-entropy, its mean over what is known in the batches of all workers together. All of one shape."""
    each = functional.binary_cross_entropy_with_logits(logits.float(), target.nan_to_num(), reduction="none")
    count = at.sum_over_workers(known.sum().float()).clamp(min=1)
    return (each * known).sum() * at.workers / count


def segmenter(channels: int, hidden: int) -> nn.Module:
    """(batch, channels, depth, height, width) → logits of one class, of the same size."""
    return nn.Sequential(
        nn.Conv3d(channels, hidden, 3, padding=1), nn.ReLU(), nn.Conv3d(hidden, hidden, 3, padding=1), nn.ReLU(),
        nn.Conv3d(hidden, 1, 1),
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class PatchTask(Task):
    """Lesion or not, a voxel each. Volumes are resampled to one spacing, and answers back to their own grid."""

    id_column: ClassVar[str] = "volume_id"
    columns: ClassVar[tuple[str, ...]] = ("volume_id", "patient_id", "shape_DHW", "spacing_mm", "voxels", "mask")

    host: ClassVar[tuple[str, ...]] = ("volume_id", "patient_id", "own_mask")

    patch_DHW: tuple[int, int, int] = (8, 8, 8)  # noqa: N815  axes
    crops: int = 4
    """Of a volume each time that it is read."""
    spacing_mm: float = 1.0
    """Of all three axes, for the network."""
    hidden: int = 8

    def labelled(self, index: pd.DataFrame) -> np.ndarray:
        """Where somebody has drawn a mask."""
        return index["lesion"].notna().to_numpy()

    @property
    def examples_per_row(self) -> int:
        return self.crops

    @property
    def evaluation_batch(self) -> int:
        return 1

    def train_example(self, row: Mapping[str, Any], rng: np.random.Generator) -> Example:
        return self.train_examples(row, [rng])[0]

    def train_examples(self, row: Mapping[str, Any], rngs: Sequence[np.random.Generator]) -> list[Example]:
        whole = self.example(row)
        return [self._crop(whole, rng) for rng in rngs]

    def _crop(self, whole: Example, rng: np.random.Generator) -> Example:
        start = [
            int(rng.integers(0, max(1, n - p + 1)))
            for n, p in zip(whole["voxels"].shape[1:], self.patch_DHW, strict=True)
        ]
        crop = (slice(None), *(slice(s, s + p) for s, p in zip(start, self.patch_DHW, strict=True)))
        return {
            name: whole[name][crop] if name in {"voxels", "mask"} else whole[name]
            for name in ("volume_id", "voxels", "mask")
        }

    def example(self, row: Mapping[str, Any]) -> Example:
        shape = tuple(row["shape_DHW"])
        known = row["mask"] is not None
        own = np.frombuffer(row["mask"], np.uint8).reshape(shape) if known else np.full(shape, UNKNOWN, np.uint8)
        voxels = np.frombuffer(row["voxels"], np.float32).reshape(CHANNELS, *shape)
        size = tuple(
            max(p, round(n * s / self.spacing_mm))
            for n, s, p in zip(shape, row["spacing_mm"], self.patch_DHW, strict=True)
        )
        return {
            "volume_id": row["volume_id"],
            "patient_id": row["patient_id"],
            "voxels": _resampled(voxels, size),
            "mask": np.where(known, _resampled(own[None].astype(np.float32), size) > 0.5, np.nan).astype(np.float32),
            "own_mask": own,
        }

    def network(self) -> nn.Module:
        return segmenter(CHANNELS, self.hidden)

    def losses(self, network: nn.Module, batch: dict[str, Tensor], at: At) -> dict[str, Tensor]:
        return {"loss": entropy_of_known(network(batch["voxels"]), batch["mask"], ~batch["mask"].isnan(), at)}

    def outputs(self, network: nn.Module, batch: dict[str, Any]) -> dict[str, np.ndarray]:
        from monai.inferers import sliding_window_inference  # takes seconds, which a reading process need not spend

        logits = sliding_window_inference(batch["voxels"], self.patch_DHW, 4, network, overlap=0.25)
        own = batch["own_mask"]
        assert isinstance(logits, Tensor)
        back = functional.interpolate(logits.float(), size=own.shape[1:], mode="trilinear", align_corners=False)
        found = (back[:, 0] > 0).to(torch.uint8).cpu().numpy()
        inside = own == 1
        overlap = (
            2 * (found & inside).sum((1, 2, 3)) / np.maximum(1, found.sum((1, 2, 3), int) + inside.sum((1, 2, 3), int))
        )
        masks = np.array([mask.tobytes() for mask in found], dtype=object)
        return {
            "volume_id": np.asarray(batch["volume_id"]),
            "patient_id": np.asarray(batch["patient_id"]),
            "mask": masks,
            "dice": np.where((own == UNKNOWN).any((1, 2, 3)), np.nan, overlap),
        }

    def metrics(self, outputs: pd.DataFrame) -> dict[str, float]:
        dice = float(outputs["dice"].mean())
        return {"one_minus_dice": 1 - dice, "dice": dice}


def _resampled(volume: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """(channels, depth, height, width) with another depth, height and width."""
    tensor = torch.from_numpy(volume.copy())[None]
    return functional.interpolate(tensor, size=size, mode="trilinear", align_corners=False)[0].numpy()
