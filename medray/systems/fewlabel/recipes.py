"""Recipes: functions that return a task. A variant changes the base with ``dataclasses.replace``."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import TypeVar

from medray.systems.fewlabel.methods import CoTrainingTask
from medray.systems.fewlabel.task import FewLabelTask
from medray.tasks.recipes import named

Kind = TypeVar("Kind", bound=FewLabelTask)


def marginal() -> FewLabelTask:
    """A residual U-Net with marginal Dice and cross-entropy, for grids of 1 to 3 mm. Crops, rates and steps are ours."""
    return FewLabelTask(
        architecture="resenc", patch_DHW=(64, 128, 128), crops=2, foreground_share=0.67, elsewhere="anywhere", batch_size=2,
        steps_per_epoch=250, epochs=200, optimizer="adamw", learning_rate=1e-3, weight_decay=1e-4, schedule="cosine",
        warmup_fraction=0.02, clip_norm=1.0, resampled_share=0.5, rotation_deg=10.0, scaling=0.15, noise=0.02,
    )  # fmt: skip


def small() -> FewLabelTask:
    """Narrow, for two CPU cores and grids of about 4 mm."""
    return replace(
        marginal(), architecture="unet", width=8, levels=4, patch_DHW=(32, 48, 48), foreground_share=0.8, epochs=4,
        steps_per_epoch=100, learning_rate=5e-3, schedule="one-cycle", dice_log=True, resampled_share=0.0, noise=0.0,
    )  # fmt: skip


def phantom() -> FewLabelTask:
    """For the drawn bodies, on two CPU cores."""
    return replace(small(), patch_DHW=(24, 40, 40), epochs=4, steps_per_epoch=60, overlap=0.25)


def exclusion() -> FewLabelTask:
    """Marginal and exclusion loss (Shi et al. 2021)."""
    return replace(marginal(), exclusion_weight=1.0)


def cotraining(base: str) -> CoTrainingTask:
    """Two networks that teach each other, with the fields of a recipe. Raises ValueError for another name."""
    return method(CoTrainingTask, recipe(base))


def method(kind: type[Kind], base: FewLabelTask, **changes: object) -> Kind:
    """Another of the ladder's networks with the fields of ``base``: as many steps, crops and rates alike."""
    values = {field.name: getattr(base, field.name) for field in fields(base)}
    return kind(**values | changes)  # type: ignore[arg-type]


RECIPES = {r.__name__: r for r in (marginal, small, phantom, exclusion)}


def recipe(name: str) -> FewLabelTask:
    """The recipe of that name. Raises ValueError, with near names, for another one."""
    return named(RECIPES, name)()
