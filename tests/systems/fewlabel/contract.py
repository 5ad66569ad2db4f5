"""The contract suite's cases of sources that label a few organs each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from contract_case import Case
from few_scans import ORGANS, SOURCES, few_row

from medray.systems.fewlabel import recipes
from medray.systems.fewlabel.methods import ApartTask, ConditionalTask, CoTrainingTask
from medray.systems.fewlabel.task import FewLabelTask


def scans(recipe: Callable[[], FewLabelTask], floor: float = 0.75) -> Case:
    task = replace(
        recipe(), organs=ORGANS, drawn_by=tuple(f"{source}:{organ}" for source, own in SOURCES.items() for organ in own),
        patch_DHW=(12, 12, 12), batch_size=4, epochs=2, width=8, levels=3, foreground_share=1.0,
    )  # fmt: skip
    return Case(
        task, [few_row(number) for number in range(4)], labels=("mask", "sets", "scored", "foreground"), floor=floor,
        image="voxels", keeps_shape=False, known=("architecture", "crops", "unlabelled"), unknown=f"dice_{ORGANS[-1]}",
    )  # fmt: skip


def of_ladder(kind: type[FewLabelTask], floor: float, base: Callable[[], FewLabelTask] = recipes.small) -> Case:
    return scans(lambda: recipes.method(kind, base()), floor)


CASES = {name: partial(scans, recipe) for name, recipe in recipes.RECIPES.items()} | {
    "background": partial(scans, lambda: replace(recipes.small(), unlabelled="background")),
    "apart": partial(of_ladder, ApartTask, 0.75),
    "conditional": partial(of_ladder, ConditionalTask, 0.75),
    "cotraining": partial(of_ladder, CoTrainingTask, 1.5),
}
