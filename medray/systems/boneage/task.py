"""The age networks' task: a region of the registered hand → bone age in months."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import pandas as pd
import tyro

from medray.imaging.resize import resize
from medray.systems.boneage.stages.canvas import RegionName, size_px
from medray.systems.boneage.stages.disturb import Disturbed, check_sizes, moved
from medray.systems.boneage.stages.rows import ABOUT, IDENTIFIERS, image_of, number_of
from medray.tasks.backbone import BackboneTask
from medray.tasks.task import At, Example

if TYPE_CHECKING:
    from torch import Tensor, nn

Head = Literal["regression", "classification"]
Sexes = Literal["girls", "boys", "both"]
LETTER = {"girls": "F", "boys": "M"}
MONTHS = 240
"""Classes of the classification: class 0 is a bone age of 1 month, the last of 240."""
MIDDLE, HALF = 120.0, 120.0
"""Targets of the regression: (months − 120) / 120."""
OWN = "vgg"


@dataclass(frozen=True, kw_only=True)
class AgeTask(Disturbed, BackboneTask):
    """One of the 18 models, or a modern one. Both heads are trained by the mean absolute error in months / 120."""

    id_column: ClassVar[str] = "film_id"
    host: ClassVar[tuple[str, ...]] = (*IDENTIFIERS, "sex")
    columns: ClassVar[tuple[str, ...]] = (*ABOUT, "rows", "columns", "image")

    backbone_flag: ClassVar[str] = "--backbone"
    region: tyro.conf.Suppress[RegionName] = "A"
    head: tyro.conf.Suppress[Head] = "regression"
    sexes: tyro.conf.Suppress[Sexes] = "both"  # whose films it reads
    backbone: str = OWN
    """vgg: the source's network. Else any timm model name."""
    pretrained: bool = False
    """Of a timm backbone: start from timm's pretrained weights (needs the internet once)."""
    inputs: tuple[Literal["sex", "calendar"], ...] = ()
    """What the network is told beside the image; where it is not known, nothing."""
    scale: float = 0.25
    """Pixels of the network's image a pixel of the 2080 × 1600 canvas; B and C, which are smaller, have twice as many."""
    channels: tuple[int, ...] = (32, 64, 128, 128, 256, 384)
    """Of the source's network's blocks."""
    dense: int = 2048
    """Of its dense layers; of a backbone's last layer but one."""
    dropout: float = 0.3
    """Before and between the dense layers."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_disturbance()
        check_sizes(self.channels, self.dense, self.dropout)
        if not 0 < self.scale <= 1:
            raise ValueError(f"--scale {self.scale}: above 0, at most 1")
        if self.backbone == OWN and (self.pretrained or self.weights):
            raise ValueError(
                f"--backbone {OWN}: the source's network starts from random weights; leave --pretrained and --weights"
            )

    @property
    def model(self) -> str:
        """Its name among the 18."""
        return f"{self.region}-{self.head}-{self.sexes}"

    @property
    def region_scale(self) -> float:
        """Of its region."""
        return self.scale if self.region == "A" else min(1.0, 2 * self.scale)

    @property
    def image_px(self) -> tuple[int, int]:
        """Rows and columns of the network's image."""
        return size_px(self.region, self.region_scale)

    def reads(self, index: pd.DataFrame) -> np.ndarray:
        """(rows,) bool: films of its sexes."""
        if self.sexes == "both":
            return np.ones(len(index), dtype=bool)
        return index["sex"].to_numpy(dtype=object) == LETTER[self.sexes]

    def labelled(self, index: pd.DataFrame) -> np.ndarray:
        return index["age_months"].notna().to_numpy()

    def train_example(self, row: Mapping[str, Any], rng: np.random.Generator) -> Example:
        image = self._image(row)
        if not self.still:  # never mirrored: registration has just laid every thumb on one side
            image = moved(image, self.pose(rng, *image.shape))
        return self._example(row, self.exposure(image, rng))

    def example(self, row: Mapping[str, Any]) -> Example:
        return self._example(row, self._image(row))

    def _image(self, row: Mapping[str, Any]) -> np.ndarray:
        return resize(image_of(row), *self.image_px)

    def _example(self, row: Mapping[str, Any], image: np.ndarray) -> Example:
        calendar = number_of(row["calendar_months"])
        return {name: row[name] for name in IDENTIFIERS} | {
            "sex": row["sex"] or "",
            "image": np.ascontiguousarray(image[None]),
            "months": np.float32(number_of(row["age_months"])),
            "calendar": np.float32(calendar),
            "beside": self._beside(row["sex"], calendar),
        }

    def _beside(self, sex: str | None, calendar: float) -> np.ndarray:
        """(numbers,) float32: girl −1, boy 1; calendar age as a target, and whether it is known."""
        found: list[float] = []
        if "sex" in self.inputs:
            found.append({"F": -1.0, "M": 1.0}.get(sex or "", 0.0))
        if "calendar" in self.inputs:
            known = np.isfinite(calendar)
            found += [(calendar - MIDDLE) / HALF if known else 0.0, float(known)]
        return np.array(found, dtype=np.float32)

    def network(self) -> nn.Module:
        from medray.systems.boneage.stages.networks import AgeBackbone, AgeVGG

        outputs, beside = (1 if self.head == "regression" else MONTHS), len(self._beside(None, np.nan))
        if self.backbone == OWN:
            return AgeVGG(self.channels, self.dense, self.dropout, self.image_px, outputs, beside)
        return AgeBackbone(self.make_backbone(3, 1, grey=True), self.dense, self.dropout, outputs, beside)

    def _ages(self, network: nn.Module, batch: dict[str, Any]) -> Tensor:
        """(batch,) months, float32."""
        found = network(batch["image"], batch["beside"]).float()
        if self.head == "regression":
            return found[:, 0] * HALF + MIDDLE
        import torch

        months = torch.arange(1, MONTHS + 1, device=found.device, dtype=found.dtype)
        return (found.softmax(dim=1) * months).sum(dim=1)

    def losses(self, network: nn.Module, batch: dict[str, Any], at: At) -> dict[str, Tensor]:
        known = ~batch["months"].isnan()
        errors = (self._ages(network, batch) - batch["months"].nan_to_num()).abs() / HALF * known
        return {"loss": at.mean(errors.sum(), known.float().sum())}

    def outputs(self, network: nn.Module, batch: dict[str, Any]) -> dict[str, np.ndarray]:
        return {
            "p_months": self._ages(network, batch).cpu().numpy().astype(np.float64),
            "age_months": batch["months"].cpu().numpy().astype(np.float64),
            "calendar_months": batch["calendar"].cpu().numpy().astype(np.float64),
            **{name: np.asarray(batch[name]) for name in (*IDENTIFIERS, "sex")},
        }

    def metrics(self, outputs: pd.DataFrame) -> dict[str, float]:
        return {"mae_months": float((outputs["p_months"] - outputs["age_months"]).abs().mean())}

    def example_input(self) -> np.ndarray:
        return np.zeros((2, 1, *self.image_px), dtype=np.uint8)
