"""The contract suite's cases of chest X-ray: one a recipe, with targets of each kind."""

from __future__ import annotations

from dataclasses import replace

from chest_films import film_row
from contract_case import Case

from medray.chest import recipes
from medray.chest.classes import FINDINGS
from medray.chest.task import FilmTask, labels_of


def films(recipe: FilmTask) -> Case:
    task = replace(recipe, pretrained=False, resize_px=72, crop_px=64, backbone="resnet10t", batch_size=4)
    rows = [film_row(number) for number in (0, 0b110, 0b1000000, 0b10000000100001)]
    return Case(task, rows, FINDINGS, task.names, lambda row: labels_of(row, task.targets).tolist())


CASES = {
    "chexnet": lambda: films(recipes.chexnet()),
    "sgd-source": lambda: films(recipes.sgd("source")),
    "small-abnormal": lambda: films(recipes.small("abnormal")),
}
