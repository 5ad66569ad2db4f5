"""The contract suite's cases of hemorrhage: every recipe of the backbones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
from contract_case import Case, Row

from medray.systems.ich import recipes
from medray.systems.ich.classes import CLASSES
from medray.systems.ich.task import SliceTask
from medray.systems.ich.views import Views


def slice_row(task: SliceTask, number: int) -> Row:
    rng = np.random.default_rng(number)
    image = rng.integers(0, 255, (48, 40, task.channels), dtype=np.uint8)
    labels = {name: int((number >> i) & 1) for i, name in enumerate(CLASSES)}
    ids = {name: f"{name}{number}" for name in ("slice_id", "patient_id", "study_id", "stack_id")}
    return {**ids, "index": number, "position_mm": 1.0, "rows": 48, "columns": 40, "image": image.tobytes(), **labels}


def slices(recipe: Callable[[], SliceTask]) -> Case:
    """On noise, which has no head."""
    task = recipe()
    task = replace(
        task,
        pretrained=False,
        size_px=64,
        backbone="resnet10t",
        batch_size=4,
        stored=task.windows,
        head_crop=False,
        early_size_px=task.early_size_px and 32,
    )
    rows = [slice_row(task, number) for number in (1, 2, 4, 40)]
    expected: Callable[[Row], list[float]] = lambda row: [row[c] for c in CLASSES]  # type: ignore[misc] # noqa: E731
    still = replace(
        task, augmentation=0.0, flip=False, flip_vertical=False, transpose=False, early_size_px=None, early_epochs=0
    )
    # smoothed labels cannot be fitted below their own entropy
    views = Views(views=("plain", "flip", "transpose", "crop-90", "scale-120"), view_mean="probability")
    return Case(
        task, rows, CLASSES, CLASSES, expected, floor=0.1 + task.label_smoothing, derived=(views.outputs,),
        unaugmented=tuple(replace(still, size_px=size_px) for size_px in (64, 32)),
    )  # fmt: skip


CASES = {name: partial(slices, recipe) for name, recipe in {**recipes.RECIPES, "phantom": recipes.phantom}.items()}
