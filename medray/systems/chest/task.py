"""The film's task: one grey radiograph → a probability for each finding, or group of findings, that is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import pandas as pd
import tyro

from medray.shards.classes import any_known
from medray.systems.chest.classes import FINDINGS, members
from medray.systems.chest.scores import film_metrics
from medray.systems.chest.views import centre, corners, resized
from medray.tasks.backbone import BackboneTask
from medray.tasks.task import At, Example

if TYPE_CHECKING:
    from torch import Tensor, nn

IDENTIFIERS = ("image_id", "patient_id")


@dataclass(frozen=True, kw_only=True)
class FilmTask(BackboneTask):
    """A timm backbone on films of 3 equal channels, one linear layer, a sigmoid an output (CheXNet's network)."""

    id_column: ClassVar[str] = "image_id"
    host: ClassVar[tuple[str, ...]] = (*IDENTIFIERS, "view")
    columns: ClassVar[tuple[str, ...]] = (*IDENTIFIERS, "view", "rows", "columns", "image", *FINDINGS)

    backbone_flag: ClassVar[str] = "--backbone"
    backbone: tyro.conf.Suppress[str] = "densenet121"  # any timm model name
    targets: tuple[str, ...] = FINDINGS
    """Outputs: findings (Mass), groups that medray knows (abnormal, tumour, inflammation) or of your own
    (nodular=Mass|Nodule)."""
    resize_px: int = 256
    """The film's shorter side becomes this."""
    crop_px: int = 224
    """Side of the square that is cut out of it for the network."""
    random_crop: bool = True
    """Training cuts the square out anywhere, not in the middle."""
    flip: bool = True
    """Augment with horizontal flips."""
    shift: float = 0.0
    """Augment: largest shift, in parts of the side."""
    zoom: float = 0.0
    """Augment: largest change of scale."""
    rotate_deg: float = 0.0
    """Augment: largest rotation in degrees."""
    views: Literal["centre", "flip", "ten"] = "centre"
    """Predict from the central crop, from it and its mirror image, or from ten: the four corners and the centre of the
    central square, and their mirror images. Probabilities are averaged."""
    positive_weight: float = 1.0
    """Weight of positives in the loss. 1: the remedy is off; other weights need recalibrated probabilities."""
    label_smoothing: float = 0.0
    """Labels become this much less certain."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.targets:
            raise ValueError("--targets: one or more are needed")
        names = [members(target)[0] for target in self.targets]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"--targets: {', '.join(twice)} is asked for more than once")
        taken = sorted(set(names) & {*IDENTIFIERS, "view", "fold", "split"})
        if taken:
            raise ValueError(f"--targets: {', '.join(taken)} is the name of another column; choose another one")
        if not 32 <= self.crop_px <= self.resize_px:
            raise ValueError(
                f"--crop-px {self.crop_px}, --resize-px {self.resize_px}: the crop is at least 32 and at most as large as "
                "what it is cut from"
            )
        if not self.positive_weight > 0:
            raise ValueError(f"--positive-weight {self.positive_weight}: must be above 0")
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(f"--label-smoothing {self.label_smoothing}: from 0 to below 1")
        if min(self.shift, self.zoom, self.rotate_deg) < 0 or self.zoom > 0.9:
            raise ValueError(
                f"--shift {self.shift}, --zoom {self.zoom}, --rotate-deg {self.rotate_deg}: 0 or more, zoom at most 0.9"
            )

    @property
    def names(self) -> tuple[str, ...]:
        """Of the outputs, in the order of ``targets``."""
        return tuple(members(target)[0] for target in self.targets)

    @property
    def shard_needs(self) -> tuple[str, ...]:
        """In the words of ``Radiograph.holding``."""
        return (f"{self.resize_px}px",)

    def labelled(self, index: pd.DataFrame) -> np.ndarray:
        """Where one finding is known."""
        return any_known(index, FINDINGS)

    def train_example(self, row: Mapping[str, Any], rng: np.random.Generator) -> Example:
        return self._example(row, _augmented(resized(_image(row), self.resize_px), self, rng))

    def example(self, row: Mapping[str, Any]) -> Example:
        """The central crop; for ten views the central square that they are cut from."""
        side_px = self.resize_px if self.views == "ten" else self.crop_px
        return self._example(row, centre(resized(_image(row), self.resize_px), side_px))

    def _example(self, row: Mapping[str, Any], image: np.ndarray) -> Example:
        return {
            **{name: row[name] for name in IDENTIFIERS},
            "view": row["view"] or "",
            "image": np.ascontiguousarray(image[None]),  # one channel travels, the network makes it three
            "labels": labels_of(row, self.targets),
        }

    def network(self) -> nn.Module:
        return self.make_backbone(3, len(self.targets), grey=True)

    def losses(self, network: nn.Module, batch: dict[str, Any], at: At) -> dict[str, Tensor]:
        from medray.nn.losses import masked_binary_cross_entropy

        logits = network(_middle(batch["image"], self.crop_px))
        weights = (1.0,) * len(self.targets)
        loss = masked_binary_cross_entropy(logits, batch["labels"], weights, self.label_smoothing, self.positive_weight)
        return {"loss": loss}

    def outputs(self, network: nn.Module, batch: dict[str, Any]) -> dict[str, np.ndarray]:
        views = self._views(batch["image"])
        probabilities = sum(network(view).double().sigmoid() for view in views) / len(views)
        return self.columns_of(probabilities.cpu().numpy(), batch)

    def _views(self, images: Tensor) -> list[Tensor]:
        """(batch, 1, crop_px, crop_px) each, of images of that size or, for ten views, of (batch, 1, side, side)."""
        if self.views == "ten":
            side_px = images.shape[-1]
            crops = [
                images[..., top : top + self.crop_px, left : left + self.crop_px]
                for top, left in corners(side_px, self.crop_px)
            ]
        else:
            crops = [images]
        return crops if self.views == "centre" else [view for crop in crops for view in (crop, crop.flip(-1))]

    def columns_of(self, probabilities: np.ndarray, batch: dict[str, Any]) -> dict[str, np.ndarray]:
        """Output columns of a batch with these (batch, targets) probabilities."""
        labels = batch["labels"].cpu().numpy()
        return {
            **{name: np.asarray(batch[name]) for name in (*IDENTIFIERS, "view")},
            **{f"p_{name}": probabilities[:, i] for i, name in enumerate(self.names)},
            **{name: labels[:, i] for i, name in enumerate(self.names)},
        }

    def metrics(self, outputs: pd.DataFrame) -> dict[str, float]:
        return film_metrics(outputs, self.names)

    def example_input(self) -> np.ndarray:
        return np.zeros((2, 1, self.crop_px, self.crop_px), dtype=np.uint8)


def labels_of(row: Mapping[str, Any], targets: tuple[str, ...]) -> np.ndarray:
    """(targets,) float32 of a row's findings: 0, 1, or NaN where unknown.

    A group is 1 where a known member is 1, unknown where none is 1 and one is unknown, else 0.
    """
    out = []
    for target in targets:
        values = [row[finding] for finding in members(target)[1]]
        known = [v for v in values if v is not None and v == v]  # NaN is not itself
        out.append(1.0 if 1 in known else 0.0 if len(known) == len(values) else np.nan)
    return np.array(out, dtype=np.float32)


def _image(row: Mapping[str, Any]) -> np.ndarray:
    return np.frombuffer(row["image"], dtype=np.uint8).reshape(row["rows"], row["columns"])


def _middle(images: Tensor, side_px: int) -> Tensor:
    top, left = (images.shape[-2] - side_px) // 2, (images.shape[-1] - side_px) // 2
    return images[..., top : top + side_px, left : left + side_px]


def _augmented(image: np.ndarray, task: FilmTask, rng: np.random.Generator) -> np.ndarray:
    """(rows, columns) of a resized film → (crop_px, crop_px)."""
    if task.shift or task.zoom or task.rotate_deg:
        image = _moved(image, task, rng)
    if task.random_crop:
        top, left = (int(rng.integers(0, side - task.crop_px + 1)) for side in image.shape)
        image = image[top : top + task.crop_px, left : left + task.crop_px]
    else:
        image = centre(image, task.crop_px)
    return image[:, ::-1] if task.flip and rng.random() < 0.5 else image


def _moved(image: np.ndarray, task: FilmTask, rng: np.random.Generator) -> np.ndarray:
    """Turned, scaled and shifted about its middle; black comes in at the edges, as outside the collimator."""
    import cv2

    rows, columns = image.shape
    degrees = rng.uniform(-task.rotate_deg, task.rotate_deg)
    matrix: Any = cv2.getRotationMatrix2D(
        ((columns - 1) / 2, (rows - 1) / 2), degrees, 1 + rng.uniform(-task.zoom, task.zoom)
    )
    matrix[:, 2] += rng.uniform(-task.shift, task.shift, 2) * np.array([columns, rows], dtype=np.float64)
    return cv2.warpAffine(image, matrix, (columns, rows), flags=cv2.INTER_LINEAR)
