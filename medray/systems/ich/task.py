"""The backbone's task: one windowed slice → six probabilities."""

from __future__ import annotations

import functools
import os
import random
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pandas as pd
import tyro

from medray.imaging.resize import resize
from medray.imaging.window import parse_window
from medray.metrics.binary import unsmoothed
from medray.shards.classes import any_known
from medray.systems.ich.classes import CLASSES, PROBABILITIES, column_weights
from medray.systems.ich.scores import slice_metrics
from medray.tasks.backbone import BackboneTask
from medray.tasks.task import At, Example

if TYPE_CHECKING:
    from torch import Tensor, nn

    from medray.systems.ich.source import HeadCT

IDENTIFIERS = ("slice_id", "patient_id", "study_id", "stack_id", "index", "position_mm")


@dataclass(frozen=True, kw_only=True)
class SliceTask(BackboneTask):
    """A timm backbone on windowed slices; loss and score are the challenge's weighted log loss."""

    id_column: ClassVar[str] = "slice_id"
    columns: ClassVar[tuple[str, ...]] = (*IDENTIFIERS, "rows", "columns", "image", *CLASSES)
    stack_column: ClassVar[str] = "stack_id"
    host: ClassVar[tuple[str, ...]] = IDENTIFIERS

    backbone: tyro.conf.Suppress[str] = "seresnext50_32x4d"  # any timm model name
    windows: tuple[str, ...] = ("brain", "subdural", "bone")
    """Channels: windows by name (brain, subdural, bone, soft) or level/width in HU (40/80)."""
    neighbours: bool = False
    """Channels are the previous, this and the next slice of the stack, under the one window that --windows names."""
    stored: tyro.conf.Suppress[tuple[str, ...]] = (
        "brain",
        "subdural",
        "bone",
    )  # windows in the shards; the job sets it
    size_px: int = 224
    """Side of the square that a slice is resized to."""
    crop: float = 1.0
    """Central part of the slice that is kept, of each side."""
    head_crop: bool = False
    """Cut the square around the head out first (at least half of the slice's side)."""
    repeat_epidural: int = 1
    """Slices with an epidural bleed appear this often in an epoch, augmented anew each time. 1: the remedy is off."""
    negatives: float = 1.0
    """Changes the method, for speed: part of the slices without any bleed that an epoch sees, other ones in the next; at
    0.5 half of them, and all in two epochs. Probabilities are recalibrated on inner patients. 1: every epoch sees all."""
    early_size_px: int | None = None
    """Changes the method, for speed: in the first epochs the network learns from slices of this smaller size. Validation
    and prediction are of --size-px."""
    early_epochs: int = 0
    """So many epochs at --early-size-px; at least the last one is at --size-px."""
    epidural_weight: float = 1.0
    """Weight of epidural's column in the loss, positives and negatives alike. 1: the remedy is off."""
    any_weight: float = 2.0
    """Weight of any's column in the loss; the challenge's score has 2, and 1 for each other class."""
    label_smoothing: float = 0.0
    """Labels become this much less certain in the loss; probabilities are of the labels as they are."""
    augmentation: float = 1.0
    """Strength: shift, zoom, rotation and brightness times this; 0 leaves the flips only."""
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
        if min(self.epidural_weight, self.any_weight) < 0:
            raise ValueError(f"--epidural-weight {self.epidural_weight}, --any-weight {self.any_weight}: 0 or more")
        if self.augmentation < 0:
            raise ValueError(f"--augmentation {self.augmentation}: 0 or more")
        if self.repeat_epidural < 1:
            raise ValueError(f"--repeat-epidural {self.repeat_epidural}: must be at least 1")
        if not self.windows or (self.neighbours and len(self.windows) != 1):
            raise ValueError(
                f"--windows {' '.join(self.windows)}: {'one is' if self.neighbours else 'one or more are'} needed"
            )
        for window in self.windows:
            try:
                parse_window(window)
            except ValueError as error:
                raise ValueError(f"--windows {window}: {error}") from None
        if not 0.1 <= self.crop <= 1:
            raise ValueError(f"--crop {self.crop}: must be between 0.1 and 1")
        if self.size_px < 32:
            raise ValueError(f"--size-px {self.size_px}: must be at least 32")
        if not 0 < self.negatives <= 1:
            raise ValueError(f"--negatives {self.negatives}: above 0, and at most 1, which is all of them")
        self._check_early()

    def _check_early(self) -> None:
        size_px, epochs = self.early_size_px, self.early_epochs
        if size_px is not None and not 32 <= size_px < self.size_px:
            raise ValueError(f"--early-size-px {size_px}: at least 32, and smaller than --size-px {self.size_px}")
        if not 0 <= epochs < self.epochs:
            raise ValueError(
                f"--early-epochs {epochs}: 0 or more, and fewer than --epochs {self.epochs}; the last one is at --size-px"
            )
        if (size_px is None) != (epochs == 0):
            raise ValueError(f"--early-size-px {size_px}, --early-epochs {epochs}: both are needed, or neither")

    @property
    def channels(self) -> int:
        return 3 if self.neighbours else len(self.windows)

    @property
    def context(self) -> int:
        return int(self.neighbours)

    @property
    def shard_needs(self) -> tuple[str, ...]:
        return self.windows

    def reading(self, source: HeadCT) -> SliceTask:
        return replace(self, stored=source.windows)

    def labelled(self, index: pd.DataFrame) -> np.ndarray:
        """Where one class is known."""
        return any_known(index, CLASSES)

    def identity(self) -> dict[str, Any]:
        """Without ``stored``: what else the shards hold changes nothing."""
        return {name: value for name, value in super().identity().items() if name != "stored"}

    def times_per_epoch(self, index: pd.DataFrame) -> np.ndarray:
        """Unknown labels are neither positive nor negative: such a slice is seen once."""
        epidural, any_ = (index[name].to_numpy(dtype=np.float64) for name in ("epidural", "any"))
        return np.where(epidural == 1, float(self.repeat_epidural), np.where(any_ == 0, self.negatives, 1.0))

    @property
    def changes_rates(self) -> bool:
        """Whether training sees the classes at other rates than they come: probabilities need recalibration."""
        return self.repeat_epidural != 1 or self.negatives != 1

    def in_epoch(self, epoch: int) -> SliceTask:
        if self.early_size_px is None or epoch >= self.early_epochs:
            return self
        return replace(self, size_px=self.early_size_px, early_size_px=None, early_epochs=0)

    def train_example(self, row: Mapping[str, Any], rng: np.random.Generator) -> Example:
        transform = _transform(self)
        # one stream for all steps: with a seed each step would draw the same numbers, and flips would go together
        transform.set_random_state(rng, random.Random(int(rng.integers(2**31))))
        return self._example(row, transform(image=_image(row, self))["image"])

    def example(self, row: Mapping[str, Any]) -> Example:
        return self._example(row, resize(_image(row, self), self.size_px, self.size_px))

    def _example(self, row: Mapping[str, Any], image: np.ndarray) -> Example:
        labels = [np.nan if row[name] is None else float(row[name]) for name in CLASSES]
        return {
            **{name: row[name] for name in IDENTIFIERS},
            "position_mm": np.nan if row["position_mm"] is None else row["position_mm"],
            "image": np.ascontiguousarray(image.reshape(self.size_px, self.size_px, self.channels).transpose(2, 0, 1)),
            "labels": np.array(labels, dtype=np.float32),
        }

    def network(self) -> nn.Module:
        return self.make_backbone(self.channels, len(CLASSES))

    def feature_count(self) -> int:
        """Pooled features of the backbone. Raises ValueError where timm does not know it."""
        network: Any = self.without_weights().network()
        return int(network.feature_count)

    def losses(self, network: nn.Module, batch: dict[str, Any], at: At) -> dict[str, Tensor]:
        from medray.nn.losses import masked_binary_cross_entropy

        logits = network(batch["image"])
        weights = column_weights(self.epidural_weight, self.any_weight)
        return {"loss": masked_binary_cross_entropy(logits, batch["labels"], weights, self.label_smoothing)}

    def outputs(self, network: nn.Module, batch: dict[str, Any]) -> dict[str, np.ndarray]:
        return self.columns_of(network(batch["image"]).double().sigmoid().cpu().numpy(), batch)

    def columns_of(self, probabilities: np.ndarray, batch: dict[str, Any]) -> dict[str, np.ndarray]:
        """Output columns of a batch with these (batch, 6) probabilities of the labels that the network was fitted to."""
        probabilities = unsmoothed(probabilities, self.label_smoothing)
        labels = batch["labels"].cpu().numpy()
        return {
            **{name: np.asarray(batch[name]) for name in IDENTIFIERS},
            **{column: probabilities[:, i] for i, column in enumerate(PROBABILITIES)},
            **{column: labels[:, i] for i, column in enumerate(CLASSES)},
        }

    def metrics(self, outputs: pd.DataFrame) -> dict[str, float]:
        return slice_metrics(outputs)

    def example_input(self) -> np.ndarray:
        return np.zeros((2, self.channels, self.size_px, self.size_px), dtype=np.uint8)


