"""Recipes: functions that return a task. A variant changes the base with ``dataclasses.replace``."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any, TypeVar

from medray.systems.headneck.focus_task import FocusTask
from medray.systems.headneck.task import OrganTask
from medray.tasks.recipes import named

Later = TypeVar("Later", bound=FocusTask)


def snet() -> OrganTask:
    """The source's first stage: S-Net on crops of 40 × 192 × 192 at 2.5 × 1 × 1 mm, focal loss and a fifth of Dice.

    Learning rate, schedule, steps and augmentation are ours.
    """
    return OrganTask(
        architecture="snet", patch_DHW=(40, 192, 192), crops=1, foreground_share=0.8, elsewhere="anywhere", batch_size=2,
        steps_per_epoch=250, epochs=100, optimizer="adamw", learning_rate=1e-3, weight_decay=1e-5, schedule="cosine",
        warmup_fraction=0.02, clip_norm=1.0, dice_of_batch=True, dice_weight=0.2, cross_entropy_weight=0.0, focal_weight=1.0,
        resampled_share=0.5, rotation_deg=10.0, scaling=0.15, noise=0.02,
    )  # fmt: skip


def unet() -> OrganTask:
    """A plain 3D U-Net (MONAI's UNet) with four down-samplings: the ladder's first rung."""
    return replace(
        snet(), architecture="unet", width=16, levels=5, dice_weight=1.0, cross_entropy_weight=1.0, focal_weight=0.0
    )


def small() -> OrganTask:
    """Narrow, for two CPU cores and grids of about 4 mm."""
    return replace(
        snet(), widths=(8, 16, 32), grid_mm=(2.5, 3.9, 3.9), dilations_mm=(15.0, 30.0, 45.0, 60.0), patch_DHW=(32, 40, 40),
        blocks=1, crops=2, foreground_share=0.5, steps_per_epoch=100, epochs=4, learning_rate=5e-3, schedule="one-cycle", dice_weight=1.0, dice_log=True,
        cross_entropy_weight=1.0, focal_weight=0.0, resampled_share=0.0, noise=0.0,
    )  # fmt: skip


def phantom() -> OrganTask:
    """For the drawn heads, on two CPU cores."""
    return replace(
        small(), grid_mm=(3.0, 2.5, 2.5), dilations_mm=(10.0, 20.0, 30.0), patch_DHW=(24, 40, 40), overlap=0.25,
        epochs=7, steps_per_epoch=40, learning_rate=1e-2, foreground_share=1.0, dice_weight=2.0,
    )  # fmt: skip


def stage(kind: type[Later], base: OrganTask, small: tuple[str, ...], **changes: Any) -> Later:
    """A later stage on an S-Net as ``base`` describes it, for half as many epochs where ``changes`` do not say."""
    values = {field.name: getattr(base, field.name) for field in fields(base)}
    return kind(**values | {"epochs": max(1, base.epochs // 2), "small": small} | changes)


RECIPES = {r.__name__: r for r in (snet, unet, small, phantom)}


def recipe(name: str) -> OrganTask:
    """The recipe of that name. Raises ValueError, with near names, for another one."""
    return named(RECIPES, name)()
