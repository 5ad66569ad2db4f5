"""Published scores on ChestX-ray14, each with the split that it belongs to. Scores of different splits do not compare."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from medray.systems.chest.classes import FINDINGS

Split = Literal["own random patient split", "the three lists", "not stated"]


@dataclass(frozen=True)
class Published:
    """Area under the ROC curve on a test split."""

    name: str
    split: Split
    mean_auc: tuple[float, float]  # lowest and highest reported; equal where one is
    auc: Mapping[str, float] | None = None  # by finding, where it is reported


CHEXNET = Published(
    "CheXNet v3 (Rajpurkar et al., arXiv 1711.05225v3)",
    "own random patient split",
    (0.8414, 0.8414),
    MappingProxyType(
        dict(
            zip(
                FINDINGS,
                (.8094, .9248, .8638, .7345, .8676, .7802, .7680, .8887, .7901, .8878, .9371, .8047, .8062, .9164),
                strict=True,
            )
        )
    ),
)  # fmt: skip

PUBLISHED = (
    CHEXNET,
    Published("public reproductions of CheXNet", "the three lists", (0.8427, 0.8481)),
    Published("best public reproduction of CheXNet", "the three lists", (0.8508, 0.8508)),
    Published("best ensemble seen", "not stated", (0.854, 0.854)),
)

SOURCE_F1 = 0.812
SOURCE_KAPPA: Mapping[str, float] = MappingProxyType({"tumour": 0.939, "inflammation": 0.959})
"""The source's F1, and its agreement with senior radiologists (Cohen's kappa). It states neither how many films nor
which threshold: context, nothing to compare with."""