def _image(row: Mapping[str, Any], task: SliceTask) -> np.ndarray:
    """(rows, columns, channels) of the part that is kept."""
    stored = np.frombuffer(row["image"], dtype=np.uint8).reshape(row["rows"], row["columns"], len(task.stored))
    # of the task's own windows: what else the shards hold changes nothing
    kept = head_square(stored[..., _channels(task)]) if task.head_crop else (slice(None), slice(None))
    if task.neighbours:
        image = np.concatenate(
            [_neighbour(r, stored.shape)[kept][..., _channels(task)] for r in row["context"]], axis=2
        )
    else:
        image = stored[kept]
        if _channels(task) != list(range(len(task.stored))):
            image = image[..., _channels(task)]
    margins = [round(side * (1 - task.crop) / 2) for side in image.shape[:2]]
    return image[margins[0] : image.shape[0] - margins[0], margins[1] : image.shape[1] - margins[1]]


def _neighbour(row: Mapping[str, Any], shape: tuple[int, ...]) -> np.ndarray:
    """Stored pixels of a neighbouring slice, in the shape of the middle one."""
    return resize(
        np.frombuffer(row["image"], dtype=np.uint8).reshape(row["rows"], row["columns"], shape[2]), *shape[:2]
    )


@functools.lru_cache(maxsize=16)
def _channels_of(windows: tuple[str, ...], stored: tuple[str, ...]) -> list[int]:
    have = [parse_window(window) for window in stored]
    return [have.index(parse_window(window)) for window in windows]


