"""Test-time augmentation: the same network on several views of a slice, averaged."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import pandas as pd
import pyarrow as pa

from medray.systems.ich.features import pack_stacks
from medray.systems.ich.task import SliceTask

if TYPE_CHECKING:
    from torch import Tensor

    from medray.nn.backbone import Backbone

PLAIN = "plain"
_FLIPS = {"flip": (3,), "flip-vertical": (2,), "flip-both": (2, 3)}  # axes of (batch, channels, rows, columns)
_SIZED = re.compile(r"(crop|scale)-(\d{2,3})")


@dataclass(frozen=True, kw_only=True)
class Views:
    """Which views of each slice a finished backbone sees when it predicts and embeds."""

    id_column: ClassVar[str] = "slice_id"

    views: tuple[str, ...] = (PLAIN, "flip")
    """Test-time augmentation: plain, flip, flip-vertical, flip-both, transpose, crop-90 (the central 90%), scale-120
    (120% of the size). Each view costs a pass over all slices."""
    view_mean: Literal["logit", "probability"] = "logit"
    """Average the views' predictions as logits or as probabilities; features are averaged as they are."""

    def __post_init__(self) -> None:
        if not self.views:
            raise ValueError("--views: at least one is needed; plain is the slice as it is")
        for name in self.views:
            sized = _SIZED.fullmatch(name)
            low, high = (50, 99) if name.startswith("crop") else (50, 200)
            if not (name in {PLAIN, "transpose", *_FLIPS} or (sized and low <= int(sized[2]) <= high)):
                raise ValueError(
                    f"--views {name}: unknown; there are {PLAIN}, {', '.join(_FLIPS)}, transpose, crop-50 to crop-99 and "
                    "scale-50 to scale-200"
                )

    def identity(self) -> dict[str, Any]:
        return asdict(self)

    def outputs(self, task: SliceTask, network: Backbone, batch: dict[str, Any]) -> dict[str, Any]:
        """Output columns of a batch, averaged over the views, and the pooled features.

        Returns:
            The columns of SliceTask.outputs, and "feature": (batch,) arrays of (features,) float32.
        """
        logits, features = [], []
        for name in self.views:
            pooled = network.features(view(batch["image"], name))
            features.append(pooled.float())
            logits.append(network.head(pooled).double())
        if self.view_mean == "logit":
            probabilities = sum(logits[1:], logits[0]).div(len(logits)).sigmoid()
        else:
            chances = [logit.sigmoid() for logit in logits]
            probabilities = sum(chances[1:], chances[0]).div(len(chances))
        feature = sum(features[1:], features[0]).div(len(features)).cpu().numpy()
        column = np.empty(len(feature), dtype=object)
        column[:] = list(feature)
        return task.columns_of(probabilities.cpu().numpy(), batch) | {"feature": column}

    def pack(self, outputs: pd.DataFrame) -> pa.Table:
        """One row a stack. Raises ValueError for what features cannot hold."""
        return pack_stacks(outputs)


def view(images: Tensor, name: str) -> Tensor:
    """One view of a batch.

    Args:
        images: (batch, channels, rows, columns) uint8.
    Returns:
        The same type and axes; of another size for a scale.
    """
    if name == PLAIN:
        return images
    if name in _FLIPS:
        return images.flip(_FLIPS[name])
    if name == "transpose":
        return images.transpose(2, 3)
    sized = _SIZED.fullmatch(name)
    assert sized, name
    part, size = int(sized[2]) / 100, images.shape[2:]
    if sized[1] == "scale":
        return _resize(images, [round(side * part) for side in size])
    rows, columns = (round(side * (1 - part) / 2) for side in size)
    inner = images[:, :, rows : size[0] - rows, columns : size[1] - columns]
    return _resize(inner, list(size))


def _resize(images: Tensor, size: list[int]) -> Tensor:
    from torch.nn import functional

    out = functional.interpolate(images.float(), size=size, mode="bilinear", align_corners=False, antialias=True)
    return out.round().clamp(0, 255).to(images.dtype)
