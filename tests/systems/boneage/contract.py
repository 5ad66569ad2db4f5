"""The contract suite's cases of bone age: the networks of all stages, both heads, with and without what they are told."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
from contract_case import Case, Row

from medray.systems.boneage import recipes
from medray.systems.boneage.stages.between import Masks
from medray.systems.boneage.stages.mask_task import MaskTask
from medray.systems.boneage.stages.point_task import PointTask

ABOUT = [(30.0, "F", 33.0), (204.0, "M", None), (96.0, None, 90.0), (150.0, "F", None)]


def film_row(number: int, rows: int = 72, columns: int = 64) -> Row:
    """An oval with a spot in it, the larger the older; as shards of films and of hands have it."""
    age, sex, calendar = ABOUT[number]
    rng = np.random.default_rng(number)
    ys, xs = np.mgrid[0:rows, 0:columns]
    x, y = columns * (0.4 + 0.05 * number), rows * 0.5
    mask = (((xs - x) / (0.3 * columns)) ** 2 + ((ys - y) / (0.4 * rows)) ** 2 < 1).astype(np.uint8)
    bone = ((xs - x) ** 2 + (ys - y) ** 2 < (age / 16) ** 2) * 90
    image = (mask * 90 + bone + rng.integers(0, 20, mask.shape)).astype(np.uint8)
    points = [x, y - 0.3 * rows, x + 0.25 * columns, y, x, y + 0.3 * rows]
    return {
        "film_id": f"film{number}", "patient_id": f"patient{number}", "age_months": age, "sex": sex, "calendar_months": calendar,
        "rows": rows, "columns": columns, "image": image.tobytes(), "mask": mask.tobytes(), "points": points,
    }  # fmt: skip


def rows(number_of_rows: int = 72, columns: int = 64) -> list[Row]:
    return [film_row(number, number_of_rows, columns) for number in range(len(ABOUT))]


def masks() -> Case:
    task = MaskTask(side_px=64, width=16, batch_size=4, epochs=2)
    still = replace(task, rotate_deg=0.0, shift=0.0, zoom=0.0, contrast=0.0, flip=False)
    sizes = (replace(still, side_px=96), replace(still, side_px=48))
    known = ("side_px", "width", "jaccard_weight")
    return Case(
        task,
        rows(),
        labels=("mask",),
        floor=0.5,
        unaugmented=sizes,
        known=known,
        derived=(Masks().outputs,),
        unknown="iou",
    )


def points() -> Case:
    task = PointTask(side_px=64, channels=(4, 8, 8), dense=64, dropout=0.0, batch_size=4, epochs=2)
    still = replace(task, rotate_deg=0.0, shift=0.0, zoom=0.0, contrast=0.0, flip=False)
    sizes = (replace(still, side_px=96), replace(still, side_px=48))
    return Case(
        task, rows(), labels=("points",), floor=0.05, unaugmented=sizes, known=("side_px", "dense"), unknown="error_px"
    )


def ages(recipe: Callable[[], recipes.Recipe], model: str, **changes: object) -> Case:
    task = replace(recipe().age, pretrained=False, scale=0.06, batch_size=4, epochs=2, dropout=0.0, dense=32, **changes)  # type: ignore[arg-type]
    task = recipes.model_task(task, model)
    still = replace(task, rotate_deg=0.0, shift=0.0, zoom=0.0, contrast=0.0)
    sizes = (replace(still, scale=0.08), replace(still, scale=0.04))
    known = ("backbone", "region", "head", "sexes")
    return Case(
        task,
        rows(*task.image_px),
        labels=("age_months",),
        floor=0.2,
        unaugmented=sizes,
        known=known,
        unknown="age_months",
    )


SMALL: dict[str, object] = {"channels": (8, 16)}
CASES = {
    "masks": masks,
    "points": points,
    "regression": partial(ages, recipes.published, "A-regression-both", **SMALL),
    "classification": partial(ages, recipes.published, "B-classification-girls", **SMALL),
    "told": partial(ages, recipes.phantom, "C-regression-boys", inputs=("sex", "calendar"), **SMALL),
    "modern": partial(ages, recipes.modern, "A-regression-both", backbone="resnet10t"),
}