def _channels(task: SliceTask) -> list[int]:
    """Which of the stored windows are this task's."""
    return _channels_of(task.windows, task.stored)


def head_square(image: np.ndarray) -> tuple[slice, slice]:
    """The square around everything that is not air, at least half of the shorter side; all of an empty slice.

    Args:
        image: (rows, columns, windows) uint8 after the hardware's removal: outside the head it is 0.
    Returns:
        Rows and columns; at an edge of the slice the square moves inwards, and a side longer than the slice's is cut.
    """
    inside = image.max(axis=2) > 0
    rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
    if not len(rows):
        return slice(None), slice(None)
    side = int(max(np.ptp(rows) + 1, np.ptp(columns) + 1, min(inside.shape) // 2))
    return _around(rows, side, inside.shape[0]), _around(columns, side, inside.shape[1])


def _around(places: np.ndarray, side: int, length: int) -> slice:
    """``side`` of ``length`` places with these sorted ones in the middle, as far as there is room."""
    start = max(0, min((int(places[0]) + int(places[-1]) + 1 - side) // 2, length - side))
    return slice(start, min(start + side, length))


@functools.lru_cache(maxsize=4)
def _transform(task: SliceTask) -> Any:
    """The augmentation of a task, built once a process. Resized first: the rest then costs what the network sees."""
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # it asks for its newest version where it is imported
    import albumentations as A

    def resized(image: np.ndarray, **unused: Any) -> np.ndarray:
        return resize(image, task.size_px, task.size_px)

    steps: list[Any] = [A.Lambda(image=resized)]
    steps += [A.HorizontalFlip(p=0.5)] if task.flip else []
    steps += [A.VerticalFlip(p=0.5)] if task.flip_vertical else []
    steps += [A.Transpose(p=0.5)] if task.transpose else []
    names = ("shift", "zoom", "rotate_deg", "brightness")
    shift, zoom, rotate_deg, brightness = (getattr(task, name) * task.augmentation for name in names)
    if shift or zoom or rotate_deg:
        zoom = min(zoom, 0.9)  # a strong augmentation does not turn the slice inside out
        steps.append(
            A.Affine(
                scale=(1 - zoom, 1 + zoom), translate_percent=(-shift, shift), rotate=(-rotate_deg, rotate_deg), p=0.9
            )
        )
    if brightness:
        steps.append(A.RandomBrightnessContrast(min(brightness, 1.0), min(brightness, 1.0), p=0.5))
    return A.Compose(steps)
