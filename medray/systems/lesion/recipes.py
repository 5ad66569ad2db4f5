"""Recipes: functions that return a task. A variant changes the base with ``dataclasses.replace``."""

from __future__ import annotations

from dataclasses import replace

from medray.systems.lesion.task import LesionTask
from medray.tasks.recipes import named


def vnet() -> LesionTask:
    """The source's: V-Net on 80³ crops, every other one with lesion, 5 voxels of context, Dice with squared denominator.

    Crops without lesion teach Dice nothing (they only add a constant), so cross-entropy is added, as the source offers.
    Learning rate, schedule, steps and clipping are ours.
    """
    return LesionTask(
        architecture="vnet", patch_DHW=(80, 80, 80), context_padding=5, crops=4, foreground_share=0.5, batch_size=4,
        steps_per_epoch=250, epochs=100, optimizer="adam", learning_rate=1e-4, schedule="cosine", warmup_fraction=0.02, clip_norm=1.0,
        dropout=0.1, resampled_share=0.5, rotation_deg=15.0, scaling=0.15, deformation_mm=2.0, subvoxel_shift=True,
        flip_axes=("D", "H", "W"), noise=0.05, mean_shift=0.1, deviation_shift=0.1, gamma=0.3,
    )  # fmt: skip


def segresnet() -> LesionTask:
    """MONAI's SegResNet: the same examples, AdamW, Dice and cross-entropy, a wider patch."""
    return replace(
        vnet(), architecture="segresnet", patch_DHW=(96, 96, 96), context_padding=0, dropout=0.0, optimizer="adamw",
        learning_rate=3e-4, weight_decay=1e-5,
    )  # fmt: skip


def resenc() -> LesionTask:
    """A U-Net with residual blocks (MONAI's DynUNet), trained as nnU-Net does: SGD at 0.01, of which it has no equal in the
    schedule; a cosine falls as far."""
    return replace(
        segresnet(), architecture="resenc", optimizer="sgd", learning_rate=1e-2, weight_decay=3e-5, clip_norm=12.0
    )


def unet() -> LesionTask:
    """A plain 3D U-Net (MONAI's UNet)."""
    return replace(segresnet(), architecture="unet", learning_rate=1e-3)


def phantom() -> LesionTask:
    """Small enough to learn phantoms on two CPU cores in a minute."""
    return LesionTask(
        architecture="unet", width=8, levels=3, patch_DHW=(32, 32, 32), crops=4, batch_size=4, steps_per_epoch=60, epochs=3,
        optimizer="adamw", learning_rate=4e-3, weight_decay=1e-4, schedule="one-cycle", clip_norm=1.0, flip_axes=("D", "H", "W"),
    )  # fmt: skip


RECIPES = {r.__name__: r for r in (vnet, segresnet, resenc, unet, phantom)}


def recipe(name: str) -> LesionTask:
    """The recipe of that name. Raises ValueError, with near names, for another one."""
    return named(RECIPES, name)()
