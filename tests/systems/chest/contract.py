"""The contract suite's cases of chest X-ray: one a recipe, with targets of each kind."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from chest_films import film_row
from contract_case import Case, Row

from medray.systems.chest import recipes
from medray.systems.chest.classes import FINDINGS
from medray.systems.chest.task import FilmTask, labels_of


def films(recipe: FilmTask) -> Case:
    task = replace(recipe, pretrained=False, resize_px=72, crop_px=64, backbone="resnet10t", batch_size=4)
    rows = [film_row(number) for number in (0, 0b110, 0b1000000, 0b10000000100001)]
    still = replace(task, random_crop=False, flip=False, shift=0.0, zoom=0.0, rotate_deg=0.0)
    sizes = tuple(replace(still, resize_px=resize_px, crop_px=32) for resize_px in (72, 36))  # of films of 48 × 40
    expected: Callable[[Row], list[float]] = lambda row: labels_of(row, task.targets).tolist()  # noqa: E731
    return Case(task, rows, FINDINGS, task.names, expected, unaugmented=sizes)


CASES = {
    "chexnet": lambda: films(recipes.chexnet()),
    "sgd-source": lambda: films(recipes.sgd("source")),
    "small-abnormal": lambda: films(recipes.small("abnormal")),
}
