"""The backbone's task: one windowed slice → six probabilities."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pandas as pd

from medray.ich.classes import CLASSES, PROBABILITIES, SCORE_WEIGHTS
from medray.ich.scores import weighted_log_loss
from medray.metrics.binary import Ranking
from medray.task import Example, Task

if TYPE_CHECKING:
    from torch import Tensor, nn

IDENTIFIERS = ("slice_id", "patient_id", "study_id", "series_id", "index", "position_mm")


@dataclass(frozen=True, kw_only=True)
class SliceTask(Task):
    """A timm backbone on windowed slices; loss and score are the challenge's weighted log loss."""

    id_column: ClassVar[str] = "slice_id"
    columns: ClassVar[tuple[str, ...]] = (*IDENTIFIERS, "rows", "columns", "image", *CLASSES)

    backbone: str = "seresnext50_32x4d"
    """Any timm model name."""
    pretrained: bool = True
    """Start from timm's pretrained weights (needs the internet once); --no-pretrained starts from random ones."""
    size_px: int = 224
    """Side of the square that a slice is resized to."""
    crop: float = 1.0
    """Central part of the slice that is kept, of each side."""
    channels: int = 3
    """Windows in the shards; the job sets it."""
    dropout: float = 0.0
    """Before the last layer."""
    class_weights: tuple[float, ...] = SCORE_WEIGHTS
    """Of each class's column in the loss, epidural … any."""
    label_smoothing: float = 0.0
    """Labels become this much less certain."""
    flip: bool = True
    """Augment with horizontal flips."""
    flip_vertical: bool = False
    """Augment with vertical flips."""
    transpose: bool = False
    """Augment by swapping rows and columns."""
    shift: float = 0.05
    """Augment: largest shift, in parts of the side."""
    zoom: float = 0.1
    """Augment: largest change of scale."""
    rotate_deg: float = 15.0
    """Augment: largest rotation in degrees."""
    brightness: float = 0.1
    """Augment: largest change of brightness and contrast."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.class_weights) != len(CLASSES) or min(self.class_weights) < 0 or not sum(self.class_weights):
            raise ValueError(f"--class-weights {self.class_weights}: {len(CLASSES)} numbers of 0 or more are needed")
        if not 0.1 <= self.crop <= 1:
            raise ValueError(f"--crop {self.crop}: must be between 0.1 and 1")
        if self.size_px < 32:
            raise ValueError(f"--size-px {self.size_px}: must be at least 32")

    @property
    def name(self) -> str:
        return self.backbone

    def train_example(self, row: Mapping[str, Any], rng: np.random.Generator) -> Example:
        transform = _transform(self)
        transform.set_random_seed(int(rng.integers(2**31)))
        return self._example(row, transform(image=_image(row, self))["image"])

    def example(self, row: Mapping[str, Any]) -> Example:
        return self._example(row, _resize(_image(row, self), self.size_px))

    def _example(self, row: Mapping[str, Any], image: np.ndarray) -> Example:
        labels = [np.nan if row[name] is None else float(row[name]) for name in CLASSES]
        return {
            **{name: row[name] for name in IDENTIFIERS},
            "image": np.ascontiguousarray(image.reshape(self.size_px, self.size_px, self.channels).transpose(2, 0, 1)),
            "labels": np.array(labels, dtype=np.float32),
        }

    def network(self) -> nn.Module:
        from medray.nn.backbone import Backbone

        return Backbone(self.backbone, self.channels, len(CLASSES), self.pretrained, self.dropout)

    def losses(self, network: nn.Module, batch: dict[str, Any]) -> dict[str, Tensor]:
        from medray.nn.losses import masked_binary_cross_entropy

        logits = network(batch["image"])
        return {"loss": masked_binary_cross_entropy(logits, batch["labels"], self.class_weights, self.label_smoothing)}

    def outputs(self, network: nn.Module, batch: dict[str, Any]) -> dict[str, np.ndarray]:
        probabilities = network(batch["image"]).double().sigmoid().cpu().numpy()
        labels = batch["labels"].cpu().numpy()
        return {
            **{name: np.asarray(batch[name]) for name in IDENTIFIERS},
            **{column: probabilities[:, i] for i, column in enumerate(PROBABILITIES)},
            **{column: labels[:, i] for i, column in enumerate(CLASSES)},
        }

    def metrics(self, outputs: pd.DataFrame) -> dict[str, float]:
        labelled = outputs.dropna(subset=list(CLASSES))
        probabilities, labels = labelled[list(PROBABILITIES)].to_numpy(), labelled[list(CLASSES)].to_numpy()
        return {
            "weighted_log_loss": weighted_log_loss(probabilities, labels),
            "auc_any": Ranking(probabilities[:, -1], labels[:, -1]).auc(),
        }

    def example_input(self) -> np.ndarray:
        return np.zeros((2, self.channels, self.size_px, self.size_px), dtype=np.uint8)


def _image(row: Mapping[str, Any], task: SliceTask) -> np.ndarray:
    """(rows, columns, windows) of the central crop."""
    image = np.frombuffer(row["image"], dtype=np.uint8).reshape(row["rows"], row["columns"], task.channels)
    margins = [round(side * (1 - task.crop) / 2) for side in image.shape[:2]]
    return image[margins[0] : image.shape[0] - margins[0], margins[1] : image.shape[1] - margins[1]]


def _resize(image: np.ndarray, size_px: int) -> np.ndarray:
    import cv2

    shrinks = image.shape[0] > size_px
    return cv2.resize(image, (size_px, size_px), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


@functools.lru_cache(maxsize=4)
def _transform(task: SliceTask) -> Any:
    """The augmentation of a task, built once a process. Resized first: the rest then costs what the network sees."""
    import albumentations as A
    import cv2

    steps: list[Any] = [A.Resize(task.size_px, task.size_px, interpolation=cv2.INTER_AREA)]
    steps += [A.HorizontalFlip(p=0.5)] if task.flip else []
    steps += [A.VerticalFlip(p=0.5)] if task.flip_vertical else []
    steps += [A.Transpose(p=0.5)] if task.transpose else []
    if task.shift or task.zoom or task.rotate_deg:
        steps.append(
            A.Affine(
                scale=(1 - task.zoom, 1 + task.zoom),
                translate_percent=(-task.shift, task.shift),
                rotate=(-task.rotate_deg, task.rotate_deg),
                p=0.9,
            )
        )
    if task.brightness:
        steps.append(A.RandomBrightnessContrast(task.brightness, task.brightness, p=0.5))
    return A.Compose(steps)
