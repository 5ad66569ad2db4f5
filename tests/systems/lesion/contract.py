"""The contract suite's cases of lesions: every recipe, and what recipes have off."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from contract_case import Case
from lesion_scans import scan_row

from medray.systems.lesion import recipes
from medray.systems.lesion.task import LesionTask

WIDTHS = {"vnet": 2, "segresnet": 8, "resenc": 4, "unet": 8}
LEVELS = {"vnet": None, "segresnet": 2, "resenc": 3, "unet": 2}


def scans(recipe: Callable[[], LesionTask], floor: float) -> Case:
    task = recipe()
    task = replace(
        task, patch_DHW=(12, 12, 12), context_padding=min(2, task.context_padding), batch_size=4, epochs=2, dropout=0.0,
        width=WIDTHS[task.architecture], levels=LEVELS[task.architecture], foreground_share=1.0,
    )  # fmt: skip
    rows = [scan_row(number, classes=len(task.classes)) for number in range(4)]
    return Case(
        task, rows, labels=("mask", "foreground", "lesion_ml"), floor=floor, image="voxels", keeps_shape=False,
        known=("architecture", "crops", "overlap"), unknown=f"dice_{task.classes[-1]}",
    )  # fmt: skip


def several_classes() -> LesionTask:
    """Everything on that no recipe has on."""
    return replace(
        recipes.unet(), classes=("old", "new"), activation="softmax", focal_weight=0.5, dice_of_batch=True, test_flips=True,
        flip_axes=("H",), channels=("t2", "flair"), keep="float16", channel_dropout=0.1, smallest_mm3=5.0,
    )  # fmt: skip


def recurrent() -> LesionTask:
    return replace(recipes.vnet(), recurrent=True, drop_connect=0.02)


CASES = {name: partial(scans, recipe, 0.75) for name, recipe in recipes.RECIPES.items()} | {
    "several-classes": partial(scans, several_classes, 0.75),
    "recurrent": partial(scans, recurrent, 0.9),
}
