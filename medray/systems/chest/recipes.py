"""Recipes: functions that return a task. A variant changes the base with ``dataclasses.replace``."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from medray.systems.chest.classes import FINDINGS
from medray.systems.chest.task import FilmTask
from medray.tasks.recipes import named

TargetSet = Literal["findings", "abnormal", "source"]

TARGETS: dict[str, tuple[str, ...]] = {
    "findings": FINDINGS,
    "abnormal": ("abnormal",),
    "source": ("tumour", "inflammation"),
}
"""The 14 findings; any of them at all; the source's two outputs."""


def chexnet(targets: TargetSet = "findings") -> FilmTask:
    """CheXNet (arXiv 1711.05225): DenseNet-121 from ImageNet, Adam at 0.001, batches of 16.

    The paper divides the rate by ten whenever the validation loss stops falling and names no number of epochs. A cosine
    over the run falls as far and needs no rows to be watched; ten epochs are ours.
    """
    return FilmTask(
        backbone="densenet121", targets=TARGETS[targets], resize_px=256, crop_px=224, views="flip", epochs=10,
        batch_size=16, optimizer="adam", learning_rate=1e-3, schedule="cosine",
    )  # fmt: skip


def sgd(targets: TargetSet = "findings") -> FilmTask:
    """The source's: the same network, SGD with momentum 0.9 in place of Adam, rate 0.001, batches of 16."""
    return replace(chexnet(targets), optimizer="sgd")


def small(targets: TargetSet = "findings") -> FilmTask:
    """Small enough to learn films of 64 pixels from random weights on two CPU cores in minutes."""
    return FilmTask(
        backbone="test_efficientnet", pretrained=False, targets=TARGETS[targets], resize_px=64, crop_px=56, views="flip",
        epochs=8, batch_size=32, optimizer="adamw", learning_rate=1e-2, weight_decay=0.05, schedule="one-cycle", clip_norm=1.0,
    )  # fmt: skip


RECIPES = {r.__name__: r for r in (chexnet, sgd, small)}


def recipe(name: str, targets: TargetSet = "findings") -> FilmTask:
    """The recipe of that name. Raises ValueError, with near names, for another one."""
    return named(RECIPES, name)(targets)
